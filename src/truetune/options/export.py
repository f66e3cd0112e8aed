"""Options: how a trained model is written for serving."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Group, Text


class ExportOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Export", "导出")

    export_dir: Annotated[str | None, Text(
        "Folder for the merged model.", "合并后的模型写到哪个文件夹。", level="basic", free_on_resume=True)] = None
    export_size: Annotated[float, Field(gt=0), Text(
        "Largest file, in GB (10^9 bytes).", "单个文件的上限，单位 GB（10^9 字节）。", free_on_resume=True)] = 5
    export_device: Annotated[Literal["cpu", "auto"], Text(
        "Where the merge is computed.", "在哪里合并。", level="expert",
        no_effect=(
            "merging is done on the CPU, which has the memory for it",
            "合并在 CPU 上进行，内存足够"), free_on_resume=True)] = "cpu"
    export_legacy_format: Annotated[bool, Text(
        "Write pickled .bin files.", "写 pickle 格式的 .bin 文件。", level="expert",
        no_effect=(
            "weights are written as safetensors only",
            "权重只写成 safetensors"), free_on_resume=True)] = False
