"""The proof that an export has to pass: what it serves is what was trained, in every form that was written.

Tokens first: the renderer of training beside the saved tokenizer, each GGUF file in llama.cpp, and the Modelfile. Then
probabilities: the merged model beside the adapter on its base, each GGUF file and each quantised form beside the merged
model that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from truetune.data.renderer import Renderer
from truetune.findings import Both, Say
from truetune.model.load import load_model
from truetune.options.gguf_types import GGUF_TYPES
from truetune.parity.compare import compare
from truetune.parity.layers import Form, Gguf, Layer, Ollama, Saved, Trained
from truetune.parity.logits import Distance, Passage, bound_of, distance, gguf_logprobs, model_logprobs, passages
from truetune.parity.probes import PROBES
from truetune.parity.report import Parity
from truetune.serve.llamacpp import LlamaCpp

_CONTEXT = 2048
"""Tokens: the longest probe has about 400 for a vocabulary of 49,152 words, and up to four times as many for a small
one."""


@dataclass(frozen=True)
class Served:
    """What an export holds.

    Attributes:
        load: the model that was written, in float32: all other forms are made from it. bits: of its weights as written.
        saved: a folder whose tokenizer servers will read. quantized: a folder with quantised weights, and their bits.
        ggufs: files by their type. ollama: the Modelfile, and the type of its file. lora: an adapter as a GGUF
            file, which is put on each of `ggufs`.
    """

    load: Callable[[], Any]
    bits: float
    saved: Path | None = None
    quantized: tuple[Path, float] | None = None
    ggufs: Mapping[str, Path] = field(default_factory=dict)
    ollama: tuple[Form, str] | None = None
    lora: Path | None = None


@dataclass(frozen=True)
class Reference:
    """A model that a merged one is held to. load: in float32. bits: of the weights below its adapters, where they are
    fewer than those of what was written."""

    load: Callable[[], Any]
    bits: float | None = None


def prove(renderer: Renderer, served: Served, say: Say, references: Mapping[str, Reference] = MappingProxyType({}),
          logits: bool = True) -> Parity:
    """What was found, whatever it is. One model is in memory at a time.

    Args:
        references: adapters on their base, by what that is called. logits: compare probabilities too.
    """
    truth = Trained(renderer)
    asked = passages(truth)
    wanted, distances = _whole(served, asked, references) if logits and asked else (None, [])
    layers = compare(truth, [Saved(served.saved)]) if served.saved else []
    for kind, file in served.ggufs.items():
        with LlamaCpp(file, context=_CONTEXT, adapters=[served.lora] if served.lora else []) as engine:
            name = f"llama.cpp {kind} + LoRA" if served.lora else f"llama.cpp {kind}"
            places: list[Layer] = [Gguf(engine, name)]
            if served.ollama and served.ollama[1] == kind:
                places.append(Ollama(served.ollama[0], engine, f"ollama {kind}"))
            layers += compare(truth, places)
            if wanted is not None:
                bound = bound_of(GGUF_TYPES[kind].bits)
                found = gguf_logprobs(engine, asked, adapter=0 if served.lora else None)
                distances.append(distance(name, found, WHOLE, wanted, bound))
    positions = len(distances) and distances[0].positions
    say(Both(f"compared {len(layers)} places on {len(PROBES)} conversations and {positions} positions",
             f"比较了 {len(layers)} 处：{len(PROBES)} 段对话、{positions} 个位置"))
    return Parity(tuple(layers), tuple(distances))


WHOLE, TRAINED = "hf", "trained"
"""What a model in transformers is called in tables: as it was written, and as it was trained."""


def _whole(served: Served, asked: list[Passage],
           references: Mapping[str, Reference]) -> tuple[np.ndarray, list[Distance]]:
    """The log-probabilities (P, V) of the model that was written, to which other forms are held; how far it is from the
    adapter on its base, and what is quantised from it."""
    whole = model_logprobs(served.load(), asked)
    found = [distance(WHOLE, whole, name, model_logprobs(each.load(), asked), bound_of(each.bits or served.bits))
             for name, each in references.items()]
    if served.quantized:
        folder, bits = served.quantized
        coded = model_logprobs(load_model(folder, "auto", torch.device("cpu")), asked)
        found.append(distance(f"hf {bits:g} bits", coded, WHOLE, whole, bound_of(bits)))
    return whole, found
