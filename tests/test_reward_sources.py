"""What judges the answers of PPO: reward adapters, reward models and servers, and what happens when they fail."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import events, options, write_rows
from safetensors.torch import load_file

from truetune.check.preflight import preflight
from truetune.data.messages import Conversation, Message
from truetune.data.renderer import Rendered, Run
from truetune.findings import Problem
from truetune.model.base import load_base
from truetune.model.load import load_model
from truetune.model.methods import METHODS
from truetune.model.policy import Policy
from truetune.model.quantize import coded
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.rollout.rewards import Answered, Unscored, endpoint
from truetune.rollout.rewards.endpoint import Endpoint
from truetune.rollout.rewards.model import reward_model
from truetune.train import train

FAST = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "ppo_buffer_size": 2, "ppo_epochs": 1,
        "max_completion_length": 6, "lora_rank": 4, "use_cpu": True, "bf16": "false", "logging_steps": 1,
        "lr_scheduler_type": "constant", "learning_rate": 1e-3}


def quiet(words: object) -> None:
    """Nobody listens."""


def run(folder: Path, model: Path, data: Path, **more: object) -> None:
    """Train in this process."""
    config, _ = read_config(options(model_name_or_path=model, dataset=data, output_dir=folder, **{**FAST, **more}))
    train(config, Terminal(file=io.StringIO(), soft_wrap=True, width=200), checked=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All that was trained, and the value head."""
    files = [*folder.glob("adapter_model.safetensors"), *folder.glob("model.safetensors"),
             *folder.glob("value_head.safetensors")]
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


# -- a real server

class Handler(BaseHTTPRequestHandler):
    """Answers as its server's `reply` says, and keeps what it was asked."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.asked.append(asked)
        status, body = server.reply(asked["messages"])
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:9/")  # of interest to a redirection only
        self.end_headers()
        try:
            for piece in body if isinstance(body, list) else [body]:
                self.wfile.write(piece)
                if isinstance(body, list):
                    time.sleep(0.05)
        except OSError:  # whoever asked has gone
            pass

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@contextmanager
def serving(reply: Callable[[list[str]], tuple[int, bytes | list[bytes]]]) -> Iterator[Any]:
    """A server on this machine; `.url` is its address, `.asked` what it was asked."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.reply, server.asked, server.url = reply, [], f"http://127.0.0.1:{server.server_port}/score"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def scored(texts: list[str]) -> tuple[int, bytes]:
    """A sensible answer: how many letters e a text has."""
    return 200, json.dumps({"scores": [text.count("e") for text in texts]}).encode()


def test_a_server_is_asked_as_llama_factory_asks_it() -> None:
    """POST {"model": "model", "messages": [...]}, answered by {"scores": [...]}."""
    with serving(scored) as server:
        assert Endpoint(server.url).score(["eel", "cat", "été e"]) == [2.0, 0.0, 1.0]
        assert server.asked == [{"model": "model", "messages": ["eel", "cat", "été e"]}]


def test_a_server_that_fails_for_a_moment_is_asked_again() -> None:
    replies = iter([(503, b"busy"), (200, b"not json"), scored(["eel"])])
    with serving(lambda texts: next(replies)) as server:
        assert Endpoint(server.url, pauses=(0, 0, 0)).score(["eel"]) == [2.0]
        assert len(server.asked) == 3


