"""Waiting for something to come true, in tests of what other processes and threads do."""

import time
from collections.abc import Callable


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Raises:
    AssertionError: it has not come true in `seconds`.
    """
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)
