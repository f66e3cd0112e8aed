"""Options: weights held in fewer bits while training."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class QuantizeOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Quantization", "量化")
