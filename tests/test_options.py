"""Options: what is declared, what a person may type, what is said when it is wrong. Needs no torch and no model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from conftest import ROOT

from truetune.findings import Problem, status_of
from truetune.options import GROUPS, OPTIONS, Config
from truetune.options.help import options_help
from truetune.options.read import canonical_name, read_config
from truetune.options.schema import Text
from truetune.options.sources import SOURCES
from truetune.rules import RULES, apply_rules

# ---------------------------------------------------------------------------------------------------------------------
# What is declared

KNOWN: dict[str, dict[str, tuple[Any, Any]]] = json.loads(
    (Path(__file__).parent / "known_options.json").read_text(encoding="utf-8"))
"""Every option of LLaMA-Factory and of Hugging Face's (Seq2Seq)TrainingArguments, 4 and 5, as their sources have it:
what it takes (a kind, or the words) and its default. Of 5 only what 4 has not, or has with another default."""
NAMES = sorted(set().union(*KNOWN.values()))

DIFFERENT_ON_PURPOSE = {  # name: (there, here, why)
    "do_train": (False, True, "`truetune train` trains"),
    "plot_loss": (False, True, "a run without a picture of its loss helps nobody"),
    "logging_steps": (500, 10, "most fine-tuning runs have fewer than 500 steps, and would log nothing"),
    "bf16": (False, None, "unset: the faster safe precision is measured"),
    "fp16": (False, None, "unset: the faster safe precision is measured"),
    # LLaMA-Factory turns it on, and everybody pays a third of the speed. Here: where it is needed.
    "disable_gradient_checkpointing": (False, None, "unset: only where the batch would not fit"),
    "neat_packing": (False, None, "unset: packing decides, which is always of this kind; pt joins texts"),
    # What has no effect here has the value of what is done anyway, so that asking for that is no news.
    "use_reentrant_gc": (True, False, "PyTorch recommends the newer way, which gives the same numbers"),
    "include_num_input_tokens_seen": ("no", True, "tokens are always counted"),
    "metric_for_best_model": (None, "eval_loss", "the evaluation loss is what is compared"),
    "greater_is_better": (None, False, "a lower loss is better"),
    "batch_size": (4, None, "unset: as many questions as fit, since they share their examples"),
}
OURS = {
    "on_bad_row": "error", "overlong": "drop", "identity_name": None, "identity_author": None, "loss_weights": {},
    "center_rewards_coefficient": 0.0, "reward_margin": 0.0, "teacher_model": None, "teacher_model_adapters": (),
    "distill_beta": 0.5, "distill_temperature": 1.0, "lmbda": 0.0, "kd_ratio": 1.0, "pref_loss_weights": (),
    "discopop_tau": 0.05,
    "precompute_ref_log_probs": None, "ppo_kl_coef": 0.2, "ppo_adaptive_kl": True, "ppo_gamma": 1.0,
    "ppo_lambda": 0.95, "ppo_clip": 0.2, "ppo_clip_value": 0.2, "ppo_value_coef": 0.1, "reward_funcs": (),
    "reward_weights": (), "reward_pattern": None, "reward_word": None, "max_completion_length": None,
    "num_generations": 8, "steps_per_generation": None, "num_iterations": 1, "beta": 0.0, "epsilon": 0.2,
    "epsilon_high": None, "loss_type": "dapo", "scale_rewards": "group", "baseline": "group",
    "importance_sampling_level": "token", "mask_truncated_completions": False, "before_after": True,
    "probe_prompts": (), "export_base": None, "optimizer_in_backward": False, "l1_lambda": 0.0, "l2_lambda": 0.0,
    "init_lora_weights": "default", "adalora_init_r": None, "adalora_tinit": 0, "adalora_tfinal": 0,
    "adalora_deltaT": 1, "adalora_orth_reg_weight": 0.5, "num_virtual_tokens": 20,
    "prompt_tuning_init_text": None, "prefix_projection": False, "encoder_hidden_size": None, "bottleneck_size": 64,
    "bottleneck_target": ("attention", "mlp"), "num_expand": 8,
    "infer_endpoint": None, "infer_api_key": None, "infer_adapters": {}, "infer_batch": 8, "infer_maxlen": None,
    "web_host": "127.0.0.1", "web_port": 7860, "web_token": None, "web_roots": (), "web_max_upload": 1000,
    "web_open_browser": False,
    "api_host": "127.0.0.1", "api_port": 8000, "api_key": None, "api_model_name": None, "api_queue": 64,
    "api_timeout": 600, "api_max_body": 4, "export_format": ("hf",), "export_gguf_type": ("q8_0",),
    "export_imatrix": None, "export_adapter_only": False, "export_parity": "full",
    "export_quantization_method": "gptq",
    "min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "generation_seed": None,
    "rope_factor": None, "attention_dropout": None, "activation_offload": False, "eval_in_chat": None,
}
EMPTY = (None, (), {}, "")
"""What is nothing there and here: a comma string is a tuple here, and a mapping is never None."""


def _samples(takes: str | list[Any], default: Any) -> list[str]:
    """Values that LLaMA-Factory would read, as they are typed."""
    kinds = {"bool": ["true", "False", "1", "no"], "bool or null": ["true", "false", "null"], "int": ["64"],
             "float": ["0.5"], "text": ["abc"], "names": ["a,b"], "numbers": ["0.5,0.5"], "mapping": ['{"a": 1}']}
    values = kinds[takes] if isinstance(takes, str) else [_typed(word) for word in takes]
    return values if default is None else [*values, _typed(default)]


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_all_names_of_llama_factory_and_hugging_face_are_known():
    assert len(KNOWN["LLaMA-Factory 0.9.6.dev0"]) == 268  # 267, and kt_config when chatting
    assert len(KNOWN["transformers 4.57.1"]) == 137
    assert [name for name in NAMES if canonical_name(name) not in OPTIONS] == []


@pytest.mark.parametrize("origin", KNOWN)
def test_their_values_are_read(origin):
    """Every kind of value, every word it takes there, and its default."""
    for name, (takes, default) in KNOWN[origin].items():
        for text in _samples(takes, default):
            assert complaints(f"{name}={text}") == []


def test_defaults_are_those_people_know():
    """A command line from LLaMA-Factory means the same here: writing a default out changes nothing."""
    different = {}
    for name in NAMES:
        theirs = [options[name][1] for options in KNOWN.values() if name in options]
        if not any(_is_default_here(name, default) for default in theirs):
            different[name] = theirs
    assert different.keys() == DIFFERENT_ON_PURPOSE.keys()
    for name, (there, here, why) in DIFFERENT_ON_PURPOSE.items():
        assert there in different[name]
        assert OPTIONS[canonical_name(name)].default == here
        assert why


def _is_default_here(name: str, default: Any) -> bool:
    """Whether `name` at `default`, as known elsewhere, is what is taken here when nothing is said."""
    option = OPTIONS[canonical_name(name)]
    if default in EMPTY:
        return option.default in EMPTY or option.name != name
    return getattr(read(f"{name}={_typed(default)}"), option.name) == option.default


def test_what_is_ours_alone():
    """A new option has to be entered here; every other one is known from elsewhere."""
    assert {name: option.default for name, option in OPTIONS.items() if name not in NAMES} == OURS


def test_a_configuration_holds_the_defaults():
    assert Config().model_dump() == {name: option.default for name, option in OPTIONS.items()}


def test_no_option_is_declared_twice():
    declared = [name for group in GROUPS for name in group.model_fields]
    assert sorted(declared) == sorted(OPTIONS)
    others = [other for option in OPTIONS.values() for other in option.text.also]
    assert len(set(others)) == len(others)
    assert not set(others) & set(OPTIONS)


# ---------------------------------------------------------------------------------------------------------------------
# What it says of itself

EFFECTIVE = [name for name, option in OPTIONS.items() if option.works]


def _types(annotation: Any) -> set[Any]:
    """The types in an annotation: of `Annotated[int, …] | None` int and NoneType."""
    if get_origin(annotation) is Annotated:
        return _types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_types, get_args(annotation)))
    return {annotation}


def _words(annotation: Any) -> list[str]:
    """The words in an annotation: of `Literal["a", "b"] | None` a and b."""
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for part in get_args(annotation) for word in _words(part)]


def _pairs(text: Text) -> dict[str, tuple[str, str]]:
    """Everything it says, in both languages, by what it is. Sentences are apart from what stands after a heading."""
    clauses = {what: getattr(text, what) for what in ("higher", "lower", "unset", "no_effect", "not_offered")}
    advice = {f"advice from {advice.source}": (advice.en, advice.zh) for advice in text.advice}
    return {what: pair for what, pair in {"main": (text.en, text.zh), **clauses, **advice}.items() if pair}


def test_the_words_are_in_both_languages():
    """Sentences end in a stop. Clauses do not: whoever shows them adds it."""
    for name, option in OPTIONS.items():
        assert option.takes() and option.takes(chinese=True), name
        assert any("一" <= letter <= "鿿" for letter in option.text.zh), name
        for what, (english, chinese) in _pairs(option.text).items():
            sentence = what == "main" or what.startswith("advice")
            assert english.isascii() and not chinese.isascii(), (name, what)
            assert english.endswith(".") == sentence and chinese.endswith("。") == sentence, (name, what)


def test_a_number_or_switch_says_what_happens_when_it_is_turned():
    for name in EFFECTIVE:
        text = OPTIONS[name].text
        assert bool(text.higher) == bool(text.lower), name
        assert text.higher or not {bool, int, float} & _types(OPTIONS[name].info.annotation), name


def test_a_choice_says_what_each_of_its_words_does():
    """In its own text, since nobody can guess what `concat` or `fa2` is. (optim has too many.)"""
    for name in set(EFFECTIVE) - {"optim"}:
        text = OPTIONS[name].text
        for word in _words(OPTIONS[name].info.annotation):
            for told in (text.en, text.zh):
                assert re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", told, re.ASCII), (name, word)


def test_an_empty_default_says_what_is_taken_instead():
    for name, option in OPTIONS.items():
        if option.default in EMPTY:
            told = option.text.unset or ("Unset" in option.text.en and "不填" in option.text.zh)
            assert told, name


def test_advice_names_its_source():
    named = {advice.source for option in OPTIONS.values() for advice in option.text.advice}
    assert named | {rule.source for rule in RULES if rule.source} <= set(SOURCES)
    for source in SOURCES.values():
        assert source.title and source.link.startswith("https://")


ASKED_ABOUT = [
    "learning_rate", "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "finetuning_type", "num_train_epochs",
    "per_device_train_batch_size", "gradient_accumulation_steps", "warmup_steps", "warmup_ratio", "lr_scheduler_type",
    "weight_decay", "max_grad_norm", "cutoff_len", "overlong", "packing", "bf16", "fp16", "gradient_checkpointing",
    "val_size", "eval_strategy", "early_stopping_steps", "mask_history", "train_on_prompt", "template",
    "enable_thinking", "temperature", "top_p", "top_k", "repetition_penalty",
]


@pytest.mark.parametrize("name", ASKED_ABOUT)
def test_what_people_ask_about_has_advice(name):
    assert OPTIONS[name].text.advice


def test_what_has_no_effect_never_stands_in_the_way():
    """It is said once, with one reason, and a run that goes on may have it changed."""
    for name, option in OPTIONS.items():
        if name not in EFFECTIVE:
            assert option.text.free_on_resume, name
            assert not (option.text.no_effect and option.text.not_offered), name


def test_help_is_drawn_from_the_schema(monkeypatch: pytest.MonkeyPatch):
    """Every option; of one that has no effect here, why."""
    monkeypatch.setenv("COLUMNS", "120")
    titles = tuple(group.title[0] for group in GROUPS)
    everything, chinese, basic = (options_help(titles, *how) for how in ((True, "en"), (True, "zh"), (False, "en")))
    unbroken, unbroken_chinese = "".join(everything.split()), "".join(chinese.split())
    for name, option in OPTIONS.items():
        assert f"  --{name} " in everything and f"  --{name} " in chinese
        assert (f"  --{name} " in basic) == (option.text.level == "basic" and name in EFFECTIVE)
        english, also_chinese = option.text.no_effect or option.text.not_offered or (option.text.en, option.text.zh)
        assert "".join(english.split()) in unbroken and "".join(also_chinese.split()) in unbroken_chinese
    assert "--learning_rate  [a number > 0; default 5e-05]" in basic
    assert "--learning_rate  [数 > 0；默认 5e-05]" in chinese
    assert "--top_p  [a number > 0 and <= 1; default 0.7]" in everything
    assert "--finetuning_type (= use_lora true|false)  [lora|oft|freeze|full|adalora|" in basic
    assert "--dataloader_num_workers  No effect here: rows are tokenised before training" in everything


# ---------------------------------------------------------------------------------------------------------------------
# What a person may type


def read(*words: str) -> Config:
    """A configuration that must be read without a finding."""
    config, findings = read_config(words)
    assert not findings, [finding.line() for finding in findings]
    return config


def complaints(*words: str) -> list[str]:
    return [finding.line() for finding in read_config(words)[1]]


@pytest.fixture
def yaml(tmp_path: Path):
    """Write `run.yaml` and give its name."""

    def write(text: str | bytes, name: str = "run.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return str(path)

    return write


def test_the_four_ways_to_write_a_flag():
    for words in (["--lora_rank", "4"], ["--lora_rank=4"], ["lora_rank=4"], ["--lora-rank", "4"]):
        assert read(*words).lora_rank == 4
    assert read("--bf16").bf16 is True  # a switch
    assert read("--bf16", "--lora_rank", "4").bf16 is True
    assert read("--freeze_trainable_layers", "-3").freeze_trainable_layers == -3  # not taken for a flag
    assert read("--output_dir", "saves/lr=1").output_dir == "saves/lr=1"
    assert read("--lora_rank", "4", "--lora_rank", "16").lora_rank == 16  # the last one wins, so scripts can add
    for word, value in {"True": True, "false": False, "yes": True, "no": False, "1": True, "off": False}.items():
        assert read("--bf16", word).bf16 is value


def test_yaml_values_are_read_by_the_type_of_their_option(yaml):
    """YAML 1.1 would make `no` false, `1e-4` text and `on` true; here the option decides."""
    config = read(yaml("""
        save_strategy: no
        learning_rate: 1e-4
        weight_decay: 0
        num_train_epochs: 2
        run_name: on
        identity_name: 0x10
        identity_author: 2024-01-01
        max_samples: null
        eval_steps: ~
        default_system:
        output_dir: ${HOME}/$USER
        template: "null"
        seed: '7'
        lr_scheduler_kwargs: {num_cycles: 2, min_lr: 1e-6, name: "1e-6"}
    """))
    assert config.save_strategy == "no"
    assert config.learning_rate == 0.0001
    assert config.num_train_epochs == 2.0
    assert (config.run_name, config.identity_name, config.identity_author) == ("on", "0x10", "2024-01-01")
    assert config.max_samples is config.eval_steps is config.default_system is None
    assert not config.given("max_samples")
    assert config.output_dir == "${HOME}/$USER"  # never expanded
    assert config.template == "null"  # quoted, so a word
    assert config.seed == 7
    assert config.lr_scheduler_kwargs == {"num_cycles": 2, "min_lr": 0.000001, "name": "1e-6"}


def test_several_values_as_comma_text_or_list(yaml):
    for text in ("dataset: a, b.json,", "dataset: [a, b.json]", "dataset:\n- a\n- b.json"):
        assert read(yaml(text)).dataset == ("a", "b.json")
    assert read("--dataset", "a,b.json").dataset == ("a", "b.json")
    assert read("--dataset", "").dataset == ()


def test_a_mapping_on_the_command_line_is_json():
    assert read("--lr_scheduler_kwargs", '{"num_cycles": 2}').lr_scheduler_kwargs == {"num_cycles": 2}
    assert "It takes a mapping" in complaints("--lr_scheduler_kwargs", "num_cycles=2")[0]


def test_other_names_of_tutorials():
    config = read("--data_path", "belle.json", "--model_max_length", "512", "--use_lora", "False",
                  "--evaluation_strategy", "epoch", "--no_cuda", "--lora_r", "4", "--neat_packing", "true")
    assert (config.dataset, config.cutoff_len, config.finetuning_type) == (("belle.json",), 512, "full")
    assert (config.eval_strategy, config.use_cpu, config.lora_rank, config.packing) == ("epoch", True, 4, True)
    assert config.origin("cutoff_len") == "command line, as model_max_length"
    assert read("--use_lora", "True").finetuning_type == read("--use_lora").finetuning_type == "lora"
    assert complaints("--use_lora", "maybe") == [
        "error  use_lora (command line): 'maybe' is not a value it takes. It takes true|false."]


def test_the_command_line_wins_over_the_file_and_null_takes_back(yaml):
    path = yaml("lora_rank: 4\nlora_alpha: 32\ncutoff_len: 64\n")
    config = read(path, "lora_rank=16", "--model_max_length", "128", "lora_alpha=null")
    assert (config.lora_rank, config.cutoff_len, config.lora_alpha) == (16, 128, None)
    assert config.origin("lora_rank") == "command line"
    assert config.origin("lora_alpha") is None
    assert read(path).origin("lora_rank") == "run.yaml:1"
    assert read(path).origin("learning_rate") is None


def test_json_config(yaml):
    """As Python writes it: true, null, tabs, and an emoji as two escapes."""
    text = json.dumps({"bf16": True, "lora_alpha": None, "dataset": ["a", "b"], "learning_rate": 1e-5,
                       "default_system": "你好 😀\n", "lr_scheduler_kwargs": {"num_cycles": 2}}, indent="\t")
    config = read(yaml(text, "run.json"))
    assert (config.bf16, config.lora_alpha, config.dataset, config.learning_rate) == (True, None, ("a", "b"), 1e-5)
    assert config.default_system == "你好 😀\n"
    assert config.lr_scheduler_kwargs == {"num_cycles": 2}
    assert config.origin("bf16") == "run.json:2"


def test_a_file_below_a_folder_with_an_equals_sign(tmp_path):
    """Sweeps name folders like this; the word is a file and not `lr = …/run.yaml`."""
    (tmp_path / "lr=1e-4").mkdir()
    path = tmp_path / "lr=1e-4" / "run.yaml"
    path.write_text("lora_rank: 4\n", encoding="utf-8")
    assert read(str(path)).lora_rank == 4


def test_a_file_may_begin_with_a_byte_order_mark_or_be_empty(yaml):
    assert read(yaml(b"\xef\xbb\xbflora_rank: 4\r\n")).lora_rank == 4
    assert read(yaml("# nothing\n")) == Config()


# ---------------------------------------------------------------------------------------------------------------------
# What is said when it is wrong


def test_a_batch_size_is_a_number_or_auto():
    assert read("--per_device_train_batch_size", "auto").per_device_train_batch_size == "auto"
    assert read("--per_device_train_batch_size", "4").per_device_train_batch_size == 4
    for wrong, near in (("0", ""), ("-1", ""), ("2.5", ""), ("automatic", "Did you mean auto? ")):
        assert complaints("--per_device_train_batch_size", wrong) == [
            f"error  per_device_train_batch_size (command line): {wrong!r} is not a value it takes. "
            f"{near}It takes a whole number > 0 or auto (default 8)."]


def test_max_steps_is_a_number_of_steps_or_minus_one():
    assert read("--max_steps", "-1").max_steps == -1
    assert complaints("--max_steps", "-2") == [
        "error  max_steps (command line): '-2' is not a value it takes. It takes a whole number >= -1 (default -1)."]


def test_all_slips_are_told_at_once_with_their_places(yaml):
    path = yaml("learning_rte: 1\nlora_rank: many\ncutoff_len: 1\nfinetuning_type: lorra\ntrain-batch-size: 2\n"
                "zzz: null\n")
    assert complaints(path, "--lr", "3", "--bf16", "maybe", "stray", "--data_path=x", "--save_steps", "0") == [
        "error  learning_rte (run.yaml:1): unknown option. Did you mean learning_rate?",
        "error  train_batch_size (run.yaml:5): unknown option. Did you mean per_device_train_batch_size?",
        "error  zzz (run.yaml:6): unknown option. See `truetune train --help all`.",
        "error  stray (command line): is not an option. Write --name value or name=value.",
        "error  lr (command line): unknown option. See `truetune train --help all`.",
        "error  lora_rank (run.yaml:2): 'many' is not a value it takes. It takes a whole number > 0 (default 8).",
        "error  cutoff_len (run.yaml:3): '1' is not a value it takes. It takes a whole number >= 4 (default 2048).",
        "error  finetuning_type (run.yaml:4): 'lorra' is not a value it takes. Did you mean lora? It takes "
        "lora|oft|freeze|full|adalora|vera|ia3|loha|lokr|prefix_tuning|prompt_tuning|p_tuning|bottleneck (default "
        "lora).",
        "error  bf16 (command line): 'maybe' is not a value it takes. It takes true|false.",
        "error  save_steps (command line): '0' is not a value it takes. It takes a number > 0 (default 500).",
    ]


def test_what_is_wrong_keeps_its_default_and_the_rest_its_value():
    config, _ = read_config(["--lora_rank", "many", "--seed", "7"])
    assert (config.lora_rank, config.seed) == (8, 7)
    assert (config.given("lora_rank"), config.given("seed")) == (False, True)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1e-4", "1e-4x", "[1]"])
def test_a_learning_rate_is_a_finite_positive_number(value):
    assert "learning_rate" in complaints("--learning_rate", value)[0]


@pytest.mark.parametrize(("name", "meant"), [
    ("learning_rte", "learning_rate"), ("lora_rnk", "lora_rank"), ("epochs", "num_train_epochs"),
    ("model", "model_name_or_path"), ("output", "output_dir"), ("warmup_step", "warmup_steps"),
    ("evaluation_stategy", "evaluation_strategy"), ("eval_batch_size", "per_device_eval_batch_size"),
])
def test_near_names(name, meant):
    assert complaints(f"--{name}=1") == [f"error  {name} (command line): unknown option. Did you mean {meant}?"]


def test_given_twice_in_one_file(yaml):
    """Also by two names. In one file that is a slip; on a command line the later one is an override."""
    assert complaints(yaml("cutoff_len: 64\nseed: 1\nmodel_max_length: 128\n")) == [
        "error  model_max_length (run.yaml:3): already given at run.yaml:1. Keep one of the two."]
    # LLaMA-Factory's page writes both for the one thing they are here.
    assert read(yaml("packing: true\nneat_packing: true\n")).packing is True


@pytest.mark.parametrize(("name", "text", "said"), [
    ("run.yaml", "a: 1\nb: [1, 2\nc: 3\n", "run.yaml:3: not valid YAML: expected ',' or ']'"),
    ("run.yaml", "seed: 1\n\tlora_rank: 4\n", "run.yaml:2: not valid YAML: found character '\\t'"),
    ("run.yaml", "seed: 1\nrun_name: a\x00b\n", "run.yaml:2: not valid YAML: the character '\\x00' is not allowed"),
    ("run.yaml", "seed: 1\n---\nseed: 2\n", "run.yaml:2: not valid YAML: but found another document"),
    ("run.json", '{"seed": 1,\n "lora_rank" 4}', "run.json:2: not valid JSON: "),
    ("run.yaml", "- seed\n", "run.yaml: must hold options as `name: value` lines"),
    ("run.yaml", "just a sentence", "run.yaml: must hold options as `name: value` lines"),
    ("run.yaml", "seed: 1\nrun_name: 你好\n".encode("gb18030"), "run.yaml:2: not UTF-8"),
    ("run.yaml", "seed: 1\n".encode("utf-16"), "run.yaml:1: not UTF-8"),
    ("run.txt", "seed: 1\n", "run.txt: is neither an option (--name value) nor a .yaml, .yml or .json file"),
])
def test_a_file_that_cannot_be_read(yaml, name, text, said):
    with pytest.raises(Problem) as caught:
        read_config([yaml(text, name)])
    assert said in str(caught.value)
    assert caught.value.status == 2


def test_a_file_that_is_not_there(tmp_path):
    for name, said in (("no.yaml", "there is no such file"), (".yaml", "cannot be read: Is a directory")):
        folder = tmp_path / "x.yaml"
        folder.mkdir(exist_ok=True)
        with pytest.raises(Problem, match=said):
            read_config([str(folder if name == ".yaml" else tmp_path / name)])


def test_odd_yaml_is_refused_without_a_traceback(yaml):
    """A list that holds itself, a list as a name, a mapping where a number belongs."""
    found = complaints(yaml("dataset: &a [*a]\n? [x, y]\n: 1\nseed: {a: 1}\n"))
    assert len(found) == 3
    assert all(line.startswith("error") for line in found)


# ---------------------------------------------------------------------------------------------------------------------
# Configurations


def test_with_values_keeps_where_the_others_came_from(yaml):
    before = read(yaml("seed: 1\nlora_rank: 4\n"))
    after = before.with_values("rule: tests", lora_rank=2, bf16="true")
    assert (after.seed, after.lora_rank, after.bf16) == (1, 2, True)
    assert (after.origin("seed"), after.origin("lora_rank")) == ("run.yaml:1", "rule: tests")
    assert (before.lora_rank, before.origin("lora_rank"), before.bf16) == (4, "run.yaml:2", None)
    with pytest.raises(ValueError, match="lora_rank"):
        before.with_values("rule: tests", lora_rank="many")
    with pytest.raises(ValueError, match="frozen"):
        before.seed = 2  # pyright: ignore


EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_every_example_is_in_order(path):
    """Read without a slip, no rule broken for the command that it names, and explained in both languages."""
    config, text = read(str(path)), path.read_text(encoding="utf-8")
    verb = re.search(rf"truetune (\w+) examples/{path.name}", text)
    assert verb and status_of(apply_rules(config, verb[1])) == "ok"
    assert any("一" <= letter <= "鿿" for letter in text)
    for name in config.dataset:
        assert name in json.loads((ROOT / "data" / "dataset_info.json").read_text(encoding="utf-8"))


def test_there_is_an_example_for_each_method():
    assert {read(str(path)).finetuning_type for path in EXAMPLES} == {"lora", "full", "freeze"}
