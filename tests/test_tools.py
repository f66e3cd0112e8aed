"""Tools in each of the 13 formats: offered as LLaMA-Factory offers them, called as it writes calls, and read back."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from truetune.data import tools as tools_module
from truetune.data.messages import BadRow, ToolCall
from truetune.data.tools import (
    TOOL_FORMATS,
    default_system_of,
    parse_calls,
    read_call_turn,
    read_calls,
    read_tools,
    tool_macros,
    with_tools,
)
from truetune.findings import WRONG_OPTIONS, Problem

TOOL = {"name": "find_book", "description": "Books by title", "parameters": {
    "type": "object",
    "properties": {"title": {"type": "string", "description": "Its title"},
                   "pages": {"type": "integer", "description": "At least"}},
    "required": ["title"]}}
OPENAI_TOOL = {"type": "function", "function": TOOL}
FIRST = ToolCall("find_book", {"title": "红楼梦", "pages": 2})
SECOND = ToolCall("find_book", {"title": "Emma"})

XML = ("minimax2", "qwen3_5", "glm4_moe", "seed_oss")
NEEDS_OBJECTS = (*XML, "gemma4", "lfm2")
"""Formats that write each argument for itself, so that they cannot take arguments as JSON text."""


def macro(tool_format: str, call: str, **values: Any) -> str:
    """What a macro of a format writes, in the environment in which transformers renders chat templates."""
    source = tool_macros(tool_format) + "{{ " + call + " }}"
    rendered, _ = render_jinja_template([[]], chat_template=source, **values)
    return rendered[0]


def offered(tool_format: str, tools: Sequence[Mapping[str, Any]], **values: Any) -> str:
    return macro(tool_format, "tool_prompt(offer)", offer=list(tools), **values)


def called(tool_format: str, *calls: ToolCall) -> str:
    return macro(tool_format, "tool_calls(made)", made=[call.as_dict() for call in calls])


def rendered(template: str, messages: Sequence[Mapping[str, Any]], tools: Any = None, **values: Any) -> str:
    talk = [dict(message) for message in messages]
    texts, _ = render_jinja_template([talk], tools=tools, chat_template=template, **values)
    return texts[0]


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Written(NamedTuple):
    """What a format writes. offer: for TOOL. one, two: for FIRST, for FIRST and SECOND (None: it knows only one)."""

    offer: str
    one: str
    two: str | None


BARE = json.dumps(TOOL, ensure_ascii=False)
WRAPPED = json.dumps(OPENAI_TOOL, ensure_ascii=False)

SIGNATURES = f"""# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{WRAPPED}
</tools>

"""
TAGGED_JSON = """For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
TAGGED_ONE = '<tool_call>\n{"name": "find_book", "arguments": {"title": "红楼梦", "pages": 2}}\n</tool_call>'
TAGGED_TWO = TAGGED_ONE + '\n<tool_call>\n{"name": "find_book", "arguments": {"title": "Emma"}}\n</tool_call>'

