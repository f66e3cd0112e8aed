"""The data part of a check: what is counted, what is doubtful, and that good data stay quiet. Each wrong thing stands
beside its right one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
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
from truetune.data.template import make_renderer, settle_template
from truetune.findings import Both, Finding, Problem, spoken
from truetune.model.find import load_tokenizer
from truetune.options import Config
from truetune.steps import Plan

Row = dict[str, Any]


@pytest.fixture(scope="module")
def renderer(bundled: Path) -> Renderer:
    """Of the real tokenizer, whose template is taught to write tools."""
    tokenizer, config = load_tokenizer(bundled), Config(tool_format="qwen")
    settle_template(tokenizer, config)
    return make_renderer(tokenizer, bundled, config)


@pytest.fixture
def load(renderer: Renderer, bundled: Path) -> Callable[..., tuple[Data, Config]]:
    """Data sets as a run reads them: `load(path, stage="dpo", most=500)`."""

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
    """Four rows of 18 + n tokens, of which n + 1 are learned (see test_check): 1, 4 and 10 words, and 4 words behind an
    exchange of 13 tokens, which teaches 2 more. So the lengths are 19, 22, 28 and 35; 2 + 5 + 11 + 7 are learned."""
    rows: list[Row] = [{"system": "S", "instruction": "Hi", "output": " ".join(["ha"] * count)} for count in (1, 4, 10)]
    rows.append({"system": "S", "instruction": "Hi", "output": "ha ha ha ha", "history": [["Hi", "ha"]]})
    section = check(save(tmp_path / "rows.jsonl", rows), cutoff_len=100)
    assert line(section, "rows") == "4 to train on"
    assert line(section, "tokens a row") == (
        "22 (half), 35 (95 %), 35 (99.5 %), 35 (longest); cutoff_len 100 | "
        "         █ █  █  █  0 to 36, 2 a bar")
    assert section.facts["lengths"] == {
        "p50": 22, "p95": 35, "p995": 35, "longest": 35, "cutoff_for_995": 64, "longer": 0, "bar": 2,
        "histogram": [0] * 9 + [1, 0, 1, 0, 0, 1, 0, 0, 1]}
    assert line(section, "learned") == "6 tokens of a row (median), 24 % of all; 25 an epoch"
    assert section.facts["learned"] == {"median": 6, "none": 0, "an_epoch": 25}
    assert line(section, "written in") == "Latin letters 100 %"
    assert line(section, "of the rows") == ("25 % with several answers (up to 2), 100 % with a system message "
                                            "(1 different)")
    assert line(section, "of the rows", chinese=True) == "25 % 含多轮回答（最多 2 轮），100 % 带系统提示（1 种）"


def test_good_data_stay_quiet(check: Any, tmp_path: Path) -> None:
    """Nothing is told of ordinary rows, in any stage; and what is told can be written as JSON."""
    pairs = [{"instruction": f"What is {n}?", "chosen": f"It is the number {n}.", "rejected": f"It is a letter, {n}."}
             for n in range(12)]
    judged = [{"instruction": f"What is {n}?", "output": f"It is the number {n}.", "kto_tag": n % 2 == 0}
              for n in range(12)]
    texts = [{"text": f"Number {n} comes before number {n + 1}, and so on."} for n in range(12)]
    for stage, rows in (("sft", good()), ("dpo", pairs), ("rm", pairs), ("kto", judged), ("pt", texts)):
        section = check(save(tmp_path / f"{stage}.jsonl", rows), stage=stage)
        assert section.findings == [], stage
        assert json.loads(json.dumps(section.facts)) == section.facts
        assert all(spoken(words, chinese) for _, words in section.lines for chinese in (True, False))


def test_several_sets_and_what_is_left_out(check: Any, tmp_path: Path) -> None:
    """A line for each data set; rows that cannot be learned from and rows that are too long are counted apart."""
    first = save(tmp_path / "a.jsonl", [*good(5), {"instruction": "no answer", "output": ""}])
    second = save(tmp_path / "b.jsonl", answers("word " * 300, "The answer, in a sentence.", ask="Once more {n}?"))
    section = check(first, second, on_bad_row="drop", cutoff_len=100)
    assert line(section, "rows") == f"6 to train on | {first}: 6 rows | {second}: 2 rows"
    assert line(section, "left out") == "1 that cannot be learned from, 1 longer than cutoff_len 100"
    assert [(found["read"], found["refused"], found["dropped"]) for found in section.facts["sets"]] == [
        (6, 1, 0), (2, 0, 1)]


# ------------------------------------------------------------------------------------------------------------ lengths


def test_histogram_by_hand() -> None:
    """Bars from 0 on; the highest has eight eighths, one row is never invisible, what is beyond 99.5 % is last."""
    bars, width = histogram(np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 3]))
    assert (bars, width) == ("█▄ ▁", 1)
    bars, width = histogram(np.array([1] * 998 + [64, 9000]))
    assert (len(bars), width) == (32, 1) and bars[1] == "█" and bars[31] == "▁" and bars[2:31].isspace()


def test_what_cutoff_len_would_do(check: Any, tmp_path: Path) -> None:
    """Too short: what keeps 99.5 %, and all, in steps of 64. Four times too long: what would do. Else nothing."""
    rows = answers(*["The answer is short."] * 300, *["word " * 250] * 2, "word " * 450, ask="Question {n} of many?")
    path = save(tmp_path / "rows.jsonl", rows)
    assert line(check(path, cutoff_len=100), "tokens a row").endswith(
        "| cutoff_len: 320 would keep 99.5 % whole, 512 all")
    assert line(check(path, cutoff_len=2048), "tokens a row").endswith("| cutoff_len: 512 would hold all of them")
    assert "cutoff_len:" not in line(check(path, cutoff_len=2047), "tokens a row")


# ------------------------------------------------------------------------------------------------------ what is learned


def test_rows_of_which_nothing_is_learned(check: Any, tmp_path: Path) -> None:
    """One of 200 is a doubt, three are an error, with their lines; so is a median of 0."""
    silent = {"messages": [{"role": "user", "content": "Hi?"},
                           {"role": "assistant", "content": "Hello to you.", "weight": 0}]}

    def rows(silent_ones: int, of: int = 200) -> list[Row]:
        spoken_ones = [talk(("user", f"Question {n}?"), ("assistant", f"Answer number {n}.")) for n in range(of)]
        return [silent] * silent_ones + spoken_ones[silent_ones:]

    (finding,) = of(check(save(tmp_path / "one.jsonl", rows(1))).findings, "nothing-learned")
    assert (finding.severity, finding.option, finding.where) == ("warn", "dataset", f"{tmp_path / 'one.jsonl'}:1")
    assert str(finding.message) == "no token is learned of 1 of 200 rows (1)."
    (finding,) = of(check(save(tmp_path / "three.jsonl", rows(3))).findings, "nothing-learned")
    assert finding.severity == "error" and "3 of 200 rows (1, 2, 3)" in str(finding.message)
    assert not of(check(save(tmp_path / "none.jsonl", rows(0))).findings, "nothing-learned")


# ------------------------------------------------------------------------------------------------- what rows say, signs

TURN = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello, you.<|im_end|>"
OFFERED = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def calling(name: str) -> list[Row]:
    call = {"type": "function", "function": {"name": name, "arguments": "{}"}}
    return [{"messages": [{"role": "user", "content": f"The weather on day {n}?"},
                          {"role": "assistant", "content": "", "tool_calls": [call]},
                          {"role": "tool", "content": "rain"},
                          {"role": "assistant", "content": f"It rains on day {n}."}], "tools": OFFERED}
            for n in range(8)]


SIGNS: dict[str, tuple[str, list[Row], list[Row], str]] = {
    "rendered by a template": (
        "rendered-already", [*good(), *answers(TURN)], [*good(), *answers("Write <b>, then </b>; a < b | c > d.")],
        "<|im_start|>"),
    "rendered for alpaca": (
        "rendered-already", [*good(), *answers("Yes, it is.", ask="### Instruction:\nIs it?\n\n### Response:\n")],
        [*good(), *answers("## Response times\n\nThey are low here.")], "### Instruction:"),
    "an end written into the answer": (
        "rendered-already", [*good(), *answers("It is so, as you say.</s>")],
        [*good(), *answers("The tag <s> is closed by </s> in HTML.")], "</s>"),
    "both sides in one answer": (
        "role-labels", [*good(), *answers("It is three.\nUser: And four?\nAssistant: It is four.")],
        [*good(), *answers("The user: a person who asks. Assistant: who answers.")], "User:"),
    "both sides, in Chinese": (
        "role-labels", [*good(), *answers("是三。\n用户：那四呢？\n助手：是四。")],
        [*good(), *answers("用户可以这样问：是几？")], "用户："),
    "a placeholder of a template engine": (
        "placeholder", [*good(), *answers("Dear {{ customer.name }}, welcome to us.")],
        [*good(), *answers("In Jinja one writes `{{ user.name }}` for that.")], "{{ customer.name }}"),
    "a placeholder of a prompt": (
        "placeholder", [*good(), *answers("Thank you for it.", ask="Translate <your text here>")],
        [*good(), *answers("Thank you for it.", ask="Translate <b>your text</b> here")], "<your text here>"),
    "a placeholder of format": (
        "placeholder", [*good(), *answers("Dear {customer_name}, welcome to us.")],
        [*good(), *answers("In LaTeX \\frac{alpha}{beta} and x_{max}; in Python f'{name}'.")], "{customer_name}"),
    "filler text": (
        "placeholder", [*good(), *answers("Lorem ipsum dolor sit amet, and more.")],
        [*good(), *answers("The lorry came, ipso facto.")], "Lorem ipsum"),
    "gaps to be filled in": (
        "placeholder", [*good(), *answers("Sincerely yours,\n[Your Name]", "TODO: write the answer to it.")],
        [*good(), *answers("See [the manual] and todo lists; x and xx and fixxxxed.")], "[Your Name]"),
    "answers without a word": (
        "nothing-said", [*good(), *answers("...", "N/A")], [*good(), *answers("No.", "42")], "..."),
    "the question again": (
        "answer-is-question", [*good(), *answers("Question 0?")], [*good(), *answers("Question 0? Yes.")], "13"),
    "UTF-8 read as Latin-1": (
        "encoding", [*good(), *answers("The cafÃ© is open, itâ€™s true.")],
        [*good(), *answers("O café está aberto; NÃO É LONGE, à « droite ».")], "Ã©"),
    "UTF-8 read as GBK": (
        "encoding", [*good(), *answers("浣犲ソ锛屼笘鐣岋紒浠婂ぉ銆傚ソ")], [*good(), *answers("你好，世界！今天。好")],
        "锛屼笘鐣岋紒浠婂ぉ銆"),
    "letters that were lost": (
        "encoding", [*good(), *answers("The caf\ufffd is open today.")], [*good(), *answers("The café is open today.")],
        "\ufffd"),
    "HTML": (
        "html", [*good(), *answers("One<br>two &amp; three", "One<br/>two")],
        [*good(), *answers("Write `<br>` for a line break: ```html\n<p>so</p>\n``` a < b & c")], "<br>"),
    "refusals": (
        "refusals",
        [*good(8), *answers("As an AI language model, I cannot.", "I'm sorry, but I can't.", "抱歉，我无法回答。")],
        [*good(8), *answers("I cannot see why not: yes.", "As an aid, take a map.", "I am sorry to hear of it.")],
        "3 of 11"),
    "another assistant's name": (
        "other-name", [*good(), *answers("I am ChatGPT, trained by OpenAI.")],
        [*good(), *answers("ChatGPT was trained by OpenAI, as they say.")], "I am ChatGPT"),
    "a call that is no JSON": (
        "bad-call", [*good(), *answers("<tool_call>\n{'name': 'weather'}\n</tool_call>")],
        [*good(), *answers("<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>")],
        "{'name': 'weather'}"),
    "a call of a tool that nobody offered": ("stray-call", calling("forecast"), calling("weather"), "forecast"),
    "one answer for nearly all": (
        "same-answer", answers(*["I do not know that, sorry."] * 9, "It is four, I think."),
        answers(*["I do not know that, sorry."] * 3, *[f"It is {n}, I think." for n in range(7)]),
        "I do not know that"),
    "one class for nearly all": (
        "same-answer", answers(*["spam"] * 19, "ham"), answers(*["spam"] * 14, *["ham"] * 6), "spam"),
    "one word each": (
        "one-word", answers(*["spam"] * 6, *["ham"] * 6),
        answers(*["It is spam."] * 5, *["It is ham."] * 5, *["ham"] * 2), "12 of 12"),
    "another language than the question's": (
        "crossed-languages", [*good(3), *answers(*[f"答案是第{n}号，因为它最合适。" for n in range(9)])],
        [*good(9), *answers(*[f"答案是第{n}号，因为它最合适。" for n in range(3)])],
        "Latin letters and answer in Chinese"),
    "rows that come again": (
        "repeated-rows", [*good(), *good(2)], good(14), "2 of 14 rows"),
    "rows that come again with other space": (
        "repeated-rows", [*good(), *answers("The answer is 0,  and here is why\nit is 0. ")],
        [*good(), *answers("The answer is 0, and here is why it is not 1.", ask="Another question {n}?")],
        "1 of 13 rows"),
    "a question with two answers": (
        "several-answers", [*good(), *answers("No, it is something else.")],
        [*good(), *answers("No, it is something else.", ask="Another one {n}?")], "1 of 13 rows"),
}


@pytest.mark.parametrize("what", SIGNS)
def test_signs_of_mistakes(what: str, check: Any, tmp_path: Path) -> None:
    """The wrong data are told, with the file and line and what was found; the right ones beside them are not."""
    id, wrong, right, shown = SIGNS[what]
    path = save(tmp_path / "wrong.jsonl", wrong)
    (finding,) = of(check(path).findings, id)
    assert finding.severity == ("info" if id in ("one-word", "several-answers") else "warn")
    assert finding.option == "dataset" and shown in str(finding.message).replace('\\"', '"')
    assert finding.where is None or finding.where.startswith(f"{path}:")
    assert isinstance(finding.message, Both) and finding.message.zh != finding.message.en and finding.fix
    quiet = check(save(tmp_path / "right.jsonl", right)).findings
    assert not of(quiet, id), [finding.line() for finding in quiet]


def test_a_few_gaps_in_many_rows_are_no_mistake(check: Any, tmp_path: Path) -> None:
    """Shares decide: one placeholder in 13 rows is likely a mistake, one in 200 is told, gaps in 1 of 200 are not."""
    rows = [*good(199), *answers("Dear {{ customer.name }}, welcome to us.")]
    (finding,) = of(check(save(tmp_path / "few.jsonl", rows)).findings, "placeholder")
    assert finding.severity == "info" and "1 of 200 rows" in str(finding.message)
    assert finding.where == f"{tmp_path / 'few.jsonl'}:200"
    assert check(save(tmp_path / "gaps.jsonl", [*good(199), *answers("Yours,\n[Your Name]")])).findings == []


def test_lines_of_the_first_five(check: Any, tmp_path: Path) -> None:
    """A finding names the first lines; a file is named where it changes."""
    first = save(tmp_path / "a.jsonl", [*good(3), *answers("...", "...", "...")])
    second = save(tmp_path / "b.jsonl", answers("...", "...", "...", ask="And {n}?"))
    (finding,) = of(check(first, second).findings, "nothing-said")
    assert f"({'4, 5, 6'}, {second}:1, 2, …)" in str(finding.message) and finding.where == f"{first}:4"
    assert listed([Place("f:", 3)], 1) == "3" and listed([], 0) == ""


def test_documents_have_no_questions(check: Any, tmp_path: Path) -> None:
    """Plain text is cut into blocks; damaged letters and repeats are told of it too, in words of its own."""
    texts = [{"text": f"Number {n} comes before the next one. " * 30} for n in range(10)]
    wrong = save(tmp_path / "wrong.jsonl", [*texts, texts[0], {"text": "The caf\ufffd is<br>open."}])
    section = check(wrong, stage="pt", cutoff_len=256)
    assert line(section, "rows").endswith(" blocks of 256 tokens to train on")
    assert [finding.id for finding in section.findings] == ["repeated-rows", "encoding", "html"]
    assert str(section.findings[-1].message).startswith("1 of 12 texts hold HTML")
    assert check(save(tmp_path / "right.jsonl", texts), stage="pt", cutoff_len=256).findings == []


# -------------------------------------------------------------------------------------------------- pairs, judgements


def judged(good_ones: int, bad_ones: int) -> list[Row]:
    return [{"instruction": f"What is {n}?", "output": f"It is the number {n}.", "kto_tag": n < good_ones}
            for n in range(good_ones + bad_ones)]


def test_labels_of_kto(check: Any, tmp_path: Path) -> None:
    """All of one label: nothing can be learned. One side much larger: the weight that makes up for it."""
    (finding,) = of(check(save(tmp_path / "one.jsonl", judged(12, 0)), stage="kto").findings, "one-label")
    assert finding.severity == "error" and str(finding.message).startswith("all 12 answers are judged good, none bad")
    (finding,) = of(check(save(tmp_path / "bad.jsonl", judged(0, 12)), stage="kto").findings, "one-label")
    assert "judged bad, none good" in str(finding.message)
    uneven = save(tmp_path / "uneven.jsonl", judged(40, 8))
    (finding,) = check(uneven, stage="kto").findings
    assert (finding.id, finding.severity, finding.cure) == ("uneven-labels", "warn", {"kto_rejected_weight": 5.0})
    (finding,) = check(save(tmp_path / "few.jsonl", judged(8, 40)), stage="kto").findings
    assert finding.cure == {"kto_chosen_weight": 5.0} and "8 good and 40 bad" in str(finding.message)
    assert check(uneven, stage="kto", kto_rejected_weight=5.0).findings == []  # the cure cures
    assert check(save(tmp_path / "even.jsonl", judged(32, 8)), stage="kto").findings == []
    assert line(check(uneven, stage="kto"), "judged") == "40 good, 8 bad"


def test_pairs(check: Any, tmp_path: Path) -> None:
    """Pairs that differ in white space alone, and pairs whose chosen answer is nearly always the longer one."""
    def pairs(chosen: str, rejected: str) -> list[Row]:
        return [{"instruction": f"What is {n}?", "chosen": chosen.format(n=n), "rejected": rejected.format(n=n)}
                for n in range(12)]

    same = [*pairs("It is number {n}.", "It is letter {n}."),
            {"instruction": "What?", "chosen": "It is so.", "rejected": "It is  so."}]
    (finding,) = check(save(tmp_path / "same.jsonl", same), stage="dpo").findings
    assert (finding.id, finding.severity, finding.where) == ("same-pair", "warn", f"{tmp_path / 'same.jsonl'}:13")
    longer = pairs("It is the number {n}, as everybody knows.", "It is {n}.")
    section = check(save(tmp_path / "longer.jsonl", longer), stage="dpo")
    (finding,) = section.findings
    assert (finding.id, finding.severity) == ("longer-is-better", "info")
    assert "100 % of the pairs" in str(finding.message)
    assert line(section, "pairs").endswith("longer in 100 %")
    slightly = pairs("It is the number {n}.", "It is a letter {n}.")
    assert check(save(tmp_path / "slightly.jsonl", slightly), stage="dpo").findings == []


# -------------------------------------------------------------------------------------------------- train and evaluate


def test_rows_that_are_trained_on_and_measured(check: Any, tmp_path: Path) -> None:
    """Of the held-out rows 3 of 4 are trained on too: their lines. One of 60 changes the loss by little. With early
    stopping and all of them: an error, since the evaluation decides when to stop."""
    train = save(tmp_path / "train.jsonl", good(20))
    both = save(tmp_path / "both.jsonl", [*answers("Something quite new, isn't it?", ask="New {n}?"), *good(3)])
    (finding,) = check(train, eval_dataset=(str(both),)).findings
    assert (finding.id, finding.severity, finding.option) == ("trained-and-measured", "warn", "eval_dataset")
    assert str(finding.message).startswith("3 of 4 held-out rows are trained on too (2, 3, 4)")
    assert finding.where == f"{both}:2"
    one = save(tmp_path / "one.jsonl", [*answers(*["Something else, isn't it?"] * 59, ask="New {n}?"), *good(1)])
    assert [finding.severity for finding in check(train, eval_dataset=(str(one),)).findings] == ["info"]
    options = {"eval_dataset": (str(train),), "eval_strategy": "steps", "early_stopping_steps": 2}
    (finding,) = check(train, **options).findings
    assert finding.severity == "error" and "20 of 20 held-out rows" in str(finding.message)
    fresh = save(tmp_path / "fresh.jsonl", answers("Something quite new.", "Something else.", ask="New {n}?"))
    assert check(train, **options | {"eval_dataset": (str(fresh),)}).findings == []
    asked = save(tmp_path / "asked.jsonl", answers("No.", "Not at all.", "Never, in truth."))
    (finding,) = check(train, eval_dataset=(str(asked),)).findings
    assert finding.severity == "info" and "with other answers" in str(finding.message)


def test_repeated_rows_fall_on_both_sides_of_val_size(load: Any, check: Any, tmp_path: Path) -> None:
    """Every row stands there twice: what is held out is trained on too, but where both of a kind are held out. Of
    single rows none is."""
    path = save(tmp_path / "twice.jsonl", [row for row in good(40) for _ in range(2)])
    held = [row.place.number for row in load(path, val_size=0.2)[0].held_out[""]]
    kinds = [(number - 1) // 2 for number in held]
    section = check(path, val_size=0.2)
    (finding,) = of(section.findings, "trained-and-measured")
    assert finding.option == "val_size" and section.facts["held_out"] == len(held) == 16
    assert section.facts["held_out_trained_on"] == sum(kinds.count(kind) == 1 for kind in kinds)
    assert check(save(tmp_path / "once.jsonl", good(80)), val_size=0.2).findings == []


# ------------------------------------------------------------------------------------------------------------- samples


def many(count: int, start: int = 0) -> list[Row]:
    """Rows of the same length, in bytes."""
    return [{"instruction": f"What has the number {n:05}?", "input": "",
             "output": f"It is {sha256(str(n).encode()).hexdigest()[:40]}."} for n in range(start, start + count)]


def test_of_a_large_file_the_first_rows_are_read(load: Any, check: Any, tmp_path: Path) -> None:
    """5,000 rows, of which 500 are looked at: how many there are is reckoned from the bytes, to 1 %, and steps are
    counted from it. The run itself finds all rows, and a check after it does too."""
    path = save(tmp_path / "large.jsonl", many(5000))
    data, _ = load(path, most=500)
    assert len(data.train) == 500 and abs(data.train_rows - 5000) < 50 and data.sets[0].sampled
    section = check(path, most=500)
    assert line(section, "rows").startswith(
        f"about {data.train_rows:,} to train on | {path}: sampled, the first 500 of about ")
    for held in ({"val_size": 0.2}, {"eval_dataset": (str(path),)}):
        assert abs(check(path, most=500, **held).facts["held_out"] - (1000 if "val_size" in held else 5000)) < 50
    assert "抽样，只读约" in line(section, "rows", chinese=True) and section.facts["estimated"]
    assert "; about " in line(section, "learned")
    whole, _ = load(path)
    assert len(whole.train) == whole.train_rows == 5000 and whole.scale == 1
    again, _ = load(path, most=500)
    assert len(again.train) == 5000 and not again.sets[0].sampled
    assert line(check(path, most=500), "rows") == "5,000 to train on"


@pytest.mark.parametrize("kind", ["json", "jsonl.gz", "csv", "parquet", "arrow", "folder"])
def test_every_kind_of_file_can_be_sampled(kind: str, load: Any, tmp_path: Path) -> None:
    """Tables know how many rows they have; of text it is reckoned, compressed or not, in one file or several. Of what
    is compressed a window of text (here 700 rows) is less clear."""
    most = 4000 if kind == "jsonl.gz" else 200
    rows = many(2 * most if kind == "jsonl.gz" else 4000)
    path = tmp_path / f"rows.{kind}"
    if kind == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")  # on a single line
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    elif kind == "csv":
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif kind == "folder":
        path.mkdir()
        for part in range(4):
            save(path / f"{part}.jsonl", rows[part * 1000 : (part + 1) * 1000])
    else:
        import pyarrow
        from pyarrow import ipc, parquet

        table = pyarrow.Table.from_pylist(rows)
        if kind == "parquet":
            parquet.write_table(table, path, compression="none", use_dictionary=False)
        else:
            with ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table)
    data, _ = load(path, most=most)
    assert data.sets[0].store.manifest.raw_rows == most
    assert abs(data.sets[0].rows - len(rows)) <= {"parquet": 0, "arrow": 0, "jsonl.gz": 1600}.get(kind, 20)
    assert kind != "json" or load(path, most=len(rows))[0].scale == 1  # no more than there are


def test_what_a_sample_stands_for(load: Any, tmp_path: Path) -> None:
    """Mixed, drawn from, limited and held out, a sample stands for as many rows as the whole would give."""
    large, small = save(tmp_path / "large.jsonl", many(5000)), save(tmp_path / "small.jsonl", many(100, 9000))
    assert load(small, most=500)[0].scale == 1  # small files are read whole
    both, _ = load(large, small, most=500)
    assert abs(both.train_rows - 5100) < 60 and [found.sampled for found in both.sets] == [True, False]
    turns, _ = load(large, small, most=500, mix_strategy="interleave_under")
    assert abs(turns.train_rows - 200) < 5  # ends with the small one
    over, _ = load(large, small, most=500, mix_strategy="interleave_over")
    assert abs(over.train_rows - 10_000) < 150
    share, _ = load(large, most=500, val_size=0.1)
    assert len(share.held_out[""]) == 50 and abs(share.train_rows - 4500) < 50
    number, _ = load(large, most=500, val_size=1000)
    assert abs(len(number.held_out[""]) - 100) < 3 and abs(number.train_rows - 4000) < 60
    limited, _ = load(large, most=500, max_samples=300)
    assert len(limited.train) == limited.train_rows == 300
    save(tmp_path / "dataset_info.json", [{"drawn": {"file_name": "large.jsonl", "num_samples": 2000}}])
    drawn, _ = load(Path("drawn"), most=500, dataset_dir=str(tmp_path))
    assert abs(drawn.train_rows - 2000) < 30


def test_long_rows_are_sampled_by_their_letters(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of any length take no longer: fewer of them are read."""
    monkeypatch.setattr("truetune.data.extent._LETTERS", 100_000)
    path = save(tmp_path / "long.jsonl", answers(*["word " * 1000] * 200))
    data, _ = load(path, most=1000, cutoff_len=4096)
    assert 15 <= len(data.train) <= 40 and abs(data.train_rows - 200) < 30


