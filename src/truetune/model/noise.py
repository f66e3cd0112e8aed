"""Randomness that is on in training alone: NEFTune's noise on the embeddings, and dropout of attention's weights.

NEFTune (Jain et al. 2023, arXiv:2310.05914, algorithm 1): X ← X + alpha / sqrt(L d) eps, with eps uniform between -1
and 1, for a row of L tokens whose embeddings have d numbers. Rows lie end to end here, so each token has its own L.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedModel

from truetune.data.batches import Batch
from truetune.findings import Both, problem
from truetune.options import Config


class Noise:
    """NEFTune's noise, added by a hook of the embeddings while they train and only where `over` says which rows they
    see: not while the model is evaluated, compared with another or generates."""

    def __init__(self, embeddings: torch.nn.Module, alpha: float):
        self._alpha, self._scale = alpha, None
        embeddings.register_forward_hook(self._add)

    @contextmanager
    def over(self, batch: Batch) -> Iterator[None]:
        """While entered, the embeddings see the rows of `batch`, none of which shares its beginning with another."""
        lengths = torch.tensor([end - start for start, end in pairwise(batch.starts)])
        self._scale = self._alpha * lengths.repeat_interleave(lengths).rsqrt().to(batch.ids.device)  # (T,)
        try:
            yield
        finally:
            self._scale = None

    def _add(self, module: torch.nn.Module, args: Any, embedded: torch.Tensor) -> torch.Tensor | None:
        """embedded: (1, T, d)."""
        if self._scale is None or not module.training:
            return None
        noise = torch.empty_like(embedded).uniform_(-1, 1)
        scale = self._scale * embedded.shape[-1] ** -0.5
        return embedded + noise * scale[None, :, None].to(embedded.dtype)


def set_attention_dropout(model: PreTrainedModel, config: Config) -> None:
    """Give the model's attention the dropout that the options ask for.

    Raises:
        Problem: the model's attention knows none.
    """
    if config.attention_dropout is None:
        return
    modules = [module for module in model.modules() if "attention_dropout" in vars(module)]
    if not modules and config.attention_dropout:
        raise problem("no-attention-dropout", Both(
            f"the attention of {type(model).__name__} has no dropout.",
            f"{type(model).__name__} 的注意力没有 dropout。"),
            option="attention_dropout", where=config.origin("attention_dropout"),
            fix=Both("Leave it out; lora_dropout works with every model.", "请去掉；lora_dropout 适用于所有模型。"))
    for module in modules:
        vars(module)["attention_dropout"] = config.attention_dropout
