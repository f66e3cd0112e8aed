"""Warning signs in the numbers of a run: a spike, an explosion, nothing learned, too much learned.

Events go in, words come out; nothing else is read or kept. So the same signs are seen while the run goes, again when it
is resumed, and again by whoever reads its events.jsonl. Each rule compares a value with the median of those before it,
which a few odd values do not move, and asks for more than noise explains. The thresholds were set on real runs: none of
them speaks on an ordinary one (tests/test_review.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean, median
from typing import Any, Literal

from truetune.findings import Both

Kind = Literal["spike", "explosion", "diverging", "flat", "overfit", "by-heart"]

_WINDOW, _FEWEST = 30, 10
"""How many logged values "usual" is the median of, and how many it takes at least."""
_BINS = 30
"""The first third of a run is looked at in so many means, however often it logs."""
_BY_HEART = 0.02  # nats a token: the right token in 98 of 100 guesses


@dataclass(frozen=True)
class Sign:
    """One thing that was seen. value: what was seen, usual: what it is compared with, both in the unit of the curve. best:
    of overfitting, the step that was best."""

    kind: Kind
    step: int
    value: float
    usual: float
    words: Both
    best: int | None = None


@dataclass
class Signs:
    """Watches a run's events.

    learning_rate, max_grad_norm: the options. kept: `save_total_limit`; older checkpoints are gone.
    """

    learning_rate: float
    max_grad_norm: float
    kept: int | None = None
    seen: list[Sign] = field(default_factory=list)
    """Every sign so far, each spike and explosion among them."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)

    def see(self, event: dict[str, Any]) -> list[Sign]:
        """Take in one event; returns what is to be said now. Of each kind only the first is said."""
        if event["event"] == "checkpoint":
            self.saved.append(event["step"])
        history = {"step": self.steps, "eval": self.evaluations}.get(event["event"])
        if history is None:
            return []
        history.append(event)
        found = [sign for rule in _RULES[event["event"]] if (sign := rule(self))]
        found = [sign for sign in found if sign.kind in _REPEATED or sign.kind not in self._told]
        self.seen += found
        fresh = [sign for sign in found if sign.kind not in self._told]
        self._told |= {sign.kind for sign in fresh}
        return fresh

    def curve(self, name: str) -> list[float]:
        """The values of one number of the step events, oldest first; those that are not finite are left out."""
        values = (event.get(name) for event in self.steps)
        return [value for value in values if value is not None and math.isfinite(value)]

    def replay(self, events: Iterable[dict[str, Any]]) -> Signs:
        """Take in the events of earlier, and say nothing."""
        for event in events:
            self.see(event)
        return self


def short(value: float) -> str:
    """Two digits, as people write them: 0.0015, 5e-5, 30."""
    if value >= 0.001 or value == 0:
        return f"{float(f'{value:.2g}'):g}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def _usual(values: Sequence[float]) -> tuple[float, float] | None:
    """Median and spread (MAD, as a standard deviation) of the values before the last one; None: too few."""
    window = values[-_WINDOW - 1 : -1]
    if len(window) < _FEWEST:
        return None
    middle = median(window)
    return middle, 1.4826 * median(abs(value - middle) for value in window)


def _spike(run: Signs) -> Sign | None:
    losses = run.curve("loss")
    usual = _usual(losses)
    if not usual:
        return None
    loss, (middle, spread), step = losses[-1], usual, run.steps[-1]["step"]
    if loss <= middle + max(8 * spread, 0.5 * middle, 0.2):
        return None
    lower = short(run.learning_rate / 3)
    return Sign("spike", step, loss, middle, Both(
        f"step {step}: the loss jumped to {loss:.2f}, where {middle:.2f} was usual. One jump does no harm; if more come, "
        f"learning_rate: {lower} (now {short(run.learning_rate)}), or look at the rows of this step.",
        f"第 {step} 步：loss 突然升到 {loss:.2f}，平时约为 {middle:.2f}。偶尔一次没有关系；如果反复出现，可把 learning_rate "
        f"降到 {lower}（现在是 {short(run.learning_rate)}），或检查这一步的数据。"))


