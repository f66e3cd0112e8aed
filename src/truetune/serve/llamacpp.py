"""llama.cpp, the real one, in a process of its own: how a GGUF file tokenises, renders its template, and answers.

The wheel `xllamacpp` carries llama.cpp's server. It runs in a process of its own, since llama.cpp ends its process
where it meets a file that it cannot read, and since it must not hold this one's threads. Only this process can speak to
it: it listens on 127.0.0.1 and wants a key that was made for it.

    python -m truetune.serve.llamacpp        reads its settings from stdin, prints its address, ends with its stdin
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from truetune.findings import Both, problem

_TIMEOUT = 600.0
"""Seconds that one call may take: reading a long prompt on a slow machine."""


class LlamaServer:
    """A llama.cpp server that runs somewhere.

    Attributes:
        address: of its HTTP API (`/v1/…` as OpenAI's, `/completion`, `/tokenize`, …). key: the bearer token it wants.
    """

    def __init__(self, address: str, key: str = ""):
        self.address, self.key = address, key

    def tokenize(self, text: str, *, opening: bool = False) -> list[int]:
        """The ids of a text in which special tokens are special. opening: with what the file puts before every text."""
        return self.ask("/tokenize", {"content": text, "add_special": opening, "parse_special": True})["tokens"]

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (),
               **values: Any) -> str:
        """The prompt that the file's own chat template makes, with its generation prompt. values: for the template
        (enable_thinking)."""
        asked: dict[str, Any] = {"messages": list(messages)} | ({"tools": list(tools)} if tools else {})
        return self.ask("/apply-template", asked | ({"chat_template_kwargs": values} if values else {}))["prompt"]

    def next_logprobs(self, ids: Sequence[int], most: int | None = None, adapter: int | None = None) -> np.ndarray:
        """Log-probabilities (V,) of the token after `ids`, float32; -inf for all but the `most` likeliest, if given: a
        whole vocabulary as JSON takes ten times as long as a thousand words. adapter: the number of the one that is on.
        """
        size = self.properties()["vocabulary"]
        # "a" is made to come, whatever is likeliest: of a token that ends the answer, or is a part of a character,
        # llama.cpp tells nothing. What it tells are the probabilities before that.
        answer = self.ask("/completion", {"prompt": list(ids), "n_predict": 1, "n_probs": most or size,
                                          "temperature": 0, "cache_prompt": True, "ignore_eos": True,
                                          "logit_bias": [[self.tokenize("a")[-1], 1e6]],
                                          "lora": [] if adapter is None else [{"id": adapter, "scale": 1.0}]})
        found = np.full(size, -np.inf, dtype=np.float32)
        for token in answer["completion_probabilities"][0]["top_logprobs"]:
            found[token["id"]] = token["logprob"]
        return found

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens written out."""
        return self.ask("/detokenize", {"tokens": list(ids)})["content"]

    def ends(self) -> list[int]:
        """The tokens at which llama.cpp ends an answer: those that the file names, and others that it knows by their
        texts. It tells them as the ones that it forbids when it is asked not to end."""
        answer = self.ask("/completion", {"prompt": [0], "n_predict": 1, "ignore_eos": True, "cache_prompt": False})
        return sorted(entry["token"] for entry in answer["generation_settings"]["logit_bias"])

    def properties(self) -> dict[str, Any]:
        """vocabulary: its size. template: the chat template that the file holds. context: tokens of a conversation."""
        if not hasattr(self, "_properties"):
            told, (model,) = self.ask("/props"), self.ask("/v1/models")["data"]
            self._properties = {"vocabulary": model["meta"]["n_vocab"], "template": told["chat_template"],
                                "context": told["default_generation_settings"]["n_ctx"]}
        return self._properties

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the server answers, as JSON.

        Raises:
            Problem: it refuses, with its own words; or it has died.
        """
        request = Request(self.address + path, json.dumps(body).encode() if body is not None else None,
                          {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"})
        try:
            with urlopen(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)
        except HTTPError as error:
            said = error.read().decode(errors="replace")
            raise problem("llamacpp-refused", Both(f"llama.cpp answers {error.code}: {said:.300}",
                                                   f"llama.cpp 应答 {error.code}：{said:.300}")) from None
        except OSError as error:
            raise self._gone(error) from None

    def _gone(self, error: OSError) -> Exception:
        """What is said where nobody answers."""
        return problem("llamacpp-failed", Both(f"nobody answers at {self.address}: {error}",
                                               f"{self.address} 没有应答：{error}"))


class LlamaCpp(LlamaServer):
    """A GGUF file as llama.cpp serves it."""

    def __init__(self, gguf: Path, *, context: int = 4096, parallel: int = 1, adapters: Sequence[Path] = (),
                 embeddings: bool = False, exact: bool = False):
        """context: tokens of one conversation. parallel: how many are answered at once. adapters: LoRA as GGUF files;
        none is on until a request says so. exact: keep keys and values in float32 and not in float16, to compare.

        Raises:
            Problem: xllamacpp is not installed, or llama.cpp cannot read the file (its own last words are told).
        """
        require_llamacpp("model_name_or_path")
        super().__init__("", secrets.token_urlsafe(24))
        settings = {"model": str(gguf), "context": context * parallel, "parallel": parallel, "key": self.key,
                    "adapters": [str(adapter) for adapter in adapters], "embeddings": embeddings, "exact": exact}
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed with it)
        self._process = subprocess.Popen([sys.executable, "-m", "truetune.serve.llamacpp"], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8")
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(settings) + "\n")
        self._process.stdin.flush()
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            self._process.wait()
            raise problem("llamacpp-failed", Both(f"llama.cpp cannot serve {gguf}: {self._last_words()}",
                                                  f"llama.cpp 无法加载 {gguf}：{self._last_words()}"),
                          option="model_name_or_path")

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _gone(self, error: OSError) -> Exception:
        words = self._last_words() or error
        return problem("llamacpp-failed", Both(f"llama.cpp has ended: {words}", f"llama.cpp 已退出：{words}"))

    def _last_words(self) -> str:
        """The last line that tells of an error."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log if " E " in line or "error" in line.lower() or "ASSERT" in line]
        return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")


def require_llamacpp(option: str) -> None:
    """Raises:
    Problem: the wheel that carries llama.cpp is not installed.
    """
    if find_spec("xllamacpp") is None:
        raise problem("no-llamacpp", Both("llama.cpp is not installed.", "没有安装 llama.cpp。"), option=option,
                      fix="pip install xllamacpp")


def _serve() -> None:
    """Run the server until stdin ends."""
    xllamacpp: Any = import_module("xllamacpp")  # compiled, and tells type checkers nothing
    settings = json.loads(sys.stdin.readline())
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.n_ctx, params.n_parallel = settings["context"], settings["parallel"]
    params.port, params.api_keys, params.use_jinja = 0, [settings["key"]], True
    params.embedding, params.warmup, params.endpoint_props = settings["embeddings"], False, False
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in settings["adapters"]]
    params.lora_init_without_apply = True
    if settings["exact"]:
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # its own ending waits for connections that nobody will close; there is nothing to write down


if __name__ == "__main__":
    _serve()
