"""Which weights an optimizer steps how: groups by learning rate and decay, matrices apart from the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, problem
from truetune.model.methods import Method
from truetune.model.precision import Precision
from truetune.optim.adam_mini import blocks_of
from truetune.optim.backward import BackwardOptimizer
from truetune.optim.blocks import BlockOptimizer, layer_of, split
from truetune.optim.chain import Chain
from truetune.optim.low_rank import LowRank, Picture
from truetune.optim.optimizer import Optimizer
from truetune.optim.table import Recipe, Settings, beside_of, create, settings_of
from truetune.options import Config
from truetune.options.optimizers import chosen, in_backward, kind_of

Weights = Mapping[str, torch.Tensor]


def make_optimizer(model: torch.nn.Module, weights: Mapping[str, torch.nn.Parameter], config: Config,
                   precision: Precision, total_steps: int, method: Method | None = None) -> Optimizer:
    """The optimizer that `config` asks for, over the trained `weights` of `model`, with its schedule.

    Args:
        method: how the model is tuned, where that has a say in a step.

    Raises:
        Problem: `optim_args` or the modules to work on are wrong, or the method needs what the optimizer has dropped.
    """
    recipe, settings, beside = settings_of(config)
    picture, matrices = _picture(config, beside), _matrices(model, weights, config)
    plan = _Plan(model, config, recipe, settings, beside, picture, matrices)
    arrange = _ARRANGED.get(chosen(config), _low_rank if picture else _together)
    steps = _STEPS.get(chosen(config), BackwardOptimizer if in_backward(config) else Optimizer)
    if method and method.stepped and in_backward(config):
        raise problem("gradients-gone", Both(
            f"{config.finetuning_type} looks at gradients after a step, and here each is dropped once it is used.",
            f"{config.finetuning_type} 在更新之后还要查看梯度，而这里梯度用完即丢。"), option="finetuning_type",
            where=config.origin("finetuning_type"), status=WRONG_OPTIONS,
            fix=Both("Leave the layer-wise optimizer out.", "请不要用逐层更新的优化器。"))
    return steps(weights, partial(arrange, plan=plan), config, precision, total_steps,
                 penalty=partial(method.penalty, model) if method and method.penalty else None,
                 stepped=partial(method.stepped, model) if method and method.stepped else None)


def optimizer_findings(config: Config) -> list[Finding]:
    """What is wrong with the optimizer that can be known before a model is loaded: a package that is missing, and
    `optim_args` that it does not take."""
    kind = kind_of(config)
    if kind.refused or not config.do_train:  # a rule tells
        return []
    if kind.package and find_spec(kind.package[0]) is None:
        return [Finding("packages-missing", "error", Both(
            f"{chosen(config)} comes from a package that is not installed: {kind.package[1]}.",
            f"{chosen(config)} 所需的包没有安装：{kind.package[1]}。"), option="optim", where=config.origin("optim"),
            fix=f"pip install {kind.package[1]}")]
    try:
        settings_of(config)
    except Problem as error:
        return error.findings
    return []


def state_bytes(model: torch.nn.Module, weights: Weights, config: Config, number: int) -> int:
    """Bytes of state that the optimizer will hold for `weights` (on `meta` too), masters not among them.

    Args:
        number: bytes of a number of what is stepped: 4 where there are masters.
    """
    kind = kind_of(config)
    if kind.refused:  # a rule tells; what it would be is no matter
        return 0
    each, picture = kind.numbers * number + kind.fixed, _picture(config, beside_of(config))
    matrices = _matrices(model, weights, config)

    def of(name: str, weight: torch.Tensor) -> float:
        if name in matrices and picture:
            pictured, directions = picture.shapes(weight.shape)
            return _numel(pictured) * each + number * sum(map(_numel, directions))
        return weight.numel() * (number if name in matrices else each)  # Muon's one moment

    return round(sum(of(name, weight) for name, weight in at_once(weights, config).items()))


def at_once(weights: Weights, config: Config) -> Weights:
    """Those of `weights` that are trained at the same time: the largest block of BAdam, else all."""
    if chosen(config) not in _STEPS:
        return weights
    return max(split(weights), key=lambda block: sum(weight.numel() for weight in block.values()))


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


@dataclass(frozen=True)
class _Plan:
    """What an arrangement is made from. matrices: the names of the weights that are stepped apart from the rest."""

    model: torch.nn.Module
    config: Config
    recipe: Recipe
    settings: Settings
    beside: Settings
    picture: Picture | None
    matrices: frozenset[str]

    def create(self, groups: list[dict[str, Any]], rate: float | None = None) -> torch.optim.Optimizer:
        made = create(self.recipe, groups, self.config.learning_rate if rate is None else rate, self.settings,
                      self.config)
        if kind_of(self.config).averages:
            made.train()  # pyright: ignore[reportAttributeAccessIssue]
        return made

    def apart(self, weights: Weights) -> tuple[Weights, Weights]:
        """Those in `matrices`, and the rest."""
        return ({name: weight for name, weight in weights.items() if name in self.matrices},
                {name: weight for name, weight in weights.items() if name not in self.matrices})


Arrange = Callable[..., torch.optim.Optimizer]


def _together(weights: Weights, plan: _Plan) -> torch.optim.Optimizer:
    """One optimizer steps everything."""
    return plan.create(_groups(weights, plan.config))


def _low_rank(weights: Weights, plan: _Plan) -> torch.optim.Optimizer:
    """Matrices by way of low-rank pictures, the rest as it is."""
    matrices, rest = plan.apart(weights)
    assert plan.picture is not None
    names = {weight: name for name, weight in matrices.items()}
    parts = [LowRank(_groups(matrices, plan.config), plan.picture, plan.create, names)] if matrices else []
    return Chain([*parts, *([_together(rest, plan)] if rest else [])])


def _muon(weights: Weights, plan: _Plan) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for the matrices inside layers, in steps as
    long as AdamW's (Liu et al. 2025, arXiv:2502.16982, equation 4), so that AdamW's learning rates hold; AdamW for the
    rest."""
    matrices, rest = plan.apart(weights)
    parts = [torch.optim.Muon(_groups(matrices, plan.config), lr=plan.config.learning_rate,
                              adjust_lr_fn="match_rms_adamw", **plan.beside)] if matrices else []
    return Chain([*parts, *([_together(rest, plan)] if rest else [])])


