"""`truetune data` as people use it: what `show` tells of a row is what is in the store, `build` builds once, `diff`
finds what differs. Most tests call `main` in this process, which spares them the seconds of importing torch."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from conftest import Truetune

from truetune.cli import main
from truetune.report import Terminal

Here = Callable[..., tuple[int, str, str]]
EMOJI = "🤷🏽‍♂️"
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Say <|im_end|> {EMOJI} <script>"},
     {"role": "assistant", "content": "Half.", "weight": 0.5}, {"role": "user", "content": "user"},
     {"role": "assistant", "content": "Whole."}],
    [{"role": "user", "content": "And this?"}, {"role": "assistant", "content": "A longer answer, with more words."}],
    [{"role": "user", "content": "Third?"}, {"role": "assistant", "content": "Yes."}],
]


@pytest.fixture
def here(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """`truetune data …` in `tmp_path` with a cache of its own: status, what it says, and its errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words: str) -> tuple[int, str, str]:
        status = main(["data", *words])
        said, errors = capsys.readouterr()
        return status, said, errors

    return call


@pytest.fixture
def run_yaml(tmp_path: Path, tiny: Path) -> Callable[..., str]:
    """Write a run.yaml over rows: `run_yaml("a", rows, cutoff_len=40)` → `a.yaml`, with its rows in `a.jsonl`."""

    def write(name: str, rows: list[Any], **options: object) -> str:
        lines = [json.dumps({"messages": row} if isinstance(row, list) else row) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        options = {"model_name_or_path": str(tiny), "dataset": f"{name}.jsonl", **options}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(options), encoding="utf-8")
        return f"{name}.yaml"

    return write


def pieces(row: dict[str, Any]) -> list[tuple[str | None, float, str]]:
    """(role, weight, text) of every piece of a row in `show --json`."""
    return [(piece["role"], piece["weight"], piece["text"]) for part in row["parts"] for piece in part["pieces"]]


def spoken(row: dict[str, Any]) -> list[tuple[str, float, str]]:
    """The same without what the template writes."""
    return [(role, weight, text) for role, weight, text in pieces(row) if role]


def ids(row: dict[str, Any]) -> list[int]:
    return [number for part in row["parts"] for piece in part["pieces"] for _, numbers in piece["tokens"]
            for number in numbers]


# ---------------------------------------------------------------------------------------------------------------- show


def test_show_says_who_speaks_what_is_learned_and_what_it_counts(here, run_yaml):
    """One row, piece by piece, written down by hand. Role words and line feeds are the template's (role null)."""
    status, said, _ = here("show", run_yaml("a", CHATS), "--json", "-n", "1")
    shown = json.loads(said)
    (row,) = shown["rows"]
    assert (status, shown["status"], row["where"], row["kind"]) == (0, "ok", "a.jsonl:1", "conversations")
    start, end, line = (None, 0.0, "<|im_start|>"), (None, 0.0, "<|im_end|>"), (None, 0.0, "\n")
    assert pieces(row) == [
        start, (None, 0.0, "system\n"), ("system", 0.0, "Be kind."), end, line,
        start, (None, 0.0, "user\n"), ("user", 0.0, f"Say <|im_end|> {EMOJI} <script>"), end, line,
        start, (None, 0.0, "assistant\n"), ("assistant", 0.5, "Half."), ("assistant", 0.5, "<|im_end|>"), line,
        start, (None, 0.0, "user\n"), ("user", 0.0, "user"), end, line,
        start, (None, 0.0, "assistant\n"), ("assistant", 1.0, "Whole."), ("assistant", 1.0, "<|im_end|>"), line]
    ends = [piece["text"] for part in row["parts"] for piece in part["pieces"] if piece["end_of_turn"]]
    assert ends == ["<|im_end|>"] * 2
    assert row["learned"] == sum(len(numbers) for part in row["parts"] for piece in part["pieces"] if piece["learned"]
                                 for _, numbers in piece["tokens"])


