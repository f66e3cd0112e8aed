"""From a configuration to the rows of a run: every data set as a token store, mixed, sampled, held out."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from truetune.data.extent import Extent, extent_of
from truetune.data.lengths import fit, keeping_most
from truetune.data.messages import BadRow, Kind, Row
from truetune.data.mix import mix_indices, mix_streams, sample_indices
from truetune.data.reading import STAGE_ROWS, Refused, describe_refused, read_source
from truetune.data.renderer import VERSION, Disagreed, Rendered, Renderer
from truetune.data.rows import Rows, Stream, all_of, groups_of, of_groups, split
from truetune.data.sources import Source, find_sources
from truetune.data.store import Recipe, Store, build, differing, finished, key_of, read_manifest
from truetune.files import disk_refusal
from truetune.findings import Both, Finding, Problem, Say, count_of, problem, spoken
from truetune.options import Config

PER_ROW: Mapping[Kind, int] = {"conversations": 1, "preferences": 2, "judged": 1, "documents": 1}
"""How many sequences a row of each kind has."""
_LOOKED_AT = 10_000


@dataclass(frozen=True)
class DataSet:
    """A data set that was read. option: which one names it. rows: how many raw rows it has; more than its store where
    only the first were read, and then about so many."""

    source: Source
    option: str
    store: Store
    rows: int

    @property
    def sampled(self) -> bool:
        return self.rows > self.store.manifest.raw_rows


@dataclass
class Data:
    """What a run learns from and is measured on. held_out: by name; "" is all of it together. sets: what they come
    from, in the order of dataset and eval_dataset. scale: how many rows each of `train` stands for, more than 1 where
    only the first rows of a data set were read."""

    train: Rows | Stream
    held_out: dict[str, Rows]
    sets: list[DataSet] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    scale: float = 1.0

    @property
    def stores(self) -> list[Store]:
        return [found.store for found in self.sets]

    @property
    def train_rows(self) -> int:
        """How many rows there are to train on, about so many where `scale` is not 1: what steps are counted from."""
        return round(len(self.train) * self.scale)


def load_data(config: Config, renderer: Renderer, say: Say, most: int | None = None) -> Data:
    """All rows that `config` names, tokenised or found tokenised.

    Args:
        most: of a data set that is larger and has not been tokenised yet, only about the first so many rows are; they
            are kept apart, and a run does not use them.

    Raises:
        Problem: data sets, files or rows that cannot be used, together.
    """
    errors: list[Finding] = []
    loader = _Loader(config, renderer, say, most)
    train: Rows | Stream = Rows([], np.zeros((0, 2), dtype=np.int64))
    evaluation: list[tuple[str, Store]] = []
    with _collected(errors):
        train = loader.stream() if config.streaming else loader.train()
    with _collected(errors):
        evaluation = loader.stores(config.eval_dataset, "eval_dataset")
    held_out = {name: all_of([store], loader.per_row) for name, store in evaluation}
    if evaluation and not config.eval_on_each_dataset:
        held_out = {"": all_of([store for _, store in evaluation], loader.per_row)}
    if config.val_size and not errors and isinstance(train, Rows):
        with _collected(errors):
            train, held_out[""] = split(train, loader.share_held_out(len(train)), config.seed)
    if errors:
        raise Problem(errors)
    return Data(train, held_out, loader.made, loader.findings, loader.scale)


def unreadable(config: Config) -> list[Finding]:
    """What can be said of the data without a tokenizer: sets and files that are not there, rows that cannot be read
    (among the first `_LOOKED_AT`)."""
    errors: list[Finding] = []
    for option, names in (("dataset", config.dataset), ("eval_dataset", config.eval_dataset)):
        with _collected(errors):
            for source in find_sources(names, config, option) if names else []:
                with _collected(errors):
                    rows = list(islice(read_source(source, config, STAGE_ROWS[config.stage]), _LOOKED_AT))
                    refused = [row for row in rows if isinstance(row, Refused)]
                    errors += [replace(finding, option=option) for finding in describe_refused(refused, len(rows))]
    return errors


@contextmanager
def _collected(errors: list[Finding]) -> Iterator[None]:
    """Problems inside are added to `errors`, so that all are told at once."""
    try:
        yield
    except Problem as error:
        errors += error.findings


class _Loader:
    """Stores for the data sets of one configuration."""

    def __init__(self, config: Config, renderer: Renderer, say: Say, most: int | None):
        self.config, self.renderer, self.say, self.most = config, renderer, say, most
        self.kind: Kind = STAGE_ROWS[config.stage]
        self.per_row = PER_ROW[self.kind]
        self.tokenizer_hash = _hash(renderer.tokenizer.backend_tokenizer.to_str())  # pyright: ignore
        self.made: list[DataSet] = []
        self.scale = 1.0
        self.findings: list[Finding] = []

    def train(self) -> Rows:
        """The training sets, each sampled as dataset_info.json and max_samples say, mixed."""
        config = self.config
        sources = find_sources(config.dataset, config, "dataset")
        stores = [store for _, store in self._build_all(sources, "dataset")]
        seed = config.seed
        parts = [found.store.manifest.raw_rows / found.rows if found.sampled else 1.0 for found in self.made]
        chosen = [_drawn(source, len(groups_of(store)) - 1, part, config)
                  for source, store, part in zip(sources, stores, parts, strict=True)]
        sizes = [len(numbers) for numbers in chosen]
        order = mix_indices(sizes, config.mix_strategy, config.interleave_probs, seed)
        if min(parts, default=1.0) < 1 and len(order):
            whole = [size / part for size, part in zip(sizes, parts, strict=True)]
            self.scale = _mixed_size(whole, config) / len(order)
        picked = np.zeros((len(order), 2), dtype=np.int64)
        for number, groups in enumerate(chosen):
            mine = order[:, 0] == number
            picked[mine] = np.stack([np.full(mine.sum(), number), groups[order[mine, 1]]], axis=1)
        return of_groups(stores, picked, self.per_row)

    def stores(self, names: Sequence[str], option: str) -> list[tuple[str, Store]]:
        return self._build_all(find_sources(names, self.config, option) if names else [], option)

    def _build_all(self, sources: Sequence[Source], option: str) -> list[tuple[str, Store]]:
        errors: list[Finding] = []
        stores: list[tuple[str, Store]] = []
        for source in sources:
            try:
                stores.append((source.name, self._build(source, option)))
            except Problem as error:
                errors += [replace(finding, option=finding.option or option) for finding in error.findings]
        if errors:
            raise Problem(errors)
        return stores

    def share_held_out(self, rows: int) -> float:
        """`val_size`, of `rows` that stand for `scale` times as many: a number is then taken as a share of those."""
        wanted = self.config.val_size
        return max(1, round(wanted / self.scale)) if wanted >= 1 and self.scale > 1 and wanted < rows * self.scale \
            else wanted

    def recipe(self, source: Source, extent: Extent | None = None) -> Recipe:
        """What this data set's store is made from; all of it is in the store's key. extent: only its first rows."""
        config, masks = self.config, self.renderer.masks
        join = self.kind == "documents" and config.packing is not False
        settings = {
            "renderer": VERSION, "source": source.where or source.name, 
            "data": source.fingerprint() if extent is None else f"the first {extent.first} rows of {extent.mark}",
            "layout": repr(source.layout), "kind": self.kind,
            "tokenizer": self.tokenizer_hash, "template": _hash(str(self.renderer.tokenizer.chat_template)),
            "stop_ids": self.renderer.stop_ids(), "cutoff_len": config.cutoff_len, "overlong": config.overlong,
            "mask_history": masks.only_last, "train_on_prompt": masks.prompts, "loss_weights": dict(masks.patterns),
            "max_samples": None if source.num_samples else config.max_samples, "joined": join,
            "default_system": config.default_system, "identity_name": config.identity_name,
            "identity_author": config.identity_author,
        }
        return Recipe(settings, self.per_row, config.cutoff_len, config.overlong, join)

    def _extent(self, source: Source) -> Extent | None:
        """How large a data set is of which only the first rows are to be read; None: all are."""
        config = self.config
        extent = extent_of(source, self.most) if self.most else None
        if extent and config.max_samples and not source.num_samples:
            extent = replace(extent, rows=min(extent.rows, config.max_samples),
                             first=min(extent.first, config.max_samples))
        if extent and extent.hashable:
            recipe = self.recipe(source)
            if finished(self._folder(source, recipe), recipe) and not config.overwrite_cache:
                return None
        return extent

    def _folder(self, source: Source, recipe: Recipe, first: bool = False) -> Path:
        """Where this store is kept. In a `tokenized_path` it has the data set's name, and must be of these settings.

        Args:
            first: it holds only the first rows.
        """
        if first or not self.config.tokenized_path:
            return cache_folder() / key_of(recipe.settings)
        folder = Path(self.config.tokenized_path) / _file_name(source.name)
        if (folder / "store.json").is_file() and not self.config.overwrite_cache:
            manifest = read_manifest(folder)
            changed = differing(manifest.settings, recipe.settings)
            if changed:
                short = [(name, _short(before), _short(now)) for name, before, now in changed]
                raise problem("other-store", Both(
                    f"{folder} was made with other settings: "
                    f"{', '.join(f'{name} was {before} and is {now}' for name, before, now in short)}.",
                    f"{folder} 是用别的设置生成的："
                    f"{'，'.join(f'{name} 当时是 {before}，现在是 {now}' for name, before, now in short)}。"),
                    option="tokenized_path", where=self.config.origin("tokenized_path"),
                    fix=Both("Choose another folder, or overwrite_cache: true makes it again.",
                             "请换一个文件夹；或设置 overwrite_cache: true 重新生成。"))
        return folder

    def _build(self, source: Source, option: str) -> Store:
        extent = self._extent(source)
        recipe = self.recipe(source, extent)
        folder = self._folder(source, recipe, first=extent is not None)

        def read(start: int) -> Iterator[Row | Refused]:
            rows = read_source(source, self.config, self.kind, start)
            return islice(rows, extent.first - start) if extent else rows

        def make(afresh: bool) -> Store:
            return build(folder, recipe, read, self.renderer, self._progress(source.name), afresh)

        try:
            try:
                store = make(afresh=self.config.overwrite_cache)
            except Disagreed as error:
                self.say(Both(
                    f"{source.name} is tokenised again, without the faster encoder, which was wrong: {error}",
                    f"快速编码器出错，不用它重新给 {source.name} 分词：{error.difference.zh}"))
                store = make(afresh=True)
        except OSError as error:
            full = disk_refusal(error, cache_folder().parent)
            reason = full or error.strerror or str(error)
            raise problem("store-unwritten", Both(f"{folder} cannot be written: {spoken(reason, False)}.",
                                                  f"{folder} 无法写入：{spoken(reason, True)}。"),
                          option="tokenized_path", where=self.config.origin("tokenized_path"),
                          fix=Both("Make room, or name another folder.", "请腾出空间，或换一个文件夹。") if full else
                          Both("Name another folder.", "请换一个文件夹。")) from None
        self.made.append(DataSet(source, option, store, extent.rows if extent else store.manifest.raw_rows))
        self._judge(store, option)
        return store

    def _progress(self, name: str) -> Callable[[int], None]:
        """A line every ten seconds."""
        began = told = time.monotonic()
        kept: int | None = None  # rows at the first word: those of an earlier process too

        def progress(rows: int) -> None:
            nonlocal told, kept
            now, kept = time.monotonic(), rows if kept is None else kept
            if now - told > 10:
                told = now
                rate = f"{(rows - kept) / (now - began):,.0f}"
                self.say(Both(f"{name}: {rows:,} rows tokenised, {rate} a second",
                              f"{name}：已分词 {rows:,} 行，每秒 {rate} 行"))

        return progress

    def _judge(self, store: Store, option: str) -> None:
        """Findings about what was refused or too long.

        Raises:
            Problem: rows were refused, and nobody said to drop them.
        """
        config, manifest = self.config, store.manifest
        told = [replace(finding, option=option)
                for finding in describe_refused(store.refused(), manifest.raw_rows, manifest.refusals)]
        forgiven = config.on_bad_row == "drop" and manifest.refusals.keys() <= {"bad-row"}
        if told and not forgiven:
            raise Problem(told)
        if told:
            count, first = manifest.refusals["bad-row"], told[0].message
            self.findings.append(replace(told[0], severity="warn", fix=told[0].fix, message=Both(
                f"left out, since they cannot be learned from: {count} of {manifest.raw_rows} rows. The first: {first}",
                f"{manifest.raw_rows} 行中有 {count} 行无法学习，已丢弃。第一行：{spoken(first, True)}")))
        if manifest.rewritten:
            self.findings.append(Finding("rewritten", "info", Both(
                "the chat template writes earlier answers differently once more turns follow, so "
                f"{count_of(manifest.rewritten, 'conversation')} of {manifest.raw_rows} became several rows, each "
                "ending with an answer.",
                "有后续消息时，对话模板会改写之前的回答，因此 "
                f"{manifest.raw_rows:,} 个对话中有 {manifest.rewritten:,} 个变成了多行，每行以一个回答结尾。"),
                option=option, fix=Both("mask_history: true learns only the last answer of each.",
                                        "mask_history: true 只学习每个对话的最后一个回答。")))
        self.findings += _overlong(store, config, option)

    def stream(self) -> Stream:
        """The training sets as one stream, pass after pass, each in another order."""
        config = self.config
        sources = find_sources(config.dataset, config, "dataset")
        self.findings += [Finding("unsampled", "warn", Both(
            f"num_samples of {source.name} has no effect: the rows of a stream are not drawn.",
            f"{source.name} 的 num_samples 不起作用：流式数据不抽样。"), option="streaming", where=source.where,
            fix=Both("max_samples takes the first ones.", "max_samples 可以只取前若干行。"))
                          for source in sources if source.num_samples]
        # A check goes on without max_steps, which a rule has found missing.
        total = max(config.max_steps, 1) * config.rows_at_once * config.gradient_accumulation_steps * self.per_row

        def rows() -> Iterator[Rendered]:
            for number in count():
                streams = [partial(read_source, source, config, self.kind) for source in sources]
                mixed = mix_streams(streams, config.mix_strategy, config.interleave_probs, config.seed + number)
                learned = self._streamed(_shuffled(mixed, config.buffer_size, config.seed + number))
                first = next(learned, None)
                if first is None:
                    raise problem("no-rows-left", Both("the stream has no row to learn from.",
                                                       "流式数据里没有可学习的行。"), option="dataset")
                yield first
                yield from learned

        return Stream(rows, total, _hash("".join(key_of(self.recipe(source).settings) for source in sources)))

    def _streamed(self, mixed: Iterator[Row | Refused]) -> Iterator[Rendered]:
        """Rows rendered as they come. What cannot be learned from or is too long stops the run or is left out, as the
        options say."""
        config = self.config
        while chunk := list(islice(mixed, 1000)):
            rows = [row for row in chunk if not isinstance(row, Refused)]
            refused = [row for row in chunk if isinstance(row, Refused)]
            for row, sequences in zip(rows, self.renderer.render(rows), strict=True):
                if isinstance(sequences, BadRow):
                    refused.append(Refused(row.place, sequences.reason, sequences.id, sequences.fix))
                elif config.overlong == "error" and any(len(sequence) > config.cutoff_len for sequence in sequences):
                    refused.append(Refused(row.place, Both(f"it has more than {config.cutoff_len} tokens",
                                                           f"超过 {config.cutoff_len} 个 token"), "too-long"))
                else:
                    for fitting in fit(sequences, config.cutoff_len, config.overlong):
                        yield from fitting
            if any(row.id != "bad-row" for row in refused) or (refused and config.on_bad_row == "error"):
                raise Problem(replace(finding, option="dataset") for finding in describe_refused(refused, len(chunk)))


def _drawn(source: Source, rows: int, part: float, config: Config) -> np.ndarray:
    """Which rows of a data set are used. part: the share of it that was read; of what is drawn from it, as much."""
    number = math.ceil(source.num_samples * part) if source.num_samples else None
    most = math.ceil(config.max_samples * part) if number and config.max_samples else None
    return sample_indices(rows, number, most, config.seed)


def _mixed_size(sizes: Sequence[float], config: Config) -> float:
    """About how many rows a mixture of sets of these sizes has, reckoned from smaller ones in the same proportion."""
    smaller = max(1.0, sum(sizes) / 100_000)
    mixed = mix_indices([math.ceil(size / smaller) for size in sizes], config.mix_strategy, config.interleave_probs,
                        config.seed)
    return len(mixed) * smaller


def _shuffled(rows: Iterator[Any], size: int, seed: int) -> Iterator[Any]:
    """Each next row is drawn from `size` that wait."""
    draw = np.random.default_rng(seed)
    waiting = list(islice(rows, size))
    for row in rows:
        number = int(draw.integers(len(waiting)))
        waiting[number], row = row, waiting[number]
        yield row
    draw.shuffle(waiting)  # pyright: ignore[reportArgumentType]
    yield from waiting


def _overlong(store: Store, config: Config, option: str) -> list[Finding]:
    """How many rows were longer than cutoff_len, which, what became of them, and what would keep nearly all whole.

    Raises:
        Problem: overlong: error.
    """
    manifest, limit = store.manifest, config.cutoff_len
    if not manifest.overlong_rows:
        return []
    lengths = store.natural_lengths()
    dropped = manifest.dropped if config.overlong != "error" else 0
    fates = [(_SHORTENED[config.overlong], manifest.overlong_rows - manifest.dropped)] \
        if config.overlong in _SHORTENED else []
    fates = [(fate, count) for fate, count in [*fates, (_LEFT_OUT, dropped)] if count]
    told = Both(" and ".join(f"{count} {fate}" for fate, count in fates),
                "，".join(f"{count} 行{fate.zh}" for fate, count in fates))
    first, many = manifest.overlong[:5], manifest.overlong_rows > 5
    finding = Finding(
        "too-long", "error" if config.overlong == "error" else "warn", Both(
            f"longer than {limit} tokens: {manifest.overlong_rows} of {len(lengths)} rows (the longest has "
            f"{lengths.max()}){f'; {told}' if fates else ''} ({', '.join(first)}{', …' if many else ''}).",
            f"{len(lengths)} 行中有 {manifest.overlong_rows} 行超过 {limit} 个 token（最长 {lengths.max()}）"
            f"{f'；{told.zh}' if fates else ''}（{'、'.join(first)}{' 等' if many else ''}）。"),
        option="cutoff_len" if option == "dataset" else option, where=config.origin("cutoff_len"),
        fix=_wider(lengths))
    if finding.severity == "error":
        raise Problem(finding)
    return [finding]


_SHORTENED = {"truncate": Both("cut, without an end where the answer is cut", "被截断（截在回答里的没有结束符）"),
              "split": Both("going on in further rows", "续到后面的行")}
_LEFT_OUT = Both("left out", "被丢弃")


def _wider(lengths: np.ndarray) -> Both:
    """What cutoff_len would keep nearly all rows, and all of them."""
    most, whole = keeping_most(lengths), int(lengths.max())
    if most == whole:
        return Both(f"cutoff_len: {most} keeps all of them whole.", f"cutoff_len: {most} 可完整保留所有行。")
    return Both(f"cutoff_len: {most} keeps 99.5 %, {whole} all of them whole.",
                f"cutoff_len: {most} 可完整保留 99.5 % 的行，{whole} 可保留所有行。")


def cache_folder() -> Path:
    """Where token stores are kept: `$XDG_CACHE_HOME/truetune/tokens`, in `~/.cache` without that."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "truetune" / "tokens"


def _file_name(name: str) -> str:
    """A data set's name or path as the name of a folder."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).strip("._") or "data"


def _short(value: object) -> str:
    return repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:37]}…"


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
