"""IPO: Identity Preference Optimization (Azar et al. 2023, arXiv:2310.12036, equation 17):

    L = (h - 1 / (2 tau))^2,    h = log pi(y_w | x) / ref(y_w | x) - log pi(y_l | x) / ref(y_l | x)

tau is pref_beta. Log-probabilities are means over tokens here, as in the incumbents: sums would make the square grow
with the length of answers, and the authors' own results are with means.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def ipo(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    return (pairs.lead - 1 / (2 * options.pref_beta)) ** 2
