"""One page per language, each at an address of its own: `/en/`, `/zh/`, `/zh-Hant/`. `/` leads to the one wanted.

A page is drawn when it is first asked for, which takes about a second, so that the start waits for one alone. What
is typed and what is loaded belongs to the browser and to the server, not to a page: it is there in every language.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from truetune.web.words import LANGUAGES, Language, language_of

COOKIE = "truetune-language"
"""What was chosen in a browser before; the page's script writes it too."""
_YEAR = 365 * 86400


class Languages:
    """ASGI: the pages.

    Args:
        draw: makes the page of a language, an application that answers below `/LANGUAGE`.
        usual: the language of those whose browser names none that there is.
    """

    def __init__(self, draw: Callable[[Language], FastAPI], usual: Language):
        self._draw = draw
        self._usual: Language = usual
        self._pages: dict[Language, FastAPI] = {}
        self._open = AsyncExitStack()
        self._app = Starlette(lifespan=self._lifespan, routes=[
            *(Route(path, self._onward) for path in ("/", *(f"/{name}" for name in LANGUAGES))),
            Route("/manifest.json", _manifest)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        language: Language | None = next((name for name in LANGUAGES if path.startswith(f"/{name}/")), None)
        app = await self._page(language) if language else self._app
        await app(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self._open:
            await self._page(self._usual)
            yield

    async def _page(self, language: Language) -> FastAPI:
        if language not in self._pages:
            page = self._pages[language] = self._draw(language)
            await self._open.enter_async_context(page.router.lifespan_context(page))
        return self._pages[language]

    async def _onward(self, request: Request) -> RedirectResponse:
        """To the language of the link (`?lang=zh`), the one that was chosen in this browser, or the browser's own."""
        asked = request.query_params.get("lang") or request.url.path.strip("/")
        wanted = asked or request.cookies.get(COOKIE) or request.headers.get("accept-language")
        language = language_of(wanted) if wanted else self._usual
        response = RedirectResponse(f"./{language}/", headers={"cache-control": "no-store"})
        if asked:
            response.set_cookie(COOKIE, language, max_age=_YEAR, samesite="strict")
        return response


async def _manifest(request: Request) -> JSONResponse:
    """Gradio's pages ask for it above all of them."""
    return JSONResponse({"name": "truetune"})
