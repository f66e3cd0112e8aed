"""What an objective is: what it reads of a model, what it compares with, and its loss.

The loop knows nothing else about it. An objective is pure: numbers in, a sum out; whatever it keeps from step to step
(a running mean, say) is in `state`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

Tokens = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(logits (n, V) in float32, targets (n,), the reference's logits (n, V) or None) → (n, C): numbers of each token that
need its whole distribution. Called on a few rows of logits at a time; n is not N."""


@dataclass(frozen=True)
class Wants:
    """What is read of a model: at each learned token of a batch, or at the end of each row.

    logp: the log-probability of the token. tokens: further numbers from its whole distribution. beside: `tokens` needs
    the reference's logits too. values: the value head's number. ends: at the last token of each row, not at the hidden
    states that predict learned tokens.
    """

    logp: bool = True
    tokens: Tokens | None = None
    beside: bool = False
    values: bool = False
    ends: bool = False


@dataclass(frozen=True)
class Outputs:
    """What was read; None where it was not wanted. logp: (N,). tokens: (N, C). values: (N,), or (B,) at the ends."""

    logp: Any = None
    tokens: Any = None
    values: Any = None


class Lesson(Protocol):
    """What an objective sees of a batch of B rows with N learned tokens; `data.batches.Batch` is one."""

    @property
    def weights(self) -> torch.Tensor:
        """(N,): what each token counts."""
        ...

    @property
    def targets(self) -> torch.Tensor:
        """(N,): the tokens themselves."""
        ...

    @property
    def rows(self) -> torch.Tensor:
        """(N,): the row that each token belongs to, in order."""
        ...

    @property
    def size(self) -> int:
        """B."""
        ...

    @property
    def sequences(self) -> Sequence[Any]:
        """(B,): the rows; `label` says whether a judged one is good."""
        ...

    @property
    def columns(self) -> Mapping[str, torch.Tensor]:
        """What else is known of tokens (N,), rows (B,) or all of it ()."""
        ...


class Loss(NamedTuple):
    """sum: to be differentiated, and divided by the `weight` of all batches of a step. metrics: by name, a sum and what
    to divide it by; logged as the mean over the steps since the last line."""

    sum: torch.Tensor
    weight: float
    metrics: Mapping[str, tuple[float, float]] = {}




class Objective:
    """What is optimised. Subclasses say what they need and compute `loss`; most need none of the rest.

    reference: it compares with a reference model's log-probabilities. shares: rows with a beginning in common come
    (two answers to a prompt). mismatched: `known` is asked with prompts that have another row's answer. dropout:
    whether dropout stays on; a ratio of two models' probabilities must not carry its noise. perplexity: exp(loss) is
    one. temperature: log-probabilities are those of answers drawn at it. headline: metrics that are shown while it
    trains. compared_to: the option that names the reference model.
    """

    reference: bool = False
    shares: bool = False
    mismatched: bool = False
    dropout: bool = True
    perplexity: bool = False
    temperature: float = 1.0
    headline: tuple[str, ...] = ()
    compared_to: str = "ref_model"
    wants: Wants = Wants()

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        """The loss of a batch.

        Args:
            reference: (N,) the reference's log-probabilities, where `self.reference`.
        """
        raise NotImplementedError

    def known(self, policy: torch.Tensor, reference: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What has to be known of all rows of a step before their losses, as columns () of each batch.

        Args:
            policy, reference: (B,) log-probabilities that the two give to the mismatched answers of all B rows of the
                step, without gradients; asked where `self.mismatched`.
        """
        return {}

    def experience(self, scores: torch.Tensor, answers: int, policy: Outputs, reference: torch.Tensor | None,
                   batch: Lesson) -> Mapping[str, torch.Tensor]:
        """What is to be learned from answers that the model wrote, as columns (N,) or (B,) of the batches they are
        learned from in. Asked once a round, where the stage writes answers.

        Args:
            scores: (B,) what each answer is worth; nan: no reward applies to it. answers: so many neighbours answer the
                same prompt.
            policy, reference: what policy (`wants`) and reference say of all tokens of the answers, without gradients.
            batch: all answers of the round, with the column `ended` (B,): 0 where an answer was cut at its longest.
                `columns` of a batch in `loss` hold what is returned here, and `old` (N,): the log-probabilities
                then, unless the round is one step and reads nothing else (they are those of now).
        """
        raise NotImplementedError

    def evaluation(self) -> Objective:
        """What held-out rows are measured by."""
        return self

    def follows(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """Metrics that follow from the means of others (a difference of two classes), told beside them."""
        return {}

    def state(self) -> dict[str, float]:
        """What is carried from step to step."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """The inverse of `state`."""


def per_row(numbers: torch.Tensor, batch: Lesson) -> torch.Tensor:
    """(N,) numbers of tokens, summed over each row: (B,)."""
    return torch.zeros(batch.size, dtype=numbers.dtype, device=numbers.device).index_add(0, batch.rows, numbers)
