"""Answers that a model writes, compared with those that the data give: of a model, or of a file of answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from truetune.data.readers import read_file
from truetune.data.texts import require_template
from truetune.evaluate.load import load_measured
from truetune.evaluate.predict import predict
from truetune.evaluate.result import Column, Result, new_folder
from truetune.evaluate.rows import read_rows, settle_rows
from truetune.evaluate.similarity import NAMES, package_findings, similarity
from truetune.findings import WRONG_OPTIONS, Both, Say, problem, refuse
from truetune.options import Config


def measure_answers(config: Config, say: Say) -> Result:
    """Let the model answer every row, and compare: `generated_predictions.jsonl` and `predict_results.json`, as after a
    run with `predict_with_generate`, in `save_dir`.

    Raises:
        Problem: the rows or the model cannot be read, or a package is missing.
    """
    config = config.with_values("eval", stage="sft", predict_with_generate=True)
    refuse(package_findings(config))
    folder = new_folder(config)
    assert folder is not None  # a rule has made sure
    config, findings = settle_rows(config)
    measured = load_measured(config, say)
    require_template(measured.renderer.tokenizer, str(config.model_name_or_path))
    rows = read_rows(config, measured.renderer, say)
    folder.mkdir(parents=True)
    try:
        results = predict(rows, measured.policy, folder, lambda: False, say)
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    scores = {"task": "predict", "model": config.model_name_or_path, "adapters": list(config.adapter_name_or_path),
              **results}
    return Result(scores, _table({name: results[f"predict_{name}"] for name in NAMES}),
                  [*findings, *rows.findings])


def compare_file(config: Config, say: Say) -> Result:
    """Compare the answers in a file of predictions (`predict` and `label` in each line) with what they should be.

    Raises:
        Problem: there is no such file, or it holds none.
    """
    assert config.task is not None
    refuse(package_findings(config.with_values("eval", predict_with_generate=True)))
    path = Path(config.task.partition(":")[2]).expanduser()
    if not path.is_file():
        raise problem("no-predictions", Both(f"there is no file {path}.", f"没有文件 {path}。"), option="task",
                      status=WRONG_OPTIONS)
    with path.open("rb") as file:
        lines = [row.values for row in read_file(file, str(path))]
    if not lines or not all({"predict", "label"} <= line.keys() for line in lines):
        raise problem("no-predictions", Both(f"{path} holds no predictions: each line needs predict and label.",
                                             f"{path} 不是预测结果：每行都要有 predict 和 label。"), option="task")
    found = similarity([str(line["predict"]) for line in lines], [str(line["label"]) for line in lines])
    scores = {"task": "bleu_rouge", "file": str(path), "rows": len(lines), **found}
    return Result(scores, _table(found), (), {"predictions_score.json": found})


def _table(found: Mapping[str, float]) -> list[Column]:
    return [Column(Both("score", "指标"), list(found)),
            Column(Both("per cent", "百分比"), [f"{value:.2f}" for value in found.values()], True)]
