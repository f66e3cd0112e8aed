"""Supervised fine-tuning: maximum likelihood of the answers (Ouyang et al. 2022, arXiv:2203.02155, section 3.1).

    L = - (1 / sum_t w_t)  sum_t  w_t log p(y_t | y_<t)

over all learned tokens y_t of a step, whatever row, batch or process they are in. w_t is the weight of token t.
Pre-training is the same over plain text, every token of which is learned.

The variants of it (`smoothing`, `dft`, `eaft`, `asft`) change what a token's loss is. Held-out rows are measured by
plain maximum likelihood under each of them, so that losses of two runs can be compared and exp(loss) is a perplexity.
(LLaMA-Factory evaluates with the variant itself.)
"""

from __future__ import annotations

import torch

from truetune.objectives.objective import Lesson, Loss, Objective, Outputs, Wants


class MaximumLikelihood(Objective):
    """Cross-entropy of the learned tokens.

    Args:
        accuracy: on held-out rows, tell which share of the learned tokens is the model's likeliest one, too. (Each
            token of all rows counts once; LLaMA-Factory takes the mean of the rows' shares.)
    """

    perplexity = True

    def __init__(self, accuracy: bool = False):
        self._accuracy = accuracy

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        return Loss(-(batch.weights * policy.logp).sum(), float(batch.weights.sum()))

    def evaluation(self) -> Objective:
        return _WithAccuracy() if self._accuracy else MaximumLikelihood()


class Variant(Objective):
    """Another loss for the same answers. Subclasses say what each token's is.

    metrics: nll, the cross-entropy per learned token. Held-out rows are measured by it alone.
    """

    headline = ("nll",)

    def __init__(self, accuracy: bool = False):
        self._accuracy = accuracy

    def losses(self, policy: Outputs) -> torch.Tensor:
        """(N,): the loss of each learned token."""
        raise NotImplementedError

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        weight, nll = float(batch.weights.sum()), -(batch.weights * policy.logp.detach()).sum()
        return Loss((batch.weights * self.losses(policy)).sum(), weight, {"nll": (float(nll), weight)})

    def evaluation(self) -> Objective:
        return MaximumLikelihood(self._accuracy).evaluation()


class _WithAccuracy(MaximumLikelihood):
    """Maximum likelihood that tells `accuracy` too."""

    def __init__(self) -> None:
        super().__init__(accuracy=True)
        self.wants = Wants(tokens=guessed)

    def loss(self, policy: Outputs, reference: torch.Tensor | None, batch: Lesson) -> Loss:
        right = policy.tokens[:, 0]
        return super().loss(policy, reference, batch)._replace(metrics={"accuracy": (float(right.sum()), len(right))})


@torch.no_grad()
def guessed(logits: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
    """(n, 1): 1 where the target is the likeliest token."""
    return (logits.argmax(dim=1) == targets).float()[:, None]
