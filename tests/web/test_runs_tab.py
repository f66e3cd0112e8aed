"""The tab Runs, as people see it: a run that goes on, is stopped and resumed; several compared; one that vanishes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from test_runs import make_run

from truetune.history import History
from truetune.jobs.queue import Queue
from truetune.web.runs.curves import curves
from truetune.web.runs.tab import given


def test_what_stands_in_data_is_escaped(tmp_path: Path) -> None:
    """A run, or a number that it logs, may be called anything."""
    folder = make_run(tmp_path / "<script>")
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": "step", "step": 4, "<img src=x>": 1.0}) + "\n")
    history = History(folder)
    history.update()
    for language in ("en", "zh", "zh-Hant"):
        drawn = curves({"<b>one</b>": history, "two": history}, 0.9, language)
        assert "<img" not in drawn and "<b>one" not in drawn and "&lt;img src=x&gt;" in drawn


def test_ten_thousand_steps_are_few_points(tmp_path: Path) -> None:
    """However long three runs are, what is sent stays small."""
    histories = {}
    for name in "abc":
        history = History(make_run(tmp_path / name, steps=10_000))
        history.update()
        histories[name] = history
    assert len(curves(histories, 0.9, "en").encode()) < 60_000


def test_settings_that_are_copied(tmp_path: Path) -> None:
    """What somebody set, not what a rule chose nor where it wrote."""
    (tmp_path / "config.yaml").write_text(
        "lora_rank: 4  # run.yaml:3\nlora_alpha: 8  # rule: 2 x lora_rank\noutput_dir: x  # command line\n"
        "seed: 42\ndataset: [a, b]  # the page\n", encoding="utf-8")
    assert given(tmp_path / "config.yaml") == {"lora_rank": 4, "dataset": ["a", "b"]}


expect.set_options(timeout=60_000)


@pytest.fixture
def queue(page_server: Any) -> Queue:
    """The same queue that the page has."""
    return Queue(page_server.home / "state" / "truetune" / "jobs")


def test_the_life_of_a_run(page_server: Any, queue: Queue, tab: Any, tiny: Path) -> None:
    """Handed in, it appears by itself and its curve is drawn; stopped, it says from where it can go on; it is resumed,
    stopped again and deleted, asked twice. A run beside it is compared with it, and vanishes while it is shown."""
    saves = page_server.folder / "saves"
    other = make_run(saves / "other")
    tab.choose("Runs")
    page = tab.page
    panel = page.locator("#run-panel")
    expect(panel).to_contain_text("Finished after 3 steps")
    run = saves / "mine"
    data = page_server.folder / "rows.json"
    data.write_text(json.dumps([{"instruction": f"Question {n}?", "output": f"Answer {n}."} for n in range(12)]),
                    encoding="utf-8")
    queue.submit("train", json.dumps({
        "model_name_or_path": str(tiny), "dataset": str(data), "output_dir": str(run), "use_cpu": True, "bf16": False,
        "num_train_epochs": 9999, "logging_steps": 1, "plot_loss": False, "before_after": False}), run)
    page.locator("#runs-list").get_by_text(re.compile("saves/mine")).click()
    expect(panel).to_contain_text(re.compile(r"Trains: step \d+ of"))
    expect(page.locator("#run-curves svg").first).to_be_visible()
    page.locator("#runs-compared input").click()
    page.get_by_role("option", name="saves/other").click()
    expect(page.locator("#run-curves .legend")).to_contain_text("saves/other")
    page.locator("#run-stop").click()
    expect(panel).to_contain_text("is whole: it can be used, and Resume goes on from there")
    assert list(run.glob("checkpoint-*/optimizer.safetensors"))
    page.locator("#run-resume").click()
    expect(page.locator("#run-stop")).to_be_visible(timeout=60_000)
    page.locator("#run-stop").click()
    expect(page.locator("#run-resume")).to_be_visible(timeout=60_000)
    page.locator("#run-delete").click()
    expect(page.locator("#run-delete-sure")).to_contain_text("Delete this run for good?")
    page.locator("#run-delete-yes").click()
    expect(panel).to_contain_text("Finished after 3 steps")
    assert not run.exists()
    shutil.rmtree(other)
    expect(panel).to_contain_text("This run is gone")
