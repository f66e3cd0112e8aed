"""From a name to an optimizer: where its class is, and what it takes of the configuration.

What `optim_args` may say is read from the class's own signature, so a new setting of a library is there at once.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

import torch

from truetune.findings import WRONG_OPTIONS, Both, Problem, problem
from truetune.options import Config
from truetune.options.optimizers import chosen

Settings = dict[str, Any]


def _betas(config: Config) -> Settings:
    return {"betas": (config.adam_beta1, config.adam_beta2)}


def _adam(config: Config) -> Settings:
    return {**_betas(config), "eps": config.adam_epsilon}


def _nothing(config: Config) -> Settings:
    return {}


@dataclass(frozen=True)
class Recipe:
    """place: `module:class`. takes(config): what options give it. fixed: what the name itself says. defaults: settings
    that it takes besides, by the names that users know from transformers, and their values."""

    place: str
    takes: Callable[[Config], Settings] = _nothing
    fixed: Mapping[str, Any] | None = None
    defaults: Mapping[str, Any] | None = None

    def load(self) -> Any:
        """The class."""
        return resolve_name(self.place)


_GALORE = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
_APOLLO = {"rank": 128, "update_proj_gap": 200, "scale": 1.0, "proj_type": "std", "proj": "random",
           "scale_type": "channel", "scale_front": False}
_ADAMW, _ADAFACTOR = "torch.optim:AdamW", "transformers:Adafactor"
_OUTER = {"scale_parameter": False, "relative_step": False}
"""Adafactor with a learning rate from outside."""


def _bnb(name: str, bits: int, takes: Callable[[Config], Settings], paged: bool | None = False,
         defaults: Mapping[str, Any] | None = None) -> Recipe:
    fixed = {"optim_bits": bits, **({} if paged is None else {"is_paged": paged})}
    return Recipe(f"bitsandbytes.optim:{name}", takes, fixed, defaults)


_BETA3 = {"beta3": 0.9999}
RECIPES: Mapping[str, Recipe] = {
    "adamw_torch": Recipe(_ADAMW, _adam),
    "adamw_torch_fused": Recipe(_ADAMW, _adam, {"fused": True}),
    "adafactor": Recipe(_ADAFACTOR, _nothing, _OUTER),
    "adamw_torch_4bit": Recipe("torchao.optim:AdamW4bit", _adam),
    "adamw_torch_8bit": Recipe("torchao.optim:AdamW8bit", _adam),
    "ademamix": _bnb("AdEMAMix", 32, _adam, defaults=_BETA3),
    "ademamix_8bit": _bnb("AdEMAMix", 8, _adam, defaults=_BETA3),
    "paged_ademamix_32bit": _bnb("AdEMAMix", 32, _adam, True, _BETA3),
    "paged_ademamix_8bit": _bnb("AdEMAMix", 8, _adam, True, _BETA3),
    "sgd": Recipe("torch.optim:SGD"),
    "adagrad": Recipe("torch.optim:Adagrad"),
    "adamw_bnb_8bit": _bnb("AdamW", 8, _adam),
    "adamw_8bit": _bnb("AdamW", 8, _adam),
    "paged_adamw_32bit": _bnb("AdamW", 32, _adam, True),
    "paged_adamw_8bit": _bnb("AdamW", 8, _adam, True),
    "lion_8bit": _bnb("Lion", 8, _betas),
    "lion_32bit": _bnb("Lion", 32, _betas),
    "paged_lion_32bit": _bnb("Lion", 32, _betas, True),
    "paged_lion_8bit": _bnb("Lion", 8, _betas, True),
    "rmsprop": Recipe("torch.optim:RMSprop"),
    "rmsprop_bnb": _bnb("RMSprop", 32, _nothing, None),
    "rmsprop_bnb_8bit": _bnb("RMSprop", 8, _nothing, None),
    "rmsprop_bnb_32bit": _bnb("RMSprop", 32, _nothing, None),
    "galore_adamw": Recipe(_ADAMW, _adam, defaults=_GALORE),
    "galore_adamw_8bit": _bnb("AdamW", 8, _adam, defaults=_GALORE),
    "galore_adafactor": Recipe(_ADAFACTOR, _nothing, _OUTER, _GALORE),
    "galore_adamw_layerwise": Recipe(_ADAMW, _adam, defaults=_GALORE),
    "galore_adamw_8bit_layerwise": _bnb("AdamW", 8, _adam, defaults=_GALORE),
    "galore_adafactor_layerwise": Recipe(_ADAFACTOR, _nothing, _OUTER, _GALORE),
    # LOMO is SGD, stepped in the backward pass (Lv et al. 2023, arXiv:2306.09782); AdaLOMO is Adafactor whose learning
    # rate is a share of each matrix's root mean square, stepped there too (Lv et al. 2023, arXiv:2310.10195).
    "lomo": Recipe("torch.optim:SGD"),
    "adalomo": Recipe(_ADAFACTOR, _nothing, {"scale_parameter": True, "relative_step": False}),
    "grokadamw": Recipe("truetune.optim.grok:GrokAdamW", _adam),
    "schedule_free_radam": Recipe("schedulefree:RAdamScheduleFree", _adam),
    "schedule_free_adamw": Recipe("schedulefree:AdamWScheduleFree", _adam),
    "schedule_free_sgd": Recipe("schedulefree:SGDScheduleFree"),
    "apollo_adamw": Recipe(_ADAMW, _adam, defaults=_APOLLO),
    "apollo_adamw_layerwise": Recipe(_ADAMW, _adam, defaults=_APOLLO),
    "stable_adamw": Recipe("optimi:StableAdamW", _adam),
    "muon": Recipe(_ADAMW, _adam),
    "adam_mini": Recipe("truetune.optim.adam_mini:AdamMini", _adam),
    "badam": Recipe(_ADAMW, _adam),
}
"""By name; every one of `options.optimizers.OPTIMIZERS` that is not refused."""

_OF_OPTIONS = {"lr": "learning_rate", "weight_decay": "weight_decay", "betas": "adam_beta1, adam_beta2",
               "eps": "adam_epsilon", "beta1": "adam_beta1", "beta2": "adam_beta2", "is_paged": "optim",
               "optim_bits": "optim"}
"""Settings that are options of their own."""


def settings_of(config: Config) -> tuple[Recipe, Settings, Settings]:
    """The recipe of the optimizer that trains, what its class is made with, and what of `optim_args` is for how it is
    used (`Recipe.defaults` filled in).

    Raises:
        Problem: `optim_args` cannot be read, or says what the optimizer does not take.
    """
    recipe = RECIPES[chosen(config)]
    said = _read(config)
    known, beside = _parameters(recipe), beside_of(config)
    for name in said:
        if name not in known and name not in beside:
            raise _unknown(name, config, [*known, *beside])
    made = {**recipe.takes(config), **(recipe.fixed or {}), **{k: v for k, v in said.items() if k in known}}
    if "beta3" in beside:
        made["betas"] = (*made["betas"], beside.pop("beta3"))
    return recipe, made, beside


def beside_of(config: Config) -> Settings:
    """What of `optim_args` is for how the optimizer is used, `Recipe.defaults` filled in; needs no class.

    Raises:
        Problem: `optim_args` cannot be read.
    """
    defaults = RECIPES[chosen(config)].defaults or {}
    return {**defaults, **{name: value for name, value in _read(config).items() if name in defaults}}


def _parameters(recipe: Recipe) -> list[str]:
    """What the class takes and no option says. Of `eps`: where adam_epsilon is not for it."""
    names = [name for name in inspect.signature(recipe.load()).parameters if name not in ("params", "groups", "args")]
    own = {name for name in _OF_OPTIONS if name != "eps"} | ({"eps"} if recipe.takes is _adam else set())
    return [name for name in names if name not in own]


def _read(config: Config) -> Settings:
    """`a=1, b=true` as names and values: numbers, true and false, none, or words.

    Raises:
        Problem: a piece is not name=value.
    """
    found = {}
    for piece in filter(None, (piece.strip() for piece in (config.optim_args or "").split(","))):
        name, mark, value = (part.strip() for part in piece.partition("="))
        if not (name and mark and value):
            raise problem("optim-args", Both(f"{piece!r} is not name=value.", f"{piece!r} 不是 名字=值 的形式。"),
                          option="optim_args", where=config.origin("optim_args"), status=WRONG_OPTIONS,
                          fix=Both("Write for example momentum=0.9, nesterov=true.",
                                   "例如写成 momentum=0.9, nesterov=true。"))
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _unknown(name: str, config: Config, known: list[str]) -> Problem:
    if name in _OF_OPTIONS:
        fix = Both(f"It is an option of its own: {_OF_OPTIONS[name]}.", f"它有单独的选项：{_OF_OPTIONS[name]}。")
    elif near := difflib.get_close_matches(name, known, n=1):
        fix = Both(f"Did you mean {near[0]}?", f"是不是 {near[0]}？")
    else:
        fix = Both(f"It takes {', '.join(known)}.", f"它接受：{'、'.join(known)}。") if known else \
            Both("It takes none.", "它不接受任何参数。")
    return problem("optim-args", Both(f"{chosen(config)} does not take {name!r}.",
                                      f"{chosen(config)} 没有参数 {name!r}。"), option="optim_args",
                   where=config.origin("optim_args"), fix=fix, status=WRONG_OPTIONS)


def create(recipe: Recipe, groups: list[dict[str, Any]], rate: float, settings: Settings,
           config: Config) -> torch.optim.Optimizer:
    """The optimizer of `recipe` over `groups`.

    Raises:
        Problem: its class refuses a value of `optim_args`.
    """
    try:
        return recipe.load()(groups, lr=rate, **settings)
    except (ValueError, TypeError, AssertionError) as error:
        if not config.optim_args:
            raise
        raise problem("optim-args", Both(f"{config.optim_args!r} is refused: {error}",
                                         f"{config.optim_args!r} 不被接受：{error}"), option="optim_args",
                      where=config.origin("optim_args"), status=WRONG_OPTIONS) from None
