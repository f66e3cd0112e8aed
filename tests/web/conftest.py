"""What tests of the page share: the real `truetune webui` in a process of its own, and Debian's Chromium before it.

A test that needs a browser takes `tab`; one that needs two, another language or a phone takes `open_tab`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from truetune.jobs.queue import Queue

pytest.importorskip("gradio", reason="the extra 'web' is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Browser, Locator, expect = sync_api.Browser, sync_api.Locator, sync_api.expect

TOKEN = "a-token-of-the-tests"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 90.0
"""Seconds that anything may take; several test processes may share the machine."""
expect.set_options(timeout=PATIENCE * 1000)


# ── The server ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class PageServer:
    """The page, started in `folder`. home: where this server's settings, state and caches are."""

    home: Path
    words: tuple[str, ...] = ("webui",)
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        self.folder, self.log = self.home / "work", self.home / "log.txt"
        self.folder.mkdir(parents=True)
        self.start()

    @property
    def address(self) -> str:
        """Without the token."""
        return self.url.partition("/?")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def start(self, port: int = 0) -> None:
        """Start, and wait until it answers."""
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("GRADIO_", "TRUETUNE_", "SSH_"))}
        own = {"TRUETUNE_TOKEN": TOKEN, "HOME": str(self.home), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8",
               **{f"XDG_{name}_HOME": str(self.home / name.lower()) for name in ("CONFIG", "STATE", "DATA")}}
        self.log.write_text("", encoding="utf-8")
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "truetune", *self.words, f"--web_port={port}", "--lang", "en"], cwd=self.folder,
                stdout=log, stderr=subprocess.STDOUT, env={**kept, **own, **self.environment})
        self.url = self._printed()

    def _printed(self) -> str:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            found = re.search(r"http://\S+/\?token=\S+", self.said)
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"the page did not start:\n{self.said}")

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8")

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it without a word, as a machine without memory does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def restart(self) -> None:
        """Start it again on the same port, once it has been killed or stopped."""
        if self.process.poll() is None:
            self.kill()
        self.start(self.port)


@pytest.fixture(scope="module")
def page_words() -> tuple[str, ...]:
    """How the page is started; a module that wants another one has a fixture of this name."""
    return ("webui",)


@pytest.fixture(scope="module")
def page_server(cache: Path, tmp_path_factory: pytest.TempPathFactory, page_words: tuple[str, ...]
                ) -> Iterator[PageServer]:
    """One for all tests of a module, in an empty folder."""
    server = PageServer(tmp_path_factory.mktemp("page") / "home", page_words)
    yield server
    queue = Queue(server.home / "state" / "truetune" / "jobs")
    for _ in range(2):  # what a failed test has left behind; the second time it is killed
        for job in queue.jobs():
            if job.active:
                queue.stop(job)
    if server.process.poll() is None:
        server.stop()


# ── The browser ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium found (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


_NOTICE_ERRORS = """
window.seen = [];
new MutationObserver(changes => {
  for (const change of changes) for (const node of change.addedNodes) {
    if (!node.querySelectorAll) continue;
    const item = ".toast-message-item";
    for (const found of [...node.querySelectorAll(item), ...(node.matches(item) ? [node] : [])])
      window.seen.push([found.className, found.innerText]);
  }
}).observe(document, {childList: true, subtree: true});
"""


class Tab:
    """The page in a browser. page: playwright's. Whatever goes wrong that the test did not expect fails it at its end:
    errors of JavaScript, Gradio's red messages, and those that tell that the page itself has failed."""

    def __init__(self, page: Any, server: PageServer):
        self.page, self.server = page, server
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: self.errors.append(f"JavaScript: {error}"))
        page.add_init_script(_NOTICE_ERRORS)

    def open(self, query: str = "") -> None:
        """Load the page by its link. query: more to stand in it, such as `lang=zh`."""
        self.page.goto(f"{self.server.url}&{query}" if query else self.server.url)
        self.ready()

    def ready(self) -> None:
        """Wait until the page can be used."""
        expect(self.page.get_by_role("tab").first).to_be_visible(timeout=PATIENCE * 1000)

    def choose(self, name: str) -> None:
        """Show the tab with this name, as it is called in the page's language."""
        self.page.get_by_role("tab", name=name, exact=True).first.click()

    def field(self, option: str) -> Locator:
        """What is typed into, of an option."""
        return self.page.locator(f"#option-{option}").locator("textarea, input").first

    def fill(self, option: str, value: str | bool) -> None:
        """Fill the field of an option as a person does, and leave it."""
        field = self.field(option)
        if isinstance(value, bool):
            return field.set_checked(value)
        if field.get_attribute("role") in ("listbox", "combobox"):
            field.fill(value)
            return field.press("Enter")
        self.type(field, value)
        field.press("Tab")

    def type(self, field: Locator, value: str) -> None:
        """Fill it, at the pace of a person: what is typed within the instant in which Gradio draws a field, as when its
        fold is opened, is written over by what Gradio still had for it."""
        for _ in range(10):
            field.fill(value)
            self.page.wait_for_timeout(400)
            if field.input_value() == value:
                return
        raise AssertionError(f"{field} does not keep {value!r}, but holds {field.input_value()!r}")

    def language(self, name: str) -> None:
        """Choose it by its own name: 简体中文."""
        self.page.locator("#language input").first.click()
        with self.page.expect_navigation():
            self.page.get_by_role("option", name=name).click()
        self.ready()

    def message(self) -> str:
        """What the messages say that are up over the page, once there is one; they are closed."""
        shown = self.page.locator(".toast-body").first
        text = "\n".join(shown.locator(".toast-message-text").all_inner_texts() or [shown.inner_text()])
        # At once, and nothing where it has gone by itself meanwhile.
        shown.locator(".toast-close").evaluate_all("buttons => buttons.forEach(button => button.click())")
        return text

    def shot(self, name: str) -> None:
        """Keep a picture of the whole page, in the folder that TRUETUNE_SCREENSHOTS names."""
        folder = os.environ.get("TRUETUNE_SCREENSHOTS")
        path = Path(folder) / f"{name}.png" if folder else self.server.home / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=True)

    def require_fine(self) -> None:
        """Raises:
        AssertionError: something went wrong.
        """
        seen = self.page.evaluate("window.seen || []") if not self.page.is_closed() else []
        wrong = [text for kind, text in seen if "error" in kind.split() or "page itself failed" in text]
        assert not self.errors + wrong, json.dumps(self.errors + wrong, ensure_ascii=False) + self.server.said


OpenTab = Callable[..., Tab]


@pytest.fixture
def open_tab(browser: Browser, page_server: PageServer) -> Iterator[OpenTab]:
    """Open the page in a browser of its own: `open_tab(locale="zh-CN", width=390, color_scheme="dark")`."""
    tabs: list[Tab] = []

    def opened(query: str = "", width: int = 1280, height: int = 900, **context: Any) -> Tab:
        own = browser.new_context(viewport={"width": width, "height": height}, **{"locale": "en-US", **context})
        tabs.append(Tab(own.new_page(), page_server))
        tabs[-1].open(query)
        return tabs[-1]

    yield opened
    try:
        for tab in tabs:
            tab.require_fine()
    finally:
        for tab in tabs:
            tab.page.context.close()


@pytest.fixture
def tab(open_tab: OpenTab) -> Tab:
    """The page in English, on a desk."""
    return open_tab()
