"""Everything a run works with, checked, loaded and compared before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch

from truetune import report
from truetune.check import Checked, Preflight, examine, preflight
from truetune.checkpoint import Progress, load_checkpoint
from truetune.events import ConsoleProgress, Event, Events, read_events
from truetune.files import write_json
from truetune.findings import Both, Finding, refuse, spoken, worst_first
from truetune.interrupt import Interrupts
from truetune.lessons import Lessons, make_lessons
from truetune.model.accelerate import pick_speedups
from truetune.model.adapters import virtual_of
from truetune.model.attention import kernel_of
from truetune.model.base import load_base
from truetune.model.float8 import multiply_in_float8
from truetune.model.load import cast_weights, fingerprint
from truetune.model.memory import bound_kernel_caches, compute_again
from truetune.model.methods import METHODS, switch_off_dropout, take_method_state, trainable
from truetune.model.noise import Noise, set_attention_dropout
from truetune.model.policy import Policy
from truetune.model.precision import has_native_bf16, pick_device, pick_precision, resolve
from truetune.model.quantize import Codes, parameter_count
from truetune.model.value import head_weights, make_value_head
from truetune.objectives import OBJECTIVES, Objective
from truetune.optim import Optimizer, make_optimizer
from truetune.options import Config
from truetune.report import Terminal
from truetune.review.rows import RowLosses
from truetune.review.signs import Signs
from truetune.rules import derive
from truetune.run import CHECK, EVENTS, Run


@dataclass
class Session:
    """Everything a run in progress works with."""

    run: Run
    config: Config
    ready: Preflight
    device: torch.device
    model: torch.nn.Module
    policy: Policy
    objective: Objective
    lessons: Lessons
    optimizer: Optimizer
    data_hash: str
    bar: ConsoleProgress
    interrupts: Interrupts
    events: Events
    progress: Progress
    row_losses: RowLosses


def start(run: Run, terminal: Terminal, findings: Sequence[Finding] = (), checked: bool = True) -> Session:
    """Everything checked, loaded and compared before the first step.

    Raises:
        Problem: the run cannot start, or would be useless.
    """
    say = terminal.say
    bound_kernel_caches()
    device = pick_device(run.config)
    precision = pick_precision(run.config, device)
    config = resolve(derive(run.config), precision)
    ready = preflight(config, say)
    config = ready.config
    ready.findings += _device_findings(config, device)
    page = examine(ready, findings, say) if checked else Checked(worst_first([*findings, *ready.findings]), ready=ready)
    refuse(page.findings)
    report.print_findings([finding for finding in page.findings if finding not in findings], terminal)
    report.print_facts(ready.facts, terminal)
    write_json(run.folder / CHECK, page.as_dict())
    report.write_environment(run.folder, str(device))

    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = bool(config.tf32)
    method, objective = METHODS[config.finetuning_type], OBJECTIVES[config.stage](config)
    # Whole weights are loaded as they were saved, so that their master copies lose nothing, and cast afterwards.
    causal = load_base(ready.base, config, precision.dtype if method.adapter else "auto", device)
    if config.fp8:
        multiply_in_float8(causal)
    model = method.prepare(causal, config, ready.base, ready.new_tokens)
    set_attention_dropout(causal, config)
    if method.planned:
        method.planned(model, ready.plan.total_steps)
    if not objective.dropout:
        switch_off_dropout(model)
    head = make_value_head(causal, config, ready.base) if objective.wants.values else None
    weights = {**trainable(model), **(head_weights(head) if head else {})}
    optimizer = make_optimizer(model, weights, config, precision, ready.plan.total_steps, method)
    cast_weights(causal, precision.dtype)
    optimizer.make_room()
    alpha = config.neftune_noise_alpha if objective.dropout else None
    policy = Policy(causal, outer=virtual_of(model), fast=config.flash_attn != "disabled", shares=objective.shares,
                    value_head=head, temperature=objective.temperature, kernel=kernel_of(config, device),
                    speedups=pick_speedups(causal, config, device),
                    noise=Noise(causal.get_input_embeddings(), alpha) if alpha else None)
    policy.verify(ready.sample(objective.shares), say)
    run.freeze(config)
    if config.gradient_checkpointing:
        compute_again(causal, config, device)
    trained, all_of_them = sum(weight.numel() for weight in weights.values()), parameter_count(model)
    codes = Codes.of(config)
    say(Both(f"{config.finetuning_type} on {device.type} in {precision.name} ({precision.reason})"
             f"{f', over {codes} weights' if codes else ''}; "
             f"{trained:,} of {all_of_them:,} weights train",
             f"{config.finetuning_type}，{device.type}，{precision.name}（{spoken(precision.reason, True)}）"
             f"{f'，基座为 {codes} 权重' if codes else ''}；"
             f"训练 {all_of_them:,} 个权重中的 {trained:,} 个"))

    data_hash = hash_inputs(ready)
    interrupts = Interrupts(say)
    lessons = make_lessons(config, ready, objective, policy, model, run, say, lambda: interrupts.wanted)
    progress = Progress()
    if run.resume:
        progress, kept = load_checkpoint(run.resume, optimizer, data_hash)
        objective.load_state(progress.objective)
        lessons.load_state(take_method_state(model, method, kept))
        say(Both(f"going on from {run.resume}", f"从 {run.resume} 继续"))
    bar = ConsoleProgress(terminal, ready.plan.total_steps, objective.headline)
    parameters = parameter_count(model)
    signs = Signs.of(config, parameters)
    events = Events(run.folder, [bar, lambda event: _warn(signs, event, events)], progress.step if run.resume else None)
    signs.replay(read_events(run.folder / EVENTS))
    events.emit("start", step=progress.step, total_steps=ready.plan.total_steps, facts=ready.facts,
                parameters=parameters)
    return Session(run, config, ready, device, model, policy, objective, lessons, optimizer, data_hash,
                   bar, interrupts, events, progress, RowLosses(len(ready.train)))


def _warn(signs: Signs, event: Event, events: Events) -> None:
    """Say what an event is a sign of."""
    for sign in signs.see(event):
        events.emit("note", step=sign.step, text=sign.words)


def hash_inputs(ready: Preflight) -> str:
    """A hash of what is trained on: the base model, and every token and weight in order."""
    return sha256(f"{fingerprint(ready.base)} {ready.train.hash()}".encode()).hexdigest()[:16]


def _device_findings(config: Config, device: torch.device) -> list[Finding]:
    findings = []
    if config.tf32 and device.type != "cuda":
        findings.append(Finding("no-effect", "info", Both(
            f"no effect: tf32 is a format of NVIDIA GPUs, and this run is on the {device.type}.",
            f"不起作用：tf32 是 NVIDIA GPU 的格式，而这次用的是 {device.type}。"),
            option="tf32", where=config.origin("tf32")))
    if config.activation_offload and device.type != "cuda":
        findings.append(Finding("no-effect", "info", Both(
            f"no effect: what would be moved to the CPU's memory is there already, this run is on the {device.type}.",
            f"不起作用：这次用的是 {device.type}，中间结果本来就在 CPU 内存里。"),
            option="activation_offload", where=config.origin("activation_offload")))
    if (config.bf16 or config.pure_bf16) and not has_native_bf16(device):
        option = "bf16" if config.bf16 else "pure_bf16"
        findings.append(Finding("slow-bf16", "warn", Both(f"this {device.type} emulates bfloat16, which is slow.",
                                                          f"这里的 {device.type} 只能模拟 bfloat16，很慢。"),
                                option=option, where=config.origin(option),
                                fix=Both("bf16: false computes in float32.", "bf16: false 会用 float32 计算。")))
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        count = torch.cuda.device_count()
        findings.append(Finding("one-gpu", "warn", Both(
            f"{count} GPUs are here, and one is used: training on several comes later.",
            f"这里有 {count} 块 GPU，只用一块：暂不支持多卡训练。")))
    return findings
