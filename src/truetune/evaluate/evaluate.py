"""`truetune eval`: what a model knows, how surprised it is by texts, what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from truetune.evaluate.result import Result, new_folder, write_result
from truetune.findings import Both, Say
from truetune.options import Config
from truetune.options.benchmark import TaskKind, task_kind


def evaluate(config: Config, say: Say) -> Result:
    """Do what `task` asks, and write its files into `save_dir`, if that is named.

    Raises:
        Problem: `save_dir` is there already, or what is needed cannot be read.
    """
    assert config.task is not None  # a rule has made sure
    folder = new_folder(config)
    result = _RUNNERS[task_kind(config.task)](config, say)
    if folder is not None and result.files:
        write_result(result, folder)
    if folder is not None:
        say(Both(f"written to {folder}", f"已写入 {folder}"))
    return result


def _choices(config: Config, say: Say) -> Result:
    from truetune.evaluate.benchmarks.exam import take_exam

    return take_exam(config, say)


def _perplexity(config: Config, say: Say) -> Result:
    from truetune.evaluate.perplexity import measure_perplexity

    return measure_perplexity(config, say)


def _predict(config: Config, say: Say) -> Result:
    from truetune.evaluate.generation import measure_answers

    return measure_answers(config, say)


def _compare(config: Config, say: Say) -> Result:
    from truetune.evaluate.generation import compare_file

    return compare_file(config, say)


def _harness(config: Config, say: Say) -> Result:
    from truetune.evaluate.harness import run_harness

    return run_harness(config, say)


_RUNNERS: Mapping[TaskKind, Callable[[Config, Say], Result]] = {
    "choices": _choices, "perplexity": _perplexity, "predict": _predict, "bleu_rouge": _compare, "lm_eval": _harness}
"""Each imports what it needs: comparing two texts takes no model."""
