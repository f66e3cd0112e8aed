"""Files as rows, one after the other: json, jsonl, csv and txt with the line of each row, parquet and arrow with its
number.

Nothing is held whole: text goes through a small window, tables through batches. JSON is read here and not
by `datasets`, for two reasons: a row needs its line, and Arrow makes one type of the objects of all rows and fills the
keys that a row does not have with null, which turns `{"city": "Rome"}` into a call with arguments nobody wrote.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple, cast

from truetune.data.messages import Place
from truetune.findings import Both, Problem, parser_says, problem

_CHUNK = 1 << 16  # one emoji makes a window four bytes a letter: a small one stays in the processor's cache
_BATCH = 1000
_LONGEST_CELL = 1 << 26


class RawRow(NamedTuple):
    """A row as it stands in its file, and where."""

    values: Mapping[str, Any]
    place: Place


Rows = Generator[RawRow, None, int]
"""Rows; what it returns is how many of the rows to pass over were not in this file."""


def suffix_of(name: str) -> str:
    """What kind of file `name` is (`.json`), compressed or not, in whatever case; empty if it is none that is read."""
    suffix = PurePosixPath(name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in READERS else ""


def read_file(file: IO[bytes], name: str, start: int = 0) -> Rows:
    """The rows of an open file, the first `start` passed over. `name` says how it is read and is told in problems.

    Raises:
        Problem: it cannot be read, is cut short, is not what its name says, or is not UTF-8; with the line, if it has
            lines.
    """
    raw = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if name.lower().endswith(".gz") else file
    try:
        return (yield from READERS[suffix_of(name)](raw, name, start))
    except (OSError, EOFError, zlib.error) as error:
        raise problem("data-unreadable", Both(f"cannot be read: {error}.", f"无法读取：{error}。"),
                      where=name) from None


# ------------------------------------------------------------------------------------------------------------- JSON

_AFTER_ROW = re.compile(r"[ \t\n\r]*([,\]])[ \t\n\r]*")
_OPENING = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
_UNFINISHED = 16
"""An error so near to the end of the window may only mean that the row goes on behind it (`-Infinit`, `\\u00e`)."""


def _read_json(file: IO[bytes], name: str, start: int) -> Rows:
    """An array of objects, or one object on each line, whatever the suffix says."""
    text = _Window(file, name)
    while not text.seen.strip() and text.more():
        pass
    place, rows = f"{name}:", _json_lines(text, start)
    if text.seen.lstrip()[:1] == "[":
        rows = _array(text)
        first = list(islice(rows, 2))
        rows = chain(first, rows)
        if len(first) == 2 and first[0][1] == first[1][1]:  # several on a line, where a line would name no row
            place, rows = f"{name} row ", ((value, number) for number, (value, _) in enumerate(rows, start=1))
    for value, line in rows:
        if isinstance(value, dict):
            if start:
                start -= 1
            else:
                yield RawRow(value, Place(place, line))
        elif value is _PASSED:
            start -= 1
        else:
            raise problem("bad-row", Both(f"a row must be an object {{…}}, not {value!r:.40}.",
                                          f"每行必须是一个对象 {{…}}，而不是 {value!r:.40}。"), where=f"{place}{line}")
    return start


_PASSED = object()
"""Stands for a line that was passed over unread."""


def _json_lines(text: _Window, start: int) -> Iterator[tuple[Any, int]]:
    decode = json.JSONDecoder().decode
    for line, number in text.lines():
        if not line or line.isspace():
            continue
        if start:
            start -= 1
            yield _PASSED, number
            continue
        try:
            value = decode(line)
        except json.JSONDecodeError as error:
            raise _bad_json(parser_says(error.msg), text.name, number) from None
        yield value, number


def _array(text: _Window) -> Iterator[tuple[Any, int]]:
    """The rows of an array one by one, since only so each one's line is known and one alone is in memory."""
    decode = json.JSONDecoder().raw_decode
    opening = _OPENING.match(text.seen)
    assert opening is not None  # the caller has seen the bracket
    text.go_to(opening.end())
    text.skip_space()
    if text.need() and text.seen[text.at] == "]":
        text.go_to(text.at + 1)
    else:
        going_on = True
        while going_on:
            try:
                value, end = decode(text.seen, text.at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated") or error.pos > len(text.seen) - _UNFINISHED
                if unfinished and text.more():
                    continue
                stray = error.pos == text.at and text.seen[text.at :][:1] == "]"
                reason = Both("a comma before the closing ]", "结尾的 ] 前面多了一个逗号") if stray else \
                    parser_says(error.msg)
                raise _bad_json(reason, text.name, text.line_of(error.pos)) from None
            line = text.line
            text.go_to(end)
            after = _after_row(text)
            yield value, line
            text.go_to(after.end())
            if text.at == len(text.seen):  # space may go on behind the window
                text.skip_space()
            going_on = after[1] == ","
    text.skip_space()
    if text.need():
        raise _bad_json(Both("Extra data after the array", "数组之后还有内容"), text.name, text.line)


def _after_row(text: _Window) -> re.Match[str]:
    """The comma after a row, or the bracket that ends the array."""
    while not (after := _AFTER_ROW.match(text.seen, text.at)):
        text.skip_space()
        if text.need():
            break
        raise _bad_json(_NO_COMMA, text.name, text.line)
    if after := _AFTER_ROW.match(text.seen, text.at):
        return after
    raise _bad_json(_NO_COMMA, text.name, text.line)


_NO_COMMA = Both("Expecting ',' or ']' after a row", "一行之后应当是 ',' 或 ']'")


def _bad_json(reason: Both, name: str, line: int) -> Problem:
    return problem("bad-json", Both(f"not valid JSON: {reason}.", f"不是合法的 JSON：{reason.zh}。"),
                   where=f"{name}:{line}",
                   fix=Both("A file holds one array of objects, or one object on each line.",
                            "文件应当是一个由对象组成的数组，或每行一个对象。"))


# ------------------------------------------------------------------------------------------------------ csv and text


def _read_csv(file: IO[bytes], name: str, start: int) -> Rows:
    """Every cell is text, as it was typed: the answer `3` is no number and `None` is no missing value."""
    text = _Window(file, name)
    csv.field_size_limit(_LONGEST_CELL)  # the library's own limit, 131,072 letters, is less than a long document
    table = csv.reader((f"{line}\n" for line, _ in text.lines()), strict=True)
    place, before, header = f"{name}:", 0, None
    try:
        for cells in table:
            line, before = before + 1, table.line_num
            if header is None:
                header = cells
            elif len(cells) != len(header) and cells:
                raise problem("bad-csv", Both(f"the line has {len(cells)} cells and the header {len(header)}.",
                                              f"这一行有 {len(cells)} 个单元格，而表头有 {len(header)} 个。"),
                              where=f"{name}:{line}", fix=Both("A cell with a comma or a line break stands in quotes.",
                                                               "含逗号或换行的单元格要放在引号里。"))
            elif cells and start:
                start -= 1
            elif cells:
                yield RawRow(dict(zip(header, cells, strict=True)), Place(place, line))
    except csv.Error as error:
        raise problem("bad-csv", Both(f"not valid CSV: {error}.", f"不是合法的 CSV：{error}。"),
                      where=f"{name}:{before + 1}",
                      fix=Both("A quote that opens a cell closes it too.", "单元格开头有引号，结尾也要有。")) from None
    return start


def _read_text(file: IO[bytes], name: str, start: int) -> Rows:
    """A document on each line; empty lines are none."""
    place = f"{name}:"
    for line, number in _Window(file, name).lines():
        if not line or line.isspace():
            continue
        if start:
            start -= 1
        else:
            yield RawRow({"text": line.removesuffix("\r")}, Place(place, number))
    return start


class _Window:
    """Text that is read piece by piece. seen: what is in memory; at: how far it is used up, which is on line `line`."""

    def __init__(self, file: IO[bytes], name: str):
        self.name, self.seen, self.at, self.line = name, "", 0, 1
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self._head, self._breaks = b"", 0
        self._ended = False

    def more(self) -> bool:
        """Read on, at least as much as there is, so that a very long row is not tried too often. False: the end."""
        if self._ended:
            return False
        rest = self.seen[self.at :]
        raw = self._file.read(max(_CHUNK, len(rest)))
        self._ended = not raw
        self._head = self._head or raw[:2]
        try:
            new = self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            line = self._breaks + error.object.count(b"\n", 0, error.start) + 1
            raise self._not_utf8(line) from None
        if "\0" in new[:2]:  # English in UTF-16 is valid UTF-8, with a zero at every other place
            raise self._not_utf8(1)
        self._breaks += new.count("\n")
        self.seen, self.at = rest + new, 0
        return True

    def _not_utf8(self, line: int) -> Problem:
        file = PurePosixPath(self.name).name
        marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", self._head[:1] + b"\0": "utf-16le",
                 b"\0" + self._head[1:]: "utf-16be"}
        likely = marks.get(self._head, "gb18030")
        command = f"iconv -f {likely} -t utf-8 {file}"
        return problem("not-utf8", Both("the file is not UTF-8.", "文件不是 UTF-8 编码。"),
                       where=f"{self.name}:{line}",
                       fix=Both(f"Convert it, for instance: {command}", f"请转换编码，例如：{command}"))

    def need(self) -> bool:
        """Whether any text is left."""
        while self.at >= len(self.seen):
            if not self.more():
                return False
        return True

    def go_to(self, position: int) -> None:
        self.line += self.seen.count("\n", self.at, position)
        self.at = position

    def skip_space(self) -> None:
        while self.need() and self.seen[self.at] in " \t\n\r":
            self.go_to(self.at + 1)

    def line_of(self, position: int) -> int:
        return self.line + self.seen.count("\n", self.at, position)

    def lines(self) -> Iterator[tuple[str, int]]:
        """What is left, line by line, with their numbers."""
        while True:
            last = self.seen.rfind("\n", self.at)
            if last < 0:
                if self.more():
                    continue
                if self.at < len(self.seen):
                    yield self.seen[self.at :], self.line
                return
            block, self.at = self.seen[self.at : last], last + 1
            for line in block.split("\n"):
                yield line, self.line
                self.line += 1


