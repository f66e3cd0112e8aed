"""What can be known before training, on the CPU and without weights.

`preflight` gathers everything a run needs of model and data; `examine` works out the page about it: a section each for
data (`rows`), chat template, steps (`schedule`), memory (`memory`, `room`), disk and machine, and ranked suggestions
(`suggest`). `measure` alone loads weights, in a process of its own.

May import options, data and the parts of `model` that read no weights; never `train`, but for `measure`.
"""

from truetune.check.examine import Checked, check, examine
from truetune.check.preflight import Preflight, preflight

__all__ = ["Checked", "Preflight", "check", "examine", "preflight"]
