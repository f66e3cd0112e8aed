"""The Train tab: what to train, on what, with which numbers; what is wrong with it, what it needs, and Start.

Basic options first, the others folded by group, all of them found by what they do. What the form holds is one table of
texts (`form.Texts`); everything beside it is worked out of that, anew after every change (`live`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.findings import Both, Problem
from truetune.options import GROUPS, OPTIONS
from truetune.web.errors import in_words, show_findings, toast
from truetune.web.form import Form, as_file, as_texts
from truetune.web.train.live import Live, Seen, state_of
from truetune.web.train.looks import Looks
from truetune.web.train.pickers import Pickers
from truetune.web.train.settings import THERE, load, save
from truetune.web.train.starting import start
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page

SECTIONS: tuple[tuple[Both, tuple[str, ...]], ...] = (
    (Both("1. Model", "1. 模型"), (
        "model_name_or_path", "stage", "finetuning_type", "adapter_name_or_path", "template", "quantization_bit",
        "quantization_method", "rope_scaling", "flash_attn")),
    (Both("2. Data", "2. 数据"), (
        "dataset_dir", "dataset", "identity_name", "identity_author", "val_size", "eval_dataset", "max_samples",
        "cutoff_len")),
    (Both("3. Training", "3. 训练"), (
        "learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "lora_rank",
        "lora_alpha", "bf16", "teacher_model", "reward_funcs", "reward_model", "num_generations",
        "max_completion_length", "pref_beta", "pref_loss")),
)
"""What everybody looks at, in the order of LLaMA-Factory's page."""
GROUP_TITLES = ("Model", "Quantization", "Data", "Method", "Loss", "Preference", "Reward", "Rollouts", "Training",
           "Optimizer", "Parallel", "Tracking", "Hub", "Generation")
"""The groups of options that a training has, by title."""
_DEMO = {"model_name_or_path": "bundled/smollm2-135m-instruct", "dataset": "identity", "identity_name": "Ada",
         "identity_author": "the workshop", "learning_rate": "1e-3", "num_train_epochs": "8",
         "per_device_train_batch_size": "8", "before_after": "false"}
"""A first run: the model that comes with truetune learns who it is, in minutes on any machine."""


_FIRST = Both("New here? Fill in a first run: a small model learns its name, in minutes",
              "第一次用？填入示例：让小模型学会自己的名字，几分钟完成")


def basic() -> list[str]:
    """The options that are always seen: those of the sections, and every other basic one of a training."""
    named = [name for _, names in SECTIONS for name in names]
    rest = [name for name in of_training() if OPTIONS[name].text.level == "basic" and name not in named]
    return [*named, *(name for name in rest if name != "output_dir"), "output_dir"]


def of_training() -> list[str]:
    """Options of a training that do something. Secrets are set in the environment, never on the page."""
    groups = {group for group in GROUPS if group.title[0] in GROUP_TITLES}
    return [option.name for option in OPTIONS.values()
            if option.group in groups and option.works and not option.text.secret]


def build(page: Page) -> None:
    """Fill the tab."""
    Tab(page)


