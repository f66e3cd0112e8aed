"""What the worker finds out about the run in the form, as HTML: the check, memory and time, chat template, and rows.

Every function takes the texts of the form and answers in the page's language. What is wrong is in the HTML, and never
raised; only `Overtaken` is, of an estimate that nobody waits for any more. Whatever comes from data or files is
escaped.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truetune.findings import Both, Finding, Problem, Say, Words, status_of, worst_first
from truetune.look.told import Estimate, Example, Line, Proposal, Shown, Suggested, Told
from truetune.options import OPTIONS, Config
from truetune.options.read import as_yaml
from truetune.report import visible
from truetune.rules import apply_rules
from truetune.web.form import HERE, Texts, applying, as_texts, configured
from truetune.web.models import modelscope_cache
from truetune.web.roots import Roots
from truetune.web.tables import paragraph, size_of
from truetune.web.train import panel
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.page import Page

STYLE = """
.look { overflow-wrap: anywhere; }
.look h4 { margin: .9rem 0 .25rem; }
.look .verdict { border-left: .3rem solid; border-radius: .3rem; padding: .4rem .7rem; margin: .3rem 0;
  background: var(--background-fill-secondary); color: var(--body-text-color); font-size: 1.05em; }
.look .fits { border-color: #2e9e5b; } .look .tight { border-color: #d08700; } .look .too-big { border-color: #d33a2c; }
.look .soft { color: var(--body-text-color-subdued); font-size: .88em; }
.look .bar { display: flex; height: .7rem; border-radius: .35rem; overflow: hidden; margin: .4rem 0;
  background: var(--border-color-primary); }
.look .bar i { display: block; min-width: 1px; }
.look .parts { display: flex; flex-wrap: wrap; gap: .1rem .9rem; padding: 0; margin: .2rem 0; list-style: none;
  font-size: .88em; }
.look .parts li { list-style: none !important; margin: 0; }
.look .parts b { display: inline-block; width: .7em; height: .7em; border-radius: .15em; margin-right: .3em; }
.look dl { display: grid; grid-template-columns: minmax(5.5rem, max-content) 1fr; gap: .15rem .9rem; margin: .2rem 0; }
.look dt { color: var(--body-text-color-subdued); } .look dd { margin: 0; white-space: pre-wrap; }
.look ul.told, .look ul.needed { padding-left: 1.1rem; margin: .2rem 0; } .look li { margin: .25rem 0; }
.look .row { margin: .7rem 0; }
.look .text { background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary);
  border-radius: .4rem; padding: .5rem .7rem; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate;
  font: .88em/1.75 ui-monospace, Menlo, Consolas, monospace; max-height: 24rem; overflow-y: auto; }
