"""Ways to compute a model's layers faster that can be switched on and off: torch.compile, and Liger's kernels.

Each is compared with the layers as they are on the first batch, loss and gradients (`Policy.verify`), and switched off
with a line where it differs or fails.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from transformers import PreTrainedModel

from truetune.findings import Both, Finding
from truetune.options import Config

LIGER = ("rms_norm", "swiglu")
"""What of Liger is used, by its own words for it."""


@dataclass(frozen=True)
class Speedup:
    """on(), off(): switch it."""

    name: Both
    on: Callable[[], None]
    off: Callable[[], None]


def wants_compile(config: Config) -> bool:
    """Whether layers are to be compiled: naming what compiles them asks for it too, as in transformers."""
    return bool(config.torch_compile or config.torch_compile_backend or config.torch_compile_mode)


def pick_speedups(causal: PreTrainedModel, config: Config, device: torch.device) -> list[Speedup]:
    """What the options ask for and this machine has, in the order in which it is switched on."""
    speedups = []
    if config.enable_liger_kernel and not _without_liger(config, device):
        speedups.append(_liger(causal, config))
    if wants_compile(config) and not _without_compiler(config, device):
        speedups.append(_compiled(causal, config))
    return speedups


def speedup_findings(config: Config, device: torch.device) -> list[Finding]:
    """One line for each that cannot be had here, and why."""
    found = []
    if config.enable_liger_kernel and (why := _without_liger(config, device)):
        found.append(_not_here("enable_liger_kernel", why, config))
    if wants_compile(config) and (why := _without_compiler(config, device)):
        found.append(_not_here("torch_compile", why, config))
    return found


def _not_here(option: str, why: Both, config: Config) -> Finding:
    return Finding("not-here", "info", Both(f"is not used: {why}. The same is learned without it.",
                                            f"没有使用：{why.zh}。不用它学到的内容也相同。"),
                   option=option, where=config.origin(option))


def _without_liger(config: Config, device: torch.device) -> Both | None:
    """Why Liger's kernels cannot be used; None: they can."""
    if device.type == "cpu":
        return Both("its Triton kernels run on GPUs, and this run is on the cpu", "它的 Triton 内核只能在 GPU 上运行，"
                    "而这次用的是 cpu")
    if find_spec("liger_kernel") is None:
        return Both("liger-kernel is not installed (pip install liger-kernel)",
                    "没有安装 liger-kernel（pip install liger-kernel）")
    return None


def _without_compiler(config: Config, device: torch.device) -> Both | None:
    """Why layers cannot be compiled; None: they can."""
    backend = config.torch_compile_backend or "inductor"
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        return Both(f"torch.compile has no backend {backend} here, only {', '.join(known)}",
                    f"这里的 torch.compile 没有后端 {backend}，只有 {'、'.join(known)}")
    if backend == "inductor" and device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return Both("it needs a C++ compiler on a CPU, and none is found (install g++)",
                    "在 CPU 上它需要 C++ 编译器，但没有找到（请安装 g++）")
    return None


def _compiled(causal: PreTrainedModel, config: Config) -> Speedup:
    """Each layer compiled, for every length at once; attention, which is a loop over rows, stays as it is."""
    from truetune.model.methods import layers_of

    layers: list[Any] = list(layers_of(causal))
    compiled: list[Any] = []

    def on() -> None:
        if not compiled:
            for layer in layers:
                layer.compile(backend=config.torch_compile_backend or "inductor", mode=config.torch_compile_mode,
                              dynamic=True)
                compiled.append(layer._compiled_call_impl)
        for layer, call in zip(layers, compiled, strict=True):
            layer._compiled_call_impl = call

    def off() -> None:
        for layer in layers:  # what `compile` sets, and PyTorch has no word to take back
            layer._compiled_call_impl = None

    return Speedup(Both("layers compiled by torch.compile", "用 torch.compile 编译的各层"), on, off)


def _liger(causal: PreTrainedModel, config: Config) -> Speedup:
    """Liger's norms and gated MLPs in place of the model's own modules, with the same weights. (Liger's own functions
    rewrite the classes of transformers, which cannot be taken back.) Written from Liger 0.8.5's sources and not run:
    it needs a GPU."""
    wanted = {name for name in LIGER if config.liger_kernel_config.get(name, True)}
    swaps: list[tuple[str, torch.nn.Module, torch.nn.Module]] = []
    for name, module in causal.named_modules():
        for part, replace in (("rms_norm", _liger_norm), ("swiglu", _liger_mlp)):
            if part in wanted and (other := replace(module)) is not None:
                swaps.append((name, module, other))

    def on() -> None:
        for name, _, other in swaps:
            causal.set_submodule(name, other)

    def off() -> None:
        for name, module, _ in swaps:
            causal.set_submodule(name, module)

    return Speedup(Both("Liger's kernels", "Liger 的内核"), on, off)


def _liger_norm(module: torch.nn.Module) -> torch.nn.Module | None:
    """x / rms(x) * w as Llama computes it, or * (1 + w) as Gemma does; None: `module` is no such norm."""
    settings = vars(module)
    epsilon = settings.get("variance_epsilon", settings.get("eps"))
    name = type(module).__name__
    if not name.endswith("RMSNorm") or epsilon is None or set(dict(module.named_parameters())) != {"weight"}:
        return None
    from liger_kernel.transformers.rms_norm import LigerRMSNorm  # pyright: ignore[reportMissingImports]

    gemma, weight = name.startswith("Gemma"), module.get_parameter("weight")
    norm = LigerRMSNorm(len(weight), eps=epsilon, offset=1.0 if gemma else 0.0,
                        casting_mode="gemma" if gemma else "llama", in_place=False)
    norm.weight = weight
    return norm


class _GatedMlp(torch.nn.Module):
    """down(silu(gate(x)) * up(x)), the product in one kernel. The layers are the module's own, adapters and all."""

    def __init__(self, gate_proj: torch.nn.Module, up_proj: torch.nn.Module, down_proj: torch.nn.Module):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate_proj, up_proj, down_proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from liger_kernel.ops.swiglu import LigerSiLUMulFunction  # pyright: ignore[reportMissingImports]

        return self.down_proj(LigerSiLUMulFunction.apply(self.gate_proj(x), self.up_proj(x)))


def _liger_mlp(module: torch.nn.Module) -> torch.nn.Module | None:
    """None: `module` is no MLP gated by SiLU."""
    parts = dict(module.named_children())
    if not {"gate_proj", "up_proj", "down_proj"} <= set(parts) or not isinstance(parts.get("act_fn"), torch.nn.Module):
        return None
    if "SiLU" not in type(parts["act_fn"]).__name__:
        return None
    return _GatedMlp(parts["gate_proj"], parts["up_proj"], parts["down_proj"])