NONSENSE = {
    "an error": ((500, b"boom"), "it answers 500 Internal Server Error"),
    "a redirection": ((302, b""), "it answers 302 Found"),
    "not JSON": ((200, b"<html>"), "its answer is not JSON: '<html>'"),
    "not text": ((200, b"\xff\xfe"), "its answer is not JSON"),
    "nothing": ((200, b""), "its answer is not JSON: ''"),
    "a list": ((200, b"[1, 2]"), "its answer has no list `scores`"),
    "no list": ((200, b'{"scores": 1}'), "its answer has no list `scores`"),
    "too few": ((200, b'{"scores": [1]}'), "it gave 1 scores for 2 texts"),
    "words": ((200, b'{"scores": [1, "good"]}'), "score 1 is good, not a finite number"),
    "a truth": ((200, b'{"scores": [true, 1]}'), "score 0 is True, not a finite number"),
    "not a number": ((200, b'{"scores": [NaN, 1]}'), "score 0 is nan, not a finite number"),
    "infinite": ((200, b'{"scores": [1, 1e999]}'), "score 1 is inf, not a finite number"),
    "too large": ((200, b'{"scores": [1, 1' + b"0" * 400 + b"]}"), "score 1 is inf, not a finite number"),
    "a tower": ((200, b"[" * 100_000), "its answer is not JSON"),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_server_that_answers_nonsense(kind: str) -> None:
    """It is asked twice here, then what it said is told."""
    reply, told = NONSENSE[kind]
    with serving(lambda texts: reply) as server:
        with pytest.raises(Unscored) as stopped:
            Endpoint(server.url, where="run.yaml:7", pauses=(0,)).score(["a", "b"])
        assert len(server.asked) == 2
        line = str(stopped.value)
        assert line.startswith(f"error  reward_model (run.yaml:7): the reward server {server.url} gave no scores, "
                               f"asked 2 times: {told}")


def test_a_server_that_is_down_or_slow() -> None:
    """Nobody listens; nothing comes; or a little now and then, without an end."""
    with serving(scored) as server:
        gone = server.url
    with pytest.raises(Unscored, match="it cannot be reached"):
        Endpoint(gone, pauses=(0,)).score(["a"])
    wake = threading.Event()
    with serving(lambda texts: (wake.wait(5), (200, b""))[1]) as server:
        with pytest.raises(Unscored, match=r"no answer within 0\.2 s"):
            Endpoint(server.url, timeout=0.2, pauses=()).score(["a"])
        wake.set()
    with serving(lambda texts: (200, [b" "] * 20)) as server, pytest.raises(Unscored, match=r"no answer within 0\.2 s"):
        Endpoint(server.url, timeout=0.2, pauses=()).score(["a"])


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/x", "gopher://host"])
def test_only_http_is_spoken(url: str) -> None:
    with pytest.raises(Problem, match="begins with http"):
        Endpoint(url)


# -- reward models

@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.json", 8)


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What stage rm writes, after a step: with LoRA an adapter, in full a model."""
    folder = tmp_path_factory.mktemp("rm")
    pairs = [{"instruction": f"Question {n}?", "chosen": f"A good answer {n}.", "rejected": "No."} for n in range(4)]
    data = folder / "pairs.json"
    data.write_text(json.dumps(pairs), encoding="utf-8")
    kept = {}
    for kind in ("lora", "full"):
        kept[kind] = folder / kind
        run(kept[kind], tiny, data, stage="rm", finetuning_type=kind, max_steps=1, learning_rate=1e-2)
    return kept


def policy_of(tiny: Path, data: Path, method: str = "lora", **more: object) -> tuple[Any, Any, Policy]:
    """A run's configuration, rows and policy, as a session makes them."""
    config, _ = read_config(options(model_name_or_path=tiny, dataset=data, output_dir="unused", stage="ppo",
                                    finetuning_type=method, lora_rank=4, **more))
    ready = preflight(config, quiet)
    causal = load_model(ready.base, torch.float32, torch.device("cpu"))
    METHODS[method].prepare(causal, config, ready.base)
    return config, ready, Policy(causal)


def answered(ready: Any, *texts: str, ended: bool = True) -> Answered:
    """Answers to the first prompts of the data, as the policy would have written them."""
    rows, prompts = [], []
    tokenizer = ready.renderer.tokenizer
    for number, text in enumerate(texts):
        prompts.append([{"role": "user", "content": f"Question {number}?"}])
        asked = ready.renderer.prompt(prompts[-1])
        said = tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] * ended
        rows.append(Rendered(torch.tensor(asked + said).numpy(), (Run(len(asked), len(asked) + len(said), 1.0),)))
    return Answered(prompts, [[{"role": "assistant", "content": text}] for text in texts], list(texts),
                    [row.ids.tolist() for row in rows], rows, [""] * len(texts), {})


def by_hand(causal: Any, folder: Path, ids: list[int]) -> float:
    """The score as the definition says: the value head at the last token, in plain transformers."""
    head = load_file(folder / "value_head.safetensors")
    with torch.no_grad():
        hidden = causal(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]
    return float(hidden @ head["v_head.summary.weight"][0] + head["v_head.summary.bias"][0])


TEXTS = ("A good answer 1.", "No.", "Something else, which is longer than the others.")


def rendered(ready: Any, texts: tuple[str, ...]) -> list[list[int]]:
    """The ids of conversations that end with these answers, as stage rm trains on them."""
    talks = [Conversation((Message("user", f"Question {number}?"), Message("assistant", text)))
             for number, text in enumerate(texts)]
    return [sequences[-1].ids.tolist() for sequences in ready.renderer.render(talks)]