class Tab:
    """The form at the left, what follows from it at the right; on a phone below one another."""

    def __init__(self, page: Page):
        self._page, self._form = page, Form(page.wording)
        self.looks, self.pickers = Looks(page, self._form), Pickers(page, self._form)
        self._draw()
        self._connect()

    # ---------------------------------------------------------------------------------------------------- what is there

    def _draw(self) -> None:
        said = self._page.wording
        with gr.Row(elem_id="train", equal_height=False):
            with gr.Column(scale=7, min_width=300, elem_id="train-form"):
                self.demo = said(gr.Button, value=_FIRST, size="md", elem_id="train-demo")
                self._draw_sections()
                search, answered, groups = self._draw_others()
                self.live = Live(self._page, self._form, basic(), search, answered, groups)
                self._draw_files()
            with gr.Column(scale=4, min_width=280, elem_id="train-side"):
                with gr.Column(elem_id="train-actions"):
                    self.start = said(gr.Button, value=Both("Start training", "开始训练"), variant="primary", size="lg",
                                      elem_id="train-start")
                self.live.draw_before()
                self.live.draw_side()
                self.looks.draw_estimate()
                self.looks.draw_actions()

    def _draw_sections(self) -> None:
        drawn = basic()
        rest = [name for name in drawn if not any(name in names for _, names in SECTIONS)]
        looks = (self.looks.draw_template, self.looks.draw_rows)
        for number, (title, names) in enumerate(SECTIONS):
            self._heading(title)
            with gr.Row(elem_classes="fields"):
                for name in (*names, *(rest if number == len(SECTIONS) - 1 else ())):
                    self._form.draw(name, **self.pickers.settings(name))
            if number < len(looks):
                looks[number]()

    def _heading(self, title: Both) -> None:
        self._page.wording(gr.Markdown, value=lambda language: f"### {say(title, language)}")

    def _draw_others(self) -> tuple[gr.Textbox, gr.HTML, dict[str, tuple[gr.Accordion, Sequence[str]]]]:
        """All other options by group, and the search over everything."""
        said = self._page.wording
        self._heading(Both("4. Everything else", "4. 其他设置"))
        search = said(gr.Textbox, label=Both("Type what you want to change", "输入你想调整的内容"),
                      placeholder=Both("overfit, memory, faster, save, seed …", "过拟合、显存、速度、保存、随机种子……"),
                      elem_id="train-search", max_lines=1)
        answered = gr.HTML(elem_id="train-found")
        groups: dict[str, tuple[gr.Accordion, Sequence[str]]] = {}
        for group in (group for group in GROUPS if group.title[0] in GROUP_TITLES):
            names = [name for name in of_training() if name in group.model_fields and name not in self._form.fields]
            if names:
                with said(gr.Accordion, label=Both(*group.title), open=False,
                          elem_id=f"group-{group.title[0].lower()}") as fold, gr.Row(elem_classes="fields"):
                    for name in names:
                        self._form.draw(name, visible=False)
                groups[group.title[0]] = (fold, names)
        return search, answered, groups

    def _draw_files(self) -> None:
        said = self._page.wording
        self._heading(Both("Settings as a file", "配置文件"))
        with said(gr.Accordion, label=Both("Preview, save, load, share", "预览、保存、加载、分享"), open=False,
                  elem_id="train-files"):
            self.live.draw_files()
            with gr.Row(elem_classes="fields"):
                self.name = said(gr.Textbox, label=Both("Save as", "保存为"), value="train.yaml", max_lines=1,
                                 elem_id="train-save-as")
                self.save = said(gr.Button, value=Both("Save", "保存"), elem_id="train-save")
            with gr.Row(elem_classes="fields"):
                self.path = said(gr.Textbox, label=Both("Load: a file on this machine", "加载：本机上的文件"),
                                 max_lines=1, placeholder="saves/demo/config.yaml", elem_id="train-load-path")
                self.load = said(gr.Button, value=Both("Load", "加载"), elem_id="train-load")
                self.upload = said(gr.UploadButton, label=Both("Load from your computer", "从你的电脑上传"),
                                   file_types=[".yaml", ".yml", ".json"], elem_id="train-upload")
        with said(gr.Accordion, label=Both("What differs from the defaults", "与默认值的差别"), open=False,
                  elem_id="train-changed"):
            self.live.draw_differences()
            self.empty = said(gr.Button, value=Both("Set everything back", "全部恢复默认值"), size="sm",
                              elem_id="train-empty")

    # ----------------------------------------------------------------------------------------------------- what happens

    def _connect(self) -> None:
        page, live, form = self._page, self.live, self._form
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        restored = page.blocks.load(self._restored, live.draft, [live.seen, form.held, *form.components], **quiet)
        for updated in (gr.on([form.held.change, live.search.change], live.update, live.inputs, live.outputs,
                              trigger_mode="always_last", concurrency_limit=4, **quiet),
                        restored.then(live.update, live.inputs, live.outputs, **quiet)):
            live.follow(updated)
            self.looks.follow(updated)
        filling = [  # each changes fields, and so calls live.update
            (page.settings.change, self._copied, [page.settings, form.held]),
            (page.to_train.change, self._taken_over, [page.to_train, form.held]),
            (self.demo.click, lambda held: form.filled(_DEMO, held), form.held),
            (self.empty.click, lambda held: form.filled({}, held), form.held),
            (live.go_on.click, self._set(resume_from_checkpoint="true"), form.held),
            (live.delete_now.click, self._set(overwrite_output_dir="true"), form.held),
            (live.rename.click, self._set(output_dir=""), form.held),
            (self.load.click, self._loaded, [page.language, self.path, form.held]),
            (self.upload.upload, self._loaded, [page.language, self.upload, form.held]),
            *((button.click, self._fixed(number), [live.seen, form.held])
              for number, button in enumerate(live.fixes))]
        for event, handler, inputs in filling:
            event(handler, inputs, form.components, **quiet)
        self.looks.connect()
        self.pickers.connect()
        live.delete.click(lambda: (gr.update(visible=False), gr.update(visible=True)), [],
                          [live.delete, live.delete_now], **quiet)
        saving = gr.State("")
        self.save.click(self._saved, [page.language, self.name, saving, form.held], saving, **quiet)
        self.start.click(self._started, [page.language, form.held], [page.shown_run, page.tabs, *form.components],
                         api_visibility="private")

    def _set(self, **texts: str) -> Any:
        """A handler that types `texts` into their fields."""
        def handler(held: Mapping[str, Any]) -> list[Any]:
            return self._form.filled({**self._form.texts(held), **texts}, held)
        return handler

    def _fixed(self, number: int) -> Any:
        """A handler that takes the cure on a button."""
        def handler(seen: Seen, held: Mapping[str, Any]) -> list[Any]:
            cure = seen.cures[number] if number < len(seen.cures) else {}
            return self._form.filled({**self._form.texts(held), **as_texts(cure)}, held)
        return handler

    def _restored(self, draft: Any) -> dict[Any, Any]:
        """What was typed before the page was loaded again."""
        kept = draft if isinstance(draft, Mapping) and isinstance(draft.get("texts"), Mapping) else {"texts": {}}
        texts = {name: text for name, text in kept["texts"].items() if name in self._form.fields}
        return {self.live.seen: Seen(), self._form.held: texts, **self._form.updated(texts)}

    def _copied(self, settings: Mapping[str, Any], held: Mapping[str, Any]) -> list[Any]:
        """The settings of a run, for another one like it; or a few that another tab chose, beside what is typed."""
        texts = {**self._form.texts(held), **as_texts(_of_form(settings, self._form))}
        if "model_name_or_path" in settings:  # a whole run's
            texts = as_texts(_of_form(settings, self._form))
        return self._form.filled({name: text for name, text in texts.items() if name not in _OF_ONE_RUN}, held)

    def _taken_over(self, texts: Mapping[str, str], held: Mapping[str, Any]) -> list[Any]:
        """What another tab sets; the rest stays as it was typed."""
        return self._form.filled({**self._form.texts(held), **texts}, held)

    @in_words
    def _loaded(self, language: Language, typed: str | None, held: Mapping[str, Any]) -> list[Any]:
        """A file's options."""
        if not typed:
            toast(Both("Type the path of a YAML file first.", "请先填写 YAML 文件的路径。"), language, "warn")
            return [gr.skip()] * len(self._form.fields)
        uploaded = Path(typed)
        own = uploaded.is_absolute() and uploaded.is_relative_to(self.upload.GRADIO_CACHE)
        texts, findings = load(uploaded if own else self._page.roots.inside(typed), self._form.fields)
        show_findings(findings, language)
        name = uploaded.name
        toast(Both(f"{name}: {len(texts)} options taken over.", f"已从 {name} 读入 {len(texts)} 个选项。"), language,
              "info")
        return self._form.filled(texts, held)

    @in_words
    def _saved(self, language: Language, name: str, asked: str, held: Mapping[str, Any]) -> str:
        """Write the file; one that is there only when Save is pressed twice."""
        state = state_of(self._form.texts(held), self._page.roots)
        try:
            text, again = as_file(state.config, state.sent), bool(name) and name == asked
            path = save(self._page.roots, name, text, overwrite=again)
        except Problem as problem:
            show_findings(problem.findings, language)
            return name if problem.findings[0].id == THERE else ""
        toast(Both(f"Saved: {path}. `truetune train {path}` runs it.",
                   f"已保存：{path}。用 `truetune train {path}` 运行。"), language, "info")
        return ""

    @in_words
    def _started(self, language: Language, held: Mapping[str, Any]) -> dict[Any, Any]:
        """Hand the run in and show it. What was said of this one run folder alone is taken back."""
        page, form = self._page, self._form
        job, output = start(form.texts(held), page.roots, page.queue)
        behind = any(other.active and other.id != job.id for other in page.queue.jobs())
        toast(_WAITS if behind else _STARTED, language, "info")  # a job waits for a moment even where it is alone
        return {page.shown_run: str(output), page.tabs: gr.update(selected="runs"), **form.updated(
            {name: "" if name != "overwrite_output_dir" else "false" for name in _OF_ONE_RUN})}


def _of_form(settings: Mapping[str, Any], form: Form) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in form.fields}


_WAITS = Both("It waits for the run before it.", "已排队，等待前一个任务。")
_STARTED = Both("It has started. Closing this page does not stop it.", "已开始。关闭网页不会中断训练。")
_OF_ONE_RUN = ("output_dir", "resume_from_checkpoint", "overwrite_output_dir")
"""What is said of one run folder, and holds for no other."""