def test_the_ids_shown_are_those_of_the_tokenizer(here, run_yaml, tokenizer):
    """Row 2 and 3, which hold no special words, as `apply_chat_template` renders them."""
    shown = json.loads(here("show", run_yaml("a", CHATS), "--json")[1])
    for row, chat in zip(shown["rows"][1:], CHATS[1:], strict=True):
        assert ids(row) == tokenizer.apply_chat_template(chat, return_dict=False)
        assert row["tokens"] == len(ids(row))


def test_words_of_people_are_no_special_tokens_and_characters_stay_whole(here, run_yaml, tokenizer):
    """`<|im_end|>` that a user typed is several plain tokens; an emoji over several tokens is shown as itself."""
    (row,) = json.loads(here("show", run_yaml("a", CHATS), "--json", "-n=1")[1])["rows"]
    (typed,) = [piece for part in row["parts"] for piece in part["pieces"] if "<script>" in piece["text"]]
    assert not typed["special"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in [number for _, found in typed["tokens"]
                                                                 for number in found]
    assert "\ufffd" not in json.dumps(row, ensure_ascii=False)
    assert any(len(numbers) > 1 and text.strip() in EMOJI for text, numbers in typed["tokens"] if text.strip())


def test_roles_where_a_template_moves_the_system_message(tokenizer):
    """Gemma's way: what the system says stands inside the user's first turn. Each keeps its name, although the words
    `user` and `model` also stand in the template."""
    template = ("{% for m in messages %}{% if m.role == 'system' %}{% elif m.role == 'user' %}<|im_start|>user\n"
                "{% if loop.index0 == 1 and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
                "{{ m.content | trim }}<|im_end|>\n{% else %}<|im_start|>model\n{{ m.content }}<|im_end|>\n{% endif %}"
                "{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}")
    (row,) = previews(tokenizer, template, [("system", "user rules"), ("user", " model "), ("assistant", "user")])
    assert spoken(row) == [("system", 0.0, "user rules"), ("user", 0.0, "model"), ("assistant", 1.0, "user"),
                           ("assistant", 1.0, "<|im_end|>")]


def test_roles_where_a_template_rewrites_earlier_answers(tokenizer):
    """A thought is taken out once more turns follow, so the row becomes two. In the second the earlier answer is still
    the assistant's, and not learned."""
    template = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}"
                "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
                "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    first, second = previews(tokenizer, template, [("user", "A?"), ("assistant", "<think>hm</think>A."),
                                                   ("user", "B?"), ("assistant", "B.")])
    assert spoken(first) == [("user", 0.0, "A?"), ("assistant", 1.0, "<think>hm</think>A."),
                             ("assistant", 1.0, "<|im_end|>")]
    assert spoken(second) == [("user", 0.0, "A?"), ("assistant", 0.0, "A."), ("user", 0.0, "B?"),
                              ("assistant", 1.0, "B."), ("assistant", 1.0, "<|im_end|>")]


def previews(tokenizer: Any, template: str, turns: list[tuple[Any, str]]) -> list[dict[str, Any]]:
    """The previews of one conversation under another chat template."""
    from truetune.data.messages import Conversation, Message
    from truetune.data.renderer import Renderer
    from truetune.look.preview import preview

    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    renderer, talk = Renderer(other), Conversation(tuple(Message(role, words) for role, words in turns))
    (sequences,) = renderer.render([talk])
    assert isinstance(sequences, tuple)
    return [preview([each], talk, renderer, "conversations", 2048, "drop").as_dict() for each in sequences]


