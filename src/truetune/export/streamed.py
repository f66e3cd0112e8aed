"""Merge LoRA matrix by matrix while the model is copied: in memory there is one matrix and the adapters, never a model.

The model and PEFT's layers on it are built without numbers (on the `meta` device). A tensor that no adapter changes
goes from file to file, cast. One that is changed is put into its layer, PEFT merges that layer, and the result is
written. So the arithmetic is PEFT's, and the files are those that merging the whole model writes, byte for byte.

That holds where adapters change single matrices of the checkpoint: LoRA, rsLoRA and DoRA. `plan_stream` says None for
anything else, and then the whole model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import dot_natural_key

from truetune.export.shards import TYPES, Kind, write_shards
from truetune.interrupt import held_back
from truetune.model.adapters import quiet_peft, read_settings

_FREE = {"r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform",
         "layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "task_type",
         "auto_mapping",
         "base_model_name_or_path", "revision", "inference_mode", "peft_version", "runtime_config",
         "init_lora_weights"}
"""Settings of LoRA that leave it a change of single matrices, whatever they are. Any other one may reach further."""
_BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva", "lora_ga")
"""Ways to begin (init_lora_weights) that leave the base as it is when the adapter is loaded."""


@dataclass(frozen=True)
class Stream:
    """What is copied and what is merged on the way.

    model: without numbers. layers: by the name of a checkpoint's tensor, PEFT's layers that change it, in order.
    files: where each tensor is read. kinds: what each becomes, in the order of writing.
    """

    model: PreTrainedModel
    layers: Mapping[str, Sequence[Any]]
    files: Mapping[str, Path]
    kinds: Mapping[str, Kind]

    def write(self, folder: Path, limit: int, device: torch.device) -> None:
        """Write the merged weights in files of at most `limit` bytes; products are computed on `device`.

        Raises:
            OSError, SafetensorError: the disk takes no more.
        """
        with ExitStack() as opened:
            held = {file: opened.enter_context(safe_open(file, framework="pt")) for file in set(self.files.values())}

            def read(name: str) -> torch.Tensor:
                with held_back():
                    tensor = held[self.files[name]].get_tensor(name)
                for layer in self.layers.get(name, ()):
                    tensor = _merge(layer, tensor, device)
                return tensor

            write_shards(folder, self.kinds, read, limit, self.model.num_parameters())


def plan_stream(base: Path, settings: Any, adapters: Sequence[Path], dtype: torch.dtype) -> Stream | None:
    """How `adapters` are merged into the checkpoint in `base` tensor by tensor; None where they cannot be.

    Args:
        settings: the base's config.json as transformers has read it, with whatever the options change.
        dtype: of the weights as they are written.
    """
    files = _files(base)
    if not files or not all(map(_changes_matrices, adapters)):
        return None
    model = _empty(settings, dtype)
    ties = _ties(model, files)
    if ties is None:
        return None
    layers: dict[str, list[Any]] = {}
    for adapter in adapters:
        found = _layers(_empty(settings, torch.float32), adapter)
        if found is None or not set(found) <= set(files) or set(found) & ties:
            return None
        for name, layer in found.items():
            layers.setdefault(name, []).append(layer)
    kinds = _kinds(model, files, ties, dtype)
    return Stream(model, layers, files, kinds) if kinds else None


def _files(base: Path) -> dict[str, Path]:
    """Where each tensor of a checkpoint is."""
    found: dict[str, Path] = {}
    for file in sorted(base.glob("*.safetensors")):
        if file.name.startswith("model"):  # beside it there may be an adapter or a value head
            with safe_open(file, framework="pt") as tensors:
                found |= dict.fromkeys(tensors.keys(), file)
    return found


def _empty(settings: Any, dtype: torch.dtype) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(settings, dtype=dtype)


def _changes_matrices(adapter: Path) -> bool:
    """Whether an adapter is LoRA with nothing beside its A, B and magnitudes."""
    from peft import LoraConfig, PeftConfig

    if read_settings(adapter)["peft_type"] != "LORA":
        return False
    mine, usual = PeftConfig.from_pretrained(str(adapter)).to_dict(), LoraConfig().to_dict()
    further = [name for name in mine if name not in _FREE and (mine[name] or None) != (usual.get(name) or None)]
    return not further and mine["init_lora_weights"] in _BEGINNINGS


def _ties(model: PreTrainedModel, files: Mapping[str, Path]) -> set[str] | None:
    """The tensors that are one matrix under several names; None where the checkpoint does not hold that once."""
    ties = dict(model.all_tied_weights_keys or {})
    return None if ties.keys() & files.keys() or set(ties.values()) - files.keys() else {*ties, *ties.values()}


def _layers(model: PreTrainedModel, adapter: Path) -> dict[str, Any] | None:
    """PEFT's layers of an adapter, with its numbers, by the name of the matrix below; None where some of its tensors
    are no layer's."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from peft.tuners.lora import Linear, LoraLayer
    from peft.utils.save_and_load import load_peft_weights

    with quiet_peft():
        settings = PeftConfig.from_pretrained(str(adapter))
        made: Any = get_peft_model(model, settings, autocast_adapter_dtype=False, low_cpu_mem_usage=True)
        adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        if not all(isinstance(layer, Linear) for layer in adapted.values()):
            return None
        for layer in adapted.values():  # PEFT puts an adapter's numbers where the matrix below is
            _forget(layer)
        numbers = {name: tensor.float() for name, tensor in load_peft_weights(str(adapter), device="cpu").items()}
        loaded = set_peft_model_state_dict(made, numbers, low_cpu_mem_usage=True)
    empty = any(weight.is_meta for name, weight in made.named_parameters() if ".lora_" in name)
    if loaded.unexpected_keys or empty:
        return None
    return {f"{name}.weight": layer for name, layer in adapted.items()}


