"""Options: losses of supervised fine-tuning other than cross-entropy, reward modelling, and learning from a teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Text


class LossOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Loss", "损失函数")

    use_dft_loss: Annotated[bool, Text(
        "Multiply each token's loss by the probability that the model gives it (DFT), so that unlikely tokens pull "
        "less.",
        "把每个 token 的 loss 乘以模型给它的概率（DFT），不太可能的 token 影响更小。",
        level="expert", quality="depends",
        higher=("rare and surprising tokens teach less", "罕见、意外的 token 学得更少"),
        lower=("ordinary cross-entropy", "普通交叉熵"),
        advice=(
            Advice("Better than SFT on mathematics in its paper.", "其论文中在数学上优于 SFT。", "dft"),
            Advice("Unstable on other tasks, since nothing holds it to the base model.",
                   "在其他任务上不稳定，因为没有约束它不偏离基座模型。", "asft"),
        ))] = False
    use_asft_loss: Annotated[bool, Text(
        "DFT, with a pull back to the base model (ASFT).",
        "DFT 加上把模型拉回基座模型的约束（ASFT）。",
        level="expert", memory="up", speed="down", quality="depends",
        higher=("steadier than DFT; the base model is computed too", "比 DFT 稳定；还要计算基座模型"),
        lower=("ordinary cross-entropy", "普通交叉熵"),
        advice=(
            Advice("Better than SFT and DFT on mathematics, medicine and code in its paper.",
                   "其论文中在数学、医学和代码上优于 SFT 和 DFT。", "asft"),
        ))] = False
    asft_alpha: Annotated[float, Field(ge=0), Text(
        "Strength of ASFT's pull back to the base model.",
        "ASFT 拉回基座模型的力度。",
        level="expert", quality="depends",
        higher=("stays closer to the base model", "更接近基座模型"),
        lower=("0 is DFT", "0 就是 DFT"))] = 0.1
    use_eaft_loss: Annotated[bool, Text(
        "Multiply each token's loss by how unsure the model is there, by the entropy of its 20 likeliest tokens "
        "(EAFT).",
        "按模型在该处的不确定程度（前 20 个 token 的熵）给 loss 加权（EAFT）。",
        level="expert", quality="depends",
        higher=(
            "where the model is sure and the data disagrees, it is changed less: less is forgotten",
            "模型很确定而数据不同意之处改动更小：遗忘更少"),
        lower=("ordinary cross-entropy", "普通交叉熵"),
        advice=(
            Advice("Learned the task as well as SFT and forgot less of the rest.",
                   "任务学得与 SFT 一样好，其余能力遗忘更少。", "eaft"),
        ))] = False
    eaft_alpha: Annotated[float, Field(ge=0), Text(
        "Exponent on that entropy.",
        "熵的指数。",
        level="expert", quality="depends",
        higher=("only tokens that the model is unsure of teach", "只从模型不确定的 token 学习"),
        lower=("0 is ordinary cross-entropy", "0 就是普通交叉熵"))] = 1.0

    center_rewards_coefficient: Annotated[float, Field(ge=0), Text(
        "Reward modelling: weight of a term that keeps the scores of a pair around 0 (their sum squared).",
        "奖励建模：让一对回答的分数保持在 0 附近的项（分数之和的平方）的权重。",
        level="expert", quality="depends",
        higher=("scores of different prompts can be compared; too much and they shrink",
                "不同提示词的分数可以互相比较；过大则分数被压缩"),
        lower=("only which answer is better counts, and scores may drift", "只看哪个更好，分数可能整体漂移"),
        advice=(Advice("0.01 in its paper.", "其论文用 0.01。", "reward-centring"),))] = 0.0
    reward_margin: Annotated[float, Field(ge=0), Text(
        "Reward modelling: by how much the chosen answer's score has to lead.",
        "奖励建模：选中回答的分数需要领先多少。",
        level="expert", quality="depends",
        higher=("scores are driven further apart; pairs that hardly differ are learned by heart",
                "分数拉得更开；相差无几的成对数据会被死记"),
        lower=("any lead will do, and more of it is better", "领先即可，越多越好"),
        advice=(Advice("It helped most where one answer is clearly better: 1 to 3 for such pairs, and 0 for those that "
                       "hardly differ.", "在优劣分明的数据上帮助最大：这类数据取 1 到 3，相差无几的取 0。", "llama2"),
                ))] = 0.0
    teacher_model: Annotated[str | None, Text(
        "Distillation: the model to learn from, a folder or hub id. It reads the same tokens as the model that is "
        "trained, so both are of one family.",
        "蒸馏：教师模型，文件夹或 hub 上的 id。它与被训练的模型使用相同的 token，因此两者属于同一系列。",
        level="basic", memory="up", speed="down", quality="depends",
        unset=("none; stage distill cannot run without one", "没有；stage: distill 必须有教师模型"))] = None
    teacher_model_adapters: Annotated[Names, Text(
        "Adapters to put on the teacher.", "加载到教师模型上的适配器。",
        level="expert", quality="depends", unset=("none", "不加载"))] = ()
    distill_beta: Annotated[float, Field(ge=0, le=1), Text(
        "Distillation: how student and teacher are compared. 0: KL(teacher || student); 1: KL(student || teacher); in "
        "between: generalised Jensen-Shannon divergence.",
        "蒸馏：学生与教师如何比较。0：KL(教师 || 学生)；1：KL(学生 || 教师)；两者之间：广义 Jensen-Shannon 散度。",
        level="advanced", quality="depends",
        higher=("the student says only what the teacher is sure to say: fewer kinds of answers",
                "学生只说教师很可能会说的：回答种类更少"),
        lower=("the student covers all that the teacher may say, also where it cannot tell good from bad",
               "学生覆盖教师可能说的一切，包括自己分不清好坏之处"),
        advice=(Advice("Which is best depends on the task and on how answers are drawn; in between is a safe start.",
                       "哪个最好取决于任务和取词方式；取中间值是稳妥的起点。", "gkd"),))] = 0.5
    distill_temperature: Annotated[float, Field(gt=0), Text(
        "Distillation: how flat the probabilities of both are made before they are compared.",
        "蒸馏：比较之前把两者的概率分布拉平的程度。",
        level="expert", quality="depends",
        higher=("tokens that the teacher finds unlikely count more; gradients get smaller",
                "教师认为不太可能的 token 更受重视；梯度变小"),
        lower=("only the likeliest tokens count", "只看最可能的 token"),
        advice=(Advice("The higher, the more is seen of what the teacher knows about wrong answers; a small student "
                       "learned better from medium ones.",
                       "温度越高，越能看到教师对错误答案的了解；小模型用中等温度效果更好。", "distillation"),
                ))] = 1.0
    lmbda: Annotated[float, Field(ge=0, le=1), Text(
        "Distillation: share of the steps that learn from answers which the student writes itself, to the prompts of "
        "the data.",
        "蒸馏：有多大比例的步数使用学生自己对数据中的提示所写的回答来学习。",
        speed="down", quality="depends",
        higher=("it learns what to do after its own mistakes; answers have to be written, which takes time",
                "学会在自己犯错之后怎么办；需要生成回答，耗时"),
        lower=("0 learns on the answers of the data alone, which is fastest", "0 只用数据中的回答，最快"),
        advice=(Advice("More was better in most of its experiments, 1 the best.",
                       "其多数实验中越大越好，1 最好。", "gkd"),))] = 0.0
    kd_ratio: Annotated[float, Field(ge=0, le=1), Text(
        "Distillation: share of the teacher in the loss; the rest is ordinary SFT on the data's answers.",
        "蒸馏：教师在损失中所占的比例；其余是对数据中回答的普通 SFT。",
        level="expert", quality="depends",
        higher=("1 learns from the teacher alone", "1 只向教师学习"),
        lower=("the data's own words count more; 0 is SFT", "数据本身的回答更重要；0 就是 SFT"))] = 1.0
