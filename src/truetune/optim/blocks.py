"""BAdam: one layer of the model trains at a time (Luo, Yu and Li 2024, arXiv:2404.02827, algorithm 1).

For `badam_switch_interval` steps AdamW steps the weights of one layer, from moments of 0; then those of the next. Only
they have gradients, masters and moments, which is where the memory goes. What stands outside the layers (embeddings,
the last norm, the head) stays as it is, as in the authors' code. Which layer it is follows from the number of the step
alone, so that a run goes on where it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.model.precision import Precision
from truetune.optim.optimizer import Optimizer
from truetune.options import Config

Weight = TypeVar("Weight", bound=torch.Tensor)


def layer_of(name: str) -> int | None:
    """The number of the layer that a weight is in: the first number in its name."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def split(weights: Mapping[str, Weight]) -> list[dict[str, Weight]]:
    """The weights of each layer, in order.

    Raises:
        Problem: none is in a layer.
    """
    blocks: dict[int, dict[str, Weight]] = {}
    for name, weight in weights.items():
        if (number := layer_of(name)) is not None:
            blocks.setdefault(number, {})[name] = weight
    if not blocks:
        raise problem("no-layers", Both("no trained weight is in a layer.", "可训练的权重都不在任何层里。"),
                      option="use_badam", status=WRONG_OPTIONS)
    return [blocks[number] for number in sorted(blocks)]


def turn(step: int, blocks: int, config: Config) -> int:
    """The block that optimizer step `step` (from 0) trains."""
    down = config.badam_switch_mode == "descending"
    first = config.badam_start_block if config.badam_start_block is not None else blocks - 1 if down else 0
    fixed = config.badam_switch_mode == "fixed" or config.badam_switch_interval < 1
    turns = 0 if fixed else step // config.badam_switch_interval
    if config.badam_switch_mode == "random":
        order = np.random.default_rng((config.seed, turns // blocks)).permutation(blocks)
        started = turns == 0 and config.badam_start_block is not None
        return first if started else int(order[turns % blocks])
    return (first + (-turns if down else turns)) % blocks


class BlockOptimizer(Optimizer):
    """An `Optimizer` of a block at a time."""

    def __init__(self, weights: Mapping[str, torch.nn.Parameter],
                 build: Callable[[Mapping[str, torch.Tensor]], torch.optim.Optimizer], config: Config,
                 precision: Precision, total_steps: int, **rest: Any):
        self._all, self._blocks, self._config, self._precision = dict(weights), split(weights), config, precision
        if (config.badam_start_block or 0) >= len(self._blocks):
            raise problem("no-block", Both(
                f"block {config.badam_start_block} is asked for, and the model has {len(self._blocks)}, from 0.",
                f"要求从第 {config.badam_start_block} 块开始，而模型只有 {len(self._blocks)} 块（从 0 数起）。"),
                option="badam_start_block", where=config.origin("badam_start_block"), status=WRONG_OPTIONS)
        self._block = turn(0, len(self._blocks), config)
        super().__init__(self._blocks[self._block], build, config, precision, total_steps, **rest)
        self._train_only(self._blocks[self._block])

    def release(self) -> None:
        super().release()
        for weight in self._all.values():
            weight.requires_grad_(True)

    def step(self, count: float) -> float:
        norm = super().step(count)
        self._turn()
        return norm

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """As ever, and the weights of the other blocks, which the model's own file may hold in fewer bits."""
        tensors, numbers = super().state()
        others = {f"other.{name}": weight.detach() for name, weight in self._all.items() if name not in self.masters}
        return {**tensors, **others}, numbers

    def load_state(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, weight in self._all.items():
                weight.copy_(tensors[f"other.{name}" if f"other.{name}" in tensors else f"weight.{name}"])
        self.steps = numbers["steps"]
        self._turn()
        super().load_state(tensors, numbers)

    def _turn(self) -> None:
        """Go on to the block whose turn it is."""
        block = turn(self.steps, len(self._blocks), self._config)
        if block == self._block:
            return
        self._block = block
        super().release()
        self._train_only(self._blocks[block])
        self._take(self._blocks[block], self._precision)
        for old, new in zip(self.inner.param_groups, self._build(self.masters).param_groups, strict=True):
            old["params"] = new["params"]  # in the groups that the schedule knows: their rates go on

    def _train_only(self, block: Mapping[str, torch.nn.Parameter]) -> None:
        for name, weight in self._all.items():
            weight.requires_grad_(name in block)
