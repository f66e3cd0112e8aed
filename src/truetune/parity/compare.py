"""Ids against ids: what differs first, where, and what that usually comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any, Literal
from unicodedata import is_normalized

from truetune.findings import Both, Words, spoken
from truetune.parity.layers import Layer, Refused, Truth
from truetune.parity.probes import PROBES, Probe, injection

Verdict = Literal["same", "different", "refused", "limit"]
"""refused: training refuses the conversation, so there is nothing that a place could have to be the same as. limit: it
differs as every server of that kind does, for a reason that no export can change; said, not judged."""
Limit = Literal["typed", "unlearned", "lacking", "composed", "fixed"]
"""typed: special tokens in what a user types become such. unlearned: it answers what training refuses. lacking: it
refuses what it has no words for, and says so. composed: it does not compose letters as this tokenizer does. fixed: it
stays with the default where thinking is switched."""
Kind = Literal["template", "tokens", "bos", "stops", "sampling", "logits", "refusal"]


@dataclass(frozen=True)
class Token:
    """A token by its number and its text."""

    id: int
    text: str

    def __str__(self) -> str:
        return f"{self.id} {self.text!r}"


@dataclass(frozen=True)
class Difference:
    """The first thing that is not the same.

    Attributes:
        kind: of what. layer: where it was found. probe: in which conversation. position: of the token, from 0.
        expected, found: the tokens there, None where the ids end before. cause: what it comes from, most likely.
    """

    kind: Kind
    layer: str
    cause: Both
    probe: str | None = None
    position: int | None = None
    expected: Token | None = None
    found: Token | None = None

    def words(self) -> Both:
        """In one line."""
        place_en = f", {self.probe!r}" if self.probe else ""
        place_zh = f"，“{self.probe}”" if self.probe else ""
        if self.position is None:
            return Both(f"{self.layer}{place_en}: {self.cause}", f"{self.layer}{place_zh}：{self.cause.zh}")
        return Both(f"{self.layer}{place_en}, token {self.position}: {self.expected or 'nothing'} became "
                    f"{self.found or 'nothing'}: {self.cause}",
                    f"{self.layer}{place_zh}，第 {self.position} 个 token：{self.expected or '无'} 变成了 "
                    f"{self.found or '无'}：{self.cause.zh}")

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "cause": str(self.cause), "cause_zh": self.cause.zh}


@dataclass(frozen=True)
class Row:
    """What a place makes of one probe. tokens: how many, where it makes some. limit: which one. note: why it is
    refused."""

    probe: str
    verdict: Verdict
    tokens: int = 0
    limit: Limit | None = None
    note: Words = ""
    difference: Difference | None = None


@dataclass(frozen=True)
class Compared:
    """What a place makes of everything that was asked.

    Attributes:
        ends: whether answers end at the same tokens; None: nobody can say. more_ends: tokens that end an answer here
            and did not in training; none of them stands inside an answer.
    """

    layer: str
    rows: tuple[Row, ...]
    ends: bool | None = None
    more_ends: tuple[Token, ...] = ()
    wrong_ends: Difference | None = None
    wrong_sampling: Difference | None = None

    @property
    def differences(self) -> list[Difference]:
        return [found for found in (*(row.difference for row in self.rows), self.wrong_ends, self.wrong_sampling)
                if found]

    @property
    def same(self) -> bool:
        return not self.differences

    def count(self, verdict: Verdict) -> int:
        return sum(row.verdict == verdict for row in self.rows)


def compare(trained: Truth, layers: Iterable[Layer]) -> list[Compared]:
    """What each of `layers` makes of the probes, beside what the model was trained with, or the first of two places."""
    probes = [*PROBES, *([injection(trained.specials)] if trained.specials else [])]
    wanted = {probe.name: _asked(trained, probe) for probe in probes}
    return [_compared(trained, layer, probes, wanted) for layer in layers]


def _compared(trained: Truth, layer: Layer, probes: Sequence[Probe],
              wanted: Mapping[str, list[int] | Refused]) -> Compared:
    rows = tuple(_row(trained, layer, probe, wanted[probe.name]) for probe in probes)
    wished, found = trained.stops(), layer.stops()
    if wished is None or found is None:
        return Compared(layer.name, rows)
    lost, more = wished - found, found - wished
    early = more & trained.inside_answers()
    wrong = None
    if lost or early:
        named = ", ".join(str(Token(id, trained.text([id]))) for id in sorted(lost or early))
        cause = Both(f"{named} ends an answer in training and not here: answers would not stop",
                     f"训练时 {named} 会结束回答，这里不会：回答将停不下来") if lost else \
            Both(f"{named} ends an answer here, and stands inside answers in training",
                 f"{named} 在这里会结束回答，但训练时它出现在回答中间")
        wrong = Difference("stops", layer.name, cause)
    return Compared(layer.name, rows, wrong is None, tuple(Token(id, trained.text([id])) for id in sorted(more)), wrong)


def _row(trained: Truth, layer: Layer, probe: Probe, wanted: list[int] | Refused) -> Row:
    if isinstance(wanted, Refused) and probe.values:
        return Row(probe.name, "refused", note=wanted.reason)  # nothing is switched by a word that nobody reads
    found = _asked(layer, probe)
    if isinstance(wanted, Refused):
        return _refused(probe, wanted, found)
    if isinstance(found, Refused):
        if layer.may_lack:
            return Row(probe.name, "limit", limit="lacking", note=found.reason)
        reason = found.reason
        cause = Both(f"it refuses what training takes: {reason}", f"它拒绝了训练时接受的对话：{spoken(reason, True)}")
        return Row(probe.name, "different", difference=Difference("refusal", layer.name, cause, probe.name))
    difference = first_difference(trained, layer, probe.name, wanted, found, trained.bos)
    if difference and probe.injected and found == trained.parsed(wanted):
        return Row(probe.name, "limit", len(found), "typed")
    if difference and probe.values and found == _asked(trained, replace(probe, values={})):
        return Row(probe.name, "limit", len(found), "fixed")
    if difference and trained.composes and not is_normalized("NFC", probe.last):
        return Row(probe.name, "limit", len(found), "composed")
    return Row(probe.name, "different" if difference else "same", len(found), difference=difference)


def _refused(probe: Probe, wanted: Refused, found: list[int] | Refused) -> Row:
    """A conversation that nothing was trained with. Some places answer it nevertheless, in words of their own."""
    if isinstance(found, Refused):
        return Row(probe.name, "refused", note=wanted.reason)
    return Row(probe.name, "limit", len(found), "unlearned", wanted.reason)


def first_difference(first: Layer, second: Layer, probe: str, wanted: Sequence[int], found: Sequence[int],
                     bos: int | None) -> Difference | None:
    """Where two rows of ids part, and why, most likely."""
    if list(wanted) == list(found):
        return None
    position = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(wanted, found, strict=False)))
    kind, cause = _cause(first, second, wanted, found, bos)
    return Difference(kind, second.name, cause, probe, position, _token(first, wanted, position),
                      _token(second, found, position))


def _cause(first: Layer, second: Layer, wanted: Sequence[int], found: Sequence[int],
           bos: int | None) -> tuple[Kind, Both]:
    before, after = leading(wanted, bos), leading(found, bos)
    if list(wanted[before:]) == list(found[after:]):
        return "bos", Both(
            f"{after} beginning-of-text tokens instead of {before}: the template writes it and the tokenizer adds it"
            if after > before else f"{after} beginning-of-text tokens instead of {before}: it is lost",
            f"开头的 BOS token 有 {after} 个，应为 {before} 个：" + ("模板写了一次，分词器又加了一次" if after > before
                                                                   else "丢失了"))
    if first.text(wanted) == second.text(found):
        return "tokens", Both("the text is the same and its tokens are not: another tokenizer (how it splits text "
                              "before merging, or its merges)", "文字相同而 token 不同：分词器不一样（预切分或合并）")
    return "template", Both("the text is another one: another chat template", "文字不同：对话模板不一样")


def leading(ids: Sequence[int], bos: int | None) -> int:
    """How many beginning-of-text tokens open a row."""
    return sum(1 for _ in takewhile(lambda id: id == bos, ids))


def _token(layer: Layer, ids: Sequence[int], position: int) -> Token | None:
    return Token(ids[position], layer.text([ids[position]])) if position < len(ids) else None


def _asked(layer: Layer, probe: Probe) -> list[int] | Refused:
    try:
        return layer.prompt(probe)
    except Refused as refused:
        return refused
