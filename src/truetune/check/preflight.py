"""From a configuration to rows ready to train on, with every problem found on the way told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from truetune.data.dataset import Data, load_data, unreadable
from truetune.data.renderer import Rendered, Renderer
from truetune.data.rows import Rows, Stream
from truetune.data.template import make_renderer, settle_template
from truetune.data.templates import TEMPLATES
from truetune.data.texts import require_template
from truetune.findings import Finding, Problem, Say, count_of, refuse, status_of
from truetune.model.find import find_model, load_model_config, load_tokenizer
from truetune.options import Config
from truetune.steps import Plan, pack, shuffle_seed, warmup_steps


@dataclass
class Preflight:
    """What a run starts from. base: the model's folder. held_out: rows by the name of what they measure ("": the one
    there is). findings: none is an error. facts: numbers for people."""

    base: Path
    renderer: Renderer
    train: Rows | Stream
    held_out: dict[str, Rows]
    plan: Plan
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

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
    train, held_out = data.train, data.held_out
    findings += row_findings(data, renderer, config)
    seed = shuffle_seed(config)
    packs = pack(train.lengths, config.cutoff_len, seed) if config.packing and isinstance(train, Rows) else None
    plan = Plan(len(train), config.per_device_train_batch_size, config.gradient_accumulation_steps,
                config.num_train_epochs, config.max_steps, seed,
                not config.disable_shuffling and not config.streaming, packs)
    findings += _step_findings(plan, config)
    return Preflight(base, renderer, train, held_out, plan, refuse(findings), _facts(data, plan))


def row_findings(data: Data, renderer: Renderer, config: Config) -> list[Finding]:
    """What the rows themselves tell: nothing to learn, answers without an end, prompts that chat would not send."""
    return [*_empty_findings(data, config), *_turn_findings(data.train),
            *_thinking_findings(data.train, renderer, config)]


def _empty_findings(data: Data, config: Config) -> list[Finding]:
    """Rows of which nothing is learned, and sets of which nothing is left."""
    findings = []
    for option, rows in (("dataset", data.train), *(("eval_dataset", rows) for rows in data.held_out.values())):
        empty = np.flatnonzero(rows.learned == 0)
        if len(empty):
            findings.append(Finding("nothing-learned", "error", f"no token is learned of {len(empty)} of "
                                    f"{count_of(len(rows.lengths), 'row')}.", option=option,
                                    where=_place(rows, int(empty[0]))))
        if not len(rows.lengths) and (config.dataset or option != "dataset"):
            fates = {"cannot be learned from": sum(sum(store.manifest.refusals.values()) for store in data.stores),
                     f"longer than {config.cutoff_len} tokens": sum(store.manifest.dropped for store in data.stores)}
            told = ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
            why = f": {told}" if told else ""
            findings.append(Finding("no-rows-left", "error", f"no row is left to learn from{why}.", option=option))
    return findings


def _turn_findings(rows: Rows | Stream) -> list[Finding]:
    """The end of an answer must be learned, or generation never stops."""
    told = (
        ("no-end-of-turn", "endless", "the answer has no end-of-turn token, so the model does not learn to stop.",
         "The chat template writes none; choose an Instruct version, or the template made for this model."),
        ("drift", "drifts", "the white space between prompt and answer becomes other tokens than in the prompt "
         "alone, which is what chat sends.",
         "Begin answers with a word. If they do, it is the template that ends its prompt so."),
    )
    findings = []
    for id, flag, what, fix in told:
        having = rows.having(flag)
        if len(having):
            findings.append(Finding(id, "warn", f"in {len(having)} of {len(rows.lengths)} rows {what}",
                                    option="dataset", where=_place(rows, int(having[0])), fix=fix))
    return findings


def _place(rows: Rows | Stream, number: int) -> str:
    """Where a row stands; of a stream, one of those that were looked at."""
    return (rows.sample if isinstance(rows, Stream) else rows)[number].where


def _thinking_findings(rows: Rows | Stream, renderer: Renderer, config: Config) -> list[Finding]:
    """A model that thinks or not, as it is told, unlearns to think from answers without thoughts."""
    named = TEMPLATES.get(config.template or "")
    switches = named.reasoning if named else "enable_thinking" in str(renderer.tokenizer.chat_template)
    if not switches or len(rows.having("thinks")) or not len(rows.lengths) or config.enable_thinking is not True:
        return []
    return [Finding("no-thoughts", "warn", "no answer holds a thought, and this model can think: it would learn to "
                    "think nothing when it is asked to think.", option="enable_thinking",
                    where=config.origin("enable_thinking"),
                    fix="enable_thinking: false teaches the answers without touching how it thinks.")]


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
