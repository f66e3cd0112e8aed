"""Options: learning from pairs of answers and from judged answers, and what the model is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from truetune.options.quantize import Bits
from truetune.options.schema import Advice, Group, Names, Numbers, Text

PairLossName = Literal[
    "sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo", "robust", "exo", "nca", "bco_pair", "sppo", "aot",
    "apo_zero", "apo_down", "cpo", "discopop", "sft"]


@dataclass(frozen=True)
class PairLossFacts:
    """What is known of a loss on pairs without computing it.

    reference: it compares with a reference model. mean: it reads mean log-probabilities of tokens, not their sums.
    smoothing: it takes dpo_label_smoothing. among: it compares the pairs of a batch with one another. baseline: it
    compares answers with what they are worth on average.
    """

    reference: bool = True
    mean: bool = False
    smoothing: bool = False
    among: bool = False
    baseline: bool = False


PAIR_LOSSES: Mapping[str, PairLossFacts] = {
    "sigmoid": PairLossFacts(smoothing=True),
    "hinge": PairLossFacts(),
    "ipo": PairLossFacts(mean=True),
    "kto_pair": PairLossFacts(among=True),
    "orpo": PairLossFacts(reference=False, mean=True),
    "simpo": PairLossFacts(reference=False, mean=True),
    "robust": PairLossFacts(smoothing=True),
    "exo": PairLossFacts(smoothing=True),
    "nca": PairLossFacts(),
    "bco_pair": PairLossFacts(baseline=True),
    "sppo": PairLossFacts(),
    "aot": PairLossFacts(smoothing=True, among=True),
    "apo_zero": PairLossFacts(),
    "apo_down": PairLossFacts(),
    "cpo": PairLossFacts(reference=False, smoothing=True),
    "discopop": PairLossFacts(),
    "sft": PairLossFacts(reference=False, mean=True),
}
"""The losses of stage dpo; `objectives.pairs` computes them."""
_OTHER_NAMES = {"exo_pair": "exo", "nca_pair": "nca", "sppo_hard": "sppo"}
"""What TRL calls them."""


def _read_losses(value: object) -> object:
    """Names in a comma string or a list, those of TRL as ours."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return value
    return tuple(_OTHER_NAMES.get(part, part) if isinstance(part, str) else part for part in parts if part)


class PreferenceOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Preference", "偏好")

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
        ))] = 0.1
    pref_loss: Annotated[tuple[PairLossName, ...], BeforeValidator(_read_losses), Field(min_length=1), Text(
        "What is learned from a pair; several are added up. sigmoid is DPO. Less trust in the labels: ipo aims at a "
        "fixed lead, robust reckons with flipped pairs, exo with uncertain ones, aot compares the pairs of a batch "
        "sorted; hinge stops at a margin (SLiC). Each answer by itself, so that chosen ones stay likely: kto_pair, "
        "nca, bco_pair, sppo, apo_zero (chosen answers are better than the model's), apo_down (they are worse). "
        "Without a reference model: orpo and cpo add the preference to SFT, simpo compares mean log-probabilities "
        "with a margin, sft learns the chosen answers alone. discopop was found by a search.",
        "从成对回答中学什么；写几个就相加。sigmoid 即 DPO。标注不太可信时：ipo 以固定的领先为目标，robust 假定有标反"
        "的对，exo 假定标注不确定，aot 把一个批次的各对排序后比较；hinge 达到间隔即止（SLiC）。单独评判每个回答、"
        "使选中回答保持高概率：kto_pair、nca、bco_pair、sppo、apo_zero（选中回答比模型自己的好）、apo_down"
        "（比模型自己的差）。不需要参考模型：orpo 和 cpo 把偏好加进 SFT，simpo 用平均对数概率加间隔比较，"
        "sft 只学选中回答。discopop 由自动搜索得到。",
        level="basic", memory="depends", speed="depends", quality="depends",
        advice=(
            Advice("ipo where preferences are nearly certain: there DPO overfits.",
                   "偏好几乎确定时用 ipo：这时 DPO 会过拟合。", "ipo"),
            Advice("orpo goes from a base model to an aligned one in a single run.",
                   "orpo 一次训练就能从基座模型得到对齐的模型。", "orpo"),
            Advice("simpo did better than DPO in its paper, with rates of 3e-7 to 1e-6.",
                   "simpo 在其论文中优于 DPO，学习率为 3e-7 到 1e-6。", "simpo"),
            Advice("apo_zero where chosen answers are better than the model's own, apo_down where they are worse.",
                   "选中回答比模型自己的好用 apo_zero，比它差用 apo_down。", "apo"),
            Advice("sigmoid,bco_pair,sft with pref_loss_weights 0.8,0.2,1 is MPO.",
                   "sigmoid,bco_pair,sft 配 pref_loss_weights 0.8,0.2,1 就是 MPO。", "mpo"),
        ))] = ("sigmoid",)
    pref_loss_weights: Annotated[Numbers, Text(
        "How much each loss in pref_loss counts.",
        "pref_loss 中每个损失的权重。",
        level="expert", quality="depends", unset=("1 each", "各为 1"),
        higher=("that loss leads", "该损失占主导"),
        lower=("that loss matters less; 0 leaves it out", "该损失影响更小；0 就是不用"),
        advice=(Advice("MPO: 0.8 for sigmoid, 0.2 for bco_pair, 1 for sft.",
                       "MPO：sigmoid 0.8，bco_pair 0.2，sft 1。", "mpo"),))] = ()
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
        advice=(Advice("1 helped markedly with reasoning.", "取 1 对推理任务帮助明显。", "iterative-rpo"),))] = 0.0
    pref_bco_weight: Annotated[float, Field(ge=0), Text(
        "Weight w of BCO's loss, which also judges each answer by itself: (loss + w x BCO) / (1 + w).",
        "BCO 损失的权重 w，它还会单独评判每个回答：(loss + w x BCO) / (1 + w)。",
        level="expert", quality="depends",
        higher=("whether an answer is good counts, not only which is better", "不仅看哪个更好，也看每个本身好不好"),
        lower=("pairs only", "只看成对比较"),
        advice=(
            Advice("0 is plain preference training; BCO by itself did as well as DPO on pairs.",
                   "0 就是普通的偏好训练；单用 BCO 在成对数据上与 DPO 相当。", "bco"),
        ))] = 0.0
    dpo_label_smoothing: Annotated[float, Field(ge=0, le=0.5), Text(
        "Share of pairs taken to be labelled the wrong way round (sigmoid, where it is conservative DPO, robust, exo, "
        "aot and cpo).",
        "假定有多大比例的成对标注是反的（用于 sigmoid 即保守 DPO、robust、exo、aot 和 cpo）。",
        level="expert", quality="depends",
        higher=(
            "wrong labels do less harm; the preference is learned less sharply",
            "错误标注危害更小；偏好学得不那么鲜明"),
        lower=("every label is believed", "完全相信标注"),
        advice=(
            Advice("Set it to the share of labels that you believe to be flipped.", "设为你估计的标反比例。", "cdpo"),
            Advice("exo needs a little of it: 0.001.", "exo 需要一点：0.001。", "exo"),
        ))] = 0.0
    simpo_gamma: Annotated[float, Field(ge=0), Text(
        "Margin by which the chosen answer has to lead (SimPO).",
        "选中回答需要领先的间隔（SimPO）。",
        level="expert", quality="depends",
        higher=(
            "a clearer lead is asked for; too much makes answers less fluent",
            "要求领先更多；过大则回答变得不通顺"),
        lower=("any lead will do", "领先一点就够"),
        advice=(Advice("Start at half of pref_beta.", "从 pref_beta 的一半开始。", "simpo"),))] = 0.5
    discopop_tau: Annotated[float, Field(gt=0), Text(
        "How suddenly discopop goes over from the logistic loss (pairs it gets wrong) to the exponential one.",
        "discopop 从 logistic 损失（判错的对）过渡到指数损失的急缓。",
        level="expert", quality="depends",
        higher=("both are blended around a lead of 0", "在领先约为 0 处两者混合"),
        lower=("a sudden change at a lead of 0", "在领先为 0 处突变"),
        advice=(Advice("0.05, as it was found.", "取搜索得到的 0.05。", "discopop"),))] = 0.05
    kto_chosen_weight: Annotated[float, Field(ge=0), Text(
        "Weight of the answers marked good (KTO).",
        "标为好的回答的权重（KTO）。",
        quality="depends",
        higher=("good answers are learned more firmly", "好的回答学得更牢"),
        lower=("bad answers weigh more", "差的回答相对更重要"),
        advice=(
            Advice("Weight x number of the good ones should be 1 to 4/3 times that of the bad ones.",
                   "好回答的权重乘条数，应为差回答的 1 到 4/3 倍。", "trl-kto"),
        ))] = 1.0
    kto_rejected_weight: Annotated[float, Field(ge=0), Text(
        "Weight of the answers marked bad (KTO).",
        "标为差的回答的权重（KTO）。",
        quality="depends",
        higher=("bad answers are avoided more firmly", "更坚决地避免差的回答"),
        lower=("good answers weigh more", "好的回答相对更重要"),
        advice=(
            Advice("With more bad answers than good ones lower this, or raise kto_chosen_weight.",
                   "差的比好的多时，调低它或调高 kto_chosen_weight。", "trl-kto"),
        ))] = 1.0
    ld_alpha: Annotated[float | None, Field(ge=0, le=1), Text(
        "How much the tokens count by which the longer answer is longer than the other (LD-DPO); of the model that "
        "is trained, not of the reference.",
        "较长的回答比另一个多出来的 token 计多少权重（LD-DPO）；只用于被训练的模型，不用于参考模型。",
        level="expert", quality="depends", unset=("1, as in plain DPO", "1，即普通 DPO"),
        higher=("nearer to DPO, which likes long answers", "更接近 DPO，偏爱长回答"),
        lower=("length wins less; answers become shorter", "长度的优势更小，回答变短"),
        advice=(
            Advice("Answers became 10 to 40 % shorter in the paper.", "论文中回答缩短了 10% 到 40%。", "ld-dpo"),
        ))] = None
    precompute_ref_log_probs: Annotated[bool | None, Text(
        "Let the reference model read every row once before training and keep what it says on disk, instead of "
        "computing it with every batch.",
        "训练前让参考模型把所有数据读一遍并把结果存到磁盘，而不是每个批次都重新计算。",
        level="expert", memory="down", speed="depends",
        unset=("on where the reference would be a second model in memory (full, freeze, an adapter trained further)",
               "参考模型需要另占内存时开启（full、freeze、继续训练的适配器）"),
        higher=("no second model in memory; faster from the second epoch on", 
                "内存里没有第二个模型；从第二个 epoch 起更快"),
        lower=("nothing is kept on disk", "不占磁盘"), free_on_resume=True)] = None
    ref_model: Annotated[str | None, Text(
        "The model to stay close to: a folder or hub id.",
        "参考模型：文件夹或 hub 上的 id。",
        memory="up", speed="down", quality="depends",
        unset=(
            "lora: the base model with the adapter switched off; full and freeze: a second copy of the base model",
            "lora：关掉适配器的基座模型；full 和 freeze：基座模型的第二份副本"))] = None
    ref_model_adapters: Annotated[Names, Text(
        "Adapters to put on the reference model.",
        "加载到参考模型上的适配器。",
        level="expert", quality="depends", unset=("none", "不加载"))] = ()
    ref_model_quantization_bit: Annotated[Bits | None, Text(
        "Hold the reference model that ref_model names in 4 (nf4) or 8 bits, by bitsandbytes.",
        "用 bitsandbytes 把 ref_model 指定的参考模型压成 4 位（nf4）或 8 位。",
        level="expert", memory="up", quality="up", unset=("not quantized", "不量化"),
        higher=("closer to the reference model as it is", "更接近原来的参考模型"),
        lower=("less memory, a coarser reference", "显存更少，参考更粗"))] = None
