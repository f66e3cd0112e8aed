"""AOT: Alignment via Optimal Transport, on pairs (Melnyk et al. 2024, arXiv:2406.05882): the distribution of leads has
to lie above the reference's, whichever pair a lead belongs to.

    L = -log sigmoid(beta (d_(i) - e_(i)))    d = log pi(y_w | x) - log pi(y_l | x),    e = the same of the reference

(i): the i-th smallest of the batch, so one pair a batch is DPO. Labels are smoothed as in DPO.
"""

from __future__ import annotations

import torch

from truetune.objectives.pairs.pair import Pairs, logistic
from truetune.options.preference import PreferenceOptions


def aot(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    policy = (pairs.policy_w - pairs.policy_l).sort().values
    reference = (pairs.reference_w - pairs.reference_l).sort().values
    return logistic(options.pref_beta * (policy - reference), options.dpo_label_smoothing)