WRITTEN = {
    "default": Written("""You have access to the following tools:
> Tool Name: find_book
Tool Description: Books by title
Tool Args:
  - title (string, required): Its title
  - pages (integer): At least

Use the following format if using a tool:
```
Action: tool name (one of [find_book])
Action Input: the input to the tool, in a JSON format representing the kwargs \
(e.g. ```{"input": "hello world", "num_beams": 5}```)
```
""",
        'Action: find_book\nAction Input: {"title": "红楼梦", "pages": 2}',
        'Action: find_book\nAction Input: {"title": "红楼梦", "pages": 2}\n'
        'Action: find_book\nAction Input: {"title": "Emma"}'),
    "gemma4": Written(
        'declaration:find_book{description:<|"|>Books by title<|"|>,parameters:{properties:{'
        'title:{description:<|"|>Its title<|"|>,type:<|"|>STRING<|"|>},'
        'pages:{description:<|"|>At least<|"|>,type:<|"|>INTEGER<|"|>}},'
        'required:[<|"|>title<|"|>],type:<|"|>OBJECT<|"|>}}',
        '<|tool_call>call:find_book{pages:2,title:<|"|>红楼梦<|"|>}<tool_call|>',
        '<|tool_call>call:find_book{pages:2,title:<|"|>红楼梦<|"|>}<tool_call|>'
        '<|tool_call>call:find_book{title:<|"|>Emma<|"|>}<tool_call|>'),
    "glm4": Written(
        "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"
        "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具\n\n## find_book\n\n"
        f"{json.dumps(TOOL, indent=4)}\n在调用上述函数时，请使用 Json 格式表示调用的参数。",
        'find_book\n{"title": "红楼梦", "pages": 2}',
        None),
    "llama3": Written(
        "Cutting Knowledge Date: December 2023\nToday Date: 01 Feb 2025\n\n"
        "You have access to the following functions. To call a function, please respond with JSON for a function call. "
        'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. '
        f"Do not use variables.\n\n{json.dumps(OPENAI_TOOL, indent=4)}\n\n",
        '{"name": "find_book", "parameters": {"title": "红楼梦", "pages": 2}}',
        '[{"name": "find_book", "parameters": {"title": "红楼梦", "pages": 2}}, '
        '{"name": "find_book", "parameters": {"title": "Emma"}}]'),
    "lfm2": Written(
        f"List of tools: <|tool_list_start|>[{BARE}]<|tool_list_end|>",
        '<|tool_call_start|>[find_book(title="红楼梦", pages=2)]<|tool_call_end|>',
        '<|tool_call_start|>[find_book(title="红楼梦", pages=2), find_book(title="Emma")]<|tool_call_end|>'),
    "minimax1": Written(f"""You are provided with these tools:
<tools>
{BARE}
</tools>

If you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide tool-name and \
json-object of arguments, following the format below:
<tool_calls>
{{"name": <tool-name-1>, "arguments": <args-json-object-1>}}
...
</tool_calls>""",
        '<tool_calls>\n{"name": "find_book", "arguments": {"title": "红楼梦", "pages": 2}}\n</tool_calls>',
        '<tool_calls>\n{"name": "find_book", "arguments": {"title": "红楼梦", "pages": 2}}\n'
        '{"name": "find_book", "arguments": {"title": "Emma"}}\n</tool_calls>'),
    "minimax2": Written(f"""

# Tools

You may call one or more tools to assist with the user query.
Here are the tools available in JSONSchema format:

<tools>
<tool>{BARE}</tool>
</tools>

When making tool calls, use XML format to invoke tools and pass parameters:

<minimax:tool_call>
<invoke name="tool-name-1">
<parameter name="param-key-1">param-value-1</parameter>
<parameter name="param-key-2">param-value-2</parameter>
...
</invoke>
</minimax:tool_call>""",
        '<invoke name="find_book">\n<parameter name="title">红楼梦</parameter>\n<parameter name="pages">2</parameter>\n'
        "</invoke>",
        '<invoke name="find_book">\n<parameter name="title">红楼梦</parameter>\n<parameter name="pages">2</parameter>\n'
        '</invoke>\n<invoke name="find_book">\n<parameter name="title">Emma</parameter>\n</invoke>'),
    "mistral": Written(
        f"[AVAILABLE_TOOLS] [{WRAPPED}][/AVAILABLE_TOOLS]",
        '[{"name": "find_book", "arguments": {"title": "红楼梦", "pages": 2}}]',
        '[{"name": "find_book", "arguments": {"title": "红楼梦", "pages": 2}}, '
        '{"name": "find_book", "arguments": {"title": "Emma"}}]'),
    "qwen": Written("\n\n" + SIGNATURES + TAGGED_JSON, TAGGED_ONE, TAGGED_TWO),
    "qwen3_5": Written(f"""

# Tools

You have access to the following functions:

<tools>
{BARE}
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within \
<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell \
the user about function calls
</IMPORTANT>""",
        "<tool_call>\n<function=find_book>\n<parameter=title>\n红楼梦\n</parameter>\n<parameter=pages>\n2\n</parameter>\n"
        "</function>\n</tool_call>",
        "<tool_call>\n<function=find_book>\n<parameter=title>\n红楼梦\n</parameter>\n<parameter=pages>\n2\n</parameter>\n"
        "</function>\n</tool_call>\n<tool_call>\n<function=find_book>\n<parameter=title>\nEmma\n</parameter>\n"
        "</function>\n</tool_call>"),
    "glm4_moe": Written("\n\n" + SIGNATURES + """For each function call, output the function name and arguments within \
the following XML format:
<tool_call>{function-name}
<arg_key>{arg-key-1}</arg_key>
<arg_value>{arg-value-1}</arg_value>
<arg_key>{arg-key-2}</arg_key>
<arg_value>{arg-value-2}</arg_value>
...
</tool_call>
""",
        "\n<tool_call>find_book\n<arg_key>title</arg_key>\n<arg_value>红楼梦</arg_value>\n"
        "<arg_key>pages</arg_key>\n<arg_value>2</arg_value>",
        "\n<tool_call>find_book\n<arg_key>title</arg_key>\n<arg_value>红楼梦</arg_value>\n"
        "<arg_key>pages</arg_key>\n<arg_value>2</arg_value>\n"
        "\n<tool_call>find_book\n<arg_key>title</arg_key>\n<arg_value>Emma</arg_value>"),
    "seed_oss": Written(f"""system
You are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user query.Tool List:
You are authorized to use the following tools (described in JSON Schema format). Before performing any task, you must \
decide how to call them based on the descriptions and parameters of these tools.
[{BARE}]
工具调用请遵循如下格式:
<seed:tool_call>
<function=example_function_name>
<parameter=example_parameter_1>value_1</parameter>
<parameter=example_parameter_2>This is the value for the second parameter
that can span
multiple lines</parameter>
</function>
</seed:tool_call>
""",
        "\n<seed:tool_call>\n<function=find_book\n<parameter=title>红楼梦</parameter>\n<parameter=pages>2</parameter>\n"
        "</function>\n</seed:tool_call>",
        "\n<seed:tool_call>\n<function=find_book\n<parameter=title>红楼梦</parameter>\n<parameter=pages>2</parameter>\n"
        "</function>\n</seed:tool_call>\n"
        "\n<seed:tool_call>\n<function=find_book\n<parameter=title>Emma</parameter>\n</function>\n</seed:tool_call>"),
    "ling": Written(SIGNATURES + TAGGED_JSON + "\ndetailed thinking off", TAGGED_ONE, TAGGED_TWO),
}


