"""KTO: Kahneman-Tversky Optimization (Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1). Answers are judged good
or bad one by one; no pairs are needed.

    L = mean of  lambda_D [1 - sigmoid(beta (r - z_0))]   for good answers
                 lambda_U [1 - sigmoid(beta (z_0 - r))]   for bad ones
    r = log pi(y | x) / ref(y | x),    z_0 = max(0, mean of log pi(y' | x) / ref(y' | x))

z_0 stands for the KL divergence between policy and reference; y' is the answer to another prompt of the data. It is
measured on all rows of a step, whatever batch they are in, and takes no gradient. beta is pref_beta, lambda_D and
lambda_U are kto_chosen_weight and kto_rejected_weight. pref_ftx adds the likelihood of good answers,
-log pi(y | x) / |y|, so many times.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from truetune.objectives.objective import Lesson, Loss, Objective, Outputs, per_row
from truetune.options.preference import PreferenceOptions


class KahnemanTversky(Objective):
    """Judged answers: `label` of a row is True where it is good. Metrics are those of LLaMA-Factory and TRL, of each
    class by itself (why there are no logits: see `preference`)."""

    reference = True
    mismatched = True
    dropout = False
    headline = ("rewards/chosen", "rewards/rejected")

    def __init__(self, options: PreferenceOptions):
        self.options = options

    def known(self, policy: torch.Tensor, reference: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"kl": (policy - reference).mean().clamp(min=0)}

    def follows(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """How far good answers lead, once there were answers of both classes."""
        if not {"rewards/chosen", "rewards/rejected"} <= means.keys():
            return {}
        return {"rewards/margins": means["rewards/chosen"] - means["rewards/rejected"]}

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        assert reference is not None  # `self.reference`
        options, kl = self.options, batch.columns["kl"]
        good = torch.tensor([bool(row.label) for row in batch.sequences], device=batch.weights.device)
        logp = per_row(batch.weights * policy.logp, batch)
        ratio = logp - per_row(batch.weights * reference, batch)
        value = torch.sigmoid(options.pref_beta * torch.where(good, ratio - kl, kl - ratio))
        weight = torch.where(good, options.kto_chosen_weight, options.kto_rejected_weight)
        losses = weight * (1 - value)
        if options.pref_ftx:
            lengths = per_row(batch.weights, batch).clamp(min=1)
            losses = losses - options.pref_ftx * torch.where(good, logp / lengths, 0.0)
        rewards = options.pref_beta * ratio
        told = {f"{name}/{side}": (float(numbers.detach()[mine].sum()), float(mine.sum()))
                for name, numbers in (("rewards", rewards), ("logps", logp))
                for side, mine in (("chosen", good), ("rejected", ~good))}
        return Loss(losses.sum(), batch.size, {**told, "kl": (float(kl) * batch.size, batch.size)})
