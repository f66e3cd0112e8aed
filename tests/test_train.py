"""The loop, end to end on a two-layer cut of the real model: every method trains what it should and nothing else, and
how rows are grouped into batches changes nothing."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Truetune, events, options, write_rows
from safetensors.torch import load_file

from truetune.findings import Problem
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.train import train


def run(folder: Path, model: Path, data: Path, **more: object) -> str:
    """Train in this process; returns what the console showed."""
    values: dict[str, object] = {
        "model_name_or_path": model, "dataset": data, "output_dir": folder, "bf16": "false", "logging_steps": 1,
        "save_strategy": "no", "learning_rate": 1e-3, "lr_scheduler_type": "constant", "num_train_epochs": 1,
        "use_cpu": True, **more}
    config, findings = read_config(options(**values))
    assert not findings
    console = Terminal(file=io.StringIO(), soft_wrap=True, width=200)
    train(config, console, checked=False)
    return console.file.getvalue()


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in events(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    file = folder / "adapter_model.safetensors"
    return load_file(file if file.is_file() else folder / "model.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.json", 16)


def test_grouping_into_batches_changes_nothing(tiny: Path, data: Path, tmp_path: Path) -> None:
    """8 x 1, 4 x 2, 1 x 8 rows a step: the same losses and gradients to rounding, although batches differ in how many
    tokens they learn (invariant I2). A mean over batch means would be wrong here."""
    for batch, accumulation in ((8, 1), (4, 2), (1, 8)):
        run(tmp_path / f"{batch}", tiny, data, per_device_train_batch_size=batch, lora_rank=4,
            gradient_accumulation_steps=accumulation, num_train_epochs=2)
    one = tmp_path / "8"
    assert len(losses(one)) == 4
    for other in (tmp_path / "4", tmp_path / "1"):
        assert losses(other) == pytest.approx(losses(one), rel=1e-5)
        norms = [[event["grad_norm"] for event in events(folder)] for folder in (one, other)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-3)


METHODS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "lora": ({"lora_rank": 4}, ("lora_A", "lora_B")),
    "lora on some modules, with a whole one": (
        {"lora_target": "q_proj,v_proj", "additional_target": "norm"}, ("q_proj", "v_proj", "model.norm.")),
    "full": ({"finetuning_type": "full"}, ("",)),
    "freeze, last layer": ({"finetuning_type": "freeze", "freeze_trainable_layers": 1}, ("layers.1.",)),
    "freeze, first layer": ({"finetuning_type": "freeze", "freeze_trainable_layers": -1}, ("layers.0.",)),
    "freeze, parts and more": (
        {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "freeze_trainable_modules": "mlp",
         "freeze_extra_modules": "norm"}, ("layers.1.mlp.", "model.norm.")),
}


@pytest.mark.parametrize("bf16", ("false", "true"))
@pytest.mark.parametrize("method", METHODS)
def test_every_trained_weight_moves_and_no_other(method: str, bf16: str, tiny: Path, data: Path,
                                                  tmp_path: Path) -> None:
    """After six steps the loss has fallen; each weight that the method names has changed, all others are as before."""
    given, moving = METHODS[method]
    run(tmp_path, tiny, data, num_train_epochs=3, bf16=bf16, **given)
    assert losses(tmp_path)[-1] < losses(tmp_path)[0] - 0.2
    after = weights(tmp_path)
    if (tmp_path / "adapter_config.json").is_file():
        assert all(any(part in name for part in moving) for name in after)
        assert all(weight.abs().max() > 0 for name, weight in after.items() if "lora_B" in name)
        return
    before = load_file(tiny / "model.safetensors")
    assert after.keys() == before.keys()
    for name, weight in before.items():
        same = torch.equal(after[name], weight.to(after[name].dtype))
        assert same != any(part in name for part in moving), name


def test_what_is_saved_is_what_was_trained(tiny: Path, data: Path, tmp_path: Path) -> None:
    """transformers and PEFT load a run folder by themselves, and compute the loss that the run's evaluation saw."""
    from peft import AutoPeftModelForCausalLM

    from truetune.check import preflight
    from truetune.model.policy import Policy

    for name, more in (("adapter", {}), ("model", {"finetuning_type": "full"})):
        folder = tmp_path / name
        run(folder, tiny, data, val_size=4, **more)
        seen = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))["eval_loss"]
        config, _ = read_config([str(folder / "config.yaml")])
        rows = preflight(config, print).held_out[""]
        if name == "adapter":
            causal = AutoPeftModelForCausalLM.from_pretrained(folder).get_base_model()
        else:
            from transformers import AutoModelForCausalLM

            causal = AutoModelForCausalLM.from_pretrained(folder)
        from truetune.data.batches import collate

        batch = collate(rows)
        with torch.no_grad():
            logp = Policy(causal, fast=False).log_probabilities(batch)
        assert -float(logp.sum()) / len(logp) == pytest.approx(seen, abs=2e-4)


