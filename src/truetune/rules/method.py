"""Rules: what of a model is trained, and in how many bits the rest is held."""

from __future__ import annotations

from truetune.findings import Both, Severity
from truetune.rules.ask import EVERY, KEEP_ONE, is_set, reference_free
from truetune.rules.rule import Rule

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "query_key_value", "W_pack", "c_attn"}
"""What attention's own matrices are called in most models."""
_TRAINING_LATER: tuple[tuple[Severity, tuple[str, ...]], ...] = (("error", ("train",)), ("warn", ("check",)))
"""What cannot be trained yet stops a training; a check goes on to look at the rest."""

RULES: tuple[Rule, ...] = (
    Rule("no-layers", "freeze_trainable_layers",
         lambda c: c.finetuning_type == "freeze" and c.freeze_trainable_layers == 0 and not c.freeze_extra_modules,
         "error", Both("no layer is trained.", "没有要训练的层。"),
         Both("Give a number other than 0, or freeze_extra_modules.",
              "请填写非 0 的数，或设置 freeze_extra_modules。")),
    Rule("adapter-without-lora", "adapter_name_or_path",
         lambda c: bool(c.adapter_name_or_path) and c.finetuning_type != "lora", "error",
         Both("an adapter can only be trained on with finetuning_type lora, not {finetuning_type}.",
              "只有 finetuning_type 为 lora 时才能在适配器上继续训练，{finetuning_type} 不行。"),
         Both("Export the adapter into a model first, or set finetuning_type: lora.",
              "先把适配器导出合并为模型，或设置 finetuning_type: lora。")),
    Rule("many-adapters", "adapter_name_or_path", lambda c: len(c.adapter_name_or_path) > 1, "error",
         Both("only one adapter is put on a model so far.", "目前一个模型只能加载一个适配器。"),
         Both("Export them one after another.", "请逐个导出合并。"), EVERY),
    Rule("lora-option", "finetuning_type",
         lambda c: c.finetuning_type != "lora" and is_set(
             c, "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target"), "info",
         Both("{finetuning_type} has no LoRA, so the lora_ options have no effect.",
              "{finetuning_type} 不使用 LoRA，lora_ 开头的选项不起作用。")),
    *(Rule("method-later", "finetuning_type", lambda c: c.finetuning_type == "oft", severity,
           Both("{finetuning_type} is not trained yet.", "暂不支持 {finetuning_type}。"),
           Both("lora is the nearest.", "最接近的是 lora。"), verbs, cure=lambda c: {"finetuning_type": "lora"})
      for severity, verbs in _TRAINING_LATER),
    Rule("lora-variant", "finetuning_type",
         lambda c: c.finetuning_type != "lora" and is_set(
             c, "loraplus_lr_ratio", "use_rslora", "use_dora", "pissa_init"), "error",
         Both("loraplus_lr_ratio, use_rslora, use_dora and pissa_init are ways of LoRA, not of {finetuning_type}.",
              "loraplus_lr_ratio、use_rslora、use_dora 和 pissa_init 是 LoRA 的做法，{finetuning_type} 没有。"),
         Both("Leave them out, or set finetuning_type: lora.", "请去掉它们，或设置 finetuning_type: lora。")),
    Rule("freeze-option", "finetuning_type",
         lambda c: c.finetuning_type != "freeze" and not c.use_llama_pro and is_set(
             c, "freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"), "info",
         Both("the freeze_ options have no effect with {finetuning_type}.",
              "{finetuning_type} 时 freeze_ 开头的选项不起作用。")),
    Rule("quantized-full", "quantization_bit",
         lambda c: bool(c.quantization_bit) and c.finetuning_type in ("full", "freeze"), "error",
         Both("weights in {quantization_bit} bits cannot be changed in such small steps, so {finetuning_type} cannot "
              "train them.", "{quantization_bit} 比特的权重无法一点点地更新，不能用 {finetuning_type} 训练。"),
         Both("finetuning_type: lora trains an adapter on them.", "finetuning_type: lora 可以在其上训练适配器。"),
         source="qlora", cure=lambda c: {"finetuning_type": "lora"}),
    Rule("quantized-twice", "fp8", lambda c: c.fp8 and bool(c.quantization_bit), "error",
         Both("fp8 and quantization_bit both say how weights are held.",
              "fp8 和 quantization_bit 都规定了权重的格式。"),
         KEEP_ONE),
    Rule("quantized-map", "quantization_device_map", lambda c: c.do_train and bool(c.quantization_device_map), "error",
         Both("is for answering only, not for training.", "只用于推理，不能用于训练。"),
         Both("Leave it out.", "请去掉。"), ("train", "check")),
    Rule("dropout-high", "lora_dropout", lambda c: c.finetuning_type == "lora" and c.lora_dropout > 0.3, "warn",
         Both("{lora_dropout:.0%} of LoRA's inputs are dropped, which slows learning much.",
              "LoRA 的输入有 {lora_dropout:.0%} 被丢弃，学习会慢很多。"),
         Both("0 to 0.1 is usual.", "通常取 0 到 0.1。"), source="qlora", cure=lambda c: {"lora_dropout": 0.05}),
    Rule("rank-high", "lora_rank", lambda c: c.finetuning_type == "lora" and c.lora_rank > 512, "warn",
         Both("rank {lora_rank} is beyond what LoRA is made for.", "秩 {lora_rank} 超出了 LoRA 的用途。"),
         Both("8 to 64 is usual, 256 for much data; beyond it train in full.",
              "通常取 8 到 64，数据很多时 256；再大不如全参数微调。"), source="lora-without-regret",
         cure=lambda c: {"lora_rank": 64}),
    Rule("few-targets", "lora_target",
         lambda c: c.finetuning_type == "lora" and c.lora_target != ("all",)
         and set(c.lora_target) <= _ATTENTION, "info",
         Both("LoRA only on attention learns less than on all linear layers.",
              "只在注意力上加 LoRA，效果不如加在所有线性层上。"),
         Both("lora_target: all.", "lora_target: all。"), source="lora-learns-less",
         cure=lambda c: {"lora_target": "all"}),
    Rule("llama-pro-full", "use_llama_pro", lambda c: c.use_llama_pro and c.finetuning_type == "full", "error",
         Both("trains only the added blocks, and full trains everything.", "只训练新增的块，而 full 训练全部。"),
         Both("Set finetuning_type: freeze.", "请设置 finetuning_type: freeze。")),
    Rule("pissa-reference", "pissa_init",
         lambda c: c.pissa_init and (c.stage in ("ppo", "kto") or (c.stage == "grpo" and c.beta > 0)
                                     or (c.stage == "dpo" and not reference_free(c))),
         "error",
         Both("changes the base weights, and {stage} needs them as they were for its reference.",
              "会改动基座权重，而 {stage} 需要原样的权重作为参考模型。"),
         Both("Leave it out.", "请去掉。")),
)
