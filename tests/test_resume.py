"""A run that is stopped, killed or refused loses nothing: the same command goes on, bit for bit, as if left in peace.

Deaths are real: a process of its own gets a real signal, or a disk that is really full. What needs no death is asked of
the command line inside this process, which is quicker.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import events, options, write_rows
from safetensors import safe_open

from truetune.checkpoint import checkpoints, resumable
from truetune.cli import main
from truetune.interrupt import held_back
from truetune.run import read_state

Words = Sequence[str]


def command(tiny: Path, data: Path, **changed: object) -> list[str]:
    """`truetune train …` for 9 optimizer steps with everything random that there is: dropout, shuffling, accumulation.

    12 rows in steps of 2 x 2 rows are 3 steps an epoch, and 3 epochs 9 steps. A checkpoint follows each.
    """
    return ["train", *options(**{
        "model_name_or_path": tiny, "dataset": data, "use_cpu": True, "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2, "num_train_epochs": 3, "lora_dropout": 0.2, "learning_rate": 1e-3,
        "bf16": False, "logging_steps": 1, "save_steps": 1, "plot_loss": False, **changed})]


def start(words: Words, limit: int | None = None) -> subprocess.Popen[str]:
    """The command line as a process of its own; `limit`: the most bytes that a file may have."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a test started in the background has it switched off
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen([sys.executable, "-m", "truetune", *words], text=True, encoding="utf-8",
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=prepare)


def wait_until(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Look every millisecond, for two minutes at most."""
    end = time.monotonic() + 120
    while not there():
        assert process.poll() is None, f"ended too early:\n{process.communicate()[0]}"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def steps_done(run: Path) -> int:
    """The last step that a run has told; 0 before the first."""
    path = run / "events.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    told = [json.loads(line) for line in text.split("\n")[:-1]]
    return max((event["step"] for event in told if event["event"] == "step"), default=0)


def trajectory(run: Path) -> list[tuple[int, float, float, float]]:
    """Step, loss, learning rate and gradient of every step as it was told."""
    return [(e["step"], e["loss"], e["learning_rate"], e["grad_norm"]) for e in events(run)]


def weights(run: Path) -> dict[str, bytes]:
    """Every file of weights in a run folder, byte for byte."""
    return {path.name: path.read_bytes() for path in run.glob("*.safetensors")}


def snapshot(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, to see that nothing was lost or changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def require_whole(run: Path) -> None:
    """Every checkpoint of a run can be read to its last byte."""
    for checkpoint in checkpoints(run):
        for file in checkpoint.glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                assert all(tensors.get_tensor(name).isfinite().all() for name in tensors.keys())  # noqa: SIM118
        assert json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["progress"]["step"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.json")


@pytest.fixture(scope="module")
def finished(tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("finished") / "run"
    process = start(command(tiny, data, output_dir=run))
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told
    assert [step for step, *_ in trajectory(run)] == [*range(1, 10)]
    return run


@pytest.fixture(scope="module")
def stopped(tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped by SIGTERM (as a cluster does) after some steps. Tests work on copies of it."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    process = start(command(tiny, data, output_dir=run))
    wait_until(lambda: steps_done(run) >= 3, process)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert f"checkpoint-{steps_done(run)}" in told.splitlines()[-2]
    return run


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


# Deaths.


def test_killed_at_any_moment_goes_on_bit_for_bit(tiny: Path, data: Path, tmp_path: Path) -> None:
    """Kill -9 while a checkpoint is being written, then at a random moment: each time the same command goes on, and at
    the end the losses, learning rates, gradients and the adapter are those of a run left in peace.

    In bfloat16, so the float32 master weights count too.
    """
    whole, run = tmp_path / "whole", tmp_path / "run"
    process = start(command(tiny, data, output_dir=whole, bf16=True))
    assert process.wait(timeout=180) == 0
    words = command(tiny, data, output_dir=run, bf16=True)

    process = start(words)
    wait_until(lambda: steps_done(run) >= 2 and any(run.glob(".checkpoint-*.part")), process)
    process.kill()
    process.wait()
    require_whole(run)
    assert read_state(run)["status"] == "killed"

    before = steps_done(run)
    process, delay = start(words), random.Random(os.getpid()).uniform(0, 0.4)
    wait_until(lambda: steps_done(run) > before, process)
    time.sleep(delay)
    process.kill()
    process.wait()
    require_whole(run)

    process = start(words)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told
    assert f"going on from {run / 'checkpoint-'}" in told
    assert trajectory(run) == trajectory(whole)
    assert weights(run) == weights(whole)
    assert not [*run.glob(".*")], "what the killed processes left half done was cleared away"


def test_ctrl_c_saves_a_checkpoint_and_the_same_command_goes_on(tiny: Path, data: Path, tmp_path: Path) -> None:
    """Full fine-tuning in float32, no checkpoint due: the first Ctrl-C writes one and ends with 130. Before that, a
    second Ctrl-C while it is being written, which takes a while here (500 MB), ends at once; half a checkpoint is none.
    """
    full = dict(finetuning_type="full", learning_rate=1e-4, num_train_epochs=2, save_strategy="no")
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main(command(tiny, data, output_dir=whole, **full)) == 0
    assert not checkpoints(whole), "save_strategy: no"

    words = command(tiny, data, output_dir=run, **full)
    process = start(words)
    wait_until(lambda: steps_done(run) >= 1, process)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: any(run.glob(".checkpoint-*.part/*")), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGINT
    assert not checkpoints(run)
    assert read_state(run)["status"] == "killed"

    process = start(words)
    wait_until(lambda: not any(run.glob(".checkpoint-*")) and steps_done(run) >= 2, process)
    assert read_state(run)["status"] == "running"
    assert main(words) == 2, "a folder that a living process writes is nobody else's"
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "stopping" in told and "Traceback" not in told
    assert read_state(run)["status"] == "interrupted"
    [checkpoint] = resumable(run)
    assert checkpoint.name == f"checkpoint-{steps_done(run)}"

    assert main(words) == 0
    assert trajectory(run) == trajectory(whole)
    assert weights(run) == weights(whole)
    assert read_state(run)["status"] == "finished"


def test_ctrl_c_while_the_model_is_loaded(tiny: Path, data: Path, tmp_path: Path) -> None:
    """Nothing is to be saved yet: it ends with 130 and one word, and the same command starts anew."""
    run = tmp_path / "run"
    process = start(command(tiny, data, output_dir=run))
    wait_until(lambda: (run / "config.yaml").is_file(), process)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert read_state(run)["status"] == "interrupted"
    assert not checkpoints(run)


def test_ctrl_c_waits_for_a_moment_where_it_would_do_harm() -> None:
    """Inside, the work goes on to its end; behind it the Ctrl-C comes, and the next one is an ordinary one."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        done.append("to the end")
    assert done == ["to the end"]
    with held_back():
        done.append("and nothing comes")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@contextmanager
def small_disk(size: int, at: Path) -> Iterator[Callable[[int], None]]:
    """A disk of `size` bytes at `at`, and a way to change its size."""
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], check=True, capture_output=True)
    try:
        yield lambda more: subprocess.run(["mount", "-o", f"remount,size={more}", at], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)  # tensors of this process may still lie in its files


