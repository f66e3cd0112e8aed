"""The places that make token ids of a conversation, each asked in the way in which it really does so.

    Trained      the renderer: what the model learned from
    Saved        the tokenizer in a folder, by transformers' `apply_chat_template` (transformers, vLLM, SGLang)
    Gguf         the tokenizer and template in a GGUF file, by llama.cpp
    Ollama       a Modelfile's template, in the tokens of its GGUF file, by llama.cpp
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jinja2 import TemplateError

from truetune.data.messages import BadRow, Conversation, Message, ToolCall
from truetune.data.renderer import Renderer
from truetune.data.template import generation_stops
from truetune.findings import Both, Problem, Words
from truetune.parity.probes import Probe
from truetune.serve.llamacpp import LlamaServer


class Refused(Exception):
    """A place makes no ids of this conversation."""

    def __init__(self, reason: Words):
        super().__init__(str(reason))
        self.reason = reason


class Layer(Protocol):
    """A place that serves."""

    @property
    def name(self) -> str:
        """For people, in both languages alike."""
        ...

    @property
    def may_lack(self) -> bool:
        """Whether it refuses, with words, what its form has no way to write: then nothing wrong is served."""
        ...

    def prompt(self, probe: Probe) -> list[int]:
        """The ids that the model is given before it answers.

        Raises:
            Refused: none are made of this conversation.
        """
        ...

    def stops(self) -> frozenset[int] | None:
        """The tokens that end an answer; None: nobody can say."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens written out."""
        ...


class Truth(Layer, Protocol):
    """A place that others are held to."""

    @property
    def bos(self) -> int | None:
        """The beginning-of-text token, where it is known."""
        ...

    @property
    def composes(self) -> bool:
        """Whether letters and their accents become one letter before anything else: "e" and U+0301 as "é"."""
        ...

    @property
    def specials(self) -> Sequence[str]:
        """Special tokens, those that end an answer first: what somebody would type to break out."""
        ...

    def parsed(self, ids: Sequence[int]) -> list[int]:
        """`ids` as a place makes them that is given text: what looks like a special token is one."""
        ...

    def inside_answers(self) -> frozenset[int]:
        """Ids that stand in an answer before its end: text, a call, a thought. Nothing may end there."""
        ...


