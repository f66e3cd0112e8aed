"""One step from summed gradients, with float32 master weights where the model computes in less.

A model in bfloat16 has 8 bits of mantissa: an update smaller than 1/256 of a weight is lost. So the optimizer steps a
float32 copy of what is trained and rounds it into the model afterwards; gradients are added up in float32 too. The copy
is made from the parameters as they are when the optimizer is built: cast the model afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from truetune.model.precision import Precision
from truetune.optim.chain import parts_of
from truetune.optim.schedule import build_schedule
from truetune.optim.state import apart, flatten, restore
from truetune.options import Config
from truetune.options.optimizers import kind_of

Build = Callable[[Mapping[str, torch.Tensor]], torch.optim.Optimizer]
"""Makes the optimizer that steps weights, by their names."""


class Optimizer:
    """An optimizer of the trained parameters (`inner`, of their `masters`), with its schedule.

    Args:
        penalty: added once a step to the mean loss. stepped(step): called after step number `step` (from 1), while the
            mean gradients are in the parameters' `.grad`; it may change parameters.
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], build: Build, config: Config, precision: Precision,
                 total_steps: int, penalty: Callable[[], torch.Tensor] | None = None,
                 stepped: Callable[[int], None] | None = None):
        self._build, self._penalty, self._stepped = build, penalty, stepped
        self._l1, self._l2, self.max_norm = config.l1_lambda, config.l2_lambda, config.max_grad_norm
        self._averages, self._shown = kind_of(config).averages, False
        self.steps = 0
        self._take(weights, precision)
        self.inner = build(self.masters)
        self.schedule = build_schedule(self.inner, config, total_steps)
        device = next(iter(self.masters.values())).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=precision.scaled)

    def _take(self, weights: Mapping[str, torch.nn.Parameter], precision: Precision) -> None:
        """Make the masters of `weights`, and have gradients go to them."""
        self.parameters = dict(weights)
        self.masters = {
            name: parameter.detach().float().clone().requires_grad_() if precision.master else parameter
            for name, parameter in weights.items()
        }
        self._hooks = [parameter.register_post_accumulate_grad_hook(hook)
                       for name, parameter in self.parameters.items() if (hook := self._hook(name))]

    def _hook(self, name: str) -> Callable[[torch.Tensor], None] | None:
        """What happens to a gradient as soon as it is there."""
        return None if self.masters[name] is self.parameters[name] else partial(_add_up, self.masters[name])

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.inner.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        groups = self.inner.param_groups
        for group in groups:  # LoRA+ has several rates
            _assign(group, "lr", rate * (group["initial_lr"] / groups[0]["initial_lr"]))

    def backward(self, loss: torch.Tensor, count: float) -> None:
        """Add the gradients of `loss` (a sum over tokens, not a mean) to those already there.

        Args:
            count: what `loss` is to be divided by, if it is all of the step. `step` is told that of the whole step.
        """
        self.scaler.scale(loss).backward()

    def make_room(self) -> None:
        """Take the memory of AdamW's moments now, before activations come and go: taken in between, the pieces that
        are free are torn apart (a full fine-tuning in bfloat16 took 4 % more)."""
        for part in parts_of(self.inner):
            if type(part) is not torch.optim.AdamW:
                continue
            for group in part.param_groups:
                for weight in group["params"]:
                    step = torch.zeros((), dtype=torch.float32, device=weight.device if group["fused"] else "cpu")
                    part.state[weight] = {
                        "step": step, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}

    def release(self) -> None:
        """Let go of the parameters and of the state's memory: another optimizer takes over."""
        for hook in self._hooks:
            hook.remove()
        self.inner.state.clear()

    def step(self, count: float) -> float:
        """Divide the summed gradients by `count` (where nothing is learned by 1: they are 0), clip them, step, and move
        the schedule on.

        Returns:
            The length of the gradient before clipping. If it is not finite nothing was changed, and the gradients are
            dropped: with loss scaling this is an ordinary event (the scale is halved), without it the caller must stop.
        """
        self.steps += 1
        if self._penalty:
            self.scaler.scale(self._penalty() * (count or 1)).backward()
        self.scaler.unscale_(self.inner)
        weights = [master for master in self.masters.values() if master.grad is not None]
        self._divide(weights, count)
        norm = torch.nn.utils.clip_grad_norm_(weights, self.max_norm or float("inf"))
        if norm.isfinite():
            self.scaler.step(self.inner)
            self._round(self.masters)
            self._tell_stepped()
            self._move_on()
        self.scaler.update()
        self.drop_gradients()
        return float(norm)

    def _divide(self, weights: Sequence[torch.Tensor], count: float) -> None:
        """Make mean gradients of summed ones, and add those of l1 Σ|w| + l2 Σw² over the trained weights."""
        for weight in weights:
            assert weight.grad is not None
            weight.grad.div_(count or 1)
            if self._l1:
                weight.grad.add_(weight.detach().sign(), alpha=self._l1)
            if self._l2:
                weight.grad.add_(weight.detach(), alpha=2 * self._l2)

    @torch.no_grad()
    def _round(self, names: Mapping[str, Any] | Sequence[str]) -> None:
        """Round masters into the model."""
        for name in names:
            if self.masters[name] is not self.parameters[name]:
                self.parameters[name].copy_(self.masters[name])

    @torch.no_grad()
    def _tell_stepped(self) -> None:
        """Call `stepped`; where it has changed a parameter its master follows."""
        if not self._stepped:
            return
        for name, parameter in self.parameters.items():
            grad = self.masters[name].grad
            parameter.grad = None if grad is None else grad.to(parameter.dtype)
        self._stepped(self.steps)
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            if master is not parameter:
                master.copy_(torch.where(parameter == master.to(parameter.dtype), master, parameter.float()))

    def _move_on(self) -> None:
        if not isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step()

    def drop_gradients(self) -> None:
        self.inner.zero_grad(set_to_none=True)
        for parameter in self.parameters.values():
            parameter.grad = None

    def evaluated(self, loss: float) -> None:
        """Tell the one schedule that watches the evaluation loss."""
        if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(loss)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While entered the model has the weights that are to be used: of a schedule-free optimizer their average, not
        those that it takes gradients at (Defazio et al. 2024, arXiv:2405.15682). They are put back to
        the bit, which the optimizer's own way back does not."""
        if not self._averages or self._shown:
            yield
            return
        kept = {name: master.detach().clone() for name, master in self.masters.items()}
        parts: list[Any] = parts_of(self.inner)
        self._shown = True
        for part in parts:
            part.eval()
        self._round(self.masters)
        try:
            yield
        finally:
            for part in parts:
                part.train()
            with torch.no_grad():
                for name, master in self.masters.items():
                    master.copy_(kept[name])
            self._round(self.masters)
            self._shown = False

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Everything needed to go on exactly: tensors, and what JSON can hold."""
        tensors = {f"weight.{name}": master.detach() for name, master in self.masters.items()}
        numbers: dict[str, Any] = {}
        for name, master in self.masters.items():
            flatten(self.inner.state.get(master, {}), name, tensors, numbers)
        tensors = apart(tensors)
        groups = [{key: _plain(value) for key, value in group.items() if _holds(value)}
                  for group in self.inner.param_groups]
        return tensors, {"schedule": _plain(self.schedule.state_dict()), "scaler": self.scaler.state_dict(),
                         "groups": groups, "steps": self.steps, "state": numbers}

    def load_state(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        """The inverse of `state`. The trained parameters of the model are set from the master weights.

        A step with gradients of 0 makes the state, so that each tensor of it is where and what the optimizer wants it
        to be; then its numbers are replaced.
        """
        for master in self.masters.values():
            master.grad = torch.zeros_like(master)
        self.inner.step()
        self.drop_gradients()
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(tensors[f"weight.{name}"])
                restore(self.inner.state[master], name, tensors, numbers["state"])
        self._round(self.masters)
        self.steps = numbers["steps"]
        self.schedule.load_state_dict(dict(numbers["schedule"]))
        self.scaler.load_state_dict(dict(numbers["scaler"]))
        for group, saved in zip(self.inner.param_groups, numbers["groups"], strict=True):
            for key, value in saved.items():
                _assign(group, key, value)


def _add_up(master: torch.Tensor, parameter: torch.Tensor) -> None:
    """Add a gradient to its float32 copy as soon as it is there, so that never all of them are held twice."""
    assert parameter.grad is not None
    grad = parameter.grad.float()
    parameter.grad = None
    master.grad = grad if master.grad is None else master.grad.add_(grad)


def _holds(value: Any) -> bool:
    """Whether a group's value is a number, a word or nothing, or a tensor of one number."""
    return value is None or isinstance(value, (bool, int, float, str)) or (
        isinstance(value, torch.Tensor) and value.ndim == 0)


def _plain(value: Any) -> Any:
    """`value` with numbers for tensors of one number, as JSON can hold it."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, torch.Tensor) else value


def _assign(group: dict[str, Any], key: str, value: Any) -> None:
    """Set a number of a group; where that is a tensor, its number."""
    if isinstance(group.get(key), torch.Tensor):
        group[key].fill_(value)
    else:
        group[key] = value
