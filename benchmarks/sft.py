"""How fast supervised fine-tuning runs here, against what the machine could do at best.

    python benchmarks/sft.py --data FILE [--model M] [--rows 32] [--batch 4] [--repeat 5]

prints real (unpadded) tokens a second, peak memory, seconds until the first step is done, and the share of the floor:
the time that the step's arithmetic takes at the matrix-product rate measured in this process. Each repetition runs the
same rows; the median counts. The loop is the one of `truetune train`.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time

START = time.perf_counter()

import torch  # noqa: E402

from truetune.model.precision import matmul_rate  # noqa: E402
from truetune.options.read import read_config  # noqa: E402
from truetune.report import Terminal, peak_memory  # noqa: E402
from truetune.run import claim  # noqa: E402
from truetune.session import Session, start  # noqa: E402
from truetune.train import take_step  # noqa: E402


def floor_operations(session: Session) -> float:
    """Floating-point operations that one pass over all rows cannot do without.

    A matrix that is not trained costs 2 operations a weight and token forward and 2 backward; a trained one 2 more. The
    head counts for learned tokens only. Attention: 4 n^2 d / 2 a layer forward (causal half), twice that backward.
    """
    causal = session.policy.causal
    rows, text = session.ready.train, causal.config.get_text_config()
    tokens, learned = sum(map(len, rows)), sum(int((row.weights[1:] > 0).sum()) for row in rows)
    outside = {id(module.weight) for module in (causal.get_input_embeddings(), causal.get_output_embeddings())}
    body = [weight for weight in causal.parameters() if weight.ndim > 1 and id(weight) not in outside]
    matrices = sum((6 if weight.requires_grad else 4) * weight.numel() for weight in body) * tokens
    head = 4 * causal.get_output_embeddings().weight.numel() * learned
    width = text.num_attention_heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    attention = 6 * width * text.num_hidden_layers * sum(len(row) ** 2 for row in rows)
    return matrices + head + attention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="bundled/smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="further options of the run")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        words = [f"--model_name_or_path={args.model}", f"--dataset={args.data}", f"--max_samples={args.rows}",
                 f"--per_device_train_batch_size={args.batch}", f"--output_dir={folder}/run", "--max_steps=100000",
                 "--disable_shuffling=true", *args.set]
        config, findings = read_config(words)
        if findings:
            raise SystemExit("\n".join(finding.line() for finding in findings))
        session = start(claim(config), Terminal(file=io.StringIO()))
        session.model.train()
        plan, rates = session.ready.plan, []
        first = None
        for _ in range(args.repeat):
            tokens, seconds = session.progress.tokens, session.progress.seconds
            for _ in range(plan.steps_per_epoch):
                take_step(session)
                first = first or time.perf_counter() - START
            rates.append((session.progress.tokens - tokens) / (session.progress.seconds - seconds))
        session.events.close()
        dtype = session.policy.causal.dtype
        rate = matmul_rate(dtype, session.device, seconds=2.0)
        tokens = sum(map(len, session.ready.train))
        operations = floor_operations(session) / tokens
        median = statistics.median(rates)
        print(json.dumps({
            "rows": len(session.ready.train), "tokens": tokens, "dtype": str(dtype).removeprefix("torch."),
            "tokens_per_second": round(median, 1), "tokens_per_second_all": [round(r, 1) for r in rates],
            "peak_memory_gb": round(peak_memory(), 2), "seconds_until_first_step": round(first or 0, 1),
            "matmul_gflops": round(rate / 1e9, 1), "gflop_per_token": round(operations / 1e9, 3),
            "floor_tokens_per_second": round(rate / operations, 1),
            "share_of_floor": round(median * operations / rate, 3),
            "threads": torch.get_num_threads(),
        }, indent=1))


if __name__ == "__main__":
    main()
