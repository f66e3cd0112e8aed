"""Options: how a trained model is written for serving."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Advice, Group, Names, Text


class ExportOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Export", "导出")

    export_dir: Annotated[str | None, Text(
        "Folder for what is exported.", "导出到哪个文件夹。", level="basic",
        unset=("an error in `truetune export`; no other command needs it", "`truetune export` 会报错，其他命令不需要"),
        free_on_resume=True)] = None
    export_format: Annotated[Names, Text(
        "What to write, one or several: hf (safetensors, for transformers, vLLM, SGLang), gguf (for llama.cpp), ollama "
        "(GGUF and a Modelfile with the trained template).",
        "导出成什么，可写多个：hf（safetensors，供 transformers、vLLM、SGLang 使用）、gguf（供 llama.cpp 使用）、"
        "ollama（GGUF 加上带训练模板的 Modelfile）。", level="basic", free_on_resume=True)] = ("hf",)
    export_gguf_type: Annotated[Names, Text(
        "Types of the GGUF files, one file each: f32, f16, bf16, q8_0, or what llama.cpp quantises (q6_k, q5_k_m, "
        "q4_k_m, q4_0, q3_k_m, q2_k, iq4_xs and others). Ollama is given the last.",
        "GGUF 文件的类型，每种一个文件：f32、f16、bf16、q8_0，或 llama.cpp 的量化类型（q6_k、q5_k_m、q4_k_m、q4_0、"
        "q3_k_m、q2_k、iq4_xs……）。Ollama 使用最后一种。", level="basic",
        quality="depends", memory="depends", free_on_resume=True)] = ("q8_0",)
    export_imatrix: Annotated[bool | None, Text(
        "Measure on the calibration texts which weights matter (importance matrix), and quantise those more exactly.",
        "用校准文本测出哪些权重重要（importance matrix），量化时对它们更精确。", quality="up", speed="down",
        unset=("on for types below 6 bits where there are texts", "低于 6 比特且有校准文本时开启"),
        higher=("less is lost below 6 bits; takes a pass over the texts", "低于 6 比特时损失更小；要跑一遍文本"),
        lower=("all weights count alike", "所有权重同等对待"), free_on_resume=True)] = None
    export_adapter_only: Annotated[bool, Text(
        "Export the adapter by itself: the base stays what it is, and servers load the adapter beside it. With gguf in "
        "export_format also as a GGUF file.",
        "只导出适配器：基座不变，部署时与基座一起加载。export_format 含 gguf 时也导出为 GGUF 文件。",
        higher=("small files; the base is needed too", "文件小；还需要基座"),
        lower=("the adapter is merged into its base: one model", "适配器合并进基座，成为一个模型"),
        free_on_resume=True)] = False
    export_parity: Annotated[Literal["full", "ids", "off"], Text(
        "What has to be proven before an export counts as done. full: the same tokens, and logits that are near; ids: "
        "the same tokens only; off: nothing, and the model card says so.",
        "导出前必须证明什么。full：token 相同且 logits 接近；ids：只证明 token 相同；off：不证明，模型卡会写明。",
        level="expert", free_on_resume=True)] = "full"
    export_size: Annotated[float, Field(gt=0), Text(
        "Largest file, in GB (10^9 bytes).", "单个文件的上限，单位 GB（10^9 字节）。",
        higher=("fewer, larger files", "文件更少、更大"), lower=("more, smaller files", "文件更多、更小"),
        free_on_resume=True)] = 5
    export_device: Annotated[Literal["cpu", "auto"], Text(
        "Where the merge is computed: cpu, or auto, a GPU where there is one.",
        "在哪里合并：cpu；auto 有 GPU 就用 GPU。", level="expert", free_on_resume=True)] = "cpu"
    export_legacy_format: Annotated[bool, Text(
        "Write pickled .bin files.", "写 pickle 格式的 .bin 文件。", level="expert",
        no_effect=("weights are written as safetensors only", "权重只写成 safetensors"), free_on_resume=True)] = False
    save_safetensors: Annotated[bool, Text(
        "Write checkpoints as safetensors.", "检查点写成 safetensors。", level="expert",
        no_effect=("weights are written as safetensors only", "权重只写成 safetensors"), free_on_resume=True)] = True
    export_quantization_bit: Annotated[int | None, Field(ge=2, le=8), Text(
        "Bits of the weights in the hf export (compressed-tensors, which transformers and vLLM read). Embeddings and "
        "the output head stay as they are.",
        "hf 导出的权重位数（compressed-tensors 格式，transformers 和 vLLM 可读）。embedding 和输出头保持不变。",
        quality="up", memory="up", higher=("nearer to the model that was trained", "更接近训练出的模型"),
        lower=("a smaller file, and answers that are further off; vLLM has kernels for 4 and 8",
               "文件更小，回答偏差更大；vLLM 只有 4 和 8 位的内核"), unset=("not quantised", "不量化"),
        advice=(Advice("The paper that proposed GPTQ found models of 175 billion weights almost as good with 3 or 4 "
                       "bits; small models lose more.",
                       "提出 GPTQ 的论文发现，1750 亿参数的模型用 3、4 位几乎无损；小模型损失更大。", "gptq"),),
        free_on_resume=True)] = None
    export_quantization_method: Annotated[Literal["gptq", "awq", "fp8", "rtn"], Text(
        "How the weights of the hf export are quantised. gptq: fitted to texts, errors of one weight made up for by "
        "the next; awq: what matters most on the texts is rounded more finely; rtn: to the nearest, without texts; "
        "fp8: 8-bit floats, without texts.",
        "hf 导出的权重用什么方法量化。gptq：用文本校准，后面的权重补偿前面的误差；awq：对文本最重要的权重量化得更细；"
        "rtn：直接取最近的值，不需要文本；fp8：8 位浮点，不需要文本。", quality="depends",
        advice=(Advice("AWQ's paper found it to lose less than GPTQ where the texts are of another kind than what the "
                       "model is asked.", "AWQ 的论文发现，校准文本与实际提问不同类时，它比 GPTQ 损失更小。", "awq"),),
        free_on_resume=True)] = "gptq"
    export_quantization_dataset: Annotated[str | None, Text(
        "Texts that quantisation is fitted to: a file, or a name in dataset_info.json.",
        "量化用的校准文本：文件，或 dataset_info.json 里的名字。",
        unset=("the data that the model was trained on", "训练这个模型所用的数据"), free_on_resume=True)] = None
    export_quantization_nsamples: Annotated[int, Field(gt=0), Text(
        "How many of them, drawn at random, the same for the same seed.", "校准数据随机取多少条；seed 相同则相同。",
        level="expert", speed="down", quality="up", memory="up",
        higher=("a better picture of the inputs; takes longer", "对输入的估计更准；更慢"),
        lower=("quicker, and fitted to fewer texts", "更快，但只拟合少量文本"),
        advice=(Advice("The paper used 128 texts of 2,048 tokens.", "论文用了 128 条、每条 2048 个 token。", "gptq"),),
        free_on_resume=True)] = 128
    export_quantization_maxlen: Annotated[int, Field(gt=0), Text(
        "Their greatest length, in tokens; longer ones are cut.", "每条校准数据最多多少 token，超出则截断。",
        level="expert", speed="down", memory="up", higher=("long texts are seen whole", "能看到完整的长文本"),
        lower=("quicker, from the beginnings of the texts only", "更快，只看文本开头"), free_on_resume=True)] = 1024
