"""The tab that measures a model: what to measure, on what; then numbers in words, answers side by side, before and
after."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.data.sources import find_sources
from truetune.evaluate.similarity import package_findings
from truetune.findings import Both, Finding, Problem
from truetune.jobs.queue import Job
from truetune.options import Config
from truetune.options.read import COMMAND_LINE
from truetune.web.evaluate.predictions import Predictions
from truetune.web.evaluate.scores import PREDICTIONS, Score, change, evaluated, scores
from truetune.web.form import Texts
from truetune.web.job import Far
from truetune.web.jobform import JobForm, Purpose, as_words
from truetune.web.models import datasets, shown, with_chosen
from truetune.web.tables import paragraph, table
from truetune.web.words import Language

if TYPE_CHECKING:
    from truetune.web.page import Page


_HARNESS = "lm_eval"
_ELSEWHERE = ("REMOTE:", "ONLINE")
_ON_DATA = ("dataset", "dataset_dir", "max_samples")
PURPOSES: Mapping[str, Purpose] = {
    "predict": Purpose(Both("Its answers to a data set, beside the right ones, with ROUGE and BLEU",
                            "回答数据集里的问题，与参考答案对照（ROUGE、BLEU）"),
                       {"task": "predict"}, (*_ON_DATA, "max_new_tokens")),
    "perplexity": Purpose(Both("How well it foresees a data set: loss and perplexity",
                               "对数据集的预测能力：loss 和困惑度"),
                          {"task": "perplexity"}, (*_ON_DATA, "batch_size")),
    "choices": Purpose(Both("What it knows: multiple choice (MMLU, CMMLU, C-Eval, a file of one's own)",
                            "知识：选择题（MMLU、CMMLU、C-Eval 或自己的文件）"),
                       shows=("task", "task_dir", "n_shot", "lang", "max_samples", "batch_size")),
    _HARNESS: Purpose(Both("Tasks of lm-evaluation-harness", "lm-evaluation-harness 的任务"),
                      shows=("task", "task_dir", "n_shot", "max_samples")),
}
_ADVANCED = ("cutoff_len", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "generation_seed",
             "seed", "eval_in_chat", "template", "enable_thinking", "infer_dtype", "quantization_bit")
_SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "dataset": {"choices": [], "multiselect": True, "label": Both(
        "dataset · What to measure on: names, or a file", "dataset · 用什么数据评测：名字或文件")},
    "task": {"choices": ["mmlu_test", "cmmlu_test", "ceval_validation"]}}
_NO_SCORES = Both("No numbers were found in this folder.", "这个文件夹里没有评测数字。")


def build(page: Page) -> None:
    """Fill the tab."""
    _EvaluateTab(page)


class EvaluateForm(JobForm):
    """Which model to measure, what to find out, on which data."""

    verb, tab, folder, below = "eval", "evaluate", "save_dir", "evaluations"
    purposes, advanced, special = PURPOSES, _ADVANCED, _SPECIAL
    asked, wanted = Both("What to measure", "评测哪个模型"), Both("What to find out", "想知道什么")
    begin, so_far = Both("Measure", "开始评测"), Both("Evaluations started here", "在此启动的评测")
    more = Both("More: sampling, template, precision", "更多：采样、模板、精度")
    first = Both("Pick the model to measure: a run, one of its checkpoints, or a model.",
                 "请选择要评测的模型：运行、检查点或模型。")
    ready = Both("Ready to measure.", "可以开始评测。")

    def confined(self, purpose: str, texts: Texts) -> Texts:
        roots = self.page.roots
        if purpose == _HARNESS and texts.get("task"):
            texts["task"] = f"{_HARNESS}:{texts['task'].removeprefix(f'{_HARNESS}:')}"
        for name in ("save_dir", "task_dir", "dataset_dir"):
            if texts.get(name) and not texts[name].startswith(_ELSEWHERE):
                texts[name] = str(roots.inside(texts[name], name))
        for name in ("dataset", "task"):
            if texts.get(name):
                texts[name] = ",".join(self._inside(part.strip(), name) for part in texts[name].split(","))
        return texts

    def _inside(self, typed: str, option: str) -> str:
        """A file by its path, anything else as it is."""
        roots = self.page.roots
        is_path = typed.startswith(("/", "~", ".")) or (typed and (roots.home / typed).is_file())
        return str(roots.inside(typed, option)) if is_path else typed

    def findings(self, purpose: str, config: Config) -> Iterator[Finding]:
        for lacking in _LACKING.get(purpose, ()):
            yield from lacking(config)

    def in_the_way(self, folder: Path) -> bool:
        return folder.exists()

    def words(self, config: Config, language: Language) -> list[str]:
        """Of a run's file, which has data of its own, what is typed beside it goes first; and --lang, which is the
        language that is spoken, would be that of the questions too."""
        typed = (config.origin("dataset") or "").startswith(COMMAND_LINE)
        data = as_words({"dataset": ",".join(config.dataset)}) if typed else []
        return [*super().words(config, language), f"lang={config.lang}", *data]

    def far(self, job: Job, log: str) -> Far | None:
        return how_far(job, log)


class _EvaluateTab:
    def __init__(self, page: Page):
        self.page, self.form = page, EvaluateForm(page)
        self.form.draw_choice()
        self.form.draw_start()
        self._draw_results()
        self._wire()

    def _draw_results(self) -> None:
        words = self.page.wording
        words(gr.Markdown, value=Both("### Results", "### 结果"))
        with gr.Row():
            self.first, self.second = (
                words(gr.Dropdown, label=label, info=info, choices=[("–", "")], value="", allow_custom_value=True,
                      elem_id=f"evaluate-{name}")
                for name, label, info in (
                    ("shown", Both("Evaluation", "评测结果"), Both("the folder of its results", "结果所在的文件夹")),
                    ("beside", Both("Beside it", "与它对比"), Both("another one, such as of the model before training",
                                                                "另一次评测，例如训练前的模型"))))
        self.table = gr.HTML("", elem_id="evaluate-scores")
        self.download = words(gr.DownloadButton, label=Both("Download the answers", "下载回答"), visible=False,
                              size="sm", elem_id="evaluate-download")
        Predictions(self.page, [self.first, self.second], self._folder)

    def _wire(self) -> None:
        page, form, panel = self.page, self.form, self.form.panel
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        form.wire()
        dataset, folder = (form.form.fields[name].component for name in ("dataset", "dataset_dir"))
        if isinstance(dataset, gr.Dropdown):
            dataset.focus(self._sets, [dataset, folder, page.language], dataset, **quiet)
        both = [self.first, self.second]
        page.blocks.load(lambda *held: [self._listed(each) for each in held], both, both, **quiet)
        for each in both:
            each.focus(self._listed, each, each, **quiet)
        panel.ended.change(self._ended, panel.ended, self.first, **quiet)
        gr.on([each.change for each in both], self._shown, [*both, page.language],
              [self.table, self.download], trigger_mode="always_last", **quiet)

    def _sets(self, chosen: Sequence[str] | None, folder: str | None, language: Language) -> Any:
        """Data sets of every kind."""
        return gr.update(choices=with_chosen(datasets(self.page.roots, folder or "", None, language).choices, chosen))

    # ---------------------------------------------------------------------------------------------------- what came out

    def _folder(self, typed: str | None) -> Path | None:
        """The folder of an evaluation, None where there is none or it is not the page's."""
        try:
            folder = self.page.roots.inside(typed) if typed else None
        except Problem:
            return None
        return folder if folder and folder.is_dir() else None

    def _listed(self, chosen: str | None, **more: Any) -> Any:
        """What has been measured. more: to update beside the choices."""
        folders = [shown(self.page.roots, each) for each in evaluated(self.page.roots.folders)]
        return gr.update(choices=with_chosen([("–", ""), *((name, name) for name in folders)], chosen), **more)

    def _ended(self, id: str) -> Any:
        """What a job has found is shown."""
        job = self.form.panel.job(id)
        if job is None or job.output is None or not job.output.is_dir():
            return gr.skip()
        name = shown(self.page.roots, job.output)
        return self._listed(name, value=name)

    def _shown(self, first: str | None, second: str | None, language: Language) -> list[Any]:
        folder = self._folder(first)
        if folder is None:
            gone = Both(f"{first} is no folder that the page can show.", f"{first} 不是网页可以显示的文件夹。")
            return [paragraph(gone, language, "error") if first else "", gr.update(visible=False)]
        file = folder / PREDICTIONS
        return [scores_page(folder, self._folder(second), language),
                gr.update(value=str(file), visible=True) if file.is_file() else gr.update(visible=False)]


