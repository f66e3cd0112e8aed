"""How long people wait for the page: from `truetune webui` to a form that can be typed into, to what a change needs,
and to the curves of long runs.

    python benchmarks/web.py [--repeat 5] [--steps 10000]

A real browser (Chromium) is driven; medians are printed, in seconds:

started: from the command to its link. usable: from opening the link to a field that takes letters. again: the same
page loaded once more. curves: from pressing Runs to the drawn curve of a run of so many steps. overlaid: with two more
of them. estimate: from typing a batch size to another estimate of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

MODEL = "bundled/smollm2-135m-instruct"
RUNS = ("a", "b", "c")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10_000)
    asked = parser.parse_args()
    expect.set_options(timeout=60_000)
    waited: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        shutil.copytree(Path(__file__).parents[1] / "data", home / "data")
        for name in RUNS:
            write_run(home / "saves" / name, asked.steps)
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(asked.repeat):
            server, link, started = start(home)
            page = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US").new_page()
            for name, seconds in {"started": started, **watch(page, link)}.items():
                waited.setdefault(name, []).append(seconds)
            page.context.close()
            server.send_signal(signal.SIGINT)
            server.wait()
    print(json.dumps({name: round(statistics.median(times), 2) for name, times in waited.items()}))


def write_run(folder: Path, steps: int) -> None:
    """What a run of so many steps leaves behind, as far as the tab Runs reads it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"model_name_or_path: {MODEL}\nstage: sft\n", encoding="utf-8")
    (folder / "state").write_text(json.dumps({
        "status": "finished", "pid": 2**22 - 1, "pid_started": 0.0, "host": os.uname().nodename, "started": 1e9,
        "heartbeat": 1e9 + steps, "step": steps}), encoding="utf-8")
    with (folder / "events.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            told = {"event": "step", "time": 1e9 + step, "step": step, "total_steps": steps, "learning_rate": 1e-4,
                    "loss": exp(-step / steps) + step * 7919 % 101 / 1000, "grad_norm": 1.0, "tokens_per_second": 500.0}
            file.write(json.dumps(told) + "\n")


def start(home: Path) -> tuple[subprocess.Popen[str], str, float]:
    """The page, its link, and the seconds until it was printed."""
    environment = {**os.environ, "HOME": str(home), "LANG": "C.UTF-8",
                   **{f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "STATE", "DATA")}}
    began = time.perf_counter()
    server = subprocess.Popen([sys.executable, "-m", "truetune", "webui", "--web_port=0"], cwd=home, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    assert server.stdout
    link = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+/\?token=\S+", line)))
    return server, link, time.perf_counter() - began


def watch(page: Page, link: str) -> dict[str, float]:
    """One visit: seconds by what was waited for."""
    model, panel = page.locator("#option-model_name_or_path input").first, page.locator("#run-panel")
    curve, legend = page.locator("#run-curves svg").first, page.locator("#run-curves .legend").first
    batch, estimate = page.locator("#option-per_device_train_batch_size input").first, page.locator("#train-estimate")

    def opened() -> None:
        page.goto(link)
        model.fill("x")

    def reloaded() -> None:
        page.reload()
        model.fill("x")

    def drawn() -> None:
        page.get_by_role("tab", name="Runs").click()
        expect(curve).to_be_visible()

    def overlaid() -> None:
        for name in RUNS:
            if name not in panel.inner_text().split("saves/")[1].split()[0]:
                page.locator("#runs-compared input").click()
                page.get_by_role("option", name=f"saves/{name}").click()
                expect(legend).to_contain_text(f"saves/{name}")

    def estimated() -> None:
        before = estimate.inner_text()
        batch.fill("4" if batch.input_value() != "4" else "2")
        batch.press("Enter")
        expect(estimate).not_to_have_text(before)

    told = {"usable": timed(opened), "again": timed(reloaded), "curves": timed(drawn), "overlaid": timed(overlaid)}
    page.get_by_role("tab", name="Train").click()
    page.locator("#train-demo").click()
    expect(estimate).to_contain_text("GB")
    return {**told, "estimate": timed(estimated)}


def timed(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
