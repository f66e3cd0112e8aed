"""Which training rows were hardest: the ones whose answers the model believes least are often wrong themselves.

The losses are those of the training steps themselves, so they cost nothing. A row's loss is the one it had when it was
last learned from; rows of an early step are left out, since then every row was hard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from truetune.data.batches import Batch
from truetune.objectives.objective import per_row


def row_losses(batch: Batch, log_probabilities: torch.Tensor) -> list[float]:
    """The mean loss per learned token of each row of a batch; NaN where nothing is learned.

    Args:
        log_probabilities: (N,), of the batch's targets.
    """
    losses = per_row(-batch.weights * log_probabilities.float(), batch)
    return (losses / per_row(batch.weights, batch)).tolist()


class RowLosses:
    """The last loss of each of `rows` training rows."""

    def __init__(self, rows: int):
        self.losses = np.full(rows, np.nan, dtype=np.float32)
        self.steps = np.zeros(rows, dtype=np.int32)

    def saw(self, step: int, numbers: Sequence[int], batch: Batch, log_probabilities: torch.Tensor) -> None:
        """Take in what step `step` (from 0) has computed for the rows `numbers`, which are those of `batch`."""
        rows = np.asarray(numbers)
        self.losses[rows] = row_losses(batch, log_probabilities.detach())
        self.steps[rows] = step + 1

    def hardest(self, count: int, epoch: int) -> tuple[list[tuple[int, float]], float]:
        """The `count` rows of highest loss, as (number, loss), and the median loss; both of the rows learned from in
        the last epoch (of `epoch` steps), or in the second half of a single one."""
        last = int(self.steps.max(initial=0))
        there = np.flatnonzero((self.steps > max(last - epoch, last // 2)) & ~np.isnan(self.losses))
        if not len(there):
            return [], 0.0
        worst = there[np.argsort(-self.losses[there], kind="stable")[:count]]
        return [(int(number), float(self.losses[number])) for number in worst], float(np.median(self.losses[there]))
