"""A run.yaml for this model, this data, this machine and this goal, every value with its reason and its source.

What is chosen is decided in `table`; here the table is gone through, checked by the rules that every run must pass, and
written so that a person can read it, learn from it and change it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.cells import cell_len

from truetune import __version__
from truetune.check.machine import size
from truetune.check.schedule import duration
from truetune.files import write_text
from truetune.findings import (
    FAILED,
    OK,
    WRONG_OPTIONS,
    Both,
    Finding,
    Problem,
    Say,
    Words,
    problem,
    spoken,
    status_of,
    worst_first,
)
from truetune.guide.facts import Facts, gather
from truetune.guide.situation import GOALS, Goal, Situation, in_short
from truetune.guide.table import CHOICES, NOTES, OWN, USER, Choice
from truetune.options import GROUPS, OPTIONS, Config
from truetune.options.read import as_yaml
from truetune.options.sources import SOURCES
from truetune.report import Terminal, print_findings
from truetune.rules import apply_rules

_WIDTH = 110


@dataclass(frozen=True)
class Line:
    """One option of the file: its value, why, and who says so."""

    option: str
    value: Any
    why: Both
    source: str


@dataclass(frozen=True)
class Recipe:
    """lines: what was chosen, in the order of the file. findings: what to know about it. config: the run that it is."""

    situation: Situation
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    config: Config


def make_recipe(fixed: Config, goal: str | None, say: Say) -> Recipe:
    """The recipe for what the user fixed: at least model and data.

    Args:
        goal: None takes the one that the data look like.

    Raises:
        Problem: there is no such goal, model or data cannot be read, or what the user fixed does not go together.
    """
    if goal not in (None, *GOALS):
        raise problem(
            "bad-value", Both(f"{goal!r:.80} is not a value it takes.", f"不接受 {goal!r:.80}。"), option="--goal",
                      status=WRONG_OPTIONS, fix=Both(f"It takes {'|'.join(GOALS)}.", f"取值：{'|'.join(GOALS)}。"))
    facts = gather(fixed, say)
    values = {name: getattr(fixed, name) for name in OPTIONS if fixed.given(name)}
    situation = Situation(facts, cast(Goal | None, goal) or _goal(facts), fixed, dict(values))
    chosen = _choose(situation)
    config = fixed.with_values("recipe", **{name: situation[name] for name in situation.values if name not in values})
    words = situation.words()  # now that all is known
    lines = [*(Line(name, value, Both("You set it.", "由你指定。"), USER) for name, value in values.items()),
             *(Line(choice.option, situation[choice.option], _filled(
                 choice.why, {**words, "value": situation[choice.option]}), choice.source) for choice in chosen)]
    notes = [Finding(note.id, note.severity, _filled(note.message, words), option=note.option, source=note.source)
             for note in NOTES if note.when(situation)]
    findings = [*notes, *apply_rules(config, "train")]
    clashes = [finding for finding in findings if finding.severity == "error"]  # of what the user fixed
    if clashes:
        raise Problem(clashes, WRONG_OPTIONS)
    return Recipe(situation, tuple(lines), tuple(worst_first(findings)), config)


def _choose(situation: Situation) -> list[Choice]:
    """Go through the table: each option's first row that applies. The values are put into `situation`."""
    chosen = []
    for choice in CHOICES:
        if choice.option not in situation.values and choice.when(situation):
            situation.values[choice.option] = choice.value(situation)
            chosen.append(choice)
    return chosen


def _filled(words: Both, values: Mapping[str, object]) -> Both:
    return Both(*(half.format(**values) for half in words))


def _goal(facts: Facts) -> Goal:
    """What the data look like."""
    if facts.data.kind in ("preferences", "judged"):
        return "preference"
    if facts.data.kind == "documents":
        return "knowledge"
    return "reasoning" if facts.data.thinking > 0.5 else "style"


# ---------------------------------------------------------------------------------------------------------- as a file


def as_text(recipe: Recipe, chinese: bool) -> str:
    """The run.yaml: what it is for, the options group by group, each below its reason, and the sources."""
    lines: list[str] = []
    for words in (*_heading(recipe), *(finding.line(chinese) for finding in recipe.findings)):
        lines += [*_comment(spoken(words, chinese)), "#"]
    lines.pop()
    for group in GROUPS:
        mine = [line for line in recipe.lines if line.option in group.model_fields]
        if mine:
            title = group.title[chinese]
            lines += ["", f"# ──── {title} {'─' * (_WIDTH - 8 - cell_len(title))}"]
        for line in mine:
            lines += ["", *_comment(_reason(line, chinese)), _yaml(line.option, line.value)]
    named = [line.source for line in recipe.lines] + [finding.source or "" for finding in recipe.findings]
    links = [f"#   {SOURCES[key].title}: {SOURCES[key].link}" for key in dict.fromkeys(named) if key in SOURCES]
    return "\n".join([*lines, "", spoken(Both("# Where to read more:", "# 延伸阅读："), chinese), *links]) + "\n"


