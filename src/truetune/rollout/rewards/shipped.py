"""Rewards that are checked by a rule: the last number, a pattern, a thought before the answer, a length, a last word.

Each is 1 or 0 for an answer, but for `length_penalty`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from truetune.options import Config
from truetune.rollout.rewards.reward import Answered

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
"""1,000 is one number, and 1, 2 are two."""
_THOUGHT = re.compile(r"\s*<think>(?:(?!</?think>).)*</think>(?:(?!</?think>).)*\S\s*", re.DOTALL)
_FREE = 0.8
"""Of the longest answer: up to here length costs nothing (Yu et al. 2025: 4,096 of 20,480 tokens are punished)."""


@dataclass(frozen=True)
class Rule:
    """A reward that is a function of all answers."""

    name: str
    of: Callable[[Answered], Sequence[float | None]]

    def __call__(self, answered: Answered) -> Sequence[float | None]:
        return self.of(answered)


def last_number(text: str) -> Decimal | None:
    """The last number of a text; None: it has none."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def _exact_number(config: Config) -> Rule:
    """Whether the last number of an answer is the last number of the data's answer, compared by value: 7.0 is 7. It
    does not apply where the data's answer has none. (GSM8K is scored so: Cobbe et al. 2021, arXiv:2110.14168.)"""

    def of(answered: Answered) -> list[float | None]:
        wanted = [last_number(reference) for reference in answered.references]
        return [None if number is None else float(last_number(text) == number)
                for text, number in zip(answered.texts, wanted, strict=True)]

    return Rule("exact_number", of)


def _format(config: Config) -> Rule:
    """Whether the whole answer, white space at its ends aside, matches `reward_pattern`; a dot is any letter, line
    breaks too."""
    pattern = re.compile(config.reward_pattern or "", re.DOTALL)
    return Rule("format", lambda answered: [float(bool(pattern.fullmatch(text.strip()))) for text in answered.texts])


def _think_format(config: Config) -> Rule:
    """Whether one thought in `<think>` tags stands first and an answer follows (DeepSeek-AI 2025, arXiv:2501.12948,
    section 2.2.2)."""
    return Rule("think_format", lambda answered: [float(bool(_THOUGHT.fullmatch(text))) for text in answered.texts])


def _length_penalty(config: Config) -> Rule:
    """0 up to four fifths of `max_completion_length`, from there falling in a straight line to -1 at its end (DAPO, Yu
    et al. 2025, arXiv:2503.14476, equation 13)."""
    longest = config.max_completion_length or 0
    free = _FREE * longest

    def of(answered: Answered) -> list[float]:
        return [-max(0.0, (len(ids) - free) / (longest - free)) for ids in answered.ids]

    return Rule("length_penalty", of)


def _ends_with(config: Config) -> Rule:
    """Whether the last word of an answer is `reward_word`; capitals and the marks behind it do not count."""
    word = (config.reward_word or "").casefold()

    def ends(text: str) -> bool:
        bare = re.sub(r"[\W_]+$", "", text).casefold()
        return bare.endswith(word) and not re.search(r"\w$", bare[: -len(word)] if word.isascii() else "")

    return Rule("ends_with", lambda answered: [float(ends(text)) for text in answered.texts])


SHIPPED: Mapping[str, Callable[[Config], Rule]] = {
    "exact_number": _exact_number, "format": _format, "think_format": _think_format,
    "length_penalty": _length_penalty, "ends_with": _ends_with,
}
"""By the names that `reward_funcs` takes."""
