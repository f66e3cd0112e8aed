"""DPO: Direct Preference Optimization (Rafailov et al. 2023, arXiv:2305.18290, equation 7).

    L = -log sigmoid(h),    h = beta (log pi(y_w | x) / ref(y_w | x) - log pi(y_l | x) / ref(y_l | x))

A share epsilon of the labels may be wrong (dpo_label_smoothing; Mitchell 2023, conservative DPO,
https://ericmitchell.ai/cdpo.pdf):

    L = -(1 - epsilon) log sigmoid(h) - epsilon log sigmoid(-h)

With the reference equal to the policy h is 0, and L is ln 2 = 0.693.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs, logistic
from truetune.options.preference import PreferenceOptions


def sigmoid(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    return logistic(options.pref_beta * pairs.lead, options.dpo_label_smoothing)
