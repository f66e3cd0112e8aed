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
from rich.text import Text

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
from truetune.findings import WRONG_OPTIONS, Finding, Say, count_of, problem, refuse
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
        raise problem("streaming-store", "a stream is read while it is trained on, so there is nothing to build.",
                      option="streaming", where=config.origin("streaming"), fix="Leave out streaming.",
                      status=WRONG_OPTIONS)
    began = time.time()
    _, renderer, data, findings = prepare(config, terminal.say)
    for name, store in zip([*config.dataset, *config.eval_dataset], data.stores, strict=True):
        finished = (store.folder / MANIFEST).stat().st_mtime
        made = f"made in {finished - began:.1f} s" if finished >= began else \
            f"kept since {datetime.fromtimestamp(finished):%Y-%m-%d %H:%M}"
        began = max(began, finished)
        terminal.print(f"{name}: {_size(store)}; {made} in {store.folder}")
    return refuse([*findings, *row_findings(data, renderer, config)])


def _size(store: Store) -> str:
    manifest, sequences = store.manifest, len(store)
    rows = manifest.raw_rows - manifest.left_out
    several = sequences != rows * manifest.per_row
    kept = f" in {count_of(sequences, 'block' if manifest.settings['joined'] else 'sequence')}" if several else ""
    left_out = f", {count_of(manifest.left_out, 'row')} left out" if manifest.left_out else ""
    return (f"{count_of(rows, 'row')}{kept}, {int(store.rows['length'].sum()):,} tokens, "
            f"{int(store.rows['learned'].sum()):,} of them learned{left_out}")


# ---------------------------------------------------------------------------------------------------------------- show


@dataclass(frozen=True)
class Pack:
    """Rows that share a batch row of `limit` tokens; they never see each other."""

    tokens: int
    limit: int
    rows: tuple[Preview, ...]

    def described(self) -> str:
        return (f"{count_of(len(self.rows), 'row')}, {self.tokens:,} of {self.limit:,} tokens "
                f"({100 * self.tokens // self.limit} % full); the rows do not see each other")

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
    refused: tuple[tuple[str, str], ...]
    refused_rows: int
    overlong: tuple[str, ...]
    overlong_rows: int
    overlong_dropped: int
    lengths: Lengths
    learned_median: int
    learned_none: float
    config: Config
    streamed: bool

    def measured(self) -> str:
        """What `lengths` are the lengths of, in words."""
        of = self.lengths.of
        what = {"documents": count_of(of, "document"), "preferences": f"{count_of(of, 'answer')} with prompt"
                }.get(STAGE_ROWS[self.config.stage], count_of(of, "row"))
        return f"the first {what} of a stream" if self.streamed else what

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `data show --json`, which web pages draw: rows and packs as in `preview.py`, and

            {"dropped": {"refused": [{"where", "reason"}], "refused_rows": 3, "overlong": ["data/a.json:12"],
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
            "dropped": {"refused": [{"where": where, "reason": reason} for where, reason in self.refused],
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


def first_rows(rows: Rows | Stream, count: int, renderer: Renderer, config: Config) -> list[Preview]:
    """Previews of the first `count` rows trained on."""
    numbers = _first(rows, count, STAGE_ROWS[config.stage])
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
        reasons |= {place: "it is longer than cutoff_len" for place in store.manifest.overlong}
        for place, reason in reasons.items():
            if _is_at(place, word):
                raise problem("no-such-row", f"{place} is not learned from: {reason}.", option="--row",
                              status=WRONG_OPTIONS)
    near = _nearest(word, data.stores)
    raise problem("no-such-row", f"no row begins at {word}.", option="--row", status=WRONG_OPTIONS,
                  fix=f"The nearest one begins at {near}." if near else f"Rows are named {_names(data)}.")


def _names(data: Data) -> str:
    """How the places of rows are written, for each file of the data sets (`N` stands for the number)."""
    files = dict.fromkeys(file for store in data.stores for file in store.manifest.files)
    if isinstance(data.train, Stream):
        files |= dict.fromkeys(row.place.file for row in data.train.sample)
    names = [f"{file}N" for file in files]
    return ", ".join([*names[:5], "…"] if len(names) > 5 else names)


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
            terminal.print(f"Pack {number}: {found.described()}.", style="bold")
            print_rows(found.rows, terminal, ids=ids, most=200, legend=number == 1)
    else:
        print_rows(view.rows, terminal, ids=ids)
    for line in _summary(view):
        terminal.print(Text(line))
    terminal.print()


def _summary(view: View) -> Iterator[str]:
    config = view.config
    if view.refused_rows:
        yield f"{count_of(view.refused_rows, 'row')} cannot be learned from and {_is(view.refused_rows)} left out:"
        yield from _some([f"  {where}  {reason}" for where, reason in view.refused], view.refused_rows)
        yield ""
    if view.overlong_rows:
        kept = view.overlong_rows - view.overlong_dropped
        fates = [f"{view.overlong_dropped:,} left out"] if view.overlong_dropped else []
        fates += [f"{kept:,} {'split' if config.overlong == 'split' else 'cut'}"] if kept else []
        yield (f"{count_of(view.overlong_rows, 'row')} longer than cutoff_len ({config.cutoff_len:,} tokens): "
               f"{', '.join(fates)} (overlong: {config.overlong})")
        yield from _some([f"  {place}" for place in view.overlong], view.overlong_rows)
        yield ""
    yield from _length_lines(view)
    yield ""
    each = "pair, both answers together" if STAGE_ROWS[config.stage] == "preferences" else "row"
    none = f"{view.learned_none:.1%} of the rows have none" if view.learned_none else "no row is without"
    yield f"Learned tokens: {view.learned_median:,} a {each} (median); {none}."


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _some(lines: Sequence[str], total: int) -> list[str]:
    return [*lines[:10], *([f"  … and {total - 10:,} more"] if total > 10 else [])]


_EIGHTHS = " ▏▎▍▌▋▊▉"
_BAR = 40


def _length_lines(view: View) -> Iterator[str]:
    lengths, cutoff = view.lengths, view.config.cutoff_len
    documents = STAGE_ROWS[view.config.stage] == "documents"
    when = "as they are trained on" if view.streamed else "before anything is cut"
    yield f"Tokens of {view.measured()}, {when}: {lengths.median:,} (median), {lengths.longest:,} (longest)"
    highest = max((rows for _, _, rows in lengths.bars), default=0)
    wide = max((len(f"{last:,}") for _, last, _ in lengths.bars), default=0)
    for begin, end, rows in lengths.bars:
        eighths = -(-rows * _BAR * 8 // highest) if rows else 0
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        mark = f"   ◄ cutoff_len {cutoff:,}" if begin <= cutoff <= end and not documents else ""
        yield f"  {begin:>{wide},} to {end:>{wide},}  {bar}{' ' if bar else ''}{rows:,}{mark}"
    if documents:
        yield f"Documents are joined, each with an end-of-text token, and cut into blocks of {cutoff:,} tokens." \
            if view.config.packing is not False else f"Each document is a row of at most {cutoff:,} tokens."
        yield "The first token of a row is not learned, since nothing stands before it to tell it from."
    elif view.streamed:
        yield f"Rows longer than cutoff_len ({cutoff:,}) are not counted here (overlong: {view.config.overlong})."
    elif lengths.longer:
        yield f"Longer than cutoff_len ({cutoff:,}): {lengths.longer:,}."
    else:
        yield f"All fit into cutoff_len ({cutoff:,})."
