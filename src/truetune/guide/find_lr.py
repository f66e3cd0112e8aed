"""`truetune find-lr`, top to bottom: the trials, a table, a picture, what to set, and setting it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from truetune.findings import FAILED, INTERRUPTED, OK, Both, problem
from truetune.guide.picture import draw_range, draw_trials
from truetune.guide.trials import Search, Trial, search, sweep
from truetune.guide.verdict import Verdict, judge, judge_range
from truetune.options import Config
from truetune.options.edit import set_in_yaml
from truetune.report import Terminal


@dataclass(frozen=True)
class Wish:
    """What the user asked for. ranging: the range test rather than three trials. steps: of a trial. picture: where it
    goes. apply: the file whose learning_rate is set to what is suggested; None: none."""

    ranging: bool
    steps: int | None
    picture: Path
    apply: Path | None


def find_lr(config: Config, wish: Wish, terminal: Terminal) -> int:
    """Try learning rates and say which to set. Returns the exit status.

    Raises:
        Problem: the run could not start, or the picture cannot be written.
    """
    began = time.monotonic()
    if wish.ranging:
        found = sweep(config, wish.steps, terminal)
        verdict = judge_range(found)
    else:
        found = search(config, wish.steps, terminal)
        verdict = judge(found)
        terminal.print(_table(found, terminal.chinese))
    _draw(found, verdict, wish, terminal)
    took = time.monotonic() - began
    terminal.say(Both(f"{verdict.words.en} ({took:.0f} s)", f"{verdict.words.zh}（{took:.0f} 秒）"))
    if wish.apply and verdict.change and not found.interrupted:
        set_in_yaml(wish.apply, {"learning_rate": verdict.rate})
        terminal.say(Both(f"learning_rate is {verdict.rate:g} in {wish.apply} now",
                          f"{wish.apply} 中的 learning_rate 已改为 {verdict.rate:g}"))
    return INTERRUPTED if found.interrupted else FAILED if verdict.rate is None else OK


def _draw(found: Search, verdict: Verdict, wish: Wish, terminal: Terminal) -> None:
    if not any(len(trial.losses) > 1 for trial in found.trials):
        return
    try:
        wish.picture.parent.mkdir(parents=True, exist_ok=True)
        (draw_range if wish.ranging else draw_trials)(found, verdict.rate, wish.picture)
    except OSError as error:
        raise problem("not-writable", Both(f"{wish.picture} cannot be written: {error.strerror}.",
                                           f"无法写入 {wish.picture}：{error.strerror}。"), option="--output") from None
    terminal.say(Both(f"picture: {wish.picture}", f"图：{wish.picture}"))


def _table(found: Search, chinese: bool) -> Table:
    """Each rate, what its last steps lost, and what it made of the held-out rows."""
    table = Table(box=None, pad_edge=False)
    names = ("learning_rate", Both("training loss", "训练损失"), Both("held-out loss", "评估损失"))
    for name in names:
        table.add_column(name if isinstance(name, str) else name[chinese], justify="right")
    if found.before:
        table.add_row(Both("(before)", "（训练前）")[chinese], "", f"{found.before.loss:.4f}")
    for trial in found.trials:
        table.add_row(f"{trial.rate:g}", _late(trial), _judged(trial)[chinese])
    return table


def _late(trial: Trial) -> str:
    """The mean loss of the last tenth of the steps, of five at least."""
    last = trial.losses[-max(5, len(trial.losses) // 10) :]
    return f"{sum(last) / len(last):.4f}" if last else ""


def _judged(trial: Trial) -> Both:
    if trial.held_out:
        return Both(*[f"{trial.held_out.loss:.4f}"] * 2)
    return Both("diverged", "发散") if trial.diverged else Both("stopped", "已停止")
