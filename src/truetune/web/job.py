"""A job on the page: how it fares, how far it is, what it prints, and the button that stops it.

It is read from the queue's folders, so a second page and a page that is loaded again show the same. The timer runs only
while the job that is shown does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.events import clock
from truetune.findings import Both, Words
from truetune.jobs.queue import Job
from truetune.web.errors import in_words, toast
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page

_SECONDS = 1.5
"""Between two looks at a job that runs."""
_ERROR = re.compile(r"^(?:error|错误)  .*$", re.MULTILINE)
_NOBODY = Both("Nothing has been started here yet.", "这里还没有启动过任务。")
_STATUS = {
    "waiting": Both("Waiting for the job before it", "排队中，等待前一个任务"), "running": Both("Running", "运行中"),
    "done": Both("Done", "已完成"), "failed": Both("It failed", "失败"),
    "interrupted": Both("Stopped, as asked", "已按要求停止"),
    "killed": Both("It ended without a word: killed, or the machine went down",
                   "意外终止：被系统结束，或机器重启过"),
}
_STOPPING = Both("Stopping; press again to end it at once", "正在停止；再按一次立即结束")


@dataclass(frozen=True)
class Far:
    """How far a job is. share: from 0 to 1. words: what is done now."""

    share: float
    words: Words = ""


class JobPanel:
    """The panel of one verb's jobs.

    chosen: the dropdown with the jobs so far, whose value is the job's id; a tab that hands a job in sends
    `panel.handed_in(job)` there. ended: a state with the id of the job that is shown once it has ended, "" before: what
    shows a result listens to it.
    """

    def __init__(self, page: Page, verb: str, title: Both, far: Callable[[Job, str], Far | None]):
        """far(job, log): how far a running one is, None where nobody knows."""
        self._page, self._verb, self._far = page, verb, far
        words = page.wording
        self.ended = gr.State("")
        self.chosen = words(gr.Dropdown, label=title, choices=[], elem_id=f"{verb}-jobs", interactive=True,
                            allow_custom_value=True, visible=False)  # a page outlives the server that knew its choices
        self._status = words(gr.HTML, value=lambda language: say(_NOBODY, language), elem_id=f"{verb}-status",
                             container=False)
        self._stop = words(gr.Button, value=Both("Stop", "停止"), variant="stop", visible=False, size="sm",
                           elem_id=f"{verb}-stop")
        with words(gr.Accordion, label=Both("What it prints", "输出日志"), open=False):
            self._log = words(gr.Textbox, label=Both("Log", "日志"), lines=8, max_lines=16, interactive=False,
                              autoscroll=True, elem_id=f"{verb}-log")
        self._timer = gr.Timer(_SECONDS, active=False)
        self._wire()

    def _wire(self) -> None:
        shown = [self._status, self._stop, self._log, self._timer, self.ended]
        asked = [self.chosen, self._page.language]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(None, self.opened, [], self.chosen, **quiet)
        gr.on([self.chosen.change, self._timer.tick], self._show, asked, shown,
              trigger_mode="always_last", **quiet)
        self._stop.click(self._stopped, asked, shown, **quiet)

    def opened(self) -> Any:
        """The jobs so far, the newest shown: when a page is opened."""
        jobs = self._jobs()
        return gr.update(choices=[(_title(job), job.id) for job in jobs], value=jobs[0].id if jobs else None,
                         visible=bool(jobs))

    def handed_in(self, job: Job) -> Any:
        """An update of `chosen` that shows a job that has just been handed in."""
        jobs = [job, *(each for each in self._jobs() if each.id != job.id)]
        return gr.update(choices=[(_title(each), each.id) for each in jobs], value=job.id, visible=True)

    def job(self, id: str | None) -> Job | None:
        """The job of that id, if it is known and of this verb."""
        job = self._page.queue.find(id) if id else None
        return job if job and job.verb == self._verb else None

    def _jobs(self) -> list[Job]:
        return [job for job in self._page.queue.jobs() if job.verb == self._verb]

    def _show(self, id: str | None, language: Language) -> list[Any]:
        job = self.job(id)
        if job is None:
            return [say(_NOBODY, language), gr.update(visible=False), "", gr.update(active=False), ""]
        log = self._page.queue.log(job)
        far = self._far(job, log) if job.status == "running" else None
        return [_status(job, log, far, language), gr.update(visible=job.active), log, gr.update(active=job.active),
                "" if job.active else job.id]

    def _stopped(self, id: str | None, language: Language) -> list[Any]:
        job = self.job(id)
        if job:
            self._stop_it(job, language)
        return self._show(id, language)

    @in_words
    def _stop_it(self, job: Job, language: Language) -> None:
        self._page.queue.stop(job)
        toast(_STOPPING, language, "info")


def _title(job: Job) -> str:
    """When it was handed in, and what it writes: the same in every language."""
    when = datetime.fromtimestamp(job.submitted).strftime("%Y-%m-%d %H:%M")
    return f"{when} · {job.output.name if job.output else job.id}"


def _status(job: Job, log: str, far: Far | None, language: Language) -> str:
    spent = (job.ended or time.time()) - job.started if job.started else 0.0
    words = _STOPPING if job.stopping and job.active else _STATUS[job.status]
    head = f"<strong>{escape(say(words, language))}</strong>"
    told = [head, *([clock(spent)] if job.started else []), *([escape(str(job.output))] if job.output else [])]
    lines = [line for line in log.splitlines() if line.strip()]
    last = say(far.words, language) if far and far.words else lines[-1] if lines else ""
    bar = "" if job.status != "running" else _bar(far, language)
    errors = "".join(f'<li class="error">{escape(line)}</li>' for line in _ERROR.findall(log)) \
        if job.status == "failed" else ""
    return (f'<div class="job {job.status}" role="status"><p>{" · ".join(told)}</p>{bar}'
            f'{f"<ul class=findings>{errors}</ul>" if errors else f"<p class=last>{escape(last)}</p>"}</div>')


def _bar(far: Far | None, language: Language) -> str:
    name = escape(say(Both("progress", "进度"), language))
    value = f' value="{far.share:.3f}"' if far else ""
    return f'<progress max="1"{value} aria-label="{name}" style="width:100%"></progress>'
