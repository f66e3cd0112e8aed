"""Words that become one token each: into the tokenizer, into the embeddings and the head, and how their rows begin.

A new token has no row that was learned. Its row begins as the mean of all old ones with some noise, or as the mean of
the tokens of a text that says what it stands for. It is then trained: with everything else (`full`), with the whole
embeddings (`freeze`), or alone beside an adapter, which keeps those rows and no others (`model.methods`).

A new special token is never split and never changed by the tokenizer, and may stand in the data: it would learn nothing
otherwise. One that the chat template writes is more: like every mark of a template it is nothing that somebody could
type (`data.renderer`), and it is left out of answers.

Whoever loads an adapter gets its words back: they are in the tokenizer beside it, and the base grows to that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from transformers import AddedToken

from truetune.data.templates import TEMPLATES
from truetune.data.templates.source import template_source
from truetune.findings import WRONG_OPTIONS, Both, Finding, parser_says, problem, spoken
from truetune.model.adapters import adapters_of
from truetune.model.find import load_model_config, load_tokenizer
from truetune.options import Config

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MULTIPLE = 64
"""The number of rows of a grown matrix is a multiple of it, as LLaMA-Factory has it: products on GPUs are faster. Rows
that belong to no token are the mean of the old ones, whoever grows the matrix."""


@dataclass(frozen=True)
class Vocabulary:
    """tokenizer: with every word. new: ids that the base has no learned row for, ascending. described: what they stand
    for, by id. findings: words that are tokens already."""

    tokenizer: PreTrainedTokenizerBase
    new: tuple[int, ...] = ()
    described: Mapping[int, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def read_vocabulary(base: Path, config: Config) -> Vocabulary:
    """The tokenizer in `base` with the words of an adapter that is loaded, and those that the options add.

    Raises:
        Problem: there is no tokenizer, the file of special tokens cannot be read, or an adapter that is trained on has
            no rows for some of the words.
    """
    tokenizer = load_tokenizer(base)
    known = len(tokenizer)
    for adapter in adapters_of(config):
        if (adapter / "tokenizer.json").is_file():
            _take_over(load_tokenizer(adapter), tokenizer)
    brought = len(tokenizer)
    texts, findings = descriptions(config), []
    template = template_source(config.template) if config.template in TEMPLATES else str(tokenizer.chat_template)
    special = tuple(texts) or config.add_special_tokens
    for option, words in (("add_tokens", config.add_tokens), (_special_option(config), special)):
        already = [word for word in words if _is_token(tokenizer, word)]
        if already and not config.adapter_name_or_path:
            findings.append(_known_already(option, already, config))
        wanted = [word for word in dict.fromkeys(words) if word not in already]
        for word in wanted:
            tokenizer.add_tokens(_token(word, option != "add_tokens", template))
    if config.adapter_name_or_path and len(tokenizer) > brought and not config.create_new_adapter:
        raise problem("adapter-without-words", Both(
            f"{config.adapter_name_or_path[0]} has no rows for words that are added now.",
            f"{config.adapter_name_or_path[0]} 里没有这次新增的词的 embedding。"), option="adapter_name_or_path",
            where=config.origin("adapter_name_or_path"), status=WRONG_OPTIONS,
            fix=Both("Begin a new adapter (create_new_adapter: true), or leave the words out.",
                     "新建适配器（create_new_adapter: true），或去掉这些词。"))
    first = known
    if config.resize_vocab or len(tokenizer) > known:  # the base's own tokenizer may have words without a row
        first = min(known, load_model_config(base).get_text_config().vocab_size)
    new = tuple(range(first, len(tokenizer)))
    ids = {number: tokenizer.convert_ids_to_tokens(number) for number in new}
    described = {number: texts[word] for number, word in ids.items() if word in texts}
    return Vocabulary(tokenizer, new, described, tuple(findings))


def new_tokens(base: Path, config: Config) -> tuple[int, ...]:
    """The tokens whose rows are new, told without reading a tokenizer where there are none."""
    return read_vocabulary(base, config).new if may_grow(config) else ()


def descriptions(config: Config) -> dict[str, str]:
    """What each new special token stands for: the mapping in the file `new_special_tokens_config`.

    Raises:
        Problem: the file cannot be read, or is no mapping from tokens to texts.
    """
    name = config.new_special_tokens_config
    if not name:
        return {}
    path = Path(name)
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_file(name, Both(f"cannot be read: {error}", f"无法读取：{error}"), config) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = parser_says(error.problem or "")
        raise _bad_file(f"{name}:{line}", Both(f"is no YAML: {said}", f"不是有效的 YAML：{spoken(said, True)}"),
                        config) from None
    if not isinstance(read, dict) or not read:
        raise _bad_file(name, Both("holds no mapping of tokens to descriptions", "内容不是“token: 描述”的映射"), config)
    wrong = [token for token, text in read.items() if not (isinstance(token, str) and token.strip()
                                                           and isinstance(text, str) and text.strip())]
    if wrong:
        raise _bad_file(name, Both(f"{wrong[0]!r} and what stands after it have to be text, and not empty",
                                   f"{wrong[0]!r} 和它后面的内容都必须是非空文本"), config)
    return read


def grow(model: PreTrainedModel, base: Path, config: Config) -> PreTrainedModel:
    """`model`, loaded from `base`, with a row for each token in its embeddings and its head, the new ones begun as
    `init_special_tokens` says, the same whenever the seed is the same.

    noise_init: mean of the old rows + N(0, 1/d), d numbers a row. desc_init: mean of the rows of the tokens of its
    description; of a word that has none, of the tokens that it was until now. desc_init_w_noise: that and the noise.
    Embeddings that are the head too stay so; a head of its own begins from its own rows. (LLaMA-Factory takes the
    description's rows of the embeddings for the head too, and rows of ordinary words from others' descriptions.)
    """
    if not may_grow(config):
        return model
    vocabulary = read_vocabulary(base, config)
    if not vocabulary.new:
        return model
    old = len(model.get_input_embeddings().get_parameter("weight"))
    if len(vocabulary.tokenizer) > old:
        model.resize_token_embeddings(len(vocabulary.tokenizer), pad_to_multiple_of=MULTIPLE, mean_resizing=False)
    if model.device.type == "meta":
        return model
    old_ids = [number for number in range(old) if number not in set(vocabulary.new)]
    pieces = _pieces(base, vocabulary) if config.init_special_tokens != "noise_init" else {}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    weights = [module.get_parameter("weight") for module in (embeddings, head) if module is not None]
    for matrix in {id(weight): weight for weight in weights}.values():  # one, where they are tied
        _begin_rows(matrix, old, old_ids, vocabulary.new, pieces, config)
    for name, bias in head.named_parameters(recurse=False) if head is not None else ():
        if name == "bias":
            bias.data[old:] = bias.data[:old].mean()
    return model


def _begin_rows(matrix: torch.Tensor, old: int, old_ids: Sequence[int], new: Sequence[int],
                pieces: Mapping[int, Sequence[int]], config: Config) -> None:
    """Fill the rows of new tokens, and those beyond `old` that belong to none. matrix: (V, d)."""
    import torch

    random = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        width, mean = matrix.shape[1], matrix[old_ids].float().mean(dim=0)
        begun = torch.stack([matrix[pieces[number]].float().mean(dim=0) if pieces.get(number) else mean
                             for number in new])  # (n, d)
        if config.init_special_tokens != "desc_init":
            noise = torch.randn(len(new), width, generator=random) * width ** -0.5
            begun = begun + noise.to(begun.device)
        matrix[old:] = mean.to(matrix.dtype)
        matrix[list(new)] = begun.to(matrix.dtype)


def _pieces(base: Path, vocabulary: Vocabulary) -> dict[int, list[int]]:
    """The old tokens that a new one's row is the mean of."""
    plain, new = load_tokenizer(base), set(vocabulary.new)
    texts = {number: vocabulary.described.get(number) or vocabulary.tokenizer.decode([number]) for number in new}
    return {number: [piece for piece in plain(text, add_special_tokens=False)["input_ids"] if piece not in new]
            for number, text in texts.items()}


