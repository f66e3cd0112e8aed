"""How fast data become a finished token store, against the tokenizer alone and against LLaMA-Factory, in turns.

    python benchmarks/data.py --data FILE [--rows 50000] [--model M] [--repeat 3] [--llamafactory PYTHON]

FILE (alpaca rows) is repeated to so many rows, each made different by its number. Every repetition runs, one after
the other: `encode_batch` over the rendered texts and nothing else; file to finished store, cold; and, where the Python
of an environment with LLaMA-Factory is given (benchmarks/data_llamafactory.py says how to make one), its preprocessing
of the same file with two workers. Medians of rows a second are printed, and the most memory that this process held.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from truetune.check.preflight import prepare
from truetune.data.dataset import load_data
from truetune.data.reading import read_source
from truetune.data.sources import find_sources
from truetune.data.template import make_renderer
from truetune.options import Config
from truetune.report import peak_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--model", default="bundled/smollm2-135m-instruct")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--llamafactory", metavar="PYTHON")
    parser.add_argument("--only-store", action="store_true", help="no yardsticks: for the memory of many rows")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = repeated(asked.data, asked.rows, Path(folder) / "rows.json")
        config = Config(model_name_or_path=asked.model, dataset=(str(file),))
        os.environ["XDG_CACHE_HOME"] = str(link_cache(Path(folder)))
        runs: dict[str, Callable[[], float]] = {"truetune": lambda: store_seconds(config)}
        if not asked.only_store:
            texts, backend, folder_of_model = rendered(config)
            runs = {"encode_batch": lambda: seconds(lambda: backend.encode_batch(texts, add_special_tokens=False)),
                    **runs}
            if asked.llamafactory:
                runs["LLaMA-Factory"] = lambda: llamafactory_seconds(asked.llamafactory, file, folder_of_model)
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(asked.repeat):
            for name, run in runs.items():
                rates[name].append(asked.rows / run())
                print(f"{name:<14} {rates[name][-1]:>8,.0f} rows/s", file=sys.stderr)
    medians = {name: round(statistics.median(values)) for name, values in rates.items()}
    print(json.dumps({"rows": asked.rows, "rows_per_second": medians, "peak_memory_gb": round(peak_memory(), 2)}))


def repeated(source: Path, count: int, target: Path) -> Path:
    """`count` rows, none like another, as a JSON array."""
    rows = json.loads(source.read_text(encoding="utf-8"))
    with target.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = rows[number % len(rows)]
            row = {**row, "instruction": f"{number}. {row['instruction']}"}
            file.write(("[" if number == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
        file.write("]\n")
    return target


def link_cache(folder: Path) -> Path:
    """A cache that has the converted models of the user's own and no token store."""
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "truetune" / "bundled"
    cache = folder / "cache"
    (cache / "truetune").mkdir(parents=True)
    own.mkdir(parents=True, exist_ok=True)
    (cache / "truetune" / "bundled").symlink_to(own)
    return cache


def rendered(config: Config) -> tuple[list[str], object, Path]:
    """The texts, the tokenizer's Rust part, and the model's folder."""
    model, renderer, _, _ = prepare(config.with_values("", max_samples=10), print)
    (source,) = find_sources(config.dataset, config, "dataset")
    talks = [[message.as_dict() for message in row.messages] for row in read_source(source, config, "conversations")]
    return (renderer.tokenizer.apply_chat_template(talks, tokenize=False), renderer.tokenizer.backend_tokenizer, model)


def store_seconds(config: Config) -> float:
    """From file to finished store, made afresh, with a renderer that knows nothing yet. As for LLaMA-Factory, loading
    the tokenizer is not counted."""
    model, loaded, _, _ = prepare(config.with_values("", max_samples=10), print)
    renderer = make_renderer(loaded.tokenizer, model, config)
    return seconds(lambda: load_data(config.with_values("", overwrite_cache=True), renderer, print))


def llamafactory_seconds(python: str, file: Path, model: Path) -> float:
    script = Path(__file__).with_name("data_llamafactory.py")
    done = subprocess.run([python, str(script), str(file), "--tokenizer", str(model), "--workers", "2"],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["seconds_total"]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
