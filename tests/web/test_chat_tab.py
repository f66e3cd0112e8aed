"""The Chat tab: models in processes of their own, what is asked of them, and the page around it.

The models are a cut of the real one and an adapter on it: what they say is nonsense, and is there at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
import pytest
from playwright.sync_api import expect
from waiting import until

from truetune.data.messages import Conversation
from truetune.data.reading import read_source
from truetune.data.sources import find_sources
from truetune.findings import Problem
from truetune.options import Config
from truetune.options.read import read_config
from truetune.web.chat.conversation import (
    LEAST,
    Answer,
    Asked,
    answers,
    drawn,
    keep,
    paced,
    probabilities_html,
    prompt_html,
    prompt_of,
    read_tools_field,
)
from truetune.web.chat.kept import MOST, field_before, said_before, to_keep
from truetune.web.chat.served import Address, Model, Models, Process, Speaker, Wanted, wanted, wanted_by

if TYPE_CHECKING:
    from conftest import OpenTab, PageServer, Tab

HELLO = [{"role": "user", "content": "Hello"}]
GREEDY = Asked(sampling={"temperature": 0.0, "max_tokens": 12})


def settled(model: Model) -> Model:
    until(lambda: model.status != "loading")
    return model


def last(asked: Asked, *talks: tuple[Speaker, Sequence[dict[str, Any]]]) -> list[Answer]:
    """The whole answers."""
    *_, found = answers(asked, talks, threading.Event())
    return found


@pytest.fixture(scope="module")
def run(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: an adapter on the small model, and the file that says on which."""
    import torch
    from peft import LoraConfig, get_peft_model

    from truetune.model.load import load_model

    folder = tmp_path_factory.mktemp("runs") / "my.run"
    torch.manual_seed(1)
    model: Any = get_peft_model(load_model(small, torch.float32, torch.device("cpu")), LoraConfig(
        task_type="CAUSAL_LM", target_modules=["down_proj"], init_lora_weights=False, lora_alpha=256))
    model.save_pretrained(folder)
    (folder / "config.yaml").write_text(f"model_name_or_path: {small}\nlearning_rate: 1.0e-4\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def models(run: Path) -> Iterator[Models]:
    """The run, loaded: base and adapter in one process."""
    models = Models(run.parent)
    model = settled(models.load(wanted(str(run), [], {"infer_maxlen": "256"})))
    assert model.status == "ready", model.findings
    yield models
    models.close()


@pytest.fixture
def base(models: Models) -> Speaker:
    return models.speakers()[0]


# ── What is loaded ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_its_base_and_its_adapter(run: Path, small: Path) -> None:
    """A run's folder is enough: on which base it stands is written in it. Typed options win over the run's."""
    found = wanted(str(run), [], {"template": "chatml"})
    assert found.given["model_name_or_path"] == str(small) and found.file == str(run / "config.yaml")
    assert found.adapters == {"my": str(run)} and found.given["template"] == "chatml"
    assert wanted(str(small), [str(run), str(run)], {}).adapters == {"my": str(run), "my2": str(run)}
    assert wanted("some/hub-id", [], {}).given["model_name_or_path"] == "some/hub-id"


def test_what_a_command_line_says_of_a_model_holds_for_it(run: Path, small: Path) -> None:
    """`truetune webchat M template=chatml …` loads it as `truetune chat` would; options of the page are not its."""
    config, _ = read_config([f"--model_name_or_path={run}", "template=chatml", "infer_maxlen=64", "web_port=0"])
    found = wanted_by(config)
    assert found and found.adapters == {"my": str(run)} and found.given["model_name_or_path"] == str(small)
    assert found.given["template"] == "chatml" and found.given["infer_maxlen"] == 64 and "web_port" not in found.given
    assert wanted_by(read_config(["web_port=0"])[0]) is None


@pytest.mark.parametrize(("name", "words"), [("", "no model is chosen"), (".", "neither a model")])
def test_what_is_no_model_is_told_at_once(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(Problem, match=words):
        wanted(name and str(tmp_path), [], {})


def test_before_and_after_cost_the_weights_once(models: Models) -> None:
    """One process answers as the base and as the adapter, both at the same time, and differently."""
    (model,) = models.all()
    before, after = models.speakers()
    assert isinstance(model, Process) and model.memory and model.memory > 100e6
    assert model.said and model.key not in " ".join(psutil.Process(model.pid).cmdline())
    first, second = last(GREEDY, (before, HELLO), (after, HELLO))
    assert first.text and second.text and first.text != second.text
    assert len(first.tokens) == 12 and first.finish == "length" and len(first.tokens[0]["top_logprobs"]) == 4


def test_loading_the_same_again_gives_what_is_loaded(models: Models, run: Path) -> None:
    """Two pages share it."""
    assert models.load(wanted(str(run), [], {"infer_maxlen": "256"})) is models.all()[0]


def test_what_the_model_reads(base: Speaker) -> None:
    """The prompt token by token; what looks like HTML in it is text."""
    said = [{"role": "user", "content": "<b>Hello</b>"}]
    told = prompt_of(base, Asked(system="Be kind."), said)
    assert told["count"] == len(told["tokens"]) and told["max_model_len"] == 256
    shown = prompt_html(told, "en")
    assert f"{told['count']} tokens of 256" in shown and "<b>" not in shown and "&lt;|im_start|&gt;" in shown
    assert "".join(told["texts"]).endswith("<|im_start|>assistant\n")


def test_a_conversation_that_is_too_long(base: Speaker) -> None:
    (answer,) = last(GREEDY, (base, [{"role": "user", "content": "word " * 300}]))
    assert answer.failed and answer.empty
    assert "too long" in answer.failed.line() and "infer_maxlen" in answer.failed.line(chinese=True)


def test_tools_that_the_template_does_not_know(base: Speaker) -> None:
    (answer,) = last(Asked(tools=read_tools_field('[{"name": "f"}]')), (base, HELLO))
    assert answer.failed and "knows no tools" in answer.failed.line()


def test_stopping_keeps_what_was_said(base: Speaker) -> None:
    """And frees the model for the next question."""
    stop, asked, answer = threading.Event(), Asked(sampling={"max_tokens": 200, "ignore_eos": True}), Answer()
    with closing(answers(asked, [(base, HELLO)], stop)) as growing:
        for (answer,) in growing:
            if answer.text:
                stop.set()
    assert answer.text and not answer.finish and not answer.done
    assert last(GREEDY, (base, HELLO))[0].done


def test_unloading_in_the_midst_of_an_answer_says_so(run: Path, small: Path) -> None:
    models = Models(run.parent)
    with closing(models):
        model = settled(models.load(Wanted("small", {"model_name_or_path": str(small)})))
        asked, answer = Asked(sampling={"max_tokens": 5000, "ignore_eos": True}), Answer()
        for (answer,) in answers(asked, [(models.speakers()[0], HELLO)], threading.Event()):
            if answer.text and models.all():
                models.unload(model.number)
        assert answer.text and answer.failed and "was unloaded" in answer.failed.line(), answer.failed


def test_a_process_that_dies_in_the_middle_says_so(run: Path, small: Path) -> None:
    """As when memory runs out; and it can be loaded again. Unloading frees everything."""
    models = Models(run.parent)
    with closing(models):
        model = settled(models.load(Wanted("small", {"model_name_or_path": str(small)})))
        assert isinstance(model, Process)
        (speaker,) = models.speakers()
        asked, answer = Asked(sampling={"max_tokens": 5000, "ignore_eos": True}), Answer()
        for (answer,) in answers(asked, [(speaker, HELLO)], threading.Event()):
            if answer.text and model.status == "ready" and psutil.pid_exists(model.pid):
                os.kill(model.pid, signal.SIGKILL)
        assert answer.text and answer.failed and "memory ran out" in answer.failed.line(), answer.failed
        assert model.status == "ended" and "quantization_bit" in answer.failed.line(chinese=True)
        with pytest.raises(Problem, match="memory ran out"):
            models.speaker(speaker.id)
        models.reload(model.number)
        again = settled(models.all()[0])
        assert isinstance(again, Process) and again.status == "ready" and again.number != model.number
        models.unload(again.number)
        assert not psutil.pid_exists(again.pid) and not models.all()


def test_at_most_two(small: Path, tmp_path: Path) -> None:
    """A third is refused while two are there; what has failed makes room."""
    models = Models(tmp_path)
    with closing(models):
        for n in (1, 2):
            models.load(Address(f"http://127.0.0.1:9/{n}"))
        with pytest.raises(Problem, match="2 models are loaded already"):
            models.load(Address("http://127.0.0.1:9/3"))
        until(lambda: {model.status for model in models.all()} == {"failed"})
        assert "nobody answers at http://127.0.0.1:9/1" in models.all()[0].findings[0].line()
        models.load(Address("http://127.0.0.1:9/3"))


def test_why_it_could_not_be_loaded(run: Path, small: Path, tmp_path: Path) -> None:
    """In the process's own words, in both languages, with the fix; slips in the options before there is a process."""
    models = Models(tmp_path)
    with closing(models):
        with pytest.raises(Problem, match="infer_batch"):
            models.load(Wanted("x", {"model_name_or_path": str(small), "infer_batch": "many"}))
        assert not models.all()
        (tmp_path / "truetune.json").write_text(json.dumps({"base_model": "other", "base_fingerprint": "0"}))
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
        wrong = settled(models.load(wanted(str(small), [str(tmp_path)], {})))
        assert wrong.status == "failed" and "was trained on other" in wrong.findings[0].line()
        assert "请指定训练它时用的基座模型" in wrong.findings[0].line(chinese=True)


def test_a_model_ends_with_the_page(small: Path, tmp_path: Path) -> None:
    """However that ends, and in the midst of loading: the process that began it is killed without a word."""
    code = ("import sys, time; from pathlib import Path; from truetune.web.chat.served import Models, Wanted\n"
            "model = Models(Path('.')).load(Wanted('m', {'model_name_or_path': sys.argv[1]}))\n"
            "while not model.said: time.sleep(0.05)\n"
            "print(model.pid, flush=True); time.sleep(600)")
    page = subprocess.Popen([sys.executable, "-c", code, str(small)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert page.stdout
    pid = page.stdout.readline()
    assert psutil.pid_exists(int(pid))
    page.kill()
    page.wait()
    until(lambda: not psutil.pid_exists(int(pid)), 10)
    page.stdout.close()


# ── What was said ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_thoughts_and_calls_are_folds() -> None:
    said = [*HELLO, {"role": "assistant", "content": "Sunny.", "reasoning_content": "I look.", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "巴黎"}'}}]},
        {"role": "tool", "content": "21 °C", "tool_call_id": "1"}, {"role": "assistant", "content": ""}]
    shown, owners = drawn(said, "en")
    assert owners == [0, 1, 1, 1, 2, 3] and [part["role"] for part in shown[:2]] == ["user", "assistant"]
    titles = [part.get("metadata", {}).get("title") for part in shown]
    assert titles == [None, "Thought", None, "Calls weather", "Result of the tool", None]
    assert "巴黎" in shown[3]["content"] and shown[5]["content"] == "(an empty answer)"
    assert drawn([{**said[1], "content": ""}], "zh", writing=True)[0][0]["metadata"]["title"] == "思考中……"


def test_the_redder_the_less_sure() -> None:
    """What a token says is text; its alternatives are told in the tooltip."""
    top = [{"token": "<b>", "logprob": -0.1}, {"token": '"no', "logprob": -2.3}]
    sure, unsure = ({"token": "<b>", "logprob": logprob, "top_logprobs": top} for logprob in (-0.001, -5.0))
    shown = probabilities_html([sure, unsure], "en")
    assert "0.00)" in shown and "0.60)" in shown and "<b>" not in shown and "&quot;no 10.0%" in shown
    assert probabilities_html([], "en") == ""


@pytest.mark.parametrize("text", ["{", "[1]", '[{"parameters": {}}]', '{"a": '])
def test_tools_that_cannot_be_read(text: str) -> None:
    with pytest.raises(Problem, match="For instance"):
        read_tools_field(text)


def test_a_conversation_becomes_a_training_row(tmp_path: Path) -> None:
    """Appended row by row, up to the last answer; what is written is read as a data set."""
    file, asked = tmp_path / "data" / "chat.jsonl", Asked(system="Be kind.")
    with pytest.raises(Problem, match="no answer to learn from"):
        keep(file, asked, HELLO)
    said = [*HELLO, {"role": "assistant", "content": "你好"}]
    assert [keep(file, asked, said), keep(file, asked, [*said, *HELLO])] == [1, 2]
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [len(row["messages"]) for row in rows] == [3, 3] and rows[0]["messages"][0]["role"] == "system"
    (source,) = find_sources([str(file)], Config(dataset_dir=str(tmp_path)), "dataset")
    read = list(read_source(source, Config(), "conversations"))
    assert [row.messages[-1].content for row in read if isinstance(row, Conversation)] == ["你好", "你好"]
    with pytest.raises(Problem, match=r"no \.jsonl file"):
        keep(tmp_path / "chat.txt", asked, said)


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = ('<script>window.caught = 1</script><img src="x" onerror="window.caught = 2">'
           '[click](javascript:window.caught=3) <iframe srcdoc="<script>parent.caught=4</script>"></iframe>'
           "\n\n**bold**")


class Hostile(BaseHTTPRequestHandler):
    """Speaks OpenAI's API, and means no good. Asked for "words", it says 400, as fast as it can."""

    asked: ClassVar[list[list[str]]] = []

    def do_GET(self) -> None:
        self._say("application/json", json.dumps({"object": "list", "data": [{"id": "hostile", "object": "model"}]}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        Hostile.asked.append([message["content"] for message in asked])
        if asked[-1]["content"] != "words":
            return self._say("text/event-stream", f"{_chunk(HOSTILE, 'stop')}data: [DONE]\n\n")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number in range(400):
            self.wfile.write(_chunk(f"word{number} ", "stop" if number == 399 else None).encode())
            self.wfile.flush()
            time.sleep(0.005)
        self.wfile.write(b"data: [DONE]\n\n")
        return None

    def _say(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _chunk(text: str, finish: str | None) -> str:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "hostile", "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}]}
    return f"data: {json.dumps(chunk)}\n\n"


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_a_long_answer_is_drawn_a_few_times(hostile: str, tmp_path: Path) -> None:
    """Not with every word: a slow browser would be busy with it for minutes, and nothing that is pressed would be
    done."""
    models, stop, asked = Models(tmp_path), threading.Event(), [{"role": "user", "content": "words"}]
    with closing(models):
        settled(models.load(Address(hostile)))
        began = time.monotonic()
        looks = list(answers(Asked(), [(models.speakers()[0], asked)], stop, paced(stop)))
        (answer,) = looks[-1]
        assert answer.done and answer.text.endswith("word399 ")
        assert len(looks) <= 2 + (time.monotonic() - began) / LEAST


def test_a_conversation_is_kept_in_the_browser() -> None:
    """With what the model reads beside it. What is too long loses its first rounds; junk is no conversation."""
    said = [[*HELLO, {"role": "assistant", "content": "你好", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}], []]
    kept = json.loads(json.dumps(to_keep(said, system="Be kind.")))
    assert said_before(kept, 2) == said and field_before(kept, "system") == "Be kind."
    assert field_before(kept, "tools") == ""
    long = [{"role": role, "content": f"{number}" + "x" * 4000} for number in range(40)
            for role in ("user", "assistant")]
    (rounds, _) = to_keep([long, []])["said"]
    assert rounds == long[-len(rounds):] and rounds[0]["role"] == "user" and 0 < len(json.dumps(rounds)) < MOST
    for junk in (None, {}, {"said": 1}, {"said": [[1], []]}, {"said": [[{"role": "user"}], []]}, {"said": [[], []]},
                 {"said": [[{"role": "assistant", "content": "", "tool_calls": [{}]}], []]}, {"said": [HELLO]}):
        assert said_before(junk, 2) is None


@pytest.fixture(scope="module")
def page_words() -> tuple[str, ...]:
    """The page with this tab alone."""
    return ("webchat",)


def load(tab: Tab, model: str) -> None:
    """Pick a model and load it, as a person does."""
    tab.choose("Chat")
    typed = tab.page.locator("#chat-model input")
    typed.fill(model)
    typed.press("Enter")
    tab.page.locator("#chat-load").click()


def ask(tab: Tab, text: str) -> None:
    """Send a message, and wait until its answer has ended: it is kept in the browser then."""
    kept = "localStorage.getItem('truetune-chat')"
    before = tab.page.evaluate(kept)
    tab.page.locator("#chat-text textarea").fill(text)
    tab.page.locator("#chat-text textarea").press("Enter")
    tab.page.wait_for_function(f"before => {kept} !== before", arg=before)
    expect(tab.page.locator("#chat-send")).to_be_visible()


def unfold(tab: Tab, id: str) -> None:
    tab.page.locator(f"#{id} button").first.click()


def test_from_loading_to_a_training_row(tab: Tab, open_tab: OpenTab, page_server: PageServer, run: Path) -> None:
    """Load a run, compare before and after, look behind the answer, keep it; a second page sees the same model."""
    shutil.copytree(run, page_server.folder / "saves" / "my", dirs_exist_ok=True)
    page = tab.page
    ask_for = page.locator("#chat-option-max_new_tokens textarea")
    page.get_by_role("button", name="Sampling").click()
    tab.type(ask_for, "12")  # holds, though the model brings values of its own
    load(tab, "saves/my")
    page.locator("#chat-card-0").get_by_text("of memory").wait_for(timeout=90_000)
    page.locator("#chat-compare input").check()
    page.locator("#chat-second").wait_for()
    answers = page.locator(".message.bot")
    ask(tab, "Who are you?")
    assert answers.count() == 2 and answers.all_inner_texts()[0] != answers.all_inner_texts()[1]
    assert "12 tokens" in page.locator("#chat-line-0").inner_text()
    unfold(tab, "chat-raw")
    page.locator("#chat-raw-text").get_by_text("<|im_start|>").first.wait_for()
    unfold(tab, "chat-sure")
    page.locator("#chat-sure-1 span[title]").nth(11).wait_for()
    page.get_by_role("button", name="Keep this conversation").click()
    page.locator("#chat-keep").click()
    assert "chat.jsonl has 1 rows" in tab.message()
    assert "Who are you?" in (page_server.folder / "data" / "chat.jsonl").read_text(encoding="utf-8")
    tab.type(ask_for, "many")
    page.locator("#chat-text textarea").fill("And now?")
    page.locator("#chat-text textarea").press("Enter")
    page.locator("#chat-failed").get_by_text("max_new_tokens").wait_for()
    tab.shot("chat")
    phone = open_tab("lang=zh", width=390, height=844, color_scheme="dark")
    phone.choose("对话")
    phone.page.locator("#chat-card-0").get_by_text("占用内存").wait_for()
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    phone.shot("chat-phone")
    phone.page.locator("#chat-unload-0").click()
    page.locator("#chat-nothing").wait_for()


def connect(tab: Tab, address: str) -> None:
    """Talk to a server, as a person does."""
    tab.choose("Chat")
    page = tab.page
    page.get_by_role("button", name="Or an address").click()
    tab.type(page.locator("#chat-address").locator("textarea, input"), address)
    page.locator("#chat-connect").click()
    page.locator("#chat-card-0").get_by_text("on a server").wait_for()
    expect(page.locator("#chat-first input")).to_have_value("hostile")


def test_a_conversation_outlives_a_reload_and_another_language(tab: Tab, hostile: str) -> None:
    """And the next answer knows it. Clearing empties what the browser keeps, too."""
    connect(tab, hostile)
    page, box = tab.page, tab.page.locator("#chat-box-0")
    ask(tab, "My name is Ada.")
    page.reload()
    tab.ready()
    expect(box).to_contain_text("My name is Ada.")
    tab.language("简体中文")
    expect(box).to_contain_text("My name is Ada.")
    expect(page.locator("#chat-first input")).to_have_value("hostile")
    ask(tab, "Who am I?")
    assert Hostile.asked[-1] == ["My name is Ada.", HOSTILE, "Who am I?"]
    page.locator("#chat-clear").click()
    expect(box).not_to_contain_text("Ada")
    page.reload()
    tab.ready()
    expect(page.locator("#chat-first input")).to_have_value("hostile")
    expect(box).not_to_contain_text("Ada")
    page.locator("#chat-unload-0").click()
    expect(page.locator("#chat-nothing")).to_be_visible()


def test_an_answer_is_never_live(tab: Tab, hostile: str) -> None:
    """Scripts, handlers and frames in an answer do nothing."""
    connect(tab, hostile)
    page = tab.page
    ask(tab, HOSTILE)
    box = page.locator("#chat-box-0")
    box.locator("strong", has_text="bold").first.wait_for()
    page.wait_for_timeout(300)  # a handler would have run by then
    assert page.evaluate("window.caught") is None
    assert box.locator("script, iframe, [onerror], a[href^=javascript]").count() == 0
