"""Options: learning from pairs, judgements and rewards, and losses other than cross-entropy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.quantize import Bits
from truetune.options.schema import Advice, Group, Names, Text

_PAIRS = ("no stage learns from preferences yet", "还没有学习偏好的训练阶段")
_PPO = ("no stage learns from rewards yet", "还没有按奖励学习的训练阶段")
_LOSS = ("the loss stays plain cross-entropy", "损失仍是普通交叉熵")


class PreferenceOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Preference and reward", "偏好与奖励")

    pref_beta: Annotated[float, Field(gt=0), Text(
        "How tightly DPO and KTO hold the model to the reference model; in ORPO the weight of the preference, in "
        "SimPO the scale of the reward.",
        "DPO、KTO 把模型约束在参考模型附近的力度；在 ORPO 中是偏好项的权重，在 SimPO 中是奖励的缩放。",
        level="basic", quality="depends",
        higher=(
            "stays closer to the reference model and takes up less of the preference",
            "更接近参考模型，学到的偏好更少"),
        lower=("follows the preference further, and drifts further", "更贴合偏好，也偏离得更远"),
        advice=(
            Advice("0.1 in most experiments of the DPO paper, 0.5 for summaries.",
                   "DPO 论文的多数实验用 0.1，摘要任务用 0.5。", "dpo"),
            Advice("0.01 in Zephyr's recipe, a much looser hold.", "Zephyr 的配方用 0.01，约束弱得多。", "zephyr"),
            Advice("SimPO wants far more: 2 to 10.", "SimPO 要大得多：2 到 10。", "simpo"),
        ),
        not_offered=_PAIRS, free_on_resume=True)] = 0.1
    pref_loss: Annotated[Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"], Text(
        "What is learned from a pair. sigmoid is DPO; hinge stops at a margin (SLiC); ipo aims at a fixed lead; "
        "kto_pair is KTO on pairs. orpo and simpo need no reference model: orpo adds the preference to SFT, simpo "
        "compares mean log-probabilities with a margin.",
        "从成对回答中学什么。sigmoid 即 DPO；hinge 达到间隔即止（SLiC）；ipo 以固定的领先为目标；kto_pair 是成对的 "
        "KTO。orpo 和 simpo 不需要参考模型：orpo 把偏好加进 SFT，simpo 用平均对数概率加间隔比较。",
        level="basic", memory="depends", speed="depends", quality="depends",
        advice=(
            Advice("ipo where preferences are nearly certain: there DPO overfits.",
                   "偏好几乎确定时用 ipo：这时 DPO 会过拟合。", "ipo"),
            Advice("orpo goes from a base model to an aligned one in a single run.",
                   "orpo 一次训练就能从基座模型得到对齐的模型。", "orpo"),
            Advice("simpo did better than DPO in its paper, with rates of 3e-7 to 1e-6.",
                   "simpo 在其论文中优于 DPO，学习率为 3e-7 到 1e-6。", "simpo"),
        ),
        not_offered=_PAIRS, free_on_resume=True)] = "sigmoid"
    pref_ftx: Annotated[float, Field(ge=0), Text(
        "Weight of the ordinary SFT loss on the chosen answers, added to the preference loss.",
        "在偏好损失之外，对选中回答加上普通 SFT 损失的权重。",
        quality="depends",
        higher=(
            "chosen answers stay likely; less is learned about the difference",
            "选中回答保持高概率；对差别学得更少"),
        lower=(
            "only the difference counts, and both answers may become less likely",
            "只看差别，两个回答的概率都可能下降"),
        advice=(Advice("1 helped markedly with reasoning.", "取 1 对推理任务帮助明显。", "iterative-rpo"),),
        not_offered=_PAIRS, free_on_resume=True)] = 0.0
    pref_bco_weight: Annotated[float, Field(ge=0), Text(
        "Weight w of BCO's loss, which also judges each answer by itself: (loss + w x BCO) / (1 + w).",
        "BCO 损失的权重 w，它还会单独评判每个回答：(loss + w x BCO) / (1 + w)。",
        level="expert", quality="depends",
        higher=("whether an answer is good counts, not only which is better", "不仅看哪个更好，也看每个本身好不好"),
        lower=("pairs only", "只看成对比较"),
        advice=(
            Advice("0 is plain preference training; BCO by itself did as well as DPO on pairs.",
                   "0 就是普通的偏好训练；单用 BCO 在成对数据上与 DPO 相当。", "bco"),
        ),
        not_offered=_PAIRS, free_on_resume=True)] = 0.0
    dpo_label_smoothing: Annotated[float, Field(ge=0, le=0.5), Text(
        "Share of pairs taken to be labelled the wrong way round (conservative DPO; sigmoid only).",
        "假定有多大比例的成对标注是反的（保守 DPO；仅 sigmoid）。",
        level="expert", quality="depends",
        higher=(
            "wrong labels do less harm; the preference is learned less sharply",
            "错误标注危害更小；偏好学得不那么鲜明"),
        lower=("every label is believed", "完全相信标注"),
        advice=(
            Advice("Set it to the share of labels that you believe to be flipped.", "设为你估计的标反比例。", "cdpo"),
        ),
        not_offered=_PAIRS, free_on_resume=True)] = 0.0
    simpo_gamma: Annotated[float, Field(ge=0), Text(
        "Margin by which the chosen answer has to lead (SimPO).",
        "选中回答需要领先的间隔（SimPO）。",
        level="expert", quality="depends",
        higher=(
            "a clearer lead is asked for; too much makes answers less fluent",
            "要求领先更多；过大则回答变得不通顺"),
        lower=("any lead will do", "领先一点就够"),
        advice=(Advice("Start at half of pref_beta.", "从 pref_beta 的一半开始。", "simpo"),),
        not_offered=_PAIRS, free_on_resume=True)] = 0.5
    kto_chosen_weight: Annotated[float, Field(ge=0), Text(
        "Weight of the answers marked good (KTO).",
        "标为好的回答的权重（KTO）。",
        quality="depends",
        higher=("good answers are learned more firmly", "好的回答学得更牢"),
        lower=("bad answers weigh more", "差的回答相对更重要"),
        advice=(
            Advice("Weight x number of the good ones should be 1 to 4/3 times that of the bad ones.",
                   "好回答的权重乘条数，应为差回答的 1 到 4/3 倍。", "trl-kto"),
        ),
        not_offered=_PAIRS, free_on_resume=True)] = 1.0
    kto_rejected_weight: Annotated[float, Field(ge=0), Text(
        "Weight of the answers marked bad (KTO).",
        "标为差的回答的权重（KTO）。",
        quality="depends",
        higher=("bad answers are avoided more firmly", "更坚决地避免差的回答"),
        lower=("good answers weigh more", "好的回答相对更重要"),
        advice=(
            Advice("With more bad answers than good ones lower this, or raise kto_chosen_weight.",
                   "差的比好的多时，调低它或调高 kto_chosen_weight。", "trl-kto"),
        ),
        not_offered=_PAIRS, free_on_resume=True)] = 1.0
    ld_alpha: Annotated[float | None, Field(ge=0, le=1), Text(
        "How much the tokens count by which the longer answer is longer than the other (LD-DPO).",
        "较长的回答比另一个多出来的 token 计多少权重（LD-DPO）。",
        level="expert", quality="depends", unset=("1, as in plain DPO", "1，即普通 DPO"),
        higher=("nearer to DPO, which likes long answers", "更接近 DPO，偏爱长回答"),
        lower=("length wins less; answers become shorter", "长度的优势更小，回答变短"),
        advice=(Advice("Answers became 10 to 40 % shorter in the paper.", "论文中回答缩短了 10% 到 40%。", "ld-dpo"),),
        not_offered=_PAIRS, free_on_resume=True)] = None
    ref_model: Annotated[str | None, Text(
        "The model to stay close to: a folder or hub id.",
        "参考模型：文件夹或 hub 上的 id。",
        memory="up", speed="down", quality="depends",
        unset=(
            "lora: the base model with the adapter switched off; full and freeze: a second copy of the base model",
            "lora：关掉适配器的基座模型；full 和 freeze：基座模型的第二份副本"),
        not_offered=_PAIRS, free_on_resume=True)] = None
    ref_model_adapters: Annotated[Names, Text(
        "Adapters to put on the reference model.",
        "加载到参考模型上的适配器。",
        level="expert", quality="depends", unset=("none", "不加载"),
        not_offered=_PAIRS, free_on_resume=True)] = ()
    ref_model_quantization_bit: Annotated[Bits | None, Text(
        "Hold the reference model in 4 or 8 bits.",
        "把参考模型压成 4 或 8 位。",
        level="expert", memory="up", quality="up", unset=("not quantized", "不量化"),
        higher=("closer to the reference model as it is", "更接近原来的参考模型"),
        lower=("less memory, a coarser reference", "显存更少，参考更粗"),
        not_offered=_PAIRS, free_on_resume=True)] = None
    reward_model: Annotated[str | None, Text(
        "What judges answers in PPO: a model, a reward adapter, or the address of a server.",
        "PPO 中给回答打分的奖励模型：模型、奖励适配器，或服务地址。",
        memory="up", speed="down", quality="depends",
        unset=("none; PPO cannot run without one", "没有；PPO 必须有奖励模型"),
        not_offered=_PPO, free_on_resume=True)] = None
    reward_model_type: Annotated[Literal["lora", "full", "api"], Text(
        "How the reward model is held. lora: an adapter on the same base model, which costs next to nothing; full: a "
        "model of its own; api: a server that is asked.",
        "奖励模型的形式。lora：同一基座上的适配器，几乎不占显存；full：单独的模型；api：请求一个服务。",
        level="expert", memory="depends", speed="depends", not_offered=_PPO, free_on_resume=True)] = "lora"
    reward_model_adapters: Annotated[Names, Text(
        "Adapters to put on a full reward model.",
        "加载到完整奖励模型上的适配器。",
        level="expert", quality="depends", unset=("none", "不加载"), not_offered=_PPO, free_on_resume=True)] = ()
    reward_model_quantization_bit: Annotated[Bits | None, Text(
        "Hold the reward model in 4 or 8 bits.",
        "把奖励模型压成 4 或 8 位。",
        level="expert", memory="up", quality="up", unset=("not quantized", "不量化"),
        higher=("judges as it was trained to", "打分更接近训练时"),
        lower=("less memory, coarser scores", "显存更少，打分更粗"),
        not_offered=_PPO, free_on_resume=True)] = None
    ppo_buffer_size: Annotated[int, Field(gt=0), Text(
        "Batches of answers collected before PPO learns from them.",
        "收集多少批回答之后 PPO 再学习。",
        level="expert", memory="up", quality="depends",
        higher=("steadier updates from more answers, which are a little out of date", "更新更平稳，但部分回答略为过时"),
        lower=("learns from fresh answers, with more noise", "总用新回答学习，噪声更大"),
        not_offered=_PPO, free_on_resume=True)] = 1
    ppo_epochs: Annotated[int, Field(gt=0), Text(
        "How often PPO learns from each batch of answers.",
        "PPO 把每批回答学几遍。",
        level="expert", speed="down", quality="depends",
        higher=(
            "more is learned from each answer; the policy runs away from the one that wrote them",
            "每个回答利用更充分；策略偏离生成它的策略更远"),
        lower=("steadier, and more answers have to be written", "更稳定，需要生成更多回答"),
        advice=(Advice("InstructGPT learned once from each batch.", "InstructGPT 每批只学一遍。", "instructgpt"),),
        not_offered=_PPO, free_on_resume=True)] = 4
    ppo_target: Annotated[float, Field(gt=0), Text(
        "Distance (KL) from the starting model that the adaptive penalty aims at.",
        "自适应惩罚所瞄准的、与初始模型的距离（KL）。",
        level="expert", quality="depends",
        higher=(
            "may move further for reward, also by cheating the reward model",
            "可为奖励走得更远，也更容易钻奖励模型的空子"),
        lower=("stays close to the starting model", "更接近初始模型"),
        not_offered=_PPO, free_on_resume=True)] = 6.0
    ppo_score_norm: Annotated[bool, Text(
        "Scale and normalise the rewards by their running mean and spread.",
        "按滑动均值和方差对奖励做缩放与归一。",
        level="expert", quality="depends",
        higher=("steadier with rewards of unknown scale", "奖励尺度未知时更稳定"),
        lower=("rewards as the model gives them", "直接使用原始奖励"),
        advice=(
            Advice("Normalising and clipping the rewards was among what kept PPO stable.",
                   "对奖励做归一和裁剪是 PPO 稳定的要素之一。", "ppo-secrets"),
        ),
        not_offered=_PPO, free_on_resume=True)] = False
    ppo_whiten_rewards: Annotated[bool, Text(
        "Bring the rewards of a batch to mean 0 and spread 1 before advantages are computed.",
        "计算优势之前，把一批奖励调整到均值 0、方差 1。",
        level="expert", quality="depends",
        higher=("the scale of the reward no longer matters", "奖励的尺度不再重要"),
        lower=("large rewards move the model further", "奖励越大，模型变化越大"),
        not_offered=_PPO, free_on_resume=True)] = False
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
        ),
        not_offered=_LOSS, free_on_resume=True)] = False
    use_asft_loss: Annotated[bool, Text(
        "DFT, with a pull back to the base model (ASFT).",
        "DFT 加上把模型拉回基座模型的约束（ASFT）。",
        level="expert", memory="up", speed="down", quality="depends",
        higher=("steadier than DFT; the base model is computed too", "比 DFT 稳定；还要计算基座模型"),
        lower=("ordinary cross-entropy", "普通交叉熵"),
        advice=(
            Advice("Better than SFT and DFT on mathematics, medicine and code in its paper.",
                   "其论文中在数学、医学和代码上优于 SFT 和 DFT。", "asft"),
        ),
        not_offered=_LOSS, free_on_resume=True)] = False
    asft_alpha: Annotated[float, Field(ge=0), Text(
        "Strength of ASFT's pull back to the base model.",
        "ASFT 拉回基座模型的力度。",
        level="expert", quality="depends",
        higher=("stays closer to the base model", "更接近基座模型"),
        lower=("0 is DFT", "0 就是 DFT"),
        no_effect=(
            "a setting of use_asft_loss, which is not done yet",
            "它是 use_asft_loss 的附属设置，而后者暂不支持"),
        free_on_resume=True)] = 0.1
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
        ),
        not_offered=_LOSS, free_on_resume=True)] = False
    eaft_alpha: Annotated[float, Field(ge=0), Text(
        "Exponent on that entropy.",
        "熵的指数。",
        level="expert", quality="depends",
        higher=("only tokens that the model is unsure of teach", "只从模型不确定的 token 学习"),
        lower=("0 is ordinary cross-entropy", "0 就是普通交叉熵"),
        no_effect=(
            "a setting of use_eaft_loss, which is not done yet",
            "它是 use_eaft_loss 的附属设置，而后者暂不支持"),
        free_on_resume=True)] = 1.0
