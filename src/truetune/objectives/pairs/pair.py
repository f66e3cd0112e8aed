"""What a loss on pairs reads, in the symbols that its papers share.

x: the prompt. y_w, y_l: the chosen and the rejected answer. pi, ref: the policy and the reference model. beta:
pref_beta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import logsigmoid

from truetune.options.preference import PreferenceOptions


@dataclass(frozen=True)
class Pairs:
    """P pairs, a number of each: (P,).

    policy_w, policy_l: log pi(y_w | x) and log pi(y_l | x), sums over the tokens of an answer.
    reference_w, reference_l: the same of the reference; 0 where there is none.
    length_w, length_l: tokens of the answers.
    baseline: what an answer is worth on average (`bco`).
    """

    policy_w: torch.Tensor
    policy_l: torch.Tensor
    reference_w: torch.Tensor
    reference_l: torch.Tensor
    length_w: torch.Tensor
    length_l: torch.Tensor
    baseline: float = 0.0

    @property
    def ratio_w(self) -> torch.Tensor:
        """log pi(y_w | x) / ref(y_w | x)"""
        return self.policy_w - self.reference_w

    @property
    def ratio_l(self) -> torch.Tensor:
        """log pi(y_l | x) / ref(y_l | x)"""
        return self.policy_l - self.reference_l

    @property
    def lead(self) -> torch.Tensor:
        """By how much the policy prefers y_w more than the reference does: ratio_w - ratio_l."""
        return self.ratio_w - self.ratio_l

    def mean(self) -> Pairs:
        """With mean log-probabilities of tokens in the place of sums."""
        return replace(self, policy_w=self.policy_w / self.length_w, policy_l=self.policy_l / self.length_l,
                       reference_w=self.reference_w / self.length_w, reference_l=self.reference_l / self.length_l)


PairLoss = Callable[[Pairs, PreferenceOptions], torch.Tensor]
"""The loss of each pair, (P,)."""


def logistic(h: torch.Tensor, epsilon: float) -> torch.Tensor:
    """-(1 - epsilon) log sigmoid(h) - epsilon log sigmoid(-h): cross-entropy of "y_w is better", a statement that is
    wrong with probability epsilon."""
    return -(1 - epsilon) * logsigmoid(h) - epsilon * logsigmoid(-h)
