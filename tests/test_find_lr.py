"""The search for a learning rate: its trials are the run itself, they start from the same place every time, nothing is
left behind, and what is said follows from the numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import events, write_rows

from truetune.cli import main
from truetune.findings import Problem
from truetune.guide.trials import Bench, HeldOut, Search, Trial, exploded, opened_run, rates_around, search, sweep
from truetune.guide.verdict import difference, judge, judge_range
from truetune.options import OPTIONS, Config
from truetune.report import Terminal

SILENT = Terminal(quiet=True)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.json", 12, "It is {n}.")


def config(model: Path, rows: Path, **options: Any) -> Config:
    """A small LoRA run in float32: 12 rows, 2 a step."""
    settings = {"model_name_or_path": str(model), "dataset": (str(rows),), "output_dir": str(rows.parent / "run"),
                "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "learning_rate": 1e-3,
                "bf16": False, "lora_rank": 4, "num_train_epochs": 1.0, "logging_steps": 1.0, "save_strategy": "no"}
    return Config.model_validate({**settings, **options})


def as_words(run: Config) -> list[str]:
    """A configuration as it is typed."""
    typed = {name: getattr(run, name) for name in OPTIONS if getattr(run, name) != OPTIONS[name].default}
    return [f"--{name}={','.join(value) if isinstance(value, tuple) else value}" for name, value in typed.items()]


# ---------------------------------------------------------------------------------------------------------- trials


@pytest.mark.parametrize("options", [
    {"lora_dropout": 0.3}, {"finetuning_type": "full", "bf16": True},
], ids=["lora with dropout", "full with master weights"])
def test_a_trial_is_the_run_itself(options: dict[str, Any], tiny: Path, rows: Path) -> None:
    """The steps of a trial lose bit for bit what `truetune train` loses at that rate, and after a trial at a ruinous
    rate they do so again: weights, moments, dropout and rows are back where the run starts."""
    run = config(tiny, rows, val_size=6, **options)
    assert main(["train", *as_words(run)]) == 0
    expected = [event["loss"] for event in events(rows.parent / "run")]
    with opened_run(run, None, 40, SILENT) as (session, of), Bench(session, SILENT) as bench:
        first = bench.run(1e-3)
        ruined = bench.run(10.0)
        again = bench.run(1e-3)
    assert of == len(expected) == 3
    assert first.losses == expected
    assert ruined.losses[1:] != expected[1:]
    assert again.losses == expected


def test_three_rates_are_judged_by_the_same_rows(tiny: Path, rows: Path) -> None:
    """A third, once and three times the rate; the schedule is the run's, shortened. The present rate's held-out loss is
    what the run itself would evaluate to. output_dir is not touched."""
    run = config(tiny, rows, val_size=4, lr_scheduler_type="linear")
    found = search(run, 3, SILENT)
    assert [trial.rate for trial in found.trials] == list(rates_around(1e-3)) == [3.3e-4, 1e-3, 3e-3]
    assert found.trials[2].rates == pytest.approx([3e-3, 2e-3, 1e-3])
    assert (found.steps, found.of, found.interrupted) == (3, 4, False)
    assert not (rows.parent / "run").exists()
    assert main(["train", *as_words(run), "--max_steps=3"]) == 0
    (evaluated,) = events(rows.parent / "run", "eval")
    here = found.trials[1].held_out
    assert here and here.loss == pytest.approx(evaluated["eval_loss"], rel=1e-5)


def test_rows_are_held_out_where_the_run_holds_out_none(tiny: Path, rows: Path) -> None:
    """A fifth of them, which no trial learns from."""
    with opened_run(config(tiny, rows), 1, 40, SILENT) as (session, of), Bench(session, SILENT) as bench:
        assert len(bench.rows) == 2 and len(session.ready.train) == 10 and of == 6  # the whole run learns from 12
        learned = {row.where for row in session.ready.train}
        assert not learned & {session.ready.held_out[name][numbers[0]].where for name, numbers in bench.rows}


def test_nothing_is_left_behind(tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials' own folder is gone, also when one fails."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with opened_run(config(tiny, rows), 1, 40, SILENT) as (session, _):
        assert session.run.folder.parent == tmp_path / "temporary"
    with pytest.raises(KeyError), opened_run(config(tiny, rows), 1, 40, SILENT):
        raise KeyError
    assert not list((tmp_path / "temporary").iterdir())


def test_a_rate_that_leaves_the_numbers_ends_its_trial(tiny: Path, rows: Path) -> None:
    """A loss that is not finite is no error here but an answer; the trial after it is sound."""
    with opened_run(config(tiny, rows), None, 40, SILENT) as (session, _), Bench(session, SILENT) as bench:
        ruined, sound = bench.run(1e30), bench.run(1e-3)
    assert ruined.diverged and len(ruined.losses) < len(sound.losses) == 6
    assert not sound.diverged


def test_exploding_by_hand() -> None:
    """The mean of five losses is 0.5 x the first such mean above the best one."""
    falling = [4.0] * 5 + [2.0] * 5
    assert not exploded([*falling, 3.9, 3.9, 3.9, 3.9, 3.9])  # 2 + 0.5 x 4 is not passed
    assert exploded([*falling, 4.1, 4.1, 4.1, 4.1, 4.1])
    assert not exploded([1.0, 9.0, 9.0, 9.0, 9.0])  # too few to say


def test_a_range_test_grows_its_rate(tiny: Path, rows: Path) -> None:
    """From 1e-7 by the same factor each step, until the loss explodes; what is suggested lies a tenth below that."""
    found = sweep(config(tiny, rows), 30, SILENT)
    (trial,) = found.trials
    assert trial.rates[0] == pytest.approx(1e-7) and trial.diverged
    assert np.ptp(np.diff(np.log(trial.rates))) < 1e-9
    verdict = judge_range(found)
    assert verdict.rate and 1e-5 < verdict.rate <= trial.rates[-1] / 10 * 1.05


def test_a_stream_cannot_be_searched(tiny: Path, rows: Path) -> None:
    with pytest.raises(Problem, match="read once"):
        search(config(tiny, rows, streaming=True, max_steps=5), None, SILENT)


# --------------------------------------------------------------------------------------------------------- verdicts


def held_out(*losses: float, tokens: float = 10.0) -> HeldOut:
    """Rows of `tokens` learned tokens with these losses a token."""
    return HeldOut(np.array(losses) * tokens, np.full(len(losses), tokens))


def found(*outcomes: HeldOut | None, here: float = 3e-4, of: int = 40, rates: tuple[float, ...] = (),
          before: float = 5.0) -> Search:
    """A finished search: the held-out rows of each rate, None where it diverged."""
    trials = [Trial(rate, [4.0, 3.0], [rate] * 2, rows, rows is None)
              for rate, rows in zip(rates or rates_around(here), outcomes, strict=False)]
    search = Search(Config.model_validate({"learning_rate": here}), 40, of, held_out(before), trials)
    return search


def test_difference_by_hand() -> None:
    """Two rows of 10 and 30 tokens that gain 0.3 and 0.1 a token: 6 / 40 = 0.15. What is left of the row's gains is
    3 - 1.5 and 3 - 4.5, so the error is sqrt(2 / 1 x (1.5² + 1.5²)) / 40 = 0.075."""
    counts = np.array([10.0, 30.0])
    better, worse = HeldOut(counts * [1.7, 1.9], counts), HeldOut(counts * 2, counts)
    assert difference(better, worse) == pytest.approx((0.15, 0.075))


CLEAR, MIDDLE, NEAR = held_out(1.0, 1.1, 1.2), held_out(2.0, 2.1, 2.2), held_out(1.99, 2.1, 2.19)


@pytest.mark.parametrize(("search", "rate", "english", "chinese"), [
    (found(MIDDLE, MIDDLE, CLEAR), 9e-4, "set learning_rate: 0.0009. It is better than 0.0003 by 1.000", "可能更高"),
    (found(CLEAR, MIDDLE, MIDDLE), 1e-4, "lower still", "可能更低"),
    (found(MIDDLE, CLEAR, MIDDLE), 3e-4, "keep learning_rate: 0.0003. No other", "保持"),
    (found(MIDDLE, MIDDLE, NEAR), 3e-4, "within noise", "噪声范围内"),
    (found(MIDDLE, CLEAR, None), 3e-4, "0.0009 diverged: worse than before", "0.0009 发散了"),
    (found(CLEAR, None, None), 1e-4, "since the present one diverges. 0.0003, 0.0009 diverged", "会发散"),
    (found(None, None, None), 1e-5, "Try learning_rate: 1e-05.", "请试试"),
    (found(MIDDLE, CLEAR, held_out(6.0, 6.0, 6.0)), 3e-4, "0.0009 diverged", "0.0009 发散了"),
    (found(held_out(6.0), held_out(7.0), held_out(8.0)), 1e-5, "no rate made the held-out rows better", "都太高"),
    (found(MIDDLE), None, "fewer than two rates", "不到两个"),
    (found(MIDDLE, CLEAR, rates=(1e-4, 9e-4)), None, "the present rate was not tried", "还没有试"),
    (found(MIDDLE, MIDDLE, CLEAR, of=400), 9e-4, "10 times as long", "10 倍"),
])
def test_what_is_said(search: Search, rate: float | None, english: str, chinese: str) -> None:
    """The rate to set, and how sure that is, in both languages."""
    verdict = judge(search)
    assert verdict.rate == pytest.approx(rate)
    assert verdict.change == (rate not in (None, 3e-4))
    assert english in verdict.words.en and chinese in verdict.words.zh


def test_a_range_by_hand() -> None:
    """Flat at 3 up to 1e-4, down to 2 at 1e-3, and exploded at 1e-1: the steepest place is about 3e-4, which is more
    than a tenth below the explosion. Where nothing falls nothing is suggested."""
    rates = np.geomspace(1e-7, 1e-1, 121)
    losses = np.interp(np.log(rates), np.log([1e-4, 1e-3, 1e-2, 1e-1]), [3.0, 2.0, 2.0, 9.0])
    config = Config.model_validate({"learning_rate": 1e-3})
    verdict = judge_range(Search(config, 121, 40, None, [Trial(1e-7, losses.tolist(), rates.tolist(), None, True)]))
    assert verdict.rate and 1e-4 < verdict.rate < 1e-3 and verdict.change
    flat = judge_range(Search(config, 121, 40, None, [Trial(1e-7, [3.0] * 121, rates.tolist())]))
    assert flat.rate is None and "falls nowhere" in flat.words.en


# ------------------------------------------------------------------------------------------------------ as a command


@pytest.fixture
def run_yaml(tiny: Path, rows: Path) -> Path:
    """A run with a comment beside its learning rate, which is far too low."""
    file = rows.parent / "mine.yaml"
    lines = [f"model_name_or_path: {tiny}", f"dataset: {rows}", f"output_dir: {rows.parent / 'run'}", "bf16: false",
             "learning_rate: 1e-5  # from a friend", "num_train_epochs: 3", "per_device_train_batch_size: 2"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_the_command(run_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table, a picture beside the file, a suggestion; run.yaml stays as it is unless --apply is said."""
    before = run_yaml.read_text(encoding="utf-8")
    assert main(["find-lr", str(run_yaml), "--steps", "5", "learning_rate=1e-3"]) == 0
    shown = capsys.readouterr().out
    assert "(before)" in shown and "0.003" in shown and "set learning_rate: 0.003." in shown
    picture = run_yaml.with_name("find-lr.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    assert run_yaml.read_text(encoding="utf-8") == before
    assert not (run_yaml.parent / "run").exists()


def test_apply(run_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The suggestion is written into run.yaml, in its place; everything else stays."""
    picture = run_yaml.parent / "pictures" / "range.png"
    assert main(["find-lr", str(run_yaml), "--range", "--steps=30", "--apply", f"--output={picture}", "--lang=zh"]) == 0
    assert "范围测试" in capsys.readouterr().out and picture.is_file()
    lines = run_yaml.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7 and lines[4].endswith("# from a friend")
    assert 1e-4 < float(lines[4].removeprefix("learning_rate:").partition("#")[0]) < 1e-1


@pytest.mark.parametrize(("words", "line"), [
    (["--apply", "model=x"], "there is no run.yaml to change"),
    (["mine.yaml", "--steps", "none"], "It takes a whole number from 1 on."),
    (["mine.yaml", "lerning_rate=1"], "Did you mean learning_rate?"),
    (["mine.yaml", "streaming=true", "max_steps=9"], "a stream is read once"),
    (["mine.yaml", "val_size=12"], "cannot be held out"),
])
def test_what_is_wrong_is_said(words: list[str], line: str, run_yaml: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(run_yaml.parent)
    assert main(["find-lr", *words]) in (1, 2)
    assert line in capsys.readouterr().err


def test_ctrl_c_tells_what_is_known(run_yaml: Path, tmp_path: Path) -> None:
    """Stopped in the middle of the trials: the table and the picture of what was done, exit status 130, and no folder
    left behind."""
    (tmp_path / "temporary").mkdir()
    with subprocess.Popen(
            [sys.executable, "-u", "-m", "truetune", "find-lr", str(run_yaml), "--steps=5000"], encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(tmp_path / "temporary")}) as process:
        assert process.stdout
        next(line for line in process.stdout if line.startswith("learning_rate 3.3e-06"))
        process.send_signal(signal.SIGINT)
        try:
            rest, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, rest
    assert "stopping after this step" in rest and "fewer than two rates were tried" in rest
    assert not list((tmp_path / "temporary").glob("truetune-*"))
