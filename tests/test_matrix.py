"""Every way to tune, over every way to hold the base, for every stage: made from the three tables.

What cannot be had is refused by a rule that says so. Of what can, every pair of a method and a quantiser is trained for
three steps, the stages taking turns, and read back from the disk.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA, events, options

from truetune.objectives import OBJECTIVES
from truetune.options.kinds import KINDS
from truetune.options.quantizers import QUANTIZERS, REFUSED
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.rules import apply_rules
from truetune.train import train

STAGES: dict[str, dict[str, Any]] = {
    "pt": {"dataset": "sample_text"}, "sft": {"dataset": "identity", "identity_name": "A", "identity_author": "B"},
    "rm": {"dataset": "plain_pairs"}, "dpo": {"dataset": "plain_pairs"},
    "kto": {"dataset": "plain_judged", "per_device_train_batch_size": 4},
    "ppo": {"dataset": "sums", "reward_funcs": "exact_number", "max_completion_length": 4},
    "grpo": {"dataset": "sums", "reward_funcs": "exact_number", "max_completion_length": 4, "num_generations": 2},
    "distill": {"dataset": "identity", "identity_name": "A", "identity_author": "B", "kd_ratio": 0.5},
}
"""By stage, rows that it can learn from."""
ALONE = ("pt", "sft", "rm", "distill")
"""Stages whose loss is of the model alone: what was written can be measured again."""
HELD: dict[str, dict[str, Any]] = {"": {}} | {
    f"{name}{bits}": {"quantization_method": name, "quantization_bit": bits}
    for name, bits in (("bnb", 4), ("bnb", 8), ("hqq", 4), ("torchao", 8))}
"""Ways to hold the base, by name; "": as it is. hqq's other bits are the same layer."""
SMALL: dict[str, dict[str, Any]] = {
    "adalora": {"lora_rank": 4, "adalora_init_r": 6}, "vera": {"lora_rank": 16},
    "prefix_tuning": {"num_virtual_tokens": 4}, "prompt_tuning": {"num_virtual_tokens": 4},
    "p_tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 32}, "freeze": {"freeze_trainable_layers": 1},
}


def legal(kind: str, held: str) -> bool:
    """What the tables say; the rules have to say the same."""
    return not held or HELD[held]["quantization_method"] in KINDS[kind].quantised


def words(kind: str, held: str, stage: str, model: object) -> dict[str, Any]:
    teacher = {"teacher_model": model} if stage == "distill" else {}
    return {
        "model_name_or_path": model, "dataset_dir": DATA, "finetuning_type": kind, "stage": stage, "max_steps": 3,
        "per_device_train_batch_size": 2, "learning_rate": 1e-2 if KINDS[kind].adapter else 1e-4, "logging_steps": 1,
        "max_samples": 10, "cutoff_len": 128, "overlong": "truncate", "save_strategy": "no",
        "plot_loss": "false", "use_cpu": True,
        **STAGES[stage], **HELD[held], **SMALL.get(kind, {}), **teacher}


def test_the_tables_are_whole() -> None:
    """A stage or a method that is new has to be named here too."""
    assert STAGES.keys() == OBJECTIVES.keys() and SMALL.keys() <= KINDS.keys()
    assert {given["quantization_method"] for given in HELD.values() if given} == QUANTIZERS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_is_refused_and_nothing_else(kind: str) -> None:
    """Each cell: an error that names the method and who quantises where the tables have no such layer, none where they
    have one. So too for those that quantise nothing on the way, and for any method."""
    for stage in OBJECTIVES:
        for held in HELD:
            config, _ = read_config(options(**words(kind, held, stage, "m"), output_dir="o"))
            errors = [finding for finding in apply_rules(config, "train") if finding.severity == "error"]
            if legal(kind, held):
                assert not errors, [finding.line() for finding in errors]
            else:
                assert len(errors) == 1 and errors[0].cure and kind in str(errors[0].message)
        for refused in REFUSED:
            config, _ = read_config(options(**words(kind, "", stage, "m"), output_dir="o", quantization_bit=4,
                                            quantization_method=refused))
            assert any(f.severity == "error" and refused in str(f.message) for f in apply_rules(config, "train"))


CELLS = [(kind, held) for kind in KINDS for held in HELD if legal(kind, held)]


def run(**given: Any) -> None:
    config, findings = read_config(options(**given))
    assert not [finding for finding in findings if finding.severity == "error"]
    train(config, Terminal(file=io.StringIO()), checked=False)


@pytest.fixture(scope="module")
def untrained(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], float]:
    """The held-out loss of the base alone, by how it is held and by stage; measured once."""

    @cache
    def measured(held: str, stage: str) -> float:
        out = tmp_path_factory.mktemp("base")
        run(**words("lora", held, stage, small), val_size=2, do_train=False, do_eval=True, output_dir=out)
        return events(out, "eval")[-1]["eval_loss"]

    return measured


@pytest.mark.parametrize(("kind", "held", "stage"),
                         [(*cell, stage) for cell, stage in zip(CELLS, cycle(ALONE), strict=False)])
def test_what_is_written_is_what_was_trained(kind: str, held: str, stage: str, small: Path, tmp_path: Path,
                                             untrained: Callable[[str, str], float]) -> None:
    """Three steps; then what was written is loaded onto a fresh base, held as it was, and its loss on held-out rows is
    that of the run, and not the base's."""
    given = {**words(kind, held, stage, small), "val_size": 2}
    out, again = tmp_path / "out", tmp_path / "again"
    run(**given, output_dir=out)
    assert len(events(out)) == 3 and all(step["grad_norm"] > 0 for step in events(out))
    if not KINDS[kind].continues:
        return  # a rule refuses it here; that chat and export read it is a test of the methods
    named = {"adapter_name_or_path": out} if KINDS[kind].adapter else {"model_name_or_path": out}
    run(**{**given, **named, "do_train": False, "do_eval": True}, output_dir=again)
    trained, loaded = (events(folder, "eval")[-1]["eval_loss"] for folder in (out, again))
    assert abs(loaded - trained) < 0.1 * abs(untrained(held, stage) - trained)


@pytest.mark.parametrize(("kind", "stage"), list(zip(KINDS, cycle(sorted(OBJECTIVES.keys() - {*ALONE})), strict=False)))
def test_stages_that_compare_or_write(kind: str, stage: str, small: Path, tmp_path: Path) -> None:
    """Three steps of the stages that compare with a reference or learn from answers written on the way."""
    run(**words(kind, "", stage, small), output_dir=tmp_path / "out")
    assert len(events(tmp_path / "out")) == 3
