"""ASFT: DFT, held to the model that training starts from (Zhu et al. 2025, arXiv:2509.23753).

    L = L_DFT + alpha (1 / sum_t w_t)  sum_t  w_t KL(p_base(. | y_<t) || p(. | y_<t))

over whole distributions. DFT alone follows what it already believes, and so drifts; the second term is the anchor. The
direction of the divergence is that of LLaMA-Factory: where the base model sees a chance, the model must keep one.
LLaMA-Factory takes the mean over each batch by itself; here both sums are divided by all learned tokens of the step.
"""

from __future__ import annotations

import torch

from truetune.objectives.dft import DynamicFineTuning
from truetune.objectives.distill import Divergence
from truetune.objectives.objective import Lesson, Loss, Outputs, Wants


class Anchored(DynamicFineTuning):
    """DFT plus `alpha` times the divergence from the base model. metrics: kl too, that divergence per learned token, in
    nats."""

    headline = ("probability", "kl")

    def __init__(self, alpha: float, accuracy: bool = False):
        super().__init__(accuracy)
        self.alpha = alpha
        self.wants = Wants(tokens=Divergence(beta=0.0), beside=True)

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        drawn, apart = super().loss(policy, reference, batch), (batch.weights * policy.tokens[:, 0]).sum()
        return Loss(drawn.sum + self.alpha * apart, drawn.weight,
                    {**drawn.metrics, "kl": (float(apart.detach()), drawn.weight)})
