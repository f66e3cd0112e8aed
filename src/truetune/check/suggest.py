"""What could be set otherwise: every cure that a finding knows, and what would save memory, numbered for `--apply`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from truetune.findings import Both, Finding, Words, spoken, worst_first
from truetune.options.read import as_yaml


@dataclass(frozen=True)
class Suggestion:
    """Options to set. gain: what it brings, in words. saves: bytes of memory. speed: share of the speed it costs
    (negative: it is faster)."""

    cure: Mapping[str, Any]
    gain: Words
    saves: int = 0
    speed: float = 0.0
    source: str | None = None

    def line(self, chinese: bool) -> str:
        what = ", ".join(as_yaml(name, value) for name, value in self.cure.items())
        return f"{'设置' if chinese else 'set'} {what}{'：' if chinese else ': '}{spoken(self.gain, chinese)}"

    def as_dict(self) -> dict[str, Any]:
        return {"set": dict(self.cure), "gain": str(self.gain), "gain_zh": spoken(self.gain, True),
                "saves_bytes": self.saves, "speed_cost": self.speed, "source": self.source}


def rank(findings: Iterable[Finding], savings: Iterable[Suggestion]) -> list[Suggestion]:
    """Cures of the worst findings first, then what saves the most memory for the least speed. Each option once."""
    cures = [Suggestion(finding.cure, Both(f"mends {finding.id}", f"解决 {finding.id}"), source=finding.source)
             for finding in worst_first(findings) if finding.cure]
    ordered = [*cures, *sorted(savings, key=lambda saving: saving.speed / max(saving.saves, 1))]
    kept, taken = [], set()
    for suggestion in ordered:
        key = tuple(sorted((name, str(value)) for name, value in suggestion.cure.items()))
        if key not in taken:
            taken.add(key)
            kept.append(suggestion)
    return kept
