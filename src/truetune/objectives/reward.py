"""Reward modelling: a score for each answer, the chosen one's above the rejected one's.

    L = - (1 / pairs)  sum  log sigmoid(r_c - r_r - m)  +  c (r_c + r_r)^2

Bradley and Terry's model of preferences, as in Ouyang et al. 2022 (arXiv:2203.02155, equation 1; every pair counts the
same here, they weigh each prompt the same). r is what the value head says at the last token of prompt and answer.

m: a margin by which the chosen answer has to lead (Touvron et al. 2023, Llama 2, arXiv:2307.09288, equation 2, where it
depends on how much better the answer was found; here it is one number for all pairs). c: centres the scores, which the
first term alone leaves free to drift (Eisenstein et al. 2023, arXiv:2312.09244, section 2).
"""

from __future__ import annotations

import torch

from truetune.objectives.objective import Lesson, Loss, Objective, Outputs, Wants


class BradleyTerry(Objective):
    """The chosen answer's score above the rejected one's. Rows come in pairs, chosen before rejected.

    metrics: accuracy (the share of pairs in the right order), rewards/chosen and rewards/rejected (mean scores), and
    margin (their difference).
    """

    shares = True
    headline = ("accuracy", "margin")
    wants = Wants(logp=False, values=True, ends=True)

    def __init__(self, margin: float = 0.0, centring: float = 0.0):
        self.margin, self.centring = margin, centring

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        chosen, rejected = policy.values[0::2], policy.values[1::2]
        lead, pairs = chosen - rejected, len(chosen)
        loss = -torch.nn.functional.logsigmoid(lead - self.margin) + self.centring * (chosen + rejected) ** 2
        told = {"accuracy": (lead > 0).float(), "rewards/chosen": chosen, "rewards/rejected": rejected, "margin": lead}
        return Loss(loss.sum(), pairs, {name: (float(each.detach().sum()), pairs) for name, each in told.items()})
