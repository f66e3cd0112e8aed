"""Options: which model, and how it is loaded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Table, Text

_NO_NEW_TOKENS = ("nothing is added to the vocabulary yet, so words meant as one token stay several",
                  "暂不扩充词表，本应成为一个 token 的词仍会拆成多个")
_TOKEN_SETTING = ("a setting of add_special_tokens, which is not done yet",
                  "这是 add_special_tokens 的设置，该功能尚未支持")
_LIGER = ("the head already computes logits in small pieces, which is what saves the memory",
          "输出头已经分块计算 logits，显存正是省在这里")


class ModelOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Model", "模型")

    model_name_or_path: Annotated[str | None, Text(
        "The base model: a local folder, a hub id, or bundled/smollm2-135m-instruct.",
        "基座模型：本地文件夹、hub 上的 id，或 bundled/smollm2-135m-instruct。", level="basic",
        unset=("an error: there has to be a model", "报错：必须指定模型"), memory="depends", speed="depends",
        quality="depends")] = None
    adapter_name_or_path: Annotated[Names, Text(
        "A trained LoRA adapter. In training it is trained on; in chat and export it is put on the base model.",
        "已训练的 LoRA 适配器。训练时在其上继续训练；对话和导出时加载到基座模型上。", level="basic",
        unset=("training begins a new adapter; chat and export take the model as it is",
               "训练时新建适配器；对话和导出直接用模型本身"), quality="depends")] = ()
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
    flash_attn: Annotated[Literal["auto", "disabled", "sdpa", "fa2", "fa3"], Text(
        "Attention kernel. auto picks the fastest that keeps rows apart on this device and checks it on the first "
        "batch; sdpa, fa2 and fa3 do the same, and need no package. disabled runs plain attention, row by row.",
        "注意力内核。auto 选用本机上能隔离各行的最快内核，并用第一个批次核对；sdpa、fa2、fa3 与 auto 相同，"
        "无需安装其他包。disabled 逐行用普通注意力。", level="expert", memory="depends", speed="depends",
        free_on_resume=True)] = "auto"
    infer_dtype: Annotated[Literal["auto", "float16", "bfloat16", "float32"], Text(
        "Number format of the model in chat and of the exported weights. auto keeps the model's own; float32 takes "
        "twice the memory of float16 and bfloat16.",
        "对话时模型的数值格式，也是导出权重的格式。auto 沿用模型自己的格式；float32 的内存是 float16 和 bfloat16 "
        "的两倍。", memory="depends", speed="depends", free_on_resume=True)] = "auto"
    train_from_scratch: Annotated[bool, Text(
        "Start from random weights instead of the model's own.", "不用模型的权重，从随机权重开始训练。", level="expert",
        not_offered=("training starts from the model's weights", "训练总是从模型已有的权重开始"),
        free_on_resume=True)] = False
    adapter_folder: Annotated[str | None, Text(
        "Sub-folder of adapter_name_or_path that holds the adapter. Unset: the folder itself.",
        "适配器在 adapter_name_or_path 下的子文件夹。不填：就是该文件夹。", level="expert",
        not_offered=("write the sub-folder into adapter_name_or_path itself",
                     "请把子文件夹直接写进 adapter_name_or_path"), free_on_resume=True)] = None

    resize_vocab: Annotated[bool, Text(
        "Give the embeddings a row for every token of the tokenizer.", "按分词器的词表大小扩充 embedding。",
        level="expert",
        not_offered=_NO_NEW_TOKENS, free_on_resume=True)] = False
    add_tokens: Annotated[Names, Text(
        "Words that become one token each. Unset: none.", "新增的普通 token。不填则不新增。", level="expert",
        not_offered=_NO_NEW_TOKENS, free_on_resume=True)] = ()
    add_special_tokens: Annotated[Names, Text(
        "New special tokens. Unset: none.", "新增的特殊 token。不填则不新增。", level="expert",
        not_offered=_NO_NEW_TOKENS, free_on_resume=True)] = ()
    new_special_tokens_config: Annotated[str | None, Text(
        "A YAML file of new special tokens and what they stand for. Unset: none.",
        "新特殊 token 及其含义的 YAML 文件。不填则没有。", level="expert",
        not_offered=_NO_NEW_TOKENS, free_on_resume=True)] = None
    init_special_tokens: Annotated[Literal["noise_init", "desc_init", "desc_init_w_noise"], Text(
        "How the row of a new special token begins: noise, the mean of the words that describe it, or both.",
        "新特殊 token 的 embedding 如何初始化：噪声、描述词的均值，或两者相加。", level="expert",
        no_effect=_TOKEN_SETTING, free_on_resume=True)] = "noise_init"
    rope_scaling: Annotated[Literal["linear", "dynamic", "yarn", "llama3"] | None, Text(
        "Stretch the positions of a model to texts longer than it was made for. Unset: as the model's config.json "
        "says.", "把模型的位置编码拉伸到更长的文本。不填：按模型的 config.json。", level="expert",
        not_offered=("positions stay as the model's config.json says; what is set there is used",
                     "位置编码按模型的 config.json；写在那里的设置会生效"), free_on_resume=True)] = None
    shift_attn: Annotated[bool, Text(
        "LongLoRA's shifted sparse attention.", "LongLoRA 的移位稀疏注意力。", level="expert",
        not_offered=("attention is always over the whole row", "注意力总是覆盖整行"), free_on_resume=True)] = False
    mixture_of_depths: Annotated[Literal["convert", "load"] | None, Text(
        "Turn the model into a mixture-of-depths model, or load one. Unset: neither.",
        "把模型转换为 mixture-of-depths 模型，或加载这样的模型。不填则都不做。", level="expert",
        not_offered=("every token goes through every layer", "每个 token 都经过每一层"), free_on_resume=True)] = None
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
        no_effect=("models are computed by transformers with truetune's own fast layers; the same is learned",
                   "模型由 transformers 加 truetune 自己的加速层计算，学到的内容相同"), free_on_resume=True)] = False
    enable_liger_kernel: Annotated[bool, Text(
        "Replace layers by Liger's kernels.", "用 Liger 的内核替换部分层。", level="expert",
        also={"use_liger_kernel": None},
        no_effect=_LIGER, free_on_resume=True)] = False
    liger_kernel_config: Annotated[Table, Text(
        "Which of Liger's kernels to use. Unset: its own choice.", "使用 Liger 的哪些内核。不填则由它决定。",
        level="expert",
        no_effect=_LIGER, free_on_resume=True)] = Field(default_factory=dict)
    use_v1_kernels: Annotated[bool | None, Text(
        "Borrow the kernels of LLaMA-Factory v1.", "借用 LLaMA-Factory v1 的内核。", level="expert",
        no_effect=("there are no such kernels here; the same is learned", "这里没有这些内核，学到的内容相同"),
        free_on_resume=True)] = False
    upcast_layernorm: Annotated[bool, Text(
        "Keep the weights of norms in float32.", "归一化层的权重保持 float32。", level="expert",
        no_effect=("norms of transformers compute in float32 inside, and trained weights have float32 copies",
                   "transformers 的归一化层内部按 float32 计算，被训练的权重有 float32 副本"),
        free_on_resume=True)] = False
    upcast_lmhead_output: Annotated[bool, Text(
        "Turn the head's logits into float32.", "把输出头的 logits 转成 float32。", level="expert",
        no_effect=("sums over logits are in float32 already", "对 logits 的求和已经用 float32"),
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
