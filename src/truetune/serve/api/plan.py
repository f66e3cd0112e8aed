"""What a request means for the engine: prompts in token ids, how the words are drawn, how the answer is read.

A call of a tool that is asked for (`tool_choice`) is not hoped for: the prompt goes on with what the template writes
before a call's arguments, and those must follow the tool's schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from truetune.data.renderer import Renderer
from truetune.serve.api.calls import AnswerReader, Speech
from truetune.serve.api.choices import ChoiceWriter, Forced, Free
from truetune.serve.api.errors import ApiError
from truetune.serve.api.messages import accepted, as_turns, template_values
from truetune.serve.api.schemas import (
    MOST_ANSWERS,
    ChatAsked,
    CompletionAsked,
    DetokenizeAsked,
    EmbeddingAsked,
    NamedTool,
    Prompted,
    TokenizeAsked,
    Tool,
)
from truetune.serve.detokenize import Vocabulary
from truetune.serve.embed import Embedder
from truetune.serve.engine import Engine
from truetune.serve.request import Request, Sampling
from truetune.serve.score import Scorer


@dataclass(frozen=True)
class Served:
    """What answers. names: what clients may call it, each with the adapter that it means (None: as it was loaded).
    speech: how the engine's model calls tools and thinks; own: and the adapters with a template of their own."""

    names: Mapping[str, str | None]
    engine: Engine | None = None
    scorer: Scorer | None = None
    speech: Speech = field(default_factory=Speech)
    own: Mapping[str, Speech] = field(default_factory=dict)

    def speech_of(self, adapter: str | None) -> Speech:
        return self.speech if adapter is None else self.own.get(adapter, self.speech)

    def require(self, name: str | None) -> str:
        """The name, or of none given the first.

        Raises:
            ApiError: nothing of that name is served.
        """
        if name is None:
            return next(iter(self.names))
        if name not in self.names:
            raise ApiError(404, f"There is no model {name!r:.80}; there is {', '.join(self.names)}.", param="model",
                          code="model_not_found")
        return name

    def require_engine(self) -> Engine:
        if self.engine is None:
            raise ApiError(405, "This is a reward model: it scores (/v1/score/evaluation) and does not answer.",
                          code="reward_model")
        return self.engine

    def require_scorer(self) -> Scorer:
        if self.scorer is None:
            raise ApiError(405, "This model answers and does not score; stage: rm trains one that does.",
                          code="no_reward_model")
        return self.scorer

    def require_embedder(self) -> Embedder:
        adapted = self.require_engine().adapted
        if adapted is None or adapted.virtual:
            raise ApiError(405, "Embeddings are computed where the model is in the server's process "
                          "(infer_backend: huggingface) and has no virtual tokens.", code="no_embeddings")
        return self._embedder

    @cached_property
    def _embedder(self) -> Embedder:
        adapted = self.require_engine().adapted
        assert adapted
        return Embedder(adapted)


@dataclass(frozen=True)
class Plan:
    """requests: one for each choice. writer: makes what writes a choice. prompt_tokens: of all prompts together, each
    counted once. unknown: fields without effect. choosing: is asked first, and `chosen` makes of its answer the plan
    for the rest."""

    requests: Sequence[Request]
    writer: Callable[[], ChoiceWriter]
    prompt_tokens: int
    unknown: Sequence[str] = field(default=())
    choosing: Request | None = None
    chosen: Callable[[str], Plan] | None = None

MOST_TEXTS = 2048
"""Texts in one request, as OpenAI takes them."""


# ── Chat ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def plan_chat(served: Served, asked: ChatAsked) -> Plan:
    """Blocks while it renders.

    Raises:
        ApiError: it cannot be answered. Problem: the template refuses it.
    """
    engine, adapter = served.require_engine(), served.names[served.require(asked.model)]
    tools = [] if asked.tool_choice == "none" else asked.tools
    renderer, speech = engine.renderer_of(adapter), served.speech_of(adapter)
    turns, values = as_turns(asked.messages), _values(renderer, asked)
    _require_tools_known(tools, speech)
    offered = [tool.as_dict() for tool in tools]
    sampling = _sampling(engine, asked)
    forced = _forced(asked, tools)
    strict = sampling.schema is not None or bool(forced)
    if strict and speech.thought and asked.enable_thinking is None:
        values = {"enable_thinking": False, **values}
    ids = accepted(turns, lambda turns: renderer.prompt(turns, offered, **values))
    _require_room(engine, ids)
    opened = _thinks(engine, speech, ids)
    if strict and opened:
        ids, opened = ids + _encoded(engine, f"\n{opened[1]}\n\n"), None
    unknown = [*asked.unknown_fields(), *_unused(renderer, asked), *_unkept(asked, forced)]
    if forced:
        return _forced_plan(engine, asked, forced, ids, sampling, adapter, speech, unknown)
    single = asked.parallel_tool_calls is False

    def writer() -> ChoiceWriter:
        return Free(AnswerReader(speech, bool(opened), offered, single), speech)

    return Plan(_requests(ids, sampling, adapter, asked.n), writer, len(ids), unknown)


