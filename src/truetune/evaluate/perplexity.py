"""How surprised a model is by texts: loss, perplexity, and bits per byte.

- loss: the mean of -log p over the tokens that would be learned (answers, or all of a plain text), each weighing what
  it would in training; perplexity is exp(loss). It counts tokens, so it compares models of one tokenizer only.
- bits per byte: the same surprise, of words only (no special tokens, which templates write differently), divided by
  the bytes of these words in UTF-8 and by ln 2. It compares models whatever their tokenizers (Gao et al. 2020, The
  Pile, https://arxiv.org/abs/2101.00027, section 3.1).

The standard error of the loss takes rows as drawn one by one: sqrt(sum (l_i - n_i loss)^2) / sum n_i for rows with the
summed loss l_i over n_i tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from truetune.data.batches import neighbours
from truetune.data.renderer import Rendered
from truetune.data.rows import Rows
from truetune.data.texts import require_template
from truetune.evaluate.load import Measured, load_measured
from truetune.evaluate.result import Column, Result
from truetune.evaluate.rows import read_rows, settle_rows
from truetune.findings import Both, Say, count_of, problem
from truetune.options import Config


@dataclass(frozen=True)
class Surprise:
    """Of some rows, an entry each. nats: the summed weighted loss; counts: the summed weights. words: the loss of what
    is no special token, unweighted; size: its bytes. tokens: those that are learned."""

    nats: np.ndarray
    counts: np.ndarray
    words: np.ndarray
    size: np.ndarray
    tokens: np.ndarray


def measure_perplexity(config: Config, say: Say) -> Result:
    """Loss, perplexity and bits per byte of each data set, and of all.

    Raises:
        Problem: the rows or the model cannot be read.
    """
    config, findings = settle_rows(config)
    config = _documents_alone(config)
    measured = load_measured(config, say)
    if config.stage != "pt":
        require_template(measured.renderer.tokenizer, str(config.model_name_or_path))
    rows = read_rows(config, measured.renderer, say)
    began, found = time.perf_counter(), {}
    for name, some in rows.held_out.items():
        asked = _asked(some)
        say(Both(f"{name or 'held-out rows'}: reading {count_of(len(asked), 'row')}",
                 f"{name or '留出的数据'}：正在读 {len(asked):,} 行"))
        if not found:
            measured.policy.verify(sorted(asked, key=len)[:2], say)
        found[name] = surprise(measured, asked, config.batch_size)
    seconds = time.perf_counter() - began
    whole = Surprise(*(np.concatenate([getattr(each, part) for each in found.values()])
                       for part in ("nats", "counts", "words", "size", "tokens")))
    if not whole.counts.sum():
        raise problem("no-rows", Both("no token of these rows would be learned.", "这些数据里没有可学习的 token。"),
                      option="eval_dataset")
    sets = {name: numbers(each) for name, each in found.items()} if len(found) > 1 else {}
    scores = {"task": "perplexity", "model": config.model_name_or_path, "adapters": list(config.adapter_name_or_path),
              "stage": config.stage, **numbers(whole), "sets": sets, "seconds": round(seconds, 3),
              "tokens_per_second": round(float(whole.tokens.sum()) / seconds, 1)}
    files = {"ppl.json": [math.exp(min(loss, 700)) for loss in _each(whole)], "perplexity.json": scores}
    return Result(scores, _table(scores), [*findings, *rows.findings], files)


def surprise(measured: Measured, rows: Sequence[Rendered], most: int | None = None) -> Surprise:
    """How surprised the model is by each row. Rows are computed in the order of their length, end to end.

    Args:
        most: so many at once; None: as many as fit.
    """
    special = {token for token in measured.renderer.tokenizer.all_special_ids}
    found = np.zeros((len(rows), 5))
    with measured.policy.still():
        for numbers in _together(rows, most):
            batch = measured.policy.lay_out([rows[number] for number in numbers])
            losses = -measured.policy.log_probabilities(batch).double().cpu().numpy()
            owner, targets, weights = (each.cpu().numpy() for each in (batch.rows, batch.targets, batch.weights))
            words = np.array([token not in special for token in targets.tolist()], dtype=bool)
            for place, number in enumerate(numbers):
                mine = owner == place
                text = measured.renderer.tokenizer.decode(targets[mine & words].tolist())
                found[number] = ((losses * weights)[mine].sum(), weights[mine].sum(), losses[mine & words].sum(),
                                 len(str(text).encode()), mine.sum())
    return Surprise(*found.T)


def numbers(each: Surprise) -> dict[str, Any]:
    """What is told of some rows."""
    count, size = each.counts.sum(), each.size.sum()
    loss = float(each.nats.sum() / count) if count else math.nan
    apart = each.nats - each.counts * loss
    return {
        "rows": len(each.nats), "tokens": int(each.tokens.sum()), "loss": loss,
        "stderr": float(np.sqrt((apart ** 2).sum()) / count) if len(each.nats) > 1 and count else None,
        "perplexity": math.exp(min(loss, 700)),
        "bytes": int(size), "bits_per_byte": float(each.words.sum() / math.log(2) / size) if size else None,
    }


def _documents_alone(config: Config) -> Config:
    """Texts one by one, where nobody asks to join them: a text is not measured after another one."""
    return config if config.given("packing") else config.with_values("eval", packing=False)


def _asked(rows: Rows) -> list[Rendered]:
    """The rows themselves; of pairs of answers the better one, of judged ones the good."""
    return [row for row in rows[:: rows.per_row] if row.label is not False]


def _together(rows: Sequence[Rendered], most: int | None) -> Iterator[list[int]]:
    """Numbers of rows that are computed at once."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for start in range(0, len(order), most or len(order)):
        some = order[start : start + (most or len(order))]
        for numbers in neighbours(len(rows[number]) for number in some):
            yield some[numbers.start : numbers.stop]


def _each(whole: Surprise) -> list[float]:
    """The loss of each row that has one."""
    return [float(nats / count) for nats, count in zip(whole.nats, whole.counts, strict=True) if count]


def _table(scores: Mapping[str, Any]) -> list[Column]:
    lines = [*((name, each) for name, each in scores["sets"].items()), (Both("all", "合计"), scores)]
    error = [f" ± {each['stderr']:.4f}" if each["stderr"] is not None else "" for _, each in lines]
    return [
        Column(Both("data", "数据"), [name for name, _ in lines]),
        Column(Both("rows", "行数"), [f"{each['rows']:,}" for _, each in lines], True),
        Column(Both("tokens", "token 数"), [f"{each['tokens']:,}" for _, each in lines], True),
        Column(Both("loss", "损失"),
               [f"{each['loss']:.4f}{more}" for (_, each), more in zip(lines, error, strict=True)], True),
        Column(Both("perplexity", "困惑度"), [f"{each['perplexity']:.3f}" for _, each in lines], True),
        Column(Both("bits per byte", "每字节比特"),
               [f"{each['bits_per_byte']:.4f}" if each["bits_per_byte"] else "-" for _, each in lines], True),
    ]
