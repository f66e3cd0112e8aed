"""SimPO: Simple Preference Optimization (Meng et al. 2024, arXiv:2405.14734, equation 6):

    L = -log sigmoid(beta / |y_w| log pi(y_w | x) - beta / |y_l| log pi(y_l | x) - gamma)

gamma is simpo_gamma, the lead that is asked for. No reference model.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs, logistic
from truetune.options.preference import PreferenceOptions


def simpo(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    return logistic(options.pref_beta * (pairs.policy_w - pairs.policy_l) - options.simpo_gamma, 0.0)
