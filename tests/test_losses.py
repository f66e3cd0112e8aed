"""Supervised fine-tuning's losses: each by hand, against independent code, and on a two-layer cut of the real model."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import events, write_rows
from test_train import run
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.trainer_pt_utils import LabelSmoother

from truetune.data.batches import Batch, collate
from truetune.data.renderer import Rendered, Run
from truetune.model import head as head_module
from truetune.model.find import load_tokenizer
from truetune.model.policy import Policy
from truetune.objectives import OBJECTIVES
from truetune.objectives.asft import Anchored
from truetune.objectives.dft import DynamicFineTuning
from truetune.objectives.distill import Divergence
from truetune.objectives.eaft import EntropyAdaptive, entropy
from truetune.objectives.objective import Objective, Outputs, Tokens, Wants
from truetune.objectives.sft import MaximumLikelihood, guessed
from truetune.objectives.smoothing import LabelSmoothing, mean_logp
from truetune.options.read import read_config

# ------------------------------------------------------------------------------------------------------------- by hand


def two_tokens() -> Batch:
    """One row, of which two tokens are learned; the second counts half."""
    return collate([Rendered(np.array([5, 6, 7]), (Run(1, 2, 1.0), Run(2, 3, 0.5)))])


def likely(*chances: float) -> torch.Tensor:
    return torch.tensor(chances).log().requires_grad_()


def test_dft_by_hand() -> None:
    """Probabilities 1/2 and 1/4: 1/2 ln 2 + 1/2 (1/4 ln 4). A token's gradient is its probability times its weight."""
    logp = likely(0.5, 0.25)
    loss, weight, metrics = DynamicFineTuning().loss(Outputs(logp), None, two_tokens())
    assert loss.item() == pytest.approx(0.5 * math.log(2) + 0.5 * 0.25 * math.log(4))
    assert weight == 1.5 and metrics["nll"] == pytest.approx((math.log(2) + 0.5 * math.log(4), 1.5))
    assert metrics["probability"] == pytest.approx((0.5 + 0.5 * 0.25, 1.5))
    loss.backward()
    torch.testing.assert_close(logp.grad, torch.tensor([-0.5, -0.125]))


def test_eaft_by_hand() -> None:
    """Four equally likely tokens have the entropy ln 4, so the loss counts ln 4 / 3; squared where alpha is 2."""
    unsure = entropy(torch.zeros(2, 4), torch.zeros(2), None)
    torch.testing.assert_close(unsure, torch.full((2, 1), math.log(4)))
    for alpha in (0.0, 1.0, 2.0):
        loss = EntropyAdaptive(alpha).loss(Outputs(likely(0.5, 0.25), unsure), None, two_tokens()).sum
        assert loss.item() == pytest.approx((math.log(4) / 3) ** alpha * 2 * math.log(2))


def test_eaft_looks_at_twenty_tokens() -> None:
    """30 tokens, 20 of them equally likely and far above the others: ln 20, whatever the others are."""
    logits = torch.cat([torch.full((20,), 9.0), torch.linspace(-5, 5, 10)])[torch.randperm(30)]
    assert float(entropy(logits[None], torch.zeros(1), None)) == pytest.approx(math.log(20))


def test_label_smoothing_by_hand() -> None:
    """Logits (0, ln 3) have the probabilities 1/4 and 3/4. With epsilon 0.2 the label 1 is (0.1, 0.9)."""
    mean = mean_logp(torch.tensor([[0.0, math.log(3)]] * 2), torch.tensor([1, 1]), None)
    loss = LabelSmoothing(0.2).loss(Outputs(likely(0.75, 0.75), mean), None, two_tokens()).sum
    assert loss.item() == pytest.approx(1.5 * -(0.1 * math.log(0.25) + 0.9 * math.log(0.75)))


def test_asft_by_hand() -> None:
    """The base model says 1/2 and 1/2, the model 1/4 and 3/4: KL(base || model) = ln 2 - ln 3 / 2."""
    model, base = torch.tensor([[0.25, 0.75]]).log(), torch.zeros(1, 2)
    apart = Divergence(beta=0.0)(model, torch.tensor([1]), base)
    kl = math.log(2) - math.log(3) / 2
    assert float(apart) == pytest.approx(kl)
    loss, _, metrics = Anchored(0.3).loss(Outputs(likely(0.75, 0.75), apart.expand(2, 1)), None, two_tokens())
    assert loss.item() == pytest.approx(1.5 * (0.75 * math.log(4 / 3) + 0.3 * kl))
    assert metrics["kl"] == pytest.approx((1.5 * kl, 1.5))


def test_asft_with_no_pull_is_dft() -> None:
    batch, said = two_tokens(), Outputs(likely(0.5, 0.25), torch.ones(2, 1))
    assert torch.equal(Anchored(0.0).loss(said, None, batch).sum, DynamicFineTuning().loss(said, None, batch).sum)


