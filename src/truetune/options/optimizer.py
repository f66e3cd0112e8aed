"""Options: which optimizer, and its settings."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class OptimizerOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Optimizer", "优化器")
