"""How a model is to be generated with, as it is saved beside it: the tokens that end an answer, and the sampling values
that its user chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from truetune.options import OPTIONS, Config

if TYPE_CHECKING:
    from transformers import GenerationConfig

FILE = "generation_config.json"
SAVED = ("do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Options that generation_config.json knows, under the same names."""
_DRAWING = ("temperature", "top_p", "top_k", "min_p")
"""Those that say how a word is drawn."""


def read_generation(folders: Sequence[Path]) -> GenerationConfig:
    """What the first of `folders` that has a generation_config.json says; nothing where none has one."""
    from transformers import GenerationConfig

    found = next((folder for folder in folders if (folder / FILE).is_file()), None)
    return GenerationConfig.from_pretrained(found) if found else GenerationConfig()


def settle_generation(generation: GenerationConfig, config: Config, stops: Sequence[int]) -> GenerationConfig:
    """`generation`, with the stops of the renderer, and the sampling values that were set to something else than their
    default. The rest stays as the model's maker has it. (config.yaml of a run holds the defaults too, so that these
    cannot be told from what somebody chose.)"""
    generation.eos_token_id = list(stops)
    chosen = {name: getattr(config, name) for name in SAVED if name in OPTIONS and config.given(name)
              and getattr(config, name) != OPTIONS[name].default}
    if chosen.get("temperature") == 0 or chosen.get("do_sample") is False:
        chosen = {**chosen, "do_sample": False, **dict.fromkeys(_DRAWING)}  # transformers refuses to save both
    elif chosen.keys() & set(_DRAWING):
        chosen["do_sample"] = True
    for name, value in chosen.items():
        setattr(generation, name, value)
    return generation
