"""One model and one server of it for all tests of the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from truetune.model.load import load_model

from .server import CPU, Api, running, write_taught


@pytest.fixture(scope="package")
def taught(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that was taught by heart."""
    return write_taught(tiny, tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="package")
def adapter(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that says something else."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    model: Any = get_peft_model(load_model(taught, torch.float32, CPU), LoraConfig(
        task_type="CAUSAL_LM", target_modules=["down_proj"], init_lora_weights=False, lora_alpha=256))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def api(taught: Path, adapter: Path) -> Iterator[Api]:
    """A server of the model and of the adapter."""
    with running(taught, infer_adapters=json.dumps({"other": str(adapter)}), api_model_name="taught",
                 max_new_tokens=96) as api:
        yield api
