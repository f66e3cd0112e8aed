"""Tools: how they are offered to a model, how its calls are written, and how the calls are read out of an answer.

Each of LLaMA-Factory's 13 tool formats in both directions. The way out is Jinja (`templates/tools/<format>.jinja`), so
that it is saved inside the chat template and every server writes what was trained. The way back is here. Where
LLaMA-Factory writes other than the model's makers do (it leaves out a closing tag, say) we write as it does, for what
was trained with it, and read both.

What a format cannot say, since its text has no escapes: in the XML formats (minimax2, qwen3_5, glm4_moe, seed_oss) a
value with its own closing tag in it, and, unless the tool declares its types, a string that reads as JSON ("2" comes
back as 2); in gemma4 a string with `<|"|>` in it and a key with `:`, `,`, `{` or `}`; in lfm2 a key with `=`, `,`, a
bracket or a space.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from truetune.data.messages import BadRow, ToolCall
from truetune.findings import WRONG_OPTIONS, Both, Words, parser_says, problem, spoken

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FOLDER = Path(__file__).with_name("templates") / "tools"
_CARRIER = "with_tools"

TOOL_FORMATS = ("default", "gemma4", "glm4", "llama3", "lfm2", "minimax1", "minimax2", "mistral", "qwen", "qwen3_5",
                "glm4_moe", "seed_oss", "ling")

Tools = Sequence[Mapping[str, Any]]
"""Tools as OpenAI writes them, `{"type": "function", "function": {…}}`, or only the inner object."""


@cache
def tool_macros(name: str) -> str:
    """The Jinja text of a tool format. It defines `tool_prompt(tools)`, what is appended to the system text,
    `tool_calls(calls)`, what the assistant writes, and `tool_result(text)`, a result in a message of the user (a named
    template that has a role for results writes them its own way).

    Raises:
        Problem: there is no such format.
    """
    if name not in TOOL_FORMATS:
        near = difflib.get_close_matches(name, TOOL_FORMATS, n=3, cutoff=0.5)
        raise problem("unknown-tool-format", Both(f"there is no tool format {name!r}.", f"没有工具格式 {name!r}。"),
                      option="tool_format", status=WRONG_OPTIONS,
                      fix=Both(f"Did you mean {' or '.join(near)}?", f"是不是 {' 或 '.join(near)}？") if near else
                      Both(f"There are {', '.join(TOOL_FORMATS)}.", f"可用的格式：{'、'.join(TOOL_FORMATS)}。"))
    return _jinja(name)


def with_tools(source: str, tool_format: str, default_system: str = "") -> str:
    """A chat template, made to speak `tool_format`: when there are tools, calls or results, it puts them into plain
    messages (see `with_tools.jinja`) before it writes them; without any, it writes what `source` writes.

    A template that this function has changed before only changes its format and system text.

    Args:
        default_system: what `source` writes as system text where a conversation brings none (`default_system_of`). The
            tools stand behind it; without it they would stand in its place.

    Raises:
        Problem: there is no such format.
    """
    ours = _prelude(tool_format)
    without = _SYSTEM.sub("", source, count=1)
    for known in TOOL_FORMATS:
        if without.startswith(_prelude(known)):
            source = without.removeprefix(_prelude(known))
    return f"{{%- set truetune_system = {json.dumps(default_system, ensure_ascii=False)} -%}}\n{ours}{source}"


def default_system_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The system text that the tokenizer's template writes where a conversation brings none; "" if it writes none,
    knows no system, or writes today's date in it.

    It is what stands where a system message would: found by rendering one, and proven by rendering it itself.
    """
    from jinja2 import TemplateError

    def rendered(*system: str, dates: str = "") -> str:
        talk = [*({"role": "system", "content": text} for text in system), {"role": "user", "content": "Hello."}]
        return str(tokenizer.apply_chat_template(talk, chat_template=dates + source, tokenize=False))

    if not tokenizer.chat_template:
        return ""
    source = tokenizer.get_chat_template()
    try:
        without = rendered()
        before, _, after = rendered(_MARK).partition(_MARK)
        found = without[len(before) : len(without) - len(after)]
        proven = f"{before}{found}{after}" == without == rendered(found) and found in rendered(dates=_NO_DATE)
    except TemplateError:  # many templates refuse a system message
        return ""
    return found if proven else ""


