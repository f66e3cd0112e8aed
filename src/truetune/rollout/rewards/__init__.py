"""What an answer is worth: functions of the user, functions shipped here, reward models, servers.

All are called alike, with everything that is known of the answers, and give one number for each; None where they do
not apply. What goes wrong in one of them stops the run with a line that names it, after a checkpoint is saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from truetune.check.preflight import Preflight
from truetune.findings import FAILED, Both, Finding, Problem, Say
from truetune.model.policy import Policy
from truetune.options import Config
from truetune.rollout.rewards.functions import find_function
from truetune.rollout.rewards.model import reward_model
from truetune.rollout.rewards.reward import Answered, Reward, Unscored
from truetune.rollout.rewards.shipped import SHIPPED

__all__ = ["Answered", "Reward", "Unscored", "make_rewards", "score"]


def make_rewards(config: Config, ready: Preflight, policy: Policy, model: torch.nn.Module, say: Say) -> list[Reward]:
    """The rewards that `reward_funcs` names, in order, then the reward model that `reward_model` names.

    Args:
        model: the policy's model with its adapter, which a reward adapter can be put beside.

    Raises:
        Problem: some of them cannot be found or loaded; all that is wrong, together.
    """
    rewards: list[Reward] = []
    errors: list[Finding] = []
    status = FAILED
    for name in config.reward_funcs:
        try:
            rewards.append(_find(name, config, ready, policy, model, say))
        except Problem as error:
            errors += error.findings
            status = max(status, error.status)
    if errors:
        raise Problem(errors, status)
    if config.reward_model:
        rewards.append(_judge(config.reward_model, config, ready, policy, model, say))
    return rewards


def _find(name: str, config: Config, ready: Preflight, policy: Policy, model: torch.nn.Module, say: Say) -> Reward:
    """One of `reward_funcs`: a shipped one, a reward model's folder, or a function of the user."""
    if name in SHIPPED:
        return SHIPPED[name](config)
    if Path(name).is_dir():
        return _judge(name, config, ready, policy, model, say)
    return find_function(name, config)


def _judge(name: str, config: Config, ready: Preflight, policy: Policy, model: torch.nn.Module, say: Say) -> Reward:
    """A reward model (a folder, an adapter, a hub id) or the address of a server."""
    option = "reward_model" if name == config.reward_model else "reward_funcs"
    return reward_model(name, config, ready, policy, say, option)


def score(rewards: Sequence[Reward], answered: Answered) -> torch.Tensor:
    """(B, R) float32: what each reward says of each answer; nan: it does not apply.

    Raises:
        Unscored: a reward fails, gives another number of scores than there are answers, or one that is no number.
    """
    count, columns = len(answered.texts), []
    for reward in rewards:
        said = list(reward(answered))
        if len(said) != count:
            raise Unscored.of(reward.name, answered.rows[0].where, Both(
                f"gave {len(said)} scores for {count} answers", f"对 {count} 个回答给出了 {len(said)} 个分数"),
                Both("Give one number for each of completions, in order; None where the reward does not apply.",
                     "请按顺序为 completions 里的每个回答返回一个数；不适用时返回 None。"))
        columns.append(torch.tensor([_number(value, reward, row.where)
                                     for value, row in zip(said, answered.rows, strict=True)]))
    return torch.stack(columns, dim=1)


def _number(value: object, reward: Reward, where: str) -> float:
    """A score as a number; nan: none."""
    if value is None:
        return math.nan
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        number = math.nan
    if not math.isfinite(number):
        raise Unscored.of(reward.name, where, Both(f"gave {value!r:.80}, which is no finite number",
                                                   f"给出的 {value!r:.80} 不是有限的数"))
    return number
