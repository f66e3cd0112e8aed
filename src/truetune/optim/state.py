"""An optimizer's state of one weight as named tensors and numbers, whatever it is made of.

State is a table of tensors, of numbers, of tables, and of tensors that are made of several (torchao's, in 4 or 8 bits).
Tensors get the name `key.weight's name`, of tables `key.key.…`; the rest goes to JSON under the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def flatten(state: Mapping[str, Any], name: str, tensors: dict[str, torch.Tensor], numbers: dict[str, Any],
            prefix: str = "") -> None:
    """Add what `state` holds for the weight `name` to `tensors` and `numbers`."""
    for key, value in state.items():
        full = f"{prefix}{key}"
        if isinstance(value, dict):
            flatten(value, name, tensors, numbers, f"{full}.")
        elif isinstance(value, torch.Tensor):
            tensors |= {f"{full}{inner}.{name}": tensor for inner, tensor in _pieces(value)}
        else:
            numbers[f"{full}.{name}"] = value


def apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`tensors`, each with memory of its own, as safetensors wants them: bitsandbytes has one table of 256 numbers for
    all weights."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return found


def restore(state: dict[str, Any], name: str, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any],
            prefix: str = "") -> None:
    """Give each thing in `state` the value that `flatten` has found in it; what was not there then is taken away."""
    for key, value in list(state.items()):
        full = f"{prefix}{key}"
        if isinstance(value, dict):
            restore(value, name, tensors, numbers, f"{full}.")
        elif f"{full}.{name}" in numbers:
            state[key] = numbers[f"{full}.{name}"]
        elif isinstance(value, torch.Tensor) and all(f"{full}{inner}.{name}" in tensors for inner, _ in _pieces(value)):
            for inner, tensor in _pieces(value):
                tensor.copy_(tensors[f"{full}{inner}.{name}"])
        else:
            del state[key]


def _pieces(tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that `tensor` is made of, by what to add to its name; itself, where it is one."""
    if is_traceable_wrapper_subclass(tensor):
        for inner in tensor.__tensor_flatten__()[0]:
            yield f"/{inner}", vars(tensor)[inner]
    else:
        yield "", tensor
