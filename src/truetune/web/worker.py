"""A process that does what needs torch, so that the page's own stays small, answers at once, and outlives a crash.

The two talk in pickles, each with its length before it, over the process's standard input and output. It ends with the
page's process, however that ends, since its input ends then; a thread waits for that, so it ends in the middle of work
too. Results are of modules that are light to import, since the page's process has to know them.

    ask      (number, function, arguments)
    answer   (number, "said", words) as often as there is something to say, then one of
             (number, "done", result), (number, "problem", (findings, status)), (number, "failed", words)
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from importlib import import_module
from pkgutil import resolve_name
from queue import Empty, SimpleQueue
from typing import IO, Any

from truetune.findings import Both, Problem, Say, Words, problem
from truetune.hush import hush_libraries

IMPORTS = ("truetune.look.asked",)
"""What takes seconds to import, and nearly every ask needs."""
IDLE = 300.0
"""Seconds after which a worker that holds memory of a GPU ends if nobody asks: CUDA alone takes half a gigabyte there,
which a run can use. The next ask starts another one."""
_RESTED = 75
"""Exit status of a worker that has ended since nobody asked."""


_LENGTH = struct.Struct(">Q")
_KILL = 9
"""SIGKILL, which has no name on Windows: what Linux ends a process with when memory runs out."""


class Overtaken(Exception):
    """A newer ask of the same kind has come while this one waited: nobody wants its answer any more."""


class _Gone(Exception):
    """Nobody is at the other end of a pipe."""


class Worker:
    """One process, started early so that the first check need not wait for imports, and again when it has died.

    It does one thing after another, in the order of asking.
    """

    def __init__(self, imports: Sequence[str] = IMPORTS, idle: float = IDLE):
        """imports, idle: see `IMPORTS` and `IDLE`."""
        self._imports, self._idle = tuple(imports), idle
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        self._newest: dict[Hashable, object] = {}
        self._starting, self._asking, self._marking = (threading.Lock() for _ in range(3))

    def start(self) -> subprocess.Popen[bytes]:
        """The process: if there is none, begin to import, without waiting."""
        with self._starting:
            if self._process is None or self._process.poll() is not None:
                self._end()
                words = [sys.executable, "-P", "-m", "truetune.web.worker", str(self._idle), *self._imports]
                # In a session of its own: Ctrl-C is for the page, which ends it then.
                self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                 start_new_session=True)
            return self._process

    def ask(self, function: Callable[..., Any] | str, *arguments: Any, say: Say | None = None,
            latest: Hashable | None = None) -> Any:
        """`function(*arguments, say)` in the process; `function` stands at the top of a module, and what it takes and
        returns can be pickled. One whose module the page must not import is named: `truetune.look.asked:estimate`.

        Args:
            say: is told how it goes, in the thread that asks.
            latest: of the asks with this key that still wait, only the newest is done.

        Raises:
            Problem: what it raised, or the process has died (with the reason where it is known).
            Overtaken: see `latest`.
        """
        mark = self._mark(latest)
        with self._asking:
            if not self._is_newest(latest, mark):
                raise Overtaken
            self._number += 1
            while True:
                process = self.start()
                try:
                    return self._answer(process, (self._number, function, arguments), say or (lambda words: None))
                except _Gone:  # no OSError: that may be one of `say`
                    status = process.wait()
                if status != _RESTED:
                    raise _death(status)

    def _mark(self, latest: Hashable | None) -> object:
        """What tells this ask from others with its key."""
        mark = object()
        if latest is not None:
            with self._marking:
                self._newest[latest] = mark
        return mark

    def _is_newest(self, latest: Hashable | None, mark: object) -> bool:
        with self._marking:
            return latest is None or (self._newest.get(latest) is mark and self._newest.pop(latest) is mark)

    def _answer(self, process: subprocess.Popen[bytes], asked: tuple[int, Any, Any], say: Say) -> Any:
        assert process.stdin and process.stdout
        _send(process.stdin, pickle.dumps(asked))
        while True:
            number, kind, value = pickle.loads(_receive(process.stdout))
            if number != asked[0]:
                continue  # the answer to somebody who has left while waiting: `say` raised
            if kind == "said":
                say(value)
            elif kind == "done":
                return value
            elif kind == "problem":
                raise Problem(*value)
            else:
                raise problem("failed-here", value, fix=Both(
                    "The terminal in which the page was started says where; please report it.",
                    "启动网页的终端里有详细位置，请反馈给我们。"))

    @property
    def pid(self) -> int | None:
        """Of the process, while it is there."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def close(self) -> None:
        """End the process, whatever it is doing; who waits for an answer is told. The next ask starts another one."""
        with self._starting:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        with suppress(BrokenPipeError):  # it has died with something unread
            process.stdin.close()
        process.wait()


def _death(status: int) -> Problem:
    """Why the process has ended. status: as `Popen.wait` gives it; a negative one is a signal's number."""
    if status == 0:
        return problem("worker-ended", Both("this was stopped.", "已停止。"))
    if status == -_KILL:
        reason = Both("was killed; most often that means that memory ran out", "被系统终止，多半是内存不足")
        fix = Both("Close other programs, or choose a smaller model; then try again.",
                   "请关闭其他程序，或换用更小的模型，然后重试。")
    else:
        name = signal.Signals(-status).name if status < 0 else str(status)
        reason = Both(f"has crashed ({name})", f"崩溃了（{name}）")
        fix = Both("Try again; the terminal in which the page was started may say more.",
                   "请重试；启动网页的终端里可能有更多信息。")
    return problem("worker-died", Both(f"the process that computes for this page {reason}.",
                                       f"为网页做计算的进程{reason.zh}。"), fix=fix)


def _send(stream: IO[bytes], message: bytes) -> None:
    """Raises:
    _Gone: the other side is, or the stream has been closed.
    """
    try:
        stream.write(_LENGTH.pack(len(message)) + message)
        stream.flush()
    except (OSError, ValueError):
        raise _Gone from None


def _receive(stream: IO[bytes]) -> bytes:
    """Raises:
    _Gone: the other side is.
    """
    head = stream.read(_LENGTH.size)
    message = stream.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
    if not message:
        raise _Gone
    return message


def main(idle: float, imports: Sequence[str]) -> None:
    """What the process does: import, then answer until nobody can ask any more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not come among the answers
    asked: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, asked), daemon=True).start()
    hush_libraries()
    for name in imports:
        import_module(name)
    while True:
        try:
            message = asked.get(timeout=idle)
        except Empty:
            if _holds_gpu():
                sys.exit(_RESTED)
        else:
            _send(answers, _done(message, answers))


def _listen(stream: IO[bytes], asked: SimpleQueue[bytes]) -> None:
    """Hand on what is asked, and end the process when nobody can ask any more: what it does is for nobody then."""
    try:
        while True:
            asked.put(_receive(stream))
    except _Gone:
        os._exit(0)


def _done(message: bytes, answers: IO[bytes]) -> bytes:
    """Do what is asked; the answer."""
    number, asked, arguments = pickle.loads(message)

    def say(words: Words) -> None:
        _send(answers, pickle.dumps((number, "said", words)))

    try:
        function = resolve_name(asked) if isinstance(asked, str) else asked
        return pickle.dumps((number, "done", function(*arguments, say)))
    except Problem as stopped:
        return pickle.dumps((number, "problem", (stopped.findings, stopped.status)))
    except Exception as error:  # whatever a model's file or a library does: the page says it, and lives
        logging.getLogger(__name__).error(traceback.format_exc())
        return pickle.dumps((number, "failed", f"{type(error).__name__}: {error}"))


def _holds_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
