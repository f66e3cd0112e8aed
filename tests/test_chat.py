"""Chat: a conversation in the terminal, and what it shows of an answer when asked."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread

import pytest
import torch

from truetune.cli import main
from truetune.model.find import load_tokenizer
from truetune.model.load import load_model
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.serve.chat import Talk
from truetune.serve.engine import Engine, load_engine

Typed = Callable[..., str]


@pytest.fixture
def typed(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """What `truetune chat` prints when these lines are typed, without its prompts for more."""

    def type_lines(*lines: str, options: Sequence[str] = ()) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        assert main(["chat", str(tiny), "--do_sample=false", "--max_new_tokens=5", "--lang", "en", *options]) == 0
        return capsys.readouterr().out

    return type_lines


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    config, _ = read_config([f"--model_name_or_path={tiny}", "--do_sample=false", "--max_new_tokens=5"])
    engine = load_engine(config, lambda words: None)
    yield engine
    engine.close()


@pytest.fixture
def talk(engine: Engine) -> tuple[Talk, io.StringIO]:
    """A conversation and the terminal that shows it, which knows colours."""
    shown = io.StringIO()
    config, _ = read_config([])
    return Talk(engine, Terminal(file=shown, force_terminal=True, color_system="standard", width=200), config), shown


def test_an_answer_and_what_is_behind_it(typed: Typed, tiny: Path) -> None:
    """/raw and /ids are the prompt that the model read and what it said; /probs are the model's own probabilities."""
    said = typed("Hi there", "/raw", "/ids", "/probs")
    _, answer, raw, ids, probs, *_ = said.split("user: ")
    tokenizer = load_tokenizer(tiny)
    prompt: list[int] = tokenizer.apply_chat_template(  # pyright: ignore
        [{"role": "user", "content": "Hi there"}], add_generation_prompt=True, return_dict=False)
    told = [[int(word) for word in line.split()] for line in ids.strip().splitlines()]
    assert told[0] == prompt and len(told[1]) == 5
    text = tokenizer.decode(told[1])
    assert answer.rstrip("\n") == f"assistant: {text}" and raw.rstrip("\n") == f"{tokenizer.decode(prompt)}{text}"
    model = load_model(tiny, torch.float32, torch.device("cpu"))
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *told[1]]])).logits
    chances = logits[0, len(prompt) - 1 : -1].softmax(-1)
    lines = [line for line in probs.splitlines() if line.strip()]
    for line, token, chance in zip(lines, told[1], chances, strict=True):
        assert line.split()[:2] == [f"{float(chance[token]):.1%}", str(token)]
        assert line.count("%") >= 3  # others that were likely stand beside it


def test_the_conversation_is_remembered_and_forgotten(typed: Typed) -> None:
    """The prompt of the second question holds the first, until /clear; /system stands first; `none` takes it back."""
    said = typed("Red?", "Blue?", "/raw", "/clear", "/system Be brief.", "Green?", "/raw", "/system none", "Black?",
                 "/raw")
    both, brief, bare = (part for part in said.split("user: ") if part.startswith("<|im_start|>"))
    assert "Red?" in both and "Blue?" in both
    assert brief.startswith("<|im_start|>system\nBe brief.<|im_end|>") and "Red?" not in brief
    assert "Be brief." not in bare and "Green?" in bare


def test_a_question_of_several_lines(typed: Typed) -> None:
    said = typed('"""one', "two", 'three"""', "/raw")
    assert "user\none\ntwo\nthree<|im_end|>" in said
    assert "nothing has been said" not in typed('"""one line"""', "/raw")


def test_settings_are_options(typed: Typed) -> None:
    """Read and refused as on the command line; alone it shows them."""
    said = typed("/set", "/set temperature=0.3, top_k=7 generation_seed=4", "/set top_p=2", "/set colour=red",
                 "/set enable_thinking=false")
    first, second, third, fourth, fifth = said.split("user: ")[1:6]
    assert "temperature=0.0" in first and "max_new_tokens=5" in first
    assert "temperature=0.3" in second and "top_k=7" in second and "generation_seed=4" in second
    assert "error  top_p (command line): '2' is not a value it takes." in third
    assert "error  colour=red: is nothing that can be set." in fourth
    assert "temperature=0.3" in fifth and "enable_thinking=False" in fifth


def test_what_is_saved_can_be_trained_on(typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    typed("/system Be kind.", "Hello", f"/save {file}")
    (row,) = json.loads(file.read_text(encoding="utf-8"))
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][1]["content"] == "Hello" and row["messages"][2]["content"]
    assert "cannot be written" in typed("Hello", f"/save {tmp_path / 'no' / 'talk.json'}")


def test_slips_are_told_and_the_conversation_goes_on(typed: Typed) -> None:
    said = typed("/raw", "/nothing", "/adapter blue", "word " * 9000, "Hello", "/help")
    assert "error  nothing has been said yet." in said and "error  /nothing: there is no such command." in said
    assert "error  /adapter: there is no adapter 'blue'." in said and "the prompt has 9,0" in said
    assert said.count("assistant: ") == 2 and all(word in said for word in ("/probs", "/save FILE", "/exit"))


def test_once_prints_the_answer_and_nothing_else(typed: Typed) -> None:
    (answer,) = (part for part in typed("Hi there").split("user: ") if part.startswith("assistant: "))
    assert typed(options=["--once", "Hi there"]) == answer.removeprefix("assistant: ").rstrip("\n") + "\n"


def test_in_chinese(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("你好\n/stats\n/help\n/exit\n"))
    assert main(["chat", str(tiny), "--max_new_tokens=3", "--lang", "zh"]) == 0
    said = capsys.readouterr().out
    assert "用户：助手：" in said and "输出 3 个" in said and "显示此列表" in said


def test_speed_is_dim_and_codes_for_the_terminal_are_shown(talk: tuple[Talk, io.StringIO]) -> None:
    one, shown = talk
    one.command("/stats")
    one.answer("Hi")
    assert "\x1b[2m" in shown.getvalue() and "5 out, first after" in shown.getvalue()
    one._print("\x1b[31mred\x07", "")
    assert "␛[31mred␇" in shown.getvalue()


def test_a_thought_is_dim(engine: Engine, talk: tuple[Talk, io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt of this template opens a thought that this model never closes."""
    from dataclasses import replace

    from truetune.data.renderer import Renderer

    tokenizer = load_tokenizer(Path(engine.model.config._name_or_path))
    opening = "{% if add_generation_prompt %}<think>\n{% endif %}{# </think> #}"
    tokenizer.chat_template = f"{tokenizer.chat_template}{opening}"
    shown = io.StringIO()
    config, _ = read_config([])
    one = Talk(replace(engine, renderer=Renderer(tokenizer)), Terminal(file=shown, force_terminal=True,
                                                                       color_system="standard", width=200), config)
    one.answer("Hi")
    assert shown.getvalue().startswith("\x1b[2m") and one.messages[-1]["content"] == ""
    assert one.messages[-1]["reasoning_content"].strip()


def test_ctrl_c_stops_the_answer_and_keeps_it(talk: tuple[Talk, io.StringIO]) -> None:
    """The next question is answered, and the place was freed."""
    one, shown = talk
    one.command("/set max_new_tokens=8000")

    def press() -> None:
        while len(shown.getvalue()) < 300:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=press).start()
    one.answer("Hi")
    assert "[stopped]" in shown.getvalue() and len(one.messages[-1]["content"]) < 8000
    one.command("/set max_new_tokens=4")
    one.answer("And?")
    assert [message["role"] for message in one.messages] == ["user", "assistant"] * 2
