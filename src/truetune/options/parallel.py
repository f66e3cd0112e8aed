"""Options: several devices and machines."""

from __future__ import annotations

from typing import Annotated, ClassVar

from truetune.options.schema import Group, Text


class ParallelOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Parallel", "并行")

    ddp_timeout: Annotated[int, Text(
        "Seconds before a silent process is given up.", "进程多少秒无响应就放弃。", level="expert",
        no_effect=(
            "this run is one process",
            "本次运行只有一个进程"), free_on_resume=True)] = 1800
    use_cpu: Annotated[bool, Text("Train on the CPU although there is a GPU.", "即使有 GPU 也用 CPU 训练。",
                                  level="expert", also={"no_cuda": None}, free_on_resume=True)] = False
