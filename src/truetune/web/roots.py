"""The folders that the page may read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from truetune.findings import WRONG_OPTIONS, Both, problem

_LONGEST = 4096
"""Letters of a path: more than any system takes."""


@dataclass(frozen=True)
class Roots:
    """folders: the one that the page was started in, and those named with it; the first is where new things go."""

    folders: Sequence[Path]

    @property
    def home(self) -> Path:
        return self.folders[0]

    def inside(self, typed: str, option: str | None = None) -> Path:
        """The file or folder that somebody typed, relative to `home`, its links followed. It need not be there.

        Raises:
            Problem: it lies outside all of the folders, or is no path.
        """
        path = self._resolved(typed.strip(), option)
        if not any(path.is_relative_to(folder.resolve()) for folder in self.folders):
            raise problem("outside", Both(f"{typed:.200} lies outside the folders that the page may use.",
                                          f"{typed:.200} 在网页可用的文件夹之外。"),
                          option=option, status=WRONG_OPTIONS, fix=Both(
                              "Start the page with web_roots that hold it.", "请在启动网页时用 web_roots 加上它。"))
        return path

    def _resolved(self, typed: str, option: str | None) -> Path:
        try:
            if not typed.isprintable() or len(typed) > _LONGEST:
                raise ValueError
            return (self.home / Path(typed).expanduser()).resolve()
        except (ValueError, RuntimeError, OSError):  # a user who is not there (~nobody-here), links in a circle, …
            raise problem("no-path", Both(f"{typed[:80]!r} is not a path.", f"{typed[:80]!r} 不是路径。"),
                          option=option, status=WRONG_OPTIONS,
                          fix=Both("Name a file or a folder.", "请填写文件或文件夹。")) from None
