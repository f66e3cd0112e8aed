"""Adam-mini: Adam with one second moment for a block of weights (Zhang et al. 2024, arXiv:2406.16793).

A block is a dense block of the Hessian, where one step size does: a head of queries or keys, a row of any
other matrix (a token of the embedding, a neuron), a whole norm; of biases each number. With m, v as in Adam, but v of a
block b the running mean of mean(g_b²):

    W_b <- W_b - lr m̂_b / (√v̂_b + ε)

`adam-mini` 1.1.1 does the same and counts devices, not processes: with two GPUs at hand a run of one process waits for
the other for ever. So it is written here.
"""

from __future__ import annotations

from typing import Any

import torch


class AdamMini(torch.optim.Optimizer):
    """Groups carry `blocks`: into how many equal parts, along the first dimension, each of their weights falls."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                blocks = weight.grad.view(group["blocks"] or weight.numel(), -1)  # (blocks, numbers of each)
                state = self.state[weight]
                if not state:
                    state |= {"step": 0, "exp_avg": torch.zeros_like(weight),
                              "exp_avg_sq": torch.zeros_like(blocks[:, :1])}
                state["step"] += 1
                state["exp_avg"].lerp_(weight.grad, 1 - beta1)
                state["exp_avg_sq"].lerp_(blocks.square().mean(dim=1, keepdim=True), 1 - beta2)
                scale = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
                step = state["exp_avg"].view_as(blocks) / scale
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(step.view_as(weight), alpha=-group["lr"] / (1 - beta1 ** state["step"]))


def blocks_of(name: str, shape: torch.Size, heads: dict[str, int]) -> int:
    """Into how many blocks the weight `name` falls; 0: as many as it has numbers.

    Args:
        heads: of queries and of keys, how many there are, by the name of their projection.
    """
    if len(shape) < 2:
        return 0 if name.endswith("bias") else 1
    for projection, count in heads.items():
        if projection in name and shape[0] % count == 0:
            return count
    return shape[0]
