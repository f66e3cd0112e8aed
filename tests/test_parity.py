"""Whether two places serve the same model. Every gate is shown to catch what it is there for: a changed template, a
beginning-of-text token added, a stop id lost, another tokenizer, a changed weight, a template that never ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from conftest import options
from safetensors.torch import load_file, save_file

from truetune.cli import main
from truetune.data.renderer import Renderer
from truetune.data.template import make_renderer, settle_template
from truetune.export.gguf import write_gguf
from truetune.findings import Problem
from truetune.model.find import load_tokenizer
from truetune.model.load import load_model
from truetune.options.read import read_config
from truetune.parity.compare import Compared, compare
from truetune.parity.gate import Served, prove
from truetune.parity.layers import Gguf, Saved, Trained
from truetune.parity.logits import Bound, distance
from truetune.parity.probes import PROBES, injection
from truetune.parity.tame import require_tame
from truetune.serve.llamacpp import LlamaCpp


@pytest.fixture(scope="module")
def gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two-layer model as f16 in a GGUF file."""
    file = tmp_path_factory.mktemp("gguf") / "tiny-F16.gguf"
    write_gguf(tiny, file, "f16", say=lambda words: None)
    return file


@pytest.fixture(scope="module")
def engine(gguf: Path) -> Iterator[LlamaCpp]:
    with LlamaCpp(gguf, context=2048) as engine:
        yield engine


def renderer_of(folder: Path, **more: object) -> Renderer:
    """The renderer of a run on the model in `folder`."""
    config, _ = read_config(options(model_name_or_path=folder, **more))
    tokenizer = load_tokenizer(folder)
    settle_template(tokenizer, config)
    return make_renderer(tokenizer, folder, config)


def changed(tiny: Path, target: Path, file: str, change: Callable[[str], str]) -> Path:
    """A copy of the tiny model without its weights, one of its files rewritten."""
    target.mkdir()
    for each in tiny.iterdir():
        if each.suffix in (".json", ".jinja"):
            shutil.copy(each, target)
    (target / file).write_text(change((target / file).read_text(encoding="utf-8")), encoding="utf-8")
    return target


def first_of(found: list[Compared]) -> tuple[str, str]:
    """The kind of the first difference, and what is said of it."""
    difference = found[0].differences[0]
    return difference.kind, difference.words().en


def test_the_saved_tokenizer_and_llamacpp_give_the_ids_of_training(tiny: Path, engine: LlamaCpp) -> None:
    """All probes, in transformers and in real llama.cpp. What a user types that looks like a special token is text in
    training and a token in servers that are given text: that is told as a limit, and nothing else is one here but
    conversations that this template cannot write."""
    truth = Trained(renderer_of(tiny))
    for found in compare(truth, [Saved(tiny), Gguf(engine)]):
        assert found.same and found.ends and found.count("same") == 16
        assert {row.probe: row.limit for row in found.rows if row.verdict == "limit"} == {
            "typed special tokens": "typed", "tools offered": "unlearned", "tool call and result": "unlearned",
            "parallel calls": "unlearned"}
        refused = [row.probe for row in found.rows if row.verdict == "refused"]
        assert refused == ["thinking on", "thinking off"]  # SmolLM2 has no such switch
    typed = truth.prompt(injection(truth.specials))
    assert typed.count(2) == 2  # the ends of the system text and of the user's turn, not what the user typed
    assert Saved(tiny).prompt(injection(truth.specials)).count(2) == 3


def test_llamacpp_chats_with_the_ids_that_are_compared(engine: LlamaCpp) -> None:
    """What is compared is what the chat endpoint itself feeds to the model: as many tokens."""
    for probe in (PROBES[0], PROBES[3], PROBES[11]):
        answer = engine.ask("/v1/chat/completions", {"messages": list(probe.messages), "max_tokens": 1})
        assert answer["usage"]["prompt_tokens"] == len(Gguf(engine).prompt(probe))


