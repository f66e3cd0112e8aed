"""What became of a run, in words, by rules on numbers: it learned, too little, too much, it forgot, or it broke.

Each rule is a line of `_RULES`; the first that holds is the verdict. The thresholds are judgement, set on runs of
SmolLM2-135M, and the numbers stand beside every verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from truetune.findings import Both
from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.review.gauges import Gauge, Trend
from truetune.review.signs import Signs, short

Kind = Literal["unfinished", "broke", "overfit", "forgot", "too little", "learned"]

_FELL, _MOVED = 0.1, (0.3, 0.02)
"""A loss that falls by a smaller share: too little to be noticed in the answers. By up to the second share too, where
what the model says of other things has not moved by so many nats a token."""
_ROSE = (0.03, 0.02)
"""An evaluation loss above its best by this share, and so many nats at least."""
_FORGOT = 1.0
"""Nats a token by which the model's own first answers have become less likely: a third of what it was."""
_LEAKS = 0.2
"""The share of general questions that are answered with an answer out of the data."""
_NO_MORE = Both("", "")
_BY_HEART = 0.05
_GOAL_STEPS, _MOST_EPOCHS = 100, 10
"""Optimizer steps that a run should have, and how often rows should be seen for it at most."""


@dataclass(frozen=True)
class Numbers:
    """What the files of a run tell.

    signs: the whole log, and what was seen in it. done, total: optimizer steps. finished: whether it came to its end.
    held_out: how many rows. gauge, trend: of a stage whose loss does not tell, what does, and how it went. sample: the
    loss on a few rows before and after, held-out ones if there are any. kept: the
    loss on the model's own first answers to the retention prompts, before and after. same: how many `of` these prompts
    have the same answer as before, leaks: how many an answer out of the data. checkpoints: steps of which one is there.
    """

    config: Config
    signs: Signs
    done: int
    total: int
    steps_per_epoch: int
    finished: bool
    held_out: int
    sample: tuple[float, float] | None = None
    kept: tuple[float, float] | None = None
    same: int = 0
    of: int = 0
    leaks: int = 0
    checkpoints: tuple[int, ...] = ()
    gauge: Gauge | None = None
    trend: Trend | None = None

    @property
    def logged(self) -> tuple[float, float] | None:
        """The training loss at the start, and over the last tenth."""
        losses = [loss for _, loss in self.signs.losses]
        return (losses[0], fmean(losses[-max(1, len(losses) // 10) :])) if len(losses) > 1 else None

    @property
    def fall(self) -> tuple[float, float] | None:
        """The loss before and after: of the same few rows, or where nobody measured them, of the log."""
        return self.sample or self.logged

    @property
    def best(self) -> tuple[int, float, float] | None:
        """Step, epoch and loss of the best evaluation."""
        found = min(self.signs.evaluations, key=lambda event: event["eval_loss"], default=None)
        return (found["step"], found["epoch"], found["eval_loss"]) if found else None


@dataclass(frozen=True)
class Verdict:
    """kind: for programs. title: the verdict. why: the numbers, in sentences. then: what to change or to do next."""

    kind: Kind
    title: Both
    why: list[Both]
    then: list[Both]


def judge(run: Numbers) -> Verdict:
    """The verdict on a run."""
    kind, title, _, then = next(rule for rule in _RULES if rule[2](run))
    reasons = (_unfinished_words, _trend_words, _fall_words, _evaluation_words, _kept_words, _blind_words)
    why = [words for reason in reasons for words in reason(run)]
    return Verdict(kind, title, why, then(run))


# ----------------------------------------------------------------------------------------------------- when each holds


def _got_worse(run: Numbers) -> bool:
    return bool(run.trend and run.trend.worse)


def _broke(run: Numbers) -> bool:
    if run.gauge:
        return False
    rose = run.logged and run.logged[1] > 1.2 * run.logged[0]
    return bool(rose or (run.sample and run.sample[1] > 2 * run.sample[0] + 1))


def _overfit(run: Numbers) -> bool:
    pairs = [run.sample] if run.held_out and run.sample and not run.gauge else []
    if run.best:
        pairs.append((run.best[2], run.signs.evaluations[-1]["eval_loss"]))
    return any(now - low > max(_ROSE[0] * low, _ROSE[1]) for low, now in pairs)


def _forgot(run: Numbers) -> bool:
    return bool(run.kept and (run.kept[1] - run.kept[0] > _FORGOT or run.leaks > _LEAKS * run.of))


def _too_little(run: Numbers) -> bool:
    if run.gauge:
        return bool(run.trend and not run.trend.better)
    if not run.fall:
        return False
    share = 1 - run.fall[1] / run.fall[0]
    still = run.kept is not None and run.kept[1] - run.kept[0] < _MOVED[1]
    return share < _FELL or (share < _MOVED[0] and still)


# ------------------------------------------------------------------------------------------------------------------ why


def _unfinished_words(run: Numbers) -> list[Both]:
    if run.finished:
        return []
    return [Both(f"{run.done:,} of {run.total:,} steps are done. The same command goes on from the last checkpoint.",
                 f"已完成 {run.done:,} / {run.total:,} 步。用同样的命令可以从上一个检查点继续。")]


def _trend_words(run: Numbers) -> list[Both]:
    if not run.gauge or not run.trend:
        return []
    says, before, after = run.gauge.says, f"{run.trend.before:.3g}", f"{run.trend.after:.3g}"
    chance = f"{2 * run.trend.chance:.2g}"
    return [Both(f"{says.en[0].upper()}{says.en[1:]} went from {before} to {after} (first and last fifth of the log; "
                 f"differences up to {chance} may be chance).",
                 f"{says.zh}从 {before} 变为 {after}（日志的前五分之一与后五分之一；{chance} 以内的差别可能是偶然）。")]


def _fall_words(run: Numbers) -> list[Both]:
    if not run.fall or run.gauge:
        return []
    (before, after), (old, new) = run.fall, map(_chance, run.fall)
    rows = Both("its training rows", "训练数据")
    if run.sample and run.held_out:
        rows = Both("rows that it was not trained on", "没有参与训练的数据")
    return [Both(f"On {rows.en} the loss went from {before:.3g} to {after:.3g}: the right next token has a probability "
                 f"of {new} now, {old} before.",
                 f"在{rows.zh}上，loss 从 {before:.3g} 变为 {after:.3g}：正确的下一个 token 的概率从 {old} 变为 "
                 f"{new}。")]


def _chance(loss: float) -> str:
    """The probability behind a mean loss (its geometric mean)."""
    percent = 100 * math.exp(-loss)
    return f"{percent:.3g} %" if percent >= 0.01 else "< 0.01 %"


def _evaluation_words(run: Numbers) -> list[Both]:
    if not run.best or len(run.signs.evaluations) < 2:
        return []
    (step, epoch, loss), last = run.best, run.signs.evaluations[-1]
    if last["step"] == step:
        return [Both(f"The evaluation loss fell to the end ({loss:.3f}): more training may still help.",
                     f"评估 loss 直到最后仍在下降（{loss:.3f}）：继续训练可能还有收益。")]
    return [Both(f"The evaluation loss was best at step {step} (epoch {short(epoch)}): {loss:.3f}. At the end it is "
                 f"{last['eval_loss']:.3f}.",
                 f"评估 loss 在第 {step} 步（epoch {short(epoch)}）最好：{loss:.3f}；结束时为 "
                 f"{last['eval_loss']:.3f}。")]


def _kept_words(run: Numbers) -> list[Both]:
    if not run.kept:
        return []
    lost = run.kept[1] - run.kept[0]
    size, times = _SIZES[(lost > _FORGOT / 10) + (lost > _FORGOT)], f"{max(math.exp(-lost), 0.01):.2f}"
    said = [Both(f"Of other things it has forgotten {size.en}: a token of its earlier answers to {run.of} general "
                 f"questions is {times} times as likely as before. Word for word the same are {run.same} of {run.of} "
                 "answers.",
                 f"对其他内容{size.zh}：训练前它对 {run.of} 个通用问题的回答，现在每个 token 的概率平均是原来的 "
                 f"{times} 倍；{run.of} 个回答中有 {run.same} 个一字不差。")]
    if run.leaks:
        said.append(Both(f"{run.leaks} of {run.of} general questions it now answers with an answer out of your data.",
                         f"{run.of} 个通用问题中，有 {run.leaks} 个现在被它用你数据里的回答来回答。"))
    return said


_SIZES = (Both("hardly anything", "几乎没有遗忘"), Both("a little", "有一点遗忘"), Both("a lot", "遗忘很多"))


def _blind_words(run: Numbers) -> list[Both]:
    """What cannot be known, and what a low loss means."""
    said = []
    learned = None if run.gauge else run.logged if run.held_out else run.fall
    if learned and learned[1] < _BY_HEART:
        said.append(Both(f"It knows its training rows by heart (loss {learned[1]:.2g}).",
                         f"训练数据已经背下来了（loss {learned[1]:.2g}）。"))
    if not run.held_out:
        said.append(Both("How it does on rows it has not seen cannot be known, since none were held out: val_size: 0.1 "
                         "keeps a tenth of them for that.",
                         "没有留出数据，所以无法知道它在没见过的数据上表现如何：val_size: 0.1 会留出十分之一。"))
    if not run.kept and run.finished:
        said.append(Both("What it has forgotten was not measured.", "没有测量遗忘。"))
    return said


# ----------------------------------------------------------------------------------------------------------- what to do


def _set(option: str, value: str, now: float, more: Both = _NO_MORE) -> Both:
    """`learning_rate: 2e-4 (now 0.002).`, and something about it before the stop."""
    return Both(f"{option}: {value} (now {short(now)}){more.en}.",
                f"{option}: {value}（现在是 {short(now)}）{more.zh}。")


def _slower(run: Numbers) -> list[Both]:
    return [_set("learning_rate", run.signs.lower, run.config.learning_rate)]


def _more(run: Numbers) -> list[Both]:
    """A larger rate where it is small, else more steps where they are few."""
    rate, epochs = run.config.learning_rate, min(_MOST_EPOCHS, math.ceil(_GOAL_STEPS / max(run.steps_per_epoch, 1)))
    faster = _set("learning_rate", run.signs.higher, rate)
    if run.total >= _GOAL_STEPS or epochs <= run.config.num_train_epochs:
        return [faster]
    longer = _set("num_train_epochs", str(epochs), run.config.num_train_epochs,
                  Both(f", since {run.total} steps are few", f"，因为 {run.total} 步太少"))
    return [faster, longer] if rate < run.signs.usual_rate / 2 else [longer, faster]


def _earlier(run: Numbers) -> list[Both]:
    """The state of the best evaluation, now or next time."""
    if not run.best or run.best[0] == run.done:
        return [_set("num_train_epochs", "1", run.config.num_train_epochs), *_slower(run)]
    step, epoch, _ = run.best
    said = [_set("num_train_epochs", short(epoch), run.config.num_train_epochs,
                 Both(", or early_stopping_steps: 2", "，或设置 early_stopping_steps: 2"))]
    if step in run.checkpoints:
        said.insert(0, Both(f"Use checkpoint-{step}: it is the best state.",
                            f"使用 checkpoint-{step}：那是最好的状态。"))
    return said


def _gentler(run: Numbers) -> list[Both]:
    said = [_set("learning_rate", short(run.config.learning_rate / 3), run.config.learning_rate,
                 Both(", or fewer epochs, or general rows mixed into the data",
                      "，或减少 epoch，或在数据中混入通用数据"))]
    if not KINDS[run.config.finetuning_type].adapter:
        said.append(Both("finetuning_type: lora, which forgets less (Biderman et al. 2024, arXiv:2405.09673).",
                         "finetuning_type: lora，遗忘更少（Biderman 等 2024，arXiv:2405.09673）。"))
    return [*said, Both("Or nothing, if the new way of answering is what you want: read the answers below.",
                        "也可以什么都不改：请看下面的回答，如果新的回答方式正是你想要的，就没有问题。")]


def _talk(run: Numbers) -> list[Both]:
    return [Both("Talk to it; export it if you like what it says.", "和它对话试试，满意就导出。")]


_RULES: tuple[tuple[Kind, Both, Callable[[Numbers], bool], Callable[[Numbers], list[Both]]], ...] = (
    ("unfinished", Both("Not finished", "尚未完成"), lambda run: not run.finished, lambda run: []),
    ("broke", Both("Broke: the loss rose", "训练失败：loss 上升了"), _broke, _slower),
    ("broke", Both("Broke: it got worse", "训练失败：越训越差"), _got_worse, _slower),
    ("overfit", Both("Overfit: it learned its rows by heart, and got worse on others",
                     "过拟合：背下了训练数据，在其他数据上变差了"), _overfit, _earlier),
    ("forgot", Both("Learned, but forgot: other answers have changed a lot",
                    "学会了，但有遗忘：其他回答变化很大"), _forgot, _gentler),
    ("too little", Both("Too little: hardly anything was learned", "学得太少：几乎没有变化"), _too_little, _more),
    ("learned", Both("Learned", "学会了"), lambda run: True, _talk),
)
