"""The types that the weights of a GGUF file can have: how small, made by what, and what they need. No torch."""

from __future__ import annotations

from typing import NamedTuple


class GgufType(NamedTuple):
    """One type of file.

    Attributes:
        bits: for each weight, of the whole file, measured on Llama-3.1-8B; other models come out a little differently.
        number: what llama.cpp writes as `general.file_type` (its `llama_ftype`).
        llamacpp: whether llama.cpp itself has to quantise (package xllamacpp), the gguf package being enough otherwise.
        importance: whether it is of no use without an importance matrix; llama.cpp refuses it then.
        en, zh: what it is good for.
    """

    bits: float
    number: int
    llamacpp: bool
    importance: bool
    en: str
    zh: str


def _plain(bits: float, number: int, en: str, zh: str) -> GgufType:
    return GgufType(bits, number, False, False, en, zh)


def _mixed(bits: float, number: int, en: str, zh: str) -> GgufType:
    return GgufType(bits, number, True, False, en, zh)


def _fitted(bits: float, number: int, en: str, zh: str) -> GgufType:
    return GgufType(bits, number, True, True, en, zh)


GGUF_TYPES: dict[str, GgufType] = {
    "f32": _plain(32, 0, "exact", "精确"),
    "f16": _plain(16, 1, "exact but for very small and very large weights", "除极小和极大的权重外都精确"),
    "bf16": _plain(16, 32, "exact for models trained in bfloat16", "对以 bfloat16 训练的模型是精确的"),
    "q8_0": _plain(8.5, 7, "as good as exact, half the size", "几乎无损，体积减半"),
    "q6_k": _mixed(6.56, 18, "hardly any loss", "几乎没有损失"),
    "q5_k_m": _mixed(5.70, 17, "little loss", "损失很小"),
    "q5_k_s": _mixed(5.57, 16, "little loss", "损失很小"),
    "q5_1": _mixed(6.0, 9, "the old form of 5 bits", "旧式 5 比特"),
    "q5_0": _mixed(5.5, 8, "the old form of 5 bits", "旧式 5 比特"),
    "q4_k_m": _mixed(4.89, 15, "the usual choice: small, little loss", "常用选择：体积小，损失小"),
    "q4_k_s": _mixed(4.67, 14, "smaller, more loss", "更小，损失稍大"),
    "q4_1": _mixed(5.0, 3, "the old form of 4 bits", "旧式 4 比特"),
    "q4_0": _mixed(4.5, 2, "the old form of 4 bits, fast on phones", "旧式 4 比特，手机上快"),
    "iq4_nl": _mixed(4.68, 25, "4 bits on a curve", "4 比特非线性"),
    "iq4_xs": _mixed(4.46, 30, "4 bits on a curve, smaller", "4 比特非线性，更小"),
    "q3_k_l": _mixed(4.30, 13, "noticeable loss", "损失可察觉"),
    "q3_k_m": _mixed(4.00, 12, "noticeable loss", "损失可察觉"),
    "q3_k_s": _mixed(3.64, 11, "large loss", "损失较大"),
    "iq3_m": _mixed(3.76, 27, "noticeable loss", "损失可察觉"),
    "iq3_s": _mixed(3.66, 26, "noticeable loss", "损失可察觉"),
    "iq3_xs": _fitted(3.50, 22, "noticeable loss", "损失可察觉"),
    "iq3_xxs": _fitted(3.25, 23, "large loss", "损失较大"),
    "q2_k": _mixed(3.16, 10, "large loss", "损失较大"),
    "q2_k_s": _fitted(2.97, 21, "very large loss", "损失很大"),
    "iq2_m": _fitted(2.93, 29, "very large loss", "损失很大"),
    "iq2_s": _fitted(2.74, 28, "very large loss", "损失很大"),
    "iq2_xs": _fitted(2.59, 20, "very large loss", "损失很大"),
    "iq2_xxs": _fitted(2.38, 19, "very large loss", "损失很大"),
    "iq1_m": _fitted(2.15, 31, "for large models that fit no other way", "只适合别无办法放下的大模型"),
    "iq1_s": _fitted(2.00, 24, "for large models that fit no other way", "只适合别无办法放下的大模型"),
}
"""By the names that the field uses, from exact to smallest. Bits: llama.cpp, tools/quantize/README.md,
https://github.com/ggml-org/llama.cpp/tree/master/tools/quantize"""
