"""What is said of a run while it goes and after it: warning signs on real curves, the same questions before and after,
the verdict and the report.

`curves.json` holds the logs of real runs, what each was in its `what`. Everything else is trained here, on a two-layer
cut of the real model.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import events, options, write_rows

from truetune.check.preflight import Preflight, preflight
from truetune.data.batches import collate
from truetune.model.load import load_model
from truetune.model.policy import Policy
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.review.probes import MOST_TOKENS, Probe, ask_before, read_probes, retention
from truetune.review.report import write_report
from truetune.review.rows import RowLosses, row_losses
from truetune.review.signs import Signs, falls, short
from truetune.review.verdict import Numbers, judge
from truetune.run import read_state
from truetune.train import train

HOSTILE = "<script>alert(1)</script> | `rm` **x** [a](b)\n| --- |"
"""What no page may take for its own."""


def settings(folder: Path, model: Path, data: Path, **more: object) -> dict[str, object]:
    return {"model_name_or_path": model, "dataset": data, "output_dir": folder, "bf16": "false", "logging_steps": 1,
            "save_strategy": "no", "learning_rate": 3e-3, "lr_scheduler_type": "constant", "use_cpu": True,
            "per_device_train_batch_size": 4, "before_after": False, "plot_loss": False, **more}


def run(folder: Path, model: Path, data: Path, chinese: bool = False, **more: Any) -> str:
    """Train in this process; returns what the console showed."""
    config, findings = read_config(options(**settings(folder, model, data, **more)))
    assert not findings
    said = io.StringIO()
    train(config, Terminal(chinese, file=said, soft_wrap=True, width=200), checked=False)
    return said.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 rows that are alike, and one with a wrong answer that is also hostile to pages."""
    path = write_rows(tmp_path_factory.mktemp("data") / "rows.json", 20)
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows.append({"instruction": "Question 20?", "input": "", "output": HOSTILE})
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 64 numbers a token that knows nothing: for what has nothing to do with what it says."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("small")
    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def asked(tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with everything on, and what it printed."""
    folder = tmp_path_factory.mktemp("asked") / "run"
    said = run(folder, tiny, data, before_after=True, plot_loss=True, val_size=3, eval_strategy="epoch", save_steps=5,
               save_strategy="steps", num_train_epochs=4, lora_dropout=0.1, probe_prompts=f"Who are you?,{HOSTILE}")
    return folder, said


# Signs, while it goes.

CURVES: dict[str, Any] = json.loads((Path(__file__).parent / "curves.json").read_text(encoding="utf-8"))


def log_of(name: str) -> Iterator[dict[str, Any]]:
    """A recorded curve as the events it was."""
    curve = CURVES[name]
    evaluations, total = dict(curve["evaluations"]), len(curve["loss"])
    for step, values in enumerate(zip(curve["loss"], curve["grad_norm"], curve["rates"], strict=True), start=1):
        told = {"step": step, "total_steps": total, "epoch": round(step / curve["steps_per_epoch"], 4)}
        yield {"event": "step", **told, **dict(zip(("loss", "grad_norm", "learning_rate"), values, strict=True))}
        if step in evaluations:
            yield {"event": "eval", **told, "eval_loss": evaluations[step]}


def signs_of(name: str, max_grad_norm: float = 1.0) -> Signs:
    return Signs(CURVES[name]["learning_rate"], 5e-4, max_grad_norm)


SEEN = {
    "rate-1e-7": {"flat": "learning_rate: 5e-4 (now 1e-7)"},
    "rate-3": {"diverging": "learning_rate: 5e-4 (now 3)", "explosion": "max_grad_norm cut it to 1"},
    "thirty-epochs": {"overfit": "num_train_epochs: 17"},
    "six-epochs": {"by-heart": "num_train_epochs: 2"},
    "a-row-of-noise": {"spike": "learning_rate: 3.3e-4"},
}
"""Curves that have signs, and a part of the fix that each names."""


@pytest.mark.parametrize("name", CURVES)
def test_each_sign_is_said_once_and_no_other(name: str) -> None:
    """Runs that went wrong say why, once, with an option to change; ordinary ones (LoRA at two rates, full, one row a
    step, few rows that differ much) say nothing at all."""
    signs, said = signs_of(name), {}
    for event in log_of(name):
        for sign in signs.see(event):
            assert sign.kind not in said, "once"
            said[sign.kind] = sign.words
    assert said.keys() == SEEN.get(name, {}).keys()
    for kind, words in said.items():
        assert SEEN[name][kind] in words.en and "\n" not in words.en
        option = SEEN[name][kind].split(":")[0].split(" ")[0]
        assert option in words.zh and re.search("[\u4e00-\u9fff]", words.zh)


def test_not_learning_is_known_after_a_third_of_the_run() -> None:
    signs = signs_of("rate-1e-7").replay(log_of("rate-1e-7"))
    assert [sign.step for sign in signs.seen] == [len(CURVES["rate-1e-7"]["loss"]) // 3]


def test_every_spike_is_kept_although_one_is_said() -> None:
    seen = signs_of("a-row-of-noise").replay(log_of("a-row-of-noise")).seen
    assert len(seen) == 2 and seen[0].value > 10 * seen[0].usual


def test_nothing_cuts_an_exploding_gradient() -> None:
    """With max_grad_norm: 0 the fix is to set it."""
    seen = signs_of("rate-3", max_grad_norm=0).replay(log_of("rate-3")).seen
    assert any("max_grad_norm: 1" in sign.words.en for sign in seen)


def test_overfitting_names_the_checkpoint_that_is_left() -> None:
    """The best step's checkpoint is named if it is among the newest `save_total_limit`."""
    for kept, words in ((None, "checkpoint-34 holds it"), (1, "no checkpoint holds it")):
        signs = Signs(3e-3, 5e-4, 1.0, kept)
        for event in log_of("thirty-epochs"):
            signs.see(event)
            if event["event"] == "eval":
                signs.see({"event": "checkpoint", "step": event["step"]})
        (sign,) = signs.seen
        assert words in sign.words.en and sign.best == 34


def test_a_noisy_curve_is_not_judged() -> None:
    """Whether a curve falls: yes, hardly, or nobody can tell."""
    assert falls([2 - 0.02 * step for step in range(20)]) is True
    assert falls([3.0, 2.2, *[2.0, 2.01, 1.99] * 6]) is True, "early, to a level"
    assert falls([2.0, 2.01, 1.99] * 7) is False
    assert falls([2.0, 3.0, 1.0, 2.5, 1.5] * 3) is None


def test_numbers_are_short() -> None:
    assert [short(value) for value in (5e-5, 0.00015, 0.0015, 1e-7, 0.3, 30)] == [
        "5e-5", "1.5e-4", "0.0015", "1e-7", "0.3", "30"]


def test_signs_are_said_while_the_run_goes(small: Path, data: Path, tmp_path: Path) -> None:
    """On the console and as a `note` event, in both languages. Seen again from events.jsonl, they are the same; and a
    run that goes on does not say them a second time."""
    said = run(tmp_path, small, data, learning_rate=3, num_train_epochs=2, finetuning_type="full")
    (note,) = [event for event in events(tmp_path, "note") if "diverges" in event["text"]]
    assert said.count(note["text"]) == 1 and "发散" in note["text_zh"]
    config, _ = read_config([str(tmp_path / "config.yaml")])
    every = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    signs = Signs.of(config, 35_000_000).replay(every)
    assert note["text"] in [sign.words.en for sign in signs.seen]
    assert not [sign for event in every for sign in signs.see(event) if sign.kind == "diverging"]


# Before and after.


def test_twenty_prompts_have_nothing_to_do_with_the_data() -> None:
    texts = [text for _, text in retention()]
    assert len(texts) == len(set(texts)) == 20
    assert sum(bool(re.search("[\u4e00-\u9fff]", text)) for text in texts) == 8
    assert {about for about, _ in retention()} >= {"fact", "arithmetic", "translation", "instruction", "safety", "code"}


def test_what_is_asked_and_kept(asked: tuple[Path, str]) -> None:
    """The user's prompts and the twenty; answers of at most so many tokens, and both losses, before and after. The loss
    on the model's own first answers is measured on the same tokens both times: before, on what it had just said."""
    told = read_probes(asked[0])
    assert [probe["text"] for probe in told["probes"]][:2] == ["Who are you?", HOSTILE]
    assert len(told["probes"]) == 22 and told["why"] is None
    for side in (told["before"], told["after"]):
        assert len(side["answers"]) == 22
        assert all(0 < len(answer["ids"]) <= MOST_TOKENS for answer in side["answers"])
    assert told["after"]["sample"] < 0.5 * told["before"]["sample"], "it has learned"
    assert 0 <= told["before"]["kept"] < told["after"]["kept"]


def test_answers_are_those_of_chat(asked: tuple[Path, str], tiny: Path) -> None:
    """What chat answers greedily, one prompt at a time and without padding, before training and after it."""
    from truetune.serve.engine import load_engine

    folder, _ = asked
    for side, more in (("before", {}), ("after", {"adapter_name_or_path": folder})):
        config, _ = read_config(options(model_name_or_path=tiny, temperature=0, max_new_tokens=MOST_TOKENS,
                                        infer_dtype="float32", use_cpu=True, **more))
        engine, told = load_engine(config, print), read_probes(folder)
        question = [{"role": "user", "content": told["probes"][0]["text"]}]
        assert engine.answer([question]) == [told[side]["answers"][0]["text"]]


@pytest.mark.parametrize("method", ({"lora_dropout": 0.2}, {"finetuning_type": "full", "learning_rate": 1e-4}))
def test_asking_disturbs_nothing(method: dict[str, Any], small: Path, data: Path, tmp_path: Path) -> None:
    """With dropout and gradient checkpointing, losses and weights are the same to the bit as of a run that asks
    nothing."""
    for name in ("true", "false"):
        run(tmp_path / name, small, data, before_after=name, max_steps=3, gradient_checkpointing=True, **method)
    losses = [[event["loss"] for event in events(tmp_path / name)] for name in ("true", "false")]
    assert losses[0] == losses[1]
    (weights,) = {path.name for path in (tmp_path / "true").glob("*.safetensors")}
    assert (tmp_path / "true" / weights).read_bytes() == (tmp_path / "false" / weights).read_bytes()
    assert read_probes(tmp_path / "true")["after"] and not read_probes(tmp_path / "false").get("after")


def test_a_run_that_goes_on_does_not_ask_again(small: Path, data: Path, tmp_path: Path) -> None:
    """Its first answers are those of the run it goes on from: the model at a checkpoint is no longer the one before.
    What it says at the end is what an undisturbed run says."""
    more = {"before_after": True, "max_steps": 4, "save_strategy": "steps", "save_steps": 2, "learning_rate": 0.03}
    said = run(tmp_path / "one", small, data, **more)
    assert said.count("asking the model 23 things") == 1
    whole = read_probes(tmp_path / "one")
    said = run(tmp_path / "two", small, data, **more, resume_from_checkpoint=tmp_path / "one" / "checkpoint-2")
    assert "asking the model 23 things" not in said
    told = read_probes(tmp_path / "two")
    assert told["before"] == whole["before"] and told["after"]["kept"] == whole["after"]["kept"]
    assert told["before"]["kept"] != told["after"]["kept"]


def start_of(model: Path, data: Path, **more: object) -> tuple[Any, Preflight, Policy]:
    """What a run has before its first step."""
    values = settings(Path("unused"), model, data, before_after=True, **more)
    config, _ = read_config(options(**values))
    ready = preflight(config, lambda words: None)
    return config, ready, Policy(load_model(ready.base, torch.float32, torch.device("cpu")))


def test_prompts_of_the_user(small: Path, data: Path, tmp_path: Path) -> None:
    """From a file, one a line; else of the first held-out rows, with the answer that the data give; else of the first
    training rows. What the template writes around a question is not shown."""
    file = tmp_path / "prompts.txt"
    file.write_text("One, two?\n\n你好\n", encoding="utf-8")

    def own_of(**more: object) -> tuple[list[Probe], Preflight]:
        """Nothing is asked: with a folder to go on from that holds no answers there is only why."""
        config, ready, policy = start_of(small, data, **more)
        interview = ask_before(config, ready, policy, tmp_path, tmp_path, print)
        assert interview.why and interview.why.en == "the run began without asking"
        return [probe for probe in interview.probes if probe.about == "yours"], ready

    own, _ = own_of(probe_prompts=file)
    assert [(probe.text, probe.wanted) for probe in own] == [("One, two?", None), ("你好", None)]
    for more in ({}, {"val_size": 3}):
        own, ready = own_of(**more)
        rows = ready.held_out[""] if more else ready.train
        assert [probe.where for probe in own] == [row.where for row in rows[:3]]
        assert all(re.fullmatch(r"Question (\d+)\?( Tell me\.)*", probe.text) for probe in own)
        assert all((probe.wanted or "").startswith("The answer is ") for probe in own)
        assert [probe.ids for probe in own] == [row.ids[: row.runs[0].first].tolist() for row in rows[:3]]


def test_a_model_that_cannot_be_asked(tokenizer: Any, data: Path, tmp_path: Path) -> None:
    """A GPT-2 with room for 70 positions reads the rows, but not a prompt and 48 tokens more. It is trained all the
    same; one line and the report say that the answers are missing and why. So with a tokenizer that has no template."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    folder = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=70, n_embd=8, n_layer=1, n_head=1,
                               bos_token_id=1, eos_token_id=2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    said = run(tmp_path / "run", folder, data, before_after=True, max_steps=1, finetuning_type="full", cutoff_len=70)
    assert "before and after is left out: the model cannot be asked (IndexError" in said
    assert read_state(tmp_path / "run")["status"] == "finished"
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "There are no answers: the model cannot be asked" in report

    config, ready, policy = start_of(folder, data, cutoff_len=70)
    ready.renderer.tokenizer.chat_template = None
    interview = ask_before(config, ready, policy, tmp_path, None, print)
    assert interview.why and interview.why.en == "the tokenizer has no chat template"


def test_ctrl_c_while_it_is_asked_after_training(small: Path, data: Path, tmp_path: Path) -> None:
    """A real signal, sent once the run is finished and the rows are told, which comes before the questions: the report
    is written without the second answers, and the run stays finished."""
    done = threading.Event()

    def press() -> None:
        while not done.is_set() and not read_probes(tmp_path).get("rows"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        said = run(tmp_path, small, data, before_after=True, max_steps=1)
    finally:
        done.set()
        thread.join()
    assert "stopped asking; the training is finished and saved" in said
    assert read_state(tmp_path)["status"] == "finished"
    told = read_probes(tmp_path)
    assert told["before"] and told["after"] is None and told["rows"]
    assert "not asked" in (tmp_path / "report.html").read_text(encoding="utf-8")


# Rows.


def test_the_loss_of_each_row_by_hand(tiny: Path, data: Path) -> None:
    """Weighted losses add up to the batch's, and are those of plain transformers, row by row."""
    _, ready, policy = start_of(tiny, data, loss_weights='{"answer": 3.0}')
    rows = ready.train[:4]
    batch = collate(rows)
    with torch.no_grad():
        logp = policy.log_probabilities(batch)
        policy.causal.set_attn_implementation("sdpa")
        losses = []
        for row in rows:
            ids = torch.from_numpy(row.ids).long()
            plain = policy.causal(input_ids=ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
            weights = torch.from_numpy(row.weights)[1:]
            losses.append(float(-(weights * plain).sum() / weights.sum()))
    assert row_losses(batch, logp) == pytest.approx(losses, rel=1e-4)
    sums = [loss * float(row.weights[1:].sum()) for loss, row in zip(losses, rows, strict=True)]
    assert sum(sums) == pytest.approx(-float((batch.weights * logp).sum()), rel=1e-4)


def test_rows_of_the_last_epoch_count(small: Path, data: Path) -> None:
    """Early in a run every row is hard, so a row that was only seen then is not told."""
    _, ready, _ = start_of(small, data)
    batch = collate(ready.train[:2])
    losses, logp = RowLosses(6), torch.zeros(len(batch.targets))
    for step, (numbers, loss) in enumerate((((0, 1), 9.0), ((2, 3), 2.0), ((4, 5), 3.0), ((2, 3), 1.0))):
        losses.saw(step, numbers, batch, logp - loss)
    hardest, typical = losses.hardest(3, epoch=2)
    assert [number for number, _ in hardest] == [4, 5, 2]
    assert typical == pytest.approx(2.0)


def test_a_wrong_answer_is_among_the_hardest(asked: tuple[Path, str]) -> None:
    rows = read_probes(asked[0])["rows"]
    assert rows[0]["answer"] == HOSTILE and rows[0]["where"].endswith("rows.json:102")
    assert rows[0]["loss"] > 2 * read_probes(asked[0])["typical"]


# The verdict.


def numbers(curve: str = "lora-2e-3", **more: Any) -> Numbers:
    """A finished run with some curve. Its rate was 5e-5, the usual one is 5e-4."""
    config, _ = read_config(options(learning_rate=5e-5, num_train_epochs=4))
    signs = Signs(5e-5, 5e-4, 1.0).replay(log_of(curve))
    total = len(CURVES[curve]["loss"])
    given = {"done": total, "total": total, "steps_per_epoch": 12, "finished": True, "held_out": 0,
             "sample": (2.0, 1.0), "kept": (0.6, 0.8), "same": 5, "of": 20, **more}
    return Numbers(config, signs, **given)


@pytest.mark.parametrize(("given", "kind", "then"), (
    ({}, "learned", "Talk to it"),
    ({"finished": False}, "unfinished", ""),
    ({"sample": (2.0, 1.9)}, "too little", "learning_rate: 5e-4 (now 5e-5)"),
    ({"sample": (2.0, 1.6), "kept": (0.6, 0.605)}, "too little", "learning_rate: 5e-4 (now 5e-5)"),
    ({"sample": (2.0, 1.6)}, "learned", "Talk to it"),
    ({"kept": (0.6, 2.0)}, "forgot", "learning_rate: 1.7e-5 (now 5e-5)"),
    ({"leaks": 6}, "forgot", "learning_rate: 1.7e-5 (now 5e-5)"),
    ({"curve": "thirty-epochs", "held_out": 4}, "overfit", "num_train_epochs: 17 (now 4)"),
    ({"curve": "thirty-epochs", "held_out": 4, "checkpoints": (34,)}, "overfit", "Use checkpoint-34"),
    ({"held_out": 4, "sample": (2.0, 2.5)}, "overfit", "num_train_epochs: 1 (now 4)"),
    ({"sample": (2.0, 9.0)}, "broke", "learning_rate: 1.7e-5 (now 5e-5)"),
))
def test_the_verdict_and_what_to_change(given: dict[str, Any], kind: str, then: str) -> None:
    """Each verdict has its numbers, and the next thing to change with option and value."""
    verdict = judge(numbers(**given))
    assert verdict.kind == kind
    assert (then in " ".join(words.en for words in verdict.then)) if then else not verdict.then
    for words in (verdict.title, *verdict.why, *verdict.then):
        assert re.search("[\u4e00-\u9fff]", words.zh) and not re.search("[\u4e00-\u9fff]", words.en)


def test_what_cannot_be_known_is_said() -> None:
    """Without held-out rows, without a second look at what it knew, and where its rows are known by heart."""
    said = " ".join(words.en for words in judge(numbers(kept=None, sample=(2.0, 0.01))).why)
    assert "val_size: 0.1" in said and "not measured" in said and "by heart" in said
    said = " ".join(words.en for words in judge(numbers(held_out=4)).why)
    assert "val_size" not in said and "not trained on" in said


def test_few_steps_want_more_epochs() -> None:
    """Where the rate is not the reason: as many epochs as make 100 steps."""
    config, _ = read_config(options(learning_rate=5e-4, num_train_epochs=4))
    run = numbers(sample=(2.0, 1.9))
    verdict = judge(Numbers(config, Signs(5e-4, 5e-4, 1.0), run.done, run.total, 12, True, 0, (2.0, 1.9), (0.6, 0.8)))
    assert verdict.then[0].en == "num_train_epochs: 9 (now 4), since 48 steps are few."


# The report.


class Page(HTMLParser):
    """The tags of a page, what they link to, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_end_of_a_run_says_its_verdict(asked: tuple[Path, str]) -> None:
    """Verdict, next step, and where the report is: three lines, the last before `written to`."""
    lines = asked[1].splitlines()[-4:]
    assert lines[0].startswith("Learned") or lines[0].startswith("Overfit")
    assert lines[1].startswith("Next: ")
    assert lines[2] == f"the whole report: {asked[0] / 'report.html'}"


def test_the_page_needs_nothing_and_runs_nothing(asked: tuple[Path, str]) -> None:
    """Pictures are inside; no script, nothing from elsewhere; what rows, prompts and answers hold is text."""
    page = Page((asked[0] / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "iframe", "object", "link", "a"} & set(page.tags)
    assert page.tags.count("img") == 2 and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert page.text.count("<script>alert(1)</script> | `rm` **x** [a](b)") >= 2, "a prompt, and the hardest row"
    for words in ("Before and after", "训练前后对照", "Rows that were hardest", "lora_dropout", "truetune chat"):
        assert words in page.text


def test_the_markdown_is_whole(asked: tuple[Path, str]) -> None:
    """In one language, its verdict in both. Every line of a table has as many borders as its head, although answers
    hold borders and line feeds; no tag stands in it."""
    text = (asked[0] / "report.md").read_text(encoding="utf-8")
    assert "训练前后对照" not in text and re.search(r"^\*.*[\u4e00-\u9fff].*\*$", text, re.MULTILINE)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "<" not in text and "&lt;script&gt;" in text
    for name in re.findall(r"\]\(([\w.]+)\)", text):
        assert (asked[0] / name).is_file()


def test_a_report_can_be_made_again(asked: tuple[Path, str], tmp_path: Path) -> None:
    """From the files alone, elsewhere: the same again, and in the other language. What is missing is left out."""
    few = ("config.yaml", "events.jsonl", "probes.json", "all_results.json", "adapter_config.json")
    copy = tmp_path / "run"
    copy.mkdir()
    for name in few:
        shutil.copy(asked[0] / name, copy / name)
    write_report(copy)
    assert (copy / "report.md").read_text(encoding="utf-8").replace(str(copy), str(asked[0])) == \
        (asked[0] / "report.md").read_text(encoding="utf-8")
    lines = write_report(copy, chinese=True)
    assert "训练前后对照" in (copy / "report.md").read_text(encoding="utf-8")
    assert [re.search("[\u4e00-\u9fff]", words.zh) for words in lines]
    for name in few[1:]:
        (copy / name).unlink()
        write_report(copy)
    assert "Not finished" in (copy / "report.md").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_costs_only_itself(small: Path, data: Path, tmp_path: Path) -> None:
    """The model is written and the run is finished before the report is tried; one line says what failed."""
    (tmp_path / ".report.md.part").mkdir()  # where it is written first
    said = run(tmp_path, small, data, chinese=True, max_steps=1)
    (line,) = [line for line in said.splitlines() if "报告写入失败" in line]
    assert "训练已完成并保存" in line
    assert read_state(tmp_path)["status"] == "finished" and (tmp_path / "adapter_model.safetensors").is_file()
