"""The shapes in which people keep what a model learns from, and how each row becomes a `Row`.

alpaca: instruction, input, output (and system, history). sharegpt: `conversations` with from/value. openai: `messages`
with role/content. trl: prompt and completion, as text or as messages. Each of the four may hold a better and a worse
answer (chosen, rejected) or a judgement (kto_tag, label). text: plain text. `columns` and `tags` rename them as
dataset_info.json does, its trap included: a block that is present makes every key it does not list unknown.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from truetune.data.messages import (
    BadRow,
    Conversation,
    Document,
    Judged,
    Kind,
    Message,
    Place,
    Preference,
    Role,
    Row,
    conversation,
)
from truetune.data.tools import read_call_turn, read_calls, read_tools
from truetune.findings import Both, Finding, Problem, Words, spoken

DESCRIBED = Literal["alpaca", "sharegpt", "openai"]
"""The formats that dataset_info.json can name."""
Formatting = Literal["alpaca", "sharegpt", "openai", "trl", "text"]


@dataclass(frozen=True)
class Layout:
    """How to read a row: the format, what its columns are called, and what its roles are called. tagged: a tags block
    says so, and other names of roles are none."""

    formatting: Formatting
    columns: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    tagged: bool = False

    @property
    def kind(self) -> Kind:
        """What its rows are: the columns tell."""
        if "chosen" in self.columns:
            return "preferences"
        if "kto_tag" in self.columns:
            return "judged"
        plain = "messages" not in self.columns and "response" not in self.columns
        return "documents" if plain else "conversations"

    @cached_property
    def roles(self) -> dict[str, str]:
        """What the rows call a role → the tag that it is; the usual names first."""
        named = {self.tags[tag]: tag for tag in _ROLES if tag in self.tags}
        also = _ALIASES[self.formatting] if self.tagged else {**_USUAL, **_ALIASES[self.formatting]}
        return named | {name: tag for name, tag in also.items() if tag in self.tags and name not in named}


_ROLES: dict[str, Role] = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system",
                           "observation_tag": "tool", "function_tag": "assistant"}
_SHAREGPT_TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
                  "system_tag": "system", "observation_tag": "observation", "function_tag": "function_call"}
_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
                "system_tag": "system", "observation_tag": "tool"}
_USUAL = {name: tag for tags in (_OPENAI_TAGS, _SHAREGPT_TAGS) for tag, name in tags.items() if tag in _ROLES}
"""What roles are called wherever no tags block says otherwise: many files have `from: user`, and some `role: gpt`."""
_OPENAI_ALIASES = {"developer": "system_tag", "function": "observation_tag"}
_ALIASES: dict[Formatting, dict[str, str]] = {"alpaca": {}, "sharegpt": {}, "text": {}, "openai": _OPENAI_ALIASES,
                                              "trl": _OPENAI_ALIASES}
"""Further names of roles, where a tags block gives them no other meaning."""
TAG_KEYS = tuple(_SHAREGPT_TAGS)
"""What a tags block of dataset_info.json can name."""
DEFAULTS: dict[DESCRIBED, Layout] = {
    "alpaca": Layout("alpaca", {"prompt": "instruction", "query": "input", "response": "output"}),
    "sharegpt": Layout("sharegpt", {"messages": "conversations"}, _SHAREGPT_TAGS),
    "openai": Layout("openai", {"messages": "messages"}, _OPENAI_TAGS),
}
_ANSWERS = {"chosen": "chosen", "rejected": "rejected"}
_MEDIA = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
"""Columns that mean something and are not read yet: a row that fills one is refused, never trained on without it. And
what stands in the text for each of them."""
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""What data call the thought before an answer, where they keep it apart."""
_OPTIONAL = {name: name for name in ("system", "history", "tools", *_MEDIA, "thinking", "kto_tag")}
COLUMN_KEYS = ("prompt", "query", "response", "messages", "chosen", "rejected", *_OPTIONAL)
"""What a columns block of dataset_info.json can name."""


