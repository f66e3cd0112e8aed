"""`--help`, drawn from the schema: groups in order, basic options first, in the reader's language."""

from __future__ import annotations

from truetune.options import GROUPS, OPTIONS
from truetune.options.schema import LEVELS, Option

_MORE = ("`--help all` shows every option.", "`--help all` 显示全部选项。")


def options_help(groups: tuple[str, ...], everything: bool, language: str) -> str:
    """The options of the groups titled `groups` (English titles).

    Args:
        everything: all levels, not only the basic one. language: `zh`, or English.
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
    default = option.default
    if isinstance(default, tuple):
        default = ",".join(default)
    takes = option.takes + (f"; default {default}" if default not in (None, "", {}) else "")
    also = f" (= {', '.join(option.text.also)})" if option.text.also else ""
    text = option.text.zh if chinese else option.text.en
    return [f"  --{option.name}{also}  [{takes}]", f"      {text}"]
