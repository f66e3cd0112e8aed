"""Everything drawn from the schema: `truetune explain`, `--help`, the JSON Schema of run.yaml, the pages of options."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, events, options, write_rows
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from test_cli import imports

from truetune.cli import VERBS, Verb, Verbs, main
from truetune.events import read_events
from truetune.findings import WRONG_OPTIONS
from truetune.options import GROUPS, OPTIONS
from truetune.options.explain import explain
from truetune.options.help import options_help, why_not, width, wrap
from truetune.options.json_schema import json_schema, schema_text
from truetune.options.page import as_markdown, options_page
from truetune.options.read import read_config
from truetune.options.schema import LEVELS
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


def test_help_shows_the_options_of_each_verb():
    """Basic ones that do something; with `all` every one, by group and level, those without effect at a group's end."""
    titles = {group.title[0] for group in GROUPS}
    for name, verb in verbs():
        assert set(verb.groups) <= titles, name
        mine = [option for option in OPTIONS.values() if option.group.title[0] in verb.groups]
        basic = [option for option in mine if option.text.level == "basic" and not why_not(option)]
        for everything, expected in ((True, mine), (False, basic)):
            shown = [OPTIONS[option] for option in re.findall(
                r"^  --(\w+) ", options_help(verb.groups, everything, "en"), re.MULTILINE)]
            assert sorted(option.name for option in shown) == sorted(option.name for option in expected), name
            order = [(GROUPS.index(option.group), bool(why_not(option)), LEVELS.index(option.text.level))
                     for option in shown]
            assert order == sorted(order), name


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


def squeezed(text: str) -> str:
    """Without white space, so that it does not matter where lines end."""
    return "".join(text.split())


WORDS = st.tuples(st.sampled_from(["学习率", "（见 loss", "learning_rate", "a|b", "重"]), st.sampled_from("，。） "))


@given(st.lists(WORDS, max_size=40), st.integers(24, 60))
def test_wrapping_loses_nothing_and_fits(words, columns):
    """Only spaces at line ends go; no line is too wide, and none begins with a Chinese comma or full stop."""
    text = "".join(word + mark for word, mark in words)
    lines = wrap(text, columns, "* ", "  ")
    assert squeezed("".join(lines)) == "*" + squeezed(text)
    for line in lines:
        assert width(line) == cell_len(line) <= columns
        assert not line[2:].startswith(("，", "。", "）"))


def test_wrapping_breaks_chinese_where_it_may():
    assert wrap("学习率过高会发散，loss 突跳。", 12) == ["学习率过高会", "发散，loss", "突跳。"]
    assert wrap("lora|full|freeze; default lora", 12) == ["lora|full|", "freeze;", "default lora"]
    assert wrap("https://arxiv.org/abs/2106.09685", 12) == ["https://arxiv.org/abs/2106.09685"]


# ---------------------------------------------------------------------------------------------------------------------
# explain


def explained(*words: str, chinese: bool = False, columns: int = 80, **terminal: Any) -> str:
    shown = io.StringIO()
    explain(words, Terminal(chinese, file=shown, width=columns, **terminal))
    return shown.getvalue()


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


def test_what_a_page_looks_like():
    """One option, as the person sees it."""
    assert explained("shift_attn").splitlines()[1].startswith("Not done here: ")
    page = explained("lora_r").splitlines()
    assert page[:2] == ["lora_rank  Method · basic", "lora_r is another name of it."]
    assert " ".join(page[2:4]) == OPTIONS["lora_rank"].text.en
    assert "takes       a whole number > 0" in page and "default     8" in page
    assert "also        lora_r, adalora_target_r" in page
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
    assert "batch_size" in explained("batch_siz").splitlines()[1].split()[0]
    assert "train_peak_memory_gb" in explained("oom")


