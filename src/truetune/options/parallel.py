"""Options: on which devices, and how several of them share a run."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Table, Text

TableOrFile = Annotated[Table | str, Field(union_mode="left_to_right")]
"""Values by name, or the file that holds them."""

_ONE_PROCESS = ("this run is one process", "本次运行只有一个进程")
_OF_FSDP = ("a setting of fsdp, which is not done yet", "它是 fsdp 的附属设置，而后者暂不支持")
_OF_RAY = ("a setting of Ray, which is not done yet", "它是 Ray 的附属设置，而后者暂不支持")
_OF_FP8 = ("a setting of fp8 for FSDP, which is not done yet", "它是 fp8 用于 FSDP 的设置，而 FSDP 暂不支持")
_OF_HYPER = (
    "a setting of use_hyper_parallel, which is not done yet",
    "它是 use_hyper_parallel 的附属设置，而后者暂不支持")
_OF_MEGATRON = (
    "a setting of use_megatron_bridge, which is not done yet",
    "它是 use_megatron_bridge 的附属设置，而后者暂不支持")
_NOT_SPLIT = ("training is one process on one device: nothing is split", "训练是一个设备上的一个进程：什么都不会切分")


class ParallelOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Parallel", "并行")

    use_cpu: Annotated[bool, Text(
        "Train on the CPU although there is a GPU.",
        "即使有 GPU 也用 CPU 训练。",
        level="expert", speed="down",
        higher=("the GPU stays free, and training takes many times as long", "不占用 GPU，但训练慢很多倍"),
        lower=("the GPU is used where there is one", "有 GPU 就用 GPU"),
        also={"no_cuda": None}, free_on_resume=True)] = False
    use_mps_device: Annotated[bool, Text(
        "Train on an Apple GPU.",
        "用 Apple GPU 训练。",
        level="expert", speed="up",
        higher=("an Apple GPU computes", "用 Apple GPU 计算"),
        lower=("the CPU or an NVIDIA GPU computes", "用 CPU 或 NVIDIA GPU 计算"),
        not_offered=("Apple GPUs are not used yet, and the CPU computes", "还不使用 Apple GPU，由 CPU 计算"),
        free_on_resume=True)] = False
    deepspeed: Annotated[TableOrFile | None, Text(
        "DeepSpeed's settings: a JSON file or a mapping. ZeRO stage 1 splits the optimizer's state over the GPUs, 2 "
        "the gradients too, 3 the weights too; offload moves them to the CPU.",
        "DeepSpeed 配置：JSON 文件或映射。ZeRO 1 把优化器状态分到各 GPU，2 再分梯度，3 再分权重；"
        "offload 则移到 CPU 内存。",
        memory="down", speed="depends", unset=("off", "不使用"),
        advice=(
            Advice("Take the lowest stage that fits: 1 and 2 send no more than plain data parallelism, 3 half as much "
                   "again.",
                   "选放得下的最低阶段：1 和 2 的通信量与普通数据并行相同，3 多一半。", "zero"),
            Advice("Offloading lets one GPU train models many times larger, at the speed of the link to the CPU.",
                   "offload 让一块 GPU 能训练大得多的模型，速度受限于与 CPU 的连接。", "zero-offload"),
        ),
        not_offered=(
            "training is one process on one device: nothing is split, or moved to the CPU",
            "训练是一个设备上的一个进程：什么都不会切分，也不会移到 CPU"),
        free_on_resume=True)] = None
    fsdp: Annotated[Names, Text(
        "PyTorch FSDP. full_shard splits weights, gradients and optimizer state over the GPUs; shard_grad_op keeps "
        "the weights whole; hybrid_shard splits inside each machine; offload moves to the CPU; auto_wrap goes layer "
        "by layer.",
        "PyTorch FSDP。full_shard 把权重、梯度和优化器状态分到各 GPU；shard_grad_op 保留完整权重；"
        "hybrid_shard 只在单机内切分；offload 移到 CPU；auto_wrap 按层进行。",
        memory="down", speed="depends", unset=("off", "不使用"),
        advice=(
            Advice("It trains models that plain data parallelism cannot hold, and is about as fast on those that it "
                   "can.",
                   "能训练普通数据并行放不下的模型；放得下的模型速度也相当。", "fsdp"),
        ),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = ()
    fsdp_config: Annotated[TableOrFile | None, Text(
        "FSDP's further settings: a JSON file or a mapping.",
        "FSDP 的其他设置：JSON 文件或映射。",
        level="expert", memory="depends", speed="depends", unset=("FSDP's defaults", "FSDP 的默认值"),
        no_effect=_OF_FSDP, free_on_resume=True)] = None
    fsdp_min_num_params: Annotated[int, Field(ge=0), Text(
        "FSDP wraps modules with at least so many weights.",
        "FSDP 包裹权重数不少于它的模块。",
        level="expert", memory="up", speed="up",
        higher=("fewer, larger pieces: less waiting, more memory", "块更少更大：等待更少，显存更多"),
        lower=("more, smaller pieces: less memory", "块更多更小：显存更少"),
        no_effect=_OF_FSDP, free_on_resume=True)] = 0
    fsdp_transformer_layer_cls_to_wrap: Annotated[str | None, Text(
        "Class name of the layers that FSDP wraps, such as LlamaDecoderLayer.",
        "FSDP 包裹的层的类名，如 LlamaDecoderLayer。",
        level="expert", unset=("the model's own layers", "模型自己的层"),
        no_effect=_OF_FSDP, free_on_resume=True)] = None
    accelerator_config: Annotated[TableOrFile | None, Text(
        "Settings of Hugging Face Accelerate: a JSON file or a mapping.",
        "Hugging Face Accelerate 的设置：JSON 文件或映射。",
        level="expert", unset=("its defaults", "默认值"),
        no_effect=(
            "Accelerate is not used here; rows are split and gradients divided the same way whatever it says",
            "这里不使用 Accelerate；数据切分和梯度平均不受它影响"),
        free_on_resume=True)] = None
    parallelism_config: Annotated[Table | None, Text(
        "How many GPUs share one model in which way, by the names of Accelerate's ParallelismConfig (tp_size, cp_size "
        "and others).",
        "多少块 GPU 以何种方式分担一个模型，名字同 Accelerate 的 ParallelismConfig（tp_size、cp_size 等）。",
        level="expert", memory="down", speed="depends",
        unset=("each process has the whole model", "每个进程有完整的模型"),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = None
    ddp_timeout: Annotated[int, Field(gt=0), Text(
        "Seconds before a silent process is given up.",
        "进程多少秒无响应就放弃。",
        level="expert",
        higher=("slow tokenising on the first process is waited for", "能等待第一个进程较慢的分词"),
        lower=("a dead process is noticed sooner", "更早发现挂掉的进程"),
        no_effect=_ONE_PROCESS, free_on_resume=True)] = 1800
    ddp_backend: Annotated[str | None, Text(
        "What carries messages between processes: nccl for NVIDIA GPUs, gloo for CPUs, hccl for Ascend.",
        "进程间用什么通信：NVIDIA GPU 用 nccl，CPU 用 gloo，昇腾用 hccl。",
        level="expert", speed="depends", unset=("the one made for the device", "适合该设备的那个"),
        no_effect=_ONE_PROCESS, free_on_resume=True)] = None
    ddp_find_unused_parameters: Annotated[bool | None, Text(
        "Look for weights that got no gradient in each step.",
        "每步查找没有得到梯度的权重。",
        level="expert", speed="down",
        unset=("off for LoRA, else on unless gradients are checkpointed", "LoRA 时关闭；否则在未用梯度检查点时开启"),
        higher=("models with unused parts train; each step is slower", "有未用部分的模型也能训练；每步更慢"),
        lower=("faster, and an unused weight is an error", "更快，有未用的权重时报错"),
        no_effect=_ONE_PROCESS, free_on_resume=True)] = None
    ddp_bucket_cap_mb: Annotated[int | None, Field(gt=0), Text(
        "Megabytes of gradients that are sent at once.",
        "一次发送多少 MB 的梯度。",
        level="expert", memory="up", speed="depends", unset=("25, PyTorch's own", "25，PyTorch 的默认值"),
        higher=("fewer, larger messages", "消息更少更大"),
        lower=("sending starts sooner", "更早开始发送"),
        no_effect=_ONE_PROCESS, free_on_resume=True)] = None
    ddp_broadcast_buffers: Annotated[bool | None, Text(
        "Copy buffers of the first process to the others in each step.",
        "每步把第一个进程的缓冲区复制到其他进程。",
        level="expert", speed="down",
        unset=("off where gradients are checkpointed", "使用梯度检查点时关闭"),
        higher=("buffers stay alike", "缓冲区保持一致"),
        lower=("one message less", "少一次通信"),
        no_effect=_ONE_PROCESS, free_on_resume=True)] = None
    ddp_static_graph: Annotated[bool | None, Text(
        "Promise that every step uses the same weights in the same order.",
        "声明每步都以同样的顺序用到同样的权重。",
        level="expert", speed="up", unset=("off", "关闭"),
        higher=("less bookkeeping; wrong if the promise is broken", "开销更小；不符合时结果会错"),
        lower=("each step is looked at anew", "每步重新检查"),
        no_effect=_ONE_PROCESS, free_on_resume=True)] = None
    average_tokens_across_devices: Annotated[bool, Text(
        "Divide the loss by the number of learned tokens on all devices, not on each.",
        "loss 除以所有设备的学习 token 总数，而不是各设备各自的数目。",
        level="expert", quality="up",
        higher=("every token counts the same, on whatever device it is", "每个 token 无论在哪个设备上都同等重要"),
        lower=("tokens on devices with short rows weigh more", "短行所在设备的 token 权重偏大"),
        no_effect=(
            "the loss is always divided by the number of learned tokens in the whole step",
            "loss 总是除以整步的学习 token 总数"),
        free_on_resume=True)] = True
    local_rank: Annotated[int, Field(ge=-1), Text(
        "Number of this process on its machine, as launchers pass it.",
        "本进程在本机的编号，由启动器传入。",
        level="expert",
        higher=("another process", "另一个进程"),
        lower=("-1: one process only", "-1 表示只有一个进程"),
        no_effect=_ONE_PROCESS, free_on_resume=True)] = -1
    tpu_num_cores: Annotated[int | None, Field(gt=0), Text(
        "TPU cores to train on.",
        "用多少个 TPU 核心训练。",
        level="expert", speed="up", unset=("no TPU", "不用 TPU"),
        higher=("faster", "更快"),
        lower=("slower", "更慢"),
        not_offered=("TPUs are not used, and the CPU or a GPU computes", "不使用 TPU，由 CPU 或 GPU 计算"),
        free_on_resume=True)] = None
    mp_parameters: Annotated[str, Text(
        "Settings of SageMaker's launcher.",
        "SageMaker 启动器的设置。",
        level="expert", unset=("none", "没有"),
        no_effect=("SageMaker's model parallelism is not used here", "这里不使用 SageMaker 的模型并行"),
        free_on_resume=True)] = ""
    ray_scope: Annotated[str, Text(
        "Which value of a trial counts in a search with Ray Tune.",
        "用 Ray Tune 搜索时取一次试验的哪个值。",
        level="expert",
        no_effect=("no search with Ray Tune is done here", "这里不做 Ray Tune 搜索"), free_on_resume=True)] = "last"
    ray_num_workers: Annotated[int, Field(gt=0), Text(
        "Processes that Ray starts, one GPU each.",
        "Ray 启动多少个进程，每个一块 GPU。",
        level="expert", speed="up",
        higher=("faster, with a larger batch in all", "更快，总批次更大"),
        lower=("fewer GPUs are needed", "需要的 GPU 更少"),
        not_offered=(
            "training is one process on one device, and Ray starts none",
            "训练是一个设备上的一个进程，Ray 不会启动进程"),
        free_on_resume=True)] = 1
    ray_init_kwargs: Annotated[Table | None, Text(
        "Settings of ray.init, as a mapping or JSON.",
        "ray.init 的参数，映射或 JSON。",
        level="expert", unset=("Ray's defaults", "Ray 的默认值"), no_effect=_OF_RAY, free_on_resume=True)] = None
    master_addr: Annotated[str | None, Text(
        "Address of the machine that Ray's processes meet at.",
        "Ray 各进程会合的机器地址。",
        level="expert", unset=("the machine of the first process", "第一个进程所在的机器"),
        no_effect=_OF_RAY, free_on_resume=True)] = None
    master_port: Annotated[str | None, Text(
        "Port that Ray's processes meet at.",
        "Ray 各进程会合的端口。",
        level="expert", unset=("a free one", "任一空闲端口"), no_effect=_OF_RAY, free_on_resume=True)] = None
    fp8: Annotated[bool, Text(
        "Multiply in 8-bit floats (Hopper GPUs and later); the weights stay in 16 or 32 bits.",
        "用 8 位浮点做矩阵乘法（Hopper 及更新的 GPU），权重仍为 16 或 32 位。",
        level="expert", memory="depends", speed="up", quality="depends",
        higher=("large matrices multiply faster, with less precision", "大矩阵乘得更快，精度更低"),
        lower=("products in bf16, fp16 or float32", "用 bf16、fp16 或 float32 相乘"),
        advice=(
            Advice("Large models trained in FP8 matched 16 bits in the paper that defined the format.",
                   "定义该格式的论文中，FP8 训练的大模型与 16 位相当。", "fp8"),
            Advice("It pays for large matrices only; small ones get slower.",
                   "只有大矩阵划算，小矩阵反而变慢。", "torchao-float8"),
        ))] = False
    fp8_backend: Annotated[Literal["auto", "torchao", "te", "msamp"], Text(
        "Whose FP8: torchao, which auto is too. NVIDIA's Transformer Engine (te) and MS-AMP (msamp) are not offered.",
        "用谁的 FP8：torchao，auto 也是它。未提供 NVIDIA Transformer Engine（te）和 MS-AMP（msamp）。",
        level="expert", speed="depends", free_on_resume=True)] = "auto"
    fp8_enable_fsdp_float8_all_gather: Annotated[bool, Text(
        "Send FSDP's weights between GPUs in 8 bits.",
        "FSDP 在 GPU 间以 8 位传输权重。",
        level="expert", speed="up",
        higher=("half the traffic", "通信量减半"),
        lower=("weights are sent in 16 bits", "以 16 位传输权重"),
        no_effect=_OF_FP8, free_on_resume=True)] = False
    use_hyper_parallel: Annotated[bool, Text(
        "Train with HyperParallel, which splits a model by FSDP, tensors and context.",
        "用 HyperParallel 训练，可按 FSDP、张量和上下文切分模型。",
        level="expert", memory="down", speed="depends",
        higher=("models larger than one GPU can be trained", "能训练一块 GPU 放不下的模型"),
        lower=("one device holds the model", "模型放在一个设备上"),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = False
    hyper_parallel_args: Annotated[str | None, Text(
        "HyperParallel's plan: a JSON file.",
        "HyperParallel 的切分方案：JSON 文件。",
        level="expert", memory="depends", speed="depends", unset=("its defaults", "默认值"),
        no_effect=_OF_HYPER, free_on_resume=True)] = None
    hyper_parallel_cp_size: Annotated[int, Field(gt=0), Text(
        "GPUs that share each row's tokens (context parallelism).",
        "多少块 GPU 分担每行的 token（上下文并行）。",
        level="expert", memory="down", speed="depends",
        higher=("longer rows fit", "能放下更长的行"),
        lower=("less traffic", "通信更少"),
        no_effect=_OF_HYPER, free_on_resume=True)] = 1
    use_mca: Annotated[bool, Text(
        "Train with Megatron-Core (mcore_adapter). In LLaMA-Factory the environment variable USE_MCA sets it.",
        "用 Megatron-Core（mcore_adapter）训练。在 LLaMA-Factory 中由环境变量 USE_MCA 设置。",
        level="expert", memory="down", speed="depends",
        higher=("large models are split over many GPUs", "大模型切分到多块 GPU"),
        lower=("one device holds the model", "模型放在一个设备上"),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = False
    use_megatron_bridge: Annotated[bool, Text(
        "Train with Megatron Bridge. In LLaMA-Factory the environment variable USE_MEGATRON_BRIDGE sets it.",
        "用 Megatron Bridge 训练。在 LLaMA-Factory 中由环境变量 USE_MEGATRON_BRIDGE 设置。",
        level="expert", memory="down", speed="depends",
        higher=("large models are split over many GPUs", "大模型切分到多块 GPU"),
        lower=("one device holds the model", "模型放在一个设备上"),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = False
    tensor_model_parallel_size: Annotated[int, Field(ge=1), Text(
        "Megatron: GPUs that share each layer's matrices.",
        "Megatron：多少块 GPU 分担每层的矩阵（张量并行）。",
        level="expert", memory="down", speed="depends",
        higher=("larger layers fit; much traffic in every layer", "能放下更大的层；每层通信量大"),
        lower=("less traffic", "通信更少"),
        advice=(
            Advice("Keep it within one machine, and split further by pipeline.",
                   "不要超出单机，机间再用流水线切分。", "megatron-2021"),
        ),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = 1
    pipeline_model_parallel_size: Annotated[int, Field(ge=1), Text(
        "Megatron: stages of layers, each on GPUs of its own.",
        "Megatron：把各层分成几段，每段用各自的 GPU（流水线并行）。",
        level="expert", memory="down", speed="depends",
        higher=("deeper models fit; stages wait for one another", "能放下更深的模型；各段会互相等待"),
        lower=("less waiting", "等待更少"),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = 1
    expert_model_parallel_size: Annotated[int, Field(ge=1), Text(
        "Megatron: GPUs that share the experts of a mixture-of-experts model.",
        "Megatron：多少块 GPU 分担 MoE 模型的专家（专家并行）。",
        level="expert", memory="down", speed="depends",
        higher=("more experts fit; tokens travel between GPUs", "能放下更多专家；token 要在 GPU 间传递"),
        lower=("less traffic", "通信更少"),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = 1
    context_parallel_size: Annotated[int, Field(ge=1), Text(
        "Megatron: GPUs that share each row's tokens.",
        "Megatron：多少块 GPU 分担每行的 token（上下文并行）。",
        level="expert", memory="down", speed="depends",
        higher=("longer rows fit", "能放下更长的行"),
        lower=("less traffic", "通信更少"),
        not_offered=_NOT_SPLIT, free_on_resume=True)] = 1
    virtual_pipeline_model_parallel_size: Annotated[int | None, Field(ge=1), Text(
        "Megatron: pieces into which each pipeline stage is cut, to wait less.",
        "Megatron：每个流水线段再切成几块，以减少等待。",
        level="expert", speed="up", unset=("stages are not cut", "不再切分"),
        higher=("less waiting, more traffic", "等待更少，通信更多"),
        lower=("less traffic, more waiting", "通信更少，等待更多"),
        advice=(
            Advice("The interleaved schedule gave over 10 % more throughput.",
                   "交错调度使吞吐量提高 10% 以上。", "megatron-2021"),
        ),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    sequence_parallel: Annotated[bool, Text(
        "Megatron: split norms and dropout by tokens too, over the GPUs of tensor_model_parallel_size.",
        "Megatron：归一化和 dropout 也按 token 切分到张量并行的各 GPU 上。",
        level="expert", memory="down", speed="up",
        higher=("fewer activations are kept, with no more traffic", "保存的激活更少，通信不增加"),
        lower=("each GPU keeps them whole", "每块 GPU 各存一份"),
        advice=(
            Advice("With selective recomputation it cut activation memory to a fifth.",
                   "配合选择性重算，激活显存降到五分之一。", "megatron-recompute"),
        ),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = False
    recompute_granularity: Annotated[Literal["full", "selective"] | None, Text(
        "Megatron: what is computed again instead of kept: whole layers (full), or only attention's large, cheap "
        "parts (selective).",
        "Megatron：重算而不保存哪些内容：整层（full），或只是注意力中占用大、计算便宜的部分（selective）。",
        level="expert", memory="down", speed="down", unset=("nothing is", "不重算"),
        advice=(
            Advice("selective saves most of the memory for little time.",
                   "selective 用很少的时间省下大部分显存。", "megatron-recompute"),
        ),
        not_offered=("gradient_checkpointing decides what is computed again", "重算什么由 gradient_checkpointing 决定"),
        free_on_resume=True)] = None
    recompute_method: Annotated[Literal["uniform", "block"] | None, Text(
        "Megatron: which layers full recomputation takes. uniform: all, in groups; block: the first ones of each "
        "stage.",
        "Megatron：full 重算哪些层。uniform：全部，分组进行；block：每段最前面的几层。",
        level="expert", memory="depends", speed="depends", unset=("none", "没有"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    recompute_num_layers: Annotated[int | None, Field(ge=1), Text(
        "Megatron: layers in a group (uniform), or layers recomputed in each stage (block).",
        "Megatron：每组的层数（uniform），或每段重算的层数（block）。",
        level="expert", memory="depends", speed="depends", unset=("none", "没有"),
        higher=("block: less memory, slower", "block：显存更少，更慢"),
        lower=("block: faster, more memory", "block：更快，显存更多"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    account_for_embedding_in_pipeline_split: Annotated[bool | None, Text(
        "Megatron: count the embedding as a layer when stages are made.",
        "Megatron：划分流水线时把嵌入算作一层。",
        level="expert", speed="depends",
        unset=("as the model's Megatron recipe says", "按该模型的 Megatron 配置"),
        higher=("the first stage gets a layer less", "第一段少一层"),
        lower=("layers are spread evenly", "各层均匀分配"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    account_for_loss_in_pipeline_split: Annotated[bool | None, Text(
        "Megatron: count head and loss as a layer when stages are made.",
        "Megatron：划分流水线时把输出头和 loss 算作一层。",
        level="expert", speed="depends",
        unset=("as the model's Megatron recipe says", "按该模型的 Megatron 配置"),
        higher=("the last stage gets a layer less", "最后一段少一层"),
        lower=("layers are spread evenly", "各层均匀分配"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    bias_activation_fusion: Annotated[bool | None, Text(
        "Megatron: add the bias and apply the activation in one kernel.",
        "Megatron：加偏置和激活函数合成一个内核。",
        level="expert", speed="up",
        unset=("as the model's Megatron recipe says", "按该模型的 Megatron 配置"),
        higher=("a little faster", "略快"),
        lower=("two kernels", "两个内核"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    apply_rope_fusion: Annotated[bool | None, Text(
        "Megatron: rotate positions (RoPE) in one kernel.",
        "Megatron：旋转位置编码（RoPE）用一个内核。",
        level="expert", speed="up",
        unset=("as the model's Megatron recipe says", "按该模型的 Megatron 配置"),
        higher=("a little faster", "略快"),
        lower=("several kernels", "多个内核"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    masked_softmax_fusion: Annotated[bool | None, Text(
        "Megatron: scale, mask and softmax in one kernel.",
        "Megatron：缩放、掩码和 softmax 合成一个内核。",
        level="expert", speed="up",
        unset=("as the model's Megatron recipe says", "按该模型的 Megatron 配置"),
        higher=("a little faster", "略快"),
        lower=("several kernels", "多个内核"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    cross_entropy_loss_fusion: Annotated[bool | None, Text(
        "Megatron: the loss in one kernel.",
        "Megatron：loss 用一个内核计算。",
        level="expert", memory="down", speed="up",
        unset=("as the model's Megatron recipe says", "按该模型的 Megatron 配置"),
        higher=("faster, with smaller intermediate results", "更快，中间结果更小"),
        lower=("several kernels", "多个内核"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    moe_grouped_gemm: Annotated[bool | None, Text(
        "Megatron: multiply all experts of a GPU in one call.",
        "Megatron：一次调用计算一块 GPU 上的所有专家。",
        level="expert", speed="up",
        unset=("as the model's Megatron recipe says", "按该模型的 Megatron 配置"),
        higher=("faster with several experts on a GPU", "一块 GPU 有多个专家时更快"),
        lower=("one product after another", "逐个相乘"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    moe_token_dispatcher_type: Annotated[Literal["allgather", "alltoall", "flex"] | None, Text(
        "Megatron: how tokens reach their experts. allgather: everything to everybody; alltoall: each to its expert; "
        "flex: a newer one that covers both.",
        "Megatron：token 如何到达专家。allgather：全部发给所有 GPU；alltoall：各发给自己的专家；flex："
        "兼顾两者的新方式。",
        level="expert", memory="depends", speed="depends",
        unset=("as the model's Megatron recipe says", "按该模型的 Megatron 配置"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = None
    calculate_per_token_loss: Annotated[bool | None, Text(
        "Megatron: divide the loss by the learned tokens of the whole step.",
        "Megatron：loss 除以整步的学习 token 数。",
        level="expert", quality="up", unset=("on with context parallelism", "上下文并行时开启"),
        higher=("every token counts the same", "每个 token 同等重要"),
        lower=("short micro-batches weigh more", "短的微批次权重偏大"),
        no_effect=(
            "the loss is always divided by the number of learned tokens in the whole step",
            "loss 总是除以整步的学习 token 总数"),
        free_on_resume=True)] = None
    use_distributed_optimizer: Annotated[bool, Text(
        "Megatron: split the optimizer's state over the processes, as ZeRO stage 1 does.",
        "Megatron：把优化器状态分到各进程，相当于 ZeRO 1。",
        level="expert", memory="down",
        higher=("less memory on each GPU", "每块 GPU 显存更少"),
        lower=("each GPU holds all of it", "每块 GPU 各存一份"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = True
    overlap_param_gather: Annotated[bool, Text(
        "Megatron: fetch weights while computing.",
        "Megatron：边计算边收集权重。",
        level="expert", speed="up",
        higher=("less waiting", "等待更少"),
        lower=("weights first, then computing", "先收集权重再计算"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = True
    overlap_grad_reduce: Annotated[bool, Text(
        "Megatron: send gradients while computing.",
        "Megatron：边计算边归并梯度。",
        level="expert", speed="up",
        higher=("less waiting", "等待更少"),
        lower=("computing first, then sending", "先计算再发送"),
        no_effect=_OF_MEGATRON, free_on_resume=True)] = True
    use_packed_sequences: Annotated[bool, Text(
        "Megatron: several rows in one sequence.",
        "Megatron：把多行打包成一条序列。",
        level="expert", speed="up",
        higher=("less padding", "填充更少"),
        lower=("one row, one sequence", "一行一条序列"),
        no_effect=(
            "rows lie end to end without padding anyway; packing: true fills them up to cutoff_len",
            "各行本来就首尾相接、没有填充；packing: true 可填满到 cutoff_len"),
        free_on_resume=True)] = False
    mixed_precision: Annotated[str, Text(
        "Megatron: name of a precision recipe.",
        "Megatron：精度方案的名字。",
        level="expert", memory="depends", speed="depends", quality="depends",
        not_offered=("bf16, fp16 and pure_bf16 decide the number format", "数值格式由 bf16、fp16 和 pure_bf16 决定"),
        free_on_resume=True)] = "bf16_mixed"
    megatron_pretrained_checkpoint: Annotated[str | None, Text(
        "Megatron: a checkpoint in its own format to start from.",
        "Megatron：从自己格式的检查点开始。",
        level="expert", unset=("the model's weights are converted", "转换模型的权重"),
        not_offered=(
            "model_name_or_path is what is trained; Megatron's checkpoints are not read",
            "训练的是 model_name_or_path；不读取 Megatron 的检查点"),
        free_on_resume=True)] = None
    export_hf_on_finish: Annotated[bool, Text(
        "Megatron: write the model in Hugging Face's format at the end.",
        "Megatron：结束时写成 Hugging Face 格式。",
        level="expert",
        higher=("ready to be served", "可以直接部署"),
        lower=("Megatron's own checkpoint only", "只有 Megatron 自己的检查点"),
        no_effect=("models are always written in that format", "模型总是以这种格式保存"),
        free_on_resume=True)] = False
    extra_config: Annotated[TableOrFile | None, Text(
        "Megatron: any other of its settings, by dotted names: a mapping, JSON or a file.",
        "Megatron：其他任意设置，用点号连接的名字：映射、JSON 或文件。",
        level="expert", unset=("none", "没有"), no_effect=_OF_MEGATRON, free_on_resume=True)] = None
