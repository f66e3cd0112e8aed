"""The steps of a run: how many, how far they reach, what never happens in them, and how long they take."""

from __future__ import annotations

import pytest

from truetune.check.schedule import Pace, duration, schedule_section, times
from truetune.options.read import read_config
from truetune.steps import Plan


def section(rows: int = 800, tokens: int = 80_000, pace: Pace | None = None, **values: object):
    """The section of a run of so many rows, with these options beside a sound rate and batches of 8."""
    config, findings = read_config([f"{name}={value}" for name, value in {"learning_rate": 2e-4, **values}.items()])
    assert not findings
    plan = Plan(rows, 8, config.gradient_accumulation_steps, config.num_train_epochs, config.max_steps, 42, True)
    return schedule_section(plan, config, tokens, pace)


def test_steps_by_hand():
    """800 rows, 8 x 2 a step: 50 steps an epoch, 150 in three; warmup 10 %, log every 10, save every 50."""
    found = section(gradient_accumulation_steps=2, warmup_ratio=0.1, save_steps=50, pace=Pace(1000, measured=True))
    assert found.facts == {
        "steps": 150, "steps_per_epoch": 50, "rows_per_step": 16, "warmup_steps": 15, "tokens_seen": 240_000,
        "saves": 3, "evals": 0, "logs": 15, "seconds": 240, "tokens_per_second": 1000, "measured": True}
    assert not found.findings


def test_an_ordinary_run_raises_no_alarm():
    for values in ({}, {"finetuning_type": "full", "learning_rate": 1e-5}, {"save_strategy": "epoch"},
                   {"save_strategy": "no"}, {"lora_rank": 64, "lora_alpha": 16}, {"lora_alpha": 32},
                   {"num_train_epochs": 10}, {"eval_strategy": "epoch", "val_size": 0.1}):
        assert not section(**values).findings, values


WRONG = [  # finding, option, rows, what makes it, the same mended
    ("few-steps", "num_train_epochs", 24, {}, {"num_train_epochs": 10}),
    ("few-steps", "max_steps", 800, {"max_steps": 5}, {"max_steps": 100}),
    ("many-epochs", "num_train_epochs", 80, {"num_train_epochs": 100}, {"num_train_epochs": 10}),
    ("many-epochs", "num_train_epochs", 80, {"num_train_epochs": 100},
     {"num_train_epochs": 100, "early_stopping_steps": 3, "eval_strategy": "epoch"}),
    ("all-warmup", "warmup_steps", 800, {"warmup_steps": 1000}, {"warmup_steps": 10}),
    ("all-warmup", "warmup_ratio", 800, {"warmup_ratio": 1.0}, {"warmup_ratio": 0.03}),
    ("hardly-moves", "learning_rate", 240, {"learning_rate": 2e-5}, {"learning_rate": 2e-4}),
    ("lora-scale", "lora_alpha", 800, {"lora_rank": 256, "lora_alpha": 1}, {"lora_rank": 256, "lora_alpha": 512}),
    ("lora-scale", "lora_alpha", 800, {"lora_rank": 8, "lora_alpha": 512}, {"lora_rank": 8, "lora_alpha": 16}),
    ("lora-scale", "lora_alpha", 800, {"lora_rank": 64, "lora_alpha": 128, "use_rslora": True},
     {"lora_rank": 64, "lora_alpha": 16, "use_rslora": True}),  # the root of the rank divides it
    ("never-saves", "save_steps", 80, {"save_steps": 500}, {"save_steps": 10}),
    ("never-evaluates", "eval_steps", 80, {"eval_strategy": "steps", "eval_steps": 500},
     {"eval_strategy": "steps", "eval_steps": 10}),
    ("never-stops", "early_stopping_steps", 800, {"eval_strategy": "epoch", "early_stopping_steps": 5},
     {"eval_strategy": "epoch", "early_stopping_steps": 2}),
]


@pytest.mark.parametrize(("id", "option", "rows", "wrong", "right"), WRONG,
                         ids=[f"{case[0]}-{case[1]}" for case in WRONG])
def test_what_cannot_work_is_told_and_the_cure_mends_it(id, option, rows, wrong, right):
    """The finding names the option; it is gone in the right run, and where there is a cure, with the cure too."""
    found = [finding for finding in section(rows, **wrong).findings if finding.id == id]
    assert [finding.option for finding in found] == [option]
    assert all("一" <= letter <= "鿿" for letter in found[0].line(chinese=True)[:2])
    assert id not in {finding.id for finding in section(rows, **right).findings}
    if found[0].cure and not wrong.get("max_steps"):
        assert id not in {finding.id for finding in section(rows, **{**wrong, **found[0].cure}).findings}


def test_what_happens_how_often():
    plan = Plan(800, 8, 1, 3, -1, 42, True)  # 100 an epoch, 300 in all
    assert [times(*how, plan) for how in (("no", 1), ("epoch", 1), ("steps", 40), ("steps", 0.1), ("steps", 301))] == [
        0, 3, 7, 10, 0]


def test_durations_in_words():
    assert [duration(seconds).en for seconds in (5, 100, 4000, 20_000, 500_000)] == [
        "5 s", "2 min", "67 min", "5.6 h", "5.8 days"]