def _in_blocks(weights: Weights, plan: _Plan) -> torch.optim.Optimizer:
    """Adam-mini, told how many blocks each weight has."""
    groups: dict[tuple[float, float, int], dict[str, Any]] = {}
    heads = _heads(plan.model)
    for name, weight in weights.items():
        blocks = blocks_of(name, weight.shape, heads)
        for group in _groups({name: weight}, plan.config):
            key = (group["lr"], group["weight_decay"], blocks)
            groups.setdefault(key, {**group, "blocks": blocks, "params": []})["params"].append(weight)
    return plan.create(list(groups.values()))


_ARRANGED: Mapping[str, Arrange] = {"muon": _muon, "adam_mini": _in_blocks}
_STEPS: Mapping[str, type[Optimizer]] = {"badam": BlockOptimizer}
"""By name, where it is not the usual."""


def _groups(weights: Weights, config: Config) -> list[dict[str, Any]]:
    """`weights` by learning rate and decay, the most usual ones first. Biases and norms (one dimension) are scales, not
    directions: decay would only make them smaller."""
    groups: dict[tuple[float, float], list[torch.Tensor]] = {(config.learning_rate, config.weight_decay): []}
    for name, weight in weights.items():
        key = (_rate_of(name, weight, config), config.weight_decay if weight.ndim > 1 else 0.0)
        groups.setdefault(key, []).append(weight)
    return [{"params": members, "lr": rate, "weight_decay": decay}
            for (rate, decay), members in groups.items() if members]


