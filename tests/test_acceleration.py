"""Faster ways to compute, memory bought with time, and randomness that is on in training alone: each gives the numbers
of plain transformers, or a line says why it is not used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import options, write_rows
from test_policy import SIZES, plainly, random_model, row
from torch._dynamo.utils import counters
from transformers import LlamaConfig

from truetune.check.preflight import preflight
from truetune.check.room import Batches, Device, need, settle_checkpointing
from truetune.check.shape import shape_of
from truetune.data.batches import collate
from truetune.findings import Both, Problem
from truetune.model.accelerate import Speedup, pick_speedups, speedup_findings
from truetune.model.attention import KERNELS, kernel_findings, kernel_of
from truetune.model.base import load_base
from truetune.model.memory import compute_again
from truetune.model.noise import Noise, set_attention_dropout
from truetune.model.policy import Policy
from truetune.model.precision import pick_precision
from truetune.options import Config
from truetune.options.read import read_config

CPU = torch.device("cpu")
ROWS = [row(length, seed) for seed, length in enumerate((15, 24, 8))]


def configured(**values: object) -> Config:
    config, findings = read_config(options(use_cpu=True, **values))
    assert not findings
    return config


def gradients(policy: Policy, lengths: tuple[int, ...] = (15, 24, 8)) -> list[torch.Tensor]:
    policy.causal.zero_grad()
    batch = collate([row(length, seed) for seed, length in enumerate(lengths)])
    policy.log_probabilities(batch).sum().backward()
    return [weight.grad.clone() for weight in policy.causal.parameters() if weight.grad is not None]


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()) + 1e-7)


# ---------------------------------------------------------------------------------------------------------- faster ways


def test_compiled_layers_give_the_same_and_are_compiled_once() -> None:
    """Loss and gradients of the layers as they are; batches of other lengths need no new compiling. (The compiler's
    front half, without its C++ code, which takes half a minute.)"""
    torch._dynamo.reset()
    model = random_model("llama")
    reference = Policy(plainly(model))
    speedups = pick_speedups(model, configured(torch_compile_backend="aot_eager"), CPU)
    policy, said = Policy(model, speedups=speedups), []
    policy.verify(ROWS, said.append)
    assert not said and len(policy.speedups) == 1
    assert_close(gradients(policy), gradients(reference))
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    for lengths in ((9, 30), (21, 5, 17, 12), (33, 7, 8)):
        assert_close(gradients(policy, lengths), gradients(reference, lengths))
    assert counters["stats"]["unique_graphs"] <= compiled + 1
    with policy.generating() as plain:
        assert all(layer._compiled_call_impl is None for layer in plain.model.layers)
    torch._dynamo.reset()


@pytest.mark.parametrize("fault", ("values", "gradients", "fails"))
def test_what_is_faster_and_wrong_is_switched_off(fault: str) -> None:
    """Layers that give other numbers, other gradients or an error: one line, and the layers as they are."""
    model = random_model("llama")
    hooks: list[Callable[[], None]] = []

    def change(module: torch.nn.Module, args: object, hidden: torch.Tensor) -> torch.Tensor:
        if fault == "fails":
            raise RuntimeError("no kernel for this")
        return hidden * 1.5 if fault == "values" else hidden.detach() + 0.5 * (hidden - hidden.detach())

    def on() -> None:
        hooks.append(model.model.layers[0].mlp.register_forward_hook(change).remove)

    def off() -> None:
        while hooks:
            hooks.pop()()

    policy, said = Policy(model, speedups=[Speedup(Both("wrong layers", "错误的层"), on, off)]), []
    policy.verify(ROWS, said.append)
    (line,) = said
    says = {"values": "differs from plain", "gradients": "gradients that are", "fails": "no kernel for this"}[fault]
    assert str(line).startswith("wrong layers: ") and says in str(line) and "错误的层" in line.zh
    assert not policy.speedups and len(policy.ways) == 3 and not hooks
    assert_close(gradients(policy), gradients(Policy(plainly(model))))


@pytest.mark.parametrize(("option", "value", "why"), (
    ("flash_attn", "fa2", "runs on NVIDIA GPUs"), ("flash_attn", "fa3", "runs on NVIDIA GPUs"),
    ("flash_attn", "flex", "none backward"), ("enable_liger_kernel", "true", "run on GPUs"),
    ("torch_compile_backend", "swift", "no backend swift")))
def test_what_cannot_be_had_here_is_one_line(option: str, value: str, why: str) -> None:
    """A library that is not for this machine is left out, and the run goes on the way it would without."""
    config = configured(**{option: value})
    (finding,) = [*kernel_findings(config, CPU), *speedup_findings(config, CPU)]
    assert why in str(finding.message) and finding.severity == "info" and "\n" not in finding.line(chinese=True)
    assert kernel_of(config, CPU) is KERNELS["auto"] and not pick_speedups(random_model("llama"), config, CPU)


def test_sdpa_is_ours_row_by_row() -> None:
    model, said = random_model("llama"), []
    reference, policy = Policy(plainly(model)), Policy(model, kernel=KERNELS["sdpa"])
    policy.verify(ROWS, said.append)
    assert not said and model.config._attn_implementation == "truetune_rows_sdpa"
    assert_close(gradients(policy), gradients(reference))


def test_a_kernel_that_fails_gives_way_to_ours() -> None:
    """flex has no backward pass on the CPU: taken all the same, the comparison finds it, and ours is used."""
    model, said = random_model("llama"), []
    reference, policy = Policy(plainly(model)), Policy(model, kernel=KERNELS["flex"])
    policy.verify(ROWS, said.append)
    assert len(said) == 1 and str(said[0]).startswith("flex attention: fails on this model")
    assert policy.kernel is KERNELS["auto"] and len(policy.ways) == 3
    assert_close(gradients(policy), gradients(reference))


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("frozen", (False, True))
def test_layers_that_are_computed_again_either_way(frozen: bool) -> None:
    """The older and the newer way of checkpointing: the same gradients, also where the embeddings need none."""
    found = []
    for wanted in (None, {"use_reentrant_gc": "false"}, {"use_reentrant_gc": "true"}):
        model = random_model("llama").train()
        if frozen:
            model.model.embed_tokens.requires_grad_(False)
            model.lm_head.requires_grad_(False)
        if wanted:
            compute_again(model, configured(**wanted), CPU)
            assert model.is_gradient_checkpointing
        found.append(gradients(Policy(model)))
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])


def test_the_page_and_the_run_agree_on_checkpointing(tiny: Path, tmp_path: Path) -> None:
    """Left open it is decided by the page's own prediction: off where that fits, on where it does not."""
    data = write_rows(tmp_path / "rows.json", 16)
    config = configured(model_name_or_path=tiny, dataset=data, bf16="false")
    ready = preflight(config, print)
    assert ready.config.gradient_checkpointing is False and "predicted" in (
        ready.config.origin("gradient_checkpointing") or "")
    shape = shape_of(tiny, config, pick_precision(config, CPU))
    rows = ready.train
    memory = need(shape, Batches.of(rows, config), config.rows_at_once, config, Device.here(CPU))
    assert f"{memory.peak / 1e9:.1f}"[:1] in str(ready.config.origin("gradient_checkpointing"))

    class Endless:
        """Rows of a million tokens each."""

        lengths, learned = rows.lengths * 0 + 10**7, rows.learned

    settled, said = settle_checkpointing(config, tiny, Endless())  # pyright: ignore[reportArgumentType]
    assert settled.gradient_checkpointing is True and [finding.id for finding in said] == ["checkpointing-on"]
    offloading = settle_checkpointing(config.with_values("x", activation_offload=True), tiny, rows)[0]
    assert offloading.gradient_checkpointing is True


