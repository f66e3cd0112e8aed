"""A report as one HTML page that needs nothing else: pictures inside, no script, no font, nothing from a network.

Both languages are in it; a switch shows one of them. Whatever a user or a model wrote is escaped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from truetune.findings import Both
from truetune.report import visible
from truetune.review.blocks import Answers, Block, Cell, Command, Heading, Lines, Picture, Table

_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --page: #fff; --soft: #66666b; --line: #dcdce0; --card: #f7f7f9;
  --good: #14713a; --bad: #b3261e; --middle: #8a5a00; --new: #e7f4ec; --accent: #0b63b5; }
@media (prefers-color-scheme: dark) { :root { --text: #ececf0; --page: #151517; --soft: #a0a0a8; --line: #38383d;
  --card: #1e1e21; --good: #7fd79d; --bad: #ff9a92; --middle: #e3b95c; --new: #17301f; --accent: #7fb8f5; }
  img { filter: invert(.915) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 56rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.6 system-ui, sans-serif; overflow-wrap: break-word; }
body:has(#en:checked) [lang=zh], body:has(#zh:checked) [lang=en] { display: none; }
nav { float: right; font-size: .85rem; } nav label { padding: .3rem .6rem; cursor: pointer; color: var(--soft); }
nav input { position: absolute; opacity: 0; } nav input:checked + span { color: var(--accent); font-weight: bold; }
nav input:focus-visible + span { outline: 2px solid var(--accent); }
h1 { font-size: 1rem; font-weight: normal; color: var(--soft); margin: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
.verdict { font-size: 1.6rem; line-height: 1.3; margin: .8rem 0; color: var(--middle); }
.verdict.learned { color: var(--good); } .verdict.broke, .verdict.overfit { color: var(--bad); }
p { margin: .4rem 0; } small, figcaption, .place { color: var(--soft); font-size: .85rem; }
.then { background: var(--card); border-left: .3rem solid var(--accent); padding: .6rem .9rem; margin: 1rem 0; }
.then ul { margin: 0; padding-left: 1.1rem; } .then b { display: block; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } th { text-align: left; color: var(--soft);
  font-weight: normal; } td, th { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td:first-child, pre { overflow-wrap: anywhere; }
.data { white-space: pre-wrap; } .asked .data, td:nth-child(n+3) .data { overflow-wrap: anywhere; }
.asked { border: 1px solid var(--line); border-radius: .5rem; margin: .7rem 0; }
.asked > p { margin: 0; padding: .5rem .8rem; background: var(--card); border-radius: .5rem .5rem 0 0; }
.said { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); } .said > div { padding: .5rem .8rem; }
.said > div + div { border-left: 1px solid var(--line); } .said > .wanted + div { border-left: 0; }
.said .wanted { grid-column: 1 / -1; border-bottom: 1px solid var(--line); } .said .changed { background: var(--new); }
summary { cursor: pointer; color: var(--accent); padding: .4rem 0; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem;
  white-space: pre-wrap; font: .9rem/1.5 ui-monospace, Menlo, Consolas, monospace; margin: .2rem 0 .8rem; }
@media (max-width: 40rem) { .said { grid-template-columns: minmax(0, 1fr); } .said > div + div { border-left: 0;
  border-top: 1px solid var(--line); } .said .wanted { border-bottom: 0; }
  table, tbody, tr, td { display: block; } thead { display: none; } td { border: 0; padding: .05rem 0; }
  tr { border-bottom: 1px solid var(--line); padding: .4rem 0; } td:first-child { font-weight: bold; } }
"""
_WANTED = Both("the data say", "数据中的回答")
_BEFORE, _AFTER, _SAME = Both("before", "训练前"), Both("after", "训练后"), Both("the same", "相同")
_UNASKED = Both("not asked", "没有提问")


def page(title: Both, blocks: Sequence[Block], folder: Path, chinese: bool) -> str:
    """The whole page. folder: where the pictures lie. chinese: the language that is shown at first."""
    switch = "".join(f'<label><input type="radio" name="language" id="{id}"{" checked" * (chinese == (id == "zh"))}>'
                     f"<span>{name}</span></label>" for id, name in (("en", "English"), ("zh", "中文")))
    return "\n".join([
        f'<!doctype html><html lang="{"zh" if chinese else "en"}"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title[chinese])}</title><style>{_STYLE}</style></head><body>",
        f"<nav>{switch}</nav><h1>{_both(title)}</h1>",
        *(line for block in blocks for line in _block(block, folder)), "</body></html>", ""])


def _both(words: Both) -> str:
    return f'<span lang="en">{escape(words.en)}</span><span lang="zh">{escape(words.zh)}</span>'


def _cell(cell: Cell) -> str:
    return _both(cell) if isinstance(cell, Both) else f'<span class="data">{escape(visible(cell))}</span>'


def _block(block: Block, folder: Path) -> Iterator[str]:
    match block:
        case Heading(words, kind):
            style = f' class="verdict {kind.replace(" ", "-")}"' if kind else ""
            yield f"<h2{style}>{_both(words)}</h2>"
        case Lines(lines, None):
            yield from (f"<p>{_both(words)}</p>" for words in lines)
        case Lines(lines, Both() as title):
            points = "".join(f"<li>{_both(words)}</li>" for words in lines)
            yield f'<div class="then"><b>{_both(title)}</b><ul>{points}</ul></div>'
        case Table(head, rows):
            yield "<table><thead><tr>" + "".join(f"<th>{_cell(cell)}</th>" for cell in head) + "</tr></thead><tbody>"
            yield from ("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            yield "</tbody></table>"
        case Picture(name, caption):
            data = b64encode((folder / name).read_bytes()).decode("ascii")
            yield (f'<figure><img src="data:image/png;base64,{data}" alt="{escape(caption.en)} {escape(caption.zh)}">'
                   f"<figcaption>{_both(caption)}</figcaption></figure>")
        case Answers(asked, folded):
            if folded:
                yield f"<details><summary>{_both(Both(f'{len(asked)} questions', f'{len(asked)} 个问题'))}</summary>"
            for one in asked:
                yield from _asked(*one)
            yield "</details>" * folded
        case Command(words, line):
            yield f"<p>{_both(words)}</p><pre>{escape(line)}</pre>"


def _asked(text: str, place: str | None, wanted: str | None, before: str | None, after: str | None) -> Iterator[str]:
    where = f' <span class="place">{escape(place)}</span>' if place else ""
    yield f'<div class="asked"><p>{_cell(text)}{where}</p><div class="said">'
    if wanted:
        yield f'<div class="wanted"><small>{_both(_WANTED)}</small><br>{_cell(wanted)}</div>'
    same = before is not None and before == after
    yield f"<div><small>{_both(_BEFORE)}</small><br>{_cell(_UNASKED if before is None else before)}</div>"
    yield (f'<div{"" if same else " class=changed"}><small>{_both(_AFTER)}</small><br>'
           f"{_cell(_SAME if same else _UNASKED if after is None else after)}</div></div></div>")