def _require_tools_known(tools: Sequence[Tool], speech: Speech) -> None:
    if tools and not speech.tool_format:
        raise ApiError(400, "This model's chat template knows no tools; serve it with tool_format, such as qwen, if it "
                      "was trained with one.", param="tools", code="no_tools")


def _forced(asked: ChatAsked, tools: Sequence[Tool]) -> list[Tool]:
    """The tools of which one has to be called; empty: none has."""
    if isinstance(asked.tool_choice, NamedTool):
        wanted = asked.tool_choice.function.name
        return [tool for tool in tools if tool.function.name == wanted]
    return list(tools) if asked.tool_choice == "required" else []


def _forced_plan(engine: Engine, asked: ChatAsked, tools: Sequence[Tool], ids: list[int], sampling: Sampling,
                 adapter: str | None, speech: Speech, unknown: Sequence[str]) -> Plan:
    """A call of one of these tools: where there are several first which, then its arguments by its schema."""
    schemas = {tool.function.name: tool.function.parameters or {"type": "object"} for tool in tools}

    def called(name: str) -> Plan:
        opening = _encoded(engine, speech.call_opening(name))
        bound = replace(sampling, schema=schemas[name], stop=())
        return Plan(_requests(ids + opening, bound, adapter, asked.n), lambda: Forced(name), len(ids), unknown)

    if len(schemas) == 1:
        return called(next(iter(schemas)))
    choosing = replace(sampling, schema={"enum": list(schemas)}, top_logprobs=None, max_new_tokens=256, stop=())
    ask = Request(ids + _encoded(engine, speech.name_opening), choosing, adapter)
    return Plan((), lambda: Forced(""), len(ids), unknown, ask, lambda answer: called(json.loads(answer)))


def _sampling(engine: Engine, asked: ChatAsked | CompletionAsked) -> Sampling:
    """How the words are drawn: what is asked for, and otherwise as the model was saved or the options say."""
    return replace(engine.defaults, **asked.sampling(), stop=(*engine.defaults.stop, *asked.stop))


def _requests(ids: Sequence[int], sampling: Sampling, adapter: str | None, count: int) -> list[Request]:
    """The same prompt so often, each with a seed of its own."""
    seeds: Iterable[int | None] = [None] * count if sampling.seed is None else \
        [sampling.seed + number for number in range(count)]
    return [Request(ids, replace(sampling, seed=seed), adapter) for seed in seeds]


def _values(renderer: Renderer, asked: Prompted) -> dict[str, Any]:
    special = renderer.tokenizer.special_tokens_map
    return template_values(asked.chat_template_kwargs, asked.enable_thinking, special)


def _unused(renderer: Renderer, asked: Prompted) -> list[str]:
    """Values for a template that does not ask for them."""
    template = str(renderer.tokenizer.chat_template)
    given = {name: f"chat_template_kwargs.{name}" for name in asked.chat_template_kwargs}
    if asked.enable_thinking is not None:
        given["enable_thinking"] = "enable_thinking"
    return [where for name, where in given.items() if name not in template]


def _unkept(asked: ChatAsked, forced: Sequence[Tool]) -> list[str]:
    """Promises of `strict` that cannot be kept: the model calls freely."""
    return [] if forced else [f"tools[{number}].function.strict" for number, tool in enumerate(asked.tools)
                              if (tool.function.model_extra or {}).get("strict")]


def _thinks(engine: Engine, speech: Speech, ids: Sequence[int]) -> tuple[str, str] | None:
    """The words around thoughts, where the prompt has opened one."""
    if not speech.thought:
        return None
    tail = str(engine.renderer.tokenizer.decode(list(ids[-16:]), skip_special_tokens=False)).rstrip()
    return speech.thought if tail.endswith(speech.thought[0]) else None


