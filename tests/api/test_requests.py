"""What the fields and messages of a request mean, and how an answer is read for calls of tools and thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from truetune.data.messages import Conversation, Message, ToolCall
from truetune.data.renderer import Renderer
from truetune.data.template import make_renderer, settle_template
from truetune.data.tools import TOOL_FORMATS
from truetune.findings import Problem
from truetune.model.find import load_tokenizer
from truetune.options import Config
from truetune.serve.api.calls import PROBE, AnswerReader, Part, Speech, speech_of
from truetune.serve.api.errors import ApiError
from truetune.serve.api.messages import accepted, as_turns, template_values
from truetune.serve.api.schemas import ChatAsked, CompletionAsked
from truetune.serve.api.schemas import Message as Asked

from .server import HELLO


def test_every_field_has_its_own_meaning() -> None:
    """LLaMA-Factory reads presence_penalty as the repetition penalty; here each is itself."""
    each = {"presence_penalty": 0.5, "frequency_penalty": -1, "repetition_penalty": 1.1, "min_p": 0.1, "seed": 3}
    body: dict[str, Any] = {"messages": HELLO, **each, "top_k": -1, "max_tokens": 5, "max_completion_tokens": 7}
    assert ChatAsked.model_validate(body).sampling() == {**each, "top_k": 0, "max_new_tokens": 7}
    assert ChatAsked.model_validate({"messages": HELLO, "do_sample": False, "temperature": 1}).sampling() == {
        "temperature": 0}
    assert ChatAsked.model_validate({"messages": HELLO, "logprobs": True}).sampling() == {"top_logprobs": 0}
    assert CompletionAsked.model_validate({"prompt": "a", "logprobs": 2}).sampling() == {"top_logprobs": 2}
    nothing = {name: None for name in ("temperature", "stop", "n", "stream", "tools", "tool_choice", "seed")}
    assert ChatAsked.model_validate({"messages": HELLO, **nothing}).sampling() == {}


def test_messages_have_the_form_of_training() -> None:
    """Ids of calls, names and other marks that templates did not see in training are left out."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [{"role": "developer", "content": "Be kind."},
                {"role": "user", "content": [{"type": "text", "text": "One "}, {"type": "text", "text": "two."}]},
                {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
                {"role": "tool", "tool_call_id": "call_1", "name": "f", "content": "2"}]
    assert as_turns([Asked.model_validate(message) for message in messages]) == [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "One two."},
        {"role": "assistant", "content": "", "reasoning_content": "Hm.",
         "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "2"}]


def test_two_messages_of_a_user_in_a_row(tiny: Path) -> None:
    """A template that takes them writes both; one that insists on turns gets them joined."""
    two = [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}]
    tokenizer = load_tokenizer(tiny)
    assert accepted(list(two), Renderer(tokenizer).prompt) == Renderer(tokenizer).prompt(two)
    tokenizer.chat_template = ("{% for m in messages %}{% if m.role != ['user', 'assistant'][loop.index0 % 2] %}"
                               "{{ raise_exception('turns!') }}{% endif %}"
                               "<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}")
    strict = Renderer(tokenizer)
    assert accepted(list(two), strict.prompt) == strict.prompt([{"role": "user", "content": "One.\n\nTwo."}])
    with pytest.raises(Problem, match="turns!"):
        accepted([{"role": "assistant", "content": "No."}], strict.prompt)


@pytest.mark.parametrize("values", [
    {"messages": 1}, {"bos_token": "x"}, {"a": "<|im_end|>"}, {"a": [1]}, {"a": "x" * 65}])
def test_templates_are_told_switches_and_nothing_else(values: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        template_values(values, None, {"bos_token": "<s>"})
    assert template_values({"effort": "high", "date": "26 Jul 2024"}, True, {}) == {
        "effort": "high", "date": "26 Jul 2024", "enable_thinking": True}


CALLS = [ToolCall("truetune_probe", {"truetune_city": city}) for city in ("Paris", "New York")]


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_a_template_shows_how_it_calls(name: str, tiny: Path) -> None:
    """Whatever format was trained is found by rendering a call, and calls in it are read while they come, letter by
    letter, as they are read whole: text before them, and nothing of the call itself as text."""
    tokenizer, config = load_tokenizer(tiny), Config(tool_format=name)
    settle_template(tokenizer, config)
    renderer = make_renderer(tokenizer, tiny, config)
    speech = speech_of(renderer)
    one_only = name == "glm4"
    (rows,) = renderer.render([Conversation((Message("user", "Hi"), Message(
        "assistant", "" if one_only else "I look.", None, tuple(CALLS[:1] if one_only else CALLS))), (PROBE,))])
    assert isinstance(rows, tuple)
    run = rows[-1].runs[-1]
    text = str(tokenizer.decode(rows[-1].ids[run.first : run.last].tolist())).removesuffix("<|im_end|>")

    def read(pieces: Sequence[str]) -> tuple[str, list[ToolCall]]:
        reader = AnswerReader(speech, tools=(PROBE,))
        parts = [part for number, piece in enumerate(pieces) for part in reader.push(piece, number == len(pieces) - 1)]
        return "".join(part.text for part in parts), [part.call for part in parts if part.call]

    said = ("" if one_only else "I look.", CALLS[:1] if one_only else CALLS)
    assert read([text]) == said and read(list(text)) == said and read([*text, ""]) == said


@pytest.mark.parametrize("text", [
    "No call at all.", "a < b and <tool_ is no tag", "<tool_call>\nnot JSON\n</tool_call>", "ends with <tool_call>",
    "white  space \n\n ", '<tool_call>{"name": "f"'])
def test_text_that_only_looks_like_a_call_stays_text(text: str) -> None:
    """And comes as soon as it is known to be none."""
    reader = AnswerReader(Speech("qwen"), tools=(PROBE,))
    parts = [part for letter in text for part in reader.push(letter)]
    assert "".join(part.text for part in [*parts, *reader.push("", last=True)]) == text
    early = AnswerReader(Speech("qwen"), tools=(PROBE,)).push("a < b, <tool_x")
    assert early == [Part(text="a < b, <tool_x")]


@pytest.mark.parametrize(("opened", "text", "thought", "said"), [
    (False, "<think>\nA b.\n</think>\n\nC.", "A b.", "C."), (True, "A b.\n</think>\n\nC.", "A b.", "C."),
    (False, "C.", "", "C."), (True, "no end", "no end", ""), (False, "<thin air", "", "<thin air"),
    (False, "\n\n<think>A</think>C", "A", "C"), (False, "C <think>late</think>", "", "C <think>late</think>")])
def test_thoughts_letter_by_letter(opened: bool, text: str, thought: str, said: str) -> None:
    for pieces in ([text], list(text)):
        reader = AnswerReader(Speech(thought=("<think>", "</think>")), opened)
        parts = [part for number, piece in enumerate(pieces) for part in reader.push(piece, number == len(pieces) - 1)]
        assert ("".join(part.thought for part in parts), "".join(part.text for part in parts)) == (thought, said)
