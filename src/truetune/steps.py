"""Which rows each optimizer step learns from, and how many steps there are.

Everything is a function of (rows, options, step), so a resumed run finds its place by counting. No torch is needed to
know it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from truetune.options import Config


@dataclass(frozen=True)
class Packs:
    """Rows that share a batch row. order: (rows,) row numbers, pack after pack. starts: (packs + 1,) borders in it."""

    order: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, pack: int) -> list[int]:
        return self.order[self.starts[pack] : self.starts[pack + 1]].tolist()


_WINDOW = 1000
"""Rows among which packs are filled: enough to leave little room empty, few enough to keep an epoch's order random."""


def pack(lengths: np.ndarray, limit: int, seed: int) -> Packs:
    """Fill packs of at most `limit` tokens by first fit: each row goes into the first pack that has room for it, over
    windows of shuffled rows, the longest of a window first.

    Args:
        lengths: (rows,) tokens of each row.
    """
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    packs: list[list[int]] = []
    for first in range(0, len(shuffled), _WINDOW):
        window = shuffled[first : first + _WINDOW]
        room = np.zeros(0, dtype=np.int64)
        filled: list[list[int]] = []
        for row in window[np.argsort(-lengths[window], kind="stable")].tolist():
            fitting = np.flatnonzero(room >= lengths[row])
            if len(fitting):
                filled[fitting[0]].append(row)
                room[fitting[0]] -= lengths[row]
            else:
                filled.append([row])
                room = np.append(room, limit - lengths[row])
        packs += filled
    sizes = [len(rows) for rows in packs]
    return Packs(np.array([row for rows in packs for row in rows], dtype=np.int64), np.cumsum([0, *sizes]))


def shuffle_seed(config: Config) -> int:
    """The seed of the order of rows."""
    return config.seed if config.data_seed is None else config.data_seed


@dataclass(frozen=True)
class Plan:
    """Which rows every optimizer step learns from. A step is `accumulation` batches of `batch_size` rows (or packs of
    rows); the last step of an epoch takes what is left. scale: how many rows each one stands for, where only the first
    ones are known; then steps can be counted, and there are no batches. per_row: so many sequences, one after the
    other, are a row (a chosen and a rejected answer). steps_per_round: so many steps learn from the same rows, since
    from these answers are written, and these are what is learned from."""

    rows: int
    batch_size: int
    accumulation: int
    epochs: float
    max_steps: int
    seed: int
    shuffle: bool
    packs: Packs | None = None
    scale: float = 1.0
    per_row: int = 1
    steps_per_round: int = 1

    @property
    def sequences(self) -> int:
        """How many sequences a batch has."""
        return self.batch_size * self.per_row

    @property
    def units(self) -> int:
        """Rows, or packs of rows."""
        return round(self.scale * (self.rows if self.packs is None else len(self.packs)))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.units / (self.batch_size * self.accumulation)) * self.steps_per_round

    @property
    def total_steps(self) -> int:
        return self.max_steps if self.max_steps > 0 else math.ceil(self.epochs * self.steps_per_epoch)

    def batches(self, step: int) -> list[list[int]]:
        """The numbers of the sequences of each batch of optimizer step `step` (from 0)."""
        epoch, index = divmod(step // self.steps_per_round, self.steps_per_epoch // self.steps_per_round)
        order = np.arange(self.units)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.units)
        size = self.batch_size * self.accumulation
        chosen = order[index * size : (index + 1) * size].tolist()
        batches = [chosen[start : start + self.batch_size] for start in range(0, len(chosen), self.batch_size)]
        if self.packs is None:
            return [[row * self.per_row + sequence for row in batch for sequence in range(self.per_row)]
                    for batch in batches]
        return [[row for pack in batch for row in self.packs.rows(pack)] for batch in batches]


def warmup_steps(config: Config, total_steps: int) -> int:
    """Steps of warmup: `warmup_steps` (below 1 a share of all), else `warmup_ratio` of all; shares are rounded up."""
    if config.warmup_steps >= 1:
        return int(config.warmup_steps)
    return math.ceil((config.warmup_steps or config.warmup_ratio) * total_steps)


@dataclass(frozen=True)
class Round:
    """Answers of at most `tokens` tokens are written to `prompts` prompts, `answers` to each, and then learned from in
    `steps` optimizer steps. share: of the rounds in which that is so; the others learn from the data's answers."""

    prompts: int
    answers: int
    steps: int
    tokens: int
    share: float = 1.0


def _ppo(config: Config) -> Round:
    """Several batches of answers, each learned from several times."""
    return Round(config.rows_at_once * config.gradient_accumulation_steps * config.ppo_buffer_size, 1,
                 config.ppo_buffer_size * config.ppo_epochs, config.max_completion_length or 0)


def _grpo(config: Config) -> Round:
    """A prompt has `num_generations` answers, and a batch so many answers, not prompts."""
    a_pass = config.steps_per_generation or config.gradient_accumulation_steps
    return Round(max(1, config.rows_at_once * a_pass // config.num_generations), config.num_generations,
                 max(1, a_pass // config.gradient_accumulation_steps) * config.num_iterations,
                 config.max_completion_length or 0)


def _distill(config: Config) -> Round | None:
    """Every step has answers of its own."""
    if not config.lmbda:
        return None
    return Round(config.rows_at_once * config.gradient_accumulation_steps, 1, 1, config.max_completion_length or 0,
                 config.lmbda)


ROUNDS: Mapping[str, Callable[[Config], Round | None]] = {"ppo": _ppo, "grpo": _grpo, "distill": _distill}
"""Stages that learn from answers that the model writes on the way."""


def round_of(config: Config) -> Round | None:
    """How the stage writes answers on the way; None: it learns from the data alone."""
    make = ROUNDS.get(config.stage)
    return make(config) if make else None