def test_pairs_share_their_prompt_and_judged_answers_have_a_label(here, run_yaml):
    """stage dpo: the prompt is shown once, then both answers; stage kto: whether the answer was found good. Neither is
    trained yet, both can be looked at."""
    pair = {"instruction": "Best?", "input": "", "chosen": "Good one.", "rejected": "Bad."}
    (row,) = json.loads(here("show", run_yaml("pairs", [pair], stage="dpo"), "--json")[1])["rows"]
    assert [part["name"] for part in row["parts"]] == ["prompt", "chosen", "rejected"]
    assert spoken(row) == [("user", 0.0, "Best?"), ("assistant", 1.0, "Good one."), ("assistant", 1.0, "<|im_end|>"),
                           ("assistant", 1.0, "Bad."), ("assistant", 1.0, "<|im_end|>")]
    judged = [{"messages": CHATS[number], "label": bool(number == 1)} for number in (1, 2)]
    rows = json.loads(here("show", run_yaml("kto", judged, stage="kto"), "--json")[1])["rows"]
    assert [row["label"] for row in rows] == [True, False]
    assert "judged bad" in here("show", "kto.yaml")[1]


def test_documents_are_shown_as_the_blocks_they_become(here, run_yaml, tmp_path):
    """stage pt: everything but the first token of a block is learned, and end-of-text stands between documents."""
    run_yaml("pt", [], stage="pt", dataset="texts.txt", cutoff_len=16)
    (tmp_path / "texts.txt").write_text("One short text.\nAnother text.\n", encoding="utf-8")
    (row,) = json.loads(here("show", "pt.yaml", "--json", "-n", "5")[1])["rows"]
    assert (row["kind"], row["tokens"] - row["learned"], {role for role, _, _ in pieces(row)}) == (
        "documents", 1, {"document"})
    assert "".join(text for _, _, text in pieces(row)) == "One short text.<|im_end|>Another text.<|im_end|>"


def test_a_cut_row_still_says_who_speaks(here, run_yaml):
    """truncate takes tokens from the middle; what is left keeps its role, and the row says that it was cut."""
    run_yaml("cut", [[{"role": "system", "content": "S"}, {"role": "user", "content": "word " * 30},
                      {"role": "assistant", "content": "reply " * 30}]], cutoff_len=32, overlong="truncate")
    (row,) = json.loads(here("show", "cut.yaml", "--json")[1])["rows"]
    assert row["tokens"] == 32 and row["notes"] == ["part of this row was cut off at cutoff_len"]
    assert [(role, set(text.split())) for role, _, text in spoken(row)] == [
        ("system", {"S"}), ("user", {"word"}), ("assistant", {"reply"})]
    assert not any(piece["end_of_turn"] for piece in row["parts"][0]["pieces"])


def test_packs_show_their_rows_and_how_full_they_are(here, run_yaml):
    """packing: rows share packs of cutoff_len tokens."""
    shown = json.loads(here("show", run_yaml("p", CHATS[1:], packing=True, cutoff_len=100), "--json")[1])
    (pack,) = shown["packs"]
    assert not shown["rows"] and {row["where"] for row in pack["rows"]} == {"p.jsonl:1", "p.jsonl:2"}
    assert pack["limit"] == 100 and pack["tokens"] == sum(row["tokens"] for row in pack["rows"])
    assert f"Pack 1: 2 rows, {pack['tokens']} of 100 tokens ({pack['tokens']} % full)" in here("show", "p.yaml")[1]


def test_what_was_left_out_is_named_and_lengths_are_counted(here, run_yaml, tokenizer):
    """A row without a question is refused, one that is too long dropped; the histogram counts all that could be
    rendered."""
    empty = [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}]
    status, said, _ = here("show", run_yaml("a", [*CHATS, empty], on_bad_row="drop", cutoff_len=45), "--json")
    shown = json.loads(said)
    assert (status, shown["status"]) == (0, "warn")
    dropped, lengths = shown["dropped"], shown["lengths"]
    assert dropped["refused"] == [{"where": "a.jsonl:4", "reason": "turn 1 (user) is empty",
                                   "reason_zh": "第 1 条消息（user）是空的"}]
    assert (dropped["overlong"], dropped["overlong_dropped"]) == (["a.jsonl:1"], 1)
    assert sum(bar["rows"] for bar in lengths["histogram"]) == lengths["rows"] == 3
    known = sorted(len(tokenizer.apply_chat_template(chat, return_dict=False)) for chat in CHATS[1:])
    assert lengths["median"] == known[1] and lengths["longest"] == lengths["keeps_995"] > 45 and lengths["longer"] == 1
    said = here("show", "a.yaml")[1]
    assert "a.jsonl:4  turn 1 (user) is empty" in said and "◄ cutoff_len 45" in said


