"""What a way to tune is, and what several of them ask of a model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedModel

from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.model.adapters import adapters_of, merge_all, put_adapters, quiet_peft
from truetune.model.bundled import BUNDLED
from truetune.options import Config
from truetune.options.kinds import KINDS


class Prepare(Protocol):
    """`prepare(model, config, base)` returns the model with exactly the trained parameters requiring gradients.

    base: the folder that the model was loaded from. new_tokens: ids of tokens added to the vocabulary, whose rows are
    trained, and saved beside an adapter.
    """

    def __call__(self, model: PreTrainedModel, config: Config, base: Path,
                 new_tokens: Sequence[int] = ()) -> torch.nn.Module: ...


@dataclass(frozen=True)
class Method:
    """A way to tune.

    adapter: whether an adapter is written, or a whole model. planned(model, steps): told once how many optimizer steps
    there will be. penalty(model): added once an optimizer step to the mean loss. stepped(model, step): called after
    each optimizer step (from 1), while the gradients are still in the parameters' `.grad`; it may set weights to zero.
    state(model): what the next step depends on beside the weights, for a checkpoint; load_state: its inverse.
    """

    prepare: Prepare
    adapter: bool
    planned: Callable[[torch.nn.Module, int], None] | None = None
    penalty: Callable[[torch.nn.Module], torch.Tensor] | None = None
    stepped: Callable[[torch.nn.Module, int], None] | None = None
    state: Callable[[torch.nn.Module], dict[str, torch.Tensor]] | None = None
    load_state: Callable[[torch.nn.Module, Mapping[str, torch.Tensor]], None] | None = None


Build = Callable[[PreTrainedModel, Config, Path, Sequence[int]], torch.nn.Module]


def adapter_method(build: Build) -> Prepare:
    """A `Prepare` that goes on with the adapter that the options name, or else begins a new one with `build`."""

    def prepare(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int] = ()) -> torch.nn.Module:
        named = adapters_of(config)
        if named and not config.create_new_adapter:
            return put_adapters(model, named, base, trained=True, kind=KINDS[config.finetuning_type].peft)
        merge_all(model, named, base)
        if _is_hub_id(config.model_name_or_path or ""):
            model.name_or_path = config.model_name_or_path  # adapter_config.json names the id, not this machine's cache
        return build(model, config, base, new_tokens)

    return prepare


def wrap(model: PreTrainedModel, settings: object) -> torch.nn.Module:
    """`model` with a new adapter of PEFT's on it.

    Raises:
        Problem: PEFT refuses the settings.
    """
    from peft import get_peft_model

    with quiet_peft():
        try:
            return get_peft_model(model, settings, autocast_adapter_dtype=False)  # pyright: ignore
        except (ValueError, TypeError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise problem("no-adapter-made", Both(f"PEFT cannot put it on this model: {reason}",
                                                  f"PEFT 无法把它加到这个模型上：{reason}"),
                          option="finetuning_type", status=WRONG_OPTIONS) from error


def targets(model: PreTrainedModel, config: Config, option: str = "lora_target") -> str | list[str]:
    """The modules that `option` names, as PEFT takes them; only those of the added blocks with use_llama_pro."""
    names: tuple[str, ...] = getattr(config, option)
    if config.use_llama_pro:
        every = expanded_layers(model, config)
        linear = torch.nn.Linear
        return [full for full, module in model.named_modules() if isinstance(module, linear)
                and any(full.startswith(f"{layer}.") for layer in every)
                and (names == ("all",) or full.rpartition(".")[2] in names)]
    if names == ("all",):
        return "all-linear"
    find_modules(names, model, option, config)
    return list(names)


def whole_modules(model: PreTrainedModel, config: Config) -> list[str] | None:
    """The modules that additional_target names, by their full names: PEFT takes every module whose name ends in the
    same
    letters (norm: input_layernorm too)."""
    return find_modules(config.additional_target, model, "additional_target", config) or None


def layers_of(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The model's layers, in order.

    Raises:
        Problem: there is no list of as many modules as config.json names layers.
    """
    depth = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            return module
    name = type(model).__name__
    raise problem("no-layers", Both(f"no list of {depth} layers was found in {name}.",
                                    f"在 {name} 里没有找到由 {depth} 层组成的列表。"),
                  option="finetuning_type", fix=Both("Use lora or full.", "请改用 lora 或 full。"))


def expanded_layers(model: PreTrainedModel, config: Config) -> list[str]:
    """The full names of the layers that `truetune expand` added: the last of each of freeze_trainable_layers equal
    parts.

    Raises:
        Problem: the layers cannot be divided so.
    """
    layers, count = layers_of(model), abs(config.freeze_trainable_layers)
    if not count or len(layers) % count:
        raise problem("uneven-layers", Both(
            f"{len(layers)} layers do not divide into {count} equal parts, each with one added block.",
            f"{len(layers)} 层不能平均分成 {count} 份（每份一个新增的块）。"), option="freeze_trainable_layers",
            where=config.origin("freeze_trainable_layers"), status=WRONG_OPTIONS,
            fix=Both("Give the num_expand that truetune expand was called with.",
                     "请填写 truetune expand 时用的 num_expand。"))
    stride = len(layers) // count
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(layers[number])] for number in range(stride - 1, len(layers), stride)]


def find_modules(names: tuple[str, ...], model: torch.nn.Module, option: str, config: Config) -> list[str]:
    """The full names of the modules called `names`: `norm` is `model.norm`, and not `input_layernorm`.

    Raises:
        Problem: the model has no module of one of these names.
    """
    dotted = [name for name, _ in model.named_modules() if name]
    found = []
    for wanted in names:
        mine = [name for name in dotted if name == wanted or name.endswith(f".{wanted}")]
        if not mine:
            parts = {part for name in dotted for part in name.split(".") if not part.isdigit()}
            near = difflib.get_close_matches(wanted, parts, n=1)
            raise problem("no-module", Both(f"the model has no module {wanted!r}.", f"模型里没有模块 {wanted!r}。"),
                          option=option, where=config.origin(option), status=WRONG_OPTIONS,
                          fix=Both(f"Did you mean {near[0]}?", f"是不是 {near[0]}？") if near else
                          Both(f"It has {', '.join(sorted(parts))}.", f"它有：{'、'.join(sorted(parts))}。"))
        found += mine
    return found


def _is_hub_id(name: str) -> bool:
    return name not in BUNDLED and not Path(name).expanduser().is_dir()
