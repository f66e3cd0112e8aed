"""What rules have to know of each finetuning_type, as data: so that nothing branches on a method's name.

Which quantised layers an adapter can be put on was tried with PEFT 0.21.2 (tests/test_quantize.py): hqq's and torchao's
are plain layers to it (`model.quantize.CodedLinear`), so all train on them; of bitsandbytes' 4 bits LoHa and LoKr take
the shape of the codes for that of the weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_EVERY = ("bnb", "hqq", "torchao")
_PLAIN = ("hqq", "torchao")
_LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target")
_FREEZE = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules", "use_llama_pro")


@dataclass(frozen=True)
class Kind:
    """A way to tune, as the options see it.

    options: of those in `options.method`, the ones it takes. peft: the type that its adapter_config.json names ("":
    no adapter is written but a whole model). merges: the adapter can be added into the weights. virtual: virtual tokens
    stand before every row, and rows are computed by PEFT's own forward pass. continues: what is written can be trained
    on. checkpoints: gradient checkpointing works. quantised: each quantization_method that it trains on. new_tokens:
    the rows of new tokens can be trained beside it.
    """

    options: tuple[str, ...] = ()
    peft: str = ""
    merges: bool = True
    virtual: bool = False
    continues: bool = True
    checkpoints: bool = True
    quantised: tuple[str, ...] = ()
    new_tokens: bool = False

    @property
    def adapter(self) -> bool:
        """Whether an adapter is written, or a whole model."""
        return bool(self.peft)

    @property
    def ranked(self) -> bool:
        """Whether it is built of matrices of rank lora_rank."""
        return "lora_rank" in self.options


KINDS: Mapping[str, Kind] = {
    "lora": Kind((*_LORA, "use_rslora", "use_dora", "pissa_init", "pissa_iter", "pissa_convert", "init_lora_weights",
                  "loraplus_lr_ratio", "loraplus_lr_embedding", "freeze_trainable_layers", "use_llama_pro"),
                 "LORA", quantised=_EVERY, new_tokens=True),
    "oft": Kind(("oft_rank", "oft_block_size", "oft_target", "module_dropout", "additional_target"), "OFT",
                quantised=_EVERY),
    "freeze": Kind(_FREEZE, new_tokens=True),
    "full": Kind(new_tokens=True),
    "adalora": Kind((*_LORA, "adalora_init_r", "adalora_tinit", "adalora_tfinal", "adalora_deltaT",
                     "adalora_orth_reg_weight"), "ADALORA", quantised=_EVERY),
    "vera": Kind(("lora_rank", "lora_dropout", "lora_target", "additional_target"), "VERA", quantised=_EVERY),
    "ia3": Kind(("lora_target", "additional_target"), "IA3", quantised=_EVERY),
    "loha": Kind(("lora_rank", "lora_alpha", "lora_target", "additional_target"), "LOHA", quantised=_PLAIN),
    "lokr": Kind(("lora_rank", "lora_alpha", "lora_target", "additional_target"), "LOKR", quantised=_PLAIN),
    "prefix_tuning": Kind(("num_virtual_tokens", "prefix_projection", "encoder_hidden_size"), "PREFIX_TUNING",
                          merges=False, virtual=True, checkpoints=False, quantised=_EVERY),
    "prompt_tuning": Kind(("num_virtual_tokens", "prompt_tuning_init_text"), "PROMPT_TUNING", merges=False,
                          virtual=True, quantised=_EVERY),
    "p_tuning": Kind(("num_virtual_tokens", "encoder_hidden_size"), "P_TUNING", merges=False, virtual=True,
                     continues=False, quantised=_EVERY),
    "bottleneck": Kind(("bottleneck_size", "bottleneck_target"), "BOTTLENECK", merges=False, quantised=_EVERY),
}
"""By finetuning_type."""
