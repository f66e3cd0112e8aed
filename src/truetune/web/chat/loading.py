"""The upper part of the Chat tab: what to load, how, and what is loaded, with the memory that it holds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.findings import Both, Finding, refuse
from truetune.web.chat.served import MOST, Address, Model, Models, Speaker, wanted
from truetune.web.errors import in_words
from truetune.web.form import Form, configured
from truetune.web.models import adapters, ggufs, trained
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page

_LOADING, _LOADED = 1.0, 4.0
"""Seconds between two looks at what is loaded: while something loads, and else. A look costs a browser time too."""
HOW = ("template", "infer_backend", "infer_dtype", "quantization_bit", "quantization_method", "infer_maxlen",
       "infer_batch", "rope_scaling", "flash_attn", "tool_format")
"""Options of how a model is loaded."""


class Loading:
    """Picks, loads and unloads; and who of those that are loaded answers.

    Attributes:
        speakers: (first, second): the second answers beside the first, if `compare` is ticked.
    """

    def __init__(self, page: Page, models: Models):
        self._page, self._models = page, models
        self._form = Form(page.wording, "chat-")

    def draw(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self._draw_choice()
            with gr.Column(scale=2, min_width=280, elem_id="chat-loaded"):
                self._draw_loaded()

    def _draw_choice(self) -> None:
        say = self._page.wording
        with gr.Row():
            self._model = say(gr.Dropdown, label=Both("Model", "模型"), choices=[], allow_custom_value=True,
                              info=Both("A folder (a base, a run, a checkpoint, an export), a .gguf file or a hub id.",
                                        "文件夹（基座、运行、检查点或导出结果）、.gguf 文件，或 hub id。"),
                              elem_id="chat-model", min_width=260)
            self._adapters = say(gr.Dropdown, label=Both("Adapters", "适配器"), choices=[], multiselect=True,
                                 allow_custom_value=True, elem_id="chat-adapters", min_width=260,
                                 info=Both("Optional: base and adapter are loaded once, and can be compared.",
                                           "可选。基座和适配器只加载一次，可以互相比较。"))
        self._load = say(gr.Button, value=Both("Load", "加载"), variant="primary", elem_id="chat-load")
        with say(gr.Accordion, label=Both("How to load it", "加载选项"), open=False), gr.Row():
            for name in HOW:
                self._form.draw(name)
        with say(gr.Accordion, label=Both("Or an address (any server that speaks OpenAI's API)",
                                          "或者连接一个地址（兼容 OpenAI API 的服务）"), open=False):
            with gr.Row():
                self._address = say(gr.Textbox, label=Both("Address", "地址"), placeholder="http://127.0.0.1:8000/v1",
                                    elem_id="chat-address", min_width=200)
                self._key = say(gr.Textbox, label=Both("Key", "密钥"), type="password", elem_id="chat-key",
                                placeholder=Both("none, or what the server wants", "没有可不填"), min_width=160)
                self._named = say(gr.Textbox, label=Both("Model's name there", "服务上的模型名"), elem_id="chat-named",
                                  placeholder=Both("the first that it lists", "不填则用它列出的第一个"), min_width=160)
            self._connect = say(gr.Button, value=Both("Connect", "连接"), elem_id="chat-connect")

    def _draw_loaded(self) -> None:
        words = self._page.wording
        self._nothing = words(gr.HTML, value=lambda language: f"<p>{escape(say(_NOTHING, language))}</p>",
                              elem_id="chat-nothing")
        self._cards: list[tuple[gr.Column, gr.HTML, gr.Button, gr.Button]] = []
        for place in range(MOST):
            with gr.Column(visible=False, elem_classes="card", elem_id=f"chat-card-{place}") as column:
                told = gr.HTML()
                with gr.Row():
                    unload = words(gr.Button, value=Both("Unload", "卸载"), size="sm", elem_id=f"chat-unload-{place}")
                    again = words(gr.Button, value=Both("Load again", "重新加载"), size="sm", visible=False,
                                  variant="primary", elem_id=f"chat-reload-{place}")
            self._cards.append((column, told, unload, again))

    def draw_speakers(self) -> None:
        """Who answers; stands above the conversation."""
        words = self._page.wording
        with gr.Row(equal_height=True):
            first = words(gr.Dropdown, label=Both("Who answers", "由谁回答"), choices=[], elem_id="chat-first",
                          min_width=240, scale=3, allow_custom_value=True)  # a speaker that has just been unloaded
            self.compare = words(gr.Checkbox, label=Both("Compare side by side", "并排比较"), elem_id="chat-compare",
                                 min_width=160, scale=1)
            second = words(gr.Dropdown, label=Both("And beside it", "同时由谁回答"), choices=[], visible=False,
                           elem_id="chat-second", min_width=240, scale=3, allow_custom_value=True)
        self.speakers = (first, second)
        self.compare.change(lambda on: gr.update(visible=on), self.compare, second, show_progress="hidden")

    def connect(self) -> None:
        """Wire what was drawn."""
        page, loaded = self._page, gr.State("")
        shown = [self._nothing, *(part for column, told, _, again in self._cards for part in (column, told, again)),
                 *self.speakers]
        asked, timer = gr.State(0), gr.Timer(_LOADING)
        gr.on([loaded.change, asked.change], self._refreshed, [page.language, *self.speakers, self.compare, asked],
              [*shown, asked, timer], trigger_mode="always_last", show_progress="hidden")
        look: dict[str, Any] = {"fn": self._loaded, "inputs": page.language, "outputs": loaded,
                                "show_progress": "hidden", "concurrency_limit": None}
        self._load.click(self._begin, [page.language, self._model, self._adapters, self._form.held], asked
                         ).then(**look)
        self._connect.click(self._reach, [page.language, self._address, self._key, self._named], asked
                            ).then(**look)
        for place, (_, _, unload, reload) in enumerate(self._cards):
            unload.click(in_words(lambda language, place=place: self._on(place, self._models.unload)), page.language,
                         None, concurrency_limit=None).then(**look)
            reload.click(in_words(lambda language, place=place: self._on(place, self._models.reload)), page.language,
                         None, concurrency_limit=None).then(**look)
        timer.tick(**look)
        page.shown_tab.change(lambda name: gr.update(active=name == "chat"), page.shown_tab, timer,
                              show_progress="hidden")
        page.blocks.load(self._choices, page.language, [self._model, self._adapters], show_progress="hidden")
        self._model.focus(self._choices, page.language, [self._model, self._adapters], show_progress="hidden")
        page.blocks.load(**look)
        page.to_chat.change(self._follow, [page.language, page.to_chat], [self._model, asked], show_progress="hidden"
                            ).then(**look)

    # --------------------------------------------------------------------------------------------------- what is done

    @property
    def _begin(self) -> Any:
        @in_words
        def begin(language: Language, model: str | None, adapters: Sequence[str] | None, held: Mapping[str, Any]
                  ) -> int:
            texts = self._form.texts(held)
            refuse(configured(texts)[1])
            places = [self._place(each, "adapter_name_or_path") for each in adapters or ()]
            return self._models.load(wanted(self._place(model, "model_name_or_path"), places, texts)).number
        return begin

    @property
    def _reach(self) -> Any:
        @in_words
        def reach(language: Language, address: str, key: str, named: str) -> int:
            return self._models.load(Address(*((text or "").strip() for text in (address, key, named)))).number
        return reach

    @property
    def _follow(self) -> Any:
        @in_words
        def follow(language: Language, folder: str) -> list[Any]:
            """Another tab, or the command line, wants this model."""
            if not folder:
                return [gr.skip()] * 2
            return [folder, self._models.load(wanted(self._place(folder, "model_name_or_path"), [], {})).number]
        return follow

    def _place(self, typed: str | None, option: str) -> str:
        """What is on this disk as an absolute path below the page's roots; anything else as it was typed: a hub id."""
        typed = (typed or "").strip()
        if typed.startswith(("/", "~", ".")) or (typed and (self._page.roots.home / typed).exists()):
            return str(self._page.roots.inside(typed, option))
        return typed

    def _on(self, place: int, do: Any) -> None:
        """What stands in a card may have gone since the page drew it."""
        models = self._models.all()
        if place < len(models):
            do(models[place].number)

    def _choices(self, language: Language) -> list[Any]:
        """What there is to load; a .gguf file can be typed or picked too."""
        roots = self._page.roots
        models = [*trained(roots, language), *ggufs(roots)]
        return [gr.update(choices=models), gr.update(choices=adapters(roots, language))]

    # --------------------------------------------------------------------------------------------------- what is shown

    def _loaded(self, language: Language) -> str:
        """All that is told of what is loaded. It is looked at every second, into one state alone: what shows it costs a
        browser much more, and is only written when this has changed."""
        return "\n".join([*(card_html(model, language) for model in self._models.all()),
                          *(speaker.id for speaker in self._models.speakers())])

    def _refreshed(self, language: Language, first: str | None, second: str | None, compare: bool, asked: int
                   ) -> list[Any]:
        """All that shows what is loaded. What this page has loaded answers once it is there, or stands beside the
        first in a comparison; what another page has loaded changes nothing of who answers here.

        asked: the number of the model that this page waits for; 0: of none.
        """
        models, speakers = self._models.all(), self._models.speakers()
        updates: list[Any] = [gr.update(visible=not models)]
        for place in range(MOST):
            there = place < len(models)
            over = there and models[place].status in ("failed", "ended")
            updates += [gr.update(visible=there), card_html(models[place], language) if there else "",
                        gr.update(visible=over)]
        choices = [(say(speaker.label, language), speaker.id) for speaker in speakers]
        fresh = _latest([speaker for speaker in speakers if speaker.model.number == asked])
        if not _still(first, speakers) or (fresh and not compare):
            first = fresh or _latest(speakers)
        if not _still(second, speakers) or (fresh and fresh != first):
            others = [each.id for each in speakers if each.id != first]
            second = fresh if fresh in others else next(iter(others), first)
        return [*updates, gr.update(choices=choices, value=first), gr.update(choices=choices, value=second),
                0 if fresh else asked, gr.update(value=_LOADING if _loads(models) else _LOADED)]


