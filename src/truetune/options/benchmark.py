"""Options: standard question sets."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Text

_OF_TASK = ("it is for benchmarks, which are not run yet", "它用于评测，暂不支持")


class BenchmarkOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Benchmarks", "评测")

    task: Annotated[str | None, Text(
        "The questions to answer, as set_split: mmlu_test, ceval_validation, cmmlu_test.",
        "答哪套题，写作 题库_划分：mmlu_test、ceval_validation、cmmlu_test。",
        level="expert", unset=("no benchmark", "不评测"),
        advice=(
            Advice("MMLU asks in English across 57 subjects.", "MMLU 为英文，覆盖 57 个学科。", "mmlu"),
            Advice("C-Eval asks in Chinese across 52 subjects.", "C-Eval 为中文，覆盖 52 个学科。", "ceval"),
        ),
        not_offered=("no benchmark is run yet", "还不能运行评测"), free_on_resume=True)] = None
    task_dir: Annotated[str, Text(
        "Folder of the question sets.",
        "题库所在的文件夹。",
        level="expert", no_effect=_OF_TASK, free_on_resume=True)] = "evaluation"
    batch_size: Annotated[int, Field(gt=0), Text(
        "Questions answered at once in a benchmark. Training's is per_device_train_batch_size.",
        "评测时一次答几道题。训练的批次大小是 per_device_train_batch_size。",
        level="expert", memory="up", speed="up",
        higher=("faster, more memory", "更快，显存更多"),
        lower=("less memory", "显存更少"),
        not_offered=(
            "no benchmark is run yet; training's batch is per_device_train_batch_size",
            "还不能运行评测；训练的批次大小是 per_device_train_batch_size"),
        free_on_resume=True)] = 4
    lang: Annotated[Literal["en", "zh"], Text(
        "Language in which a benchmark asks: en or zh. On a command line --lang is the language that truetune speaks.",
        "评测提问的语言：en 或 zh。命令行上的 --lang 是 truetune 自己的语言。",
        level="expert", no_effect=_OF_TASK, free_on_resume=True)] = "en"
    n_shot: Annotated[int, Field(ge=0), Text(
        "Solved examples shown before each question.",
        "每道题之前给出几个已解答的例子。",
        level="expert", memory="up", speed="down", quality="up",
        higher=("the form of the answer is clearer; longer prompts", "答题形式更清楚；提示更长"),
        lower=("0 asks without examples", "0 表示不给例子"),
        advice=(Advice("5 is what MMLU's published scores use.", "MMLU 公布的成绩用 5 个。", "mmlu"),),
        no_effect=_OF_TASK, free_on_resume=True)] = 5
    save_dir: Annotated[str | None, Text(
        "New folder for a benchmark's results. A run's folder is output_dir.",
        "评测结果写到哪个新文件夹。运行文件夹是 output_dir。",
        level="expert", unset=("results are only printed", "只显示结果"),
        not_offered=(
            "no benchmark is run yet; a run's folder is output_dir",
            "还不能运行评测；运行文件夹是 output_dir"),
        free_on_resume=True)] = None
    download_mode: Annotated[Literal["reuse_dataset_if_exists", "reuse_cache_if_exists", "force_redownload"], Text(
        "What to do with questions downloaded before. reuse_dataset_if_exists: use them; reuse_cache_if_exists: read "
        "the downloaded files anew; force_redownload: fetch them again.",
        "已下载过的题库如何处理。reuse_dataset_if_exists：直接使用；reuse_cache_if_exists：重新读取已下载的文件；"
        "force_redownload：重新下载。",
        level="expert", speed="depends", no_effect=_OF_TASK, free_on_resume=True)] = "reuse_dataset_if_exists"
