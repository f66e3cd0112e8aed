"""Options that exclude or need each other, as data: what can be known without model, data or torch.

Each rule is one row: when it applies to a configuration, how bad that is, and what to do. All are tried, all are told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from truetune.findings import Both, Finding, Severity, worst_first
from truetune.options import OPTIONS, Config, Option


@dataclass(frozen=True)
class Rule:
    """`when(config)` true: tell `message`, filled with the configuration's values, about `option`. `verbs`: where."""

    id: str
    option: str
    when: Callable[[Config], bool]
    severity: Severity
    message: str
    fix: str = ""
    verbs: tuple[str, ...] = ("train", "check")


_EVERY = ("train", "check", "data", "chat", "export")
_READING = ("train", "check", "data")


def _resumes(c: Config) -> bool:
    return (c.resume_from_checkpoint or "false").lower() != "false"


def _sets(c: Config, *names: str) -> bool:
    """Whether one of `names` was set to something else than its default."""
    return any(c.given(name) and getattr(c, name) != OPTIONS[name].default for name in names)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


RULES: tuple[Rule, ...] = (
    Rule("model-missing", "model_name_or_path", lambda c: not c.model_name_or_path, "error", "no model is named.",
         "Give a folder, a hub id or bundled/smollm2-135m-instruct.", _EVERY),
    Rule("data-missing", "dataset", lambda c: not c.dataset and (c.do_train or c.val_size > 0), "error",
         "no data set is named.",
         "Give a file, or names in dataset_info.json.", _READING),
    Rule("output-missing", "output_dir", lambda c: not c.output_dir, "error", "no folder for the run is named.",
         "Give output_dir, such as saves/my-run.", ("train",)),
    Rule("export-missing", "export_dir", lambda c: not c.export_dir, "error", "no folder for the export is named.",
         "Give export_dir.", ("export",)),
    Rule("nothing-to-do", "do_train", lambda c: not c.do_train and not c.do_eval, "error",
         "neither do_train nor do_eval is on, so there is nothing to do.", "Set do_train: true."),
    Rule("stage-later", "stage", lambda c: c.stage != "sft", "error", "{stage} is not trained yet.",
         "`truetune data show` reads its rows already; stage: sft trains."),
    Rule("streaming-endless", "streaming", lambda c: c.streaming and c.do_train and c.max_steps <= 0, "error",
         "a stream has no end that is known, so nothing says when to stop.", "Set max_steps."),
    Rule("streaming-store", "tokenized_path", lambda c: c.streaming and bool(c.tokenized_path), "error",
         "a stream is not kept, so there is nothing to put there.", "Keep one of the two.", _READING),
    Rule("streaming-packing", "packing", lambda c: c.streaming and bool(c.packing), "error",
         "rows of a stream are not packed.", "Keep one of the two.", _READING),
    Rule("streaming-val", "val_size", lambda c: c.streaming and bool(c.val_size), "error",
         "nothing can be held out of a stream, whose rows are not counted.", "Name an eval_dataset.", _READING),
    Rule("bad-pattern", "loss_weights", lambda c: not all(map(_is_pattern, c.loss_weights)), "error",
         "a key is no regular expression.", "Escape what is meant as it stands: \\[ for [.", _READING),
    Rule("interleave-probs", "interleave_probs",
         lambda c: bool(c.interleave_probs) and len(c.interleave_probs) != len(c.dataset), "error",
         "there is not one number for each data set.", "Give as many numbers as dataset has names.", _READING),
    Rule("interleave-probs", "interleave_probs",
         lambda c: bool(c.interleave_probs) and (min(c.interleave_probs) < 0 or sum(c.interleave_probs) <= 0), "error",
         "a number is negative, or all are 0.", "Give positive numbers.", _READING),
    Rule("interleave-probs", "mix_strategy", lambda c: bool(c.interleave_probs) and c.mix_strategy == "concat", "warn",
         "concat does not draw, so interleave_probs has no effect.", "Choose an interleave_ strategy.", _READING),
    Rule("eval-without-data", "do_eval", lambda c: c.do_eval and not c.eval_dataset and not c.val_size, "error",
         "there is no data to evaluate on.", "Give val_size, such as 0.1, or eval_dataset."),
    Rule("eval-without-data", "eval_strategy",
         lambda c: c.eval_strategy != "no" and not c.eval_dataset and not c.val_size, "error",
         "there is no data to evaluate on.", "Give val_size, such as 0.1, or eval_dataset."),
    Rule("eval-twice", "val_size", lambda c: bool(c.val_size and c.eval_dataset), "error",
         "val_size and eval_dataset both say what to evaluate on.", "Keep one."),
    Rule("eval-late", "eval_strategy",
         lambda c: bool(c.val_size or c.eval_dataset) and c.eval_strategy == "no" and not c.do_eval, "info",
         "the held-out rows are evaluated once, at the end.", "steps or epoch evaluates on the way too."),
    Rule("stop-without-eval", "early_stopping_steps",
         lambda c: bool(c.early_stopping_steps) and c.eval_strategy == "no", "error",
         "early stopping needs evaluations to compare.", "Set eval_strategy: steps (or epoch)."),
    Rule("plateau-without-eval", "lr_scheduler_type",
         lambda c: c.lr_scheduler_type == "reduce_lr_on_plateau" and c.eval_strategy == "no", "error",
         "reduce_lr_on_plateau watches the evaluation loss, and nothing is evaluated.",
         "Set eval_strategy: steps (or epoch)."),
    Rule("mask-both", "mask_history", lambda c: c.mask_history and c.train_on_prompt, "error",
         "mask_history learns only the last answer, train_on_prompt learns everything.", "Keep one.", _READING),
    Rule("two-precisions", "fp16", lambda c: sum(bool(x) for x in (c.bf16, c.fp16, c.pure_bf16)) > 1, "error",
         "bf16, fp16 and pure_bf16 exclude each other.", "Keep one, or none and the faster safe one is picked."),
    Rule("warmup-twice", "warmup_ratio", lambda c: bool(c.warmup_steps and c.warmup_ratio), "warn",
         "warmup_steps ({warmup_steps:g}) is given too and wins."),
    Rule("resume-overwrite", "overwrite_output_dir",
         lambda c: c.overwrite_output_dir and _resumes(c), "error",
         "a run cannot be resumed and deleted.", "Keep resume_from_checkpoint or overwrite_output_dir.", ("train",)),
    Rule("no-layers", "freeze_trainable_layers",
         lambda c: c.finetuning_type == "freeze" and c.freeze_trainable_layers == 0 and not c.freeze_extra_modules,
         "error", "no layer is trained.", "Give a number other than 0, or freeze_extra_modules."),
    Rule("adapter-without-lora", "adapter_name_or_path",
         lambda c: bool(c.adapter_name_or_path) and c.finetuning_type != "lora", "error",
         "an adapter can only be trained on with finetuning_type lora, not {finetuning_type}.",
         "Export the adapter into a model first, or set finetuning_type: lora."),
    Rule("many-adapters", "adapter_name_or_path", lambda c: len(c.adapter_name_or_path) > 1, "error",
         "only one adapter is put on a model so far.", "Export them one after another.", _EVERY),
    Rule("no-tracker", "report_to", lambda c: not set(c.report_to) <= {"none"}, "warn",
         "trackers are not connected yet; the same numbers are in events.jsonl and trainer_log.jsonl.",
         "report_to: none says so."),
    Rule("lora-option", "finetuning_type",
         lambda c: c.finetuning_type != "lora" and _sets(
             c, "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target"), "info",
         "{finetuning_type} has no LoRA, so the lora_ options have no effect."),
    Rule("high-rate", "learning_rate", lambda c: c.finetuning_type == "full" and c.learning_rate > 1e-4, "warn",
         "{learning_rate:g} is a LoRA rate; full fine-tuning usually wants a tenth of it.", "Try 1e-5 to 5e-5."),
    Rule("low-rate", "learning_rate", lambda c: c.finetuning_type == "lora" and c.learning_rate < 2e-5, "warn",
         "{learning_rate:g} is a full fine-tuning rate; LoRA usually wants ten times as much.", "Try 1e-4 to 1e-3."),
    Rule("model-only-checkpoints", "save_strategy", lambda c: c.save_only_model and c.save_strategy != "no", "info",
         "checkpoints cannot be resumed from (save_only_model)."),
    *(Rule("not-expanded", path, lambda c, path=path: (getattr(c, path) or "").startswith(("~", "$")), "error",
           f"{{{path}}} would be a folder of that very name: ~ and $ are not expanded.", "Write the path out.", _EVERY)
      for path in ("model_name_or_path", "dataset_dir", "cache_dir", "output_dir", "export_dir")),
)