def scores_page(folder: Path, other: Path | None, language: Language) -> str:
    """The numbers of an evaluation, or of two side by side, with what they mean and which way is better."""
    found, beside = scores(folder), scores(other) if other else {}
    if not found:
        return paragraph(_NO_SCORES, language)
    columns = [Both("what", "指标"), folder.name, *([other.name, Both("difference", "差别")] if other else []),
               Both("better is", "越…越好"), Both("what it is", "含义")]
    rows = [[name, str(score), *_beside(score, beside.get(name), bool(other)), _better(score), score.meaning.words]
            for name, score in found.items()]
    return table(columns, rows, language, numbers=[1, 2] if other else [1],
                 caption=Both("What was measured", "评测结果"))


def _beside(score: Score, other: Score | None, wanted: bool) -> list[Any]:
    """The number of the other evaluation, and how much better this one is than that."""
    if not wanted:
        return []
    return [str(other), change(other, score)] if other else ["–", "–"]


def _better(score: Score) -> Any:
    return {"higher": Both("higher", "高"), "lower": Both("lower", "低"), None: ""}[score.meaning.better]


def _lacking_scores(config: Config) -> Iterable[Finding]:
    return package_findings(config.with_values("eval", predict_with_generate=True))


def _unknown_data(config: Config) -> Iterator[Finding]:
    """Names that stand in no dataset_info.json and are no files: of those on this machine."""
    if not config.dataset_dir.startswith(_ELSEWHERE):
        try:
            find_sources(config.dataset, config, "dataset")
        except Problem as problem:
            yield from problem.findings


