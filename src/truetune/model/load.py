"""Find and load a model and its tokenizer. Safetensors only, no code from the model, no network for a local folder."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from truetune.findings import problem
from truetune.model.bundled import BUNDLED, bundled_folder
from truetune.options import Config

if TYPE_CHECKING:
    from peft import PeftModel

MANIFEST = "truetune.json"
"""Beside an adapter: what base it was trained on."""


def find_model(name: str, config: Config, say: Callable[[str], None]) -> Path:
    """The local folder of a model: itself, the converted bundled one, or the download of a hub id.

    Raises:
        Problem: there is no such folder, or the hub does not give it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.startswith("bundled/"):
        return bundled_folder(name, say)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise problem("not-a-model", f"{folder} has no config.json, so it is not a model.",
                          option="model_name_or_path", where=config.origin("model_name_or_path"))
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise problem("no-model", f"there is no folder {folder}.", option="model_name_or_path",
                      where=config.origin("model_name_or_path"))
    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        return Path(snapshot_download(name, revision=config.model_revision, cache_dir=config.cache_dir,
                                      allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        near = difflib.get_close_matches(name, BUNDLED, n=1)
        reason = str(error).strip().splitlines()[0][:160]
        raise problem("no-model", f"{name!r} is no folder here, and the hub did not give it ({reason}).",
                      option="model_name_or_path", where=config.origin("model_name_or_path"),
                      fix=f"Did you mean {near[0]}?" if near else
                      f"Check the path or id; without a network use {next(iter(BUNDLED))}.") from None


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, a fast one, since exact masks need the characters behind each token.

    Raises:
        Problem: there is none, or it has no fast version.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise problem("no-tokenizer", f"{folder} has no tokenizer that can be read: {str(error).splitlines()[0]}",
                      option="model_name_or_path") from None
    if not tokenizer.is_fast:
        raise problem("slow-tokenizer", f"the tokenizer of {folder} has no fast version, which exact masks need.",
                      option="model_name_or_path")
    return tokenizer


def load_model_config(folder: Path) -> Any:
    """The model's config.json as transformers reads it; Any, since every architecture has a class of its own."""
    try:
        return AutoConfig.from_pretrained(folder)
    except (ValueError, OSError) as error:
        raise problem("unknown-architecture", f"transformers cannot read {folder / 'config.json'}: "
                      f"{str(error).splitlines()[0]}", option="model_name_or_path",
                      fix="A newer transformers may know it.") from None


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
        raise problem("no-weights", f"{folder} cannot be loaded: {str(error).splitlines()[0]}",
                      option="model_name_or_path",
                      fix="Only safetensors weights of causal language models are read.") from None
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
        with safe_open(file, framework="pt") as tensors:
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
        raise problem("not-an-adapter", f"{adapter} has no adapter_config.json, so it is no adapter.",
                      option="adapter_name_or_path")
    if not (adapter / MANIFEST).is_file():
        return  # made by another tool: it does not say
    manifest = json.loads((adapter / MANIFEST).read_text(encoding="utf-8"))
    found = fingerprint(base)
    if manifest["base_fingerprint"] != found:
        raise problem("other-base", f"{adapter} was trained on {manifest['base_model']} (weights "
                      f"{manifest['base_fingerprint']}), and {base} has other weights ({found}).",
                      option="adapter_name_or_path", fix="Name the base it was trained on.")
