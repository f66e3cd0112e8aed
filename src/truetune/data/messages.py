"""A conversation: what every data format becomes, and what the renderer takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The form that chat templates read."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and the place they were read from (`file.json:12`)."""

    messages: tuple[Message, ...]
    where: str = ""

    def as_dicts(self) -> list[dict[str, str]]:
        return [message.as_dict() for message in self.messages]


class BadRow(ValueError):
    """A row that cannot be learned from; its text says why."""


def conversation(messages: Sequence[Message], where: str = "") -> Conversation:
    """Messages as a conversation that can be trained on: an optional system message, then user and assistant in turn,
    ending with an answer.

    Raises:
        BadRow: the roles do not alternate so, or a message that must say something is empty.
    """
    opening = int(bool(messages) and messages[0].role == "system")
    turns = messages[opening:]
    for number, message in enumerate(turns, start=1):
        expected = "user" if number % 2 else "assistant"
        if message.role == "system":
            raise BadRow("a system message may only stand first")
        if message.role != expected:
            raise BadRow(f"turn {number + opening} is from {message.role}, but {expected} should speak")
        if not message.content.strip():
            raise BadRow(f"turn {number + opening} ({message.role}) is empty")
    if not turns:
        raise BadRow("there is no message")
    if len(turns) % 2:
        raise BadRow("the last turn is the user's, so there is no answer to learn")
    return Conversation(tuple(messages), where)
