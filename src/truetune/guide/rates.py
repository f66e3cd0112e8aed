"""Learning rates that others have measured, by model.

A learning rate of LoRA means something only together with alpha / rank. All of these are for alpha 32, whatever the
rank: so scaled the best rate hardly depends on the rank (LoRA Without Regret).
"""

from __future__ import annotations

from collections.abc import Mapping

SWEPT: Mapping[tuple[str, int, int, int], tuple[str, float]] = {
    ("llama", 2048, 16, 128256): ("Llama-3.2-1B", 1e-3),
    ("llama", 3072, 28, 128256): ("Llama-3.2-3B", 1e-3),
    ("llama", 4096, 32, 128256): ("Llama-3.1-8B", 3e-4),
    ("llama", 8192, 80, 128256): ("Llama-3.1-70B", 3e-4),
    ("qwen3", 2560, 36, 151936): ("Qwen3-4B", 1e-3),
    ("qwen3", 4096, 36, 151936): ("Qwen3-8B", 1e-3),
    ("qwen3", 5120, 64, 151936): ("Qwen3-32B", 3e-4),
    ("qwen3_moe", 2048, 48, 151936): ("Qwen3-30B-A3B", 1e-3),
    ("qwen3_moe", 4096, 94, 151936): ("Qwen3-235B-A22B", 3e-4),
    ("gpt_oss", 2880, 24, 201088): ("gpt-oss-20b", 1e-4),
}
"""Best LoRA rate of Thinking Machines' sweep (Tulu 3 data, batch 128, 780 steps), by model_type, hidden size, layers
and vocabulary, so that a copy under another name is known too."""

SMALL = 0.5e9
"""Up to so many weights our own trials hold: 1e-3 against a third and three times that, 40 steps of SmolLM2-135M with
rank 16. 96 rows about its name, 4 a step: held-out loss 0.567 (a third), 0.476, 0.495 (three times). Alpaca rows, 8 a
step: 1.629 and 1.598; the highest rate was stopped early, with a training loss above the others'."""

LORA: tuple[tuple[float, float], ...] = ((SMALL, 1e-3), (6e9, 5e-4), (20e9, 2e-4), (float("inf"), 1e-4))
"""(up to so many weights, rate): the careful side of Tinker, QLoRA and Qwen. 4 and 7, 14 and 30 billion were measured;
where between them the borders lie is our judgement."""

WHOLE: tuple[tuple[float, float], ...] = (
    (1e9, 5e-5), (6e9, 2e-5), (20e9, 1e-5), (60e9, 5e-6), (float("inf"), 2e-6),
)
"""The same where whole weights are trained: about a tenth of LoRA's, at the large end what Tulu 3 took."""


def by_size(parameters: int, rates: tuple[tuple[float, float], ...]) -> float:
    """The rate of `rates` for a model with so many weights."""
    return next(rate for most, rate in rates if parameters <= most)
