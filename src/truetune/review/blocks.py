"""What a report is made of. A `Both` is our own words; a plain `str` is data of the user or the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from truetune.findings import Both

Cell = Both | str


@dataclass(frozen=True)
class Heading:
    """kind: of the verdict, which is the first heading; None: any other."""

    words: Both
    kind: str | None = None


@dataclass(frozen=True)
class Lines:
    """Sentences. title: a list of them, under this."""

    lines: Sequence[Both]
    title: Both | None = None


@dataclass(frozen=True)
class Table:
    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Picture:
    """A PNG in the run folder."""

    name: str
    caption: Both


@dataclass(frozen=True)
class Answers:
    """Prompts, each as (text, place, wanted answer, answer before, answer after); what is not known is None. folded: of
    less interest."""

    asked: Sequence[tuple[str, str | None, str | None, str | None, str | None]]
    folded: bool = False


@dataclass(frozen=True)
class Command:
    """A line for the terminal, and what it is good for."""

    words: Both
    line: str


Block = Heading | Lines | Table | Picture | Answers | Command
