"""The tutorial of docs/web.md in a real browser: from a model that does not know its name to an export that does. In
English with the real model; in Chinese with two of its layers, whose answers mean nothing.

With TRUETUNE_SCREENSHOTS set to a folder, pictures of every step are kept there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect
from waiting import until

if TYPE_CHECKING:
    from web.conftest import OpenTab, PageServer, Tab

REPOSITORY = Path(__file__).parents[2]
WORK = 180_000
"""Milliseconds that training, loading or exporting may take here."""
ENGLISH: Mapping[str, str] = {
    "locale": "en-US", "train": "Train", "runs": "Runs", "chat": "Chat", "export": "Export", "memory": "of memory",
    "merged": "For vLLM, SGLang", "how": "Sampling", "who": "Who are you?", "ready": "Ready to export",
    "name": "Quill", "steps": "8", "shots": "en"}
CHINESE: Mapping[str, str] = {
    "locale": "zh-CN", "train": "训练", "runs": "运行", "chat": "对话", "export": "导出", "memory": "占用内存",
    "merged": "用于 vLLM、SGLang", "how": "采样（temperature 等）", "who": "你是谁？", "ready": "可以导出",
    "name": "小羽", "steps": "300", "shots": "zh"}


def test_the_tutorial_in_english(open_tab: OpenTab, page_server: PageServer) -> None:
    _tutorial(open_tab, page_server, "bundled/smollm2-135m-instruct", ENGLISH)


def test_the_tutorial_in_chinese(open_tab: OpenTab, page_server: PageServer, tiny: Path) -> None:
    shutil.copytree(tiny, page_server.folder / "models" / "tiny")
    _tutorial(open_tab, page_server, "models/tiny", CHINESE)


def _tutorial(open_tab: OpenTab, server: PageServer, model: str, words: Mapping[str, str]) -> None:
    """Pick a model, load the data, fill in a name, chat, train, stop, go on, chat again, export, chat with that."""
    shutil.copytree(REPOSITORY / "data", server.folder / "data", dirs_exist_ok=True)
    tab = open_tab(locale=words["locale"])
    run = f"saves/{words['shots']}"
    _chat_before(tab, model, words)
    _fill(tab, model, run, words)
    _train_stop_and_go_on(tab, run, words)
    _chat_after(tab, words)
    _export(tab, f"exports/{words['shots']}-merged", words)


def _chat_before(tab: Tab, model: str, words: Mapping[str, str]) -> None:
    tab.choose(words["chat"])
    _pick(tab, "chat-model", model)
    tab.page.locator("#chat-load").click()
    _ask(tab, words)
    tab.shot(f"{words['shots']}-1-chat-before")
    _unload(tab)


def _fill(tab: Tab, model: str, run: str, words: Mapping[str, str]) -> None:
    """A first run, of so many steps that there is time to stop it."""
    tab.choose(words["train"])
    tab.page.locator("#train-demo").click()
    expect(tab.field("identity_name")).not_to_have_value("")
    for name, value in {"model_name_or_path": model, "identity_name": words["name"],
                        "per_device_train_batch_size": "4", "output_dir": run}.items():
        tab.fill(name, value)
    tab.page.locator("#train-search textarea, #train-search input").fill("max_steps")
    tab.fill("max_steps", words["steps"])
    tab.page.locator("#train-search textarea, #train-search input").fill("logging_steps")
    tab.fill("logging_steps", "1")
    expect(tab.page.locator("#train-estimate")).to_contain_text(re.compile(r"GB|MB"), timeout=WORK)
    tab.shot(f"{words['shots']}-2-train")
    tab.page.locator("#train-start").click()


def _train_stop_and_go_on(tab: Tab, run: str, words: Mapping[str, str]) -> None:
    """The curve is there while it runs; a stop leaves a checkpoint, from which it goes on to its end."""
    page = tab.page
    expect(page.locator("#run-panel")).to_contain_text(run, timeout=WORK)
    expect(page.locator("#run-curves svg").first).to_be_visible(timeout=WORK)
    page.locator("#run-stop").click()
    expect(page.locator("#run-resume")).to_be_visible(timeout=WORK)
    assert list((tab.server.folder / run).glob("checkpoint-*"))
    page.reload()
    tab.ready()
    tab.choose(words["runs"])
    page.locator("#run-resume").click()
    expect(page.locator("#run-stop")).to_be_visible(timeout=WORK)
    expect(page.locator("#run-export")).to_be_visible(timeout=WORK)
    expect(page.locator("#run-stop")).not_to_be_visible(timeout=WORK)
    assert (tab.server.folder / run / "adapter_model.safetensors").is_file()
    tab.shot(f"{words['shots']}-3-run")


def _chat_after(tab: Tab, words: Mapping[str, str]) -> None:
    tab.page.locator("#run-chat").click()
    _ask(tab, words)
    tab.shot(f"{words['shots']}-4-chat-after")
    _unload(tab)


def _export(tab: Tab, export: str, words: Mapping[str, str]) -> None:
    """Merged, in small shards, proven; then the export answers."""
    page = tab.page
    tab.choose(words["runs"])
    page.locator("#run-export").click()
    page.get_by_label(words["merged"]).check()
    expect(page.locator("#export-check")).to_contain_text(words["ready"], timeout=WORK)
    page.locator("#export-option-export_size").locator("textarea, input").first.fill("1")
    page.locator("#export-start").click()
    until((tab.server.folder / export / "config.json").is_file, WORK / 1000)  # not the one of the test before
    expect(page.locator("#export-result")).to_contain_text("safetensors", timeout=WORK)
    tab.shot(f"{words['shots']}-5-export")
    page.locator("#export-chat").click()
    _ask(tab, words)
    tab.shot(f"{words['shots']}-6-chat-export")
    _unload(tab)


def _pick(tab: Tab, element: str, value: str) -> None:
    field = tab.page.locator(f"#{element} input").first
    field.fill(value)
    field.press("Enter")


def _ask(tab: Tab, words: Mapping[str, str]) -> None:
    """Ask once the model is there, and wait for the whole answer."""
    page = tab.page
    expect(page.locator("#chat-card-0")).to_contain_text(words["memory"], timeout=WORK)
    tokens = page.locator("#chat-option-max_new_tokens").locator("textarea, input").first
    if not tokens.is_visible():
        page.get_by_role("button", name=words["how"]).click()
    tab.type(tokens, "24")
    before = page.locator("[data-testid=bot]").count()
    page.locator("#chat-text textarea").fill(words["who"])
    page.locator("#chat-send").click()
    expect(page.locator("[data-testid=bot]")).not_to_have_count(before, timeout=WORK)
    expect(page.locator("#chat-send")).to_be_visible(timeout=WORK)
    assert page.locator("[data-testid=bot]").last.inner_text().strip()


def _unload(tab: Tab) -> None:
    tab.page.locator("#chat-unload-0").click()
    expect(tab.page.locator("#chat-nothing")).to_be_visible(timeout=WORK)
