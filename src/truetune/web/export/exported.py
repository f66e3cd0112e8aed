"""What an export is shown as when it is done: its files, the proof with what it means, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path

from truetune.exported import FILES, ID_COLUMNS, LOGIT_COLUMNS, PROVEN, commands, id_rows, logit_rows, read_parity
from truetune.findings import Both, Say
from truetune.options import Config
from truetune.web.tables import paragraph, size_of, table
from truetune.web.words import Language, say


def room(config: Config, say: Say) -> tuple[float, float]:
    """Bytes that an export takes on the way, and bytes that its disk has free: asked of the worker, which has torch.

    Raises:
        Problem: the model cannot be found, or its weights cannot be read.
    """
    from truetune.export.room import room as measured

    return measured(config, say)


def next_commands(folder: Path, shown_as: str) -> str:
    """What to type in a terminal to run the export."""
    lines = [f"cd {shlex.quote(shown_as)}"]
    for tool, typed in commands(folder, folder.name, "."):
        if typed[0].startswith("from "):
            continue  # Python, which is no command
        lines += ["", f"# {tool}", *typed]
    return "\n".join(lines)


def exported_page(folder: Path, language: Language) -> str:
    """Files with their sizes, the verdict, its tables with what they mean, and what no export can mend."""
    files = [(file.name, size_of(file.stat().st_size), _what(file)) for file in sorted(folder.iterdir())
             if file.is_file()]
    columns = (Both("file", "文件"), Both("size", "大小"), Both("what it is", "说明"))
    parts = [table(columns, files, language, numbers=[1],
                   caption=Both(f"Files in {folder}", f"{folder} 里的文件"))]
    told = read_parity(folder)
    if told is None:
        return "".join(parts)
    chinese = language != "en"
    verdict = PROVEN[told["status"]]
    parts.insert(0, paragraph(Both(*(half.replace("**", "") for half in verdict)), language,
                              {"passed": "ok", "failed": "error", "unproven": "warn"}[told["status"]]))
    if told["layers"]:
        parts.append(table(ID_COLUMNS, id_rows(told["layers"], chinese), language, numbers=[2, 4], caption=Both(
            "Tokens: what each place makes of the same conversations", "token：同样的对话在各处得到的 token")))
    if told["logits"]:
        parts.append(table(LOGIT_COLUMNS, logit_rows(told["logits"], chinese), language, numbers=[2, 3, 4, 5],
                           caption=Both("Probabilities: how far they are from what was trained",
                                        "概率：与训练出的模型相差多少")))
    parts.append(_meanings(language))
    notes = "".join(f"<li>{escape(say(Both(note['en'], note['zh']), language))}</li>" for note in told.get("notes", []))
    return "".join(parts) + (f"<ul>{notes}</ul>" if notes else "")


def _what(file: Path) -> Both | str:
    return next((what for pattern, what in FILES.items() if file.match(pattern)), "")


_MEANINGS: Mapping[Both, Both] = {
    Both("same, conversations", "相同、对话"): Both(
        "how many of the fixed conversations become exactly the ids that training made of them; all must.",
        "固定的一组对话中，有多少与训练时的 id 完全相同；必须全部相同。"),
    Both("ends", "结束符"): Both("answers end at the tokens at which they ended in training.",
                              "回答结束的 token 与训练时相同。"),
    Both("limits", "限制"): Both(
        "conversations that a server of this kind cannot write as training did; said below, not judged.",
        "这类服务无法按训练时写法表达的对话；在下面说明，不作判定。"),
    Both("max |Δ log p|", "最大 |Δ log p|"): Both(
        "the largest difference of a likely word's log-probability; 0 is the same.",
        "可能的词的对数概率最大差多少；0 为完全相同。"),
    Both("mean KL", "平均 KL"): Both("how far all probabilities are apart on average, in nats; less is better.",
                                  "所有概率平均相差多少，单位 nat；越小越好。"),
    Both("top-1", "top-1"): Both("at how many positions the likeliest word is the same; more is better.",
                                 "首选词相同的位置占多少；越大越好。"),
    Both("allowed", "允许"): Both(
        "the largest mean KL and the smallest top-1 that count as the same model, by bits of a weight.",
        "按权重位数，仍算同一个模型的最大平均 KL 和最小 top-1。"),
}


def _meanings(language: Language) -> str:
    lines = "".join(f"<dt>{escape(say(name, language))}</dt><dd>{escape(say(words, language))}</dd>"
                    for name, words in _MEANINGS.items())
    title = escape(say(Both("What the columns mean", "各列的含义"), language))
    return f"<details><summary>{title}</summary><dl>{lines}</dl></details>"
