"""Probabilities against probabilities: how far two forms of a model are from each other on the same words.

The same ids go in, so what differs comes from weights and arithmetic alone. Full precision has to agree to rounding;
a quantised form has a distance of its own, which is told and has a bound only against absurdity (`BOUNDS`, measured by
`benchmarks/parity.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from truetune.findings import Both
from truetune.parity.layers import Layer, Refused
from truetune.parity.probes import PASSAGES, Probe
from truetune.serve.llamacpp import LlamaServer

_EACH = 16
"""Positions of a passage that are compared."""
_TOLD = 1000
"""Words whose probabilities a server is asked for; the others count as one."""
_LIKELY = 1e-4
"""A word of this probability can be drawn; what is far less likely differs by rounding alone, and matters to nobody."""


@dataclass(frozen=True)
class Passage:
    """ids: (T,). positions: after which of them the next token's probabilities are compared."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Bound:
    """Beyond these a form is not the same model: kl: mean KL divergence in nats. agreement: share of positions whose
    likeliest token is the same."""

    kl: float
    agreement: float


@dataclass(frozen=True)
class Distance:
    """How far a form is from another.

    Attributes:
        form, base: what was compared with what. positions: how many. largest: max |Δ log p| over the words that the
            base gives 1e-4 or more. kl: mean KL(base || form) over all words, in nats. agreement: share of positions
            whose likeliest word is the same. bound: what is allowed.
    """

    form: str
    base: str
    positions: int
    largest: float
    kl: float
    agreement: float
    bound: Bound

    @property
    def near(self) -> bool:
        return self.kl <= self.bound.kl and self.agreement >= self.bound.agreement

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "near": self.near}


def passages(layer: Layer) -> list[Passage]:
    """The fixed words as a place reads them: each a conversation whose answer is asked for."""
    found: list[Passage] = []
    for text in PASSAGES:
        try:
            ids = layer.prompt(Probe(text, ({"role": "user", "content": text},)))
        except Refused:
            continue  # a template that refuses even this
        found.append(Passage(tuple(ids), tuple(np.unique(np.linspace(1, len(ids) - 1, _EACH).astype(int)).tolist())))
    return found


def model_logprobs(model: Any, asked: Sequence[Passage]) -> np.ndarray:
    """Log-probabilities (P, V) of a model of transformers or PEFT, in float32."""
    rows: list[np.ndarray] = []
    with torch.inference_mode():
        for passage in asked:
            ids = torch.tensor([passage.ids], device=next(model.parameters()).device)
            logits = model(input_ids=ids, use_cache=False).logits[0]  # (T, V); virtual tokens would stand before
            logits = logits[-len(passage.ids):][list(passage.positions)].float()
            rows.append(torch.log_softmax(logits, -1).cpu().numpy())
    return np.concatenate(rows)


def gguf_logprobs(engine: LlamaServer, asked: Sequence[Passage], adapter: int | None = None) -> np.ndarray:
    """Log-probabilities (P, V) of a GGUF file in llama.cpp, of the `_TOLD` likeliest words; -inf for the others.
    adapter: the number of the one that is on."""
    return np.stack([engine.next_logprobs(passage.ids[: position + 1], _TOLD, adapter)
                     for passage in asked for position in passage.positions])


def distance(form: str, found: np.ndarray, base: str, wanted: np.ndarray, bound: Bound) -> Distance:
    """How far `found` (P, V) is from `wanted` (P, V). Words of which either is silent (-inf) count as one word."""
    size = max(found.shape[1], wanted.shape[1])
    found, wanted = _padded(found, size), _padded(wanted, size)
    told = np.isfinite(found) & np.isfinite(wanted)
    given, gives = np.where(told, np.exp(wanted), 0.0), np.where(told, np.exp(found), 0.0)
    gaps = np.where(told, wanted, 0.0) - np.where(told, found, 0.0)
    rest, rests = (np.clip(1 - some.sum(-1), 1e-9, 1) for some in (given, gives))
    kl = (given * gaps).sum(-1) + rest * np.log(rest / rests)
    largest = float(np.abs(gaps[given >= _LIKELY]).max(initial=0.0))
    return Distance(form, base, len(wanted), largest, max(0.0, float(kl.mean())),
                    float((found.argmax(-1) == wanted.argmax(-1)).mean()), bound)


def _padded(logprobs: np.ndarray, size: int) -> np.ndarray:
    """(P, V) as (P, size) in float64: of words beyond the vocabulary nothing is said."""
    return np.pad(logprobs.astype(np.float64), ((0, 0), (0, size - logprobs.shape[1])), constant_values=-np.inf)


_EXACT = Bound(1e-4, 0.99)
_HALF = Bound(5e-3, 0.95)
BOUNDS: Mapping[float, Bound] = {
    32: _EXACT, 16: _HALF, 8: Bound(0.05, 0.85), 6: Bound(0.2, 0.7), 5: Bound(1.0, 0.6), 4: Bound(2.5, 0.35),
    3: Bound(3.0, 0.3), 2: Bound(6.0, 0.1),
}
"""By bits of a weight, the most that is allowed: about three times and more what `benchmarks/parity.py` found for the
furthest type on SmolLM2-135M without an importance matrix, which loses more than larger models (f16 3.4e-5, bf16 3e-4,
q8_0 0.008, q6_k 0.029, q5_k_m 0.20, q4_0 0.86, q3_k_m 0.24, q2_k 0.69). One matrix that was scaled by 1.2 is caught at
16 bits; a model without its adapter was at 8.8."""


def bound_of(bits: float) -> Bound:
    """The bound of a form whose weights have so many bits."""
    return BOUNDS[max((known for known in BOUNDS if known <= bits), default=2)]


def too_far(distance: Distance) -> Both:
    """Why a form is not the same model, in one line."""
    kl, agreement, bound = distance.kl, distance.agreement, distance.bound
    return Both(f"its probabilities are far from those of {distance.base}: mean KL {kl:.3g} (at most {bound.kl:g}), "
                f"likeliest word the same at {agreement:.0%} of {distance.positions} positions (at least "
                f"{bound.agreement:.0%}): other weights, or another arithmetic of the architecture",
                f"概率与 {distance.base} 相差太远：平均 KL {kl:.3g}（上限 {bound.kl:g}），{distance.positions} 个位置中"
                f" {agreement:.0%} 的首选词相同（下限 {bound.agreement:.0%}）：权重不同，或模型结构的计算方式不同")
