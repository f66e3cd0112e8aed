"""Proximal policy optimisation of a language model (Schulman et al. 2017, arXiv:1707.06347), as Ziegler et al. 2019
(arXiv:1909.08593) brought it to text, with the details that Huang et al. 2024 (arXiv:2403.17031) and Zheng et al. 2023
(arXiv:2307.04964) found to matter.

The model writes an answer a_1 .. a_T; its score comes at the last token, and every token pays for leaving the
reference (Ziegler et al., equation 2):

    r_t = - beta (log pi_old(a_t | s_t) - log pi_ref(a_t | s_t)),   r_T += score

The value head says V(s_t), what is still to come. From it the advantage of each token (Schulman et al. 2015,
arXiv:1506.02438, equation 16) and the return that the value head is to learn:

    A_t = sum_l (gamma lambda)^l delta_{t+l},   delta_t = r_t + gamma V(s_{t+1}) - V(s_t),   V(s_{T+1}) = 0
    R_t = A_t + V_old(s_t)

The answers are then learned from several times (Schulman et al. 2017, equations 7 and 9), A brought to mean 0 and
spread 1 over the round:

    rho_t = pi(a_t | s_t) / pi_old(a_t | s_t)
    L = - sum_t min(rho_t A_t, clip(rho_t, 1 - epsilon, 1 + epsilon) A_t)
        + c/2 sum_t max((V(s_t) - R_t)^2, (clip(V(s_t), V_old(s_t) - epsilon_v, V_old(s_t) + epsilon_v) - R_t)^2)

divided by the number of tokens of a step. beta follows the distance that is wanted (Ziegler et al., section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from truetune.objectives.grpo import MeanReward
from truetune.objectives.objective import Lesson, Loss, Objective, Outputs, Wants, per_row
from truetune.options import Config

TINY = 1e-8
"""Added to a variance before its root is taken."""
MOST_OFF = 0.2
"""A round moves beta as if the distance were at most this share off its target (Ziegler et al., section 2.2)."""
HORIZON = 10_000
"""Answers after which beta would have changed e^0.2-fold, were the distance that far off all the time (ibid.)."""


@dataclass
class Moments:
    """Mean and variance of all numbers seen, those of a batch added at once (Chan, Golub and LeVeque 1979).

    count, mean; squares: the sum of (x - mean)^2.
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def see(self, numbers: torch.Tensor) -> None:
        """Add (n,) numbers."""
        if not len(numbers):
            return
        new = numbers.double()
        count, mean = len(new), float(new.mean())
        apart, total = mean - self.mean, self.count + count
        self.squares += float(((new - mean) ** 2).sum()) + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    def normalised(self, numbers: torch.Tensor) -> torch.Tensor:
        """(n,) as distances from the mean, in spreads. With one number seen the spread is not known, and taken as 1."""
        variance = self.squares / (self.count - 1) if self.count > 1 else 1.0
        return (numbers - self.mean) / (variance + TINY) ** 0.5


