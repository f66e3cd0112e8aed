"""Where data comes from: a name in dataset_info.json (read as LLaMA-Factory reads it), a file or folder, a data set
of a hub, or an address in a cloud.

A source is read as a stream, so it may be larger than the memory. Every row keeps the line (or number) where it stood,
so that whatever is wrong with it later can be told as `file:line`.
"""

from __future__ import annotations

import difflib
import hashlib
import http.client
import importlib
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, PositiveInt, ValidationError

from truetune.data.formats import (
    COLUMN_KEYS,
    DESCRIBED,
    TAG_KEYS,
    Layout,
    described_layout,
    near_key,
    unknown_keys,
)
from truetune.data.messages import Place
from truetune.data.readers import KINDS, RawRow, read_file, struct_columns, suffix_of, without_nulls
from truetune.findings import Both, Finding, Problem, Words, parser_says, problem, spoken
from truetune.options import Config

INFO = "dataset_info.json"
ONLINE, REMOTE = "ONLINE", "REMOTE:"


class Data(Protocol):
    """Where the rows of a source lie."""

    def rows(self, start: int) -> Iterator[RawRow]: ...
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Source:
    """One data set. layout: how to read its rows (None: recognise it from the columns). num_samples: how many rows to
    draw from it (None: all). where: the entry of dataset_info.json that describes it, or what the user named."""

    name: str
    data: Data
    layout: Layout | None = None
    num_samples: int | None = None
    where: str = ""

    def rows(self, start: int = 0) -> Iterator[RawRow]:
        """The rows one after the other, the first `start` passed over.

        Raises:
            Problem: the data cannot be reached or read.
        """
        return self.data.rows(start)

    def fingerprint(self) -> str:
        """A hash of the data as they lie there, before anything is read into them.

        Raises:
            Problem: the data cannot be reached or read.
        """
        return self.data.fingerprint()


def find_sources(names: Sequence[str], config: Config, option: str) -> list[Source]:
    """The data sets called `names`, which is what `option` says.

    Raises:
        Problem: every name that is nothing that can be read, all in one.
    """
    sources: list[Source] = []
    findings: list[Finding] = []
    try:
        info = _read_info(config) if names else _Info({}, "", _beside(Path(config.dataset_dir)))
        for name in names:
            try:
                sources.append(_find(name, info, config))
            except Problem as error:
                findings += error.findings
    except Problem as error:
        findings = error.findings
    if findings:
        raise Problem(replace(finding, option=option) for finding in findings)
    return sources


# ------------------------------------------------------------------------------------------------- where rows may lie


@dataclass(frozen=True)
class Files:
    """Local files of one kind, one after the other."""

    paths: tuple[Path, ...]

    def rows(self, start: int) -> Iterator[RawRow]:
        for path in self.paths:
            try:
                file = path.open("rb")
            except OSError as error:
                raise _unreadable(error, str(path)) from None
            with file:
                start = yield from read_file(file, str(path), start)

    def fingerprint(self) -> str:
        """Of the bytes of all files, in order. Their names do not matter."""
        return _digest(self.paths)


@dataclass(frozen=True)
class Cloud:
    """A file, or a folder of files of one kind, that fsspec reaches: s3://, gs://, and whatever else it knows."""

    url: str

    def rows(self, start: int) -> Iterator[RawRow]:
        system, paths = self._open()
        for path in paths:
            with system.open(path, "rb") as file:
                start = yield from read_file(file, system.unstrip_protocol(path), start)

    def fingerprint(self) -> str:
        """Of what the cloud says about each file: its checksum where it keeps one, its size and time where not."""
        system, paths = self._open()
        return _hash(*(f"{system.checksum(path)} {system.size(path)}" for path in paths))

    def _open(self) -> tuple[Any, list[str]]:
        """The file system and the files there. Open data needs no account, so it is asked without one first."""
        import fsspec

        protocol = self.url.split("://")[0]
        cloud = _CLOUDS.get(protocol, _OPEN)
        errors = (OSError, *(_import(name, cloud.package, self.url) for name in cloud.refusals))
        reasons: list[Words] = []
        for options in (cloud.anonymous, {}) if cloud.anonymous else ({},):
            try:
                return self._list(fsspec.url_to_fs(self.url, **options))
            except (ValueError, ImportError) as error:  # fsspec knows no such protocol, or not how to speak it
                reasons.append(str(error).rstrip("."))
            except FileNotFoundError:
                reasons.append(Both("there is no such file", "没有这个文件"))
            except errors as error:
                reasons.append(str(error).split("\n")[0].rstrip(".") or type(error).__name__)
        told = dict.fromkeys(reasons)
        raise problem("data-unreadable", Both(
            f"cannot be read: {'; with an account: '.join(map(str, told))}.",
            f"无法读取：{'；使用账号时：'.join(spoken(reason, True) for reason in told)}。"),
            where=self.url, fix=cloud.account or None)

    def _list(self, found: tuple[Any, str]) -> tuple[Any, list[str]]:
        system, path = found
        if not system.isdir(path):
            system.info(path)
            return system, [path]
        return system, _one_kind(sorted(system.ls(path, detail=False)), self.url)


