"""In which number format a run computes, and on which device.

Left to itself the faster safe format is taken, measured by a short matrix product: bfloat16 has the range of float32,
so it is safe wherever the hardware computes it natively; float16 is not, and is only taken when asked for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from truetune.findings import WRONG_OPTIONS, Both, Words, problem
from truetune.options import Config


@dataclass(frozen=True)
class Precision:
    """dtype: of the weights in the forward and backward pass. master: whether the optimizer keeps float32 copies.
    scaled: whether the loss is scaled (float16). reason: where this comes from, in words."""

    dtype: torch.dtype
    master: bool
    scaled: bool
    reason: Words

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def pick_device(config: Config) -> torch.device:
    if config.use_cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def pick_precision(config: Config, device: torch.device) -> Precision:
    """The precision that the options ask for, or the faster safe one.

    Raises:
        Problem: float16 on a device that has no float16 arithmetic.
    """
    if config.pure_bf16:
        return Precision(torch.bfloat16, master=False, scaled=False, reason="pure_bf16")
    if config.bf16:
        return Precision(torch.bfloat16, master=True, scaled=False, reason="bf16")
    if config.fp16:
        if device.type == "cpu":
            raise problem("fp16-on-cpu", Both("this CPU has no float16 arithmetic, it would be emulated.",
                                              "这个 CPU 没有 float16 运算，只能模拟。"), option="fp16",
                          where=config.origin("fp16"), status=WRONG_OPTIONS,
                          fix=Both("Leave the precision unset, or set bf16.", "请不要指定精度，或改用 bf16。"))
        return Precision(torch.float16, master=True, scaled=True, reason="fp16")
    if config.bf16 is False or config.fp16 is False or not has_native_bf16(device):
        reason = Both("asked for", "按选项要求") if config.bf16 is False or config.fp16 is False else \
            Both("no native bfloat16 here", "本机不原生支持 bfloat16")
        return Precision(torch.float32, master=False, scaled=False, reason=reason)
    rates = {dtype: matmul_rate(dtype, device, seconds=0.1) for dtype in (torch.float32, torch.bfloat16)}
    measured = ", ".join(f"{str(d).removeprefix('torch.')} {rate / 1e9:.0f} GFLOP/s" for d, rate in rates.items())
    fastest = max(rates, key=lambda dtype: rates[dtype])
    return Precision(fastest, master=fastest is not torch.float32, scaled=False,
                     reason=Both(f"measured: {measured}", f"实测：{measured}"))


def resolve(config: Config, precision: Precision) -> Config:
    """`config` with what it left open about numbers filled in, so that a resumed run computes the same."""
    if config.bf16 is None and not config.fp16 and not config.pure_bf16:
        config = config.with_values(f"rule: {precision.reason}", bf16=precision.dtype is torch.bfloat16)
    return config


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are done by hardware: avx512_bf16 or AMX on CPUs, Ampere and later on NVIDIA."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.cuda.get_device_capability(device)[0] >= 8


def matmul_rate(dtype: torch.dtype, device: torch.device, seconds: float = 0.5, size: int = 1024) -> float:
    """Floating-point operations a second of a (size x size) product, best of repeated runs."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    torch.mm(left, right)  # the first call sets up the kernel
    while best == 0.0 or time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
