"""The numbers of runs as curves: SVG drawn here, so that the page loads no library, follows dark and light, and is
redrawn in one piece without flicker.

Raw values light, smoothed ones dark, as in the pictures of a run. Gradio's own LinePlot has one line a colour and no
light one behind it. Lines stretch with the page; letters do not, since they are HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from matplotlib.ticker import MaxNLocator

from truetune.findings import Both
from truetune.history import History
from truetune.web.words import Language, say

_POINTS = 300
"""Of a line, at most: a third of the pixels that it has."""
_PLACES = 80
"""At which the pointer is told the exact values."""
_WIDTH, _HEIGHT = 1000, 300
_FIRST, _LAST = ("loss",), ("learning_rate", "grad_norm", "tokens_per_second", "peak_memory_gb")
_RAW = ("learning_rate", "peak_memory_gb")
"""Numbers without noise, drawn as they are, as evaluations are: smoothed, they would lag behind themselves."""
_TITLES: Mapping[str, Both] = {
    "loss": Both("loss", "loss（损失）"), "learning_rate": Both("learning rate", "学习率"),
    "grad_norm": Both("length of the gradient", "梯度范数"),
    "tokens_per_second": Both("tokens a second", "每秒 token 数"),
    "peak_memory_gb": Both("memory at most, GB", "内存/显存峰值（GB）"), "reward": Both("reward", "奖励"),
    "rewards/accuracies": Both("share of pairs whose chosen answer gained more", "更偏向 chosen 的样本对比例"),
    "rewards/margins": Both("lead of chosen over rejected", "chosen 相对 rejected 的领先"),
    "eval_perplexity": Both("perplexity of held-out rows", "留出数据的困惑度"),
}
_NONE = Both("There are no numbers yet. The first ones come with the first logged step.",
             "还没有数据。第一个记录的步完成后会显示。")
_LEGEND = Both("Light: as logged. Dark: smoothed. Dashed with dots: held-out rows. Point at a curve for exact values.",
               "浅色：原始值。深色：平滑后。带点虚线：留出数据。把指针放在曲线上可看精确值。")


@dataclass(frozen=True)
class Line:
    """Values over steps, both (n,), the steps rising."""

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


def smoothed(values: np.ndarray, weight: float) -> np.ndarray:
    """The moving average that TensorBoard draws: each value counts (1 - weight), the average so far weight, and the
    start from zero is corrected (Kingma & Ba 2014, arXiv 1412.6980, section 3).

    Args:
        values: (n,). weight: 0 (as they are) to below 1.
    """
    average, correction, found = 0.0, 1.0, []
    for value in values.tolist():
        average = weight * average + (1 - weight) * value
        correction *= weight
        found.append(average / (1 - correction))
    return np.array(found)


def thinned(line: Line, points: int = _POINTS) -> Line:
    """At most so many points that look the same: of each stretch of steps its lowest and its highest value."""
    if len(line) <= points:
        return line
    borders = np.linspace(0, len(line), points // 2 + 1).astype(int)
    kept = {0, len(line) - 1}
    for begin, end in pairwise(borders):
        part = line.values[begin:end]
        kept |= {int(begin + part.argmin()), int(begin + part.argmax())}
    places = np.array(sorted(kept))
    return Line(line.steps[places], line.values[places])


def curves(histories: Mapping[str, History], weight: float, language: Language) -> str:
    """Every number that the runs have logged, a chart each.

    Args:
        histories: by the name that is shown, in the order of their colours.
        weight: of the smoothing.
    """
    names = {name for history in histories.values() for name in history.columns}
    if not names:
        return f'<p class="none">{escape(say(_NONE, language))}</p>'
    legend = "".join(f'<span class="k{place % 8}">■ {escape(name)}</span>' for place, name in enumerate(histories))
    head = (f'<p class="legend">{legend if len(histories) > 1 else ""}'
            f"<small>{escape(say(_LEGEND, language))}</small></p>")
    return head + f'<div class="charts">{"".join(_chart(n, histories, weight, language) for n in _order(names))}</div>'


def _order(names: set[str]) -> list[str]:
    """The loss first, then what the stage shows beside it, then how it trains; evaluations lie in the chart of the
    same number."""
    alone = {name for name in names if name.removeprefix("eval_") == name or name.removeprefix("eval_") not in names}
    middle = sorted(alone - set(_FIRST) - set(_LAST))
    return [name for name in (*_FIRST, *middle, *_LAST) if name in alone]


def _lines(name: str, histories: Mapping[str, History]) -> list[Line | None]:
    """The values of `name` in each of the runs that have them."""
    found: list[Line | None] = []
    for history in histories.values():
        steps, values = history.columns.get(name, ([], []))
        count = min(len(steps), len(values))  # it may grow while this looks
        found.append(Line(np.array(steps[:count]), np.array(values[:count])) if count else None)
    return found


def _chart(name: str, histories: Mapping[str, History], weight: float, language: Language) -> str:
    raw, held_out = _lines(name, histories), _lines(f"eval_{name}", histories)
    weight = 0.0 if name in _RAW or name.startswith("eval_") else weight
    smooth = [Line(line.steps, smoothed(line.values, weight)) if line and weight else line for line in raw]
    every = [line for line in (*raw, *held_out) if line]
    frame = _Frame.around(every)
    body = [*(frame.path(line, f"k{place % 8} raw") for place, line in enumerate(raw) if line and weight),
            *(frame.path(line, f"k{place % 8}") for place, line in enumerate(smooth) if line),
            *(frame.path(line, f"k{place % 8} eval") for place, line in enumerate(held_out) if line)]
    dots = "".join(frame.dots(line, f"k{place % 8}") for place, line in enumerate(held_out) if line)
    title = say(_TITLES.get(name, name), language)
    ends = ", ".join(f"{run}: {_told(line.values[0])} → {_told(line.values[-1])}"
                     for run, line in zip(histories, raw, strict=True) if line)
    return (f'<figure><figcaption>{escape(title)} <code>{escape(name)}</code></figcaption><div class="plot">'
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(f"{title}; {ends}")}">{"".join(body)}</svg>{dots}{frame.ticks()}'
            f"{_places(frame, histories, raw, held_out)}</div></figure>")


def _places(frame: _Frame, histories: Mapping[str, History], raw: Sequence[Line | None],
            held_out: Sequence[Line | None]) -> str:
    """Stripes over the chart; the one under the pointer (or finger) shows the values of a step."""
    steps = np.unique(np.concatenate([line.steps for line in (*raw, *held_out) if line]))
    shown = steps[np.unique(np.linspace(0, len(steps) - 1, min(_PLACES, len(steps))).round().astype(int))]
    middles = [frame.x(step) for step in shown]
    borders = [0.0, *((a + b) / 2 for a, b in pairwise(middles)), float(_WIDTH)]
    found = []
    for place, step in enumerate(shown):
        values = [f"<br>{escape(f'{name}: ') if len(histories) > 1 else ''}{words}{_told(line.values[at])}"
                  for lines, words in ((raw, ""), (held_out, "eval "))
                  for name, line in zip(histories, lines, strict=True)
                  if line and (at := int(np.searchsorted(line.steps, step))) < len(line) and line.steps[at] == step]
        side = "l" if middles[place] > _WIDTH / 2 else "r"
        found.append(f'<i style="left:{borders[place] / _WIDTH:.2%};'
                     f'width:{(borders[place + 1] - borders[place]) / _WIDTH:.2%}">'
                     f'<b class="{side}">{step:,}{"".join(values)}</b></i>')
    return "".join(found)


def _told(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


@dataclass(frozen=True)
class _Frame:
    """What a chart shows, in the numbers of its runs."""

    left: float
    right: float
    low: float
    high: float

    @classmethod
    def around(cls, lines: Sequence[Line]) -> _Frame:
        """Lines, with a little room above and below."""
        left, right = min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines)
        low, high = min(float(line.values.min()) for line in lines), max(float(line.values.max()) for line in lines)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        bottom = 0.0 if low >= 0 and low - room < 0.25 * high else low - room
        return cls(float(left), float(max(right, left + 1)), bottom, high + room)

    def x(self, step: float) -> float:
        return _WIDTH * (step - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        return _HEIGHT * (self.high - value) / (self.high - self.low)

    def path(self, line: Line, style: str) -> str:
        few = thinned(line)
        points = " ".join(f"{self.x(step):.0f},{self.y(value):.0f}"
                          for step, value in zip(few.steps.tolist(), few.values.tolist(), strict=True))
        return f'<polyline class="{style}" points="{points}"/>'

    def dots(self, line: Line, style: str) -> str:
        """Of evaluations, and round however the chart is stretched."""
        few = thinned(line, 60)
        return "".join(f'<u class="{style}" style="left:{self.x(step) / _WIDTH:.2%};top:{self.y(value) / _HEIGHT:.2%}">'
                       "</u>" for step, value in zip(few.steps.tolist(), few.values.tolist(), strict=True))

    def ticks(self) -> str:
        """Round numbers along both sides."""
        across = [step for step in MaxNLocator(5, integer=True).tick_values(self.left, self.right)
                  if self.left <= step <= self.right]
        up = [value for value in MaxNLocator(4).tick_values(self.low, self.high) if self.low <= value <= self.high]
        return "".join([*(f'<s class="x" style="left:{self.x(step) / _WIDTH:.2%}">{step:,.0f}</s>' for step in across),
                        *(f'<s class="y" style="top:{self.y(value) / _HEIGHT:.2%}">{_told(value)}</s>'
                          for value in up)])


STYLE = """
--k0: #1f5fa8; --k1: #b3541e; --k2: #217a4b; --k3: #8a3fa0; --k4: #a83248; --k5: #66611c; --k6: #0f7581; --k7: #6b5344;
.dark & { --k0: #7fb8f5; --k1: #f0a06a; --k2: #7fd79d; --k3: #d79be8; --k4: #f08a9d; --k5: #d6cf6a; --k6: #6fd0dc;
  --k7: #cbb09e; }
.k0 { --c: var(--k0); } .k1 { --c: var(--k1); } .k2 { --c: var(--k2); } .k3 { --c: var(--k3); }
.k4 { --c: var(--k4); } .k5 { --c: var(--k5); } .k6 { --c: var(--k6); } .k7 { --c: var(--k7); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .3rem 0; }
.legend span { color: var(--c); overflow-wrap: anywhere; }
.legend small, .none { color: var(--body-text-color-subdued); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1.2rem 1.5rem; }
figure { margin: 0; min-width: 0; } figure:first-child { grid-column: 1 / -1; }
figcaption { font-size: .9rem; margin-bottom: .4rem; }
figcaption code { color: var(--body-text-color-subdued); font-size: .75rem; background: none; border: 0; padding: 0; }
.plot { position: relative; height: 10rem; margin: 0 .5rem 1.4rem 3.2rem; border: 1px solid var(--border-color-primary);
  border-width: 0 0 1px 1px; }
figure:first-child .plot { height: 15rem; }
svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
polyline { fill: none; stroke: var(--c); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.raw { stroke-width: 1; opacity: .4; } .eval { stroke-dasharray: 5 4; stroke-width: 1.5; }
u { position: absolute; width: 7px; height: 7px; margin: -3.5px; border-radius: 50%; background: var(--c); }
s { position: absolute; text-decoration: none; font-size: .72rem; line-height: 1; white-space: nowrap;
  color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
s.x { top: calc(100% + .35rem); transform: translateX(-50%); } s.y { right: calc(100% + .35rem);
  transform: translateY(-50%); }
i { position: absolute; top: 0; bottom: 0; } i:hover { border-left: 1px solid var(--body-text-color-subdued); }
i b { display: none; position: absolute; top: .2rem; z-index: 5; padding: .25rem .5rem; border-radius: .3rem;
  font: normal .75rem/1.5 inherit; font-weight: normal; font-style: normal; font-size: .75rem; white-space: nowrap;
  pointer-events: none; background: var(--background-fill-primary); color: var(--body-text-color);
  border: 1px solid var(--border-color-primary); }
i b.r { left: .5rem; } i b.l { right: .5rem; } i:hover b { display: block; }
"""
"""For a `gr.HTML(css_template=STYLE)` that holds what `curves` gives."""
