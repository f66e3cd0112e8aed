"""Options: where a run's numbers go."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class TrackOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Tracking", "记录")