# --------------------------------------------------------------------------------------------------- which layout it is


def described_layout(formatting: DESCRIBED, columns: Mapping[str, str | None] | None,
                     tags: Mapping[str, str | None] | None, ranking: bool, where: str) -> Layout:
    """The layout that an entry of dataset_info.json describes: a block that is present replaces the defaults whole.

    Raises:
        Problem: a block does not name what the format cannot do without.
    """
    default = DEFAULTS[formatting]
    answers = _ANSWERS if ranking else {}
    block = {**default.columns, **answers} if columns is None else _named(columns)
    blocks = {"columns": {key: name for key, name in block.items() if ranking or key not in _ANSWERS},
              "tags": default.tags if tags is None else _named(tags)}
    turns = formatting != "alpaca"
    needed = {"columns": (("messages",) if turns else ("prompt",)) + tuple(answers),
              "tags": ("role_tag", "content_tag", "user_tag", "assistant_tag") if turns else ()}
    absent = [(block, key) for block, keys in needed.items() for key in keys if key not in blocks[block]]
    if absent:
        raise Problem(Finding("bad-info", "error", Both(f"its {block} block names no {key}.",
                                                        f"{block} 块里没有 {key}。"), where=where,
                              fix=Both(f"A {block} block replaces the defaults whole: name {key} in it, or leave it "
                                       "out.", f"写了 {block} 块，默认值就全部失效：请补上 {key}，或去掉整个块。"))
                      for block, key in absent)
    return Layout(formatting, **blocks, tagged=tags is not None)


def unknown_keys(block: Iterable[str], known: Collection[str], what: Words, where: str) -> Iterator[Finding]:
    """A finding for each key of a block of dataset_info.json that means nothing: its column would be lost unseen."""
    for key in block:
        if key not in known:
            near = near_key(key, known)
            yield Finding("bad-info", "error", Both(f"{what} has an unknown key {key!r}.",
                                                    f"{spoken(what, True)}里有未知的键 {key!r}。"), where=where,
                          fix=Both(f"Did you mean {near}?", f"是不是 {near}？") if near else
                          Both(f"It can have {', '.join(known)}.", f"可用的键：{'、'.join(known)}。"))


def near_key(key: str, known: Collection[str]) -> str | None:
    """The known key that this one looks like a slip of. (`file_sha1`, which old files have, is none of `file_name`.)"""
    return next(iter(difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.75)), None)


def _named(block: Mapping[str, str | None]) -> dict[str, str]:
    return {key: name for key, name in block.items() if name}


@dataclass(frozen=True)
class _Shape:
    """Columns by which a format is recognised, and others that it may have beside those that all may have."""

    formatting: Formatting
    needed: Mapping[str, str]
    more: Mapping[str, str] = field(default_factory=dict)


_SHAPES = (
    _Shape("alpaca", {"prompt": "instruction", **_ANSWERS}, {"query": "input"}),
    _Shape("sharegpt", {"messages": "conversations", **_ANSWERS}),
    _Shape("openai", {"messages": "messages", **_ANSWERS}),
    _Shape("trl", _ANSWERS, {"messages": "prompt"}),
    _Shape("alpaca", {"prompt": "instruction", "response": "output"}, {"query": "input"}),
    _Shape("sharegpt", {"messages": "conversations"}),
    _Shape("openai", {"messages": "messages"}),
    _Shape("trl", {"messages": "prompt", "response": "completion"}),
    _Shape("text", {"prompt": "text"}),
)
"""The first that fits is it."""
_PLAIN = [(shape.formatting, tuple(shape.needed.values())) for shape in _SHAPES if "chosen" not in shape.needed]
KNOWN_SHAPES = Both(
    "; ".join(f"{name} ({', '.join(columns)})" for name, columns in _PLAIN)
    + "; the first four also with chosen and rejected",
    "；".join(f"{name}（{'、'.join(columns)}）" for name, columns in _PLAIN) + "；前四种也可以带 chosen 和 rejected")


