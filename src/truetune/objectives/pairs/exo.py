"""EXO: Efficient Exact Optimization on pairs (Ji et al. 2024, arXiv:2402.00856, equation 16): the reverse KL divergence
from what the labels say to what the policy says.

    L = p log p / (1 - epsilon) + (1 - p) log (1 - p) / epsilon,    p = sigmoid(h)
    h = beta (log pi(y_w | x) / ref(y_w | x) - log pi(y_l | x) / ref(y_l | x))

epsilon is dpo_label_smoothing, above 0: the labels are never quite certain.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import logsigmoid

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def exo(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    h, epsilon = options.pref_beta * pairs.lead, options.dpo_label_smoothing
    first = torch.sigmoid(h) * (logsigmoid(h) - math.log1p(-epsilon))
    return first + torch.sigmoid(-h) * (logsigmoid(-h) - math.log(epsilon))
