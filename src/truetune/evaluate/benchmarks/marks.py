"""What answers are worth: shares with their standard errors, and what letters were given.

A share p of n answers has the standard error sqrt(p (1 - p) / (n - 1)): of 100 questions, two models that are right on
50 and 57 do not differ for sure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

import numpy as np

from truetune.evaluate.benchmarks.ask import Asked
from truetune.evaluate.benchmarks.files import Exam, Subject
from truetune.evaluate.benchmarks.subjects import AVERAGE, CATEGORIES
from truetune.findings import Both, Finding

_LEANING = 0.1
"""By how much more often a letter may be given than it is right, before that is told: and only where it is no chance
(four standard errors)."""


class Marks(NamedTuple):
    """Of the questions of a subject, in order. given, right: (n,) numbers of letters. sure: (n,) the probability of all
    its letters together, among all words."""

    given: np.ndarray
    right: np.ndarray
    sure: np.ndarray


def marks_of(subject: Subject, chances: np.ndarray) -> Marks:
    """chances: (n, letters) log-probabilities. Letters that a question does not have cannot be given."""
    counts = np.array([len(question.choices) for question in subject.questions])
    mine = np.where(np.arange(chances.shape[1]) < counts[:, None], chances.astype(np.float64), -np.inf)
    return Marks(mine.argmax(axis=1), np.array([question.answer for question in subject.questions]),
                 np.exp(mine).sum(axis=1))


def share(right: np.ndarray) -> dict[str, Any]:
    """(n,) booleans as a share of right ones, in numbers from 0 to 1."""
    count, accuracy = len(right), float(right.mean())
    stderr = math.sqrt(accuracy * (1 - accuracy) / (count - 1)) if count > 1 else None
    return {"accuracy": accuracy, "stderr": stderr, "questions": count}


def scores_of(exam: Exam, marks: Sequence[Marks], asked: Sequence[Asked]) -> dict[str, Any]:
    """Everything that can be said of the answers, for JSON."""
    of_category: dict[str, list[np.ndarray]] = {AVERAGE: [], **{name: [] for name in CATEGORIES}}
    subjects = {}
    for subject, mine, rows in zip(exam.subjects, marks, asked, strict=True):
        right = mine.given == mine.right
        of_category[AVERAGE].append(right)
        if subject.category:
            of_category.setdefault(subject.category, []).append(right)
        subjects[subject.key] = {"name": subject.name, "category": subject.category, **share(right),
                                 "examples": max(rows.shots)}
    questions = [question for subject in exam.subjects for question in subject.questions]
    given, right = (np.concatenate([getattr(mine, what) for mine in marks]) for what in ("given", "right"))
    fewer = sum(shots < len(subject.examples) for subject, rows in zip(exam.subjects, asked, strict=True)
                for shots in rows.shots)
    return {
        "task": exam.name, "split": exam.split,
        **share(given == right),
        "chance": float(np.mean([1 / len(question.choices) for question in questions])),
        "categories": {name: share(np.concatenate(some)) for name, some in of_category.items() if some},
        "subjects": subjects,
        "letters": {letter: {"given": int((given == number).sum()), "right": int((right == number).sum())}
                    for number, letter in enumerate(ascii_uppercase[: max(len(each.choices) for each in questions)])},
        "letter_probability": float(np.concatenate([mine.sure for mine in marks]).mean()),
        "with_fewer_examples": int(fewer),
    }


def given_letters(exam: Exam, marks: Sequence[Marks]) -> dict[str, dict[str, str]]:
    """The letter given to each question of each subject, by its number from 0: LLaMA-Factory's results.json."""
    return {subject.key: {str(number): ascii_uppercase[letter] for number, letter in enumerate(mine.given)}
            for subject, mine in zip(exam.subjects, marks, strict=True)}


def log_lines(scores: Mapping[str, Any]) -> str:
    """The share of right answers of each group in per cent: LLaMA-Factory's results.log."""
    return "\n".join(f"{name:>15}: {100 * each['accuracy']:.2f}" for name, each in scores["categories"].items())


def doubts(scores: Mapping[str, Any]) -> list[Finding]:
    """What makes the number mean less than it seems."""
    found, count, letters = [], scores["questions"], scores["letters"]
    leaning = {letter: each["given"] / count - each["right"] / count for letter, each in letters.items()}
    most = max(leaning, key=lambda letter: leaning[letter])
    if leaning[most] > max(_LEANING, 4 * math.sqrt(0.25 / count)):
        given, right = letters[most]["given"] / count, letters[most]["right"] / count
        found.append(Finding("letter-bias", "warn", Both(
            f"the model gives {most} to {given:.0%} of the questions, and it is right for {right:.0%}: it prefers a "
            "letter to an answer.",
            f"模型对 {given:.0%} 的题选了 {most}，而正确答案是 {most} 的只占 {right:.0%}：它偏爱某个字母，"
            "而不是在作答。"),
            option="task"))
    if scores["letter_probability"] < 0.5:
        found.append(Finding("no-letter", "warn", Both(
            f"the letters together have {scores['letter_probability']:.1%} of the probability: the model would not "
            "answer with a letter, so the number says little of what it knows.",
            f"所有字母合计只占 {scores['letter_probability']:.1%} 的概率：模型本来不会用字母作答，"
            "这个分数说明不了它的知识。"),
            option="task", fix=Both("More examples (n_shot) show it the form.",
                                    "增加示例（n_shot）可以让它明白答题形式。")))
    if scores["stderr"] is not None and abs(scores["accuracy"] - scores["chance"]) < 2 * scores["stderr"]:
        found.append(Finding("like-chance", "info", Both(
            f"guessing has {scores['chance']:.1%}, which is within the error of this number.",
            f"瞎猜的正确率是 {scores['chance']:.1%}，在这个分数的误差范围之内。"), option="task"))
    return found
