"""The same questions before the first step and after the last one: what was learned, what was lost.

Asked are the user's own prompts (`probe_prompts`; else those of the first held-out rows) and twenty that have nothing
to do with the data (`retention.jsonl`). The model answers greedily, by the prompt that chat would send. Two numbers go
with the words: the loss on a few rows of the data, and on the model's own first answers to the twenty. A model that
forgets finds what it used to say unlikely, long before a reader notices.

Nothing of the training is moved: random numbers, modes and attention are put back, and no step differs by a bit. All of
it is kept in `probes.json`, so that a run that goes on asks nothing a second time:

    {"key": "…",
     "probes": [{"about": "yours", "text": "Who are you?", "where": "data/a.json:12", "wanted": "I am Quill."}, …],
     "before": {"answers": [{"text": "…", "ended": true, "ids": [1, 2]}, …], "sample": 2.31, "kept": 0.21,
                "seconds": 4.1},
     "after": {…}, "why": null,
     "rows": [{"where": "data/a.json:7", "loss": 5.1, "question": "…", "answer": "…"}, …], "typical": 0.8}

about: yours, or what a retention prompt is about. where, wanted: of a row of the data, its place and its answer.
ended: whether the answer ended by itself within `MOST_TOKENS`. sample: mean loss per learned token of a few rows, kept:
of the first answers to the retention prompts. why: why there are no answers, in English and Chinese. rows: those of
highest loss at the end of training, typical: the median of all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from truetune.check.preflight import Preflight
from truetune.checkpoint import random_state, set_random_state
from truetune.data.renderer import Rendered, Renderer, answered
from truetune.data.rows import Rows, Stream
from truetune.files import read_json, write_json
from truetune.findings import Both, Problem, Say
from truetune.model.load import fingerprint
from truetune.model.policy import Policy
from truetune.options import Config
from truetune.review.rows import RowLosses
from truetune.serve.engine import sampling
from truetune.serve.generate import complete

PROBES = "probes.json"
MOST_TOKENS = 48
"""Of an answer: enough to see how it begins, few enough to cost seconds."""
_OWN_ROWS, _LONGEST = 3, 512
"""Rows that are asked where the user names no prompts, and the longest prompt among them, in tokens."""
_SAMPLE_ROWS, _SAMPLE_TOKENS = 16, 2000
_HARDEST = 10
FAILURES = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, Problem)
"""What a model that nobody has tried may raise while it generates (an assertion of ours is not among them)."""


@dataclass(frozen=True)
class Probe:
    """A prompt as tokens and as a person reads it; where and wanted: of a row of the data."""

    ids: list[int]
    about: str
    text: str
    where: str | None = None
    wanted: str | None = None


@dataclass
class Answers:
    """What the model said, and the two losses; the fields are those of probes.json."""

    answers: list[dict[str, Any]]
    sample: float
    kept: float
    seconds: float


@dataclass
class Interview:
    """The questions of a run, asked twice. sample: rows whose loss is measured too; the rest is as in probes.json."""

    renderer: Renderer
    generation: GenerationConfig
    probes: list[Probe] = field(default_factory=list)
    sample: list[Rendered] = field(default_factory=list)
    key: str = ""
    before: Answers | None = None
    after: Answers | None = None
    why: Both | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    typical: float = 0.0

    def write(self, folder: Path) -> None:
        probes = [{name: value for name, value in asdict(probe).items() if name != "ids"} for probe in self.probes]
        write_json(folder / PROBES, {
            "key": self.key, "probes": probes, "before": self.before and asdict(self.before),
            "after": self.after and asdict(self.after), "why": self.why, "rows": self.rows, "typical": self.typical})


def ask_before(config: Config, ready: Preflight, policy: Policy, folder: Path, origin: Path | None,
               say: Say) -> Interview:
    """The questions of a run, with the answers from before the first step.

    Args:
        folder: of the run. What an earlier process has kept there is used if its key is the same: that names the model,
            the prompts, the precision, all that the answers depend on.
        origin: the run folder that this run goes on from, which holds its answers; None: no step is taken yet.
    """
    interview = _prepare(config, ready, policy)
    if interview.why:
        return interview
    for place in (folder, *([origin] if origin else [])):
        known = read_probes(place)
        if known.get("key") == interview.key and known["before"]:
            interview.before = Answers(**known["before"])
    if interview.before is None and origin:
        interview.why = Both("the run began without asking", "训练开始时没有提问")
    elif interview.before is None:
        count = len(interview.probes)
        say(Both(f"asking the model {count} things, and once more after training (before_after: false leaves it out)",
                 f"先让模型回答 {count} 个问题，训练后再问一遍（before_after: false 可关闭）"))
        interview.before = _try(interview, policy, say)
    interview.write(folder)
    return interview


def _prepare(config: Config, ready: Preflight, policy: Policy) -> Interview:
    """The questions, or why there are none."""
    renderer = ready.renderer
    greedy = config.with_values("before and after", do_sample=False, max_new_tokens=MOST_TOKENS, repetition_penalty=1)
    interview = Interview(renderer, sampling(greedy, renderer))
    if not config.before_after:
        interview.why = Both("before_after is false", "before_after 为 false")
    elif not renderer.tokenizer.chat_template:
        interview.why = Both("the tokenizer has no chat template", "分词器没有对话模板")
    if interview.why:
        return interview
    rows = next((rows for rows in ready.held_out.values() if len(rows)), ready.train)
    rows = _given(rows.sample if isinstance(rows, Stream) else rows, ready.plan.per_row)
    try:
        own = [_asked(text, "yours", renderer) for text in _texts(config)] or _of_rows(rows, renderer)
        interview.probes = [*own, *(_asked(text, about, renderer) for about, text in retention())]
    except FAILURES as error:
        interview.why = _told(error)
        return interview
    interview.sample = _short_rows(rows)
    told = [[fingerprint(path) for path in (ready.base, *map(Path, config.adapter_name_or_path))],
            str(policy.causal.dtype), [probe.ids for probe in interview.probes],
            [row.ids.tolist() for row in interview.sample], interview.generation.to_dict()]
    interview.key = sha256(json.dumps(told).encode()).hexdigest()[:16]
    return interview


def ask_after(interview: Interview, policy: Policy, losses: RowLosses, ready: Preflight, folder: Path,
              say: Say) -> None:
    """Ask once more, name the hardest rows, and keep it all.

    Raises:
        KeyboardInterrupt: the user has waited enough; what is known is kept.
    """
    if isinstance(ready.train, Rows):
        hardest, interview.typical = losses.hardest(_HARDEST, ready.plan.steps_per_epoch)
        interview.rows = [_hard_row(ready.train[number], loss, ready.renderer) for number, loss in hardest]
    interview.write(folder)
    if not interview.why:
        say(Both("asking the model the same things again", "再问模型同样的问题"))
        interview.after = _try(interview, policy, say)
        interview.write(folder)


def read_probes(folder: Path) -> dict[str, Any]:
    """What probes.json says; {} where there is none, or no whole one."""
    return read_json(folder / PROBES)


def retention() -> list[tuple[str, str]]:
    """The prompts that have nothing to do with anybody's data: (what about, text)."""
    lines = (files("truetune.review") / "retention.jsonl").read_text(encoding="utf-8").splitlines()
    return [(prompt["about"], prompt["text"]) for prompt in map(json.loads, lines)]


