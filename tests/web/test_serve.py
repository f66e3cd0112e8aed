"""Starting the page and ending it: `truetune webui` as a person starts it, and what is said when it cannot."""

from __future__ import annotations

import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from conftest import Truetune

from truetune.findings import Problem
from truetune.listen import taken_port
from truetune.options import Config
from truetune.options.read import read_config
from truetune.web.serve import settle_token
from web.conftest import PageServer


def config(*words: str) -> Config:
    return read_config(list(words))[0]


def ask(address: str, path: str, cookie: str = "", languages: str = "") -> HTTPResponse:
    """The answer to a request, without its body. languages: that the browser prefers."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.request("GET", path, headers={"Cookie": cookie, "Accept-Language": languages})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def cookie_of(server: PageServer) -> str:
    """What the link with the token sets."""
    return ask(server.address, server.url.removeprefix(server.address)).headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize(("path", "languages", "chosen", "wanted"), [
    ("/", "zh-TW,zh;q=0.9", "", "zh-Hant"), ("/", "zh-CN", "", "zh"), ("/", "fr", "", "en"), ("/", "", "", "en"),
    ("/", "zh-CN", "en", "en"), ("/?lang=zh", "en-GB", "en", "zh"), ("/zh", "en-GB", "", "zh")])
def test_each_language_has_a_page_and_a_browser_is_led_to_its_own(
        page_server: PageServer, path: str, languages: str, chosen: str, wanted: str):
    """By the link, by what was chosen before, by what the browser prefers; English where that is none of ours."""
    response = ask(page_server.address, path, f"{cookie_of(page_server)}; truetune-language={chosen}", languages)
    assert (response.status, response.headers["location"]) == (307, f"./{wanted}/")
    assert ("set-cookie" in response.headers) == (path != "/")


def test_a_page_of_each_language_answers(page_server: PageServer):
    for language in ("en", "zh", "zh-Hant"):
        assert ask(page_server.address, f"/{language}/", cookie_of(page_server)).status == 200


def test_it_starts_lets_in_and_ends(page_server: PageServer):
    """The cookie holds after a kill and a restart; Ctrl-C ends it in two seconds with status 130; the token is nowhere
    in what it prints but in the link."""
    cookie = cookie_of(page_server)
    assert ask(page_server.address, "/en/", cookie).status == 200
    assert ask(page_server.address, "/").status == 401
    page_server.kill()
    page_server.restart()
    assert ask(page_server.address, "/en/", cookie).status == 200
    listening = HTTPConnection(page_server.address.removeprefix("http://"), timeout=20)  # as an open page does
    listening.request("GET", "/en/gradio_api/heartbeat/abc", headers={"Cookie": cookie})
    assert listening.getresponse().status == 200
    begun = time.monotonic()
    assert page_server.stop() == 130
    assert time.monotonic() - begun < 20  # 2 s alone; tests share the machine
    assert "what runs goes on" in page_server.said and "Traceback" not in page_server.said
    token = page_server.url.partition("token=")[2]
    assert page_server.said.count(token) == 1


def test_where_the_port_is_taken_the_next_free_one_is_used():
    with taken_port(config("web_port=0"), "web_host", "web_port") as first:
        first.listen()
        number = first.getsockname()[1]
        with taken_port(config(f"web_port={number}"), "web_host", "web_port", 20) as second:
            assert number < second.getsockname()[1] < number + 20
        with (pytest.raises(Problem, match="cannot be had"),
              taken_port(config(f"web_port={number}"), "web_host", "web_port")):
            pass


def test_no_such_address():
    with pytest.raises(Problem, match="web_host: there is no address"), \
            taken_port(config("web_host=no such host"), "web_host", "web_port"):
        pass


def test_a_token_is_made_once_and_kept_for_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made = settle_token(config())
    file = tmp_path / "truetune" / "web_token"
    assert len(made) > 30 and file.read_text(encoding="utf-8").strip() == made
    assert file.stat().st_mode & 0o777 == 0o600
    assert settle_token(config()) == made
    assert settle_token(config("web_token=mine")) == "mine"
    file.chmod(0o644)
    with pytest.raises(Problem, match="others can read"):
        settle_token(config())


def test_a_public_address_needs_a_token(truetune: Truetune):
    done = truetune("webui", "--lang", "en", GRADIO_SERVER_NAME="0.0.0.0", TRUETUNE_TOKEN="")
    assert done.returncode == 2
    assert "web_host (environment: GRADIO_SERVER_NAME): 0.0.0.0 can be reached by other machines" in done.stderr
    assert "ssh -L" in done.stderr
