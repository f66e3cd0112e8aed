"""Options: what is learned from, and how it becomes tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Group, Names, Numbers, Text, Weights


class DataOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Data", "数据")

    dataset: Annotated[Names, Text(
        "What to learn from: names in dataset_info.json, files or folders (json, jsonl, csv, parquet, arrow, txt, also "
        ".gz), hub ids, s3:// or gs:// addresses; several with commas.",
        "训练数据：dataset_info.json 里的名字，文件或文件夹（json、jsonl、csv、parquet、arrow、txt，可为 .gz），"
        "模型站的数据集 id，s3:// 或 gs:// 地址；多个用逗号隔开。",
        level="basic", also={"data_path": None})] = ()
    eval_dataset: Annotated[Names, Text(
        "Data held out for evaluation, named like dataset. Or use val_size.",
        "用于评估的数据，写法同 dataset；也可以改用 val_size。", also={"eval_data_path": None})] = ()
    dataset_dir: Annotated[str, Text(
        "Folder with dataset_info.json and the files it names. ONLINE: dataset names are hub ids. REMOTE:repo reads "
        "dataset_info.json from a data set on the hub.",
        "dataset_info.json 及其数据文件所在的文件夹。ONLINE：数据集名即 id；"
        "REMOTE:仓库 从该仓库读取 dataset_info.json。",
        level="basic")] = "data"
    eval_on_each_dataset: Annotated[bool, Text(
        "Evaluate every data set of eval_dataset by itself (eval_<name>_loss).",
        "对 eval_dataset 的每个数据集分别评估（eval_<名字>_loss）。")] = False
    mix_strategy: Annotated[Literal["concat", "interleave_under", "interleave_over", "interleave_once"], Text(
        "How several data sets become one. concat: one after the other. interleave_: drawn in turn or by "
        "interleave_probs; under stops when the first is used up, over repeats until all are, once takes each row "
        "once.",
        "多个数据集如何合并。concat：依次相接；interleave_：轮流或按 interleave_probs 抽取；under 在最先用完时停止，"
        "over 重复直到全部用完，once 每行恰好一次。")] = "concat"
    interleave_probs: Annotated[Numbers, Text(
        "How often each data set is drawn, one number for each, with commas. They are scaled to a sum of 1.",
        "每个数据集被抽取的概率，逗号分隔，每个数据集一个数，自动归一。")] = ()
    streaming: Annotated[bool, Text(
        "Read while training and keep nothing: for data larger than the disk. Needs max_steps.",
        "边训练边读取，不落盘：用于比磁盘还大的数据，需要 max_steps。")] = False
    buffer_size: Annotated[int, Field(ge=1), Text(
        "With streaming: from how many rows the next one is drawn. Higher: better mixed, more memory.",
        "streaming 时从多少行中随机抽取下一行。调高：更均匀，更占内存。")] = 16384
    on_bad_row: Annotated[Literal["error", "drop"], Text(
        "Rows that cannot be learned from: error names them and stops, drop leaves them out and says how many.",
        "无法学习的行：error 指出并停止；drop 丢弃并报告数量。")] = "error"
    cutoff_len: Annotated[int, Field(ge=4), Text(
        "Longest row, in tokens. Higher: nothing is lost, more memory. Longer rows: see overlong.",
        "每行最多的 token 数。调高：不丢数据，显存增加。超长的行如何处理见 overlong。",
        level="basic", also={"model_max_length": None})] = 2048
    overlong: Annotated[Literal["drop", "truncate", "split", "error"], Text(
        "Rows longer than cutoff_len. drop: left out, and said which. truncate: question and answer are cut in "
        "proportion, as LLaMA-Factory does; a cut answer has no end. split: go on in a further row. error: stop.",
        "超过 cutoff_len 的行。drop：丢弃并报告；truncate：按比例截断问题与回答（同 LLaMA-Factory），被截断的回答没有"
        "结束符；split：续到下一行；error：停止。",
        also={"excess_length_strategy": {"drop": "drop", "truncate": "truncate", "raise": "error"}})] = "drop"
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
    loss_weights: Annotated[Weights, Text(
        "What parts of an answer count: a table of regular expression and weight, such as {'<think>.*?</think>': 0.5}. "
        "Where several match, the last one holds.",
        "回答各部分的损失权重：正则表达式到权重的表，如 {'<think>.*?</think>': 0.5}；多个匹配时以最后一个为准。",
        level="expert"), Field(default_factory=dict)]
    enable_thinking: Annotated[bool | None, Text(
        "For models that can think. true: answers without a thought learn an empty one. false: thoughts are taken out, "
        "and the empty one stands in the prompt. null: thoughts stay, and answers without one get the empty one in "
        "the prompt.",
        "用于可思考的模型。true：没有思考的回答学习一个空思考；false：去掉思考，空思考放进提示；null：保留思考，"
        "没有思考的回答把空思考放进提示。")] = True
    preserve_thinking: Annotated[bool, Text(
        "Keep the thoughts of earlier answers.", "保留历史回答中的思考。")] = False
    tool_format: Annotated[str | None, Text(
        "How tools and calls are written, instead of the template's own way: default, qwen, llama3, mistral, glm4 "
        "and others.",
        "工具及调用的写法，代替模板自带的写法：default、qwen、llama3、mistral、glm4 等。", level="expert")] = None
    packing: Annotated[bool | None, Text(
        "A batch row is filled with short rows up to cutoff_len; they never see each other. "
        "per_device_train_batch_size then counts filled rows. Steps become fewer and equal in size.",
        "用短行把一个批次行填满到 cutoff_len，行与行互不可见；"
        "per_device_train_batch_size 按填满的行计。步数更少、更均匀。",
        also={"neat_packing": None})] = None
    tokenized_path: Annotated[str | None, Text(
        "Folder for the tokenised data: used if it was made with these settings, made if it is not there. Without it "
        "they are kept in truetune's cache.",
        "分词结果的文件夹：设置相同则直接使用，不存在则生成。不填则保存在 truetune 的缓存中。",
        free_on_resume=True)] = None
    overwrite_cache: Annotated[bool, Text(
        "Tokenise again, whatever is kept.", "忽略缓存，重新分词。", level="expert", free_on_resume=True)] = False
    media_dir: Annotated[str | None, Text(
        "Folder of images, videos and audio.", "图片、视频和音频所在的文件夹。", level="expert",
        not_offered=(
            "media are not read yet",
            "暂不读取图片、视频和音频"))] = None
    split_special_tokens: Annotated[bool, Text(
        "Text that looks like a special token stays text.", "看起来像特殊 token 的文本仍按文本处理。", level="expert",
        no_effect=(
            "what people wrote always stays text; only the template's own special tokens are special",
            "人写的内容总是文本，只有模板自己的特殊 token 才特殊"))] = False
    data_shared_file_system: Annotated[bool, Text(
        "All machines see the same folder for tokenised data.", "所有机器共享同一个分词缓存文件夹。", level="expert",
        no_effect=(
            "a store is locked while it is built, so whoever comes second uses it",
            "生成分词结果时会加锁，后来者直接使用"))] = False
    preprocessing_num_workers: Annotated[int | None, Text(
        "Processes for tokenising.", "分词所用的进程数。", level="expert",
        no_effect=(
            "tokenising runs in the tokenizer's own threads",
            "分词使用分词器自己的线程"), free_on_resume=True)] = None
    preprocessing_batch_size: Annotated[int | None, Text(
        "Rows tokenised at a time.", "每次分词的行数。", level="expert",
        no_effect=(
            "it changes nothing that is learned here",
            "在这里不影响学习的内容"), free_on_resume=True)] = None
    dataloader_num_workers: Annotated[int, Text(
        "Processes that load batches.", "加载批次的进程数。", level="expert",
        no_effect=(
            "rows are tokenised before training, so batches need no workers",
            "训练前已分词，组批不需要工作进程"), free_on_resume=True)] = 0
