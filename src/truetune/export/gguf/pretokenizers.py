"""The name by which llama.cpp calls the way a byte-level tokenizer splits a text before it merges bytes.

A GGUF file does not hold that way itself, only a name (`tokenizer.ggml.pre`) for one of those that llama.cpp has in
its source. A file with a wrong name loads, and its words are other tokens than those that were trained. So the name is
found from what the tokenizer does, step by step and pattern by pattern, and what has no name there is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truetune.findings import Both, problem

_ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT4 = _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _GPT4.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = (_ENGLISH + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
           r"|\s+")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}" + _REST
_GPT4O = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENGLISH}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENGLISH}?"
          r"|\p{N}{1,3}" + _REST)
_DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
              r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_SEED = (_ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+")
_BAILING = (_ENGLISH + r"|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")

_WORDS = "gpt2's own pattern"
_DIGITS = "digits one by one"

Steps = tuple[str, ...]

NAMES: dict[tuple[Steps, bool], str] = {
    ((_WORDS,), False): "gpt-2",
    ((_DIGITS, _WORDS), False): "smollm",
    ((_GPT4,), True): "llama-bpe",
    ((_GPT4,), False): "smaug-bpe",
    ((_QWEN2,), False): "qwen2",
    ((_QWEN35,), False): "qwen35",
    ((_TEKKEN,), True): "tekken",
    ((_GPT4O,), False): "gpt-4o",
    ((r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3), False): "deepseek-v3",
    (("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", _DIGITS), False): "deepseek-coder",
    ((_SEED,), False): "seed-coder",
    ((_BAILING,), False): "bailingmoe",
}
"""(steps, whether a whole word that is a token is taken without merging) -> llama.cpp's name. Two names with the same
behaviour are one here."""


def pretokenizer_name(backend: Mapping[str, Any]) -> str:
    """The name for a tokenizer.json of byte-level BPE.

    Raises:
        Problem: llama.cpp has no name for this way; what the way is, is told.
    """
    steps = tuple(_steps(backend["pre_tokenizer"]))
    name = NAMES.get((steps, bool(backend["model"].get("ignore_merges"))))
    if name is None:
        told = " → ".join(steps)
        raise problem("gguf-pretokenizer",
                      Both(f"llama.cpp is not known to split texts as this tokenizer does: {told}",
                           f"llama.cpp 没有与该分词器相同的预切分方式：{told}"), option="model_name_or_path",
                      fix=Both(f"Known: {', '.join(sorted(NAMES.values()))}. A wrong one would serve other tokens "
                               "than were trained.",
                               f"已知：{'、'.join(sorted(NAMES.values()))}。用错会使部署时的 token 与训练时不同。"))
    return name


def _steps(pretokenizer: Mapping[str, Any] | None) -> Iterator[str]:
    """What is done to a text, one thing after the other."""
    kind = pretokenizer["type"] if pretokenizer else "none"
    assert pretokenizer is not None or kind == "none"
    if pretokenizer is None:
        yield kind
    elif kind == "Sequence":
        for inner in pretokenizer["pretokenizers"]:
            yield from _steps(inner)
    elif kind == "ByteLevel" and not pretokenizer["add_prefix_space"]:
        yield from (_WORDS,) if pretokenizer["use_regex"] else ()
    elif kind == "Digits" and pretokenizer["individual_digits"]:
        yield _DIGITS
    elif kind == "Split" and _keeps_matches(pretokenizer):
        pattern = pretokenizer["pattern"]
        yield _one_form(pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"]))
    else:
        yield str({key: value for key, value in pretokenizer.items() if key != "trim_offsets"})


def _keeps_matches(split: Mapping[str, Any]) -> bool:
    """Whether each match is a piece by itself. (`Removed` and inverted: what does not match is dropped, which nothing
    is by patterns that match everything.)"""
    return (split["behavior"], split["invert"]) in (("Isolated", False), ("Removed", True))


_SAME: Sequence[tuple[str, str]] = (
    ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", _ENGLISH), ("'(?i:[sdmt]|ll|ve|re)", _ENGLISH),
    (r"\d", r"\p{N}"),
)


def _one_form(pattern: str) -> str:
    """The same pattern in the spelling of the table."""
    for spelling, ours in _SAME:
        pattern = pattern.replace(spelling, ours)
    return _DIGITS if pattern == r"\p{N}" else pattern
