"""What a row is trained on, as plain data: pieces of text with who says them and what is learned.

The console, the page and `truetune data show --json` all draw the same `Preview`, so they cannot tell different
stories. The ids are those of the token store, and the text is what the tokenizer makes of them again; only who speaks
is found by writing the conversation once more.

The JSON of a preview (`Preview.as_dict`):

    {"where": "data/a.json:12", "kind": "conversations", "label": null, "tokens": 31, "learned": 9,
     "notes": ["cut to cutoff_len"], "notes_zh": ["截断到 cutoff_len"],
     "parts": [{"name": "row", "tokens": 31, "learned": 9,
                "pieces": [{"text": "<|im_end|>", "role": "assistant", "weight": 1.0, "learned": true,
                            "end_of_turn": true, "special": true, "tokens": [["<|im_end|>", [2]]]}, …]}]}

kind: conversations, preferences, judged or documents. label: of judged answers, whether good. parts: one `row`; of
preferences `prompt` (what both answers follow), `chosen` and `rejected`. role: system, user, tool, assistant, document,
or null for what the template itself writes. weight: what a token counts in the loss. tokens: each with its ids, several
where a character is spread over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from truetune.data.lengths import fit
from truetune.data.messages import BadRow, Conversation, Document, Judged, Kind, Preference, Row
from truetune.data.renderer import Rendered, Renderer
from truetune.data.texts import BREAK, Text, Writer
from truetune.findings import Both

Roles = Sequence[str | None]
"""Who says each token; None: the template."""


class Token(NamedTuple):
    """A token, or the few that share a character."""

    text: str
    ids: tuple[int, ...]


class Mark(NamedTuple):
    """What the tokens of a piece have in common."""

    role: str | None
    weight: float
    end_of_turn: bool
    special: bool


@dataclass(frozen=True)
class Piece:
    """Neighbouring tokens that are marked alike."""

    tokens: tuple[Token, ...]
    mark: Mark

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def learned(self) -> bool:
        return self.mark.weight > 0

    def as_dict(self) -> dict[str, Any]:
        return {"text": self.text, "role": self.mark.role, "weight": self.mark.weight, "learned": self.learned,
                "end_of_turn": self.mark.end_of_turn, "special": self.mark.special,
                "tokens": [[token.text, list(token.ids)] for token in self.tokens]}


@dataclass(frozen=True)
class Part:
    """A stretch of a row under a name of its own. learned: how many of its tokens are."""

    name: str
    tokens: int
    learned: int
    pieces: tuple[Piece, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(replace(self, pieces=())), "pieces": [piece.as_dict() for piece in self.pieces]}


@dataclass(frozen=True)
class Preview:
    """A row as it is trained on. notes: what a person should know of it, in words."""

    where: str
    kind: Kind
    label: bool | None
    notes: tuple[Both, ...]
    parts: tuple[Part, ...]

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def learned(self) -> int:
        return sum(part.learned for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """The shape in this module's docstring."""
        return {"where": self.where, "kind": self.kind, "label": self.label, "tokens": self.tokens,
                "learned": self.learned, "notes": [note.en for note in self.notes],
                "notes_zh": [note.zh for note in self.notes], "parts": [part.as_dict() for part in self.parts]}


def preview(sequences: Sequence[Rendered], row: Row | None, renderer: Renderer, kind: Kind, limit: int,
            overlong: str) -> Preview:
    """What is trained on for one row.

    Args:
        sequences: the row's, as the store keeps them: one, or chosen and rejected.
        row: the row they came from, for who speaks. None: nobody is named.
        limit: cutoff_len, and what `overlong` makes of longer rows.
    """
    known = _known_roles(row, renderer, limit, overlong, len(sequences)) if row else []
    told = [_told(sequence, renderer, "document" if kind == "documents" else None, known) for sequence in sequences]
    spans = {"row": (0, 0, len(sequences[0]))}
    if kind == "preferences":
        shared = _shared(*sequences)
        spans = {"prompt": (0, 0, shared), "chosen": (0, shared, len(sequences[0])),
                 "rejected": (1, shared, len(sequences[1]))}
    parts = tuple(_part(name, sequences[number].ids[first:last], told[number][first:last], renderer.tokenizer)
                  for name, (number, first, last) in spans.items())
    notes = tuple(text for flag, text in _NOTES.items() if any(flag(sequence) for sequence in sequences))
    return Preview(sequences[0].where, kind, sequences[0].label, notes, parts)


