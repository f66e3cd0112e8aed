"""What a run says of itself: lines on the console, and the files about it (results, environment, model card)."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from truetune.files import write_json, write_text
from truetune.findings import Both, Finding, Words, spoken
from truetune.options import OPTIONS, Config

if TYPE_CHECKING:
    from truetune.look.preview import Part, Piece, Preview

_COLOURS = {"error": "bold red", "warn": "yellow", "info": "dim"}
_HUB_ID = re.compile(r"(?!bundled/)[\w.-]+/[\w.-]+")
_PACKAGES = ("truetune", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


class Terminal(Console):
    """A console that prints what it is given, in one language: no colours by guess, no markup read from data, no lines
    broken. Other keywords are rich's."""

    def __init__(self, chinese: bool = False, **settings: Any):
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, "soft_wrap": True, **settings})
        self.chinese = chinese

    def say(self, words: Words) -> None:
        """One line of text."""
        self.print(spoken(words, self.chinese))


def print_findings(findings: Sequence[Finding], terminal: Terminal) -> None:
    """One line each, whole on every terminal: it may be searched for or piped."""
    for finding in findings:
        line = Text(finding.line(terminal.chinese))
        line.stylize(_COLOURS[finding.severity], 0, line.plain.index("  "))
        terminal.print(line, soft_wrap=True)


