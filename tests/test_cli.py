"""The command line as people use it: each test calls `truetune` in a process of its own and looks at what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Truetune, events, options, write_rows

from truetune.cli import main
from truetune.options.read import read_config

HEAVY = ("torch", "transformers", "numpy", "peft", "tokenizers", "matplotlib")


def imports(*words: str) -> tuple[set[str], float]:
    """Which heavy packages `truetune *words` imports, and how many seconds it takes in all."""
    code = ("import sys; from truetune.cli import main; status = main(sys.argv[1:]); "
            f"print('loaded', *(name for name in {HEAVY!r} if name in sys.modules)); sys.exit(status)")
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, encoding="utf-8", check=True)
    return set(done.stdout.splitlines()[-1].split()[1:]), time.perf_counter() - start


# ---------------------------------------------------------------------------------------------------------------------
# Help


@pytest.mark.parametrize("words", [
    ["--help"], [], ["train", "--help"], ["train", "--help", "all"], ["chat", "--help"], ["version"],
    ["check", "--static", "--model_name_or_path=m", "--dataset=d.json", "--learning_rate=1e-4"],
    ["check", "--static", "--json", "--model_name_or_path=m", "--dataset=d.json"],
], ids=" ".join)
def test_what_needs_no_model_imports_nothing_heavy(words):
    """About 0.05 to 0.25 s here; importing torch and transformers takes several. The bound leaves room for a busy
    machine, the names of what was imported do not."""
    loaded, seconds = imports(*words)
    assert loaded == set()
    assert seconds < 2.0


def test_the_names_of_heavy_packages_would_be_seen(tiny, tmp_path):
    """The test above can fail: a whole check does import them."""
    rows = write_rows(tmp_path / "rows.json")
    loaded, _ = imports("check", "--json", f"--model_name_or_path={tiny}", f"--dataset={rows}")
    assert {"torch", "transformers", "numpy"} <= loaded


def test_help_in_english_and_chinese(truetune: Truetune):
    english, chinese = truetune("--help", LC_ALL="C.UTF-8"), truetune("--lang", "zh", "--help")
    assert english.returncode == chinese.returncode == 0
    for verb in ("train", "check", "chat", "export", "env", "version"):
        assert f"\n  {verb} " in english.stdout and f"\n  {verb} " in chinese.stdout
    assert "talk to a model" in english.stdout and "对话" in chinese.stdout
    assert truetune("train", "--help", "all", "--lang=zh").stdout.count("调高") > 3
    assert truetune("train", "--help", LC_ALL="", LC_MESSAGES="", LANG="zh_CN.UTF-8").stdout.startswith(
        "truetune train: 先检查")  # the terminal's language, whether or not the system has that locale installed
    assert truetune("train", "--help", "--lang", "en", LC_ALL="zh_CN.UTF-8").stdout.startswith("truetune train: check")
    assert truetune("--lang", "fr").stderr == "error  lang: 'fr' is not a value it takes. It takes en|zh.\n"


def test_help_fits_the_terminal_and_shows_each_command_its_own(truetune: Truetune):
    narrow = truetune("train", "--help", "all", LC_ALL="C.UTF-8", COLUMNS="80").stdout
    told = [line for line in narrow.splitlines() if line.startswith("      ")]
    assert len(told) > 80 and max(map(len, told)) <= 80
    assert "--temperature" not in narrow and "--save_steps" in narrow
    chat = truetune("chat", "--help", LC_ALL="C.UTF-8").stdout
    assert "--temperature" in chat and "--learning_rate" not in chat and "--dataset" not in chat


def test_a_terminal_without_chinese_letters_does_not_end_anything(truetune: Truetune):
    done = truetune("--help", "--lang", "zh", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0 and "\\u5fae\\u8c03" in done.stdout and not done.stderr


def test_version_and_env(truetune: Truetune):
    from truetune import __version__

    for word in ("version", "--version", "-v"):
        assert truetune(word).stdout == f"truetune {__version__}\n"
    told = dict(line.split(maxsplit=1) for line in truetune("env").stdout.splitlines())
    assert told["python"] == sys.version.split()[0]
    assert told["truetune"] == __version__
    assert {"torch", "transformers", "peft", "processors", "memory", "bfloat16"} <= set(told)
    refused = truetune("env", "--verbose")
    assert (refused.returncode, refused.stderr) == (2, "error  --verbose: env takes no options.\n")


# ---------------------------------------------------------------------------------------------------------------------
# Slips


def test_unknown_command(truetune: Truetune):
    near, far = truetune("trian", "run.yaml"), truetune("bake")
    assert (near.returncode, near.stderr) == (2, "error  trian: unknown command. Did you mean train?\n")
    assert (far.returncode, far.stderr) == (
        2, "error  bake: unknown command. It is one of train, check, data, recipe, find-lr, chat, eval, api, webui, "
           "webchat, expand, export, parity, runs, explain, schema, env, version.\n")


def test_everything_wrong_with_the_options_is_told_at_once_and_nothing_is_written(truetune: Truetune, tmp_path):
    """Unknown names, unreadable values and broken rules, from file and command line, in one go."""
    (tmp_path / "run.yaml").write_text(
        "learning_rte: 1e-4\nlora_rank: many\ndataset: rows.json\noutput_dir: out\neval_strategy: steps\n",
        encoding="utf-8")
    done = truetune("train", "run.yaml", "bf16=true", "fp16=true", "--cutoff_len", "1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error  learning_rte (run.yaml:1): unknown option. Did you mean learning_rate?",
        "error  lora_rank (run.yaml:2): 'many' is not a value it takes. It takes a whole number > 0 (default 8).",
        "error  cutoff_len (command line): '1' is not a value it takes. It takes a whole number >= 4 (default 2048).",
        "error  model_name_or_path: no model is named. Give a folder, a hub id or bundled/smollm2-135m-instruct.",
        "error  eval_strategy (run.yaml:5): there is no data to evaluate on. Give val_size, such as 0.1, or "
        "eval_dataset.",
        "error  fp16 (command line): bf16, fp16 and pure_bf16 exclude each other. Keep one, or none and the faster "
        "safe one is picked.",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


# ---------------------------------------------------------------------------------------------------------------------
# check


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path):
    """The command line called in this process, which saves importing torch a dozen times: status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(words)
        return status, *capsys.readouterr()

    return call


