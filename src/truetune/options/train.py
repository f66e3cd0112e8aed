"""Options: how long, how fast and how exactly is trained; what is written when."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Gt
from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Table, Text

Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "reduce_lr_on_plateau", "warmup_stable_decay", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "greedy",
]

_LOSS_ALONE = ("an evaluation sums the loss over its rows and keeps no predictions",
               "评估只对各行的损失求和，不保留预测")
_OLD_FLOAT16 = ("float16 is computed by PyTorch itself, with loss scaling", "float16 由 PyTorch 直接计算并缩放损失")
_LAST_WEIGHTS = ("a run ends with its last weights; trainer_log.jsonl tells which checkpoint had the lowest loss",
                 "运行以最后的权重结束；哪个检查点损失最低见 trainer_log.jsonl")


class TrainOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Training", "训练")

    stage: Annotated[Literal["pt", "sft", "rm", "dpo", "kto", "ppo", "grpo", "distill"], Text(
        "What is trained for. pt: plain text. sft: answer as the data answers. dpo: prefer the chosen answer of a "
        "pair. kto: answers judged good or bad. rm: a model that scores answers. ppo and grpo: answers that the model "
        "writes itself are scored by a reward model or a function. distill: say what a teacher model says.",
        "训练目标。pt：纯文本预训练。sft：像数据那样回答。dpo：成对回答中更偏向 chosen。kto：带好坏标注的回答。rm：训练"
        "给回答打分的奖励模型。ppo、grpo：模型自己写回答，由奖励模型或函数打分。distill：学习教师模型的输出。",
        level="basic", quality="depends")] = "sft"
    do_train: Annotated[bool, Text(
        "Train.", "进行训练。",
        higher=("the run trains", "进行训练"),
        lower=("with do_eval the model is only evaluated", "配合 do_eval 只做评估"), free_on_resume=True)] = True
    do_eval: Annotated[bool, Text(
        "Evaluate at the end.", "结束时评估。",
        higher=("one more evaluation, if the last step had none", "若最后一步没有评估则补一次"),
        lower=("held-out rows are evaluated at the end all the same, if there are any", "有留出数据时结束时仍会评估"),
        free_on_resume=True)] = False
    do_predict: Annotated[bool, Text(
        "At the end, let the model answer the evaluation data (sft, with predict_with_generate), or score its answers "
        "(rm). Written to generated_predictions.jsonl.",
        "结束时让模型回答评估数据（sft，配合 predict_with_generate），或给其中的回答打分（rm）。写入 "
        "generated_predictions.jsonl。", level="expert",
        higher=("answers or scores to look at; writing answers takes its time", "有回答或分数可看；生成回答需要时间"),
        lower=("the loss alone is measured", "只测损失"), free_on_resume=True)] = False
    output_dir: Annotated[str | None, Text(
        "The run folder: everything a run writes goes here.", "运行文件夹：一次训练写的所有东西都在这里。",
        level="basic", unset=("an error in `truetune train`", "`truetune train` 会报错"), free_on_resume=True)] = None
    overwrite_output_dir: Annotated[bool, Text(
        "Delete the run that output_dir holds and start afresh.", "删除 output_dir 里已有的运行，重新开始。",
        higher=("what was trained there is lost", "那里训练的结果会丢失"),
        lower=("an unfinished run goes on, any other is refused", "未完成的运行继续，其他的拒绝覆盖"),
        free_on_resume=True)] = False
    resume_from_checkpoint: Annotated[str | None, Text(
        "true: go on from the newest checkpoint in output_dir. Or the folder of a checkpoint.",
        "true：从 output_dir 里最新的检查点继续；也可以写某个检查点的文件夹。",
        unset=("an unfinished run of the same options in output_dir goes on by itself",
               "output_dir 里选项相同的未完成运行会自动继续"), free_on_resume=True)] = None

    num_train_epochs: Annotated[float, Field(gt=0), Text(
        "How often all rows are seen.", "全部数据看几遍。", level="basic",
        higher=("learned better, then by heart: the model repeats rows and gets worse at all else",
                "先是学得更好，之后变成死记：只会背数据，其他能力变差"),
        lower=("may learn too little: a handful of steps hardly changes a model", "可能学得不够：寥寥几步模型几乎不变"),
        speed="down", quality="depends",
        advice=(Advice("1 to 3.", "1 到 3。", "unsloth-guide"),
                Advice("Qwen's scripts: 5.", "Qwen 官方脚本：5。", "qwen"),
                Advice("Very few rows want more epochs, and early stopping: with 60 rows the held-out loss was best "
                       "at epoch 7 (0.40), at 3 it was 0.67, at 14 0.75.",
                       "数据很少时需要更多 epoch 并配合早停：60 行的实验里评估损失在第 7 个 epoch 最好（0.40），第 3 "
                       "个是 0.67，第 14 个是 0.75。", "sixty-rows")))] = 3.0
    max_steps: Annotated[int, Field(ge=-1), Text(
        "Stop after so many optimizer steps; -1: num_train_epochs decides.",
        "优化器走多少步后停止；-1 表示由 num_train_epochs 决定。",
        higher=("a longer run", "训练更久"),
        lower=("a shorter run; -1 leaves it to num_train_epochs", "训练更短；-1 由 num_train_epochs 决定"),
        speed="down", quality="depends")] = -1
    per_device_train_batch_size: Annotated[Annotated[int, Gt(0)] | Literal["auto"], Text(
        "Rows computed at once. A step learns from this x gradient_accumulation_steps. auto: the largest that fits "
        "into memory, while the rows of a step stay the same.",
        "一次计算的行数。每步学习的行数 = 它 x gradient_accumulation_steps。auto：取内存放得下的最大值，"
        "每步的总行数不变。", level="basic", also={"per_gpu_train_batch_size": None},
        higher=("faster where the device has room; more memory", "设备有余量时更快；更占显存"),
        lower=("less memory; with more gradient_accumulation_steps the same is learned",
               "更省显存；相应增大 gradient_accumulation_steps 则学到的相同"), memory="up", speed="up",
        quality="depends",
        advice=(Advice("LoRA wants small steps: below 32 rows in all; larger ones cost quality, and a higher rank "
                       "does not win it back.",
                       "LoRA 适合小批次：每步合计不超过 32 行；批次大了效果变差，提高秩也补不回来。",
                       "lora-without-regret"),
                Advice("Full fine-tuning: 128 rows in all.", "全量微调：每步合计 128 行。", "tulu3"),
                Advice("For full fine-tuning of 3B to 7B models, larger batches with a lower learning rate were "
                       "better.", "对 3B 到 7B 的全量微调，更大的批次配更低的学习率效果更好。", "small-llm-sft")))] = 8
    gradient_accumulation_steps: Annotated[int, Field(gt=0), Text(
        "Batches whose gradients are added before a step: a larger batch without its memory.",
        "累加多少个批次的梯度再走一步：不增加显存的大批次。", level="basic",
        higher=("each step learns from more rows; fewer steps an epoch", "每步学习的行更多，每个 epoch 的步数更少"),
        lower=("more, smaller steps", "步数更多、每步更小"), quality="depends",
        advice=(Advice("Batch size x this is what counts. QLoRA's authors: 16 rows in all.",
                       "要紧的是它与批次大小的乘积。QLoRA 作者：合计 16 行。", "qlora"),))] = 1
    auto_find_batch_size: Annotated[bool, Text(
        "Halve the batch size when memory runs out, and begin again.", "显存不足时把批次减半并重来。", level="expert",
        not_offered=("per_device_train_batch_size: auto finds the largest that fits before the first step",
                     "per_device_train_batch_size: auto 会在第一步之前找到放得下的最大值"),
        free_on_resume=True)] = False
    learning_rate: Annotated[float, Field(gt=0), Text(
        "Size of the steps: the one number that decides most.", "步长：影响最大的一个数。", level="basic",
        higher=("learns faster, forgets more of what it knew, then diverges", "学得更快，也忘得更多，再高会发散"),
        lower=("learns slower; too low and the model does not change", "学得更慢；太低则模型几乎不变"),
        quality="depends",
        advice=(Advice("LoRA, the best in a sweep: 1e-3 for Llama 3.2 1B and 3B, Qwen3 4B and 8B; 3e-4 for Llama 3.1 "
                       "8B and 70B, Qwen3 32B. Full fine-tuning: a tenth.",
                       "LoRA，扫描实验的最优值：Llama 3.2 1B/3B、Qwen3 4B/8B 为 1e-3；Llama 3.1 8B/70B、Qwen3 32B 为 "
                       "3e-4。全量微调取十分之一。", "tinker-lora"),
                Advice("QLoRA's authors: 2e-4 at 7B, 1e-4 at 65B (alpha / rank 0.25).",
                       "QLoRA 作者：7B 用 2e-4，65B 用 1e-4（alpha / rank 为 0.25）。", "qlora"),
                Advice("LLaMA-Factory's examples: LoRA 1e-4 (alpha / rank 2), full 1e-5.",
                       "LLaMA-Factory 示例：LoRA 1e-4（alpha / rank 为 2），全量 1e-5。", "llama-factory"),
                Advice("Full fine-tuning: 5e-6 at 8B, 2e-6 at 70B.", "全量微调：8B 用 5e-6，70B 用 2e-6。", "tulu3"),
                Advice("Nine LoRA variants came within 1 to 2 % of each other once it was tuned: spend your effort "
                       "here.", "学习率调好后，九种 LoRA 变体的差距只有 1% 到 2%：精力应花在这里。",
                       "rate-matters")))] = 5e-5
    lr_scheduler_type: Annotated[Schedule, Text(
        "How the learning rate moves after warmup. linear and cosine fall to 0 (polynomial nearly), "
        "cosine_with_restarts several times; constant stays (without warmup), constant_with_warmup stays after it; "
        "inverse_sqrt falls ever slower; warmup_stable_decay stays, then falls; reduce_lr_on_plateau falls when the "
        "evaluation loss does not; cosine_with_min_lr and cosine_warmup_with_min_lr end at min_lr of "
        "lr_scheduler_kwargs. greedy is not done.",
        "预热之后学习率如何变化。linear、cosine 降到 0（polynomial 接近 0），cosine_with_restarts 重复多次；constant "
        "不变且没有预热，constant_with_warmup 预热后不变；inverse_sqrt 越降越慢；warmup_stable_decay 先保持再下降；"
        "reduce_lr_on_plateau 在评估损失不降时下降；cosine_with_min_lr 和 cosine_warmup_with_min_lr 降到 "
        "lr_scheduler_kwargs 的 min_lr。greedy 不支持。", quality="depends",
        advice=(Advice("linear.", "linear。", "tulu3"), Advice("constant.", "constant。", "qlora"),
                Advice("cosine.", "cosine。", "qwen")))] = "linear"
    lr_scheduler_kwargs: Annotated[Table, Text(
        "Settings of the schedule, as YAML or JSON, such as {\"num_cycles\": 2}.",
        "调度器的参数，YAML 或 JSON，如 {\"num_cycles\": 2}。", level="expert",
        unset=("what the schedule takes by itself", "用调度器自己的默认值"),
        quality="depends")] = Field(default_factory=dict)
    warmup_steps: Annotated[float, Field(ge=0), Text(
        "Steps over which the learning rate rises from 0; below 1: a share of all steps.",
        "学习率从 0 升起所用的步数；小于 1 时为总步数的比例。",
        higher=("a gentler start, fewer steps at full rate", "起步更稳，全速的步数更少"),
        lower=("full rate from the start: the first steps may throw the model off",
               "一开始就全速，最初几步可能把模型带偏"), quality="depends",
        advice=(Advice("0.03 of the steps.", "总步数的 0.03。", "qlora"),
                Advice("It could be left out without loss when 3B to 7B models were trained whole.",
                       "全量训练 3B 到 7B 模型时，不用预热也没有损失。", "small-llm-sft")))] = 0
    warmup_ratio: Annotated[float, Field(ge=0, le=1), Text(
        "The same as a share of all steps; warmup_steps wins.", "同上，按总步数的比例；以 warmup_steps 优先。",
        higher=("a gentler start, fewer steps at full rate", "起步更稳，全速的步数更少"),
        lower=("full rate sooner", "更早达到全速"), quality="depends",
        advice=(Advice("0.03.", "0.03。", "qlora"), Advice("0.01.", "0.01。", "qwen"),
                Advice("0.1 in most examples.", "示例大多用 0.1。", "llama-factory")))] = 0.0
    weight_decay: Annotated[float, Field(ge=0), Text(
        "Pull of the weights towards 0 (AdamW, decoupled), not on biases and norms.",
        "把权重拉向 0 的力度（AdamW 解耦式），不作用于偏置和归一化层。",
        higher=("weights stay small; too high and the model unlearns", "权重更小；过高会让模型忘掉所学"),
        lower=("weights go where the data takes them", "权重随数据而变"), quality="depends",
        advice=(Advice("0.", "0。", "qlora"), Advice("0.1.", "0.1。", "qwen"),
                Advice("Decoupled: a step shrinks each weight by learning_rate x this.",
                       "解耦：每步把权重缩小 learning_rate 乘以它。", "adamw")))] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0), Text(
        "Longer gradients are cut to this length; 0: never.", "梯度超过这个长度就裁剪；0 表示不裁剪。",
        higher=("a few odd rows can throw the model off", "少数异常行可能把模型带偏"),
        lower=("every step is cut: training gets slower and steadier; 0 cuts none",
               "每步都被裁剪，训练更慢更稳；0 则从不裁剪"), quality="depends",
        advice=(Advice("0.3 for QLoRA.", "QLoRA 用 0.3。", "qlora"),))] = 1.0
    neftune_noise_alpha: Annotated[float | None, Field(gt=0), Text(
        "Add noise to the embeddings while training (NEFTune): uniform, up to alpha / the root of (the row's tokens x "
        "the embedding's numbers).",
        "训练时给 embedding 加噪声（NEFTune）：均匀分布，上限为 alpha /（该行 token 数 x embedding 维数）的平方根。",
        level="expert", quality="depends",
        higher=("answers get longer and closer to plain speech; too much and the rows are not learned",
                "回答更长、更自然；过大则学不会数据"),
        lower=("rows are learned as they stand", "按原样学习数据"), unset=("no noise", "不加噪声"),
        advice=(Advice("5, 10 or 15 in the paper: answers of 7B models were liked better; what they know did not "
                       "change.", "论文取 5、10 或 15：7B 模型的回答更受欢迎，知识没有变化。", "neftune"),))] = None
    attention_dropout: Annotated[float | None, Field(ge=0, lt=1), Text(
        "Share of attention's weights dropped at random while training.", "训练时随机丢弃的注意力权重比例。",
        level="expert", speed="down", quality="depends",
        higher=("less overfitting, slower learning", "过拟合更少，学得更慢"),
        lower=("learns faster, and small data sooner by heart", "学得更快，数据少时更快变成死记"),
        unset=("as the model's config.json says, which is 0 nearly always", "按模型的 config.json，几乎总是 0"),
        advice=(Advice("Dropout is for training long on little data.", "dropout 用于在少量数据上长时间训练。",
                       "dropout"),))] = None
    label_smoothing_factor: Annotated[float, Field(ge=0, lt=1), Text(
        "Teach a little of every word beside the right one: this share of the label is spread over all (pt and sft).",
        "在正确的词之外也学一点其他词：标签的这一比例平均分给所有词（pt 和 sft）。", level="expert", speed="down",
        higher=("the model is less sure of itself; too much makes it vague", "模型不那么自信；过大则含糊"),
        lower=("0: only the right word counts", "0：只学习正确的词"), quality="depends",
        advice=(Advice("0.1 in the paper that proposed it, for images.", "提出它的论文在图像上用 0.1。",
                       "label-smoothing"),))] = 0.0
    seed: Annotated[int, Field(ge=0), Text(
        "Start of everything random: the order of rows, LoRA's first weights, dropout, what is held out.",
        "一切随机的起点：数据顺序、LoRA 的初始权重、dropout、留出哪些行。",
        higher=("another run, no better and no worse", "换一次随机，无所谓好坏"),
        lower=("another run, no better and no worse", "换一次随机，无所谓好坏"))] = 42
    data_seed: Annotated[int | None, Field(ge=0), Text(
        "The same for the order of the rows alone.", "只决定数据顺序的随机种子。", level="expert",
        higher=("another order", "换一种顺序"), lower=("another order", "换一种顺序"),
        unset=("seed", "同 seed"))] = None
    full_determinism: Annotated[bool, Text(
        "Force kernels that give the same bits every time.", "强制使用每次结果逐位相同的内核。", level="expert",
        not_offered=("runs on the CPU repeat bit for bit anyway; GPU kernels are not forced to",
                     "CPU 上的运行本来就逐位可复现；GPU 内核不作强制"), free_on_resume=True)] = False
    disable_shuffling: Annotated[bool, Text(
        "Take the rows in the order of the file.", "按文件里的顺序取数据。", level="expert",
        also={"train_sampling_strategy": {"random": "false", "sequential": "true", "group_by_length": "false"}},
        higher=("for data whose order is meant; else neighbours that are alike make steps uneven",
                "用于特意排好顺序的数据；否则相邻的相似行会让各步不均"),
        lower=("another order in every epoch", "每个 epoch 换一种顺序"), quality="depends")] = False

    bf16: Annotated[bool | None, Text(
        "Compute in bfloat16 with master weights in float32.", "用 bfloat16 计算，主权重为 float32。", level="basic",
        higher=("half the memory of float32 for what is computed, much faster where the hardware has it",
                "计算部分的内存是 float32 的一半，硬件支持时快得多"),
        lower=("float32: exact, slow, twice the memory", "float32：精确、慢、内存加倍"),
        unset=("with no precision set, the faster of bfloat16 and float32, measured",
               "精度都不填时，实测 bfloat16 和 float32 后取较快的"), memory="down", speed="up",
        advice=(Advice("It has the range of float32, so it needs no loss scaling; on NVIDIA from Ampere on.",
                       "数值范围与 float32 相同，不需要缩放损失；NVIDIA 从 Ampere 起支持。", "bfloat16"),))] = None
    fp16: Annotated[bool | None, Text(
        "Compute in float16 with loss scaling; only on devices that support it.",
        "用 float16 计算并缩放损失；仅限支持的设备。",
        higher=("half the memory; large values overflow, and such steps are skipped",
                "内存减半；大数会溢出，溢出的步会跳过"), lower=("float32, unless bf16 is on", "float32，除非开启 bf16"),
        unset=("off, unless asked for", "关闭"), memory="down", speed="up", quality="depends",
        advice=(Advice("It needs loss scaling and float32 master weights, and has both here. Take it only where there "
                       "is no bfloat16 (V100, T4).",
                       "需要损失缩放和 float32 主权重，这里都有。只在没有 bfloat16 时使用（V100、T4）。",
                       "mixed-precision"),))] = None
    pure_bf16: Annotated[bool, Text(
        "Weights and steps in bfloat16, no master weights.", "权重和更新都用 bfloat16，没有主权重。", level="expert",
        higher=("half the memory of full fine-tuning; updates below 1/256 of a weight are lost",
                "全量微调的内存减半；小于权重 1/256 的更新会丢失"),
        lower=("float32 copies of what is trained", "被训练的权重保留 float32 副本"), memory="down", speed="up",
        quality="down")] = False
    tf32: Annotated[bool | None, Text(
        "Faster, rougher float32 products on NVIDIA GPUs.", "在 NVIDIA GPU 上用更快、更粗的 float32 乘法。",
        level="expert",
        higher=("float32 products much faster, to about 3 digits", "float32 乘法快得多，约 3 位有效数字"),
        lower=("full float32 products", "完整的 float32 乘法"), unset=("off", "关闭"), speed="up")] = None
    gradient_checkpointing: Annotated[bool | None, Text(
        "Compute the layers a second time instead of keeping them.", "重算各层而不保存中间结果。",
        also={"disable_gradient_checkpointing": {"true": "false", "false": "true"}, "activation_checkpointing": None},
        higher=("much less memory, about a third slower, the same result", "显存大减，约慢三分之一，结果相同"),
        lower=("faster, if it fits", "放得下时更快"),
        unset=("only where the largest batch would not fit without, by the prediction that `truetune check` shows",
               "按 `truetune check` 给出的内存预测，只在最大的批次放不下时启用"), memory="down", speed="down",
        advice=(Advice("One more forward pass buys memory that grows with the root of the layers instead of their "
                       "number; a smaller batch is the other way.",
                       "多算一遍前向，换来激活内存只随层数的平方根增长；另一个办法是减小批次。", "checkpointing"),),
        free_on_resume=True)] = None
    gradient_checkpointing_kwargs: Annotated[Table, Text(
        "Settings for it, as PyTorch's checkpoint takes them: use_reentrant, preserve_rng_state, determinism_check.",
        "它的参数，与 PyTorch 的 checkpoint 相同：use_reentrant、preserve_rng_state、determinism_check。",
        level="expert", also={"activation_checkpointing_kwargs": None},
        unset=("use_reentrant_gc alone", "只看 use_reentrant_gc"), free_on_resume=True)] = Field(default_factory=dict)
    use_reentrant_gc: Annotated[bool, Text(
        "Compute layers again in PyTorch's older way (reentrant). The numbers are the same.",
        "用 PyTorch 较旧的方式（reentrant）重算各层，数值相同。", level="expert",
        higher=("the older way, which some hooks and compilers want", "较旧的方式，有些钩子和编译器需要它"),
        lower=("the newer way, which PyTorch recommends; it stops as soon as all is there that is needed",
               "较新的方式，PyTorch 推荐；所需的都算出后即停"), free_on_resume=True)] = False
    activation_offload: Annotated[bool, Text(
        "Keep the inputs of the layers in the CPU's memory until the backward pass computes the layers again. It "
        "switches gradient_checkpointing on. For GPUs.",
        "把各层的输入放到 CPU 内存，反向传播重算各层时再取回。会启用 gradient_checkpointing。用于 GPU。",
        level="expert", also={"use_unsloth_gc": None}, memory="down", speed="down",
        higher=("less GPU memory, more of the CPU's; slower by what the bus takes",
                "GPU 显存更少，CPU 内存更多；慢在总线传输上"),
        lower=("everything stays where it is computed", "都留在计算设备上"),
        advice=(Advice("Worth it where rows are long: computing a layer takes longer than moving its inputs then.",
                       "行长时才值得：此时算一层的时间比搬运其输入更长。", "offload"),), free_on_resume=True)] = False
    torch_empty_cache_steps: Annotated[int | None, Text(
        "Give memory back to the device every so many steps. Unset: never.",
        "每多少步把缓存的显存还给设备。不填则从不。", level="expert",
        no_effect=("PyTorch keeps the memory it has taken and uses it again", "PyTorch 保留已取得的显存并重复使用"),
        free_on_resume=True)] = None
    torch_compile: Annotated[bool, Text(
        "Compile each layer with torch.compile, once for all lengths of batches. It is checked on the first batch.",
        "用 torch.compile 编译各层，一次编译适用于各种批次长度，并用第一个批次核对。", level="expert", speed="depends",
        higher=("after a minute of compiling faster on GPUs; on CPUs no gain was seen",
                "编译约一分钟后在 GPU 上更快；CPU 上没有看到收益"),
        lower=("layers run as PyTorch has them", "各层按 PyTorch 原样运行"),
        advice=(Advice("Compiling a layer that repeats takes much less time than compiling the whole model, and is "
                       "about as fast.", "只编译重复的层，比编译整个模型省时得多，速度相近。", "torch-compile"),),
        free_on_resume=True)] = False
    torch_compile_backend: Annotated[str | None, Text(
        "What compiles the layers; naming one turns torch_compile on. inductor needs a C++ compiler on CPUs.",
        "编译后端；指定后即启用 torch_compile。inductor 在 CPU 上需要 C++ 编译器。", level="expert",
        also={"torchdynamo": None}, unset=("inductor", "用 inductor"), speed="depends", free_on_resume=True)] = None
    torch_compile_mode: Annotated[str | None, Text(
        "How hard the compiler tries: default, reduce-overhead, max-autotune or max-autotune-no-cudagraphs; naming one "
        "turns torch_compile on.",
        "编译的力度：default、reduce-overhead、max-autotune 或 max-autotune-no-cudagraphs；指定后即启用 "
        "torch_compile。", level="expert", unset=("default", "同 default"), speed="depends",
        free_on_resume=True)] = None
    jit_mode_eval: Annotated[bool, Text(
        "Trace the model for evaluation.", "评估时用 JIT 追踪模型。", level="expert",
        no_effect=("evaluation computes as training does", "评估与训练用同样的方式计算"), free_on_resume=True)] = False
    fp16_opt_level: Annotated[str, Text(
        "Level of NVIDIA Apex.", "NVIDIA Apex 的级别。", level="expert",
        no_effect=_OLD_FLOAT16, free_on_resume=True)] = "O1"
    fp16_backend: Annotated[str, Text(
        "What computes float16.", "float16 的后端。", level="expert", also={"half_precision_backend": None},
        no_effect=_OLD_FLOAT16, free_on_resume=True)] = "auto"

    logging_steps: Annotated[float, Field(gt=0), Text(
        "Steps between two log lines; below 1: a share of all steps.", "每多少步记录一次；小于 1 为总步数的比例。",
        higher=("a smoother curve, fewer lines", "曲线更平滑，行数更少"),
        lower=("more lines, each over fewer steps", "行数更多，每行覆盖的步数更少"), free_on_resume=True)] = 10
    logging_first_step: Annotated[bool, Text(
        "Log the first step too.", "第一步也记录。",
        higher=("the loss before learning is seen", "能看到学习之前的损失"),
        lower=("the first line comes after logging_steps", "第一行在 logging_steps 步之后"),
        free_on_resume=True)] = False
    logging_strategy: Annotated[Literal["no", "steps", "epoch"], Text(
        "When log lines are written.", "何时写日志。", level="expert",
        no_effect=("log lines come every logging_steps; they cost nothing", "日志总是按 logging_steps 写，不耗时间"),
        free_on_resume=True)] = "steps"

    eval_strategy: Annotated[Literal["no", "steps", "epoch"], Text(
        "When the held-out data is evaluated: no: only at the end; steps: every eval_steps; epoch: after each epoch.",
        "何时评估留出的数据：no 只在结束时；steps 每 eval_steps 步；epoch 每个 epoch 之后。",
        also={"evaluation_strategy": None}, speed="down",
        advice=(Advice("Evaluate on the way when data is small: overfitting shows in the held-out loss alone.",
                       "数据少时途中也要评估：过拟合只能从评估损失看出来。", "sixty-rows"),))] = "no"
    eval_steps: Annotated[float | None, Field(gt=0), Text(
        "Steps between two evaluations; below 1: a share of all steps.", "每多少步评估一次；小于 1 为总步数的比例。",
        higher=("less time spent on evaluation", "评估占的时间更少"),
        lower=("overfitting is seen sooner; slower", "更早看出过拟合；更慢"),
        unset=("logging_steps", "同 logging_steps"), speed="up")] = None
    eval_delay: Annotated[float, Text(
        "Steps or epochs before the first evaluation.", "第一次评估之前的步数或 epoch 数。", level="expert",
        not_offered=("evaluations begin at once, by eval_strategy", "评估从一开始就按 eval_strategy 进行"),
        free_on_resume=True)] = 0.0
    eval_on_start: Annotated[bool, Text(
        "Evaluate before the first step.", "第一步之前先评估。", level="expert",
        not_offered=("the first evaluation comes after steps, by eval_strategy",
                     "第一次评估按 eval_strategy 在训练若干步之后"), free_on_resume=True)] = False
    per_device_eval_batch_size: Annotated[int, Field(gt=0), Text(
        "Rows evaluated at once.", "评估时一次计算的行数。", also={"per_gpu_eval_batch_size": None},
        higher=("faster, more memory", "更快，更占显存"), lower=("slower, less memory", "更慢，更省显存"), memory="up",
        speed="up", free_on_resume=True)] = 8
    early_stopping_steps: Annotated[int | None, Field(gt=0), Text(
        "Stop after so many evaluations without a lower loss.", "连续多少次评估损失没有下降就停止。",
        higher=("more patience with a loss that goes up and down", "更能容忍损失上下波动"),
        lower=("stops sooner, perhaps too soon", "更早停止，可能过早"), unset=("never stops early", "不提前停止"),
        speed="up", quality="depends",
        advice=(Advice("With few rows and many epochs, 2 or 3: the held-out loss of 60 rows had nearly doubled again "
                       "by epoch 14.",
                       "数据少、epoch 多时用 2 或 3：60 行的实验到第 14 个 epoch 评估损失又涨了近一倍。",
                       "sixty-rows"),))] = None
    load_best_model_at_end: Annotated[bool, Text(
        "End with the weights of the best evaluation.", "结束时取评估最好的权重。",
        not_offered=_LAST_WEIGHTS, free_on_resume=True)] = False
    metric_for_best_model: Annotated[str, Text(
        "What says which evaluation is best, for early stopping too.", "用什么判断评估的好坏，早停也用它。",
        level="expert",
        not_offered=("the evaluation loss decides", "由评估损失决定"), free_on_resume=True)] = "eval_loss"
    greater_is_better: Annotated[bool, Text(
        "Whether more of it is better.", "是否越大越好。", level="expert",
        no_effect=("a lower evaluation loss is better", "评估损失越低越好"), free_on_resume=True)] = False
    compute_accuracy: Annotated[bool, Text(
        "When evaluating, tell which share of the learned tokens the model finds likeliest (pt and sft; stages that "
        "compare answers always tell how often they are right).",
        "评估时统计学习的 token 中有多大比例是模型认为最可能的（pt 和 sft；比较回答的 stage 总会给出正确率）。",
        level="expert", speed="down",
        higher=("eval_accuracy beside the loss; evaluations take a little longer",
                "评估结果里多一项 eval_accuracy；评估稍慢"),
        lower=("the loss and its exponential (perplexity)", "只测损失及其指数（困惑度）"),
        free_on_resume=True)] = False
    bf16_full_eval: Annotated[bool, Text(
        "Evaluate in bfloat16.", "用 bfloat16 评估。", level="expert", also={"fp16_full_eval": None},
        no_effect=("evaluation computes as training does", "评估与训练用同样的精度"), free_on_resume=True)] = False
    prediction_loss_only: Annotated[bool, Text(
        "Return the loss alone when evaluating.", "评估时只返回损失。", level="expert",
        no_effect=_LOSS_ALONE, free_on_resume=True)] = False
    eval_accumulation_steps: Annotated[int | None, Text(
        "Batches of predictions before they are moved to the CPU. Unset: all.", "多少批预测之后移到 CPU。不填为全部。",
        level="expert",
        no_effect=_LOSS_ALONE, free_on_resume=True)] = None
    eval_do_concat_batches: Annotated[bool, Text(
        "Join the predictions of all batches.", "把各批次的预测拼在一起。", level="expert",
        no_effect=_LOSS_ALONE, free_on_resume=True)] = True
    eval_use_gather_object: Annotated[bool, Text(
        "Gather nested predictions from all processes.", "从各进程收集嵌套的预测。", level="expert",
        no_effect=_LOSS_ALONE, free_on_resume=True)] = False
    batch_eval_metrics: Annotated[bool, Text(
        "Compute metrics batch by batch.", "逐批计算指标。", level="expert",
        no_effect=_LOSS_ALONE, free_on_resume=True)] = False
    use_legacy_prediction_loop: Annotated[bool, Text(
        "Evaluate by transformers' older loop.", "用 transformers 的旧评估循环。", level="expert",
        no_effect=_LOSS_ALONE, free_on_resume=True)] = False
    past_index: Annotated[int, Text(
        "Which output of the model is its memory; -1: none.", "模型的哪个输出是记忆状态；-1 表示没有。", level="expert",
        no_effect=("rows do not lead on from one another", "各行之间没有延续"), free_on_resume=True)] = -1
    before_after: Annotated[bool, Text(
        "Let the model answer 20 general prompts, and yours (probe_prompts), before and after training: report.md "
        "shows both.", "训练前后各让模型回答 20 个通用提示和你的提示（probe_prompts），在 report.md 中对照。",
        higher=("you see what was learned and what was forgotten, for a minute or two of generating",
                "能看出学会了什么、忘了什么，多花一两分钟生成"),
        lower=("the report holds numbers alone", "报告里只有数字"), speed="down", free_on_resume=True)] = True
    probe_prompts: Annotated[Names, Text(
        "Your own prompts for it: a text file with one prompt a line, or the prompts themselves (as a YAML list where "
        "they hold commas).", "你自己的提示：每行一个提示的文本文件，或直接写提示（含逗号时用 YAML 列表）。",
        unset=("the 20 general prompts alone", "只用 20 个通用提示"), speed="down", free_on_resume=True)] = ()

    save_strategy: Annotated[Literal["no", "steps", "epoch", "best"], Text(
        "When checkpoints are written: no: only the end; steps: every save_steps; epoch: after each epoch; best (at "
        "the best evaluation) is not done.",
        "何时写检查点：no 只在结束时；steps 每 save_steps 步；epoch 每个 epoch 之后；best（评估最好时）暂不支持。",
        speed="down", free_on_resume=True)] = "steps"
    save_steps: Annotated[float, Field(gt=0), Text(
        "Steps between two checkpoints; below 1: a share of all steps.",
        "每多少步写一个检查点；小于 1 为总步数的比例。",
        higher=("less time and disk; a crash loses more", "更省时间和磁盘；崩溃时丢失更多"),
        lower=("a crash loses less; more disk", "崩溃时丢失更少；更占磁盘"), speed="up", free_on_resume=True)] = 500
    save_total_limit: Annotated[int | None, Field(gt=0), Text(
        "Keep only the newest so many checkpoints.", "只保留最新的若干个检查点。",
        higher=("more to go back to, more disk", "可回退的更多，更占磁盘"), lower=("less disk", "更省磁盘"),
        unset=("all are kept", "全部保留"), free_on_resume=True)] = None
    save_only_model: Annotated[bool, Text(
        "Checkpoints without what resuming needs.", "检查点不含继续训练所需的状态。", level="expert",
        higher=("smaller checkpoints, from which a run cannot go on", "检查点更小，但不能从它继续训练"),
        lower=("a run goes on exactly where it stopped", "可以从中断处精确继续"), free_on_resume=True)] = False
    save_on_each_node: Annotated[bool, Text(
        "Every machine writes checkpoints.", "每台机器都写检查点。", level="expert",
        no_effect=("the run folder is written once", "运行文件夹只写一份"), free_on_resume=True)] = False
    enable_jit_checkpoint: Annotated[bool, Text(
        "Save a checkpoint when the machine is taken away (SIGTERM).", "机器被收回（SIGTERM）时保存检查点。",
        level="expert",
        no_effect=("Ctrl-C and SIGTERM always save a checkpoint", "Ctrl-C 和 SIGTERM 总会保存检查点"),
        free_on_resume=True)] = False
    ignore_data_skip: Annotated[bool, Text(
        "Begin the data anew when a run goes on.", "继续训练时从头读数据。", level="expert",
        no_effect=("a run goes on at its own row, which takes no time to find", "从中断的那一行继续，定位不花时间"),
        free_on_resume=True)] = False
    restore_callback_states_from_checkpoint: Annotated[bool, Text(
        "Restore callbacks, such as early stopping's count, when a run goes on.",
        "继续时恢复回调（如早停计数）的状态。", level="expert",
        no_effect=("a checkpoint always restores everything", "检查点总是恢复全部状态"), free_on_resume=True)] = False
