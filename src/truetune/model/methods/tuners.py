"""Other adapters of PEFT that change what a layer computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.model.adapters import cast_shared
from truetune.model.methods.method import targets, whole_modules, wrap
from truetune.options import Config


def add_oft(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """Orthogonal fine-tuning (Qiu et al. 2023, arXiv:2306.07280, section 3): W R x, R a block-diagonal rotation, which
    keeps the angles between neurons. PEFT makes R by Cayley's transform, its inverse by five terms of Neumann's series.
    """
    from peft import OFTConfig

    size = 0 if config.oft_rank else config.oft_block_size
    made = wrap(model, OFTConfig(
        task_type="CAUSAL_LM", r=config.oft_rank, oft_block_size=size, module_dropout=config.module_dropout,
        target_modules=_oft_targets(model, config, size or config.oft_rank),
        modules_to_save=whole_modules(model, config)))
    return made


def _oft_targets(model: PreTrainedModel, config: Config, part: int) -> str | list[str]:
    """What oft_target names.

    Raises:
        Problem: the inputs of a layer do not divide into blocks. (PEFT would take another size.)
    """
    wanted = targets(model, config, "oft_target")
    for name, module in model.named_modules():
        mine = isinstance(wanted, str) or any(name == each or name.endswith(f".{each}") for each in wanted)
        head = module is model.get_output_embeddings()
        if isinstance(module, torch.nn.Linear) and mine and not head and module.in_features % part:
            option = "oft_rank" if config.oft_rank else "oft_block_size"
            raise problem("uneven-blocks", Both(
                f"{part} does not divide the {module.in_features} inputs of {name}.",
                f"{part} 不能整除 {name} 的 {module.in_features} 个输入。"), option=option,
                where=config.origin(option), status=WRONG_OPTIONS,
                fix=Both("Powers of two, such as 32, divide most.", "通常取 2 的幂，例如 32。"))
    return wanted


def add_vera(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """VeRA (Kopiczko et al. 2023, arXiv:2310.11454, equation 2): W x + Λ_b B Λ_d A x, with A and B random, frozen and
    shared by all layers, and the two vectors trained."""
    from peft import VeraConfig

    return cast_shared(wrap(model, VeraConfig(
        task_type="CAUSAL_LM", r=config.lora_rank, vera_dropout=config.lora_dropout, projection_prng_key=config.seed,
        target_modules=targets(model, config), modules_to_save=whole_modules(model, config))), model.dtype)


def add_ia3(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """(IA)³ (Liu et al. 2022, arXiv:2205.05638, section 3.3): keys, values and the MLP's hidden states are multiplied
    by trained vectors. `all`: the modules that PEFT knows for this kind of model, else the outputs of every linear
    layer.
    """
    from peft import IA3Config
    from peft.utils.constants import (
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
        TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    )

    kind = model.config.model_type
    named = targets(model, config)
    if isinstance(named, str):
        named = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind, named)
    inside = [name for name in TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, []) if name in named]
    return wrap(model, IA3Config(task_type="CAUSAL_LM", target_modules=named, feedforward_modules=inside,
                                 modules_to_save=whole_modules(model, config)))


def add_loha(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """LoHa (Hyeon-Woo et al. 2021, FedPara, arXiv:2108.06098, section 2): W + (alpha / r) (B1 A1) ⊙ (B2 A2)."""
    from peft import LoHaConfig

    return wrap(model, LoHaConfig(**_lycoris(model, config)))


def add_lokr(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """LoKr (Yeh et al. 2023, LyCORIS, arXiv:2309.14859, section 3.2): W + (alpha / r) C ⊗ (B A), Kronecker's
    product."""
    from peft import LoKrConfig

    return wrap(model, LoKrConfig(**_lycoris(model, config)))


def _lycoris(model: PreTrainedModel, config: Config) -> dict[str, Any]:
    return {"task_type": "CAUSAL_LM", "r": config.lora_rank, "alpha": config.lora_alpha or 2 * config.lora_rank,
            "target_modules": targets(model, config), "modules_to_save": whole_modules(model, config)}
