"""What answers: a model with its adapters, what makes prompts of conversations, and how words are drawn."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator as Iterated
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from truetune.data.renderer import Renderer
from truetune.data.template import make_renderer, settle_template
from truetune.data.texts import require_template
from truetune.findings import Both, Say, refuse
from truetune.model.adapters import adapters_of
from truetune.model.base import load_base
from truetune.model.find import find_model, load_model_config, load_tokenizer
from truetune.model.precision import pick_device
from truetune.options import Config
from truetune.serve.adapted import AdaptedModel
from truetune.serve.backends import BACKENDS
from truetune.serve.continuous import Continuous, Rows
from truetune.serve.detokenize import Vocabulary
from truetune.serve.external import find_source, remote_of, tokenizer_of
from truetune.serve.request import Answer, Full, Generator, Request, Sampling
from truetune.serve.sampling import Schemas
from truetune.serve.scheduler import Limits
from truetune.serve.single import Single

Messages = Sequence[Mapping[str, Any]]
_LONGEST = 8192
"""Tokens of a conversation where nobody says how long it may be."""


@dataclass(frozen=True)
class Engine:
    """A model ready to answer.

    Attributes:
        name: by which clients call it. defaults: how words are drawn where a request does not say. model: the causal
            model of transformers or PEFT, where it is in this process; Any, since `generate` is hidden from type
            checkers. own: renderers of adapters that were trained with another template than the model's.
    """

    name: str
    renderer: Renderer
    generator: Generator
    defaults: Sampling
    model: Any = None
    adapted: AdaptedModel | None = None
    own: Mapping[str, Renderer] = field(default_factory=dict)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.renderer.tokenizer

    @property
    def adapters(self) -> Sequence[str]:
        """Names of the adapters that a request may give."""
        return self.generator.adapters

    @property
    def context(self) -> int:
        """Most tokens that a prompt and its answer may have together."""
        return self.generator.context

    def renderer_of(self, adapter: str | None) -> Renderer:
        """What makes the prompts that this adapter (None: the model as it was loaded) has learned from."""
        return self.renderer if adapter is None else self.own.get(adapter, self.renderer)

    def prompt(self, messages: Messages, tools: Sequence[Mapping[str, Any]] = (), **values: Any) -> list[int]:
        """The ids that ask for the next answer. values: for the template (enable_thinking).

        Raises:
            Problem: the template refuses these messages.
        """
        return self.renderer.prompt(messages, tools, **values)

    def encode(self, text: str) -> list[int]:
        """The ids of a bare text (no template), with what the tokenizer puts before every text; words that look like a
        special token are one."""
        return list(self.tokenizer.encode(text))

    def generate(self, messages: Messages, sampling: Sampling | None = None, *,
                 tools: Sequence[Mapping[str, Any]] = (), adapter: str | None = None,
                 values: Mapping[str, Any] | None = None) -> Answer:
        """The answer piece by piece. It is in the queue when this returns; closing it frees its place.

        Raises:
            Full: the queue is full. Problem: the messages, the prompt's length, the adapter or the schema are refused.
        """
        return self.complete(self.renderer_of(adapter).prompt(messages, tools, **(values or {})), sampling, adapter)

    def complete(self, ids: Sequence[int], sampling: Sampling | None = None, adapter: str | None = None) -> Answer:
        """What follows `ids`; see `generate`."""
        return self.generator.generate(Request(ids, sampling or self.defaults, adapter))

    def answer(self, conversations: Sequence[Messages]) -> list[str]:
        """The answer to each conversation, as many together as the engine takes."""
        told: list[str] = []
        going: deque[Answer] = deque()
        for prompt in map(self.prompt, conversations):
            while True:
                try:
                    going.append(self.complete(prompt))
                    break
                except Full:
                    if not going:
                        raise
                    told.append(_text_of(going.popleft()))
        return [*told, *map(_text_of, going)]

    def stream(self, messages: Messages) -> Iterated[str]:
        """The answer piece by piece, as text. Closing the iterator stops the generation."""
        with closing(self.generate(messages)) as answer:
            for piece in answer:
                if piece.text:
                    yield piece.text

    def close(self) -> None:
        self.generator.close()


def _text_of(answer: Answer) -> str:
    return "".join(piece.text for piece in answer).strip()


def load_engine(config: Config, say: Say) -> Engine:
    """The model that `config` names, with its adapters, ready to answer.

    Raises:
        Problem: the model or an adapter cannot be loaded, or an adapter belongs to another base.
    """
    assert config.model_name_or_path is not None  # a rule has made sure
    if config.infer_backend in BACKENDS:
        source = find_source(config, say)
        tokenizer, trained = tokenizer_of(source, config)
        renderer = _renderer(tokenizer, trained, config, say)
        own = _renderers_beside(renderer, config, say)
        return Engine(name_of(config), renderer, remote_of(source, renderer, _ends(renderer, own), config, say),
                      defaults_of(config, trained), own=own)
    base = find_model(config.model_name_or_path, config, say)
    tokenizer, trained = load_tokenizer(base), base
    adapted = AdaptedModel.of(load_base(base, config, inference_dtype(config, base), pick_device(config)), base, config)
    for adapter in adapters_of(config):
        if (adapter / "tokenizer.json").is_file():
            tokenizer, trained = load_tokenizer(adapter), adapter
    renderer = _renderer(tokenizer, trained, config, say)
    own = _renderers_beside(renderer, config, say)
    generator = _in_this_process(adapted, renderer.tokenizer, _ends(renderer, own), config, say)
    return Engine(name_of(config), renderer, generator, defaults_of(config, trained), adapted.outer, adapted, own)


def _renderer(tokenizer: PreTrainedTokenizerBase, trained: Path, config: Config, say: Say) -> Renderer:
    """What makes prompts as those that the model in `trained` has learned from."""
    for finding in refuse(settle_template(tokenizer, config)):
        say(Both(finding.line(), finding.line(chinese=True)))
    require_template(tokenizer, str(config.model_name_or_path))
    return make_renderer(tokenizer, trained, config)


def _renderers_beside(renderer: Renderer, config: Config, say: Say) -> dict[str, Renderer]:
    """Of `infer_adapters`, those that were saved with another template than the model is asked with: each is asked
    with its own, as it was trained."""
    found: dict[str, Renderer] = {}
    for name, typed in config.infer_adapters.items():
        folder = Path(str(typed)).expanduser()
        if (folder / "tokenizer.json").is_file():
            tokenizer = load_tokenizer(folder)
            if tokenizer.chat_template and tokenizer.chat_template != renderer.tokenizer.chat_template:
                found[name] = _renderer(tokenizer, folder, config, say)
    return found


def _ends(renderer: Renderer, own: Mapping[str, Renderer]) -> list[int]:
    """The tokens that end an answer, by whichever template."""
    return sorted({token for each in (renderer, *own.values()) for token in each.stop_ids()})


def _in_this_process(adapted: AdaptedModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], config: Config,
                     say: Say) -> Generator:
    """Rows that share every forward pass where the model allows it, else answers one after the other."""
    settings = adapted.causal.config.get_text_config()
    limits = Limits(config.infer_batch, config.api_queue, config.infer_maxlen or
                    min(_LONGEST, settings.to_dict().get("max_position_embeddings") or _LONGEST))
    schemas = Schemas(tokenizer, ends)  # pyright: ignore[reportArgumentType]  (load_tokenizer gives fast ones only)
    size = settings.vocab_size
    rows, vocabulary = Rows(adapted), Vocabulary(tokenizer)
    if why := rows.unfit():
        say(Both(f"answers are written one at a time: {why}.", f"逐个生成回答：{why.zh}。"))
        return Single(adapted.using, vocabulary, schemas, ends, size, limits, adapted.names)
    return Continuous(rows, vocabulary, schemas, ends, size, limits)


def name_of(config: Config) -> str:
    """By which clients call the model: api_model_name, or the last part of what was named last."""
    named = [config.model_name_or_path or "", *config.adapter_name_or_path][-1]
    return config.api_model_name or Path(named).name or named


def inference_dtype(config: Config, base: Path) -> torch.dtype:
    """`infer_dtype`; auto is the model's own."""
    if config.infer_dtype != "auto":
        return getattr(torch, config.infer_dtype)
    return load_model_config(base).dtype or torch.float32


