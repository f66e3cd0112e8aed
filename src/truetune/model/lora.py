"""LoRA's linear layer with one pass over the output instead of three.

    y = x Wᵀ + s (x Aᵀ) Bᵀ          x: (T, I)  W: (O, I)  A: (r, I)  B: (O, r)  s = alpha / r

(Hu et al. 2021, arXiv:2106.09685, equation 3.) PEFT computes the second product into memory of its own, scales it there
and adds it: two more passes over (T, O) forward, and as many backward. Here it is added by the product itself. Measured
forward and backward on two cores in bfloat16, T = 880: 576 to 1536 7.97 → 5.59 ms, 576 to 576 3.67 → 2.44 ms.

PEFT puts this class where it would put its own (`LoraConfig._register_custom_module`), so saving, loading and merging
are PEFT's. Whatever is not the plain case (dropout, several adapters, a variant such as DoRA) is left to PEFT too.

PiSSA (Meng et al. 2024, arXiv:2404.02948, equations 2 to 4) and OLoRA (Buyukakyuz 2024, arXiv:2406.01775) begin with B0
A0 taken out of the weights. Here the weights stay as they are and what was taken out is subtracted beside them:

    y = (W - s B0 A0) x + s B A x = W x + s (B A x - B0 A0 x)

the same function and gradients. So the base can be shared with a reference, switching the adapter off gives the base,
and what is written is plain LoRA of rank 2r on the base as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from safetensors.torch import load_file, save_file
from torch.nn.functional import linear


def use_fused_layers(settings: LoraConfig) -> LoraConfig:
    """`settings`, with PEFT told to build our layer on plain linear ones."""
    settings._register_custom_module({torch.nn.Linear: FusedLoraLinear})
    return settings


class FusedLoraLinear(Linear):
    """PEFT's LoRA layer, computed as above where that is the same thing.

    start: A0 (r, I) and B0 (O, r) that are subtracted, where it begins with some.
    """

    start: tuple[torch.Tensor, torch.Tensor] | None = None

    def keep_start(self, adapter: str) -> None:
        """Subtract what the adapter is now from whatever it becomes."""
        down: Any = self.lora_A[adapter].weight
        up: Any = self.lora_B[adapter].weight
        self.start = down.detach().clone(), up.detach().clone()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        out = self._with_adapter(x, *args, **kwargs)
        if self.start is None or self.disable_adapters or self.merged:
            return out
        down, up = (matrix.to(x.device, x.dtype) for matrix in self.start)
        return out - self.scaling[self.active_adapters[0]] * ((x @ down.T) @ up.T)

    def _with_adapter(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        base, adapter = self.base_layer, self.active_adapters[0]
        if (args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) > 1 or self.lora_variant
                or adapter not in self.lora_A or not isinstance(self.lora_dropout[adapter], torch.nn.Identity)
                or type(base) is not torch.nn.Linear or base.weight.requires_grad):
            return super().forward(x, *args, **kwargs)
        down, up = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        if not x.dtype == down.dtype == base.weight.dtype:
            return super().forward(x, *args, **kwargs)
        return _AddLora.apply(x, base.weight, base.bias, down, up, self.scaling[adapter])  # pyright: ignore


def layers_with_start(model: torch.nn.Module) -> Iterator[tuple[str, FusedLoraLinear]]:
    """The layers, with their names, that subtract what they began with."""
    for name, module in model.named_modules():
        if isinstance(module, FusedLoraLinear) and module.start is not None:
            yield name, module


def widen(model: torch.nn.Module, folder: Path) -> None:
    """Make what PEFT has written of `model` into `folder` plain LoRA of rank 2r, [A; A0] and [B, -B0], where the model
    subtracts what it began with. (alpha / r stays: alpha is doubled; alpha / sqrt(r): times the root of 2.)"""
    starts = {name: layer.start for name, layer in layers_with_start(model)}
    if not starts:
        return
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    for name, start in starts.items():
        assert start is not None
        down, up = (matrix.float().cpu() for matrix in start)
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        weights[a] = torch.cat([weights[a].float(), down], dim=0)
        weights[b] = torch.cat([weights[b].float(), -up], dim=1)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, file, metadata={"format": "pt"})
    settings = LoraConfig.from_pretrained(str(folder))
    assert isinstance(settings, LoraConfig)
    settings.lora_alpha = settings.lora_alpha * (2**0.5 if settings.use_rslora else 2)  # pyright: ignore
    settings.r, settings.init_lora_weights = 2 * settings.r, True
    settings.save_pretrained(str(folder))


class _AddLora(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, down: torch.Tensor,
                up: torch.Tensor, scale: float) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (T, I)
        narrow = rows @ down.T  # (T, r)
        out = linear(rows, weight, bias).addmm_(narrow, up.T, alpha=scale)  # (T, O)
        ctx.save_for_backward(x, weight, down, up, narrow)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, down, up, narrow = ctx.saved_tensors
        rows, above = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, weight.shape[0])  # (T, I), (T, O)
        narrow_above = above @ up  # (T, r)
        below = (above @ weight).addmm_(narrow_above, down, alpha=ctx.scale) if ctx.needs_input_grad[0] else None
        return (below.view(x.shape) if below is not None else None, None, None,
                (narrow_above.T @ rows).mul_(ctx.scale), (above.T @ narrow).mul_(ctx.scale), None)
