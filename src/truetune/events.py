"""One stream of events: what happens in a run is said once, and everything that shows it listens.

`events.jsonl` holds every event; `trainer_log.jsonl` the same numbers in LLaMA-Factory's shape; the console draws the
progress; the plot is drawn from the events.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from truetune.checkpoint import Progress, means
from truetune.files import write_text
from truetune.findings import Both, Words, spoken
from truetune.report import Terminal
from truetune.run import EVENTS, LOG

Event = dict[str, Any]


class Events:
    """The writer of a run's events. `listeners` are called with each."""

    def __init__(self, folder: Path, listeners: Iterable[Callable[[Event], None]], resume_step: int | None):
        """`resume_step`: drop what a run that goes on from there had already said about later steps."""
        if resume_step is not None:
            for name, key in ((EVENTS, "step"), (LOG, "current_steps")):
                kept = [event for event in read_events(folder / name) if event.get(key, 0) <= resume_step]
                write_text(folder / name, "".join(map(_line, kept)))
        else:
            for name in (EVENTS, LOG):
                (folder / name).unlink(missing_ok=True)
        self._file = (folder / EVENTS).open("a", encoding="utf-8")
        self._listeners = [*listeners, TrainerLog(folder / LOG)]

    def emit(self, kind: str, **values: Any) -> None:
        """`kind`: start, step, eval, checkpoint, note, end. Words in two languages become `text` and `text_zh`."""
        event = {"event": kind, "time": round(time.time(), 3)}
        for name, value in values.items():
            event |= {name: value.en, f"{name}_zh": value.zh} if isinstance(value, Both) else {name: value}
        self._file.write(_line(event))
        self._file.flush()
        if kind in ("checkpoint", "end"):  # what was said before a checkpoint outlives a power cut, as that does
            os.fsync(self._file.fileno())
        for listener in self._listeners:
            listener(event)

    def close(self) -> None:
        self._file.close()


def read_events(path: Path) -> list[Event]:
    """The events in a file; a last line that was cut off by a crash is left out."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def _line(event: Event) -> str:
    """An event as a line of JSON. That has no word for infinity, the gradient of a skipped float16 step: `null`."""
    told = {key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in event.items()}
    return json.dumps(told, ensure_ascii=False) + "\n"


class TrainerLog:
    """`trainer_log.jsonl` as LLaMA-Factory's users and tools read it: its keys, and none where there is no value."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, event: Event) -> None:
        if event["event"] not in ("step", "eval"):
            return
        line = {
            "current_steps": event["step"], "total_steps": event["total_steps"], "loss": event.get("loss"),
            "eval_loss": event.get("eval_loss"), "lr": event.get("learning_rate"), "epoch": event["epoch"],
            "percentage": round(100 * event["step"] / event["total_steps"], 2), "elapsed_time": clock(event["seconds"]),
            "remaining_time": clock(remaining(event)),
            "throughput": event.get("tokens_per_second"), "total_tokens": event.get("tokens"),
            "accuracy": event.get("rewards/accuracies"), "reward": event.get("reward"),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({key: value for key, value in line.items() if value is not None}))


def remaining(event: Event) -> float:
    """Seconds left at the pace so far; 0 before the first step."""
    step = event["step"]
    return event["seconds"] / step * (event["total_steps"] - step) if step else 0.0


def clock(seconds: float) -> str:
    """Seconds as LLaMA-Factory writes them: 0:01:05, and from the second day on `1 day, 0:00:00`."""
    return str(timedelta(seconds=int(seconds)))


class ConsoleProgress:
    """A live bar on a terminal; elsewhere a line for each logged step."""

    def __init__(self, terminal: Terminal, total_steps: int, headline: Sequence[str] = ()):
        """headline: metrics that stand beside the loss."""
        self.headline = headline
        self.terminal, self.total_steps, self.words = terminal, total_steps, _BAR_WORDS[terminal.chinese]
        self.live = terminal.is_terminal
        # The numbers keep their line whole; the bar takes what the terminal has left.
        columns = (TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                   BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
                   TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)))
        self.bar = Bar(*columns, console=terminal, disable=not self.live, expand=True)
        self.task = self.bar.add_task("", total=total_steps, text="")

    def __enter__(self) -> ConsoleProgress:
        self.bar.start()
        self.terminal.show_cursor(True)  # the bar hides it, and a killed process would never bring it back
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, progress: Progress, learning_rate: float) -> None:
        """After every optimizer step: move the bar."""
        rate = progress.tokens / progress.seconds
        left = progress.seconds / progress.step * (self.total_steps - progress.step)
        told = self._told(means(progress.window_metrics))
        text = (f"loss {progress.window_loss / progress.window_count:.4f}  {told}lr {learning_rate:.2e}  "
                f"{rate:,.0f} tokens/s  {self.words['left'].format(clock(left))}")
        self.bar.update(self.task, completed=progress.step, text=text,
                        description=self.words["step"].format(f"{progress.step}/{self.total_steps}"))

    def _told(self, values: Mapping[str, Any], prefix: str = "") -> str:
        """The metrics of the headline, as far as they are there."""
        return "".join(f"{name.split('/')[-1]} {values[prefix + name]:.3f}  " for name in self.headline
                       if values.get(prefix + name) is not None)

    def busy(self, words: Words) -> None:
        """Between steps: what takes its time, such as `evaluating`, in the place of the numbers."""
        self.bar.update(self.task, text=spoken(words, self.terminal.chinese))

    def __call__(self, event: Event) -> None:
        kind, words = event["event"], self.words
        if kind == "start":
            self.bar.update(self.task, completed=event["step"], text=words["first"],
                            description=words["step"].format(f"{event['step']}/{self.total_steps}"))
        elif kind == "step" and not self.live:
            step = words["step"].format(f"{event['step']}/{event['total_steps']}")
            self.terminal.print(
                f"{step}  epoch {event['epoch']:.2f}  loss {event['loss']:.4f}  {self._told(event)}"
                f"lr {event['learning_rate']:.2e}  grad {event['grad_norm']:.2f}  "
                f"{event['tokens_per_second']:,.0f} tokens/s  {words['left'].format(clock(remaining(event)))}")
        elif kind == "eval":
            perplexity = event.get("eval_perplexity")
            told = f"{words['perplexity']} {perplexity:.2f}  " if perplexity else ""
            loss = f"{words['eval']} {event['eval_loss']:.4f}"
            self.terminal.print(
                f"{words['step'].format(event['step'])}  {loss}  {told}{self._told(event, 'eval_')}".rstrip())
        elif kind in ("checkpoint", "note"):
            self.terminal.say(Both(event["text"], event.get("text_zh", event["text"])))


_BAR_WORDS = (
    {"step": "step {}", "left": "{} left", "first": "the first step", "eval": "eval loss", "perplexity": "perplexity"},
    {"step": "第 {} 步", "left": "剩余 {}", "first": "第一步", "eval": "评估 loss", "perplexity": "困惑度"},
)
"""What stands between the numbers, in English and in Chinese."""
