"""BCO: Binary Classifier Optimization on pairs (Jung et al. 2024, arXiv:2404.04656): each answer is judged by itself.

    L = -log sigmoid(r_w - delta) - log sigmoid(-(r_l - delta)),    r = beta log pi(y | x) / ref(y | x)

delta is the mean reward of all answers, chosen and rejected, that training has seen so far, those of the batch
included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def bco_pair(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    r_w, r_l = options.pref_beta * pairs.ratio_w, options.pref_beta * pairs.ratio_l
    return -logsigmoid(r_w - pairs.baseline) - logsigmoid(-(r_l - pairs.baseline))


@dataclass
class RunningMean:
    """The mean of all numbers seen."""

    sum: float = 0.0
    count: float = 0.0

    def see(self, numbers: torch.Tensor) -> None:
        self.sum += float(numbers.detach().sum())
        self.count += len(numbers)

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0
