"""Options: which optimizer, and its settings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Text

OptimizerName = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor", "adamw_anyprecision",
    "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad", "adamw_bnb_8bit", "adamw_8bit",
    "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit",
    "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw", "schedule_free_radam",
    "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw", "apollo_adamw_layerwise", "stable_adamw",
]
"""Every word that transformers 5 takes for `optim`."""

_RATIO = ("a setting of badam_mode: ratio, which is not offered", "它是 badam_mode: ratio 的附属设置，而后者不支持")


class OptimizerOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Optimizer", "优化器")

    optim: Annotated[OptimizerName, Text(
        "The optimizer, in transformers' words. adamw_torch is AdamW, with 8 bytes of state a trained weight; "
        "adamw_torch_fused is the same in one GPU kernel. _8bit and _4bit hold the state in fewer bits (2 bytes, and "
        "1), paged_ lets it spill into CPU memory, lion and rmsprop hold half as much, adafactor next to nothing, "
        "galore_ and apollo_ a low-rank picture of it. sgd, lomo and adalomo hold none; lomo, adalomo and _layerwise "
        "step each weight within the backward pass. schedule_free_ averages weights in place of a schedule.",
        "优化器，名称同 transformers。adamw_torch 即 AdamW，每个可训练权重占 8 字节状态；adamw_torch_fused 相同，"
        "但在 GPU 上用一个融合内核。_8bit 和 _4bit 用更少的位保存状态（2 字节、1 字节），paged_ 可把状态换到内存，"
        "lion 和 rmsprop 的状态减半，adafactor 几乎没有，galore_ 和 apollo_ 只保存低秩投影。sgd、lomo、adalomo "
        "没有状态；lomo、adalomo 和 _layerwise 在反向传播中逐个更新权重。schedule_free_ 用权重平均代替学习率调度。",
        memory="depends", speed="depends", quality="depends",
        advice=(
            Advice("The fused one is usually the fastest on a GPU.", "在 GPU 上融合版通常最快。", "pytorch-adamw"),
            Advice("8-bit states gave the same results as 32-bit ones from fine-tuning to pre-training.",
                   "从微调到预训练，8 位状态的结果都与 32 位相同。", "adam-8bit"),
        ))] = "adamw_torch"
    adam_beta1: Annotated[float, Field(ge=0, lt=1), Text(
        "How much of the gradients' running mean AdamW keeps at each step.",
        "AdamW 每步保留多少梯度的滑动均值（一阶矩）。",
        level="expert", quality="depends",
        higher=("smoother steps that turn later", "步伐更平滑，转向更慢"),
        lower=("each batch is followed more closely, noise too", "更紧跟每个批次，噪声也更大"),
        advice=(Advice("0.9 is what Adam's authors propose.", "0.9 是 Adam 作者的建议值。", "adam"),))] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1), Text(
        "How much of the running mean of squared gradients AdamW keeps; it sets the size of each weight's step.",
        "AdamW 每步保留多少梯度平方的滑动均值（二阶矩），它决定每个权重的步长。",
        level="expert", quality="depends",
        higher=("steadier step sizes, slow to notice that gradients have grown", "步长更稳，对梯度变大反应更慢"),
        lower=("adapts sooner after a spike; noisier step sizes", "尖峰之后适应更快；步长噪声更大"),
        advice=(Advice("0.95 in Qwen's fine-tuning scripts.", "Qwen 的微调脚本用 0.95。", "qwen"),))] = 0.999
    adam_epsilon: Annotated[float, Field(gt=0), Text(
        "Added to what AdamW divides by, so that it never divides by 0.",
        "加在 AdamW 的分母上，防止除以 0。",
        level="expert", quality="depends",
        higher=("weights with tiny gradients move less", "梯度很小的权重移动更少"),
        lower=("weights with tiny gradients move as far as the others", "梯度很小的权重与其他权重移动得一样远"),
        advice=(Advice("1e-8 is what Adam's authors propose.", "1e-8 是 Adam 作者的建议值。", "adam"),))] = 1e-8
    optim_args: Annotated[str | None, Text(
        "Settings of the optimizer that are no options of their own, as name=value with commas: momentum=0.9, "
        "nesterov=true. What it does not take is refused.",
        "优化器自己的、没有单独选项的参数，写作 名字=值，用逗号隔开：momentum=0.9, nesterov=true。"
        "不认识的参数会被拒绝。",
        level="expert", quality="depends", unset=("their defaults", "各自的默认值"))] = None
    optim_target_modules: Annotated[Names, Text(
        "Modules whose gradients galore_ and apollo_ optimizers work on, by a part of their name, such as attn,mlp.",
        "galore_ 和 apollo_ 优化器作用于哪些模块，按名字的一部分匹配，如 attn,mlp。",
        level="expert", memory="down", quality="depends",
        unset=("every linear layer inside the model's layers", "各层内的所有线性层"))] = ()
    optimizer_in_backward: Annotated[bool, Text(
        "Step each weight as soon as its gradient is there, within the backward pass, and drop the gradient.",
        "在反向传播过程中，每个权重一得到梯度就立即更新，并丢弃该梯度。",
        level="expert", memory="down", speed="depends",
        higher=(
            "gradients of the whole model are never held at once; a step is one batch, and gradients are not clipped",
            "不必同时保存整个模型的梯度；每步只能是一个批次，也不能裁剪梯度"),
        lower=("gradients can be added up over batches, and clipped", "可以累积多个批次的梯度，也可以裁剪"),
        advice=(
            Advice("LOMO's authors trained 65B weights on eight GPUs of 24 GB this way, with plain SGD.",
                   "LOMO 的作者用这种方式配合普通 SGD，在 8 块 24 GB 的 GPU 上训练了 65B 模型。", "lomo"),
        ))] = False
    l1_lambda: Annotated[float, Field(ge=0), Text(
        "L1 penalty: this x the sum of the trained weights' sizes is added to the mean loss.",
        "L1 正则：把它乘以可训练权重绝对值之和，加到平均 loss 上。",
        level="expert", quality="depends",
        higher=("more weights are drawn to 0 and stay there", "更多权重被拉到 0 并停在那里"),
        lower=("weights go where the data takes them", "权重随数据而变"))] = 0.0
    l2_lambda: Annotated[float, Field(ge=0), Text(
        "L2 penalty: this x the sum of the trained weights' squares is added to the mean loss. AdamW divides its "
        "gradient by the same root as the others; weight_decay pulls without that.",
        "L2 正则：把它乘以可训练权重平方和，加到平均 loss 上。AdamW 会像其他梯度一样对它做归一化；"
        "weight_decay 则直接作用，不经过归一化。",
        level="expert", quality="depends",
        higher=("weights stay small", "权重更小"),
        lower=("weights go where the data takes them", "权重随数据而变"),
        advice=(
            Advice("With Adam, decay apart from the gradient generalises better than an L2 penalty: take weight_decay.",
                   "用 Adam 时，与梯度解耦的衰减比 L2 正则泛化更好：请用 weight_decay。", "adamw"),
        ))] = 0.0
    adafactor: Annotated[bool, Text(
        "Use Adafactor, which keeps rows and columns of the squared gradients instead of all of them. The old way to "
        "write optim: adafactor.",
        "使用 Adafactor：只保存梯度平方的行与列，而不是全部。这是 optim: adafactor 的旧写法。",
        level="expert", memory="down", speed="down", quality="depends",
        higher=("much less optimizer memory", "优化器显存大减"),
        lower=("what optim says", "由 optim 决定"),
        advice=(
            Advice("Made for large matrices: memory grows with their edges, not their area.",
                   "适合大矩阵：显存随边长而不是面积增长。", "adafactor"),
        ))] = False
    use_adam_mini: Annotated[bool, Text(
        "Adam-mini: one step size for a whole block of weights (a head, a row) instead of one for each.",
        "Adam-mini：一整块权重（一个头、一行）共用一个步长，而不是每个权重一个。",
        level="expert", memory="down", speed="depends",
        higher=("about half the optimizer's memory", "优化器显存约减半"),
        lower=("AdamW as it is", "普通 AdamW"),
        advice=(
            Advice("On a par with AdamW at half the optimizer memory in its paper.",
                   "其论文中以一半的优化器显存达到与 AdamW 相当的效果。", "adam-mini"),
        ))] = False
    use_muon: Annotated[bool, Text(
        "Muon for the matrices inside the layers, AdamW for embeddings, head and vectors: each step is made "
        "orthogonal, so that all directions move alike.",
        "层内的矩阵用 Muon，嵌入、输出头和向量用 AdamW：每步更新做正交化，让各个方向移动得一样多。",
        level="expert", memory="down", speed="down", quality="depends",
        higher=("one state per weight instead of two; a little more computing", "每个权重一份状态而不是两份；计算略多"),
        lower=("AdamW for everything", "全部用 AdamW"),
        advice=(
            Advice("It shines in pre-training; fine-tuning a model that AdamW pre-trained gained nothing clear from "
                   "it.",
                   "它擅长预训练；用它微调由 AdamW 预训练的模型没有明显好处。", "muon-scalable"),
            Advice("For matrices only: embeddings, head and vectors are left to AdamW.",
                   "只用于矩阵：嵌入、输出头和向量仍用 AdamW。", "muon"),
        ))] = False
    use_galore: Annotated[bool, Text(
        "GaLore: the optimizer works on a low-rank picture of each gradient, so that all weights train with little "
        "optimizer memory. For full fine-tuning.",
        "GaLore：优化器只处理每个梯度的低秩投影，用很少的优化器显存训练全部权重。用于全参数微调。",
        level="expert", memory="down", speed="down", quality="depends",
        higher=(
            "optimizer memory shrinks to a fraction; computing projections takes time",
            "优化器显存降到几分之一；计算投影要花时间"),
        lower=("AdamW on whole gradients", "对完整梯度用 AdamW"),
        advice=(
            Advice("Up to 65 % less optimizer memory in pre-training, at nearly the same loss.",
                   "预训练中优化器显存最多减少 65%，loss 几乎不变。", "galore"),
        ))] = False
    galore_target: Annotated[Names, Text(
        "Modules that GaLore works on, by a part of their name. all: every linear layer but the head. The rest is left "
        "to the optimizer that optim names.",
        "GaLore 作用于哪些模块，按名字的一部分匹配。all：除输出头外的所有线性层。其余由 optim 所指的优化器更新。",
        level="expert", memory="down", quality="depends")] = ("all",)
    galore_rank: Annotated[int, Field(gt=0), Text(
        "Rank of the picture of each gradient.",
        "梯度投影的秩。",
        level="expert", memory="up", speed="down", quality="up",
        higher=("closer to AdamW, more memory", "更接近 AdamW，显存更多"),
        lower=("less memory, more of the gradient is lost", "显存更少，丢失的梯度更多"),
        advice=(
            Advice("The authors use 128 to 1024 in pre-training and 4 in their fine-tuning example.",
                   "作者预训练用 128 到 1024，微调示例用 4。", "galore-code"),
        ))] = 16
    galore_update_interval: Annotated[int, Field(gt=0), Text(
        "Steps between two computations of the projection.",
        "每隔多少步重新计算投影。",
        level="expert", speed="up", quality="depends",
        higher=("faster; the projection grows stale", "更快；投影会过时"),
        lower=("a fresh projection, at the price of an SVD each time", "投影更新鲜，但每次要做一次 SVD"),
        advice=(Advice("200 to 500 in the authors' scripts.", "作者的脚本用 200 到 500。", "galore-code"),))] = 200
    galore_scale: Annotated[float, Field(gt=0), Text(
        "The projected step is multiplied by this: it acts like a learning rate.",
        "投影后的更新乘以它，作用类似学习率。",
        level="expert", quality="depends",
        higher=("larger steps", "步子更大"),
        lower=("smaller steps", "步子更小"),
        advice=(
            Advice("0.25 in the authors' pre-training, 4 in their fine-tuning example.",
                   "作者预训练用 0.25，微调示例用 4。", "galore-code"),
        ))] = 2.0
    galore_proj_type: Annotated[Literal["std", "reverse_std", "right", "left", "full"], Text(
        "Which side of a gradient is projected. std: the shorter one; reverse_std: the longer; left, right: always "
        "that one; full: both.",
        "投影梯度的哪一侧。std：较短的一侧；reverse_std：较长的；left、right：固定一侧；full：两侧。",
        level="expert", memory="depends", quality="depends")] = "std"
    galore_layerwise: Annotated[bool, Text(
        "Step each layer as soon as its gradient is there, and drop the gradient. Needs gradient_accumulation_steps 1 "
        "and one process.",
        "每层一得到梯度就更新并丢弃梯度。需要 gradient_accumulation_steps 为 1 且单进程。",
        level="expert", memory="down", speed="depends",
        higher=("gradients of the whole model are never held at once", "不必同时保存全部梯度"),
        lower=("accumulation and several GPUs are possible", "可以累积梯度、使用多 GPU"))] = False
    use_apollo: Annotated[bool, Text(
        "APOLLO: step sizes are taken from a small random picture of each gradient, so that all weights train with "
        "little optimizer memory. For full fine-tuning.",
        "APOLLO：步长由梯度的小型随机投影得出，用很少的优化器显存训练全部权重。用于全参数微调。",
        level="expert", memory="down", speed="depends", quality="depends",
        higher=("optimizer memory near that of plain SGD", "优化器显存接近普通 SGD"),
        lower=("AdamW on whole gradients", "对完整梯度用 AdamW"),
        advice=(
            Advice("On a par with AdamW or better in its paper, without GaLore's SVD.",
                   "其论文中与 AdamW 相当或更好，且没有 GaLore 的 SVD。", "apollo"),
        ))] = False
    apollo_target: Annotated[Names, Text(
        "Modules that APOLLO works on, by a part of their name. all: every linear layer but the head. The rest is left "
        "to AdamW.",
        "APOLLO 作用于哪些模块，按名字的一部分匹配。all：除输出头外的所有线性层。其余由 AdamW 更新。",
        level="expert", memory="down", quality="depends")] = ("all",)
    apollo_rank: Annotated[int, Field(gt=0), Text(
        "Rank of the picture of each gradient.",
        "梯度投影的秩。",
        level="expert", memory="up", quality="up",
        higher=("better step sizes, more memory", "步长更准，显存更多"),
        lower=(
            "less memory; 1 still works with apollo_scale_type tensor",
            "显存更少；配合 apollo_scale_type tensor，1 也可用"),
        advice=(
            Advice("APOLLO-Mini: rank 1, apollo_scale_type tensor, apollo_scale 128.",
                   "APOLLO-Mini：秩 1，apollo_scale_type tensor，apollo_scale 128。", "apollo-code"),
        ))] = 16
    apollo_update_interval: Annotated[int, Field(gt=0), Text(
        "Steps between two draws of the projection.",
        "每隔多少步更换投影。",
        level="expert", speed="up", quality="depends",
        higher=("the same directions for longer", "同样的方向用得更久"),
        lower=("new directions more often", "更常更换方向"),
        advice=(Advice("200 in the authors' scripts.", "作者的脚本用 200。", "apollo-code"),))] = 200
    apollo_scale: Annotated[float, Field(gt=0), Text(
        "Each step is multiplied by this; lower ranks need more.",
        "每步更新乘以它；秩越低需要越大。",
        level="expert", quality="depends",
        higher=("larger steps", "步子更大"),
        lower=("smaller steps", "步子更小"))] = 32.0
    apollo_proj: Annotated[Literal["svd", "random"], Text(
        "How a gradient is projected. random costs nothing; svd picks the strongest directions and is slow.",
        "梯度如何投影。random 几乎没有开销；svd 选最强的方向，较慢。",
        level="expert", speed="depends", quality="depends")] = "random"
    apollo_proj_type: Annotated[Literal["std", "right", "left"], Text(
        "Which side of a gradient is projected. std: the shorter one; left, right: always that one.",
        "投影梯度的哪一侧。std：较短的一侧；left、right：固定一侧。",
        level="expert", memory="depends", quality="depends")] = "std"
    apollo_scale_type: Annotated[Literal["channel", "tensor"], Text(
        "What shares a step size. channel: the weights of one channel; tensor: all weights of a matrix (APOLLO-Mini).",
        "哪些权重共用一个步长。channel：同一通道；tensor：整个矩阵（APOLLO-Mini）。",
        level="expert", memory="depends", quality="depends")] = "channel"
    apollo_layerwise: Annotated[bool, Text(
        "Step each layer as soon as its gradient is there, and drop the gradient. Needs gradient_accumulation_steps 1 "
        "and one process.",
        "每层一得到梯度就更新并丢弃梯度。需要 gradient_accumulation_steps 为 1 且单进程。",
        level="expert", memory="down", speed="depends",
        higher=("gradients of the whole model are never held at once", "不必同时保存全部梯度"),
        lower=("accumulation and several GPUs are possible", "可以累积梯度、使用多 GPU"))] = False
    apollo_scale_front: Annotated[bool, Text(
        "Limit how fast the gradient's length may grow before it is scaled rather than after.",
        "在缩放之前（而不是之后）限制梯度范数的增长。",
        level="expert", quality="depends",
        higher=("limited before scaling", "缩放之前限制"),
        lower=("limited after scaling", "缩放之后限制"))] = False
    use_badam: Annotated[bool, Text(
        "BAdam: only one layer of the model trains at a time, in turn, so that optimizer and gradients are those of "
        "one layer; embeddings and head stay as they are. For full fine-tuning.",
        "BAdam：轮流训练模型的各层，每次只有一层的优化器状态和梯度；嵌入和输出头保持不变。用于全参数微调。",
        level="expert", memory="down", speed="up", quality="depends",
        higher=("memory of one block; each block sees only part of the data", "只占一块的显存；每块只见到部分数据"),
        lower=("all weights train at every step", "每步训练全部权重"),
        advice=(
            Advice("Llama 3 8B trained on one 24 GB GPU in its paper.",
                   "其论文用一块 24 GB 的 GPU 训练了 Llama 3 8B。", "badam"),
        ))] = False
    badam_mode: Annotated[Literal["layer", "ratio"], Text(
        "What a block is. layer: one layer of the model; ratio, a share of each matrix's entries, is not offered.",
        "一块是什么。layer：模型的一层；ratio（每个矩阵中一定比例的元素）不支持。",
        level="expert", memory="depends", quality="depends")] = "layer"
    badam_start_block: Annotated[int | None, Field(ge=0), Text(
        "The layer to begin with, from 0.",
        "从哪一层开始，从 0 数起。",
        level="expert", unset=("the first one in the order", "按顺序的第一块"),
        higher=("later blocks first", "先训练靠后的块"),
        lower=("earlier blocks first", "先训练靠前的块"))] = None
    badam_switch_mode: Annotated[Literal["ascending", "descending", "random", "fixed"], Text(
        "The order of the blocks: from the input up (ascending), from the output down (descending), at random "
        "(random), or always the same one (fixed).",
        "块的顺序：从输入到输出（ascending）、从输出到输入（descending）、随机（random）、固定一块（fixed）。",
        level="expert", quality="depends")] = "ascending"
    badam_switch_interval: Annotated[int, Field(ge=-1), Text(
        "Optimizer steps on a block before the next one; -1: never change.",
        "一块训练多少步后换下一块；-1 表示不换。",
        level="expert", quality="depends",
        higher=("each block is trained further, and fewer rounds are made", "每块训练更充分，轮数更少"),
        lower=("more rounds, with less done in each", "轮数更多，每轮做得更少"))] = 50
    badam_update_ratio: Annotated[float, Field(gt=0, le=1), Text(
        "ratio mode: the share of entries that train.",
        "ratio 模式：参与训练的元素比例。",
        level="expert", memory="up", quality="up",
        higher=("more weights train, more memory", "训练的权重更多，显存更多"),
        lower=("less memory", "显存更少"),
        no_effect=_RATIO, free_on_resume=True)] = 0.05
    badam_mask_mode: Annotated[Literal["adjacent", "scatter"], Text(
        "ratio mode: entries next to each other (adjacent), or anywhere (scatter).",
        "ratio 模式：选相邻的元素（adjacent），或分散的元素（scatter）。",
        level="expert", speed="depends", quality="depends", no_effect=_RATIO, free_on_resume=True)] = "adjacent"
    badam_verbose: Annotated[int, Field(ge=0, le=2), Text(
        "How much BAdam tells: 0 nothing, 1 each change of block, 2 the weights' names too.",
        "BAdam 输出多少信息：0 不输出，1 换块时输出，2 还输出权重名。",
        level="expert",
        higher=("more is printed", "输出更多"),
        lower=("less is printed", "输出更少"),
        no_effect=("which layer trains follows from the step, badam_switch_mode and badam_switch_interval",
                   "训练哪一层由步数、badam_switch_mode 和 badam_switch_interval 决定"), free_on_resume=True)] = 0
