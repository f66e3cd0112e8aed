"""Tables, findings and file lists as HTML. Everything that comes from files or people is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from truetune.findings import Finding, Words, worst_first
from truetune.web.words import Language, say


def table(columns: Sequence[Words], rows: Iterable[Sequence[Words]], language: Language, *, numbers: Iterable[int] = (),
          caption: Words = "") -> str:
    """A table that scrolls sideways by itself where a phone is narrower.

    Args:
        numbers: columns that are set right.
    """
    right = set(numbers)

    def cells(row: Sequence[Words], tag: str) -> str:
        return "".join(f'<{tag}{" scope=col" if tag == "th" else ""}'
                       f'{" style=text-align:right" if place in right else ""}>{escape(say(cell, language))}</{tag}>'
                       for place, cell in enumerate(row))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    title = f"<caption>{escape(say(caption, language))}</caption>" if caption else ""
    return (f'<div class="wide" tabindex="0" role="region" aria-label="{escape(say(caption or columns[0], language))}">'
            f"<table>{title}<thead><tr>{cells(columns, 'th')}</tr></thead><tbody>{body}</tbody></table></div>")


def findings_list(findings: Iterable[Finding], language: Language) -> str:
    """What was found, the worst first; nothing where there is nothing."""
    lines = [f'<li class="{each.severity}">'
             f'{escape(say(each.line(language != "en"), language))}</li>' for each in worst_first(findings)]
    return f'<ul class="findings" role="status">{"".join(lines)}</ul>' if lines else ""


def paragraph(words: Words, language: Language, kind: str = "") -> str:
    """kind: a class of style.css."""
    return f"<p{f' class={kind}' if kind else ''}>{escape(say(words, language))}</p>"


def size_of(count: float) -> str:
    """Bytes as people read them: `141.6 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:,.0f} B"
