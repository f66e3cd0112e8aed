"""What the worker finds out about the run in the form, as the page shows it: the real model, real rows, no browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from truetune.jobs.queue import Queue
from truetune.web.chat.served import Models
from truetune.web.form import Texts, as_texts, configured
from truetune.web.page import Page
from truetune.web.roots import Roots
from truetune.web.train import checking
from truetune.web.words import Wording
from truetune.web.worker import Worker

EVIL = "</div><script>alert(1)</script>\u202eabc\x00 & <b>"
ROWS = [{"instruction": f"Question {number}?", "output": f"Answer {number}."} for number in range(8)]


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a small model and a few data sets."""
    folder = tmp_path_factory.mktemp("work").resolve()
    shutil.copytree(tiny, folder / "tiny")
    data = folder / "data"
    data.mkdir()
    pair = {"prompt": "Best?", "chosen": "Good.", "rejected": "Bad."}
    for name, rows in (("plain", ROWS), ("evil", [{"instruction": EVIL, "output": EVIL}] * 4), ("pairs", [pair] * 4)):
        (data / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page without a browser, with a worker of its own."""
    worker = Worker()
    worker.start()
    with gr.Blocks() as blocks:
        queue = Queue(tmp_path_factory.mktemp("jobs"))
        yield Page(Wording("en"), Roots([folder]), queue, worker, Models(folder), gr.State("en"), blocks)
    worker.close()


def texts(folder: Path, data: str = "plain", **more: str) -> Texts:
    """What stands in the form."""
    return {"model_name_or_path": str(folder / "tiny"), "dataset": str(folder / "data" / f"{data}.json"),
            "output_dir": str(folder / "saves" / "run"), **more}


def words(html: str) -> str:
    """The text of some HTML."""
    return re.sub(r"<[^>]*>", " ", html)


# ------------------------------------------------------------------------------------------------------------ estimate


def test_before_anything_is_chosen_it_says_what_to_choose(page: Page, folder: Path) -> None:
    assert "Choose a model" in checking.estimate(page, {}, "en")
    assert "请先选择模型" in checking.estimate(page, {}, "zh")
    assert "請先選擇模型" in checking.estimate(page, {}, "zh-Hant")
    assert "Choose data" in checking.estimate(page, {"model_name_or_path": str(folder / "tiny")}, "en")


def test_it_fits_or_is_too_big(page: Page, folder: Path) -> None:
    """In words and in colour, and with what would help."""
    small = checking.estimate(page, texts(folder), "en")
    assert "It fits." in small and 'class="verdict fits"' in small and "about" in words(small)
    big = checking.estimate(page, texts(folder, packing="true", cutoff_len="5000000"), "en")
    assert "Too big for what is free now." in big and 'class="verdict too-big"' in big


def test_more_of_a_model_trained_needs_more_memory(page: Page, folder: Path) -> None:
    def trained(html: str) -> int:
        found = re.search(r"weights trained</dt><dd>([\d,]+)", html)
        assert found
        return int(found[1].replace(",", ""))

    lora, full = (checking.estimate(page, texts(folder, finetuning_type=kind), "en") for kind in ("lora", "full"))
    assert trained(full) > 10 * trained(lora)


def test_it_follows_while_somebody_types(page: Page, folder: Path) -> None:
    """Once model and data are known, a number is reckoned anew within 0.3 s."""
    checking.estimate(page, texts(folder), "en")
    seconds = []
    for rate in ("1e-3", "2e-3", "3e-3"):
        begin = time.perf_counter()
        html = checking.estimate(page, texts(folder, learning_rate=rate, num_train_epochs="5"), "en")
        seconds.append(time.perf_counter() - begin)
        assert "5; 8 rows" in words(html)  # one step an epoch
    assert min(seconds) < 0.3


def test_a_file_that_has_changed_is_read_again(page: Page, folder: Path) -> None:
    file = folder / "data" / "grows.json"
    file.write_text(json.dumps(ROWS), encoding="utf-8")
    assert "8 rows" in checking.estimate(page, texts(folder, "grows"), "en")
    file.write_text(json.dumps(ROWS * 3), encoding="utf-8")
    assert "24 rows" in checking.estimate(page, texts(folder, "grows"), "en")


def test_nothing_is_downloaded_for_an_estimate(page: Page, folder: Path) -> None:
    """A hub's id is being typed: that is no reason to fetch gigabytes."""
    html = checking.estimate(page, {**texts(folder), "model_name_or_path": "someone/large-model"}, "en")
    assert "not on this machine yet" in html


# ------------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(("name", "value", "said"), [
    ("learning_rate", "fast", "learning_rate"),
    ("model_name_or_path", "/etc", "outside the folders"),
    ("dataset", "../../etc/passwd", "outside the folders"),
    ("dataset", "nix", "nix"),
    ("template", "llama33", "llama3"),
])
def test_what_is_wrong_is_said_in_words(page: Page, folder: Path, name: str, value: str, said: str) -> None:
    """Wherever it is asked, and never raised."""
    typed = {**texts(folder), name: value}
    assert said in words(checking.check_page(page, typed, "en").html)
    assert checking.check_page(page, typed, "zh").status == "error"
    assert said in words(checking.estimate(page, typed, "en")) or name == "template"
    checking.template_example(page, typed, "en")
    checking.data_preview(page, typed, "en")
    assert checking.recipe(page, typed, "", "en")[0] == {} or name == "template"


