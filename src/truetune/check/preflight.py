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
from truetune.findings import Finding, Problem
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
        status = "warn" if any(finding.severity == "warn" for finding in self.findings) else "ok"
        return {"status": status, "findings": [finding.as_dict() for finding in self.findings], "facts": self.facts}


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
    plan = Plan(len(train), config.per_device_train_batch_size, config.gradient_accumulation_steps,
                config.num_train_epochs, config.max_steps, config.seed if config.data_seed is None else config.data_seed,
                not config.disable_shuffling)
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
    long = [number for number, row in enumerate(rows) if len(row) > config.cutoff_len]
    if long and not bad:
        rows = _shorten(talks, rows, long, tokenizer, config, option, findings)
    empty = [row.where for row in rows if not row.weights[1:].any()]
    if empty:
        findings.append(Finding("nothing-learned", "error", f"{len(empty)} of {len(talks)} rows have no token that is "
                                "learned.", option=option, where=empty[0]))
    if talks and not rows and not bad:
        findings.append(Finding("no-rows-left", "error", "no row is left to learn from.", option=option,
                                fix=f"cutoff_len is {config.cutoff_len}."))
    return rows


def _shorten(talks: Sequence[Conversation], rows: list[Rendered], long: Sequence[int],
             tokenizer: PreTrainedTokenizerBase, config: Config, option: str,
             findings: list[Finding]) -> list[Rendered]:
    strategy = config.excess_length_strategy
    kept: dict[int, Rendered] = {}
    if strategy == "truncate":
        for number in long:
            shorter = _without_oldest_turns(talks[number], tokenizer, config)
            if shorter:
                kept[number] = shorter
    lost = [number for number in long if number not in kept]
    places = ", ".join(rows[number].where for number in lost[:5]) + (", …" if len(lost) > 5 else "")
    longest = max(len(rows[number]) for number in long)
    shortened = f"{len(kept)} lost their oldest turns, " if kept else ""
    findings.append(Finding(
        "too-long", "error" if strategy == "raise" else "warn",
        f"{len(long)} of {len(rows)} rows are longer than {config.cutoff_len} tokens (longest {longest}): "
        f"{shortened}{len(lost)} {'are too long' if strategy == 'raise' else 'are left out'}"
        f"{f' ({places})' if lost else ''}.",
        option="cutoff_len" if option == "dataset" else option, where=config.origin("cutoff_len"),
        fix=f"cutoff_len: {longest} would keep all."))
    return [kept.get(number, row) for number, row in enumerate(rows) if number not in lost]


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
    own = f"the one that {config.model_name_or_path} brings ({', '.join(marks[:4]) or probe!r})"
    return [Finding("template", "warn", f"{config.template!r} is not applied: rows are written in {own}, which is what "
                    "chat, export and other servers use.", option="template", where=config.origin("template"),
                    fix="Leave template out if that is what you want; named templates come later.")]


def _turn_findings(rows: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """The end of an answer must be learned, or generation never stops."""
    ends = set(stop_ids(tokenizer))
    unending = [row.where for row in rows if row.spans and int(row.ids[row.spans[-1][1] - 1]) not in ends]
    if not unending:
        return []
    return [Finding("no-end-of-turn", "warn", f"in {len(unending)} rows the answer has no end-of-turn token, so the "
                    "model does not learn to stop.", option="dataset", where=unending[0],
                    fix="The model's chat template writes none; choose an Instruct version.")]


def _step_findings(plan: Plan, config: Config) -> list[Finding]:
    if not config.do_train:
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
