"""What a model says of each letter: its log-probability where the answer begins.

All questions of a subject begin with the same examples. Rows are laid end to end without padding, the beginning that
they share is computed once for as many rows as fit, and the head is computed at one position of each row. Floor: each
question's own tokens once, and the examples once a subject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from truetune.data.batches import neighbours
from truetune.data.renderer import Rendered
from truetune.evaluate.benchmarks.ask import Letters
from truetune.model.policy import Policy
from truetune.objectives.objective import Wants

AT_ONCE = 8192
"""Tokens that are computed at once."""


def letter_chances(policy: Policy, rows: Sequence[Rendered], letters: Letters, most: int | None = None) -> np.ndarray:
    """(rows, letters) float32: the log-probability of each letter, among all words of the vocabulary.

    Args:
        rows: of one subject.
        most: so many rows at once; None: as many as have `AT_ONCE` tokens.
    """
    ids = torch.tensor(letters.ids, device=policy.causal.device)

    def read(logits: torch.Tensor, targets: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
        return logits[:, ids] - logits.logsumexp(dim=1, keepdim=True)

    wants = Wants(logp=False, tokens=read)
    with policy.still():
        return np.concatenate([policy.outputs(policy.lay_out(some), wants).tokens.float().cpu().numpy()
                               for some in _together(rows, policy.ways[0].shares, most)])


def _together(rows: Sequence[Rendered], shares: bool, most: int | None) -> Iterator[Sequence[Rendered]]:
    """Rows that are computed at once, in order. shares: what they begin with is computed once."""
    common = _common(rows) if shares else 0
    step = most or len(rows)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        for numbers in neighbours((len(row) - common for row in some), max(AT_ONCE - common, 1)):
            yield some[numbers.start : numbers.stop]


def _common(rows: Sequence[Rendered]) -> int:
    """How many tokens all rows begin with."""
    common = min(map(len, rows))
    for row in rows[1:]:
        apart = np.flatnonzero(rows[0].ids[:common] != row.ids[:common])
        common = int(apart[0]) if len(apart) else common
    return common
