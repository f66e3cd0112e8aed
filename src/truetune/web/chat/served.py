"""The models that the page talks to: each served by a process of its own, which ends with the page's.

All pages share them. A model and its adapters are one process, so that before and after cost the weights once. What it
says while it loads, why it failed and what it holds of the memory is told here; `conversation` asks it.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal

import psutil

from truetune.files import read_json
from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, Words, problem
from truetune.options import OPTIONS, Config
from truetune.options.web import WebOptions
from truetune.serve.api.child import served_config
from truetune.serve.backends import BESIDE, LOADED
from truetune.web.models import trained_on

if TYPE_CHECKING:
    from openai import OpenAI

MOST = 2
"""Models in memory at once: two can be compared, and more do not fit most machines."""
HERE = "the page"
_ENDS_WITHIN = 20.0
"""Seconds that a process has to end by itself."""
_SILENT = 600.0
"""Seconds that a server may say nothing: reading a long prompt on a slow machine."""

Status = Literal["loading", "ready", "failed", "ended"]


# ── What to load ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Wanted:
    """What shall be loaded.

    Args:
        title: for people. file: a run's config.yaml, whose options hold where `options` say nothing. adapters: served
            beside the model, by the names that requests give.
    """

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, Any]:
        return {**self.options, **({"infer_adapters": dict(self.adapters)} if self.adapters else {})}


@dataclass(frozen=True)
class Address:
    """An OpenAI-compatible endpoint. url: with its /v1. model: its name there; "": the first that it lists."""

    url: str
    key: str = field(default="", repr=False)
    model: str = ""


def wanted(model: str, adapters: Sequence[str], texts: Mapping[str, Any]) -> Wanted:
    """A model with adapters, loaded as the options `texts` say.

    Args:
        model: a folder, a .gguf file, a hub id, or the folder of an adapter, which stands on its own base then.
            adapters: their folders. Of both, those that are on this disk are absolute.

    Raises:
        Problem: no model is named, or a folder holds none.
    """
    if not model:
        raise problem("no-model", Both("no model is chosen.", "还没有选择模型。"), option="model_name_or_path",
                      status=WRONG_OPTIONS, fix=Both("Pick one from the list, or type a folder or a hub id.",
                                                     "请从列表中选择，或输入文件夹或 hub id。"))
    folder = Path(model)
    if (folder / "adapter_config.json").is_file():
        model, adapters = trained_on(folder), [*adapters, model]
    elif folder.is_dir() and not (folder / "config.json").is_file() and not any(folder.glob("*.gguf")):
        raise problem("no-model", Both(f"{model} holds neither a model (config.json) nor an adapter "
                                       "(adapter_config.json).",
                                       f"{model} 里既没有模型（config.json），也没有适配器（adapter_config.json）。"),
                      option="model_name_or_path", fix=Both("Pick the folder that a run or an export has written.",
                                                            "请选择训练或导出所写的文件夹。"))
    places = [Path(adapter) for adapter in adapters]
    file = next((str(file) for file in map(_run_file, [*places, folder]) if file), None)
    title = Path(model).name or model
    options = {"adapter_name_or_path": [], **texts, "model_name_or_path": model}
    merged = [name for place in places for name in _merged_before(place)]
    if len(places) == 1 and (merged or _kind(places[0]) not in BESIDE):  # it cannot be taken off its base again
        return Wanted(f"{title} + {_short(places[0])}",
                      {**options, "adapter_name_or_path": [*merged, str(places[0])]}, file)
    return Wanted(title, options, file, _named(places))


def wanted_by(config: Config) -> Wanted | None:
    """What a command line wants loaded (`truetune webchat M template=…`), with all that it says of how; None: nothing.

    Raises:
        Problem: a folder that it names holds no model.
    """
    named = [_absolute(name) for name in (config.model_name_or_path, *config.adapter_name_or_path) if name]
    if not named:
        return None
    passed_by = {"model_name_or_path", "adapter_name_or_path", *WebOptions.model_fields}
    values = {name: getattr(config, name) for name in OPTIONS if config.given(name) and name not in passed_by}
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return wanted(named[0], named[1:], told)


def _absolute(name: str) -> str:
    """A file or folder of this disk; a hub id as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _run_file(folder: Path) -> Path | None:
    """config.yaml of the run that this folder is of, or one of its checkpoints."""
    return next((file for file in (folder / "config.yaml", folder.parent / "config.yaml")
                 if file.is_file() and folder.is_dir()), None)


