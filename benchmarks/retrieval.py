r"""What rope_scaling is worth without any training: a number hidden in a text of twice the model's own length.

    python benchmarks/retrieval.py [--tokens 16384] [--depth 0.3] [--ways none linear dynamic yarn llama3]

The bundled model (made for 8,192 tokens) reads a long text of dull sentences with a five-digit key in it, is asked for
the key at the end, and what it is worth is the mean -log p (nats) of the key's tokens: 0 is certain, 2.3 a guess among
ten digits. 16,384 tokens take some minutes a way on one core.
"""

from __future__ import annotations

import argparse

import torch

from truetune.model.base import load_base
from truetune.model.bundled import bundled_folder
from truetune.model.find import load_tokenizer
from truetune.options.read import read_config

_DULL = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
_KEY, _TOLD = " 71432", " The pass key is 71432. Remember it. 71432 is the pass key. "
_ASKED = "\nWhat is the pass key? The pass key is"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--depth", type=float, default=0.3, help="where in the text the key stands")
    parser.add_argument("--ways", nargs="*", default=["none", "linear", "dynamic", "yarn", "llama3"])
    args = parser.parse_args()
    base = bundled_folder("bundled/smollm2-135m-instruct", print)
    tokenizer = load_tokenizer(base)
    dull, told, asked, key = (tokenizer(text)["input_ids"] for text in (_DULL, _TOLD, _ASKED, _KEY))
    body = (dull * (args.tokens // len(dull) + 1))[: args.tokens - len(told) - len(asked) - len(key)]
    at = int(args.depth * len(body))
    ids = torch.tensor([body[:at] + told + body[at:] + asked + key])  # (1, T)
    for way in args.ways:
        words = [] if way == "none" else [f"--rope_scaling={way}", "--rope_factor=2"]
        config, _ = read_config([f"--model_name_or_path={base}", "--use_cpu=true", *words])
        model = load_base(base, config, torch.bfloat16, torch.device("cpu"))
        with torch.no_grad():
            hidden = model.base_model(input_ids=ids).last_hidden_state[0, -len(key) - 1 : -1]  # (K, H)
            logp = model.get_output_embeddings()(hidden).float().log_softmax(-1)
            logp = logp.gather(1, ids[0, -len(key):, None])
        print(f"{args.tokens} tokens, key at {args.depth:.0%}, {way}: {-float(logp.mean()):.3f} nats", flush=True)


if __name__ == "__main__":
    main()
