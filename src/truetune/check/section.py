"""One part of the page that a check prints: what was found out, as lines for people and as facts for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from truetune.findings import Finding, Words


@dataclass
class Section:
    """name: its key among the facts of check.json. lines: what, and how much, one line of the page each; a second or
    third line of the same thing has an empty first part. facts: plain JSON values; sizes in bytes, times in seconds,
    shares between 0 and 1."""

    name: str
    title: Words
    lines: list[tuple[Words, Words]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