# ------------------------------------------------------------------------------------------------------------ questions


def _texts(config: Config) -> list[str]:
    """The prompts that the user names: in a file, one a line, or as they stand."""
    named = config.probe_prompts
    if len(named) == 1 and Path(named[0]).expanduser().is_file():
        lines = Path(named[0]).expanduser().read_text(encoding="utf-8-sig").splitlines()
        return [line.strip() for line in lines if line.strip()]
    return list(named)


def _asked(text: str, about: str, renderer: Renderer) -> Probe:
    return Probe(renderer.prompt([{"role": "user", "content": text}]), about, text)


def _given(rows: Sequence[Rendered], per_row: int) -> list[Rendered]:
    """The first rows whose answers the model is to give: of a pair the chosen one, of judged ones the good."""
    first = (rows[number] for number in range(0, min(len(rows), 100 * per_row), per_row))
    return [row for row in first if row.label is not False]


def _of_rows(rows: Sequence[Rendered], renderer: Renderer) -> list[Probe]:
    """The first rows whose prompt is not long, each with the answer that the data give."""
    probes = []
    for number in range(min(len(rows), 100)):
        row = rows[number]
        if row.runs and 0 < row.runs[0].first <= _LONGEST and len(probes) < _OWN_ROWS:
            question, answer = _said(row, renderer)
            probes.append(Probe(row.ids[: row.runs[0].first].tolist(), "yours", question, row.where, answer))
    return probes


