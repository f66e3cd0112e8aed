"""Data as people have it: every kind of file, every entry of dataset_info.json, the assistant's name."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from conftest import DATA, Truetune
from datasets_by_hand import (
    ALPACA,
    OPENAI,
    SHAREGPT,
    TALKS,
    TRL,
    Trickle,
    U,
    load,
    refused,
    register,
    said,
    save,
    source,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from truetune.data.messages import Place, ToolCall
from truetune.data.readers import read_file
from truetune.data.reading import read_source
from truetune.findings import Problem
from truetune.options import Config

# ------------------------------------------------------------------------------------------------------ kinds of files


@pytest.mark.parametrize("rows", [ALPACA, SHAREGPT, OPENAI, TRL], ids=["alpaca", "sharegpt", "openai", "trl"])
@pytest.mark.parametrize("kind", ["array", "pretty", "lines", "lines in .json", "BOM", "CRLF", "CRLF array", "blanks"])
def test_every_format_in_every_kind_of_file(tmp_path: Path, rows: list[dict], kind: str) -> None:
    """Array or lines, whatever the suffix; with a byte-order mark, Windows line ends or empty lines: one meaning."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text, suffix, places = {
        "array": (json.dumps(rows, ensure_ascii=False), ".json", [" row 1", " row 2"]),
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
    assert [talk.where for talk in talks] == [
        f"{path}{place}" if isinstance(place, str) else f"{path}:{place}" for place in places]


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
    line = {"jsonl": lambda n: n + 1, "csv": lambda n: n + 2, "txt": lambda n: 2 * n + 1}
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
    assert "files of several kinds (csv, json)" in str(finding.message)


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
    lines on which they begin; their numbers where the first two stand on one line."""
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
    numbered = not as_lines and len(begins) > 1 and begins[0] == begins[1]
    places = [Place("a.json row ", n) for n in range(1, len(rows) + 1)] if numbered else \
        [Place("a.json:", line) for line in begins]
    assert [row.place for row in found] == places[skip:]


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


def test_an_array_on_one_line(tmp_path: Path) -> None:
    """What json.dump writes: rows are told by their number, so that each is one row to whoever holds some out."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "one"}, {"text": "two"}, {"text": "three"}]), encoding="utf-8")
    with path.open("rb") as file:
        rows = list(read_file(file, "a.json"))
    assert [str(row.place) for row in rows] == ["a.json row 1", "a.json row 2", "a.json row 3"]
    with path.open("rb") as file:
        assert [str(row.place) for row in read_file(file, "a.json", start=2)] == ["a.json row 3"]
    path.write_text('[{"text": "one"}, 2]', encoding="utf-8")
    with pytest.raises(Problem, match=r"a\.json row 2"), path.open("rb") as file:
        list(read_file(file, "a.json"))


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
    assert "holds plain text" in str(finding.message) and "replaces the defaults whole" in str(finding.fix)
    (finding,) = refused("mine", **register(tmp_path, SHAREGPT, formatting="sharegpt", columns={"system": "s"}))
    assert "names no messages" in str(finding.message)
    (finding,) = refused("mine", **register(tmp_path, ALPACA, columns={"prompt": "instruction", "query": "inputs",
                                                                       "response": "output"}))
    told = str(finding.message)
    assert "inputs" in told and "that no row has" in told  # a slip loses no column unseen


def test_tags_block_without_system_tag(tmp_path: Path) -> None:
    """The trap: once `tags` is there, an unlisted system_tag makes system turns invalid; with it they are read."""
    rows = [{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "u"},
                          {"role": "assistant", "content": "a"}]}]
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    shape = {"formatting": "sharegpt", "columns": {"messages": "messages"}}
    (finding,) = refused("mine", **register(tmp_path, rows, **shape, tags=tags))
    assert "turn 1 has the role 'system'" in str(finding.message) and "names no system_tag" in str(finding.message)
    assert finding.where == f"{tmp_path / 'mine.json'}:1"
    turns = [[("system", "S"), ("user", "u"), ("assistant", "a")]]
    assert said(load("mine", **register(tmp_path, rows, **shape, tags=tags | {"system_tag": "system"}))) == turns
    assert said(load("mine", **register(tmp_path, rows, formatting="openai"))) == turns  # no block: defaults
    findings = refused("mine", **register(tmp_path, rows, **shape, tags={"role_tag": "role"}))
    assert [str(finding.message).split()[-1] for finding in findings] == ["content_tag.", "user_tag.", "assistant_tag."]


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
    assert words in str(found[0].message)
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
    assert (str(finding.message), str(finding.fix)) == (message, fix)
    assert (finding.option, finding.where) == ("dataset", f"{tmp_path / 'dataset_info.json'}, mine")


def test_all_slips_of_an_entry_are_told_together(tmp_path: Path) -> None:
    found = refused("mine", **register(tmp_path, ALPACA, rankin=True, split=3, columns={"promt": "instruction"}))
    assert [str(finding.message).split()[-1] for finding in found] == ["'rankin'.", "'promt'.", "string."]


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
        assert words in str(finding.message) and finding.where == where


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
    assert str(finding.message) == "{{author}} is not filled (1 of 2 rows)." and "identity_author" in str(finding.fix)
    name, _ = refused(path)
    assert (name.id, str(name.message)) == ("unfilled-placeholder", "{{name}} is not filled (2 of 2 rows).")
    kept = load(path, identity_name="{{name}}", identity_author="x")  # who teaches templates says so
    assert kept[1].messages[-1].content == "我是 {{name}}。"
    (tmp_path / "wiki.txt").write_text("A page says {{name}} where its name goes.", encoding="utf-8")
    assert load(tmp_path / "wiki.txt", stage="pt")[0].text.startswith("A page says {{name}}")

    done = truetune("check", "--model_name_or_path=bundled/smollm2-135m-instruct", "--dataset=me.json",
                    "--output_dir=o")
    assert done.returncode == 1
    assert "error  dataset (me.json row 1): {{name}} is not filled (2 of 2 rows). Set identity_name" in done.stdout


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
