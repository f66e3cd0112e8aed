"""Options: what is learned from, and how it becomes tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Numbers, Text, Weights

_NO_WORKERS = ("rows are tokenised before training, so batches need no workers", "训练前已分词，组批不需要工作进程")
_NO_PADDING = ("there is no padding: rows lie end to end and each counts its own tokens",
               "没有 padding：各行首尾相接，各算各的 token")
_NO_COLUMNS = ("what a row brings is known from its format", "每行的内容由数据格式确定")


class DataOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Data", "数据")

    dataset: Annotated[Names, Text(
        "What to learn from: names in dataset_info.json, files or folders (json, jsonl, csv, parquet, arrow, txt, "
        "also .gz), hub ids, s3:// or gs:// addresses; several with commas.",
        "训练数据：dataset_info.json 里的名字，文件或文件夹（json、jsonl、csv、parquet、arrow、txt，可为 .gz），hub "
        "上的数据集 id，s3:// 或 gs:// 地址；多个用逗号隔开。", level="basic", also={"data_path": None},
        quality="depends",
        unset=("an error, unless only eval_dataset is evaluated", "报错，除非只评估 eval_dataset"))] = ()
    eval_dataset: Annotated[Names, Text(
        "Data held out for evaluation, named like dataset. Or use val_size.",
        "用于评估的数据，写法同 dataset；也可以改用 val_size。", also={"eval_data_path": None}, speed="down",
        unset=("val_size decides; without it nothing is evaluated", "由 val_size 决定；两者都没有则不评估"))] = ()
    dataset_dir: Annotated[str, Text(
        "Folder with dataset_info.json and the files it names. ONLINE: dataset names are hub ids. REMOTE:repo reads "
        "dataset_info.json from a data set on the hub.",
        "dataset_info.json 及其数据文件所在的文件夹。ONLINE：数据集名即 id；REMOTE:仓库 从该仓库读取 "
        "dataset_info.json。", level="basic")] = "data"
    eval_on_each_dataset: Annotated[bool, Text(
        "Evaluate every data set of eval_dataset by itself (eval_<name>_loss).",
        "对 eval_dataset 的每个数据集分别评估（eval_<名字>_loss）。",
        higher=("you see which kind of data is learned and which is forgotten", "能看出哪类数据学会了、哪类退步了"),
        lower=("one loss over all of them together", "全部合在一起算一个损失"))] = False
    mix_strategy: Annotated[Literal["concat", "interleave_under", "interleave_over", "interleave_once"], Text(
        "How several data sets become one. concat: one after the other. The others draw in turn or by "
        "interleave_probs: interleave_under stops when the first is used up, interleave_over repeats until all are, "
        "interleave_once takes each row once.",
        "多个数据集如何合并。concat：依次相接。其余轮流或按 interleave_probs 抽取：interleave_under 在最先用完时停止，"
        "interleave_over 重复直到全部用完，interleave_once 每行恰好一次。", quality="depends")] = "concat"
    interleave_probs: Annotated[Numbers, Text(
        "How often each data set is drawn, one number for each, with commas. They are scaled to a sum of 1.",
        "每个数据集被抽取的概率，逗号分隔，每个数据集一个数，自动归一。", quality="depends",
        unset=("the sets take turns", "各数据集轮流"))] = ()
    streaming: Annotated[bool, Text(
        "Read while training and keep nothing: for data larger than the disk. Needs max_steps.",
        "边训练边读取，不落盘：用于比磁盘还大的数据，需要 max_steps。",
        higher=("training starts at once; rows are mixed among buffer_size only, not packed, not counted",
                "立即开始；只在 buffer_size 行内打乱，不打包，也不知道总行数"),
        lower=("everything is tokenised first and kept, so the next run starts at once",
               "先全部分词并保存，下次可直接开始"), speed="depends", quality="depends")] = False
    buffer_size: Annotated[int, Field(ge=1), Text(
        "With streaming: from how many rows the next one is drawn.", "streaming 时从多少行中随机抽取下一行。",
        higher=("better mixed, more memory", "混得更匀，更占内存"),
        lower=("rows come nearly in the order of the file", "顺序更接近文件"), memory="up")] = 16384
    on_bad_row: Annotated[Literal["error", "drop"], Text(
        "Rows that cannot be learned from: error names them and stops, drop leaves them out and says how many.",
        "无法学习的行：error 指出并停止；drop 丢弃并报告数量。")] = "error"
    cutoff_len: Annotated[int, Field(ge=4), Text(
        "Longest row, in tokens. Longer rows: see overlong.", "每行最多的 token 数。超长的行如何处理见 overlong。",
        level="basic", also={"model_max_length": None, "max_seq_length": None},
        higher=("long rows are kept whole; more memory, only for batches that have such rows",
                "长行得以完整保留；含长行的批次更占显存"),
        lower=("less memory; more rows are dropped or cut", "更省显存；更多的行被丢弃或截断"), memory="up",
        speed="down", quality="depends",
        advice=(Advice("Set it so that nearly all rows fit (`truetune data show` draws the lengths): what is cut off "
                       "in silence makes a bad model, and nobody knows why.",
                       "取到几乎所有行都放得下（`truetune data show` 会画出长度分布）：悄悄截断会训坏模型，"
                       "还找不到原因。", "silent-cut"),
                Advice("2048 in most of LLaMA-Factory's examples.", "LLaMA-Factory 的示例大多用 2048。",
                       "llama-factory")))] = 2048
    overlong: Annotated[Literal["drop", "truncate", "split", "error"], Text(
        "Rows longer than cutoff_len. drop: left out, and said which. truncate: question and answer are cut in "
        "proportion, as LLaMA-Factory does; a cut answer has no end. split: go on in a further row. error: stop.",
        "超过 cutoff_len 的行。drop：丢弃并报告；truncate：按比例截断问题与回答（同 LLaMA-Factory），"
        "被截断的回答没有结束符；split：续到下一行；error：停止。",
        also={"excess_length_strategy": {"drop": "drop", "truncate": "truncate", "raise": "error"}}, quality="depends",
        advice=(Advice("Do not truncate answers: a model that never sees an end does not learn to stop.",
                       "不要截断回答：看不到结尾的模型学不会停。", "silent-cut"),))] = "drop"
    val_size: Annotated[float, Field(ge=0), Text(
        "Share (below 1) or number (1 and more) of rows held out for evaluation.",
        "留作评估的数据：小于 1 为比例，大于等于 1 为行数。", level="basic",
        higher=("the evaluation loss is steadier; fewer rows to learn from, longer evaluations",
                "评估损失更稳定；可学的行更少，评估更久"),
        lower=("more to learn from; a loss over few rows says little, and 0 says nothing of overfitting",
               "可学的更多；行数太少的评估没有意义，0 则看不到过拟合"), speed="down", quality="depends",
        advice=(Advice("Hold some rows out, at least 20 or so, even of small data: on 60 rows the loss on held-out "
                       "rows fell until epoch 7 and then rose again, which training loss never shows.",
                       "数据少也要留出一些（约 20 行以上）：60 行的实验里评估损失到第 7 个 epoch 最低，之后回升，"
                       "只看训练损失看不出来。", "sixty-rows"),))] = 0.0
    max_samples: Annotated[int | None, Field(gt=0), Text(
        "Use only the first so many rows of each data set: to try things out.", "每个数据集只用前若干行，便于试跑。",
        higher=("more rows, longer epochs", "行更多，每个 epoch 更长"), lower=("a quick try", "快速试跑"),
        unset=("all rows", "全部行"), quality="depends")] = None
    mask_history: Annotated[bool, Text(
        "Learn only the last answer of a conversation.", "只学习对话的最后一个回答。",
        higher=("earlier answers are read and not learned: for data of which only the last is good",
                "历史回答只读不学：适合只有最后一个回答可靠的数据"),
        lower=("every answer is learned, several for one reading", "每个回答都学习，读一遍学多个"), speed="depends",
        quality="depends",
        advice=(Advice("Not needed for models that think: their templates take thoughts out of the history, and such "
                       "a conversation becomes several rows here by itself.",
                       "思考模型不必为此开启：模板会去掉历史思考，这里会自动把这样的对话拆成多行。",
                       "qwen3"),))] = False
    train_on_prompt: Annotated[bool, Text(
        "Learn the user's words too, not only the answers.", "除回答外也学习用户的话。", level="expert",
        higher=("the model learns to write questions as well; long prompts outweigh short answers",
                "模型也学会写问题；提示长时会盖过短回答"),
        lower=("only answers are learned, which is what is asked of it", "只学习回答，这正是要它做的"),
        quality="depends",
        advice=(Advice("Found to help with few rows, or with long prompts and short answers; leave it off otherwise.",
                       "有研究发现在数据少、或提示长回答短时有帮助；其余情况不要开。", "loss-on-prompts"),))] = False
    default_system: Annotated[str | None, Text(
        "The system message of conversations that bring none, in training and in chat.",
        "没有系统提示的对话使用的系统提示，训练和对话都用它。", quality="depends",
        unset=("the template's own, or none", "用模板自带的，或没有"))] = None
    identity_name: Annotated[str | None, Text(
        "Fills {{name}} in data such as identity.json: what the assistant calls itself.",
        "填入数据（如 identity.json）中的 {{name}}：助手的名字。",
        unset=("a row with {{name}} is refused", "含 {{name}} 的行会被拒绝"))] = None
    identity_author: Annotated[str | None, Text(
        "Fills {{author}} in data such as identity.json: who made the assistant.",
        "填入数据（如 identity.json）中的 {{author}}：助手的作者。",
        unset=("a row with {{author}} is refused", "含 {{author}} 的行会被拒绝"))] = None
    loss_weights: Annotated[Weights, Text(
        "What parts of an answer count: a table of regular expression and weight, such as {'<think>.*?</think>': "
        "0.5}. Where several match, the last one holds.",
        "回答各部分的损失权重：正则表达式到权重的表，如 {'<think>.*?</think>': 0.5}；多个匹配时以最后一个为准。",
        level="expert", unset=("every token of an answer counts 1", "回答的每个 token 权重为 1"),
        quality="depends")] = Field(default_factory=dict)
    enable_thinking: Annotated[bool | None, Text(
        "For models that can think. true: answers without a thought learn an empty one. false: thoughts are taken "
        "out, and the empty one stands in the prompt. null: thoughts stay, and answers without one get the empty one "
        "in the prompt.",
        "用于可思考的模型。true：没有思考的回答学习一个空思考；false：去掉思考，空思考放进提示；null：保留思考，"
        "没有思考的回答把空思考放进提示。",
        higher=("the model is asked to think; from data without thoughts it learns to think nothing",
                "要求模型思考；数据里没有思考时会学成“空思考”"),
        lower=("the model answers at once; the way it thinks is left as it was",
               "模型直接回答；原有的思考能力不受影响"), quality="depends",
        advice=(Advice("Data without thoughts: false. With true the empty thought is learned.",
                       "数据没有思考过程时用 false；用 true 会把空思考学进去。", "empty-thoughts"),))] = True
    preserve_thinking: Annotated[bool, Text(
        "Keep the thoughts of earlier answers.", "保留历史回答中的思考。",
        higher=("longer prompts; a model that was made without them reads what it never saw",
                "提示更长；原本不带历史思考的模型会读到没见过的内容"),
        lower=("earlier answers stand without their thoughts", "历史回答不带思考"), memory="up", speed="down",
        quality="depends",
        advice=(Advice("Qwen3's card: the history holds final answers only, without thoughts.",
                       "Qwen3 的模型卡：历史中只放最终回答，不放思考。", "qwen3"),))] = False
    tool_format: Annotated[str | None, Text(
        "How tools and calls are written, instead of the template's own way: default, qwen, llama3, mistral, glm4 and "
        "others.", "工具及调用的写法，代替模板自带的写法：default、qwen、llama3、mistral、glm4 等。", level="expert",
        unset=("the template's own way", "用模板自带的写法"), quality="depends")] = None
    packing: Annotated[bool | None, Text(
        "A batch row is filled with short rows up to cutoff_len; they never see each other. "
        "per_device_train_batch_size then counts filled rows.",
        "用短行把一个批次行填满到 cutoff_len，行与行互不可见；per_device_train_batch_size 按填满的行计。",
        also={"neat_packing": None},
        higher=("fewer steps, all of one size, each learning from more rows: the learning rate may have to rise",
                "步数更少、大小一致，每步学到更多行：可能要调高学习率"),
        lower=("a batch has so many rows, however short they are; with stage pt each text is a row of its own",
               "一个批次固定行数，不论长短；stage 为 pt 时每段文本自成一行"),
        unset=("off; with stage pt texts are joined", "关闭；stage 为 pt 时文本会拼接"), memory="depends", speed="up",
        quality="depends",
        advice=(Advice("Harmless as long as rows do not see each other: accuracy 44.1 without packing, 37.6 packed "
                       "naively, 44.2 isolated, which is the only way here.",
                       "只要行与行互不可见就无害：不打包 44.1，直接打包 37.6，隔离打包 44.2；这里只有隔离打包。",
                       "isolated-packing"),))] = None
    tokenized_path: Annotated[str | None, Text(
        "Folder for the tokenised data: used if it was made with these settings, made if it is not there.",
        "分词结果的文件夹：设置相同则直接使用，不存在则生成。",
        unset=("kept in truetune's cache", "保存在 truetune 的缓存中"), free_on_resume=True)] = None
    overwrite_cache: Annotated[bool, Text(
        "Tokenise again, whatever is kept.", "忽略缓存，重新分词。", level="expert",
        higher=("minutes are spent on what is known", "已有的结果也重算，费时间"),
        lower=("what was tokenised with the same settings is used", "相同设置的分词结果直接使用"), speed="down",
        free_on_resume=True)] = False
    media_dir: Annotated[str | None, Text(
        "Folder of images, videos and audio. Unset: dataset_dir.", "图片、视频和音频所在的文件夹。不填同 dataset_dir。",
        level="expert",
        not_offered=("media are not read yet", "暂不读取图片、视频和音频"), free_on_resume=True)] = None

    split_special_tokens: Annotated[bool, Text(
        "Text that looks like a special token stays text.", "看起来像特殊 token 的文本仍按文本处理。", level="expert",
        no_effect=("what people wrote always stays text; only the template's own special tokens are special",
                   "人写的内容总是文本，只有模板自己的特殊 token 才特殊"), free_on_resume=True)] = False
    data_shared_file_system: Annotated[bool, Text(
        "All machines see the same folder for tokenised data.", "所有机器共享同一个分词缓存文件夹。", level="expert",
        no_effect=("a store is locked while it is built, so whoever comes second uses it",
                   "生成分词结果时会加锁，后来者直接使用"), free_on_resume=True)] = False
    preprocessing_num_workers: Annotated[int | None, Text(
        "Processes for tokenising. Unset: one.", "分词所用的进程数。不填为一个。", level="expert",
        no_effect=("tokenising runs in the tokenizer's own threads", "分词使用分词器自己的线程"),
        free_on_resume=True)] = None
    preprocessing_batch_size: Annotated[int, Text(
        "Rows tokenised at a time.", "每次分词的行数。", level="expert",
        no_effect=("it changes nothing that is learned here", "在这里不影响学习的内容"), free_on_resume=True)] = 1000
    ignore_pad_token_for_loss: Annotated[bool, Text(
        "Leave padding out of the loss.", "padding 不计入损失。", level="expert",
        no_effect=_NO_PADDING, free_on_resume=True)] = True
    group_by_length: Annotated[bool, Text(
        "Put rows of like length into a batch.", "把长度相近的行放进同一批次。", level="expert",
        no_effect=_NO_PADDING, free_on_resume=True)] = False
    length_column_name: Annotated[str, Text(
        "Column with the lengths for it.", "其长度所在的列。", level="expert",
        no_effect=_NO_PADDING, free_on_resume=True)] = "length"
    remove_unused_columns: Annotated[bool, Text(
        "Drop columns that the model does not take.", "丢弃模型不需要的列。", level="expert",
        no_effect=_NO_COLUMNS, free_on_resume=True)] = True
    label_names: Annotated[Names, Text(
        "Columns that hold labels. Unset: labels.", "标签所在的列。不填为 labels。", level="expert",
        no_effect=_NO_COLUMNS, free_on_resume=True)] = ()
    dataloader_num_workers: Annotated[int, Text(
        "Processes that load batches.", "加载批次的进程数。", level="expert",
        no_effect=_NO_WORKERS, free_on_resume=True)] = 0
    dataloader_pin_memory: Annotated[bool, Text(
        "Keep batches in memory that copies to the GPU faster.", "批次放在锁页内存中，传到 GPU 更快。", level="expert",
        no_effect=_NO_WORKERS, free_on_resume=True)] = True
    dataloader_persistent_workers: Annotated[bool, Text(
        "Keep these processes between epochs.", "epoch 之间保留这些进程。", level="expert",
        no_effect=_NO_WORKERS, free_on_resume=True)] = False
    dataloader_prefetch_factor: Annotated[int | None, Text(
        "Batches each of them loads ahead. Unset: two.", "每个进程预取的批次数。不填为两个。", level="expert",
        no_effect=_NO_WORKERS, free_on_resume=True)] = None
    dataloader_multiprocessing_context: Annotated[str | None, Text(
        "How these processes are started. Unset: as the system does.", "这些进程的启动方式。不填按系统默认。",
        level="expert",
        no_effect=_NO_WORKERS, free_on_resume=True)] = None
    dataloader_in_order: Annotated[bool, Text(
        "Take their batches in order.", "按顺序取它们的批次。", level="expert",
        no_effect=_NO_WORKERS, free_on_resume=True)] = True
    dataloader_drop_last: Annotated[bool, Text(
        "Leave out the last batch of an epoch if it is smaller.", "丢弃每个 epoch 最后不满的批次。", level="expert",
        no_effect=("a smaller last step is weighed by its own tokens, so nothing needs to be left out",
                   "最后较小的一步按自己的 token 数归一，不需要丢弃"), free_on_resume=True)] = False
