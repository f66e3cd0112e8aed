"""Data as people have it: every format and kind of file becomes the same conversations; every slip is told by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA, Truetune

from truetune.data.conversations import DataSet, load_data
from truetune.data.messages import Conversation
from truetune.findings import Finding, Problem
from truetune.options import Config

ALPACA = [{"instruction": "Add.", "input": "1 and 2", "output": "3"},
          {"instruction": "你好", "input": "", "output": "您好！"}]
SHAREGPT = [{"conversations": [{"from": "human", "value": row["instruction"] + ("\n" + row["input"]).rstrip()},
                               {"from": "gpt", "value": row["output"]}]} for row in ALPACA]
OPENAI = [{"messages": [{"role": "user", "content": row["conversations"][0]["value"]},
                        {"role": "assistant", "content": row["conversations"][1]["value"]}]} for row in SHAREGPT]
TALKS = [[("user", "Add.\n1 and 2"), ("assistant", "3")], [("user", "你好"), ("assistant", "您好！")]]
"""What all three of them say."""


def load(*names: object, **options: Any) -> DataSet:
    return load_data(Config(dataset=tuple(map(str, names)), **options))


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


def register(folder: Path, rows: object = None, **entry: Any) -> dict[str, Any]:
    """A `dataset_info.json` with the one data set `mine`; the options that find it."""
    if rows is not None:
        save(folder / "mine.json", rows)
    save(folder / "dataset_info.json", {"mine": {"file_name": "mine.json", **entry}})
    return {"dataset_dir": str(folder)}


# ---------------------------------------------------------------------------------------------------- files and formats


@pytest.mark.parametrize("rows", [ALPACA, SHAREGPT, OPENAI], ids=["alpaca", "sharegpt", "openai"])
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
    talks = load(path).train
    assert said(talks) == TALKS
    assert [talk.where for talk in talks] == [f"{path}:{line}" for line in places]


def test_shipped_samples_mean_what_they_say() -> None:
    """The samples in data/: 8 rows in each of six files, registered; 96 identity rows, half of them Chinese."""
    names = [f"sample_{name}{kind}" for name in ("alpaca", "sharegpt", "openai") for kind in ("", "_jsonl")]
    talks = load(*names, dataset_dir=str(DATA)).train
    assert len(talks) == 6 * 8
    for suffix in (".json", ".jsonl"):  # by path the same as by name
        direct = load(*(DATA / f"sample_{name}{suffix}" for name in ("alpaca", "sharegpt", "openai"))).train
        assert said(direct) == said([talk for talk in talks if talk.where.split(":")[0].endswith(suffix)])
    identity = load("identity", dataset_dir=str(DATA), identity_name="Quill", identity_author="Inkwell Labs").train
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
        assert said(load(save(tmp_path / f"{number}.json", [row])).train) == [turns]

    none = [alpaca | {"system": empty, "history": []} for empty in ("", None)]
    assert said(load(save(tmp_path / "none.json", none)).train) == [[("user", "c"), ("assistant", "d")]] * 2
    empty_turn = [{"messages": [{"role": "system", "content": ""}, *openai[1:]]}]
    assert said(load(save(tmp_path / "empty.json", empty_turn)).train) == [turns[1:]]

    default = load(save(tmp_path / "default.json", [none[0], alpaca]), default_system="Standard.").train
    assert [talk.messages[0].content for talk in default] == ["Standard.", "Be brief."]


def test_only_input_is_a_question_too(tmp_path: Path) -> None:
    """As in LLaMA-Factory the question is whatever is not empty of instruction and input, joined by a line feed."""
    path = save(tmp_path / "rows.json", [{"instruction": "", "input": "1 + 1", "output": "2"}])
    assert said(load(path).train) == [[("user", "1 + 1"), ("assistant", "2")]]


# --------------------------------------------------------------------------------------------------- dataset_info.json


def test_columns_block_renames_and_hides(tmp_path: Path) -> None:
    """Renamed columns are read; a key that the block does not list is unknown, though the column has its usual name."""
    rows = [{"q": "Why?", "input": "unlisted", "a": "So.", "system": "unlisted", "persona": "You are S."}]
    found = register(tmp_path, rows, columns={"prompt": "q", "response": "a"})
    assert said(load("mine", **found).train) == [[("user", "Why?"), ("assistant", "So.")]]
    found = register(tmp_path, rows, columns={"prompt": "q", "response": "a", "system": "persona", "query": None})
    assert said(load("mine", **found).train) == [[("system", "You are S."), ("user", "Why?"), ("assistant", "So.")]]
    found = register(tmp_path, [ALPACA[0] | {"system": "unlisted", "history": [["x", "y"]]}])
    assert said(load("mine", **found).train) == TALKS[:1]  # no block: prompt, query and response, nothing else


def test_columns_block_without_what_is_needed(tmp_path: Path) -> None:
    """`columns: {prompt: q}` leaves the answer unknown: said once at the entry, not for every row."""
    (finding,) = refused("mine", **register(tmp_path, [{"q": "Why?", "output": "So."}], columns={"prompt": "q"}))
    assert finding.where == f"{tmp_path / 'dataset_info.json'}, mine"
    assert "columns block names no response" in finding.message
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
    assert said(load("mine", **register(tmp_path, rows, **shape, tags=tags | {"system_tag": "system"})).train) == turns
    assert said(load("mine", **register(tmp_path, rows, formatting="openai")).train) == turns  # no block: defaults
    findings = refused("mine", **register(tmp_path, rows, **shape, tags={"role_tag": "role"}))
    assert [finding.message.split()[-1] for finding in findings] == ["content_tag.", "user_tag.", "assistant_tag."]


def test_num_samples_and_max_samples(tmp_path: Path) -> None:
    """num_samples draws by seed, some rows again where there are too few; max_samples keeps the first of each set."""
    rows = [{"instruction": str(number), "output": "x"} for number in range(10)]

    def numbers(**options: Any) -> list[int]:
        return [int(talk.messages[0].content) for talk in load("mine", **options).train]

    assert numbers(**register(tmp_path, rows), max_samples=3) == [0, 1, 2]
    four = numbers(**register(tmp_path, rows, num_samples=4), seed=1)
    assert len(set(four)) == 4 and four == numbers(dataset_dir=str(tmp_path), seed=1)
    assert four != numbers(dataset_dir=str(tmp_path), seed=2)
    more = numbers(**register(tmp_path, rows, num_samples=25))
    assert len(more) == 25 and set(more[:10]) == set(range(10))
    assert numbers(dataset_dir=str(tmp_path), max_samples=2) == more[:2]
    assert len(load("mine", tmp_path / "mine.json", **register(tmp_path, rows), max_samples=3).train) == 6


@pytest.mark.parametrize(("entry", "words"), [
    ({"hf_hub_url": "tatsu-lab/alpaca"}, "hf_hub_url is not read yet"),
    ({"ms_hub_url": "x/y"}, "ms_hub_url is not read yet"),
    ({"script_url": "x"}, "script_url is not read yet"),
    ({"cloud_file_name": "s3://b/x.json"}, "cloud_file_name is not read yet"),
    ({"ranking": True}, "preferences"),
    ({"columns": {"messages": "conversations", "kto_tag": "label"}, "formatting": "sharegpt"}, "preferences"),
    ({"file_name": None}, "has no file_name"),
    ({"file_name": "mime.json"}, "mime.json"),
    ({"formatting": "chatml"}, "formatting: Input should be 'alpaca', 'sharegpt' or 'openai'"),
    ({"num_samples": 0}, "num_samples: Input should be greater than 0"),
    ({"columns": "instruction"}, "columns: Input should be a valid dictionary"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_entries_that_cannot_be_used(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    """What is on a hub, what holds preferences, what is misspelt: refused at its entry, with the reason."""
    (finding,) = refused("mine", **register(tmp_path, ALPACA, **entry))
    assert words in finding.message
    assert (finding.option, finding.where) == ("dataset", f"{tmp_path / 'dataset_info.json'}, mine")


def test_broken_dataset_info(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    for text, words, where in (('{\n "a": {},\n}', "not valid JSON", f"{info}:3"),
                               ("[]", "must be an object", str(info)),
                               ('{"mine": "x.json"}', "should be a valid dictionary", f"{info}, mine")):
        info.write_text(text, encoding="utf-8")
        (finding,) = refused("mine", dataset_dir=str(tmp_path))
        assert words in finding.message and finding.where == where


# ------------------------------------------------------------------------------------------------------------- slips


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    """Every name at once, each with the nearest one that is there; the option that asked is named."""
    save(tmp_path / "orders.jsonl", ALPACA)
    found = register(tmp_path, ALPACA)
    first, second, third = refused("mime", tmp_path / "order.jsonl", "mine.csv", **found)
    assert first.fix == "Did you mean mine?"
    assert "there is no file" in second.message and second.fix == f"Did you mean {tmp_path / 'orders.jsonl'}?"
    assert "neither in" in third.message
    assert {finding.option for finding in (first, second, third)} == {"dataset"}
    (finding,) = refused("mine", eval_dataset="zzz", **found)
    assert finding.option == "eval_dataset" and "It holds: mine." in str(finding.fix)
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
    ('[\n{"instruction": "a", "output": "b"},\n]', 3, "Expecting value"),
    ('[\n{"instruction": "a", "output": "b"},\n\n{"instruction": "a', 4, "Unterminated string"),
    ('[\n{"instruction": "a", "output": "b"}\n]\n[]', 4, "Extra data"),
    ('[\n{"instruction": "a", "output": "b"}', 2, "Expecting ',' or ']'"),
    ('[\n{"instruction": "a", "output": "b"},\n"two"]', 3, "must be an object {…}, not 'two'"),
], ids=["comma", "cut line", "two in a line", "pretty object", "quotes", "array comma", "trailing comma", "cut string",
        "after the array", "cut array", "not an object"])
def test_malformed_json(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    (finding,) = refused(path)
    assert words in finding.message and finding.where == f"{path}:{line}"


def test_other_encodings(tmp_path: Path) -> None:
    """A file in the usual encoding of Chinese Windows: the first line that is not UTF-8, and how to convert it."""
    path = tmp_path / "rows.jsonl"
    chinese = '{"instruction": "你好", "output": "您"}\n'
    path.write_bytes(b'{"instruction": "a", "output": "b"}\n' + chinese.encode("gb18030"))
    (finding,) = refused(path)
    assert finding.where == f"{path}:2" and "iconv -f gb18030 -t utf-8 rows.jsonl" in str(finding.fix)
    path.write_bytes(chinese.encode("utf-16"))
    (finding,) = refused(path)
    assert finding.where == f"{path}:1" and "iconv -f utf-16" in str(finding.fix)


U, A, S = ({"role": role, "content": role[0]} for role in ("user", "assistant", "system"))


@pytest.mark.parametrize(("row", "words"), [
    ({"messages": [U, A | {"role": "bot"}]}, "turn 2 has the role 'bot'; it must be one of 'system', 'user', "),
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
    ({"messages": [U, A | {"content": " \n"}]}, "turn 2 (assistant) is empty"),
    ({"messages": [S, U, A | {"content": ""}]}, "turn 3 (assistant) is empty"),  # counted as they stand in the file
    ({"messages": [S, U, A | {"role": "bot"}]}, "turn 3 has the role 'bot'"),
    ({"messages": [U, A | {"content": ["a"]}]}, "turn 2: 'content' must be text, not list"),
    ({"messages": [U, {"role": "tool", "content": "4"}]}, "turn 2 is a tool's"),
    ({"messages": [U, A | {"tool_calls": [{"function": {}}]}]}, "turn 2 is a tool's or calls one"),
    ({"messages": [U, A], "tools": [{"name": "f"}]}, "has tools, which are not read yet"),
    ({"messages": [U, A], "images": ["cat.png"]}, "has images, which are not read yet"),
    ({"instruction": "a", "output": ""}, "turn 2 (assistant) is empty"),
    ({"instruction": "", "output": "b"}, "turn 1 (user) is empty"),
    ({"instruction": "a", "output": None}, "column 'output' is missing"),
    ({"instruction": "a", "output": 7}, "column 'output' must be text, not int"),
    ({"instruction": "a", "output": "b", "history": [["x"]]}, "history 1 must be a pair"),
    ({"instruction": "a", "output": "b", "history": 5}, "must be a list of pairs"),
    ({"instruction": "a", "output": "b", "history": [["x", ""]]}, "turn 2 (assistant) is empty"),
], ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_rows_that_cannot_be_learned_from(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    """Never skipped unseen: the row's line and the reason."""
    path = save(tmp_path / "rows.json", [row])
    (finding,) = refused(path)
    assert words in finding.message
    assert (finding.severity, finding.option, finding.where) == ("error", "dataset", f"{path}:1")


