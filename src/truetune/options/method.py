"""Options: which weights are trained."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Group, Names, Text


class MethodOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Method", "微调方法")

    finetuning_type: Annotated[Literal["lora", "full", "freeze"], Text(
        "lora trains small added matrices; full trains every weight; freeze trains a few layers.",
        "lora 训练外加的小矩阵；full 训练全部权重；freeze 只训练几层。",
        level="basic", also={"use_lora": {"true": "lora", "false": "full"}})] = "lora"
    lora_rank: Annotated[int, Field(gt=0), Text(
        "Size of LoRA's matrices. Higher: more can be learned, more memory, larger adapter.",
        "LoRA 矩阵的秩。调高：能学的更多，显存和适配器也更大。", level="basic", also={"lora_r": None})] = 8
    lora_alpha: Annotated[int | None, Field(gt=0), Text(
        "LoRA's strength: its output is multiplied by alpha / rank. Unset: 2 x lora_rank.",
        "LoRA 的强度：输出乘以 alpha / rank。不填为 2 x lora_rank。")] = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1), Text(
        "Share of LoRA's inputs dropped at random while training. Higher: less overfitting, slower learning.",
        "训练时随机丢弃的 LoRA 输入比例。调高：过拟合更少，学得更慢。")] = 0.0
    lora_target: Annotated[Names, Text(
        "Which modules get LoRA, by the end of their name. all: every linear layer but the head.",
        "哪些模块加 LoRA，按名字结尾匹配。all：除输出头外的所有线性层。", level="basic")] = ("all",)
    additional_target: Annotated[Names, Text(
        "Modules trained and saved whole beside LoRA, such as embed_tokens,lm_head.",
        "除 LoRA 外整体训练并保存的模块，如 embed_tokens,lm_head。", level="expert")] = ()
    freeze_trainable_layers: Annotated[int, Text(
        "freeze: train the last n layers; a negative n trains the first ones.",
        "freeze：训练最后 n 层；负数表示最前面的 n 层。")] = 2
    freeze_trainable_modules: Annotated[Names, Text(
        "freeze: only these modules of those layers, such as mlp,self_attn. all: everything in them.",
        "freeze：只训练这些层里的哪些模块，如 mlp,self_attn。all：全部。")] = ("all",)
    freeze_extra_modules: Annotated[Names, Text(
        "freeze: modules outside the layers that are trained too, such as norm,embed_tokens.",
        "freeze：层外也要训练的模块，如 norm,embed_tokens。", level="expert")] = ()
