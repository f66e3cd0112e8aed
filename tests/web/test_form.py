"""The training form without a browser: fields as text, what applies, files that the command line reads alike."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import gradio as gr
import pytest

from truetune.findings import Both, Problem
from truetune.jobs.queue import Queue
from truetune.options import OPTIONS
from truetune.options.read import read_config
from truetune.rules import apply_rules
from truetune.rules.applies import TIES, missing
from truetune.web.explained import explained, label
from truetune.web.form import Form, applying, as_file, as_texts, at_rest, configured
from truetune.web.roots import Roots
from truetune.web.train import panel
from truetune.web.train.live import proposed_folder, run_there, state_of, visible
from truetune.web.train.search import answer, found
from truetune.web.train.settings import commands, differences, load, save
from truetune.web.train.starting import start
from truetune.web.train.tab import GROUP_TITLES, basic, of_training
from truetune.web.words import Wording

TYPED = {"model_name_or_path": "models/a b", "dataset": "identity,other.json", "learning_rate": "1e-4",
         "lora_target": "q_proj,v_proj", "bf16": "true", "enable_thinking": "null", "output_dir": "saves/x",
         "lr_scheduler_kwargs": '{"num_cycles": 2}', "default_system": "Be: short\n# and “polite”"}


@pytest.fixture(scope="module")
def form() -> Form:
    """Every field of a training, drawn as the tab draws them."""
    with gr.Blocks():
        form = Form(Wording("en"))
        for name in of_training():
            form.draw(name)
    return form


def rest(form: Form, **texts: str) -> dict[str, object]:
    """What the browser holds once every field was touched, and some of them typed in."""
    return {name: {"true": True, "false": False}[texts.get(name, at_rest(field.option))]
            if isinstance(field.component, gr.Checkbox) else texts.get(name, at_rest(field.option))
            for name, field in form.fields.items()}


def test_only_what_was_changed_is_sent(form: Form):
    assert form.texts({}) == form.texts(rest(form)) == {}
    assert form.texts(rest(form, learning_rate=" 1e-4 ", plot_loss="false")) == {"learning_rate": "1e-4",
                                                                               "plot_loss": "false"}


def test_a_default_that_depends_on_others_can_still_be_typed(form: Form):
    """GRPO draws answers at temperature 1 unless somebody says 0.95, which is the default elsewhere."""
    assert configured(form.texts(rest(form, temperature="0.95", stage="grpo")))[0].given("temperature")


def test_the_file_says_the_same_to_the_command_line(tmp_path: Path):
    config, findings = configured(TYPED)
    path = tmp_path / "run.yaml"
    path.write_text(as_file(config, TYPED), encoding="utf-8")
    again, more = read_config([str(path)])
    assert again.model_dump() == config.model_dump() and findings == more == []
    assert {name for name in OPTIONS if again.given(name)} == {name for name in OPTIONS if config.given(name)}


@pytest.mark.parametrize("typed", ["abc", "１e-4，", "0。5", "1,5", "--", "null null"])
def test_what_is_no_number_is_told_and_kept(typed: str, tmp_path: Path):
    """Also with full-width digits and Chinese punctuation; a saved file still holds what was typed."""
    state = state_of({"learning_rate": typed}, Roots([tmp_path]))
    assert "learning_rate" in state.wrong
    assert typed in panel.findings(state.findings, "en")
    path = tmp_path / "run.yaml"
    path.write_text(as_file(state.config, state.texts), encoding="utf-8")
    texts, findings = load(path, of_training())
    assert texts == {"learning_rate": typed} and [finding.id for finding in findings] == ["bad-value"]


def test_markup_that_is_typed_is_shown_as_text(tmp_path: Path):
    state = state_of({"learning_rate": "<script>", "model_name_or_path": "<b>m"}, Roots([tmp_path]))
    for html in (panel.findings(state.findings, "en"), differences(state.config, state.sent, "en"),
                 answer([], [], state.config, "<script>", "zh"), panel.before_start("<b>", [], "en")):
        assert "<script>" not in html and "<b>m" not in html and "<b></b>" not in html


def test_hidden_options_are_kept_and_not_sent():
    typed = {"stage": "sft", "pref_beta": "0.3", "learning_rate": "1e-4"}
    assert applying(typed) == {"stage": "sft", "learning_rate": "1e-4"}
    assert applying({**typed, "stage": "dpo"})["pref_beta"] == "0.3"


@pytest.mark.parametrize("stage, shown, hidden", [
    ("sft", "use_dft_loss", "pref_beta"), ("dpo", "pref_loss", "reward_funcs"),
    ("grpo", "num_generations", "pref_loss"), ("rm", "reward_margin", "teacher_model"),
    ("distill", "teacher_model", "reward_margin")])
def test_each_stage_shows_its_own_options(stage: str, shown: str, hidden: str):
    config, _ = configured({"stage": stage})
    assert missing(shown, config) is None and isinstance(missing(hidden, config), Both)


def test_the_form_and_the_rules_agree_on_what_belongs_to_a_method():
    """What a rule calls of another method has no field with this one, and nothing is tied that is no option."""
    assert {name for tie in TIES for name in tie.names} <= set(OPTIONS)
    config, _ = configured({"finetuning_type": "full", "lora_rank": "16", "oft_rank": "4"})
    told = {finding.option for finding in apply_rules(config, "train") if finding.id == "other-method"}
    assert told == {"lora_rank", "oft_rank"} and all(missing(name, config) for name in told)


def test_every_option_of_a_stage_is_tied_to_it():
    """A new option of preferences, rewards or rollouts must say which stages it belongs to."""
    tied = {name for tie in TIES for name in tie.names}
    for option in OPTIONS.values():
        if option.group.title[0] in ("Preference", "Reward", "Rollouts", "Loss") and option.works:
            assert option.name in tied, option.name


def test_search_finds_by_what_somebody_wants(form: Form):
    """In either language and script, and the expert's options too."""
    assert "lora_dropout" in found("overfit", "en")
    assert found("过拟合", "zh") == found("過擬合", "zh-Hant") != []
    assert "gradient_checkpointing" in found("显存", "zh")
    assert found("galore rank", "en")[0] == "galore_rank"
    assert found("  ", "en") == []


