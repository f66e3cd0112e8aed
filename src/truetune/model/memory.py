"""The memory of a run while it runs: what is free, what libraries may keep, and layers that are computed again."""

from __future__ import annotations

import os
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel

from truetune.options import Config

SHARE = 0.7
"""Of the memory that is free once the model is loaded: the rest is for gradients, optimizer state and temporaries."""


def bound_kernel_caches() -> None:
    """Keep oneDNN, which computes bfloat16 on CPUs, from keeping a compiled kernel for every length of batch it has
    seen: after a hundred lengths those took 0.7 GB. To be called before the first product. What somebody has set in
    the environment stays."""
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "64")


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def compute_again(causal: PreTrainedModel, config: Config, device: torch.device) -> None:
    """Switch gradient checkpointing on, as the options have it: layers are computed again on the way back, and only
    their inputs are kept, with activation_offload in the CPU's pinned memory (transformers' and PyTorch's own)."""
    settings = {"use_reentrant": config.use_reentrant_gc, **config.gradient_checkpointing_kwargs}
    if settings["use_reentrant"] and not causal.get_input_embeddings().get_parameter("weight").requires_grad:
        # The older way passes gradients on to inputs that need them, and a frozen embedding's output needs none.
        causal.get_input_embeddings().register_forward_hook(_let_gradients_in)
    causal.activation_checkpointing_enable(activation_checkpointing_kwargs=settings,
                                           offload=config.activation_offload and device.type == "cuda")


def _let_gradients_in(module: torch.nn.Module, args: Any, embedded: torch.Tensor) -> torch.Tensor | None:
    return embedded.requires_grad_() if module.training and torch.is_grad_enabled() and embedded.is_leaf else None