def test_one_row_by_its_place(here, run_yaml, tmp_path):
    """`--row file:line`; the end of the path is enough."""
    run_yaml("a", CHATS, dataset=str(tmp_path / "a.jsonl"))
    for place in ("a.jsonl:3", f"{tmp_path}/a.jsonl:3"):
        (row,) = json.loads(here("show", "a.yaml", "--row", place, "--json")[1])["rows"]
        assert row["where"] == f"{tmp_path}/a.jsonl:3" and "Third?" in str(row)


def test_a_stream_is_shown_as_it_comes(here, run_yaml):
    """streaming keeps nothing, and its first rows can be looked at all the same, with who speaks."""
    rows = json.loads(here("show", run_yaml("s", CHATS, streaming=True, max_steps=4), "--json")[1])["rows"]
    assert {row["where"] for row in rows} <= {f"s.jsonl:{line}" for line in (1, 2, 3)} and len(rows) == 3
    assert all("user" in dict((role, text) for role, _, text in spoken(row)) for row in rows)


@pytest.mark.parametrize("options", [{}, {"max_steps": 1}, {"stage": "dpo"}], ids=str)
def test_a_stream_is_shown_however_much_of_it_is_trained_on(here, run_yaml, options):
    """Its first 1,000 rows are looked at: without max_steps, or where a step takes fewer rows than are asked for."""
    pair = {"instruction": "Best?", "input": "", "chosen": "Good one.", "rejected": "Bad."}
    rows = [pair] if "stage" in options else CHATS
    status, said, _ = here("show", run_yaml("s", rows, streaming=True, buffer_size=1, **options), "-n", "20")
    what = "1,000 answers with prompt" if "stage" in options else "1,000 rows"
    assert status == 0 and len(re.findall(r"(?m)^s\.jsonl:\d  ", said)) == 20
    assert f"Tokens of the first {what} of a stream, as they are trained on: " in said and "All fit" not in said


def test_check_counts_the_first_rows_of_a_stream(run_yaml, tmp_path, monkeypatch, capsys):
    """How long an epoch of a stream is, nobody knows."""
    monkeypatch.chdir(tmp_path)
    assert main(["check", run_yaml("s", CHATS, streaming=True, max_steps=30, output_dir="out")]) == 0
    said = capsys.readouterr()[0]
    assert "a stream, of which the first 1,000 rows are looked at" in said and "an epoch" not in said
    assert re.search(r"optimizer steps +30 in all; each learns from 8 rows", said)


NO_END = ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
          "{% if add_generation_prompt %}assistant: {% endif %}")
"""A chat template without end-of-turn tokens, whose prompt ends in a space."""


