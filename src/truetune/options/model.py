"""Options: which model, and how it is loaded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Table, Text


class ModelOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Model", "模型")

    model_name_or_path: Annotated[str | None, Text(
        "The base model: a local folder, a hub id, or bundled/smollm2-135m-instruct.",
        "基座模型：本地文件夹、hub 上的 id，或 bundled/smollm2-135m-instruct。", level="basic",
        unset=("an error: there has to be a model", "报错：必须指定模型"), memory="depends", speed="depends",
        quality="depends")] = None
    adapter_name_or_path: Annotated[Names, Text(
        "Trained adapters, in order. All but the last are merged into the base; in training the last is trained on "
        "(with create_new_adapter a new one is), in chat it is put on, and export merges them all.",
        "已训练的适配器，按顺序。除最后一个外都合并进基座；训练时在最后一个上继续训练（设了 create_new_adapter "
        "则新建一个"
        "），对话时加载最后一个，导出时全部合并。", level="basic",
        unset=("training begins a new adapter; chat and export take the model as it is",
               "训练时新建适配器；对话和导出直接用模型本身"),
        quality="depends")] = ()
    template: Annotated[str | None, Text(
        "Name of a chat template, as in LLaMA-Factory (llama3, qwen3, chatml and 121 more). It is trained with, and "
        "saved with the model.",
        "对话模板的名字，与 LLaMA-Factory 相同（llama3、qwen3、chatml 等 124 个）。用它训练，并随模型保存。",
        level="basic", unset=("the template that the model itself brings", "用模型自带的模板"), quality="depends",
        advice=(Advice("Leave it unset for a chat model, and use one template at every step, from training to "
                       "serving: another one is the usual reason for answers that ramble or never stop.",
                       "对话模型建议不填，并且从训练到部署始终用同一个模板：模板不一致是答非所问、停不下来的常见原因。",
                       "one-template"),))] = None
    model_revision: Annotated[str, Text(
        "Which version (branch, tag or commit) of a hub model.", "hub 模型的版本（分支、标签或提交）。",
        level="expert")] = "main"
    cache_dir: Annotated[str | None, Text(
        "Where models and data from a hub are kept.", "从 hub 下载的模型和数据存放的目录。", level="expert",
        unset=("the hub's own cache folder, in your home", "hub 自己的缓存目录，在用户主目录下"),
        free_on_resume=True)] = None
    flash_attn: Annotated[Literal["auto", "disabled", "sdpa", "fa2", "fa3", "flex"], Text(
        "Attention kernel. auto: the fastest of PyTorch's that keeps rows apart on this device. sdpa: PyTorch's, one "
        "row at a time. fa2, fa3: the packages flash-attn and flash-attn-3, on GPUs. flex: PyTorch's flex attention, "
        "on GPUs. disabled: plain attention, row by row. Each is checked on the first batch; what cannot be had is "
        "replaced by auto, with a line.",
        "注意力内核。auto：PyTorch 中能隔离各行的最快内核。sdpa：PyTorch 的 SDPA，逐行计算。fa2、fa3：flash-attn 和 "
        "flash-attn-3 包，用于 GPU。flex：PyTorch 的 flex attention，用于 GPU。disabled：逐行用普通注意力。都会用第一个"
        "批次核对；用不了的改用 auto，并说明原因。", level="expert", memory="depends", speed="depends",
        free_on_resume=True)] = "auto"
    infer_dtype: Annotated[Literal["auto", "float16", "bfloat16", "float32"], Text(
        "Number format of the model in chat and of the exported weights. auto keeps the model's own; float32 takes "
        "twice the memory of float16 and bfloat16.",
        "对话时模型的数值格式，也是导出权重的格式。auto 沿用模型自己的格式；float32 的内存是 float16 和 bfloat16 "
        "的两倍。", memory="depends", speed="depends", free_on_resume=True)] = "auto"
    train_from_scratch: Annotated[bool, Text(
        "Start from random weights instead of the model's own.", "不用模型的权重，从随机权重开始训练。", level="expert",
        higher=("nothing of what the model knew is left; of use with pt, full and very much text",
                "模型原有的能力全部丢弃；只适合 pt、full 和极大量的文本"),
        lower=("training starts from the model's weights", "从模型已有的权重开始训练"), quality="down")] = False
    adapter_folder: Annotated[str | None, Text(
        "Sub-folder of each folder in adapter_name_or_path that holds the adapter.",
        "适配器在 adapter_name_or_path 各文件夹下的子文件夹。", level="expert",
        unset=("the folder itself", "就是该文件夹"))] = None

    resize_vocab: Annotated[bool, Text(
        "Give the embeddings and the head a row for every token of the tokenizer, and train the new rows. add_tokens, "
        "add_special_tokens and new_special_tokens_config do so by themselves.",
        "让 embedding 和输出头为分词器的每个 token 都有一行，并训练新增的行。add_tokens、add_special_tokens 和 "
        "new_special_tokens_config 会自动这样做。", level="expert", memory="up",
        higher=("tokens that the tokenizer has and the model has not can be learned",
                "分词器有而模型没有的 token 可以学习"),
        lower=("the matrices stay as they are, unless words are added", "不新增词时矩阵保持原样"))] = False
    add_tokens: Annotated[Names, Text(
        "Words that become one token each. Their rows are new, and trained: alone beside an adapter, with the whole "
        "embeddings under freeze.",
        "新增的普通 token：每个词成为一个 token。新的行会被训练：用适配器时只训练这些行，freeze 时训练整个 embedding。",
        level="expert", unset=("no word is added", "不新增"), memory="up", quality="depends",
        advice=(Advice("A new row has to be learned from your data: add words that stand in it often, and leave what "
                       "the tokenizer writes in two or three tokens.",
                       "新的行只能从你的数据里学：只加数据中经常出现的词，能用两三个 token 表示的不必加。",
                       "new-embeddings"),))] = ()
    add_special_tokens: Annotated[Names, Text(
        "New special tokens: never split, whatever stands beside them. They may stand in your data. Those that the "
        "chat template writes are marks that nobody can type, and are left out of answers.",
        "新增的特殊 token：无论前后是什么都不会被拆开，可以出现在数据里。对话模板会写出的那些是控制标记，用户无法输入，"
        "也不出现在回答里。", level="expert",
        unset=("no special token is added", "不新增"), memory="up", quality="depends")] = ()
    new_special_tokens_config: Annotated[str | None, Text(
        "A YAML file of new special tokens, each with a text that says what it stands for. It goes before "
        "add_special_tokens.",
        "新特殊 token 的 YAML 文件，每个 token 附一段含义说明。优先于 add_special_tokens。", level="expert",
        unset=("add_special_tokens names them", "由 add_special_tokens 列出"), memory="up", quality="depends")] = None
    init_special_tokens: Annotated[Literal["noise_init", "desc_init", "desc_init_w_noise"], Text(
        "How the row of a new token begins. noise_init: the mean of all rows, and noise. desc_init: the mean of the "
        "tokens of its description (of a word without one: of the tokens that it was). desc_init_w_noise: that, and "
        "noise.",
        "新 token 的行如何初始化。noise_init：所有行的均值加噪声。desc_init：其描述的各 token 的均值（没有描述的词取它"
        "原来的各 token）。desc_init_w_noise：前者再加噪声。", level="expert", quality="depends",
        advice=(Advice("Near the mean of what is there a new row takes little chance from the tokens that are known; "
                       "a random row can take nearly all of it.",
                       "从已有行的均值附近开始，新 token 不会抢走已有 token 的概率；随机的行则可能抢走几乎全部。",
                       "new-embeddings"),))] = "noise_init"
    rope_scaling: Annotated[Literal["linear", "dynamic", "yarn", "llama3"] | None, Text(
        "Stretch the positions of a model to texts longer than it was made for. linear: all evenly. dynamic: the more "
        "the longer the text is. yarn: slow angles only, and sharper attention. llama3: slow angles only, as Llama 3.1 "
        "does. What was set is saved with the model or adapter.",
        "把模型的位置编码拉伸到更长的文本。linear：全部均匀拉伸。dynamic：文本越长拉伸越多。yarn：只拉伸慢的角度，并让"
        "注意力更集中。llama3：只拉伸慢的角度，做法同 Llama 3.1。设置会随模型或适配器保存。", level="expert",
        unset=("positions are as the model's config.json says", "按模型的 config.json"), quality="depends",
        advice=(Advice("yarn needs the fewest steps of training to reach a length, and keeps short texts best.",
                       "yarn 达到同样长度所需的训练步数最少，也最能保住短文本的效果。", "yarn"),
                Advice("linear makes near positions hard to tell apart, and has to be trained in.",
                       "linear 会让相邻位置更难区分，必须经过训练。", "position-interpolation")))] = None
    rope_factor: Annotated[float | None, Field(ge=1), Text(
        "By how much rope_scaling stretches.", "rope_scaling 拉伸的倍数。", level="expert",
        higher=("longer texts; near positions are harder to tell apart", "文本更长；相邻位置更难区分"),
        lower=("closer to what the model has learned; 1 changes nothing", "更接近模型学过的；1 表示不变"),
        unset=("in training cutoff_len over the model's own length, rounded up; in chat and export 2",
               "训练时为 cutoff_len 除以模型本身的长度，向上取整；对话和导出时为 2"),
        quality="depends")] = None
    shift_attn: Annotated[bool, Text(
        "LongLoRA's shifted sparse attention.", "LongLoRA 的移位稀疏注意力。", level="expert",
        not_offered=("attention is always over the whole row: its kernels take memory that only grows with the length, "
                     "and LLaMA-Factory's own works by rewriting transformers 4.45 to 4.47",
                     "注意力总是覆盖整行：现有内核的显存只随长度线性增长；LLaMA-Factory 的做法是改写 transformers 4.45 "
                     "到 4.47 的代码"), free_on_resume=True)] = False
    mixture_of_depths: Annotated[Literal["convert", "load"] | None, Text(
        "Turn the model into a mixture-of-depths model, or load one. Unset: neither.",
        "把模型转换为 mixture-of-depths 模型，或加载这样的模型。不填则都不做。", level="expert",
        not_offered=("every token goes through every layer: the package for it replaces the classes of transformers 4",
                     "每个 token 都经过每一层：实现它的包会替换 transformers 4 的类"),
        free_on_resume=True)] = None
    moe_aux_loss_coef: Annotated[float | None, Text(
        "Weight of the loss that spreads tokens evenly over the experts. Unset: none.",
        "让 token 均匀分到各专家的辅助损失的权重。不填则没有。", level="expert",
        not_offered=("no router loss is added; the routers of a mixture-of-experts model learn from the answers alone",
                     "不加路由损失；MoE 模型的路由只从回答中学习"), free_on_resume=True)] = None

    trust_remote_code: Annotated[bool, Text(
        "Would run Python code that comes with a model.", "运行模型附带的 Python 代码。", level="expert",
        no_effect=("code that comes with a model is never run; architectures known to transformers work without it",
                   "模型附带的代码从不运行；transformers 认识的结构不需要它"), free_on_resume=True)] = False
    use_fast_tokenizer: Annotated[bool, Text(
        "Use the Rust tokenizer.", "使用 Rust 分词器。", level="expert",
        no_effect=("the fast tokenizer is always used, since masks need its offsets",
                   "总是使用快速分词器，掩码需要它的位置信息"), free_on_resume=True)] = True
    low_cpu_mem_usage: Annotated[bool, Text(
        "Load weights without a second copy in memory.", "加载权重时不在内存中保留第二份。", level="expert",
        no_effect=("weights are always loaded this way", "权重总是这样加载"), free_on_resume=True)] = True
    use_unsloth: Annotated[bool, Text(
        "Load and train the model through Unsloth.", "通过 Unsloth 加载和训练模型。", level="expert",
        no_effect=("Unsloth rewrites the classes of transformers, so that nothing is left to check it against; "
                   "truetune's own fast layers are used, and the same is learned",
                   "Unsloth 会改写 transformers 的类，无从核对其结果；这里用 truetune 自己的加速层，学到的内容相同"),
        free_on_resume=True)] = False
    enable_liger_kernel: Annotated[bool, Text(
        "Compute norms and gated MLPs by Liger's Triton kernels (package liger-kernel), on GPUs. They are checked on "
        "the first batch. The head needs none: it computes logits in small pieces already.",
        "用 Liger 的 Triton 内核（liger-kernel 包）计算归一化和门控 MLP，用于 GPU，并用第一个批次核对。输出头不需要：它"
        "本来就分块计算 logits。", level="expert", also={"use_liger_kernel": None}, memory="down", speed="up",
        higher=("less memory for activations, and faster on GPUs; elsewhere a line says why not",
                "激活占的显存更少，在 GPU 上更快；其他设备上会说明为何不用"),
        lower=("the model's own layers", "用模型自己的层"), free_on_resume=True)] = False
    liger_kernel_config: Annotated[Table, Text(
        "Which of them, as a mapping such as {rms_norm: true, swiglu: false}.",
        "使用其中哪些，写成映射，如 {rms_norm: true, swiglu: false}。", level="expert",
        unset=("both rms_norm and swiglu", "rms_norm 和 swiglu 都用"), memory="down", speed="up",
        free_on_resume=True)] = Field(default_factory=dict)
    use_v1_kernels: Annotated[bool | None, Text(
        "Borrow the kernels of LLaMA-Factory v1.", "借用 LLaMA-Factory v1 的内核。", level="expert",
        no_effect=("there are no such kernels here; the same is learned", "这里没有这些内核，学到的内容相同"),
        free_on_resume=True)] = False
    upcast_layernorm: Annotated[bool, Text(
        "Keep the weights of norms in float32.", "归一化层的权重保持 float32。", level="expert",
        no_effect=("norms of transformers square and sum in float32 whatever their weights are; a weight that is "
                   "trained has a float32 copy, and one that is not was saved in 16 bits and gains nothing",
                   "无论权重是什么格式，transformers 的归一化层都用 float32 求平方和；被训练的权重有 float32 副本，"
                   "不训练的本来就以 16 位保存，转换没有好处"),
        free_on_resume=True)] = False
    upcast_lmhead_output: Annotated[bool, Text(
        "Turn the head's logits into float32.", "把输出头的 logits 转成 float32。", level="expert",
        no_effect=("it turns logits into float32 after they were rounded to 16 bits, and what is summed over them is "
                   "summed in float32 here anyway",
                   "它是在 logits 已经舍入到 16 位之后才转成 float32，而这里对 logits 的求和本来就用 float32"),
        free_on_resume=True)] = False
    offload_folder: Annotated[str, Text(
        "Folder on disk for weights that fit in no memory.", "内存放不下的权重存到磁盘上的文件夹。", level="expert",
        no_effect=("models are held in memory whole", "模型整个放在内存中"), free_on_resume=True)] = "offload"
    use_kv_cache: Annotated[bool, Text(
        "Keep what was computed for earlier tokens while an answer is generated.", "生成回答时保留前文的计算结果。",
        level="expert",
        no_effect=("answers are always generated with it, and are the same without",
                   "生成时总是使用，不用也得到同样的回答"), free_on_resume=True)] = True
    use_cache: Annotated[bool, Text(
        "The same while training.", "训练时也保留。", level="expert",
        no_effect=("training sees whole rows at once and has nothing to keep", "训练一次看到整行，没有可保留的"),
        free_on_resume=True)] = False
    print_param_status: Annotated[bool, Text(
        "Print every weight's name, type and whether it trains.", "打印每个权重的名字、类型和是否训练。",
        level="expert",
        no_effect=("a run says how many of the weights train", "运行时会说明有多少权重参与训练"),
        free_on_resume=True)] = False
