"""The likelihood of the chosen answer, beside a preference loss (Pang et al. 2024, Iterative Reasoning Preference
Optimization, arXiv:2404.19733, equation 1):

    L = -log pi(y_w | x) / |y_w|

pref_ftx adds it to any loss; the third part of MPO (Wang et al. 2024, arXiv:2411.10442) is the same.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def sft(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    return -pairs.policy_w