def _explosion(run: Signs) -> Sign | None:
    norms = run.curve("grad_norm")
    usual = _usual(norms)
    if not usual or run.steps[-1].get("grad_norm") != norms[-1]:
        return None
    norm, middle, limit = norms[-1], usual[0], run.max_grad_norm
    if norm <= max(10 * middle, limit, 1.0):
        return None
    step, lower = run.steps[-1]["step"], short(run.learning_rate / 3)
    cut = Both(f"max_grad_norm cut it to {limit:g}, so this step did little harm; if more come, learning_rate: {lower}.",
               f"max_grad_norm 已把它裁剪到 {limit:g}，这一步影响不大；如果反复出现，请把 learning_rate 降到 {lower}。")
    if not limit:
        cut = Both("Nothing cuts it: set max_grad_norm: 1.", "没有任何裁剪：请设置 max_grad_norm: 1。")
    return Sign("explosion", step, norm, middle, Both(
        f"step {step}: the gradient exploded: grad_norm {norm:.3g}, {norm / middle:.0f} times the usual {middle:.2g}. "
        f"{cut.en}",
        f"第 {step} 步：梯度爆炸，grad_norm 为 {norm:.3g}，是平时 {middle:.2g} 的 {norm / middle:.0f} 倍。{cut.zh}"))


def _diverging(run: Signs) -> Sign | None:
    """The loss is high and stays high: the median of five, against the lowest one so far, or against the start where it
    went up at once."""
    losses = run.curve("loss")
    if len(losses) < 6:
        return None
    now = median(losses[-5:])
    lowest = min(median(losses[end - 5 : end]) for end in range(5, len(losses) + 1))
    usual = lowest if now > 1.5 * lowest + 0.5 else losses[0] if now > max(2 * losses[0], 6) else None
    if usual is None:
        return None
    step, lower = run.steps[-1]["step"], short(run.learning_rate / 10)
    return Sign("diverging", step, now, usual, Both(
        f"step {step}: the run diverges: the loss stays at {now:.2f} and was {usual:.2f} before. Stop it (Ctrl-C) and "
        f"start again with learning_rate: {lower} (now {short(run.learning_rate)}).",
        f"第 {step} 步：训练正在发散，loss 停在 {now:.2f}，之前是 {usual:.2f}。建议停止（Ctrl-C），用 learning_rate: {lower} 重新"
        f"开始（现在是 {short(run.learning_rate)}）。"))