def recognise(rows: Sequence[Mapping[str, Any]]) -> Layout | None:
    """The layout of a file that begins with these rows; None if it is none of ours.

    Optional columns (system, history, tools, …) are read where they are there.
    """
    columns = {column for row in rows for column in row}
    for shape in _SHAPES:
        if columns.issuperset(shape.needed.values()):
            names = {**_OPTIONAL, "thinking": "reasoning_content", **_optional_of(rows, columns), **shape.more}
            there = {key: name for key, name in names.items() if name in columns}
            tags = _tags(rows, shape)
            return Layout(shape.formatting, {**there, **shape.needed}, tags)
    if all(isinstance(row.get("content"), str) for row in rows) and len(_text_columns(rows)) == 1:
        return Layout("text", {"prompt": "content"})
    return None


def _optional_of(rows: Sequence[Mapping[str, Any]], columns: set[str]) -> dict[str, str]:
    """Optional columns that go by several names. A `label` is a judgement where it is true or false, as KTO has it;
    a number or a word is somebody's class of something."""
    labels = [row["label"] for row in rows if row.get("label") not in (None, "")]
    judged = bool(labels) and all(isinstance(label, bool) or label in ("true", "false", "True", "False")
                                  for label in labels)
    found = {"kto_tag": "label"} if judged and "kto_tag" not in columns else {}
    return found | ({"thinking": "thinking"} if "thinking" in columns else {})


def _tags(rows: Sequence[Mapping[str, Any]], shape: _Shape) -> Mapping[str, str]:
    """from/value or role/content: the first turn tells, since either is found in `conversations` and in `messages`."""
    turns = rows[0].get(shape.needed.get("messages", ""))
    first = turns[0] if isinstance(turns, list) and turns else None
    if isinstance(first, dict):
        return _SHAREGPT_TAGS if {"from", "value"} <= first.keys() else _OPENAI_TAGS
    default = {"alpaca": {}, "sharegpt": _SHAREGPT_TAGS, "text": {}}
    return default.get(shape.formatting, _OPENAI_TAGS)


