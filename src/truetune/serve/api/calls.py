"""An answer as its parts: the thought, what is said, and the calls of tools, while it comes piece by piece.

In which format the model calls is known from its template: an answer with a call is rendered, and the formats of
`data/tools` try to read it. So whatever was trained is read back, named or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import regex

from truetune.data.messages import BadRow, Conversation, Message, ToolCall
from truetune.data.renderer import Renderer
from truetune.data.tools import TOOL_FORMATS, Tools, parse_calls

PROBE: dict[str, Any] = {"type": "function", "function": {
    "name": "truetune_probe", "description": "Says what the weather is.", "parameters": {
        "type": "object", "properties": {"truetune_city": {"type": "string", "description": "A city."}},
        "required": ["truetune_city"]}}}
"""A tool that no model knows, to see how a template writes calls."""
_CALL = ToolCall("truetune_probe", {"truetune_city": "Paris"})


@dataclass(frozen=True)
class Speech:
    """How a model calls tools and thinks.

    Args:
        tool_format: how calls are read; None: its template knows no tools. written: the probe's call as the template
            writes it. thought: the words around a thought; None: the template knows none. marks: special tokens that
            are part of either, id → text: engines leave special tokens out of what they say.
    """

    tool_format: str | None = None
    written: str = ""
    thought: tuple[str, str] | None = None
    marks: dict[int, str] | None = None

    def call_opening(self, name: str) -> str:
        """What the template writes before the arguments of a call of `name`; "" where they are not written as JSON."""
        found = regex.search(r"\{\s*\"truetune_city\"", self.written)
        return self.written[: found.start()].replace(_CALL.name, name).rstrip() if found else ""

    @property
    def name_opening(self) -> str:
        """What the template writes before the name of a call."""
        return self.written.partition(_CALL.name)[0].removesuffix('"').rstrip()


_THOUGHTS = (("<think>", "</think>"), ("<seed:think>", "</seed:think>"), ("<|channel>thought", "<channel|>"),
             ("[THINK]", "[/THINK]"), ("<|START_THINKING|>", "<|END_THINKING|>"))
"""The words around thoughts, as the makers of models write them."""


def speech_of(renderer: Renderer) -> Speech:
    """How the model of this renderer calls and thinks, read from its template."""
    tokenizer = renderer.tokenizer
    template = str(tokenizer.chat_template or "")
    thought = next((words for words in _THOUGHTS if words[1] in template), None)
    written = _written(renderer)
    tool_format = next((name for name in sorted(TOOL_FORMATS, key=("default", "glm4").__contains__)
                        if parse_calls(written, name, (PROBE,)) == ("", [_CALL])), None) if written else None
    spoken = (written if tool_format else "") + "".join(thought or ())
    marks = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()
             if token.special and token.content in spoken}
    return Speech(tool_format, written, thought, marks)


def _written(renderer: Renderer) -> str:
    """The probe's call as the template writes it, without a thought before it and the end of the turn behind it; "" if
    it knows no calls."""
    talk = Conversation((Message("user", "Hi"), Message("assistant", "", None, (_CALL,))), (PROBE,))
    (rows,) = renderer.render([talk])
    if isinstance(rows, BadRow) or not rows[-1].runs:
        return ""
    run = rows[-1].runs[-1]
    ids = rows[-1].ids[run.first : run.last].tolist()
    if ids[-1] in renderer.stops:
        del ids[-1]
    text = str(renderer.tokenizer.decode(ids, skip_special_tokens=False))
    for _, closing in _THOUGHTS:
        text = text.rpartition(closing)[2]
    return text.strip()


@dataclass(frozen=True)
class Part:
    """Something that an answer said: a piece of its thought, of its text, or a whole call."""

    thought: str = ""
    text: str = ""
    call: ToolCall | None = None


class AnswerReader:
    """Takes an answer apart while it comes. What may be the beginning of a call is held back until it is known, and so
    is white space before it, which goes with a call.

    Args:
        opened: the prompt has opened a thought already.
        tools: what was offered; without any no calls are looked for.
    """

    def __init__(self, speech: Speech, opened: bool = False, tools: Tools = (), only_first: bool = False):
        """only_first: end with the first call."""
        self._speech, self._tools, self._only_first = speech, tools, only_first
        self._inside = opened
        self._before = speech.thought is not None and not opened
        """Nothing but white space has come, so a thought may open."""
        self._fresh = opened
        """A thought or what follows it begins; line feeds that part them are neither's."""
        self._text = ""
        """Not told yet."""
        self._read = 0
        """Calls of it that were told."""
        self._said = False
        self.done = False
        self._opening = regex.compile(_OPENINGS[speech.tool_format]) if tools and speech.tool_format else None
        self._whole = speech.tool_format in _AT_THE_END

    def push(self, text: str, last: bool = False) -> list[Part]:
        """What is known with some more text. last: no more will come."""
        self._text += text
        parts: list[Part] = []
        if self._before:
            self._open(last)
        if self._inside and self._begun():
            parts += self._think(last)
        if not (self._before or self._inside or self.done) and self._begun():
            parts += self._say(last)
        return [part for part in parts if part != Part()]

    def _open(self, last: bool) -> None:
        """Whether a thought opens, once that is known."""
        assert self._speech.thought
        mark, begun = self._speech.thought[0], self._text.lstrip()
        if begun.startswith(mark):
            self._text, self._before = begun.removeprefix(mark), False
            self._inside = self._fresh = True
        elif last or not mark.startswith(begun):
            self._before = False

    def _begun(self) -> bool:
        """Whether more than line feeds has come of what is fresh."""
        if self._fresh:
            self._text = self._text.lstrip("\n")
            self._fresh = not self._text
        return not self._fresh

    def _think(self, last: bool) -> list[Part]:
        assert self._speech.thought
        mark = self._speech.thought[1]
        thought, closed, rest = self._text.partition(mark)
        if closed:
            self._text, self._inside, self._fresh = rest, False, True
            return [Part(thought=thought.rstrip("\n"))]
        known = thought if last else thought[: len(thought) - _overlap(thought, mark)].rstrip("\n")
        self._text = thought[len(known) :]
        return [Part(thought=known)]

    def _say(self, last: bool) -> list[Part]:
        if self._opening is None:
            text, self._text = self._text, ""
            return [Part(text=text)]
        opened = self._opening.search(self._text, partial=not last)
        if not opened:
            return self._tell(0 if last else len(self._text) - len(self._text.rstrip()))
        if not self._read and opened.start():
            told = self._tell(len(self._text) - len(self._text[: opened.start()].rstrip()))
            return [*told, *self._call(last)]
        return self._call(last)

    def _tell(self, keep: int) -> list[Part]:
        """All text but the last `keep` characters."""
        said, self._text = self._text[: len(self._text) - keep], self._text[len(self._text) - keep :]
        self._said |= bool(said)
        return [Part(text=said)]

    def _call(self, last: bool) -> list[Part]:
        """Calls that are whole, once each; and at the end the text that is left."""
        if not last and (self._whole or not self._text.endswith((">", "]", "}", "`", ")"))):
            return []
        assert self._speech.tool_format
        said, calls = parse_calls(self._text, self._speech.tool_format, self._tools)
        if self._only_first and calls:
            calls, said, last, self.done = calls[:1], "", True, True
        fresh, self._read = calls[self._read :], len(calls)
        parts = [Part(call=call) for call in fresh]
        if last:
            self._text = ""
            parts.append(Part(text=f"\n{said}" if calls and self._said and said else said))
        return parts


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)


