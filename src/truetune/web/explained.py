"""An option in words, as HTML: what it does, which way to turn it, what it costs, and who advises what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from unicodedata import east_asian_width

from truetune.findings import Both
from truetune.options import Option
from truetune.options.help import costs, default_words, other_names, turns, when, why_not
from truetune.options.sources import SOURCES
from truetune.web.words import Language, say

_WIDEST = 58
"""Columns of a label: a Chinese letter takes two."""
_PAUSES = (r"(?<=[.;!?])\s|(?<=[。；！？])", r"(?<=:)\s|(?<=[：])", r"(?<=,)\s|\s(?=\()|(?<=，)|(?=（)")
"""Where a text may be cut so that what stands before makes sense by itself, the best places first."""
_PLAIN: Mapping[str, Both] = {
    "finetuning_type": Both("How the model is trained", "微调方法"),
    "quantization_bit": Both("Hold the base model in so many bits", "基座模型压成多少位（QLoRA）"),
    "quantization_method": Both("How it is quantized", "量化方式"),
    "template": Both("Chat template", "对话模板"),
    "rope_scaling": Both("Stretch to longer texts", "扩展上下文长度的方式"),
    "flash_attn": Both("Acceleration of attention", "注意力加速"),
    "enable_liger_kernel": Both("Faster layers on GPUs (Liger)", "GPU 加速层（Liger）"),
    "stage": Both("What is trained for", "训练阶段"),
    "dataset_dir": Both("Folder of the data sets", "数据集所在文件夹"),
    "val_size": Both("Share or number of rows held out", "留作评估的比例或行数"),
    "gradient_accumulation_steps": Both("Batches per step", "梯度累积步数"),
    "per_device_train_batch_size": Both("Rows at once", "每次计算的行数"),
    "eval_dataset": Both("Data to evaluate on", "用于评估的数据"),
    "identity_name": Both("Fills {{name}} in the data", "替换数据里的 {{name}}"),
    "identity_author": Both("Fills {{author}} in the data", "替换数据里的 {{author}}"),
    "max_samples": Both("Only the first so many rows", "只用前若干行"),
    "lora_rank": Both("How much LoRA can hold", "LoRA 的秩：能装下多少"),
    "output_dir": Both("The run folder", "运行文件夹"),
    "adapter_name_or_path": Both("Adapters to go on from", "在哪个适配器上继续"),
    "eval_strategy": Both("When it is evaluated", "何时评估"),
    "gradient_checkpointing": Both("Less memory, slower", "省显存，略慢"),
    "teacher_model": Both("The model to learn from", "教师模型"),
    "reward_funcs": Both("What scores the answers", "给回答打分的奖励"),
    "bf16": Both("Compute in bfloat16", "用 bfloat16 计算"),
    "packing": Both("Short rows share a batch row", "短行拼在一起，不浪费计算"),
}
"""Few words for what is seen first, where the explanation's beginning would not do."""


def label(option: Option, language: Language) -> str:
    """The option's name, and in a few words what it is: the beginning of its explanation."""
    return f"{option.name} · {in_short(option, language)}"


def in_short(option: Option, language: Language) -> str:
    """What an option does in a line: the first of its sentences, or as much of that as makes sense by itself."""
    text = say(_PLAIN.get(option.name, Both(option.text.en, option.text.zh)), language)
    most = _WIDEST - 3 - len(option.name)
    for pause in _PAUSES:
        text = re.split(pause, text, maxsplit=1)[0].rstrip(".;:,。；：，")
        if _columns(text) <= most:
            return text
    return _cut(text, most)


def explained(option: Option, language: Language) -> str:
    """A fold: closed it takes one line."""
    chinese, colon = language != "en", ": " if language == "en" else "："
    lines = [*filter(None, [why_not(option, chinese)]), option.text.zh if chinese else option.text.en,
             f"{'取值' if chinese else 'takes'}{colon}{option.takes(chinese)}",
             f"{'默认' if chinese else 'default'}{colon}{default_words(option, chinese)}",
             *(f"{way}{colon}{words}" for way, words in turns(option, chinese))]
    moved = [f"{name} {words}" for name, trend, words in costs(option, chinese) if trend != "same"]
    lines += [f"{when(option)[chinese]}{colon}{('，' if chinese else ', ').join(moved)}"] if moved else []
    if option.text.also:
        lines.append(f"{'别名' if chinese else 'also'}{colon}{', '.join(other_names(option))}")
    told = [say(Both(escape(line), escape(line)), language) for line in lines]
    told += [f'{escape(say(Both(advice.en, advice.zh), language))} — <a href="{escape(SOURCES[advice.source].link)}" '
             f'target="_blank" rel="noopener noreferrer">{escape(SOURCES[advice.source].title)}</a>'
             for advice in option.text.advice]
    body = "".join(f"<p>{line}</p>" for line in told)
    summary = f'<span class="unseen">{escape(option.name)}{colon}</span>{_inside(option, language)}'
    return f"<details><summary>{summary}</summary>{body}</details>"


def _inside(option: Option, language: Language) -> str:
    """What the fold holds."""
    if turns(option, False):
        return say(Both("What it does, which way to turn it", "作用、往哪边调"), language)
    if option.text.advice:
        return say(Both("What it does, what is advised", "作用、建议"), language)
    return say(Both("What it does", "作用"), language)


def _columns(text: str) -> int:
    return sum(1 + (east_asian_width(letter) in "WF") for letter in text)


def _cut(text: str, most: int) -> str:
    """`text` ended by … where it is longer than `most` columns, between words where there are spaces."""
    while _columns(text) > most - 1:
        shorter = text.rsplit(" ", 1)[0]
        text = shorter if shorter != text and _columns(shorter) > most // 2 else text[:-1]
    return f"{text.rstrip()}…"
