"""Every optimizer that `optim` and the switches name: it learns, holds the state that is reckoned with, goes on
exactly, and, where it is ours, does what its paper says, by hand arithmetic or against a library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
import torch
from conftest import events, options, write_rows
from safetensors.torch import load_file, save_file
from transformers import Adafactor, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from truetune.cli import main
from truetune.findings import Problem
from truetune.model.load import load_model
from truetune.model.methods import METHODS, trainable
from truetune.model.precision import Precision
from truetune.optim import Optimizer, make_optimizer, optimizer_findings
from truetune.optim.blocks import turn
from truetune.optim.make import state_bytes
from truetune.optim.table import RECIPES
from truetune.options import Config
from truetune.options.optimizer import OptimizerName
from truetune.options.optimizers import OPTIMIZERS, SWITCHES, chosen, in_backward, kind_of

FP32 = Precision(torch.float32, master=False, scaled=False, reason="")
BF16 = Precision(torch.bfloat16, master=True, scaled=False, reason="")
PLAIN = {"finetuning_type": "full", "lr_scheduler_type": "constant", "max_grad_norm": 0}
OF_SWITCH = {"muon": {"use_muon": True}, "adam_mini": {"use_adam_mini": True},
             "badam": {"use_badam": True, "badam_switch_interval": 2}}
NAMES = [name for name, kind in OPTIMIZERS.items() if not kind.refused]
RATES = {"sgd": 0.5, "lomo": 0.5, "schedule_free_sgd": 0.5}
"""Learning rates of those whose steps are as long as the gradient; the others take 0.01."""


@pytest.fixture(autouse=True, scope="module")
def uncompiled() -> object:
    """torchao compiles its steps, which takes half a minute: here they are computed as they are written."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    """Optimizers of optional packages are tested where these are."""
    kind = OPTIMIZERS.get(request.getfixturevalue("name")) if "name" in request.fixturenames else None
    if kind and kind.package:
        pytest.importorskip(kind.package[0], reason=f"pip install {kind.package[1]}")


def config_of(name: str, **more: object) -> Config:
    """The optimizer `name`, by the option that asks for it."""
    asked = OF_SWITCH.get(name) or {"optim": name}
    config = Config(**{**PLAIN, "learning_rate": RATES.get(name, 0.01), **asked, **more})
    assert chosen(config) == name
    return config


def small_model() -> PreTrainedModel:
    """A Llama with numbers drawn at random, of matrices large enough to be held in 8 bits."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=384, hidden_size=128, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False))


def begin(model: PreTrainedModel, config: Config, precision: Precision = FP32) -> Optimizer:
    """An optimizer of all that requires a gradient, the model cast as a run casts it."""
    optimizer = make_optimizer(model, trainable(model), config, precision, 100)
    model.to(precision.dtype)
    optimizer.make_room()
    return optimizer


def steps(model: PreTrainedModel, optimizer: Optimizer, numbers: range) -> list[float]:
    """Steps on tokens that depend on their number alone; the losses, a token."""
    losses = []
    for number in numbers:
        ids = torch.randint(384, (2, 12), generator=torch.Generator().manual_seed(number))
        loss = model(input_ids=ids, labels=ids).loss * 22
        optimizer.backward(loss, 22.0)
        optimizer.step(22.0)
        losses.append(loss.item() / 22)
    return losses


