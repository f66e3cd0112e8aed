"""Merge an adapter into its base: W + (alpha / r) B A, added in float32 and cast last.

Added in bfloat16, an update smaller than 1/256 of a weight would be rounded away.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors import SafetensorError

from truetune.data.template import make_renderer, settle_template
from truetune.files import write_folder
from truetune.findings import WRONG_OPTIONS, Both, Say, problem, refuse
from truetune.model.base import load_base
from truetune.model.find import find_model, load_tokenizer
from truetune.model.load import cast_weights, fingerprint, put_adapter, require_base
from truetune.options import Config
from truetune.report import write_card
from truetune.serve.engine import inference_dtype


def export(config: Config, say: Say) -> Path:
    """Write the model (with its adapter merged) into `export_dir`: shards, tokenizer, generation settings, card.

    Raises:
        Problem: the folder is in use, model or adapter cannot be loaded, the adapter is another base's, or the disk is
            full. Then nothing is left behind.
    """
    assert config.model_name_or_path is not None and config.export_dir is not None  # rules have made sure
    target = Path(config.export_dir)
    if target.exists() and any(target.iterdir()):
        raise problem("export-in-use", Both(f"{target} is not empty.", f"{target} 不是空的。"), option="export_dir",
                      status=WRONG_OPTIONS, where=config.origin("export_dir"),
                      fix=Both("Choose another folder, or empty it.", "请换一个文件夹，或清空它。"))
    base = find_model(config.model_name_or_path, config, say)
    adapters = [Path(adapter) for adapter in config.adapter_name_or_path]
    for adapter in adapters:
        require_base(adapter, base)  # before minutes are spent on loading the base
    start = time.perf_counter()
    dtype = inference_dtype(config, base)
    model = load_base(base, config, torch.float32, torch.device("cpu"))
    tokenizer, trained = load_tokenizer(base), base
    for adapter in adapters:
        model = put_adapter(model, adapter, base).merge_and_unload()  # pyright: ignore[reportCallIssue]
        if (adapter / "tokenizer.json").is_file():
            tokenizer, trained = load_tokenizer(adapter), adapter
    refuse(settle_template(tokenizer, config))
    cast_weights(model, dtype)
    model.config.use_cache = True
    if model.generation_config is not None:
        model.generation_config.eos_token_id = make_renderer(tokenizer, trained, config).stop_ids()

    def fill(folder: Path) -> None:
        model.save_pretrained(folder, max_shard_size=int(config.export_size * 1e9))
        tokenizer.save_pretrained(folder)
        write_card(folder, target.name, config, {})

    try:
        write_folder(target, fill)
    except (OSError, SafetensorError) as error:
        raise problem("export-unwritten", Both(f"{target} could not be written: {error}",
                                               f"{target} 无法写入：{error}"), option="export_dir") from error
    name, kind, mark = config.model_name_or_path, str(dtype).removeprefix("torch."), fingerprint(target)
    merged = Both(f"{name} + {adapters[0]} merged", f"已合并 {name} + {adapters[0]}") if adapters else \
        Both(name, f"已导出 {name}")
    seconds = f"{time.perf_counter() - start:.0f}"
    say(Both(f"{merged} in {kind} (weights {mark}): {target}, {seconds} s",
             f"{merged.zh}，格式 {kind}（权重 {mark}）：{target}，用时 {seconds} 秒"))
    return target
