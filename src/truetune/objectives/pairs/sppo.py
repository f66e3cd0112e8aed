"""SPPO: Self-Play Preference Optimization (Wu et al. 2024, arXiv:2405.00675, equation 4.7), the chosen answer taken to
win always:

    L = (r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2,    r = log pi(y | x) / ref(y | x)
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def sppo(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    aim = 1 / (2 * options.pref_beta)
    return (pairs.ratio_w - aim) ** 2 + (pairs.ratio_l + aim) ** 2
