"""What the loop learns from: the batches of a step, with everything known that the objective compares with.

`Offline` lays out rows of the data. Where the model writes answers on the way, `rollout` does the same with those.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import torch

from truetune.check.preflight import Preflight
from truetune.data.batches import Batch
from truetune.data.renderer import Rendered
from truetune.data.rows import Mismatched, Rows, Stream
from truetune.findings import Say
from truetune.model.find import find_model
from truetune.model.load import fingerprint, load_model, put_adapter
from truetune.model.methods import METHODS
from truetune.model.policy import Policy, States
from truetune.model.reference import FOLDER, Live, Reference, keep
from truetune.objectives import Objective
from truetune.objectives.objective import per_row
from truetune.options import Config
from truetune.run import Run
from truetune.steps import Plan, round_of, shuffle_seed

TRAIN = "train"
"""The set that is learned from; those held out have names of their own, with this before it."""
_MISMATCHED = " mismatched"


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


class Lesson:
    """A batch, the numbers of its rows, and what the reference says of it: log-probabilities (N,), or hidden states
    that logits are read from."""

    def __init__(self, batch: Batch, numbers: Sequence[int] = (), reference: torch.Tensor | None = None,
                 beside: States | None = None):
        self.batch, self.numbers, self.reference, self.beside = batch, numbers, reference, beside


class Offline:
    """Rows of the data."""

    def __init__(self, train: Rows | Stream, objective: Objective, policy: Policy, reference: Reference | None,
                 seed: int):
        self.train, self.objective, self.policy, self.reference, self.seed = train, objective, policy, reference, seed

    def step(self, plan: Plan, step: int) -> Iterator[Lesson]:
        batches = plan.batches(step)
        known = self._known(TRAIN, self.train, [number for batch in batches for number in batch])
        for numbers in batches:
            yield self._lesson(TRAIN, self.train, numbers, known)

    def measure(self, name: str, rows: Sequence[Rendered], batches: Iterable[Sequence[int]]) -> Iterator[Lesson]:
        for numbers in batches:
            yield self._lesson(held_out(name), rows, numbers, self._known(held_out(name), rows, numbers))

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        assert not state

    def _lesson(self, set: str, rows: Sequence[Rendered], numbers: Sequence[int],
                known: Mapping[str, torch.Tensor]) -> Lesson:
        batch = self.policy.lay_out([rows[number] for number in numbers]).knowing(**known)
        reference = self.reference
        logp = reference.logp(set, numbers, batch) if reference and self.objective.reference else None
        beside = reference.states(batch) if reference and self.objective.wants.beside else None
        return Lesson(batch, numbers, logp, beside)

    def _known(self, set: str, rows: Sequence[Rendered], numbers: Sequence[int]) -> Mapping[str, torch.Tensor]:
        """What the objective has to know of all rows of a step together."""
        if not self.objective.mismatched:
            return {}
        assert self.reference is not None
        mixed = Mismatched(rows, self.seed)
        said: list[tuple[torch.Tensor, torch.Tensor]] = []
        training = self.policy.causal.training
        self.policy.causal.eval()
        size = 8
        for first in range(0, len(numbers), size):
            some = numbers[first : first + size]
            batch = self.policy.lay_out([mixed[number] for number in some])
            with torch.no_grad():
                policy = per_row(self.policy.log_probabilities(batch), batch)
            said.append((policy, per_row(self.reference.logp(set + _MISMATCHED, some, batch), batch)))
        self.policy.causal.train(training)
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
                 run: Run, say: Say) -> Lessons:
    """Where this run's batches come from.

    Args:
        model: the policy's model with its adapter, before anything was trained or loaded from a checkpoint.
    """
    seed = shuffle_seed(config)
    wants = objective.reference or objective.wants.beside
    reference = make_reference(config, ready, objective, policy, model, run, say) if wants else None
    return Offline(ready.train, objective, policy, reference, seed)


def make_reference(config: Config, ready: Preflight, objective: Objective, policy: Policy, model: torch.nn.Module,
                   run: Run, say: Say) -> Reference:
    """The cheapest way to the reference that is right for this run.

    An adapter that is trained further is part of the model that training starts from: switched off, it would be missing
    from the reference. (LLaMA-Factory compares with the bare base model there.)
    """
    named = getattr(config, objective.compared_to)
    fresh = METHODS[config.finetuning_type].adapter and not config.adapter_name_or_path
    keeps = not fresh if config.precompute_ref_log_probs is None else config.precompute_ref_log_probs
    known = not (objective.wants.beside or isinstance(ready.train, Stream) or round_of(config))
    if known and (keeps or named):
        sets = sets_of(ready.train, ready.held_out, objective, shuffle_seed(config))
        told = [fingerprint(ready.base), named, *config.adapter_name_or_path, str(policy.causal.dtype),
                *(rows.hash() for rows in (ready.train, *ready.held_out.values())), objective.mismatched]
        key = sha256(json.dumps(told).encode()).hexdigest()[:16]
        other = (lambda: other_model(named, config, objective, policy, say)) if named else (lambda: policy)
        return keep(run.folder / FOLDER, key, sets, other, say)
    if named or not fresh:
        return Live(other_model(named or config.model_name_or_path or "", config, objective, policy, say))
    return Live(policy, model.disable_adapter)  # pyright: ignore[reportArgumentType]


def other_model(name: str, config: Config, objective: Objective, policy: Policy, say: Say) -> Policy:
    """Another model as a reference, in the precision of the policy.

    Raises:
        Problem: it cannot be loaded, or reads other tokens than the policy.
    """
    option = objective.compared_to
    base = find_model(name, config, say)
    own = name == config.model_name_or_path and not getattr(config, option)
    adapters = config.adapter_name_or_path if own else getattr(config, f"{option}_adapters")
    causal = load_model(base, policy.causal.dtype, policy.causal.device)
    for adapter in adapters:
        put_adapter(causal, Path(adapter), base)
    causal.requires_grad_(False)
    return Policy(causal, fast=len(policy.ways) > 1, shares=objective.shares, temperature=objective.temperature)
