"""Verbs that answer: `chat` in the terminal, `api` to other programs, `webui` and `webchat` in a browser."""

from __future__ import annotations

from truetune.cli.words import configure_aloud, from_environment, from_run, named_file, open_terminal, take
from truetune.findings import OK

_API_ENVIRONMENT = {"API_HOST": "api_host", "API_PORT": "api_port", "API_KEY": "api_key",
                    "API_MODEL_NAME": "api_model_name", "MAX_CONCURRENT": "infer_batch"}
"""Variables that users of LLaMA-Factory set for its API, and the options that they mean."""

_WEB_ENVIRONMENT = {"GRADIO_SERVER_NAME": "web_host", "GRADIO_SERVER_PORT": "web_port",
                    "TRUETUNE_TOKEN": "web_token"}
"""Variables that users of LLaMA-Factory and of Gradio set for a page, and the options that they mean."""


def run_chat(words: list[str], chinese: bool) -> int:
    """Talk to a model."""
    once = take(words, "--once")
    terminal = open_terminal(chinese)
    config = configure_aloud(from_run(words), "chat", terminal)
    from truetune.serve.chat import chat

    chat(config, terminal, once)
    return OK


def run_api(words: list[str], chinese: bool) -> int:
    """Answer other programs until it is stopped."""
    terminal = open_terminal(chinese)
    config = configure_aloud(from_run(words), "api", terminal, from_environment(_API_ENVIRONMENT))
    from truetune.serve.api.server import serve

    return serve(config, terminal.say)


def run_webui(words: list[str], chinese: bool) -> int:
    """Serve the whole page until it is stopped."""
    return _page(words, chinese, "webui")


def run_webchat(words: list[str], chinese: bool) -> int:
    """Serve the page with only the chat, until it is stopped."""
    if words and not words[0].startswith("-") and "=" not in words[0] and not named_file(words):
        words = [f"--model_name_or_path={words[0]}", *words[1:]]
    return _page(words, chinese, "webchat")


def _page(words: list[str], chinese: bool, verb: str) -> int:
    terminal = open_terminal(chinese)
    config = configure_aloud(words, verb, terminal, from_environment(_WEB_ENVIRONMENT))
    from truetune.web.serve import serve

    return serve(config, verb, terminal.say, chinese)
