"""From a configuration to rows ready to train on, with every problem found on the way told at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from truetune.check.model import model_findings
from truetune.check.room import settle_batch, settle_checkpointing
from truetune.check.rows import row_findings
from truetune.data.dataset import PER_ROW, Data, load_data, unreadable
from truetune.data.reading import STAGE_ROWS
from truetune.data.renderer import Rendered, Renderer
from truetune.data.rows import Rows, Stream, with_answer_of
from truetune.data.template import make_renderer, settle_template
from truetune.data.texts import require_template
from truetune.evaluate.similarity import package_findings
from truetune.findings import Finding, Problem, Say, refuse
from truetune.model.accelerate import speedup_findings
from truetune.model.attention import kernel_findings
from truetune.model.find import find_model, load_model_config
from truetune.model.float8 import float8_findings
from truetune.model.precision import pick_device
from truetune.model.quantize import codes_findings
from truetune.model.rope import settle_stretch
from truetune.model.vocabulary import new_tokens, read_vocabulary
from truetune.optim import optimizer_findings
from truetune.options import Config
from truetune.steps import Plan, pack, round_of, shuffle_seed


@dataclass
class Preflight:
    """What a run starts from. config: with what was found out filled in. base: the model's folder. findings: an error
    among them means that the run would be useless. facts: numbers for people.
    new_tokens: whose rows of the embeddings are new."""

    config: Config
    base: Path
    renderer: Renderer
    data: Data
    plan: Plan
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    new_tokens: tuple[int, ...] = ()

    @property
    def train(self) -> Rows | Stream:
        return self.data.train

    @property
    def held_out(self) -> dict[str, Rows]:
        """Rows by the name of what they measure ("": the one there is)."""
        return self.data.held_out

    def sample(self, shares: bool = False) -> list[Rendered]:
        """Two or three short rows, to try things out with.

        Args:
            shares: two of them have a prompt in common.
        """
        rows = self.train.shortest(2) or next(iter(self.held_out.values())).shortest(2)
        return [rows[0], with_answer_of(rows[0], rows[-1]), *rows[1:]] if shares else rows


def prepare(config: Config, say: Say, trains: bool = False,
            most: int | None = None) -> tuple[Path, Renderer, Data, list[Finding]]:
    """The model's folder, the renderer, the rows, and what was found on the way.

    Args:
        trains: the model itself must be one that can be loaded; data alone need only its tokenizer.
        most: so many rows of each data set are enough.

    Raises:
        Problem: with all errors of model, template and data together.
    """
    name = config.model_name_or_path
    assert name is not None  # a rule has made sure
    findings: list[Finding] = []
    try:
        base = _find_whole_model(name, config, say, findings) if trains else find_model(name, config, say)
        vocabulary = read_vocabulary(base, config)
        tokenizer = vocabulary.tokenizer
        findings += vocabulary.findings
        findings += refuse(settle_template(tokenizer, config))
        if config.stage != "pt":
            require_template(tokenizer, name)
        renderer = make_renderer(tokenizer, base, config)
    except Problem as problem:
        raise Problem([*findings, *problem.findings, *unreadable(config)], problem.status) from None
    data = load_data(config, renderer, say, most)
    return base, renderer, data, [*findings, *data.findings]


def _find_whole_model(name: str, config: Config, say: Say, findings: list[Finding]) -> Path:
    """The model's folder, all of it there and of a kind that can be trained. Warnings are added to `findings`.

    Raises:
        Problem: with everything that is wrong with it.
    """
    here = Path(name).expanduser()
    if here.exists():
        findings += refuse(model_findings(here, config))
    base = find_model(name, config, say)
    if not here.exists():
        findings += refuse(model_findings(base, config))
    load_model_config(base)
    return base


def preflight(config: Config, say: Say, most: int | None = None) -> Preflight:
    """Model found, data read and rendered, everything counted.

    Args:
        most: so many rows of each data set are enough; None: all of them, as training needs.

    Raises:
        Problem: with all errors of model and data together, if a run could not even start.
    """
    base, renderer, data, findings = prepare(config, say, trains=True, most=most)
    train = data.train
    findings += [*row_findings(data, renderer, config), *package_findings(config), *optimizer_findings(config),
                 *codes_findings(config, pick_device(config)), *float8_findings(config, pick_device(config))]
    if not len(train) and config.do_train:
        raise Problem(findings)
    config, stretched = settle_stretch(config, load_model_config(base))
    config = settle_batch(config, base, train)
    config, computed_again = settle_checkpointing(config, base, train)
    findings += [*stretched, *computed_again, *kernel_findings(config, pick_device(config)),
                 *speedup_findings(config, pick_device(config))]
    plan = plan_of(config, data)
    return Preflight(config, base, renderer, data, plan, findings, _facts(data, plan), new_tokens(base, config))


def plan_of(config: Config, data: Data) -> Plan:
    """Which rows each step learns from. config: with per_device_train_batch_size a number."""
    train, seed = data.train, shuffle_seed(config)
    packs = pack(train.lengths, config.cutoff_len, seed) if config.packing and isinstance(train, Rows) else None
    per_row, round = PER_ROW[STAGE_ROWS[config.stage]], round_of(config)
    plan = Plan(len(train) // per_row, config.rows_at_once, config.gradient_accumulation_steps,
                config.num_train_epochs, config.max_steps, seed,
                not config.disable_shuffling and not config.streaming, packs, data.scale, per_row)
    return replace(plan, batch_size=round.prompts, accumulation=1, steps_per_round=round.steps) if round else plan


def _facts(data: Data, plan: Plan) -> dict[str, Any]:
    """Numbers for people. sampled: of a stream, from how many of its first rows they are."""
    lengths, learned = data.train.lengths, data.train.learned
    some = bool(len(lengths))
    sampled = {"sampled": len(lengths)} if isinstance(data.train, Stream) else {}
    return {
        **sampled,
        "rows": len(data.train) // plan.per_row,
        "rows_held_out": sum(map(len, data.held_out.values())) // plan.per_row,
        "rows_left_out": sum(store.manifest.left_out for store in data.stores),
        "tokens": int(lengths.sum()), "tokens_learned": int(learned.sum()),
        "length_median": int(np.median(lengths)) if some else 0, "length_longest": int(lengths.max(initial=0)),
        "learned_median": int(np.median(learned)) if some else 0,
        "steps_per_epoch": plan.steps_per_epoch if plan.rows else 0, "steps": plan.total_steps if plan.rows else 0,
    }