DERIVED: tuple[tuple[str, Callable[[Config], bool], Callable[[Config], object], str], ...] = (
    ("lora_alpha", lambda c: c.finetuning_type == "lora" and c.lora_alpha is None, lambda c: 2 * c.lora_rank,
     "2 x lora_rank"),
)
"""Defaults that depend on other options: which, when, the value, and the reason in words."""


def derive(config: Config) -> Config:
    """`config` with its dependent defaults filled in, the rule noted as their origin."""
    for name, when, value, reason in DERIVED:
        if when(config):
            config = config.with_values(f"rule: {reason}", **{name: value(config)})
    return config


def apply_rules(config: Config, verb: str) -> list[Finding]:
    """Everything the options alone say about a configuration for `truetune <verb>`, the worst first."""
    findings = [
        Finding(rule.id, rule.severity, rule.message.format(**config.model_dump()), option=rule.option,
                where=config.origin(rule.option), fix=rule.fix or None)
        for rule in RULES
        if verb in rule.verbs and rule.when(config)
    ]
    findings += [
        _without_effect(option, config) for option in OPTIONS.values()
        if (option.text.no_effect or option.text.not_offered) and _sets(config, option.name)
    ]
    return worst_first(findings)


def _without_effect(option: Option, config: Config) -> Finding:
    """What is said of an option that somebody set and that does nothing here."""
    if option.text.no_effect:
        en, zh = option.text.no_effect
        return Finding("no-effect", "info", Both(f"no effect: {en}.", f"不起作用：{zh}。"), option=option.name,
                       where=config.origin(option.name))
    en, zh = option.text.not_offered or ("", "")
    return Finding("not-offered", "warn", Both(f"not done here: {en}.", f"这里不支持：{zh}。"), option=option.name,
                   where=config.origin(option.name))
