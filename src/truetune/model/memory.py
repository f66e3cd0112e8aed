"""Whether activations fit: measured on a few rows, before the first step.

What the backward pass needs of the forward pass is counted as autograd keeps it, so every architecture, adapter and
number format is counted as it is. It grows with the tokens of a batch and not with padding, since there is none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import psutil
import torch

from truetune.data.renderer import Rendered
from truetune.findings import Both
from truetune.model.policy import Policy

SHARE = 0.7
"""Of the memory that is free once the model is loaded: the rest is for gradients, optimizer state and temporaries."""


def bound_kernel_caches() -> None:
    """Keep oneDNN, which computes bfloat16 on CPUs, from keeping a compiled kernel for every length of batch it has
    seen: after a hundred lengths those took 0.7 GB. To be called before the first product. What somebody has set in
    the environment stays."""
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "64")


def activation_bytes(policy: Policy, rows: Sequence[Rendered], device: torch.device) -> float:
    """Bytes that one forward pass over `rows` keeps for the backward pass, per token."""
    batch = policy.lay_out(rows)
    known = {weight.untyped_storage().data_ptr() for weight in policy.causal.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    was_training = policy.causal.training
    policy.causal.train()
    with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        kept_alive = policy.log_probabilities(batch).sum()
    del kept_alive
    policy.causal.train(was_training)
    return sum(kept.values()) / batch.tokens


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def fits(policy: Policy, rows: Sequence[Rendered], largest: int, device: torch.device) -> tuple[bool, Both]:
    """Whether a batch of `largest` tokens fits without gradient checkpointing, and the numbers in words; measured on
    a few `rows`."""
    needed = activation_bytes(policy, rows, device) * largest
    free = free_bytes(device)
    much, left = f"{needed / 1e9:.1f} GB", f"{free / 1e9:.1f} GB"
    return needed < SHARE * free, Both(f"activations of up to {much}, {left} free", f"激活值最多 {much}，可用 {left}")
