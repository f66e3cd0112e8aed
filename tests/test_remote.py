"""Engines in other processes: llama.cpp itself, and the command lines and protocol of vLLM and SGLang, which cannot be
installed beside the tests: a stand-in server speaks as their documentation says."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from test_engine import GREEDY, SCHEMA, engine_of, ids_of, lora_of, text_of

from truetune.export.gguf import write_gguf, write_gguf_adapter
from truetune.findings import Problem
from truetune.options.read import read_config
from truetune.serve.backends import BACKENDS
from truetune.serve.engine import Engine
from truetune.serve.process import Started, free_port
from truetune.serve.remote import Remote
from truetune.serve.request import Full, Sampling

TALK = [{"role": "user", "content": "Question 3? 一只狐狸"}]
WORDLESS: Any = lambda words: None  # noqa: E731


# ---------------------------------------------------------------------------------------------------------------------
# llama.cpp

@pytest.fixture(scope="module")
def exported(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GGUF file and the tokenizer that made its prompts."""
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(small, folder / "model.gguf", "f32", say=WORDLESS)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (small / name).is_file():
            (folder / name).write_bytes((small / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def llama(exported: Path) -> Iterator[Engine]:
    with closing(engine_of(exported, infer_backend="llamacpp", infer_batch=2, infer_maxlen=512)) as engine:
        yield engine


def test_llamacpp_answers_as_transformers_does(llama: Engine, small: Path) -> None:
    """From the same ids come the same words, several at once too, with the same probabilities."""
    with closing(engine_of(small)) as engine:
        prompt = engine.prompt(TALK)
        assert llama.prompt(TALK) == prompt
        told = replace(GREEDY, top_logprobs=2)
        ours = [token for piece in engine.complete(prompt, told) for token in piece.tokens]
        crowd = [llama.complete(prompt, told) for _ in range(3)]
        for answer in crowd:
            theirs = [token for piece in answer for token in piece.tokens]
            assert [token.id for token in theirs] == [token.id for token in ours]
            for here, there in zip(ours, theirs, strict=True):
                assert there.logprob == pytest.approx(here.logprob, abs=0.05)
                assert [word for word, _, _ in there.top] == [word for word, _, _ in here.top]


def test_llamacpp_does_what_a_request_asks(llama: Engine) -> None:
    """Seeds, stop texts, schemas, and lengths."""
    prompt = llama.prompt(TALK)
    drawn = Sampling(12, temperature=1.5, seed=3)
    assert text_of(llama.complete(prompt, drawn)) == text_of(llama.complete(prompt, drawn))
    assert text_of(llama.complete(prompt, drawn)) != text_of(llama.complete(prompt, replace(drawn, seed=4)))
    whole = text_of(llama.complete(prompt, replace(GREEDY, ignore_eos=True)))
    pieces = list(llama.complete(prompt, replace(GREEDY, ignore_eos=True, stop=(whole[-6:-2],))))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(whole[-6:-2])]
    assert pieces[-1].finish == "stop"
    assert list(llama.complete(prompt, replace(GREEDY, ignore_eos=True)))[-1].finish == "length"
    schemed = text_of(llama.complete(prompt, Sampling(50, temperature=1.0, seed=1, schema={"enum": ["fox", "dog"]})))
    assert json.loads(schemed) in ("fox", "dog")


def test_who_leaves_llamacpp_frees_the_place(llama: Engine) -> None:
    """The server ends an answer whose connection is closed: another gets its turn at once."""
    assert isinstance(llama.generator, Remote)
    endless = replace(GREEDY, max_new_tokens=400, ignore_eos=True)
    answers = [llama.complete(llama.prompt(TALK), endless) for _ in range(2)]
    for answer in answers:
        next(answer)
        answer.close()
    assert llama.generator.running == 0
    assert ids_of(llama.complete(llama.prompt(TALK), replace(GREEDY, max_new_tokens=2, ignore_eos=True)))


def test_a_gguf_alone_brings_its_own_tokenizer(llama: Engine, exported: Path, tmp_path: Path) -> None:
    """No other file is needed: prompts have the same ids."""
    (tmp_path / "alone.gguf").symlink_to(exported / "model.gguf")
    with closing(engine_of(tmp_path / "alone.gguf", infer_backend="llamacpp", infer_maxlen=256)) as engine:
        assert engine.prompt(TALK) == llama.prompt(TALK)
        assert engine.name == "alone.gguf"
        assert ids_of(engine.generate(TALK, GREEDY)) == ids_of(llama.generate(TALK, GREEDY))


def test_a_running_llamacpp_can_be_named(llama: Engine, small: Path) -> None:
    """An endpoint has the model; the tokenizer is that of the model that is named."""
    assert isinstance(llama.generator, Remote)
    server: Any = llama.generator.server
    with closing(engine_of(small, infer_backend="llamacpp", infer_endpoint=server.address,
                           infer_api_key=server.key)) as engine:
        assert engine.context == 512
        assert text_of(engine.generate(TALK, GREEDY)) == text_of(llama.generate(TALK, GREEDY))
    with pytest.raises(Problem, match=r"no llama\.cpp answers"):
        engine_of(small, infer_backend="llamacpp", infer_endpoint=f"http://127.0.0.1:{free_port()}")


def test_adapters_of_llamacpp(small: Path, exported: Path, tmp_path: Path) -> None:
    """LoRA adapters as GGUF files, by name: each answers as in transformers, and the base without a name too."""
    adapters = {name: lora_of(small, tmp_path / name, seed) for seed, name in enumerate(("one", "other"))}
    files = {name: tmp_path / f"{name}.gguf" for name in adapters}
    for name, file in files.items():
        write_gguf_adapter(adapters[name], small, file, WORDLESS)
    named = json.dumps({name: str(folder) for name, folder in adapters.items()})
    with closing(engine_of(small, infer_adapters=named)) as engine:
        ours = {name: ids_of(engine.generate(TALK, GREEDY, adapter=name)) for name in (None, *files)}
    assert len(set(map(tuple, ours.values()))) == 3
    named = json.dumps({name: str(file) for name, file in files.items()})
    with closing(engine_of(exported, infer_backend="llamacpp", infer_maxlen=256, infer_adapters=named)) as engine:
        answers = {name: engine.generate(TALK, GREEDY, adapter=name) for name in ours}
        assert {name: ids_of(answer) for name, answer in answers.items()} == ours
    with closing(engine_of(exported, infer_backend="llamacpp", infer_maxlen=256, adapter_name_or_path=files["one"],
                           infer_adapters=json.dumps({"other": str(files["other"])}))) as engine:
        assert ids_of(engine.generate(TALK, GREEDY)) == ours["one"]
        assert ids_of(engine.generate(TALK, GREEDY, adapter="other")) == ours["other"]


def test_another_models_tokenizer_is_refused(exported: Path, tmp_path: Path) -> None:
    """A GGUF beside the tokenizer of another model would be sent ids that it reads as other words."""
    (tmp_path / "model.gguf").symlink_to(exported / "model.gguf")
    written = json.loads((exported / "tokenizer.json").read_text(encoding="utf-8"))
    words = written["model"]["vocab"]
    words["H"], words["e"] = words["e"], words["H"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(written), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_bytes((exported / "tokenizer_config.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes((exported / "chat_template.jinja").read_bytes())
    with pytest.raises(Problem, match="other ids"):
        engine_of(tmp_path, infer_backend="llamacpp", infer_maxlen=256)


@pytest.mark.parametrize("files, said", [((), "no GGUF file"), (("a.gguf", "b.gguf"), "several GGUF files")])
def test_a_folder_without_one_gguf_is_refused(tmp_path: Path, files: tuple[str, ...], said: str) -> None:
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(Problem, match=said):
        engine_of(tmp_path, infer_backend="llamacpp")


# ---------------------------------------------------------------------------------------------------------------------
# vLLM and SGLang: a stand-in

Answering = Callable[[Mapping[str, Any]], Iterator[Any]]


class Standing(ThreadingHTTPServer):
    """Notes what it is asked, and streams what `answering` says."""

    daemon_threads = True

    def __init__(self, answering: Answering):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answering, self.asked, self.left = answering, [], Event()


class _Handler(BaseHTTPRequestHandler):
    server: Standing

    def do_GET(self) -> None:
        body = {"data": [{"id": "org/model", "max_model_len": 777}, {"id": "lora"}]} if "models" in self.path else {}
        self._send(200, json.dumps(body))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        events = self.server.answering(body)
        first = next(events)
        if isinstance(first, int):
            self._send(first, '{"error": "said so"}', {"Retry-After": "7"})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for event in chain([first], events):
                said = event if isinstance(event, bytes) else json.dumps(event).encode()
                self.wfile.write(b"data: " + said + b"\n\n")
                self.wfile.flush()
        except OSError:
            self.server.left.set()

    def _send(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def standing(answering: Answering) -> Iterator[tuple[Standing, str]]:
    server = Standing(answering)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def vllm_says(body: Mapping[str, Any]) -> Iterator[Any]:
    """As vLLM streams completions: the text of each step, and its token ids."""
    for text, ids, logp in (("Hel", [100], -0.5), ("lo", [101], -0.25)):
        choice: dict[str, Any] = {"index": 0, "text": text, "token_ids": ids, "finish_reason": None, "logprobs": None}
        if "logprobs" in body:
            word = f"token_id:{ids[0]}"
            choice["logprobs"] = {"tokens": [word], "token_logprobs": [logp],
                                  "top_logprobs": [{word: logp, "token_id:7": -3.0, "token_id:8": -4.0}]}
        yield {"choices": [choice]}
    yield {"choices": [{"index": 0, "text": "", "token_ids": [2], "finish_reason": "stop", "logprobs": None}]}
    yield b"[DONE]"


def sglang_says(body: Mapping[str, Any]) -> Iterator[Any]:
    """As SGLang streams: every event has all of the answer so far."""
    chosen, tops = [[-0.5, 100, "Hel"], [-0.25, 101, "lo"], [-0.1, 2, ""]], [[[-0.5, 100, "Hel"], [-3.0, 7, "x"]]] * 3
    for count, text in ((1, "Hel"), (2, "Hello"), (3, "Hello")):
        meta: dict[str, Any] = {"finish_reason": {"type": "stop", "matched": 2} if count == 3 else None}
        if body.get("return_logprob"):
            meta |= {"output_token_logprobs": chosen[:count], "output_top_logprobs": tops[:count]}
        yield {"text": text, "output_ids": [100, 101, 2][:count], "meta_info": meta}
    yield b"[DONE]"


FULL = Sampling(9, 0.5, top_p=0.8, top_k=4, min_p=0.1, repetition_penalty=1.2, presence_penalty=0.3,
                frequency_penalty=0.4, seed=5, stop=("x",), top_logprobs=2, schema=SCHEMA)


def test_vllm_is_asked_in_its_words(small: Path) -> None:
    with standing(vllm_says) as (server, address), closing(engine_of(
            small, infer_backend="vllm", infer_endpoint=address, infer_adapters='{"lora": "anywhere"}',
            infer_api_key="secret")) as engine:
        assert (engine.context, list(engine.adapters)) == (777, ["lora"])
        pieces = list(engine.complete([5, 6], FULL))
        assert [piece.text for piece in pieces] == ["Hel", "lo", ""]
        tokens = [token for piece in pieces for token in piece.tokens]
        assert [(token.id, token.logprob) for token in tokens] == [(100, -0.5), (101, -0.25)]
        assert [(word, logp) for word, _, logp in tokens[0].top] == [(100, -0.5), (7, -3.0)]
        assert tokens[0].text == engine.tokenizer.decode([100])
        assert pieces[-1].finish == "stop"
        path, key, body = server.asked[0]
        assert (path, key) == ("/v1/completions", "Bearer secret")
        assert body == {
            "model": "org/model", "prompt": [5, 6], "max_tokens": 9, "stream": True, "return_token_ids": True,
            "return_tokens_as_token_ids": True, "skip_special_tokens": True, "add_special_tokens": False,
            "temperature": 0.5, "top_p": 0.8, "top_k": 4, "min_p": 0.1, "repetition_penalty": 1.2,
            "presence_penalty": 0.3, "frequency_penalty": 0.4, "stop": ["x"],
            "stop_token_ids": engine.renderer.stop_ids(), "ignore_eos": False, "seed": 5, "logprobs": 2,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}}
        assert ids_of(engine.complete([5], replace(GREEDY, max_new_tokens=5000), "lora")) == [100, 101]
        assert (server.asked[1][2]["model"], server.asked[1][2]["max_tokens"]) == ("lora", 776)


def test_sglang_is_asked_in_its_words(small: Path) -> None:
    with standing(sglang_says) as (server, address), closing(engine_of(
            small, infer_backend="sglang", infer_endpoint=address, infer_adapters='{"lora": "anywhere"}')) as engine:
        pieces = list(engine.complete([5, 6], FULL, "lora"))
        assert "".join(piece.text for piece in pieces) == "Hello"
        tokens = [token for piece in pieces for token in piece.tokens]
        assert [(token.id, token.logprob, token.text) for token in tokens] == [(100, -0.5, "Hel"), (101, -0.25, "lo")]
        assert tokens[0].top == ((100, "Hel", -0.5), (7, "x", -3.0))
        path, key, body = server.asked[0]
        assert (path, key) == ("/generate", None)
        drawn = body.pop("sampling_params")
        assert body == {"input_ids": [5, 6], "stream": True, "return_logprob": True, "top_logprobs_num": 2,
                        "return_text_in_logprobs": True, "lora_path": "lora"}
        assert json.loads(drawn.pop("json_schema")) == SCHEMA
        assert drawn == {"max_new_tokens": 9, "temperature": 0.5, "top_p": 0.8, "top_k": 4, "min_p": 0.1,
                         "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.4, "stop": ["x"],
                         "stop_token_ids": engine.renderer.stop_ids(), "ignore_eos": False,
                         "skip_special_tokens": True, "sampling_seed": 5}
        assert ids_of(engine.complete([5], Sampling(3))) == [100, 101]
        assert server.asked[1][2]["sampling_params"]["top_k"] == -1  # SGLang's word for no limit
        assert "lora_path" not in server.asked[1][2]


def test_who_leaves_closes_the_connection(small: Path) -> None:
    """The server hears of it, also where it waits for room to write."""

    def endless(body: Mapping[str, Any]) -> Iterator[Any]:
        while True:
            yield {"choices": [{"index": 0, "text": "word ", "token_ids": [100], "finish_reason": None}]}

    with standing(endless) as (server, address), closing(engine_of(
            small, infer_backend="vllm", infer_endpoint=address, infer_batch=1, api_queue=0)) as engine:
        answer = engine.complete([5], Sampling(100))
        next(answer)
        with pytest.raises(Full):
            engine.complete([5], Sampling(100))
        time.sleep(0.5)  # all buffers are full by then
        answer.close()
        assert server.left.wait(10)
        next(engine.complete([5], Sampling(100)))


@pytest.mark.parametrize("says, error, said", [
    ([429], Full, "7 s"), ([500], Problem, "500"),
    ([{"error": {"message": "out of memory"}}], Problem, "out of memory"),
    ([b"no JSON at all"], Problem, "vLLM"), ([{"choices": []}], Problem, "has ended before")])
def test_what_a_server_refuses_is_told(small: Path, says: list[Any], error: type[Exception], said: str) -> None:
    with standing(lambda body: iter(says)) as (_, address), closing(engine_of(
            small, infer_backend="vllm", infer_endpoint=address)) as engine:
        assert isinstance(engine.generator, Remote)
        with pytest.raises(error, match=said):
            list(engine.complete([5], Sampling(9)))
        assert engine.generator.running == 0


# ---------------------------------------------------------------------------------------------------------------------
# How they are started

def command(backend: str, *words: str, adapters: Mapping[str, Path] | None = None, devices: int = 1) -> list[str]:
    config, findings = read_config(list(words))
    assert not findings
    made = BACKENDS[backend].command
    assert made
    return made(config, Path("folder"), adapters or {}, 4000, "key", devices)


def test_the_command_line_of_vllm() -> None:
    words = command("vllm", "--vllm_maxlen=2048", "--vllm_gpu_util=0.5", "--vllm_enforce_eager=true",
                    "--vllm_max_lora_rank=64", "--infer_dtype=bfloat16", "--infer_batch=16",
                    '--vllm_config={"swap_space": 2, "enable_prefix_caching": false, "override": {"a": 1}}',
                    adapters={"default": Path("a"), "other": Path("b")}, devices=2)
    assert words == [
        "vllm", "serve", "folder", "--host", "127.0.0.1", "--port", "4000", "--served-model-name", "base",
        "--generation-config", "vllm", "--max-model-len", "2048", "--gpu-memory-utilization", "0.5", "--dtype",
        "bfloat16", "--max-num-seqs", "16", "--enforce-eager", "--tensor-parallel-size", "2", "--enable-lora",
        "--max-lora-rank", "64", "--max-loras", "2", "--lora-modules", "default=a", "other=b", "--swap-space", "2",
        "--no-enable-prefix-caching", "--override", '{"a": 1}']
    assert BACKENDS["vllm"].environment("key") == {"VLLM_API_KEY": "key"}


def test_the_command_line_of_sglang() -> None:
    words = command("sglang", "--sglang_mem_fraction=0.6", "--infer_maxlen=1000", "--sglang_lora_backend=flashinfer",
                    "--sglang_config={log_level: error}", adapters={"other": Path("b")}, devices=4)
    assert words == [
        sys.executable, "-m", "sglang.launch_server", "--model-path", "folder", "--host", "127.0.0.1", "--port", "4000",
        "--api-key", "key", "--context-length", "1000", "--mem-fraction-static", "0.6", "--tp-size", "4", "--dtype",
        "auto", "--max-running-requests", "8", "--max-loras-per-batch", "2", "--lora-backend", "flashinfer",
        "--lora-paths", "other=b", "--log-level", "error"]
    assert (found := command("sglang", "--sglang_tp_size=2", devices=4))[found.index("--tp-size") + 1] == "2"


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_a_server_that_is_not_installed_is_named(small: Path, backend: str) -> None:
    with pytest.raises(Problem, match=r"pip install .*infer_endpoint"):
        engine_of(small, infer_backend=backend)


def test_a_started_server_is_waited_for_and_ended(tmp_path: Path) -> None:
    """A process that answers /health after a while; one that ends at once tells its last words."""
    port = free_port()
    script = ("import http.server, sys, time\ntime.sleep(0.3)\n"
              "class H(http.server.BaseHTTPRequestHandler):\n"
              "    def do_GET(self): self.send_response(200); self.end_headers()\n"
              f"http.server.HTTPServer(('127.0.0.1', {port}), H).serve_forever()\n")
    started = Started([sys.executable, "-c", script], "it", port, "key", {})
    assert started._process.poll() is None
    started.close()
    assert started._process.poll() is not None
    with pytest.raises(Problem, match="it has ended: ValueError: no CUDA error here"):
        Started([sys.executable, "-c", "raise ValueError('no CUDA error here')"], "it", port, "key", {})
    with pytest.raises(Problem, match="it does not answer"):
        Started([sys.executable, "-c", "import time; time.sleep(60)"], "it", port, "key", {}, wait=0.5)


@pytest.mark.parametrize("rank, limit, refused", [(64, 32, True), (16, 32, False)])
def test_an_adapter_beyond_vllms_rank_is_refused(small: Path, tmp_path: Path, rank: int, limit: int, refused: bool):
    settings = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": "m"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(Problem, match=f"rank {rank}" if refused else "is not installed"):
        engine_of(small, infer_backend="vllm", adapter_name_or_path=tmp_path, vllm_max_lora_rank=limit)


def test_an_adapter_that_is_no_gguf_is_refused_with_one(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="export_adapter_only"):
        engine_of(exported, infer_backend="llamacpp", infer_adapters=json.dumps({"one": str(tmp_path)}))