def _text_columns(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {column for row in rows for column, value in row.items() if isinstance(value, str)}


# ------------------------------------------------------------------------------------------------------- row by row


def to_row(values: Mapping[str, Any], layout: Layout, kind: Kind, place: Place) -> Row:
    """One row as what a stage learns from. `kind` is the layout's own.

    Raises:
        BadRow: a column is missing or holds something else, a role has no meaning, the roles are out of order, or there
            are media.
    """
    row = _ROWS[kind](values, layout, place)
    if any([key in layout.columns or key in values for key in _MEDIA]):
        _no_media(row, values, layout.columns)
    return row


def _no_media(row: Row, values: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    """Where there is a column for media, `<image>` in a text stands for one. (Where there is none, it is a word.)"""
    texts = list(_texts(row))
    for key, mark in _MEDIA.items():
        media = _list(values.get(columns[key])) if key in columns else None
        given = len(media) if isinstance(media, list) else int(bool(media))
        told = sum(text.count(mark) for _, text in texts)
        holder = next((where for where, text in texts if mark in text), None)
        counts = Both(f"({told} {mark} in the text, {given} in {columns.get(key, key)})",
                      f"（文本里有 {told} 个 {mark}，{columns.get(key, key)} 里有 {given} 个）")
        if holder:
            raise BadRow(Both(f"{holder} holds {mark}, and media are not read yet {counts}",
                              f"{holder.zh}含有 {mark}，而多媒体内容暂不支持{counts.zh}"))
        if given:
            raise BadRow(Both(f"column {columns[key]!r} has {key}, which are not read yet {counts}",
                              f"列 {columns[key]!r} 里有 {key}，暂不支持{counts.zh}"))


def _texts(row: Row) -> Iterator[tuple[Both, str]]:
    """What a row says, and where."""
    match row:
        case Document(text):
            yield Both("the text", "文本"), text
        case Judged(talk):
            yield from _texts(talk)
        case Preference(chosen, rejected):
            yield from _texts(chosen)
            yield Both("rejected", "rejected "), rejected.messages[-1].content
        case Conversation(messages):
            yield from ((Both(f"turn {number}", f"第 {number} 条消息"), message.content)
                        for number, message in enumerate(messages, start=1))


def _to_conversation(values: Mapping[str, Any], layout: Layout, place: Place) -> Conversation:
    messages = _before(values, layout)
    if "response" in layout.columns:
        messages = _answered(messages, values, layout, "response")
    return conversation(messages, place, _tools(values, layout))


def _to_preference(values: Mapping[str, Any], layout: Layout, place: Place) -> Preference:
    tools = _tools(values, layout)
    before = _before(values, layout)
    chosen, rejected = (_pair_side(before, values, layout, key, place, tools) for key in _ANSWERS)
    if chosen.messages[:-1] != rejected.messages[:-1]:
        raise BadRow(Both("chosen and rejected differ already before their last answer",
                          "chosen 和 rejected 在最后一个回答之前就不相同"))
    if chosen.messages == rejected.messages:
        raise BadRow(Both("chosen and rejected are the same", "chosen 和 rejected 完全相同"))
    return Preference(chosen, rejected)


def _pair_side(before: Sequence[Message], values: Mapping[str, Any], layout: Layout, key: str, place: Place,
               tools: tuple[Mapping[str, Any], ...]) -> Conversation:
    try:
        return conversation(_answered(before, values, layout, key), place, tools)
    except BadRow as error:
        raise BadRow(Both(f"{key}: {error}", f"{key}：{spoken(error.reason, True)}")) from None


def _to_judged(values: Mapping[str, Any], layout: Layout, place: Place) -> Judged:
    column = layout.columns["kto_tag"]
    good = values.get(column)
    if isinstance(good, str):  # csv knows no other
        good = {"true": True, "false": False}.get(good.lower())
    if not isinstance(good, bool):
        raise BadRow(_must_be(_column(column), _TRUTH, f"{values.get(column)!r:.40}"))
    return Judged(_to_conversation(values, layout, place), good)


def _to_document(values: Mapping[str, Any], layout: Layout, place: Place) -> Document:
    text = _question(values, layout)
    if not text.strip():
        raise BadRow(Both("there is no text", "没有文本"))
    return Document(text, place)


_ROWS: dict[Kind, Callable[[Mapping[str, Any], Layout, Place], Row]] = {
    "conversations": _to_conversation, "preferences": _to_preference, "judged": _to_judged, "documents": _to_document,
}


def _before(values: Mapping[str, Any], layout: Layout) -> list[Message]:
    """What is said before the answer; the whole conversation where it ends with the answer. An empty system message is
    none, as in LLaMA-Factory."""
    columns = layout.columns
    system = _text(values, columns["system"], required=False) if "system" in columns else ""
    if "messages" in columns:
        messages = _turns(values.get(columns["messages"]), layout, _column(columns["messages"]))
    elif "prompt" in columns:
        messages = _history(values, columns["history"]) if "history" in columns else []
        messages.append(Message("user", _question(values, layout)))
    else:
        messages = []
    if messages and messages[0].role == "system":
        if system:
            raise BadRow(Both("there are two system messages, a column and a turn",
                              "有两条系统消息：一条在单独的列里，一条在对话里"))
        return messages if messages[0].content else messages[1:]
    return [Message("system", system), *messages] if system else messages


def _question(values: Mapping[str, Any], layout: Layout) -> str:
    """As in LLaMA-Factory either part may be empty: some data keep the whole question in `input`."""
    asked = _text(values, layout.columns["prompt"])
    more = _text(values, layout.columns["query"], required=False) if "query" in layout.columns else ""
    return f"{asked}\n{more}" if asked and more else asked or more


def _history(values: Mapping[str, Any], column: str) -> list[Message]:
    pairs = _list(values.get(column) or [])
    if not isinstance(pairs, list):
        raise BadRow(Both(f"column {column!r} must be a list of pairs", f"列 {column!r} 必须是由成对文本组成的列表"))
    messages: list[Message] = []
    for number, pair in enumerate(pairs, start=1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise BadRow(Both(f"history {number} must be a pair [user, assistant] of texts",
                              f"history 的第 {number} 项必须是一对文本 [user, assistant]"))
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    return messages


def _answered(before: Sequence[Message], values: Mapping[str, Any], layout: Layout, key: str) -> list[Message]:
    """What is said before, and the answer in column `key`: text, a turn, or turns. Turns that do not begin with an
    answer are the whole conversation, and the prompt beside them only repeats its question."""
    column = layout.columns[key]
    value = values.get(column)
    if isinstance(value, dict) and layout.tags:
        value = [value]
    if isinstance(value, list) and layout.tags:
        turns = _turns(value, layout, _column(column))
        opening = [message for message in before[:1] if message.role == "system" and turns[:1] and
                   turns[0].role != "system"]
        return [*opening, *turns] if turns and turns[0].role != "assistant" else [*before, *turns]
    thought = values.get(layout.columns["thinking"]) if "thinking" in layout.columns else None
    return [*before, Message("assistant", _text(values, column), _thought(thought, _THE_ANSWER))]


def _tools(values: Mapping[str, Any], layout: Layout) -> tuple[Mapping[str, Any], ...]:
    value = values.get(layout.columns["tools"]) if "tools" in layout.columns else None
    return read_tools(value) if value else ()


def _text(values: Mapping[str, Any], column: str, required: bool = True) -> str:
    value = values.get(column)
    if isinstance(value, str):
        return value
    if value is not None:
        raise BadRow(_must_be(_column(column), _TEXT, type(value).__name__))
    if required:
        raise BadRow(_absent(_column(column), values, column))
    return ""


_TEXT, _TRUTH = Both("text", "文本"), Both("true or false", " true 或 false")
_THE_ANSWER, _THE_TURN = Both("the answer", "回答"), Both("the turn", "这条消息")


def _column(name: str) -> Both:
    return Both(f"column {name!r}", f"列 {name!r} ")


def _must_be(what: Both, wanted: Both, found: str) -> Both:
    """What is said of a value of the wrong kind. The space between Chinese and other letters is in `what`, `wanted`."""
    return Both(f"{what} must be {wanted}, not {found}", f"{what.zh}必须是{wanted.zh}，而不是 {found}")


def _absent(what: Both, values: Mapping[str, Any], key: str) -> Both:
    """What is said of a value that is not there."""
    return Both(f"{what} is {'null' if key in values else 'missing'}",
                f"{what.zh}{'为 null' if key in values else '缺失'}")


def _list(value: Any) -> Any:
    """A list, also where a table (csv, parquet) keeps it as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return value
    return value


# ------------------------------------------------------------------------------------------------------ turn by turn


def _turns(value: Any, layout: Layout, what: Both) -> list[Message]:
    turns = _list(value)
    if isinstance(turns, str) and layout.formatting == "trl":
        return [Message("user", turns)]
    if not isinstance(turns, list):
        raise BadRow(Both(f"{what} must be a list of turns", f"{what.zh}必须是由消息组成的列表"))
    roles, role_key, content_key = layout.roles, layout.tags["role_tag"], layout.tags["content_tag"]
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or role_key not in turn:
            raise BadRow(Both(f"turn {number} must have {role_key!r} and {content_key!r}",
                              f"第 {number} 条消息必须有 {role_key!r} 和 {content_key!r}"))
        tag = roles.get(turn[role_key]) if isinstance(turn[role_key], str) else None
        if tag is None:
            raise _strange_role(number, turn[role_key], layout, turns)
        try:
            messages.append(_turn(turn, tag, content_key))
        except BadRow as error:
            raise BadRow(Both(f"turn {number}: {error}",
                              f"第 {number} 条消息：{spoken(error.reason, True)}")) from None
    return messages


def _strange_role(number: int, role: Any, layout: Layout, turns: Sequence[Any]) -> BadRow:
    """Where a tags block is to blame, the fix is all the tags that this row needs."""
    untagged = Both("", "") if "system_tag" in layout.tags else \
        Both(" (the tags block in dataset_info.json names no system_tag)",
             "（dataset_info.json 的 tags 块里没有 system_tag）")
    role_key = layout.tags["role_tag"]
    used = [turn[role_key] for turn in turns if isinstance(turn, dict) and isinstance(turn.get(role_key), str)]
    tags = {_USUAL[name]: name for name in used if name in _USUAL and name not in layout.roles}
    known = list(map(repr, layout.roles))
    missing = ", ".join(f'"{tag}": "{name}"' for tag, name in tags.items())
    return BadRow(Both(f"turn {number} has the role {role!r}; it must be one of {', '.join(known)}{untagged}",
                       f"第 {number} 条消息的角色是 {role!r}，可用的角色：{'、'.join(known)}{untagged.zh}"),
                  fix=Both(f"In its tags block set {missing}.", f"请在 tags 块里设置 {missing}。")
                  if layout.tagged and missing else None)


def _turn(turn: Mapping[str, Any], tag: str, content_key: str) -> Message:
    """A turn as a message. Most have a role and a text, and the quick way is theirs."""
    role, content = _ROLES[tag], turn.get(content_key)
    if len(turn) == 2 and isinstance(content, str) and tag != "function_tag":
        return Message(role, content)
    calls = read_calls(turn.get("tool_calls") or turn.get("function_call"))
    if content is None and not calls:
        raise BadRow(_absent(Both(f"{content_key!r}", f"{content_key!r} "), turn, content_key))
    if tag == "function_tag" and not isinstance(content, str):
        return Message(role, "", tool_calls=calls or read_calls(content))
    text = _content(content, content_key)
    if tag == "function_tag":
        text, calls = read_call_turn(text)
    if calls and role != "assistant":
        raise BadRow(Both(f"only an assistant calls tools, not {role}", f"只有 assistant 能调用工具，{role} 不能"))
    thought = next((turn[key] for key in _THOUGHTS if turn.get(key)), None)
    return Message(role, text, _thought(thought, _THE_TURN), calls, _weight(turn, role))


def _content(content: Any, key: str) -> str:
    """Text, also where it comes in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise BadRow(_must_be(Both(f"{key!r}", f"{key!r} "), _TEXT, type(content).__name__))
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            media = next((medium for word, medium in _PARTS.items() if word in str(kind)), None)
            raise BadRow(Both(f"{media} are not read yet", f"暂不支持 {media}") if media else
                         Both(f"{key!r} must be text or parts with a text", f"{key!r} 必须是文本，或带 text 的分段"))
        texts.append(part["text"])
    return "".join(texts)


_PARTS = {"image": "images", "video": "videos", "audio": "audios", "file": "files"}


def _thought(value: Any, what: Both) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRow(_must_be(Both(f"the thought of {what}", f"{what.zh}的思考"), _TEXT, type(value).__name__))
    return value


def _weight(turn: Mapping[str, Any], role: Role) -> float | None:
    """What an answer counts: `weight`, a number, or `loss`, true or false."""
    weight, loss = turn.get("weight"), turn.get("loss")
    if loss is not None and not isinstance(loss, bool):
        raise BadRow(_must_be(Both("'loss'", "'loss' "), _TRUTH, f"{loss!r:.40}"))
    if weight is None:
        weight = loss if loss is None else float(loss)
    elif isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise BadRow(_must_be(Both("'weight'", "'weight' "), Both("a number, 0 or more", "不小于 0 的数"),
                              f"{weight!r:.40}"))
    if role == "assistant" or not weight:
        return float(weight) if role == "assistant" and weight is not None else None
    raise BadRow(Both(f"only an assistant's turn is learned, so it cannot have the weight {weight:g}",
                      f"只学习 assistant 的消息，因此不能有权重 {weight:g}"))
