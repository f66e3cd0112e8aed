"""An engine whose model is in another process: which file and tokenizer it takes, and how its server is found."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from truetune.data.renderer import Renderer
from truetune.findings import Both, Problem, Say, problem
from truetune.model.adapters import adapters_of, read_settings, require_base
from truetune.model.find import find_model, load_tokenizer
from truetune.options import Config
from truetune.serve.backends import BACKENDS, LOADED, Backend
from truetune.serve.detokenize import Vocabulary
from truetune.serve.llamacpp import LlamaCpp
from truetune.serve.process import Started, free_port, require_installed
from truetune.serve.remote import Elsewhere, Remote, Server, ask
from truetune.serve.scheduler import Limits

_CONTEXT = 8192
"""Tokens of a conversation where nobody says how long it may be."""
_PROBE = "Hello  world, 123 + 45\n\n\t一只狐狸 naïve 🦊 don't"


@dataclass(frozen=True)
class Source:
    """What is served. weights: a folder, or a GGUF file. tokens: the folder of the tokenizer; None: only the GGUF has
    it."""

    weights: Path
    tokens: Path | None

    @property
    def gguf(self) -> bool:
        return self.weights.suffix == ".gguf"


def find_source(config: Config, say: Say) -> Source:
    """Raises:
    Problem: there is no such model, or llama.cpp is to serve a folder without a GGUF file, or with several.
    """
    name = str(config.model_name_or_path)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise problem("no-model", Both(f"there is no file {path}.", f"没有文件 {path}。"),
                          option="model_name_or_path", where=config.origin("model_name_or_path"))
        return Source(path, path.parent if (path.parent / "tokenizer.json").is_file() else None)
    if config.infer_endpoint or not BACKENDS[config.infer_backend].gguf:
        folder = find_model(name, config, say)
        return Source(folder, folder)
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if len(files) != 1:
        named = ", ".join(file.name for file in files)
        raise problem("no-gguf", Both(f"{name} holds {f'several GGUF files ({named})' if files else 'no GGUF file'}.",
                                      f"{name} 里{f'有多个 GGUF 文件（{named}）' if files else '没有 GGUF 文件'}。"),
                      option="model_name_or_path", where=config.origin("model_name_or_path"),
                      fix=Both("Name one of them." if files else "Make one: truetune export with export_format: gguf.",
                               "请指定其中一个。" if files else "请先导出：truetune export，export_format: gguf。"))
    return Source(files[0], path if (path / "tokenizer.json").is_file() else None)


def tokenizer_of(source: Source, config: Config) -> tuple[PreTrainedTokenizerBase, Path]:
    """The tokenizer, and the folder that says where the model stops: the last adapter's, the model's, or that which a
    GGUF file holds.

    Raises:
        Problem: there is none that can be read.
    """
    for adapter in reversed(adapters_of(config)):
        if (adapter / "tokenizer.json").is_file():
            return load_tokenizer(adapter), adapter
    if source.tokens:
        return load_tokenizer(source.tokens), source.tokens
    try:
        folder = source.weights.parent
        return AutoTokenizer.from_pretrained(folder, gguf_file=source.weights.name), folder
    except Exception as error:  # whatever a converter stumbles over that does not know this kind of file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise problem("no-tokenizer", Both(f"the tokenizer inside {source.weights} cannot be read: {reason}",
                                           f"{source.weights} 里的分词器无法读取：{reason}"),
                      option="model_name_or_path",
                      fix=Both("Put the model's tokenizer.json and tokenizer_config.json beside it.",
                               "请把模型的 tokenizer.json 和 tokenizer_config.json 放在它旁边。")) from None


def remote_of(source: Source, renderer: Renderer, ends: Sequence[int], config: Config, say: Say) -> Remote:
    """The server that `infer_backend` and `infer_endpoint` name, asked in the renderer's ids. ends: tokens that end an
    answer.

    Raises:
        Problem: it cannot be started or reached, an adapter does not fit, or its tokenizer is another.
    """
    backend = BACKENDS[config.infer_backend]
    put_on = adapters_of(config)
    beside = {name: Path(str(folder)).expanduser() for name, folder in config.infer_adapters.items()}
    if config.infer_endpoint:
        server: Server = Elsewhere(config.infer_endpoint.rstrip("/"), config.infer_api_key or "")
        known, context = list(beside), _reach(server, backend, config)
    else:
        known, every = [*([LOADED] if put_on else []), *beside], [*put_on[-1:], *beside.values()]
        _require_fitting(every, source, put_on, backend, config)
        context = config.infer_maxlen or (getattr(config, backend.length) if backend.length else _CONTEXT)
        server = _start(backend, source, known, every, context, config)
    said: dict[str | None, Any] = {name: backend.named(name, known) for name in beside}
    said[None] = backend.named(LOADED if LOADED in known else None, known)
    try:
        if config.infer_endpoint and backend.by_name:
            said[None] = ask(server, "/v1/models")["data"][0]["id"]
        if backend.gguf:
            _compare(server, renderer, say)
    except (Problem, OSError):
        server.close()
        raise
    limits = Limits(config.infer_batch, config.api_queue, context)
    return Remote(backend, server, Vocabulary(renderer.tokenizer), ends, limits, said)


def _start(backend: Backend, source: Source, names: Sequence[str], adapters: Sequence[Path], context: int,
           config: Config) -> Server:
    if backend.command is None:
        return LlamaCpp(source.weights, context=context, parallel=config.infer_batch, adapters=adapters)
    key, port = secrets.token_urlsafe(24), free_port()
    words = backend.command(config, source.weights, dict(zip(names, adapters, strict=True)), port, key,
                            torch.cuda.device_count())
    require_installed(words, backend.name, backend.needs)
    return Started(words, backend.name, port, key, backend.environment(key))


def _require_fitting(adapters: Sequence[Path], source: Source, put_on: Sequence[Path], backend: Backend,
                     config: Config) -> None:
    """Raises:
    Problem: an adapter is not of the file format that the server reads, another base's, or of a rank beyond what it
        makes room for; several are to be merged, which only happens here.
    """
    if len(put_on) > 1:
        raise problem("several-adapters", Both(
            f"{config.infer_backend} does not merge adapters, and {len(put_on)} are named.",
            f"{config.infer_backend} 不会合并适配器，而这里指定了 {len(put_on)} 个。"), option="adapter_name_or_path",
            fix=Both("Export them first (truetune export), and serve the export.",
                     "请先导出（truetune export），再部署导出的模型。"))
    for adapter in adapters:
        if source.gguf != (adapter.suffix == ".gguf"):
            raise problem("adapter-format", Both(
                f"{adapter} is no GGUF file, and llama.cpp reads no other adapters.",
                f"{adapter} 不是 GGUF 文件，而 llama.cpp 只读取这种适配器。") if source.gguf else Both(
                f"{adapter} is a GGUF file, which only llama.cpp reads.",
                f"{adapter} 是 GGUF 文件，只有 llama.cpp 能读取。"), option="infer_adapters", fix=Both(
                "Export it: truetune export with export_adapter_only: true and export_format: gguf.",
                "请先导出：truetune export，export_adapter_only: true，export_format: gguf。") if source.gguf else None)
        if source.gguf:
            continue
        require_base(adapter, source.weights)
        rank = read_settings(adapter).get("r")
        if backend.rank and isinstance(rank, int) and rank > getattr(config, backend.rank):
            raise problem("lora-rank", Both(f"{adapter} has rank {rank}, above {backend.rank}.",
                                            f"{adapter} 的秩为 {rank}，超过 {backend.rank}。"),
                          option=backend.rank, fix=Both(f"Set it to {rank}.", f"请设为 {rank}。"))


def _reach(server: Server, backend: Backend, config: Config) -> int:
    """Most tokens of a conversation, as a running server says.

    Raises:
        Problem: there is none.
    """
    try:
        path, read = backend.told_length
        told = read(ask(server, path))
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise problem("no-endpoint", Both(f"no {backend.name} answers at {server.address} ({error}).",
                                          f"{server.address} 没有 {backend.name} 应答（{error}）。"),
                      option="infer_endpoint", where=config.origin("infer_endpoint")) from None
    return min(int(told or _CONTEXT), config.infer_maxlen or int(told or _CONTEXT))


def _compare(server: Server, renderer: Renderer, say: Say) -> None:
    """Raises:
    Problem: llama.cpp reads a text as other ids than the tokenizer that makes the prompts.
    """
    theirs = ask(server, "/tokenize", {"content": _PROBE, "add_special": False, "parse_special": True})["tokens"]
    ours = list(renderer.tokenizer.encode(_PROBE, add_special_tokens=False))
    if theirs != ours:
        raise problem("other-tokenizer", Both("the GGUF file reads text as other ids than the tokenizer beside it.",
                                              "GGUF 文件与旁边的分词器把同一文本读成了不同的 id。"),
                      option="model_name_or_path", fix=Both("They belong to different models: export again.",
                                                            "它们不属于同一个模型，请重新导出。"))
    talk = [{"role": "user", "content": "Hi, you 你好"}]
    text = ask(server, "/apply-template", {"messages": talk})["prompt"]
    theirs = ask(server, "/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
    if theirs != renderer.prompt(talk):
        say(Both("the chat template inside the GGUF file writes another prompt than the tokenizer's; the tokenizer's "
                 "is taken.", "GGUF 文件里的对话模板写出的提示与分词器的不同；以分词器的为准。"))