def test_a_changed_template_is_caught(tiny: Path, tmp_path: Path) -> None:
    """A colon more before the answer: the first token that differs is named, with its text and its probe."""
    folder = changed(tiny, tmp_path / "m", "chat_template.jinja",
                     lambda text: text.replace("<|im_start|>assistant", "<|im_start|>assistant:"))
    kind, said = first_of(compare(Trained(renderer_of(tiny)), [Saved(folder)]))
    assert kind == "template" and said.startswith("transformers, 'single turn', token 35: 198 '\\n' became ")
    assert said.endswith("another chat template")


def test_another_default_of_thinking_is_caught_and_kept_in_llamacpp(tiny: Path, tmp_path: Path) -> None:
    """A model trained without thoughts (enable_thinking: false) is asked for none: llama.cpp switches thinking on in
    every template that can think, so the GGUF file's template keeps to what was trained."""
    renderer = renderer_of(tiny, template="qwen3", enable_thinking=False)
    folder = changed(tiny, tmp_path / "m", "config.json", str)
    renderer.tokenizer.save_pretrained(folder)
    shutil.copy(tiny / "model.safetensors", folder)
    write_gguf(folder, tmp_path / "m.gguf", "q8_0", say=lambda words: None)
    with LlamaCpp(tmp_path / "m.gguf", context=2048) as engine:
        (found,) = compare(Trained(renderer), [Gguf(engine)])
    assert found.same and found.count("same") == 20  # tools too: this template knows them
    assert [row.probe for row in found.rows if row.limit == "fixed"] == ["thinking on"]


def test_an_added_beginning_of_text_is_caught(tiny: Path, tmp_path: Path) -> None:
    """BOS twice: the template writes it, and somebody adds it again."""
    folder = changed(tiny, tmp_path / "m", "chat_template.jinja", lambda text: "{{ bos_token }}" + text)
    kind, said = first_of(compare(Trained(renderer_of(tiny)), [Saved(folder)]))
    assert kind == "bos" and "2 beginning-of-text tokens instead of 1" in said and "adds it" in said


def test_a_lost_stop_id_is_caught(tiny: Path, tmp_path: Path) -> None:
    """generation_config.json forgets the end of the turn: answers would never stop."""
    folder = changed(tiny, tmp_path / "m", "generation_config.json", lambda text: '{"eos_token_id": 0}')
    kind, said = first_of(compare(Trained(renderer_of(tiny)), [Saved(folder)]))
    assert kind == "stops" and "2 '<|im_end|>' ends an answer in training and not here" in said


def test_another_pre_tokenizer_is_caught(tiny: Path, tmp_path: Path) -> None:
    """Digits are no longer taken one by one before merging: the text is the same and the tokens are not."""

    def joined(text: str) -> str:
        told = json.loads(text)
        steps = told["pre_tokenizer"]["pretokenizers"]
        told["pre_tokenizer"]["pretokenizers"] = [step for step in steps if step["type"] != "Digits"]
        return json.dumps(told)

    folder = changed(tiny, tmp_path / "m", "tokenizer.json", joined)
    kind, said = first_of(compare(Trained(renderer_of(tiny)), [Saved(folder)]))
    assert kind == "tokens" and "another tokenizer" in said


