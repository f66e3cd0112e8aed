"""The runs on this machine, told from their folders: `truetune runs`, what a run's numbers are, and deleting one."""

from __future__ import annotations

import json
import os
import subprocess
import time
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest

from truetune.findings import Problem
from truetune.history import History
from truetune.jobs.queue import Queue
from truetune.look.runs import told
from truetune.options.read import FROZEN, read_config
from truetune.run import describe
from truetune.runs import Runs, Summary


@cache
def frozen() -> str:
    return describe(read_config(["--model_name_or_path=some/model", "--dataset=a,b", "--stage=dpo"])[0])


def make_run(folder: Path, status: str = "finished", steps: int = 3, **state: object) -> Path:
    """A run folder as `truetune train` leaves it behind."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(frozen(), encoding="utf-8")
    (folder / "state").write_text(json.dumps({
        "status": status, "pid": 2**22 - 1, "pid_started": 0.0, "host": os.uname().nodename, "started": 1000.0 + steps,
        "heartbeat": 2000.0, "step": steps, **state}), encoding="utf-8")
    with (folder / "events.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(map(line, range(1, steps + 1)))
    return folder


def line(step: int, **more: object) -> str:
    return json.dumps({"event": "step", "time": 1500.0, "step": step, "total_steps": 10, "loss": 1 / step,
                       "tokens_per_second": 5.0, "seconds": step, **more}) + "\n"


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs([tmp_path / "saves"], Queue(tmp_path / "jobs"))


def checkpoint(folder: Path, step: int) -> None:
    (folder / f"checkpoint-{step}").mkdir()
    (folder / f"checkpoint-{step}" / "optimizer.safetensors").touch()


def test_what_is_told_of_a_run(runs: Runs, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "saves" / "model" / "lora" / "one")
    checkpoint(folder, 2)
    [run] = runs.all()
    assert (run.folder, run.status, run.step, run.total_steps) == (folder, "finished", 3, 10)
    assert (run.model, run.stage, run.method, run.dataset) == ("some/model", "dpo", "lora", ("a", "b"))
    assert run.last["loss"] == pytest.approx(1 / 3) and run.saved == run.resumable == (2,) and run.size > 1000


def test_a_run_whose_process_is_gone_was_killed(runs: Runs, tmp_path: Path) -> None:
    """Its state says that it runs, and nobody does; in words, with what can be done, in both languages."""
    folder = make_run(tmp_path / "saves" / "one", "running")
    [run] = runs.all()
    assert run.status == "killed" and "no checkpoint yet" in told(run).en
    checkpoint(folder, 3)
    [run] = runs.all()
    assert "checkpoint-3 is whole" in told(run).en and "checkpoint-3 是完整的" in told(run).zh


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"status": 3}', '{"status": "running"}', "\x00"])
def test_files_that_are_none_of_ours(junk: str, runs: Runs, tmp_path: Path) -> None:
    """A folder with a `state`, `config.yaml` or `events.jsonl` of somebody else breaks nothing."""
    for name in ("state", "config.yaml", "events.jsonl"):
        folder = tmp_path / "saves" / name
        folder.mkdir(parents=True)
        (folder / name).write_text(junk, encoding="utf-8")
    half = make_run(tmp_path / "saves" / "half")
    (half / "events.jsonl").write_text(junk, encoding="utf-8")
    (half / "config.yaml").write_text(f"{FROZEN}\nmodel_name_or_path: [", encoding="utf-8")
    assert half in [run.folder for run in runs.all()]
    assert History(half).update() >= 0


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    """Whole lines only; and from the start again when the file was replaced, as a run that goes on does."""
    folder = make_run(tmp_path / "run")
    history = History(folder)
    first = history.update()
    assert history.columns["loss"][0] == [1, 2, 3] and history.update() == first
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(line(4) + line(5)[:-9])
    assert history.update() > first and history.columns["loss"][0] == [1, 2, 3, 4]
    replaced = folder / "new"
    replaced.write_text(line(1) + line(2, loss=None), encoding="utf-8")
    replaced.replace(folder / "events.jsonl")
    history.update()
    assert history.columns["loss"] == ([1], [1.0]) and history.last["step"] == 2
    (folder / "events.jsonl").unlink()
    history.update()
    assert not history.columns


def test_deleting_takes_what_the_run_wrote_and_nothing_else(runs: Runs, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "saves" / "one")
    checkpoint(folder, 3)
    (folder / "my notes.txt").write_text("mine", encoding="utf-8")
    [run] = runs.all()
    assert runs.delete(run) == ["my notes.txt"]
    assert [path.name for path in folder.iterdir()] == ["my notes.txt"] and not runs.all()
    with pytest.raises(Problem, match="no run any more"):
        runs.delete(run)


def test_what_is_not_deleted(runs: Runs, tmp_path: Path) -> None:
    """A run that runs, and one outside of the roots, also if a link leads there."""
    mine = {"pid": os.getpid(), "heartbeat": time.time()}
    started = psutil.Process().create_time()
    running = make_run(tmp_path / "saves" / "one", "running", **mine, pid_started=started)
    outside = make_run(tmp_path / "elsewhere")
    (tmp_path / "saves" / "link").symlink_to(outside)
    assert [run.folder for run in runs.all()] == [running]
    with pytest.raises(Problem, match="it is not over"):
        runs.delete(runs.all()[0])
    for place in (outside, tmp_path / "saves" / "link"):
        found = runs.find(place)
        assert found
        with pytest.raises(Problem, match="outside the folders"):
            runs.delete(found)
    assert (outside / "state").is_file()


def test_a_process_that_is_none_of_ours_is_not_stopped(runs: Runs, tmp_path: Path) -> None:
    """A folder from somebody else cannot make us end a process of its choice."""
    other = subprocess.Popen(["sleep", "60"])
    started = psutil.Process(other.pid).create_time()
    make_run(tmp_path / "saves" / "one", "running", pid=other.pid, pid_started=started, heartbeat=time.time())
    with pytest.raises(Problem, match="Stop it there"):
        runs.stop(runs.all()[0], at_once=True)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_the_verb(truetune, tmp_path: Path) -> None:
    """A line for each, the newest first; one by its name; JSON; and in words where there is none."""
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert "there are no runs below saves" in truetune("runs", **state).stdout
    for steps, name in enumerate(("old", "new"), start=1):
        make_run(tmp_path / "saves" / name, steps=steps)
    lines = truetune("runs", COLUMNS="150", **state).stdout.splitlines()
    assert [each.split()[0] for each in lines[1:3]] == ["saves/new", "saves/old"] and "finished" in lines[1]
    shown = truetune("runs", "show", "old", "--lang", "zh", **state)
    assert shown.returncode == 0 and "已完成，共 1 步" in shown.stdout
    told = json.loads(truetune("runs", "--json", **state).stdout)
    assert [run["step"] for run in told["runs"]] == [2, 1]
    missing = truetune("runs", "show", "nope", **state)
    assert missing.returncode == 2 and "error  nope: there is no such run." in missing.stderr


def test_hundreds_of_runs_are_listed_fast(runs: Runs, tmp_path: Path) -> None:
    """300 runs: the second look, which the page takes every two seconds, reads no file that has not changed."""
    for number in range(300):
        make_run(tmp_path / "saves" / f"run-{number}")
    began = time.process_time()
    assert len(runs.all()) == 300
    first, again = time.process_time() - began, time.process_time()
    assert len(runs.all()) == 300
    second = time.process_time() - again
    assert first < 3 and second < 0.5, (first, second)


def test_a_run_without_a_step_is_getting_ready() -> None:
    assert "Getting ready" in told(Summary(Path("x"), "running")).en


def test_smoothing_is_tensorboards() -> None:
    """By hand, weight 0.5: 4; (0.25·4 + 0.5·8)/0.75; …"""
    from truetune.web.runs.curves import Line, smoothed, thinned

    assert smoothed(np.array([4.0, 8.0]), 0.5).tolist() == pytest.approx([4, (1 + 4) / 0.75])
    assert smoothed(np.array([4.0, 8.0]), 0).tolist() == [4, 8]
    values = np.sin(np.arange(10_000) / 50)
    values[1234] = 9.0
    few = thinned(Line(np.arange(10_000), values))
    assert len(few) <= 302 and few.values.max() == 9 and few.values.min() == values.min()
    assert (few.steps[0], few.steps[-1]) == (0, 9999) and (np.diff(few.steps) > 0).all()
