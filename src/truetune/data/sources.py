"""Where data comes from: a name in dataset_info.json (read as LLaMA-Factory reads it) or simply a file.

Every row keeps the line it stood on, so that whatever is wrong with it later can be told as `file:line`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truetune.data.formats import Layout, layout_from_info
from truetune.findings import Finding, Problem, problem

INFO = "dataset_info.json"
_HUB_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Source:
    """One data set: a file, and how to read its rows. `layout` None: recognise it from the columns."""

    name: str
    file: Path
    layout: Layout | None = None
    num_samples: int | None = None


@dataclass(frozen=True)
class RawRow:
    values: Mapping[str, Any]
    where: str


def find_sources(names: Sequence[str], dataset_dir: str, option: str = "dataset") -> list[Source]:
    """The data sets called `names`.

    Raises:
        Problem: every name that is neither in dataset_info.json nor a file, all in one.
    """
    folder = Path(dataset_dir)
    info = _read_info(folder / INFO)
    sources, findings = [], []
    for name in names:
        try:
            sources.append(_find(name, folder, info, option))
        except Problem as error:
            findings += error.findings
    if findings:
        raise Problem(findings)
    return sources


def _find(name: str, folder: Path, info: Mapping[str, Any], option: str) -> Source:
    if name in info:
        return _from_info(name, info[name], folder)
    for path in (Path(name), folder / name):
        if path.is_file() and path.suffix in _SUFFIXES:
            return Source(name, path)
    if Path(name).suffix in _SUFFIXES:
        raise problem("no-data-file", f"there is no file {name}.", option=option,
                      fix="Check the path; a relative one starts at the current folder or at dataset_dir.")
    near = difflib.get_close_matches(name, info, n=1)
    known = f"Did you mean {near[0]}?" if near else (
        f"It holds: {', '.join(sorted(info)) or 'nothing'}." if info else f"There is no {folder / INFO}.")
    raise problem("no-data-set", f"{name!r} is neither in {folder / INFO} nor a .json or .jsonl file.",
                  option=option, fix=known)


def _from_info(name: str, entry: Mapping[str, Any], folder: Path) -> Source:
    where = f"{folder / INFO}, {name}"
    for key in _HUB_KEYS:
        if key in entry:
            raise problem("remote-data", f"{key} is not read yet.", option="dataset", where=where,
                          fix="Download the file and name it with file_name, or give its path as dataset.")
    if "file_name" not in entry:
        raise problem("no-file-name", "has no file_name.", option="dataset", where=where)
    if entry.get("ranking"):
        raise problem("wrong-stage", "holds preference pairs (ranking: true), and stage sft learns from answers.",
                      option="dataset", where=where, fix="Choose another data set.")
    path = folder / entry["file_name"]
    if not path.is_file() or path.suffix not in _SUFFIXES:
        raise problem("no-data-file", f"there is no .json or .jsonl file {path}.", option="dataset", where=where)
    return Source(name, path, layout_from_info(entry, where), entry.get("num_samples"))


def _read_info(path: Path) -> Mapping[str, Any]:
    """dataset_info.json; empty where there is none, since a file can be named directly."""
    if not path.is_file():
        return {}
    text = _read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise problem("bad-json", f"not valid JSON: {error.msg}.", option="dataset_dir",
                      where=f"{path}:{error.lineno}") from None


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a JSON array or of JSON lines (whatever the suffix says), with their lines.

    Raises:
        Problem: the file is not UTF-8 or not JSON, with the line; or a row is not an object.
    """
    text = _read_text(path)
    start = len(text) - len(text.lstrip())
    rows = _array(text, start) if text[start : start + 1] == "[" else _lines(text)
    try:
        for value, line in rows:
            if not isinstance(value, dict):
                raise problem("bad-row", f"a row must be an object {{…}}, not {value!r:.40}.",
                              option="dataset", where=f"{path}:{line}")
            yield RawRow(value, f"{path}:{line}")
    except json.JSONDecodeError as error:
        line = text.count("\n", 0, error.pos) + 1
        raise problem("bad-json", f"not valid JSON: {error.msg}.", option="dataset",
                      where=f"{path}:{line}", fix="Mend this line; nothing was read past it.") from None


def _array(text: str, start: int) -> Iterator[tuple[Any, int]]:
    """Rows of a JSON array one by one, since only so each one's line is known."""
    decode = json.JSONDecoder().raw_decode
    position, line, counted = _skip(text, start + 1), 1, 0
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        value, end = decode(text, position)
        yield value, line
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']' after a row", text, position)
    rest = _skip(text, position + 1)
    if rest < len(text):
        raise json.JSONDecodeError("Extra data after the array", text, rest)


def _skip(text: str, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position


def _lines(text: str) -> Iterator[tuple[Any, int]]:
    position = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line), number
            except json.JSONDecodeError as error:
                raise json.JSONDecodeError(error.msg, text, position + error.pos) from None
        position += len(line) + 1


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes().count(b"\n", 0, error.start) + 1
        raise problem("not-utf8", "the file is not UTF-8.", option="dataset", where=f"{path}:{line}",
                      fix=f"Convert it, for instance: iconv -f gb18030 -t utf-8 {path.name}") from None
    except OSError as error:
        raise problem("data-unreadable", f"cannot be read: {error.strerror}.", option="dataset",
                      where=str(path)) from None


def describe_bad_rows(bad: Sequence[tuple[str, str]], total: int) -> list[Finding]:
    """Findings for rows that cannot be learned from: the first ten by line, the rest as a number."""
    findings = [Finding("bad-row", "error", f"{reason}.", option="dataset", where=where) for where, reason in bad[:10]]
    if len(bad) > 10:
        findings.append(Finding("bad-row", "error", f"{len(bad) - 10} more of {total} rows are wrong.",
                                option="dataset"))
    return findings
