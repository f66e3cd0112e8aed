"""APO: Anchored Preference Optimization (D'Oosterlinck et al. 2024, arXiv:2408.06266, equations 7 and 8), r = beta log
pi(y | x) / ref(y | x):

    zero:  L = 1 - sigmoid(r_w) + sigmoid(r_l)
    down:  L = sigmoid(r_w) + 1 - sigmoid(r_w - r_l)

zero makes chosen answers likelier and rejected ones less likely: where chosen ones are better than what the model
writes. down makes both less likely, the rejected one more so: where both are worse.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def apo_zero(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    beta = options.pref_beta
    return 1 - torch.sigmoid(beta * pairs.ratio_w) + torch.sigmoid(beta * pairs.ratio_l)


def apo_down(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    beta = options.pref_beta
    return torch.sigmoid(beta * pairs.ratio_w) + 1 - torch.sigmoid(beta * pairs.lead)
