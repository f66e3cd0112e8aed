"""How many optimizer steps a run has, how far they reach, what happens at which of them, and how long they take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from truetune.check.section import Section
from truetune.findings import Both, Finding, count_of
from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.review.gauges import gauge_of
from truetune.steps import Plan, round_of, warmup_steps

FEW_STEPS = 20
"""Below this many optimizer steps a model hardly changes, whatever the rate: AdamW's averages have just settled."""
MANY_EPOCHS = 15
"""Rows seen more often than this are known by heart; with early stopping or held-out rows one sees it happen."""
REACH = {True: 2e-3, False: 1e-4}
"""Of adapters, and of whole weights: the least sum of learning rates over all steps that changed answers. AdamW moves a
weight by at most about the learning rate a step (Kingma and Ba 2015, arXiv:1412.6980, section 2.1), so the sum bounds
how far any weight gets. LoRA's B begins at 0 and needs more. Our judgement, from runs on SmolLM2-135M. Preferences and
rewards show at a tenth of it, and nothing is said of them."""
SCALE = (0.25, 8.0)
"""LoRA's usual alpha / rank: QLoRA 0.25, LLaMA-Factory 2, Tinker 32 / rank."""


@dataclass(frozen=True)
class Pace:
    """How fast this machine trains this model. tokens_per_second: of real tokens. measured: by a real step; else
    reckoned from the speed of a matrix product and the share of it that training reaches."""

    tokens_per_second: float
    measured: bool


def schedule_section(plan: Plan, config: Config, tokens: int, pace: Pace | None) -> Section:
    """The steps of a run.

    Args:
        tokens: of all training rows, once.
        pace: None where nothing is known of it.
    """
    total, epoch = plan.total_steps, plan.steps_per_epoch
    section = Section("schedule", Both("Steps", "步数"))
    a_step = plan.batch_size * plan.accumulation
    section.lines.append((Both("optimizer steps", "优化器步数"), Both(
        f"{total:,} in all{'' if config.streaming else f', {epoch:,} an epoch'}; each learns from {a_step} rows"
        f" ({plan.batch_size} x {plan.accumulation})",
        f"共 {total:,} 步{'' if config.streaming else f'，每个 epoch {epoch:,} 步'}；每步学习 {a_step} 行"
        f"（{plan.batch_size} x {plan.accumulation}）")))
    warmup = warmup_steps(config, total)
    section.lines.append((Both("learning rate", "学习率"), Both(
        f"{config.learning_rate:g}, {config.lr_scheduler_type}, {count_of(warmup, 'step')} of warmup",
        f"{config.learning_rate:g}，{config.lr_scheduler_type}，预热 {warmup:,} 步")))
    if config.finetuning_type == "lora":
        alpha = config.lora_alpha or 2 * config.lora_rank
        section.lines.append(("LoRA", Both(
            f"rank {config.lora_rank}, alpha {alpha}: its output is multiplied by {_scale(config):.3g}",
            f"rank {config.lora_rank}，alpha {alpha}：输出乘以 {_scale(config):.3g}")))
    happens = {name: times(strategy, every, plan) for name, (strategy, every) in _events(config).items()}
    section.lines.append((Both("on the way", "训练途中"), Both(
        f"{count_of(happens['save'], 'checkpoint')}, {count_of(happens['eval'], 'evaluation')}, "
        f"{count_of(happens['log'], 'log line')}",
        f"{happens['save']:,} 个检查点，{happens['eval']:,} 次评估，{happens['log']:,} 行日志")))
    seen = tokens * total / max(epoch, 1)
    section.facts = {
        "steps": total, "steps_per_epoch": epoch, "rows_per_step": a_step, "warmup_steps": warmup,
        "tokens_seen": int(seen), **{f"{name}s": times for name, times in happens.items()},
    }
    if pace:
        seconds = seen / pace.tokens_per_second
        section.lines.append((Both("time", "耗时"), Both(
            f"about {duration(seconds).en} for {seen:,.0f} tokens at {pace.tokens_per_second:,.0f} a second"
            f" ({'measured' if pace.measured else 'reckoned, not measured: --measure takes one real step'})",
            f"约 {duration(seconds).zh}：{seen:,.0f} 个 token，每秒 {pace.tokens_per_second:,.0f} 个"
            f"（{'实测' if pace.measured else '估算；--measure 会真正走一步来测'}）")))
        section.facts |= {"seconds": round(seconds), "tokens_per_second": round(pace.tokens_per_second),
                          "measured": pace.measured}
    if config.do_train and plan.rows:
        section.findings = [*_length_findings(plan, config), *_rate_findings(plan, config),
                            *_never_findings(happens, plan, config)]
    return section