def test_search_says_where_what_it_found_is(form: Form):
    config, _ = configured({})
    html = answer(["learning_rate", "pref_beta", "deepspeed"], form.fields, config, "x", "en")
    assert 'href="#field-learning_rate"' in html and "belongs to stage dpo, kto" in html and "Not done here" in html
    assert "Nothing speaks of" in answer([], form.fields, config, "qqq", "en")


def test_expert_options_show_once_found_or_set(tmp_path: Path):
    names = of_training()
    state = state_of({}, Roots([tmp_path]))
    assert not visible(state, basic(), names, [], "")["adam_beta1"]
    assert visible(state, basic(), names, ["adam_beta1"], "beta")["adam_beta1"]
    assert visible(state_of({"adam_beta1": "0.8"}, Roots([tmp_path])), basic(), names, [], "")["adam_beta1"]
    assert all(visible(state, basic(), names, [], "x")[name] for name in ("learning_rate", "output_dir"))


def test_labels_begin_with_the_name_and_keep_to_a_line(form: Form):
    for name in basic():
        for language in ("en", "zh", "zh-Hant"):
            text = label(OPTIONS[name], language)
            assert text.startswith(f"{name} · ") and len(text) <= 62, text
    assert "往哪边调" in explained(OPTIONS["learning_rate"], "zh") and "adv" not in explained(OPTIONS["seed"], "zh")


