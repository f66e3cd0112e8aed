"""What an option belongs to: the stage, method or switch without which it does nothing. A form shows only what applies.

Data, a row for every such tie; an option that stands in no row applies always. An option in several rows applies where
all of them hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from truetune.findings import Both
from truetune.options import OPTIONS, Config
from truetune.options.kinds import KINDS
from truetune.rules.ask import WRITES, writes
from truetune.rules.method import OWN


@dataclass(frozen=True)
class Tie:
    """`names` do something where `when(config)`. to: what that is, in words that follow "belongs to"."""

    names: tuple[str, ...]
    when: Callable[[Config], bool]
    to: Both


def _stages(*stages: str) -> Callable[..., Tie]:
    """A tie to some stages."""
    return lambda *names: Tie(names, lambda c: c.stage in stages,
                              Both(f"stage {', '.join(stages)}", f"stage {'、'.join(stages)}"))


def _switch(switch: str) -> Tie:
    """A tie of the options that begin as a switch is called (galore_ of use_galore) to that."""
    begins = switch.removeprefix("use_").removesuffix("loss")
    names = tuple(name for name in OPTIONS if name.startswith(begins) and name != switch)
    return Tie(names, lambda c: bool(getattr(c, switch)), Both(switch, switch))


def _method(name: str) -> Tie:
    """A tie to the methods that take an option."""
    kinds = [kind for kind, facts in KINDS.items() if name in facts.options]
    return Tie((name,), lambda c: name in KINDS[c.finetuning_type].options,
               Both(f"finetuning_type {', '.join(kinds)}", f"finetuning_type {'、'.join(kinds)}"))


_ADAPTER = Both("methods that write an adapter, such as lora", "写出适配器的方法，如 lora")

TIES: tuple[Tie, ...] = (
    _stages("sft")("use_dft_loss", "use_asft_loss", "asft_alpha", "use_eaft_loss", "eaft_alpha"),
    _stages("pt", "sft")("label_smoothing_factor", "compute_accuracy"),
    _stages("rm")("center_rewards_coefficient", "reward_margin"),
    _stages("distill")("teacher_model", "teacher_model_adapters", "distill_beta", "distill_temperature", "lmbda",
                       "kd_ratio"),
    _stages("dpo", "kto")("pref_beta", "pref_ftx", "precompute_ref_log_probs"),
    _stages("dpo")("pref_loss", "pref_loss_weights", "pref_bco_weight", "dpo_label_smoothing", "simpo_gamma",
                   "discopop_tau", "ld_alpha"),
    _stages("kto")("kto_chosen_weight", "kto_rejected_weight"),
    _stages("dpo", "kto", *WRITES)("ref_model", "ref_model_adapters", "ref_model_quantization_bit"),
    _stages(*WRITES)("reward_model", "reward_model_type", "reward_model_adapters", "reward_model_quantization_bit",
                     "reward_funcs", "reward_weights", "reward_pattern", "reward_word"),
    _stages("ppo")("ppo_buffer_size", "ppo_epochs", "ppo_kl_coef", "ppo_adaptive_kl", "ppo_target", "ppo_gamma",
                   "ppo_lambda", "ppo_clip", "ppo_clip_value", "ppo_value_coef", "ppo_score_norm",
                   "ppo_whiten_rewards"),
    _stages("grpo")("num_generations", "steps_per_generation", "num_iterations", "beta", "epsilon", "epsilon_high",
                    "loss_type", "scale_rewards", "baseline", "importance_sampling_level",
                    "mask_truncated_completions"),
    Tie(("max_completion_length",), writes,
        Both("stage grpo and ppo, and distill with lmbda", "stage grpo、ppo，以及设了 lmbda 的 distill")),
    Tie(("do_sample", "temperature", "top_p", "top_k", "min_p", "max_new_tokens", "repetition_penalty",
         "presence_penalty", "frequency_penalty", "generation_seed"),
        lambda c: writes(c) or c.predict_with_generate or c.do_predict,
        Both("stage grpo and ppo, and predict_with_generate", "stage grpo、ppo，以及 predict_with_generate")),
    *(_switch(switch) for switch in ("use_galore", "use_apollo", "use_badam", "use_asft_loss", "use_eaft_loss")),
    *(_method(name) for name in OWN),
    Tie(("adapter_name_or_path", "adapter_folder"), lambda c: KINDS[c.finetuning_type].adapter, _ADAPTER),
    Tie(("create_new_adapter",), lambda c: bool(c.adapter_name_or_path),
        Both("adapter_name_or_path", "adapter_name_or_path")),
    Tie(("quantization_bit", "quantization_method", "quantization_type", "double_quantization"),
        lambda c: bool(KINDS[c.finetuning_type].quantised), _ADAPTER),
    Tie(("rope_factor",), lambda c: c.rope_scaling is not None, Both("rope_scaling", "rope_scaling")),
    Tie(("eval_steps",), lambda c: c.eval_strategy == "steps",
        Both("eval_strategy: steps", "eval_strategy: steps")),
    Tie(("save_steps",), lambda c: c.save_strategy == "steps", Both("save_strategy: steps", "save_strategy: steps")),
    Tie(("num_expand",), lambda c: False, Both("truetune expand", "truetune expand")),
)


def missing(name: str, config: Config) -> Both | None:
    """What the option `name` belongs to and the configuration has not; None where it applies."""
    return next((tie.to for tie in _BY_NAME.get(name, ()) if not tie.when(config)), None)


_BY_NAME = {name: [tie for tie in TIES if name in tie.names] for tie in TIES for name in tie.names}
