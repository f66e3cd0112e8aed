"""From a template's name to the Jinja text that a tokenizer saves, and to rendered text without a tokenizer."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from truetune.data.templates.table import TEMPLATES, Template, Value
from truetune.data.tools import tool_macros
from truetune.findings import WRONG_OPTIONS, Both, problem

Thinking = bool | None | Literal["unset"]
"""What `enable_thinking` may be. "unset": nothing is decided, answers stay as the data have them."""

_FOLDER = Path(__file__).parent

_SHARED: dict[str, Value] = {"opening": "", "ask": "", "answer_open": "", "answer_end": "", "call_open": "",
                             "call_close": "", "folds_system": False, "trims_lone_tools": False, "tool_marks": None}
"""What conversation.jinja reads and a family need not say."""


def find_template(name: str) -> Template:
    """Raises:
    Problem: no template has this name (status 2); near names are told.
    """
    if name not in TEMPLATES:
        near = difflib.get_close_matches(name.lower(), TEMPLATES, n=3, cutoff=0.5)
        raise problem("unknown-template", Both(f"{name} is no template.", f"没有模板 {name}。"), option="template",
                      status=WRONG_OPTIONS,
                      fix=Both(f"Did you mean {' or '.join(near)}?", f"是不是 {' 或 '.join(near)}？") if near else
                      Both("Leave it out to use the model's own chat template.", "不填就使用模型自带的对话模板。"))
    return TEMPLATES[name]


@cache
def template_source(name: str, *, tool_format: str | None = None, default_system: str | None = None,
                    enable_thinking: Thinking = "unset", preserve_thinking: bool = False) -> str:
    """The template as one Jinja text that needs nothing else: what is saved as `tokenizer.chat_template`.

    Args:
        tool_format: another way to write tools and calls than the template's own; its calls then have nothing before
            them but the prompt, and end as an answer does.
        default_system: another system text where a conversation brings none ("": none at all).
        enable_thinking: baked in as what holds when a server passes nothing.
        preserve_thinking: baked in likewise. False writes all answers but the last as if they had no thought.

    Raises:
        Problem: an unknown name or tool format (status 2).
    """
    template = find_template(name)
    opened, closed = template.thought
    values = {**_SHARED, **template.values, "thought_open": opened, "thought_close": closed,
              "open_word": opened.strip(), "close_word": closed.strip(),
              "default_system": template.default_system if default_system is None else default_system,
              "empty_thought": opened + closed if template.empty_thought is None else template.empty_thought,
              "reasoning": template.reasoning, "efficient_eos": template.efficient_eos}
    after: dict[str, Value] = {"call_open": "", "call_close": "", "tool_marks": None} if tool_format else {}
    served: dict[str, Value] = {"preserve_thinking": preserve_thinking}
    if enable_thinking != "unset":
        served["enable_thinking"] = enable_thinking
    return "\n".join([*(f"{{%- if {option} is not defined %}}{_set({option: value})}{{%- endif %}}"
                        for option, value in served.items()),
                      _set(values), tool_macros(tool_format or template.tool_format or "default").strip(),
                      _text(f"{template.family}.jinja"), _set(after), _text("conversation.jinja")])


def render_text(name: str, messages: Sequence[Mapping[str, Any]], system: str | None = None, bos: str = "<BOS>",
                eos: str = "<EOS>", *, tools: Sequence[Mapping[str, Any]] | None = None,
                add_generation_prompt: bool = False, tool_format: str | None = None, default_system: str | None = None,
                enable_thinking: Thinking = "unset", preserve_thinking: bool = False) -> str:
    """A conversation as the named template writes it, by transformers' own way of rendering, without a tokenizer.

    Args:
        system: put in front as a system message; empty or None means the template's default, as in LLaMA-Factory.

    Raises:
        Problem: an unknown name or tool format.
        jinja2.TemplateError: roles that the template cannot write.
    """
    # Imported here: the names of templates are looked up where a second for transformers is too long.
    from transformers.utils.chat_template_utils import render_jinja_template

    source = template_source(name, tool_format=tool_format, default_system=default_system,
                             enable_thinking=enable_thinking, preserve_thinking=preserve_thinking)
    talk = [dict(message) for message in messages]
    if system:
        talk.insert(0, {"role": "system", "content": system})
    rendered, _ = render_jinja_template([talk], tools=[dict(tool) for tool in tools] if tools else None,
                                        chat_template=source, add_generation_prompt=add_generation_prompt,
                                        bos_token=bos, eos_token=eos)
    return rendered[0]


@cache
def _text(file: str) -> str:
    return (_FOLDER / file).read_text(encoding="utf-8").strip()


def _set(values: Mapping[str, Value]) -> str:
    return "\n".join(f"{{%- set {name} = {_literal(value)} %}}" for name, value in values.items())


def _literal(value: Value) -> str:
    """As Jinja writes it, which is as JSON does, but for null."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
