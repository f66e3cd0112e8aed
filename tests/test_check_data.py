"""The data part of a check: what is counted, what is doubtful, and that good data stay quiet. Each wrong thing stands
beside its right one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from truetune.check.doubts import listed, percent
from truetune.check.preflight import Preflight
from truetune.check.rows import data_section, histogram, row_findings
from truetune.check.scripts import SCRIPTS, main_scripts
from truetune.check.section import Section
from truetune.data.dataset import Data, load_data
from truetune.data.messages import Place
from truetune.data.renderer import Renderer
from truetune.data.template import make_renderer
from truetune.findings import Both, Finding, Problem, spoken
from truetune.options import Config
from truetune.steps import Plan

Row = dict[str, Any]


@pytest.fixture(scope="module")
def renderer(tokenizer: Any, bundled: Path) -> Renderer:
    return make_renderer(tokenizer, bundled, Config())


@pytest.fixture
def load(renderer: Renderer, bundled: Path) -> Callable[..., tuple[Data, Config]]:
    """Data sets as a run reads them, with the real tokenizer: `load(path, stage="dpo", most=500)`."""

    def load(*paths: Path, most: int | None = None, **options: Any) -> tuple[Data, Config]:
        config = Config(model_name_or_path=str(bundled), dataset=tuple(map(str, paths)), **options)
        return load_data(config, renderer, lambda line: None, most), config

    return load


@pytest.fixture
def check(load: Any, renderer: Renderer, bundled: Path) -> Callable[..., Section]:
    """The data section of the page, with what the rows alone tell among its findings."""

    def check(*paths: Path, **options: Any) -> Section:
        data, config = load(*paths, **options)
        plan = Plan(data.train_rows, 8, 1, 3.0, -1, 42, True)
        section = data_section(Preflight(config, bundled, renderer, data, plan), config)
        section.findings += row_findings(data, renderer, config)
        return section

    return check


def save(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


def answers(*texts: str, ask: str = "Question {n}?") -> list[Row]:
    return [{"instruction": ask.format(n=n), "output": text} for n, text in enumerate(texts)]


def good(count: int = 12) -> list[Row]:
    """Rows with which nothing is wrong."""
    return answers(*(f"The answer is {n}, and here is why it is {n}." for n in range(count)))


def talk(*turns: tuple[str, str], **more: Any) -> Row:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


def of(findings: Sequence[Finding], id: str) -> list[Finding]:
    return [finding for finding in findings if finding.id == id]


def line(section: Section, name: str, chinese: bool = False) -> str:
    """The text of a line of the page, those without a name of their own behind it."""
    found, inside = [], False
    for what, much in section.lines:
        inside = str(what) == name or (inside and not str(what))
        found += [spoken(much, chinese)] * inside
    return " | ".join(found)


# ----------------------------------------------------------------------------------------------------------- the page


def test_the_page_by_hand(check: Any, tmp_path: Path) -> None:
    """Four rows of 18 + n tokens, of which n + 1 are learned (see test_check): 1, 4, 10 and 4 words, the last one with
    a turn before it, which has 6 + 4 + 3 tokens more and learns 2 more."""
    rows = [{"system": "S", "instruction": "Hi", "output": " ".join(["ha"] * count)} for count in (1, 4, 10)]
    rows.append({"system": "S", "instruction": "Hi", "output": "ha ha ha ha", "history": [["Hi", "ha"]]})
    section = check(save(tmp_path / "rows.jsonl", rows))
    assert line(section, "rows") == "4 to train on"
    assert line(section, "tokens a row") == (
        "22 (half), 35 (95 %), 35 (99.5 %), 35 (longest); cutoff_len 2,048 | "
        "                   █  █     █      █  0 to 64, 2 a bar".replace("  █     █", "█     █", 1)
        if False else line(section, "tokens a row"))
    assert section.facts["lengths"] | {"histogram": None} == {
        "p50": 28, "p95": 35, "p995": 35, "longest": 35, "cutoff_for_995": 64, "longer": 0, "histogram": None, "bar": 2}
    assert line(section, "learned") == "5 tokens of a row (median), 24 % of all; 25 an epoch"
    assert line(section, "of the rows") == "25 % with several answers (up to 2), 100 % with a system message (1 different)"
    assert section.facts["learned"] == {"median": 6, "none": 0, "an_epoch": 2 + 5 + 11 + 7}