def test_accuracy_by_hand() -> None:
    """Two of three tokens are the likeliest ones. Training does not count them, an evaluation does."""
    right = guessed(torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0, 0]), None)
    batch = collate([Rendered(np.array([5, 6, 7, 8]), (Run(1, 4, 1.0),))])
    assert MaximumLikelihood(accuracy=True).wants == Wants()
    told = MaximumLikelihood(accuracy=True).evaluation().loss(Outputs(likely(0.5, 0.5, 0.5), right), None, batch)
    assert told.metrics["accuracy"] == (2.0, 3)
    assert told.sum.item() == pytest.approx(3 * math.log(2))


# ---------------------------------------------------------------------------------------------------- independent code


def random_logits(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (1, 7, 131), labels of which some are left out, and which tokens are learned."""
    torch.manual_seed(3)
    logits = (torch.randn(1, 7, 131) * 3).to(dtype).float().requires_grad_()
    labels = torch.tensor([[-100, 5, -100, 130, 0, 77, -100]])
    return logits, labels, (labels[0, 1:] != -100).nonzero()[:, 0]


def of_row(labels: torch.Tensor) -> Batch:
    """The batch that these labels describe."""
    ids = np.where(labels[0] < 0, 9, labels[0].numpy())
    return collate([Rendered(ids, tuple(Run(int(at), int(at) + 1, 1.0) for at in (labels[0] >= 0).nonzero()))])


def by_objective(objective: Objective, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss per learned token, from the same logits."""
    batch = of_row(labels)
    mine = logits[0, batch.sources]
    logp = mine.log_softmax(dim=-1).gather(1, batch.targets[:, None])[:, 0]
    read = objective.wants.tokens
    loss, weight, _ = objective.loss(Outputs(logp, read(mine, batch.targets, None) if read else None), None, batch)
    return loss / weight


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_label_smoothing_against_transformers(dtype: torch.dtype) -> None:
    """`LabelSmoother` of transformers: the same loss and gradient."""
    logits, labels, _ = random_logits(dtype)
    expected = LabelSmoother(epsilon=0.1)({"logits": logits}, labels, shift_labels=True)
    assert_same(by_objective(LabelSmoothing(0.1), logits, labels), expected, logits)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_dft_and_eaft_against_cross_entropy(dtype: torch.dtype) -> None:
    """From PyTorch's cross entropy, the tokens' probabilities, and the entropy of the 20 likeliest."""
    logits, labels, learned = random_logits(dtype)
    targets = labels[0, 1:][learned]
    each = torch.nn.functional.cross_entropy(logits[0, learned], targets, reduction="none")
    chance = logits[0, learned].softmax(dim=-1)[torch.arange(4), targets].detach()
    assert_same(by_objective(DynamicFineTuning(), logits, labels), (chance * each).mean(), logits)
    top = logits[0, learned].detach().sort(descending=True).values[:, :20]
    unsure = (torch.distributions.Categorical(logits=top).entropy() / 3) ** 1.5
    assert_same(by_objective(EntropyAdaptive(1.5), logits, labels), (unsure * each).mean(), logits)


def test_dft_against_trl(tiny: Path, tmp_path: Path) -> None:
    """TRL's trainer with loss_type dft, on rows of different lengths: the same loss and gradient of every weight."""
    trl = pytest.importorskip("trl", reason="TRL is the oracle: pip install trl==1.16.0")
    from datasets import Dataset

    data = [{"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, 9]}, {"input_ids": [5, 6, 9],
                                                                             "labels": [-100, 6, 9]}]
    arguments = trl.SFTConfig(str(tmp_path), loss_type="dft", report_to="none", use_cpu=True, bf16=False,
                              per_device_train_batch_size=2, dataset_kwargs={"skip_prepare_dataset": True})
    trainer = trl.SFTTrainer(small_model(0), arguments, train_dataset=Dataset.from_list(data),
                             processing_class=load_tokenizer(tiny))
    expected = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    expected.backward()
    model = small_model(0)
    batch = collate([Rendered(np.array(row["input_ids"]), (Run(sum(label < 0 for label in row["labels"]),
                                                               len(row["labels"]), 1.0),)) for row in data])
    objective = DynamicFineTuning()
    loss, weight, _ = objective.loss(Policy(model).outputs(batch, objective.wants), None, batch)
    torch.testing.assert_close(loss / weight, expected, rtol=1e-5, atol=1e-6)
    (loss / weight).backward()
    for (name, mine), other in zip(model.named_parameters(), trainer.model.parameters(), strict=True):
        assert float((mine.grad - other.grad).norm()) <= 1e-4 * float(other.grad.norm()), name


def assert_same(found: torch.Tensor, expected: torch.Tensor, at: torch.Tensor) -> None:
    """Two losses and their gradients at `at` are equal to rounding."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(loss, at, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-7)


# ------------------------------------------------------------------------------- whole distributions, a few at a time


def small_model(seed: int, **more: Any) -> Any:
    torch.manual_seed(seed)
    config = AutoConfig.for_model("llama", vocab_size=131, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                  num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=0,
                                  bos_token_id=1, eos_token_id=2, **more)
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        weight.data.mul_(4)
    return model.eval()


def rows() -> list[Rendered]:
    """Rows of odd lengths, with 3 to 21 learned tokens."""
    draw = np.random.default_rng(0)
    return [Rendered(draw.integers(3, 131, length), (Run(length // 3, length, 1.0),)) for length in (4, 31, 17)]


READINGS: dict[str, tuple[Tokens, bool]] = {
    "likeliest": (guessed, False), "entropy": (entropy, False), "mean": (mean_logp, False),
    "KL to another model": (Divergence(0.0), True), "JSD with another model": (Divergence(0.3, 1.7), True),
}


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("frozen", (False, True))
@pytest.mark.parametrize("reading", READINGS)
def test_readings_are_those_of_plain_transformers(reading: str, frozen: bool, dtype: torch.dtype,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Read five rows of logits at a time, the last chunk not full: what whole logits of one row after another give, and
    the same gradient of every weight, whether the head is trained or not."""
    read, beside = READINGS[reading]
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 10 * 131 * (4 if dtype == torch.float32 else 2))
    model, other = small_model(0).to(dtype), Policy(small_model(1).to(dtype))
    model.lm_head.requires_grad_(not frozen)
    plain = deepcopy(model)
    wants = Wants(logp=False, tokens=read, beside=beside)
    found = gradients(Policy(model), wants, other)
    expected = gradients(Policy(plain, fast=False), wants, other)
    assert found.keys() == expected.keys() and (len(found) > 10 or reading in ("likeliest", "entropy"))
    rounding = 1e-4 if dtype == torch.float32 else 0.1  # two attention kernels in bfloat16
    for name, value in expected.items():
        apart = float((found[name] - value).float().norm())
        assert apart <= rounding * float(value.float().norm()) + 1e-6, name


