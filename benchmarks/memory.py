"""Memory predicted from config.json beside memory measured, for each method, number format and size of model.

    python benchmarks/memory.py [--rows 64] [--batch 4]

Models: the bundled SmolLM2-135M, two layers of it, and a Qwen2 of another shape (344 million random weights). Each line
is one `truetune check --measure`: a prediction without weights, and a child process that takes two real optimizer steps
on the longest batch and evaluates it. Its peak is its own (VmHWM on Linux; on a GPU what torch has allocated at most).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from truetune.model.bundled import bundled_folder
from truetune.model.find import load_tokenizer
from truetune.model.load import load_model

SENTENCE = "The old lamp in the quiet harbour is older than the bridge, and nobody knows who lit it first. "


def make_models(folder: Path) -> dict[str, Path]:
    """The models by name, on the disk."""
    base = bundled_folder("bundled/smollm2-135m-instruct", print)
    short = load_model(base, torch.float32, torch.device("cpu"))
    short.model.layers = short.model.layers[:2]
    short.config.num_hidden_layers, short.config.layer_types = 2, None
    other = AutoModelForCausalLM.from_config(Qwen2Config(
        vocab_size=49152, hidden_size=896, intermediate_size=4864, num_hidden_layers=18, num_attention_heads=14,
        num_key_value_heads=2, tie_word_embeddings=False, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2))
    for name, model in (("two layers", short), ("Qwen2 344M", other)):
        model.save_pretrained(folder / name)
        load_tokenizer(base).save_pretrained(folder / name)
    return {"two layers": folder / "two layers", "SmolLM2 135M": base, "Qwen2 344M": folder / "Qwen2 344M"}


def write_rows(path: Path, count: int) -> None:
    """Rows of 60 to 400 tokens, each another length."""
    rows = [{"instruction": f"Tell me about house number {n}.", "output": SENTENCE * (1 + n % 16) + f"It is {n}."}
            for n in range(count)]
    path.write_text(json.dumps(rows), encoding="utf-8")


def compare(model: Path, words: list[str]) -> tuple[int, int]:
    """Bytes predicted and measured."""
    done = subprocess.run([sys.executable, "-m", "truetune", "check", f"--model_name_or_path={model}", "--measure",
                           "--json", *words], capture_output=True, text=True, encoding="utf-8", check=False)
    memory = json.loads(done.stdout)["facts"]["memory"]
    return memory["predicted"], memory["measured"] or 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.json", arguments.rows)
        print("| model | method | numbers | predicted | measured | difference |\n|---|---|---|---|---|---|", flush=True)
        for title, model in make_models(folder).items():
            for method in ("lora", "full", "freeze"):
                for bf16 in ("false", "true"):
                    predicted, measured = compare(model, [
                        f"--dataset={folder / 'rows.json'}", f"--finetuning_type={method}", f"--bf16={bf16}",
                        f"--per_device_train_batch_size={arguments.batch}", "--gradient_checkpointing=false",
                        "--learning_rate=1e-4", "--before_after=false"])
                    apart = f"{predicted / measured - 1:+.1%}" if measured else "-"
                    print(f"| {title} | {method} | {'bfloat16' if bf16 == 'true' else 'float32'} | "
                          f"{predicted / 1e9:.2f} GB | {measured / 1e9:.2f} GB | {apart} |", flush=True)


if __name__ == "__main__":
    main()
