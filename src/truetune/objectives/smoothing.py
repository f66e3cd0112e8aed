"""Label smoothing: the data's token, and a little of every other (Szegedy et al. 2016, arXiv:1512.00567, section 7).

    L = - (1 / sum_t w_t)  sum_t  w_t [ (1 - epsilon) log p(y_t | y_<t)  +  (epsilon / V) sum_v log p(v | y_<t) ]

V is the size of the vocabulary, as wide as the model's head. These are the numbers of transformers' `LabelSmoother`.
"""

from __future__ import annotations

import torch

from truetune.objectives.objective import Outputs, Wants
from truetune.objectives.sft import Variant


class LabelSmoothing(Variant):
    """Cross-entropy with labels of which the share `epsilon` is spread over all tokens."""

    def __init__(self, epsilon: float, accuracy: bool = False):
        super().__init__(accuracy)
        self.epsilon = epsilon
        self.wants = Wants(tokens=mean_logp)

    def losses(self, policy: Outputs) -> torch.Tensor:
        return -(1 - self.epsilon) * policy.logp - self.epsilon * policy.tokens[:, 0]


def mean_logp(logits: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
    """(n, 1): the mean log-probability of all tokens of the vocabulary."""
    return (logits.mean(dim=1) - logits.logsumexp(dim=1))[:, None]
