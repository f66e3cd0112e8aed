"""Proof that a tokenizer in llama.cpp gives the ids that training gave, before minutes are spent on the weights.

A file with the same tokenizer and next to no weights is loaded by llama.cpp itself, which then tokenises texts that
tokenizers are known to differ in.
"""

from __future__ import annotations

import random
import tempfile
import unicodedata
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerBase

from truetune.export.gguf.vocabulary import Vocabulary
from truetune.findings import Both, Say, problem
from truetune.serve.llamacpp import LlamaCpp

_PIECES = (
    "Hello", " world", "  two", "   three ", "\n", "\n\n", " \n ", "\t", "\r\n", "don't", " I'LL", "we'Ve", "'s", " 's",
    "3", "33", "333", "3333", " 12345678", "3.14", "1,000", "½", "٣٤", "你好", "世界。", "，", "「日本語」", "カタカナ", "한국어",
    "Привет", " нещо", "ελλάδα", "naïve", "café", "über", "עברית", "العربية", "हिन्दी", "ภาษาไทย", "🚀", "👩‍👩‍👧", "😶‍🌫️", "🇩🇪",
    "def f(x):", "\n    return x", " == ", "!=", "->", "{}", "[]()", "...", "!!!", "??", "——", "“quoted”", "`code`", "```",
    "<b>", "</b>", "<|", "|>", "<s>", "</s>", "[INST]", "#", "$1", "%", "@user", "https://a.b/c?d=e&f=1", "a_b", "aB", "ABC",
    "\u00a0", "\u3000", "\u200b", "\ufeff", "e\u0301", "A\u030a", "\x00", "\x7f", "ﬁ", "ǅ", "Ⅷ", "𝒳", "𠮷", "x" * 40, " " * 17,
)
"""Parts of texts; put together at random they make what people type, and what they never should."""


def probe_texts(special: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` texts: each part by itself, then parts at random. special: texts of special tokens, put in between."""
    draw = random.Random(seed)
    parts = [*_PIECES, *special[:40]]
    return [*parts, *("".join(draw.choices(parts, k=draw.randint(2, 12))) for _ in range(count - len(parts)))][:count]


def first_difference(server: LlamaCpp, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
                     ) -> tuple[str, list[int], list[int]] | None:
    """The first text of which llama.cpp makes other ids: (text, those of training, llama.cpp's)."""
    for text in texts:
        ours = tokenizer(text, add_special_tokens=False).input_ids
        theirs = server.tokenize(text)
        if ours != theirs:
            return text, ours, theirs
    return None


def prove(vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase, say: Say, count: int = 400) -> None:
    """Raises:
    Problem: a text becomes other tokens in llama.cpp; which and how is told.
    """
    if find_spec("xllamacpp") is None:
        say(Both("the tokenizer was not tried in llama.cpp, which is not installed (pip install xllamacpp)",
                 "没有安装 llama.cpp，分词器未经实际验证（pip install xllamacpp）"))
        return
    special = [text for text, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
               if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)]
    texts = [text for text in probe_texts(special, count) if _fair(text, tokenizer, say)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.gguf"
        _write_alone(vocabulary, file)
        with LlamaCpp(file, context=64) as server:
            found = first_difference(server, tokenizer, texts)
    if found:
        text, ours, theirs = found
        raise problem("gguf-tokens", Both(f"llama.cpp makes other tokens of {text!r}: {theirs}, in training it was {ours}",
                                          f"llama.cpp 对 {text!r} 的分词不同：{theirs}，训练时是 {ours}"),
                      option="model_name_or_path")


def _fair(text: str, tokenizer: PreTrainedTokenizerBase, say: Say) -> bool:
    """Whether llama.cpp can be expected to agree: it keeps characters as they are, and some tokenizers compose them
    first (Qwen's: NFC)."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is None or "NFC" not in str(normalizer) or unicodedata.normalize("NFC", text) == text


def _write_alone(vocabulary: Vocabulary, file: Path) -> None:
    """The tokenizer with the smallest model that llama.cpp takes: no layer, 32 numbers a token."""
    width, rows = 32, len(vocabulary.tokens)
    writer = GGUFWriter(file, "llama")
    for add, value in ((writer.add_block_count, 1), (writer.add_context_length, 64),
                       (writer.add_embedding_length, width), (writer.add_feed_forward_length, width),
                       (writer.add_head_count, 1), (writer.add_layer_norm_rms_eps, 1e-5)):
        add(value)
    vocabulary.write(writer)
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
