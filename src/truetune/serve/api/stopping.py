"""The server itself, and how it ends."""

from __future__ import annotations

import time
from types import FrameType

import uvicorn

from truetune.serve.api.middleware import Middleware
from truetune.serve.api.streams import Streams

GRACE = 30.0
"""Seconds that running requests have when the server stops."""


class Server(uvicorn.Server):
    """At the first signal nobody is let in any more (503), and those who are inside have `GRACE` seconds; a second one
    ends at once.

    Attributes:
        signal: that has ended it. streams: to be closed after it.
    """

    def __init__(self, middleware: Middleware, streams: Streams):
        super().__init__(uvicorn.Config(middleware, lifespan="off", log_config=None, access_log=False,
                                        server_header=False, ws="none", timeout_graceful_shutdown=1))
        self.streams, self._middleware, self._until = streams, middleware, 0.0
        self.signal: int | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._middleware.stopping:
            self.should_exit = self.force_exit = True
        else:
            self.signal, self._middleware.stopping, self._until = sig, True, time.monotonic() + GRACE

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._middleware.stopping and (not self._middleware.inside or time.monotonic() > self._until):
            self.should_exit = True
        return await super().on_tick(counter)
