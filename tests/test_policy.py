"""Rows laid end to end and a head on learned tokens only: the same numbers as plain transformers, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from truetune.data.batches import collate
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.model import head as head_module
from truetune.model.attention import attend_rows
from truetune.model.head import Head, log_probabilities
from truetune.model.load import cast_weights, load_model
from truetune.model.policy import Policy

CPU = torch.device("cpu")


def row(length: int, seed: int, vocabulary: int = 64) -> Rendered:
    """Random ids, of which every token but the first third is learned."""
    ids = np.random.default_rng(seed).integers(3, vocabulary, length)
    return Rendered(ids, (Run(length // 3, length, 1.0),), place=Place("row ", seed))


def plainly(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with transformers' eager attention, to compare with."""
    copy = deepcopy(model)
    copy.set_attn_implementation("eager")
    return copy


def plain_loss(model: PreTrainedModel, rows: list[Rendered]) -> torch.Tensor:
    """The summed loss by transformers alone: one row at a time, all logits, cross entropy."""
    total = torch.zeros(())
    for each in rows:
        logits = model(input_ids=torch.from_numpy(each.ids)[None], use_cache=False).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(each.ids[1:]), reduction="none")
        total = total + (losses * torch.from_numpy(each.weights[1:])).sum()
    return total


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(policy: Policy, reference: PreTrainedModel, rows: list[Rendered], rtol: float = 2e-4) -> None:
    """Loss and every gradient of the fast way equal plain transformers'."""
    batch = collate(rows)
    expected_loss = plain_loss(reference, rows)
    expected = gradients(reference, expected_loss)
    loss = -(policy.log_probabilities(batch) * batch.weights).sum()
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-4)
    found = gradients(policy.causal, loss)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        scale = float(grad.abs().max())
        torch.testing.assert_close(found[name], grad, rtol=rtol, atol=rtol * scale + 1e-7,
                                   msg=lambda text, name=name: f"{name}: {text}")


def test_rows_in_one_batch_learn_as_each_alone(tiny: Path) -> None:
    """Three rows of the real model end to end: loss and all gradients as one by one (invariant I2)."""
    model = load_model(tiny, torch.float32, CPU)
    reference, policy = plainly(model), Policy(model)
    said: list[str] = []
    rows = [row(length, seed, 40_000) for seed, length in enumerate((17, 40, 9))]
    policy.verify(rows, said.append)
    assert not said and len(policy.ways) == 3
    assert_same(policy, reference, rows)


SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=128, pad_token_id=0, bos_token_id=1,
             eos_token_id=2)
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {}, "qwen2": {}, "qwen3": {}, "phi3": {}, "olmo2": {},
    "mistral": {"sliding_window": 5},
    "gemma": {}, "gemma2": {"sliding_window": 5, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0,
                            "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 5, "query_pre_attn_scalar": 8},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.3}, "cohere": {"logit_scale": 0.25},
}


def random_model(family: str, **more: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**SIZES, **more})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():  # large enough that caps and windows change the logits
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    """Sliding windows, capped scores, capped and scaled logits: the fast way stays on, and is exact."""
    model = random_model(family, **FAMILIES[family])
    reference, policy, said = plainly(model), Policy(model), []
    rows = [row(length, seed) for seed, length in enumerate((15, 24, 8))]
    policy.verify(rows, said.append)
    assert not said
    assert_same(policy, reference, rows, rtol=1e-3)


def test_state_that_runs_from_row_to_row_is_noticed() -> None:
    """LFM2's convolutions look back over the border of a row. The comparison finds it, says so, and goes row by row."""
    model = random_model("lfm2", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)
    reference, policy, said = plainly(model), Policy(model), []
    rows = [row(length, seed) for seed, length in enumerate((15, 24, 8))]
    policy.verify(rows, said.append)
    assert len(said) == 1 and "row by row" in str(said[0])
    assert_same(policy, reference, rows, rtol=1e-3)


def test_logits_changed_in_an_unforeseen_way_are_noticed() -> None:
    """A model that changes its logits after the head, in a way no configuration tells: all logits are used instead."""

    class Doubled(type(random_model("llama"))):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 2
            return out

    model = Doubled(random_model("llama").config).eval()
    model.load_state_dict(random_model("llama").state_dict())
    reference, policy, said = plainly(model), Policy(model), []
    rows = [row(length, seed) for seed, length in enumerate((15, 8))]
    policy.verify(rows, said.append)
    assert len(said) == 2 and len(policy.ways) == 1 and str(policy.ways[0].name) == "row by row, all logits"
    assert_same(policy, reference, rows)


def test_a_model_that_does_not_take_rows_is_noticed() -> None:
    """A body that knows no `row_borders` (a user's own code): plain transformers take over, and a line says why."""

    class Strict(type(random_model("llama").base_model)):
        def forward(self, input_ids, position_ids=None, use_cache=None, attention_mask=None, past_key_values=None,
                    inputs_embeds=None):
            return super().forward(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)

    model = random_model("llama")
    model.model.__class__ = Strict
    reference, policy, said = plainly(model), Policy(model), []
    rows = [row(length, seed) for seed, length in enumerate((15, 8))]
    policy.verify(rows, said.append)
    assert len(said) == 2 and "fails on this model" in str(said[0]) and "row_borders" in str(said[0])
    assert_same(policy, reference, rows)