def test_a_changed_weight_is_caught(tiny: Path, gguf: Path, tmp_path: Path) -> None:
    """One matrix of one layer is not what was trained: the tokens are right, the probabilities are not."""
    load = partial(load_model, tiny, torch.float32, torch.device("cpu"))
    right = prove(renderer_of(tiny), Served(load, 32, ggufs={"f16": gguf}), lambda words: None)
    assert right.status == "passed" and right.distances[0].kl < 1e-3 and right.distances[0].positions == 64
    shutil.copytree(tiny, tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 1.2
    save_file(weights, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    other = partial(load_model, tmp_path / "other", torch.float32, torch.device("cpu"))
    wrong = prove(renderer_of(tiny), Served(other, 32, ggufs={"f16": gguf}), lambda words: None)
    assert wrong.status == "failed" and wrong.first and wrong.first.kind == "logits"
    assert "mean KL" in wrong.first.words().en
    told = wrong.as_dict()
    assert told["status"] == "failed" and told["first_difference"]["layer"] == "llama.cpp f16"
    assert json.loads(json.dumps(told))["layers"][0]["same"] is True


def test_distance_by_hand() -> None:
    """Two words at p = (1/2, 1/2) against (3/4, 1/4): KL = ln 2 - ln(3)/2 = 0.1438. A server that tells only its
    likeliest word leaves the other as the rest, which says the same here."""
    base, form = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
    whole = distance("form", form, "base", base, Bound(0.1, 0.9))
    assert whole.kl == pytest.approx(np.log(2) - np.log(3) / 2) and whole.largest == pytest.approx(np.log(2))
    assert not whole.near
    told = distance("form", np.array([[np.log(0.75), -np.inf]]), "base", base, Bound(0.2, 0.9))
    assert told.kl == pytest.approx(whole.kl) and told.near


@pytest.mark.parametrize(("template", "said"), [
    ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "does not come to an end"),
    ("{{ 'a' * 9999999999 }}", "takes more memory"),
    ("{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}", "writes more text"),
])
def test_hostile_templates_are_stopped(template: str, said: str) -> None:
    """A template comes with a model, and a model comes from anywhere."""
    with pytest.raises(Problem, match=said):
        require_tame(template, {}, "m", seconds=2)


def test_real_templates_are_tame(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    require_tame(str(tokenizer.chat_template), tokenizer.special_tokens_map, "m")


def test_two_places_from_the_command_line(tiny: Path, gguf: Path, engine: LlamaCpp, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    """A folder and its GGUF file are the same model (exit status 0), and so is a running llama.cpp; a folder with
    another template is not (1), and the difference is named. `--json` tells it to programs."""
    assert main(["parity", str(tiny), str(gguf)]) == 0
    assert "Proven" in capsys.readouterr().out
    other = changed(tiny, tmp_path / "m", "chat_template.jinja", lambda text: text.replace("SmolLM", "BigLM"))
    shutil.copy(tiny / "model.safetensors", other)
    assert main(["parity", engine.address, str(other), f"--api_key={engine.key}", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "different" and told["first_difference"]["kind"] == "template"
    assert told["first_difference"]["probe"] == "single turn" and told["logits"][0]["near"] is True
    assert main(["parity", str(tiny)]) == 2
    assert "two places" in capsys.readouterr().err


class _Counts(BaseHTTPRequestHandler):
    """An OpenAI-style server that tells nothing but how many tokens it has read."""

    renderer: Renderer
    extra = 0

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "m"}]} if self.path == "/v1/models" else None)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self._answer(None)
        ids = self.renderer.prompt(asked["messages"], asked.get("tools", ()))
        self._answer({"usage": {"prompt_tokens": len(ids) + self.extra}})

    def _answer(self, told: Any) -> None:
        self.send_response(200 if told else 404)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize(("extra", "status"), [(0, 0), (1, 1)])
def test_an_endpoint_that_only_counts(tiny: Path, extra: int, status: int,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    """Of a server that tells no ids, the number of tokens it has read is compared; what could not be, is said."""
    handler = type("Handler", (_Counts,), {"renderer": renderer_of(tiny), "extra": extra})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert main(["parity", str(tiny), f"http://127.0.0.1:{server.server_port}/v1"]) == status
    finally:
        server.shutdown()
        server.server_close()
    shown = capsys.readouterr().out
    assert "only how many there are" in shown and "Not compared: probabilities" in shown
    assert ("a beginning-of-text token more or less" in shown) == bool(extra)
