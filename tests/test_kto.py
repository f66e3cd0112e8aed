"""Learning from judged answers: KTO by hand arithmetic, what it measures, and real runs on a two-layer cut of the real
model."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import events, options

from truetune.data.batches import Batch, collate
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.data.rows import with_answer_of
from truetune.findings import Problem
from truetune.objectives import OBJECTIVES
from truetune.objectives.kto import KahnemanTversky
from truetune.objectives.objective import Outputs
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.train import train


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def row(answer: int, good: bool, place: int) -> Rendered:
    """A prompt of 2 tokens and an answer of so many."""
    return Rendered(np.arange(2 + answer), (Run(2, 2 + answer, 1.0),), place=Place("row ", place), label=good)


def judged(kl: float) -> Batch:
    """A good answer of 2 tokens, a bad one of 1, a good one of 3."""
    return collate([row(2, True, 1), row(1, False, 2), row(3, True, 3)]).knowing(kl=torch.tensor(kl))


POLICY = torch.tensor([-1.0, -2, -4, -1, -1, -1])
REFERENCE = torch.tensor([-2.0, -2, -3, -3, -1, -1])
"""log pi / ref of the three: 1, -1, 2."""


def objective(**values: object) -> KahnemanTversky:
    config, findings = read_config(options(pref_beta=0.5, **values))
    assert not findings
    made = OBJECTIVES["kto"](config)
    assert isinstance(made, KahnemanTversky)
    return made


def test_the_loss_by_hand() -> None:
    """Good answers 1 - sigmoid(beta (r - z)), bad ones 1 - sigmoid(beta (z - r)), times the weights of their class."""
    made = objective(kto_chosen_weight=2, kto_rejected_weight=3)
    loss, weight, _ = made.loss(Outputs(POLICY), REFERENCE, judged(0.4))
    good = (1 - sigma(0.5 * (1 - 0.4))) + (1 - sigma(0.5 * (2 - 0.4)))
    bad = 1 - sigma(0.5 * (0.4 + 1))
    assert (float(loss), weight) == (pytest.approx(2 * good + 3 * bad), 3)


def test_the_likelihood_of_good_answers_is_added() -> None:
    """pref_ftx times 3 / 2 and 3 / 3, their mean losses a token; the bad answer has none."""
    batch = judged(0.0)
    plain, more = (float(objective(pref_ftx=gamma).loss(Outputs(POLICY), REFERENCE, batch).sum) for gamma in (0, 0.1))
    assert more - plain == pytest.approx(0.1 * (1.5 + 1))


def test_the_divergence_is_measured_on_mismatched_answers() -> None:
    """The mean of log pi / ref over all rows of a step, and 0 where that is negative."""
    made = objective()
    assert made.mismatched and made.reference
    policy = torch.tensor([-3.0, -5, -1])
    assert float(made.known(policy, torch.tensor([-4.0, -5, -3]))["kl"]) == 1
    assert float(made.known(policy, torch.tensor([-1.0, -5, -1]))["kl"]) == 0


def test_metrics_are_of_each_class() -> None:
    """Sums over a class and how many there are of it."""
    told = objective().loss(Outputs(POLICY), REFERENCE, judged(0.4)).metrics
    assert told == {
        "rewards/chosen": (1.5, 2), "rewards/rejected": (-0.5, 1), "logps/chosen": (-6, 2), "logps/rejected": (-4, 1),
        "kl": (pytest.approx(1.2), 3)}


def test_a_step_without_a_class_says_nothing_of_it() -> None:
    batch = collate([row(2, True, 1)]).knowing(kl=torch.tensor(0.0))
    told = objective().loss(Outputs(POLICY[:2]), REFERENCE[:2], batch).metrics
    assert told["rewards/rejected"] == (0, 0)  # a sum of nothing over nothing: no mean is shown


def test_the_lead_follows_from_both_classes() -> None:
    means = {"rewards/chosen": 0.5, "rewards/rejected": -0.25, "kl": 1.0}
    assert objective().follows(means) == {"rewards/margins": 0.75}
    assert objective().follows({"rewards/chosen": 0.5}) == {}


def test_a_mismatched_answer_follows_another_prompt() -> None:
    one = Rendered(np.array([7, 8, 4, 5]), (Run(2, 4, 1.0),), place=Place("row ", 1), label=True)
    other = Rendered(np.array([9, 6, 6, 2]), (Run(1, 4, 1.0),), place=Place("row ", 2), label=False)
    mixed = with_answer_of(one, other)
    assert mixed.ids.tolist() == [7, 8, 6, 6, 2] and mixed.weights.tolist() == [0, 0, 1, 1, 1]


# ---------------------------------------------------------------------------------------------------------------------
# Real runs


def write_judged(path: Path, labels: list[bool]) -> Path:
    """Plain answers, marked good, and shouting ones, marked bad."""
    answers = {True: "The sum is {}.", False: "NO IDEA! WHY {}?"}
    path.write_text(json.dumps([{"instruction": f"What is {n} plus {n}?", "input": "", "kto_tag": good,
                                 "output": answers[good].format(2 * n) + " Really." * (n % 3)}
                                for n, good in enumerate(labels)], indent=1), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judged(tmp_path_factory.mktemp("data") / "judged.json", [n % 3 != 1 for n in range(12)])


def run(folder: Path, model: Path, data: Path, **more: object) -> list[dict[str, Any]]:
    """Train in this process; returns the steps."""
    config, findings = read_config(options(**{
        "stage": "kto", "model_name_or_path": model, "dataset": data, "output_dir": folder, "bf16": "false",
        "logging_steps": 1, "save_strategy": "no", "learning_rate": 1e-3, "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 6, "num_train_epochs": 3, "use_cpu": True, "plot_loss": "false", **more}))
    assert not findings
    train(config, Terminal(file=io.StringIO(), width=200), checked=False)
    return events(folder)


@pytest.mark.parametrize("method", ({"lora_rank": 4}, {"finetuning_type": "full"},
                                    {"finetuning_type": "freeze", "freeze_trainable_layers": 1}),
                         ids=("lora", "full", "freeze"))
def test_kto_begins_at_one_half_and_learns_the_judgement(method: dict[str, object], tiny: Path, data: Path,
                                                         tmp_path: Path) -> None:
    """Before the first step policy and reference are the same model: every value is sigmoid(0). Then the loss falls and
    good answers lead."""
    steps = run(tmp_path, tiny, data, **method)
    assert steps[0]["loss"] == pytest.approx(0.5, abs=1e-5) and steps[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["loss"] < 0.42
    lead = [step["rewards/chosen"] - step["rewards/rejected"] for step in steps]
    assert lead[0] == pytest.approx(0, abs=1e-4) and lead[-1] > 0.5
    assert (tmp_path / "reference").is_dir() == ("lora_rank" not in method)


def test_grouping_into_batches_changes_nothing(tiny: Path, data: Path, tmp_path: Path) -> None:
    """6 x 1 and 2 x 3 rows a step: the same losses, gradients and divergences to rounding (invariant I2), since the
    divergence is measured on all rows of a step. Measured a batch at a time it would differ from the second step on."""
    one, other = (run(tmp_path / str(size), tiny, data, per_device_train_batch_size=size, lora_rank=4,
                      gradient_accumulation_steps=6 // size, num_train_epochs=2, learning_rate=5e-3)
                  for size in (6, 2))
    assert max(step["kl"] for step in one) > 0.1
    for name in ("loss", "grad_norm", "kl", "rewards/chosen", "rewards/rejected"):
        assert [step[name] for step in other] == pytest.approx([step[name] for step in one], rel=2e-3, abs=1e-5), name


def test_a_reference_on_disk_is_the_live_one(tiny: Path, data: Path, tmp_path: Path) -> None:
    """That of the mismatched answers is kept too."""
    live, kept = (run(tmp_path / keeps, tiny, data, lora_rank=4, num_train_epochs=1, precompute_ref_log_probs=keeps)
                  for keeps in ("false", "true"))
    for name in ("loss", "kl", "rewards/chosen"):
        assert [step[name] for step in kept] == pytest.approx([step[name] for step in live], rel=1e-4, abs=1e-5)


def test_one_class_alone_is_refused(tiny: Path, tmp_path: Path) -> None:
    """There is no difference to learn from: said before training."""
    file = write_judged(tmp_path / "good.json", [True] * 4)
    config, _ = read_config(options(stage="kto", model_name_or_path=tiny, dataset=file, output_dir=tmp_path / "run",
                                    use_cpu=True, bf16="false"))
    with pytest.raises(Problem, match="all 4 answers are judged good, none bad"):
        train(config, Terminal(file=io.StringIO(), width=200))