def test_the_tables_agree() -> None:
    """Every word of `optim` is known and either refused with a reason or has a recipe; switches lead to known ones."""
    assert {*get_args(OptimizerName), *OF_SWITCH} == set(OPTIMIZERS)
    assert set(RECIPES) == set(NAMES)
    assert {name for takes in SWITCHES.values() for name in takes.values()} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_learns_moves_and_holds(name: str) -> None:
    """Three steps (more of schedule-free RAdam, whose first ones are 0 long): the loss is finite, every weight that is
    to train moves, and the state is of the size that is reckoned with, within 10 %."""
    model, config = small_model(), config_of(name)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    reckoned = state_bytes(model, before, config, 4)
    optimizer = begin(model, config)
    losses = steps(model, optimizer, range(7 if kind_of(config).averages else 3))
    assert all(0 < loss < 100 for loss in losses)
    still = [key for key, weight in model.named_parameters() if torch.equal(weight, before[key])]
    assert still == (["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"] if name == "badam" else [])
    held = sum(tensor.numel() * tensor.element_size() for key, tensor in optimizer.state()[0].items()
               if not key.startswith(("weight.", "other.")))
    assert held == pytest.approx(reckoned, rel=0.1, abs=0.02 * 4 * sum(weight.numel() for weight in before.values()))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_on_a_convex_problem(name: str) -> None:
    """|W X - Y|², where every way down leads to the same place: 40 steps take at least half of it."""
    net = torch.nn.Module()
    net.layers = torch.nn.ModuleList([torch.nn.Linear(12, 12, bias=False)])
    net.config = LlamaConfig(num_attention_heads=2, num_key_value_heads=2)
    torch.manual_seed(0)
    inputs, wanted = torch.randn(64, 12), torch.randn(12, 12)
    more = {"optim_args": "scale=1.0"} if kind_of(config_of(name)).low_rank else {}
    rate = {"adalomo": 0.2, "muon": 0.2, "schedule_free_radam": 0.5}.get(name, RATES.get(name, 0.05))
    optimizer = make_optimizer(net, trainable(net), config_of(name, learning_rate=rate, **more), FP32, 40)
    losses = []
    for _ in range(40):
        loss = (net.layers[0](inputs) - inputs @ wanted.T).square().mean(1).sum()
        optimizer.backward(loss, 64.0)
        optimizer.step(64.0)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_exactly(name: str, tmp_path: Path) -> None:
    """Six steps, against three, the state through files, and three more in a fresh process's place: the same bits."""
    config = config_of(name, weight_decay=0.01, warmup_steps=2, lr_scheduler_type="linear",
                       optim_args="update_proj_gap=2, rank=8" if kind_of(config_of(name)).low_rank else None)
    straight = small_model()
    steps(straight, begin(straight, config, BF16), range(6))
    first = small_model()
    optimizer = begin(first, config, BF16)
    steps(first, optimizer, range(3))
    tensors, numbers = optimizer.state()
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "state.safetensors")
    second = small_model()
    for weight in second.parameters():
        weight.data.fill_(0.5)
    optimizer = begin(second, config, BF16)
    optimizer.load_state(load_file(tmp_path / "state.safetensors"), json.loads(json.dumps(numbers)))
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))
    steps(second, optimizer, range(3, 6))
    assert all(torch.equal(*pair) for pair in zip(straight.parameters(), second.parameters(), strict=True))


@pytest.fixture(scope="module")
def real(tiny: Path) -> tuple[PreTrainedModel, Mapping[str, torch.Tensor]]:
    """Two layers of the real model, and its weights to begin from."""
    model = load_model(tiny, torch.float32, torch.device("cpu"))
    return model, {name: weight.detach().clone() for name, weight in model.state_dict().items()}


FULL = [name for name in NAMES
        if kind_of(config_of(name)).low_rank or in_backward(config_of(name)) or name in OF_SWITCH]
"""Those that are for full fine-tuning, by what they save."""