_NOTES = {
    (lambda row: row.cut): Both("part of this row was cut off at cutoff_len", "这一行超出 cutoff_len 的部分被截掉了"),
    (lambda row: row.endless): Both("an answer has no end-of-turn token: the model does not learn to stop here",
                                    "有的回答没有结束符：模型在这里学不会停下"),
    (lambda row: row.drifts): Both(
        "the white space between prompt and answer becomes other tokens than in the prompt alone",
        "提示与回答之间的空白，在这里分成的 token 与单独给出提示时不同"),
}


def _shared(chosen: Rendered, rejected: Rendered) -> int:
    """How many tokens both begin with before either answers."""
    first = min([run.first for row in (chosen, rejected) for run in row.runs[:1]], default=0)
    alike = chosen.ids[:first] == rejected.ids[:first]
    return first if alike.all() else int(np.argmin(alike))


def _told(sequence: Rendered, renderer: Renderer, role: str | None,
          known: Sequence[tuple[np.ndarray, Roles]]) -> list[Mark]:
    """Each token's mark."""
    roles = next((roles for ids, roles in known if np.array_equal(ids, sequence.ids)), [role] * len(sequence))
    weights = sequence.weights
    weights[:1] = 0.0  # predicted from nothing
    special = {number for number, token in renderer.tokenizer.added_tokens_decoder.items() if token.special}
    ids = sequence.ids.tolist()
    goes_on = {run.first for run in sequence.runs}
    ends = {run.last - 1 for run in sequence.runs if run.last not in goes_on
            and (ids[run.last - 1] in special or ids[run.last - 1] in renderer.stops)}
    return [Mark(role, round(weight, 6), place in ends, token in special)
            for place, (role, weight, token) in enumerate(zip(roles, weights.tolist(), ids, strict=True))]


def _part(name: str, ids: np.ndarray, marks: Sequence[Mark], tokenizer: PreTrainedTokenizerBase) -> Part:
    tokens = _tokens(ids.tolist(), marks, tokenizer)
    pieces = tuple(Piece(tuple(token for token, _ in group), mark)
                   for mark, group in groupby(tokens, key=lambda pair: pair[1]))
    return Part(name, len(ids), sum(mark.weight > 0 for mark in marks), pieces)


_BYTES = 4
"""A character takes four bytes at most, and so four tokens."""


def _tokens(ids: Sequence[int], marks: Sequence[Mark],
            tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[Token, Mark]]:
    """The text behind each token. Tokens wait for one another until they make whole characters.

    A token is decoded behind the one before, since some tokenizers take the space from the first word.
    """
    before: list[int] = []
    waiting: list[int] = []
    seen = ""
    for place, (token, mark) in enumerate(zip(ids, marks, strict=True)):
        waiting.append(token)
        text = str(tokenizer.decode([*before, *waiting], skip_special_tokens=False,
                                    clean_up_tokenization_spaces=False))[len(seen):]
        last = place + 1 == len(ids) or marks[place + 1] != mark
        if text.endswith("\ufffd") and not last and len(waiting) < _BYTES:
            continue
        yield Token(text, tuple(waiting)), mark
        before, waiting = waiting, []
        seen = str(tokenizer.decode(before, skip_special_tokens=False, clean_up_tokenization_spaces=False))


# ---------------------------------------------------------------------------------------------------------- who speaks

_STAND_IN = "xtruetune0stands0inx"
"""Takes the place of what a message says, to see where the template puts it."""