def defaults_of(config: Config, saved_with: Path | None = None) -> Sampling:
    """How words are drawn where a request does not say: as the options that somebody gave, else as was saved with the
    model (generation_config.json in the folder `saved_with`), else as the options' defaults."""
    saved = _saved(saved_with)

    def value(name: str) -> Any:
        return getattr(config, name) if config.given(name) else saved.get(name, getattr(config, name))

    greedy = not value("do_sample") and not (config.given("temperature") and not config.given("do_sample"))
    return Sampling(value("max_new_tokens"), 0.0 if greedy else value("temperature"), value("top_p"), value("top_k"),
                    value("min_p"), value("repetition_penalty"), value("presence_penalty"),
                    value("frequency_penalty"), config.generation_seed)


_SAVED = ("do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")


def _saved(folder: Path | None) -> dict[str, Any]:
    """What generation_config.json says of how words are drawn."""
    file = folder / "generation_config.json" if folder else None
    written = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    return {name: written[name] for name in _SAVED if written.get(name) is not None}


def sampling(config: Config, renderer: Renderer) -> GenerationConfig:
    """The generation options as transformers takes them. A temperature of 0 is greedy."""
    ends, tokenizer = renderer.stop_ids(), renderer.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    shared: dict[str, Any] = {"max_new_tokens": config.max_new_tokens, "eos_token_id": ends, "pad_token_id": pad,
                              "repetition_penalty": config.repetition_penalty, "use_cache": True}
    if not config.do_sample or config.temperature == 0:
        return GenerationConfig(do_sample=False, **shared)
    return GenerationConfig(do_sample=True, temperature=config.temperature, top_p=config.top_p, top_k=config.top_k,
                            **shared)