def _kind(adapter: Path) -> str:
    return "LORA" if adapter.suffix == ".gguf" else str(read_json(adapter / "adapter_config.json").get("peft_type"))


def _merged_before(adapter: Path) -> list[str]:
    """Adapters that have to be merged into the base first."""
    return list(read_json(adapter / "truetune.json").get("merged", {}))


def _named(adapters: Sequence[Path]) -> dict[str, str]:
    """A name for each that says which it is; PEFT's names hold no dots."""
    names: dict[str, str] = {}
    for adapter in adapters:
        name = re.sub(r"[^\w-]+", "_", _short(adapter)) or "adapter"
        again = 2
        while name in (*names, LOADED):
            name, again = f"{name.rstrip('0123456789')}{again}", again + 1
        names[name] = str(adapter)
    return names


def _short(folder: Path) -> str:
    """`demo`, `demo-checkpoint-20`."""
    return f"{folder.parent.name}-{folder.name}" if folder.name.startswith("checkpoint-") else folder.stem


# ── What is loaded ───────────────────────────────────────────────────────────────────────────────────────────────────


class Model(ABC):
    """Something that answers, or will, or did.

    Attributes:
        number: which it is, for as long as the page runs. begun: when it did, by time.monotonic(). said: what it told
            while it loaded. findings: why it failed. names: what requests can ask it for; the first is the model
            itself. facts: see `serve.api.child`.
    """

    address = key = ""

    def __init__(self, number: int, title: str):
        self.number, self.title, self.begun = number, title, time.monotonic()
        self.status: Status = "loading"
        self.said: list[Words] = []
        self.findings: list[Finding] = []
        self.names: list[str] = []
        self.facts: dict[str, Any] = {}

    @property
    @abstractmethod
    def memory(self) -> int | None:
        """Bytes that it holds; None: on another machine."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds."""

    @abstractmethod
    def again(self, number: int) -> Model:
        """The same, loaded anew."""

    @property
    def own(self) -> bool:
        """It is ours: it tells tokens and probabilities."""
        return bool(self.facts.get("tokens"))

    @cached_property
    def client(self) -> OpenAI:
        """To ask it, by OpenAI's own package."""
        from openai import OpenAI

        return OpenAI(base_url=f"{self.address}/v1" if self.own else self.address, api_key=self.key or "none",
                      max_retries=0, timeout=_SILENT)

    def fail(self, findings: Sequence[Finding], status: Literal["failed", "ended"] = "failed") -> None:
        self.findings, self.status = list(findings), status

    def died(self) -> Finding | None:
        """Why nobody answers any more, where that is known."""
        return self.findings[0] if self.status == "ended" and self.findings else None


