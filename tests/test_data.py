"""Data as people have it: every source, kind of file and format becomes the same rows; every slip is told by line."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from conftest import DATA, Truetune
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from truetune.data.messages import Conversation, Document, Judged, Message, Place, Preference, Row, ToolCall
from truetune.data.readers import read_file
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


# ------------------------------------------------------------------------------------------------------ kinds of files


@pytest.mark.parametrize("rows", [ALPACA, SHAREGPT, OPENAI, TRL], ids=["alpaca", "sharegpt", "openai", "trl"])
@pytest.mark.parametrize("kind", ["array", "pretty", "lines", "lines in .json", "BOM", "CRLF", "CRLF array", "blanks"])
def test_every_format_in_every_kind_of_file(tmp_path: Path, rows: list[dict], kind: str) -> None:
    """Array or lines, whatever the suffix; with a byte-order mark, Windows line ends or empty lines: one meaning."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text, suffix, places = {
        "array": (json.dumps(rows, ensure_ascii=False), ".json", [1, 1]),
        "pretty": (f"[\n  {lines[0]},\n\n  {lines[1]}\n]\n", ".json", [2, 4]),
        "lines": ("\n".join(lines) + "\n", ".jsonl", [1, 2]),
        "lines in .json": ("\n".join(lines), ".json", [1, 2]),
        "BOM": ("\ufeff" + "\n".join(lines), ".jsonl", [1, 2]),
        "CRLF": ("\r\n".join(lines) + "\r\n", ".jsonl", [1, 2]),
        "CRLF array": ("[\r\n" + ",\r\n".join(lines) + "\r\n]\r\n", ".json", [2, 3]),
        "blanks": (f"\n\n{lines[0]}\n  \n{lines[1]}\n\n", ".JSONL", [3, 5]),
    }[kind]
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(text.encode())
    talks = load(path)
    assert said(talks) == TALKS
    assert [talk.where for talk in talks] == [f"{path}:{line}" for line in places]


CSV = 'instruction,input,output\nAdd.,"1 and\n2",3\n\n你好,,None\n'


def write_arrow(path: Path, rows: list[dict], new: Callable[..., Any]) -> None:
    """In batches of three."""
    table = pyarrow.Table.from_pylist(rows)
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_kind(folder: Path, kind: str, rows: list[dict]) -> Path:
    """`rows` as a file of this kind, in several pieces where it has pieces."""
    path = folder / f"rows.{kind.split()[0]}"
    texts = "".join(f"{row['output']}\n\n" for row in rows)
    cells = "".join(f'"{row["instruction"]}","{row["output"]}"\n' for row in rows)
    pieces = max(3, len(rows) // 10)
    writers: dict[str, Callable[[], object]] = {
        "json": lambda: save(path, rows),
        "jsonl": lambda: path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8"),
        "csv": lambda: path.write_text("instruction,output\n" + cells, encoding="utf-8"),
        "txt": lambda: path.write_text(texts, encoding="utf-8"),
        "parquet": lambda: parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=pieces,
                                               compression="NONE", use_dictionary=False),
        "arrow": lambda: write_arrow(path, rows, ipc.new_file),
        "arrow stream": lambda: write_arrow(path, rows, ipc.new_stream),
    }
    writers[kind.removesuffix(".gz")]()
    if kind.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


KINDS = ("json", "jsonl", "csv", "txt", "json.gz", "jsonl.gz", "csv.gz", "txt.gz", "parquet", "arrow", "arrow stream")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_from_any_row(tmp_path: Path, kind: str) -> None:
    """The same rows whatever they are kept in; each knows its line or number; reading can begin at any of them."""
    rows = [{"instruction": str(n), "output": f"a{n}"} for n in range(10)]
    path = write_kind(tmp_path, kind, rows)
    found = source(path)
    whole = list(found.rows())
    plain = kind.removesuffix(".gz")
    values = [{"text": row["output"]} for row in rows] if plain == "txt" else rows
    assert [row.values for row in whole] == values
    line = {"json": lambda n: 1, "jsonl": lambda n: n + 1, "csv": lambda n: n + 2, "txt": lambda n: 2 * n + 1}
    if plain in line:
        assert [str(row.place) for row in whole] == [f"{path}:{line[plain](n)}" for n in range(10)]
    else:
        assert [str(row.place) for row in whole] == [f"{path} row {n + 1}" for n in range(10)]
    for start in range(13):
        assert list(found.rows(start)) == whole[start:]


def test_csv_cells_are_text_as_typed(tmp_path: Path) -> None:
    """An answer `3` is no number and `None` no missing value; a cell may hold line breaks; a judgement is a word."""
    path = tmp_path / "rows.csv"
    path.write_text("\ufeff" + CSV, encoding="utf-8")
    talks = load(path)
    assert said(talks) == [[("user", "Add.\n1 and\n2"), ("assistant", "3")], [("user", "你好"), ("assistant", "None")]]
    assert [talk.where for talk in talks] == [f"{path}:2", f"{path}:5"]
    path.write_text(f"instruction,output,label\na,{'long ' * 100_000},true\na,c,False\n", encoding="utf-8")
    assert [row.good for row in load(path, stage="kto")] == [True, False]
    path.write_text('messages\n"[{""role"": ""user"", ""content"": ""u""}, {""role"": ""assistant"", ""content"": '
                    '""a""}]"\n', encoding="utf-8")
    assert said(load(path)) == [[("user", "u"), ("assistant", "a")]]


def test_arrow_fills_no_arguments_in(tmp_path: Path) -> None:
    """Arrow gives all objects of a column the same keys. What a row never said is taken out again."""
    calls = [[{"name": "f", "arguments": {"city": "Rome"}}], [{"name": "g", "arguments": {"count": 3}}]]
    rows = [{"messages": [U, {"role": "assistant", "content": None, "tool_calls": call}]} for call in calls]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert [talk.messages[1].tool_calls for talk in load(tmp_path / "rows.parquet")] == [
        (ToolCall("f", {"city": "Rome"}),), (ToolCall("g", {"count": 3}),)]


