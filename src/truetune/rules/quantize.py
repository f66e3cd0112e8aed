"""Rules: in how many bits weights are held, and by whom."""

from __future__ import annotations

from truetune.findings import Both
from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.options.quantizers import QUANTIZERS, REFUSED, Quantizer
from truetune.rules.ask import EVERY, KEEP_ONE, is_set
from truetune.rules.rule import Rule

_METHODS = ", ".join(QUANTIZERS)
_SETTINGS = ("quantization_method", "quantization_type", "double_quantization")


def _quantizer(c: Config) -> Quantizer | None:
    """Who quantises, where anything is to be quantised."""
    return QUANTIZERS.get(c.quantization_method) if c.quantization_bit else None


def _bits_unknown(c: Config) -> bool:
    quantizer = _quantizer(c)
    return quantizer is not None and c.quantization_bit not in quantizer.bits


def _type_unknown(c: Config) -> bool:
    """Whether a type of codes was named that the method does not have in so many bits."""
    quantizer = _quantizer(c)
    return quantizer is not None and is_set(c, "quantization_type") and c.quantization_type not in quantizer.types.get(
        c.quantization_bit or 0, ())


RULES: tuple[Rule, ...] = (
    Rule("quantized-full", "quantization_bit",
         lambda c: bool(c.quantization_bit) and not KINDS[c.finetuning_type].adapter, "error",
         Both("weights in {quantization_bit} bits cannot be changed in such small steps, so {finetuning_type} cannot "
              "train them.", "{quantization_bit} 比特的权重无法一点点地更新，不能用 {finetuning_type} 训练。"),
         Both("finetuning_type: lora trains an adapter on them.", "finetuning_type: lora 可以在其上训练适配器。"),
         source="qlora", cure=lambda c: {"finetuning_type": "lora"}),
    Rule("quantized-kind", "quantization_method",
         lambda c: _quantizer(c) is not None and KINDS[c.finetuning_type].adapter
         and c.quantization_method not in KINDS[c.finetuning_type].quantised, "error",
         Both("{finetuning_type} has no layer for weights that {quantization_method} quantises.",
              "{finetuning_type} 没有能用于 {quantization_method} 量化权重的层。"),
         Both("finetuning_type: lora trains on all of them.", "finetuning_type: lora 在各种量化权重上都能训练。"),
         cure=lambda c: {"finetuning_type": "lora"}),
    Rule("reference-bits", "ref_model_quantization_bit",
         lambda c: bool(c.ref_model_quantization_bit) and not c.ref_model, "info",
         Both("no ref_model is named: the reference is the model that is trained as it was, held as that is.",
              "没有指定 ref_model：参考模型就是训练前的模型，精度与它相同。")),
    Rule("quantized-twice", "fp8", lambda c: c.fp8 and bool(c.quantization_bit), "error",
         Both("fp8 multiplies plain weights, and quantization_bit leaves none.",
              "fp8 用于普通权重的乘法，而 quantization_bit 会把权重全部量化。"),
         KEEP_ONE),
    Rule("float8-backend", "fp8_backend", lambda c: c.fp8 and c.fp8_backend in ("te", "msamp"), "error",
         Both("{fp8_backend} is not offered: 8-bit floats are torchao's here.",
              "未提供 {fp8_backend}：这里的 8 位浮点由 torchao 实现。"),
         Both("fp8_backend: auto or torchao.", "fp8_backend: auto 或 torchao。"),
         cure=lambda c: {"fp8_backend": "auto"}),
    Rule("quantized-map", "quantization_device_map", lambda c: c.do_train and bool(c.quantization_device_map), "error",
         Both("is for answering only, not for training.", "只用于推理，不能用于训练。"),
         Both("Leave it out.", "请去掉。"), ("train", "check")),
    *(Rule("quantizer-refused", "quantization_method",
           lambda c, method=method: bool(c.quantization_bit) and c.quantization_method == method, "error",
           Both(f"{method} {why}", f"{method} {why.zh}"),
           Both(f"quantization_method: one of {_METHODS}.", f"quantization_method: 可选 {_METHODS}。"), EVERY,
           cure=lambda c: {"quantization_method": "bnb", "quantization_bit": 4}) for method, why in REFUSED.items()),
    Rule("quantizer-bits", "quantization_bit", _bits_unknown, "error",
         Both("{quantization_method} has no codes of {quantization_bit} bits.",
              "{quantization_method} 没有 {quantization_bit} 位的编码。"),
         Both("bnb has 4 and 8, torchao 8 (and 4 on NVIDIA GPUs), hqq 1 to 6 and 8.",
              "bnb 有 4 和 8，torchao 有 8（NVIDIA GPU 上还有 4），hqq 有 1 到 6 和 8。"), EVERY,
         cure=lambda c: {"quantization_method": "hqq"}),
    Rule("quantizer-type", "quantization_type", _type_unknown, "error",
         Both("{quantization_method} has no {quantization_type} of {quantization_bit} bits.",
              "{quantization_method} 没有 {quantization_bit} 位的 {quantization_type}。"),
         Both("nf4 and fp4 are of bnb with 4 bits, fp8 of torchao with 8; leave it out elsewhere.",
              "nf4 和 fp4 属于 4 位的 bnb，fp8 属于 8 位的 torchao；其他情况请去掉。"), EVERY),
    Rule("quantizer-setting", "quantization_bit", lambda c: not c.quantization_bit and is_set(c, *_SETTINGS), "info",
         Both("is not set, so nothing is quantised and the other quantization options have no effect.",
              "没有设置，不做量化，其他量化选项不起作用。"), verbs=EVERY),
    Rule("quantized-adapters", "quantization_bit",
         lambda c: bool(c.quantization_bit) and len(c.adapter_name_or_path) > 1, "error",
         Both("several adapters are merged one after another, and into codes of {quantization_bit} bits nothing can be "
              "merged.", "多个适配器要依次合并，而 {quantization_bit} 位的编码无法合并。"),
         Both("Export all but the last first, and train on that.", "请先导出前面的适配器，再在导出的模型上训练。"),
         ("train", "check", "chat", "api")),
    Rule("quantized-export", "quantization_bit", lambda c: bool(c.quantization_bit) and not c.export_base, "error",
         Both("codes of {quantization_bit} bits cannot be merged into.", "无法合并到 {quantization_bit} 位的编码里。"),
         Both("Say what to merge into: export_base: original (the weights before they were quantized) or dequantized "
              "(what the codes stand for).",
              "请说明合并到哪里：export_base: original（量化之前的权重）或 dequantized（编码还原出的权重）。"),
         ("export",), cure=lambda c: {"export_base": "original"}),
)
