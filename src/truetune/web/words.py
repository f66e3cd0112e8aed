"""The languages of the page: English, and Chinese in both scripts. Each has a page of its own (`languages`).

Everything is written once in English and once in simplified Chinese (`findings.Both`). The traditional script is made
of the latter by OpenCC, with the words that Taiwan uses (軟體, not 软件).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_args

from opencc import OpenCC

from truetune.findings import Both, Words

Language = Literal["en", "zh", "zh-Hant"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
NAMES: Mapping[Language, str] = {"en": "English", "zh": "简体中文", "zh-Hant": "繁體中文"}
HTML_NAMES: Mapping[Language, str] = {"en": "en", "zh": "zh-Hans", "zh-Hant": "zh-Hant"}
"""As the attribute `lang` has them."""

_TERMS: Mapping[str, str] = {"介面卡": "適配器", "數據": "資料"}
"""What OpenCC's words of everyday computing get wrong in this field: an adapter is no plug-in card."""

Made = TypeVar("Made")


@cache
def _converter() -> OpenCC:
    return OpenCC("s2twp")


@cache
def _back() -> OpenCC:
    return OpenCC("tw2sp")


def say(words: Words, language: Language) -> str:
    """`words` in a language."""
    if isinstance(words, str) or language == "en":
        return str(words)
    return words.zh if language == "zh" else traditional(words.zh)


def traditional(text: str) -> str:
    """Simplified Chinese in the traditional script."""
    converted = _converter().convert(text)
    for theirs, ours in _TERMS.items():
        converted = converted.replace(theirs, ours)
    return converted


def simplified(text: str) -> str:
    """The inverse: Chinese that somebody typed in either script, in the simplified one."""
    return _back().convert(text)


def language_of(wanted: str) -> Language:
    """The language that a browser (`zh-TW,zh;q=0.9`) or a person asks for; English where it is another."""
    first = wanted.split(",")[0].strip().lower()
    if not first.startswith("zh"):
        return "en"
    return "zh-Hant" if first.startswith(("zh-hant", "zh-tw", "zh-hk", "zh-mo")) else "zh"


class Wording:
    """Makes the components of a page that stands in one language.

        wording = Wording("en")
        button = wording(gr.Button, value=Both("Start", "开始"), variant="primary")
    """

    def __init__(self, language: Language):
        self.language: Language = language

    def __call__(self, kind: Callable[..., Made], *, plain: Mapping[str, Any] | None = None, **told: Any) -> Made:
        """A component whose properties that are `Both` or functions of the language are said in it.

        Args:
            plain: properties that are functions for other reasons.
        """
        return kind(**{name: self._said(value) for name, value in told.items()}, **(plain or {}))

    def _said(self, value: Any) -> Any:
        if isinstance(value, Both):
            return say(value, self.language)
        return value(self.language) if callable(value) else value