@pytest.fixture
def talkative(tmp_path: Path, tiny: Path, tokenizer: Any) -> str:
    """A folder with a model of this template."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = NO_END
    other.save_pretrained(tmp_path / "talkative")
    shutil.copy(tiny / "config.json", tmp_path / "talkative")
    return "talkative"


def test_findings_about_rows_are_told_wherever_rows_are_looked_at(here, run_yaml, talkative):
    """An answer without an end, and white space that chat would send as other tokens: `show` and `build` tell them
    like `check` does, and `show` notes them at the row."""
    run_yaml("a", CHATS[1:], model_name_or_path=talkative)
    shown = json.loads(here("show", "a.yaml", "--json")[1])
    assert {"no-end-of-turn", "drift"} <= {finding["id"] for finding in shown["findings"]}
    assert shown["rows"][0]["notes"] == [
        "an answer has no end-of-turn token: the model does not learn to stop here",
        "the white space between prompt and answer becomes other tokens than in the prompt alone"]
    said = here("build", "a.yaml")[1]
    assert "in 2 of 2 rows the answer has no end-of-turn token" in said and "in 2 of 2 rows the white space" in said


def test_data_without_thoughts_for_a_model_that_thinks_is_told(here, run_yaml):
    """It would learn to think nothing."""
    assert "no answer holds a thought" in here("show", run_yaml("a", CHATS[1:], template="qwen3"))[1]


def test_the_last_rows_are_gone(here, run_yaml):
    """Whether they were wrong or too long is said, and the status is 1. `--row` says it of one row."""
    bad = [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}]
    run_yaml("a", [bad, CHATS[0]], on_bad_row="drop", cutoff_len=45)
    for verb in ("show", "build"):
        status, said, errors = here(verb, "a.yaml")
        (line,) = [line for line in (said + errors).splitlines() if line.startswith("error")]
        assert status == 1 and "no row is left to learn from: 1 " in line and " 1 " in line.partition("from: 1 ")[2]
    assert "a.jsonl:1 is not learned from: turn 1 (user) is empty" in here("show", "a.yaml", "--row", "a.jsonl:1")[2]


def test_numbers_agree_with_their_words_and_with_one_another(here, run_yaml):
    """One row is no `rows`. What a pair learns is counted for both its answers, in the row and in the sum. Between rows
    stands one empty line."""
    pair = {"instruction": "Best?", "input": "", "chosen": "Good one.", "rejected": "Bad."}
    said = here("show", run_yaml("pairs", [pair], stage="dpo"))[1]
    learned = re.search(r"pairs.jsonl:1  \d+ tokens, (\d+) of them learned", said)
    assert learned and f"Learned tokens: {learned[1]} a pair, both answers together (median)" in said
    assert "Tokens of 2 answers with prompt, before" in said
    said = here("show", run_yaml("one", CHATS[1:2]))[1]
    assert "Tokens of 1 row, before" in said and "1 rows" not in said
    said = here("show", run_yaml("three", CHATS, cutoff_len=45))[1]
    assert "\n\n\n" not in said and "⟧\n\nthree.jsonl:3" in said
    assert said.count("all of them whole") == 1 and "99.5" not in said


def test_on_the_console_colour_says_who_and_brackets_stand_in_for_it(here, run_yaml):
    """Without colour what is learned stands in brackets, with its weight; --ids puts each token's id below."""
    said = here("show", run_yaml("a", CHATS), "--ids")[1]
    assert "⟦0.5×Half.<|im_end|>⟧" in said and "⟦Whole.<|im_end|>⟧" in said and "user·4093  ↵·198" in said
    assert "Learned tokens:" in said


def test_colour_on_a_terminal(tokenizer):
    """Green and underlined is learned; control characters in the data do not reach the terminal."""
    from truetune.data.messages import Conversation, Message
    from truetune.data.renderer import Renderer
    from truetune.look.preview import preview
    from truetune.report import print_rows

    talk = Conversation((Message("user", "Red \x1b[31m"), Message("assistant", "Green")))
    renderer = Renderer(tokenizer)
    (sequences,) = renderer.render([talk])
    assert isinstance(sequences, tuple)
    screen = StringIO()
    console = Terminal(file=screen, force_terminal=True, color_system="standard", width=100, highlight=False)
    print_rows([preview(sequences, talk, renderer, "conversations", 2048, "drop")], console)
    assert "\x1b[4;32mGreen\x1b[0m\x1b[4;7;32m<|im_end|>" in screen.getvalue()
    assert "\x1b[36mRed ␛[31m\x1b[0m" in screen.getvalue() and "⟦" not in screen.getvalue()


