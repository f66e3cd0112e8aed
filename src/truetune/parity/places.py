"""Places that serve, by the names that people give them: a run, a model's folder, a GGUF file, a Modelfile, an
address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from truetune.data.template import make_renderer, settle_template
from truetune.findings import WRONG_OPTIONS, Both, Problem, Say, problem, refuse
from truetune.model.adapters import adapters_of, put_adapters, read_settings, virtual_of
from truetune.model.base import load_base
from truetune.model.find import find_model, load_model_config, load_tokenizer
from truetune.model.generation import read_generation
from truetune.options import Config
from truetune.options.gguf_types import GGUF_TYPES
from truetune.options.read import read_config
from truetune.parity.layers import Gguf, Layer, Ollama, Refused, Trained, arguments_as_text
from truetune.parity.logits import Passage, gguf_logprobs, model_logprobs
from truetune.parity.probes import Probe
from truetune.parity.tame import require_tame
from truetune.serve.llamacpp import LlamaCpp, LlamaServer

_CONTEXT = 4096


@dataclass(frozen=True)
class Place:
    """What can be asked of a place that serves; None: that cannot be.

    Attributes:
        layer: tells the ids of a prompt. count: tells how many there are. sampling: how words are drawn where a client
            says nothing. logprobs: log-probabilities (P, V). bits: of its weights. bos: the beginning-of-text token.
    """

    name: str
    layer: Layer | None = None
    count: Callable[[Probe], int] | None = None
    sampling: Mapping[str, float] | None = None
    logprobs: Callable[[Sequence[Passage]], np.ndarray] | None = None
    bits: float = 16
    bos: int | None = None


@contextmanager
def find_place(name: str, config: Config, say: Say) -> Iterator[Place]:
    """The place of this name, ready to be asked. config: what else was said (api_key, template, …).

    Raises:
        Problem: there is no such place.
    """
    path = Path(name).expanduser()
    if name.startswith(("http://", "https://")):
        yield _endpoint(name.rstrip("/").removesuffix("/v1"), config)
    elif path.suffix == ".gguf" and path.is_file():
        with LlamaCpp(path, context=_CONTEXT) as engine:
            yield _gguf(name, engine)
    elif path.name.startswith("Modelfile") and path.is_file():
        from truetune.export.ollama import read_modelfile

        form = read_modelfile(path)
        with LlamaCpp(path.parent / form.weights, context=_CONTEXT) as engine:
            yield _ollama(name, form, engine)
    elif path.is_dir() or not path.exists():
        yield _model(name, config, say)
    else:
        raise problem("no-place", Both(f"{name} is nothing that serves a model.", f"{name} 不是可部署模型的位置。"),
                      option="parity", status=WRONG_OPTIONS, fix=Both(
                          "A run, a model's folder, a .gguf file, a Modelfile, or an address (http://…).",
                          "可以是运行文件夹、模型文件夹、.gguf 文件、Modelfile 或地址（http://…）。"))


def _model(name: str, config: Config, say: Say) -> Place:
    """A run, or a folder with a model or an adapter in it, in transformers."""
    config = _of_folder(Path(name).expanduser(), name, config)
    assert config.model_name_or_path is not None
    base, adapters = find_model(config.model_name_or_path, config, say), adapters_of(config)
    trained = next((adapter for adapter in reversed(adapters) if (adapter / "tokenizer.json").is_file()), base)
    tokenizer = load_tokenizer(trained)
    require_tame(str(tokenizer.chat_template or ""), tokenizer.special_tokens_map, str(trained))
    refuse(settle_template(tokenizer, config))
    settings = load_model_config(base)
    bits = 4 if settings.to_dict().get("quantization_config") else 8 * (settings.dtype or torch.float32).itemsize
    return Place(name, Trained(make_renderer(tokenizer, trained, config), name), None, _saved_sampling(trained),
                 partial(_of_model, base, adapters, config), bits)


def _saved_sampling(folder: Path) -> dict[str, float] | None:
    """What generation_config.json says of how words are drawn; None: nobody has chosen."""
    saved = read_generation([folder])
    values = {"temperature": saved.temperature, "top_p": saved.top_p, "top_k": saved.top_k, "min_p": saved.min_p,
              "repetition_penalty": saved.repetition_penalty}
    chosen = {name: float(value) for name, value in values.items() if value is not None}
    return chosen or None


def _of_model(base: Path, adapters: Sequence[Path], config: Config, asked: Sequence[Passage]) -> np.ndarray:
    model: Any = load_base(base, config, torch.float32, torch.device("cpu"))
    if adapters:
        whole = put_adapters(model, adapters, base).eval()
        model = virtual_of(whole) or model
    return model_logprobs(model, asked)


def _of_folder(folder: Path, name: str, config: Config) -> Config:
    """The options of a run, or those that name the model (and the adapter) in a folder."""
    if (folder / "config.yaml").is_file():
        kind = "adapter" if (folder / "adapter_config.json").is_file() else "model"
        config, _ = read_config([str(folder / "config.yaml"), f"--{kind}_name_or_path={name}"])
        return config
    if (folder / "adapter_config.json").is_file():
        base = read_settings(folder).get("base_model_name_or_path") or config.model_name_or_path
        return config.with_values("parity", model_name_or_path=base, adapter_name_or_path=(name,))
    return config.with_values("parity", model_name_or_path=name, adapter_name_or_path=())


def _gguf(name: str, engine: LlamaServer) -> Place:
    told = engine.ask("/props")
    drawn = told["default_generation_settings"].get("params", told["default_generation_settings"])
    bos = next(iter(engine.tokenize(told["bos_token"])), None) if told.get("bos_token") else None
    return Place(name, Gguf(engine, name), None, _llamacpp_sampling(drawn), partial(gguf_logprobs, engine),
                 _bits(str(told.get("model_ftype", ""))), bos)


def _ollama(name: str, form: Any, engine: LlamaServer) -> Place:
    inside, drawn = _gguf(name, engine), form.parameters
    names = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.0, "repeat_penalty": 1.1}  # Ollama's own
    sampling = {name.replace("repeat_", "repetition_"): float(drawn.get(name, own)) for name, own in names.items()}
    return Place(name, Ollama(form, engine, name), None, sampling, inside.logprobs, inside.bits, inside.bos)


def _llamacpp_sampling(drawn: Mapping[str, Any]) -> dict[str, float]:
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
             "repeat_penalty": "repetition_penalty"}
    return {ours: float(drawn[theirs]) for theirs, ours in names.items() if theirs in drawn}


def _bits(told: str) -> float:
    """Of a file, as llama.cpp calls its type ("Q4_K - Medium", "F16", "all F32"); 2 where it says nothing."""
    compact = re.sub(r"[^A-Z0-9_]", "", told.upper().split(" - ")[0].removeprefix("ALL "))
    known = [kind.bits for name, kind in GGUF_TYPES.items() if name.upper().startswith(compact)] if compact else []
    return min(known, default=2.0)


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _endpoint(address: str, config: Config) -> Place:
    """A running server: llama.cpp tells everything, vLLM its ids and probabilities, others how many tokens they read.

    Raises:
        Problem: nobody answers.
    """
    server = LlamaServer(address, config.api_key or "")
    model = server.ask("/v1/models")["data"][0]["id"]
    told = _try(server, "/props")
    if told and "default_generation_settings" in told:
        return _gguf(address, server)
    if _try(server, "/tokenize", {"model": model, "prompt": "Hi"}):
        return Place(address, VLLM(server, model, address), None, None, partial(_vllm_logprobs, server, model))
    return Place(address, None, partial(_count, server, model))


def _try(server: LlamaServer, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """What a server answers; None where it does not know this."""
    try:
        return server.ask(path, body)
    except (Problem, ValueError):
        return None


@dataclass(frozen=True)
class VLLM:
    """A running vLLM, whose /tokenize renders messages as its chat does."""

    server: LlamaServer
    model: str
    name: str
    may_lack: bool = False

    def prompt(self, probe: Probe) -> list[int]:
        body = {"model": self.model, "messages": arguments_as_text(probe.messages), "add_generation_prompt": True,
                **({"tools": list(probe.tools)} if probe.tools else {}),
                **({"chat_template_kwargs": dict(probe.values)} if probe.values else {})}
        try:
            return self.server.ask("/tokenize", body)["tokens"]
        except Problem as error:
            raise Refused(error.findings[0].message) from None

    def stops(self) -> None:
        return None  # it reads generation_config.json, and tells nobody

    def text(self, ids: Sequence[int]) -> str:
        return self.server.ask("/detokenize", {"model": self.model, "tokens": list(ids)})["prompt"]


_MOST = 20
"""Likeliest words that vLLM tells unless it is started otherwise (--max-logprobs)."""


def _vllm_logprobs(server: LlamaServer, model: str, asked: Sequence[Passage]) -> np.ndarray:
    """Log-probabilities (P, V), of the 20 likeliest words; -inf for all others."""
    rows: list[dict[int, float]] = []
    for passage in asked:
        for position in passage.positions:
            answer = server.ask("/v1/completions", {
                "model": model, "prompt": list(passage.ids[: position + 1]), "max_tokens": 1, "logprobs": _MOST,
                "temperature": 0, "return_tokens_as_token_ids": True})
            top = answer["choices"][0]["logprobs"]["top_logprobs"][0]
            rows.append({int(word.removeprefix("token_id:")): value for word, value in top.items()})
    found = np.full((len(rows), 1 + max(max(row) for row in rows)), -np.inf, dtype=np.float32)
    for number, row in enumerate(rows):
        found[number, list(row)] = list(row.values())
    return found


def _count(server: LlamaServer, model: str, probe: Probe) -> int:
    """How many tokens a server says that it has read."""
    body = {"model": model, "messages": arguments_as_text(probe.messages), "max_tokens": 1,
            **({"tools": list(probe.tools)} if probe.tools else {})}
    return server.ask("/v1/chat/completions", body)["usage"]["prompt_tokens"]
