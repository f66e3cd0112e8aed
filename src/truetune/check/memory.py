"""PLACEHOLDER so that the rest can be tried: whoever builds the prediction overwrites this file."""

from __future__ import annotations

from typing import Any

Shape = Any


def shape_of(base: Any, config: Any) -> Any:
    return None


def savings(*args: Any) -> list[Any]:
    return []


def memory_section(*args: Any) -> Any:
    raise NotImplementedError