_NOTHING = Both("No model is loaded yet. Pick one and press Load; then talk to it below.",
                "还没有加载模型。请选择一个并点击“加载”，然后在下方与它对话。")


def card_html(model: Model, language: Language) -> str:
    """A model in a few lines: what it is, how far it is, what it holds, or why it is gone."""
    title = f"<b>{escape(model.title)}</b>"
    if model.status == "loading":
        words = say(model.said[-1], language) if model.said else ""
        return f'<p>{title} · {escape(say(Both("loading …", "正在加载……"), language))}</p>' \
               f'<p role="status">{escape(words)} ({time.monotonic() - model.begun:.0f} s)</p>'
    if model.status == "ready":
        adapters = "".join(f"<li>+ {escape(name)}</li>" for name in model.names[1:])
        return f'<p>{title} · {escape(say(Both("ready", "就绪"), language))} · {escape(_memory(model, language))}</p>' \
               f'{f"<ul>{adapters}</ul>" if adapters else ""}'
    lines = "".join(f'<p class="error">{escape(_line(finding, language))}</p>' for finding in model.findings)
    state = Both("could not be loaded", "加载失败") if model.status == "failed" else Both("has ended", "已退出")
    return f'<p>{title} · {escape(say(state, language))}</p><div role="alert">{lines}</div>'


def _memory(model: Model, language: Language) -> str:
    if model.memory is None:
        return say(Both("on a server", "在服务器上"), language)
    size = f"{round(model.memory / 1e8) / 10:.1f} GB"  # so coarse that it is not drawn anew with every word
    return say(Both(f"holds {size} of memory", f"占用内存 {size}"), language)


def _line(finding: Finding, language: Language) -> str:
    line = finding.line(language != "en").partition("  ")[2].strip()
    return line if language == "en" else say(Both("", line), language)


def _loads(models: Sequence[Model]) -> bool:
    return any(model.status == "loading" for model in models)


def _still(id: str | None, speakers: Sequence[Speaker]) -> bool:
    return any(speaker.id == id for speaker in speakers)


def _latest(speakers: Sequence[Speaker]) -> str | None:
    """The model that was loaded last, with its first adapter: what somebody has trained."""
    last = [speaker for speaker in speakers if speaker.model is speakers[-1].model]
    return (last[1] if len(last) > 1 else last[0]).id if last else None
