"""The work behind `truetune data`: token stores made (`build`), looked into (`show`). `compare.py` compares them.

No weights are loaded and no GPU is used. What is shown comes from the token store, which is what training reads.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from truetune.check.preflight import prepare
from truetune.check.rows import row_findings
from truetune.data.dataset import PER_ROW, Data
from truetune.data.lengths import keeping_most
from truetune.data.messages import Kind, Place, Row
from truetune.data.reading import STAGE_ROWS, Refused, read_source
from truetune.data.renderer import Renderer
from truetune.data.rows import Rows, Stream
from truetune.data.sources import find_sources
from truetune.data.store import MANIFEST, Store
from truetune.findings import WRONG_OPTIONS, Both, Finding, Say, Words, count_of, problem, refuse, spoken
from truetune.look.preview import Preview, preview
from truetune.options import Config
from truetune.report import Terminal, print_rows
from truetune.steps import pack, shuffle_seed

# --------------------------------------------------------------------------------------------------------------- build


def build(config: Config, terminal: Terminal) -> list[Finding]:
    """Make the token stores of `config`, or find them made, and say a line about each. Returns what was found.

    Raises:
        Problem: of model, template and data; nothing can be learned from them; or they are streamed, so nothing is
            kept.
    """
    if config.streaming:
        raise problem("streaming-store", Both("a stream is read while it is trained on, so there is nothing to build.",
                                              "流式数据边训练边读取，没有要生成的分词结果。"), option="streaming",
                      where=config.origin("streaming"), fix=Both("Leave out streaming.", "请去掉 streaming。"),
                      status=WRONG_OPTIONS)
    began = time.time()
    _, renderer, data, findings = prepare(config, terminal.say)
    for name, store in zip([*config.dataset, *config.eval_dataset], data.stores, strict=True):
        finished = (store.folder / MANIFEST).stat().st_mtime
        seconds, when = f"{finished - began:.1f}", f"{datetime.fromtimestamp(finished):%Y-%m-%d %H:%M}"
        made = Both(f"made in {seconds} s", f"生成用时 {seconds} 秒") if finished >= began else \
            Both(f"kept since {when}", f"{when} 已生成")
        began, size = max(began, finished), _size(store)
        terminal.say(Both(f"{name}: {size}; {made} in {store.folder}",
                          f"{name}：{size.zh}；{made.zh}，在 {store.folder}"))
    return refuse([*findings, *row_findings(data, renderer, config)])


def _size(store: Store) -> Both:
    manifest, sequences = store.manifest, len(store)
    rows, lost = manifest.raw_rows - manifest.left_out, manifest.left_out
    tokens, learned = (f"{int(store.rows[column].sum()):,}" for column in ("length", "learned"))
    kept = Both("", "")
    if sequences != rows * manifest.per_row:
        kept = Both(f" in {count_of(sequences, 'sequence')}", f"成为 {sequences:,} 个序列")
        if manifest.settings["joined"]:
            kept = Both(f" in {count_of(sequences, 'block')}", f"拼成 {sequences:,} 块")
    left_out = Both(f", {count_of(lost, 'row')} left out", f"，丢弃 {lost:,} 行") if lost else Both("", "")
    return Both(f"{count_of(rows, 'row')}{kept}, {tokens} tokens, {learned} of them learned{left_out}",
                f"{rows:,} 行{kept.zh}，{tokens} 个 token，学习其中 {learned} 个{left_out.zh}")


# ---------------------------------------------------------------------------------------------------------------- show


@dataclass(frozen=True)
class Pack:
    """Rows that share a batch row of `limit` tokens; they never see each other."""

    tokens: int
    limit: int
    rows: tuple[Preview, ...]

    def described(self) -> Both:
        full = 100 * self.tokens // self.limit
        return Both(f"{count_of(len(self.rows), 'row')}, {self.tokens:,} of {self.limit:,} tokens ({full} % full); "
                    "the rows do not see each other",
                    f"{len(self.rows):,} 行，{self.tokens:,} / {self.limit:,} 个 token（填满 {full} %）；各行互不可见")

    def as_dict(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "limit": self.limit, "rows": [row.as_dict() for row in self.rows]}


@dataclass(frozen=True)
class Lengths:
    """How long rows are before anything is cut or left out, in tokens. of: how many rows. bars: (from, to, rows).
    keeps_most: the cutoff_len that keeps 99.5 % of them whole."""

    of: int
    median: int
    longest: int
    keeps_most: int
    longer: int
    bars: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class View:
    """What `truetune data show` shows: the first rows (or packs of rows), and what became of all others.

    learned_median: of the tokens learned in a row; in a pair, those of both answers. learned_none: the share of rows
    without any.
    """

    rows: tuple[Preview, ...]
    packs: tuple[Pack, ...]
    refused: tuple[tuple[str, Words], ...]
    refused_rows: int
    overlong: tuple[str, ...]
    overlong_rows: int
    overlong_dropped: int
    lengths: Lengths
    learned_median: int
    learned_none: float
    config: Config
    streamed: bool

    def measured(self) -> Both:
        """What `lengths` are the lengths of, in words."""
        of = self.lengths.of
        what = {"documents": Both(count_of(of, "document"), f"{of:,} 篇文档"),
                "preferences": Both(f"{count_of(of, 'answer')} with prompt", f"{of:,} 个回答（含提示）")
                }.get(STAGE_ROWS[self.config.stage], Both(count_of(of, "row"), f"{of:,} 行"))
        return Both(f"the first {what} of a stream", f"流式数据的前 {what.zh}") if self.streamed else what

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `data show --json`, which web pages draw: rows and packs as in `preview.py`, and

            {"dropped": {"refused": [{"where", "reason", "reason_zh"}], "refused_rows": 3,
                         "overlong": ["data/a.json:12"],
                         "overlong_rows": 9, "overlong_dropped": 9},
             "lengths": {"rows", "median", "longest", "cutoff_len", "longer", "keeps_995", "histogram":
                         [{"from": 0, "to": 99, "rows": 12}]},
             "learned": {"median": 84, "share_of_rows_without": 0.0}}

        refused and overlong name the first rows, refused_rows and overlong_rows count all. overlong_dropped: how many
        of the overlong ones are left out; the others were cut or split.
        """
        lengths = self.lengths
        return {
            "rows": [row.as_dict() for row in self.rows], "packs": [found.as_dict() for found in self.packs],
            "dropped": {"refused": [{"where": where, "reason": str(reason), "reason_zh": spoken(reason, True)}
                                    for where, reason in self.refused],
                        "refused_rows": self.refused_rows, "overlong": list(self.overlong),
                        "overlong_rows": self.overlong_rows, "overlong_dropped": self.overlong_dropped},
            "lengths": {"rows": lengths.of, "median": lengths.median, "longest": lengths.longest,
                        "cutoff_len": self.config.cutoff_len, "longer": lengths.longer,
                        "keeps_995": lengths.keeps_most,
                        "histogram": [{"from": first, "to": last, "rows": rows} for first, last, rows in lengths.bars]},
            "learned": {"median": self.learned_median, "share_of_rows_without": self.learned_none},
        }


