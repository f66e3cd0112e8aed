"""The rows of a run: sequences out of token stores by their numbers, or a stream that is kept nowhere.

Mixing, sampling and holding out are row numbers; no token is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import overload

import numpy as np

from truetune.data.mix import hold_out
from truetune.data.renderer import Rendered
from truetune.data.store import FLAGS, Store

_SAMPLE = 1000
"""Rows of a stream that are looked at before it is trained on."""


class _Sequences(Sequence[Rendered]):
    """Rendered sequences by number; a slice is a list of them."""

    @overload
    def __getitem__(self, number: int) -> Rendered: ...
    @overload
    def __getitem__(self, number: slice) -> list[Rendered]: ...
    def __getitem__(self, number: int | slice) -> Rendered | list[Rendered]:
        if isinstance(number, slice):
            return [self[index] for index in range(*number.indices(len(self)))]
        return self._one(number)

    def _one(self, number: int) -> Rendered:
        raise NotImplementedError


class Rows(_Sequences):
    """Sequences out of one or several stores, in an order of their own.

    picks: (n, 2), the store and the number in it of every sequence. per_row: so many follow one another for a row.
    """

    def __init__(self, stores: Sequence[Store], picks: np.ndarray, per_row: int = 1):
        self.stores, self.picks, self.per_row = stores, picks, per_row
        self.lengths, self.learned, self.flags = (self._column(name) for name in ("length", "learned", "flags"))

    def _column(self, name: str) -> np.ndarray:
        values = np.zeros(len(self.picks), dtype=np.int64)
        for number, store in enumerate(self.stores):
            mine = self.picks[:, 0] == number
            values[mine] = store.rows[name][self.picks[mine, 1]]
        return values

    def __len__(self) -> int:
        return len(self.picks)

    def _one(self, number: int) -> Rendered:
        store, row = self.picks[number]
        return self.stores[store][int(row)]

    def having(self, flag: str) -> np.ndarray:
        """The numbers of the sequences of which a fact in `FLAGS` holds."""
        return np.flatnonzero(self.flags & FLAGS[flag])

    def shortest(self, count: int) -> list[Rendered]:
        return [self[int(number)] for number in np.argsort(self.lengths, kind="stable")[:count]]

    def hash(self) -> str:
        """A hash of every token and weight in order, without reading them: stores are named by what made them."""
        digest = sha256(self.picks.tobytes())
        for store in self.stores:
            digest.update(store.manifest.key.encode())
        return digest.hexdigest()[:16]


class Stream(_Sequences):
    """Sequences read while they are trained on, shuffled through a buffer. Only the next ones can be had; asking for a
    later one reads up to it, which is how a resumed run finds its place."""

    def __init__(self, open_rows: Callable[[], Iterator[Rendered]], total: int, key: str):
        self._total, self._key = total, key
        self.sample = list(islice(open_rows(), _SAMPLE))
        self.lengths = np.array([len(row) for row in self.sample])
        self.learned = np.array([int(np.count_nonzero(row.weights[1:])) for row in self.sample])
        self._rows, self._next = open_rows(), 0

    def __len__(self) -> int:
        return self._total

    def _one(self, number: int) -> Rendered:
        if number >= self._total:
            raise IndexError(number)
        if number < self._next:
            return self.sample[number]
        row = next(islice(self._rows, number - self._next, None))
        self._next = number + 1
        return row

    def shortest(self, count: int) -> list[Rendered]:
        return sorted(self.sample, key=len)[:count]

    def having(self, flag: str) -> np.ndarray:
        return np.array([number for number, row in enumerate(self.sample) if getattr(row, flag)], dtype=np.int64)

    def hash(self) -> str:
        return self._key


class Mismatched(_Sequences):
    """The prompt of each row with the last answer of another one, a fixed way along in the set: what an answer is
    worth where it does not belong. Rows of the data, not of a batch or of a part that was read together, are mixed;
    with a single row there is nothing to mix, and it keeps its own."""

    def __init__(self, rows: Sequence[Rendered], seed: int):
        self.rows = rows
        self._ahead = int(np.random.default_rng(seed).integers(1, max(len(rows), 2)))

    def __len__(self) -> int:
        return len(self.rows)

    def _one(self, number: int) -> Rendered:
        return with_answer_of(self.rows[number], self.rows[(number + self._ahead) % len(self.rows)])


def with_answer_of(row: Rendered, other: Rendered) -> Rendered:
    """`row` with the last answer of `other`."""
    return row.answered(other.ids[other.runs[-1].first : other.runs[-1].last])


def groups_of(store: Store) -> np.ndarray:
    """(groups + 1,): where the sequences of each row of the data begin. Those of one row stay together, so that no
    answer of a conversation is held out while another is trained on."""
    rows = store.rows
    if not len(rows):
        return np.zeros(1, dtype=np.int64)
    other = (rows["number"][1:] != rows["number"][:-1]) | (rows["file"][1:] != rows["file"][:-1])
    return np.concatenate([[0], np.flatnonzero(other) + 1, [len(rows)]])


def of_groups(stores: Sequence[Store], picked: np.ndarray, per_row: int) -> Rows:
    """The sequences of groups. picked: (n, 2), store and group."""
    starts, counts = np.zeros(len(picked), dtype=np.int64), np.zeros(len(picked), dtype=np.int64)
    for number, store in enumerate(stores):
        borders, mine = groups_of(store), picked[:, 0] == number
        groups = picked[mine, 1]
        starts[mine], counts[mine] = borders[groups], borders[groups + 1] - borders[groups]
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    picks = np.stack([np.repeat(picked[:, 0], counts), np.repeat(starts, counts) + inside], axis=1)
    return Rows(stores, picks, per_row)


def all_of(stores: Sequence[Store], per_row: int) -> Rows:
    """Every sequence of `stores`, in order."""
    picks = [np.stack([np.full(len(store), number), np.arange(len(store))], axis=1)
             for number, store in enumerate(stores)]
    return Rows(stores, np.concatenate([np.zeros((0, 2), dtype=np.int64), *picks]), per_row)


def split(rows: Rows, val_size: float, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on and rows held out. What stands for the same row of the data (drawn twice, or in several
    sequences) goes to the same side; held out, it counts once."""
    group = np.zeros(len(rows), dtype=np.int64)
    for number, store in enumerate(rows.stores):
        mine = rows.picks[:, 0] == number
        group[mine] = np.searchsorted(groups_of(store), rows.picks[mine, 1], side="right")
    _, which = np.unique(np.stack([rows.picks[:, 0], group]), axis=1, return_inverse=True)
    _, held = hold_out(int(which.max(initial=-1)) + 1, val_size, seed)
    out = np.isin(which.ravel(), held)
    once = np.sort(np.unique(rows.picks[out], axis=0, return_index=True)[1])
    return Rows(rows.stores, rows.picks[~out], rows.per_row), Rows(rows.stores, rows.picks[out][once], rows.per_row)
