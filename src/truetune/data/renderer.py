"""The one renderer: a conversation becomes token ids and a weight for each, here and nowhere else.

The whole conversation is rendered by the tokenizer's own chat template and tokenised in one piece, so the ids are
those of `tokenizer.apply_chat_template`. Which tokens are learned comes from positions: an answer begins where the
prompt that chat would send ends (rendered with its generation prompt), and ends with its end-of-turn token. That these
pieces really are prefixes of the rendered conversation is proven for every row; where a template makes that untrue, the
row is refused instead of guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import cache

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from truetune.data.messages import BadRow, Conversation, Message
from truetune.findings import problem

_CHUNK = 1000
"""Conversations tokenised at once: enough for the tokenizer's threads, little enough for memory."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it.

    ids: (T,) int64. weights: (T,) float32, 0 where nothing is learned. spans: for each answer to learn the
    tokens [start, end) that it is, end-of-turn token included. where: the row it came from. drifts: before some
    answer stand other ids than chat would send, since tokens join its first white space to that of the prompt.
    """

    ids: np.ndarray
    weights: np.ndarray
    spans: tuple[tuple[int, int], ...]
    where: str
    drifts: bool = False

    def __len__(self) -> int:
        return len(self.ids)


def render(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, *, mask_history: bool = False,
           train_on_prompt: bool = False) -> list[Rendered | BadRow]:
    """Each conversation as ids and weights, in order; `BadRow` where the template does not allow exact masks.

    Args:
        mask_history: learn only the last answer.
        train_on_prompt: weigh every token.
    """
    rendered: list[Rendered | BadRow] = []
    special, closing = _special_ids(tokenizer), _closing(tokenizer)

    @cache
    def served(prompt: str) -> list[int]:
        return tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]

    for start in range(0, len(conversations), _CHUNK):
        talks = conversations[start : start + _CHUNK]
        texts = [_render_text(talk, tokenizer, closing, mask_history) for talk in talks]
        encoded = tokenizer([text.whole if isinstance(text, _Text) else "" for text in texts], add_special_tokens=False,
                            return_offsets_mapping=True, verbose=False)
        tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        for talk, text, pair in zip(talks, texts, tokens, strict=True):
            if isinstance(text, BadRow):
                rendered.append(text)
                continue
            ids, offsets = (np.asarray(numbers, dtype=np.int64) for numbers in pair)
            spans = _token_spans(text, ids, offsets, special)
            weights = np.full(len(ids), float(train_on_prompt), dtype=np.float32)
            for first, last in spans:
                weights[first:last] = 1.0
            drifts = any(_drifts(text.whole, begin, ids, offsets, special, served) for begin, _ in text.answers)
            rendered.append(Rendered(ids, weights, spans, talk.where, drifts))
    return rendered


def render_prompt(messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that ask the model for the next answer: what chat sends and what `render` puts before an answer.

    Raises:
        Problem: the template refuses these messages (a system message where it knows none, for instance).
    """
    try:
        text = _apply(messages, tokenizer, generation_prompt=True)
    except BadRow as error:
        raise problem("refused-by-template", f"{error}.") from None
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: end-of-text, and the one the template puts after an answer."""
    probe = render([Conversation((Message("user", "Hi"), Message("assistant", "Hi")))], tokenizer)[0]
    ends = {tokenizer.eos_token_id} if isinstance(tokenizer.eos_token_id, int) else set()
    if isinstance(probe, Rendered) and probe.spans:
        ends |= {int(probe.ids[probe.spans[-1][1] - 1])} & _special_ids(tokenizer)
    return sorted(ends)


def require_template(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Raises:
    Problem: the tokenizer brings no chat template, so nothing says how a conversation is written.
    """
    if not tokenizer.chat_template:
        raise problem("no-chat-template", f"{model} brings no chat template: it is a base model.",
                      option="model_name_or_path", fix="Choose its Instruct or Chat version.")


@dataclass(frozen=True)
class _Text:
    """A conversation as its template writes it. answers: the characters [start, end) of each that is learned."""

    whole: str
    answers: list[tuple[int, int]]


def _closing(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template writes behind a conversation that ends, and nowhere else: Phi-3 adds end-of-text there, after
    its end-of-turn token. It ends no answer, so it is not learned."""
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]
    eos = str(tokenizer.eos_token or "")
    try:
        ended, going_on = _apply(talk, tokenizer), _apply([*talk, talk[0]], tokenizer)
    except BadRow:
        return ""
    return eos if not going_on.startswith(ended) and going_on.startswith(ended.removesuffix(eos)) else ""


def _render_text(talk: Conversation, tokenizer: PreTrainedTokenizerBase, closing: str,
                 only_last: bool) -> _Text | BadRow:
    """The conversation as text, or why no exact mask of it can be made."""
    messages = talk.as_dicts()
    answers: list[tuple[int, int]] = []
    try:
        whole = _apply(messages, tokenizer)
        for number, message in enumerate(messages, start=1):
            if message["role"] != "assistant" or (only_last and number < len(messages)):
                continue
            prompt = _apply(messages[: number - 1], tokenizer, generation_prompt=True)
            through = whole if number == len(messages) else _apply(messages[:number], tokenizer)
            through = through.removesuffix(closing)
            if not whole.startswith(through):
                raise BadRow(f"the chat template writes answer {len(answers) + 1} differently once more turns follow, "
                             "so it cannot be learned here (mask_history: true learns only the last)")
            if not through.startswith(prompt):
                raise BadRow(f"the chat template asks for answer {len(answers) + 1} with a prompt that it does not "
                             "write before the answer itself")
            answers.append((len(prompt), len(through)))
    except BadRow as error:
        return error
    return _Text(whole, answers)


def _apply(messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, *,
           generation_prompt: bool = False) -> str:
    try:
        return str(tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generation_prompt))
    except TemplateError as error:
        raise BadRow(f"the chat template refuses it: {error}") from None


def _token_spans(text: _Text, ids: np.ndarray, offsets: np.ndarray, special: Set[int]) -> tuple[tuple[int, int], ...]:
    """Character spans as token spans, each cut after its end-of-turn token.

    What a template writes behind the end-of-turn token (a line feed, mostly) is never generated, so it is not learned.
    A template that has no such token leaves the whole span. A token that also holds characters of the prompt is the
    prompt's.

    Args:
        ids: (T,). offsets: (T, 2), the characters of each token.
    """
    found = []
    for begin, end in text.answers:
        inside = np.flatnonzero((offsets[:, 0] >= begin) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0]))
        if not len(inside):
            continue
        first, last = int(inside[0]), int(inside[-1]) + 1
        stop = last
        while stop > first and int(ids[stop - 1]) not in special and not text.whole[slice(*offsets[stop - 1])].strip():
            stop -= 1
        found.append((first, stop if stop > first and int(ids[stop - 1]) in special else last))
    return tuple(found)


def _drifts(whole: str, begin: int, ids: np.ndarray, offsets: np.ndarray, special: Set[int],
            served: Callable[[str], list[int]]) -> bool:
    """Whether the ids before character `begin` are other than those of the text before it alone.

    Tokens never reach over a special token, so what follows the last one is enough to compare, and it is the same few
    words (`<|im_start|>assistant`) in every row.
    """
    first = int(np.searchsorted(offsets[:, 0], begin))
    anchor = next((place for place in range(first - 1, -1, -1) if int(ids[place]) in special), 0)
    return ids[anchor:first].tolist() != served(whole[offsets[anchor, 0] : begin])


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
