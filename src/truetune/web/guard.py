"""Who may come in, before anything of the page reads a request.

Whoever can reach the port could train, read and write files. So there is always a token: it stands in the link that is
printed, and opening that sets a cookie. And a page of somebody else's that is open in the same browser can send
requests here, too: they are known by the headers that browsers add (Host, Origin, Sec-Fetch-Site) and refused, cookie
or not.

Only those of Gradio's paths are let through that the page itself calls.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from truetune.findings import Both
from truetune.rules.api import is_public
from truetune.serve.api.key import own_host
from truetune.web.words import LANGUAGES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

LOGIN = "/login"
_PAGE = re.compile(rf"^/(?:{'|'.join(LANGUAGES)})(?=/|$)")
"""Where the address of a page ends: each language has one."""
_ENTRIES = ("", "/")
"""Paths, below a page's address or above all of them, that are opened by hand."""
_PATHS = re.compile(
    r"/?|/config|/theme\.css|/robots\.txt|/favicon\.ico|/manifest\.json|/(?:assets|static|svelte)/.*"
    r"|/gradio_api/(?:queue/(?:join|data)|heartbeat/[^/]*|upload|upload_progress|cancel|reset|app_id|startup-events"
    r"|info|component_server|theme\.css|file=(?!https?:).*)", re.DOTALL)
"""What the page calls. Gradio has more: it fetches addresses for whoever asks, keeps histories, edits its own code."""
_UPLOAD = "/gradio_api/upload"
_LETTER = 8 * 10**6
"""Bytes of any other request: what is typed into all fields, and answers of a model that go back as history."""
_DAYS = 30
_GUESS = 1.0
"""Seconds that a wrong token takes; others that are tried meanwhile wait for it."""
_MOST_GUESSES = 20
"""That may wait at once."""

_POLICY = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "font-src 'self' data:", "media-src 'self' data: blob:",
    "connect-src 'self' data: blob:", "worker-src 'self' blob:", "frame-src 'self' blob:", "object-src 'none'",
    "base-uri 'self'", "form-action 'self'", "frame-ancestors 'none'"))