@pytest.mark.parametrize("name", NAMES)
def test_the_real_model_learns(name: str, tiny: Path,
                               real: tuple[PreTrainedModel, Mapping[str, torch.Tensor]]) -> None:
    """Steps on one sentence make it likelier: those for full fine-tuning train the layers whole, the others LoRA."""
    model, weights = real
    usual = 3e-4 if name in FULL else 3e-3
    rate = {"lomo": 0.02, "adalomo": 2e-3, "sgd": 0.01, "schedule_free_sgd": 0.01}.get(
        name, usual / 10 if name.startswith("rmsprop") else usual)
    targets = {"optim_target_modules": ("q_proj",)} if name not in OF_SWITCH else {}
    config = config_of(name, learning_rate=rate, finetuning_type="full" if name in FULL else "lora", **targets)
    model.load_state_dict(weights)
    torch.manual_seed(0)
    tuned = METHODS[config.finetuning_type].prepare(model, config, tiny)
    if name in FULL:
        model.model.embed_tokens.requires_grad_(False)
    optimizer = make_optimizer(tuned, trainable(tuned), config, FP32, 10)
    ids = torch.tensor([[504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282, 4998, 314, 8015, 30]])
    losses = []
    for _ in range(8 if kind_of(config).averages else 3):
        loss = tuned(input_ids=ids, labels=ids).loss * 14
        losses.append(loss.item() / 14)
        optimizer.backward(loss, 14.0)
        optimizer.step(14.0)
    optimizer.release()
    if name not in FULL:
        tuned.unload()
    model.requires_grad_(False)
    assert losses[-1] < losses[0] < 20


# ---------------------------------------------------------------------------------------------------------------------
# Ours, by hand


def one_step(weights: dict[str, torch.nn.Parameter], gradients: dict[str, torch.Tensor], config: Config,
             model: torch.nn.Module | None = None, times: int = 1) -> Optimizer:
    """Steps with these gradients."""
    optimizer = make_optimizer(model or torch.nn.Module(), weights, config, FP32, 10)
    for _ in range(times):
        optimizer.backward(sum((weight * gradients[name]).sum() for name, weight in weights.items()), 1.0)
        optimizer.step(1.0)
    return optimizer


def linear(*shape: int) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    """A model of one layer of one linear module, of zeros."""
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"up": torch.nn.Linear(shape[1], shape[0], bias=False)})])
    torch.nn.init.zeros_(model.layers[0]["up"].weight)
    return model, dict(model.named_parameters())


def test_adam_mini_by_hand() -> None:
    """The first step is lr g / √mean(g²) of the block: a row of most matrices, a head of queries, a whole norm, one
    number of a bias."""
    up, queries, norm, bias = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (4, 1), (2,), (2,)))
    weights = {"layers.0.up_proj.weight": up, "layers.0.q_proj.weight": queries, "norm.weight": norm, "up.bias": bias}
    gradients = dict(zip(weights, (torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[1.0], [7.0], [2.0], [2.0]]),
                                   torch.tensor([1.0, 7.0]), torch.tensor([1.0, 7.0])), strict=True))
    model = torch.nn.Module()
    model.config = LlamaConfig(num_attention_heads=2, num_key_value_heads=2)
    one_step(weights, gradients, Config(**PLAIN, use_adam_mini=True, learning_rate=0.1), model)
    half, five = 0.5**0.5, 12.5**0.5
    torch.testing.assert_close(up.detach(), -0.1 * torch.tensor([[3 / five, 4 / five], [1 / half, 0.0]]))
    torch.testing.assert_close(queries.detach()[:, 0], -0.1 * torch.tensor([1 / 5, 7 / 5, 1.0, 1.0]))
    torch.testing.assert_close(norm.detach(), -0.1 * torch.tensor([1 / 5, 7 / 5]))
    torch.testing.assert_close(bias.detach(), -0.1 * torch.tensor([1.0, 1.0]))


@pytest.mark.parametrize("side", ("std", "reverse_std", "left", "right", "full"))
@pytest.mark.parametrize("shape", ((3, 2), (2, 3)))
def test_galore_by_hand(shape: tuple[int, int], side: str) -> None:
    """A gradient of rank 1, 5 u vᵀ with u along one edge and v along the other: its picture is 5 in one place, of which
    Adam's first step is 1, and back comes u vᵀ. So W = -lr α u vᵀ, whichever edge is projected."""
    model, weights = linear(*shape)
    gradient = torch.zeros(shape)
    gradient[1, 0] = 5.0
    config = Config(**PLAIN, use_galore=True, galore_rank=1, galore_scale=2.0, galore_proj_type=side, learning_rate=0.1)
    optimizer = one_step(weights, {name: gradient for name in weights}, config, model)
    torch.testing.assert_close(next(iter(weights.values())).detach(), -0.2 * gradient / 5)
    tall = shape[0] > shape[1]
    kept = {"std": tall, "reverse_std": not tall, "left": False, "right": True, "full": None}[side]
    pictured = optimizer.state()[0]["picture.exp_avg.layers.0.up.weight"].shape
    assert pictured == ((1, 1) if kept is None else (shape[0], 1) if kept else (1, shape[1]))


