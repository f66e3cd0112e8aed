"""Rules: what `truetune eval` has to be told."""

from __future__ import annotations

from truetune.findings import Both
from truetune.options import Config
from truetune.options.benchmark import task_kind
from truetune.rules.rule import Rule

_EVAL = ("eval",)


def _of(c: Config, *kinds: str) -> bool:
    return bool(c.task) and task_kind(c.task or "") in kinds


RULES: tuple[Rule, ...] = (
    Rule("task-missing", "task", lambda c: not c.task, "error",
         Both("nothing says what to measure.", "没有说明要测什么。"),
         Both("Give task: mmlu_test, a file of questions, perplexity, predict, bleu_rouge:FILE or lm_eval:TASK.",
              "请设置 task：mmlu_test、题目文件、perplexity、predict、bleu_rouge:文件 或 lm_eval:任务。"), _EVAL),
    Rule("model-missing", "model_name_or_path",
         lambda c: not c.model_name_or_path and not _of(c, "bleu_rouge"), "error",
         Both("no model is named.", "没有指定模型。"),
         Both("Give a run folder, a model folder, a hub id or bundled/smollm2-135m-instruct.",
              "请填写运行文件夹、模型文件夹、hub 上的 id，或 bundled/smollm2-135m-instruct。"), _EVAL),
    Rule("data-missing", "dataset",
         lambda c: _of(c, "perplexity", "predict") and not c.dataset and not c.eval_dataset, "error",
         Both("no data set is named to measure {task} on.", "没有指定用来测 {task} 的数据集。"),
         Both("Give dataset: a file, or names in dataset_info.json.",
              "请设置 dataset：数据文件，或 dataset_info.json 里的名字。"), _EVAL),
    Rule("predict-nowhere", "save_dir", lambda c: _of(c, "predict") and not c.save_dir, "error",
         Both("the answers are written to a folder, and none is named.", "回答要写进文件夹，但没有指定。"),
         Both("Give save_dir, such as saves/my-answers.", "请设置 save_dir，例如 saves/my-answers。"), _EVAL),
    Rule("task-unnamed", "task",
         lambda c: _of(c, "bleu_rouge", "lm_eval") and not (c.task or "").partition(":")[2].strip(), "error",
         Both("{task} names nothing behind its colon.", "{task} 的冒号后面没有内容。"),
         Both("Write bleu_rouge:generated_predictions.jsonl or lm_eval:hellaswag.",
              "请写成 bleu_rouge:generated_predictions.jsonl 或 lm_eval:hellaswag。"), _EVAL),
)
