"""Runs in words: `truetune runs`, and the sentences that the web page shows too."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from truetune.events import clock
from truetune.findings import OK, Both, spoken
from truetune.history import History
from truetune.report import Terminal
from truetune.runs import Runs, Status, Summary

WORDS: Mapping[Status, Both] = {
    "waiting": Both("waiting", "排队中"), "running": Both("running", "运行中"), "finished": Both("finished", "已完成"),
    "interrupted": Both("stopped", "已停止"), "failed": Both("failed", "失败"), "killed": Both("killed", "被杀死"),
    "unknown": Both("unknown", "状态未知"),
}
_COLOURS: Mapping[Status, str] = {"waiting": "cyan", "running": "blue", "finished": "green", "interrupted": "yellow",
                                  "failed": "red", "killed": "red", "unknown": "dim"}
_HEAD = (Both("run", "运行"), Both("state", "状态"), Both("step", "步数"), Both("loss", "loss"),
         Both("tokens/s", "tokens/s"), Both("model", "模型"), Both("when", "时间"), Both("size", "大小"))
_NOTES = 5
"""How many of the last things said on the way are shown."""


def print_runs(runs: Runs, as_json: bool, terminal: Terminal) -> int:
    """All runs, a line each, the newest first."""
    found = runs.all()
    if as_json:
        print(json.dumps({"runs": [run.as_dict() for run in found]}, indent=2, ensure_ascii=False))
        return OK
    if not found:
        places = ", ".join(shown_path(root) for root in runs.roots)
        terminal.say(Both(f"there are no runs below {places}, and none in the queue",
                          f"{places} 下没有运行，队列里也没有"))
        return OK
    table = Table(*(spoken(words, terminal.chinese) for words in _HEAD), box=None, pad_edge=False)
    for run in found:
        state = Text(spoken(WORDS[run.status], terminal.chinese), _COLOURS[run.status])
        table.add_row(shown_path(run.folder), state, steps(run), number(run.last.get("loss")),
                      number(run.last.get("tokens_per_second"), ",.0f"), run.model, moment(run.began),
                      size(run.size))
    terminal.print(table)
    return OK


def print_run(run: Summary, as_json: bool, terminal: Terminal) -> int:
    """One run: how it fares, what can be done with it, its newest numbers, and what was said on the way."""
    history = History(run.folder)
    history.update()
    notes = history.notes[-_NOTES:]
    if as_json:
        print(json.dumps({**run.as_dict(), "notes": notes}, indent=2, ensure_ascii=False))
        return OK
    terminal.print(Text(shown_path(run.folder), "bold"))
    terminal.say(told(run))
    if run.message:
        terminal.print(Text(run.message, "red"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts(run):
        table.add_row(spoken(name, terminal.chinese), Text(value))
    terminal.print(table)
    for note in notes:
        if said := note_words(note, terminal.chinese):
            terminal.print(said)
    return OK


def facts(run: Summary) -> list[tuple[Both, str]]:
    """What is known of a run, by name; what is not known is left out."""
    last = run.last
    rows = [
        (Both("model", "模型"), run.model),
        (Both("stage and method", "阶段与方法"), f"{run.stage} · {run.method}" if run.stage else ""),
        (Both("data", "数据"), ", ".join(run.dataset)),
        (Both("step", "步数"), steps(run)),
        (Both("loss", "loss"), number(last.get("loss"))),
        (Both("learning rate", "学习率"), number(last.get("learning_rate"), ".3g")),
        (Both("tokens/s", "tokens/s"), number(last.get("tokens_per_second"), ",.0f")),
        (Both("memory, at most", "内存/显存峰值"), number(last.get("peak_memory_gb"), ".2f", " GB")),
        (Both("time left", "剩余时间"), clock(run.left) if run.left is not None else ""),
        (Both("began", "开始时间"), moment(run.began)),
        (Both("checkpoints", "检查点"), ", ".join(map(str, run.saved))),
        (Both("on the disk", "占用磁盘"), size(run.size) if run.size else ""),
    ]
    return [(name, value) for name, value in rows if value]


def steps(run: Summary) -> str:
    """`12/48`, and before the first step nothing."""
    return f"{run.step:,}/{run.total_steps:,}" if run.total_steps else f"{run.step:,}" if run.step else ""


def number(value: float | None, form: str = ".4f", unit: str = "") -> str:
    """A value as text, "" where there is none."""
    return "" if value is None else f"{value:{form}}{unit}"


def note_words(event: Mapping[str, object], chinese: bool) -> str:
    """What a note says; "" where it says nothing in words."""
    said = event.get("text_zh" if chinese and "text_zh" in event else "text")
    return said if isinstance(said, str) else ""


def told(run: Summary) -> Both:
    """How a run fares, and what can be done with it, in a sentence or two."""
    return _SENTENCES[run.status](run)


def _waiting(run: Summary) -> Both:
    if not run.ahead:
        return Both("It is next, and starts at once.", "即将开始。")
    jobs = "job is" if run.ahead == 1 else "jobs are"
    return Both(f"Waits: {run.ahead} {jobs} before it.", f"排队中：前面还有 {run.ahead} 个任务。")


def _running(run: Summary) -> Both:
    if run.stopping:
        return Both("Stopping: it ends the step it is in, and saves a checkpoint.",
                    "正在停止：完成当前步后保存检查点。")
    if not run.last.get("step"):
        return Both("Getting ready: model and data are read and checked. The first step comes in a moment.",
                    "准备中：正在读取并检查模型和数据，马上开始第一步。")
    left = clock(run.left or 0)
    return Both(f"Trains: step {run.step:,} of {run.total_steps:,}, about {left} left.",
                f"训练中：第 {run.step:,} / {run.total_steps:,} 步，约剩 {left}。")


def _finished(run: Summary) -> Both:
    steps = Both(f" after {run.step:,} steps", f"，共 {run.step:,} 步") if run.step else Both("", "")
    use = Both(" The model can be used: chat with it, or export it.", "模型已可使用：可以对话或导出。") \
        if run.usable else Both("", "")
    return Both(f"Finished{steps.en}.{use.en}", f"已完成{steps.zh}。{use.zh}")


def _interrupted(run: Summary) -> Both:
    return Both(f"Stopped at step {run.step:,}. {_kept(run).en}", f"已在第 {run.step:,} 步停止。{_kept(run).zh}")


def _failed(run: Summary) -> Both:
    at = Both(f" at step {run.step:,}", f"（第 {run.step:,} 步）") if run.step else Both("", "")
    return Both(f"It failed{at.en}. {_kept(run).en}", f"运行失败{at.zh}。{_kept(run).zh}")


def _killed(run: Summary) -> Both:
    return Both(f"Its process was ended from outside at about step {run.step:,}: killed, out of memory, or the machine "
                f"went down. {_kept(run).en}",
                f"进程在约第 {run.step:,} 步被外部终止：被杀死、内存不足或机器重启。{_kept(run).zh}")


def _unknown(run: Summary) -> Both:
    return Both("Its folder does not say how it fares.", "文件夹里没有运行状态。")


_SENTENCES: Mapping[Status, Callable[[Summary], Both]] = {
    "waiting": _waiting, "running": _running, "finished": _finished, "interrupted": _interrupted,
              "failed": _failed, "killed": _killed, "unknown": _unknown}


def _kept(run: Summary) -> Both:
    """From where it can go on, and what can be used."""
    if run.resumable:
        step = run.resumable[-1]
        return Both(f"checkpoint-{step} is whole: it can be used, and Resume goes on from there.",
                    f"checkpoint-{step} 是完整的：可以直接使用，也可以从那里继续训练。")
    if run.saved:
        return Both(f"checkpoint-{run.saved[-1]} can be used, but not gone on from.",
                    f"checkpoint-{run.saved[-1]} 可以使用，但不能从它继续训练。")
    return Both("There is no checkpoint yet, so it starts from the beginning again.",
                "还没有检查点，再次运行会从头开始。")


def size(count: int) -> str:
    """Bytes as people read them: 13 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 999.5 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count} B"


def moment(seconds: float) -> str:
    """A time of day where the reader is: 2026-11-23 19:56."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""


def shown_path(folder: Path) -> str:
    """Relative to the working folder where it lies below that."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) and folder != here else str(folder)


def reason(message: str) -> str:
    """Why a run failed, without the word for its severity, which the reader sees already."""
    return re.sub(r"^(error|错误)  ", "", message)
