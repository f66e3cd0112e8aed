"""The fast encoder gives the ids of the tokenizers library or none at all: for each design, at the fences, and when
the engine is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as cuts

from truetune.data.fastbpe import EVERY, HARD, Encoder, fast_encoder

ROOT = Path(__file__).resolve().parent.parent

# How these families cut text into words, as their published tokenizer files say.
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES
QWEN_2 = LLAMA_3.replace("{1,3}", "")
START, UPPER, LOWER = r"[^\r\n\p{L}\p{N}]?", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT_4O = (f"{START}{UPPER}*{LOWER}+{CONTRACTIONS}?|{START}{UPPER}+{LOWER}*{CONTRACTIONS}?"
          r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + SPACES)
DEEPSEEK_3 = (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
              r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
              r"| ?[\p{P}\p{S}]+[\r\n]*" + SPACES)


def split(*patterns: str) -> cuts.PreTokenizer:
    """Cut by regular expressions, one after the other, then into bytes."""
    steps = [cuts.Split(Regex(pattern), "isolated") for pattern in patterns]
    return cuts.Sequence([*steps, cuts.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(prefix: bool = False) -> cuts.PreTokenizer:
    return cuts.ByteLevel(add_prefix_space=prefix, use_regex=True)


DESIGNS: dict[str, tuple[cuts.PreTokenizer, normalizers.Normalizer | None, bool]] = {
    "gpt2": (byte_level(), None, False),
    "starcoder": (cuts.Sequence([cuts.Digits(individual_digits=True), byte_level()]), None, False),
    "llama3": (split(LLAMA_3), None, True),
    "qwen2": (split(QWEN_2), normalizers.NFC(), False),
    "gpt4o": (split(GPT_4O), None, True),
    "deepseek3": (split(*DEEPSEEK_3), normalizers.Sequence([]), False),
}

# Special or not, taking the spaces at one side, only as a lone word, one the beginning of another, one with an accent.
ADDED = [
    AddedToken("<|im_start|>", special=True, normalized=False), AddedToken("<|im_", special=True, normalized=False),
    AddedToken("<think>", special=False, normalized=False), AddedToken("<tool>", special=False, normalized=True),
    AddedToken("<left>", special=True, lstrip=True, normalized=False),
    AddedToken("<right>", special=True, rstrip=True, normalized=False),
    AddedToken("é", special=False, normalized=True),
    AddedToken("lone", special=False, single_word=True, normalized=False),
]


@cache
def trained(design: str, added: bool = True) -> Tokenizer:
    """A small tokenizer of this design, trained on this repository's own text."""
    pre, normalizer, ignore_merges = DESIGNS[design]
    backend = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    backend.pre_tokenizer, backend.decoder = pre, decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py"))]
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=cuts.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator([*texts, *HARD], trainer)
    for token in ADDED if added else []:
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    return backend


@pytest.fixture(scope="module")
def bundled_backend(bundled: Path) -> Tokenizer:
    return Tokenizer.from_file(str(bundled / "tokenizer.json"))


def ids(backend: Tokenizer, texts: list[str]) -> list[list[int]]:
    """The right ids."""
    return [backend.encode(text, add_special_tokens=False).ids for text in texts]


def fast(backend: Tokenizer) -> Encoder:
    """The encoder of a tokenizer that must have one."""
    encoder = fast_encoder(backend, ["A sample."])
    assert encoder is not None
    return encoder


# ------------------------------------------------------------------------------------------------------ the same ids

PIECES = [
    *" \t\n\r\x00\x04\x0b\x85'\"<>|.,!?/\\-_#$1a²½É中한ह", "  ", "\r\n", "\n\n ", " \t\n", "\u00a0", "\u3000", "\u200d",
    "\u180e", "'ll", "'S", "'ſ", "’s", "The", " the", "fooBar", "12", "1234567", "１２", "e\u0301", "\u0301", "\u212b",
    "汉字", "カタカナ", "한국어", "\u1100\u1161", "नमस्ते", "مرحبا", "ไทย", "ǅ", "ªʰ", "👩‍👩‍👧", "🏳️‍🌈", "𝔘", "𠀀",
    "\ue000", "!!", "...", "://", "x" * 40, "def f(x):\n    return x", "<|im_start|>", "<|im_end|>", "<|im_", "<|im",
    "<think>", "<tool>", "<left>", "<right>", "é", "lone", "alone", "lone2",
]
characters = st.characters(exclude_categories=["Cs"])
texts = st.lists(st.sampled_from(PIECES) | characters | st.text("ab 1'\n", max_size=6), max_size=30).map("".join)


