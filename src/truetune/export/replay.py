"""Run a model's decoder layers one by one over some texts, each on what the layers before it, as they are now, give.

What a layer is given beside its hidden states (positions, masks) is recorded in one pass through the whole model, so no
architecture has to be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from truetune.model.methods.method import layers_of


@dataclass
class Block:
    """A decoder layer and what it is given, a text at a time. beside: positional and named arguments of each text."""

    layer: torch.nn.Module
    hidden: Sequence[torch.Tensor]
    beside: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]

    def holds(self, module: torch.nn.Module) -> bool:
        """Whether a module lies in this layer."""
        return any(module is mine for mine in self.layer.modules())

    def outputs(self) -> Iterator[torch.Tensor]:
        """What the layer gives, text by text: (1, T, d)."""
        for hidden, (more, named) in zip(self.hidden, self.beside, strict=True):
            out = self.layer(hidden, *more, **named)
            yield out[0] if isinstance(out, tuple) else out

    def hessians(self, layers: Mapping[str, torch.nn.Linear]) -> dict[str, torch.Tensor]:
        """X Xᵀ of the inputs of each of `layers`: (I, I) float32. Those that get the same input share it."""
        sums: dict[str, torch.Tensor] = {}
        last: dict[str, Any] = {"input": None, "square": None}

        def add(name: str, x: torch.Tensor) -> None:
            if x is not last["input"]:
                rows = x.reshape(-1, x.shape[-1]).float()  # (T, I)
                last.update(input=x, square=rows.T @ rows)
            if name in sums:
                sums[name] += last["square"]
            else:
                sums[name] = last["square"].clone()

        with watched(layers, add):
            for _ in self.outputs():
                pass
        return sums


@contextmanager
def watched(layers: Mapping[str, torch.nn.Module], see: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """While entered, `see(name, input)` is called whenever one of `layers` runs."""
    def call(name: str, module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        see(name, given[0])

    hooks = [layer.register_forward_pre_hook(partial(call, name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Replay:
    """The decoder layers of `model` over `rows`, token ids (T,) each."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[np.ndarray]):
        self.layers = list(layers_of(model))
        self.hidden: list[torch.Tensor] = []
        self.beside: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = [[] for _ in self.layers]
        hooks = [layer.register_forward_pre_hook(partial(self._record, number), with_kwargs=True)
                 for number, layer in enumerate(self.layers)]
        try:
            for row in rows:
                model(input_ids=torch.as_tensor(row, device=model.device)[None], use_cache=False, logits_to_keep=1)
        finally:
            for hook in hooks:
                hook.remove()

    def blocks(self) -> Iterator[Block]:
        """Each layer with what it is given. Whatever is done to a layer before the next is asked for, the next sees."""
        hidden = self.hidden
        for layer, beside in zip(self.layers, self.beside, strict=True):
            block = Block(layer, hidden, beside)
            yield block
            hidden = list(block.outputs())

    def _record(self, number: int, layer: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        named = dict(named)
        first = given[0] if given else named.pop("hidden_states")
        if number == 0:
            self.hidden.append(first)
        self.beside[number].append((given[1:], named))
