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
    ids = np.concatenate([row.ids for row in rows])
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
class Plan:
    """Which rows every optimizer step learns from. A step is `accumulation` batches of `batch_size` rows; the last step
    of an epoch takes what is left."""

    rows: int
    batch_size: int
    accumulation: int
    epochs: float
    max_steps: int
    seed: int
    shuffle: bool

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / (self.batch_size * self.accumulation))

    @property
    def total_steps(self) -> int:
        return self.max_steps if self.max_steps > 0 else math.ceil(self.epochs * self.steps_per_epoch)

    def batches(self, step: int) -> list[list[int]]:
        """Row numbers of each batch of optimizer step `step` (from 0)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = np.arange(self.rows)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        size = self.batch_size * self.accumulation
        chosen = order[index * size : (index + 1) * size].tolist()
        return [chosen[start : start + self.batch_size] for start in range(0, len(chosen), self.batch_size)]
