"""A faster tokenizer for byte-level byte-pair encoders, used only while it gives the very ids of the model's own.

Turning text into ids is most of the work between a file and its token store. `fastokens` does it in a tenth of the
time of Hugging Face's tokenizers or less (an alpaca row's 300 µs of processor time become 25 with SmolLM2's design and
10 with DeepSeek's), but it is a second implementation of one standard, and one wrong id is a ruined row. Three fences
stand around it:

1. **The design.** Only what is known to be expressed exactly is tried: byte-level BPE, normalised as it is or by NFC,
   cut by ByteLevel, Digits and by regular expressions made only of parts that both regex engines read alike. That is
   GPT-2, GPT-NeoX/OLMo, StarCoder/SmolLM, Llama 3, Qwen 2 to 3.5, DeepSeek, Phi-4, GPT-OSS, Mistral's Tekken, GLM-4.
2. **The sample.** All ids of the caller's sample and of `HARD` strings must be those of the tokenizers library.
3. **The watch.** Of every batch one text in a hundred is encoded by both. At the first difference the fast encoder is
   off for good, and that whole batch comes from the tokenizers library.

What this guarantees: what it cannot express it does not touch, and no batch in which a difference was seen is kept.
What it does not: texts that were not watched are not proved. A fault in one row of a thousand is seen within the first
100,000 rows with a chance of 63 %, a rarer one later or never; batches given out before it was seen may hold it. So
whoever finds `disagreed` set has those rows encoded again. The watch costs 1 % of the tokenizers library's own time,
about 3 µs a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from truetune.findings import Both

EVERY = 100  # one text in so many is encoded by both

# A space for one library and not for the other (it left that class in Unicode 6.3), and the digits that came with
# Unicode 17. Texts with them are so rare that they are left to the tokenizers library.
DISPUTED = re.compile("[\u180e\U00011de0-\U00011de9\U00016ff4-\U00016ff6]")

HARD: tuple[str, ...] = (
    "", " ", "  ", "   x", "x   ", "\t", "a\tb\t\tc\t'll", "\n", "a\n\n\nb \n \n c", "\r\n", "a\r\nb\r\n\r\n  c\r",
    " \n\t \r\n ",
    "\x0b\x0c\x1c\x85\u2028\u2029", "a\u00a0b\u2003c\u3000d\u202fe \u00a0 f", "\u200b\u200c\u200d\u2060\ufeff",
    "\x00\x01\x02\x04\x06\x07 a\x0e\x10\x13b\x14\x16 c\x1d\x1f\x1b[0m\x7f", "\ue000\ufffd\uffff\U0010ffff",
    "I'm you're he's she'd we'll they've don't", "I'M YOU'RE HE'S SHE'D WE'LL THEY'VE DON'T",
    "'s'S''ll 'lll 'ſ 'K ’s’t",
    "0 1 12 123 1234 12345 1234567890", "3.14e-10, 1,000,000; 0xFF v1.2.3", "²³½ⅧⅫ٣٤三１２３ x²y³", "a1b22c333d4444",
    "HTTPServer fooBar snake_case kebab-case CONSTANT_CASE XMLHttpRequest2", "ǅǆǄ ªº ʰʲ İıſKÅ ßẞ ﬁﬂ",
    "...!?;:---===___###$$$%%%^^^&&&***((([[[{{{<<<>>>}}}]]])))|||~~~```\\\\\\///", "!\n?\r\n.\n\n/\n/", "a/b\\c://d?e=f&g#h",
    "def f(x):\n    if x:\n\treturn {'a': \"b\"}\n\n\n\tclass\t'main'\t'd'", "€£¥₿ °™®© «» “” „‟ • … — –", "+−×÷=≠≈∞",
    "你好，世界。汉字漢字《》「」", "日本語テスト ひらがなカタカナ ー々〆", "한국어 테스트 각 \u1100\u1161\u11a8",
    "नमस्ते क्षत्रिय", "ไทยภาษา \u0e33 မြန်မာ",
    "مرحبا بالعالم اً", "שלום עולם שָׁלוֹם", "Привет ЁЖ Ελληνικά ΐ",
    "é è ñ Å Ω ḍ̇ q̣̇", "e\u0301 e\u0300 n\u0303 A\u030a \u2126 \u212b \u0344 \u0958 \u0f73",
    "\u0301x \u0301\u0301 1\u0301 \u0301",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 1️⃣ ❤️ 😀😀", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐀𐐨 𠀀𪚥 𓀀", "\u034f\ufe0f\ufe0e\U000e0041",
    "\u0cf3\u1c89\ua7cb\U00010d4a\U00011bc0\U00011f02\U00016ea0\U0001e4d0\U0001e5d0\U0002ebf0\U00031350\U000323b0",
    *("".join(map(chr, each)) for each in (range(0x250), range(0x80, 0x800, 61), range(0x800, 0xD800, 997),
                                           range(0x10000, 0x110000, 0x8003))),  # every byte that UTF-8 has
    "a" * 3000, "ab" * 2500 + "z", " " * 3000 + "x", "\n" * 1500, "中" * 2000, "1" * 2000, "=" * 2000, "\t \n" * 700,
    "the quick brown fox " * 1200, "x" * 20_000,
)


class Encoder:
    """Encodes with the fast engine, watched by the tokenizers library; made by `fast_encoder`.

    Attributes:
        disagreed: what the first difference was, once there was one; from then on the tokenizers library encodes.

    The tokenizer must stay as it was: after adding a token to it, make a new encoder.
    """

    def __init__(self, backend: Tokenizer, definition: str):
        """backend: the one whose ids are right. definition: the JSON of a tokenizer, from which the engine is built.

        Raises:
            ValueError: the engine cannot read the definition.
            ImportError: there is no engine on this machine.
        """
        from fastokens import Tokenizer as Engine

        self.disagreed: Both | None = None
        self._backend, self._engine, self._batches = backend, Engine.from_json_str(definition), 0

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """The ids (int32) of each text without any token put around it, as `backend.encode` gives them.

        All cores work, and Python goes on meanwhile. The arrays of one batch share their memory. Thread-safe.

        Raises:
            TypeError: a text that is no Unicode (a lone surrogate), as the tokenizers library says it.
        """
        if self.disagreed or not texts:
            return self._slow(texts)
        self._batches += 1
        watched = range(self._batches % min(EVERY, len(texts)), len(texts), EVERY)
        ids = self._fast(texts)
        seen = self._difference([texts[number] for number in watched], [ids[number] for number in watched])
        if seen is None:
            return ids
        self.disagreed = seen
        return self._slow(texts)

    def agrees(self, texts: Sequence[str]) -> bool:
        """Whether every id of these texts is the right one."""
        return self._difference(texts, self._fast(texts)) is None

    def _fast(self, texts: Sequence[str]) -> list[np.ndarray]:
        try:
            ids, borders = self._engine.encode_batch_flat(list(texts))
        except ValueError:  # it gives up a batch for one text: a byte without a token, or no Unicode
            half = len(texts) // 2
            return self._fast(texts[:half]) + self._fast(texts[half:]) if half else self._slow(texts)
        whole, ends = np.frombuffer(ids, np.uint32).astype(np.int32), np.frombuffer(borders, np.uint64).tolist()
        rows = [whole[start:end] for start, end in pairwise(ends)]
        disputed = [number for number, text in enumerate(texts) if not text.isascii() and DISPUTED.search(text)]
        for number, right in zip(disputed, self._slow([texts[number] for number in disputed]), strict=True):
            rows[number] = right
        return rows

    def _slow(self, texts: Sequence[str]) -> list[np.ndarray]:
        if not texts:
            return []
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]

    def _difference(self, texts: Sequence[str], ids: Sequence[np.ndarray]) -> Both | None:
        """The first place where these ids are not the right ones, in words."""
        for text, found, right in zip(texts, ids, self._slow(texts), strict=True):
            if not np.array_equal(found, right):
                size = min(len(found), len(right))
                place = int(np.argmax(np.append(found[:size] != right[:size], True)))
                offsets = self._backend.encode(text, add_special_tokens=False).offsets
                start = offsets[place][0] if place < len(offsets) else len(text)
                around, wrong = repr(text[max(0, start - 12):start + 24]), found[place:place + 3].tolist()
                wanted = right[place:place + 3].tolist()
                return Both(f"{around}: {wrong} instead of {wanted} at token {place}",
                            f"{around}：第 {place} 个 token 处是 {wrong}，应为 {wanted}")
        return None


def fast_encoder(backend: Tokenizer, sample: Sequence[str]) -> Encoder | None:
    """A faster encoder that gives the ids of `backend`, or None where there is none that is known to.

    Making it takes 0.8 s and 70 MB with 50,000 tokens, 2 s and 180 MB with 130,000: it pays from 10,000 rows on.

    Args:
        backend: the tokenizer, with neither truncation nor padding set.
        sample: texts like those that will come (a few hundred rendered conversations); each is encoded by both.

    Raises:
        TypeError: a text of the sample is no Unicode.
    """
    design = json.loads(backend.to_str())
    if not _expressible(design):
        return None
    added = [token["content"] for token in design["added_tokens"]]
    beside = [f"a{token}b {token} {token}\n\t{token}{token}  c" for token in added]
    try:
        encoder = Encoder(backend, json.dumps(_said_faster(design)))
        return encoder if encoder.agrees([*HARD, *beside, *sample]) else None
    except (ImportError, ValueError):
        return None


# ------------------------------------------------------------------------------------- what can be expressed exactly

_CATEGORY = r"\\p\{(?:L[ultmo]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?)\}"
_ESCAPED = r"\\[!-/:-@\[-`{-~]"

# The parts of a regular expression that Oniguruma (in tokenizers) and PCRE2 (in fastokens) read alike. What is not here
# they may not: `.`, anchors, scripts, sets within sets, and letters without case, where one folds "ss" to "ß".
_PLAIN_REGEX = re.compile(rf"""(?:
      {_CATEGORY} | {_ESCAPED} | \\[sSrn]
    | \[\^? (?: {_CATEGORY} | {_ESCAPED} | \\[srn] | (?! && | -- | ~~ ) [^\[\]\\] )+ \]
    | \(\?i: (?: 's\|'t\|'re\|'ve\|'m\|'ll\|'d | \[sdmt\]\|ll\|ve\|re ) \)
    | \(\?: | \) | \| | \(\?!\\S\)
    | [?*+] \+? | \{{ \d+ (?: ,\d* )? \}} (?! [+?] )
    | [^\\\[\]().^$?*+{{}}|]
)+""", re.VERBOSE)

_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT_2_BETWEEN_DIGITS = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

# The engine reads over these without a word.
_FOREIGN = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")


def _expressible(design: dict[str, Any]) -> bool:
    """Whether a tokenizer's JSON describes a design that the fast engine gives exactly."""
    model, cuts = design["model"], _steps(design["pre_tokenizer"], "pretokenizers")
    return (
        design["truncation"] is None and design["padding"] is None
        and model["type"] == "BPE" and not any(model[key] for key in _FOREIGN)
        and all(step["type"] == "NFC" for step in _steps(design["normalizer"], "normalizers"))
        and [cut["type"] == "ByteLevel" for cut in cuts] == [False] * (len(cuts) - 1) + [True]
        and not cuts[-1]["add_prefix_space"]
        and all(_plain_cut(cut) for cut in cuts[:-1])
        # A lone word is looked for in the text between other added tokens; the engine looks in the whole text.
        and not any(token["single_word"] and token["normalized"] for token in design["added_tokens"])
    )


def _said_faster(design: dict[str, Any]) -> dict[str, Any]:
    """The same design with GPT-2's way of cutting words written out, which the engine does in less than half the time.

    A digit cut off beforehand ends a text for what stands before it; so spaces before a digit stay together, as they
    do at the end.
    """
    cuts = _steps(design["pre_tokenizer"], "pretokenizers")
    before = [cut.get("individual_digits") for cut in cuts[:-1]]
    if not cuts[-1]["use_regex"] or before not in ([], [True]):
        return design
    words = _GPT_2_BETWEEN_DIGITS if before else _GPT_2
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    return design | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, cuts[-1] | {"use_regex": False}]}}


def _plain_cut(cut: dict[str, Any]) -> bool:
    """Whether this step only cuts, at places that are certain."""
    if cut["type"] == "Digits":
        return True
    return (cut["type"] == "Split" and (cut["behavior"], cut["invert"]) in (("Isolated", False), ("Removed", True))
            and _PLAIN_REGEX.fullmatch(cut["pattern"].get("Regex", "")) is not None)


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The steps of a normaliser or pre-tokenizer, whether it is none, one or a sequence."""
    if part is None:
        return []
    return [step for inner in part[name] for step in _steps(inner, name)] if part["type"] == "Sequence" else [part]
