"""The base model as a run's options have it: what every command loads, so that what is trained is what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.model.find import load_model_config
from truetune.model.load import load_model
from truetune.model.quantize import Codes, quantise
from truetune.model.rope import forget_lengths, stretch
from truetune.model.stored import said_of
from truetune.model.vocabulary import grow
from truetune.options import Config


def load_base(folder: Path, config: Config, dtype: torch.dtype | str, device: torch.device) -> PreTrainedModel:
    """The model in `folder` with what the options change about it before anything is trained.

    Args:
        dtype: of the weights; `auto` is the one they were saved in.

    Raises:
        Problem: it cannot be loaded, or not in so few bits.
    """
    settings = stretch(load_model_config(folder), config)
    model = _random(settings, config, dtype, device) if config.train_from_scratch else \
        load_in(Codes.of(config), folder, dtype, device, settings=settings)
    forget_lengths(model)
    return grow(model, folder, config)


def _random(settings: Any, config: Config, dtype: torch.dtype | str, device: torch.device) -> PreTrainedModel:
    """A model with random weights, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = AutoModelForCausalLM.from_config(settings, dtype=settings.dtype if dtype == "auto" else dtype)
    model.config.use_cache = False
    torch.nn.Module.to(model, device)
    return model.eval()


def load_in(codes: Codes | None, folder: Path, dtype: torch.dtype | str, device: torch.device,
            option: str = "quantization_bit", settings: Any = None) -> PreTrainedModel:
    """The model in `folder`, its linear layers held in `codes`, if any, which `option` asks for.

    Raises:
        Problem: it cannot be loaded, is quantised already, or the codes cannot be had here.
    """
    if codes is None:
        return load_model(folder, dtype, device, settings)
    if said_of(load_model_config(folder)):
        raise problem("quantised-twice", Both(f"the weights in {folder} are quantised already.",
                                              f"{folder} 里的权重已经量化。"), option=option, status=WRONG_OPTIONS,
                      fix=Both(f"Leave {option} out.", f"请去掉 {option}。"))
    model = load_model(folder, dtype, torch.device("cpu"), settings)
    quantise(model, codes, device, option)
    return model
