"""llama.cpp, vLLM and SGLang: how each is started, asked and understood. Data and small functions; `remote` does the
talking.

All are given prompts as token ids, so that what they read is what the model was trained on. What each calls things was
taken from its documentation; llama.cpp is run in the tests, of vLLM and SGLang the command lines and the protocol only.

    llama.cpp   tools/server/README.md in its repository: POST /completion
    vLLM        docs.vllm.ai, OpenAI-compatible server: POST /v1/completions (0.10.2 or newer: return_token_ids)
    SGLang      docs.sglang.io, sampling parameters: POST /generate

Of penalties llama.cpp counts the prompt's words too where OpenAI's presence and frequency penalties count the answer's
alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truetune.options import Config
from truetune.serve.request import Piece, Request, Token

Event = Mapping[str, Any]


@dataclass
class Told:
    """What of an answer has been told: some servers say all of it again with every event."""

    characters: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Backend:
    """How one of them is started, asked and understood.

    Args:
        name: as people know it. path: where it is asked.
        body: (request, room, ends, named) → what it is sent: room is the longest answer, ends are the tokens that end
            it, named is what `named` gave for the request's adapter.
        read: (event, told) → the part of the answer that an event brings.
        named: (name, known) → what a request for that adapter says, of those that the server knows, in its order;
            None: for the model alone.
        command: (config, folder, adapters, port, key, devices) → how it is started; None: it is no program of its own
            (llama.cpp: see `llamacpp`).
        needs: what has to be installed.
        environment: (key) → for it; a key does not stand in the list of processes where that can be helped.
        gguf: it reads GGUF files, and has their tokenizers. by_name: a request has to name the model.
        length, rank: the options that say how long a conversation, and how large an adapter's rank may be.
        told_length: where a running one says how long a conversation may be, and how it is read there.
    """

    name: str
    path: str
    body: Callable[[Request, int, Sequence[int], Any], dict[str, Any]]
    read: Callable[[Event, Told], Piece]
    named: Callable[[str | None, Sequence[str]], Any]
    command: Callable[[Config, Path, Mapping[str, Path], int, str, int], list[str]] | None = None
    needs: str = ""
    environment: Callable[[str], dict[str, str]] = lambda key: {}
    gguf: bool = False
    by_name: bool = False
    length: str = ""
    rank: str = ""
    told_length: tuple[str, Callable[[Any], Any]] = ("/v1/models", lambda told: told["data"][0].get("max_model_len"))


BASE, LOADED = "base", "default"
"""Names of the model, and of the adapter that is loaded with it, where a server (or PEFT) wants names."""
BESIDE = ("LORA", "LOHA", "LOKR", "IA3", "VERA", "OFT", "BOFT", "HRA", "ADALORA")
"""Kinds of adapters of which PEFT keeps several on one model, of which one is active."""


# ---------------------------------------------------------------------------------------------------------- llama.cpp

def _ask_llamacpp(request: Request, room: int, ends: Sequence[int], named: Any) -> dict[str, Any]:
    sampling = request.sampling
    body = {"prompt": list(request.prompt), "n_predict": room, "stream": True, "return_tokens": True,
            "cache_prompt": True, "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
            "min_p": sampling.min_p, "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": len(request.prompt) + room,
            "presence_penalty": sampling.presence_penalty, "frequency_penalty": sampling.frequency_penalty,
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"], "stop": list(sampling.stop),
            "ignore_eos": sampling.ignore_eos, "lora": named}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.top_logprobs is not None:
        body["n_probs"] = max(1, sampling.top_logprobs)
    if sampling.schema is not None:
        body["json_schema"] = dict(sampling.schema) or {"type": "object"}
    return body


def _named_llamacpp(name: str | None, known: Sequence[str]) -> list[dict[str, float]]:
    """Each one's scale: those that are not named would be on."""
    return [{"id": number, "scale": float(each == name)} for number, each in enumerate(known)]


def _read_llamacpp(event: Event, told: Told) -> Piece:
    known = {entry["id"]: entry for entry in event.get("completion_probabilities", ())}
    tokens = tuple(
        Token(number, known[number]["token"], known[number]["logprob"],
              tuple((top["id"], top["token"], top["logprob"]) for top in known[number]["top_logprobs"]))
        if number in known else Token(number, "") for number in event.get("tokens", ()))
    finish = ("length" if event.get("stop_type") == "limit" else "stop") if event.get("stop") else None
    return Piece(event.get("content", ""), tokens, finish)


# --------------------------------------------------------------------------------------------------------------- vLLM

def _ask_vllm(request: Request, room: int, ends: Sequence[int], named: Any) -> dict[str, Any]:
    sampling = request.sampling
    body = {"model": named, "prompt": list(request.prompt), "max_tokens": room, "stream": True,
            "return_token_ids": True, "return_tokens_as_token_ids": True, "skip_special_tokens": True,
            "add_special_tokens": False, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": sampling.top_k, "min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty, "frequency_penalty": sampling.frequency_penalty,
            "stop": list(sampling.stop), "stop_token_ids": list(ends), "ignore_eos": sampling.ignore_eos}
    if sampling.ignore_eos:
        body["stop_token_ids"] = []
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.top_logprobs is not None:
        body["logprobs"] = sampling.top_logprobs
    if sampling.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": dict(sampling.schema)}} if sampling.schema else {"type": "json_object"}
    return body


