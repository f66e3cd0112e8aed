"""What of a model matters for memory, from config.json alone.

The model is built on torch's `meta` device, where tensors have shapes and no numbers, tuned as the run tunes it, and
taken through a forward pass; what autograd would keep for the backward pass is counted as it keeps it. So every
architecture that transformers knows, every method and every number format is counted as it is, in seconds and with no
weight read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel

from truetune.findings import Both, Problem, problem
from truetune.model.find import load_model_config
from truetune.model.head import log_probabilities
from truetune.model.load import cast_weights
from truetune.model.methods import METHODS, layers_of, trainable
from truetune.model.policy import head_of
from truetune.model.precision import Precision, pick_device
from truetune.model.quantize import FORMS, Codes, plain_layers
from truetune.model.rope import stretch
from truetune.model.stored import codes_of, said_of
from truetune.model.vocabulary import grow, new_tokens
from truetune.optim.make import at_once, state_bytes
from truetune.options import Config
from truetune.options.optimizers import in_backward

HEAP = 32 * 2**20
"""glibc gives back larger pieces when they are freed (the most that its threshold grows to), and keeps smaller ones."""
SHORT = 256
"""Rows up to this length are attended to in float32 on the CPU (`model.attention`)."""
MOST = 100_000
"""Layers, heads or experts that a config.json may name before it is taken for damaged."""
_ATTENTION = "truetune_shapes"
_BORDERS = (0, 32, 96)
"""Of the two rows that go through the model. What is kept grows with tokens in a straight line."""


@dataclass(frozen=True)
class Shape:
    """What of a model matters for memory. Sizes in bytes, unless said otherwise.

    parameters: how many there are in all; trained: of them trained, with adapters; active: used for a token (of a
    mixture of experts some are not); linear: in the linear layers of the body, which a quantizer takes; coded: bytes
    that those take in codes, 0 where they are not quantised; decoded: of the largest one when it is; merged: that are
    added up with their adapter, and kept so. adapter: whether an adapter is trained. bytes: of one weight while
    computing; saved: on the disk. master: whether the optimizer keeps float32 copies. layers: of the model. kept,
    kept_layer: what a token leaves for the backward pass, in all and in one layer; short: how much more if its row is
    short. input: what goes into a layer for one token. largest: parameters of the largest trained matrix; large:
    trained ones in matrices that do not go into the heap (`HEAP`); layer: parameters of the largest layer. head: of the
    output head's matrix; vocabulary: its rows; head_trained: whether it is trained. counted: whether what is kept was
    counted, and not reckoned. cpu: whether the run is on the CPU. state: bytes of the optimizer's state. stepped,
    graded: how many of the trained parameters have float32 copies, and gradients, at the same time.
    """

    parameters: int
    trained: int
    active: int
    linear: int
    coded: int
    decoded: int
    merged: int
    adapter: bool
    bytes: int
    saved: int
    master: bool
    layers: int
    kept: float
    kept_layer: float
    short: float
    input: int
    largest: int
    large: int
    layer: int
    head: int
    vocabulary: int
    head_trained: bool
    counted: bool
    cpu: bool
    state: int
    stepped: int
    graded: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights as the run holds them."""
        return (self.parameters - self.linear) * self.bytes + self.coded if self.coded else self.plain_bytes

    @property
    def plain_bytes(self) -> int:
        """Bytes of all weights where none is quantised."""
        return self.parameters * self.bytes


