"""The Data tab: whatever somebody brings is read or told apart in words, and becomes a data set that truetune and
LLaMA-Factory read; dataset_info.json is written without harm to what others typed."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra 'web' is not installed")



from truetune.data.derive import as_messages, fill_file, placeholders, split_file
from truetune.data.describe import Description, described_as
from truetune.data.incoming import bring, bring_text
from truetune.data.listing import list_sets
from truetune.data.registry import Registry, check_name, name_for, parse_object
from truetune.data.sources import find_sources
from truetune.data.survey import Look, first_look, survey
from truetune.findings import Problem
from truetune.options.read import read_config
from truetune.web.data.view import columns_html, rows_html, sets_html
from truetune.web.roots import Roots

DATA = Path(__file__).resolve().parents[2] / "data"


def pasted(text: str, tmp_path: Path) -> Look:
    """The first look at text that somebody pasted."""
    return first_look([bring_text(text, tmp_path).path])


# ── What people bring ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("text", "entry"), [
    ("instruction\toutput\nHi\tHello\n", {"columns": {"prompt": "instruction", "response": "output"}}),
    ("question,answer\nHi,Hello\n", {"columns": {"prompt": "question", "response": "answer"}}),
    ("问题,回答\n你好,你好！\n", {"columns": {"prompt": "问题", "response": "回答"}}),
    ("A line, with a comma.\nAnother line.\n", {"columns": {"prompt": "text"}}),
    ('{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}',
     {"formatting": "openai"}),
    ('[{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}]',
     {"formatting": "sharegpt"}),
    ('{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}',
     {"ranking": True, "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}}),
    ('{"instruction": "Hi", "output": "Hello", "label": true}',
     {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "label"}}),
    ('{\n "version": 1,\n "data": [\n{"q": "1?", "a": "1"},\n{"q": "2?", "a": "2"}\n]\n}',
     {"columns": {"prompt": "q", "response": "a"}}),
    ('[{"talk": [{"speaker": "customer", "text": "Hi"}, {"speaker": "agent", "text": "Hello"}]}]',
     {"formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": {
         "role_tag": "speaker", "content_tag": "text", "user_tag": "customer", "assistant_tag": "agent"}}),
])
def test_pasted_text_is_recognised_and_described(text: str, entry: dict[str, Any], tmp_path: Path):
    """Every shape in which people keep their data becomes an entry of dataset_info.json without a word from them."""
    look = pasted(text, tmp_path)
    assert look.description and look.description.entry("f") == {"file_name": "f", **entry}
    assert look.rows and not look.refused


def test_one_bad_line_does_not_spoil_the_file(tmp_path: Path):
    """It is named with its line and the reason, and the rows around it are there."""
    look = pasted('{"q": "1?", "a": "1"}\n{broken\n{"q": "", "a": "2"}\n{"q": "3?", "a": "3"}\n', tmp_path)
    assert len(look.rows) == 2
    assert [(str(row.place), row.id) for row in look.refused] == [("pasted.jsonl:2", "bad-json"),
                                                                  ("pasted.jsonl:3", "bad-row")]
    table = pasted("q,a\n1?,1\n2?,2\n", tmp_path)
    assert len(table.rows) == 2


def test_known_columns_with_something_else_in_them_are_guessed_anew(tmp_path: Path):
    """`messages` whose turns have a speaker and a text is read as that, and not refused row by row."""
    look = pasted('[{"messages": [{"speaker": "user", "text": "Hi"}, {"speaker": "bot", "text": "Yes"}]}]', tmp_path)
    assert look.sure == "guessed" and len(look.rows) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_older_encodings_are_read(encoding: str, tmp_path: Path):
    """What a spreadsheet saves in Chinese is read, and what was taken for its encoding is said."""
    file = tmp_path / "表.csv"
    file.write_text("问题,回答\n你是谁？,我是助手。\n", encoding=encoding)
    (tmp_path / "own").mkdir()
    brought = bring(file, tmp_path / "own")
    look = first_look([brought.path])
    assert look.rows[0].messages[1].content == "我是助手。"  # pyright: ignore[reportAttributeAccessIssue]
    assert bool(brought.notes) == (encoding in ("gb18030", "utf-16"))


@pytest.mark.parametrize(("name", "content", "fix"), [
    ("a.xlsx", b"PK\x03\x04....", "CSV UTF-8"), ("a.xls", b"\xd0\xcf\x11\xe0....", "CSV UTF-8"),
    ("a.pdf", b"%PDF-1.7", "paste"), ("a.json", b"", ""), ("a.jsonl", gzip.compress(b"{}", mtime=0), ".jsonl.gz"),
    ("a.exe", b"MZ......", "Save it as"), ("a.txt", b"\x81\x20\xff\xff\x00", "encoding"),
])
def test_other_files_are_refused_with_the_way_out(name: str, content: bytes, fix: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Problem) as told:
        bring(tmp_path / name, tmp_path)
    assert fix in told.value.findings[0].line()


def test_turns_in_prompt_and_chosen_are_written_as_messages(tmp_path: Path):
    """dataset_info.json cannot describe TRL's turns; as `messages` they say the same."""
    text = json.dumps({"prompt": [{"role": "user", "content": "Hi"}],
                       "chosen": [{"role": "assistant", "content": "Hello"}],
                       "rejected": [{"role": "assistant", "content": "No"}]})
    look = pasted(text, tmp_path)
    assert look.description is None
    rewritten = pasted(json.dumps(as_messages(look.rows[0])), tmp_path)
    assert rewritten.description and rewritten.description.entry("f")["formatting"] == "openai"
    assert [row.chosen.messages for row in rewritten.rows] == [row.chosen.messages for row in look.rows]  # type: ignore


