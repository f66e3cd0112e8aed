"""Options: which weights are trained."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Text

_PLAIN_ONLY = ("LoRA variants other than plain LoRA are not trained yet", "暂时只支持普通 LoRA，不支持其变体")
_PISSA = ("a setting of pissa_init, which is not done yet", "这是 pissa_init 的设置，该功能尚未支持")
_OFT = ("a setting of finetuning_type: oft, which is not trained yet",
        "这是 finetuning_type: oft 的设置，该方法尚未支持")


class MethodOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Method", "微调方法")

    finetuning_type: Annotated[Literal["lora", "oft", "freeze", "full"], Text(
        "lora trains small added matrices; full trains every weight, at about 16 bytes of memory each; freeze trains "
        "a few layers; oft (rotations) is not trained yet.",
        "lora 训练外加的小矩阵；full 训练全部权重，每个权重约占 16 字节；freeze 只训练几层；oft（正交变换）暂不支持。",
        level="basic", also={"use_lora": {"true": "lora", "false": "full"}}, memory="depends", speed="depends",
        quality="depends",
        advice=(Advice("LoRA learns less and forgets less: it keeps more of what the model knew.",
                       "LoRA 学得少、忘得也少，更能保住模型原有的能力。", "lora-learns-less"),
                Advice("LoRA equals full until the data exceeds what its matrices can hold; take full beyond that, or "
                       "for continued pre-training.",
                       "在数据超出 LoRA 矩阵的容量之前，效果与 full 相当；数据更多或继续预训练时用 full。",
                       "lora-without-regret")))] = "lora"
    lora_rank: Annotated[int, Field(gt=0), Text(
        "Size of LoRA's matrices: how much they can hold.", "LoRA 矩阵的秩：能装下多少新东西。", level="basic",
        also={"lora_r": None},
        higher=("more can be learned; more memory, a larger adapter", "能学的更多；显存和适配器也更大"),
        lower=("smaller and a little faster; much data no longer fits in", "更小、略快；数据多时装不下"), memory="up",
        speed="down", quality="depends",
        advice=(Advice("What counts is that the matrices hold what is to be learned. Our reading, not measured: 16 "
                       "for up to 5,000 rows, 32 up to 50,000, 64 to 256 above.",
                       "关键是矩阵装得下要学的内容。我们的理解（未实测）：5 千行以内 16，5 万行以内 32，更多用 64 到 "
                       "256。", "lora-without-regret"),
                Advice("With alpha / rank, high ranks are held back: rsLoRA divides by the root of the rank instead.",
                       "按 alpha / rank 缩放会压住高秩：rsLoRA 改为除以秩的平方根。", "rslora")))] = 8
    lora_alpha: Annotated[int | None, Field(gt=0), Text(
        "LoRA's strength: its output is multiplied by alpha / rank.", "LoRA 的强度：输出乘以 alpha / rank。",
        higher=("the same learning rate moves the model further", "同样的学习率会让模型变化更大"),
        lower=("the model moves less; a higher learning rate makes up for it", "模型变化更小，可用更大的学习率补偿"),
        unset=("2 x lora_rank, as in LLaMA-Factory", "2 x lora_rank，同 LLaMA-Factory"), quality="depends",
        advice=(Advice("32 whatever the rank, the default of the sweep's function: a learning rate should then mean "
                       "the same at any rank (inferred, not measured). Without alpha / rank a learning rate says "
                       "nothing.",
                       "固定为 32（扫描实验所用函数的默认值），不随秩变化：这样学习率在不同的秩下含义应当相同（推断，"
                       "未实测）。离开 alpha / rank 谈学习率没有意义。", "tinker-lora"),
                Advice("LoRA's authors: turning it is much like turning the learning rate, so they set it once and "
                       "left it.", "LoRA 作者：调它与调学习率差不多，所以定下后不再动。", "lora"),
                Advice("QLoRA's authors: 16 with rank 64.", "QLoRA 作者：秩 64 时取 16。", "qlora")))] = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1), Text(
        "Share of LoRA's inputs dropped at random while training.", "训练时随机丢弃的 LoRA 输入比例。",
        higher=("less overfitting, slower learning; LoRA's faster layer is not used",
                "过拟合更少，学得更慢；不用加速的 LoRA 层"),
        lower=("learns faster, and small data sooner by heart", "学得更快，数据少时更快变成死记"), speed="down",
        quality="depends",
        advice=(Advice("QLoRA's authors: 0.1 at 7B, 0.05 at 65B.", "QLoRA 作者：7B 用 0.1，65B 用 0.05。", "qlora"),
                Advice("LoRA itself keeps what the model knew better than dropout does, so 0 is a fair start.",
                       "在保住原有能力上 LoRA 本身就比 dropout 有效，从 0 开始即可。", "lora-learns-less")))] = 0.0
    lora_target: Annotated[Names, Text(
        "Which modules get LoRA, by the end of their name. all: every linear layer but the head.",
        "哪些模块加 LoRA，按名字结尾匹配。all：除输出头外的所有线性层。", level="basic", memory="up", speed="down",
        quality="up",
        advice=(Advice("All linear layers, the MLP's among them.", "用全部线性层，包括 MLP。", "lora-without-regret"),
                Advice("QLoRA's authors: all of them too.", "QLoRA 作者同样用全部线性层。", "qlora")))] = ("all",)
    additional_target: Annotated[Names, Text(
        "Modules trained and saved whole beside LoRA, such as embed_tokens,lm_head.",
        "除 LoRA 外整体训练并保存的模块，如 embed_tokens,lm_head。", level="expert", unset=("none", "没有"),
        memory="up", quality="depends")] = ()
    create_new_adapter: Annotated[bool, Text(
        "Merge adapter_name_or_path into the model and begin a new adapter.", "先合并已有的适配器，再新建一个。",
        level="expert",
        not_offered=("an adapter that is named is trained on; to begin a new one, export it into a model first",
                     "给出的适配器会接着训练；要新建请先把它导出成模型"), free_on_resume=True)] = False

    use_rslora: Annotated[bool, Text(
        "Divide LoRA's output by the root of the rank instead of the rank.", "LoRA 的输出除以秩的平方根，而不是秩。",
        not_offered=("the output is divided by the rank; lora_alpha x the root of lora_rank gives the same",
                     "输出按秩缩放；把 lora_alpha 乘以 lora_rank 的平方根效果相同"), free_on_resume=True)] = False
    use_dora: Annotated[bool, Text(
        "Train the length and the direction of weights apart (DoRA).", "把权重的大小和方向分开训练（DoRA）。",
        not_offered=_PLAIN_ONLY, free_on_resume=True)] = False
    loraplus_lr_ratio: Annotated[float | None, Text(
        "LoRA+: how many times faster the B matrices learn. Unset: as fast as A.",
        "LoRA+：B 矩阵的学习率是 A 的多少倍。不填则相同。", level="expert",
        not_offered=_PLAIN_ONLY, free_on_resume=True)] = None
    loraplus_lr_embedding: Annotated[float, Text(
        "LoRA+: the learning rate of embeddings.", "LoRA+：embedding 的学习率。", level="expert",
        no_effect=("a setting of loraplus_lr_ratio, which is not done yet",
                   "这是 loraplus_lr_ratio 的设置，该功能尚未支持"), free_on_resume=True)] = 1e-6
    pissa_init: Annotated[bool, Text(
        "Begin LoRA with the largest singular vectors of the weights (PiSSA).",
        "用权重最大的奇异向量初始化 LoRA（PiSSA）。", level="expert",
        not_offered=_PLAIN_ONLY, free_on_resume=True)] = False
    pissa_iter: Annotated[int, Text(
        "Rounds of the fast SVD for it.", "快速 SVD 的迭代次数。", level="expert",
        no_effect=_PISSA, free_on_resume=True)] = 16
    pissa_convert: Annotated[bool, Text(
        "Write the result as plain LoRA too.", "同时写出普通 LoRA。", level="expert",
        no_effect=_PISSA, free_on_resume=True)] = False
    oft_rank: Annotated[int, Text(
        "OFT's rank; 0: oft_block_size decides.", "OFT 的秩；0 表示由 oft_block_size 决定。", level="expert",
        no_effect=_OFT, free_on_resume=True)] = 0
    oft_block_size: Annotated[int, Text(
        "Size of OFT's blocks.", "OFT 的块大小。", level="expert",
        no_effect=_OFT, free_on_resume=True)] = 32
    oft_target: Annotated[Names, Text(
        "Which modules get OFT.", "哪些模块加 OFT。", level="expert",
        no_effect=_OFT, free_on_resume=True)] = ("all",)
    module_dropout: Annotated[float, Text(
        "Share of OFT's blocks dropped at random.", "随机丢弃的 OFT 块比例。", level="expert",
        no_effect=_OFT, free_on_resume=True)] = 0.0

    freeze_trainable_layers: Annotated[int, Text(
        "freeze: train the last n layers; a negative n trains the first ones.",
        "freeze：训练最后 n 层；负数表示最前面的 n 层。",
        higher=("more layers learn; more memory, slower", "训练的层更多；显存更多、更慢"),
        lower=("fewer layers learn; below 0 they are counted from the first", "训练的层更少；小于 0 从最前面数"),
        memory="up", speed="down", quality="depends")] = 2
    freeze_trainable_modules: Annotated[Names, Text(
        "freeze: only these modules of those layers, such as mlp,self_attn. all: everything in them.",
        "freeze：只训练这些层里的哪些模块，如 mlp,self_attn。all：全部。", memory="up", quality="depends")] = ("all",)
    freeze_extra_modules: Annotated[Names, Text(
        "freeze: modules outside the layers that are trained too, such as norm,embed_tokens.",
        "freeze：层外也要训练的模块，如 norm,embed_tokens。", level="expert", unset=("none", "没有"), memory="up",
        quality="depends")] = ()
    use_llama_pro: Annotated[bool, Text(
        "Train only blocks that were added to the model (LLaMA Pro).", "只训练扩展出来的层（LLaMA Pro）。",
        level="expert",
        not_offered=("freeze trains the layers that are there", "freeze 训练已有的层"), free_on_resume=True)] = False
