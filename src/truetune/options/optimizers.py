"""What rules and the memory prediction have to know of each optimizer, as data: so that nothing branches on a name.

The names are transformers' words for `optim`, and three for switches that have no word of their own: muon, adam_mini
and badam. `chosen` says which one a configuration asks for, by whichever option.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from truetune.findings import Both
from truetune.options import Config

_BETAS = ("adam_beta1", "adam_beta2")
_ADAM = (*_BETAS, "adam_epsilon")


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer, as the options see it.

    numbers: of state that it holds for a trained weight, in the weight's own format; fixed: bytes of state beside
    them, of formats of its own. options: of adam_beta1, adam_beta2 and adam_epsilon, those it takes. package: (the
    module, what pip installs), where it comes neither with torch nor with transformers. backward: it steps each weight
    within the backward pass. averages: the weights to use are an average of those that are trained on. even: a step
    moves each weight by about the learning rate, however long the gradient is. matrices: those inside layers are
    stepped apart from the rest. low_rank: they are, by way of low-rank pictures of gradients. refused: why it cannot
    be had.
    """

    numbers: float = 0.0
    fixed: float = 0.0
    options: tuple[str, ...] = ()
    package: tuple[str, str] | None = None
    backward: bool = False
    averages: bool = False
    even: bool = True
    matrices: bool = False
    low_rank: Literal["galore", "apollo"] | None = None
    refused: Both | None = None


_BNB = ("bitsandbytes", "bitsandbytes")
_AO = ("torchao", "torchao")
_FREE = ("schedulefree", "schedulefree")
_SCALE = 4 / 256
"""Bytes of scale for each number of 8 bits, which come in blocks of 256."""
_8BIT = 1 + _SCALE

OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "adamw_torch": OptimizerKind(2, options=_ADAM),
    "adamw_torch_fused": OptimizerKind(2, options=_ADAM),
    "adamw_torch_xla": OptimizerKind(refused=Both(
        "it is for TPUs, which are not supported", "它用于 TPU，而这里不支持 TPU")),
    "adamw_torch_npu_fused": OptimizerKind(refused=Both(
        "it is for Ascend NPUs, which are not supported", "它用于昇腾 NPU，而这里不支持 NPU")),
    "adamw_anyprecision": OptimizerKind(refused=Both(
        "its library (torchdistX) is no longer kept; pure_bf16 with stable_adamw has the compensated sums it was for",
        "它所在的库 torchdistX 已停止维护；pure_bf16 加 stable_adamw 同样有补偿求和")),
    "adafactor": OptimizerKind(),
    "adamw_torch_4bit": OptimizerKind(0, 2 * (0.5 + 4 / 128), _ADAM, _AO),
    "adamw_torch_8bit": OptimizerKind(0, 2 * _8BIT, _ADAM, _AO),
    "ademamix": OptimizerKind(0, 12, _ADAM, _BNB),
    "ademamix_8bit": OptimizerKind(0, 3 * _8BIT, _ADAM, _BNB),
    "paged_ademamix_32bit": OptimizerKind(0, 12, _ADAM, _BNB),
    "paged_ademamix_8bit": OptimizerKind(0, 3 * _8BIT, _ADAM, _BNB),
    "sgd": OptimizerKind(even=False),
    "adagrad": OptimizerKind(1),
    "adamw_bnb_8bit": OptimizerKind(0, 2 * _8BIT, _ADAM, _BNB),
    "adamw_8bit": OptimizerKind(0, 2 * _8BIT, _ADAM, _BNB),
    "paged_adamw_32bit": OptimizerKind(0, 8, _ADAM, _BNB),
    "paged_adamw_8bit": OptimizerKind(0, 2 * _8BIT, _ADAM, _BNB),
    "lion_8bit": OptimizerKind(0, _8BIT, _BETAS, _BNB),
    "lion_32bit": OptimizerKind(0, 4, _BETAS, _BNB),
    "paged_lion_32bit": OptimizerKind(0, 4, _BETAS, _BNB),
    "paged_lion_8bit": OptimizerKind(0, _8BIT, _BETAS, _BNB),
    "rmsprop": OptimizerKind(1),
    "rmsprop_bnb": OptimizerKind(0, 4, (), _BNB),
    "rmsprop_bnb_8bit": OptimizerKind(0, _8BIT, (), _BNB),
    "rmsprop_bnb_32bit": OptimizerKind(0, 4, (), _BNB),
    "galore_adamw": OptimizerKind(2, options=_ADAM, low_rank="galore"),
    "galore_adamw_8bit": OptimizerKind(0, 2 * _8BIT, _ADAM, _BNB, low_rank="galore"),
    "galore_adafactor": OptimizerKind(low_rank="galore"),
    "galore_adamw_layerwise": OptimizerKind(2, options=_ADAM, backward=True, low_rank="galore"),
    "galore_adamw_8bit_layerwise": OptimizerKind(0, 2 * _8BIT, _ADAM, _BNB, backward=True, low_rank="galore"),
    "galore_adafactor_layerwise": OptimizerKind(backward=True, low_rank="galore"),
    "lomo": OptimizerKind(backward=True, even=False),
    "adalomo": OptimizerKind(backward=True),
    "grokadamw": OptimizerKind(3, options=_ADAM),
    "schedule_free_radam": OptimizerKind(2, options=_ADAM, package=_FREE, averages=True),
    "schedule_free_adamw": OptimizerKind(2, options=_ADAM, package=_FREE, averages=True),
    "schedule_free_sgd": OptimizerKind(1, package=_FREE, averages=True, even=False),
    "apollo_adamw": OptimizerKind(2, options=_ADAM, low_rank="apollo"),
    "apollo_adamw_layerwise": OptimizerKind(2, options=_ADAM, backward=True, low_rank="apollo"),
    "stable_adamw": OptimizerKind(2, options=_ADAM, package=("optimi", "torch-optimi")),
    "muon": OptimizerKind(2, options=_ADAM, matrices=True),
    "adam_mini": OptimizerKind(1, options=_ADAM),
    "badam": OptimizerKind(2, options=_ADAM),
}
"""By name. Of muon, and of those of low rank, `numbers` is of the weights that they leave to AdamW or its like."""

