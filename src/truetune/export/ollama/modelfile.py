"""Modelfiles, written and read as Ollama reads them (parser/parser.go of https://github.com/ollama/ollama).

A value in three quotation marks ends at the first line that ends with three of them; nothing can be escaped in it, and
letters that Go does not call printable are dropped without a word. A value that would break out, or lose a letter, is
therefore never written: a template is put together so that it holds neither, and another text is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from truetune.export.ollama.emit import printable
from truetune.export.ollama.form import OllamaForm, Value
from truetune.findings import Both, Problem, problem

_LARGEST = 8 << 20
"""Bytes of a Modelfile that is read."""


class Command(NamedTuple):
    """A command of a Modelfile: `PARAMETER stop "x"` is `parameter stop`, `x`."""

    name: str
    value: str


def text_of_form(form: OllamaForm, comments: tuple[Both, ...] = ()) -> str:
    """The Modelfile.

    Raises:
        Problem: a text in it cannot be written in a Modelfile.
    """
    numbers = [f"PARAMETER {name} {value}" for name, value in form.parameters.items()]
    told = [line for words in comments for line in (words.en, words.zh)]
    left = [line for words in form.left_out for line in (f"{_LEFT_OUT.en}{words.en}", f"{_LEFT_OUT.zh}{words.zh}")]
    return "\n".join([*(f"# {' '.join(line.split())}" for line in (*told, *left)),
                      f"FROM {_line('FROM', form.weights)}",
                      *([f"ADAPTER {_line('ADAPTER', form.adapter)}"] if form.adapter else []),
                      f'TEMPLATE """{_text("TEMPLATE", form.template)}"""',
                      *([f'SYSTEM """{_text("SYSTEM", form.system)}"""'] if form.system else []),
                      *(f'PARAMETER stop "{_line("stop", stop)}"' for stop in form.stops), *numbers, ""])


_LEFT_OUT = Both("not served as trained: ", "与训练不同：")


def stops_safely(stop: str) -> bool:
    """Whether this text can be written as a stop word."""
    return bool(stop.strip()) and all(map(printable, stop)) and stop == stop.strip()


def _line(what: str, value: str) -> str:
    if not all(map(printable, value)) or value != value.strip() or '"' in value[:1]:
        raise _unwritable(what, value)
    return value


def _text(what: str, value: str) -> str:
    """A text for three quotation marks."""
    if '"""' in value or not all(letter in "\n\t" or printable(letter) for letter in value):
        raise _unwritable(what, value)
    return value


def _unwritable(what: str, value: str) -> Problem:
    return problem("unwritable-modelfile", Both(
        f"{what} {value[:40]!r} cannot stand in a Modelfile: three quotation marks would end it, and letters that are "
        "not printed would be lost.",
        f"{what} {value[:40]!r} 无法写进 Modelfile：三个引号会使它提前结束，不可见字符会丢失。"),
        option="export_format", fix=Both("Take these letters out.", "请去掉这些字符。"))


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_NAMES = ("from", "template", "system", "adapter", "parameter")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?\Z")


def form_of_text(text: str, opening: bool = False, family: str = "") -> OllamaForm:
    """What a Modelfile says.

    Raises:
        Problem: it is none, or holds commands that we never write.
    """
    found: dict[str, str] = {}
    stops: list[str] = []
    parameters: dict[str, Value] = {}
    for name, value in _commands(text):
        if name == "parameter stop":
            stops.append(value)
        elif name.startswith("parameter "):
            parameters[name.removeprefix("parameter ")] = _number(value)
        elif name in found:
            raise _unreadable(f"{name} stands there twice")
        else:
            found[name] = value
    if not {"from", "template"} <= set(found):
        raise _unreadable("FROM or TEMPLATE is missing")
    return OllamaForm(found["from"], found["template"], tuple(stops), parameters, found.get("system", ""),
                      found.get("adapter", ""), opening, family, _told(text))


def _told(text: str) -> tuple[Both, ...]:
    """What the comments say that is not served as trained."""
    lines = text.splitlines()
    english, chinese = ([line.removeprefix(f"# {words}") for line in lines if line.startswith(f"# {words}")]
                        for words in _LEFT_OUT)
    return tuple(Both(*pair) for pair in zip(english, chinese, strict=False))


def _commands(text: str) -> Iterator[Command]:
    """Every command, as Ollama's reader finds it."""
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] == "#":
            at = _line_end(text, at)
        else:
            named = re.compile(r"([A-Za-z]+)[ \t]").match(text, at)
            if not named or named[1].lower() not in _NAMES:
                raise _unreadable(f"unknown command {text[at:_line_end(text, at)][:40]!r}")
            name, at = named[1].lower(), named.end()
            if name == "parameter":
                setting = re.compile(r"(\w+)[ \t]", re.ASCII).match(text, at)
                if not setting:
                    raise _unreadable("a PARAMETER without a value")
                name, at = f"parameter {setting[1]}", setting.end()
            value, at = _value(text, at)
            yield Command(name, value)


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins at `at`, and where it ends: at the first line at whose end its quotation marks are closed.
    Letters that are not printed are dropped."""
    end = at
    while end < len(text):
        end = _line_end(text, end)
        value = _unquoted(text[at:end].strip())
        if value is not None:
            return "".join(letter for letter in value if letter in "\n\t\r" or printable(letter)), end
        end += 1
    raise _unreadable("quotation marks are not closed")


def _line_end(text: str, at: int) -> int:
    found = re.compile(r"[\r\n]").search(text, at)
    return found.start() if found else len(text)


def _unquoted(value: str) -> str | None:
    for marks in ('"""', '"'):
        if value.startswith(marks):
            closed = len(value) >= 2 * len(marks) and value.endswith(marks)
            return value[len(marks) : -len(marks)] if closed else None
    return value


def _number(value: str) -> Value:
    if not _NUMBER.match(value):
        return value
    return float(value) if re.search(r"[.e]", value) else int(value)


def _unreadable(reason: str) -> Problem:
    return problem("no-modelfile", Both(f"this is no Modelfile of ours: {reason}.",
                                        f"这不是我们写的 Modelfile：{reason}。"))


def read_text(path: Path) -> str:
    """Raises:
    Problem: it is not there, too long, or no text.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise _unreadable(f"it is longer than {_LARGEST:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(f"{path}: {error}") from None


