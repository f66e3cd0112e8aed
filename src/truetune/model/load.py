"""Load a model and know it again. Safetensors only, no code from the model."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from truetune.findings import Both, problem
from truetune.hush import hush_libraries
from truetune.interrupt import held_back
from truetune.model.find import load_model_config
from truetune.model.quantize import is_code
from truetune.model.stored import load_stored


def load_model(folder: Path, dtype: torch.dtype | str, device: torch.device, settings: Any = None) -> PreTrainedModel:
    """The causal language model in `folder`, in evaluation mode, without a KV cache.

    Args:
        dtype: of the weights; `auto` is the one they were saved in.
        settings: used in place of its config.json.

    Raises:
        Problem: there are no safetensors weights, or the architecture is not known.
    """
    settings = load_model_config(folder) if settings is None else settings
    logging.disable_progress_bar()
    hush_libraries()
    try:
        model = load_stored(folder, settings, dtype)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise problem("no-weights", Both(f"{folder} cannot be loaded: {reason}", f"{folder} 无法加载：{reason}"),
                      option="model_name_or_path",
                      fix=Both("Only safetensors weights of causal language models are read.",
                               "只读取因果语言模型的 safetensors 权重。")) from None
    model.config.use_cache = False
    torch.nn.Module.to(model, device)  # transformers' own `to` hides its signature from type checkers
    return model.eval()


def cast_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Parameters in `dtype`; buffers stay, and so do the codes of quantised weights. `model.to(dtype)` would also round
    the rotary frequencies, which transformers keeps in float32: one of 0.8 is off by up to 2^-9 of it, at position 2000
    that is 3 radians."""
    for parameter in model.parameters():
        if not is_code(parameter):
            parameter.data = parameter.data.to(dtype)


def fingerprint(folder: Path) -> str:
    """A hash of a model's weights that reads little of them: names, shapes, types, and up to 64 numbers of each tensor.

    It tells one base from another, a chat version from a base version, a changed weight anywhere in a sampled row; it
    is no defence against somebody who forges it.
    """
    digest = sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with held_back(), safe_open(file, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                piece = tensors.get_slice(name)
                digest.update(json.dumps([name, piece.get_shape(), piece.get_dtype()]).encode())
                sample = piece[: 1] if piece.get_shape() else torch.empty(0)
                digest.update(sample.flatten()[:64].float().numpy().tobytes())
    return digest.hexdigest()[:16]
