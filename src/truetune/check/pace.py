"""How fast a model trains here, before it has trained: from the speed of a bare matrix product."""

from __future__ import annotations

import torch

from truetune.check.shape import Shape

REACHED = {"cpu": {torch.float32: 0.62, torch.bfloat16: 0.35}, "cuda": {torch.float32: 0.5, torch.bfloat16: 0.4}}
"""Share of the speed of a matrix product that training reaches: on CPUs measured (README, Speed), on GPUs assumed."""


def tokens_per_second(shape: Shape, flops: float, dtype: torch.dtype, device: torch.device) -> float:
    """Real tokens a second: 6 operations a weight and token, 4 where the weights themselves are frozen (Kaplan et al.
    2020, arXiv:2001.08361, section 2.1). flops: operations a second of a matrix product in `dtype` here."""
    operations = (4 + 2 * shape.trained / shape.parameters) * shape.active
    return flops * REACHED[device.type].get(dtype, 0.3) / operations