class _Cloud(NamedTuple):
    """The package that speaks a protocol, how it is asked without an account, how it refuses (beside OSError), and how
    it learns of an account."""

    package: str = ""
    anonymous: Mapping[str, object] = {}
    refusals: tuple[str, ...] = ()
    account: Words = ""


_GOOGLE = _Cloud("gcsfs", {"token": "anon"}, ("gcsfs.retry:HttpError", "google.auth.exceptions:GoogleAuthError",
                                              "aiohttp:ClientError"),
                 Both("If it is not open to all, log in: gcloud auth application-default login.",
                      "如果不是公开数据，请先登录：gcloud auth application-default login。"))
_CLOUDS = {
    "s3": _Cloud("s3fs", {"anon": True}, ("botocore.exceptions:BotoCoreError",),
                 Both("If it is not open to all, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
                      "如果不是公开数据，请设置 AWS_ACCESS_KEY_ID 和 AWS_SECRET_ACCESS_KEY。")),
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
}
_OPEN = _Cloud()


@dataclass(frozen=True)
class Hub:
    """A data set of a hub, or a local folder laid out like one. With `streaming` nothing is kept; otherwise it is
    downloaded once, and read from the disk."""

    repo: str
    hub: str = "hf"
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    streaming: bool = False
    cache_dir: str | None = None

    def rows(self, start: int) -> Iterator[RawRow]:
        data = self._load()
        structs = struct_columns(data.features.arrow_schema) if data.features else None
        place, number = f"{self.repo} row ", start
        if not self.streaming and start >= data.num_rows:  # `skip` does not go to the end
            return
        try:
            for batch in (data.skip(start) if start else data).iter(batch_size=1000):
                columns = list(batch) if structs is None else structs
                for values in zip(*batch.values(), strict=True):
                    number += 1
                    row = dict(zip(batch, values, strict=True))
                    yield RawRow(without_nulls(row, columns), Place(place, number))
        except _hub_errors() as error:
            raise self._refusal(_first_line(error)) from None

    def count(self) -> int:
        """How many rows there are, of what does not stream."""
        return int(self._load().num_rows)

    def fingerprint(self) -> str:
        """Of the downloaded data. What streams is not kept, so its name has to do."""
        data = self._load()
        if self.streaming or not data.cache_files:
            return _hash(repr(self))
        return _digest([Path(file["filename"]) for file in data.cache_files])

    def _load(self) -> Any:
        from datasets import load_dataset

        unreachable = None if self.hub != "hf" or Path(self.repo).is_dir() else _unreachable()
        if unreachable:
            return self._kept(unreachable)
        try:
            return load_dataset(_HUBS[self.hub](self), self.subset, split=self.split, data_dir=self.folder,
                                cache_dir=self.cache_dir, streaming=self.streaming)
        except _hub_errors() as error:
            raise self._refusal(_first_line(error)) from None

    def _kept(self, unreachable: Words) -> Any:
        """What an earlier run has downloaded, as `load_dataset` reads it when it has given up on the hub."""
        from datasets.packaged_modules.cache.cache import Cache

        try:
            kept = Cache(self.cache_dir, self.repo.rpartition("/")[2], self.subset, version="auto", hash="auto",
                         repo_id=self.repo, data_dir=self.folder)
            return (kept.as_streaming_dataset if self.streaming else kept.as_dataset)(split=self.split)
        except _hub_errors():
            raise self._refusal(unreachable) from None

    def _refusal(self, reason: Words) -> Problem:
        return problem("hub-data", Both(f"the data set {self.repo} cannot be read: {spoken(reason, False)}.",
                                        f"数据集 {self.repo} 无法读取：{spoken(reason, True)}。"), where=self.repo,
                       fix=Both("Is it spelt right, are you online, and (for one that is not open) logged in? A name "
                                "owner/set that is no file or folder here is looked for on the hub.",
                                "请检查拼写、网络，以及（非公开数据集）是否已登录。owner/set 形式的名字如果不是"
                                "本地文件或文件夹，会到 hub 上查找。"))


_PATIENCE = 5.0


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(". ") or type(error).__name__


