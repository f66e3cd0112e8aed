"""Rows of a data set as a model is trained on them: its tokens, those that are learned in colour, and how many tokens
the rows have beside cutoff_len. Asked of the worker, since a tokenizer takes torch with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from truetune.findings import Say, refuse
from truetune.options.read import Given, read_config

_ROWS = 5


def learned_tokens(texts: Mapping[str, str], chinese: bool, say: Say) -> str:
    """The page of `truetune data show` about the data set that `texts` (options, as typed) name.

    Raises:
        Problem: of the options, the model's tokenizer and template, or the data.
    """
    from truetune.look.page import page  # both import torch
    from truetune.look.show import look

    config, findings = read_config([], [Given(name, text, "web") for name, text in texts.items()])
    refuse(findings)
    view, _ = look(config, _ROWS, None, say)
    return page(view, chinese)


def framed(html: str, title: str) -> str:
    """A whole page within another one. It may run no script, and its style is its own."""
    return (f'<iframe sandbox="" title="{escape(title)}" srcdoc="{escape(html)}" '
            'style="width:100%;height:38rem;border:1px solid var(--border-color-primary);border-radius:6px"></iframe>')
