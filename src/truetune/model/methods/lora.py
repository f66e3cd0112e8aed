"""LoRA, its ways to begin, and AdaLoRA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from truetune.findings import WRONG_OPTIONS, Both, problem
from truetune.model.methods.method import targets, whole_modules, wrap
from truetune.options import Config


def add_lora(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """LoRA (Hu et al. 2021, arXiv:2106.09685): W x + (alpha / r) B A x, with A and B trained, B = 0 at first.

    rsLoRA (Kalajdzievski 2023, arXiv:2312.03732, theorem 3.2) divides by the root of r. DoRA (Liu et al. 2024,
    arXiv:2402.09353, equation 5) trains the length of each column of W + B A apart.
    """
    from peft import LoraConfig

    from truetune.model.lora import use_fused_layers

    begin = _beginning(config) if model.device.type != "meta" else True
    settings = LoraConfig(
        task_type="CAUSAL_LM", r=config.lora_rank, lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout, target_modules=targets(model, config), use_rslora=config.use_rslora,
        modules_to_save=whole_modules(model, config), use_dora=config.use_dora,
        init_lora_weights=begin,  # pyright: ignore[reportArgumentType]
        trainable_token_indices=rows_of(model, new_tokens))
    use_fused_layers(settings)
    if not _takes_out(begin):
        return wrap(model, settings)
    with _weights_kept(model):
        made = wrap(model, settings)
    _subtract_start(made, config)
    settings.init_lora_weights = True  # as it is written, nothing is to be taken out of the base
    return made


def rows_of(model: PreTrainedModel, new_tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """The rows that are trained for new tokens, by the names of the embeddings and of a head of its own. (One that is
    the embeddings too follows them.)"""
    matrices = [model.get_input_embeddings(), model.get_output_embeddings()]
    own = len({id(module.get_parameter("weight")) for module in matrices if module is not None}) > 1
    wanted = matrices if own else matrices[:1]
    return {name: list(new_tokens) for name, module in model.named_modules() if module in wanted} \
        if new_tokens else None


def add_adalora(model: PreTrainedModel, config: Config, base: Path, new_tokens: Sequence[int]) -> torch.nn.Module:
    """AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): W x + P Λ Q x, whose least important singular values are set to
    zero on the way (section 3.2), until lora_rank a layer are left on average."""
    from peft import AdaLoraConfig

    settings = AdaLoraConfig(
        task_type="CAUSAL_LM", init_r=adalora_rank(config), target_r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank, lora_dropout=config.lora_dropout,
        target_modules=targets(model, config), modules_to_save=whole_modules(model, config),
        tinit=config.adalora_tinit, tfinal=config.adalora_tfinal, deltaT=config.adalora_deltaT,
        orth_reg_weight=config.adalora_orth_reg_weight, total_step=config.adalora_tinit + config.adalora_tfinal + 1)
    return wrap(model, settings)


def adalora_rank(config: Config) -> int:
    """The rank that AdaLoRA begins with; half as much again as it ends with, as PEFT's defaults (12 and 8) are."""
    return config.adalora_init_r or max(config.lora_rank + 1, config.lora_rank * 3 // 2)


def adalora_planned(model: torch.nn.Module, steps: int) -> None:
    """Tell AdaLoRA how many steps there are.

    Raises:
        Problem: none is left between adalora_tinit and adalora_tfinal.
    """
    settings, _ = _adalora(model)
    if settings.tinit >= steps - settings.tfinal and not _settled(model):
        raise problem("no-budget-phase", Both(
            f"adalora_tinit ({settings.tinit}) and adalora_tfinal ({settings.tfinal}) leave none of {steps} steps in "
            "which ranks are given up.",
            f"共 {steps} 步，adalora_tinit（{settings.tinit}）和 adalora_tfinal（{settings.tfinal}）没有留下调整秩的"
            "步数。"), option="adalora_tinit", status=WRONG_OPTIONS,
            fix=Both("Lower them, or train longer.", "请减小它们，或增加训练步数。"))
    settings.total_step = steps


def adalora_penalty(model: torch.nn.Module) -> torch.Tensor:
    """How far P and Q are from orthogonal: γ (|PᵀP - I|_F + |QQᵀ - I|_F), the mean over all of them (section 3.1; PEFT
    and the authors' code take the norm, the paper its square)."""
    settings, _ = _adalora(model)
    terms = []
    for name, weight in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            wide = weight.float() if ".lora_A." in name else weight.float().T  # (r, I) or (r, O)
            terms.append(torch.linalg.matrix_norm(wide @ wide.T - torch.eye(len(wide), device=wide.device)))
    return settings.orth_reg_weight * torch.stack(terms).mean()


def adalora_stepped(model: torch.nn.Module, step: int) -> None:
    """Give up ranks."""
    settings, allocator = _adalora(model)
    if _settled(model):
        return
    if not allocator.exp_avg_ipt and step == settings.total_step - settings.tfinal:
        tuner: Any = model.base_model
        allocator.update_ipt(tuner.model)  # so short a run that nothing is known yet of what is important
    model.base_model.update_and_allocate(step)  # pyright: ignore


def adalora_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What is known of importance, and which ranks are left: what the next step depends on beside the weights."""
    settings, allocator = _adalora(model)
    known = {f"{kind}/{name}": value for kind in _KNOWN for name, value in vars(allocator)[kind].items()}
    left = {f"left/{name}": torch.tensor(ranks) for name, ranks in (settings.rank_pattern or {}).items()}
    return {**known, **left}


def adalora_load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `adalora_state`."""
    settings, allocator = _adalora(model)
    device = next(model.parameters()).device
    for key, value in state.items():
        kind, _, name = key.partition("/")
        if kind in _KNOWN:
            vars(allocator)[kind][name] = value.to(device)
    settings.rank_pattern = {key.removeprefix("left/"): value.tolist() for key, value in state.items()
                             if key.startswith("left/")} or None


_KNOWN = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""Of importance, in PEFT's names: last seen, its mean, and how far it varies (section 3.2 of the paper)."""


def _adalora(model: torch.nn.Module) -> tuple[Any, Any]:
    """PEFT's settings, and what gives up ranks."""
    tuner: Any = model.base_model
    return tuner.peft_config["default"], tuner.rankallocator


def _settled(model: torch.nn.Module) -> bool:
    """Whether ranks were given up in an earlier run: those that are left are trained further."""
    settings, _ = _adalora(model)
    return any(weight.shape[0] != settings.init_r for name, weight in model.named_parameters() if ".lora_A." in name)


def _beginning(config: Config) -> bool | str:
    """How A and B begin, in PEFT's words."""
    if config.pissa_init:
        return "pissa" if config.pissa_iter < 0 else f"pissa_niter_{config.pissa_iter}"
    return True if config.init_lora_weights == "default" else config.init_lora_weights


def _takes_out(begin: bool | str) -> bool:
    """Whether PEFT takes what A and B begin with out of the weights."""
    return isinstance(begin, str) and begin.startswith(("pissa", "olora"))


@contextmanager
def _weights_kept(model: PreTrainedModel) -> Iterator[None]:
    """Whatever happens to the weights of linear layers while entered is undone, to the bit."""
    kept = [(module, module.weight.data.clone()) for module in model.modules()
            if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()]
    yield
    for module, weight in kept:
        module.weight.data = weight


def _subtract_start(made: torch.nn.Module, config: Config) -> None:
    from peft.tuners.lora import LoraLayer

    from truetune.model.lora import FusedLoraLinear

    for name, layer in made.named_modules():
        if isinstance(layer, FusedLoraLinear):
            layer.keep_start("default")
        elif isinstance(layer, LoraLayer):
            option = "pissa_init" if config.pissa_init else "init_lora_weights"
            raise problem("no-linear-layer",
                          Both(f"{name} is a {type(layer.get_base_layer()).__name__}, and it works on "
                                                  "linear layers only.",
                                                  f"{name} 是 {type(layer.get_base_layer()).__name__}，"
                                                  f"而它只用于线性层。"),
                          option=option, where=config.origin(option), status=WRONG_OPTIONS,
                          fix=Both("Name linear layers in lora_target.", "请在 lora_target 里只写线性层。"))
