"""The run folder: what a run writes, what the files say, and how a run ends."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import time
from pathlib import Path

import pytest
from conftest import events, options, write_rows

from truetune.checkpoint import Progress, checkpoints, resumable, save_checkpoint
from truetune.cli import main
from truetune.findings import Problem
from truetune.options import OPTIONS
from truetune.options.read import read_config
from truetune.run import Run, claim, describe, read_state


def command(tiny: Path, folder: Path, **changed: object) -> list[str]:
    """`truetune train …` on 12 rows in steps of 4: 3 steps an epoch, 2 epochs, 6 steps. 3 more rows are held out."""
    data = write_rows(folder.parent / "rows.json", 15)
    return ["train", *options(**{
        "model_name_or_path": tiny, "dataset": data, "output_dir": folder, "use_cpu": True, "bf16": False,
        "per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-3, "logging_steps": 1,
        "val_size": 3, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no", "plot_loss": False,
        **changed})]


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. save_steps 0.5 is half of the 6 steps, so checkpoints 3 and 6 are written and 6 is kept."""
    folder = tmp_path_factory.mktemp("run") / "my-run"
    assert main(command(tiny, folder, save_strategy="steps", save_steps=0.5, save_total_limit=1, plot_loss=True)) == 0
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_files(run: Path) -> None:
    """All that DESIGN promises, nothing half written, and everybody may read what the umask lets them."""
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml", "check.json", "events.jsonl", "trainer_log.jsonl", "training_loss.png", "all_results.json",
        "train_results.json", "eval_results.json", "state", "checkpoint-6", "adapter_model.safetensors",
        "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
        "generation_config.json", "README.md", "environment.json", "truetune.json"}
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
    assert [path.name for path in checkpoints(run)] == ["checkpoint-6"]
    assert [event["step"] for event in events(run, "checkpoint")] == [3, 6]
    saved = run / "checkpoint-6"
    assert {oct(path.stat().st_mode & 0o777) for path in saved.iterdir()} == {oct(saved.stat().st_mode & 0o666)}


def test_state_of_a_finished_run(run: Path) -> None:
    state = read_state(run)
    assert state["status"] == "finished"
    assert (state["pid"], state["host"], state["step"]) == (os.getpid(), socket.gethostname(), 6)
    assert state["started"] <= state["heartbeat"] <= time.time()


def test_heartbeat(tmp_path: Path) -> None:
    """A run gives signs of life by itself, also where a step, an evaluation or a download takes long."""
    config, _ = read_config(options(output_dir=tmp_path))
    mine = Run(tmp_path, config, heartbeat=0.02)
    with mine.recorded():
        first = read_state(tmp_path)
        assert (first["status"], first["step"]) == ("running", 0)
        mine.beat(7)
        time.sleep(0.5)
        later = read_state(tmp_path)
        assert later["step"] == 7 and later["heartbeat"] > first["heartbeat"]
        with pytest.raises(Problem, match=f"process {os.getpid()} on .* is writing"):
            claim(config)
    assert read_state(tmp_path)["status"] == "finished"


@pytest.mark.parametrize("end, status, message", [
    (KeyboardInterrupt(), "interrupted", None),
    (ZeroDivisionError("by hand"), "failed", "ZeroDivisionError: by hand"),
    (SystemExit(3), "failed", "stopped from within")])
def test_every_end_is_told(end: BaseException, status: str, message: str | None, tmp_path: Path) -> None:
    config, _ = read_config(options(output_dir=tmp_path))
    with pytest.raises(type(end)), Run(tmp_path, config).recorded():
        raise end
    state = read_state(tmp_path)
    assert (state["status"], state.get("message")) == (status, message)


def test_config_reads_back_equal(run: Path, tiny: Path) -> None:
    """config.yaml is a run.yaml: every option that has an effect, the value it had, and where that came from."""
    given, _ = read_config(command(tiny, run, save_strategy="steps", save_steps=0.5, save_total_limit=1,
                                   plot_loss=True)[1:])
    frozen, findings = read_config([str(run / "config.yaml")])
    assert not findings
    chosen = {"lora_alpha": 16, "gradient_checkpointing": False}  # unset: 2 x lora_rank, and it fits into memory
    assert frozen.model_dump() == given.model_dump() | chosen
    text = (run / "config.yaml").read_text(encoding="utf-8")
    assert "\nlearning_rate: 0.001  # command line\n" in text
    assert "\nlora_alpha: 16  # rule: 2 x lora_rank\n" in text
    assert "\nlora_rank: 8\n" in text, "a default has no origin"
    told = [name for name, option in OPTIONS.items()
            if (option.works or given.given(name)) and not option.text.secret]
    assert re.findall(r"^(\w+):", text, flags=re.MULTILINE) == told


@pytest.mark.parametrize("text", ["no", "null", "1e-4", "a: b # c", "{x}", "two\nlines\n", "你好 \u2028 😀",
                                  " 'x' \"y\" ", "x" * 30_000, "word " * 3_000])
def test_config_reads_back_any_text(text: str, tmp_path: Path) -> None:
    config, _ = read_config(["--default_system", text, "--lr_scheduler_kwargs", '{"num_cycles": 2}',
                             "--lora_target", "q_proj,v_proj", "--dataset", "a b.json,c.json"])
    path = tmp_path / "config.yaml"
    path.write_text(describe(config), encoding="utf-8")
    again, findings = read_config([str(path)])
    assert not findings
    assert again.model_dump() == config.model_dump()
    assert all(re.match(r"\w+: |# |$", line) for line in path.read_text(encoding="utf-8").split("\n")), "a line each"


