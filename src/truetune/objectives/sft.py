"""Supervised fine-tuning: maximum likelihood of the answers (Ouyang et al. 2022, arXiv:2203.02155, section 3.1).

    L = - (1 / sum_t w_t)  sum_t  w_t log p(y_t | y_<t)

over all learned tokens y_t of a step, whatever row, batch or process they are in. w_t is the weight of token t.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Weighted(Protocol):
    """What the loss needs of a batch: `weights` (N,)."""

    @property
    def weights(self) -> torch.Tensor: ...


class SupervisedFineTuning:
    rows = "conversations"
    reference = False

    def loss(self, policy: torch.Tensor, reference: torch.Tensor | None,
             batch: Weighted) -> tuple[torch.Tensor, float, dict[str, float]]:
        return -(batch.weights * policy).sum(), float(batch.weights.sum()), {}
