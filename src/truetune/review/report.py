"""The report of a run: report.md and report.html, written from the files of its folder alone, so that it can be written
again later, elsewhere, in the other language.

It is told once, as a list of blocks in English and Chinese; `page` and `markdown` each write that list. Text that comes
from a user or a model (`str` in a block) is data: the writers escape it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truetune.checkpoint import checkpoints
from truetune.events import Event, read_events
from truetune.files import read_json, write_text
from truetune.findings import Both
from truetune.options import OPTIONS, Config
from truetune.options.read import read_config
from truetune.options.terms import TERMS
from truetune.plot import LOSS, STEPS, metric_file, plot_loss, plot_metric, plot_steps
from truetune.review.blocks import Answers, Block, Command, Heading, Lines, Picture, Table
from truetune.review.gauges import gauge_of, trend
from truetune.review.markdown import markdown
from truetune.review.page import page
from truetune.review.signs import Signs
from truetune.review.verdict import Numbers, Verdict, judge
from truetune.run import CONFIG, EVENTS

_SAID = 12
"""Characters of an answer of the data that nobody says by chance."""
MARKDOWN, HTML = "report.md", "report.html"
_PROBES, _RESULTS = "probes.json", "all_results.json"
_HIDDEN = ("model_name_or_path", "output_dir", "dataset", "do_train", "stage")
"""Options that are no choice between values; the first lines of the report name them."""


def write_report(folder: Path, chinese: bool = False) -> list[Both]:
    """Write report.md, in one language, and report.html, in both, into a run folder.

    Returns:
        The verdict, and where the report is: lines for a terminal.

    Raises:
        Problem, OSError: the folder holds no run, or cannot be written.
    """
    material = gather(folder)
    blocks = list(story(material, draw(material)))
    title = Both(f"{folder.resolve().name}: report", f"{folder.resolve().name}：训练报告")
    write_text(folder / MARKDOWN, markdown(title, blocks, chinese))
    write_text(folder / HTML, page(title, blocks, folder, chinese))
    verdict = material.verdict
    first = Both(f"{verdict.title.en}. {verdict.why[0].en if verdict.why else ''}",
                 f"{verdict.title.zh}。{verdict.why[0].zh if verdict.why else ''}")
    then = [Both(f"Next: {words.en}", f"下一步：{words.zh}") for words in verdict.then[:1]]
    return [first, *then, Both(f"the whole report: {folder / HTML}", f"完整报告：{folder / HTML}")]


# ------------------------------------------------------------------------------------------------------------- material


@dataclass(frozen=True)
class Material:
    """All that the files of a run say."""

    folder: Path
    config: Config
    events: list[Event]
    results: dict[str, Any]
    probes: dict[str, Any]
    numbers: Numbers
    verdict: Verdict


def gather(folder: Path) -> Material:
    """Read the files of a run folder; those that are missing count as empty.

    Raises:
        Problem: there is no config.yaml.
    """
    config, _ = read_config([str(folder / CONFIG)])
    events, probes = read_events(folder / EVENTS), read_json(folder / _PROBES)
    start = next((event for event in reversed(events) if event["event"] == "start"), {})
    facts, end = start.get("facts", {}), next((event for event in events if event["event"] == "end"), None)
    gauge = gauge_of(config)
    signs = Signs.of(config, start.get("parameters", 0)).replay(events)
    numbers = Numbers(
        config, signs, signs.last.get("step", 0), start.get("total_steps", 0), facts.get("steps_per_epoch", 0),
        end is not None, facts.get("rows_held_out", 0), _pair(probes, "sample"), _pair(probes, "kept"), *_kept(probes),
        tuple(int(path.name.removeprefix("checkpoint-")) for path in checkpoints(folder)),
        gauge, trend(events, gauge) if gauge else None)
    return Material(folder, config, events, read_json(folder / _RESULTS), probes, numbers, judge(numbers))


def _pair(probes: dict[str, Any], name: str) -> tuple[float, float] | None:
    """A number of before and after; None: one of them is missing."""
    before, after = probes.get("before"), probes.get("after")
    return (before[name], after[name]) if before and after else None


def _asked(probes: dict[str, Any], yours: bool) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]]:
    """Each prompt with its answer before and after (None: nobody asked)."""
    if not probes.get("before"):
        return []
    after = probes["after"]["answers"] if probes["after"] else [None] * len(probes["probes"])
    return [told for told in zip(probes["probes"], probes["before"]["answers"], after, strict=True)
            if (told[0]["about"] == "yours") == yours]


def _kept(probes: dict[str, Any]) -> tuple[int, int, int]:
    """Of the retention prompts: how many have the same answer as before, how many there are, and how many are answered
    with what the data say to another prompt."""
    told = [(before["text"], after["text"]) for _, before, after in _asked(probes, yours=False) if after]
    wanted = [probe["wanted"] for probe in probes.get("probes", []) if len(probe["wanted"] or "") >= _SAID]
    leaks = sum(any(text in after and text not in before for text in wanted) for before, after in told)
    return sum(before == after for before, after in told), len(told), leaks


def draw(material: Material) -> list[str]:
    """Draw the pictures, unless `plot_loss` is off; the names of those there are."""
    folder, config, signs = material.folder, material.config, material.numbers.signs
    if not config.plot_loss:
        return []
    spikes = [(sign.step, sign.value) for sign in signs.seen if sign.kind == "spike"]
    drawn = {LOSS: plot_loss(material.events, folder / LOSS, spikes),
             STEPS: plot_steps(material.events, folder / STEPS, config.max_grad_norm)}
    gauge = material.numbers.gauge
    if gauge and not gauge.falls:
        drawn[metric_file(gauge.key)] = plot_metric(material.events, folder / metric_file(gauge.key), gauge.key)
    return [name for name, done in drawn.items() if done]


# ---------------------------------------------------------------------------------------------------------------- story


def story(material: Material, pictures: Sequence[str]) -> Iterator[Block]:
    """The report as blocks, the verdict first."""
    verdict, config, probes = material.verdict, material.config, material.probes
    model, data = config.model_name_or_path or "", ", ".join(config.dataset)
    yield Lines([Both(f"{config.finetuning_type} of {model} on {data or 'no data'}",
                      f"{config.finetuning_type}，模型 {model}，数据 {data or '无'}")])
    yield Heading(verdict.title, verdict.kind)
    yield Lines(verdict.why)
    if verdict.then:
        yield Lines(verdict.then, Both("What to do next", "下一步"))
    yield from _before_after(probes)
    yield from _curves(material, pictures)
    if probes.get("rows"):
        yield from _hardest(probes)
    yield from _results(material)
    yield from _settings(config)
    yield from _go_on(material)


def _before_after(probes: dict[str, Any]) -> Iterator[Block]:
    yield Heading(Both("Before and after", "训练前后对照"))
    if probes.get("why"):
        en, zh = probes["why"]
        yield Lines([Both(f"There are no answers: {en}.", f"没有回答：{zh}。")])
    for yours in (True, False):
        asked = _asked(probes, yours)
        if asked:
            yield Lines([_OF_YOURS[asked[0][0]["where"] is None] if yours else _OF_OTHERS])
            yield Answers([(probe["text"], probe["where"], probe["wanted"], _answer(before), _answer(after))
                           for probe, before, after in asked], folded=not yours)


_OF_YOURS = (Both("Questions of your data. Answers are cut after 48 tokens (…).",
                  "你的数据中的问题。回答截到 48 个 token（…）。"),
             Both("Your prompts. Answers are cut after 48 tokens (…).", "你的提示。回答截到 48 个 token（…）。"))
_OF_OTHERS = Both("General questions, to see what was forgotten.", "通用问题，用来看忘了什么。")


def _answer(answer: dict[str, Any] | None) -> str | None:
    return None if answer is None else answer["text"] + ("" if answer["ended"] else " …")


def _curves(material: Material, pictures: Sequence[str]) -> Iterator[Block]:
    yield Heading(Both("The course of training", "训练过程"))
    captions = {
        LOSS: Both("Loss: how surprised the model is by the answers it learns. It should fall, fast at first. More: "
                   "truetune explain loss.",
                   "loss：模型对要学的回答有多意外。应当先快后慢地下降。详见 truetune explain loss。"),
        STEPS: Both("Learning rate: how large each step was. Gradient: how much the rows of a step wanted to change; "
                    "single peaks are harmless.",
                    "学习率：每一步走多大。梯度：每一步的数据想改变多少；偶尔的尖峰无害。")}
    gauge = material.numbers.gauge
    if gauge and not gauge.falls:
        captions[metric_file(gauge.key)] = Both(f"{gauge.key}: {gauge.says.en}. It should rise.",
                                                f"{gauge.key}：{gauge.says.zh}，应当上升。")
        captions[LOSS] = Both(f"The loss of this stage. Whether it learns is told by {gauge.key}.",
                              f"这一阶段的 loss。是否学会要看 {gauge.key}。")
    for name in pictures:
        yield Picture(name, captions[name])
    seen = material.numbers.signs.seen
    if seen:
        told = [sign.words for sign in seen[:_MOST_SIGNS]]
        more = len(seen) - len(told)
        yield Lines([*told, *([Both(f"… and {more} more.", f"……以及另外 {more} 处。")] if more else [])],
                    Both("What stood out", "值得注意的地方"))
    else:
        yield Lines([Both("Nothing stood out: no spike, no exploding gradient.", "没有异常：没有突跳，没有梯度爆炸。")])


_MOST_SIGNS = 12


def _hardest(probes: dict[str, Any]) -> Iterator[Block]:
    yield Heading(Both("Rows that were hardest", "最难的数据"))
    usual = f"{probes['typical']:.2f}"
    yield Lines([Both(f"Their loss at the end of training is high (the median row has {usual}). Wrong or odd answers "
                      "are often among them: look at these first.",
                      f"训练结束时这些行的 loss 很高（中位数为 {usual}）。错误或奇怪的回答常在其中：请先检查它们。")])
    yield Table((Both("row", "位置"), "loss", Both("question", "问题"), Both("answer", "回答")),
                [(row["where"], f"{row['loss']:.2f}", row["question"], row["answer"]) for row in probes["rows"]])


def _results(material: Material) -> Iterator[Block]:
    if not material.results:
        return
    yield Heading(Both("Results", "结果"))
    yield Table((Both("result", "结果"), Both("value", "数值"), Both("what it is", "含义")),
                [(name, f"{value:,}" if isinstance(value, int) else f"{value:.4g}", _meaning(name))
                 for name, value in material.results.items()])


def _meaning(name: str) -> Both | str:
    """What a result is, in a sentence, where the terms of the log explain it."""
    term = next((term for key, term in TERMS.items() if name == key or name in term.also), None)
    return Both(term.what[0].split(": ")[0], term.what[1].split("：")[0]) if term else ""


def _settings(config: Config) -> Iterator[Block]:
    changed = [option for name, option in OPTIONS.items()
               if name not in _HIDDEN and config.given(name) and getattr(config, name) != option.default]
    if not changed:
        return
    yield Heading(Both("Settings that differ from the defaults", "与默认值不同的设置"))
    yield Table((Both("option", "选项"), Both("value", "取值"), Both("default", "默认值"),
                 Both("what it does", "含义")),
                [(option.name, _value(getattr(config, option.name)), option.default_text or "–",
                  Both(option.text.en, option.text.zh)) for option in changed])


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _go_on(material: Material) -> Iterator[Block]:
    folder = shlex.quote(str(material.folder))
    yield Heading(Both("How to go on", "接下来"))
    yield Command(Both("Talk to it", "与它对话"), f"truetune chat {folder}")
    if (material.folder / "adapter_config.json").is_file():
        merged = shlex.quote(str(material.folder / "merged"))
        yield Command(Both("Merge the adapter into its model, to serve it elsewhere", "把适配器合并进模型，用于部署"),
                      f"truetune export {folder} export_dir={merged}")
    config = shlex.quote(str(material.folder / CONFIG))
    yield Command(Both("Train again with something changed (what stands on the line wins)",
                       "改动后重新训练（以命令行的设置为准）"),
                  f"truetune train {config} output_dir=saves/next learning_rate={material.numbers.signs.lower}")
