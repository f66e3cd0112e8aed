"""Add blocks to a model that change nothing at first (LLaMA Pro: Wu et al. 2024, arXiv:2401.02415, section 3.1).

The layers are divided into num_expand equal parts, and the last layer of each is followed by a copy of itself in which
the matrices that write into the residual stream are zero (o_proj and down_proj): such a block adds nothing, so the
logits are those of the model as it was. `use_llama_pro` then trains the copies only.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from transformers import PreTrainedModel

from truetune.files import write_folder
from truetune.findings import WRONG_OPTIONS, Both, Say, problem
from truetune.model.find import find_model, load_tokenizer
from truetune.model.load import load_model
from truetune.model.methods import layers_of
from truetune.options import Config

_WRITERS = ("o_proj", "down_proj")
"""The matrices whose outputs are added to what went in, in Llama's family and all that name them so."""


def expand(config: Config, say: Say) -> Path:
    """Write `model_name_or_path` with num_expand more blocks into output_dir.

    Raises:
        Problem: the folder is in use, the layers do not divide so, or the model is of another build.
    """
    assert config.model_name_or_path is not None and config.output_dir is not None  # rules have made sure
    target, count = Path(config.output_dir), config.num_expand
    if target.exists() and any(target.iterdir()):
        raise problem("export-in-use", Both(f"{target} is not empty.", f"{target} 不是空的。"), option="output_dir",
                      status=WRONG_OPTIONS, where=config.origin("output_dir"),
                      fix=Both("Choose another folder, or empty it.", "请换一个文件夹，或清空它。"))
    base = find_model(config.model_name_or_path, config, say)
    model = load_model(base, "auto", torch.device("cpu"))
    before = len(layers_of(model))
    add_blocks(model, count, config.origin("num_expand"))
    model.config.use_cache = True

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        load_tokenizer(base).save_pretrained(folder)

    write_folder(target, fill)
    size = sum(weight.numel() for weight in model.parameters())
    say(Both(f"{before} layers are {before + count} now, {size:,} weights: {target}; train it with finetuning_type "
             f"freeze, use_llama_pro true, freeze_trainable_layers {count}",
             f"{before} 层扩展为 {before + count} 层，共 {size:,} 个权重：{target}；训练时设 finetuning_type freeze、"
             f"use_llama_pro true、freeze_trainable_layers {count}"))
    return target


def add_blocks(model: PreTrainedModel, count: int, where: str | None = None) -> None:
    """Put `count` blocks into `model` that add nothing. where: somebody asked for so many.

    Raises:
        Problem: the layers do not divide into so many parts, or have none of the matrices that have to be zero.
    """
    layers = layers_of(model)
    if len(layers) % count:
        divisors = ", ".join(str(n) for n in range(1, len(layers) + 1) if len(layers) % n == 0)
        raise problem("uneven-layers", Both(f"{count} does not divide {len(layers)} layers.",
                                            f"{count} 不能整除 {len(layers)} 层。"), option="num_expand", where=where,
                      status=WRONG_OPTIONS, fix=Both(f"It can be {divisors}.", f"可取 {divisors}。"))
    stride, text = len(layers) // count, model.config.get_text_config()
    known = text.to_dict().get("layer_types") or []  # not every family names them
    grown: list[torch.nn.Module] = []
    kinds: list[str] = []
    for number, layer in enumerate(layers):
        added = [_silent(layer, type(model).__name__)] if (number + 1) % stride == 0 else []
        grown += [layer, *added]
        kinds += [kind for kind in known[number : number + 1] for _ in range(1 + len(added))]
    for number, layer in enumerate(grown):
        for module in layer.modules():
            if "layer_idx" in vars(module):  # attention finds its keys and values in the cache by it
                vars(module)["layer_idx"] = number
    del layers[:]
    layers.extend(grown)
    text.num_hidden_layers = len(grown)
    if kinds:
        text.layer_types = kinds


def _silent(layer: torch.nn.Module, name: str) -> torch.nn.Module:
    """A copy of a layer that adds nothing."""
    copy = deepcopy(layer)
    writers = [module for part, module in copy.named_modules() if part.rpartition(".")[2] in _WRITERS]
    if len(writers) < 2:
        raise problem("no-writers", Both(
            f"the layers of {name} have no {' and '.join(_WRITERS)}, so a block that adds nothing cannot be made.",
            f"{name} 的层里没有 {' 和 '.join(_WRITERS)}，无法构造不改变输出的块。"), option="model_name_or_path")
    with torch.no_grad():
        for weight in (weight for module in writers for weight in module.parameters()):
            weight.zero_()
    return copy
