"""Options: downloads, uploads and their tokens."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class HubOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Hub", "模型站")
