"""What the Train tab finds out about the run in the form, through the worker: memory and time while somebody types, the
check and suggested settings on a click, the chat template and the rows in folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.findings import Both, Say, Words
from truetune.web.errors import in_words
from truetune.web.form import Form, as_texts
from truetune.web.train import checking, panel
from truetune.web.words import Language, say
from truetune.web.worker import Overtaken

if TYPE_CHECKING:
    from truetune.web.page import Page

CURES = 6
"""Buttons for what the check suggests."""
_ROWS = 3
"""Rows of data that are shown at once."""
_QUIET: Mapping[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class Looks:
    """Draw each part where it shall stand, then `connect`."""

    def __init__(self, page: Page, form: Form):
        self._page, self._form = page, form
        self._cures = gr.State([])

    def draw_estimate(self) -> None:
        """Memory and time."""
        self.estimate = _html("train-estimate")

    def draw_actions(self) -> None:
        """The check, suggested settings, and what they say."""
        said = self._page.wording
        with gr.Row(elem_classes="fields"):
            self.check = said(gr.Button, value=Both("Check", "检查"), size="md", elem_id="train-check")
            self.suggest = said(gr.Button, value=Both("Suggest settings", "推荐参数"), size="md",
                                elem_id="train-suggest")
        self.goal = said(gr.Dropdown, label=Both("What should it learn? (for Suggest settings)",
                                                 "想让它学什么？（用于推荐参数）"),
                         value="", choices=_goals, elem_id="train-goal")
        self.result = _html("train-result")
        with gr.Row(elem_id="train-cures"):
            self.cures = [gr.Button(visible=False, size="sm", elem_id=f"train-cure-{number}")
                          for number in range(CURES)]

    def draw_template(self) -> None:
        """How a conversation is written."""
        words = Both("How a conversation is written (template)", "对话模板的实际效果")
        with self._page.wording(gr.Accordion, label=words, open=False,
                                elem_id="train-template") as self.template_fold:
            self.template = _html("train-template-text")

    def draw_rows(self) -> None:
        """What is learned from the data."""
        said = self._page.wording
        with said(gr.Accordion, label=Both("Look at the rows and what is learned of them", "预览数据与学习内容"),
                  open=False, elem_id="train-rows") as self.rows_fold:
            self.first = gr.State(0)
            with gr.Row(elem_classes="fields"):
                self.back = said(gr.Button, value=Both("← Back", "← 上一页"), size="sm", elem_id="train-rows-back")
                self.next = said(gr.Button, value=Both("Next →", "下一页 →"), size="sm", elem_id="train-rows-next")
            self.rows = _html("train-rows-text")

    def follow(self, updated: Any) -> None:
        """Reckon again once the event `updated` is done."""
        updated.then(self._estimate, [self._page.language, self._form.held], self.estimate,
                     trigger_mode="always_last", concurrency_limit=4, **_QUIET)

    def connect(self) -> None:
        """What the buttons and folds do."""
        page, form = self._page, self._form
        every = [page.language, form.held]
        told = [self.result, self._cures, *self.cures]
        self.check.click(self._checked, every, told, api_visibility="private")
        self.suggest.click(self._suggested, [*every, self.goal], [*told, *form.components], api_visibility="private")
        for number, button in enumerate(self.cures):
            button.click(self._cured(number), [self._cures, form.held], form.components, **_QUIET)
        self.template_fold.expand(self._template, every, self.template, api_visibility="private")
        turned = ((self.rows_fold.expand, 0), (self.back.click, -_ROWS), (self.next.click, _ROWS))
        for event, by in turned:
            event(self._turned(by), [page.language, self.first, form.held], [self.rows, self.first],
                  api_visibility="private")

    def _estimate(self, request: gr.Request, language: Language, held: Mapping[str, Any]) -> Any:
        """Memory and time; an older one of this browser that still waits is dropped."""
        try:
            return checking.estimate(self._page, self._form.texts(held), language, latest=str(request.session_hash))
        except Overtaken:
            return gr.skip()

    @in_words
    def _checked(self, language: Language, held: Mapping[str, Any]) -> list[Any]:
        """The page of `truetune check`."""
        found = checking.check_page(self._page, self._form.texts(held), language, _told(language))
        return self._result(found.html, found.cures, language)

    @in_words
    def _suggested(self, language: Language, held: Mapping[str, Any], goal: str | None) -> list[Any]:
        """Fill the form with settings for this model, data and machine, and say why."""
        texts = self._form.texts(held)
        chosen, html = checking.recipe(self._page, texts, goal or "", language, _told(language))
        return [*self._result(html, [], language), *self._form.filled({**texts, **chosen}, held)]

    def _result(self, html: str, cures: list[Mapping[str, Any]], language: Language) -> list[Any]:
        shown = [gr.update(value=panel.cure_label(cure, language), visible=True) for cure in cures[:CURES]]
        return [html, cures[:CURES], *shown, *[gr.update(visible=False)] * (CURES - len(shown))]

    def _cured(self, number: int) -> Callable[..., Any]:
        """A handler that takes what a button suggests."""
        def handler(cures: list[Mapping[str, Any]], held: Mapping[str, Any]) -> list[Any]:
            cure = cures[number] if number < len(cures) else {}
            return self._form.filled({**self._form.texts(held), **as_texts(cure)}, held)
        return handler

    @in_words
    def _template(self, language: Language, held: Mapping[str, Any]) -> str:
        return checking.template_example(self._page, self._form.texts(held), language)

    def _turned(self, by: int) -> Callable[..., Any]:
        """A handler that shows rows further on or back."""
        @in_words
        def handler(language: Language, first: int, held: Mapping[str, Any]) -> tuple[str, int]:
            texts = self._form.texts(held)
            html, shown, _ = checking.data_preview(self._page, texts, language, max(0, first + by), _ROWS)
            return html, shown
        return handler


def _html(name: str) -> gr.HTML:
    return gr.HTML(elem_id=name, css_template=checking.STYLE)


def _told(language: Language) -> Say:
    """Words of progress over what is being worked out."""
    progress = gr.Progress()

    def tell(words: Words) -> None:
        progress(None, desc=say(words, language))
    return tell


def _goals(language: Language) -> list[tuple[str, str]]:
    return [(say(words, language), goal) for goal, words in GOALS.items()]


GOALS: Mapping[str, Both] = {
    "": Both("what the data look like", "由数据判断"), "style": Both("a way to answer", "回答的风格"),
    "knowledge": Both("knowledge", "知识"), "preference": Both("which answers are better", "偏好（哪个回答更好）"),
    "reasoning": Both("to think first", "先思考再回答")}
"""What `guide.recipe` can be asked for, in words; "": it decides by the data."""
