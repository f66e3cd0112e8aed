"""`truetune chat`: a conversation in the terminal, and on request what is behind an answer: the prompt as the model
read it, its ids, and how likely each word was."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import exp
from pathlib import Path
from typing import Any

from rich.text import Text

from truetune.files import write_text
from truetune.findings import Both, Problem, problem, refuse, spoken
from truetune.options import Config
from truetune.options.read import read_config
from truetune.report import Terminal, print_findings, visible
from truetune.serve.api.calls import AnswerReader, Speech, shown, speech_of
from truetune.serve.engine import Engine, load_engine
from truetune.serve.request import Token

_FENCE = '"""'
_TOP = 3
"""Words that /probs tells beside the one that was said."""
_OFF = ("none", "off", "-")


def chat(config: Config, terminal: Terminal, once: str | None = None) -> None:
    """Read lines, answer them, until `/exit` or the end of the input.

    Args:
        once: only answer this, and print nothing else.
    """
    engine = load_engine(config, terminal.say if once is None else lambda words: None)
    try:
        talk = Talk(engine, terminal, config)
        if once is not None:
            talk.answer(once)
        else:
            _converse(talk, config)
    finally:
        engine.close()


def _converse(talk: Talk, config: Config) -> None:
    if sys.stdin.isatty():
        import readline  # noqa: F401  (input() gets history and editing by its import)
    adapter = "".join(f" + {name}" for name in config.adapter_name_or_path)
    named = f"{config.model_name_or_path}{adapter}"
    talk.say(Both(f"{named}. /help lists the commands, /exit leaves. Ctrl-C stops an answer.",
                  f"{named}。/help 列出全部命令，/exit 退出，Ctrl-C 停止回答。"))
    asking = spoken(Both("\nuser: ", "\n用户："), talk.terminal.chinese)
    for asked in _asked(asking):
        if asked in ("/exit", "exit"):
            return
        try:
            if asked.startswith("/"):
                talk.command(asked)
            elif asked:
                talk.terminal.print(spoken(Both("assistant: ", "助手："), talk.terminal.chinese), end="")
                talk.answer(asked)
        except Problem as error:
            print_findings(error.findings, talk.terminal)


def _asked(prompt: str) -> Iterator[str]:
    """What is typed: lines, or several between lines of three quotation marks."""
    while True:
        try:
            line = input(prompt).strip()
            if line.startswith(_FENCE):
                lines = [line.removeprefix(_FENCE)]
                while not lines[-1].rstrip().endswith(_FENCE):
                    lines.append(input())
                line = "\n".join([*lines[:-1], lines[-1].rstrip().removesuffix(_FENCE)]).strip("\n")
        except EOFError:
            return
        yield line


@dataclass
class Last:
    """The last answer: the ids that were sent, and what came."""

    ids: Sequence[int] = ()
    tokens: list[Token] = field(default_factory=list)
    first: float = 0.0
    """Seconds to the first word."""
    seconds: float = 0.0