def test_gradient_checkpointing_changes_nothing(tiny: Path, data: Path, tmp_path: Path) -> None:
    for name in ("false", "true"):
        run(tmp_path / name, tiny, data, gradient_checkpointing=name, lora_dropout=0.1)
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=1e-5)


def test_plain_attention_learns_the_same(tiny: Path, data: Path, tmp_path: Path) -> None:
    """flash_attn: disabled runs plain transformers, row by row: the losses are those of the fast way."""
    for name in ("auto", "disabled"):
        run(tmp_path / name, tiny, data, flash_attn=name)
    assert losses(tmp_path / "disabled") == pytest.approx(losses(tmp_path / "auto"), rel=1e-5)


def test_bfloat16_follows_float32(tiny: Path, data: Path, tmp_path: Path) -> None:
    """Within 4 %. Master weights copied from weights already rounded to bfloat16 were 9 % behind: every weight lay on a
    bfloat16 number, and the first steps, smaller than half the distance to the next, changed none of them."""
    for name in ("false", "true"):
        run(tmp_path / name, tiny, data, bf16=name, finetuning_type="full", learning_rate=1e-4, num_train_epochs=3)
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=0.04)


def test_an_adapter_is_trained_on(tiny: Path, data: Path, tmp_path: Path) -> None:
    """A second run with the first one's adapter begins where that ended, and refuses another base."""
    run(tmp_path / "one", tiny, data, num_train_epochs=4)
    run(tmp_path / "two", tiny, data, adapter_name_or_path=tmp_path / "one")
    assert losses(tmp_path / "two")[0] < losses(tmp_path / "one")[-2] + 0.3 < losses(tmp_path / "one")[0]
    run(tmp_path / "base", tiny, data, finetuning_type="full")
    with pytest.raises(Problem, match="other weights"):
        run(tmp_path / "three", tmp_path / "base", data, adapter_name_or_path=tmp_path / "one")


def test_evaluation_and_early_stopping(tiny: Path, data: Path, tmp_path: Path) -> None:
    """A learning rate of almost nothing: the second and third evaluation bring no gain, and patience 2 ends the run."""
    out = run(tmp_path, tiny, data, val_size=0.25, eval_strategy="steps", eval_steps=1, early_stopping_steps=2,
              learning_rate=1e-30, num_train_epochs=10)
    assert len(events(tmp_path, "eval")) == 3 and len(losses(tmp_path)) == 3
    assert "stopped early at step 3" in out
    results = json.loads((tmp_path / "all_results.json").read_text(encoding="utf-8"))
    assert results["eval_loss"] == events(tmp_path, "eval")[-1]["eval_loss"]


def test_only_evaluating(tiny: Path, data: Path, tmp_path: Path) -> None:
    """do_train off, do_eval on: a loss, and no weights written."""
    run(tmp_path, tiny, data, do_train=False, do_eval=True, val_size=0.5)
    assert json.loads((tmp_path / "all_results.json").read_text(encoding="utf-8"))["eval_loss"] > 0
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(("given", "words"), (
    ({"lora_target": "q_prj"}, "Did you mean q_proj"),
    ({"finetuning_type": "freeze", "freeze_trainable_layers": 9}, "the model has 2"),
    ({"finetuning_type": "freeze", "freeze_trainable_modules": "attention"}, "no module 'attention'"),
    ({"fp16": True, "bf16": None}, "no float16 arithmetic"),
    ({"adapter_name_or_path": "nowhere"}, "there is no folder nowhere"),
))
def test_wrong_wishes(given: dict[str, object], words: str, tiny: Path, data: Path, tmp_path: Path) -> None:
    given = {name: value for name, value in given.items() if value is not None}
    more = {"bf16": "null"} if "fp16" in given else {}
    with pytest.raises(Problem, match=words):
        run(tmp_path / "run", tiny, data, **{**more, **given})


def test_a_hub_id(tiny: Path, data: Path, truetune: Truetune, tmp_path: Path) -> None:
    """A model in the hub's cache, without a network: found by its id, and the adapter names the id as its base."""
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / "0123456789"
    shutil.copytree(tiny, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0123456789", encoding="utf-8")
    words = options(model_name_or_path="some/model", cache_dir=tmp_path / "hub", dataset=data, output_dir="run",
                    max_steps=1, use_cpu=True, bf16="false")
    done = truetune("train", *words, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    adapter = json.loads((tmp_path / "run" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == "some/model"
    done = truetune("train", *words, "--model_name_or_path=some/other", "--output_dir=other", HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "'some/other' is no folder here, and the hub did not give it" in done.stderr