def test_random_weights_are_those_of_the_seed(tiny: Path) -> None:
    """train_from_scratch: the shapes of the model, none of its numbers; the same for the same seed."""
    given = {"model_name_or_path": tiny, "finetuning_type": "full"}
    random = {"train_from_scratch": "true"}
    plain, one, again, other = (load_base(tiny, configured(**given, **more), torch.float32, CPU).state_dict()
                                for more in ({}, random, random, {**random, "seed": 7}))
    name = "model.layers.0.mlp.up_proj.weight"
    assert plain.keys() == one.keys() and plain[name].shape == one[name].shape
    assert torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name])
    assert not torch.allclose(one[name], plain[name], atol=1e-2)


# ----------------------------------------------------------------------------------------------------- in training only


def test_neftune_by_hand() -> None:
    """Uniform noise up to alpha / sqrt(L d) on each row's embeddings, with the row's own L although rows lie end to
    end; the same again from the same random numbers; none while the model is compared, evaluated or generates."""
    model, alpha = random_model("llama"), 6.0
    seen: list[torch.Tensor] = []
    noise = Noise(model.get_input_embeddings(), alpha)
    model.model.embed_tokens.register_forward_hook(lambda module, args, out: seen.append(out.detach()[0]))
    policy, said = Policy(model, noise=noise), []
    policy.verify(ROWS, said.append)
    rows = [row(400, 1), row(25, 2)]
    batch = collate(rows)
    assert not said
    seen.clear()
    for train, still in ((False, False), (True, True), (True, False), (True, False)):
        model.train(train)
        torch.manual_seed(3)
        if still:
            with policy.still():
                policy.log_probabilities(batch)
        else:
            policy.log_probabilities(batch)
    evaluated, asked, first, second = seen
    plain = model.model.embed_tokens.weight[batch.ids[0]].detach()
    assert torch.equal(evaluated, plain) and torch.equal(asked, plain) and torch.equal(first, second)
    for place, length in ((slice(0, 400), 400), (slice(400, 425), 25)):
        added, bound = (first - plain)[place], alpha / (length * SIZES["hidden_size"]) ** 0.5
        assert float(added.abs().max()) <= bound * 1.001
        assert float(added.std()) == pytest.approx(bound / 3**0.5, rel=0.1)


def test_attention_dropout() -> None:
    """It changes what is computed in training, and nothing else; a model that knows none says so."""
    model = random_model("llama")
    policy, batch = Policy(model), collate(ROWS)
    with torch.no_grad():
        before = policy.log_probabilities(batch)
        set_attention_dropout(model, configured(attention_dropout=0.5))
        assert torch.equal(policy.log_probabilities(batch), before)
        model.train()
        assert not torch.allclose(policy.log_probabilities(batch), before, atol=1e-2)
    with pytest.raises(Problem, match="has no dropout"):
        set_attention_dropout(torch.nn.Linear(2, 2), configured(attention_dropout=0.5))  # pyright: ignore


def test_a_plain_config_has_no_dropout() -> None:
    assert LlamaConfig().attention_dropout == 0.0 and Config().attention_dropout is None
