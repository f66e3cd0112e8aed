"""Log-probabilities of the learned tokens, without ever holding their logits.

A vocabulary of 150,000 makes the logits of 8,000 tokens 4.8 GB in float32. Only the tokens that are learned go through
the head, some rows of logits at a time. For a frozen head the gradient with respect to the hidden states is computed in
the same pass (each token's log-probability depends on its own hidden state only, so its gradient is one row of
`(onehot - softmax) W`, scaled by what comes from above): no logits are kept and no product is done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from truetune.objectives.objective import Tokens

CHUNK_BYTES = 36 * 2**20
"""Size of one chunk of logits. On the CPU the time is flat from 12 to 32 MB (128 to 341 rows of 49,152 in bfloat16).
Just above 32 MiB, since glibc gives larger pieces back when they are freed and keeps smaller ones, torn apart (a full
fine-tuning of two layers took 1.76 GB, and takes 1.47)."""


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: `softcap * tanh(scale * head(hidden) / softcap) / temperature`.

    scale: Granite divides, Cohere multiplies. softcap: Gemma 2 and 3n. temperature: at which answers are drawn.
    """

    module: torch.nn.Module
    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, H) → (n, V), in the dtype of the model."""
        logits = self.module(hidden)
        if self.scale != 1:
            logits = logits * self.scale
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits / self.temperature if self.temperature != 1 else logits


def log_probabilities(hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    """The log-probability of each target under the model.

    Args:
        hidden: (N, H), the states that predict the targets. targets: (N,) token ids.

    Returns:
        (N,) float32, differentiable with respect to `hidden` and the head.
    """
    rows = _rows_at_once(hidden, head)
    if type(head.module) is torch.nn.Linear and not any(p.requires_grad for p in head.module.parameters()):
        return _FrozenHead.apply(hidden, targets, head, rows)  # pyright: ignore[reportReturnType]
    pieces = [
        checkpoint(_chunk, hidden[start : start + rows], targets[start : start + rows], head, use_reentrant=False)
        for start in range(0, len(targets), rows)
    ]
    return torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)  # pyright: ignore


def read_tokens(hidden: torch.Tensor, targets: torch.Tensor, head: Head, read: Tokens,
                beside: tuple[torch.Tensor, Head] | None = None) -> torch.Tensor:
    """What `read` makes of each token's whole distribution, some rows of logits at a time, computed again for the
    backward pass.

    Args:
        hidden: (N, H), the states that predict the targets. targets: (N,) token ids.
        beside: the hidden states (N, H') and head of a reference, whose logits `read` sees too.

    Returns:
        (N, C) float32, differentiable with respect to `hidden` and the head.
    """
    rows = _rows_at_once(hidden, head) // 2 or 1  # two sets of logits, or their float32 copies

    def piece(states: torch.Tensor, start: int) -> torch.Tensor:
        mine = slice(start, start + rows)
        with torch.no_grad():
            other = beside[1].logits(beside[0][mine]).float() if beside else None
        return read(head.logits(states).float(), targets[mine], other)

    pieces = [checkpoint(piece, hidden[start : start + rows], start, use_reentrant=False)
              for start in range(0, max(len(targets), 1), rows)]
    return torch.cat(pieces)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _rows_at_once(hidden: torch.Tensor, head: Head) -> int:
    """How many rows of logits make a chunk."""
    return max(1, CHUNK_BYTES // (hidden.element_size() * _vocabulary(head.module)))


def _vocabulary(module: torch.nn.Module) -> int:
    """Rows of the head's matrix, which adapters wrap without changing its shape."""
    return max(parameter.shape[0] for parameter in module.parameters())


def _chunk(hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    logits = head.logits(hidden).float()
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)


class _FrozenHead(torch.autograd.Function):
    """`log_probabilities` for a head that is not trained, with the gradient computed on the way."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Head, rows: int) -> torch.Tensor:
        logp = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        slope = torch.empty_like(hidden) if hidden.requires_grad else None
        weight: torch.Tensor = head.module.weight  # pyright: ignore[reportAssignmentType]
        for start in range(0, len(targets), rows):
            wanted = targets[start : start + rows, None]
            logits = head.logits(hidden[start : start + rows])  # (rows, V), in the dtype of the model
            # d logits / d (head's output): 1, unless they are scaled or squashed.
            scale = head.scale / head.temperature
            rise = scale * (1 - (logits * head.temperature / head.softcap) ** 2) if head.softcap else None
            target_rise = rise.gather(1, wanted) if rise is not None else scale
            top = logits.amax(dim=1, keepdim=True)
            target = logits.gather(1, wanted).float()
            # From here on `logits` holds exp(logits - top). In bfloat16 this keeps the speed of the product (a float32
            # copy made the head three times slower) and moves a log-probability by 1e-4, a hundredth of what the
            # rounding of the logits themselves does.
            chances = logits.sub_(top).exp_()
            total = chances.sum(dim=1, keepdim=True, dtype=torch.float32)
            logp[start : start + rows] = (target - top - total.log())[:, 0]
            if slope is not None:
                if rise is not None:
                    chances.mul_(rise)
                mean = (chances @ weight) * (scale if rise is None else 1) / total
                slope[start : start + rows] = weight[wanted[:, 0]] * target_rise - mean
            del logits, chances  # before the next chunk is there
        ctx.save_for_backward(slope)
        return logp

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grads[0][:, None].to(slope.dtype), None, None, None
