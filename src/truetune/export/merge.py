"""Merge an adapter into its base: W + (alpha / r) B A, added in float32 and cast last.

Added in bfloat16, an update smaller than 1/256 of a weight would be rounded away.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from truetune.data.template import make_renderer, settle_template
from truetune.files import write_folder
from truetune.findings import WRONG_OPTIONS, Both, Say, problem, refuse
from truetune.model.adapters import adapters_of, codes_below, merge_all, require_base, require_merging
from truetune.model.base import load_base
from truetune.model.find import find_model, load_tokenizer
from truetune.model.load import cast_weights, fingerprint
from truetune.model.quantize import Codes, coded, dequantise, quantise
from truetune.model.stored import said_of
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
    adapters = adapters_of(config)
    for number, adapter in enumerate(adapters):
        require_base(adapter, base, adapters[:number])  # before minutes are spent on loading the base
        require_merging(adapter)
    start = time.perf_counter()
    dtype = inference_dtype(config, base)
    model = _base(base, config, adapters, say)
    tokenizer, trained = load_tokenizer(base), base
    merge_all(model, adapters, base)
    for adapter in adapters:
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
    added = " + ".join(map(str, [name, *adapters]))
    merged = Both(f"{added} merged", f"已合并 {added}") if adapters else \
        Both(name, f"已导出 {name}")
    seconds = f"{time.perf_counter() - start:.0f}"
    say(Both(f"{merged} in {kind} (weights {mark}): {target}, {seconds} s",
             f"{merged.zh}，格式 {kind}（权重 {mark}）：{target}，用时 {seconds} 秒"))
    return target


def _base(base: Path, config: Config, adapters: Sequence[Path], say: Say) -> PreTrainedModel:
    """What adapters are merged into, in float32: plain weights. Where they were trained over quantised ones, these are
    either the weights as they were before, or (`export_base: dequantized`) what the codes stand for.

    Raises:
        Problem: dequantised weights are wanted, and nobody says of what codes; or the base cannot be loaded.
    """
    plain = config.with_values("export", quantization_bit=None)
    model, below = load_base(base, plain, torch.float32, torch.device("cpu")), _codes(config, adapters)
    if any(coded(model)) or said_of(model.config):
        dequantise(model)
        say(Both("the base was saved quantised; what its codes stand for is exported",
                 "基座保存时已经量化；导出的是量化编码还原出的权重"))
    elif config.export_base == "dequantized":
        if below is None:
            raise problem("not-quantised", Both("nothing says in which codes the weights were held.",
                                                "没有说明权重当时用什么编码。"), option="export_base",
                          where=config.origin("export_base"), status=WRONG_OPTIONS,
                          fix=Both("Give quantization_bit (and quantization_method) as they were in training.",
                                   "请按训练时的设置给出 quantization_bit（和 quantization_method）。"))
        quantise(model, below, torch.device("cpu"))
        dequantise(model)
        say(Both(f"merging into what the {below} codes stand for", f"合并到 {below} 编码还原出的权重里"))
    elif below and config.export_base is None:
        say(Both(f"the adapter was trained over {below} weights and is merged into those from before they were "
                 "quantised, which differ a little; export_base: dequantized merges into what it was trained over",
                 f"适配器是在 {below} 权重上训练的，现在合并到量化之前的权重里，两者略有差别；"
                 "export_base: dequantized 会合并到训练时所用的权重里"))
    return model


def _codes(config: Config, adapters: Sequence[Path]) -> Codes | None:
    """The codes below the last adapter: those that the options name, or that are noted beside it."""
    return Codes.of(config) or next((codes for adapter in reversed(adapters) if (codes := codes_below(adapter))), None)
