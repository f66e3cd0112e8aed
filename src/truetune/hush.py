"""Libraries that tell what nobody asked, told to keep it to themselves."""

from __future__ import annotations

import logging
import warnings

_TALKATIVE = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops", "torchao", "torch.utils._pytree")


def hush_libraries() -> None:
    """bitsandbytes logs products of 8 bits that are not in float16. transformers and PEFT import it and torchao
    wherever they are installed, and those tell then which kernels for other machines they have not found."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    # PEFT, of virtual tokens while a model answers: prompts are never padded here, so positions count themselves.
    warnings.filterwarnings("ignore", message="Position ids are not supported")