def test_every_format_is_described_here_and_stands_in_a_file_of_its_own() -> None:
    """One file a format, which needs no other file; beside them only the rewriting that `with_tools` puts in front."""
    folder = Path(tools_module.__file__).parent / "templates" / "tools"
    assert {file.stem for file in folder.glob("*.jinja")} == {*TOOL_FORMATS, "with_tools"}
    assert set(WRITTEN) == set(TOOL_FORMATS) and len(TOOL_FORMATS) == 13
    for tool_format in TOOL_FORMATS:
        assert not re.search(r"\{%-?\s*(include|import|from|extends)\b", tool_macros(tool_format))


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_tools_are_offered(tool_format: str) -> None:
    assert offered(tool_format, [TOOL], date_string="01 Feb 2025") == WRITTEN[tool_format].offer


@pytest.mark.parametrize("tool_format", set(TOOL_FORMATS) - {"seed_oss"})
def test_both_forms_of_a_tool_are_the_same(tool_format: str) -> None:
    """`{"type": "function", "function": {…}}` and only the inner object. (seed_oss prints the tools as given.)"""
    assert offered(tool_format, [OPENAI_TOOL, TOOL]) == offered(tool_format, [TOOL, OPENAI_TOOL])


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_calls_are_written(tool_format: str) -> None:
    assert called(tool_format, FIRST) == WRITTEN[tool_format].one
    if WRITTEN[tool_format].two is not None:
        assert called(tool_format, FIRST, SECOND) == WRITTEN[tool_format].two


def test_glm4_refuses_two_calls() -> None:
    """Better no text than one that the model's own servers cannot read."""
    with pytest.raises(TemplateError, match="glm4 knows one call in an answer, and here are 2"):
        called("glm4", FIRST, SECOND)


def test_llama3_tells_the_date_of_today() -> None:
    assert f"Today Date: {datetime.now():%d %b %Y}\n" in offered("llama3", [TOOL])


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_arguments_as_json_text(tool_format: str) -> None:
    """OpenAI's clients send arguments as JSON text. A format that writes them as JSON takes the text as it is; the
    others refuse it, since Jinja cannot read JSON, rather than write it wrongly."""
    made = [{"type": "function", "function": {"name": "find_book", "arguments": '{"title": "红楼梦", "pages": 2}'}}]
    if tool_format in NEEDS_OBJECTS:
        with pytest.raises(TemplateError, match=f"{tool_format} needs a call's arguments as an object"):
            macro(tool_format, "tool_calls(made)", made=made)
    else:
        assert macro(tool_format, "tool_calls(made)", made=made) == WRITTEN[tool_format].one


def test_default_tells_what_values_may_be() -> None:
    """Choices and the items of lists; a tool without parameters is only named."""
    shape = {"type": "string", "description": "Which", "enum": ["round", "square"]}
    sizes = {"type": "array", "description": "All", "items": {"type": "integer"}}
    text = offered("default", [{"name": "draw", "description": "Draws",
                                "parameters": {"properties": {"shape": shape, "sizes": sizes}}},
                               {"name": "clear", "description": "Wipes"}])
    assert "  - shape (string): Which, should be one of [round, square]\n" in text
    assert "  - sizes (array): All, where each item should be integer\n" in text
    assert "> Tool Name: clear\nTool Description: Wipes\nTool Args:\n\n" in text
    assert "(one of [draw, clear])" in text


def test_parameters_named_like_methods() -> None:
    """`items`, `keys` and `get` are methods of Jinja's objects, and good names of parameters too."""
    names = {name: {"type": "string", "description": "x"} for name in ("items", "keys", "get")}
    tool = {"name": "copy", "description": "x", "parameters": {"type": "object", "properties": names}}
    call = ToolCall("copy", dict.fromkeys(names, "y"))
    for tool_format in TOOL_FORMATS:
        assert all(name in offered(tool_format, [tool]) for name in names)
        assert parse_calls(called(tool_format, call), tool_format) == ("", [call])


# ── Reading back ─────────────────────────────────────────────────────────────────────────────────────────────────────

_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
_KEYS = _NAMES | st.sampled_from(["from", "класс", "名字", "two words"])
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["2", "true", "null", '{"a": 1}', 'say "hi"', "it's", "two\nlines", "\n", " padded ", "back\\slash", "<b>x</b>",
     "</tool_call>", "Action: x", "[1, 2]", "a=1, b=2)"])
_SCALARS = _TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
                       max_leaves=8)
_CALLS = st.builds(ToolCall, _NAMES, st.dictionaries(_KEYS, _VALUES, max_size=4))
_SAID = st.sampled_from(["", "Let me look.", "<think>\nA {book}?\n</think>", "Two lines,\n\nand [more]."])

_NO_ESCAPE = {"gemma4": ('<|"|>',), "minimax2": ("</parameter>",), "qwen3_5": ("</parameter>",),
              "seed_oss": ("</parameter>",), "glm4_moe": ("</arg_value>",)}
"""What no text may hold in a format without escapes."""

_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array",
               dict: "object"}