class Ppo(Objective):
    """The clipped objective, its value function and the penalty for leaving the reference.

    Numbers of the options are taken once; beta and the moments of the scores change from round to round, and are the
    objective's state.
    """

    reference = True
    dropout = False  # rho compares two passes
    headline = ("reward", "kl")
    wants = Wants(values=True)

    def __init__(self, config: Config):
        self.gamma, self.lam = config.ppo_gamma, config.ppo_lambda
        self.clip, self.clip_value, self.value_coef = config.ppo_clip, config.ppo_clip_value, config.ppo_value_coef
        self.target = config.ppo_target if config.ppo_adaptive_kl else None
        self.whiten_rewards, self.normalises = config.ppo_whiten_rewards, config.ppo_score_norm
        self.kl_coef = config.ppo_kl_coef
        self.scores = Moments()
        if config.do_sample and config.temperature:
            self.temperature = config.temperature

    def experience(self, scores: torch.Tensor, answers: int, policy: Outputs, reference: torch.Tensor | None,
                   batch: Lesson) -> Mapping[str, torch.Tensor]:
        """Advantages, returns and what the value head said, for all tokens of a round; beta for the next one."""
        assert reference is not None
        values, apart = policy.values.float(), (policy.logp - reference).float()
        kl = per_row(apart, batch)
        rewards = reward_tokens(self._worth(scores), -self.kl_coef * apart, batch.rows)
        if self.whiten_rewards:
            rewards = whiten(rewards, centre=False)
        advantages = estimate_advantages(rewards, values, batch.rows, self.gamma, self.lam)
        known = {"advantages": whiten(advantages), "returns": advantages + values, "values": values,
                 "kl": kl, "kl_coef": torch.full_like(kl, self.kl_coef)}
        if self.target is not None:
            self.kl_coef = adapt(self.kl_coef, float(kl.mean()), self.target, batch.size)
        return known

    def _worth(self, scores: torch.Tensor) -> torch.Tensor:
        """(B,) scores as they are learned from. An answer that nobody scored (nan) counts as the mean of the others."""
        there = scores[~scores.isnan()]
        scores = scores.nan_to_num(float(there.mean()) if len(there) else 0.0)
        if not self.normalises:
            return scores
        self.scores.see(there)
        return self.scores.normalised(scores)

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        known, count = batch.columns, float(batch.weights.sum())
        towards, clipped = policy_losses(policy.logp, known["old"], known["advantages"], self.clip)
        wrong = value_losses(policy.values, known["values"], known["returns"], self.clip_value)
        policy_loss, value_loss = (batch.weights * towards).sum(), (batch.weights * wrong).sum()
        told = {name: (float(known[name].sum()), batch.size) for name in ("kl", "kl_coef")}
        told |= {name: (float(total.detach()), count) for name, total in {
            "policy_loss": policy_loss, "value_loss": value_loss, "clip_share": (batch.weights * clipped).sum(),
            "entropy": -(batch.weights * policy.logp).sum()}.items()}
        return Loss(policy_loss + self.value_coef * value_loss, count, told)

    def evaluation(self) -> Objective:
        return MeanReward()

    def state(self) -> dict[str, float]:
        return {"kl_coef": self.kl_coef, "score_count": self.scores.count, "score_mean": self.scores.mean,
                "score_squares": self.scores.squares}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.kl_coef = state["kl_coef"]
        self.scores = Moments(state["score_count"], state["score_mean"], state["score_squares"])


def reward_tokens(scores: torch.Tensor, penalties: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(N,): the reward r_t of each token: what it pays, and at the last token of a row its score.

    Args:
        scores: (B,). penalties: (N,). rows: (N,) the row of each token, in order.
    """
    last = torch.ones_like(rows, dtype=torch.bool)
    last[:-1] = rows[1:] != rows[:-1]
    return penalties + torch.where(last, scores.to(penalties.dtype)[rows], 0.0)


def estimate_advantages(rewards: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, gamma: float,
                        lam: float) -> torch.Tensor:
    """(N,): the advantage A_t of each token, equation 16 of generalised advantage estimation, summed from the end:
    A_t = delta_t + gamma lambda A_{t+1}.

    Args:
        rewards, values: (N,) r_t and V(s_t). rows: (N,) the row of each token, in order. lam: lambda.
    """
    if not len(rows):
        return torch.zeros_like(rewards)
    _, lengths = rows.unique_consecutive(return_counts=True)
    ahead = torch.arange(int(lengths.max()), device=rows.device)
    there = ahead < lengths[:, None]  # (B, L): rows one below the other, with 0 beyond their ends
    empty = torch.zeros_like(there, dtype=rewards.dtype)
    reward, value = (empty.masked_scatter(there, numbers) for numbers in (rewards, values))
    delta = reward - value
    delta[:, :-1] += gamma * value[:, 1:]
    for t in range(delta.shape[1] - 2, -1, -1):
        delta[:, t] += gamma * lam * delta[:, t + 1]
    return delta[there]


def whiten(numbers: torch.Tensor, centre: bool = True) -> torch.Tensor:
    """(N,) brought to a spread of 1, and with `centre` to a mean of 0; else the mean stays where it was, as Ziegler et
    al. did with rewards: to shift them would pay for every further token. The spread of a single number is 1."""
    mean = numbers.mean()
    variance = numbers.var() if len(numbers) > 1 else torch.ones_like(mean)
    whitened = (numbers - mean) * (variance + TINY).rsqrt()
    return whitened if centre else whitened + mean


def policy_losses(logp: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor,
                  clip: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,): minus equation 7 for each token, and 1 where the clipping decided."""
    ratio = (logp - old).exp()
    free, held = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return -torch.minimum(free, held), (held < free).to(logp.dtype)


def value_losses(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """(N,): half the squared error of each value, the worse of as it is and held near the old one."""
    held = values.clamp(old - clip, old + clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2)


def adapt(kl_coef: float, kl: float, target: float, answers: int) -> float:
    """beta after a round of so many answers that were `kl` away from the reference (Ziegler et al., section 2.2):
    beta (1 + e n / horizon), e = clip(kl / target - 1, -0.2, 0.2)."""
    off = min(max(kl / target - 1, -MOST_OFF), MOST_OFF)
    return kl_coef * (1 + off * answers / HORIZON)
