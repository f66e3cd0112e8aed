"""What the Data tab shows, as HTML: rows as conversations, columns and what they are taken for, bad rows, statistics.

Whatever comes from a file or a person is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from truetune.data.describe import KINDS, Column, Description, meaning
from truetune.data.listing import Listed
from truetune.data.messages import Conversation, Document, Judged, Message, Preference, Row
from truetune.data.reading import Refused
from truetune.data.survey import Lengths, Look, Survey
from truetune.findings import Both, Finding, spoken, worst_first
from truetune.web.words import Language, say

STYLE = """
.tt-turn { border-left: 3px solid var(--border-color-primary); padding: .15rem .7rem; margin: .3rem 0; }
.tt-turn.user { border-color: #0b63b5; } .tt-turn.assistant { border-color: #14713a; }
.tt-turn.tool { border-color: #946200; } .tt-turn.system { border-color: #8e24aa; }
.tt-turn b { font-size: .8em; color: var(--body-text-color-subdued); font-weight: 600; display: block; }
.tt-text { white-space: pre-wrap; overflow-wrap: anywhere; }
.tt-row { border: 1px solid var(--border-color-primary); border-radius: var(--radius-md); padding: .5rem .8rem;
  margin: .5rem 0; background: var(--background-fill-primary); }
.tt-where, .tt-soft { color: var(--body-text-color-subdued); font-size: .85em; overflow-wrap: anywhere; }
.tt-scroll { overflow-x: auto; } .tt-sets { max-height: 26rem; overflow: auto; }
table.tt { border-collapse: collapse; width: 100%; font-size: .92em; border: none !important; margin: 0; }
table.tt tr { border: none !important; }
table.tt th { text-align: left; font-weight: 600; color: var(--body-text-color-subdued); white-space: nowrap; }
table.tt th, table.tt td { padding: .3rem .7rem .3rem 0; vertical-align: top;
  border: solid var(--border-color-primary); border-width: 0 0 1px !important; }
table.tt td { overflow-wrap: anywhere; min-width: 3.5rem; } table.tt td.tt-number { white-space: nowrap; }
table.tt tr.tt-chosen { background: var(--background-fill-secondary); }
button.tt-name { color: var(--link-text-color); text-decoration: underline; background: none; border: none;
  cursor: pointer; font: inherit; padding: .1rem 0; text-align: left; overflow-wrap: anywhere; }
.tt-finding { margin: .25rem 0; padding: .3rem .7rem; border-left: 3px solid; overflow-wrap: anywhere; }
.tt-finding.error { border-color: #c62828; } .tt-finding.warn { border-color: #b26a00; }
.tt-finding.info { border-color: #0b63b5; } .tt-good { border-left: 3px solid #14713a; padding: .3rem .7rem; }
.tt-bar { background: #2e7d5b; height: .8rem; min-width: 1px; } .tt-over .tt-bar { background: #b26a00; }
table.tt-bars { font-size: .85em; } table.tt-bars td { padding: .05rem .6rem .05rem 0; white-space: nowrap; }
table.tt-bars td:nth-child(2) { width: 22rem; max-width: 45vw; }
@media (max-width: 640px) { .tt-sets table.tt { min-width: 44rem; } }
.tt-example { white-space: pre; overflow-x: auto; font: .85em/1.5 ui-monospace, Menlo, Consolas, monospace;
  background: var(--background-fill-secondary); padding: .5rem .7rem; border-radius: var(--radius-md); }
"""
"""For `css_template` of gr.HTML, which keeps it to that component."""
_MOST = 1200
"""Letters of a text that are shown."""

ROLES = {"system": Both("system prompt", "系统提示"), "user": Both("user", "用户"),
         "assistant": Both("assistant", "助手"), "tool": Both("tool result", "工具结果")}


def paragraph(words: Both, language: Language, style: str = "") -> str:
    """One line of text."""
    return f'<p class="{style}">{escape(say(words, language))}</p>'


def findings_html(findings: Iterable[Finding], language: Language) -> str:
    """Findings, the worst first, as the command line tells them."""
    return "".join(f'<div class="tt-finding {finding.severity}">{escape(_line(finding, language))}</div>'
                   for finding in worst_first(findings))


def _line(finding: Finding, language: Language) -> str:
    line = finding.line(language != "en").partition("  ")[2].strip()  # the colour tells how bad it is
    return say(Both(line, line), language)


# ---------------------------------------------------------------------------------------------------------------- rows


def rows_html(rows: Sequence[Row], language: Language) -> str:
    """Rows as conversations."""
    return "".join(_row(row, language) for row in rows)


def _row(row: Row, language: Language) -> str:
    judged = ""
    match row:
        case Document(text):
            turns = [_turn("assistant", Both("text", "文本"), text, language)]
        case Judged(talk, good):
            turns = _talk(talk.messages, language)
            judged = say(_JUDGED[good], language)
        case Preference(chosen, rejected):
            turns = [*_talk(chosen.messages[:-1], language),
                     _turn("assistant", Both("better answer", "较好的回答"), said(chosen.messages[-1]), language),
                     _turn("tool", Both("worse answer", "较差的回答"), said(rejected.messages[-1]), language)]
        case Conversation(messages):
            turns = _talk(messages, language)
    return (f'<div class="tt-row"><div class="tt-where">{escape(str(row.place))}{escape(judged)}</div>'
            f'{"".join(turns)}</div>')


def _talk(messages: Sequence[Message], language: Language) -> list[str]:
    shown = messages if len(messages) <= _TURNS else [*messages[:_TURNS - 1], messages[-1]]
    turns = [_turn(message.role, ROLES[message.role], said(message), language) for message in shown]
    if len(shown) < len(messages):
        hidden = len(messages) - len(shown)
        left_out = Both(f"… {hidden} more turns …", f"…… 还有 {hidden} 条消息 ……")
        turns.insert(-1, paragraph(left_out, language, "tt-soft"))
    return turns


_TURNS = 8
_JUDGED = {True: Both(" · judged good", " · 标注为好"), False: Both(" · judged bad", " · 标注为差")}


def said(message: Message) -> str:
    """What a message says, its thought and its calls included."""
    thought = [f"<think>\n{message.reasoning}\n</think>"] if message.reasoning else []
    calls = [f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"
             for call in message.tool_calls]
    return "\n".join([*thought, *filter(None, [message.content]), *calls])


def _turn(style: str, who: Both, text: str, language: Language) -> str:
    more = say(Both(f" … ({len(text):,} letters in all)", f" ……（共 {len(text):,} 个字符）"), language)
    shown = escape(text[:_MOST]) + (f'<span class="tt-soft">{escape(more)}</span>' if len(text) > _MOST else "")
    return f'<div class="tt-turn {style}"><b>{escape(say(who, language))}</b><div class="tt-text">{shown}</div></div>'


def refused_html(refused: Sequence[Refused], total: int, language: Language) -> str:
    """Rows that cannot be learned from: where, and why. total: how many there are."""
    if not refused:
        return ""
    lines = "".join(f"<tr><td class='tt-number'>{escape(str(row.place))}</td>"
                    f"<td>{escape(_spoken(row, language))}</td></tr>" for row in refused[:_ROWS])
    more = paragraph(Both(f"… and {total - _ROWS:,} more.", f"…… 另有 {total - _ROWS:,} 行。"), language, "tt-soft") \
        if total > _ROWS else ""
    head = _head(language, Both("Row", "行"), Both("Why it cannot be learned from", "为什么无法学习"))
    return f'<div class="tt-scroll"><table class="tt">{head}{lines}</table></div>{more}'


_ROWS = 50


def _spoken(row: Refused, language: Language) -> str:
    fix = f" {spoken(row.fix, language != 'en')}" if row.fix else ""
    return say(Both(f"{row.reason}{fix}", f"{spoken(row.reason, True)}{fix}"), language)


# ------------------------------------------------------------------------------------------------------------- columns


def columns_html(columns: Sequence[Column], description: Description | None, language: Language) -> str:
    """The columns of a file, what is in them, and what each is taken for."""
    taken: dict[str, list[str]] = {}
    for what, name in meaning(description) if description else ():
        taken.setdefault(name, []).append(say(what, language))
    unread = say(Both("not read", "不读取"), language)
    lines = "".join(
        f"<tr><td><b>{escape(column.name)}</b></td><td>{escape(', '.join(taken.get(column.name, [unread])))}</td>"
        f"<td>{escape(say(column.holds, language))}{_partly(column, language)}</td>"
        f'<td class="tt-soft">{escape(column.sample)}</td></tr>' for column in columns[:_ROWS])
    head = _head(language, Both("Column", "列"), Both("is taken for", "当作"), Both("holds", "内容"),
                 Both("begins with", "示例"))
    return f'<div class="tt-scroll"><table class="tt">{head}{lines}</table></div>'


def _partly(column: Column, language: Language) -> str:
    if column.filled == column.of or not column.filled:
        return ""
    return escape(say(Both(f" (in {column.filled} of {column.of} rows)", f"（{column.of} 行中有 {column.filled} 行）"),
                      language))


def _head(language: Language, *titles: Both) -> str:
    return f"<tr>{''.join(f'<th scope=col>{escape(say(title, language))}</th>' for title in titles)}</tr>"


def understood(look: Look, language: Language) -> str:
    """In a sentence what a file holds, and how sure that is."""
    if look.layout is None:
        return ""
    kind = KINDS[look.layout.kind]
    if look.sure == "guessed":
        return findings_html([Finding("guessed", "warn", Both(
            f"This looks like {kind.en}, going by the names of its columns.",
            f"从列名看，这像是{kind.zh}。"), fix=Both("Is it right in the rows below? If not, set the columns.",
                                              "下面的预览对吗？不对的话请设置各列的含义。"))], language)
    return paragraph(Both(f"It holds {kind.en}.", f"内容是{kind.zh}。"), language, "tt-good")


# ---------------------------------------------------------------------------------------------------------------- sets


def sets_html(found: Sequence[Listed], chosen: str, language: Language) -> str:
    """The table of data sets; the name of each is a button with the name in `data-set`."""
    head = _head(language, Both("Data set", "数据集"), Both("holds", "内容"), Both("for stage", "适用阶段"),
                 Both("rows", "行数"), Both("file", "文件"), Both("to mend", "问题"))
    lines = "".join(_set_row(one, one.name == chosen, language) for one in found)
    return f'<div class="tt-sets" tabindex="0"><table class="tt" id="data-sets">{head}{lines}</table></div>'


def _set_row(one: Listed, chosen: bool, language: Language) -> str:
    kind = say(KINDS[one.kind], language) if one.kind else "–"
    rows = "–" if one.rows is None else f"{say(Both('about ', '约 '), language) if one.about else ''}{one.rows:,}"
    size = f'<br><span class="tt-soft">{size_of(one.bytes)}</span>' if one.paths else ""
    wrong = findings_html(one.findings[:2], language)
    return (f'<tr class="{"tt-chosen" if chosen else ""}"><td><button type="button" class="tt-name" '
            f'data-set="{escape(one.name)}">{escape(one.name)}</button></td><td>{escape(kind)}</td>'
            f"<td>{', '.join(one.stages) or '–'}</td><td class='tt-number'>{rows}</td>"
            f"<td>{escape(one.file)}{size}</td><td>{wrong}</td></tr>")


def size_of(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


# ---------------------------------------------------------------------------------------------------------- statistics


def survey_html(found: Survey, language: Language) -> str:
    """All that was counted, as two columns, then the bad rows."""
    lines = "".join(f"<tr><th scope=row>{escape(say(what, language))}</th><td>{escape(say(much, language))}</td></tr>"
                    for what, much in _counted(found))
    unit = Both("characters a row", "每行字符数")
    return "".join([
        findings_html(found.findings, language), f'<div class="tt-scroll"><table class="tt">{lines}</table></div>',
        bars_html(found.letters, unit, language), refused_html(found.refused, sum(found.bad.values()), language)])


def _counted(found: Survey) -> Iterator[tuple[Both, Both]]:
    good = max(found.good, 1)
    bad = sum(found.bad.values())
    yield Both("rows", "行数"), _plain(f"{found.rows:,}")
    if bad:
        yield Both("cannot be learned from", "无法学习"), Both(f"{bad:,} rows (below)", f"{bad:,} 行（见下）")
    answers = ", ".join(f"{turns}: {count:,}" for turns, count in sorted(found.turns.items())[:8])
    if set(found.turns) - {0, 1}:
        yield Both("answers in a row: rows", "每行的回答数：行数"), _plain(answers)
    if found.systems:
        yield Both("with a system prompt", "带系统提示"), _plain(f"{found.systems:,}")
    if found.labels:
        yield Both("judged good / bad", "标注为好 / 差"), _plain(f"{found.labels[True]:,} / {found.labels[False]:,}")
    yield Both("length of a row", "每行长度"), Both(
        f"{found.letters.median:,} characters (median), {found.letters.longest:,} at most",
        f"中位数 {found.letters.median:,} 个字符，最长 {found.letters.longest:,}")
    yield Both("length of the answers", "回答长度"), Both(
        f"{found.answers.median:,} characters (median), {found.answers.longest:,} at most",
        f"中位数 {found.answers.median:,} 个字符，最长 {found.answers.longest:,}")
    if found.longest:
        longest = ", ".join(f"{place} ({length:,})" for length, place in found.longest)
        yield Both("longest rows", "最长的行"), _plain(longest)
    yield Both("repeated rows", "重复的行"), _places(found.repeated, found.first_repeated)
    yield Both("same question, another answer", "同一问题，不同回答"), _places(found.differing, found.first_differing)
    if found.frequent[0] > 1:
        count, text = found.frequent
        yield Both("most frequent answer", "最常见的回答"), Both(f"{count:,} times: {text!r}",
                                                           f"{count:,} 次：{text!r}")
    if found.scripts:
        written = [(script, 100 * count / good) for script, count in found.scripts.most_common(5)]
        yield Both("answers are written in", "回答的文字"), Both(
            ", ".join(f"{script.en} {share:.0f} %" for script, share in written),
            "，".join(f"{script.zh} {share:.0f} %" for script, share in written))


def _plain(text: str) -> Both:
    return Both(text, text)


def _places(count: int, first: Sequence[object]) -> Both:
    told = ", ".join(map(str, first)) + (", …" if count > len(first) else "")
    return _plain(f"{count:,}: {told}" if count else "0")


def bars_html(lengths: Lengths, unit: Both, language: Language, limit: int | None = None) -> str:
    """A histogram. limit: bars beyond it are marked."""
    highest = max((count for _, _, count in lengths.bars), default=0)
    if not highest:
        return ""
    lines = "".join(
        f'<tr class="{"tt-over" if limit is not None and begin > limit else ""}"><td>{begin:,}–{end:,}</td>'
        f'<td><div class="tt-bar" style="width:{100 * count / highest:.1f}%"></div></td><td>{count:,}'
        f"{f' ◄ cutoff_len {limit:,}' if limit is not None and begin <= limit <= end else ''}</td></tr>"
        for begin, end, count in lengths.bars)
    head = _head(language, unit, Both("share", "占比"), Both("rows", "行数"))
    return f'<div class="tt-scroll"><table class="tt tt-bars">{head}{lines}</table></div>'