def may_mount(folder: Path) -> bool:
    try:
        with small_disk(1_000_000, folder / "probe"):
            return True
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False


def test_disk_fills_while_a_checkpoint_is_written(stopped: Path, finished: Path, tiny: Path, data: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line and status 1, the checkpoints so far are whole, and with room the same command goes on exactly.

    A checkpoint here is 0.7 MB of adapter, 3.5 MB of tokenizer and 2 MB of optimizer, written in this order. With
    0.5 MB, 4 MB and 5.5 MB of room, each of them in turn is the one that no longer fits.
    """
    if not may_mount(tmp_path):
        pytest.skip("this user may not mount a small disk; test_file_too_large asks the same in another way")
    used = sum(-(-len(content) // 4096) * 4096 for content in snapshot(stopped).values())
    run = tmp_path / "disk" / "run"
    words = [*command(tiny, data, output_dir=run), "--no-check"]  # the check would say so before
    with small_disk(used + 500_000, tmp_path / "disk") as resize:
        shutil.copytree(stopped, run)
        before = [path.name for path in checkpoints(run)]
        for room in (500_000, 4_000_000, 5_500_000):
            resize(used + room)
            assert main(words) == 1
            told = capsys.readouterr().err.strip()
            assert len(told.splitlines()) == 1 and told.startswith(f"error  {run}: cannot be written: the disk is full")
            assert f"{before[-1]} is whole" in told
            assert [path.name for path in checkpoints(run)] == before
            require_whole(run)
        resize(200_000_000)
        assert main(words) == 0
        assert trajectory(run) == trajectory(finished)
        assert weights(run) == weights(finished)


def test_file_too_large(copy: Path, finished: Path, tiny: Path, data: Path) -> None:
    """The same without a disk of its own: the system allows files of 1 MB at most, and the tokenizer has 3.5."""
    words = command(tiny, data, output_dir=copy)
    before = [path.name for path in checkpoints(copy)]
    process = start(words, limit=1_000_000)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert "Traceback" not in told
    assert f"cannot be written: File too large. {before[-1]} is whole." in told.splitlines()[-1]
    assert read_state(copy)["status"] == "failed"
    assert main(words) == 0
    assert trajectory(copy) == trajectory(finished)
    assert weights(copy) == weights(finished)


# Going on as asked for.


def test_resume_from_a_named_checkpoint(copy: Path, finished: Path, tiny: Path, data: Path) -> None:
    """Back to checkpoint-2 although there are later ones. What was told of later steps is told again, not twice."""
    words = command(tiny, data, output_dir=copy, resume_from_checkpoint=copy / "checkpoint-2", save_total_limit=2)
    assert main(words) == 0
    assert trajectory(copy) == trajectory(finished)
    assert weights(copy) == weights(finished)
    assert [path.name for path in checkpoints(copy)] == ["checkpoint-8", "checkpoint-9"]


def test_resume_elsewhere(stopped: Path, finished: Path, tiny: Path, data: Path, tmp_path: Path,
                          capsys: pytest.CaptureFixture[str]) -> None:
    """From a checkpoint of another folder into a new one; never into a folder that holds a run of its own."""
    words = command(tiny, data, output_dir=tmp_path / "new", resume_from_checkpoint=stopped / "checkpoint-3")
    before = snapshot(stopped)
    assert main(words) == 0
    assert weights(tmp_path / "new") == weights(finished)
    assert snapshot(stopped) == before
    assert main(words) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_resume_true_with_free_options_changed(copy: Path, finished: Path, tiny: Path, data: Path) -> None:
    """What does not alter what is learned may change: how often is logged and saved, how memory is saved. A share of
    the steps is rounded up: 0.5 x 9 = 4.5 → every 5 steps."""
    newest = resumable(copy)[-1].name
    words = command(tiny, data, output_dir=copy, resume_from_checkpoint="true", logging_steps=3, save_steps=0.5,
                    gradient_checkpointing=True)
    assert main(words) == 0
    assert weights(copy).keys() == weights(finished).keys()
    assert [event["step"] for event in events(copy)][-2:] == [6, 9]
    saved = [path.name for path in checkpoints(copy)]
    assert saved[-1] == max(newest, "checkpoint-5")


@pytest.mark.parametrize("wish", ["true", "checkpoint-7", "run/checkpoint-1"])
def test_resume_where_there_is_nothing(wish: str, tiny: Path, data: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    """A wish that cannot be met is refused rather than silently started anew. A checkpoint of another program, which
    has a trainer_state.json too, is none of ours."""
    foreign = tmp_path / "run" / "checkpoint-1"
    if wish.startswith("run"):
        foreign.mkdir(parents=True)
        (foreign / "trainer_state.json").write_text("{}", encoding="utf-8")
    words = command(tiny, data, output_dir=tmp_path / "out", resume_from_checkpoint=tmp_path / wish
                    if wish != "true" else wish)
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error  resume_from_checkpoint") and len(told.splitlines()) == 1


def test_resume_with_an_option_changed_that_matters(copy: Path, tiny: Path, data: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    """The option and both values are named, also where the change is that it is left out; nothing is touched."""
    before = snapshot(copy)
    words = command(tiny, data, output_dir=copy, learning_rate=2e-3, resume_from_checkpoint="true")
    words = [word for word in words if "lora_dropout" not in word]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "learning_rate (command line): is 0.002, but the run was started with 0.001." in told
    assert "lora_dropout: is 0.0 (the default), but the run was started with 0.2." in told
    assert len(told.splitlines()) == 2
    assert snapshot(copy) == before


def test_resume_with_data_changed(copy: Path, tiny: Path, data: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    """The same file name with another row in it. Put back as it was, the run goes on."""
    good = data.read_text(encoding="utf-8")
    data.write_text(good.replace("Question 3", "Question 33"), encoding="utf-8")
    try:
        assert main(command(tiny, data, output_dir=copy)) == 1
    finally:
        data.write_text(good, encoding="utf-8")
    told = capsys.readouterr().err
    assert told.startswith("error  dataset: the rows, their tokens or the base model are not those of")
    assert len(told.splitlines()) == 1
    assert resumable(copy)


def test_a_damaged_checkpoint_is_named(copy: Path, tiny: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = resumable(copy)[-1]
    with (newest / "optimizer.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert main(command(tiny, data, output_dir=copy)) == 1
    told = capsys.readouterr().err
    assert f"{newest} cannot be read" in told and "goes on from the checkpoint before it" in told
    assert len(told.splitlines()) == 1


# Folders with something in them.


def test_the_same_command_on_a_finished_run(finished: Path, tiny: Path, data: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(finished)
    assert main(command(tiny, data, output_dir=finished)) == 2
    assert f"output_dir (command line): {finished} holds a finished run." in capsys.readouterr().err
    assert snapshot(finished) == before


def test_another_runs_folder(copy: Path, tiny: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The refusal names what differs."""
    before = snapshot(copy)
    assert main(command(tiny, data, output_dir=copy, lora_rank=4, seed=1)) == 2
    told = capsys.readouterr().err
    assert "holds another run (lora_rank, seed differ)" in told
    assert "lora_rank (command line): is 4, but the run was started with 8." in told
    assert snapshot(copy) == before


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(copy: Path, tiny: Path, data: Path, tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    """Not before the new run is sure to start: a mistyped data file costs nothing."""
    strangers = {"notes.txt": b"mine", "tokenizer_notes.md": b"mine", "picture.png": b"mine", "a/b.txt": b"mine"}
    for name, content in strangers.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(content)
    overwrite = dict(output_dir=copy, overwrite_output_dir=True, num_train_epochs=1, save_strategy="no")
    other_stages = ["value_head.safetensors", "generated_predictions.jsonl", "predict_results.json",
                    "training_reward.png", "reference/key.json"]
    for name in other_stages:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("of the run before", encoding="utf-8")

    before = snapshot(copy)
    assert main(command(tiny, tmp_path / "nowhere.json", **overwrite)) == 1
    assert snapshot(copy) == before

    assert main(command(tiny, data, **overwrite)) == 0
    after = snapshot(copy)
    assert {name: after[name] for name in strangers} == strangers
    assert not checkpoints(copy) and not set(other_stages) & set(after) and not (copy / "reference").exists()
    assert [step for step, *_ in trajectory(copy)] == [1, 2, 3]

    words = [word for word in command(tiny, data, **overwrite) if not word.startswith("--model")]
    before = snapshot(copy)
    capsys.readouterr()
    assert main([*words, *options(adapter_name_or_path=copy, model_name_or_path=tiny)]) == 2
    assert "lies in output_dir, which would be deleted" in capsys.readouterr().err
    assert snapshot(copy) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_a_foreign_model(overwrite: bool, tiny: Path, data: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    """`overwrite_output_dir` deletes runs, not models that came from elsewhere."""
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    before = snapshot(folder)
    assert main(command(tiny, data, output_dir=folder, overwrite_output_dir=overwrite)) == 2
    assert "which no run of truetune wrote" in capsys.readouterr().err
    assert snapshot(folder) == before


def test_output_dir_cannot_be_made(tiny: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a file, or its parent is one."""
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    for folder in (file, file / "run"):
        assert main(command(tiny, data, output_dir=folder)) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error  output_dir (command line): {folder} cannot be written")
        assert len(told.splitlines()) == 1
    assert file.read_text(encoding="utf-8") == "mine"


def test_whether_a_run_is_alive(copy: Path) -> None:
    """`state` names process, its start and machine. A killed run stays `running` on disk and is seen to be dead, even
    where its number belongs to another process by now; on another machine a sign of life a minute old is none."""
    path = copy / "state"
    mine = json.loads(path.read_text(encoding="utf-8")) | {
        "status": "running", "pid": os.getpid(), "pid_started": psutil.Process().create_time() - 100}

    def status(**changed: object) -> str:
        path.write_text(json.dumps(mine | changed), encoding="utf-8")
        return read_state(copy)["status"]

    assert status() == "killed", "this process has the number, but it started at another time"
    assert status(host="elsewhere", heartbeat=time.time() - 10) == "running"
    assert status(host="elsewhere", heartbeat=time.time() - 100) == "killed"
    assert socket.gethostname() == mine["host"]
