"""Options that exclude or need each other, as data: what can be known without model, data or torch.

Each rule is one row: when it applies to a configuration, how bad that is, and what to do. All are tried, all are told.
"""

from __future__ import annotations

import re

from truetune.findings import Both, Severity
from truetune.options import OPTIONS, Config
from truetune.rules.rule import Rule

_EVERY = ("train", "check", "data", "chat", "export")
_READING = ("train", "check", "data")


def _resumes(c: Config) -> bool:
    return (c.resume_from_checkpoint or "false").lower() != "false"


def is_set(c: Config, *names: str) -> bool:
    """Whether one of `names` was set to something else than its default."""
    return any(c.given(name) and getattr(c, name) != OPTIONS[name].default for name in names)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


_TRAINING_LATER: tuple[tuple[Severity, tuple[str, ...]], ...] = (("error", ("train",)), ("warn", ("check",)))
"""What cannot be trained yet stops a training; a check goes on to look at the rest."""
_KEEP_ONE = Both("Keep one of the two.", "两者只保留一个。")
_NO_EVAL_DATA = (Both("there is no data to evaluate on.", "没有可用于评估的数据。"),
                 Both("Give val_size, such as 0.1, or eval_dataset.", "请设置 val_size（例如 0.1）或 eval_dataset。"))
_EVALUATE = Both("Set eval_strategy: steps (or epoch).", "请设置 eval_strategy: steps（或 epoch）。")

