"""Options: engines that answer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Table, Text

_OF_KT = ("a setting of use_kt, which is not done yet", "它是 use_kt 的附属设置，而后者暂不支持")


class ServeOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Serving", "部署")

    infer_backend: Annotated[Literal["huggingface", "llamacpp", "vllm", "sglang"], Text(
        "What computes the answers. huggingface: transformers, many conversations in one forward pass; llamacpp: GGUF "
        "files; vllm and sglang: in an environment of their own.",
        "回答由什么引擎计算。huggingface：transformers，多个对话共用一次前向；llamacpp：GGUF 文件；vllm 和 sglang：在"
        "各自的环境里运行。", memory="depends", speed="depends",
        advice=(
            Advice("vLLM served 2 to 4 times as many requests as the systems before it.",
                   "vLLM 的吞吐量是此前系统的 2 到 4 倍。", "vllm"),
        ), free_on_resume=True)] = "huggingface"
    infer_endpoint: Annotated[str | None, Text(
        "Address of a running vLLM, SGLang or llama.cpp server that has the model already (http://127.0.0.1:8000).",
        "已在运行并加载了该模型的 vLLM、SGLang 或 llama.cpp 服务地址（http://127.0.0.1:8000）。",
        level="expert", unset=("the engine is started here", "在本机启动引擎"), free_on_resume=True)] = None
    infer_api_key: Annotated[str | None, Text(
        "Token that the server at infer_endpoint wants.", "infer_endpoint 的服务要求的 token。", level="expert",
        unset=("none is sent", "不发送"), free_on_resume=True, secret=True)] = None
    infer_adapters: Annotated[Table, Text(
        "LoRA adapters that are served beside the model, name by name; a request names one as its model.",
        "与模型一起部署的 LoRA 适配器，名字: 文件夹；请求用这个名字作 model 即可使用。", memory="up",
        unset=("the model alone, as it is loaded", "只有模型本身"),
        free_on_resume=True)] = Field(default={})
    infer_batch: Annotated[int, Field(gt=0), Text(
        "Most conversations that are answered at once.", "同时回答的对话数上限。", also={"max_concurrent": None},
        memory="up", speed="up", higher=("more answers a second altogether, each slower", "总吞吐更高，单个回答更慢"),
        lower=("each answer comes faster, others wait", "单个回答更快，其他请求排队"), free_on_resume=True)] = 8
    infer_maxlen: Annotated[int | None, Field(gt=0), Text(
        "Most tokens of a conversation, question and answer together.", "一次对话（问题加回答）最多的 token 数。",
        higher=("longer conversations, and more memory when they come", "对话可更长，用到时占更多内存"),
        lower=("long prompts are refused, and long answers cut", "过长的提示会被拒绝，过长的回答会被截断"),
        memory="up", unset=("what the model was made for, at most 8,192", "模型的上限，最多 8192"),
        free_on_resume=True)] = None
    api_host: Annotated[str, Text(
        "Address to listen on. API_HOST in the environment is the same.", "监听地址。与环境变量 API_HOST 相同。",
        free_on_resume=True)] = "127.0.0.1"
    api_port: Annotated[int, Field(ge=0, le=65535), Text(
        "Port to listen on; 0: a free one. API_PORT in the environment is the same.",
        "监听端口；0 表示任选一个空闲端口。与环境变量 API_PORT 相同。",
        higher=("from 1024 on, no rights are needed", "1024 及以上不需要特权"),
        lower=("below 1024 the system may refuse it; 0 takes a free one and prints it",
               "低于 1024 可能被系统拒绝；0 会任选一个空闲端口并显示"), free_on_resume=True)] = 8000
    api_key: Annotated[str | None, Text(
        "Token that clients must send. API_KEY in the environment is the same, and is not seen in a process list.",
        "客户端必须提供的 token。与环境变量 API_KEY 相同，后者不会出现在进程列表里。",
        unset=("one is made at the first start and kept for this user", "首次启动时生成，并为该用户保存"),
        free_on_resume=True, secret=True)] = None
    api_model_name: Annotated[str | None, Text(
        "Name by which clients call the model. API_MODEL_NAME in the environment is the same.",
        "客户端调用模型时用的名字。与环境变量 API_MODEL_NAME 相同。",
        unset=("the last part of the model's or adapter's name", "模型或适配器名字的最后一段"),
        free_on_resume=True)] = None
    api_queue: Annotated[int, Field(ge=0), Text(
        "Requests that may wait for a place; more are answered 429 with Retry-After.",
        "可以排队等待的请求数；再多则应答 429 和 Retry-After。",
        higher=("a rush of requests is waited out; the last ones wait long", "能承受请求高峰；排在后面的等得久"),
        lower=("clients are told early to come back later", "更早告诉客户端稍后再来"), free_on_resume=True)] = 64
    api_timeout: Annotated[float, Field(gt=0), Text(
        "Seconds that one request may take, its waiting included.", "一个请求（含排队）最长多少秒。",
        higher=("long answers are finished", "长回答能写完"),
        lower=("a place is not held for long; long answers end in an error", "位置不会被长期占用；长回答会以错误结束"),
        free_on_resume=True)] = 600
    api_max_body: Annotated[float, Field(gt=0), Text(
        "Largest request, in MB (10^6 bytes).", "请求体的上限，单位 MB（10^6 字节）。", level="expert",
        higher=("longer conversations and more tools fit", "能放下更长的对话和更多工具"),
        lower=("less memory for whoever sends nonsense", "给发送垃圾请求的人更少内存"), free_on_resume=True)] = 4
    vllm_maxlen: Annotated[int, Field(gt=0), Text(
        "Most tokens of a conversation in vLLM, question and answer together.",
        "vLLM 中一次对话（问题加回答）最多的 token 数。",
        level="expert", memory="up", unset=("infer_maxlen, where that is set", "已设 infer_maxlen 时以它为准"),
        higher=("longer conversations; fewer at once", "对话可更长；同时的更少"),
        lower=("more conversations at once", "可同时进行更多对话"),
        advice=(
            Advice("The first thing to lower when vLLM runs out of memory.",
                   "vLLM 显存不足时首先调低它。", "vllm-memory"),
        ), free_on_resume=True)] = 4096
    vllm_gpu_util: Annotated[float, Field(gt=0, le=1), Text(
        "Share of the GPU's memory that vLLM takes.",
        "vLLM 占用的显存比例。",
        level="expert", memory="up", speed="up",
        higher=(
            "more conversations at once; others on the GPU may run out",
            "可同时进行更多对话；GPU 上其他程序可能不够用"),
        lower=("room for others", "给其他程序留空间"), free_on_resume=True)] = 0.7
    vllm_enforce_eager: Annotated[bool, Text(
        "Do not record CUDA graphs.",
        "不使用 CUDA graph。",
        level="expert", memory="down", speed="down",
        higher=("starts sooner and takes less memory; answers more slowly", "启动更快、显存更少；回答更慢"),
        lower=("answers faster", "回答更快"), free_on_resume=True)] = False
    vllm_max_lora_rank: Annotated[int, Field(gt=0), Text(
        "Largest lora_rank that vLLM makes room for.",
        "vLLM 预留的最大 lora_rank。",
        level="expert", memory="up", speed="down",
        higher=("adapters of higher rank load", "能加载更高秩的适配器"),
        lower=("less memory", "显存更少"), free_on_resume=True)] = 32
    vllm_config: Annotated[Table | None, Text(
        "Any other of vLLM's settings, as a mapping or JSON, by the names of its command line (max_num_seqs: 16).",
        "vLLM 的其他设置，映射或 JSON，名字与其命令行相同（max_num_seqs: 16）。",
        level="expert", unset=("vLLM's defaults", "vLLM 的默认值"), free_on_resume=True)] = None
    sglang_maxlen: Annotated[int, Field(gt=0), Text(
        "Most tokens of a conversation in SGLang, question and answer together.",
        "SGLang 中一次对话（问题加回答）最多的 token 数。",
        level="expert", memory="up", unset=("infer_maxlen, where that is set", "已设 infer_maxlen 时以它为准"),
        higher=("longer conversations; fewer at once", "对话可更长；同时的更少"),
        lower=("more conversations at once", "可同时进行更多对话"), free_on_resume=True)] = 4096
    sglang_mem_fraction: Annotated[float, Field(gt=0, le=1), Text(
        "Share of the GPU's memory for SGLang's weights and cache.",
        "SGLang 的权重和缓存占用的显存比例。",
        level="expert", memory="up", speed="up",
        higher=("more conversations at once; may run out of memory", "可同时进行更多对话；可能显存不足"),
        lower=("room for others", "给其他程序留空间"), free_on_resume=True)] = 0.7
    sglang_tp_size: Annotated[int, Field(ge=-1), Text(
        "GPUs that share the model in SGLang; -1: all.",
        "SGLang 用多少块 GPU 分担模型；-1 表示全部。",
        level="expert", memory="down", speed="up",
        higher=("larger models fit, answers come faster", "能放下更大的模型，回答更快"),
        lower=("GPUs stay free", "空出 GPU"), free_on_resume=True)] = -1
    sglang_config: Annotated[Table | None, Text(
        "Any other of SGLang's settings, as a mapping or JSON, by the names of its command line.",
        "SGLang 的其他设置，映射或 JSON，名字与其命令行相同。",
        level="expert", unset=("SGLang's defaults", "SGLang 的默认值"), free_on_resume=True)] = None
    sglang_lora_backend: Annotated[Literal["triton", "flashinfer"], Text(
        "Kernels that compute LoRA in SGLang: triton runs everywhere, flashinfer comes with that package.",
        "SGLang 用哪种内核计算 LoRA：triton 到处可用，flashinfer 来自同名的包。",
        level="expert", speed="depends", free_on_resume=True)] = "triton"
    use_kt: Annotated[bool, Text(
        "Compute the experts of a mixture-of-experts model on the CPU (KTransformers).",
        "在 CPU 上计算 MoE 模型的专家（KTransformers）。",
        level="expert", memory="down", speed="down",
        higher=("very large MoE models fit on one GPU and much CPU memory", "超大 MoE 模型可用一块 GPU 加大内存运行"),
        lower=("everything on one device", "全部在一个设备上"),
        not_offered=("the whole model is on one device", "整个模型放在一个设备上"), free_on_resume=True)] = False
    kt_cpu_activation: Annotated[Literal["retain", "recompute"] | None, Text(
        "Keep the experts' activations in CPU memory (retain), or compute them again (recompute).",
        "专家的激活保留在内存里（retain），还是重算（recompute）。",
        level="expert", memory="depends", speed="depends",
        unset=("recompute where gradients are checkpointed", "使用梯度检查点时重算"),
        no_effect=_OF_KT, free_on_resume=True)] = None
    kt_weight_path: Annotated[str | None, Text(
        "Experts quantised to 8 bits beforehand.",
        "预先量化为 8 位的专家权重。",
        level="expert", memory="down", unset=("none", "没有"), no_effect=_OF_KT, free_on_resume=True)] = None
    kt_non_expert_weight_path: Annotated[str | None, Text(
        "Where the other weights are kept in bfloat16.",
        "其余权重的 bfloat16 缓存位置。",
        level="expert", unset=("they are read from the model", "从模型读取"),
        no_effect=_OF_KT, free_on_resume=True)] = None
    kt_expert_checkpoint_path: Annotated[str | None, Text(
        "Safetensors files of the experts, converted while loading.",
        "专家的 safetensors 文件，加载时转换。",
        level="expert", unset=("the model's own", "模型自己的"), no_effect=_OF_KT, free_on_resume=True)] = None
    kt_use_lora_experts: Annotated[bool | None, Text(
        "Train small extra experts on the GPU.",
        "在 GPU 上训练额外的小专家。",
        level="expert", memory="up", quality="depends", unset=("off", "关闭"),
        higher=("more can be learned", "能学的更多"),
        lower=("LoRA on the other layers only", "只在其他层上用 LoRA"),
        no_effect=_OF_KT, free_on_resume=True)] = None
    kt_lora_expert_num: Annotated[int | None, Field(gt=0), Text(
        "How many of those.",
        "这样的小专家有多少个。",
        level="expert", memory="up", quality="depends",
        unset=("KTransformers decides", "由 KTransformers 决定"),
        higher=("more can be learned, more memory", "能学的更多，显存更多"),
        lower=("less memory", "显存更少"),
        no_effect=_OF_KT, free_on_resume=True)] = None
    kt_lora_expert_intermediate_size: Annotated[int | None, Field(gt=0), Text(
        "How wide they are.",
        "这些小专家的中间宽度。",
        level="expert", memory="up", quality="depends",
        unset=("KTransformers decides", "由 KTransformers 决定"),
        higher=("more can be learned, more memory", "能学的更多，显存更多"),
        lower=("less memory", "显存更少"),
        no_effect=_OF_KT, free_on_resume=True)] = None
    kt_config: Annotated[Table | None, Text(
        "Any other of KTransformers' settings, as a mapping or JSON.",
        "KTransformers 的其他设置，映射或 JSON。",
        level="expert", unset=("its defaults", "默认值"), no_effect=_OF_KT, free_on_resume=True)] = None
