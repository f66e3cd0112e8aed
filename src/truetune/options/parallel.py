"""Options: several devices and machines."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class ParallelOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Parallel", "并行")
