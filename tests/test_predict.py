"""Predictions: answers to held-out rows and how they are scored, as users of LLaMA-Factory know them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import events, options, write_rows
from test_train import run

from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.evaluate import similarity as similarity_module
from truetune.evaluate.predict import PREDICTIONS, Question, questions
from truetune.evaluate.similarity import package_findings, similarity
from truetune.findings import Problem
from truetune.options.read import read_config

PACKAGES = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in similarity_module.PACKAGES),
    reason="answers are compared with packages of the extra metrics: pip install jieba rouge-chinese nltk")

# ------------------------------------------------------------------------------------------------------------- scores


@PACKAGES
def test_scores_by_hand() -> None:
    """Said `a b c d`, wanted `a b x d`: 3 of 4 words, 1 of 3 pairs of words, 3 in order.

    BLEU counts characters, of which there are 7: 6 of 7 are right, 4 of 6 pairs, 2 of 5 triples (`a b` and ` b `) and
    1 of 4 quadruples (`a b `).
    """
    scores = similarity(["a b c d"], ["a b x d"])
    assert scores["rouge-1"] == pytest.approx(75, abs=0.01)
    assert scores["rouge-2"] == pytest.approx(100 / 3, abs=0.01)
    assert scores["rouge-l"] == pytest.approx(75, abs=0.01)
    assert scores["bleu-4"] == pytest.approx(100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25, abs=0.01)


@PACKAGES
def test_chinese_is_cut_into_words() -> None:
    """`我喜欢北京` and `我喜欢上海` share the words 我 and 喜欢 of three each; they are not one long word."""
    scores = similarity(["我喜欢北京"], ["我喜欢上海"])
    assert scores["rouge-1"] == pytest.approx(200 / 3, abs=0.01) and scores["rouge-2"] == pytest.approx(50, abs=0.01)


@PACKAGES
def test_equal_empty_and_different_texts() -> None:
    """Equal texts have 100, an empty one 0, and the scores of several texts are their mean."""
    assert similarity(["the same words"], ["the same words"]) == pytest.approx(dict.fromkeys(similarity_module.NAMES,
                                                                                             100), abs=0.01)
    for said, wanted in (("", "words"), ("words", ""), ("", "")):
        assert similarity([said], [wanted]) == pytest.approx(dict.fromkeys(similarity_module.NAMES, 0))
    both = similarity(["the same words", ""], ["the same words", "words"])
    assert both == pytest.approx(dict.fromkeys(similarity_module.NAMES, 50), abs=0.01)


# ---------------------------------------------------------------------------------------------------------- questions


def test_each_row_asks_for_its_last_answer() -> None:
    """A conversation asks once, with all that came before; so does one that is learned in several sequences. Parts of
    an answer that count differently are one answer; a row without one asks nothing."""
    ids, here, there = np.arange(10), Place("f:", 1), Place("f:", 2)
    turns = Rendered(ids, (Run(2, 4, 1.0), Run(6, 9, 1.0)), place=here)
    assert questions([turns]) == [Question([0, 1, 2, 3, 4, 5], [6, 7, 8])]
    earlier = Rendered(ids[:4], (Run(2, 4, 1.0),), place=here)
    assert questions([earlier, turns]) == questions([turns])
    parts = Rendered(ids, (Run(2, 4, 1.0), Run(6, 7, 1.0), Run(7, 8, 0.5), Run(8, 9, 1.0)), place=there)
    assert questions([turns, parts]) == 2 * questions([turns])
    assert questions([Rendered(ids, ())]) == []


# --------------------------------------------------------------------------------------------------------- end to end

SAYING: dict[str, object] = {
    "predict_with_generate": True, "do_predict": True, "max_new_tokens": 24, "do_sample": "false", "plot_loss": "false",
    "learning_rate": 3e-3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / PREDICTIONS).read_text(encoding="utf-8").splitlines()]


@PACKAGES
def test_answers_are_written_and_scored(tiny: Path, tmp_path: Path) -> None:
    """A model that was taught one answer by heart gives it to held-out questions, and the scores say so."""
    data = write_rows(tmp_path / "rows.json", 8, answer="Certainly.")
    held = tmp_path / "held.json"
    held.write_text(json.dumps([{"instruction": f"Question {n}?", "input": "", "output": "Certainly."}
                                for n in (91, 92, 93)], indent=1), encoding="utf-8")
    rows = [json.loads(data.read_text(encoding="utf-8"))]
    data.write_text(json.dumps([{**row, "output": "Certainly."} for row in rows[0]], indent=1), encoding="utf-8")
    out = tmp_path / "out"
    said = run(out, tiny, data, eval_dataset=held, num_train_epochs=20, **SAYING)
    lines = told(out)
    assert len(lines) == 3 and "generated_predictions.jsonl" in said
    for number, line in zip((91, 92, 93), lines, strict=True):
        assert line.keys() == {"prompt", "predict", "label"}
        assert line["prompt"].endswith(f"<|im_start|>user\nQuestion {number}?<|im_end|>\n<|im_start|>assistant\n")
        assert line["predict"] == line["label"] == "Certainly."
    results = json.loads((out / "predict_results.json").read_text(encoding="utf-8"))
    assert {name for name in results if name.startswith("predict_")} == {
        "predict_rouge-1", "predict_rouge-2", "predict_rouge-l", "predict_bleu-4", "predict_runtime",
        "predict_samples_per_second"}
    assert results["predict_rouge-1"] == pytest.approx(100, abs=0.01) == results["predict_bleu-4"]
    assert results.items() <= json.loads((out / "all_results.json").read_text(encoding="utf-8")).items()


@PACKAGES
def test_predicting_without_training(tiny: Path, tmp_path: Path) -> None:
    """do_predict alone: the model as it is answers, and nothing of it is written."""
    held = write_rows(tmp_path / "held.json", 3)
    out = tmp_path / "out"
    run(out, tiny, held, eval_dataset=held, do_train="false", **SAYING)
    assert len(told(out)) == 3 and not list(out.glob("*.safetensors"))
    assert told(out)[0]["label"] == "The answer is 0, and then some words."


@PACKAGES
def test_ctrl_c_keeps_what_is_written(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C while answers are written ends that alone: the model is saved, and so are the answers so far."""
    held, out = write_rows(tmp_path / "held.json", 40), tmp_path / "out"
    monkeypatch.setattr("truetune.evaluate.predict._AT_ONCE", 2)

    def press() -> None:
        while not (out / PREDICTIONS).is_file() or not told(out):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    run(out, tiny, held, eval_dataset=held, max_steps=1, **SAYING)
    assert 2 <= len(told(out)) < 40 and (out / "adapter_model.safetensors").is_file()
    assert not (out / "predict_results.json").exists()
    assert "stopped predicting" in events(out, "note")[-1]["text"]


def test_missing_packages_are_told_before_training(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the command that installs them, before a step is taken; nothing where none is needed."""
    monkeypatch.setattr(similarity_module, "PACKAGES", {"jieba_is_not_here": "jieba", "neither_is_nltk": "nltk"})
    data = write_rows(tmp_path / "rows.json", 4)
    with pytest.raises(Problem, match=r"predict_with_generate.*not installed: jieba nltk.*pip install jieba nltk"):
        run(tmp_path / "out", tiny, data, val_size=2, **SAYING)
    assert not (tmp_path / "out" / "events.jsonl").exists()
    config, _ = read_config(options())
    assert package_findings(config) == []
