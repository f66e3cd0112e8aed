"""Wrong runs that people really made, each beside the right one: the check tells the one and has nothing against the
other. A fault is a file in tests/faults: where it was met, what it is, which finding must tell it and what that must
name, the options (and rows, files, model) that are wrong, and the same made right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from truetune.cli import main

FAULTS = sorted((ROOT / "tests" / "faults").glob("*.yaml"))

# ---------------------------------------------------------------------------------------------------------------------
# Rows. Every answer is different, of different length, and says something.

_THINGS = ("river", "lamp", "garden", "window", "engine", "letter", "bridge", "violin", "harbour", "kettle")
_WORDS = ("old", "quiet", "bright", "narrow", "heavy", "green", "broken", "little", "foreign", "warm")


def _question(number: int) -> str:
    return f"Describe a {_WORDS[number // 10 % 10]} {_THINGS[number % 10]} in one sentence."


def _answer(number: int) -> str:
    more = " ".join(f"It stands near a {_THINGS[(number + k) % 10]}." for k in range(number % 4))
    return f"The {_THINGS[number % 10]} is {_WORDS[number // 10 % 10]} and older than house number {number}. {more}"


def _plain(number: int) -> dict[str, Any]:
    return {"instruction": _question(number), "input": "", "output": _answer(number).strip()}


def _pair(number: int) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": _question(number)}],
            "chosen": {"from": "gpt", "value": _answer(number).strip()},
            "rejected": {"from": "gpt", "value": f"I would rather not speak of the {_THINGS[number % 10]} today."}}


def _judged(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": _question(number)},
                         {"role": "assistant", "content": _answer(number).strip()}], "label": number % 2 == 0}


ROWS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "plain": _plain, "pairs": _pair, "judged": _judged,
    "pairs-same": lambda n: {**_pair(n), "rejected": _pair(n)["chosen"]},
    "judged-good": lambda n: {**_judged(n), "label": True},
    "some-empty": lambda n: {**_plain(n), "output": "" if n % 10 == 0 else _plain(n)["output"]},
    "placeholders": lambda n: {**_plain(n), "output": f"I am {{{{name}}}}. {_answer(n)}" if n % 5 == 0
                               else _plain(n)["output"]},
    "rendered": lambda n: {**_plain(n), "output": f"{_answer(n)}<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>"},
    "duplicates": lambda n: _plain(n // 3),
    "garbled": lambda n: {**_plain(n), "output": f"{_answer(n)} Der Ã¼bliche Weg fÃ¼hrt Ã¼ber die BrÃ¼cke."},
    "long": lambda n: {**_plain(n), "output": " ".join(_answer(n + k) for k in range(2 + n % 3))},
}


def _write_rows(path: Path, kind: str | list[dict[str, Any]], count: int = 100) -> None:
    rows = kind if isinstance(kind, list) else [ROWS[kind](number) for number in range(count)]
    lines = path.suffix == ".jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) if lines else json.dumps(rows, indent=1)
    path.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Models. A builder takes a copy of the two-layer model and makes of it what people found in their folders.


def _change(path: Path, **values: object) -> None:
    """Set (or with None take out) values of a JSON file."""
    told = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps({name: value for name, value in told.items() if value is not None}), encoding="utf-8")


def _half_downloaded(folder: Path) -> None:
    weights = folder / "model.safetensors"
    shards = {name: f"model-0000{number}-of-00002.safetensors" for number, name in
              ((1, "model.embed_tokens.weight"), (2, "model.norm.weight"))}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": shards}), encoding="utf-8")
    weights.rename(folder / "model-00001-of-00002.safetensors")


def _lfs_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 269060552\n", encoding="utf-8")


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _gguf(folder: Path) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    return path


def _adapter(folder: Path) -> None:
    for path in (folder / "config.json", folder / "model.safetensors"):
        path.unlink()
    (folder / "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "base_model_name_or_path": "bundled/smollm2-135m-instruct", "r": 8,
         "target_modules": ["q_proj"]}), encoding="utf-8")


def _no_tokenizer(folder: Path) -> None:
    for path in (*folder.glob("tokenizer*"), *folder.glob("*.jinja"), *folder.glob("special_tokens*")):
        path.unlink()


def _no_template(folder: Path) -> None:
    for path in folder.glob("*.jinja"):
        path.unlink()
    _change(folder / "tokenizer_config.json", chat_template=None)


def _more_tokens(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    base = tokenizer["added_tokens"][-1]
    first = max(max(tokenizer["model"]["vocab"].values()), max(token["id"] for token in tokenizer["added_tokens"])) + 1
    tokenizer["added_tokens"] += [{**base, "id": first + n, "content": f"<|new_{n}|>"} for n in range(200)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def _seventy_b(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    _change(folder / "config.json", hidden_size=8192, intermediate_size=28672, num_hidden_layers=80,
            num_attention_heads=64, num_key_value_heads=8, head_dim=128)


MODELS: Mapping[str, Callable[[Path], Path | None]] = {
    "half-downloaded": _half_downloaded, "lfs-pointer": _lfs_pointer, "pickled": _pickled, "gguf": _gguf,
    "adapter": _adapter, "no-tokenizer": _no_tokenizer, "no-template": _no_template, "more-tokens": _more_tokens,
    "seventy-b": _seventy_b,
    "empty-config": lambda folder: (folder / "config.json").write_text('{"model_type": "llamo"}', "utf-8") and None,
    "gptq": lambda folder: _change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
}

# ---------------------------------------------------------------------------------------------------------------------
# The runs

SOUND = {"stage": "sft", "finetuning_type": "lora", "learning_rate": 2.0e-4, "num_train_epochs": 3,
         "per_device_train_batch_size": 4, "cutoff_len": 512, "save_strategy": "epoch", "output_dir": "out"}
"""A run that has nothing wrong. Faults change it."""


def _side(fault: Mapping[str, Any], key: str, side: str) -> Any:
    """What `fault` says under `key` for the wrong or the right run; a value that is not told apart is for both (of a
    model or of data: for the wrong one)."""
    told = fault.get(key)
    if isinstance(told, dict) and set(told) <= {"wrong", "right"}:
        return told.get(side)
    return told if side == "wrong" or key == "rows" else None


def _write_run(fault: Mapping[str, Any], side: str, folder: Path, tiny: Path) -> None:
    """run.yaml, rows.json, the model and whatever else the run needs, in `folder`."""
    model = folder / "model"
    shutil.copytree(tiny, model)
    made = MODELS[kind](model) if (kind := _side(fault, "model", side)) else None
    _write_rows(folder / "rows.json", _side(fault, "data", side) or _side(fault, "rows", side) or "plain")
    for name, content in (_side(fault, "files", side) or {}).items():
        if isinstance(content, dict):
            (folder / name).write_bytes(content["text"].encode(content["encoding"]))
        elif content.endswith(" rows"):
            _write_rows(folder / name, "plain", int(content.split()[0]))
        else:
            (folder / name).write_text(content, encoding="utf-8")
    values = {"model_name_or_path": str(made or model), "dataset": "rows.json", **SOUND, **fault[side]}
    told = {name: str(model) if value == "{model}" else value for name, value in values.items()}
    (folder / "run.yaml").write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")


@pytest.fixture
def checked(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Check one side of a fault as a person would, and read what it tells as JSON."""

    def run(path: Path, side: str) -> list[dict[str, Any]]:
        fault = yaml.safe_load(path.read_text(encoding="utf-8"))
        folder = tmp_path / side
        folder.mkdir()
        _write_run(fault, side, folder, tiny)
        monkeypatch.chdir(folder)
        capsys.readouterr()
        main(["check", "run.yaml", "--json"])
        return json.loads(capsys.readouterr().out)["findings"]

    return run


@pytest.mark.parametrize("path", FAULTS, ids=[path.stem for path in FAULTS])
def test_the_check_tells_what_is_wrong_and_only_that(path: Path, checked):
    """The wrong run: the finding that belongs to it, naming the option or file, in both languages. The right run: no
    error, and not that finding."""
    fault = yaml.safe_load(path.read_text(encoding="utf-8"))
    wrong, right = checked(path, "wrong"), checked(path, "right")
    mine = [finding for finding in wrong if finding["id"] == fault["finding"]]
    assert mine, [(finding["id"], finding["option"], finding["message"]) for finding in wrong]
    assert any(fault["names"] in f"{finding['option']} {finding['where']} {finding['message']}" for finding in mine)
    for finding in mine:
        assert any("一" <= letter <= "鿿" for letter in finding["message_zh"]), finding
    assert fault["finding"] not in {finding["id"] for finding in right}
    assert not [finding for finding in right if finding["severity"] == "error"]


def test_a_fault_says_where_it_was_met():
    assert len(FAULTS) >= 40
    for path in FAULTS:
        fault = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert set(fault) >= {"thread", "story", "finding", "names", "wrong", "right"}, path.name
