"""PLACEHOLDER so that the rest can be tried: whoever builds the measurement overwrites this file."""

from __future__ import annotations

from typing import Any

Measured = Any


def measure(*args: Any) -> Any:
    return None
