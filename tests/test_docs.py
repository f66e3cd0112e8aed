"""docs/data.md and its Chinese page are true: every command is run and prints what the page says it prints, every YAML
block and every word in backticks means something to the program, and both languages say it with the same examples.

A block's first line may name a file (```yaml run.yaml): the test saves it there, as the page tells the reader to.
A line `…` stands for any lines, and `…` inside a line for any characters.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from conftest import DATA, ROOT

from truetune.cli import main
from truetune.data import formats
from truetune.data.messages import Role
from truetune.data.sources import InfoEntry
from truetune.data.templates import TEMPLATES
from truetune.data.tools import TOOL_FORMATS
from truetune.options import OPTIONS
from truetune.options.read import read_config
from truetune.options.schema import Option

PAGES = {"en": ROOT / "docs" / "data.md", "zh": ROOT / "docs" / "data.zh-CN.md"}


class Block(NamedTuple):
    """A fenced block: its language, the file it is saved as ("": none), its text, and the line where it begins."""

    language: str
    file: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2] or "", found[3], text.count("\n", 0, found.start()) + 1)
            for found in re.finditer(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]


BLOCKS = blocks_of(PAGES["en"])
SHOWN = [(block, after.text if after.language == "text" else None)
         for block, after in zip(BLOCKS, [*BLOCKS[1:], Block("", "", "", 0)], strict=True) if block.language == "bash"]
"""Commands, and what the page says they print."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Path:
    """A folder as a reader of the page has it: data/ of this repository, and the files that the page shows."""
    desk = tmp_path_factory.mktemp("desk")
    shutil.copytree(DATA, desk / "data")
    for block in BLOCKS:
        if block.file:
            (desk / block.file).parent.mkdir(exist_ok=True)
            (desk / block.file).write_text(block.text, encoding="utf-8")
    return desk


@pytest.fixture
def at_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("COLUMNS", "80")
    return desk


def run(command: str) -> tuple[int, str]:
    """The exit status of a command, and all that it prints."""
    program, *words = shlex.split(command, comments=True)
    assert program == "truetune"
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        status = main(words)
    return status, printed.getvalue()


def tidy(text: str) -> list[str]:
    """Lines, without white space at their ends and with at most one empty line at a time."""
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip().split("\n")


def pattern(told: str) -> str:
    """A regular expression for what the page says is printed."""
    anything = r"(?:[^\n]*\n)*?"
    lines = [anything if line == "…" else r"[^\n]*".join(map(re.escape, line.split("…"))) + "\n" for line in tidy(told)]
    return "".join(lines)


@pytest.mark.parametrize(("block", "told"), SHOWN, ids=[f"line-{block.line}" for block, _ in SHOWN])
def test_commands_print_what_the_page_says(block: Block, told: str | None, at_desk: Path) -> None:
    """Each block of commands, run as it stands. A command fails exactly if it prints an error."""
    printed = ""
    for command in block.text.splitlines():
        status, output = run(command)
        failed = any(line.startswith("error ") for line in output.splitlines())
        assert (status != 0) == failed, f"{command}: {status}\n{output}"
        printed += output
    assert told is None or re.fullmatch(pattern(told), "\n".join(tidy(printed)) + "\n"), printed


def test_the_comparison_can_fail() -> None:
    """… stands for whole lines or for a part of one; everything else must be there, and in this order."""
    told = "a\n…\nb … c\n"
    assert re.fullmatch(pattern(told), "a\nx\ny\nb 1 c\n") and re.fullmatch(pattern(told), "a\nb  c\n")
    assert not re.fullmatch(pattern(told), "a\nb\nc\n") and not re.fullmatch(pattern(told), "a\nb 1 c\nd\n")


def inline(page: Path) -> list[str]:
    """Everything in backticks outside of the blocks."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def test_commands_in_the_text_work(at_desk: Path) -> None:
    """Commands in tables and sentences, too, in both languages."""
    commands = dict.fromkeys(word for page in PAGES.values() for word in inline(page) if word.startswith("truetune "))
    assert len(commands) >= 6
    for command in commands:
        status, output = run(command)
        differs = command.startswith("truetune data diff")  # 1: the two are not the same
        assert status in ((0, 1) if differs else (0,)) and not output.startswith("error"), f"{command}\n{output}"


@pytest.mark.parametrize("language", PAGES)
def test_yaml_blocks_are_options(language: str, tmp_path: Path) -> None:
    """Every YAML block is a file that is read without an error."""
    texts = [block.text for block in blocks_of(PAGES[language]) if block.language in ("yaml", "yml")]
    assert len(texts) >= 3
    for text in texts:
        (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
        _, findings = read_config([str(tmp_path / "run.yaml")])
        assert not findings, [finding.line() for finding in findings]


FINDINGS = {"drift", "rewritten"}
"""Ids of findings that are one word. Those with a hyphen are known by it."""


def strings(value: Any) -> set[str]:
    """All keys and texts in a JSON value."""
    match value:
        case dict():
            return set(value) | {text for item in value.values() for text in strings(item)}
        case list():
            return {text for item in value for text in strings(item)}
        case str():
            return {value}
    return set()


def json_values() -> list[Any]:
    """The JSON of the page's blocks: a value, or one on each line."""
    decoder, values = json.JSONDecoder(), []
    for block in BLOCKS:
        if block.language == "json":
            rest = block.text.strip()
            while rest:
                value, end = decoder.raw_decode(rest)
                values.append(value)
                rest = rest[end:].strip()
    return values


