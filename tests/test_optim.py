"""Steps, master weights, penalties and schedules, by hand arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from truetune.model.methods import Method
from truetune.model.precision import Precision
from truetune.optim import Optimizer, build_schedule, make_optimizer
from truetune.options import Config
from truetune.steps import warmup_steps

FP32 = Precision(torch.float32, master=False, scaled=False, reason="")
BF16 = Precision(torch.bfloat16, master=True, scaled=False, reason="")
PURE = Precision(torch.bfloat16, master=False, scaled=False, reason="")
FP16 = Precision(torch.float16, master=True, scaled=True, reason="")


def one_weight(value: float, dtype: torch.dtype, precision: Precision, **options: object) -> tuple[
        torch.nn.Parameter, Optimizer]:
    weight = torch.nn.Parameter(torch.full((1, 1), value, dtype=dtype))
    config = Config(**{"lr_scheduler_type": "constant", "max_grad_norm": 0, **options})
    return weight, optimizer_of({"w": weight}, config, precision, 100)


def optimizer_of(weights: dict[str, torch.nn.Parameter], config: Config, precision: Precision, steps: int,
                 method: Method | None = None) -> Optimizer:
    return make_optimizer(torch.nn.Module(), weights, config, precision, steps, method)


def test_one_step_of_adamw() -> None:
    """A summed gradient of 6 over 3 tokens is 2. AdamW's first step is lr in the direction of its sign, after decay:
    1 - 0.1 * 0.5 * 1 - 0.1 * 2 / (2 + eps) = 0.85."""
    weight, optimizer = one_weight(1.0, torch.float32, FP32, learning_rate=0.1, weight_decay=0.5)
    optimizer.backward((6 * weight).sum(), 1.0)
    assert optimizer.step(3.0) == pytest.approx(2.0)
    assert weight.item() == pytest.approx(0.85, abs=1e-6)


def test_clipping() -> None:
    """Gradients (3, 4) have length 5 and are cut to length 1: the second moments see 0.6 and 0.8."""
    weight = torch.nn.Parameter(torch.zeros(1, 2))
    optimizer = optimizer_of({"w": weight}, Config(max_grad_norm=1.0), FP32, 10)
    optimizer.backward((weight * torch.tensor([[3.0, 4.0]])).sum(), 1.0)
    assert optimizer.step(1.0) == pytest.approx(5.0)
    moments = optimizer.inner.state[weight]["exp_avg_sq"]
    torch.testing.assert_close(moments, torch.tensor([[0.36, 0.64]]) * 0.001)


def test_norms_and_biases_do_not_decay() -> None:
    scale, matrix = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2, 2))
    optimizer = optimizer_of({"scale": scale, "matrix": matrix}, Config(weight_decay=0.1), FP32, 10)
    decays = {id(weight): group["weight_decay"] for group in optimizer.inner.param_groups for weight in group["params"]}
    assert decays[id(scale)] == 0 and decays[id(matrix)] == 0.1


def test_small_updates_survive_in_master_weights() -> None:
    """Steps of 0.001 on a weight of 1: bfloat16 alone rounds each away (its next number below 1 is 0.996); with a
    float32 master ten of them make 0.99."""
    found = {}
    for precision in (PURE, BF16):
        weight, optimizer = one_weight(1.0, torch.bfloat16, precision, learning_rate=0.001)
        for _ in range(10):
            optimizer.backward(weight.sum(), 1.0)
            optimizer.step(1.0)
        found[precision.master] = (weight.item(), optimizer.masters["w"].item())
    assert found[False][0] == 1.0
    assert found[True][1] == pytest.approx(0.99, abs=1e-5) and found[True][0] == pytest.approx(0.99, abs=0.004)


def test_gradients_add_up_in_float32() -> None:
    """256 gradients of 1 and then 8 of 1: bfloat16 cannot count past 256 by ones, the sum here is 264."""
    weight, optimizer = one_weight(0.0, torch.bfloat16, BF16)
    for _ in range(264):
        optimizer.backward(weight.sum(), 1.0)
    assert optimizer.masters["w"].grad.item() == 264


def test_loss_scaling_skips_an_overflow_and_halves_the_scale() -> None:
    """float16: an infinite gradient changes nothing and halves the scale; the next finite one steps."""
    weight, optimizer = one_weight(1.0, torch.float16, FP16, learning_rate=0.1)
    before = optimizer.scaler.get_scale()
    optimizer.backward((weight.float() * 1e30).sum(), 1.0)
    assert not math.isfinite(optimizer.step(1.0))
    assert weight.item() == 1.0 and optimizer.scaler.get_scale() == before / 2
    optimizer.backward((weight.float() * 0.5).sum(), 1.0)
    assert optimizer.step(1.0) == pytest.approx(0.5)
    assert weight.item() == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("precision", (FP32, BF16))
def test_l1_and_l2_penalties(precision: Precision) -> None:
    """Over 4 tokens a summed gradient of (8, 8) is (2, 2). The weights 3 and -5 add 0.5 of their signs and twice 0.25
    of themselves: (2 + 0.5 + 1.5, 2 - 0.5 - 2.5) = (4, -1). SGD goes 0.1 of that. Its length, which clipping sees, is
    that of the sum."""
    weight = torch.nn.Parameter(torch.tensor([[3.0, -5.0]], dtype=precision.dtype))
    config = Config(optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", max_grad_norm=0, l1_lambda=0.5,
                    l2_lambda=0.25)
    optimizer = optimizer_of({"w": weight}, config, precision, 10)
    optimizer.backward((8 * weight.float()).sum(), 4.0)
    assert optimizer.step(4.0) == pytest.approx(math.hypot(4, 1))
    torch.testing.assert_close(optimizer.masters["w"].detach(), torch.tensor([[2.6, -4.9]]))


def test_a_method_adds_its_penalty_once_a_step() -> None:
    """The penalty 3 w joins the mean loss: a gradient of 6 over 2 tokens and 3 make 6, whatever the count is."""
    weight = torch.nn.Parameter(torch.full((1, 1), 1.0))
    method = Method(lambda *_: torch.nn.Module(), adapter=True, penalty=lambda model: 3 * weight.sum())
    for parts in (1, 2):
        config = Config(optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", max_grad_norm=0)
        optimizer = optimizer_of({"w": weight}, config, FP32, 10, method)
        for _ in range(parts):
            optimizer.backward((6 / parts * weight).sum(), 2 / parts)
        assert optimizer.step(2.0) == pytest.approx(6.0)


def test_a_method_may_change_weights_after_a_step() -> None:
    """It sees the number of the step, from 1, and the mean gradients where parameters have theirs. What it sets to 0 is
    0 in the masters too; what it leaves alone keeps the digits that bfloat16 has not."""
    weight = torch.nn.Parameter(torch.ones(1, 2, dtype=torch.bfloat16))
    seen = []

    def stepped(model: torch.nn.Module, step: int) -> None:
        seen.append((step, weight.grad.tolist()))
        weight.data[0, 0] = 0

    method = Method(lambda *_: torch.nn.Module(), adapter=True, stepped=stepped)
    config = Config(learning_rate=1e-3, lr_scheduler_type="constant", max_grad_norm=0)
    optimizer = optimizer_of({"w": weight}, config, BF16, 10, method)
    for _ in range(2):
        optimizer.backward(6 * weight.sum(), 3.0)
        optimizer.step(3.0)
    assert seen == [(1, [[2.0, 2.0]]), (2, [[2.0, 2.0]])] and weight.grad is None
    assert optimizer.masters["w"].tolist()[0] == pytest.approx([0, 0.998], abs=1e-5)


# The multiples of the learning rate over 8 steps, 2 of them warmup (0, 1/2, then the top).
SCHEDULES: dict[str, tuple[dict[str, object], list[float]]] = {
    "constant": ({}, [1] * 8),
    "constant_with_warmup": ({}, [0, 1 / 2, 1, 1, 1, 1, 1, 1]),
    "linear": ({}, [0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
    "cosine": ({}, [0, 1 / 2] + [(1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)]),
    "cosine_with_restarts": ({"num_cycles": 2}, [0, 1 / 2, 1, 3 / 4, 1 / 4, 1, 3 / 4, 1 / 4]),
    "polynomial": ({"power": 2, "lr_end": 0}, [0, 1 / 2] + [(1 - n / 6) ** 2 for n in range(6)]),
    "inverse_sqrt": ({"timescale": 2}, [0, 1 / 2] + [math.sqrt(2 / n) for n in range(2, 8)]),
    # a third of the 6 steps after warmup is held, the other 4 decay (a cosine)
    "warmup_stable_decay": ({}, [0, 1 / 2, 1, 1] + [(1 + math.cos(math.pi * n / 4)) / 2 for n in range(4)]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    settings, expected = SCHEDULES[name]
    config = Config(lr_scheduler_type=name, learning_rate=1.0, warmup_steps=2, lr_scheduler_kwargs=settings)
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = build_schedule(adamw, config, 8), []
    for _ in range(8):
        rates.append(adamw.param_groups[0]["lr"])
        adamw.step()
        schedule.step()
    assert rates == pytest.approx(expected, abs=1e-6)


def test_plateau_follows_the_evaluation_loss() -> None:
    """Two evaluations without gain (patience 1) multiply the learning rate by a tenth; steps alone change nothing."""
    weight, optimizer = one_weight(1.0, torch.float32, FP32, learning_rate=1.0,
                                   lr_scheduler_type="reduce_lr_on_plateau", lr_scheduler_kwargs={"patience": 1})
    rates = []
    for loss in (2.0, 2.0, 2.0):
        optimizer.backward(weight.sum(), 1.0)
        optimizer.step(1.0)
        optimizer.evaluated(loss)
        rates.append(optimizer.learning_rate)
    assert rates == pytest.approx([1.0, 1.0, 0.1])


@pytest.mark.parametrize(("options", "expected"), (
    ({}, 0), ({"warmup_steps": 7}, 7), ({"warmup_ratio": 0.03}, 3), ({"warmup_ratio": 0.031}, 4),
    ({"warmup_steps": 0.1}, 10), ({"warmup_steps": 5, "warmup_ratio": 0.5}, 5), ({"warmup_ratio": 1}, 100),
))
def test_warmup(options: dict[str, float], expected: int) -> None:
    """Steps win over the ratio; a share is rounded up."""
    assert warmup_steps(Config(**options), 100) == expected


@pytest.mark.parametrize("precision", (FP32, BF16))
@pytest.mark.parametrize("schedule", ("cosine", "reduce_lr_on_plateau"))
@pytest.mark.parametrize("optim", ("adamw_torch", "adamw_torch_fused"))
def test_state_goes_on_exactly(precision: Precision, schedule: str, optim: str) -> None:
    """Six steps, against three, a state saved and loaded into a fresh optimizer, and three more: the same bits."""

    def steps(optimizer: Optimizer, weight: torch.nn.Parameter, numbers: range) -> None:
        for number in numbers:
            optimizer.backward((weight * (number + 1) ** 2).sum() * 0.1, 1.0)
            optimizer.step(1.0)
            optimizer.evaluated(2.0)

    options = {"lr_scheduler_type": schedule, "learning_rate": 0.01, "optim": optim}
    options |= {"lr_scheduler_kwargs": {"patience": 1}} if schedule == "reduce_lr_on_plateau" else {}
    straight, optimizer = one_weight(1.0, precision.dtype, precision, **options)
    steps(optimizer, straight, range(6))
    first, optimizer = one_weight(1.0, precision.dtype, precision, **options)
    steps(optimizer, first, range(3))
    tensors, numbers = optimizer.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    second, optimizer = one_weight(5.0, precision.dtype, precision, **options)
    optimizer.load_state(tensors, numbers)
    assert torch.equal(second, first)
    steps(optimizer, second, range(3, 6))
    assert torch.equal(second, straight)
