"""Words drawn from logits: of many answers at once, each in its own way.

    logits z  →  repetition, frequency and presence penalties  →  what a schema allows  →  z / temperature
              →  top_k  →  top_p  →  min_p  →  one number u in [0, 1) from the answer's own generator picks the word

The order is that of transformers. One number an answer and step is all the chance there is, so the same seed gives the
same words whatever else runs: the word is the first at which the probabilities, added up, exceed u.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from random import Random
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from truetune.findings import Both, problem
from truetune.serve.request import Sampling

if TYPE_CHECKING:
    from llguidance import LLMatcher

_LIKELIEST = 1024
"""Words that are sorted first where top_p alone limits: sorting all 49,152 of 8 answers takes 14 ms, these 1.5 ms."""
_SPACES = r"( |\n {0,32})"
"""White space that JSON may hold: without a bound a weak model writes nothing else."""


@dataclass(frozen=True)
class Drawn:
    """A word. logprob: of the model's own distribution, where it was asked for. top: the likeliest, (id, logprob)."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Drawing:
    """How the words of one answer are drawn, from the first to the last."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], allowed: Allowed | None = None):
        self.sampling, self.allowed = sampling, allowed
        self.said: Counter[int] = Counter()
        self.seen = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._random = Random(sampling.seed)

    @property
    def greedy(self) -> bool:
        return self.sampling.temperature == 0 or self.sampling.top_k == 1

    def chance(self) -> float:
        """The next number in [0, 1)."""
        return self._random.random()

    def take(self, token: int) -> None:
        """Remember a word that was drawn."""
        self.said[token] += 1
        self.seen.add(token)
        if self.allowed:
            self.allowed.take(token)


def draw(logits: torch.Tensor, drawings: Sequence[Drawing]) -> list[Drawn]:
    """The next word of each answer; the drawings remember it. logits: (R, V), finite; they stay as they are.

    Raises:
        Problem: a schema was followed to where llguidance cannot go on; nothing was drawn.
    """
    scores = logits.float().clone()
    _penalise(scores, drawings)
    _constrain(scores, drawings)
    words = torch.empty(len(drawings), dtype=torch.long, device=logits.device)
    for rows, choose in _groups(drawings):
        words[rows] = choose(scores[rows] if len(rows) < len(drawings) else scores, [drawings[row] for row in rows])
    drawn = _told(logits, words, drawings)
    for drawing, word in zip(drawings, drawn, strict=True):
        drawing.take(word.id)
    return drawn


def _groups(drawings: Sequence[Drawing]) -> list[tuple[list[int], Any]]:
    """Rows that are drawn in the same way, and how. A row's words never depend on those beside it: where as many words
    are sorted as top_p takes, the row is alone."""
    groups: dict[object, tuple[list[int], Any]] = {}
    for row, drawing in enumerate(drawings):
        sampling = drawing.sampling
        if drawing.greedy:
            key, choose = "greedy", _likeliest
        elif sampling.top_k or sampling.top_p < 1:
            key, choose = (sampling.top_k, None if sampling.top_k else row), _among_likeliest
        else:
            key, choose = "all", _among_all
        groups.setdefault(key, ([], choose))[0].append(row)
    return list(groups.values())


def _likeliest(scores: torch.Tensor, drawings: Sequence[Drawing]) -> torch.Tensor:
    return scores.argmax(dim=-1)


def _among_likeliest(scores: torch.Tensor, drawings: Sequence[Drawing]) -> torch.Tensor:
    """scores: (G, V), all with one top_k; without one G is 1. (G,) words."""
    top_k, size = drawings[0].sampling.top_k, scores.shape[-1]
    scores = scores / _column(scores, [drawing.sampling.temperature for drawing in drawings])
    top_p = _column(scores, [drawing.sampling.top_p for drawing in drawings])
    values, words = scores.topk(min(top_k or _LIKELIEST, size))
    whole = values.logsumexp(dim=-1, keepdim=True) if top_k else scores.logsumexp(dim=-1, keepdim=True)
    chances = (values - whole).exp()
    if not top_k and bool((chances.sum(dim=-1, keepdim=True) < top_p).any()):
        values, words = scores.sort(descending=True)
        chances = (values - whole).exp()
    before = chances.cumsum(dim=-1) - chances
    keep = (before < top_p) & _above_min_p(values, drawings)
    keep[:, 0] = True
    return words.gather(1, _pick(chances * keep, drawings))[:, 0]


def _among_all(scores: torch.Tensor, drawings: Sequence[Drawing]) -> torch.Tensor:
    scores = scores / _column(scores, [drawing.sampling.temperature for drawing in drawings])
    chances = scores.softmax(dim=-1)
    if any(drawing.sampling.min_p for drawing in drawings):
        chances = chances * _above_min_p(scores, drawings)
    return _pick(chances, drawings)[:, 0]


def _above_min_p(scores: torch.Tensor, drawings: Sequence[Drawing]) -> torch.Tensor:
    """Which words are at least min_p times as likely as the likeliest."""
    least = [math.log(drawing.sampling.min_p) if drawing.sampling.min_p else -math.inf for drawing in drawings]
    return scores >= scores.amax(dim=-1, keepdim=True) + _column(scores, least)


def _pick(chances: torch.Tensor, drawings: Sequence[Drawing]) -> torch.Tensor:
    """(G, 1) places in `chances` (G, n), which need not add up to 1."""
    sums = chances.double().cumsum(dim=-1)
    asked = _column(sums, [drawing.chance() for drawing in drawings]) * sums[:, -1:]
    return torch.searchsorted(sums, asked, right=True).clamp_(max=chances.shape[-1] - 1)


def _column(like: torch.Tensor, numbers: Sequence[float]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None]


def _penalise(scores: torch.Tensor, drawings: Sequence[Drawing]) -> None:
    """In place. Each row's words in one flat list, so that there is one call for all."""
    flat = [(row, word, drawing.sampling.repetition_penalty) for row, drawing in enumerate(drawings)
            if drawing.sampling.repetition_penalty != 1 for word in drawing.seen]
    if flat:
        rows, words, penalties = _columns(flat, scores)
        values = scores[rows, words]
        scores[rows, words] = torch.where(values > 0, values / penalties, values * penalties)
    flat = [(row, word, drawing.sampling.presence_penalty + count * drawing.sampling.frequency_penalty)
            for row, drawing in enumerate(drawings)
            if drawing.sampling.presence_penalty or drawing.sampling.frequency_penalty
            for word, count in drawing.said.items()]
    if flat:
        rows, words, penalties = _columns(flat, scores)
        scores[rows, words] -= penalties


