r"""What each method learns in 30 steps, and in how much memory: the tables of docs/methods.md.

    python benchmarks/methods.py [--only lora qlora …] [--steps 30] [--jobs 2] [--write]

Each run is a process of its own with one thread (`truetune train` on the bundled 135M model and data/identity.json: 30
steps of 2 rows, 12 rows held out, bfloat16). `loss` is of the held-out rows after the last step; memory is the largest
that the process ever held (ru_maxrss, as the system tells its parent), loading included; the file is what is written.
Learning rates differ, since methods need different ones; they come from the methods' authors or libraries and are not
tuned. `--write` puts the rows that were measured into docs/methods.md and docs/methods.zh-CN.md, over those of the same
name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs" / name for name in ("methods.md", "methods.zh-CN.md")]
_SHARED = {
    "model_name_or_path": "bundled/smollm2-135m-instruct", "dataset_dir": str(ROOT / "data"), "dataset": "identity",
    "identity_name": "Quill", "identity_author": "Inkwell Labs", "val_size": 12, "per_device_train_batch_size": 2,
    "lr_scheduler_type": "cosine", "warmup_steps": 3, "logging_steps": 5, "save_strategy": "no", "plot_loss": "false",
    "before_after": "false", "bf16": "true",
}
_FULL = {"finetuning_type": "full", "learning_rate": 1e-4}
RUNS: dict[str, dict[str, object]] = {
    # what is trained
    "lora": {}, "lora, use_rslora": {"use_rslora": True}, "lora, use_dora": {"use_dora": True},
    "lora, pissa_init": {"pissa_init": True}, "lora, init_lora_weights: olora": {"init_lora_weights": "olora"},
    "lora, loraplus_lr_ratio: 16": {"loraplus_lr_ratio": 16, "learning_rate": 2e-4},
    "adalora": {"finetuning_type": "adalora", "learning_rate": 1e-2}, "oft": {"finetuning_type": "oft"},
    "vera": {"finetuning_type": "vera", "lora_rank": 256, "learning_rate": 1e-2},
    "ia3": {"finetuning_type": "ia3", "learning_rate": 1e-2}, "loha": {"finetuning_type": "loha"},
    "lokr": {"finetuning_type": "lokr"}, "bottleneck": {"finetuning_type": "bottleneck"},
    "prefix_tuning": {"finetuning_type": "prefix_tuning", "learning_rate": 1e-2},
    "prompt_tuning": {"finetuning_type": "prompt_tuning", "learning_rate": 3e-2},
    "p_tuning": {"finetuning_type": "p_tuning", "learning_rate": 1e-3},
    "freeze": {"finetuning_type": "freeze", "learning_rate": 2e-4}, "full": _FULL,
    # how the base is held
    "bnb, nf4": {"quantization_bit": 4}, "bnb, fp4": {"quantization_bit": 4, "quantization_type": "fp4"},
    "bnb, 8 bits": {"quantization_bit": 8}, "hqq, 4 bits": {"quantization_bit": 4, "quantization_method": "hqq"},
    "torchao, int8": {"quantization_bit": 8, "quantization_method": "torchao"},
    # who steps
    "adamw_8bit": {**_FULL, "optim": "adamw_8bit"}, "adafactor": {**_FULL, "optim": "adafactor"},
    "lion_32bit": {**_FULL, "optim": "lion_32bit", "learning_rate": 1e-5}, "use_muon": {**_FULL, "use_muon": True},
    "use_adam_mini": {**_FULL, "use_adam_mini": True},
    "use_galore": {**_FULL, "use_galore": True, "galore_rank": 64, "galore_scale": 1.0},
    "use_apollo": {**_FULL, "use_apollo": True, "apollo_rank": 64, "apollo_scale": 1.0},
    "use_badam": {**_FULL, "use_badam": True, "badam_switch_interval": 10},
    "schedule_free_adamw": {**_FULL, "optim": "schedule_free_adamw", "lr_scheduler_type": "constant_with_warmup"},
    "sgd": {**_FULL, "optim": "sgd", "learning_rate": 0.05},
    "optimizer_in_backward": {**_FULL, "optimizer_in_backward": True, "max_grad_norm": 0},
}
"""By name, the options that make each run."""


def measure(options: dict[str, object], steps: int) -> dict[str, float]:
    """Held-out loss, peak memory (GB), weights trained and the size of what is written (MB).

    Raises:
        SystemExit: it failed; its last words are shown.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        settings = {"learning_rate": 1e-3, **_SHARED, "max_steps": steps, "output_dir": f"{folder}/run", **options}
        command = [sys.executable, "-m", "truetune", "train", *(f"{name}={value}" for name, value in settings.items())]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, "OMP_NUM_THREADS": "1"})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        told = log.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{told[-3000:]}")
        results = json.loads(Path(folder, "run", "all_results.json").read_text(encoding="utf-8"))
        written = sum(file.stat().st_size for file in Path(folder, "run").glob("*.safetensors"))
    trained = re.search(r"; ([\d,]+) of [\d,]+ weights train", told)
    assert trained, told
    return {"loss": results["eval_loss"], "memory": usage.ru_maxrss * 1024 / 1e9, "file": written / 1e6,
            "trained": int(trained[1].replace(",", ""))}


def row(name: str, options: dict[str, object], found: dict[str, float]) -> str:
    return (f"| `{name}` | {found['trained']:,} | {options.get('learning_rate', 1e-3):g} | {found['loss']:.2f} "
            f"| {found['memory']:.2f} | {found['file']:.1f} |")


def write(rows: dict[str, str]) -> None:
    """Put rows into the tables of measurements in both pages, over those of the same name. Other tables there name
    methods too; they have other columns."""
    columns = next(iter(rows.values())).count("|")
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").split("\n")
        page.write_text("\n".join(rows.get(line.split("`")[1], line)
                                  if line.startswith("| `") and line.count("|") == columns else line
                                  for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(RUNS))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    print("| run | trained weights | learning rate | loss | memory (GB) | file (MB) |\n|---|---|---|---|---|---|")

    def measured(name: str) -> tuple[str, str]:
        text = row(name, RUNS[name], measure(RUNS[name], args.steps))
        print(text, flush=True)
        return name, text

    with ThreadPoolExecutor(args.jobs) as pool:
        rows = dict(pool.map(measured, args.only))
    if args.write:
        write(rows)


if __name__ == "__main__":
    main()