def _rate_of(name: str, weight: torch.Tensor, config: Config) -> float:
    """The learning rate of a weight. LoRA+ (Hayou et al. 2024, arXiv:2402.12354): B learns
    `loraplus_lr_ratio` times as fast as A, and so do vectors, as in the authors' code."""
    if config.loraplus_lr_ratio is None:
        return config.learning_rate
    if ".lora_embedding_B." in name or name.endswith(".lora_embedding_B"):
        return config.loraplus_lr_embedding
    fast = ".lora_B." in name or weight.ndim == 1
    return config.learning_rate * (config.loraplus_lr_ratio if fast else 1.0)


def _picture(config: Config, beside: Settings) -> Picture | None:
    """How GaLore or APOLLO pictures gradients: what the switches' options say, or transformers' words in optim_args."""
    kind = kind_of(config).low_rank
    if kind is None:
        return None
    if config.use_galore:
        return Picture(config.galore_rank, config.galore_update_interval, config.galore_scale, config.galore_proj_type)
    if config.use_apollo:
        return Picture(config.apollo_rank, config.apollo_update_interval, config.apollo_scale, config.apollo_proj_type,
                       config.apollo_proj == "random", config.apollo_scale_type, config.apollo_scale_front, config.seed)
    side = _one_of(beside["proj_type"], ("std", "reverse_std", "left", "right", "full"), "proj_type", config)
    common = (beside["rank"], beside["update_proj_gap"], beside["scale"], side)
    if kind == "galore":
        return Picture(*common)
    random = _one_of(beside["proj"], ("random", "svd"), "proj", config) == "random"
    scaling = _one_of(beside["scale_type"], ("channel", "tensor"), "scale_type", config)
    return Picture(*common, random, scaling, beside["scale_front"], config.seed)  # pyright: ignore[reportArgumentType]


def _one_of(value: object, words: tuple[str, ...], name: str, config: Config) -> str:
    if value not in words:
        raise problem("optim-args", Both(f"{name} is {value!r}, and not one of {', '.join(words)}.",
                                         f"{name} 是 {value!r}，应为 {'、'.join(words)} 之一。"), option="optim_args",
                      where=config.origin("optim_args"), status=WRONG_OPTIONS)
    return str(value)


def _matrices(model: torch.nn.Module, weights: Weights, config: Config) -> frozenset[str]:
    """The names of the weights that GaLore, APOLLO or Muon steps: matrices inside layers; of GaLore and APOLLO those of
    linear layers that galore_target, apollo_target or optim_target_modules name by a part of their name.

    Raises:
        Problem: no trained matrix has such a name.
    """
    inside = frozenset(name for name, weight in weights.items() if weight.ndim == 2 and layer_of(name) is not None)
    if not kind_of(config).low_rank:
        return inside if kind_of(config).matrices else frozenset()
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    option = "galore_target" if config.use_galore else "apollo_target" if config.use_apollo else "optim_target_modules"
    wanted: tuple[str, ...] = getattr(config, option)
    every = not wanted or wanted in (("all",), ("all-linear",), ("all_linear",))
    found = frozenset(name for name in inside & linear
                      if every or any(re.search(part, name.removesuffix(".weight")) for part in wanted))
    if not found:
        parts = sorted({name.split(".")[-2] for name in inside & linear})
        raise problem("no-module", Both(f"no trained matrix of a linear layer is called {', '.join(wanted) or 'so'}.",
                                        f"没有名为 {'、'.join(wanted) or 'all'} 的可训练线性层。"), option=option,
                      where=config.origin(option), status=WRONG_OPTIONS,
                      fix=Both(f"There are {', '.join(parts)}.", f"可选：{'、'.join(parts)}。") if parts else "")
    return found


def _heads(model: torch.nn.Module) -> dict[str, int]:
    """How many heads of queries and of keys the model has, by the names that their projections have in most models."""
    text = model.config.get_text_config().to_dict()  # pyright: ignore
    queries = text.get("num_attention_heads") or 1
    return {"q_proj": queries, "k_proj": text.get("num_key_value_heads") or queries}
