"""The value head: one number from a hidden state, which reward modelling and PPO train beside the model.

It is kept as users of LLaMA-Factory and TRL know it: `value_head.safetensors` with `v_head.summary.weight` (1, H) and
`v_head.summary.bias` (1,), in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from truetune.data.batches import neighbours
from truetune.data.renderer import Rendered
from truetune.model.adapters import adapters_of
from truetune.model.policy import Policy
from truetune.objectives.objective import Wants
from truetune.options import Config

FILE = "value_head.safetensors"
VALUE_HEAD = "v_head.summary."


def make_value_head(causal: PreTrainedModel, config: Config, base: Path) -> torch.nn.Linear:
    """A value head for `causal`: the one beside the adapter or model that is trained further, or a new one that begins
    near 0 (weights of spread 1 / sqrt(H + 1): Stiennon et al. 2020, arXiv:2009.01325, and Huang et al. 2024,
    arXiv:2403.17031, detail 8)."""
    known = load_value_head(causal, [*adapters_of(config)[-1:], base])
    if known:
        return known
    head = _linear(causal)
    torch.nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
    torch.nn.init.zeros_(head.bias)
    return head


def load_value_head(causal: PreTrainedModel, folders: Sequence[Path]) -> torch.nn.Linear | None:
    """The value head for `causal` in the first of `folders` that has one; None: none has."""
    folder = next((folder for folder in folders if (folder / FILE).is_file()), None)
    if folder is None:
        return None
    head, kept = _linear(causal), load_file(folder / FILE)
    with torch.no_grad():
        head.weight.copy_(kept[f"{VALUE_HEAD}weight"].reshape(head.weight.shape))
        head.bias.copy_(kept[f"{VALUE_HEAD}bias"].reshape(head.bias.shape))
    return head


def _linear(causal: PreTrainedModel) -> torch.nn.Linear:
    return torch.nn.Linear(causal.config.get_text_config().hidden_size, 1, device=causal.device, dtype=torch.float32)


def head_weights(head: torch.nn.Linear) -> dict[str, torch.nn.Parameter]:
    """Its parameters, by the names they are saved under."""
    return {f"{VALUE_HEAD}{name}": weight for name, weight in head.named_parameters()}


def write_value_head(folder: Path, trained: Mapping[str, torch.Tensor]) -> None:
    """Write the value head that is among the trained weights."""
    own = {name: weight.detach().contiguous() for name, weight in trained.items() if name.startswith(VALUE_HEAD)}
    save_file(own, folder / FILE)


def score(policy: Policy, head: torch.nn.Module, rows: Sequence[Rendered]) -> torch.Tensor:
    """What a reward model says: (B,) float32, the number of each row at its last token, without gradients.

    Args:
        policy: the model. head: its value head; it may be another one than the policy trains.
    """
    if not rows:
        return torch.zeros(0, device=policy.causal.device)
    judge = copy(policy)  # the same model and ways
    judge.value_head = head
    wants = Wants(logp=False, values=True, ends=True)
    with policy.still():
        return torch.cat([judge.outputs(judge.lay_out([rows[number] for number in numbers]), wants).values
                          for numbers in neighbours(map(len, rows))])
