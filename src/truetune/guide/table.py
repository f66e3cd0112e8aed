"""What a recipe chooses, as data: for each option when, which value, why in both languages, and who says so.

Rows are tried in order; the first that applies decides its option, and later rows see what earlier ones chose. What the
user fixed is not decided again. Where the source is `judgement`, nobody has measured it for us.
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
from truetune.guide.rates import LORA, WHOLE, by_size
from truetune.guide.situation import ENOUGH_STEPS, MOST_EPOCHS, Situation, free_folder

JUDGEMENT, SEEN, MEASURED, USER = "judgement", "seen", "measured", "user"
OWN: Mapping[str, Both] = {
    JUDGEMENT: Both("our judgement, not measured", "我们的判断，未经测量"),
    SEEN: Both("seen in your model and data", "来自你的模型和数据"),
    MEASURED: Both("measured here", "在本机实测"),
    USER: Both("you", "由你指定"),
}
"""Sources that are no publication."""

STAGES: Mapping[Kind, str] = {"conversations": "sft", "documents": "pt", "preferences": "dpo", "judged": "kto"}
_PATIENCE = 3


def _always(s: Situation) -> bool:
    return True


@dataclass(frozen=True)
class Choice:
    """One row. value(situation) is the value of `option` where `when(situation)`. why: `{…}` are filled by
    `Situation.words`, with this value as `{value}`. source: a key of `options.sources.SOURCES` or of `OWN`."""

    option: str
    value: Callable[[Situation], Any]
    why: Both
    source: str
    when: Callable[[Situation], bool] = _always


CHOICES: tuple[Choice, ...] = (
    # -------------------------------------------------------------------------------------------------- stage, template
    Choice("stage", lambda s: STAGES[s.facts.data.kind], Both(
        "The rows hold answers to "
        "learn.", "数据是要学习的回答。"), SEEN, lambda s: s.facts.data.kind == "conversations"),
    Choice("stage", lambda s: STAGES[s.facts.data.kind], Both(
        "The rows hold plain text.", "数据是纯文本。"), SEEN, lambda s: s.facts.data.kind == "documents"),
    Choice("stage", lambda s: STAGES[s.facts.data.kind], Both(
        "Each row holds a better and a worse answer.", "每行都有一个较好和一个较差的回答。"), SEEN,
        lambda s: s.facts.data.kind == "preferences"),
    Choice("stage", lambda s: STAGES[s.facts.data.kind], Both(
        "Each row holds an answer that somebody found good or bad.", "每行都有一个被标为好或坏的回答。"), SEEN),
    Choice("template", lambda s: FALLBACK_TEMPLATE, Both(
        "The tokenizer brings no chat template, so this is a base model. The marks of this one are plain words, and it "
        "ends with the end-of-text token: a base model has learned both. It has never seen the special tokens of "
        "others.",
        "分词器没有对话模板，说明这是基座模型。该模板的标记都是普通文字，以文本结束符收尾，基座模型都学过；"
        "其他模板的特殊 token 它从未见过。"), JUDGEMENT,
        lambda s: not s.facts.model.own_template and s["stage"] != "pt"),

    # ------------------------------------------------------------------------------------------------------------- data
    Choice("on_bad_row", lambda s: "drop", Both(
        "{refused} of the rows cannot be learned from (the first: {first_refused}). They are left out.",
        "有 {refused} 行无法学习（第一处：{first_refused}），将被丢弃。"), SEEN, lambda s: bool(s.facts.data.refused)),
    Choice("cutoff_len", lambda s: _cutoff(s, s.facts.data.lengths.max()), Both(
        "Every row is kept whole: the longest has {longest} tokens, half of them up to {median}. Rows are not padded, "
        "so "
        "room above costs nothing.",
        "所有行都完整保留：最长 {longest} 个 token，中位数 {median}。不做填充，上限留有余量也没有代价。"), SEEN,
        lambda s: _keeps_all(s)),
    Choice("cutoff_len", lambda s: _cutoff(s, keeping_most(s.facts.data.lengths)), Both(
        "99.5 % of the rows have up to {most} tokens, the longest {longest}; {lost} of them are longer than this and "
        "are "
        "left out (overlong). Memory grows with the longest row.",
        "99.5 % 的行不超过 {most} 个 token，最长 {longest}；比这更长的 {lost} 会被丢弃（overlong）。"
        "显存由最长的行决定。"),
        "silent-cut"),
    Choice("enable_thinking", lambda s: False, Both(
        "The model can think, and no answer in the data holds a thought. So its way of thinking is left alone: the "
        "empty "
        "thought stands in the prompt and is not learned.",
        "模型可以思考，而数据里的回答没有思考过程。为不影响它的思考方式，空思考放在提示里，不学习。"), "empty-thoughts",
        lambda s: s.facts.model.switches and not s.facts.data.thinking and s["stage"] != "pt"),
    Choice("enable_thinking", lambda s: True, Both(
        "The answers hold thoughts, and they are learned.", "回答带有思考过程，一并学习。"), SEEN,
        lambda s: s.facts.model.switches and s.facts.data.thinking > 0.95),
    Choice("enable_thinking", lambda s: None, Both(
        "{thinking} of the answers hold thoughts. null: those are learned as they are, and the others as answers to "
        "somebody who switched thinking off.",
        "{thinking} 的回答带有思考。null：有思考的照原样学习，没有的按“关闭思考”的问法学习。"), JUDGEMENT,
        lambda s: s.facts.model.switches and s.facts.data.thinking > 0),
    Choice("packing", lambda s: False, Both(
        "Rows lie end to end without padding anyway, so packing would save nothing here; it would only make the number "
        "of rows in a step uneven.",
        "这里各行本来就首尾相接、没有填充，打包省不了什么，只会让每步的行数不均。"), JUDGEMENT,
        lambda s: s["stage"] != "pt"),
    Choice("val_size", lambda s: s.wanted_held_out(), Both(
        "{value} of {all_rows} rows are held out, to see when learning turns into learning by heart. Fewer than 20 "
        "would "
        "say little.",
        "从 {all_rows} 行中留出 {value} 行，用来看何时从学会变成死记。少于 20 行说明不了什么。"), JUDGEMENT,
        lambda s: not s["eval_dataset"] and not s["streaming"] and s.wanted_held_out() > 0),

    # ----------------------------------------------------------------------------------------------------------- method
    Choice("finetuning_type", lambda s: "full", Both(
        "Plain text for knowledge is more than LoRA holds well, and whole-weight training fits here (about "
        "{full_need}, "
        "{free} free).",
        "用纯文本灌输知识超出 LoRA 的长处，而全量训练在本机放得下（约 {full_need}，可用 {free}）"
        "。"), "lora-learns-less",
        lambda s: s.goal == "knowledge" and s["stage"] == "pt" and s.full_fits),
    Choice("finetuning_type", lambda s: "lora", Both(
        "LoRA learns as well as full fine-tuning on data of this size, forgets less, and needs far less memory.",
        "在这个规模的数据上 LoRA 与全量微调效果相当，遗忘更少，显存小得多。"), "lora-without-regret"),
    Choice("lora_rank", lambda s: 4 * _rank(s), Both(
        "Knowledge takes room: four times the rank that {all_rows} rows would get otherwise.",
        "知识需要容量：取 {all_rows} 行通常所用秩的四倍。"), JUDGEMENT,
        lambda s: s["finetuning_type"] == "lora" and s.goal == "knowledge"),
    Choice("lora_rank", lambda s: _rank(s), Both(
        "Room for what {all_rows} rows hold: 16 below 5,000 rows, 32 below 50,000, then 64.",
        "按 {all_rows} 行的信息量：5 千行以下 16，5 万行以下 32，更多 64。"), JUDGEMENT,
        lambda s: s["finetuning_type"] == "lora"),
    Choice("lora_alpha", lambda s: 32, Both(
        "Fixed, so that the rank can change without touching the learning rate: LoRA's output is multiplied by alpha / "
        "rank = {scale}.",
        "固定不变，这样改秩时不必改学习率：LoRA 的输出乘以 alpha / rank = {scale}。"), "tinker-lora",
        lambda s: s["finetuning_type"] == "lora"),
    Choice("lora_target", lambda s: ("all",), Both(
        "Every linear layer: attention alone learns worse even at a higher rank.",
        "所有线性层：只加在注意力上即使提高秩也学得更差。"),
            "lora-without-regret", lambda s: s["finetuning_type"] == "lora"),

    # ---------------------------------------------------------------------------------------------------- batch, epochs
    Choice("per_device_train_batch_size", lambda s: s.room.micro, Both(
        "Of the {wanted} rows of a step so many are computed at once: the most that fits (about {need}, {free} free).",
        "每步 {wanted} 行，这是同时计算的行数：内存放得下的最大值（约 {need}，可用 {free}）。"), MEASURED),
    Choice("gradient_accumulation_steps", lambda s: max(1, round(s.wanted_batch() / s["per_device_train_batch_size"])),
           Both("So that each step learns from {batch} rows. LoRA likes small batches (16 to 32); with few rows they "
                "are "
                "smaller still, since {at_least} steps are needed to learn anything.",
                "这样每步学习 {batch} 行。LoRA 适合小批次（16 到 32）；行数少时更小，因为至少要约 {at_least} "
                "步才学得到东西。"),
           "lora-without-regret", lambda s: s.adapter),
    Choice("gradient_accumulation_steps", lambda s: max(1, round(s.wanted_batch() / s["per_device_train_batch_size"])),
           Both("So that each step learns from {batch} rows. Training whole weights likes large batches (64 to 128); "
                "with "
                "few rows they are smaller, since {at_least} steps are needed to learn anything.",
                "这样每步学习 {batch} 行。全量训练适合大批次（64 到 128）；行数少时要小一些，因为至少要约 {at_least} "
                "步。"),
           "tulu3"),
    Choice("num_train_epochs", lambda s: 1, Both(
        "Pairs and judgements are learned by heart quickly: once is usual.",
        "偏好数据很快就会被背下来，通常只看一遍。"), "zephyr", lambda s: s.judged),
    Choice("num_train_epochs", lambda s: 1, Both(
        "{rows} rows are plenty: {steps_per_epoch} steps an "
        "epoch.", "{rows} 行已经很多：每个 epoch {steps_per_epoch} 步。"),
        JUDGEMENT, lambda s: s.rows > 50_000),
    Choice("num_train_epochs", lambda s: _epochs(s), Both(
        "{rows} rows make {steps_per_epoch} steps an epoch. The usual 2 or 3 epochs would be too few steps to change "
        "the "
        "model, so this many make {steps}; early stopping or a look at the answers tells if it is too much.",
        "{rows} 行每个 epoch 只有 {steps_per_epoch} 步，常用的 2、3 个 epoch 步数太少，模型几乎不会变，因此取这么多，"
        "共 "
        "{steps} 步；是否过多由早停或看回答来判断。"), "sixty-rows", lambda s: _epochs(s) > _usual_epochs(s)),
    Choice("num_train_epochs", lambda s: _epochs(s), Both(
        "{rows} rows seen {value} times make {steps} steps. 1 to 3 are usual; more is learned by heart.",
        "{rows} 行看 {value} 遍，共 {steps} 步。通常 1 到 3 遍，再多就是死记。"), "unsloth-guide"),

    # ---------------------------------------------------------------------------------------------------- learning rate
    Choice("learning_rate", lambda s: 5e-6, Both(
        "Preferences want small steps, with LoRA too.", "偏好训练步子要小，LoRA 也是。"), "zephyr",
        lambda s: s.judged and s.adapter),
    Choice("learning_rate", lambda s: 5e-7, Both(
        "Preferences want small steps.", "偏好训练步子要小。"), "zephyr", lambda s: s.judged),
    Choice("learning_rate", lambda s: s.swept[1] / 2 if s.swept else 0.0, Both(
        "The best measured LoRA rate of {swept} is {swept_rate} (batch 128); half of it is the careful side. It goes "
        "with "
        "alpha / rank.",
        "{swept} 实测最佳 LoRA 学习率为 {swept_rate}（批次 128）；取一半更稳妥。它与 alpha / rank "
        "配套。"), "tinker-lora",
        lambda s: s.adapter and s.swept is not None),
    Choice("learning_rate", lambda s: by_size(s.facts.model.parameters, LORA), Both(
        "By size ({size} weights): 5e-4 up to 6B, 2e-4 up to 20B, 1e-4 above, the careful side of what was measured on "
        "other models. `truetune find-lr` measures it on this one.",
        "按模型大小（{size}）：6B 以下 5e-4，20B 以下 2e-4，更大 1e-4，取其他模型实测值中稳妥的一侧。"
        "可用 `truetune find-lr` 在本模型上实测。"), "tinker-lora", lambda s: s.adapter),
    Choice("learning_rate", lambda s: by_size(s.facts.model.parameters, WHOLE), Both(
        "By size ({size} weights): a tenth of what LoRA wants, from 5e-5 for 1B down to 2e-6 for 70B. `truetune "
        "find-lr` "
        "measures it on this one.",
        "按模型大小（{size}）：约为 LoRA 的十分之一，从 1B 的 5e-5 到 70B 的 2e-6。可用 `truetune find-lr` "
        "在本模型上实测。"),
        "tulu3"),
    Choice("lr_scheduler_type", lambda s: "cosine", Both(
        "Down to 0 along a cosine.", "按余弦降到 0。"), "zephyr", lambda s: s.judged),
    Choice("lr_scheduler_type", lambda s: "linear", Both(
        "Down to 0 in a straight line, so that the last steps settle. Use constant if you mean to go on training "
        "afterwards.",
        "线性降到 0，让最后几步稳定下来。如果之后还要接着训练，用 constant。"), "tulu3"),
    Choice("warmup_ratio", lambda s: 0.1, Both(
        "The first tenth of the steps rise slowly.", "前十分之一的步数慢慢升起。"), "zephyr", lambda s: s.judged),
    Choice("warmup_ratio", lambda s: _warmup(s), Both(
        "3 % of the steps rise slowly, while AdamW has seen little; of a short run at least 5 steps.",
        "前 3 % 的步数慢慢升起，此时 AdamW 见过的还少；短训练至少 5 步。"), "qlora", lambda s: not s["warmup_steps"]),
    Choice("weight_decay", lambda s: 0.0, Both(
        "None: against overfitting fewer epochs and LoRA itself do more.",
        "不用：防过拟合，减少 epoch 和 LoRA 本身更有效。"), "lora-learns-less"),
    Choice("max_grad_norm", lambda s: 1.0, Both(
        "A row that is unlike all others cannot throw the weights far.", "个别异常的行不会把权重带偏太远。"),
        "llama-factory"),

    # -------------------------------------------------------------------------------------------------- numbers, memory
    Choice("bf16", lambda s: s.facts.machine.fastest is torch.bfloat16, Both(
        "The fastest format that is safe on this {device} ({measured}). Master weights stay in float32.",
        "本机（{device}）上最快且安全的格式（{measured}）。主权重保持 float32。"), MEASURED,
        lambda s: s.facts.machine.bfloat16 and not (s["fp16"] or s["pure_bf16"])),
    Choice("bf16", lambda s: False, Both(
        "This {device} has no bfloat16 arithmetic; emulated, it would be slow.",
        "本机（{device}）没有 bfloat16 运算，模拟会很慢。"), MEASURED, lambda s: not (s["fp16"] or s["pure_bf16"])),
    Choice("gradient_checkpointing", lambda s: True, Both(
        "Without it even one row at a time would not fit ({need_plain} of {free} free).",
        "不开启时连一次一行都放不下（{need_plain}，可用 {free}）。"), "checkpointing", lambda s: s.needs_checkpointing),
    Choice("gradient_checkpointing", lambda s: None, Both(
        "Left open: a run measures at its start whether it is needed, and it is slower.",
        "不指定：训练开始时会实测是否需要；开启会变慢。"), MEASURED),

    # ------------------------------------------------------------------------------------------------ what happens when
    Choice("logging_steps", lambda s: _round(s.steps / 100), Both(
        "{steps} steps make about a hundred points of the curve.", "共 {steps} 步，曲线上约一百个点。"), JUDGEMENT),
    Choice("eval_strategy", lambda s: "steps", Both(
        "The held-out rows are looked at on the way, not only at the "
        "end.", "训练途中也评估留出的数据，而不只在结束时。"),
        JUDGEMENT, lambda s: s.can_evaluate),
    Choice("eval_steps", lambda s: max(1, s.steps // 10), Both(
        "About ten times in the {steps} "
        "steps.", "{steps} 步里大约评估十次。"), JUDGEMENT, lambda s: s["eval_strategy"] == "steps"),
    Choice("early_stopping_steps", lambda s: _PATIENCE, Both(
        "Three evaluations in a row without a better loss end the run: from there on it learns by heart.",
        "连续三次评估损失没有变好就停止：再往后就是死记。"), "sixty-rows", lambda s: s["eval_strategy"] != "no"),
    Choice("save_strategy", lambda s: "steps", Both(
        "Checkpoints, so that a run that is stopped goes on.", "保存检查点，中断后可以继续。"), JUDGEMENT),
    Choice("save_steps", lambda s: s["eval_steps"], Both(
        "With every evaluation, so that the best of them is on the disk.", "每次评估时都保存，最好的那次就在磁盘上。"),
        JUDGEMENT, lambda s: s["save_strategy"] == s["eval_strategy"] == "steps" and bool(s["eval_steps"])),
    Choice("save_steps", lambda s: max(1, math.ceil(s.steps / 4)), Both(
        "Four times in the {steps} "
        "steps.", "{steps} 步里保存四次。"), JUDGEMENT, lambda s: s["save_strategy"] == "steps"),
    Choice("save_total_limit", lambda s: _PATIENCE + 1, Both(
        "When early stopping ends the run, the best checkpoint is the oldest of these.",
        "早停结束时，最好的检查点就是其中最早的一个。"), JUDGEMENT, lambda s: bool(s["early_stopping_steps"])),
    Choice(
        "save_total_limit", lambda s: 2, Both("The newest two are enough to go "
                                              "on.", "留最新两个就足以继续。"), JUDGEMENT),
    Choice("seed", lambda s: 42, Both(
        "Any number; the same one gives the same run.", "任意数字；相同的种子得到相同的训练。"), JUDGEMENT),
    Choice("output_dir", lambda s: str(free_folder(Path("saves") / _name(s))), Both(
        "A folder that is not there yet.", "一个还不存在的文件夹。"), SEEN),
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
    Note("no-pairs", "warn", "dataset", lambda s: s.goal == "preference" and not s.judged, Both(
        "these rows hold one answer each, so there is nothing to prefer: the answers themselves are learned. "
        "Preference "
        "needs pairs (chosen, rejected) or judged answers (label).",
        "这些数据每行只有一个回答，无从比较偏好，只能学习回答本身。偏好训练需要成对回答（chosen、rejected）"
        "或好坏标注（label）。")),
    Note("no-thoughts-to-learn", "warn", "dataset", lambda s: s.goal == "reasoning" and s.facts.data.thinking < 0.05,
         Both("hardly a row holds a thought (<think>…</think> or reasoning_content): this teaches answers, not how to "
              "come to them.",
              "几乎没有带思考过程（<think>…</think> 或 reasoning_content）的行：学到的是答案，而不是推理过程。")),
    Note("facts-are-hard", "info", "dataset", lambda s: s.goal == "knowledge", Both(
        "facts are hard to teach this way: they need many rows that say them in different words, and what was taught "
        "half "
        "invites made-up answers. Where facts change or must be exact, looking them up (RAG) is usually better; "
        "fine-tuning is good for how to answer.",
        "用微调灌输事实很难：需要用不同说法反复出现的大量数据，学得半懂反而容易编造。事实会变化或必须准确时，"
        "检索增强（RAG）"
        "通常更好；微调更适合教“怎么回答”。"), "lora-learns-less"),
    Note("no-template", "warn", "template", lambda s: not s.facts.model.own_template and s["stage"] != "pt", Both(
        "this looks like a base model: it has not learned to answer and to stop. If there is an Instruct or Chat "
        "version, "
        "a few hundred rows do far more with that one.",
        "这看起来是基座模型，没有学过对话和停止。如果有 Instruct 或 Chat 版本，几百行数据在那上面效果好得多。")),
    Note("few-rows", "info", "dataset", lambda s: s.facts.data.rows < 50, Both(
        "{all_rows} rows can teach a tone or one fact, and are soon known by heart. A few hundred different ones do "
        "more "
        "than any option here.",
        "{all_rows} 行可以教会一种语气或一件事，但很快会被背下来。再加几百行不同的数据，比调任何参数都管用。")),
    Note("poor-chinese", "warn", "model_name_or_path", lambda s: s.facts.data.tokens_per_han > 1.3, Both(
        "this model's tokenizer needs {tokens_per_han} tokens for a Chinese letter, so it has seen little Chinese: "
        "rows "
        "are long and learning is slow. Models made for Chinese (Qwen, GLM and others) need about 0.6.",
        "该模型的分词器平均每个汉字要 {tokens_per_han} 个 token，说明它见过的中文很少：行会很长，学得也慢。"
        "面向中文的模型（Qwen、GLM 等）约为 0.6。")),
    Note("too-long", "warn", "cutoff_len", lambda s: s.kept < 1 and s["cutoff_len"] >= s.facts.model.limit, Both(
        "{lost} of the rows are longer than the {limit} tokens that this model was made for, and are left out.",
        "有 {lost} 的行超过该模型支持的 {limit} 个 token，会被丢弃。")),
    Note("sampled", "info", "dataset", lambda s: s.facts.data.looked_at < s.facts.data.rows, Both(
        "all {all_rows} rows were counted, and {looked_at} of them, drawn at random, were tokenised.",
        "统计了全部 {all_rows} 行，其中随机抽取 {looked_at} 行做了分词。")),
)


# ------------------------------------------------------------------------------------------------------ how values come


def _cutoff(s: Situation, length: float) -> int:
    """`length` rounded up to 64, at most what the model was made for."""
    return min(max(64, 64 * math.ceil(length / 64)), s.facts.model.limit)


def _keeps_all(s: Situation) -> bool:
    """Whether keeping every row whole asks for hardly more than keeping 99.5 % of them. Thoughts are never cut short of
    need."""
    return s.facts.data.lengths.max() <= s.facts.model.limit and (
        s.goal == "reasoning" or s.facts.data.lengths.max() <= 1.25 * keeping_most(s.facts.data.lengths))


def _rank(s: Situation) -> int:
    return next(rank for most, rank in ((5_000, 16), (50_000, 32), (math.inf, 64)) if s.facts.data.rows < most)


def _usual_epochs(s: Situation) -> int:
    return 3 if s.rows <= 5_000 or s.goal == "knowledge" else 2


def _epochs(s: Situation) -> int:
    return min(max(_usual_epochs(s), math.ceil(ENOUGH_STEPS / s.steps_per_epoch)), MOST_EPOCHS)


def _warmup(s: Situation) -> float:
    return min(0.1, round(max(0.03, 5 / s.steps), 2))


def _round(number: float) -> int:
    """The nearest of 1, 2, 5, 10, 20, 50, … below."""
    power = 10 ** int(math.log10(max(number, 1)))
    return max(step * power for step in (1, 2, 5) if step * power <= max(number, 1))


def _name(s: Situation) -> str:
    """What the run is called: model and data."""
    model = Path(s["model_name_or_path"]).name
    data = Path(s["dataset"][0]).name.split(".")[0]
    return f"{model}-{data}".lower()
