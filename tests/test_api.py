"""The API: OpenAI's own client over a real server, and clients that are not so well-behaved.

The model is a very small one that was taught a handful of conversations by heart, so that what it answers is known:
calls of tools, thoughts, and letters of several tokens.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import openai
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from truetune.cli import main
from truetune.data.messages import Conversation, Message, ToolCall
from truetune.data.renderer import Renderer
from truetune.data.template import make_renderer, settle_template
from truetune.data.tools import TOOL_FORMATS
from truetune.findings import Problem
from truetune.model.find import load_tokenizer
from truetune.model.load import load_model
from truetune.options import Config
from truetune.options.read import read_config
from truetune.serve.api.calls import PROBE, AnswerReader, Part, Speech, speech_of
from truetune.serve.api.errors import ApiError
from truetune.serve.api.key import own_host, settle_key
from truetune.serve.api.messages import as_turns, template_values
from truetune.serve.api.plan import Served
from truetune.serve.api.schemas import ChatAsked, CompletionAsked
from truetune.serve.api.schemas import Message as Asked
from truetune.serve.api.server import load, make_server, serve

KEY = "a key of the tests"
CPU = torch.device("cpu")


def ignore(words: object) -> None:
    """A `Say` that nobody hears."""


# ---------------------------------------------------------------------------------------------------------------------
# A model that was taught by heart

WEATHER: dict[str, Any] = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}, "required": ["city"],
        "additionalProperties": False}}}
CLOCK: dict[str, Any] = {"type": "function", "function": {
    "name": "get_time", "description": "The time.", "parameters": {"type": "object", "properties": {},
                                                                 "additionalProperties": False}}}
PARIS, ROME = ({"city": city} for city in ("Paris", "Rome"))


def _called(*arguments: Mapping[str, Any], text: str = "") -> Message:
    return Message("assistant", text, None, tuple(ToolCall("get_weather", one) for one in arguments))


BOTH = (Message("user", "Paris and Rome?"), _called(PARIS, ROME))
LESSONS = (
    Conversation((Message("user", "Weather in Paris?"), _called(PARIS, text="I will look.")), (WEATHER,)),
    Conversation((*BOTH, Message("tool", "sunny"), Message("tool", "rainy"), Message("assistant", "Sun, then rain.")),
                 (WEATHER,)),
    Conversation((Message("user", "Say hello."), Message("assistant", "Hello! 你好 🙂"))),
    Conversation((Message("user", "One and one?"), Message("assistant", "Two.", "I add."))),
)


@pytest.fixture(scope="module")
def taught(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It is trained on the tokens of its lessons alone, which takes seconds; all others come to stand at zero."""
    folder = tmp_path_factory.mktemp("taught")
    tokenizer, config = load_tokenizer(tiny), Config(template="qwen3")
    settle_template(tokenizer, config)
    rendered = make_renderer(tokenizer, tiny, config).render(LESSONS)
    rows = [row for sequences in rendered if isinstance(sequences, tuple) for row in sequences]
    used = sorted({int(token) for row in rows for token in row.ids})
    small = _untaught(len(used))
    _teach(small, [(torch.tensor([[used.index(token) for token in row.ids.tolist()]]), torch.tensor(row.weights) > 0)
                   for row in rows])
    model = _untaught(len(tokenizer))
    weights = small.state_dict()
    for name, weight in model.state_dict().items():
        if weight.shape == weights[name].shape:
            weight.copy_(weights[name])
        else:
            weight.zero_()[used] = weights[name]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _untaught(size: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=size, hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2))


def _teach(model: LlamaForCausalLM, rows: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(300):
        losses = torch.cat([torch.nn.functional.cross_entropy(
            model(input_ids=ids).logits[0, :-1][learned[1:]], ids[0, 1:][learned[1:]], reduction="none")
            for ids, learned in rows])
        if float(losses.detach().max()) < 0.1:
            return
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError("the lessons were not learned")


# ---------------------------------------------------------------------------------------------------------------------
# Servers

class Api(NamedTuple):
    """A running server."""

    port: int
    served: Served

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=KEY, max_retries=0, timeout=30)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, headers, and the body, as JSON where it is some."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"} | \
            {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {name: value for name, value in sent.items() if value})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, json.loads(text) if text.startswith("{") else text

    def post(self, path: str, **body: Any) -> tuple[int, Any, Any]:
        return self.send("POST", path, json.dumps(body).encode())

    def metric(self, name: str) -> float:
        """A number of /metrics."""
        page = self.send("GET", "/metrics")[2]
        return next(float(line.split()[-1]) for line in page.splitlines() if line.split()[0].partition("{")[0] == name)


