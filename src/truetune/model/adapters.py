"""Put adapters on a model, merge them, write them, and know again which base they belong to.

Whatever is written works on the base as it was: its fingerprint stands in truetune.json beside the adapter, with the
adapters that were merged into the base before this one was trained.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from truetune.findings import Both, problem
from truetune.model.bottleneck import TYPE, load_bottlenecks
from truetune.model.load import fingerprint
from truetune.model.quantize import Codes, coded
from truetune.options import Config
from truetune.options.kinds import KINDS

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

MANIFEST, SETTINGS = "truetune.json", "adapter_config.json"
"""Beside an adapter: what it was trained on; and how PEFT builds it."""
_MERGING = {kind.peft for kind in KINDS.values() if kind.adapter and kind.merges}


def adapters_of(config: Config) -> list[Path]:
    """The folders that `adapter_name_or_path` names, in order."""
    return [Path(name).expanduser() / (config.adapter_folder or "") for name in config.adapter_name_or_path]


def put_adapters(model: PreTrainedModel, adapters: Sequence[Path], base: Path, trained: bool = False,
                 kind: str | None = None) -> torch.nn.Module:
    """`model`, loaded from `base`, with all but the last of `adapters` merged into it and the last put on it.

    Args:
        trained: the last one is trained on. kind: its type, if it has to be this one.

    Raises:
        Problem: one is no adapter, another base's, or of a kind that this is not possible with.
    """
    for number, adapter in enumerate(adapters):
        require_base(adapter, base, adapters[:number])  # before anything is changed
    merge_adapters(model, adapters[:-1])
    return _put(model, adapters[-1], trained, kind)


def put_adapter(model: PreTrainedModel, adapter: Path, base: Path, trained: bool = False) -> torch.nn.Module:
    """`model`, loaded from `base`, with one adapter on it.

    Raises:
        Problem: `adapter` is no adapter, or another base's.
    """
    return put_adapters(model, [adapter], base, trained)


def merge_all(model: PreTrainedModel, adapters: Sequence[Path], base: Path) -> PreTrainedModel:
    """`model`, loaded from `base`, with all of `adapters` merged into it, in order.

    Raises:
        Problem: one is no adapter, another base's, or cannot be merged.
    """
    for number, adapter in enumerate(adapters):
        require_base(adapter, base, adapters[:number])
    return merge_adapters(model, adapters)


def merge_adapters(model: PreTrainedModel, adapters: Sequence[Path]) -> PreTrainedModel:
    """Add adapters into the weights, in float32: in bfloat16 an update below 1/256 of a weight would be rounded
    away."""
    if not adapters:
        return model
    if any(coded(model)):
        raise problem("quantized-adapters", Both("an adapter cannot be merged into quantised weights.",
                                                 "适配器无法合并到量化的权重里。"), option="adapter_name_or_path",
                      fix=Both("Export it first, and go on from the export.", "请先导出它，再从导出的模型继续。"))
    for adapter in adapters:
        require_merging(adapter)
    dtypes = {name: weight.dtype for name, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.data = weight.data.float() if weight.is_floating_point() else weight.data
    for adapter in adapters:
        model = _put(model, adapter, False, None).merge_and_unload()  # pyright: ignore[reportCallIssue]
    for name, weight in model.named_parameters():
        weight.data = weight.data.to(dtypes[name])
    return model


def require_merging(adapter: Path) -> None:
    """Raises:
    Problem: `adapter` cannot be added into weights.
    """
    kind = str(read_settings(adapter)["peft_type"])
    if kind not in _MERGING:
        raise problem("no-merge", Both(
            f"{adapter} is of the kind {kind}, which is not a change of weights and cannot be merged.",
            f"{adapter} 的类型是 {kind}，它不是对权重的改动，无法合并。"), option="adapter_name_or_path", fix=Both(
                "Serve it beside its base (truetune chat does); only as the last adapter can it be trained on.",
                "请与基座一起部署（truetune chat 可以）；它只能作为最后一个适配器继续训练。"))


def virtual_of(model: torch.nn.Module) -> PeftModel | None:
    """`model` itself where virtual tokens stand before every row and only its own forward pass puts them there; None:
    whatever there is of adapters is inside the causal model."""
    from peft import PeftModel

    return model if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning else None


def write_adapter(model: torch.nn.Module, folder: Path, trained: Mapping[str, torch.Tensor]) -> None:
    """Write the adapter as safetensors, in the precision of `trained`, the optimizer's copies."""
    from truetune.model.lora import widen

    state = {**model.state_dict(), **trained}
    model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)  # pyright: ignore
    widen(model, folder)


def write_manifest(folder: Path, config: Config, base: Path) -> None:
    """Note beside an adapter which base it belongs to, which adapters were merged into that before, and the codes in
    which its weights were held."""
    from truetune.model.rope import told  # which asks this module where adapters are

    named = adapters_of(config)
    merged = named if config.create_new_adapter else named[:-1]
    manifest = {"base_model": config.model_name_or_path or "", "base_fingerprint": fingerprint(base),
                "merged": {str(adapter): fingerprint(adapter) for adapter in merged}}
    codes = Codes.of(config)
    manifest |= {"quantized": asdict(codes)} if codes else {}
    manifest |= told(base, config)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def codes_below(adapter: Path) -> Codes | None:
    """The codes in which the weights were held that an adapter was trained over; None: plain, or nobody knows."""
    file = adapter / MANIFEST
    written = json.loads(file.read_text(encoding="utf-8")).get("quantized") if file.is_file() else None
    return Codes(**written) if written else None


