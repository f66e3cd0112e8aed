"""The shapes in which people keep conversations, and how each row becomes messages.

alpaca: instruction, input, output (and system, history). sharegpt: `conversations` with from/value. openai: `messages`
with role/content. `columns` and `tags` rename them as dataset_info.json does, its trap included: a block that is
present makes every key it does not list unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from truetune.data.messages import BadRow, Message, Role
from truetune.findings import problem


@dataclass(frozen=True)
class Layout:
    """How to read a row: the format, what its columns are called, and what its roles are called."""

    formatting: str
    columns: Mapping[str, str]
    tags: Mapping[str, str]


_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_SHAREGPT_TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
                  "system_tag": "system", "observation_tag": "observation", "function_tag": "function_call"}
_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
                "system_tag": "system", "observation_tag": "tool", "function_tag": "function"}
DEFAULTS: dict[str, Layout] = {
    "alpaca": Layout("alpaca", _ALPACA, {}),
    "sharegpt": Layout("sharegpt", {"messages": "conversations"}, _SHAREGPT_TAGS),
    "openai": Layout("openai", {"messages": "messages"}, _OPENAI_TAGS),
}


def layout_from_info(entry: Mapping[str, Any], where: str) -> Layout:
    """The layout that an entry of dataset_info.json describes."""
    formatting = entry.get("formatting", "alpaca")
    if formatting not in DEFAULTS:
        raise problem("unknown-formatting", f"formatting {formatting!r} is not known.", option="dataset", where=where,
                      fix=f"It is one of {', '.join(DEFAULTS)}.")
    default = DEFAULTS[formatting]
    return Layout(formatting, entry.get("columns", default.columns), entry.get("tags", default.tags))


def recognise(columns: set[str]) -> Layout | None:
    """The layout of a file whose rows have these columns; None if it is none of ours.

    Optional columns (system, history) are read where they are there.
    """
    for layout in DEFAULTS.values():
        needed = [name for key, name in layout.columns.items() if key != "query"]
        if columns.issuperset(needed):
            extra = {name: name for name in ("system", "history") if name in columns}
            return Layout(layout.formatting, {**layout.columns, **extra}, layout.tags)
    return None


def to_messages(row: Mapping[str, Any], layout: Layout) -> list[Message]:
    """The messages of one row.

    Raises:
        BadRow: a column is missing or is not text, or a role has no meaning.
    """
    system = _text(row, layout, "system", required=False)
    messages = _READERS[layout.formatting](row, layout)
    if system and messages and messages[0].role == "system":
        raise BadRow("there are two system messages, a column and a turn")
    return [Message("system", system), *messages] if system else messages


def _read_alpaca(row: Mapping[str, Any], layout: Layout) -> list[Message]:
    messages: list[Message] = []
    for number, pair in enumerate(row.get(layout.columns.get("history", "")) or [], start=1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise BadRow(f"history {number} must be a pair [user, assistant] of texts")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    asked = [_text(row, layout, "prompt"), _text(row, layout, "query", required=False)]
    messages.append(Message("user", "\n".join(text for text in asked if text)))
    messages.append(Message("assistant", _text(row, layout, "response")))
    return messages


def _read_turns(row: Mapping[str, Any], layout: Layout) -> list[Message]:
    tags = layout.tags
    column = layout.columns.get("messages")
    turns = row.get(column) if column else None
    if not isinstance(turns, list):
        raise BadRow(f"column {column or 'messages'!r} must be a list of turns")
    role_tag, content_tag = tags.get("role_tag"), tags.get("content_tag")
    roles: dict[str | None, Role] = {
        tags.get("system_tag"): "system", tags.get("user_tag"): "user", tags.get("assistant_tag"): "assistant",
    }
    messages = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or role_tag not in turn or content_tag not in turn:
            raise BadRow(f"turn {number} must have {role_tag!r} and {content_tag!r}")
        said, content = turn[role_tag], turn[content_tag]
        if said in (tags.get("observation_tag"), tags.get("function_tag")) and said is not None:
            raise BadRow(f"turn {number} is a tool's ({said!r}), and tool turns are not read yet")
        if said not in roles or said is None:
            known = ", ".join(repr(role) for role in roles if role)
            raise BadRow(f"turn {number} has the role {said!r}; it must be one of {known}")
        if not isinstance(content, str):
            raise BadRow(f"turn {number}: {content_tag!r} must be text, not {type(content).__name__}")
        messages.append(Message(roles[said], content))
    return messages


def _text(row: Mapping[str, Any], layout: Layout, key: str, required: bool = True) -> str:
    column = layout.columns.get(key)
    value = row.get(column) if column else None
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise BadRow(f"column {column or key!r} must be text, not {type(value).__name__}"
                     if value is not None else f"column {column or key!r} is missing")
    return value


_READERS: dict[str, Callable[[Mapping[str, Any], Layout], list[Message]]] = {
    "alpaca": _read_alpaca, "sharegpt": _read_turns, "openai": _read_turns,
}
