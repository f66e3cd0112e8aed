"""The token store: one data set as token ids on disk, made once, read by memory map, found again by what went into it.

A store is a folder named by the hash of its settings: the data's bytes, tokenizer, chat template, cutoff_len, masks,
thinking, and the renderer's version. `store.json` says what they were and which shards are complete. A shard is
four arrays (numpy's .npy):

    NNNNN.ids      all tokens, end to end: (tokens,) uint16 or uint32
    NNNNN.rows     one record a sequence, see `ROW`
    NNNNN.runs     what is learned, see `RUN`
    NNNNN.lengths  the length of every sequence before any was dropped or cut: (sequences,) int32

A process that is killed leaves whole shards; the next one goes on behind them. Nothing is held in memory whole.
"""

from __future__ import annotations

import gc
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from truetune.data.lengths import blocks, fit
from truetune.data.messages import BadRow, Place, Row
from truetune.data.reading import Refused
from truetune.data.renderer import Rendered, Renderer, Run
from truetune.files import remove_folder, write_json
from truetune.findings import Both, Words

FORMAT = 1
MANIFEST = "store.json"
_CHUNK = 1000
"""Raw rows rendered at a time: enough for the tokenizer's threads, little enough for memory."""
_SHARD = 20 * _CHUNK
"""Raw rows a shard: what a kill can cost, and a bound on memory."""
ROW = np.dtype([("start", "<i8"), ("run", "<i8"), ("number", "<i8"), ("length", "<i4"), ("runs", "<i4"),
                ("learned", "<i4"), ("file", "<i4"), ("label", "i1"), ("flags", "u1")])
"""A sequence: where its ids and runs begin in their arrays and how many they are, its place, how many tokens are
learned, its label (-1: none) and `FLAGS`."""
RUN = np.dtype([("first", "<i4"), ("last", "<i4"), ("weight", "<f4")])
FLAGS = {"drifts": 1, "endless": 2, "cut": 4, "thinks": 8}
"""Facts of a sequence, as bits."""
_NAMED = 1000
"""So many refused or overlong rows are kept by place; of the others the number."""


@dataclass
class Manifest:
    """What `store.json` says. files: the file part of places. per_row: sequences a row has. base: the weight of tokens
    outside of runs. refused: rows that could not be learned from, `_NAMED` of them; refusals: how many by kind.
    overlong: places of rows that were longer than cutoff_len, `_NAMED` of them; dropped: how many of those
    are left out. rewritten: conversations that became
    several rows."""

    format: int
    key: str
    settings: dict[str, Any]
    per_row: int
    base: float
    wide: bool
    files: list[str] = field(default_factory=list)
    shards: list[dict[str, int]] = field(default_factory=list)
    refused: list[list[Any]] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    overlong: list[str] = field(default_factory=list)
    overlong_rows: int = 0
    dropped: int = 0
    rewritten: int = 0
    finished: bool = False

    @property
    def left_out(self) -> int:
        """Rows of which nothing is in the store."""
        return sum(self.refusals.values()) + self.dropped

    @property
    def raw_rows(self) -> int:
        return sum(shard["raw"] for shard in self.shards)


def key_of(settings: Mapping[str, Any]) -> str:
    """The name of the store that these settings make."""
    return sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:20]


class Store:
    """A finished store, memory-mapped. `len` counts sequences; `store[n]` is the n-th."""

    def __init__(self, folder: Path):
        self.folder, self.manifest = folder, read_manifest(folder)
        shards = range(len(self.manifest.shards))
        self._ids, self._runs = ([_array(folder, shard, name) for shard in shards] for name in ("ids", "runs"))
        self.rows: np.ndarray = np.concatenate(
            [np.zeros(0, ROW), *(_array(folder, shard, "rows") for shard in shards)])
        self._shard_of = np.repeat(np.array([*shards], dtype=np.int32),
                                   [shard["sequences"] for shard in self.manifest.shards])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Rendered:
        row, shard = self.rows[number], self._shard_of[number]
        start, run = int(row["start"]), int(row["run"])
        ids = np.asarray(self._ids[shard][start : start + int(row["length"])], dtype=np.int32)
        runs = tuple(Run(*found) for found in self._runs[shard][run : run + int(row["runs"])].tolist())
        flags = {name: bool(row["flags"] & bit) for name, bit in FLAGS.items()}
        label = None if row["label"] < 0 else bool(row["label"])
        place = Place(self.manifest.files[row["file"]], int(row["number"]))
        return Rendered(ids, runs, self.manifest.base, place, label, **flags)

    def natural_lengths(self) -> np.ndarray:
        """The length of every sequence before any was dropped or cut: (sequences,) int32."""
        return np.concatenate([np.zeros(0, np.int32), *(_array(self.folder, shard, "lengths")
                                                        for shard in range(len(self.manifest.shards)))])

    def refused(self) -> list[Refused]:
        """The first rows that could not be learned from."""
        return [Refused(Place(*place), _words(reason), id, fix and _words(fix))
                for place, reason, id, fix in self.manifest.refused]


