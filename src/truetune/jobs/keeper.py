"""The process of a job: `python -m truetune.jobs.keeper FOLDER` waits for its turn, starts the command, and notes how
it ended. It takes its orders from the job's state alone, so whoever started it may be gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from truetune.files import write_json
from truetune.findings import FAILED, Both, Finding
from truetune.jobs.processes import Known
from truetune.jobs.queue import CONFIG, LOG, STATE, Queue, end_of

_PAUSE = 0.3
"""Seconds between two looks whether it is its turn."""


def main(folder: Path) -> None:
    """Do the job in `folder`, when its turn comes."""
    queue = Queue(folder.parent)
    # Started in the background of a script, this process ignores Ctrl-C; the command would too, and never be stopped.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        with suppress(Timeout), queue.lock():
            state = queue.state_of(folder)
            if state.get("status") != "waiting" or state.get("keeper", [0])[0] != os.getpid():
                return  # taken out, or somebody else keeps it
            if queue.has_turn(folder):
                process = _start(queue, folder)
                break
        time.sleep(_PAUSE)
    if process is None:
        return
    code = process.wait()
    with queue.lock():
        queue.write_end(folder, end_of(code), code)


def _start(queue: Queue, folder: Path) -> subprocess.Popen[bytes] | None:
    """Start the command; None where it cannot be, which is noted."""
    state = queue.state_of(folder)
    words = [sys.executable, "-m", "truetune", state["verb"], str(folder / CONFIG), *state["words"]]
    quiet = {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}  # the log is read while it is written, and by people
    try:
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(words, cwd=state["cwd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True, env={**os.environ, **quiet})
    except OSError as error:
        finding = Finding("not-started", "error", Both(f"cannot be started there: {error.strerror}.",
                                                       f"无法在那里启动：{error.strerror}。"), option=state["cwd"])
        print(finding.line(), flush=True)
        queue.write_end(folder, "failed", FAILED)
        return None
    write_json(folder / STATE, {**state, "status": "running", "started": time.time(),
                                "process": Known.of(process.pid)})
    return process


if __name__ == "__main__":
    main(Path(sys.argv[1]))
