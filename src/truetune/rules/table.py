"""Options that exclude or need each other, as data: what can be known without model, data or torch.

Each rule is one row: when it applies to a configuration, how bad that is, and what to do. All are tried, all are told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from truetune.data.templates.table import TEMPLATES
from truetune.findings import Both, Severity
from truetune.options import OPTIONS, Config
from truetune.options.optimizer import TRAINED_OPTIMIZERS
from truetune.options.preference import PAIR_LOSSES
from truetune.rules.rule import Rule

_EVERY = ("train", "check", "data", "chat", "export")
_READING = ("train", "check", "data")


def _resumes(c: Config) -> bool:
    return (c.resume_from_checkpoint or "false").lower() != "false"


def is_set(c: Config, *names: str) -> bool:
    """Whether one of `names` was set to something else than its default."""
    return any(c.given(name) and getattr(c, name) != OPTIONS[name].default for name in names)


_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "query_key_value", "W_pack", "c_attn"}
"""What attention's own matrices are called in most models."""


WRITES = ("ppo", "grpo")
"""Stages that learn from answers that the model writes on the way."""


def writes(c: Config) -> bool:
    """Whether a run learns from answers that it writes itself."""
    return c.stage in WRITES or (c.stage == "distill" and c.lmbda > 0)


_AS_IT_IS: Mapping[str, object] = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "do_sample": True}
"""How answers are drawn with the probabilities that the model gives them."""