@contextmanager
def running(model: Path, patience: float = 30.0, **more: object) -> Iterator[Api]:
    """A server in a thread."""
    config, findings = read_config([f"--{name}={value}" for name, value in
                                    {"model_name_or_path": model, "do_sample": "false", **more}.items()])
    assert not findings
    served = load(config, ignore)
    with socket.create_server(("127.0.0.1", 0)) as port:
        number = port.getsockname()[1]
        server = make_server(config, served, KEY, patience)
        thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[port])))
        thread.start()
        try:
            yield Api(number, served)
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(20)
            if served.engine:
                served.engine.close()
            server.streams.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def adapter(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that says something else."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    model: Any = get_peft_model(load_model(taught, torch.float32, CPU), LoraConfig(
        task_type="CAUSAL_LM", target_modules=["down_proj"], init_lora_weights=False, lora_alpha=256))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def api(taught: Path, adapter: Path) -> Iterator[Api]:
    with running(taught, infer_adapters=json.dumps({"other": str(adapter)}), api_model_name="taught",
                 max_new_tokens=96) as api:
        yield api


def ask(api: Api, question: str | Sequence[Mapping[str, Any]], **more: Any) -> Any:
    """The official client's answer to a question or to messages."""
    messages: Any = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return api.client.chat.completions.create(**{"model": "taught", "messages": messages, **more})


def streamed(api: Api, question: Any, **more: Any) -> tuple[dict[str, Any], list[Any]]:
    """What a stream says put together as a client does it, and its chunks."""
    chunks = list(ask(api, question, stream=True, **more))
    whole: dict[str, Any] = {"content": "", "thought": "", "calls": [], "finish": None}
    for choice in (chunk.choices[0] for chunk in chunks if chunk.choices):
        whole["content"] += choice.delta.content or ""
        whole["thought"] += getattr(choice.delta, "reasoning_content", None) or ""
        for call in choice.delta.tool_calls or ():
            if call.id:
                assert call.index == len(whole["calls"]) and call.type == "function"
                whole["calls"].append([call.function.name, ""])
            whole["calls"][call.index][1] += call.function.arguments or ""
        whole["finish"] = choice.finish_reason or whole["finish"]
    return whole, chunks


# ---------------------------------------------------------------------------------------------------------------------
# Answers, by the official client

def test_models_are_the_base_and_each_adapter(api: Api) -> None:
    assert [model.id for model in api.client.models.list()] == ["taught", "other"]
    assert api.client.models.retrieve("other").object == "model"
    assert ask(api, "Say hello.").choices[0].message.content == "Hello! 你好 🙂"
    assert ask(api, "Say hello.", model="other").choices[0].message.content != "Hello! 你好 🙂"
    assert ask(api, "Say hello.").choices[0].message.content == "Hello! 你好 🙂"


def test_an_answer_whole_and_streamed(api: Api) -> None:
    """The same text; letters are never cut in two; usage counts the tokens of the prompt that the renderer makes."""
    whole = ask(api, "Say hello.")
    assert whole.object == "chat.completion" and whole.choices[0].finish_reason == "stop" and whole.model == "taught"
    assert api.served.engine
    prompt = api.served.engine.prompt([{"role": "user", "content": "Say hello."}])
    assert whole.usage.prompt_tokens == len(prompt)
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    said, chunks = streamed(api, "Say hello.", stream_options={"include_usage": True})
    assert said == {"content": "Hello! 你好 🙂", "thought": "", "calls": [], "finish": "stop"}
    assert chunks[0].choices[0].delta.role == "assistant" and "\ufffd" not in str(chunks)
    assert not chunks[-1].choices and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1]) and len({chunk.id for chunk in chunks}) == 1
    assert streamed(api, "Say hello.")[1][-1].choices[0].finish_reason == "stop"  # usage only where it is asked for


def test_a_thought_is_told_apart(api: Api) -> None:
    """As reasoning_content; an empty one not at all; and where thinking is switched off the prompt closes it."""
    message = ask(api, "One and one?").choices[0].message
    assert (message.content, message.reasoning_content) == ("Two.", "I add.")
    said, _ = streamed(api, "One and one?")
    assert (said["content"], said["thought"]) == ("Two.", "I add.")
    assert "reasoning_content" not in ask(api, "Say hello.").choices[0].message.model_dump()
    off = ask(api, "One and one?", extra_body={"enable_thinking": False})
    same = ask(api, "One and one?", extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert off.usage.prompt_tokens == same.usage.prompt_tokens > ask(api, "One and one?").usage.prompt_tokens


def test_tools_are_called(api: Api) -> None:
    """With text before the call, and several in parallel; streamed with index, id, name and arguments; and the results
    are read."""
    (choice,) = ask(api, "Weather in Paris?", tools=[WEATHER]).choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content == "I will look."
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == ("function", "get_weather", PARIS)
    assert streamed(api, "Weather in Paris?", tools=[WEATHER])[0] == {
        "content": "I will look.", "thought": "", "calls": [["get_weather", '{"city": "Paris"}']],
        "finish": "tool_calls"}

    both = ask(api, "Paris and Rome?", tools=[WEATHER]).choices[0].message
    assert [json.loads(call.function.arguments) for call in both.tool_calls] == [PARIS, ROME] and both.content is None
    assert len({call.id for call in both.tool_calls}) == 2
    said, _ = streamed(api, "Paris and Rome?", tools=[WEATHER])
    assert said["calls"] == [["get_weather", json.dumps(city)] for city in (PARIS, ROME)]
    one, _ = streamed(api, "Paris and Rome?", tools=[WEATHER], parallel_tool_calls=False)
    assert one["calls"] == [["get_weather", json.dumps(PARIS)]] and one["finish"] == "tool_calls"

    results = [{"role": "tool", "tool_call_id": call.id, "content": said}
               for call, said in zip(both.tool_calls, ("sunny", "rainy"), strict=True)]
    talk = [{"role": "user", "content": "Paris and Rome?"}, both.model_dump(exclude_none=True), *results]
    assert ask(api, talk, tools=[WEATHER]).choices[0].message.content == "Sun, then rain."


def test_tool_choice(api: Api) -> None:
    """none: tools are not offered. A named one, or `required`: it is called, with arguments that its schema allows,
    whatever was asked."""
    assert ask(api, "Say hello.", tools=[WEATHER], tool_choice="none").usage.prompt_tokens == \
        ask(api, "Say hello.").usage.prompt_tokens
    named = {"type": "function", "function": {"name": "get_weather"}}
    (choice,) = ask(api, "Say hello.", tools=[CLOCK, WEATHER], tool_choice=named).choices
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) in (PARIS, ROME)
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    said, chunks = streamed(api, "Say hello.", tools=[CLOCK, WEATHER], tool_choice="required")
    ((name, arguments),) = said["calls"]
    assert json.loads(arguments) in ([PARIS, ROME] if name == "get_weather" else [{}]) and len(chunks) > 4


