"""The weights of linear layers held in fewer bits, while an adapter in 16 or 32 bits trains beside them (QLoRA,
Dettmers et al. 2023, arXiv:2305.14314).

A layer computes Y = X Ŵᵀ with Ŵ = dequantised(codes), and passes the gradient X' = Y' Ŵ on to what lies before it. The
codes are libraries' own; they never change. Embeddings, norms and the output head stay as they are, and so do experts
that a mixture holds in one matrix of three dimensions. A model is loaded whole and then quantised layer by layer, so
the device holds no more than the codes, whichever library makes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.functional import linear as product
from transformers import PreTrainedModel

from truetune.findings import WRONG_OPTIONS, Both, Finding, problem, refuse
from truetune.options import Config
from truetune.options.quantizers import QUANTIZERS

BLOCK = 64
"""Weights that share a scale, in bitsandbytes' 4 bits and in hqq."""


@dataclass(frozen=True)
class Codes:
    """How weights are held: method, bits, type (nf4, fp4, int8, fp8, int4; `hqq`), double: scales quantised too."""

    method: str
    bits: int
    type: str
    double: bool = False

    @classmethod
    def of(cls, config: Config) -> Codes | None:
        """What a run's options ask for; None where weights stay as they are."""
        if not config.quantization_bit:
            return None
        return cls.named(config.quantization_method, config.quantization_bit, config.quantization_type,
                         config.double_quantization)

    @classmethod
    def named(cls, method: str, bits: int, type: str = "nf4", double: bool = True) -> Codes:
        """The codes that these options mean. type: taken where the method has it in so many bits."""
        types = QUANTIZERS[method].types.get(bits, (method,))
        return cls(method, bits, type if type in types else types[0], double and (method, bits) == ("bnb", 4))

    @classmethod
    def plain(cls, bits: int | None) -> Codes | None:
        """What a number of bits means for another model than the one that is trained: bitsandbytes'."""
        return cls.named("bnb", bits) if bits else None

    def __str__(self) -> str:
        kind = "" if self.type == self.method else f"{self.type}{', scales quantised' if self.double else ''}, "
        return f"{self.bits}-bit ({kind}{self.method})"


# ------------------------------------------------------------------------------------------------------------- a model


def quantise(model: PreTrainedModel, codes: Codes, device: torch.device, option: str = "quantization_bit") -> None:
    """Hold the linear layers of `model` (on the CPU) in `codes`, and all of it on `device`; nothing of it is trained.

    Raises:
        Problem: the library is missing, the device has no such codes, or the model has no linear layers.
    """
    refuse(quantizer_findings(codes, device, option))
    layers = plain_layers(model)
    if not layers:
        raise problem("nothing-to-quantise", Both(
            f"{type(model).__name__} has no plain linear layers that could be held in {codes.bits} bits.",
            f"{type(model).__name__} 没有可以压成 {codes.bits} 位的普通线性层。"), option=option, status=WRONG_OPTIONS,
            fix=Both(f"Leave {option} out.", f"请去掉 {option}。"))
    model.requires_grad_(False)
    for name, layer in layers.items():
        model.set_submodule(name, FORMS[codes.method, codes.bits].hold(layer, codes, device))
    torch.nn.Module.to(model, device)


def dequantise(model: PreTrainedModel) -> None:
    """Plain linear layers again, with the weights that the codes stand for: as an adapter has seen them."""
    dtype = model.dtype
    for name, module in list(coded(model)):
        model.set_submodule(name, _linear(weight_of(module).to(dtype), module.bias))


