"""Errors of the page's handlers in words, in the language that the page is in, and never Gradio's bare "Error"."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from typing import Any, Literal, ParamSpec, TypeVar

import gradio as gr

from truetune.findings import Both, Finding, Problem, Severity, Words
from truetune.web.words import Language, say

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LOG = logging.getLogger(__name__)

_TITLES: dict[Severity, Both] = {"error": Both("That did not work", "没有成功"), "warn": Both("Take care", "请注意"),
                                 "info": Both("Done", "提示")}


def in_words(handler: Callable[_P, _R]) -> Callable[_P, _R]:
    """A handler of an event that tells what goes wrong, and then leaves its outputs as they are.

        @in_words
        def start(language: Language, held: Mapping[str, Any]): …
        button.click(start, [page.language, form.held], output)

    A `Problem` is told as its findings; anything else as a fault of the page's own, whose traceback goes to the log.
    The language is the handler's parameter of that name; without one, both languages are told. It may be a generator.
    """
    parameters = list(inspect.signature(handler).parameters)
    place = parameters.index("language") if "language" in parameters else None

    def language(arguments: tuple[Any, ...], named: dict[str, Any]) -> Language | None:
        return named.get("language") or (arguments[place] if place is not None and place < len(arguments) else None)

    @wraps(handler)
    def once(*arguments: Any, **named: Any) -> Any:
        with _told(language(arguments, named)):
            return handler(*arguments, **named)
        return gr.skip()

    @wraps(handler)
    def in_pieces(*arguments: Any, **named: Any) -> Generator[Any, None, None]:
        with _told(language(arguments, named)):
            yield from handler(*arguments, **named)  # type: ignore[misc]
            return
        yield gr.skip()

    return in_pieces if inspect.isgeneratorfunction(handler) else once  # type: ignore[return-value]


@contextmanager
def _told(language: Language | None) -> Iterator[None]:
    try:
        yield
    except Problem as error:
        show_findings(error.findings, language)
    except gr.Error:
        raise
    except Exception:  # whatever it is, a person waits for an answer; what it was stands in the log
        _LOG.exception("a handler of the page failed")
        toast(Both("The page itself failed here. The terminal in which it was started says why; what runs goes on.",
                   "网页自身在这里出错了。原因写在启动它的终端里；正在运行的任务不受影响。"), language)


def show_findings(findings: list[Finding], language: Language | None) -> None:
    """Findings as messages that come up over the page, the worst of them as the title says."""
    for severity in ("error", "warn", "info"):
        lines = [finding for finding in findings if finding.severity == severity]
        if lines:
            toast(Both(*("\n".join(_line(finding, chinese) for finding in lines) for chinese in (False, True))),
                  language, severity)


def _line(finding: Finding, chinese: bool) -> str:
    """Without the severity, which the title tells."""
    return finding.line(chinese).partition("  ")[2].strip()


def toast(words: Words, language: Language | None, severity: Literal["error", "warn", "info"] = "error") -> None:
    """A message that comes up over the page; `words` are text, not HTML. An error stays until it is closed.

    language: None tells both.
    """
    told = [say(words, language)] if language else list(dict.fromkeys([say(words, "en"), say(words, "zh")]))
    show = gr.Info if severity == "info" else gr.Warning
    show("<br>".join(escape(line) for text in told for line in text.splitlines()),
         duration=None if severity == "error" else 10, title=say(_TITLES[severity], language or "en"))