def look(config: Config, count: int, place: str | None, say: Say) -> tuple[View, list[Finding]]:
    """The first `count` rows (or packs of rows) of the mixture, or the one at `place`, and the findings.

    Raises:
        Problem: of model, template and data; or there is no row at `place`, or none at all.
    """
    _, renderer, data, findings = prepare(config, say)
    rows, kind = data.train, STAGE_ROWS[config.stage]
    packed: list[list[int]] = []
    if place:
        rows, numbers = _at(place, data, PER_ROW[kind])
    elif config.packing and kind != "preferences" and isinstance(rows, Rows) and len(rows):
        packs = pack(rows.lengths, config.cutoff_len, shuffle_seed(config))
        packed = [packs.rows(number) for number in range(min(count, len(packs)))]
        numbers = [number for group in packed for number in group]
    else:
        numbers = _first(rows, count, kind)
    findings += row_findings(data, renderer, config)
    if not numbers:
        refuse(findings)
    shown = {number: row for number, row in zip(
        numbers, _previews(rows, numbers, data.stores, renderer, config), strict=True)}
    found = tuple(Pack(int(rows.lengths[group].sum()), config.cutoff_len, tuple(shown[number] for number in group))
                  for group in packed)
    return _view(() if found else tuple(shown.values()), found, data, config), findings


