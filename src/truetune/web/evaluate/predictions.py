"""Answers beside those that the data give, a page at a time: searched, ordered, of one evaluation or of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.findings import Both, Words
from truetune.web.evaluate.scores import Answer, Order, answers, chosen
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page

PAGE = 10
"""Answers on a page."""
_SHORT = 300
"""Letters of a text that stand there at once; the rest is folded."""
_ORDERS: dict[Order, Both] = {"data": Both("as in the data", "按数据顺序"),
                              "worst": Both("the worst first", "差的在前"), "best": Both("the best first", "好的在前")}


class Predictions:
    """The table with its search, its order and its pages. folders: the fields that hold the paths of the
    first and the second evaluation, "" for none."""

    def __init__(self, page: Page, folders: Sequence[gr.Dropdown],
                 read: Callable[[str | None], Path | None]):
        """read(typed): the folder that one of `folders` means, None where it is gone."""
        self._read, words = read, page.wording
        with gr.Column(visible=False, elem_id="predictions") as self.place:
            words(gr.Markdown, value=Both("#### Answers, row by row", "#### 逐条回答"))
            with gr.Row():
                self.search = words(gr.Textbox, label=Both("Search in questions and answers", "在问题和回答中搜索"),
                                    elem_id="predictions-search")
                self.order = words(gr.Radio, label=Both("Order", "顺序"), value="data", elem_id="predictions-order",
                                   choices=lambda language: [(say(told, language), name)
                                                             for name, told in _ORDERS.items()])
            self.table = gr.HTML("", elem_id="predictions-table")
            with gr.Row():
                back = words(gr.Button, value=Both("← Back", "← 上一页"), size="sm", elem_id="predictions-back")
                self.number = words(gr.Number, label=Both("Page", "页"), value=1, minimum=1, precision=0, step=1,
                                    elem_id="predictions-page", min_width=80)
                more = words(gr.Button, value=Both("Next →", "下一页 →"), size="sm", elem_id="predictions-next")
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        asked = [*folders, self.search, self.order, self.number, page.language]
        shown = [self.place, self.table, self.number]
        anew = [*(folder.change for folder in folders), self.search.change, self.order.change]
        gr.on(anew, self._anew, asked, shown, trigger_mode="always_last", **quiet)
        self.number.change(self.show, asked, shown, trigger_mode="always_last", **quiet)
        back.click(lambda number: max(1, int(number or 1) - 1), self.number, self.number, **quiet)
        more.click(lambda number: int(number or 1) + 1, self.number, self.number, **quiet)

    def _anew(self, first: str | None, second: str | None, search: str, order: Order, number: float | None,
              language: Language) -> list[Any]:
        """From the first page on: what is shown is something else."""
        return self.show(first, second, search, order, 1, language)

    def show(self, first: str | None, second: str | None, search: str, order: Order, number: float | None,
             language: Language) -> list[Any]:
        """The page with that number, or the last one where there are fewer."""
        folder, other = (self._read(typed) for typed in (first, second))
        everything = answers(folder) if folder else []
        if not everything:
            return [gr.update(visible=False), "", gr.skip()]
        found = chosen(everything, search or "", order)
        last = max(1, -(-len(found) // PAGE))
        wanted = min(max(1, int(number or 1)), last)
        beside = {(each.prompt, each.wanted): each for each in (answers(other) if other else [])}
        html = page_of(found[(wanted - 1) * PAGE : wanted * PAGE], beside if other else None,
                       [_name(folder), _name(other)], language)
        count = Both(f"{len(found):,} of {len(everything):,} answers · page {wanted} of {last}",
                     f"{len(everything):,} 条回答中的 {len(found):,} 条 · 第 {wanted}/{last} 页")
        return [gr.update(visible=True), f"<p>{escape(say(count, language))}</p>{html}", wanted]


def _name(folder: Path | None) -> str:
    return folder.name if folder else ""


def page_of(some: Sequence[Answer], beside: dict[tuple[str, str], Answer] | None, names: Sequence[str],
            language: Language) -> str:
    """Answers as a table. beside: those of the second evaluation to the same questions; None: there is none."""
    columns: list[Words] = ["#", Both("question", "问题"), Both("the data's answer", "参考答案"),
                            Both(f"answer of {names[0]}", f"{names[0]} 的回答")]
    columns += [Both(f"answer of {names[1]}", f"{names[1]} 的回答")] if beside is not None else []
    rows = []
    for each in some:
        cells = [str(each.number), _folded(each.prompt, language, end=True), _folded(each.wanted, language),
                 _said(each, language)]
        other = (beside or {}).get((each.prompt, each.wanted))
        cells += [_said(other, language) if other else "–"] if beside is not None else []
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    head = "".join(f"<th scope=col>{escape(say(column, language))}</th>" for column in columns)
    name = escape(say(Both("answers", "回答"), language))
    return (f'<div class="wide" tabindex="0" role="region" aria-label="{name}"><table class="answers"><thead><tr>{head}'
            f'</tr></thead><tbody>{"".join(f"<tr>{row}</tr>" for row in rows)}</tbody></table></div>')


def _said(each: Answer, language: Language) -> str:
    like = "" if each.like is None else f"<small>BLEU-4 {each.like:.1f}</small>"
    return f"{_folded(each.said, language)}{like}"


def _folded(text: str, language: Language, end: bool = False) -> str:
    """A text, folded where it is long. end: its end is what matters."""
    style = "white-space:pre-wrap;overflow-wrap:anywhere"
    if len(text) <= _SHORT:
        return f'<div style="{style}">{escape(text)}</div>'
    short = f"…{text[-_SHORT:]}" if end else f"{text[:_SHORT]}…"
    more = escape(say(Both("all of it", "全文"), language))
    return (f'<div style="{style}">{escape(short)}</div><details><summary>{more}</summary>'
            f'<div style="{style}">{escape(text)}</div></details>')