def test_answers_of_a_given_form(api: Api) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}},
              "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema, "strict": True}}
    number = json.loads(ask(api, "One and one?", response_format=form).choices[0].message.content)
    assert list(number) == ["n"] and 1 <= number["n"] <= 9
    said, _ = streamed(api, "One and one?", response_format=form)
    assert 1 <= json.loads(said["content"])["n"] <= 9 and not said["thought"]
    some = ask(api, "Say hello.", response_format={"type": "json_object"}, max_tokens=40).choices[0]
    assert some.message.content.lstrip().startswith("{")


def test_several_answers_seeds_and_stops(api: Api) -> None:
    """n answers differ by their seeds and are the same again; streamed they come side by side. A stop text ends an
    answer and is not part of it; so does the limit."""
    draw: dict[str, Any] = {"n": 3, "seed": 5, "temperature": 8.0, "top_p": 1, "max_tokens": 8}
    draw["extra_body"] = {"do_sample": True, "top_k": 40}
    texts, again = ([choice.message.content for choice in ask(api, "Say hello.", **draw).choices] for _ in range(2))
    assert len(set(texts)) == 3 and again == texts
    together = ["", "", ""]
    for chunk in ask(api, "Say hello.", stream=True, **draw):
        for choice in chunk.choices:
            together[choice.index] += choice.delta.content or ""
    assert together == texts
    (stopped,) = ask(api, "Say hello.", stop="!").choices
    assert (stopped.message.content, stopped.finish_reason) == ("Hello", "stop")
    (cut,) = ask(api, "Say hello.", max_completion_tokens=8, extra_body={"enable_thinking": False}).choices
    assert cut.finish_reason == "length" and ask(api, "Say hello.", max_tokens=8).usage.completion_tokens == 8


def test_log_probabilities_are_the_models_own(api: Api) -> None:
    """Of every token that was said, as transformers computes them over prompt and answer."""
    assert api.served.engine
    engine, question = api.served.engine, [{"role": "user", "content": "Say hello."}]
    told = ask(api, "Say hello.", logprobs=True, top_logprobs=2).choices[0].logprobs.content
    text = "".join(token.token for token in told if token.bytes)
    assert "Hello!" in text and all(len(token.top_logprobs) == 2 for token in told)
    halves = [token for token in told if "\ufffd" in token.token]
    assert halves and all(token.bytes is None for token in halves)
    prompt = engine.prompt(question)
    answer = engine.tokenizer.encode("<think>\n\n</think>\n\nHello! 你好 🙂", add_special_tokens=False)
    model = load_model(Path(engine.model.config._name_or_path), torch.float32, CPU)
    with torch.inference_mode():
        logp = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    theirs = [float(logp[len(prompt) - 1 + place, token]) for place, token in enumerate(answer)]
    assert [token.logprob for token in told] == pytest.approx(theirs, abs=1e-3)
    chunks = streamed(api, "Say hello.", logprobs=True)[1]
    again = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [token.logprob for token in again] == pytest.approx(theirs, abs=1e-3)


