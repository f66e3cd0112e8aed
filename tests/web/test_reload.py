"""A page's death is not a run's death (invariant I7): the server is killed in mid-run, a second browser takes over, and
whatever tab is shown, a reload finds it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect
from waiting import until

from truetune.jobs.queue import Job, Queue

if TYPE_CHECKING:
    from web.conftest import OpenTab, PageServer, Tab


def _settings(server: PageServer, model: Path, name: str) -> Mapping[str, str]:
    """A run that does not end by itself, as it is typed."""
    rows = [{"instruction": f"Question {n}?", "output": f"Answer {n}."} for n in range(12)]
    (server.folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    shutil.copytree(model, server.folder / "models" / "small", dirs_exist_ok=True)
    return {"model_name_or_path": "models/small", "dataset": "rows.json", "num_train_epochs": "9999",
            "output_dir": f"saves/{name}"}


def _start(tab: Tab, settings: Mapping[str, str]) -> None:
    """Fill the form and press Start, as a person does."""
    tab.choose("Train")
    for name, value in settings.items():
        tab.fill(name, value)
    expect(tab.page.locator("#train-estimate")).to_contain_text("GB")
    tab.page.locator("#train-start").click()
    expect(tab.page.locator("#run-panel")).to_contain_text(settings["output_dir"])


def _job(queue: Queue, name: str) -> Job:
    return next(job for job in queue.jobs() if job.output and job.output.name == name)


def _steps(run: Path) -> int:
    """How many steps it has written down."""
    return (run / "events.jsonl").read_text(encoding="utf-8").count('"step"')


def test_the_server_is_killed_in_the_midst_of_a_run(page_server: PageServer, open_tab: OpenTab, small: Path) -> None:
    """The run goes on, and what waits behind it stays. Started again on its port, the page is the same to two
    browsers: the second stops the run of the first, and what had waited begins by itself."""
    server, queue = page_server, Queue(page_server.home / "state" / "truetune" / "jobs")
    first, second = open_tab(), open_tab()
    _start(first, _settings(server, small, "one"))
    panel = first.page.locator("#run-panel")
    expect(panel).to_contain_text("Trains: step")
    _start(second, _settings(server, small, "two"))
    assert _job(queue, "two").status == "waiting"

    run, process = server.folder / "saves" / "one", _job(queue, "one").process
    server.kill()
    before = _steps(run)
    until(lambda: _steps(run) > before + 2)
    server.restart()

    for tab in (first, second):
        tab.page.reload()
        tab.ready()
        tab.errors.clear()  # of the time without a server
    expect(panel).to_contain_text("Trains: step")
    page = second.page
    expect(page.locator("#queue-waiting input").first).to_have_value("1. train two")
    page.locator("#runs-list").get_by_text("saves/one").click()
    page.locator("#run-stop").click()
    expect(page.locator("#run-resume")).to_be_visible()
    expect(panel).to_contain_text("Resume goes on from there")
    assert process and not process.find() and list(run.glob("checkpoint-*/optimizer.safetensors"))
    page.locator("#runs-list").get_by_text("saves/two").click()
    expect(page.locator("#run-panel")).to_contain_text("Trains: step")
    page.locator("#run-stop").click()
    expect(page.locator("#run-resume")).to_be_visible()


def test_every_tab_is_there_again_after_a_reload(tab: Tab) -> None:
    """Also after one in the midst of another, while whatever the tab reads is still on its way."""
    tab.page.add_init_script("""
        const noted = [], replace = history.replaceState.bind(history);
        window.noted = noted;
        history.replaceState = (...given) => { noted.push(given[2]); replace(...given); };
    """)
    for name in ("Data", "Export", "Evaluate", "Chat", "Runs", "Train"):
        tab.choose(name)
        tab.page.reload(wait_until="domcontentloaded")
        tab.page.reload()
        tab.ready()
        expect(tab.page.get_by_role("tab", name=name, exact=True).first).to_have_attribute("aria-selected", "true")
        assert {"#" + name.lower()} >= set(tab.page.evaluate("window.noted")), "never another, not for a moment"
        tab.require_fine()
