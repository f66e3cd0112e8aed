"""What tells whether a run learns, where that is not the loss of the answers: how often it prefers the better answer,
or how much reward its own answers get.

Such numbers are noisy. A rise counts where the last fifth of the log lies above the first by more than chance explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from truetune.findings import Both


@dataclass(frozen=True)
class Gauge:
    """key: the number in the log that should rise. says: it in words, between two values. loss: whether the loss falls
    too, as its training goes on; where the model writes its own answers it need not."""

    key: str
    says: Both
    loss: bool


GAUGES: Mapping[str, Gauge] = {
    "dpo": Gauge("rewards/accuracies", Both("the share of pairs whose chosen answer it has moved towards more than the "
                                            "rejected one", "更偏向 chosen 回答的样本对比例"), True),
    "kto": Gauge("rewards/margins", Both("the lead of good answers over bad ones", "好回答相对差回答的领先幅度"), True),
    "rm": Gauge("accuracy", Both("the share of pairs whose chosen answer gets the higher score",
                                 "chosen 回答得分更高的样本对比例"), True),
    "ppo": Gauge("reward", Both("the mean reward of its answers", "回答的平均奖励"), False),
    "grpo": Gauge("reward", Both("the mean reward of its answers", "回答的平均奖励"), False),
}
"""By stage. The others are told by their loss."""


@dataclass(frozen=True)
class Trend:
    """The means of the first and the last fifth of a log, and how far chance alone moves their difference (one standard
    error)."""

    before: float
    after: float
    chance: float

    @property
    def rose(self) -> bool:
        return self.after - self.before > 2 * self.chance

    @property
    def fell(self) -> bool:
        return self.before - self.after > 3 * self.chance


def trend(events: Iterable[Mapping[str, Any]], key: str) -> Trend | None:
    """How `key` went over the step events; None: there are too few."""
    values = [event[key] for event in events if event["event"] == "step" and event.get(key) is not None]
    if len(values) < 4:
        return None
    size = max(2, len(values) // 5)
    first, last = values[:size], values[-size:]
    return Trend(fmean(first), fmean(last), math.sqrt(_error(first) + _error(last)))


def _error(values: Sequence[float]) -> float:
    """The squared standard error of their mean."""
    return variance(values) / len(values)
