"""What a model is trained for. One file a paper: citation, options, equation, metrics.

An objective is a plain class with `rows` (the data it takes), `reference` (whether it compares with a frozen model) and

    loss(policy, reference, batch) -> (sum, count, metrics)

policy and reference are log-probabilities of the batch's learned tokens, (N,) float32. The loss is a sum and comes
with what to divide it by, so the loop can divide by the count over all batches of a step and no objective can get that
wrong.
Nothing here imports data, model or run code.
"""

from __future__ import annotations

from truetune.objectives.sft import SupervisedFineTuning

OBJECTIVES = {"sft": SupervisedFineTuning}
