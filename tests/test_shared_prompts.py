"""A prompt that several answers share is computed once: the same numbers and gradients as row by row, in less work.

Rows of one place in the data form a tree (the prompt, and from it each answer); what a token sees is its own path.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from truetune.data.batches import collate
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.model.policy import Policy
from truetune.objectives.objective import Wants, per_row

HERE, THERE = Place("f:", 1), Place("f:", 2)


def row(prompt: list[int], answer: list[int], place: Place = HERE) -> Rendered:
    return Rendered(np.array(prompt + answer), (Run(len(prompt), len(prompt) + len(answer), 1.0),), place=place)


def test_a_pair_by_hand() -> None:
    """Prompt `7 8 9` with the answers `4 5` and `4 6 2`. They begin with the same token, which is shared as well:

    segment     0           | 1 | 2           each of the last two goes on from the first
    place       0  1  2  3  | 4 | 5  6
    id          7  8  9  4  | 5 | 6  2
    position    0  1  2  3  | 4 | 4  5
    """
    batch = collate([row([7, 8, 9], [4, 5]), row([7, 8, 9], [4, 6, 2])], share=True)
    assert batch.ids.tolist() == [[7, 8, 9, 4, 5, 6, 2]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 4, 5]]
    assert (batch.starts, batch.parents) == ((0, 4, 5, 7), (-1, 0, 0))
    assert batch.targets.tolist() == [4, 5, 4, 6, 2] and batch.rows.tolist() == [0, 0, 1, 1, 1]
    assert batch.sources.tolist() == [2, 3, 2, 3, 5]  # both answers are predicted from the shared end of the prompt
    assert batch.ends.tolist() == [4, 6]
    assert (batch.size, batch.tokens) == (2, 7)


def test_what_is_shared_and_what_is_not() -> None:
    """Neighbours of one place share; others do not, nor rows that begin differently; a row within another keeps a
    token of its own."""
    apart = collate([row([7, 8], [4]), row([7, 8], [5], THERE)], share=True)
    assert apart.parents == (-1, -1) and apart.tokens == 6
    other = collate([row([7, 8], [4]), row([9, 8], [5])], share=True)
    assert other.parents == (-1, -1)
    within = collate([row([7, 8], [4]), row([7, 8], [4, 5])], share=True)
    assert (within.starts, within.parents) == ((0, 2, 3, 5), (-1, 0, 0))
    assert collate([row([7, 8], [4]), row([7, 8], [5])]).parents == (-1, -1)  # unless asked


def tiny_model(kind: str, **more: Any) -> Any:
    """A random model of a real architecture. Its weights are large enough for attention to matter."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                                  num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=256,
                                  **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **more})
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(4)
    return model.eval()


def pairs() -> list[Rendered]:
    """Pairs and a triple, with prompts of 1 to 70 tokens and answers of 1 to 40."""
    draw = np.random.default_rng(1)
    rows = []
    for number, (prompt, *answers) in enumerate([(70, 9, 40), (1, 3, 1), (33, 20, 20, 7), (12, 1, 30)], start=1):
        start = draw.integers(3, 97, prompt).tolist()
        rows += [row(start, draw.integers(3, 97, length).tolist(), Place("f:", number)) for length in answers]
    return rows


@pytest.mark.parametrize(("kind", "more"), [
    ("llama", {}), ("qwen3", {}), ("gemma2", {"sliding_window": 20, "query_pre_attn_scalar": 8}),
    ("mistral", {"sliding_window": 16}), ("gemma3_text", {"sliding_window": 12, "query_pre_attn_scalar": 8})])
def test_loss_and_gradients_are_those_of_plain_transformers(kind: str, more: dict[str, Any]) -> None:
    """Windows that begin inside of the shared prompt, squashed scores and grouped heads included."""
    numbers = {}
    for name, fast in (("shared", True), ("plain", False)):
        model = tiny_model(kind, **more)
        policy = Policy(model, fast=fast, shares=True)
        batch = policy.lay_out(pairs())
        assert (batch.tokens < sum(map(len, pairs()))) == fast
        sums = per_row(policy.outputs(batch, Wants()).logp, batch)
        (sums * torch.arange(1.0, len(sums) + 1)).sum().backward()
        numbers[name] = sums.detach(), {name: weight.grad for name, weight in model.named_parameters()}
    (shared, gradients), (plain, right) = numbers["shared"], numbers["plain"]
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-4)
    for name, gradient in right.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


def test_numbers_at_the_ends_of_rows() -> None:
    """What a reward model reads: the hidden state of each row's last token, wherever that is laid out."""
    head = torch.nn.Linear(32, 1)
    wants = Wants(logp=False, values=True, ends=True)
    values = []
    for fast in (True, False):
        policy = Policy(tiny_model("llama"), fast=fast, shares=True, value_head=head)
        values.append(policy.outputs(policy.lay_out(pairs()), wants).values)
    assert values[0].shape == (9,)
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)


def test_a_model_that_cannot_share_is_found_out() -> None:
    """LFM2's convolutions run on from segment to segment; the comparison before the first step sees it by the numbers,
    and the way that is taken in the end gives those of plain transformers."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("lfm2", vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                                  num_attention_heads=4, num_key_value_heads=2, block_auto_adjust_ff_dim=False,
                                  layer_types=["conv", "full_attention", "conv"])
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)
    plain = Policy(deepcopy(model), fast=False)
    said: list[str] = []
    policy = Policy(model, shares=True)
    policy.verify(pairs(), lambda words: said.append(str(words)))
    assert len(said) == 2 and all("differs from plain transformers" in line for line in said)
    assert said[0].startswith("rows end to end, the prompt they share computed once")
    batch = policy.lay_out(pairs())
    assert batch.parents == (-1,) * 9
    with torch.no_grad():
        found, right = policy.log_probabilities(batch), plain.log_probabilities(collate(pairs()))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
