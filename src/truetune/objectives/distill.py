"""Distillation: say what a teacher says, token by token (Agarwal et al. 2023, GKD, arXiv:2306.13649, section 3).

    L = (1 / sum_t w_t)  sum_t  w_t [ r D_t - (1 - r) log p_S(y_t | y_<t) ]

D_t compares teacher T and student S on the whole distribution of the token after y_<t, both at temperature tau. It is
the generalised Jensen-Shannon divergence with interpolation beta (their equation 1, as TRL counts beta):

    beta = 0      KL(T || S): the student must cover all that the teacher may say
    beta = 1      KL(S || T): the student must not say what the teacher would not
    in between    beta KL(T || M) + (1 - beta) KL(S || M),    M = beta T + (1 - beta) S

r (`kd_ratio`) is the share of the teacher in the loss, the data's own tokens have the rest. No factor tau^2 is taken,
as in GKD. Teacher and student speak about the same tokens; where one pads its vocabulary further than the other, the
padding is left out and both are brought to a sum of 1 over what they share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from truetune.objectives.objective import Lesson, Loss, Objective, Outputs, Wants


class Distillation(Objective):
    """Divergence from a teacher. metrics: divergence, in nats per learned token."""

    compared_to = "teacher_model"
    headline = ("divergence",)

    def __init__(self, beta: float, temperature: float = 1.0, ratio: float = 1.0):
        self.ratio = ratio
        self.wants = Wants(logp=ratio < 1, tokens=Divergence(beta, temperature), beside=True)

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        weight, apart = float(batch.weights.sum()), batch.weights * policy.tokens[:, 0]
        loss = self.ratio * apart
        if self.wants.logp:
            loss = loss - (1 - self.ratio) * batch.weights * policy.logp
        return Loss(loss.sum(), weight, {"divergence": (float(apart.detach().sum()), weight)})

    def experience(self, scores: torch.Tensor, answers: int, policy: Outputs, reference: torch.Tensor | None,
                   batch: Lesson) -> Mapping[str, torch.Tensor]:
        """Nothing beyond the answers themselves: the teacher says what they should have been (`lmbda`)."""
        return {}


@dataclass(frozen=True)
class Divergence:
    """How far apart two models are about a token: a reading of logits (`Tokens`)."""

    beta: float
    temperature: float = 1.0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        """(n, V) of the student, (n, V') of the teacher → (n, 1): D, in nats."""
        assert reference is not None  # `Wants.beside` asks for it
        shared = min(logits.shape[1], reference.shape[1])
        student, teacher = ((some[:, :shared] / self.temperature).log_softmax(dim=1) for some in (logits, reference))
        if self.beta == 0:
            return _kl(teacher, student)
        if self.beta == 1:
            return _kl(student, teacher)
        beta = torch.tensor(self.beta, dtype=student.dtype, device=student.device)
        mixture = torch.logaddexp(teacher + beta.log(), student + torch.log1p(-beta))
        return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(n, V) log-probabilities each → (n, 1): KL(p || q)."""
    return (p.exp() * (p - q)).sum(dim=1, keepdim=True)