def first_rows(rows: Rows | Stream, count: int, renderer: Renderer, config: Config, skip: int = 0) -> list[Preview]:
    """Previews of the first `count` rows trained on, after the first `skip`."""
    numbers = _first(rows, skip + count, STAGE_ROWS[config.stage])[skip:]
    return _previews(rows, numbers, rows.stores if isinstance(rows, Rows) else (), renderer, config)


def _first(rows: Rows | Stream, count: int, kind: Kind) -> list[int]:
    """The numbers of the first sequences of the first `count` rows."""
    return list(range(0, len(rows.lengths), PER_ROW[kind])[:count])


def _previews(rows: Rows | Stream, numbers: Sequence[int], stores: Sequence[Store], renderer: Renderer,
              config: Config) -> list[Preview]:
    """Previews of the rows whose first sequences have these numbers. stores: in the order of dataset and
    eval_dataset."""
    kind = STAGE_ROWS[config.stage]
    there = rows.sample if isinstance(rows, Stream) else rows
    groups = [[there[number + more] for more in range(PER_ROW[kind])] for number in numbers]
    behind = {} if kind == "documents" else _behind(rows, numbers, [group[0].place for group in groups], stores, config)
    return [preview(group, behind.get(group[0].place), renderer, kind, config.cutoff_len, config.overlong)
            for group in groups]


def _behind(rows: Rows | Stream, numbers: Sequence[int], places: Sequence[Place], stores: Sequence[Store],
            config: Config) -> dict[Place, Row]:
    """The rows as they were read, by place. A stream is searched as far as its first rows can have come from."""
    sources = [*find_sources(config.dataset, config, "dataset"),
               *find_sources(config.eval_dataset, config, "eval_dataset")]
    wanted: dict[int, set[Place]] = {}
    for number, place in zip(numbers, places, strict=True):
        which = [stores.index(rows.stores[rows.picks[number, 0]])] if isinstance(rows, Rows) else range(len(sources))
        for source in which:
            wanted.setdefault(source, set()).add(place)
    found: dict[Place, Row] = {}
    for source, missing in wanted.items():
        for count, row in enumerate(read_source(sources[source], config, STAGE_ROWS[config.stage])):
            if row.place in missing and not isinstance(row, Refused):
                found[row.place] = row
                missing.remove(row.place)
            if not missing or (isinstance(rows, Stream) and count > config.buffer_size + len(rows.sample)):
                break
    return found


def _at(word: str, data: Data, per_row: int) -> tuple[Rows | Stream, list[int]]:
    """The row whose place is `word` (or ends with it), among those trained on and those held out.

    Raises:
        Problem: there is none; with the reason where it is known, and the nearest one.
    """
    for rows in (data.train, *data.held_out.values()):
        if isinstance(rows, Stream):
            numbers = [number for number, row in enumerate(rows.sample) if _is_at(row.where, word)]
        else:
            numbers = np.flatnonzero(_places_at(rows, word)).tolist()
        if numbers:
            return rows, numbers[::per_row]
    for store in data.stores:
        reasons = {str(row.place): row.reason for row in store.refused()}
        reasons |= {place: Both("it is longer than cutoff_len", "超过 cutoff_len") for place in store.manifest.overlong}
        for place, reason in reasons.items():
            if _is_at(place, word):
                raise problem("no-such-row", Both(f"{place} is not learned from: {reason}.",
                                                  f"{place} 不参与学习：{spoken(reason, True)}。"), option="--row",
                              status=WRONG_OPTIONS)
    near, names = _nearest(word, data.stores), _names(data)
    raise problem("no-such-row", Both(f"no row begins at {word}.", f"没有从 {word} 开始的行。"), option="--row",
                  status=WRONG_OPTIONS,
                  fix=Both(f"The nearest one begins at {near}.", f"最近的一行从 {near} 开始。") if near else
                  Both(f"Rows are named {', '.join(names)}.", f"行的写法：{'、'.join(names)}。"))


def _names(data: Data) -> list[str]:
    """How the places of rows are written, for each file of the data sets (`N` stands for the number)."""
    files = dict.fromkeys(file for store in data.stores for file in store.manifest.files)
    if isinstance(data.train, Stream):
        files |= dict.fromkeys(row.place.file for row in data.train.sample)
    names = [f"{file}N" for file in files]
    return [*names[:5], "…"] if len(names) > 5 else names


def _is_at(place: str, word: str) -> bool:
    return place == word or place.endswith(f"/{word}")


