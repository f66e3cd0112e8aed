"""Who may come in. Most of it is asked of the guard around a real, small page of Gradio, without a browser."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from socket import create_connection, socket
from urllib.parse import quote

import gradio as gr
import pytest
from fastapi import FastAPI

from truetune.findings import Problem
from truetune.web.guard import Guard
from truetune.web.roots import Roots
from truetune.web.stopping import Server

TOKEN, MOST = "open-sesame", 1_000_000
BOUNDARY = "----boundary"


class Door:
    """A page with a guard, served in a thread of this process."""

    def __init__(self) -> None:
        self.uploads = 0
        with gr.Blocks(analytics_enabled=False) as blocks:
            asked, file = gr.Textbox(), gr.File()
            asked.submit(str.upper, asked, asked)
            file.upload(lambda name: None, file, None)
        app = FastAPI(openapi_url=None)
        gr.mount_gradio_app(app, blocks, "/", ssr_mode=False, max_file_size=MOST, footer_links=[])
        self.port = socket()
        self.port.bind(("127.0.0.1", 0))
        self.ready = threading.Event()
        self.guard = Guard(app, TOKEN, "127.0.0.1", MOST)
        self.server = Server(self.guard, self.ready.set)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.port])))
        self.thread.start()
        assert self.ready.wait(20)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port.getsockname()[1]}"

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> HTTPResponse:
        """headers: with _ for -, and None to leave one out."""
        connection = HTTPConnection(self.host, timeout=20)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        response.text = response.read().decode("utf-8", "replace")  # type: ignore[attr-defined]
        connection.close()
        return response

    def cookie(self) -> str:
        """What a browser keeps that has opened the link."""
        return self.ask(f"/?token={TOKEN}").headers["set-cookie"].partition(";")[0]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        door = Door()
        yield door
        door.server.should_exit = True
        door.thread.join(20)


PATHS = ("/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=a", "/theme.css", "/assets/x.js",
         "/gradio_api/heartbeat/a", "/gradio_api/file=/etc/passwd", "/nothing", "/zh/config",
         "/en/gradio_api/info")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_without_the_token(door: Door, path: str):
    response = door.ask(path)
    assert response.status == 401
    assert "Open the link with the token first." in response.text and "请先打开带 token 的链接。" in response.text


def test_the_page_asks_for_the_token_in_both_languages(door: Door):
    response = door.ask("/")
    assert response.status == 401
    assert "This page needs the token" in response.text and "进入本网页需要链接里的 token" in response.text
    assert "gradio" not in response.text.lower()


def test_the_link_sets_a_cookie_and_leads_to_the_page_without_the_token(door: Door):
    response = door.ask(f"/?token={TOKEN}&lang=zh")
    assert response.status == 200
    assert 'http-equiv="refresh" content="0; url=./?lang=zh"' in response.text
    kept = response.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(kept.split("; "))
    assert TOKEN not in response.text + kept  # a cookie goes to every port of this machine
    assert door.ask("/", cookie=kept.partition(";")[0]).status == 200
    assert door.ask("/config", cookie=kept.partition(";")[0]).status == 200


def test_the_token_may_be_typed_instead(door: Door):
    typed = {"Content_Type": "application/x-www-form-urlencoded", "Origin": f"http://{door.host}"}
    response = door.ask("/login", "POST", f"token={TOKEN}".encode(), **typed)
    assert response.status == 200 and response.headers["set-cookie"]


def test_a_wrong_token_is_refused_slowly(door: Door):
    """One guess a second, however many are tried at once; who has the cookie does not wait."""
    begun = time.monotonic()
    guesses = [threading.Thread(target=door.ask, args=(f"/?token=guess-{n}",)) for n in range(3)]
    for guess in guesses:
        guess.start()
    assert door.ask("/config", cookie=door.cookie()).status == 200
    assert time.monotonic() - begun < 1
    for guess in guesses:
        guess.join()
    assert time.monotonic() - begun > 2.5


@pytest.mark.parametrize("cookie", ["", "truetune-1=x", "=;;==", "truetune-1", '"', "a=\x7f"])
def test_other_cookies_do_not_open(door: Door, cookie: str):
    assert door.ask("/config", cookie=cookie).status == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "", "192.168.1.5:7860"])
def test_another_name_of_the_host_is_refused(door: Door, host: str):
    """A site whose name was made to point here (DNS rebinding) sends its own name."""
    assert door.ask("/", host=host, cookie=door.cookie()).status == 403


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "none"}])
def test_a_post_from_another_page_is_refused(door: Door, headers: dict[str, str]):
    for path in ("/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/cancel", "/login"):
        assert door.ask(path, "POST", b"{}", cookie=door.cookie(), **headers).status == 403


def test_what_others_answer_with_cannot_be_read_from_another_page(door: Door):
    """Another port of this machine is the same site to a browser, which sends the cookie with its requests."""
    for site in ("same-site", "cross-site"):
        assert door.ask("/config", cookie=door.cookie(), Sec_Fetch_Site=site).status == 403
    assert door.ask("/", cookie=door.cookie(), Sec_Fetch_Site="cross-site").status == 200  # a link in a mail


@pytest.mark.parametrize("path", [
    "/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/file=http://127.0.0.1:1/", "/gradio_api/vibe-code",
    "/gradio_api/file=https://example.com/", "/monitoring", "/gradio_api/openapi.json", "/docs", "/openapi.json",
    "/gradio_api/dev/reload", "/gradio_api/run/predict", "/gradio_api/call/upper", "/gradio_api/runs", "/zh/monitoring",
    "/en/zh/config", "/nothing/zh/config", "/zh-Hant/docs"])
def test_what_the_page_does_not_call_is_not_there(door: Door, path: str):
    assert door.ask(path, cookie=door.cookie()).status == 404


def upload(door: Door, name: str, content: bytes, **headers: str) -> HTTPResponse:
    body = (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            f"Content-Type: text/plain\r\n\r\n").encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    return door.ask("/gradio_api/upload", "POST", body, cookie=door.cookie(), **{
        "Content_Type": f"multipart/form-data; boundary={BOUNDARY}", **headers})


def test_an_upload_is_kept_in_the_folder_for_uploads_whatever_its_name(door: Door, tmp_path_factory):
    response = upload(door, "../../../escaped.txt", b"some words")
    assert response.status == 200
    kept = Path(response.text.strip('[]"'))
    assert kept.is_relative_to(tmp_path_factory.getbasetemp()) and kept.read_bytes() == b"some words"
    assert "uploads" in str(kept) and ".." not in kept.parts


def test_no_file_outside_that_folder_is_served(door: Door, tmp_path: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("nobody may read this", encoding="utf-8")
    kept = Path(upload(door, "a.txt", b"mine").text.strip('[]"'))
    assert door.ask(f"/gradio_api/file={kept}", cookie=door.cookie()).text == "mine"
    link = kept.with_name("link.txt")
    link.symlink_to(secret)
    here = Path(__file__)
    for path in (secret, link, f"{kept.parent}/../../../{secret.relative_to(secret.anchor)}", "/etc/passwd",
                 "/proc/self/environ", here, here.name, f"{kept.parent}/../../../../etc/passwd", "../../etc/passwd",
                 "~/.config/truetune/web_token", kept.parent, f"{kept}\x00.txt", "file:///etc/passwd"):
        response = door.ask(f"/gradio_api/file={quote(str(path))}", cookie=door.cookie())
        assert response.status in (400, 403, 404), path
        assert "nobody may" not in response.text and "root:" not in response.text


def test_an_upload_that_is_too_large_is_refused_before_it_is_read(door: Door):
    response = upload(door, "a", b"", Content_Length="99000000")
    assert response.status == 413 and "web_max_upload" in response.text


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_and_so_is_one_that_does_not_say_how_large_it_is(door: Door, path: str):
    """It comes in pieces, without end, and is answered before its end."""
    host, port = door.host.split(":")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'.encode()
    with closing(create_connection((host, int(port)), timeout=20)) as client:
        client.sendall((f"POST {path} HTTP/1.1\r\nHost: {door.host}\r\nCookie: {door.cookie()}\r\n"
                        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nTransfer-Encoding: chunked\r\n\r\n"
                        ).encode())
        with suppress(OSError):
            for piece in (head, *[b"x" * 100_000] * 120):
                client.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_headers_keep_other_sites_out(door: Door):
    headers = door.ask("/", cookie=door.cookie()).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer" and "server" not in headers
    assert "access-control-allow-origin" not in headers


# ── Folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    for name in ("home", "more", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "home" / "also").symlink_to(tmp_path / "more")
    return Roots([tmp_path / "home", tmp_path / "more"])


def test_paths_below_the_folders_are_found(roots: Roots, tmp_path: Path):
    assert roots.inside("saves/run") == tmp_path / "home/saves/run"
    assert roots.inside(f"  {tmp_path}/more/x\n") == tmp_path / "more/x"
    assert roots.inside("also/x") == tmp_path / "more/x"
    assert roots.inside("../home/数据 集.json") == tmp_path / "home/数据 集.json"
    assert roots.inside("") == tmp_path / "home"


@pytest.mark.parametrize("typed", ["../other", "out/x", "/etc/passwd", "~/x", "/proc/self/root", "saves/../../other",
                                   "../homes"])
def test_paths_outside_are_refused(roots: Roots, typed: str):
    with pytest.raises(Problem, match="lies outside the folders"):
        roots.inside(typed, "output_dir")


@pytest.mark.parametrize("typed", ["a\0b", "x" * 5000, "~nobody-of-that-name/x", "a\nb", "\x1b[2J"])
def test_what_is_no_path_is_told_as_such(roots: Roots, typed: str):
    with pytest.raises(Problem, match=r"output_dir: .* is not a path"):
        roots.inside(typed, "output_dir")


@pytest.mark.parametrize("typed", ["C:\\Windows\\x", "\\\\server\\share", "; rm -rf x", "$(id)", "x" * 200])
def test_odd_names_are_names_below_the_first_folder(roots: Roots, typed: str):
    assert roots.inside(typed).parent == roots.home