def test_plain_completions(api: Api) -> None:
    """Text, ids, or several of them; special tokens in the text are special, so a rendered prompt is answered as chat
    answers it."""
    assert api.served.engine
    engine, create = api.served.engine, api.client.completions.create
    ids = engine.prompt([{"role": "user", "content": "Say hello."}])
    text = str(engine.tokenizer.decode(ids))
    assert create(model="taught", prompt=ids, max_tokens=40).choices[0].text == "<think>\n\n</think>\n\nHello! 你好 🙂"
    answer = create(model="taught", prompt=[text, text], logprobs=1, max_tokens=40)
    assert [choice.text for choice in answer.choices] == ["<think>\n\n</think>\n\nHello! 你好 🙂"] * 2
    assert answer.usage and answer.usage.prompt_tokens == 2 * len(ids) and answer.object == "text_completion"
    logprobs: Any = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    assert all(len(top) == 1 for top in logprobs.top_logprobs) and logprobs.text_offset[1] == len(logprobs.tokens[0])
    pieces = [chunk.choices[0].text for chunk in create(model="taught", prompt=text, stream=True) if chunk.choices]
    assert "".join(pieces) == answer.choices[0].text and len(pieces) > 5


def test_embeddings(api: Api) -> None:
    """The mean of the last hidden states at length 1, alone or among others, as numbers or in base64; an adapter's are
    other ones."""
    assert api.served.engine
    engine = api.served.engine
    texts = ["Say hello.", "你好 " * 40, "One"]
    ids = engine.encode(texts[0])
    vectors = np.array([one.embedding for one in api.client.embeddings.create(model="taught", input=texts).data])
    model: Any = load_model(Path(engine.model.config._name_or_path), torch.float32, CPU)
    with torch.inference_mode():
        mean = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(vectors[0], torch.nn.functional.normalize(mean, dim=0).numpy(), atol=1e-5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    _, _, raw = api.post("/v1/embeddings", model="taught", input=ids, encoding_format="base64")
    np.testing.assert_allclose(np.frombuffer(b64decode(raw["data"][0]["embedding"]), "<f4"), vectors[0], atol=1e-6)
    assert raw["usage"] == {"prompt_tokens": len(ids), "total_tokens": len(ids)}
    other = api.client.embeddings.create(model="other", input=texts[0]).data[0].embedding
    assert float(np.dot(other, vectors[0])) < 0.999


# ---------------------------------------------------------------------------------------------------------------------
# Requests that are not answered

HELLO = [{"role": "user", "content": "Say hello."}]


def _image(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


@pytest.mark.parametrize(("body", "status", "code", "param"), [
    ({"model": "gpt-4", "messages": HELLO}, 404, "model_not_found", "model"),
    ({"messages": []}, 400, "invalid_value", "messages"),
    ({}, 400, "invalid_value", "messages"),
    ({"messages": HELLO, "temperature": -1}, 400, "invalid_value", "temperature"),
    ({"messages": HELLO, "temperature": "hot"}, 400, "invalid_value", "temperature"),
    ({"messages": HELLO, "temperature": float("nan")}, 400, "invalid_value", "temperature"),
    ({"messages": HELLO, "max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"messages": HELLO, "n": 1000}, 400, "invalid_value", "n"),
    ({"messages": HELLO, "top_logprobs": 3}, 400, "invalid_value", None),
    ({"messages": HELLO, "logit_bias": {"1": 5}}, 400, "unsupported_parameter", "logit_bias"),
    ({"messages": HELLO, "functions": [{"name": "f"}]}, 400, "unsupported_parameter", "functions"),
    ({"messages": HELLO, "chat_template": "{{ 1 }}"}, 400, "unsupported_parameter", "chat_template"),
    ({"messages": HELLO, "chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, 400, None,
     "chat_template_kwargs.chat_template"),
    ({"messages": HELLO, "tool_choice": "required"}, 400, "invalid_value", None),
    ({"messages": HELLO, "response_format": {"type": "json_schema"}}, 400, "invalid_value", "response_format"),
    ({"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "dog"}}}}, 400,
     "invalid_schema", "response_format"),
    ({"messages": [{"role": "user", "content": "word " * 2000}]}, 400, "context_length_exceeded", "messages"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, 400, None,
     "messages[0].tool_calls[0].function.arguments"),
    (_image("http://127.0.0.1:1/private"), 400, "unsupported_content", "messages[0].content[0]"),
    (_image("http://169.254.169.254/latest/meta-data"), 400, "unsupported_content", "messages[0].content[0]"),
    (_image("file:///etc/passwd"), 400, "unsupported_content", "messages[0].content[0]"),
])
def test_what_is_wrong_is_said_in_openais_form(api: Api, body: dict[str, Any], status: int, code: str, param: str):
    found, _, told = api.post("/v1/chat/completions", **{"model": "taught", **body})
    error = told["error"]
    assert (found, error["code"], error["param"]) == (status, code, param), error
    assert error["message"] and error["type"] in ("invalid_request_error", "not_found_error")


@pytest.mark.parametrize(("path", "body", "param"), [
    ("/v1/completions", {"prompt": "a", "echo": True}, "echo"),
    ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("/v1/completions", {"prompt": [[99999999]]}, "prompt"),
    ("/v1/completions", {"prompt": []}, "prompt"),
    ("/v1/completions", {"prompt": ["a"] * 100, "n": 2}, "n"),
    ("/v1/embeddings", {"input": "word " * 2000}, "input"),
    ("/v1/embeddings", {"input": "a", "dimensions": 8}, "dimensions"),
])
def test_other_paths_refuse_by_name_too(api: Api, path: str, body: dict[str, Any], param: str) -> None:
    status, _, told = api.post(path, **body)
    assert (status, told["error"]["param"]) == (400, param)


def test_the_client_raises_its_own_errors(api: Api) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(api, "Hi", model="gpt-4")
    with pytest.raises(openai.AuthenticationError):
        api.client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError, match=r"The prompt has 2,0\d\d tokens"):
        ask(api, "word " * 2000)


@pytest.mark.parametrize("body", [
    b"", b"{", b"\xff\xfe{}", b"[]", b"null", b"[" * 100_000, 
    b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "a": ' + b"[" * 90 + b"]" * 90 + b"}",
    b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}'])
def test_malformed_bodies(api: Api, body: bytes) -> None:
    status, _, told = api.send("POST", "/v1/chat/completions", body)
    assert status == 400 and told["error"]["type"] == "invalid_request_error"


def test_fields_without_effect_are_named(api: Api) -> None:
    """In a header, with their path; those that say nothing are not."""
    body = {"messages": [{"role": "user", "content": "Say hello.", "colour": 1}], "user": "me", "mirostat": 2,
            "store": None, "logit_bias": {}, "chat_template_kwargs": {"dialect": "x"}, "a\r\nSet-Cookie: b": 1}
    status, headers, _ = api.post("/v1/chat/completions", **body)
    named = headers["X-Truetune-Unknown-Fields"].split(", ")
    assert status == 200 and "Set-Cookie" not in headers
    assert named == ["user", "mirostat", "a??Set-Cookie:?b", "messages[0].colour", "chat_template_kwargs.dialect"]
    tool = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    _, headers, _ = api.post("/v1/chat/completions", messages=HELLO, tools=[tool], stream=True)
    assert "tools[0].function.strict" in headers["X-Truetune-Unknown-Fields"]
    assert "X-Truetune-Unknown-Fields" not in api.post("/v1/chat/completions", messages=HELLO)[1]


def test_who_may_come_in(api: Api) -> None:
    """A key for everything but /health; by no other name than this machine's; no pages of other sites; no docs."""
    assert api.send("GET", "/health", Authorization="")[::2] == (200, {"status": "ok"})
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing"):
        status, headers, told = api.send("GET", path, Authorization="")
        assert status == 401 and told["error"]["code"] == "invalid_api_key" and headers["WWW-Authenticate"] == "Bearer"
    assert api.send("GET", "/v1/models", Authorization=f"Basic {KEY}")[0] == 401
    assert api.send("GET", "/docs")[0] == 404
    assert api.send("GET", "/health", Host="evil.example")[0] == 403
    assert api.send("GET", "/v1/models", Host=f"localhost:{api.port}")[0] == 200
    _, headers, _ = api.send("OPTIONS", "/v1/models", Origin="http://evil.example")
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert api.send("GET", "/v1/chat/completions")[0] == 405
    assert api.post("/v1/score/evaluation", model="m", messages=["a"])[0] == 405


@pytest.mark.parametrize(("header", "bound", "own"), [
    ("127.0.0.1:8000", "127.0.0.1", True), ("localhost", "127.0.0.1", True), ("[::1]:80", "::1", True),
    ("evil.example", "127.0.0.1", False), ("127.0.0.1.evil.example:80", "127.0.0.1", False), ("", "127.0.0.1", False)])
def test_hosts(header: str, bound: str, own: bool) -> None:
    assert own_host(header, bound) is own


# ---------------------------------------------------------------------------------------------------------------------
# Too much, too slow, gone

@pytest.fixture(scope="module")
def narrow(taught: Path) -> Iterator[Api]:
    """One place, one in the queue, three seconds, ten kilobytes, and half a second for a body."""
    with running(taught, 0.5, infer_batch=1, api_queue=1, api_timeout=3, api_max_body=0.01) as api:
        yield api


ENDLESS = {"messages": HELLO, "max_tokens": 900, "ignore_eos": True, "stream": True}
"""Takes long."""


def begin(api: Api, body: Mapping[str, Any], path: str = "/v1/chat/completions") -> socket.socket:
    """Send a request and read nothing."""
    text = json.dumps(body).encode()
    line = socket.create_connection(("127.0.0.1", api.port), timeout=20)
    line.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
                 f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
    return line


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_frees_the_place_and_who_waits_gets_it(narrow: Api, stream: bool) -> None:
    """One is answered, one waits, the third is told to come back. When the first leaves, the second is answered; one
    that leaves while it waits is forgotten."""
    with begin(narrow, {**ENDLESS, "stream": stream}):
        until(lambda: narrow.metric("truetune_running") == 1)
        with begin(narrow, ENDLESS):
            until(lambda: narrow.metric("truetune_waiting") == 1)
            status, headers, told = narrow.post("/v1/chat/completions", messages=HELLO)
            assert (status, told["error"]["type"]) == (429, "rate_limit_error") and int(headers["Retry-After"]) >= 1
            assert narrow.post("/v1/chat/completions", messages=HELLO, n=2, stream=True)[0] == 429
        until(lambda: narrow.metric("truetune_waiting") == 0)
        assert narrow.metric("truetune_running") == 1
    until(lambda: narrow.metric("truetune_running") == 0)
    _, _, told = narrow.post("/v1/chat/completions", messages=HELLO)
    assert told["choices"][0]["message"]["content"] == "Hello! 你好 🙂"
    assert narrow.post("/v1/chat/completions", messages=HELLO, n=3)[2]["error"]["param"] == "n"  # there is never room
    assert narrow.metric("truetune_disconnects_total") >= 2


def test_time_is_limited(taught: Path, narrow: Api) -> None:
    """504, or where the stream has begun an error as its last event; the place is free again."""
    assert narrow.served.engine
    with running(taught, api_timeout=0.3) as hasty:
        status, _, told = hasty.post("/v1/chat/completions", **{**ENDLESS, "stream": False})
        assert (status, told["error"]["code"]) == (504, "timeout")
        _, _, stream = hasty.post("/v1/chat/completions", **ENDLESS)
        last = json.loads(stream.strip().splitlines()[-1].removeprefix("data: "))
        assert last["error"]["code"] == "timeout" and "[DONE]" not in stream
        until(lambda: hasty.metric("truetune_running") == 0)
        with pytest.raises(openai.APIError, match="No whole answer"):
            streamed(hasty, "Say hello.", model=next(iter(hasty.served.names)), max_tokens=900,
                     extra_body={"ignore_eos": True})


def test_bodies_are_limited(narrow: Api) -> None:
    """By what they say and by what they are, before anything is parsed; and they have to come."""
    assert narrow.send("POST", "/v1/chat/completions", b"x" * 10_001)[0] == 413
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=10) as line:
        line.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n".encode() + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 4
                     + b"0\r\n\r\n")
        assert b" 413 " in line.recv(4096)
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=10) as line:
        line.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
                     "Content-Length: 100\r\n\r\n{".encode())
        assert b" 408 " in line.recv(4096)


def test_two_hundred_rude_clients_leave_nothing_behind(api: Api) -> None:
    """Malformed bodies, half requests, prompts that are too long, clients that leave at any moment: afterwards nothing
    is running or waiting, and the server answers as before."""
    dice, long = random.Random(0), json.dumps({"messages": [{"role": "user", "content": "a " * 3000}]}).encode()
    kinds = [
        lambda line: line.sendall(bytes(dice.randrange(256) for _ in range(dice.randrange(200)))),
        lambda line: line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"),
        lambda line: line.sendall(_request(dice.choice([b"{", b"[]", b"\xff", b'{"messages": 3}']))),
        lambda line: line.sendall(_request(json.dumps({"messages": HELLO}).encode())[: dice.randrange(40, 300)]),
        lambda line: line.sendall(_request(json.dumps({**ENDLESS, "n": dice.randrange(1, 4)}).encode())),
        lambda line: line.sendall(_request(json.dumps({**ENDLESS, "stream": False}).encode())),
        lambda line: line.sendall(_request(long)),
    ]
    for number in range(200):
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as line:
            kinds[number % len(kinds)](line)
            if dice.random() < 0.3:
                line.settimeout(0.05)
                with suppress(OSError):
                    line.recv(100)
    until(lambda: api.metric("truetune_running") == api.metric("truetune_waiting") == 0, 20)
    assert ask(api, "Say hello.").choices[0].message.content == "Hello! 你好 🙂"
    tokens = api.metric("truetune_answer_tokens_total")
    time.sleep(0.2)
    assert api.metric("truetune_answer_tokens_total") == tokens  # nobody is being written for


def _request(body: bytes) -> bytes:
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def test_what_is_counted(api: Api) -> None:
    before = {name: api.metric(f"truetune_{name}") for name in ("prompt_tokens_total", "answer_tokens_total",
                                                                "first_token_seconds_count")}
    usage = ask(api, "Say hello.").usage
    assert api.metric("truetune_prompt_tokens_total") == before["prompt_tokens_total"] + usage.prompt_tokens
    assert api.metric("truetune_answer_tokens_total") == before["answer_tokens_total"] + usage.completion_tokens
    assert api.metric("truetune_first_token_seconds_count") == before["first_token_seconds_count"] + 1
    page = api.send("GET", "/metrics")[2]
    assert 'truetune_requests_total{path="/v1/chat/completions",status="200"}' in page


# ---------------------------------------------------------------------------------------------------------------------
# Reward models

def test_a_reward_model_scores_and_does_not_answer(taught: Path, tmp_path: Path) -> None:
    """The value head at the last token of each text, as it is; LLaMA-Factory's form of request and answer."""
    import shutil

    from truetune.model.value import write_value_head

    folder = tmp_path / "reward"
    shutil.copytree(taught, folder)
    torch.manual_seed(2)
    weight, bias = torch.randn(1, 96), torch.tensor([0.25])
    write_value_head(folder, {"v_head.summary.weight": weight, "v_head.summary.bias": bias})
    texts = ["<|im_start|>user\nSay hello.<|im_end|>\n", "Hello! 你好", "One"]
    tokenizer, model = load_tokenizer(folder), load_model(folder, torch.float32, CPU)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    with torch.inference_mode():
        last = [model.model(input_ids=torch.tensor([row])).last_hidden_state[0, -1] for row in ids]
    with running(folder) as api:
        status, _, told = api.post("/v1/score/evaluation", model="any", messages=texts)
        assert status == 200 and told["object"] == "score.evaluation" and told["model"] == "any"
        assert told["scores"] == pytest.approx([float(weight @ state + bias) for state in last], abs=1e-4)
        _, _, cut = api.post("/v1/score/evaluation", model="any", messages=texts[:1], max_length=1)
        assert cut["scores"] != told["scores"][:1]
        assert api.post("/v1/score/evaluation", model="any", messages=["word " * 2000])[0] == 400
        assert api.post("/v1/chat/completions", messages=HELLO)[0] == 405
        assert api.post("/v1/embeddings", input="a")[0] == 405


# ---------------------------------------------------------------------------------------------------------------------
# What requests say

def test_every_field_has_its_own_meaning() -> None:
    """LLaMA-Factory reads presence_penalty as the repetition penalty; here each is itself."""
    each = {"presence_penalty": 0.5, "frequency_penalty": -1, "repetition_penalty": 1.1, "min_p": 0.1, "seed": 3}
    body: dict[str, Any] = {"messages": HELLO, **each, "top_k": -1, "max_tokens": 5, "max_completion_tokens": 7}
    assert ChatAsked.model_validate(body).sampling() == {**each, "top_k": 0, "max_new_tokens": 7}
    assert ChatAsked.model_validate({"messages": HELLO, "do_sample": False, "temperature": 1}).sampling() == {
        "temperature": 0}
    assert ChatAsked.model_validate({"messages": HELLO, "logprobs": True}).sampling() == {"top_logprobs": 0}
    assert CompletionAsked.model_validate({"prompt": "a", "logprobs": 2}).sampling() == {"top_logprobs": 2}
    nothing = {name: None for name in ("temperature", "stop", "n", "stream", "tools", "tool_choice", "seed")}
    assert ChatAsked.model_validate({"messages": HELLO, **nothing}).sampling() == {}


def test_messages_have_the_form_of_training() -> None:
    """Ids of calls, names and other marks that templates did not see in training are left out."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [{"role": "developer", "content": "Be kind."},
                {"role": "user", "content": [{"type": "text", "text": "One "}, {"type": "text", "text": "two."}]},
                {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
                {"role": "tool", "tool_call_id": "call_1", "name": "f", "content": "2"}]
    assert as_turns([Asked.model_validate(message) for message in messages]) == [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "One two."},
        {"role": "assistant", "content": "", "reasoning_content": "Hm.",
         "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "2"}]


def test_two_messages_of_a_user_in_a_row(tiny: Path) -> None:
    """A template that takes them writes both; one that insists on turns gets them joined."""
    from truetune.serve.api.messages import accepted

    two = [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}]
    tokenizer = load_tokenizer(tiny)
    assert accepted(list(two), Renderer(tokenizer).prompt) == Renderer(tokenizer).prompt(two)
    tokenizer.chat_template = ("{% for m in messages %}{% if m.role != ['user', 'assistant'][loop.index0 % 2] %}"
                               "{{ raise_exception('turns!') }}{% endif %}"
                               "<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}")
    strict = Renderer(tokenizer)
    assert accepted(list(two), strict.prompt) == strict.prompt([{"role": "user", "content": "One.\n\nTwo."}])
    with pytest.raises(Problem, match="turns!"):
        accepted([{"role": "assistant", "content": "No."}], strict.prompt)


@pytest.mark.parametrize("values", [
    {"messages": 1}, {"bos_token": "x"}, {"a": "<|im_end|>"}, {"a": [1]}, {"a": "x" * 65}])
def test_templates_are_told_switches_and_nothing_else(values: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        template_values(values, None, {"bos_token": "<s>"})
    assert template_values({"effort": "high", "date": "26 Jul 2024"}, True, {}) == {
        "effort": "high", "date": "26 Jul 2024", "enable_thinking": True}


CALLS = [ToolCall("truetune_probe", {"truetune_city": city}) for city in ("Paris", "New York")]


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_a_template_shows_how_it_calls(name: str, tiny: Path) -> None:
    """Whatever format was trained is found by rendering a call, and calls in it are read while they come, letter by
    letter, as they are read whole: text before them, and nothing of the call itself as text."""
    tokenizer, config = load_tokenizer(tiny), Config(tool_format=name)
    settle_template(tokenizer, config)
    renderer = make_renderer(tokenizer, tiny, config)
    speech = speech_of(renderer)
    one_only = name == "glm4"
    (rows,) = renderer.render([Conversation((Message("user", "Hi"), Message(
        "assistant", "" if one_only else "I look.", None, tuple(CALLS[:1] if one_only else CALLS))), (PROBE,))])
    assert isinstance(rows, tuple)
    run = rows[-1].runs[-1]
    text = str(tokenizer.decode(rows[-1].ids[run.first : run.last].tolist())).removesuffix("<|im_end|>")

    def read(pieces: Sequence[str]) -> tuple[str, list[ToolCall]]:
        reader = AnswerReader(speech, tools=(PROBE,))
        parts = [part for number, piece in enumerate(pieces) for part in reader.push(piece, number == len(pieces) - 1)]
        return "".join(part.text for part in parts), [part.call for part in parts if part.call]

    said = ("" if one_only else "I look.", CALLS[:1] if one_only else CALLS)
    assert read([text]) == said and read(list(text)) == said and read([*text, ""]) == said


@pytest.mark.parametrize("text", [
    "No call at all.", "a < b and <tool_ is no tag", "<tool_call>\nnot JSON\n</tool_call>", "ends with <tool_call>",
    "white  space \n\n ", '<tool_call>{"name": "f"'])
def test_text_that_only_looks_like_a_call_stays_text(text: str) -> None:
    """And comes as soon as it is known to be none."""
    reader = AnswerReader(Speech("qwen"), tools=(PROBE,))
    parts = [part for letter in text for part in reader.push(letter)]
    assert "".join(part.text for part in [*parts, *reader.push("", last=True)]) == text
    early = AnswerReader(Speech("qwen"), tools=(PROBE,)).push("a < b, <tool_x")
    assert early == [Part(text="a < b, <tool_x")]


@pytest.mark.parametrize(("opened", "text", "thought", "said"), [
    (False, "<think>\nA b.\n</think>\n\nC.", "A b.", "C."), (True, "A b.\n</think>\n\nC.", "A b.", "C."),
    (False, "C.", "", "C."), (True, "no end", "no end", ""), (False, "<thin air", "", "<thin air"),
    (False, "\n\n<think>A</think>C", "A", "C"), (False, "C <think>late</think>", "", "C <think>late</think>")])
def test_thoughts_letter_by_letter(opened: bool, text: str, thought: str, said: str) -> None:
    for pieces in ([text], list(text)):
        reader = AnswerReader(Speech(thought=("<think>", "</think>")), opened)
        parts = [part for number, piece in enumerate(pieces) for part in reader.push(piece, number == len(pieces) - 1)]
        assert ("".join(part.thought for part in parts), "".join(part.text for part in parts)) == (thought, said)


# ---------------------------------------------------------------------------------------------------------------------
# Starting and stopping

def test_the_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown the first time, kept for this user alone, refused where others can read it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    told: list[str] = []
    key = settle_key(Config(), lambda words: told.append(str(words)))
    file = tmp_path / "truetune" / "api_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and key in told[0] and len(key) > 30
    assert settle_key(Config(), lambda words: told.append(str(words))) == key and key not in told[1]
    assert settle_key(Config(api_key="mine"), ignore) == "mine" and len(told) == 2
    file.chmod(0o644)
    with pytest.raises(Problem, match="others can read"):
        settle_key(Config(), ignore)


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Problem, match=f"port {port} cannot be had: Address already in use") as error:
            serve(Config(model_name_or_path="nowhere", api_port=port, api_key="k"), ignore)
    assert error.value.status == 1 and len(error.value.findings) == 1


def test_the_environment_that_users_know(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what no option says, and is named where it is wrong."""
    monkeypatch.setenv("API_HOST", "0.0.0.0")
    monkeypatch.setenv("MAX_CONCURRENT", "many")
    assert main(["api", "m", "--lang", "en"]) == 2
    said = capsys.readouterr().err
    assert "api_host (environment: API_HOST): 0.0.0.0 can be reached by other machines, and no key is set." in said
    assert "infer_batch (environment: MAX_CONCURRENT)" in said
    assert main(["api", "m", "api_host=127.0.0.1", "api_port=-1"]) == 2
    assert "can be reached" not in capsys.readouterr().err


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130)])
def test_from_start_to_stop(taught: Path, tmp_path: Path, stop: signal.Signals, status: int) -> None:
    """As a process: its address on one line of stdout, then Ctrl-C: the answer that is being written is finished, new
    requests are told to come back later."""
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "API_KEY": KEY, "API_MODEL_NAME": "mine",
                   "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "truetune", "api", str(taught), "api_port=0", "--lang", "en"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stdout and process.stderr
    line = process.stdout.readline()
    assert line.startswith("mine: http://127.0.0.1:"), process.stderr.read()
    port = int(line.rpartition(":")[2].partition("/")[0])
    api = Api(port, Served({"mine": None}))
    stream = ask(api, "Say hello.", model="mine", stream=True, max_tokens=400, extra_body={"ignore_eos": True})
    first = next(iter(stream))
    process.send_signal(stop)
    until(lambda: api.send("GET", "/health")[0] == 503)
    chunks = [first, *stream]
    assert chunks[-1].choices[0].finish_reason == "length"
    assert process.wait(20) == status, process.stderr.read()
    assert process.stdout.read() == "stopped\n"
    process.stdout.close()
    process.stderr.close()
