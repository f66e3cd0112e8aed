"""Which models become GGUF files, and what each needs: one entry a family.

What tensors are called is the gguf package's knowledge (`get_tensor_name_map`); what is left for here are the numbers
that llama.cpp wants to know of a model, and the places where it keeps weights in another form than transformers does:

- Rotary embeddings turn pairs of numbers of a head. transformers pairs number i with i + d/2, llama.cpp's llama pairs
  2i with 2i+1, so rows of queries and keys change places.
- Gemma's norms multiply by 1 + weight, llama.cpp's by the weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType

from truetune.findings import Both, Problem, Say, problem

Rows = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Architecture:
    """How one class of models is written.

    Attributes:
        arch: llama.cpp's name for it.
        pairs: rotary pairs lie side by side there, and half a head apart here.
        one_plus: norms multiply by 1 + weight.
        facts: what else llama.cpp has to know.
        needs_output: a head of its own has to be there even where it is the embedding.
        activation: the one that llama.cpp computes.
    """

    arch: MODEL_ARCH
    pairs: bool = False
    one_plus: bool = False
    facts: tuple[Callable[[GGUFWriter, Any], None], ...] = ()
    needs_output: bool = False
    activation: str = "silu"

    def plain_name(self, name: str) -> str | None:
        """The name of a tensor as the tensor map knows it; None for what is no weight."""
        return None if name.endswith("rotary_emb.inv_freq") else name

    def change(self, plain: str, config: Any) -> tuple[int, Rows] | None:
        """(n, function): what is done to each n rows of a tensor; None: nothing."""
        if self.pairs and (".q_proj." in plain or ".k_proj." in plain):
            return head_size(config), lambda rows: side_by_side(rows, head_size(config))
        if self.one_plus and plain.endswith("norm.weight"):
            return 1, lambda rows: rows + 1
        return None


def head_size(config: Any) -> int:
    """Numbers of one head."""
    return config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads


def side_by_side(rows: np.ndarray, head: int) -> np.ndarray:
    """(n x head, …) -> the same, in each head the rows 0, d/2, 1, d/2 + 1, …"""
    halves = rows.reshape(-1, 2, head // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


# What llama.cpp has to know of a model.

def basic_facts(writer: GGUFWriter, config: Any) -> None:
    """What it wants to know of every model."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _rope(writer, config)


def rope_of(config: Any) -> dict[str, Any]:
    """The rotary embedding of layers that see everything."""
    found = config.rope_parameters
    return found.get("full_attention") or found


def _rope(writer: GGUFWriter, config: Any) -> None:
    """Rotary embeddings: theta, how much of a head turns, and how they were stretched for longer texts."""
    rope = rope_of(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_size(config) * rope.get("partial_rotary_factor", 1.0)))
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        _yarn(writer, rope, config)
    elif kind == "longrope":
        _longrope(writer, rope, config)
    elif kind not in ("default", "llama3"):  # llama3: a tensor of factors, see rope_factors
        raise problem("gguf-rope", Both(f"llama.cpp has no rotary embeddings of type {kind!r}.",
                                        f"llama.cpp 不支持 {kind!r} 类型的旋转位置编码。"), option="model_name_or_path",
                      fix=Both("default, linear, yarn, llama3 and (Phi-3) longrope are supported.",
                               "支持 default、linear、yarn、llama3 和（Phi-3 的）longrope。"))


def _yarn(writer: GGUFWriter, rope: dict[str, Any], config: Any) -> None:
    """YaRN (Peng et al. 2023, arXiv:2309.00071). llama.cpp works out 0.1 ln(factor) + 1 by itself and multiplies it by
    what the file says."""
    factor = rope["factor"]
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(factor)
    writer.add_rope_scaling_orig_ctx_len(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
    writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
    writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)
    if (told := rope.get("attention_factor")) is not None:
        writer.add_rope_scaling_attn_factors(told / (0.1 * math.log(factor) + 1.0))


def _longrope(writer: GGUFWriter, rope: dict[str, Any], config: Any) -> None:
    """LongRoPE (Ding et al. 2024, arXiv:2402.13753): tensors of factors, see rope_factors, and one for attention."""
    trained = rope["original_max_position_embeddings"]
    scale = rope.get("factor") or config.max_position_embeddings / trained
    writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
    writer.add_rope_scaling_orig_ctx_len(trained)
    told = rope.get("attention_factor")
    writer.add_rope_scaling_attn_factors(
        told if told is not None else math.sqrt(1 + math.log(scale) / math.log(trained)) if scale > 1 else 1.0)


def rope_factors(config: Any) -> dict[str, np.ndarray]:
    """Tensors by which the rotary frequencies are divided, by their GGUF names: of Llama 3.1 and of LongRoPE."""
    rope = rope_of(config)
    if rope.get("rope_type") == "longrope":
        return {f"rope_factors_{length}.weight": np.array(rope[f"{length}_factor"], np.float32)
                for length in ("long", "short")}
    if rope.get("rope_type") != "llama3":
        return {}
    size = head_size(config)
    wavelength = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size)
    turns = rope["original_max_position_embeddings"] / wavelength
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)}


def _gemma2(writer: GGUFWriter, config: Any) -> None:
    if config.attn_logit_softcapping:
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _gemma3(writer: GGUFWriter, config: Any) -> None:
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])


def _windows(writer: GGUFWriter, config: Any) -> None:
    """Layers that see only the last words, each as the model says."""
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])


