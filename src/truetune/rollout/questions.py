"""What the data say beside the tokens: the messages of a row, the text of its answer, and all its columns.

Token stores keep none of that, so the sources are read once more, when a run starts, for the rows that it will use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truetune.data.messages import Conversation, Place
from truetune.data.reading import STAGE_ROWS, read_source
from truetune.data.renderer import Rendered, Renderer
from truetune.data.sources import find_sources
from truetune.findings import Both, problem
from truetune.options import Config


@dataclass(frozen=True)
class Question:
    """A row of the data: its conversation, and its columns as they stand there."""

    talk: Conversation
    columns: Mapping[str, Any]


def read_questions(config: Config, places: Iterable[Place]) -> dict[Place, Question]:
    """The rows of `places`.

    Raises:
        Problem: the sources cannot be read, or have changed since they were tokenised.
    """
    wanted, found = set(places), {}
    for option, names in (("dataset", config.dataset), ("eval_dataset", config.eval_dataset)):
        for source in find_sources(names, config, option) if names else []:
            # Both give one item for each raw row, in order.
            for row, (columns, place) in zip(read_source(source, config, STAGE_ROWS[config.stage]), source.rows(),
                                             strict=False):
                if place in wanted and isinstance(row, Conversation):
                    found[place] = Question(row, columns)
    lost = wanted - found.keys()
    if lost:
        raise problem("data-changed", Both("this row is no longer there.", "这一行已经不在了。"), option="dataset",
                      where=str(min(lost)), fix=Both("Put the file back as it was.", "请把文件恢复原样。"))
    return found


def asked(question: Question, row: Rendered, renderer: Renderer) -> tuple[list[dict[str, Any]], str]:
    """The messages before the answer that `row` ends with, and that answer. A conversation can be in several rows, each
    with the answers up to another turn; which it is, is told by the prompt."""
    messages, tools = question.talk.messages, question.talk.tools
    turns = [number for number, message in enumerate(messages) if message.role == "assistant"]
    prompt = row.ids[: row.runs[-1].first].tolist()
    dicts = [message.as_dict() for message in messages]
    turn = turns[-1]
    if len(turns) > 1:
        turn = next((turn for turn in reversed(turns) if renderer.prompt(dicts[:turn], tools) == prompt), turn)
    return dicts[:turn], messages[turn].content


def columns_of(questions: Sequence[Question], taken: Callable[[str], bool]) -> dict[str, list[Any]]:
    """Every column that some row has, but those whose names are `taken`; None where a row has none of it."""
    names = {name: None for question in questions for name in question.columns if not taken(name)}
    return {name: [question.columns.get(name) for question in questions] for name in names}
