"""What `truetune data show` shows as one HTML page that needs nothing else: no script, no font, no picture.

Whatever stands in the data is escaped; a row that holds `<script>` is text like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from truetune.files import write_text
from truetune.findings import WRONG_OPTIONS, Both, problem, spoken
from truetune.look.preview import Part, Piece, Preview
from truetune.look.show import View
from truetune.report import visible

_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --page: #fff; --soft: #6b6b70; --line: #dcdce0; --card: #f7f7f9;
  --system: #8e24aa; --user: #0b63b5; --tool: #946200; --assistant: #14713a; --learned: #d9f2e1; --end: #a6dfba; }
@media (prefers-color-scheme: dark) { :root { --text: #ececf0; --page: #151517; --soft: #98989f; --line: #38383d;
  --card: #1e1e21; --system: #d79be8; --user: #7fb8f5; --tool: #e3b95c; --assistant: #7fd79d; --learned: #17381f;
  --end: #2a6b3c; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere; }
h3 { font-size: .9rem; margin: .8rem 0 .2rem; }
small, .none, .id, .note { color: var(--soft); } h2 small, h3 small { font-weight: normal; }
.text { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font: .9rem/1.7 ui-monospace, Menlo, Consolas, monospace; }
.system { color: var(--system); } .user { color: var(--user); } .tool { color: var(--tool); }
.assistant, .document { color: var(--assistant); }
.learned { background: var(--learned); text-decoration: underline; text-underline-offset: .25em; }
.end { background: var(--end); font-weight: bold; } .weight { font-size: .75em; border: 1px solid; border-radius: .3em;
  padding: 0 .3em; margin: 0 .2em; }
.id { display: none; font-size: .7em; } body:has(#ids:checked) .id { display: inline; }
body:has(#ids:checked) .t { outline: 1px solid var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; } .legend b { font-weight: normal; }
.pack { border-left: .25rem solid var(--line); padding-left: .8rem; }
table { border-collapse: collapse; font-size: .85rem; } td { padding: .05rem .6rem .05rem 0; white-space: nowrap; }
.bar { background: var(--assistant); height: .8rem; min-width: 1px; } .over .bar { background: var(--tool); }
td:nth-child(2) { width: 50vw; max-width: 25rem; } li { overflow-wrap: anywhere; }
"""
_LEGEND = (
    ("system", "system", "系统提示"), ("user", "user", "用户"), ("tool", "tool result", "工具结果"),
    ("assistant", "assistant (or a document)", "助手（或文档）"),
    ("none", "written by the chat template itself", "对话模板自带的文字"),
    ("assistant learned", "learned (counted in the loss)", "参与学习（计入损失）"),
    ("assistant learned end", "end of turn: teaches the model to stop", "回合结束符：教模型停下"),
)


def write_page(view: View, path: Path, chinese: bool = False) -> None:
    """Write the page to `path`. Its headings are in both languages, its sentences in the one asked for.

    Raises:
        Problem: it cannot be written there.
    """
    try:
        write_text(path, page(view, chinese))
    except OSError as error:
        raise problem("not-written", Both(f"cannot be written: {error.strerror}.", f"无法写入：{error.strerror}。"),
                      option=str(path), status=WRONG_OPTIONS) from None


def page(view: View, chinese: bool = False) -> str:
    """The whole page."""
    legend = "".join(f'<span><b class="{style}">{en}</b> {zh}</span>' for style, en, zh in _LEGEND)
    return "\n".join([
        f'<!doctype html><html lang="{"zh" if chinese else "en"}"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>truetune data show</title><style>{_STYLE}</style></head><body>",
        "<h1>What is trained on · 训练数据预览</h1>", f'<p class="legend">{legend}</p>',
        '<label><input type="checkbox" id="ids"> token ids · 显示 token id</label>',
        *(_row(row, chinese) for row in view.rows), *_packs(view, chinese), *_summary(view, chinese),
        "</body></html>", ""])


