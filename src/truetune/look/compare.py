"""`truetune data diff`: in what two data sets differ as they are trained on, down to the first token."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from truetune.check.preflight import prepare
from truetune.data.renderer import Rendered
from truetune.data.store import MANIFEST, Store, differing
from truetune.findings import FAILED, OK, WRONG_OPTIONS, Problem, count_of, problem, status_of
from truetune.model.find import find_model, load_tokenizer
from truetune.options import Config
from truetune.options.read import read_config
from truetune.report import Terminal

Configure = Callable[[list[str]], Config]
"""Reads options and judges them by the rules."""
_TAKEN = "Name a run.yaml, a run folder, a token store (a folder with store.json) or a tokenized_path."


def diff(first: str, second: str, words: list[str], configure: Configure, terminal: Terminal) -> int:
    """Say in what two data sets differ as they are trained on. Returns 0 if every row has the same ids and weights.

    Args:
        first, second: each a run.yaml, a run folder, a token store or a folder of them.
        words: options for both that are no folder of stores; model_name_or_path also writes the ids of those as text.

    Raises:
        Problem: one of them is nothing of that, or its data cannot be read.
    """
    before, now = (_side(path, words, configure, terminal) for path in (first, second))
    for line in _settings(before, now):
        terminal.print(Text(line))
    mine, others = before.sequences(now), now.sequences(before)
    common = [(number, others[key]) for key, number in mine.items() if key in others]
    differ = [pair for pair in common if not _same(before[pair[0]], now[pair[1]])]
    only = [(side.name, [side.where(number) for key, number in these.items() if key not in those])
            for side, these, those in ((before, mine, others), (now, others, mine))]
    for name, places in only:
        if places:
            more = ", …" if len(places) > 5 else ""
            terminal.print(Text(f"Only in {name}: {count_of(len(places), 'row')} ({', '.join(places[:5])}{more})"))
    if differ:
        terminal.print(f"{count_of(len(differ), 'row')} of {len(common):,} differ; the first of them:")
        for a, b in differ[:3]:
            _print_difference(before, now, before[a], now[b], terminal)
    if differ or any(places for _, places in only):
        return FAILED
    tokens = sum(int(store.rows["length"].sum()) for store in before.stores)
    terminal.print(f"the same: {count_of(len(common), 'row')}, {count_of(tokens, 'token')}")
    return OK


@dataclass(frozen=True)
class _Side:
    """One of two things compared. tokenizer: to write ids as text, where it is known."""

    name: str
    stores: list[Store]
    tokenizer: Any

    def sequences(self, other: _Side) -> dict[tuple[object, int, int], tuple[int, int]]:
        """(store, number) of each sequence by (file, line, how many there were before it on that line). Files have
        their number where the other side has as many, so that a copy of a file can be compared with it."""
        files, others = self._files(), other._files()
        names: dict[str, object] = {file: place if len(files) == len(others) else file
                                    for place, file in enumerate(files)}
        found: dict[tuple[object, int, int], tuple[int, int]] = {}
        seen: dict[tuple[object, int], int] = {}
        for which, store in enumerate(self.stores):
            named = [names[file] for file in store.manifest.files]
            places = zip(store.rows["file"].tolist(), store.rows["number"].tolist(), strict=True)
            for number, (file, line) in enumerate(places):
                place = named[file], line
                seen[place] = seen.get(place, -1) + 1
                found[*place, seen[place]] = which, number
        return found

    def _files(self) -> list[str]:
        return list(dict.fromkeys(file for store in self.stores for file in store.manifest.files))

    def __getitem__(self, number: tuple[int, int]) -> Rendered:
        return self.stores[number[0]][number[1]]

    def where(self, number: tuple[int, int]) -> str:
        return self[number].where


def _side(path: str, words: list[str], configure: Configure, terminal: Terminal) -> _Side:
    """Raises:
    Problem: `path` is neither a store, nor a folder of some, nor a run.yaml whose data can be read.
    """
    folder = Path(path)
    if not folder.exists() or (folder.is_file() and folder.suffix not in (".yaml", ".yml", ".json")):
        raise problem("not-data", "is no file of options." if folder.exists() else "there is no such file or folder.",
                      option=path, status=WRONG_OPTIONS, fix=_TAKEN)
    if folder.is_dir() and not (folder / "config.yaml").is_file():
        inside = [folder, *sorted(folder.iterdir())]
        stores = [_open(each) for each in inside if (each / MANIFEST).is_file()]
        if not stores:
            raise problem("no-store", "holds no token store.", option=path, status=WRONG_OPTIONS, fix=_TAKEN)
        return _Side(path, stores, _tokenizer(words, terminal))
    if folder.is_dir():
        path = str(folder / "config.yaml")
    _, renderer, data, _ = prepare(configure([path, *words]), terminal.say)
    if not data.stores:
        raise problem("no-store", "its data are streamed, so there is no token store.", option=path,
                      status=WRONG_OPTIONS)
    return _Side(path, data.stores, renderer.tokenizer)


def _tokenizer(words: list[str], terminal: Terminal) -> Any:
    """The tokenizer of the model that `words` name, if they do."""
    config, findings = read_config(words)
    if status_of(findings) == "error":
        raise Problem(findings, WRONG_OPTIONS)
    name = config.model_name_or_path
    return load_tokenizer(find_model(name, config, terminal.say)) if name else None


def _open(folder: Path) -> Store:
    try:
        store = Store(folder)
    except (OSError, ValueError, TypeError) as error:
        raise problem("bad-store", f"is not a store that can be read: {str(error).splitlines()[0]}.",
                      option=str(folder), fix="`truetune data build run.yaml overwrite_cache=true` makes it again."
                      ) from None
    if not store.manifest.finished:
        raise problem("bad-store", "is not finished.", option=str(folder), fix="`truetune data build` goes on with it.")
    return store


_SETTINGS = {"data": "data (hash of the bytes)", "tokenizer": "tokenizer (hash)", "template": "chat template (hash)",
             "layout": "dataset_info.json", "renderer": "truetune's renderer (version)"}


def _settings(before: _Side, now: _Side) -> list[str]:
    """The settings that differ, a line each under a heading."""
    if len(before.stores) != len(now.stores):
        return [f"{before.name} has {count_of(len(before.stores), 'data set')}, {now.name} has {len(now.stores)}.", ""]
    changed = dict.fromkeys((_SETTINGS.get(name, name), _short(old), _short(new))
                            for a, b in zip(before.stores, now.stores, strict=True)
                            for name, old, new in differing(a.manifest.settings, b.manifest.settings))
    if not changed:
        return []
    table = [("setting", before.name, now.name), *changed]
    first, second = (max(len(row[column]) for row in table) for column in (0, 1))
    return [*(f"{name:<{first}}  {old:<{second}}  {new}" for name, old, new in table), ""]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    if re.fullmatch(r"[0-9a-f]{16,}", text):
        return f"{text[:12]}…"
    return text if len(text) <= 60 else f"{text[:59]}…"


def _same(before: Rendered, now: Rendered) -> bool:
    return (len(before) == len(now) and np.array_equal(before.ids, now.ids)
            and np.array_equal(before.weights, now.weights) and before.label == now.label)


_BEFORE = 12
"""Tokens shown before the first one that differs."""


def _print_difference(before: _Side, now: _Side, old: Rendered, new: Rendered, terminal: Terminal) -> None:
    """The place, and from each side the first token that differs with a little text before it."""
    pairs = zip_longest(zip(old.ids.tolist(), old.weights.tolist(), strict=True),
                        zip(new.ids.tolist(), new.weights.tolist(), strict=True))
    place = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
    if place is None:
        terminal.print(Text(f"\n{old.where}: judged {old.label} and {new.label}"))
        return
    terminal.print(Text(f"\n{old.where}, token {place + 1:,} (of {len(old):,} and {len(new):,})"))
    known = before.tokenizer or now.tokenizer
    same_words = before.stores[0].manifest.settings.get("tokenizer") == now.stores[0].manifest.settings.get("tokenizer")
    for name, side, row in (("A", before, old), ("B", now, new)):
        tokenizer = side.tokenizer or (known if same_words else None)
        terminal.print(Text(f"  {name}  {_around(row, place, tokenizer)}"))


def _around(row: Rendered, place: int, tokenizer: Any) -> str:
    """Text (or ids, where no tokenizer is known) before a token, and the token with its id and weight."""
    ids = row.ids[max(0, place - _BEFORE) : place].tolist()
    lead = "… " if place > _BEFORE else ""
    if place >= len(row):
        said, token = (tokenizer.decode(ids) if tokenizer else " ".join(map(str, ids))), "ends here"
    elif tokenizer:
        said, token = tokenizer.decode(ids), f"{tokenizer.decode(row.ids[place : place + 1].tolist())}·{row.ids[place]}"
    else:
        said, token = " ".join(map(str, ids)), str(row.ids[place])
    weight = f" counts {row.weights[place]:g}" if place < len(row) else ""
    return f"{lead}{said} ⟦{token}⟧{weight}".replace("\n", "↵")