def parse_calls(text: str, tool_format: str, tools: Tools = ()) -> tuple[str, list[ToolCall]]:
    """What an answer says, and the calls it makes (none: an empty list, and the text is as it was).

    A call that cannot be read is no call; it stays in the text. White space around calls goes with them.

    Args:
        tools: what was offered. XML formats write every value as text, so only the declared types tell 2 from "2".

    Raises:
        Problem: there is no such format.
    """
    tool_macros(tool_format)
    found = list(_READERS[tool_format](text, tools))
    if not found:
        return text, []
    ends = [0, *(end for one in found for end in (one.start, one.end)), len(text)]
    said = (text[start:end].strip() for start, end in zip(ends[::2], ends[1::2], strict=True))
    return "\n".join(filter(None, said)), [call for one in found for call in one.calls]


def read_tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The tools column of a row: JSON text, or a list whose items are objects or JSON text. Nothing: no tools.

    Raises:
        BadRow: it is something else, or a tool in it has no name.
    """
    if isinstance(value, str):
        value = _json(value, Both("tools are", "tools ")) if value.strip() else None
    listed = value or []
    if isinstance(listed, Mapping):
        listed = [listed]
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise BadRow(_is_not(Both("tools are", "tools "), listed, Both("a list", "列表")))
    return tuple(_tool(tool, number) for number, tool in enumerate(listed, start=1))


def read_calls(value: Any) -> tuple[ToolCall, ...]:
    """The calls of a turn: OpenAI's `tool_calls`, or what a sharegpt function_call turn holds: JSON, or text in any of
    the tool formats. Nothing: no calls.

    Raises:
        BadRow: it is something else, a call in it has no name, or something is said beside them (for a turn that has
            a thought before its calls there is `read_call_turn`).
    """
    if not isinstance(value, str):
        return tuple(_calls(value))
    said, calls = read_call_turn(value)
    if said:
        raise BadRow(Both(f"beside the call there is text: {said[:40]!r}", f"调用之外还有文字：{said[:40]!r}"))
    return calls


def read_call_turn(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """A sharegpt function_call turn: what is said before the calls (a thought, mostly), and the calls.

    Raises:
        BadRow: no call can be read in it.
    """
    if not text.strip():
        return "", ()
    try:
        listed = _json(text, Both("the call is", "调用"))
    except BadRow:
        for name in sorted(TOOL_FORMATS, key=lambda name: name == "glm4"):  # the loosest last
            said, calls = parse_calls(text, name)
            if calls:
                return said, tuple(calls)
        raise
    return "", tuple(_calls(listed))


# ── Jinja ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _jinja(name: str) -> str:
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def _prelude(tool_format: str) -> str:
    """What stands before a template that is made to speak a format.

    The names of its macros are ones that no template uses for its own. Its last line feed is eaten by `trim_blocks`,
    which every server sets; without it, a template that opens with white space would be read otherwise than alone.
    """
    text = tool_macros(tool_format) + "\n" + _jinja(_CARRIER)
    return re.sub(r"\b(tool_prompt|tool_calls|tool_result)\(", r"truetune_\1(", text)


_SYSTEM = re.compile(r'\A\{%- set truetune_system = "(?:[^"\\]|\\.)*" -%\}\n')
"""The line that `with_tools` puts before the macros."""
_MARK = "A system text that no template writes by itself."
_NO_DATE = "{%- macro strftime_now(form) -%}{{ form }}{%- endmacro -%}\n"
"""In front of a template: every date is written as its form, `%d %b %Y`."""


# ── Values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number, strict=False)
"""JSON as models write it: a line feed may stand in a string, NaN may not stand anywhere."""

_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
"""JSON's and Python's: templates of the models' makers print booleans as Python does."""


