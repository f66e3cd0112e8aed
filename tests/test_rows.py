"""Rows as people have them: every format becomes the same messages; every slip is told by line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets_by_hand import (
    ALPACA,
    CALL,
    OPENAI,
    RESULT,
    SHAREGPT,
    TALKS,
    TRL,
    A,
    S,
    Trickle,
    U,
    load,
    read,
    refused,
    register,
    said,
    save,
)
from pyarrow import parquet

from truetune.data.messages import Document, Judged, Message, Place, Preference, ToolCall
from truetune.data.readers import read_file
from truetune.data.reading import Refused, describe_refused
from truetune.data.sources import find_sources
from truetune.findings import Problem
from truetune.options import Config

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
    assert str(finding.message) == "turn 2 has the role 'user'; it must be one of 'human', 'gpt', 'system'."
    assert str(finding.fix) == 'In its tags block set "user_tag": "user", "assistant_tag": "assistant".'
    rows[0]["conversations"][1]["from"] = "bot"
    rows[0]["conversations"][2]["from"] = "gpt"
    (finding,) = refused("mine", **register(tmp_path, rows, formatting="sharegpt", tags=tags))
    assert "the role 'bot'" in str(finding.message) and finding.fix is None


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


# ------------------------------------------------------------------------------------------------------------- slips


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    """Every name at once, each with the nearest one that is there; the option that asked is named."""
    save(tmp_path / "orders.jsonl", ALPACA)
    found = register(tmp_path, ALPACA)
    (tmp_path / "notes.docx").write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    first, second, third, fourth, fifth = refused("mime", tmp_path / "order.jsonl", "mine.tsv", tmp_path / "notes.docx",
                                                  tmp_path / "empty", **found)
    assert str(first.fix) == "Did you mean mine?"
    assert "there is no file" in str(second.message) and str(second.fix) == f"Did you mean {tmp_path / 'orders.jsonl'}?"
    assert "neither in" in str(third.message)
    assert "is not json, jsonl, csv, parquet, arrow or txt" in str(fourth.message)
    assert "the folder holds no file" in str(fifth.message)
    assert {finding.option for finding in (first, second, third, fourth, fifth)} == {"dataset"}
    with pytest.raises(Problem) as caught:
        find_sources(("zzz",), Config(**found), "eval_dataset")
    assert caught.value.findings[0].option == "eval_dataset"
    assert "It holds: mine." in str(caught.value.findings[0].fix)
    for name in ("orders.json", "orders.csv"):
        save(tmp_path / name, ALPACA)
    for slip, meant in (("order.json", "orders.json"), ("order.jsonl", "orders.jsonl"), ("ordrs.csv", "orders.csv")):
        (finding,) = refused(tmp_path / slip)
        assert str(finding.fix) == f"Did you mean {tmp_path / meant}?"
    (finding,) = refused(tmp_path / "zzz.jsonl")
    assert str(finding.fix) == "A relative path starts at the current folder or at dataset_dir (data)."
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
    assert words in str(finding.message) and finding.where == f"{path}:{line}"
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
    assert words in str(finding.message) and finding.where == f"{path}:{line}"


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
    assert words in str(finding.message)
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
    assert words in str(finding.message)


def test_a_column_that_only_some_rows_have(tmp_path: Path) -> None:
    """Missing is said of a key that is not there, null of one that is."""
    (finding,) = refused(save(tmp_path / "rows.json", [ALPACA[0], {"instruction": "a"}]))
    assert str(finding.message) == "column 'output' is missing."


def test_words_in_angle_brackets_without_media(tmp_path: Path) -> None:
    """Who asks about HTML may say <video>: where nothing holds media, it is text. Where dataset_info.json names a
    column for them, it is none, though no row fills it; where the block leaves the column out, the row has it still."""
    rows = [{"instruction": "What does <video> do?", "output": "With <audio> and <image> it is HTML."}]
    assert said(load(save(tmp_path / "a.json", rows)))[0][0][1] == "What does <video> do?"
    both = {"prompt": "instruction", "response": "output"}
    assert len(load("mine", **register(tmp_path, rows, columns=both))) == 1
    (finding,) = refused("mine", **register(tmp_path, [rows[0] | {"pics": None}], columns=both | {"images": "pics"}))
    told = str(finding.message)
    assert "turn 2 holds <image>" in told and "(1 <image> in the text, 0 in pics)" in told
    (finding,) = refused("mine", **register(tmp_path, [rows[0] | {"images": ["a.png"]}], columns=both))
    assert "turn 2 holds <image>" in str(finding.message)


def test_bad_rows_stand_in_their_place_and_are_told_together(tmp_path: Path) -> None:
    """Of 100 rows 14 have no answer: one item for every row, so that rows can be counted; of the findings ten by line,
    the rest as a number. Where only the first refusals were kept, their count tells how many there were."""
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": "a", "output": "" if number % 7 == 0 and number < 98 else "b"} for number in range(100)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    items = read(path)
    bad = [row for row in items if isinstance(row, Refused)]
    assert [number for number, row in enumerate(items) if isinstance(row, Refused)] == list(range(0, 98, 7))
    assert (bad[1].place, str(bad[1].reason)) == (Place(f"{path}:", 8), "turn 2 (assistant) is empty")
    findings = describe_refused(bad, 100)
    assert [finding.where for finding in findings[:10]] == [f"{path}:{7 * number + 1}" for number in range(10)]
    assert (len(findings), str(findings[10].message)) == (11, "4 more of 100 rows are wrong.")
    assert [finding.line() for finding in describe_refused(bad[:3], 9000, {"bad-row": 14})[3:]] == [
        "error  11 more of 9000 rows are wrong."]
    assert [str(row.place).rpartition(":")[2] for row in read(path, max_samples=8) if isinstance(row, Refused)] == [
        "1", "8"]


def test_sets_without_rows(tmp_path: Path) -> None:
    """Empty in every way a file can be."""
    for name, text in (("a.json", "[]"), ("b.json", " [ \n ] "), ("c.jsonl", ""), ("d.jsonl", "\n\n"), ("e.txt", "\n"),
                       ("f.csv", "instruction,output\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (finding,) = refused(tmp_path / name)
        assert (finding.id, str(finding.message)) == ("no-rows", "the data set holds no rows.")
        assert finding.where == str(tmp_path / name)


def test_unknown_columns(tmp_path: Path) -> None:
    (finding,) = refused(save(tmp_path / "rows.json", [{"question": "a", "answer": "b"}]))
    assert "its columns (answer, question) are those of no known format" in str(finding.message)
    assert "alpaca (instruction, output)" in str(finding.fix)


ANSWERS = "sft or ppo or grpo or distill"


@pytest.mark.parametrize(("row", "stages"), [
    (ALPACA[0], ANSWERS), (OPENAI[0], ANSWERS), (TRL[0], ANSWERS), ({"text": "t"}, "pt"),
    (OPENAI[0] | {"label": True}, "kto"), (TRL[0] | {"label": False}, "kto"), (ALPACA[0] | {"kto_tag": True}, "kto"),
    ({"conversations": SHAREGPT[0]["conversations"][:1], "chosen": {}, "rejected": {}}, "rm or dpo"),
    ({"prompt": "p", "chosen": "a", "rejected": "b"}, "rm or dpo"),
], ids=str)
def test_data_of_another_stage(tmp_path: Path, row: dict[str, Any], stages: str) -> None:
    """A data set is for the stage that its columns say; every other one refuses it once, and names those it is for."""
    path = save(tmp_path / "rows.json", [row] * 3)
    for stage in {"pt", "sft", "rm", "dpo", "kto"} - set(stages.split(" or ")):
        (finding,) = refused(path, stage=stage)
        assert (finding.id, finding.where) == ("wrong-stage", f"{path} row 1")
        assert f"It is for stage {stages};" in str(finding.fix) and f"stage {stage} learns" in str(finding.message)


def test_a_label_that_is_no_judgement(tmp_path: Path) -> None:
    """`label` is KTO's where it is true or false. A class (`chemistry`, 0, 1) is passed over; dataset_info.json can
    have a judgement passed over too."""
    for label in ("chemistry", 1):
        named = [row | {"label": label} for row in OPENAI]
        assert said(load(save(tmp_path / "named.json", named))) == TALKS
    labelled = [row | {"label": good} for row, good in zip(OPENAI, (True, False), strict=True)]
    assert said(load("mine", **register(tmp_path, labelled, formatting="openai"))) == TALKS