def check(backend: Tokenizer, encoder: Encoder, batch: list[str]) -> None:
    found = encoder.encode_batch(batch)
    assert [row.tolist() for row in found] == ids(backend, batch)
    assert encoder.disagreed is None


property_test = settings(max_examples=60, deadline=None, derandomize=True,
                         suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_gives_the_right_ids_for_any_text(design: str):
    """Nasty alphabets with special tokens among them, id for id, in batches."""
    backend = trained(design)
    encoder = fast(backend)

    @property_test
    @given(st.lists(texts, min_size=1, max_size=15))
    def same(batch: list[str]) -> None:
        check(backend, encoder, batch)

    same()


def test_the_bundled_model_gives_the_right_ids_for_any_text(bundled_backend: Tokenizer):
    encoder = fast(bundled_backend)

    @property_test
    @given(st.lists(texts, min_size=1, max_size=15))
    def same(batch: list[str]) -> None:
        check(bundled_backend, encoder, batch)

    same()


def test_long_texts_and_long_shared_beginnings(bundled_backend: Tokenizer):
    """Engines cut long texts into parts and remember beginnings: neither may show."""
    system = "You are a helpful assistant; answer in one word. " * 200
    ends = ["hel", "hello", "  ", "  x", "'", "'ll", "12", "1234"]
    batch = [*(system + end for end in ends), "".join(HARD) * 3, "word " * 20_000, "é" * 30_000]
    for backend in (bundled_backend, trained("llama3"), trained("deepseek3")):
        check(backend, fast(backend), batch)


@pytest.mark.parametrize("design", ["deepseek3", "starcoder"])
def test_characters_that_are_not_the_same_to_both_libraries(design: str):
    """U+180E is a space to one of them, U+11DE0 a digit. Such texts are left to the tokenizers library."""
    backend = trained(design)
    batch = ["plain", "two  \u180eafter", " \u00a0\u180e", "\u180e's", "x  \U00011de0\U00011de1", "plain"]
    check(backend, fast(backend), batch)


def test_a_text_that_the_engine_refuses_is_left_to_the_tokenizers_library(bundled_backend: Tokenizer):
    """SmolLM2 has no token for some control characters; the tokenizers library leaves them out."""
    batch = ["plain", "end of \x04 transmission", "more", "\x13", "a \U00040000 b"]
    check(bundled_backend, fast(bundled_backend), batch)


def test_arrays_are_int32_one_a_text(bundled_backend: Tokenizer):
    encoder = fast(bundled_backend)
    rows = encoder.encode_batch(["", "one", "two words"])
    assert [row.dtype for row in rows] == [np.int32] * 3
    assert [len(row) for row in rows] == [0, 1, 2]
    assert encoder.encode_batch([]) == []


def test_a_lone_surrogate_is_the_texts_fault(bundled_backend: Tokenizer):
    """It is refused as the tokenizers library refuses it, and the fast encoder goes on."""
    encoder = fast(bundled_backend)
    with pytest.raises(TypeError):
        encoder.encode_batch(["fine", "half \ud83d"])
    assert encoder.disagreed is None
    check(bundled_backend, encoder, ["fine"])


# ------------------------------------------------------------------------------------------------- what is left alone

def changed(backend: Tokenizer, change: Callable[[dict[str, Any]], object]) -> Tokenizer:
    """The same tokenizer with something in its JSON changed."""
    design = json.loads(backend.to_str())
    change(design)
    return Tokenizer.from_str(json.dumps(design))


def with_cut(pre: cuts.PreTokenizer) -> Tokenizer:
    backend = Tokenizer.from_str(trained("gpt2", added=False).to_str())
    backend.pre_tokenizer = pre
    return backend


def truncating() -> Tokenizer:
    backend = Tokenizer.from_str(trained("gpt2", added=False).to_str())
    backend.enable_truncation(8)
    return backend


def splitting_specials() -> Tokenizer:
    backend = Tokenizer.from_str(trained("gpt2").to_str())
    backend.encode_special_tokens = True
    return backend


def merging_split() -> cuts.PreTokenizer:
    return cuts.Sequence([cuts.Split(Regex(r"\p{N}"), "merged_with_next"), byte_level()])


UNKNOWN: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece": lambda: Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
    "Unigram": lambda: Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)),
    "BPE as SentencePiece writes it": lambda: with_cut(cuts.Metaspace()),
    "no pre-tokenizer": lambda: changed(trained("gpt2"), lambda design: design.update(pre_tokenizer=None)),
    "a space put before every text": lambda: with_cut(byte_level(prefix=True)),
    "lower case": lambda: changed(trained("gpt2"), lambda design: design.update(normalizer={"type": "Lowercase"})),
    "NFKC": lambda: changed(trained("gpt2"), lambda design: design.update(normalizer={"type": "NFKC"})),
    "merges left out by chance": lambda: changed(trained("gpt2"), lambda design: design["model"].update(dropout=1e-9)),
    "a regular expression read in two ways": lambda: with_cut(split(r"(?i:ss)|.")),
    "pieces joined to the next": lambda: with_cut(merging_split()),
    "truncation": truncating,
    "special tokens as text": splitting_specials,
    "a lone word looked for after normalising": lambda: changed(
        trained("gpt2"), lambda design: design["added_tokens"][-1].update(normalized=True)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_design_that_cannot_be_expressed_gives_none(name: str):
    assert fast_encoder(UNKNOWN[name](), ["A sample."]) is None


def test_without_the_engine_there_is_no_fast_encoder(bundled: Path):
    """Where `fastokens` is not installed nothing else fails."""
    code = ("import sys; sys.modules['fastokens'] = None\n"
            "from tokenizers import Tokenizer\nfrom truetune.data.fastbpe import fast_encoder\n"
            "print(fast_encoder(Tokenizer.from_file(sys.argv[1]), []))")
    done = subprocess.run([sys.executable, "-c", code, str(bundled / "tokenizer.json")], capture_output=True, text=True,
                          encoding="utf-8")
    assert done.stdout.strip() == "None", done.stderr


# --------------------------------------------------------------------------------------------- when the engine is wrong

QUIET, WORD = "A row of plain English.", "The tokenizer of a model"


@cache
def spoilt() -> str:
    """The JSON of the GPT-2 design with two ranks swapped: `WORD` comes out otherwise, `QUIET` and `HARD` do not."""
    backend = trained("gpt2")
    design = json.loads(backend.to_str())
    merges = design["model"]["merges"]
    parts = [number for number, (left, right) in enumerate(merges) if left + right in "Ġtokenizer"]
    for first, second in combinations(parts, 2):
        merges[first], merges[second] = merges[second], merges[first]
        other = Tokenizer.from_str(json.dumps(design))
        if ids(other, [WORD]) != ids(backend, [WORD]) and ids(other, [QUIET, *HARD]) == ids(backend, [QUIET, *HARD]):
            return json.dumps(design)
        merges[first], merges[second] = merges[second], merges[first]
    raise AssertionError("no two ranks whose swap shows in that word alone")


def test_the_sample_catches_a_swapped_rank():
    """A tokenizer whose JSON is not what it does: an encoder made of it stands or falls with the sample."""
    backend = Tokenizer.from_str(trained("gpt2").to_str())
    backend.to_str = spoilt
    assert fast_encoder(backend, [QUIET]) is not None
    assert fast_encoder(backend, [QUIET, WORD]) is None


def test_the_watch_catches_what_the_sample_did_not_have():
    """Which row is watched moves on with each batch, so a fault in any one place is seen within a hundred batches. The
    batch in which it is seen is right, and so is every later one."""
    backend = trained("gpt2")
    encoder = Encoder(backend, spoilt())
    batch = [QUIET] * 123 + [WORD] + [QUIET] * 76
    found: list[list[list[int]]] = []
    while encoder.disagreed is None and len(found) < EVERY:
        found.append([row.tolist() for row in encoder.encode_batch(batch)])
    assert encoder.disagreed is not None and "tokenizer" in str(encoder.disagreed)
    assert found[0] != ids(backend, batch), "the spoilt encoder was right after all"
    assert found[-1] == ids(backend, batch)
    later = [QUIET] * 150 + [WORD] + [QUIET] * 50
    assert [row.tolist() for row in encoder.encode_batch(later)] == ids(backend, later)


def test_at_least_one_text_of_every_batch_is_watched():
    backend = trained("gpt2")
    encoder = Encoder(backend, spoilt())
    assert [row.tolist() for row in encoder.encode_batch([WORD])] == ids(backend, [WORD])
    assert encoder.disagreed is not None


def test_one_text_in_a_hundred_is_watched_and_no_more():
    """A batch full of wrong rows is seen at once, one with a wrong row elsewhere is not: the watch is a sample."""
    backend = trained("gpt2")
    encoder = Encoder(backend, spoilt())
    encoder.encode_batch([QUIET] * 199 + [WORD])
    assert encoder.disagreed is None
    encoder.encode_batch([WORD] * 200)
    assert encoder.disagreed is not None
