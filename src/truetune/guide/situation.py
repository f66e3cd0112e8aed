"""What is known and what has been chosen so far: what every row of the table of choices looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from truetune.check.machine import size
from truetune.check.memory import Shape, shape_of
from truetune.data.dataset import PER_ROW
from truetune.guide.facts import Facts
from truetune.guide.rates import SWEPT
from truetune.guide.room import Room, find_room, seconds
from truetune.model.methods import METHODS
from truetune.options import OPTIONS, Config

Goal = Literal["style", "knowledge", "preference", "reasoning"]
GOALS: tuple[Goal, ...] = get_args(Goal)
ENOUGH_STEPS = 100
"""Fewer optimizer steps hardly teach anything; see `rows` and `epochs` in the table of choices."""
MOST_EPOCHS = 10
_HELD_OUT = 20
"""Fewer held-out rows say little: their loss jumps with each of them."""


@dataclass
class Situation:
    """values: options by name, those that the user fixed and those chosen so far. fixed: the user's configuration."""

    facts: Facts
    goal: Goal
    fixed: Config
    values: dict[str, Any] = field(default_factory=dict)
    _shapes: dict[str, Shape] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """The value of an option: fixed, chosen, or its default."""
        return self.values.get(name, OPTIONS[name].default)

    def given(self, name: str) -> bool:
        """Whether the user fixed it."""
        return self.fixed.given(name)

    # ---------------------------------------------------------------------------------------------------- method, rows

    @property
    def adapter(self) -> bool:
        """Whether small matrices are trained beside the model, rather than weights of the model itself."""
        return METHODS[self["finetuning_type"]].adapter

    @property
    def judged(self) -> bool:
        """Whether answers are compared or judged, rather than learned."""
        return self.facts.data.kind in ("preferences", "judged")

    @property
    def swept(self) -> tuple[str, float] | None:
        """Name and best rate of this model in the published sweep."""
        return SWEPT.get(self.facts.model.kind)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(rows,) tokens of each row; of a pair both answers."""
        lengths = self.facts.data.lengths
        return lengths.reshape(-1, PER_ROW[self.facts.data.kind]).sum(axis=1)

    @property
    def kept(self) -> float:
        """Share of sequences that are no longer than cutoff_len."""
        return float(np.mean(self.facts.data.lengths <= self["cutoff_len"]))

    @property
    def can_evaluate(self) -> bool:
        """Whether there is something to evaluate on."""
        return bool(self["val_size"] or self["eval_dataset"])

    @property
    def held_out(self) -> int:
        """Rows held out of the data for evaluation."""
        size = self["val_size"]
        return int(size if size >= 1 else size * self.facts.data.rows)

    @property
    def rows(self) -> int:
        """What one epoch learns from: rows, or of plain text blocks of cutoff_len tokens."""
        data = self.facts.data
        if data.kind == "documents" and self["packing"] is not False:
            return max(1, int(data.rows * data.lengths.mean() / self["cutoff_len"]))
        share = 1 - self.held_out / data.rows
        return max(1, round(data.sequences * share * (self.kept if self["overlong"] == "drop" else 1)))

    # ----------------------------------------------------------------------------------------------------------- steps

    @property
    def batch(self) -> int:
        """Rows that each optimizer step learns from."""
        return self["per_device_train_batch_size"] * self["gradient_accumulation_steps"]

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.batch)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self[
            "max_steps"] if self["max_steps"] > 0 else math.ceil(self["num_train_epochs"] * self.steps_per_epoch)

    def wanted_batch(self) -> int:
        """Rows a step, a power of two: as many as the method likes, but so few that five epochs make `ENOUGH_STEPS`."""
        usual = (16 if self.adapter else 64) * (2 if self.rows > 50_000 else 1)
        few = 2 ** int(math.log2(max(1, self.rows * 5 / ENOUGH_STEPS)))
        return min(usual, max(2, few))

    def accumulation(self) -> int:
        """Batches a step, so that it has about as many rows as are wanted."""
        return max(1, round(self.wanted_batch() / self["per_device_train_batch_size"]))

    def wanted_held_out(self) -> int:
        """20 rows, or 5 % where that is more, up to 200; none where they would be a fifth of the data."""
        rows = self.facts.data.rows
        return 0 if rows < 5 * _HELD_OUT else min(max(_HELD_OUT, rows // 20), 200)

    @property
    def tokens(self) -> int:
        """Tokens that go through the model in the whole run."""
        lengths = self.lengths[self.lengths <= self["cutoff_len"] * PER_ROW[self.facts.data.kind]]
        return int((lengths.mean() if len(lengths) else 0) * self.steps * min(self.batch, self.rows))

    # ----------------------------------------------------------------------------------------------------- memory, time

    def shape_for(self, method: str) -> Shape:
        """What of the model matters for memory if it is trained so; worked out once."""
        if method not in self._shapes:
            config = self.fixed.with_values("recipe", **{**self.values, "finetuning_type": method})
            self._shapes[method] = shape_of(self.facts.model.base, config, self.facts.machine.precision)
        return self._shapes[method]

    def room_for(self, method: str) -> Room:
        """What memory allows if the model is trained so."""
        machine = self.facts.machine
        wanted = self["per_device_train_batch_size"] if self.given("per_device_train_batch_size") else \
            self.wanted_batch()
        longest = int(min(self.facts.data.lengths.max(), self["cutoff_len"]))
        return find_room(self.shape_for(method), longest, wanted, machine.free, machine.device,
                         self["gradient_checkpointing"])

    @cached_property
    def room(self) -> Room:
        """What memory allows the method that was chosen."""
        return self.room_for(self["finetuning_type"])

    def seconds(self) -> float:
        """About how long the run takes here."""
        machine = self.facts.machine
        return seconds(self.shape_for(self["finetuning_type"]), self.tokens, machine.flops, machine.precision.dtype,
                       machine.device)

    def words(self) -> Mapping[str, object]:
        """What the reasons may name in braces, as a person reads it; options by their names."""
        data, model, machine = self.facts.data, self.facts.model, self.facts.machine
        lengths = data.lengths
        return {
            **{name: self[name] for name in OPTIONS}, "goal": self.goal,
            "all_rows": f"{data.rows:,}", "rows": f"{self.rows:,}", "batch": self.batch, "steps": f"{self.steps:,}",
            "steps_per_epoch": f"{self.steps_per_epoch:,}", "size": in_short(model.parameters),
            "limit": f"{model.limit:,}", "median": int(np.median(lengths)), "longest": f"{lengths.max():,}",
            "most": f"{int(np.quantile(lengths, 0.995, method='higher')):,}", "lost": f"{100 * (1 - self.kept):.2g} %",
            "need": size(self.room.need),
            "wanted": self.wanted_batch(),
                "at_least": ENOUGH_STEPS,
                    "refused": len(data.refused), "first_refused": data.refused[0].place if data.refused else "",
            "thinking": f"{100 * data.thinking:.0f} %", "measured": machine.measured, "device": machine.device.type,
            "free": size(machine.free), "swept": self.swept[0] if self.swept else "",
            "swept_rate": f"{self.swept[1]:g}" if self.swept else "", "tokens_per_han": f"{data.tokens_per_han:.1f}",
            "looked_at": f"{data.looked_at:,}", "scale": f"{(self['lora_alpha'] or 0) / self['lora_rank']:g}",
        }


def in_short(count: float) -> str:
    """135M, 7.2B."""
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"


def free_folder(wish: Path) -> Path:
    """`wish`, or `wish-2`, `wish-3`, … where something is there already."""
    number, folder = 1, wish
    while folder.exists():
        number += 1
        folder = wish.with_name(f"{wish.name}-{number}")
    return folder