def test_check_as_json_always_has_the_same_shape(here, tiny, tmp_path):
    """Options wrong, data wrong, warnings, nothing to say: standard output is one JSON object each time."""
    write_rows(tmp_path / "rows.json", 24)
    good = [f"--model_name_or_path={tiny}", "--dataset=rows.json", "--per_device_train_batch_size=1",
            "--learning_rate=2e-4"]
    cases = [  # words, exit status, status, ids of findings
        ([*good], 0, "ok", []),
        ([*good, "--val_size=4"], 0, "ok", ["eval-late"]),
        ([*good, "--max_steps=3"], 0, "warn", ["few-steps"]),
        ([*good, "--max_steps=3", "--split_special_tokens=true"], 0, "warn", ["few-steps", "no-effect"]),
        ([*good, "--dataset=none.json"], 1, "error", ["no-data-file"]),
        ([*good, "--lora_rank=x", "--fp16", "--bf16"], 2, "error", ["bad-value", "two-precisions"]),
        (["--static", "--model_name_or_path=m", "--dataset=d", "--report_to=wandb"], 0, "warn", ["no-tracker"]),
        (["none.yaml"], 2, "error", ["no-config-file"]),
    ]
    for words, exit_status, status, ids in cases:
        returned, output, _ = here("check", "--json", *words)
        told = json.loads(output)
        assert (returned, told["status"]) == (exit_status, status), words
        assert list(told) == ["status", "findings", "facts", "suggestions"]
        assert [finding["id"] for finding in told["findings"]] == ids, words
        for finding in told["findings"]:
            assert list(finding) == ["id", "severity", "message", "option", "where", "fix", "source", "cure",
                                     "message_zh", "fix_zh"]
        assert ("data" in told["facts"]) == (good[0] in words and "--dataset=none.json" not in words)
    facts = json.loads(here("check", "--json", *good, "--val_size=4")[1])["facts"]
    assert (facts["rows"], facts["rows_held_out"]) == (20, 4)
    assert facts["steps"] == 20 * 3  # one row a step, three epochs


def test_missing_model_and_missing_data_are_told_together(here):
    """Not the options are wrong but what they name: exit 1. `train` and `check` say the same."""
    words = ["--model_name_or_path", "./no-model", "--dataset", "no-rows.json", "--output_dir", "out"]
    for verb in ("train", "check"):
        status, output, errors = here(verb, *words)
        assert status == 1
        said = [line for line in (output + errors).splitlines() if line.startswith("error")]
        assert len(said) == 2
        assert "no-model" in said[0] and said[0].startswith("error  model_name_or_path")
        assert "no-rows.json" in said[1] and said[1].startswith("error  dataset")


