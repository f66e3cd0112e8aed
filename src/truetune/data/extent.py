"""How many rows a data set has, and how many of them are worth looking at, without reading it whole.

A check must take seconds on files of any size, so of a large data set it reads the first rows only. How many there are
in all is told by the file where it knows (parquet, arrow, a hub's data), and otherwise reckoned from the bytes that
the first rows take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truetune.data.readers import suffix_of
from truetune.data.sources import Files, Hub, Source

_LEAST_BYTES = 100
"""Of a row. A file with less than that for each row that may be looked at is looked at whole, without counting."""
_LETTERS = 24_000_000
"""At most so many are looked at, in rows of whatever length: what is tokenised here in two or three seconds."""
_EVERY = 16
"""Of so many rows one is measured."""
_HASHED = 2_000_000_000
"""Bytes that are hashed within seconds, to know whether the data set has been tokenised whole before."""


@dataclass(frozen=True)
class Extent:
    """rows: in all. first: so many are looked at, fewer than there are. mark: tells these data from others without
    reading them. hashable: whether the data can be hashed in a few seconds."""

    rows: int
    first: int
    mark: str
    hashable: bool


def extent_of(source: Source, most: int) -> Extent | None:
    """How large `source` is, where that is more than `most` rows or a very large text; None: it is looked at whole.

    Raises:
        Problem: the data cannot be read as far as they are looked at.
    """
    match source.data:
        case Files(paths):
            return _of_files(source, paths, most)
        case Hub(streaming=False):
            rows, first = source.data.row_count(), _readable(source, most)
            return Extent(rows, first, repr(source.data), True) if rows > first else None
    return None


def _of_files(source: Source, paths: tuple[Path, ...], most: int) -> Extent | None:
    try:
        stats = [path.stat() for path in paths]
    except OSError:
        return None  # who reads it tells why
    size = sum(stat.st_size for stat in stats)
    if size < most * _LEAST_BYTES:
        return None
    counters = [_COUNTERS.get(suffix_of(path.name)) for path in paths]
    if all(counters):
        rows, first = sum(count(path) for count, path in zip(counters, paths, strict=True) if count), _readable(source, most)
    else:
        first, bytes = _read(paths, most)
        rows = first if bytes >= size else round(first * size / max(bytes, 1))
    mark = " ".join(f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}"
                    for path, stat in zip(paths, stats, strict=True))
    return Extent(rows, first, mark, size <= _HASHED) if rows > first else None
