"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751, section 2.1 and figure 2): small layers behind attention
and MLP, before what they give is added to what went in.

    h ← h + U f(D h + a) + b          h: (…, H)  D: (m, H)  U: (H, m)  f = GELU

With U = b = 0 the model is the base at first. `bottleneck_target: mlp` alone is the cheaper placement of Pfeiffer et
al. (2021, AdapterFusion, arXiv:2005.00247, section 3.2.1). PEFT has none, so these are ours: a block is put into the
module behind which it stands, and a forward hook of that module applies it. They are saved as PEFT saves
(adapter_config.json and adapter_model.safetensors, peft_type BOTTLENECK), which PEFT itself does not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu
from transformers import PreTrainedModel

TYPE = "BOTTLENECK"
_NAME = "bottleneck"


class Block(torch.nn.Module):
    """One bottleneck. `on`: whether it does anything."""

    def __init__(self, width: int, size: int, like: torch.Tensor):
        """width: H. size: m. like: has the device and, if it is a float, the dtype of the new weights."""
        super().__init__()
        dtype = like.dtype if like.is_floating_point() else torch.float32
        self.down = torch.nn.Linear(width, size, device=like.device, dtype=dtype)
        self.up = torch.nn.Linear(size, width, device=like.device, dtype=dtype)
        torch.nn.init.normal_(self.down.weight, std=0.01)
        for weight in (self.down.bias, self.up.weight, self.up.bias):
            torch.nn.init.zeros_(weight)
        self.on = True

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.up(gelu(self.down(hidden.to(self.down.weight.dtype)))).to(hidden.dtype)


class Bottlenecks(torch.nn.Module):
    """A causal model with bottlenecks in it, as far as it is used the way a model of PEFT is."""

    def __init__(self, model: PreTrainedModel, modules: Sequence[str], size: int):
        """modules: full names of the modules behind which there is to be one."""
        super().__init__()
        self.base_model, self.modules_with, self.size = model.requires_grad_(False), list(modules), size
        width, like = int(model.config.get_text_config().hidden_size), next(model.get_input_embeddings().parameters())
        for name in modules:
            module = model.get_submodule(name)
            module.add_module(_NAME, Block(width, size, like))
            module.register_forward_hook(_apply)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model(*args, **kwargs)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """While entered this is the base."""
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        for block in blocks:
            block.on = False
        try:
            yield
        finally:
            for block in blocks:
                block.on = True

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, torch.Tensor], **_: Any) -> None:
        """Write the blocks' weights, in the precision of `state_dict`, and where they belong."""
        settings = {"peft_type": TYPE, "task_type": "CAUSAL_LM", "bottleneck_size": self.size,
                    "target_modules": self.modules_with, "base_model_name_or_path": self.base_model.name_or_path}
        (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        own = {name: weight.detach().contiguous().cpu() for name, weight in state_dict.items() if f".{_NAME}." in name}
        save_file(own, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _apply(module: torch.nn.Module, inputs: Any, out: Any) -> Any:
    """Put what a module gives (its first item, where it gives several) through its block."""
    block = module.get_submodule(_NAME)
    assert isinstance(block, Block)
    if not block.on:
        return out
    return (block(out[0]), *out[1:]) if isinstance(out, tuple) else block(out)


def load_bottlenecks(model: PreTrainedModel, folder: Path, settings: Mapping[str, Any], trained: bool) -> Bottlenecks:
    """`model` with the bottlenecks in `folder`; settings: its adapter_config.json."""
    made = Bottlenecks(model, settings["target_modules"], settings["bottleneck_size"])
    weights = load_file(folder / "adapter_model.safetensors")
    own = dict(made.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(weight)
    for name in weights:
        own[name].requires_grad_(trained)
    if not trained:
        made.requires_grad_(False)
    return made