@dataclass(frozen=True)
class Trained:
    """The renderer that a model was trained with. Training refuses what its template would leave out unseen (tools,
    where it knows none), and so does this."""

    renderer: Renderer
    name: str = "training"
    may_lack: bool = False

    def prompt(self, probe: Probe) -> list[int]:
        if not self.renderer.tokenizer.chat_template:
            raise Refused(Both("there is no chat template: it is a base model", "没有对话模板：它是 base 模型"))
        if probe.values and not self._switches:
            raise Refused(Both("the template cannot be switched so", "模板不支持这个开关"))
        if not probe.injected:  # else ids only: an answer to it is not looked for
            (row,) = self.renderer.render([_conversation(probe)])
            if isinstance(row, BadRow) and not probe.values:
                raise Refused(row.reason)
        try:
            return self.renderer.prompt(probe.messages, probe.tools, **probe.values)
        except Problem as error:
            raise Refused(error.findings[0].message) from None

    @property
    def _switches(self) -> bool:
        """Whether enable_thinking changes anything."""
        talk = [{"role": "user", "content": "Hi"}]
        on, off = (self.renderer.prompt(talk, enable_thinking=value) for value in (True, False))
        return on != off

    def stops(self) -> frozenset[int]:
        return frozenset(self.renderer.stop_ids())

    def text(self, ids: Sequence[int]) -> str:
        return _decoded(self.renderer.tokenizer, ids)

    @property
    def bos(self) -> int | None:
        token: Any = self.renderer.tokenizer.bos_token_id
        return token

    @property
    def composes(self) -> bool:
        apart, whole = (self.renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
                        for text in ("e\u0301", "é"))
        return apart == whole

    @property
    def specials(self) -> list[str]:
        tokens = self.renderer.tokenizer.added_tokens_decoder
        ends = [tokens[stop].content for stop in self.renderer.stop_ids() if stop in tokens]
        return [*ends, *(token.content for token in tokens.values() if token.special and token.content not in ends)]

    def parsed(self, ids: Sequence[int]) -> list[int]:
        tokenizer: Any = self.renderer.tokenizer
        return tokenizer(self.text(ids), add_special_tokens=False)["input_ids"]

    def inside_answers(self) -> frozenset[int]:
        if not self.renderer.tokenizer.chat_template:
            return frozenset()
        talks = (
            (Message("user", "Hi"), Message("assistant", "Hello, 你好 1+1=2.\n\n```\nx\n```")),
            (Message("user", "Hi"), Message("assistant", "Yes.", reasoning="I think so.")),
            (Message("user", "Hi"), Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Paris"}),))),
        )
        inside: set[int] = set()
        for row in self.renderer.render([Conversation(talk) for talk in talks]):
            for sequence in () if isinstance(row, BadRow) else row:
                for run in sequence.runs:
                    inside |= set(sequence.ids[run.first : run.last - 1].tolist())
        return frozenset(inside)


class Saved:
    """The tokenizer in `folder`, as any server calls it that reads Hugging Face's format."""

    def __init__(self, folder: Path, name: str = "transformers"):
        from transformers import AutoTokenizer

        self.folder, self.name, self.may_lack = folder, name, False
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def prompt(self, probe: Probe) -> list[int]:
        try:
            found = self.tokenizer.apply_chat_template(
                list(probe.messages), tools=list(probe.tools) or None, add_generation_prompt=True, tokenize=True,
                return_dict=True, **probe.values)
        except (TemplateError, TypeError, ValueError) as error:
            raise Refused(str(error)) from None
        return list(found["input_ids"])

    def stops(self) -> frozenset[int]:
        return frozenset(generation_stops(self.folder))

    def text(self, ids: Sequence[int]) -> str:
        return _decoded(self.tokenizer, ids)


@dataclass(frozen=True)
class First:
    """The first of two places neither of which was trained with: the other has to do as it does."""

    layer: Layer
    bos: int | None = None
    composes: bool = False
    specials: Sequence[str] = ("<|im_end|>", "</s>", "<|eot_id|>")
    may_lack: bool = False

    @property
    def name(self) -> str:
        return self.layer.name

    def prompt(self, probe: Probe) -> list[int]:
        return self.layer.prompt(probe)

    def stops(self) -> frozenset[int] | None:
        return self.layer.stops()

    def text(self, ids: Sequence[int]) -> str:
        return self.layer.text(ids)

    def parsed(self, ids: Sequence[int]) -> list[int]:
        return list(ids)

    def inside_answers(self) -> frozenset[int]:
        return frozenset()


@dataclass(frozen=True)
class Gguf:
    """A GGUF file in llama.cpp. Its server renders the file's template, takes away a beginning-of-text token that the
    template wrote and the file asks for as well, and tokenises the text with what the file puts before every text."""

    engine: LlamaServer
    name: str = "llama.cpp"
    may_lack: bool = False

    def prompt(self, probe: Probe) -> list[int]:
        try:
            text = self.engine.render(arguments_as_text(probe.messages), probe.tools, **probe.values)
        except Problem as error:
            raise Refused(error.findings[0].message) from None
        return self.engine.tokenize(text, opening=True)

    def stops(self) -> frozenset[int]:
        return frozenset(self.engine.ends())

    def text(self, ids: Sequence[int]) -> str:
        return self.engine.detokenize(ids)


@dataclass(frozen=True)
class Ollama:
    """A Modelfile over a GGUF file. Ollama renders its Go template and hands the text to llama.cpp, which tokenises it
    with what the file puts before every text.

    Attributes:
        form: what the Modelfile says. engine: llama.cpp with its GGUF file.
    """

    form: Form
    engine: LlamaServer
    name: str = "ollama"
    may_lack: bool = True

    def prompt(self, probe: Probe) -> list[int]:
        try:
            text = self.form.prompt(probe.messages, probe.tools, probe.values.get("enable_thinking"))
        except Problem as error:
            raise Refused(error.findings[0].message) from None
        return self.engine.tokenize(text, opening=True)

    def stops(self) -> frozenset[int]:
        """The stop words as tokens. A word of several tokens ends an answer by its text, and none of its tokens
        does."""
        words = [self.engine.tokenize(word) for word in self.form.stops]
        return frozenset(ids[0] for ids in words if len(ids) == 1)

    def text(self, ids: Sequence[int]) -> str:
        return self.engine.detokenize(ids)


class Form(Protocol):
    """What a Modelfile says (`export.ollama`)."""

    @property
    def stops(self) -> Sequence[str]: ...

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (),
               think: bool | None = None) -> str: ...


def arguments_as_text(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as OpenAI's clients send them: the arguments of a call are JSON in a string."""

    def written(call: Mapping[str, Any]) -> dict[str, Any]:
        function = call["function"]
        return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}

    return [{**message, "tool_calls": [written(call) for call in message["tool_calls"]]}
            if "tool_calls" in message else dict(message) for message in messages]


def _conversation(probe: Probe) -> Conversation:
    """A probe with an answer, as training reads it."""
    messages = [Message(message["role"], message["content"], tool_calls=tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())))
        for message in probe.messages]
    return Conversation((*messages, Message("assistant", "Yes.")), tuple(probe.tools))


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
