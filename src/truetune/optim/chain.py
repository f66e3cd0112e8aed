"""Several optimizers that look like one: to the schedule, to the gradient scaler and to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Chain(torch.optim.Optimizer):
    """Optimizers of different weights, stepped one after the other. Their groups and their state are the chain's."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        groups = [group for part in parts for group in part.param_groups]
        super().__init__(groups, {})
        self.param_groups = groups  # the very same ones, so that the schedule's rates reach the parts
        self.parts = [inner for part in parts for inner in parts_of(part)]
        for part in self.parts:
            self.state.update(part.state)
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Step those parts that have a gradient: some count their steps even where nothing is to be done."""
        for part in self.parts:
            if any(weight.grad is not None for group in part.param_groups for weight in group["params"]):
                part.step()


def parts_of(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizers that `optimizer` is made of; itself, where it is one."""
    if isinstance(optimizer, Chain):
        return optimizer.parts
    return [optimizer]
