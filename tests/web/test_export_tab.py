"""The Export tab: what is asked for becomes the options of `truetune export`, the job is shown however often the page
is loaded, and what came out is told with its proof and with what to type next."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import expect

from truetune.exported import commands, id_rows, logit_rows
from truetune.findings import Problem, status_of
from truetune.jobs.queue import Job, Queue
from truetune.options import Config
from truetune.rules import apply_rules
from truetune.web.chat.served import Models
from truetune.web.export.exported import exported_page, next_commands
from truetune.web.export.tab import PURPOSES, ExportForm, how_far
from truetune.web.jobform import JobForm, configured_for, options_of
from truetune.web.page import Page
from truetune.web.roots import Roots
from truetune.web.words import Wording
from truetune.web.worker import Worker

JOB = 120_000
"""Milliseconds that a job may take, on a machine that has other things to do."""
PROOF = {
    "status": "passed", "first_difference": None, "left_out": [], "versions": {},
    "layers": [{"layer": "llama.cpp q8_0", "same": True, "ends": True, "more_ends": [], "wrong_ends": None,
                "probes": [{"verdict": "same"}, {"verdict": "same"}, {"verdict": "limit"}]}],
    "logits": [{"form": "llama.cpp q8_0", "base": "hf", "positions": 64, "largest": 0.283, "kl": 8e-4,
                "agreement": 1.0, "bound": {"kl": 0.05, "agreement": 0.85}, "near": True}],
    "notes": [{"en": "ends at <|im_end|> too", "zh": "也在 <|im_end|> 处结束"}]}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder as an export leaves it, without its weights."""
    folder = tmp_path / "my model"
    folder.mkdir()
    for name in ("config.json", "Modelfile", "my-model-Q8_0.gguf"):
        (folder / name).write_text("{}", encoding="utf-8")
    (folder / "parity.json").write_text(json.dumps(PROOF), encoding="utf-8")
    return folder


def run_folder(folder: Path) -> Path:
    """A run's folder as far as it matters to what is exported from it."""
    (folder / "checkpoint-4").mkdir(parents=True)
    (folder / "config.yaml").write_text("model_name_or_path: bundled/smollm2-135m-instruct\ntemplate: chatml\n",
                                        encoding="utf-8")
    for place in (folder, folder / "checkpoint-4"):
        (place / "adapter_config.json").write_text("{}", encoding="utf-8")
        (place / "adapter_model.safetensors").write_bytes(b"")
    (folder / "checkpoint-4" / "trainer_state.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_purpose_is_an_export_that_the_rules_allow(tmp_path: Path, purpose: str):
    """Its options go together, for a run whose adapter is exported and whose data are what it is calibrated on."""
    run = run_folder(tmp_path / "run")
    texts = {"export_dir": str(tmp_path / "out"), "dataset": "identity", **PURPOSES[purpose].sets}
    config, findings = configured_for(Roots([tmp_path]), "run", texts)
    assert status_of([*findings, *apply_rules(config, "export")]) == "ok"
    assert config.adapter_name_or_path == (str(run),)
    assert config.template == "chatml"  # of the run


def test_a_slip_is_told_of_its_field_and_not_of_a_command_line(tmp_path: Path):
    _, findings = configured_for(Roots([tmp_path]), "some/model", {"export_size": "large"})
    assert [(each.option, each.where, each.severity) for each in findings] == [("export_size", None, "error")]


def test_an_adapter_by_itself_brings_the_base_that_it_names(tmp_path: Path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "some/base"}), encoding="utf-8")
    config, _ = configured_for(Roots([tmp_path]), "adapter", {})
    assert (config.model_name_or_path, config.adapter_name_or_path) == ("some/base", (str(tmp_path / "adapter"),))


