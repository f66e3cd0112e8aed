"""One real step, in a process of its own: what memory and time it takes, beside what was predicted.

`python -m truetune.check.measure FILE` trains one optimizer step on the longest batch of the run described in FILE,
evaluates it, and prints what it took as JSON. It is a process of its own so that its peak is its own, and so that the
check survives if the system kills it for want of memory.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from truetune.findings import Both, Say, Words
from truetune.options import Config
from truetune.steps import Plan, round_of


@dataclass(frozen=True)
class Measured:
    """peak: bytes at most. tokens_per_second: of one step, after one to warm up. fault: why there is nothing."""

    peak: int = 0
    tokens_per_second: float = 0.0
    fault: Words = ""


def measure(config: Config, say: Say) -> Measured:
    """Take one step of the run in a child process, and wait for it."""
    from truetune.run import describe

    say(Both("taking one real step …", "正在真正走一步……"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(describe(config), encoding="utf-8")
        done = subprocess.run([sys.executable, "-m", "truetune.check.measure", str(path), folder], capture_output=True,
                              text=True, encoding="utf-8", check=False)
    if done.returncode == 0:
        return Measured(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode < 0:
        return Measured(fault=Both(f"killed by signal {-done.returncode}, as systems do when memory runs out",
                                   f"被信号 {-done.returncode} 终止，内存耗尽时系统会这样做"))
    return Measured(fault=(done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])


def take(path: Path, folder: Path) -> Measured:
    """Two steps on the longest batch (the first sets things up) and one evaluation, in this process. Where the model
    writes what it learns from, no batch is known to be the longest, and the run's own first steps are taken."""
    from truetune.options.read import read_config
    from truetune.report import Terminal, peak_memory
    from truetune.run import claim
    from truetune.session import start
    from truetune.train import loss_of, take_step

    config, _ = read_config([str(path), f"output_dir={folder}/run", "max_steps=2", "overwrite_output_dir=true",
                             "resume_from_checkpoint=null"])
    session = start(claim(config), Terminal(file=io.StringIO()), checked=False)
    ready, progress = session.ready, session.progress
    if not round_of(config):
        longest = _longest(ready.plan, ready.train.lengths)
        # Two batches a step, if there are more than one: gradients of the first are there while the second is computed.
        ready.plan = _Again([longest] * min(ready.plan.accumulation, 2))  # pyright: ignore[reportAttributeAccessIssue]
    session.model.train()
    take_step(session)
    before = progress.seconds, progress.tokens
    take_step(session)
    rate = (progress.tokens - before[1]) / (progress.seconds - before[0])
    for name, rows in ready.held_out.items():
        loss_of(session, name, rows, [_longest_rows(rows.lengths, config.per_device_eval_batch_size, rows.per_row)])
    return Measured(round(peak_memory() * 1e9), rate)


@dataclass(frozen=True)
class _Again:
    """A plan in which every step learns from the same batches."""

    each: list[list[int]]
    steps_per_epoch: int = 2

    def batches(self, step: int) -> list[list[int]]:
        return self.each


def _longest(plan: Plan, lengths: np.ndarray) -> list[int]:
    """The numbers of the sequences of the batch with the most tokens that can come."""
    if plan.packs is None:
        return _longest_rows(lengths, plan.batch_size, plan.per_row)
    sizes = np.add.reduceat(lengths[plan.packs.order], plan.packs.starts[:-1])
    return [row for pack in np.argsort(-sizes)[: plan.batch_size].tolist() for row in plan.packs.rows(pack)]


def _longest_rows(lengths: np.ndarray, count: int, per_row: int) -> list[int]:
    """The numbers of the sequences of the `count` longest rows of the data."""
    rows = np.argsort(-lengths.reshape(-1, per_row).sum(axis=1), kind="stable")[:count]
    return (rows[:, None] * per_row + np.arange(per_row)).ravel().tolist()


if __name__ == "__main__":
    print(json.dumps(asdict(take(Path(sys.argv[1]), Path(sys.argv[2])))))
