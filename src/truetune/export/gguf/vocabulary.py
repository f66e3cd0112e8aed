"""A tokenizer inside a GGUF file: tokens, their kinds, merges or scores, the special ones, and the chat template.

Everything is read from the tokenizer as transformers runs it, which is the one that training used. Three kinds go in:
byte-level BPE (llama.cpp's `gpt2`: Llama 3, Qwen, SmolLM, GLM, …), BPE with spaces as ▁ and bytes as tokens (`llama`:
Llama 2, Mistral, Gemma, Phi-3), and Unigram (`t5`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from truetune.export.gguf.pretokenizers import pretokenizer_name
from truetune.findings import Both, Problem, problem
from truetune.model.find import load_tokenizer

_SPACE = "▁"

ENDS = frozenset((
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>",
))
"""Tokens that end an answer in llama.cpp because of their text (src/llama-vocab.cpp, `special_eog_ids`)."""


@dataclass(frozen=True)
class Vocabulary:
    """What the file says of its tokenizer.

    Attributes:
        backend: the tokenizer itself, as tokenizer.json.
        kind: llama.cpp's: gpt2, llama or t5. pre: how a text is split first.
        tokens, types: by id. scores: of kinds llama and t5. merges: of kind gpt2.
        special: the part a token plays (bos, eos, eot, eom, pad, unk) and its id.
        add_bos, add_eos: what llama.cpp puts around a text.
        space: where a text gets a space of its own: see `_space`.
        templates: chat templates and their names (`default` is the one that is used).
        strips: spaces after special tokens are dropped, as Phi-3 does.
    """

    backend: str
    kind: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    special: tuple[tuple[str, int], ...]
    add_bos: bool
    add_eos: bool
    space: str
    templates: tuple[tuple[str, str], ...]
    strips: bool

    def write(self, writer: GGUFWriter, name: str) -> None:
        """Into the header of a file. name: of the model. By that alone llama.cpp decides whether spaces are stripped
        (and does not load a file whose name is Phi-3's and whose tokens are not)."""
        plain = re.sub("(?i)phi-?3", "phi 3", name)
        writer.add_name(f"phi-3 {plain}" if self.strips else plain)
        writer.add_tokenizer_model(self.kind)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
        if self.merges:
            writer.add_token_merges(self.merges)
        for part, token in self.special:
            writer.add_uint32(_KEYS[part], token)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.kind != "gpt2":
            writer.add_add_space_prefix(self.space in ("each", "each without one"))
        if self.templates:
            writer.add_chat_template([{"name": name, "template": text} for name, text in self.templates])


_KEYS = {part: f"tokenizer.ggml.{name}_token_id" for part, name in
         {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "pad": "padding", "unk": "unknown"}.items()}


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """The tokenizer of a folder. rows: of the embedding; those that are no token's are filled with unused ones.

    Raises:
        Problem: llama.cpp has no such tokenizer, or not enough ways to end an answer.
    """
    tokenizer: Any = load_tokenizer(folder)
    text = tokenizer.backend_tokenizer.to_str()
    backend = json.loads(text)
    kind, (tokens, types) = _kind_of(backend), _tokens(backend, rows)
    special, model = _special(folder, tokenizer, tokens), backend["model"]
    unknown = model.get("unk_id", tokens.index(model["unk_token"]) if model.get("unk_token") else None)
    if unknown is not None:
        special["unk"], types[unknown] = unknown, TokenType.UNKNOWN
    add_bos, add_eos = _around(tokenizer)
    return Vocabulary(
        backend=text, kind=kind, pre=pretokenizer_name(backend) if kind == "gpt2" else "default",
        tokens=tuple(tokens), types=tuple(types), scores=tuple(_SCORES[kind](model, tokens)),
        merges=tuple(f"{left} {right}" for left, right in _pairs(model)) if kind == "gpt2" else (),
        special=tuple(special.items()), add_bos=add_bos, add_eos=add_eos, space=_space(backend),
        templates=_templates(tokenizer),
        strips=any(token["rstrip"] for token in backend["added_tokens"]) and "</s>" in tokens)


def _kind_of(backend: Mapping[str, Any]) -> str:
    model = backend["model"]
    if model["type"] == "BPE" and model.get("byte_fallback"):
        return "llama"
    if model["type"] == "BPE" and "ByteLevel" in json.dumps(backend["pre_tokenizer"]):
        return "gpt2"
    if model["type"] == "Unigram":
        return "t5"
    raise problem("gguf-tokenizer", Both(f"llama.cpp has no tokenizer like this one ({model['type']}).",
                                         f"llama.cpp 没有这种分词器（{model['type']}）。"), option="model_name_or_path",
                  fix=Both("Byte-level BPE, BPE with byte tokens and Unigram are supported.",
                           "支持字节级 BPE、带字节 token 的 BPE，以及 Unigram。"))


def _tokens(backend: Mapping[str, Any], rows: int) -> tuple[list[str], list[TokenType]]:
    """Text and kind of each id."""
    model = backend["model"]
    known = dict(enumerate(piece for piece, _ in model["vocab"])) if model["type"] == "Unigram" else \
        {number: text for text, number in model["vocab"].items()}
    added = {token["id"]: token for token in backend["added_tokens"]}
    if max([*known, *added]) >= rows:
        raise problem("gguf-tokenizer", Both(f"the tokenizer has {max([*known, *added]) + 1:,} tokens and the model's "
                                             f"embedding {rows:,} rows.",
                                             f"分词器有 {max([*known, *added]) + 1:,} 个 token，而模型的嵌入只有 "
                                             f"{rows:,} 行。"), option="model_name_or_path")
    byte = re.compile(r"<0x[0-9A-F]{2}>").fullmatch if model.get("byte_fallback") else lambda text: None
    tokens, types = [f"[PAD{number}]" for number in range(rows)], [TokenType.UNUSED] * rows
    for number, text in known.items():
        tokens[number], types[number] = text, TokenType.BYTE if byte(text) else TokenType.NORMAL
    for number, token in added.items():
        text = token["content"]
        if token["normalized"] and not token["special"] and _escapes(backend):
            text = text.replace(_SPACE, " ")  # llama.cpp looks for it in the text as it was typed
        tokens[number], types[number] = text, TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    if len(set(tokens)) < rows:
        twice = next(text for number, text in enumerate(tokens) if tokens.index(text) != number)
        raise problem("gguf-tokenizer", Both(f"two tokens have the text {twice!r}, which llama.cpp does not allow.",
                                             f"有两个 token 的文本同为 {twice!r}，llama.cpp 不允许。"),
                      option="model_name_or_path")
    return tokens, types


def _escapes(backend: Mapping[str, Any]) -> bool:
    """Whether spaces become ▁ before anything else."""
    return _SPACE in json.dumps(backend["normalizer"], ensure_ascii=False)


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    halves = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in halves]


