"""Options: which model, and how it is loaded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from truetune.options.schema import Group, Names, Text


class ModelOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Model", "模型")

    model_name_or_path: Annotated[str | None, Text(
        "The base model: a local folder, a hub id, or bundled/smollm2-135m-instruct.",
        "基座模型：本地文件夹、hub 上的 id，或 bundled/smollm2-135m-instruct。", level="basic")] = None
    adapter_name_or_path: Annotated[Names, Text(
        "A trained LoRA adapter. In training it is trained on; in chat and export it is put on the base model.",
        "已训练的 LoRA 适配器。训练时在其上继续训练；对话和导出时加载到基座模型上。", level="basic")] = ()
    template: Annotated[str | None, Text(
        "Name of a chat template, as in LLaMA-Factory (llama3, qwen3, chatml and 121 more). It is trained with, and "
        "saved with the model. Unset: the template that the model itself brings.",
        "对话模板的名字，与 LLaMA-Factory 相同（llama3、qwen3、chatml 等 124 个）。用它训练，并随模型保存。"
        "不填：用模型自带的模板。",
        level="basic")] = None
    model_revision: Annotated[str, Text(
        "Which version (branch, tag or commit) of a hub model.",
        "hub 模型的版本（分支、标签或提交）。", level="expert")] = "main"
    cache_dir: Annotated[str | None, Text(
        "Where models from a hub are kept.", "hub 模型的缓存目录。", level="expert", free_on_resume=True)] = None
    flash_attn: Annotated[Literal["auto", "disabled", "sdpa", "fa2", "fa3"], Text(
        "Attention kernel. auto picks the fastest that keeps rows apart on this device and checks it on the first "
        "batch; disabled runs plain attention, row by row.",
        "注意力内核。auto 选用本机上能隔离各行的最快内核，并用第一个批次核对；disabled 逐行用普通注意力。",
        level="expert", free_on_resume=True)] = "auto"
    infer_dtype: Annotated[Literal["auto", "float16", "bfloat16", "float32"], Text(
        "Number format of the model in chat and of the exported weights. auto keeps the model's own.",
        "对话时模型的数值格式，也是导出权重的格式。auto 沿用模型自己的格式。", free_on_resume=True)] = "auto"
    trust_remote_code: Annotated[bool, Text(
        "Would run Python code that comes with a model.", "运行模型附带的 Python 代码。", level="expert",
        no_effect=(
            "code that comes with a model is never run; architectures known to transformers work without it",
            "模型附带的代码从不运行；transformers 认识的结构不需要它"),
        free_on_resume=True)] = False
    use_fast_tokenizer: Annotated[bool, Text(
        "Use the Rust tokenizer.", "使用 Rust 分词器。", level="expert",
        no_effect=(
            "the fast tokenizer is always used, since masks need its offsets",
            "总是使用快速分词器，掩码需要它的位置信息"), free_on_resume=True)] = True
    low_cpu_mem_usage: Annotated[bool, Text(
        "Load weights without a second copy in memory.", "加载权重时不在内存中保留第二份。", level="expert",
        no_effect=(
            "weights are always loaded this way",
            "权重总是这样加载"), free_on_resume=True)] = True