def plain_layers(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """The layers of a model that a quantizer takes, by name: the body's linear ones."""
    head = model.get_output_embeddings()
    return {name: module for name, module in model.named_modules()
            if type(module) is torch.nn.Linear and module is not head}


def coded(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The layers that are held in codes, by name. Known by the names of their classes, so that no library is imported
    for it."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and type(module).__name__ in _WEIGHTS:
            yield name, module


def weight_of(layer: torch.nn.Linear) -> torch.Tensor:
    """(O, I): the weight that a layer's codes stand for."""
    return _WEIGHTS[type(layer).__name__](layer)


def is_code(weight: torch.Tensor) -> bool:
    """Whether a parameter is codes, which no cast may touch. (bitsandbytes can keep them in a float's clothes.)"""
    return not weight.is_floating_point() or type(weight).__name__ == "Params4bit"


def parameter_count(model: torch.nn.Module) -> int:
    """Weights of a model, those in codes counted as the weights they stand for."""
    plain = sum(weight.numel() for weight in model.parameters() if not is_code(weight))
    return plain + sum(layer.in_features * layer.out_features for _, layer in coded(model))


def quantizer_findings(codes: Codes, device: torch.device, option: str = "quantization_bit",
                       where: str | None = None) -> list[Finding]:
    """An error where the library is missing, or the device cannot compute with such codes."""
    quantizer = QUANTIZERS[codes.method]
    if missing := packages_findings(codes.method, quantizer.package, option, where):
        return missing
    if codes.bits in quantizer.gpu and device.type != "cuda":
        return [Finding("needs-gpu", "error", Both(
            f"{codes.method} computes with {codes.bits} bits on NVIDIA GPUs only, and this run is on the "
            f"{device.type}.",
            f"{codes.method} 的 {codes.bits} 位只能在 NVIDIA GPU 上计算，而这次用的是 {device.type}。"),
            option=option, where=where, fix=Both(f"{option}: 8, or quantization_method: bnb.",
                                                 f"{option}: 8，或 quantization_method: bnb。"))]
    return []


def packages_findings(what: str, package: str, option: str, where: str | None) -> list[Finding]:
    """An error where a package is not installed that `what` needs."""
    return [] if find_spec(package) else [Finding("packages-missing", "error", Both(
        f"{what} needs {package}, which is not installed.", f"{what} 需要 {package}，但没有安装。"),
        option=option, where=where, fix=f"pip install {package}")]


def codes_findings(config: Config, device: torch.device) -> list[Finding]:
    """The same for all codes that a run's options ask for."""
    asked = {"quantization_bit": Codes.of(config), "ref_model_quantization_bit": Codes.plain(
        config.ref_model_quantization_bit), "reward_model_quantization_bit": Codes.plain(
        config.reward_model_quantization_bit)}
    return [finding for option, codes in asked.items() if codes
            for finding in quantizer_findings(codes, device, option, config.origin(option))]


# ------------------------------------------------------------------------------------------------------------ the ways


@dataclass(frozen=True)
class Form:
    """A way to hold a matrix. hold(layer, codes, device): the layer in codes. size(outputs, inputs, codes, number):
    bytes that its matrix takes then, with scales; number: bytes of a number while computing."""

    hold: Callable[[torch.nn.Linear, Codes, torch.device], torch.nn.Linear]
    size: Callable[[int, int, Codes, int], int]


class CodedLinear(torch.nn.Linear):
    """A frozen linear layer whose weight is codes that know how to `dequantize()`: hqq's layer or torchao's tensor.

    It is a `Linear` to PEFT, so every kind of adapter takes it. `weight` is computed whenever it is asked for; what is
    written into it is lost, so nothing can be merged into it.
    """

    def __init__(self, layer: torch.nn.Linear, codes: Any):
        torch.nn.Module.__init__(self)  # Linear's own would make a weight
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.codes, self.bias = codes, layer.bias

    @property
    def weight(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        with torch.no_grad():
            return self.codes.dequantize()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return _Product.apply(input, self, self.bias)  # pyright: ignore[reportReturnType]


class _Product(torch.autograd.Function):
    """Y = X Ŵᵀ + b. Ŵ is dequantised for the backward pass once more: kept, it would take what the codes save."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: CodedLinear, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.layer = layer
        weight = layer.weight
        return product(x.to(weight.dtype), weight, bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight = ctx.layer.weight
        return (grads[0].to(weight.dtype) @ weight).to(grads[0].dtype), None, None


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    """A plain layer with this weight (O, I)."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = bias  # pyright: ignore[reportAttributeAccessIssue]
    return layer


def _hold_4(layer: torch.nn.Linear, codes: Codes, device: torch.device) -> torch.nn.Linear:
    with quiet():
        from bitsandbytes.nn.modules import Linear4bit, Params4bit

    settings: dict[str, Any] = {"compress_statistics": codes.double, "quant_type": codes.type}
    held = Linear4bit(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta",  # pyright: ignore
                      compute_dtype=layer.weight.dtype, **settings)
    codes_of: Any = Params4bit(layer.weight.data, requires_grad=False, module=held, **settings)  # pyright: ignore
    held.weight = codes_of.to(device)
    held.bias = layer.bias
    keep_gradients(held)
    return held


def keep_gradients(layer: torch.nn.Module) -> None:
    """Let a bitsandbytes layer of 4 bits keep its codes as they are.

    On CPUs with avx512_bf16 the first product in evaluation mode without gradients (an evaluation, an answer) packs the
    codes anew for a faster kernel, for good, and no gradient goes through what was packed: training goes on without
    the gradient through the base (measured: 97 % off), the loss still falls a little, and nothing tells.
    """
    setattr(layer, _REPACKS, False)


_REPACKS = "support_avx512bf16_for_cpu"
"""The switch of `bitsandbytes.nn.Linear4bit` that asks for the faster kernel."""


def _size_4(outputs: int, inputs: int, codes: Codes, number: int) -> int:
    blocks = -(-outputs * inputs // BLOCK)
    scales = blocks + 4 * -(-blocks // 256) + 1028 if codes.double else 4 * blocks  # 256 float32 values of a scale
    return outputs * inputs // 2 + scales + 64


def _hold_8(layer: torch.nn.Linear, codes: Codes, device: torch.device) -> torch.nn.Linear:
    with quiet():
        from bitsandbytes.nn.modules import Int8Params, Linear8bitLt

    held = Linear8bitLt(layer.in_features, layer.out_features, bias=layer.bias is not None, has_fp16_weights=False,
                        threshold=6.0, device="meta")  # pyright: ignore[reportArgumentType]
    held.weight = Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False).to(device)  # pyright: ignore
    held.bias = layer.bias
    return held


def _size_8(outputs: int, inputs: int, codes: Codes, number: int) -> int:
    return outputs * inputs + 4 * outputs


def _hold_hqq(layer: torch.nn.Linear, codes: Codes, device: torch.device) -> torch.nn.Linear:
    """Half-quadratic quantisation (Badri and Shaji 2023, https://mobiusml.github.io/hqq_blog), groups along the inputs.
    transformers 5.23 has given up its own way to it."""
    with quiet():
        from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    group = BLOCK if layer.in_features % BLOCK == 0 else None
    settings = BaseQuantizeConfig(nbits=codes.bits, group_size=group, axis=1)  # pyright: ignore[reportArgumentType]
    made = HQQLinear(_linear(layer.weight.data, None), settings,
                     compute_dtype=layer.weight.dtype, device=str(device))
    return CodedLinear(layer, made)


_HQQ_BYTES = {1: 1 / 8, 2: 1 / 4, 3: 4 / 10, 4: 1 / 2, 5: 1.0, 6: 1.0, 8: 1.0}
"""Bytes of a code as hqq packs them: ten of 3 bits go into 32; those of 5 and 6 bits are not packed."""


def _size_hqq(outputs: int, inputs: int, codes: Codes, number: int) -> int:
    groups = outputs * (inputs // BLOCK if inputs % BLOCK == 0 else 1)
    return round(outputs * inputs * _HQQ_BYTES[codes.bits]) + 2 * number * groups


def _hold_torchao(layer: torch.nn.Linear, codes: Codes, device: torch.device) -> torch.nn.Linear:
    with quiet():
        from torchao.quantization import (
            Float8WeightOnlyConfig,
            Int4WeightOnlyConfig,
            Int8WeightOnlyConfig,
            quantize_,
        )

    kinds = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig, "int4": Int4WeightOnlyConfig}
    made = _linear(layer.weight.data.to(device), None)
    with quiet():
        quantize_(made, kinds[codes.type]())
    return CodedLinear(layer, _Tensor(made.weight.data))


class _Tensor(torch.nn.Module):
    """torchao's tensor, out of the reach of casts."""

    def __init__(self, tensor: Any):
        super().__init__()
        self.tensor = tensor

    def dequantize(self) -> torch.Tensor:
        return self.tensor.dequantize()


def _size_torchao(outputs: int, inputs: int, codes: Codes, number: int) -> int:
    return outputs * inputs * codes.bits // 8 + 5 * outputs  # a float32 scale and a zero point for each row


FORMS: Mapping[tuple[str, int], Form] = {
    ("bnb", 4): Form(_hold_4, _size_4), ("bnb", 8): Form(_hold_8, _size_8),
    **{("hqq", bits): Form(_hold_hqq, _size_hqq) for bits in QUANTIZERS["hqq"].bits},
    **{("torchao", bits): Form(_hold_torchao, _size_torchao) for bits in QUANTIZERS["torchao"].bits},
}
"""By quantization_method and quantization_bit."""


def _weight_4(layer: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def _weight_8(layer: Any) -> torch.Tensor:
    from bitsandbytes.functional import int8_vectorwise_dequant

    state = layer.state if layer.weight.CB is None and layer.state.CB is not None else layer.weight  # moves when used
    return int8_vectorwise_dequant(state.CB, state.SCB)


_WEIGHTS: Mapping[str, Callable[[Any], torch.Tensor]] = {
    "CodedLinear": lambda layer: layer.weight, "Linear4bit": _weight_4, "Linear8bitLt": _weight_8}
"""By the name of a layer's class: how its weight is read from its codes."""


@contextmanager
def quiet() -> Iterator[None]:
    """Libraries tell at import which kernels for other machines they have not found."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
