"""What somebody brings, made a file that the readers read: text that was pasted, a file in an older encoding, a table
with tabs, a file with a broken line in it.

The file that was brought is never changed. Where it has to be otherwise (another encoding, commas for tabs) a copy is
made beside it, and what was done is told.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from truetune.data.messages import Place
from truetune.data.readers import KINDS, RawRow, read_file, suffix_of
from truetune.data.reading import Refused
from truetune.findings import Both, Problem, parser_says, problem

ENCODINGS: Mapping[str, Both] = {
    "utf-8-sig": Both("UTF-8", "UTF-8"),
    "gb18030": Both("GB18030 / GBK (simplified Chinese)", "GB18030 / GBK（简体中文）"),
    "utf-16": Both("UTF-16", "UTF-16"),
    "big5hkscs": Both("Big5 (traditional Chinese)", "Big5（繁体中文）"),
    "cp932": Both("Shift-JIS (Japanese)", "Shift-JIS（日文）"),
    "cp949": Both("EUC-KR (Korean)", "EUC-KR（韩文）"),
    "cp1252": Both("Windows-1252 (Western European)", "Windows-1252（西欧）"),
}
"""Encodings that text files come in, as Python names them."""
_PIECE = 1 << 20
_LONGEST_CELL = 1 << 26
_TEXTS = (".json", ".jsonl", ".csv", ".txt")


@dataclass(frozen=True)
class Brought:
    """A file that the readers read. name: what it was called. encoding: which it was in, a key of `ENCODINGS`; None of
    tables and packed files. changed: it is a copy, made because the original could not be read as it was. notes: what
    was done, in words."""

    path: Path
    name: str
    encoding: str | None = None
    changed: bool = False
    notes: tuple[Both, ...] = ()


# ------------------------------------------------------------------------------------------------------------ bringing


def bring(path: Path, folder: Path, encoding: str | None = None) -> Brought:
    """A file as one that can be read.

    Args:
        folder: where a copy is put, if one is needed.
        encoding: which it is in; None: find out.

    Raises:
        Problem: it is of no kind that is read, is empty or cannot be read, or is in none of `ENCODINGS`.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
        suffix = _suffix(path.name, head)
        if suffix not in (*_TEXTS, ".tsv") or path.name.lower().endswith(".gz"):
            return Brought(path, path.name)
        found = encoding or _encoding(path, head)
        if found == "utf-8-sig" and suffix == suffix_of(path.name):
            return _unwrapped(path, folder) or Brought(path, path.name, found)
        notes = [Both(f"It is not UTF-8; it is read as {ENCODINGS[found].en}. Are the letters below right?",
                      f"文件不是 UTF-8 编码，按 {ENCODINGS[found].zh} 读取。请看看下面的文字对不对。")
                 ] * (found != "utf-8-sig")
        notes += [Both("It is a table with tabs; it is kept with commas.", "制表符分隔的表格，保存为逗号分隔。")
                  ] * (suffix == ".tsv")
        kept = folder / f"{path.name.removesuffix('.gz').rpartition('.')[0] or path.name}{_KEPT.get(suffix, suffix)}"
        with path.open("r", encoding=found, newline="") as source, \
                kept.open("w", encoding="utf-8", newline="") as copy:
            _FILL.get(suffix, _copy)(source, copy)
        whole = _unwrapped(kept, folder) or Brought(kept, path.name)
        return Brought(whole.path, path.name, found, True, (*notes, *whole.notes))
    except UnicodeDecodeError:
        raise _no_encoding(path.name, encoding) from None
    except OSError as error:
        raise problem("data-unreadable", Both(f"cannot be read: {error.strerror}.", f"无法读取：{error.strerror}。"),
                      where=path.name) from None
    except csv.Error as error:
        raise problem("bad-csv", Both(f"not a table with tabs: {error}.", f"不是制表符分隔的表格：{error}。"),
                      where=path.name) from None


