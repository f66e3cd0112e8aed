"""Answers of an engine, which blocks, for an event loop, which must not.

Every answer is read in a thread of its own and handed over piece by piece.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from truetune.serve.api.errors import ApiError
from truetune.serve.api.metrics import Gauges
from truetune.serve.request import Answer, Generator, Piece, Request

Made = TypeVar("Made")


class Streams:
    """Reads the answers of `generator` (None: it is not asked). places: how many it takes at once."""

    def __init__(self, generator: Generator | None, places: int, gauges: Gauges):
        self._generator, self._places, self._gauges = generator, places, gauges
        self._readers = ThreadPoolExecutor(places + 1, "answer")
        self._workers = ThreadPoolExecutor(4, "prompt")

    async def run(self, work: Callable[[], Made]) -> Made:
        """`work` in a thread: rendering and tokenising a prompt, for instance."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def pieces(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Piece]]:
        """The pieces of the answers to several requests as they come, each with the number of its answer. All are in
        the queue, or none is. Closing the generator ends them all.

        Raises:
            ApiError: there is never room for so many. Full, Problem: what the engine raised; the other answers end.
        """
        if len(requests) > self._places:
            raise ApiError(400, f"At most {self._places} answers can be asked for at once here.", param="n",
                          code="invalid_value")
        loop, said = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Any]]()

        def say(number: int, what: Any) -> None:
            loop.call_soon_threadsafe(said.put_nowait, (number, what))

        answers = await self.run(lambda: self._ask(requests))
        self._gauges.tokens_in.inc(sum(len(request.prompt) for request in requests))
        for number, answer in enumerate(answers):
            self._readers.submit(self._read, number, answer, say)
        try:
            left = len(answers)
            while left:
                number, what = await said.get()
                if what is None:
                    left -= 1
                elif isinstance(what, Piece):
                    yield number, what
                else:
                    raise what
        finally:
            for answer in answers:
                answer.close()

    def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        answers: list[Answer] = []
        assert self._generator
        try:
            for request in requests:
                answers.append(self._generator.generate(request))
        except BaseException:
            for answer in answers:
                answer.close()
            raise
        return answers

    def _read(self, number: int, answer: Answer, say: Callable[[int, Any], None]) -> None:
        """In a thread: one answer to its end, or until it is closed."""
        begun, before, gauge = time.perf_counter(), None, self._gauges.waiting
        gauge.inc()
        end: BaseException | None = None
        try:
            for piece in answer:
                now = time.perf_counter()
                if before is None:
                    self._gauges.first_token.observe(now - begun)
                    gauge.dec()
                    gauge = self._gauges.running
                    gauge.inc()
                elif piece.tokens:
                    self._gauges.token.observe((now - before) / len(piece.tokens))
                before = now
                self._gauges.tokens_out.inc(len(piece.tokens))
                say(number, piece)
        except BaseException as error:  # raised again where the answer is awaited
            end = error
        gauge.dec()
        say(number, end)

    def close(self) -> None:
        """Wait for the threads. The engine must have been closed."""
        self._readers.shutdown()
        self._workers.shutdown()
