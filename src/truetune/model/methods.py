"""What of a model is trained: LoRA matrices, everything, or some layers; and how what was trained is written."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.model.bundled import BUNDLED
from truetune.model.load import put_adapter, quiet_peft
from truetune.model.value import VALUE_HEAD
from truetune.options import Config


@dataclass(frozen=True)
class Method:
    """A way to tune. `prepare(model, config, base)` returns the model with exactly the trained parameters requiring
    gradients; `base` is the folder it was loaded from. `adapter`: whether an adapter is written, or a whole model."""

    prepare: Callable[[PreTrainedModel, Config, Path], torch.nn.Module]
    adapter: bool


def add_lora(model: PreTrainedModel, config: Config, base: Path) -> torch.nn.Module:
    """LoRA (Hu et al. 2021, arXiv:2106.09685): W x + (alpha / r) B A x, with A and B trained, B = 0 at first."""
    from peft import LoraConfig, get_peft_model

    from truetune.model.lora import use_fused_layers

    if config.adapter_name_or_path:
        return put_adapter(model, Path(config.adapter_name_or_path[0]), base, trained=True)
    if _is_hub_id(config.model_name_or_path or ""):
        model.name_or_path = config.model_name_or_path  # adapter_config.json names the id, not this machine's cache
    targets: str | list[str] = "all-linear"
    if config.lora_target != ("all",):
        _find_modules(config.lora_target, model, "lora_target", config)
        targets = list(config.lora_target)
    # PEFT takes every module whose name ends in the same letters (norm: input_layernorm too), so whole names are given.
    whole = _find_modules(config.additional_target, model, "additional_target", config)
    settings = LoraConfig(
        task_type="CAUSAL_LM", r=config.lora_rank, lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout, target_modules=targets, modules_to_save=whole or None)
    with quiet_peft():
        return get_peft_model(model, use_fused_layers(settings), autocast_adapter_dtype=False)


def train_all(model: PreTrainedModel, config: Config, base: Path) -> torch.nn.Module:
    """Full fine-tuning: every weight."""
    return model.requires_grad_(True)


def train_layers(model: PreTrainedModel, config: Config, base: Path) -> torch.nn.Module:
    """Freeze tuning: `freeze_trainable_modules` of the last (or first) layers, and `freeze_extra_modules`."""
    model.requires_grad_(False)
    layers = layers_of(model)
    count = config.freeze_trainable_layers
    if abs(count) > len(layers):
        raise problem("too-many-layers", Both(f"{count} layers are asked for, the model has {len(layers)}.",
                                              f"要求 {count} 层，而模型只有 {len(layers)} 层。"),
                      option="freeze_trainable_layers", where=config.origin("freeze_trainable_layers"))
    chosen = list(layers)[-count:] if count > 0 else list(layers)[: -count]
    for layer in chosen:
        parts = config.freeze_trainable_modules
        names = _find_modules(parts, layer, "freeze_trainable_modules", config) if parts != ("all",) else [""]
        for name in names:
            layer.get_submodule(name).requires_grad_(True)
    for name in _find_modules(config.freeze_extra_modules, model, "freeze_extra_modules", config):
        model.get_submodule(name).requires_grad_(True)
    return model


METHODS: dict[str, Method] = {
    "lora": Method(add_lora, adapter=True),
    "full": Method(train_all, adapter=False),
    "freeze": Method(train_layers, adapter=False),
}


def switch_off_dropout(model: torch.nn.Module) -> None:
    """No dropout anywhere, LoRA's included: probabilities of two passes are to be compared."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, LoraLayer):
            module.lora_dropout.update({name: torch.nn.Identity() for name in module.lora_dropout})
        if "attention_dropout" in vars(module):  # what transformers' attention modules hand to their kernel
            vars(module)["attention_dropout"] = 0.0


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def write_weights(model: torch.nn.Module, folder: Path, trained: Mapping[str, torch.Tensor], method: Method) -> None:
    """Write the adapter (in the precision of `trained`, the optimizer's copies) or the whole model as safetensors."""
    if method.adapter:
        own = {name: weight for name, weight in trained.items() if not name.startswith(VALUE_HEAD)}
        model.save_pretrained(folder, state_dict=own, save_embedding_layers=False)  # pyright: ignore
    else:
        model.save_pretrained(folder)  # pyright: ignore


def _is_hub_id(name: str) -> bool:
    return name not in BUNDLED and not Path(name).expanduser().is_dir()


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


def _find_modules(names: tuple[str, ...], model: torch.nn.Module, option: str, config: Config) -> list[str]:
    """The full names of the modules called `names`: `norm` is `model.norm`, and not `input_layernorm`."""
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
