"""Starting and stopping the server.

The port is taken before the model is loaded, so that a port in use is told at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from truetune.findings import INTERRUPTED, OK, Both, Finding, Say, refuse
from truetune.listen import address_of, taken_port
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
    with taken_port(config, "api_host", "api_port") as port:
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


def load(config: Config, say: Say) -> Served:
    """The model that `config` names, as it is served."""
    from truetune.serve.api.calls import speech_of
    from truetune.serve.api.plan import Served
    from truetune.serve.backends import BACKENDS
    from truetune.serve.engine import load_engine
    from truetune.serve.score import load_scorer, scores

    if config.infer_backend not in BACKENDS and scores(config, say):
        scorer = load_scorer(config, say)
        return Served({scorer.name: None}, scorer=scorer)
    engine = load_engine(config, say)
    names = {engine.name: None, **{name: name for name in engine.generator.adapters}}
    own = {name: speech_of(renderer) for name, renderer in engine.own.items()}
    return Served(names, engine, speech=speech_of(engine.renderer), own=own)


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
    server, address = make_server(config, served, key), address_of(config.api_host, port)
    port.listen(2048)
    say(Both(f"{', '.join(served.names)}: {address}/v1", f"{'、'.join(served.names)}：{address}/v1"))
    asyncio.run(server.serve(sockets=[port]))
    if served.engine:
        served.engine.close()
    server.streams.close()
    say(Both("stopped", "已停止"))
    return INTERRUPTED if server.signal == signal.SIGINT else OK