def print_facts(facts: dict[str, Any], terminal: Terminal) -> None:
    """The numbers of `preflight` as a small table."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, told in (_facts_in_chinese if terminal.chinese else _facts_in_english)(facts).items():
        table.add_row(name, told)
    terminal.print(table)


def _facts_in_english(facts: dict[str, Any]) -> dict[str, str]:
    left_out = f", {facts['rows_left_out']:,} left out" if facts["rows_left_out"] else ""
    held_out = f", {facts['rows_held_out']:,} held out" if facts["rows_held_out"] else ""
    streamed = facts.get("sampled")
    among = f"in the first {streamed:,} rows" if streamed else "an epoch"
    epoch = "" if streamed else f", {facts['steps_per_epoch']:,} an epoch"
    return {"rows": f"{facts['rows']:,}{' of a stream' if streamed else ''}{held_out}{left_out}",
            "tokens": f"{facts['tokens']:,} {among}, {facts['tokens_learned']:,} learned; "
                      f"a row has {facts['length_median']:,} (median) to {facts['length_longest']:,}",
            "steps": f"{facts['steps']:,} in all{epoch}"}


def _facts_in_chinese(facts: dict[str, Any]) -> dict[str, str]:
    left_out = f"，丢弃 {facts['rows_left_out']:,}" if facts["rows_left_out"] else ""
    held_out = f"，留出 {facts['rows_held_out']:,}" if facts["rows_held_out"] else ""
    streamed = facts.get("sampled")
    among = f"前 {streamed:,} 行" if streamed else "每个 epoch "
    epoch = "" if streamed else f"，每个 epoch {facts['steps_per_epoch']:,}"
    return {"行数": f"{facts['rows']:,}{'（流式）' if streamed else ''}{held_out}{left_out}",
            "token": f"{among}共 {facts['tokens']:,}，其中学习 {facts['tokens_learned']:,}；"
                     f"每行中位数 {facts['length_median']:,}，最长 {facts['length_longest']:,}",
            "步数": f"共 {facts['steps']:,}{epoch}"}


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
    write_json(folder / "environment.json", {**environment(), **machine(), "device": device,
                                              "command": _without_secrets(sys.argv)})


def _without_secrets(words: Sequence[str]) -> list[str]:
    """A command line with the values of secret options blotted out: `--hub_token=…`, `--hub_token …`."""
    secret = {name for name, option in OPTIONS.items() if option.text.secret}
    kept, before = [], ""
    for word in words:
        name, equals, _ = word.removeprefix("--").replace("-", "_").partition("=")
        hidden = f"{word.partition('=')[0]}=…" if equals and name in secret else "…" if before in secret else word
        kept.append(hidden)
        before = name if word.startswith("--") and not equals else ""
    return kept


def peak_memory() -> float:
    """The most memory this process has held, in GB (10^9 bytes): on the GPU where it used one, else resident."""
    import resource

    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage begins with the peak of the process that started this one
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts kilobytes, on macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def write_results(folder: Path, results: dict[str, float]) -> None:
    """`all_results.json`, and its parts under the names that tools look for."""
    write_json(folder / "all_results.json", results)
    for part in ("train", "eval"):
        mine = {name: value for name, value in results.items() if name.startswith(part) or name == "epoch"}
        if len(mine) > 1:
            write_json(folder / f"{part}_results.json", mine)


def write_card(folder: Path, name: str, config: Config, results: dict[str, float],
               sections: Sequence[str] = ()) -> None:
    """README.md: what the model is, and further lines (sections). In its header hubs take ids only, so a folder or file
    of this machine stays out."""
    base, method = config.model_name_or_path or "", config.finetuning_type
    learned = f" on {', '.join(config.dataset)}" if config.dataset else ""
    adapter = (folder / "adapter_config.json").is_file()
    header = {"base_model": base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None,
              "library_name": "gguf" if _only_gguf(folder) else "peft" if adapter else "transformers",
              "pipeline_tag": "text-generation",
              "tags": ["truetune", method]}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items() if value), "---", "",
             f"# {name}", "", f"`{base}`, fine-tuned ({method}){learned} with truetune.", ""]
    if results:
        lines += ["| result | value |", "|---|---|",
                  *(f"| {key} | {f'{value:,}' if isinstance(value, int) else f'{value:.4g}'} |"
                    for key, value in results.items()), "",
                  "`config.yaml` holds every option; `truetune train config.yaml output_dir=…` runs it again.", ""]
    write_text(folder / "README.md", "\n".join([*lines, *sections]))


def _only_gguf(folder: Path) -> bool:
    return any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors"))


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


_ROLES = {"system": "magenta", "user": "cyan", "tool": "yellow", "assistant": "green", "document": "green",
          None: "bright_black"}
_SPEAKERS = {"system": Both("system", "系统"), "user": Both("user", "用户"), "tool": Both("tool", "工具"),
             "assistant": Both("assistant", "助手"), "document": Both("document", "文档"),
             None: Both("what the chat template writes", "对话模板自带的文字")}
_LEGEND = (
    ("Rows as they are trained on: ", ("underlined", "underline"), " is learned, the rest is only read; ",
     ("reversed", "underline reverse"), " ends an answer; "),
    ("训练时的数据：", ("下划线", "underline"), "的内容参与学习，其余只是读入；", ("反白", "underline reverse"),
     "表示回答结束；"),
)
_JUDGED = {True: Both(", judged good", "，标注为好"), False: Both(", judged bad", "，标注为差"), None: ""}


def print_rows(rows: Sequence[Preview], terminal: Terminal, ids: bool = False, most: int | None = None,
               legend: bool = True) -> None:
    """Rows as they are trained on. Colour says who speaks; what is learned is underlined, or where there is no colour
    in brackets.

    Args:
        ids: under each part its tokens with their ids.
        most: so many characters of a piece are shown; None: all.
    """
    chinese = terminal.chinese
    if legend:
        terminal.print(_legend(rows, bool(terminal.color_system), chinese))
    for row in rows:
        terminal.print(Text(f"\n{row.where}", "bold").append(
            f"  {spoken(_counts(row), chinese)}{spoken(_JUDGED[row.label], chinese)}", "not bold"))
        for note in row.notes:
            terminal.print(Text(spoken(Both(f"note: {note}", f"注意：{spoken(note, True)}"), chinese), "yellow"))
        for part in row.parts:
            if len(row.parts) > 1:
                terminal.print(Text(f"── {part.name}: {spoken(_counts(part), chinese)}", "bold"))
            text = _part(part, bool(terminal.color_system), most)
            terminal.print(text, end="" if text.plain.endswith("\n") else "\n")
            if ids:
                for line in _id_lines(part, terminal.width):
                    terminal.print(line)
    terminal.print()


def _counts(some: Preview | Part) -> Both:
    return Both(f"{some.tokens:,} tokens, {some.learned:,} of them learned",
                f"{some.tokens:,} 个 token，学习其中 {some.learned:,} 个")


def _legend(rows: Sequence[Preview], colour: bool, chinese: bool) -> Text:
    if not colour:
        return Text(spoken(Both("Rows as they are trained on; what is learned is in ⟦brackets⟧, the rest is only read.",
                                "训练时的数据：⟦括号⟧中的内容参与学习，其余只是读入。"), chinese))
    legend = Text.assemble(*_LEGEND[chinese])
    there = {piece.mark.role for row in rows for part in row.parts for piece in part.pieces}
    names = [(spoken(_SPEAKERS[role], chinese), style) for role, style in _ROLES.items() if role in there]
    for number, (name, style) in enumerate(names):
        legend.append(("、" if chinese else ", ") if number else "").append(name, style)
    return legend.append("。" if chinese else ".")


def _part(part: Part, colour: bool, most: int | None) -> Text:
    text = Text()
    for (learned, weight), pieces in groupby(part.pieces, key=lambda piece: (piece.learned, piece.mark.weight)):
        counts = f"{weight:g}×" if learned and weight != 1 else ""
        if learned:
            text.append(counts if colour else f"⟦{counts}", "yellow")
        for piece in pieces:
            text.append(_shown(piece.text, most), _style(piece))
        if learned and not colour:
            text.append("⟧")
    return text


def _style(piece: Piece) -> str:
    return _ROLES[piece.mark.role] + " underline" * piece.learned + " reverse" * piece.mark.end_of_turn


def visible(text: str) -> str:
    """Control characters made visible: they could command the terminal, and nobody would see them."""
    return _CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])) if ord(found[0]) < 0x20 else "\ufffd", text)


def _shown(text: str, most: int | None) -> str:
    return visible(f"{text[: most // 2]} … {text[-most // 2 :]}" if most and len(text) > most else text)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _id_lines(part: Part, width: int) -> Iterator[Text]:
    """Cells `token·id`, as many on a line as fit."""
    line = Text()
    for piece in part.pieces:
        for token in piece.tokens:
            words = visible(token.text).replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")
            cell = Text.assemble((words, _style(piece)), (f"·{'+'.join(map(str, token.ids))}", "dim"))
            if line and line.cell_len + 2 + cell.cell_len > width:
                yield line
                line = Text()
            line = line.append("  ").append_text(cell) if line else cell
    yield line
