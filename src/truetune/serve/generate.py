"""Answers to many prompts at once: what chat, the questions before and after a run, and learning from answers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from truetune.model.adapters import virtual_of

AT_ONCE = 8192
"""Tokens that are held at once, prompts and answers at their longest: little memory for most models."""


class Stopped(Exception):
    """Somebody wants to stop, and what was being written is thrown away."""


def complete(causal: Any, prompts: Sequence[list[int]], generation: GenerationConfig, at_once: int = AT_ONCE,
             stop: Callable[[], bool] | None = None, criteria: Sequence[StoppingCriteria] = ()) -> list[list[int]]:
    """The ids of the answer to each prompt, its end of turn included where it has one.

    Args:
        causal: a causal language model of transformers or PEFT, in evaluation mode.
        generation: how words are drawn; it names the tokens that end an answer, and the longest one.
        at_once: prompts of like length are answered together, shorter ones padded on the left, as many as have so many
            tokens with their answers.
        stop: asked at every word; true ends it all.
        criteria: others by which single answers end; what follows an end is the token for padding.

    Raises:
        Stopped: `stop` said so.
    """
    answers: dict[int, list[int]] = {}
    ends, pad, longest = _ends(generation), generation.pad_token_id, generation.max_new_tokens or 0
    ending = StoppingCriteriaList([*([When(stop)] if stop else []), *criteria])
    lengths = [len(prompt) + longest for prompt in prompts]
    for numbers in _together(lengths, at_once, alike=virtual_of(causal) is not None):
        width = len(prompts[numbers[-1]])
        padding = [width - len(prompts[number]) for number in numbers]
        ids = [[pad] * more + prompts[number] for number, more in zip(numbers, padding, strict=True)]
        mask = [[0] * more + [1] * (width - more) for more in padding]
        out = causal.generate(input_ids=torch.tensor(ids, device=causal.device), generation_config=generation,
                              attention_mask=torch.tensor(mask, device=causal.device), stopping_criteria=ending)
        if stop and stop():
            raise Stopped
        for number, row in zip(numbers, out[:, width:].tolist(), strict=True):
            answers[number] = _to_end(row, ends)
    return [answers[number] for number in range(len(prompts))]


class When(StoppingCriteria):
    """Ends every answer as soon as `stop` says so."""

    def __init__(self, stop: Callable[[], bool]):
        self.stop = stop

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), self.stop(), device=input_ids.device, dtype=torch.bool)


def _together(lengths: Sequence[int], at_once: int, alike: bool) -> list[list[int]]:
    """Which are answered together, the shortest first: as many as `at_once` tokens take, padding counted. alike: only
    those of one length, since padding would stand between virtual tokens and the text and move them apart."""
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        full = not batches or lengths[number] * (len(batches[-1]) + 1) > at_once
        if full or (alike and lengths[batches[-1][0]] != lengths[number]):
            batches.append([])
        batches[-1].append(number)
    return batches


def _to_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    """An answer without the padding behind its end."""
    return next((ids[: place + 1] for place, token in enumerate(ids) if token in ends), ids)


def _ends(generation: GenerationConfig) -> list[int]:
    ends: Any = generation.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or [])
