"""Losses on pairs of answers. One paper, one file: citation, equation, and a pure function from numbers of pairs to the
loss of each. What is known of them without computing (whether they need a reference, say) is in `options.preference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from truetune.objectives.pairs.aot import aot
from truetune.objectives.pairs.apo import apo_down, apo_zero
from truetune.objectives.pairs.bco import RunningMean, bco_pair
from truetune.objectives.pairs.cpo import cpo
from truetune.objectives.pairs.discopop import discopop
from truetune.objectives.pairs.dpo import sigmoid
from truetune.objectives.pairs.exo import exo
from truetune.objectives.pairs.ipo import ipo
from truetune.objectives.pairs.kto_pair import kto_pair
from truetune.objectives.pairs.nca import nca
from truetune.objectives.pairs.orpo import orpo, parts
from truetune.objectives.pairs.pair import PairLoss, Pairs
from truetune.objectives.pairs.robust import robust
from truetune.objectives.pairs.rpo import sft
from truetune.objectives.pairs.simpo import simpo
from truetune.objectives.pairs.slic import hinge
from truetune.objectives.pairs.sppo import sppo
from truetune.options.preference import PreferenceOptions

COMPUTE: Mapping[str, PairLoss] = {
    "sigmoid": sigmoid, "hinge": hinge, "ipo": ipo, "kto_pair": kto_pair, "orpo": orpo, "simpo": simpo,
    "robust": robust, "exo": exo, "nca": nca, "bco_pair": bco_pair, "sppo": sppo, "aot": aot, "apo_zero": apo_zero,
    "apo_down": apo_down, "cpo": cpo, "discopop": discopop, "sft": sft,
}
"""How each loss is computed."""
PARTS: Mapping[str, Callable[[Pairs, PreferenceOptions], Mapping[str, torch.Tensor]]] = {"orpo": parts}
"""Further metrics, (P,) each, of losses that have some."""

__all__ = ["COMPUTE", "PARTS", "PairLoss", "Pairs", "RunningMean"]
