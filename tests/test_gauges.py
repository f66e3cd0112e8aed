"""How a run is judged whose loss does not tell: by accuracy, margin or reward, with chance allowed for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import options

from truetune.options.read import read_config
from truetune.plot import metric_file, plot_metric
from truetune.review.gauges import Gauge, gauge_of, trend
from truetune.review.signs import Signs
from truetune.review.verdict import Numbers, judge


def log(key: str, values: Any, **more: float) -> list[dict[str, Any]]:
    return [{"event": "step", "step": step, "total_steps": len(values), "epoch": step / len(values), "loss": 0.0,
             "grad_norm": 1.0, "learning_rate": 1e-4, key: value, **more} for step, value in enumerate(values, start=1)]


def test_a_trend_by_hand() -> None:
    """Ten values: the first two and the last two are compared; (0.1 - 0.3)² / 2 over 2 is the squared error of each."""
    gauge = gauge_for("grpo")
    found = trend(log("reward", [0.1, 0.3, 0, 0, 0, 0, 0, 0, 0.9, 0.7]), gauge)
    assert found is not None
    assert (found.before, found.after) == (pytest.approx(0.2), pytest.approx(0.8))
    assert found.chance == pytest.approx((0.01 + 0.01) ** 0.5)
    assert found.better and not found.worse
    assert trend(log("reward", [1.0, 2.0, 3.0]), gauge) is None
    falling = trend(log("loss", [5, 4.9, 4, 3, 3, 3, 2, 2, 1, 1.1]), gauge_for("distill"))
    assert falling is not None and falling.better and not falling.worse


def gauge_for(stage: str, **more: object) -> Gauge:
    gauge = gauge_of(read_config(options(stage=stage, **more))[0])
    assert gauge is not None
    return gauge


def verdict(stage: str, values: Any, loss: float = 0.0) -> Any:
    config, _ = read_config(options(stage=stage))
    gauge = gauge_for(stage)
    events = log(gauge.key, values, loss=loss)
    signs = Signs.of(config, 135_000_000).replay(events)
    told = trend(events, gauge)
    return judge(Numbers(config, signs, len(values), len(values), 10, True, 0, gauge=gauge, trend=told)), signs


def test_verdicts_follow_the_reward() -> None:
    """A reward that climbs out of its noise was learned, one that stays was not, one that falls broke; a loss around 0
    means nothing there, and no sign speaks of it."""
    noise = np.random.default_rng(0).normal(0, 0.1, 60)
    learned, signs = verdict("grpo", np.linspace(0.1, 0.8, 60) + noise)
    assert learned.kind == "learned" and not signs.seen
    assert learned.why[0].en.startswith("The mean reward of its answers went from 0.1")
    assert "平均奖励从 0.1" in learned.why[0].zh
    assert verdict("ppo", 0.3 + noise)[0].kind == "too little"
    assert verdict("grpo", np.linspace(0.8, 0.1, 60) + noise)[0].kind == "broke"


def test_what_tells() -> None:
    """Plain fine-tuning is told by its loss, DFT by the probability of the right token."""
    assert gauge_of(read_config(options(stage="sft"))[0]) is None
    assert gauge_for("sft", use_dft_loss=True).key == gauge_for("sft", use_asft_loss=True).key == "probability"
    assert gauge_for("kto").key == "rewards/margins"


def test_a_preference_is_judged_by_its_accuracy() -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, 40)
    assert verdict("dpo", np.linspace(0.5, 0.9, 40) + noise, loss=0.6)[0].kind == "learned"
    assert verdict("dpo", 0.5 + noise, loss=0.69)[0].kind == "too little"


def test_its_picture(tmp_path: Path) -> None:
    """By LLaMA-Factory's name for it, with evaluations; none of fewer than two values."""
    path = tmp_path / metric_file("rewards/accuracies")
    assert path.name == "training_rewards_accuracies.png"
    events = log("rewards/accuracies", [0.5, 0.6, 0.9])
    assert plot_metric([*events, {"event": "eval", "step": 3, "eval_rewards/accuracies": 0.8}], path,
                       "rewards/accuracies")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not plot_metric(events[:1], path, "rewards/accuracies")
