"""`truetune data diff`: in what two data sets differ as they are trained on, down to the first token."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from truetune.check.preflight import prepare
from truetune.data.renderer import Rendered
from truetune.data.store import MANIFEST, Store, differing
from truetune.findings import (
    FAILED,
    OK,
    WRONG_OPTIONS,
    Both,
    Problem,
    Words,
    count_of,
    problem,
    spoken,
    status_of,
)
from truetune.model.find import find_model, load_tokenizer
from truetune.options import Config
from truetune.options.read import read_config
from truetune.report import Terminal

Configure = Callable[[list[str]], Config]
"""Reads options and judges them by the rules."""
_TAKEN = Both("Name a run.yaml, a run folder, a token store (a folder with store.json) or a tokenized_path.",
              "请写 run.yaml、运行文件夹、分词结果文件夹（含 store.json）或 tokenized_path。")


def diff(first: str, second: str, words: list[str], configure: Configure, terminal: Terminal) -> int:
    """Say in what two data sets differ as they are trained on. Returns 0 if every row has the same ids and weights.

    Args:
        first, second: each a run.yaml, a run folder, a token store or a folder of them.
        words: options for both that are no folder of stores; model_name_or_path also writes the ids of those as text.

    Raises:
        Problem: one of them is nothing of that, or its data cannot be read.
    """
    before, now = (_side(path, words, configure, terminal) for path in (first, second))
    for line in _settings(before, now, terminal.chinese):
        terminal.say(line)
    mine, others = before.sequences(now), now.sequences(before)
    common = [(number, others[key]) for key, number in mine.items() if key in others]
    differ = [pair for pair in common if not _same(before[pair[0]], now[pair[1]])]
    only = [(side.name, [side.where(number) for key, number in these.items() if key not in those])
            for side, these, those in ((before, mine, others), (now, others, mine))]
    for name, places in only:
        if places:
            few, more = places[:5], len(places) > 5
            terminal.say(Both(
                f"Only in {name}: {count_of(len(places), 'row')} ({', '.join(few)}{', …' if more else ''})",
                f"只在 {name} 里：{len(places):,} 行（{'、'.join(few)}{' 等' if more else ''}）"))
    if differ:
        terminal.say(Both(f"{count_of(len(differ), 'row')} of {len(common):,} differ; the first of them:",
                          f"{len(common):,} 行中有 {len(differ):,} 行不同，前几行："))
        for a, b in differ[:3]:
            _print_difference(before, now, before[a], now[b], terminal)
    if differ or any(places for _, places in only):
        return FAILED
    tokens = sum(int(store.rows["length"].sum()) for store in before.stores)
    terminal.say(Both(f"the same: {count_of(len(common), 'row')}, {count_of(tokens, 'token')}",
                      f"完全相同：{len(common):,} 行，{tokens:,} 个 token"))
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
        raise problem("not-data", Both("is no file of options.", "不是选项文件。") if folder.exists() else
                      Both("there is no such file or folder.", "没有这个文件或文件夹。"), option=path,
                      status=WRONG_OPTIONS, fix=_TAKEN)
    if folder.is_dir() and not (folder / "config.yaml").is_file():
        inside = [folder, *sorted(folder.iterdir())]
        stores = [_open(each) for each in inside if (each / MANIFEST).is_file()]
        if not stores:
            raise problem("no-store", Both("holds no token store.", "里面没有分词结果。"), option=path,
                          status=WRONG_OPTIONS, fix=_TAKEN)
        return _Side(path, stores, _tokenizer(words, terminal))
    if folder.is_dir():
        path = str(folder / "config.yaml")
    _, renderer, data, _ = prepare(configure([path, *words]), terminal.say)
    if not data.stores:
        raise problem("no-store", Both("its data are streamed, so there is no token store.",
                                       "它的数据是流式的，没有分词结果。"), option=path, status=WRONG_OPTIONS)
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
        reason = str(error).splitlines()[0]
        raise problem("bad-store", Both(f"is not a store that can be read: {reason}.",
                                        f"不是可读取的分词结果：{reason}。"), option=str(folder),
                      fix=Both("`truetune data build run.yaml overwrite_cache=true` makes it again.",
                               "`truetune data build run.yaml overwrite_cache=true` 会重新生成。")) from None
    if not store.manifest.finished:
        raise problem("bad-store", Both("is not finished.", "还没有生成完。"), option=str(folder),
                      fix=Both("`truetune data build` goes on with it.", "`truetune data build` 会接着生成。"))
    return store


_SETTINGS: dict[str, Words] = {
    "data": Both("data (hash of the bytes)", "数据（内容的哈希）"),
    "tokenizer": Both("tokenizer (hash)", "分词器（哈希）"),
    "template": Both("chat template (hash)", "对话模板（哈希）"), "layout": "dataset_info.json",
    "renderer": Both("truetune's renderer (version)", "truetune 的渲染器（版本）")}


def _settings(before: _Side, now: _Side, chinese: bool) -> list[Words]:
    """The settings that differ, a line each under a heading."""
    mine, others = len(before.stores), len(now.stores)
    if mine != others:
        return [Both(f"{before.name} has {count_of(mine, 'data set')}, {now.name} has {others}.",
                     f"{before.name} 有 {mine:,} 个数据集，{now.name} 有 {others} 个。"), ""]
    changed = dict.fromkeys((spoken(_SETTINGS.get(name, name), chinese), _short(old), _short(new))
                            for a, b in zip(before.stores, now.stores, strict=True)
                            for name, old, new in differing(a.manifest.settings, b.manifest.settings))
    if not changed:
        return []
    table = [(spoken(Both("setting", "设置"), chinese), before.name, now.name), *changed]
    first, second = (max(cell_len(row[column]) for row in table) for column in (0, 1))
    return [*(f"{_padded(name, first)}  {_padded(old, second)}  {new}" for name, old, new in table), ""]


def _padded(text: str, cells: int) -> str:
    """`text` with space behind it, so that it takes `cells` of the terminal: a Chinese letter takes two."""
    return text + " " * (cells - cell_len(text))


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
        terminal.say(Both(f"\n{old.where}: judged {old.label} and {new.label}",
                          f"\n{old.where}：标注分别为 {old.label} 和 {new.label}"))
        return
    terminal.say(Both(f"\n{old.where}, token {place + 1:,} (of {len(old):,} and {len(new):,})",
                      f"\n{old.where}，第 {place + 1:,} 个 token（共 {len(old):,} 和 {len(new):,} 个）"))
    known = before.tokenizer or now.tokenizer
    same_words = before.stores[0].manifest.settings.get("tokenizer") == now.stores[0].manifest.settings.get("tokenizer")
    for name, side, row in (("A", before, old), ("B", now, new)):
        tokenizer = side.tokenizer or (known if same_words else None)
        terminal.say(f"  {name}  {_around(row, place, tokenizer, terminal.chinese)}")


def _around(row: Rendered, place: int, tokenizer: Any, chinese: bool) -> str:
    """Text (or ids, where no tokenizer is known) before a token, and the token with its id and weight."""
    ids = row.ids[max(0, place - _BEFORE) : place].tolist()
    lead = "… " if place > _BEFORE else ""
    if place >= len(row):
        said = tokenizer.decode(ids) if tokenizer else " ".join(map(str, ids))
        token = spoken(Both("ends here", "到此结束"), chinese)
    elif tokenizer:
        said, token = tokenizer.decode(ids), f"{tokenizer.decode(row.ids[place : place + 1].tolist())}·{row.ids[place]}"
    else:
        said, token = " ".join(map(str, ids)), str(row.ids[place])
    weight = f"{row.weights[place]:g}" if place < len(row) else ""
    counts = spoken(Both(f" counts {weight}", f" 权重 {weight}"), chinese) if weight else ""
    return f"{lead}{said} ⟦{token}⟧{counts}".replace("\n", "↵")