def _json(text: str, what: Words) -> Any:
    """Raises:
    BadRow: `text` is not JSON, and where.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place, reason = error.pos + 1, parser_says(error.msg)
        raise BadRow(Both(f"{what} not JSON: {reason} at character {place}",
                          f"{spoken(what, True)}不是合法的 JSON：第 {place} 个字符处，{reason.zh}")) from None
    except (ValueError, RecursionError) as error:
        raise BadRow(Both(f"{what} not JSON: {error}", f"{spoken(what, True)}不是合法的 JSON：{error}")) from None


_A_NUMBER, _AN_OBJECT = Both("a number", "数"), Both("an object", "对象")
_KINDS = {dict: _AN_OBJECT, list: Both("a list", "列表"), str: Both("text", "文本"),
          bool: Both("true or false", " true 或 false"), int: _A_NUMBER, float: _A_NUMBER,
          type(None): Both("nothing", "空值")}


def _is_not(what: Both, value: Any, wanted: Both) -> Both:
    """What is said of a value of the wrong kind. The space between Chinese and other letters is in `what`."""
    found = type(value).__name__
    kind = _KINDS.get(type(value), Both(found, f" {found}"))
    return Both(f"{what} {kind}, not {wanted}", f"{what.zh}应当是{wanted.zh}，而不是{kind.zh}")


def _tool(tool: Any, number: int) -> Mapping[str, Any]:
    if isinstance(tool, str):
        tool = _json(tool, Both(f"tool {number} is", f"第 {number} 个工具"))
    if not isinstance(tool, Mapping):
        raise BadRow(_is_not(Both(f"tool {number} is", f"第 {number} 个工具"), tool, _AN_OBJECT))
    function = tool.get("function") or tool
    if not (isinstance(function, Mapping) and isinstance(function.get("name"), str) and function["name"].strip()):
        raise BadRow(Both(f"tool {number} has no name", f"第 {number} 个工具没有 name"))
    if not isinstance(function.get("parameters") or {}, Mapping):
        raise BadRow(_is_not(Both(f"tool {number} ({function['name']}): its parameters are",
                                  f"第 {number} 个工具（{function['name']}）的 parameters "), function["parameters"],
                             _AN_OBJECT))
    return tool


def _calls(value: Any) -> list[ToolCall]:
    """Raises:
    BadRow: it is neither a call nor a list of calls.
    """
    listed = [value] if isinstance(value, Mapping) else value if value is not None else []
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise BadRow(_is_not(Both("the call is", "调用"), listed, _AN_OBJECT))
    return [_call(call, number) for number, call in enumerate(listed, start=1)]


def _call(value: Any, number: int) -> ToolCall:
    if isinstance(value, str):
        value = _json(value, Both(f"call {number} is", f"第 {number} 个调用"))
    function = value.get("function", value) if isinstance(value, Mapping) else value
    if not isinstance(function, Mapping):
        raise BadRow(_is_not(Both(f"call {number} is", f"第 {number} 个调用"), function, _AN_OBJECT))
    name = function.get("name")
    if not (isinstance(name, str) and name.strip()):
        raise BadRow(Both(f"call {number} has no name", f"第 {number} 个调用没有 name"))
    key = next((key for key in ("arguments", "parameters") if key in function), None)
    if key is None:
        raise BadRow(Both(f"call {number} ({name}) has no arguments", f"第 {number} 个调用（{name}）没有 arguments"))
    arguments, what = function[key] or {}, Both(f"call {number} ({name}): its arguments are",
                                                f"第 {number} 个调用（{name}）的 arguments ")
    if isinstance(arguments, str):
        arguments = _json(arguments, what)
    if not isinstance(arguments, Mapping):
        raise BadRow(_is_not(what, arguments, _AN_OBJECT))
    return ToolCall(name, arguments)


# ── Calls in an answer ───────────────────────────────────────────────────────────────────────────────────────────────


class _Found(NamedTuple):
    """Calls, and the characters [start, end) that they are written in."""

    start: int
    end: int
    calls: Sequence[ToolCall]


_Reader = Callable[[str, Tools], Iterable[_Found]]
_ReadAt = Callable[[str, int], tuple[Any, int]]
"""Reads the value that stands at a character; gives it and the character behind it."""


def _each(opening: str, text: str, read: Callable[[re.Match[str]], _Found]) -> Iterator[_Found]:
    """What `read` makes of each place where calls open. Where it raises ValueError there is no call."""
    pattern = re.compile(opening, re.MULTILINE)
    opened = pattern.search(text)
    while opened:
        try:
            found = read(opened)
        except (ValueError, RecursionError):
            opened = pattern.search(text, opened.start() + 1)
        else:
            yield found
            opened = pattern.search(text, found.end)


def _expect(pattern: str, text: str, at: int) -> re.Match[str]:
    found = re.compile(pattern).match(text, at)
    if not found:
        raise ValueError(f"no {pattern} at character {at + 1}")
    return found


def _first_of(*readers: _Reader) -> _Reader:
    """The first of several ways of writing that finds calls."""

    def read(text: str, tools: Tools) -> Iterable[_Found]:
        return next(filter(None, (list(reader(text, tools)) for reader in readers)), ())

    return read


def _json_at(text: str, at: int) -> tuple[Any, int]:
    return _DECODER.raw_decode(text, _expect(r"\s*", text, at).end())


def _json_calls(opening: str, closing: str) -> _Reader:
    """Calls that are JSON objects with a name and arguments, or lists of such, one or more between two marks."""

    def read(text: str, tools: Tools) -> Iterator[_Found]:
        def block(opened: re.Match[str]) -> _Found:
            value, at = _json_at(text, opened.end())
            calls = _calls(value)
            while not (closed := re.compile(closing).match(text, at)):
                value, at = _json_at(text, _expect(r"[\s;]*", text, at).end())
                calls += _calls(value)
            if not calls:
                raise ValueError("an empty list")
            return _Found(opened.start(), closed.end(), calls)

        return _each(opening, text, block)

    return read


def _named_calls(opening: str, closing: str, arguments_at: _ReadAt = _json_at) -> _Reader:
    """Calls that are a name (the first group of `opening`) and then an object."""

    def read(text: str, tools: Tools) -> Iterator[_Found]:
        def block(opened: re.Match[str]) -> _Found:
            arguments, at = arguments_at(text, opened.end())
            if not isinstance(arguments, dict):
                raise ValueError("arguments that are no object")
            return _Found(opened.start(), _expect(closing, text, at).end(), [ToolCall(opened[1], arguments)])

        return _each(opening, text, block)

    return read


def _xml_calls(opening: str, key: str, ending: str, closing: str, pad: str = "") -> _Reader:
    """Calls whose every argument stands between tags: `key` opens it, `ending` (text) closes it, `pad` before that
    is not the value's."""

    def read(text: str, tools: Tools) -> Iterator[_Found]:
        declared = {function.get("name"): function.get("parameters") or {}
                    for function in (tool.get("function") or tool for tool in tools)}

        def block(opened: re.Match[str]) -> _Found:
            name, at, values = opened[1], opened.end(), {}
            while keyed := re.compile(key).match(text, at):
                end = text.index(ending, keyed.end())
                values[keyed[1]] = text[keyed.end() : end].removesuffix(pad)
                at = end + len(ending)
            closed = _expect(closing, text, at)
            schemas = declared.get(name, {}).get("properties") or {}
            arguments = {key: _typed(value, schemas.get(key)) for key, value in values.items()}
            return _Found(opened.start(), closed.end(), [ToolCall(name, arguments)])

        return _each(opening, text, block)

    return read