def _read_vllm(event: Event, told: Told) -> Piece:
    if not event.get("choices"):
        return Piece("")
    (choice,) = event["choices"]
    ids, logprobs = choice.get("token_ids") or [], choice.get("logprobs") or {}
    if logprobs.get("tokens"):
        ids = [_number(word) for word in logprobs["tokens"]]
    chosen = logprobs.get("token_logprobs") or [None] * len(ids)
    tops = logprobs.get("top_logprobs") or [None] * len(ids)
    tokens = tuple(Token(number, "", logp, tuple((_number(word), "", value) for word, value in (top or {}).items()))
                   for number, logp, top in zip(ids, chosen, tops, strict=False))
    return Piece(choice.get("text") or "", tokens, choice.get("finish_reason"))


def _number(word: str) -> int:
    """`token_id:12` → 12."""
    return int(word.rpartition(":")[2])


def _start_vllm(config: Config, folder: Path, adapters: Mapping[str, Path], port: int, key: str,
                devices: int) -> list[str]:
    words = ["vllm", "serve", str(folder), "--host", "127.0.0.1", "--port", str(port),
             "--served-model-name", BASE, "--generation-config", "vllm",
             "--max-model-len", str(config.infer_maxlen or config.vllm_maxlen),
             "--gpu-memory-utilization", str(config.vllm_gpu_util), "--dtype", config.infer_dtype,
             "--max-num-seqs", str(config.infer_batch)]
    if config.vllm_enforce_eager:
        words.append("--enforce-eager")
    if devices > 1:
        words += ["--tensor-parallel-size", str(devices)]
    if adapters:
        words += ["--enable-lora", "--max-lora-rank", str(config.vllm_max_lora_rank), "--max-loras", str(len(adapters)),
                  "--lora-modules", *(f"{name}={path}" for name, path in adapters.items())]
    return words + _flags(config.vllm_config or {})


# ------------------------------------------------------------------------------------------------------------- SGLang

def _ask_sglang(request: Request, room: int, ends: Sequence[int], named: Any) -> dict[str, Any]:
    sampling = request.sampling
    drawn = {"max_new_tokens": room, "temperature": sampling.temperature, "top_p": sampling.top_p,
             "top_k": sampling.top_k or -1, "min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty,
             "presence_penalty": sampling.presence_penalty, "frequency_penalty": sampling.frequency_penalty,
             "stop": list(sampling.stop), "stop_token_ids": [] if sampling.ignore_eos else list(ends),
             "ignore_eos": sampling.ignore_eos, "skip_special_tokens": True}
    if sampling.seed is not None:
        drawn["sampling_seed"] = sampling.seed
    if sampling.schema is not None:
        drawn["json_schema"] = json.dumps(dict(sampling.schema) or {"type": "object"})
    body: dict[str, Any] = {"input_ids": list(request.prompt), "sampling_params": drawn, "stream": True}
    if sampling.top_logprobs is not None:
        body |= {"return_logprob": True, "top_logprobs_num": sampling.top_logprobs, "return_text_in_logprobs": True}
    return body | ({"lora_path": named} if named else {})


def _read_sglang(event: Event, told: Told) -> Piece:
    """Every event has all of the answer so far."""
    meta = event.get("meta_info", {})
    chosen, tops = meta.get("output_token_logprobs") or [], meta.get("output_top_logprobs") or []
    ids = event.get("output_ids") or [entry[1] for entry in chosen]
    tokens = tuple(
        Token(number, (chosen[place][2] or "") if place < len(chosen) else "",
              chosen[place][0] if place < len(chosen) else None,
              tuple((word, text or "", logp) for logp, word, text in (tops[place] or ())) if place < len(tops) else ())
        for place, number in enumerate(ids) if place >= told.tokens)
    text = event.get("text", "")[told.characters :]
    told.characters, told.tokens = told.characters + len(text), len(ids)
    return Piece(text, tokens, (meta.get("finish_reason") or {}).get("type"))


def _start_sglang(config: Config, folder: Path, adapters: Mapping[str, Path], port: int, key: str,
                  devices: int) -> list[str]:
    shared = config.sglang_tp_size if config.sglang_tp_size != -1 else devices
    words = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(folder), "--host", "127.0.0.1",
             "--port", str(port), "--api-key", key,
             "--context-length", str(config.infer_maxlen or config.sglang_maxlen),
             "--mem-fraction-static", str(config.sglang_mem_fraction), "--tp-size", str(max(1, shared)),
             "--dtype", config.infer_dtype, "--max-running-requests", str(config.infer_batch)]
    if adapters:
        words += ["--max-loras-per-batch", str(len(adapters) + 1),
                  "--lora-backend", config.sglang_lora_backend,
                  "--lora-paths", *(f"{name}={path}" for name, path in adapters.items())]
    return words + _flags(config.sglang_config or {})


def _flags(settings: Mapping[str, Any]) -> list[str]:
    """`{"max_num_seqs": 4, "enforce_eager": True}` → `--max-num-seqs 4 --enforce-eager`."""
    words: list[str] = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, json.dumps(value) if isinstance(value, dict | list) else str(value)]
    return words


BACKENDS: Mapping[str, Backend] = {
    "llamacpp": Backend("llama.cpp", "/completion", _ask_llamacpp, _read_llamacpp, _named_llamacpp, gguf=True,
                        told_length=("/props", lambda told: told["default_generation_settings"]["n_ctx"])),
    "vllm": Backend("vLLM", "/v1/completions", _ask_vllm, _read_vllm, lambda name, known: name or BASE, _start_vllm,
                    "vllm", lambda key: {"VLLM_API_KEY": key}, by_name=True, length="vllm_maxlen",
                    rank="vllm_max_lora_rank"),
    "sglang": Backend("SGLang", "/generate", _ask_sglang, _read_sglang, lambda name, known: name, _start_sglang,
                      "sglang[all]", lambda key: {"SGLANG_RETURN_ORIGINAL_LOGPROB": "1"},
                      length="sglang_maxlen"),
}
"""By the words of `infer_backend`."""
