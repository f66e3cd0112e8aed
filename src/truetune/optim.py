"""Optimizer and schedule: one step from summed gradients, with float32 master weights where the model computes in less.

A model in bfloat16 has 8 bits of mantissa: an update smaller than 1/256 of a weight is lost. So the optimizer steps a
float32 copy of what is trained and rounds it into the model afterwards; gradients are added up in float32 too. The copy
is made from the parameters as they are when the optimizer is built: cast the model afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from transformers import get_scheduler

from truetune.model.precision import Precision
from truetune.options import Config
from truetune.steps import warmup_steps


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on the trained parameters, with its schedule."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], config: Config, precision: Precision,
                 total_steps: int):
        self.parameters = dict(parameters)
        self.masters = {
            name: parameter.detach().float().clone().requires_grad_() if precision.master else parameter
            for name, parameter in parameters.items()
        }
        self._hooks = [parameter.register_post_accumulate_grad_hook(partial(_add_up, self.masters[name]))
                       for name, parameter in self.parameters.items() if self.masters[name] is not parameter]
        # Biases and norms (one dimension) are scales, not directions: decay only makes them smaller.
        decayed = [weight for weight in self.masters.values() if weight.ndim > 1]
        others = [weight for weight in self.masters.values() if weight.ndim <= 1]
        self.adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_epsilon,
            fused=config.optim == "adamw_torch_fused",
        )
        self.schedule = build_schedule(self.adamw, config, total_steps)
        device = next(iter(self.masters.values())).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=precision.scaled)
        self.max_norm = config.max_grad_norm

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.adamw.param_groups[0]["lr"]

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss` (a sum over tokens, not a mean) to those already there."""
        self.scaler.scale(loss).backward()

    def make_room(self) -> None:
        """Take the memory of AdamW's moments now, before activations come and go: taken in between, the pieces that
        are free are torn apart (a full fine-tuning in bfloat16 took 4 % more)."""
        for master in self.masters.values():
            step = torch.zeros((), dtype=torch.float32, device=master.device if self._fused else "cpu")
            self.adamw.state[master] = {
                "step": step, "exp_avg": torch.zeros_like(master), "exp_avg_sq": torch.zeros_like(master)}

    def release(self) -> None:
        """Let go of the parameters and of the moments' memory: another optimizer takes over."""
        for hook in self._hooks:
            hook.remove()
        self.adamw.state.clear()

    def step(self, count: float) -> float:
        """Divide the summed gradients by `count` (where nothing is learned by 1: they are 0), clip them, step, and move
        the schedule on.

        Returns:
            The length of the gradient before clipping. If it is not finite nothing was changed, and the gradients are
            dropped: with loss scaling this is an ordinary event (the scale is halved), without it the caller must stop.
        """
        self.scaler.unscale_(self.adamw)
        weights = [master for master in self.masters.values() if master.grad is not None]
        for master in weights:
            assert master.grad is not None
            master.grad.div_(count or 1)
        norm = torch.nn.utils.clip_grad_norm_(weights, self.max_norm or float("inf"))
        if norm.isfinite():
            self.scaler.step(self.adamw)
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    if self.masters[name] is not parameter:
                        parameter.copy_(self.masters[name])
            if not isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                self.schedule.step()
        self.scaler.update()
        self.drop_gradients()
        return float(norm)

    def drop_gradients(self) -> None:
        self.adamw.zero_grad(set_to_none=True)
        for parameter in self.parameters.values():
            parameter.grad = None

    def evaluated(self, loss: float) -> None:
        """Tell the one schedule that watches the evaluation loss."""
        if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(loss)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Everything needed to go on exactly: tensors, and what JSON can hold."""
        tensors: dict[str, torch.Tensor] = {}
        for name, master in self.masters.items():
            tensors[f"weight.{name}"] = master.detach()
            for key, value in self.adamw.state.get(master, {}).items():
                tensors[f"{key}.{name}"] = value
        numbers = {"schedule": self.schedule.state_dict(), "scaler": self.scaler.state_dict(),
                   "learning_rates": [group["lr"] for group in self.adamw.param_groups]}
        return tensors, numbers

    def load_state(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        """The inverse of `state`. The trained parameters of the model are set from the master weights."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(tensors[f"weight.{name}"])
                if self.parameters[name] is not master:
                    self.parameters[name].copy_(master)
        for name, master in self.masters.items():
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors]
            self.adamw.state[master] = {
                key: tensors[f"{key}.{name}"].to("cpu" if key == "step" and not self._fused else master.device)
                for key in keys
            }
        self.schedule.load_state_dict(dict(numbers["schedule"]))
        self.scaler.load_state_dict(dict(numbers["scaler"]))
        for group, rate in zip(self.adamw.param_groups, numbers["learning_rates"], strict=True):
            group["lr"] = rate

    @property
    def _fused(self) -> bool:
        return bool(self.adamw.defaults["fused"])


def _add_up(master: torch.Tensor, parameter: torch.Tensor) -> None:
    """Add a gradient to its float32 copy as soon as it is there, so that never all of them are held twice."""
    assert parameter.grad is not None
    grad = parameter.grad.float()
    parameter.grad = None
    master.grad = grad if master.grad is None else master.grad.add_(grad)


def build_schedule(optimizer: torch.optim.Optimizer, config: Config, total_steps: int) -> Any:
    """The learning-rate schedule, transformers' own, so that names and settings mean what they mean everywhere.

    `warmup_stable_decay` without settings holds a third of the steps after warmup and decays over the rest.
    """
    warmup = warmup_steps(config, total_steps)
    settings = dict(config.lr_scheduler_kwargs)
    if config.lr_scheduler_type == "warmup_stable_decay":
        stable = settings.get("num_stable_steps", (total_steps - warmup) // 3)
        settings.setdefault("num_decay_steps", total_steps - warmup - stable)
    return get_scheduler(config.lr_scheduler_type, optimizer, num_warmup_steps=warmup,
                         num_training_steps=total_steps, scheduler_specific_kwargs=settings)
