"""Write a model with the weights of its linear layers in few bits, for transformers and vLLM.

The format is compressed-tensors' (https://github.com/vllm-project/compressed-tensors), whose own package packs the
codes and names them; plain transformers and `model.stored` read it. Only weights are quantised: activations,
embeddings, the output head, routers and experts that a mixture holds in one matrix stay as they are.

A weight W (O, I) is held as codes q with a scale s for each group of inputs of a row, W[o, i] = s[o, g(i)] q[o, i].
(Groups with a zero of their own, which AWQ's authors use, transformers 5.23 cannot load.) What differs between methods
is which codes are taken:

- rtn: the nearest. No data needed.
- fp8: the nearest 8-bit float (E4M3; Micikevicius et al. 2022, arXiv:2209.05433), one scale a row. No data needed.
- gptq: `gptq.gptq`, fitted to the inputs of each layer.
- awq: `awq.protect` scales what matters most before rtn.

llm-compressor 0.14 and GPTQModel 7.7, the usual tools, ask for other versions of transformers and torch than those that
truetune is tested with, so both methods are written here from their papers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

from truetune.export.gptq import gptq
from truetune.export.replay import Replay
from truetune.findings import WRONG_OPTIONS, Both, Say, problem
from truetune.model.load import load_model
from truetune.model.quantize import plain_layers, quiet
from truetune.options import Config

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs

GROUPS = (128, 64, 32)
"""Inputs that share a scale: the first of these that divides the inputs of every layer, as kernels know them."""
_ROUTERS = ("gate", "router", "shared_expert_gate")


@dataclass(frozen=True)
class Codes:
    """How one weight is held. weight: (O, I), what the codes stand for. scale: (O, G)."""

    weight: torch.Tensor
    scale: torch.Tensor


def write_quantized(source: Path, target: Path, config: Config, rows: Sequence[np.ndarray], say: Say) -> None:
    """Fill `target`, an empty folder, with the model in `source` in `export_quantization_bit` bits.

    Args:
        source: a merged model, as `write_model` writes it. rows: token ids to fit to; gptq and awq need some.

    Raises:
        Problem: a package is missing, there are no rows, or nothing that could be quantised.
        OSError, SafetensorError: the disk takes no more.
    """
    form = FORMS[config.export_quantization_method]
    require_quantizer()
    if form.fitted and not rows:
        raise problem("calibration-missing", Both(
            f"{config.export_quantization_method} is fitted to texts, and there are none.",
            f"{config.export_quantization_method} 需要校准文本，但没有可用的文本。"),
            option="export_quantization_dataset", status=WRONG_OPTIONS,
            fix=Both("Name some, or set export_quantization_method: rtn.",
                     "请设置 export_quantization_dataset，或 export_quantization_method: rtn。"))
    from truetune.export.merge import merge_device

    model = load_model(source, "auto", merge_device(config))
    layers = _layers(model, config)
    bits = config.export_quantization_bit or form.bits
    args = form.args(bits, _group(layers.values()))
    say(Both(f"quantising {len(layers)} layers to {bits} bits ({config.export_quantization_method})",
             f"正在把 {len(layers)} 层量化为 {bits} 位（{config.export_quantization_method}）"))
    with torch.no_grad(), quiet():
        found = form.fit(model, layers, rows, args)
        _write(model, found, args, target)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith(("model", "config.json", ".")) and file.suffix != ".gguf":
            shutil.copyfile(file, target / file.name)


def require_quantizer() -> None:
    """Raises:
    Problem: the package that knows the format is not installed.
    """
    if find_spec("compressed_tensors") is None:
        raise problem("no-quantizer", Both("the package that writes quantised weights is not installed.",
                                           "没有安装写量化权重所需的包。"), option="export_quantization_bit",
                      status=WRONG_OPTIONS, fix="pip install compressed-tensors")


def _layers(model: PreTrainedModel, config: Config) -> dict[str, torch.nn.Linear]:
    """The layers that are quantised, by name.

    Raises:
        Problem: there are none.
    """
    found = {name: layer for name, layer in plain_layers(model).items()
             if layer.in_features % GROUPS[-1] == 0 and name.rpartition(".")[2] not in _ROUTERS}
    if not found:
        name = type(model).__name__
        raise problem("nothing-to-quantise", Both(f"{name} has no linear layers that could be quantised.",
                                                  f"{name} 没有可以量化的线性层。"), option="export_quantization_bit",
                      where=config.origin("export_quantization_bit"), status=WRONG_OPTIONS,
                      fix=Both("Leave it out.", "请去掉。"))
    return found


def _group(layers: Any) -> int:
    return next(size for size in GROUPS if all(layer.in_features % size == 0 for layer in layers))


# ------------------------------------------------------------------------------------------------------------- methods

Fit = Callable[[PreTrainedModel, Mapping[str, torch.nn.Linear], Sequence[np.ndarray], "QuantizationArgs"],
               dict[str, Codes]]


def nearest(weight: torch.Tensor, args: QuantizationArgs, dtype: torch.dtype) -> Codes:
    """Round to nearest. weight: (O, I) float32. dtype: in which scales are saved."""
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    scale = scales_of(weight, args, dtype)
    return Codes(fake_quantize(weight, scale, torch.zeros_like(scale), args), scale)


def scales_of(weight: torch.Tensor, args: QuantizationArgs, dtype: torch.dtype) -> torch.Tensor:
    """The scales (O, G) of the groups of `weight` (O, I), float32 numbers that `dtype` can hold."""
    from compressed_tensors.quantization.utils import calculate_qparams

    grouped = weight.unflatten(1, (-1, args.group_size or weight.shape[1]))  # (O, G, I / G)
    return calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)[0].to(dtype).float()


def _nearest_all(model: PreTrainedModel, layers: Mapping[str, torch.nn.Linear], rows: Sequence[np.ndarray],
                 args: QuantizationArgs) -> dict[str, Codes]:
    return {name: nearest(layer.weight.float(), args, layer.weight.dtype) for name, layer in layers.items()}


def _gptq_all(model: PreTrainedModel, layers: Mapping[str, torch.nn.Linear], rows: Sequence[np.ndarray],
              args: QuantizationArgs) -> dict[str, Codes]:
    """One decoder layer after the other, each fitted to what the quantised ones before it give."""
    found: dict[str, Codes] = {}
    for block in Replay(model, rows).blocks():
        mine = {name: layer for name, layer in layers.items() if block.holds(layer)}
        for name, hessian in block.hessians(mine).items():
            weight = layers[name].weight
            found[name] = gptq(weight.float(), hessian, args, weight.dtype)
            weight.copy_(found[name].weight)
    rest = {name: layer for name, layer in layers.items() if name not in found}
    return found | _nearest_all(model, rest, rows, args)


def _awq_all(model: PreTrainedModel, layers: Mapping[str, torch.nn.Linear], rows: Sequence[np.ndarray],
             args: QuantizationArgs) -> dict[str, Codes]:
    from truetune.export.awq import protect

    for block in Replay(model, rows).blocks():
        protect(block, {name: layer for name, layer in layers.items() if block.holds(layer)}, args)
    return _nearest_all(model, layers, rows, args)


def _whole_numbers(bits: int, group: int) -> QuantizationArgs:
    from compressed_tensors.quantization import QuantizationArgs

    return QuantizationArgs.model_validate({"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group",
                                            "group_size": group})


def _floats(bits: int, group: int) -> QuantizationArgs:
    from compressed_tensors.quantization import QuantizationArgs

    return QuantizationArgs.model_validate({"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"})


@dataclass(frozen=True)
class Form:
    """A way to quantise. fit: finds the codes. args(bits, group): how they are held. fitted: it needs texts. bits:
    where none are named."""

    fit: Fit
    args: Callable[[int, int], QuantizationArgs]
    fitted: bool
    bits: int = 4


FORMS: Mapping[str, Form] = {
    "gptq": Form(_gptq_all, _whole_numbers, True), "awq": Form(_awq_all, _whole_numbers, True),
    "rtn": Form(_nearest_all, _whole_numbers, False), "fp8": Form(_nearest_all, _floats, False, 8),
}
"""By export_quantization_method."""


# ------------------------------------------------------------------------------------------------------------- writing


def _write(model: PreTrainedModel, found: Mapping[str, Codes], args: QuantizationArgs, target: Path) -> None:
    """The model with these codes, by the package's own hand."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, apply_quantization_config

    every = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    settings = QuantizationConfig(config_groups={"group_0": scheme},
                                  ignore=[name for name in every if name not in found])
    apply_quantization_config(model, settings, show_progress=False)
    for name, codes in found.items():
        layer: Any = model.get_submodule(name)
        layer.weight.copy_(codes.weight)
        layer.weight_scale.copy_(codes.scale.reshape(layer.weight_scale.shape))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.config.use_cache = True
    torch.nn.Module.to(model, "cpu")
    model.save_pretrained(target)
    compressor.update_config(str(target))


