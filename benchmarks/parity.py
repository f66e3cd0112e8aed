"""How far the forms of one model are from each other: what the bounds of the parity gate were set by.

    python benchmarks/parity.py [MODEL]        bundled/smollm2-135m-instruct unless another is named

Side by side, on the positions that `truetune parity` compares: transformers in float32 against float16 and bfloat16,
and against GGUF files of several types in llama.cpp. Prints max |delta log p|, mean KL and top-1 agreement, and the
bound in `parity.logits.BOUNDS`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from truetune.data.template import make_renderer, settle_template
from truetune.export.gguf import write_gguf
from truetune.model.find import find_model, load_tokenizer
from truetune.model.load import load_model
from truetune.options.gguf_types import GGUF_TYPES
from truetune.options.read import read_config
from truetune.parity.layers import Trained
from truetune.parity.logits import Distance, bound_of, distance, gguf_logprobs, model_logprobs, passages
from truetune.serve.llamacpp import LlamaCpp

KINDS = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "q3_k_m", "q2_k")


def main(name: str) -> None:
    config, _ = read_config([f"--model_name_or_path={name}"])
    folder = find_model(name, config, print)
    tokenizer = load_tokenizer(folder)
    settle_template(tokenizer, config)
    asked = passages(Trained(make_renderer(tokenizer, folder, config)))
    cpu = torch.device("cpu")
    exact = model_logprobs(load_model(folder, torch.float32, cpu), asked)
    print("| form | max abs delta log p | mean KL | top-1 | KL allowed | top-1 allowed |\n|---|---|---|---|---|---|")
    for dtype in (torch.float16, torch.bfloat16):
        found = model_logprobs(load_model(folder, dtype, cpu), asked)
        show(distance(f"hf {dtype}".replace("torch.", ""), found, "hf float32", exact, bound_of(16)))
    with tempfile.TemporaryDirectory() as place:
        for kind in KINDS:
            file = Path(place) / f"{kind}.gguf"
            write_gguf(folder, file, kind, say=lambda words: None)
            with LlamaCpp(file, context=512) as engine:
                found = gguf_logprobs(engine, asked)
            show(distance(kind, found, "hf float32", exact, bound_of(GGUF_TYPES[kind].bits)))
            file.unlink()


def show(found: Distance) -> None:
    print(f"| {found.form} | {found.largest:.3g} | {found.kl:.2e} | {found.agreement:.1%} | {found.bound.kl:g} | "
          f"{found.bound.agreement:.0%} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "bundled/smollm2-135m-instruct")
