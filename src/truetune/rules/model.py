"""Rules: words, positions, weights to begin from, and how layers are computed."""

from __future__ import annotations

from truetune.findings import Both
from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.rules.ask import EVERY, KEEP_ONE
from truetune.rules.rule import Rule

_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_CHECKPOINT = {"use_reentrant", "preserve_rng_state", "determinism_check"}
_LIGER = {"rms_norm", "swiglu"}
_LEAVE_OUT = Both("Leave it out.", "请去掉。")
_COMPARES = ("dpo", "kto", "ppo", "grpo")
"""Stages that compare probabilities, in which noise would stand."""


def _adds_words(c: Config) -> bool:
    return bool(c.resize_vocab or c.add_tokens or c.add_special_tokens or c.new_special_tokens_config)


def _words() -> str:
    return ", ".join(name for name, kind in KINDS.items() if kind.new_tokens)


RULES: tuple[Rule, ...] = (
    Rule("words-untrained", "finetuning_type", lambda c: _adds_words(c) and not KINDS[c.finetuning_type].new_tokens,
         "error", Both("{finetuning_type} cannot train the rows of new tokens.",
                       "{finetuning_type} 无法训练新 token 的行。"),
         Both(f"Use one of {_words()}.", f"请改用 {_words()}。"), cure=lambda c: {"finetuning_type": "lora"}),
    Rule("words-twice", "add_special_tokens",
         lambda c: bool(c.add_special_tokens) and bool(c.new_special_tokens_config), "warn",
         Both("new_special_tokens_config goes before it.", "new_special_tokens_config 优先。"), KEEP_ONE,
         ("train", "check", "data")),
    Rule("words-undescribed", "init_special_tokens",
         lambda c: c.init_special_tokens != "noise_init" and not _adds_words(c), "info",
         Both("there are no new tokens that could begin so.", "没有新增 token，此设置不起作用。")),
    Rule("rope-not-set", "rope_factor", lambda c: c.rope_factor is not None and not c.rope_scaling, "warn",
         Both("stretches nothing without rope_scaling.", "没有 rope_scaling 时不起作用。"),
         Both("Set rope_scaling: yarn.", "请设置 rope_scaling: yarn。"), EVERY,
         cure=lambda c: {"rope_scaling": "yarn"}),
    Rule("rope-dynamic", "rope_scaling", lambda c: c.rope_scaling == "dynamic" and c.do_train, "info",
         Both("dynamic positions differ from length to length, so rows beyond the model's own length are computed one "
              "by one; yarn is made for training.",
              "dynamic 的位置随长度变化，超过模型本身长度的行会逐行计算；训练更适合用 yarn。"),
         source="yarn", cure=lambda c: {"rope_scaling": "yarn"}),
    Rule("scratch-adapter", "train_from_scratch",
         lambda c: c.train_from_scratch and (KINDS[c.finetuning_type].adapter or bool(c.quantization_bit)), "error",
         Both("random weights have to be trained, and {finetuning_type} keeps the base as it is.",
              "随机权重必须训练，而 {finetuning_type} 不改动基座。"),
         Both("Set finetuning_type: full.", "请设置 finetuning_type: full。"),
         cure=lambda c: {"finetuning_type": "full"}),
    Rule("noise-compared", "neftune_noise_alpha",
         lambda c: bool(c.neftune_noise_alpha) and c.stage in _COMPARES, "warn",
         Both("no noise is added in {stage}, which compares the probabilities of two passes.",
              "{stage} 要比较两次计算的概率，因此不加噪声。"), _LEAVE_OUT),
    Rule("dropout-compared", "attention_dropout",
         lambda c: bool(c.attention_dropout) and c.stage in _COMPARES, "warn",
         Both("dropout is off in {stage}, which compares the probabilities of two passes.",
              "{stage} 要比较两次计算的概率，因此关闭 dropout。"), _LEAVE_OUT),
    Rule("compile-mode", "torch_compile_mode",
         lambda c: c.torch_compile_mode is not None and c.torch_compile_mode not in _MODES, "error",
         Both("torch.compile has no mode {torch_compile_mode}.", "torch.compile 没有 {torch_compile_mode} 这个模式。"),
         Both(f"Use one of {', '.join(_MODES)}.", f"可用：{'、'.join(_MODES)}。"),
         cure=lambda c: {"torch_compile_mode": None}),
    Rule("checkpoint-setting", "gradient_checkpointing_kwargs",
         lambda c: bool(set(c.gradient_checkpointing_kwargs) - _CHECKPOINT), "error",
         Both("holds what PyTorch's checkpoint does not take.", "含有 PyTorch 的 checkpoint 不接受的参数。"),
         Both(f"It takes {', '.join(sorted(_CHECKPOINT))}.", f"可用：{'、'.join(sorted(_CHECKPOINT))}。")),
    Rule("offload-off", "activation_offload",
         lambda c: c.activation_offload and c.gradient_checkpointing is False, "error",
         Both("moves the inputs of layers that are computed again, and gradient_checkpointing is off.",
              "搬运的是重算各层的输入，而 gradient_checkpointing 已关闭。"),
         Both("Leave gradient_checkpointing out.", "请去掉 gradient_checkpointing。"),
         cure=lambda c: {"gradient_checkpointing": True}),
    Rule("liger-setting", "liger_kernel_config", lambda c: bool(set(c.liger_kernel_config) - _LIGER), "warn",
         Both("of Liger only rms_norm and swiglu are used here.", "这里只使用 Liger 的 rms_norm 和 swiglu。"),
         Both("Leave the others out: the head needs none, and rotations come from transformers.",
              "请去掉其余各项：输出头不需要，旋转位置由 transformers 计算。")),
)
