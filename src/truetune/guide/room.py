"""What memory and time allow: how many rows at once, whether a model fits at all, and how long a run takes."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from truetune.check.memory import Shape, predict
from truetune.check.pace import tokens_per_second
from truetune.check.room import CUDA_CONTEXT, SHARE


@dataclass(frozen=True)
class Room:
    """micro: the most rows computed at once, up to what a step wants. checkpointing: whether layers must be computed
    twice for even one of them. need: bytes that it takes. fits: whether there are so many."""

    micro: int
    checkpointing: bool
    need: int
    fits: bool


def find_room(shape: Shape, longest: int, wanted: int, free: int, device: torch.device,
              checkpointing: bool | None) -> Room:
    """What fits: `wanted` rows, else the largest power of two of them; without checkpointing if that is possible.

    Args:
        longest: tokens of the longest row; every row is reckoned as long.
        wanted: rows a step: no more are computed at once.
        free: bytes that can still be taken.
        checkpointing: what the user fixed; None: whatever it takes.
    """
    process = psutil.Process().memory_info().rss if device.type == "cpu" else CUDA_CONTEXT
    limit = SHARE * free + (process if device.type == "cpu" else 0)  # what this process holds, the run holds too
    need = 0
    for twice in (False, True) if checkpointing is None else (checkpointing,):
        for rows in (wanted, *(2**power for power in range(wanted.bit_length() - 1, -1, -1))):
            need = predict(shape, [longest] * rows, rows * longest, process, accumulation=2 if rows < wanted else 1,
                           checkpointing=twice).peak
            if need <= limit:
                return Room(rows, twice, need, True)
    return Room(1, True, need, False)


def seconds(shape: Shape, tokens: int, flops: float, dtype: torch.dtype, device: torch.device) -> float:
    """About how long `tokens` take."""
    return tokens / tokens_per_second(shape, flops, dtype, device)