def _packs(view: View, chinese: bool) -> Iterator[str]:
    for number, pack in enumerate(view.packs, start=1):
        described = escape(spoken(pack.described(), chinese))
        yield f'<h2>Pack {number} · 打包 {number} <small>{described}</small></h2><div class="pack">'
        yield from (_row(row, chinese) for row in pack.rows)
        yield "</div>"


def _row(row: Preview, chinese: bool) -> str:
    judged = {True: " · judged good 好", False: " · judged bad 差", None: ""}[row.label]
    lines = [f"<h2>{escape(row.where)} <small>{_counts(row.tokens, row.learned)}{judged}</small></h2>"]
    lines += [f'<p class="note">{escape(spoken(note, chinese))}</p>' for note in row.notes]
    for part in row.parts:
        if len(row.parts) > 1:
            name = {"prompt": "prompt 问题", "chosen": "chosen 较好", "rejected": "rejected 较差"}[part.name]
            lines.append(f"<h3>{name} <small>{_counts(part.tokens, part.learned)}</small></h3>")
        lines.append(_part(part))
    return "\n".join(lines)


def _counts(tokens: int, learned: int) -> str:
    return f"{tokens:,} tokens, {learned:,} learned · 学习 {learned:,} / {tokens:,}"


def _part(part: Part) -> str:
    return f'<div class="text">{"".join(map(_piece, part.pieces))}</div>'


def _piece(piece: Piece) -> str:
    style = [piece.mark.role or "none", *(["learned"] * piece.learned), *(["end"] * piece.mark.end_of_turn)]
    weight = f'<span class="weight">{piece.mark.weight:g}×</span>' if piece.learned and piece.mark.weight != 1 else ""
    tokens = (f'<span class="t">{escape(visible(token.text))}<span class="id">·{"+".join(map(str, token.ids))} </span>'
              "</span>" for token in piece.tokens)
    return f'{weight}<span class="{" ".join(style)}">{"".join(tokens)}</span>'


def _summary(view: View, chinese: bool) -> Iterator[str]:
    lengths, cutoff = view.lengths, view.config.cutoff_len
    if view.refused_rows:
        yield f"<h2>Cannot be learned from · 无法学习 <small>{view.refused_rows:,}</small></h2><ul>"
        yield from (f"<li>{escape(where)}: {escape(spoken(reason, chinese))}</li>" for where, reason in view.refused)
        yield "</ul>"
    if view.overlong_rows:
        yield (f"<h2>Longer than cutoff_len · 超长 <small>{view.overlong_rows:,}, {view.overlong_dropped:,} left out "
               "· 丢弃</small></h2><ul>")
        yield from (f"<li>{escape(place)}</li>" for place in view.overlong)
        yield "</ul>"
    yield "<h2>Lengths in tokens · 长度（token）</h2>"
    yield (f"<p>{view.measured()} · {lengths.of:,} 行; {lengths.median:,} median · 中位数; "
           f"{lengths.longest:,} longest · 最长; cutoff_len {cutoff:,}; {lengths.keeps_most:,} keeps 99.5 % · "
           "可保留 99.5 %</p><table>")
    highest = max((rows for _, _, rows in lengths.bars), default=1) or 1
    for begin, end, rows in lengths.bars:
        mark = f"◄ cutoff_len {cutoff:,}" if begin <= cutoff <= end else ""
        over = ' class="over"' if begin > cutoff else ""
        yield (f'<tr{over}><td>{begin:,}–{end:,}</td><td><div class="bar" style="width:{100 * rows / highest:.1f}%">'
               f"</div></td><td>{rows:,} {mark}</td></tr>")
    yield (f"</table><p>Learned tokens a row (of a pair: both answers) · 每行学习的 token（偏好对合计两个回答）: "
           f"{view.learned_median:,} (median · 中位数); "
           f"{view.learned_none:.1%} without · 没有可学习的行</p>")
