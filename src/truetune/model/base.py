"""The base model as a run's options have it: what every command loads, so that what is trained is what is served."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from truetune.model.load import load_model
from truetune.options import Config


def load_base(folder: Path, config: Config, dtype: torch.dtype | str, device: torch.device) -> PreTrainedModel:
    """The model in `folder` with what the options change about it before anything is trained.

    Args:
        dtype: of the weights; `auto` is the one they were saved in.

    Raises:
        Problem: it cannot be loaded.
    """
    return load_model(folder, dtype, device)
