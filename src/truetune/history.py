"""The numbers of a run by step, read from its events.jsonl as that grows."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

from truetune.events import Event
from truetune.run import EVENTS
from truetune.runs import read_event


class History:
    """The numbers of one run by step, read from events.jsonl as it grows: only what is new is read.

    columns: of each number (`loss`, `eval_loss`, …) the steps and the values. notes: what was said on the way. last:
    the newest step event. start: the newest start event. version: counts up whenever something is new.
    """

    def __init__(self, folder: Path):
        self.path = folder / EVENTS
        self._lock = Lock()
        self._clear()
        self.version = 0

    def _clear(self) -> None:
        self.columns: dict[str, tuple[list[int], list[float]]] = {}
        self.notes: list[Event] = []
        self.last: Event = {}
        self.start: Event = {}
        self._offset, self._file, self._head = 0, 0, b""

    def update(self) -> int:
        """Read what is new; the file may have been replaced (the run went on from a checkpoint), or be gone. Returns
        `version`."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    found = os.fstat(file.fileno())
                    if found.st_ino != self._file or found.st_size < self._offset:
                        self._clear()
                        self._file, self.version = found.st_ino, self.version + 1
                    if found.st_size == self._offset:
                        return self.version
                    file.seek(self._offset)
                    text = file.read()
            except OSError:
                if self._file:
                    self._clear()
                    self.version += 1
                return self.version
            whole = text[: text.rfind(b"\n") + 1]  # the last line may be half written
            self._offset += len(whole)
            for event in filter(None, map(read_event, whole.split(b"\n"))):
                self._take(event)
            self.version += bool(whole)
            return self.version

    def _take(self, event: Event) -> None:
        kind = event["event"]
        if kind in ("step", "eval") and isinstance(event.get("step"), int):
            for name, value in event.items():
                if name not in _NO_COLUMNS and isinstance(value, int | float):
                    steps, values = self.columns.setdefault(name, ([], []))
                    steps.append(event["step"])
                    values.append(float(value))
            if kind == "step":
                self.last = event
        elif kind in ("note", "checkpoint", "end"):
            self.notes.append(event)
        elif kind == "start":
            self.start = event


_NO_COLUMNS = {"event", "time", "step", "total_steps", "epoch", "seconds", "tokens"}
