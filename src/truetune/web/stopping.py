"""The page's server, and how it ends: at once, though open pages hold their connections for as long as they can."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from truetune.web.guard import Guard

GRACE = 1
"""Seconds that an answer has that is being sent when the server stops; those that an open page listens to never end."""


class Server(uvicorn.Server):
    """Attributes:
    signal: that has ended it. up: called once it answers.
    """

    def __init__(self, app: Guard, up: Callable[[], None]):
        super().__init__(uvicorn.Config(app, lifespan="on", log_config=None, access_log=False, server_header=False,
                                        ws="none", timeout_graceful_shutdown=GRACE))
        self.signal: int | None = None
        self._up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop. That open pages are cut off is no error to tell."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.force_exit = self.should_exit  # the second one
        self.signal, self.should_exit = sig, True
