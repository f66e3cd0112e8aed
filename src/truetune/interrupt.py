"""Ctrl-C: the first one asks for a checkpoint and an orderly end, the second one ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from truetune.findings import Both, Say

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPING = Both(
    "stopping: a checkpoint is saved first (once more: stop at once, and lose what follows the last checkpoint)",
    "正在停止：先保存检查点（再按一次立即停止，上一个检查点之后的训练会丢失）")


class Interrupts:
    """While entered, `wanted` turns true at the first SIGINT or SIGTERM; a second one kills the process as usual."""

    def __init__(self, say: Say):
        self.wanted = False
        self._say = say
        self._before = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._first) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # The signal may come in the middle of a print, and printing inside printing is an error: a thread does it.
        threading.Thread(target=self._say, args=(_STOPPING,)).start()


@contextmanager
def held_back() -> Iterator[None]:
    """While entered (for a moment only), a Ctrl-C waits until the end. Some libraries written in C turn a
    KeyboardInterrupt inside of them into an error of their own, and the user would read that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number)) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)
