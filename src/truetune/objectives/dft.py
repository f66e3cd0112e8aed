"""DFT: tokens count as much as the model already believes them (Wu et al. 2025, arXiv:2508.05629).

    L = - (1 / sum_t w_t)  sum_t  w_t sg(p_t) log p_t,    p_t = p(y_t | y_<t)

sg: no gradient flows through it. The gradient of plain maximum likelihood is that of a policy gradient whose reward is
1 / p_t, so that the least likely tokens pull the most; the factor p_t takes this away again. What remains is the
gradient of - p_t: the mean probability of the tokens rises, and tokens that the model holds for impossible may become
even less likely. So the value of the loss says little (- p log p is small where p is near 0 and where it is near 1, and
rises on the way to 1 / e), and neither need the cross-entropy fall; `probability` tells.
"""

from __future__ import annotations

import torch

from truetune.objectives.objective import Lesson, Loss, Outputs
from truetune.objectives.sft import Variant


class DynamicFineTuning(Variant):
    """Cross-entropy, each token times its probability. metrics: probability too, the mean of the learned tokens'."""

    headline = ("probability",)

    def losses(self, policy: Outputs) -> torch.Tensor:
        return -policy.logp.detach().exp() * policy.logp

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        loss, chance = super().loss(policy, reference, batch), (batch.weights * policy.logp.detach().exp()).sum()
        return loss._replace(metrics={**loss.metrics, "probability": (float(chance), loss.weight)})
