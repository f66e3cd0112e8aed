"""Positions stretched beyond a model's own length: the numbers, what is saved, and that each row gets its own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import options
from test_policy import plainly, random_model, row
from test_train import run
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from truetune.data.batches import collate
from truetune.model.base import load_base
from truetune.model.policy import Policy
from truetune.model.rope import forget_lengths, settle_stretch, stretch
from truetune.options import Config
from truetune.options.read import read_config
from truetune.serve.engine import load_engine

CPU = torch.device("cpu")
OWN, BASE, HEAD = 64, 10_000.0, 16
WAYS = ("linear", "dynamic", "yarn", "llama3")


def settings(**more: object) -> LlamaConfig:
    return LlamaConfig(**{"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": OWN,
                          "rope_parameters": {"rope_type": "default", "rope_theta": BASE}, **more})


def configured(**values: object) -> Config:
    config, findings = read_config(options(**values))
    assert not findings
    return config


def by_hand(way: str, factor: float) -> torch.Tensor:
    """The angles of the pairs, from the papers."""
    plain = torch.tensor([BASE ** (-2 * pair / HEAD) for pair in range(HEAD // 2)])
    waves = 2 * math.pi / plain
    if way == "linear":
        return plain / factor
    if way == "llama3":  # wavelengths above OWN / 1 are stretched, below OWN / 4 left, between them in a straight line
        smooth = ((OWN / waves - 1) / (4 - 1)).clamp(0, 1)
        return (1 - smooth) * plain / factor + smooth * plain
    turns = [HEAD * math.log(OWN / (beta * 2 * math.pi)) / (2 * math.log(BASE)) for beta in (32, 1)]
    low, high = max(math.floor(turns[0]), 0), min(math.ceil(turns[1]), HEAD - 1)
    ramp = ((torch.arange(HEAD // 2) - low) / (high - low)).clamp(0, 1)
    return plain / factor * ramp + plain * (1 - ramp)


@pytest.mark.parametrize("way", ("linear", "yarn", "llama3"))
def test_angles_by_hand(way: str) -> None:
    """Three times the length asks for the factor 3; transformers makes the papers' angles of what is set."""
    config, said = settle_stretch(configured(rope_scaling=way, cutoff_len=3 * OWN - 10), settings())
    assert config.rope_factor == 3.0 and not said
    made = stretch(settings(), config)
    assert made.max_position_embeddings == 3 * OWN
    angles, sharper = ROPE_INIT_FUNCTIONS[way](made, CPU)
    torch.testing.assert_close(angles, by_hand(way, 3.0), rtol=1e-5, atol=1e-8)
    assert sharper == pytest.approx(0.1 * math.log(3) + 1 if way == "yarn" else 1.0)


