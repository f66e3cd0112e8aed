"""Rules: losses, preferences, rewards, and answers written on the way."""

from __future__ import annotations

from collections.abc import Mapping

from truetune.findings import Both
from truetune.options.kinds import KINDS
from truetune.options.preference import PAIR_LOSSES
from truetune.rules.ask import KEEP_ONE, WRITES, is_pattern, is_set, reference_free, writes
from truetune.rules.rule import Rule

_AS_IT_IS: Mapping[str, object] = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "do_sample": True}
"""How answers are drawn with the probabilities that the model gives them."""

RULES: tuple[Rule, ...] = (
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
              "小于 1 时还会学习回答本身，而设了 lmbda 时回答是学生自己写的。"), KEEP_ONE, source="gkd"),
    Rule("ppo-reward", "reward_model", lambda c: c.stage == "ppo" and not (c.reward_model or c.reward_funcs), "error",
         Both("PPO needs something that scores answers.", "PPO 需要给回答打分的奖励。"),
         Both("Give reward_model, or reward_funcs.", "请设置 reward_model 或 reward_funcs。")),
    Rule("ppo-trains", "do_train", lambda c: c.stage == "ppo" and not c.do_train, "error",
         Both("PPO only trains.", "PPO 只能训练。"), Both("Set do_train: true.", "请设置 do_train: true。")),
    Rule("reward-lora", "reward_model_type",
         lambda c: c.stage == "ppo" and bool(c.reward_model) and "://" not in str(c.reward_model)
         and c.reward_model_type == "lora" and not KINDS[c.finetuning_type].adapter, "info",
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
    Rule("reference-unused", "ref_model", lambda c: bool(c.ref_model) and c.stage == "dpo" and reference_free(c),
         "warn", Both("no loss in pref_loss compares with a reference model.", "pref_loss 里的损失都不需要参考模型。"),
         Both("Leave it out.", "请去掉。")),
    Rule("preference-option", "stage",
         lambda c: c.stage not in ("dpo", "kto", "ppo") and is_set(
             c, "pref_beta", "pref_loss", "pref_ftx", "simpo_gamma"),
         "info", Both("the pref_ options belong to stages dpo and kto and have no effect with {stage}.",
                      "pref_ 开头的选项属于 dpo 和 kto，stage 为 {stage} 时不起作用。")),
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
    Rule("bad-pattern", "reward_pattern", lambda c: not is_pattern(c.reward_pattern or ""), "error",
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
)