def test_a_model_or_file_that_is_broken(page: Page, folder: Path) -> None:
    """A folder without config.json, data that are no JSON: the reason, with the place."""
    (folder / "empty").mkdir()
    (folder / "data" / "broken.json").write_text('[{"instruction": "a", "output": ', encoding="utf-8")
    typed = {**texts(folder, "broken"), "model_name_or_path": str(folder / "empty")}
    html = checking.check_page(page, typed, "en").html
    assert "config.json" in html and "broken.json:1" in html


# ------------------------------------------------------------------------------------------------------ what is shown


def test_the_check_page(page: Page, folder: Path) -> None:
    """Findings, the first rows with what is learned of them in colour, every section; the progress is told."""
    said: list[Any] = []
    checked = checking.check_page(page, texts(folder), "zh", said.append)
    assert checked.status in ("ok", "warn")
    for title in ("数据", "对话模板", "步数", "内存", "磁盘", "机器"):
        assert f"<h4>{title}</h4>" in checked.html
    assert 'class="assistant learned"' in checked.html and "Answer 0." in checked.html


def test_what_could_be_set_otherwise_can_be_set(page: Page, folder: Path) -> None:
    """A cure of the check, typed into the form, is taken and mends what it was for."""
    typed = texts(folder, lora_alpha="1000")
    checked = checking.check_page(page, typed, "en")
    for cure in checked.cures:
        after = checking.check_page(page, {**typed, **as_texts(cure)}, "en")
        assert after.status != "error" and cure not in after.cures


@pytest.mark.parametrize("language", ["en", "zh", "zh-Hant"])
def test_what_stands_in_data_is_text(page: Page, folder: Path, language: Any) -> None:
    """Tags are no tags, and letters that are not seen, or turn the line around, are made visible."""
    typed = texts(folder, "evil", cutoff_len="512")
    for html in (checking.check_page(page, typed, language).html, checking.data_preview(page, typed, language)[0]):
        assert "&lt;script&gt;alert(1)" in html
        for raw in ("<script", "\u202e", "\x00", "<b> "):
            assert raw not in html
        assert html.count("<div") == html.count("</div>")


def test_the_template_is_shown_as_it_writes(page: Page, folder: Path) -> None:
    """The model's own where none is named; special tokens are seen, and answers are learned."""
    own = checking.template_example(page, {"model_name_or_path": str(folder / "tiny")}, "en")
    assert "&lt;|im_start|&gt;" in own and "the model&#x27;s own" in own and "Rome." in own
    assert 'class="assistant learned end"' in own
    named = checking.template_example(page, texts(folder, template="llama2"), "zh")
    assert "[INST]" in named and "罗马" in named
    assert "no template is used" in checking.template_example(page, texts(folder, stage="pt"), "en")


def test_rows_are_shown_a_page_at_a_time(page: Page, folder: Path) -> None:
    """As a conversation, and as what is trained on; asking past the end shows the last."""
    html, first, rows = checking.data_preview(page, texts(folder), "en", 6, 3)
    assert (first, rows) == (6, 8) and "Rows 7 to 8 of 8" in html
    assert "Question 7?" in html and "Question 5?" not in html
    assert checking.data_preview(page, texts(folder), "en", 99, 1)[1] == 7
    html, _, rows = checking.data_preview(page, texts(folder, "pairs", stage="dpo"), "zh", 0, 1)
    assert rows == 4 and "较好的回答" in html and "较差的回答" in html


def test_settings_are_suggested_with_their_reasons(page: Page, folder: Path) -> None:
    """What is suggested can be typed as it stands; what was typed stays."""
    filled, html = checking.recipe(page, texts(folder, num_train_epochs="7"), "style", "en")
    assert "learning_rate" in filled and "num_train_epochs" not in filled
    assert configured({**texts(folder), **filled})[1] == []
    assert "Goal: style" in html and "learning_rate" in html


def test_the_page_never_imports_torch() -> None:
    """What it shows crosses over as plain data."""
    code = ("import sys, truetune.web.train.checking, truetune.web.models\n"
            "print(sorted({'torch', 'transformers'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
