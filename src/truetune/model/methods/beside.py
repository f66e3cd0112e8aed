"""Methods that leave every layer's own computation alone: virtual tokens before the text, bottlenecks behind layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.model.bottleneck import Bottlenecks
from truetune.model.methods.method import find_modules, layers_of, wrap
from truetune.options import Config

_PLACES = {"attention": ("self_attn", "attn", "attention", "self_attention"), "mlp": ("mlp", "feed_forward", "ffn")}
"""What attention and MLP are called in a layer of most models."""


def add_prefix(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190, section 4): trained keys and values that every layer sees
    before the text; with prefix_projection they come from a small network."""
    from peft import PrefixTuningConfig

    return wrap(model, PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=config.num_virtual_tokens, prefix_projection=config.prefix_projection,
        encoder_hidden_size=config.encoder_hidden_size))  # pyright: ignore[reportArgumentType]


def add_prompt(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691, section 2): trained embeddings before the text. They begin
    as those of prompt_tuning_init_text, else of tokens drawn from the vocabulary (section 3.2 finds both far better
    than random numbers)."""
    from peft import PromptTuningConfig
    from peft.tuners.prompt_tuning import PromptTuningInit

    text = config.prompt_tuning_init_text if model.device.type != "meta" else None
    drawn = PromptTuningInit.SAMPLE_VOCAB if model.device.type != "meta" else PromptTuningInit.RANDOM
    settings = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=config.num_virtual_tokens, prompt_tuning_init_text=text,
        prompt_tuning_init=PromptTuningInit.TEXT if text else drawn, tokenizer_name_or_path=str(base) if text else None)
    made = wrap(model, settings)
    # As it is written, it begins with what is written: no tokenizer of this machine is needed to load it.
    settings.prompt_tuning_init, settings.prompt_tuning_init_text = PromptTuningInit.RANDOM, None
    settings.tokenizer_name_or_path = None
    return made


def add_p_tuning(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """P-tuning (Liu et al. 2021, arXiv:2103.10385, section 3.2): embeddings before the text that a small trained
    network makes."""
    from peft import PromptEncoderConfig

    return wrap(model, PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=config.num_virtual_tokens,
        encoder_hidden_size=config.encoder_hidden_size))  # pyright: ignore[reportArgumentType]


def add_bottlenecks(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """Bottleneck adapters: see `model.bottleneck`."""
    names = {id(module): name for name, module in model.named_modules()}
    modules: list[str] = []
    for layer in layers_of(model):
        children = dict(layer.named_children())
        for wanted in config.bottleneck_target:
            mine = next((children[name] for name in _PLACES.get(wanted, ()) if name in children), None)
            if mine is not None:
                modules.append(names[id(mine)])
            else:
                modules += [f"{names[id(layer)]}.{name}" for name in
                            find_modules((wanted,), layer, "bottleneck_target", config)]
    if not modules:
        raise problem("no-module", Both("no module is named.", "没有指定任何模块。"), option="bottleneck_target",
                      where=config.origin("bottleneck_target"), status=WRONG_OPTIONS)
    return Bottlenecks(model, modules, config.bottleneck_size)
