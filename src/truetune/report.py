"""What a run says of itself: lines on the console, and the files about it (results, environment, model card)."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from truetune.files import write_json, write_text
from truetune.findings import Finding
from truetune.options import Config

_COLOURS = {"error": "bold red", "warn": "yellow", "info": "dim"}
_SHOWN = 600  # characters of one piece of a row
_HUB_ID = re.compile(r"(?!bundled/)[\w.-]+/[\w.-]+")
_PACKAGES = ("truetune", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """One line each, whole on every terminal: it may be searched for or piped."""
    for finding in findings:
        line = Text(finding.line())
        line.stylize(_COLOURS[finding.severity], 0, 5)
        console.print(line, soft_wrap=True)


def print_facts(facts: dict[str, Any], console: Console) -> None:
    """The numbers of `preflight` as a small table."""
    table = Table(box=None, show_header=False, pad_edge=False)
    left_out = f", {facts['rows_left_out']:,} left out" if facts["rows_left_out"] else ""
    held_out = f", {facts['rows_held_out']:,} held out" if facts["rows_held_out"] else ""
    table.add_row("rows", f"{facts['rows']:,}{held_out}{left_out}")
    table.add_row("tokens", f"{facts['tokens']:,} an epoch, {facts['tokens_learned']:,} learned; "
                            f"a row has {facts['length_median']:,} (median) to {facts['length_longest']:,}")
    table.add_row("steps", f"{facts['steps']:,} in all, {facts['steps_per_epoch']:,} an epoch")
    console.print(table)


def environment() -> dict[str, str]:
    """Versions and machine, for environment.json and `truetune env`."""
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_environment(folder: Path, device: str) -> None:
    """environment.json: what is needed to compute the same again, or to explain why it is not the same."""
    write_json(folder / "environment.json", {**environment(), **machine(), "device": device, "command": sys.argv})


def peak_memory() -> float:
    """The most memory this process has held, in GB (10^9 bytes): on the GPU where it used one, else resident."""
    import resource

    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts kilobytes, on macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def write_results(folder: Path, results: dict[str, float]) -> None:
    """`all_results.json`, and its parts under the names that tools look for."""
    write_json(folder / "all_results.json", results)
    for part in ("train", "eval"):
        mine = {name: value for name, value in results.items() if name.startswith(part) or name == "epoch"}
        if len(mine) > 1:
            write_json(folder / f"{part}_results.json", mine)


def write_card(folder: Path, name: str, config: Config, results: dict[str, float]) -> None:
    """README.md: what the model is. In its header hubs take ids only, so a folder or file of this machine stays out."""
    base, method = config.model_name_or_path or "", config.finetuning_type
    learned = f" on {', '.join(config.dataset)}" if config.dataset else ""
    adapter = (folder / "adapter_config.json").is_file()
    header = {"base_model": base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None,
              "library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation",
              "tags": ["truetune", method]}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items() if value), "---", "",
             f"# {name}", "", f"`{base}`, fine-tuned ({method}){learned} with truetune.", ""]
    if results:
        lines += ["| result | value |", "|---|---|",
                  *(f"| {key} | {f'{value:,}' if isinstance(value, int) else f'{value:.4g}'} |"
                    for key, value in results.items()), "",
                  "`config.yaml` holds every option; `truetune train config.yaml output_dir=…` runs it again.", ""]
    write_text(folder / "README.md", "\n".join(lines))


def machine() -> dict[str, str]:
    """What computes here: processors, memory, GPUs."""
    import torch

    found = {"processors": str(os.cpu_count()), "memory": f"{_memory() / 1e9:.1f} GB",
             "bfloat16": "native" if torch.cpu._is_avx512_bf16_supported() else "emulated"}
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found[f"gpu {number}"] = f"{properties.name}, {properties.total_memory / 1e9:.1f} GB"
    return found


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def print_rows(rows: Sequence[Any], tokenizer: Any, console: Console, count: int = 3) -> None:
    """The first rows as they are trained on; what is learned is green, or where there is no colour in brackets."""
    left, right = ("", "") if console.color_system else ("⟦", "⟧")
    console.print(f"The first rows; what is learned is {'green' if console.color_system else 'in ⟦brackets⟧'}.")
    for row in rows[:count]:
        text = Text(f"\n{row.where}\n", style="bold")
        for learned, tokens in groupby(zip(row.weights > 0, row.ids.tolist(), strict=True), key=lambda pair: pair[0]):
            piece = tokenizer.decode([token for _, token in tokens])
            piece = piece if len(piece) <= _SHOWN else f"{piece[: _SHOWN // 2]} … {piece[-_SHOWN // 2 :]}"
            text.append(f"{left}{piece}{right}" if learned else piece, style="green" if learned else "dim")
        console.print(text)