def _lacking_harness(config: Config) -> Iterator[Finding]:
    if find_spec(_HARNESS) is None:
        yield Finding("packages-missing", "error", Both("lm_eval is not installed.", "没有安装 lm_eval。"), "task",
                      fix="pip install lm-eval")


_LACKING: Mapping[str, Sequence[Callable[[Config], Iterable[Finding]]]] = {
    "predict": (_lacking_scores, _unknown_data), "perplexity": (_unknown_data,), _HARNESS: (_lacking_harness,)}
"""What is needed and not there."""


_ROWS = re.compile(r"^(?:predicting for|正在对留出的) ([\d,]+)", re.MULTILINE)
_QUESTIONS = re.compile(r"^(?:已答 )?([\d,]+) (?:of|/) ([\d,]+) (?:questions|题)", re.MULTILINE)


def how_far(job: Job, log: str) -> Far | None:
    """Answers that are written, or questions that are answered, of all; None while the model is loaded."""
    questions, rows = _QUESTIONS.findall(log), _ROWS.search(log)
    if questions:
        done, count = (int(number.replace(",", "")) for number in questions[-1])
    elif rows and job.output:
        count, done = int(rows[1].replace(",", "")), _lines(job.output / PREDICTIONS)
    else:
        return None
    return Far(min(1.0, done / max(count, 1)), Both(f"{done:,} of {count:,}", f"{done:,} / {count:,}"))


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0