def _unreachable() -> Both | None:
    """Why Hugging Face does not answer at all; None if it does. huggingface_hub tries six times, in 25 seconds and with
    a line for each, and has no setting for it; so whether anybody is there is asked before."""
    from huggingface_hub import constants

    if constants.is_offline_mode():  # then it asks nobody, and says so at once
        return None
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=_PATIENCE).close()
    except (urllib.error.HTTPError, http.client.HTTPException, ValueError):  # an answer, or no address at all
        return None
    except OSError as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLError):  # somebody is there, and which certificates to trust is set elsewhere
            return None
        why = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        return Both(f"{constants.ENDPOINT} cannot be reached ({why})", f"无法连接 {constants.ENDPOINT}（{why}）")
    return None


def _from_hugging_face(hub: Hub) -> str:
    return hub.repo


def _from_modelscope(hub: Hub) -> str:
    """MsDataset, ModelScope's own reader, works with older versions of `datasets` only; its downloads do with any."""
    download = _import("modelscope.hub.snapshot_download:dataset_snapshot_download", "modelscope", hub.repo)
    return str(download(hub.repo, cache_dir=hub.cache_dir))


def _from_modelers(hub: Hub) -> str:
    """OmDataset, Modelers' own reader, needs a Python before 3.11; its downloads do not."""
    download = _import("openmind_hub:snapshot_download", "openmind-hub", hub.repo)
    return str(download(hub.repo, repo_type="dataset", cache_dir=hub.cache_dir))


_HUBS = {"hf": _from_hugging_face, "ms": _from_modelscope, "om": _from_modelers}
_SWITCHES = {"ms": "USE_MODELSCOPE_HUB", "om": "USE_OPENMIND_HUB"}
"""LLaMA-Factory's environment variables for those who cannot reach Hugging Face."""


def _switched(hub: str) -> bool:
    return os.environ.get(_SWITCHES[hub], "0").lower() in ("1", "true")


def _hub_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError

    return (DatasetsError, OSError, ValueError, RuntimeError)


def _import(name: str, package: str, where: str) -> Any:
    """`module:name` out of a package that not everybody has."""
    module, attribute = name.split(":")
    try:
        return attrgetter(attribute)(importlib.import_module(module))
    except ImportError:
        raise problem("package-missing", Both(f"reading from there needs the package {package}.",
                                              f"从那里读取需要安装 {package}："), where=where,
                      fix=f"pip install {package}") from None


def _digest(paths: Sequence[Path]) -> str:
    parts: list[str] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                parts.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise _unreadable(error, str(path)) from None
    return _hash(*parts)


def _unreadable(error: OSError, where: str) -> Problem:
    return problem("data-unreadable", Both(f"cannot be read: {error.strerror}.", f"无法读取：{error.strerror}。"),
                   where=where)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _one_kind(paths: Sequence[str], folder: str) -> list[str]:
    """Those of `paths` that are data. Json and jsonl are one kind, since either may hold either.

    Raises:
        Problem: there are none, or of several kinds.
    """
    files = [path for path in paths if suffix_of(path) and Path(path).name != INFO and Path(path).name[0] != "."]
    kinds = sorted({suffix_of(path).replace(".jsonl", ".json").lstrip(".") for path in files})
    if not files:
        raise problem("no-data-file", Both(f"the folder holds no file that is {KINDS}.",
                                           f"文件夹里没有 {KINDS.zh} 文件。"), where=folder)
    if len(kinds) > 1:
        raise problem("mixed-folder", Both(f"the folder holds files of several kinds ({', '.join(kinds)}).",
                                           f"文件夹里有多种文件（{'、'.join(kinds)}）。"), where=folder,
                      fix=Both("Name the files, or put them into a folder for each kind.",
                               "请直接写文件名，或每种文件单独放一个文件夹。"))
    return files


# ------------------------------------------------------------------------------------------------- dataset_info.json


class InfoEntry(BaseModel):
    """What an entry of dataset_info.json may say."""

    hf_hub_url: str | None = None
    ms_hub_url: str | None = None
    om_hub_url: str | None = None
    script_url: str | None = None
    cloud_file_name: str | None = None
    file_name: str | None = None
    formatting: DESCRIBED = "alpaca"
    ranking: bool = False
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    num_samples: PositiveInt | None = None
    columns: dict[str, str | None] | None = None
    tags: dict[str, str | None] | None = None


class _Folder(Protocol):
    """Gives the path of a file that dataset_info.json names."""

    def __call__(self, name: str) -> Path: ...


