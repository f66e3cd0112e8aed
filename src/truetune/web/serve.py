"""`truetune webui` and `truetune webchat`: starting the page, and ending it. What runs goes on when it ends.

The page's own process imports no torch. The one that does (`worker`) is started once the page can be used.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import webbrowser
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote

from truetune.findings import INTERRUPTED, OK, Both, Finding, Say, refuse
from truetune.listen import address_of, taken_port
from truetune.options import Config
from truetune.secret import config_folder, kept_secret

if TYPE_CHECKING:
    from truetune.web.words import Language

TOKEN_FILE = "web_token"
PORTS = 20
"""How many ports are tried, from `web_port` upwards."""
TABS_OF = {"webchat": ("chat",)}
"""The tabs that a verb shows, where that is not all of them."""


def serve(config: Config, verb: str, say: Say, chinese: bool) -> int:
    """Serve the page until somebody stops it; the exit status.

    Args:
        verb: webui or webchat.
        chinese: whether it is shown in Chinese where a browser does not say which language it wants.

    Raises:
        Problem: a package is missing, or no port can be had.
    """
    refuse(list(_missing()))
    for finding in _not_offered():
        say(Both(finding.line(), finding.line(True)))
    with taken_port(config, "web_host", "web_port", PORTS) as port, TemporaryDirectory(prefix="truetune-web-") as temp:
        os.environ |= {"GRADIO_TEMP_DIR": temp, "GRADIO_ANALYTICS_ENABLED": "False"}
        return _run(config, verb, port, say, chinese)


def _missing() -> Iterator[Finding]:
    names = [name for name in ("gradio", "opencc", "fastapi", "uvicorn") if find_spec(name) is None]
    if names:
        yield Finding("no-web-packages", "error", Both(f"the page needs {', '.join(names)}.",
                                                       f"网页需要 {'、'.join(names)}。"),
                      fix='pip install "truetune[web]"')


def _not_offered() -> Iterator[Finding]:
    if os.environ.get("GRADIO_SHARE", "").lower() in ("1", "true", "yes"):
        yield Finding("no-share", "warn", Both(
            "is not offered: it leads everybody's requests through somebody else's machine.",
            "不支持：它会让所有请求经过第三方的机器。"), option="GRADIO_SHARE", fix=Both(
                "From another machine: ssh -L 7860:127.0.0.1:7860 USER@THIS_MACHINE, then open the link below there.",
                "从别的机器访问：ssh -L 7860:127.0.0.1:7860 用户名@本机地址，然后在那里打开下面的链接。"))


def settle_token(config: Config) -> str:
    """The token: `web_token`, or the user's own, which is made at the first start.

    Raises:
        Problem: others can read the file it is kept in, or it cannot be written.
    """
    return config.web_token or kept_secret(config_folder() / TOKEN_FILE, "web_token", "TRUETUNE_TOKEN")[0]


def _run(config: Config, verb: str, port: socket.socket, say: Say, chinese: bool) -> int:
    import gradio as gr
    from fastapi import FastAPI

    from truetune.jobs.queue import Queue
    from truetune.web.chat.served import Models, wanted_by
    from truetune.web.guard import Guard
    from truetune.web.languages import Languages
    from truetune.web.page import TABS, build, looks
    from truetune.web.roots import Roots
    from truetune.web.stopping import Server
    from truetune.web.worker import Worker

    token, most = settle_token(config), int(config.web_max_upload * 1e6)
    roots = Roots([Path.cwd(), *(Path(name).expanduser().resolve() for name in config.web_roots)])
    queue, worker, models = Queue(), Worker(), Models(Path.cwd())
    asked = wanted_by(config)
    if asked:
        models.load(asked)  # before the page is there, so that slips are told at once

    def page(language: Language) -> FastAPI:
        blocks = build(roots, queue, worker, models, language, TABS_OF.get(verb, tuple(TABS)))
        app = FastAPI(title="truetune", openapi_url=None, docs_url=None, redoc_url=None)
        return gr.mount_gradio_app(
            app, blocks, f"/{language}", server_name=config.web_host, server_port=port.getsockname()[1],
            footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, enable_monitoring=False,
            show_error=True, max_file_size=most, pwa=False, **looks(language))

    app = Languages(page, "zh" if chinese else "en")
    address = address_of(_reached(config.web_host), port)

    def up() -> None:
        _tell(config, port, f"{address}/?token={quote(token)}", say)
        worker.start()

    server = Server(Guard(app, token, config.web_host, most), up)
    try:
        asyncio.run(server.serve(sockets=[port]))
    finally:
        worker.close()
    say(Both("stopped; what runs goes on", "已停止；正在运行的任务继续"))
    return INTERRUPTED if server.signal == signal.SIGINT else OK


def _reached(host: str) -> str:
    """The name by which a browser reaches an address that stands for all of this machine's."""
    return socket.gethostname() if host in ("0.0.0.0", "::", "[::]") else host


def _tell(config: Config, port: socket.socket, link: str, say: Say) -> None:
    number = port.getsockname()[1]
    if config.web_port not in (0, number):
        say(Both(f"port {config.web_port} is taken; {number} is used instead",
                 f"端口 {config.web_port} 已被占用，改用 {number}"))
    say(link)
    if os.environ.get("SSH_CONNECTION") and config.web_host == "127.0.0.1":
        say(Both(f"on the machine in front of you first: ssh -L {number}:127.0.0.1:{number} USER@THIS_MACHINE",
                 f"请先在您面前的机器上运行：ssh -L {number}:127.0.0.1:{number} 用户名@本机地址"))
    if config.web_open_browser:
        webbrowser.open(link)
