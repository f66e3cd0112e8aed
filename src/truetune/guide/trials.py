"""Which learning rate: the user's own run, cut short, at a third, once and three times its rate, judged by the loss on
the same held-out rows.

The rate is the option that decides most (arXiv:2602.04998 finds nine variants of LoRA alike once it is tuned). Every
trial is the run as `truetune train` would start it (same weights, same random numbers, same rows, the schedule
shortened to its steps), taken with the steps of the one loop. The model is loaded once; between trials the trained
weights are put back to what they were, bit for bit. Nothing is written into output_dir.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from truetune.checkpoint import Progress, random_state, set_random_state
from truetune.data.rows import Rows
from truetune.events import ConsoleProgress
from truetune.findings import WRONG_OPTIONS, Both, Problem, problem
from truetune.interrupt import Interrupts
from truetune.model.methods import METHODS, trainable
from truetune.model.precision import pick_precision
from truetune.optim import make_optimizer
from truetune.options import Config
from truetune.report import Terminal
from truetune.run import Run
from truetune.session import Session, start
from truetune.train import loss_of, take_step

RANGE = (1e-7, 1.0)
"""First and last rate of the range test."""
_STEPS, _RANGE_STEPS = 40, 100
_HELD_OUT = 0.2
"""Share of rows held out where the run itself holds out none."""
_MEASURED = 64
"""Held-out rows that are measured: it must be cheap beside the steps of a trial."""
_EXPLODED = 0.5
_STOPPING = Both("stopping after this step; what is known so far follows (once more: stop at once)",
                 "这一步之后停止，随后给出目前已知的结果（再按一次立即停止）")


@dataclass(frozen=True)
class HeldOut:
    """What some weights make of the held-out rows. losses, counts: (rows,) summed loss, and what to divide it by."""

    losses: np.ndarray
    counts: np.ndarray

    @property
    def loss(self) -> float:
        """Mean loss per learned token."""
        return float(self.losses.sum() / self.counts.sum())


@dataclass
class Trial:
    """One short run. losses: of each step. rates: the learning rate of each step. held_out: at its end. diverged: its
    loss exploded or was not finite, so it was stopped early."""

    rate: float
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    held_out: HeldOut | None = None
    diverged: bool = False


@dataclass
class Search:
    """What was tried. steps: of each trial; of: of the whole run. before: the held-out rows before any step.
    interrupted: by the user, so trials may be missing."""

    config: Config
    steps: int
    of: int
    before: HeldOut | None = None
    trials: list[Trial] = field(default_factory=list)
    interrupted: bool = False


def search(config: Config, steps: int | None, terminal: Terminal) -> Search:
    """Trials around learning_rate.

    Args:
        steps: of each; None chooses at most 40, and no more than the run has.

    Raises:
        Problem: the run could not start either.
    """
    with opened_run(config, steps, _STEPS, terminal) as (session, of), Bench(session, terminal) as bench:
        found = Search(session.config, session.ready.plan.total_steps, of)
        terminal.say(Both(
            f"three runs of {found.steps} steps (the whole run has {of:,}), each judged by {len(bench.rows)} held-out "
            "rows", f"三次短训练，每次 {found.steps} 步（完整训练共 {of:,} 步），各用留出的 {len(bench.rows)} 行评判"))
        found.before = bench.measure()
        for rate in rates_around(config.learning_rate):
            if not bench.stopped:
                terminal.print(f"learning_rate {rate:g} …")
                trial = bench.run(rate)
                found.trials.append(trial)
                if not (trial.diverged or bench.stopped):
                    trial.held_out = bench.measure()
        found.interrupted = bench.stopped
    return found


def rates_around(rate: float) -> tuple[float, float, float]:
    """A third of it, itself and three times it; the others in two digits, as a person would type them."""
    return float(f"{rate / 3:.2g}"), rate, float(f"{rate * 3:.2g}")


def sweep(config: Config, steps: int | None, terminal: Terminal) -> Search:
    """A range test (Smith 2017, arXiv:1506.01186, section 3.3): one run whose rate grows from step to step by the same
    factor over `RANGE`, until the loss explodes.

    Raises:
        Problem: the run could not start either.
    """
    with opened_run(config, steps or _RANGE_STEPS, 0, terminal) as (session, of), Bench(session, terminal) as bench:
        found = Search(session.config, session.ready.plan.total_steps, of)
        terminal.say(Both(f"one run of {found.steps} steps, its rate growing from {RANGE[0]:g} to {RANGE[1]:g}",
                          f"一次 {found.steps} 步的训练，学习率从 {RANGE[0]:g} 升到 {RANGE[1]:g}"))
        found.trials.append(bench.run(RANGE[0], np.geomspace(*RANGE, found.steps).tolist()))
        found.interrupted = bench.stopped
    return found


@contextmanager
def opened_run(config: Config, steps: int | None, most: int, terminal: Terminal) -> Iterator[tuple[Session, int]]:
    """The run, started as `train` would, in a folder of its own that is gone afterwards; and how many steps it has in
    all. What it says of itself `truetune check` says too, so it is silent but for what stops it.

    Args:
        steps: of a trial; None: as many as the run has, but no more than `most`.
    """
    if config.streaming:
        raise problem("streaming-find-lr", Both(
            "a stream is read once, and the trials need the same rows several times.",
            "流式数据只读一遍，而试训练需要反复用相同的行。"), option="streaming", where=config.origin("streaming"),
            status=WRONG_OPTIONS, fix=Both("Add streaming=false max_samples=2000 for the search.",
                                           "搜索时加上 streaming=false max_samples=2000。"))
    quiet = Terminal(terminal.chinese, quiet=True)
    own = {} if config.val_size or config.eval_dataset else {"val_size": _HELD_OUT}
    with TemporaryDirectory(prefix="truetune-find-lr-") as folder:
        trial = config.with_values(
            "find-lr", **own, do_train=True, resume_from_checkpoint=None, output_dir=folder, eval_strategy="no",
            early_stopping_steps=None, save_strategy="no", plot_loss=False, report_to=("none",))
        session = start(Run(Path(folder), trial), quiet)
        try:
            plan = session.ready.plan
            spared = sum(map(len, session.ready.held_out.values())) if own else 0  # which the run learns from
            of = replace(plan, rows=plan.rows + spared).total_steps
            session.ready.plan = replace(plan, max_steps=steps or min(most, of))
            yield session, of
        finally:
            session.events.close()


class Bench:
    """The loaded model, put back to the start of the run before each trial. While entered, the first Ctrl-C asks to
    stop after the step in progress."""

    def __init__(self, session: Session, terminal: Terminal):
        self._session, self._terminal = session, terminal
        self._weights = {name: master.detach().to(
            "cpu", copy=True) for name, master in session.optimizer.masters.items()}
        self._random = random_state()
        self._interrupts = Interrupts(lambda _: terminal.say(_STOPPING))
        self.rows = _spread(session.ready.held_out, session.ready.plan.per_row, _MEASURED)

    def __enter__(self) -> Bench:
        self._interrupts.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._interrupts.__exit__()

    @property
    def stopped(self) -> bool:
        """Whether the user wants to stop."""
        return self._interrupts.wanted

    def run(self, rate: float, rates: Sequence[float] = ()) -> Trial:
        """One trial from the start. rates: of each step, instead of the run's own schedule at `rate`."""
        session, trial = self._session, Trial(rate)
        self._reset(rate)
        session.bar = ConsoleProgress(self._terminal, session.ready.plan.total_steps)
        session.model.train()
        with session.bar:
            while len(trial.losses) < session.ready.plan.total_steps and not (trial.diverged or self.stopped):
                self._step(trial, rates[len(trial.losses)] if rates else None)
        return trial

    def _step(self, trial: Trial, rate: float | None) -> None:
        """One step of the loop, noted in `trial`. rate: instead of the schedule's."""
        session, progress = self._session, self._session.progress
        if rate:
            session.optimizer.learning_rate = rate
        rate = session.optimizer.learning_rate
        try:
            take_step(session)
        except Problem as error:
            if error.findings[0].id != "not-finite":
                raise
            trial.diverged = True
            return
        trial.rates.append(rate)
        trial.losses.append(progress.window_loss / progress.window_count)
        session.bar.show(progress, rate)
        progress.window_loss = progress.window_count = 0.0
        trial.diverged = exploded(trial.losses)

    def measure(self) -> HeldOut:
        """What the weights as they are make of the held-out rows; of fewer, if the user wants to stop."""
        session, measured = self._session, []
        for name, numbers in self.rows:
            measured.append(loss_of(session, name, session.ready.held_out[name], [numbers]))
        return HeldOut(np.array([each.loss for each in measured]), np.array([each.count for each in measured]))

    def _reset(self, rate: float) -> None:
        """Weights, random numbers and progress as the run starts with; a new optimizer at `rate`."""
        session = self._session
        config = session.config.with_values("find-lr", learning_rate=rate)
        session.optimizer.release()
        session.optimizer = make_optimizer(
            session.model, trainable(session.model), config, pick_precision(config, session.device),
            session.ready.plan.total_steps, METHODS[config.finetuning_type])
        with torch.no_grad():
            for name, master in session.optimizer.masters.items():
                master.copy_(self._weights[name])
                session.optimizer.parameters[name].copy_(master)
        session.optimizer.make_room()
        session.progress = Progress()
        set_random_state(self._random)


def exploded(losses: Sequence[float]) -> bool:
    """Whether the loss has risen, from the best it was, by half of what it began with; over five steps each, since
    single steps wander."""
    if len(losses) < 10:
        return False
    means = np.convolve(losses, np.ones(5) / 5, mode="valid")
    return bool(means[-1] > means.min() + _EXPLODED * means[0])


def _spread(sets: Mapping[str, Rows], per_row: int, most: int) -> list[tuple[str, range]]:
    """At most so many rows of the data, evenly from all sets and places: the set, and the numbers of the sequences."""
    places = [(name, range(first, first + per_row)) for name, rows in sets.items()
              for first in range(0, len(rows), per_row)]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))
    return [places[place] for place in chosen]
