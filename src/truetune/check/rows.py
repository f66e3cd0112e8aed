"""What the rows of a run tell: nothing to learn, answers without an end, prompts that chat would not send."""

from __future__ import annotations

import numpy as np

from truetune.data.dataset import Data
from truetune.data.renderer import Renderer
from truetune.data.rows import Rows, Stream
from truetune.data.templates import TEMPLATES
from truetune.findings import Finding, count_of
from truetune.options import Config


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
