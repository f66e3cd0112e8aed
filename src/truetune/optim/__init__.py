"""Optimizers: one step from summed gradients (`optimizer`), with float32 masters of the trained weights.

`table` makes the optimizer that a configuration names; what libraries do not keep well is ours, a file a method:
`low_rank` (GaLore and APOLLO), `blocks` (BAdam), `backward` (each weight stepped in the backward pass), `adam_mini`,
`grok`. Imports options, findings and `model.precision`; nothing of data or objectives.
"""

from truetune.optim.make import make_optimizer, optimizer_findings
from truetune.optim.optimizer import Optimizer
from truetune.optim.schedule import build_schedule

__all__ = ["Optimizer", "build_schedule", "make_optimizer", "optimizer_findings"]
