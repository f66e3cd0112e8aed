r"""How fast DPO with LoRA runs here, and beside LLaMA-Factory 0.9.5: pairs a second and peak memory, in turns.

    python benchmarks/preference.py --data FILE [--pairs 64] [--batch 2] [--repeat 1] [--llamafactory PYTHON]

FILE holds ranked rows as LLaMA-Factory's dpo_en_demo.json does. Every run is a process of its own (`train` of either
command line), trains one epoch, and is asked for nothing else: no evaluation, no checkpoint, no questions. Seconds are
what each system reports for its training alone (train_runtime); memory is the largest the process ever held (ru_maxrss,
as the system tells its parent). Runs: ours in bfloat16 and float32, ours without shared prompts' and learned tokens'
savings (flash_attn=disabled: plain transformers, row by row), and LLaMA-Factory in float32, since it refuses bfloat16
on a CPU. data_llamafactory.py says how its environment is made; PYTHON is the interpreter there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from truetune.model.bundled import bundled_folder

_SHARED = {
    "stage": "dpo", "do_train": True, "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all",
    "pref_beta": 0.1, "pref_loss": "sigmoid", "cutoff_len": 2048, "num_train_epochs": 1, "learning_rate": 5e-6,
    "gradient_accumulation_steps": 1, "save_strategy": "no", "logging_steps": 1000, "plot_loss": False,
    "report_to": "none",
}


def timed(command: Sequence[str], results: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of training and peak memory (GB) of a command that writes `results`.

    Raises:
        SystemExit: it failed; its last words are shown.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{command[0]} failed:\n{log.read()[-3000:]}")
    told = json.loads(results.read_text(encoding="utf-8"))
    return told["train_runtime"], usage.ru_maxrss * 1024 / 1e9


def ours(args: argparse.Namespace, model: Path, folder: Path, more: dict[str, str]) -> tuple[float, float]:
    settings = {**_SHARED, "model_name_or_path": model, "dataset": args.data, "max_samples": args.pairs,
                "per_device_train_batch_size": args.batch, "output_dir": folder, "before_after": "false", **more}
    words = [f"{name}={value}" for name, value in settings.items()]
    return timed([sys.executable, "-m", "truetune", "train", *words], folder / "all_results.json", {})


def theirs(args: argparse.Namespace, model: Path, folder: Path) -> tuple[float, float]:
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "dataset_info.json").write_text(json.dumps({"pairs": {
        "file_name": str(Path(args.data).resolve()), "ranking": True, "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}}}), encoding="utf-8")
    settings = {**_SHARED, "model_name_or_path": str(model), "dataset": "pairs", "dataset_dir": str(data),
                "max_samples": args.pairs, "per_device_train_batch_size": args.batch, "template": "smollm2",
                "output_dir": str(folder / "run"), "use_cpu": True}
    file = folder / "run.yaml"  # JSON is YAML too, and its reader of .json files is broken
    file.write_text(json.dumps(settings), encoding="utf-8")
    return timed([args.llamafactory, "-m", "llamafactory.cli", "train", str(file)],
                 folder / "run" / "all_results.json",
                 {"DISABLE_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=["bf16", "fp32", "plain"])
    parser.add_argument("--llamafactory", metavar="PYTHON")
    args = parser.parse_args()
    model = bundled_folder("bundled/smollm2-135m-instruct", print)
    runs = {"bf16": {"bf16": "true"}, "fp32": {"bf16": "false"}, "plain": {"bf16": "true", "flash_attn": "disabled"}}
    measured: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.repeat):
            for name in args.only:
                measured.setdefault(name, []).append(ours(args, model, Path(folder) / f"{name}{number}", runs[name]))
            if args.llamafactory:
                measured.setdefault("llamafactory", []).append(theirs(args, model, Path(folder) / f"lf{number}"))
    for name, found in measured.items():
        seconds = statistics.median(taken for taken, _ in found)
        print(json.dumps({"run": name, "pairs_per_second": round(args.pairs / seconds, 3),
                          "seconds": [round(taken, 1) for taken, _ in found],
                          "peak_memory_gb": round(max(peak for _, peak in found), 2)}))


if __name__ == "__main__":
    main()
