"""The data sets that the dataset_info.json of a folder names: what each holds, how many rows, what is wrong with it.

Only files on this machine are looked into; what lies on a hub or in a cloud is named and not asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from truetune.data.describe import described_as
from truetune.data.extent import extent_of
from truetune.data.formats import Layout
from truetune.data.messages import Kind
from truetune.data.reading import STAGE_ROWS
from truetune.data.registry import Registry
from truetune.data.sources import Files, Source, entry_source
from truetune.data.survey import Look, first_look, unreadable
from truetune.findings import Both, Finding, Problem, spoken
from truetune.options import Config

Allowed = Callable[[str], Path]
"""The path of a file that may be read; a Problem of any other."""
_SAMPLED = 2000
_COUNTED = 8_000_000
"""Bytes up to which rows are counted, and not reckoned from the first of them."""


@dataclass
class Listed:
    """A data set of dataset_info.json. file: what the entry names. paths: its files here; none where it lies elsewhere.
    rows: about so many, where `about`. look: its first rows."""

    name: str
    entry: Any
    file: str = ""
    paths: tuple[Path, ...] = ()
    bytes: int = 0
    rows: int | None = None
    about: bool = False
    look: Look | None = None
    layout: Layout | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def kind(self) -> Kind | None:
        return self.layout.kind if self.layout else None

    @property
    def stages(self) -> list[str]:
        """The stages that learn from such rows; the usual one first."""
        return [stage for stage in _USUAL if STAGE_ROWS[stage] == self.kind]

    @property
    def here(self) -> bool:
        """Whether it can be looked into."""
        return bool(self.paths) and self.layout is not None


_USUAL = sorted(STAGE_ROWS, key=lambda stage: stage not in ("pt", "sft", "dpo", "kto"))


def list_sets(folder: Path, allowed: Allowed) -> list[Listed]:
    """All data sets of a folder, as they stand in its dataset_info.json.

    Raises:
        Problem: that cannot be read, or has a slip; with the line.
    """
    return [listed(name, entry, folder, allowed) for name, entry in Registry(folder).entries().items()]


def listed(name: str, entry: Any, folder: Path, allowed: Allowed) -> Listed:
    """One data set. Never raises for what is wrong with it: that is among the findings."""
    found = Listed(name, entry, _named(entry))
    try:
        source = entry_source(name, entry, folder, Config())
        found.layout = source.layout
        match source.data:
            case Files(paths):
                found.paths = tuple(allowed(str(path)) for path in paths)
                _look_into(found, source)
    except Problem as problem:
        found.findings += problem.findings
    except OSError as error:
        found.findings.append(unreadable(error, found.file))
    return found


def _named(entry: Any) -> str:
    """Where the data lie, in the entry's own words."""
    keys = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "cloud_file_name", "script_url")
    return next((str(entry[key]) for key in keys if entry.get(key)), "") if isinstance(entry, Mapping) else ""


def _look_into(found: Listed, source: Source) -> None:
    stats = [path.stat() for path in found.paths]
    found.bytes = sum(stat.st_size for stat in stats)
    mark = tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in zip(found.paths, stats, strict=True))
    found.look = _look(found.paths, json.dumps(found.entry, sort_keys=True), mark, _Held(source.layout))
    found.rows, found.about = _count(found.paths, mark)
    refused = found.look.refused
    found.findings += found.look.findings
    if refused:
        of = len(refused) + len(found.look.rows)
        more = Both("", "") if found.look.whole else Both("the first ", "前 ")
        found.findings.append(Finding("bad-row", "warn", Both(
            f"{len(refused)} of {more.en}{of} rows cannot be learned from. The first: {refused[0].reason}.",
            f"{more.zh}{of} 行中有 {len(refused)} 行无法学习。第一处：{spoken(refused[0].reason, True)}。"),
            where=str(refused[0].place), fix=Both("Show its bad rows; add it once more without them.",
                                                  "可查看有错的行，并重新添加、去掉它们。")))
    if not of_any(found.look) and not found.look.findings:
        found.findings.append(Finding("no-rows", "error", Both("the file holds no rows.", "文件里没有数据。"),
                                      where=found.file))


def of_any(look: Look) -> bool:
    """Whether a file has any row, good or bad."""
    return bool(look.raw or look.refused)


@dataclass(frozen=True)
class _Held:
    """Equal to all others: the entry, which is in the key of the cache too, tells layouts apart."""

    layout: Layout | None = field(compare=False)


@lru_cache(maxsize=256)
def _look(paths: Sequence[Path], entry: str, mark: tuple[tuple[str, int, int], ...], held: _Held) -> Look:
    return first_look(paths, None, described_as(held.layout) if held.layout else None)


@lru_cache(maxsize=1024)
def _count(paths: tuple[Path, ...], mark: tuple[tuple[str, int, int], ...]) -> tuple[int | None, bool]:
    """How many rows there are, and whether that is reckoned; None where nobody can tell."""
    source = Source("", Files(paths))
    try:
        extent = extent_of(source, _SAMPLED) if sum(size for _, _, size in mark) > _COUNTED else None
        return (extent.rows, True) if extent else (sum(1 for _ in source.rows()), False)
    except Problem:
        return None, False