def _gemma_scale(writer: GGUFWriter, config: Any) -> None:
    """llama.cpp divides by the root of the head's size (by hidden size / heads in the 27B models)."""
    largest = config.num_hidden_layers in (46, 62)
    scale = config.hidden_size // config.num_attention_heads if largest else head_size(config)
    if config.query_pre_attn_scalar != scale:
        raise problem("gguf-scale", Both(f"llama.cpp takes query_pre_attn_scalar to be {scale}; this model's is "
                                         f"{config.query_pre_attn_scalar}.",
                                         f"llama.cpp 固定 query_pre_attn_scalar 为 {scale}，而该模型是 "
                                         f"{config.query_pre_attn_scalar}。"), option="model_name_or_path")


def _mixtral(writer: GGUFWriter, config: Any) -> None:
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)


def _qwen_experts(writer: GGUFWriter, config: Any) -> None:
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if config.mlp_only_layers or config.decoder_sparse_step != 1:
        raise problem("gguf-experts", Both("llama.cpp wants experts in every layer of this architecture.",
                                           "llama.cpp 要求该架构每一层都有专家。"), option="model_name_or_path")


def _normalised(writer: GGUFWriter, config: Any) -> None:
    """Whether the weights of the chosen experts are made to add up to 1, llama.cpp knows by the architecture."""
    wanted = writer.arch == "qwen3moe"
    if config.norm_topk_prob != wanted:
        raise problem("gguf-experts", Both(f"llama.cpp takes norm_topk_prob to be {wanted} for {writer.arch}.",
                                           f"llama.cpp 对 {writer.arch} 固定 norm_topk_prob 为 {wanted}。"),
                      option="model_name_or_path")


def _shared_expert(writer: GGUFWriter, config: Any) -> None:
    writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)


_GELU = "gelu_pytorch_tanh"

ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture(MODEL_ARCH.LLAMA, pairs=True),
    "MistralForCausalLM": Architecture(MODEL_ARCH.LLAMA, pairs=True),
    "MixtralForCausalLM": Architecture(MODEL_ARCH.LLAMA, pairs=True, facts=(_mixtral,)),
    "Qwen2ForCausalLM": Architecture(MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Architecture(MODEL_ARCH.QWEN3),
    "Qwen2MoeForCausalLM": Architecture(MODEL_ARCH.QWEN2MOE, needs_output=True,
                                        facts=(_qwen_experts, _normalised, _shared_expert)),
    "Qwen3MoeForCausalLM": Architecture(MODEL_ARCH.QWEN3MOE, needs_output=True, facts=(_qwen_experts, _normalised)),
    "GemmaForCausalLM": Architecture(MODEL_ARCH.GEMMA, one_plus=True, activation=_GELU),
    "Gemma2ForCausalLM": Architecture(MODEL_ARCH.GEMMA2, one_plus=True, activation=_GELU,
                                      facts=(_gemma2, _windows, _gemma_scale)),
    "Gemma3ForCausalLM": Architecture(MODEL_ARCH.GEMMA3, one_plus=True, activation=_GELU,
                                      facts=(_gemma3, _windows, _gemma_scale)),
    "Phi3ForCausalLM": Architecture(MODEL_ARCH.PHI3),
    "Glm4ForCausalLM": Architecture(MODEL_ARCH.GLM4),
}
"""By the class that a model's config.json names. SmolLM2 and DeepSeek-R1's distilled models are of Llama's and Qwen2's
class; so are Yi, InternLM3 and many more."""


def architecture_of(config: Any) -> Architecture:
    """Raises:
    Problem: there is no entry for it, or it computes something that llama.cpp does not.
    """
    named = (config.architectures or [type(config).__name__])[0]
    family = ARCHITECTURES.get(named)
    known = ", ".join(sorted(ARCHITECTURES))
    if family is None:
        raise _refused(Both(f"{named} cannot be written as GGUF here.", f"这里不能把 {named} 写成 GGUF。"),
                       Both(f"Supported: {known}.", f"支持：{known}。"))
    if config.to_dict().get("quantization_config"):
        raise _refused(Both("the weights are quantised already; GGUF is made from plain ones.",
                            "权重已经量化；GGUF 要由未量化的权重生成。"),
                       Both("Export the model before it was quantised.", "请导出量化之前的模型。"))
    activation = config.to_dict().get("hidden_activation") or config.to_dict().get("hidden_act")
    if activation != family.activation:
        raise _refused(Both(f"llama.cpp computes {family.activation} in {named}, and this model {activation}.",
                            f"llama.cpp 在 {named} 里用 {family.activation}，而该模型用 {activation}。"), None)
    return family


def _refused(message: Both, fix: Both | None) -> Problem:
    return problem("gguf-architecture", message, option="model_name_or_path", fix=fix)


def tell_windows(config: Any, say: Say) -> None:
    """Say it where a model sees only the last words and llama.cpp lets it see all of them."""
    settings = config.to_dict()
    window = settings.get("sliding_window")
    if settings.get("use_sliding_window") is False or "gemma" in config.model_type or not window:
        return
    if window < config.max_position_embeddings:
        say(Both(f"llama.cpp does not keep this model's window of {window:,} tokens: answers differ beyond that length",
                 f"llama.cpp 不支持该模型 {window:,} token 的滑动窗口：超过这个长度后回答会不同"))
