"""What a file of data holds: a first look at its columns and rows, and, read whole, how many rows there are, how long,
which cannot be learned from, which repeat.

No tokenizer is needed and nothing is kept of a row but a few numbers, so a file may be larger than the memory.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from truetune.data.derive import placeholders, read_row
from truetune.data.describe import Column, Description, Sure, columns_of, describe, guessed
from truetune.data.formats import Layout, recognise
from truetune.data.incoming import tolerant_rows
from truetune.data.messages import Conversation, Document, Judged, Place, Preference, Row
from truetune.data.readers import RawRow
from truetune.data.reading import Refused
from truetune.findings import Both, Finding, Problem, Say

LOOKED_AT = 200
"""Rows by which a file is recognised and that are shown."""
_LETTERS = 4_000_000
"""At most so many letters of them, in rows of whatever length."""
KEPT = 200
"""Bad rows that are named; all are counted."""


# ------------------------------------------------------------------------------------------------------- a first look


@dataclass
class Look:
    """The first rows of a file. layout: how they are read (None: nobody knows). rows: those that can be learned from,
    refused: those that cannot. whole: there are no more. findings: why the rest cannot be read."""

    raw: list[RawRow] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    description: Description | None = None
    sure: Sure = "unknown"
    layout: Layout | None = None
    rows: list[Row] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    placeholders: dict[str, int] = field(default_factory=dict)
    whole: bool = True
    findings: list[Finding] = field(default_factory=list)

    def read(self, description: Description | None) -> None:
        """Take the columns for what `description` says, or for what they tell (None)."""
        values = [row.values for row in self.raw]
        self.columns, self.placeholders = columns_of(values), placeholders(values)
        if not values:
            return
        self.description, self.sure = (description, "known") if description else describe(values)
        self._read_rows()
        if not self.rows and not description and self.sure == "known" and (guess := guessed(values)):
            self.description, self.sure = guess, "guessed"  # known columns, with something else in them
            self._read_rows()

    def _read_rows(self) -> None:
        self.refused = [row for row in self.refused if row.id in _UNREADABLE]
        try:
            self.layout = self.description.layout() if self.description else recognise([row.values for row in self.raw])
        except Problem as problem:
            self.findings += problem.findings
            return
        if self.layout is None:
            return
        for raw in self.raw:
            row = read_row(raw, self.layout)
            self.refused.append(row) if isinstance(row, Refused) else self.rows.append(row)


_UNREADABLE = ("bad-json", "bad-csv")
"""Why a line is no row at all."""


def first_look(paths: Sequence[Path], name: str | None = None, description: Description | None = None) -> Look:
    """What files of one kind seem to hold, by their first rows.

    Args:
        name: what they are called in what is said; None: by their own names.
        description: what their columns mean; None: as they tell.
    """
    look = Look()
    letters = 0
    try:
        for row in islice(_rows(paths, name), LOOKED_AT + 1):
            letters += len(str(row.values)) if isinstance(row, RawRow) else 0
            if len(look.raw) + len(look.refused) == LOOKED_AT or (letters > _LETTERS and look.raw):
                look.whole = False
                break
            look.raw.append(row) if isinstance(row, RawRow) else look.refused.append(row)
    except Problem as problem:
        look.findings = problem.findings
    except OSError as error:
        look.findings = [unreadable(error, name)]
    look.read(description)
    return look


def unreadable(error: OSError, where: str | None) -> Finding:
    return Finding("data-unreadable", "error", Both(f"cannot be read: {error.strerror}.",
                                                    f"无法读取：{error.strerror}。"), where=where)


def _rows(paths: Sequence[Path], name: str | None) -> Iterator[RawRow | Refused]:
    for path in paths:
        yield from tolerant_rows(path, name or path.name)


# --------------------------------------------------------------------------------------------------------- all of it


@dataclass
class Lengths:
    """How long something is over all rows. bars: (from, to, rows)."""

    median: int
    longest: int
    bars: tuple[tuple[int, int, int], ...]


@dataclass
class Survey:
    """A file read whole. good: rows that can be learned from. bad: how many cannot, by kind of reason; refused: the
    first of them. repeated: rows that stand there before; differing: rows whose question stands there before with
    another answer. scripts: how many answers are mostly in each of `check.scripts.SCRIPTS`. longest: places of the
    longest rows with their letters. findings: why the rest could not be read."""

    good: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    refused: list[Refused] = field(default_factory=list)
    turns: Counter[int] = field(default_factory=Counter)
    repeated: int = 0
    first_repeated: list[Place] = field(default_factory=list)
    differing: int = 0
    first_differing: list[Place] = field(default_factory=list)
    scripts: Counter[Both] = field(default_factory=Counter)
    labels: Counter[bool] = field(default_factory=Counter)
    systems: int = 0
    letters: Lengths = field(default_factory=lambda: Lengths(0, 0, ()))
    answers: Lengths = field(default_factory=lambda: Lengths(0, 0, ()))
    longest: list[tuple[int, str]] = field(default_factory=list)
    frequent: tuple[int, str] = (0, "")
    findings: list[Finding] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.good + sum(self.bad.values())


def survey(paths: Sequence[Path], name: str | None, layout: Layout, say: Say) -> Survey:
    """Read files whole. Never raises for what is wrong with it: that is among the findings."""
    found, tally = Survey(), _Tally()
    try:
        for number, row in enumerate(_rows(paths, name), start=1):
            read = read_row(row, layout) if isinstance(row, RawRow) else row
            if isinstance(read, Refused):
                found.bad[read.id] += 1
                if len(found.refused) < KEPT:
                    found.refused.append(read)
            else:
                tally.add(read, found)
            if number % 5000 == 0:
                say(Both(f"{number:,} rows read", f"已读取 {number:,} 行"))
    except Problem as problem:
        found.findings = problem.findings
    except OSError as error:
        found.findings = [unreadable(error, name)]
    tally.finish(found)
    return found


class _Tally:
    """What is counted while reading."""

    def __init__(self) -> None:
        self.letters: list[int] = []
        self.answers: list[int] = []
        self.keys: set[int] = set()
        self.questions: dict[int, int] = {}
        self.frequent: Counter[int] = Counter()
        self.begins: dict[int, str] = {}
        self.longest: list[tuple[int, str]] = []
        self.waiting: list[str] = []

    def add(self, row: Row, found: Survey) -> None:
        asked, answered, turns = said(row)
        found.good += 1
        found.turns[turns] += 1
        found.systems += _has_system(row)
        if isinstance(row, Judged):
            found.labels[row.good] += 1
        place, length = row.place, len(asked) + len(answered)
        self.letters.append(length)
        self.answers.append(len(answered))
        if len(self.longest) < _SHOWN:
            heapq.heappush(self.longest, (length, str(place)))
        elif length > self.longest[0][0]:
            heapq.heapreplace(self.longest, (length, str(place)))
        self._repeats(asked, answered, place, found)
        self.waiting.append(answered[:400])
        if len(self.waiting) == 1000:
            self._scripts(found)

    def _repeats(self, asked: str, answered: str, place: Place, found: Survey) -> None:
        question, answer = hash(" ".join(asked.split())), hash(" ".join(answered.split()))
        key = hash((question, answer))
        if key in self.keys:
            found.repeated += 1
            found.first_repeated += [place] * (len(found.first_repeated) < _SHOWN)
        elif asked and self.questions.setdefault(question, answer) != answer:
            found.differing += 1
            found.first_differing += [place] * (len(found.first_differing) < _SHOWN)
        self.keys.add(key)
        self.frequent[answer] += 1
        if answer not in self.begins:
            self.begins[answer] = answered[:60]

    def _scripts(self, found: Survey) -> None:
        from truetune.check.scripts import SCRIPTS, main_scripts  # what else is in `check` imports torch

        scripts = main_scripts(self.waiting)
        found.scripts.update(SCRIPTS[number] for number in scripts[scripts >= 0].tolist())
        self.waiting = []

    def finish(self, found: Survey) -> None:
        self._scripts(found)
        found.letters, found.answers = lengths_of(self.letters), lengths_of(self.answers)
        found.longest = sorted(self.longest, reverse=True)
        for answer, count in self.frequent.most_common(1):
            found.frequent = (count, self.begins[answer])


_SHOWN = 5
_BARS = 16


def said(row: Row) -> tuple[str, str, int]:
    """What is asked in a row, what is answered (of a pair, the better answer), and how many answers there are."""
    match row:
        case Document(text):
            return "", text, 0
        case Judged(talk):
            return said(talk)
        case Preference(chosen, rejected):
            asked, answered, turns = said(chosen)
            return f"{asked}\n{rejected.messages[-1].content}", answered, turns
        case Conversation(messages):
            answers = [message.content for message in messages if message.role == "assistant"]
            before = [message.content for message in messages if message.role != "assistant"]
            return "\n".join(before), "\n".join(answers), len(answers)


def _has_system(row: Row) -> bool:
    match row:
        case Conversation(messages):
            return messages[0].role == "system"
        case Judged(talk):
            return _has_system(talk)
        case Preference(chosen):
            return _has_system(chosen)
    return False


def lengths_of(lengths: Sequence[int]) -> Lengths:
    """A histogram with round borders; the last bar holds all that is longer than almost all rows."""
    if not lengths:
        return Lengths(0, 0, ())
    ordered = sorted(lengths)
    longest, most = ordered[-1], ordered[min(int(0.995 * len(ordered)), len(ordered) - 1)]
    width = _round(max(most // (_BARS - 1), 1))
    borders = list(range(0, most + width, width))
    at = [bisect.bisect_left(ordered, border) for border in borders]
    counts = [after - before for before, after in zip(at, [*at[1:], len(ordered)], strict=True)]
    bars = [(border, border + width - 1 if number + 1 < len(borders) else max(longest, border + width - 1), count)
            for number, (border, count) in enumerate(zip(borders, counts, strict=True))]
    return Lengths(ordered[len(ordered) // 2], longest, tuple(bars))


def _round(width: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50, …"""
    scale = 10 ** (len(str(width)) - 1)
    return next(step * scale for step in (1, 2, 5, 10) if step * scale >= width)
