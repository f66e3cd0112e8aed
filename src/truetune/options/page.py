"""docs/options.md, drawn from the schema: `truetune schema --markdown`. Basic and advanced options in full, those for
experts folded, those without effect here in a table with the reason, then the words of the log and the sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from truetune.options import GROUPS, OPTIONS, Option
from truetune.options.help import costs, default_words, in_order, other_names, turns, when, why_not
from truetune.options.schema import Group, Pair, Text
from truetune.options.sources import SOURCES
from truetune.options.terms import TERMS, Term

_HEAD = ("""# Options

[中文](options.zh-CN.md)

Every option of truetune: what it does, which way to turn it, what it costs, and who advises what. Write it in a file as
`name: value`, or on the command line as `--name value` or `name=value`. `truetune explain NAME` shows the same in the
terminal, and `truetune explain overfit` finds what speaks of a word. With

```yaml
# yaml-language-server: $schema=truetune.schema.json
```

in the first line of run.yaml, and the file that `truetune schema > truetune.schema.json` writes beside it, VS Code
(with its YAML extension) and other editors complete and check options while they are typed.
""", """# 选项

[English](options.md)

truetune 的全部选项：做什么、往哪边调、代价是什么、建议来自哪里。写在文件里是 `name: value`，写在命令行上是
`--name value` 或 `name=value`。在终端里用 `truetune explain 名字` 查看同样的内容，`truetune explain 过拟合`
搜索提到某个词的选项。在 run.yaml 第一行写上

```yaml
# yaml-language-server: $schema=truetune.schema.json
```

并用 `truetune schema --lang zh > truetune.schema.json` 在旁边生成这个文件，
VS Code（装好 YAML 扩展）等编辑器就能在输入时补全和检查选项。
""")
_LOG: Pair = ("Words of the log", "日志字段")
_SOURCES: Pair = ("Sources", "出处")


def options_page(chinese: bool = False) -> str:
    """The page in one language, as the text of a file."""
    groups = [(group, mine) for group in GROUPS
              if (mine := in_order([option for option in OPTIONS.values() if option.group is group]))]
    parts = [_HEAD[chinese], *_contents(groups, chinese)]
    for group, options in groups:
        parts += _group(group, options, chinese)
    parts += [f"## {_LOG[chinese]}\n", *(_term(name, term, chinese) for name, term in TERMS.items())]
    parts += [f"## {_SOURCES[chinese]}\n", *(f"- {cited(name)}" for name in SOURCES)]
    return "\n".join(parts) + "\n"


def _contents(groups: Sequence[tuple[type[Group], Sequence[Option]]], chinese: bool) -> Iterator[str]:
    """A line a group, with its basic options."""
    for group, options in groups:
        basic = ", ".join(f"[`{option.name}`](#{option.name})" for option in options
                          if option.text.level == "basic" and not why_not(option))
        yield f"- **{_link(group.title[chinese])}**{f'{_colon(chinese)}{basic}' if basic else ''}"
    yield f"- {_link(_LOG[chinese])}\n- {_link(_SOURCES[chinese])}\n"


def _group(group: type[Group], options: Sequence[Option], chinese: bool) -> Iterator[str]:
    working = [option for option in options if not why_not(option)]
    expert = [option for option in working if option.text.level == "expert"]
    yield f"## {group.title[chinese]}\n"
    for option in working[: len(working) - len(expert)]:
        yield _option(option, chinese)
    if expert:
        names = ", ".join(f"<code>{option.name}</code>" for option in expert)
        yield f"<details><summary>{'专家选项' if chinese else 'For experts'}{_colon(chinese)}{names}</summary>\n"
        yield from (_option(option, chinese) for option in expert)
        yield "</details>\n"
    for (en, zh), reason in _IDLE:
        rows = [f"| {_names(option)} | {as_markdown(pair[chinese])} |"
                for option in options if (pair := reason(option.text))]
        if rows:
            yield "\n".join([f"| {zh if chinese else en} | {'原因' if chinese else 'why'} |\n|---|---|", *rows, ""])


_IDLE: tuple[tuple[Pair, Callable[[Text], Pair | None]], ...] = (
    (("accepted, not done here yet", "可以写，但这里还不支持"), lambda text: text.not_offered),
    (("accepted, no effect here", "可以写，在这里不起作用"), lambda text: text.no_effect),
)


def _option(option: Option, chinese: bool) -> str:
    """An option in full: a heading to link to, what it does, and a list of the rest."""
    text, colon = option.text, _colon(chinese)
    null = (" 或 null" if chinese else " or null") if option.takes_null else ""
    facts = [as_markdown(option.takes(chinese)) + null,
             f"{'默认' if chinese else 'default'}{colon}{as_markdown(default_words(option, chinese, '`'))}"]
    if text.also:
        facts.append(f"{'别名' if chinese else 'also'} {', '.join(f'`{name}`' for name in other_names(option))}")
    moved = [f"{name} {words}" for name, trend, words in costs(option, chinese) if trend != "same"]
    lines = ["；".join(facts) if chinese else "; ".join(facts),
             *(f"**{way}**{colon}{as_markdown(words)}" for way, words in turns(option, chinese))]
    if moved:
        lines.append(f"{when(option)[chinese]}{colon}{('，' if chinese else ', ').join(moved)}")
    for advice in text.advice:
        lines.append(f"{as_markdown(advice.zh if chinese else advice.en)} — {cited(advice.source)}")
    items = "".join(f"- {line}\n" for line in lines)
    return f"### `{option.name}`\n\n{as_markdown(text.zh if chinese else text.en)}\n\n{items}"


def _term(name: str, term: Term, chinese: bool) -> str:
    """A word of the log."""
    names, colon = ", ".join(f"`{word}`" for word in (name, *term.also)), _colon(chinese)
    unit = f" ({as_markdown(term.unit[chinese])})" if term.unit else ""
    parts = (("Good", "正常", term.good), ("Bad", "异常", term.bad), ("Then", "怎么办", term.then))
    items = [f"- {zh if chinese else en}{colon}{as_markdown(pair[chinese])}\n" for en, zh, pair in parts if pair]
    return f"**{names}**{unit}{colon}{as_markdown(term.what[chinese])}\n\n{''.join(items)}"


def cited(source: str) -> str:
    """A link to a source, by its key."""
    return f"[{as_markdown(SOURCES[source].title)}]({SOURCES[source].link})"


def _names(option: Option) -> str:
    return ", ".join(f"`{name}`" for name in (option.name, *option.text.also))


def _link(title: str) -> str:
    """A link to a heading, which GitHub names so."""
    anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
    return f"[{title}](#{anchor})"


def _colon(chinese: bool) -> str:
    return "：" if chinese else ": "


def as_markdown(text: str) -> str:
    """Words with what Markdown would take for a mark escaped, but in `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*<\[\]|$~])", r"\\\1", part) for part in parts)
