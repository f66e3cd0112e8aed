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
from itertools import combinations, pairwise
from statistics import fmean, median
from typing import Any, Literal

from truetune.findings import Both
from truetune.guide.rates import LORA, WHOLE, by_size
from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.review.gauges import gauge_of

Event = dict[str, Any]
Kind = Literal["spike", "explosion", "diverging", "flat", "by-heart", "overfit"]

_WINDOW, _FEWEST = 20, 10
"""How many logged values "usual" is the median of, and how many it takes at least."""
_BINS = 30
"""The first third of a run is looked at in so many means, however often it logs."""
_BY_HEART = 0.02
"""Nats a token: the right token in 98 of 100 guesses."""


@dataclass(frozen=True)
class Sign:
    """One thing that was seen. value: what was seen; usual: what it is compared with. best: of overfitting, the step
    that was best."""

    kind: Kind
    step: int
    value: float
    usual: float
    words: Both
    best: int | None = None


@dataclass
class Signs:
    """Watches the events of a run. usual_rate: what others have found to work for such a model. kept:
    `save_total_limit`; checkpoints older than that are gone."""

    learning_rate: float
    usual_rate: float
    max_grad_norm: float
    kept: int | None = None
    falls: bool = True
    """Whether the loss falls as training goes on. Where the model learns from its own answers it need not."""
    seen: list[Sign] = field(default_factory=list)
    """Every sign so far; spikes and explosions as often as they came."""
    evaluations: list[Event] = field(default_factory=list)
    last: Event = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss) as logged."""
    norms: list[float] = field(default_factory=list)
    warm: list[Event] = field(default_factory=list)
    """The step events since the warmup."""
    moving: bool | None = None
    """Whether the loss has fallen; None: not sure yet."""
    saved: list[int] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, config: Config, parameters: int) -> Signs:
        """For a run with these options; parameters: how many weights the model has."""
        rates = LORA if KINDS[config.finetuning_type].adapter else WHOLE
        gauge = gauge_of(config)
        return cls(config.learning_rate, by_size(parameters, rates), config.max_grad_norm, config.save_total_limit,
                   gauge is None or gauge.loss)

    @property
    def higher(self) -> str:
        """A rate to try where nothing is learned."""
        return short(max(3 * self.learning_rate, self.usual_rate))

    @property
    def lower(self) -> str:
        """A rate to try where the steps are too large."""
        return short(min(self.learning_rate / 3, self.usual_rate))

    def see(self, event: Event) -> list[Sign]:
        """Take in one event; returns what is to be said now. Of each kind only the first is said."""
        take = {"step": self._take_step, "eval": self.evaluations.append, "checkpoint": self._take_checkpoint}
        if event["event"] not in take:
            return []
        take[event["event"]](event)
        found = [sign for rule in _RULES.get(event["event"], ()) if (sign := rule(self))]
        fresh = [sign for sign in found if sign.kind not in self._told]
        self.seen += [sign for sign in found if sign.kind in _REPEATED or sign in fresh]
        self._told |= {sign.kind for sign in fresh}
        return fresh

    def replay(self, events: Iterable[Event]) -> Signs:
        """Take in the events of earlier, and say nothing."""
        for event in events:
            self.see(event)
        return self

    def told(self, kind: Kind) -> bool:
        return kind in self._told

    def _take_step(self, event: Event) -> None:
        self.last = event
        if self.falls and _finite(event.get("loss")):
            self.losses.append((event["step"], event["loss"]))
        if _finite(event.get("grad_norm")):
            self.norms.append(event["grad_norm"])
        if self.falls and event["learning_rate"] >= 0.5 * self.learning_rate:
            self.warm.append(event)

    def _take_checkpoint(self, event: Event) -> None:
        self.saved.append(event["step"])


def _finite(value: float | None) -> bool:
    """Whether it is a number: the gradient of a skipped float16 step is infinite, in events.jsonl null."""
    return value is not None and math.isfinite(value)


def short(value: float) -> str:
    """Two digits, as people write them: 0.0015, 5e-5, 30."""
    if value >= 0.001 or value == 0:
        return f"{float(f'{value:.2g}'):g}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def unusual(values: Sequence[float], times: float, spreads: float) -> float | None:
    """What is usual among the values before the last one, where that one is far above; None: it is not, or too few are
    known.

    Far: `times` the median, and so many spreads (MAD, as a standard deviation) above it. Both on the scale of
    logarithms, since losses and gradients spread over factors: with one row a step, ten times the median is ordinary.
    """
    window = [math.log(max(value, 1e-6)) for value in values[-_WINDOW - 1 : -1]]
    if len(window) < _FEWEST:
        return None
    middle = median(window)
    spread = 1.4826 * median(abs(value - middle) for value in window)
    far = math.log(max(values[-1], 1e-6)) - middle
    return math.exp(middle) if far > max(math.log(times), spreads * spread) else None


def _spike(run: Signs) -> Sign | None:
    if not run.losses:
        return None
    (step, loss), middle = run.losses[-1], unusual([loss for _, loss in run.losses[-_WINDOW - 1 :]], 1.5, 5)
    if middle is None or loss < middle + 0.5:
        return None
    rate, lower = short(run.learning_rate), run.lower
    return Sign("spike", step, loss, middle, Both(
        f"step {step}: the loss jumped to {loss:.2f} (usual: {middle:.2f}). One jump does no harm; if more come, "
        f"learning_rate: {lower} (now {rate}), or look at the rows of this step.",
        f"第 {step} 步：loss 突然升到 {loss:.2f}（平时约 {middle:.2f}）。偶尔一次没有关系；如果反复出现，可把 "
        f"learning_rate 降到 {lower}（现在是 {rate}），或检查这一步的数据。"))


def _explosion(run: Signs) -> Sign | None:
    middle, step, limit = unusual(run.norms, 10, 4), run.last["step"], run.max_grad_norm
    if middle is None or run.norms[-1] != run.last["grad_norm"] or run.norms[-1] <= max(limit, 1.0):
        return None
    norm = run.norms[-1]
    cut = Both(f"max_grad_norm cut it to {limit:g}, so it did little harm; if more come, learning_rate: {run.lower}.",
               f"max_grad_norm 已把它裁剪到 {limit:g}，影响不大；如果反复出现，请把 learning_rate 降到 {run.lower}。")
    if not limit:
        cut = Both("Nothing cuts it: set max_grad_norm: 1.", "没有裁剪：请设置 max_grad_norm: 1。")
    return Sign("explosion", step, norm, middle, Both(
        f"step {step}: the gradient exploded: grad_norm {norm:.3g}, {norm / middle:.0f} times the usual {middle:.2g}. "
        f"{cut.en}",
        f"第 {step} 步：梯度爆炸，grad_norm 为 {norm:.3g}，是平时 {middle:.2g} 的 {norm / middle:.0f} 倍。{cut.zh}"))


def _diverging(run: Signs) -> Sign | None:
    """The loss is high and stays so: each of the last five is above nine tenths of those before, and half as much again
    as their median. Where few came before, all must be above 6 nats: no model that works is so surprised."""
    losses = [loss for _, loss in run.losses[-_WINDOW - 5 :]]
    last, before = losses[-5:], sorted(losses[:-5])
    if run.told("diverging") or not before:
        return None
    usual, now, least = median(before), median(last), 0.0 if len(before) >= _FEWEST else 6.0
    if min(last) < max(before[int(0.9 * len(before))], least) or now < 1.5 * usual + 0.5:
        return None
    step, rate, lower = run.last["step"], short(run.learning_rate), run.lower
    return Sign("diverging", step, now, usual, Both(
        f"step {step}: the run diverges: the loss stays at {now:.2f}, and was {usual:.2f}. Stop it (Ctrl-C) and start "
        f"anew with learning_rate: {lower} (now {rate}).",
        f"第 {step} 步：训练发散，loss 停在 {now:.2f}，之前是 {usual:.2f}。建议停止（Ctrl-C），把 learning_rate 降到 "
        f"{lower}（现在是 {rate}）重新开始。"))


def _flat(run: Signs) -> Sign | None:
    """Hardly any fall over a third of the run or more, counted from the end of the warmup. Asked until it is sure."""
    step, total = run.last["step"], run.last["total_steps"]
    if run.moving is not None or len(run.warm) < 8 or step - run.warm[0]["step"] + 1 < total / 3:
        return None
    losses, means = _passes(run.warm), _binned(run.warm)
    run.moving = losses[-1] < 0.99 * losses[0] if len(losses) > 1 else falls(means)
    if run.moving is not False:
        return None
    start, now = (losses[0], losses[-1]) if len(losses) > 1 else (fmean(means[:3]), fmean(means[-3:]))
    rate, higher = short(run.learning_rate), run.higher
    return Sign("flat", step, now, start, Both(
        f"step {step} of {total}: not learning: the loss has hardly moved ({start:.2f}, now {now:.2f}). Mostly the "
        f"steps are too small: learning_rate: {higher} (now {rate}). Or little of each row is learned, or the model "
        "knows it all: `truetune data show` tells.",
        f"第 {step}/{total} 步：没有在学习，loss 几乎没动（{start:.2f}，现在 {now:.2f}）。多半是步子太小：把 "
        f"learning_rate 提高到 {higher}（现在是 {rate}）。也可能每行参与学习的内容太少，或模型早就会了：用 `truetune "
        "data show` 查看。"))


def _passes(events: Sequence[Event]) -> list[float]:
    """The mean loss of every whole epoch that was logged often enough: the same rows each time, so what differs was
    learned."""
    window = events[1]["epoch"] - events[0]["epoch"]
    first, last = math.ceil(events[0]["epoch"] - window - 1e-3), math.floor(events[-1]["epoch"] + 1e-3)
    passes = [[event["loss"] for event in events if number < event["epoch"] - 1e-3 <= number + 1]
              for number in range(first, last)]
    return [fmean(losses) for losses in passes if len(losses) >= 4]


def falls(losses: Sequence[float]) -> bool | None:
    """Whether a noisy curve falls (by more than 1 %, beyond what chance explains) or hardly moves; None: too noisy to
    tell.

    It falls all along where more pairs fall than rise (Mann 1945, Kendall 1975; 1.64 standard deviations beyond even),
    or early, to a level where it stays: the second half lies three spreads below the start. Its fall is the median
    slope of all pairs (Theil 1950, Sen 1968), and surely no more than that plus 1.64 standard errors of a line through
    as many points.
    """
    count, late = len(losses), losses[len(losses) // 2 :]
    pairs = list(combinations(range(count), 2))
    fall = -count * median((losses[b] - losses[a]) / (b - a) for a, b in pairs) / losses[0]
    more = sum((losses[a] > losses[b]) - (losses[a] < losses[b]) for a, b in pairs)
    level = median(late)
    noise = 1.4826 * median(abs(loss - level) for loss in late)
    if fall > 0.01 and more > 1.64 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18):
        return True
    if losses[0] - level > max(3 * noise, 0.01 * losses[0]):
        return True
    most = fall + 1.64 * noise / level * math.sqrt(12 / count)
    return False if fall < 0.01 and most < 0.05 else None


def _binned(events: Sequence[Event]) -> list[float]:
    """The losses, as means of neighbours where they are many."""
    count = min(_BINS, len(events))
    cuts = [number * len(events) // count for number in range(count + 1)]
    return [fmean(event["loss"] for event in events[first:last]) for first, last in pairwise(cuts)]


def _by_heart(run: Signs) -> Sign | None:
    losses = [loss for _, loss in run.losses[-3:]]
    if len(losses) < 3 or max(losses) > _BY_HEART:
        return None
    step, epochs = run.last["step"], max(1, math.floor(run.last["epoch"] * 0.7))
    return Sign("by-heart", step, losses[-1], _BY_HEART, Both(
        f"step {step}: the loss is {losses[-1]:.3f}: the rows are known by heart, and more epochs only do harm. Unless "
        f"that is what you want: num_train_epochs: {epochs}, or more rows.",
        f"第 {step} 步：loss 已降到 {losses[-1]:.3f}，数据已经背下来了，再训练只有坏处。除非这正是目的，否则设置 "
        f"num_train_epochs: {epochs}，或增加数据。"))


def _overfit(run: Signs) -> Sign | None:
    """The evaluation loss rises twice in a row, while the training loss falls."""
    evals = run.evaluations
    if len(evals) < 3 or not evals[-3]["eval_loss"] < evals[-2]["eval_loss"] < evals[-1]["eval_loss"]:
        return None
    best = min(evals, key=lambda event: event["eval_loss"])
    at, low, now, step = best["step"], best["eval_loss"], evals[-1]["eval_loss"], evals[-1]["step"]
    after = [loss for place, loss in run.losses if place > at]
    before = [loss for place, loss in run.losses if place <= at][-len(after) :]
    if now - low < max(0.02 * low, 0.01) or not after or not before or median(after) >= median(before):
        return None
    kept = Both("no checkpoint holds it", "没有保存当时的检查点")
    if at in (run.saved[-run.kept :] if run.kept else run.saved):
        kept = Both(f"checkpoint-{at} holds it", f"保存在 checkpoint-{at}")
    epochs = short(best["epoch"])
    return Sign("overfit", step, now, low, Both(
        f"step {step}: overfitting: the evaluation loss rises ({low:.3f} at step {at}, now {now:.3f}) while the "
        f"training loss falls. Step {at} was best ({kept.en}); early_stopping_steps: 2 or num_train_epochs: {epochs} "
        "stops in time.",
        f"第 {step} 步：过拟合，评估 loss 在上升（第 {at} 步 {low:.3f}，现在 {now:.3f}），训练 loss 却在下降。第 {at} "
        f"步最好（{kept.zh}）；early_stopping_steps: 2 或 num_train_epochs: {epochs} 可以及时停下。"), best=at)


_RULES: dict[str, tuple[Callable[[Signs], Sign | None], ...]] = {
    "step": (_spike, _explosion, _diverging, _flat, _by_heart), "eval": (_overfit,)}
_REPEATED = ("spike", "explosion")
"""Kept as often as they come; the others are a state, and kept once."""