RULES: tuple[Rule, ...] = (
    Rule("model-missing", "model_name_or_path", lambda c: not c.model_name_or_path, "error",
         Both("no model is named.", "没有指定模型。"),
         Both("Give a folder, a hub id or bundled/smollm2-135m-instruct.",
              "请填写本地文件夹、hub 上的 id，或 bundled/smollm2-135m-instruct。"), _EVERY),
    Rule("data-missing", "dataset", lambda c: not c.dataset and (c.do_train or c.val_size > 0), "error",
         Both("no data set is named.", "没有指定数据集。"),
         Both("Give a file, or names in dataset_info.json.", "请填写数据文件，或 dataset_info.json 里的名字。"),
         _READING),
    Rule("output-missing", "output_dir", lambda c: not c.output_dir, "error",
         Both("no folder for the run is named.", "没有指定运行文件夹。"),
         Both("Give output_dir, such as saves/my-run.", "请填写 output_dir，例如 saves/my-run。"), ("train",)),
    Rule("export-missing", "export_dir", lambda c: not c.export_dir, "error",
         Both("no folder for the export is named.", "没有指定导出文件夹。"),
         Both("Give export_dir.", "请填写 export_dir。"), ("export",)),
    Rule("nothing-to-do", "do_train", lambda c: not c.do_train and not c.do_eval, "error",
         Both("neither do_train nor do_eval is on, so there is nothing to do.",
              "do_train 和 do_eval 都没有开启，无事可做。"), Both("Set do_train: true.", "请设置 do_train: true。")),
    *(Rule("stage-later", "stage", lambda c: c.stage != "sft", severity,
           Both("{stage} is not trained yet.", "{stage} 暂不支持训练。"),
           Both("`truetune data show` reads its rows already; stage: sft trains.",
                "`truetune data show` 已能读取这种数据；训练请用 stage: sft。"), verbs)
      for severity, verbs in _TRAINING_LATER),
    Rule("streaming-endless", "streaming", lambda c: c.streaming and c.do_train and c.max_steps <= 0, "error",
         Both("a stream has no end that is known, so nothing says when to stop.",
              "流式数据没有已知的终点，无法确定何时停止。"), Both("Set max_steps.", "请设置 max_steps。")),
    Rule("streaming-store", "tokenized_path", lambda c: c.streaming and bool(c.tokenized_path), "error",
         Both("a stream is not kept, so there is nothing to put there.", "流式数据不落盘，没有可保存的分词结果。"),
         _KEEP_ONE, _READING),
    Rule("streaming-packing", "packing", lambda c: c.streaming and bool(c.packing), "error",
         Both("rows of a stream are not packed.", "流式数据不能打包（packing）。"), _KEEP_ONE, _READING),
    Rule("streaming-val", "val_size", lambda c: c.streaming and bool(c.val_size), "error",
         Both("nothing can be held out of a stream, whose rows are not counted.",
              "流式数据的行数未知，无法从中留出评估数据。"),
         Both("Name an eval_dataset.", "请指定 eval_dataset。"), _READING),
    Rule("bad-pattern", "loss_weights", lambda c: not all(map(_is_pattern, c.loss_weights)), "error",
         Both("a key is no regular expression.", "有的键不是合法的正则表达式。"),
         Both("Escape what is meant as it stands: \\[ for [.", "按字面匹配的字符要转义：[ 写成 \\[。"), _READING),
    Rule("interleave-probs", "interleave_probs",
         lambda c: bool(c.interleave_probs) and len(c.interleave_probs) != len(c.dataset), "error",
         Both("there is not one number for each data set.", "数字的个数与数据集的个数不一致。"),
         Both("Give as many numbers as dataset has names.", "dataset 里有几个名字，就写几个数。"), _READING),
    Rule("interleave-probs", "interleave_probs",
         lambda c: bool(c.interleave_probs) and (min(c.interleave_probs) < 0 or sum(c.interleave_probs) <= 0), "error",
         Both("a number is negative, or all are 0.", "有负数，或者全部为 0。"),
         Both("Give positive numbers.", "请填写正数。"), _READING),
    Rule("interleave-probs", "mix_strategy", lambda c: bool(c.interleave_probs) and c.mix_strategy == "concat", "warn",
         Both("concat does not draw, so interleave_probs has no effect.", "concat 不抽取，interleave_probs 不起作用。"),
         Both("Choose an interleave_ strategy.", "请选用 interleave_ 开头的方式。"), _READING),
    Rule("eval-without-data", "do_eval", lambda c: c.do_eval and not c.eval_dataset and not c.val_size, "error",
         *_NO_EVAL_DATA),
    Rule("eval-without-data", "eval_strategy",
         lambda c: c.eval_strategy != "no" and not c.eval_dataset and not c.val_size, "error", *_NO_EVAL_DATA),
    Rule("eval-twice", "val_size", lambda c: bool(c.val_size and c.eval_dataset), "error",
         Both("val_size and eval_dataset both say what to evaluate on.", "val_size 和 eval_dataset 都指定了评估数据。"),
         Both("Keep one.", "请只保留一个。")),
    Rule("eval-late", "eval_strategy",
         lambda c: bool(c.val_size or c.eval_dataset) and c.eval_strategy == "no" and not c.do_eval, "info",
         Both("the held-out rows are evaluated once, at the end.", "留出的数据只在结束时评估一次。"),
         Both("steps or epoch evaluates on the way too.", "设为 steps 或 epoch，训练途中也会评估。")),
    Rule("stop-without-eval", "early_stopping_steps",
         lambda c: bool(c.early_stopping_steps) and c.eval_strategy == "no", "error",
         Both("early stopping needs evaluations to compare.", "早停需要比较各次评估的结果。"), _EVALUATE),
    Rule("plateau-without-eval", "lr_scheduler_type",
         lambda c: c.lr_scheduler_type == "reduce_lr_on_plateau" and c.eval_strategy == "no", "error",
         Both("reduce_lr_on_plateau watches the evaluation loss, and nothing is evaluated.",
              "reduce_lr_on_plateau 依据评估 loss 调整，而目前不做评估。"), _EVALUATE),
    Rule("mask-both", "mask_history", lambda c: c.mask_history and c.train_on_prompt, "error",
         Both("mask_history learns only the last answer, train_on_prompt learns everything.",
              "mask_history 只学习最后一个回答，train_on_prompt 学习全部内容，两者矛盾。"),
         Both("Keep one.", "请只保留一个。"), _READING),
    Rule("two-precisions", "fp16", lambda c: sum(bool(x) for x in (c.bf16, c.fp16, c.pure_bf16)) > 1, "error",
         Both("bf16, fp16 and pure_bf16 exclude each other.", "bf16、fp16 和 pure_bf16 互斥。"),
         Both("Keep one, or none and the faster safe one is picked.", "只保留一个；都不填则自动选更快且安全的。")),
    Rule("warmup-twice", "warmup_ratio", lambda c: bool(c.warmup_steps and c.warmup_ratio), "warn",
         Both("warmup_steps ({warmup_steps:g}) is given too and wins.",
              "同时给了 warmup_steps（{warmup_steps:g}），以 warmup_steps 为准。")),
    Rule("resume-overwrite", "overwrite_output_dir",
         lambda c: c.overwrite_output_dir and _resumes(c), "error",
         Both("a run cannot be resumed and deleted.", "不能既接着训练又删除原来的运行。"),
         Both("Keep resume_from_checkpoint or overwrite_output_dir.",
              "resume_from_checkpoint 和 overwrite_output_dir 只保留一个。"), ("train",)),
    Rule("no-layers", "freeze_trainable_layers",
         lambda c: c.finetuning_type == "freeze" and c.freeze_trainable_layers == 0 and not c.freeze_extra_modules,
         "error", Both("no layer is trained.", "没有要训练的层。"),
         Both("Give a number other than 0, or freeze_extra_modules.",
              "请填写非 0 的数，或设置 freeze_extra_modules。")),
    Rule("adapter-without-lora", "adapter_name_or_path",
         lambda c: bool(c.adapter_name_or_path) and c.finetuning_type != "lora", "error",
         Both("an adapter can only be trained on with finetuning_type lora, not {finetuning_type}.",
              "只有 finetuning_type 为 lora 时才能在适配器上继续训练，{finetuning_type} 不行。"),
         Both("Export the adapter into a model first, or set finetuning_type: lora.",
              "先把适配器导出合并为模型，或设置 finetuning_type: lora。")),
    Rule("many-adapters", "adapter_name_or_path", lambda c: len(c.adapter_name_or_path) > 1, "error",
         Both("only one adapter is put on a model so far.", "目前一个模型只能加载一个适配器。"),
         Both("Export them one after another.", "请逐个导出合并。"), _EVERY),
    Rule("no-tracker", "report_to", lambda c: not set(c.report_to) <= {"none"}, "warn",
         Both("trackers are not connected yet; the same numbers are in events.jsonl and trainer_log.jsonl.",
              "暂不支持实验记录平台；同样的数字在 events.jsonl 和 trainer_log.jsonl 里。"),
         Both("report_to: none says so.", "不需要时写 report_to: none。")),
    Rule("lora-option", "finetuning_type",
         lambda c: c.finetuning_type != "lora" and is_set(
             c, "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target"), "info",
         Both("{finetuning_type} has no LoRA, so the lora_ options have no effect.",
              "{finetuning_type} 不使用 LoRA，lora_ 开头的选项不起作用。")),
    Rule("high-rate", "learning_rate", lambda c: c.finetuning_type == "full" and 1e-4 < c.learning_rate < 0.1, "warn",
         Both("{learning_rate:g} is a LoRA rate; full fine-tuning usually wants a tenth of it.",
              "{learning_rate:g} 是 LoRA 的学习率；全参数微调通常用它的十分之一。"),
         Both("Try 1e-5 to 5e-5.", "建议 1e-5 到 5e-5。"), source="tinker-lora",
         cure=lambda c: {"learning_rate": 2e-5}),
    Rule("low-rate", "learning_rate", lambda c: c.finetuning_type == "lora" and c.learning_rate < 2e-5, "warn",
         Both("{learning_rate:g} is a full fine-tuning rate; LoRA usually wants ten times as much.",
              "{learning_rate:g} 是全参数微调的学习率；LoRA 通常要高十倍。"),
         Both("Try 1e-4 to 1e-3.", "建议 1e-4 到 1e-3。"), source="tinker-lora",
         cure=lambda c: {"learning_rate": 2e-4}),
    Rule("model-only-checkpoints", "save_strategy", lambda c: c.save_only_model and c.save_strategy != "no", "info",
         Both("checkpoints cannot be resumed from (save_only_model).",
              "这样的检查点不能用来继续训练（save_only_model）。")),
    *(Rule("not-expanded", path, lambda c, path=path: (getattr(c, path) or "").startswith(("~", "$")), "error",
           Both(f"{{{path}}} would be a folder of that very name: ~ and $ are not expanded.",
                f"{{{path}}} 会被当作文件夹的字面名字：~ 和 $ 不会展开。"),
           Both("Write the path out.", "请写出完整路径。"), _EVERY)
      for path in ("model_name_or_path", "dataset_dir", "cache_dir", "output_dir", "export_dir")),
)
