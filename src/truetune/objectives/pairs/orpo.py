"""ORPO: Odds Ratio Preference Optimization (Hong et al. 2024, arXiv:2403.07691, equations 4, 6 and 7):

    L = L_SFT + lambda L_OR
    L_SFT = -log P(y_w | x),    L_OR = -log sigmoid(log odds(y_w | x) / odds(y_l | x)),    odds = P / (1 - P)

log P(y | x) is the mean log-probability of the answer's tokens. lambda is pref_beta. No reference model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.functional import logsigmoid

from truetune.objectives.pairs.pair import Pairs
from truetune.options.preference import PreferenceOptions


def orpo(pairs: Pairs, options: PreferenceOptions) -> torch.Tensor:
    return -pairs.policy_w + options.pref_beta * odds_ratio_loss(pairs)


def odds_ratio_loss(pairs: Pairs) -> torch.Tensor:
    """L_OR, (P,)."""
    return -logsigmoid(_log_odds(pairs.policy_w) - _log_odds(pairs.policy_l))


def parts(pairs: Pairs, options: PreferenceOptions) -> Mapping[str, torch.Tensor]:
    """The two losses that it is made of, as metrics: (P,) each."""
    return {"sft_loss": -pairs.policy_w, "odds_ratio_loss": odds_ratio_loss(pairs)}


def _log_odds(logp: torch.Tensor) -> torch.Tensor:
    """log P / (1 - P). expm1 keeps 1 - P where P is nearly 1; at 1 itself, where odds are infinite, P is held back by
    what float32 can tell from 1."""
    held = logp.clamp(max=-torch.finfo(torch.float32).eps)
    return held - torch.log(-torch.expm1(held))
