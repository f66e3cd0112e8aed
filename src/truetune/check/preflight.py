"""From a configuration to rows ready to train on, with every problem found on the way told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from truetune.check.rows import row_findings
from truetune.data.dataset import Data, load_data, unreadable
from truetune.data.renderer import Rendered, Renderer
from truetune.data.rows import Rows, Stream
from truetune.data.template import make_renderer, settle_template
from truetune.data.texts import require_template
from truetune.findings import Finding, Problem, Say, count_of, refuse, status_of
from truetune.model.find import find_model, load_model_config, load_tokenizer
from truetune.options import Config
from truetune.steps import Plan, pack, shuffle_seed, warmup_steps


@dataclass
class Preflight:
    """What a run starts from. base: the model's folder. findings: none is an error. facts: numbers for people."""

    base: Path
    renderer: Renderer
    data: Data
    plan: Plan
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> Rows | Stream:
        return self.data.train

    @property
    def held_out(self) -> dict[str, Rows]:
        """Rows by the name of what they measure ("": the one there is)."""
        return self.data.held_out

    def sample(self) -> list[Rendered]:
        """Two short rows, to try things out with."""
        return self.train.shortest(2) or next(iter(self.held_out.values())).shortest(2)

    def largest_batch(self, batch_size: int) -> int:
        """Tokens of the largest batch that can come."""
        lengths = np.sort(np.concatenate([self.train.lengths, *(rows.lengths for rows in self.held_out.values())]))
        if self.plan.packs is not None:
            lengths = np.sort(np.add.reduceat(self.train.lengths[self.plan.packs.order], self.plan.packs.starts[:-1]))
        return int(lengths[-batch_size:].sum())

    def as_dict(self) -> dict[str, Any]:
        """The shape of `check --json` and check.json."""
        findings = [finding.as_dict() for finding in self.findings]
        return {"status": status_of(self.findings), "findings": findings, "facts": self.facts}


def prepare(config: Config, say: Say,
            trains: bool = False) -> tuple[Path, Renderer, Data, list[Finding]]:
    """The model's folder, the renderer, the rows, and what was found on the way. trains: the model itself must be one
    that can be loaded; data alone need only its tokenizer.

    Raises:
        Problem: with all errors of model, template and data together.
    """
    errors: list[Finding] = []
    findings: list[Finding] = []
    try:
        assert config.model_name_or_path is not None  # a rule has made sure
        base = find_model(config.model_name_or_path, config, say)
        if trains:
            load_model_config(base)
        tokenizer = load_tokenizer(base)
        findings = refuse(settle_template(tokenizer, config))
        if config.stage != "pt":
            require_template(tokenizer, config.model_name_or_path)
        renderer = make_renderer(tokenizer, base, config)
    except Problem as problem:
        errors += problem.findings
        errors += unreadable(config)
        raise Problem(errors, problem.status) from None
    data = load_data(config, renderer, say)
    return base, renderer, data, [*findings, *data.findings]


def preflight(config: Config, say: Say) -> Preflight:
    """Model found, data read and rendered, everything counted.

    Raises:
        Problem: with all errors of model and data together.
    """
    base, renderer, data, findings = prepare(config, say, trains=True)
    train = data.train
    findings += row_findings(data, renderer, config)
    seed = shuffle_seed(config)
    packs = pack(train.lengths, config.cutoff_len, seed) if config.packing and isinstance(train, Rows) else None
    plan = Plan(len(train), config.per_device_train_batch_size, config.gradient_accumulation_steps,
                config.num_train_epochs, config.max_steps, seed,
                not config.disable_shuffling and not config.streaming, packs)
    findings += _step_findings(plan, config)
    return Preflight(base, renderer, data, plan, refuse(findings), _facts(data, plan))


def _step_findings(plan: Plan, config: Config) -> list[Finding]:
    if not config.do_train or not plan.rows:
        return []
    findings = []
    total = plan.total_steps
    if total < 20:
        findings.append(Finding("few-steps", "warn", f"{count_of(plan.rows, 'row')} make "
                                f"{count_of(total, 'optimizer step')} in all; the model will hardly change.",
                                option="num_train_epochs",
                                fix="More epochs, or a smaller batch (batch size x accumulation)."))
    if warmup_steps(config, total) >= total:
        findings.append(Finding("all-warmup", "warn", f"warmup takes all {total} steps, so learning_rate is never "
                                "reached.", option="warmup_steps", where=config.origin("warmup_steps")))
    return findings


def _facts(data: Data, plan: Plan) -> dict[str, Any]:
    """Numbers for people. sampled: of a stream, from how many of its first rows they are."""
    lengths, learned = data.train.lengths, data.train.learned
    some = bool(len(lengths))
    sampled = {"sampled": len(lengths)} if isinstance(data.train, Stream) else {}
    return {
        **sampled,
        "rows": len(data.train), "rows_held_out": sum(map(len, data.held_out.values())),
        "rows_left_out": sum(store.manifest.left_out for store in data.stores),
        "tokens": int(lengths.sum()), "tokens_learned": int(learned.sum()),
        "length_median": int(np.median(lengths)) if some else 0, "length_longest": int(lengths.max(initial=0)),
        "learned_median": int(np.median(learned)) if some else 0,
        "steps_per_epoch": plan.steps_per_epoch if plan.rows else 0, "steps": plan.total_steps if plan.rows else 0,
    }
