"""Options: images, video and audio in conversations."""

from __future__ import annotations

from typing import ClassVar

from truetune.options.schema import Group


class MediaOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Media", "图像、视频与音频")