SWITCHES: Mapping[str, Mapping[str, str]] = {
    "use_galore": {"adamw_torch": "galore_adamw", "adamw_8bit": "galore_adamw_8bit",
                   "adamw_bnb_8bit": "galore_adamw_8bit", "paged_adamw_8bit": "galore_adamw_8bit",
                   "adafactor": "galore_adafactor"},
    "use_apollo": {"adamw_torch": "apollo_adamw"},
    "use_badam": {"adamw_torch": "badam"},
    "use_adam_mini": {"adamw_torch": "adam_mini"},
    "use_muon": {"adamw_torch": "muon"},
    "adafactor": {"adamw_torch": "adafactor", "adafactor": "adafactor"},
}
"""By a switch that asks for an optimizer, what it makes of each `optim` that it goes with."""


def switches(config: Config) -> list[str]:
    """Those of `SWITCHES` that are on. adafactor says with use_galore what that works with, and counts as none then."""
    on = [name for name in SWITCHES if getattr(config, name)]
    return [name for name in on if not (name == "adafactor" and config.use_galore)]


def chosen(config: Config) -> str:
    """The name of the optimizer that trains, one of `OPTIMIZERS`."""
    optim = "adafactor" if config.adafactor else config.optim
    for name in switches(config):
        return SWITCHES[name].get(optim, config.optim)
    return config.optim


def kind_of(config: Config) -> OptimizerKind:
    """What is known of the optimizer that trains."""
    return OPTIMIZERS[chosen(config)]


def in_backward(config: Config) -> bool:
    """Whether each weight is stepped as soon as its gradient is there."""
    return (config.optimizer_in_backward or kind_of(config).backward
            or (config.use_galore and config.galore_layerwise) or (config.use_apollo and config.apollo_layerwise))
