"""Every message for people is in English and in Chinese.

The first tests read the source: whatever is told (a finding, a reason, a line of progress) is `Both(en, zh)`, unless it
is the same in every language. The others go wrong on the real command line with `--lang zh`, as a beginner would.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from conftest import ROOT, write_rows

from truetune.cli import main
from truetune.events import ConsoleProgress, Events, read_events
from truetune.findings import Both
from truetune.report import Terminal

SOURCE = ROOT / "src" / "truetune"
TELLING = {
    "Finding": {"message": 2, "fix": 5}, "problem": {"message": 1, "fix": None},
    "replace": {"message": None, "fix": None}, "Rule": {"message": 4, "fix": 5},
    "BadRow": {"reason": 0, "fix": 2}, "Refused": {"reason": 1, "fix": 3},
    "say": {"words": 0}, "busy": {"words": 0}, "emit": {"text": None}, "print": {"words": 0}, "Text": {"words": 0},
}
"""What is called to tell something, and where its words stand among the arguments (None: only by name)."""
SAME = re.compile(r" *(pip install|truetune) .*|{}  epoch {}  loss {}  {}lr {}  grad {}  {} tokens/s  {}")
"""What is the same in every language: commands to be typed, and the names of the log's fields."""
CHINESE = re.compile("[\u4e00-\u9fff]")


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def words_of(call: ast.Call) -> Iterator[ast.expr]:
    """What a call tells."""
    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) \
        else ""
    if name in ("say", "Text") and any(CHINESE.search(ast.unparse(argument)) for argument in call.args[1:]):
        return  # English and Chinese side by side: say("takes", "取值")
    for argument, place in TELLING.get(name, {}).items():
        if place is not None and len(call.args) > place and not isinstance(call.args[place], ast.Starred):
            yield call.args[place]
        yield from (keyword.value for keyword in call.keywords if keyword.arg == argument)


def plain(node: ast.expr, named: dict[str, list[ast.expr]]) -> Iterator[str]:
    """The texts in one language that an expression may be. named: what the module's variables are set to."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.IfExp(body=body, orelse=orelse):
            texts = [*plain(body, named), *plain(orelse, named)]
            yield from () if any(map(CHINESE.search, texts)) else texts  # one for each language
        case ast.BoolOp(values=values):
            yield from (text for value in values for text in plain(value, named))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from [*plain(left, named), *plain(right, named)]
        case ast.Name(id=name):
            yield from (text for value in named.get(name, []) for text in plain(value, {}))


def told_in_english(path: Path) -> Iterator[str]:
    """`file:line: text` for every text with an English word that a module tells in this language alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    named.setdefault(target.id, []).append(node.value)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            for words in words_of(call):
                for text in plain(words, named):
                    bare = re.sub(r"\w*_\w*", "", text)  # names of options are the same in every language
                    if re.search(r"[A-Za-z]{2}", bare) and not SAME.fullmatch(text):
                        yield f"{path.relative_to(SOURCE)}:{call.lineno}: {text}"


def test_nothing_is_told_in_english_alone():
    """Findings, reasons, rules, progress and printed lines, in every module."""
    found = [line for path in sources() for line in told_in_english(path)]
    assert not found, "\n".join(found)


def test_the_second_half_is_chinese():
    """An English sentence stands beside a Chinese one, whose commas and brackets are those of Chinese."""
    pairs = [(f"{path.relative_to(SOURCE)}:{call.lineno}", en, zh)
             for path in sources() for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Both"
             and len(call.args) == 2 for en in plain(call.args[0], {}) for zh in plain(call.args[1], {})]
    assert len(pairs) > 300
    for where, en, zh in pairs:
        assert CHINESE.search(zh) or not re.search("[A-Za-z]+ [A-Za-z]+ [A-Za-z]+", en), (where, zh)
        assert not re.search("[\u4e00-\u9fff][,;?!(]|[,;?!)][\u4e00-\u9fff]", zh), (where, zh)


