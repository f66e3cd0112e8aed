"""Attention over rows that lie end to end, each seeing only itself and the beginning it shares.

Registered with transformers' `AttentionInterface`, so no model class is touched. The rows' borders come in as the
keyword argument `row_borders` of the forward call. On the CPU each row is one SDPA call: a mask over
all rows costs 3.6 times as much in bf16 and 8 times in fp32 (2048 tokens, 8 rows). On CUDA it is one variable-length
kernel call (`torch.nn.attention.varlen`) where that kernel takes the number format.

Others can be asked for (`flash_attn`): a `Kernel` says what each is called in transformers, and how it is told the
rows' borders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from truetune.data.batches import Batch
from truetune.findings import Both, Finding
from truetune.options import Config

ROWS, ROWS_BY_SDPA = "truetune_rows", "truetune_rows_sdpa"
_SHORT = 256
"""Rows up to this length are attended to in float32 on the CPU, whose bfloat16 kernel is slow on them (forward and
backward, 9 heads: 64 tokens 0.43 ms against 0.97, 220 tokens 3.6 against 4.3, 600 tokens 26 against 20)."""


@dataclass(frozen=True)
class Kernel:
    """implementation: its name in transformers. borders(batch): what its forward call is told of the rows. shares:
    whether rows can share the beginning they have in common. lacks(device): why it cannot be used; None: it can."""

    name: Both
    implementation: str
    borders: Callable[[Batch], dict[str, Any]]
    shares: bool = True
    lacks: Callable[[torch.device], Both | None] = lambda device: None


def kernel_of(config: Config, device: torch.device) -> Kernel:
    """The kernel that the options ask for, if it can be had, else ours."""
    kernel = KERNELS[config.flash_attn]
    return OURS if kernel.lacks(device) else kernel


def kernel_findings(config: Config, device: torch.device) -> list[Finding]:
    """One line where the kernel that is asked for cannot be had, and why."""
    why = KERNELS[config.flash_attn].lacks(device)
    return [Finding("not-here", "info", Both(f"{config.flash_attn} is not used: {why}. auto is taken.",
                                             f"没有使用 {config.flash_attn}：{why.zh}。改用 auto。"),
                    option="flash_attn", where=config.origin("flash_attn"))] if why else []


class Borders:
    """What the forward call hands through to attention: a thing of its own and no tuples, into which torch.compile
    looks, and compiles the layers anew for each number of rows."""

    def __init__(self, batch: Batch):
        self.starts, self.parents = batch.starts, batch.parents


@torch.compiler.disable
def _attend(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: None, *,
            row_borders: Borders, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """`attend_rows` as transformers calls it. Not compiled: it is a loop over rows of ever other lengths."""
    return attend_rows(module, query, key, value, mask, row_starts=row_borders.starts, row_parents=row_borders.parents,
                       **kwargs)


def attend_rows(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                attention_mask: None, scaling: float | None = None, dropout: float = 0.0, *,
                row_starts: tuple[int, ...], row_parents: tuple[int, ...], sliding_window: int | None = None,
                softcap: float | None = None, varlen: bool = True, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row. A row is a segment, or a segment that goes on from another one, its parent.

    Args:
        query: (1, H, T, D). key, value: (1, K, T, D) with H a multiple of K.
        row_starts: borders of the segments in T, from 0 to T.
        row_parents: for each segment the one it goes on from, -1 where it begins a row. A parent begins a row.
        sliding_window: how many tokens back a token may look, itself included.
        softcap: scores are squashed to (-softcap, softcap) by tanh (Gemma 2).
        varlen: all rows may go into one kernel call.

    Returns:
        (1, T, H, D), and no attention weights.
    """
    if varlen and _has_varlen(query) and not softcap and not dropout:
        return _attend_varlen(query, key, value, row_starts, row_parents, scaling, sliding_window), None
    attended = [
        attend_one(query[:, :, start:end], _seen(key, row_starts, number, parent),
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


def attend_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, dropout: float,
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


def register() -> None:
    """Make our implementations known to transformers; harmless when done twice."""
    for name, attend in ((ROWS, _attend), (ROWS_BY_SDPA, partial(_attend, varlen=False))):
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, _no_mask)


def _by_segment(batch: Batch) -> dict[str, Any]:
    return {"row_borders": Borders(batch)}


def _by_length(batch: Batch) -> dict[str, Any]:
    """As transformers hands it to FlashAttention. Not run here: it needs a GPU."""
    longest = max(end - start for start, end in pairwise(batch.starts))
    starts = torch.tensor(batch.starts, dtype=torch.int32, device=batch.ids.device)
    return {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": longest, "max_length_k": longest}


def _by_blocks(batch: Batch) -> dict[str, Any]:
    """A mask of blocks, most of which need no work. Its backward pass was not run here: it needs a GPU."""
    from torch.nn.attention.flex_attention import create_block_mask

    starts = torch.tensor(batch.starts, device=batch.ids.device)
    row = torch.repeat_interleave(starts.diff())  # (T,): the segment of each token
    mask = create_block_mask(lambda b, h, query, key: (row[query] == row[key]) & (query >= key), 1, None, batch.tokens,
                             batch.tokens, device=str(batch.ids.device))
    return {"attention_mask": mask}


def _needs_gpu(device: torch.device) -> Both | None:
    return None if device.type == "cuda" else Both(f"it runs on NVIDIA GPUs, and this run is on the {device.type}",
                                                   f"它只能在 NVIDIA GPU 上运行，而这次用的是 {device.type}")


def _needs_package(found: Callable[[], bool], package: str, oldest: int) -> Callable[[torch.device], Both | None]:
    """Why FlashAttention cannot be used. oldest: the first generation of GPUs that it runs on."""

    def lacks(device: torch.device) -> Both | None:
        if why := _needs_gpu(device):
            return why
        if torch.cuda.get_device_capability(device)[0] < oldest:
            return Both("this GPU is too old for it", "这块 GPU 太旧，不支持它")
        return None if found() else Both(f"{package} is not installed (pip install {package})",
                                         f"没有安装 {package}（pip install {package}）")

    return lacks


def _backward_needs_gpu(device: torch.device) -> Both | None:
    return None if device.type == "cuda" else Both(
        f"on the {device.type} PyTorch has its forward pass only, and none backward",
        f"在 {device.type} 上 PyTorch 只实现了它的前向，没有反向")


OURS = Kernel(Both("attention row by row", "逐行注意力"), ROWS, _by_segment)
KERNELS: dict[str, Kernel] = {
    "auto": OURS, "disabled": OURS,  # which takes no kernel at all: Policy(fast=False)
    "sdpa": Kernel(Both("attention by SDPA", "SDPA 注意力"), ROWS_BY_SDPA, _by_segment),
    "fa2": Kernel(Both("FlashAttention 2", "FlashAttention 2"), "flash_attention_2", _by_length, shares=False,
                  lacks=_needs_package(is_flash_attn_2_available, "flash-attn", 8)),
    "fa3": Kernel(Both("FlashAttention 3", "FlashAttention 3"), "flash_attention_3", _by_length, shares=False,
                  lacks=_needs_package(is_flash_attn_3_available, "flash-attn-3", 9)),
    "flex": Kernel(Both("flex attention", "flex attention"), "flex_attention", _by_blocks, shares=False,
                   lacks=_backward_needs_gpu),
}
"""By the words of `flash_attn`."""
