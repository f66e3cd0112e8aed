"""The API under too much at once, under clients that are slow, rude or gone, and what it counts of all that."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from waiting import until

from .server import HELLO, KEY, Api, ask, running, streamed


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
