"""Rows laid end to end: batches without one padding token."""

from __future__ import annotations

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