class Process(Model):
    """A model in a process of its own on this machine."""

    def __init__(self, number: int, wanted: Wanted, home: Path):
        """home: the folder in which relative paths of a run's file are meant."""
        super().__init__(number, wanted.title)
        self.wanted, self.key, self._home = wanted, secrets.token_urlsafe(24), home
        self._closing = False
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed with it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "truetune.serve.api.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, cwd=home, text=True, encoding="utf-8")
        Thread(target=self._listen, name=f"model-{number}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def memory(self) -> int | None:
        """Of this machine, and of its GPUs what it held when it was loaded."""
        held = int(self.facts.get("gpu_bytes", 0))
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    held += each.memory_info().rss
        return held

    def again(self, number: int) -> Model:
        return Process(number, self.wanted, self._home)

    def close(self) -> None:
        """End the process: it ends by itself once its stdin does."""
        self._closing = True
        if self._process.stdin:
            with suppress(OSError):  # it has ended
                self._process.stdin.close()
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        """In a thread: what it tells, to its end."""
        assert self._process.stdin and self._process.stdout
        asked = {"file": self.wanted.file, "options": self.wanted.given, "where": HERE, "key": self.key}
        with suppress(OSError):  # it has died at once, which is told below
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            news = json.loads(line)
            if "say" in news:
                self.said.append(Both(*news["say"]))
            elif "ready" in news:
                self.facts = {**news["ready"], "tokens": True}
                self.address, self.names, self.status = self.facts["address"], self.facts["names"], "ready"
            else:
                self.fail([_finding(told) for told in news["failed"]])
        code = self._process.wait()
        self._process.stdout.close()
        if self._closing:
            self.fail([_UNLOADED], "ended")
        elif self.status != "failed":
            self.fail([_why(code, self._last_words())], "failed" if self.status == "loading" else "ended")
        self._log.close()

    def _last_words(self) -> str:
        """The last line that tells of an error."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)),
                    lines[-1] if lines else "")[:300]


def _finding(told: Mapping[str, Any]) -> Finding:
    """As `Finding.as_dict` wrote it."""
    fix = Both(told["fix"], told["fix_zh"]) if told["fix"] else None
    return Finding(told["id"], told["severity"], Both(told["message"], told["message_zh"]), told["option"],
                   told["where"], fix, told["source"], told["cure"])


_UNLOADED = Finding("unloaded", "error", Both("the model was unloaded before its answer was whole.",
                                              "回答尚未完成，模型就被卸载了。"),
                    fix=Both("Load it again.", "请重新加载。"))


def _why(code: int, said: str) -> Finding:
    """Why a process has ended that said nothing of it. code: its exit status, of a signal negative."""
    if code == -9 or "out of memory" in said.lower() or "MemoryError" in said:
        return Finding("model-memory", "error", Both(
            f"memory ran out, and the model's process was ended. {said}".strip(),
            f"内存（显存）不足，模型进程已结束。{said}".strip()), fix=Both(
            "Load it with quantization_bit: 4, lower infer_maxlen, choose a smaller model, or unload the other one.",
            "可用 quantization_bit: 4 加载、调低 infer_maxlen、换小一些的模型，或先卸载另一个模型。"))
    return Finding("model-died", "error", Both(f"the model's process has ended (status {code}). {said}".strip(),
                                               f"模型进程已结束（状态 {code}）。{said}".strip()))


class Endpoint(Model):
    """A model that somebody else serves."""

    def __init__(self, number: int, asked: Address):
        super().__init__(number, asked.model or asked.url)
        self.asked, self.address, self.key = asked, asked.url.rstrip("/"), asked.key
        Thread(target=self._reach, name=f"endpoint-{number}", daemon=True).start()

    @property
    def memory(self) -> int | None:
        return None

    def again(self, number: int) -> Model:
        return Endpoint(number, self.asked)

    def close(self) -> None:
        self.client.close()

    def _reach(self) -> None:
        """In a thread: what it serves."""
        from openai import APIStatusError, OpenAIError

        try:
            listed = [model.id for model in self.client.with_options(timeout=20).models.list()]
        except APIStatusError as error:
            if error.status_code in (404, 405) and self.asked.model:  # not every server lists its models
                listed = [self.asked.model]
            else:
                return self.fail([_unreachable(self.address, f"{error.status_code}: {error.message:.200}")])
        except (OpenAIError, ValueError) as error:
            return self.fail([_unreachable(self.address, f"{error.__cause__ or error}")])
        name = self.asked.model or next(iter(listed), "")
        if name not in listed:
            return self.fail([Finding("no-such-model", "error", Both(
                f"{self.address} serves no {name!r}.", f"{self.address} 没有提供模型 {name!r}。"),
                fix=Both(f"It serves {', '.join(listed[:10]) or 'nothing'}.",
                         f"它提供：{'、'.join(listed[:10]) or '（无）'}。"))])
        self.title, self.names, self.status = name, [name], "ready"
        return None


def _unreachable(address: str, reason: str) -> Finding:
    return Finding("no-endpoint", "error", Both(f"nobody answers at {address} as OpenAI's API does ({reason}).",
                                                f"{address} 没有按 OpenAI API 的方式应答（{reason}）。"),
                   fix=Both("The address mostly ends in /v1; check the key too.",
                            "地址通常以 /v1 结尾；也请检查密钥。"))


@dataclass(frozen=True)
class Speaker:
    """Whom a message is for: a model, by one of its names."""

    model: Model
    name: str

    @property
    def id(self) -> str:
        return f"{self.model.number}/{self.name}"

    @property
    def label(self) -> Words:
        """`smollm2`, or `demo` on it; two of the same name are told apart by their number."""
        base = self.model.title
        return base if self.name == self.model.names[0] else Both(f"{self.name} (adapter on {base})",
                                                                  f"{self.name}（{base} 的适配器）")


class Models:
    """All that are loaded. Pages share one of these, from many threads."""

    def __init__(self, home: Path):
        self._home = home
        self._models: list[Model] = []
        self._number = 0
        self._lock = Lock()

    def all(self) -> list[Model]:
        return list(self._models)

    def load(self, what: Wanted | Address) -> Model:
        """Begin to load it; the same that is loaded already is not loaded twice.

        Raises:
            Problem: there are too many already, or the options are wrong.
        """
        if isinstance(what, Wanted):
            served_config(what.file, what.given, HERE)  # slips are told before a process starts
        elif not re.match(r"https?://[^\s/]+", what.url):
            raise problem("bad-address", Both(f"{what.url!r:.80} is no address.", f"{what.url!r:.80} 不是地址。"),
                          status=WRONG_OPTIONS, fix=Both("For instance http://127.0.0.1:8000/v1.",
                                                         "例如 http://127.0.0.1:8000/v1。"))
        with self._lock:
            for model in self._models:
                if model.status in ("loading", "ready") and _of(model) == what:
                    return model
            self._models = [model for model in self._models if model.status in ("loading", "ready")]
            self._require_room()
            self._number += 1
            model = Process(self._number, what, self._home) if isinstance(what, Wanted) else \
                Endpoint(self._number, what)
            self._models.append(model)
            return model

    def _require_room(self) -> None:
        if len(self._models) >= MOST:
            raise problem("two-loaded", Both(f"{MOST} models are loaded already.", f"已经加载了 {MOST} 个模型。"),
                          status=WRONG_OPTIONS, fix=Both("Unload one of them first.", "请先卸载其中一个。"))

    def unload(self, number: int) -> None:
        """Forget it and free its memory; it may have been forgotten already."""
        with self._lock:
            gone = [model for model in self._models if model.number == number]
            self._models = [model for model in self._models if model.number != number]
        for model in gone:
            model.close()

    def reload(self, number: int) -> None:
        """Load it anew, in its place."""
        with self._lock:
            for place, model in enumerate(self._models):
                if model.number == number:
                    model.close()
                    self._number += 1
                    self._models[place] = model.again(self._number)

    def speakers(self) -> list[Speaker]:
        """Who can be asked now."""
        return [Speaker(model, name) for model in self._models if model.status == "ready" for name in model.names]

    def speaker(self, id: str | None) -> Speaker:
        """Raises:
        Problem: nobody is of that id (any more).
        """
        for speaker in self.speakers():
            if speaker.id == id:
                return speaker
        number = (id or "").partition("/")[0]
        died = next((model.died() for model in self._models if str(model.number) == number), None)
        if died:
            raise Problem(died)
        gone = Both("this model is not loaded any more.", "该模型已卸载。")
        none = Both("no model is loaded.", "还没有加载模型。")
        raise problem("not-loaded", gone if id else none, status=WRONG_OPTIONS, fix=Both(
            "Choose one above and press Load.", "请在上方选择模型并点击“加载”。"))

    def close(self) -> None:
        for model in self.all():
            self.unload(model.number)


def _of(model: Model) -> Wanted | Address | None:
    """What was asked for when it was loaded."""
    return model.wanted if isinstance(model, Process) else model.asked if isinstance(model, Endpoint) else None
