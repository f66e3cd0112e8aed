"""Products of linear layers in 8-bit floats (Micikevicius et al. 2022, arXiv:2209.05433), by torchao, on GPUs that have
them: what goes in and the weights are rounded to e4m3 for the product, a scale for each row, and stay as they are.

Rows have scales of their own, so a row's numbers do not depend on which others are computed with it; and the gradients
of weights are computed in 16 bits (torchao's recipe `rowwise_with_gw_hp`), so a batch may have any number of tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import PreTrainedModel

from truetune.findings import Both, Finding
from truetune.model.quantize import packages_findings, plain_layers, quiet
from truetune.options import Config

CAPABILITY = (9, 0)
"""NVIDIA's number of Hopper, the first with products of 8-bit floats that have a scale for each row."""
_MULTIPLE = 16
"""Kernels take matrices whose sides are multiples of it."""


def multiply_in_float8(model: PreTrainedModel, emulate: bool = False) -> int:
    """Let the linear layers of the body, but the output head, multiply in 8-bit floats. Their weights stay parameters.

    Args:
        emulate: round as the GPU would and multiply in 32 bits, on any device; slow, for tests.

    Returns:
        How many layers do; those with odd sides do not.
    """
    with quiet():
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    names = {name for name, layer in plain_layers(model).items()
             if layer.in_features % _MULTIPLE == layer.out_features % _MULTIPLE == 0}
    recipe = replace(Float8LinearConfig.from_recipe_name("rowwise_with_gw_hp"), emulate=emulate)
    convert_to_float8_training(model, config=recipe, module_filter_fn=lambda layer, name: name in names)
    return len(names)


def float8_findings(config: Config, device: torch.device) -> list[Finding]:
    """An error where fp8 is asked for and torchao is missing, or the device has no such products."""
    if not config.fp8:
        return []
    where = config.origin("fp8")
    if missing := packages_findings("fp8", "torchao", "fp8", where):
        return missing
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY:
        return []
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return [Finding("needs-hopper", "error", Both(
        f"products in 8-bit floats need an NVIDIA GPU of the Hopper kind (H100) or newer, and this run is on: {name}.",
        f"8 位浮点乘法需要 Hopper（H100）或更新的 NVIDIA GPU，而这次用的是：{name}。"), option="fp8", where=where,
        fix=Both("Leave it out.", "请去掉。"))]
