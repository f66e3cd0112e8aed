r"""What each method learns in 30 steps, in how much memory and how fast: the tables of docs/methods.md.

    python benchmarks/methods.py [--only lora qlora …] [--steps 30] [--write]

Each run is a process of its own (`truetune train` on the bundled 135M model and data/identity.json: 30 steps of 4 rows,
12 rows held out), one after the other, with the learning rate that the method's own authors or libraries propose.
`loss` is of the held-out rows after the last step (before the first it is 3.7: the untuned model); memory is the largest the process ever
held (ru_maxrss, as the system tells its parent); tokens a second are of the training alone. `--write` puts the tables
into docs/methods.md and docs/methods.zh-CN.md, a row for each run that was made, the others left as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs" / name for name in ("methods.md", "methods.zh-CN.md")]
_SHARED = {
    "model_name_or_path": "bundled/smollm2-135m-instruct", "dataset_dir": str(ROOT / "data"), "dataset": "identity",
    "identity_name": "Quill", "identity_author": "Inkwell Labs", "val_size": 12, "per_device_train_batch_size": 4,
    "lr_scheduler_type": "cosine", "warmup_steps": 3, "logging_steps": 5, "save_strategy": "no", "plot_loss": "false",
    "before_after": "false",
}
RUNS: dict[str, dict[str, dict[str, object]]] = {}
"""Tables by title, of runs by name: the options that make each."""


def measure(options: dict[str, object], steps: int) -> dict[str, float]:
    """Held-out loss, peak memory (GB), tokens a second and trained weights of one run.

    Raises:
        SystemExit: it failed; its last words are shown.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        settings = {**_SHARED, "max_steps": steps, "output_dir": f"{folder}/run", **options}
        command = [sys.executable, "-m", "truetune", "train", *(f"{name}={value}" for name, value in settings.items())]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        told = log.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{told[-3000:]}")
        results = json.loads(Path(folder, "run", "all_results.json").read_text(encoding="utf-8"))
        weights = sum(file.stat().st_size for file in Path(folder, "run").glob("*.safetensors"))
    trained = re.search(r"; ([\d,]+) of [\d,]+ weights train", told)
    return {"loss": results["eval_loss"], "memory": usage.ru_maxrss * 1024 / 1e9,
            "speed": results["train_tokens_per_second"], "file": weights / 1e6,
            "trained": int(trained[1].replace(",", "")) if trained else 0}


def row(name: str, found: dict[str, float]) -> str:
    return (f"| `{name}` | {found['trained']:,} | {found['loss']:.2f} | {found['memory']:.2f} | {found['speed']:.0f} "
            f"| {found['file']:.1f} |")


def write(rows: dict[str, str]) -> None:
    """Put rows into the tables of both pages: over the row of the same name."""
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").split("\n")
        begins = {line.split("`")[1]: number for number, line in enumerate(lines) if line.startswith("| `")}
        for name, text in rows.items():
            lines[begins[name]] = text
        page.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    for title, runs in RUNS.items():
        print(f"\n{title}\n\n| run | trained weights | loss | memory (GB) | tokens/s | file (MB) |\n|---|---|---|---|---|---|")
        for name, options in runs.items():
            if not args.only or name in args.only:
                text = row(name, measure(options, args.steps))
                print(text, flush=True)
                if args.write:
                    write({name: text})


if __name__ == "__main__":
    main()
