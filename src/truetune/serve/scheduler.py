"""Where requests wait for a model in this process: a queue, one thread that owns the model, and the answers that its
readers hold.

Readers may be any threads. They never touch the model, and the worker never waits for them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Condition, Thread

from truetune.findings import Both, problem
from truetune.serve.detokenize import Detokenizer, Vocabulary
from truetune.serve.request import Answer, Finish, Full, Piece, Request, Token
from truetune.serve.sampling import Drawing, Drawn, Schemas


@dataclass(frozen=True)
class Limits:
    """rows: answers that are written at once. queue: requests that may wait besides. context: most tokens of a prompt
    and its answer together."""

    rows: int = 8
    queue: int = 64
    context: int = 8192


class Job:
    """A request on its way: what the worker writes here its reader reads, who may leave at any time.

    Attributes:
        ids: the prompt and what was answered. closed: nobody reads any more.
    """

    def __init__(self, request: Request, drawing: Drawing, writing: Detokenizer, room: int, ends: frozenset[int],
                 wake: Callable[[], None]):
        """room: most tokens of the answer. ends: tokens that end it. wake: tells the worker that the reader left."""
        self.request, self.drawing, self.ids = request, drawing, list(request.prompt)
        self.closed, self.began = False, time.monotonic()
        self._writing, self._room, self._ends, self._wake = writing, room, ends, wake
        self._pieces: SimpleQueue[Piece | Exception | None] = SimpleQueue()

    # ------------------------------------------------------------------------------------------- the reader's side

    def read(self) -> Piece:
        """The next piece.

        Raises:
            StopIteration: there is none. Problem: the engine failed on this answer.
        """
        if self.closed:
            raise StopIteration
        piece = self._pieces.get()
        if isinstance(piece, Piece):
            return piece
        self.closed = True
        if piece is None:
            raise StopIteration
        raise piece

    def leave(self) -> None:
        """Read no more."""
        if not self.closed:
            self.closed = True
            self._pieces.put(None)  # whoever waits for a piece in another thread waits no more
            self._wake()

    # ------------------------------------------------------------------------------------------- the worker's side

    def take(self, drawn: Drawn, vocabulary: Vocabulary) -> bool:
        """One more word. True: it was the last one."""
        self.ids.append(drawn.id)
        sampling, allowed = self.request.sampling, self.drawing.allowed
        if drawn.id in self._ends and not sampling.ignore_eos:
            return self._end("stop")
        top = tuple((word, vocabulary.characters(word), logp) for word, logp in drawn.top)
        piece = self._writing.push(Token(drawn.id, vocabulary.characters(drawn.id), drawn.logprob, top))
        if piece:
            self._pieces.put(piece)
        if self._writing.stopped or (allowed and allowed.complete):
            return self._end("stop")
        return len(self.ids) - len(self.request.prompt) >= self._room and self._end("length")

    def fail(self, error: Exception) -> None:
        """The reader is told of it in place of the next piece."""
        self._pieces.put(error)

    def abandon(self) -> None:
        """The engine closes before the answer has come to its end."""
        self.fail(problem("engine-closed", Both("the engine has been closed.", "引擎已关闭。")))

    def _end(self, finish: Finish) -> bool:
        self._pieces.put(self._writing.end(finish))
        self._pieces.put(None)
        return True


class Ticket:
    """What a reader holds of a job. The worker holds the job itself, so that a reader who just forgets his answer ends
    it too."""

    def __init__(self, job: Job):
        self._job = job

    def __iter__(self) -> Ticket:
        return self

    def __next__(self) -> Piece:
        return self._job.read()

    def close(self) -> None:
        self._job.leave()

    def __del__(self) -> None:
        self._job.leave()


class Scheduler(ABC):
    """A `Generator` whose model is in this process. Subclasses say what the worker does (`_work`)."""

    def __init__(self, vocabulary: Vocabulary, schemas: Schemas, ends: Sequence[int], size: int, limits: Limits,
                 adapters: Sequence[str] = ()):
        """ends: tokens that end an answer. size: ids that the model has a row for."""
        self.limits, self._vocabulary, self._schemas, self._size = limits, vocabulary, schemas, size
        self._ends, self._adapters = frozenset(ends), list(adapters)
        self._waiting: deque[Job] = deque()
        self._changed = Condition()
        self._ended = False
        self._seconds = 1.0
        """How long an answer takes, about."""
        self._worker = Thread(target=self._work, name="answers", daemon=True)

    @property
    def adapters(self) -> Sequence[str]:
        return self._adapters

    @property
    def context(self) -> int:
        return self.limits.context

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    def generate(self, request: Request) -> Answer:
        """See `Generator`."""
        self._require_possible(request)
        sampling = request.sampling
        room = min(sampling.max_new_tokens, self.limits.context - len(request.prompt))
        allowed = self._schemas.follow(sampling.schema) if sampling.schema is not None else None
        job = Job(request, Drawing(sampling, request.prompt, allowed),
                  Detokenizer(self._vocabulary, sampling.stop), room, self._ends, self._wake)
        with self._changed:
            if self._ended:
                raise problem("engine-closed", Both("the engine has been closed.", "引擎已关闭。"))
            if len(self._waiting) >= self.limits.queue + self._free():
                raise Full(max(1.0, self._seconds * (1 + len(self._waiting)) / self.limits.rows))
            self._waiting.append(job)
            self._changed.notify()
        return Ticket(job)

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._worker.is_alive():
            self._worker.join()

    @abstractmethod
    def _work(self) -> None:
        """The worker's life."""

    @abstractmethod
    def _free(self) -> int:
        """How many places are free."""

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _next(self) -> Job | None:
        """The first that waits and still has a reader. Called with the lock held."""
        while self._waiting:
            job = self._waiting.popleft()
            if not job.closed:
                return job
        return None

    def _done(self, job: Job) -> None:
        """Learn how long answers take."""
        self._seconds += 0.2 * (time.monotonic() - job.began - self._seconds)

    def _require_possible(self, request: Request) -> None:
        """Raises:
        Problem: the prompt is empty, too long, or holds what is no token; there is no such adapter.
        """
        length, context = len(request.prompt), self.limits.context
        if not length:
            raise problem("empty-prompt", Both("the prompt is empty.", "提示为空。"))
        if length >= context:
            raise problem("prompt-too-long", Both(
                f"the prompt has {length:,} tokens, and prompt and answer may have {context:,} together.",
                f"提示有 {length:,} 个 token，而提示加回答最多 {context:,} 个。"), option="infer_maxlen",
                fix=Both("Shorten it, or raise infer_maxlen.", "请缩短提示，或增大 infer_maxlen。"))
        if not 0 <= min(request.prompt) <= max(request.prompt) < self._size:
            raise problem("no-such-token", Both(f"token ids have to be in [0, {self._size}).",
                                                f"token id 必须在 [0, {self._size}) 之内。"))
        require_adapter(request.adapter, self._adapters)


def require_adapter(name: str | None, known: Sequence[str]) -> None:
    """Raises:
    Problem: there is no adapter of that name.
    """
    if name is not None and name not in known:
        names = ", ".join(known)
        raise problem("no-such-adapter", Both(
            f"there is no adapter {name!r}{f', only {names}' if names else ''}.",
            f"没有名为 {name!r} 的适配器{f'，只有 {names}' if names else ''}。"), option="infer_adapters")

