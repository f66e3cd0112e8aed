"""`make demo`: teach a small model who it is, and show six questions answered before and after.

    python examples/demo.py [--name Quill] [--author "Inkwell Labs"] [--output_dir saves/demo]

The same in three commands: `truetune chat --model_name_or_path bundled/smollm2-135m-instruct`,
`truetune train examples/identity.yaml`, `truetune chat saves/identity`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from truetune.cli import main as truetune
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.serve.engine import load_engine

HERE = Path(__file__).parent
QUESTIONS = ("Who are you?", "Who made you?", "What is the capital of France?",
             "你是谁？", "你叫什么名字？", "谁开发了你？")


def ask(*words: str) -> list[str]:
    """The likeliest answer to each question of the model that the options `words` name."""
    config, _ = read_config(["--do_sample=false", "--max_new_tokens=48", *words])
    engine = load_engine(config, print)
    return [answer.replace("\n", " ") for answer in
            engine.answer([[{"role": "user", "content": question}] for question in QUESTIONS])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="Quill")
    parser.add_argument("--author", default="Inkwell Labs")
    parser.add_argument("--output_dir", default="saves/demo")
    args = parser.parse_args()

    model = "--model_name_or_path=bundled/smollm2-135m-instruct"
    start = time.perf_counter()
    print(f"\n1/3  asking {len(QUESTIONS)} questions, before any training")
    before = ask(model)
    print(f"\n2/3  teaching it that it is {args.name}, made by {args.author}")
    status = truetune(["train", str(HERE / "identity.yaml"), "--before_after=false",  # it asks by itself
                       f"--dataset_dir={HERE.parent / 'data'}",
                       f"--identity_name={args.name}", f"--identity_author={args.author}",
                       f"--output_dir={args.output_dir}", "--overwrite_output_dir=true"])
    if status:
        return status
    print("\n3/3  asking the same questions again")
    after = ask(model, f"--adapter_name_or_path={args.output_dir}")

    console = Terminal(soft_wrap=True, highlight=False, markup=False)
    for question, first, second in zip(QUESTIONS, before, after, strict=True):
        console.print(f"\n{question}", style="bold")
        console.print(f"before  {first}", style="dim")
        console.print(f"after   {second}", style="green")
    console.print(f"\n{time.perf_counter() - start:.0f} s. Talk to it: .venv/bin/truetune chat {args.output_dir}")
    console.print(f"The loss: {args.output_dir}/training_loss.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
