"""The bodies of requests, as OpenAI's API has them, and what LLaMA-Factory and vLLM add to it.

Fields that are not declared here have no effect. They are accepted, since clients send many, and named in the answer's
header (`unknown_fields`); those without which the answer would be another one are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from truetune.serve.api.errors import ApiError

DEEPEST = 64
"""Lists and objects within each other that a body may have; Python's own readers give up at about a thousand."""
MOST_ANSWERS = 128
"""Answers to one request (`n`, or several prompts)."""

_HALF = re.compile("[\ud800-\udfff]")
Finite = Annotated[float, Field(allow_inf_nan=False)]
Penalty = Annotated[Finite, Field(ge=-2, le=2)]


class Body(BaseModel):
    """What every request's body is."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _sound(cls, value: Any) -> Any:
        """Neither deep nor with half characters (`"\\ud800"`), which no tokenizer takes."""
        level = [value]
        for _ in range(DEEPEST):
            level = [item for node in level if isinstance(node, dict | list)
                     for item in (node.values() if isinstance(node, dict) else node)]
            for text in level:
                if isinstance(text, str) and not text.isascii() and _HALF.search(text):
                    raise ValueError("text holds half of a character (a lone surrogate)")
            if not level:
                return value
        raise ValueError(f"more than {DEEPEST} lists and objects within each other")

    def unknown_fields(self, within: str = "") -> Iterator[str]:
        """Fields that have no effect, with their path; those that ask for nothing are not worth a word."""
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in _REFUSED:
                yield f"{within}{name}"
        for name in type(self).model_fields:
            value = getattr(self, name)
            for number, item in enumerate(value if isinstance(value, list) else []):
                if isinstance(item, Body):
                    yield from item.unknown_fields(f"{within}{name}[{number}].")
            if isinstance(value, Body):
                yield from value.unknown_fields(f"{within}{name}.")


class StreamOptions(Body):
    include_usage: bool = False


class Function(Body):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=128)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    type: Literal["function"] = "function"
    function: Function

    def as_dict(self) -> dict[str, Any]:
        """As templates read it: the tool as it was sent, without what says nothing."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


