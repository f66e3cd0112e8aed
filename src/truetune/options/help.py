"""`--help`, drawn from the schema: groups in order, basic options first, in the reader's language. Also what it shares
with `explain`, the documentation page and the JSON Schema: an option in words, and lines that fit a terminal.
"""

from __future__ import annotations

import re
import shutil
from typing import get_args
from unicodedata import east_asian_width

from truetune.options import GROUPS, OPTIONS
from truetune.options.schema import LEVELS, Option, Pair, Trend

WIDEST = 120
"""Columns. Longer lines are hard to read on any terminal."""
_MORE = ("`truetune explain NAME` explains one of them, `--help all` shows every option.",
         "`truetune explain 名字` 详细解释一个选项，`--help all` 显示全部选项。")
_ALL = ("`truetune explain NAME` explains one of them.", "`truetune explain 名字` 详细解释一个选项。")


def options_help(groups: tuple[str, ...], everything: bool, language: str) -> str:
    """The options of the groups titled `groups` (English titles).

    Args:
        everything: all levels, with what happens when they are raised and lowered; not only the basic ones.
        language: `zh` or `en`.
    """
    chinese = language == "zh"
    columns = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    lines: list[str] = []
    for group in GROUPS:
        shown = [option for option in OPTIONS.values() if option.group is group and group.title[0] in groups
                 and (everything or (option.text.level == "basic" and not why_not(option)))]
        if shown:
            lines += ["", group.title[chinese] + ("：" if chinese else ":")]
        for option in in_order(shown):
            lines += _entry(option, everything, chinese, columns)
    return "\n".join([*lines, "", (_ALL if everything else _MORE)[chinese]])


def in_order(options: list[Option]) -> list[Option]:
    """Basic first, experts' last; after them what has no effect here."""
    return sorted(options, key=lambda option: (bool(why_not(option)), LEVELS.index(option.text.level)))


def _entry(option: Option, everything: bool, chinese: bool, columns: int) -> list[str]:
    if why_not(option):
        return wrap(f"--{option.name}  {why_not(option, chinese)}", columns, "  ", " " * 6)
    values = option.takes(chinese)
    if option.default_text:
        values += f"；默认 {option.default_text}" if chinese else f"; default {option.default_text}"
    also = [name + (f" {'|'.join(values)}" if values else "") for name, values in option.text.also.items()]
    names = f"{option.name} (= {', '.join(also)})" if also else option.name
    told = [option.text.zh if chinese else option.text.en]
    if option.text.unset and not option.default_text:
        told.append(f"不填：{option.text.unset[1]}。" if chinese else f"Unset: {option.text.unset[0]}.")
    if everything:
        told += [f"{way}：{words}" if chinese else f"{way}: {words}" for way, words in turns(option, chinese)]
    return [*wrap(f"--{names}  [{values}]", columns, "  ", " " * 6),
            *(line for words in told for line in wrap(words, columns, " " * 6, " " * 6))]


# ---------------------------------------------------------------------------------------------------------------------
# An option in words, one language at a time


def why_not(option: Option, chinese: bool = False) -> str:
    """Why a known option does nothing here, as a sentence; empty for one that does something."""
    text = option.text
    if text.no_effect:
        return f"在这里不起作用：{text.no_effect[1]}。" if chinese else f"No effect here: {text.no_effect[0]}."
    if text.not_offered:
        return f"这里不支持：{text.not_offered[1]}。" if chinese else f"Not done here: {text.not_offered[0]}."
    return ""


def default_words(option: Option, chinese: bool, mark: str = "") -> str:
    """What is taken when nothing is given: the default, between two of `mark`, and what it depends on."""
    default = f"{mark}{option.default_text}{mark}" if option.default_text else ""
    unset = option.text.unset[chinese] if option.text.unset else ""
    return ("；" if chinese else "; ").join(filter(None, [default, unset])) or ("无" if chinese else "none")