# ---------------------------------------------------------------------------------------------------------------------
# On the command line


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
         tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """The command line called in this process, in a folder with one good data file: exit status, all that was said."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "good.json")

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main(words)
        return status, "".join(capsys.readouterr())

    return call


MODEL = "--model_name_or_path=bundled/smollm2-135m-instruct"
SLIPS: dict[str, tuple[tuple[str, ...], dict[str, str], list[str]]] = {
    "an unknown option": (("train", "--learning_rte=1e-4"), {}, ["错误  learning_rte (命令行): 未知的选项。"]),
    "values out of bounds": (("train", "run.yaml"), {"run.yaml": "lora_rank: 0\ndo_train: perhaps\n"}, [
        "错误  lora_rank (run.yaml:1): 不接受 '0'。取值：整数 > 0（默认 8）。",
        "错误  do_train (run.yaml:2): 不接受 'perhaps'。取值：true|false（默认 true）。"]),
    "YAML that is none": (("train", "run.yaml"), {"run.yaml": "seed: 1\nbf16 true\nfp16: true\n"}, [
        "错误  run.yaml:3: 不是合法的 YAML：缺少冒号。"]),
    "a tab in YAML": (("train", "run.yaml"), {"run.yaml": "dataset:\n\t- a\n"}, [
        "错误  run.yaml:2: 不是合法的 YAML：缩进用了制表符，请改用空格。"]),
    "no such run.yaml": (("train", "missing.yaml"), {}, ["错误  missing.yaml: 没有这个文件。"]),
    "no such command": (("tain",), {}, ["错误  tain: 未知的命令。是不是 train？"]),
    "a model folder that is not there": (("data", "show", "model_name_or_path=./no-model", "dataset=good.json"), {}, [
        "错误  model_name_or_path (命令行): 没有文件夹 no-model。"]),
    "a data file that is not there": (("data", "show", MODEL, "--dataset=god.json"), {}, [
        "错误  dataset: 没有文件 god.json。是不是 good.json？"]),
    "a broken line of JSON": (("data", "show", MODEL, "--dataset=a.jsonl"), {
        "a.jsonl": '{"instruction": "a", "output": "b"}\n{"instruction": "a", "output" "b"}\n'}, [
        "错误  dataset (a.jsonl:2): 不是合法的 JSON：缺少冒号。文件应当是一个由对象组成的数组，或每行一个对象。"]),
    "columns of no format": (("data", "show", MODEL, "--dataset=a.jsonl"), {"a.jsonl": '{"q": "a", "a": "b"}\n'}, [
        "错误  dataset (a.jsonl:1): 它的列（a、q）不属于任何已知格式。"]),
    "rows that cannot be learned from": (("data", "show", MODEL, "--dataset=a.json"), {"a.json": json.dumps([
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]},
        {"messages": [{"role": "user", "content": 1}]},
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": "[{]"},
    ])}, [
        "错误  dataset (a.json row 1): 第 2 条消息来自 user，而这里应当是 assistant。",
        "错误  dataset (a.json row 2): 第 2 条消息的角色是 'bot'，可用的角色：",
        "错误  dataset (a.json row 3): 第 1 条消息：'content' 必须是文本，而不是 int。",
        "错误  dataset (a.json row 4): 最后一条消息来自 user，没有可学习的回答。",
        "错误  dataset (a.json row 5): tools 不是合法的 JSON：第 3 个字符处，这里应当是双引号括起来的键"]),
    "dataset_info.json with a slip": (("data", "show", MODEL, "--dataset=mine", "--dataset_dir=."), {
        "dataset_info.json": '{"mine": {"file_name": "good.json", "colums": {"prompt": "instruction"}}}'}, [
        "错误  dataset (dataset_info.json, mine): 条目里有未知的键 'colums'。是不是 columns？"]),
    "a template of another model": (("data", "show", MODEL, "--dataset=good.json", "--template=llama3"), {}, [
        "错误  template: llama3 用 <|eot_id|> 结束一轮，而它不是这个分词器的单个 token：模型学不会停下。"]),
}
"""What is typed, the files that are there, and how the lines begin that must be said."""


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_told_in_chinese(here, tmp_path: Path, slip: str):
    """Each line says how bad it is, names the option and its place as they are typed, and speaks Chinese behind that.
    (What is quoted stays as it is.)"""
    words, files, lines = SLIPS[slip]
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    status, said = here(*words, "--lang", "zh")
    for line in lines:
        assert any(told.startswith(line) for told in said.splitlines()), said
    findings = [line for line in said.splitlines() if re.match("(错误|警告|提示|error|warn|info) ", line)]
    assert len(findings) >= len(lines) and status in (1, 2)
    for line in findings:
        told = re.sub(r"^..  (\S+( \([^)]*\))?: )?|`[^`]*`|\"[^\"]*\"", "", line)
        assert CHINESE.search(told) and not re.search(r"[a-z]+ [a-z]+ [a-z]+", told), line


def test_warnings_and_hints(here):
    """What does not stop a run has words of its own for how bad it is, and the values of options are filled in."""
    status, said = here("check", "--static", MODEL, "--dataset=good.json", "--warmup_steps=10", "--warmup_ratio=0.1",
                        "--save_only_model", "--lang", "zh")
    assert status == 0 and said.splitlines()[:2] == [
        "警告  warmup_ratio (命令行): 同时给了 warmup_steps（10），以 warmup_steps 为准。",
        "提示  save_strategy: 这样的检查点不能用来继续训练（save_only_model）。"]


def test_rows_and_the_page_in_chinese(here, tmp_path: Path):
    """`data show` speaks Chinese around the rows, in the terminal and in the page for the browser; in English it does
    not. Why a row was left out is kept in both languages, so that a store made in one can be looked into in the other.
    """
    rows = [{"instruction": "Hi", "output": "Hello."}, {"instruction": "", "output": "b"}]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    show = ("data", "show", MODEL, "--dataset=a.json", "--on_bad_row=drop")
    english, chinese = here(*show)[1], here(*show, "--lang", "zh")[1]
    assert "1 row cannot be learned from and is left out:\n  a.json row 2  turn 1 (user) is empty\n" in english
    assert "1 行无法学习，已丢弃：\n  a.json row 2  第 1 条消息（user）是空的\n" in chinese
    assert CHINESE.search(english) is None and "tokens" not in chinese and "个 token，学习其中" in chinese
    assert here(*show, "--lang", "zh", "--html", "page.html")[1].endswith("已写入 page.html\n")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<html lang="zh">' in page and "<li>a.json row 2: 第 1 条消息（user）是空的</li>" in page


def test_progress_in_chinese(tmp_path: Path):
    """A note has both languages in events.jsonl; the console shows the reader's, and keeps the names of the fields."""
    said = StringIO()
    terminal = Terminal(chinese=True, file=said, width=120)
    events = Events(tmp_path, [ConsoleProgress(terminal, 8)], None)
    events.emit("step", step=2, total_steps=8, epoch=0.5, loss=1.5, learning_rate=1e-4, grad_norm=0.5, seconds=10.0,
                tokens_per_second=100.0)
    events.emit("note", step=2, text=Both("stopped early", "提前停止"))
    events.close()
    assert said.getvalue().splitlines() == [
        "第 2/8 步  epoch 0.50  loss 1.5000  lr 1.00e-04  grad 0.50  100 tokens/s  剩余 0:00:30", "提前停止"]
    note = read_events(tmp_path / "events.jsonl")[-1]
    assert (note["text"], note["text_zh"]) == ("stopped early", "提前停止")
