"""Files made of other files: without the rows that cannot be read, with placeholders filled, split in two, or with the
turns that dataset_info.json cannot describe written as `messages`. The file they are made of is never changed.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from truetune.data.formats import Layout, to_row
from truetune.data.incoming import tolerant_rows
from truetune.data.messages import BadRow, Conversation, Document, Judged, Message, Preference, Row
from truetune.data.readers import RawRow
from truetune.data.reading import Refused
from truetune.files import disk_refusal, write_file
from truetune.findings import Both, Problem, problem, spoken

Raw = Mapping[str, Any]


# ------------------------------------------------------------------------------------------------------------- writing


def kind_for(path: Path) -> str:
    """`.json` for what is made of an array, `.jsonl` for all else: text that anybody can open."""
    return ".json" if path.suffix.lower() == ".json" else ".jsonl"


def write_rows(path: Path, rows: Iterable[Raw]) -> int:
    """Rows as JSON: an array where `path` ends with .json, else a line each. How many there were.

    Raises:
        Problem: the disk does not take them.
    """
    count = 0

    def fill(part: Path) -> None:
        nonlocal count
        array = path.suffix == ".json"
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write("[\n" if array else "")
            for count, row in enumerate(rows, start=1):
                file.write(",\n" if array and count > 1 else "")
                file.write(json.dumps(row, ensure_ascii=False, indent=2 if array else None, default=str))
                file.write("" if array else "\n")
            file.write("\n]\n" if array else "")

    written(path, fill)
    return count


def written(path: Path, fill: Callable[[Path], None]) -> None:
    """A file that is there as a whole or not at all.

    Raises:
        Problem: the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, fill)
    except OSError as error:
        reason = disk_refusal(error, path.parent) or error.strerror or str(error)
        raise problem("not-written", Both(f"cannot be written: {spoken(reason, False)}.",
                                          f"无法写入：{spoken(reason, True)}。"), where=str(path)) from None


# ------------------------------------------------------------------------------------------------------------ good rows


def good_rows(rows: Iterable[RawRow | Refused], layout: Layout) -> Iterator[Raw]:
    """Those that can be learned from, as they stand in their file."""
    for row in rows:
        if isinstance(row, RawRow) and not isinstance(read_row(row, layout), Refused):
            yield row.values


def read_row(row: RawRow, layout: Layout) -> Row | Refused:
    """A row as a stage learns from it, or why it cannot."""
    try:
        return to_row(row.values, layout, layout.kind, row.place)
    except BadRow as error:
        return Refused(row.place, error.reason, error.id, error.fix)
    except RecursionError:
        return Refused(row.place, Both("nested too deeply", "嵌套太深"))


def as_messages(row: Row) -> dict[str, Any]:
    """A row in the form that OpenAI gave to conversations, which every program reads."""
    match row:
        case Document(text):
            return {"text": text}
        case Judged(talk, good):
            return {**_talk(talk, talk.messages), "label": good}
        case Preference(chosen, rejected):
            return {**_talk(chosen, chosen.messages[:-1]), "chosen": _turn(chosen.messages[-1]),
                    "rejected": _turn(rejected.messages[-1])}
        case Conversation():
            return _talk(row, row.messages)


def _talk(talk: Conversation, messages: Iterable[Message]) -> dict[str, Any]:
    tools = {"tools": json.dumps(talk.tools, ensure_ascii=False)} if talk.tools else {}
    return {"messages": [_turn(message) for message in messages], **tools}


def _turn(message: Message) -> dict[str, Any]:
    weight = {"weight": message.weight} if message.weight is not None else {}
    return {**message.as_dict(), **weight}


# -------------------------------------------------------------------------------------------------------- placeholders

_PLACEHOLDER = re.compile(r"\{\{\s*(\w{1,40})\s*\}\}")
_MOST = 6


def placeholders(rows: Iterable[Raw]) -> dict[str, int]:
    """Words that stand in double braces, as {{name}} does, and in how many rows; the most frequent first."""
    found = Counter(word for row in rows for word in set(_PLACEHOLDER.findall(json.dumps(row, default=str))))
    return dict(found.most_common(_MOST))


def filled(value: Any, words: Mapping[str, str]) -> Any:
    """`value` with each placeholder replaced that `words` names, wherever it stands in it."""
    match value:
        case str():
            return _PLACEHOLDER.sub(lambda hit: words.get(hit[1], hit[0]), value)
        case list():
            return [filled(item, words) for item in value]
        case dict():
            return {key: filled(item, words) for key, item in value.items()}
    return value


def fill_file(path: Path, target: Path, words: Mapping[str, str]) -> int:
    """The rows of `path` with their placeholders filled, as `target`; how many there were.

    Raises:
        Problem: the file cannot be read, or the new one not be written.
    """
    return write_rows(target, (filled(dict(values), words) for values in _all(path)))


def _all(path: Path) -> Iterator[Raw]:
    """All rows of a file.

    Raises:
        Problem: one of them cannot be read.
    """
    for row in tolerant_rows(path, path.name):
        if isinstance(row, Refused):
            raise _refusal(row)
        yield row.values


def _refusal(row: Refused) -> Problem:
    return problem(row.id, Both(f"{row.reason}.", f"{spoken(row.reason, True)}。"), where=str(row.place),
                   fix=Both("Mend the file, or add it again without its bad rows.",
                            "请修改文件，或重新添加并去掉有错的行。"))


# ------------------------------------------------------------------------------------------------------------ splitting


def split_file(path: Path, train: Path, held: Path, share: float, seed: int) -> tuple[int, int]:
    """The rows of `path` as two files, and how many are in each. Equal rows go to the same side, else what measures
    would have been learned.

    Args:
        share: of the rows held out, above 0 and below 1; from 1 on, their number.

    Raises:
        Problem: the file cannot be read, has too few rows, or the new ones cannot be written.
    """
    keys = [hash(json.dumps(values, sort_keys=True, default=str)) for values in _all(path)]
    sizes = Counter(keys)
    wanted = round(share * len(keys)) if share < 1 else round(share)
    order = list(sizes)
    random.Random(seed).shuffle(order)
    out: set[int] = set()
    count = 0
    for key in order:
        if count >= max(wanted, 1):
            break
        out.add(key)
        count += sizes[key]
    if count >= len(keys):
        raise problem("too-few-rows", Both(f"{len(keys)} rows are too few to hold {max(wanted, 1)} out.",
                                           f"只有 {len(keys)} 行，分不出 {max(wanted, 1)} 行。"), where=path.name,
                      fix=Both("Hold fewer out, or bring more rows.", "请减少验证集，或增加数据。"))
    kept = write_rows(train, (values for values, key in zip(_all(path), keys, strict=True) if key not in out))
    return kept, write_rows(held, (values for values, key in zip(_all(path), keys, strict=True) if key in out))