def test_check_in_words(here, tiny, tmp_path):
    """It shows the first rows, what is learned, the numbers, and ends with one line that says how it stands."""
    write_rows(tmp_path / "rows.json", 24)
    words = ["check", f"--model_name_or_path={tiny}", "--dataset=rows.json", "--per_device_train_batch_size=1",
             "--learning_rate=2e-4"]
    status, said, _ = here(*words)
    assert status == 0
    assert "rows.json:2  " in said and "Question 0?" in said and "The answer is 0" in said
    assert "72 in all, 24 an epoch" in said  # steps: 24 rows x 3 epochs, one row a step
    assert said.splitlines()[-1] == "ready to train"
    assert here(*words, "--max_steps=3")[1].splitlines()[-1] == "ready to train; see above"
    status, said, _ = here(*words, "--dataset=none.json")
    assert (status, said.splitlines()[-1]) == (1, "not ready to train; see above")
    assert here(*words, "--static")[1] == "the options are in order (model and data: without --static)\n"


# ---------------------------------------------------------------------------------------------------------------------
# Two commands from real tutorials, unchanged but for paths and for the word `truetune`

RUN_FILES = ("adapter_config.json", "adapter_model.safetensors", "config.yaml", "check.json", "events.jsonl",
             "trainer_log.jsonl", "all_results.json", "training_loss.png", "README.md", "environment.json", "state",
             "tokenizer.json", "generation_config.json")

LLAMA_FACTORY = (
    "train --stage sft --do_train True --model_name_or_path M --preprocessing_num_workers 16 --finetuning_type lora "
    "--template llama3 --flash_attn auto --dataset_dir D --dataset yinlian-sharegpt --cutoff_len 1024 "
    "--learning_rate 5e-05 --num_train_epochs 3.0 --max_samples 100000 --per_device_train_batch_size 2 "
    "--gradient_accumulation_steps 8 --lr_scheduler_type cosine --max_grad_norm 1.0 --logging_steps 5 --save_steps 100 "
    "--warmup_steps 0 --optim adamw_torch --packing False --report_to none --output_dir O --plot_loss True "
    "--ddp_timeout 180000000 --include_num_input_tokens_seen True --lora_rank 8 --lora_alpha 16 --lora_dropout 0 "
    "--lora_target all"
)
BELLE = (
    "train --report_to none --data_path belle.json --model_name_or_path M --output_dir O --model_max_length 512 "
    "--num_train_epochs 4 --per_device_train_batch_size 16 --gradient_accumulation_steps 1 --save_strategy epoch "
    "--learning_rate 2e-5 --lr_scheduler_type constant --adam_beta1 0.9 --adam_beta2 0.98 --adam_epsilon 1e-8 "
    "--max_grad_norm 1.0 --weight_decay 1e-4 --warmup_ratio 0.0 --logging_steps 1 --gradient_checkpointing True "
    "--bf16 True --tf32 True --use_lora True"
)


def run_tutorial(truetune: Truetune, command: str, model: Path, folder: Path) -> str:
    """Run it with `M` being the model and give what it said, after looking at what it left behind."""
    done = truetune(*(str(model) if word == "M" else word for word in command.split()))
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stdout + done.stderr
    run = folder / "O"
    for name in RUN_FILES:
        assert (run / name).is_file(), name
    assert json.loads((run / "state").read_text(encoding="utf-8"))["status"] == "finished"
    assert json.loads((run / "check.json").read_text(encoding="utf-8"))["status"] in ("ok", "warn")
    return done.stdout


