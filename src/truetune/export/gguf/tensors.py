"""The weights of a folder under their GGUF names, read where they lie: never more than some rows at a time.

A tensor of a GGUF file is told by its name, its shape and its blocks: functions that each read some rows of it as
float32. Blocks come in the order of the rows and never span two experts, so each can be quantised by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open

from truetune.export.gguf.architectures import Architecture
from truetune.findings import Both, problem

_BLOCK = 1 << 21
"""Weights of one block: 8 MB of float32, enough for a thread to be worth its while."""


@dataclass(frozen=True)
class Block:
    """Some rows of a tensor. expert: whose they are (0 where there are none)."""

    rows: int
    expert: int
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Tensor:
    """A tensor as it is to stand in the file. shape: as in numpy, (columns,), (rows, columns) or (experts, rows,
    columns)."""

    name: str
    shape: tuple[int, ...]
    blocks: Sequence[Block]


class Weights:
    """The safetensors files of a folder, opened together."""

    def __init__(self, folder: Path):
        """Raises:
        Problem: there are none.
        """
        self._open = ExitStack()
        self._where: dict[str, Any] = {}
        for file in sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors")):
            handle = self._open.enter_context(safe_open(file, framework="pt"))
            self._where |= dict.fromkeys(handle.keys(), handle)
        if not self._where:
            raise problem("no-weights", Both(f"{folder} has no safetensors weights.",
                                             f"{folder} 里没有 safetensors 权重。"), option="model_name_or_path",
                          fix=Both("Pickled weights are not read; save the model as safetensors.",
                                   "不读取 pickle 权重；请把模型存成 safetensors。"))

    def names(self) -> list[str]:
        return list(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name].get_slice(name).get_shape())

    def read(self, name: str, *where: slice | int) -> np.ndarray:
        """A tensor, or that part of it, as float32."""
        return self._where[name].get_slice(name)[where or ...].to(torch.float32).numpy()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


def gguf_tensors(weights: Weights, family: Architecture, config: Any) -> Iterator[Tensor]:
    """Every tensor of the model, in the order in which llama.cpp keeps them: layer by layer, then by name.

    Raises:
        Problem: a tensor that the architecture does not have.
    """
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    found: dict[str, Tensor] = {}
    experts: dict[str, list[tuple[int, str]]] = {}
    for name in weights.names():
        plain = family.plain_name(name)
        if plain is None or (plain == "lm_head.weight" and config.tie_word_embeddings):
            continue
        if match := re.match(r"(.*\.experts)\.(\d+)\.(\w+\.weight)$", plain):
            experts.setdefault(f"{match[1]}.{match[3]}", []).append((int(match[2]), name))
            continue
        for tensor in _single(weights, name, plain, family, config, names):
            found[tensor.name] = tensor
    for plain, members in experts.items():
        tensor = _stacked(weights, [name for _, name in sorted(members)], _gguf_name(names, plain))
        found[tensor.name] = tensor
    if family.needs_output and "output.weight" not in found:
        found["output.weight"] = Tensor("output.weight", found["token_embd.weight"].shape,
                                        found["token_embd.weight"].blocks)
    yield from sorted(found.values(), key=lambda tensor: _place(tensor.name))


def _place(name: str) -> tuple[int, str]:
    layer = re.match(r"blk\.(\d+)\.", name)
    return (int(layer[1]) if layer else -1, name)


def _gguf_name(names: gguf.TensorNameMap, plain: str) -> str:
    name = names.get_name(plain, try_suffixes=(".weight", ".bias"))
    if name is None:
        raise problem("gguf-tensor", Both(f"the model has a tensor {plain} that this GGUF architecture has not.",
                                          f"该 GGUF 架构没有模型里的张量 {plain}。"), option="model_name_or_path")
    return name


def _single(weights: Weights, name: str, plain: str, family: Architecture, config: Any,
            names: gguf.TensorNameMap) -> Iterator[Tensor]:
    """The tensors that one of the folder's becomes: one, or two where gates and ups of experts lie in one."""
    shape = weights.shape(name)
    if plain.endswith("experts.gate_up_proj"):
        half = shape[1] // 2
        for part, start in (("gate_proj", 0), ("up_proj", half)):
            yield _fused(weights, name, _gguf_name(names, plain.replace("gate_up_proj", f"{part}.weight")),
                         (shape[0], half, shape[2]), start)
    elif plain.endswith("experts.down_proj"):
        yield _fused(weights, name, _gguf_name(names, plain + ".weight"), shape, 0)
    else:
        yield _matrix(weights, name, _gguf_name(names, plain), shape, family.change(plain, config))


def _matrix(weights: Weights, name: str, gguf_name: str, shape: tuple[int, ...],
            change: tuple[int, Callable[[np.ndarray], np.ndarray]] | None) -> Tensor:
    """change: what is done to whole groups of so many rows."""
    group, alter = change or (1, lambda rows: rows)
    if len(shape) < 2 or shape[0] == 1:
        flat = Block(1, 0, lambda: alter(weights.read(name).reshape(-1)).reshape(1, -1))
        return Tensor(gguf_name, (math.prod(shape),), [flat])
    height, columns = shape
    step = max(group, _BLOCK // columns // group * group)

    def block(start: int) -> Block:
        stop = min(start + step, height)
        return Block(stop - start, 0, lambda: alter(weights.read(name, slice(start, stop))))

    return Tensor(gguf_name, shape, [block(start) for start in range(0, height, step)])


def _stacked(weights: Weights, members: Sequence[str], gguf_name: str) -> Tensor:
    """Experts that lie each by itself."""
    rows, columns = weights.shape(members[0])
    return Tensor(gguf_name, (len(members), rows, columns),
                  [Block(rows, number, lambda name=name: weights.read(name)) for number, name in enumerate(members)])


def _fused(weights: Weights, name: str, gguf_name: str, shape: tuple[int, ...], start: int) -> Tensor:
    """Experts that lie in one tensor (experts, rows, columns), of which each has the rows from `start` on."""
    count, rows, _ = shape

    def block(expert: int) -> Block:
        return Block(rows, expert, lambda: weights.read(name, expert, slice(start, start + rows)))

    return Tensor(gguf_name, shape, [block(expert) for expert in range(count)])
