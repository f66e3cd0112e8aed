"""How much memory a run needs, part by part, from config.json alone.

`shape` counts what of the model matters; here it becomes bytes. With P parameters of b bytes, of which p are trained,
V x H the head's matrix, and n = 4 where the optimizer steps float32 copies, else b:

    weights      P b                    where those of linear layers are quantised, these in their codes: 4.127 bits a
                                        weight for nf4 with its scales quantised too (Dettmers et al. 2023, QLoRA,
                                        arXiv:2305.14314, section 3), and so on (`model.quantize.FORMS`)
    gradients    n p                    they are added up in the number format in which the optimizer steps
    optimizer    2 n p, and 4 p         AdamW's two moments (of others `optim.make.state_bytes`); the float32
                                        copies, where there are any
    activations  A                      what autograd keeps of the longest batch; with checkpointing the inputs of each
                                        layer, and one layer a (Chen et al. 2016, arXiv:1604.06174)
    head         k c, and 2 V H b       c: a chunk of logits (`model.head.CHUNK_BYTES`), k of which are there at once;
                 where it is trained    the gradient of its matrix as it was and as a chunk adds to it
    process      interpreter, libraries and data, which this process holds too; on a GPU what CUDA takes for itself

For whole weights in bfloat16 that is 2 + 4 + 12 bytes a parameter: the 16 of mixed precision (Rajbhandari et al. 2020,
ZeRO, arXiv:1910.02054, section 3.1) and 2 more, since gradients are added up in float32.

They are not there all at once. A run needs as much as its largest phase, beside what stays (weights, optimizer,
process; gradients too between the batches of a step):

    loading      the file's pages and what is made of them
    forward      A + a + head           a, one layer: what passes back through a layer is about as large as what it kept
    backward     the same with the head's gradient; at the end of it gradients, and no A
    step         gradients, and two float32 temporaries of the largest matrix

On the CPU the C library keeps freed pieces under 32 MiB for later, in a heap that tensors of ever new sizes leave full
of holes: what was the most in use stays, times `SLACK`, and only larger pieces are given back. On a GPU nothing is
added for the allocator's holes; nothing was measured there.

Of N processes that share each holds 1/N of the optimizer under ZeRO-1, of the gradients too under ZeRO-2, of the
weights too under ZeRO-3 and FSDP (ZeRO, figure 1). Weights that are divided are gathered layer by layer: one is
computed with while the next one comes. DDP adds flat copies of the gradients in which they are exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from truetune.check.shape import SHORT, Shape, shape_of
from truetune.model.head import CHUNK_BYTES

__all__ = ["ALONE", "Memory", "Shape", "Split", "predict", "shape_of"]

SLACK = {True: 1.3, False: 1.15}
"""What the C library's heap grows to for each byte that is kept, with an adapter and without: an adapter's small pieces
lie between the large ones and keep the holes apart. Measured over steps of different lengths 1.25 to 1.35 and 1.05 to
1.2; replaying the allocations of such steps without computing anything gives the same."""
KERNELS = {2: 45_000_000, 4: 20_000_000}
"""Bytes that the process grows by as kernels are first used on the CPU, by the size of a number: code that is mapped,
and the products that oneDNN compiles for each shape and keeps (`model.memory.bound_kernel_caches`). Measured."""


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

    def extra(self, shape: Shape) -> int:
        """What sharing itself takes: the flat gradients of DDP, or the two layers that are gathered at a time."""
        if self.of("weights") > 1:
            return 2 * shape.bytes * max(shape.layer, shape.head)
        return shape.bytes * shape.trained if self.kind == "ddp" else 0


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


def predict(shape: Shape, lengths: Sequence[int], learned: int, process: int, *, accumulation: int = 1,
            checkpointing: bool = False, split: Split = ALONE,
            second: bool = False) -> Memory:
    """The memory of a run on one device.

    Args:
        lengths: tokens of the rows of the largest batch. learned: how many of them are learned.
        process: bytes that the process takes before there is a model.
        second: a reference model of the same size is there too.
    """
    number = 4 if shape.master else shape.bytes
    held = shape.weight_bytes
    weights = (1 + second) * held // split.of("weights") + split.extra(shape)
    gradients = number * shape.graded // split.of("gradients")
    optimizer = (shape.state + 4 * shape.master * shape.stepped) // split.of("optimizer")
    kept, layer = _activations(shape, lengths, checkpointing)
    forward, backward, matrix = _head(shape, learned)
    # What is freed on the CPU and goes to the heap stays there; the rest is given back.
    heap = round((SLACK[shape.adapter] if shape.cpu else 1) * kept + layer) + shape.decoded
    stays = heap if shape.cpu else 0
    large = min(number * shape.large // split.of("gradients"), gradients) if shape.cpu else gradients
    done = max(stays, gradients - large) + large
    always = process + (KERNELS[min(shape.bytes, 4)] if shape.cpu else 0) + weights + optimizer
    between = gradients if accumulation > 1 else 0
    return Memory(
        {"weights": weights, "gradients": gradients, "optimizer": optimizer, "activations": heap,
         "head": max(forward, backward), "process": always - weights - optimizer},
        {"loading": process + _loading(shape, held, split), "forward": always + between + heap + forward,
         "backward": always + max(between + heap + backward, done + matrix),
         "step": always + done + 8 * shape.largest, "evaluation": always + stays + forward})


def _activations(shape: Shape, lengths: Sequence[int], checkpointing: bool) -> tuple[float, float]:
    """Bytes that a forward pass keeps, and those that go through one layer on the way back."""
    tokens, short = sum(lengths), sum(length for length in lengths if length <= SHORT)
    layer = tokens * shape.kept_layer + short * shape.short / shape.layers
    merged = shape.merged * shape.bytes
    if not checkpointing:
        return tokens * shape.kept + short * shape.short + merged, layer
    outside = max(shape.kept - shape.layers * shape.kept_layer, 0)
    return tokens * (shape.layers * shape.input + outside), 2 * layer + merged // shape.layers


_CHUNKS = {(False, False): (1, 0), (False, True): (3, 0), (True, False): (2, 4), (True, True): (5, 7)}
"""Chunks of logits there at once, forward and backward, by (the head is trained, numbers have 2 bytes). Frozen: the
logits, and a float32 copy of twice the size in which they are summed. Trained: logits, float32 copy and what logsumexp
takes; backward their gradients too."""


def _head(shape: Shape, learned: int) -> tuple[int, int, int]:
    """Bytes of the head in the forward pass and in the backward pass, and of its matrix's gradient on the way."""
    row = shape.bytes * max(shape.vocabulary, 1)
    chunk = min(max(1, CHUNK_BYTES // row), learned) * row
    forward, backward = _CHUNKS[shape.head_trained, shape.bytes < 4]
    matrix = 2 * shape.bytes * shape.head if shape.head_trained else 0
    return forward * chunk, backward * chunk + matrix, matrix


def _loading(shape: Shape, held: int, split: Split) -> int:
    """Bytes while weights are loaded. Adapters cast as they load; whole weights stay as they were saved until the
    optimizer has its float32 copies; what is quantised is loaded whole first, on the CPU. There the file's pages stay
    mapped as long as anything in it is used."""
    copies = 4 * shape.stepped * shape.master // split.of("optimizer")
    late = shape.master and not shape.adapter
    saved = shape.saved * shape.parameters
    if shape.coded and shape.cpu:  # codes are made of the whole model, layer by layer
        return shape.plain_bytes + copies + (saved if shape.saved != shape.bytes else 0)
    if not shape.cpu:
        return max(held, saved * late) // split.of("weights") + copies
    return held // split.of("weights") + copies + (saved if late or shape.saved != shape.bytes else 0)
