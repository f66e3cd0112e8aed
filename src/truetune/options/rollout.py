"""Options: answers that the model writes on the way: how many and how long, what they are worth, and GRPO."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Numbers, Text


class RolloutOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Rollouts", "在线生成")

    reward_funcs: Annotated[Names, Text(
        "What scores the answers of grpo and ppo; several are added up. Shipped: exact_number (the last number is the "
        "data's), format (matches reward_pattern), think_format (a thought, then an answer), ends_with (reward_word), "
        "length_penalty (too long). Your own: package.module.function or path/to/file.py:function, called as TRL calls "
        "it. Or the folder of a reward model.",
        "给 grpo、ppo 的回答打分的奖励，多个相加。自带：exact_number（最后一个数与数据一致）、format（匹配 "
        "reward_pattern）、think_format（先思考再回答）、ends_with（以 reward_word 结尾）、length_penalty（过长扣分）。"
        "自己的函数：package.module.function 或 path/to/file.py:function，调用方式与 TRL 相同。也可以是奖励模型"
        "的文件夹。",
        level="basic", speed="depends", quality="depends",
        unset=("an error in stage grpo", "stage: grpo 时会报错"),
        advice=(
            Advice("Rules that cannot be cheated: DeepSeek-R1 scored accuracy and format, and no model's opinion.",
                   "用不易被钻空子的规则：DeepSeek-R1 只看答案和格式，不用模型打分。", "deepseek-r1"),
        ))] = ()
    reward_weights: Annotated[Numbers, Text(
        "What each of reward_funcs counts, in their order; the reward model comes last.",
        "reward_funcs 中各奖励的权重，按顺序；奖励模型排最后。",
        quality="depends", unset=("1 each", "各为 1"))] = ()
    reward_pattern: Annotated[str | None, Text(
        "The regular expression that the reward `format` wants the whole answer to match.",
        "奖励 format 要求整个回答匹配的正则表达式。",
        level="expert", quality="depends", unset=("format cannot be used", "不能使用 format"))] = None
    reward_word: Annotated[str | None, Text(
        "The word that the reward `ends_with` wants at the end of the answer.",
        "奖励 ends_with 要求回答以之结尾的词。",
        level="expert", quality="depends", unset=("ends_with cannot be used", "不能使用 ends_with"))] = None
    max_completion_length: Annotated[int | None, Field(gt=0), Text(
        "Longest answer that is written on the way, in tokens.", "训练途中生成的回答最多多少 token。",
        level="basic", memory="up", speed="down", quality="depends",
        unset=("max_new_tokens if that is given, else 256", "设了 max_new_tokens 就用它，否则为 256"),
        higher=("room to think; a round takes as long as its longest answer", "有思考的余地；每轮耗时取决于最长的回答"),
        lower=("faster; answers that are cut seldom earn their reward", "更快；被截断的回答很难得到奖励"),
        advice=(Advice("1,024 for school mathematics.", "中小学数学用 1024。", "grpo"),))] = None
    num_generations: Annotated[int, Field(ge=2), Text(
        "Answers to each prompt, which are compared with each other (G in GRPO).",
        "每个提示生成多少个回答，相互比较（GRPO 中的 G）。",
        level="basic", memory="up", speed="down", quality="up",
        higher=("a steadier baseline, and rare successes are seen; fewer prompts a step",
                "基线更稳，也更容易碰到少见的成功；每步的提示更少"),
        lower=("more prompts; more groups in which all answers earn the same, and teach nothing",
               "提示更多；更多组的回答得分相同，学不到东西"),
        advice=(Advice("64 in DeepSeekMath.", "DeepSeekMath 用 64。", "grpo"),
                Advice("16 in DAPO.", "DAPO 用 16。", "dapo")))] = 8
    steps_per_generation: Annotated[int | None, Field(gt=0), Text(
        "Batches of answers that are written at once, and then learned from; a multiple of "
        "gradient_accumulation_steps.",
        "一次生成多少批回答再学习；须是 gradient_accumulation_steps 的倍数。",
        level="expert", memory="up", speed="up", quality="depends",
        unset=("gradient_accumulation_steps: one optimizer step learns from fresh answers",
               "同 gradient_accumulation_steps：每个优化步都用新写的回答"),
        higher=("several optimizer steps from one round of answers, which get out of date",
                "一轮回答供多个优化步使用，回答会逐渐过时"),
        lower=("always fresh answers", "总是新回答"))] = None
    num_iterations: Annotated[int, Field(gt=0), Text(
        "How often each answer is learned from (mu in GRPO).", "每个回答学几遍（GRPO 中的 mu）。",
        level="expert", speed="down", quality="depends",
        higher=("more is learned from each answer, until the ratio is clipped", "每个回答利用更充分，直到比值被裁剪"),
        lower=("steadier", "更稳定"), advice=(Advice("1.", "1。", "grpo"),))] = 1
    beta: Annotated[float, Field(ge=0), Text(
        "Weight of the distance (KL) to the model that training starts from, in GRPO.",
        "GRPO 中与初始模型的距离（KL）的权重。",
        memory="depends", speed="down", quality="depends",
        higher=("stays closer to the starting model, which is computed too", "更接近初始模型，还要计算初始模型"),
        lower=("0: no reference model, free to move", "0：不用参考模型，自由移动"),
        advice=(Advice("0.04 in DeepSeekMath.", "DeepSeekMath 用 0.04。", "grpo"),
                Advice("0.001 in DeepSeek-R1.", "DeepSeek-R1 用 0.001。", "deepseek-r1"),
                Advice("0 where the reward is a rule: the model has to move far.",
                       "奖励是规则时用 0：模型需要走得远。", "dapo")))] = 0.0
    epsilon: Annotated[float, Field(gt=0, lt=1), Text(
        "How far below 1 the ratio of new to old probability may fall before it teaches no more.",
        "新旧概率之比低于 1 多少之后不再学习。",
        level="expert", quality="depends",
        higher=("larger changes from one round of answers", "一轮回答可带来更大的改变"),
        lower=("smaller and safer changes", "改变更小、更稳"),
        advice=(Advice("0.2.", "0.2。", "ppo"),
                Advice("3e-4 for ratios of whole answers.", "按整个回答算比值时用 3e-4。", "gspo")))] = 0.2
    epsilon_high: Annotated[float | None, Field(gt=0), Text(
        "How far above 1 it may rise (clip-higher).", "该比值高于 1 多少之后不再学习（clip-higher）。",
        level="expert", quality="depends", unset=("epsilon", "同 epsilon"),
        higher=("unlikely words may become likely: more is tried out", "不太可能的词也能变得可能：探索更多"),
        lower=("the model grows sure of itself sooner", "模型更早变得确定"),
        advice=(Advice("0.28 beside an epsilon of 0.2.", "epsilon 为 0.2 时取 0.28。", "dapo"),
                Advice("4e-4 for ratios of whole answers.", "按整个回答算比值时用 4e-4。", "gspo")))] = None
    loss_type: Annotated[Literal["grpo", "dapo", "dr_grpo", "bnpo"], Text(
        "How the losses of tokens are averaged. grpo: within each answer first, so a token of a long answer counts "
        "less. dapo: over all tokens of a round. bnpo: over those of a step. dr_grpo: divided by the longest length "
        "allowed, so that no length is favoured.",
        "各 token 的损失怎样平均。grpo：先在每个回答内平均，长回答的单个 token 分量小。dapo：对一轮的所有 token 平均。"
        "bnpo：对一步的所有 token 平均。dr_grpo：除以允许的最大长度，不偏向任何长度。",
        level="expert", quality="depends",
        advice=(Advice("dapo for long thoughts.", "长思维链用 dapo。", "dapo"),
                Advice("dr_grpo, with scale_rewards: none, keeps wrong answers from growing longer.",
                       "dr_grpo 配合 scale_rewards: none，可避免错误的回答越来越长。", "dr-grpo")))] = "dapo"
    scale_rewards: Annotated[Literal["group", "batch", "none"], Text(
        "What a reward's lead over its group is divided by. group: the spread within the group. batch: that of the "
        "whole round. none: nothing.",
        "奖励相对组内平均的差除以什么。group：组内的标准差。batch：整轮的标准差。none：不除。",
        level="expert", quality="depends",
        advice=(Advice("none: dividing makes very easy and very hard prompts count more.",
                       "none：除以标准差会让太易和太难的提示分量更重。", "dr-grpo"),))] = "group"
    baseline: Annotated[Literal["group", "leave_one_out"], Text(
        "What a reward is compared with. group: the mean of all answers to the prompt (GRPO). leave_one_out: that of "
        "the other answers alone (RLOO).",
        "奖励与什么比较。group：同一提示所有回答的平均（GRPO）。leave_one_out：只取其余回答的平均（RLOO）。",
        level="expert", quality="depends",
        advice=(Advice("leave_one_out with scale_rewards: none is RLOO: no bias, and no clipping was needed.",
                       "leave_one_out 配合 scale_rewards: none 即 RLOO：无偏，也不需要裁剪。", "rloo"),))] = "group"
    importance_sampling_level: Annotated[Literal["token", "sequence"], Text(
        "What the ratio of new to old probability is taken of. token: each token. sequence: a whole answer (GSPO).",
        "新旧概率之比怎样计算。token：每个 token 各一个。sequence：整个回答一个（GSPO）。",
        level="expert", quality="depends",
        advice=(Advice("sequence is steadier, for mixtures of experts most of all; it wants a much smaller epsilon.",
                       "sequence 更稳定，对混合专家模型尤其如此；epsilon 要小得多。", "gspo"),))] = "token"
    mask_truncated_completions: Annotated[bool, Text(
        "Learn nothing from answers that were cut at max_completion_length.",
        "不从被 max_completion_length 截断的回答中学习。",
        level="expert", quality="depends",
        higher=("a thought that was cut is not called wrong", "思考被截断不会被当作错误"),
        lower=("answers learn to end in time", "回答会学着及时结束"),
        advice=(Advice("On: cut answers are noise.", "开启：被截断的回答是噪声。", "dapo"),))] = False
