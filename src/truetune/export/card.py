"""What the model card of an export says beside what the model is: its files, how to run it, and what was proven."""

from __future__ import annotations

from pathlib import Path

from truetune.exported import commands
from truetune.parity.report import Parity


def card_sections(folder: Path, name: str, parity: Parity) -> list[str]:
    """Lines of Markdown for what lies in `folder`. name: of the export, as a user has it."""
    return [*how_to_run(folder, name), *parity.markdown()]


def how_to_run(folder: Path, name: str) -> list[str]:
    """One command for each form that is there."""
    found = commands(folder, name)
    lines = ["## How to run it", ""] if found else []
    for tool, words in found:
        lines += [f"{tool}:", "", "```", *words, "```", ""]
    return lines
