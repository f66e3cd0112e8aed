"""Rules: what of a model is trained."""

from __future__ import annotations

from truetune.findings import Both
from truetune.options import Config
from truetune.options.kinds import KINDS, Kind
from truetune.rules.ask import KEEP_ONE, is_set
from truetune.rules.rule import Rule

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "query_key_value", "W_pack", "c_attn"}
"""What attention's own matrices are called in most models."""
_NEEDED = ("use_rslora", "use_dora", "pissa_init", "loraplus_lr_ratio", "use_llama_pro")
"""Options without which a run would be another one: on a method that has them not they are an error."""
OWN = sorted({option for kind in KINDS.values() for option in kind.options})
"""Options that belong to some methods only."""
_LEAVE_OUT = Both("Leave it out.", "请去掉。")


def _kind(c: Config) -> Kind:
    return KINDS[c.finetuning_type]


def _of_another(c: Config, name: str) -> bool:
    """Whether an option was set that the method has not."""
    return is_set(c, name) and name not in _kind(c).options and not (
        c.use_llama_pro and name == "freeze_trainable_layers")


def _goes_on(c: Config) -> bool:
    """Whether an adapter that is there is trained further."""
    return bool(c.adapter_name_or_path) and not c.create_new_adapter


def _of_the_weights(c: Config) -> bool:
    """Whether LoRA begins with something that is worked out from the weights, or in their number format."""
    return c.finetuning_type == "lora" and (c.pissa_init or c.init_lora_weights in ("olora", "orthogonal"))


