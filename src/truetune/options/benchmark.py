"""Options: measuring a model (`truetune eval`)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Text

TaskKind = Literal["choices", "perplexity", "predict", "bleu_rouge", "lm_eval"]
_NAMED: dict[str, TaskKind] = {"perplexity": "perplexity", "predict": "predict", "bleu_rouge": "bleu_rouge",
                               "lm_eval": "lm_eval"}


def task_kind(task: str) -> TaskKind:
    """What a `task` asks for: one of the words before its colon, or a set of questions."""
    return _NAMED.get(task.partition(":")[0], "choices")


class BenchmarkOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Evaluation", "评测")

    task: Annotated[str | None, Text(
        "What to measure. mmlu_test, cmmlu_test, ceval_validation (set_split below task_dir) or a file or folder: "
        "multiple-choice questions. perplexity: how surprised the model is by dataset. predict: its answers to "
        "dataset, with ROUGE and BLEU. bleu_rouge:FILE: those of a generated_predictions.jsonl. lm_eval:TASK,TASK: "
        "tasks of lm-evaluation-harness (pip install lm-eval).",
        "测什么。mmlu_test、cmmlu_test、ceval_validation（task_dir 下的 题库_划分）或文件、文件夹：选择题；"
        "perplexity：模型对 dataset 的困惑度；predict：让模型回答 dataset，并计算 ROUGE 和 BLEU；bleu_rouge:文件："
        "对已有的 generated_predictions.jsonl 计算同样的指标；lm_eval:任务,任务：lm-evaluation-harness 的任务"
        "（pip install lm-eval）。",
        level="basic", unset=("nothing is measured", "不评测"),
        advice=(
            Advice("MMLU asks in English across 57 subjects.", "MMLU 为英文，覆盖 57 个学科。", "mmlu"),
            Advice("C-Eval asks in Chinese across 52 subjects, and keeps the answers of its test part to itself: use "
                   "ceval_validation.",
                   "C-Eval 为中文，覆盖 52 个学科；test 部分不公开答案，请用 ceval_validation。", "ceval"),
        ), free_on_resume=True)] = None
    task_dir: Annotated[str, Text(
        "Folder of the question sets: mmlu, cmmlu, ceval as folders, zip archives or single files in it. For lm_eval, "
        "a folder with task files (YAML) of your own.",
        "题库所在的文件夹：其中的 mmlu、cmmlu、ceval 可以是文件夹、zip 或单个文件。对 lm_eval 则是自定义任务（YAML）"
        "所在的文件夹。",
        free_on_resume=True)] = "evaluation"
    batch_size: Annotated[int | None, Field(gt=0), Text(
        "Questions computed at once, at most. Training's is per_device_train_batch_size.",
        "一次最多计算几道题。训练的批次大小是 per_device_train_batch_size。",
        level="expert", memory="up", speed="up",
        higher=("the examples, which all questions share, are computed less often; more memory",
                "所有题共用的示例计算次数更少；显存更多"),
        lower=("less memory", "显存更少"),
        unset=("as many as have 8,192 tokens", "凑满 8192 个 token 为止"), free_on_resume=True)] = None
    lang: Annotated[Literal["en", "zh"], Text(
        "Language in which multiple choice asks, en or zh: the words around each question. On the command line --lang "
        "sets this and the language that truetune speaks; lang=zh sets this alone.",
        "选择题提问所用的语言，en 或 zh：指题目前后的提示语。命令行上的 --lang 同时设置它和 truetune 自己的语言；"
        "lang=zh 只设置它。", quality="depends",
        advice=(Advice("C-Eval's published scores are of questions asked in Chinese: zh.",
                       "C-Eval 公布的成绩用中文提问：zh。", "ceval"),), free_on_resume=True)] = "en"
    n_shot: Annotated[int, Field(ge=0), Text(
        "Solved examples before each question: the first of the subject's dev part. Fewer where there are fewer, or "
        "where the model cannot read so much.",
        "每道题之前的示例数：取该学科 dev 部分的前几题。示例不够或超过模型长度时会减少。",
        memory="up", speed="down", quality="up",
        higher=("the form of the answer is clearer; longer prompts", "答题形式更清楚；提示更长"),
        lower=("0 asks without examples", "0 表示不给例子"),
        advice=(Advice("5 is what MMLU's published scores use.", "MMLU 公布的成绩用 5 个。", "mmlu"),),
        free_on_resume=True)] = 5
    eval_in_chat: Annotated[bool | None, Text(
        "Ask questions in the model's chat template, each solved example as a turn of its own; otherwise as one plain "
        "text.",
        "用模型的对话模板提问，每个示例各占一轮；否则拼成一段纯文本。", level="expert", quality="depends",
        higher=("the model is asked as it is spoken to", "按实际对话的方式提问"),
        lower=("as base models are asked, and as most published scores were measured",
               "与 base 模型的问法相同，多数公布的成绩也是这样测的"),
        unset=("where the model brings a chat template", "模型带有对话模板时使用"), free_on_resume=True)] = None
    save_dir: Annotated[str | None, Text(
        "New folder for the results of an evaluation; it must not be there yet. A run's folder is output_dir.",
        "评测结果写到哪个新文件夹（不能已存在）。运行文件夹是 output_dir。",
        unset=("results are only printed", "只显示结果"), free_on_resume=True)] = None
    download_mode: Annotated[Literal["reuse_dataset_if_exists", "reuse_cache_if_exists", "force_redownload"], Text(
        "What to do with questions downloaded before. reuse_dataset_if_exists: use them; reuse_cache_if_exists: read "
        "the downloaded files anew; force_redownload: fetch them again.",
        "已下载过的题库如何处理。reuse_dataset_if_exists：直接使用；reuse_cache_if_exists：重新读取已下载的文件；"
        "force_redownload：重新下载。",
        level="expert", no_effect=("questions are read from task_dir as they are, and nothing is downloaded",
                                   "题目总是直接读自 task_dir，不下载任何内容"), free_on_resume=True)] = \
        "reuse_dataset_if_exists"
