"""What is asked of an engine and what it answers, in token ids. Imports nothing heavy.

Conversations become ids in the renderer and nowhere else, so every engine, in this process or behind an address, is
given the ids that the model was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Sampling:
    """How the words of one answer are drawn. The defaults change nothing of what the model says: it is drawn from the
    model's own probabilities.

    Args:
        max_new_tokens: longest answer.
        temperature: logits are divided by it; 0 is the likeliest word, always.
        top_p, top_k, min_p: draw among the likeliest words whose probability adds up to top_p, among the top_k
            likeliest (0: all), among those at least min_p times as likely as the likeliest (0: all).
        repetition_penalty: CTRL's (Keskar et al. 2019, arXiv:1909.05858, section 4.1): positive logits of words that
            stand in the prompt or the answer are divided by it, negative ones multiplied.
        presence_penalty, frequency_penalty: OpenAI's: subtracted from the logits of words in the answer, once, and once
            for each time the word was said.
        seed: the same seed gives the same words; None: another answer every time.
        stop: texts that end the answer; they are not part of it.
        ignore_eos: go on to max_new_tokens, whatever comes (for measuring).
        top_logprobs: None: no probabilities are told; n: those of the word and of the n likeliest.
        schema: the answer has to be JSON that this JSON Schema allows ({}: any JSON object).
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    top_logprobs: int | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Request:
    """A prompt and how it is to be answered. adapter: the name of one that the engine has; None: the model as it was
    loaded."""

    prompt: Sequence[int]
    sampling: Sampling
    adapter: str | None = None


@dataclass(frozen=True)
class Token:
    """One token of an answer. text: its own characters (a part of a character is U+FFFD). logprob: of the model's own
    distribution (temperature 1, nothing cut off), None where none was asked for. top: the likeliest, as
    (id, text, logprob)."""

    id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()


Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """A part of an answer: whole characters, without special tokens and without stop texts. tokens: those read for it,
    the one that ended the answer left out. finish: with the last piece, why it ended."""

    text: str
    tokens: tuple[Token, ...] = field(default=())
    finish: Finish | None = None


class Full(Exception):
    """No more requests are taken now. retry_after: seconds until it is worth asking again."""

    def __init__(self, retry_after: float):
        super().__init__(f"try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class Answer(Protocol):
    """The pieces of an answer, as they come. Closing it ends the answer and frees its place; so does forgetting it."""

    def __iter__(self) -> Iterator[Piece]:
        ...

    def __next__(self) -> Piece:
        """Raises:
        Problem: the engine failed on this answer.
        """
        ...

    def close(self) -> None:
        ...


class Generator(Protocol):
    """Whatever answers: transformers in this process, or llama.cpp, vLLM and SGLang in theirs. Threads may share it."""

    @property
    def adapters(self) -> Sequence[str]:
        """Names that a request may give."""
        ...

    @property
    def context(self) -> int:
        """Most tokens that a prompt and its answer may have together."""
        ...

    def generate(self, request: Request) -> Answer:
        """The answer piece by piece. The request is in the queue when this returns.

        Raises:
            Full: the queue is full.
            Problem: the prompt is too long, there is no such adapter, the engine failed.
        """
        ...

    def close(self) -> None:
        """Ends what is running."""
        ...
