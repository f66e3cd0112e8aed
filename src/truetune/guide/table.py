"""What a recipe chooses, as data: for each option which value, who says so, when, and why in both languages.

Rows are tried in order; the first that applies decides its option, and later rows see what earlier ones chose. What the
user fixed is not decided again. Where the source is `JUDGEMENT`, nobody has measured it for us.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from truetune.data.lengths import keeping_most
from truetune.data.messages import Kind
from truetune.findings import Both, Severity
from truetune.guide.facts import FALLBACK_TEMPLATE
from truetune.guide.rates import LORA, SMALL, WHOLE, by_size
from truetune.guide.situation import ENOUGH_STEPS, MOST_EPOCHS, Situation, free_folder

JUDGEMENT, SEEN, MEASURED, RECKONED, TRIED, USER = "judgement", "seen", "measured", "reckoned", "tried", "user"
OWN: Mapping[str, Both] = {
    JUDGEMENT: Both("our judgement, not measured", "我们的判断，未经测量"),
    SEEN: Both("seen in your model and data", "来自你的模型和数据"),
    MEASURED: Both("measured here", "在本机实测"),
    RECKONED: Both("reckoned from config.json, not measured", "由 config.json 估算，未经测量"),
    TRIED: Both("our own short trials on SmolLM2-135M", "我们在 SmolLM2-135M 上的短训练"),
    USER: Both("", ""),
}
"""Sources that are no publication."""

STAGES: Mapping[Kind, str] = {"conversations": "sft", "documents": "pt", "preferences": "dpo", "judged": "kto"}
_PATIENCE = 3


def _always(s: Situation) -> bool:
    return True


@dataclass(frozen=True)
class Choice:
    """One row. value(situation): of `option`, where `when(situation)`. source: a key of `options.sources.SOURCES` or of
    `OWN`. why: `{…}` are filled by `Situation.words`, with this value as `{value}`."""

    option: str
    value: Callable[[Situation], Any]
    source: str
    why: Both
    when: Callable[[Situation], bool] = _always


CHOICES: tuple[Choice, ...] = (
    # -------------------------------------------------------------------------------------------------- stage, template
    Choice("stage", lambda s: STAGES[s.facts.data.kind], SEEN, Both(
        "The rows hold answers to learn.",
        "数据是要学习的回答。"),
        lambda s: s.facts.data.kind == "conversations"),
    Choice("stage", lambda s: STAGES[s.facts.data.kind], SEEN, Both(
        "The rows hold plain text.",
        "数据是纯文本。"),
        lambda s: s.facts.data.kind == "documents"),
    Choice("stage", lambda s: STAGES[s.facts.data.kind], SEEN, Both(
        "Each row holds a better and a worse answer.",
        "每行有一个较好和一个较差的回答。"),
        lambda s: s.facts.data.kind == "preferences"),
    Choice("stage", lambda s: STAGES[s.facts.data.kind], SEEN, Both(
        "Each row holds an answer that somebody found good or bad.",
        "每行有一个被标为好或坏的回答。")),
    Choice("template", lambda s: FALLBACK_TEMPLATE, JUDGEMENT, Both(
        "The tokenizer brings no chat template, so this is a base model. The marks of this one are plain words, and it "
        "ends with the end-of-text token; a base model has learned both. Of the special tokens of other templates it "
        "has learned none.",
        "分词器没有对话模板，说明这是基座模型。该模板的标记都是普通文字，以文本结束符收尾，基座模型都学过；"
        "其他模板的特殊 token 它从没学过。"),
        lambda s: not s.facts.model.own_template and s["stage"] != "pt"),

    # ------------------------------------------------------------------------------------------------------------- data
    Choice("on_bad_row", lambda s: "drop", SEEN, Both(
        "{refused} of the rows cannot be learned from (the first: {first_refused}). They are left out.",
        "有 {refused} 行无法学习（第一处：{first_refused}），会被丢弃。"),
        lambda s: bool(s.facts.data.refused)),
    Choice("cutoff_len", lambda s: _cutoff(s, s.facts.data.lengths.max()), SEEN, Both(
        "Every row is kept whole: the longest has {longest} tokens, half of them up to {median}. Rows are not padded, "
        "so what lies between costs nothing.",
        "所有行都完整保留：最长 {longest} 个 token，中位数 {median}。没有填充，所以上限高于多数行也没有代价。"),
        lambda s: _keeps_all(s)),
    Choice("cutoff_len", lambda s: _cutoff(s, keeping_most(s.facts.data.lengths)), "silent-cut", Both(
        "99.5 % of the rows have up to {most} tokens, the longest {longest}. Memory grows with the longest row, so the "
        "{lost} that are longer than this are left out and named (overlong).",
        "99.5 % 的行不超过 {most} 个 token，最长 {longest}。显存由最长的行决定，因此更长的 {lost} "
        "会被丢弃并列出（overlong）。")),
    Choice("enable_thinking", lambda s: False, "empty-thoughts", Both(
        "The model can think, and no answer here holds a thought. So that it does not unlearn thinking, the empty "
        "thought stands in the prompt and is not learned.",
        "模型可以思考，而这里的回答没有思考过程。为了不让它忘记思考，空思考放在提示里，不学习。"),
        lambda s: s.facts.model.switches and not s.facts.data.thinking and s["stage"] != "pt"),
    Choice("enable_thinking", lambda s: True, SEEN, Both(
        "The answers hold thoughts, and these are learned.",
        "回答带有思考过程，一并学习。"),
        lambda s: s.facts.model.switches and s.facts.data.thinking > 0.95),
    Choice("enable_thinking", lambda s: None, JUDGEMENT, Both(
        "{thinking} of the answers hold thoughts. null: these are learned as they are, the others as answers to "
        "somebody who switched thinking off.",
        "{thinking} 的回答带有思考。null：有思考的照原样学习，没有的当作“关闭思考”时的回答来学。"),
        lambda s: s.facts.model.switches and s.facts.data.thinking > 0),
    Choice("packing", lambda s: False, JUDGEMENT, Both(
        "Rows lie end to end without padding anyway. Packing would save nothing, and make the number of rows in a step "
        "uneven.",
        "这里各行本来就首尾相接、没有填充。打包省不了什么，只会让每步的行数不均。"),
        lambda s: s["stage"] != "pt"),
    Choice("val_size", lambda s: s.wanted_held_out(), JUDGEMENT, Both(
        "{value} of {all_rows} rows are held out, to see when learning turns into learning by heart. Fewer than 20 "
        "would say little.",
        "从 {all_rows} 行中留出 {value} 行，用来看何时从学会变成死记。少于 20 行说明不了什么。"),
        lambda s: not s["eval_dataset"] and not s["streaming"] and s.wanted_held_out() > 0),

    # ----------------------------------------------------------------------------------------------------------- method
    Choice("finetuning_type", lambda s: "full", "lora-learns-less", Both(
        "Plain text for knowledge is more than LoRA holds well, and training every weight fits here ({need}, {free} "
        "free).",
        "用纯文本灌输知识超出 LoRA 的长处，而全量训练在本机放得下（{need}，可用 {free}）。"),
        lambda s: s.goal == "knowledge" and s["stage"] == "pt" and s.room_for("full").fits),
    Choice("finetuning_type", lambda s: "lora", "lora-without-regret", Both(
        "On data of this size LoRA learns as well as full fine-tuning, forgets less, and needs far less memory.",
        "在这个规模的数据上，LoRA 与全量微调效果相当，遗忘更少，显存小得多。")),
    Choice("lora_rank", lambda s: 4 * _rank(s), JUDGEMENT, Both(
        "Knowledge takes room: four times the rank that {all_rows} rows would get otherwise.",
        "知识需要容量：取 {all_rows} 行通常所用秩的四倍。"),
        lambda s: s.adapter and s.goal == "knowledge"),
    Choice("lora_rank", lambda s: _rank(s), JUDGEMENT, Both(
        "Room for what {all_rows} rows hold: 16 below 5,000 rows, 32 below 50,000, then 64.",
        "按 {all_rows} 行的信息量：5 千行以下 16，5 万行以下 32，更多 64。"),
        lambda s: s.adapter),
    Choice("lora_alpha", lambda s: 32, "tinker-lora", Both(
        "LoRA's output is multiplied by alpha / rank = {scale}. Fixed at 32, the rank can change and the learning rate "
        "stays right.",
        "LoRA 的输出乘以 alpha / rank = {scale}。固定为 32，改秩时学习率不用跟着改。"),
        lambda s: s.adapter),
    Choice("lora_target", lambda s: ("all",), "lora-without-regret", Both(
        "Every linear layer: attention alone learns worse, even at a higher rank.",
        "所有线性层：只加在注意力上，即使提高秩也学得更差。"),
        lambda s: s.adapter),

    Choice("pref_beta", lambda s: 0.1, "dpo", Both(
        "How far the model may move away from what it was: lower lets it move further.",
        "允许模型偏离原模型的程度：越小越放得开。"),
        lambda s: s.judged),

    # ------------------------------------------------------------------------------------------- memory, batch, epochs
    Choice("bf16", lambda s: s.facts.machine.precision.dtype is torch.bfloat16, MEASURED, Both(
        "The fastest safe format on this {device} ({measured}). Master weights stay in float32.",
        "本机（{device}）上最快且安全的格式（{measured}）。主权重保持 float32。"),
        lambda s: s.facts.machine.bfloat16 and not (s["fp16"] or s["pure_bf16"])),
    Choice("bf16", lambda s: False, MEASURED, Both(
        "This {device} has no bfloat16 arithmetic; emulated, it would be slow.",
        "本机（{device}）没有 bfloat16 运算，模拟会很慢。"),
        lambda s: not (s["fp16"] or s["pure_bf16"])),
    Choice("gradient_checkpointing", lambda s: True, "checkpointing", Both(
        "Without it not even one row at a time fits ({free} free). It costs about a third of the speed.",
        "不开启时连一次一行都放不下（可用 {free}）。速度约慢三分之一。"),
        lambda s: s.room.checkpointing),
    Choice("gradient_checkpointing", lambda s: None, RECKONED, Both(
        "Left open, since it seems to fit without: a run measures at its start whether that is so. It costs about a "
        "third of the speed.",
        "不指定：看来不开启也放得下，训练开始时会再实测。开启后速度约慢三分之一。")),
    Choice("per_device_train_batch_size", lambda s: s.room.micro, RECKONED, Both(
        "Rows computed at once: of the {wanted} rows of a step as many as fit (about {need}, {free} free). What is "
        "learned does not depend on it.",
        "同时计算的行数：每步 {wanted} 行，取内存放得下的最大值（约 {need}，可用 {free}）。它不影响学到什么。")),
    Choice("gradient_accumulation_steps", lambda s: s.accumulation(), "lora-without-regret", Both(
        "So that each step learns from {batch} rows. LoRA likes small batches (16 to 32), and with few rows smaller "
        "ones still: about {at_least} steps are needed to learn anything.",
        "这样每步学习 {batch} 行。LoRA 适合小批次（16 到 32），行数少时还要更小：至少要走约 {at_least} "
        "步才学得到东西。"),
        lambda s: s.adapter),
    Choice("gradient_accumulation_steps", lambda s: s.accumulation(), "tulu3", Both(
        "So that each step learns from {batch} rows. Training every weight likes large batches (64 to 128), and with "
        "few rows smaller ones: about {at_least} steps are needed to learn anything.",
        "这样每步学习 {batch} 行。全量训练适合大批次（64 到 128），行数少时要小一些：至少要走约 {at_least} "
        "步才学得到东西。")),
    Choice("num_train_epochs", lambda s: 1, "zephyr", Both(
        "Once: preferences are learned by heart quickly.",
        "只看一遍：偏好数据很快就会被背下来。"),
        lambda s: s.judged),
    Choice("num_train_epochs", lambda s: 1, JUDGEMENT, Both(
        "{rows} rows are plenty: one epoch has {steps_per_epoch} steps.",
        "{rows} 行已经很多：一个 epoch 就有 {steps_per_epoch} 步。"),
        lambda s: s.rows > 50_000),
    Choice("num_train_epochs", lambda s: _epochs(s), "sixty-rows", Both(
        "{rows} rows make {steps_per_epoch} steps an epoch; the usual 2 or 3 epochs would hardly change the model. So "
        "many make {steps} steps. Whether that is too much the held-out loss tells, or a look at the answers.",
        "{rows} 行每个 epoch 只有 {steps_per_epoch} 步，常用的 2、3 个 epoch 几乎改变不了模型，所以取这么多，共 "
        "{steps} 步。"
        "是否过多，看评估损失或看几个回答就知道。"),
        lambda s: _epochs(s) > _usual_epochs(s)),
    Choice("num_train_epochs", lambda s: _epochs(s), "unsloth-guide", Both(
        "{rows} rows, seen {value} times, make {steps} steps. 1 to 3 times are usual; more is learned by heart.",
        "{rows} 行看 {value} 遍，共 {steps} 步。通常 1 到 3 遍，再多就是死记。")),

    # ---------------------------------------------------------------------------------------------------- learning rate
    Choice("learning_rate", lambda s: 5e-6, "zephyr", Both(
        "Preferences want small steps, with LoRA too.",
        "偏好训练步子要小，LoRA 也是。"),
        lambda s: s.judged and s.adapter),
    Choice("learning_rate", lambda s: 5e-7, "zephyr", Both(
        "Preferences want small steps.",
        "偏好训练步子要小。"),
        lambda s: s.judged),
    Choice("learning_rate", lambda s: s.swept[1] / 2 if s.swept else 0.0, "tinker-lora", Both(
        "The best measured LoRA rate of {swept} is {swept_rate}, with alpha 32 and batch 128; half of it is the "
        "careful side. `truetune find-lr` measures it on your data.",
        "{swept} 实测最佳 LoRA 学习率为 {swept_rate}（alpha 32，批次 128）；取一半更稳妥。可用 `truetune find-lr` "
        "在你的数据上实测。"),
        lambda s: s.adapter and s.swept is not None),
    Choice("learning_rate", lambda s: by_size(s.facts.model.parameters, LORA), TRIED, Both(
        "For small models ({size} weights): 1e-3 did better than a third of it and than three times it, with alpha 32. "
        "`truetune find-lr` measures it on your data.",
        "小模型（{size}）：1e-3 优于它的三分之一和三倍，配合 alpha 32。可用 `truetune find-lr` 在你的数据上实测。"),
        lambda s: s.adapter and s.facts.model.parameters <= SMALL),
    Choice("learning_rate", lambda s: by_size(s.facts.model.parameters, LORA), "tinker-lora", Both(
        "By size ({size} weights): 5e-4 up to 6B, 2e-4 up to 20B, 1e-4 above, the careful side of what was measured on "
        "other models, with alpha 32. `truetune find-lr` measures it on this one.",
        "按模型大小（{size}）：6B 以下 5e-4，20B 以下 2e-4，更大 1e-4，是其他模型实测值中稳妥的一侧，配合 alpha 32。"
        "可用 `truetune find-lr` 在本模型上实测。"),
        lambda s: s.adapter),
    Choice("learning_rate", lambda s: by_size(s.facts.model.parameters, WHOLE), "tulu3", Both(
        "By size ({size} weights): about a tenth of LoRA's, from 5e-5 for 1B down to 2e-6 for 70B. `truetune find-lr` "
        "measures it on this one.",
        "按模型大小（{size}）：约为 LoRA 的十分之一，从 1B 的 5e-5 到 70B 的 2e-6。可用 `truetune find-lr` "
        "在本模型上实测。")),
    Choice("lr_scheduler_type", lambda s: "cosine", "zephyr", Both(
        "Down to 0 along a cosine.",
        "按余弦降到 0。"),
        lambda s: s.judged),
    Choice("lr_scheduler_type", lambda s: "linear", "tulu3", Both(
        "Down to 0 in a straight line, so that the last steps settle. Take constant if you mean to train on later.",
        "线性降到 0，让最后几步稳定下来。如果以后还要接着训练，用 constant。")),
    Choice("warmup_ratio", lambda s: 0.1, "zephyr", Both(
        "The first tenth of the steps rise slowly.",
        "前十分之一的步数慢慢升起。"),
        lambda s: s.judged and not s["warmup_steps"]),
    Choice("warmup_ratio", lambda s: _warmup(s), "qlora", Both(
        "The first steps rise slowly, while AdamW has seen little: 3 % of all, of a short run about 5 steps.",
        "开头几步慢慢升起，此时 AdamW 见过的还少：取总步数的 3 %，短训练约 5 步。"),
        lambda s: not s["warmup_steps"]),
    Choice("weight_decay", lambda s: 0.0, "lora-learns-less", Both(
        "None: against overfitting LoRA itself and fewer epochs do more.",
        "不用：防过拟合，LoRA 本身和减少 epoch 更有效。")),
    Choice("max_grad_norm", lambda s: 1.0, "llama-factory", Both(
        "A row that is unlike all others cannot throw the weights far.",
        "个别异常的行不会把权重带偏太远。")),

    # ------------------------------------------------------------------------------------------------ what happens when
    Choice("logging_steps", lambda s: _round(s.steps / 100), JUDGEMENT, Both(
        "So that {steps} steps make about a hundred points of the curve.",
        "让 {steps} 步在曲线上大约有一百个点。")),
    Choice("eval_strategy", lambda s: "steps", JUDGEMENT, Both(
        "The held-out rows are looked at on the way, not only at the end.",
        "训练途中就评估留出的数据，而不只在结束时。"),
        lambda s: s.can_evaluate),
    Choice("eval_steps", lambda s: max(1, s.steps // 10), JUDGEMENT, Both(
        "About ten times in the {steps} steps.",
        "{steps} 步里大约评估十次。"),
        lambda s: s["eval_strategy"] == "steps"),
    Choice("early_stopping_steps", lambda s: _PATIENCE, "sixty-rows", Both(
        "Three evaluations in a row without a better loss end the run: from there on it learns by heart.",
        "连续三次评估损失没有变好就停止：再往后就是死记。"),
        lambda s: s["eval_strategy"] != "no"),
    Choice("save_strategy", lambda s: "steps", JUDGEMENT, Both(
        "Checkpoints, so that a run that was stopped can go on.",
        "保存检查点，中断后可以接着训练。")),
    Choice("save_steps", lambda s: s["eval_steps"], JUDGEMENT, Both(
        "With every evaluation, so that the best one is on the disk.",
        "每次评估时都保存，最好的那一次就在磁盘上。"),
        lambda s: s["save_strategy"] == s["eval_strategy"] == "steps" and bool(s["eval_steps"])),
    Choice("save_steps", lambda s: max(1, math.ceil(s.steps / 4)), JUDGEMENT, Both(
        "Four times in the {steps} steps.",
        "{steps} 步里保存四次。"),
        lambda s: s["save_strategy"] == "steps"),
    Choice("save_total_limit", lambda s: s["early_stopping_steps"] + 1, JUDGEMENT, Both(
        "When early stopping ends the run, the oldest of these is the best one.",
        "早停结束时，其中最早的一个就是最好的。"),
        lambda s: bool(s["early_stopping_steps"]) and s["save_strategy"] != "no"),
    Choice("save_total_limit", lambda s: 2, JUDGEMENT, Both(
        "The newest two are enough to go on from.",
        "留最新的两个就足以接着训练。"),
        lambda s: s["save_strategy"] != "no"),
    Choice("seed", lambda s: 42, JUDGEMENT, Both(
        "Any number; the same one gives the same run.",
        "任意数字；种子相同，训练就相同。")),
    Choice("output_dir", lambda s: str(free_folder(Path("saves") / _name(s))), SEEN, Both(
        "The run folder. Nothing is there yet.",
        "运行文件夹，目前还不存在。")),
)


@dataclass(frozen=True)
class Note:
    """Something to know about the whole run, told where `when(situation)`. `{…}` as in `Choice.why`."""

    id: str
    severity: Severity
    option: str
    when: Callable[[Situation], bool]
    message: Both
    source: str | None = None


NOTES: tuple[Note, ...] = (
    Note("does-not-fit", "warn", "model_name_or_path", lambda s: not s.room.fits, Both(
        "training this model needs about {need} even one row at a time, and {free} are free here. Take a smaller model "
        "or a larger machine.",
        "即使一次一行，训练这个模型也约需 {need}，而本机只有 {free} 可用。请换小一些的模型或更大的机器。")),
    Note("no-pairs", "warn", "dataset", lambda s: s.goal == "preference" and not s.judged, Both(
        "these rows hold one answer each, so there is nothing to prefer, and the answers themselves are learned. "
        "Preference needs pairs (chosen, rejected) or judged answers (label).",
        "这些数据每行只有一个回答，无从比较，只能学习回答本身。偏好训练需要成对回答（chosen、rejected）"
        "或好坏标注（label）。")),
    Note("no-thoughts-to-learn", "warn", "dataset",
         lambda s: s.goal == "reasoning" and s["stage"] == "sft" and s.facts.data.thinking < 0.05, Both(
             "hardly a row holds a thought (<think>…</think> or reasoning_content): this teaches answers, not how to "
             "come to them.",
             "几乎没有带思考过程（<think>…</think> 或 reasoning_content）的行：学到的是答案，而不是推理过程。")),
    Note("facts-are-hard", "info", "dataset", lambda s: s.goal == "knowledge", Both(
        "facts are hard to teach this way. They need many rows that say them in different words, and what is learned "
        "by half invites made-up answers. Where facts change or must be exact, looking them up (RAG) is usually "
        "better; fine-tuning is good for how to answer.",
        "用微调灌输事实很难：需要大量用不同说法讲同一件事的数据，学得半懂反而容易编造。事实会变化或必须准确时，检索增强"
        "（RAG）通常更好；微调更适合教“怎么回答”。")),
    Note("no-template", "warn", "template", lambda s: not s.facts.model.own_template and s["stage"] != "pt", Both(
        "this looks like a base model, which has not learned to answer and to stop. If there is an Instruct or Chat "
        "version, a few hundred rows do far more with that one.",
        "这看起来是基座模型，没有学过对话，也不会停止。如果有 Instruct 或 Chat 版本，"
        "几百行数据用在那上面效果好得多。")),
    Note("few-rows", "info", "dataset", lambda s: s.facts.data.rows < 50, Both(
        "{all_rows} rows can teach a tone or a single fact, and are soon known by heart. A few hundred different ones "
        "do more than any option here.",
        "{all_rows} 行可以教会一种语气或一件事，但很快会被背下来。再加几百行不同的数据，比调任何参数都管用。")),
    Note("poor-chinese", "warn", "model_name_or_path", lambda s: s.facts.data.tokens_per_han > 1.3, Both(
        "this model's tokenizer needs {tokens_per_han} tokens for a Chinese letter, so it has seen little Chinese: "
        "rows "
        "are long, and learning is slow. Models made for Chinese (Qwen, GLM and others) need about 0.6.",
        "该模型的分词器平均每个汉字要 {tokens_per_han} 个 token，说明它见过的中文很少：行会很长，学得也慢。"
        "面向中文的模型（Qwen、GLM 等）约为 0.6。")),
    Note("longer-than-model", "warn", "cutoff_len",
         lambda s: s.kept < 1 and s["cutoff_len"] >= s.facts.model.limit, Both(
             "{lost} of the rows are longer than the {limit} tokens that this model was made for, and are left out.",
             "有 {lost} 的行超过该模型支持的 {limit} 个 token，会被丢弃。")),
    Note("sampled", "info", "dataset", lambda s: s.facts.data.looked_at < s.facts.data.rows, Both(
        "all {all_rows} rows were read, and {looked_at} of them, drawn at random, were tokenised.",
        "读了全部 {all_rows} 行，随机抽取其中 {looked_at} 行做了分词。")),
)


# ------------------------------------------------------------------------------------------------ how values come about


def _cutoff(s: Situation, length: float) -> int:
    """`length` rounded up to 64, at most what the model was made for."""
    return min(64 * math.ceil(length / 64), s.facts.model.limit)


def _keeps_all(s: Situation) -> bool:
    """Whether every row can be kept whole for hardly more than keeping 99.5 % of them. Thoughts are kept whatever they
    cost."""
    longest = s.facts.data.lengths.max()
    cheap = s.goal == "reasoning" or longest <= 1.25 * keeping_most(s.facts.data.lengths)
    return cheap and longest <= s.facts.model.limit


def _rank(s: Situation) -> int:
    return next(rank for most, rank in ((5_000, 16), (50_000, 32), (math.inf, 64)) if s.facts.data.rows < most)


def _usual_epochs(s: Situation) -> int:
    """Fewer where there are more rows; knowledge wants to be said again."""
    return 3 if s.rows <= 5_000 or s.goal == "knowledge" else 2


def _epochs(s: Situation) -> int:
    return min(max(_usual_epochs(s), math.ceil(ENOUGH_STEPS / s.steps_per_epoch)), MOST_EPOCHS)


def _warmup(s: Situation) -> float:
    return min(0.1, round(max(0.03, 5 / s.steps), 2))


def _round(number: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, … below."""
    power = 10 ** int(math.log10(max(number, 1)))
    return max(step * power for step in (1, 2, 5) if step * power <= max(number, 1))


def _name(s: Situation) -> str:
    """What the run is called: its model and its data."""
    return f"{Path(s['model_name_or_path']).name}-{Path(s['dataset'][0]).name.split('.')[0]}".lower()
