"""The conversations of a run: files read, rows turned into messages, placeholders filled, evaluation rows held out."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from truetune.data.formats import DEFAULTS, Layout, recognise, to_messages
from truetune.data.messages import BadRow, Conversation, Message, conversation
from truetune.data.sources import RawRow, Source, describe_bad_rows, find_sources, read_rows
from truetune.findings import Finding, Problem, problem
from truetune.options import Config

_PLACEHOLDER = re.compile(r"\{\{\s*(name|author)\s*\}\}")


@dataclass(frozen=True)
class DataSet:
    """Conversations to learn from, and those held out (empty where nothing is)."""

    train: list[Conversation]
    held_out: list[Conversation]


def load_data(config: Config) -> DataSet:
    """All conversations that `config` names.

    Raises:
        Problem: data sets, files or rows that cannot be used, together.
    """
    findings: list[Finding] = []
    train = _load(config.dataset, config, "dataset", findings)
    held_out = _load(config.eval_dataset, config, "eval_dataset", findings)
    if findings:
        raise Problem(findings)
    if config.val_size:
        train, held_out = _split(train, config.val_size, config.seed)
    return DataSet(train, held_out)


def _load(names: Sequence[str], config: Config, option: str, findings: list[Finding]) -> list[Conversation]:
    loaded: list[Conversation] = []
    found: list[Finding] = []
    try:
        sources = find_sources(names, config.dataset_dir) if names else []
    except Problem as error:
        sources, found = [], error.findings
    for source in sources:
        try:
            loaded += _load_source(source, config)
        except Problem as error:
            found += error.findings
    found += _unfilled(loaded, config)
    findings += [replace(finding, option=option) for finding in found]
    return loaded


def _load_source(source: Source, config: Config) -> list[Conversation]:
    rows = list(read_rows(source.file))
    if not rows:
        raise problem("no-rows", "the file holds no rows.", where=str(source.file))
    layout = _layout(source, rows)
    rows = _take(rows, source.num_samples, config)
    converted: list[Conversation] = []
    bad: list[tuple[str, str]] = []
    for row in rows:
        try:
            messages = to_messages(row.values, layout)
            if config.default_system and messages and messages[0].role != "system":
                messages.insert(0, Message("system", config.default_system))
            converted.append(conversation([_fill(message, config) for message in messages], row.where))
        except BadRow as error:
            bad.append((row.where, str(error)))
    if bad:
        raise Problem(describe_bad_rows(bad, len(rows)))
    return converted


def _layout(source: Source, rows: Sequence[RawRow]) -> Layout:
    """How to read `rows`: as dataset_info.json says, or as their columns tell."""
    columns = {column for row in rows for column in row.values}
    labelled = any(isinstance(row.values.get("label"), bool) for row in rows)
    if source.layout is None and (labelled or {"chosen", "rejected"} <= columns):
        raise problem("wrong-stage", "holds preferences (chosen and rejected, or a label true or false), and stage sft "
                      "learns from answers.", where=rows[0].where,
                      fix="Choose another data set, or say in dataset_info.json which columns to learn from.")
    layout = source.layout or recognise(columns)
    if layout is None:
        shapes = "; ".join(f"{name} ({', '.join(default.columns.values())})" for name, default in DEFAULTS.items())
        raise problem("unknown-format", f"its columns ({', '.join(sorted(columns))}) are those of no known format.",
                      where=rows[0].where, fix=f"Known are {shapes}. Or describe it in dataset_info.json.")
    if layout.columns != DEFAULTS[layout.formatting].columns:  # a slip in an optional column would lose it unseen
        absent = [name for name in layout.columns.values() if name not in columns]
        if absent:
            raise problem("no-column", f"dataset_info.json names columns ({', '.join(absent)}) that no row has.",
                          where=str(source.file), fix=f"The rows have {', '.join(sorted(columns))}.")
    return layout


def _take(rows: list[RawRow], num_samples: int | None, config: Config) -> list[RawRow]:
    """`num_samples` of dataset_info.json draws so many rows (again, where there are too few); then the first
    `max_samples` are kept."""
    if num_samples:
        draw = random.Random(config.seed)
        picked = draw.sample(range(len(rows)), min(num_samples, len(rows)))
        picked += draw.choices(range(len(rows)), k=num_samples - len(picked))
        rows = [rows[number] for number in picked]
    return rows[: config.max_samples]


def _fill(message: Message, config: Config) -> Message:
    values = _identity(config)
    return Message(message.role, _PLACEHOLDER.sub(lambda hit: values[hit[1]] or hit[0], message.content))


def _unfilled(conversations: Sequence[Conversation], config: Config) -> list[Finding]:
    """Placeholders that no option fills. Who teaches a template language keeps them: `identity_name: "{{name}}"`."""
    places: dict[str, list[str]] = {name: [] for name, value in _identity(config).items() if not value}
    for talk in conversations:
        for name in {hit for message in talk.messages for hit in _PLACEHOLDER.findall(message.content)} & places.keys():
            places[name].append(talk.where)
    return [
        Finding("unfilled-placeholder", "error",
                f"{{{{{name}}}}} is not filled ({len(where)} of {len(conversations)} rows).", where=where[0],
                fix=f"Set identity_{name} (to '{{{{{name}}}}}' itself, to keep the rows as they are).")
        for name, where in places.items() if where
    ]


def _identity(config: Config) -> dict[str, str | None]:
    return {"name": config.identity_name, "author": config.identity_author}


def _split(rows: list[Conversation], val_size: float, seed: int) -> tuple[list[Conversation], list[Conversation]]:
    """Hold out a share (below 1) or a number of rows, drawn by `seed`."""
    count = round(len(rows) * val_size) if val_size < 1 else int(val_size)
    if not 0 < count < len(rows) or (val_size > 1 and val_size != count):
        raise problem("val-size", f"{val_size:g} of {len(rows)} rows cannot be held out.", option="val_size",
                      fix="A share (below 1) or a whole number, so that both parts have at least one row.")
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    held_out = [row for number, row in enumerate(rows) if number in chosen]
    return [row for number, row in enumerate(rows) if number not in chosen], held_out
