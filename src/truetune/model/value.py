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

from truetune.data.renderer import Rendered
from truetune.model.policy import Policy
from truetune.objectives.objective import Wants
from truetune.options import Config

FILE = "value_head.safetensors"
VALUE_HEAD = "v_head.summary."
_TOKENS = 8192
"""Of rows that are scored together: enough to keep the machine busy, in little memory."""


def make_value_head(causal: PreTrainedModel, config: Config, base: Path) -> torch.nn.Linear:
    """A value head for `causal`: the one beside the adapter or model that is trained further, or a new one that begins
    near 0 (weights of spread 1 / sqrt(H + 1): Stiennon et al. 2020, arXiv:2009.01325, and Huang et al. 2024,
    arXiv:2403.17031, detail 8)."""
    width = causal.config.get_text_config().hidden_size
    head = torch.nn.Linear(width, 1, device=causal.device, dtype=torch.float32)
    torch.nn.init.normal_(head.weight, std=(width + 1) ** -0.5)
    torch.nn.init.zeros_(head.bias)
    for folder in (*config.adapter_name_or_path[:1], base):
        if (Path(folder) / FILE).is_file():
            load_value_head(head, Path(folder))
            break
    return head


def load_value_head(head: torch.nn.Linear, folder: Path) -> None:
    """Put the weights in `folder` into `head`."""
    kept = load_file(folder / FILE)
    with torch.no_grad():
        head.weight.copy_(kept[f"{VALUE_HEAD}weight"].reshape(head.weight.shape))
        head.bias.copy_(kept[f"{VALUE_HEAD}bias"].reshape(head.bias.shape))


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
    training, wants = policy.causal.training, Wants(logp=False, values=True, ends=True)
    policy.causal.eval()
    try:
        with torch.no_grad():
            return torch.cat([judge.outputs(judge.lay_out(some), wants).values for some in _together(rows)])
    finally:
        policy.causal.train(training)


def _together(rows: Sequence[Rendered]) -> list[list[Rendered]]:
    """Neighbours that are computed at once."""
    batches: list[list[Rendered]] = []
    for row in rows:
        if not batches or sum(map(len, batches[-1])) + len(row) > _TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches
