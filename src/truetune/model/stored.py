"""Checkpoints whose weights were quantised before they were saved, as their config.json says in `quantization_config`.

What can be turned back into plain weights is, while it is loaded: then everything works as on any other model, full
fine-tuning included, at the memory of 16 bits. bitsandbytes' codes stay codes, and an adapter trains beside them.

GPTQ and AWQ are read here, since their libraries want a GPU for it. Both hold W (O, I) in groups of inputs that share a
scale s and a zero z, W[o, i] = s[g(i), o] (q[i, o] - z[g(i), o]), with 32 / b codes of b bits in a number of 32, the
first in the lowest bits:

- GPTQ (Frantar et al. 2023, arXiv:2210.17323; layout of AutoGPTQ): `qweight` (I b / 32, O) packed along the inputs,
  `qzeros` (G, O b / 32), `scales` (G, O), and `g_idx` (I,) names each input's group. Zeros are saved less 1, unless
  `checkpoint_format` is gptq_v2.
- AWQ (Lin et al. 2023, arXiv:2306.00978; layout "gemm" of AutoAWQ): `qweight` (I, O b / 32), `qzeros` and `scales` as
  above, groups in order; the codes of a number are outputs 0 2 4 6 1 3 5 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from truetune.findings import Both
from truetune.model.quantize import Codes, coded, keep_gradients

Said = Mapping[str, Any]
"""What config.json says in quantization_config."""


@dataclass(frozen=True)
class Format:
    """read(folder, settings, said, dtype): the model. mark: what the names of some of its tensors end in. package: that
    is needed for it. codes: whether weights stay codes. refuses(said): why one of these cannot be read."""

    read: Callable[[Path, Any, Said, torch.dtype | str], PreTrainedModel]
    mark: str
    package: str | None = None
    codes: bool = False
    refuses: Callable[[Said], Both | None] = lambda said: None


def format_of(said: object) -> Format | None:
    """The format that a quantization_config names; None if it is not one of those that are read."""
    return FORMATS.get(str(said.get("quant_method") or _old_name(said))) if isinstance(said, dict) else None


def why_not(said: object) -> Both | None:
    """Why a checkpoint with this quantization_config cannot be loaded, in words that go on `its weights are …`; None if
    it can."""
    form = format_of(said)
    if form is None or not isinstance(said, dict):
        return Both(f"in a format that is not read here ({', '.join(FORMATS)} are)",
                    f"这种格式不支持（支持 {'、'.join(FORMATS)}）")
    if form.package and find_spec(form.package.replace("-", "_")) is None:
        return Both(f"read by a package that is not installed: pip install {form.package}",
                    f"需要未安装的软件包：pip install {form.package}")
    return form.refuses(said)


def load_stored(folder: Path, settings: Any, dtype: torch.dtype | str) -> PreTrainedModel:
    """The model in `folder`, whose config.json transformers has read as `settings`, on the CPU.

    Raises:
        ValueError: its weights are in a format that is not read.
    """
    said = said_of(settings)
    if not said:
        return AutoModelForCausalLM.from_pretrained(folder, config=settings, dtype=dtype, use_safetensors=True)
    if fault := why_not(said):
        raise ValueError(f"its weights are {fault}")
    form = format_of(said)
    assert form is not None  # or why_not had told
    return form.read(folder, settings, said, dtype)


def said_of(settings: Any) -> Said:
    """What a model's config.json, as transformers has read it, says in quantization_config; nothing in most."""
    return settings.to_dict().get("quantization_config") or {}


def codes_of(said: Said) -> Codes | None:
    """The codes in which a checkpoint's weights stay once it is loaded; None where they become plain weights."""
    form = format_of(said)
    if form is None or not form.codes:
        return None
    bits = 4 if said.get("load_in_4bit") else 8
    return Codes.named("bnb", bits, str(said.get("bnb_4bit_quant_type", "fp4")),
                       bool(said.get("bnb_4bit_use_double_quant", False)))


def _old_name(said: Said) -> str:
    """bitsandbytes' own checkpoints of old did not name a method."""
    return "bitsandbytes" if said.get("load_in_4bit") or said.get("load_in_8bit") else ""


# ------------------------------------------------------------------------------------------------------ by transformers


def _dequantised(folder: Path, settings: Any, said: Said, dtype: torch.dtype | str) -> PreTrainedModel:
    settings.quantization_config = {**said, "dequantize": True}
    model = AutoModelForCausalLM.from_pretrained(folder, config=settings, dtype=dtype, use_safetensors=True)
    # transformers 5.23 would turn the weights back into codes when they are saved, without a config.json that says so.
    vars(model).pop("_weight_conversions", None)
    return model


