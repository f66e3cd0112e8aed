"""The loss picture: raw values light, smoothed dark, evaluation as dots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from truetune.events import Event


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


def plot_loss(events: Sequence[Event], path: Path) -> None:
    """Draw training_loss.png from a run's events; nothing where there are fewer than two values."""
    steps = [event for event in events if event["event"] == "step"]
    if len(steps) < 2:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    x = [event["step"] for event in steps]
    y = [event["loss"] for event in steps]
    axes.plot(x, y, color="#9ec5e8", linewidth=1, label="loss")
    axes.plot(x, smooth(y), color="#14507f", linewidth=2, label="loss, smoothed")
    evaluated = [event for event in events if event["event"] == "eval"]
    if evaluated:
        axes.plot([e["step"] for e in evaluated], [e["eval_loss"] for e in evaluated], "o-", color="#d1602a",
                  markersize=4, linewidth=1, label="evaluation")
    axes.set(xlabel="step", ylabel="loss per token")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    part = path.with_name(f".{path.name}")
    figure.savefig(part, dpi=130, format="png")
    part.replace(path)
