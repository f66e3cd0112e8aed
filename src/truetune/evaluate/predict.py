"""After the last step: the model's own answers to held-out rows, or the scores it gives to theirs.

Written to `generated_predictions.jsonl`, a line as soon as it is known, in the shape that LLaMA-Factory's users and
tools read; the numbers about them go to `predict_results.json`, and with all others to `all_results.json`:

    {"prompt": "<|im_start|>user\\n…", "predict": "what the model says", "label": "what the data say"}   stage sft
    {"chosen": 1.25, "rejected": -0.5}                                                                   stage rm

Each row of the data asks once, for its last answer. Answers are written once, when training is done (LLaMA-Factory
writes them at every evaluation, too).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Renderer
from truetune.data.rows import Rows
from truetune.evaluate.similarity import similarity
from truetune.files import write_json
from truetune.findings import Both, Say, count_of
from truetune.model.policy import Policy
from truetune.model.value import score
from truetune.options import Config
from truetune.serve.engine import sampling
from truetune.serve.generate import Stopped, complete

PREDICTIONS, RESULTS = "generated_predictions.jsonl", "predict_results.json"
_AT_ONCE = 64
"""Rows between two looks at the file: few enough to lose little, enough to find some of like length."""

Line = dict[str, Any]


class HeldOut(Protocol):
    """Rows to predict for, by the name of what they measure, and what made them: `check.Preflight` of a run,
    `evaluate.rows.Asked` of `truetune eval`."""

    @property
    def config(self) -> Config: ...
    @property
    def renderer(self) -> Renderer: ...
    @property
    def held_out(self) -> Mapping[str, Rows]: ...


@dataclass(frozen=True)
class Kind:
    """What a stage predicts. asked: whether these options ask for it. lines(ready, policy, stop): what is written, in
    the order of the rows. measure: the numbers about it."""

    asked: Callable[[Config], bool]
    lines: Callable[[HeldOut, Policy, Callable[[], bool]], Iterator[Line]]
    measure: Callable[[Sequence[Line]], dict[str, float]]


def predict(ready: HeldOut, policy: Policy, folder: Path, stop: Callable[[], bool], say: Say) -> dict[str, float]:
    """Write what the model makes of the held-out rows, if the options ask for it.

    Args:
        folder: of the run.
        stop: asked now and then; true ends it, and what is written stays.

    Returns:
        Numbers about it, `predict_…`; nothing where nothing was asked for, or it was stopped.
    """
    kind = KINDS.get(ready.config.stage)
    if kind is None or not kind.asked(ready.config):
        return {}
    began, lines = time.perf_counter(), []
    rows = count_of(sum(map(len, ready.held_out.values())), "held-out sequence")
    say(Both(f"predicting for {rows}, into {folder / PREDICTIONS}",
             f"正在对留出的 {sum(map(len, ready.held_out.values())):,} 个序列做预测，写入 {folder / PREDICTIONS}"))
    with (folder / PREDICTIONS).open("w", encoding="utf-8") as file:
        try:
            for line in kind.lines(ready, policy, stop):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                lines.append(line)
        except Stopped:
            say(Both(f"stopped predicting; {len(lines):,} lines are in {PREDICTIONS}",
                     f"已停止预测；{PREDICTIONS} 里有 {len(lines):,} 行"))
            return {}
    seconds = time.perf_counter() - began
    numbers = {**kind.measure(lines), "runtime": seconds, "samples_per_second": len(lines) / seconds}
    results = {f"predict_{name}": value for name, value in numbers.items()}
    write_json(folder / RESULTS, results)
    return results


# -------------------------------------------------------------------------------------------------------------- answers


class Question(NamedTuple):
    """A prompt, and the answer that the data give to it."""

    prompt: list[int]
    wanted: list[int]


def questions(rows: Sequence[Rendered]) -> list[Question]:
    """The prompt before the last answer of each row of the data."""
    asked: dict[Place, Question] = {}
    for row in rows:
        if row.runs:
            first, last = _last_answer(row)
            asked[row.place] = Question(row.ids[:first].tolist(), row.ids[first:last].tolist())
    return list(asked.values())


def _last_answer(row: Rendered) -> tuple[int, int]:
    """Where the last answer begins and ends. Parts of it that count differently are runs of their own, end to end."""
    first, last = row.runs[-1][:2]
    for run in reversed(row.runs[:-1]):
        if run.last != first:
            break
        first = run.first
    return first, last


def _answers(ready: HeldOut, policy: Policy, stop: Callable[[], bool]) -> Iterator[Line]:
    tokenizer = ready.renderer.tokenizer
    generation = sampling(ready.config, ready.renderer)
    asked = [question for rows in ready.held_out.values() for question in questions(rows)]
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        with policy.generating() as causal:
            said = complete(causal, [question.prompt for question in some], generation, stop=stop)
        for (prompt, wanted), ids in zip(some, said, strict=True):
            yield {"prompt": tokenizer.decode(prompt),
                   "predict": tokenizer.decode(ids, skip_special_tokens=True),
                   "label": tokenizer.decode(wanted, skip_special_tokens=True)}


def _compare(lines: Sequence[Line]) -> dict[str, float]:
    return similarity([line["predict"] for line in lines], [line["label"] for line in lines])


# --------------------------------------------------------------------------------------------------------------- scores


def _scores(ready: HeldOut, policy: Policy, stop: Callable[[], bool]) -> Iterator[Line]:
    assert policy.value_head is not None  # a stage that scores has one
    for rows in ready.held_out.values():
        for start in range(0, len(rows), _AT_ONCE):
            if stop():
                raise Stopped
            scores = score(policy, policy.value_head, rows[start : start + _AT_ONCE]).tolist()
            for chosen, rejected in zip(scores[0::2], scores[1::2], strict=True):
                yield {"chosen": round(chosen, 4), "rejected": round(rejected, 4)}


def _order(lines: Sequence[Line]) -> dict[str, float]:
    return {"accuracy": sum(line["chosen"] > line["rejected"] for line in lines) / max(len(lines), 1)}


KINDS: Mapping[str, Kind] = {
    "sft": Kind(lambda config: config.predict_with_generate, _answers, _compare),
    "rm": Kind(lambda config: config.do_predict, _scores, _order),
}
"""What stages predict; others have nothing to predict."""