# ------------------------------------------------------------------------------------------------ parquet and arrow


def _read_parquet(file: IO[bytes], name: str, start: int) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=_CHUNK)  # else it is read whole, ahead
        groups, number = list(range(table.num_row_groups)), 0
        while groups and start >= (size := table.metadata.row_group(groups[0]).num_rows):
            start, number = start - size, number + size
            del groups[0]
        batches = table.iter_batches(batch_size=_BATCH, row_groups=groups) if groups else iter(())
        return (yield from _batches(batches, name, start, number))
    except pyarrow.ArrowException as error:
        raise _bad_table(error, name, "parquet") from None


def _read_arrow(file: IO[bytes], name: str, start: int) -> Rows:
    """The file format of Arrow, or its stream format, which is what `datasets` saves."""
    import pyarrow
    from pyarrow import ipc

    try:
        magic = file.read(6)
        file.seek(0)
        if magic == b"ARROW1":
            table = ipc.open_file(file)
            batches: Iterator[Any] = map(table.get_batch, range(table.num_record_batches))
        else:
            batches = iter(ipc.open_stream(file))
        return (yield from _batches(batches, name, start, 0))
    except pyarrow.ArrowException as error:
        raise _bad_table(error, name, "arrow") from None


def _batches(batches: Iterator[Any], name: str, start: int, number: int) -> Rows:
    """The rows of record batches. `number` rows stand before them."""
    place = f"{name} row "
    for batch in batches:
        passed = min(start, batch.num_rows)
        start, number = start - passed, number + passed
        structs = struct_columns(batch.schema)
        for values in batch.slice(passed).to_pylist():
            number += 1
            yield RawRow(without_nulls(values, structs), Place(place, number))
    return start


def struct_columns(schema: Any) -> list[str]:
    """The columns of an Arrow schema that hold objects."""
    return [field.name for field in schema if "struct<" in str(field.type)]


def without_nulls(row: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """`row`, its objects in `columns` without the keys that Arrow filled in because some other row has them."""
    return row | {column: _without_nulls(row[column]) for column in columns} if columns else row


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _bad_table(error: Exception, name: str, kind: str) -> Problem:
    first = str(error).split("\n")[0].rstrip(".")
    return problem("data-unreadable", Both(f"is not a whole {kind} file: {first}.",
                                           f"不是完整的 {kind} 文件：{first}。"), where=name)


READERS: dict[str, Callable[[IO[bytes], str, int], Rows]] = {
    ".json": _read_json, ".jsonl": _read_json, ".csv": _read_csv, ".txt": _read_text,
    ".parquet": _read_parquet, ".arrow": _read_arrow,
}
"""Kinds of files, by suffix."""
KINDS = Both("json, jsonl, csv, parquet, arrow or txt", "json、jsonl、csv、parquet、arrow 或 txt")