def shape_of(base: Path, config: Config, precision: Precision) -> Shape:
    """The shape of the model in `base` as `config` trains it in `precision`.

    Raises:
        Problem: config.json cannot be read, is of no causal language model, or has no module of a name that is trained.
    """
    _require_sane(base, config)
    settings = stretch(load_model_config(base), config)
    settings.use_cache = False
    method, number = METHODS[config.finetuning_type], precision.dtype.itemsize
    saved = (settings.dtype or torch.float32).itemsize
    try:
        with torch.device("meta"):
            causal = AutoModelForCausalLM.from_config(settings, dtype=precision.dtype)
            grow(causal, base, config)
        body, codes = plain_layers(causal), Codes.of(config) or codes_of(said_of(settings))
        coded, decoded = _into_codes(causal, body, codes, number) if codes else (0, 0)
        model = method.prepare(causal, config.with_values("shape", adapter_name_or_path=()), base,
                               new_tokens(base, config))
        cast_weights(causal, precision.dtype)
        text = causal.config.get_text_config()
        width = int(text.hidden_size)
    except _FAILURES as error:
        raise problem("unknown-shape", Both(
            f"no model can be made from {base / 'config.json'}: {_said(error)}",
            f"无法根据 {base / 'config.json'} 构建模型：{_said(error)}"), option="model_name_or_path",
            where=config.origin("model_name_or_path")) from None
    cpu = pick_device(config).type == "cpu"
    kept, kept_layer, short, counted = _count(causal, settings, precision.dtype, cpu)
    weights = trainable(model)
    trained = [weight.numel() for weight in weights.values()]
    largest = max(trained, default=0)
    stepped = sum(weight.numel() for weight in at_once(weights, config).values())
    head = causal.get_output_embeddings()
    matrix = max((weight for weight in head.parameters()), key=lambda weight: weight.numel()) if head else None
    return Shape(
        parameters=sum(weight.numel() for weight in causal.parameters()), trained=sum(trained),
        active=sum(weight.numel() for weight in causal.parameters()) - _idle_experts(causal, text),
        linear=sum(layer.in_features * layer.out_features for layer in body.values()), coded=coded, decoded=decoded,
        adapter=method.adapter, bytes=number,
        merged=_merged(model), saved=saved, master=precision.master, layers=int(text.num_hidden_layers), kept=kept,
        kept_layer=kept_layer, short=short, input=width * number, largest=largest,
        large=sum(size for size in trained if size * (4 if precision.master else number) > HEAP),
        layer=max((sum(weight.numel() for weight in layer.parameters()) for layer in _layers(causal)), default=0),
        head=matrix.numel() if matrix is not None else 0, vocabulary=len(matrix) if matrix is not None else 0,
        head_trained=matrix is not None and matrix.requires_grad, counted=counted, cpu=cpu,
        state=state_bytes(model, weights, config, 4 if precision.master else number), stepped=stepped,
        graded=largest if in_backward(config) else stepped)


_FAILURES = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError,
             ImportError, OSError)
"""Whatever a damaged config.json makes a model's own class say."""


def _said(error: Exception) -> str:
    return f"{(str(error).strip().splitlines() or [type(error).__name__])[0]:.160}"


def _require_sane(base: Path, config: Config) -> None:
    """A config.json with a billion layers would be built for hours.

    Raises:
        Problem: a number of layers, heads or experts is beyond every model. A file that cannot be read is told later.
    """
    try:
        values = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    nested = values.get("text_config") if isinstance(values, dict) else None
    for each in (values, nested):
        for name, value in each.items() if isinstance(each, dict) else ():
            if "num_" in name and isinstance(value, int) and value > MOST:
                raise problem("unknown-shape", Both(
                    f"{base / 'config.json'} says {name}: {value:,}, which no model has.",
                    f"{base / 'config.json'} 写着 {name}: {value:,}，没有这样的模型。"), option="model_name_or_path",
                    where=config.origin("model_name_or_path"))


def _layers(causal: PreTrainedModel) -> Sequence[torch.nn.Module]:
    try:
        return list(layers_of(causal))
    except Problem:
        return ()


class _Coded(torch.nn.Linear):
    """In place of a layer in codes: no plain layer, so what takes only those passes it by."""


def _into_codes(causal: PreTrainedModel, body: Mapping[str, torch.nn.Linear], codes: Codes,
                number: int) -> tuple[int, int]:
    """Put `_Coded` in place of the body's layers.

    Returns:
        Bytes that they take in codes, and those of the largest one when a product needs its weight.
    """
    causal.requires_grad_(False)
    for name, layer in body.items():
        causal.set_submodule(name, _Coded(layer.in_features, layer.out_features, layer.bias is not None, device="meta",
                                          dtype=layer.weight.dtype).requires_grad_(False))
    sizes = [(layer.out_features, layer.in_features) for layer in body.values()]
    return (sum(FORMS[codes.method, codes.bits].size(*size, codes, number) for size in sizes),
            number * max((outputs * inputs for outputs, inputs in sizes), default=0))


