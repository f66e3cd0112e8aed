"""The paths of the API, and how each is answered."""

from __future__ import annotations

import json
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from truetune.findings import Problem
from truetune.serve.api.choices import chat_logprobs, completion_logprobs, message_of
from truetune.serve.api.errors import ApiError, failed, full, told
from truetune.serve.api.metrics import CONTENT_TYPE, Gauges
from truetune.serve.api.plan import (
    Plan,
    Served,
    detokenized,
    embedding_rows,
    plan_chat,
    plan_completion,
    tokenized,
)
from truetune.serve.api.schemas import (
    Body,
    ChatAsked,
    CompletionAsked,
    DetokenizeAsked,
    EmbeddingAsked,
    ScoreAsked,
    TokenizeAsked,
    refuse_by_name,
)
from truetune.serve.api.streams import Streams
from truetune.serve.embed import as_base64
from truetune.serve.request import Full, Piece, Token
from truetune.serve.request import Request as Ask
from truetune.serve.score import TooLong

UNKNOWN = "X-Truetune-Unknown-Fields"
"""The header that names fields which had no effect."""


def make_app(served: Served, streams: Streams, gauges: Gauges) -> FastAPI:
    """The application, without its `middleware`."""
    app = FastAPI(title="truetune", docs_url=None, redoc_url=None)
    created = int(time.time())
    _answer_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(gauges.page(), media_type=CONTENT_TYPE)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_card(name, created) for name in served.names]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        served.require(name)
        return _card(name, created)

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatAsked) -> Response:
        plan = await _planned(asked, lambda: plan_chat(served, asked), streams)
        if plan.choosing and plan.chosen:
            plan = plan.chosen(await _whole_text(streams, plan.choosing))
        talk = _Chat(plan, streams, served.require(asked.model), asked)
        return await talk.respond(plan.unknown)

    @app.post("/v1/completions")
    async def completions(asked: CompletionAsked) -> Response:
        plan = await _planned(asked, lambda: plan_completion(served, asked), streams)
        text = _Completion(plan, streams, served.require(asked.model), asked)
        return await text.respond(plan.unknown)

    @app.post("/v1/embeddings")
    async def embeddings(asked: EmbeddingAsked) -> Response:
        refuse_by_name(asked)
        name, embedder = served.require(asked.model), served.require_embedder()
        rows = await streams.run(lambda: embedding_rows(served, asked))
        vectors = await streams.run(lambda: embedder.vectors(rows, served.names[name]))
        count = sum(map(len, rows))
        shown = [as_base64(vector) if asked.encoding_format == "base64" else vector.tolist() for vector in vectors]
        data = [{"object": "embedding", "index": number, "embedding": vector} for number, vector in enumerate(shown)]
        return _json({"object": "list", "model": name, "data": data,
                      "usage": {"prompt_tokens": count, "total_tokens": count}}, asked.unknown_fields())

    @app.post("/tokenize")
    async def tokenize(asked: TokenizeAsked) -> Response:
        refuse_by_name(asked)
        with told():
            return _json(await streams.run(lambda: tokenized(served, asked)), asked.unknown_fields())

    @app.post("/detokenize")
    async def detokenize(asked: DetokenizeAsked) -> Response:
        return _json({"prompt": await streams.run(lambda: detokenized(served, asked))}, asked.unknown_fields())

    @app.post("/v1/score/evaluation")
    async def score(asked: ScoreAsked) -> Response:
        scorer = served.require_scorer()
        try:
            scores = await streams.run(lambda: scorer.score(asked.messages, asked.max_length))
        except TooLong as error:
            number, length, most = error.args
            raise ApiError(400, f"messages[{number}] has {length:,} tokens, and 1 to {most:,} can be read; max_length "
                          "cuts it.", param=f"messages[{number}]", code="context_length_exceeded") from None
        return _json({"id": f"scoreval-{secrets.token_hex(12)}", "object": "score.evaluation",
                      "model": asked.model or next(iter(served.names)), "scores": scores}, asked.unknown_fields())

    return app


def _card(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "truetune"}


