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
from truetune.findings import Both, Finding, Words, problem, spoken
from truetune.options import Config

STAGE_ROWS: Mapping[str, Kind] = {"pt": "documents", "sft": "conversations", "rm": "preferences", "dpo": "preferences",
                                  "kto": "judged", "ppo": "conversations", "grpo": "conversations",
                                  "distill": "conversations"}
"""What the rows of each stage are."""
_WORDS: Mapping[Kind, tuple[Both, Both]] = {
    "documents": (Both("plain text", "纯文本"), Both("plain text", "纯文本")),
    "conversations": (Both("conversations, whose answers are learned", "对话（学习其中的回答）"),
                      Both("answers", "回答")),
    "preferences": (Both("preferences (chosen and rejected)", "偏好数据（chosen 和 rejected）"),
                    Both("pairs of answers, chosen and rejected", "成对的回答（chosen 和 rejected）")),
    "judged": (Both("answers judged good or bad (kto_tag or label), a form of preferences",
                    "带好坏标注的回答（kto_tag 或 label），也是一种偏好数据"),
               Both("answers judged good or bad", "带好坏标注的回答")),
}
"""What a data set holds, and what a stage learns from."""
_LOOKED_AT = 100
_SEARCHED = 10_000


class Refused(NamedTuple):
    """A row that is not learned from: where it is, and why."""

    place: Place
    reason: Words
    id: str = "bad-row"
    fix: Words | None = None


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
            yield Refused(place, error.reason, error.id, error.fix)
        else:
            yield fill(row, place)


def find_layout(source: Source, config: Config, kind: Kind) -> Layout:
    """How to read the rows of `source`: as dataset_info.json says, or as the first of them tell.

    Raises:
        Problem: they cannot be read, there are none, or they are of another kind or of no known format.
    """
    first = list(islice(source.rows(), _LOOKED_AT))
    if not first:
        raise problem("no-rows", Both("the data set holds no rows.", "数据集里没有数据。"),
                      where=source.where or source.name)
    where = str(first[0].place)
    layout = source.layout or recognise([row.values for row in first])
    columns = {column for row in first for column in row.values}
    if layout is None:
        raise problem("unknown-format", Both(
            f"its columns ({', '.join(sorted(columns))}) are those of no known format.",
            f"它的列（{'、'.join(sorted(columns))}）不属于任何已知格式。"), where=where,
            fix=Both(f"Known are {KNOWN_SHAPES}. Or describe it in dataset_info.json.",
                     f"已知的格式：{KNOWN_SHAPES.zh}。也可以在 dataset_info.json 里描述它。"))
    if layout.kind != kind:
        fits = [stage for stage, rows in STAGE_ROWS.items() if rows == layout.kind]
        holds, learned = _WORDS[layout.kind][0], _WORDS[kind][1]
        raise problem("wrong-stage", Both(f"holds {holds}, and stage {config.stage} learns from {learned}.",
                                          f"内容是{holds.zh}，而 stage {config.stage} 学习的是{learned.zh}。"),
                      where=source.where if source.layout else where,
                      fix=Both(f"It is for stage {' or '.join(fits)}; or name in dataset_info.json the columns to "
                               "learn from (a columns block replaces the defaults whole).",
                               f"它适用于 stage {' 或 '.join(fits)}；也可以在 dataset_info.json 里指定要学习的列"
                               "（写了 columns 块，默认值就全部失效）。"))
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
        lost, there = sorted(absent - columns), sorted(columns)
        raise problem("no-column", Both(f"dataset_info.json names columns ({', '.join(lost)}) that no row has.",
                                        f"dataset_info.json 指定的列（{'、'.join(lost)}）在数据里都没有。"),
                      where=source.where,
                      fix=Both(f"The rows have {', '.join(there)}.", f"数据里的列有：{'、'.join(there)}。"))


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
        names = [name for name in self.values if name in unfilled]
        marks, fixes = [f"{{{{{name}}}}}" for name in names], list(map(_fix, names))
        return Refused(place, Both(f"{' and '.join(marks)} not filled", f"{' 和 '.join(marks)} 没有填入"), _UNFILLED,
                       Both(" ".join(fix.en for fix in fixes), "".join(fix.zh for fix in fixes)))

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


def _fix(name: str) -> Both:
    return Both(f"Set identity_{name} (to '{{{{{name}}}}}' itself, to keep the rows as they are).",
                f"请设置 identity_{name}（要保留原样，就设为 '{{{{{name}}}}}' 本身）。")


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
    findings = [Finding(row.id, "error", Both(f"{row.reason}.", f"{spoken(row.reason, True)}。"),
                        where=str(row.place) or None, fix=row.fix) for row in bad[:10]]
    more = counts.get(_BAD, 0) - len(findings)
    if more > 0:
        findings.append(Finding(_BAD, "error", Both(f"{more} more of {total} rows are wrong.",
                                                    f"共 {total} 行，另有 {more} 行有错。")))
    for id in known.keys() - {_BAD, _UNFILLED}:  # one reason for all of them
        first = next(row for row in refused if row.id == id)
        findings.append(Finding(id, "error", Both(
            f"in {counts[id]} of {total} rows {first.reason}.",
            f"{total} 行中有 {counts[id]} 行：{spoken(first.reason, True)}。"), where=str(first.place), fix=first.fix))
    some = counts.get(_UNFILLED, 0) > known[_UNFILLED]
    for name in ("name", "author"):
        places = [row.place for row in refused
                  if row.id == _UNFILLED and name in _PLACEHOLDER.findall(str(row.reason))]
        if places:
            findings.append(Finding(_UNFILLED, "error", Both(
                f"{{{{{name}}}}} is not filled ({'at least ' if some else ''}{len(places)} of {total} rows).",
                f"{{{{{name}}}}} 没有填入（{total} 行中{'至少' if some else '有'} {len(places)} 行）。"),
                where=str(places[0]), fix=_fix(name)))
    return findings


