"""Where advice comes from: every source that an option, a finding or a recipe names, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """title: author and name, short. link: where to read it."""

    title: str
    link: str


SOURCES: Mapping[str, Source] = {
    "tinker-lora": Source("Thinking Machines, LoRA learning-rate sweep (tinker-cookbook hyperparam_utils)",
                          "https://github.com/thinking-machines-lab/tinker-cookbook"),
    "lora-without-regret": Source("Thinking Machines, LoRA Without Regret",
                                  "https://tinker-docs.thinkingmachines.ai/tinker/lora-primer/"),
    "lora": Source("Hu et al. 2021, LoRA", "https://arxiv.org/abs/2106.09685"),
    "qlora": Source("Dettmers et al. 2023, QLoRA", "https://arxiv.org/abs/2305.14314"),
    "rslora": Source("Kalajdzievski 2023, rsLoRA", "https://arxiv.org/abs/2312.03732"),
    "lora-learns-less": Source("Biderman et al. 2024, LoRA Learns Less and Forgets Less",
                               "https://arxiv.org/abs/2405.09673"),
    "rate-matters": Source("Learning Rate Matters: plain LoRA may suffice", "https://arxiv.org/abs/2602.04998"),
    "qwen": Source("Qwen, official fine-tuning scripts", "https://github.com/QwenLM/Qwen"),
    "tulu3": Source("Tulu 3 model card", "https://huggingface.co/allenai/Llama-3.1-Tulu-3-8B-SFT"),
    "small-llm-sft": Source("Pareja et al. 2024, supervised fine-tuning of small models",
                            "https://arxiv.org/abs/2412.13337"),
    "unsloth-guide": Source("Unsloth, LoRA hyperparameters guide",
                            "https://unsloth.ai/docs/get-started/fine-tuning-llms-guide/lora-hyperparameters-guide"),
    "zephyr": Source("Hugging Face alignment handbook, Zephyr", "https://github.com/huggingface/alignment-handbook"),
    "dpo": Source("Rafailov et al. 2023, DPO", "https://arxiv.org/abs/2305.18290"),
    "adamw": Source("Loshchilov and Hutter 2019, AdamW", "https://arxiv.org/abs/1711.05101"),
}
