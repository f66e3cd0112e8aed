"""Losses on pairs and of judged answers beside TRL's trainers, an independent implementation: its own forward pass on
padded batches and its own loss, on a two-layer cut of the real model, in two precisions.

What TRL 1.16 has no loss for (kto_pair), or has otherwise (label smoothing of DPO, the running mean of BCO, the
reference in LD-DPO), is tested by hand arithmetic alone.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import options
from torch.nn.utils.rnn import pad_sequence

from truetune.data.batches import collate
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.data.rows import Mismatched
from truetune.model.load import load_model
from truetune.model.policy import Policy
from truetune.objectives import OBJECTIVES
from truetune.objectives.objective import Outputs, per_row
from truetune.options.read import read_config

trl = pytest.importorskip("trl", reason="the oracle, trl, is not installed: pip install trl")
PLAIN: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": [], "gradient_checkpointing": False}
PRECISIONS = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""And how far apart a loss may be, as a share of it (of 1 at least). In bfloat16 two ways to the same number differ by
0.03 nat a token."""


@dataclass(frozen=True)
class Two:
    """A model and the reference it has come away from."""

    policy: Any
    reference: Any
    said: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def logp(self, rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(N,) log-probabilities of each, computed once for the same rows."""
        key = tuple(int(number) for row in rows for number in row.ids)
        if key not in self.said:
            with torch.no_grad():
                policy, reference = (Policy(deepcopy(model)).log_probabilities(collate(rows))
                                     for model in (self.policy, self.reference))
            self.said[key] = policy, reference
        return self.said[key]


@pytest.fixture(scope="module", params=PRECISIONS, ids=str)
def two(request: pytest.FixtureRequest, tiny: Path) -> Two:
    reference = load_model(tiny, torch.float32, torch.device("cpu")).eval()
    policy, noise = deepcopy(reference), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.model.layers.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise) * 0.1 * weight.std(correction=0))
    return Two(policy.to(request.param), reference.to(request.param))


def rows_of(prompts: list[int], answers: list[tuple[int, ...]], labels: tuple[bool | None, ...] = (None,)) -> Any:
    """Rows of random tokens: prompts of these lengths, to each answers of those."""
    draw, rows = np.random.default_rng(1), []
    for place, (length, lengths) in enumerate(zip(prompts, answers, strict=True)):
        prompt = draw.integers(3, 9000, length)
        rows += [Rendered(np.concatenate([prompt, draw.integers(3, 9000, answer)]),
                          (Run(length, length + answer, 1.0),), place=Place("row ", place),
                          label=labels[place % len(labels)]) for answer in lengths]
    return rows


ROWS = rows_of([3, 1, 6], [(2, 9), (7, 7), (5, 1)])
"""Three pairs of odd shapes."""


def padded(rows: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """Rows as TRL has them: filled up on the right."""
    def fill(arrays: list[np.ndarray]) -> torch.Tensor:
        return pad_sequence([torch.from_numpy(np.asarray(array, dtype=np.int64)) for array in arrays], batch_first=True)

    return {f"{prefix}input_ids": fill([row.ids for row in rows]),
            f"{prefix}attention_mask": fill([np.ones(len(row)) for row in rows]),
            f"{prefix}completion_mask": fill([row.weights for row in rows])}


def ours(stage: str, two: Two, rows: Any, **given: object) -> tuple[float, dict[str, float]]:
    """Mean loss and metrics of our objective."""
    config, findings = read_config(options(stage=stage, **given))
    assert not findings
    objective, batch = OBJECTIVES[stage](config), collate(rows)
    policy, reference = two.logp(rows)
    if objective.mismatched:
        mixed = list(Mismatched(rows, seed=0))
        batch = batch.knowing(**objective.known(*(per_row(logp, collate(mixed)) for logp in two.logp(mixed))))
    loss, weight, metrics = objective.loss(Outputs(policy), reference if objective.reference else None, batch)
    return float(loss) / weight, {name: total / count for name, (total, count) in metrics.items() if count}


def allowed(two: Two) -> float:
    return PRECISIONS[two.policy.dtype]


@pytest.fixture(scope="module")
def dpo(two: Two, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer, around copies of the two models."""
    return _trainer(trl.DPOTrainer, trl.DPOConfig, two, tiny, tmp_path_factory,
                    [{"prompt": "Hi", "chosen": " there", "rejected": " no"}])


def _trainer(kind: Any, arguments: Any, two: Two, tiny: Path, folders: pytest.TempPathFactory, rows: Any) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer

    return kind(model=deepcopy(two.policy), args=arguments(str(folders.mktemp("trl")), **PLAIN),
                train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(tiny),
                **({"ref_model": deepcopy(two.reference)} if "ref_model" in signature(kind).parameters else {}))


SAME = {  # ours: TRL's, and options
    "sigmoid": ("sigmoid", {}), "hinge": ("hinge", {}), "ipo": ("ipo", {}),
    "robust": ("robust", {"dpo_label_smoothing": 0.1}), "exo": ("exo_pair", {"dpo_label_smoothing": 0.01}),
    "nca": ("nca_pair", {}), "sppo": ("sppo_hard", {"pref_beta": 0.5}),
    "aot": ("aot", {"dpo_label_smoothing": 0.1}), "apo_zero": ("apo_zero", {}), "apo_down": ("apo_down", {}),
    "discopop": ("discopop", {}),
}


def theirs(dpo: Any, rows: Any, losses: list[str], **given: float) -> float:
    dpo.loss_types, dpo.loss_weights = losses, [1.0] * len(losses)
    dpo.beta, dpo.label_smoothing = given.get("pref_beta", 0.1), given.get("dpo_label_smoothing", 0.0)
    with torch.no_grad():
        return float(dpo.compute_loss(dpo.model, padded([*rows[::2], *rows[1::2]])))


@pytest.mark.parametrize("name", SAME)
def test_a_loss_is_that_of_trl(name: str, two: Two, dpo: Any) -> None:
    other, given = SAME[name]
    mine, _ = ours("dpo", two, ROWS, pref_loss=name, **given)
    expected = theirs(dpo, ROWS, [other], **given)
    assert mine == pytest.approx(expected, rel=allowed(two), abs=allowed(two))


def test_several_losses_are_those_of_trl(two: Two, dpo: Any) -> None:
    mine, _ = ours("dpo", two, ROWS, pref_loss="sigmoid,ipo,apo_down")
    assert mine == pytest.approx(theirs(dpo, ROWS, ["sigmoid", "ipo", "apo_down"]), rel=allowed(two))


def test_metrics_are_those_of_trl(two: Two, dpo: Any) -> None:
    dpo._metrics["train"].clear()
    dpo.model.train()
    theirs(dpo, ROWS, ["sigmoid"])
    expected = {name: values[-1] for name, values in dpo._metrics["train"].items()
                if name.startswith(("rewards/", "logps/"))}
    assert len(expected) == 6
    if two.policy.dtype is torch.bfloat16:
        del expected["rewards/accuracies"]  # a pair whose answers are nearly level falls to either side
    told = {name: value for name, value in ours("dpo", two, ROWS)[1].items() if name in expected}
    assert told == pytest.approx(expected, rel=allowed(two), abs=2 * allowed(two))


@pytest.mark.parametrize(("name", "given", "set"), (
    ("cpo", {}, {"loss_type": "sigmoid", "cpo_alpha": 1.0}),
    ("cpo", {"dpo_label_smoothing": 0.2}, {"loss_type": "sigmoid", "cpo_alpha": 1.0, "label_smoothing": 0.2}),
    ("simpo", {"pref_beta": 0.5, "simpo_gamma": 0.7}, {"loss_type": "simpo", "simpo_gamma": 0.7, "beta": 0.5}),
), ids=("cpo", "cpo, smoothed", "simpo"))
def test_a_loss_without_reference_is_that_of_trl(name: str, given: dict[str, float], set: dict[str, Any], two: Two,
                                                 cpo: Any) -> None:
    """One pair at a time, since TRL takes the likelihood of chosen answers over all tokens of a batch."""
    for attribute, value in {"cpo_alpha": 0.0, "label_smoothing": 0.0, "beta": 0.1, **set}.items():
        setattr(cpo, attribute, value)
    for chosen, rejected in zip(ROWS[::2], ROWS[1::2], strict=True):
        batch: dict[str, Any] = {"prompt_input_ids": torch.from_numpy(chosen.ids[:1])[None]}
        for side, row in (("chosen", chosen), ("rejected", rejected)):
            ids = torch.from_numpy(row.ids)[None]
            batch |= {f"{side}_input_ids": ids, f"{side}_attention_mask": torch.ones_like(ids),
                      f"{side}_labels": torch.where(torch.from_numpy(row.weights)[None] > 0, ids, -100)}
        with torch.no_grad():
            expected, _ = cpo.get_batch_loss_metrics(cpo.model, batch)
        mine, _ = ours("dpo", two, [chosen, rejected], pref_loss=name, **given)
        assert mine == pytest.approx(float(expected), rel=allowed(two), abs=allowed(two))


@pytest.fixture(scope="module")
def cpo(two: Two, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return _trainer(CPOTrainer, CPOConfig, two, tiny, tmp_path_factory,
                    [{"prompt": "Hi", "chosen": " there", "rejected": " no"}])


def test_the_odds_ratio_is_that_of_trl(two: Two, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """ORPO's second part. (TRL's first part learns the prompt too; ours, like LLaMA-Factory's, the answer.)"""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    trainer = _trainer(ORPOTrainer, ORPOConfig, two, tiny, tmp_path_factory,
                       [{"prompt": "Hi", "chosen": " there", "rejected": " no"}])
    with torch.no_grad():
        means = [trainer.get_batch_logps(trainer.model(input_ids=ids).logits.float(), labels, average_log_prob=True)
                 for ids, labels in ((torch.from_numpy(row.ids)[None],
                                      torch.where(torch.from_numpy(row.weights)[None] > 0,
                                                  torch.from_numpy(row.ids)[None], -100)) for row in ROWS)]
    losses, chosen, rejected, *_ = trainer.odds_ratio_loss(torch.cat(means[::2]), torch.cat(means[1::2]))
    _, told = ours("dpo", two, ROWS, pref_loss="orpo")
    assert 0.1 * told["odds_ratio_loss"] == pytest.approx(-float(losses.mean()), rel=allowed(two))
    assert told["rewards/chosen"] == pytest.approx(float(chosen.mean()), rel=allowed(two))
    assert told["rewards/rejected"] == pytest.approx(float(rejected.mean()), rel=allowed(two))


JUDGED = rows_of([3, 1, 6, 2, 4], [(2,), (7,), (5,), (1,), (3,)], labels=(True, False))


def test_kto_is_that_of_trl(two: Two, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Loss and metrics, with the divergence measured on the same mismatched answers."""
    trainer = _trainer(trl.KTOTrainer, partial(trl.KTOConfig, per_device_train_batch_size=2, beta=0.3), two, tiny,
                       tmp_path_factory, [{"prompt": "Hi", "completion": " there", "label": True},
                                          {"prompt": "Ho", "completion": " no", "label": False}])
    batch = {**padded(JUDGED), **padded(list(Mismatched(JUDGED, seed=0)), "KL_"),
             "label": torch.tensor([row.label for row in JUDGED])}
    trainer.model.train()
    for good, bad in ((1.0, 1.0), (1.5, 0.6)):
        trainer.desirable_weight, trainer.undesirable_weight = good, bad
        with torch.no_grad():
            expected = float(trainer.compute_loss(trainer.model, batch))
        mine, told = ours("kto", two, JUDGED, kto_chosen_weight=good, kto_rejected_weight=bad, pref_beta=0.3)
        assert mine == pytest.approx(expected, rel=allowed(two))
        metrics = {name: trainer._metrics["train"][name][-1] for name in told}
        assert told == pytest.approx(metrics, rel=allowed(two), abs=2 * allowed(two))