async def _whole_text(streams: Streams, request: Ask) -> str:
    with told():
        async with aclosing(streams.pieces([request])) as pieces:
            return "".join([piece.text async for _, piece in pieces])


async def _planned(asked: Body, plan: Callable[[], Plan], streams: Streams) -> Plan:
    refuse_by_name(asked)
    with told():
        return await streams.run(plan)


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _answer_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    def respond(refused: ApiError) -> JSONResponse:
        return JSONResponse(refused.body, refused.status, refused.headers)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(_invalid(error))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond(ApiError(error.status_code, f"{error.detail}: {request.method} {request.url.path:.200}",
                               headers=error.headers))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        """The traceback goes to the log; it may hold paths and words of others."""
        return respond(ApiError(500, "The server failed; its log says why.", code="internal_error"))


def _invalid(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong with a body, and which field."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if part != "body" and not str(part).startswith("function-")]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).lstrip(".") or None
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not JSON: {first['ctx']['error']}.", code="invalid_json")
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param, code="invalid_value")


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Answer(ABC):
    """One request's answer, streamed or whole. Subclasses know the form."""

    prefix = whole = chunk = ""

    def __init__(self, plan: Plan, streams: Streams, name: str, asked: ChatAsked | CompletionAsked):
        self.plan, self._streams, self._asked = plan, streams, asked
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}
        self.count = len(plan.requests)
        self._tokens = 0

    async def respond(self, unknown: Iterable[str]) -> Response:
        """Raises:
        ApiError: the queue is full, or the engine refuses the request.
        """
        pieces = self._streams.pieces(self.plan.requests)
        if not self._asked.stream:
            async with aclosing(pieces):
                with told():
                    choices = await self.collect(pieces)
            return _json({**self._head, "object": self.whole, "choices": choices, "usage": self._usage()}, unknown)
        with told():
            first = await anext(pieces)  # errors still have a status of their own here

        async def events() -> AsyncIterator[str]:
            async with aclosing(pieces):
                async for event in self._events(_after(first, pieces)):
                    yield event

        return EventStream(events(), headers=_unknown_header(unknown))

    @abstractmethod
    async def collect(self, pieces: AsyncIterator[tuple[int, Piece]]) -> list[dict[str, Any]]:
        """The choices of a whole answer."""

    def opening(self) -> list[dict[str, Any]]:
        """Choices that are sent before anything is said."""
        return []

    @abstractmethod
    def said(self, number: int, piece: Piece) -> list[dict[str, Any]]:
        """Choices that tell a piece."""

    def over(self) -> bool:
        """Whether nothing more is wanted."""
        return False

    def counted(self, piece: Piece) -> None:
        self._tokens += len(piece.tokens)

    async def _events(self, pieces: AsyncIterator[tuple[int, Piece]]) -> AsyncIterator[str]:
        usage = self._asked.stream_options is not None and self._asked.stream_options.include_usage
        also = {"usage": None} if usage else {}

        def chunk(*choices: dict[str, Any]) -> str:
            return json.dumps({**self._head, "object": self.chunk, "choices": choices, **also}, ensure_ascii=False)

        for choice in self.opening():
            yield chunk(choice)
        async for number, piece in pieces:
            self.counted(piece)
            for choice in self.said(number, piece):
                yield chunk(choice)
            if self.over():
                break
        if usage:
            yield json.dumps({**self._head, "object": self.chunk, "choices": [], "usage": self._usage()})
        yield "[DONE]"

    def _usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.plan.prompt_tokens, "completion_tokens": self._tokens,
                "total_tokens": self.plan.prompt_tokens + self._tokens}


