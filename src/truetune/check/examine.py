"""The whole check, top to bottom: what a run needs is gathered, every part of the page is worked out, and what could be
set otherwise is ranked. `truetune check` prints it; `truetune train` does it before it loads a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from truetune.check.machine import Sizes, disk_section, machine_section
from truetune.check.measure import Measured, measure
from truetune.check.memory import Shape, shape_of
from truetune.check.pace import tokens_per_second
from truetune.check.preflight import Preflight, preflight
from truetune.check.room import Batches, Device, memory_section, savings
from truetune.check.rows import data_section
from truetune.check.schedule import Pace, schedule_section
from truetune.check.section import Section
from truetune.check.suggest import Suggestion, rank
from truetune.check.template import template_section
from truetune.findings import Both, Finding, Problem, Say, status_of, worst_first
from truetune.model.precision import Precision, matmul_rate, pick_device, pick_precision, resolve
from truetune.options import Config
from truetune.rules import derive
from truetune.run import refusals

SAMPLE = 20_000
"""Rows of a data set that a check tokenises: a second or two. A training tokenises all of them."""


@dataclass
class Checked:
    """What a check found. ready: None where the run cannot start."""

    findings: list[Finding] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    suggestions: list[Suggestion] = field(default_factory=list)
    ready: Preflight | None = None

    def as_dict(self) -> dict[str, Any]:
        """The shape of `check --json` and check.json."""
        basics = self.ready.facts if self.ready else {}
        return {"status": status_of(self.findings), "findings": [finding.as_dict() for finding in self.findings],
                "facts": {**basics, **{section.name: section.facts for section in self.sections}},
                "suggestions": [suggestion.as_dict() for suggestion in self.suggestions]}


def check(config: Config, findings: Sequence[Finding], say: Say, measured: bool = False) -> Checked:
    """Everything that can be known before training, from a sample of large data. Never raises for what is wrong with
    a run: that is among the findings.

    Args:
        findings: what the options alone have told already.
        measured: take one real step too.
    """
    try:
        device = pick_device(config)
        config = resolve(derive(config), pick_precision(config, device))
        ready = preflight(config, say, most=SAMPLE)
    except Problem as problem:
        checked = Checked([*findings, *problem.findings, *refusals(config)], _sizes_alone(config))
        checked.findings = worst_first([*checked.findings, *(f for part in checked.sections for f in part.findings)])
        return checked
    return examine(ready, [*findings, *refusals(config)], say, measured)


def examine(ready: Preflight, findings: Sequence[Finding], say: Say, measured: bool = False) -> Checked:
    """The page about a run that can start.

    Args:
        findings: what is known already beside `ready.findings`.
    """
    config, checked = ready.config, Checked(ready=ready)
    device = pick_device(config)
    precision = pick_precision(config, device)
    told = [*findings, *ready.findings]
    shape: Shape | None = None
    saving: list[Suggestion] = []
    try:
        shape = shape_of(ready.base, config, precision)
    except Problem as problem:
        told += problem.findings
    taken = measure(config, say) if measured else None
    parts: list[Callable[[], Section]] = [
        lambda: data_section(ready, config), lambda: template_section(ready, config),
        lambda: schedule_section(ready.plan, config, round(ready.facts["tokens"] * ready.data.scale),
                                 _pace(shape, taken, device, precision)),
    ]
    if shape is not None:
        known, batches = shape, Batches.of(ready.train, config)
        room = Device.here(device)
        parts += [lambda: memory_section(known, batches, config, room, taken),
                  lambda: disk_section(config, ready.plan, _sizes(known))]
        saving = savings(shape, batches, config, room)
    parts.append(lambda: machine_section(config))
    for part in parts:
        try:
            checked.sections.append(part())
        except Problem as problem:
            told += problem.findings
        except Exception as error:  # a page about what is wrong must not fail on it: the other parts are worth reading
            told.append(Finding("not-checked", "warn", Both(
                f"a part of the check failed ({type(error).__name__}: {error}).",
                f"检查的一部分失败了（{type(error).__name__}: {error}）。"), fix=Both(
                "Please report this with the files that lead to it.", "请连同相关文件一起反馈这个问题。")))
    for section in checked.sections:
        told += section.findings
    checked.findings = worst_first(told)
    checked.suggestions = rank(checked.findings, saving)
    return checked


def _sizes_alone(config: Config) -> list[Section]:
    """Memory where the run cannot start, but there is a config.json: for rows of cutoff_len."""
    base = Path(config.model_name_or_path or "").expanduser()
    if not (base / "config.json").is_file() or config.per_device_train_batch_size == "auto":
        return []
    device = pick_device(config)
    try:
        shape = shape_of(base, config, pick_precision(config, device))
    except Problem:
        return []
    lengths = np.full(config.rows_at_once, config.cutoff_len)
    return [memory_section(shape, Batches(lengths, learned=0.5), config, Device.here(device))]


def _pace(shape: Shape | None, taken: Measured | None, device: torch.device, precision: Precision) -> Pace | None:
    """Tokens a second: measured, or reckoned from the speed of a matrix product."""
    if taken and taken.tokens_per_second:
        return Pace(taken.tokens_per_second, measured=True)
    if shape is None:
        return None
    flops = matmul_rate(precision.dtype, device, seconds=0.1)
    return Pace(tokens_per_second(shape, flops, precision.dtype, device), measured=False)


def _sizes(shape: Shape) -> Sizes:
    """What is written: an adapter in float32, or the whole model as it is held; AdamW's two moments, and the float32
    copies, of what is trained."""
    saved = 4 * shape.trained if shape.adapter else shape.weight_bytes
    return Sizes(saved, (8 + 4 * shape.master) * shape.trained, shape.parameters)
