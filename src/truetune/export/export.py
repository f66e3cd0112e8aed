"""`truetune export`, from top to bottom: merged model, quantised forms, GGUF, Ollama, the proof, the card, the hub.

Everything is made in a hidden folder beside export_dir and gets its name at the end (`files.write_folder`), so a full
disk or a kill leaves nothing half done. What the proof refuses is called `<export_dir>.failed`, and is never published.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from truetune.data.renderer import Renderer
from truetune.data.template import make_renderer, settle_template
from truetune.export.adapter import write_adapter_alone
from truetune.export.calibration import calibration_rows
from truetune.export.card import card_sections
from truetune.export.merge import codes_of, merge_device, plain_base, write_model
from truetune.export.push import push
from truetune.export.quantized import require_quantizer, write_quantized
from truetune.export.room import gguf_types_of, require_room
from truetune.exported import FILES
from truetune.files import write_folder
from truetune.findings import WRONG_OPTIONS, Both, Say, Words, problem, refuse
from truetune.model.adapters import adapters_of, put_adapters, require_base, require_merging, virtual_of
from truetune.model.find import find_model, load_model_config, load_tokenizer
from truetune.model.load import load_model
from truetune.model.quantize import Codes, dequantise, quantise
from truetune.options import Config
from truetune.options.gguf_types import GGUF_TYPES
from truetune.parity.gate import TRAINED, Reference, Served, prove
from truetune.parity.report import Parity
from truetune.parity.tame import require_tame
from truetune.report import Terminal, write_card
from truetune.serve.llamacpp import require_llamacpp

_COARSE = 6
"""Bits below which an importance matrix is worth its minutes."""


@dataclass(frozen=True)
class Plan:
    """What is to be exported, and that it can be.

    Attributes:
        base: the model's folder. adapters: in order. renderer: that of training.
    """

    config: Config
    target: Path
    base: Path
    adapters: Sequence[Path]
    renderer: Renderer

    def wants(self, form: str) -> bool:
        return form in self.config.export_format

    @property
    def gguf_types(self) -> Sequence[str]:
        """Of whole models."""
        return gguf_types_of(self.config)

    @property
    def keeps_merged(self) -> bool:
        """Whether the plain merged model is part of the export, and not only what other forms are made from."""
        return self.wants("hf") and not self.config.export_quantization_bit

    def fits(self, kind: str) -> bool:
        """Whether a GGUF type is fitted to texts, where there are some."""
        wanted = self.config.export_imatrix
        return wanted if wanted is not None else GGUF_TYPES[kind].bits < _COARSE

    def trained(self, adapters: Sequence[Path], codes: Codes | None = None) -> torch.nn.Module:
        """Adapters on the base that they are merged into, in float32; or on what `codes` make of it."""
        model = plain_base(self.base, self.config, self.adapters, lambda words: None)
        if codes:
            quantise(model, codes, torch.device("cpu"))
            dequantise(model)
        torch.nn.Module.to(model, merge_device(self.config))
        whole = put_adapters(model, adapters, self.base).eval()
        return virtual_of(whole) or model

    @property
    def references(self) -> dict[str, Reference]:
        """What the merged model is held to: the adapters on their base. Where that was held in codes while they were
        trained, and they are merged into the weights from before, the distance from there is told too."""
        if not self.adapters:
            return {}
        found = {TRAINED: Reference(partial(self.trained, self.adapters))}
        codes = codes_of(self.config, self.adapters)
        if codes and self.config.export_base != "dequantized" and not self.config.export_adapter_only:
            found[f"{TRAINED} over {codes}"] = Reference(partial(self.trained, self.adapters, codes), codes.bits)
        return found

    @property
    def needs_rows(self) -> bool:
        """Whether anything is fitted to texts."""
        return bool(self.config.export_quantization_bit) or any(map(self.fits, self.gguf_types))

    def gguf(self, kind: str) -> str:
        """The name of a GGUF file, as hubs and Ollama read the type from it."""
        return f"{self.target.name}-{kind.upper()}.gguf"


def export(config: Config, say: Say, terminal: Terminal | None = None) -> Path:
    """Write what `export_format` asks for into `export_dir`, prove it, and push it where `export_hub_model_id` says.

    Args:
        terminal: where the table of the proof is shown.

    Raises:
        Problem: the folder is in use, something cannot be loaded or written (then nothing is left behind), or the proof
            failed (then the export is in `<export_dir>.failed`).
    """
    start = time.perf_counter()
    plan = make_plan(config, say)
    found: list[Parity] = []

    def fill(part: Path) -> Path:
        found.append(_fill(part, plan, say))
        return plan.target if found[0].status != "failed" else _failed(plan.target)

    try:
        written = write_folder(plan.target, fill)
    except (OSError, SafetensorError) as error:
        raise problem("export-unwritten", Both(f"{plan.target} could not be written: {error}",
                                               f"{plan.target} 无法写入：{error}"), option="export_dir") from error
    parity = found[0]
    if terminal:
        parity.show(terminal)
    if parity.first:
        raise problem("parity-failed", Both(
            f"what would be served is not what was trained: {parity.first.words()}.",
            f"部署出来的不是训练出的模型：{parity.first.words().zh}。"), option="export_dir", fix=Both(
                f"The export is in {written}, with parity.json; nothing was published.",
                f"导出内容在 {written}（含 parity.json）；没有发布任何东西。"))
    _tell(plan, parity, time.perf_counter() - start, say)
    if config.export_hub_model_id:
        push(plan.target, config, say)
    return plan.target


def make_plan(config: Config, say: Say) -> Plan:
    """What can be known before minutes are spent.

    Raises:
        Problem: see `export`.
    """
    assert config.model_name_or_path is not None and config.export_dir is not None  # rules have made sure
    target = Path(config.export_dir)
    if target.exists() and any(target.iterdir()):
        raise problem("export-in-use", Both(f"{target} is not empty.", f"{target} 不是空的。"), option="export_dir",
                      status=WRONG_OPTIONS, where=config.origin("export_dir"),
                      fix=Both("Choose another folder, or empty it.", "请换一个文件夹，或清空它。"))
    base, adapters = find_model(config.model_name_or_path, config, say), adapters_of(config)
    for number, adapter in enumerate(adapters):
        require_base(adapter, base, adapters[:number])
        if not config.export_adapter_only:
            require_merging(adapter)
    trained = next((adapter for adapter in reversed(adapters) if (adapter / "tokenizer.json").is_file()), base)
    tokenizer = load_tokenizer(trained)
    require_tame(str(tokenizer.chat_template or ""), tokenizer.special_tokens_map, str(trained))
    refuse(settle_template(tokenizer, config))
    plan = Plan(config, target, base, adapters, make_renderer(tokenizer, trained, config))
    if plan.wants("gguf") or plan.wants("ollama"):
        _require_gguf(plan)
    if config.export_quantization_bit:
        require_quantizer()
    require_room(target, base, config, plan.gguf_types)
    return plan


def _require_gguf(plan: Plan) -> None:
    """Raises:
    Problem: a package is missing, or GGUF knows no such architecture.
    """
    if find_spec("gguf") is None:
        raise problem("no-gguf", Both("the package that writes GGUF files is not installed.",
                                      "没有安装写 GGUF 文件所需的包。"), option="export_format", fix="pip install gguf")
    if plan.config.export_parity != "off" or any(GGUF_TYPES[kind].llamacpp for kind in plan.gguf_types):
        require_llamacpp("export_format")
    from truetune.export.gguf import require_convertible

    require_convertible(plan.base)


def _fill(part: Path, plan: Plan, say: Say) -> Parity:
    """Everything that is asked for, in `part`, with its proof and its card."""
    work, say = part / ".work", _as_named(say, part, plan.target)
    served = (_write_alone if plan.config.export_adapter_only else _write_forms)(part, work, plan, say)
    parity = Parity()
    if plan.config.export_parity != "off":
        with timed(Both("parity", "一致性检查"), say):
            parity = prove(plan.renderer, served, say, plan.references, logits=plan.config.export_parity == "full")
    shutil.rmtree(work, ignore_errors=True)
    parity.write(part)
    write_card(part, plan.target.name, plan.config, {}, card_sections(part, plan.target.name, parity))
    return parity


def _write_forms(part: Path, work: Path, plan: Plan, say: Say) -> Served:
    """The merged model, and what is made from it. Where only that is wanted, it is made in `work`, which will be
    deleted."""
    config, merged = plan.config, part if plan.keeps_merged else work / "merged"
    merged.mkdir(parents=True, exist_ok=True)
    with timed(Both("merged", "合并"), say):
        write_model(config, merged, say)
    rows = calibration_rows(config, plan.renderer, say) if plan.needs_rows else []
    quantized = None
    if plan.wants("hf") and config.export_quantization_bit:
        with timed(Both(f"quantised to {config.export_quantization_bit} bits",
                        f"量化到 {config.export_quantization_bit} 比特"), say):
            write_quantized(merged, part, config, rows, say)
        quantized = part, float(config.export_quantization_bit)
    ggufs = _write_ggufs(part, merged, plan, rows, say)
    ollama = None
    if plan.wants("ollama"):
        from truetune.export.ollama import write_modelfile

        kind = plan.gguf_types[-1]
        ollama = write_modelfile(part, ggufs[kind].name, merged, config, say), kind
    saved = part if plan.wants("hf") else None
    return Served(partial(load_model, merged, torch.float32, merge_device(config)), _bits(merged), saved, quantized,
                  ggufs, ollama)


def _write_alone(part: Path, work: Path, plan: Plan, say: Say) -> Served:
    """The adapter by itself, and as a GGUF file. It serves what was trained if it still does so on its base, which is
    written in `work` for llama.cpp to try it on."""
    write_adapter_alone(plan.config, part, say)
    served = Served(partial(plan.trained, [part]), 32, part)
    if not plan.wants("gguf"):
        return served
    from truetune.export.gguf import write_gguf, write_gguf_adapter

    adapter = part / f"{plan.target.name}-LoRA.gguf"
    write_gguf_adapter(part, plan.base, adapter, say)
    if plan.config.export_parity == "off":
        return served
    work.mkdir(parents=True, exist_ok=True)
    write_gguf(plan.base, work / "base.gguf", "f16", name=plan.target.name, say=say)
    return replace(served, ggufs={"f16": work / "base.gguf"}, lora=adapter)


def _bits(folder: Path) -> float:
    """Of the weights of a model."""
    return 8 * (load_model_config(folder).dtype or torch.float32).itemsize


def _write_ggufs(part: Path, merged: Path, plan: Plan, rows: Sequence[np.ndarray], say: Say) -> dict[str, Path]:
    """A file of each type that is wanted."""
    if not plan.gguf_types:
        return {}
    from truetune.export.gguf import measure_importance, write_gguf

    fitted = {kind for kind in plan.gguf_types if plan.fits(kind)} if rows else set()
    importance = measure_importance(merged, rows, say) if fitted else None
    files = {kind: part / plan.gguf(kind) for kind in plan.gguf_types}
    for kind, file in files.items():
        write_gguf(merged, file, kind, importance=importance if kind in fitted else None, name=plan.target.name,
                   say=say)
    return files


def _as_named(say: Say, part: Path, target: Path) -> Say:
    """`say`, with files called as they will be."""

    def named(words: Words) -> None:
        here, there = part.name, target.name
        say(words.replace(here, there) if isinstance(words, str) else
            Both(*(half.replace(here, there) for half in words)))

    return named


def _failed(target: Path) -> Path:
    return target.with_name(f"{target.name}.failed")


def _tell(plan: Plan, parity: Parity, seconds: float, say: Say) -> None:
    """What lies where, what of it was proven, and the one command that runs it."""
    target = plan.target
    say(Both(f"exported to {target} in {seconds:.0f} s:", f"已导出到 {target}，用时 {seconds:.0f} 秒："))
    for pattern, what in FILES.items():
        files = sorted(target.glob(pattern))
        if files:
            size = f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"
            names = ", ".join(file.name for file in files[:4]) + (", …" if len(files) > 4 else "")
            say(Both(f"  {names} ({size}): {what}", f"  {names}（{size}）：{what.zh}"))
    if parity.status == "unproven":
        say(Both("nothing was proven (export_parity: off, or a model without a chat template)",
                 "没有证明任何东西（export_parity: off，或模型没有对话模板）"))
    run = f"cd {target} && ollama create {target.name.lower()} -f Modelfile" if plan.wants("ollama") else \
        f"truetune chat {target}" if plan.wants("hf") else \
        f"llama-server --jinja -m {target / plan.gguf(plan.gguf_types[-1])}"
    say(Both(f"to try it: {run}", f"试用：{run}"))


@contextmanager
def timed(what: Both, say: Say) -> Iterator[None]:
    """One line when a stage is done, with its seconds."""
    start = time.perf_counter()
    yield
    seconds = f"{time.perf_counter() - start:.0f}"
    say(Both(f"{what}: {seconds} s", f"{what.zh}：{seconds} 秒"))