RULES: tuple[Rule, ...] = (
    Rule("no-layers", "freeze_trainable_layers",
         lambda c: c.finetuning_type == "freeze" and c.freeze_trainable_layers == 0 and not c.freeze_extra_modules,
         "error", Both("no layer is trained.", "没有要训练的层。"),
         Both("Give a number other than 0, or freeze_extra_modules.",
              "请填写非 0 的数，或设置 freeze_extra_modules。")),
    Rule("adapter-and-whole", "adapter_name_or_path",
         lambda c: bool(c.adapter_name_or_path) and not _kind(c).adapter, "error",
         Both("{finetuning_type} trains the model's own weights, not an adapter.",
              "{finetuning_type} 训练模型自身的权重，而不是适配器。"),
         Both("Export the adapter into a model first, or set the finetuning_type that it was trained with.",
              "先把适配器导出合并为模型，或把 finetuning_type 设为训练它时用的方法。")),
    Rule("adapter-final", "adapter_name_or_path",
         lambda c: _goes_on(c) and (not _kind(c).continues or (c.finetuning_type == "prefix_tuning"
                                                               and c.prefix_projection)), "error",
         Both("the network that makes its virtual tokens is not saved with it, so it cannot be trained on.",
              "生成虚拟 token 的网络没有随它保存，无法继续训练。"),
         Both("Resume the run itself from a checkpoint, or begin a new adapter.",
              "请从检查点恢复原来的训练，或新建适配器。")),
    Rule("nothing-merged", "create_new_adapter", lambda c: c.create_new_adapter and not c.adapter_name_or_path, "info",
         Both("no adapter is named that would be merged first; a new one is begun anyway.",
              "没有给出要先合并的适配器；本来就会新建一个。"), _LEAVE_OUT,
         cure=lambda c: {"create_new_adapter": False}),
    *(Rule("other-method", name, lambda c, name=name: _of_another(c, name), "error" if name in _NEEDED else "info",
           Both("is not of finetuning_type {finetuning_type}" + (", which cannot do it." if name in _NEEDED else
                                                                 " and has no effect."),
                "不属于 finetuning_type {finetuning_type}，" + ("它做不到。" if name in _NEEDED else "不起作用。")),
           _LEAVE_OUT) for name in OWN),
    Rule("init-quantized", "init_lora_weights", lambda c: bool(c.quantization_bit) and _of_the_weights(c), "error",
         Both("begins with the weights themselves, which in {quantization_bit} bits are not there.",
              "需要用原始权重来初始化，而 {quantization_bit} 比特时没有原始权重。"),
         Both("Leave pissa_init and init_lora_weights out.", "请去掉 pissa_init 和 init_lora_weights。"),
         cure=lambda c: {"pissa_init": False, "init_lora_weights": "default"}),
    Rule("init-twice", "init_lora_weights", lambda c: c.pissa_init and c.init_lora_weights != "default", "error",
         Both("pissa_init is another way to begin.", "pissa_init 是另一种初始化方式。"), KEEP_ONE,
         cure=lambda c: {"init_lora_weights": "default"}),
    Rule("dora-begins", "use_dora",
         lambda c: c.use_dora and (c.pissa_init or c.init_lora_weights == "olora"), "error",
         Both("lengths of weights are not known of LoRA that begins with part of them (pissa_init, olora).",
              "LoRA 从权重的一部分开始（pissa_init、olora）时，权重的大小没有定义。"), KEEP_ONE),
    Rule("rank-odd", "lora_rank",
         lambda c: c.finetuning_type == "lora" and c.init_lora_weights == "orthogonal" and c.lora_rank % 2 == 1,
         "error", Both("is odd, and init_lora_weights orthogonal takes even ranks.",
                       "是奇数，而 init_lora_weights 为 orthogonal 时秩必须是偶数。"),
         Both("Take the next one.", "请取相邻的偶数。"), cure=lambda c: {"lora_rank": c.lora_rank + 1}),
    Rule("adalora-rank", "adalora_init_r",
         lambda c: c.finetuning_type == "adalora" and c.adalora_init_r is not None
         and c.adalora_init_r <= c.lora_rank, "error",
         Both("{adalora_init_r} is not above lora_rank ({lora_rank}), so there is no rank to give up.",
              "{adalora_init_r} 不大于 lora_rank（{lora_rank}），没有可舍弃的秩。"),
         Both("Leave it out: 1.5 x lora_rank is taken.", "请去掉它：会取 1.5 x lora_rank。"),
         cure=lambda c: {"adalora_init_r": None}),
    Rule("oft-blocks", "oft_block_size",
         lambda c: c.finetuning_type == "oft" and (bool(c.oft_rank) and is_set(c, "oft_block_size")
                                                   and bool(c.oft_block_size)), "error",
         Both("oft_rank says the same in another way: size x rank is the width of a layer.",
              "oft_rank 是同一设置的另一种写法：块大小 x 秩 = 层的宽度。"), KEEP_ONE),
    Rule("oft-blocks", "oft_rank", lambda c: c.finetuning_type == "oft" and not (c.oft_rank or c.oft_block_size),
         "error",
         Both("is 0, and so is oft_block_size.", "为 0，oft_block_size 也为 0。"),
         Both("Set oft_block_size: 32.", "请设置 oft_block_size: 32。"), cure=lambda c: {"oft_block_size": 32}),
    Rule("prefix-network", "encoder_hidden_size",
         lambda c: c.finetuning_type == "prefix_tuning" and c.encoder_hidden_size is not None
         and not c.prefix_projection, "info",
         Both("is of prefix_projection, which is off, and has no effect.",
              "是 prefix_projection 的设置，而它没有开启，不起作用。"), _LEAVE_OUT),
    Rule("loraplus-embedding", "loraplus_lr_embedding",
         lambda c: is_set(c, "loraplus_lr_embedding") and c.loraplus_lr_ratio is None, "info",
         Both("is of loraplus_lr_ratio, which is not set, and has no effect.",
              "是 loraplus_lr_ratio 的设置，而它没有设置，不起作用。"), _LEAVE_OUT),
    Rule("virtual-rows", "finetuning_type", lambda c: _kind(c).virtual, "info",
         Both("{finetuning_type} computes rows one by one, which is slower: virtual tokens stand before each.",
              "{finetuning_type} 逐行计算，较慢：每行前面都有虚拟 token。"),
         Both("lora learns more at full speed.", "lora 能全速训练，也学得更多。")),
    Rule("virtual-checkpointing", "gradient_checkpointing",
         lambda c: bool(c.gradient_checkpointing) and not _kind(c).checkpoints, "error",
         Both("{finetuning_type} gives layers keys and values, which are not there when a layer is computed again.",
              "{finetuning_type} 直接给各层提供 key 和 value，重新计算某一层时它们不在。"),
         _LEAVE_OUT, cure=lambda c: {"gradient_checkpointing": False}),
    Rule("dropout-high", "lora_dropout", lambda c: "lora_dropout" in _kind(c).options and c.lora_dropout > 0.3, "warn",
         Both("{lora_dropout:.0%} of LoRA's inputs are dropped, which slows learning much.",
              "LoRA 的输入有 {lora_dropout:.0%} 被丢弃，学习会慢很多。"),
         Both("0 to 0.1 is usual.", "通常取 0 到 0.1。"), source="qlora", cure=lambda c: {"lora_dropout": 0.05}),
    Rule("rank-high", "lora_rank", lambda c: "lora_alpha" in _kind(c).options and c.lora_rank > 512, "warn",
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
)