def _kinds(model: PreTrainedModel, files: Mapping[str, Path], ties: set[str], dtype: torch.dtype
           ) -> dict[str, Kind] | None:
    """What each tensor of the checkpoint becomes; None where checkpoint and model do not hold the same. Parameters are
    cast; buffers are held in float32, as transformers does when it loads in that.

    transformers puts the experts of a mixture together when it loads and takes them apart when it saves, so a
    checkpoint of such a model has other names than the model. They are copied as they are.
    """
    known, buffers = model.state_dict(), dict(model.named_buffers())
    rebuilt = bool(get_model_conversion_mapping(model, add_legacy=False))
    if not rebuilt and known.keys() - ties != files.keys() - ties:
        return None
    kinds = {}
    for name in sorted(files, key=dot_natural_key):  # as transformers
        with safe_open(files[name], framework="pt") as tensors:
            piece = tensors.get_slice(name)
            shape, saved = tuple(piece.get_shape()), _TYPES[piece.get_dtype()]
        if name in known and shape != tuple(known[name].shape):
            return None
        wanted = torch.float32 if name in buffers else dtype
        kinds[name] = Kind(shape, wanted if saved.is_floating_point else saved)
    return kinds


_TYPES = {name: dtype for dtype, name in TYPES.items()}


def _forget(layer: Any) -> None:
    """Put a matrix of the right shape below `layer` that takes no memory: one 0, read as many times as there are
    numbers."""
    below = layer.get_base_layer()
    below.weight = torch.nn.Parameter(torch.zeros(1).expand(below.weight.shape), requires_grad=False)


def _merge(layer: Any, weight: torch.Tensor, device: torch.device) -> torch.Tensor:
    """PEFT's layer merged into `weight`, in float32. Its own numbers are not needed again."""
    below = layer.get_base_layer()
    own = weight.to(device, torch.float32, copy=True)  # PEFT adds in place; a page of the file written to stays
    below.weight = torch.nn.Parameter(own, requires_grad=False)
    below.bias = None  # an adapter that changes it is not merged here
    layer.to(device)
    layer.merge()
    merged = below.weight.data
    layer.to("meta")
    return merged
