"""DFT: tokens count as much as the model already believes them (Wu et al. 2025, arXiv:2508.05629).

    L = - (1 / sum_t w_t)  sum_t  w_t sg(p_t) log p_t,    p_t = p(y_t | y_<t)

sg: no gradient flows through it. The gradient of plain maximum likelihood is that of a policy gradient whose reward is
1 / p_t, so that the least likely tokens pull the most; the factor p_t takes this away again. The value of the loss says
little: - p log p is small where p is near 0 and where it is near 1, and rises on the way to 1 / e. `nll` tells.
"""

from __future__ import annotations

import torch

from truetune.objectives.objective import Outputs
from truetune.objectives.sft import Variant


class DynamicFineTuning(Variant):
    """Cross-entropy, each token times its probability."""

    def losses(self, policy: Outputs) -> torch.Tensor:
        return -policy.logp.detach().exp() * policy.logp
