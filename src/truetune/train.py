"""A run, top to bottom.

The loop is written once for every objective: gradients of a summed loss are added over the batches of a step and
divided by the number of learned tokens in all of them, so batch size and accumulation change speed, never the result.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from truetune import report
from truetune.check import Checked, Preflight, examine, preflight
from truetune.checkpoint import (
    Progress,
    checkpoints,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from truetune.data.batches import Batch, collate
from truetune.data.renderer import Rendered
from truetune.events import ConsoleProgress, Event, Events, read_events
from truetune.files import write_into, write_json
from truetune.findings import Both, Finding, Problem, problem, refuse, spoken, worst_first
from truetune.interrupt import Interrupts
from truetune.model.load import cast_weights, fingerprint, load_model, write_manifest
from truetune.model.memory import bound_kernel_caches, fits
from truetune.model.methods import METHODS, trainable, write_weights
from truetune.model.policy import Policy
from truetune.model.precision import has_native_bf16, pick_device, pick_precision, resolve
from truetune.objectives import OBJECTIVES
from truetune.optim import Optimizer
from truetune.options import Config
from truetune.plot import plot_loss
from truetune.report import Terminal
from truetune.review.probes import FAILURES, Interview, ask_after, ask_before
from truetune.review.report import write_report
from truetune.review.rows import RowLosses
from truetune.review.signs import Signs
from truetune.rules import derive
from truetune.run import CHECK, EVENTS, Run, claim


@dataclass
class Session:
    """Everything a run in progress works with."""

    run: Run
    config: Config
    ready: Preflight
    device: torch.device
    model: torch.nn.Module
    policy: Policy
    objective: Any
    optimizer: Optimizer
    data_hash: str
    bar: ConsoleProgress
    interrupts: Interrupts
    events: Events
    progress: Progress
    row_losses: RowLosses


class _Stop(Exception):
    """The user wants to stop. Raised where nothing is half done: the run stands exactly after `progress.step` steps."""


def train(config: Config, terminal: Terminal, findings: Sequence[Finding] = (), checked: bool = True) -> None:
    """Run `config` into its run folder.

    Args:
        findings: what the options alone have told already, for check.json.
        checked: work out the whole page about the run first, and stop if it finds an error.

    Raises:
        Problem: whatever stops it, said in one line. KeyboardInterrupt: the user stopped it; a checkpoint is saved.
    """
    run = claim(config)
    with run.recorded():
        session = start(run, terminal, findings, checked)
        try:
            interview = _begin_review(session, terminal)
            with session.interrupts, session.bar:
                _run(session)
        finally:
            session.events.close()
            if session.config.plot_loss:
                plot_loss(read_events(run.folder / EVENTS), run.folder / "training_loss.png")
    if interview:
        _review(session, interview, terminal)
    terminal.say(Both(f"written to {run.folder}", f"已写入 {run.folder}"))


def _run(session: Session) -> None:
    try:
        if session.config.do_train:
            _loop(session)
        _finish(session)
    except _Stop:
        if session.progress.step:  # before the first step there is nothing to keep
            _save(session)
        raise KeyboardInterrupt from None


def _begin_review(session: Session, terminal: Terminal) -> Interview | None:
    """What the model says before the first step; None where nothing is trained."""
    if not session.config.do_train:
        return None
    origin = session.run.resume.parent if session.run.resume else None
    return ask_before(session.config, session.ready, session.policy, session.run.folder, origin, terminal.say)


def _review(session: Session, interview: Interview, terminal: Terminal) -> None:
    """What the model says now, and the report. The run is recorded as finished: whatever happens here, the model is
    safe, and the report can be made again."""
    folder = session.run.folder
    try:
        ask_after(interview, session.policy, session.row_losses, session.ready, folder, terminal.say)
    except KeyboardInterrupt:
        terminal.say(Both("stopped asking; the training is finished and saved", "已停止提问；训练已完成并保存"))
    try:
        for words in write_report(folder, terminal.chinese):
            terminal.say(words)
    except FAILURES as error:
        terminal.say(Both(f"the report could not be written ({error}); the training is finished and saved",
                          f"报告写入失败（{error}）；训练已完成并保存"))


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
    method = METHODS[config.finetuning_type]
    # Whole weights are loaded as they were saved, so that their master copies lose nothing, and cast afterwards.
    causal = load_model(ready.base, precision.dtype if method.adapter else "auto", device)
    model = method.prepare(causal, config, ready.base)
    weights = trainable(model)
    optimizer = Optimizer(weights, config, precision, ready.plan.total_steps)
    cast_weights(causal, precision.dtype)
    optimizer.make_room()
    policy = Policy(causal, fast=config.flash_attn != "disabled")
    sample = ready.sample()
    policy.verify(sample, device, say)
    if config.gradient_checkpointing is None:
        fit, numbers = fits(policy, sample, ready.largest_batch(config.rows_at_once), device)
        config = config.with_values(f"rule: {numbers}", gradient_checkpointing=not fit)
        if not fit:
            say(Both(f"gradient checkpointing is on: {numbers}; a smaller per_device_train_batch_size would be faster",
                     f"已启用 gradient checkpointing：{numbers.zh}；减小 per_device_train_batch_size 会更快"))
    run.freeze(config)
    if config.gradient_checkpointing:
        causal.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    trained, all_of_them = (sum(weight.numel() for weight in some) for some in (weights.values(), model.parameters()))
    say(Both(f"{config.finetuning_type} on {device.type} in {precision.name} ({precision.reason}); "
             f"{trained:,} of {all_of_them:,} weights train",
             f"{config.finetuning_type}，{device.type}，{precision.name}（{spoken(precision.reason, True)}）；"
             f"训练 {all_of_them:,} 个权重中的 {trained:,} 个"))

    data_hash = hash_inputs(ready)
    progress = load_checkpoint(run.resume, optimizer, data_hash) if run.resume else Progress()
    if run.resume:
        say(Both(f"going on from {run.resume}", f"从 {run.resume} 继续"))
    bar = ConsoleProgress(terminal, ready.plan.total_steps)
    parameters = sum(weight.numel() for weight in model.parameters())
    signs = Signs.of(config, parameters)
    events = Events(run.folder, [bar, lambda event: _warn(signs, event, events)], progress.step if run.resume else None)
    signs.replay(read_events(run.folder / EVENTS))
    events.emit("start", step=progress.step, total_steps=ready.plan.total_steps, facts=ready.facts,
                parameters=parameters)
    return Session(run, config, ready, device, model, policy, OBJECTIVES[config.stage](), optimizer, data_hash, bar,
                   Interrupts(say), events, progress, RowLosses(len(ready.train)))


def _loop(session: Session) -> None:
    """Optimizer steps until the plan is done, with whatever is due after each. What was due when an earlier process
    stopped, and was not done, is done first."""
    config, plan, progress = session.config, session.ready.plan, session.progress
    saved = progress.step
    session.model.train()
    while True:
        if _due(config.eval_steps or config.logging_steps, config.eval_strategy, session):
            _evaluate(session)
        patience = config.early_stopping_steps
        stops_early = patience is not None and progress.evaluations_without_gain >= patience
        if _due(config.save_steps, config.save_strategy, session) and saved != progress.step:
            _save(session)
            saved = progress.step
        if stops_early:
            session.events.emit("note", step=progress.step, text=Both(
                f"stopped early at step {progress.step}: {patience} evaluations without a loss below "
                f"{progress.best_eval:.4f}",
                f"在第 {progress.step} 步提前停止：连续 {patience} 次评估的 loss 都没有低于 {progress.best_eval:.4f}"))
        if stops_early or progress.step >= plan.total_steps:
            return
        learning_rate = session.optimizer.learning_rate
        norm = take_step(session)
        session.run.beat(progress.step)
        session.bar.show(progress, learning_rate)
        if (_due(config.logging_steps, "steps", session) or progress.step == plan.total_steps
                or (config.logging_first_step and progress.step == 1)):
            _log(session, learning_rate, norm)


def take_step(session: Session) -> float:
    """One optimizer step; returns the length of its gradient.

    Raises:
        Problem: a loss or gradient is not finite; the step is not taken.
    """
    progress, optimizer = session.progress, session.optimizer
    began, loss_sum, count, tokens = time.perf_counter(), 0.0, 0.0, 0
    random = random_state()
    batches: list[Batch] = []
    for numbers in session.ready.plan.batches(progress.step):
        if session.interrupts.wanted:
            optimizer.drop_gradients()
            set_random_state(random)
            raise _Stop
        batch = collate([session.ready.train[number] for number in numbers]).to(session.device)
        batches.append(batch)
        log_probabilities = session.policy.log_probabilities(batch)
        loss, weight, _ = session.objective.loss(log_probabilities, None, batch)
        if not loss.isfinite():
            raise _not_finite(session, batches, Both(f"the loss is {loss.item()}", f"loss 为 {loss.item()}"))
        optimizer.backward(loss)
        session.row_losses.saw(progress.step, numbers, batch, log_probabilities)
        loss_sum, count, tokens = loss_sum + loss.item(), count + weight, tokens + batch.tokens
    norm = optimizer.step(count)
    if not math.isfinite(norm) and not optimizer.scaler.is_enabled():
        raise _not_finite(session, batches, Both(f"the length of the gradient is {norm}", f"梯度的长度为 {norm}"))
    progress.took_step(loss_sum, count, tokens, time.perf_counter() - began)
    return norm


def _finish(session: Session) -> None:
    """Evaluate what was not evaluated, write model, results and card."""
    config, progress, folder = session.config, session.progress, session.run.folder
    if session.ready.held_out:
        _evaluate(session)
    results = {"epoch": progress.step / session.ready.plan.steps_per_epoch} if progress.step else {}
    if progress.step:
        results |= {
            "train_loss": progress.total_loss / progress.total_count, "train_runtime": progress.seconds,
            "train_steps": progress.step, "train_tokens": progress.tokens,
            "train_tokens_per_second": progress.tokens / progress.seconds, "train_peak_memory_gb": report.peak_memory(),
        }
    if progress.evaluations:
        last = progress.evaluations[-1]
        results |= {"eval_loss": last["loss"], "eval_perplexity": math.exp(min(last["loss"], 700))}
        results |= {name: value for name, value in last.items() if name.startswith("eval_")}
    report.write_results(folder, results)
    if config.do_train:
        write_into(folder, lambda part: _write_model(session, part))
        report.write_card(folder, folder.resolve().name, config, results)
    session.events.emit("end", step=progress.step, results=results)


def _log(session: Session, learning_rate: float, norm: float) -> None:
    progress, plan = session.progress, session.ready.plan
    session.events.emit(
        "step", step=progress.step, total_steps=plan.total_steps, epoch=round(progress.step / plan.steps_per_epoch, 4),
        loss=progress.window_loss / progress.window_count, learning_rate=learning_rate, grad_norm=norm,
        tokens=progress.tokens, seconds=round(progress.seconds, 2),
        tokens_per_second=round(progress.tokens / progress.seconds, 2))
    progress.window_loss = progress.window_count = 0.0


def _warn(signs: Signs, event: Event, events: Events) -> None:
    """Say what an event is a sign of."""
    for sign in signs.see(event):
        events.emit("note", step=sign.step, text=sign.words)


def _evaluate(session: Session) -> None:
    """Mean loss per learned token of the held-out rows, unless it is known for this step; of each set, if they are
    measured one by one."""
    progress, plan = session.progress, session.ready.plan
    if progress.evaluations and progress.evaluations[-1]["step"] == progress.step:
        return
    session.bar.busy(Both("evaluating", "正在评估"))
    session.model.eval()
    with torch.no_grad():
        sums = {name: loss_of(session, rows) for name, rows in session.ready.held_out.items()}
    session.model.train()
    loss = sum(total for total, _ in sums.values()) / sum(count for _, count in sums.values())
    each = {f"eval_{name}_loss": total / count for name, (total, count) in sums.items() if name}
    session.optimizer.evaluated(loss)
    progress.evaluated(loss, each)
    session.events.emit("eval", step=progress.step, total_steps=plan.total_steps,
                        epoch=round(progress.step / max(plan.steps_per_epoch, 1), 4), eval_loss=loss,
                        eval_perplexity=math.exp(min(loss, 700)), **each, seconds=round(progress.seconds, 2))


def loss_of(session: Session, rows: Sequence[Rendered]) -> tuple[float, float]:
    """The summed loss of `rows`, and what to divide it by."""
    loss_sum, count, size = 0.0, 0.0, session.config.per_device_eval_batch_size
    for first in range(0, len(rows), size):
        if session.interrupts.wanted:
            raise _Stop
        batch = collate(rows[first : first + size]).to(session.device)
        loss, weight, _ = session.objective.loss(session.policy.log_probabilities(batch), None, batch)
        loss_sum, count = loss_sum + loss.item(), count + weight
    return loss_sum, count


def _due(every: float, strategy: str, session: Session) -> bool:
    """Whether something that happens by `strategy`, every so many steps (below 1: a share of all), happens now."""
    step, plan = session.progress.step, session.ready.plan
    if step == 0:
        return False
    if strategy == "epoch":
        return step % plan.steps_per_epoch == 0 or step == plan.total_steps
    interval = math.ceil(every * plan.total_steps) if every < 1 else int(every)
    return strategy == "steps" and step % interval == 0


def _save(session: Session) -> None:
    config, progress = session.config, session.progress
    session.bar.busy(Both("saving a checkpoint", "正在保存检查点"))
    path = save_checkpoint(
        session.run.folder, progress, session.data_hash, None if config.save_only_model else session.optimizer,
        lambda folder: _write_model(session, folder), config.save_total_limit)
    session.events.emit("checkpoint", step=progress.step, text=Both(f"saved {path}", f"已保存 {path}"))


def _write_model(session: Session, folder: Path) -> None:
    """Adapter or model, the tokenizer with the template that trained it, and how to generate with it."""
    method, config, renderer = METHODS[session.config.finetuning_type], session.config, session.ready.renderer
    write_weights(session.model, folder, session.optimizer.masters, method)
    renderer.tokenizer.save_pretrained(folder)
    generation = session.policy.causal.generation_config
    if generation is not None:
        generation.eos_token_id = renderer.stop_ids()
        generation.save_pretrained(folder)
    if method.adapter:
        write_manifest(folder, config.model_name_or_path or "", session.ready.base)


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


def _not_finite(session: Session, batches: Sequence[Batch], what: Both) -> Problem:
    """Keep the batches that led here, and say what is known."""
    path, tokenizer = session.run.folder / "failed_batch.jsonl", session.ready.renderer.tokenizer
    with path.open("w", encoding="utf-8") as file:
        for batch in batches:
            for place, (start, end) in zip(batch.places, pairwise(batch.starts), strict=True):
                ids = batch.ids[0, start:end].tolist()
                file.write(json.dumps({"row": place, "ids": ids, "text": tokenizer.decode(ids)},
                                      ensure_ascii=False) + "\n")
    damaged = [name for name, weight in session.optimizer.masters.items() if not weight.isfinite().all()]
    cause = Both(f"weights are no longer finite, {damaged[0]} first", f"权重已不是有限的数，首先是 {damaged[0]}") \
        if damaged else Both("the weights are still finite", "权重仍是有限的数")
    known, rate = checkpoints(session.run.folder), f"{session.optimizer.learning_rate:g}"
    last = Both(f"{known[-1].name} is the last checkpoint", f"最后一个检查点是 {known[-1].name}") if known else \
        Both("no checkpoint was written", "还没有写过检查点")
    return problem("not-finite", Both(f"{what}; {cause}. The step's rows are kept in {path}; {last}.",
                                      f"{what.zh}；{cause.zh}。这一步的数据保存在 {path}；{last.zh}。"),
                   option=f"step {session.progress.step + 1}",
                   fix=Both(f"Lower learning_rate (now {rate}), or look at these rows.",
                            f"请降低 learning_rate（现在是 {rate}），或检查这些数据。"))
