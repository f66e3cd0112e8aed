"""Which type each tensor of a quantised file has: llama.cpp's own mixtures.

A file called q4_k_m is not of q4_k throughout: what hurts most when it is rounded keeps more bits. Which tensors these
are is llama.cpp's decision (`llama_tensor_get_type` in src/llama-quant.cpp), and files of one name should be alike
whoever made them, so its decisions are written down here as tables. For the architectures of `architectures.py` they
give tensor by tensor what its quantiser gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

Q = GGMLQuantizationType

DEFAULTS: dict[str, Q] = {
    "f32": Q.F32, "f16": Q.F16, "bf16": Q.BF16, "q8_0": Q.Q8_0, "q4_0": Q.Q4_0, "q4_1": Q.Q4_1, "q5_0": Q.Q5_0,
    "q5_1": Q.Q5_1, "q2_k": Q.Q2_K, "q2_k_s": Q.Q2_K, "q3_k_s": Q.Q3_K, "q3_k_m": Q.Q3_K, "q3_k_l": Q.Q3_K,
    "q4_k_s": Q.Q4_K, "q4_k_m": Q.Q4_K, "q5_k_s": Q.Q5_K, "q5_k_m": Q.Q5_K, "q6_k": Q.Q6_K, "iq1_s": Q.IQ1_S,
    "iq1_m": Q.IQ1_M, "iq2_xxs": Q.IQ2_XXS, "iq2_xs": Q.IQ2_XS, "iq2_s": Q.IQ2_XS, "iq2_m": Q.IQ2_S,
    "iq3_xxs": Q.IQ3_XXS, "iq3_xs": Q.IQ3_S, "iq3_s": Q.IQ3_S, "iq3_m": Q.IQ3_S, "iq4_nl": Q.IQ4_NL, "iq4_xs": Q.IQ4_XS,
}
"""What a file of a kind mostly holds."""

FALLBACKS = {
    **dict.fromkeys((Q.IQ1_S, Q.IQ1_M, Q.IQ2_XXS, Q.IQ2_XS, Q.IQ2_S, Q.IQ3_XXS, Q.IQ3_S, Q.IQ4_XS), Q.IQ4_NL),
    Q.Q2_K: Q.Q4_0, Q.Q3_K: Q.Q4_0, Q.Q4_K: Q.Q5_0, Q.Q5_K: Q.Q5_1, Q.Q6_K: Q.Q8_0,
}
"""What takes the place of a type whose blocks are 256 weights where a row is not a multiple of that (SmolLM2-135M has
rows of 576); their blocks are 32."""


@dataclass(frozen=True)
class Shape:
    """What of a model the mixtures depend on.

    Args:
        layers: how many. groups: query heads for each head of keys. experts: in a layer, 0 for none.
        tied: whether the embedding is the head too. large: Llama's 80 layers with shared keys.
        importance: whether there is an importance matrix.
    """

    layers: int
    groups: int
    experts: int
    tied: bool
    large: bool
    importance: bool


def tensor_type(name: str, shape: Sequence[int], kind: str, model: Shape) -> Q:
    """The type of the tensor `name` (as in the GGUF file) in a file of a kind of `GGUF_TYPES`.

    Args:
        shape: as in numpy: the last number is the length of a row.
    """
    kept = len(shape) < 2 or not name.endswith("weight") or "_norm.weight" in name or "ffn_gate_inp" in name
    default = Q.F32 if kept else DEFAULTS[kind]
    if GGML_QUANT_SIZES[default][0] == 1:
        return default
    return _that_fits(_mixed(name, shape[-1], kind, default, model), shape[-1])


def _that_fits(wanted: Q, row: int) -> Q:
    """`wanted`, or what rows of this length can be instead."""
    for choice in (wanted, FALLBACKS.get(wanted, wanted)):
        if row % GGML_QUANT_SIZES[choice][0] == 0:
            return choice
    return Q.F16


_VERY_SMALL = ("iq2_xxs", "iq2_xs", "iq1_s", "iq2_s", "iq2_m", "iq1_m")
_IQ2_S = ("iq2_s", "iq2_m")


def _mixed(name: str, row: int, kind: str, default: Q, model: Shape) -> Q:
    """What the mixture wants, whether rows fit or not."""
    if name == "output.weight" or (name == "token_embd.weight" and model.tied):
        return _head(row, kind, default)
    if name == "token_embd.weight":
        return _EMBEDDING.get(kind, default)
    layer = int(found[1]) if (found := re.match(r"blk\.(\d+)\.", name)) else 0
    role = next((role for part, role in _ROLES.items() if part in name), None)
    if role is None:
        return default
    tables = _TABLES_BELOW_3 if kind in _VERY_SMALL else _TABLES
    choose = tables.get(role, {}).get(kind)
    chosen = (choose(model, layer) if choose else None) or default
    if kind in _VERY_SMALL:
        return chosen
    if role == "v" and model.large and chosen in (Q.Q3_K, Q.Q4_K):
        chosen = Q.Q5_K  # eight heads share these weights: more bits cost next to nothing
    if model.experts == 8 and role in ("v", "k"):
        return Q.Q8_0
    return chosen


def _head(row: int, kind: str, default: Q) -> Q:
    if row % GGML_QUANT_SIZES[default][0]:
        return Q.Q8_0
    if kind in _VERY_SMALL or kind == "iq3_xxs":
        return Q.Q5_K
    return default if default == Q.Q8_0 else Q.Q6_K


_EMBEDDING = {**dict.fromkeys(("iq2_xxs", "iq2_xs", "iq1_s", "iq1_m"), Q.Q2_K),
              **dict.fromkeys(("iq2_s", "iq2_m", "iq3_xxs"), Q.IQ3_S)}

_ROLES = {"attn_qkv.weight": "v", "attn_v.weight": "v", "attn_k.weight": "k", "attn_q.weight": "q",
          "attn_output.weight": "o", "ffn_up": "up", "ffn_gate": "up", "ffn_down": "down"}
"""What a tensor does, by a part of its name. The first that fits."""

_Choose = Callable[[Shape, int], Q | None]
"""(model, layer) -> a type; None: what the file mostly holds."""


def _always(chosen: Q) -> _Choose:
    return lambda model, layer: chosen


def _grouped(chosen: Q, otherwise: Q | None = None) -> _Choose:
    """Where four or more query heads share a head of keys, its values weigh more."""
    return lambda model, layer: chosen if model.groups >= 4 else otherwise


def _first(part: int, chosen: Q, otherwise: Q | None = None) -> _Choose:
    """The first layers, 1/part of them."""
    return lambda model, layer: chosen if layer < model.layers // part else otherwise


def _matters(layer: int, layers: int) -> bool:
    """The first eighth, the last eighth, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _where_it_matters(chosen: Q) -> _Choose:
    return lambda model, layer: chosen if _matters(layer, model.layers) else None