def test_every_group_of_a_training_is_drawn_and_no_secret():
    assert {OPTIONS[name].group.title[0] for name in of_training()} <= set(GROUP_TITLES)
    assert not any(OPTIONS[name].text.secret or not OPTIONS[name].works for name in of_training())


def test_a_run_s_own_file_and_llama_factory_s_can_be_loaded(tmp_path: Path):
    path = tmp_path / "old.yaml"
    path.write_text("model_name_or_path: m\nuse_lora: true\ndataset: [a, b]\nfp16: false\nsave_safetensors: true\n"
                    "export_dir: e\ncutoff_length: 1024\nhf_hub_token: hf_x\nnonsense: 1\n", encoding="utf-8")
    texts, findings = load(path, of_training())
    assert texts["dataset"] == "a,b" and texts["finetuning_type"] == "lora" and "hf_hub_token" not in texts
    assert {"unknown-option", "not-of-training"} <= {finding.id for finding in findings}


def test_a_file_is_written_below_the_roots_only_and_over_another_only_when_asked_twice(tmp_path: Path):
    roots = Roots([tmp_path])
    assert save(roots, "a/run", "x: 1\n", overwrite=False) == tmp_path / "a" / "run.yaml"
    for typed, overwrite in (("a/run.yaml", False), ("../out.yaml", True), ("", False), ("/etc/x.yaml", True)):
        with pytest.raises(Problem):
            save(roots, typed, "x: 2\n", overwrite=overwrite)
    save(roots, "a/run.yaml", "x: 3\n", overwrite=True)
    assert (tmp_path / "a" / "run.yaml").read_text(encoding="utf-8") == "x: 3\n"


def test_the_command_quotes_what_a_shell_would_read(tmp_path: Path):
    config, _ = configured(TYPED)
    text = commands(config, TYPED, "run.yaml")
    assert "truetune train run.yaml" in text and "--model_name_or_path 'models/a b'" in text


def test_the_run_folder_is_proposed_where_nothing_is(tmp_path: Path):
    config, _ = configured({"model_name_or_path": "org/My Model"})
    now = datetime(2026, 1, 2, 3, 4, 5)
    first = proposed_folder(config, Roots([tmp_path]), [], now)
    assert first == "saves/My-Model/lora/train_2026-01-02-03-04-05"
    (tmp_path / first).mkdir(parents=True)
    (tmp_path / first / "config.yaml").touch()
    assert proposed_folder(config, Roots([tmp_path]), [], now) == f"{first}-2"
    assert proposed_folder(configured({})[0], Roots([tmp_path]), [], now) == ""


def test_start_refuses_what_is_wrong_and_what_runs_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is handed in then; the words say what to do."""
    monkeypatch.chdir(tmp_path)
    roots, queue = Roots([tmp_path]), Queue(tmp_path / "jobs")
    good = {"model_name_or_path": "m", "dataset": "d", "output_dir": "saves/x"}
    held = tmp_path / "saves" / "held"
    held.mkdir(parents=True)
    (held / "config.yaml").write_text("model_name_or_path: m\n", encoding="utf-8")
    for texts, said in (({}, "model"), ({**good, "learning_rate": "x"}, "learning_rate"),
                        ({**good, "output_dir": "../x"}, "outside"), ({**good, "output_dir": "saves/held"}, "holds")):
        with pytest.raises(Problem, match=said):
            start(texts, roots, queue)
    assert queue.jobs() == []
    assert run_there(state_of({**good, "output_dir": "saves/held"}, roots), roots) == (held, "?")


def test_cures_are_typed_in_as_a_person_would():
    assert as_texts({"lora_target": ("all",), "steps_per_generation": None, "enable_thinking": None,
                     "use_dora": False, "learning_rate": 2e-4, "warmup_ratio": 1 / 3}) == {
        "lora_target": "all", "steps_per_generation": "", "enable_thinking": "null", "use_dora": "false",
        "learning_rate": "0.0002", "warmup_ratio": repr(1 / 3)}
