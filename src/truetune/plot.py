"""The loss picture: raw values light, smoothed dark, evaluation as dots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from truetune.events import Event


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving average without the pull of its start (as in Adam: Kingma and Ba 2015, arXiv:1412.6980,
    section 3). It looks back over about a tenth of the values, and over 2 at least."""
    keep = min(0.99, max(0.5, 1 - 10 / max(len(values), 1)))
    average, smoothed = 0.0, []
    for number, value in enumerate(values, start=1):
        average = keep * average + (1 - keep) * value
        smoothed.append(average / (1 - keep**number))
    return smoothed


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
