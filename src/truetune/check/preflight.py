"""From a configuration to rows ready to train on, with every problem found on the way told at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from truetune.data.batches import Plan
from truetune.data.conversations import DataSet, load_data
from truetune.data.messages import BadRow, Conversation
from truetune.data.renderer import Rendered, render, require_template, stop_ids
from truetune.data.sources import describe_bad_rows
from truetune.findings import Finding, Problem, status_of
from truetune.model.load import find_model, load_model_config, load_tokenizer
from truetune.optim import warmup_steps
from truetune.options import Config


@dataclass
class Preflight:
    """What a run starts from. base: the model's folder. findings: none is an error. facts: numbers for people."""

    base: Path
    tokenizer: PreTrainedTokenizerBase
    train: list[Rendered]
    held_out: list[Rendered]
    plan: Plan
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The shape of `check --json` and check.json."""
        findings = [finding.as_dict() for finding in self.findings]
        return {"status": status_of(self.findings), "findings": findings, "facts": self.facts}


def preflight(config: Config, say: Callable[[str], None]) -> Preflight:
    """Model found, data read and rendered, everything counted.

    Raises:
        Problem: with all errors of model and data together.
    """
    errors: list[Finding] = []
    base = tokenizer = data = None
    try:
        assert config.model_name_or_path is not None  # a rule has made sure
        base = find_model(config.model_name_or_path, config, say)
        load_model_config(base)
        tokenizer = load_tokenizer(base)
        require_template(tokenizer, config.model_name_or_path)
    except Problem as problem:
        errors += problem.findings
    try:
        data = load_data(config)
    except Problem as problem:
        errors += problem.findings
    if errors or base is None or tokenizer is None or data is None:
        raise Problem(errors)

    findings: list[Finding] = []
    train = _fit(data.train, tokenizer, config, "dataset", findings)
    held_out = _fit(data.held_out, tokenizer, config, "eval_dataset", findings)
    seed = config.seed if config.data_seed is None else config.data_seed
    plan = Plan(len(train), config.per_device_train_batch_size, config.gradient_accumulation_steps,
                config.num_train_epochs, config.max_steps, seed, not config.disable_shuffling)
    findings += _template_findings(tokenizer, config) + _turn_findings(train, tokenizer) + _step_findings(plan, config)
    if any(finding.severity == "error" for finding in findings):
        raise Problem(findings)
    return Preflight(base, tokenizer, train, held_out, plan, findings, _facts(data, train, held_out, plan))


def _fit(talks: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, config: Config, option: str,
         findings: list[Finding]) -> list[Rendered]:
    """Conversations rendered; what is too long handled as `excess_length_strategy` says; what is left to learn from."""
    talks = list(talks)
    rendered = render(talks, tokenizer, mask_history=config.mask_history, train_on_prompt=config.train_on_prompt)
    bad = [(talk.where, str(row)) for talk, row in zip(talks, rendered, strict=True) if isinstance(row, BadRow)]
    findings += [replace(finding, option=option) for finding in describe_bad_rows(bad, len(talks))]
    rows = [row for row in rendered if isinstance(row, Rendered)]
    if bad:
        return rows
    if any(len(row) > config.cutoff_len for row in rows):
        rows = _shorten(talks, rows, tokenizer, config, option, findings)
    empty = [row.where for row in rows if not row.weights[1:].any()]
    if empty:
        findings.append(Finding("nothing-learned", "error", f"{len(empty)} of {len(talks)} rows have no token that is "
                                "learned.", option=option, where=empty[0]))
    if talks and not rows:
        findings.append(Finding("no-rows-left", "error", "no row is left to learn from.", option=option,
                                fix=f"cutoff_len is {config.cutoff_len}."))
    return rows


def _shorten(talks: Sequence[Conversation], rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase,
             config: Config, option: str, findings: list[Finding]) -> list[Rendered]:
    """The rows, those longer than `cutoff_len` left out, shortened or refused; how many and which is a finding."""
    strategy, limit = config.excess_length_strategy, config.cutoff_len
    kept: list[Rendered] = []
    lost: list[str] = []
    for talk, row in zip(talks, rows, strict=True):
        fitting = row if len(row) <= limit or strategy == "raise" else None
        if fitting is None and strategy == "truncate":
            fitting = _without_oldest_turns(talk, tokenizer, config)
        if fitting:
            kept.append(fitting)
        else:
            lost.append(row.where)
    long = [row for row in rows if len(row) > limit]
    longest = max(len(row) for row in long)
    places = [row.where for row in long] if strategy == "raise" else lost
    fates = {"are shortened by their oldest turns": len(long) - len(lost) if strategy == "truncate" else 0,
             "are left out": len(lost)}
    told = " and ".join(f"{count} {fate}" for fate, count in fates.items() if count)
    named = f" ({', '.join(places[:5])}{', …' if len(places) > 5 else ''})" if places else ""
    findings.append(Finding(
        "too-long", "error" if strategy == "raise" else "warn",
        f"{len(long)} of {len(rows)} rows are longer than {limit} tokens (the longest has {longest})"
        f"{f'; {told}' if told else ''}{named}.",
        option="cutoff_len" if option == "dataset" else option, where=config.origin("cutoff_len"),
        fix=f"cutoff_len: {longest} keeps all whole."))
    return kept


def _without_oldest_turns(talk: Conversation, tokenizer: PreTrainedTokenizerBase, config: Config) -> Rendered | None:
    """The conversation without as many of its first exchanges as needed; None if its last one alone is too long."""
    messages = list(talk.messages)
    first = int(messages[0].role == "system")
    while len(messages) - first > 2:
        del messages[first : first + 2]
        row = render([Conversation(tuple(messages), talk.where)], tokenizer, mask_history=config.mask_history,
                     train_on_prompt=config.train_on_prompt)[0]
        if isinstance(row, Rendered) and len(row) <= config.cutoff_len:
            return row
    return None


_MARKS = re.compile(r"<\|?[^<>\s]+\|?>|\[/?[A-Z_]+\]")


def _template_findings(tokenizer: PreTrainedTokenizerBase, config: Config) -> list[Finding]:
    """A named template other than the model's own: both are named, since serving will use the model's own."""
    if not config.template:
        return []
    probe = str(tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False,
                                              add_generation_prompt=True))
    marks = list(dict.fromkeys(_MARKS.findall(probe)))
    own = f"the one that {config.model_name_or_path} brings ({', '.join(marks[:4]) or repr(probe)})"
    return [Finding("template", "warn", f"{config.template!r} is not applied: rows are written in {own}, which is what "
                    "chat, export and other servers use.", option="template", where=config.origin("template"),
                    fix="Leave template out if that is what you want; named templates come later.")]


def _turn_findings(rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """The end of an answer must be learned, or generation never stops; and nowhere else, or it stops too early."""
    ends = stop_ids(tokenizer)
    unending, early, drifting = [], [], [row.where for row in rows if row.drifts]
    for row in rows:
        stops = np.isin(row.ids, ends)
        if any(not stops[last - 1] for _, last in row.spans):
            unending.append(row.where)
        if any(stops[first : last - 1].any() for first, last in row.spans):
            early.append(row.where)
    told = (
        ("no-end-of-turn", unending, "the answer has no end-of-turn token, so the model does not learn to stop.",
         "The model's chat template writes none; choose an Instruct version."),
        ("early-end", early, "the words of an answer hold an end-of-turn token, so the model learns to stop there.",
         f"Take {' and '.join(map(repr, tokenizer.convert_ids_to_tokens(ends)))} out of the answers."),
        ("drift", drifting, "tokens join the first white space of an answer to that of the prompt, so chat sends other "
         "ids there.", "Begin the answers with a word."),
    )
    return [Finding(id, "warn", f"in {len(places)} of {len(rows)} rows {what}", option="dataset", where=places[0],
                    fix=fix) for id, places, what, fix in told if places]


def _step_findings(plan: Plan, config: Config) -> list[Finding]:
    if not config.do_train or not plan.rows:
        return []
    findings = []
    total = plan.total_steps
    if total < 20:
        findings.append(Finding("few-steps", "warn", f"{plan.rows} rows make {total} optimizer steps in all; the model "
                                "will hardly change.", option="num_train_epochs",
                                fix="More epochs, or a smaller batch (batch size x accumulation)."))
    if warmup_steps(config, total) >= total:
        findings.append(Finding("all-warmup", "warn", f"warmup takes all {total} steps, so learning_rate is never "
                                "reached.", option="warmup_steps", where=config.origin("warmup_steps")))
    return findings


def _facts(data: DataSet, train: Sequence[Rendered], held_out: Sequence[Rendered], plan: Plan) -> dict[str, Any]:
    lengths = [len(row) for row in train] or [0]
    learned = [int(np.count_nonzero(row.weights[1:])) for row in train] or [0]
    return {
        "rows": len(train), "rows_held_out": len(held_out),
        "rows_left_out": len(data.train) + len(data.held_out) - len(train) - len(held_out),
        "tokens": sum(lengths), "tokens_learned": sum(learned), "length_median": int(median(lengths)),
        "length_longest": max(lengths), "learned_median": int(median(learned)),
        "steps_per_epoch": plan.steps_per_epoch if plan.rows else 0, "steps": plan.total_steps if plan.rows else 0,
    }
