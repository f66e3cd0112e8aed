"""A conversation as the browser keeps it, so that a reload and another language find it again.

It is written when an answer has ended, is bounded in size, and is read as what anybody may have changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from truetune.web.chat.conversation import Message

KEY = "truetune-chat"
"""Its name in the browser."""
MOST = 200_000
"""Letters of JSON that are kept; browsers hold some five million for all pages of an address."""
_ROLES = ("user", "assistant", "tool")


def to_keep(said: Sequence[Sequence[Message]], **fields: str) -> dict[str, Any]:
    """What is kept of a conversation: the messages of each side, without the first rounds where they are too long, and
    the fields that the model reads beside it."""
    return {"said": [_bounded(messages, MOST // len(said)) for messages in said],
            **{name: text for name, text in fields.items() if len(text) < MOST}}


def _bounded(messages: Sequence[Message], most: int) -> list[Message]:
    """The last rounds, each from a question on, that are not longer than `most` letters together."""
    sizes = [len(json.dumps(message, ensure_ascii=False)) for message in messages]
    for start, message in enumerate(messages):
        if message["role"] == "user" and sum(sizes[start:]) <= most:
            return list(messages[start:])
    return []


def said_before(kept: Any, sides: int) -> list[list[Message]] | None:
    """The messages of each side; None where nothing was kept, or something that is no conversation."""
    said = kept.get("said") if isinstance(kept, Mapping) else None
    if not isinstance(said, list) or len(said) != sides or not any(said):
        return None
    whole = all(isinstance(messages, list) and all(map(_is_message, messages)) for messages in said)
    return said if whole else None


def field_before(kept: Any, name: str) -> str:
    """What stood in a field; "" where nothing was kept."""
    text = kept.get(name) if isinstance(kept, Mapping) else None
    return text if isinstance(text, str) else ""


def _is_message(message: Any) -> bool:
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        return False
    texts = [message.get("content"), message.get("reasoning_content", ""), message.get("tool_call_id", "")]
    calls = message.get("tool_calls", [])
    return all(isinstance(text, str) for text in texts) and isinstance(calls, list) and all(map(_is_call, calls))


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, Mapping) else None
    return isinstance(function, Mapping) and all(
        isinstance(text, str) for text in (call.get("id"), function.get("name"), function.get("arguments")))