def choices(option: Option) -> set[str]:
    """The words that an option can be set to."""
    kinds = [option.info.annotation, *get_args(option.info.annotation)]
    return {value for kind in kinds for value in get_args(kind) if isinstance(value, str)}


def known_words() -> set[str]:
    """Options with their other names and values, keys and values of dataset_info.json, names of templates and tool
    formats, roles, the columns that the page's own rows have, and a few words of YAML and JSON."""
    names = {name for option in OPTIONS.values() for name in (option.name, *option.text.also)}
    values = {value for option in OPTIONS.values() for value in choices(option)}
    layouts = {word for layout in formats.DEFAULTS.values() for part in (layout.columns, layout.tags)
               for pair in part.items() for word in pair}
    more = {*formats._OPTIONAL, *formats._ANSWERS, *formats._THOUGHTS, *get_args(formats.DESCRIBED), *get_args(Role)}
    shapes = {column for shape in formats._SHAPES for column in shape.needed.values()}
    rows = {word for value in json_values() for word in strings(value)}
    return (names | values | layouts | more | shapes | rows | set(InfoEntry.model_fields) | set(TEMPLATES)
            | set(TOOL_FORMATS) | {"data", "false", "id", "label", "loss", "null", "train", "true"})


@pytest.mark.parametrize("language", PAGES)
def test_words_in_backticks_exist(language: str) -> None:
    """A word in backticks is an option or another name of the program; `option: value` can be set; a file is there."""
    known, source = known_words(), "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    words = inline(PAGES[language])
    unknown = [word for word in words if re.fullmatch(r"[a-z]\w*", word) and word not in known | FINDINGS]
    unset = [word for word in words if re.fullmatch(r"[a-z]\w*: \S+", word)
             and word.split(":")[0] in OPTIONS and read_config([word.replace(": ", "=")])[1]]
    strange = [word for word in words if re.fullmatch(r"[a-z]\w*: \S+", word) and word.split(":")[0] not in OPTIONS]
    absent = [word for word in words if word.startswith("data/") and not (ROOT / word.split(":")[0]).exists()]
    hyphened = {word for word in words if re.fullmatch(r"[a-z]+(-[a-z]+)+", word)}
    unfound = [word for word in sorted(hyphened | FINDINGS) if f'"{word}"' not in source]
    assert (unknown, unset, strange, absent, unfound) == ([], [], [], [], [])
    assert sum(word in OPTIONS for word in words) > 20


@pytest.mark.parametrize("language", PAGES)
def test_tables_are_whole(language: str) -> None:
    """Every key of dataset_info.json, every tool format and every way of `overlong` and `mix_strategy` is explained."""
    words = set(inline(PAGES[language]))
    keys = {key for layout in formats.DEFAULTS.values() for part in (layout.columns, layout.tags) for key in part}
    needed = {*InfoEntry.model_fields, *keys, *formats._ANSWERS, *formats._OPTIONAL, *TOOL_FORMATS}
    needed |= choices(OPTIONS["mix_strategy"]) | choices(OPTIONS["overlong"])
    assert needed - words == set()


def shape(page: Path) -> list[str]:
    """What both languages share: how headings are nested, how many rows each table has, where blocks stand."""
    lines: list[str] = []
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if fenced or line.startswith("```"):
            lines.append(line)
        elif line.startswith("#"):
            lines.append(line.split(" ")[0])
        elif line.startswith("|"):
            lines.append("| " * line.replace(r"\|", "").count("|"))
    return lines


def test_both_languages_have_the_same_shape() -> None:
    """The same headings, tables and blocks in the same order; the blocks letter by letter."""
    assert shape(PAGES["zh"]) == shape(PAGES["en"])


@pytest.mark.parametrize("language", PAGES)
def test_links_lead_somewhere(language: str) -> None:
    """To a file that is there, or to a heading of the page, named as GitHub names it."""
    page = PAGES[language]
    text = page.read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-")
                for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link[1:] in headings if link.startswith("#") else (page.parent / link).exists(), link


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_tables_keep_their_columns(page: Path) -> None:
    """Every row of a table has as many cells as its head: benchmarks write into these pages."""
    head = None
    for number, line in enumerate(page.read_text(encoding="utf-8").split("\n"), 1):
        if not line.startswith("|"):
            head = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line)))
        head = head or cells
        assert cells == head, f"{page.name}:{number}: {line}"
