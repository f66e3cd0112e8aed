"""Work that is handed in: one job after another, whoever handed it in may be gone, and how each ends is known."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from conftest import write_rows

from truetune.findings import Problem
from truetune.jobs.queue import Job, Queue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue of the test's own; nothing of it outlives the test."""
    queue = Queue(tmp_path / "jobs")
    yield queue
    for _ in range(2):
        for job in queue.jobs():
            if job.active:
                queue.stop(job)


def wait(condition: Callable[[], object], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def ended(queue: Queue, job: Job) -> Job:
    """The job, when it is over."""
    wait(lambda: (now := queue.find(job.id)) and not now.active)
    found = queue.find(job.id)
    assert found
    return found


def long_run(tiny: Path, folder: Path) -> str:
    """A run.yaml of a run that takes minutes."""
    data = write_rows(folder.parent / "rows.json")
    return json.dumps({"model_name_or_path": str(tiny), "dataset": str(data), "output_dir": str(folder),
                       "use_cpu": True, "bf16": False, "num_train_epochs": 9999, "logging_steps": 1,
                       "per_device_train_batch_size": 4, "plot_loss": False, "before_after": False})


def test_a_job_from_beginning_to_end(queue: Queue) -> None:
    """`truetune check FILE` on a slip: exit status 2, and its own words are the reason. Only this user can look in."""
    job = ended(queue, queue.submit("check", "learning_rte: 1\n"))
    assert (job.status, job.exit_status, job.verb) == ("failed", 2, "check")
    assert queue.reason(job).startswith("error  learning_rte (run.yaml:1): unknown option.")
    assert job.started and job.ended and job.submitted <= job.started <= job.ended
    assert stat.S_IMODE(queue.folder.stat().st_mode) == 0o700


def test_one_after_another(queue: Queue) -> None:
    """Jobs run in the order in which they came in, never two at a time, also if two pages hand them in."""
    other = Queue(queue.folder)
    jobs = [each.submit("schema", "", words=("--nothing",)) for each in (queue, other, queue)]
    done = [ended(queue, job) for job in jobs]
    assert [job.id for job in other.jobs()] == [job.id for job in reversed(jobs)]
    for before, after in pairwise(done):
        assert before.ended and after.started and before.ended <= after.started


def test_a_secret_goes_by_the_environment_and_is_nowhere_written(queue: Queue) -> None:
    """The job sees it; no file of the queue does."""
    job = ended(queue, queue.submit("env", "", environment={"HF_TOKEN": "hf_very_secret"}))
    for path in (path for path in queue.folder.rglob("*") if path.is_file()):
        assert b"hf_very_secret" not in path.read_bytes(), path
    assert job.exit_status == 2


def test_stop_saves_a_checkpoint_and_a_second_stop_kills(queue: Queue, tiny: Path, tmp_path: Path) -> None:
    """What waits is taken out. What runs gets Ctrl-C: a checkpoint, exit status 130. Then the next job goes on; that
    one is stopped twice, and no process of it is left within seconds."""
    first, second = (queue.submit("train", long_run(tiny, tmp_path / name), tmp_path / name) for name in ("a", "b"))
    taken_out = queue.submit("check", "")
    queue.stop(taken_out)
    found = queue.find(taken_out.id)
    assert found and found.status == "interrupted" and found.started is None
    wait(lambda: _steps(tmp_path / "a"))
    queue.stop(first)
    stopped = ended(queue, first)
    assert (stopped.status, stopped.exit_status) == ("interrupted", 130)
    assert list((tmp_path / "a").glob("checkpoint-*/optimizer.safetensors"))
    wait(lambda: _steps(tmp_path / "b"))
    running = queue.find(second.id)
    assert running and running.process
    queue.stop(running)
    queue.stop(running)
    killed = ended(queue, second)
    assert killed.status in ("killed", "interrupted") and running.process.find() is None


def _steps(folder: Path) -> bool:
    path = folder / "events.jsonl"
    return path.is_file() and '"event": "step"' in path.read_text(encoding="utf-8")


def test_whoever_handed_it_in_may_be_killed(queue: Queue, tmp_path: Path) -> None:
    """A process hands in two jobs and gets kill -9: both are done all the same."""
    script = ("import os, signal, sys; from pathlib import Path; from truetune.jobs.queue import Queue; "
              "q = Queue(Path(sys.argv[1])); q.submit('check', ''); q.submit('check', ''); "
              "os.kill(os.getpid(), signal.SIGKILL)")
    dead = subprocess.run([sys.executable, "-c", script, str(queue.folder)], check=False, start_new_session=True)
    assert dead.returncode == -signal.SIGKILL
    assert len(queue.jobs()) == 2
    for job in queue.jobs():
        assert ended(queue, job).exit_status == 2


def test_after_a_reboot(queue: Queue) -> None:
    """All processes are gone: what ran is told as killed, and what waited goes on when the page opens."""
    ran, waits = queue.submit("check", ""), queue.submit("check", "")
    for job in (ran, waits):
        ended(queue, job)
    for job, status in ((ran, "running"), (waits, "waiting")):
        state = queue.state_of(job.folder)
        gone = {"keeper": [2**22 - 1, 0.0], "process": [2**22 - 2, 0.0], "exit_status": None, "ended": None}
        (job.folder / "state").write_text(json.dumps({**state, **gone, "status": status}), encoding="utf-8")
    again = Queue(queue.folder)
    assert {job.id: job.status for job in again.jobs()} == {ran.id: "killed", waits.id: "waiting"}
    again.wake()
    assert ended(again, waits).exit_status == 2


def test_the_keeper_dies_and_the_job_goes_on(queue: Queue, tiny: Path, tmp_path: Path) -> None:
    """Killed is only who waits for it: the run goes on, is told as running, and nothing starts beside it."""
    job = queue.submit("train", long_run(tiny, tmp_path / "run"), tmp_path / "run")
    wait(lambda: _steps(tmp_path / "run"))
    psutil.Process(queue.state_of(job.folder)["keeper"][0]).kill()
    next_one = queue.submit("check", "")
    time.sleep(1)
    alone, waiting = queue.find(job.id), queue.find(next_one.id)
    assert alone and alone.status == "running" and waiting and waiting.status == "waiting"
    queue.stop(alone)
    assert ended(queue, job).status == "interrupted", "its run folder says so"
    assert ended(queue, next_one).exit_status == 2


def test_a_progress_bar_is_one_line_of_the_log(queue: Queue) -> None:
    """What a terminal would show: the newest state of a line that was written over, and no colours."""
    job = queue.submit("check", "")
    ended(queue, job)
    (job.folder / "log").write_bytes("\x1b[31mred\x1b[0m\n 10%|#\r 50%|##\r100%|###\nend 完成\r\n".encode())
    assert queue.log(job) == "red\n100%|###\nend 完成\n"
    assert queue.log(job, most=4) == " 完成\n"


def test_only_the_last_200_are_kept(queue: Queue) -> None:
    job = ended(queue, queue.submit("check", ""))
    for number in range(205):
        old = queue.folder / f"20200101-000000-{number:06}"
        old.mkdir()
        (old / "state").write_bytes((job.folder / "state").read_bytes())
    queue.stop(queue.submit("check", ""))
    left = [each.id for each in queue.jobs()]
    assert len(left) == 201 and job.id in left and "20200101-000000-000000" not in left


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """One line, with the way out."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(Problem, match=r"jobs cannot be written here: .*XDG_STATE_HOME") as caught:
        Queue(tmp_path / "file" / "jobs").submit("check", "")
    assert "无法在这里保存任务" in caught.value.findings[0].line(chinese=True)
