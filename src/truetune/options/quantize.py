"""Options: weights held in fewer bits while training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from truetune.options.schema import Advice, Group, Text


def _read_number(value: object) -> object:
    """`4` as it is typed is text, and a `Literal` of numbers takes numbers only."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


AnyBits = Annotated[Literal[1, 2, 3, 4, 5, 6, 8], BeforeValidator(_read_number)]
"""A number of bits that some quantizer knows."""
Bits = Annotated[Literal[4, 8], BeforeValidator(_read_number)]
"""A number of bits that bitsandbytes knows."""

_LATER = ("the weights stay in 16 or 32 bits and take that memory", "权重仍为 16 或 32 位，显存也按此占用")
_SETTING = (
    "a setting of quantization_bit, which is not done yet",
    "它是 quantization_bit 的附属设置，而量化训练暂不支持")


class QuantizeOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Quantization", "量化")

    quantization_bit: Annotated[AnyBits | None, Text(
        "Hold the base model's weights in so many bits while LoRA trains beside them (QLoRA). bnb takes 4 or 8, hqq 1 "
        "to 6 and 8, eetq 8.",
        "训练 LoRA 时把基座模型的权重压成多少位（QLoRA）。bnb 可取 4 或 8，hqq 可取 1 到 6 和 8，eetq 只有 8。",
        level="basic", memory="up", speed="depends", quality="up",
        unset=("the weights stay as they are, in 16 or 32 bits", "不量化，权重保持 16 或 32 位"),
        higher=("closer to the unquantized model, and more memory", "更接近未量化的模型，显存也更多"),
        lower=("less memory; below 4 bits the answers get plainly worse", "显存更少；低于 4 位时效果明显变差"),
        advice=(
            Advice("4 bits (nf4) with LoRA on all linear layers came out even with 16-bit fine-tuning. It costs "
                   "speed, so use it where memory forces it.",
                   "4 位（nf4）加上所有线性层的 LoRA，效果与 16 位微调相当。代价是速度，显存不够时再用。", "qlora"),
            Advice("8 bits lose nothing that can be measured when the few outlying columns stay in 16.",
                   "只要少数离群列保持 16 位，8 位几乎没有损失。", "llm-int8"),
        ),
        not_offered=_LATER, free_on_resume=True)] = None
    quantization_method: Annotated[Literal["bnb", "gptq", "awq", "aqlm", "quanto", "eetq", "hqq", "mxfp4", "fp8"], Text(
        "Who quantizes. bnb, hqq and eetq do it while the model is loaded; gptq, awq, aqlm, quanto, mxfp4 and fp8 are "
        "formats in which a model was already saved.",
        "用什么方法量化。bnb、hqq、eetq 在加载时量化；gptq、awq、aqlm、quanto、mxfp4、fp8 是模型保存时已有的量化格式。",
        level="expert", memory="depends", speed="depends", quality="depends",
        no_effect=_SETTING, free_on_resume=True)] = "bnb"
    quantization_type: Annotated[Literal["fp4", "nf4"], Text(
        "The 16 values that bnb's 4 bits can take: nf4 spaces them for weights that are normally distributed, fp4 is "
        "a plain 4-bit float.",
        "bnb 的 4 位能表示的 16 个值：nf4 按正态分布的权重来安排，fp4 是普通的 4 位浮点数。",
        level="expert", quality="depends",
        advice=(Advice("nf4 did better than fp4 at the same size.", "同样大小下 nf4 优于 fp4。", "qlora"),),
        no_effect=_SETTING, free_on_resume=True)] = "nf4"
    double_quantization: Annotated[bool, Text(
        "Quantize the quantization's own constants too (bnb, 4 bits).",
        "对量化常数本身再做一次量化（bnb，4 位）。",
        level="expert", memory="down",
        higher=("less memory: about 0.4 bits a weight", "显存更少：每个权重约省 0.4 位"),
        lower=("a little more memory", "显存略多"),
        advice=(
            Advice("It saves 0.37 bits a weight, which is 3 GB of a 65B model, and loses nothing.",
                   "每个权重省 0.37 位，65B 模型约省 3 GB，效果不受影响。", "qlora"),
        ),
        no_effect=_SETTING, free_on_resume=True)] = True
    quantization_device_map: Annotated[Literal["auto"] | None, Text(
        "auto spreads a 4-bit model over all GPUs, for chat only.",
        "auto 把 4 位模型分布到所有 GPU，只用于对话。",
        level="expert", memory="down", speed="down",
        unset=("one device holds the model", "模型放在一个设备上"),
        no_effect=_SETTING, free_on_resume=True)] = None
