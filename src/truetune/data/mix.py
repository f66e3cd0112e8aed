"""Several data sets made one, rows drawn from them, rows held out: all as row numbers, so that nothing is copied.

The strategies mean what `datasets.interleave_datasets` means by first_exhausted, all_exhausted and
all_exhausted_without_replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from truetune.findings import Both, problem

T = TypeVar("T")

_DRAWN = 1 << 16
"""Draws at a time."""


def mix_indices(sizes: Sequence[int], strategy: str, probs: Sequence[float], seed: int) -> np.ndarray:
    """The rows of the mixture in order: (n, 2), the data set and the row of each.

    Args:
        strategy: concat; interleave_under (until the first set is used up), interleave_over (until all are, those used
            up beginning again), interleave_once (every row once).
        probs: how often each set is drawn, scaled to a sum of 1. Empty: in turn.
    """
    lengths = np.asarray(sizes, dtype=np.int64)
    sources, rows = _STRATEGIES[strategy](lengths, np.asarray(probs, dtype=np.float64), seed)
    return np.stack([sources, rows], axis=1)


_Picks = tuple[np.ndarray, np.ndarray]


def _concat(sizes: np.ndarray, probs: np.ndarray, seed: int) -> _Picks:
    sources = np.repeat(np.arange(len(sizes)), sizes)
    return sources, _nth_of(sources, len(sizes))


def _under(sizes: np.ndarray, probs: np.ndarray, seed: int) -> _Picks:
    """Ends with the draw that takes the last row of some set; in turn, with the round in which that happens."""
    if not sizes.all():
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if not len(probs):
        return _in_turn(sizes, int(sizes.min()))
    sources = _draws(sizes, probs, seed, np.any)
    used = _nth_of(sources, len(sizes))
    end = int(np.argmax(used == sizes[sources] - 1)) + 1
    return sources[:end], used[:end]


def _over(sizes: np.ndarray, probs: np.ndarray, seed: int) -> _Picks:
    """Ends with the draw that takes the last row of the last set to be used up; in turn, with that round. Empty sets
    are passed over, and so are those that are never drawn."""
    full = np.flatnonzero(sizes)
    if not len(probs):
        turns, rows = _in_turn(sizes[full], int(sizes.max()))
        return full[turns], rows % sizes[full[turns]]
    sources = _draws(sizes, probs, seed, np.all)
    used = _nth_of(sources, len(sizes))
    lasts = np.flatnonzero(used == sizes[sources] - 1)
    end = int(lasts[-1]) + 1 if len(lasts) else 0
    return sources[:end], used[:end] % sizes[sources[:end]]


def _once(sizes: np.ndarray, probs: np.ndarray, seed: int) -> _Picks:
    """A set that is used up is passed over from then on; one that is never drawn is not taken at all."""
    if not len(probs):
        sources, rows = _in_turn(sizes, int(sizes.max()))
    else:
        sources = _draws(sizes, probs, seed, np.all)
        rows = _nth_of(sources, len(sizes))
    left = rows < sizes[sources]
    return sources[left], rows[left]


_STRATEGIES: dict[str, Callable[[np.ndarray, np.ndarray, int], _Picks]] = {
    "concat": _concat, "interleave_under": _under, "interleave_over": _over, "interleave_once": _once,
}


def _in_turn(sizes: np.ndarray, rounds: int) -> _Picks:
    sources = np.tile(np.arange(len(sizes)), rounds)
    return sources, np.repeat(np.arange(rounds), len(sizes))


def _nth_of(sources: np.ndarray, count: int) -> np.ndarray:
    """For each draw, how often its set was drawn before."""
    before = np.zeros(len(sources), dtype=np.int64)
    for source in range(count):
        mine = np.flatnonzero(sources == source)
        before[mine] = np.arange(len(mine))
    return before


def _draws(sizes: np.ndarray, probs: np.ndarray, seed: int, enough: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Sets drawn by `probs` until `enough` of those that have rows and are drawn at all are used up."""
    drawn = np.flatnonzero((probs > 0) & (sizes > 0))
    if not len(drawn):
        return np.zeros(0, dtype=np.int64)
    random, share = np.random.default_rng(seed), probs[drawn] / probs[drawn].sum()
    blocks: list[np.ndarray] = []
    counts = np.zeros(len(sizes), dtype=np.int64)
    while not enough(counts[drawn] >= sizes[drawn]):
        blocks.append(drawn[random.choice(len(drawn), size=_DRAWN, p=share)])
        counts += np.bincount(blocks[-1], minlength=len(sizes))
    return np.concatenate(blocks)