def _encoded(engine: Engine, text: str) -> list[int]:
    """The ids of text that the template writes: special tokens in it are special."""
    return list(engine.renderer.tokenizer.encode(text, add_special_tokens=False)) if text else []


def _require_room(engine: Engine, ids: Sequence[int], param: str = "messages") -> None:
    context = engine.generator.context
    if len(ids) >= context:
        raise ApiError(400, f"The prompt has {len(ids):,} tokens; prompt and answer may have {context:,} together.",
                      param=param, code="context_length_exceeded")


# ── Completions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def plan_completion(served: Served, asked: CompletionAsked) -> Plan:
    """Prompts as they are: special tokens in text are special, and before it stands what the tokenizer puts before
    every text.

    Raises:
        ApiError: a prompt is empty or too long, or there are too many.
    """
    engine, adapter = served.require_engine(), served.names[served.require(asked.model)]
    prompts = asked.prompts()
    if len(prompts) * asked.n > MOST_ANSWERS:
        raise ApiError(400, f"There can be {MOST_ANSWERS} answers to a request.", param="n", code="invalid_value")
    rows = _rows(engine, prompts, "prompt")
    sampling = _sampling(engine, asked)
    requests = [request for ids in rows for request in _requests(ids, sampling, adapter, asked.n)]
    speech = Speech()
    return Plan(requests, lambda: Free(AnswerReader(speech), speech), sum(map(len, rows)), [*asked.unknown_fields()])


def embedding_rows(served: Served, asked: EmbeddingAsked) -> list[list[int]]:
    """The ids of each text.

    Raises:
        ApiError: one is empty or too long, or there are too many.
    """
    return _rows(served.require_engine(), asked.texts(), "input")


def _rows(engine: Engine, texts: Sequence[str] | Sequence[list[int]], param: str) -> list[list[int]]:
    rows = [engine.encode(text) if isinstance(text, str) else text for text in texts]
    if not 0 < len(rows) <= MOST_TEXTS:
        raise ApiError(400, f"There can be 1 to {MOST_TEXTS:,} texts in a request.", param=param, code="invalid_value")
    for ids in rows:
        _require_room(engine, ids, param)
        _require_tokens(engine, ids, param)
    return rows


def _require_tokens(engine: Engine, ids: Sequence[int], param: str) -> None:
    size = len(engine.renderer.tokenizer)
    if not ids or not all(0 <= token < size for token in ids):
        raise ApiError(400, f"{param} has to hold text, or token ids in [0, {size}).", param=param,
                      code="invalid_value")


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def tokenized(served: Served, asked: TokenizeAsked) -> dict[str, Any]:
    """The ids that the model would read. With `return_token_strs` also what each is called in the vocabulary, as vLLM
    says it, and beyond that its characters as people read them (`texts`) and which of them are special (`special`).

    Raises:
        ApiError: it cannot be asked so. Problem: the template refuses it.
    """
    engine, adapter = served.require_engine(), served.names[served.require(asked.model)]
    renderer = engine.renderer_of(adapter)
    tokenizer = renderer.tokenizer
    if asked.prompt is not None:
        ids = list(tokenizer.encode(asked.prompt, add_special_tokens=asked.add_special_tokens))
    else:
        _require_tools_known(asked.tools, served.speech_of(adapter))
        offered, values = [tool.as_dict() for tool in asked.tools], _values(renderer, asked)
        ids = accepted(as_turns(asked.messages), lambda turns: renderer.prompt(
            turns, offered, asked.add_generation_prompt, **values))
    told = {"count": len(ids), "max_model_len": engine.context, "tokens": ids}
    if asked.return_token_strs:
        words = Vocabulary(tokenizer)
        told |= {"token_strs": tokenizer.convert_ids_to_tokens(ids),
                 "texts": [words.characters(token) for token in ids],
                 "special": [token in words.special for token in ids]}
    return told


def detokenized(served: Served, asked: DetokenizeAsked) -> str:
    """The text of these ids, special tokens written out.

    Raises:
        ApiError: one of them is no token.
    """
    engine, adapter = served.require_engine(), served.names[served.require(asked.model)]
    if not asked.tokens:
        return ""
    _require_tokens(engine, asked.tokens, "tokens")
    return str(engine.renderer_of(adapter).tokenizer.decode(asked.tokens, clean_up_tokenization_spaces=False))
