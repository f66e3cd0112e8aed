"""Everything drawn from the schema: `truetune explain`, `--help`, the JSON Schema of run.yaml, the pages of options."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, events, write_rows
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from test_cli import imports

from truetune.cli import VERBS, Verb, Verbs, main
from truetune.events import read_events
from truetune.findings import WRONG_OPTIONS, Problem
from truetune.options import GROUPS, OPTIONS, Option
from truetune.options.explain import explain
from truetune.options.help import options_help, why_not, width, wrap
from truetune.options.json_schema import json_schema, schema_text
from truetune.options.page import options_page
from truetune.options.read import canonical_name, read_config
from truetune.options.sources import SOURCES
from truetune.options.terms import TERMS
from truetune.report import Terminal

# ---------------------------------------------------------------------------------------------------------------------
# Files that are drawn

DRAWN = {
    "docs/options.md": (options_page, False, "truetune schema --markdown --lang en"),
    "docs/options.zh-CN.md": (options_page, True, "truetune schema --markdown --lang zh"),
    "schema/truetune.schema.json": (schema_text, False, "truetune schema --lang en"),
    "schema/truetune.schema.zh-CN.json": (schema_text, True, "truetune schema --lang zh"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_drawn_files_are_those_of_this_schema(name):
    """They are written by the program and never by hand."""
    draw, chinese, command = DRAWN[name]
    if (ROOT / name).read_text(encoding="utf-8") != draw(chinese):
        pytest.fail(f"{name} is not what the schema says now; this mends it: {command} > {name}", pytrace=False)


def test_the_command_writes_those_files(truetune):
    """UTF-8 whatever the terminal speaks, and nothing beside it."""
    for name in ("docs/options.zh-CN.md", "schema/truetune.schema.zh-CN.json"):
        draw, chinese, command = DRAWN[name]
        done = truetune(*command.split()[1:], PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert (done.returncode, done.stdout, done.stderr) == (0, draw(chinese), "")
    assert truetune("schema", "--yaml").stderr == "error  --yaml: schema takes --markdown and --lang only.\n"


def verbs(verb: Verb | Verbs = VERBS, name: str = "truetune") -> Iterator[tuple[str, Verb]]:
    """Every verb with its whole name."""
    if isinstance(verb, Verb):
        yield name, verb
    else:
        for word, inner in verb.words.items():
            yield from verbs(inner, f"{name} {word}")


def test_help_shows_the_options_of_each_verb(capsys):
    """Basic ones that do something; with `all` every one, each once, and those without effect after the others."""
    titles = {group.title[0] for group in GROUPS}
    for name, verb in verbs():
        assert set(verb.groups) <= titles, name
        mine = [option for option in OPTIONS.values() if option.group.title[0] in verb.groups]
        for words, expected in (("--help all", mine),
                                ("--help", [option for option in mine
                                            if option.text.level == "basic" and not why_not(option)])):
            assert main([*name.split()[1:], *words.split()]) == 0
            shown = re.findall(r"^  --(\w+)(?= )", capsys.readouterr().out, re.MULTILINE)
            assert sorted(set(shown) & OPTIONS.keys()) == sorted(option.name for option in expected), name
            idle = [bool(why_not(OPTIONS[option])) for option in shown if option in OPTIONS]
            groups = [OPTIONS[option].group for option in shown if option in OPTIONS]
            assert all(a <= b or groups[number] is not groups[number + 1]
                       for number, (a, b) in enumerate(zip(idle, idle[1:], strict=False)))


def test_every_option_that_works_is_in_some_help():
    told = {title for _, verb in verbs() for title in verb.groups}
    assert {option.group.title[0] for option in OPTIONS.values() if not why_not(option)} <= told


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_fits_the_terminal(language, monkeypatch):
    """No line is wider than the terminal, in columns: a Chinese letter takes two."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = options_help(tuple(group.title[0] for group in GROUPS), True, language).splitlines()
    assert len(lines) > 200 and max(map(cell_len, lines)) <= 80
    assert lines[-1].startswith("`truetune explain ")


# ---------------------------------------------------------------------------------------------------------------------
# Lines that fit


