"""GPTQ (Frantar, Ashkboos, Hoefler and Alistarh 2022, arXiv:2210.17323): codes whose errors cancel on the inputs that a
layer is really given.

A row w of W is quantised to ŵ so that |w X - ŵ X|² = (w - ŵ) H (w - ŵ)ᵀ is small, H = X Xᵀ. One column after the other
is rounded, and the columns that are left take up its error: with H⁻¹ of those, column j changes the later ones by
-(w_j - ŵ_j) / H⁻¹_jj · H⁻¹_j: (equation 2). All the H⁻¹ that are needed are rows of one Cholesky factor of H⁻¹
(section 4, "Cholesky reformulation"); updates reach beyond a block of columns only once it is done ("lazy batch").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs

    from truetune.export.quantized import Codes

DAMP = 0.01
"""Share of the mean of H's diagonal that is added to it (section 4, "Numerical stability")."""
_BLOCK = 128


def gptq(weight: torch.Tensor, hessian: torch.Tensor, args: QuantizationArgs, dtype: torch.dtype) -> Codes:
    """Codes for `weight` (O, I) float32, given H (I, I) float32. A group's scale is that of its weights when their turn
    comes. dtype: in which scales are saved."""
    from compressed_tensors.quantization.utils import calculate_range

    from truetune.export.quantized import Codes, scales_of

    weight, factor = weight.clone(), _factor(hessian)
    group = args.group_size or weight.shape[1]
    scales: list[torch.Tensor] = []
    low, high = calculate_range(args, weight.device)  # pyright: ignore[reportArgumentType]  (it says str, and means both)
    done = torch.empty_like(weight)
    for first in range(0, weight.shape[1], _BLOCK):
        last = min(first + _BLOCK, weight.shape[1])
        errors = torch.empty_like(weight[:, first:last])
        for column in range(first, last):
            if column % group == 0:
                scales.append(scales_of(weight[:, column: column + group], _of_one(args), dtype))  # (O, 1)
            now, scale = weight[:, column], scales[-1][:, 0]
            done[:, column] = scale * (now / scale).round().clamp(low, high)
            error = (now - done[:, column]) / factor[column, column]
            weight[:, column + 1: last] -= error[:, None] * factor[column, column + 1: last]
            errors[:, column - first] = error
        weight[:, last:] -= errors @ factor[first:last, last:]
    return Codes(done, torch.cat(scales, 1))


def _of_one(args: QuantizationArgs) -> QuantizationArgs:
    """The same, for a matrix that is a single group."""
    return args.model_copy(update={"group_size": None})


def _factor(hessian: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of H⁻¹. An input that is always 0 takes no part: its column is rounded to nearest."""
    hessian = hessian.clone()
    diagonal = hessian.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += DAMP * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)
