"""Rows laid end to end: batches without one padding token, and the order in which they come.

Everything is a function of (rows, options, step), so a resumed run finds its place by counting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from truetune.data.renderer import Rendered


@dataclass(frozen=True)
class Batch:
    """Rows end to end. B rows, T tokens in all, N of them learned.

    ids: (1, T). positions: (1, T), restarting at 0 in each row. starts: B + 1 borders of the rows in T.
    sources: (N,) positions in T whose hidden state predicts a learned token. targets: (N,) these tokens.
    weights: (N,) what each counts. places: the rows' files and lines.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    starts: tuple[int, ...]
    sources: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    places: tuple[str, ...]

    @property
    def tokens(self) -> int:
        return self.starts[-1]

    def to(self, device: torch.device) -> Batch:
        moved = {name: getattr(self, name).to(device, non_blocking=True)
                 for name in ("ids", "positions", "sources", "targets", "weights")}
        return Batch(starts=self.starts, places=self.places, **moved)


def collate(rows: Sequence[Rendered]) -> Batch:
    """Lay rows end to end. The first token of a row is predicted from nothing, so it is never learned."""
    lengths = [len(row) for row in rows]
    starts = (0, *np.cumsum(lengths).tolist())
    ids = np.concatenate([row.ids for row in rows]).astype(np.int64)
    weights = np.concatenate([row.weights for row in rows])
    weights[list(starts[:-1])] = 0.0
    learned = np.flatnonzero(weights)
    return Batch(
        ids=torch.from_numpy(ids)[None],
        positions=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        starts=starts,
        sources=torch.from_numpy(learned - 1),
        targets=torch.from_numpy(ids[learned]),
        weights=torch.from_numpy(weights[learned]),
        places=tuple(row.where for row in rows),
    )


@dataclass(frozen=True)
class Packs:
    """Rows that share a batch row. order: (rows,) row numbers, pack after pack. starts: (packs + 1,) borders in it."""

    order: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, pack: int) -> list[int]:
        return self.order[self.starts[pack] : self.starts[pack + 1]].tolist()


_WINDOW = 1000
"""Rows among which packs are filled: enough to leave little room empty, few enough to keep an epoch's order random."""


def pack(lengths: np.ndarray, limit: int, seed: int) -> Packs:
    """Fill packs of at most `limit` tokens by first fit: each row goes into the first pack that has room for it, over
    windows of shuffled rows, the longest of a window first.

    Args:
        lengths: (rows,) tokens of each row.
    """
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    packs: list[list[int]] = []
    for first in range(0, len(shuffled), _WINDOW):
        window = shuffled[first : first + _WINDOW]
        room = np.zeros(0, dtype=np.int64)
        filled: list[list[int]] = []
        for row in window[np.argsort(-lengths[window], kind="stable")].tolist():
            fitting = np.flatnonzero(room >= lengths[row])
            if len(fitting):
                filled[fitting[0]].append(row)
                room[fitting[0]] -= lengths[row]
            else:
                filled.append([row])
                room = np.append(room, limit - lengths[row])
        packs += filled
    sizes = [len(rows) for rows in packs]
    return Packs(np.array([row for rows in packs for row in rows], dtype=np.int64), np.cumsum([0, *sizes]))


@dataclass(frozen=True)
class Plan:
    """Which rows every optimizer step learns from. A step is `accumulation` batches of `batch_size` rows (or packs of
    rows); the last step of an epoch takes what is left."""

    rows: int
    batch_size: int
    accumulation: int
    epochs: float
    max_steps: int
    seed: int
    shuffle: bool
    packs: Packs | None = None

    @property
    def units(self) -> int:
        """Rows, or packs of rows."""
        return self.rows if self.packs is None else len(self.packs)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.units / (self.batch_size * self.accumulation))

    @property
    def total_steps(self) -> int:
        return self.max_steps if self.max_steps > 0 else math.ceil(self.epochs * self.steps_per_epoch)

    def batches(self, step: int) -> list[list[int]]:
        """Row numbers of each batch of optimizer step `step` (from 0)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = np.arange(self.units)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.units)
        size = self.batch_size * self.accumulation
        chosen = order[index * size : (index + 1) * size].tolist()
        batches = [chosen[start : start + self.batch_size] for start in range(0, len(chosen), self.batch_size)]
        if self.packs is None:
            return batches
        return [[row for pack in batch for row in self.packs.rows(pack)] for batch in batches]
