"""The runs on this machine, told from the files of their folders alone: which there are, how each fares, its numbers.

Nothing is kept between two looks but what saves reading a file again that has not changed, so runs may come, go and be
deleted at any time. Without torch: the web page and `truetune runs` look here.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import psutil
import yaml

from truetune.checkpoint import checkpoints, resumable
from truetune.events import Event, remaining
from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.jobs.processes import Known, interrupt, kill
from truetune.jobs.queue import Job, Queue
from truetune.options.read import FROZEN
from truetune.run import CONFIG, EVENTS, STATE, read_state, remove_run

Status = Literal["waiting", "running", "finished", "interrupted", "failed", "killed", "unknown"]
STATUSES: tuple[Status, ...] = get_args(Status)
_OF_JOBS: Mapping[str, Status] = {"done": "finished", "waiting": "waiting", "running": "running", "failed": "failed",
                                  "interrupted": "interrupted", "killed": "killed"}
_DEEP, _MOST_FOLDERS = 4, 5000
"""How far below a root runs are looked for, and in how many folders at most."""
_NO_RUNS = re.compile(r"\.|checkpoint-\d+$|__pycache__$|node_modules$|site-packages$")
_TOLD = ("model_name_or_path", "stage", "finetuning_type", "dataset")
_TAIL = 16_384
"""Bytes from the end of events.jsonl in which the newest step stands."""


@dataclass(frozen=True)
class Summary:
    """A run in a few words and numbers.

    began: when its newest process did; touched: its last sign of life (seconds since 1970). size: bytes on the disk.
    saved, resumable: the steps of its checkpoints, and of those that it can go on from. usable: its folder holds the
    trained weights. last: its newest step event. message: why it failed. job: the newest in the queue that writes this
    folder; ahead: how many jobs come before it while that waits.
    """

    folder: Path
    status: Status
    step: int = 0
    model: str = ""
    stage: str = ""
    method: str = ""
    dataset: tuple[str, ...] = ()
    began: float = 0.0
    touched: float = 0.0
    size: int = 0
    saved: tuple[int, ...] = ()
    resumable: tuple[int, ...] = ()
    usable: bool = False
    last: Event = field(default_factory=dict)
    message: str = ""
    job: Job | None = None
    ahead: int = 0

    @property
    def total_steps(self) -> int | None:
        return self.last.get("total_steps")

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ("waiting", "running")

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end, and has not yet."""
        return self.status == "running" and self.job is not None and self.job.active and self.job.stopping

    @property
    def left(self) -> float | None:
        """Seconds that it still takes, while it runs and has made a step."""
        if self.status != "running" or not self.last.get("step"):
            return None
        return max(0.0, remaining(self.last) - max(0.0, time.time() - self.last["time"]))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"folder": str(self.folder), "status": self.status, "step": self.step, "total_steps": self.total_steps,
                "loss": self.last.get("loss"), "tokens_per_second": self.last.get("tokens_per_second"),
                "seconds_left": self.left, "model": self.model, "stage": self.stage, "finetuning_type": self.method,
                "dataset": list(self.dataset), "began": self.began, "touched": self.touched, "size": self.size,
                "checkpoints": list(self.saved), "message": self.message or None, "ahead": self.ahead,
                "job": self.job.id if self.job else None}