def _without_importance(choose: _Choose) -> _Choose:
    return lambda model, layer: None if model.importance else choose(model, layer)


def _with_importance(choose: _Choose) -> _Choose:
    return lambda model, layer: choose(model, layer) if model.importance else None


def _of_eight(chosen: Q, otherwise: Q | None = None) -> _Choose:
    """Mixtral: eight experts share one attention, so more bits there cost little."""
    return lambda model, layer: chosen if model.experts == 8 else otherwise


def _down_iq3_m(model: Shape, layer: int) -> Q | None:
    eight = model.experts == 8 and _matters(layer, model.layers)
    return Q.Q4_K if layer < model.layers // 8 or eight else None


def _middle(chosen: Q) -> _Choose:
    return lambda model, layer: chosen if model.layers // 8 <= layer < 7 * model.layers // 8 else None


_TABLES: dict[str, dict[str, _Choose]] = {
    "v": {
        "q2_k": _grouped(Q.Q4_K, Q.Q3_K), "q2_k_s": _grouped(Q.Q4_K),
        "iq3_xxs": lambda model, layer: Q.Q4_K if model.groups >= 4 else None if model.importance else Q.IQ3_S,
        "iq3_xs": _grouped(Q.Q4_K), "iq3_s": _grouped(Q.Q4_K), "iq3_m": _always(Q.Q4_K),
        "q3_k_m": lambda model, layer: Q.Q5_K if layer < 2 else Q.Q4_K, "q3_k_l": _always(Q.Q5_K),
        "iq4_nl": _grouped(Q.Q5_K), "iq4_xs": _grouped(Q.Q5_K), "q4_k_m": _where_it_matters(Q.Q6_K),
        "q5_k_m": _where_it_matters(Q.Q6_K), "q4_k_s": lambda model, layer: Q.Q5_K if layer < 4 else None,
    },
    "k": {"iq3_xs": _always(Q.IQ3_XXS), "iq3_xxs": _always(Q.IQ2_S)},
    "q": {"iq3_xs": _always(Q.IQ3_XXS), "iq3_xxs": _always(Q.IQ2_S)},
    "o": {
        **dict.fromkeys(("q3_k_s", "iq4_nl", "q4_k_s", "q4_k_m", "iq3_s", "iq4_xs", "iq3_xs"), _of_eight(Q.Q5_K)),
        "q2_k": _of_eight(Q.Q5_K, Q.Q3_K), "iq3_xxs": _of_eight(Q.Q5_K, Q.IQ3_S), "q3_k_m": _of_eight(Q.Q5_K, Q.Q4_K),
        "q3_k_l": lambda model, layer: None if model.experts == 8 else Q.Q5_K, "iq3_m": _of_eight(Q.Q5_K, Q.Q4_K),
    },
    "down": {
        "q2_k": _always(Q.Q3_K), "q2_k_s": _first(8, Q.Q4_K), "q3_k_m": _first(16, Q.Q5_K, Q.Q4_K),
        "q3_k_l": _always(Q.Q5_K), "q4_k_m": _where_it_matters(Q.Q6_K), "q5_k_m": _where_it_matters(Q.Q6_K),
        "q4_k_s": _first(8, Q.Q5_K), "iq3_m": _down_iq3_m,
        "iq3_xxs": _without_importance(_first(8, Q.Q4_K, Q.Q3_K)),
        "iq4_nl": _without_importance(_first(8, Q.Q5_K)), "iq4_xs": _without_importance(_first(8, Q.Q5_K)),
        "q4_0": _with_importance(_first(8, Q.Q4_1)), "q5_0": _with_importance(_first(8, Q.Q5_1)),
    },
    "up": {"iq3_xs": _middle(Q.IQ3_XXS)},
}

_BELOW_3_ODD: dict[str, Q] = {kind: Q.IQ3_S if kind in _IQ2_S else Q.Q2_K for kind in _VERY_SMALL}

_TABLES_BELOW_3: dict[str, dict[str, _Choose]] = {
    "v": {kind: (lambda model, layer, odd=odd: Q.Q4_K if model.groups >= 4 or model.experts >= 4 else odd)
          for kind, odd in _BELOW_3_ODD.items()},
    "k": dict.fromkeys(_VERY_SMALL, _of_eight(Q.Q4_K)),
    "down": {kind: _first(8, odd) for kind, odd in _BELOW_3_ODD.items()},
    "o": {**dict.fromkeys(("iq2_xxs", "iq2_xs"), _of_eight(Q.Q5_K)),
          **dict.fromkeys(("iq1_s", "iq1_m"), _of_eight(Q.Q5_K, Q.IQ2_XXS)),
          **dict.fromkeys(_IQ2_S, _of_eight(Q.Q5_K, Q.IQ3_S))},
}
"""Below 3 bits. By kind of tensor, by kind of file."""
