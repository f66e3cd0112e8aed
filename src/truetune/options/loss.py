"""Options: losses of supervised fine-tuning other than cross-entropy, and learning from a teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from truetune.options.schema import Advice, Group, Text


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
