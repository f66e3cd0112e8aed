"""Start: the settings are looked at once more, handed to the queue, and the run is shown."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, refuse
from truetune.jobs.queue import Job, Queue
from truetune.run import refusals
from truetune.web.form import Texts, as_file
from truetune.web.roots import Roots
from truetune.web.train.live import State, run_there, state_of

_ONE_AT_A_TIME = Lock()
"""Two clicks, or two pages, look at the queue one after the other."""


def start(texts: Texts, roots: Roots, queue: Queue) -> tuple[Job, Path]:
    """Hand the run in that the form holds; the job, and the folder of the run.

    Raises:
        Problem: the rules refuse it, its folder holds another run, or it waits or runs already.
    """
    state = state_of(texts, roots)
    refuse(state.findings)
    output = roots.inside(state.config.output_dir or "", "output_dir")
    with _ONE_AT_A_TIME:
        twin = next((job for job in queue.jobs() if job.active and job.output and job.output.resolve() == output), None)
        if twin:
            raise Problem(_handed_in(output, twin), WRONG_OPTIONS)
        refuse([*_held(state, roots), *refusals(state.config.with_values("the page", output_dir=str(output)))])
        return queue.submit("train", as_file(state.config, state.sent), output), output


def _handed_in(output: Path, job: Job) -> Finding:
    return Finding("handed-in", "error", Both(
        f"{output.name} {'runs' if job.status == 'running' else 'waits in the queue'} already.",
        f"{output.name} 已经在{'运行' if job.status == 'running' else '排队'}。"), option="output_dir",
        fix=Both("The Runs tab shows it. For a second run take another name.",
                 "可在“运行”标签页查看；要再训练一次，请换个名字。"))


def _held(state: State, roots: Roots) -> list[Finding]:
    """That the folder holds a run, of which nobody said what shall become."""
    there = run_there(state, roots)
    if not there:
        return []
    name = there[0].name
    return [Finding("holds-run", "error", Both(f"{name} holds a run already.", f"{name} 里已有一次运行。"),
                    option="output_dir", fix=Both("Press Go on with it, Another name, or Delete it.",
                                                  "请选择“接着训练”、“换个名字”或“删除”。"))]
