"""KTO on pairs (Ethayarajh et al. 2023, the report before KTO, with the loss of Ethayarajh et al. 2024,
arXiv:2402.01306, section 4.1):

    L = 1/2 [1 - sigmoid(beta (r_w - z_l))] + 1/2 [1 - sigmoid(beta (z_w - r_l))]
    r = log pi(y | x) / ref(y | x),    z_w = max(0, mean r_w),    z_l = max(0, mean r_l)

z stands for the KL divergence between policy and reference; that of the chosen answers is estimated on the rejected
ones of the batch, and the reverse, and takes no gradient. So the pairs of a batch depend on one another: with one pair
a batch it is measured on a single answer. Stage kto estimates it better.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def kto_pair(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    beta = options.pref_beta
    z_w, z_l = (ratio.detach().mean().clamp(min=0) for ratio in (pairs.ratio_w, pairs.ratio_l))
    chosen = 1 - torch.sigmoid(beta * (pairs.ratio_w - z_l))
    rejected = 1 - torch.sigmoid(beta * (z_w - pairs.ratio_l))
    return (chosen + rejected) / 2
