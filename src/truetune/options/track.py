"""Options: where a run's numbers go."""

from __future__ import annotations

from typing import Annotated, ClassVar

from truetune.options.schema import Group, Names, Text


class TrackOptions(Group):
    title: ClassVar[tuple[str, str]] = ("Tracking", "记录")

    report_to: Annotated[Names, Text(
        "Experiment trackers; none.", "实验记录平台；none 表示不用。", free_on_resume=True)] = ("none",)
    run_name: Annotated[str | None, Text("A name for the run.", "运行的名字。", free_on_resume=True)] = None
    include_num_input_tokens_seen: Annotated[bool, Text(
        "Count tokens in the log.", "在日志里记录 token 数。", level="expert",
        no_effect=(
            "tokens are always counted",
            "总是统计 token 数"), free_on_resume=True)] = True
    plot_loss: Annotated[bool, Text("Draw training_loss.png.", "画出 training_loss.png。", free_on_resume=True)] = True
