"""What Ollama does with messages before its template sees them, and what it never lets through.

Facts, from its source (https://github.com/ollama/ollama): `ChatHandler` and `filterThinkTags` in server/routes.go put
the Modelfile's SYSTEM in front where the first message is no system message, take `<think>` blocks out of earlier
answers of qwen3 models, and refuse tools and thinking where the template does not speak of them (`Capabilities` in
server/images.go); unsaid, a model that can think thinks. `collate` in template/template.go joins messages of the same
role that follow one another and gathers the system texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from truetune.export.ollama.gotemplate import Message

Talk = Sequence[Mapping[str, Any]]
"""Messages as OpenAI writes them; a thought is `reasoning_content`, which is Ollama's `thinking`."""

_THOUGHT = re.compile(r"\s*<think>\s*(.*?)(?:</think>\s*|\Z)", re.DOTALL)
FAMILY_THAT_FORGETS = "qwen3"
"""The architecture (`general.architecture`) whose earlier answers lose their `<think>` blocks."""


def values_of(talk: Talk, *, system: str = "", think: bool | None = None, family: str = "") -> dict[str, Any]:
    """What stands at the dot of a template that ranges over `.Messages`.

    Args:
        system: the Modelfile's. family: the model's architecture.
    """
    messages = [Message(str(message["role"]).encode(), str(message.get("content") or "").encode(),
                        str(message.get("reasoning_content") or message.get("thinking") or "").encode())
                for message in talk]
    if system and (not messages or messages[0].Role != b"system"):
        messages.insert(0, Message(b"system", system.encode()))
    if family == FAMILY_THAT_FORGETS:
        messages = _without_thoughts(messages)
    return {"System": b"\n\n".join(message.Content for message in messages if message.Role == b"system"),
            "Messages": _collated(messages), "Think": bool(think), "IsThinkSet": think is not None, "Response": b""}


def _without_thoughts(messages: list[Message]) -> list[Message]:
    last_user = max((number for number, message in enumerate(messages) if message.Role == b"user"), default=-1)
    return [message._replace(Content=_THOUGHT.sub("", message.Content.decode(), count=1).encode())
            if message.Role == b"assistant" and number < last_user and _THOUGHT.match(message.Content.decode())
            else message for number, message in enumerate(messages)]


def _collated(messages: list[Message]) -> list[Message]:
    collated: list[Message] = []
    for message in messages:
        if collated and collated[-1].Role == message.Role != b"tool":
            collated[-1] = collated[-1]._replace(Content=collated[-1].Content + b"\n\n" + message.Content)
        else:
            collated.append(message)
    return collated
