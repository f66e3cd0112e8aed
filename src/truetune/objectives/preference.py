"""Learning from pairs of answers, of which one is preferred: the weighted sum of one or several losses (`pairs`).

    L = 1/P  sum over pairs  [ (sum_k w_k L_k + v L_BCO) / (1 + v)  +  g L_SFT ]

w: pref_loss_weights (Wang et al. 2024, Mixed Preference Optimization, arXiv:2411.10442, equation 2). v:
pref_bco_weight. g: pref_ftx.

ld_alpha (Liu et al. 2024, LD-DPO, arXiv:2409.06411): the tokens by which an answer is longer than the other of its pair
count so much less in what the policy says. What the reference says is left as it is, as LLaMA-Factory has it; TRL 1.16
weighs both.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import torch

from truetune.objectives.objective import Lesson, Loss, Objective, Outputs, per_row
from truetune.objectives.pairs import COMPUTE, PARTS, Pairs, RunningMean
from truetune.options.preference import PAIR_LOSSES, PreferenceOptions

WORTH = ("bco_worth_sum", "bco_worth_count")
"""How the running mean is called in a checkpoint."""


class Preference(Objective):
    """Pairs: rows 2k (chosen) and 2k + 1 (rejected) of a batch.

    Metrics are those that LLaMA-Factory and TRL log, but for logits/chosen and logits/rejected: these are means over
    whole logits (tokens x vocabulary), which are never built here, and say nothing that logps do not say better.
    """

    shares = True
    dropout = False
    headline = ("rewards/accuracies", "rewards/margins")

    def __init__(self, options: PreferenceOptions):
        self.options = options
        self.weights = weigh_losses(options)
        self.reference = any(PAIR_LOSSES[name].reference for name in self.weights)
        self._worth, self._looks_on = RunningMean(), False

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        pairs = read_pairs(policy.logp, reference, batch, self.options.ld_alpha)
        if any(PAIR_LOSSES[name].baseline for name in self.weights):
            if not self._looks_on:
                self._worth.see(self.options.pref_beta * torch.cat([pairs.ratio_w, pairs.ratio_l]))
            pairs = replace(pairs, baseline=self._worth.mean)
        views = {True: pairs.mean(), False: pairs}
        loss = torch.stack([weight * COMPUTE[name](views[PAIR_LOSSES[name].mean], self.options)
                            for name, weight in self.weights.items()]).sum()
        return Loss(loss, float(len(pairs.policy_w)), self._metrics(views))

    def evaluation(self) -> Preference:
        """The same, learning nothing of what held-out answers are worth."""
        held_out = copy(self)
        held_out._looks_on = True
        return held_out

    def state(self) -> dict[str, float]:
        return dict(zip(WORTH, (self._worth.sum, self._worth.count), strict=True))

    def load_state(self, state: Mapping[str, float]) -> None:
        self._worth = RunningMean(*(state.get(name, 0.0) for name in WORTH))

    def _metrics(self, views: Mapping[bool, Pairs]) -> dict[str, tuple[float, float]]:
        """Rewards as the first loss that is named sees them: of mean log-probabilities if it does, without a reference
        if it has none."""
        first = self.options.pref_loss[0]
        facts, beta = PAIR_LOSSES[first], self.options.pref_beta
        pairs = views[facts.mean]
        if not facts.reference:
            pairs = replace(pairs, reference_w=torch.zeros_like(pairs.policy_w),
                            reference_l=torch.zeros_like(pairs.policy_l))
        told = {
            "rewards/chosen": beta * pairs.ratio_w, "rewards/rejected": beta * pairs.ratio_l,
            "rewards/accuracies": pairs.ratio_w > pairs.ratio_l, "rewards/margins": beta * pairs.lead,
            "logps/chosen": pairs.policy_w, "logps/rejected": pairs.policy_l,
        }
        for name in self.weights:
            if name in PARTS:
                told |= PARTS[name](views[PAIR_LOSSES[name].mean], self.options)
        return {name: (float(numbers.detach().sum()), len(numbers)) for name, numbers in told.items()}


def weigh_losses(options: PreferenceOptions) -> dict[str, float]:
    """Every loss with its weight in the sum; one that is named twice has both."""
    whole = 1 + options.pref_bco_weight
    named = zip(options.pref_loss, options.pref_loss_weights or [1.0] * len(options.pref_loss), strict=True)
    terms: list[tuple[str, float]] = [
        *((name, weight / whole) for name, weight in named),
        ("bco_pair", options.pref_bco_weight / whole), ("sft", options.pref_ftx)]
    weights: dict[str, float] = {}
    for name, weight in terms:
        if weight:
            weights[name] = weights.get(name, 0.0) + weight
    return weights


def read_pairs(policy: torch.Tensor, reference: torch.Tensor | None, batch: Lesson, ld_alpha: float | None) -> Pairs:
    """What the losses read of a batch of 2P rows.

    Args:
        policy, reference: (N,) log-probabilities of the learned tokens.
    """
    weights = batch.weights
    seen = weights if ld_alpha is None else weights * _of_shared_length(batch, ld_alpha)
    rows = [per_row(seen * policy, batch), per_row(weights, batch).clamp(min=1)]
    rows.append(torch.zeros_like(rows[0]) if reference is None else per_row(weights * reference, batch))
    (policy_w, policy_l), (length_w, length_l), (reference_w, reference_l) = (
        row.view(-1, 2).unbind(dim=1) for row in rows)
    return Pairs(policy_w, policy_l, reference_w, reference_l, length_w, length_l)


def _of_shared_length(batch: Lesson, alpha: float) -> torch.Tensor:
    """(N,): 1 for the tokens of an answer up to the length of the shorter one of its pair, `alpha` past it."""
    lengths = torch.bincount(batch.rows, minlength=batch.size)
    place = torch.arange(len(batch.rows), device=batch.rows.device) - (lengths.cumsum(0) - lengths)[batch.rows]
    shared = lengths.view(-1, 2).amin(dim=1).repeat_interleave(2)
    return torch.where(place < shared[batch.rows], 1.0, alpha)
