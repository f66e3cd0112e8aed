"""CPO: Contrastive Preference Optimization (Xu et al. 2024, arXiv:2401.08417, equations 3 and 4): DPO with a uniform
reference, held to the chosen answers by their likelihood.

    L = -log sigmoid(beta log pi(y_w | x) - beta log pi(y_l | x)) - log pi(y_w | x) / |y_w|

The likelihood is a mean over tokens, so that long answers do not drown the preference. Labels are smoothed as in DPO.
No reference model.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs, logistic
from truetune.options.preference import PreferenceOptions


def cpo(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    h = options.pref_beta * (pairs.policy_w - pairs.policy_l)
    return logistic(h, options.dpo_label_smoothing) - pairs.policy_w / pairs.length_w
