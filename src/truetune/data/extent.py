"""How many rows a data set has, and how many of them are worth looking at, without reading it whole.

A check must take seconds on files of any size, so of a large data set it reads the first rows only. How many there are
in all a table knows (parquet, arrow); of text it is reckoned from the bytes that the first rows take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from truetune.data.readers import RawRow, read_file
from truetune.data.sources import Files, Hub, Source
from truetune.findings import Both, problem

_LEAST_BYTES = 100
"""Of a row. Files with less than that for each row that may be looked at are read whole, without counting."""
_LETTERS = 24_000_000
"""At most so many are looked at, in rows of whatever length: what is tokenised in two or three seconds."""
_EVERY = 16
"""Of so many rows one is measured."""
_HASHED = 2_000_000_000
"""Bytes that are hashed in a few seconds, to know whether the data set has been tokenised whole before."""


@dataclass(frozen=True)
class Extent:
    """rows: in all. first: so many are looked at, fewer than there are. mark: tells these data from others without
    reading them. hashable: whether they can be hashed in a few seconds."""

    rows: int
    first: int
    mark: str
    hashable: bool


def extent_of(source: Source, most: int) -> Extent | None:
    """How large `source` is, where it has more than `most` rows or very much text. None: it can be read whole, or
    nobody knows how large it is (in a cloud).

    Raises:
        Problem: the data cannot be read as far as they are looked at.
    """
    match source.data:
        case Files(paths):
            return _of_files(paths, most)
        case Hub(streaming=False) as hub:
            first = _take(source.rows(), most)
            rows = hub.count() if first.goes_on else first.rows
            return Extent(rows, first.rows, repr(hub), True) if rows > first.rows else None
    return None


@dataclass
class _Taken:
    """Rows that were read, and whether there are more."""

    rows: int = 0
    letters: int = 0
    goes_on: bool = False


def _take(rows: Iterator[RawRow], most: int, taken: _Taken | None = None) -> _Taken:
    """Read on until there are `most` rows or `_LETTERS` letters."""
    taken = taken or _Taken()
    for row in rows:
        if taken.rows >= most or taken.letters >= _LETTERS:
            taken.goes_on = True
            break
        if taken.rows % _EVERY == 0:
            taken.letters += _EVERY * len(str(row.values))
        taken.rows += 1
    return taken


def _of_files(paths: tuple[Path, ...], most: int) -> Extent | None:
    try:
        stats = [path.stat() for path in paths]
    except OSError:
        return None  # who reads them tells why
    size = sum(stat.st_size for stat in stats)
    if size < most * _LEAST_BYTES:
        return None
    taken, read = _Taken(), 0
    for path, stat in zip(paths, stats, strict=True):
        with path.open("rb") as file:
            _take(read_file(file, str(path)), most, taken)
            read += file.tell() if taken.goes_on else stat.st_size
        if taken.goes_on:
            break
    if not taken.goes_on:
        return None
    counts = [_TABLES[path.suffix.lower()](path) for path in paths if path.suffix.lower() in _TABLES]
    rows = sum(counts) if len(counts) == len(paths) else round(taken.rows * size / max(read, 1))
    mark = " ".join(f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}"
                    for path, stat in zip(paths, stats, strict=True))
    return Extent(max(rows, taken.rows + 1), taken.rows, mark, size <= _HASHED)


def _rows_of_parquet(path: Path) -> int:
    from pyarrow import parquet

    return parquet.read_metadata(path).num_rows


def _rows_of_arrow(path: Path) -> int:
    """Of the file format or the stream format; mapped, so that no column is read."""
    import pyarrow
    from pyarrow import ipc

    with pyarrow.memory_map(str(path)) as file:
        if file.read(6) == b"ARROW1":
            table = ipc.open_file(file)
            return sum(table.get_batch(number).num_rows for number in range(table.num_record_batches))
        file.seek(0)
        try:
            return sum(batch.num_rows for batch in ipc.open_stream(file))
        except pyarrow.ArrowException as error:
            raise problem("data-unreadable", Both(f"is not a whole arrow file: {error}.",
                                                  f"不是完整的 arrow 文件：{error}。"), where=str(path)) from None


_TABLES: Mapping[str, Callable[[Path], int]] = {".parquet": _rows_of_parquet, ".arrow": _rows_of_arrow}
"""Kinds of files that know how many rows they have."""