def declaring(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Tools whose parameters are of the types that these calls give them."""
    return [{"type": "function", "function": {"name": call.name, "parameters": {"type": "object", "properties": {
        key: {"type": _JSON_TYPES[type(value)]} for key, value in call.arguments.items()}}}} for call in calls]


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(_CALLS, min_size=1, max_size=3, unique_by=lambda call: call.name), _SAID)
def test_calls_come_back(tool_format: str, calls: list[ToolCall], said: str) -> None:
    """Whatever is called with whatever arguments: what was written is read, with what was said before it."""
    calls = calls[:1] if tool_format == "glm4" else calls
    if tool_format == "lfm2":  # Python's notation has no place for a key of two words
        calls = [ToolCall(call.name, {key.replace(" ", "_"): value for key, value in call.arguments.items()})
                 for call in calls]
    text = called(tool_format, *calls)
    forbidden = _NO_ESCAPE.get(tool_format, ())
    written = json.dumps([call.arguments for call in calls], ensure_ascii=False).replace('\\"', '"')
    assume(not any(mark in written for mark in forbidden))
    read = parse_calls(f"{said}\n{text}" if said else text, tool_format, declaring(calls))
    assert read == (said, calls)


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_an_answer_without_calls_is_left_as_it_is(tool_format: str) -> None:
    for text in ("", "  Hello.\n", "<think>\nhm\n</think>\n\nYes: {\"a\": [1, 2]}", "[1, 2]", "{}", "[]",
                 "Here is JSON:\n```json\n{\"name\": \"Bob\"}\n```", '{"name": "Bob", "age": 3}'):
        assert parse_calls(text, tool_format, [TOOL]) == (text, [])


BROKEN = {
    "default": ['Action: f\nAction Input: {"a": }', "Action: f\nAction Input: none", "Action: f"],
    "gemma4": ["<|tool_call>call:f{a:<|\"|>x}<tool_call|>", "<|tool_call>call:f{a:b}<tool_call|>",
               "<|tool_call>call:f{a:1}", "<|tool_call>call:f{a}<tool_call|>", "<|tool_call>call:f{a:[1}<tool_call|>"],
    "glm4": ['f\n{"a": }', 'f\n{"a": 1} and more', "f\n[1]"],
    "llama3": ['{"name": "f", "parameters": {"a": }}', '{"name": "f", "parameters": [1]}', '{"name": "f"}',
               '{"name": "f", "parameters": {}} is how', '{"name": "", "parameters": {}}'],
    "lfm2": ["<|tool_call_start|>[f(a=b)]<|tool_call_end|>", "<|tool_call_start|>[f(a=1]<|tool_call_end|>",
             "<|tool_call_start|>[f(a=1)]", "<|tool_call_start|>[]<|tool_call_end|>",
             "<|tool_call_start|>[f(1)]<|tool_call_end|>", "<|tool_call_start|>[f(a='x)]<|tool_call_end|>"],
    "minimax1": ['<tool_calls>\n{"name": "f", "arguments": {"a": }}\n</tool_calls>', "<tool_calls>\n</tool_calls>",
                 '<tool_calls>\n{"name": "f", "arguments": {}}\n', "<tool_calls>[]</tool_calls>"],
    "minimax2": ['<invoke name="f">\n<parameter name="a">1</parameter>', '<invoke name="f">words</invoke>',
                 '<invoke name="f">\n<parameter name="a">1\n</invoke>', "<minimax:tool_call></minimax:tool_call>"],
    "mistral": ['[{"name": "f", "arguments": {"a": }}]', '[{"name": "f"}]', '[TOOL_CALLS] [{"name": "f", "arg',
                "[TOOL_CALLS]f[ARGS]{"],
    "qwen": ['<tool_call>\n{"name": "f", "arguments": {"a": }}\n</tool_call>', "<tool_call>\nf\n</tool_call>",
             '<tool_call>\n{"arguments": {}}\n</tool_call>', '<tool_call>\n{"name": "f", "arguments": {}}',
             '<tool_call>\n{"name": "f", "arguments": {"a": NaN}}\n</tool_call>'],
    "qwen3_5": ["<tool_call>\n<function=f>\n<parameter=a>\n1\n</function>\n</tool_call>", "<function=f>",
                "<tool_call>\n<function=f>\nwords\n</function>\n</tool_call>"],
    "glm4_moe": ["<tool_call>f\n<arg_key>a</arg_key>\n1</tool_call>", "<tool_call>f and words",
                 "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1", "<tool_call></tool_call>"],
    "seed_oss": ["<seed:tool_call>\n<function=f>\n<parameter=a>1\n</function>\n</seed:tool_call>",
                 "<seed:tool_call>\n<function=f>", "<seed:tool_call>\n</seed:tool_call>"],
    "ling": ["<tool_call>\n{'name': 'f'}\n</tool_call>"],
}


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_a_broken_call_stays_text(tool_format: str) -> None:
    """A server would rather show a reader the text than call a tool with half its arguments."""
    for text in BROKEN[tool_format]:
        assert parse_calls(text, tool_format) == (text, []), text


def test_a_good_call_beside_a_broken_one() -> None:
    """The good one is made, and the words of the other are kept."""
    broken = '<tool_call>\n{"name": "f", \n</tool_call>'
    assert parse_calls(f"First.\n{TAGGED_ONE}\n{broken}", "qwen") == (f"First.\n{broken}", [FIRST])
    assert parse_calls(f"{broken}\n{TAGGED_ONE}\nLast.", "qwen") == (f"{broken}\nLast.", [FIRST])


FLAG = {"name": "f", "parameters": {"properties": {"on": {"type": "boolean"}, "n": {"type": ["integer", "null"]}}}}

OFFICIAL = [
    ("default", 'Thought: x.\nAction: find_book\nAction Input: ```json\n{"title": "Emma"}\n```', "Thought: x."),
    ("glm4_moe", "<tool_call>find_book\n<arg_key>title</arg_key>\n<arg_value>Emma</arg_value>\n</tool_call>", ""),
    ("glm4_moe", "Well.<tool_call>find_book<arg_key>title</arg_key><arg_value>Emma</arg_value></tool_call>", "Well."),
    ("lfm2", "<|tool_call_start|>[find_book(title='Emma')]<|tool_call_end|>Looking.", "Looking."),
    ("lfm2", '<|tool_call_start|>[{"name": "find_book", "arguments": {"title": "Emma"}}]<|tool_call_end|>', ""),
    ("llama3", '<|python_tag|>{"name": "find_book", "parameters": {"title": "Emma"}}', ""),
    ("llama3", '{"type": "function", "name": "find_book", "parameters": {"title": "Emma"}}', ""),
    ("minimax2", '<minimax:tool_call>\n<invoke name="find_book">\n<parameter name="title">Emma</parameter>\n</invoke>\n'
                 "</minimax:tool_call>", ""),
    ("mistral", '[TOOL_CALLS] [{"name": "find_book", "arguments": {"title": "Emma"}, "id": "abcDEF123"}]', ""),
    ("mistral", '[TOOL_CALLS]find_book[CALL_ID]abcDEF123[ARGS]{"title": "Emma"}', ""),
    ("mistral", 'Sure.[TOOL_CALLS]find_book{"title": "Emma"}', "Sure."),
    ("qwen", '<tool_call>{"name": "find_book", "arguments": "{\\"title\\": \\"Emma\\"}"}</tool_call>', ""),
    ("qwen3_5", "<function=find_book>\n<parameter=title>Emma</parameter>\n</function>", ""),
    ("seed_oss", "<seed:tool_call>\n<function=find_book>\n<parameter=title>Emma</parameter>\n</function>\n"
                 "</seed:tool_call>", ""),
]


@pytest.mark.parametrize(("tool_format", "text", "said"), OFFICIAL)
def test_what_the_makers_of_the_models_write_is_read_too(tool_format: str, text: str, said: str) -> None:
    """LLaMA-Factory reads neither minimax2 nor glm4_moe as it writes them; here both its form and the makers' work."""
    assert parse_calls(text, tool_format) == (said, [SECOND])


def test_several_calls_in_the_makers_forms() -> None:
    two = ('{"name": "find_book", "parameters": {"title": "红楼梦", "pages": 2}}; '
           '{"name": "find_book", "parameters": {"title": "Emma"}}')
    assert parse_calls(two, "llama3") == ("", [FIRST, SECOND])
    two = '[TOOL_CALLS]find_book[ARGS]{"title": "红楼梦", "pages": 2}[TOOL_CALLS]find_book[ARGS]{"title": "Emma"}'
    assert parse_calls(two, "mistral") == ("", [FIRST, SECOND])
    two = WRITTEN["minimax2"].two
    assert parse_calls(f"<minimax:tool_call>\n{two}\n</minimax:tool_call>", "minimax2") == ("", [FIRST, SECOND])


def test_a_line_feed_in_a_json_string() -> None:
    """No JSON, strictly, but models that write code into an argument write it so."""
    text = '<tool_call>\n{"name": "run", "arguments": {"code": "a = 1\nb = 2"}}\n</tool_call>'
    assert parse_calls(text, "qwen") == ("", [ToolCall("run", {"code": "a = 1\nb = 2"})])


def test_python_notation_with_python_words() -> None:
    """What JSON lacks, and a parameter that Python itself would not have."""
    text = """[f(on=True, n=None, from=-1.5, at={"a": [true, 'it\\'s "x"']}, s=[])]"""
    assert parse_calls(f"<|tool_call_start|>{text}<|tool_call_end|>", "lfm2") == ("", [ToolCall("f", {
        "on": True, "n": None, "from": -1.5, "at": {"a": [True, 'it\'s "x"']}, "s": []})])


@pytest.mark.parametrize("tool_format", XML)
def test_declared_types_decide_in_xml(tool_format: str) -> None:
    """XML writes "2" and 2 alike. The tool's schema tells which it was; without one, what reads as JSON is JSON."""
    text = called(tool_format, ToolCall("find_book", {"title": "2", "pages": 2}))
    assert parse_calls(text, tool_format, [TOOL])[1] == [ToolCall("find_book", {"title": "2", "pages": 2})]
    assert parse_calls(text, tool_format)[1] == [ToolCall("find_book", {"title": 2, "pages": 2})]


@pytest.mark.parametrize(("schema", "text", "value"), [
    ({"type": "boolean"}, "True", True),  # as Jinja prints it in the makers' templates
    ({"type": ["integer", "null"]}, "None", None),
    ({"type": ["string", "null"]}, "null", None),
    ({"type": ["string", "null"]}, "true", "true"),
    ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "12", "12"),
    ({"enum": ["1", "2"]}, "2", "2"),
    ({"type": "array"}, '["a"]', ["a"]),
    ({"type": "integer"}, "two", "two"),
    ({}, "True", "True"),
    ("nonsense", "3", 3),
])
def test_types_in_a_schema(schema: Any, text: str, value: object) -> None:
    answer = f"<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>{text}</arg_value>\n</tool_call>"
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}
    (call,) = parse_calls(answer, "glm4_moe", [tool])[1]
    assert call.arguments == {"a": value} and type(call.arguments["a"]) is type(value)


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_hostile_answers_are_read_in_good_time(tool_format: str) -> None:
    """Openings without end, deep nesting, white space: a hundred thousand characters take no second or two."""
    opening = called(tool_format, FIRST)[:-4]
    for text in ((opening * 2000)[:100_000], opening + "[" * 50_000, opening + " " * 50_000 + "x",
                 "<|tool_call>call:f{a:" + "[" * 50_000, '{"name": ' * 5_000,
                 "<|tool_call_start|>[f(a=" + "{'a':" * 9_000):
        start = time.process_time()
        assert parse_calls(text, tool_format)[0]
        assert time.process_time() - start < 5