def test_galore_looks_anew_every_interval() -> None:
    """With an interval of 2 the directions of steps 1 and 2 are the same, of step 3 those of its own gradient."""
    model, weights = linear(4, 3)
    config = Config(**PLAIN, use_galore=True, galore_rank=1, galore_update_interval=2)
    optimizer, seen = make_optimizer(model, weights, config, FP32, 10), []
    for number in range(3):
        gradient = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        optimizer.backward((weights["layers.0.up.weight"] * gradient).sum(), 1.0)
        optimizer.step(1.0)
        seen.append(optimizer.state()[0]["right.layers.0.up.weight"].clone())
    strongest = torch.linalg.svd(gradient).Vh[:1]
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    torch.testing.assert_close(seen[2].abs(), strongest.abs())


@pytest.mark.parametrize(("kind", "expected"), (("channel", [1 / 5, 1 / 10]), ("tensor", [(2 / 125) ** 0.5] * 2)))
def test_apollo_by_hand(kind: str, expected: list[float]) -> None:
    """With P of full rank, by SVD, a row keeps its length: (3, 4) is 5 long, (8, -6) 10. Adam's first step of any
    picture is ±1 where that is not 0. Rows of this gradient are its singular directions, so each picture is one number:
    rows are scaled by 1 / 5 and 1 / 10, or all by √2 / √125; then by √16 and the learning rate."""
    model, weights = linear(2, 2)
    gradient = torch.tensor([[3.0, 4.0], [8.0, -6.0]])
    config = Config(**PLAIN, use_apollo=True, apollo_rank=2, apollo_proj="svd", apollo_scale=16.0, learning_rate=0.1,
                    apollo_scale_type=kind, adam_epsilon=1e-12)
    one_step(weights, {name: gradient for name in weights}, config, model)
    torch.testing.assert_close(next(iter(weights.values())).detach(),
                               -0.4 * gradient * torch.tensor(expected)[:, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("front", (False, True))
def test_apollo_limits_growth(front: bool) -> None:
    """Gradients G, -G and -G: in the second step Adam's mean nearly cancels, and in the third it would be eight times
    as long. It may be longer by 1.01 only, whether α comes before or after the limit."""
    model, weights = linear(4, 4)
    config = Config(**PLAIN, use_apollo=True, apollo_scale_front=front, learning_rate=0.1)
    optimizer, weight, lengths = make_optimizer(model, weights, config, FP32, 10), next(iter(weights.values())), []
    for size in (1, -1, -1):
        before = weight.detach().clone()
        gradient = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)) * size
        optimizer.backward((weight * gradient).sum(), 1.0)
        optimizer.step(1.0)
        lengths.append((weight.detach() - before).norm().item())
    assert lengths[1] < lengths[0] / 8
    assert lengths[2] / lengths[1] == pytest.approx(1.01, rel=1e-4)