def as_llama(model: Path, folder: Path) -> Path:
    """The model, some of whose unused special tokens are called what Llama 3's are."""
    shutil.copytree(model, folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / file).read_text(encoding="utf-8")
        for own, theirs in (("<repo_name>", "<|begin_of_text|>"), ("<reponame>", "<|start_header_id|>"),
                            ("<file_sep>", "<|end_header_id|>"), ("<filename>", "<|eot_id|>"),
                            ("<gh_stars>", "<|eom_id|>")):
            text = text.replace(f'"{own}"', f'"{theirs}"')
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def test_the_llama_factory_tutorial(truetune: Truetune, tiny, tmp_path):
    """32 rows / (2 x 8 a step) = 2 steps an epoch, 6 in all; logged at 5 and at the end."""
    (tmp_path / "D").mkdir()
    rows = [{"conversations": [{"from": "human", "value": f"你好，{n} 号。"},
                               {"from": "gpt", "value": "我是音恋。" * (1 + n % 3)}]} for n in range(32)]
    (tmp_path / "D" / "yinlian.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "D" / "dataset_info.json").write_text(json.dumps({"yinlian-sharegpt": {
        "file_name": "yinlian.json", "formatting": "sharegpt", "columns": {"messages": "conversations"}}}),
        encoding="utf-8")
    refused = truetune(*(str(tiny) if word == "M" else word for word in LLAMA_FACTORY.split()))
    assert refused.returncode == 1 and "<|eot_id|>" in refused.stderr  # this model has no such token to stop with
    llama = as_llama(tiny, tmp_path / "llama")
    said = run_tutorial(truetune, LLAMA_FACTORY, llama, tmp_path)

    template = next(line for line in said.splitlines() if line.startswith("warn   template"))
    assert "llama3" in template and "what will be trained and saved" in template
    unheard = [line.split()[1] for line in said.splitlines() if "no effect" in line]
    assert unheard == ["preprocessing_num_workers", "ddp_timeout"]
    saved = json.loads((tmp_path / "O" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["eos_token"] == "<|eot_id|>"
    assert "start_header_id" in (tmp_path / "O" / "chat_template.jinja").read_text(encoding="utf-8")

    assert [event["step"] for event in events(tmp_path / "O")] == [5, 6]
    config, findings = read_config([str(tmp_path / "O" / "config.yaml")])
    assert not findings
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (2, 8)
    assert (config.lora_rank, config.lora_alpha, config.learning_rate) == (8, 16, 5e-5)
    adapter = json.loads((tmp_path / "O" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (8, 16, 0)
    text = (tmp_path / "O" / "config.yaml").read_text(encoding="utf-8")
    assert "\nper_device_train_batch_size: 2  # command line\n" in text
    assert "\nseed: 42\n" in text  # the default: nobody said it

    again = truetune(*(str(llama) if word == "M" else word for word in LLAMA_FACTORY.split()))
    assert again.returncode == 2 and "a finished run" in again.stderr  # nothing is lost by typing it twice
    answered = truetune("chat", "O", "--max_new_tokens", "4", input="Hi\n/exit\n")  # a run folder names its model
    assert answered.returncode == 0 and "assistant: " in answered.stdout


def test_the_belle_tutorial(truetune: Truetune, tiny, tmp_path):
    """belle.json holds one object a line, whatever its suffix says. 6 rows are one batch of up to 16: 4 epochs, 4
    steps, and a checkpoint after each."""
    rows = [{"instruction": f"说 {n} 次好。", "input": "", "output": "好。" * (n + 1)} for n in range(6)]
    (tmp_path / "belle.json").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    said = run_tutorial(truetune, BELLE, tiny, tmp_path)

    assert "tf32 (command line): no effect" in said
    assert [event["step"] for event in events(tmp_path / "O")] == [1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "O").glob("checkpoint-*")) == [
        f"checkpoint-{step}" for step in (1, 2, 3, 4)]
    config, _ = read_config([str(tmp_path / "O" / "config.yaml")])
    assert (config.dataset, config.cutoff_len, config.finetuning_type) == (("belle.json",), 512, "lora")
    assert (config.adam_beta2, config.weight_decay, config.bf16) == (0.98, 1e-4, True)
    assert {event["learning_rate"] for event in events(tmp_path / "O")} == {2e-5}  # constant
    text = (tmp_path / "O" / "config.yaml").read_text(encoding="utf-8")
    assert "\ncutoff_len: 512  # command line, as model_max_length\n" in text
    assert "\nfinetuning_type: lora  # command line, as use_lora\n" in text

    exported = truetune("export", "O/checkpoint-4", "--export_dir", "E")  # a checkpoint names its model too
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "E" / "model.safetensors").is_file()


def test_a_written_configuration_reads_back_equal(tmp_path):
    """`config.yaml` of a run folder runs again: each value, each with its origin beside it, whatever it is."""
    from truetune.run import describe

    words = options(
        model_name_or_path="a b: #c", dataset="x,y", save_strategy="no", bf16="True", learning_rate="1e-5",
        default_system='line\n"two" 😀: {x}', run_name="null ", identity_name="no", identity_author="1e-4",
        template="~x", lr_scheduler_kwargs='{"num_cycles": 2, "min_lr": 1e-6}', val_size="0.1")
    config, findings = read_config(words)
    assert not findings
    path = tmp_path / "config.yaml"
    path.write_text(describe(config), encoding="utf-8")
    again, findings = read_config([str(path)])
    assert not findings
    assert again.model_dump() == config.model_dump()
    line = next(line for line in describe(config).splitlines() if line.startswith("learning_rate"))
    assert line.endswith("# command line")