def test_an_unknown_format() -> None:
    for name, fix in (("qwne", "Did you mean qwen"), ("lfm", "Did you mean lfm2"), ("xyz", "There are default, g")):
        for use in (tool_macros, lambda name: with_tools("", name), lambda name: parse_calls("", name)):
            with pytest.raises(Problem, match=f"tool_format: there is no tool format '{name}'. {fix}") as caught:
                use(name)
            assert caught.value.status == WRONG_OPTIONS and caught.value.findings[0].id == "unknown-tool-format"


# ── What data rows hold ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("value", "tools"), [
    (None, ()), ("", ()), (" \n", ()), ([], ()), ("[]", ()), ("null", ()),
    (BARE, (TOOL,)), (TOOL, (TOOL,)), ([TOOL], (TOOL,)), (f"[{BARE}, {WRAPPED}]", (TOOL, OPENAI_TOOL)),
    ([BARE, WRAPPED], (TOOL, OPENAI_TOOL)), ([{"name": "now"}], ({"name": "now"},)),
    ([{"name": "now", "parameters": None}], ({"name": "now", "parameters": None},)),
])
def test_tools_of_a_row(value: Any, tools: tuple[Mapping[str, Any], ...]) -> None:
    assert read_tools(value) == tools


@pytest.mark.parametrize(("value", "reason"), [
    ('[{"name": "f"} {"name": "g"}]', "tools are not JSON: Expecting ',' delimiter at character 16"),
    ("tools", "tools are not JSON: Expecting value at character 1"),
    ("[" * 100_000, "tools are not JSON: maximum recursion depth"),
    ("3", "tools are a number, not a list"),
    ([TOOL, {"description": "x"}], "tool 2 has no name"),
    ([{"type": "function", "function": {"name": " "}}], "tool 1 has no name"),
    ([{"type": "function", "function": "f"}], "tool 1 has no name"),
    ([["f"]], "tool 1 is a list, not an object"),
    (["f"], "tool 1 is not JSON: Expecting value at character 1"),
    ([{"name": "f", "parameters": ["a"]}], "tool 1 (f): its parameters are a list, not an object"),
])
def test_tools_that_are_none(value: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=re.escape(reason)):
        read_tools(value)