@dataclass(frozen=True)
class _Info:
    """dataset_info.json: its entries, where it is, and where the files that it names are."""

    entries: Mapping[str, Any]
    where: str
    file: _Folder


def _beside(folder: Path) -> _Folder:
    return lambda name: folder / Path(name).expanduser()


def _read_info(config: Config) -> _Info:
    """dataset_info.json; empty where there is none, since a file can be named directly."""
    if config.dataset_dir == ONLINE:
        return _Info({}, ONLINE, _beside(Path()))
    if config.dataset_dir.startswith(REMOTE):
        repo = config.dataset_dir.removeprefix(REMOTE)
        file = _on_hub(repo, config)
        return _Info(read_entries(file(INFO), f"{repo}/{INFO}"), f"{repo}/{INFO}", file)
    path = Path(config.dataset_dir) / INFO
    return _Info(read_entries(path, str(path)) if path.is_file() else {}, str(path), _beside(path.parent))


def _on_hub(repo: str, config: Config) -> _Folder:
    def download(name: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        unreachable = _unreachable()
        try:
            return Path(hf_hub_download(repo, name, repo_type="dataset", cache_dir=config.cache_dir,
                                        local_files_only=unreachable is not None))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = unreachable or str(error).split("\n")[0].rstrip(".")
            raise problem("hub-data", Both(f"{name} of the data set {repo} cannot be read: {spoken(reason, False)}.",
                                           f"数据集 {repo} 的 {name} 无法读取：{spoken(reason, True)}。"), where=repo,
                          fix=Both("REMOTE:owner/set names a data set on the hub that holds dataset_info.json.",
                                   "REMOTE:owner/set 指 hub 上含有 dataset_info.json 的数据集。")) from None

    return download


def read_entries(path: Path, where: str) -> Mapping[str, Any]:
    """What dataset_info.json holds: entries by name. where: what it is called in problems.

    Raises:
        Problem: it cannot be read, or is no JSON object; with the line, if it has a slip.
    """
    try:
        info = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise _unreadable(error, where) from None
    except UnicodeDecodeError:
        raise problem("not-utf8", Both("the file is not UTF-8.", "文件不是 UTF-8 编码。"), where=where,
                      fix=Both("Save it as UTF-8.", "请存为 UTF-8。")) from None
    except json.JSONDecodeError as error:
        reason = parser_says(error.msg)
        raise problem("bad-json", Both(f"not valid JSON: {reason}.", f"不是合法的 JSON：{reason.zh}。"),
                      where=f"{where}:{error.lineno}") from None
    if not isinstance(info, dict):
        raise problem("bad-info", Both("it must be an object of data sets by name.",
                                       "内容必须是一个对象：数据集名字到条目。"), where=where)
    return info


_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def _find(name: str, info: _Info, config: Config) -> Source:
    if config.dataset_dir == ONLINE:
        return Source(name, _hub(name, config), where=name)
    if name in info.entries:
        return _from_entry(name, info, config)
    if "://" in name:
        return Source(name, Cloud(name), where=name)
    path, folder = Path(name).expanduser(), Path(config.dataset_dir)
    for candidate in (path, folder / path):
        if candidate.exists():
            return Source(name, _local(candidate, name), where=str(candidate))
    if suffix_of(name):
        raise problem("no-data-file", Both(f"there is no file {name}.", f"没有文件 {name}。"),
                      fix=_near(path, folder) or
                      Both(f"A relative path starts at the current folder or at dataset_dir ({folder}).",
                           f"相对路径从当前文件夹或 dataset_dir（{folder}）算起。"))
    if _HUB_ID.fullmatch(name):
        return Source(name, _hub(name, config), where=name)
    near, entries = difflib.get_close_matches(name, info.entries, n=1), sorted(info.entries)
    if not entries:
        known = Both(f"There is no {info.where}.", f"没有文件 {info.where}。")
    elif near:
        known = Both(f"Did you mean {near[0]}?", f"是不是 {near[0]}？")
    else:
        known = Both(f"It holds: {', '.join(entries)}.", f"其中有：{'、'.join(entries)}。")
    raise problem("no-data-set", Both(
        f"{name!r} is neither in {info.where} nor a file, a folder or a hub id (owner/set).",
        f"{name!r} 不在 {info.where} 里，也不是文件、文件夹或 hub 上的 id（owner/set）。"), fix=known)


def _hub(name: str, config: Config) -> Hub:
    hub = next((hub for hub in _SWITCHES if _switched(hub)), "hf")
    return Hub(name, hub, streaming=config.streaming, cache_dir=config.cache_dir)


def _local(path: Path, where: str) -> Files:
    if path.is_dir():
        return Files(tuple(map(Path, _one_kind(sorted(map(str, path.iterdir())), where))))
    if not suffix_of(path.name):
        raise problem("no-data-file", Both(f"the file is not {KINDS} (by the end of its name).",
                                           f"从扩展名看，文件不是 {KINDS.zh}。"), where=where,
                      fix=Both("Rename it, or convert it.", "请改名，或转换格式。"))
    return Files((path,))


def _near(path: Path, folder: Path) -> Both | None:
    """`Did you mean …?` with the data file whose name is nearest to that of `path`; of several, one of its kind."""
    for parent in (path.parent, (folder / path).parent):
        files = [file for file in sorted(parent.glob("*")) if suffix_of(file.name) and file.name != INFO]
        files.sort(key=lambda file: file.suffix == path.suffix)
        nearest = {file.stem: file for file in files}  # the last of a name stays
        for stem in difflib.get_close_matches(path.stem, nearest, n=1):
            return Both(f"Did you mean {nearest[stem]}?", f"是不是 {nearest[stem]}？")
    return None


def _from_entry(name: str, info: _Info, config: Config) -> Source:
    where = f"{info.where}, {name}"
    slips = list(_slips(info.entries[name], where))
    try:
        entry = InfoEntry.model_validate(info.entries[name])
    except ValidationError as error:
        wrong = [(".".join(map(str, slip["loc"])), slip["msg"]) for slip in error.errors()]
        raise Problem([*slips, *(Finding("bad-info", "error", where=where, message=Both(
            f"{key or 'it'}: {what}.", f"{key or '条目'}：{what}。")) for key, what in wrong)]) from None
    if slips:
        raise Problem(slips)
    layout = described_layout(entry.formatting, entry.columns, entry.tags, entry.ranking, where)
    return Source(name, _data(entry, info, config, where), layout, entry.num_samples, where)


def entry_source(name: str, entry: Any, folder: Path, config: Config) -> Source:
    """The data set that `entry` describes, whether or not it stands in the dataset_info.json of `folder` yet.

    Raises:
        Problem: all that is wrong with the entry, or what it names is not there.
    """
    return _from_entry(name, _Info({name: entry}, INFO, _beside(folder)), config)


def _slips(entry: Any, where: str) -> Iterator[Finding]:
    """Keys of an entry that mean nothing. What people add for themselves (a licence, a description) is passed over
    where it looks like no key of ours; within the blocks there is nothing to add."""
    if not isinstance(entry, dict):
        return
    known = tuple(InfoEntry.model_fields)
    yield from unknown_keys((key for key in entry if near_key(key, known)), known, Both("the entry", "条目"), where)
    for block, keys in (("columns", COLUMN_KEYS), ("tags", TAG_KEYS)):
        if isinstance(entry.get(block), dict):
            yield from unknown_keys(entry[block], keys, Both(f"its {block} block", f"{block} 块"), where)


def _data(entry: InfoEntry, info: _Info, config: Config, where: str) -> Data:
    """Of the places that an entry names the one that counts: a hub, then a script, a cloud, a file."""
    repos = {"ms": entry.ms_hub_url, "om": entry.om_hub_url}
    chosen = next((hub for hub, repo in repos.items() if repo and (_switched(hub) or not entry.hf_hub_url)), "hf")
    repo = repos.get(chosen) or entry.hf_hub_url
    if repo:
        return Hub(repo, chosen, entry.subset, entry.split, entry.folder, config.streaming, config.cache_dir)
    if entry.script_url:
        raise problem("script-data", Both("script_url names a program, and programs that come with data are not run.",
                                          "script_url 指的是程序，数据附带的程序一律不运行。"), where=where,
                      fix=Both("Name its files with file_name, or a data set on the hub with hf_hub_url.",
                               "请用 file_name 写数据文件，或用 hf_hub_url 写 hub 上的数据集。"))
    if entry.cloud_file_name:
        return Cloud(entry.cloud_file_name)
    if not entry.file_name:
        raise problem("no-file-name", Both("names no data: no file_name, cloud_file_name or hf_hub_url.",
                                           "没有指明数据：缺少 file_name、cloud_file_name 或 hf_hub_url。"),
                      where=where)
    path = info.file(entry.file_name)
    if not path.exists():
        raise problem("no-data-file", Both(f"there is no file {path}.", f"没有文件 {path}。"), where=where,
                      fix=_near(path, path.parent))
    try:
        return _local(path, str(path))
    except Problem as error:
        raise Problem(replace(finding, where=where, message=Both(f"{path}: {spoken(finding.message, False)}",
                                                                 f"{path}：{spoken(finding.message, True)}"))
                      for finding in error.findings) from None