def _typed(text: str, schema: Any) -> Any:
    """A value that was written as text: what JSON makes of it, unless its schema says that it is a string."""
    types = _types(schema)
    if "string" in types:
        return None if "null" in types and text == "null" else text
    try:
        return _json(text, "it is")
    except BadRow:
        return _WORDS.get(text, text) if types else text


def _types(schema: Any) -> set[str]:
    """The JSON types that a schema allows; empty: it does not say."""
    if not isinstance(schema, Mapping):
        return set()
    types = schema.get("type") or []
    allowed = {types} if isinstance(types, str) else set(types)
    for either in (*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())):
        allowed |= _types(either)
    if not allowed and any(isinstance(value, str) for value in schema.get("enum") or ()):
        allowed = {"string"}
    return allowed


def _python_calls(opening: str, closing: str) -> _Reader:
    """Calls written as in Python, with named arguments: `[weather(city="Paris", days=2), time()]`.

    Not read by Python's own parser: a parameter may be called `from`, and true and null are JSON's.
    """

    def read(text: str, tools: Tools) -> Iterator[_Found]:
        def block(opened: re.Match[str]) -> _Found:
            at, calls = opened.end(), []
            while not (closed := re.compile(closing).match(text, at)):
                name = _expect(r"[\s,]*([^\s()\[\],=\"']+)\(", text, at)
                at, arguments = name.end(), {}
                while not (end := re.compile(r"\s*\)").match(text, at)):
                    key = _expect(r"[\s,]*([^\s()\[\],=]+)\s*=", text, at)
                    arguments[key[1]], at = _literal_at(text, key.end())
                at = end.end()
                calls.append(ToolCall(name[1], arguments))
            if not calls:
                raise ValueError("an empty list")
            return _Found(opened.start(), closed.end(), calls)

        return _each(opening, text, block)

    return read


_GEMMA_QUOTE = '<|"|>'


def _literal_at(text: str, at: int) -> tuple[Any, int]:
    """A value in Gemma's or Python's notation: text in their quotes, words, numbers, lists, objects with keys quoted
    or bare."""
    at = _expect(r"\s*", text, at).end()
    if text.startswith(_GEMMA_QUOTE, at):
        start = at + len(_GEMMA_QUOTE)
        end = text.index(_GEMMA_QUOTE, start)
        return text[start:end], end + len(_GEMMA_QUOTE)
    if text.startswith(("\"", "'"), at):
        quoted = _expect(r"(?s:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)')", text, at)
        return _unescaped(quoted[1] or quoted[2] or ""), quoted.end()
    if text.startswith("{", at):
        return _object_at(text, at + 1)
    if text.startswith("[", at):
        items: list[Any] = []
        at += 1
        while not (closed := re.compile(r"\s*\]").match(text, at)):
            item, at = _literal_at(text, at)
            at = _expect(r"\s*(,|(?=\]))", text, at).end()
            items.append(item)
        return items, closed.end()
    word = _expect(r"[^\s,:=(){}\[\]]+", text, at)
    return _WORDS[word[0]] if word[0] in _WORDS else _DECODER.decode(word[0]), word.end()


