"""The pictures of a run: its loss, and the steps it took. Raw values light, smoothed dark, what matters marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from truetune.events import Event

LOSS, STEPS = "training_loss.png", "training_steps.png"
_LIGHT, _DARK, _ORANGE, _RED = "#9ec5e8", "#14507f", "#d1602a", "#c62828"


def smooth(values: Sequence[float]) -> list[float]:
    """A mean around each value in which one that is n steps away counts keep^n. It reaches a thirtieth of the values to
    both sides (2 to 50): a moving average that only looks back lies above a falling loss."""
    keep = min(0.98, max(0.5, 1 - 30 / max(len(values), 1)))
    sums, counts = _decaying(values, keep), _decaying([1.0] * len(values), keep)
    return [total / count for total, count in zip(sums, counts, strict=True)]


def _decaying(values: Sequence[float], keep: float) -> list[float]:
    """Of each place i, the sum over j of keep^|i - j| values[j]: a running sum from the left and one from the right."""

    def run(ordered: Iterable[float]) -> list[float]:
        return list(accumulate(ordered, lambda total, value: keep * total + value))

    left, right = run(values), run(reversed(values))[::-1]
    return [a + b - value for a, b, value in zip(left, right, values, strict=True)]


def plot_loss(events: Sequence[Event], path: Path, spikes: Iterable[tuple[int, float]] = ()) -> bool:
    """Draw training_loss.png from a run's events: loss, evaluations, the best of these where later ones are worse.

    Args:
        spikes: (step, loss) of odd steps, which get a cross.

    Returns:
        Whether there was anything to draw: fewer than two values are none.
    """
    points = [(event["step"], event["loss"]) for event in events if event["event"] == "step"]
    if len(points) < 2:
        return False
    figure = _figure(4)
    axes = figure.subplots()
    _curve(axes, points, "loss")
    odd = list(spikes)
    if odd:
        axes.plot(*zip(*odd, strict=True), "x", color=_RED, markersize=8, markeredgewidth=2, label="spike")
    evaluated = [(event["step"], event["eval_loss"]) for event in events if event["event"] == "eval"]
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), "o-", color=_ORANGE, markersize=4, linewidth=1, label="evaluation")
        best = min(evaluated, key=lambda point: point[1])
        if best != evaluated[-1]:
            axes.axvline(best[0], color=_ORANGE, linewidth=1, linestyle=":", label=f"best evaluation: step {best[0]}")
    axes.set(xlabel="step", ylabel="loss")
    axes.set_ylim(bottom=min(0, *(loss for _, loss in points)))
    _save(figure, path)
    return True


def metric_file(name: str) -> str:
    """The picture of a metric, by the name LLaMA-Factory gives it: training_rewards_accuracies.png."""
    return f"training_{name.replace('/', '_')}.png"


def plot_metric(events: Sequence[Event], path: Path, name: str) -> bool:
    """Draw a metric of the objective from a run's events, with its values at evaluations.

    Returns:
        Whether there was anything to draw.
    """
    steps = [event for event in events if event["event"] == "step"]
    points = [(event["step"], event[name]) for event in steps if event.get(name) is not None]
    if len(points) < 2:
        return False
    figure = _figure(4)
    axes = figure.subplots()
    _curve(axes, points, name)
    evaluated = [(event["step"], event[f"eval_{name}"]) for event in events if event.get(f"eval_{name}") is not None]
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), "o-", color=_ORANGE, markersize=4, linewidth=1, label="evaluation")
    axes.set(xlabel="step", ylabel=name)
    _save(figure, path)
    return True


def plot_steps(events: Sequence[Event], path: Path, max_grad_norm: float = 0.0) -> bool:
    """Draw the learning rate and the length of the gradient, one above the other.

    Args:
        max_grad_norm: where longer gradients were cut; 0: nowhere.

    Returns:
        Whether there was anything to draw.
    """
    steps = [event for event in events if event["event"] == "step"]
    norms = [(event["step"], event["grad_norm"]) for event in steps if event["grad_norm"] is not None]
    if len(norms) < 2:
        return False
    figure = _figure(5)
    rate, gradient = figure.subplots(2, 1, sharex=True)
    rate.plot([event["step"] for event in steps], [event["learning_rate"] for event in steps], color=_DARK, linewidth=2)
    rate.set(ylabel="learning rate")
    rate.set_ylim(bottom=0)
    _curve(gradient, norms, "gradient")
    if max_grad_norm:
        gradient.axhline(max_grad_norm, color=_ORANGE, linewidth=1, linestyle=":",
                         label=f"cut above {max_grad_norm:g} (max_grad_norm)")
    gradient.set(xlabel="step", ylabel="length of the gradient")
    if max(norm for _, norm in norms) > 30 * sorted(norm for _, norm in norms)[len(norms) // 2]:
        gradient.set_yscale("log")
    else:
        gradient.set_ylim(bottom=0)
    _save(figure, path)
    return True


def _figure(height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(7, height), layout="constrained")


def _curve(axes: Any, points: Sequence[tuple[int, float]], name: str) -> None:
    x, y = [step for step, _ in points], [value for _, value in points]
    axes.plot(x, y, color=_LIGHT, linewidth=1, label=name)
    axes.plot(x, smooth(y), color=_DARK, linewidth=2, label=f"{name}, smoothed")


def _save(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(axes.lines) > 1:
            axes.legend(frameon=False)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, dpi=130, format="png")
    part.replace(path)
