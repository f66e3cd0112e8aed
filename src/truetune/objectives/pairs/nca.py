"""NCA: Noise Contrastive Alignment on pairs (Chen et al. 2024, arXiv:2402.05369): each answer is told from one that the
reference wrote.

    L = -log sigmoid(r_w) - 1/2 log sigmoid(-r_w) - 1/2 log sigmoid(-r_l),    r = beta log pi(y | x) / ref(y | x)

The first two terms keep the chosen answer from becoming less likely.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def nca(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    r_w, r_l = options.pref_beta * pairs.ratio_w, options.pref_beta * pairs.ratio_l
    return -logsigmoid(r_w) - logsigmoid(-r_w) / 2 - logsigmoid(-r_l) / 2
