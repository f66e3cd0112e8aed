"""Options: learning from rewards: what judges answers, how they are written, and PPO."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.quantize import Bits
from truetune.options.schema import Advice, Group, Names, Text


class RewardOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Reward", "奖励")

    reward_model: Annotated[str | None, Text(
        "What judges answers in PPO: a model, a reward adapter, or the address of a server.",
        "PPO 中给回答打分的奖励模型：模型、奖励适配器，或服务地址。",
        memory="up", speed="down", quality="depends",
        unset=("none; PPO cannot run without one", "没有；PPO 必须有奖励模型"))] = None
    reward_model_type: Annotated[Literal["lora", "full", "api"], Text(
        "How the reward model is held. lora: an adapter on the same base model, which costs next to nothing; full: a "
        "model of its own; api: a server that is asked.",
        "奖励模型的形式。lora：同一基座上的适配器，几乎不占显存；full：单独的模型；api：请求一个服务。",
        level="expert", memory="depends", speed="depends")] = "lora"
    reward_model_adapters: Annotated[Names, Text(
        "Adapters to put on a full reward model.",
        "加载到完整奖励模型上的适配器。",
        level="expert", quality="depends", unset=("none", "不加载"))] = ()
    reward_model_quantization_bit: Annotated[Bits | None, Text(
        "Hold the reward model in 4 or 8 bits.",
        "把奖励模型压成 4 或 8 位。",
        level="expert", memory="up", quality="up", unset=("not quantized", "不量化"),
        higher=("judges as it was trained to", "打分更接近训练时"),
        lower=("less memory, coarser scores", "显存更少，打分更粗"))] = None
    ppo_buffer_size: Annotated[int, Field(gt=0), Text(
        "Batches of answers collected before PPO learns from them.",
        "收集多少批回答之后 PPO 再学习。",
        level="expert", memory="up", quality="depends",
        higher=("steadier updates from more answers, which are a little out of date", "更新更平稳，但部分回答略为过时"),
        lower=("learns from fresh answers, with more noise", "总用新回答学习，噪声更大"))] = 1
    ppo_epochs: Annotated[int, Field(gt=0), Text(
        "How often PPO learns from each batch of answers.",
        "PPO 把每批回答学几遍。",
        level="expert", speed="down", quality="depends",
        higher=(
            "more is learned from each answer; the policy runs away from the one that wrote them",
            "每个回答利用更充分；策略偏离生成它的策略更远"),
        lower=("steadier, and more answers have to be written", "更稳定，需要生成更多回答"),
        advice=(Advice("InstructGPT learned once from each batch.", "InstructGPT 每批只学一遍。", "instructgpt"),))] = 4
    ppo_target: Annotated[float, Field(gt=0), Text(
        "Distance (KL) from the starting model that the adaptive penalty aims at.",
        "自适应惩罚所瞄准的、与初始模型的距离（KL）。",
        level="expert", quality="depends",
        higher=(
            "may move further for reward, also by cheating the reward model",
            "可为奖励走得更远，也更容易钻奖励模型的空子"),
        lower=("stays close to the starting model", "更接近初始模型"))] = 6.0
    ppo_score_norm: Annotated[bool, Text(
        "Scale and normalise the rewards by their running mean and spread.",
        "按滑动均值和方差对奖励做缩放与归一。",
        level="expert", quality="depends",
        higher=("steadier with rewards of unknown scale", "奖励尺度未知时更稳定"),
        lower=("rewards as the model gives them", "直接使用原始奖励"),
        advice=(
            Advice("Normalising and clipping the rewards was among what kept PPO stable.",
                   "对奖励做归一和裁剪是 PPO 稳定的要素之一。", "ppo-secrets"),
        ))] = False
    ppo_whiten_rewards: Annotated[bool, Text(
        "Bring the rewards of a batch to mean 0 and spread 1 before advantages are computed.",
        "计算优势之前，把一批奖励调整到均值 0、方差 1。",
        level="expert", quality="depends",
        higher=("the scale of the reward no longer matters", "奖励的尺度不再重要"),
        lower=("large rewards move the model further", "奖励越大，模型变化越大"))] = False