@pytest.mark.parametrize("name", list(json.loads((DATA / "dataset_info.json").read_text(encoding="utf-8"))))
def test_an_entry_we_write_reads_the_same_rows(name: str, tmp_path: Path):
    """Of every sample file: what the Data tab would write for it reads the rows that its own entry reads."""
    (one,) = [found for found in list_sets(DATA, Path) if found.name == name]
    look = first_look(one.paths)
    assert look.description and one.look
    assert look.rows == one.look.rows and not look.refused
    assert look.description.entry(one.file).keys() <= {"file_name", "formatting", "ranking", "columns", "tags"}


# ── dataset_info.json ────────────────────────────────────────────────────────────────────────────────────────────────

TYPED = '{\n    "a":   {"file_name": "a.json", "num_samples": 1.0e2},\n    "乙": {\n\t"file_name": "b.json" }\n}\n'
"""As a person might have typed it: spacing, a number and Chinese that json.dumps would change."""


def test_other_entries_keep_every_letter(tmp_path: Path):
    registry = Registry(tmp_path)
    registry.path.write_text(TYPED, encoding="utf-8")
    registry.put("new", {"file_name": "n.json"})
    assert registry.text().startswith(TYPED[:-3]) and registry.entries()["new"] == {"file_name": "n.json"}
    registry.put("new", {"file_name": "m.json"})
    registry.rename("new", "newer")
    registry.remove("newer")
    assert registry.text() == TYPED
    registry.remove("a")
    assert registry.text() == '{\n    "乙": {\n\t"file_name": "b.json" }\n}\n'
    assert (tmp_path / "dataset_info.json.bak").read_text(encoding="utf-8") == TYPED


def test_two_pages_that_write_at_once_lose_nothing(tmp_path: Path):
    registry = Registry(tmp_path)
    writers = [threading.Thread(target=registry.put, args=(f"d{number}", {"file_name": f"{number}.json"}))
               for number in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(registry.entries()) == 12


def test_a_slip_is_told_with_its_line_and_not_written_over(tmp_path: Path):
    registry = Registry(tmp_path)
    registry.path.write_text('{\n "a": {"file_name": "a.json"},\n}\n', encoding="utf-8")
    with pytest.raises(Problem, match=r"dataset_info\.json:3"):
        registry.put("b", {"file_name": "b.json"})
    assert '"b"' not in registry.text()
    with pytest.raises(Problem, match="entry:2"):
        parse_object('{\n"file_name" "x"}', "entry")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "/etc/passwd", "a b", "a,b", ".hidden", "a\n", "x" * 99,
                                  "a;rm -rf"])
def test_names_that_would_be_something_else_are_refused(name: str):
    with pytest.raises(Problem):
        check_name(name)
    check_name(name_for(name))


def test_entries_outside_of_the_roots_are_not_read(tmp_path: Path):
    """An entry may name any file; the page reads those in its folders only, links followed."""
    (tmp_path / "secret.json").write_text('[{"instruction": "a", "output": "b"}]', encoding="utf-8")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    registry = Registry(folder)
    for number, file in enumerate(["../secret.json", str(tmp_path / "secret.json"), "link.json"]):
        registry.put(f"d{number}", {"file_name": file})
    for one in list_sets(folder, lambda path: Roots([folder]).inside(path)):
        assert one.look is None and "outside" in [finding.id for finding in one.findings]


# ── Made of a data set ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_blanks_of_the_identity_data_are_filled(tmp_path: Path):
    identity = DATA / "identity.json"
    target = tmp_path / "mine.json"
    assert fill_file(identity, target, {"name": "Quill", "author": "Inkwell Labs"}) == 96
    rows = json.loads(target.read_text(encoding="utf-8"))
    assert not placeholders(rows) and "I am Quill, an AI assistant developed by Inkwell Labs." in str(rows)