def _said(row: Rendered, renderer: Renderer) -> tuple[str, str]:
    """Question and first answer of a row, as text. What the template writes around every first question is left out;
    where more than a question stands before the answer, all of it is shown. A document has no question."""
    begin, end = row.runs[0][:2] if row.runs else (0, len(row))
    prompt, answer = (str(renderer.tokenizer.decode(row.ids[first:last].tolist(), skip_special_tokens=True))
                      for first, last in ((0, begin), (begin, end)))
    mark = "xtruetunex"
    plain = renderer.prompt([{"role": "user", "content": mark}])
    before, _, after = str(renderer.tokenizer.decode(plain, skip_special_tokens=True)).partition(mark)
    if prompt.startswith(before) and prompt.endswith(after):
        prompt = prompt[len(before) : len(prompt) - len(after)]
    return prompt.strip(), answer.strip()


def _short_rows(rows: Sequence[Rendered]) -> list[Rendered]:
    """The first rows, as many as are quickly computed; one at least."""
    chosen: list[Rendered] = []
    for number in range(min(len(rows), _SAMPLE_ROWS)):
        if not chosen or sum(map(len, chosen)) + len(rows[number]) <= _SAMPLE_TOKENS:
            chosen.append(rows[number])
    return chosen


def _hard_row(row: Rendered, loss: float, renderer: Renderer) -> dict[str, Any]:
    question, answer = _said(row, renderer)
    return {"where": row.where, "loss": round(loss, 4), "question": question[:300], "answer": answer[:300]}


# -------------------------------------------------------------------------------------------------------------- answers


def _try(interview: Interview, policy: Policy, say: Say) -> Answers | None:
    """The answers, or None and why."""
    try:
        with _undisturbed(policy):
            return _ask(interview, policy)
    except FAILURES as error:
        interview.why = _told(error)
        say(Both(f"before and after is left out: {interview.why.en}", f"略去训练前后对照：{interview.why.zh}"))
        return None


def _told(error: Exception) -> Both:
    if isinstance(error, Problem):
        return Both(error.findings[0].line(), error.findings[0].line(chinese=True))
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"
    return Both(f"the model cannot be asked ({said})", f"无法向模型提问（{said}）")


@contextmanager
def _undisturbed(policy: Policy) -> Iterator[None]:
    """While entered nothing is learned; afterwards all is as before, random numbers too."""
    random = random_state()
    try:
        with policy.still():
            yield
    finally:
        set_random_state(random)


def _ask(interview: Interview, policy: Policy) -> Answers:
    began, probes, tokenizer = time.perf_counter(), interview.probes, interview.renderer.tokenizer
    with policy.generating() as causal:
        said = complete(causal, [probe.ids for probe in probes], interview.generation)
    ends = set(interview.renderer.stop_ids())
    answers = [{"text": str(tokenizer.decode(ids, skip_special_tokens=True)).strip(), "ended": ids[-1] in ends,
                "ids": ids} for ids in said]
    first = interview.before.answers if interview.before else answers
    kept = [answered(probe.ids, answer["ids"]) for probe, answer in zip(probes, first, strict=True)
            if probe.about != "yours"]
    return Answers(answers, _mean_loss(interview.sample, policy), _mean_loss(kept, policy), time.perf_counter() - began)


def _mean_loss(rows: Sequence[Rendered], policy: Policy) -> float:
    """Mean loss per learned token."""
    total = count = 0.0
    for first in range(0, len(rows), _SAMPLE_ROWS):
        batch = policy.lay_out(rows[first : first + _SAMPLE_ROWS])
        total -= float((batch.weights * policy.log_probabilities(batch)).sum())
        count += float(batch.weights.sum())
    return total / count if count else 0.0
