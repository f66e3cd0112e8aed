"""What tests share: the real model, a two-layer cut of it for quick runs, and ways to call the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

# Started in the background of a script, a process ignores Ctrl-C, and so would all that tests press it in.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own, so that none finds what another session tokenised. Converted models are shared with
    the user's, since they take seconds to convert."""
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "truetune" / "bundled"
    own.mkdir(parents=True, exist_ok=True)
    cache = tmp_path_factory.mktemp("cache")
    (cache / "truetune").mkdir()
    (cache / "truetune" / "bundled").symlink_to(own)
    os.environ["XDG_CACHE_HOME"] = str(cache)
    return cache


@pytest.fixture(scope="session")
def bundled(cache: Path) -> Path:
    """Folder of SmolLM2-135M-Instruct, converted into the user's cache if it is not there yet."""
    from truetune.model.bundled import bundled_folder

    return bundled_folder("bundled/smollm2-135m-instruct", lambda text: None)


@pytest.fixture(scope="session")
def tokenizer(bundled: Path) -> Any:
    from truetune.model.find import load_tokenizer

    return load_tokenizer(bundled)


@pytest.fixture(scope="session")
def tiny(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with its first two layers only: real tokenizer, real weights, a run in seconds."""
    import torch

    from truetune.model.find import load_tokenizer
    from truetune.model.load import load_model

    folder = tmp_path_factory.mktemp("tiny-model")
    model = load_model(bundled, torch.float32, torch.device("cpu"))
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    model.config.layer_types = None
    model.save_pretrained(folder)
    load_tokenizer(bundled).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the first 2,000 of its words only: what is answered is nonsense, and is there at once."""
    from safetensors.torch import load_file, save_file

    words, folder = 2000, tmp_path_factory.mktemp("small-model")
    for file in tiny.glob("*.json*"):
        written = json.loads(file.read_text(encoding="utf-8"))
        if file.name == "config.json":
            written["vocab_size"] = words
        if file.name == "tokenizer.json":
            known = {word: number for word, number in written["model"]["vocab"].items() if number < words}
            merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in written["model"]["merges"]]
            written["model"] |= {"vocab": known, "merges": [pair for pair in merges if "".join(pair) in known]}
        (folder / file.name).write_text(json.dumps(written), encoding="utf-8")
    (folder / "chat_template.jinja").write_bytes((tiny / "chat_template.jinja").read_bytes())
    weights = load_file(tiny / "model.safetensors")
    save_file({name: weight[:words].clone() if weight.shape[0] == 49152 else weight
               for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


Truetune = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def truetune(tmp_path: Path) -> Truetune:
    """Call the real command line in a process of its own, in `tmp_path`: `truetune("train", "--lora_rank", "4")`."""

    def call(*words: str, timeout: float = 180, input: str | None = None, **environment: str):
        return subprocess.run([sys.executable, "-m", "truetune", *words], cwd=tmp_path, text=True, capture_output=True,
                              timeout=timeout, input=input, env={**os.environ, **environment}, encoding="utf-8")

    return call


def write_rows(path: Path, count: int = 12, answer: str = "The answer is {n}, and then some words.") -> Path:
    """A small alpaca file of different lengths."""
    rows = [{"instruction": f"Question {n}? " + "Tell me. " * (n % 4), "input": "",
             "output": answer.format(n=n) + " More." * (n % 5)} for n in range(count)]
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def events(run: Path, kind: str = "step") -> list[dict[str, Any]]:
    """The events of one kind that a run has written."""
    lines = (run / "events.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def options(**values: object) -> Sequence[str]:
    """`options(lora_rank=4)` → `["--before_after=false", "--lora_rank=4"]`: runs of tests ask no questions unless that
    is what is tested."""
    return [f"--{name}={value}" for name, value in {"before_after": "false", **values}.items()]
