"""What the API refuses, in OpenAI's words, and whom it lets in."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from truetune.serve.api.key import own_host

from .server import HELLO, KEY, WEATHER, Api, ask


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
