"""Positions stretched to texts longer than a model was made for.

Rotary embeddings turn pair i of a head's numbers at position m by the angle m theta_i (Su et al. 2021,
arXiv:2104.09864). Each way to stretch by a factor s changes the theta_i; transformers computes them, and is told by
`rope_parameters` in config.json:

    linear      m / s for m (Chen et al. 2023, arXiv:2306.15595, equation 4)
    dynamic     a larger base, the larger the longer the row is beyond the model's own length ("dynamic NTK")
    yarn        slow pairs as linear, fast ones as they are, and sharper attention (Peng et al. 2023,
                arXiv:2309.00071, section 3.2 to 3.4)
    llama3      the same by wavelength, between a low factor of 1 and a high one of 4 (Llama 3.1)

Names, the factor and the low and high factors are LLaMA-Factory's. Unlike there, `dynamic` leaves
max_position_embeddings as it was: transformers takes that for the length from which on to stretch, so with the larger
number nothing would be stretched before twice the length.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from truetune.findings import Both, Finding
from truetune.model.adapters import adapters_of
from truetune.model.find import load_model_config
from truetune.options import Config

FACTOR = 2.0
"""By how much positions are stretched where nothing says for how long a text: LLaMA-Factory's when it answers."""
_MORE: Mapping[str, Mapping[str, float]] = {"llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}}
_KEEPS_LENGTH = ("yarn", "llama3")
"""Ways that write the model's own length beside the factor, for what is computed from it."""
_BY_ROW = ("dynamic", "longrope")
"""Ways in which angles depend on the length of the row."""
MANIFEST_KEY = "rope"


def settle_stretch(config: Config, settings: Any) -> tuple[Config, list[Finding]]:
    """`config` with `rope_factor` made a number for training, and what there is to say: ceil(cutoff_len / the model's
    own length); 1 where rows are no longer than that.

    Args:
        settings: the model's, as transformers reads config.json.
    """
    if not config.rope_scaling:
        return config, []
    where, own = config.origin("rope_scaling"), own_length(settings)
    if own is None:
        return config, [Finding("no-rope", "error", Both(
            f"this model ({settings.model_type}) has no rotary positions of one kind that could be stretched.",
            f"这个模型（{settings.model_type}）没有可统一拉伸的旋转位置编码。"), option="rope_scaling", where=where,
            fix=Both("Leave rope_scaling out.", "请去掉 rope_scaling。"))]
    if config.rope_factor:
        return config, []
    if config.cutoff_len <= own:
        said = Finding("rope-not-needed", "warn", Both(
            f"positions are not stretched: cutoff_len ({config.cutoff_len}) is within the model's own length ({own}).",
            f"不拉伸位置编码：cutoff_len（{config.cutoff_len}）没有超过模型本身的长度（{own}）。"),
            option="rope_scaling", where=where, fix=Both("Raise cutoff_len, or leave rope_scaling out.",
                                                         "请增大 cutoff_len，或去掉 rope_scaling。"))
        return config.with_values("rule: cutoff_len is within the model's own length", rope_factor=1.0), [said]
    factor = float(math.ceil(config.cutoff_len / own))
    return config.with_values(f"rule: cutoff_len over the model's own {own}", rope_factor=factor), []


def own_length(settings: Any) -> int | None:
    """Tokens of the texts that a model was made for; None: it has no rotary positions, or several kinds of them."""
    text = settings.get_text_config().to_dict()
    rope = text.get("rope_parameters") or {}
    if "rope_theta" not in rope:
        return None
    return rope.get("original_max_position_embeddings") or text.get("max_position_embeddings")


def stretch(settings: Any, config: Config) -> Any:
    """A model's settings with its positions stretched: as `rope_scaling` says, or as an adapter that is loaded was
    trained. They are changed in place, and given back."""
    text, own = settings.get_text_config(), own_length(settings)
    if config.rope_scaling and own:
        factor = config.rope_factor or FACTOR
        if factor > 1:
            rope = {"rope_type": config.rope_scaling, "factor": factor,
                    "rope_theta": text.rope_parameters["rope_theta"], **_MORE.get(config.rope_scaling, {})}
            if config.rope_scaling in _KEEPS_LENGTH:
                rope["original_max_position_embeddings"] = own
            if "partial_rotary_factor" in text.rope_parameters:
                rope["partial_rotary_factor"] = text.rope_parameters["partial_rotary_factor"]
            text.max_position_embeddings = own if config.rope_scaling == "dynamic" else round(own * factor)
            text.rope_parameters = rope
    elif kept := next(filter(None, map(_kept, adapters_of(config))), None):
        text.max_position_embeddings = kept["max_position_embeddings"]
        text.rope_parameters = kept["rope_parameters"]
    return settings


def told(base: Path, config: Config) -> dict[str, Any]:
    """What the manifest beside an adapter says of positions: nothing where they are those of `base`."""
    own, text = (settings.get_text_config() for settings in (
        load_model_config(base), stretch(load_model_config(base), config)))
    if own.to_dict() == text.to_dict():
        return {}
    return {MANIFEST_KEY: {"rope_parameters": dict(text.rope_parameters),
                           "max_position_embeddings": text.max_position_embeddings}}


def stretched_from(settings: Any) -> int | None:
    """The length of a row from which on its angles depend on it; None: they never do."""
    text = settings.get_text_config().to_dict()
    rope = text.get("rope_parameters") or {}
    kinds = [rope] if "rope_type" in rope else [part for part in rope.values() if isinstance(part, Mapping)]
    if not any(kind.get("rope_type") in _BY_ROW for kind in kinds):
        return None
    lengths = [kind.get("original_max_position_embeddings") for kind in kinds]
    return min((length for length in lengths if length), default=text["max_position_embeddings"])


def forget_lengths(model: Any) -> None:
    """Let each forward pass stretch `dynamic` positions by its own length. transformers keeps the longest that it has
    seen, so that what a row gives would depend on the rows before it."""
    for module in model.modules():
        if vars(module).get("rope_type") == "dynamic":
            module.register_forward_pre_hook(_forget)


def _forget(module: Any, args: Any) -> None:
    module.max_seq_len_cached = 0


def _kept(adapter: Path) -> dict[str, Any] | None:
    """What the manifest of an adapter says of positions."""
    file = adapter / "truetune.json"
    return json.loads(file.read_text(encoding="utf-8")).get(MANIFEST_KEY) if file.is_file() else None
