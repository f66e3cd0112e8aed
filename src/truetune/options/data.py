"""Options: what is learned from, and how it becomes tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Group, Names, Text


class DataOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Data", "数据")

    dataset: Annotated[Names, Text(
        "What to learn from: names in dataset_info.json, or simply files (.json, .jsonl), several with commas.",
        "训练数据：dataset_info.json 里的名字，或直接写文件（.json、.jsonl），多个用逗号隔开。",
        level="basic", also={"data_path": None})] = ()
    eval_dataset: Annotated[Names, Text(
        "Data held out for evaluation, named like dataset. Or use val_size.",
        "用于评估的数据，写法同 dataset；也可以改用 val_size。", also={"eval_data_path": None})] = ()
    dataset_dir: Annotated[str, Text(
        "Folder with dataset_info.json and the files it names.",
        "dataset_info.json 及其数据文件所在的文件夹。", level="basic")] = "data"
    cutoff_len: Annotated[int, Field(ge=4), Text(
        "Longest row, in tokens. Higher: nothing is lost, more memory. Longer rows: see excess_length_strategy.",
        "每行最多的 token 数。调高：不丢数据，显存增加。超长的行如何处理见 excess_length_strategy。",
        level="basic", also={"model_max_length": None})] = 2048
    excess_length_strategy: Annotated[Literal["drop", "truncate", "raise"], Text(
        "Rows longer than cutoff_len: drop them and say which; truncate leaves out the oldest turns, never the end "
        "of an answer; raise stops.",
        "超过 cutoff_len 的行：drop 丢弃并报告；truncate 去掉最早的轮次，绝不切断回答的结尾；raise 停止。")] = "drop"
    val_size: Annotated[float, Field(ge=0), Text(
        "Share (below 1) or number (1 and more) of rows held out for evaluation.",
        "留作评估的数据：小于 1 为比例，大于等于 1 为行数。", level="basic")] = 0.0
    max_samples: Annotated[int | None, Field(gt=0), Text(
        "Use only the first so many rows of each data set.", "每个数据集只用前若干行。")] = None
    mask_history: Annotated[bool, Text(
        "Learn only the last answer of a conversation.", "只学习对话的最后一个回答。")] = False
    train_on_prompt: Annotated[bool, Text(
        "Learn the user's words too, not only the answers.", "除回答外也学习用户的话。", level="expert")] = False
    default_system: Annotated[str | None, Text(
        "The system message of conversations that bring none, in training and in chat.",
        "没有系统提示的对话使用的系统提示，训练和对话都用它。")] = None
    identity_name: Annotated[str | None, Text(
        "Fills {{name}} in data such as identity.json: what the assistant calls itself.",
        "填入数据（如 identity.json）中的 {{name}}：助手的名字。")] = None
    identity_author: Annotated[str | None, Text(
        "Fills {{author}} in data such as identity.json: who made the assistant.",
        "填入数据（如 identity.json）中的 {{author}}：助手的作者。")] = None
    packing: Annotated[bool | None, Text(
        "Lay short rows end to end.", "把短行首尾相接。", also={"neat_packing": None},
        no_effect="rows are always laid end to end without padding and never see each other",
        free_on_resume=True)] = None
    preprocessing_num_workers: Annotated[int | None, Text(
        "Processes for tokenising.", "分词所用的进程数。", level="expert",
        no_effect="tokenising runs in the tokenizer's own threads", free_on_resume=True)] = None
    preprocessing_batch_size: Annotated[int | None, Text(
        "Rows tokenised at a time.", "每次分词的行数。", level="expert",
        no_effect="it changes nothing that is learned here", free_on_resume=True)] = None
    dataloader_num_workers: Annotated[int, Text(
        "Processes that load batches.", "加载批次的进程数。", level="expert",
        no_effect="rows are tokenised before training, so batches need no workers", free_on_resume=True)] = 0
    overwrite_cache: Annotated[bool, Text(
        "Ignore tokenised data of earlier runs.", "忽略以前分词的缓存。", level="expert",
        no_effect="data is tokenised afresh in every run", free_on_resume=True)] = False
