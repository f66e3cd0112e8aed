"""Log-probabilities of the learned tokens, without ever holding their logits.

A vocabulary of 150,000 makes the logits of 8,000 tokens 4.8 GB in float32. Only the tokens that are learned go through
the head, some rows of logits at a time. For a frozen head the gradient with respect to the hidden states is computed in
the same pass (each token's log-probability depends on its own hidden state only, so its gradient is one row of
`(onehot - softmax) W`, scaled by what comes from above): no logits are kept and no product is done twice. The same
goes for a frozen head of which some rows are trained, those of new tokens.
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
class NewRows:
    """ids: (n,) tokens. rows: (n, H) their rows in the head's matrix, which are trained while the others are not."""

    ids: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: `softcap * tanh(scale * head(hidden) / softcap) / temperature`.

    scale: Granite divides, Cohere multiplies. softcap: Gemma 2 and 3n. temperature: at which answers are drawn. new:
    what stands in place of some rows of the module's matrix.
    """

    module: torch.nn.Module
    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0
    new: NewRows | None = None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, H) → (n, V), in the dtype of the model."""
        logits = self.module(hidden)
        if self.new is not None:
            logits = logits.index_copy(1, self.new.ids, hidden @ self.new.rows.T)
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
        mine = head.new.rows if head.new is not None else None
        return _FrozenHead.apply(hidden, targets, mine, head, rows)  # pyright: ignore[reportReturnType]
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
    """`log_probabilities` for a head that is not trained, or only in some rows (`Head.new`), with the gradients
    computed on the way. trained: (n, H) these rows once more, so that autograd sees them."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, trained: torch.Tensor | None, head: Head,
                rows: int) -> torch.Tensor:
        logp = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        slope = torch.empty_like(hidden) if hidden.requires_grad else None
        new, new_slope = head.new, None
        if trained is not None and trained.requires_grad:
            new_slope = hidden.new_empty(len(targets), len(trained))  # d log p / d (the new tokens' logits)
        weight: torch.Tensor = head.module.weight  # pyright: ignore[reportAssignmentType]
        for start in range(0, len(targets), rows):
            mine, wanted = slice(start, start + rows), targets[start : start + rows, None]
            logits = head.logits(hidden[mine])  # (rows, V), in the dtype of the model
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
            logp[mine] = (target - top - total.log())[:, 0]
            if slope is not None or new_slope is not None:
                if rise is not None:
                    chances.mul_(rise)
                factor = (scale if rise is None else 1) / total
                at_target, own = weight[wanted[:, 0]], None
                if new is not None:
                    own, hit = chances[:, new.ids], wanted == new.ids  # (rows, n)
                    chances[:, new.ids] = 0
                    at_target = torch.where(hit.any(dim=1, keepdim=True), hit.to(own.dtype) @ new.rows, at_target)
                    if new_slope is not None:
                        new_slope[mine] = hit * target_rise - own * factor
                if slope is not None:
                    mean = chances @ weight
                    if new is not None and own is not None:
                        mean.addmm_(own, new.rows)
                    slope[mine] = at_target * target_rise - mean * factor
            del logits, chances  # before the next chunk is there
        ctx.save_for_backward(slope, new_slope, hidden if new_slope is not None else None)
        return logp

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slope, new_slope, hidden = ctx.saved_tensors
        above = grads[0][:, None]
        below = slope * above.to(slope.dtype) if slope is not None else None
        learned = (new_slope * above.to(new_slope.dtype)).T @ hidden if new_slope is not None else None
        return below, None, learned, None, None
