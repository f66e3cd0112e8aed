"""Each weight is stepped as soon as its gradient is there, and the gradient dropped: never all of them are held.

What LOMO does (Lv et al. 2023, arXiv:2306.09782, algorithm 1), and the layer-wise variants of GaLore and APOLLO. A step
must be one batch, since the count to divide by is needed before the backward pass; gradients are not clipped, since how
long they are in all is known only after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from truetune.model.precision import Precision
from truetune.optim.chain import Chain
from truetune.optim.optimizer import Optimizer
from truetune.options import Config


class BackwardOptimizer(Optimizer):
    """An `Optimizer` that steps in `backward`."""

    def __init__(self, weights: Mapping[str, torch.nn.Parameter],
                 build: Callable[[Mapping[str, torch.Tensor]], torch.optim.Optimizer], config: Config,
                 precision: Precision, total_steps: int, **rest: Any):
        self._count: float | None = None
        self._squares: list[torch.Tensor] = []
        self._parts: dict[str, torch.optim.Optimizer] = {}

        def each(masters: Mapping[str, torch.Tensor]) -> torch.optim.Optimizer:
            self._parts |= {name: build({name: master}) for name, master in masters.items()}
            return Chain(list(self._parts.values()))

        super().__init__(weights, each, config, precision, total_steps, **rest)

    def _hook(self, name: str) -> Callable[[torch.Tensor], None] | None:
        return partial(self._step_one, name)

    def backward(self, loss: torch.Tensor, count: float) -> None:
        assert self._count is None, "a step of one batch: the rules see to it"
        self._count = count or 1
        extra = self._penalty() * self._count if self._penalty else 0.0
        (loss + extra).backward()

    @torch.no_grad()
    def _step_one(self, name: str, parameter: torch.Tensor) -> None:
        master = self.masters[name]
        if master is not parameter:
            assert parameter.grad is not None
            master.grad, parameter.grad = parameter.grad.float(), None
        self._divide([master], self._count or 1)
        assert master.grad is not None
        self._squares.append(torch.linalg.vector_norm(master.grad).square())
        self._parts[name].step()
        self._round([name])
        master.grad = None

    def step(self, count: float) -> float:
        """Move the schedule on.

        Returns:
            The length of the gradient. If it is not finite some weights are no longer either: the caller must stop.
        """
        self.steps += 1
        norm = torch.stack(self._squares).sum().sqrt() if self._squares else torch.zeros(())
        self.drop_gradients()
        self.inner.step()  # nothing is left to step: the schedule wants to be called after it
        self._move_on()
        return float(norm)

    def drop_gradients(self) -> None:
        super().drop_gradients()
        self._count, self._squares = None, []