class _Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_escapes_what_stands_in_the_data(here, run_yaml, tmp_path):
    """Words of a row, its place and the reason of a refusal are text, never tags. Nothing is loaded from elsewhere."""
    bad = [{"role": "<img src=x>", "content": "x"}]
    run_yaml("a", [*CHATS, bad], on_bad_row="drop")
    status, said, _ = here("show", "a.yaml", "--html", "page.html")
    assert status == 0 and said.endswith("written to page.html\n")
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = _Page(source)
    assert not {"script", "img", "link", "iframe"} & set(page.tags) and "http" not in source
    assert "script" in page.text and "<img src=x>" in page.text and EMOJI[0] in page.text
    assert "&lt;|im_start|&gt;" in source and "<|" not in source
    assert "回合结束符" in page.text and "prefers-color-scheme: dark" in source and 'name="viewport"' in source


# ------------------------------------------------------------------------------------------------------- build and diff


def test_a_store_is_built_once(here, run_yaml):
    """The second time it is found; another setting makes another one."""
    run_yaml("a", CHATS)
    status, said, _ = here("build", "a.yaml")
    assert status == 0 and said.startswith("a.jsonl: 3 rows, ") and "made in" in said
    assert "kept since 2" in here("build", "a.yaml")[1]
    said = here("build", "a.yaml", "cutoff_len=45")[1]
    assert "2 rows, " in said and "1 row left out; made in" in said


def test_diff_of_the_same_and_of_other_settings(here, run_yaml):
    """A run.yaml and the folder its store is in hold the same; cutoff_len and the rows it costs are named."""
    run_yaml("a", CHATS)
    here("build", "a.yaml", "tokenized_path=one")
    here("build", "a.yaml", "tokenized_path=two", "cutoff_len=45")
    status, said, _ = here("diff", "a.yaml", "one")
    assert status == 0 and said.startswith("the same: 3 rows, ")
    status, said, _ = here("diff", "one", "two/a.jsonl")
    assert (status, said.splitlines()) == (1, [
        "setting     one   two/a.jsonl", "cutoff_len  2048  45", "", "Only in one: 1 row (a.jsonl:1)"])


def test_diff_finds_the_first_token_and_the_weight_that_differ(here, run_yaml):
    """A copy of the data with one word and one weight changed: the rows are found by their lines."""
    changed = json.loads(json.dumps(CHATS))
    changed[0][2]["weight"] = 0.25
    changed[2][1]["content"] = "No."
    status, said, _ = here("diff", run_yaml("a", CHATS), run_yaml("b", changed))
    assert status == 1 and "data (hash of the bytes)" in said and "2 rows of 3 differ" in said
    assert re.search(r"A  … .*⟦Half·\d+⟧ counts 0.5\n  B  … .*⟦Half·\d+⟧ counts 0.25\n", said)
    assert "assistant↵ ⟦Yes·" in said and "assistant↵ ⟦No·" in said


def test_diff_of_other_templates(here, run_yaml):
    """The template differs, and so do all rows."""
    run_yaml("a", CHATS)
    run_yaml("b", CHATS, dataset="a.jsonl", default_system="Other.")
    status, said, _ = here("diff", "a.yaml", "b.yaml")
    assert status == 1 and "chat template (hash)" in said and "2 rows of 3 differ" in said and "⟦Other·" in said


def test_stores_alone_are_compared_by_ids_and_with_a_model_as_text(here, run_yaml, tiny):
    """A store knows no tokenizer, so its ids stay numbers until a model is named."""
    here("build", run_yaml("a", CHATS), "tokenized_path=one")
    here("build", run_yaml("b", [*CHATS[:2], [CHATS[2][0], {"role": "assistant", "content": "No."}]]),
         "tokenized_path=two")
    assert "Third" not in here("diff", "one", "two")[1]
    assert "Third?" in here("diff", "one", "two", f"model_name_or_path={tiny}")[1]


# ---------------------------------------------------------------------------------------------------------- wrong words