class Runs:
    """All runs below some folders, and those that the queue knows. roots: the folders."""

    def __init__(self, roots: Sequence[Path], queue: Queue):
        self.roots, self.queue = list(roots), queue
        self._known: dict[Path, tuple[object, Summary]] = {}
        self._inside: dict[Path, tuple[int, list[Path]]] = {}

    def all(self) -> list[Summary]:
        """The runs, the newest first; those that wait come before."""
        jobs = self.queue.jobs()
        ours = _newest_by_folder(jobs)
        folders = dict.fromkeys([*ours, *(folder for root in self.roots for folder in self._below(root))])
        found = filter(None, (self._told(folder, ours.get(folder), jobs) for folder in folders))
        return sorted(found, key=lambda run: (run.status == "waiting", run.ahead, run.began or run.touched),
                      reverse=True)

    def find(self, folder: Path) -> Summary | None:
        """The run in a folder; None where there is none."""
        jobs, folder = self.queue.jobs(), folder.resolve()
        return self._told(folder, _newest_by_folder(jobs).get(folder), jobs)

    def named(self, name: str) -> Summary:
        """The run that somebody means: its folder, or the end of its path.

        Raises:
            Problem: there is none of that name, or several.
        """
        run = self.find(Path(name).expanduser())
        if run:
            return run
        ends = Path(name).parts
        fitting = [run for run in self.all() if ends and run.folder.parts[-len(ends) :] == ends]
        if len(fitting) == 1:
            return fitting[0]
        several = ", ".join(str(run.folder) for run in fitting)
        raise problem("no-run", option=name, status=WRONG_OPTIONS,
                      message=Both(f"several runs are called so: {several}.", f"有多个同名的运行：{several}。")
                      if fitting else Both("there is no such run.", "没有这个运行。"),
                      fix=Both("Give its folder; `truetune runs` lists them.",
                               "请写它的文件夹；`truetune runs` 会列出所有运行。"))

    def stop(self, run: Summary, at_once: bool = False) -> None:
        """Take it out of the queue, or interrupt it as Ctrl-C does: it saves a checkpoint. A second time, or `at_once`,
        it is killed.

        Raises:
            Problem: it runs on another machine, or its process is none of ours.
        """
        if run.job and run.job.active:
            self.queue.stop(run.job)
            if at_once and not run.job.stopping and run.status == "running":
                self.queue.stop(run.job)
            return
        state = read_state(run.folder)
        if state.get("status") != "running":
            return
        known = Known(state["pid"], state["pid_started"])
        process = known.find()
        if process is None or not any("truetune" in word for word in _words_of(process)):
            raise problem("not-ours", Both(f"it runs on {state['host']}, as process {state['pid']}.",
                                           f"它运行在 {state['host']} 上，进程号 {state['pid']}。"),
                          option=str(run.folder), fix=Both("Stop it there.", "请在那里停止它。"))
        (kill if at_once else interrupt)(known)

    def delete(self, run: Summary) -> list[str]:
        """Delete what the run has written.

        Returns:
            The names of what is left in its folder, since no run wrote it.

        Raises:
            Problem: it waits or runs, lies outside the roots, or is no run.
        """
        now = self.find(run.folder)
        if now is None or not is_run(run.folder):
            raise problem("no-run", Both("there is no run any more.", "这里已经没有运行了。"), option=str(run.folder))
        if now.active:
            raise problem("busy", Both("it is not over.", "它还没有结束。"), option=str(run.folder),
                          fix=Both("Stop it first.", "请先停止它。"))
        if not any(run.folder.is_relative_to(root.resolve()) for root in self.roots):
            raise problem("outside", Both("lies outside the folders that may be changed from here.",
                                          "不在这里可以改动的文件夹之内。"), option=str(run.folder),
                          fix=Both("Delete it by hand.", "请手动删除。"))
        try:
            left = remove_run(run.folder)
        except OSError as error:
            raise problem("not-deleted", Both(f"cannot be deleted: {error.strerror}.", f"无法删除：{error.strerror}。"),
                          option=str(run.folder)) from None
        self.queue.forget(run.folder)
        return left

    # ---------------------------------------------------------------------------------------------------------- looking

    def _below(self, root: Path) -> Iterator[Path]:
        """Folders of runs, the shallow ones first. What is in a folder that has not changed is not read again."""
        level, seen = [root.resolve()], 0
        for _ in range(_DEEP + 1):
            deeper: list[Path] = []
            for folder in level:
                seen += 1
                if seen > _MOST_FOLDERS:
                    return
                if is_run(folder):
                    yield folder
                else:
                    deeper += self._folders_in(folder)
            level = deeper

    def _folders_in(self, folder: Path) -> list[Path]:
        try:
            changed = folder.stat().st_mtime_ns
            known = self._inside.get(folder)
            if known is None or known[0] != changed:
                with os.scandir(folder) as entries:
                    known = changed, [folder / entry.name for entry in entries
                                      if not _NO_RUNS.match(entry.name) and entry.is_dir(follow_symlinks=False)]
                self._inside[folder] = known
        except OSError:  # gone, or not ours to read
            return []
        return known[1]

    def _told(self, folder: Path, job: Job | None, jobs: Sequence[Job]) -> Summary | None:
        """The run in a folder with what the queue knows of it; None where neither knows anything."""
        try:
            run = self._from_files(folder) if is_run(folder) else None
        except OSError:  # deleted while it was read
            run = None
        if job is None:
            return run
        if run is None:
            if job.status == "interrupted" and job.started is None:
                return None  # taken out of the queue before there was anything
            run = Summary(folder, "unknown", **_options(job.folder / "run.yaml"))
        ahead = sum(other.id < job.id and other.active for other in jobs)
        newer = job.submitted > run.began - 1
        if job.active:
            return replace(run, status=_OF_JOBS[job.status], job=job, ahead=ahead,
                           began=job.started or job.submitted, step=run.step if run.began > job.submitted else 0,
                           last=run.last if run.began > job.submitted else {})
        if run.status == "unknown":
            return replace(run, status=_OF_JOBS[job.status], job=job, began=job.started or job.submitted,
                           touched=job.ended or job.submitted, message=self.queue.reason(job))
        refused = newer and job.status == "failed" and not run.message
        return replace(run, job=job, message=self.queue.reason(job) if refused else run.message)

    def _from_files(self, folder: Path) -> Summary:
        mark = tuple(_stamp(folder / name) for name in (STATE, EVENTS, CONFIG, ""))
        known = self._known.get(folder)
        if known is None or known[0] != mark or known[1].status == "running":
            known = mark, _summary(folder)
            self._known[folder] = known
        return known[1]


