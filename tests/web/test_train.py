"""The Train tab as a person uses it, in a browser, with the real server and the model that comes with truetune."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(autouse=True)
def data(page_server) -> None:
    """The data sets of the repository, where the page is started."""
    shutil.copytree(DATA, page_server.folder / "data", dirs_exist_ok=True)


def test_typing_tells_at_once_what_is_wrong_and_the_draft_outlives_a_reload(tab):
    page = tab.page
    expect(page.locator("#train-findings")).to_contain_text("Still needed")
    tab.fill("learning_rate", "1e-4，")
    expect(page.locator("#train-findings")).to_contain_text("1e-4，")
    expect(page.locator("#field-learning_rate.wrong")).to_be_visible()
    tab.fill("stage", "dpo")
    expect(tab.field("pref_beta")).to_be_visible()
    tab.fill("pref_beta", "0.3")
    tab.fill("stage", "sft")
    expect(tab.field("pref_beta")).to_have_count(0)
    page.wait_for_timeout(500)
    page.reload()
    tab.ready()
    expect(tab.field("learning_rate")).to_have_value("1e-4，")
    tab.fill("stage", "dpo")
    expect(tab.field("pref_beta")).to_have_value("0.3")


def test_search_brings_up_an_expert_option_in_chinese(open_tab):
    tab = open_tab(locale="zh-CN", width=390, color_scheme="dark")
    page = tab.page
    expect(page.locator("#field-lora_dropout")).not_to_be_visible()
    page.locator("#train-search").locator("textarea, input").fill("过拟合")
    expect(page.locator("#field-lora_dropout")).to_be_visible()
    expect(page.locator("#train-start")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.shot("train-phone-zh")


def test_a_newcomer_fills_in_the_first_run_and_starts_it_once(tab):
    page = tab.page
    page.locator("#train-demo").click()
    expect(tab.field("output_dir")).to_have_value(_begins("saves/smollm2-135m-instruct/lora/train_"))
    tab.fill("max_samples", "8")
    tab.fill("num_train_epochs", "1")
    expect(page.locator("#train-findings")).to_contain_text("go together")
    expect(page.locator("#train-estimate")).to_contain_text("fits", timeout=60_000)
    tab.shot("train")
    page.locator("#train-start").dblclick()
    expect(page.locator(".toast-body").filter(has_text="It has started")).to_be_visible()  # nothing is before it
    expect(page.get_by_role("tab", name="Runs", exact=True)).to_have_attribute("aria-selected", "true")
    folder = tab.server.home / "state" / "truetune" / "jobs"
    states = [json.loads((job / "state").read_text(encoding="utf-8")) for job in folder.iterdir() if job.is_dir()]
    assert len(states) == 1 and Path(states[0]["output"]).is_relative_to(tab.server.folder / "saves")


def _begins(text: str):
    return re.compile(f"^{re.escape(text)}")
