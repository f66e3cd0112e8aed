"""GaLore and APOLLO: an optimizer that sees only a low-rank picture of each gradient, so that its state is small.

Both project a gradient G (m x n) of a weight W to R, of rank r: R = G Pᵀ (m x r, P on the right) or R = Pᵀ G (r x n, P
on the left). An inner optimizer (AdamW, its 8-bit kin, Adafactor) steps R as if that were a gradient, to R~.

    GaLore   W <- W - lr α (R~ P)             Zhao et al. 2024, arXiv:2403.03507, algorithm 2: P are the r strongest
             or W - lr α (P R~)               singular vectors of G, taken anew every `interval` steps
    APOLLO   W <- W - lr √α (s · G)           Zhu et al. 2024, arXiv:2412.05270, algorithm 1: s_j = ‖R~_j‖ / ‖R_j‖ of
                                              each channel j (APOLLO-Mini: of the whole matrix), P random, N(0, 1/r)

APOLLO limits how fast the length of s · G may grow, by 1.01 a step (Chen et al. 2024, Fira, arXiv:2410.01623). The
root of α is what the authors' code multiplies by. That limits R~ before Adam's correction of its first steps, and here
it is limited after it; else the two agree.

Here the inner optimizer holds a weight that is 0 and of R's shape: its step with a learning rate of 1 is -R~. So any
optimizer whose step is in proportion to its learning rate will do. The authors' packages hold P in objects that are no
tensors, which no checkpoint without pickles can keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

import torch

Side = Literal["left", "right", "full"]
Make = Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]
"""(groups, learning rate) -> the inner optimizer."""

_GROWTH = 1.01


@dataclass(frozen=True)
class Picture:
    """How gradients are pictured. side: std (the shorter edge goes), reverse_std, left, right or full (both edges).
    random: P is drawn, not computed. scaling: APOLLO's way back, by channel or tensor; None: GaLore's. front: α comes
    before the limit on growth and not after it."""

    rank: int
    interval: int
    scale: float
    side: str
    random: bool = False
    scaling: Literal["channel", "tensor"] | None = None
    front: bool = False
    seed: int = 0

    def side_of(self, shape: Sequence[int]) -> Side:
        """Where P stands, for a weight of `shape`."""
        if self.side in ("left", "right", "full"):
            return self.side  # pyright: ignore[reportReturnType]
        tall = shape[0] >= shape[1]
        return "right" if tall == (self.side == "std") else "left"

    def shapes(self, shape: Sequence[int]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """The shape of R, and those of what P is made of, for a weight of `shape`."""
        m, n = shape
        r, side = min(self.rank, m, n), self.side_of(shape)
        if side == "full":
            return (r, r), [(m, r), (r, n)]
        return ((m, r), [(r, n)]) if side == "right" else ((r, n), [(m, r)])


class LowRank(torch.optim.Optimizer):
    """Steps matrices by way of `picture`; `make` makes the optimizer that steps the pictures.

    State of a weight: step, left and right (P), length (of the last step, APOLLO), and picture (the inner state).
    """

    def __init__(self, groups: list[dict[str, Any]], picture: Picture, make: Make, names: dict[torch.Tensor, str]):
        super().__init__(groups, {})
        self._picture, self._names = picture, names
        self._pictured = {
            weight: weight.new_empty(0)  # has numbers only while a step is made
            for group in self.param_groups for weight in group["params"]}
        self._inner = make([{"params": list(self._pictured.values()), "weight_decay": 0.0}], 1.0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        weights = [(group, weight) for group in self.param_groups for weight in group["params"]
                   if weight.grad is not None]
        for _, weight in weights:
            state, pictured = self.state[weight], self._pictured[weight]
            state.setdefault("step", 0)
            if state["step"] % self._picture.interval == 0:
                self._look(weight, state)
            state["step"] += 1
            seen = _project(weight.grad, state)
            pictured.data, pictured.grad = torch.zeros_like(seen), seen
            self._inner.state[pictured] = state.setdefault("picture", {})
        self._inner.step()
        for group, weight in weights:
            state, pictured = self.state[weight], self._pictured[weight]
            assert pictured.grad is not None
            state["picture"] = self._inner.state[pictured]
            step = self._rescale(weight.grad, pictured, state) if self._picture.scaling else \
                _project_back(pictured, state).neg_().mul_(self._picture.scale)
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(step * -group["lr"])
            pictured.grad, pictured.data = None, weight.new_empty(0)

    def _look(self, weight: torch.Tensor, state: dict[str, Any]) -> None:
        """Choose the directions of the picture anew: `left` (m, r), `right` (r, n)."""
        picture, gradient = self._picture, weight.grad
        assert gradient is not None
        side, r = picture.side_of(weight.shape), min(picture.rank, *weight.shape)
        if picture.random:
            seed = crc32(f"{picture.seed} {self._names[weight]} {state['step']}".encode())
            shape = picture.shapes(weight.shape)[1][0]
            drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / r**0.5
            state[side] = drawn.to(weight)
            return
        left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
        if side != "right":
            state["left"] = left[:, :r].to(weight.dtype, copy=True)
        if side != "left":
            state["right"] = right[:r].to(weight.dtype, copy=True)

    def _rescale(self, gradient: torch.Tensor | None, pictured: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
        """APOLLO's step: the whole gradient, in the lengths that the inner optimizer gives to its picture."""
        assert gradient is not None and pictured.grad is not None
        picture = self._picture
        dim = None if picture.scaling == "tensor" else 1 if "right" in state else 0
        kept = dim is not None
        lengths = [torch.linalg.vector_norm(each, dim=dim, keepdim=kept) for each in (pictured, pictured.grad)]
        step = gradient * (lengths[0] / (lengths[1] + 1e-8))
        if picture.front:
            step *= picture.scale**0.5
        length = torch.linalg.vector_norm(step)
        if "length" in state:
            excess = (length / (state["length"] + 1e-8)).clamp_(min=_GROWTH) / _GROWTH
            step, length = step / excess, length / excess
        state["length"] = length
        return step if picture.front else step * picture.scale**0.5


def _project(gradient: torch.Tensor | None, state: dict[str, Any]) -> torch.Tensor:
    assert gradient is not None
    pictured = gradient @ state["right"].t() if "right" in state else gradient
    return state["left"].t() @ pictured if "left" in state else pictured


def _project_back(pictured: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    if "right" in state:
        pictured = pictured @ state["right"]
    return state["left"] @ pictured if "left" in state else pictured
