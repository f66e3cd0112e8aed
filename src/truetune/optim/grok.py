"""GrokAdamW: AdamW on gradients whose slow part is made stronger, against learning by heart.

As in https://github.com/cognitivecomputations/grokadamw, after Lee et al. 2024, Grokfast (arXiv:2405.20233, algorithm
of Grokfast-EMA). For the gradient g of the weight number i of a group, clipped to `gradient_clipping`:

    μ <- α μ + (1 - α) g         ĝ = g + λ μ
    m <- β₁(1 - γ)ⁱ m + (1 - β₁(1 - γ)ⁱ) ĝ        v <- β₂ v + (1 - β₂) ĝ²
    W <- (1 - lr wd) W - lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) m / (√v + ε)

`grokadamw` 0.1.2 keeps this state on the CPU and where no checkpoint finds it, and sets up logging for the whole
process. So it is written here. What its α may fall by (a signal from the user's own code) is left out: none comes.
"""

from __future__ import annotations

import math
from typing import Any

import torch


class GrokAdamW(torch.optim.Optimizer):
    """The names and defaults of the package."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0, alpha_init: float = 0.98, lamb: float = 2.0,
                 gamma: float = 0.1, gradient_clipping: float = 1.0):
        super().__init__(groups, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "alpha": alpha_init, "lamb": lamb,
            "gamma": gamma, "gradient_clipping": gradient_clipping})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for number, weight in enumerate(weights):
                _step(weight, self.state[weight], group, group["betas"][0] * (1 - group["gamma"]) ** number)


def _step(weight: torch.Tensor, state: dict[str, Any], group: dict[str, Any], beta1: float) -> None:
    """One weight's step. beta1: the β₁ of its place."""
    gradient = weight.grad
    assert gradient is not None
    if not state:
        state |= {"step": 0, **{name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq", "slow")}}
    state["step"] += 1
    if group["gradient_clipping"] > 0:
        torch.nn.utils.clip_grad_norm_(weight, group["gradient_clipping"])
    state["slow"].lerp_(gradient, 1 - group["alpha"])
    gradient = gradient + group["lamb"] * state["slow"]
    state["exp_avg"].lerp_(gradient, 1 - beta1)
    state["exp_avg_sq"].lerp_(gradient.square(), 1 - group["betas"][1])
    first, second = (1 - beta ** state["step"] for beta in group["betas"])
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["eps"]),
                    value=-group["lr"] * math.sqrt(second) / first)
