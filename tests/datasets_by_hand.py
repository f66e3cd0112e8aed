"""What the tests of data share: the same rows in every format, and ways to read, refuse and register them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from truetune.data.messages import Conversation, Row
from truetune.data.reading import STAGE_ROWS, Refused, describe_refused, read_source
from truetune.data.sources import Source, find_sources
from truetune.findings import Finding, Problem
from truetune.options import Config

ALPACA = [{"instruction": "Add.", "input": "1 and 2", "output": "3"},
          {"instruction": "你好", "input": "", "output": "您好！"}]
SHAREGPT = [{"conversations": [{"from": "human", "value": row["instruction"] + ("\n" + row["input"]).rstrip()},
                               {"from": "gpt", "value": row["output"]}]} for row in ALPACA]
OPENAI = [{"messages": [{"role": "user", "content": row["conversations"][0]["value"]},
                        {"role": "assistant", "content": row["conversations"][1]["value"]}]} for row in SHAREGPT]
TRL = [{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in OPENAI]
TALKS = [[("user", "Add.\n1 and 2"), ("assistant", "3")], [("user", "你好"), ("assistant", "您好！")]]
"""What all four of them say."""


U, A, S = ({"role": role, "content": role[0]} for role in ("user", "assistant", "system"))
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}]}
RESULT = {"role": "tool", "content": "3"}


def source(name: object, **options: Any) -> Source:
    (found,) = find_sources((str(name),), Config(**options), "dataset")
    return found


def read(*names: object, stage: str = "sft", **options: Any) -> list[Row | Refused]:
    config = Config.model_validate({"dataset": tuple(map(str, names)), "stage": stage, **options})
    return [row for found in find_sources(config.dataset, config, "dataset")
            for row in read_source(found, config, STAGE_ROWS[stage])]


def load(*names: object, **options: Any) -> list[Any]:
    """All rows of the data sets; a row that is refused stops, as `on_bad_row: error` does."""
    rows = read(*names, **options)
    if refusals := [row for row in rows if isinstance(row, Refused)]:
        raise Problem(describe_refused(refusals, len(rows)))
    return rows


def said(talks: list[Conversation]) -> list[list[tuple[str, str]]]:
    return [[(message.role, message.content) for message in talk.messages] for talk in talks]


def refused(*names: object, **options: Any) -> list[Finding]:
    with pytest.raises(Problem) as caught:
        load(*names, **options)
    assert caught.value.status == 1
    return caught.value.findings


def save(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def register(where: Path, rows: object = None, **entry: Any) -> dict[str, Any]:
    """A `dataset_info.json` with the one data set `mine`; the options that find it."""
    if rows is not None:
        save(where / "mine.json", rows)
    save(where / "dataset_info.json", {"mine": {"file_name": "mine.json", **entry}})
    return {"dataset_dir": str(where)}


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time, so that every border between two pieces is met."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(7)
