"""A LoRA by itself as a GGUF file: llama.cpp and Ollama load it beside the base, and switch it by request.

llama.cpp adds scale * alpha / r * B A to a matrix, r being the rank of that very pair. PEFT's scale may be another for
each matrix (rsLoRA, rank_pattern, alpha_pattern); what one alpha cannot say goes into B.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import MODEL_ARCH_NAMES, GGUFWriter
from safetensors import safe_open

from truetune.export.gguf.architectures import Architecture, architecture_of
from truetune.export.gguf.write import write_gguf_file
from truetune.findings import Both, Problem, Say, problem
from truetune.model.adapters import read_settings
from truetune.model.find import load_model_config

_PREFIX = "base_model.model."


def write_gguf_adapter(adapter: Path, base: Path, target: Path, say: Say) -> None:
    """Write the LoRA of a folder, trained on the model in `base`, as the file `target`.

    Raises:
        Problem: it is no LoRA, or does more than llama.cpp's adapters can (DoRA, whole layers, embeddings, experts).
    """
    settings, config = read_settings(adapter), load_model_config(base)
    family = architecture_of(config)
    _require_plain(settings, adapter)
    pairs = dict(_pairs(adapter, settings, family, config))
    alpha = next(scale * len(a) for a, _, scale in pairs.values())

    def fill(part: Path) -> None:
        writer = GGUFWriter(part, MODEL_ARCH_NAMES[family.arch])
        writer.add_type("adapter")
        writer.add_name(target.stem)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for name, (a, b, scale) in pairs.items():
            writer.add_tensor(f"{name}.lora_a", a)
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b * np.float32(scale * len(a) / alpha)))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    write_gguf_file(target, fill)
    size = f"{target.stat().st_size / 1e6:,.1f} MB"
    say(Both(f"adapter: {target} ({size})", f"适配器：{target}（{size}）"))


def _pairs(adapter: Path, settings: Mapping[str, Any], family: Architecture, config: Any
           ) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray, float]]]:
    """GGUF name of a matrix -> A (r, columns), B (rows, r), what their product is multiplied by."""
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        for key in sorted(tensors.keys()):
            module = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
            if key.endswith(".lora_B.weight"):
                continue
            name = names.get_name(f"{module}.weight", (".weight",))
            if name is None or not key.endswith(".lora_A.weight") or (name == "output.weight" and
                                                                       config.tie_word_embeddings):
                raise _refused(adapter, Both(f"llama.cpp's adapters cannot change {module}",
                                             f"llama.cpp 的适配器无法改动 {module}"))
            a = tensors.get_tensor(key).float().numpy()
            b = tensors.get_tensor(key.replace("lora_A", "lora_B")).float().numpy()
            change = family.change(f"{module}.weight", config)
            yield name, (a, change[1](b) if change else b, _scale(module, len(a), settings))


def _scale(module: str, rank: int, settings: Mapping[str, Any]) -> float:
    """What PEFT multiplies B A of a module by."""
    alpha = next((value for pattern, value in (settings.get("alpha_pattern") or {}).items()
                  if re.match(rf"(.*\.)?({pattern})$", module)), settings["lora_alpha"])
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


_MORE: Mapping[str, Both] = {
    "use_dora": Both("DoRA also scales columns by their length", "DoRA 还会按列长度缩放"),
    "modules_to_save": Both("it also holds whole layers (modules_to_save)", "它还包含整层权重（modules_to_save）"),
    "trainable_token_indices": Both("it also holds new rows of the embedding", "它还包含嵌入的新行"),
    "lora_bias": Both("it also holds biases", "它还包含偏置"),
    "target_parameters": Both("it changes experts", "它改动了专家"),
}
"""Settings of a LoRA that is more than B A, and what that is."""


def _require_plain(settings: Mapping[str, Any], adapter: Path) -> None:
    """Raises:
    Problem: the adapter is more than B A.
    """
    if settings["peft_type"] != "LORA":
        kind = settings["peft_type"]
        raise _refused(adapter, Both(f"it is of the kind {kind}", f"它的类型是 {kind}"))
    for setting, why in _MORE.items():
        if settings.get(setting):
            raise _refused(adapter, why)
    if settings.get("bias", "none") != "none":
        raise _refused(adapter, _MORE["lora_bias"])


def _refused(adapter: Path, why: Both) -> Problem:
    return problem("gguf-adapter", Both(f"{adapter} cannot be a GGUF adapter: {why}.",
                                        f"{adapter} 不能写成 GGUF 适配器：{why.zh}。"), option="adapter_name_or_path",
                   fix=Both("Export it merged into its base.", "请合并到基座后再导出。"))