def read_settings(adapter: Path) -> dict[str, Any]:
    """adapter_config.json.

    Raises:
        Problem: there is none, or it cannot be read.
    """
    file = adapter / SETTINGS
    if not file.is_file():
        raise problem("not-an-adapter", Both(f"{adapter} has no adapter_config.json, so it is no adapter.",
                                             f"{adapter} 里没有 adapter_config.json，不是适配器。"),
                      option="adapter_name_or_path")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings["peft_type"] = str(settings["peft_type"])
        return settings
    except (ValueError, KeyError, TypeError) as error:
        raise problem("not-an-adapter", Both(f"{file} cannot be read: {error!r}.", f"{file} 无法读取：{error!r}。"),
                      option="adapter_name_or_path") from None


def require_base(adapter: Path, base: Path, before: Sequence[Path] = ()) -> None:
    """Raises:
    Problem: `adapter` is no adapter, was trained on other weights than those in `base`, or on others than they are
        once `before` is merged into them.
    """
    read_settings(adapter)
    if not (adapter / MANIFEST).is_file():
        return  # made by another tool: it does not say
    manifest = json.loads((adapter / MANIFEST).read_text(encoding="utf-8"))
    found = fingerprint(base)
    if manifest["base_fingerprint"] != found:
        base_name, weights = manifest["base_model"], manifest["base_fingerprint"]
        raise problem("other-base", Both(f"{adapter} was trained on {base_name} (weights {weights}), and {base} has "
                                         f"other weights ({found}).",
                                         f"{adapter} 是在 {base_name}（权重 {weights}）上训练的，而 {base} 的权重"
                                         f"不同（{found}）。"), option="adapter_name_or_path",
                      fix=Both("Name the base it was trained on.", "请指定训练它时用的基座模型。"))
    merged = dict(manifest.get("merged", {}))
    if merged and list(merged.values()) != [fingerprint(each) for each in before]:
        names = ",".join([*merged, str(adapter)])
        raise problem("other-base", Both(f"{adapter} was trained after {', '.join(merged)} had been merged into the "
                                         "base.", f"{adapter} 是在把 {'、'.join(merged)} 合并进基座之后训练的。"),
                      option="adapter_name_or_path",
                      fix=Both(f"Name them all, in order: adapter_name_or_path: {names}.",
                               f"请按顺序全部写出：adapter_name_or_path: {names}。"))


@contextmanager
def quiet_peft() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5.23 by a name that 6 will drop, and takes the ranks that AdaLoRA has kept for a
    pattern of modules; users would read that with every model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The following rank_pattern keys", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


def _put(model: PreTrainedModel, adapter: Path, trained: bool, kind: str | None) -> torch.nn.Module:
    """`model` with `adapter` on it, whatever was asked of it being right."""
    from peft import LoraConfig, PeftConfig, PeftModel

    from truetune.model.lora import use_fused_layers

    written = read_settings(adapter)
    if kind and written["peft_type"] != kind:
        name = next((name for name, known in KINDS.items() if known.peft == written["peft_type"]), "")
        raise problem("adapter-kind", Both(f"{adapter} is of the kind {written['peft_type']}, and {kind} is trained.",
                                           f"{adapter} 的类型是 {written['peft_type']}，而训练的是 {kind}。"),
                      option="adapter_name_or_path",
                      fix=Both(f"Set finetuning_type: {name}.", f"请设置 finetuning_type: {name}。") if name else None)
    if written["peft_type"] == TYPE:
        return load_bottlenecks(model, adapter, written, trained)
    settings = PeftConfig.from_pretrained(str(adapter))
    if type(settings) is LoraConfig:
        use_fused_layers(settings)
    with quiet_peft():
        if settings.is_prompt_learning and trained:
            return _resume_virtual(model, adapter, settings)
        made = PeftModel.from_pretrained(model, adapter, config=settings, is_trainable=trained,
                                         autocast_adapter_dtype=False)
    return cast_shared(made, model.dtype)


def cast_shared(tuned: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """`tuned`, with the random matrices that VeRA's layers share in `dtype`: PEFT leaves them in float32 where the
    weights below are whole numbers."""
    for name, module in tuned.named_modules():
        if name.endswith((".vera_A", ".vera_B")):  # the one module of all layers, by the name of the first
            module.to(dtype)
    return tuned


def _resume_virtual(model: PreTrainedModel, adapter: Path, settings: PeftConfig) -> PeftModel:
    """Virtual tokens to be trained on: PEFT loads them for answering only, so they are made anew and then set."""
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    settings.inference_mode = False
    made = get_peft_model(model, settings)
    set_peft_model_state_dict(made, load_file(adapter / "adapter_model.safetensors"))
    return made  # pyright: ignore[reportReturnType]
