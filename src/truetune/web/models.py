"""What can be picked on the page: models, adapters, templates and data sets that are on this machine.

The only place that looks for them; a name that is not in a list can always be typed. No torch, no network; a search
looks at a bounded number of folders, and what cannot be read is told or left out, never raised.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from truetune.checkpoint import LESSONS, OPTIMIZER, RANDOM
from truetune.data.listing import list_sets
from truetune.data.reading import STAGE_ROWS
from truetune.data.sources import INFO
from truetune.data.templates import TEMPLATES
from truetune.files import read_json
from truetune.findings import Both, Finding, Problem, Words
from truetune.model.bundled import BUNDLED
from truetune.options.read import read_file
from truetune.run import CONFIG
from truetune.web.roots import Roots
from truetune.web.tables import size_of
from truetune.web.words import Language, say

Choice = tuple[str, str]
"""What is shown, and what it stands for."""

DEEP, MANY = 5, 3000
"""Folders below a root that are looked into: so many levels, and so many in all."""
_PASSED_BY = {"node_modules", "__pycache__", "site-packages"}
_NO_WEIGHTS = {OPTIMIZER, RANDOM, LESSONS}
_DATA = {".json", ".jsonl", ".csv", ".parquet", ".arrow", ".txt", ".gz"}


@dataclass(frozen=True)
class Offer:
    """choices: what can be picked; findings: why some things cannot."""

    choices: list[Choice] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------- models and adapters


def models(roots: Roots, language: Language) -> list[Choice]:
    """Whole models: the one that comes with the package, those in the page's folders, the newest first, and those in
    the caches of Hugging Face and ModelScope."""
    return [*_bundled(language), *_local(roots, language, _Folder.is_model), *_downloaded(language)]


def adapters(roots: Roots, language: Language, model: str = "") -> list[Choice]:
    """Adapters and their checkpoints, the newest first.

    Args:
        model: those on it come first, the others after them with the name of theirs; "": the order is by time alone.
    """
    base = _one_spelling(roots, model) if model else ""
    mine, others = [], []
    for folder in _newest(roots, _Folder.is_adapter):
        on = trained_on(folder.path)
        if not base or _one_spelling(roots, on) == base:
            mine.append(_labelled(roots, folder, language))
        else:
            words = Both(f"of {on or '?'}", f"基座 {on or '?'}")
            others.append(_labelled(roots, folder, language, words))
    return [*mine, *others]


def trained(roots: Roots, language: Language) -> list[Choice]:
    """Whatever can be talked to, measured or exported, the newest first: runs, their checkpoints, adapters and models
    in the page's folders; then the model that comes with the package, and those that were downloaded."""
    return [*_local(roots, language, _Folder.is_either), *_bundled(language), *_downloaded(language)]


def with_chosen(choices: Sequence[Choice], chosen: str | Sequence[str] | None) -> list[Choice]:
    """`choices`, and what is chosen though it is not among them, such as a run that was deleted meanwhile: without it
    the list's own script in the browser fails."""
    held = [chosen] if isinstance(chosen, str) else chosen or []
    known = {value for _, value in choices}
    return [*choices, *((value, value) for value in held if value and value not in known)]


def newest_run(roots: Roots) -> str:
    """The run whose model was written last; "" where there is none."""
    runs = _newest(roots, lambda folder: folder.is_either() and CONFIG in folder.files)
    return shown(roots, runs[0].path) if runs else ""


def ggufs(roots: Roots) -> list[Choice]:
    """Files for llama.cpp in the page's folders, the newest folder first."""
    files = [folder.path / name for folder in _newest(roots, lambda folder: bool(folder.ggufs))
             for name in folder.ggufs]
    return [(f"{shown(roots, file)} · {size_of(_size(file))}", shown(roots, file)) for file in files]