def _kept(folder: Path, settings: Any, said: Said, dtype: torch.dtype | str) -> PreTrainedModel:
    """As codes, that compute in `dtype`."""
    number = settings.dtype or torch.float32 if isinstance(dtype, str) else dtype
    settings.quantization_config = {**said, "bnb_4bit_compute_dtype": str(number).removeprefix("torch.")}
    model = AutoModelForCausalLM.from_pretrained(folder, config=settings, dtype=number, use_safetensors=True)
    for _, layer in coded(model):
        keep_gradients(layer)
    return model


# -------------------------------------------------------------------------------------------------------- GPTQ and AWQ

_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where output 0, 1, 2, … of a number lies."""


def unpack(numbers: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """The codes in 32-bit numbers, in order, laid out along `dim`: 32 / bits times as many."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    codes = numbers.unsqueeze(dim + 1) >> shifts.view(1, -1, 1) if dim == 0 else numbers.unsqueeze(-1) >> shifts
    return (codes & (2**bits - 1)).flatten(dim, dim + 1)


def gptq_weight(parts: Mapping[str, torch.Tensor], said: Said) -> torch.Tensor:
    """(O, I) float32, of `qweight`, `qzeros`, `scales` and `g_idx`; see above."""
    bits = int(said["bits"])
    codes = unpack(parts["qweight"], bits, dim=0)  # (I, O)
    zeros = unpack(parts["qzeros"], bits, dim=1)  # (G, O)
    if said.get("checkpoint_format", "gptq") != "gptq_v2":
        zeros = (zeros + 1) & (2**bits - 1)  # a zero of 0 is saved as the largest code
    inputs, groups = len(codes), len(zeros)
    group = parts["g_idx"].long() if "g_idx" in parts else torch.arange(inputs) // -(-inputs // groups)
    return (parts["scales"].float()[group] * (codes - zeros[group])).T


def awq_weight(parts: Mapping[str, torch.Tensor], said: Said) -> torch.Tensor:
    """(O, I) float32, of `qweight`, `qzeros` and `scales`; see above."""

    def in_order(numbers: torch.Tensor) -> torch.Tensor:
        codes = unpack(numbers, 4, dim=1)
        return codes.view(len(codes), -1, 8)[:, :, _AWQ_ORDER].flatten(1)

    codes, zeros = in_order(parts["qweight"]), in_order(parts["qzeros"])  # (I, O), (G, O)
    group = torch.arange(len(codes)) // (len(codes) // len(zeros))
    return (parts["scales"].float()[group] * (codes - zeros[group])).T


_PARTS = ("qweight", "qzeros", "scales", "g_idx")


def _unpacked(weight: Callable[[Mapping[str, torch.Tensor], Said], torch.Tensor]
              ) -> Callable[[Path, Any, Said, torch.dtype | str], PreTrainedModel]:
    """A reader of a model whose matrices are in `_PARTS`."""

    def read(folder: Path, settings: Any, said: Said, dtype: torch.dtype | str) -> PreTrainedModel:
        number = settings.dtype or torch.float16 if isinstance(dtype, str) else dtype
        tensors: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(file)
        for layer in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
            parts = {part: tensors.pop(f"{layer}.{part}") for part in _PARTS if f"{layer}.{part}" in tensors}
            try:
                tensors[f"{layer}.weight"] = weight(parts, said).to(number).contiguous()
            except (LookupError, RuntimeError) as error:
                raise ValueError(f"{layer} is not laid out as its config.json says ({error})") from None
        del settings.quantization_config
        with torch.device("meta"):
            kind = type(AutoModelForCausalLM.from_config(settings))
        return kind.from_pretrained(None, config=settings, state_dict=tensors, dtype=number)

    return read


def _gptq_refuses(said: Said) -> Both | None:
    return None if said.get("bits") in (2, 4, 8) else Both(
        f"GPTQ codes of {said.get('bits')} bits, and those of 2, 4 and 8 are read",
        f"{said.get('bits')} 位的 GPTQ 编码，这里只读 2、4、8 位")


def _awq_refuses(said: Said) -> Both | None:
    layout = str(said.get("version") or said.get("format") or "gemm").lower()
    return None if said.get("bits", 4) == 4 and layout == "gemm" else Both(
        f"AWQ codes of {said.get('bits')} bits laid out as {layout}, and 4 bits laid out as gemm are read",
        f"{said.get('bits')} 位、布局为 {layout} 的 AWQ 编码，这里只读 4 位的 gemm 布局")


FORMATS: Mapping[str, Format] = {
    "bitsandbytes": Format(_kept, "weight", package="bitsandbytes", codes=True),
    "fp8": Format(_dequantised, "_scale_inv"), "mxfp4": Format(_dequantised, "_scales"),
    "compressed-tensors": Format(_dequantised, "weight", package="compressed-tensors"),
    "gptq": Format(_unpacked(gptq_weight), "qweight", refuses=_gptq_refuses),
    "awq": Format(_unpacked(awq_weight), "qweight", refuses=_awq_refuses),
}
"""By the quant_method of config.json."""
