"""What every request passes before anything reads it: who may come in, how much may be sent, how long it may take.

Plain ASGI around the application. It reads the whole body itself, so it alone hears when the client leaves; then the
work is cancelled, and with it the answers that are being written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from truetune.rules.api import is_public
from truetune.serve.api.errors import ApiError
from truetune.serve.api.key import own_host, same_key
from truetune.serve.api.metrics import Gauges

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health",)
"""Paths that need no key: they tell nothing."""
_PATHS = ("/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings",
          "/v1/score/evaluation", "/tokenize", "/detokenize")
"""Paths that are counted by name; there is no end of others."""


@dataclass(frozen=True)
class Limits:
    """key: what clients must send. host: the address that is listened on. body: most bytes. seconds: for one request,
    its waiting included. patience: seconds for a body to come."""

    key: str
    host: str
    body: int
    seconds: float
    patience: float = 30.0


class Middleware:
    """See the module's text.

    Attributes:
        stopping: nobody is let in any more. inside: requests that are being answered.
    """

    def __init__(self, app: App, limits: Limits, gauges: Gauges):
        self._app, self._limits, self._gauges = app, limits, gauges
        self._local = not is_public(limits.host)
        self.stopping, self.inside = False, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        sending = _Sending(send)
        try:
            body = await self._admit(scope, receive)
        except ApiError as refused:
            await sending.refuse(refused)
        except _Left:
            self._gauges.dropped.inc()
        else:
            self.inside += 1
            try:
                await self._answer(scope, body, receive, sending)
            finally:
                self.inside -= 1
        path = scope["path"] if scope["path"] in _PATHS else "other"
        self._gauges.requests.labels(path, sending.status or "none").inc()

    async def _admit(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request that may come in.

        Raises:
            ApiError: it may not. _Left: the client has gone.
        """
        try:
            self._require_allowed(scope)
        except ApiError:
            await _drain(receive, self._limits.body)
            raise
        return await self._body(scope, receive)

    def _require_allowed(self, scope: Scope) -> None:
        """Raises:
        ApiError: another host was meant, the server stops, or the key is not the right one.
        """
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._local and not own_host(headers.get(b"host", ""), self._limits.host):
            raise ApiError(403, "This server answers on this machine only, by the name localhost or its address.",
                          code="wrong_host")
        if self.stopping:
            raise ApiError(503, "The server is stopping.", code="stopping",
                          headers={"Retry-After": "10", "Connection": "close"})
        if scope["path"] not in OPEN and not same_key(headers.get(b"authorization"), self._limits.key):
            raise ApiError(401, "The API key is missing or wrong. Send it as `Authorization: Bearer …`.",
                          code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Raises:
        ApiError: it is too large, or does not come. _Left: the client did.
        """
        most = self._limits.body
        told = dict(scope["headers"]).get(b"content-length", b"0")
        pieces, size, more = [], int(told) if told.isdigit() and int(told) > most else 0, True
        try:
            async with asyncio.timeout(self._limits.patience):
                while more and size <= most:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Left
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    more = message.get("more_body", False)
        except TimeoutError:
            raise ApiError(408, f"The body did not come within {self._limits.patience:g} s.", code="timeout") from None
        if size > most:
            if more:
                await _drain(receive, most)
            raise ApiError(413, f"The body is larger than {most / 1e6:g} MB.", code="body_too_large")
        return b"".join(pieces)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, sending: _Sending) -> None:
        """Let the application answer, until it has, time is up, or the client has left."""
        work = asyncio.ensure_future(self._within(scope, body, sending))
        gone = asyncio.ensure_future(_until_left(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not sending.whole:
                self._gauges.dropped.inc()
        finally:
            for task in (work, gone):
                task.cancel()
            _, failed = await asyncio.gather(gone, work, return_exceptions=True)
        if isinstance(failed, Exception):
            raise failed

    async def _within(self, scope: Scope, body: bytes, sending: _Sending) -> None:
        replayed = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> MutableMapping[str, Any]:
            message = next(replayed, None)
            if message is None:
                await asyncio.Event().wait()  # that the client leaves is heard outside
            assert message
            return message

        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._app(scope, receive, sending)
        except TimeoutError:
            await sending.refuse(ApiError(504, f"No whole answer within {self._limits.seconds:g} s.", code="timeout"))


class _Left(Exception):
    """The client has gone before its body was whole."""


class _Sending:
    """`send`, which remembers how far the answer is."""

    def __init__(self, send: Send):
        self._send = send
        self.status, self.whole = 0, False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, refused: ApiError) -> None:
        """Answer with an error; in the middle of a stream as its last event."""
        if self.whole:
            return
        body = refused.text.encode()
        if self.status:
            return await self({"type": "http.response.body", "body": b"data: " + body + b"\n\n"})
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
        await self({"type": "http.response.start", "status": refused.status,
                    "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()]})
        await self({"type": "http.response.body", "body": body})


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drain(receive: Receive, most: int) -> None:
    """Read on for a moment: a client that is still sending would not hear why it is refused, but a broken pipe."""
    size = 0
    try:
        async with asyncio.timeout(2):
            while size < 16 * most:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