def test_what_nobody_knows_names_what_is_near(capsys):
    """The rest is shown all the same; the exit status says that something was wrong."""
    assert main(["explain", "lora_rnk", "seed", "zz(", "--lang", "en"]) == WRONG_OPTIONS
    out, err = capsys.readouterr()
    assert out.startswith("seed  ")
    assert err.splitlines() == [
        "error  lora_rnk: no option and no word of the log is called so, and none speaks of it. Did you mean "
        "lora_rank?",
        "error  zz(: no option and no word of the log is called so, and none speaks of it. `truetune explain` shows "
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
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.json")
    words = options(model_name_or_path=tiny, dataset="rows.json", output_dir="o", max_steps=2, max_samples=6,
                    val_size=2, per_device_train_batch_size=2, logging_steps=1, use_cpu=True, bf16=False,
                    gradient_checkpointing=False, plot_loss=False, before_after=False)
    assert main(["train", *words, "--no-check"]) == 0
    run = tmp_path / "o"
    told = [key for kind in ("step", "eval") for event in events(run, kind) for key in event]
    told += [key for line in read_events(run / "trainer_log.jsonl") for key in line]
    told += json.loads((run / "all_results.json").read_text(encoding="utf-8"))
    assert {"loss", "eval_loss", "eval_perplexity", "grad_norm", "lr", "train_runtime"} <= set(told)
    for key in set(told) - {"event", "time"}:
        assert "a word of the log" in explained(key), key


# ---------------------------------------------------------------------------------------------------------------------
# JSON Schema


class EditorYaml(yaml.SafeLoader):
    """YAML 1.2, which editors read: only true and false are switches, and 1e-4 is a number."""


EditorYaml.yaml_implicit_resolvers = {}
for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+", list("-+0123456789")),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789"))):
    EditorYaml.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)

SCHEMA = Draft202012Validator(json_schema())


def refused_by_the_schema(text: str) -> set[str]:
    """Names in a YAML that an editor underlines."""
    found = set()
    for error in SCHEMA.iter_errors(yaml.load(text, EditorYaml)):
        found |= {str(error.path[0])} if error.path else set(re.findall(r"'(\w+)'", error.message))
    return found


def refused_by_the_program(text: str, folder: Path) -> set[str]:
    """Names in a YAML that the program does not read, as they are written there."""
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    lines = dict(enumerate(text.splitlines(), 1))
    return {lines[int(finding.where.split(",")[0].split(":")[1])].split(":")[0]
            for finding in read_config([str(path)])[1] if finding.where}


def test_the_schema_is_one():
    for chinese in (False, True):
        Draft202012Validator.check_schema(json_schema(chinese))
    names = {name for option in OPTIONS.values() for name in (option.name, *option.text.also)}
    assert set(json_schema()["properties"]) == names


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid_and_names_its_schema(path):
    """Its first line leads editors to the file, which is there."""
    text = path.read_text(encoding="utf-8")
    assert refused_by_the_schema(text) == set()
    marked = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert marked and (path.parent / marked[1]).resolve() == ROOT / "schema" / "truetune.schema.json"


PROBES = ["8", "-1", "0", "1", "2", "64", "0.5", "1e-4", "true", "False", "yes", "'off'", "maybe", "no", "a b", "all",
          "null", "", "''", "'null'", "a, b", "a,b,", "[a, b]", "[a, 5]", "[a, null]", "[[a]]", "[]", "0.5, 0.3",
          "[0.5, 0.3]", "0.5, x", "{a: 1}", "{a: x}", "{a: 0.5}", "'{\"a\": 1}'", "{}", "2024-01-01", "auto"]
UNSEEN = ["'0'", "'-8'", "1_000", "1e3", "8.0", "'a: b'"]
"""What only the program refuses: quoted numbers out of bounds, 1e3 and 8.0 where 1000 and 8 are meant, a quoted table
of the wrong things. An editor sees no numbers in words, and a number whichever way it is written."""


def one_value(value: str, nth: int) -> str:
    """A file in which every option has this value, each under the nth of its names."""
    names = ((option.name, *option.text.also) for option in OPTIONS.values())
    return "".join(f"{name[nth % len(name)]}: {value}\n" for name in names)


