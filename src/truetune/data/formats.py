"""The shapes in which people keep conversations, and how each row becomes messages.

alpaca: instruction, input, output (and system, history). sharegpt: `conversations` with from/value. openai: `messages`
with role/content. `columns` and `tags` rename them as dataset_info.json does, its trap included: a block that is
present makes every key it does not list unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal

from truetune.data.messages import BadRow, Message, Role
from truetune.findings import Finding, Problem

Formatting = Literal["alpaca", "sharegpt", "openai"]


@dataclass(frozen=True)
class Layout:
    """How to read a row: the format, what its columns are called, and what its roles are called."""

    formatting: Formatting
    columns: Mapping[str, str]
    tags: Mapping[str, str]


_SHAREGPT_TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
                  "system_tag": "system", "observation_tag": "observation", "function_tag": "function_call"}
_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
                "system_tag": "system", "observation_tag": "tool", "function_tag": "function"}
DEFAULTS: dict[Formatting, Layout] = {
    "alpaca": Layout("alpaca", {"prompt": "instruction", "query": "input", "response": "output"}, {}),
    "sharegpt": Layout("sharegpt", {"messages": "conversations"}, _SHAREGPT_TAGS),
    "openai": Layout("openai", {"messages": "messages"}, _OPENAI_TAGS),
}
_NEEDED = {
    "alpaca": {"columns": ("prompt", "response"), "tags": ()},
    "sharegpt": {"columns": ("messages",), "tags": ("role_tag", "content_tag", "user_tag", "assistant_tag")},
    "openai": {"columns": ("messages",), "tags": ("role_tag", "content_tag", "user_tag", "assistant_tag")},
}
_UNREAD = ("tools", "images", "videos", "audios")
"""Columns that mean something and are not read yet: a row that fills one is refused, never trained on without it."""


def described_layout(formatting: Formatting, columns: Mapping[str, str | None] | None,
                     tags: Mapping[str, str | None] | None, where: str) -> Layout:
    """The layout that an entry of dataset_info.json describes: a block that is present replaces the defaults whole.

    Raises:
        Problem: a block does not name what the format cannot do without.
    """
    default = DEFAULTS[formatting]
    blocks = {"columns": default.columns if columns is None else _named(columns),
              "tags": default.tags if tags is None else _named(tags)}
    absent = [(block, key) for block, needed in _NEEDED[formatting].items()
              for key in needed if key not in blocks[block]]
    if absent:
        raise Problem(Finding("bad-info", "error", f"its {block} block names no {key}.", where=where,
                              fix=f"A {block} block replaces the defaults whole: name {key} in it, or leave it out.")
                      for block, key in absent)
    return Layout(formatting, **blocks)


def _named(block: Mapping[str, str | None]) -> dict[str, str]:
    return {key: name for key, name in block.items() if name}


def recognise(columns: Set[str]) -> Layout | None:
    """The layout of a file whose rows have these columns; None if it is none of ours.

    Optional columns (system, history, …) are read where they are there.
    """
    for layout in DEFAULTS.values():
        if all(layout.columns[key] in columns for key in _NEEDED[layout.formatting]["columns"]):
            names = {**layout.columns, **{name: name for name in ("system", "history", *_UNREAD)}}
            return Layout(layout.formatting, {key: name for key, name in names.items() if name in columns}, layout.tags)
    return None


def to_messages(row: Mapping[str, Any], layout: Layout) -> list[Message]:
    """The messages of one row. An empty system message is none, as in LLaMA-Factory.

    Raises:
        BadRow: a column is missing or is not text, or a role has no meaning.
    """
    for key in _UNREAD:
        if row.get(layout.columns.get(key, "")):
            raise BadRow(f"column {layout.columns[key]!r} has {key}, which are not read yet")
    system = _text(row, layout, "system", required=False)
    messages = _READERS[layout.formatting](row, layout)
    if messages and messages[0].role == "system":
        if system:
            raise BadRow("there are two system messages, a column and a turn")
        return messages if messages[0].content else messages[1:]
    return [Message("system", system), *messages] if system else messages


def _read_alpaca(row: Mapping[str, Any], layout: Layout) -> list[Message]:
    history = row.get(layout.columns.get("history", "")) or []
    if not isinstance(history, list):
        raise BadRow(f"column {layout.columns['history']!r} must be a list of pairs")
    messages: list[Message] = []
    for number, pair in enumerate(history, start=1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise BadRow(f"history {number} must be a pair [user, assistant] of texts")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    # as in LLaMA-Factory either may be empty: some data keep the whole question in `input`
    asked = [_text(row, layout, "prompt"), _text(row, layout, "query", required=False)]
    messages.append(Message("user", "\n".join(text for text in asked if text)))
    messages.append(Message("assistant", _text(row, layout, "response")))
    return messages


def _read_turns(row: Mapping[str, Any], layout: Layout) -> list[Message]:
    tags, column = layout.tags, layout.columns["messages"]
    turns = row.get(column)
    if not isinstance(turns, list):
        raise BadRow(f"column {column!r} must be a list of turns")
    meanings: dict[str, Role] = {"system_tag": "system", "user_tag": "user", "assistant_tag": "assistant"}
    roles: dict[str, Role] = {tags[tag]: role for tag, role in meanings.items() if tag in tags}
    of_tools = {tags[tag] for tag in ("observation_tag", "function_tag") if tag in tags}
    messages = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or not {tags["role_tag"], tags["content_tag"]} <= turn.keys():
            raise BadRow(f"turn {number} must have {tags['role_tag']!r} and {tags['content_tag']!r}")
        said, content = turn[tags["role_tag"]], turn[tags["content_tag"]]
        if not isinstance(said, str) or said not in roles.keys() | of_tools:
            untagged = "" if "system_tag" in tags else " (the tags block in dataset_info.json names no system_tag)"
            raise BadRow(f"turn {number} has the role {said!r}; it must be one of "
                         f"{', '.join(map(repr, roles))}{untagged}")
        if said in of_tools or turn.get("tool_calls"):
            raise BadRow(f"turn {number} is a tool's or calls one, and tools are not read yet")
        if not isinstance(content, str):
            raise BadRow(f"turn {number}: {tags['content_tag']!r} must be text, not {type(content).__name__}")
        messages.append(Message(roles[said], content))
    return messages


def _text(row: Mapping[str, Any], layout: Layout, key: str, required: bool = True) -> str:
    column = layout.columns.get(key, "")
    value = row.get(column)
    if value is None:
        if required:
            raise BadRow(f"column {column!r} is missing")
        return ""
    if not isinstance(value, str):
        raise BadRow(f"column {column!r} must be text, not {type(value).__name__}")
    return value


_READERS: dict[Formatting, Callable[[Mapping[str, Any], Layout], list[Message]]] = {
    "alpaca": _read_alpaca, "sharegpt": _read_turns, "openai": _read_turns,
}
