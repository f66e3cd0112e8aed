"""The importance matrix: how large the numbers are that each column of a matrix is multiplied by.

A column that meets large activations moves the output more when it is rounded. llama.cpp's quantisers weigh the squared
error of each column by the mean of its squared inputs over some texts (tools/imatrix), and so does this: texts from the
data that the model was trained on, through the model as transformers runs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor, nn

from truetune.export.gguf.architectures import architecture_of
from truetune.findings import Both, Say, problem
from truetune.model.find import load_model_config
from truetune.model.load import load_model


@dataclass(frozen=True)
class Importance:
    """Mean squared inputs: name in the GGUF file -> (experts, columns) float32, one row where there are no experts.
    tokens: over how many."""

    columns: Mapping[str, np.ndarray]
    tokens: int

    def of(self, name: str, expert: int) -> np.ndarray | None:
        """(columns,), or None where nothing was measured (the embedding)."""
        found = self.columns.get(name)
        return None if found is None else found[expert]


def measure_importance(folder: Path, rows: Sequence[np.ndarray], say: Say) -> Importance:
    """Run the model of `folder` over `rows` of token ids.

    Raises:
        Problem: there are no rows, or the model cannot be written as GGUF anyway.
    """
    config = load_model_config(folder)
    family = architecture_of(config)
    if not rows:
        raise problem("no-calibration", Both("there are no texts to measure an importance matrix on.",
                                             "没有可用于测量 importance matrix 的文本。"), option="export_imatrix",
                      fix=Both("Set export_quantization_dataset.", "请设置 export_quantization_dataset。"))
    start, device = time.perf_counter(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(folder, "auto", device)
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    sums: dict[str, _Sum] = {}
    hooks = [module.register_forward_pre_hook(hook) for name, module in model.named_modules()
             if (hook := _hook(module, name, names, sums)) is not None]
    with torch.inference_mode():
        for row in rows:
            model.model(input_ids=torch.as_tensor(np.asarray(row, np.int64), device=device)[None])
    for hook in hooks:
        hook.remove()
    tokens = sum(len(row) for row in rows)
    say(Both(f"importance matrix of {tokens:,} tokens in {time.perf_counter() - start:.0f} s",
             f"已用 {tokens:,} 个 token 测得 importance matrix，用时 {time.perf_counter() - start:.0f} 秒"))
    return Importance({name: sum.mean() for name, sum in sums.items()}, tokens)


class _Sum:
    """Squares added up for each expert and column."""

    def __init__(self, experts: int, columns: int, device: torch.device):
        self.squares = torch.zeros(experts, columns, dtype=torch.float32, device=device)
        self.count = torch.zeros(experts, 1, dtype=torch.float32, device=device)

    def add(self, inputs: Tensor, expert: int = 0) -> None:
        """inputs: (…, columns)."""
        inputs = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        self.squares[expert] += inputs.square().sum(0)
        self.count[expert] += len(inputs)

    def mean(self) -> np.ndarray:
        """(experts, columns). An expert that was never chosen has all columns alike."""
        means = torch.where(self.count > 0, self.squares / self.count.clamp(min=1), torch.ones_like(self.squares))
        return means.cpu().numpy()


def _hook(module: nn.Module, name: str, names: gguf.TensorNameMap, sums: dict[str, _Sum]
          ) -> Callable[[Any, tuple[Any, ...]], None] | None:
    """What to call before `module` computes; None: it holds no matrix of the file that is quantised."""
    if isinstance(module, nn.Linear) and (matrix := names.get_name(f"{name}.weight", (".weight",))) is not None:
        def add(module: nn.Linear, inputs: tuple[Any, ...]) -> None:
            _of(sums, matrix, 1, inputs[0]).add(inputs[0])
        return add
    if "gate_up_proj" in dict(module.named_parameters(recurse=False)):
        gate, up, down = (names.get_name(f"{name}.{part}.weight", (".weight",))
                          for part in ("gate_proj", "up_proj", "down_proj"))
        assert gate and up and down

        def add_experts(module: Any, inputs: tuple[Any, ...]) -> None:
            _add_experts(module, inputs[0], inputs[1], (gate, up), down, sums)
        return add_experts
    return None


def _of(sums: dict[str, _Sum], name: str, experts: int, inputs: Tensor) -> _Sum:
    if name not in sums:
        sums[name] = _Sum(experts, inputs.shape[-1], inputs.device)
    return sums[name]


def _add_experts(module: Any, hidden: Tensor, chosen: Tensor, first: Sequence[str], down: str,
                 sums: dict[str, _Sum]) -> None:
    """transformers computes all experts in one module, so what each one gets is found from the choice.

    Args:
        hidden: (tokens, columns). chosen: (tokens, k), the experts of each.
    """
    hidden = hidden.reshape(-1, hidden.shape[-1])
    for expert in chosen.unique().tolist():
        mine = hidden[(chosen == expert).any(-1)]
        for name in first:
            _of(sums, name, len(module.gate_up_proj), mine).add(mine, expert)
        gates, ups = nn.functional.linear(mine, module.gate_up_proj[expert]).chunk(2, dim=-1)
        inner = module.act_fn(gates) * ups
        _of(sums, down, len(module.gate_up_proj), inner).add(inner, expert)
