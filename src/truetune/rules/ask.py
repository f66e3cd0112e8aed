"""What rules ask of a configuration, and what several of them say."""

from __future__ import annotations

import re

from truetune.findings import Both
from truetune.options import OPTIONS, Config
from truetune.options.preference import PAIR_LOSSES

EVERY = ("train", "check", "data", "chat", "api", "export", "eval")
READING = ("train", "check", "data")
"""The verbs that read data."""
WRITES = ("ppo", "grpo")
"""Stages that learn from answers that the model writes on the way."""
KEEP_ONE = Both("Keep one of the two.", "两者只保留一个。")
EVALUATE = Both("Set eval_strategy: steps (or epoch).", "请设置 eval_strategy: steps（或 epoch）。")


def is_set(c: Config, *names: str) -> bool:
    """Whether one of `names` was set to something else than its default."""
    return any(c.given(name) and getattr(c, name) != OPTIONS[name].default for name in names)


def writes(c: Config) -> bool:
    """Whether a run learns from answers that it writes itself."""
    return c.stage in WRITES or (c.stage == "distill" and c.lmbda > 0)


def reference_free(c: Config) -> bool:
    """Whether the preference loss compares with no reference model."""
    return not (c.pref_bco_weight or any(PAIR_LOSSES[name].reference for name in c.pref_loss))


def is_pattern(text: str) -> bool:
    """Whether `text` is a regular expression."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True
