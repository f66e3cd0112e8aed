"""The tab Runs: all runs and what waits, one of them in full, curves of several, and what can be done with a run.

Everything is read from the runs' folders and the queue's, by one handler (`_look`). It notes what it has drawn, and
sends only what has changed since: two pages, a reload or a folder that vanishes are nothing special to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import yaml

from truetune.findings import Both, problem
from truetune.history import History
from truetune.jobs.queue import Job
from truetune.look.runs import WORDS, facts, note_words, number, reason, size, steps, told
from truetune.options.terms import TERMS
from truetune.review.report import HTML, MARKDOWN
from truetune.run import CONFIG
from truetune.runs import Runs, Status, Summary
from truetune.web.errors import in_words, toast
from truetune.web.runs.curves import STYLE, curves
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page

_EVERY = 2.0
"""Seconds between two looks, while the tab is shown."""
_MOST_LISTED, _MOST_COMPARED, _MOST_LOG, _NOTES = 60, 8, 20_000, 6
_MOST_SMOOTH = 0.99
_MARKS: Mapping[Status, str] = {"waiting": "…", "running": "▶", "finished": "✓", "interrupted": "■", "failed": "✗",
                                "killed": "✗", "unknown": "?"}
"""Signs that every font has: state is told in words, a sign and, of the chosen run, a colour."""
_EXPLAINED = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "train_peak_memory_gb")
_NO_COPY = ("output_dir", "overwrite_output_dir", "resume_from_checkpoint")
_FIRST = Both("There are no runs yet. Start one in the tab Train; it appears here by itself.",
              "还没有运行。请在“训练”页启动一个，它会自动出现在这里。")
_GONE = Both("This run is gone: its folder was deleted or moved.", "这个运行已不在：文件夹被删除或移走了。")
_NO_LOG = Both("Nothing has been printed yet, or the run was not started from this page: then it prints in its own "
               "terminal. Curves and notes are read from its folder.",
               "还没有输出；或者这个运行不是从网页启动的，输出在它自己的终端里。曲线和提示来自它的文件夹。")

_STYLE = """
.state { font-size: 1.05rem; font-weight: 600; } .running, .waiting { color: #1f5fa8; } .finished { color: #1b6b3f; }
.interrupted { color: #7d5a00; } .failed, .killed { color: #b3261e; }
.dark & .running, .dark & .waiting { color: #7fb8f5; } .dark & .finished { color: #7fd79d; }
.dark & .interrupted { color: #e3b95c; } .dark & :is(.failed, .killed) { color: #f2938c; }
.name { overflow-wrap: anywhere; margin: 0 0 .3rem; }
progress { width: 100%; height: .8rem; accent-color: var(--color-accent); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .5rem 1rem; margin: .7rem 0;
  padding: 0; }
.facts div { min-width: 0; } dt { font-size: .75rem; color: var(--body-text-color-subdued); font-weight: normal; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.why { border-left: .25rem solid var(--error-border-color, #c62828); padding: .4rem .7rem; overflow-wrap: anywhere;
  background: var(--background-fill-secondary); white-space: pre-wrap; }
ul { margin: .3rem 0 0 1.1rem; } li { overflow-wrap: anywhere; }
"""


def build(page: Page) -> None:
    """Fill the tab."""
    _Tab(page)


class _Tab:
    """The components of the tab, and what happens in it."""

    def __init__(self, page: Page):
        self._page = page
        self._runs = Runs(page.roots.folders, page.queue)
        self._histories: dict[Path, History] = {}
        page.queue.wake()  # what waited when the machine went down goes on
        self._draw()
        self._connect()

    # ---------------------------------------------------------------------------------------------------------- drawing

    def _draw(self) -> None:
        wording = self._page.wording
        with gr.Row(elem_id="runs"):
            with gr.Column(scale=1, min_width=300):
                self._draw_list()
            with gr.Column(scale=2, min_width=320):
                self.panel = gr.HTML(css_template=_STYLE, elem_id="run-panel")
                self._draw_buttons()
        self._draw_comparison()
        self.curves = gr.HTML(css_template=STYLE, elem_id="run-curves")
        with wording(gr.Accordion, label=Both("What the curves mean", "这些曲线是什么意思"), open=False):
            wording(gr.HTML, value=_explained)
        with wording(gr.Accordion, label=Both("Log", "日志"), open=False, elem_id="run-log-fold"):
            self.log = wording(gr.Textbox, label=Both("The last of what it printed", "最新输出"), lines=14,
                               max_lines=14, interactive=False, autoscroll=True, elem_id="run-log")
        self.report = gr.HTML(visible=False, elem_id="run-report")
        self.seen, self.asked, self.timer = gr.State({}), gr.State(""), gr.Timer(_EVERY, active=False)
        self.kept = gr.BrowserState({}, storage_key="truetune-runs", secret="truetune")

    def _draw_list(self) -> None:
        wording = self._page.wording
        self.filter = wording(gr.Textbox, label=Both("Find a run", "查找运行"), max_lines=1, elem_id="runs-filter",
                              placeholder=Both("part of its name, model, state …", "名字、模型、状态的一部分……"))
        self.list = wording(gr.Radio, label=Both("Runs, the newest first", "运行（最新的在前）"), choices=[],
                            elem_id="runs-list", interactive=True)
        self.more = gr.HTML(visible=False)
        with gr.Column(visible=False) as self.queue_place:
            self.waiting = wording(gr.Dropdown, label=Both("Waiting in the queue", "队列中等待的任务"), choices=[],
                                   elem_id="queue-waiting", allow_custom_value=True)
            self.remove = wording(gr.Button, value=Both("Take it out of the queue", "移出队列"), size="sm",
                                  elem_id="queue-remove")

    def _draw_comparison(self) -> None:
        wording = self._page.wording
        with gr.Row(equal_height=True):
            self.compared = wording(gr.Dropdown, label=Both("Compare with", "与其他运行比较"), choices=[], value=[],
                                    multiselect=True, max_choices=_MOST_COMPARED - 1, elem_id="runs-compared",
                                    allow_custom_value=True, min_width=300,
                                    info=Both("Their curves are drawn over the chosen run's.",
                                              "把它们的曲线叠加在所选运行上。"))
            self.weight = wording(gr.Slider, minimum=0, maximum=_MOST_SMOOTH, step=0.01, value=0.8, min_width=300,
                                  elem_id="runs-smoothing", label=Both("Smoothing of the curves", "曲线平滑"),
                                  info=Both("0 shows the values as they are; the nearer to 1, the calmer the line.",
                                            "0 显示原始值；越接近 1，曲线越平缓。"))

    def _draw_buttons(self) -> None:
        def button(name: str, words: Both, **more: Any) -> gr.Button:
            return self._page.wording(gr.Button, value=words, elem_id=f"run-{name}", size="sm", visible=False,
                                      min_width=120, **more)

        with gr.Row(elem_id="run-buttons"):
            self.stop = button("stop", Both("Stop and save a checkpoint", "停止并保存检查点"), variant="stop")
            self.kill = button("kill", Both("End it now, without saving", "立即终止（不保存）"), variant="stop")
            self.resume = button("resume", Both("Resume", "继续训练"), variant="primary")
            self.chat = button("chat", Both("Chat with it", "对话"))
            self.export = button("export", Both("Export", "导出"))
            self.copy = button("copy", Both("Copy its settings", "复制设置"))
            self.show_report = button("show-report", Both("Show the report", "查看报告"))
            self.delete = button("delete", Both("Delete …", "删除……"))
        with gr.Column(visible=False, elem_id="run-delete-sure") as self.sure:
            self.warning = gr.HTML()
            with gr.Row():
                self.yes = self._page.wording(gr.Button, value=Both("Yes, delete it", "是，删除"), variant="stop",
                                              size="sm", elem_id="run-delete-yes")
                self.no = self._page.wording(gr.Button, value=Both("No, keep it", "否，保留"), size="sm",
                                             elem_id="run-delete-no")
        self.buttons = {"stop": self.stop, "kill": self.kill, "resume": self.resume, "chat": self.chat,
                        "export": self.export, "copy": self.copy, "show_report": self.show_report,
                        "delete": self.delete}

    # ------------------------------------------------------------------------------------------------------- connecting

    def _connect(self) -> None:
        page, shown = self._page, self._page.shown_run
        inputs = [page.language, shown, self.filter, self.compared, self.weight, self.asked, self.kept, self.seen]
        parts = [self.list, self.more, self.queue_place, self.waiting, self.panel, *self.buttons.values(), self.sure,
                 self.warning, self.compared, self.weight, self.curves, self.log, self.report]
        look: dict[str, Any] = {"fn": self._look, "inputs": inputs, "outputs": [*parts, self.kept, shown, self.seen],
                                "show_progress": "hidden"}
        gr.on([self.timer.tick, self.filter.input, self.compared.input, self.weight.release, self.asked.change], **look,
              trigger_mode="once", concurrency_limit=8)
        shown.change(**look, concurrency_limit=8)
        self.list.select(_picked, None, shown, show_progress="hidden")
        page.shown_tab.change(lambda name: gr.update(active=name == "runs"), page.shown_tab, self.timer,
                              show_progress="hidden").then(**look)

        said = [page.language, shown]
        self.stop.click(self._stop, said, None, show_progress="hidden").then(**look)
        self.kill.click(self._kill, said, None, show_progress="hidden").then(**look)
        self.remove.click(self._remove, [page.language, self.waiting], None, show_progress="hidden").then(**look)
        self.resume.click(self._resume, said, None, show_progress="hidden").then(**look)
        self.copy.click(self._copy, said, [page.settings, page.tabs], show_progress="hidden")
        self.chat.click(self._hand_over("chat"), said, [page.to_chat, page.tabs], show_progress="hidden")
        self.export.click(self._hand_over("export"), said, [page.to_export, page.tabs], show_progress="hidden")
        self.show_report.click(self._report, said, self.report)
        self.delete.click(lambda folder: folder, shown, self.asked, show_progress="hidden")
        self.no.click(lambda: "", None, self.asked, show_progress="hidden")
        self.yes.click(self._delete, said, [self.asked, shown], show_progress="hidden").then(**look)

    # ---------------------------------------------------------------------------------------------------------- looking

    @in_words
    def _look(self, language: Language, shown: str, wanted: str, compared: list[str], weight: float, asked: str,
              held: Any, seen: dict[str, Any]) -> list[Any]:
        """Everything that has changed since `seen`; each part of the page has a key that tells whether it has.

        held: what was chosen in this browser before, for a page that has just been opened or loaded again.
        """
        runs, before = self._runs.all(), _Chosen.of(held)
        if not seen:
            compared, weight = before.compared or compared, before.weight if held else weight
        if not shown and runs and "gone" not in seen:
            shown = _among(before.shown, [("", str(run.folder)) for run in runs]) or str(runs[0].folder)
        run = next((run for run in runs if str(run.folder) == shown), None) or self._find(shown)
        lost = "gone" in seen or (shown and run is None)  # nothing else is chosen by itself: that would hide it
        now: dict[str, Any] = {"shown": shown, **({"gone": True} if lost else {})}
        answer: list[Any] = []

        def part(name: str, key: Any, *updates: Any) -> None:
            """Updates of components, or nothing where the key is as it was."""
            now[name] = key
            changed = seen.get(name, _NEVER) != key
            answer.extend((update() if callable(update) else update) if changed else gr.skip() for update in updates)

        listed, more = _listed(runs, wanted, self._page.roots.home, language)
        part("list", (listed, shown), gr.update(choices=listed, value=_among(shown, listed)))
        part("more", more, gr.update(value=f"<small>{escape(more)}</small>", visible=bool(more)))
        waiting = _waiting(self.queued(), language)
        part("waiting", waiting, gr.update(visible=bool(waiting)),
             lambda: gr.update(choices=waiting, value=waiting[0][1] if waiting else None))
        panel = self._panel(run, shown, language)
        part("panel", panel, panel)
        buttons = _offered(run)
        part("buttons", buttons, *(gr.update(visible=name in buttons) for name in self.buttons))
        sure = run is not None and asked == shown and "delete" in buttons
        part("sure", (sure, shown, language), gr.update(visible=sure), _warning(run, language) if run else "")
        names = [(_name(each.folder, self._page.roots.home), str(each.folder)) for each in runs
                 if each.last and str(each.folder) != shown]
        kept = [folder for folder in compared or [] if _among(folder, names)]
        other: dict[str, Any] = {"value": kept} if kept != compared or not seen else {}  # else somebody may be choosing
        part("compared", (names, other), gr.update(choices=names, **other))
        part("weight", True, weight)
        histories = {_name(folder, self._page.roots.home): self._history(folder)
                     for folder in map(Path, [shown, *kept] if run else kept)}
        versions = [(name, history.update()) for name, history in histories.items()]
        part("curves", (versions, weight, language), lambda: curves(histories, weight, language))
        job = run.job if run else None
        part("log", (shown, language, _stamp(job)), lambda: self._log(job, language))
        part("report", shown, gr.update(value="", visible=False))
        part("kept", (shown, kept, weight), asdict(_Chosen(shown, kept, weight)))
        return [*answer, shown if seen.get("shown") != shown else gr.skip(), now]

    def queued(self) -> list[Job]:
        """What waits, the next one first."""
        return [job for job in reversed(self._page.queue.jobs()) if job.status == "waiting"]

    def _find(self, shown: str) -> Summary | None:
        return self._runs.find(Path(shown)) if shown else None

    def _history(self, folder: Path) -> History:
        return self._histories.setdefault(folder, History(folder))

    def _panel(self, run: Summary | None, shown: str, language: Language) -> str:
        """How the chosen run fares."""
        if run is None:
            words = _GONE if shown else _FIRST
            name = f'<p class="name"><code>{escape(shown)}</code></p>' if shown else ""
            return f'{name}<p role="status">{escape(say(words, language))}</p>'
        chinese = language != "en"
        state = f"{_MARKS[run.status]} {escape(say(WORDS[run.status], language))}"
        lines = [f'<p class="name"><code>{escape(str(run.folder))}</code></p>',
                 f'<p role="status"><span class="state {run.status}">{state}</span> — '
                 f"{escape(say(told(run), language))}</p>"]
        if run.total_steps:
            label = escape(say(Both("progress", "进度"), language))
            lines.append(f'<progress max="{run.total_steps}" value="{run.step}" aria-label="{label}"></progress>')
        if run.message:
            lines.append(f'<p class="why">{escape(say(reason(run.message), language))}</p>')
        lines.append('<dl class="facts">' + "".join(
            f"<div><dt>{escape(say(what, language))}</dt><dd>{escape(value)}</dd></div>" for what, value in facts(run))
            + "</dl>")
        history = self._history(run.folder)
        history.update()
        notes = [said for note in history.notes[-_NOTES:] if (said := note_words(note, chinese))]
        notes = [say(Both(said, said), language) for said in notes]
        if notes:
            lines.append(f"<b>{escape(say(Both('Said on the way', '过程中的提示'), language))}</b><ul>"
                         + "".join(f"<li>{escape(said)}</li>" for said in notes) + "</ul>")
        return "".join(lines)

    def _log(self, job: Job | None, language: Language) -> str:
        return (self._page.queue.log(job, _MOST_LOG) if job else "") or say(_NO_LOG, language)

    # ----------------------------------------------------------------------------------------------------------- acting

    def _chosen(self, shown: str) -> Summary:
        """Raises:
        Problem: the run is gone.
        """
        run = self._find(shown)
        if run is None:
            raise problem("no-run", _GONE, option=shown or None)
        return run

    @in_words
    def _stop(self, language: Language, shown: str) -> None:
        run = self._chosen(shown)
        if run.stopping:  # a double click is not meant to kill
            return
        self._runs.stop(run)
        toast(Both("It was asked to stop. It ends its step and saves a checkpoint.",
                   "已请求停止：完成当前步后会保存检查点。") if run.status == "running" else
              Both("It was taken out of the queue.", "已移出队列。"), language, "info")

    @in_words
    def _kill(self, language: Language, shown: str) -> None:
        self._runs.stop(self._chosen(shown), at_once=True)

    @in_words
    def _remove(self, language: Language, id: str | None) -> None:
        job = self._page.queue.find(id) if id else None
        if job and job.status == "waiting":
            self._page.queue.stop(job)

    @in_words
    def _resume(self, language: Language, shown: str) -> None:
        """The same run again, with the options that were frozen when it began."""
        run = self._chosen(shown)
        frozen = run.folder / CONFIG
        file = frozen if frozen.is_file() else run.job.folder / "run.yaml" if run.job else None
        if run.active or file is None:
            return
        goes_on = ["--resume_from_checkpoint=true"] if run.resumable else []
        self._page.queue.submit("train", file.read_text(encoding="utf-8"), run.folder,
                                [f"--output_dir={run.folder}", "--overwrite_output_dir=false", *goes_on,
                                 *(["--lang", "zh"] if language != "en" else [])])
        toast(Both("It was handed in, and goes on as soon as nothing else runs.", "已提交，没有其他任务时立即继续。"),
              language, "info")

    @in_words
    def _copy(self, language: Language, shown: str) -> list[Any]:
        run = self._chosen(shown)
        settings = given(run.folder / CONFIG)
        # A state that is set to what it holds tells nobody; with the run's folder in it, copying twice does.
        return [{**settings, "copied from": str(run.folder)}, gr.update(selected="train")]

    def _hand_over(self, tab: str) -> Any:
        @in_words
        def hand_over(language: Language, shown: str) -> list[Any]:
            """The model itself, or its newest checkpoint where it was not finished."""
            run = self._chosen(shown)
            newest = [run.folder / f"checkpoint-{run.saved[-1]}"] if run.saved else []
            place = next(iter([run.folder] if run.usable else newest), None)
            if place is None:
                raise problem("no-model", Both("there is no trained model in it yet.", "里面还没有训练好的模型。"),
                              option=shown)
            return [str(place), gr.update(selected=tab)]

        return hand_over

    @in_words
    def _report(self, language: Language, shown: str) -> Any:
        """The report as it was written, in a frame in which nothing of it can act on the page."""
        folder = self._chosen(shown).folder
        page, text = folder / HTML, folder / MARKDOWN
        if page.is_file():
            title = escape(say(Both("report of the run", "训练报告"), language))
            shown_text = escape(page.read_text(encoding="utf-8"))
            return gr.update(visible=True, value=f'<iframe sandbox title="{title}" srcdoc="{shown_text}" '
                             'style="width:100%;height:80vh;border:1px solid var(--border-color-primary)"></iframe>')
        return gr.update(visible=True, value=f"<pre>{escape(text.read_text(encoding='utf-8'))}</pre>")

    @in_words
    def _delete(self, language: Language, shown: str) -> list[Any]:
        left = self._runs.delete(self._chosen(shown))
        toast(Both(f"Deleted. Left in its folder, since no run wrote it: {', '.join(left)}.",
                   f"已删除。文件夹中不属于运行的文件已保留：{'、'.join(left)}。") if left else
              Both("Deleted.", "已删除。"), language, "info")
        return ["", ""]


_NEVER = object()


@dataclass(frozen=True)
class _Chosen:
    """What somebody looks at, as his browser keeps it."""

    shown: str = ""
    compared: list[str] = field(default_factory=list)
    weight: float = 0.8

    @classmethod
    def of(cls, held: Any) -> _Chosen:
        """What the browser holds may be of another version, or anybody's."""
        match held:
            case {"shown": str(shown), "compared": [*compared], "weight": int() | float() as weight}:
                return cls(shown, [folder for folder in compared if isinstance(folder, str)],
                           min(max(weight, 0.0), _MOST_SMOOTH))
        return cls()


def _picked(event: gr.SelectData) -> str:
    """The run that was pressed. Not the value of the list: Gradio refuses that where the run was deleted since, which
    is told in words here."""
    return event.value


def given(path: Path) -> dict[str, Any]:
    """The options that somebody set for a run, of its frozen file; what rules chose and where it wrote is left out.

    Raises:
        Problem: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = re.findall(r"^((\w+): .*)  # (?!rule: )", text, flags=re.MULTILINE)
        return yaml.safe_load("\n".join(line for line, name in lines if name not in _NO_COPY)) or {}
    except (OSError, yaml.YAMLError):
        raise problem("no-settings", Both("has no settings that can be read.", "里面没有可读取的设置。"),
                      option=str(path)) from None


def _name(folder: Path, home: Path) -> str:
    home = home.resolve()
    return str(folder.relative_to(home)) if folder.is_relative_to(home) and folder != home else str(folder)


def _listed(runs: Sequence[Summary], wanted: str, home: Path, language: Language) -> tuple[list[tuple[str, str]], str]:
    """A line for each run that fits what was typed; and in words, how many more there are."""
    lines = [(_line(run, home, language), run) for run in runs]
    words = (wanted or "").lower().split()
    fitting = [(line, str(run.folder)) for line, run in lines
               if all(word in f"{line} {run.model} {run.stage} {run.method} {run.status}".lower() for word in words)]
    more = len(fitting) - _MOST_LISTED
    told = say(Both(f"{more:,} older ones: type to find them.", f"还有 {more:,} 个更早的运行，可输入文字查找。"),
               language) if more > 0 else ""
    if runs and not fitting:
        told = say(Both("No run fits what you typed.", "没有符合的运行。"), language)
    return fitting[:_MOST_LISTED], told


def _among(value: str, choices: Sequence[tuple[str, str]]) -> str | None:
    """`value` if it can be chosen."""
    return next((each for _, each in choices if each == value), None)


def _line(run: Summary, home: Path, language: Language) -> str:
    """`▶ saves/demo · running · 12/48 · loss 0.5123`, `… saves/b · waiting, 2 before it`."""
    state = say(WORDS[run.status], language)
    if run.status == "waiting":
        state += say(Both(f", {run.ahead} before it", f"，前面 {run.ahead} 个"), language)
    loss = number(run.last.get("loss"))
    return " · ".join(filter(None, [f"{_MARKS[run.status]} {_name(run.folder, home)}", state, steps(run),
                                    f"loss {loss}" if loss else ""]))


def _waiting(jobs: Sequence[Job], language: Language) -> list[tuple[str, str]]:
    return [(f"{place}. {job.verb} {job.output.name if job.output else ''}".strip(), job.id)
            for place, job in enumerate(jobs, start=1)]


def _offered(run: Summary | None) -> list[str]:
    """The buttons that do something for it now."""
    if run is None:
        return []
    if run.active:
        return ["kill", "copy"] if run.stopping else ["stop", "copy"]
    over = {"resume": run.status in ("interrupted", "failed", "killed"), "chat": run.usable or run.saved,
            "export": run.usable or run.saved, "copy": (run.folder / CONFIG).is_file(),
            "show_report": any((run.folder / name).is_file() for name in (HTML, MARKDOWN)), "delete": run.size}
    return [name for name, holds in over.items() if holds]


def _warning(run: Summary, language: Language) -> str:
    words = Both(f"Delete this run for good? All that it wrote in {run.folder} ({size(run.size)}) is removed: the "
                 "model, the checkpoints, the numbers.",
                 f"确定要永久删除这个运行吗？它写入 {run.folder} 的全部内容（{size(run.size)}）都会被删除："
                 "模型、检查点和数据。")
    return f'<p role="alert">{escape(say(words, language))}</p>'


def _stamp(job: Job | None) -> Any:
    """Tells whether the log has grown."""
    try:
        found = (job.folder / "log").stat() if job else None
    except OSError:
        return None
    return (found.st_ino, found.st_size) if found else None


def _explained(language: Language) -> str:
    """What the numbers are, of the words of the log."""
    told = ((name, TERMS[name].what) for name in _EXPLAINED)
    return "".join(f"<p><b>{name}</b> {escape(say(Both(what[0], what[1]), language))}</p>" for name, what in told)
