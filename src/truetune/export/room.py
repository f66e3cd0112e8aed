"""Whether an export fits on its disk, before minutes are spent."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path

from truetune.check.weights import SIZES, Damaged, read_header
from truetune.findings import Both, Say, problem, spoken
from truetune.model.find import find_model, load_model_config
from truetune.options import Config
from truetune.options.gguf_types import GGUF_TYPES

_BESIDE = 1.02
"""Headers, tokenizer, scales of codes: what comes on top of the weights."""


def require_room(target: Path, base: Path, config: Config, gguf_types: Sequence[str]) -> None:
    """Raises:
    Problem: the disk has less room than the export takes on the way, or a file of the base is damaged.
    """
    needed, place = bytes_needed(base, config, gguf_types), _existing(target)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise problem("no-room", Both(
            f"takes about {needed / 1e9:.1f} GB on the way, and {place} has {free / 1e9:.1f} GB free.",
            f"导出过程约需 {needed / 1e9:.1f} GB，而 {place} 只剩 {free / 1e9:.1f} GB。"), option="export_dir",
            where=config.origin("export_dir"), fix=Both(
                "Free some, choose another disk, or export fewer forms at once.",
                "请腾出空间、换一个磁盘，或减少一次导出的格式。"))


def room(config: Config, say: Say) -> tuple[float, float]:
    """Bytes that an export takes on the way, and bytes that its disk has free: to be told before it is started.

    Raises:
        Problem: the model cannot be found, or its weights cannot be read.
    """
    assert config.model_name_or_path is not None and config.export_dir is not None  # rules have made sure
    needed = bytes_needed(find_model(config.model_name_or_path, config, say), config, gguf_types_of(config))
    return needed, float(shutil.disk_usage(_existing(Path(config.export_dir))).free)


def gguf_types_of(config: Config) -> Sequence[str]:
    """The types of the GGUF files of whole models that are asked for."""
    wanted = {"gguf", "ollama"} & set(config.export_format) and not config.export_adapter_only
    return tuple(dict.fromkeys(config.export_gguf_type)) if wanted else ()


def _existing(target: Path) -> Path:
    """`target`, or the nearest folder above it that is there."""
    return next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.is_dir())


def bytes_needed(base: Path, config: Config, gguf_types: Sequence[str]) -> float:
    """The most that is on the disk at one time: all that is kept, and the merged model that it is made from."""
    weights = count_weights(base)
    if config.export_adapter_only:
        return 0.0  # as large as the adapter, which is there already
    dtype = config.infer_dtype if config.infer_dtype != "auto" else load_model_config(base).dtype
    width = 4 if "32" in str(dtype or "float32") else 2
    quantised = weights * (config.export_quantization_bit / 8 + 0.5) if config.export_quantization_bit else 0
    ggufs = sum(weights * GGUF_TYPES[kind].bits / 8 for kind in gguf_types)
    return _BESIDE * (weights * width + quantised + ggufs)


def count_weights(folder: Path) -> int:
    """How many numbers the safetensors files in `folder` hold.

    Raises:
        Problem: there are none, or one is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise problem("no-weights", Both(f"{folder} has no safetensors weights, and nothing else is read.",
                                         f"{folder} 没有 safetensors 权重，其他格式不读取。"),
                      option="model_name_or_path")
    try:
        return sum(prod(tensor.shape) for file in files for tensor in read_header(file).values()
                   if tensor.dtype in SIZES)
    except Damaged as error:
        raise problem("no-weights", Both(f"the weights in {folder} cannot be read: a file {error}.",
                                         f"{folder} 的权重无法读取：有文件{spoken(error.reason, True)}。"),
                      option="model_name_or_path") from None
