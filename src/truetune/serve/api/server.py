"""Starting and stopping the server.

The port is taken before the model is loaded, so that a port in use is told at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from truetune.findings import INTERRUPTED, OK, Both, Finding, Say, problem, refuse
from truetune.options import Config
from truetune.serve.api.key import settle_key

if TYPE_CHECKING:
    from truetune.serve.api.plan import Served
    from truetune.serve.api.stopping import Server


def serve(config: Config, say: Say) -> int:
    """Answer until somebody stops it; the exit status.

    Raises:
        Problem: a package is missing, the port is taken, or the model cannot be loaded.
    """
    refuse(list(_missing()))
    with _taken_port(config) as port:
        served = load(config, say)
        try:
            return _run(config, served, port, settle_key(config, say), say)
        finally:
            if served.engine:
                served.engine.close()


def _missing() -> Iterator[Finding]:
    names = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if names:
        yield Finding("no-serve-packages", "error", Both(f"the API needs {', '.join(names)}.",
                                                         f"API 需要 {'、'.join(names)}。"),
                      fix='pip install "truetune[serve]"')


@contextmanager
def _taken_port(config: Config) -> Iterator[socket.socket]:
    """The socket, bound but not listening yet."""
    try:
        family, *_, address = socket.getaddrinfo(config.api_host.strip("[]"), config.api_port,
                                                 type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise problem("bad-host", Both(f"there is no address {config.api_host!r}: {error}.",
                                       f"没有地址 {config.api_host!r}：{error}。"), option="api_host") from None
    with socket.socket(family, socket.SOCK_STREAM) as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            port.bind(address)
        except OSError as error:
            raise problem("port-taken", Both(f"port {config.api_port} cannot be had: {error.strerror}.",
                                             f"无法使用端口 {config.api_port}：{error.strerror}。"), option="api_port",
                          where=config.origin("api_port"),
                          fix=Both("Choose another, or 0 for a free one.",
                                   "换一个端口，或用 0 任选空闲端口。")) from None
        yield port


def load(config: Config, say: Say) -> Served:
    """The model that `config` names, as it is served."""
    from truetune.serve.api.calls import speech_of
    from truetune.serve.api.plan import Served
    from truetune.serve.engine import load_engine
    from truetune.serve.score import load_scorer, scores

    if config.infer_backend == "huggingface" and scores(config, say):
        scorer = load_scorer(config, say)
        return Served({scorer.name: None}, scorer=scorer)
    engine = load_engine(config, say)
    names = {engine.name: None, **{name: name for name in engine.generator.adapters}}
    return Served(names, engine, speech=speech_of(engine.renderer))


def make_server(config: Config, served: Served, key: str, patience: float = 30.0) -> Server:
    """A server of `served` that is not running yet. patience: seconds for a request's body to come."""
    from truetune.serve.api.app import make_app
    from truetune.serve.api.metrics import Gauges
    from truetune.serve.api.middleware import Limits, Middleware
    from truetune.serve.api.stopping import Server
    from truetune.serve.api.streams import Streams

    gauges = Gauges()
    streams = Streams(served.engine and served.engine.generator, config.infer_batch + config.api_queue, gauges)
    limits = Limits(key, config.api_host, int(config.api_max_body * 1e6), config.api_timeout, patience)
    return Server(Middleware(make_app(served, streams, gauges), limits, gauges), streams)


def _run(config: Config, served: Served, port: socket.socket, key: str, say: Say) -> int:
    server, address = make_server(config, served, key), _address(config.api_host, port)
    port.listen(2048)
    say(Both(f"{', '.join(served.names)}: {address}/v1", f"{'、'.join(served.names)}：{address}/v1"))
    asyncio.run(server.serve(sockets=[port]))
    if served.engine:
        served.engine.close()
    server.streams.close()
    say(Both("stopped", "已停止"))
    return INTERRUPTED if server.signal == signal.SIGINT else OK


def _address(host: str, port: socket.socket) -> str:
    shown = host.strip("[]")
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port.getsockname()[1]}"
