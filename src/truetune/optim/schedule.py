"""The learning-rate schedule, transformers' own, so that names and settings mean what they mean everywhere."""

from __future__ import annotations

from typing import Any

import torch
from transformers import get_scheduler

from truetune.options import Config
from truetune.steps import warmup_steps


def build_schedule(optimizer: torch.optim.Optimizer, config: Config, total_steps: int) -> Any:
    """The schedule of `optimizer` over `total_steps`, warmup among them.

    `warmup_stable_decay` without settings holds a third of the steps after warmup and decays over the rest.
    """
    warmup = warmup_steps(config, total_steps)
    settings = dict(config.lr_scheduler_kwargs)
    if config.lr_scheduler_type == "warmup_stable_decay":
        stable = settings.get("num_stable_steps", (total_steps - warmup) // 3)
        settings.setdefault("num_decay_steps", total_steps - warmup - stable)
    return get_scheduler(config.lr_scheduler_type, optimizer, num_warmup_steps=warmup,
                         num_training_steps=total_steps, scheduler_specific_kwargs=settings)
