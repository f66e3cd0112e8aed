"""What the rows of a data set say, read once more as text: rows that repeat, rows that are trained on and measured too,
languages, what `signs` knows, and what only pairs, judgements and tools can have wrong.

Everything is counted while reading, in one pass, over the first rows of each data set; what is kept of a row are a few
numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from truetune.check.scripts import main_scripts
from truetune.check.signs import signs_in
from truetune.data.dataset import Data
from truetune.data.messages import Conversation, Document, Judged, Place, Preference, Row
from truetune.data.reading import STAGE_ROWS, Refused, read_source
from truetune.data.rows import Rows, Stream
from truetune.data.sources import Source, find_sources
from truetune.options import Config

LOOKED_AT = 20_000
"""Rows of each data set: a share of 0.1 % is then known to a twentieth of a percent or so, in about a second."""
_LETTERS = 24_000_000
"""At most so many of each data set, in rows of whatever length."""
_CHUNK, _CHUNK_LETTERS = 1000, 1_000_000
"""Rows that are counted together: many enough to be quick, few enough for memory, however long they are."""
_NAMED = 5
"""So many places of a kind are kept."""
_ONE_WORD = 12
"""Letters that one word may have; of Chinese, which has no spaces, four."""


@dataclass(slots=True)
class Said:
    """A row in few words. answered: what is learned. key: of the whole row, question: of what stands before the last
    answer; equal texts have equal keys, whatever their white space. strays: tools that are called and not offered."""

    place: Place
    asked: str
    answered: str
    system: str
    key: int
    question: int
    answers: int = 1
    thinks: bool = False
    tools: bool = False
    strays: tuple[str, ...] = ()
    rejected: str | None = None
    good: bool | None = None

    def bare(self) -> Said:
        """What is kept of it: its keys and its place."""
        return Said(self.place, self.asked[:1], "", "", self.key, self.question)


@dataclass
class Hits:
    """How many rows have something, where the first of them are, and what was found in the first."""

    count: int = 0
    places: list[Place] = field(default_factory=list)
    shown: str = ""

    def add(self, place: Place, shown: str = "") -> None:
        if not self.count:
            self.shown = shown
        if len(self.places) < _NAMED:
            self.places.append(place)
        self.count += 1


@dataclass
class Seen:
    """What was counted over `rows` rows. signs: by number in `SIGNS`. repeated: rows that stand there before.
    differing: rows whose question stands there before with another answer. scripts: how many answers are mostly in each
    of `SCRIPTS`. crossed: rows that answer in another one than they are asked in, by the two. longer: of pairs, letters
    of chosen by those of rejected."""

    rows: int = 0
    signs: dict[int, Hits] = field(default_factory=dict)
    repeated: Hits = field(default_factory=Hits)
    differing: Hits = field(default_factory=Hits)
    answers: Counter[int] = field(default_factory=Counter)
    scripts: Counter[int] = field(default_factory=Counter)
    crossed: Counter[tuple[int, int]] = field(default_factory=Counter)
    first_crossed: Place | None = None
    systems: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    one_word: int = 0
    thinks: int = 0
    tools: int = 0
    strays: Hits = field(default_factory=Hits)
    same_pair: Hits = field(default_factory=Hits)
    longer: list[float] = field(default_factory=list)
    labels: Counter[bool] = field(default_factory=Counter)
    _questions: dict[int, int] = field(default_factory=dict)
    _keys: set[int] = field(default_factory=set)
    _texts: dict[int, str] = field(default_factory=dict)

    def add(self, chunk: Sequence[Said]) -> None:
        """Count some rows."""
        self.rows += len(chunk)
        for said in chunk:
            self._repeats(said)
            self._shape(said)
        for row, sign, found in signs_in([(said.asked, said.answered) for said in chunk]):
            self.signs.setdefault(sign, Hits()).add(chunk[row].place, found)
        asked = main_scripts([said.asked for said in chunk])
        answered = main_scripts([said.answered for said in chunk])
        self.scripts.update(answered[answered >= 0].tolist())
        for number in np.flatnonzero((asked >= 0) & (answered >= 0) & (asked != answered)).tolist():
            self.first_crossed = self.first_crossed or chunk[number].place
            self.crossed[int(asked[number]), int(answered[number])] += 1

    def _repeats(self, said: Said) -> None:
        if said.key in self._keys:
            self.repeated.add(said.place)
        elif said.asked and self._questions.setdefault(said.question, said.key) != said.key:
            self.differing.add(said.place)
        self._keys.add(said.key)

    def _shape(self, said: Said) -> None:
        answer = said.answered.strip()
        key = hash(answer)
        self.answers[key] += 1
        self._texts.setdefault(key, answer[:40])
        self.one_word += _is_one_word(answer)
        self.systems[said.system[:200]] += 1
        self.turns[said.answers] += 1
        self.thinks += said.thinks
        self.tools += said.tools
        for name in said.strays[:1]:
            self.strays.add(said.place, name)
        if said.good is not None:
            self.labels[said.good] += 1
        if said.rejected is not None:
            self.longer.append(len(said.answered) / max(len(said.rejected), 1))
            if said.answered.split() == said.rejected.split():
                self.same_pair.add(said.place)

    @property
    def most_frequent(self) -> tuple[int, str]:
        """How often the most frequent answer comes, and how it begins."""
        ((key, count),) = self.answers.most_common(1) or [(0, 0)]
        return count, self._texts.get(key, "")


@dataclass
class Held:
    """Rows that measure. rows: how many were looked at. trained_on: those that are trained on too; asked: those whose
    question is, with another answer."""

    rows: int = 0
    trained_on: Hits = field(default_factory=Hits)
    asked: Hits = field(default_factory=Hits)

    @classmethod
    def against(cls, measured: Sequence[Said], trained: Sequence[Said]) -> Held:
        """`measured` rows, looked for among those that are trained on."""
        held = cls(len(measured))
        keys, questions = {said.key for said in trained}, {said.question for said in trained}
        for said in measured:
            if said.key in keys:
                held.trained_on.add(said.place)
            elif said.asked and said.question in questions:
                held.asked.add(said.place)
        return held


def see(data: Data, config: Config) -> tuple[Seen, Held]:
    """Read the first rows of all data sets once more: those to train on are counted (without any, those that measure),
    those that measure are looked for among them.

    Raises:
        Problem: a data set that could be read before cannot be read again.
    """
    training, measuring, seen = _rows_of("dataset", data, config), _rows_of("eval_dataset", data, config), Seen()
    split = _places(data.held_out.get("")) if config.val_size else set()
    trained: list[Said] = []
    measured: list[Said] = []
    for chunk in training:
        seen.add(chunk)
        for said in chunk:
            (measured if said.place in split else trained).append(said.bare())
    if len(measured) > len(split):  # several rows on one line: nobody can say which of them are held out
        trained, measured = trained + measured, []
    for chunk in measuring:
        if not config.dataset:
            seen.add(chunk)
        measured += [said.bare() for said in chunk]
    return seen, Held.against(measured, trained)


def _rows_of(option: str, data: Data, config: Config) -> Iterator[list[Said]]:
    """The rows that can be learned from among the first of each data set that `option` names, chunk by chunk."""
    for source in _sources(option, data, config):
        chunk: list[Said] = []
        letters = before = 0
        for row in islice(read_source(source, config, STAGE_ROWS[config.stage]), LOOKED_AT):
            if isinstance(row, Refused):
                continue
            chunk.append(_said(row))
            letters += len(chunk[-1].asked) + len(chunk[-1].answered)
            if len(chunk) == _CHUNK or letters - before > _CHUNK_LETTERS:
                yield chunk
                chunk, before = [], letters
            if letters > _LETTERS:
                break
        yield chunk


def _sources(option: str, data: Data, config: Config) -> list[Source]:
    """The data sets that `option` names. Of a stream there is no store that would tell."""
    if option == "dataset" and isinstance(data.train, Stream):
        return find_sources(config.dataset, config, option)
    return [found.source for found in data.sets if found.option == option]


def _places(rows: Rows | None) -> set[Place]:
    """Where rows stand."""
    found: set[Place] = set()
    for number, store in enumerate(rows.stores if rows else ()):
        records = store.rows[rows.picks[rows.picks[:, 0] == number, 1]] if rows else store.rows[:0]
        files = store.manifest.files
        found |= {Place(files[file], line) for file, line in
                  zip(records["file"].tolist(), records["number"].tolist(), strict=True)}
    return found


def _said(row: Row) -> Said:
    """A row in few words."""
    match row:
        case Document(text, place):
            key = _key(text)
            return Said(place, "", text, "", key, key, answers=0)
        case Judged(talk, good):
            said = _of_talk(talk)
            said.good = good
        case Preference(chosen, rejected):
            said = _of_talk(chosen)
            said.rejected = rejected.messages[-1].content
            said.key = hash((said.key, _key(said.rejected)))
        case Conversation():
            said = _of_talk(row)
    return said


def _of_talk(talk: Conversation) -> Said:
    messages = talk.messages
    system = messages[0].content if messages[0].role == "system" else ""
    offered = {str(tool.get("function", tool).get("name", "")) for tool in talk.tools}
    calls = [call for message in messages for call in message.tool_calls]
    answers = [message for message in messages if message.role == "assistant"]
    before = _key(*[message.content for message in messages[:-1] if message.role != "system"])
    return Said(
        talk.place, "\n".join([message.content for message in messages if message.role == "user"]),
        "\n".join([message.content for message in answers]), system,
        hash((before, _key(system), _key(messages[-1].content), str(calls) if calls else "",
              str(talk.tools) if offered else "")),
        before, len(answers), any([message.reasoning or "</think>" in message.content for message in answers]),
        bool(offered or calls), tuple(call.name for call in calls if offered and call.name not in offered))


def _key(*texts: str) -> int:
    """Equal for texts that differ in nothing but white space."""
    return hash(tuple([" ".join(text.split()) for text in texts]))


def _is_one_word(answer: str) -> bool:
    return len(answer) <= (_ONE_WORD if answer.isascii() else _ONE_WORD // 3) and " " not in answer