def test_a_sample_of_other_data_is_another(load: Any, tmp_path: Path) -> None:
    """A file that was written anew is read anew; a sample is never taken for the data set."""
    path = save(tmp_path / "rows.jsonl", many(3000))
    first, _ = load(path, most=300)
    folders = {store.folder for store in first.stores}
    save(path, many(3000, start=1))
    second, _ = load(path, most=300)
    whole, _ = load(path)
    folders |= {store.folder for data in (second, whole) for store in data.stores}
    assert len(folders) == 3 and len(whole.train) == 3000
    assert first.train[0].ids.tolist() != second.train[0].ids.tolist() == whole.train[0].ids.tolist()


def test_a_sample_never_stands_in_tokenized_path(load: Any, tmp_path: Path) -> None:
    """That folder is the run's: it is empty until all rows are there, and then all of them are used."""
    path, kept = save(tmp_path / "rows.jsonl", many(3000)), tmp_path / "kept"
    assert len(load(path, most=300, tokenized_path=str(kept))[0].train) == 300 and not kept.exists()
    assert len(load(path, tokenized_path=str(kept))[0].train) == 3000 and kept.is_dir()
    assert len(load(path, most=300, tokenized_path=str(kept))[0].train) == 3000


def test_a_cut_arrow_file_is_told(load: Any, tmp_path: Path) -> None:
    """Rows behind the sample that are not there show when they are counted."""
    import pyarrow
    from pyarrow import ipc

    path, table = tmp_path / "rows.arrow", pyarrow.Table.from_pylist(many(3000))
    with ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=500)
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(Problem) as caught:
        load(path, most=300)
    (finding,) = caught.value.findings
    assert finding.id == "data-unreadable" and finding.where == str(path)