class Named(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"] = "function"
    function: Named


class JsonSchema(Body):
    """An answer's form. The schema always binds, `strict` or not."""

    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormat:
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("json_schema.schema is missing")
        return self


class Message(Body):
    """One turn. content: text, or parts of which those of type text are read."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Generation(Body):
    """What both kinds of completion take."""

    model: str | None = None
    n: int = Field(default=1, ge=1, le=MOST_ANSWERS)
    stop: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(default=[], max_length=16)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    do_sample: bool | None = None
    temperature: Finite | None = Field(default=None, ge=0)
    top_p: Finite | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: Finite | None = Field(default=None, ge=0, le=1)
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Finite | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, ge=1)
    ignore_eos: bool | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [] if value is None else [value] if isinstance(value, str) else value

    @field_validator("n", "stream", mode="before")
    @classmethod
    def _nothing_said(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].default if value is None else value

    def sampling(self) -> dict[str, Any]:
        """What it says of `Sampling`, by the names there."""
        told: dict[str, Any] = {name: getattr(self, name) for name in
                                ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty",
                                 "repetition_penalty", "ignore_eos", "seed") if getattr(self, name) is not None}
        if self.do_sample is False:
            told["temperature"] = 0.0
        if self.top_k is not None:
            told["top_k"] = max(self.top_k, 0)  # vLLM writes "all of them" as -1
        if self.max_tokens is not None:
            told["max_new_tokens"] = self.max_tokens
        return told


class Prompted(Body):
    """What a chat template makes a prompt of."""

    model: str | None = None
    messages: list[Message] = Field(min_length=1)
    tools: list[Tool] = []
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] = {}

    @field_validator("tools", "chat_template_kwargs", mode="before")
    @classmethod
    def _none(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].default if value is None else value


class ChatAsked(Generation, Prompted):
    """The body of /v1/chat/completions."""

    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _fits(self) -> ChatAsked:
        names = [tool.function.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.tool_choice not in (None, "none", "auto") and not names:
            raise ValueError("tool_choice needs tools")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise ValueError(f"tool_choice names {self.tool_choice.function.name!r}, which is none of the tools")
        return self

    def sampling(self) -> dict[str, Any]:
        told = super().sampling()
        if self.max_completion_tokens is not None:  # OpenAI's newer name for it wins
            told["max_new_tokens"] = self.max_completion_tokens
        if self.logprobs:
            told["top_logprobs"] = self.top_logprobs or 0
        form = self.response_format
        if form and form.type != "text":
            told["schema"] = (form.json_schema and form.json_schema.schema_) or {}
        return told


class CompletionAsked(Generation):
    """The body of /v1/completions. prompt: text, or token ids; or several of either."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(default=None, ge=0, le=20)

    def prompts(self) -> list[str] | list[list[int]]:
        """Each of them."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # pyright: ignore[reportReturnType]  (what the first is, all are)
        return self.prompt  # pyright: ignore[reportReturnType]

    def sampling(self) -> dict[str, Any]:
        return super().sampling() | ({} if self.logprobs is None else {"top_logprobs": self.logprobs})


class EmbeddingAsked(Body):
    """The body of /v1/embeddings."""

    model: str | None = None
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"

    def texts(self) -> list[str] | list[list[int]]:
        if isinstance(self.input, str):
            return [self.input]
        if self.input and isinstance(self.input[0], int):
            return [self.input]  # pyright: ignore[reportReturnType]
        return self.input  # pyright: ignore[reportReturnType]


class TokenizeAsked(Prompted):
    """The body of /tokenize, which is vLLM's: a bare text, or a conversation with its tools. add_special_tokens: put
    before a bare text what the tokenizer puts before every text; a template has written all that it wants."""

    messages: list[Message] = []
    prompt: str | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one(self) -> TokenizeAsked:
        if (self.prompt is None) == (not self.messages):
            raise ValueError("either prompt or messages is needed")
        return self


class DetokenizeAsked(Body):
    """The body of /detokenize, which is vLLM's."""

    model: str | None = None
    tokens: list[int]


class ScoreAsked(Body):
    """The body of /v1/score/evaluation, which is LLaMA-Factory's: whole conversations as text, special tokens too."""

    model: str | None = None
    messages: list[str] = Field(min_length=1)
    max_length: int | None = Field(default=None, ge=1)


_OTHERWISE = "the answer would be another one, and this server does not offer it"
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "logit_bias": (({},), _OTHERWISE),
    "echo": ((False,), "the prompt is not repeated"),
    "suffix": (("",), "nothing is filled in between"),
    "best_of": ((1,), "n answers are drawn and n are given"),
    "functions": (([],), "it is tools now"),
    "function_call": (("auto", "none"), "it is tool_choice now"),
    "modalities": ((["text"],), "this server answers in text"),
    "audio": ((), "this server answers in text"),
    "prediction": ((), _OTHERWISE),
    "prompt_logprobs": ((), _OTHERWISE),
    "guided_json": ((), "it is response_format here"),
    "guided_regex": ((), _OTHERWISE),
    "guided_choice": ((), _OTHERWISE),
    "guided_grammar": ((), _OTHERWISE),
    "stop_token_ids": (([],), "stop takes texts"),
    "min_tokens": ((0,), _OTHERWISE),
    "bad_words": (([],), _OTHERWISE),
    "use_beam_search": ((False,), _OTHERWISE),
    "length_penalty": ((1.0,), "it belongs to beam search, which is not offered"),
    "add_generation_prompt": ((True,), _OTHERWISE),
    "continue_final_message": ((False,), _OTHERWISE),
    "chat_template": ((), "the template is the one that was trained"),
    "dimensions": ((), "embeddings have the model's own size"),
}
"""Fields without which the answer would be another one: the values that ask for nothing, and why they are refused."""


def refuse_by_name(body: Body) -> None:
    """Raises:
    ApiError: a field asks for what this server does not do.
    """
    for name, value in (body.model_extra or {}).items():
        harmless, why = _REFUSED.get(name, (None, ""))
        if harmless is not None and value is not None and value not in harmless:
            raise ApiError(400, f"{name} is not offered: {why}.", param=name, code="unsupported_parameter")
