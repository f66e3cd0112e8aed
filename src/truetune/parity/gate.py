"""The proof that an export has to pass: what it serves is what was trained, in every form that was written.

Tokens first: the renderer of training beside the saved tokenizer, each GGUF file in llama.cpp, and the Modelfile. Then
probabilities: the merged model beside the adapter on its base, each GGUF file and each quantised form beside the merged
model that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from truetune.data.renderer import Renderer
from truetune.findings import Both, Say
from truetune.model.find import load_model_config
from truetune.model.load import load_model
from truetune.options.gguf_types import GGUF_TYPES
from truetune.parity.compare import Compared, compare
from truetune.parity.layers import Form, Gguf, Layer, Ollama, Saved, Trained
from truetune.parity.logits import Distance, Passage, bound_of, distance, gguf_logprobs, model_logprobs, passages
from truetune.parity.report import Parity
from truetune.serve.llamacpp import LlamaCpp

_CONTEXT = 2048
"""Tokens: the longest probe has about 400 for a vocabulary of 49,152 words, and up to four times as many for a small
one."""


@dataclass(frozen=True)
class Served:
    """What an export holds.

    Attributes:
        merged: the plain model that all other forms were made from. saved: a folder whose tokenizer servers will read.
        quantized: a folder with quantised weights, and its bits. ggufs: files by their type. ollama: the Modelfile and
        the type of its file.
    """

    merged: Path
    saved: Path | None = None
    quantized: tuple[Path, float] | None = None
    ggufs: Mapping[str, Path] = field(default_factory=dict)
    ollama: tuple[Form, str] | None = None


def prove(renderer: Renderer, served: Served, say: Say, trained: Callable[[], Any] | None = None,
          device: torch.device | None = None, logits: bool = True) -> Parity:
    """What was found, whatever it is.

    Args:
        trained: loads the adapter on its base, where there is one; float32.
        logits: compare probabilities too.
    """
    asked, device = passages(renderer) if logits else [], device or torch.device("cpu")
    distances: list[Distance] = []
    wanted: np.ndarray | None = None
    if logits:
        wanted, found = _merged(served, asked, trained, device)
        distances += found
        if served.quantized:
            folder, width = served.quantized
            model = load_model(folder, "auto", device)
            distances.append(distance("hf quantised", model_logprobs(model, asked), "merged", wanted, bound_of(width)))
            del model
    truth = Trained(renderer)
    layers: list[Compared] = []
    if served.saved:
        layers += compare(truth, [Saved(served.saved)])
    for kind, file in served.ggufs.items():
        with LlamaCpp(file, context=_CONTEXT) as engine:
            served_by: list[Layer] = [Gguf(engine, f"llama.cpp {kind}")]
            if served.ollama and served.ollama[1] == kind:
                served_by.append(Ollama(served.ollama[0], engine, f"ollama {kind}"))
            layers += compare(truth, served_by)
            if wanted is not None:
                found = gguf_logprobs(engine, asked)
                bound = bound_of(GGUF_TYPES[kind].bits)
                distances.append(distance(f"llama.cpp {kind}", found, "merged", wanted, bound))
    say(Both(f"compared {len(layers)} places" + (f" on {len(wanted)} positions" if wanted is not None else ""),
             f"比较了 {len(layers)} 处" + (f"、{len(wanted)} 个位置" if wanted is not None else "")))
    return Parity(tuple(layers), tuple(distances))


def _merged(served: Served, asked: list[Passage], trained: Callable[[], Any] | None,
            device: torch.device) -> tuple[np.ndarray, list[Distance]]:
    """The merged model's log-probabilities (P, V), which other forms are held to, and its distance from the adapter on
    its base. One model is in memory at a time."""
    before = model_logprobs(trained(), asked) if trained else None
    model = load_model(served.merged, torch.float32, device)
    width = 8 * (load_model_config(served.merged).dtype or torch.float32).itemsize
    merged = model_logprobs(model, asked)
    if before is None:
        return merged, []
    return merged, [distance("merged", merged, "adapter on base", before, bound_of(width))]