.look { --k-system: #8e24aa; --k-user: #0b63b5; --k-tool: #8a5a00; --k-assistant: #12663a; --k-learned: #d5f0de;
  --k-end: #a2dcb7; }
.dark .look { --k-system: #d79be8; --k-user: #8ac0f8; --k-tool: #e3b95c; --k-assistant: #8be0a8; --k-learned: #17381f;
  --k-end: #2a6b3c; }
.look .system { color: var(--k-system); } .look .user { color: var(--k-user); } .look .tool { color: var(--k-tool); }
.look .assistant, .look .document { color: var(--k-assistant); } .look .none { color: var(--body-text-color-subdued); }
.look .learned { background: var(--k-learned); text-decoration: underline; text-underline-offset: .25em; }
.look .end { background: var(--k-end); font-weight: bold; }
.look .legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85em; margin: .3rem 0; }
.look .turn { border-left: 3px solid; padding: .15rem .7rem; margin: .3rem 0; }
.look .turn span { color: var(--body-text-color); white-space: pre-wrap; unicode-bidi: isolate; }
.look .turn b { display: block; font-size: .8em; }
"""
"""For `css_template` of the gr.HTML that holds one of these."""

PARTS = ("#4c78a8", "#f58518", "#e45756", "#54a24b", "#b279a2", "#9d755d")
"""Colours of what takes memory."""
MOST = 1500
"""Letters of a piece of text that are shown."""
_READ = ("model_name_or_path", "adapter_name_or_path", "ref_model", "ref_model_adapters", "reward_model",
         "reward_model_adapters", "teacher_model", "dataset", "eval_dataset", "dataset_dir", "media_dir", "output_dir",
         "tokenized_path", "cache_dir")
"""Options whose value may be a path."""


@dataclass(frozen=True)
class CheckPage:
    """html: all of it. cures: options to set, a button each (`panel.cure_label` names it; `as_texts` types it in).
    status: `ok`, `warn` or `error`."""

    html: str
    cures: list[Mapping[str, Any]]
    status: str


# ------------------------------------------------------------------------------------------------------ what is asked


def check_page(page: Page, texts: Texts, language: Language, told: Say | None = None) -> CheckPage:
    """The whole check: findings, the first rows, every part of the page, and what could be set otherwise.

    Args:
        told: hears how it goes.
    """
    config, findings = _configured(page.roots, texts)
    if status_of(findings) == "error":
        return CheckPage(_look(_findings(findings, language)), panel.cures(findings), "error")
    try:
        found: Told = page.worker.ask("truetune.look.asked:check_run", config, findings, say=told)
    except Problem as problem:
        return CheckPage(_look(_findings(problem.findings, language)), [], "error")
    cures = [proposal.cure for proposal in found.proposals]
    parts = [_findings(found.findings, language) or paragraph(_GOOD, language),
             _proposals(found.proposals, language)]
    for name, title, lines in found.sections:
        parts.append(f"<h4>{escape(say(title, language))}</h4>{_lines(lines, language)}")
        if name == "data" and found.rows:
            parts.append(rows_html(found.rows, language))
    return CheckPage(_look(*parts), cures, status_of(found.findings))


def estimate(page: Page, texts: Texts, language: Language, latest: Hashable | None = None) -> str:
    """Memory and time of the run, or what is missing to tell.

    Args:
        latest: whose estimate it is (the browser's session): an older one that still waits is dropped.

    Raises:
        Overtaken: this one was.
    """
    answer = _asked(page, "estimate", texts, language, latest=latest)
    return answer if isinstance(answer, str) else estimate_html(answer, language)


def template_example(page: Page, texts: Texts, language: Language) -> str:
    """A short conversation as the run would write it, special tokens and all."""
    if not texts.get("model_name_or_path"):
        return _look(paragraph(_NO_MODEL, language, "soft"))
    turns = [(role, say(text, language)) for role, text in _TALK]
    answer = _asked(page, "template_example", texts, language, turns)
    return answer if isinstance(answer, str) else _example(answer, language)


def data_preview(page: Page, texts: Texts, language: Language, first: int = 0, count: int = 3
                 ) -> tuple[str, int, int]:
    """Rows as they are trained on, from number `first` (from 0) on: the HTML, the first, and how many there are."""
    answer = _asked(page, "data_rows", texts, language, first, count)
    return (answer, 0, 0) if isinstance(answer, str) else (_shown(answer, language), answer.first, answer.rows)


def recipe(page: Page, texts: Texts, goal: str, language: Language, told: Say | None = None) -> tuple[Texts, str]:
    """Settings for this model, data and machine: what to type into the form, and the reasons as HTML.

    Args:
        goal: style, knowledge, preference or reasoning; "": what the data look like.
    """
    answer = _asked(page, "recipe", texts, language, goal, say=told)
    if isinstance(answer, str):
        return {}, answer
    return as_texts({name: value for name, value, _, _ in answer.chosen}), _reasons(answer, language)


def _asked(page: Page, what: str, texts: Texts, language: Language, *more: Any, **how: Any) -> Any:
    """What the worker answers, or what is wrong as HTML."""
    config, findings = _configured(page.roots, texts)
    slips = [finding for finding in findings if finding.severity == "error" and finding.id not in panel.NEEDED]
    needed = [finding for finding in findings if finding.id in panel.NEEDED and finding.id != "output-missing"]
    if what != "template_example" and needed:
        words = _NO_MODEL if any(finding.id == "model-missing" for finding in needed) else _NO_DATA
        return _look(paragraph(words, language, "soft"))
    if slips and what != "template_example":
        return _look(paragraph(_SLIPS, language, "soft"), _findings(slips, language))
    try:
        return page.worker.ask(f"truetune.look.asked:{what}", config, *more, **how)
    except Problem as problem:
        return _look(_findings(problem.findings, language))


def _configured(roots: Roots, texts: Texts) -> tuple[Config, list[Finding]]:
    """What the form holds, as it is handed in, and all that the options alone tell."""
    config, slips = configured(applying(texts))
    return config, [*slips, *outside(config, roots), *apply_rules(config, "train")]


def outside(config: Config, roots: Roots) -> list[Finding]:
    """A finding for every path in `config` that lies outside the folders of the page. Models that ModelScope has
    downloaded may be read too."""
    findings: list[Finding] = []
    downloads = modelscope_cache()
    for name in _READ:
        value = getattr(config, name)
        for word in filter(None, [value] if isinstance(value, str) else value or ()):
            path = (roots.home / Path(word).expanduser()).resolve()
            if name == "model_name_or_path" and path.is_relative_to(downloads.resolve()):
                continue
            if word.startswith(("/", "~", ".")) or ".." in word.split("/") or path.exists():
                try:
                    roots.inside(word, name)
                except Problem as problem:
                    findings += problem.findings
    return findings


# ----------------------------------------------------------------------------------------------------- how it is drawn


def _look(*parts: str) -> str:
    return f'<div class="look">{"".join(parts)}</div>'


def _findings(findings: Sequence[Finding], language: Language) -> str:
    """Findings, the worst first, each with a link to its field and with the file and line where it was found."""
    lines = "".join(_finding(finding, language) for finding in worst_first(findings))
    return f'<ul class="told">{lines}</ul>' if lines else ""


def _finding(finding: Finding, language: Language) -> str:
    severity = f"<b>{escape(say(panel.SEVERITIES[finding.severity], language))}</b>"
    name, where = finding.option or "", "" if finding.where == str(HERE) else finding.where or ""
    link = f'<a href="#field-{escape(name)}">{_text(name)}</a>' if name in OPTIONS else _text(name)
    place = f'<span class="soft">{_text(where)}</span>' if where else ""
    words = (_text(say(words, language)) for words in (finding.message, finding.fix) if words)
    return f'<li class="{finding.severity}">{" ".join(filter(None, [severity, link, place, *words]))}</li>'


def _proposals(proposals: Sequence[Proposal], language: Language) -> str:
    """What could be set otherwise; the buttons for it stand below."""
    lines = [f"<li><code>{escape(', '.join(as_yaml(name, value) for name, value in each.cure.items()))}</code> "
             f"{escape(say(each.gain, language))}</li>" for each in proposals]
    return f"<h4>{escape(say(_SUGGESTED, language))}</h4><ol>{''.join(lines)}</ol>" if lines else ""


def _lines(lines: Iterable[Line], language: Language) -> str:
    rows = (f"<dt>{_text(say(what, language))}</dt><dd>{_text(say(much, language))}</dd>" for what, much in lines)
    return f"<dl>{''.join(rows)}</dl>"


def _text(text: str) -> str:
    """Text of somebody else's as HTML: what would not be seen, or would turn what follows around, is made visible."""
    whole = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be sent
    return escape(_TURNING.sub(lambda found: f"[U+{ord(found[0]):04X}]", visible(whole)))


_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Letters that set the direction of those behind them."""


def estimate_html(found: Estimate, language: Language) -> str:
    """The verdict in words and colour, the parts as a bar, and the time."""
    kind = found.verdict.replace(" ", "-")
    rows = [(_LABELS["memory"][found.gpu], Both(*(
        form.format(peak=size_of(found.peak), free=size_of(found.free), total=size_of(found.total)) for form in _OF))),
            (_LABELS["time"], _duration(found)),
            (_LABELS["steps"], Both(f"{found.steps:,}; {found.rows:,} rows, {found.tokens:,} tokens in all",
                                    f"{found.steps:,} 步；{found.rows:,} 行，合计 {found.tokens:,} 个 token")),
            (_LABELS["trained"], f"{found.trained:,} / {found.parameters:,} ({found.trained / found.parameters:.2%})")]
    notes = [paragraph(_CHECKPOINTING, language, "soft")] if found.checkpointing else []
    return _look(
        f'<div class="verdict {kind}" role="status">{escape(say(_VERDICTS[found.verdict], language))}</div>',
        _bar(found, language), _lines(rows, language), *notes, _proposals(found.proposals, language))


def _bar(found: Estimate, language: Language) -> str:
    """The parts side by side. They are not all there at once, so their sum may be more than the peak."""
    whole = max(sum(size for _, size in found.parts.values()), found.free, 1)
    coloured = [(colour, name, size) for colour, (name, size) in zip(PARTS, found.parts.values(), strict=True) if size]
    bar = "".join(f'<i style="width:{100 * size / whole:.2f}%;background:{colour}"></i>'
                  for colour, _, size in coloured)
    legend = "".join(f'<li><b style="background:{colour}"></b>{escape(say(name, language))} {size_of(size)}</li>'
                     for colour, name, size in coloured)
    return f'<div class="bar" aria-hidden="true">{bar}</div><ul class="parts">{legend}</ul>'


def _duration(found: Estimate) -> Both:
    """About how long, reckoned."""
    seconds = found.seconds
    for size, en, zh in ((86400, "days", "天"), (3600, "hours", "小时"), (60, "minutes", "分钟")):
        if seconds >= 1.5 * size:
            number = f"{seconds / size:.1f}" if seconds < 10 * size else f"{seconds / size:.0f}"
            return Both(f"about {number} {en} (reckoned, not measured)", f"约 {number} {zh}（估算，未实测）")
    few = f"{max(seconds, 1):.0f}"
    return Both(f"about {few} s (reckoned, not measured)", f"约 {few} 秒（估算，未实测）")


def _example(found: Example, language: Language) -> str:
    named = Both(f"Template: {found.name}, named; it is saved with the model.",
                 f"模板：指定的 {found.name}，会随模型保存。") if found.name else _OWN
    parts = [paragraph(named, language)]
    if found.row is None:
        parts.append(paragraph(_NO_TALK, language, "soft"))
    else:
        parts += [_legend(language), _part(found.row["parts"][0])]
    if found.stops:
        stops = ", ".join(found.stops)
        parts.append(paragraph(Both(f"An answer ends at: {stops}", f"回答在此结束：{stops}"), language, "soft"))
    return _look(*parts, _findings(found.findings, language))


def _shown(found: Shown, language: Language) -> str:
    last = found.first + len(found.previews)
    first, rows = f"{found.first + 1:,}", f"{found.rows:,}"
    place = Both(f"Rows {first} to {last:,} of {rows}", f"第 {first} 到 {last:,} 行，共 {rows} 行") if found.previews \
        else Both("There is no row to learn from.", "没有可学习的行。")
    parts = [paragraph(place, language), rows_html(found.previews, language, talk=True)]
    if found.left_out:
        lines = "".join(f"<li>{_text(where)}: {_text(say(reason, language))}</li>"
                        for where, reason in found.left_out[:20])
        more = len(found.left_out) - 20
        rest = paragraph(Both(f"and {more:,} more", f"另有 {more:,} 行"), language, "soft") if more > 0 else ""
        parts.append(f"<h4>{escape(say(_LEFT_OUT, language))}</h4><ul>{lines}</ul>{rest}")
    return _look(*parts, _findings(found.findings, language))


def rows_html(rows: Sequence[Mapping[str, Any]], language: Language, talk: bool = False) -> str:
    """Rows as they are trained on, in the shape of `look.preview`.

    Args:
        talk: each as a conversation first, as a person reads it.
    """
    return _legend(language) + "".join(_row(row, language, talk) for row in rows)


def _row(row: Mapping[str, Any], language: Language, talk: bool) -> str:
    judged = {True: _JUDGED[0], False: _JUDGED[1], None: ""}[row["label"]]
    notes = row["notes"] if language == "en" else [say(Both("", note), language) for note in row["notes_zh"]]
    lines = [f'<div class="row"><div class="soft">{_text(row["where"])} · {_counts(row, language)}'
             f"{escape(say(judged, language))}</div>", *(f'<p class="soft">{escape(note)}</p>' for note in notes)]
    for part in row["parts"]:
        if len(row["parts"]) > 1:
            lines.append(f'<h4>{escape(say(_NAMES[part["name"]], language))} '
                         f'<small class="soft">{_counts(part, language)}</small></h4>')
        lines += [*(_turns(part, language) if talk else ()), _part(part)]
    return "".join([*lines, "</div>"])


def _counts(part: Mapping[str, Any], language: Language) -> str:
    tokens, learned = part["tokens"], part["learned"]
    return escape(say(Both(f"{tokens:,} tokens, {learned:,} of them learned",
                           f"{tokens:,} 个 token，学习其中 {learned:,} 个"), language))


def _part(part: Mapping[str, Any]) -> str:
    return f'<div class="text" tabindex="0">{"".join(map(_piece, part["pieces"]))}</div>'


def _piece(piece: Mapping[str, Any]) -> str:
    style = [piece["role"] or "none", *(["learned"] * piece["learned"]), *(["end"] * piece["end_of_turn"])]
    return f'<span class="{" ".join(style)}">{_text(_short(piece["text"]))}</span>'


def _short(text: str) -> str:
    return text if len(text) <= MOST else f"{text[:MOST // 2]} … {text[-MOST // 2:]}"


def _turns(part: Mapping[str, Any], language: Language) -> Iterator[str]:
    """Who says what, without what the template writes."""
    said = [piece for piece in part["pieces"] if piece["role"] and not piece["special"]]
    for role, pieces in groupby(said, _role):
        text = "".join(piece["text"] for piece in pieces).strip()
        if text:
            yield (f'<div class="turn {role}"><b>{escape(say(_ROLES[role], language))}</b>'
                   f"<span>{_text(_short(text))}</span></div>")


def _role(piece: Mapping[str, Any]) -> str:
    return str(piece["role"])


def _legend(language: Language) -> str:
    return '<div class="legend">' + "".join(
        f'<span class="{style}">{escape(say(words, language))}</span>' for style, words in _LEGEND) + "</div>"


def _reasons(found: Suggested, language: Language) -> str:
    def line(name: str, value: Any, why: Words, source: str) -> str:
        plain = list(value) if isinstance(value, tuple) else value
        told = f' <span class="soft">{escape(source)}</span>' if source else ""
        return f"<li><code>{escape(as_yaml(name, plain))}</code> {escape(say(why, language))}{told}</li>"

    goal = Both(f"Goal: {found.goal}. Each value with its reason:",
                f"目标：{_GOALS[found.goal].zh}。每个值及其理由：")
    return _look(paragraph(goal, language), f"<ul>{''.join(line(*each) for each in found.chosen)}</ul>",
                 _findings(found.findings, language))


_NO_MODEL = Both("Choose a model: then this shows what it needs.", "请先选择模型，这里会显示相应内容。")
_NO_DATA = Both("Choose data: then this shows memory, time and what is learned.",
                "请先选择数据，这里会显示内存、耗时和学习的内容。")
_SLIPS = Both("This follows once the settings go together:", "先改正以下设置：")
_GOOD = Both("✓ Nothing is wrong with this run.", "✓ 没有发现问题。")
_SUGGESTED = Both("What could be set otherwise", "可以这样调整")
_LEFT_OUT = Both("Left out", "未采用的行")
_OWN = Both("Template: the model's own.", "模板：模型自带。")
_NO_TALK = Both("Pre-training learns from plain text: no template is used.", "预训练直接学习纯文本，不使用对话模板。")
_CHECKPOINTING = Both("With gradient_checkpointing: less memory, about a third slower.",
                      "已启用 gradient_checkpointing：更省内存，约慢三分之一。")
_OF = Both("{peak} at most; {free} free of {total}", "最多 {peak}；共 {total}，可用 {free}")
_LABELS: Mapping[str, Any] = {
    "memory": (Both("memory", "内存"), Both("GPU memory", "显存")), "time": Both("time", "耗时"),
    "steps": Both("steps", "步数"), "trained": Both("weights trained", "训练的参数")}
_VERDICTS = {"fits": Both("✓ It fits.", "✓ 放得下。"),
             "tight": Both("⚠ Tight: it fits only if nothing else takes memory.",
                           "⚠ 勉强放得下：别的程序不能再占内存。"),
             "too big": Both("✗ Too big for what is free now.", "✗ 放不下：超过当前可用。")}
_LEGEND = (("system", Both("system", "系统提示")), ("user", Both("user", "用户")),
           ("assistant", Both("assistant", "助手")), ("none", Both("written by the template", "模板写入")),
           ("assistant learned", Both("learned", "参与学习")),
           ("assistant learned end", Both("end of turn: teaches it to stop", "结束符：教模型停下")))
_ROLES = {"system": Both("system prompt", "系统提示"), "user": Both("user", "用户"),
          "assistant": Both("assistant", "助手"), "tool": Both("tool result", "工具结果"),
          "document": Both("text", "文本")}
_NAMES = {"prompt": Both("prompt", "问题"), "chosen": Both("better answer", "较好的回答"),
          "rejected": Both("worse answer", "较差的回答")}
_JUDGED = (Both(" · judged good", " · 标为好"), Both(" · judged bad", " · 标为差"))
_GOALS = {"style": Both("style", "风格"), "knowledge": Both("knowledge", "知识"),
          "preference": Both("preference", "偏好"), "reasoning": Both("reasoning", "推理")}
_TALK = (("system", Both("You are a helpful assistant.", "你是一个乐于助人的助手。")),
         ("user", Both("What is the capital of France?", "法国的首都是哪里？")),
         ("assistant", Both("Paris.", "巴黎。")), ("user", Both("And of Italy?", "那意大利呢？")),
         ("assistant", Both("Rome.", "罗马。")))
