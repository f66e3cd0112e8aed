"""Group relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv:2402.03300), and its variants by name.

To each prompt q the model writes G answers o_1 .. o_G, whose rewards r_i are compared with each other; no value model
is needed (section 4.1.2):

    A_i = (r_i - mean(r)) / std(r)

    L = - (1/G) sum_i (1/|o_i|) sum_t { min(rho_it A_i, clip(rho_it, 1 - epsilon, 1 + epsilon_high) A_i)
                                        - beta KL_it }                                                       (eq. 3)
    rho_it = pi(o_it | q, o_i,<t) / pi_old(o_it | q, o_i,<t)
    KL_it  = pi_ref / pi - log(pi_ref / pi) - 1                                                              (eq. 4)

with epsilon_high = epsilon. pi_old wrote the answers. Where a round is learned from in one step, pi_old = pi: rho is 1,
and its gradient is that of log pi (eq. 21).

The variants change one thing each:

- DAPO (Yu et al. 2025, arXiv:2503.14476): every token counts alike, sum_i sum_t / sum_i |o_i| over the round (eq. 8);
  epsilon_high > epsilon (section 3.1); answers that were cut are left out (section 3.4).
- BNPO as TRL calls it: the same over the tokens of a step.
- Dr. GRPO (Liu et al. 2025, arXiv:2503.20783): divided by G times the longest length allowed, and no std (section 3.2).
- RLOO (Ahmadian et al. 2024, arXiv:2402.14740): r_i less the mean of the other answers' rewards (eq. 8).
- GSPO (Zheng et al. 2025, arXiv:2507.18071): one rho for an answer, the |o_i|-th root of the ratio of its probabilities
  (eq. 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from truetune.objectives.objective import Lesson, Loss, Objective, Outputs, Wants, per_row
from truetune.options import Config

TINY = 1e-4
"""Added to a spread before something is divided by it, as in TRL."""


@dataclass(frozen=True)
class Settings:
    """The options of GRPO, by the names they have there. longest: of an answer, in tokens."""

    beta: float = 0.0
    epsilon: float = 0.2
    epsilon_high: float | None = None
    loss_type: str = "dapo"
    scale_rewards: str = "group"
    baseline: str = "group"
    importance_sampling_level: str = "token"
    mask_truncated_completions: bool = False
    longest: int = 256
    temperature: float = 1.0


class Grpo(Objective):
    """GRPO. Columns that it learns from: `advantage` (B,), `counts` (B,), 0 where nothing is learned from an answer,
    `mean_length` (B,), tokens of an answer on average over the round; and `old` (N,), log-probabilities when the
    answers were written, unless they are those of now."""

    shares = True
    dropout = False
    headline = ("reward",)

    def __init__(self, settings: Settings):
        self.settings = settings
        self.reference = settings.beta > 0
        self.temperature = settings.temperature
        self._level = LEVELS[settings.importance_sampling_level]
        self._average = AVERAGES[settings.loss_type]

    @classmethod
    def of(cls, config: Config) -> Grpo:
        """As the options say."""
        return cls(Settings(
            config.beta, config.epsilon, config.epsilon_high, config.loss_type, config.scale_rewards, config.baseline,
            config.importance_sampling_level, config.mask_truncated_completions, config.max_completion_length or 0,
            config.temperature))

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        """Equation 3, as a sum over answers or tokens and what it is to be divided by."""
        settings, columns, logp = self.settings, batch.columns, policy.logp
        advantage, counts = columns["advantage"][batch.rows], columns["counts"][batch.rows]
        rho = self._level(logp - columns.get("old", logp.detach()), batch).exp()
        low, high = 1 - settings.epsilon, 1 + (settings.epsilon_high or settings.epsilon)
        gain = torch.minimum(rho * advantage, rho.clamp(low, high) * advantage)
        tokens = float(counts.sum())
        clipped = counts * (((rho < low) & (advantage < 0)) | ((rho > high) & (advantage > 0)))
        metrics = {"clip_share": (float(clipped.sum()), tokens)}
        if reference is not None:
            ahead = reference - logp
            distance = ahead.exp() - ahead - 1
            gain = gain - settings.beta * distance
            metrics["kl"] = (float((counts * distance.detach()).sum()), tokens)
        shares, weight = self._average(batch, settings)
        return Loss(-(shares * counts * gain).sum(), weight, metrics)

    def experience(self, scores: torch.Tensor, answers: int, policy: Outputs, reference: torch.Tensor | None,
                   batch: Lesson) -> Mapping[str, torch.Tensor]:
        """A_i, and which answers count. An answer without a score (nan) is compared with nothing and has A_i = 0."""
        counts = torch.ones_like(scores)
        if self.settings.mask_truncated_completions:
            counts = batch.columns["ended"].to(scores.dtype)
        tokens = float((per_row(torch.ones_like(batch.weights), batch) * counts).sum())
        return {"advantage": advantages(scores, answers, self.settings.baseline, self.settings.scale_rewards),
                "counts": counts, "mean_length": torch.full_like(scores, max(tokens, 1.0) / len(scores))}

    def evaluation(self) -> Objective:
        return MeanReward()


def advantages(scores: torch.Tensor, answers: int, baseline: str, scale: str) -> torch.Tensor:
    """(B,) A_i of rewards (B,), of which `answers` neighbours belong together; 0 where there is none (nan).

    Args:
        baseline: group, or leave_one_out. scale: group, batch or none.
    """
    groups = scores.view(-1, answers)
    lead = groups - groups.nanmean(dim=1, keepdim=True)
    if baseline == "leave_one_out":  # r_i - (sum of the others) / (n - 1) = (r_i - mean) n / (n - 1)
        known = (~groups.isnan()).sum(dim=1, keepdim=True)
        lead = lead * known / (known - 1).clamp(min=1)
    return (lead / SCALES[scale](groups)).view(-1).nan_to_num(0.0)


def _spread(rows: torch.Tensor) -> torch.Tensor:
    """(n, 1) the standard deviation (of a sample: n - 1) of what is known in each row (n, m)."""
    known = (~rows.isnan()).sum(dim=1, keepdim=True)
    squares = ((rows - rows.nanmean(dim=1, keepdim=True)) ** 2).nansum(dim=1, keepdim=True)
    return (squares / (known - 1).clamp(min=1)).sqrt()


SCALES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "group": lambda groups: _spread(groups) + TINY,
    "batch": lambda groups: _spread(groups.reshape(1, -1)) + TINY,
    "none": lambda groups: torch.ones_like(groups[:1, :1]),
}
"""`scale_rewards`: what the leads of groups (n, m) are divided by."""


def _lengths(batch: Lesson) -> torch.Tensor:
    """(B,) tokens of each answer."""
    return per_row(torch.ones_like(batch.weights), batch)


# ------------------------------------------------------------------------------------------------------- the variants


def _of_answers(log_ratio: torch.Tensor, batch: Lesson) -> torch.Tensor:
    """The same number for each token of an answer: the mean of its (N,) logarithms (GSPO, equation 7)."""
    return (per_row(log_ratio, batch) / _lengths(batch).clamp(min=1))[batch.rows]


LEVELS: Mapping[str, Callable[[torch.Tensor, Lesson], torch.Tensor]] = {
    "token": lambda log_ratio, batch: log_ratio, "sequence": _of_answers}
"""`importance_sampling_level`: what becomes of log rho (N,)."""


def _by_answer(batch: Lesson, settings: Settings) -> tuple[torch.Tensor, float]:
    return 1 / _lengths(batch).clamp(min=1)[batch.rows], float(batch.size)


def _by_round(batch: Lesson, settings: Settings) -> tuple[torch.Tensor, float]:
    return torch.ones_like(batch.weights), float(batch.columns["mean_length"].sum())


def _by_step(batch: Lesson, settings: Settings) -> tuple[torch.Tensor, float]:
    # Where every answer was cut nothing is learned, and 0 is divided by next to nothing.
    return torch.ones_like(batch.weights), max(float(batch.columns["counts"][batch.rows].sum()), 1e-9)


def _by_limit(batch: Lesson, settings: Settings) -> tuple[torch.Tensor, float]:
    return torch.ones_like(batch.weights), float(batch.size * settings.longest)


AVERAGES: Mapping[str, Callable[[Lesson, Settings], tuple[torch.Tensor, float]]] = {
    "grpo": _by_answer, "dapo": _by_round, "bnpo": _by_step, "dr_grpo": _by_limit}
"""`loss_type`: the share (N,) of each token in the sum, and what that is divided by."""


class MeanReward(Objective):
    """How held-out prompts are measured: less the mean reward of the answers, in the column `score` (B,)."""

    wants = Wants(logp=False)

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        scores = batch.columns["score"]
        known = ~scores.isnan()
        return Loss(-scores[known].sum(), float(known.sum()))
