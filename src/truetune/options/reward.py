"""Options: learning from rewards: what judges answers, how they are written, and PPO."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.quantize import Bits
from truetune.options.schema import Advice, Group, Names, Text


class RewardOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Reward", "奖励")

    reward_model: Annotated[str | None, Text(
        "What judges answers in PPO: the folder of a reward model or reward adapter (trained with stage rm, with its "
        "value_head.safetensors), or the address of a server, which is sent {'model': name, 'messages': [text, ...]} "
        "as JSON and answers {'scores': [number, ...]}.",
        "PPO 中给回答打分的奖励模型：奖励模型或奖励适配器的文件夹（由 stage: rm 训练，含 value_head.safetensors），"
        "或服务地址：向它发送 JSON {'model': 名称, 'messages': [文本, ...]}，它返回 {'scores': [分数, ...]}。",
        memory="up", speed="down", quality="depends",
        unset=("none; PPO then needs reward_funcs", "没有；此时 PPO 需要 reward_funcs"))] = None
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
        "Hold a reward model of its own in 4 (nf4) or 8 bits, by bitsandbytes. A reward adapter shares the policy's "
        "base, as that is held.",
        "用 bitsandbytes 把独立的奖励模型压成 4 位（nf4）或 8 位。奖励适配器与策略模型共用基座，精度随基座。",
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
    ppo_kl_coef: Annotated[float, Field(ge=0), Text(
        "What a token pays for leaving the reference model: so much for each nat; with ppo_adaptive_kl only at first.",
        "token 偏离参考模型所付的惩罚系数（每 nat）；开启 ppo_adaptive_kl 时只是初始值。",
        quality="depends", also={"init_kl_coef": None},
        higher=("stays closer to the model it began with; little reward is gained",
                "更接近初始模型，奖励提升较少"),
        lower=("moves further for reward, also by cheating the reward model; 0: nothing holds it",
               "为奖励走得更远，也更容易钻奖励模型的空子；0：没有约束"),
        advice=(Advice("InstructGPT used 0.02, fixed.", "InstructGPT 用固定的 0.02。", "instructgpt"),
                Advice("0.2 at first, adaptive, is what LLaMA-Factory and TRL have.",
                       "LLaMA-Factory 和 TRL 初始为 0.2，并自适应调整。", "llama-factory")))] = 0.2
    ppo_adaptive_kl: Annotated[bool, Text(
        "Raise or lower ppo_kl_coef after each round, so that the distance comes to ppo_target.",
        "每轮之后升高或降低 ppo_kl_coef，使距离趋向 ppo_target。",
        level="expert", quality="depends", also={"adap_kl_ctrl": None},
        higher=("the distance is chosen, and the penalty follows", "由目标距离决定，惩罚自动调整"),
        lower=("the penalty stays ppo_kl_coef", "惩罚固定为 ppo_kl_coef"),
        advice=(Advice("Ziegler et al. adapt it, with a target chosen for each task.",
                       "Ziegler 等人采用自适应，按任务选择目标。", "ziegler"),))] = True
    ppo_target: Annotated[float, Field(gt=0), Text(
        "Distance from the reference model (KL of a whole answer, in nats) that ppo_adaptive_kl aims at.",
        "ppo_adaptive_kl 所瞄准的、与参考模型的距离（整段回答的 KL，单位 nat）。",
        level="expert", quality="depends",
        higher=(
            "may move further for reward, also by cheating the reward model",
            "可为奖励走得更远，也更容易钻奖励模型的空子"),
        lower=("stays close to the starting model", "更接近初始模型"))] = 6.0
    ppo_gamma: Annotated[float, Field(ge=0, le=1), Text(
        "What a reward one token later is still worth.",
        "晚一个 token 得到的奖励打几折。",
        level="expert", quality="depends",
        higher=("at 1 every token is credited with the whole score", "为 1 时每个 token 都分享全部得分"),
        lower=("only the last tokens feel the score", "只有最后的 token 感受到得分"))] = 1.0
    ppo_lambda: Annotated[float, Field(ge=0, le=1), Text(
        "How far ahead the advantage of a token looks past the value head's guess (lambda of GAE).",
        "计算 token 的优势时，越过价值头的估计向后看多远（GAE 的 λ）。",
        level="expert", quality="depends",
        higher=("trusts what was really scored: unbiased, noisier", "更依赖真实得分：偏差小，噪声大"),
        lower=("trusts the value head: steadier, wrong where that is wrong", "更依赖价值头：更平稳，但会随其出错"),
        advice=(Advice("The paper learned fastest between 0.92 and 0.98.", "论文中 0.92 到 0.98 之间学得最快。",
                       "gae"),))] = 0.95
    ppo_clip: Annotated[float, Field(gt=0), Text(
        "How far a token's probability may be moved by what is learned from one round: 0.2 is 20 % either way.",
        "一轮学习中 token 的概率最多变化多少：0.2 即上下 20 %。",
        level="expert", quality="depends", also={"cliprange": None},
        higher=("larger updates, less steady", "更新更大，更不稳定"),
        lower=("smaller, steadier updates", "更新更小、更平稳"),
        advice=(Advice("0.2 was best of 0.1, 0.2 and 0.3 in the paper.", "论文中 0.2 优于 0.1 和 0.3。",
                       "ppo"),))] = 0.2
    ppo_clip_value: Annotated[float, Field(gt=0), Text(
        "How far the value head's number may be moved by what is learned from one round.",
        "一轮学习中价值头的输出最多变化多少。",
        level="expert", quality="depends", also={"cliprange_value": None},
        higher=("learns large scores sooner", "更快学会较大的分数"),
        lower=("steadier; with scores much larger than it, the value head follows slowly",
               "更平稳；分数远大于它时，价值头跟得很慢"))] = 0.2
    ppo_value_coef: Annotated[float, Field(ge=0), Text(
        "What the value head's loss counts beside the policy's.",
        "价值头的损失相对策略损失的权重。",
        level="expert", quality="depends", also={"vf_coef": None},
        higher=("the value head learns faster, and takes more of the model they share",
                "价值头学得更快，但更多地占用共享的模型"),
        lower=("the policy has the model to itself; advantages stay noisy",
               "模型更多地留给策略，优势的噪声更大"))] = 0.1
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
        "Scale the rewards of all tokens of a round to spread 1 before advantages are computed; their mean stays.",
        "计算优势之前，把一轮中所有 token 的奖励缩放到方差 1，均值不变。",
        level="expert", quality="depends",
        higher=("the scale of the reward no longer matters", "奖励的尺度不再重要"),
        lower=("large rewards move the model further", "奖励越大，模型变化越大"))] = False
