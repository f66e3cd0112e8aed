"""What the loop takes at once: a batch, and what is known with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from truetune.data.batches import Batch
from truetune.model.policy import States


class Lesson:
    """A batch, the numbers of its rows, and what the reference says of it: log-probabilities (N,), or hidden states
    that logits are read from. metrics: what else is to be told, by name a sum and what to divide it by."""

    def __init__(self, batch: Batch, numbers: Sequence[int] = (), reference: torch.Tensor | None = None,
                 beside: States | None = None, metrics: Mapping[str, Sequence[float]] | None = None):
        self.batch, self.numbers, self.reference, self.beside = batch, numbers, reference, beside
        self.metrics = metrics or {}