def _merged(model: torch.nn.Module) -> int:
    """Parameters that PEFT adds up with their adapter in each forward pass, since they are no layer of their own: the
    experts of a mixture. The sum is kept for the backward pass."""
    from peft.tuners.lora.layer import ParamWrapper

    return sum(module.get_param().numel() for module in model.modules() if isinstance(module, ParamWrapper))


def _count(causal: PreTrainedModel, settings: Any, dtype: torch.dtype,
           cpu: bool) -> tuple[float, float, float, bool]:
    """`kept`, `kept_layer`, `short` and `counted` of a `Shape`.

    PEFT's way with experts cannot be taken on `meta`; then the model is counted without adapter, as if all of it were
    trained. One that looks at the numbers it computes (a scan, a routing by hand) is reckoned: a plain transformer
    keeps 34 H bytes a token in a layer where numbers have 2 bytes (Korthikanti et al. 2022, arXiv:2205.05198, equation
    1, without the attention's matrix, which kernels no longer keep).
    """

    def counted(model: PreTrainedModel) -> tuple[float, float, float, bool]:
        kept, layer = _kept(model, short=False)
        more = _kept(model, short=True)[0] - kept if cpu and dtype.itemsize < 4 else 0.0
        return kept, layer, more, True

    with suppress(*_FAILURES, Problem):
        return counted(causal)
    with suppress(*_FAILURES, Problem), torch.device("meta"):
        return counted(AutoModelForCausalLM.from_config(settings, dtype=dtype).requires_grad_(True))
    text = settings.get_text_config()
    layer = 17.0 * text.hidden_size * dtype.itemsize
    return text.num_hidden_layers * layer, layer, 0.0, False


def _kept(causal: PreTrainedModel, short: bool) -> tuple[float, float]:
    """Bytes a token that autograd keeps of a forward pass over two rows, and of the layer that keeps most. short:
    attend to them as to short rows."""

    def attend(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any,
               **kwargs: Any) -> tuple[torch.Tensor, None]:
        parts = [[part[:, :, start:end].to(torch.float32 if short else part.dtype) for part in (query, key, value)]
                 for start, end in pairwise(_BORDERS)]
        rows = [_Kernel.apply(*row).to(query.dtype).transpose(1, 2) for row in parts]  # pyright: ignore
        return torch.cat(rows, dim=1), None

    AttentionInterface.register(_ATTENTION, attend)  # without a mask function: then transformers makes no mask
    if causal.is_backend_compatible():
        causal.set_attn_implementation(_ATTENTION)
    known = {weight.untyped_storage()._cdata for weight in causal.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no storage's number is used again
    spans: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage
        return tensor

    def total(*_: Any) -> None:
        spans.append(sum(storage.nbytes() for storage in kept.values()))

    tokens = _BORDERS[-1]
    hooks = [hook for layer in layers_of(causal)
             for hook in (layer.register_forward_pre_hook(total), layer.register_forward_hook(total))]
    causal.train()
    try:
        with _Histogram(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
            hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
            alive = log_probabilities(hidden, ids[0], head_of(causal))
    finally:
        for hook in hooks:
            hook.remove()
    del alive
    layers = [after - before for before, after in zip(spans[::2], spans[1::2], strict=True)]
    return sum(storage.nbytes() for storage in kept.values()) / tokens, max(layers, default=0) / tokens


class _Kernel(torch.autograd.Function):
    """What an attention kernel keeps: queries, keys, values, what came out, and a number for each query and head."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        attended = value.new_empty(*query.shape[:3], value.shape[3])
        ctx.save_for_backward(query, key, value, attended, query.new_empty(query.shape[:3], dtype=torch.float32))
        return attended

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise NotImplementedError("shapes only")


class _Histogram(TorchFunctionMode):
    """Counts tokens an expert, which torch cannot for whole numbers on `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.histc:
            return args[0].new_empty(kwargs["bins"])
        return func(*args, **(kwargs or {}))


def _idle_experts(causal: PreTrainedModel, text: Any) -> int:
    """Parameters of a mixture of experts that a token does not go through. Routed experts are held in matrices of one
    more dimension, one slice an expert."""
    values = text.to_dict()
    used = values.get("num_experts_per_tok") or values.get("moe_topk") or 0
    if not used:
        return 0
    routed = [weight for weight in causal.parameters() if weight.ndim == 3]
    return sum(int(weight.numel() * (1 - min(used / weight.shape[0], 1))) for weight in routed)
