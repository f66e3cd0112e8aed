"""The page as a whole: its head, its tabs, and what they tell one another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.themes import Base

from truetune import __version__
from truetune.findings import Both
from truetune.jobs.queue import Queue
from truetune.web.chat import tab as chat
from truetune.web.chat.served import Models
from truetune.web.data import tab as data
from truetune.web.evaluate import tab as evaluate
from truetune.web.export import tab as export
from truetune.web.roots import Roots
from truetune.web.runs import tab as runs
from truetune.web.train import tab as train
from truetune.web.words import HTML_NAMES, LANGUAGES, NAMES, Language, Wording
from truetune.web.worker import Worker


@dataclass
class Page:
    """What every tab is built with.

    wording: says everything in the page's language; language: which that is, an input of every handler that answers in
    words. roots: the folders that the page may touch. queue: where work is handed in. worker: does in a process of its
    own what needs torch. models: those to talk to. blocks: the page itself, for what happens when it is opened. tabs:
    `gr.update(selected="runs")` of them shows another tab. shown_tab: the name of the one that is seen.

    What tabs tell one another goes through states: the one that changes them says what to do, the one that listens
    (`page.shown_run.change(…)`) does it. shown_run: the folder of the run to show. settings: options to fill the
    training form with. to_train: options of it to change, the rest stays as it was typed. to_chat, to_export: a run's,
    checkpoint's or model's folder.

    drafts: what was typed in a tab, for a page that is loaded again. They stand outside the tabs: Gradio reads only
    what it draws, and it draws the tab that is shown.
    """

    wording: Wording
    roots: Roots
    queue: Queue
    worker: Worker
    models: Models
    language: gr.State
    blocks: gr.Blocks
    tabs: gr.Tabs = field(init=False)
    shown_tab: gr.State = field(default_factory=lambda: gr.State(""))
    shown_run: gr.State = field(default_factory=lambda: gr.State(""))
    settings: gr.State = field(default_factory=lambda: gr.State({}))
    to_train: gr.State = field(default_factory=lambda: gr.State({}))
    to_chat: gr.State = field(default_factory=lambda: gr.State(""))
    to_export: gr.State = field(default_factory=lambda: gr.State(""))
    drafts: Mapping[str, gr.BrowserState] = field(default_factory=lambda: {
        name: gr.BrowserState({}, storage_key=f"truetune-{name}", secret="truetune")
        for name in ("evaluate", "export")})


TABS: Mapping[str, tuple[Both, Callable[[Page], None]]] = {
    "train": (Both("Train", "训练"), train.build),
    "runs": (Both("Runs", "运行"), runs.build),
    "chat": (Both("Chat", "对话"), chat.build),
    "evaluate": (Both("Evaluate", "评测"), evaluate.build),
    "export": (Both("Export", "导出"), export.build),
    "data": (Both("Data", "数据"), data.build),
}


_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "PingFang SC", "PingFang TC", "Microsoft YaHei",
          "Microsoft JhengHei", "Noto Sans CJK SC", "Noto Sans", "sans-serif")
_AT_ONCE = """
window.openedTab = location.hash.slice(1);
document.addEventListener("click", event => {
  if (!event.target.closest("#shade")) return;
  localStorage.setItem("truetune-shade", document.body.classList.toggle("dark") ? "dark" : "light");
});
"""
"""Before Gradio draws anything, and by that calls the first tab the selected one: which tab is asked for, and the
switch between light and dark."""
_ON_LOAD = """() => {
  const kept = localStorage.getItem("truetune-shade");
  if (kept) document.body.classList.toggle("dark", kept === "dark");
  document.documentElement.lang = "LANGUAGE";
}"""
"""Of the language for screen readers, and for the shapes of letters that Chinese and Japanese share."""
_TO_LANGUAGE = """language => {
  document.cookie = `truetune-language=${language}; Max-Age=31536000; Path=/; SameSite=Strict`;
  location.href = `../${language}/${location.hash}`;
}"""
_OPEN_TAB = """() => {
  const name = window.openedTab, another = NAMES.indexOf(name) > 0;
  if (!another) window.openedTab = "";
  return another ? [{__type__: "update", selected: name}] : [];
}"""
"""By the browser alone: asked of the server, the answer came after somebody had chosen another tab."""
_NOTE_TAB = """() => {
  if (window.openedTab && window.openedTab !== "NAME") return;
  window.openedTab = "";
  history.replaceState(null, "", "#NAME");
}"""
"""The tab stands in the address, so that it is there again after a reload and in another language; also where that
comes before the page is done: Gradio selects the first tab at some moment, before or after the one asked for."""

_LOOKS: Mapping[str, Any] = {
    "theme": Base(primary_hue="blue", neutral_hue="slate", font=_FONTS, spacing_size="sm", text_size="md",
                            font_mono=("ui-monospace", "Consolas", "Noto Sans Mono", "monospace")).set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_700", block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200", block_info_text_color="*neutral_600",
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700", button_primary_text_color="white",
        input_placeholder_color="*neutral_600", input_placeholder_color_dark="*neutral_400"),
    "css_paths": Path(__file__).with_name("style.css"), "head": f"<script>{_AT_ONCE}</script>"}
"""Fonts are the system's: nothing is fetched from elsewhere."""


def looks(language: Language) -> dict[str, Any]:
    """How a page looks, as `gr.mount_gradio_app` takes it."""
    return {**_LOOKS, "js": _ON_LOAD.replace("LANGUAGE", HTML_NAMES[language])}


def build(roots: Roots, queue: Queue, worker: Worker, models: Models, language: Language,
          names: Sequence[str]) -> gr.Blocks:
    """The page in a language, with the tabs `names`."""
    wording = Wording(language)
    with gr.Blocks(title="truetune", analytics_enabled=False) as blocks:
        with gr.Row(elem_id="head"):
            gr.HTML(f"<h1>truetune <small>{__version__}</small></h1>")
            wording(gr.Button, value=Both("Light / dark", "浅色 / 深色"), size="sm", elem_id="shade")
            picked = gr.Dropdown([(NAMES[name], name) for name in LANGUAGES], value=language, label="Language · 语言",
                                 elem_id="language", container=False, filterable=False)
        picked.input(None, picked, None, js=_TO_LANGUAGE)
        page = Page(wording, roots, queue, worker, models, gr.State(language), blocks)
        with gr.Tabs() as page.tabs:
            for name in names:
                title, fill = TABS[name]
                with wording(gr.Tab, label=title, id=name) as tab:
                    fill(page)
                tab.select(None, None, None, js=_NOTE_TAB.replace("NAME", name))
                tab.select(lambda name=name: name, None, page.shown_tab, show_progress="hidden")
        blocks.load(None, None, page.tabs, js=_OPEN_TAB.replace("NAMES", json.dumps(list(names))))
        _hush(blocks, picked)
    return blocks


def _hush(blocks: gr.Blocks, anything: Component) -> None:
    """Gradio tells every output of a handler when that begins and ends, also where no progress is shown, and looks for
    each of them in the whole page: with a form of hundreds of fields the browser stood still for half a minute.
    Handlers that show no progress have `anything` told instead, those that fill the form their first output."""
    for handler in blocks.fns.values():
        if handler.show_progress == "hidden":
            handler.show_progress_on = [anything]
        elif len(handler.outputs) > _WIDE:
            handler.show_progress_on = [next(part for part in handler.outputs if isinstance(part, Component))]


_WIDE = 20
"""Outputs beyond which an event counts as one that fills a form."""
