"""Rows laid end to end: batches without one padding token, and without one prompt computed twice.

Rows of the same place in the data that begin with the same tokens (a chosen and a rejected answer, several answers to
one prompt) can share that beginning: it stands once in the batch, and every row goes on from it as a segment of its
own. A row is then a path through segments; positions go on counting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from truetune.data.messages import NOWHERE
from truetune.data.renderer import Rendered


@dataclass(frozen=True)
class Batch:
    """B rows in S segments, T tokens in all, N of them learned.

    ids: (1, T). positions: (1, T), counted from the beginning of each row. starts: S + 1 borders of the segments in T.
    parents: (S,) the segment that each goes on from; -1: it begins a row.
    sources: (N,) positions in T whose hidden state predicts a learned token. targets: (N,) these tokens.
    weights: (N,) what each counts. rows: (N,) the row it belongs to, in order. ends: (B,) the positions of the rows'
    last tokens. sequences: the rows themselves. columns: what else is known of the learned tokens (N,), of the rows
    (B,) or of all of them ().
    """

    ids: torch.Tensor
    positions: torch.Tensor
    starts: tuple[int, ...]
    parents: tuple[int, ...]
    sources: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor
    ends: torch.Tensor
    sequences: tuple[Rendered, ...]
    columns: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """B."""
        return len(self.sequences)

    @property
    def tokens(self) -> int:
        """T: what is computed."""
        return self.starts[-1]

    def to(self, device: torch.device) -> Batch:
        moved = {name: getattr(self, name).to(device, non_blocking=True)
                 for name in ("ids", "positions", "sources", "targets", "weights", "rows", "ends")}
        columns = {name: column.to(device, non_blocking=True) for name, column in self.columns.items()}
        return replace(self, **moved, columns=columns)

    def knowing(self, **columns: torch.Tensor) -> Batch:
        """The batch with more columns."""
        return replace(self, columns={**self.columns, **columns})


def collate(rows: Sequence[Rendered], share: bool = False) -> Batch:
    """Lay rows end to end. The first token of a row is predicted from nothing, so it is never learned.

    Args:
        share: rows of one place that follow one another share the tokens they begin with.
    """
    pieces: list[np.ndarray] = []  # the tokens of every segment
    offsets: list[int] = []  # the position of its first token in its rows
    parents: list[int] = []
    paths: list[np.ndarray] = []  # where in T the tokens of each row are
    length = 0

    def add(tokens: np.ndarray, offset: int, parent: int) -> np.ndarray:
        nonlocal length
        pieces.append(tokens)
        offsets.append(offset)
        parents.append(parent)
        length += len(tokens)
        return np.arange(length - len(tokens), length)

    for group in _groups(rows, share):
        common = _common(group) if len(group) > 1 else 0
        trunk = add(group[0].ids[:common], 0, -1) if common else np.zeros(0, dtype=np.int64)
        parent = len(pieces) - 1 if common else -1
        paths += [np.concatenate([trunk, add(row.ids[common:], common, parent)]) for row in group]
    learned = [np.flatnonzero(row.weights[1:]) + 1 for row in rows]
    placed = list(zip(rows, paths, learned, strict=True))
    return Batch(
        ids=torch.from_numpy(np.concatenate(pieces).astype(np.int64))[None],
        positions=torch.from_numpy(np.concatenate(
            [np.arange(offset, offset + len(piece)) for piece, offset in zip(pieces, offsets, strict=True)]))[None],
        starts=(0, *np.cumsum([len(piece) for piece in pieces]).tolist()),
        parents=tuple(parents),
        sources=torch.from_numpy(np.concatenate([path[mine - 1] for _, path, mine in placed])),
        targets=torch.from_numpy(np.concatenate([row.ids[mine] for row, _, mine in placed]).astype(np.int64)),
        weights=torch.from_numpy(np.concatenate([row.weights[mine] for row, _, mine in placed])),
        rows=torch.from_numpy(np.repeat(np.arange(len(rows)), [len(mine) for mine in learned])),
        ends=torch.from_numpy(np.array([path[-1] for path in paths])),
        sequences=tuple(rows),
    )


def neighbours(lengths: Iterable[int], most: int = 8192) -> Iterator[range]:
    """The numbers of rows of these lengths, neighbours together, as many as have `most` tokens; one at least. By itself
    enough to keep a processor busy where nothing is learned, in little memory."""
    first = last = tokens = 0
    for last, length in enumerate(lengths):
        if tokens + length > most and last > first:
            yield range(first, last)
            first, tokens = last, 0
        tokens += length
    if tokens:
        yield range(first, last + 1)


def _groups(rows: Sequence[Rendered], share: bool) -> Iterator[list[Rendered]]:
    """Rows that may share their beginning: neighbours of one place."""
    group: list[Rendered] = []
    for row in rows:
        if group and not (share and row.place == group[0].place != NOWHERE):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _common(rows: Sequence[Rendered]) -> int:
    """How many tokens all rows begin with; each keeps one of its own at least."""
    most = min(len(row) for row in rows) - 1
    first = rows[0].ids[:most]
    for row in rows[1:]:
        apart = np.flatnonzero(first != row.ids[: len(first)])
        first = first[: apart[0]] if len(apart) else first
    return len(first)