_JSON = r"[\[{]\s*(?:\{\s*)?\"(?:name|type|function|id|arguments|parameters)\""
_OPENINGS = {
    "default": r"Action:", "gemma4": r"<\|tool_call>", "glm4": r"(?m)^[\w.-]+[ \t]*\n\s*\{",
    "llama3": rf"<\|python_tag\|>|{_JSON}", "lfm2": r"<\|tool_call_start\|>", "minimax1": r"<tool_calls>",
    "minimax2": r"<minimax:tool_call>|<invoke name=", "mistral": rf"\[TOOL_CALLS\]|{_JSON}", "qwen": r"<tool_call>",
    "qwen3_5": r"<tool_call>|<function=", "glm4_moe": r"<tool_call>", "seed_oss": r"<seed:tool_call>|<function=",
    "ling": r"<tool_call>",
}
"""How calls open, in each format of `data/tools`."""
_AT_THE_END = ("glm4", "llama3", "mistral", "glm4_moe")
"""Formats in which only the end of the answer shows that a call is one."""


def shown(text: str, tokens: Sequence[Any], marks: dict[int, str] | None) -> str:
    """A piece's text with the special tokens that calls and thoughts are written with. They come before the text: a
    piece ends with the token that made its text whole."""
    return "".join(marks[token.id] for token in tokens if token.id in marks) + text if marks else text
