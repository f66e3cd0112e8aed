"""What can be picked on the page is what is on this machine; what cannot be read is left out or told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from truetune.web.models import MANY, adapters, datasets, ggufs, models, templates, trained, with_chosen
from truetune.web.roots import Roots


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """A working folder with models, runs on two of them, and data for two stages."""
    home = tmp_path.resolve()
    files = {
        "models/small/config.json": "{}", "models/small/model.safetensors": "12345",
        "models/no-weights/config.json": "{}",
        "saves/a/config.yaml": "model_name_or_path: models/small\nfinetuning_type: lora\n",
        "saves/a/adapter_model.safetensors": "1", "saves/a/checkpoint-5/adapter_model.safetensors": "1",
        "saves/b/config.yaml": "model_name_or_path: bundled/smollm2-135m-instruct\nfinetuning_type: full\n",
        "saves/b/config.json": "{}", "saves/b/model.safetensors": "1", "saves/broken/config.yaml": "{[",
        "saves/broken/model.safetensors": "1", "saves/other/adapter_config.json": "{}",
        "saves/other/config.yaml": "model_name_or_path: bundled/smollm2-135m-instruct\n",
        "saves/other/adapter_model.safetensors": "1", "saves/a/adapter_config.json": "{}",
        "saves/a/checkpoint-5/adapter_config.json": "{}",
        "loose/adapter_config.json": json.dumps({"base_model_name_or_path": "models/small", "peft_type": "LORA"}),
        "loose/adapter_model.safetensors": "1",
        "data/talk.json": '[{"instruction": "a", "output": "b"}]', "data/loose.txt": "text",
        "data/pairs.json": '[{"prompt": "a", "chosen": "b", "rejected": "c"}]',
        "data/dataset_info.json": json.dumps({"talk": {"file_name": "talk.json"}, "pairs": {
            "file_name": "pairs.json", "ranking": True,
            "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}}})}
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    return Roots([home])


def values(choices: list[tuple[str, str]]) -> set[str]:
    return {value for _, value in choices}


def test_models_of_this_machine(roots: Roots) -> None:
    """The bundled one first, then folders with weights, with their size; a damaged run does not hide the others."""
    found = models(roots, "en")
    assert found[0][1] == "bundled/smollm2-135m-instruct"
    assert {"models/small", "saves/b"} <= values(found)
    assert not {"models/no-weights", "saves/a"} & values(found)
    assert ("models/small · whole model, 5 B", "models/small") in found


def test_models_that_were_downloaded(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """ModelScope's cache, which lies outside of the page's folders."""
    weights = roots.home / ".cache" / "models" / "Qwen" / "Qwen9"
    weights.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (weights / name).write_text("{}", encoding="utf-8")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(roots.home / ".cache"))
    for offered in (models(roots, "en"), trained(roots, "en")):
        assert str(weights) in values(offered)


def test_adapters_of_the_model_come_first(roots: Roots) -> None:
    """Runs and their checkpoints, and adapters that say of which model they are; those of another model after them,
    with its name. Damaged runs and whole models are none."""
    found = adapters(roots, "zh", "models/small")
    assert {value for _, value in found[:3]} == {"saves/a", "saves/a/checkpoint-5", "loose"}
    assert [label for label, _ in found[3:]] == ["saves/other · 适配器, 基座 bundled/smollm2-135m-instruct, 1 B"]
    by_path = adapters(roots, "zh", str(roots.home / "models" / "small"))
    assert by_path == found
    assert {label.partition(" · ")[2] for label, _ in adapters(roots, "en")} == {"adapter, 1 B"}


def test_whatever_was_trained_is_offered_the_newest_first(roots: Roots) -> None:
    """To talk to, to measure, to export: runs, checkpoints, adapters and models; then the one of the package."""
    os.utime(roots.home / "loose", (2e9, 2e9))
    offered = [value for _, value in trained(roots, "en")]
    assert offered[0] == "loose"
    assert {"saves/a", "saves/a/checkpoint-5", "saves/b", "models/small"} <= set(offered)
    assert offered.index("bundled/smollm2-135m-instruct") > max(map(offered.index, ("saves/a", "models/small")))


def test_what_a_checkpoint_needs_to_go_on_is_no_weight(roots: Roots) -> None:
    """Its size is that of the adapter; the optimizer's states beside it are not loaded."""
    (roots.home / "saves" / "a" / "checkpoint-5" / "optimizer.safetensors").write_text("1" * 5000, encoding="utf-8")
    assert ("saves/a/checkpoint-5 · adapter, 1 B", "saves/a/checkpoint-5") in adapters(roots, "en")


def test_what_is_chosen_stays_in_the_list(roots: Roots) -> None:
    """Also when its folder was deleted meanwhile: the browser looks it up there."""
    offered = trained(roots, "en")
    assert with_chosen(offered, "saves/a") == with_chosen(offered, None) == offered
    assert with_chosen(offered, "saves/gone")[-1] == ("saves/gone", "saves/gone")
    assert with_chosen([], ["one", "two"]) == [("one", "one"), ("two", "two")]


def test_files_for_llama_cpp(roots: Roots) -> None:
    (roots.home / "exports").mkdir()
    (roots.home / "exports" / "mine-Q8_0.gguf").write_text("123", encoding="utf-8")
    assert ggufs(roots) == [("exports/mine-Q8_0.gguf · 3 B", "exports/mine-Q8_0.gguf")]


def test_a_huge_folder_hides_nothing_that_lies_higher(roots: Roots) -> None:
    """The search ends after some thousand folders; those near the top are looked at first."""
    (roots.home / "a-lot" / "of").mkdir(parents=True)
    for number in range(MANY):
        (roots.home / "a-lot" / "of" / str(number)).mkdir()
    assert {"saves/a", "models/small"} <= values(trained(roots, "en"))


def test_templates_the_models_own_first() -> None:
    assert templates("zh")[0] == ("模型自带（推荐）", "")
    assert "llama3" in values(templates("en")) and len(templates("en")) > 100


def test_data_sets_fit_the_stage(roots: Roots) -> None:
    """And files that lie there and are named nowhere."""
    answers, pairs = (datasets(roots, "data", stage, "en").choices for stage in ("sft", "dpo"))
    assert values(answers) == {"talk", "data/loose.txt"} and values(pairs) == {"pairs", "data/loose.txt"}
    assert ("talk · 1 row", "talk") in answers
    assert values(datasets(roots, "data", None, "en").choices) == {"talk", "pairs", "data/loose.txt"}


@pytest.mark.parametrize(("folder", "text"), [("data", "{ broken"), ("nix", None), ("/etc", None)])
def test_what_cannot_be_read_is_told(roots: Roots, folder: str, text: str | None) -> None:
    """A slip in dataset_info.json, a folder that is not there, one that the page may not read."""
    if text:
        (roots.home / folder / "dataset_info.json").write_text(text, encoding="utf-8")
    offer = datasets(roots, folder, "sft", "en")
    assert offer.choices == [] and offer.findings
