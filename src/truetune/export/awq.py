"""AWQ (Lin et al. 2023, arXiv:2306.00978): the weights of inputs that are large matter most, so they are made larger
before everything is rounded, and what comes before makes the inputs smaller by as much.

    Q(W diag(s)) (diag(s)⁻¹ X)      s = s_X^α      s_X: mean |X| of each input      (equations 4 and 5)

α is the one of 20 between 0 and 1 with the least |Q(W diag(s)) diag(s)⁻¹ X - W X|². diag(s)⁻¹ goes into the weights of
what makes the input: a norm before the layers, or a linear layer before. Which one that is, is tried: with both
scaled, the decoder layer must give what it gave. So no architecture has to be known, and where there is none (a
mixture's experts share their norm with the router), the layer is rounded as it is. The authors' code cuts large weights
off as well; that is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from truetune.export.replay import Block, watched

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs

_STEPS = 20


@dataclass(frozen=True)
class Before:
    """What makes an input. plus: a norm multiplies by weight + plus (Gemma's by 1 + weight)."""

    module: torch.nn.Module
    plus: float = 0.0

    def divide(self, by: torch.Tensor) -> None:
        """Make each output smaller by its own factor. by: (I,)."""
        weight = self.module.get_parameter("weight")
        each = by if weight.dim() == 1 else by[:, None]
        weight.copy_((weight.float() + self.plus) / each - self.plus)
        for name, bias in self.module.named_parameters(recurse=False):
            if name == "bias":
                bias.copy_(bias.float() / by)


def protect(block: Block, layers: Mapping[str, torch.nn.Linear], args: QuantizationArgs) -> None:
    """Scale the weights of `layers`, which lie in `block`, and divide what comes before them."""
    means, squares = _means(block, layers), block.hessians(layers)
    for group, candidates in _groups(block, layers):
        before = next((each for each in candidates if _leaves_as_is(block, each, group)), None)
        if before:
            name = next(name for name, layer in layers.items() if layer is group[0])
            scale = _search(group, means[name], squares[name], args)
            before.divide(scale)
            _scale(group, scale)


def _scale(group: Sequence[torch.nn.Linear], scale: torch.Tensor) -> None:
    for layer in group:
        layer.weight.copy_(layer.weight.float() * scale)


def _search(group: Sequence[torch.nn.Linear], mean: torch.Tensor, square: torch.Tensor, args: QuantizationArgs
            ) -> torch.Tensor:
    """The best s (I,). mean: s_X (I,). square: X Xᵀ (I, I)."""
    from truetune.export.quantized import nearest

    best, least = torch.ones_like(mean), float("inf")
    for step in range(_STEPS):
        scale = mean.clamp(min=1e-4) ** (step / _STEPS)
        scale = scale / (scale.max() * scale.min()).sqrt()
        lost = 0.0
        for layer in group:
            weight = layer.weight.float()
            off = nearest(weight * scale, args, layer.weight.dtype).weight / scale - weight  # (O, I)
            lost += float(((off @ square) * off).sum())
        if lost < least:
            best, least = scale, lost
    return best


def _means(block: Block, layers: Mapping[str, torch.nn.Linear]) -> dict[str, torch.Tensor]:
    """Mean |X| of each input of each layer: (I,)."""
    sums: dict[str, torch.Tensor] = {}
    count: dict[str, int] = {}

    def add(name: str, x: torch.Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1]).float().abs()
        sums[name] = sums.get(name, torch.zeros_like(rows[0])) + rows.sum(0)
        count[name] = count.get(name, 0) + len(rows)

    with watched(layers, add):
        for _ in block.outputs():
            pass
    return {name: total / count[name] for name, total in sums.items()}


def _groups(block: Block, layers: Mapping[str, torch.nn.Linear]
            ) -> Iterator[tuple[list[torch.nn.Linear], list[Before]]]:
    """Layers that get the same input, with what may make it: the norm whose output it is, or a linear layer that runs
    before and has as many outputs."""
    inputs: dict[str, torch.Tensor] = {}
    outputs: list[tuple[torch.nn.Module, Any]] = []

    def ran_now(module: torch.nn.Module, given: Any, out: Any) -> None:
        outputs.append((module, out))

    hooks = [module.register_forward_hook(ran_now) for module in block.layer.modules() if not list(module.children())]
    try:
        with watched(layers, inputs.__setitem__):
            next(block.outputs())
    finally:
        for hook in hooks:
            hook.remove()
    ran = [module for module, _ in outputs]
    for x in {id(x): x for x in inputs.values()}.values():
        group = [layers[name] for name, mine in inputs.items() if mine is x]
        norms = [module for module, out in outputs if out is x and _is_norm(module)]
        before = ran[: min(ran.index(layer) for layer in group)]
        linear: list[Any] = [module for module in before if isinstance(module, torch.nn.Linear)
                             and module.out_features == group[0].in_features]
        yield group, [*(Before(norm, plus) for norm in norms for plus in (0.0, 1.0)), *map(Before, reversed(linear))]


def _is_norm(module: torch.nn.Module) -> bool:
    return any(name == "weight" and weight.dim() == 1 for name, weight in module.named_parameters(recurse=False))


def _leaves_as_is(block: Block, before: Before, group: Sequence[torch.nn.Linear]) -> bool:
    """Whether dividing `before` takes back what scaling `group` does to the first text's output. Factors are powers of
    2, so only 1 + weight is rounded anew."""
    kept = [(weight, weight.clone()) for module in (before.module, *group) for weight in module.parameters()]
    expected = next(block.outputs()).float()
    odd = torch.arange(group[0].in_features, device=expected.device) % 2 == 1
    factors = torch.where(odd, 2.0, 0.5)
    _scale(group, factors)
    alone = (next(block.outputs()).float() - expected).norm()
    before.divide(factors)
    together = (next(block.outputs()).float() - expected).norm()
    for weight, old in kept:
        weight.copy_(old)
    return bool(together <= _ROUNDED * alone)


_ROUNDED = 0.05
