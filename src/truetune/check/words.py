"""What the rows of a data set say, read once more as text: rows that repeat, rows that are trained on and measured too,
languages, what `signs` knows, and what only pairs, judgements and tools can have wrong.

Everything is counted while reading, in one pass, over the first rows of each data set; what is kept of a row are a few
numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from truetune.check.scripts import SCRIPTS, main_scripts
from truetune.check.signs import SIGNS
from truetune.data.dataset import Data
from truetune.data.messages import Conversation, Document, Judged, Message, Place, Preference, Row
from truetune.data.reading import STAGE_ROWS, Refused, read_source
from truetune.data.rows import Rows, Stream
from truetune.data.sources import Source, find_sources
from truetune.options import Config

LOOKED_AT = 20_000
"""Rows of each data set: a share of 0.1 % is then known to a twentieth of a percent or so, in about a second."""
_LETTERS = 24_000_000
"""At most so many of each data set, in rows of whatever length."""
_CHUNK = 1000
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
    """What was counted over `rows` rows. signs: by number in `SIGNS`. repeated: rows that stand there before; differing:
    rows whose question stands there before with another answer. identical: how often the most frequent answer comes,
    and how it begins. scripts: how many answers are mostly in each of `SCRIPTS`; crossed: rows that answer in another
    one than they are asked in, by the two. longer: of pairs, letters of chosen by those of rejected."""

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
            self._signs(said)
            self._shape(said)
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

    def _signs(self, said: Said) -> None:
        for number, sign in enumerate(SIGNS):
            found = sign.find(said.asked, said.answered)
            if found is not None:
                self.signs.setdefault(number, Hits()).add(said.place, found)

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
    """Rows that measure. of: how many were looked at. trained_on: those that are trained on too, whole; asked: those
    whose question is, with another answer."""

    of: int = 0
    trained_on: Hits = field(default_factory=Hits)
    asked: Hits = field(default_factory=Hits)


def see(data: Data, config: Config) -> tuple[Seen, Held]:
    """Read the first rows of all data sets. Rows for training are counted; held-out rows are looked for among them.

    Raises:
        Problem: a data set that could be read before cannot be read again.
    """
    seen, held = Seen(), Held()
    split = _places(data.held_out.get("")) if config.val_size else set()
    waiting: list[Said] = []
    for source in _sources(data, config, "dataset"):
        for chunk in _chunks(source, config):
            seen.add(chunk)
            waiting += [_bare(said) for said in chunk if said.place in split]
            if split:
                keep = [said for said in chunk if said.place not in split]
                ...
    return seen, held
