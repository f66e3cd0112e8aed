"""What a rule about options is: data, not code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from truetune.findings import Severity, Words
from truetune.options import Config


@dataclass(frozen=True)
class Rule:
    """`when(config)` true: tell `message`, filled with the configuration's values, about `option`. `verbs`: for which
    commands. source: a key of `options.sources.SOURCES`. cure(config): options that mend it, if there is one way to."""

    id: str
    option: str
    when: Callable[[Config], bool]
    severity: Severity
    message: Words
    fix: Words = ""
    verbs: tuple[str, ...] = ("train", "check")
    source: str | None = None
    cure: Callable[[Config], Mapping[str, Any]] | None = None
