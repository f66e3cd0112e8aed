"""Whether a run fits: predicted memory beside what is free, how many rows fit at once, and what would save how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from truetune.check.machine import size
from truetune.check.measure import Measured
from truetune.check.memory import ALONE, Memory, Shape, Split, predict, shape_of
from truetune.check.section import Section
from truetune.check.suggest import Suggestion
from truetune.data.dataset import PER_ROW
from truetune.data.reading import STAGE_ROWS
from truetune.data.rows import Rows, Stream
from truetune.findings import Both, Finding, Problem, Words, spoken
from truetune.model.memory import free_bytes
from truetune.model.precision import pick_device, pick_precision
from truetune.model.reference import way_of
from truetune.objectives import OBJECTIVES
from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.steps import round_of

SHARE = 0.9
"""Of the memory that is free: above it a run is tight, since others take memory too."""
SLOWER = 0.3
"""What gradient checkpointing costs of the speed: 26 to 34 % measured on SmolLM2-135M; in theory one forward pass of
three (Chen et al. 2016, arXiv:1604.06174)."""
_NF4_BITS = 4.127
"""Bits of a weight in nf4 with its scales quantised too (Dettmers et al. 2023, QLoRA, arXiv:2305.14314, section 3)."""
PARTS: dict[str, Both] = {
    "weights": Both("weights", "权重"), "gradients": Both("gradients", "梯度"),
    "optimizer": Both("optimizer", "优化器"), "activations": Both("activations", "激活"),
    "head": Both("output head", "输出头"), "process": Both("program", "程序本身"),
}
PHASES: dict[str, Both] = {
    "loading": Both("while it is loaded", "加载时"), "forward": Both("at the end of the forward pass", "前向结束时"),
    "backward": Both("in the backward pass", "反向传播时"), "step": Both("in the optimizer step", "优化器更新时"),
}


@dataclass(frozen=True)
class Batches:
    """The batches that can come. lengths: (rows,) tokens of each row of the data, the longest first; learned: the share
    of tokens that is learned; second: a reference model is in memory too."""

    lengths: np.ndarray
    learned: float
    second: bool = False

    @classmethod
    def of(cls, train: Rows | Stream, config: Config) -> Batches:
        """Rows as they are computed: packed, or a prompt with both of its answers, or with one that is written."""
        lengths, learned = train.lengths, train.learned
        per_row, round = PER_ROW[STAGE_ROWS[config.stage]], round_of(config)
        if per_row > 1:
            prompts = (lengths - learned).reshape(-1, per_row)
            shared = (per_row - 1) * prompts.min(axis=1)  # the prompt, which is computed once
            lengths, learned = (each.reshape(-1, per_row).sum(axis=1) for each in (lengths, learned))
            lengths = lengths - shared
        if round:
            lengths, learned = lengths - learned + round.tokens, np.full(len(lengths), round.tokens)
        share = float(learned.sum() / max(lengths.sum(), 1))
        if config.packing:
            lengths = np.full(max(1, int(lengths.sum()) // config.cutoff_len), config.cutoff_len)
        second = way_of(config, OBJECTIVES[config.stage](config)) == "second model"
        return cls(np.sort(lengths)[::-1], share, second)

    def largest(self, rows: int) -> list[int]:
        """Tokens of each row of the largest batch of so many rows."""
        return self.lengths[:rows].tolist()


@dataclass(frozen=True)
class Device:
    """total, free: bytes of the memory that computes; process: bytes taken there before there is a model."""

    kind: str
    total: int
    free: int
    process: int

    @classmethod
    def here(cls, device: torch.device) -> Device:
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            return cls("cuda", total, free, CUDA_CONTEXT)
        mine = psutil.Process().memory_info().rss
        return cls("cpu", psutil.virtual_memory().total, free_bytes(device) + mine, mine)


A_STEP = 8
"""Rows of a step that `auto` shares out, for each of gradient_accumulation_steps: the default batch size."""
CUDA_CONTEXT = 700_000_000
"""Bytes that CUDA and its libraries take on a GPU: 0.5 to 0.8 GB is usual. Not measured here."""


def need(shape: Shape, batches: Batches, rows: int, config: Config, device: Device, *,
         checkpointing: bool | None = None, split: Split = ALONE) -> Memory:
    """The memory of a run whose batches have `rows` rows."""
    lengths = batches.largest(rows)
    asked = config.gradient_checkpointing if checkpointing is None else checkpointing
    return predict(shape, lengths, round(sum(lengths) * batches.learned), device.process,
                   accumulation=config.gradient_accumulation_steps, checkpointing=bool(asked), split=split,
                   second=batches.second)


def fits(memory: Memory, device: Device) -> bool:
    return memory.peak <= SHARE * device.free


def most_rows(shape: Shape, batches: Batches, a_step: int, config: Config, device: Device) -> int:
    """The largest divisor of `a_step` (rows of a step) whose largest batch fits; 1 where none does."""
    divisors = [rows for rows in range(a_step, 0, -1) if a_step % rows == 0]
    return next((rows for rows in divisors if fits(need(shape, batches, rows, config, device), device)), 1)


def settle_batch(config: Config, base: Path, train: Rows | Stream) -> Config:
    """`config` with `per_device_train_batch_size: auto` made a number: as many rows as fit at once, of the rows of a
    step, which stay `A_STEP` times gradient_accumulation_steps.

    Raises:
        Problem: no model can be made from config.json.
    """
    if config.per_device_train_batch_size != "auto":
        return config
    device = pick_device(config)
    rows = A_STEP * config.gradient_accumulation_steps
    shape = shape_of(base, config, pick_precision(config, device))
    batches = Batches.of(train, config)
    fitting = most_rows(shape, batches, rows, config, Device.here(device))
    return config.with_values(f"rule: what fits of {rows} rows a step", per_device_train_batch_size=fitting,
                              gradient_accumulation_steps=rows // fitting)


def settle_checkpointing(config: Config, base: Path, train: Rows | Stream) -> tuple[Config, list[Finding]]:
    """`config` with gradient_checkpointing made yes or no where it was left open, and what there is to say: on where
    the prediction of the page does not fit without. (What a forward pass keeps is counted there as autograd keeps it;
    counted again on the loaded model it comes to the same, and the optimizer's memory would be missing.)"""
    if config.gradient_checkpointing is not None or not KINDS[config.finetuning_type].checkpoints:
        return config, []
    if config.activation_offload:
        return config.with_values("rule: activation_offload", gradient_checkpointing=True), []
    device = pick_device(config)
    try:
        shape = shape_of(base, config, pick_precision(config, device))
    except Problem:
        return config, []  # the page tells it
    here = Device.here(device)
    memory = need(shape, Batches.of(train, config), config.rows_at_once, config, here, checkpointing=False)
    much, free = size(memory.peak), size(here.free)
    config = config.with_values(f"rule: {much} predicted without, {free} free", gradient_checkpointing=not fits(
        memory, here))
    return config, [Finding("checkpointing-on", "info", Both(
        f"is on, since the run would need about {much} without it, and {free} are free.",
        f"已启用：不启用时约需 {much}，而可用 {free}。"), option="gradient_checkpointing", fix=Both(
            "A smaller per_device_train_batch_size would be faster.", "减小 per_device_train_batch_size 会更快。"))] \
        if config.gradient_checkpointing else []


def memory_section(shape: Shape, batches: Batches, config: Config, device: Device,
                   measured: Measured | None = None) -> Section:
    """Predicted memory by part, beside what is free and, if a step was taken, beside what that took."""
    memory = need(shape, batches, config.rows_at_once, config, device)
    section = Section("memory", Both("Memory", "内存") if device.kind == "cpu" else Both("GPU memory", "显存"))
    longest = batches.largest(config.rows_at_once)
    section.lines = [
        (Both("parameters", "参数量"), Both(
            f"{shape.parameters:,}, of which {shape.trained:,} are trained ({shape.trained / shape.parameters:.2%})",
            f"{shape.parameters:,}，其中训练 {shape.trained:,}（{shape.trained / shape.parameters:.2%}）")),
        (Both("longest batch", "最大的批次"), Both(
            f"{len(longest)} rows, {sum(longest):,} tokens", f"{len(longest)} 行，{sum(longest):,} 个 token")),
        *((PARTS[name], size(bytes)) for name, bytes in memory.parts.items()),
        (Both("at most", "最多"), Both(
            f"{size(memory.peak)} {PHASES[memory.phase].en}; {size(device.free)} free of {size(device.total)}: "
            f"{_verdict(memory, device).en}",
            f"{size(memory.peak)}（{PHASES[memory.phase].zh}）；共 {size(device.total)}，可用 {size(device.free)}："
            f"{_verdict(memory, device).zh}")),
    ]
    if measured and measured.peak:
        apart = memory.peak / measured.peak - 1
        section.lines.append((Both("measured", "实测"), Both(
            f"{size(measured.peak)}; the prediction is {apart:+.0%} off",
            f"{size(measured.peak)}，预测偏差 {apart:+.0%}")))
    if measured and measured.fault:
        section.findings.append(Finding(
            "not-measured", "warn", option="--measure", message=Both(
                f"the real step failed: {measured.fault}.", f"实际走一步失败：{spoken(measured.fault, True)}。")))
    section.facts = {"parameters": shape.parameters, "trained": shape.trained, **memory.parts,
                     "predicted": memory.peak, "phase": memory.phase, "free": device.free, "total": device.total,
                     "longest_batch": longest, "measured": measured.peak if measured else None,
                     "per_process": _shared(shape, batches, config, device)}
    section.findings += _room_findings(memory, shape, batches, config, device)
    return section


def _verdict(memory: Memory, device: Device) -> Both:
    if memory.peak > device.free:
        return Both("too big", "放不下")
    return Both("fits", "放得下") if fits(memory, device) else Both("tight", "勉强放得下")


def _shared(shape: Shape, batches: Batches, config: Config, device: Device) -> dict[str, int]:
    """Bytes on each of 8 devices, by how they share."""
    return {kind: need(shape, batches, config.rows_at_once, config, device, split=Split(8, kind)).peak
            for kind in ("ddp", "zero1", "zero2", "zero3", "fsdp")}


def _room_findings(memory: Memory, shape: Shape, batches: Batches, config: Config, device: Device) -> list[Finding]:
    """Too much for this machine at all: an error. More than is free now, or nearly: a warning."""
    if fits(memory, device):
        return []
    helps = savings(shape, batches, config, device)
    best = helps[0] if helps else None
    fix: Words = Both(f"{best.line(False)}.", f"{best.line(True)}。") if best else Both(
        "Use a smaller model, or a machine with more memory.", "请用更小的模型，或内存更大的机器。")
    never = memory.peak > device.total
    return [Finding(
        "out-of-memory", "error" if never else "warn", Both(
            f"the run needs about {size(memory.peak)}, and {size(device.total if never else device.free)} "
            f"{'are there' if never else 'are free'}.",
            f"运行约需 {size(memory.peak)}，而{'总共只有' if never else '可用'} "
            f"{size(device.total if never else device.free)}。"),
        option="per_device_train_batch_size", where=config.origin("per_device_train_batch_size"), fix=fix)]


def savings(shape: Shape, batches: Batches, config: Config, device: Device) -> list[Suggestion]:
    """What would make the run smaller, if it does not fit well: the most bytes for the least speed first."""
    now = need(shape, batches, config.rows_at_once, config, device)
    if fits(now, device):
        return []
    found = []
    rows, steps = config.rows_at_once, config.gradient_accumulation_steps
    for fewer in dict.fromkeys((max(1, rows // 2), 1)):
        if fewer < rows and rows % fewer == 0:
            cure = {"per_device_train_batch_size": fewer, "gradient_accumulation_steps": steps * rows // fewer}
            then = config.with_values("what if", **cure)
            found.append(_saving(cure, now, need(shape, batches, fewer, then, device), 0.05, Both(
                "the same rows a step, computed in smaller batches", "每步行数不变，分更小的批次计算")))
    if not config.gradient_checkpointing:
        then = need(shape, batches, rows, config, device, checkpointing=True)
        found.append(_saving({"gradient_checkpointing": True}, now, then, SLOWER, Both(
            "layers are computed twice instead of kept", "各层重算而不保存")))
    if KINDS[config.finetuning_type].quantised and not shape.coded and shape.linear and not config.fp8:
        codes = round(shape.linear * _NF4_BITS / 8)
        then = need(replace(shape, coded=codes), batches, rows, config, device)
        found.append(_saving({"quantization_bit": 4}, now, then, 0.2, Both(
            "linear layers held in 4 bits (nf4)", "线性层压成 4 位（nf4）")))
    if config.finetuning_type != "lora":
        lighter = replace(shape, trained=shape.parameters // 50, largest=0, large=0, adapter=True, head_trained=False)
        then = need(lighter, batches, rows, config, device)
        found.append(_saving({"finetuning_type": "lora", "learning_rate": 10 * config.learning_rate}, now, then, 0.0,
                             Both("an adapter of about 2 % is trained instead of all weights",
                                  "只训练约 2 % 的适配器，不训练全部权重")))
    return sorted((saving for saving in found if saving.saves > 0), key=lambda saving: -saving.saves)


def _saving(cure: Mapping[str, Any], now: Memory, then: Memory, speed: float, why: Both) -> Suggestion:
    saves = now.peak - then.peak
    return Suggestion(cure, Both(
        f"-{size(saves)}, about -{speed:.0%} speed; {why.en}", f"省 {size(saves)}，速度约 -{speed:.0%}；{why.zh}"),
        saves=saves, speed=speed)