def _no_scores(model: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    return []


def _scores_of_merges(model: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    """llama.cpp merges two neighbours into the token of the highest score; the earlier a token's merge stands in the
    list, the higher. What no merge makes is never made."""
    rank: dict[str, int] = {}
    for number, (left, right) in enumerate(_pairs(model)):
        rank.setdefault(left + right, number)
    return [-float(rank[text]) if text in rank else -1e9 for text in tokens]


def _scores_of_pieces(model: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    known = [score for _, score in model["vocab"]]
    return [*known, *[-1000.0] * (len(tokens) - len(known))]


_SCORES = {"gpt2": _no_scores, "llama": _scores_of_merges, "t5": _scores_of_pieces}


def _space(backend: Mapping[str, Any]) -> str:
    """Where a space is put before a text. `each`: before each part between special tokens, as llama.cpp does it; `each
    without one`: not where there is one already; `first`: only before a text that begins without a special token, which
    chats do not; `never`.
    """
    told = json.dumps([backend["normalizer"], backend["pre_tokenizer"]])
    scheme = re.search(r'"prepend_scheme": "(\w+)"', told)
    if '"Prepend"' in told:
        return "each"
    return {"always": "each without one", "first": "first"}.get(scheme[1], "never") if scheme else "never"


def _special(folder: Path, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> dict[str, int]:
    """Which id plays which part. Every id that ends an answer by generation_config.json ends it in llama.cpp: as eos,
    because of its text, as eot or as eom.

    Raises:
        Problem: there are more of them than places.
    """
    ends = _ends(folder)
    eos = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else next(iter(ends), None)
    special = {"bos": tokenizer.bos_token_id, "eos": eos, "pad": tokenizer.pad_token_id}
    if special["bos"] is None:
        special["bos"] = eos  # unset, llama.cpp takes the token with id 11 (or 1)
    others = [end for end in ends if end != eos]
    by_text = [end for end in others if tokens[end] in ENDS]
    unnamed = [end for end in others if tokens[end] not in ENDS]
    if len(unnamed) > 2:
        names = ", ".join(repr(tokens[end]) for end in unnamed)
        raise problem("gguf-stops", Both(f"llama.cpp has two places for tokens that end an answer besides eos, and "
                                         f"this model has {len(unnamed)}: {names}",
                                         f"除 eos 外，llama.cpp 只能再放两个结束 token，而该模型有 {len(unnamed)} 个："
                                         f"{names}"), option="model_name_or_path",
                      fix=Both("Take some out of eos_token_id in generation_config.json.",
                               "请从 generation_config.json 的 eos_token_id 中去掉一些。"))
    special |= dict(zip(("eot", "eom"), [*unnamed, *by_text], strict=False))
    return {part: number for part, number in special.items() if number is not None}


def _ends(folder: Path) -> list[int]:
    """The ids that end an answer."""
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        told = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
        if told is not None:
            return [told] if isinstance(told, int) else list(told)
    return []


def _templates(tokenizer: Any) -> tuple[tuple[str, str], ...]:
    template = tokenizer.chat_template
    named = template if isinstance(template, dict) else {"default": template} if template else {}
    return tuple((name, _as_by_default(tokenizer, text)) for name, text in named.items())


def _as_by_default(tokenizer: Any, template: str) -> str:
    """A template that thinks only when told to, made to keep to that: llama.cpp tells every template that can think to
    do so, unless a client says otherwise, and a model trained without thoughts would be asked for them."""
    talk = [{"role": "user", "content": "a"}]
    try:
        unsaid, off, on = (tokenizer.apply_chat_template(talk, chat_template=template, tokenize=False,
                                                         add_generation_prompt=True, **values)
                           for values in ({}, {"enable_thinking": False}, {"enable_thinking": True}))
    except (TemplateError, Problem, TypeError):  # a template that wants more than a question
        return template
    return "{%- set enable_thinking = false %}\n" + template if unsaid == off != on else template


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Whether llama.cpp has to put bos before and eos after a text. Before a chat it takes a bos that the template
    writes away and puts its own; where the template writes none, there must be none."""
    ids = tokenizer("a").input_ids
    first, last = ids[0] == tokenizer.bos_token_id, ids[-1] == tokenizer.eos_token_id
    if first and tokenizer.chat_template:
        try:
            text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
        except (TemplateError, Problem):  # a template that wants more than a question
            return first, last
        first = str(text).startswith(str(tokenizer.bos_token))
    return first, last
