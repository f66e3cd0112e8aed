"""Requests that are refused, in the form that clients of OpenAI's API read.

Errors are said in English alone: programs read them, and people find them in the logs of programs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from truetune.findings import Finding, Problem
from truetune.serve.request import Full

_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 408: "timeout_error",
          429: "rate_limit_error", 500: "server_error", 503: "server_error", 504: "timeout_error"}
"""What OpenAI calls the kind of an error, by HTTP status; all others are `invalid_request_error`."""


class ApiError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP. param: the field that is wrong (`messages[2].content`). code: a word that programs look for.
        headers: sent with it.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None,
                 headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {message, type, param, code}}`."""
        kind = _KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def text(self) -> str:
        return json.dumps(self.body, ensure_ascii=False)


def full(error: Full) -> ApiError:
    """The engine's queue is full."""
    seconds = str(max(1, math.ceil(error.retry_after)))
    return ApiError(429, f"The queue is full. Try again in {seconds} s.", code="queue_full",
                   headers={"Retry-After": seconds})


_CLIENT = {"prompt-too-long": (400, "messages", "context_length_exceeded"),
           "empty-prompt": (400, "prompt", "invalid_value"),
           "no-such-token": (400, "prompt", "invalid_value"),
           "bad-schema": (400, "response_format", "invalid_schema"),
           "refused-by-template": (400, "messages", "refused_by_template"),
           "no-such-adapter": (404, "model", "model_not_found"),
           "no-llguidance": (501, "response_format", "no_schemas"),
           "engine-closed": (503, None, "stopping")}
"""Problems of an engine that the client can mend: the status, the field and the code that tell it so."""


def failed(problem: Problem) -> ApiError:
    """What a problem of the engine means for the client. What is not the client's fault is told without details, which
    may hold paths of this machine."""
    finding: Finding = problem.findings[0]
    if finding.id not in _CLIENT:
        return ApiError(500, "The engine failed; the server's log says why.", code="engine_failed")
    status, param, code = _CLIENT[finding.id]
    return ApiError(status, str(finding.message), param=param, code=code)


@contextmanager
def told() -> Iterator[None]:
    """Raises `ApiError` where an engine raises `Full`, or a `Problem` that a client can mend. Other problems are raised
    as they are, for the log."""
    try:
        yield
    except Full as error:
        raise full(error) from None
    except Problem as error:
        if error.findings[0].id in _CLIENT:
            raise failed(error) from None
        raise
