"""A set of multiple-choice questions, from its name to its marks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from truetune.evaluate.benchmarks.answer import letter_chances
from truetune.evaluate.benchmarks.ask import (
    WORDINGS,
    Asked,
    Letters,
    Write,
    ask,
    find_letters,
    in_chat,
    in_plain_text,
    turns_of,
)
from truetune.evaluate.benchmarks.files import Exam, load_exam
from truetune.evaluate.benchmarks.marks import Marks, doubts, given_letters, log_lines, marks_of, scores_of
from truetune.evaluate.load import IN_CHAT, PLAIN, Measured, asks_in_chat, load_measured
from truetune.evaluate.result import Column, Result, per_cent
from truetune.findings import Both, Say
from truetune.options import Config

_TOLD_EVERY = 10.0
"""Seconds between two words about how far it is."""


def take_exam(config: Config, say: Say) -> Result:
    """Ask every question of `task`, and count.

    Raises:
        Problem: the questions or the model cannot be read.
    """
    assert config.task is not None  # a rule has made sure
    exam = load_exam(config.task, Path(config.task_dir), config.n_shot, config.max_samples)
    measured = load_measured(_asking(config), say, shares=True)
    write, way = _way(measured, config)
    letters = _letters(exam, write, config)
    tokenizer, count = measured.renderer.tokenizer, sum(len(subject.questions) for subject in exam.subjects)
    tokens = dict(zip(ascii_uppercase, letters.ids, strict=False))
    said = [repr(tokenizer.decode([token])) for token in tokens.values()]
    say(Both(f"{count:,} questions of {len(exam.subjects)} subjects, asked {way}; the letters are the tokens "
             f"{', '.join(said)}",
             f"{len(exam.subjects)} 个学科，{count:,} 道题，{way.zh}；代表字母的 token 为 {'、'.join(said)}"))
    began = time.perf_counter()
    asked, marks = _sit(exam, measured, write, letters, config, say)
    seconds, scores = time.perf_counter() - began, scores_of(exam, marks, asked)
    for letter, each in scores["letters"].items():
        each |= {"token": tokens[letter], "text": tokenizer.decode([tokens[letter]])}
    scores = {
        "model": config.model_name_or_path, "adapters": list(config.adapter_name_or_path), **scores, "asked": way.en,
        "lang": config.lang, "n_shot": config.n_shot, "seconds": round(seconds, 3),
        "questions_per_second": round(count / seconds, 2)}
    files = {"results.json": given_letters(exam, marks), "results.log": log_lines(scores), "scores.json": scores}
    return Result(scores, _table(scores), doubts(scores), files)


def _sit(exam: Exam, measured: Measured, write: Write, letters: Letters, config: Config,
         say: Say) -> tuple[list[Asked], list[Marks]]:
    """Every subject's questions as rows, and what is made of them, a subject at a time."""
    asked: list[Asked] = []
    marks: list[Marks] = []
    count, began = sum(len(subject.questions) for subject in exam.subjects), time.perf_counter()
    told = began
    for subject in exam.subjects:
        asked.append(ask(subject, letters, write, WORDINGS[config.lang], measured.longest))
        rows = asked[-1].rows
        if not marks:
            measured.policy.verify(sorted(rows, key=len)[:2], say)
        marks.append(marks_of(subject, letter_chances(measured.policy, rows, letters, config.batch_size)))
        now, done = time.perf_counter(), sum(len(each.given) for each in marks)
        if now - told > _TOLD_EVERY:
            told, rate = now, done / (now - began)
            say(Both(f"{done:,} of {count:,} questions, {rate:,.1f} a second",
                     f"已答 {done:,} / {count:,} 题，每秒 {rate:,.1f} 题"))
    return asked, marks


def _asking(config: Config) -> Config:
    """The answer is the last turn's, whatever a run learned from."""
    return config.with_values("eval", mask_history=True, train_on_prompt=False, loss_weights={})


class _Way(NamedTuple):
    write: Write
    told: Both


def _way(measured: Measured, config: Config) -> _Way:
    renderer = measured.renderer
    if asks_in_chat(measured, config):
        return _Way(in_chat(renderer), IN_CHAT)
    return _Way(in_plain_text(renderer.tokenizer, renderer.opening_ids(), WORDINGS[config.lang]), PLAIN)


def _letters(exam: Exam, write: Write, config: Config) -> Letters:
    first = exam.subjects[0]
    count = max(len(question.choices) for subject in exam.subjects for question in subject.questions)
    return find_letters(turns_of(first, first.questions[0], len(first.examples), WORDINGS[config.lang]), count, write)


def _table(scores: Mapping[str, Any]) -> list[Column]:
    """Groups, then subjects."""
    groups = [(name, each, "") for name, each in scores["categories"].items()]
    subjects = [(f"  {each['name']}", each, each["category"]) for each in scores["subjects"].values()]
    lines = [*groups, *(subjects if len(subjects) > 1 else [])]
    return [
        Column(Both("subject", "学科"), [name for name, _, _ in lines]),
        Column(Both("right", "正确率"), [per_cent(each["accuracy"], each["stderr"]) for _, each, _ in lines], True),
        Column(Both("questions", "题数"), [f"{each['questions']:,}" for _, each, _ in lines], True),
        Column(Both("group", "分组"), [category for _, _, category in lines]),
    ]
