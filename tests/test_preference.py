"""Learning from pairs: every loss by hand arithmetic, what the stage makes of several, and real runs on a two-layer cut
of the real model."""

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
from truetune.findings import Problem
from truetune.model.load import load_model
from truetune.model.policy import Policy
from truetune.objectives import OBJECTIVES
from truetune.objectives.objective import Outputs
from truetune.objectives.pairs import COMPUTE, Pairs
from truetune.objectives.preference import Preference, weigh_losses
from truetune.options.preference import PAIR_LOSSES, PreferenceOptions
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.train import train

# ---------------------------------------------------------------------------------------------------------------------
# Every loss by hand


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log_odds(logp: float) -> float:
    return logp - math.log(1 - math.exp(logp))


PAIRS = Pairs(*(torch.tensor(numbers) for numbers in (
    [-4.0, -9.0], [-6.0, -8.0],  # what the policy says of the chosen and of the rejected answer
    [-5.0, -8.0], [-5.0, -9.5],  # what the reference says
    [2.0, 3.0], [4.0, 2.0])),  # their lengths
    baseline=0.1)
"""Two pairs. Of the first log pi / ref is 1 for the chosen answer, -1 for the rejected one: it leads by 2. Of the
second -1 and 1.5: it is behind by 2.5."""
BETA, EPSILON, GAMMA, TAU = 0.5, 0.1, 0.3, 0.25
OPTIONS = PreferenceOptions.model_construct(
    pref_beta=BETA, dpo_label_smoothing=EPSILON, simpo_gamma=GAMMA, discopop_tau=TAU)
H = (1.0, -1.25)
"""beta x lead"""
EVERY: dict[str, list[float]] = {
    "sigmoid": [-0.9 * log_sigmoid(h) - 0.1 * log_sigmoid(-h) for h in H],
    "hinge": [0.0, 2.25],
    # means: the first leads by 1 / 2 + 1 / 4, the second by -1 / 3 - 1.5 / 2; the aim is 1 / (2 x 0.5) = 1
    "ipo": [(0.75 - 1) ** 2, (-13 / 12 - 1) ** 2],
    # z of chosen: max(0, (1 - 1) / 2) = 0; of rejected: max(0, (-1 + 1.5) / 2) = 0.25
    "kto_pair": [((1 - sigma(0.5 * (1 - 0.25))) + (1 - sigma(0.5 * (0 + 1)))) / 2,
                 ((1 - sigma(0.5 * (-1 - 0.25))) + (1 - sigma(0.5 * (0 - 1.5)))) / 2],
    "orpo": [2.0 - 0.5 * log_sigmoid(log_odds(-2) - log_odds(-1.5)),
             3.0 - 0.5 * log_sigmoid(log_odds(-3) - log_odds(-4))],
    "simpo": [-log_sigmoid(0.5 * (-2 + 1.5) - 0.3), -log_sigmoid(0.5 * (-3 + 4) - 0.3)],
    "robust": [(-0.9 * log_sigmoid(h) + 0.1 * log_sigmoid(-h)) / 0.8 for h in H],
    "exo": [sigma(h) * math.log(sigma(h) / 0.9) + sigma(-h) * math.log(sigma(-h) / 0.1) for h in H],
    "nca": [-log_sigmoid(0.5) - log_sigmoid(-0.5) / 2 - log_sigmoid(0.5) / 2,
            -log_sigmoid(-0.5) - log_sigmoid(0.5) / 2 - log_sigmoid(-0.75) / 2],
    "bco_pair": [-log_sigmoid(0.5 - 0.1) - log_sigmoid(0.5 + 0.1), -log_sigmoid(-0.5 - 0.1) - log_sigmoid(-0.75 + 0.1)],
    "sppo": [(1 - 1) ** 2 + (-1 + 1) ** 2, (-1 - 1) ** 2 + (1.5 + 1) ** 2],
    # sorted, the policy prefers the chosen answer by -1 and 2, the reference by 0 and 1.5
    "aot": [-0.9 * log_sigmoid(h) - 0.1 * log_sigmoid(-h) for h in (0.5 * (-1 - 0), 0.5 * (2 - 1.5))],
    "apo_zero": [1 - sigma(0.5) + sigma(-0.5), 1 - sigma(-0.5) + sigma(0.75)],
    "apo_down": [sigma(0.5) + 1 - sigma(1), sigma(-0.5) + 1 - sigma(-1.25)],
    "cpo": [-0.9 * log_sigmoid(h) - 0.1 * log_sigmoid(-h) + mean for h, mean in ((1.0, 2.0), (-0.5, 3.0))],
    "discopop": [(1 - sigma(h / 0.25)) * -log_sigmoid(h) + sigma(h / 0.25) * math.exp(-h) for h in H],
    "sft": [2.0, 3.0],
}