def _heading(recipe: Recipe) -> list[Words]:
    s = recipe.situation
    data, model, machine = s.facts.data, s.facts.model, s.facts.machine
    words = s.words()
    return [
        Both(f"A recipe by truetune {__version__}, goal: {s.goal}. It can be trained as it is; change what you know "
             "better. What is said of memory and time holds for the machine that it was written on.",
             f"truetune {__version__} 生成的训练配方，目标：{_GOAL_NAMES[s.goal].zh}。可以直接训练，"
             f"也可以按你的了解修改。"
             "显存和耗时以生成它的机器为准。"),
        Both(f"Model: {s['model_name_or_path']}, {in_short(model.parameters)} weights, rows of up to {model.limit:,} "
             "tokens.", f"模型：{s['model_name_or_path']}，{in_short(model.parameters)} 参数，每行最多 "
                        f"{model.limit:,} token。"),
        Both(f"Data: {data.rows:,} rows of {words['median']} tokens (median) to {words['longest']}, "
             f"{100 * data.several_turns:.0f} % with several turns, {100 * data.thinking:.0f} % with thoughts, "
             f"{100 * data.chinese:.0f} % of the letters Chinese.",
             f"数据：{data.rows:,} 行，token 数中位 {words['median']}、最长 {words['longest']}；多轮占 "
             f"{100 * data.several_turns:.0f} %，带思考占 {100 * data.thinking:.0f} %，汉字占 "
             f"{100 * data.chinese:.0f} %。"),
        Both(f"Machine: {machine.device.type}, {words['free']} free; {machine.measured}.",
             f"机器：{machine.device.type}，可用内存 {words['free']}；{machine.measured}。"),
        _run(s),
    ]


def _run(s: Situation) -> Both:
    """What the run will be."""
    need, time = size(s.room.need), duration(s.seconds())
    return Both(
        f"The run: {s.steps:,} steps of {s.batch} rows; reckoned, not measured: {need} of memory and {time.en}.",
        f"训练：{s.steps:,} 步，每步 {s.batch} 行；估算（未实测）：内存 {need}，耗时 {time.zh}。")


_GOAL_NAMES = {"style": Both("style", "风格"), "knowledge": Both("knowledge", "知识"),
               "preference": Both("preference", "偏好"), "reasoning": Both("reasoning", "推理")}


def _reason(line: Line, chinese: bool) -> str:
    """Why, and who says so."""
    source = SOURCES[line.source].title if line.source in SOURCES else spoken(OWN[line.source], chinese)
    return spoken(line.why, chinese) + (("（{}）" if chinese else " ({})").format(source) if source else "")


def _yaml(option: str, value: Any) -> str:
    """`option: value`; several words as a comma string, as people write them."""
    if isinstance(value, tuple):
        several = any("," in str(part) for part in value)
        value = list(value) if several or not value else ",".join(map(str, value))
    return as_yaml(option, value)


_PIECE = re.compile(r"[\u2e80-\u9fff\uff00-\uffef][，。；：、）”]*|[^\s\u2e80-\u9fff\uff00-\uffef]+|\s+")


def _comment(text: str) -> list[str]:
    """Text as lines of a comment. Chinese has no spaces to break at; a line breaks before any of its letters."""
    lines, line = [], ""
    for piece in _PIECE.findall(text):
        if cell_len(line + piece.rstrip()) > _WIDTH - 2:
            lines.append(line.rstrip())
            line = ""
        line += piece if line else piece.lstrip()
    return [f"# {line}" for line in [*lines, line] if line]


# ------------------------------------------------------------------------------------------------------ to the user


def write_recipe(recipe: Recipe, output: str, overwrite: bool, terminal: Terminal) -> int:
    """Write the file (`-`: to standard output), and say on `terminal` what the run will be and what to do next. Returns
    the exit status: 1 where this version cannot train it yet.

    Raises:
        Problem: the file is there already, or cannot be written.
    """
    text = as_text(recipe, terminal.chinese)
    if output == "-":
        print(text, end="")
    else:
        _write(Path(output), text, overwrite)
    print_findings(recipe.findings, terminal)
    s = recipe.situation
    terminal.say(Both(f"{s['finetuning_type']} for {s.goal}, learning_rate {s['learning_rate']:g}",
                      f"{s['finetuning_type']}，目标{_GOAL_NAMES[s.goal].zh}，learning_rate {s['learning_rate']:g}"))
    terminal.say(_run(s))
    possible = status_of(recipe.findings) != "error"
    if output != "-":
        terminal.say(Both(f"written to {output}, every value with its reason", f"已写入 {output}，每个值都附有理由"))
    if output != "-" and possible:
        terminal.say(Both("next:", "接下来："))
        for command, words in _NEXT:
            terminal.print(f"  truetune {command} {output}   {words[terminal.chinese]}")
    return OK if possible else FAILED


_NEXT = (
    ("check  ", Both("what the run will do, in detail", "详细看看训练会做什么")),
    ("find-lr", Both("measure the learning rate on this model and data", "在这个模型和数据上实测学习率")),
    ("train  ", Both("train", "开始训练")),
)


def _write(path: Path, text: str, overwrite: bool) -> None:
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise problem("not-yaml", Both("a recipe is written as .yaml.", "配方只能写成 .yaml。"), option="--output",
                      status=WRONG_OPTIONS)
    if path.exists() and not overwrite:
        raise problem("file-exists", Both(f"{path} is there already.", f"{path} 已经存在。"), option="--output",
                      status=WRONG_OPTIONS, fix=Both("Give another name, or "
                                                     "--overwrite.", "换个名字，或加 --overwrite。"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise problem("not-writable", Both(f"{path} cannot be written: {error.strerror}.",
                                           f"无法写入 {path}：{error.strerror}。"), option="--output") from None
