"""What `asked` tells, as plain data: it crosses to a process that has no torch, and is drawn there in any language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from truetune.findings import Both, Finding, Words

Verdict = Literal["fits", "tight", "too big"]
Line = tuple[Words, Words]
"""What, and how much."""


@dataclass(frozen=True)
class Proposal:
    """Options to set, and what that brings."""

    cure: Mapping[str, Any]
    gain: Words


@dataclass(frozen=True)
class Told:
    """The whole check. rows: the first ones as they are trained on (`look.preview` says in which shape)."""

    findings: list[Finding]
    sections: list[tuple[str, Words, list[Line]]]
    rows: list[dict[str, Any]]
    proposals: list[Proposal]


@dataclass(frozen=True)
class Estimate:
    """What a run needs. peak, free, total: bytes of the memory that computes, `gpu` or not; parts: of the peak, by what
    takes them; seconds: of the whole run; steps: optimizer steps; trained, parameters: how many weights. proposals:
    what would save memory."""

    verdict: Verdict
    gpu: bool
    peak: int
    free: int
    total: int
    parts: dict[str, tuple[Both, int]]
    phase: Both
    seconds: float
    steps: int
    tokens: int
    rows: int
    batch: int
    parameters: int
    trained: int
    checkpointing: bool
    proposals: list[Proposal]


@dataclass(frozen=True)
class Example:
    """A conversation as the template of a run writes it. name: of the template, None for the model's own. row: None
    where there is no conversation to write (pre-training). stops: the tokens at which the model stops."""

    name: str | None
    row: dict[str, Any] | None
    stops: list[str]
    findings: list[Finding]


@dataclass(frozen=True)
class Shown:
    """Some rows of the data, from number `first` of `rows` on."""

    first: int
    rows: int
    previews: list[dict[str, Any]]
    left_out: list[tuple[str, Words]]
    findings: list[Finding]


@dataclass(frozen=True)
class Suggested:
    """Settings for a model and data. chosen: option, value, why, and the key or words of who says so."""

    goal: str
    chosen: list[tuple[str, Any, Both, str]]
    findings: list[Finding]
