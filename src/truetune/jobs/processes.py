"""Processes by number and start: who still lives, and how one is asked or made to end."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NamedTuple

import psutil


class Known(NamedTuple):
    """A process. Numbers are used again, so its start (seconds since 1970, known to a few) belongs to it."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Known:
        """Raises:
        psutil.NoSuchProcess: it has ended.
        """
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process while it lives; what has ended and waits to be fetched by its parent does not."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) < 5 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def interrupt(known: Known) -> None:
    """As Ctrl-C in its terminal does: the signal goes to it and, where it leads its group, to what it has started."""
    if known.find() is None:
        return
    with suppress(ProcessLookupError):
        if os.getpgid(known.pid) == known.pid:
            os.killpg(known.pid, signal.SIGINT)
        else:
            os.kill(known.pid, signal.SIGINT)


def kill(known: Known) -> None:
    """End it at once, with all that it has started, also what has a session of its own (a server of vLLM)."""
    process = known.find()
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        below = process.children(recursive=True)
        with suppress(ProcessLookupError):
            if os.getpgid(known.pid) == known.pid:
                os.killpg(known.pid, signal.SIGKILL)
        for each in (process, *below):
            with suppress(psutil.NoSuchProcess):
                each.kill()