def test_an_adapter_scores_on_the_policys_own_base(tiny: Path, rows: Path, trained: dict[str, Path]) -> None:
    """Scores are those of plain transformers and PEFT on the conversations as stage rm renders them, while the frozen
    weights are held once, the policy's adapter takes no part, and the policy is as it was."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config, ready, policy = policy_of(tiny, rows)
    for name, weight in policy.causal.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)  # an adapter that changes a lot
    known = answered(ready, *TEXTS)
    before = policy.log_probabilities(policy.lay_out(known.rows))
    judge: Any = reward_model(str(trained["lora"]), config, ready, policy, quiet)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), trained["lora"])
    expected = [by_hand(plain, trained["lora"], ids) for ids in rendered(ready, TEXTS)]
    assert judge(known) == pytest.approx(expected, abs=1e-4)
    assert len(set(judge(known))) == 3
    own = dict(judge.policy.causal.named_parameters())
    shared = [name for name, weight in policy.causal.named_parameters() if not weight.requires_grad]
    assert shared and all(own[name].data_ptr() == policy.causal.get_parameter(name).data_ptr() for name in shared)
    assert torch.equal(policy.log_probabilities(policy.lay_out(known.rows)), before)
    assert judge.name == "reward_model"


def test_an_adapter_keeps_its_base_where_the_policy_trains_its_own(tiny: Path, rows: Path,
                                                                   trained: dict[str, Path]) -> None:
    """In full tuning nothing is shared: the policy moves, the scores stay."""
    config, ready, policy = policy_of(tiny, rows, "full")
    judge, known = reward_model(str(trained["lora"]), config, ready, policy, quiet), answered(ready, *TEXTS)
    before = judge(known)
    with torch.no_grad():
        for weight in policy.causal.parameters():
            weight.mul_(1.1)
    assert judge(known) == before


def test_a_cut_answer_is_scored_where_it_was_cut(tiny: Path, rows: Path, trained: dict[str, Path]) -> None:
    """Nothing is written behind an answer that has not ended."""
    from transformers import AutoModelForCausalLM

    config, ready, policy = policy_of(tiny, rows)
    judge = reward_model(str(trained["full"]), config, ready, policy, quiet)
    known = answered(ready, "Something without an", ended=False)
    plain = AutoModelForCausalLM.from_pretrained(trained["full"])
    assert judge(known) == pytest.approx([by_hand(plain, trained["full"], known.rows[0].ids.tolist())], abs=1e-4)


def test_a_whole_reward_model_and_its_adapter(tiny: Path, rows: Path, trained: dict[str, Path]) -> None:
    """A model of its own scores as plain transformers; a base with `reward_model_adapters` as the adapter on it."""
    from transformers import AutoModelForCausalLM

    config, ready, policy = policy_of(tiny, rows, reward_model_adapters=trained["lora"])
    known = answered(ready, *TEXTS)
    on_base, adapter = (reward_model(str(path), config, ready, policy, quiet) for path in (tiny, trained["lora"]))
    assert on_base(known) == pytest.approx(list(adapter(known)), abs=1e-5)
    config, ready, policy = policy_of(tiny, rows)
    said: list[object] = []
    judge = reward_model(str(trained["full"]), config, ready, policy, said.append)
    plain = AutoModelForCausalLM.from_pretrained(trained["full"])
    expected = [by_hand(plain, trained["full"], ids) for ids in rendered(ready, TEXTS)]
    assert judge(known) == pytest.approx(expected, abs=1e-4)
    assert "is held beside the policy: 0.1 GB" in str(said[0])


def test_a_reward_model_with_a_template_of_its_own_reads_in_it(tiny: Path, rows: Path, trained: dict[str, Path],
                                                             tmp_path: Path) -> None:
    """The same messages, in the words it was trained on."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    other = tmp_path / "other"
    shutil.copytree(trained["full"], other, ignore=shutil.ignore_patterns("checkpoint-*"))
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template = ("{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>"
                               "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}")
    tokenizer.save_pretrained(other)
    config, ready, policy = policy_of(tiny, rows)
    judge = reward_model(str(other), config, ready, policy, quiet)
    plain, known = AutoModelForCausalLM.from_pretrained(other), answered(ready, *TEXTS)
    texts = [f"<|im_start|>user: Question {number}?<|im_end|><|im_start|>assistant: {text}<|im_end|>"
             for number, text in enumerate(TEXTS)]
    expected = [by_hand(plain, other, tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    assert judge(known) == pytest.approx(expected, abs=1e-4)


def test_what_does_not_score_is_refused(tiny: Path, rows: Path, trained: dict[str, Path], tmp_path: Path) -> None:
    """A model without a value head, a folder that is no model, an adapter of another base: named with their option."""
    config, ready, policy = policy_of(tiny, rows)
    with pytest.raises(Problem, match=r"reward_model: .* has no value_head\.safetensors"):
        reward_model(str(tiny), config, ready, policy, quiet)
    with pytest.raises(Problem, match="reward_model: there is no folder"):
        reward_model(str(tmp_path / "absent"), config, ready, policy, quiet)
    config, ready, policy = policy_of(trained["full"], rows)
    with pytest.raises(Problem, match=r"reward_model: .* was trained on"):
        reward_model(str(trained["lora"]), config, ready, policy, quiet)


# -- whole runs

@pytest.mark.parametrize(("method", "kind"), [("lora", "lora"), ("full", "lora"), ("freeze", "full")])
def test_everything_that_is_trained_moves(tiny: Path, rows: Path, trained: dict[str, Path], tmp_path: Path, method: str,
                                          kind: str) -> None:
    """With each method, the value head too; what is frozen stays."""
    folder = tmp_path / "run"
    run(folder, tiny, rows, stage="ppo", finetuning_type=method, freeze_trainable_layers=1, reward_model=trained[kind],
        reward_model_type=kind, max_steps=2, save_strategy="steps", save_steps=1, ppo_kl_coef=0.5)
    first, last, base = weights(folder / "checkpoint-1"), weights(folder), load_file(tiny / "model.safetensors")
    expected = {name for name in last if name.startswith("v_head.") or method != "freeze" or "layers.1." in name}
    assert {name for name in last if not torch.equal(first[name], last[name])} == expected
    assert len(expected) > 2
    assert all(torch.equal(base[name], last[name]) for name in last.keys() - expected)
    assert events(folder)[0]["kl"] == pytest.approx(0, abs=1e-4)

def test_a_server_reads_what_the_model_reads(tiny: Path, rows: Path, tmp_path: Path) -> None:
    """Whole conversations with their special tokens; and the reward of the log, and of held-out prompts, is what it
    said."""
    with serving(scored) as server:
        run(tmp_path / "run", tiny, rows, stage="ppo", reward_model=server.url, max_steps=2, val_size=2,
            eval_strategy="steps", eval_steps=2, save_strategy="no")
    assert all(text.startswith("<|im_start|>system\n") and "<|im_start|>user\nQuestion" in text
               for asked in server.asked for text in asked["messages"])
    written, measured = server.asked
    assert (len(written["messages"]), len(measured["messages"])) == (4, 2)
    means = [sum(map(float, json.loads(scored(asked["messages"])[1])["scores"])) / len(asked["messages"])
             for asked in server.asked]
    assert events(tmp_path / "run")[0]["reward"] == pytest.approx(means[0])
    (evaluation,) = events(tmp_path / "run", "eval")
    assert evaluation["eval_reward"] == pytest.approx(means[1]) == -evaluation["eval_loss"]


class Mortal:
    """A server's reply that fails from the call number `dies` on."""

    def __init__(self, dies: int):
        self.left = dies

    def __call__(self, texts: list[str]) -> tuple[int, bytes]:
        self.left -= 1
        return scored(texts) if self.left >= 0 else (500, b"")


def test_a_server_that_dies_costs_nothing(tiny: Path, rows: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails when the second round is to be scored: the run stops with a checkpoint after the two steps of the first
    one. Going on once it is there again gives the weights of a run that was never stopped, bit for bit."""
    monkeypatch.setattr(endpoint, "PAUSES", (0.0,))
    settings: dict[str, object] = {"stage": "ppo", "max_steps": 4, "save_strategy": "no", "ppo_score_norm": "true"}
    with serving(scored) as server:
        run(tmp_path / "whole", tiny, rows, reward_model=server.url, **settings)
        server.reply = Mortal(1)
        with pytest.raises(Unscored, match="it answers 500"):
            run(tmp_path / "parts", tiny, rows, reward_model=server.url, **settings)
        assert [path.name for path in (tmp_path / "parts").glob("checkpoint-*")] == ["checkpoint-2"]
        server.reply = scored
        run(tmp_path / "parts", tiny, rows, reward_model=server.url, resume_from_checkpoint="true", **settings)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_reward_models_in_codes(tiny: Path, rows: Path, trained: dict[str, Path]) -> None:
    """A reward adapter shares the codes of the policy's base: each layer is held once. A whole reward model in 8 bits
    gives nearly the scores of the whole one; in 4 bits, others."""
    config, ready, _ = policy_of(tiny, rows, quantization_bit=4)
    causal = load_base(ready.base, config, torch.float32, torch.device("cpu"))
    METHODS["lora"].prepare(causal, config, ready.base)
    policy, known = Policy(causal), answered(ready, *TEXTS)
    judge: Any = reward_model(str(trained["lora"]), config, ready, policy, quiet)
    mine, its = (dict(coded(model)) for model in (causal, judge.policy.causal))
    assert mine.keys() == its.keys() and all(mine[name] is its[name] for name in mine)
    scores = {bits: reward_model(str(trained["full"]), config.with_values("test", reward_model_quantization_bit=bits),
                                 ready, policy, quiet)(known) for bits in (None, 8, 4)}
    assert scores[8] == pytest.approx(scores[None], rel=0.1)
    assert scores[4] != pytest.approx(scores[None], rel=1e-3)