def _flat(run: Signs) -> Sign | None:
    """Hardly any fall over the first third, once the warmup is over. Asked once, when that third is done."""
    steps = run.steps
    warm = [event for event in steps if (event.get("learning_rate") or 0) >= 0.5 * run.learning_rate]
    if "flat?" in run._told or len(warm) < 8:
        return None
    step, total = steps[-1]["step"], steps[-1]["total_steps"]
    if step - warm[0]["step"] + 1 < total / 3:
        return None
    run._told.add("flat?")
    losses = _binned([event["loss"] for event in warm], _BINS)
    start, now = losses[0], median(losses[len(losses) // 2 :])
    if falls(losses):
        return None
    higher = short(run.learning_rate * 10)
    return Sign("flat", step, now, start, Both(
        f"step {step} of {total}: the loss has hardly fallen ({start:.3f} → {now:.3f}): not learning. Mostly the steps are "
        f"too small: learning_rate: {higher} (now {short(run.learning_rate)}). Else little of a row is learned, or the "
        "model knows it already: `truetune data show` tells.",
        f"第 {step}/{total} 步：loss 几乎没有下降（{start:.3f} → {now:.3f}），没有在学习。多半是步子太小：把 learning_rate 调到 "
        f"{higher}（现在是 {short(run.learning_rate)}）。否则可能是每行参与学习的内容太少，或模型早已会了：用 `truetune data "
        "show` 查看。"))


def falls(losses: Sequence[float]) -> bool:
    """Whether a noisy curve falls by more than 1 %, beyond what chance explains: either all along (Mann 1945 and Kendall:
    more pairs fall than rise, 1.64 standard deviations beyond even; the size by Theil and Sen, the median slope of all
    pairs), or early, to a level where it stays (its second half lies 3 standard errors below the start)."""
    count, late = len(losses), losses[len(losses) // 2 :]
    pairs = list(combinations(range(count), 2))
    slope = median((losses[b] - losses[a]) / (b - a) for a, b in pairs)
    more = sum((losses[a] > losses[b]) - (losses[a] < losses[b]) for a, b in pairs)
    steadily = more > 1.64 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18) and -slope * count > 0.01 * losses[0]
    level = median(late)
    noise = 1.4826 * median(abs(loss - level) for loss in late)
    return steadily or losses[0] - level > max(3 * noise * math.sqrt(1 + 1.57 / len(late)), 0.01 * losses[0])


def _binned(values: Sequence[float], bins: int) -> list[float]:
    """Means of neighbours, `bins` of them; fewer values stay as they are."""
    count = min(bins, len(values))
    cuts = [number * len(values) // count for number in range(count + 1)]
    return [fmean(values[first:last]) for first, last in zip(cuts, cuts[1:], strict=False)]


def _by_heart(run: Signs) -> Sign | None:
    losses = run.curve("loss")[-3:]
    if len(losses) < 3 or max(losses) > _BY_HEART:
        return None
    step, epoch = run.steps[-1]["step"], run.steps[-1]["epoch"]
    return Sign("by-heart", step, losses[-1], _BY_HEART, Both(
        f"step {step}: the loss is {losses[-1]:.3f}: the rows are known by heart, and further epochs only harm. Unless that "
        f"is what you want: num_train_epochs: {max(1, math.floor(epoch * 0.7))}, or more rows.",
        f"第 {step} 步：loss 已降到 {losses[-1]:.3f}，数据已被背下来，继续训练只有坏处。除非这正是你要的，否则设置 "
        f"num_train_epochs: {max(1, math.floor(epoch * 0.7))}，或增加数据。"))


def _overfit(run: Signs) -> Sign | None:
    """The evaluation loss rises twice in a row, the training loss falls on."""
    evals = run.evaluations
    if len(evals) < 3 or not evals[-3]["eval_loss"] < evals[-2]["eval_loss"] < evals[-1]["eval_loss"]:
        return None
    best = min(evals, key=lambda event: event["eval_loss"])
    after = [event["loss"] for event in run.steps if event["step"] > best["step"]]
    before = [event["loss"] for event in run.steps if event["step"] <= best["step"]][-len(after) :]
    if evals[-1]["eval_loss"] < 1.01 * best["eval_loss"] or not after or not before or median(after) >= median(before):
        return None
    step, at, low, now = evals[-1]["step"], best["step"], best["eval_loss"], evals[-1]["eval_loss"]
    kept = Both(f"checkpoint-{at} holds that state", f"checkpoint-{at} 保存了当时的状态")
    if at not in (run.saved[-run.kept :] if run.kept else run.saved):
        kept = Both("no checkpoint holds that state", "没有保存当时状态的检查点")
    epochs = short(best["epoch"])
    return Sign("overfit", step, now, low, Both(
        f"step {step}: overfitting: the evaluation loss has risen twice ({low:.3f} at step {at} → {now:.3f}) while the "
        f"training loss falls. Step {at} was best, {kept.en}; num_train_epochs: {epochs} or early_stopping_steps: 2 stops "
        "in time.",
        f"第 {step} 步：过拟合，评估 loss 连续两次上升（第 {at} 步 {low:.3f} → {now:.3f}），而训练 loss 仍在下降。第 {at} 步最好，"
        f"{kept.zh}；设置 num_train_epochs: {epochs} 或 early_stopping_steps: 2 可以及时停下。"), best=at)


_RULES: dict[str, tuple[Callable[[Signs], Sign | None], ...]] = {
    "step": (_spike, _explosion, _diverging, _flat, _by_heart), "eval": (_overfit,)}
_REPEATED = ("spike", "explosion")
"""Seen as often as they come; the others are a state, and seen once."""
