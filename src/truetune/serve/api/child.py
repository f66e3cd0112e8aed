"""The API as the child of another program, which loads and unloads models with it (`web/chat/served.py`).

    python -m truetune.serve.api.child

What is served is read from stdin, one line of JSON: `{"file": path or null, "options": {name: value, …}, "where": …,
"key": …}`, so that the key stands neither in a list of processes nor in a file. What happens is told on stdout, one
line of JSON each: `{"say": [en, zh]}` while it loads, then `{"ready": {…}}` or `{"failed": [finding, …]}`. It ends with
its stdin: whatever becomes of the parent, no model is left in memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from truetune.findings import FAILED, OK, WRONG_OPTIONS, Both, Problem, Words, problem, refuse, worst_first
from truetune.hush import hush_libraries
from truetune.options import Config
from truetune.options.read import Given, read_config, read_file
from truetune.rules import apply_rules

if TYPE_CHECKING:
    from truetune.serve.api.calls import Speech
    from truetune.serve.engine import Engine

_PATIENCE = 10.0
"""Seconds to end by itself, once nobody needs it."""


def served_config(file: str | None, options: Mapping[str, Any], where: str) -> Config:
    """Options read and judged: those of a file (a run's config.yaml), and over them those that somebody typed.

    Args:
        options: texts, lists and mappings by name. where: they were typed, for what is said of them.

    Raises:
        Problem: all slips in them.
    """
    given = [Given(name, value if value != "" else None, where) for name, value in options.items()]
    config, findings = read_config(["--api_host=127.0.0.1"], [*(read_file(Path(file)) if file else ()), *given])
    refuse(worst_first([*findings, *apply_rules(config, "api")]))
    return config


def main() -> int:
    """Load, serve until stdin ends; the exit status."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no news
    hush_libraries()
    signal.signal(signal.SIGTERM, _leave)  # while it loads; then the server has its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        _serve(served_config(asked["file"], asked["options"], asked["where"]), asked["key"], out)
    except Problem as error:
        _tell(out, failed=[finding.as_dict() for finding in error.findings])
        return error.status if error.status == WRONG_OPTIONS else FAILED
    return OK


def _serve(config: Config, key: str, out: TextIO) -> None:
    def say(words: Words) -> None:
        _tell(out, say=list(words) if isinstance(words, Both) else [words, words])

    say(Both("starting", "正在启动"))
    from truetune.serve.api.server import load, make_server

    say(Both(f"loading {config.model_name_or_path}", f"正在加载 {config.model_name_or_path}"))

    with socket.create_server(("127.0.0.1", 0)) as port:
        served = load(config, say)
        if served.engine is None:
            raise problem("reward-model", Both("this is a reward model: it gives scores and does not answer.",
                                               "这是奖励模型：只打分，不回答。"), option="model_name_or_path")
        server = make_server(config, served, key)
        _tell(out, ready={"address": f"http://127.0.0.1:{port.getsockname()[1]}", "names": list(served.names),
                          **_facts(served.engine, served.speech)})
        try:
            asyncio.run(server.serve(sockets=[port]))
        finally:
            served.engine.close()
            server.streams.close()


def _facts(engine: Engine, speech: Speech) -> dict[str, Any]:
    """What the page wants to know of the model. tools, thinking: its template knows them, and has a switch for
    thinking. defaults: how words are drawn. gpu_bytes: what it holds of a GPU's memory."""
    import torch

    return {"context": engine.context, "tools": speech.tool_format is not None,
            "thinking": "enable_thinking" in str(engine.tokenizer.chat_template), "defaults": asdict(engine.defaults),
            "gpu_bytes": torch.cuda.memory_reserved() if torch.cuda.is_available() else 0}


def _tell(out: TextIO, **news: Any) -> None:
    out.write(json.dumps(news, ensure_ascii=False) + "\n")
    out.flush()


def _leave(number: int, frame: object) -> None:
    """As an exception, so that servers of its own (vLLM) are ended too."""
    raise SystemExit(128 + number)


def _end_with_stdin() -> None:
    """Once the parent has closed it or died: the first signal lets nobody in, the second cuts off who is inside."""
    sys.stdin.read()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
    time.sleep(_PATIENCE)
    os._exit(FAILED)  # it does not end by itself: in the midst of a long computation


if __name__ == "__main__":
    sys.exit(main())