def test_bad_rows_are_told_together_and_capped(tmp_path: Path) -> None:
    """Of 100 rows 14 have no answer: ten by line, the rest as a number. Both data sets in one report."""
    path, other = tmp_path / "rows.jsonl", save(tmp_path / "other.json", [])
    rows = [{"instruction": "a", "output": "" if number % 7 == 0 and number < 98 else "b"} for number in range(100)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    findings = refused(path, eval_dataset=str(other))
    assert [finding.where for finding in findings[:10]] == [f"{path}:{7 * number + 1}" for number in range(10)]
    assert findings[10].message == "4 more of 100 rows are wrong."
    assert (findings[11].option, findings[11].message) == ("eval_dataset", "the file holds no rows.")
    assert len(findings) == 12


def test_unknown_columns(tmp_path: Path) -> None:
    (finding,) = refused(save(tmp_path / "rows.json", [{"question": "a", "answer": "b"}]))
    assert "its columns (answer, question) are those of no known format" in finding.message
    assert "alpaca (instruction, input, output)" in str(finding.fix)


def test_preferences_are_not_taken_for_answers(tmp_path: Path) -> None:
    """A file of pairs, or of answers labelled good and bad: told once. Described in dataset_info.json it is read."""
    pairs = [{"conversations": SHAREGPT[0]["conversations"][:1], "chosen": {}, "rejected": {}}] * 2
    labelled = [row | {"label": good} for row, good in zip(OPENAI, (True, False), strict=True)]
    for rows in (pairs, labelled):
        (finding,) = refused(save(tmp_path / "rows.json", rows))
        assert finding.id == "wrong-stage" and "preferences" in finding.message
    assert said(load("mine", **register(tmp_path, labelled, formatting="openai")).train) == TALKS
    named = [row | {"label": "chemistry"} for row in OPENAI]
    assert said(load(save(tmp_path / "named.json", named)).train) == TALKS


# ------------------------------------------------------------------------------------------ placeholders, held-out rows


def test_placeholders_are_filled_or_refused(tmp_path: Path, truetune: Truetune) -> None:
    """{{name}} and {{author}} become the options' values; `check` refuses to teach a placeholder."""
    rows = [{"instruction": "Who are you?", "output": "I am {{name}}, made by {{ author }}."},
            {"instruction": "你是谁？", "output": "我是 {{name}}。", "system": "You are {{name}}."}]
    path = save(tmp_path / "me.json", rows)
    both = load(path, identity_name="小墨", identity_author="Inkwell Labs").train
    assert said(both) == [[("user", "Who are you?"), ("assistant", "I am 小墨, made by Inkwell Labs.")],
                          [("system", "You are 小墨."), ("user", "你是谁？"), ("assistant", "我是 小墨。")]]

    (finding,) = refused(path, identity_name="Quill")
    assert finding.message == "{{author}} is not filled (1 of 2 rows)." and "identity_author" in str(finding.fix)
    name, _ = refused(path)
    assert name.message == "{{name}} is not filled (2 of 2 rows)."
    kept = load(path, identity_name="{{name}}", identity_author="x").train  # who teaches templates says so
    assert kept[1].messages[-1].content == "我是 {{name}}。"

    done = truetune("check", "--model_name_or_path=bundled/smollm2-135m-instruct", "--dataset=me.json",
                    "--output_dir=o")
    assert done.returncode == 1
    assert "error  dataset (me.json:1): {{name}} is not filled (2 of 2 rows). Set identity_name" in done.stdout


def test_val_size_holds_rows_out(tmp_path: Path) -> None:
    """A share or a number; drawn by seed; every row on exactly one side. What leaves a side empty is refused."""
    path = save(tmp_path / "rows.json", [{"instruction": str(number), "output": "x"} for number in range(20)])
    for val_size, count in ((0.25, 5), (3, 3), (1, 1), (0.05, 1), (19, 19)):
        data = load(path, val_size=val_size)
        assert (len(data.train), len(data.held_out)) == (20 - count, count)
        assert sorted(str(said([talk])) for talk in data.train + data.held_out) == sorted(
            str(said([talk])) for talk in load(path).train)
    assert load(path, val_size=5, seed=1).held_out == load(path, val_size=5, seed=1).held_out
    assert load(path, val_size=5, seed=1).held_out != load(path, val_size=5, seed=2).held_out
    for val_size in (20, 50, 0.01, 0.99, 2.5):  # 0.01 of 20 rows is none; 0.99 is all
        (finding,) = refused(path, val_size=val_size)
        assert finding.option == "val_size" and f"{val_size:g} of 20 rows" in finding.message
    own = load(path, eval_dataset=str(path))
    assert len(own.train) == len(own.held_out) == 20
