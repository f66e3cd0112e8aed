"""What the loop learns from: the batches of a step, with everything known that the objective compares with.

`Offline` lays out rows of the data. Where the model writes answers on the way, `rollout` does the same with those.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import torch

from truetune.check.preflight import Preflight
from truetune.data.renderer import Rendered
from truetune.data.rows import Mismatched, Rows, Stream
from truetune.findings import WRONG_OPTIONS, Both, Say, problem
from truetune.lesson import Lesson
from truetune.model.adapters import adapters_of, put_adapters, virtual_of
from truetune.model.base import load_base, load_in
from truetune.model.find import find_model, load_tokenizer
from truetune.model.load import fingerprint
from truetune.model.policy import Policy
from truetune.model.quantize import Codes
from truetune.model.reference import FOLDER, Live, Reference, keep, way_of
from truetune.objectives import Objective
from truetune.objectives.objective import per_row
from truetune.options import Config
from truetune.rollout.rewards import make_rewards
from truetune.rollout.rollout import Rollouts
from truetune.run import Run
from truetune.steps import Plan, round_of, shuffle_seed

TRAIN = "train"
"""The set that is learned from; those held out have names of their own, with this before it."""
_MISMATCHED = " mismatched"
_TOGETHER = 8
"""Mismatched rows that are computed at once: without gradients even these take little memory."""


class Lessons(Protocol):
    """Where batches come from. Each comes with the numbers of its rows (none where they are not the data's) and what
    the reference says."""

    def step(self, plan: Plan, step: int) -> Iterator[Lesson]:
        """The batches of an optimizer step (from 0)."""
        ...

    def measure(self, name: str, rows: Sequence[Rendered], batches: Iterable[Sequence[int]]) -> Iterator[Lesson]:
        """Batches of held-out rows, by their numbers in `rows`, the set `name`."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint has to hold so that the next step is the same."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `state`."""
        ...


class Offline:
    """Rows of the data."""

    def __init__(self, train: Rows | Stream, objective: Objective, policy: Policy, reference: Reference | None,
                 seed: int):
        self.train, self.objective, self.policy, self.reference, self.seed = train, objective, policy, reference, seed

    def step(self, plan: Plan, step: int) -> Iterator[Lesson]:
        batches = plan.batches(step)
        known = self._known(TRAIN, self.train, [number for batch in batches for number in batch])
        for numbers in batches:
            yield self._lesson(TRAIN, self.train, numbers, known, self.objective)

    def measure(self, name: str, rows: Sequence[Rendered], batches: Iterable[Sequence[int]]) -> Iterator[Lesson]:
        for numbers in batches:
            yield self._lesson(held_out(name), rows, numbers, self._known(held_out(name), rows, numbers),
                               self.objective.evaluation())

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        assert not state

    def _lesson(self, set: str, rows: Sequence[Rendered], numbers: Sequence[int],
                known: Mapping[str, torch.Tensor], objective: Objective) -> Lesson:
        batch = self.policy.lay_out([rows[number] for number in numbers]).knowing(**known)
        reference = self.reference
        logp = reference.logp(set, numbers, batch) if reference and objective.reference else None
        beside = reference.states(batch) if reference and objective.wants.beside else None
        return Lesson(batch, numbers, logp, beside)

    def _known(self, set: str, rows: Sequence[Rendered], numbers: Sequence[int]) -> Mapping[str, torch.Tensor]:
        """What the objective has to know of all rows of a step together."""
        if not self.objective.mismatched:
            return {}
        assert self.reference is not None
        mixed = Mismatched(rows, self.seed)
        said: list[tuple[torch.Tensor, torch.Tensor]] = []
        for first in range(0, len(numbers), _TOGETHER):
            some = numbers[first : first + _TOGETHER]
            batch = self.policy.lay_out([mixed[number] for number in some])
            with self.policy.still():
                policy = per_row(self.policy.log_probabilities(batch), batch)
            said.append((policy, per_row(self.reference.logp(set + _MISMATCHED, some, batch), batch)))
        policy, reference = (torch.cat(pieces) for pieces in zip(*said, strict=True))
        return self.objective.known(policy, reference)


def held_out(name: str) -> str:
    """The set of held-out rows called `name` ("": all of them)."""
    return f"held out {name}"


def sets_of(train: Sequence[Rendered], held: Mapping[str, Sequence[Rendered]], objective: Objective,
            seed: int) -> dict[str, Sequence[Rendered]]:
    """Every set of rows of which the reference's log-probabilities are asked."""
    sets = {TRAIN: train, **{held_out(name): rows for name, rows in held.items()}}
    if objective.mismatched:
        sets |= {name + _MISMATCHED: Mismatched(rows, seed) for name, rows in sets.items()}
    return sets


def make_lessons(config: Config, ready: Preflight, objective: Objective, policy: Policy, model: torch.nn.Module,
                 run: Run, say: Say, stop: Callable[[], bool]) -> Lessons:
    """Where this run's batches come from.

    Args:
        model: the policy's model with its adapter, before anything was trained or loaded from a checkpoint.
        stop: whether the user wants to stop.
    """
    seed = shuffle_seed(config)
    reference = make_reference(config, ready, objective, policy, model, run, say)
    if round_of(config):
        rewards = make_rewards(config, ready, policy, model, say)
        return Rollouts(config, ready, objective, policy, reference, rewards, stop)
    return Offline(ready.train, objective, policy, reference, seed)


def make_reference(config: Config, ready: Preflight, objective: Objective, policy: Policy, model: torch.nn.Module,
                   run: Run, say: Say) -> Reference | None:
    """What the objective compares with; see `way_of`."""
    named = getattr(config, objective.compared_to)
    match way_of(config, objective):
        case "none":
            return None
        case "adapters off":
            return Live(policy, model.disable_adapter)  # pyright: ignore[reportArgumentType]
        case "second model":
            return Live(other_model(named, config, ready, objective, policy, say))
        case "kept":
            sets = sets_of(ready.train, ready.held_out, objective, shuffle_seed(config))
            told = [fingerprint(ready.base), named, *config.adapter_name_or_path, str(policy.causal.dtype),
                    str(Codes.of(config)), config.ref_model_quantization_bit,
                    *(rows.hash() for rows in (ready.train, *ready.held_out.values())), objective.mismatched]
            key = sha256(json.dumps(told).encode()).hexdigest()[:16]
            return keep(run.folder / FOLDER, key, sets,
                        lambda: other_model(named, config, ready, objective, policy, say) if named else policy, say)


def other_model(named: str | None, config: Config, ready: Preflight, objective: Objective, policy: Policy,
                say: Say) -> Policy:
    """Another model as a reference, in the precision of the policy; the one that training starts from if none is named.

    Raises:
        Problem: it cannot be loaded, or reads other tokens than the policy.
    """
    option = objective.compared_to
    base = find_model(named, config, say) if named else ready.base
    if named and load_tokenizer(base).get_vocab() != ready.renderer.tokenizer.get_vocab():
        raise problem("other-tokens", Both(
            f"{named} has other tokens than {config.model_name_or_path}, so their probabilities cannot be compared.",
            f"{named} 与 {config.model_name_or_path} 的词表不同，概率无法比较。"), option=option,
            where=config.origin(option), status=WRONG_OPTIONS,
            fix=Both("Name a model of the same family.", "请换一个词表相同的同系列模型。"))
    dtype, device = policy.causal.dtype, policy.causal.device
    bits = Codes.plain(config.ref_model_quantization_bit if option == "ref_model" else None)
    causal = load_in(bits, base, dtype, device, f"{option}_quantization_bit") if named else \
        load_base(base, config, dtype, device)
    adapters = list(map(Path, getattr(config, f"{option}_adapters"))) if named else adapters_of(config)
    model = put_adapters(causal, adapters, base) if adapters else causal
    model.requires_grad_(False)
    other = Policy(causal, outer=virtual_of(model), fast=len(policy.ways) > 1, shares=objective.shares,
                   temperature=objective.temperature)
    other.verify(ready.sample(objective.shares), say)
    return other
