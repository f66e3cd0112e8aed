"""How much memory a run needs, part by part, from config.json alone.

The model is built on torch's `meta` device, where tensors have shapes and no numbers, tuned as the run tunes it, and
taken through one forward pass; what autograd would keep for the backward pass is counted as it keeps it. So every
architecture that transformers knows, every method and every number format is counted as it is, in a second or two and
with no weight read.

With P parameters of b bytes, of which p are trained (m = 4 where the optimizer steps float32 copies, else 0):

    weights      P b
    gradients    4 p, and once a backward pass b p more where there are copies (`optim.Optimizer.backward`)
    optimizer    (8 + m) p: AdamW's two moments and the copies
    activations  what autograd keeps of the longest batch; with checkpointing the inputs of each layer, and one layer
    head         some chunks of logits (`model.head.CHUNK_BYTES`), and the gradient of its matrix where it is trained
    process      interpreter, libraries and data, which this process holds too; on a GPU what CUDA takes for itself

They are not there all at once: a run needs as much as its largest phase. Of N processes that share (Rajbhandari et al.
2020, ZeRO, arXiv:1910.02054, figure 1) each holds 1/N of the optimizer under ZeRO-1, of the gradients too under ZeRO-2,
of the weights too under ZeRO-3 and FSDP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, PreTrainedModel

from truetune.findings import Both, problem
from truetune.model.find import load_model_config
from truetune.model.head import CHUNK_BYTES, log_probabilities
from truetune.model.methods import METHODS, layers_of, trainable
from truetune.model.policy import head_of
from truetune.model.precision import Precision
from truetune.options import Config

_ATTENTION = "truetune_shapes"
_SHORT = (32, 64)
"""Tokens of the two rows that go through the model: what is kept grows with tokens in a straight line."""


@dataclass(frozen=True)
class Shape:
    """What of a model matters for memory. Sizes in bytes, unless said otherwise.

    parameters: how many there are in all; trained: of them trained, with adapters; active: used for a token (of a
    mixture of experts some are not). adapter: whether an adapter is trained. bytes: of one weight while computing.
    layers: of the model. kept, kept_layer: what a token leaves for the backward pass, in all and in one layer; input:
    what goes into a layer for one token. largest: parameters of the largest trained matrix. head: of the output head's
    matrix; head_trained: whether it is trained.
    """

    parameters: int
    trained: int
    active: int
    adapter: bool
    bytes: int
    master: bool
    layers: int
    kept: float
    kept_layer: float
    input: int
    largest: int
    head: int
    head_trained: bool

    @property
    def weight_bytes(self) -> int:
        return self.parameters * self.bytes


@dataclass(frozen=True)
class Split:
    """How several processes share a run."""

    processes: int = 1
    kind: Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp"] = "none"

    def of(self, part: Literal["weights", "gradients", "optimizer"]) -> int:
        """By how much `part` is divided."""
        divided = {"zero1": {"optimizer"}, "zero2": {"optimizer", "gradients"},
                   "zero3": {"optimizer", "gradients", "weights"}, "fsdp": {"optimizer", "gradients", "weights"}}
        return self.processes if part in divided.get(self.kind, set()) else 1


ALONE = Split()


@dataclass(frozen=True)
class Memory:
    """What a run needs, in bytes. parts: what each thing takes when it takes most. phases: what is there at once."""

    parts: Mapping[str, int]
    phases: Mapping[str, int]

    @property
    def peak(self) -> int:
        return max(self.phases.values())

    @property
    def phase(self) -> str:
        """The one that needs most."""
        return max(self.phases, key=lambda name: self.phases[name])


def shape_of(base: Path, config: Config, precision: Precision) -> Shape:
    """The shape of the model in `base` as `config` trains it in `precision`.

    Raises:
        Problem: config.json cannot be read, is of no causal language model, or has no module of a name that is trained.
    """
    settings = load_model_config(base)
    settings.use_cache = False
    method = METHODS[config.finetuning_type]
    try:
        with torch.device("meta"):
            causal = AutoModelForCausalLM.from_config(settings, dtype=precision.dtype)
            model = method.prepare(causal, config.with_values("shape", adapter_name_or_path=()), base)
        kept, kept_layer = _kept(causal)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        # Whatever a damaged config.json makes the model's own class say.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise problem("unknown-shape", Both(
            f"no model can be made from {base / 'config.json'}: {reason:.160}",
            f"无法根据 {base / 'config.json'} 构建模型：{reason:.160}"), option="model_name_or_path",
            where=config.origin("model_name_or_path")) from None
    trained = trainable(model)
    head = causal.get_output_embeddings()
    text = causal.config.get_text_config()
    parameters = sum(weight.numel() for weight in causal.parameters())
    return Shape(
        parameters=parameters, trained=sum(weight.numel() for weight in trained.values()),
        active=parameters - _idle_experts(causal, text), adapter=method.adapter, bytes=precision.dtype.itemsize,
        master=precision.master, layers=text.num_hidden_layers, kept=kept, kept_layer=kept_layer,
        input=text.hidden_size * precision.dtype.itemsize,
        largest=max((weight.numel() for weight in trained.values()), default=0),
        head=sum(weight.numel() for weight in head.parameters()) if head else 0,
        head_trained=bool(head) and any(weight.requires_grad for weight in head.parameters()))


def _kept(causal: PreTrainedModel) -> tuple[float, float]:
    """Bytes a token that autograd keeps of a forward pass, and of the layer that keeps most."""
    AttentionInterface.register(_ATTENTION, _attend)
    AttentionMaskInterface.register(_ATTENTION, lambda *args, **kwargs: None)
    causal.set_attn_implementation(_ATTENTION)
    tokens = sum(_SHORT)
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

    hooks = [hook for layer in layers_of(causal)
             for hook in (layer.register_forward_pre_hook(total), layer.register_forward_hook(total))]
    sources = torch.arange(tokens // 2, device="meta")
    # A mask keeps transformers from looking for packed rows in positions that have no values here.
    inputs = {"input_ids": torch.zeros(1, tokens, dtype=torch.long, device="meta"),
              "attention_mask": torch.ones(1, tokens, dtype=torch.bool, device="meta")}
    causal.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        hidden = causal.base_model(**inputs, use_cache=False).last_hidden_state[0, sources]
        alive = log_probabilities(hidden, torch.zeros_like(sources), head_of(causal))
    for hook in hooks:
        hook.remove()
    del alive
    layers = [after - before for before, after in zip(spans[::2], spans[1::2], strict=True)]
    return sum(storage.nbytes() for storage in kept.values()) / tokens, max(layers, default=0) / tokens


class _Kernel(torch.autograd.Function):
    """What an attention kernel keeps: queries, keys, values, what came out, and a number for each query and head."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        attended = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, attended, query.new_empty(query.shape[:3], dtype=torch.float32))
        return attended

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise NotImplementedError("shapes only")


