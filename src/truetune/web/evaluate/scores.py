"""What evaluations have found, read from their folders: numbers with what they mean and which way is better, and
answers beside those that the data give."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from truetune.evaluate.similarity import PACKAGES, bleu
from truetune.findings import Both, Words
from truetune.options.terms import TERMS

PREDICTIONS = "generated_predictions.jsonl"
_DEEP = 4
"""Folders below a root that are looked into: saves/<model>/<method>/<run>."""
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Meaning:
    """What a number is, in words. better: which way; None: it says nothing of how good the model is."""

    words: Both
    better: Better | None = None


@dataclass(frozen=True)
class Score:
    """A number as it was measured. error: its standard error."""

    name: str
    value: float
    meaning: Meaning
    error: float | None = None

    def __str__(self) -> str:
        return f"{self.value:,.4g}" + (f" ± {self.error:.2g}" if self.error is not None else "")


def _term(name: str, better: Better) -> Meaning:
    return Meaning(Both(*TERMS[name].what), better)


MEANINGS: Mapping[str, Meaning] = {
    "rouge-1": Meaning(Both("words that answer and reference share, per cent (F1)",
                            "回答与参考答案共有的词，百分比（F1）"), "higher"),
    "rouge-2": Meaning(Both("pairs of words that they share, per cent", "两者共有的相邻词对，百分比"), "higher"),
    "rouge-l": Meaning(Both("the longest run of words in the same order, per cent",
                            "顺序相同的最长词序列，百分比"), "higher"),
    "bleu-4": Meaning(Both("runs of up to 4 characters that they share, per cent",
                           "两者共有的、最长 4 个字的片段，百分比"), "higher"),
    "accuracy": Meaning(Both("right answers, per cent; guessing among four gives 25", "答对的百分比；四选一乱猜为 25"),
                        "higher"),
    "loss": _term("eval_loss", "lower"), "perplexity": _term("eval_perplexity", "lower"),
    "bits_per_byte": Meaning(Both("bits that the model needs for a byte of text; compares models whatever their "
                                  "tokenizers", "每字节文本需要多少比特；可以比较分词器不同的模型"), "lower"),
    "rows": Meaning(Both("rows that were measured on", "参与评测的行数")),
    "runtime": Meaning(Both("seconds that it took", "用时（秒）")),
    "samples_per_second": Meaning(Both("rows a second", "每秒处理的行数")),
}
_OTHER = Meaning(Both("as the task defines it", "由任务定义"))


# ------------------------------------------------------------------------------------------------------------- numbers


def _predicted(told: Mapping[str, Any]) -> Iterator[Score]:
    for name, value in told.items():
        key = name.removeprefix("predict_")
        yield Score(key, 100 * value if key == "accuracy" else value, MEANINGS.get(key, _OTHER))


def _surprised(told: Mapping[str, Any]) -> Iterator[Score]:
    for prefix, each in [("", told), *((f"{name}: ", each) for name, each in told.get("sets", {}).items())]:
        for key in ("loss", "perplexity", "bits_per_byte", "rows"):
            if each.get(key) is not None:
                yield Score(prefix + key, each[key], MEANINGS[key], each.get("stderr") if key == "loss" else None)


def _examined(told: Mapping[str, Any]) -> Iterator[Score]:
    subjects = {each["name"]: each for each in told["subjects"].values()}
    for name, each in {**told["categories"], **(subjects if len(subjects) > 1 else {})}.items():
        error = each.get("stderr")
        yield Score(name, 100 * each["accuracy"], MEANINGS["accuracy"], None if error is None else 100 * error)


def _harnessed(told: Mapping[str, Any]) -> Iterator[Score]:
    for task, each in told["results"].items():
        for metric, value in each.items():
            if isinstance(value, float) and "_stderr" not in metric:
                error = each.get(metric.replace(",", "_stderr,"))
                yield Score(f"{task} {metric.partition(',')[0]}", value, _OTHER,
                            error if isinstance(error, float) else None)


def _compared(told: Mapping[str, Any]) -> Iterator[Score]:
    return (Score(name, value, MEANINGS.get(name, _OTHER)) for name, value in told.items())


_FILES: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Score]]] = {
    "predict_results.json": _predicted, "perplexity.json": _surprised, "scores.json": _examined,
    "lm_eval.json": _harnessed, "predictions_score.json": _compared}
"""What an evaluation writes, and how it is read."""


def scores(folder: Path) -> dict[str, Score]:
    """Every number in a folder, by its name; what cannot be read is left out."""
    found: dict[str, Score] = {}
    for name, read in _FILES.items():
        try:
            told = json.loads((folder / name).read_text(encoding="utf-8"))
            found |= {score.name: score for score in read(told) if isinstance(score.value, int | float)
                      and math.isfinite(score.value)}
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            continue  # not there, cut off, or somebody else's file of that name
    return found


def change(before: Score, after: Score) -> Words:
    """From one to the other, in words: `+3.2, better`; nothing is claimed within the standard errors."""
    gap = after.value - before.value
    told = f"{gap:+,.4g}"
    if not gap or after.meaning.better is None:
        return told
    if gap * gap <= sum((each.error or 0.0) ** 2 for each in (before, after)):
        return Both(f"{told}, within chance", f"{told}，在误差范围内")
    good = (gap > 0) == (after.meaning.better == "higher")
    return Both(f"{told}, {'better' if good else 'worse'}", f"{told}，{'更好' if good else '更差'}")


def evaluated(folders: Sequence[Path]) -> list[Path]:
    """The folders below these that hold results, the newest first."""
    found = {folder for root in folders for folder in _with_results(root, _DEEP)}
    return sorted(found, key=_time, reverse=True)


def _with_results(folder: Path, deep: int) -> Iterator[Path]:
    try:
        inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        if any((folder / name).is_file() for name in (*_FILES, PREDICTIONS)):
            yield folder
    except OSError:
        return  # gone meanwhile, or somebody else's
    for path in inner if deep else []:
        yield from _with_results(path, deep - 1)


def _time(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


# ------------------------------------------------------------------------------------------------------------- answers


@dataclass(frozen=True)
class Answer:
    """What a model said. number: of the row, from 1. like: how near it is to what the data say (BLEU-4, per cent);
    None: nobody can tell."""

    number: int
    prompt: str
    said: str
    wanted: str
    like: float | None = None


def answers(folder: Path) -> list[Answer]:
    """The answers in a folder, in the order of the rows; none where there are none."""
    try:
        state = (folder / PREDICTIONS).stat()
        return _answers(folder, state.st_mtime_ns, state.st_size)
    except OSError:
        return []


@lru_cache(maxsize=4)
def _answers(folder: Path, changed: int, size: int) -> list[Answer]:
    """changed, size: so that a file that grows is read again."""
    measured = all(find_spec(name) for name in PACKAGES)
    found = []
    with (folder / PREDICTIONS).open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                told = json.loads(line)
                said, wanted = str(told["predict"]), str(told["label"])
            except (ValueError, KeyError, TypeError):
                continue  # scores of a reward model, or a last line that is being written
            like = bleu(said, wanted) if measured else None
            found.append(Answer(number, str(told.get("prompt", "")), said, wanted, like))
    return found


Order = Literal["data", "worst", "best"]


def chosen(all_answers: Sequence[Answer], search: str, order: Order) -> list[Answer]:
    """Those that hold the words searched for, whatever the case, in the order wanted."""
    words = search.casefold().split()
    found = [each for each in all_answers
             if all(word in f"{each.prompt}\n{each.said}\n{each.wanted}".casefold() for word in words)]
    if order == "data":
        return found
    return sorted(found, key=lambda each: each.like if each.like is not None else -1.0, reverse=order == "best")