def mix_streams(streams: Sequence[Callable[[], Iterator[T]]], strategy: str, probs: Sequence[float],
                seed: int) -> Iterator[T]:
    """The same mixture of streams whose sizes nobody knows. A stream is opened again where its rows are repeated.

    Whether a stream is used up shows when the row after its last is asked for, so one row of each is read ahead.
    """
    if strategy == "concat":
        for stream in streams:
            yield from stream()
        return
    running = [_Ahead(stream) for stream in streams]
    open_ones = {number for number, stream in enumerate(running) if not len(probs) or probs[number] > 0}
    empty = {number for number in open_ones if running[number].ended}
    if empty and strategy == "interleave_under":
        return
    open_ones -= empty
    unfinished, enough = set(open_ones), not open_ones
    for turn in _turns(len(streams), probs, seed):
        if enough:
            return
        for number in filter(open_ones.__contains__, turn):
            yield running[number].take()
            if not running[number].ended:
                continue
            unfinished.discard(number)
            enough = strategy == "interleave_under" or not unfinished
            if strategy == "interleave_once":
                open_ones.discard(number)
            else:
                running[number] = _Ahead(streams[number])


def _turns(count: int, probs: Sequence[float], seed: int) -> Iterator[Sequence[int]]:
    """Rounds of all streams, or one stream after the other as drawn, without end."""
    random = np.random.default_rng(seed)
    share = np.asarray(probs, dtype=np.float64) / sum(probs) if len(probs) else None
    while True:
        if share is None:
            yield range(count)
        else:
            yield from ([number] for number in random.choice(count, size=1000, p=share).tolist())


class _Ahead(Generic[T]):
    """A stream of which one row is read ahead, so that it knows of its end in time."""

    def __init__(self, stream: Callable[[], Iterator[T]]):
        self._rows = stream()
        self._next = list(islice(self._rows, 1))

    @property
    def ended(self) -> bool:
        return not self._next

    def take(self) -> T:
        """The next row."""
        row = self._next[0]
        self._next = list(islice(self._rows, 1))
        return row


def sample_indices(size: int, num_samples: int | None, max_samples: int | None, seed: int) -> np.ndarray:
    """Which of `size` rows are used, in order: `num_samples` drawn (each once, then again where there are too few),
    then the first `max_samples`."""
    rows = np.arange(size)
    if num_samples and size:
        random = np.random.default_rng(seed)
        once = random.permutation(size)[:num_samples]
        rows = np.concatenate([once, random.integers(size, size=num_samples - len(once))])
    return rows[:max_samples]


def hold_out(total: int, val_size: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows to train on and the rows held out, a share (below 1) or a number, drawn by `seed`; both in order.

    Raises:
        Problem: a side would be empty, or the number is not whole.
    """
    count = round(total * val_size) if val_size < 1 else int(val_size)
    if not 0 < count < total or (val_size > 1 and val_size != count):
        raise problem("val-size", Both(f"{val_size:g} of {total} rows cannot be held out.",
                                       f"无法从 {total} 行中留出 {val_size:g}。"), option="val_size",
                      fix=Both("A share (below 1) or a whole number, so that both parts have at least one row.",
                               "请填写小于 1 的比例或整数，使两部分都至少有一行。"))
    held_out = np.zeros(total, dtype=bool)
    held_out[np.random.default_rng(seed).permutation(total)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
