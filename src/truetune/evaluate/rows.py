"""The rows that a model is measured on: those that the user names, rendered as they would be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from truetune.data.dataset import load_data
from truetune.data.formats import recognise
from truetune.data.messages import Kind
from truetune.data.reading import STAGE_ROWS
from truetune.data.renderer import Renderer
from truetune.data.rows import Rows
from truetune.data.sources import find_sources
from truetune.findings import Both, Finding, Problem, Say, problem
from truetune.options import Config
from truetune.options.read import COMMAND_LINE

_STAGES: Mapping[Kind, str] = {kind: stage for stage, kind in reversed(list(STAGE_ROWS.items()))}
"""The first stage that learns from rows of a kind."""
_LOOKED_AT = 100
_FROM_DATASET = "rule: dataset names the rows to measure on"


@dataclass(frozen=True)
class Asked:
    """Rows by the name of what they measure, and what made them. findings: what was found on the way."""

    config: Config
    renderer: Renderer
    held_out: dict[str, Rows]
    findings: Sequence[Finding] = ()


def settle_rows(config: Config) -> tuple[Config, list[Finding]]:
    """`config` with the rows to measure on as `eval_dataset`, and the stage that reads rows like theirs; and a warning
    where they are those that a run learned from.

    `dataset` and `eval_dataset` both name them; of a run's own file, which has both, what is typed beside it goes
    first, then `eval_dataset`. What a run held out (`val_size`) stays held out, by the same draw.
    """
    findings: list[Finding] = []
    typed = [name for name in ("eval_dataset", "dataset") if (config.origin(name) or "").startswith(COMMAND_LINE)]
    named = typed[0] if typed else "eval_dataset" if config.eval_dataset else "dataset"
    if named == "dataset" and not typed and config.output_dir and not config.val_size:  # the file is a run's own
        findings = [_learned(config)]
    if typed or named == "eval_dataset" or not config.val_size:
        names = {"eval_dataset": config.dataset} if named == "dataset" else {}
        config = config.with_values(_FROM_DATASET, dataset=(), val_size=0, **names)
    config = config.with_values("eval", eval_on_each_dataset=True, streaming=False)
    if not config.given("stage"):
        with _as_typed(config):
            config = config.with_values("eval", stage=_stage(config))
    return config, findings


@contextmanager
def _as_typed(config: Config) -> Iterator[None]:
    """Problems inside are told of the option that named the rows."""
    try:
        yield
    except Problem as error:
        if config.origin("eval_dataset") != _FROM_DATASET:
            raise
        raise Problem([replace(finding, option="dataset") if finding.option == "eval_dataset" else finding
                       for finding in error.findings], error.status) from None


def _learned(config: Config) -> Finding:
    return Finding("learned-rows", "warn", Both(
        "these are the rows that the run learned from, so this tells how well they are remembered.",
        "这些正是训练用过的数据，测到的是模型记住了多少。"), option="dataset", where=config.origin("dataset"),
        fix=Both("Name others: dataset=held-out.json.", "请指定别的数据：dataset=held-out.json。"))


def _stage(config: Config) -> str:
    """The stage that learns from rows like these: as their layout says, or as the first of them tell."""
    source = find_sources(config.eval_dataset or config.dataset, config, "eval_dataset")[0]
    first = [row.values for row, _ in zip(source.rows(), range(_LOOKED_AT), strict=False)]
    layout = source.layout or recognise(first)
    return _STAGES[layout.kind] if layout else config.stage


def read_rows(config: Config, renderer: Renderer, say: Say) -> Asked:
    """The rows of a settled configuration.

    Raises:
        Problem: they cannot be read, or there are none.
    """
    with _as_typed(config):
        data = load_data(config, renderer, say)
    if not sum(map(len, data.held_out.values())):
        raise problem("no-rows", Both("there is no row to measure on.", "没有可用于评测的数据。"),
                      option="eval_dataset")
    return Asked(config, renderer, data.held_out, data.findings)