def gradients(policy: Policy, wants: Wants, other: Policy) -> dict[str, torch.Tensor]:
    """What is read of each learned token, and the gradient of its sum (each token weighed differently) by weight."""
    batch = collate(rows())
    with torch.no_grad():
        beside = other.states(batch) if wants.beside else None
    said = policy.outputs(batch, wants, beside).tokens
    assert said.shape == (len(batch.targets), 1)
    if said.requires_grad:
        (said[:, 0] * torch.linspace(-1, 1, len(said))).sum().backward()
    return {"": said.detach(), **{name: weight.grad for name, weight in policy.causal.named_parameters()
                                  if weight.grad is not None}}


class Widest(TorchDispatchMode):
    """Notes the most rows that any tensor of the vocabulary's width has, the models' own weights left out."""

    def __init__(self, width: int, *models: torch.nn.Module):
        super().__init__()
        self.width, self.rows = width, 0
        self.weights = {weight.untyped_storage().data_ptr() for model in models for weight in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if (isinstance(one, torch.Tensor) and one.ndim and one.shape[-1] == self.width
                    and one.untyped_storage().data_ptr() not in self.weights):
                self.rows = max(self.rows, one.numel() // self.width)
        return out


@pytest.mark.parametrize("reading", READINGS)
def test_never_more_logits_than_a_chunk(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for 10 rows of logits, no tensor of 35 learned tokens x vocabulary comes to be, forward or backward."""
    read, beside = READINGS[reading]
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 10 * 131 * 4)
    model, other = small_model(0), small_model(1)
    model.lm_head.requires_grad_(False)
    with Widest(131, model, other) as widest:
        gradients(Policy(model), Wants(tokens=read, beside=beside), Policy(other))
    assert 5 <= widest.rows <= 10


def test_nothing_to_read() -> None:
    """A batch in which nothing is learned: no numbers, and no error."""
    batch = collate([Rendered(np.arange(3, 9), ())])
    assert Policy(small_model(0)).outputs(batch, Wants(tokens=entropy)).tokens.shape == (0, 1)


# ----------------------------------------------------------------------------------------------------- from the options


CHOICES: list[tuple[dict[str, object], type[Objective]]] = [
    ({}, MaximumLikelihood), ({"label_smoothing_factor": 0.1}, LabelSmoothing),
    ({"use_dft_loss": True}, DynamicFineTuning),
    ({"use_eaft_loss": True, "label_smoothing_factor": 0.1}, EntropyAdaptive),
    ({"use_asft_loss": True, "use_eaft_loss": True}, EntropyAdaptive),
    ({"use_asft_loss": True, "use_dft_loss": True}, DynamicFineTuning), ({"use_asft_loss": True}, Anchored),
]


@pytest.mark.parametrize(("chosen", "kind"), CHOICES)
def test_the_first_that_is_on_is_taken(chosen: dict[str, object], kind: type[Objective]) -> None:
    """Several losses at once: dft, then eaft, then asft, then label smoothing. All are measured by plain likelihood."""
    config, _ = read_config([f"--{name}={value}" for name, value in chosen.items()])
    objective = OBJECTIVES["sft"](config)
    assert type(objective) is kind
    assert type(objective.evaluation()) is MaximumLikelihood and objective.evaluation().perplexity


# -------------------------------------------------------------------------------------------------------- end to end


VARIANTS: dict[str, dict[str, object]] = {
    "dft": {"use_dft_loss": True}, "eaft": {"use_eaft_loss": True}, "asft": {"use_asft_loss": True},
    "smoothing": {"label_smoothing_factor": 0.1}, "documents": {"stage": "pt", "cutoff_len": 40},
}
METHODS: dict[str, dict[str, object]] = {
    "lora": {"finetuning_type": "lora", "lora_rank": 4, "learning_rate": 3e-3},
    "full": {"finetuning_type": "full", "learning_rate": 2e-4},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "learning_rate": 1e-3},
}
ONE_BATCH: dict[str, object] = {"num_train_epochs": 4, "per_device_train_batch_size": 8, "plot_loss": "false",
                                "gradient_accumulation_steps": 1}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_loss_trains_with_each_method(variant: str, method: str, tiny: Path, tmp_path: Path) -> None:
    """The answers (or documents) get likelier in four steps: their log-probability, or with DFT their probability."""
    data = write_rows(tmp_path / "rows.json", 4)
    if variant == "documents":
        data.write_text("\n".join(json.dumps({"text": f"Number {n} comes before number {n + 1}. " * (1 + n % 3)})
                                  for n in range(8)), encoding="utf-8")
    run(tmp_path / "out", tiny, data, **{**ONE_BATCH, **VARIANTS[variant], **METHODS[method]})
    steps = events(tmp_path / "out")
    assert len(steps) == 4
    if "probability" in steps[0]:
        assert steps[-1]["probability"] > 2 * steps[0]["probability"]
    else:
        first, last = (step.get("nll", step["loss"]) for step in (steps[0], steps[-1]))
        assert last < 0.9 * first
    if variant == "asft":  # the model starts as the base model, and then moves away from it
        assert steps[0]["kl"] == pytest.approx(0, abs=1e-6) and steps[-1]["kl"] > 1e-3


def test_held_out_rows_are_measured_alike(tiny: Path, tmp_path: Path) -> None:
    """Whatever the loss, held-out rows tell plain cross-entropy, perplexity, and accuracy if it is asked for: with a
    rate of 0 nothing is learned, and all losses tell the same."""
    data, held = write_rows(tmp_path / "rows.json", 4), write_rows(tmp_path / "held.json", 3)
    told = []
    for variant in ({}, VARIANTS["dft"], VARIANTS["asft"]):
        run(tmp_path / "out", tiny, data, eval_dataset=held, compute_accuracy=True, overwrite_output_dir=True,
            **{**ONE_BATCH, **variant, "max_steps": 1, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 1})
        results = json.loads((tmp_path / "out" / "all_results.json").read_text(encoding="utf-8"))
        assert results["eval_perplexity"] == pytest.approx(math.exp(results["eval_loss"]))
        assert 0 <= results["eval_accuracy"] < 1
        told.append((results["eval_loss"], results["eval_accuracy"]))
    assert told[1] == pytest.approx(told[0]) and told[2] == pytest.approx(told[0])


def test_documents_of_a_stream(tiny: Path, tmp_path: Path) -> None:
    """Pre-training reads documents while it trains, and tells a perplexity of others."""
    data, held = tmp_path / "texts.jsonl", tmp_path / "held.jsonl"
    for path, count in ((data, 30), (held, 4)):
        path.write_text("".join(json.dumps({"text": f"Number {n} comes before number {n + 1}."}) + "\n"
                                for n in range(count)), encoding="utf-8")
    run(tmp_path / "out", tiny, data, **{**ONE_BATCH, "num_train_epochs": 1, "max_steps": 4, "learning_rate": 3e-3},
        stage="pt", streaming=True, eval_dataset=held, eval_strategy="steps", eval_steps=2)
    first, last = events(tmp_path / "out", "eval")
    assert last["eval_perplexity"] < 0.9 * first["eval_perplexity"]
    assert last["eval_perplexity"] == pytest.approx(math.exp(last["eval_loss"]))