"""Nothing is fetched from elsewhere: a picture in a model's answer could carry away what was said."""
_HEADERS: Headers = [
    (b"content-security-policy", _POLICY.encode()), (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"), (b"cross-origin-opener-policy", b"same-origin")]


class _Refused(Exception):
    """status: of HTTP. words: why."""

    def __init__(self, status: int, words: Both):
        self.status, self.words = status, words
        super().__init__(words)


class Guard:
    """ASGI around the page. token: what lets in. host: the address that is listened on. upload: most bytes of a file.
    """

    def __init__(self, app: App, token: str, host: str, upload: int):
        self._app, self._token, self._host, self._upload = app, token, host, upload
        self._local = not is_public(host)
        # Cookies go to every port of a host, so to other people's servers on this machine: the token is not in it.
        self._pass = hmac.new(token.encode(), b"truetune web", sha256).hexdigest()
        self._one_guess, self._guesses = asyncio.Lock(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            await self._respond(scope, headers, receive, _with_headers(send))
        except _Refused as refused:
            await _answer(_with_headers(send), refused.status, _plain(refused.words),
                          [(b"connection", b"close")], b"text/plain")

    async def _respond(self, scope: Scope, headers: dict[bytes, str], receive: Receive, send: Send) -> None:
        """Raises:
        _Refused: it may not come in, or asks for too much.
        """
        path, method = _PAGE.sub("", scope["path"], count=1), scope["method"]
        if self._local and not own_host(headers.get(b"host", ""), self._host):
            raise _Refused(403, Both("This page answers on this machine only, by the name localhost or its address.",
                                     "本网页只在本机应答，请用 localhost 或本机地址访问。"))
        if (method not in ("GET", "HEAD") or path not in _ENTRIES) and not _own_request(headers, method):
            raise _Refused(403, Both("This request comes from another site.", "这个请求来自别的网站。"))
        if method not in ("GET", "HEAD", "POST"):
            raise _Refused(405, Both("The page does not do this.", "网页不支持这种请求。"))
        bounded = _Bounded(headers, receive, self._upload + _LETTER if path == _UPLOAD else _LETTER)
        if path == LOGIN and method == "POST":
            body = await _whole(bounded)
            return await self._log_in(scope, headers, _field(body.decode("utf-8", "replace"), "token"), send)
        sent = _field(scope["query_string"].decode("latin-1"), "token")
        if path in _ENTRIES and sent and not self._is_in(headers):
            return await self._log_in(scope, headers, sent, send)
        if path in _ENTRIES and sent:
            return await _answer(send, 200, _onward(scope, headers))
        if not self._is_in(headers):
            if path in _ENTRIES:
                return await _answer(send, 401, _login_page(headers))
            raise _Refused(401, Both("Open the link with the token first.", "请先打开带 token 的链接。"))
        if not _PATHS.fullmatch(path):
            raise _Refused(404, Both("There is nothing here.", "这里什么也没有。"))
        await bounded.given_to(self._app, scope, send)

    def _is_in(self, headers: dict[bytes, str]) -> bool:
        try:
            kept = SimpleCookie(headers.get(b"cookie", "")).get(_cookie(headers))
        except CookieError:
            return False
        return kept is not None and hmac.compare_digest(kept.value.encode(), self._pass.encode())

    async def _log_in(self, scope: Scope, headers: dict[bytes, str], sent: str, send: Send) -> None:
        """Raises:
        _Refused: too many have been tried.
        """
        if not hmac.compare_digest(sent.strip().encode(), self._token.encode()):
            await self._slow_down()
            return await _answer(send, 401, _login_page(headers, wrong=True))
        cookie = f"{_cookie(headers)}={self._pass}; Max-Age={_DAYS * 86400}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(send, 200, _onward(scope, headers), [(b"set-cookie", cookie.encode())])

    async def _slow_down(self) -> None:
        if self._guesses >= _MOST_GUESSES:
            raise _Refused(429, Both("Too many wrong tokens; wait a moment.", "错误的 token 太多，请稍候。"))
        self._guesses += 1
        try:
            async with self._one_guess:
                await asyncio.sleep(_GUESS)
        finally:
            self._guesses -= 1


def _cookie(headers: dict[bytes, str]) -> str:
    """Its name: of the port as the browser sees it, so that two pages on one machine do not put out each other."""
    port = headers.get(b"host", "").rpartition(":")[2]
    return f"truetune-{port if port.isdecimal() else '80'}"


def _own_request(headers: dict[bytes, str], method: str) -> bool:
    """Whether a request comes from this page, or from no page at all. Browsers tell by Sec-Fetch-Site, older ones by
    Origin; other programs send neither, and have no cookie that somebody else could use."""
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        return site == "same-origin" or (site == "none" and method in ("GET", "HEAD"))
    return origin is None or urlsplit(origin).netloc == headers.get(b"host", "")


class _Bounded:
    """`receive` that ends where more is sent than may be.

    Raises:
        _Refused: so much is announced already.
    """

    def __init__(self, headers: dict[bytes, str], receive: Receive, most: int):
        self._receive, self._most, self._size = receive, most, 0
        self.refused = _Refused(413, Both(
            f"That is larger than {most / 1e6:,.0f} MB; web_max_upload says how much may be sent.",
            f"超过 {most / 1e6:,.0f} MB；上限由 web_max_upload 决定。"))
        told = headers.get(b"content-length", "0")
        if not told.isdecimal() or int(told) > most:
            raise self.refused

    @property
    def passed(self) -> bool:
        return self._size > self._most

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self.passed:
            raise self.refused
        return message

    async def given_to(self, app: App, scope: Scope, send: Send) -> None:
        """Let `app` answer.

        Raises:
            _Refused: too much has come. Whatever `app` says of that is not sent.
        """
        async def sending(message: MutableMapping[str, Any]) -> None:
            if not self.passed:
                await send(message)

        try:
            await app(scope, self, sending)
        finally:
            if self.passed:
                raise self.refused from None


async def _whole(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _field(query: str, name: str) -> str:
    return parse_qs(query, max_num_fields=20).get(name, [""])[0] if len(query) < 10_000 else ""


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str, headers: Headers | None = None, kind: bytes = b"text/html"
                  ) -> None:
    body = text.encode()
    await send({"type": "http.response.start", "status": status, "headers": [
        (b"content-type", kind + b"; charset=utf-8"), (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"), *(headers or [])]})
    await send({"type": "http.response.body", "body": body})


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_HEAD = """<!doctype html><html lang="{language}"><meta charset="utf-8"><title>truetune</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1rem }}
input, button {{ font: inherit; padding: .5rem .75rem }} input {{ width: 100%; box-sizing: border-box }}
label, button {{ display: block; margin: 1rem 0 .25rem }} code {{ word-break: break-all }}</style>"""


def _plain(words: Both) -> str:
    return f"{words.en}\n{words.zh}\n"


def _language(headers: dict[bytes, str]) -> str:
    return "zh" if headers.get(b"accept-language", "").lower().startswith("zh") else "en"


def _onward(scope: Scope, headers: dict[bytes, str]) -> str:
    """A page that leads to the one without the token. A redirect would do less: where the link was clicked on another
    site, the browser does not send the new cookie along with it."""
    language = _field(scope["query_string"].decode("latin-1"), "lang")
    place = f"./?lang={language}" if re.fullmatch(r"[A-Za-z-]{2,10}", language) else "./"
    return (_HEAD.format(language=_language(headers)) +
            f'<meta http-equiv="refresh" content="0; url={escape(place)}"><a href="{escape(place)}">truetune</a>')


def _login_page(headers: dict[bytes, str], wrong: bool = False) -> str:
    ours = [Both("That is not the token of this page.", "这不是本网页的 token。")] if wrong else []
    ours += [Both("This page needs the token that stands in the link. <code>truetune webui</code> has printed it, in "
                  "the terminal where it was started.",
                  "进入本网页需要链接里的 token。它显示在启动 <code>truetune webui</code> 的终端里。")]
    told = "".join(f"<p>{words.en}</p><p lang='zh'>{words.zh}</p>" for words in ours)
    return (_HEAD.format(language=_language(headers)) + f"<main><h1>truetune</h1>{told}"
            f'<form method="post" action="{LOGIN.lstrip("/")}"><label for="token">Token</label>'
            '<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>'
            "<button>Open · 进入</button></form></main>")