def bring_text(text: str, folder: Path, stem: str = "pasted") -> Brought:
    """Text that somebody pasted, as a file: JSON, JSONL, a table (of a spreadsheet, with tabs, or CSV), else a document
    in each line.

    Raises:
        Problem: there is none.
    """
    text = text.replace("\r\n", "\n").strip("\n\ufeff")
    if not text.strip():
        raise problem("no-rows", Both("nothing was pasted.", "没有粘贴任何内容。"),
                      fix=Both("Paste rows, with the names of the columns in the first line, or JSON.",
                               "请粘贴数据：表格首行是列名，或者 JSON。"))
    suffix, note = _kind_of(text)
    path = folder / f"{stem}{_KEPT.get(suffix, suffix)}"
    with path.open("w", encoding="utf-8", newline="") as file:
        _FILL.get(suffix, _copy)(io.StringIO(text + "\n", newline=""), file)
    found = _unwrapped(path, folder) if suffix == ".json" else None
    return found or Brought(path, path.name, None, True, (note,))


def _kind_of(text: str) -> tuple[str, Both]:
    """What pasted text is, by how it begins; and that in words."""
    first, _, rest = text.lstrip().partition("\n")
    if first[:1] == "[":
        return ".json", Both("Read as JSON.", "按 JSON 读取。")
    if first[:1] == "{":
        alone = first.rstrip()[-1:] != "}"
        return ".json" if alone else ".jsonl", Both("Read as JSON, one object a line.", "按每行一个 JSON 对象读取。")
    if "\t" in first and rest:
        return ".tsv", Both("Read as a table; its first line names the columns.", "按表格读取，首行是列名。")
    if "," in first and _is_csv(text, len(next(csv.reader([first])))):
        return ".csv", Both("Read as CSV; its first line names the columns.", "按 CSV 读取，首行是列名。")
    return ".txt", Both("Read as plain text, a document in each line.", "按纯文本读取，每行一篇。")


def _is_csv(text: str, columns: int) -> bool:
    """Several rows, all with as many cells as the first: a sentence with a comma is none."""
    try:
        rows = list(islice(csv.reader(io.StringIO(text, newline=""), strict=True), 50))
    except csv.Error:
        return False
    return len(rows) > 1 and columns > 1 and all(len(row) == columns for row in rows if row)


def _suffix(name: str, head: bytes) -> str:
    """What kind of file this is: by its name, and by its first bytes where they say otherwise.

    Raises:
        Problem: it is of no kind that is read, with the way out.
    """
    if not head:
        raise problem("no-rows", Both("the file is empty.", "文件是空的。"), where=name)
    for magic, message, fix in _OTHERS:
        if head.startswith(magic) and not (magic == _GZIP and name.lower().endswith(".gz")):
            raise problem("other-kind", message, where=name, fix=fix)
    suffix = suffix_of(name) or Path(name.lower()).suffix
    if suffix in (".tsv", ".tab"):
        return ".tsv"
    if suffix_of(name):
        return suffix
    if suffix in (".md", ".text", ".log", ""):
        return ".txt"
    if suffix == ".ndjson":
        return ".jsonl"
    raise problem("other-kind", Both(f"files that end with {suffix} are not read, only {KINDS}.",
                                     f"不支持 {suffix} 文件，只支持 {KINDS.zh}。"), where=name,
                  fix=Both("Save it as one of these, or paste its text.", "请另存为其中一种，或直接粘贴内容。"))


_GZIP = b"\x1f\x8b"
_AS_CSV = Both("In the spreadsheet choose File > Save as > CSV UTF-8, or copy the cells and paste them here.",
               "请在表格软件里选择 文件 > 另存为 > CSV UTF-8；或复制单元格，直接粘贴到这里。")