def is_run(folder: Path) -> bool:
    """Whether a run of ours has written here: its frozen options, or at least how it fares."""
    try:
        with (folder / CONFIG).open(encoding="utf-8", errors="replace") as file:
            if file.readline().strip() == FROZEN:
                return True
    except OSError:
        pass
    return (folder / STATE).is_file() and read_state(folder).get("status") in STATUSES


def _newest_by_folder(jobs: Iterable[Job]) -> dict[Path, Job]:
    """The newest training job of each folder."""
    found: dict[Path, Job] = {}
    for job in jobs:
        if job.verb == "train" and job.output:
            found.setdefault(job.output.resolve(), job)
    return found


def _summary(folder: Path) -> Summary:
    """What the files of a run say."""
    state, last = read_state(folder), _newest_step(folder / EVENTS)
    step = max(state.get("step", 0), last.get("step", 0))
    saved, whole = ([int(path.name.rpartition("-")[2]) for path in paths]
                    for paths in (checkpoints(folder), resumable(folder)))
    size = sum(_size(Path(place) / name) for place, _, names in os.walk(folder) for name in names)
    status = state.get("status")
    return Summary(folder, status if status in STATUSES else "unknown", step, **_options(folder / CONFIG),
                   began=state.get("started", 0.0), touched=state.get("heartbeat", (_stamp(folder) or (0,))[0] / 1e9),
                   size=size, saved=tuple(saved), resumable=tuple(whole), last=last, message=state.get("message", ""),
                   usable=any(folder.glob("*.safetensors")))


def _options(path: Path) -> dict[str, Any]:
    """The few options that tell what kind of run it is. Reading the whole file would take 50 times as long."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = re.findall(rf"^(?:{'|'.join(_TOLD)}): .*$", text, flags=re.MULTILINE)
    try:
        told = yaml.safe_load("\n".join(lines)) or {}
    except yaml.YAMLError:
        return {}
    sets = told.get("dataset") or []
    names = sets.split(",") if isinstance(sets, str) else sets if isinstance(sets, list) else [sets]
    return {"model": str(told.get("model_name_or_path") or ""), "stage": str(told.get("stage") or "sft"),
            "method": str(told.get("finetuning_type") or "lora"), "dataset": tuple(str(name).strip() for name in names)}


def _newest_step(path: Path) -> Event:
    """The last step event of a run, or if there is none its last event; {} where there is nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    told = [event for line in lines[-200:] if (event := read_event(line))]
    of_steps = [event for event in told if event.get("event") == "step"]
    return (of_steps or [event for event in told if "total_steps" in event] or [{}])[-1]


def read_event(line: bytes) -> Event | None:
    """A line of events.jsonl; None if it is cut off or none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _size(path: Path) -> int:
    return (_stamp(path) or (0, 0))[1]


def _words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
