"""What data formats become and the renderer takes: conversations, pairs of answers, judged answers, plain texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from truetune.findings import Both, Words

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["conversations", "preferences", "judged", "documents"]
"""What the rows of a stage are: answers to learn, a better and a worse answer, an answer judged good or bad, text."""


class Place(NamedTuple):
    """Where a row stands. file: with what leads to the number (`data/a.json:`, `a.parquet row `). number: from 1."""

    file: str = ""
    number: int = 0

    def __str__(self) -> str:
        return f"{self.file}{self.number}" if self.file else ""


NOWHERE = Place()


class ToolCall(NamedTuple):
    """A call that an assistant makes."""

    name: str
    arguments: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The form that chat templates read, which is OpenAI's."""
        return {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Message(NamedTuple):
    """One turn. reasoning: the thought before an answer, where the data keep it apart. weight: what this answer counts
    in the loss (None: as any other)."""

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    weight: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form that chat templates read."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        return message


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, the tools that the assistant may call (as JSON Schema objects), and where they were read."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    place: Place = NOWHERE

    @property
    def where(self) -> str:
        return str(self.place)


@dataclass(frozen=True, slots=True)
class Preference:
    """The same conversation with a better and a worse last answer."""

    chosen: Conversation
    rejected: Conversation

    @property
    def place(self) -> Place:
        return self.chosen.place


@dataclass(frozen=True, slots=True)
class Judged:
    """A conversation whose last answer somebody found good or bad."""

    conversation: Conversation
    good: bool

    @property
    def place(self) -> Place:
        return self.conversation.place


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text, for pre-training."""

    text: str
    place: Place = NOWHERE


Row = Conversation | Preference | Judged | Document


class BadRow(ValueError):
    """A row that cannot be learned from. reason: why; its English is the text of the exception. id: the kind of reason.
    fix: what to do about all of its kind, where that is known."""

    def __init__(self, reason: Words, id: str = "bad-row", fix: Words | None = None):
        super().__init__(str(reason))
        self.reason, self.id, self.fix = reason, id, fix


def conversation(messages: Sequence[Message], place: Place = NOWHERE,
                 tools: Sequence[Mapping[str, Any]] = ()) -> Conversation:
    """Messages as a conversation that can be trained on: an optional system message, then user (or a tool) and
    assistant in turn, ending with an answer. Results of several tools may follow one another.

    Raises:
        BadRow: the roles do not alternate so, or a message that must say something is empty.
    """
    opening = int(bool(messages) and messages[0].role == "system")
    before: Role = "assistant"
    for number, message in enumerate(messages[opening:], start=opening + 1):
        role = message.role
        if role == "system":
            raise BadRow(Both("a system message may only stand first", "系统消息只能放在开头"))
        if (role == "assistant") == (before == "assistant") and not role == before == "tool":
            other = "user" if role == "assistant" else "assistant"
            raise BadRow(Both(f"turn {number} is from {role}, but {other} should speak",
                              f"第 {number} 条消息来自 {role}，而这里应当是 {other}"))
        if role == "tool" and number == opening + 1:
            raise BadRow(Both(f"turn {number} is a tool's, but nobody has called it",
                              f"第 {number} 条消息是工具结果，但之前没有调用"))
        if not (message.tool_calls or role == "tool" or message.content.strip()):
            raise BadRow(Both(f"turn {number} ({role}) is empty", f"第 {number} 条消息（{role}）是空的"))
        before = role
    if len(messages) == opening:
        raise BadRow(Both("there is no message", "没有消息"))
    if before != "assistant":
        raise BadRow(Both(f"the last turn is the {before}'s, so there is no answer to learn",
                          f"最后一条消息来自 {before}，没有可学习的回答"))
    return Conversation(tuple(messages), tuple(tools), place)
