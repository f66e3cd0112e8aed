"""A run.yaml for this model, this data, this machine and this goal, every value with its reason and its source.

What is chosen is decided in `table`; here the table is gone through, checked by the rules that every run must pass, and
written so that a person can read it, learn from it and change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from truetune import __version__
from truetune.files import write_text
from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, Say, Words, problem, spoken, worst_first
from truetune.guide.facts import gather
from truetune.guide.situation import Goal, Situation
from truetune.guide.table import CHOICES, NOTES, OWN, USER
from truetune.options import GROUPS, OPTIONS, Config
from truetune.options.read import as_yaml
from truetune.options.sources import SOURCES
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
    """lines: what was chosen, in the order of the file. findings: what to know about it. config: the run that it is,
    with an error among the findings where this version cannot train it."""

    situation: Situation
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    config: Config


def make_recipe(fixed: Config, goal: Goal | None, say: Say) -> Recipe:
    """The recipe for what the user fixed: at least model and data.

    Args:
        goal: None takes the one that the data look like.

    Raises:
        Problem: model or data cannot be read, or what the user fixed does not go together.
    """
    facts = gather(fixed, say)
    values = {name: getattr(fixed, name) for name in OPTIONS if fixed.given(name)}
    situation = Situation(facts, goal or _goal(facts), fixed, values)
    lines = [Line(name, value, Both("You set it.", "由你指定。"), USER) for name, value in values.items()]
    # Whatever depends on the number of steps is chosen after it; the reasons are filled when all is known.
    chosen = []
    for choice in CHOICES:
        if choice.option not in situation.values and choice.when(situation):
            situation.values[choice.option] = choice.value(situation)
            chosen.append(choice)
    words = situation.words()
    for choice in chosen:
        value = situation.values[choice.option]
        why = Both(*(half.format(**{**words, "value": value}) for half in choice.why))
        lines.append(Line(choice.option, value, why, choice.source))
    config = Config.model_validate(situation.values)
    config._origins.update({name: fixed.origin(name) or "recipe" for name in situation.values})
    told = [Finding(note.id, note.severity, Both(*(half.format(**words) for half in note.message)), option=note.option,
                    source=note.source) for note in NOTES if note.when(situation)]
    findings = [*told, *apply_rules(config, "train")]
    clashes = [finding for finding in findings if finding.severity == "error" and finding.option != "stage"]
    if clashes:
        raise Problem(clashes, WRONG_OPTIONS)
    return Recipe(situation, tuple(lines), tuple(worst_first(findings)), config)


def _goal(facts: Any) -> Goal:
    """What the data look like."""
    if facts.data.kind in ("preferences", "judged"):
        return "preference"
    if facts.data.kind == "documents":
        return "knowledge"
    return "reasoning" if facts.data.thinking > 0.5 else "style"


# ---------------------------------------------------------------------------------------------------------- as a file


def as_text(recipe: Recipe, chinese: bool) -> str:
    """The run.yaml: a header, the options group by group, and where their reasons come from."""
    pieces = [*_comment(spoken(_headline(recipe), chinese), chinese)]
    for line in _described(recipe):
        pieces += _comment(spoken(line, chinese), chinese)
    for finding in recipe.findings:
        pieces += ["#", *_comment(finding.line(chinese), chinese)]
    for group in GROUPS:
        mine = [line for line in recipe.lines if line.option in group.model_fields]
        if mine:
            pieces += ["", f"# {'─' * 4} {group.title[chinese]} {'─' * (60 - cell_len(group.title[chinese]))}"]
        for line in mine:
            pieces += ["", *_comment(f"{spoken(line.why, chinese)} ({spoken(_title(line.source), chinese)})", chinese),
                       _yaml(line.option, line.value)]
    pieces += ["", *_comment(spoken(Both("Where the reasons come from:", "理由的出处："), chinese), chinese)]
    named = dict.fromkeys([line.source for line in recipe.lines] + [f.source for f in recipe.findings if f.source])
    pieces += [f"#   {SOURCES[key].title}: {SOURCES[key].link}" for key in named if key in SOURCES]
    return "\n".join(pieces) + "\n"