def test_dynamic_begins_at_the_models_own_length() -> None:
    """NTK by hand at 100 tokens with factor 2: base x (2 x 100 / 64 - 1)^(d / (d - 2)). At 64 tokens nothing changes,
    which it would until 128 if the length were written as LLaMA-Factory writes it."""
    config, _ = settle_stretch(configured(rope_scaling="dynamic", cutoff_len=2 * OWN), settings())
    made = stretch(settings(), config)
    for length in (OWN, 100):
        angles, _ = ROPE_INIT_FUNCTIONS["dynamic"](made, CPU, seq_len=length)
        base = BASE * (2 * length / OWN - 1) ** (HEAD / (HEAD - 2))
        expected = torch.tensor([base ** (-2 * pair / HEAD) for pair in range(HEAD // 2)])
        torch.testing.assert_close(angles, expected, rtol=1e-5, atol=1e-8)


def test_when_nothing_is_stretched() -> None:
    """Rows within the model's own length leave it as it was, with a line; a model without rotary positions is refused;
    a model that was stretched before is stretched from its first length."""
    config, said = settle_stretch(configured(rope_scaling="yarn", cutoff_len=OWN), settings())
    assert [finding.id for finding in said] == ["rope-not-needed"] and config.rope_factor == 1.0
    assert stretch(settings(), config).to_dict() == settings().to_dict()
    _, said = settle_stretch(configured(rope_scaling="yarn"), AutoConfig.for_model("gpt2"))
    assert [finding.severity for finding in said] == ["error"]
    before = stretch(settings(), configured(rope_scaling="llama3", rope_factor=2))
    config, _ = settle_stretch(configured(rope_scaling="yarn", cutoff_len=4 * OWN), before)
    assert config.rope_factor == 4.0 and stretch(before, config).max_position_embeddings == 4 * OWN


@pytest.mark.parametrize("way", WAYS)
def test_each_row_has_the_angles_of_its_own_length(way: str) -> None:
    """A long row in the batch, or before it, changes nothing for a short one: loss by row as transformers has it for
    each row alone in a model that has seen no other."""
    made = stretch(settings(max_position_embeddings=32), configured(rope_scaling=way, rope_factor=2))
    kept = {name: getattr(made, name) for name in ("max_position_embeddings", "rope_parameters")}
    model = random_model("llama", **kept)
    forget_lengths(model)
    policy, said = Policy(model), []
    rows = [row(length, seed) for seed, length in enumerate((50, 12, 40, 33))]
    policy.verify(rows[1:2], said.append)
    assert not said and len(policy.ways) == 3
    with torch.no_grad():
        found = policy.log_probabilities(collate(rows))
        fresh = [Policy(plainly(random_model("llama", **kept)), fast=False) for _ in rows]
        expected = torch.cat([each.log_probabilities(collate([one])) for each, one in zip(fresh, rows, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_far_tokens_are_found_again(tiny: Path) -> None:
    """At twice the length to which a model was made: how sharply attention tells apart two tokens that are far away.
    The angles that the model has learned come again, where without stretching most are new to it."""
    plain, longer = (load_base(tiny, configured(model_name_or_path=tiny, **more), torch.float32, CPU) for more in (
        {}, {"rope_scaling": "linear", "rope_factor": 2}))
    own = plain.config.max_position_embeddings
    with torch.no_grad():
        places = torch.arange(2 * own)[None]
        slow = -1  # the slowest pair has turned through less than a circle at the model's own length
        learned = plain.model.rotary_emb(torch.zeros(1), places[:, :own])[1][0, :, slow].abs().max()
        beyond, stretched = (model.model.rotary_emb(torch.zeros(1), places)[1][0, :, slow].abs().max()
                             for model in (plain, longer))
    assert beyond > 1.5 * learned and stretched <= 1.01 * learned


def test_a_run_keeps_its_positions(tiny: Path, tmp_path: Path) -> None:
    """An adapter says how far its positions were stretched, and chat stretches its base again; a whole model has it in
    its config.json. The model is one of 48 tokens, so that rows of 96 are long."""
    base, data = tmp_path / "short", tmp_path / "rows.json"
    base.mkdir()
    for file in tiny.iterdir():
        (base / file.name).symlink_to(file)
    told = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").unlink()
    (base / "config.json").write_text(json.dumps({**told, "max_position_embeddings": 48}), encoding="utf-8")
    rows = [{"instruction": "Count.", "input": "", "output": " ".join(map(str, range(20 + n)))} for n in range(4)]
    data.write_text(json.dumps(rows), encoding="utf-8")
    wanted = {"rope_scaling": "yarn", "cutoff_len": 96, "max_steps": 1, "per_device_train_batch_size": 4}
    run(tmp_path / "adapter", base, data, **wanted)
    run(tmp_path / "whole", base, data, finetuning_type="full", learning_rate=1e-5,
        **{name: value for name, value in wanted.items() if name != "learning_rate"})
    served = load_engine(configured(model_name_or_path=base, adapter_name_or_path=tmp_path / "adapter", use_cpu=True),
                         lambda words: None).model
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    for settings in (served.config, whole.config):
        assert settings.max_position_embeddings == 96
        assert {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 48}.items() <= \
            settings.rope_parameters.items()
    ids = torch.from_numpy(np.arange(5, 95))[None]
    with torch.no_grad():
        one, other = (model(input_ids=ids).logits for model in (served, whole))
    assert float((one - other).abs().mean()) < 0.2 * float(one.std())  # one step from the same stretched base
