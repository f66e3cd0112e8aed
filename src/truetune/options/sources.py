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
    "llama-factory": Source("LLaMA-Factory, what most of its examples use",
                            "https://github.com/hiyouga/LLaMA-Factory/tree/main/examples"),
    "sixty-rows": Source("A public LoRA run on 60 rows, its loss after each epoch",
                         "https://huggingface.co/GaetanMichelet/Llama-31-8B_task-3_60-samples_config-1"),
    "silent-cut": Source("LLaMA-Factory issue 3995, rows cut without a word",
                         "https://github.com/hiyouga/LlamaFactory/issues/3995"),
    "one-template": Source("LLaMA-Factory issue 7978, the template at every step",
                           "https://github.com/hiyouga/LlamaFactory/issues/7978"),
    "empty-thoughts": Source("NeMo Automodel pull request 3739, empty thoughts that are learned",
                             "https://github.com/NVIDIA-NeMo/Automodel/pull/3739"),
    "isolated-packing": Source("functionary issue 265, accuracy with and without packing",
                               "https://github.com/MeetKai/functionary/issues/265"),
    "loss-on-prompts": Source("Shi et al. 2024, Instruction Tuning With Loss Over Instructions",
                              "https://arxiv.org/abs/2405.14394"),
    "checkpointing": Source("Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost",
                            "https://arxiv.org/abs/1604.06174"),
    "mixed-precision": Source("Micikevicius et al. 2017, Mixed Precision Training", "https://arxiv.org/abs/1710.03740"),
    "bfloat16": Source("Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training",
                       "https://arxiv.org/abs/1905.12322"),
    "nucleus": Source("Holtzman et al. 2019, The Curious Case of Neural Text Degeneration",
                      "https://arxiv.org/abs/1904.09751"),
    "ctrl": Source("Keskar et al. 2019, CTRL", "https://arxiv.org/abs/1909.05858"),
    "qwen3": Source("Qwen3 model card, best practices", "https://huggingface.co/Qwen/Qwen3-8B"),
}
