"""The page of a check, on a terminal."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from truetune.check.examine import Checked
from truetune.check.section import Section
from truetune.findings import Both, spoken
from truetune.look.show import first_rows
from truetune.report import Terminal, print_rows

ROWS, LETTERS = 3, 600
"""How many rows are shown in colour, and how many letters of each piece of them."""


def print_page(checked: Checked, terminal: Terminal) -> None:
    """Sections, three rows as they are trained on, and what could be set otherwise. Findings are printed by whoever
    called: they stand last, where they are read."""
    for section in checked.sections:
        print_section(section, terminal)
        if section.name == "data" and checked.ready:
            ready = checked.ready
            rows = first_rows(ready.train, ROWS, ready.renderer, ready.config)
            print_rows(rows, terminal, most=LETTERS)
    if checked.suggestions:
        terminal.print(Text(spoken(Both("Suggestions (--apply N writes one into the file)",
                                        "建议（--apply N 把其中一条写入文件）"), terminal.chinese), "bold"))
        for number, suggestion in enumerate(checked.suggestions, 1):
            terminal.print(Text(f"  {number:>2}  {suggestion.line(terminal.chinese)}"))
        terminal.print()


def print_section(section: Section, terminal: Terminal) -> None:
    """Its title, and its lines as two columns."""
    terminal.print(Text(spoken(section.title, terminal.chinese), "bold"))
    lines = [(spoken(what, terminal.chinese), spoken(much, terminal.chinese)) for what, much in section.lines]
    width = max((cell_len(what) for what, _ in lines), default=0)
    for what, much in lines:
        terminal.print(Text.assemble("  ", (what, "dim"), " " * (width - cell_len(what) + 2), much))
    terminal.print()