def test_apollo_draws_the_same_again() -> None:
    """The random directions follow from the seed, the weight's name and the step."""
    found = []
    for seed in (1, 1, 2):
        model, weights = linear(6, 4)
        gradients = {name: torch.ones(6, 4) for name in weights}
        optimizer = one_step(weights, gradients, Config(**PLAIN, use_apollo=True, apollo_rank=2, seed=seed), model)
        found.append(optimizer.state()[0]["right.layers.0.up.weight"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


@pytest.mark.parametrize(("given", "expected"), (
    ({}, [0, 0, 1, 1, 2, 2, 0]), ({"badam_switch_mode": "descending"}, [2, 2, 1, 1, 0, 0, 2]),
    ({"badam_start_block": 1}, [1, 1, 2, 2, 0, 0, 1]),
    ({"badam_switch_mode": "fixed", "badam_start_block": 2}, [2] * 7), ({"badam_switch_interval": -1}, [0] * 7),
))
def test_badams_turns(given: dict[str, object], expected: list[int]) -> None:
    config = Config(**{"use_badam": True, "badam_switch_interval": 2, **given})
    assert [turn(step, 3, config) for step in range(7)] == expected


def test_badam_at_random_visits_every_block_once_a_round() -> None:
    config = Config(use_badam=True, badam_switch_interval=1, badam_switch_mode="random", seed=3)
    order = [turn(step, 4, config) for step in range(12)]
    assert [sorted(order[start:start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    assert len({tuple(order[start:start + 4]) for start in (0, 4, 8)}) > 1


def test_badam_trains_one_layer_at_a_time() -> None:
    """Only the layer whose turn it is has gradients, masters and moments; the schedule goes on; released, all train."""
    model, config = small_model(), config_of("badam", lr_scheduler_type="linear")
    optimizer = begin(model, config, BF16)
    for number, layer in enumerate(("layers.0.", "layers.0.", "layers.1.")):
        assert all(layer in name for name in optimizer.masters) and len(optimizer.masters) == 9
        assert [name for name in trainable(model)] == list(optimizer.masters)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        assert optimizer.learning_rate == pytest.approx(0.01 * (1 - number / 100))
        steps(model, optimizer, range(number, number + 1))
        moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
        assert moved and all(layer in name for name in moved)
    optimizer.release()
    assert all(weight.requires_grad for weight in model.parameters())


def test_lomo_by_hand() -> None:
    """SGD on the mean gradient, done when the backward pass is: 1 - 0.1 * 6 / 3; no gradient is left."""
    weight = torch.nn.Parameter(torch.ones(1, 1))
    optimizer = make_optimizer(torch.nn.Module(), {"w": weight}, config_of("lomo", learning_rate=0.1), FP32, 10)
    optimizer.backward((6 * weight).sum(), 3.0)
    assert weight.item() == pytest.approx(0.8) and weight.grad is None
    assert optimizer.step(3.0) == pytest.approx(2.0)


def test_adalomo_is_adafactor_in_the_backward_pass() -> None:
    """The same as transformers' Adafactor with steps in proportion to each matrix, on the mean gradients."""
    ours, theirs = (torch.nn.Parameter(torch.arange(1.0, 7.0).view(2, 3)) for _ in range(2))
    optimizer = make_optimizer(torch.nn.Module(), {"w": ours}, config_of("adalomo"), FP32, 10)
    adafactor = Adafactor([theirs], lr=0.01, scale_parameter=True, relative_step=False)
    for _ in range(3):
        optimizer.backward((ours**3).sum(), 4.0)
        optimizer.step(4.0)
        ((theirs**3).sum() / 4).backward()
        adafactor.step()
        adafactor.zero_grad()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ("adamw_torch", "muon", "galore_adamw", "adamw_8bit", "grokadamw", "stable_adamw"))
@pytest.mark.parametrize("precision", (FP32, BF16))
def test_in_the_backward_pass_the_same_is_learned(name: str, precision: Precision) -> None:
    """Stepped weight by weight or all at once, where nothing is clipped: equal but for rounding. (GrokAdamW's β₁ falls
    with a weight's place, and every weight is the first here.)"""
    found = []
    for backward in (False, True):
        model = small_model()
        gamma = {"optim_args": "gamma=0.0"} if name == "grokadamw" else {}
        optimizer = begin(model, config_of(name, optimizer_in_backward=backward, **gamma), precision)
        found.append(steps(model, optimizer, range(4)))
        assert all(weight.grad is None for weight in model.parameters())
    assert found[0] == pytest.approx(found[1], abs=2e-5 if precision is FP32 else 0.02)


def test_muon_is_for_matrices_inside_layers() -> None:
    """They step as torch's Muon steps them alone, to the bit; embeddings and vectors as AdamW does."""
    torch.manual_seed(0)
    inside, outside, norm = (torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 6), (5, 4), (4,)))
    weights = {"model.layers.0.up.weight": inside, "model.embed.weight": outside, "model.layers.0.norm.weight": norm}
    alone = {name: torch.nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    config = Config(**PLAIN, use_muon=True, learning_rate=0.1, weight_decay=0.1)
    gradients = {name: torch.randn_like(weight) for name, weight in weights.items()}
    one_step(weights, gradients, config, times=2)
    first, *rest = alone.values()
    theirs = [torch.optim.Muon([first], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
              torch.optim.AdamW([{"params": rest[:1], "weight_decay": 0.1}, {"params": rest[1:]}], lr=0.1,
                                weight_decay=0.0)]
    for _ in range(2):
        for name, weight in alone.items():
            weight.grad = gradients[name].clone()
        for each in theirs:
            each.step()
    assert all(torch.equal(weights[name], alone[name]) for name in weights)


def test_grokadamw_by_hand() -> None:
    """Gradients 1 and 1: each made 1 + 2 * 0.02 = 1.04. Adam's first step of any gradient is lr; the second weight of a
    group has β₁ = 0.9 * 0.9, so m is 0.19 of it where the correction is for 0.1: 1.9 lr."""
    first, second = (torch.nn.Parameter(torch.zeros(1, 1)) for _ in range(2))
    one_step({"a": first, "b": second}, {"a": torch.ones(1, 1), "b": torch.ones(1, 1)},
             config_of("grokadamw", learning_rate=0.1))
    assert (first.item(), second.item()) == pytest.approx((-0.1, -0.19))


def test_lora_plus_by_hand() -> None:
    """AdamW's first step is the learning rate: A's, 16 times as much for B and for vectors, and that of embeddings."""
    names = ("lora_A.default.weight", "lora_B.default.weight", "lora_magnitude_vector.default.weight",
             "lora_embedding_B.default")
    weights = {f"base.layers.0.q.{name}": torch.nn.Parameter(torch.zeros((2,) if "vector" in name else (2, 2)))
               for name in names}
    config = Config(lr_scheduler_type="constant", learning_rate=0.01, loraplus_lr_ratio=16, loraplus_lr_embedding=0.5)
    optimizer = one_step(weights, {name: torch.ones_like(weight) for name, weight in weights.items()}, config)
    assert [-weight.flatten()[0].item() for weight in weights.values()] == pytest.approx([0.01, 0.16, 0.16, 0.5])
    assert optimizer.learning_rate == 0.01


@pytest.mark.parametrize("name", ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"))
def test_schedule_free_weights_are_shown_and_put_back(name: str) -> None:
    """What is evaluated, saved and spoken with is the average, as the library's own eval() makes it; afterwards every
    bit is as it was, and asking twice is the same."""
    model = small_model()
    optimizer = begin(model, config_of(name), BF16)
    steps(model, optimizer, range(8))
    trained = {key: master.detach().clone() for key, master in optimizer.masters.items()}
    rounded = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    with optimizer.shown(), optimizer.shown():
        shown = {key: master.detach().clone() for key, master in optimizer.masters.items()}
        assert all(torch.equal(weight, shown[key].bfloat16()) for key, weight in model.named_parameters())
    assert all(torch.equal(master, trained[key]) for key, master in optimizer.masters.items())
    assert all(torch.equal(weight, rounded[key]) for key, weight in model.named_parameters())
    assert not torch.equal(shown["lm_head.weight"], trained["lm_head.weight"])
    optimizer.inner.eval()
    assert all(torch.equal(master, shown[key]) for key, master in optimizer.masters.items())


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(("given", "words"), (
    ({"optim": "sgd", "optim_args": "momentun=0.9"}, "sgd does not take 'momentun'. Did you mean momentum?"),
    ({"optim": "sgd", "optim_args": "lr=0.9"}, "sgd does not take 'lr'. It is an option of its own: learning_rate."),
    ({"optim": "adam_mini", "use_adam_mini": True, "optim_args": "x=1"}, "adam_mini does not take 'x'. It takes none."),
    ({"optim_args": "amsgrad"}, "'amsgrad' is not name=value."),
    ({"optim": "galore_adamw", "optim_args": "proj_type=up"}, "proj_type is 'up', and not one of std, reverse_std"),
    ({"optim": "sgd", "optim_args": "momentum=-1"}, "'momentum=-1' is refused: Invalid momentum value"),
    ({"optim": "apollo_adamw", "optim_target_modules": "gate"}, "is called gate. There are up."),
    ({"use_badam": True, "badam_start_block": 7}, "block 7 is asked for, and the model has 1, from 0."),
))
def test_wrong_settings(given: dict[str, object], words: str) -> None:
    model, weights = linear(2, 2)
    given = {**given, "optim": "adamw_torch"} if "use_adam_mini" in given else given
    with pytest.raises(Problem) as caught:
        make_optimizer(model, weights, Config(**PLAIN, **given), FP32, 10)
    assert words in caught.value.findings[0].line() and caught.value.status == 2
    assert caught.value.findings[0].line(chinese=True).isascii() is False


def test_settings_are_told_before_a_model_is_loaded() -> None:
    assert optimizer_findings(Config(do_train=True, optim="sgd", optim_args="momentum=0.9,nesterov=true")) == []
    found = optimizer_findings(Config(do_train=True, optim="sgd", optim_args="nestrov=true"))
    assert [finding.option for finding in found] == ["optim_args"]


def test_a_method_that_looks_at_gradients_needs_them() -> None:
    model, weights = linear(2, 2)
    with pytest.raises(Problem, match="looks at gradients after a step"):
        make_optimizer(model, weights, Config(finetuning_type="adalora", optim="lomo"), FP32, 10, METHODS["adalora"])


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs

RUNS = {
    "schedule_free_adamw": {"optim": "schedule_free_adamw", "finetuning_type": "lora", "learning_rate": 3e-3},
    "galore": {"use_galore": True, "galore_layerwise": True, "galore_target": "k_proj", "galore_update_interval": 2,
               "freeze_trainable_layers": 1},
    "badam": {"use_badam": True, "badam_switch_interval": 1},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_sent_back_and_comes_to_the_same(name: str, tiny: Path, tmp_path: Path) -> None:
    """`truetune train` for three steps; sent back to the checkpoint of the second it ends in the same weights, with the
    same losses, evaluated the same."""
    run, data = tmp_path / "run", write_rows(tmp_path / "rows.json")
    given = {"model_name_or_path": tiny, "dataset": data, "output_dir": run, "use_cpu": True, "bf16": True,
             "finetuning_type": "freeze", "learning_rate": 1e-4, "per_device_train_batch_size": 2, "max_steps": 3,
             "logging_steps": 1, "save_steps": 2, "val_size": 2, "eval_strategy": "steps", "eval_steps": 1,
             "plot_loss": False, "lr_scheduler_type": "constant", "gradient_checkpointing": False, **RUNS[name]}
    found = []
    for more in ({}, {"resume_from_checkpoint": run / "checkpoint-2"}):
        assert main(["train", *options(**given, **more)]) == 0
        written = load_file(next(run.glob("*model.safetensors")))
        told = {event["step"]: event["loss"] for event in events(run)}, events(run, "eval")[-1]["eval_loss"]
        found.append((written, told))
    assert found[0][1] == found[1][1] and set(found[0][1][0]) == {1, 2, 3}
    assert all(torch.equal(weight, found[1][0][key]) for key, weight in found[0][0].items())
