"""Proof that a tokenizer in llama.cpp gives the ids that training gave, before minutes are spent on the weights.

A file with the same tokenizer and next to no weights is loaded by llama.cpp itself, which then tokenises texts that
tokenizers are known to differ in.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer

from truetune.export.gguf.vocabulary import Vocabulary
from truetune.findings import Both, Say, problem
from truetune.serve.llamacpp import LlamaCpp

_COUNT = 400

NEAR = ("tekken", "gpt-4o", "deepseek-coder")
"""Patterns that llama.cpp only comes near: its tekken and gpt-4o take no combining marks (Hindi, Thai) for letters and
no letters but a to z for small ones; its deepseek-coder takes ǅ for no letter. Unigram too: of two ways to split a text
that are equally likely it takes the other."""

_PIECES = (
    "Hello", " world", "  two", "   three ", "\n", "\n\n", " \n ", "\t", "\r\n", "don't", " I'LL", "we'Ve",
    "'s", " 's", "3", "33", "333", "3333", " 12345678", "3.14", "1,000", "½", "٣٤", "你好", "世界。", "，",
    "「日本語」", "カタカナ", "한국어", "Привет", " нещо", "ελλάδα", "naïve", "café", "über", "עברית",
    "العربية", "हिन्दी", "ภาษาไทย", "🚀", "👩\u200d👩\u200d👧", "😶\u200d🌫️", "🇩🇪", "def f(x):",
    "\n    return x", " == ", "!=", "->", "{}", "[]()", "...", "!!!", "??", "——", "“quoted”", "`code`", "```",
    "<b>", "</b>", "<|", "|>", "<s>", "</s>", "[INST]", "#", "$1", "%", "@user", "https://a.b/c?d=e&f=1", "a_b",
    "aB", "ABC", "\u00a0", "\u3000", "\u200b", "\ufeff", "e\u0301", "A\u030a", "\x7f", "ﬁ", "ǅ", "Ⅷ", "𝒳", "𠮷",
    "x" * 40, " " * 17,
)
"""Parts of texts; put together at random they make what people type, and what they never should."""


def probe_texts(special: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` texts: each part by itself, then parts at random. special: texts of special tokens, put in between."""
    draw = random.Random(seed)
    parts = [*_PIECES, *special[:40]]
    return [*parts, *("".join(draw.choices(parts, k=draw.randint(2, 12))) for _ in range(count - len(parts)))][:count]


def prove(vocabulary: Vocabulary, say: Say) -> None:
    """Raises:
    Problem: a text becomes other tokens in llama.cpp; which and how is told. Where llama.cpp is known to be near only
        (`NEAR`), that is said and no more.
    """
    if find_spec("xllamacpp") is None:
        say(Both("the tokenizer was not tried in llama.cpp, which is not installed (pip install xllamacpp)",
                 "没有安装 llama.cpp，分词器未经实际验证（pip install xllamacpp）"))
        return
    if _composes(vocabulary):
        say(Both("the tokenizer composes characters first (NFC) and llama.cpp does not: é typed as e and an accent is "
                 "other tokens there",
                 "分词器会先做 NFC 规范化，而 llama.cpp 不会：由字母加组合符号输入的 é 会成为不同的 token"))
    found = differences(vocabulary)
    if not found:
        return
    text, ours, theirs = found[0]
    told = Both(f"llama.cpp makes other tokens of {text!r}: {theirs}, and in training it was {ours}",
                f"llama.cpp 对 {text!r} 的分词不同：{theirs}，训练时是 {ours}")
    if vocabulary.pre not in NEAR and vocabulary.kind != "t5":
        raise problem("gguf-tokens", told, option="model_name_or_path")
    near = vocabulary.pre if vocabulary.pre in NEAR else "Unigram"
    say(Both(f"{told} ({len(found)} of {_COUNT} hard texts: llama.cpp only comes near {near})",
             f"{told.zh}（{_COUNT} 条困难文本中有 {len(found)} 条：llama.cpp 对 {near} 的实现只是近似）"))


@lru_cache(maxsize=4)
def differences(vocabulary: Vocabulary, count: int = _COUNT) -> Sequence[tuple[str, list[int], list[int]]]:
    """Those of `count` texts of which llama.cpp makes other ids: (text, those of training, llama.cpp's). The answer is
    kept, since one model is often written as several types."""
    special = [text for text, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
               if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)]
    tokenizer, found = Tokenizer.from_str(vocabulary.backend), []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.gguf"
        _write_alone(vocabulary, file)
        with LlamaCpp(file, context=64) as server:
            for text in _fair(probe_texts(special, count), special, vocabulary):
                ours, theirs = tokenizer.encode(text, add_special_tokens=False).ids, server.tokenize(text)
                found += [(text, ours, theirs)] if ours != theirs else []
    return found


def _fair(texts: Sequence[str], special: Sequence[str], vocabulary: Vocabulary) -> Iterator[str]:
    """Of `texts` those that llama.cpp can be expected to agree on. It composes no characters, and its spaces before a
    text are of one kind (`vocabulary._space`)."""
    between, bos = re.compile("|".join(map(re.escape, special))), dict(vocabulary.special).get("bos")
    composes = _composes(vocabulary)
    for text in texts:
        if composes and unicodedata.normalize("NFC", text) != text:
            continue
        if vocabulary.space == "each without one" and any(part.startswith((" ", "▁")) for part in between.split(text)):
            continue
        if vocabulary.strips and re.search(r"[^\S \t-\r]", text):  # it takes only ASCII's spaces for spaces
            continue
        opening = vocabulary.tokens[bos] if vocabulary.space == "first" and bos is not None else ""
        yield opening + text


def _composes(vocabulary: Vocabulary) -> bool:
    """Whether characters are composed before anything else, as Qwen's tokenizers do; llama.cpp keeps them."""
    return '"NFC"' in json.dumps(json.loads(vocabulary.backend)["normalizer"])


def _write_alone(vocabulary: Vocabulary, file: Path) -> None:
    """The tokenizer with the smallest model that llama.cpp takes: one layer, 32 numbers a token."""
    width, rows = 32, len(vocabulary.tokens)
    writer = GGUFWriter(file, "llama")
    writer.add_layer_norm_rms_eps(1e-5)
    for add, value in ((writer.add_block_count, 1), (writer.add_context_length, 64), (writer.add_head_count, 1),
                       (writer.add_embedding_length, width), (writer.add_feed_forward_length, width)):
        add(value)
    vocabulary.write(writer, "tokenizer")
    writer.add_tensor("token_embd.weight", np.zeros((rows, width), np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(width, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((width, width), np.float16))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
