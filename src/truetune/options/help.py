"""`--help`, drawn from the schema: groups in order, basic options first, in the reader's language."""

from __future__ import annotations

import shutil
import textwrap

from truetune.options import GROUPS, OPTIONS
from truetune.options.schema import LEVELS, Option

_MORE = ("`--help all` shows every option.", "`--help all` 显示全部选项。")


def options_help(groups: tuple[str, ...], everything: bool, language: str) -> str:
    """The options of the groups titled `groups` (English titles).

    Args:
        everything: all levels, not only the basic one.
        language: `zh` or `en`.
    """
    chinese = language == "zh"
    lines: list[str] = []
    for group in GROUPS:
        shown = [option for option in OPTIONS.values() if option.group is group
                 and (everything or option.text.level == "basic") and group.title[0] in groups]
        if not shown:
            continue
        lines += ["", group.title[chinese] + ("：" if chinese else ":")]
        for option in sorted(shown, key=lambda option: LEVELS.index(option.text.level)):
            lines += _entry(option, chinese)
    return "\n".join(lines + ([] if everything else ["", _MORE[chinese]]))


def _entry(option: Option, chinese: bool) -> list[str]:
    takes = option.takes(chinese)
    if option.default_text:
        takes += f"；默认 {option.default_text}" if chinese else f"; default {option.default_text}"
    also = [name + (f" {'|'.join(values)}" if values else "") for name, values in option.text.also.items()]
    names = f"{option.name} (= {', '.join(also)})" if also else option.name
    head = f"  --{names}  [{takes}]"
    without = option.text.no_effect or option.text.not_offered
    if chinese:  # has no spaces to break lines at; a terminal breaks it anywhere
        return [head, f"      {option.text.zh}{f'在这里不起作用：{without[1]}。' if without else ''}"]
    text = f"{option.text.en} No effect here: {without[0]}." if without else option.text.en
    width = min(shutil.get_terminal_size((120, 24)).columns, 120)
    return [head, *textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)]
