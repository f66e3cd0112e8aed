"""What can be known before training. `preflight` gathers everything a run needs of model and data on the CPU, without
weights, and everything that is wrong with it; `train` starts from what it returns. May import options, data and the
parts of `model` that read no weights; never `train`.
"""

from truetune.check.preflight import Preflight, preflight

__all__ = ["Preflight", "preflight"]
