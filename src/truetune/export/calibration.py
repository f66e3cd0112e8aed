"""The texts that quantisation is fitted to: rows of the user's own data, rendered as in training.

A calibration text of another kind than what the model will be asked measures the wrong activations, so the data that a
model was trained on is the first choice. Rows are the same whenever seed and data are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from truetune.data.formats import recognise
from truetune.data.messages import BadRow, Row
from truetune.data.reading import STAGE_ROWS, Refused, read_source
from truetune.data.renderer import Renderer
from truetune.data.sources import Source, find_sources
from truetune.findings import Both, Problem, Say, count_of, problem, spoken
from truetune.options import Config

OPTION = "export_quantization_dataset"
_LOOKED_AT = 100
_READ = 20_000
"""Rows of a data set among which the sample is drawn."""


def calibration_rows(config: Config, renderer: Renderer, say: Say) -> list[np.ndarray]:
    """Token ids (T,) int64 of `export_quantization_nsamples` rows, cut to `export_quantization_maxlen`, drawn at random
    from `export_quantization_dataset` or else from what the run was trained on; [] where neither is known.

    Raises:
        Problem: the data set cannot be read, or none of its rows can be used.
    """
    names, option = _names(config)
    if not names:
        return []
    try:
        rows = [row for source in find_sources(names, config, option) for row in _rows(source, config)]
    except Problem as error:
        if option == OPTION:
            raise
        why = error.findings[0].message
        say(Both(f"the data of the run cannot be read any more: {why}", f"训练数据已无法读取：{spoken(why, True)}"))
        return []
    order = np.random.default_rng(config.seed).permutation(len(rows))
    found = (ids for number in order if len(ids := _ids(rows[number], renderer)))
    chosen = [ids[: config.export_quantization_maxlen] for ids in islice(found, config.export_quantization_nsamples)]
    told, tokens = ", ".join(names), sum(map(len, chosen))
    if not chosen:
        raise problem("no-calibration", Both(f"{told} holds no row that can be used.", f"{told} 里没有可用的行。"),
                      option=option, where=config.origin(option))
    say(Both(f"calibration: {count_of(len(chosen), 'row')} of {told}, {tokens:,} tokens",
             f"校准数据：{told} 的 {len(chosen):,} 行，共 {tokens:,} 个 token"))
    return chosen


def _names(config: Config) -> tuple[Sequence[str], str]:
    """Which data sets, and the option that names them."""
    if config.export_quantization_dataset:
        return [name.strip() for name in config.export_quantization_dataset.split(",") if name.strip()], OPTION
    return config.dataset, "dataset"


def _rows(source: Source, config: Config) -> list[Row]:
    """The first rows of a data set, whatever stage they are for."""
    layout = source.layout or recognise([row.values for row in islice(source.rows(), _LOOKED_AT)])
    kind = layout.kind if layout else STAGE_ROWS[config.stage]  # if it is None, reading says so
    return [row for row in islice(read_source(source, config, kind), _READ) if not isinstance(row, Refused)]


def _ids(row: Row, renderer: Renderer) -> np.ndarray:
    """(T,) int64: what is said in `row`; the chosen answer of two. Empty where it cannot be rendered."""
    rendered = renderer.render([row])[0]
    return np.zeros(0, np.int64) if isinstance(rendered, BadRow) else np.asarray(rendered[0].ids, dtype=np.int64)