def _words(kept: str | Sequence[str]) -> Words:
    """Words as JSON keeps them: those in two languages are a list of two."""
    return kept if isinstance(kept, str) else Both(*kept)


def _array(folder: Path, shard: int, name: str) -> np.ndarray:
    return np.load(folder / f"{shard:05}.{name}.npy", mmap_mode="r")


def read_manifest(folder: Path) -> Manifest:
    return Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Recipe:
    """How rows become a store. kind and settings are the store's; join: documents become blocks of `limit` tokens."""

    settings: Mapping[str, Any]
    per_row: int
    limit: int
    overlong: str
    join: bool


def build(folder: Path, recipe: Recipe, read: Callable[[int], Iterator[Row | Refused]], renderer: Renderer,
          progress: Callable[[int], None], afresh: bool = False) -> Store:
    """The store in `folder`: as it is, or made, or gone on with. Whoever comes while it is made waits and then uses it.

    Args:
        read: the rows from raw row n on.
        progress: told the number of raw rows so far.
        afresh: make it again, whatever there is.

    Raises:
        Disagreed: see `Renderer.stream`; the store must be made afresh.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        key = key_of(recipe.settings)
        manifest = _begun(folder, key)
        if manifest and afresh:
            remove_folder(folder)
            manifest = None
        if not manifest:
            folder.mkdir(parents=True, exist_ok=True)
            wide = len(renderer.tokenizer) > np.iinfo(np.uint16).max + 1
            base = float(renderer.masks.prompts or recipe.settings["kind"] == "documents")
            manifest = Manifest(FORMAT, key, dict(recipe.settings), recipe.per_row, base, wide)
        if not manifest.finished:
            _Builder(folder, manifest, recipe, renderer).run(read(manifest.raw_rows), progress)
    return Store(folder)


def _begun(folder: Path, key: str) -> Manifest | None:
    """What an earlier process has made of this store; None if that cannot be used."""
    try:
        manifest = read_manifest(folder)
        whole = all(_array(folder, number, "ids").shape == (shard["tokens"],)
                    and _array(folder, number, "rows").shape == (shard["sequences"],)
                    for number, shard in enumerate(manifest.shards))
    except (OSError, ValueError, TypeError):  # not there, cut short, or written by another version
        return None
    return manifest if whole and (manifest.format, manifest.key) == (FORMAT, key) else None


def finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the store of `recipe` in `folder` is there, whole."""
    manifest = _begun(folder, key_of(recipe.settings))
    return manifest is not None and manifest.finished


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python's cycle collector would walk the waiting rows again and again, and rows make no cycles: a quarter to a
    half of the time (measured). What little there is goes with each shard."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class _Builder:
    """Renders rows and writes shard after shard."""

    def __init__(self, folder: Path, manifest: Manifest, recipe: Recipe, renderer: Renderer):
        self.folder, self.manifest, self.recipe, self.renderer = folder, manifest, recipe, renderer
        self._file_numbers = {file: number for number, file in enumerate(manifest.files)}

    def run(self, rows: Iterator[Row | Refused], progress: Callable[[int], None]) -> None:
        """Everything that is left to read. Rows of the next shard are read and rendered while this one is written."""
        chunks: deque[list[Row | Refused]] = deque()

        def learnable() -> Iterator[list[Row]]:
            while chunk := list(islice(rows, _CHUNK)):
                chunks.append(chunk)
                yield [row for row in chunk if not isinstance(row, Refused)]

        shard, raw = _Shard(), 0
        with _without_collector():
            for rendered in self.renderer.stream(learnable(), fast=True):
                chunk = chunks.popleft()
                self._add(shard, chunk, rendered)
                raw += len(chunk)
                progress(self.manifest.raw_rows + raw)
                if raw >= _SHARD:
                    self._write(shard, raw)
                    shard, raw = _Shard(), 0
                    gc.collect()
        self.manifest.finished = True
        self._write(shard, raw)

    def _add(self, shard: _Shard, chunk: Sequence[Row | Refused],
             rendered: Iterable[tuple[Rendered, ...] | BadRow]) -> None:
        """One chunk into the shard; what cannot be learned from is noted."""
        results = iter(rendered)
        documents: list[Rendered] = []
        for row in chunk:
            if isinstance(row, Refused):
                self._refuse(row)
                continue
            sequences = next(results)
            if isinstance(sequences, BadRow):
                self._refuse(Refused(row.place, sequences.reason, sequences.id, sequences.fix))
            elif self.recipe.join:
                documents += sequences
            else:
                self._fit(shard, sequences)
        shard.documents += documents

    def _refuse(self, refused: Refused) -> None:
        counts = self.manifest.refusals
        counts[refused.id] = counts.get(refused.id, 0) + 1
        if counts[refused.id] <= _NAMED:
            self.manifest.refused.append([list(refused.place), refused.reason, refused.id, refused.fix])

    def _fit(self, shard: _Shard, sequences: tuple[Rendered, ...]) -> None:
        step = self.recipe.per_row
        self.manifest.rewritten += len(sequences) > step
        for first in range(0, len(sequences), step):
            row = sequences[first : first + step]
            shard.lengths += map(len, row)
            if any(len(sequence) > self.recipe.limit for sequence in row):
                self.manifest.overlong_rows += 1
                if len(self.manifest.overlong) < _NAMED:
                    self.manifest.overlong.append(row[0].where)
                fitting = fit(row, self.recipe.limit, self.recipe.overlong)
                self.manifest.dropped += not fitting
                shard.sequences += [sequence for part in fitting for sequence in part]
            else:
                shard.sequences += row

    def _write(self, shard: _Shard, raw: int) -> None:
        """The shard's arrays, then the manifest that says it is there."""
        if shard.documents:
            opening = self.renderer.opening_ids()
            shard.sequences += blocks(shard.documents, self.recipe.limit, opening)
            shard.lengths += map(len, shard.documents)
        number, sequences = len(self.manifest.shards), shard.sequences
        ids = [sequence.ids for sequence in sequences]
        arrays = {
            "ids": np.concatenate([np.zeros(0, np.int32), *ids]).astype(np.uint32 if self.manifest.wide else np.uint16),
            "rows": self._rows(sequences),
            "runs": np.array([run for sequence in sequences for run in sequence.runs], dtype=RUN),
            "lengths": np.array(shard.lengths, dtype=np.int32),
        }
        for name, array in arrays.items():
            part = self.folder / f".{number:05}.{name}.npy.part"
            with part.open("wb") as file:
                np.save(file, array)
            part.replace(self.folder / f"{number:05}.{name}.npy")
        self.manifest.files = list(self._file_numbers)
        self.manifest.shards.append({"raw": raw, "sequences": len(sequences), "tokens": len(arrays["ids"])})
        write_json(self.folder / MANIFEST, asdict(self.manifest))

    def _rows(self, sequences: Sequence[Rendered]) -> np.ndarray:
        rows = np.zeros(len(sequences), ROW)
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        counts = np.array([len(sequence.runs) for sequence in sequences], dtype=np.int64)
        rows["length"], rows["runs"] = lengths, counts
        rows["start"], rows["run"] = np.cumsum(lengths) - lengths, np.cumsum(counts) - counts
        rows["learned"] = [_learned(sequence) for sequence in sequences]
        rows["number"] = [sequence.place.number for sequence in sequences]
        rows["file"] = [self._file_numbers.setdefault(sequence.place.file, len(self._file_numbers))
                        for sequence in sequences]
        rows["label"] = [-1 if sequence.label is None else int(sequence.label) for sequence in sequences]
        rows["flags"] = [sum(bit for name, bit in FLAGS.items() if getattr(sequence, name)) for sequence in sequences]
        return rows


@dataclass
class _Shard:
    """What waits to be written."""

    sequences: list[Rendered] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    documents: list[Rendered] = field(default_factory=list)


def _learned(sequence: Rendered) -> int:
    """How many tokens are learned; the first is predicted from nothing, so it never is."""
    if sequence.base:
        return int(np.count_nonzero(sequence.weights[1:]))
    return sum(last - max(first, 1) for first, last, weight in sequence.runs if weight)


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings in which two stores differ: (name, before, now)."""
    return [(name, before.get(name), now.get(name)) for name in chain(before, now.keys() - before.keys())
            if before.get(name) != now.get(name)]
