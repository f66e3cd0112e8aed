"""A chat template comes with a model, and a model comes from anywhere. Before it is used for an export it is rendered
once in a process of its own, with a limit on time, memory and text: one that never ends would hang the export, one that
writes gigabytes would take the machine down. transformers' sandbox keeps it from Python, but counts neither.

    python -m truetune.parity.tame       reads a template and what to render from stdin, prints which limit it met
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from truetune.findings import Both, problem
from truetune.parity.probes import PROBES

_SECONDS, _MEGABYTES, _LETTERS = 20, 1500, 1_000_000
"""Real templates render all probes in 0.1 s and 60,000 letters; to start Python and transformers takes 1 to 5 s."""


def require_tame(template: str, words: Mapping[str, Any], where: str, seconds: float = _SECONDS) -> None:
    """Raises:
    Problem: the template takes too long, too much memory, or writes too much, for some probe. words: the special tokens
        that it may name (`tokenizer.special_tokens_map`). where: whose it is.
    """
    asked = [{"messages": list(probe.messages), "tools": list(probe.tools) or None} for probe in PROBES]
    told = json.dumps({"template": template, "words": dict(words), "asked": asked, "seconds": seconds})
    try:
        child = subprocess.run([sys.executable, "-m", "truetune.parity.tame"], input=told, capture_output=True,
                               text=True, encoding="utf-8", timeout=seconds + 10)
        outcome = child.stdout.strip() or "memory"  # killed, or out of memory
    except subprocess.TimeoutExpired:
        outcome = "time"
    if outcome in _SAID:
        said = _SAID[outcome]
        raise problem("hostile-template", Both(f"the chat template of {where} {said.en}.",
                                               f"{where} 的对话模板{said.zh}。"), option="model_name_or_path",
                      fix=Both("Do not use it; name another with template, such as template: chatml.",
                               "请不要使用它；可用 template 指定别的模板，例如 template: chatml。"))


_SAID: Mapping[str, Both] = {
    "time": Both("does not come to an end", "不会结束"),
    "memory": Both("takes more memory than any template needs", "占用的内存远超正常模板"),
    "text": Both("writes more text than any template needs", "写出的文字远超正常模板"),
}


def _render_all(told: Mapping[str, Any]) -> str:
    """Which limit was met, or `fine`."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    _limit(told["seconds"])
    try:
        compiled = _compile_jinja_template(told["template"])
        for given in told["asked"]:
            try:
                pieces: Iterable[str] = compiled.generate(**told["words"], **given, documents=None,
                                                          add_generation_prompt=True)
                if _counted(pieces) > _LETTERS:
                    return "text"
            except (TemplateError, TypeError):
                continue  # it refuses these messages, as templates may
    except TemplateError:
        return "fine"  # it is no template: whoever uses it will say so
    except MemoryError:
        return "memory"
    return "fine"


def _counted(pieces: Iterable[str]) -> int:
    """The letters in `pieces`, counted until there are too many."""
    letters = 0
    for piece in pieces:
        letters += len(piece)
        if letters > _LETTERS:
            break
    return letters


def _limit(seconds: float) -> None:
    """End this process after so many seconds, and let it take only so much more memory. Where the system knows no such
    limits, whoever started it keeps the time."""
    if sys.platform == "win32":
        return
    import signal

    def late(number: int, frame: Any) -> None:
        sys.stdout.write("time\n")
        sys.stdout.flush()
        raise SystemExit

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + _MEGABYTES * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    print(_render_all(json.load(sys.stdin)))
