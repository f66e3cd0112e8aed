"""What memory allows: how many rows at once, and whether a way of training fits at all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """micro: the most rows computed at once. need: bytes that takes. checkpointing: whether layers must be computed
    twice for it. fits: whether even so it fits."""

    micro: int
    need: int
    checkpointing: bool
    fits: bool
