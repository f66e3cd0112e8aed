"""Attention over rows that lie end to end, each seeing only itself and the beginning it shares.

Registered with transformers' `AttentionInterface`, so no model class is touched. The rows' borders come in as the
keyword arguments `row_starts` and `row_parents` of the forward call. On the CPU each row is one SDPA call: a mask over
all rows costs 3.6 times as much in bf16 and 8 times in fp32 (2048 tokens, 8 rows). On CUDA it is one variable-length
kernel call (`torch.nn.attention.varlen`) where that kernel takes the number format.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

ROWS = "truetune_rows"
_SHORT = 256
"""Rows up to this length are attended to in float32 on the CPU, whose bfloat16 kernel is slow on them (forward and
backward, 9 heads: 64 tokens 0.43 ms against 0.97, 220 tokens 3.6 against 4.3, 600 tokens 26 against 20)."""


def attend_rows(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                attention_mask: None, scaling: float | None = None, dropout: float = 0.0, *,
                row_starts: tuple[int, ...], row_parents: tuple[int, ...], sliding_window: int | None = None,
                softcap: float | None = None, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row. A row is a segment, or a segment that goes on from another one, its parent.

    Args:
        query: (1, H, T, D). key, value: (1, K, T, D) with H a multiple of K.
        row_starts: borders of the segments in T, from 0 to T.
        row_parents: for each segment the one it goes on from, -1 where it begins a row. A parent begins a row.
        sliding_window: how many tokens back a token may look, itself included.
        softcap: scores are squashed to (-softcap, softcap) by tanh (Gemma 2).

    Returns:
        (1, T, H, D), and no attention weights.
    """
    if _has_varlen(query) and not softcap and not dropout:
        return _attend_varlen(query, key, value, row_starts, row_parents, scaling, sliding_window), None
    attended = [
        _attend_one(query[:, :, start:end], _seen(key, row_starts, number, parent),
                    _seen(value, row_starts, number, parent), scaling, dropout, sliding_window, softcap)
        for number, ((start, end), parent) in enumerate(zip(pairwise(row_starts), row_parents, strict=True))
    ]
    return torch.cat([rows.transpose(1, 2) for rows in attended], dim=1), None


def _seen(keys: torch.Tensor, starts: tuple[int, ...], number: int, parent: int) -> torch.Tensor:
    """What segment `number` may look at: its parent and itself. keys: (1, K, T, D) → (1, K, n, D)."""
    own = keys[:, :, starts[number] : starts[number + 1]]
    return own if parent < 0 else torch.cat([keys[:, :, starts[parent] : starts[parent + 1]], own], dim=2)


def _has_varlen(query: torch.Tensor) -> bool:
    """The kernel is FlashAttention: 16-bit numbers, Ampere and later."""
    return (query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)
            and torch.cuda.get_device_capability(query.device)[0] >= 8)


def _attend_varlen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row_starts: tuple[int, ...],
                   row_parents: tuple[int, ...], scaling: float | None, sliding_window: int | None) -> torch.Tensor:
    """All rows in one kernel call. Queries of a segment are its own tokens, its keys those of its parent too; causal
    masks are aligned at the end of both."""
    from torch.nn.attention.varlen import varlen_attn

    spans = [((row_starts[parent], row_starts[parent + 1]) if parent >= 0 else (0, 0), own)
             for own, parent in zip(pairwise(row_starts), row_parents, strict=True)]
    asking = torch.tensor(row_starts, dtype=torch.int32, device=query.device)
    longest = max(end - start for start, end in pairwise(row_starts))
    seen, widest, keys, values = asking, longest, key[0].transpose(0, 1), value[0].transpose(0, 1)
    if any(parent >= 0 for parent in row_parents):
        places = torch.cat([torch.arange(first, last, device=query.device) for span in spans
                            for first, last in span])
        sizes = [sum(last - first for first, last in span) for span in spans]
        seen = torch.tensor([0, *accumulate(sizes)], dtype=torch.int32, device=query.device)
        widest, keys, values = max(sizes), keys[places], values[places]
    window = (sliding_window - 1 if sliding_window else -1, 0)
    attended = varlen_attn(query[0].transpose(0, 1), keys, values, asking, seen, longest, widest, scale=scaling,
                           window_size=window, enable_gqa=query.shape[1] != key.shape[1])
    assert isinstance(attended, torch.Tensor)
    return attended[None]


def _attend_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, dropout: float,
                sliding_window: int | None, softcap: float | None) -> torch.Tensor:
    """One segment, which ends what it looks at: query (1, H, n, D), key and value (1, K, m, D) → (1, H, n, D)."""
    length, seen = query.shape[2], key.shape[2]
    windowed = sliding_window is not None and sliding_window < seen
    if not softcap:
        mask = _band(length, seen, sliding_window, query.device) if windowed or length < seen else None
        dtype = query.dtype
        if query.device.type == "cpu" and seen <= _SHORT:
            query, key, value = query.float(), key.float(), value.float()
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1]).to(dtype)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query @ key.transpose(2, 3)).float() * (scaling or query.shape[-1] ** -0.5)
    scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~_band(length, seen, sliding_window, query.device), float("-inf"))
    chances = torch.nn.functional.dropout(scores.softmax(dim=-1), dropout)
    return chances.to(value.dtype) @ value


def _band(length: int, seen: int, window: int | None, device: torch.device) -> torch.Tensor:
    """(length, seen) booleans: may the token of the row, one of the last `length`, see the token of the column."""
    ahead = torch.arange(seen - length, seen, device=device)[:, None] - torch.arange(seen, device=device)[None]
    return (ahead >= 0) & (ahead < (window or seen))


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The borders of the rows say everything that a mask would."""


def register() -> str:
    """Make `attn_implementation=ROWS` known to transformers; harmless when done twice."""
    AttentionInterface.register(ROWS, attend_rows)
    AttentionMaskInterface.register(ROWS, _no_mask)
    return ROWS