class _Chat(_Answer):
    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, plan: Plan, streams: Streams, name: str, asked: ChatAsked):
        super().__init__(plan, streams, name, asked)
        self._writers = [plan.writer() for _ in plan.requests]
        self._logprobs = bool(asked.logprobs)
        self._untold: list[list[Token]] = [[] for _ in plan.requests]
        self._ended = [False] * self.count

    def opening(self) -> list[dict[str, Any]]:
        return [self._choice(number, {"role": "assistant", "content": ""}) for number in range(self.count)]

    def said(self, number: int, piece: Piece) -> list[dict[str, Any]]:
        if self._ended[number]:
            return []
        writer, untold = self._writers[number], self._untold[number]
        untold += piece.tokens
        choices = [self._choice(number, delta) for delta in writer.push(piece)]
        if piece.finish or writer.done:
            self._ended[number] = True
            choices.append(self._choice(number, {}, writer.finish(piece.finish or "stop")))
        if choices and self._logprobs and untold:
            choices[0]["logprobs"] = chat_logprobs(untold)
            untold.clear()
        return choices

    def over(self) -> bool:
        return all(self._ended)

    async def collect(self, pieces: AsyncIterator[tuple[int, Piece]]) -> list[dict[str, Any]]:
        told: list[list[dict[str, Any]]] = [[] for _ in range(self.count)]
        async for number, piece in pieces:
            self.counted(piece)
            told[number] += self.said(number, piece)
            if self.over():
                break
        return [self._whole(number, choices) for number, choices in enumerate(told)]

    def _whole(self, number: int, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
        content = [token for one in logprobs for token in one["content"]]
        return {"index": number, "message": message_of(choice["delta"] for choice in choices),
                "logprobs": {"content": content, "refusal": None} if self._logprobs else None,
                "finish_reason": choices[-1]["finish_reason"]}

    @staticmethod
    def _choice(number: int, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": finish}


class _Completion(_Answer):
    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def __init__(self, plan: Plan, streams: Streams, name: str, asked: CompletionAsked):
        super().__init__(plan, streams, name, asked)
        self._logprobs = asked.logprobs is not None
        self._characters = [0] * self.count

    def said(self, number: int, piece: Piece) -> list[dict[str, Any]]:
        logprobs = completion_logprobs(piece.tokens, self._characters[number]) if self._logprobs else None
        self._characters[number] += sum(len(token.text) for token in piece.tokens)
        if not (piece.text or piece.finish):
            return []
        return [{"index": number, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish}]

    async def collect(self, pieces: AsyncIterator[tuple[int, Piece]]) -> list[dict[str, Any]]:
        told: list[list[Piece]] = [[] for _ in range(self.count)]
        async for number, piece in pieces:
            self.counted(piece)
            told[number].append(piece)
        return [self._whole(number, parts) for number, parts in enumerate(told)]

    def _whole(self, number: int, parts: Sequence[Piece]) -> dict[str, Any]:
        tokens = [token for piece in parts for token in piece.tokens]
        return {"index": number, "text": "".join(piece.text for piece in parts),
                "logprobs": completion_logprobs(tokens, 0) if self._logprobs else None,
                "finish_reason": parts[-1].finish if parts else "stop"}


async def _after(first: tuple[int, Piece], rest: AsyncIterator[tuple[int, Piece]]) -> AsyncIterator[tuple[int, Piece]]:
    yield first
    async for one in rest:
        yield one


# ── Responses ────────────────────────────────────────────────────────────────────────────────────────────────────────


class EventStream(Response):
    """Server-sent events. An error in their midst is the last of them, as OpenAI sends it."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], headers: Mapping[str, str]):
        super().__init__(None, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._events: Any = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    await send({"type": "http.response.body", "body": f"data: {event}\n\n".encode(), "more_body": True})
            except Full as error:
                await _last_event(full(error), send)
            except Problem as error:
                await _last_event(failed(error), send)
                raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _last_event(refused: ApiError, send: Any) -> None:
    await send({"type": "http.response.body", "body": f"data: {refused.text}\n\n".encode(), "more_body": False})


def _json(value: Mapping[str, Any], unknown: Iterable[str]) -> Response:
    return JSONResponse(value, headers=_unknown_header(unknown))


def _unknown_header(unknown: Iterable[str]) -> dict[str, str]:
    """Names come from the client: only letters that a header can hold, and not too many."""
    names = ", ".join(re.sub(r"[^\x21-\x7e]", "?", name)[:80] for name in unknown)
    return {UNKNOWN: names[:1000]} if names else {}
