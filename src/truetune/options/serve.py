"""Options: engines that answer."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class ServeOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Serving", "部署")