def _split(word: str) -> tuple[str, int]:
    """`data/a.json:12` → (`data/a.json:`, 12)."""
    found = re.fullmatch(r"(.*\D)(\d{1,15})", word, re.DOTALL)
    return (found[1], int(found[2])) if found else (word, -1)


def _places_at(rows: Rows, word: str) -> np.ndarray:
    """(n,): which sequences have the place `word`."""
    name, line = _split(word)
    there = np.zeros(len(rows), dtype=bool)
    for number, store in enumerate(rows.stores):
        files = [index for index, file in enumerate(store.manifest.files) if _is_at(file, name)]
        mine = np.flatnonzero(rows.picks[:, 0] == number)
        records = store.rows[rows.picks[mine, 1]]
        there[mine] = np.isin(records["file"], files) & (records["number"] == line)
    return there


def _nearest(word: str, stores: Sequence[Store]) -> str | None:
    name, line = _split(word)
    near = [(abs(int(record["number"]) - line), f"{store.manifest.files[record['file']]}{record['number']}")
            for store in stores for record in store.rows if _is_at(store.manifest.files[record["file"]], name)]
    return min(near)[1] if near else None


def _view(rows: tuple[Preview, ...], packs: tuple[Pack, ...], data: Data, config: Config) -> View:
    manifests = [store.manifest for store in data.stores]
    learned = data.train.learned.reshape(-1, PER_ROW[STAGE_ROWS[config.stage]]).sum(axis=1)
    return View(
        rows, packs, tuple((str(row.place), row.reason) for store in data.stores for row in store.refused()),
        sum(sum(manifest.refusals.values()) for manifest in manifests),
        tuple(place for manifest in manifests for place in manifest.overlong),
        sum(manifest.overlong_rows for manifest in manifests), sum(manifest.dropped for manifest in manifests),
        _lengths(data, config.cutoff_len), int(np.median(learned)) if len(learned) else 0,
        float(np.mean(learned == 0)) if len(learned) else 0.0, config, isinstance(data.train, Stream))


_BARS = 16


