"""The queue on disk: hand a job in, see how it fares, stop it.

Each job has a process of its own (`keeper`), which the one who hands it in starts with his environment: so nothing of
that environment is ever written down. Whose turn it is, is settled under one file lock, which the system frees whoever
dies. No server and no page is needed for the queue to go on.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from truetune.files import disk_refusal, read_json, remove_folder, write_folder, write_json, write_text
from truetune.findings import FAILED, INTERRUPTED, OK, Both, problem, spoken
from truetune.jobs.processes import Known, interrupt, kill
from truetune.run import read_state

Status = Literal["waiting", "running", "done", "failed", "interrupted", "killed"]
STATUSES: tuple[Status, ...] = get_args(Status)
CONFIG, LOG, STATE = "run.yaml", "log", "state"
_KEPT = 200
"""Jobs that have ended, of which the oldest are deleted."""
_PATIENCE = 20.0
"""Seconds to wait for the lock, which is held for milliseconds."""
_ENDS: Mapping[str, Status] = {"finished": "done", "failed": "failed", "interrupted": "interrupted"}
"""How a run folder says that a run has ended, where nobody was left to see its exit status."""


@dataclass(frozen=True)
class Job:
    """One piece of work.

    folder: holds run.yaml, log and state. verb: `train`, `export`, `eval`. output: the folder that it writes.
    submitted, started, ended: seconds since 1970. stopping: it was asked to end, and has not yet. process: that does
    the work.
    """

    folder: Path
    verb: str
    status: Status
    output: Path | None
    submitted: float
    exit_status: int | None = None
    started: float | None = None
    ended: float | None = None
    stopping: bool = False
    process: Known | None = None

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ("waiting", "running")


class Queue:
    """All jobs of this user on this machine."""

    def __init__(self, folder: Path | None = None):
        """folder: where they are kept; as a rule `truetune/jobs` below XDG_STATE_HOME (~/.local/state)."""
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        self.folder = folder or home / "truetune" / "jobs"
        self._ended: dict[str, Job] = {}

    def submit(self, verb: str, text: str, output: Path | None = None, words: Sequence[str] = (),
               environment: Mapping[str, str] | None = None) -> Job:
        """Hand in `truetune verb FILE words…`, FILE holding `text`. It starts at once if nothing else runs.

        Args:
            environment: variables beside those of this process. Secrets belong here: they are nowhere written down.

        Raises:
            Problem: the folder of jobs cannot be written.
        """
        with self._writing(), self.lock():
            now = time.time()
            while (folder := self.folder / datetime.fromtimestamp(now).strftime("%Y%m%d-%H%M%S-%f")).exists():
                now += 1e-6
            state = {"status": "waiting", "verb": verb, "words": list(words), "host": socket.gethostname(),
                     "output": str(Path.cwd() / output) if output else None, "cwd": str(Path.cwd()), "submitted": now}

            def fill(part: Path) -> None:
                write_text(part / CONFIG, text)
                write_json(part / STATE, state)

            write_folder(folder, fill)
            self._keep(folder, state, environment or {})
            self._forget_old()
        return self._job(folder, state)

    def jobs(self) -> list[Job]:
        """Every job, the newest first."""
        found = []
        for folder in self._folders():
            job = self._ended.get(folder.name) or self._read(folder)
            if job:
                found.append(job)
                if not job.active:
                    self._ended[folder.name] = job
        return found

    def find(self, id: str) -> Job | None:
        """One job as it fares now; None where it is no longer known."""
        return self._read(self.folder / Path(id).name)

    def stop(self, job: Job) -> None:
        """Take it out of the queue; if it runs, interrupt it as Ctrl-C does, and on a second call kill it.

        Raises:
            Problem: the folder of jobs cannot be written.
        """
        with self._writing(), self.lock():
            state = self.state_of(job.folder)
            now = self._job(job.folder, state) if state else job
            if now.status == "waiting":
                self.write_end(job.folder, "interrupted", INTERRUPTED)
            elif now.status == "running" and now.process:
                (kill if now.stopping else interrupt)(now.process)
                write_json(job.folder / STATE, {**state, "stopping": True})

    def forget(self, output: Path) -> None:
        """Drop the ended jobs that wrote `output`, which is no longer there.

        Raises:
            Problem: the folder of jobs cannot be written.
        """
        with self._writing(), self.lock():
            for job in self.jobs():
                if not job.active and job.output and job.output.resolve() == output.resolve():
                    self._drop(job)

    def wake(self) -> None:
        """Let jobs go on that wait and have lost their process: the machine was started again.

        Raises:
            Problem: the folder of jobs cannot be written.
        """
        if not any(job.status == "waiting" for job in self.jobs()):
            return
        with self._writing(), self.lock():
            for folder in reversed(self._folders()):
                state = self.state_of(folder)
                if state.get("status") == "waiting" and not _lives(state, "keeper"):
                    self._keep(folder, state, {})

    def log(self, job: Job, most: int = 20_000) -> str:
        """The last letters of what it has printed, as a terminal shows it: of a progress bar, its newest state."""
        path = job.folder / LOG
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4 * most))
            text = file.read().decode("utf-8", errors="replace")
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in _ESCAPES.sub("", text).split("\n"))
        return "\n".join(lines)[-most:]

    def reason(self, job: Job) -> str:
        """Why it failed, in one line: the first error that it told, else the last thing it printed."""
        if job.status != "failed":
            return ""
        lines = [line.strip() for line in self.log(job).splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(("error  ", "错误  "))]
        return next(iter(told or lines[-1:]), "")

    # -------------------------------------------------------------------------------------- for the keeper of each job

    def lock(self) -> FileLock:
        """Held while it is settled who runs. The system frees it when its holder dies."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self.folder / "lock", timeout=_PATIENCE, mode=0o600)

    def state_of(self, folder: Path) -> dict[str, Any]:
        """What stands in the state of a job; {} where there is none that can be read."""
        state = read_json(folder / STATE)
        return state if state.keys() >= _WRITTEN else {}

    def has_turn(self, folder: Path) -> bool:
        """Whether the waiting job in `folder` may start: none runs, and none that lives has waited longer."""
        others = [self._job(other, state) for other in self._folders()
                  if other != folder and other.name not in self._ended and (state := self.state_of(other))]
        self._ended |= {job.id: job for job in others if not job.active}
        return not any(job.status == "running" or (job.status == "waiting" and job.id < folder.name and
                                                   _lives(self.state_of(job.folder), "keeper")) for job in others)

    def write_end(self, folder: Path, status: Status, exit_status: int | None) -> None:
        """Note how a job has ended."""
        write_json(folder / STATE, {**self.state_of(folder), "status": status, "exit_status": exit_status,
                                    "ended": time.time()})

    # ----------------------------------------------------------------------------------------------------------- within

    def _folders(self) -> list[Path]:
        """Those of jobs, the newest first."""
        return sorted(self.folder.glob("[0-9]*"), reverse=True)

    def _read(self, folder: Path) -> Job | None:
        state = self.state_of(folder)
        return self._job(folder, state) if state and state["host"] == socket.gethostname() else None

    def _job(self, folder: Path, state: Mapping[str, Any]) -> Job:
        """As `state` says; where that says that it runs and nobody does, as its run folder says, or killed."""
        process = Known(*state["process"]) if state.get("process") else None
        job = Job(folder, state["verb"], state["status"], Path(state["output"]) if state["output"] else None,
                  state["submitted"], state.get("exit_status"), state.get("started"), state.get("ended"),
                  state.get("stopping", False), process)
        if job.status != "running" or _lives(state, "keeper") or _lives(state, "process"):
            return job
        latest = self.state_of(folder)
        if latest.get("status") not in ("running", None):  # it ended between the two looks
            return self._job(folder, latest)
        run = read_state(job.output) if job.verb == "train" and job.output else {}
        mine = run.get("started", 0) > (job.started or 0) - 1
        return replace(job, status=_ENDS.get(run.get("status", ""), "killed") if mine else "killed")

    def _keep(self, folder: Path, state: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Start the process that waits for the job's turn. It has a session of its own: no terminal and no page takes
        it along when that closes. The lock is held, so that it looks at the state only when its number stands there."""
        with (folder / LOG).open("ab") as log:
            keeper = subprocess.Popen([sys.executable, "-m", "truetune.jobs.keeper", str(folder)],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                      env={**os.environ, **environment})
        Thread(target=keeper.wait, daemon=True).start()  # fetches it when it has ended
        write_json(folder / STATE, {**state, "keeper": Known.of(keeper.pid)})

    def _forget_old(self) -> None:
        ended = [job for job in self.jobs() if not job.active]
        for job in ended[_KEPT:]:
            self._drop(job)

    def _drop(self, job: Job) -> None:
        remove_folder(job.folder)
        self._ended.pop(job.id, None)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say in words what is wrong with the folder."""
        try:
            yield
        except Timeout:
            raise problem("jobs-busy", Both("another process has held the lock for too long.",
                                            "其他进程长时间占用了锁。"), option=str(self.folder / "lock")) from None
        except OSError as error:
            full = disk_refusal(error, self.folder) if self.folder.is_dir() else None
            reason = full or error.strerror or str(error)
            raise problem("jobs-unwritable", Both(f"jobs cannot be written here: {reason}.",
                                                  f"无法在这里保存任务：{spoken(reason, True)}。"),
                          option=str(self.folder), status=FAILED,
                          fix=Both("Make room or let yourself write there; XDG_STATE_HOME names another place.",
                                   "请腾出空间或修改权限；也可以用 XDG_STATE_HOME 换一个位置。")) from None


_WRITTEN = {"status", "verb", "host", "output", "submitted", "words", "cwd"}
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")
"""What colours a terminal and moves its cursor."""


def _lives(state: Mapping[str, Any], who: Literal["keeper", "process"]) -> bool:
    return bool(state.get(who)) and Known(*state[who]).find() is not None


def end_of(code: int) -> Status:
    """What a command's exit status means; below 0: the signal that ended it."""
    return _CODES.get(code, "killed" if code < 0 else "failed")


_CODES: Mapping[int, Status] = {OK: "done", INTERRUPTED: "interrupted", -signal.SIGINT: "interrupted"}
