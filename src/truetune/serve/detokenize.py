"""Token ids become text piece by piece: whole characters only, no special tokens, and nothing of a stop text.

What all pieces of an answer say together is what the tokenizer makes of all its ids at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from truetune.serve.request import Finish, Piece, Token

_HALF = "\ufffd"
_PATIENCE = 8
"""Tokens after which bytes that are no character are told as they are: no character has more than four bytes."""


class Vocabulary:
    """A tokenizer, as pieces of text ask it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self.special = frozenset(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
        self.size = len(tokenizer)
        self.characters = lru_cache(maxsize=65536)(self._characters)

    def text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _characters(self, token: int) -> str:
        """A token's own characters; part of a character is U+FFFD."""
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))


class Reader:
    """The text of ids that come one by one.

    A token's characters depend on the tokens before it: a character may be cut in two by them, and SentencePiece takes
    the space off the first word. So each is read together with those of the piece before it.
    """

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._ids: list[int] = []
        self._told = 0
        """How many of them have been told."""

    def push(self, token: int) -> str:
        """The characters that are whole with it."""
        if token in self._vocabulary.special:
            return ""
        self._ids.append(token)
        known = self._vocabulary.text(self._ids[: self._told]) if self._told else ""
        text = self._vocabulary.text(self._ids)
        waiting = len(self._ids) - self._told
        if len(text) <= len(known) or (text.endswith(_HALF) and waiting < _PATIENCE):
            return ""
        self._ids, self._told = self._ids[self._told :], waiting
        return text[len(known) :]


class Detokenizer:
    """The pieces of one answer.

    Attributes:
        stopped: a stop text has come; what follows is not part of the answer.
    """

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str]):
        self.stopped = False
        self._reader, self._stops = Reader(vocabulary), [stop for stop in stops if stop]
        self._text = ""
        """What was not told yet, since it may be the beginning of a stop text."""
        self._tokens: list[Token] = []

    def push(self, token: Token) -> Piece | None:
        """The piece that goes out with this token; None: nothing yet."""
        self._text += self._reader.push(token.id)
        self._tokens.append(token)
        places = [place for place in map(self._text.find, self._stops) if place >= 0]
        if places:
            self.stopped, self._text = True, self._text[: min(places)]
            return None
        keep = max((_overlap(self._text, stop) for stop in self._stops), default=0)
        said = self._text[: len(self._text) - keep]
        return self._piece(said) if said else None

    def end(self, finish: Finish) -> Piece:
        """The last piece."""
        return self._piece(self._text, finish)

    def _piece(self, said: str, finish: Finish | None = None) -> Piece:
        piece = Piece(said, tuple(self._tokens), finish)
        self._text, self._tokens = self._text[len(said) :], []
        return piece


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
