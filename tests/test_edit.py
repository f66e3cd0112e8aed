"""Changing one option in a run.yaml: everything else stays letter for letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from truetune.findings import Problem
from truetune.options.edit import set_in_yaml
from truetune.options.read import read_config

RUN = """# My run / 我的训练
model_name_or_path: m   # the model
dataset:
  - a
  - b
# between two options
learning_rate: 1e-4  # rate
disable_gradient_checkpointing: true
lr_scheduler_kwargs:
  num_cycles: 2

seed:
run_name: |
  two
  lines
cutoff_len: 512"""

CHANGED = """# My run / 我的训练
model_name_or_path: m   # the model
dataset: [c]
# between two options
learning_rate: 0.0002  # rate
gradient_checkpointing: true
lr_scheduler_kwargs: {power: 1}

seed: 7
run_name: one
cutoff_len: 64
lora_rank: 4
"""


def test_only_what_is_set_changes(tmp_path: Path):
    """Lists, blocks, empty values and other names are found; a new option goes to the end; comments stay."""
    path = tmp_path / "run.yaml"
    path.write_text(RUN, encoding="utf-8")
    values = {"dataset": ["c"], "learning_rate": 2e-4, "gradient_checkpointing": True, "seed": 7, "run_name": "one",
              "lr_scheduler_kwargs": {"power": 1}, "cutoff_len": 64, "lora_rank": 4}
    set_in_yaml(path, values)
    assert path.read_text(encoding="utf-8") == CHANGED
    config, findings = read_config([str(path)])
    assert not findings
    assert (config.dataset, config.gradient_checkpointing, config.lora_rank) == (("c",), True, 4)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "seed: 1\r\n", "\ufeffseed: 1\n"])
def test_files_of_every_kind_take_a_new_option(tmp_path: Path, text: str):
    """Empty, only a comment, Windows line ends, a byte order mark."""
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("utf-8"))
    set_in_yaml(path, {"lora_rank": 4})
    config, findings = read_config([str(path)])
    assert not findings
    assert (config.lora_rank, config.seed) == (4, 1 if "seed" in text else 42)
    assert path.read_bytes().count(b"\r\n") == (2 if "\r" in text else 0)


def test_what_is_not_yaml_is_left_alone(tmp_path: Path):
    """A JSON file says what to do by hand; a broken one says what is broken."""
    path = tmp_path / "run.json"
    path.write_text('{"seed": 1}', encoding="utf-8")
    with pytest.raises(Problem, match="Set it by hand: lora_rank = 4"):
        set_in_yaml(path, {"lora_rank": 4})
    assert path.read_text(encoding="utf-8") == '{"seed": 1}'
    broken = tmp_path / "run.yaml"
    broken.write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(Problem, match="not valid YAML"):
        set_in_yaml(broken, {"lora_rank": 4})
