"""SLiC: Sequence Likelihood Calibration (Zhao et al. 2023, arXiv:2305.10425), on likelihoods relative to the reference
(Liu et al. 2023, RSO, arXiv:2309.06657):

    L = max(0, 1 - h),    h = beta (log pi(y_w | x) / ref(y_w | x) - log pi(y_l | x) / ref(y_l | x))

Nothing more is learned from a pair that leads by 1 / beta.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def hinge(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    return (1 - options.pref_beta * pairs.lead).relu()
