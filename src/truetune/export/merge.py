"""Merge an adapter into its base: W + (alpha / r) B A, added in float32 and cast last.

Added in bfloat16, an update smaller than 1/256 of a weight would be rounded away. Where adapters change single matrices
the model is never in memory (`streamed`); anything else is merged into the whole model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from truetune.data.template import make_renderer, settle_template
from truetune.export.streamed import Stream, plan_stream
from truetune.findings import WRONG_OPTIONS, Both, Say, problem, refuse
from truetune.model.adapters import adapters_of, codes_below, merge_all, require_base, require_merging
from truetune.model.base import load_base
from truetune.model.find import find_model, load_model_config, load_tokenizer
from truetune.model.generation import read_generation, settle_generation
from truetune.model.load import cast_weights
from truetune.model.quantize import Codes, coded, dequantise, quantise
from truetune.model.rope import stretch
from truetune.model.stored import said_of
from truetune.model.value import FILE as VALUE_HEAD
from truetune.model.vocabulary import may_grow
from truetune.options import Config
from truetune.serve.engine import inference_dtype


def write_model(config: Config, folder: Path, say: Say) -> None:
    """Fill an empty folder with the model that `config` names, its adapters merged: weights in `infer_dtype` and files
    of `export_size`, tokenizer with the template that trained it, generation settings, a reward model's value head.

    Raises:
        Problem: model or adapter cannot be loaded, or the adapter is another base's.
        OSError, SafetensorError: the disk takes no more.
    """
    assert config.model_name_or_path is not None  # a rule has made sure
    base = find_model(config.model_name_or_path, config, say)
    adapters = adapters_of(config)
    for number, adapter in enumerate(adapters):
        require_base(adapter, base, adapters[:number])  # before minutes are spent on loading the base
        require_merging(adapter)
    trained = next((adapter for adapter in reversed(adapters) if (adapter / "tokenizer.json").is_file()), base)
    tokenizer = load_tokenizer(trained)
    refuse(settle_template(tokenizer, config))
    stops = make_renderer(tokenizer, trained, config).stop_ids()
    dtype, device = inference_dtype(config, base), merge_device(config)
    stream = _stream(base, config, adapters, dtype)
    if stream:
        model, limit = stream.model, int(config.export_size * 1e9)
        _write_settings(model, folder, dtype)
        stream.write(folder, limit, device)
    else:
        model = _merged(base, config, adapters, dtype, device, say)
        model.save_pretrained(folder, max_shard_size=int(config.export_size * 1e9))
    settle_generation(read_generation([*reversed(adapters), base]), config, stops).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _copy_value_head(folder, [*adapters[-1:], base])
    name, kind, way = config.model_name_or_path, str(dtype).removeprefix("torch."), _WAYS[stream is not None]
    added = " + ".join(map(str, [name, *adapters]))
    say(Both(f"{added} merged in {kind}, {way}", f"已合并 {added}，格式 {kind}，{way.zh}") if adapters
        else Both(f"{name} in {kind}, {way}", f"已导出 {name}，格式 {kind}，{way.zh}"))


_WAYS = {True: Both("one matrix at a time", "逐个矩阵处理"),
         False: Both("the whole model in memory", "整个模型载入内存")}


def merge_device(config: Config) -> torch.device:
    """Where products are computed: a GPU if `export_device` is auto and there is one."""
    return torch.device("cuda" if config.export_device == "auto" and torch.cuda.is_available() else "cpu")


def _stream(base: Path, config: Config, adapters: Sequence[Path], dtype: torch.dtype) -> Stream | None:
    """The way in little memory, where there is one."""
    settings = stretch(load_model_config(base), config)
    codes = said_of(settings) or (config.export_base == "dequantized") or codes_of(config, adapters)
    if codes or may_grow(config) or config.train_from_scratch:
        return None
    try:
        return plan_stream(base, settings, adapters, dtype)
    except SafetensorError as error:
        raise problem("no-weights", Both(f"the weights in {base} or of an adapter cannot be read: {error}.",
                                         f"{base} 或适配器的权重无法读取：{error}。"), option="model_name_or_path",
                      fix=Both("A file is damaged or cut off: copy it again.",
                               "文件已损坏或不完整，请重新复制。")) from None


def _write_settings(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    """config.json, as save_pretrained writes it."""
    model.config.use_cache = True
    model.config.dtype = str(dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)


def _merged(base: Path, config: Config, adapters: Sequence[Path], dtype: torch.dtype, device: torch.device,
            say: Say) -> PreTrainedModel:
    """The whole model, its adapters merged, on the CPU."""
    model = plain_base(base, config, adapters, say)
    if device.type == "cuda" and _ROOM * model.get_memory_footprint() < torch.cuda.mem_get_info()[0]:
        torch.nn.Module.to(model, device)  # else it is merged where it is
    merge_all(model, adapters, base)
    cast_weights(model, dtype)
    torch.nn.Module.to(model, "cpu")
    model.config.use_cache = True
    return model


_ROOM = 1.3
"""Memory for a model and what is computed beside it, in its own size."""


def _copy_value_head(folder: Path, places: Sequence[Path]) -> None:
    """A reward model's number is read by a head of its own, beside the weights."""
    head = next((place / VALUE_HEAD for place in places if (place / VALUE_HEAD).is_file()), None)
    if head:
        shutil.copyfile(head, folder / VALUE_HEAD)


def plain_base(base: Path, config: Config, adapters: Sequence[Path], say: Say) -> PreTrainedModel:
    """What adapters are merged into, in float32: plain weights. Where they were trained over quantised ones, these are
    either the weights as they were before, or (`export_base: dequantized`) what the codes stand for.

    Raises:
        Problem: dequantised weights are wanted, and nobody says of what codes; or the base cannot be loaded.
    """
    plain = config.with_values("export", quantization_bit=None)
    model, below = load_base(base, plain, torch.float32, torch.device("cpu")), codes_of(config, adapters)
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


def codes_of(config: Config, adapters: Sequence[Path]) -> Codes | None:
    """The codes below the last adapter: those that the options name, or that are noted beside it."""
    return Codes.of(config) or next((codes for adapter in reversed(adapters) if (codes := codes_below(adapter))), None)
