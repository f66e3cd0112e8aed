"""Distillation: the divergence from a teacher by hand, against TRL, and on a two-layer cut of the real model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import events, options, write_rows
from test_train import run

from truetune.data.batches import collate
from truetune.data.renderer import Rendered, Run
from truetune.findings import Problem
from truetune.model.find import load_tokenizer
from truetune.model.load import load_model
from truetune.objectives.distill import Distillation, Divergence
from truetune.objectives.objective import Outputs, Wants
from truetune.options.read import read_config
from truetune.rules import apply_rules

TEACHER, STUDENT = (0.5, 0.5), (0.25, 0.75)


def divergence(beta: float, temperature: float = 1.0) -> float:
    """Of the student from the teacher above."""
    student, teacher = (torch.tensor([chances]).log() for chances in (STUDENT, TEACHER))
    return float(Divergence(beta, temperature)(student, torch.tensor([0]), teacher))


def test_both_ends_by_hand() -> None:
    """beta 0: KL(T || S) = ln 2 - ln 3 / 2. beta 1: KL(S || T) = 3/4 ln 3 - ln 2."""
    assert divergence(0) == pytest.approx(math.log(2) - math.log(3) / 2)
    assert divergence(1) == pytest.approx(0.75 * math.log(3) - math.log(2))


def test_in_between_by_hand() -> None:
    """beta 1/4: M = 1/4 (1/2, 1/2) + 3/4 (1/4, 3/4) = (5/16, 11/16), and 1/4 KL(T || M) + 3/4 KL(S || M)."""
    m = (5 / 16, 11 / 16)
    apart = [sum(one * math.log(one / other) for one, other in zip(p, m, strict=True)) for p in (TEACHER, STUDENT)]
    assert divergence(0.25) == pytest.approx(apart[0] / 4 + 3 * apart[1] / 4)


def test_temperature_by_hand() -> None:
    """At temperature 1/2 probabilities are squared and brought to a sum of 1: the student's are (1/10, 9/10)."""
    assert divergence(0, 0.5) == pytest.approx(0.5 * math.log(5) + 0.5 * math.log(5 / 9))


def test_a_teacher_with_a_padded_vocabulary() -> None:
    """Tokens that only one of the two has (padding of its matrix) are left out, whatever logits they have."""
    student, teacher = torch.tensor([STUDENT]).log(), torch.tensor([TEACHER]).log()
    padded = torch.cat([teacher, torch.full((1, 3), 9.0)], dim=1)
    target = torch.tensor([0])
    for beta in (0.0, 0.4, 1.0):
        reading = Divergence(beta)
        torch.testing.assert_close(reading(student, target, padded), reading(student, target, teacher))
        torch.testing.assert_close(reading(padded, target, student), reading(teacher, target, student))


def test_the_share_of_the_data_by_hand() -> None:
    """kd_ratio 1/4: a quarter of the divergence and three quarters of the cross-entropy, by the tokens' weights."""
    batch = collate([Rendered(np.array([5, 6, 7]), (Run(1, 2, 1.0), Run(2, 3, 0.5)))])
    said = Outputs(torch.tensor([0.5, 0.25]).log(), torch.tensor([[2.0], [4.0]]))
    loss, weight, told = Distillation(0.5, ratio=0.25).loss(said, None, batch)
    assert loss.item() == pytest.approx(0.25 * (2 + 0.5 * 4) + 0.75 * (math.log(2) + 0.5 * math.log(4)))
    assert weight == 1.5 and told == {"divergence": (4.0, 1.5)}
    assert Distillation(0.5).wants == Wants(logp=False, tokens=Divergence(0.5), beside=True)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize(("beta", "temperature"), ((0.0, 1.0), (0.1, 0.9), (0.5, 2.0), (1.0, 1.3)))
def test_against_trl(beta: float, temperature: float, dtype: torch.dtype) -> None:
    """TRL's generalised Jensen-Shannon divergence: the same loss per token and the same gradient, on odd shapes."""
    gkd = pytest.importorskip("trl.experimental.gkd", reason="TRL is the oracle: pip install trl==1.16.0")
    torch.manual_seed(0)
    student = (torch.randn(1, 7, 131) * 3).to(dtype).float().requires_grad_()
    teacher = (torch.randn(1, 7, 131) * 3).to(dtype).float()
    labels = torch.tensor([[-100, 4, 9, -100, 5, 130, 0]])
    expected = gkd.GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta, temperature)
    learned = labels[0] >= 0
    found = Divergence(beta, temperature)(student[0, learned], labels[0, learned], teacher[0, learned]).mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-7)