_OTHERS = (
    (b"PK\x03\x04", Both("it is an archive or an Office file (zip, xlsx, docx), which is not read.",
                         "这是压缩包或 Office 文件（zip、xlsx、docx），不能直接读取。"),
     Both(f"{_AS_CSV.en} Of an archive, unpack it and bring the file in it.",
          f"{_AS_CSV.zh}如果是压缩包，请解压后再上传里面的文件。")),
    (b"\xd0\xcf\x11\xe0", Both("it is an old Office file (xls, doc), which is not read.",
                               "这是旧版 Office 文件（xls、doc），不能直接读取。"), _AS_CSV),
    (b"%PDF", Both("it is a PDF, which is not read.", "这是 PDF，不能直接读取。"),
     Both("Copy its text and paste it here.", "请复制其中的文字，粘贴到这里。")),
    (b"Rar!", Both("it is an archive, which is not read.", "这是压缩包，不能直接读取。"),
     Both("Unpack it and bring the file in it.", "请解压后再上传里面的文件。")),
    (b"7z\xbc\xaf", Both("it is an archive, which is not read.", "这是压缩包，不能直接读取。"),
     Both("Unpack it and bring the file in it.", "请解压后再上传里面的文件。")),
    (_GZIP, Both("it is packed with gzip, and its name does not say so.", "文件用 gzip 压缩，但文件名没有 .gz。"),
     Both("Rename it so that it ends with .jsonl.gz, or unpack it.", "请改名为以 .jsonl.gz 结尾，或先解压。")),
)
"""How files begin that people bring and that are not read: what to say of each."""


def _encoding(path: Path, head: bytes) -> str:
    """The first of the likely encodings in which all of the file makes sense."""
    likely = ("utf-16",) if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ("utf-8-sig", "gb18030")
    for name in likely:
        if _decodes(path, name):
            return name
    raise _no_encoding(path.name, None)


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                if "\0" in decoder.decode(piece):
                    return False
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _no_encoding(name: str, tried: str | None) -> Problem:
    what = ENCODINGS[tried] if tried else Both("UTF-8 or GB18030", "UTF-8 或 GB18030")
    return problem("not-utf8", Both(f"the file is not {what.en} text.", f"文件不是 {what.zh} 编码的文本。"), where=name,
                   fix=Both("Choose its encoding below, or save it as UTF-8.", "请在下面选择编码，或另存为 UTF-8。"))


def _unwrapped(path: Path, folder: Path) -> Brought | None:
    """Rows that lie within an object (`{"version": 1, "data": [{…}, …]}`), or objects written over several lines, as
    the array that readers expect; None of any other file."""
    if suffix_of(path.name) != ".json" or path.stat().st_size > _WRAPPED:
        return None
    with path.open("rb") as file:
        if _first_letter(file) != b"{" or _is_json(file.readline()):
            return None
    try:
        objects = list(_objects(path.read_text(encoding="utf-8-sig")))
    except (ValueError, RecursionError):
        return None  # who reads it row by row tells where the slip is
    inside = [(key, value) for key, value in objects[0].items() if isinstance(value, list) and value
              and all(isinstance(row, dict) for row in value)] if len(objects) == 1 else []
    told = Both("Objects over several lines are kept as one array.", "跨多行的对象已整理为一个数组。")
    if len(inside) == 1 and len(inside[0][1]) > 1 and not _is_turns(inside[0][1]):
        told = Both(f"The rows are what stands under {inside[0][0]!r}.", f"数据取自 {inside[0][0]!r} 下的列表。")
        objects = inside[0][1]
    kept = folder / f"{path.name.rpartition('.')[0]}.rows.json"
    kept.write_text(json.dumps(objects, ensure_ascii=False, indent=1), encoding="utf-8")
    return Brought(kept, path.name, "utf-8-sig", True, (told,))


_OPENING = re.compile(r"\s*,?\s*\{")
_WRAPPED = 200_000_000
"""Bytes of a file that is parsed whole to look for rows within it."""


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Objects one after the other, however they are laid out.

    Raises:
        ValueError: there is something else among them.
    """
    decode, at = json.JSONDecoder().raw_decode, 0
    while opening := _OPENING.match(text, at):
        value, at = decode(text, opening.end() - 1)
        yield value
    if text[at:].strip():
        raise ValueError(text[at : at + 40])


def _is_turns(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a list of objects is one conversation."""
    return any({"from", "role"} & row.keys() for row in rows[:1])


