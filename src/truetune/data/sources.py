"""Where data comes from: a name in dataset_info.json (read as LLaMA-Factory reads it) or simply a file.

Every row keeps the line it stood on, so that whatever is wrong with it later can be told as `file:line`. Problems are
raised without an option; the caller knows whether `dataset` or `eval_dataset` asked.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PositiveInt, ValidationError

from truetune.data.formats import Formatting, Layout, described_layout
from truetune.findings import Finding, Problem, problem

INFO = "dataset_info.json"
_HUB_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_SUFFIXES = (".json", ".jsonl")


class InfoEntry(BaseModel):
    """What an entry of dataset_info.json may say; other keys (subset, split, …) concern hubs and are passed over."""

    file_name: str | None = None
    formatting: Formatting = "alpaca"
    columns: dict[str, str | None] | None = None
    tags: dict[str, str | None] | None = None
    ranking: bool = False
    num_samples: PositiveInt | None = None


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


def find_sources(names: Sequence[str], dataset_dir: str) -> list[Source]:
    """The data sets called `names`.

    Raises:
        Problem: every name that is neither in dataset_info.json nor a file, all in one.
    """
    folder = Path(dataset_dir)
    info = _read_info(folder / INFO)
    sources, findings = [], []
    for name in names:
        try:
            sources.append(_find(name, folder, info))
        except Problem as error:
            findings += error.findings
    if findings:
        raise Problem(findings)
    return sources


def _find(name: str, folder: Path, info: Mapping[str, Any]) -> Source:
    if name in info:
        return _from_info(name, info[name], folder)
    path = Path(name).expanduser()
    for candidate in (path, folder / path):
        if candidate.is_file() and candidate.suffix.lower() in _SUFFIXES:
            return Source(name, candidate)
    if path.suffix.lower() in _SUFFIXES:
        raise problem("no-data-file", f"there is no file {name}.", fix=_near(path, folder) or
                      f"A relative path starts at the current folder or at dataset_dir ({folder}).")
    if not info:
        known = f"There is no {folder / INFO}."
    else:
        near = difflib.get_close_matches(name, info, n=1)
        known = f"Did you mean {near[0]}?" if near else f"It holds: {', '.join(sorted(info))}."
    raise problem("no-data-set", f"{name!r} is neither in {folder / INFO} nor a .json or .jsonl file.", fix=known)


def _near(path: Path, folder: Path) -> str:
    """`Did you mean …?` with the data file whose name is nearest to that of `path`; empty if none is near."""
    for parent in (path.parent, (folder / path).parent):
        files = {file.stem: file for file in parent.glob("*.json*") if file.name != INFO}
        for stem in difflib.get_close_matches(path.stem, files, n=1):
            return f"Did you mean {files[stem]}?"
    return ""


def _from_info(name: str, values: Any, folder: Path) -> Source:
    where = f"{folder / INFO}, {name}"
    try:
        entry = InfoEntry.model_validate(values)
    except ValidationError as error:
        raise Problem(Finding("bad-info", "error", f"{'.'.join(map(str, slip['loc'])) or 'it'}: {slip['msg']}.",
                              where=where) for slip in error.errors()) from None
    for key in _HUB_KEYS:
        if key in values:
            raise problem("remote-data", f"{key} is not read yet.", where=where,
                          fix="Download the file and name it with file_name, or give its path as dataset.")
    if entry.ranking or (entry.columns and entry.columns.get("kto_tag")):
        raise problem("wrong-stage", "holds preferences (ranking or kto_tag), and stage sft learns from answers.",
                      where=where, fix="Choose another data set.")
    if entry.file_name is None:
        raise problem("no-file-name", "has no file_name.", where=where)
    path = folder / entry.file_name
    if not path.is_file() or path.suffix.lower() not in _SUFFIXES:
        raise problem("no-data-file", f"there is no .json or .jsonl file {path}.", where=where,
                      fix=_near(Path(entry.file_name), folder) or None)
    return Source(name, path, described_layout(entry.formatting, entry.columns, entry.tags, where), entry.num_samples)


def _read_info(path: Path) -> Mapping[str, Any]:
    """dataset_info.json; empty where there is none, since a file can be named directly."""
    if not path.is_file():
        return {}
    try:
        info = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise problem("bad-json", f"not valid JSON: {error.msg}.", where=f"{path}:{error.lineno}") from None
    if not isinstance(info, dict):
        raise problem("bad-info", "it must be an object of data sets by name.", where=str(path))
    return info


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a JSON array or of JSON lines (whatever the suffix says), with their lines.

    Raises:
        Problem: the file is not UTF-8 or not JSON, with the line; or a row is not an object.
    """
    text = _read_text(path)
    rows = _array(text) if text.lstrip()[:1] == "[" else _lines(text)
    try:
        for value, line in rows:
            if not isinstance(value, dict):
                raise problem("bad-row", f"a row must be an object {{…}}, not {value!r:.40}.", where=f"{path}:{line}")
            yield RawRow(value, f"{path}:{line}")
    except json.JSONDecodeError as error:
        raise problem("bad-json", f"not valid JSON: {error.msg}.", where=f"{path}:{error.lineno}",
                      fix="A file holds one array of objects, or one object on each line.") from None


def _array(text: str) -> Iterator[tuple[Any, int]]:
    """Rows of a JSON array one by one, since only so each one's line is known."""
    decode = json.JSONDecoder().raw_decode
    position = _skip(text, text.index("[") + 1)
    line, counted = 1, 0
    more = text[position : position + 1] != "]"
    while more:
        line, counted = line + text.count("\n", counted, position), position
        value, end = decode(text, position)
        yield value, line
        position = _skip(text, end)
        more = text[position : position + 1] == ","
        if more:
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
        raw = path.read_bytes()
    except OSError as error:
        raise problem("data-unreadable", f"cannot be read: {error.strerror}.", where=str(path)) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        likely = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "gb18030"
        raise problem("not-utf8", "the file is not UTF-8.", where=f"{path}:{line}",
                      fix=f"Convert it, for instance: iconv -f {likely} -t utf-8 {path.name}") from None


def describe_bad_rows(bad: Sequence[tuple[str, str]], total: int) -> list[Finding]:
    """Findings for rows that cannot be learned from: the first ten by line, the rest as a number."""
    findings = [Finding("bad-row", "error", f"{reason}.", where=where) for where, reason in bad[:10]]
    if len(bad) > 10:
        findings.append(Finding("bad-row", "error", f"{len(bad) - 10} more of {total} rows are wrong."))
    return findings