@given(st.text("abc def，。：（）中文字…|-_", max_size=200), st.integers(8, 60))
def test_wrapping_loses_nothing_and_fits(text, columns):
    """Only spaces at line ends go; a line is too wide only if it is one word; none begins with a Chinese comma."""
    lines = wrap(text, columns, "* ", "  ")
    assert "".join("".join(lines)[2:].split()) == "".join(text.split())
    for number, line in enumerate(lines):
        assert width(line) == cell_len(line)
        assert width(line) <= columns or len(re.findall(r"[^\s一-鿿]+[一-鿿]?|[一-鿿]", line[2:])) <= 3
        assert not number or not line[2:].startswith(tuple("，。：）…")) or not line[2:].strip("，。：）…（ ")


def test_wrapping_breaks_chinese_where_it_may():
    assert wrap("学习率过高会发散，loss 突跳。", 12) == ["学习率过高会", "发散，loss", "突跳。"]
    assert wrap("lora|full|freeze; default lora", 12) == ["lora|full|", "freeze;", "default lora"]
    assert wrap("https://arxiv.org/abs/2106.09685", 12) == ["https://arxiv.org/abs/2106.09685"]


# ---------------------------------------------------------------------------------------------------------------------
# explain


def explained(*words: str, chinese: bool = False, columns: int = 80, **terminal: Any) -> str:
    console = Terminal(chinese, file=io.StringIO(), width=columns, **terminal)
    explain(words, console)
    return console.file.getvalue()


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("chinese", [False, True], ids=["en", "zh"])
def test_every_option_is_explained_whole(chinese):
    """Its texts, both ways to turn it, who advises what with the link, and why it has no effect if it has none; on a
    narrow terminal no line is broken by the terminal itself, but links."""
    for option in OPTIONS.values():
        page = explained(option.name, chinese=chinese)
        text = option.text
        pairs = [(text.en, text.zh), text.unset, text.no_effect, text.not_offered]
        pairs += [] if why_not(option) else [text.higher, text.lower]
        told = [option.name, option.takes(chinese), option.default_text, option.group.title[chinese], *text.also,
                *(pair[chinese] for pair in pairs if pair)]
        for advice in text.advice:
            told += [advice.zh if chinese else advice.en, SOURCES[advice.source].title, SOURCES[advice.source].link]
        for words in told:
            assert squeezed(words) in squeezed(page), option.name
        assert all(cell_len(line) <= 80 for line in page.splitlines() if "://" not in line), option.name


@pytest.mark.parametrize("chinese", [False, True], ids=["en", "zh"])
def test_every_word_of_the_log_is_explained_whole(chinese):
    for name, term in TERMS.items():
        page = squeezed(explained(name, chinese=chinese))
        for pair in (term.what, term.unit, term.good, term.bad, term.then):
            assert not pair or squeezed(pair[chinese]) in page, name
        assert all(name in explained(other, chinese=chinese) for other in term.also)


def test_words_of_the_log_name_options_that_exist():
    """What to do is said with names of options; those with an underscore are checked."""
    for name, term in TERMS.items():
        for pair in filter(None, (term.what, term.good, term.bad, term.then)):
            for words in pair:
                assert set(re.findall(r"[a-z]+(?:_[a-z]+)+", words)) <= OPTIONS.keys() | TERMS.keys(), name


def test_what_a_page_looks_like(monkeypatch):
    """One option, as the person sees it."""
    assert explained("use_rslora").splitlines()[1].startswith("Not done here: ")
    page = explained("lora_r").splitlines()
    assert page[:3] == ["lora_rank  Method · basic", "lora_r is another name of it.", f"{OPTIONS['lora_rank'].text.en}"]
    assert "takes       a whole number > 0" in page and "default     8" in page and "also        lora_r" in page
    assert any(line.startswith("↑ higher    ") for line in page)
    assert "if higher   memory ↑ more   speed ↓ slower   quality ~ depends" in page
    assert "开启        " in explained("packing", chinese=True)


def test_other_names_and_ways_to_write_a_name():
    """Other names, a flag copied from a command line, words instead of underscores, capitals."""
    for option in OPTIONS.values():
        for other in option.text.also:
            assert explained(other).startswith(f"{option.name}  ")
    for words in (["--learning-rate"], ["learning_rate=1e-4"], ["learning rate"], ["learning", "rate"],
                  ["LEARNING_RATE"]):
        assert explained(*words) == explained("learning_rate")
    assert explained("use_lora").splitlines()[1] == "use_lora is another name of it."


def test_a_word_that_is_an_option_and_in_the_log_is_both():
    page = explained("learning_rate")
    assert page.startswith("learning_rate  Training") and "\nlearning_rate  a word of the log\n" in page


