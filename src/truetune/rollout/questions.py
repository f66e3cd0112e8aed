"""What the data say beside the tokens: the messages before an answer, the answer as text, and all columns of its row.

Token stores keep none of that, so the sources are read once more, when a run starts, for the rows that it will use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from truetune.data.messages import Conversation, Place
from truetune.data.reading import STAGE_ROWS, read_source
from truetune.data.renderer import Rendered, Renderer
from truetune.data.sources import find_sources
from truetune.findings import Both, problem
from truetune.options import Config


@dataclass(frozen=True)
class Question:
    """A prompt of the data. talk: the conversation it is of. turn: which of its messages is the answer. columns: of
    its row, as they stand there."""

    talk: Conversation
    turn: int
    columns: Mapping[str, Any]

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        """All before the answer."""
        return [message.as_dict() for message in self.talk.messages[: self.turn]]

    @property
    def answer(self) -> str:
        """What the data answer."""
        return self.talk.messages[self.turn].content

    def prompt(self, renderer: Renderer) -> tuple[int, ...]:
        """The tokens that ask it."""
        return tuple(renderer.prompt(self.messages, self.talk.tools))


class Questions:
    """The questions that rows of tokens came from.

    A place can hold several: a conversation with several answers, which may stand in several rows of tokens, or the
    rows of a JSON file that is one line. Then the tokens of the prompt tell which one it is, and of those that ask the
    same, the tokens of the answer.
    """

    def __init__(self, config: Config, places: Iterable[Place], renderer: Renderer):
        """Read the rows of `places`.

        Raises:
            Problem: the sources cannot be read, or have changed since they were tokenised.
        """
        self.renderer = renderer
        self._at: dict[Place, list[Question]] = {place: [] for place in places}
        self._by_prompt: dict[Place, dict[tuple[int, ...], list[Question]]] = {}
        for option, names in (("dataset", config.dataset), ("eval_dataset", config.eval_dataset)):
            for source in find_sources(names, config, option) if names else []:
                # Both give one item for each raw row, in order; the first ends with max_samples.
                for row, (columns, place) in zip(read_source(source, config, STAGE_ROWS[config.stage]), source.rows(),
                                                 strict=False):
                    if place in self._at and isinstance(row, Conversation):
                        self._at[place] += [Question(row, turn, columns) for turn, message in enumerate(row.messages)
                                            if message.role == "assistant"]
        lost = [place for place, questions in self._at.items() if not questions]
        if lost:
            raise problem("data-changed", Both("this row is no longer there.", "这一行已经不在了。"), option="dataset",
                          where=str(min(lost)), fix=Both("Put the file back as it was.", "请把文件恢复原样。"))

    def of(self, row: Rendered) -> Question:
        """The question that the last answer of `row` answers."""
        here = self._at[row.place]
        if len(here) == 1:
            return here[0]
        if row.place not in self._by_prompt:
            known: dict[tuple[int, ...], list[Question]] = {}
            for question in here:
                known.setdefault(question.prompt(self.renderer), []).append(question)
            self._by_prompt[row.place] = known
        run = row.runs[-1]
        alike = self._by_prompt[row.place].get(tuple(row.ids[: run.first].tolist()), here)
        if len(alike) == 1:
            return alike[0]
        said = str(self.renderer.tokenizer.decode(row.ids[run.first : run.last].tolist()))
        return next((question for question in reversed(alike) if question.answer.strip() in said), alike[-1])


def columns_of(questions: Sequence[Question]) -> dict[str, list[Any]]:
    """Every column that some row has; None where a row has none of it."""
    names = {name: None for question in questions for name in question.columns}
    return {name: [question.columns.get(name) for question in questions] for name in names}
