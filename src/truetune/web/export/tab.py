"""The tab that exports: what, for which server, where to; then the proof, and what to type next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.findings import Both, Problem, status_of
from truetune.jobs.queue import Job
from truetune.options.gguf_types import GGUF_TYPES
from truetune.options.read import read_config
from truetune.rules.export import FORMATS
from truetune.web.export.exported import exported_page, next_commands, room
from truetune.web.form import Texts
from truetune.web.job import Far
from truetune.web.jobform import JobForm, Purpose
from truetune.web.models import shown
from truetune.web.tables import paragraph, size_of
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page


PURPOSES: Mapping[str, Purpose] = {
    "gguf": Purpose(Both("For Ollama and llama.cpp: GGUF, on one's own computer",
                         "用于 Ollama 和 llama.cpp：GGUF，本机运行"),
                    {"export_format": "gguf,ollama"}, ("export_gguf_type",)),
    "merged": Purpose(Both("For vLLM, SGLang and transformers: one merged model",
                           "用于 vLLM、SGLang 和 transformers：合并后的完整模型"), {}, ("export_size",)),
    "small": Purpose(Both("Smaller for vLLM: quantised (GPTQ, AWQ, fp8)",
                          "用于 vLLM 的更小模型：量化（GPTQ、AWQ、fp8）"),
                     {"export_quantization_bit": "4"},
                     ("export_quantization_bit", "export_quantization_method", "export_quantization_dataset")),
    "adapter": Purpose(Both("The adapter alone: small files, the base is needed beside them",
                            "只要适配器：文件小，使用时还需要基座"), {"export_adapter_only": "true"}),
    "own": Purpose(Both("Several of these at once: I choose", "同时导出多种：自己选择"), {},
                   ("export_format", "export_gguf_type", "export_quantization_bit", "export_quantization_method",
                    "export_quantization_dataset", "export_adapter_only", "export_size")),
}
_ADVANCED = ("export_parity", "export_imatrix", "export_quantization_nsamples", "export_quantization_maxlen",
             "infer_dtype", "export_device", "template", "export_base")
_HUB = ("export_hub_model_id", "hub_private_repo", "hub_revision")
_TOKEN = Both(
    "The upload takes its token from the environment (HF_TOKEN) or from `hf auth login` in a terminal, never from this "
    "page: what is typed in pages and files leaks.",
    "上传所用的 token 取自环境变量 HF_TOKEN 或终端里的 `hf auth login`，不会在网页上填写：写在网页和文件里的 token "
    "容易泄露。")


def build(page: Page) -> None:
    """Fill the tab."""
    _ExportTab(page)


def _gguf_choices(language: Language) -> list[tuple[str, str]]:
    """Every type with its bits and what it is good for."""
    told = {name: Both(f"{kind.bits:g} bits, {kind.en}", f"{kind.bits:g} 比特，{kind.zh}")
            for name, kind in GGUF_TYPES.items()}
    return [(f"{name} · {say(words, language)}", name) for name, words in told.items()]


_SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "export_format": {"choices": list(FORMATS), "multiselect": True},
    "export_gguf_type": {"choices": _gguf_choices, "multiselect": True}}


class ExportForm(JobForm):
    """What to export, what for, where to."""

    verb, tab, folder, below = "export", "export", "export_dir", "exports"
    purposes, advanced, special = PURPOSES, _ADVANCED, _SPECIAL
    asked, wanted = Both("What to export", "导出什么"), Both("What for", "用途")
    begin, so_far = Both("Export", "开始导出"), Both("Exports so far", "导出记录")
    more = Both("More: proof, precision, calibration", "更多：一致性证明、精度、校准")
    first = Both("Pick what to export: a run, one of its checkpoints, or a model.",
                 "请选择要导出的内容：运行、检查点或模型。")
    ready = Both("Ready to export.", "可以导出。")

    def confined(self, purpose: str, texts: Texts) -> Texts:
        roots, calibration = self.page.roots, texts.get("export_quantization_dataset", "")
        if texts.get("export_dir"):
            texts["export_dir"] = str(roots.inside(texts["export_dir"], "export_dir"))
        if "/" in calibration or (calibration and (roots.home / calibration).is_file()):
            texts["export_quantization_dataset"] = str(roots.inside(calibration, "export_quantization_dataset"))
        return texts

    def far(self, job: Job, log: str) -> Far | None:
        return how_far(job, log)


class _ExportTab:
    def __init__(self, page: Page):
        self.page, self.form = page, ExportForm(page)
        self.form.draw_choice()
        self._draw_hub()
        self.room = gr.HTML("", elem_id="export-room")
        self.form.draw_start()
        self._draw_result()
        self._wire()

    def _draw_hub(self) -> None:
        words = self.page.wording
        with words(gr.Accordion, label=Both("Upload to a hub", "上传到模型站"), open=False):
            words(gr.Markdown, value=_TOKEN)
            with gr.Row(elem_classes="fields"):
                for name in _HUB:
                    self.form.form.draw(name)

    def _draw_result(self) -> None:
        words = self.page.wording
        with gr.Column(visible=False, elem_id="export-result") as self.result:
            self.proof = gr.HTML("")
            self.next = words(gr.Code, label=Both("What to type next", "接下来输入"), language="shell",
                              interactive=False, elem_id="export-next")
            self.chat = words(gr.Button, value=Both("Chat with it", "与它对话"), elem_id="export-chat")

    def _wire(self) -> None:
        page, form, panel = self.page, self.form, self.form.panel
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        form.wire()
        page.to_export.change(lambda folder: folder or gr.skip(), page.to_export, form.model, **quiet)
        gr.on([form.model.change, form.purpose.change], self._told_room, form.inputs, self.room,
              trigger_mode="always_last", **quiet)
        panel.ended.change(self._shown, [panel.ended, page.language], [self.result, self.proof, self.next, self.chat],
                           **quiet)
        self.chat.click(self._to_chat, panel.ended, [page.to_chat, page.tabs], **quiet)

    def _told_room(self, model: str | None, purpose: str, language: Language, held: Mapping[str, Any]) -> str:
        """How much of the disk it takes."""
        if not model:
            return ""
        try:
            config, findings = self.form.asked_for(model, purpose, held)
            name = config.model_name_or_path or ""
            if status_of(findings) == "error" or not (Path(name).exists() or name.startswith("bundled/")):
                return ""  # nothing is downloaded only to tell its size
            needed, free = self.page.worker.ask(room, config)
        except Problem:
            return ""  # told where it is checked, and when it is started
        words = Both(f"Takes about {size_of(needed)} on the disk; {size_of(free)} are free.",
                     f"约需磁盘空间 {size_of(needed)}；剩余 {size_of(free)}。")
        return paragraph(words, language, "ok" if needed < free else "error")

    # ---------------------------------------------------------------------------------------------------- what came out

    def _shown(self, id: str, language: Language) -> list[Any]:
        folder = self._folder(id)
        if folder is None:
            return [gr.update(visible=False), "", "", gr.update()]
        served = folder.suffix != ".failed"
        typed = next_commands(folder, shown(self.page.roots, folder)) if served else ""
        return [gr.update(visible=True), exported_page(folder, language), gr.update(value=typed, visible=served),
                gr.update(visible=served)]

    def _folder(self, id: str) -> Path | None:
        """What a job has written: the export, also where its upload failed, or what its proof refused."""
        job = self.form.panel.job(id)
        if job is None or job.output is None:
            return None
        failed = job.output.with_name(f"{job.output.name}.failed")
        wanted = job.output if job.output.is_dir() else failed
        return wanted if wanted.is_dir() else None

    def _to_chat(self, id: str) -> list[Any]:
        folder = self._folder(id)
        if folder is None:
            return [gr.skip(), gr.skip()]
        whole = (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()
        file = next(iter(sorted(folder.glob("*.gguf"))), folder)
        return [str(folder if whole else file), gr.update(selected="chat")]


_STAGE = re.compile(r"^(merged|合并|quantised to|量化到|parity|一致性检查|adapter|适配器|" + "|".join(GGUF_TYPES)
                    + r")\b[^:：\n]*[:：]", re.MULTILINE)
"""How a line begins that says that a stage is done."""


def how_far(job: Job, log: str) -> Far | None:
    """Stages that are done, of those that the job's options ask for."""
    try:
        config, _ = read_config([str(job.folder / "run.yaml")])
    except Problem:
        return None
    ggufs = len(set(config.export_gguf_type)) if {"gguf", "ollama"} & set(config.export_format) else 0
    count = 1 + bool(config.export_quantization_bit) + (min(ggufs, 1) if config.export_adapter_only else ggufs) \
        + (config.export_parity != "off")
    done = min(len(_STAGE.findall(log)), count)
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "")
    return Far(done / count, Both(f"{done} of {count} steps done: {last}" if last else "it begins",
                                  f"已完成 {done}/{count} 步：{last}" if last else "正在启动"))
