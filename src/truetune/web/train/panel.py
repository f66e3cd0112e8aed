"""What stands beside the training form, as HTML: what is to do, what is wrong, and what pressing Start will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from truetune.findings import Both, Finding, Severity, Words, worst_first
from truetune.jobs.queue import Job
from truetune.options.read import as_yaml
from truetune.web.words import Language, say

SEVERITIES: Mapping[Severity, Both] = {"error": Both("error", "错误"), "warn": Both("take care", "警告"),
                                        "info": Both("note", "提示")}
NEEDED = ("model-missing", "data-missing", "output-missing")
"""Findings that only say that the form is not filled in yet."""


def findings(told: Sequence[Finding], language: Language) -> str:
    """Findings as a list, the worst first, each with a link to its field; first what is still to be filled in."""
    needed = [finding for finding in told if finding.id in NEEDED]
    others = [finding for finding in worst_first(told) if finding.id not in NEEDED]
    if not told:
        return f'<p class="told ok">{escape(say(_READY, language))}</p>'
    return (_list(_STILL, "needed", needed, language) if needed else "") + _list(None, "told", others, language)


_READY = Both("The settings go together. Check looks into model and data too.",
              "设置没有问题。“检查”还会查看模型和数据。")
_STILL = Both("Still needed", "还需要填写")


def _list(title: Both | None, kind: str, told: Sequence[Finding], language: Language) -> str:
    head = f"<h4>{escape(say(title, language))}</h4>" if title else ""
    return f'{head}<ul class="{kind}">{"".join(_item(finding, language) for finding in told)}</ul>' if told else ""


def _item(finding: Finding, language: Language) -> str:
    name = escape(finding.option or "")
    link = f'<a href="#field-{name}">{name}</a> ' if finding.option else ""
    word = "" if finding.id in NEEDED else f"<b>{escape(say(SEVERITIES[finding.severity], language))}</b> "
    text = " ".join(say(words, language) for words in (finding.message, finding.fix) if words)
    return f'<li class="{finding.severity}">{word}{link}{escape(text)}</li>'


def cures(told: Sequence[Finding]) -> list[Mapping[str, object]]:
    """What can be mended with one click, the worst first, each once."""
    kept: list[Mapping[str, object]] = []
    for finding in worst_first(told):
        if finding.cure and finding.cure not in kept:
            kept.append(finding.cure)
    return kept


def cure_label(cure: Mapping[str, object], language: Language) -> str:
    """`Set lora_dropout: 0.05`."""
    values = ", ".join(as_yaml(name, value) for name, value in cure.items())
    return say(Both(f"Set {values}", f"改为 {values}"), language)


def before_start(output: str, jobs: Sequence[Job], language: Language) -> str:
    """What pressing Start will do."""
    ahead = sum(job.status in ("waiting", "running") for job in jobs)
    when: Words = Both("Starts at once", "立即开始")
    if ahead:
        when = Both(f"Waits behind {ahead} {'job' if ahead == 1 else 'jobs'}", f"排队等待，前面有 {ahead} 个任务")
    where = Both(f"; the run is written to {output}", f"；运行写到 {output}") if output else Both("", "")
    goes_on = Both(". It goes on when this page is closed.", "。关闭网页后照常运行。")
    text = "".join(say(words, language) for words in (when, where, goes_on))
    return f'<p class="before">{escape(text)}</p>'


def in_use(folder: Path, status: str, language: Language) -> str:
    """That the run folder holds another run."""
    words = Both(f"{folder.name} holds a run ({status}). Go on with it, take another name, or delete it first.",
                 f"{folder.name} 里已有一次运行（{_STATUS.get(status, status)}）。可以接着训练、换个名字，或先删除它。")
    return f'<p class="told warn">{escape(say(words, language))}</p>'


_STATUS = {"finished": "已完成", "failed": "失败", "interrupted": "已中断", "killed": "被终止", "running": "运行中"}
