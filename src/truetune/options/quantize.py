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

class QuantizeOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Quantization", "量化")

    quantization_bit: Annotated[AnyBits | None, Text(
        "Hold the base model's linear layers in so many bits while an adapter trains beside them (QLoRA); embeddings, "
        "norms and output head stay as they are. bnb takes 4 or 8, hqq 1 to 6 and 8, torchao 8 (4 on NVIDIA GPUs).",
        "训练适配器时把基座模型的线性层压成多少位（QLoRA）；词嵌入、归一化层和输出头保持不变。bnb 可取 4 或 8，"
        "hqq 可取 1 到 6 和 8，torchao 取 8（NVIDIA GPU 上也可取 4）。",
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
        ))] = None
    quantization_method: Annotated[
        Literal["bnb", "gptq", "awq", "aqlm", "quanto", "eetq", "hqq", "torchao", "mxfp4", "fp8"], Text(
            "Who quantizes, while the model is loaded: bnb (bitsandbytes), hqq or torchao. gptq, awq, fp8 and mxfp4 "
            "are formats in which a model was already saved; those are read without any option. aqlm, eetq and quanto "
            "are not offered.",
            "加载模型时用什么量化：bnb（bitsandbytes）、hqq 或 torchao。gptq、awq、fp8、mxfp4 是模型保存时已有的格式，"
            "读取时不需要任何选项。aqlm、eetq 和 quanto 未提供。",
            level="expert", memory="depends", speed="depends", quality="depends")] = "bnb"
    quantization_type: Annotated[Literal["fp4", "nf4", "fp8"], Text(
        "The values that codes can take. Of bnb's 4 bits: nf4 spaces 16 values for weights that are normally "
        "distributed, fp4 is a plain 4-bit float. Of torchao's 8 bits: fp8 is an 8-bit float (e4m3) in place of whole "
        "numbers.",
        "编码能取的值。bnb 的 4 位：nf4 按正态分布的权重安排 16 个值，fp4 是普通的 4 位浮点数。"
        "torchao 的 8 位：fp8 用 8 位浮点数（e4m3）代替整数。",
        level="expert", quality="depends",
        advice=(Advice("nf4 did better than fp4 at the same size.", "同样大小下 nf4 优于 fp4。", "qlora"),))] = "nf4"
    double_quantization: Annotated[bool, Text(
        "Quantize the quantization's own constants too (bnb, 4 bits).",
        "对量化常数本身再做一次量化（bnb，4 位）。",
        level="expert", memory="down",
        higher=("less memory: about 0.4 bits a weight", "显存更少：每个权重约省 0.4 位"),
        lower=("a little more memory", "显存略多"),
        advice=(
            Advice("It saves 0.37 bits a weight, which is 3 GB of a 65B model, and loses nothing.",
                   "每个权重省 0.37 位，65B 模型约省 3 GB，效果不受影响。", "qlora"),
        ))] = True
    quantization_device_map: Annotated[Literal["auto"] | None, Text(
        "auto spreads a 4-bit model over all GPUs, for chat only.",
        "auto 把 4 位模型分布到所有 GPU，只用于对话。",
        level="expert", memory="down", speed="down",
        unset=("one device holds the model", "模型放在一个设备上"),
        no_effect=("one device holds the model", "模型放在一个设备上"), free_on_resume=True)] = None
    export_base: Annotated[Literal["original", "dequantized"] | None, Text(
        "What an adapter that was trained over quantized weights is merged into. original: the weights as they were "
        "before they were quantized; dequantized: what the codes stand for, which is what the adapter has seen.",
        "在量化权重上训练的适配器合并到什么权重里。original：量化之前的原始权重；dequantized：量化编码还原出的权重，也就是"
        "适配器训练时看到的权重。",
        level="expert", quality="depends",
        unset=("original; one line says so if the adapter was trained over quantized weights",
               "original；如果适配器是在量化权重上训练的，会有一行说明"), free_on_resume=True)] = None
