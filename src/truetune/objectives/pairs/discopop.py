"""DiscoPOP: Discovered Preference Optimization (Lu et al. 2024, arXiv:2406.08414, equation 5), found by a language
model that was asked for losses: logistic where the pair is wrong, exponential where it is right.

    L = (1 - s) (-log sigmoid(h)) + s exp(-h),    s = sigmoid(h / tau)
    h = beta (log pi(y_w | x) / ref(y_w | x) - log pi(y_l | x) / ref(y_l | x))

tau is discopop_tau. There is a valley just below h = 0: at 0, where training begins, the slope is (1 - ln 2) / (4 tau)
- 3 / 4, which is above 0 for tau below 0.1, so the first steps let chosen answers fall back a little.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def discopop(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    h = options.pref_beta * pairs.lead
    s = torch.sigmoid(h / options.discopop_tau)
    return (1 - s) * -logsigmoid(h) + s * torch.exp(-h)
