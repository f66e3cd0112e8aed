"""Who can hold weights in fewer bits while an adapter trains beside them, and who cannot and why: facts without torch.

`model.quantize` does it, `rules.quantize` asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from truetune.findings import Both


@dataclass(frozen=True)
class Quantizer:
    """package: what it is imported and installed as. bits: that it offers. types: for a number of bits, the kinds of
    codes that quantization_type chooses from; the first is taken if that is left alone. gpu: bits that need a GPU."""

    package: str
    bits: tuple[int, ...]
    types: Mapping[int, tuple[str, ...]]
    gpu: tuple[int, ...] = ()


QUANTIZERS: Mapping[str, Quantizer] = {
    "bnb": Quantizer("bitsandbytes", (4, 8), {4: ("nf4", "fp4"), 8: ("int8",)}),
    "hqq": Quantizer("hqq", (1, 2, 3, 4, 5, 6, 8), {}),
    "torchao": Quantizer("torchao", (4, 8), {4: ("int4",), 8: ("int8", "fp8")}, gpu=(4,)),
}
"""By quantization_method: those that quantise while a model is loaded."""

_STORED = Both("is a format in which models are saved: name such a model, and it is read without quantization_bit.",
               "是模型保存时的格式：直接指定这种模型即可，不需要 quantization_bit。")
REFUSED: Mapping[str, Both] = {
    "gptq": _STORED, "awq": _STORED, "mxfp4": _STORED, "fp8": _STORED,
    "aqlm": Both("is a format in which models are saved, and one that is not read here.",
                 "是模型保存时的格式，而且这里不支持读取。"),
    "eetq": Both("is not offered: its kernels are for NVIDIA GPUs only, and bnb with 8 bits is as small.",
                 "未提供：它的内核只支持 NVIDIA GPU，而 bnb 的 8 位同样大小。"),
    "quanto": Both("is not offered: bnb, hqq and torchao have codes of the same numbers of bits.",
                   "未提供：bnb、hqq 和 torchao 有同样位数的编码。"),
}
"""By quantization_method: why it does not quantise while a model is loaded."""