# --------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def teacher(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says something else than the tiny one: the same with a little noise in its weights."""
    folder = tmp_path_factory.mktemp("teacher")
    model = load_model(tiny, torch.float32, torch.device("cpu"))
    torch.manual_seed(0)
    for weight in model.model.layers.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.3 * weight.data.std())
    model.save_pretrained(folder)
    load_tokenizer(tiny).save_pretrained(folder)
    return folder


METHODS: dict[str, dict[str, object]] = {
    "lora": {"finetuning_type": "lora", "learning_rate": 3e-3},
    "full": {"finetuning_type": "full", "learning_rate": 3e-4},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "learning_rate": 1e-3},
}
SHAPES: dict[str, dict[str, object]] = {"forward": {"distill_beta": 0}, "between": {}, "reverse": {"distill_beta": 1}}


@pytest.mark.parametrize(("method", "shape"), (("lora", "forward"), ("lora", "between"), ("lora", "reverse"),
                                               ("full", "between"), ("freeze", "between")))
def test_the_student_comes_nearer(method: str, shape: str, tiny: Path, teacher: Path, tmp_path: Path) -> None:
    """Whatever is trained and however the two are compared, the divergence falls, on rows held out too."""
    data = write_rows(tmp_path / "rows.json", 8)
    held = write_rows(tmp_path / "held.json", 2)
    out = tmp_path / "out"
    run(out, tiny, data, stage="distill", teacher_model=teacher, num_train_epochs=6, per_device_train_batch_size=8,
        gradient_accumulation_steps=1, eval_dataset=held, plot_loss="false", **METHODS[method], **SHAPES[shape])
    apart = [event["divergence"] for event in events(out)]
    assert len(apart) == 6 and apart[-1] < 0.8 * apart[0]
    results = json.loads((out / "all_results.json").read_text(encoding="utf-8"))
    assert results["eval_divergence"] == pytest.approx(results["eval_loss"]) and "eval_perplexity" not in results
    assert results["eval_loss"] < apart[0]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_student_learns_on_its_own_answers(share: float, tiny: Path, teacher: Path, tmp_path: Path) -> None:
    """lmbda: the teacher is heard about what the student itself writes, in that share of the steps; a run that is
    stopped and goes on writes and learns the same. Held-out rows are measured on the answers of the data."""
    data, held = write_rows(tmp_path / "rows.json", 8), write_rows(tmp_path / "held.json", 2)
    settings = {"stage": "distill", "teacher_model": teacher, "per_device_train_batch_size": 4, "lmbda": share,
                "gradient_accumulation_steps": 1, "eval_dataset": held, "plot_loss": "false", "max_steps": 8,
                "max_completion_length": 6, "learning_rate": 1e-3}
    whole = tmp_path / "whole"
    run(whole, tiny, data, **settings)
    told = events(whole)
    written = [event.get("completion_length") for event in told]
    assert all(written) if share == 1 else {bool(length) for length in written} == {True, False}
    assert all(event["divergence"] > 0 for event in told)
    results = json.loads((whole / "all_results.json").read_text(encoding="utf-8"))
    assert results["eval_divergence"] < 0.9 * told[0]["divergence"] or share == 1
    half = tmp_path / "half"
    run(half, tiny, data, **settings, save_strategy="steps", save_steps=4)
    again = tmp_path / "again"
    run(again, tiny, data, **settings, resume_from_checkpoint=half / "checkpoint-4")
    assert (again / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()


def test_the_model_itself_as_teacher_teaches_nothing(tiny: Path, tmp_path: Path) -> None:
    """Step 0 with the student as its own teacher: a divergence of 0."""
    run(tmp_path / "out", tiny, write_rows(tmp_path / "rows.json", 4), stage="distill", teacher_model=tiny, max_steps=1)
    (step,) = events(tmp_path / "out")
    assert step["divergence"] == pytest.approx(0, abs=1e-6) and step["grad_norm"] < 1e-3


def test_a_teacher_of_another_family_is_refused(tiny: Path, tmp_path: Path) -> None:
    """A teacher whose tokens are others says nothing about ours: one clear line."""
    other = tmp_path / "other"
    load_model(tiny, torch.float32, torch.device("cpu")).save_pretrained(other)
    tokenizer = load_tokenizer(tiny)
    tokenizer.add_tokens(["<|ours alone|>"])
    tokenizer.save_pretrained(other)
    with pytest.raises(Problem, match=r"teacher_model.*other tokens"):
        run(tmp_path / "out", tiny, write_rows(tmp_path / "rows.json", 4), stage="distill", teacher_model=other)


def test_a_missing_teacher_is_told_from_the_options(tiny: Path) -> None:
    config, _ = read_config(options(stage="distill", model_name_or_path=tiny, dataset="d", output_dir="o"))
    assert "teacher-missing" in {finding.id for finding in apply_rules(config, "train")}