def _reference_free(c: Config) -> bool:
    """Whether the preference loss compares with no reference model."""
    return not (c.pref_bco_weight or any(PAIR_LOSSES[name].reference for name in c.pref_loss))


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
    Rule("nothing-to-do", "do_train", lambda c: not (c.do_train or c.do_eval or c.do_predict), "error",
         Both("neither do_train nor do_eval nor do_predict is on, so there is nothing to do.",
              "do_train、do_eval 和 do_predict 都没有开启，无事可做。"),
         Both("Set do_train: true.", "请设置 do_train: true。")),
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
    Rule("streaming-auto", "per_device_train_batch_size",
         lambda c: c.streaming and c.per_device_train_batch_size == "auto", "error",
         Both("the rows of a stream are not known before, so nothing tells how many fit.",
              "流式数据的行长事先未知，无法得知能放下多少行。"), Both("Give a number.", "请填写一个数。"), _READING),
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
    # -- data
    Rule("unknown-template", "template", lambda c: bool(c.template) and c.template not in TEMPLATES, "error",
         Both("{template!r} is no template's name.", "没有名为 {template!r} 的模板。"),
         Both("Leave it out to use the model's own; `truetune explain template` tells more.",
              "不填则用模型自带的模板；详见 `truetune explain template`。"), _EVERY),
    Rule("same-set-twice", "dataset", lambda c: len(set(c.dataset)) < len(c.dataset), "warn",
         Both("a data set is named twice, so its rows are learned twice.", "同一个数据集写了两次，它的数据会学两遍。"),
         Both("Keep one.", "请只保留一个。"), _READING),
    Rule("eval-is-train", "eval_dataset", lambda c: bool(set(c.dataset) & set(c.eval_dataset)), "warn",
         Both("what is learned from is also evaluated on, so the evaluation shows nothing.",
              "评估数据就是训练数据，评估结果毫无意义。"),
         Both("Use val_size, such as 0.1, instead.", "请改用 val_size，例如 0.1。"), source=None,
         cure=lambda c: {"eval_dataset": "", "val_size": 0.1}),
    Rule("all-held-out", "val_size", lambda c: c.val_size == 1, "warn",
         Both("1 is one row, not all of them; below 1 it is a share.", "1 表示一行而不是全部；小于 1 才是比例。"),
         Both("0.1 holds a tenth out.", "0.1 表示留出十分之一。"), _READING, cure=lambda c: {"val_size": 0.1}),
    Rule("half-held-out", "val_size", lambda c: 0.5 <= c.val_size < 1, "warn",
         Both("{val_size:.0%} of the rows are held out and not learned.", "{val_size:.0%} 的数据被留出，不参与学习。"),
         Both("0.05 to 0.1 is usual.", "通常取 0.05 到 0.1。"), _READING, cure=lambda c: {"val_size": 0.1}),
    Rule("one-eval-each", "eval_on_each_dataset", lambda c: c.eval_on_each_dataset and len(c.eval_dataset) < 2, "info",
         Both("there are not several eval_dataset to tell apart.", "eval_dataset 不足两个，无需分别评估。")),
    Rule("interleave-one", "mix_strategy", lambda c: c.mix_strategy != "concat" and len(c.dataset) == 1, "info",
         Both("there is one data set, so nothing is mixed.", "只有一个数据集，不需要混合。"), verbs=_READING),
    Rule("masks-are-sft", "mask_history",
         lambda c: c.stage != "sft" and (c.mask_history or c.train_on_prompt), "error",
         Both("mask_history and train_on_prompt choose what is learned of a conversation, which only stage sft does.",
              "mask_history 和 train_on_prompt 决定学习对话的哪些部分，只有 stage: sft 才有。"),
         Both("Leave them out.", "请去掉它们。"), _READING),
    Rule("packing-is-sft", "packing", lambda c: c.stage in ("rm", "dpo", "kto", *WRITES) and bool(c.packing), "error",
         Both("pairs and judgements of {stage} are not packed.", "{stage} 的成对或带评判的数据不能打包。"),
         _KEEP_ONE, _READING),
    Rule("pixels", "image_max_pixels", lambda c: c.image_max_pixels < c.image_min_pixels, "error",
         Both("is below image_min_pixels ({image_min_pixels}).", "小于 image_min_pixels（{image_min_pixels}）。"),
         Both("Swap the two.", "请对调两者。"), _READING),
    Rule("pixels", "video_max_pixels", lambda c: c.video_max_pixels < c.video_min_pixels, "error",
         Both("is below video_min_pixels ({video_min_pixels}).", "小于 video_min_pixels（{video_min_pixels}）。"),
         Both("Swap the two.", "请对调两者。"), _READING),

    # -- method
    *(Rule("method-later", "finetuning_type", lambda c: c.finetuning_type == "oft", severity,
           Both("{finetuning_type} is not trained yet.", "暂不支持 {finetuning_type}。"),
           Both("lora is the nearest.", "最接近的是 lora。"), verbs, cure=lambda c: {"finetuning_type": "lora"})
      for severity, verbs in _TRAINING_LATER),
    Rule("lora-variant", "finetuning_type",
         lambda c: c.finetuning_type != "lora" and is_set(
             c, "loraplus_lr_ratio", "use_rslora", "use_dora", "pissa_init"), "error",
         Both("loraplus_lr_ratio, use_rslora, use_dora and pissa_init are ways of LoRA, not of {finetuning_type}.",
              "loraplus_lr_ratio、use_rslora、use_dora 和 pissa_init 是 LoRA 的做法，{finetuning_type} 没有。"),
         Both("Leave them out, or set finetuning_type: lora.", "请去掉它们，或设置 finetuning_type: lora。")),
    Rule("freeze-option", "finetuning_type",
         lambda c: c.finetuning_type != "freeze" and not c.use_llama_pro and is_set(
             c, "freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"), "info",
         Both("the freeze_ options have no effect with {finetuning_type}.",
              "{finetuning_type} 时 freeze_ 开头的选项不起作用。")),
    Rule("quantized-full", "quantization_bit",
         lambda c: bool(c.quantization_bit) and c.finetuning_type in ("full", "freeze"), "error",
         Both("weights in {quantization_bit} bits cannot be changed in such small steps, so {finetuning_type} cannot "
              "train them.", "{quantization_bit} 比特的权重无法一点点地更新，不能用 {finetuning_type} 训练。"),
         Both("finetuning_type: lora trains an adapter on them.", "finetuning_type: lora 可以在其上训练适配器。"),
         source="qlora", cure=lambda c: {"finetuning_type": "lora"}),
    Rule("quantized-twice", "fp8", lambda c: c.fp8 and bool(c.quantization_bit), "error",
         Both("fp8 and quantization_bit both say how weights are held.",
              "fp8 和 quantization_bit 都规定了权重的格式。"),
         _KEEP_ONE),
    Rule("quantized-map", "quantization_device_map", lambda c: c.do_train and bool(c.quantization_device_map), "error",
         Both("is for answering only, not for training.", "只用于推理，不能用于训练。"),
         Both("Leave it out.", "请去掉。"), ("train", "check")),
    Rule("dropout-high", "lora_dropout", lambda c: c.finetuning_type == "lora" and c.lora_dropout > 0.3, "warn",
         Both("{lora_dropout:.0%} of LoRA's inputs are dropped, which slows learning much.",
              "LoRA 的输入有 {lora_dropout:.0%} 被丢弃，学习会慢很多。"),
         Both("0 to 0.1 is usual.", "通常取 0 到 0.1。"), source="qlora", cure=lambda c: {"lora_dropout": 0.05}),
    Rule("rank-high", "lora_rank", lambda c: c.finetuning_type == "lora" and c.lora_rank > 512, "warn",
         Both("rank {lora_rank} is beyond what LoRA is made for.", "秩 {lora_rank} 超出了 LoRA 的用途。"),
         Both("8 to 64 is usual, 256 for much data; beyond it train in full.",
              "通常取 8 到 64，数据很多时 256；再大不如全参数微调。"), source="lora-without-regret",
         cure=lambda c: {"lora_rank": 64}),
    Rule("few-targets", "lora_target",
         lambda c: c.finetuning_type == "lora" and c.lora_target != ("all",)
         and set(c.lora_target) <= _ATTENTION, "info",
         Both("LoRA only on attention learns less than on all linear layers.",
              "只在注意力上加 LoRA，效果不如加在所有线性层上。"),
         Both("lora_target: all.", "lora_target: all。"), source="lora-learns-less",
         cure=lambda c: {"lora_target": "all"}),
    Rule("llama-pro-full", "use_llama_pro", lambda c: c.use_llama_pro and c.finetuning_type == "full", "error",
         Both("trains only the added blocks, and full trains everything.", "只训练新增的块，而 full 训练全部。"),
         Both("Set finetuning_type: freeze.", "请设置 finetuning_type: freeze。")),
    Rule("pissa-reference", "pissa_init",
         lambda c: c.pissa_init and (c.stage in ("ppo", "kto") or (c.stage == "grpo" and c.beta > 0)
                                     or (c.stage == "dpo" and not _reference_free(c))),
         "error",
         Both("changes the base weights, and {stage} needs them as they were for its reference.",
              "会改动基座权重，而 {stage} 需要原样的权重作为参考模型。"),
         Both("Leave it out.", "请去掉。")),

    # -- optimizer and rate
    Rule("rate-diverges", "learning_rate", lambda c: c.learning_rate >= 0.1, "error",
         Both("{learning_rate:g} diverges with AdamW: each step moves every weight by about that much.",
              "{learning_rate:g} 用 AdamW 必然发散：每一步每个权重都会移动约这么多。"),
         Both("LoRA: 1e-4 to 1e-3. Full: 1e-6 to 5e-5.", "LoRA：1e-4 到 1e-3；full：1e-6 到 5e-5。"),
         source="tinker-lora", cure=lambda c: {"learning_rate": 2e-4 if c.finetuning_type == "lora" else 2e-5}),
    Rule("very-high-rate", "learning_rate",
         lambda c: 5e-3 < c.learning_rate < 0.1 and c.finetuning_type == "lora", "warn",
         Both("{learning_rate:g} is above what LoRA was seen to stand (1e-3 for small models).",
              "{learning_rate:g} 高于 LoRA 已知能承受的值（小模型 1e-3）。"),
         Both("Try 1e-4 to 1e-3.", "建议 1e-4 到 1e-3。"), source="tinker-lora",
         cure=lambda c: {"learning_rate": 5e-4}),
    Rule("tiny-rate", "learning_rate", lambda c: c.finetuning_type != "lora" and c.learning_rate < 1e-7, "warn",
         Both("at {learning_rate:g} the model will hardly change.", "学习率 {learning_rate:g} 几乎不会改变模型。"),
         Both("Full fine-tuning usually wants 1e-6 to 5e-5.", "全参数微调通常用 1e-6 到 5e-5。"), source="tulu3",
         cure=lambda c: {"learning_rate": 1e-5}),
    Rule("high-decay", "weight_decay", lambda c: c.weight_decay > 0.3, "warn",
         Both("{weight_decay:g} pulls the weights to 0 faster than most data teaches them.",
              "{weight_decay:g} 把权重拉向 0 的速度比多数数据教得还快。"),
         Both("0 to 0.1 is usual.", "通常取 0 到 0.1。"), source="adamw", cure=lambda c: {"weight_decay": 0.01}),
    Rule("no-clipping", "max_grad_norm", lambda c: c.max_grad_norm == 0, "info",
         Both("gradients are not cut, so one odd row can throw the model off.",
              "不裁剪梯度，一行异常数据就可能带偏模型。"),
         Both("1.0 is usual.", "通常取 1.0。")),
    Rule("hard-clipping", "max_grad_norm", lambda c: 0 < c.max_grad_norm < 0.01, "warn",
         Both("every gradient is cut to {max_grad_norm:g}; AdamW's epsilon then matters.",
              "每个梯度都被裁剪到 {max_grad_norm:g}，此时 AdamW 的 epsilon 会起作用。"),
         Both("0.3 to 1.0 is usual.", "通常取 0.3 到 1.0。"), source="qlora", cure=lambda c: {"max_grad_norm": 1.0}),
    Rule("constant-warmup", "lr_scheduler_type",
         lambda c: c.lr_scheduler_type == "constant" and bool(c.warmup_steps or c.warmup_ratio), "warn",
         Both("constant has no warmup.", "constant 没有预热。"),
         Both("constant_with_warmup has.", "constant_with_warmup 才有。"),
         cure=lambda c: {"lr_scheduler_type": "constant_with_warmup"}),
    Rule("long-warmup", "warmup_ratio", lambda c: 0.3 < c.warmup_ratio < 1, "warn",
         Both("{warmup_ratio:.0%} of the steps are warmup.", "{warmup_ratio:.0%} 的步数都在预热。"),
         Both("0.03 to 0.1 is usual.", "通常取 0.03 到 0.1。"), source="qlora", cure=lambda c: {"warmup_ratio": 0.03}),
    Rule("schedule-later", "lr_scheduler_type", lambda c: c.lr_scheduler_type == "greedy", "error",
         Both("greedy is not offered yet.", "暂不支持 greedy。"),
         Both("cosine or linear.", "请用 cosine 或 linear。"), cure=lambda c: {"lr_scheduler_type": "cosine"}),
    Rule("min-rate-missing", "lr_scheduler_kwargs",
         lambda c: c.lr_scheduler_type in ("cosine_with_min_lr", "cosine_warmup_with_min_lr")
         and not {"min_lr", "min_lr_rate"} & set(c.lr_scheduler_kwargs), "error",
         Both("{lr_scheduler_type} needs to know how low it may fall.", "{lr_scheduler_type} 需要知道最低降到多少。"),
         Both('Set lr_scheduler_kwargs: {{"min_lr_rate": 0.1}}.',
              '请设置 lr_scheduler_kwargs: {{"min_lr_rate": 0.1}}。'),
         cure=lambda c: {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
    Rule("max-steps-wins", "max_steps", lambda c: c.max_steps > 0 and c.given("num_train_epochs"), "info",
         Both("{max_steps} steps decide; num_train_epochs ({num_train_epochs:g}) has no effect.",
              "以 max_steps（{max_steps}）为准，num_train_epochs（{num_train_epochs:g}）不起作用。")),
    Rule("optimizer-later", "optim", lambda c: c.optim not in TRAINED_OPTIMIZERS, "warn",
         Both("{optim} is not offered yet; adamw_torch trains instead, with 8 bytes of state a trained weight.",
              "暂不支持 {optim}，改用 adamw_torch，每个可训练权重占 8 字节状态。"),
         cure=lambda c: {"optim": "adamw_torch"}),
    Rule("two-optimizers", "use_galore",
         lambda c: sum((c.use_galore, c.use_apollo, c.use_badam)) > 1, "error",
         Both("use_galore, use_apollo and use_badam exclude each other.", "use_galore、use_apollo 和 use_badam 互斥。"),
         Both("Keep one.", "请只保留一个。")),
    Rule("lora-galore", "finetuning_type",
         lambda c: c.finetuning_type == "lora" and (c.use_galore or c.use_apollo or c.use_badam), "error",
         Both("GaLore, APOLLO and BAdam save the memory of full fine-tuning; LoRA has little to save.",
              "GaLore、APOLLO、BAdam 是为全参数微调省显存的，LoRA 没有多少可省。"),
         Both("Leave them out, or set finetuning_type: full.", "请去掉它们，或设置 finetuning_type: full。")),

    # -- evaluation and saving
    Rule("eval-steps-unused", "eval_steps", lambda c: c.eval_steps is not None and c.eval_strategy != "steps", "warn",
         Both("eval_strategy is {eval_strategy}, so eval_steps has no effect.",
              "eval_strategy 为 {eval_strategy}，eval_steps 不起作用。"),
         Both("Set eval_strategy: steps.", "请设置 eval_strategy: steps。")),
    Rule("save-steps-unused", "save_steps", lambda c: c.given("save_steps") and c.save_strategy != "steps", "info",
         Both("save_strategy is {save_strategy}, so save_steps has no effect.",
              "save_strategy 为 {save_strategy}，save_steps 不起作用。")),
    Rule("best-later", "save_strategy", lambda c: c.save_strategy == "best", "warn",
         Both("best is not offered yet, so no checkpoint is written on the way.",
              "暂不支持 best，途中不会保存检查点。"),
         Both("steps or epoch.", "请用 steps 或 epoch。"), cure=lambda c: {"save_strategy": "epoch"}),
    Rule("best-needs-eval", "load_best_model_at_end",
         lambda c: c.load_best_model_at_end and (c.eval_strategy == "no" or c.eval_strategy != c.save_strategy),
         "error",
         Both("the best model is found among checkpoints that were evaluated, so eval_strategy and save_strategy must "
              "be the same.", "最好的模型从评估过的检查点里选，eval_strategy 和 save_strategy 必须相同。"),
         Both("Set both to steps or epoch.", "请都设为 steps 或 epoch。")),
    Rule("best-without-eval", "load_best_model_at_end",
         lambda c: c.load_best_model_at_end and c.stage in ("rm", "ppo"), "error",
         Both("is not possible with stage {stage}.", "stage 为 {stage} 时不可用。"), Both("Leave it out.", "请去掉。")),
    Rule("generate-is-sft", "predict_with_generate", lambda c: c.predict_with_generate and c.stage != "sft", "error",
         Both("only stage sft generates answers to compare.", "只有 stage: sft 才会生成回答来比较。"),
         Both("Leave it out.", "请去掉。")),
    Rule("generate-or-accuracy", "compute_accuracy", lambda c: c.compute_accuracy and c.predict_with_generate, "error",
         Both("counts predicted tokens, predict_with_generate generates answers.",
              "按 token 统计，而 predict_with_generate 生成整段回答。"), _KEEP_ONE),
    Rule("predict-needs-generate", "do_predict",
         lambda c: c.do_predict and c.stage == "sft" and not c.predict_with_generate, "error",
         Both("predicts by generating.", "需要生成回答。"),
         Both("Set predict_with_generate: true.", "请设置 predict_with_generate: true。")),
    Rule("eval-without-data", "do_predict",
         lambda c: (c.do_predict or c.predict_with_generate) and not c.eval_dataset and not c.val_size, "error",
         *_NO_EVAL_DATA),
    Rule("predict-stage", "do_predict", lambda c: c.do_predict and c.stage not in ("sft", "rm"), "warn",
         Both("stage {stage} has nothing to predict; only sft and rm do.",
              "stage 为 {stage} 时没有预测，只有 sft 和 rm 有。"),
         Both("Leave it out.", "请去掉。"), cure=lambda c: {"do_predict": False}),
    Rule("calibration-missing", "export_quantization_bit",
         lambda c: bool(c.export_quantization_bit) and not c.export_quantization_dataset, "error",
         Both("quantising needs texts to calibrate on.", "量化需要校准文本。"),
         Both("Give export_quantization_dataset.", "请设置 export_quantization_dataset。"), ("export",)),

    # -- losses
    Rule("several-losses", "use_dft_loss",
         lambda c: c.stage == "sft" and sum((c.use_dft_loss, c.use_eaft_loss, c.use_asft_loss,
                                             bool(c.label_smoothing_factor))) > 1, "warn",
         Both("several losses are asked for, and one is taken: the first of use_dft_loss, use_eaft_loss, use_asft_loss "
              "and label_smoothing_factor that is on.",
              "指定了多种损失，只会采用一种：use_dft_loss、use_eaft_loss、use_asft_loss、label_smoothing_factor "
              "中第一个开启的。"),
         Both("Keep one.", "请只保留一个。")),
    Rule("loss-is-sft", "stage",
         lambda c: (c.stage != "sft" and (c.use_dft_loss or c.use_eaft_loss or c.use_asft_loss))
         or (c.stage not in ("pt", "sft") and bool(c.label_smoothing_factor)), "warn",
         Both("use_dft_loss, use_eaft_loss and use_asft_loss belong to stage sft (label_smoothing_factor to pt too); "
              "{stage} has a loss of its own.",
              "use_dft_loss、use_eaft_loss、use_asft_loss 属于 sft（label_smoothing_factor 也可用于 pt）；"
              "{stage} 有自己的损失。"), Both("Leave them out.", "请去掉它们。")),
    Rule("teacher-missing", "teacher_model", lambda c: c.stage == "distill" and not c.teacher_model, "error",
         Both("there is no teacher to learn from.", "没有教师模型。"),
         Both("Give teacher_model, a larger model of the same family.",
              "请设置 teacher_model：同系列的、更大的模型。")),
    Rule("own-answers", "kd_ratio", lambda c: c.stage == "distill" and c.lmbda > 0 and c.kd_ratio < 1, "error",
         Both("below 1 it also learns the answers as they stand, and with lmbda they are the student's own.",
              "小于 1 时还会学习回答本身，而设了 lmbda 时回答是学生自己写的。"), _KEEP_ONE, source="gkd"),

    # -- preference and reward
    Rule("ppo-reward", "reward_model", lambda c: c.stage == "ppo" and not (c.reward_model or c.reward_funcs), "error",
         Both("PPO needs something that scores answers.", "PPO 需要给回答打分的奖励。"),
         Both("Give reward_model, or reward_funcs.", "请设置 reward_model 或 reward_funcs。")),
    Rule("ppo-trains", "do_train", lambda c: c.stage == "ppo" and not c.do_train, "error",
         Both("PPO only trains.", "PPO 只能训练。"), Both("Set do_train: true.", "请设置 do_train: true。")),
    Rule("reward-lora", "reward_model_type",
         lambda c: c.stage == "ppo" and bool(c.reward_model) and "://" not in str(c.reward_model)
         and c.reward_model_type == "lora" and c.finetuning_type != "lora", "info",
         Both("a reward adapter sits on the base as it was; {finetuning_type} changes that, so what it changes is held "
              "once more.", "奖励适配器要用原来的基座，而 {finetuning_type} 会改动它，改动的部分要另存一份。"),
         Both("finetuning_type: lora shares the base.", "finetuning_type: lora 可共用基座。")),
    Rule("reward-address", "reward_model_type",
         lambda c: bool(c.reward_model) and c.given("reward_model_type")
         and (c.reward_model_type == "api") != ("://" in str(c.reward_model)), "error",
         Both("is {reward_model_type}, and reward_model is {reward_model}.",
              "为 {reward_model_type}，而 reward_model 是 {reward_model}。"),
         Both("api takes an address that begins with http:// or https://; lora and full take a folder.",
              "api 需要以 http:// 或 https:// 开头的地址；lora 和 full 需要文件夹。")),
    Rule("off-policy", "top_p",
         lambda c: writes(c) and any(c.given(name) and getattr(c, name) != value
                                             for name, value in _AS_IT_IS.items()), "warn",
         Both("with top_p below 1, top_k, repetition_penalty or do_sample off, answers are not drawn by the "
              "probabilities that stage {stage} learns from: ratios and KL are then off.",
              "top_p 小于 1，或设了 top_k、repetition_penalty、关闭 do_sample 时，回答不是按 {stage} 学习所用的概率"
              "抽取的，比值和 KL 会有偏差。"),
         Both("Leave them out.", "请去掉它们。"),
         cure=lambda c: _AS_IT_IS),
    Rule("smoothing-sigmoid", "dpo_label_smoothing",
         lambda c: c.dpo_label_smoothing > 0 and not any(PAIR_LOSSES[name].smoothing for name in c.pref_loss), "error",
         Both("is defined for pref_loss sigmoid, robust, exo, aot and cpo only.",
              "只对 pref_loss 为 sigmoid、robust、exo、aot、cpo 时有定义。"),
         Both("Set it to 0.", "请设为 0。"), source="dpo", cure=lambda c: {"dpo_label_smoothing": 0.0}),
    Rule("smoothing-missing", "dpo_label_smoothing",
         lambda c: c.stage == "dpo" and "exo" in c.pref_loss and not c.dpo_label_smoothing, "error",
         Both("is 0, and exo is infinite where labels are certain.", "为 0，而 exo 在标注完全确定时是无穷大。"),
         Both("Set it to 0.001.", "请设为 0.001。"), source="exo", cure=lambda c: {"dpo_label_smoothing": 0.001}),
    Rule("smoothing-half", "dpo_label_smoothing",
         lambda c: c.stage == "dpo" and "robust" in c.pref_loss and c.dpo_label_smoothing == 0.5, "error",
         Both("is 0.5: half the labels flipped leave robust nothing to learn, and it divides by 0.",
              "为 0.5：一半标反时 robust 无从学起，还会除以 0。"),
         Both("Set it below 0.5, such as 0.1.", "请设为小于 0.5 的值，例如 0.1。"),
         cure=lambda c: {"dpo_label_smoothing": 0.1}),
    Rule("pref-loss-weights", "pref_loss_weights",
         lambda c: bool(c.pref_loss_weights) and len(c.pref_loss_weights) != len(c.pref_loss), "error",
         Both("there is not one number for each loss.", "数字的个数与损失的个数不一致。"),
         Both("Give as many numbers as pref_loss has names.", "pref_loss 里有几个名字，就写几个数。")),
    Rule("pref-loss-weights", "pref_loss_weights",
         lambda c: bool(c.pref_loss_weights) and (min(c.pref_loss_weights) < 0 or sum(c.pref_loss_weights) <= 0),
         "error",
         Both("a number is negative, or all are 0.", "有负数，或者全部为 0。"),
         Both("Give positive numbers.", "请填写正数。")),
    Rule("one-pair", "per_device_train_batch_size",
         lambda c: c.stage == "dpo" and c.per_device_train_batch_size == 1
         and any(PAIR_LOSSES[name].among for name in c.pref_loss), "warn",
         Both("is 1, and pref_loss kto_pair and aot compare the pairs of a batch with one another.",
              "为 1，而 pref_loss 的 kto_pair 和 aot 要把一个批次里的各对相互比较。"),
         Both("Set it to 8, and lower gradient_accumulation_steps in turn.",
              "请设为 8，并相应减小 gradient_accumulation_steps。"),
         cure=lambda c: {"per_device_train_batch_size": 8}),
    Rule("reference-unused", "ref_model", lambda c: bool(c.ref_model) and c.stage == "dpo" and _reference_free(c),
         "warn", Both("no loss in pref_loss compares with a reference model.", "pref_loss 里的损失都不需要参考模型。"),
         Both("Leave it out.", "请去掉。")),
    Rule("preference-option", "stage",
         lambda c: c.stage not in ("dpo", "kto", "ppo") and is_set(
             c, "pref_beta", "pref_loss", "pref_ftx", "simpo_gamma"),
         "info", Both("the pref_ options belong to stages dpo and kto and have no effect with {stage}.",
                      "pref_ 开头的选项属于 dpo 和 kto，stage 为 {stage} 时不起作用。")),

    # -- answers written on the way
    Rule("no-reward", "reward_funcs", lambda c: c.stage == "grpo" and not (c.reward_funcs or c.reward_model), "error",
         Both("nothing says what an answer is worth.", "没有指定怎样给回答打分。"),
         Both("Give reward_funcs, such as exact_number or my_rewards.py:my_function.",
              "请设置 reward_funcs，例如 exact_number 或 my_rewards.py:my_function。")),
    Rule("reward-weights", "reward_weights",
         lambda c: bool(c.reward_weights) and len(c.reward_weights) != len(c.reward_funcs) + bool(c.reward_model),
         "error", Both("there is not one number for each reward.", "数字的个数与奖励的个数不一致。"),
         Both("Give as many numbers as reward_funcs has names, and one more for a reward_model.",
              "reward_funcs 里有几个名字就写几个数；有 reward_model 时再加一个。")),
    Rule("no-pattern", "reward_pattern", lambda c: "format" in c.reward_funcs and not c.reward_pattern, "error",
         Both("the reward format needs to know which pattern.", "奖励 format 需要知道匹配什么。"),
         Both("Give a regular expression, such as .*[0-9]+", "请填写正则表达式，例如 .*[0-9]+")),
    Rule("bad-pattern", "reward_pattern", lambda c: not _is_pattern(c.reward_pattern or ""), "error",
         Both("is no regular expression.", "不是合法的正则表达式。"),
         Both("Escape what is meant as it stands: \\[ for [.", "按字面匹配的字符要转义：[ 写成 \\[。")),
    Rule("no-word", "reward_word", lambda c: "ends_with" in c.reward_funcs and not c.reward_word, "error",
         Both("the reward ends_with needs to know which word.", "奖励 ends_with 需要知道是哪个词。"),
         Both("Give the word.", "请填写这个词。")),
    Rule("groups-whole", "num_generations",
         lambda c: c.stage == "grpo" and c.per_device_train_batch_size != "auto" and bool(
             c.rows_at_once * (c.steps_per_generation or c.gradient_accumulation_steps) % c.num_generations), "error",
         Both("{num_generations} answers to a prompt do not divide the answers of a round (per_device_train_batch_size "
              "x steps_per_generation, or x gradient_accumulation_steps where that is not given).",
              "每个提示 {num_generations} 个回答，不能整除一轮的回答数（per_device_train_batch_size 乘以 "
              "steps_per_generation，不填时乘以 gradient_accumulation_steps）。"),
         Both("Set per_device_train_batch_size, which counts answers, to a multiple of it.",
              "per_device_train_batch_size 按回答计数，请设为它的倍数。"),
         cure=lambda c: {"per_device_train_batch_size": c.num_generations}),
    Rule("rounds-whole", "steps_per_generation",
         lambda c: c.stage == "grpo" and bool((c.steps_per_generation or 0) % c.gradient_accumulation_steps), "error",
         Both("{steps_per_generation} is no multiple of gradient_accumulation_steps ({gradient_accumulation_steps}), "
              "so a round would end within an optimizer step.",
              "{steps_per_generation} 不是 gradient_accumulation_steps（{gradient_accumulation_steps}）的倍数，"
              "一轮会在一个优化步的中途结束。"),
         Both("Leave it out, or give a multiple.", "请去掉它，或填写倍数。"),
         cure=lambda c: {"steps_per_generation": None}),
    Rule("rounds-auto", "per_device_train_batch_size",
         lambda c: writes(c) and c.per_device_train_batch_size == "auto", "error",
         Both("how long the answers will be is not known before, so nothing tells how many fit.",
              "回答的长度事先未知，无法得知能放下多少个。"), Both("Give a number.", "请填写一个数。")),
    Rule("rounds-streaming", "streaming", lambda c: writes(c) and c.streaming, "error",
         Both("stage {stage} reads its rows a second time for the rewards, which a stream does not allow.",
              "stage {stage} 需要为打分再读一遍数据，流式数据做不到。"),
         Both("Set streaming: false.", "请设置 streaming: false。"), cure=lambda c: {"streaming": False}),
    Rule("rounds-alike", "temperature",
         lambda c: writes(c) and c.given("temperature") and c.temperature == 0, "error",
         Both("is 0: all answers to a prompt would be the same, and there would be nothing to compare.",
              "为 0：同一提示的回答全都一样，无从比较。"),
         Both("Leave it out: 1 is taken.", "请去掉它：会取 1。"), cure=lambda c: {"temperature": 1.0}),
    Rule("rounds-alike", "do_sample", lambda c: writes(c) and not c.do_sample, "error",
         Both("is off: all answers to a prompt would be the same, and there would be nothing to compare.",
              "已关闭：同一提示的回答全都一样，无从比较。"),
         Both("Leave it out.", "请去掉它。"), cure=lambda c: {"do_sample": True}),
    Rule("rollout-option", "stage",
         lambda c: c.stage not in WRITES and is_set(
             c, "reward_funcs", "reward_weights", "max_completion_length", "num_generations", "num_iterations",
             "steps_per_generation"),
         "info", Both("the options of rewards and of answers written on the way belong to stages grpo and ppo and have "
                      "no effect with {stage}.",
                      "奖励和在线生成的选项属于 grpo 和 ppo，stage 为 {stage} 时不起作用。")),

    # -- machine
    Rule("fp16-on-cpu", "fp16", lambda c: bool(c.fp16) and c.use_cpu, "error",
         Both("this CPU has no float16 arithmetic, it would be emulated.", "CPU 没有 float16 运算，只能模拟。"),
         Both("Leave the precision unset, or set bf16.", "不填精度，或设置 bf16。"), cure=lambda c: {"fp16": False}),
    Rule("output-is-model", "output_dir",
         lambda c: bool(c.output_dir) and str(c.output_dir).rstrip("/") == str(c.model_name_or_path).rstrip("/"),
         "error",
         Both("the run would write into the folder of its own model.",
              "运行会写进基座模型自己的文件夹。"),
         Both("Choose another folder, such as saves/my-run.", "请换一个文件夹，例如 saves/my-run。")),
    *(Rule("not-expanded", path, lambda c, path=path: (getattr(c, path) or "").startswith(("~", "$")), "error",
           Both(f"{{{path}}} would be a folder of that very name: ~ and $ are not expanded.",
                f"{{{path}}} 会被当作文件夹的字面名字：~ 和 $ 不会展开。"),
           Both("Write the path out.", "请写出完整路径。"), _EVERY)
      for path in ("model_name_or_path", "dataset_dir", "cache_dir", "output_dir", "export_dir")),
)
