"""The one renderer: a conversation becomes token ids and a weight for each, here and nowhere else.

The whole conversation is rendered by the tokenizer's own chat template and tokenised in one piece, so the ids are
those of `tokenizer.apply_chat_template`. Which tokens are learned comes from positions: an answer begins where the
prompt that chat would send ends (rendered with its generation prompt), and ends with its end-of-turn token. That these
pieces really are prefixes of the rendered conversation is proven for every answer. Where a template writes an answer
differently once more turns follow (thoughts of earlier answers are taken out, mostly), that answer is learned in a row
of its own, which ends with it; where even that cannot be proven, the row is refused with the reason.

Words never become special tokens: an `<|im_end|>` that somebody typed is text, in training and in chat.

The floor is the tokenizer. Everything else (two renderings of a template, positions, weights) happens while the
tokenizer's threads work on the next rows, without touching single tokens in Python.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from truetune.data.fastbpe import Encoder, fast_encoder
from truetune.data.messages import NOWHERE, BadRow, Conversation, Message, Place, Row
from truetune.data.texts import BREAK, Answer, Text, Writer
from truetune.findings import Both, problem, spoken

VERSION = 1
"""Raised by whoever changes what is rendered: token stores of another version are made again."""
_FAST_FROM = 1000
"""Texts after which the faster encoder pays for its start (about a second)."""


class Disagreed(Exception):
    """The faster encoder gave other ids than the tokenizer itself; `difference` says where."""

    def __init__(self, difference: Both):
        super().__init__(str(difference))
        self.difference = difference


class Run(NamedTuple):
    """Tokens [first, last) that are learned, and what each counts."""

    first: int
    last: int
    weight: float


@dataclass(frozen=True, slots=True)
class Rendered:
    """A sequence as the model sees it.

    ids: (T,). runs: what is learned; an answer's run ends with its end-of-turn token. base: the weight of all other
    tokens. place: the row it came from. label: for judged answers, whether it is good. drifts: before some answer stand
    other ids than chat would send, since tokens join its first white space to that of the prompt. endless: some answer
    has no end-of-turn token. cut: it lost tokens to cutoff_len. thinks: some answer holds a thought.
    """

    ids: np.ndarray
    runs: tuple[Run, ...]
    base: float = 0.0
    place: Place = NOWHERE
    label: bool | None = None
    drifts: bool = False
    endless: bool = False
    cut: bool = False
    thinks: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def answered(self, answer: Sequence[int] | np.ndarray) -> Rendered:
        """The row up to its last answer, with another answer, which alone is learned."""
        return answered(self.ids[: self.runs[-1].first], answer, self.place, self.label)

    @property
    def weights(self) -> np.ndarray:
        """(T,) float32."""
        weights = np.full(len(self.ids), self.base, dtype=np.float32)
        for first, last, weight in self.runs:
            weights[first:last] = weight
        return weights

    @property
    def where(self) -> str:
        return str(self.place)


def answered(prompt: Sequence[int] | np.ndarray, answer: Sequence[int] | np.ndarray, place: Place = NOWHERE,
             label: bool | None = None) -> Rendered:
    """The ids of a prompt and of an answer, which is learned, as a row."""
    run = Run(len(prompt), len(prompt) + len(answer), 1.0)
    return Rendered(np.concatenate([prompt, answer]).astype(np.int32), (run,), place=place, label=label)


@dataclass(frozen=True)
class Masks:
    """What is learned of a conversation. only_last: its last answer. prompts: every token. patterns: parts of answers
    that count otherwise, as pairs of regular expression and weight; the last one that matches holds."""

    only_last: bool = False
    prompts: bool = False
    patterns: Mapping[str, float] = field(default_factory=dict)


class Renderer:
    """Renders with one tokenizer, whose chat template is the one that is trained and saved.

    Args:
        tokenizer: a fast one.
        stops: further tokens that end an answer, where the template itself writes none behind it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, masks: Masks = Masks(), stops: Iterable[int] = ()):
        self.tokenizer, self.masks = tokenizer, masks
        self._backend: Tokenizer = tokenizer.backend_tokenizer  # pyright: ignore[reportAttributeAccessIssue]
        self._writer = Writer(tokenizer, masks.only_last, frozenset(stops))
        special = list(self._writer.special_ids.values())
        self._is_special = np.zeros(1 + max([len(tokenizer), *special]), dtype=bool)
        self._is_special[special] = True
        self._patterns = [(re.compile(text, re.DOTALL), weight) for text, weight in masks.patterns.items()]
        self._served = lru_cache(maxsize=4096)(self._encode_one)
        self._strict: Tokenizer | None = None
        self._fast: Encoder | None = None
        self._fast_tried, self._encoded = False, 0
        self.stops = frozenset(stops) | self._template_stops()

    def render(self, rows: Sequence[Row]) -> list[tuple[Rendered, ...] | BadRow]:
        """Each row as its sequences: one (more where the template rewrites earlier answers), two for a preference
        (chosen, rejected); `BadRow` where no exact mask can be made."""
        return next(iter(self.stream([rows])))

    def stream(self, chunks: Iterable[Sequence[Row]],
               fast: bool = False) -> Iterator[list[tuple[Rendered, ...] | BadRow]]:
        """`render` for chunk after chunk: one is tokenised while the next is rendered as text and the one before gets
        its masks. About a thousand rows a chunk keep every thread of the tokenizer busy.

        Args:
            fast: after `_FAST_FROM` texts, use the faster encoder if it proves equal on a thousand of them.

        Raises:
            Disagreed: the faster encoder was found to differ; what was rendered so far cannot be relied on.
        """
        with ThreadPoolExecutor(1) as worker:
            waiting: tuple[list[list[Text] | BadRow], Future] | None = None
            for chunk in chunks:
                texts = self._writer.texts(chunk)
                plain = [text.whole for sequences in texts if not isinstance(sequences, BadRow)
                         for text in sequences if not text.broken]
                ahead = texts, worker.submit(self._encode_all, plain, fast)
                if waiting:
                    yield self._finish(*waiting)
                waiting = ahead
            if waiting:
                yield self._finish(*waiting)

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (),
               add_generation_prompt: bool = True, **values: Any) -> list[int]:
        """The ids that ask the model for the next answer: what chat sends and what `render` puts before an answer.

        Args:
            add_generation_prompt: open the answer; without it these are the messages alone.
            values: what else the template is told (enable_thinking).

        Raises:
            Problem: the template refuses these messages (a system message where it knows none, for instance).
        """
        try:
            text = self._writer.prompt(messages, tools, add_generation_prompt, **values)
            return self._encode_broken(text)[0].tolist() if BREAK in text else self._encode_one(text)
        except BadRow as error:
            raise problem("refused-by-template", Both(f"{error}.", f"{spoken(error.reason, True)}。")) from None

    def stop_ids(self) -> list[int]:
        """The tokens that end an answer: end-of-text, those of the template, and the one it puts after an answer."""
        return sorted(self.stops)

    def opening_ids(self) -> list[int]:
        """What this tokenizer puts before every text: the beginning-of-text token, or nothing."""
        around = self._backend.encode("", add_special_tokens=True).ids
        return [token for token in around if token == self.tokenizer.bos_token_id][:1]

    def _template_stops(self) -> set[int]:
        """End-of-text, and the token that the template puts after an answer."""
        eos = self.tokenizer.eos_token_id
        stops = {eos} if isinstance(eos, int) else set()
        if self.tokenizer.chat_template:
            talk = Conversation((Message("user", "Hi"), Message("assistant", "Hi")))
            self.stops = frozenset(stops)
            (rows,) = self.render([talk])
            if not isinstance(rows, BadRow) and rows[-1].runs:
                last = int(rows[-1].ids[rows[-1].runs[-1].last - 1])
                stops |= {last} if self._is_special[last] else set()
        return stops

    def _encode_all(self, texts: list[str], fast: bool) -> list[tuple[np.ndarray, list[int]]]:
        """The ids of each text, and where special tokens stand among them."""
        arrays = self._encode_batch(texts, fast)
        if not arrays:
            return []
        ends = np.cumsum([len(array) for array in arrays])
        at = np.flatnonzero(self._is_special[np.concatenate(arrays)])
        cuts = [0, *np.searchsorted(at, ends).tolist()]
        inside = (at - np.repeat(ends - [len(array) for array in arrays], np.diff(cuts))).tolist()
        return [(array, inside[first:last]) for array, (first, last) in zip(arrays, pairwise(cuts), strict=True)]

    def _encode_batch(self, texts: list[str], fast: bool) -> list[np.ndarray]:
        self._encoded += len(texts)
        if fast and not self._fast_tried and self._encoded > _FAST_FROM:
            self._fast, self._fast_tried = fast_encoder(self._backend, texts), True
        if fast and self._fast:
            arrays = self._fast.encode_batch(texts)
            if self._fast.disagreed:
                difference, self._fast = self._fast.disagreed, None
                raise Disagreed(difference)
            return arrays
        return [np.array(encoding.ids, dtype=np.int32)
                for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _finish(self, texts: Sequence[list[Text] | BadRow], encoded: Future) -> list[tuple[Rendered, ...] | BadRow]:
        encodings = iter(encoded.result())
        rendered: list[tuple[Rendered, ...] | BadRow] = []
        for sequences in texts:
            if isinstance(sequences, BadRow):
                rendered.append(sequences)
                continue
            tokens = [None if text.broken else next(encodings) for text in sequences]
            try:
                rendered.append(tuple(map(self._sequence, sequences, tokens)))
            except BadRow as error:
                rendered.append(error)
        return rendered

    def _sequence(self, text: Text, tokens: tuple[np.ndarray, list[int]] | None) -> Rendered:
        """Ids and runs of one text. Positions are found by counting special tokens, in text and in ids; where that
        does not settle them, by the characters behind each token."""
        if text.document:
            return self._document(text)
        ids, at = tokens or (np.zeros(0, dtype=np.int32), [])
        runs, drifts = None, False
        if tokens and not any(pattern.search(text.whole) for pattern, _ in self._patterns):
            runs = self._runs_by_count(text, ids, at)
        if runs is None:
            ids, offsets, answers = self.with_offsets(text)
            runs, drifts = self._runs_by_offsets(text.whole.replace(BREAK, ""), answers, ids, offsets)
        ends = {run.last for run in runs} - {run.first for run in runs}
        endless = any(not self._is_special[ids[end - 1]] for end in ends)
        return Rendered(ids, tuple(runs), float(self.masks.prompts), text.place, text.label, drifts, endless,
                        thinks=text.thinks)

    def _runs_by_count(self, text: Text, ids: np.ndarray, at: list[int]) -> list[Run] | None:
        """The runs of the answers, or None where special tokens do not lead to all of them.

        An answer begins behind the prompt's last special token and the few tokens that follow it there
        (`assistant\n`): that those are the same ids is the proof that chat sends what was trained.

        Args:
            at: where special tokens stand in `ids`.
        """
        whole = text.whole
        tokens = [match.span() for match in self._writer.special.finditer(whole)]
        if len(tokens) != len(at):
            return None
        starts = [start for start, _ in tokens]
        runs = []
        for begin, end, weight in text.answers:
            before, within = bisect_left(starts, begin), bisect_left(starts, end)
            if not before:
                return None
            anchor = at[before - 1]
            opening = self._served(whole[starts[before - 1] : begin])
            first = anchor + len(opening)
            if ids[anchor:first].tolist() != opening:
                return None
            if within > before and not whole[tokens[within - 1][1] : end].strip():
                last = at[within - 1] + 1
            elif within < len(at) and starts[within] == end:
                last = at[within] + (int(ids[at[within]]) in self.stops)
            elif end == len(whole):
                last = len(ids)
            else:
                return None
            if first < last:
                runs.append(Run(first, last, weight))
        return runs

    def with_offsets(self, text: Text) -> tuple[np.ndarray, np.ndarray, list[Answer]]:
        """ids (T,), the characters [start, end) of each token (T, 2), and the answers, where none is broken up."""
        if text.broken:
            ids, offsets = self._encode_broken(text.whole)
            shift = [place for place, letter in enumerate(text.whole) if letter == BREAK]
            answers = [Answer(begin - bisect_left(shift, begin), end - bisect_left(shift, end), weight)
                       for begin, end, weight in text.answers]
            return ids, offsets, answers
        encoding = self._backend.encode(text.whole, add_special_tokens=False)
        return (np.array(encoding.ids, dtype=np.int32), np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
                text.answers)

    def _runs_by_offsets(self, whole: str, answers: Sequence[Answer], ids: np.ndarray,
                         offsets: np.ndarray) -> tuple[list[Run], bool]:
        """Characters as tokens, each answer cut after its end-of-turn token.

        What a template writes behind the end-of-turn token (a line feed, mostly) is never generated, so it is not
        learned. A template that has no such token leaves the whole answer. A token that also holds characters of the
        prompt is the prompt's.
        """
        runs, drifts = [], False
        for begin, end, weight in answers:
            inside = np.flatnonzero((offsets[:, 0] >= begin) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0]))
            if not len(inside):
                continue
            first, last = int(inside[0]), int(inside[-1]) + 1
            stop = last
            while stop > first and not self._is_special[ids[stop - 1]] and not whole[slice(*offsets[stop - 1])].strip():
                stop -= 1
            if stop > first and self._is_special[ids[stop - 1]]:
                last = stop
            elif last < len(ids) and int(ids[last]) in self.stops:
                last += 1
            drifts |= self._drifts(whole, begin, ids, offsets)
            runs += self._weighed(whole, Run(first, last, weight), (begin, end), offsets)
        return runs, drifts

    def _weighed(self, whole: str, run: Run, span: tuple[int, int], offsets: np.ndarray) -> list[Run]:
        """An answer's run in parts, as `Masks.patterns` weigh them."""
        if not self._patterns:
            return [run]
        weights = np.full(run.last - run.first, run.weight)
        mine = offsets[run.first : run.last]
        for pattern, weight in self._patterns:
            for hit in pattern.finditer(whole, *span):
                weights[(mine[:, 1] > hit.start()) & (mine[:, 0] < hit.end())] = weight * run.weight
        borders = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
        return [Run(run.first + first, run.first + last, float(weights[first]))
                for first, last in pairwise(borders)]

    def _drifts(self, whole: str, begin: int, ids: np.ndarray, offsets: np.ndarray) -> bool:
        """Whether the ids before character `begin` are other than those of the text before it alone.

        Tokens never reach over a special token, so what follows the last one is enough to compare, and it is the same
        few words (`<|im_start|>assistant`) in every row.
        """
        first = int(np.searchsorted(offsets[:, 0], begin))
        anchor = next((place for place in range(first - 1, -1, -1) if self._is_special[ids[place]]), 0)
        return ids[anchor:first].tolist() != self._served(whole[offsets[anchor, 0] : begin])

    def _document(self, text: Text) -> Rendered:
        """Plain text and end-of-text, all of it learned."""
        ids = self._strict_backend().encode(text.whole, add_special_tokens=False).ids
        eos = self.tokenizer.eos_token_id
        ids = np.array([*ids, *([eos] if isinstance(eos, int) else [])], dtype=np.int32)
        return Rendered(ids, (), 1.0, text.place)

    def _encode_one(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def _encode_broken(self, whole: str) -> tuple[np.ndarray, np.ndarray]:
        """ids (T,) and characters (T, 2), in the text without breaks, of a text in which only the unbroken special
        tokens are special.

        Raises:
            BadRow: this tokenizer reads pieces between special tokens otherwise than the whole.
        """
        if not self._reads_pieces:
            raise BadRow(Both("it holds words that look like a special token, and this tokenizer cannot keep them as "
                              "text", "含有看起来像特殊 token 的文字，而这个分词器无法把它们当作普通文本"))
        return self._encode_pieces(whole)

    def _encode_pieces(self, whole: str) -> tuple[np.ndarray, np.ndarray]:
        strict = self._strict_backend()
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        start = position = 0  # in `whole`, and in the text without breaks
        for token in [*self._writer.special.finditer(whole), None]:
            piece = whole[start : token.start() if token else None].replace(BREAK, "")
            encoding = strict.encode(piece, add_special_tokens=False)
            ids += encoding.ids
            offsets += [(position + first, position + last) for first, last in encoding.offsets]
            position += len(piece)
            if token:
                ids.append(self._writer.special_ids[token[0]])
                offsets.append((position, position + len(token[0])))
                start, position = token.end(), position + len(token[0])
        return np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int64).reshape(-1, 2)

    def _strict_backend(self) -> Tokenizer:
        """The tokenizer that knows no special tokens."""
        if self._strict is None:
            self._strict = Tokenizer.from_str(self._backend.to_str())
            self._strict.encode_special_tokens = True
        return self._strict

    @cached_property
    def _reads_pieces(self) -> bool:
        """Whether pieces between special tokens have the same ids alone as in the whole, shown on a conversation."""
        talk = [{"role": "user", "content": "Hi, you\n\n two."}, {"role": "assistant", "content": " 你好 1+1\n"}]
        (text,) = self._writer.apply([(talk * 2, ())])
        return not isinstance(text, BadRow) and self._encode_pieces(text)[0].tolist() == self._encode_one(text)