def may_grow(config: Config) -> bool:
    """Whether there may be tokens to grow for; told without reading a tokenizer."""
    return bool(config.resize_vocab or config.add_tokens or config.add_special_tokens
                or config.new_special_tokens_config or any(map(_has_rows, adapters_of(config))))


def _has_rows(adapter: Path) -> bool:
    """Whether an adapter brings rows of embeddings: some of them, or (of other tools) the whole matrix."""
    file = adapter / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return bool(settings.get("trainable_token_indices") or settings.get("modules_to_save"))


def _take_over(brought: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the words that `brought` has and `tokenizer` has not, in the order of their ids."""
    words = sorted(brought.added_tokens_decoder.items())
    tokenizer.add_tokens([word for number, word in words if number >= len(tokenizer)])


def _token(word: str, special: bool, template: str) -> AddedToken:
    return AddedToken(word, special=special and word in template, normalized=not special)


def _is_token(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    return len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1 and \
        tokenizer.convert_tokens_to_ids(word) not in (None, tokenizer.unk_token_id)


def _special_option(config: Config) -> str:
    return "new_special_tokens_config" if config.new_special_tokens_config else "add_special_tokens"


def _known_already(option: str, words: Sequence[str], config: Config) -> Finding:
    names = ", ".join(words)
    return Finding("known-tokens", "info", Both(f"already one token each, left as they are: {names}.",
                                                f"已经是单个 token，保持不变：{names}。"),
                   option=option, where=config.origin(option))


def _bad_file(name: str, what: Both, config: Config) -> Exception:
    option = "new_special_tokens_config"
    return problem("bad-special-tokens", Both(f"{name} {what}.", f"{name} {what.zh}。"), option=option,
                   where=config.origin(option), status=WRONG_OPTIONS,
                   fix=Both('Write one line a token: "<token>": what it stands for.',
                            '每行写一个 token："<token>": 它的含义。'))