def _lengths(data: Data, cutoff: int) -> Lengths:
    lengths = np.concatenate([np.zeros(0, np.int64), *(store.natural_lengths() for store in data.stores)])
    if isinstance(data.train, Stream):
        lengths = data.train.lengths
    if not len(lengths):
        return Lengths(0, 0, 0, 0, 0, ())
    most, longest = keeping_most(lengths), int(lengths.max())
    width = _round_up(most / (_BARS - 1))
    last = most // width * width
    counts = np.bincount(np.minimum(lengths, last) // width)
    bars = tuple((number * width, max(longest, last) if number * width == last else (number + 1) * width - 1, int(rows))
                 for number, rows in enumerate(counts) if counts[: number + 1].any())
    return Lengths(len(lengths), int(np.median(lengths)), longest, most, int((lengths > cutoff).sum()), bars)


def _round_up(value: float) -> int:
    """To 1, 2 or 5 with zeros behind it."""
    steps = (step * 10**power for power in range(10) for step in (1, 2, 5))
    return next(int(step) for step in steps if step >= value)


def print_view(view: View, terminal: Terminal, ids: bool) -> None:
    """The rows, then what was left out, how long rows are and how much of them is learned."""
    if view.packs:
        for number, found in enumerate(view.packs, start=1):
            words = found.described()
            terminal.print(spoken(Both(f"Pack {number}: {words}.", f"打包 {number}：{words.zh}。"), terminal.chinese),
                           style="bold")
            print_rows(found.rows, terminal, ids=ids, most=200, legend=number == 1)
    else:
        print_rows(view.rows, terminal, ids=ids)
    for line in _summary(view):
        terminal.say(line)
    terminal.print()


def _summary(view: View) -> Iterator[Words]:
    config, refused, overlong = view.config, view.refused_rows, view.overlong_rows
    if refused:
        yield Both(f"{count_of(refused, 'row')} cannot be learned from and {'is' if refused == 1 else 'are'} left out:",
                   f"{refused:,} 行无法学习，已丢弃：")
        yield from _some([Both(f"  {where}  {reason}", f"  {where}  {spoken(reason, True)}")
                          for where, reason in view.refused], refused)
        yield ""
    if overlong:
        kept, lost = overlong - view.overlong_dropped, view.overlong_dropped
        fates = [Both(f"{lost:,} left out", f"丢弃 {lost:,} 行")] if lost else []
        cut = Both("split", "续到后面的行") if config.overlong == "split" else Both("cut", "截断")
        fates += [Both(f"{kept:,} {cut}", f"{cut.zh} {kept:,} 行")] if kept else []
        yield Both(f"{count_of(overlong, 'row')} longer than cutoff_len ({config.cutoff_len:,} tokens): "
                   f"{', '.join(map(str, fates))} (overlong: {config.overlong})",
                   f"{overlong:,} 行超过 cutoff_len（{config.cutoff_len:,} 个 token）："
                   f"{'，'.join(fate.zh for fate in fates)}（overlong: {config.overlong}）")
        yield from _some([f"  {place}" for place in view.overlong], overlong)
        yield ""
    yield from _length_lines(view)
    yield ""
    each = Both("pair, both answers together", "每对两个回答合计") if STAGE_ROWS[config.stage] == "preferences" else \
        Both("row", "每行")
    none = Both(f"{view.learned_none:.1%} of the rows have none", f"{view.learned_none:.1%} 的行没有学习的 token") \
        if view.learned_none else Both("no row is without", "每行都有")
    yield Both(f"Learned tokens: {view.learned_median:,} a {each} (median); {none}.",
               f"学习的 token：{each.zh}中位数 {view.learned_median:,} 个；{none.zh}。")


def _some(lines: Sequence[Words], total: int) -> list[Words]:
    more = [Both(f"  … and {total - 10:,} more", f"  …… 另有 {total - 10:,} 行")] if total > 10 else []
    return [*lines[:10], *more]


_EIGHTHS = " ▏▎▍▌▋▊▉"
_BAR = 40


def _length_lines(view: View) -> Iterator[Words]:
    lengths, cutoff, what = view.lengths, view.config.cutoff_len, view.measured()
    documents = STAGE_ROWS[view.config.stage] == "documents"
    when = Both("as they are trained on", "训练时") if view.streamed else Both("before anything is cut", "截断前")
    yield Both(f"Tokens of {what}, {when}: {lengths.median:,} (median), {lengths.longest:,} (longest)",
               f"{what.zh}的 token 数（{when.zh}）：中位数 {lengths.median:,}，最长 {lengths.longest:,}")
    highest = max((rows for _, _, rows in lengths.bars), default=0)
    wide = max((len(f"{last:,}") for _, last, _ in lengths.bars), default=0)
    for begin, end, rows in lengths.bars:
        eighths = -(-rows * _BAR * 8 // highest) if rows else 0
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        mark = f"   ◄ cutoff_len {cutoff:,}" if begin <= cutoff <= end and not documents else ""
        first, last = f"{begin:>{wide},}", f"{end:>{wide},}"
        drawn = f"{bar}{' ' if bar else ''}{rows:,}{mark}"
        yield Both(f"  {first} to {last}  {drawn}", f"  {first} 到 {last}  {drawn}")
    if documents and view.config.packing is not False:
        yield Both(f"Documents are joined, each with an end-of-text token, and cut into blocks of {cutoff:,} tokens.",
                   f"文档首尾相接，各以文本结束符结尾，再切成 {cutoff:,} 个 token 的块。")
    elif documents:
        yield Both(f"Each document is a row of at most {cutoff:,} tokens.",
                   f"每篇文档为一行，最多 {cutoff:,} 个 token。")
    elif view.streamed:
        yield Both(f"Rows longer than cutoff_len ({cutoff:,}) are not counted here (overlong: {view.config.overlong}).",
                   f"超过 cutoff_len（{cutoff:,}）的行不计在内（overlong: {view.config.overlong}）。")
    elif lengths.longer:
        yield Both(f"Longer than cutoff_len ({cutoff:,}): {lengths.longer:,}.",
                   f"超过 cutoff_len（{cutoff:,}）的有 {lengths.longer:,} 行。")
    else:
        yield Both(f"All fit into cutoff_len ({cutoff:,}).", f"全部不超过 cutoff_len（{cutoff:,}）。")
    if documents:
        yield Both("The first token of a row is not learned, since nothing stands before it to tell it from.",
                   "每行的第一个 token 不学习，因为它前面没有可据以预测的内容。")
