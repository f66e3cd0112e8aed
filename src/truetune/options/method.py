"""Options: which weights are trained."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Text


class MethodOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Method", "微调方法")

    finetuning_type: Annotated[Literal[
            "lora", "oft", "freeze", "full", "adalora", "vera", "ia3", "loha", "lokr", "prefix_tuning", "prompt_tuning",
            "p_tuning", "bottleneck"], Text(
        "lora trains small added matrices; full trains every weight, at about 16 bytes of memory each; freeze trains "
        "a few layers. Of the others, oft rotates weights; adalora is lora that gives up unimportant ranks; vera "
        "trains two vectors a layer, ia3 one; loha and lokr build other matrices; prefix_tuning, prompt_tuning and "
        "p_tuning train virtual tokens before the text (slower); bottleneck adds small layers (adapter tuning).",
        "lora 训练外加的小矩阵；full 训练全部权重，每个权重约占 16 字节；freeze 只训练几层。其余：oft "
        "对权重做正交变换；adalora 是会舍弃不重要秩的 lora；vera 每层训练两个向量，ia3 一个；loha 和 lokr "
        "用别的方式构造矩阵；prefix_tuning、prompt_tuning 和 p_tuning 训练文本前的虚拟 token（较慢）；bottleneck "
        "在层后加小网络（adapter tuning）。",
        level="basic", also={"use_lora": {"true": "lora", "false": "full"}}, memory="depends", speed="depends",
        quality="depends",
        advice=(Advice("LoRA learns less and forgets less: it keeps more of what the model knew.",
                       "LoRA 学得少、忘得也少，更能保住模型原有的能力。", "lora-learns-less"),
                Advice("LoRA equals full until the data exceeds what its matrices can hold; take full beyond that, or "
                       "for continued pre-training.",
                       "在数据超出 LoRA 矩阵的容量之前，效果与 full 相当；数据更多或继续预训练时用 full。",
                       "lora-without-regret")))] = "lora"
    lora_rank: Annotated[int, Field(gt=0), Text(
        "Size of LoRA's matrices: how much they can hold. Of adalora it is the mean rank at the end; vera, loha and "
        "lokr take it too.",
        "LoRA 矩阵的秩：能装下多少新东西。adalora 中是结束时的平均秩；vera、loha、lokr 也用它。", level="basic",
        also={"lora_r": None, "adalora_target_r": None},
        higher=("more can be learned; more memory, a larger adapter", "能学的更多；显存和适配器也更大"),
        lower=("smaller and a little faster; much data no longer fits in", "更小、略快；数据多时装不下"), memory="up",
        speed="down", quality="depends",
        advice=(Advice("What counts is that the matrices hold what is to be learned. Our reading, not measured: 16 "
                       "for up to 5,000 rows, 32 up to 50,000, 64 to 256 above.",
                       "关键是矩阵装得下要学的内容。我们的理解（未实测）：5 千行以内 16，5 万行以内 32，更多用 64 到 "
                       "256。", "lora-without-regret"),
                Advice("With alpha / rank, high ranks are held back: rsLoRA divides by the root of the rank instead.",
                       "按 alpha / rank 缩放会压住高秩：rsLoRA 改为除以秩的平方根。", "rslora"),
                Advice("vera's matrices are not trained, so it needs a far higher rank: 256 in its paper.",
                       "vera 的矩阵不训练，需要高得多的秩：论文用 256。", "vera")))] = 8
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
        "Which modules get LoRA (adalora, vera, ia3, loha, lokr), by the end of their name. all: every linear layer "
        "but the head; of ia3 keys, values and the MLP's inside.",
        "哪些模块加 LoRA（adalora、vera、ia3、loha、lokr），按名字结尾匹配。all：除输出头外的所有线性层；ia3 则是 key、"
        "value 和 MLP 内部。", level="basic", memory="up", speed="down",
        quality="up",
        advice=(Advice("All linear layers, the MLP's among them.", "用全部线性层，包括 MLP。", "lora-without-regret"),
                Advice("QLoRA's authors: all of them too.", "QLoRA 作者同样用全部线性层。", "qlora")))] = ("all",)
    additional_target: Annotated[Names, Text(
        "Modules trained and saved whole beside the adapter, such as embed_tokens,lm_head.",
        "除适配器外整体训练并保存的模块，如 embed_tokens,lm_head。", level="expert", unset=("none", "没有"),
        memory="up", quality="depends")] = ()
    create_new_adapter: Annotated[bool, Text(
        "Merge adapter_name_or_path into the model and begin a new adapter.", "先合并已有的适配器，再新建一个。",
        level="expert",
        higher=("what they have learned is left alone; later both have to be named, in order",
                "旧适配器学到的不再变；之后使用时两者都要按顺序写出"),
        lower=("the last adapter itself is trained further", "在最后一个适配器上继续训练"), quality="depends")] = False

    use_rslora: Annotated[bool, Text(
        "Divide LoRA's output by the root of the rank instead of the rank.", "LoRA 的输出除以秩的平方根，而不是秩。",
        higher=("high ranks learn as fast as low ones; at rank 16 the output is 4 times as large as without",
                "高秩学得和低秩一样快；秩为 16 时输出是不开启时的 4 倍"),
        lower=("the output is divided by the rank", "按秩缩放"), quality="depends",
        advice=(Advice("Of use at high ranks, 64 and more; lower lora_alpha or the learning rate with it.",
                       "适合 64 及以上的高秩；同时减小 lora_alpha 或学习率。", "rslora"),))] = False
    use_dora: Annotated[bool, Text(
        "Train the length and the direction of weights apart (DoRA).", "把权重的大小和方向分开训练（DoRA）。",
        higher=("often a little better at low ranks; slower, and LoRA's faster layer is not used",
                "低秩时常略好；更慢，不用加速的 LoRA 层"),
        lower=("plain LoRA", "普通 LoRA"), memory="up", speed="down", quality="depends",
        advice=(Advice("Its authors found it ahead of LoRA most at low ranks, 4 and 8.",
                       "作者发现它在 4、8 这样的低秩上领先 LoRA 最多。", "dora"),))] = False
    loraplus_lr_ratio: Annotated[float | None, Field(gt=0), Text(
        "LoRA+: how many times faster the B matrices learn.", "LoRA+：B 矩阵的学习率是 A 的多少倍。", level="expert",
        unset=("as fast as the A matrices", "与 A 相同"),
        higher=("B learns faster; lower the learning rate with it", "B 学得更快；请同时降低学习率"),
        lower=("at 1 it is plain LoRA", "为 1 时就是普通 LoRA"), quality="depends",
        advice=(Advice("Its authors take 16 or so; harder tasks want more.", "作者取 16 左右；任务越难越大。",
                       "loraplus"),))] = None
    loraplus_lr_embedding: Annotated[float, Field(ge=0), Text(
        "LoRA+: the learning rate of LoRA on embeddings.", "LoRA+：embedding 上 LoRA 的学习率。", level="expert",
        higher=("embeddings change more", "embedding 变化更大"),
        lower=("embeddings stay nearer to what they were", "embedding 更接近原样"),
        quality="depends")] = 1e-6
    pissa_init: Annotated[bool, Text(
        "Begin LoRA with the largest singular vectors of the weights (PiSSA). What is written is plain LoRA of twice "
        "the rank, on the base as it was.",
        "用权重最大的奇异向量初始化 LoRA（PiSSA）。写出的是秩为两倍的普通 LoRA，用于原样的基座。", level="expert",
        higher=("learns faster at first; takes a while to begin, and the adapter is twice as large",
                "开始时学得更快；启动需要一些时间，适配器大一倍"),
        lower=("init_lora_weights decides how it begins", "由 init_lora_weights 决定"), memory="up", speed="down",
        quality="depends",
        advice=(Advice("Its authors found it ahead of LoRA at the same rank throughout.",
                       "作者发现在相同的秩上它始终优于 LoRA。", "pissa"),))] = False
    pissa_iter: Annotated[int, Field(ge=-1), Text(
        "Rounds of the fast SVD of pissa_init; -1 does the whole SVD.",
        "pissa_init 快速 SVD 的迭代次数；-1 做完整的 SVD。",
        level="expert", higher=("nearer to the true singular vectors; -1 is exact, and takes minutes for large models",
                                "更接近真正的奇异向量；-1 精确，但大模型要几分钟"),
        lower=("begins sooner", "启动更快"), speed="down",
        advice=(Advice("16 is nearly as good as the whole SVD for training.", "16 次对训练来说已接近完整的 SVD。",
                       "pissa"),))] = 16
    pissa_convert: Annotated[bool, Text(
        "Write the result as plain LoRA too.", "同时写出普通 LoRA。", level="expert",
        no_effect=("what is written is always plain LoRA that works on the base as it was",
                   "写出的总是可用于原基座的普通 LoRA"), free_on_resume=True)] = False
    init_lora_weights: Annotated[Literal["default", "gaussian", "olora", "orthogonal"], Text(
        "How LoRA's matrices begin. default: A random, B zero. gaussian: the same with normal numbers. olora: with the "
        "first columns of the weights' QR decomposition. orthogonal: both random and orthogonal, so that B A is zero. "
        "PiSSA is pissa_init.",
        "LoRA 矩阵如何初始化。default：A 随机，B 为零。gaussian：同上，但用正态分布。olora：用权重 QR 分解的前几列。"
        "orthogonal：两者随机且正交，使 B A 为零。PiSSA 用 pissa_init。", level="expert", quality="depends",
        advice=(Advice("olora converged faster than LoRA in its author's runs.",
                       "olora 在作者的实验里比 LoRA 收敛更快。",
                       "olora"),))] = "default"
    adalora_init_r: Annotated[int | None, Field(gt=1), Text(
        "adalora: the rank that each layer begins with.", "adalora：每层开始时的秩。", level="expert",
        unset=("1.5 x lora_rank", "lora_rank 的 1.5 倍"),
        higher=("more ranks to choose from; more memory", "可供挑选的秩更多；显存也更多"),
        lower=("nearer to plain LoRA; it has to stay above lora_rank", "更接近普通 LoRA；必须大于 lora_rank"),
        memory="up", quality="depends")] = None
    adalora_tinit: Annotated[int, Field(ge=0), Text(
        "adalora: steps at the start in which no rank is given up.", "adalora：开头多少步不舍弃秩。", level="expert",
        higher=("what is important is known better before ranks go", "舍弃之前更清楚哪些秩重要"),
        lower=("ranks go sooner", "更早舍弃"), quality="depends")] = 0
    adalora_tfinal: Annotated[int, Field(ge=0), Text(
        "adalora: steps at the end that train the ranks that are left.", "adalora：最后多少步只训练留下的秩。",
        level="expert", higher=("what is left is trained longer", "留下的秩训练更久"),
        lower=("ranks go until the end", "一直舍弃到最后"), quality="depends")] = 0
    adalora_deltaT: Annotated[int, Field(gt=0), Text(
        "adalora: steps from one giving up of ranks to the next.", "adalora：每隔多少步舍弃一次秩。", level="expert",
        higher=("ranks go less often, many at once", "舍弃次数少，每次更多"),
        lower=("ranks go little by little", "逐步舍弃"),
        quality="depends")] = 1
    adalora_orth_reg_weight: Annotated[float, Field(ge=0), Text(
        "adalora: weight of the penalty that keeps its vectors orthogonal.", "adalora：保持向量正交的惩罚项的权重。",
        level="expert", higher=("closer to a true singular value decomposition; learns more slowly",
                                "更接近真正的奇异值分解；学得更慢"),
        lower=("singular values say less of what is important", "奇异值更难反映重要性"), quality="depends")] = 0.5
    oft_rank: Annotated[int, Field(ge=0), Text(
        "oft: how many blocks a layer's rotation has; 0: oft_block_size decides.",
        "oft：每层旋转矩阵分成多少块；0 表示由 oft_block_size 决定。", level="expert",
        higher=("smaller blocks: less can be learned", "块更小，能学的更少"),
        lower=("larger blocks: more can be learned", "块更大，能学的更多"),
        memory="down", quality="depends")] = 0
    oft_block_size: Annotated[int, Field(ge=0), Text(
        "oft: size of the blocks that rotate. It has to divide the inputs of each layer.",
        "oft：旋转块的大小，必须能整除每层的输入维度。", level="expert",
        higher=("more can be learned; more memory, slower", "能学的更多；显存更多、更慢"),
        lower=("smaller and faster", "更小、更快"), memory="up", speed="down", quality="depends")] = 32
    oft_target: Annotated[Names, Text(
        "Which modules get OFT, by the end of their name. all: every linear layer but the head. LLaMA-Factory "
        "reads lora_target instead.",
        "哪些模块加 OFT，按名字结尾匹配。all：除输出头外的所有线性层。LLaMA-Factory 实际读的是 lora_target。",
        level="expert", memory="up", speed="down", quality="up")] = ("all",)
    module_dropout: Annotated[float, Field(ge=0, lt=1), Text(
        "Share of OFT's blocks dropped at random.", "随机丢弃的 OFT 块比例。", level="expert",
        higher=("less overfitting, slower learning", "过拟合更少，学得更慢"),
        lower=("learns faster, and small data sooner by heart", "学得更快，数据少时更快变成死记"),
        quality="depends")] = 0.0
    num_virtual_tokens: Annotated[int, Field(gt=0), Text(
        "prefix_tuning, prompt_tuning, p_tuning: how many virtual tokens stand before the text.",
        "prefix_tuning、prompt_tuning、p_tuning：文本前有多少个虚拟 token。", level="expert",
        higher=("more can be learned; every row is longer", "能学的更多；每行更长"),
        lower=("smaller and faster", "更小、更快"),
        memory="up", speed="down", quality="depends",
        advice=(Advice("Beyond 20 prompt tuning gained little.", "超过 20 个之后 prompt tuning 提升不大。",
                       "prompt-tuning"),))] = 20
    prompt_tuning_init_text: Annotated[str | None, Text(
        "prompt_tuning: text whose embeddings the virtual tokens begin with, such as what the task is.",
        "prompt_tuning：虚拟 token 的初始 embedding 取自这段文本，例如任务说明。", level="expert",
        unset=("tokens drawn from the vocabulary", "从词表中随机抽取的 token"), quality="depends")] = None
    prefix_projection: Annotated[bool, Text(
        "prefix_tuning: a small network makes the prefix. It is not saved, so such an adapter cannot be trained on.",
        "prefix_tuning：由一个小网络生成前缀。该网络不保存，因此这样的适配器无法继续训练。", level="expert",
        higher=("learns more steadily; many more weights train", "学得更稳；训练的权重多得多"),
        lower=("the prefix itself is trained", "直接训练前缀"), memory="up", quality="depends",
        advice=(Advice("Its authors found training the prefix directly unstable.", "作者发现直接训练前缀不稳定。",
                       "prefix-tuning"),))] = False
    encoder_hidden_size: Annotated[int | None, Field(gt=0), Text(
        "p_tuning, and prefix_tuning with prefix_projection: width of the small network.",
        "p_tuning，以及带 prefix_projection 的 prefix_tuning：小网络的宽度。", level="expert",
        unset=("as wide as the model", "与模型同宽"),
        higher=("more can be learned; more memory", "能学的更多；显存更多"),
        lower=("smaller", "更小"), memory="up", quality="depends")] = None
    bottleneck_size: Annotated[int, Field(gt=0), Text(
        "bottleneck: width of the small layers.", "bottleneck：小网络的宽度。", level="expert",
        higher=("more can be learned; more memory, slower", "能学的更多；显存更多、更慢"),
        lower=("smaller and faster", "更小、更快"), memory="up", speed="down", quality="depends",
        advice=(Advice("Its authors tried 8, 64 and 256 on GLUE.", "作者在 GLUE 上试了 8、64 和 256。",
                       "houlsby"),))] = 64
    bottleneck_target: Annotated[Names, Text(
        "bottleneck: behind which modules of a layer a small layer is put. attention,mlp is Houlsby's placement, mlp "
        "alone Pfeiffer's.",
        "bottleneck：在每层的哪些模块之后加小网络。attention,mlp 是 Houlsby 的放法，只写 mlp 是 Pfeiffer 的放法。",
        level="expert", memory="up", speed="down", quality="depends",
        advice=(Advice("mlp alone is about as good, at half the size.", "只放在 mlp 之后效果相近，大小减半。",
                       "adapterfusion"),))] = ("attention", "mlp")

    freeze_trainable_layers: Annotated[int, Text(
        "freeze: train the last n layers; a negative n trains the first ones. With use_llama_pro: how many were added.",
        "freeze：训练最后 n 层；负数表示最前面的 n 层。use_llama_pro 时是扩展的层数。",
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
        "Train only the blocks that `truetune expand` added to the model (LLaMA Pro): freeze trains them whole, lora "
        "puts its matrices on them. freeze_trainable_layers says how many were added.",
        "只训练用 `truetune expand` 扩展出来的层（LLaMA Pro）：freeze 训练整层，lora 只在这些层上加矩阵。"
        "freeze_trainable_layers 填扩展的层数。", level="expert",
        higher=("what the model knew stays in its own blocks", "原有能力保留在原来的层里"),
        lower=("the layers that are there are trained", "训练已有的层"), quality="depends",
        advice=(Advice("For continued pre-training on a new domain, by its authors.", "作者用于在新领域上继续预训练。",
                       "llama-pro"),))] = False
    num_expand: Annotated[int, Field(gt=0), Text(
        "truetune expand: how many blocks are added, evenly through the model. It has to divide the number of layers.",
        "truetune expand：均匀插入多少个新块，必须能整除层数。", level="expert",
        higher=("more can be learned beside what is known; a larger, slower model", "能学的更多；模型更大、更慢"),
        lower=("smaller", "更小"), memory="up", speed="down", quality="depends",
        advice=(Advice("8 on the 32 layers of LLaMA2-7B.", "LLaMA2-7B 的 32 层用了 8 个。", "llama-pro"),),
        free_on_resume=True)] = 8
