"""The reference: the model that training starts from (or another one), to which objectives compare the policy.

Three ways to have it, the cheapest that is right is taken:

- adapters switched off: the policy itself without what LoRA adds, no memory at all, one more forward pass a batch;
- kept: the log-probabilities of every row, computed once before the first step and read from disk ever after;
- a second model in memory, where rows are not known before (answers written on the way, streams) or where its whole
  distributions are needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from truetune.data.batches import Batch, neighbours
from truetune.data.renderer import Rendered
from truetune.files import remove_folder, write_json
from truetune.findings import Both, Say
from truetune.model.methods import METHODS
from truetune.model.policy import Policy, States
from truetune.objectives import Objective
from truetune.options import Config
from truetune.steps import round_of

FOLDER = "reference"
"""In the run folder: what was kept."""


Way = Literal["none", "adapters off", "kept", "second model"]


def way_of(config: Config, objective: Objective) -> Way:
    """The cheapest way to the reference that is right for a run.

    An adapter that is trained further is part of the model that training starts from: switched off, it would be missing
    from the reference. (LLaMA-Factory compares with the bare base model there.)
    """
    if not (objective.reference or objective.wants.beside):
        return "none"
    named = getattr(config, objective.compared_to)
    begins = config.create_new_adapter or not config.adapter_name_or_path
    fresh = METHODS[config.finetuning_type].adapter and begins
    known_rows = not (objective.wants.beside or config.streaming or round_of(config))
    keeps = config.precompute_ref_log_probs
    if known_rows and (named or (not fresh if keeps is None else keeps)):
        return "kept"
    return "adapters off" if fresh and not named else "second model"


class Reference(Protocol):
    """What objectives compare with. Nothing of it is differentiable."""

    def logp(self, set: str, numbers: Sequence[int], batch: Batch) -> torch.Tensor:
        """(N,): log-probabilities of the batch's learned tokens.

        Args:
            set: the rows' set; numbers: theirs in it.
        """
        ...

    def states(self, batch: Batch) -> States:
        """What its logits are read from."""
        ...


class Live:
    """A reference that is computed whenever it is asked: another model, or the policy with its adapters off."""

    def __init__(self, policy: Policy, off: Callable[[], object] = nullcontext):
        """`off()`: a context in which `policy` is the reference."""
        self.policy, self._off = policy, off

    def logp(self, set: str, numbers: Sequence[int], batch: Batch) -> torch.Tensor:
        with self._asked():
            return self.policy.log_probabilities(batch)

    def states(self, batch: Batch) -> States:
        with self._asked():
            return self.policy.states(batch)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        with self.policy.still(), self._off():  # pyright: ignore[reportGeneralTypeIssues]
            yield


class Kept:
    """Log-probabilities on disk: for each set one array of all learned tokens, and where each row's begin."""

    def __init__(self, folder: Path, sets: Mapping[str, Sequence[Rendered]]):
        self.folder = folder
        self._values = {name: np.load(folder / f"{_file(name)}.npy", mmap_mode="r") for name in sets}
        self._starts = {name: np.load(folder / f"{_file(name)}.starts.npy") for name in sets}

    def logp(self, set: str, numbers: Sequence[int], batch: Batch) -> torch.Tensor:
        values, starts = self._values[set], self._starts[set]
        pieces = [values[starts[number] : starts[number + 1]] for number in numbers]
        return torch.from_numpy(np.concatenate(pieces)).to(batch.ids.device)

    def states(self, batch: Batch) -> States:
        raise NotImplementedError("log-probabilities are kept, whole distributions are not")


def keep(folder: Path, key: str, sets: Mapping[str, Sequence[Rendered]], policy: Callable[[], Policy],
         say: Say) -> Kept:
    """The log-probabilities of every row, computed unless `folder` has them already.

    Args:
        key: what they depend on: model and rows.
        policy: the reference model, made only if it is needed.
    """
    mark = folder / "reference.json"
    if not (mark.is_file() and json.loads(mark.read_text(encoding="utf-8")).get("key") == key):
        if folder.exists():
            remove_folder(folder)
        folder.mkdir(parents=True)
        rows = sum(map(len, sets.values()))
        say(Both(f"the reference model reads {rows:,} sequences once; what it says is kept in {folder}",
                 f"参考模型先读一遍 {rows:,} 个序列，结果保存在 {folder}"))
        computed = Live(policy())
        for name, some in sets.items():
            _compute(folder / _file(name), some, computed)
        write_json(mark, {"key": key})
    return Kept(folder, sets)


def _compute(target: Path, rows: Sequence[Rendered], reference: Live) -> None:
    """Write the log-probabilities of `rows`, several computed at once; neighbours, which may share a prompt."""
    learned = np.array([np.count_nonzero(row.weights[1:]) for row in rows], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(learned)])
    np.save(target.with_name(f"{target.name}.starts.npy"), starts)
    values = np.lib.format.open_memmap(target.with_name(f"{target.name}.npy"), mode="w+", dtype=np.float32,
                                       shape=(int(starts[-1]),))
    for numbers in neighbours(map(len, rows)):
        batch = reference.policy.lay_out([rows[number] for number in numbers])
        values[starts[numbers.start] : starts[numbers.stop]] = reference.logp("", (), batch).float().cpu().numpy()
    values.flush()


def _file(set: str) -> str:
    """A set's name as the name of a file: any text may be a data set's name."""
    return sha256(set.encode()).hexdigest()[:16]