def _scale(config: Config) -> float:
    """What LoRA's output is multiplied by: alpha / rank (Hu et al. 2021, arXiv:2106.09685, section 4.1), with
    use_rslora alpha / root of rank (Kalajdzievski 2023, arXiv:2312.03732)."""
    return (config.lora_alpha or 2 * config.lora_rank) / _divisor(config)


def _divisor(config: Config) -> float:
    return config.lora_rank ** 0.5 if config.use_rslora else config.lora_rank


def _events(config: Config) -> dict[str, tuple[str, float]]:
    """What happens on the way: how it is timed, and every how many steps."""
    return {"save": (config.save_strategy, config.save_steps),
            "eval": (config.eval_strategy, config.eval_steps or config.logging_steps),
            "log": ("steps", config.logging_steps)}


def times(strategy: str, every: float, plan: Plan) -> int:
    """How often something happens that happens by `strategy`: every so many steps (below 1: a share of all)."""
    if strategy == "no" or not plan.rows:
        return 0
    if strategy == "epoch":
        return math.ceil(plan.total_steps / plan.steps_per_epoch)
    interval = math.ceil(every * plan.total_steps) if every < 1 else int(every)
    return plan.total_steps // interval


def _length_findings(plan: Plan, config: Config) -> list[Finding]:
    """Too few steps to learn anything, or so many rounds that rows are learned by heart."""
    findings, total, epochs = [], plan.total_steps, plan.total_steps / plan.steps_per_epoch
    option = "max_steps" if config.max_steps > 0 else "num_train_epochs"
    if total < FEW_STEPS:
        enough = min(math.ceil(100 / plan.steps_per_epoch), 10)
        helps = config.max_steps <= 0 and enough > config.num_train_epochs
        findings.append(Finding(
            "few-steps", "warn", Both(
                f"{count_of(plan.rows, 'row')} make {count_of(total, 'optimizer step')} in all; the model will hardly "
                "change.", f"{plan.rows:,} 行总共只有 {total:,} 个优化步，模型几乎不会变。"),
            option=option, where=config.origin(option), cure={"num_train_epochs": enough} if helps else None,
            fix=Both("More epochs, or a smaller batch (batch size x accumulation).",
                     "增加 epoch，或减小每步的行数（批大小 x 累积步数）。")))
    # Prompts may come often: what is learned from is written anew each time.
    if epochs > MANY_EPOCHS and not config.early_stopping_steps and not round_of(config):
        findings.append(Finding(
            "many-epochs", "warn", Both(
                f"every row is seen {epochs:.0f} times, and nothing stops the run when it starts to learn by heart.",
                f"每行会看 {epochs:.0f} 遍，开始死记时没有什么会让训练停下。"),
            option=option, where=config.origin(option), source="unsloth-guide",
            fix=Both("1 to 3 epochs for thousands of rows, up to 10 for few; or val_size, eval_strategy and "
                     "early_stopping_steps.",
                     "几千行用 1 到 3 个 epoch，数据很少时最多 10 个；或设置 val_size、eval_strategy 和 "
                     "early_stopping_steps。")))
    return findings


