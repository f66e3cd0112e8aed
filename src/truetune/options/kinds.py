"""What rules have to know of each finetuning_type, as data: so that nothing branches on a method's name.

Which quantised layers an adapter can be put on was read in PEFT 0.21.2: LoRA has a layer for each library; OFT and VeRA
ask the layer for its library (`peft.utils.resolve_quantization_backend`); AdaLoRA and IA3 have layers for bitsandbytes
(AdaLoRA for GPTQ too); LoHa and LoKr take plain layers only. Virtual tokens and bottlenecks stand beside the weights and
never look at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_EVERY = ("bnb", "hqq", "torchao", "eetq", "gptq", "awq", "aqlm", "quanto", "mxfp4", "fp8")
_LAYERS = ("bnb", "hqq", "torchao", "eetq", "gptq", "awq", "aqlm")
_LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target")
_FREEZE = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules", "use_llama_pro")


@dataclass(frozen=True)
class Kind:
    """A way to tune, as the options see it.

    options: of those in `options.method`, the ones it takes. peft: the type that its adapter_config.json names ("":
    no adapter is written but a whole model). merges: the adapter can be added into the weights. virtual: virtual tokens
    stand before every row, and rows are computed by PEFT's own forward pass. continues: what is written can be trained
    on. checkpoints: gradient checkpointing works. quantised: each quantization_method that it trains on. new_tokens: the
    rows of new tokens can be trained beside it.
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
                 "LORA", quantised=_LAYERS, new_tokens=True),
    "oft": Kind(("oft_rank", "oft_block_size", "oft_target", "module_dropout", "additional_target"), "OFT",
                quantised=_LAYERS),
    "freeze": Kind(_FREEZE, new_tokens=True),
    "full": Kind(new_tokens=True),
    "adalora": Kind((*_LORA, "adalora_init_r", "adalora_tinit", "adalora_tfinal", "adalora_deltaT",
                     "adalora_orth_reg_weight"), "ADALORA", quantised=("bnb", "gptq")),
    "vera": Kind(("lora_rank", "lora_dropout", "lora_target", "additional_target"), "VERA", quantised=_LAYERS),
    "ia3": Kind(("lora_target", "additional_target"), "IA3", quantised=("bnb",)),
    "loha": Kind(("lora_rank", "lora_alpha", "lora_target", "additional_target"), "LOHA"),
    "lokr": Kind(("lora_rank", "lora_alpha", "lora_target", "additional_target"), "LOKR"),
    "prefix_tuning": Kind(("num_virtual_tokens", "prefix_projection", "encoder_hidden_size"), "PREFIX_TUNING",
                          merges=False, virtual=True, checkpoints=False, quantised=_EVERY),
    "prompt_tuning": Kind(("num_virtual_tokens", "prompt_tuning_init_text"), "PROMPT_TUNING", merges=False,
                          virtual=True, quantised=_EVERY),
    "p_tuning": Kind(("num_virtual_tokens", "encoder_hidden_size"), "P_TUNING", merges=False, virtual=True,
                     continues=False, quantised=_EVERY),
    "bottleneck": Kind(("bottleneck_size", "bottleneck_target"), "BOTTLENECK", merges=False, quantised=_EVERY),
}
"""By finetuning_type."""
