"""The pictures of a search for the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truetune.guide.trials import Search, Trial, rates_around
from truetune.guide.verdict import difference
from truetune.plot import smooth

_COLOURS = ("#3b8ea5", "#14507f", "#d1602a")


def draw_trials(search: Search, suggested: float | None, path: Path) -> None:
    """Left the loss of each trial by step, right the held-out loss of each rate, with what noise may make of its
    difference to the present rate."""
    figure = _figure(10)
    steps, rates = figure.subplots(1, 2, width_ratios=(3, 2))
    for trial, colour in zip(search.trials, _COLOURS, strict=False):
        _line(steps, range(1, len(trial.losses) + 1), trial, colour)
    steps.set(xlabel="step", ylabel="loss per token")
    judged = [(trial, trial.held_out) for trial in search.trials if trial.held_out]
    here = next((held_out for trial, held_out in judged if trial.rate == search.config.learning_rate), None)
    for trial, held_out in judged:
        error = 2 * difference(held_out, here)[1] if here else 0.0
        rates.errorbar([trial.rate], [held_out.loss], yerr=[error], fmt="o", markersize=8, capsize=4,
                       color=_COLOURS[search.trials.index(trial)])
    rates.plot(*zip(*((trial.rate, held_out.loss) for trial, held_out in judged), strict=True) if judged else ((), ()),
               color="#888888", linewidth=1, zorder=0)
    if search.before:
        rates.plot([], [], " ", label=f"before training: {search.before.loss:.3g}")
    _mark(rates, suggested)
    tried = rates_around(search.config.learning_rate)
    rates.set(xlabel="learning rate", ylabel="held-out loss per token", xscale="log", xlim=(tried[0] / 2, tried[2] * 2))
    rates.set_xticks(tried, [f"{rate:g}" for rate in tried])
    rates.set_xticks([], minor=True)
    _finish(figure, path)


def draw_range(search: Search, suggested: float | None, path: Path) -> None:
    """The loss over the logarithm of the rate."""
    figure = _figure(7)
    axes = figure.subplots()
    (trial,) = search.trials
    _line(axes, trial.rates, trial, "#14507f")
    _mark(axes, suggested)
    axes.set(xlabel="learning rate", ylabel="loss per token", xscale="log", ylim=(0, 1.5 * trial.losses[0]))
    _finish(figure, path)


def _line(axes: Any, x: Sequence[float], trial: Trial, colour: str) -> None:
    """The loss, light, and smoothed."""
    axes.plot(x, trial.losses, color=colour, linewidth=1, alpha=0.3)
    if len(trial.losses) > 1:
        name = f"{trial.rate:g}{' (diverged)' if trial.diverged else ''}"
        axes.plot(x, smooth(trial.losses), color=colour, linewidth=2, label=name)


def _figure(width: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 4), layout="constrained")


def _mark(axes: Any, suggested: float | None) -> None:
    if suggested:
        axes.axvline(suggested, color="#2c8a4b", linewidth=1, linestyle="--", label=f"suggested: {suggested:g}")


def _finish(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, dpi=130, format="png")
    part.replace(path)
