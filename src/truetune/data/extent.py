"""How many rows a data set has, and how many of them are worth looking at, without reading it whole.

A check must take seconds on files of any size, so of a large data set it reads the first rows only. How many there are
in all a table knows (parquet, arrow); of text it is reckoned from the bytes that the first rows take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from truetune.data.readers import RawRow, read_file
from truetune.data.sources import Files, Hub, Source
from truetune.findings import Both, problem

_LEAST_BYTES = 100
"""Of a row. Files with less than that for each row that may be looked at are read whole, without counting."""
_PACKED = 5
"""So many bytes of text are a compressed byte, about."""
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
            first = _worth_reading(source.rows(), most)
            return Extent(hub.count(), first, repr(hub), True) if first is not None else None
    return None


def _worth_reading(rows: Iterator[RawRow], most: int) -> int | None:
    """How many of `rows` are to be looked at; None: all of them."""
    reading = _Reading(most)
    return next((reading.rows - 1 for row in rows if reading.enough(row)), None)


@dataclass
class _Reading:
    """Rows counted while they are read. letters: about so many they have."""

    most: int
    rows: int = 0
    letters: int = 0

    def enough(self, row: RawRow) -> bool:
        """Count a row; whether it is one more than is to be looked at."""
        self.rows += 1
        if self.rows > self.most or (self.letters > _LETTERS and self.rows > 1):
            return True
        if self.rows % _EVERY == 1:
            self.letters += _EVERY * len(str(row.values))
        return False


def _of_files(paths: tuple[Path, ...], most: int) -> Extent | None:
    try:
        stats = [path.stat() for path in paths]
    except OSError:
        return None  # who reads them tells why
    size = sum(stat.st_size for stat in stats)
    packed = any(path.suffix.lower() == ".gz" for path in paths)
    if size * (_PACKED if packed else 1) < most * _LEAST_BYTES:
        return None
    tables = [_TABLES[path.suffix.lower()] for path in paths if path.suffix.lower() in _TABLES]
    first, rows, read = _read_ahead(paths, most, on=len(tables) < len(paths))
    if first is None:
        return None
    total = sum(count(path) for count, path in zip(tables, paths, strict=True)) if len(tables) == len(paths) else \
        rows * size / max(read, 1)
    mark = " ".join(f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}"
                    for path, stat in zip(paths, stats, strict=True))
    return Extent(max(round(total), first + 1), first, mark, size <= _HASHED)


def _read_ahead(paths: Sequence[Path], most: int, on: bool) -> tuple[int | None, int, int]:
    """How many of the first rows are to be looked at (None: all), and so many rows that take so many bytes.

    Files are read in pieces, so where a row ends is known only when the next piece is fetched: by then all that was
    fetched before is used up.

    Args:
        on: read on until that is so.
    """
    reading, first = _Reading(most), None
    behind = used = bytes = 0
    for path in paths:
        with path.open("rb") as file:
            fetched = 0
            for row in read_file(file, str(path)):
                if file.tell() != fetched:
                    used, bytes, fetched = reading.rows, behind + fetched, file.tell()
                    if first is not None:
                        return first, used, bytes
                if reading.enough(row) and first is None:
                    first = reading.rows - 1
                    if not on:
                        return first, used, bytes
            behind += fetched
    return first, reading.rows, behind


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
        except (pyarrow.ArrowException, OSError) as error:
            raise problem("data-unreadable", Both(f"is not a whole arrow file: {error}.",
                                                  f"不是完整的 arrow 文件：{error}。"), where=str(path)) from None


_TABLES: Mapping[str, Callable[[Path], int]] = {".parquet": _rows_of_parquet, ".arrow": _rows_of_arrow}
"""Kinds of files that know how many rows they have."""
