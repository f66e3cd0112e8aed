"""A report as Markdown, in one language; the verdict in the other one too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from truetune.findings import Both, spoken
from truetune.report import visible
from truetune.review.blocks import Answers, Block, Cell, Command, Heading, Lines, Picture, Table

_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
_ASKED = (Both("asked", "问题"), Both("the data say", "数据中的回答"), Both("before", "训练前"),
          Both("after", "训练后"))


def markdown(title: Both, blocks: Sequence[Block], chinese: bool) -> str:
    """The whole text."""
    lines = [f"# {plain(spoken(title, chinese))}"]
    for block in blocks:
        lines += ["", *_block(block, chinese)]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Data as Markdown that shows exactly that: no mark, tag or table border works in it, and it stays on its line."""
    shown = _MARKS.sub(r"\\\1", visible(text).replace("\r", "")).replace("&", "&amp;").replace("<", "&lt;")
    return shown.replace(">", "&gt;").replace("\n", " ↵ ").replace("\t", " ")


def _block(block: Block, chinese: bool) -> Iterator[str]:
    match block:
        case Heading(words, kind):
            yield f"## {spoken(words, chinese)}"
            if kind:
                yield from ("", f"*{spoken(words, not chinese)}*")
        case Lines(lines, None):
            yield "\n\n".join(_cell(words, chinese) for words in lines)
        case Lines(lines, Both() as title):
            yield from (f"**{spoken(title, chinese)}**", "", *(f"- {_cell(words, chinese)}" for words in lines))
        case Table(head, rows):
            yield from _table(head, rows, chinese)
        case Picture(name, caption):
            yield from (f"![{spoken(caption, chinese)}]({name})", "", spoken(caption, chinese))
        case Answers(asked):
            wanted = any(answer for _, _, answer, _, _ in asked)
            head = _ASKED if wanted else (_ASKED[0], *_ASKED[2:])
            rows = [[text, *([said or ""] if wanted else []), before or "", after or ""]
                    for text, _, said, before, after in asked]
            yield from _table(head, rows, chinese)
        case Command(words, line):
            fence = "`" * (max(map(len, re.findall("`+", line)), default=2) + 1)
            yield from (f"{spoken(words, chinese)}:" if not chinese else f"{spoken(words, chinese)}：", "",
                        f"{max(fence, '```')}bash", line, max(fence, "```"))


def _table(head: Sequence[Cell], rows: Sequence[Sequence[Cell]], chinese: bool) -> Iterator[str]:
    yield _row(head, chinese)
    yield "|---" * len(head) + "|"
    yield from (_row(row, chinese) for row in rows)


def _row(cells: Sequence[Cell], chinese: bool) -> str:
    return f"| {' | '.join(_cell(cell, chinese) for cell in cells)} |"


def _cell(cell: Cell, chinese: bool) -> str:
    return plain(spoken(cell, chinese))