def test_a_row_sees_only_itself() -> None:
    """Replacing every token of one row leaves the other rows' log-probabilities as they were, to the last bit."""
    model = random_model("llama")
    policy = Policy(model)
    before, after = [row(12, 0), row(20, 1), row(7, 2)], [row(12, 9), row(20, 1), row(7, 2)]
    with torch.no_grad():
        first, second = (policy.log_probabilities(collate(rows)) for rows in (before, after))
    learned = 12 - 12 // 3
    assert torch.equal(first[learned:], second[learned:])
    assert not torch.equal(first[:learned], second[:learned])


def test_attention_by_hand() -> None:
    """Two rows of two tokens, one head of width 1. Token 2 of row 1 weighs its keys e^0 and e^ln3: 1/4, 3/4."""
    query = torch.tensor([1.0, 1.0, 1.0, 1.0]).view(1, 1, 4, 1)
    key = torch.tensor([0.0, math.log(3), 5.0, 5.0]).view(1, 1, 4, 1)
    value = torch.tensor([8.0, 4.0, 1.0, 3.0]).view(1, 1, 4, 1)
    out, _ = attend_rows(torch.nn.Module(), query, key, value, None, scaling=1.0, row_starts=(0, 2, 4),
                         row_parents=(-1, -1))
    # row 1: 8, then 8/4 + 3 * 4/4 = 5; row 2 does not see row 1: 1, then (1 + 3) / 2 = 2
    torch.testing.assert_close(out.flatten(), torch.tensor([8.0, 5.0, 1.0, 2.0]))


def test_head_by_hand() -> None:
    """Logits (0, ln 3) for a hidden state of 1: the second token has probability 3/4.

    d log p_2 / dh = w_2 - (p_1 w_1 + p_2 w_2) = ln 3 - 3/4 ln 3 = ln 3 / 4.
    """
    linear = torch.nn.Linear(1, 2, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.tensor([[0.0], [math.log(3)]]))
    hidden = torch.ones(1, 1, requires_grad=True)
    logp = log_probabilities(hidden, torch.tensor([1]), Head(linear))
    torch.testing.assert_close(logp, torch.tensor([math.log(3 / 4)]))
    logp.sum().backward()
    torch.testing.assert_close(hidden.grad, torch.tensor([[math.log(3) / 4]]))


@pytest.mark.parametrize("trained", (False, True))
@pytest.mark.parametrize(("rows", "width", "vocabulary"), ((1, 3, 5), (31, 47, 123), (7, 8, 9)))
@pytest.mark.parametrize(("scale", "softcap", "bias"), ((1.0, None, False), (0.3, None, True), (1.7, 2.0, False)))
def test_head_against_log_softmax(trained: bool, rows: int, width: int, vocabulary: int, scale: float,
                                  softcap: float | None, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients equal plain log_softmax on odd shapes, in chunks of 4 rows, with weights from above."""
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 4 * vocabulary * 4)
    torch.manual_seed(1)
    linear = torch.nn.Linear(width, vocabulary, bias=bias).requires_grad_(trained)
    hidden = torch.randn(rows, width, requires_grad=True)
    targets, above = torch.randint(vocabulary, (rows,)), torch.randn(rows)

    def reference() -> torch.Tensor:
        logits = linear(hidden) * scale
        logits = softcap * torch.tanh(logits / softcap) if softcap else logits
        return logits.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]

    def run(compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, ...]:
        hidden.grad = linear.weight.grad = None
        values = compute()
        (values * above).sum().backward()
        assert hidden.grad is not None
        grads = (hidden.grad,) if linear.weight.grad is None else (hidden.grad, linear.weight.grad)
        return values.detach(), *(grad.clone() for grad in grads)

    expected = run(reference)
    found = run(lambda: log_probabilities(hidden, targets, Head(linear, scale, softcap)))
    assert len(found) == 2 + trained
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_head_in_bfloat16() -> None:
    """In bfloat16 the fast head differs from float32 log_softmax of the same logits by under 1e-3 on average."""
    torch.manual_seed(2)
    linear = torch.nn.Linear(64, 2000, bias=False).requires_grad_(False).bfloat16()
    hidden = (torch.randn(200, 64) * 4).bfloat16()
    logits = linear(hidden)
    targets = logits.float().softmax(-1).multinomial(1)[:, 0]
    expected = logits.float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    found = log_probabilities(hidden, targets, Head(linear))
    assert float((found - expected).abs().mean()) < 1e-3


def test_no_learned_tokens_in_a_batch() -> None:
    """A batch in which nothing is learned gives no log-probabilities, and no error."""
    model = random_model("llama")
    empty = Rendered(np.arange(3, 9), ())
    assert len(Policy(model).log_probabilities(collate([empty]))) == 0


def test_casting_leaves_the_rotary_frequencies(tiny: Path) -> None:
    """The fastest rotary angles turn by hundreds of radians: with bfloat16 frequencies they would be wrong by some."""
    model = load_model(tiny, torch.float32, CPU)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    cast_weights(model, torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert before and all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
