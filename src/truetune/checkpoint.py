"""Checkpoints: everything needed to go on exactly, written whole or not at all, without a pickle.

`checkpoint-N/` holds the adapter or model as users load it, the tokenizer, and for going on `optimizer.safetensors`
(master weights and moments), `random.safetensors` and `trainer_state.json`. The order of the data needs no state: it is
a function of the step. What is computed after resuming equals, bit for bit on the CPU, what would have been computed.

torch is imported where tensors are read and written: whoever only looks which checkpoints there are needs none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from truetune.files import remove_folder, write_folder, write_json
from truetune.findings import Both, problem

if TYPE_CHECKING:
    import torch

    from truetune.optim import Optimizer

STATE, OPTIMIZER, RANDOM, LESSONS = (
    "trainer_state.json", "optimizer.safetensors", "random.safetensors", "lessons.safetensors")


Means = dict[str, list[float]]
"""By name, a sum and what to divide it by."""


def add_up(sums: Means, more: Mapping[str, Sequence[float]]) -> None:
    """Add sums to sums."""
    for name, (total, count) in more.items():
        known = sums.setdefault(name, [0.0, 0.0])
        known[0] += float(total)
        known[1] += count


def means(sums: Means) -> dict[str, float]:
    """The means of what was there at all."""
    return {name: total / count for name, (total, count) in sums.items() if count}


@dataclass
class Progress:
    """Where a run stands after `step` optimizer steps. Sums are over what the objective counts (learned tokens, pairs)
    since the last log line (`window`) and since the start (`total`); seconds are of training, pauses between processes
    left out. objective: what that carries from step to step."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    window_loss: float = 0.0
    window_count: float = 0.0
    total_loss: float = 0.0
    total_count: float = 0.0
    best_eval: float | None = None
    evaluations_without_gain: int = 0
    evaluations: list[dict[str, float]] = field(default_factory=list)
    window_metrics: Means = field(default_factory=dict)
    objective: dict[str, float] = field(default_factory=dict)

    def took_step(self, loss_sum: float, count: float, tokens: int, seconds: float,
                  metrics: Mapping[str, Sequence[float]]) -> None:
        self.step += 1
        self.tokens += tokens
        self.seconds += seconds
        self.window_loss += loss_sum
        self.window_count += count
        self.total_loss += loss_sum
        self.total_count += count
        add_up(self.window_metrics, metrics)

    def evaluated(self, loss: float, each: Mapping[str, float]) -> None:
        better = self.best_eval is None or loss < self.best_eval
        self.best_eval = loss if better else self.best_eval
        self.evaluations_without_gain = 0 if better else self.evaluations_without_gain + 1
        self.evaluations.append({"step": self.step, "loss": loss, **each})


def save_checkpoint(run: Path, progress: Progress, data_hash: str, optimizer: Optimizer | None,
                    lessons: Mapping[str, torch.Tensor], write_model: Callable[[Path], None], keep: int | None) -> Path:
    """Write `checkpoint-<step>` into `run` and delete the oldest beyond `keep`.

    Args:
        optimizer: None leaves out what resuming needs (save_only_model).
        lessons: what the lessons of the next steps depend on beside the data.
        write_model: writes adapter or model, and tokenizer, into a folder.
    """
    from safetensors.torch import save_file

    def fill(folder: Path) -> None:
        write_model(folder)
        if optimizer is None:
            return
        tensors, numbers = optimizer.state()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / OPTIMIZER)
        save_file(random_state(), folder / RANDOM)
        save_file({name: tensor.contiguous() for name, tensor in lessons.items()}, folder / LESSONS)
        write_json(folder / STATE, {"progress": asdict(progress), "data": data_hash, "optimizer": numbers})

    target = run / f"checkpoint-{progress.step}"
    write_folder(target, fill)
    if keep:
        # A run that was sent back to an earlier checkpoint has later ones too; the one just written is not the oldest.
        for old in [path for path in checkpoints(run) if _step(path) <= progress.step][:-keep]:
            remove_folder(old)
    return target


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints in a run folder, oldest first. One that is being written has another name."""
    return sorted((path for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()),
                  key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def resumable(run: Path) -> list[Path]:
    """Those of `checkpoints` that a run can go on from: written here, and not by save_only_model."""
    return [path for path in checkpoints(run) if (path / OPTIMIZER).is_file()]


def load_checkpoint(folder: Path, optimizer: Optimizer, data_hash: str) -> tuple[Progress, dict[str, torch.Tensor]]:
    """Put optimizer, trained weights and random numbers back to where `folder` was written.

    Returns:
        Where the run stood, and what was kept of its lessons.

    Raises:
        Problem: the rows, their tokens or the base model are no longer what they were, or the checkpoint is damaged.
    """
    from safetensors.torch import load_file

    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors, random = load_file(folder / OPTIMIZER), load_file(folder / RANDOM)
        lessons = load_file(folder / LESSONS)
    except (OSError, ValueError, SafetensorError) as error:
        raise problem("checkpoint-damaged", Both(f"{folder} cannot be read: {error}.", f"{folder} 无法读取：{error}。"),
                      option="resume_from_checkpoint",
                      fix=Both("Delete it, and the run goes on from the checkpoint before it.",
                               "删除它，就会从上一个检查点继续。")) from None
    if state["data"] != data_hash:
        raise problem("data-changed", Both(f"the rows, their tokens or the base model are not those of {folder}.",
                                           f"数据、分词结果或基座模型与 {folder} 的不一致。"), option="dataset",
                      fix=Both("Put them back as they were, or start a new run in another folder.",
                               "请恢复原样，或在另一个文件夹里开始新的运行。"))
    optimizer.load_state(tensors, state["optimizer"])
    set_random_state(random)
    return Progress(**state["progress"]), lessons


def random_state() -> dict[str, torch.Tensor]:
    """The state of every random number generator that training draws from."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, torch.Tensor]) -> None:
    import torch

    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
