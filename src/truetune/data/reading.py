"""The rows of a data set as a stage learns from them, one item for each raw row, so that whoever reads can count.

A row that cannot be learned from comes as `Refused` in its place and stops nothing; a file that cannot be read does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from truetune.data.formats import DEFAULTS, KNOWN_SHAPES, Layout, recognise, to_row
from truetune.data.messages import BadRow, Conversation, Judged, Kind, Message, Place, Preference, Row
from truetune.data.sources import Source
from truetune.findings import Finding, problem
from truetune.options import Config

STAGE_ROWS: Mapping[str, Kind] = {"pt": "documents", "sft": "conversations", "rm": "preferences", "dpo": "preferences",
                                  "kto": "judged"}
"""What the rows of each stage are."""
_WORDS: Mapping[Kind, tuple[str, str]] = {
    "documents": ("plain text", "plain text"),
    "conversations": ("conversations, whose answers are learned", "answers"),
    "preferences": ("preferences (chosen and rejected)", "pairs of answers, chosen and rejected"),
    "judged": ("answers judged good or bad (kto_tag or label), a form of preferences", "answers judged good or bad"),
}
"""What a data set holds, and what a stage learns from."""
_LOOKED_AT = 100
_SEARCHED = 10_000


class Refused(NamedTuple):
    """A row that is not learned from: where it is, and why."""

    place: Place
    reason: str
    id: str = "bad-row"
    fix: str | None = None


def read_source(source: Source, config: Config, kind: Kind, start: int = 0) -> Iterator[Row | Refused]:
    """The rows of `source` in order, the first `start` passed over; the first `max_samples` where the source draws none
    itself (`num_samples`).

    Raises:
        Problem: the source cannot be read, holds no rows, or holds rows of another kind or of no known format.
    """
    layout = find_layout(source, config, kind)
    last = None if source.num_samples or config.max_samples is None else max(config.max_samples - start, 0)
    fill = _Filler(config)
    for values, place in islice(source.rows(start), last):
        try:
            row = to_row(values, layout, kind, place)
        except BadRow as error:
            yield Refused(place, str(error), error.id, error.fix)
        else:
            yield fill(row, place)


def find_layout(source: Source, config: Config, kind: Kind) -> Layout:
    """How to read the rows of `source`: as dataset_info.json says, or as the first of them tell.

    Raises:
        Problem: they cannot be read, there are none, or they are of another kind or of no known format.
    """
    first = list(islice(source.rows(), _LOOKED_AT))
    if not first:
        raise problem("no-rows", "the data set holds no rows.", where=source.where or source.name)
    where = str(first[0].place)
    layout = source.layout or recognise([row.values for row in first])
    columns = {column for row in first for column in row.values}
    if layout is None:
        raise problem("unknown-format", f"its columns ({', '.join(sorted(columns))}) are those of no known format.",
                      where=where, fix=f"Known are {KNOWN_SHAPES}. Or describe it in dataset_info.json.")
    if layout.kind != kind:
        fits = [stage for stage, rows in STAGE_ROWS.items() if rows == layout.kind]
        raise problem("wrong-stage", f"holds {_WORDS[layout.kind][0]}, and stage {config.stage} learns from "
                      f"{_WORDS[kind][1]}.", where=source.where if source.layout else where,
                      fix=f"It is for stage {' or '.join(fits)}; or name in dataset_info.json the columns to learn "
                          "from (a columns block replaces the defaults whole).")
    if source.layout:
        _no_slip(source, layout, columns)
    return layout


def _no_slip(source: Source, layout: Layout, columns: set[str]) -> None:
    """A slip in the name of an optional column would lose it unseen. A column may be rare, so it is looked for."""
    defaults = {name for default in DEFAULTS.values() for name in default.columns.values()}
    absent = set(layout.columns.values()) - columns - defaults
    if absent:
        for row in islice(source.rows(), _SEARCHED):
            columns |= row.values.keys()
            if absent <= columns:
                return
        lost = ", ".join(sorted(absent - columns))
        raise problem("no-column", f"dataset_info.json names columns ({lost}) that no row has.", where=source.where,
                      fix=f"The rows have {', '.join(sorted(columns))}.")


# -------------------------------------------------------------------------------- the assistant's name, system messages

_PLACEHOLDER = re.compile(r"\{\{\s*(name|author)\s*\}\}")
_BAD, _UNFILLED = "bad-row", "unfilled-placeholder"


class _Filler:
    """Adds `default_system` to conversations that bring none, and puts in what {{name}} and {{author}} stand for. Plain
    text is left as it is."""

    def __init__(self, config: Config):
        self.values = {"name": config.identity_name, "author": config.identity_author}
        self.system = [Message("system", config.default_system)] if config.default_system else []

    def __call__(self, row: Row, place: Place) -> Row | Refused:
        match row:
            case Conversation():
                filled, unfilled = self._fill(row)
            case Judged(talk, good):
                talk, unfilled = self._fill(talk)
                filled = Judged(talk, good)
            case Preference(chosen, rejected):
                (chosen, unfilled), (rejected, more) = self._fill(chosen), self._fill(rejected)
                filled, unfilled = Preference(chosen, rejected), unfilled | more
            case _:
                return row
        if not unfilled:
            return filled
        names = tuple(name for name in self.values if name in unfilled)
        return Refused(place, f"{' and '.join(f'{{{{{name}}}}}' for name in names)} not filled",
                       _UNFILLED, " ".join(map(_fix, names)))

    def _fill(self, talk: Conversation) -> tuple[Conversation, set[str]]:
        """The conversation, filled, and the placeholders that nothing fills."""
        messages = talk.messages
        if self.system and messages[0].role != "system":
            messages = (*self.system, *messages)
        elif not any(["{{" in message.content or "{{" in (message.reasoning or "") for message in messages]):
            return talk, set()  # a list is quicker than a generator here, and this is every row
        unfilled: set[str] = set()

        def put(hit: re.Match[str]) -> str:
            if self.values[hit[1]] is None:
                unfilled.add(hit[1])
            return self.values[hit[1]] or hit[0]

        filled = (message._replace(
            content=_PLACEHOLDER.sub(put, message.content),
            reasoning=message.reasoning and _PLACEHOLDER.sub(put, message.reasoning)) for message in messages)
        return replace(talk, messages=tuple(filled)), unfilled


def _fix(name: str) -> str:
    return f"Set identity_{name} (to '{{{{{name}}}}}' itself, to keep the rows as they are)."


# ------------------------------------------------------------------------------------------------------------ findings


def describe_refused(refused: Sequence[Refused], total: int,
                     counts: Mapping[str, int] | None = None) -> list[Finding]:
    """Findings for rows that are not learned from, of `total`: the first ten bad ones by line, the rest as a number;
    what is the same in many rows (a placeholder that nothing fills, a template without tools) once, with their number.

    Args:
        counts: how many there are of each id, where `refused` are only the first of them.
    """
    known = Counter(row.id for row in refused)
    counts = known if counts is None else counts
    bad = [row for row in refused if row.id == _BAD]
    findings = [Finding(row.id, "error", f"{row.reason}.", where=str(row.place) or None, fix=row.fix)
                for row in bad[:10]]
    more = counts.get(_BAD, 0) - len(findings)
    if more > 0:
        findings.append(Finding(_BAD, "error", f"{more} more of {total} rows are wrong."))
    for id in known.keys() - {_BAD, _UNFILLED}:  # one reason for all of them
        first = next(row for row in refused if row.id == id)
        findings.append(Finding(id, "error", f"in {counts[id]} of {total} rows {first.reason}.", where=str(first.place),
                                fix=first.fix))
    at_least = "at least " if counts.get(_UNFILLED, 0) > known[_UNFILLED] else ""
    for name in ("name", "author"):
        places = [row.place for row in refused if row.id == _UNFILLED and name in _PLACEHOLDER.findall(row.reason)]
        if places:
            findings.append(Finding(_UNFILLED, "error", f"{{{{{name}}}}} is not filled ({at_least}{len(places)} of "
                                    f"{total} rows).", where=str(places[0]), fix=_fix(name)))
    return findings


