"""Supervised fine-tuning: maximum likelihood of the answers (Ouyang et al. 2022, arXiv:2203.02155, section 3.1).

    L = - (1 / sum_t w_t)  sum_t  w_t log p(y_t | y_<t)

over all learned tokens y_t of a step, whatever row, batch or process they are in. w_t is the weight of token t.
Pre-training is the same over plain text, every token of which is learned.
"""

from __future__ import annotations

import torch

from truetune.objectives.objective import Lesson, Loss, Objective, Outputs


class MaximumLikelihood(Objective):
    """Cross-entropy of the learned tokens."""

    perplexity = True

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        return Loss(-(batch.weights * policy.logp).sum(), float(batch.weights.sum()))
