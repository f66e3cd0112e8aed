"""From an engine's pieces to what OpenAI's API says: deltas, whole messages, log-probabilities.

A whole message is put together from the same deltas that a stream sends, so both say the same.
"""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from truetune.serve.api.calls import AnswerReader, Speech, shown
from truetune.serve.request import Piece, Token

Delta = dict[str, Any]
_LEAST = -9999.0
"""Stands for a probability of zero, whose logarithm JSON cannot say."""


class ChoiceWriter(ABC):
    """One choice of an answer, while it comes.

    Attributes:
        done: nothing more is wanted. calls: tools called so far.
    """

    def __init__(self) -> None:
        self.done, self.calls = False, 0

    @abstractmethod
    def push(self, piece: Piece) -> list[Delta]:
        """What the message says more with this piece."""

    def finish(self, why: str) -> str:
        """OpenAI's finish_reason."""
        return "tool_calls" if self.calls and why == "stop" else why

    def _call(self, name: str) -> Delta:
        delta = {"tool_calls": [{"index": self.calls, "id": f"call_{secrets.token_hex(12)}", "type": "function",
                                 "function": {"name": name, "arguments": ""}}]}
        self.calls += 1
        return delta

    def _arguments(self, text: str) -> Delta:
        return {"tool_calls": [{"index": self.calls - 1, "function": {"arguments": text}}]}


class Free(ChoiceWriter):
    """An answer as the model likes it: a thought, text, calls."""

    def __init__(self, reader: AnswerReader, speech: Speech):
        super().__init__()
        self._reader, self._speech = reader, speech

    def push(self, piece: Piece) -> list[Delta]:
        deltas: list[Delta] = []
        text = shown(piece.text, piece.tokens, self._speech.marks)
        for part in self._reader.push(text, last=piece.finish is not None):
            if part.thought:
                deltas.append({"reasoning_content": part.thought})
            if part.text:
                deltas.append({"content": part.text})
            if part.call:
                deltas.append(self._call(part.call.name))
                deltas.append(self._arguments(json.dumps(part.call.arguments, ensure_ascii=False)))
        self.done = self._reader.done
        return deltas


class Forced(ChoiceWriter):
    """A call of one tool: all that the model still says is its arguments."""

    def __init__(self, name: str):
        super().__init__()
        self._name = name

    def push(self, piece: Piece) -> list[Delta]:
        named = [] if self.calls else [self._call(self._name)]
        return [*named, *([self._arguments(piece.text)] if piece.text else [])]


def message_of(deltas: Iterable[Delta]) -> dict[str, Any]:
    """A whole message."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    for delta in deltas:
        for name in ("content", "reasoning_content"):
            if name in delta:
                message[name] = (message.get(name) or "") + delta[name]
        for call in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if "id" in call:
                calls.append({name: call[name] for name in ("id", "type")} | {"function": dict(call["function"])})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if message["content"] is None and "tool_calls" not in message:
        message["content"] = ""
    return message


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """As /v1/chat/completions tells them."""
    return {"content": [{**_told(token.text, token.logprob),
                         "top_logprobs": [_told(text, logp) for _, text, logp in token.top]} for token in tokens],
            "refusal": None}


def _told(text: str, logprob: float | None) -> dict[str, Any]:
    """bytes are null where a token holds a part of a character."""
    part = "\ufffd" in text
    return {"token": text, "logprob": max(logprob or 0.0, _LEAST), "bytes": None if part else list(text.encode())}


def completion_logprobs(tokens: Sequence[Token], offset: int) -> Mapping[str, Any]:
    """As /v1/completions tells them. offset: characters that the answer had before."""
    places = [offset]
    for token in tokens:
        places.append(places[-1] + len(token.text))
    return {"tokens": [token.text for token in tokens],
            "token_logprobs": [max(token.logprob or 0.0, _LEAST) for token in tokens],
            "top_logprobs": [{text: max(logp, _LEAST) for _, text, logp in reversed(token.top)} for token in tokens],
            "text_offset": places[:-1]}