@pytest.mark.parametrize(("words", "line"), [
    (["shw"], "error  data shw: unknown command. Did you mean show?\n"),
    (["show", "a.yaml", "-n", "0"], "error  -n: '0' is not a value it takes. It takes a whole number from 1 on.\n"),
    (["show", "a.yaml", "--html"], "error  --html: needs a value.\n"),
    (["show", "a.yaml", "--html", "none/page.html"], "error  none/page.html: cannot be written: No such file or "
     "directory.\n"),
    (["show", "a.yaml", "--row", "a.jsonl:99"], "error  --row: no row begins at a.jsonl:99. The nearest one begins at "
     "a.jsonl:3.\n"),
    (["show", "a.yaml", "--row", "b.jsonl:1"], "error  --row: no row begins at b.jsonl:1. Rows are named "
     "a.jsonl:N.\n"),
    (["show", "a.yaml", "--row", "a.jsonl:1", "cutoff_len=45"], "error  --row: a.jsonl:1 is not learned from: it is "
     "longer than cutoff_len.\n"),
    (["show", "a.yaml", "model_name_or_path=null"], "error  model_name_or_path: no model is named. "),
    (["build", "a.yaml", "streaming=true"], "error  streaming (command line): a stream is read while it is trained on, "
     "so there is nothing to build. Leave out streaming.\n"),
    (["diff", "a.yaml"], "error  data diff: two things to compare are needed. truetune data diff A B, "),
    (["diff", "a.yaml", "empty"], "error  empty: holds no token store. Name a run.yaml, "),
    (["diff", "a.yaml", "none"], "error  none: there is no such file or folder. Name a run.yaml, a run folder, a token "
     "store (a folder with store.json) or a tokenized_path.\n"),
    (["diff", "a.yaml", "a.jsonl"], "error  a.jsonl: is no file of options. Name a run.yaml, "),
    (["diff", "a.yaml", "none.yaml"], "error  none.yaml: there is no such file or folder. Name a run.yaml, "),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_slip_is_one_clear_line_and_status_2(here, run_yaml, tmp_path, words, line):
    run_yaml("a", CHATS)
    (tmp_path / "empty").mkdir()
    status, _, errors = here(*words)
    assert status == 2 and errors.startswith(line) and errors.count("\n") == 1


def test_a_bad_row_is_told_in_either_form(here, run_yaml):
    """Rows that cannot be learned from stop it with status 1, also as JSON."""
    run_yaml("a", [*CHATS, [{"role": "user", "content": "?"}]])
    status, said, errors = here("show", "a.yaml")
    assert (status, said) == (1, "") and errors.startswith("error  dataset (a.jsonl:4): the last turn is the user's")
    status, said, _ = here("show", "a.yaml", "--json")
    assert (status, json.loads(said)["status"]) == (1, "error")


def test_a_broken_store_is_named(here, run_yaml, tmp_path):
    """A shard that is gone."""
    here("build", run_yaml("a", CHATS), "tokenized_path=one")
    (tmp_path / "one" / "a.jsonl" / "00000.ids.npy").unlink()
    status, _, errors = here("diff", "one", "one")
    assert status == 1 and errors.startswith("error  one/a.jsonl: is not a store that can be read: ")


def test_help_in_both_languages_without_importing_anything_heavy():
    """`truetune data` alone says what it takes, and each of its words explains what is its own."""
    def said(*words: str) -> str:
        code = ("import sys; from truetune.cli import main; main(sys.argv[1:]); "
                "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)")
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, encoding="utf-8",
                              check=True).stdout

    for words in (("data",), ("data", "--help")):
        assert all(f"\n  {word} " in said(*words, "--lang", "en") for word in ("build", "show", "diff"))
    assert "以 JSON 输出" in said("data", "show", "--help", "--lang", "zh")
    english = said("data", "show", "--help", "--lang", "en")
    assert "--row a.json:12" in english and "--cutoff_len" in english and "--learning_rate" not in english


def test_in_a_process_of_its_own(truetune: Truetune, run_yaml, tmp_path):
    """The exit status is the process's own, and the cache is where XDG_CACHE_HOME says."""
    run_yaml("a", CHATS)
    done = truetune("data", "diff", "a.yaml", "a.yaml", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("the same: 3 rows")
    assert len([*(tmp_path / "cache" / "truetune" / "tokens").glob("*/store.json")]) == 1
