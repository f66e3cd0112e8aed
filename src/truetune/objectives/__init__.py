"""What a model is trained for. One paper, one file: citation with link and equation, the paper's symbols, its maths,
its metrics. `objective` says what an objective is; `OBJECTIVES` makes the one of a stage from the options.

The loss is a sum and comes with what to divide it by, so the loop can divide by the count over all batches of a step
and no objective can get that wrong. Nothing here imports data, model or run code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from truetune.objectives.objective import Objective
from truetune.objectives.sft import MaximumLikelihood
from truetune.options import Config

OBJECTIVES: Mapping[str, Callable[[Config], Objective]] = {
    "pt": lambda config: MaximumLikelihood(),
    "sft": lambda config: MaximumLikelihood(),
}
"""The objective of each stage."""

__all__ = ["OBJECTIVES", "Objective"]
