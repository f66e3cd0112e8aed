"""What the tests of the API share: a very small model that was taught a handful of conversations by heart, so that what
it answers is known (calls of tools, thoughts, letters of several tokens), and a server of it in a thread."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import openai
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from truetune.data.messages import Conversation, Message, ToolCall
from truetune.data.template import make_renderer, settle_template
from truetune.model.find import load_tokenizer
from truetune.options import Config
from truetune.options.read import read_config
from truetune.serve.api.plan import Served
from truetune.serve.api.server import load, make_server

KEY = "a key of the tests"
CPU = torch.device("cpu")
HELLO = [{"role": "user", "content": "Say hello."}]


def ignore(words: object) -> None:
    """A `Say` that nobody hears."""


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


def write_taught(tiny: Path, folder: Path) -> Path:
    """Write the model to `folder`. It is trained on the tokens of its lessons alone, which takes seconds; all others
    come to stand at zero."""
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