def test_nothing_outside_the_folders_of_the_page_is_read(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    for typed in ("/etc", "../", "~root"):
        with pytest.raises(Problem):
            options_of(Roots([tmp_path / "mine"]), typed)


@pytest.fixture
def form(tmp_path: Path) -> JobForm:
    """The tab's form on a page without a browser."""
    home = tmp_path.resolve()
    with gr.Blocks() as blocks:
        page = Page(Wording("en"), Roots([home]), Queue(home / "jobs"), Worker(), Models(home), gr.State("en"), blocks)
        form = ExportForm(page)
        form.draw_choice()
    return form


def asked(form: JobForm, purpose: str, model: str = "bundled/smollm2-135m-instruct", **typed: Any
          ) -> tuple[Config, list[str]]:
    """What the form makes of fields that hold this, and the options that are refused."""
    config, findings = form.asked_for(model, purpose, typed)
    return config, [finding.option or "" for finding in findings if finding.severity == "error"]


def test_what_a_purpose_hides_is_left_out(form: JobForm):
    """Bits that were typed for one purpose are not taken for another, which sets options of its own."""
    config, _ = asked(form, "gguf", export_dir="out", export_quantization_bit="4")
    assert (config.export_quantization_bit, config.export_format) == (None, ("gguf", "ollama"))
    config, _ = asked(form, "own", export_dir="out", export_quantization_bit="8")
    assert (config.export_quantization_bit, config.export_format) == (8, ("hf",))


def test_a_folder_without_a_model_is_told_before_the_start(form: JobForm, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    assert asked(form, "merged", "mine", export_dir="out")[1] == ["model_name_or_path"]
    (tmp_path / "mine" / "config.json").write_text("{}", encoding="utf-8")
    assert asked(form, "merged", "mine", export_dir="out")[1] == []


def test_a_folder_that_holds_something_is_refused_before_the_start(form: JobForm, tmp_path: Path):
    """Also one that a job is about to write, which a second page may have handed in."""
    for name, text in (("full", "mine"), ("empty", "")):
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / "file").write_text(text, encoding="utf-8")
    told = {name: asked(form, "merged", export_dir=name)[1] for name in ("full", "empty", "new", "")}
    assert told == {"full": ["export_dir"], "empty": [], "new": [], "": ["export_dir"]}


def test_progress_counts_the_stages_that_the_options_ask_for(tmp_path: Path):
    """Merged, two GGUF files and the proof are four; lines in Chinese count as well."""
    (tmp_path / "run.yaml").write_text("export_format: [gguf]\nexport_gguf_type: [q8_0, q4_k_m]\n", encoding="utf-8")
    job = Job(tmp_path, "export", "running", None, 0.0)
    far = how_far(job, "")
    assert far and far.share == 0
    for log in ("merged: 1 s\nq8_0: x (39 MB, 2 s)\n", "合并：1 秒\nq8_0：x（39 MB，用时 2 秒）\n"):
        far = how_far(job, log)
        assert far and far.share == 0.5


def test_the_proof_is_a_table_in_each_language(finished: Path):
    assert id_rows(PROOF["layers"], False) == [["llama.cpp q8_0", "yes", "2/2", "yes", "1"]]
    assert logit_rows(PROOF["logits"], True)[0][-1] == "是"
    english, chinese, traditional = (exported_page(finished, language) for language in ("en", "zh", "zh-Hant"))
    assert "Proven" in english and "已证明" in chinese and "已證明" in traditional
    assert "ends at &lt;|im_end|&gt; too" in english  # from a file, so escaped
    assert "my-model-Q8_0.gguf" in english and "how Ollama serves it" in english


def test_a_proof_that_cannot_be_read_leaves_the_files(finished: Path):
    (finished / "parity.json").write_text('{"status": ', encoding="utf-8")
    assert "Modelfile" in exported_page(finished, "en")


def test_what_to_type_next_runs_as_it_stands(finished: Path):
    """One change of folder, its name quoted, and then commands that name files in it."""
    lines = next_commands(finished, "exports/my model").splitlines()
    assert lines[0] == "cd 'exports/my model'"
    for line in ("truetune chat .", "vllm serve .", "llama-server --jinja -m my-model-Q8_0.gguf",
                 "ollama run my-model"):
        assert line in lines
    assert commands(finished, "name")[0][1][0] == "truetune chat name"  # the card says it from outside


def test_an_export_from_start_to_chat(page_server: Any, tab: Any, small: Path):
    """Pick, choose what for, start; load the page again, which holds what was chosen and picks the job up; then the
    proof, the commands, and Chat."""
    shutil.copytree(small, page_server.folder / "small")
    tab.choose("Export")
    page = tab.page
    page.locator("#export-model input").fill("small")
    page.locator("#export-model input").press("Enter")
    page.get_by_label("For vLLM, SGLang and transformers").check()
    folder = page.locator("#export-option-export_dir").locator("textarea, input").first
    expect(folder).to_have_value("exports/small-merged")
    page.locator("#export-check").get_by_text("Ready to export").wait_for()
    page.locator("#export-start").click()
    page.locator("#export-status").get_by_text("exports/small-merged").wait_for()
    page.reload()
    tab.ready()
    tab.choose("Export")
    expect(folder).to_have_value("exports/small-merged-2")  # the next one, of the same model for the same purpose
    expect(page.get_by_label("For vLLM, SGLang and transformers")).to_be_checked()
    page.locator("#export-result").get_by_text("Proven: ").wait_for(timeout=JOB)
    assert "model.safetensors" in page.locator("#export-result").inner_text()
    assert "vllm serve ." in page.locator("#export-next").inner_text()
    assert (page_server.folder / "exports" / "small-merged" / "parity.json").is_file()
    tab.shot("export-done")
    page.locator("#export-chat").click()
    page.get_by_role("tab", name="Chat", exact=True, selected=True).wait_for()


def test_a_failure_is_told_in_words(page_server: Any, open_tab: Any):
    """A model's folder with nothing but a configuration: the status says what is missing, in the page's language."""
    folder = page_server.folder / "empty"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    tab = open_tab(locale="zh-CN")
    tab.choose("导出")
    tab.page.locator("#export-model input").fill("empty")
    tab.page.locator("#export-model input").press("Enter")
    tab.page.locator("#export-check").get_by_text("可以导出").wait_for()
    tab.page.locator("#export-start").click()
    tab.page.locator("#export-status .error").wait_for(timeout=JOB)
    assert "错误" in tab.page.locator("#export-status").inner_text()