EMMA = {"name": "find_book", "arguments": {"title": "Emma"}}


@pytest.mark.parametrize("value", [
    EMMA, [EMMA], json.dumps(EMMA), json.dumps([EMMA]), [json.dumps(EMMA)],
    {"name": "find_book", "arguments": '{"title": "Emma"}'},
    {"name": "find_book", "parameters": {"title": "Emma"}},
    [{"id": "call_1", "type": "function", "function": EMMA}],
    [{"id": "call_1", "type": "function", "function": {"name": "find_book", "arguments": '{"title": "Emma"}'}}],
    f"<tool_call>\n{json.dumps(EMMA)}\n</tool_call>", f"<tool_call>{json.dumps([EMMA])}</tool_call>",
    f"<|tool_call_start|>{json.dumps(EMMA)}<|tool_call_end|>",
])
def test_calls_of_a_row(value: Any) -> None:
    assert read_calls(value) == (SECOND,)


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_calls_that_a_row_has_in_a_format(tool_format: str) -> None:
    """Some data hold calls as a template wrote them; the format is recognised, and a thought before them is kept."""
    text = called(tool_format, FIRST)
    assert read_calls(text) == (FIRST,)
    assert read_call_turn(f"<think>\nA book.\n</think>\n\n{text}") == ("<think>\nA book.\n</think>", (FIRST,))


def test_a_word_above_a_call_is_no_name() -> None:
    """glm4 writes a name and below it the arguments; a call that has its own name is not read so."""
    assert read_call_turn(f"Looking\n{json.dumps(EMMA)}") == ("Looking", (SECOND,))


@pytest.mark.parametrize("value", [None, "", "  ", [], "[]"])
def test_no_calls_in_a_row(value: Any) -> None:
    assert read_calls(value) == ()


def test_calls_without_arguments() -> None:
    for arguments in ({}, None, "", "{}"):
        assert read_calls({"name": "now", "arguments": arguments}) == (ToolCall("now", {}),)


@pytest.mark.parametrize(("value", "reason"), [
    ("I would not call.", "the call is not JSON: Expecting value at character 1"),
    ('{"name": "f", "arguments": {"a": }}', "the call is not JSON: Expecting value at character 34"),
    ({"arguments": {}}, "call 1 has no name"),
    ([EMMA, {"name": "f"}], "call 2 (f) has no arguments"),
    ({"name": "f", "arguments": "{"}, "call 1 (f): its arguments are not JSON: Expecting property name"),
    ({"name": "f", "arguments": [1]}, "call 1 (f): its arguments are a list, not an object"),
    ({"name": "f", "arguments": "[1]"}, "call 1 (f): its arguments are a list, not an object"),
    ([3], "call 1 is a number, not an object"),
    (3, "the call is a number, not an object"),
    ("3", "the call is a number, not an object"),
    (f"Well.\n{TAGGED_ONE}", "beside the call there is text: 'Well.'"),
])
def test_calls_that_are_none(value: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=re.escape(reason)):
        read_calls(value)


