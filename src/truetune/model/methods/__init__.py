"""What of a model is trained, a file a family, and how what was trained is written.

`options.kinds` says what rules need to know of each method; here is what it does to a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from truetune.model.adapters import write_adapter
from truetune.model.methods import beside, lora, tuners, whole
from truetune.model.methods.method import Build, Method, adapter_method, layers_of
from truetune.model.value import VALUE_HEAD

__all__ = ["METHODS", "Method", "layers_of", "method_state", "switch_off_dropout", "take_method_state", "trainable",
           "write_weights"]

_ADAPTERS: Mapping[str, Build] = {
    "oft": tuners.add_oft, "vera": tuners.add_vera, "ia3": tuners.add_ia3, "loha": tuners.add_loha,
    "lokr": tuners.add_lokr, "prefix_tuning": beside.add_prefix, "prompt_tuning": beside.add_prompt,
    "p_tuning": beside.add_p_tuning, "bottleneck": beside.add_bottlenecks, "lora": lora.add_lora,
}
METHODS: Mapping[str, Method] = {
    "full": Method(whole.train_all, adapter=False),
    "freeze": Method(whole.train_layers, adapter=False),
    "adalora": Method(adapter_method(lora.add_adalora), adapter=True, planned=lora.adalora_planned,
                      penalty=lora.adalora_penalty, stepped=lora.adalora_stepped,
                      state=lora.adalora_state, load_state=lora.adalora_load_state),
    **{name: Method(adapter_method(build), adapter=True) for name, build in _ADAPTERS.items()},
}
"""By finetuning_type."""


def switch_off_dropout(model: torch.nn.Module) -> None:
    """No dropout anywhere, that of adapters included: probabilities of two passes are to be compared."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.oft.layer import MultiplicativeDropoutLayer

    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, MultiplicativeDropoutLayer)):
            module.p = 0.0
        if isinstance(module, LoraLayer):
            module.lora_dropout.update({name: torch.nn.Identity() for name in module.lora_dropout})
        if "attention_dropout" in vars(module):  # what transformers' attention modules hand to their kernel
            vars(module)["attention_dropout"] = 0.0


def method_state(model: torch.nn.Module, method: Method) -> dict[str, torch.Tensor]:
    """What a checkpoint has to hold of the method itself."""
    return {f"{_STATE}{name}": value for name, value in method.state(model).items()} if method.state else {}


def take_method_state(model: torch.nn.Module, method: Method,
                      kept: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the method back what `method_state` made; returns the rest of `kept`."""
    if method.load_state:
        method.load_state(model, {name.removeprefix(_STATE): value for name, value in kept.items()
                                  if name.startswith(_STATE)})
    return {name: value for name, value in kept.items() if not name.startswith(_STATE)}


_STATE = "method."


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def write_weights(model: torch.nn.Module, folder: Path, trained: Mapping[str, torch.Tensor], method: Method) -> None:
    """Write the adapter (in the precision of `trained`, the optimizer's copies) or the whole model as safetensors."""
    if method.adapter:
        write_adapter(model, folder, {name: weight for name, weight in trained.items()
                                      if not name.startswith(VALUE_HEAD)})
    else:
        model.save_pretrained(folder)  # pyright: ignore