def _known_roles(row: Row, renderer: Renderer, limit: int, overlong: str,
                 per_row: int) -> list[tuple[np.ndarray, Roles]]:
    """The ids and roles of everything that a store may hold of `row`: its sequences, or what `overlong` left of them.

    Rows are cut by position alone, so positions are put in the place of ids to see which tokens are left.
    """
    (rendered,), (texts,) = renderer.render([row]), Writer(renderer.tokenizer, renderer.masks.only_last).texts([row])
    if isinstance(rendered, BadRow) or isinstance(texts, BadRow):
        return []
    talks = _talks(row)
    roles = [_roles(talks[min(number, len(talks) - 1)], text, renderer) for number, text in enumerate(texts)] \
        if talks else []
    known: list[tuple[np.ndarray, Roles]] = []
    for first in range(0, len(roles), per_row):
        group = range(first, first + per_row)
        places = tuple(replace(rendered[number], ids=np.arange(len(rendered[number]))) for number in group)
        for part in fit(places, limit, overlong):
            for number, left in zip(group, part, strict=True):
                known.append((rendered[number].ids[left.ids], [roles[number][place] for place in left.ids]))
    return known


def _talks(row: Row) -> list[Conversation]:
    match row:
        case Conversation():
            return [row]
        case Preference(chosen, rejected):
            return [chosen, rejected]
        case Judged(talk, _):
            return [talk]
        case Document():
            return []


def _roles(talk: Conversation, text: Text, renderer: Renderer) -> Roles:
    """Who says each token of `text`: who says its last character."""
    whole = text.whole.replace(BREAK, "")
    speakers: list[str | None] = [None] * len(whole)
    for begin, end, role in _speeches(talk, whole, Writer(renderer.tokenizer, renderer.masks.only_last)):
        speakers[begin:end] = [role] * (end - begin)
    _, offsets, _ = renderer.with_offsets(text)
    return [speakers[end - 1] if end > begin else None for begin, end in offsets.tolist()]


def _speeches(talk: Conversation, whole: str, writer: Writer) -> Iterator[tuple[int, int, str]]:
    """Characters [begin, end) of `whole`, and who says them.

    An answer lies where its proof puts it. Any other message (also an earlier answer that the template has rewritten)
    is written once more with a word in its place: what stays the same before and after that word is the template's. So
    a template may move a system message where it likes.
    """
    silent = tuple(message._replace(weight=0.0) for message in talk.messages)
    ends = [count for count in range(len(silent), 0, -1) if silent[count - 1].role == "assistant"]
    openings = _write(writer, [replace(talk, messages=silent[:count]) for count in ends])
    count = next((count for count, text in zip(ends, openings, strict=True) if text and text[0] == whole), 0)
    answers = {number: replace(talk, messages=(*silent[:number], silent[number]._replace(weight=None)))
               for number in range(count) if silent[number].role == "assistant"}
    proven: set[int] = set()
    for number, text in zip(answers, _write(writer, list(answers.values())), strict=True):
        if text and text[1] and whole.startswith(text[0][: text[1][1]]):
            begin, end = text[1]
            proven.add(number)
            yield begin, begin + len(_without_tail(whole[begin:end], writer)), "assistant"
    others = [number for number in range(count) if number not in proven]
    stood_in = [replace(talk, messages=(*silent[:number], silent[number]._replace(content=_STAND_IN),
                                        *silent[number + 1 : count])) for number in others]
    for number, text in zip(others, _write(writer, stood_in), strict=True):
        before, found, after = text[0].partition(_STAND_IN) if text else ("", "", "")
        if found and _STAND_IN not in after and whole.startswith(before) and whole.endswith(after):
            yield len(before), len(whole) - len(after), silent[number].role


def _without_tail(answer: str, writer: Writer) -> str:
    """An answer without the white space that the template writes behind its end-of-turn token."""
    stripped = answer.rstrip()
    return stripped if any(token.end() == len(stripped) for token in writer.special.finditer(stripped)) else answer


def _write(writer: Writer, talks: Sequence[Conversation]) -> list[tuple[str, tuple[int, int] | None] | None]:
    """Each talk as text with its only answer, if one is learned; None where the template refuses it."""
    written: list[tuple[str, tuple[int, int] | None] | None] = []
    for texts in writer.texts(talks):
        if isinstance(texts, BadRow):
            written.append(None)
            continue
        whole, answers = texts[-1].whole, texts[-1].answers
        spans = [(answer.begin - whole.count(BREAK, 0, answer.begin), answer.end - whole.count(BREAK, 0, answer.end))
                 for answer in answers]
        written.append((whole.replace(BREAK, ""), spans[0] if spans else None))
    return written