def test_what_is_held_out_is_never_trained_on(tmp_path: Path):
    """Equal rows go to the same side, and none is lost."""
    rows = [{"instruction": str(number % 40), "output": "x"} for number in range(100)]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    train, held = tmp_path / "t.json", tmp_path / "v.json"
    sizes = split_file(tmp_path / "a.json", train, held, 0.1, seed=3)
    parts = [{row["instruction"] for row in json.loads(file.read_text(encoding="utf-8"))} for file in (train, held)]
    assert sum(sizes) == 100 and 10 <= sizes[1] <= 13 and not parts[0] & parts[1]


def test_statistics_are_those_counted_by_hand(tmp_path: Path):
    pairs = [("Hi", "Hello there"), ("Hi", "Hello there"), ("Hi", "你好，很高兴见到你"), ("", "x")]
    rows = [{"instruction": asked, "output": answered} for asked, answered in pairs]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    file = tmp_path / "a.json"
    layout = Description("alpaca", {"prompt": "instruction", "response": "output"}).layout()
    found = survey([file], None, layout, lambda words: None)
    assert (found.rows, found.good, found.repeated, found.differing) == (4, 3, 1, 1)
    assert found.letters.longest == 13 and found.frequent == (2, "Hello there")
    assert {script.en: count for script, count in found.scripts.items()} == {"Latin letters": 2, "Chinese": 1}


def test_whatever_stands_in_the_data_is_shown_as_text(tmp_path: Path):
    """Names, columns and rows are escaped: a row that holds a script is text like any other."""
    evil = "<img src=x onerror=alert(1)>"
    look = pasted(json.dumps({"instruction": evil, "output": evil, evil: evil}), tmp_path)
    Registry(tmp_path).path.write_text(json.dumps({evil: {"file_name": evil}}), encoding="utf-8")
    shown = [rows_html(look.rows, "en"), columns_html(look.columns, look.description, "zh"),
             sets_html(list_sets(tmp_path, Path), evil, "en")]
    for html in shown:
        assert "<img" not in html and "&lt;img" in html


def test_a_layout_said_by_hand_is_the_one_written(tmp_path: Path):
    """described_as gives back what the entry says, tags and all."""
    entry = {"file_name": "a", "formatting": "sharegpt", "columns": {"messages": "talk"},
             "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "U", "assistant_tag": "A"}}
    (tmp_path / "a.json").write_text('[{"talk": [{"who": "U", "what": "x"}, {"who": "A", "what": "y"}]}]',
                                     encoding="utf-8")
    Registry(tmp_path).put("set", {**entry, "file_name": "a.json"})
    config, _ = read_config([f"--dataset_dir={tmp_path}"])
    (source,) = find_sources(["set"], config, "dataset")
    assert source.layout and described_as(source.layout).entry("a") == entry


# ── In the browser ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_story_of_a_newcomer(page_server: Any, tab: Any):
    """Paste a table, see it understood, add it; then fill the blanks of the identity data and train on them."""
    shutil.copytree(DATA, page_server.folder / "data", dirs_exist_ok=True)
    page = tab.page
    tab.choose("Data")
    page.locator("#data-parts").get_by_role("tab", name="Add your own data").click()
    page.locator("#data-ways").get_by_role("tab", name="Paste text").click()
    page.locator("#data-paste textarea").fill("question\tanswer\nWho?\tMe.\n\tNobody asked.\nWhy?\tSo.\n")
    page.locator("#data-paste-read").click()
    page.locator("#data-preview .tt-row").nth(1).wait_for()
    assert "pasted.csv:3" in page.locator("#data-bad").inner_text()
    page.locator("#data-name textarea, #data-name input").first.fill("my_questions")
    page.locator("#data-add").click()
    page.locator('#data-sets tr.tt-chosen [data-set="my_questions"]').wait_for()
    assert "left out" in tab.message()
    lines = (page_server.folder / "data" / "my_questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["question"] for line in lines] == ["Who?", "Why?"]
    page.locator('[data-set="identity"]').click()
    for number, word in enumerate(("Quill", "Inkwell Labs")):
        page.locator(f"#data-blank-{number}").locator("textarea, input").fill(word)
    page.get_by_text("I am Quill, an AI assistant developed by Inkwell Labs.").first.wait_for()
    page.locator("#data-fill-save").click()
    page.locator('#data-sets tr.tt-chosen [data-set="my_identity"]').wait_for()
    tab.message()
    page.locator("#data-train").click()
    page.locator("#option-dataset").wait_for()
    page.wait_for_function("document.querySelector('#field-dataset').innerHTML.includes('my_identity') || "
                           "[...document.querySelectorAll('#field-dataset input, #field-dataset textarea')]"
                           ".some(field => field.value.includes('my_identity'))")
