"""Every way to tune, generated from the table of kinds: what is trained moves, what is frozen does not, what is written
gives the same model on a fresh base, and merged it is the same again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import options, write_rows
from transformers import PreTrainedModel

from truetune.cli import main
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.findings import Problem
from truetune.model.adapters import merge_all, put_adapters, virtual_of, write_manifest
from truetune.model.load import load_model
from truetune.model.methods import METHODS, trainable, write_weights
from truetune.model.policy import Policy
from truetune.options import Config
from truetune.options.kinds import KINDS

STEPS, WORDS = 3, 1000
MORE: dict[str, dict[str, Any]] = {
    "vera": {"lora_rank": 16}, "adalora": {"lora_rank": 11, "adalora_init_r": 12}, "freeze": {"freeze_trainable_layers": 1},
    "prefix_tuning": {"num_virtual_tokens": 4}, "p_tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 32},
    "prompt_tuning": {"num_virtual_tokens": 4},
}
VARIANTS: dict[str, dict[str, Any]] = {name: {"finetuning_type": name, **MORE.get(name, {})} for name in KINDS} | {
    "rslora": {"use_rslora": True}, "dora": {"use_dora": True}, "pissa": {"pissa_init": True},
    "pissa, whole SVD, rslora": {"pissa_init": True, "pissa_iter": -1, "use_rslora": True, "lora_target": ("k_proj",)},
    **{way: {"init_lora_weights": way} for way in ("gaussian", "olora", "orthogonal")},
    "lora with a whole module": {"additional_target": ("norm",)},
    "prefix from a network": {"finetuning_type": "prefix_tuning", "prefix_projection": True, "num_virtual_tokens": 4,
                              "encoder_hidden_size": 32},
    "bottleneck, Pfeiffer": {"finetuning_type": "bottleneck", "bottleneck_target": ("mlp",)},
}
"""Every kind, and every way to begin LoRA."""
ROWS = [Rendered(np.random.default_rng(seed).integers(100, WORDS, length), (Run(2, length, 1.0),),
                 place=Place("row ", seed)) for seed, length in enumerate((9, 14))]


_loaded: dict[Path, PreTrainedModel] = {}


def plain(folder: Path) -> PreTrainedModel:
    """The model in `folder`; a copy of it from the second time on, which is quicker."""
    if folder not in _loaded:
        _loaded[folder] = load_model(folder, torch.float32, torch.device("cpu"))
    return deepcopy(_loaded[folder])


@pytest.fixture(scope="module")
def small(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the first words of its vocabulary only: the head is most of the work of short rows."""
    model = load_model(tiny, torch.float32, torch.device("cpu"))
    model.resize_token_embeddings(WORDS)
    folder = tmp_path_factory.mktemp("small")
    model.save_pretrained(folder)
    return folder


def configured(small: Path, **given: Any) -> Config:
    return Config(model_name_or_path=str(small), **given)


def prepared(small: Path, config: Config, new_tokens: Sequence[int] = ()) -> tuple[Any, Policy]:
    """The model as a run trains it, and as its policy."""
    torch.manual_seed(0)
    causal = plain(small)
    model = METHODS[config.finetuning_type].prepare(causal, config, small, new_tokens)
    return model, Policy(causal, outer=virtual_of(model))


def logp(policy: Policy) -> torch.Tensor:
    """What the model says of some rows."""
    with policy.still():
        return policy.log_probabilities(policy.lay_out(ROWS))


def learn(model: Any, policy: Policy, config: Config) -> None:
    """A few steps of what a run does: loss and penalty backward, step, and whatever the method does after it."""
    method, batch = METHODS[config.finetuning_type], policy.lay_out(ROWS)
    adamw = torch.optim.AdamW(trainable(model).values(), lr=1e-4 if config.finetuning_type == "full" else 5e-3)
    if method.planned:
        method.planned(model, STEPS)
    model.train()
    for step in range(1, STEPS + 1):
        loss = -policy.log_probabilities(batch).mean()
        (loss + method.penalty(model) if method.penalty else loss).backward()
        adamw.step()
        if method.stepped:
            method.stepped(model, step)
        adamw.zero_grad()
    model.eval()


def write(model: Any, folder: Path, config: Config, small: Path) -> Path:
    """As a run writes."""
    folder.mkdir()
    method = METHODS[config.finetuning_type]
    write_weights(model, folder, {name: weight.detach() for name, weight in trainable(model).items()}, method)
    if method.adapter:
        write_manifest(folder, config, small)
    return folder


def read(small: Path, *adapters: Path) -> Policy:
    """Adapters on the base as it was."""
    causal = plain(small)
    return Policy(causal, outer=virtual_of(put_adapters(causal, adapters, small)))


@pytest.fixture(scope="module")
def base_says(small: Path) -> torch.Tensor:
    return logp(Policy(plain(small)))


@pytest.mark.parametrize("name", VARIANTS)
def test_three_steps(name: str, tmp_path: Path, small: Path, base_says: torch.Tensor) -> None:
    """It begins as the base; weights that are to move do, all others stay to the bit; switched off it is the base;
    written and put on a fresh base, or merged into it, it says the same."""
    config = configured(small, **VARIANTS[name])
    kind = KINDS[config.finetuning_type]
    model, policy = prepared(small, config)
    policy.verify(ROWS, lambda words: pytest.fail(str(words)))  # the fast way is the plain way's equal
    assert len(policy.ways) > 1
    if not kind.virtual:
        torch.testing.assert_close(logp(policy), base_says, rtol=1e-4, atol=1e-4)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    learn(model, policy, config)
    moved = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert moved == trainable(model).keys()
    now = logp(policy)
    assert (now - base_says).abs().max() > 1e-3
    folder = write(model, tmp_path / "out", config, small)
    if not kind.adapter:
        whole = load_model(folder, torch.float32, torch.device("cpu"))
        torch.testing.assert_close(logp(Policy(whole)), now, rtol=1e-4, atol=1e-4)
        return
    with model.disable_adapter():
        torch.testing.assert_close(logp(policy), base_says, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logp(policy), now)  # and it comes back
    torch.testing.assert_close(logp(read(small, folder)), now, rtol=1e-4, atol=1e-4)
    if kind.merges:
        merged = merge_all(plain(small), [folder], small)
        torch.testing.assert_close(logp(Policy(merged)), now, rtol=1e-3, atol=1e-3)
    else:
        with pytest.raises(Problem, match="cannot be merged"):
            merge_all(plain(small), [folder], small)