def modelscope_cache() -> Path:
    """Where ModelScope keeps the models that it has downloaded."""
    cache = os.environ.get("MODELSCOPE_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "modelscope" / "hub") / "models"


def shown(roots: Roots, path: Path) -> str:
    """A file or folder as it is written on the page: below home without it."""
    return str(path.relative_to(roots.home)) if path.is_relative_to(roots.home) else str(path)


def trained_on(folder: Path) -> str:
    """The model that an adapter was trained on, as its run or its own file calls it; "" where neither tells."""
    for place in (folder, folder.parent) if folder.name.startswith("checkpoint-") else (folder,):
        if (place / CONFIG).is_file():
            try:
                return next((str(given.value) for given in read_file(place / CONFIG)
                             if given.name == "model_name_or_path"), "")
            except Problem:
                return ""
    return str(read_json(folder / "adapter_config.json").get("base_model_name_or_path") or "")


def _bundled(language: Language) -> list[Choice]:
    return [(f"{name} · {say(_BUNDLED, language)}", name) for name in BUNDLED]


def _local(roots: Roots, language: Language, wanted: Callable[[_Folder], bool]) -> list[Choice]:
    return [_labelled(roots, folder, language) for folder in _newest(roots, wanted)]


def _labelled(roots: Roots, folder: _Folder, language: Language, more: Words = "") -> Choice:
    name = shown(roots, folder.path)
    told = [_ADAPTER if folder.is_adapter() else _WHOLE, *filter(None, [more]), size_of(folder.bytes)]
    return f"{name} · {', '.join(say(words, language) for words in told)}", name


def _downloaded(language: Language) -> list[Choice]:
    """What is in the caches of Hugging Face, by its id, and of ModelScope, by its folder."""
    scope = modelscope_cache()
    theirs = (folder for folder in _below([scope]) if folder.is_model())
    return [*((f"{name} · {say(_CACHED, language)}, {size_of(size)}", name) for name, size in _hub_cache()),
            *((f"{folder.path.relative_to(scope)} · ModelScope, {size_of(folder.bytes)}", str(folder.path))
              for folder in theirs)]


def _hub_cache() -> Iterator[tuple[str, int]]:
    """Ids of models in Hugging Face's cache that are there with their weights, and their bytes."""
    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return
    for repository in sorted(repositories, key=lambda each: each.last_modified, reverse=True):
        files = {file.file_name for revision in repository.revisions for file in revision.files}
        if repository.repo_type == "model" and "config.json" in files and any(
                name.endswith(".safetensors") for name in files):
            yield repository.repo_id, repository.size_on_disk


def _one_spelling(roots: Roots, model: str) -> str:
    """Of a folder its path; of anything else its name."""
    path = roots.home / Path(model).expanduser()
    return str(path.resolve()) if model and path.is_dir() else model


# ------------------------------------------------------------------------------------------------- templates and data


def templates(language: Language) -> list[Choice]:
    """The model's own first, then every name."""
    return [(say(_OWN, language), ""), *((name, name) for name in sorted(TEMPLATES))]


def datasets(roots: Roots, dataset_dir: str, stage: str | None, language: Language) -> Offer:
    """The data sets of `dataset_dir` that the stage can learn from, and files beside them that are named nowhere.
    A data set of which nobody knows what it holds, since it lies on a hub, is offered too.

    Args:
        stage: None: all of them.
    """
    kind = STAGE_ROWS.get(stage) if stage else None
    try:
        folder = roots.inside(dataset_dir or "data", "dataset_dir")
        sets = list_sets(folder, roots.inside)
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _DATA and path.name != INFO)
    except Problem as problem:
        return Offer(findings=problem.findings)
    except OSError as error:
        reason = error.strerror or str(error)
        return Offer(findings=[Finding("no-dataset-dir", "warn", Both(
            f"{dataset_dir} cannot be read: {reason}.", f"无法读取 {dataset_dir}：{reason}。"), option="dataset_dir")])
    fitting = [one for one in sets if kind is None or one.kind in (None, kind)]
    named = {path for one in sets for path in one.paths}
    choices = [(one.name if one.rows is None else f"{one.name} · {say(_rows(one.rows, one.about), language)}", one.name)
               for one in fitting]
    choices += [(f"{file.name} · {size_of(_size(file))}", shown(roots, file)) for file in files
                if file.is_file() and file.resolve() not in named]
    return Offer(choices, [finding for one in fitting for finding in one.findings if finding.severity == "error"])


def _rows(count: int, about: bool) -> Both:
    mark = "≈ " if about else ""
    return Both(f"{mark}{count:,} row{'' if count == 1 else 's'}", f"{mark}{count:,} 行")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


# ------------------------------------------------------------------------------------------------------------- folders


@dataclass(frozen=True)
class _Folder:
    """A folder, the names of the files in it, and when it was last changed."""

    path: Path
    files: frozenset[str]
    changed: float

    @property
    def weights(self) -> list[str]:
        return [name for name in self.files - _NO_WEIGHTS if name.endswith(".safetensors")]

    @property
    def bytes(self) -> int:
        """Of the weights."""
        return sum(_size(self.path / name) for name in self.weights)

    @property
    def ggufs(self) -> list[str]:
        return sorted(name for name in self.files if name.endswith(".gguf"))

    def is_adapter(self) -> bool:
        return "adapter_config.json" in self.files and bool(self.weights)

    def is_model(self) -> bool:
        return "config.json" in self.files and bool(self.weights) and not self.is_adapter()

    def is_either(self) -> bool:
        return self.is_adapter() or self.is_model()

def _newest(roots: Roots, wanted: Callable[[_Folder], bool]) -> list[_Folder]:
    """Folders of the page, and below them, the one changed last first."""
    return sorted(filter(wanted, _below(roots.folders)), key=lambda folder: folder.changed, reverse=True)


def _below(roots: Sequence[Path]) -> Iterator[_Folder]:
    """Folders and what lies below them, what is near before what is deep; no links, and nothing hidden."""
    waiting, seen = deque((root, DEEP) for root in roots), set[Path]()
    while waiting and len(seen) < MANY:
        path, deep = waiting.popleft()
        if path in seen:
            continue
        seen.add(path)
        try:
            with os.scandir(path) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            changed = path.stat().st_mtime
        except OSError:
            continue  # gone meanwhile, or somebody else's
        yield _Folder(path, frozenset(name for name, is_folder in found if not is_folder), changed)
        if deep:
            waiting.extend((path / name, deep - 1) for name, is_folder in found
                           if is_folder and not name.startswith(".") and name not in _PASSED_BY)


_BUNDLED = Both("135M, comes with truetune", "135M，随 truetune 提供")
_CACHED = Both("downloaded before", "已下载")
_ADAPTER, _WHOLE = Both("adapter", "适配器"), Both("whole model", "完整模型")
_OWN = Both("the model's own (best)", "模型自带（推荐）")
