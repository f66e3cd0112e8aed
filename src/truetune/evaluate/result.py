"""What an evaluation hands back: numbers for programs, a table for people, doubts, and files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from truetune.files import write_folder, write_text
from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, Words, problem, spoken
from truetune.options import Config


@dataclass(frozen=True)
class Column:
    """name: what it says in every row of `cells`. number: it is set right."""

    name: Words
    cells: Sequence[Words]
    number: bool = False


@dataclass(frozen=True)
class Result:
    """scores: for JSON. files: what is written into `save_dir` beside others: text, or what becomes JSON."""

    scores: Mapping[str, Any]
    table: Sequence[Column]
    doubts: Sequence[Finding] = ()
    files: Mapping[str, Any] = field(default_factory=dict)


def per_cent(share: float, error: float | None) -> str:
    """`45.2 ± 1.3 %`"""
    return f"{100 * share:.1f} %" if error is None else f"{100 * share:.1f} ± {100 * error:.1f} %"


def table_of(result: Result, chinese: bool) -> Table:
    """The columns as a table for the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in result.table:
        table.add_column(spoken(column.name, chinese), justify="right" if column.number else "left")
    for row in zip(*(column.cells for column in result.table), strict=True):
        table.add_row(*(spoken(cell, chinese) for cell in row))
    return table


def new_folder(config: Config) -> Path | None:
    """`save_dir`, which must not be there yet: nobody's earlier results are written over.

    Raises:
        Problem: it is.
    """
    folder = Path(config.save_dir).expanduser() if config.save_dir else None
    if folder is not None and folder.exists():
        raise in_use(folder, config)
    return folder


def in_use(folder: Path, config: Config) -> Problem:
    return problem("save-dir-in-use", Both(f"{folder} is there already.", f"{folder} 已经存在。"), option="save_dir",
                   where=config.origin("save_dir"), status=WRONG_OPTIONS,
                   fix=Both("Name a new folder.", "请换一个新文件夹。"))


def write_result(result: Result, folder: Path) -> None:
    """The files of `result` in a new folder, all of them or none.

    Raises:
        Problem: it cannot be written.
    """

    def fill(part: Path) -> None:
        for name, content in result.files.items():
            text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
            write_text(part / name, text + "\n")

    try:
        write_folder(folder, fill)
    except OSError as error:
        raise problem("save-dir-unwritten", Both(f"{folder} could not be written: {error.strerror}.",
                                                 f"{folder} 无法写入：{error.strerror}。"), option="save_dir") from None