def _object_at(text: str, at: int) -> tuple[dict[str, Any], int]:
    """The rest of an object whose brace has been read."""
    found: dict[str, Any] = {}
    while not (closed := re.compile(r"\s*\}").match(text, at)):
        at = _expect(r"\s*", text, at).end()
        if text.startswith((_GEMMA_QUOTE, "\"", "'"), at):
            key, at = _literal_at(text, at)
        else:
            bare = _expect(r"[^:,{}\s](?:[^:,{}]*[^:,{}\s])?", text, at)
            key, at = bare[0], bare.end()
        found[key], at = _literal_at(text, _expect(r"\s*:", text, at).end())
        at = _expect(r"\s*(,|(?=\}))", text, at).end()
    return found, closed.end()


def _unescaped(inner: str) -> str:
    """What stood between quotation marks of either kind."""
    as_json = re.sub(r"(?s:\\.)|\"", lambda found: {"\\'": "'", '"': '\\"'}.get(found[0], found[0]), inner)
    return _DECODER.decode(f'"{as_json}"')


_OBJECT = r"\{\s*\"(?:name|type|function|id|arguments|parameters)\""
"""How a call in JSON opens, where no mark says that one does."""

_READERS: Mapping[str, _Reader] = {
    "default": _named_calls(r"Action:[ \t]*(\S[^\n]*?)\s*Action Input:\s*(?:```(?:json)?\s*)?(?=\{)", r"(?:\s*```)?"),
    "gemma4": _named_calls(r"<\|tool_call>\s*call:\s*([^\s{]+)(?=\{)", r"\s*<tool_call\|>", _literal_at),
    "glm4": _named_calls(r"^([\w.-]+)[ \t]*\n\s*(?=\{)", r"\s*\Z"),
    "llama3": _json_calls(rf"(?:<\|python_tag\|>\s*)?(?={_OBJECT}|\[\s*{_OBJECT})", r"[\s;]*\Z"),
    "lfm2": _first_of(
        _json_calls(r"<\|tool_call_start\|>\s*(?=\{|\[\s*\{)", r"\s*<\|tool_call_end\|>"),
        _python_calls(r"<\|tool_call_start\|>\s*\[?", r"\s*\]?\s*<\|tool_call_end\|>")),
    "minimax1": _json_calls(r"<tool_calls>", r"\s*</tool_calls>"),
    "minimax2": _xml_calls(
        r"(?:<minimax:tool_call>\s*)?<invoke name=\"([^\"]+)\">", r"\s*<parameter name=\"([^\"]+)\">", "</parameter>",
        r"\s*</invoke>(?:\s*</minimax:tool_call>)?"),
    "mistral": _first_of(
        _named_calls(r"\[TOOL_CALLS\]\s*([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)", r""),
        _json_calls(rf"(?:\[TOOL_CALLS\]\s*)?(?={_OBJECT}|\[\s*{_OBJECT})", r"\s*\Z")),
    "qwen": _json_calls(r"<tool_call>", r"\s*</tool_call>"),
    "qwen3_5": _xml_calls(
        r"(?:<tool_call>\s*)?<function=([^\s<>]+)\s*>", r"\s*<parameter=([^>]+)>\n?", "</parameter>",
        r"\s*</function>(?:\s*</tool_call>)?", pad="\n"),
    "glm4_moe": _xml_calls(
        r"<tool_call>([^\s<>{}]+)", r"\s*<arg_key>([^<]+)</arg_key>\s*<arg_value>", "</arg_value>",
        r"\s*</tool_call>|(?=\s*<tool_call>)|\s*\Z"),
    "seed_oss": _xml_calls(
        r"(?:<seed:tool_call>\s*)?<function=([^\s<>]+)>?", r"\s*<parameter=([^>]+)>", "</parameter>",
        r"\s*</function>(?:\s*</seed:tool_call>)?"),
    "ling": _json_calls(r"<tool_call>", r"\s*</tool_call>"),
}
