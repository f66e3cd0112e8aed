"""A model folder becomes one GGUF file, tensor by tensor: a few blocks of rows are in memory at a time.

Weights are quantised from what the folder holds, as float32, never from a float16 file between: bfloat16 weights lose
nothing on the way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_VERSION, MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter

from truetune.export.gguf.architectures import (
    Architecture,
    architecture_of,
    basic_facts,
    rope_factors,
    tell_windows,
)
from truetune.export.gguf.importance import Importance
from truetune.export.gguf.mixture import Shape, tensor_type
from truetune.export.gguf.proof import prove
from truetune.export.gguf.quantise import quantise, row_bytes
from truetune.export.gguf.tensors import Block, Tensor, Weights, gguf_tensors
from truetune.export.gguf.vocabulary import Vocabulary, read_vocabulary
from truetune.files import disk_refusal, write_file
from truetune.findings import WRONG_OPTIONS, Both, Problem, Say, problem
from truetune.model.find import load_model_config, load_tokenizer
from truetune.model.generation import read_generation
from truetune.options.gguf_types import GGUF_TYPES
from truetune.serve.llamacpp import require_llamacpp


def write_gguf(source: Path, target: Path, kind: str, *, importance: Importance | None = None, say: Say,
               name: str | None = None) -> None:
    """Write the model of a folder (safetensors, tokenizer, chat template) as the file `target`.

    Args:
        kind: of `GGUF_TYPES`. importance: what `measure_importance` gave. name: of the model; unset: the file's.

    Raises:
        Problem: llama.cpp cannot compute such a model or tokenise as its tokenizer does, the type needs an importance
            matrix, a weight is not a number, or the disk is full. Then there is no `target`.
    """
    start, config = time.perf_counter(), load_model_config(source)
    family = architecture_of(config)
    require_kind(kind, importance)
    tell_windows(config, say)
    with Weights(source) as weights:
        tensors = [*_factors(config), *gguf_tensors(weights, family, config)]
        rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
        vocabulary = read_vocabulary(source, rows)
        prove(vocabulary, say)
        model = _shape(config, tensors, importance)
        types = [tensor_type(tensor.name, tensor.shape, kind, model) for tensor in tensors]

        def fill(part: Path) -> None:
            writer = GGUFWriter(part, MODEL_ARCH_NAMES[family.arch])
            _header(writer, name or target.stem, kind, config, family, vocabulary)
            _tell_sampling(writer, source)
            for tensor, of in zip(tensors, types, strict=True):
                writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), _bytes(tensor, of), of)
            _write(writer, tensors, types, importance)

        write_gguf_file(target, fill)
    size, seconds = f"{target.stat().st_size / 1e6:,.0f} MB", f"{time.perf_counter() - start:.0f}"
    say(Both(f"{kind}: {target} ({size}, {seconds} s)", f"{kind}：{target}（{size}，用时 {seconds} 秒）"))


def require_convertible(folder: Path) -> None:
    """Raises:
    Problem: the model cannot be written as GGUF: its architecture, its tokenizer, or no safetensors weights.
    """
    config = load_model_config(folder)
    architecture_of(config)
    with Weights(folder):
        read_vocabulary(folder, max(config.vocab_size, len(load_tokenizer(folder))))


def require_kind(kind: str, importance: Importance | None) -> None:
    """Raises:
    Problem: there is no such type, it needs llama.cpp and that is not installed, or an importance matrix and there is
        none.
    """
    if kind not in GGUF_TYPES:
        raise problem("gguf-type", Both(f"there is no GGUF type {kind!r}.", f"没有 GGUF 类型 {kind!r}。"),
                      option="export_gguf_type", status=WRONG_OPTIONS, fix=", ".join(GGUF_TYPES))
    if GGUF_TYPES[kind].llamacpp:
        require_llamacpp("export_gguf_type")
    if GGUF_TYPES[kind].importance and importance is None:
        raise problem("gguf-importance", Both(f"{kind} is of no use without an importance matrix.",
                                              f"没有 importance matrix，{kind} 的结果不可用。"),
                      option="export_gguf_type", status=WRONG_OPTIONS,
                      fix=Both("Set export_quantization_dataset, or choose q2_k or larger.",
                               "请设置 export_quantization_dataset，或选 q2_k 及更大的类型。"))


def write_gguf_file(target: Path, fill: Any) -> None:
    """A file as a whole or not at all.

    Raises:
        Problem: the disk refuses it.
    """
    try:
        write_file(target, fill)
    except OSError as error:
        why = disk_refusal(error, target.parent) or str(error)
        raise problem("gguf-unwritten", Both(f"{target} could not be written: {why}",
                                             f"{target} 无法写入：{why[1] if isinstance(why, Both) else why}"),
                      option="export_dir") from error


def _header(writer: GGUFWriter, name: str, kind: str, config: Any, family: Architecture,
            vocabulary: Vocabulary) -> None:
    writer.add_type("model")
    writer.add_file_type(GGUF_TYPES[kind].number)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    basic_facts(writer, config)
    for add in family.facts:
        add(writer, config)
    vocabulary.write(writer, name)


def _tell_sampling(writer: GGUFWriter, source: Path) -> None:
    """How words are drawn, where the model's generation_config.json says so: llama.cpp heeds it where a client says
    nothing."""
    saved = read_generation([source])
    if saved.do_sample is False and saved.temperature is None:
        return  # nobody has chosen
    temperature = 0.0 if saved.do_sample is False else saved.temperature
    told: list[tuple[Callable[[Any], None], Any]] = [
        (writer.add_sampling_temp, temperature), (writer.add_sampling_top_p, saved.top_p),
        (writer.add_sampling_top_k, saved.top_k), (writer.add_sampling_min_p, saved.min_p),
        (writer.add_sampling_penalty_repeat, saved.repetition_penalty)]
    for add, value in told:
        if value is not None:
            add(value)
    if saved.repetition_penalty not in (None, 1.0):
        writer.add_sampling_penalty_last_n(-1)  # transformers looks back over everything, llama.cpp over 64 tokens


def _factors(config: Any) -> Iterator[Tensor]:
    for name, values in rope_factors(config).items():
        yield Tensor(name, values.shape, [Block(1, 0, partial(values.reshape, 1, -1))])


def _shape(config: Any, tensors: Sequence[Tensor], importance: Importance | None) -> Shape:
    settings, heads = config.to_dict(), config.num_attention_heads
    return Shape(layers=config.num_hidden_layers, groups=heads // config.num_key_value_heads,
                 experts=settings.get("num_local_experts") or settings.get("num_experts") or 0,
                 tied=all(tensor.name != "output.weight" for tensor in tensors),
                 large=config.model_type in ("llama", "mistral") and config.num_hidden_layers == 80
                 and heads != config.num_key_value_heads, importance=importance is not None)


def _bytes(tensor: Tensor, kind: GGMLQuantizationType) -> int:
    return sum(block.rows for block in tensor.blocks) * row_bytes(kind, tensor.shape[-1])


def _write(writer: GGUFWriter, tensors: Sequence[Tensor], types: Sequence[GGMLQuantizationType],
           importance: Importance | None) -> None:
    """Header and weights into the file that the writer has."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    try:
        writer.write_padding(file, file.tell())
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for tensor, kind in zip(tensors, types, strict=True):
                pack = partial(_pack, tensor, kind, importance)
                for packed in pool.map(pack, tensor.blocks):
                    file.write(packed.data)
                writer.write_padding(file, _bytes(tensor, kind))
    finally:
        writer.close()


def _pack(tensor: Tensor, kind: GGMLQuantizationType, importance: Importance | None, block: Block) -> np.ndarray:
    """The bytes of some rows.

    Raises:
        Problem: among them is what is no number, or too large for float16.
    """
    rows = block.read()
    if not np.isfinite(rows).all() or (kind == GGMLQuantizationType.F16 and np.abs(rows).max(initial=0) > 65504):
        raise _not_a_number(tensor.name, kind)
    return quantise(rows, kind, importance.of(tensor.name, block.expert) if importance else None)


def _not_a_number(name: str, kind: GGMLQuantizationType) -> Problem:
    return problem("gguf-weights", Both(f"{name} has weights that are no finite number in {kind.name.lower()}.",
                                        f"{name} 里有权重在 {kind.name.lower()} 下不是有限数。"),
                   option="export_gguf_type", fix=Both(
                       "The training may have diverged; bf16 and f32 hold large weights.",
                       "训练可能已发散；bf16 和 f32 能表示很大的权重。"))