def test_what_it_ran_on(run: Path) -> None:
    environment = read(run / "environment.json")
    assert {"truetune", "torch", "transformers", "peft", "python", "platform", "device", "command", "processors",
            "memory"} <= environment.keys()
    assert environment["device"] == "cpu"
    assert read(run / "check.json")["facts"]["steps"] == 6


def test_results(run: Path) -> None:
    """The names that tools look for; each part of all_results.json in a file of its own too."""
    everything = read(run / "all_results.json")
    trained, evaluated = read(run / "train_results.json"), read(run / "eval_results.json")
    assert {"train_loss", "train_runtime", "epoch"} <= trained.keys()
    assert evaluated.keys() == {"epoch", "eval_loss", "eval_perplexity"}
    assert trained | evaluated == everything
    assert everything["epoch"] == 2.0
    assert everything["eval_perplexity"] == pytest.approx(math.exp(everything["eval_loss"]))
    told = events(run, "eval")
    assert [event["step"] for event in told] == [2, 4, 6]
    assert told[-1]["eval_loss"] == everything["eval_loss"]


def test_trainer_log(run: Path) -> None:
    """LLaMA-Factory's keys and types, a line each logged step and evaluation."""
    lines = [json.loads(line) for line in (run / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = [line for line in lines if "loss" in line]
    kinds = {"current_steps": int, "total_steps": int, "loss": float, "lr": float, "epoch": float,
             "percentage": float, "elapsed_time": str, "remaining_time": str, "throughput": float, "total_tokens": int}
    assert [{key: type(value) for key, value in line.items()} for line in trained] == [kinds] * 6
    assert [line["current_steps"] for line in trained] == [1, 2, 3, 4, 5, 6]
    assert [line["current_steps"] for line in lines if "eval_loss" in line] == [2, 4, 6]
    assert trained[-1]["remaining_time"] == "0:00:00" and trained[-1]["percentage"] == 100.0


def test_model_card(run: Path) -> None:
    """A header as hubs take it. The base model is a folder of this machine, so the header does not name it."""
    card = (run / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlibrary_name: "peft"\npipeline_tag: "text-generation"\ntags: ["truetune", "lora"]\n'
                           "---\n\n# my-run\n")
    assert "base_model" not in card
    assert "| train_steps | 6 |" in card


def test_the_checkpoint_just_written_is_never_the_one_deleted(tmp_path: Path) -> None:
    """Two are kept. A run that was at step 30 is sent back to step 10: 20 is written and must stay, although 30 and 40
    are there from before, and the older of the two that lie behind goes."""

    def save(step: int, keep: int | None = None) -> list[str]:
        save_checkpoint(tmp_path, Progress(step=step), "", None, {}, lambda folder: (folder / "a").touch(), keep)
        return [path.name.removeprefix("checkpoint-") for path in checkpoints(tmp_path)]

    for step in (5, 10, 30, 40):
        save(step)
    assert save(20, keep=2) == ["10", "20", "30", "40"]
    assert save(30, keep=2) == ["20", "30", "40"]


def test_save_only_model(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By epoch: after steps 3 and 6, without what going on needs, so it says that there is nothing to go on from."""
    folder = tmp_path / "run"
    words = command(tiny, folder, save_strategy="epoch", save_only_model=True, eval_strategy="epoch")
    assert main(words) == 0
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-3", "checkpoint-6"]
    assert [event["step"] for event in events(folder, "eval")] == [3, 6]
    assert (folder / "checkpoint-3" / "adapter_model.safetensors").is_file()
    assert not resumable(folder)
    assert main([*words, "--resume_from_checkpoint", "true"]) == 2
    assert "has no checkpoint to go on from" in capsys.readouterr().err


def test_early_stopping(tiny: Path, tmp_path: Path) -> None:
    """A learning rate far too high: the held-out loss is best at first and never again, so the second evaluation
    without a gain ends the run. Sent back to its newest checkpoint, it is still over."""
    folder = tmp_path / "run"
    words = command(tiny, folder, learning_rate=0.09, eval_steps=1, early_stopping_steps=2, num_train_epochs=10,
                    save_strategy="steps", save_steps=1)
    assert main(words) == 0
    losses = [event["eval_loss"] for event in events(folder, "eval")]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 30
    [note] = events(folder, "note")
    assert note["text"].startswith(f"stopped early at step {len(losses)}: 2 evaluations without a loss below")
    assert read_state(folder)["status"] == "finished"
    assert main([*words, "--resume_from_checkpoint", "true"]) == 0
    assert len(events(folder, "eval")) == len(losses)


def test_not_finite(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A weight decay of 1e38 makes float32 overflow: the run stops, keeps the rows of that step, and says what is
    left. One line, status 1."""
    folder = tmp_path / "run"
    assert main(command(tiny, folder, weight_decay=1e38, save_strategy="steps", save_steps=1, disable_shuffling=True,
                        gradient_accumulation_steps=1, eval_strategy="no")) == 1
    told = capsys.readouterr().err.strip()
    step = int(re.match(r"error  step (\d+): the (?:loss|length of the gradient) is (?:nan|inf)", told)[1])  # type: ignore
    assert len(told.splitlines()) == 1
    assert f"kept in {folder / 'failed_batch.jsonl'}" in told
    assert "learning_rate" in told
    if step > 1:
        assert f"checkpoint-{step - 1} is" in told
    rows = [json.loads(line) for line in (folder / "failed_batch.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4
    assert all(row["text"].startswith("<|im_start|>") and row["ids"] and row["row"] for row in rows)
    state = read_state(folder)
    assert state["status"] == "failed" and state["message"] == told
