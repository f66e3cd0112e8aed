"""Options: how a trained model is written for serving."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Group, Text

_QUANTIZED = ("weights are exported in 16 or 32 bits; none are quantised yet", "导出 16 或 32 位权重，暂不量化")
_SETTING = ("a setting of export_quantization_bit, which is not done yet",
            "这是 export_quantization_bit 的设置，该功能尚未支持")


class ExportOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Export", "导出")

    export_dir: Annotated[str | None, Text(
        "Folder for the merged model.", "合并后的模型写到哪个文件夹。", level="basic",
        unset=("an error in `truetune export`; no other command needs it", "`truetune export` 会报错，其他命令不需要"),
        free_on_resume=True)] = None
    export_size: Annotated[float, Field(gt=0), Text(
        "Largest file, in GB (10^9 bytes).", "单个文件的上限，单位 GB（10^9 字节）。",
        higher=("fewer, larger files", "文件更少、更大"), lower=("more, smaller files", "文件更多、更小"),
        free_on_resume=True)] = 5
    export_device: Annotated[Literal["cpu", "auto"], Text(
        "Where the merge is computed: cpu, or auto, a GPU where there is one.",
        "在哪里合并：cpu；auto 有 GPU 就用 GPU。", level="expert",
        no_effect=("merging is done on the CPU, which has the memory for it", "合并在 CPU 上进行，内存足够"),
        free_on_resume=True)] = "cpu"
    export_legacy_format: Annotated[bool, Text(
        "Write pickled .bin files.", "写 pickle 格式的 .bin 文件。", level="expert",
        no_effect=("weights are written as safetensors only", "权重只写成 safetensors"), free_on_resume=True)] = False
    save_safetensors: Annotated[bool, Text(
        "Write checkpoints as safetensors.", "检查点写成 safetensors。", level="expert",
        no_effect=("weights are written as safetensors only", "权重只写成 safetensors"), free_on_resume=True)] = True
    export_quantization_bit: Annotated[int | None, Field(ge=2, le=8), Text(
        "Bits of GPTQ weights in the export (2, 3, 4 or 8). Unset: not quantised.",
        "导出的 GPTQ 权重的位数（2、3、4、8）。不填则不量化。", level="expert",
        not_offered=_QUANTIZED, free_on_resume=True)] = None
    export_quantization_dataset: Annotated[str | None, Text(
        "Texts that GPTQ is fitted to. Unset: none.", "GPTQ 的校准数据。不填则没有。", level="expert",
        no_effect=_SETTING, free_on_resume=True)] = None
    export_quantization_nsamples: Annotated[int, Field(gt=0), Text(
        "How many of them.", "校准数据取多少条。", level="expert",
        no_effect=_SETTING, free_on_resume=True)] = 128
    export_quantization_maxlen: Annotated[int, Field(gt=0), Text(
        "Their length, in tokens.", "每条校准数据的 token 数。", level="expert",
        no_effect=_SETTING, free_on_resume=True)] = 1024
