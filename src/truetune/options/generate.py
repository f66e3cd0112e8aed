"""Options: how answers are generated in chat."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from truetune.options.schema import Group, Text


class GenerateOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Generation", "生成")

    do_sample: Annotated[bool, Text(
        "Draw words at random by their probability; off: always the likeliest.",
        "按概率随机取词；关闭则总取最可能的词。", free_on_resume=True)] = True
    temperature: Annotated[float, Field(ge=0), Text(
        "Higher: more surprising; 0: always the likeliest word.", "调高：更出人意料；0：总取最可能的词。",
        level="basic", free_on_resume=True)] = 0.95
    top_p: Annotated[float, Field(gt=0, le=1), Text(
        "Only the likeliest words that together have this probability.", "只在累计概率达到该值的最可能的词里取。",
        level="basic", free_on_resume=True)] = 0.7
    top_k: Annotated[int, Field(ge=0), Text(
        "Only the so many likeliest words; 0: no limit.", "只在最可能的若干个词里取；0 不限。",
        free_on_resume=True)] = 50
    max_new_tokens: Annotated[int, Field(gt=0), Text(
        "Longest answer, in tokens.", "回答最多的 token 数。", level="basic", free_on_resume=True)] = 1024
    repetition_penalty: Annotated[float, Field(gt=0), Text(
        "Above 1: words already said become less likely.", "大于 1：说过的词更不可能再出现。",
        free_on_resume=True)] = 1.0
