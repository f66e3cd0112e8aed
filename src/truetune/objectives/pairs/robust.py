"""Robust DPO (Chowdhury et al. 2024, arXiv:2403.00409): DPO's loss as it would be without the share epsilon of labels
that are flipped, on average over them.

    L = [-(1 - epsilon) log sigmoid(h) + epsilon log sigmoid(-h)] / (1 - 2 epsilon)
    h = beta (log pi(y_w | x) / ref(y_w | x) - log pi(y_l | x) / ref(y_l | x))

epsilon is dpo_label_smoothing, below 1/2.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def robust(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    h, epsilon = options.pref_beta * pairs.lead, options.dpo_label_smoothing
    return (-(1 - epsilon) * logsigmoid(h) + epsilon * logsigmoid(-h)) / (1 - 2 * epsilon)
