"""Options: learning from pairs, judgements and rewards."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class PreferenceOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Preference and reward", "偏好与奖励")