def test_folder_of_one_kind(tmp_path: Path) -> None:
    """The files of a folder in the order of their names, from any row on. What is no data is passed over; two kinds of
    data are refused."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number, name in enumerate(["b.jsonl", "a.json", "c.jsonl.gz"]):
        text = "".join(json.dumps({"instruction": f"{number}{row}", "output": "x"}) + "\n" for row in range(3))
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    for name in ("README.md", ".hidden.json", "dataset_info.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    found = source(folder)
    whole = list(found.rows())
    assert [row.values["instruction"] for row in whole] == ["10", "11", "12", "00", "01", "02", "20", "21", "22"]
    assert str(whole[4].place) == f"{folder / 'b.jsonl'}:2"
    for start in range(11):
        assert list(found.rows(start)) == whole[start:]
    assert len(load("mine", **register(tmp_path, file_name="many"))) == 9
    (folder / "d.csv").write_text("instruction,output\n", encoding="utf-8")
    (finding,) = refused(folder)
    assert "files of several kinds (csv, json)" in finding.message


def test_fingerprint_is_of_the_bytes(tmp_path: Path) -> None:
    """The same bytes elsewhere have the same fingerprint; one letter, or another order of files, has another."""
    one, two = save(tmp_path / "one.json", ALPACA), save(tmp_path / "two.json", ALPACA)
    assert source(one).fingerprint() == source(two).fingerprint()
    before = source(two).fingerprint()
    two.write_text(two.read_text(encoding="utf-8").replace("3", "4"), encoding="utf-8")
    assert source(two).fingerprint() != before
    both = {source(tmp_path).fingerprint()}
    one.rename(tmp_path / "z.json")
    both.add(source(tmp_path).fingerprint())
    assert len(both) == 2


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "txt", "jsonl.gz", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """12 MB are read in less than 3, rows and all."""
    rows = [{"instruction": f"{n}", "output": "word " * 240} for n in range(10_000)]
    found = source(write_kind(tmp_path, kind, rows))
    next(found.rows())  # what is imported stays
    tracemalloc.start()
    try:
        assert sum(1 for _ in found.rows()) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


SPACE = st.text(" \t\n\r", max_size=3)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                                  max_size=3), max_leaves=6)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), max_size=5), space=SPACE,
       ascii_only=st.booleans(), skip=st.integers(0, 6), as_lines=st.booleans())
def test_json_in_any_pieces(rows: list[dict], space: str, ascii_only: bool, skip: int, as_lines: bool) -> None:
    """Whatever the rows, the space between them and the borders of what is read at a time: json.loads's values, and the
    lines on which they begin."""
    texts = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    if as_lines:
        text = "".join(f"{line}\n{space}\n" for line in texts)
    else:
        text = space + "[" + space + f"{space},{space}".join(texts) + space + "]" + space
    begins, at = [], 0
    for line in texts:
        at = text.index(line, at)
        begins.append(text.count("\n", 0, at) + 1)
        at += len(line)
    found = list(read_file(Trickle(text.encode()), "a.json", skip))
    assert [row.values for row in found] == rows[skip:]
    assert [row.place for row in found] == [Place("a.json:", line) for line in begins[skip:]]


def test_shipped_samples_mean_what_they_say() -> None:
    """The samples in data/: 8 rows in each of six files, registered; 96 identity rows, half of them Chinese."""
    names = [f"sample_{name}{kind}" for name in ("alpaca", "sharegpt", "openai") for kind in ("", "_jsonl")]
    talks = load(*names, dataset_dir=str(DATA))
    assert len(talks) == 6 * 8
    for suffix in (".json", ".jsonl"):  # by path the same as by name
        direct = load(*(DATA / f"sample_{name}{suffix}" for name in ("alpaca", "sharegpt", "openai")))
        assert said(direct) == said([talk for talk in talks if talk.where.split(":")[0].endswith(suffix)])
    identity = load("identity", dataset_dir=str(DATA), identity_name="Quill", identity_author="Inkwell Labs")
    chinese = [talk for talk in identity if any(ord(letter) > 0x3000 for letter in talk.messages[-1].content)]
    assert (len(identity), len(chinese)) == (96, 48)
    assert "{{" not in str(said(identity)) and "Quill" in str(said(identity))
    questions = [talk.messages[0].content for talk in identity]
    assert len(set(questions)) == 96


def test_system_and_history(tmp_path: Path) -> None:
    """alpaca: history comes before, system first. A system column or a system turn: the same. Empty is none."""
    turns = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    alpaca = {"instruction": "c", "output": "d", "system": "Be brief.", "history": [["a", "b"]]}
    sharegpt = [{"from": {"user": "human", "assistant": "gpt"}[role], "value": text} for role, text in turns[1:]]
    openai = [{"role": role, "content": text} for role, text in turns]
    for number, row in enumerate([alpaca, {"system": "Be brief.", "conversations": sharegpt}, {"messages": openai}]):
        assert said(load(save(tmp_path / f"{number}.json", [row]))) == [turns]

    none = [alpaca | {"system": empty, "history": []} for empty in ("", None)]
    assert said(load(save(tmp_path / "none.json", none))) == [[("user", "c"), ("assistant", "d")]] * 2
    empty_turn = [{"messages": [{"role": "system", "content": ""}, *openai[1:]]}]
    assert said(load(save(tmp_path / "empty.json", empty_turn))) == [turns[1:]]

    default = load(save(tmp_path / "default.json", [none[0], alpaca]), default_system="Standard.")
    assert [talk.messages[0].content for talk in default] == ["Standard.", "Be brief."]


def test_only_input_is_a_question_too(tmp_path: Path) -> None:
    """As in LLaMA-Factory the question is whatever is not empty of instruction and input, joined by a line feed."""
    path = save(tmp_path / "rows.json", [{"instruction": "", "input": "1 + 1", "output": "2"}])
    assert said(load(path)) == [[("user", "1 + 1"), ("assistant", "2")]]


# ------------------------------------------------------------------------------------------------------ kinds of rows


def test_sharegpt_and_openai_under_the_other_name(tmp_path: Path) -> None:
    """`conversations` with role/content and `messages` with from/value are both common: the first turn tells."""
    swapped = [{"conversations": row["messages"]} for row in OPENAI]
    assert said(load(save(tmp_path / "a.json", swapped))) == TALKS
    swapped = [{"messages": row["conversations"]} for row in SHAREGPT]
    assert said(load(save(tmp_path / "b.json", swapped))) == TALKS


def test_roles_by_their_other_names(tmp_path: Path) -> None:
    """`from: user` and `from: assistant` are as common as human and gpt; with no tags block either is read."""
    talk = [("system", "s"), ("user", "u"), ("assistant", "a"), ("tool", "3"), ("assistant", "b")]
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
    turns = [{"from": role, "value": text} for role, text in talk]
    rows = [{"conversations": [*turns[:2], call, *turns[3:]]}]
    roles = [("system", "s"), ("user", "u"), ("assistant", ""), ("tool", "3"), ("assistant", "b")]
    assert said(load(save(tmp_path / "a.json", rows))) == [roles]
    assert said(load("mine", **register(tmp_path, rows, formatting="sharegpt"))) == [roles]


def test_roles_that_a_tags_block_does_not_name(tmp_path: Path) -> None:
    """There the block decides; what it would have to say is told for all turns of the row at once."""
    rows = [{"conversations": [{"from": role, "value": role} for role in ("system", "user", "assistant")]}]
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
            "system_tag": "system"}
    (finding,) = refused("mine", **register(tmp_path, rows, formatting="sharegpt", tags=tags))
    assert finding.message == "turn 2 has the role 'user'; it must be one of 'human', 'gpt', 'system'."
    assert finding.fix == 'In its tags block set "user_tag": "user", "assistant_tag": "assistant".'
    rows[0]["conversations"][1]["from"] = "bot"
    rows[0]["conversations"][2]["from"] = "gpt"
    (finding,) = refused("mine", **register(tmp_path, rows, formatting="sharegpt", tags=tags))
    assert "the role 'bot'" in finding.message and finding.fix is None


Q, GOOD, BAD = U, A | {"content": "good"}, A | {"content": "bad"}
SAID = [[("user", "u"), ("assistant", "good")], [("user", "u"), ("assistant", "bad")]]


@pytest.mark.parametrize("row", [
    {"instruction": "u", "input": "", "chosen": "good", "rejected": "bad"},
    {"conversations": [{"from": "human", "value": "u"}], "chosen": {"from": "gpt", "value": "good"},
     "rejected": {"from": "gpt", "value": "bad"}},
    {"messages": [Q], "chosen": GOOD, "rejected": BAD},
    {"prompt": "u", "chosen": "good", "rejected": "bad"},
    {"prompt": [Q], "chosen": [GOOD], "rejected": [BAD]},
    {"chosen": [Q, GOOD], "rejected": [Q, BAD]},
    {"prompt": "u", "chosen": [Q, GOOD], "rejected": [Q, BAD], "score_chosen": 1.0},
], ids=["alpaca", "sharegpt", "openai", "trl text", "trl messages", "trl implicit", "trl with the prompt repeated"])
@pytest.mark.parametrize("stage", ["rm", "dpo"])
def test_preferences(tmp_path: Path, row: dict[str, Any], stage: str) -> None:
    """A better and a worse answer to the same question, in all the ways they are kept."""
    (pair,) = load(save(tmp_path / "rows.json", [row]), stage=stage)
    assert isinstance(pair, Preference)
    assert said([pair.chosen, pair.rejected]) == SAID
    assert pair.chosen.where == pair.rejected.where == f"{tmp_path / 'rows.json'}:1"


def test_preferences_with_system_and_turns_before(tmp_path: Path) -> None:
    """What is said before belongs to both."""
    before = [S, U, A, U | {"content": "more"}]
    rows = [{"messages": before, "chosen": GOOD, "rejected": BAD},
            {"chosen": [*before, GOOD], "rejected": [*before, BAD]},
            {"system": "s", "prompt": "u", "chosen": [*before[1:], GOOD], "rejected": [*before[1:], BAD]}]
    for row in rows:
        (pair,) = load(save(tmp_path / "rows.json", [row]), stage="dpo")
        assert said([pair.chosen, pair.rejected]) == [
            [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "more"), ("assistant", answer)]
            for answer in ("good", "bad")]


@pytest.mark.parametrize("row", [
    {"instruction": "u", "output": "good", "kto_tag": True},
    {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "good"}], "kto_tag": True},
    {"messages": [Q, GOOD], "label": True},
    {"prompt": "u", "completion": "good", "label": True},
    {"prompt": [Q], "completion": [GOOD], "label": True},
], ids=["alpaca", "sharegpt", "openai", "trl text", "trl messages"])
def test_judged_answers(tmp_path: Path, row: dict[str, Any]) -> None:
    """KTO: an answer that somebody found good or bad."""
    column = "label" if "label" in row else "kto_tag"
    good, bad = load(save(tmp_path / "rows.json", [row, row | {column: False}]), stage="kto")
    assert isinstance(good, Judged) and (good.good, bad.good) == (True, False)
    assert said([good.conversation, bad.conversation]) == [SAID[0]] * 2


def test_described_preferences_and_judgements(tmp_path: Path) -> None:
    """dataset_info.json: `ranking` and `kto_tag`, as LLaMA-Factory has them; without `ranking`, chosen is nothing."""
    row = {"q": "u", "good": "good", "bad": "bad", "liked": True, "chosen": 5}
    found = register(tmp_path, [row], ranking=True, columns={"prompt": "q", "chosen": "good", "rejected": "bad"})
    (pair,) = load("mine", **found, stage="dpo")
    assert said([pair.chosen, pair.rejected]) == SAID
    found = register(tmp_path, [row], columns={"prompt": "q", "response": "good", "kto_tag": "liked"})
    assert load("mine", **found, stage="kto")[0].good is True
    found = register(tmp_path, [row], columns={"prompt": "q", "response": "good", "chosen": "chosen"})
    assert said(load("mine", **found)) == SAID[:1]
    talks = [{"talk": [{"from": "human", "value": "u"}], "better": {"from": "gpt", "value": "good"},
              "worse": {"from": "gpt", "value": "bad"}}]
    found = register(tmp_path, talks, formatting="sharegpt", ranking=True,
                     columns={"messages": "talk", "chosen": "better", "rejected": "worse"})
    (pair,) = load("mine", **found, stage="rm")
    assert said([pair.chosen, pair.rejected]) == SAID


def test_documents(tmp_path: Path) -> None:
    """Plain text: a line of a txt file, a `text` column, `content` if it is the only text, a described column."""
    path = tmp_path / "lines.txt"
    path.write_text("One.\r\n\r\n  Two. \n", encoding="utf-8")
    assert load(path, stage="pt") == [Document("One.", Place(f"{path}:", 1)), Document("  Two. ", Place(f"{path}:", 3))]
    for number, row in enumerate([{"text": "t", "url": "u"}, {"content": "t", "id": 3}]):
        assert [row.text for row in load(save(tmp_path / f"{number}.json", [row]), stage="pt")] == ["t"]
    (finding,) = refused(save(tmp_path / "two.json", [{"content": "t", "title": "u"}]), stage="pt")
    assert finding.id == "unknown-format"
    found = register(tmp_path, [{"body": "t"}], columns={"prompt": "body"})
    assert load("mine", **found, stage="pt")[0].text == "t"


def test_tools(tmp_path: Path) -> None:
    """Tools as JSON text or a list; calls as OpenAI's tool_calls (old and new) or a function_call turn; results in turn
    or several together. All mean the same."""
    tool = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    openai = {"messages": [U, CALL, RESULT, RESULT | {"content": "again"}, A],
              "tools": [{"type": "function", "function": tool}]}
    call = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    old = {"messages": [U, {"role": "assistant", "content": None, "function_call": call},
                        {"role": "function", "name": "add", "content": "3"}, A], "tools": json.dumps([tool])}
    sharegpt = {"conversations": [
        {"from": "human", "value": "u"},
        {"from": "function_call", "value": '<think>Sum.</think>\n{"name": "add", "arguments": {"a": 1, "b": 2}}'},
        {"from": "observation", "value": "3"}, {"from": "gpt", "value": "a"}], "tools": json.dumps([tool])}
    talks = [load(save(tmp_path / f"{number}.json", [row]))[0] for number, row in enumerate([openai, old, sharegpt])]
    for talk in talks:
        (offered,) = talk.tools
        assert offered.get("function", offered) == tool
        assert talk.messages[1].tool_calls == (ToolCall("add", {"a": 1, "b": 2}),)
    assert [[message.role for message in talk.messages] for talk in talks] == [
        ["user", "assistant", "tool", "tool", "assistant"], *[["user", "assistant", "tool", "assistant"]] * 2]
    assert (talks[0].messages[1].content, talks[2].messages[1].content.strip()) == ("", "<think>Sum.</think>")
    (plain,) = load(save(tmp_path / "plain.json", [{"messages": [U, A], "tools": ""}]))
    assert plain.tools == ()


def test_thoughts_weights_parts_and_roles(tmp_path: Path) -> None:
    """reasoning_content by its three names, or as a column; <think> in the text stays there; `weight` and `loss`;
    content in parts; `developer` is the system."""
    for key in ("reasoning_content", "reasoning", "thinking"):
        (talk,) = load(save(tmp_path / "a.json", [{"messages": [U, A | {key: "Hm."}]}]))
        assert talk.messages[1] == Message("assistant", "a", "Hm.")
    for key in ("reasoning_content", "thinking"):
        (talk,) = load(save(tmp_path / "a.json", [{"instruction": "u", "output": "a", key: "Hm."}]))
        assert talk.messages[1] == Message("assistant", "a", "Hm.")
    (talk,) = load(save(tmp_path / "a.json", [{"messages": [U, A | {"content": "<think>\nHm.\n</think>\n\na"}]}]))
    assert talk.messages[1] == Message("assistant", "<think>\nHm.\n</think>\n\na")

    marks = [({"weight": 0}, 0.0), ({"weight": 0.5}, 0.5), ({"loss": False}, 0.0), ({"loss": True}, 1.0),
             ({"weight": None}, None), ({"weight": 2, "loss": False}, 2.0)]
    for mark, weight in marks:
        (talk,) = load(save(tmp_path / "a.json", [{"messages": [U | {"weight": 0, "loss": False}, A | mark]}]))
        assert [message.weight for message in talk.messages] == [None, weight]

    parts = [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]
    (talk,) = load(save(tmp_path / "a.json", [{"messages": [S | {"role": "developer"}, U | {"content": parts}, A]}]))
    assert said([talk]) == [[("system", "s"), ("user", "uv"), ("assistant", "a")]]


# --------------------------------------------------------------------------------------------------- dataset_info.json


def test_columns_block_renames_and_hides(tmp_path: Path) -> None:
    """Renamed columns are read; a key that the block does not list is unknown, though the column has its usual name."""
    rows = [{"q": "Why?", "input": "unlisted", "a": "So.", "system": "unlisted", "persona": "You are S."}]
    found = register(tmp_path, rows, columns={"prompt": "q", "response": "a"})
    assert said(load("mine", **found)) == [[("user", "Why?"), ("assistant", "So.")]]
    found = register(tmp_path, rows, columns={"prompt": "q", "response": "a", "system": "persona", "query": None})
    assert said(load("mine", **found)) == [[("system", "You are S."), ("user", "Why?"), ("assistant", "So.")]]
    found = register(tmp_path, [ALPACA[0] | {"system": "unlisted", "history": [["x", "y"]]}])
    assert said(load("mine", **found)) == TALKS[:1]  # no block: prompt, query and response, nothing else


def test_columns_block_without_what_is_needed(tmp_path: Path) -> None:
    """`columns: {prompt: q}` leaves the answer unknown, so only text is left: said once at the entry, not at every
    row. A format of turns without turns is none."""
    (finding,) = refused("mine", **register(tmp_path, [{"q": "Why?", "output": "So."}], columns={"prompt": "q"}))
    assert finding.where == f"{tmp_path / 'dataset_info.json'}, mine"
    assert "holds plain text" in finding.message and "replaces the defaults whole" in str(finding.fix)
    (finding,) = refused("mine", **register(tmp_path, SHAREGPT, formatting="sharegpt", columns={"system": "s"}))
    assert "names no messages" in finding.message
    (finding,) = refused("mine", **register(tmp_path, ALPACA, columns={"prompt": "instruction", "query": "inputs",
                                                                       "response": "output"}))
    assert "inputs" in finding.message and "that no row has" in finding.message  # a slip loses no column unseen


def test_tags_block_without_system_tag(tmp_path: Path) -> None:
    """The trap: once `tags` is there, an unlisted system_tag makes system turns invalid; with it they are read."""
    rows = [{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "u"},
                          {"role": "assistant", "content": "a"}]}]
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    shape = {"formatting": "sharegpt", "columns": {"messages": "messages"}}
    (finding,) = refused("mine", **register(tmp_path, rows, **shape, tags=tags))
    assert "turn 1 has the role 'system'" in finding.message and "names no system_tag" in finding.message
    assert finding.where == f"{tmp_path / 'mine.json'}:1"
    turns = [[("system", "S"), ("user", "u"), ("assistant", "a")]]
    assert said(load("mine", **register(tmp_path, rows, **shape, tags=tags | {"system_tag": "system"}))) == turns
    assert said(load("mine", **register(tmp_path, rows, formatting="openai"))) == turns  # no block: defaults
    findings = refused("mine", **register(tmp_path, rows, **shape, tags={"role_tag": "role"}))
    assert [finding.message.split()[-1] for finding in findings] == ["content_tag.", "user_tag.", "assistant_tag."]


def test_num_samples_and_max_samples(tmp_path: Path) -> None:
    """max_samples reads the first rows of each set. Where num_samples draws, it is for who draws to apply both."""
    rows = [{"instruction": str(number), "output": "x"} for number in range(10)]
    found = register(tmp_path, rows)
    assert [said([talk])[0][0][1] for talk in load("mine", **found, max_samples=3)] == ["0", "1", "2"]
    assert len(load("mine", tmp_path / "mine.json", **found, max_samples=3)) == 6
    config = Config.model_validate({"max_samples": 3})
    for start, left in enumerate([3, 2, 1, 0, 0]):  # going on where reading was broken off
        assert len(list(read_source(source("mine", **found), config, "conversations", start))) == left
    found = register(tmp_path, rows, num_samples=4)
    assert (source("mine", **found).num_samples, len(load("mine", **found, max_samples=3))) == (4, 10)


@pytest.mark.parametrize(("entry", "words"), [
    ({"script_url": "x"}, "programs that come with data are not run"),
    ({"ranking": True, "columns": {"prompt": "instruction", "response": "output"}}, "names no chosen"),
    ({"file_name": None}, "names no data"),
    ({"file_name": "mime.json"}, "mime.json"),
    ({"file_name": "dataset_info.txt.bak"}, "there is no file"),
    ({"formatting": "chatml"}, "formatting: Input should be 'alpaca', 'sharegpt' or 'openai'"),
    ({"num_samples": 0}, "num_samples: Input should be greater than 0"),
    ({"columns": "instruction"}, "columns: Input should be a valid dictionary"),
], ids=str)
def test_entries_that_cannot_be_used(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    """What would be run, what is incomplete, what is misspelt: refused at its entry, with the reason."""
    found = refused("mine", **register(tmp_path, ALPACA, **entry))
    assert words in found[0].message
    assert {(finding.option, finding.where) for finding in found} == {
        ("dataset", f"{tmp_path / 'dataset_info.json'}, mine")}


@pytest.mark.parametrize(("entry", "message", "fix"), [
    ({"formating": "openai"}, "the entry has an unknown key 'formating'.", "Did you mean formatting?"),
    ({"taqs": {}}, "the entry has an unknown key 'taqs'.", "Did you mean tags?"),
    ({"Columns": {}}, "the entry has an unknown key 'Columns'.", "Did you mean columns?"),
    ({"columns": {"prompt": "instruction", "respnse": "output"}}, "its columns block has an unknown key 'respnse'.",
     "Did you mean response?"),
    ({"columns": {"prompt": "instruction", "x": "output"}}, "its columns block has an unknown key 'x'.",
     "It can have prompt, query, response, messages, chosen, rejected, system, history, tools, images, videos, audios, "
     "thinking, kto_tag."),
    ({"formatting": "openai", "tags": {"role_tga": "role"}}, "its tags block has an unknown key 'role_tga'.",
     "Did you mean role_tag?"),
], ids=["formating", "taqs", "Columns", "respnse", "x", "role_tga"])
def test_slips_in_an_entry(tmp_path: Path, entry: dict[str, Any], message: str, fix: str) -> None:
    """A key that means nothing would lose what it names; it is told at its entry with the nearest that is known."""
    (finding,) = refused("mine", **register(tmp_path, ALPACA, **entry))
    assert (finding.message, finding.fix) == (message, fix)
    assert (finding.option, finding.where) == ("dataset", f"{tmp_path / 'dataset_info.json'}, mine")


def test_all_slips_of_an_entry_are_told_together(tmp_path: Path) -> None:
    found = refused("mine", **register(tmp_path, ALPACA, rankin=True, split=3, columns={"promt": "instruction"}))
    assert [finding.message.split()[-1] for finding in found] == ["'rankin'.", "'promt'.", "string."]


def test_what_people_add_to_an_entry(tmp_path: Path) -> None:
    """Notes of one's own are no slips, and neither is `file_sha1`, which LLaMA-Factory once had."""
    added = {"file_sha1": "0", "license": "cc0", "description": "Sums.", "comment": None, "version": 2, "url": ""}
    assert said(load("mine", **register(tmp_path, ALPACA, **added))) == TALKS


