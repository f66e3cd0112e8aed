"""Predicted memory: by hand arithmetic, by what must grow and shrink, from config.json alone, beside a real step."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import options, write_rows

from truetune.check.measure import Measured
from truetune.check.memory import Memory, Shape, Split, predict
from truetune.check.room import Batches, Device, fits, memory_section, most_rows, savings
from truetune.check.shape import shape_of
from truetune.findings import Both, Problem
from truetune.model.precision import Precision
from truetune.options.read import read_config

FLOAT32 = Precision(torch.float32, master=False, scaled=False, reason="")
BFLOAT16 = Precision(torch.bfloat16, master=True, scaled=False, reason="")
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 4096,
         "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
         "dtype": "bfloat16"}
"""Llama 2 7B, whose 6,738,415,616 parameters are known."""


def shape(folder: Path, precision: Precision = BFLOAT16, **more: object) -> Shape:
    config, findings = read_config(options(model_name_or_path=folder, use_cpu=True, **more))
    assert not findings
    return shape_of(folder, config, precision)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but config.json."""
    folder = tmp_path_factory.mktemp("llama")
    (folder / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    return folder


def test_seven_billion_parameters_by_hand(llama: Path) -> None:
    """Full fine-tuning in bfloat16: weights 2 bytes a parameter, gradients 4, moments and copies 12. 18 bytes in all, 2
    more than the 16 of Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1, since gradients are added in float32."""
    full = shape(llama, finetuning_type="full")
    assert full.parameters == full.trained == 6_738_415_616
    memory = predict(full, [1], 1, 0)
    assert memory.parts["weights"] == 2 * 6_738_415_616
    assert memory.parts["gradients"] == 4 * 6_738_415_616
    assert memory.parts["optimizer"] == 12 * 6_738_415_616


def test_lora_by_hand(llama: Path) -> None:
    """Rank 8 on the seven linear layers of each of 32: 8 x (4 x (4096 + 4096) + 3 x (4096 + 11008)) x 32."""
    lora = shape(llama, lora_rank=8)
    assert lora.trained == 8 * (4 * (4096 + 4096) + 3 * (4096 + 11008)) * 32
    assert lora.adapter and lora.parameters == 6_738_415_616 + lora.trained


def test_what_grows_and_what_shrinks(llama: Path) -> None:
    lora, full = shape(llama), shape(llama, finetuning_type="full")

    def peak(shape: Shape, tokens: int = 1000, **more: object) -> Memory:
        return predict(shape, [tokens], tokens // 2, 500_000_000, **more)  # pyright: ignore

    assert peak(lora).peak < peak(full).peak
    assert peak(lora, 500).peak < peak(lora, 1000).peak < peak(lora, 4000).peak
    assert peak(lora, 4000, checkpointing=True).peak < peak(lora, 4000).peak
    shared = [peak(full, split=Split(8, kind)).peak for kind in ("zero3", "zero2", "zero1", "ddp")]
    assert shared == sorted(shared) and len(set(shared)) == 4
    for memory in (peak(lora), peak(full)):
        assert max(memory.parts.values()) < memory.peak == memory.phases[memory.phase]


def test_the_batch_that_fits(llama: Path) -> None:
    """The largest divisor of a step's rows whose longest batch fits; where none does, what would help."""
    import numpy as np

    config, _ = read_config(options(per_device_train_batch_size=8, use_cpu=True))
    lora, batches = shape(llama), Batches(np.full(100, 500), learned=0.5)
    room = {rows: predict(lora, [500] * rows, 250 * rows, 0).peak for rows in (1, 4, 8)}
    for rows, bytes in room.items():
        device = Device("cpu", 10**12, int(bytes / 0.9) + 10**7, 0)
        assert most_rows(lora, batches, 8, config, device) == rows
    small = Device("cpu", 10**12, room[1], 0)
    helps = savings(lora, batches, config, small)
    assert helps and all(help.saves > 0 for help in helps)
    assert {"gradient_checkpointing": True} in [dict(help.cure) for help in helps]
    assert not fits(predict(lora, [500] * 8, 2000, 0), small)


@pytest.mark.parametrize("broken", [
    {"hidden_size": None}, {"num_attention_heads": 0}, {"hidden_size": "many"}, {"num_hidden_layers": 10**9},
    {"model_type": "nobody-knows"}, {"vocab_size": -5}])
def test_a_damaged_config_is_one_line(llama: Path, tmp_path: Path, broken: dict[str, object]) -> None:
    told = {name: value for name, value in {**LLAMA, **broken}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    try:
        made = shape(tmp_path)
    except Problem as problem:
        assert "config.json" in str(problem)
    else:  # a field that the architecture has a default for
        assert "hidden_size" in broken and made.parameters > 0


def test_prediction_and_a_real_step(tiny: Path, tmp_path: Path) -> None:
    """`check --measure` on two layers: near each other (benchmarks/memory.py tells how near, for more models)."""
    write_rows(tmp_path / "rows.json", 24)
    done = subprocess.run(
        [sys.executable, "-m", "truetune", "check", "--measure", "--json", *options(
            model_name_or_path=tiny, dataset="rows.json", learning_rate=2e-4, bf16="false", use_cpu="true",
            per_device_train_batch_size=4)], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    facts = json.loads(done.stdout)["facts"]
    assert facts["memory"]["measured"] > 0, done.stderr
    assert facts["memory"]["predicted"] == pytest.approx(facts["memory"]["measured"], rel=0.15)
    assert facts["schedule"]["measured"] is True and facts["schedule"]["tokens_per_second"] > 0


def test_a_step_that_is_killed_is_told(llama: Path) -> None:
    """The system kills the child that measures: the prediction stands, and one line says what happened."""
    import numpy as np

    config, _ = read_config(options(per_device_train_batch_size=2, use_cpu=True))
    killed = Measured(fault=Both("killed by signal 9", "被信号 9 终止"))
    section = memory_section(shape(llama), Batches(np.array([50, 40]), 0.5), config,
                             Device("cpu", 10**12, 10**12, 10**8), killed)
    (finding,) = section.findings
    assert finding.line() == "warn   --measure: the real step failed: killed by signal 9."
    assert "被信号 9 终止" in finding.line(chinese=True)
    assert section.facts["predicted"] > 0 and not section.facts["measured"]


def test_an_adapter_is_counted_as_it_is(tiny: Path) -> None:
    """More rank, more trained; a target that is not there is said, as in training."""
    assert shape(tiny, lora_rank=16).trained == 2 * shape(tiny, lora_rank=8).trained
    assert replace(shape(tiny), counted=True) == shape(tiny)  # what is kept was counted, not reckoned
    with pytest.raises(Problem, match="no module 'qkv'"):
        shape(tiny, lora_target="qkv")