class Talk:
    """A conversation, and what can be done with it."""

    def __init__(self, engine: Engine, terminal: Terminal, config: Config):
        self.engine, self.terminal = engine, terminal
        self.sampling = engine.defaults
        self._values: dict[str, Any] = {}
        self._adapter: str | None = None
        self._stats = False
        self._last = Last()
        system = config.default_system
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self._speech: Speech = speech_of(engine.renderer)

    def say(self, words: Both | str) -> None:
        self.terminal.say(words)

    # ------------------------------------------------------------------------------------------------------- answers

    def answer(self, asked: str) -> None:
        """Print what the model says to this, and remember both.

        Raises:
            Problem: the template or the engine refuses it; then it is forgotten.
        """
        messages = [*self.messages, {"role": "user", "content": asked}]
        ids = self.engine.prompt(messages, **self._values)
        told = replace(self.sampling, top_logprobs=_TOP)
        self._last = last = Last(ids)
        reader = AnswerReader(self._speech, opened=self._opened(ids))
        thought, text, began = "", "", time.perf_counter()
        with closing(self.engine.complete(ids, told, self._adapter)) as pieces:
            try:
                for piece in pieces:
                    last.first = last.first or time.perf_counter() - began
                    last.tokens += piece.tokens
                    said = shown(piece.text, piece.tokens, self._speech.marks)
                    for part in reader.push(said, last=piece.finish is not None):
                        if part.text and thought and not text:
                            self.terminal.print()
                        self._print(part.thought, "dim")
                        self._print(part.text)
                        thought, text = thought + part.thought, text + part.text
            except KeyboardInterrupt:
                self._print(spoken(Both(" [stopped]", "【已停止】"), self.terminal.chinese))
        last.seconds = time.perf_counter() - began
        self.terminal.print()
        thoughts = {"reasoning_content": thought} if thought else {}
        self.messages = [*messages, {"role": "assistant", "content": text, **thoughts}]
        if self._stats:
            self._print_stats()

    def _opened(self, ids: Sequence[int]) -> bool:
        """Whether the prompt has opened a thought."""
        tail = str(self.engine.tokenizer.decode(list(ids[-16:]))).rstrip()
        return self._speech.thought is not None and tail.endswith(self._speech.thought[0])

    def _print(self, text: str, style: str = "") -> None:
        """Words of a model may hold codes that command a terminal."""
        if text:
            self.terminal.print(Text(visible(text), style), end="")

    def _print_stats(self) -> None:
        last, count = self._last, len(self._last.tokens)
        rest = last.seconds - last.first
        speed = f"{(count - 1) / rest:.1f}" if count > 1 and rest > 0 else "–"
        line = Both(f"{len(last.ids)} tokens in, {count} out, first after {last.first:.2f} s, then {speed} a second",
                    f"输入 {len(last.ids)} 个 token，输出 {count} 个；首个 {last.first:.2f} 秒，之后每秒 {speed} 个")
        self.terminal.print(Text(spoken(line, self.terminal.chinese), "dim"))

    # ------------------------------------------------------------------------------------------------------ commands

    def command(self, line: str) -> None:
        """Do what a line that begins with / says.

        Raises:
            Problem: it cannot be done.
        """
        word, _, rest = line.partition(" ")
        if word not in _COMMANDS:
            raise problem("unknown-command", Both("there is no such command.", "没有这个命令。"), option=word,
                          fix=Both("/help lists them.", "/help 列出全部命令。"))
        _COMMANDS[word].do(self, rest.strip())

    def help(self, rest: str) -> None:
        width = max(len(f"{name} {command.takes}") for name, command in _COMMANDS.items())
        for name, command in _COMMANDS.items():
            self.say(f"{f'{name} {command.takes}':<{width}}  {spoken(command.words, self.terminal.chinese)}")

    def clear(self, rest: str) -> None:
        self.messages = [message for message in self.messages if message["role"] == "system"]
        self.say(Both("forgotten", "已清空"))

    def system(self, rest: str) -> None:
        others = [message for message in self.messages if message["role"] != "system"]
        if rest:
            kept = [] if rest in _OFF else [{"role": "system", "content": rest}]
            self.messages = [*kept, *others]
        shown = next((message["content"] for message in self.messages if message["role"] == "system"), None)
        self.say(Both(f"system: {shown}", f"系统消息：{shown}") if shown else
                 Both("no system message of your own", "没有自定义的系统消息"))

    def adapter(self, rest: str) -> None:
        names = self.engine.adapters
        if rest and rest not in (*names, *_OFF):
            raise problem("no-such-adapter", Both(f"there is no adapter {rest!r}.", f"没有适配器 {rest!r}。"),
                          option="/adapter", fix=Both(
                              f"There are {', '.join(names)}." if names else "infer_adapters names some.",
                              f"可用：{'、'.join(names)}。" if names else "可用 infer_adapters 指定。"))
        if rest:
            self._adapter = None if rest in _OFF else rest
        others = ", ".join(names) or "-"
        self.say(Both(f"adapter: {self._adapter or 'as loaded'} (there are: {others})",
                      f"适配器：{self._adapter or '加载时的'}（可用：{others}）"))

    def set(self, rest: str) -> None:
        """`temperature=0.7 top_k=20`: options, read and refused as on the command line."""
        pairs = rest.replace(",", " ").split()
        strange = [pair for pair in pairs if pair.partition("=")[0] not in (*_SETTINGS, *_SWITCHES)]
        if strange:
            names = [*_SETTINGS, *_SWITCHES]
            raise problem("unknown-setting", Both("is nothing that can be set.", "不能设置。"), option=strange[0],
                          fix=Both(f"/set NAME=VALUE, of {', '.join(names)}.",
                                   f"用法：/set 名字=值，可设置 {'、'.join(names)}。"))
        config, findings = read_config([f"--{pair}" for pair in pairs])
        refuse(findings)
        given = {name: getattr(config, name) for name in (*_SETTINGS, *_SWITCHES) if config.given(name)}
        self.sampling = replace(self.sampling, **{_SETTINGS[name]: given[name] for name in given if name in _SETTINGS})
        self._values |= {name: given[name] for name in given if name in _SWITCHES}
        now = {name: getattr(self.sampling, field) for name, field in _SETTINGS.items()} | self._values
        self.say("  ".join(f"{name}={value}" for name, value in now.items()))

    def raw(self, rest: str) -> None:
        """The prompt as the model read it, and the answer."""
        ids = [*self._last_ids(), *(token.id for token in self._last.tokens)]
        self.terminal.print(Text(visible(str(self.engine.tokenizer.decode(ids, skip_special_tokens=False)))))

    def ids(self, rest: str) -> None:
        """The same in ids."""
        self.say(" ".join(map(str, self._last_ids())))
        self.terminal.print(Text(" ".join(str(token.id) for token in self._last.tokens), "green"))

    def probs(self, rest: str) -> None:
        """Each word of the last answer, how likely it was, and what else was likely."""
        self._last_ids()
        for token in self._last.tokens:
            others = [f"{_shown(text)} {exp(logp):.1%}" for number, text, logp in token.top if number != token.id]
            chance = f"{exp(token.logprob):6.1%}" if token.logprob is not None else "     –"
            line = Text(f"{chance}  {token.id:>6}  {_shown(token.text):<16}")
            self.terminal.print(line.append("  ".join(others), "dim"))

    def stats(self, rest: str) -> None:
        self._stats = not self._stats
        self.say(Both("speed is told after answers" if self._stats else "speed is not told",
                      "将在回答后显示速度" if self._stats else "不再显示速度"))
        if self._stats and self._last.tokens:
            self._print_stats()

    def save(self, rest: str) -> None:
        """The conversation as a data set of one row: with `formatting: openai` it can be trained on."""
        if not rest:
            raise problem("no-file", Both("say where to.", "请写出文件名。"), option="/save",
                          fix=Both("For instance: /save chat.json", "例如：/save chat.json"))
        path = Path(rest).expanduser()
        try:
            write_text(path, json.dumps([{"messages": self.messages}], indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise problem("unwritable", Both(f"{path} cannot be written: {error.strerror}.",
                                             f"无法写入 {path}：{error.strerror}。"), option="/save") from None
        self.say(Both(f"written to {path}", f"已写入 {path}"))

    def _last_ids(self) -> Sequence[int]:
        if not self._last.ids:
            raise problem("nothing-said", Both("nothing has been said yet.", "还没有对话。"))
        return self._last.ids


def _shown(text: str) -> str:
    """A token on one line."""
    return visible(text).replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")


_SETTINGS: Mapping[str, str] = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "repetition_penalty": "repetition_penalty", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "max_new_tokens": "max_new_tokens", "generation_seed": "seed"}
"""Options of which words are drawn, and what `Sampling` calls them."""
_SWITCHES = ("enable_thinking",)
"""Options that the template is told of."""


@dataclass(frozen=True)
class Command:
    """takes: what stands behind it. words: what it does."""

    do: Callable[[Talk, str], None]
    takes: str
    words: Both


_COMMANDS: Mapping[str, Command] = {
    "/help": Command(Talk.help, "", Both("this list", "显示此列表")),
    "/clear": Command(Talk.clear, "", Both("forget the conversation", "清空对话")),
    "/system": Command(Talk.system, "TEXT", Both("set the system message; none takes it back",
                                                 "设置系统消息；none 取消")),
    "/adapter": Command(Talk.adapter, "NAME", Both("answer with this adapter; none: as loaded",
                                                   "用这个适配器回答；none 恢复加载时的模型")),
    "/set": Command(Talk.set, "temperature=0.7", Both("how words are drawn; alone: how they are now",
                                                      "设置取词方式；不带参数则显示当前值")),
    "/raw": Command(Talk.raw, "", Both("the last prompt and answer as the model read them",
                                       "模型实际读到的上一次提示和回答")),
    "/ids": Command(Talk.ids, "", Both("the same as token ids", "同上，以 token id 显示")),
    "/probs": Command(Talk.probs, "", Both("how likely each word of the last answer was, and what else was",
                                           "上一次回答中每个词的概率，以及其他候选")),
    "/stats": Command(Talk.stats, "", Both("tell the speed after answers, or no more",
                                           "在回答后显示速度，再次输入则关闭")),
    "/save": Command(Talk.save, "FILE", Both("write the conversation as JSON that can be trained on",
                                             "把对话写成可用于训练的 JSON")),
    '"""': Command(Talk.help, "", Both("begins and ends a question of several lines", "多行输入的开始和结束")),
    "/exit": Command(Talk.help, "", Both("leave", "退出")),
}
