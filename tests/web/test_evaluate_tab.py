"""The Evaluate tab: measure a model, read its numbers and its answers, set two evaluations side by side."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from truetune.jobs.queue import Job, Queue
from truetune.options import Config
from truetune.web.chat.served import Models
from truetune.web.evaluate.predictions import page_of
from truetune.web.evaluate.scores import MEANINGS, Score, answers, change, chosen, evaluated, scores
from truetune.web.evaluate.tab import PURPOSES, EvaluateForm, how_far, scores_page
from truetune.web.page import Page
from truetune.web.roots import Roots
from truetune.web.words import Wording
from truetune.web.worker import Worker

JOB = 120_000
"""Milliseconds that a job may take, on a machine that has other things to do."""


def predicted(folder: Path, said: list[str], rouge: float) -> Path:
    """A folder as an evaluation with answers leaves it."""
    folder.mkdir(parents=True)
    lines = [{"prompt": f"Question {number}", "predict": text, "label": "yes, it is"}
             for number, text in enumerate(said, start=1)]
    (folder / "generated_predictions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    (folder / "predict_results.json").write_text(json.dumps({"predict_rouge-1": rouge, "predict_runtime": 2.0}),
                                                 encoding="utf-8")
    return folder


def test_numbers_come_with_what_they_mean(tmp_path: Path):
    found = scores(predicted(tmp_path / "a", ["no"], 12.5))
    assert found["rouge-1"].value == 12.5
    assert found["rouge-1"].meaning.better == "higher"
    assert "higher" in scores_page(tmp_path / "a", None, "en")
    assert "共有的词" in scores_page(tmp_path / "a", None, "zh")


@pytest.mark.parametrize(("file", "told", "expected"), [
    ("perplexity.json", {"loss": 0.7, "stderr": 0.1, "perplexity": 2.0, "bits_per_byte": None, "rows": 3,
                         "sets": {"mine": {"loss": 0.5, "perplexity": 1.6, "rows": 2}}},
     {"loss": 0.7, "perplexity": 2.0, "rows": 3, "mine: loss": 0.5, "mine: perplexity": 1.6, "mine: rows": 2}),
    ("scores.json", {"categories": {"average": {"accuracy": 0.25, "stderr": 0.1}}, "subjects": {}}, {"average": 25}),
    ("lm_eval.json", {"results": {"arc": {"acc,none": 0.5, "acc_stderr,none": 0.1, "alias": "arc"}}}, {"arc acc": 0.5}),
    ("predictions_score.json", {"bleu-4": 3.0}, {"bleu-4": 3.0}),
    ("scores.json", ["no", "such", "thing"], {}),
])
def test_every_kind_of_result_is_read(tmp_path: Path, file: str, told: Any, expected: dict[str, float]):
    (tmp_path / file).write_text(json.dumps(told), encoding="utf-8")
    assert {name: score.value for name, score in scores(tmp_path).items()} == expected


def test_a_result_that_is_cut_off_is_left_out(tmp_path: Path):
    (tmp_path / "perplexity.json").write_text('{"loss": 0.', encoding="utf-8")
    assert scores(tmp_path) == {}


def test_two_evaluations_differ_for_better_or_worse_or_by_chance():
    loss, rouge, rows = MEANINGS["loss"], MEANINGS["rouge-1"], MEANINGS["rows"]
    assert str(change(Score("loss", 2.0, loss), Score("loss", 1.5, loss))) == "-0.5, better"
    assert str(change(Score("rouge-1", 30, rouge), Score("rouge-1", 20, rouge))) == "-10, worse"
    assert str(change(Score("loss", 2.0, loss, 0.4), Score("loss", 1.5, loss, 0.4))) == "-0.5, within chance"
    assert str(change(Score("rows", 3, rows), Score("rows", 4, rows))) == "+1"


def test_answers_are_searched_and_the_worst_come_first(tmp_path: Path):
    everything = answers(predicted(tmp_path / "a", ["yes, it is", "banana", "yes, it was"], 50.0))
    assert [each.number for each in chosen(everything, "BANANA", "data")] == [2]
    assert [each.number for each in chosen(everything, "", "worst")] == [2, 3, 1]
    assert [each.number for each in chosen(everything, "", "best")] == [1, 3, 2]


def test_answers_that_grow_are_read_again(tmp_path: Path):
    """A job is shown while it writes: a last line that is half there is left out, and then is there."""
    folder = predicted(tmp_path / "a", ["one"], 1.0)
    file = folder / "generated_predictions.jsonl"
    with file.open("a", encoding="utf-8") as more:
        more.write('{"prompt": "Question 2", "pred')
    assert len(answers(folder)) == 1
    with file.open("a", encoding="utf-8") as more:
        more.write('ict": "two", "label": "2"}\n')
    assert len(answers(folder)) == 2


def test_what_a_model_says_is_text_and_no_html(tmp_path: Path):
    everything = answers(predicted(tmp_path / "a", ["<img src=x onerror=alert(1)>" + "long " * 100], 1.0))
    html = page_of(everything, None, ["<b>"], "en")
    assert "<img" not in html and "&lt;img" in html and "&lt;b&gt;" in html
    assert "<details>" in html  # long, so folded


def test_answers_to_the_same_question_stand_beside_one_another(tmp_path: Path):
    before = predicted(tmp_path / "before", ["no", "maybe"], 1.0)
    after = predicted(tmp_path / "after", ["yes", "yes"], 9.0)
    beside = {(each.prompt, each.wanted): each for each in answers(before)}
    html = page_of(answers(after), beside, ["after", "before"], "en")
    assert html.index("yes") < html.index(">no<") < html.index("maybe")
    page = scores_page(after, before, "en")
    assert "+8, better" in page
    assert evaluated([tmp_path])[0] in (before, after) and len(evaluated([tmp_path])) == 2


def test_progress_is_of_answers_written_and_of_questions_asked(tmp_path: Path):
    folder = predicted(tmp_path / "a", ["one", "two"], 1.0)
    job = Job(tmp_path, "eval", "running", folder, 0.0)
    for log, share in (("predicting for 4 held-out sequences, into x", 0.5), ("正在对留出的 8 个序列做预测", 0.25),
                       ("250 of 1,000 questions, 9.0 a second", 0.25), ("已答 10 / 20 题，每秒 9 题", 0.5)):
        far = how_far(job, log)
        assert far and far.share == share
    assert how_far(job, "loading") is None


def test_what_is_measured_is_read_and_shown(page_server: Any, tab: Any, small: Path):
    """Its answers to a file of rows, from the first click to the table; junk in a number field is told before that."""
    shutil.copytree(small, page_server.folder / "small")
    rows = [{"instruction": f"Question {number}?", "output": f"The answer is {number}."} for number in range(3)]
    (page_server.folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    tab.choose("Evaluate")
    page = tab.page
    page.locator("#evaluate-model input").fill("small")
    page.locator("#evaluate-model input").press("Enter")
    page.locator("#evaluate-check").get_by_text("no data set is named").wait_for()
    page.locator("#evaluate-option-dataset input").fill("rows.json")
    page.locator("#evaluate-option-dataset input").press("Enter")
    length = page.locator("#evaluate-option-max_new_tokens").locator("textarea, input").first
    length.fill("many")
    page.locator("#evaluate-check").get_by_text("'many' is not a value it takes").wait_for()
    length.fill("4")
    page.locator("#evaluate-check").get_by_text("Ready to measure").wait_for()
    page.locator("#evaluate-start").click()
    page.locator("#evaluate-scores").get_by_text("rouge-1").wait_for(timeout=JOB)
    page.locator("#predictions-table").get_by_text("3 of 3 answers").wait_for()
    page.locator("#predictions-search").locator("textarea, input").first.fill("Question 2")
    page.locator("#predictions-table").get_by_text("1 of 3 answers").wait_for()
    assert "Question 2?" in page.locator("#predictions-table").inner_text()
    tab.shot("evaluate-done")
    shutil.rmtree(page_server.folder / "evaluations")
    page.locator("#evaluate-shown input").fill("evaluations/another")
    page.locator("#evaluate-shown input").press("Enter")
    page.locator("#evaluate-scores").get_by_text("is no folder that the page can show").wait_for()


def told(tmp_path: Path, purpose: str, **typed: Any) -> tuple[Config, dict[str, str]]:
    """What the form makes of fields that hold this; what it refuses, by option."""
    home = tmp_path.resolve()
    with gr.Blocks() as blocks:
        form = EvaluateForm(Page(Wording("en"), Roots([home]), Queue(home / "jobs"), Worker(), Models(home),
                                 gr.State("en"), blocks))
        form.draw_choice()
    config, findings = form.asked_for("bundled/smollm2-135m-instruct", purpose, typed)
    return config, {each.option or "": each.line(False) for each in findings if each.severity == "error"}


def test_a_data_set_that_is_not_there_is_told_before_the_start(tmp_path: Path):
    """And not minutes later, when the model is loaded; the names of other folders are not read."""
    _, errors = told(tmp_path, "perplexity", save_dir="out", dataset=["nothing.json"], dataset_dir=".")
    assert "nothing.json" in errors["dataset"]
    _, errors = told(tmp_path, "choices", save_dir="out", task="mmlu_test", dataset=["nothing.json"])
    assert errors == {}  # it has no field there


def test_tasks_of_the_harness_are_named_without_its_name(tmp_path: Path):
    config, errors = told(tmp_path, "lm_eval", save_dir="out", task="arc_easy")
    assert config.task == "lm_eval:arc_easy"
    assert find_spec("lm_eval") or errors == {"task": "error  task: lm_eval is not installed. pip install lm-eval"}


def test_results_never_go_into_a_folder_that_is_there(tmp_path: Path):
    (tmp_path / "old").mkdir()
    for folder in ("old", ""):
        assert "save_dir" in told(tmp_path, "choices", save_dir=folder, task="mmlu_test")[1]


def test_every_measure_shows_only_options_that_there_are():
    from truetune.options import OPTIONS

    assert {name for purpose in PURPOSES.values() for name in purpose.shows} <= set(OPTIONS)
