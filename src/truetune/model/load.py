"""Load a model, put adapters on it, know a base again. Safetensors only, no code from the model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from truetune.findings import Both, problem
from truetune.interrupt import held_back
from truetune.model.find import load_model_config

if TYPE_CHECKING:
    from peft import PeftModel

MANIFEST = "truetune.json"
"""Beside an adapter: what base it was trained on."""


def load_model(folder: Path, dtype: torch.dtype | str, device: torch.device) -> PreTrainedModel:
    """The causal language model in `folder`, in evaluation mode, without a KV cache.

    Args:
        dtype: of the weights; `auto` is the one they were saved in.

    Raises:
        Problem: there are no safetensors weights, or the architecture is not known.
    """
    load_model_config(folder)
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
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
    """Parameters in `dtype`; buffers stay. `model.to(dtype)` would also round the rotary frequencies, which
    transformers keeps in float32: one of 0.8 is off by up to 2^-9 of it, at position 2000 that is 3 radians."""
    for parameter in model.parameters():
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


def write_manifest(folder: Path, base_name: str, base: Path) -> None:
    """Note beside an adapter which base it belongs to."""
    manifest = {"base_model": base_name, "base_fingerprint": fingerprint(base)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def put_adapter(model: PreTrainedModel, adapter: Path, base: Path, trained: bool = False) -> PeftModel:
    """`model`, loaded from `base`, with an adapter on it.

    Raises:
        Problem: `adapter` is no adapter, or another base's.
    """
    from peft import LoraConfig, PeftModel

    from truetune.model.lora import use_fused_layers

    require_base(adapter, base)
    settings = LoraConfig.from_pretrained(str(adapter))
    assert isinstance(settings, LoraConfig)
    with quiet_peft():
        return PeftModel.from_pretrained(model, adapter, config=use_fused_layers(settings), is_trainable=trained,
                                         autocast_adapter_dtype=False)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5.23 by a name that 6 will drop, and users would read that with every model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


def require_base(adapter: Path, base: Path) -> None:
    """Raises:
    Problem: `adapter` is no adapter, or was trained on other weights than those in `base`.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise problem("not-an-adapter", Both(f"{adapter} has no adapter_config.json, so it is no adapter.",
                                             f"{adapter} 里没有 adapter_config.json，不是适配器。"),
                      option="adapter_name_or_path")
    if not (adapter / MANIFEST).is_file():
        return  # made by another tool: it does not say
    manifest = json.loads((adapter / MANIFEST).read_text(encoding="utf-8"))
    found = fingerprint(base)
    if manifest["base_fingerprint"] != found:
        base_name, weights = manifest["base_model"], manifest["base_fingerprint"]
        raise problem("other-base", Both(f"{adapter} was trained on {base_name} (weights {weights}), and {base} has "
                                         f"other weights ({found}).",
                                         f"{adapter} 是在 {base_name}（权重 {weights}）上训练的，而 {base} 的权重"
                                         f"不同（{found}）。"), option="adapter_name_or_path",
                      fix=Both("Name the base it was trained on.", "请指定训练它时用的基座模型。"))