def test_every_loss_has_facts_and_an_example() -> None:
    assert PAIR_LOSSES.keys() == COMPUTE.keys() == EVERY.keys()


@pytest.mark.parametrize("name", EVERY)
def test_a_loss_by_hand(name: str) -> None:
    pairs = PAIRS.mean() if PAIR_LOSSES[name].mean else PAIRS
    assert COMPUTE[name](pairs, OPTIONS).tolist() == pytest.approx(EVERY[name], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_the_facts_of_a_loss_are_true(name: str) -> None:
    """What it is said to read changes it, and nothing else does: another reference, other labels' certainty, another
    baseline, and other pairs in the batch."""
    def loss(pairs: Pairs = PAIRS, options: PreferenceOptions = OPTIONS) -> torch.Tensor:
        return COMPUTE[name](pairs, options)

    def change(**values: Any) -> Pairs:
        return Pairs(**{**vars(PAIRS), **values})

    facts, columns = PAIR_LOSSES[name], list(vars(PAIRS).values())[:6]
    first = Pairs(*(numbers[:1] for numbers in columns), baseline=0.1)
    moved = change(reference_w=PAIRS.reference_w + torch.tensor([0.5, -0.7]))
    assert facts.reference != torch.equal(loss(moved), loss())
    certain = OPTIONS.model_copy(update={"dpo_label_smoothing": 0.2})
    assert facts.smoothing != torch.equal(loss(options=certain), loss())
    assert facts.baseline != torch.equal(loss(change(baseline=0.4)), loss())
    assert facts.among != torch.allclose(loss(first), loss()[:1])


def test_odds_of_a_certain_answer_are_finite() -> None:
    """Where the model gives an answer probability 1, 1 - P is 0: neither loss nor gradient may become infinite."""
    sure = torch.zeros(1, requires_grad=True)
    pairs = Pairs(sure, torch.tensor([-2.0]), torch.zeros(1), torch.zeros(1), torch.ones(1), torch.ones(1))
    loss = COMPUTE["orpo"](pairs, OPTIONS)
    loss.sum().backward()
    assert loss.isfinite().all() and sure.grad is not None and sure.grad.isfinite().all()


# ---------------------------------------------------------------------------------------------------------------------
# The stage


def two_pairs() -> Batch:
    """Answers of 2 and 4, and of 3 and 2 tokens."""
    def row(length: int, place: int) -> Rendered:
        return Rendered(torch.arange(2 + length).numpy(), (Run(2, 2 + length, 1.0),), place=Place("row ", place))

    return collate([row(2, 1), row(4, 1), row(3, 2), row(2, 2)])


def ragged_pairs(count: int = 3, seed: int = 0) -> Batch:
    """Pairs of random tokens; prompts and answers differ in length."""
    draw, rows = np.random.default_rng(seed), []
    for place in range(count):
        prompt = draw.integers(3, 900, 2 + place)
        for length in draw.integers(2, 9, 2):
            ids = np.concatenate([prompt, draw.integers(3, 900, length)])
            rows.append(Rendered(ids, (Run(len(prompt), len(ids), 1.0),), place=Place("row ", place)))
    return collate(rows)


POLICY = torch.tensor([-1.0, -3, -1, -1, -2, -2, -4, -3, -2, -5, -3])
"""Sums -4 and -6, -9 and -8, as in `PAIRS`."""
REFERENCE = torch.tensor([-2.5, -2.5, -1, -1, -2, -1, -3, -3, -2, -5, -4.5])


def objective(**values: object) -> Preference:
    config, findings = read_config(options(**{"pref_beta": BETA, **values}))
    assert not findings
    made = OBJECTIVES["dpo"](config)
    assert isinstance(made, Preference)
    return made


def loss_of(made: Preference, policy: torch.Tensor = POLICY) -> float:
    loss, weight, _ = made.loss(Outputs(policy), REFERENCE if made.reference else None, two_pairs())
    assert weight == 2
    return float(loss)


@pytest.mark.parametrize(("given", "expected"), (
    ({}, sum(-log_sigmoid(h) for h in H)),
    ({"dpo_label_smoothing": 0.1}, sum(EVERY["sigmoid"])),
    ({"pref_loss": "ipo"}, sum(EVERY["ipo"])),
    ({"pref_loss": "orpo"}, sum(EVERY["orpo"])),
    ({"pref_loss": "simpo", "simpo_gamma": 0.3}, sum(EVERY["simpo"])),
    ({"pref_loss": "hinge,sppo"}, sum(EVERY["hinge"]) + sum(EVERY["sppo"])),
    ({"pref_loss": "hinge, ipo,sft", "pref_loss_weights": "0.5,2,0.1"},
     0.5 * 2.25 + 2 * sum(EVERY["ipo"]) + 0.1 * 5),
    ({"pref_loss": "hinge", "pref_ftx": 0.2}, 2.25 + 0.2 * 5),
    ({"pref_loss": "sppo_hard"}, sum(EVERY["sppo"])),  # as TRL calls it
))
def test_losses_are_weighed_and_added(given: dict[str, object], expected: float) -> None:
    assert loss_of(objective(**given)) == pytest.approx(expected, rel=1e-5)


def test_bco_is_mixed_in_with_the_mean_of_all_rewards_seen() -> None:
    """The rewards of the batch are 0.5, -0.5 (chosen) and -0.5, 0.75 (rejected): delta is their mean, 0.0625. Of a
    batch without preferences after it all are 0, and delta is half of that."""
    made = objective(pref_loss="hinge", pref_bco_weight=0.5)
    assert weigh_losses(made.options) == {"hinge": 1 / 1.5, "bco_pair": 0.5 / 1.5}
    delta = 0.0625
    bco = -log_sigmoid(0.5 - delta) - log_sigmoid(0.5 + delta) - log_sigmoid(-0.5 - delta) - log_sigmoid(-0.75 + delta)
    assert loss_of(made) == pytest.approx((2.25 + 0.5 * bco) / 1.5, rel=1e-5)
    bco = 2 * (-log_sigmoid(-delta / 2) - log_sigmoid(delta / 2))
    assert loss_of(made, REFERENCE) == pytest.approx((2.0 + 0.5 * bco) / 1.5, rel=1e-5)


def test_the_running_mean_is_carried_and_evaluation_does_not_move_it() -> None:
    made = objective(pref_loss="bco_pair")
    loss_of(made)
    state = made.state()
    held_out = made.evaluation()
    again = loss_of(held_out)
    assert made.state() == held_out.state() == state != objective().state()
    other = objective(pref_loss="bco_pair")
    other.load_state(json.loads(json.dumps(state)))
    assert loss_of(other.evaluation()) == again


def test_tokens_past_the_shorter_answer_count_less() -> None:
    """LD-DPO: of the first pair the rejected answer is 2 tokens longer (-2 - 2 of its -6), of the second the chosen one
    by 1 (-2 of -9). With alpha 0.5 half of that is taken back, from what the policy says alone."""
    lead = (-4 + 5) - (-4 + 5), (-8 + 8) - (-8 + 9.5)
    assert loss_of(objective(ld_alpha=0.5)) == pytest.approx(sum(-log_sigmoid(BETA * each) for each in lead), rel=1e-5)
    assert loss_of(objective(ld_alpha=1)) == loss_of(objective())


def test_metrics() -> None:
    """Sums over pairs and the number of pairs; as the first loss sees them: of means for ipo, of the policy alone for
    orpo, which tells the two losses it is made of."""
    def metrics(loss: str) -> dict[str, float]:
        made = objective(pref_loss=loss)
        told = made.loss(Outputs(POLICY), REFERENCE if made.reference else None, two_pairs()).metrics
        assert all(count == 2 for _, count in told.values())
        return {name: total for name, (total, _) in told.items()}

    assert metrics("sigmoid") == pytest.approx({
        "rewards/chosen": 0.5 - 0.5, "rewards/rejected": -0.5 + 0.75, "rewards/accuracies": 1, "rewards/margins": -0.25,
        "logps/chosen": -13, "logps/rejected": -14})
    assert metrics("ipo")["rewards/chosen"] == pytest.approx(BETA * (1 / 2 - 1 / 3))
    orpo = metrics("orpo,sigmoid")
    assert orpo["rewards/chosen"] == pytest.approx(BETA * (-2 - 3)) and orpo["sft_loss"] == 5
    assert orpo["sft_loss"] + BETA * orpo["odds_ratio_loss"] == pytest.approx(sum(EVERY["orpo"]))


@pytest.mark.parametrize(("given", "needed"), (
    ({}, True), ({"pref_loss": "orpo"}, False), ({"pref_loss": "simpo", "pref_ftx": 1}, False),
    ({"pref_loss": "cpo,sft"}, False), ({"pref_loss": "orpo,hinge"}, True),
    ({"pref_loss": "orpo", "pref_bco_weight": 1}, True),
    ({"pref_loss": "orpo,hinge", "pref_loss_weights": "1,0"}, False),
))
def test_a_reference_is_there_where_a_loss_needs_it(given: dict[str, object], needed: bool) -> None:
    assert objective(**given).reference == needed


# ---------------------------------------------------------------------------------------------------------------------
# Real runs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 pairs of different lengths. The chosen answer is plain, the rejected one shouts."""
    file = tmp_path_factory.mktemp("data") / "pairs.json"
    rows = [{"instruction": f"What is {n} plus {n}?", "input": "",
             "chosen": f"The sum is {2 * n}." + " I hope it helps." * (n % 2),
             "rejected": f"NO IDEA! {'WHY DO YOU ASK? ' * (n % 3)}"} for n in range(8)]
    file.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return file


def run(folder: Path, model: Path, data: Path, **more: object) -> list[dict[str, Any]]:
    """Train in this process; returns the steps."""
    config, findings = read_config(options(**{
        "stage": "dpo", "model_name_or_path": model, "dataset": data, "output_dir": folder, "bf16": "false",
        "logging_steps": 1, "save_strategy": "no", "learning_rate": 1e-3, "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 4, "num_train_epochs": 3, "use_cpu": True, "plot_loss": "false", **more}))
    assert not findings
    train(config, Terminal(file=io.StringIO(), width=200), checked=False)
    return events(folder)


METHODS: dict[str, dict[str, object]] = {
    "lora": {"lora_rank": 4}, "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
}


@pytest.mark.parametrize("method", METHODS)
def test_dpo_begins_at_ln_2_and_learns_the_preference(method: str, tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """Before the first step policy and reference are the same model, so that the first loss is ln 2 and no answer is
    preferred (invariant I5); then the loss falls and chosen answers lead."""
    steps = run(tmp_path, tiny, pairs, **METHODS[method])
    first, last = steps[0], steps[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert last["loss"] < 0.5 and last["rewards/margins"] > 0.5 and last["rewards/accuracies"] == 1
    assert last["rewards/margins"] == pytest.approx(last["rewards/chosen"] - last["rewards/rejected"], rel=1e-5)
    assert (tmp_path / "reference").is_dir() == (method != "lora")  # an adapter is switched off instead


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_every_loss_learns(loss: str, tiny: Path) -> None:
    """In two steps of gradient descent, on the last layer, the loss falls and the lead of the chosen answers grows.
    (discopop's grows only where it is above 0.05 already: below, the loss has a valley.)"""
    model = load_model(tiny, torch.float32, torch.device("cpu"))
    model.requires_grad_(False)
    trained = list(model.model.layers[-1].requires_grad_(True).parameters())
    policy, batch = Policy(model), ragged_pairs()
    with torch.no_grad():
        reference = policy.log_probabilities(batch)
    made = objective(pref_loss=loss, dpo_label_smoothing=0.01, pref_beta=0.1)
    optimizer, losses, leads = torch.optim.Adam(trained, 2e-5), [], []
    for _ in range(3):
        total, _, metrics = made.loss(Outputs(policy.log_probabilities(batch)), reference, batch)
        losses.append(float(total.detach()))
        leads.append(metrics["rewards/margins"][0])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert leads[-1] > leads[0] or loss == "discopop"


def test_several_losses_learn_and_held_out_pairs_are_measured(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """MPO: two preference losses and the likelihood of the chosen answers."""
    steps = run(tmp_path, tiny, pairs, pref_loss="sigmoid,bco_pair,sft", pref_loss_weights="0.8,0.2,1", lora_rank=4,
                val_size=2, per_device_train_batch_size=3, eval_strategy="epoch")
    assert steps[-1]["loss"] < steps[0]["loss"] - 1 and steps[-1]["rewards/margins"] > 0.5
    first, *_, last = events(tmp_path, "eval")
    assert last["eval_loss"] < first["eval_loss"] and last["eval_rewards/margins"] > first["eval_rewards/margins"]


def test_grouping_into_batches_changes_nothing(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """8 x 1 and 4 x 2 pairs a step: the same losses and gradients to rounding (invariant I2)."""
    one, other = (run(tmp_path / str(size), tiny, pairs, per_device_train_batch_size=size, lora_rank=4, ld_alpha=0.5,
                      pref_loss="sigmoid,ipo,sft", gradient_accumulation_steps=8 // size, num_train_epochs=2)
                  for size in (8, 4))
    for name in ("loss", "grad_norm", "rewards/margins"):
        assert [step[name] for step in other] == pytest.approx([step[name] for step in one], rel=1e-3, abs=1e-5), name


def test_a_reference_on_disk_is_the_live_one(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """Adapters switched off with every batch, and log-probabilities kept before the first step: the same losses."""
    live, kept = (run(tmp_path / keeps, tiny, pairs, lora_rank=4, num_train_epochs=2, precompute_ref_log_probs=keeps)
                  for keeps in ("false", "true"))
    assert not (tmp_path / "false" / "reference").is_dir() and (tmp_path / "true" / "reference").is_dir()
    for name in ("loss", "rewards/chosen", "rewards/rejected"):
        assert [step[name] for step in kept] == pytest.approx([step[name] for step in live], rel=1e-4, abs=1e-5)


def test_a_resumed_run_goes_on_with_the_running_mean(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """What BCO knows of answers is part of a checkpoint: a resumed run repeats the steps of one that was never
    stopped, to the last bit."""
    given: dict[str, object] = {"pref_loss": "bco_pair", "lora_rank": 4, "num_train_epochs": 2,
                                "save_strategy": "steps", "save_steps": 2}
    whole = run(tmp_path, tiny, pairs, **given)
    resumed = run(tmp_path, tiny, pairs, **given, resume_from_checkpoint=tmp_path / "checkpoint-2")
    assert [step["loss"] for step in resumed] == [step["loss"] for step in whole] and len(whole) == 4


def test_a_pair_that_says_the_same_twice_is_refused(tiny: Path, tmp_path: Path) -> None:
    """By its line, before anything is loaded."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"instruction": "Hello?", "chosen": "Yes.", "rejected": answer})
                              for answer in ("No.", "Yes.")), encoding="utf-8")
    with pytest.raises(Problem, match="chosen and rejected are the same"):
        run(tmp_path / "run", tiny, file)