def other_names(option: Option) -> list[str]:
    """`lora_r`; with other values too `use_lora (true = lora, false = full)`."""
    return [name + (f" ({', '.join(f'{theirs} = {ours}' for theirs, ours in values.items())})" if values else "")
            for name, values in option.text.also.items()]


def turns(option: Option, chinese: bool) -> list[tuple[str, str]]:
    """Which way it is turned, and what happens then: `("↑ higher", "learns faster, then diverges")`."""
    pairs = zip(_ways(option), (option.text.higher, option.text.lower), strict=True)
    return [(way[chinese], happens[chinese]) for way, happens in pairs if happens]


def costs(option: Option, chinese: bool) -> list[tuple[str, Trend, str]]:
    """What becomes of memory, speed and quality when it is raised or switched on: `("memory", "up", "↑ more")`. Nothing
    for an option that cannot be turned and costs nothing."""
    text = option.text
    trends = (text.memory, text.speed, text.quality)
    if not turns(option, chinese) and set(trends) == {"same"}:
        return []
    return [(name[chinese], trend, {**_EITHER, **words}[trend][chinese])
            for (name, words), trend in zip(_COSTS, trends, strict=True)]


def when(option: Option) -> Pair:
    """When it costs what `costs` says."""
    kinds = _kinds(option)
    return (("if on", "开启后") if bool in kinds else ("if higher", "调高后") if kinds & {int, float} else
            ("changes", "影响"))


def _ways(option: Option) -> tuple[Pair, Pair]:
    switch = bool in _kinds(option)
    return (("on", "开启"), ("off", "关闭")) if switch else (("↑ higher", "↑ 调高"), ("↓ lower", "↓ 调低"))


def _kinds(option: Option) -> set[object]:
    """The types it takes: of `bool | None` bool among them."""
    parts = get_args(option.info.annotation)
    return {option.info.annotation, *parts, *(kind for part in parts for kind in get_args(part))}


_COSTS: tuple[tuple[Pair, dict[Trend, Pair]], ...] = (
    (("memory", "显存"), {"up": ("↑ more", "↑ 更多"), "down": ("↓ less", "↓ 更少")}),
    (("speed", "速度"), {"up": ("↑ faster", "↑ 更快"), "down": ("↓ slower", "↓ 更慢")}),
    (("quality", "效果"), {"up": ("↑ better", "↑ 更好"), "down": ("↓ worse", "↓ 更差")}),
)
_EITHER: dict[Trend, Pair] = {"depends": ("~ depends", "~ 视情况"), "same": ("= same", "= 不变")}


# ---------------------------------------------------------------------------------------------------------------------
# Lines that fit

_OPEN, _CLOSE = "（《“「『【", "，。；：！？、）》”」』】…"
_WIDE = "\u2e80-\u2fff\u3040-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
_CHUNK = re.compile(rf"\s+|[{_OPEN}]*(?:[{_WIDE}]|[^\s|{_OPEN}{_CLOSE}{_WIDE}]+\|?|\|)[{_CLOSE}]*|[{_OPEN}{_CLOSE}]+")
"""What a line may not break: a word, a Chinese character with its punctuation, one of `several|choices`."""


def wrap(text: str, columns: int, first: str = "", rest: str = "") -> list[str]:
    """`text` in lines of at most `columns` columns, unless a single word (a link) is longer.

    Chinese has no spaces to break lines at, so a line may end after any character, but none begins with a comma.

    Args:
        first, rest: what the first and the other lines begin with.
    """
    lines, line, used = [], first, width(first)
    start = used
    for chunk in _CHUNK.findall(text):
        more = width(chunk)
        if used > start and not chunk.isspace() and used + more > columns:
            lines.append(line.rstrip())
            line, used = rest, width(rest)
            start = used
        line, used = line + chunk, used + more
    return [*lines, line.rstrip()]


def width(text: str) -> int:
    """Columns that `text` takes on a terminal: Chinese characters take two."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(letter) in "WF") for letter in text)