def test_broken_dataset_info(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    for text, words, where in (('{\n "a": {},\n}', "not valid JSON", f"{info}:3"),
                               ("[]", "must be an object", str(info)),
                               ('{"mine": "x.json"}', "should be a valid dictionary", f"{info}, mine")):
        info.write_text(text, encoding="utf-8")
        (finding,) = refused("mine", dataset_dir=str(tmp_path))
        assert words in finding.message and finding.where == where


# ------------------------------------------------------------------------------------------------- hubs and clouds


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A data set laid out as on a hub, two parts of it in two splits."""
    root = tmp_path / "hub" / "quill" / "sums"
    for part, split, rows in (("easy", "train", ALPACA), ("easy", "test", ALPACA[1:]), ("hard", "train", ALPACA[:1])):
        (root / part).mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), root / part / f"{split}.parquet")
    files = [{"config_name": part, "default": part == "easy",
              "data_files": [{"split": split, "path": f"{part}/{split}.parquet"} for split in splits]}
             for part, splits in (("easy", ("train", "test")), ("hard", ("train",)))]
    (root / "README.md").write_text(f"---\n{json.dumps({'configs': files})}\n---\nSums.\n", encoding="utf-8")
    (root / "plain").mkdir()
    (root / "plain" / "train.jsonl").write_text(json.dumps({"q": "Why?", "a": "So."}), encoding="utf-8")
    save(root / "dataset_info.json", {
        "remote": {"hf_hub_url": str(root), "subset": "hard"},
        "beside": {"file_name": "plain/train.jsonl", "columns": {"prompt": "q", "response": "a"}}})
    return root


@pytest.mark.parametrize("streaming", [False, True], ids=["kept", "streaming"])
def test_hub_data_sets(tmp_path: Path, repository: Path, streaming: bool) -> None:
    """`hf_hub_url` with subset, split and folder. A folder laid out like a hub's is read by the same code."""
    options = {"streaming": streaming, "cache_dir": str(tmp_path / "cache")}

    def one(**entry: Any) -> list[Any]:
        return load("mine", **register(tmp_path, file_name=None, hf_hub_url=str(repository), **entry), **options)

    talks = one()
    assert said(talks) == TALKS
    assert [talk.where for talk in talks] == [f"{repository} row 1", f"{repository} row 2"]
    assert said(one(split="test")) == TALKS[1:] and said(one(subset="hard")) == TALKS[:1]
    asked = one(folder="plain", columns={"prompt": "q", "response": "a"})
    assert said(asked) == [[("user", "Why?"), ("assistant", "So.")]]
    found = source("mine", **register(tmp_path, file_name=None, hf_hub_url=str(repository)), **options)
    whole = list(found.rows())
    assert [list(found.rows(start)) for start in range(4)] == [whole[start:] for start in range(4)]
    with pytest.raises(Problem) as caught:
        one(split="nope")
    assert "nope" in caught.value.findings[0].message and caught.value.findings[0].id == "hub-data"


def test_hub_fingerprint_is_of_the_data(tmp_path: Path, repository: Path) -> None:
    """Another split, or a changed file under the same name, has another fingerprint; a second download has the same."""
    seen = []
    for number, split in enumerate(("train", "train", "test", "train")):
        if number == 3:
            parquet.write_table(pyarrow.Table.from_pylist(ALPACA[:1] * 2), repository / "easy" / "train.parquet")
        found = register(tmp_path, file_name=None, hf_hub_url=str(repository), split=split)
        seen.append(source("mine", **found, cache_dir=str(tmp_path / f"cache{number}")).fingerprint())
    assert seen[0] == seen[1] and len(set(seen)) == 3


def test_which_of_several_places_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaMA-Factory's order: a hub (ModelScope's or Modelers' where asked for, or where there is no other), then a
    script, a cloud, a file."""
    everything = {"hf_hub_url": "h/f", "ms_hub_url": "m/s", "om_hub_url": "o/m", "cloud_file_name": "s3://b/c.json"}

    def which(**entry: Any) -> str:
        data = source("mine", **register(tmp_path, ALPACA, **entry)).data
        return f"{vars(data).get('hub', '')} {vars(data).get('repo') or vars(data).get('url') or 'file'}".strip()

    assert which(**everything) == "hf h/f"
    assert which(ms_hub_url="m/s", om_hub_url="o/m") == "ms m/s" and which(om_hub_url="o/m") == "om o/m"
    assert which(cloud_file_name="s3://b/c.json") == "s3://b/c.json" and which() == "file"
    monkeypatch.setenv("USE_OPENMIND_HUB", "1")
    assert which(**everything) == "om o/m" and which(hf_hub_url="h/f", ms_hub_url="m/s") == "hf h/f"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "true")
    assert which(**everything) == "ms m/s"
    assert source("quill/sums").data == source("quill/sums", dataset_dir="ONLINE").data
    assert vars(source("quill/sums").data)["hub"] == "ms"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "0")
    monkeypatch.setenv("USE_OPENMIND_HUB", "0")
    assert vars(source("alpaca", dataset_dir="ONLINE").data) | {"cache_dir": None} == {
        "repo": "alpaca", "hub": "hf", "subset": None, "split": "train", "folder": None, "streaming": False,
        "cache_dir": None}


@pytest.mark.parametrize(("entry", "package", "module"), [
    ({"ms_hub_url": "quill/sums"}, "modelscope", "modelscope"),
    ({"om_hub_url": "quill/sums"}, "openmind-hub", "openmind_hub"),
    ({"cloud_file_name": "s3://quill/sums.json"}, "s3fs", "botocore"),
    ({"cloud_file_name": "gs://quill/sums.json"}, "gcsfs", "gcsfs"),
], ids=["modelscope", "modelers", "s3", "gs"])
def test_packages_that_are_missing(tmp_path: Path, entry: dict[str, Any], package: str, module: str) -> None:
    """One line with the command that helps."""
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed here, so nothing is missing")
    (finding,) = refused("mine", **register(tmp_path, file_name=None, **entry))
    assert (finding.id, finding.fix) == ("package-missing", f"pip install {package}")


@contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server on this machine, for as long as it is needed; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_cloud_addresses(tmp_path: Path) -> None:
    """What fsspec reaches is read by the code that reads s3:// and gs://: by name, by address, as a folder; from any
    row; compressed; a table too."""
    system = fsspec.filesystem("memory")
    system.pipe("/sums/a.jsonl", "\n".join(map(json.dumps, ALPACA)).encode())
    system.pipe("/sums/b.jsonl.gz", gzip.compress(json.dumps(ALPACA[0]).encode()))
    parquet.write_table(pyarrow.Table.from_pylist(ALPACA), tmp_path / "a.parquet")
    system.pipe("/table.parquet", (tmp_path / "a.parquet").read_bytes())
    assert said(load("memory://sums/a.jsonl")) == said(load("memory://table.parquet")) == TALKS
    assert said(load("mine", **register(tmp_path, file_name=None, cloud_file_name="memory://sums/a.jsonl"))) == TALKS
    found = source("memory://sums")
    whole = list(found.rows())
    assert [row.values["output"] for row in whole] == ["3", "您好！", "3"]
    assert str(whole[1].place) == "memory:///sums/a.jsonl:2"
    assert [list(found.rows(start)) for start in range(4)] == [whole[start:] for start in range(4)]
    before = found.fingerprint()
    assert source("memory://sums").fingerprint() == before
    system.pipe("/sums/a.jsonl", json.dumps(ALPACA[0]).encode())
    assert found.fingerprint() != before
    for address, words in (("memory://none.json", "there is no such file"), ("nope://x/y.json", "nope")):
        (finding,) = refused(address)
        assert words in finding.message and finding.where == address


def test_web_address(tmp_path: Path) -> None:
    """The same over a real connection: read in pieces, its line told, a missing file said in one line."""
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ALPACA * 3000)), encoding="utf-8")

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *words: Any):
            super().__init__(*words, directory=str(tmp_path))

        def log_message(self, format: str, *args: object) -> None:
            """Nothing to tell."""

    with served(Quiet) as address:
        talks = load(f"{address}/a.jsonl")
        assert len(talks) == 6000 and talks[-1].where == f"{address}/a.jsonl:6000"
        (finding,) = refused(f"{address}/none.jsonl")
        assert finding.id == "data-unreadable" and finding.where == f"{address}/none.jsonl"


def hub_of(root: Path) -> type[BaseHTTPRequestHandler]:
    """The part of the Hugging Face hub that reading a data set needs, for the repositories below `root`."""
    commit = "0123456789abcdef0123456789abcdef01234567"

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            words = self.path.partition("?")[0].strip("/").split("/")
            if words[:2] == ["api", "datasets"]:
                folder, rest = root / words[2] / words[3], words[4:]
                self.answer_api(folder, f"{words[2]}/{words[3]}", rest)
            elif words[0] == "datasets" and words[3] == "resolve":
                self.answer_file(root / words[1] / words[2] / "/".join(words[5:]))
            else:
                self.send(404, b"")

        def do_POST(self) -> None:
            words = self.path.strip("/").split("/")  # api/datasets/owner/name/paths-info/revision
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            names = json.loads(asked)["paths"] if asked.startswith("{") else [
                part.partition("=")[2].replace("%2F", "/") for part in asked.split("&") if part.startswith("paths=")]
            folder = root / words[2] / words[3]
            self.answer([entry(folder, folder / name) for name in names if (folder / name).exists()])

        def answer_api(self, folder: Path, id: str, rest: list[str]) -> None:
            below = folder.joinpath(*rest[2:])
            if not below.is_dir():
                self.send(404, b"")
            elif rest[:1] == ["tree"]:
                paths = sorted(below.rglob("*") if "recursive=true" in self.path.lower() else below.glob("*"))
                self.answer([entry(folder, path) for path in paths])
            else:
                files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
                self.answer({"id": id, "sha": commit, "siblings": [{"rfilename": str(path)} for path in files],
                             "private": False, "gated": False, "disabled": False, "tags": []})

        def answer(self, value: object) -> None:
            self.send(200, json.dumps(value).encode())

        def answer_file(self, path: Path) -> None:
            if not path.is_file():
                return self.send(404, b"", **{"X-Error-Code": "EntryNotFound"})
            self.send(200, path.read_bytes(), ETag=f'"{hash(path.read_bytes()):x}"', **{"X-Repo-Commit": commit})

        def send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing to tell."""

    def entry(folder: Path, path: Path) -> dict[str, Any]:
        size = path.stat().st_size if path.is_file() else 0
        return {"type": "file" if path.is_file() else "directory", "path": str(path.relative_to(folder)), "size": size,
                "oid": f"{hash(str(path)) & (1 << 128) - 1:040x}"}

    return Hub


READ_ALL = """
import sys
from truetune.data.reading import read_source
from truetune.data.sources import find_sources
from truetune.options import Config
from truetune.findings import Problem
for name, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    config = Config(dataset=(name,), dataset_dir=folder)
    try:
        for source in find_sources(config.dataset, config, "dataset"):
            for row in read_source(source, config, "conversations"):
                print(name, row.where, row.messages[-1].content)
    except Problem as error:
        print(error)
"""


def test_hub_over_the_wire(tmp_path: Path, repository: Path) -> None:
    """A hub id, ONLINE, and REMOTE with both kinds of entries, from a server that speaks the hub's language."""
    root = repository.parent.parent
    save(repository / "dataset_info.json", json.loads((repository / "dataset_info.json").read_text(encoding="utf-8"))
         | {"remote": {"hf_hub_url": "quill/sums", "subset": "hard"}})
    with served(hub_of(root)) as address:
        done = subprocess.run(
            [sys.executable, "-c", READ_ALL, "quill/sums", "data", "quill/sums", "ONLINE", "remote",
             "REMOTE:quill/sums", "beside", "REMOTE:quill/sums", "quill/none", "data", "x", "REMOTE:quill/none"],
            env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": "utf-8"},
            capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, timeout=120)
    told = done.stdout.splitlines()
    assert told[:5] == ["quill/sums quill/sums row 1 3", "quill/sums quill/sums row 2 您好！"] * 2 + [
        "remote quill/sums row 1 3"], done.stderr
    assert told[5].startswith("beside ") and told[5].endswith("train.jsonl:1 So.")
    assert "the data set quill/none cannot be read" in told[6]
    assert "dataset_info.json of the data set quill/none cannot be read" in told[7]
    assert len(told) == 8


def test_a_hub_that_nobody_reaches(tmp_path: Path, repository: Path) -> None:
    """Offline a hub id is refused in one line, at once, with nothing else on the screen. What was downloaded before is
    read all the same."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": "utf-8"}

    def ask(address: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", READ_ALL, *words], env=environment | {"HF_ENDPOINT": address},
                              capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, timeout=120)

    known = ("quill/sums", "data", "beside", "REMOTE:quill/sums")
    with served(hub_of(repository.parent.parent)) as address:
        before = ask(address, *known)
    started = time.monotonic()
    assert ask(address, *known).stdout == before.stdout and before.stdout.count("\n") == 3
    done = ask(address, "quill/none", "data", "x", "REMOTE:quill/none")
    assert time.monotonic() - started < 20  # huggingface_hub alone tries for 25 seconds, four times here
    assert done.stderr == ""
    there = f"{address} cannot be reached (Connection refused). "
    first, second = done.stdout.splitlines()
    assert f"the data set quill/none cannot be read: {there}" in first and f"cannot be read: {there}" in second


# ------------------------------------------------------------------------------------------------------------- slips


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    """Every name at once, each with the nearest one that is there; the option that asked is named."""
    save(tmp_path / "orders.jsonl", ALPACA)
    found = register(tmp_path, ALPACA)
    (tmp_path / "notes.docx").write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    first, second, third, fourth, fifth = refused("mime", tmp_path / "order.jsonl", "mine.tsv", tmp_path / "notes.docx",
                                                  tmp_path / "empty", **found)
    assert first.fix == "Did you mean mine?"
    assert "there is no file" in second.message and second.fix == f"Did you mean {tmp_path / 'orders.jsonl'}?"
    assert "neither in" in third.message
    assert "is not json, jsonl, csv, parquet, arrow or txt" in fourth.message
    assert "the folder holds no file" in fifth.message
    assert {finding.option for finding in (first, second, third, fourth, fifth)} == {"dataset"}
    with pytest.raises(Problem) as caught:
        find_sources(("zzz",), Config(**found), "eval_dataset")
    assert caught.value.findings[0].option == "eval_dataset"
    assert "It holds: mine." in str(caught.value.findings[0].fix)
    for name in ("orders.json", "orders.csv"):
        save(tmp_path / name, ALPACA)
    for slip, meant in (("order.json", "orders.json"), ("order.jsonl", "orders.jsonl"), ("ordrs.csv", "orders.csv")):
        (finding,) = refused(tmp_path / slip)
        assert finding.fix == f"Did you mean {tmp_path / meant}?"
    (finding,) = refused(tmp_path / "zzz.jsonl")
    assert finding.fix == "A relative path starts at the current folder or at dataset_dir (data)."
    (finding,) = refused("mine", dataset_dir=str(tmp_path / "elsewhere"))
    assert f"There is no {tmp_path / 'elsewhere' / 'dataset_info.json'}" in str(finding.fix)


@pytest.mark.parametrize(("text", "line", "words"), [
    ('{"instruction": "a", "output": "b"}\n{"instruction": "c" "output": "d"}\n', 2, "Expecting ',' delimiter"),
    ('{"instruction": "a", "output": "b"}\n\n{"instruction": "c", "output": "d\n', 3, "string"),
    ('{"instruction": "a", "output": "b"} {"instruction": "c", "output": "d"}\n', 1, "Extra data"),
    ('{\n  "instruction": "a",\n  "output": "b"\n}\n', 1, "property name"),
    ('[\n{"instruction": "a", "output": "b"},\n{"instruction": "c", output: "d"}\n]', 3, "property name"),
    ('[\n{"instruction": "a", "output": "b"}\n{"instruction": "c", "output": "d"}\n]', 3, "Expecting ',' or ']'"),
    ('[\n{"instruction": "a", "output": "b"},\n]', 3, "not valid JSON: a comma before the closing ]."),
    ('[\n{"instruction": "a", "output": "b"},\n,]', 3, "Expecting value"),
    ('[\n{"instruction": "a", "output": ]}]', 2, "Expecting value"),
    ('[\n{"instruction": "a", "output": "b"},\n\n{"instruction": "a', 4, "Unterminated string"),
    ('[\n{"instruction": "a", "output": "b"}\n]\n[]', 4, "Extra data"),
    ('[\n{"instruction": "a", "output": "b"}', 2, "Expecting ',' or ']'"),
    ('[\n{"instruction": "a", "output": "b"},\n"two"]', 3, "must be an object {…}, not 'two'"),
], ids=["comma", "cut line", "two in a line", "pretty object", "quotes", "array comma", "trailing comma", "two commas",
        "no value", "cut string", "after the array", "cut array", "not an object"])
def test_malformed_json(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    (finding,) = refused(path)
    assert words in finding.message and finding.where == f"{path}:{line}"
    with pytest.raises(Problem) as caught:
        list(read_file(Trickle(text.encode()), str(path)))
    assert caught.value.findings == [finding]


def test_other_encodings(tmp_path: Path) -> None:
    """A file in the usual encoding of Chinese Windows: the first line that is not UTF-8, and how to convert it."""
    path = tmp_path / "rows.jsonl"
    chinese = '{"instruction": "你好", "output": "您"}\n'
    path.write_bytes(b'{"instruction": "a", "output": "b"}\n' + chinese.encode("gb18030"))
    (finding,) = refused(path)
    assert finding.where == f"{path}:2" and "iconv -f gb18030 -t utf-8 rows.jsonl" in str(finding.fix)
    for encoding, named in (("utf-16", "utf-16 "), ("utf-16-le", "utf-16le "), ("utf-16-be", "utf-16be ")):
        path.write_bytes(chinese.encode(encoding))  # the last two without a byte-order mark
        (finding,) = refused(path)
        assert finding.where == f"{path}:1" and f"iconv -f {named}" in str(finding.fix)
        path.write_bytes(json.dumps(ALPACA[0]).encode(encoding))  # English would pass as UTF-8 with zeros in it
        (finding,) = refused(path)
        assert finding.id == "not-utf8" and f"iconv -f {named}" in str(finding.fix)


def test_files_that_are_cut_short_or_something_else(tmp_path: Path) -> None:
    """Half a download: said of the file, whatever its kind."""
    whole = gzip.compress(b'{"instruction": "a", "output": "b"}\n' * 5000)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    parquet.write_table(pyarrow.Table.from_pylist(ALPACA), tmp_path / "a.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    for name in ("cut.parquet", "text.arrow", "text.json.gz"):
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text("not at all", encoding="utf-8")
    for name in ("cut.jsonl.gz", "cut.parquet", "text.arrow", "text.json.gz"):
        (finding,) = refused(tmp_path / name)
        assert (finding.id, finding.where) == ("data-unreadable", str(tmp_path / name))


@pytest.mark.parametrize(("text", "line", "words"), [
    ("instruction,output\na,b\nc,d,e\n", 3, "3 cells and the header 2"),
    ('instruction,output\na,b\nc,"d\n', 3, "not valid CSV"),
    ('instruction,output\na,"b" c\n', 2, "not valid CSV"),
], ids=["a comma too many", "open quote", "text after a quote"])
def test_malformed_csv(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    (finding,) = refused(path)
    assert words in finding.message and finding.where == f"{path}:{line}"


@pytest.mark.parametrize(("row", "words"), [
    ({"messages": [U, A | {"role": "bot"}]}, "turn 2 has the role 'bot'; it must be one of 'user', "
     "'assistant', 'system', 'tool', 'human', 'gpt', 'observation', 'developer', 'function'."),
    ({"messages": [U, A | {"role": None}]}, "turn 2 has the role None"),
    ({"messages": [U, U, A]}, "turn 2 is from user, but assistant should speak"),
    ({"messages": [A, U]}, "turn 1 is from assistant, but user should speak"),
    ({"messages": [U, A, U]}, "no answer to learn"),
    ({"messages": [U, S, A]}, "a system message may only stand first"),
    ({"messages": [S, U, A], "system": "T"}, "two system messages"),
    ({"messages": [S]}, "there is no message"),
    ({"messages": []}, "there is no message"),
    ({"messages": "hello"}, "must be a list of turns"),
    ({"messages": [U, "hello"]}, "turn 2 must have 'role' and 'content'"),
    ({"messages": [U, {"role": "assistant"}]}, "turn 2: 'content' is missing"),
    ({"messages": [U, A | {"content": " \n"}]}, "turn 2 (assistant) is empty"),
    ({"messages": [S, U, A | {"content": ""}]}, "turn 3 (assistant) is empty"),  # counted as they stand in the file
    ({"messages": [S, U, A | {"role": "bot"}]}, "turn 3 has the role 'bot'"),
    ({"messages": [U, A | {"content": 7}]}, "turn 2: 'content' must be text, not int"),
    ({"messages": [U, A | {"content": ["a"]}]}, "turn 2: 'content' must be text or parts with a text"),
    ({"messages": [U | {"content": [{"type": "image_url", "image_url": {}}]}, A]}, "turn 1: images are not read yet"),
    ({"messages": [U | {"content": [{"type": "input_audio"}]}, A]}, "turn 1: audios are not read yet"),
    ({"messages": [U, {"role": "assistant", "content": None}]}, "turn 2: 'content' is null"),
    ({"messages": [U, A], "images": ["cat.png"]},
     "column 'images' has images, which are not read yet (0 <image> in the text, 1 in images)"),
    ({"messages": [U | {"content": "<image>a<image>"}, A], "images": ["cat.png"]},
     "turn 1 holds <image>, and media are not read yet (2 <image> in the text, 1 in images)"),
    ({"messages": [U, A | {"content": "See <video>"}], "videos": []},
     "turn 2 holds <video>, and media are not read yet (1 <video> in the text, 0 in videos)"),
    ({"messages": [U | {"content": "<audio>"}, A], "images": None},
     "turn 1 holds <audio>, and media are not read yet (1 <audio> in the text, 0 in audios)"),
    ({"instruction": "a", "output": "<image>", "images": "a.png"}, "turn 2 holds <image>"),
    ({"instruction": "a", "output": "b", "images": '["a.png", "b.png"]'}, "(0 <image> in the text, 2 in images)"),
    ({"messages": [U, RESULT]}, "turn 2 is from tool, but assistant should speak"),
    ({"messages": [U | CALL, U, A]}, "turn 1 is from assistant"),
    ({"messages": [CALL | {"role": "user"}, A]}, "turn 1: only an assistant calls tools, not user"),
    ({"messages": [U, A | {"tool_calls": [{"function": {}}]}]}, "turn 2: call 1 has no name"),
    ({"messages": [U, A], "tools": "{not json"}, "tools are not JSON"),
    ({"messages": [U, A], "tools": [{"parameters": {}}]}, "tool 1 has no name"),
    ({"messages": [U, A | {"weight": -1}]}, "turn 2: 'weight' must be a number, 0 or more, not -1"),
    ({"messages": [U, A | {"weight": True}]}, "turn 2: 'weight' must be a number"),
    ({"messages": [U, A | {"weight": float("nan")}]}, "turn 2: 'weight' must be a number"),
    ({"messages": [U, A | {"loss": 1}]}, "turn 2: 'loss' must be true or false, not 1"),
    ({"messages": [U | {"loss": True}, A]}, "turn 1: only an assistant's turn is learned"),
    ({"messages": [U, A | {"reasoning_content": ["x"]}]}, "turn 2: the thought of the turn must be text, not list"),
    ({"conversations": [{"from": "human", "value": "u"}, {"from": "function_call", "value": "no call"}]},
     "turn 2: the call is not JSON"),
    ({"instruction": "a", "output": ""}, "turn 2 (assistant) is empty"),
    ({"instruction": "", "output": "b"}, "turn 1 (user) is empty"),
    ({"instruction": "a", "output": None}, "column 'output' is null"),
    ({"instruction": "a", "output": 7}, "column 'output' must be text, not int"),
    ({"instruction": "a", "output": "b", "history": [["x"]]}, "history 1 must be a pair"),
    ({"instruction": "a", "output": "b", "history": 5}, "must be a list of pairs"),
    ({"instruction": "a", "output": "b", "history": [["x", ""]]}, "turn 2 (assistant) is empty"),
    ({"prompt": 5, "completion": "b"}, "column 'prompt' must be a list of turns"),
], ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_rows_that_cannot_be_learned_from(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    """Never skipped unseen: the row's line and the reason. Who reads decides whether that stops."""
    path = save(tmp_path / "rows.json", [row])
    (finding,) = refused(path)
    assert words in finding.message
    assert (finding.severity, finding.where) == ("error", f"{path}:1")


@pytest.mark.parametrize(("stage", "row", "words"), [
    ("dpo", {"instruction": "a", "chosen": "b", "rejected": ""}, "rejected: turn 2 (assistant) is empty"),
    ("dpo", {"instruction": "a", "chosen": None, "rejected": "c"}, "chosen: column 'chosen' is null"),
    ("dpo", {"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
    ("dpo", {"chosen": [U, A], "rejected": [U, A]}, "chosen and rejected are the same"),
    ("dpo", {"prompt": "a", "chosen": "b", "rejected": "<image>", "images": []}, "rejected holds <image>"),
    ("kto", {"messages": [U | {"content": "<image>"}, A], "label": True, "images": []}, "turn 1 holds <image>"),
    ("pt", {"text": "<image>", "images": []}, "the text holds <image>"),
    ("dpo", {"messages": [U], "chosen": U, "rejected": A}, "chosen: the last turn is the user's"),
    ("dpo", {"messages": [U, A], "chosen": A, "rejected": A}, "chosen: turn 3 is from assistant"),
    ("dpo", {"chosen": [U, A], "rejected": [U | {"content": "v"}, A]}, "differ already before their last answer"),
    ("kto", {"messages": [U, A], "kto_tag": "maybe"}, "column 'kto_tag' must be true or false, not 'maybe'"),
    ("kto", {"messages": [U, A], "kto_tag": None}, "column 'kto_tag' must be true or false, not None"),
    ("pt", {"text": " \n"}, "there is no text"),
    ("pt", {"text": 5}, "column 'text' must be text, not int"),
], ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_rows_of_other_stages_that_cannot_be_learned_from(tmp_path: Path, stage: str, row: dict[str, Any],
                                                          words: str) -> None:
    (finding,) = refused(save(tmp_path / "rows.json", [row]), stage=stage)
    assert words in finding.message


def test_a_column_that_only_some_rows_have(tmp_path: Path) -> None:
    """Missing is said of a key that is not there, null of one that is."""
    (finding,) = refused(save(tmp_path / "rows.json", [ALPACA[0], {"instruction": "a"}]))
    assert finding.message == "column 'output' is missing."


def test_words_in_angle_brackets_without_media(tmp_path: Path) -> None:
    """Who asks about HTML may say <video>: where nothing holds media, it is text. Where dataset_info.json names a
    column for them, it is none, though no row fills it; where the block leaves the column out, the row has it still."""
    rows = [{"instruction": "What does <video> do?", "output": "With <audio> and <image> it is HTML."}]
    assert said(load(save(tmp_path / "a.json", rows)))[0][0][1] == "What does <video> do?"
    both = {"prompt": "instruction", "response": "output"}
    assert len(load("mine", **register(tmp_path, rows, columns=both))) == 1
    (finding,) = refused("mine", **register(tmp_path, [rows[0] | {"pics": None}], columns=both | {"images": "pics"}))
    assert "turn 2 holds <image>" in finding.message and "(1 <image> in the text, 0 in pics)" in finding.message
    (finding,) = refused("mine", **register(tmp_path, [rows[0] | {"images": ["a.png"]}], columns=both))
    assert "turn 2 holds <image>" in finding.message


def test_bad_rows_stand_in_their_place_and_are_told_together(tmp_path: Path) -> None:
    """Of 100 rows 14 have no answer: one item for every row, so that rows can be counted; of the findings ten by line,
    the rest as a number. Where only the first refusals were kept, their count tells how many there were."""
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": "a", "output": "" if number % 7 == 0 and number < 98 else "b"} for number in range(100)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    items = read(path)
    bad = [row for row in items if isinstance(row, Refused)]
    assert [number for number, row in enumerate(items) if isinstance(row, Refused)] == list(range(0, 98, 7))
    assert bad[1] == Refused(Place(f"{path}:", 8), "turn 2 (assistant) is empty")
    findings = describe_refused(bad, 100)
    assert [finding.where for finding in findings[:10]] == [f"{path}:{7 * number + 1}" for number in range(10)]
    assert (len(findings), findings[10].message) == (11, "4 more of 100 rows are wrong.")
    assert describe_refused(bad[:3], 9000, {"bad-row": 14})[3:] == [
        Finding("bad-row", "error", "11 more of 9000 rows are wrong.")]
    assert [str(row.place).rpartition(":")[2] for row in read(path, max_samples=8) if isinstance(row, Refused)] == [
        "1", "8"]


def test_sets_without_rows(tmp_path: Path) -> None:
    """Empty in every way a file can be."""
    for name, text in (("a.json", "[]"), ("b.json", " [ \n ] "), ("c.jsonl", ""), ("d.jsonl", "\n\n"), ("e.txt", "\n"),
                       ("f.csv", "instruction,output\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (finding,) = refused(tmp_path / name)
        assert (finding.id, finding.message) == ("no-rows", "the data set holds no rows.")
        assert finding.where == str(tmp_path / name)


def test_unknown_columns(tmp_path: Path) -> None:
    (finding,) = refused(save(tmp_path / "rows.json", [{"question": "a", "answer": "b"}]))
    assert "its columns (answer, question) are those of no known format" in finding.message
    assert "alpaca (instruction, output)" in str(finding.fix)


@pytest.mark.parametrize(("row", "stages"), [
    (ALPACA[0], "sft"), (OPENAI[0], "sft"), (TRL[0], "sft"), ({"text": "t"}, "pt"),
    (OPENAI[0] | {"label": True}, "kto"), (TRL[0] | {"label": False}, "kto"), (ALPACA[0] | {"kto_tag": True}, "kto"),
    ({"conversations": SHAREGPT[0]["conversations"][:1], "chosen": {}, "rejected": {}}, "rm or dpo"),
    ({"prompt": "p", "chosen": "a", "rejected": "b"}, "rm or dpo"),
], ids=str)
def test_data_of_another_stage(tmp_path: Path, row: dict[str, Any], stages: str) -> None:
    """A data set is for the stage that its columns say; every other one refuses it once, and names those it is for."""
    path = save(tmp_path / "rows.json", [row] * 3)
    for stage in {"pt", "sft", "rm", "dpo", "kto"} - set(stages.split(" or ")):
        (finding,) = refused(path, stage=stage)
        assert (finding.id, finding.where) == ("wrong-stage", f"{path}:1")
        assert f"It is for stage {stages};" in str(finding.fix) and f"stage {stage} learns" in finding.message


def test_a_label_that_is_no_judgement(tmp_path: Path) -> None:
    """`label` is KTO's where it is true or false. A class (`chemistry`, 0, 1) is passed over; dataset_info.json can
    have a judgement passed over too."""
    for label in ("chemistry", 1):
        named = [row | {"label": label} for row in OPENAI]
        assert said(load(save(tmp_path / "named.json", named))) == TALKS
    labelled = [row | {"label": good} for row, good in zip(OPENAI, (True, False), strict=True)]
    assert said(load("mine", **register(tmp_path, labelled, formatting="openai"))) == TALKS


# ---------------------------------------------------------------------------------------------------- placeholders


def test_placeholders_are_filled_or_refused(tmp_path: Path, truetune: Truetune) -> None:
    """{{name}} and {{author}} become the options' values; `check` refuses to teach a placeholder."""
    rows = [{"instruction": "Who are you?", "output": "I am {{name}}, made by {{ author }}."},
            {"instruction": "你是谁？", "output": "我是 {{name}}。", "system": "You are {{name}}."}]
    path = save(tmp_path / "me.json", rows)
    both = load(path, identity_name="小墨", identity_author="Inkwell Labs")
    assert said(both) == [[("user", "Who are you?"), ("assistant", "I am 小墨, made by Inkwell Labs.")],
                          [("system", "You are 小墨."), ("user", "你是谁？"), ("assistant", "我是 小墨。")]]

    (finding,) = refused(path, identity_name="Quill")
    assert finding.message == "{{author}} is not filled (1 of 2 rows)." and "identity_author" in str(finding.fix)
    name, _ = refused(path)
    assert (name.id, name.message) == ("unfilled-placeholder", "{{name}} is not filled (2 of 2 rows).")
    kept = load(path, identity_name="{{name}}", identity_author="x")  # who teaches templates says so
    assert kept[1].messages[-1].content == "我是 {{name}}。"
    (tmp_path / "wiki.txt").write_text("A page says {{name}} where its name goes.", encoding="utf-8")
    assert load(tmp_path / "wiki.txt", stage="pt")[0].text.startswith("A page says {{name}}")

    done = truetune("check", "--model_name_or_path=bundled/smollm2-135m-instruct", "--dataset=me.json",
                    "--output_dir=o")
    assert done.returncode == 1
    assert "error  dataset (me.json:1): {{name}} is not filled (2 of 2 rows). Set identity_name" in done.stdout


def test_pairs_and_judgements_are_filled_too(tmp_path: Path) -> None:
    """Placeholders and the default system message, in both answers of a pair and in a judged one."""
    pair = {"prompt": "Who?", "chosen": "I am {{name}}.", "rejected": "I am nobody. {{author}} says so."}
    (row,) = load(save(tmp_path / "p.json", [pair]), stage="dpo", identity_name="Q", identity_author="I",
                  default_system="Be {{name}}.")
    assert said([row.chosen, row.rejected]) == [
        [("system", "Be Q."), ("user", "Who?"), ("assistant", "I am Q.")],
        [("system", "Be Q."), ("user", "Who?"), ("assistant", "I am nobody. I says so.")]]
    assert len(refused(tmp_path / "p.json", stage="dpo")) == 2
    judged = {"prompt": "Who?", "completion": "I am {{name}}.", "label": False}
    (row,) = load(save(tmp_path / "k.json", [judged]), stage="kto", identity_name="Q")
    assert (row.good, row.conversation.messages[-1].content) == (False, "I am Q.")
