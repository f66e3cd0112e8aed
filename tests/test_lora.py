"""The fused LoRA layer against PEFT's own."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear

from truetune.model.lora import FusedLoraLinear, use_fused_layers


class Net(torch.nn.Module):
    def __init__(self, bias: bool):
        super().__init__()
        self.first, self.second = torch.nn.Linear(7, 13, bias=bias), torch.nn.Linear(13, 5, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(fused: bool, bias: bool, **settings: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=12, target_modules=["first", "second"], init_lora_weights=False, **settings)
    return get_peft_model(Net(bias), use_fused_layers(config) if fused else config)


@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize("shape", ((11, 7), (2, 5, 7)))
def test_values_and_gradients_equal_pefts(bias: bool, shape: tuple[int, ...]) -> None:
    """Outputs and the gradients of every A and B, and of the input where that needs one."""
    for needs_grad in (True, False):
        found = []
        for fused in (True, False):
            net = adapted(fused, bias)
            kind = FusedLoraLinear if fused else Linear
            assert sum(type(module) is kind for module in net.modules()) == 2
            torch.manual_seed(1)
            x = torch.randn(*shape, requires_grad=needs_grad)
            out = net(x)
            (out * torch.randn_like(out)).sum().backward()
            grads = {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}
            found.append({"out": out.detach(), **grads} | ({"x": x.grad} if needs_grad else {}))
        assert found[0].keys() == found[1].keys() and len(found[0]) == 5 + needs_grad
        for name, value in found[1].items():
            torch.testing.assert_close(found[0][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", ({"use_dora": True}, {"lora_dropout": 0.5}))
def test_what_is_not_plain_is_left_to_peft(settings: dict[str, object]) -> None:
    """DoRA and dropout: the same numbers as PEFT's layer, drawn from the same random numbers."""
    outputs = []
    for fused in (True, False):
        net = adapted(fused, bias=True, **settings).train()
        torch.manual_seed(2)
        outputs.append(net(torch.ones(4, 7)).detach())
    assert torch.equal(*outputs)


def test_switched_off_and_merged() -> None:
    """With adapters off it is the base; merged it is the sum, as PEFT merges."""
    net = adapted(True, bias=True)
    x = torch.ones(4, 7)
    torch.manual_seed(0)
    base = Net(bias=True)(x)
    with net.disable_adapter():
        torch.testing.assert_close(net(x), base)
    expected = net(x)
    assert not torch.allclose(expected, base)
    torch.testing.assert_close(net.merge_and_unload()(x), expected)
