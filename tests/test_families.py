"""Many families, any conversation: ids are `apply_chat_template`'s, and every answer stands behind what chat sends.

The templates are the named ones, written into the real tokenizer with their marks as special tokens.
"""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truetune.data.messages import BadRow, Conversation, Message, ToolCall, conversation
from truetune.data.renderer import Masks, Renderer
from truetune.data.template import settle_template
from truetune.data.templates import TEMPLATES, render_text
from truetune.data.templates.apply import stop_words
from truetune.options import Config

FAMILIES = ("chatml", "llama3", "qwen", "qwen3", "qwen3_5", "gemma2", "gemma3", "mistral", "llama2", "phi4", "glm4",
            "glm4_moe", "deepseek3", "deepseekr1", "granite3", "cohere", "seed_oss", "gpt_oss", "yi", "zephyr",
            "intern2", "lfm2", "minimax1", "falcon", "vicuna", "hunyuan")
_MARK = re.compile(r"<\|?[\w:.\-▁| /]+?\|?>|\[/?[A-Z_]+\]|\[g?MASK\]|<｜[^>]*｜>")
_PROBE = [{"role": "system", "content": "S"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"},
          {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
TOOL = {"type": "function", "function": {"name": "find", "description": "Find it.", "parameters": {
    "type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}}}

words = st.text(alphabet="aZ 7.,'\n\t你。éπ🐶<|>{}[]/\\\"", min_size=1, max_size=40).filter(str.strip)
thoughts = st.none() | words


@st.composite
def conversations(draw: st.DrawFn, tools: bool) -> Conversation:
    """One to four exchanges, sometimes with a system message, thoughts, weights, and calls with their results."""
    messages = [Message("system", draw(words))] if draw(st.booleans()) else []
    offered = draw(st.booleans()) if tools else False
    for _ in range(draw(st.integers(1, 4))):
        messages.append(Message("user", draw(words)))
        if offered and draw(st.booleans()):
            call = ToolCall("find", {"what": draw(st.text("ab 你7", min_size=1, max_size=8))})
            messages += [Message("assistant", "", tool_calls=(call,)), Message("tool", draw(words))]
        weight = draw(st.sampled_from([None, None, 0.0, 0.5]))
        messages.append(Message("assistant", draw(words), draw(thoughts), weight=weight))
    return conversation(messages, tools=[TOOL] if offered else [])


@cache
def renderer(name: str, tokenizer: Any, only_last: bool, thinking: bool | None) -> Renderer:
    other = copy.deepcopy(tokenizer)
    marks = _MARK.findall(render_text(name, _PROBE, bos="<s>", eos="</s>")) + list(TEMPLATES[name].stop)
    other.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>",
                              "additional_special_tokens": sorted({*marks, "<s>", "</s>"})})
    other.chat_template = None
    settle_template(other, Config(template=name, enable_thinking=thinking))
    return Renderer(other, Masks(only_last), stop_words(other, TEMPLATES[name]))


def asked(render: Renderer, dicts: list[dict[str, Any]], tools: Any) -> list[list[int]]:
    """What chat sends: by itself, and where a client asks for a thought."""
    thinking = render.tokenizer.apply_chat_template(dicts, tools=list(tools) or None, add_generation_prompt=True,
                                                    return_dict=False, enable_thinking=True)
    return [render.prompt(dicts, tools), thinking]


@pytest.mark.parametrize("name", FAMILIES)
def test_any_conversation_in_any_family(tokenizer: Any, name: str) -> None:
    """The whole row has the ids of the whole conversation; an answer in a row of its own, those of the conversation
    that ends with it. Every answer with a weight is learned exactly once, behind the ids that chat sends (where tokens
    do not join the first white space of an answer to the prompt), and its words are in what is learned."""

    @settings(max_examples=40, deadline=None, derandomize=True,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(talk=conversations(TEMPLATES[name].tool_format is not None), only_last=st.booleans(),
           thinking=st.sampled_from([True, False, None] if TEMPLATES[name].reasoning else [True]))
    def prove(talk: Conversation, only_last: bool, thinking: bool | None) -> None:
        render = renderer(name, tokenizer, only_last, thinking)
        dicts, tools = [message.as_dict() for message in talk.messages], list(talk.tools) or None
        (rows,) = render.render([talk])
        assert not isinstance(rows, BadRow), rows
        learned = [number for number, message in enumerate(talk.messages)
                   if message.role == "assistant" and message.weight != 0.0
                   and (not only_last or number == len(dicts) - 1)]
        wholes = {tuple(render.tokenizer.apply_chat_template(dicts[: number + 1], tools=tools, return_dict=False)):
                  number for number in [*learned, len(dicts) - 1]}
        found: list[int] = []
        for row in rows:
            last = wholes[tuple(row.ids.tolist())]  # it is one of these conversations, id for id
            mine = iter([last] if len(rows) > 1 and last != len(dicts) - 1 else
                        [number for number in learned if number not in found])
            for run in row.runs:
                behind = row.ids[: run.first].tolist()
                number = next(n for n in mine if row.drifts or behind in asked(render, dicts[:n], talk.tools))
                found.append(number)
                message = talk.messages[number]
                text = render.tokenizer.decode(row.ids[run.first : run.last], clean_up_tokenization_spaces=False)
                assert message.content.strip()[1:] in text  # templates trim, and may join the first letter
                assert int(row.ids[run.last - 1]) in render.stop_ids()  # it learns to stop
                assert run.weight == (1.0 if message.weight is None else message.weight)
        assert sorted(found) == learned

    prove()
