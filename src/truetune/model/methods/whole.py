"""Methods that change the model's own weights and write a whole model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from truetune.findings import Both, problem
from truetune.model.methods.method import expanded_layers, find_modules, layers_of
from truetune.options import Config


def train_all(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int] = ()) -> torch.nn.Module:
    """Full fine-tuning: every weight."""
    return model.requires_grad_(True)


def train_layers(model: PreTrainedModel, config: Config, base: Path,
                 new_tokens: Sequence[int] = ()) -> torch.nn.Module:
    """Freeze tuning: `freeze_trainable_modules` of the last (or first) layers, and `freeze_extra_modules`. With
    use_llama_pro: of the blocks that `truetune expand` added (LLaMA Pro: Wu et al. 2024, arXiv:2401.02415, section
    3.2).
    """
    model.requires_grad_(False)
    for layer in _layers(model, config):
        parts = config.freeze_trainable_modules
        names = find_modules(parts, layer, "freeze_trainable_modules", config) if parts != ("all",) else [""]
        for name in names:
            layer.get_submodule(name).requires_grad_(True)
    for name in find_modules(config.freeze_extra_modules, model, "freeze_extra_modules", config):
        model.get_submodule(name).requires_grad_(True)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()) if new_tokens else ():
        if module is not None:
            module.requires_grad_(True)  # rows of new tokens
    return model


def _layers(model: PreTrainedModel, config: Config) -> list[torch.nn.Module]:
    """The layers of which something is trained."""
    if config.use_llama_pro:
        return [model.get_submodule(name) for name in expanded_layers(model, config)]
    layers, count = layers_of(model), config.freeze_trainable_layers
    if abs(count) > len(layers):
        raise problem("too-many-layers", Both(f"{count} layers are asked for, the model has {len(layers)}.",
                                              f"要求 {count} 层，而模型只有 {len(layers)} 层。"),
                      option="freeze_trainable_layers", where=config.origin("freeze_trainable_layers"))
    return list(layers)[-count:] if count > 0 else list(layers)[: -count]