def _copy(source: IO[str], copy: IO[str]) -> None:
    while piece := source.read(_PIECE):
        copy.write(piece)


def _tabs_to_commas(source: IO[str], copy: IO[str]) -> None:
    """Rows that end early get empty cells, since a spreadsheet leaves out the last ones."""
    csv.field_size_limit(_LONGEST_CELL)
    table = csv.reader(source, delimiter="\t")
    written = csv.writer(copy, lineterminator="\n")
    header = next(table, [])
    written.writerow(header)
    written.writerows([*cells, *[""] * (len(header) - len(cells))] for cells in table if any(cells))


_KEPT = {".tsv": ".csv"}
_FILL = {".tsv": _tabs_to_commas}


# ------------------------------------------------------------------------------------------------------------- reading


def tolerant_rows(path: Path, name: str) -> Iterator[RawRow | Refused]:
    """The rows of a file; a line that cannot be read comes as `Refused` in its place where the rest can be read all
    the same (a line of JSONL, a row of CSV with too many cells).

    Raises:
        Problem: the rest cannot be read either.
    """
    with path.open("rb") as file:
        if suffix_of(path.name) in (".json", ".jsonl") and not path.name.lower().endswith(".gz"):
            first = _first_letter(file)
            if first == b"{":
                yield from _json_lines(file, name)
                return
        elif suffix_of(path.name) == ".csv" and not path.name.lower().endswith(".gz"):
            yield from _csv_rows(file, name)
            return
        with closing(read_file(file, path.name)) as rows:
            for values, place in rows:
                yield RawRow(values, Place(place.file.replace(path.name, name, 1), place.number))


def _first_letter(file: IO[bytes]) -> bytes:
    """The first that is no white space; the file is wound back."""
    head = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(0)
    return head[:1]


def _json_lines(file: IO[bytes], name: str) -> Iterator[RawRow | Refused]:
    for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n"), start=1):
        if line.isspace():
            continue
        place = Place(f"{name}:", number)
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            reason = parser_says(error.msg)
            yield Refused(place, Both(f"not valid JSON: {reason} (column {error.colno})",
                                      f"不是合法的 JSON：{reason.zh}（第 {error.colno} 列）"), "bad-json")
        except RecursionError:
            yield Refused(place, Both("not valid JSON: nested too deeply", "不是合法的 JSON：嵌套太深"), "bad-json")
        else:
            if isinstance(value, dict):
                yield RawRow(value, place)
            else:
                yield Refused(place, Both(f"a row must be an object {{…}}, not {value!r:.40}",
                                          f"每行必须是一个对象 {{…}}，而不是 {value!r:.40}"), "bad-json")


def _csv_rows(file: IO[bytes], name: str) -> Iterator[RawRow | Refused]:
    table = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    csv.field_size_limit(_LONGEST_CELL)
    header, before = None, 0
    try:
        for cells in table:
            place, before = Place(f"{name}:", before + 1), table.line_num
            if header is None:
                header = _header(cells, name)
            elif cells and len(cells) != len(header):
                yield Refused(place, Both(f"it has {len(cells)} cells and the header {len(header)}",
                                          f"有 {len(cells)} 个单元格，而表头有 {len(header)} 个"), "bad-csv")
            elif cells:
                yield RawRow(dict(zip(header, cells, strict=True)), place)
    except csv.Error as error:
        raise problem("bad-csv", Both(f"not valid CSV: {error}; what follows cannot be read.",
                                      f"不是合法的 CSV：{error}；后面的内容无法读取。"), where=f"{name}:{before + 1}",
                      fix=Both("A quote that opens a cell closes it too.", "单元格开头有引号，结尾也要有。")) from None


def _header(cells: Sequence[str], name: str) -> Sequence[str]:
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if not twice:
        return cells
    raise problem("bad-csv", Both(f"two columns are called {', '.join(twice)}.", f"有两列都叫 {'、'.join(twice)}。"),
                  where=f"{name}:1", fix=Both("The first line names the columns: give each a name of its own.",
                                             "首行是列名：请让每列的名字都不同。"))
