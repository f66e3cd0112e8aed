"""`truetune chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from contextlib import closing

from truetune.findings import Both, spoken
from truetune.options import Config
from truetune.report import Terminal
from truetune.serve.engine import load_engine

_HELP = Both("/clear forgets the conversation, /exit leaves. Ctrl-C stops an answer.",
             "/clear 清空对话，/exit 退出，Ctrl-C 停止回答。")


def chat(config: Config, terminal: Terminal) -> None:
    """Read lines, answer them, until `/exit` or the end of the input."""
    engine = load_engine(config, terminal.say)
    if sys.stdin.isatty():
        import readline  # noqa: F401  (input() gets history and editing by its import)
    opening = [{"role": "system", "content": config.default_system}] if config.default_system else []
    messages = list(opening)
    adapter = "".join(f" + {name}" for name in config.adapter_name_or_path)
    named = f"{config.model_name_or_path}{adapter}"
    terminal.say(Both(f"{named}. {_HELP}", f"{named}。{_HELP.zh}"))
    while True:
        try:
            asked = input(spoken(Both("\nuser: ", "\n用户："), terminal.chinese)).strip()
        except EOFError:
            return
        if asked in ("/exit", "exit"):
            return
        if asked in ("/clear", "clear"):
            messages = list(opening)
            terminal.say(Both("forgotten", "已清空"))
        elif asked:
            messages.append({"role": "user", "content": asked})
            pieces: list[str] = []
            print(spoken(Both("assistant: ", "助手："), terminal.chinese), end="", flush=True)
            try:
                with closing(engine.stream(messages)) as answer:
                    for piece in answer:
                        pieces.append(piece)
                        print(piece, end="", flush=True)
            except KeyboardInterrupt:
                print(spoken(Both(" [stopped]", "【已停止】"), terminal.chinese), end="")
            print()
            messages.append({"role": "assistant", "content": "".join(pieces)})