def _columns(flat: Sequence[tuple[int, int, float]], like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows, words, numbers = zip(*flat, strict=True)
    return (torch.tensor(rows, device=like.device), torch.tensor(words, device=like.device),
            torch.tensor(numbers, dtype=like.dtype, device=like.device))


def _constrain(scores: torch.Tensor, drawings: Sequence[Drawing]) -> None:
    """In place: words that a schema does not allow are made impossible."""
    for row, drawing in enumerate(drawings):
        if drawing.allowed:
            scores[row].masked_fill_(~drawing.allowed.words(scores.shape[-1]).to(scores.device), -math.inf)


def _told(logits: torch.Tensor, words: torch.Tensor, drawings: Sequence[Drawing]) -> list[Drawn]:
    """The words, with log-probabilities where they are asked for."""
    drawn = [Drawn(word) for word in words.tolist()]
    for row, drawing in enumerate(drawings):
        wanted = drawing.sampling.top_logprobs
        if wanted is not None:
            logp = logits[row].float().log_softmax(dim=-1)
            values, ids = logp.topk(min(wanted, len(logp)))
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
            drawn[row] = Drawn(drawn[row].id, float(logp[drawn[row].id]), top)
    return drawn


# ---------------------------------------------------------------------------------------------------------------------
# Schemas

class Allowed:
    """Where an answer stands in what its schema allows."""

    def __init__(self, matcher: LLMatcher):
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Nothing can follow."""
        return self._matcher.is_stopped()

    def words(self, size: int) -> torch.Tensor:
        """(size,) booleans: what may come next.

        Raises:
            Problem: the schema was followed to where llguidance cannot go on.
        """
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        words = np.zeros(size, dtype=bool)
        found = np.unpackbits(bits, bitorder="little")[:size]
        words[: len(found)] = found
        return torch.from_numpy(words)

    def take(self, token: int) -> None:
        self._matcher.consume_token(token)


class Schemas:
    """JSON Schemas as what may follow each word, by llguidance. ends: tokens that end an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ends: Sequence[int]):
        self._tokenizer, self._ends, self._lock = tokenizer, list(ends), Lock()

    def follow(self, schema: Mapping[str, Any]) -> Allowed:
        """Raises:
        Problem: llguidance is not installed, or the schema is none that it takes, or is too large.
        """
        if find_spec("llguidance") is None:
            raise problem("no-llguidance", Both("answers that follow a schema need llguidance.",
                                                "按 schema 约束回答需要 llguidance。"), option="schema",
                          fix="pip install llguidance")
        from llguidance import LLMatcher

        wanted = dict(schema) or {"type": "object"}
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(wanted),
                                                         overrides={"whitespace_pattern": _SPACES})
        except ValueError as error:
            raise _refused(str(error)) from None
        with self._lock:
            words = self._words
        matcher = LLMatcher(words, grammar, log_level=0)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return Allowed(matcher)

    @cached_property
    def _words(self) -> Any:
        """The tokenizer as llguidance reads it: about a second, once."""
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self._tokenizer, eos_token=self._ends)


def _refused(reason: str) -> Exception:
    first = next(iter(reason.strip().splitlines()), "")
    return problem("bad-schema", Both(f"the schema cannot be followed: {first:.300}",
                                      f"无法按此 schema 约束：{first:.300}"), option="schema")
