"""What a reward sees, what it is, and how it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from truetune.data.renderer import Rendered
from truetune.findings import Both, Finding, Problem


@dataclass(frozen=True)
class Answered:
    """B answers that the model wrote; several neighbours may answer the same prompt.

    prompts: the messages before each answer. completions: each answer as a conversation of one message, as TRL gives
    it. texts: the answers. ids: their tokens, with the end of turn. rows: prompt and answer as tokens. references: the
    answers of the data, as text. columns: whatever else the data say, by the name of the column; None where a row says
    nothing.
    """

    prompts: list[list[dict[str, Any]]]
    completions: list[list[dict[str, Any]]]
    texts: list[str]
    ids: list[list[int]]
    rows: list[Rendered]
    references: list[str]
    columns: dict[str, list[Any]]


class Reward(Protocol):
    """name: how it is called in options, logs and errors."""

    @property
    def name(self) -> str: ...

    def __call__(self, answered: Answered) -> Sequence[float | None]:
        """What each answer is worth; None: it does not apply.

        Raises:
            Unscored: it cannot say.
        """
        ...


class Unscored(Problem):
    """Answers cannot be scored. Raised between two steps, where nothing is half done: a checkpoint can be saved."""

    @classmethod
    def of(cls, reward: str, where: str, reason: Both, fix: Both | None = None) -> Unscored:
        """Reward `reward` failed at the row `where`, or at an answer to it."""
        return cls(Finding("unscored", "error", Both(f"reward {reward} {reason}.", f"奖励 {reward} {reason.zh}。"),
                           option="reward_funcs", where=where or None, fix=fix))
