"""Rows that are longer than `cutoff_len`, and texts that are joined and cut into blocks of that length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run


def fit(row: Sequence[Rendered], limit: int, strategy: str) -> list[tuple[Rendered, ...]]:
    """A row as rows of at most `limit` tokens.

    drop: none, if any of its sequences is longer. truncate: one, cut (`_shares`). split: as many as it takes, each
    going on where the one before ended. No end-of-turn is put where an answer was cut.
    """
    if all(len(sequence) <= limit for sequence in row):
        return [tuple(row)]
    return _STRATEGIES[strategy](row, limit)


def _drop(row: Sequence[Rendered], limit: int) -> list[tuple[Rendered, ...]]:
    return []


def _split(row: Sequence[Rendered], limit: int) -> list[tuple[Rendered, ...]]:
    """Pieces in order; a pair has no pieces, since its answers must follow the whole prompt."""
    if len(row) > 1:
        return []
    (whole,) = row
    borders = [*range(0, len(whole), limit), len(whole)]
    pieces = [_keep(whole, [(first, last)]) for first, last in pairwise(borders)]
    return [(piece,) for piece in pieces if _learned(piece)]


def _truncate(row: Sequence[Rendered], limit: int) -> list[tuple[Rendered, ...]]:
    kept = _kept(row, limit)
    cut = tuple(_keep(sequence, pieces) for sequence, pieces in zip(row, kept, strict=True)) if all(kept) else ()
    return [cut] if cut and all(map(_learned, cut)) else []


_STRATEGIES = {"drop": _drop, "split": _split, "truncate": _truncate, "error": _drop}


def _kept(row: Sequence[Rendered], limit: int) -> list[list[tuple[int, int]]]:
    """For each sequence the pieces of it that `truncate` keeps, as LLaMA-Factory would: exchange after exchange, each
    with what is left of the limit; where only the last is learned, that one comes first. A pair's prompt is cut once,
    with the longer of its two answers in mind."""
    exchanges = [_exchanges(sequence) for sequence in row]
    if not all(exchanges):
        return [[(0, limit)] for _ in row]
    if len(row) > 1:
        longest = max(last - middle for (_, middle, last), *_ in exchanges)
        _, prompt, _ = exchanges[0][0]
        ask, answer = _shares(prompt, longest, limit)
        return [[(0, ask), (middle, min(last, middle + answer))] for (_, middle, last), *_ in exchanges]
    kept, left = [], limit
    for first, middle, last in exchanges[0]:
        ask, answer = _shares(middle - first, last - middle, left)
        if not answer:  # a question alone teaches nothing
            break
        kept += [(first, first + ask), (middle, middle + answer)]
        left -= ask + answer
        if left <= 0:
            break
    return [kept]


def _exchanges(sequence: Rendered) -> list[tuple[int, int, int]]:
    """(first, middle, last) of each exchange: tokens [first, middle) ask and [middle, last) answer."""
    answers: list[list[int]] = []
    for run in sequence.runs:
        if answers and answers[-1][1] == run.first:
            answers[-1][1] = run.last
        else:
            answers.append([run.first, run.last])
    starts = [0, *(last for _, last in answers)]
    return [(start, first, last) for start, (first, last) in zip(starts, answers, strict=False)]


def _shares(asked: int, answered: int, limit: int) -> tuple[int, int]:
    """How many tokens of a question and of its answer fit into `limit`: the shorter one whole if it takes less than
    half, else both in proportion (LLaMA-Factory's rule)."""
    if 2 * answered < limit:
        most = limit
    elif 2 * asked < limit:
        most = limit - asked
    else:
        most = int(limit * answered / (asked + answered))
    answered = min(most, answered)
    return min(limit - answered, asked), answered


def _keep(sequence: Rendered, pieces: Sequence[tuple[int, int]]) -> Rendered:
    """Only the given pieces of a sequence, laid end to end."""
    runs, offset = [], 0
    for first, last in pieces:
        for run in sequence.runs:
            begin, end = max(run.first, first), min(run.last, last)
            if begin < end:
                runs.append(Run(begin - first + offset, end - first + offset, run.weight))
        offset += last - first
    ids = np.concatenate([sequence.ids[first:last] for first, last in pieces])
    return replace(sequence, ids=ids, runs=tuple(runs), cut=True)


def _learned(sequence: Rendered) -> bool:
    """Whether something behind the first token is learned."""
    return bool(sequence.weights[1:].any())


def keeping_most(lengths: np.ndarray) -> int:
    """The smallest cutoff_len that keeps 99.5 % of the rows whole."""
    return int(np.quantile(lengths, 0.995, method="higher"))


def blocks(documents: Iterable[Rendered], size: int, opening: Sequence[int]) -> Iterator[Rendered]:
    """Documents joined (each ends with its end-of-text) and cut into blocks of `size` tokens; the last one is shorter.

    Args:
        opening: what this tokenizer puts before a text (beginning-of-text); every block begins with it.
    """
    waiting: list[np.ndarray] = []
    count, room, place = 0, size - len(opening), None
    for document in documents:
        place = place or document.place
        waiting.append(document.ids)
        count += len(document)
        if count >= room:
            joined = np.concatenate(waiting)
            whole = count - count % room
            for start in range(0, whole, room):
                yield _block(joined[start : start + room], opening, place)
                place = document.place
            waiting, count = [joined[whole:]], count - whole
            place = document.place if count else None
    if count and place:
        yield _block(np.concatenate(waiting), opening, place)


def _block(ids: np.ndarray, opening: Sequence[int], place: Place) -> Rendered:
    return Rendered(np.concatenate([np.array(opening, dtype=np.int32), ids]), (), 1.0, place)
