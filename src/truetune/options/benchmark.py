"""Options: standard question sets."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class BenchmarkOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Benchmarks", "评测")