def _rate_findings(plan: Plan, config: Config) -> list[Finding]:
    """What the rate, the warmup and the scale come to over this many steps."""
    findings, total = [], plan.total_steps
    where = config.origin("learning_rate")
    if warmup_steps(config, total) >= total:
        option = "warmup_steps" if config.warmup_steps else "warmup_ratio"
        findings.append(Finding(
            "all-warmup", "warn", Both(
                f"warmup takes all {total} steps, so learning_rate is never reached.",
                f"预热占满全部 {total} 步，永远达不到 learning_rate。"),
            option=option, where=config.origin(option), cure={"warmup_steps": max(1, round(0.03 * total))},
            fix=Both("3 % of the steps are usual.", "通常取总步数的 3 %。"), source="qlora"))
    reach = 0.5 * config.learning_rate * total
    if reach < REACH[KINDS[config.finetuning_type].adapter] and total >= FEW_STEPS and gauge_of(config) is None:
        findings.append(Finding(
            "hardly-moves", "warn", Both(
                f"{total} steps at {config.learning_rate:g} move no weight by more than about {reach:.1g}; the model "
                "will hardly change.",
                f"{total} 步、学习率 {config.learning_rate:g}，任何权重的移动不超过约 {reach:.1g}，模型几乎不会变。"),
            option="learning_rate", where=where,
            fix=Both("A higher rate, or more steps.", "提高学习率，或增加步数。")))
    if config.finetuning_type == "lora" and not SCALE[0] <= _scale(config) <= SCALE[1]:
        usual, rank = round(2 * _divisor(config)), "√rank" if config.use_rslora else "rank"
        findings.append(Finding(
            "lora-scale", "warn", Both(
                f"LoRA's output is multiplied by {_scale(config):.3g} (alpha / {rank}); usual is 0.25 to 8. A learning "
                "rate means something else then.",
                f"LoRA 的输出乘以 {_scale(config):.3g}（alpha / {rank}），常见为 0.25 到 8；此时学习率的含义也不同。"),
            option="lora_alpha", where=config.origin("lora_alpha"), cure={"lora_alpha": usual},
            fix=Both(f"lora_alpha: {usual} is 2 x {rank}.", f"lora_alpha: {usual} 即 2 x {rank}。"), source="qlora"))
    return findings


def _never_findings(happens: Mapping[str, int], plan: Plan, config: Config) -> list[Finding]:
    """What was asked for and will not happen, since the run is over before."""
    findings, total = [], plan.total_steps
    tenth = max(1, total // 10)
    if config.save_strategy == "steps" and not happens["save"] and config.given("save_steps"):
        findings.append(Finding(
            "never-saves", "warn", Both(
                f"the run has {total} steps, so no checkpoint is written on the way (the model is saved at the end).",
                f"总共 {total} 步，途中不会保存检查点（结束时会保存模型）。"),
            option="save_steps", where=config.origin("save_steps"), cure={"save_steps": tenth},
            fix=Both(f"save_steps: {tenth}, or save_strategy: epoch.",
                     f"save_steps: {tenth}，或 save_strategy: epoch。")))
    if config.eval_strategy == "steps" and not happens["eval"]:
        option = "eval_steps" if config.eval_steps else "logging_steps"
        findings.append(Finding(
            "never-evaluates", "warn", Both(
                f"the run has {total} steps, so nothing is evaluated before its end.",
                f"总共 {total} 步，结束之前不会评估。"),
            option=option, where=config.origin(option), cure={"eval_steps": tenth},
            fix=Both(f"eval_steps: {tenth}, or eval_strategy: epoch.",
                     f"eval_steps: {tenth}，或 eval_strategy: epoch。")))
    patience = config.early_stopping_steps
    if patience and happens["eval"] and patience >= happens["eval"]:
        findings.append(Finding(
            "never-stops", "warn", Both(
                f"{patience} evaluations without gain stop the run, and it has {happens['eval']} in all.",
                f"连续 {patience} 次评估无改善才停止，而总共只评估 {happens['eval']} 次。"),
            option="early_stopping_steps", where=config.origin("early_stopping_steps"),
            fix=Both("Evaluate more often, or set it to 2 or 3.", "更频繁地评估，或设为 2 到 3。")))
    return findings


_UNITS: tuple[tuple[float, Callable[[float], Both]], ...] = (
    (90, lambda seconds: Both(f"{seconds:.0f} s", f"{seconds:.0f} 秒")),
    (5400, lambda seconds: Both(f"{seconds / 60:.0f} min", f"{seconds / 60:.0f} 分钟")),
    (172800, lambda seconds: Both(f"{seconds / 3600:.1f} h", f"{seconds / 3600:.1f} 小时")),
    (math.inf, lambda seconds: Both(f"{seconds / 86400:.1f} days", f"{seconds / 86400:.1f} 天")),
)


def duration(seconds: float) -> Both:
    """`75 s`, `12 min`, `3.2 h`, `2.5 days`."""
    return next(say for below, say in _UNITS if seconds < below)(seconds)