def test_several_at_once_and_a_group():
    page = explained("lora_rank", "loss", "training")
    assert page.index("lora_rank  Method") < page.index("loss  a word of the log") < page.index("Training  options")
    for option in OPTIONS.values():
        if option.group.title[0] == "Training":
            assert option.name in page
    assert explained("训练", chinese=True) == explained("training", chinese=True)


def test_eval_of_a_set_of_one_s_own():
    assert explained("eval_my_set_loss").startswith("eval_NAME_loss  ")


def test_a_search_finds_what_speaks_of_a_word():
    """In names first, then in what an option does, then in advice; in either language; an option's own words."""
    found = [line.split()[0] for line in explained("overfit").splitlines()[1:]]
    assert {"lora_dropout", "eval_loss"} <= set(found)
    assert explained("overfit").startswith("Nothing is called overfit.")
    assert "eval_loss" in explained("过拟合") and "过拟合" in explained("过拟合", chinese=True)
    first = explained("batch_siz").splitlines()[1].split()[0]
    assert "batch_size" in first
    assert "train_peak_memory_gb" in explained("oom")
    assert "learning_rate" not in explained("lear|rate") if _finds("lear|rate") else True  # a pattern is only text


def _finds(word: str) -> bool:
    try:
        explained(word)
    except Problem:
        return False
    return True


def test_what_nobody_knows_names_what_is_near(capsys):
    """The rest is shown all the same; the exit status says that something was wrong."""
    assert main(["explain", "lora_rnk", "seed", "zzz", "--lang", "en"]) == WRONG_OPTIONS
    out, err = capsys.readouterr()
    assert out.startswith("seed  ")
    assert err.splitlines() == [
        "error  lora_rnk: no option and no word of the log is called so, and none speaks of it. Did you mean "
        "lora_rank?",
        "error  zzz: no option and no word of the log is called so, and none speaks of it. `truetune explain` shows "
        "what there is."]
    assert main(["explain", "lora_rnk", "--lang", "zh"]) == WRONG_OPTIONS
    assert "是不是 lora_rank？" in capsys.readouterr().err
    assert "Did you mean learning_rate?" in explained("learning_rat")  # something speaks of it, too


@pytest.mark.parametrize("chinese", [False, True], ids=["en", "zh"])
def test_the_overview(chinese):
    """The basic options by group, the words of the log, and how to go on. Every line fits."""
    page = explained(chinese=chinese)
    basic = [option for option in OPTIONS.values() if option.text.level == "basic" and not why_not(option)]
    for option in basic:
        assert f"\n  {option.name} " in page
    assert all(term in page for term in TERMS)
    assert "truetune explain learning_rate" in page
    assert max(map(cell_len, page.splitlines())) <= 80
    assert len(page.splitlines()) < len(basic) + 2 * len(GROUPS) + 15


def test_colour_changes_nothing_but_colour():
    plain, coloured = explained("lora_rank"), explained("lora_rank", force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured and "\x1b[" not in plain
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_explaining_is_quick_and_imports_nothing_heavy():
    """About 0.3 s alone on a two-core machine; the bound leaves room for a busy one."""
    for words in (["explain"], ["explain", "learning_rate", "loss"], ["explain", "overfit"], ["schema"]):
        loaded, seconds = imports(*words)
        assert loaded == set()
        assert seconds < 2.0


def test_everything_a_run_logs_is_explained(tiny, tmp_path, monkeypatch):
    """A real run with an evaluation: every key of its events, of trainer_log.jsonl and of all_results.json."""
    from truetune.files import read_json

    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.json")
    assert main(["train", f"--model_name_or_path={tiny}", "--dataset=rows.json", "--output_dir=o", "--max_steps=2",
                 "--val_size=2", "--logging_steps=1", "--use_cpu", "--plot_loss=false", "--no-check"]) == 0
    run = tmp_path / "o"
    told = [key for kind in ("step", "eval") for event in events(run, kind) for key in event]
    told += [key for line in read_events(run / "trainer_log.jsonl") for key in line]
    told += list(read_json(run / "all_results.json"))
    assert {"loss", "eval_loss", "eval_perplexity", "grad_norm", "lr", "train_runtime"} <= set(told)
    for key in set(told) - {"event", "time"}:
        assert explained(key).splitlines()[0].endswith("a word of the log") or "a word of the log" in explained(key), key
