r"""How fast LLaMA-Factory 0.9.5 makes training data of a file: the yardstick for our own data path.

Its code is not changed. It imports torchaudio even for text, and the compiled parts of that wheel need CUDA. torchaudio
loads without them when they are absent, so they are removed; text never calls it. torchvision is left out, as are
the packages of its web page and servers. An environment:

    python3.11 -m venv lf && lf/bin/pip install torch==2.13.0 "datasets<=4.0.0" transformers==5.6.0 peft==0.18.1 \
        trl==0.24.0 accelerate==1.11.0 omegaconf pillow matplotlib
    lf/bin/pip install --no-deps llamafactory==0.9.5 torchaudio==2.11.0
    rm lf/lib/python3.11/site-packages/torchaudio/lib/*.so

    lf/bin/python benchmarks/data_llamafactory.py FILE --tokenizer DIR --workers 2 [--rows N]

prints one line of JSON. FILE holds a JSON list of alpaca records; `--rows` repeats or cuts it to N rows. The clock runs
from the file to the finished dataset, as in its `train` command (stage sft, nothing cached). Outside the clock are
imports, options and loading the tokenizer. Within it, converting and tokenising are its two `Dataset.map` steps; the
rest is reading the JSON. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is on this disk; waiting for a network would be counted

from datasets import Dataset

with contextlib.redirect_stdout(sys.stderr):  # its log takes the stdout of this moment for good
    from llamafactory.data import (  # pyright: ignore[reportMissingImports]
        get_dataset,
        get_template_and_fix_tokenizer,
    )
    from llamafactory.hparams import get_train_args  # pyright: ignore[reportMissingImports]
    from llamafactory.model import load_tokenizer  # pyright: ignore[reportMissingImports]


@contextlib.contextmanager
def timed_maps() -> Iterator[dict[str, float]]:
    """Seconds of every `Dataset.map` by its title, while this is open: LLaMA-Factory's steps are such calls."""
    seconds: dict[str, float] = {}
    original = Dataset.map

    def timed(self: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        begin = time.perf_counter()
        result = original(self, *args, **kwargs)
        seconds[kwargs["desc"]] = time.perf_counter() - begin
        return result

    Dataset.map = timed
    try:
        yield seconds
    finally:
        Dataset.map = original


def place(file: Path, rows: int | None, folder: Path) -> None:
    """Write the dataset_info.json that names the file; with `rows`, a copy of the file that has so many rows."""
    if rows is not None:
        records = json.loads(file.read_text(encoding="utf-8"))
        file = folder / "rows.json"
        chosen = list(itertools.islice(itertools.cycle(records), rows))
        file.write_text(json.dumps(chosen, ensure_ascii=False, indent=2), encoding="utf-8")
    info = {"benchmark": {"file_name": str(file.resolve())}}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer (and config.json)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--template", default="smollm2")
    parser.add_argument("--cutoff_len", type=int, default=2048)
    args = parser.parse_args()

    # what LLaMA-Factory prints goes to stderr, so that stdout is the one line of JSON
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        place(args.file, args.rows, folder)
        model_args, data_args, training_args, _, _ = get_train_args({
            "stage": "sft", "do_train": True, "model_name_or_path": args.tokenizer, "template": args.template,
            "dataset": "benchmark", "dataset_dir": name, "cache_dir": str(folder / "cache"), "overwrite_cache": True,
            "cutoff_len": args.cutoff_len, "preprocessing_num_workers": args.workers,
            "output_dir": str(folder / "out"), "report_to": "none",
        })
        loaded = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
        with timed_maps() as maps:
            begin = time.perf_counter()
            module = get_dataset(template, model_args, data_args, training_args, stage="sft", **loaded)
            total = time.perf_counter() - begin
        train = module["train_dataset"]
        tokens = sum(map(len, train.with_format("numpy")["input_ids"]))
        result = {
            "rows": len(train), "tokens": tokens, "workers": args.workers, "seconds_total": round(total, 2),
            "seconds_converting": round(maps["Converting format of dataset"], 2),
            "seconds_tokenising": round(maps["Running tokenizer on dataset"], 2),
            "rows_per_second": round(len(train) / total, 1),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
