"""Answers from a server: llama.cpp, vLLM or SGLang, started here or running somewhere already.

Prompts go there as token ids, and answers come back as they are written. A reader who leaves closes the connection, at
which the server ends the answer.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Lock
from typing import Any, Protocol
from urllib.parse import urlsplit

from truetune.findings import Both, problem
from truetune.serve.backends import Backend, Told
from truetune.serve.detokenize import Vocabulary
from truetune.serve.request import Answer, Full, Piece, Request, Token
from truetune.serve.scheduler import Limits, require_adapter

_TIMEOUT = 600.0
"""Seconds that a server may be silent: reading a long prompt on a slow machine."""
_BUSY = (429, 503)


class Server(Protocol):
    """Something that runs: where it listens, and the bearer token it wants ("": none)."""

    address: str
    key: str

    def close(self) -> None:
        ...


@dataclass
class Elsewhere:
    """A server that somebody else has started, and ends."""

    address: str
    key: str = ""

    def close(self) -> None:
        pass


class Remote:
    """A `Generator` behind an address."""

    def __init__(self, backend: Backend, server: Server, vocabulary: Vocabulary, ends: Sequence[int], limits: Limits,
                 said: Mapping[str | None, Any]):
        """ends: tokens that end an answer. said: what a request says of adapters, by the name of the one it asks for,
        and by None."""
        self.backend, self.server, self.limits = backend, server, limits
        self._vocabulary, self._ends, self._said = vocabulary, list(ends), said
        self._adapters = [name for name in said if name is not None]
        self._open: set[_Streamed] = set()
        self._lock = Lock()
        self._ended = False

    @property
    def adapters(self) -> Sequence[str]:
        return self._adapters

    @property
    def context(self) -> int:
        return self.limits.context

    @property
    def running(self) -> int:
        """Answers that are open."""
        return len(self._open)

    def generate(self, request: Request) -> Answer:
        """See `Generator`."""
        require_adapter(request.adapter, self._adapters)
        room = min(request.sampling.max_new_tokens, self.context - len(request.prompt))
        if room < 1:
            raise problem("prompt-too-long", Both(
                f"the prompt has {len(request.prompt):,} tokens, and prompt and answer may have {self.context:,} "
                "together.", f"提示有 {len(request.prompt):,} 个 token，而提示加回答最多 {self.context:,} 个。"),
                option="infer_maxlen",
                fix=Both("Shorten it, or raise infer_maxlen.", "请缩短提示，或增大 infer_maxlen。"))
        body = self.backend.body(request, room, self._ends, self._said[request.adapter])
        with self._lock:
            if self._ended:
                raise problem("engine-closed", Both("the engine has been closed.", "引擎已关闭。"))
            if len(self._open) >= self.limits.rows + self.limits.queue:
                raise Full(1.0)
            answer = _Streamed(self, request, body)
            self._open.add(answer)
        return _Ticket(answer)

    def close(self) -> None:
        with self._lock:
            self._ended, open_now = True, list(self._open)
        for answer in open_now:
            answer.close()
        self.server.close()

    def named(self, token: Token) -> Token:
        """A token with its characters, where the server tells its number alone."""
        words = self._vocabulary.characters
        top = tuple((number, text or words(number), logp) for number, text, logp in token.top)
        return replace(token, text=token.text or words(token.id), top=top)

    def left(self, answer: _Streamed) -> None:
        with self._lock:
            self._open.discard(answer)


class _Streamed:
    """An answer on its way. The request is sent when this is made."""

    def __init__(self, remote: Remote, request: Request, body: Mapping[str, Any]):
        self._remote, self._request, self._told = remote, request, Told()
        self._connection = connect(remote.server)
        headers = {"Content-Type": "application/json", **authorised(remote.server)}
        try:
            self._connection.request("POST", remote.backend.path, json.dumps(body).encode(), headers)
        except OSError as error:
            raise self._failed(str(error)) from None
        self._socket = self._connection.sock
        self._response: HTTPResponse | None = None
        self._pieces = self._read()
        self._closed = False

    def __next__(self) -> Piece:
        try:
            return next(self._pieces)
        except (OSError, HTTPException, ValueError, KeyError) as error:
            if self._closed:
                raise StopIteration from None
            self.close()
            raise self._failed(str(error) or type(error).__name__) from None
        except BaseException:  # the end, or what the server refuses
            self.close()
            raise

    def close(self) -> None:
        """End it, from whichever thread."""
        if not self._closed:
            self._closed = True
            self._remote.left(self)
            with suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes a reader who waits
            self._connection.close()
            if self._response:  # it holds the socket too; a server that waits for room to write hears nothing before
                self._response.close()

    def _read(self) -> Iterator[Piece]:
        self._response = response = self._connection.getresponse()
        self._require_taken(response)
        sampling, ends = self._request.sampling, self._remote._ends
        while line := response.readline():
            said = line.decode(errors="replace").strip()
            if not said.startswith(("data:", "error:")) or said == "data: [DONE]":
                continue
            event = json.loads(said.partition(":")[2])
            if "error" in event or said.startswith("error:"):
                raise self._failed(str(event.get("error", event))[:300])
            piece = self._remote.backend.read(event, self._told)
            over = not sampling.ignore_eos and any(token.id in ends for token in piece.tokens)
            tokens = tuple(self._remote.named(self._cut(token)) for token in piece.tokens
                           if sampling.ignore_eos or token.id not in ends)
            finish = piece.finish if piece.finish in ("stop", "length") else None
            if over and not finish and len(piece.tokens) == 1:
                yield Piece("", (), "stop")  # an end that the server does not know as one
                return
            if piece.text or tokens or finish:
                yield Piece(piece.text, tokens, finish)
            if finish:
                return
        raise self._failed("it has ended before the answer has")

    def _cut(self, token: Token) -> Token:
        """Servers may tell of one more than was asked for."""
        return replace(token, top=token.top[: self._request.sampling.top_logprobs or 0])

    def _require_taken(self, response: HTTPResponse) -> None:
        """Raises:
        Full: it is busy. Problem: it refuses, with its own words.
        """
        if response.status in _BUSY:
            after = response.getheader("Retry-After") or ""
            raise Full(float(after) if after.isdigit() else 1.0)
        if response.status != 200:
            raise self._failed(f"{response.status}: {response.read(1000).decode(errors='replace'):.300}")

    def _failed(self, reason: str) -> Exception:
        name = self._remote.backend.name
        return problem("engine-failed", Both(f"{name} at {self._remote.server.address} fails: {reason}",
                                             f"{name}（{self._remote.server.address}）出错：{reason}"))


class _Ticket:
    """What a reader holds: an answer that is forgotten is closed."""

    def __init__(self, answer: _Streamed):
        self._answer = answer

    def __iter__(self) -> _Ticket:
        return self

    def __next__(self) -> Piece:
        return next(self._answer)

    def close(self) -> None:
        self._answer.close()

    def __del__(self) -> None:
        self._answer.close()


def connect(server: Server, timeout: float = _TIMEOUT) -> HTTPConnection:
    """A connection to where the server listens."""
    parts = urlsplit(server.address)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout)


def authorised(server: Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.key}"} if server.key else {}


def ask(server: Server, path: str, body: Mapping[str, Any] | None = None, timeout: float = _TIMEOUT) -> Any:
    """What the server answers, as JSON; None where it is not that.

    Raises:
        OSError: there is none, or it refuses.
    """
    connection = connect(server, timeout)
    try:
        sent = json.dumps(body).encode() if body is not None else None
        connection.request("POST" if sent else "GET", path, sent,
                           {"Content-Type": "application/json", **authorised(server)})
        response = connection.getresponse()
        said = response.read()
        if response.status != 200:
            raise OSError(f"{response.status}: {said.decode(errors='replace'):.200}")
        return json.loads(said) if said.strip()[:1] in (b"{", b"[") else None
    except HTTPException as error:
        raise OSError(str(error)) from None
    finally:
        connection.close()