# ── A chat template that learns to speak of tools ────────────────────────────────────────────────────────────────────

ASK = {"role": "user", "content": "Is there Emma?"}
CALL = {"role": "assistant", "content": "", "tool_calls": [SECOND.as_dict()]}
RESULT = {"role": "tool", "name": "find_book", "tool_call_id": "1", "content": '{"found": 3}'}
ANSWER = {"role": "assistant", "content": "Yes, three."}
SYSTEM = {"role": "system", "content": "Be brief."}


def test_the_saved_template_speaks_of_tools(tokenizer: Any, tmp_path: Path) -> None:
    """SmolLM2's template knows no tools. Made to speak qwen and saved, it offers, calls and tells results wherever the
    tokenizer is loaded, with nothing of truetune there."""
    taught = copy.deepcopy(tokenizer)
    taught.chat_template = with_tools(tokenizer.chat_template, "qwen")
    taught.save_pretrained(tmp_path)
    text = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [SYSTEM, ASK, CALL, RESULT], tools=[OPENAI_TOOL], tokenize=False, add_generation_prompt=True)
    assert text == (f"<|im_start|>system\nBe brief.{WRITTEN['qwen'].offer}<|im_end|>\n"
                    "<|im_start|>user\nIs there Emma?<|im_end|>\n"
                    '<|im_start|>assistant\n<tool_call>\n{"name": "find_book", "arguments": {"title": "Emma"}}\n'
                    "</tool_call><|im_end|>\n"
                    '<|im_start|>user\n<tool_response>\n{"found": 3}\n</tool_response><|im_end|>\n'
                    "<|im_start|>assistant\n")


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_without_tools_nothing_changes(tokenizer: Any, tool_format: str) -> None:
    """Byte for byte, with or without a system message and the prompt for an answer."""
    own = tokenizer.chat_template
    for talk in ([ASK], [ASK, ANSWER], [SYSTEM, ASK, ANSWER, ASK], [{"role": "user", "content": " x\n\n"}]):
        for asks in (True, False):
            for none in (None, []):
                assert rendered(with_tools(own, tool_format), talk, none, add_generation_prompt=asks) == rendered(
                    own, talk, add_generation_prompt=asks)


TURNS = "{%- for m in messages %}[{{ m.role }}|{{ m.content }}]{%- endfor %}"


@pytest.mark.parametrize("source", [
    "\n\n  {{ 'x' }}" + TURNS + "\n \n", "  {% if true %}\n  x{% endif %}\n" + TURNS, "{#- note -#}\n" + TURNS + "\n\n",
    "{{- bos_token }}" + TURNS, "    {%- set tools = tools or [] %}x{{ tools|length }}" + TURNS, "", "\n", "words ",
    "{% for m in messages %}{% if m.tool_calls %}{% set tool_calls = 1 %}{% endif %}{{ tool_calls is defined }}"
    "{{ tool_prompt is defined }}{% endfor %}",
    "{% macro tool_calls(x) %}<{{ x }}>{% endmacro %}{{ tool_calls(messages|length) }}",
    "{{ tools is none }}{{ messages[0].role }}",
])
def test_templates_that_open_oddly_or_use_our_names(source: str) -> None:
    """White space at the edges and macros of the same name: without tools, still byte for byte."""
    talk = [SYSTEM, ASK, ANSWER]
    for tool_format in ("qwen", "gemma4"):
        taught = with_tools(source, tool_format)
        assert rendered(taught, talk, bos_token="<s>") == rendered(source, talk, bos_token="<s>")


RESULTS = {
    "lfm2": '<|tool_response_start|>{"found": 3}<|tool_response_end|>',
    "minimax2": '<response>{"found": 3}</response>',
    "mistral": '[TOOL_RESULTS] {"content": {"found": 3}}[/TOOL_RESULTS]',
    **dict.fromkeys(("qwen", "qwen3_5", "ling"), '<tool_response>\n{"found": 3}\n</tool_response>'),
}
"""A result as the models of a format were taught to read it; in the others it stands bare, in a turn of its own."""


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_every_format_in_plain_messages(tool_format: str) -> None:
    """Tools go to the end of the system text; calls are the answer's text; a result is a message of the user, marked
    as its format marks results."""
    talk = [SYSTEM, ASK, {"role": "assistant", "content": None, "tool_calls": [FIRST.as_dict()]}, RESULT, ANSWER]
    told = rendered(with_tools(TURNS, tool_format), talk, [TOOL], date_string="01 Feb 2025")
    assert told == (f"[system|Be brief.{WRITTEN[tool_format].offer}][user|Is there Emma?]"
                    f"[assistant|{WRITTEN[tool_format].one}][user|{RESULTS.get(tool_format, RESULT['content'])}]"
                    "[assistant|Yes, three.]")


def test_tools_without_a_system_message_bring_one() -> None:
    told = rendered(with_tools(TURNS, "mistral"), [ASK], [TOOL])
    assert told == f"[system|{WRITTEN['mistral'].offer}][user|Is there Emma?]"
    assert rendered(with_tools(TURNS, "mistral"), [], [TOOL]) == f"[system|{WRITTEN['mistral'].offer}]"


def test_a_system_text_is_no_empty_lines() -> None:
    """Qwen's tools follow the system text after an empty line. Where there is no text, none is there to follow."""
    for talk in ([ASK], [{"role": "system", "content": ""}, ASK]):
        assert rendered(with_tools(TURNS, "qwen"), talk, [TOOL]).startswith("[system|# Tools\n\nYou may call")


