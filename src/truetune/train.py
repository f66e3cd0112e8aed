"""A run, top to bottom.

The loop is written once for every objective: gradients of a summed loss are added over the batches of a step and
divided by what the objective counts in all of them (learned tokens, pairs), so batch size and accumulation change
speed, never the result.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch

from truetune import report
from truetune.checkpoint import Means, add_up, checkpoints, means, random_state, save_checkpoint, set_random_state
from truetune.data.batches import Batch
from truetune.data.renderer import Rendered
from truetune.evaluate.predict import predict
from truetune.events import read_events
from truetune.files import write_into
from truetune.findings import Both, Finding, Problem, problem
from truetune.model.adapters import write_manifest
from truetune.model.generation import settle_generation
from truetune.model.methods import METHODS, method_state, write_weights
from truetune.model.value import write_value_head
from truetune.options import Config
from truetune.plot import LOSS, metric_file, plot_loss, plot_metric
from truetune.report import Terminal
from truetune.review.probes import FAILURES, Interview, ask_after, ask_before
from truetune.review.report import write_report
from truetune.rollout.rewards import Unscored
from truetune.run import EVENTS, claim
from truetune.serve.generate import Stopped
from truetune.session import Session, start


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
                _draw(session)
    if interview:
        with session.optimizer.shown():
            _review(session, interview, terminal)
    terminal.say(Both(f"written to {run.folder}", f"已写入 {run.folder}"))
    if config.push_to_hub:
        from truetune.export.push import push_run  # the run is recorded as finished, whatever the hub says

        push_run(run.folder, config, terminal.say)


def _draw(session: Session) -> None:
    """The loss, and what the objective shows beside it."""
    folder = session.run.folder
    events = read_events(folder / EVENTS)
    plot_loss(events, folder / LOSS)
    for name in session.objective.headline:
        plot_metric(events, folder / metric_file(name), name)


def _run(session: Session) -> None:
    try:
        if session.config.do_train:
            _loop(session)
        with session.optimizer.shown():
            _finish(session)
    except (_Stop, Stopped):
        _keep(session)
        raise KeyboardInterrupt from None
    except Unscored:
        _keep(session)
        raise


def _keep(session: Session) -> None:
    """Save where the run stands; before the first step there is nothing to keep."""
    if session.progress.step:
        _save(session)


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
    objective, random, carried = session.objective, random_state(), session.objective.state()
    batches: list[Batch] = []
    metrics: Means = {}
    for lesson in session.lessons.step(session.ready.plan, progress.step):
        if session.interrupts.wanted:
            optimizer.drop_gradients()
            objective.load_state(carried)
            set_random_state(random)
            raise _Stop
        batch = lesson.batch
        batches.append(batch)
        said = session.policy.outputs(batch, objective.wants, lesson.beside)
        loss, weight, told = objective.loss(said, lesson.reference, batch)
        if not loss.isfinite():
            raise _not_finite(session, batches, Both(f"the loss is {loss.item()}", f"loss 为 {loss.item()}"))
        optimizer.backward(loss, weight)
        if lesson.numbers and objective.perplexity:
            session.row_losses.saw(progress.step, lesson.numbers, batch, said.logp)
        add_up(metrics, {**lesson.metrics, **told})
        loss_sum, count, tokens = loss_sum + loss.item(), count + weight, tokens + batch.tokens
    norm = optimizer.step(count)
    if not math.isfinite(norm) and not optimizer.scaler.is_enabled():
        raise _not_finite(session, batches, Both(f"the length of the gradient is {norm}", f"梯度的长度为 {norm}"))
    progress.took_step(loss_sum, count, tokens, time.perf_counter() - began, metrics)
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
        results |= {"eval_loss": last["loss"]}
        results |= {name: value for name, value in last.items() if name.startswith("eval_")}
    if config.do_train:
        write_into(folder, lambda part: _write_model(session, part))
    results |= predict(session.ready, session.policy, folder, lambda: session.interrupts.wanted,
                       lambda words: session.events.emit("note", step=progress.step, text=words))
    report.write_results(folder, results)
    if config.do_train:
        report.write_card(folder, folder.resolve().name, config, results)
    session.events.emit("end", step=progress.step, results=results)


def _log(session: Session, learning_rate: float, norm: float) -> None:
    progress, plan, told = session.progress, session.ready.plan, means(session.progress.window_metrics)
    session.events.emit(
        "step", step=progress.step, total_steps=plan.total_steps, epoch=round(progress.step / plan.steps_per_epoch, 4),
        loss=progress.window_loss / progress.window_count, learning_rate=learning_rate, grad_norm=norm,
        tokens=progress.tokens, seconds=round(progress.seconds, 2),
        tokens_per_second=round(progress.tokens / progress.seconds, 2), peak_memory_gb=round(report.peak_memory(), 3),
        **told, **session.objective.follows(told))
    progress.window_loss, progress.window_count, progress.window_metrics = 0.0, 0.0, {}


def _evaluate(session: Session) -> None:
    """Mean loss of the held-out rows, unless it is known for this step; of each set, if they are measured one by
    one. With it whatever else the objective says of them."""
    progress, plan = session.progress, session.ready.plan
    if progress.evaluations and progress.evaluations[-1]["step"] == progress.step:
        return
    session.bar.busy(Both("evaluating", "正在评估"))
    sums = {name: loss_of(session, name, rows) for name, rows in session.ready.held_out.items()}
    loss = sum(each.loss for each in sums.values()) / sum(each.count for each in sums.values())
    metrics: Means = {}
    for each in sums.values():
        add_up(metrics, each.metrics)
    known = {f"eval_{name}_loss": each.loss / each.count for name, each in sums.items() if name}
    known |= {"eval_perplexity": math.exp(min(loss, 700))} if session.objective.evaluation().perplexity else {}
    told = means(metrics)
    known |= {f"eval_{name}": value for name, value in {**told, **session.objective.follows(told)}.items()}
    session.optimizer.evaluated(loss)
    progress.evaluated(loss, known)
    session.events.emit("eval", step=progress.step, total_steps=plan.total_steps,
                        epoch=round(progress.step / max(plan.steps_per_epoch, 1), 4), eval_loss=loss, **known,
                        seconds=round(progress.seconds, 2))


@dataclass
class Sums:
    """Of some rows: the summed loss, what to divide it by, and metrics."""

    loss: float = 0.0
    count: float = 0.0
    metrics: Means = field(default_factory=dict)


def loss_of(session: Session, name: str, rows: Sequence[Rendered],
            batches: Sequence[Sequence[int]] | None = None) -> Sums:
    """The loss of `rows`, the held-out set `name`; only of some, if their numbers are given, batch by batch."""
    sums, objective, training = Sums(), session.objective.evaluation(), session.model.training
    size = session.config.per_device_eval_batch_size * session.ready.plan.per_row
    every = [range(first, min(first + size, len(rows))) for first in range(0, len(rows), size)]
    session.model.eval()
    with torch.no_grad(), session.optimizer.shown():
        for lesson in session.lessons.measure(name, rows, batches or every):
            if session.interrupts.wanted:
                raise _Stop
            said = session.policy.outputs(lesson.batch, objective.wants, lesson.beside)
            loss, weight, told = objective.loss(said, lesson.reference, lesson.batch)
            sums.loss, sums.count = sums.loss + loss.item(), sums.count + weight
            add_up(sums.metrics, {**lesson.metrics, **told})
    session.model.train(training)
    return sums


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
    progress.objective = session.objective.state()
    kept = {**session.lessons.state(), **method_state(session.model, METHODS[config.finetuning_type])}
    session.bar.busy(Both("saving a checkpoint", "正在保存检查点"))
    path = save_checkpoint(
        session.run.folder, progress, session.data_hash, None if config.save_only_model else session.optimizer,
        kept, lambda folder: _write_model(session, folder), config.save_total_limit)
    session.events.emit("checkpoint", step=progress.step, text=Both(f"saved {path}", f"已保存 {path}"))


def _write_model(session: Session, folder: Path) -> None:
    """Adapter or model, the tokenizer with the template that trained it, and how to generate with it."""
    method, config, renderer = METHODS[session.config.finetuning_type], session.config, session.ready.renderer
    with session.optimizer.shown():
        write_weights(session.model, folder, session.optimizer.masters, method)
        if session.policy.value_head:
            write_value_head(folder, session.optimizer.masters)
    renderer.tokenizer.save_pretrained(folder)
    generation = session.policy.causal.generation_config
    if generation is not None:
        settle_generation(deepcopy(generation), config, renderer.stop_ids()).save_pretrained(folder)
    if method.adapter:
        write_manifest(folder, config, session.ready.base)


def _not_finite(session: Session, batches: Sequence[Batch], what: Both) -> Problem:
    """Keep the batches that led here, and say what is known."""
    path, tokenizer = session.run.folder / "failed_batch.jsonl", session.ready.renderer.tokenizer
    with path.open("w", encoding="utf-8") as file:
        for row in (row for batch in batches for row in batch.sequences):
            ids = row.ids.tolist()
            file.write(json.dumps({"row": row.where, "ids": ids, "text": tokenizer.decode(ids)},
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
