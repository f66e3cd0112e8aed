"""What a search for the learning rate comes to, in words: the rate to set, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from truetune.findings import Both
from truetune.guide.trials import HeldOut, Search, Trial
from truetune.plot import smooth

NOISE = 0.01
"""A difference below this share of the loss is none: another seed would change as much. Our judgement."""


@dataclass(frozen=True)
class Verdict:
    """rate: what to set, None where nothing is known. change: whether that is another one than now."""

    rate: float | None
    change: bool
    words: Both


def difference(one: HeldOut, other: HeldOut) -> tuple[float, float]:
    """How much less `one` loses a token than `other` on the same rows, and the standard error of that: of a ratio of
    sums over rows (Cochran 1977, Sampling Techniques, equation 6.13), so long rows count as they do in the loss."""
    gain = other.losses - one.losses
    mean = gain.sum() / one.counts.sum()
    rest, rows = gain - mean * one.counts, len(gain)
    return float(mean), float(math.sqrt(rows / max(rows - 1, 1) * (rest**2).sum()) / one.counts.sum())


@dataclass(frozen=True)
class _Outcome:
    """A search as the verdicts look at it. best: of the trials that learned; here: the trial at the present rate."""

    search: Search
    best: Trial | None
    here: Trial | None

    @property
    def known(self) -> int:
        return sum(trial.diverged or trial.held_out is not None for trial in self.search.trials)

    @property
    def noise(self) -> bool:
        """Whether the best trial is no better than the present rate beyond noise."""
        if not (self.best and self.best.held_out and self.here and self.here.held_out):
            return False
        gain, error = difference(self.best.held_out, self.here.held_out)
        return gain < max(2 * error, NOISE * self.here.held_out.loss)

    def gap(self) -> str:
        """By how much the best trial is better than the present one."""
        if not (self.best and self.best.held_out and self.here and self.here.held_out):
            return ""
        gain, error = difference(self.best.held_out, self.here.held_out)
        return f"{gain:.3f} ± {2 * error:.3f}"


@dataclass(frozen=True)
class _Case:
    """What is said `when(outcome)`. rate: what to set; None: nothing."""

    when: Callable[[_Outcome], bool]
    rate: Callable[[_Outcome], float | None]
    words: Both


_CASES: tuple[_Case, ...] = (
    _Case(lambda o: o.known < 2, lambda o: None, Both(
        "fewer than two rates were tried, so there is nothing to compare.", "试过的学习率不到两个，无法比较。")),
    _Case(lambda o: o.best is None, lambda o: _two_digits(o.search.trials[0].rate / 10), Both(
        "no rate made the held-out rows better: all of these are too high, or the data teach something else than the "
        "held-out rows ask. Try learning_rate: {rate:g}.",
        "没有一个学习率让留出数据变好：要么都太高，要么数据教的与留出数据问的不是一回事。请试试 learning_rate: "
        "{rate:g}。")),
    _Case(lambda o: o.here is None, lambda o: None, Both(
        "the present rate was not tried, so there is nothing to compare with.", "还没有试当前的学习率，无法比较。")),
    _Case(lambda o: o.here is not None and not o.here.held_out, lambda o: _of(o.best), Both(
        "set learning_rate: {rate:g}, since the present one diverges.",
        "设为 learning_rate: {rate:g}，因为当前的会发散。")),
    _Case(lambda o: o.best is o.here, lambda o: _of(o.here), Both(
        "keep learning_rate: {rate:g}. No other rate did better.", "保持 learning_rate: {rate:g}，没有更好的。")),
    _Case(lambda o: o.noise, lambda o: _of(o.here), Both(
        "keep learning_rate: {rate:g}. {best:g} was better by {gap} a token, which is within noise.",
        "保持 learning_rate: {rate:g}。{best:g} 每个 token 好 {gap}，在噪声范围内。")),
    _Case(lambda o: o.best is not None and o.best.rate > _of(o.here, 0), lambda o: _of(o.best), Both(
        "set learning_rate: {rate:g}. It is better than {here:g} by {gap} a token, more than noise. The best may lie "
        "higher still: search again from there.",
        "设为 learning_rate: {rate:g}。它每个 token 比 {here:g} 好 {gap}，超出噪声。最佳值可能更高："
        "可从那里再搜一次。")),
    _Case(lambda o: True, lambda o: _of(o.best), Both(
        "set learning_rate: {rate:g}. It is better than {here:g} by {gap} a token, more than noise. The best may lie "
        "lower still: search again from there.",
        "设为 learning_rate: {rate:g}。它每个 token 比 {here:g} 好 {gap}，超出噪声。最佳值可能更低："
        "可从那里再搜一次。")),
)

_DIVERGED = Both(" {diverged} diverged: worse than before training.", "{diverged} 发散了：比训练前还差。")
_UNFINISHED = Both(" Not all rates were tried to the end.", "并非每个学习率都试完了。")
_LONGER = Both(" The whole run is {times:.0f} times as long as these were, and a longer run wants a somewhat smaller "
               "rate: "
               "look at its held-out loss.",
               "完整训练的步数是试训练的 {times:.0f} 倍，步数越多，合适的学习率往往略小：请留意训练时的评估损失。")


def judge(search: Search) -> Verdict:
    """What the trials of `trials.search` say."""
    before = search.before.loss if search.before else math.inf
    learned = [trial for trial in search.trials if trial.held_out and trial.held_out.loss < before]
    best = min(learned, key=lambda trial: trial.held_out.loss if trial.held_out else math.inf, default=None)
    present = search.config.learning_rate
    here = next((trial for trial in search.trials if trial.rate == present), None)
    outcome = _Outcome(search, best, here)
    case = next(case for case in _CASES if case.when(outcome))
    rate = case.rate(outcome)
    change = rate is not None and rate != present
    diverged = [trial.rate for trial in search.trials
                if trial.diverged or (trial.held_out and not trial.held_out.loss < before)]
    longer = change and rate is not None and rate > present and search.of > 5 * search.steps
    words = (case.words, *([_DIVERGED] if diverged else []), *([_LONGER] if longer else []),
             *([_UNFINISHED] if search.interrupted else []))
    values = {"rate": rate, "here": present, "best": _of(best, 0), "gap": outcome.gap(),
              "diverged": ", ".join(f"{rate:g}" for rate in diverged), "times": search.of / max(search.steps, 1)}
    return Verdict(rate, change, Both(*("".join(part[chinese] for part in words).format(**values)
                                        for chinese in (False, True))))


def judge_range(search: Search) -> Verdict:
    """What the range test says: where the smoothed loss falls fastest over the logarithm of the rate, but a tenth of
    where it exploded at most."""
    (trial,) = search.trials
    if len(trial.losses) < 10:
        return Verdict(None, False, Both("too few steps were taken to say anything.", "步数太少，无法判断。"))
    losses, rates = np.array(smooth(trial.losses)), np.array(trial.rates)
    lowest = int(losses.argmin())
    if losses[0] - losses[lowest] < NOISE * losses[0]:
        return Verdict(None, False, Both("the loss falls nowhere in this range: the data may teach nothing new.",
                                         "在这个范围内损失没有下降：数据可能没有新东西可学。"))
    steepest = float(rates[np.gradient(losses, np.log(rates))[: lowest + 1].argmin()])
    rate = _two_digits(min(steepest, trial.rates[-1] / 10) if trial.diverged else steepest)
    exploded = f"{trial.rates[-1]:.2g}" if trial.diverged else None
    return Verdict(rate, rate != search.config.learning_rate, Both(
        f"about learning_rate: {rate:g}. The loss falls fastest at {steepest:.2g}"
        f"{f' and explodes at {exploded}' if exploded else ' and does not explode'}. A range test is rough, by a "
        f"factor of "
        "3 either way: search around it without --range.",
        f"大约 learning_rate: {rate:g}。损失在 {steepest:.2g} 处下降最快，"
        f"{f'在 {exploded} 处爆炸' if exploded else '没有爆炸'}。范围测试比较粗略，上下可差 3 倍："
        "请以它为中心，不加 --range 再搜一次。"))


def _of(trial: Trial | None, otherwise: float | None = None) -> float:
    return trial.rate if trial else otherwise  # pyright: ignore[reportReturnType]


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")