@pytest.mark.parametrize("system", ["Be kind.", 'Say "a\\b"\n%} {{ 1 }} {# no #} 你好 🙂', "It's \u2028 all."])
def test_the_templates_own_system_text_stays(system: str) -> None:
    """A template that writes a system text by itself still does so with tools, and the tools follow it. Without tools,
    or beside a system message of the conversation, this text is not read."""
    taught = with_tools(TURNS, "qwen", system)
    assert rendered(taught, [ASK], [TOOL]).startswith(f"[system|{system}\n\n# Tools")
    assert rendered(taught, [SYSTEM, ASK], [TOOL]) == rendered(with_tools(TURNS, "qwen"), [SYSTEM, ASK], [TOOL])
    assert rendered(taught, [ASK, ANSWER]) == rendered(TURNS, [ASK, ANSWER])
    assert with_tools(taught, "mistral", "Hm.") == with_tools(TURNS, "mistral", "Hm.")
    assert with_tools(taught, "mistral") == with_tools(TURNS, "mistral")


def test_smollm2_keeps_its_name(tokenizer: Any) -> None:
    """The real template: what it says of itself stands before the tools, as in a conversation without any."""
    own = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert default_system_of(tokenizer) == own
    taught = with_tools(tokenizer.chat_template, "qwen", own)
    assert rendered(taught, [ASK], [TOOL]).startswith(f"<|im_start|>system\n{own}\n\n# Tools")


WRITES = "{%- for m in messages %}[{{ m.role }}|{{ m.content }}]{%- endfor %}"
BY_ITSELF = "{%- if messages[0].role != 'system' %}[system|{SYSTEM}]{%- endif %}" + WRITES


@pytest.mark.parametrize(("source", "system"), [
    (BY_ITSELF.replace("{SYSTEM}", "Be kind.\n"), "Be kind.\n"),
    (BY_ITSELF.replace("{SYSTEM}", "{{ bos_token }}"), "<|im_start|>"),
    (BY_ITSELF.replace("{SYSTEM}", "Today is {{ strftime_now('%d %b %Y') }}."), ""),
    (BY_ITSELF.replace("{SYSTEM}", ""), ""),
    (BY_ITSELF.replace("|{SYSTEM}]", "] Be kind."), ""),  # a message cannot stand there
    (WRITES, ""),
    ("{{ strftime_now('%Y') }}" + BY_ITSELF.replace("{SYSTEM}", "Be kind."), "Be kind."),
    ("[head{% if messages[0].role == 'system' %} {{ messages[0].content|trim }}{% endif %}]", ""),
    (BY_ITSELF.replace("{SYSTEM}", "Be kind. ").replace("m.content", "m.content|trim"), ""),
    ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + WRITES, ""),
    ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", ""),
    ("Always.", ""),
    (None, ""),
])
def test_the_system_text_of_a_template(tokenizer: Any, source: str | None, system: str) -> None:
    """Only what a system message with this text would write too; a date that changes is none."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = source
    assert default_system_of(own) == system


def test_calls_follow_what_is_said_on_a_line_of_their_own() -> None:
    for said, gap in (("I look.", "\n"), ("I look.\n", ""), ("", "")):
        told = rendered(with_tools(TURNS, "qwen"), [ASK, {**CALL, "content": said}])
        assert told.startswith(f"[user|Is there Emma?][assistant|{said}{gap}<tool_call>\n")
    told = rendered(with_tools(TURNS, "glm4_moe"), [ASK, {**CALL, "content": "I look."}])
    assert "[assistant|I look.\n<tool_call>find_book" in told


def test_results_that_follow_each_other_are_one_message() -> None:
    """Many templates want user and assistant in turn."""
    told = rendered(with_tools(TURNS, "qwen"), [ASK, CALL, RESULT, {**RESULT, "content": {"found": "é"}}, ANSWER, ASK])
    assert ('</tool_call>][user|<tool_response>\n{"found": 3}\n</tool_response>\n<tool_response>\n{"found": "é"}\n'
            "</tool_response>][assistant|Yes, three.][user|Is there") in told


def test_contents_in_parts() -> None:
    """Content may be a list of parts, as OpenAI has it; what is no text is refused, not left out unseen."""
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    told = rendered(with_tools(TURNS, "mistral"), [{"role": "system", "content": parts}, ASK], [TOOL])
    assert told.startswith("[system|Be brief.[AVAILABLE_TOOLS]")
    with pytest.raises(TemplateError, match="can hold only text"):
        rendered(with_tools(TURNS, "qwen"), [ASK, CALL, {"role": "tool", "content": [{"type": "image"}]}])


def test_the_template_below_sees_no_tools() -> None:
    """It may have its own way with tools, which must not be written as well. A thought it still sees."""
    source = ("{{ tools is none }}{% for m in messages %}{{ m.role == 'tool' or 'tool_calls' in m }}"
              "({{ m.reasoning_content }}){% endfor %}")
    talk = [ASK, {**CALL, "reasoning_content": "hm"}, RESULT, ANSWER]
    assert rendered(with_tools(source, "qwen"), talk, [TOOL]) == "TrueFalse()False()False(hm)False()False()"


def test_teaching_again_only_changes_the_format() -> None:
    once = with_tools(TURNS, "qwen")
    assert with_tools(once, "qwen") == once
    assert with_tools(once, "mistral") == with_tools(TURNS, "mistral")
