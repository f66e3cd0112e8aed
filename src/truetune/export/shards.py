"""Write safetensors files tensor by tensor, so that no more than one tensor has to be in memory.

The format (https://github.com/huggingface/safetensors#format): the length of a header in 8 bytes, the header in JSON
(each tensor's type, shape and place, then spaces up to a multiple of 8 bytes), and the numbers. The `safetensors`
package writes whole dictionaries only; what is written here is byte for byte what it would have written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import split_torch_state_dict_into_shards

INDEX = "model.safetensors.index.json"
_PIECE = 1 << 22  # numbers


class Kind(NamedTuple):
    """What a tensor will be: its shape and its type."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def write_shards(folder: Path, kinds: Mapping[str, Kind], read: Callable[[str], torch.Tensor], limit: int,
                 parameters: int) -> None:
    """Write `model.safetensors`, or several files of at most `limit` bytes and their index.

    Args:
        kinds: what each tensor will be, in the order in which they fill the files.
        read: gives a tensor of that shape when it is its turn; it is cast, written and let go of.
        parameters: how many weights the model has, for the index.

    Raises:
        OSError: the disk takes no more.
    """
    empty = {name: torch.empty(kind.shape, dtype=kind.dtype, device="meta") for name, kind in kinds.items()}
    split = split_torch_state_dict_into_shards(empty, max_shard_size=limit)
    for file, names in split.filename_to_tensors.items():
        _write(folder / file, {name: kinds[name] for name in names}, read)
    if split.is_sharded:
        index = {"metadata": {"total_parameters": parameters, **split.metadata}, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write(file: Path, kinds: Mapping[str, Kind], read: Callable[[str], torch.Tensor]) -> None:
    order = sorted(kinds, key=lambda name: (-_ORDER.index(kinds[name].dtype), name))
    with file.open("wb") as stream:
        stream.write(_header({name: kinds[name] for name in order}))
        for name in order:
            tensor, kind = read(name), kinds[name]
            if tuple(tensor.shape) != kind.shape:
                raise ValueError(f"{name} is {tuple(tensor.shape)}, and {kind.shape} was announced")
            for piece in _pieces(tensor, kind.dtype):
                stream.write(piece)


def _header(kinds: Mapping[str, Kind]) -> bytes:
    """kinds: in the order in which they are written."""
    told: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, (shape, dtype) in kinds.items():
        end = begin + prod(shape) * dtype.itemsize
        told[name] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pieces(tensor: torch.Tensor, dtype: torch.dtype) -> Iterator[memoryview]:
    """The numbers of a tensor, cast piece by piece in the same memory. (Cast whole, a model of 135 million weights took
    370 MB more on its way into bfloat16, which the C library did not use again.)"""
    flat = tensor.detach().contiguous().reshape(-1)
    room = torch.empty(min(_PIECE, flat.numel()), dtype=dtype)
    for first in range(0, flat.numel(), _PIECE):
        piece = flat[first: first + _PIECE]
        yield room[: piece.numel()].copy_(piece).view(torch.uint8).numpy().data


TYPES: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3", torch.int16: "I16", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int32: "I32", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}
"""The types in the order of the package, which writes the last of them first (then by name)."""
_ORDER = list(TYPES)