def _attend(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
            attention_mask: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """Attention as `model.attention` keeps it on the CPU: short rows in float32."""
    rows = [_Kernel.apply(*(part[:, :, start:end].float() for part in (query, key, value))).to(query.dtype)  # pyright: ignore
            for start, end in pairwise((0, _SHORT[0], sum(_SHORT)))]
    return torch.cat([row.transpose(1, 2) for row in rows], dim=1), None


def _idle_experts(causal: PreTrainedModel, text: Any) -> int:
    """Parameters of a mixture of experts that a token does not go through. Routed experts are held in matrices of one
    more dimension, one slice an expert."""
    values = text.to_dict()
    used = values.get("num_experts_per_tok") or values.get("moe_topk") or 0
    if not used:
        return 0
    routed = [weight for weight in causal.parameters() if weight.ndim == 3]
    return sum(int(weight.numel() * (1 - min(used / weight.shape[0], 1))) for weight in routed)


def predict(shape: Shape, lengths: Sequence[int], learned: int, process: int, *, accumulation: int = 1,
            checkpointing: bool = False, split: Split = ALONE) -> Memory:
    """The memory of a run on one device.

    Args:
        lengths: tokens of the rows of the largest batch. learned: how many of them are learned.
        process: bytes that the process takes before there is a model.
    """
    tokens, trained = sum(lengths), shape.trained
    weights = shape.weight_bytes // split.of("weights")
    # Without copies gradients and moments have the number format of the weights.
    number = 4 if shape.master else shape.bytes
    gradients = number * trained // split.of("gradients")
    passing = shape.bytes * trained if shape.master else 0
    optimizer = (2 * number + (4 if shape.master else 0)) * trained // split.of("optimizer")
    activations = round(tokens * (shape.input * shape.layers + shape.kept_layer if checkpointing else shape.kept))
    chunks = 6 * min(CHUNK_BYTES, learned * shape.bytes * max(shape.head // max(shape.input // shape.bytes, 1), 1))
    head = chunks // 2 + 2 * shape.bytes * shape.head if shape.head_trained else chunks // 3
    work = 3 * 4 * shape.largest
    held = process + weights + optimizer + (gradients if accumulation > 1 else 0)
    return Memory(
        {"weights": weights, "gradients": gradients, "optimizer": optimizer, "activations": activations, "head": head,
         "process": process},
        {"loading": process + weights + 4 * trained * shape.master + weights // 2,
         "forward": held + activations + head, "backward": held + max(passing, activations // 2) + passing,
         "step": process + weights + optimizer + gradients + work})
