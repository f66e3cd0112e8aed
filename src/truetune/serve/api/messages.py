"""Messages of a request as the renderer reads them: the form that conversations had in training, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from truetune.data.messages import Message as Turn
from truetune.data.messages import Role, ToolCall
from truetune.findings import Problem
from truetune.serve.api.errors import ApiError
from truetune.serve.api.schemas import Message

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant",
                              "tool": "tool", "function": "tool"}
_TEXTS = ("text", "input_text", "output_text", "refusal")
"""Types of parts that hold text, by the name of the field they hold it in (`text`, but for a refusal)."""


def as_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates were given them in training.

    Raises:
        ApiError: a part is no text, or a call cannot be read; `param` says which.
    """
    return [_turn(message, f"messages[{number}]") for number, message in enumerate(messages)]


def _turn(message: Message, where: str) -> dict[str, Any]:
    role = _ROLES[message.role]
    calls = tuple(_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(message.tool_calls or ()))
    if calls and role != "assistant":
        raise ApiError(400, f"{where}: only an assistant makes calls.", param=f"{where}.tool_calls")
    return Turn(role, _text(message.content, f"{where}.content"), message.reasoning_content, calls).as_dict()


def _text(content: str | Sequence[Mapping[str, Any]] | None, where: str) -> str:
    """The text of a message; parts are put together without anything between them, as LLaMA-Factory does."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_part(part, f"{where}[{number}]") for number, part in enumerate(content))


def _part(part: Mapping[str, Any], where: str) -> str:
    kind = part.get("type", "text")
    if kind not in _TEXTS:
        raise ApiError(400, f"{where}: {kind!r:.40} is not read: the model takes text only, and this server fetches "
                      "nothing from any address.", param=where, code="unsupported_content")
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise ApiError(400, f"{where}: its text is missing.", param=where)
    return text


def _call(call: Mapping[str, Any], where: str) -> ToolCall:
    function = call.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not (isinstance(function, Mapping) and isinstance(name, str) and name):
        raise ApiError(400, f"{where}: its function.name is missing.", param=where)
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise ApiError(400, f"{where}: its arguments are not JSON.", param=f"{where}.function.arguments") from None
    if not isinstance(arguments, Mapping):
        raise ApiError(400, f"{where}: its arguments are no object.", param=f"{where}.function.arguments")
    return ToolCall(name, arguments)


def accepted(turns: list[dict[str, Any]], prompt: Callable[[list[dict[str, Any]]], list[int]]) -> list[int]:
    """What `prompt` makes of the turns. Many templates refuse two messages of the same role in a row, and a model saw
    none in training: then they are joined by an empty line.

    Raises:
        Problem: the template refuses them joined too.
    """
    try:
        return prompt(turns)
    except Problem as error:
        joined = _joined(turns)
        if error.findings[0].id != "refused-by-template" or len(joined) == len(turns):
            raise
        return prompt(joined)


def _joined(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for turn in turns:
        before = joined[-1] if joined else {"role": None}
        if turn["role"] == before["role"] != "tool" and "tool_calls" not in before:
            both = "\n\n".join(filter(None, (before["content"], turn["content"])))
            joined[-1] = {**before, **turn, "content": both}
        else:
            joined.append(turn)
    return joined


_PLAIN = re.compile(r"[\w .,:/+-]{0,64}")
_OURS = frozenset({
    "messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt",
    "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    "return_assistant_tokens_mask", "tokenizer_kwargs", "raise_exception", "strftime_now"})
"""What a template is given by the renderer alone."""


def template_values(asked: Mapping[str, Any], thinking: bool | None, special: Mapping[str, Any]) -> dict[str, Any]:
    """chat_template_kwargs, and enable_thinking, as values for the template.

    Args:
        special: names that the tokenizer gives to the template (bos_token and others).

    Raises:
        ApiError: one would change more than the template's own switches: another template, or text in the prompt.
    """
    for name, value in asked.items():
        where = f"chat_template_kwargs.{name}"
        if name in _OURS or name in special:
            raise ApiError(400, f"{where:.80} cannot be set: the renderer gives it to the template.", param=where)
        if not (value is None or isinstance(value, bool | int | float)
                or (isinstance(value, str) and _PLAIN.fullmatch(value))):
            raise ApiError(400, f"{where:.80} has to be true, false, a number or a word.", param=where)
    return {**asked, **({} if thinking is None else {"enable_thinking": thinking})}
