"""A recipe: what it chooses for which model, data and goal, that it can be trained as it stands, and that every value
says why. Models are config.json files of the real sizes with a real tokenizer; no weights are needed."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import events
from rich.cells import cell_len

from truetune.check import preflight
from truetune.cli import main
from truetune.findings import Both, Problem
from truetune.guide.recipe import Recipe, as_text, make_recipe
from truetune.guide.room import Room, find_room
from truetune.guide.table import CHOICES, NOTES, OWN
from truetune.options import OPTIONS
from truetune.options.read import read_config
from truetune.options.sources import SOURCES
from truetune.rules import apply_rules

SHAPES: dict[str, dict[str, int]] = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 32, "vocab_size": 32000},
    "llama3-8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
                  "num_key_value_heads": 8, "vocab_size": 128256},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
            "num_key_value_heads": 8, "vocab_size": 32000},
}
"""config.json of Llama 2 7B, Llama 3.1 8B and Llama 2 70B, as far as their size goes."""

Model = Callable[..., Path]


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Model:
    """`model("7B")`: a folder with the config.json of a 7B model and a tokenizer, without weights. `template`: another
    chat template ("": none). `whole`: with the weights of the tiny model."""

    def make(shape: str, template: str | None = None, whole: bool = False) -> Path:
        folder = tmp_path / f"model-{shape}"
        folder.mkdir()
        for file in tiny.iterdir():
            if whole or file.suffix != ".safetensors":
                shutil.copy(file, folder)
        settings = json.loads((tiny / "config.json").read_text(encoding="utf-8")) | SHAPES.get(shape, {})
        settings["head_dim"] = settings["hidden_size"] // settings["num_attention_heads"]
        (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        if template is not None:
            (folder / "chat_template.jinja").unlink()
        if template:
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        return folder

    return make


Rows = Callable[[Path], Path]
"""Writes a data set into a folder and returns its file."""


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def plain(count: int) -> Rows:
    """Answers of two to ten words, all lengths alike in number."""
    return lambda folder: save(folder / "rows.jsonl", [
        {"instruction": f"What is {n} and {n}?", "output": f"It is {2 * n}. " + "Well. " * (n % 9)}
        for n in range(count)])


def chinese_rows(folder: Path) -> Path:
    return save(folder / "rows.jsonl", [
        {"instruction": f"第{n}个问题：什么是微调？", "output": "微调就是在已有模型上继续训练，" * (1 + n % 3)}
        for n in range(40)])


def thinking_rows(share: float = 1.0) -> Rows:
    return lambda folder: save(folder / "rows.jsonl", [
        {"instruction": f"{n} + 1?", "output": "<think>\nOne more.\n</think>\n\n" * (n < 40 * share) + str(n + 1)}
        for n in range(40)])


def pairs(folder: Path) -> Path:
    return save(folder / "rows.jsonl", [
        {"instruction": f"Question {n}", "chosen": "Yes, and here is why.", "rejected": "No."} for n in range(40)])


def judged(folder: Path) -> Path:
    return save(folder / "rows.jsonl", [
        {"instruction": f"Question {n}", "output": "Yes.", "kto_tag": n % 2 == 0} for n in range(40)])


def documents(folder: Path) -> Path:
    return save(folder / "rows.jsonl", [
        {"text": f"Chapter {n}. " + "Once upon a time there was a model. " * 30} for n in range(40)])


def recipe(model: Path, data: Path, goal: str | None = None, **fixed: Any) -> Recipe:
    config, findings = read_config([f"--model_name_or_path={model}", f"--dataset={data}",
                                    *(f"--{name}={value}" for name, value in fixed.items())])
    assert not findings
    return make_recipe(config, goal, lambda text: None)


def chosen(found: Recipe, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(found.config, name) for name in names)


def told(found: Recipe) -> dict[str, str]:
    """The ids of what is said about the whole run, with their severity."""
    return {finding.id: finding.severity for finding in found.findings}


def why(found: Recipe, option: str) -> Both:
    """The reason that is given for an option."""
    (line,) = [line for line in found.lines if line.option == option]
    return line.why


# ------------------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize(("shape", "rows", "goal"), [
    ("tiny", plain(20), "style"), ("tiny", plain(5_001), None), ("tiny", chinese_rows, "knowledge"),
    ("7B", plain(300), "style"), ("7B", thinking_rows(), "reasoning"), ("llama3-8B", plain(150), None),
    ("70B", plain(20), "knowledge"), ("70B", chinese_rows, "preference"),
])
def test_it_is_in_order_and_reads_back_as_chosen(shape: str, rows: Rows, goal: str | None, model: Model,
                                                 tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In either language `truetune check --static` finds nothing to warn of, and the file holds every value that was
    chosen, exactly."""
    found = recipe(model(shape), rows(tmp_path), goal)
    file = tmp_path / "run.yaml"
    for chinese in (False, True):
        file.write_text(as_text(found, chinese), encoding="utf-8")
        assert main(["check", str(file), "--static", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["status"] == "ok", answer["findings"]
        config, findings = read_config([str(file)])
        assert not findings
        assert config.model_dump() == found.config.model_dump()


def test_large_data(tiny: Path, tmp_path: Path) -> None:
    """60,000 rows are all read, and some tokenised; once through them is enough, with larger batches and a higher
    rank."""
    found = recipe(tiny, plain(60_000)(tmp_path))
    assert told(found)["sampled"] == "info" and found.situation.facts.data.rows == 60_000
    size, accumulation, *rest = chosen(found, *STEPS)
    assert (size * accumulation, *rest, found.config.lora_rank) == (32, 1, 200, 64)
    assert found.situation.steps == 1869  # 59,800 / 32


def test_every_value_has_its_reason_and_source_above_it(tiny: Path, tmp_path: Path) -> None:
    """Each option stands below a comment; the sources that are named are listed with their links at the end."""
    found = recipe(tiny, plain(300)(tmp_path))
    lines = as_text(found, chinese=False).splitlines()
    options = [number for number, line in enumerate(lines) if line and not line.startswith("#")]
    assert len(options) == len(found.lines) > 20
    assert all(lines[number - 1].startswith("# ") for number in options)
    text = " ".join(line.removeprefix("# ") for line in lines)
    for line in found.lines:
        source = f" ({SOURCES[line.source].title})" if line.source in SOURCES else ""
        assert line.why.en + source in text
    links = text[text.index("Where to read more") :]
    assert all(SOURCES[line.source].link in links for line in found.lines if line.source in SOURCES)
    assert "our judgement, not measured" in text


def test_the_language_of_the_comments(tiny: Path, tmp_path: Path) -> None:
    """The same values; comments in one language or the other, broken to lines that fit a screen."""
    found = recipe(tiny, chinese_rows(tmp_path))
    english, chinese = as_text(found, chinese=False), as_text(found, chinese=True)
    assert "Every row is kept whole" in english and "所有行都完整保留" in chinese
    assert not any("\u4e00" <= letter <= "\u9fff" for letter in english)
    comments = [line for line in chinese.splitlines() if line.startswith("#") and "http" not in line]
    assert max(map(cell_len, comments)) <= 112
    values = [[line for line in text.splitlines() if not line.startswith("#")] for text in (english, chinese)]
    assert values[0] == values[1]


def test_the_table_is_whole() -> None:
    """Every row names an option and a source that exist, and says why in two languages with the same numbers."""
    for choice in CHOICES:
        assert choice.option in OPTIONS
        assert choice.source in SOURCES or choice.source in OWN
    assert all(note.option in OPTIONS and (note.source is None or note.source in SOURCES) for note in NOTES)
    for words in (*(choice.why for choice in CHOICES), *(note.message for note in NOTES)):
        english, chinese = ({name for _, name, _, _ in string.Formatter().parse(half) if name} for half in words)
        assert english == chinese
        assert any("\u4e00" <= letter <= "\u9fff" for letter in words.zh)


# ---------------------------------------------------------------------------------------------------- what is chosen


STEPS = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "val_size")


@pytest.mark.parametrize(("count", "batch", "epochs", "held_out", "steps"), [
    (20, 2, 10, 0, 100),       # 10 steps an epoch: 10 epochs, the most, make 100
    (96, 4, 5, 0, 120),        # 96 x 5 / 100 = 4.8 rows a step: 4; 24 steps an epoch
    (150, 4, 4, 20, 132),      # 130 rows learn: 33 steps an epoch, 4 epochs for at least 100
    (1_000, 16, 3, 50, 180),   # 5 % held out; 950 rows, 60 steps an epoch
    (10_000, 16, 2, 200, 1226),  # 9,800 rows: 613 steps an epoch
])
def test_steps_by_hand(count: int, batch: int, epochs: int, held_out: int, steps: int, tiny: Path,
                       tmp_path: Path) -> None:
    """Small batches and more epochs for few rows, so that there are about 100 steps; 20 rows held out, or 5 %, unless
    that is a fifth of the data."""
    found = recipe(tiny, plain(count)(tmp_path))
    size, accumulation, *rest = chosen(found, *STEPS)
    assert (size * accumulation, *rest) == (batch, epochs, held_out)
    assert found.situation.steps == steps


def test_steps_are_those_of_the_run(tiny: Path, tmp_path: Path, cache: Path) -> None:
    """What the recipe says of its steps is what a run's own plan says."""
    found = recipe(tiny, plain(150)(tmp_path))
    ready = preflight(found.config, lambda text: None)
    assert ready.plan.total_steps == found.situation.steps
    assert ready.facts["rows_held_out"] == 20


@pytest.mark.parametrize(("shape", "method"), [("tiny", "lora"), ("tiny", "full"), ("70B", "lora")])
def test_rows_at_once_by_memory(shape: str, method: str, model: Model, tmp_path: Path) -> None:
    """All rows of a step where they fit; with less memory half of them, a quarter, …; then one with the layers computed
    twice; then it does not fit, and says so."""
    s = recipe(model(shape), plain(60)(tmp_path), finetuning_type=method).situation
    kind, device = s.shape_for(method), torch.device("cuda")

    def room(free: float, checkpointing: bool | None = None) -> Room:
        return find_room(kind, 512, 16, int(free), device, checkpointing)

    most = room(1e15)
    assert (most.micro, most.checkpointing, most.fits) == (16, False, True)
    memories = np.linspace(most.need / 0.89, most.need / 10, 200)
    rooms = [room(free) for free in memories]
    seen = list(dict.fromkeys((found.micro, found.checkpointing, found.fits) for found in rooms))
    assert seen == [rows for rows in [(16, False, True), (8, False, True), (4, False, True), (2, False, True),
                                      (1, False, True), *((rows, True, True) for rows in (16, 8, 4, 2, 1)),
                                      (1, True, False)] if rows in seen]
    assert len(seen) > 2 and seen[-1] == (1, True, False)
    assert all((found.need <= 0.9 * free) == found.fits for found, free in zip(rooms, memories, strict=True))
    assert not room(1e15, checkpointing=False).checkpointing and room(1e15, checkpointing=True).checkpointing


def test_what_happens_on_the_way_really_happens(tiny: Path, tmp_path: Path) -> None:
    """Ten evaluations, a checkpoint with each, and as many kept as early stopping looks back; without held-out rows
    four checkpoints and no evaluation."""
    found = recipe(tiny, plain(1_000)(tmp_path))
    assert chosen(found, "eval_strategy", "eval_steps", "save_steps", "early_stopping_steps", "save_total_limit",
                  "logging_steps") == ("steps", 18, 18, 3, 4, 1)
    few = recipe(tiny, plain(20)(tmp_path))
    assert chosen(few, "eval_strategy", "save_steps", "save_total_limit", "early_stopping_steps") == ("no", 25, 2, None)


@pytest.mark.parametrize(("shape", "method", "rate"), [
    ("tiny", "lora", 1e-3), ("7B", "lora", 2e-4), ("70B", "lora", 1e-4),
    ("llama3-8B", "lora", 1.5e-4),  # measured: 3e-4, of which half
    ("tiny", "full", 5e-5), ("7B", "full", 1e-5), ("70B", "full", 2e-6),
])
def test_learning_rate_by_model_and_method(shape: str, method: str, rate: float, model: Model, tmp_path: Path) -> None:
    found = recipe(model(shape), plain(60)(tmp_path), finetuning_type=method)
    assert found.config.learning_rate == rate
    assert ("Llama-3.1-8B" in why(found, "learning_rate").en) == (shape == "llama3-8B")


@pytest.mark.parametrize(("count", "goal", "rank"), [(100, "style", 16), (6_000, "style", 32), (100, "knowledge", 64)])
def test_rank_by_rows_and_goal(count: int, goal: str, rank: int, tiny: Path, tmp_path: Path) -> None:
    """alpha stays 32, so that the learning rate means the same at every rank."""
    found = recipe(tiny, plain(count)(tmp_path), goal)
    assert chosen(found, "lora_rank", "lora_alpha") == (rank, 32)


def test_rows_are_kept_whole_where_that_is_cheap(tiny: Path, tmp_path: Path) -> None:
    """All of them, rounded up to 64. One of 400 that is ten times as long as the others is not worth the memory;
    where thoughts are learned it is kept."""
    rows = [{"instruction": "Hi", "output": "word " * 40 + "."} for _ in range(399)]
    path = save(tmp_path / "rows.jsonl", [*rows, {"instruction": "Hi", "output": "word " * 800 + "."}])
    assert recipe(tiny, path).config.cutoff_len == 128
    assert recipe(tiny, path, "reasoning").config.cutoff_len == 896
    assert "0.25 %" in why(recipe(tiny, path), "cutoff_len").en
    even = recipe(tiny, save(tmp_path / "even.jsonl", rows))
    assert even.config.cutoff_len == 128 and "kept whole" in why(even, "cutoff_len").en


def test_rows_longer_than_the_model_can(model: Model, tmp_path: Path) -> None:
    """The limit is the model's own, and what it costs is said."""
    folder = model("tiny")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    path = save(tmp_path / "rows.jsonl", [{"instruction": "Hi", "output": "word " * (60 * (n % 2))+ "."}
                                          for n in range(40)])
    found = recipe(folder, path)
    assert found.config.cutoff_len == 64
    assert told(found)["longer-than-model"] == "warn"
    assert found.situation.rows == 20


# ------------------------------------------------------------------------------------------------------------- goals


def test_knowledge_says_that_facts_are_hard(tiny: Path, tmp_path: Path) -> None:
    found = recipe(tiny, plain(100)(tmp_path), "knowledge")
    (note,) = [finding for finding in found.findings if finding.id == "facts-are-hard"]
    assert "RAG" in str(note.message) and "检索增强（RAG）" in note.line(chinese=True)
    assert "facts-are-hard" not in told(recipe(tiny, plain(100)(tmp_path), "style"))


@pytest.mark.parametrize(("rows", "stage"), [(pairs, "dpo"), (judged, "kto")])
def test_preference_is_not_trained_yet_and_says_so(rows: Rows, stage: str, tiny: Path, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """The goal and the stage follow from the rows. The rules say that this version does not train them; the file is
    written for one that does, and the exit status is 1."""
    data, file = rows(tmp_path), tmp_path / "run.yaml"
    status = main(["recipe", f"--model={tiny}", f"--dataset={data}", f"--output={file}"])
    shown = capsys.readouterr().out
    config, _ = read_config([str(file)])
    assert config.stage == stage and config.learning_rate == 5e-6
    refused = any(finding.severity == "error" for finding in apply_rules(config, "train"))
    assert status == int(refused)
    assert (f"{stage} is not trained yet" in shown) == refused
    assert ("next:" in shown) != refused


def test_preference_needs_pairs(tiny: Path, tmp_path: Path) -> None:
    """Plain answers hold nothing to prefer: they are learned, and that is said."""
    found = recipe(tiny, plain(60)(tmp_path), "preference")
    assert found.config.stage == "sft" and told(found)["no-pairs"] == "warn"


THINKS = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>"
          "\n\n{% endif %}{% endif %}")
"""A chat template in which thinking can be switched off."""


@pytest.mark.parametrize(("share", "thinking"), [(0.0, False), (0.5, None), (1.0, True)])
def test_thoughts_and_models_that_think(share: float, thinking: bool | None, model: Model, tmp_path: Path) -> None:
    """Rows without thoughts do not teach a thinking model to stop thinking; with thoughts, these are learned."""
    found = recipe(model("tiny", THINKS), thinking_rows(share)(tmp_path), "reasoning")
    assert found.config.enable_thinking is thinking and found.config.given("enable_thinking")
    assert ("no-thoughts-to-learn" in told(found)) == (share == 0)


def test_the_goal_is_what_the_data_look_like(tiny: Path, tmp_path: Path) -> None:
    looks = [(plain(20), "style"), (thinking_rows(), "reasoning"), (pairs, "preference"), (documents, "knowledge")]
    assert [recipe(tiny, rows(tmp_path)).situation.goal for rows, _ in looks] == [goal for _, goal in looks]


# ---------------------------------------------------------------------------------------------------- odd models, data


def test_a_base_model_gets_a_template_that_it_knows(model: Model, tmp_path: Path) -> None:
    """Without a chat template of its own: one of plain words that ends with the end-of-text token."""
    found = recipe(model("tiny", "", whole=True), plain(60)(tmp_path))
    assert found.config.template == "default" and told(found)["no-template"] == "warn"
    ready = preflight(found.config, lambda text: None)
    assert not [finding for finding in ready.findings if finding.severity == "error"]


def test_plain_text_needs_no_template(model: Model, tmp_path: Path) -> None:
    found = recipe(model("tiny", ""), documents(tmp_path))
    assert (found.config.stage, found.config.template) == ("pt", None)


def test_a_few_bad_rows_are_left_out(tiny: Path, tmp_path: Path) -> None:
    """One of 60 that cannot be learned from is named and dropped; with many of them the data are wrong."""
    rows = [{"instruction": f"Question {n}", "output": "Yes."} for n in range(60)]
    path = save(tmp_path / "rows.jsonl", [*rows[:30], {"instruction": "Hi", "output": ""}, *rows[30:]])
    found = recipe(tiny, path)
    assert found.config.on_bad_row == "drop" and "rows.jsonl:31" in why(found, "on_bad_row").en
    assert found.situation.facts.data.rows == 60
    save(path, [*rows[:30], *({"instruction": "Hi", "output": ""} for _ in range(10))])
    with pytest.raises(Problem, match=r"rows\.jsonl:31"):
        recipe(tiny, path)


def test_a_tokenizer_that_knows_little_chinese(tiny: Path, tmp_path: Path) -> None:
    found = recipe(tiny, chinese_rows(tmp_path))
    assert told(found)["poor-chinese"] == "warn" and found.situation.facts.data.chinese > 0.7
    assert "poor-chinese" not in told(recipe(tiny, plain(40)(tmp_path)))


# ----------------------------------------------------------------------------------------------------- what is fixed


def test_what_the_user_fixes_stays_and_the_rest_follows(tiny: Path, tmp_path: Path) -> None:
    """full: no LoRA options, a rate and a batch for whole weights. A micro-batch of 2: accumulation makes up for it."""
    data = plain(2_000)(tmp_path)
    found = recipe(tiny, data, finetuning_type="full", per_device_train_batch_size=2, output_dir=tmp_path / "mine")
    assert chosen(found, "finetuning_type", "learning_rate", *STEPS[:2]) == ("full", 5e-5, 2, 32)
    assert not {"lora_rank", "lora_alpha", "lora_target"} & {line.option for line in found.lines}
    assert found.config.output_dir == str(tmp_path / "mine")
    assert "You set it." in as_text(found, chinese=False) and "由你指定。" in as_text(found, chinese=True)


def test_what_does_not_go_together_is_told_and_nothing_is_written(
        tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    status = main(["recipe", f"--model={tiny}", f"--dataset={plain(20)(tmp_path)}", "--output", str(file),
                   "early_stopping_steps=3", "eval_strategy=no"])
    assert status == 2 and not file.exists()
    assert "early_stopping_steps (command line): early stopping needs evaluations" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "status", "line"), [
    (["--dataset=rows.jsonl"], 2, "model_name_or_path: no model is named."),
    (["--model=tiny"], 2, "dataset: no data set is named."),
    (["--model=nowhere/at/all", "--dataset=rows.jsonl"], 1, "there is no folder"),
    (["--model=broken", "--dataset=rows.jsonl"], 1, "broken"),
    (["--model=tiny", "--dataset=gone.jsonl"], 1, "gone.jsonl"),
    (["--model=tiny", "--dataset=rows.jsonl", "--goal=fame"], 2, "--goal: 'fame' is not a value it takes."),
    (["--model=tiny", "--dataset=rows.jsonl", "--lora_rnk=4"], 2, "Did you mean lora_rank?"),
    (["--model=tiny", "--dataset=rows.jsonl", "--output=run.txt"], 2, "a recipe is written as .yaml"),
])
def test_what_is_wrong_is_said_in_one_line(words: list[str], status: int, line: str, model: Model, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    plain(20)(tmp_path)
    model("tiny").rename("tiny")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "none-such"', encoding="utf-8")
    assert main(["recipe", *words]) == status
    shown = capsys.readouterr().err
    assert line in shown and shown.startswith("error") and shown.count("\n") == 1
    assert not (tmp_path / "run.yaml").exists()


# ------------------------------------------------------------------------------------------------------ as a command


def test_the_file_is_not_overwritten(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    """run.yaml is the default name; a second recipe must be asked to replace it."""
    monkeypatch.chdir(tmp_path)
    words = ["recipe", "--model", str(tiny), "--dataset", str(plain(20)(tmp_path))]
    assert main(words) == 0
    file = tmp_path / "run.yaml"
    first = file.read_text(encoding="utf-8")
    assert main([*words, "seed=7"]) == 2 and file.read_text(encoding="utf-8") == first
    assert "run.yaml is there already" in capsys.readouterr().err
    assert main([*words, "seed=7", "--overwrite"]) == 0 and "seed: 7" in file.read_text(encoding="utf-8")


def test_a_dash_prints_it(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output holds the file and nothing else."""
    words = [f"model={tiny}", f"dataset={plain(20)(tmp_path)}", "--output", "-", "--lang", "zh"]
    assert main(["recipe", *words]) == 0
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["seed"] == 42 and "任意数字" in printed.out
    assert "行" in printed.err


def test_its_run_goes_through(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """recipe, then train, with nothing but the number of steps changed: so that all that happens on the way happens."""
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", f"--model={tiny}", f"--dataset={plain(120)(tmp_path)}"]) == 0
    assert main(["train", "run.yaml", "max_steps=5", "eval_steps=1", "save_steps=1"]) == 0
    run = tmp_path / "saves" / f"{tiny.name}-rows"
    assert len(events(run)) == len(events(run, "eval")) == 5
    assert len(list(run.glob("checkpoint-*"))) == 4
    assert main(["recipe", f"--model={tiny}", f"--dataset={tmp_path / 'rows.jsonl'}", "--overwrite"]) == 0
    again, _ = read_config(["run.yaml"])
    assert again.output_dir == f"saves/{tiny.name}-rows-2"
