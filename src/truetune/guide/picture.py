"""The pictures of a search for the learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truetune.guide.trials import Search
from truetune.plot import smooth

_COLOURS = ("#3b8ea5", "#14507f", "#d1602a")


def draw_trials(search: Search, suggested: float | None, path: Path) -> None:
    """Left the smoothed loss of each trial by step, right the held-out loss of each rate."""
    figure = _figure(10)
    steps, rates = figure.subplots(1, 2, width_ratios=(3, 2))
    for trial, colour in zip(search.trials, _COLOURS, strict=False):
        x = range(1, len(trial.losses) + 1)
        steps.plot(x, trial.losses, color=colour, linewidth=1, alpha=0.25)
        if len(trial.losses) > 1:
            name = f"{trial.rate:g}{' (diverged)' if trial.diverged else ''}"
            steps.plot(x, smooth(trial.losses), color=colour, linewidth=2, label=name)
        if trial.held_out:
            rates.plot([trial.rate], [trial.held_out.loss], "o", color=colour, markersize=8)
    judged = [(trial.rate, trial.held_out.loss) for trial in search.trials if trial.held_out]
    rates.plot(*zip(*sorted(judged), strict=True) if judged else ((), ()), color="#888888", linewidth=1, zorder=0)
    if search.before:
        rates.axhline(search.before.loss, color="#888888", linestyle=":", label="before training")
    _mark(rates, suggested)
    steps.set(xlabel="step", ylabel="loss per token")
    rates.set(xlabel="learning rate", ylabel="held-out loss per token", xscale="log",
              xlim=(search.trials[0].rate / 2, search.config.learning_rate * 6))
    rates.set_xticks([trial.rate for trial in search.trials], [f"{trial.rate:g}" for trial in search.trials])
    rates.set_xticks([], minor=True)
    _finish(figure, path)


def draw_range(search: Search, suggested: float | None, path: Path) -> None:
    """The loss over the logarithm of the rate."""
    figure = _figure(7)
    axes = figure.subplots()
    (trial,) = search.trials
    axes.plot(trial.rates, trial.losses, color="#9ec5e8", linewidth=1, label="loss")
    if len(trial.losses) > 1:
        axes.plot(trial.rates, smooth(trial.losses), color="#14507f", linewidth=2, label="loss, smoothed")
    _mark(axes, suggested)
    axes.set(xlabel="learning rate", ylabel="loss per token", xscale="log")
    _finish(figure, path)


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
