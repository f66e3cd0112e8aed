"""Options: which optimizer, and its settings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from truetune.options.schema import Group, Text


class OptimizerOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Optimizer", "优化器")

    optim: Annotated[Literal["adamw_torch", "adamw_torch_fused"], Text(
        "The optimizer.", "优化器。", level="expert")] = "adamw_torch"
    adam_beta1: Annotated[float, Field(ge=0, lt=1), Text(
        "Memory of AdamW's mean.", "AdamW 一阶矩的记忆。", level="expert")] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1), Text(
        "Memory of AdamW's spread.", "AdamW 二阶矩的记忆。", level="expert")] = 0.999
    adam_epsilon: Annotated[float, Field(gt=0), Text(
        "Keeps AdamW from dividing by 0.", "防止 AdamW 除以 0。", level="expert")] = 1e-8
