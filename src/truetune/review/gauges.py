"""What tells whether a run learns, where that is not the loss of the answers: how often it prefers the better answer,
or how much reward its own answers get.

Such numbers are noisy. A change counts where the last fifth of the log is better than the first by more than chance
explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from truetune.findings import Both
from truetune.options import Config


@dataclass(frozen=True)
class Gauge:
    """key: the number in the log that should rise (or fall: `falls`). says: it in words, between two values. loss:
    whether the loss falls too as training goes on; where the model writes its own answers it need not."""

    key: str
    says: Both
    loss: bool
    falls: bool = False


_REWARD = Gauge("reward", Both("the mean reward of its answers", "回答的平均奖励"), loss=False)
_PROBABILITY = Gauge("probability", Both("the mean probability of the right token", "正确 token 的平均概率"),
                     loss=False)
_STAGES: Mapping[str, Gauge] = {
    "dpo": Gauge("rewards/accuracies", Both("the share of pairs whose chosen answer gained more than the "
                                            "rejected one", "更偏向 chosen 回答的样本对比例"), loss=True),
    "kto": Gauge("rewards/margins", Both("the lead of good answers over bad ones", "好回答相对差回答的领先幅度"),
                 loss=True),
    "rm": Gauge("accuracy", Both("the share of pairs whose chosen answer gets the higher score",
                                 "chosen 回答得分更高的样本对比例"), loss=True),
    "ppo": _REWARD, "grpo": _REWARD,
    "distill": Gauge("loss", Both("the distance to the teacher", "与教师的距离"), loss=True, falls=True),
}
_SWITCHES: Mapping[str, Gauge] = {"use_dft_loss": _PROBABILITY, "use_asft_loss": _PROBABILITY}
"""Of supervised losses that do not fall as the answers are learned."""


def gauge_of(config: Config) -> Gauge | None:
    """What tells that a run learns; None: its loss."""
    switched = next((gauge for switch, gauge in _SWITCHES.items() if getattr(config, switch)), None)
    return _STAGES.get(config.stage, switched)


@dataclass(frozen=True)
class Trend:
    """The means of the first and the last fifth of a log, and how far chance alone moves their difference (one standard
    error). good: 1 where it should rise, -1 where it should fall."""

    before: float
    after: float
    chance: float
    good: int = 1

    @property
    def better(self) -> bool:
        return self.good * (self.after - self.before) > 2 * self.chance

    @property
    def worse(self) -> bool:
        return self.good * (self.before - self.after) > 3 * self.chance


def trend(events: Iterable[Mapping[str, Any]], gauge: Gauge) -> Trend | None:
    """How it went over the step events; None: there are too few."""
    key = gauge.key
    values = [event[key] for event in events if event["event"] == "step" and event.get(key) is not None]
    if len(values) < 4:
        return None
    size = max(2, len(values) // 5)
    first, last = values[:size], values[-size:]
    return Trend(fmean(first), fmean(last), math.sqrt(_error(first) + _error(last)), -1 if gauge.falls else 1)


def _error(values: Sequence[float]) -> float:
    """The squared standard error of their mean."""
    return variance(values) / len(values)