def test_a_stream_is_looked_at_as_far_as_it_was_read(check: Any, tmp_path: Path) -> None:
    """Of a stream nobody knows the end; the page says so, and what its rows say is told."""
    path = save(tmp_path / "rows.jsonl", [*good(30), *answers("...", "...", ask="And {n}?")])
    section = check(path, streaming=True, max_steps=5, per_device_train_batch_size=2)
    assert line(section, "rows").startswith("a stream, of which the first ")
    assert [finding.id for finding in section.findings] == ["nothing-said"]


# ------------------------------------------------------------------------------------------------------------- helpers


@pytest.mark.parametrize(("text", "script"), [
    ("How do I open a file in Python?", "Latin letters"), ("你好，请使用 Python 的 transformers 库", "Chinese"),
    ("今日はいい天気ですね、学校へ行きます", "Japanese"), ("東京都の天気は晴れ、気温は二十度", "Japanese"),
    ("안녕하세요, 반갑습니다", "Korean"),
    ("Привет, как у тебя дела?", "Cyrillic"),
    ("مرحبا بالعالم كله", "Arabic"), ("สวัสดีครับ ยินดีต้อนรับ", "Thai"), ("12 + 30 = 42", None), ("", None),
    ("\ud800 lone surrogates do no harm", "Latin letters"), ("\U0001f600 \U00100000 \U0010ffff", None),
])
def test_scripts(text: str, script: str | None) -> None:
    (number,) = main_scripts([text])
    assert (str(SCRIPTS[number]) if number >= 0 else None) == script


def test_percent() -> None:
    """Two digits that count; what is there is never 0 %, what is not all is never 100 %."""
    assert [percent(share) for share in (0, 1, 0.5, 0.123, 0.0432, 0.999, 0.99999, 0.000001)] == [
        "0 %", "100 %", "50 %", "12 %", "4.3 %", "99.9 %", "99.99 %", "0.01 %"]
