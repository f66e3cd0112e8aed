"""The conversations of a run: files read, rows turned into messages, placeholders filled, evaluation rows held out."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from truetune.data.formats import DEFAULTS, recognise, to_messages
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
    train = _load(config.dataset, config, "dataset")
    held_out = _load(config.eval_dataset, config, "eval_dataset")
    if config.val_size:
        train, held_out = _split(train, config.val_size, config.seed)
    return DataSet(train, held_out)


def _load(names: Sequence[str], config: Config, option: str) -> list[Conversation]:
    if not names:
        return []
    loaded: list[Conversation] = []
    findings: list[Finding] = []
    for source in find_sources(names, config.dataset_dir, option):
        try:
            loaded += _load_source(source, config)
        except Problem as error:
            findings += error.findings
    findings += _unfilled(loaded, option)
    if findings:
        raise Problem(findings)
    return loaded


def _load_source(source: Source, config: Config) -> list[Conversation]:
    rows = list(read_rows(source.file))
    if not rows:
        raise problem("no-rows", "the file holds no rows.", option="dataset", where=str(source.file))
    rows = _take(rows, source.num_samples, config)
    layout = source.layout or recognise({column for row in rows for column in row.values})
    if layout is None:
        found = ", ".join(sorted(rows[0].values))
        shapes = "; ".join(f"{name}: {', '.join(layout.columns.values())}" for name, layout in DEFAULTS.items())
        raise problem("unknown-format", f"its columns ({found}) are those of no known format.", option="dataset",
                      where=rows[0].where, fix=f"Known are {shapes}. Or describe it in dataset_info.json.")
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
    values = {"name": config.identity_name, "author": config.identity_author}
    return Message(message.role, _PLACEHOLDER.sub(lambda hit: values[hit[1]] or hit[0], message.content))


def _unfilled(conversations: Sequence[Conversation], option: str) -> list[Finding]:
    places: dict[str, list[str]] = {}
    for talk in conversations:
        for name in {hit for message in talk.messages for hit in _PLACEHOLDER.findall(message.content)}:
            places.setdefault(name, []).append(talk.where)
    return [
        Finding("unfilled-placeholder", "error", f"{{{{{name}}}}} is not filled in {len(where)} rows.", option=option,
                where=where[0], fix=f"Set identity_{name}, or the model learns to say {{{{{name}}}}}.")
        for name, where in sorted(places.items())
    ]


def _split(rows: list[Conversation], val_size: float, seed: int) -> tuple[list[Conversation], list[Conversation]]:
    """Hold out a share (below 1) or a number of rows, drawn by `seed`."""
    count = round(len(rows) * val_size) if val_size < 1 else int(val_size)
    if not 0 < count < len(rows):
        raise problem("val-size", f"{val_size:g} of {len(rows)} rows leaves {len(rows) - count} to learn from and "
                      f"{count} to evaluate on.", option="val_size", fix="Both must have at least one row.")
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    held_out = [row for number, row in enumerate(rows) if number in chosen]
    return [row for number, row in enumerate(rows) if number not in chosen], held_out
