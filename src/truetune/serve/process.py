"""A server of vLLM or SGLang as a process of its own, which ends with us."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from truetune.findings import Both, problem
from truetune.serve.remote import ask

_WAIT = 900.0
"""Seconds until a server has to answer: it loads weights and compiles kernels first."""


class Started:
    """A running server.

    Attributes:
        address, key: where it listens, and what it wants to be told.
    """

    def __init__(self, words: Sequence[str], name: str, port: int, key: str, environment: Mapping[str, str],
                 wait: float = _WAIT):
        """words: the command. name: of the server, for people.

        Raises:
            Problem: it ends before it answers (its own last words are told), or does not answer in time.
        """
        self.address, self.key, self._name = f"http://127.0.0.1:{port}", key, name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed with it)
        self._process = subprocess.Popen(list(words), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                         env={**os.environ, **environment}, start_new_session=True)
        atexit.register(self.close)
        end = time.monotonic() + wait
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                ended, said = self._process.poll() is not None, self._last_words()
                self.close()
                raise problem("server-failed", Both(
                    f"{name} {'has ended' if ended else 'does not answer'}: {said}",
                    f"{name} {'已退出' if ended else '没有应答'}：{said}"), option="infer_backend")
            time.sleep(0.2)

    def close(self) -> None:
        """End it, and what it has started."""
        atexit.unregister(self.close)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)  # its own group: see start_new_session
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()

    def _answers(self) -> bool:
        try:
            ask(self, "/health", timeout=5)
        except OSError:
            return False
        return True

    def _last_words(self) -> str:
        """The last line that tells of an error."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        told = [line for line in lines if "error" in line.lower()]
        return (told or lines or [""])[-1][:300]


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def require_installed(words: Sequence[str], name: str, package: str) -> None:
    """Raises:
    Problem: the program that `words` call is not installed.
    """
    module = words[2] if words[0] == sys.executable else None
    found = find_spec(module.split(".")[0]) if module else shutil.which(words[0])
    if not found:
        raise problem("no-server", Both(f"{name} is not installed here.", f"这里没有安装 {name}。"),
                      option="infer_backend", fix=Both(
            f"pip install {package}, best in an environment of its own: start it there, and give its address as "
            "infer_endpoint.",
            f"pip install {package}，最好装在单独的环境里：在那里启动它，再把地址填到 infer_endpoint。"))
