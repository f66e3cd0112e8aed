"""Questions as token ids, and the token that stands for each letter where the answer begins.

A model with a chat template is asked as it is spoken to: each solved example is a turn of its own, rendered by the one
renderer. A base model without one reads plain text. The wording is that of the sets' own programs: MMLU's in English
(Hendrycks et al. 2020, https://arxiv.org/abs/2009.03300), C-Eval's in Chinese (Huang et al. 2023,
https://arxiv.org/abs/2305.08322).

Which token is the letter A is not assumed. The first question is rendered with each letter as its answer, and what
differs is the letter: so it is the right token with or without a space before it, behind an empty thought that the
template writes, or behind a token that stands for a space alone. Every other question is rendered with an answer too,
and has to agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from truetune.data.messages import BadRow, Conversation, Message, Place
from truetune.data.renderer import Rendered, Renderer, answered
from truetune.evaluate.benchmarks.files import Question, Subject
from truetune.findings import Both, problem, spoken


@dataclass(frozen=True)
class Wording:
    """intro: before the first example. answer: after the choices; gap: in plain text, before a letter."""

    intro: str
    answer: str
    gap: str


WORDINGS = {
    "en": Wording("The following are multiple choice questions (with answers) about {subject}.\n\n", "\nAnswer:", " "),
    "zh": Wording("以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。\n\n", "\n答案：", ""),
}


class Turn(NamedTuple):
    """A question as it is asked, and a letter as its answer."""

    asked: str
    letter: str


class Ids(NamedTuple):
    """Prompt and answer in token ids (T,), and where the answer begins."""

    ids: np.ndarray
    first: int


Write = Callable[[Sequence[Sequence[Turn]]], list[Ids]]
"""Conversations in token ids: the answer is that of the last turn."""


class Letters(NamedTuple):
    """ids: the token of A, B, C, … lead: so many tokens of an answer stand before its letter."""

    ids: tuple[int, ...]
    lead: int


@dataclass(frozen=True)
class Asked:
    """A subject's questions as rows, in order: all that stands before the letter, and the right letter, which alone is
    "learned". shots: how many examples each has before it."""

    rows: list[Rendered]
    shots: list[int]


def turns_of(subject: Subject, question: Question, shots: int, wording: Wording) -> list[Turn]:
    """The conversation that asks `question` after `shots` solved examples, with its right letter as the last answer."""
    some = [Turn(_asked(each, wording), each.letter) for each in (*subject.examples[:shots], question)]
    return [Turn(wording.intro.format(subject=subject.name) + some[0].asked, some[0].letter), *some[1:]]


def _asked(question: Question, wording: Wording) -> str:
    choices = (f"\n{letter}. {text}" for letter, text in zip(ascii_uppercase, question.choices, strict=False))
    return f"{question.text}{''.join(choices)}{wording.answer}"


def ask(subject: Subject, letters: Letters, write: Write, wording: Wording, longest: int) -> Asked:
    """Every question of `subject`, with as many of its examples as leave it within `longest` tokens.

    Raises:
        Problem: a question is too long by itself, or its letter is another token than that of the first one.
    """
    shots = [len(subject.examples)] * len(subject.questions)
    found: dict[int, Ids] = {}
    while waiting := [number for number in range(len(shots)) if number not in found]:
        talks = [turns_of(subject, subject.questions[number], shots[number], wording) for number in waiting]
        for number, one in zip(waiting, write(talks), strict=True):
            if one.first + letters.lead < longest:
                found[number] = one
            elif shots[number] == 0:
                raise problem("question-too-long", Both(
                    f"has {one.first:,} tokens, and the model reads {longest:,} at most.",
                    f"有 {one.first:,} 个 token，而模型最多读 {longest:,} 个。"),
                    where=str(subject.questions[number].place))
            else:
                shots[number] -= 1
    place = Place(f"{subject.key} ", 1)  # of all: rows of one place may share what they begin with
    return Asked([_row(found[number], letters, question, place) for number, question in enumerate(subject.questions)],
                 shots)


def _row(one: Ids, letters: Letters, question: Question, place: Place) -> Rendered:
    end = one.first + letters.lead
    if len(one.ids) <= end or int(one.ids[end]) != letters.ids[question.answer]:
        raise problem("other-letters", Both(
            f"its answer {question.letter} is written in other tokens than that of the first question.",
            f"它的答案 {question.letter} 与第一题所用的 token 不同。"), where=str(question.place),
            fix=Both("Another template (template: …) may write answers alike.", "可以换一个模板（template: …）试试。"))
    return answered(one.ids[:end], [letters.ids[question.answer]], place)


def find_letters(talk: Sequence[Turn], count: int, write: Write) -> Letters:
    """The tokens of the first `count` letters: where renderings of `talk` that differ in the last answer differ.

    Raises:
        Problem: two letters begin with the same token there.
    """
    written = write([[*talk[:-1], Turn(talk[-1].asked, letter)] for letter in ascii_uppercase[:count]])
    first, shortest = written[0].first, min(len(one.ids) for one in written)
    same = (len({int(one.ids[place]) for one in written}) == 1 for place in range(first, shortest))
    lead = len(list(takewhile(bool, same)))
    ids = tuple(int(one.ids[first + lead]) for one in written if first + lead < len(one.ids))
    if len(set(ids)) < count or any(one.first != first for one in written):
        raise problem("letters-alike", Both("this tokenizer writes two letters with the same token.",
                                            "这个分词器把两个字母写成同一个 token。"), option="task")
    return Letters(ids, lead)


# ------------------------------------------------------------------------------------------------------- ways to write


def in_chat(renderer: Renderer) -> Write:
    """As a chat, in the renderer's template; it must learn the last answer only (`mask_history`)."""

    def write(talks: Sequence[Sequence[Turn]]) -> list[Ids]:
        return [_last_answer(row) for row in renderer.render([_conversation(talk) for talk in talks])]

    return write


def _conversation(talk: Sequence[Turn]) -> Conversation:
    return Conversation(tuple(message for turn in talk for message in
                              (Message("user", turn.asked), Message("assistant", turn.letter))))


def _last_answer(rows: tuple[Rendered, ...] | BadRow) -> Ids:
    if isinstance(rows, BadRow):
        raise problem("refused-by-template", Both(f"{rows}.", f"{spoken(rows.reason, True)}。"), option="template")
    return Ids(rows[-1].ids[: rows[-1].runs[-1].last], rows[-1].runs[-1].first)


def in_plain_text(tokenizer: PreTrainedTokenizerBase, opening: Sequence[int], wording: Wording) -> Write:
    """As a text that goes on: examples with their answers, empty lines between them. opening: the ids that this
    tokenizer puts before every text."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    def write(talks: Sequence[Sequence[Turn]]) -> list[Ids]:
        written = []
        for talk in talks:
            whole = "\n\n".join(f"{turn.asked}{wording.gap}{turn.letter}" for turn in talk)
            asked, ids = encode(whole[: -len(talk[-1].letter)].rstrip()), encode(whole)
            written.append(Ids(np.array([*opening, *ids]), len(opening) + len(list(_common(asked, ids)))))
        return written

    return write


def _common(one: Sequence[int], other: Sequence[int]) -> Iterator[int]:
    """What both begin with."""
    return (mine for mine, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
