"""What a model is trained for. One paper, one file: citation with link and equation, the paper's symbols, its maths,
its metrics. `objective` says what an objective is; `OBJECTIVES` makes the one of a stage from the options.

The loss is a sum and comes with what to divide it by, so the loop can divide by the count over all batches of a step
and no objective can get that wrong. Nothing here imports data, model or run code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from truetune.objectives.asft import Anchored
from truetune.objectives.dft import DynamicFineTuning
from truetune.objectives.distill import Distillation
from truetune.objectives.eaft import EntropyAdaptive
from truetune.objectives.grpo import Grpo
from truetune.objectives.kto import KahnemanTversky
from truetune.objectives.objective import Objective
from truetune.objectives.ppo import Ppo
from truetune.objectives.preference import Preference
from truetune.objectives.reward import BradleyTerry
from truetune.objectives.sft import MaximumLikelihood
from truetune.objectives.smoothing import LabelSmoothing
from truetune.options import Config

SUPERVISED: Mapping[str, Callable[[Config], Objective]] = {
    "use_dft_loss": lambda config: DynamicFineTuning(config.compute_accuracy),
    "use_eaft_loss": lambda config: EntropyAdaptive(config.eaft_alpha, config.compute_accuracy),
    "use_asft_loss": lambda config: Anchored(config.asft_alpha, config.compute_accuracy),
}
"""Losses of supervised fine-tuning by the option that switches them on. The first that is on is taken."""


def _likelihood(config: Config) -> Objective:
    """Maximum likelihood, with labels as sharp as asked for."""
    if config.label_smoothing_factor:
        return LabelSmoothing(config.label_smoothing_factor, config.compute_accuracy)
    return MaximumLikelihood(config.compute_accuracy)


def _supervised(config: Config) -> Objective:
    make = next((make for switch, make in SUPERVISED.items() if getattr(config, switch)), _likelihood)
    return make(config)


OBJECTIVES: Mapping[str, Callable[[Config], Objective]] = {
    "pt": _likelihood,
    "sft": _supervised,
    "rm": lambda config: BradleyTerry(config.reward_margin, config.center_rewards_coefficient),
    "dpo": Preference,
    "kto": KahnemanTversky,
    "ppo": Ppo,
    "grpo": Grpo.of,
    "distill": lambda config: Distillation(config.distill_beta, config.distill_temperature, config.kd_ratio),
}
"""The objective of each stage."""

__all__ = ["OBJECTIVES", "Objective"]