@pytest.mark.parametrize("value", [*PROBES, *UNSEEN])
def test_the_schema_and_the_program_agree(value, tmp_path):
    """Every option under all its names, with this value: one underlines what the other refuses."""
    for nth in range(1 + max(len(option.text.also) for option in OPTIONS.values())):
        text = one_value(value, nth)
        editor, program = refused_by_the_schema(text), refused_by_the_program(text, tmp_path)
        assert editor <= program if value in UNSEEN else editor == program


def test_the_probes_can_fail():
    """Each is taken by some options and refused by others, so that the test above says something; null and nothing are
    taken by all, lists in lists and null in a list by none."""
    for value in set(PROBES) - {"null", "", "[[a]]", "[a, null]"}:
        assert 0 < len(refused_by_the_schema(one_value(value, 0))) < len(OPTIONS), value
    assert refused_by_the_schema(one_value("null", 0)) == refused_by_the_schema(one_value("", 0)) == set()
    assert refused_by_the_schema(one_value("[[a]]", 0)) == OPTIONS.keys()
    assert refused_by_the_schema(one_value("[a, null]", 0)) == OPTIONS.keys()


def test_every_default_is_valid():
    defaults = {name: property["default"] for name, property in json_schema()["properties"].items()
                if "default" in property}
    assert len(defaults) > 100
    assert not list(SCHEMA.iter_errors({name: value for name, value in defaults.items() if name in OPTIONS}))


def test_unknown_names_and_two_names_for_one_are_underlined(tmp_path):
    text = "learning_rte: 1\nlora_rank: 8\nuse_lora: maybe\n"
    assert refused_by_the_schema(text) == refused_by_the_program(text, tmp_path) == {"learning_rte", "use_lora"}
    for option in OPTIONS.values():
        for name, other in combinations([option.name, *option.text.also], 2):
            assert SCHEMA.is_valid({name: None}) and SCHEMA.is_valid({other: None})
            assert not SCHEMA.is_valid({name: None, other: None})


@pytest.mark.parametrize("chinese", [False, True], ids=["en", "zh"])
def test_editors_show_what_explain_shows(chinese):
    """Beside each option its text, which way to turn it, and why it has no effect; other names are crossed out."""
    properties = json_schema(chinese)["properties"]
    for name, option in OPTIONS.items():
        told = properties[name]["description"]
        pairs = [option.text.higher, option.text.lower, option.text.unset]
        for words in (why_not(option, chinese), *(pair[chinese] for pair in pairs if pair)):
            assert words in told, name
        assert "deprecated" not in properties[name]
        for other in option.text.also:
            assert properties[other]["deprecated"] and name in properties[other]["description"]


# ---------------------------------------------------------------------------------------------------------------------
# The pages of options


@pytest.mark.parametrize("chinese", [False, True], ids=["en", "zh"])
def test_the_page_holds_everything_and_its_links_lead_somewhere(chinese):
    page = options_page(chinese)
    for option in OPTIONS.values():
        assert (f"\n### `{option.name}`\n" in page) == (not why_not(option))
        assert f"`{option.name}`" in page
    for source in SOURCES.values():
        assert f"({source.link})" in page
    assert all(f"**`{name}`" in page for name in TERMS)
    headings = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-")
                for line in re.findall(r"^#+ (.*)$", page, re.MULTILINE)}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert len(links) > 20 and set(links) <= headings
    assert page.count("<details>") == page.count("</details>") > 3
    beside = re.findall(r"\]\((\S+\.md)\)", page)
    assert len(beside) == 1 and (ROOT / "docs" / beside[0]).exists()


def test_words_stay_words_in_markdown():
    """What Markdown would take for a tag or a table is escaped, but in code."""
    assert as_markdown("a <think>.*?</think> | [x] `a|b`") == r"a \<think>.\*?\</think> \| \[x\] `a|b`"
