"""EAFT: tokens count as much as the model is unsure of them (Diao et al. 2026, arXiv:2601.02151).

    L = - (1 / sum_t w_t)  sum_t  w_t (H_t / 3)^alpha log p(y_t | y_<t)

H_t is the entropy, in nats, of the model's 20 likeliest tokens before y_t, their probabilities brought to a sum of 1;
no gradient flows through it. ln 20 = 2.996 is the most it can be, so the factor is between 0 and 1 (the authors' code,
and LLaMA-Factory's, divide by 3). Where the model is sure of another token than the data's, H_t is near 0 and little is
overwritten.
"""

from __future__ import annotations

import torch

from truetune.objectives.objective import Outputs, Wants
from truetune.objectives.sft import Variant

_LIKELIEST, _MOST = 20, 3.0


class EntropyAdaptive(Variant):
    """Cross-entropy, each token times (the entropy there / 3) to the power of `alpha`."""

    def __init__(self, alpha: float, accuracy: bool = False):
        super().__init__(accuracy)
        self.alpha = alpha
        self.wants = Wants(tokens=entropy)

    def losses(self, policy: Outputs) -> torch.Tensor:
        return -((policy.tokens[:, 0] / _MOST) ** self.alpha) * policy.logp


@torch.no_grad()
def entropy(logits: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
    """(n, 1): the entropy of the 20 likeliest tokens, in nats."""
    logp = logits.topk(min(_LIKELIEST, logits.shape[1]), dim=1).values.log_softmax(dim=1)
    return -(logp.exp() * logp).sum(dim=1, keepdim=True)
