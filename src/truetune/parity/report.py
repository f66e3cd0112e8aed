"""What was found, for machines (`parity.json`), for the model card (Markdown), and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table

from truetune.exported import ID_COLUMNS, LOGIT_COLUMNS, PARITY, PROVEN, Status, id_rows, logit_rows
from truetune.files import write_json
from truetune.findings import Both, Words, spoken
from truetune.parity.compare import Compared, Difference, Limit
from truetune.parity.logits import Distance, too_far
from truetune.report import Terminal

_PACKAGES = ("truetune", "transformers", "tokenizers", "torch", "gguf", "xllamacpp")


@dataclass(frozen=True)
class Parity:
    """Whether everything that was exported serves what was trained.

    Attributes:
        layers: the ids that each place makes, beside those of training. distances: how far probabilities are apart.
        left_out: what could not be asked, and why.
    """

    layers: tuple[Compared, ...] = ()
    distances: tuple[Distance, ...] = ()
    left_out: tuple[Both, ...] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: _versions())

    @property
    def differences(self) -> list[Difference]:
        """Everything that is not the same, ids before probabilities."""
        ids = [difference for layer in self.layers for difference in layer.differences]
        return [*ids, *(Difference("logits", each.form, too_far(each)) for each in self.distances if not each.near)]

    @property
    def first(self) -> Difference | None:
        return next(iter(self.differences), None)

    @property
    def status(self) -> Status:
        compared = self.distances or any(layer.count("same") or layer.count("different") for layer in self.layers)
        return "failed" if self.first else "passed" if compared else "unproven"

    def as_dict(self) -> dict[str, Any]:
        first = self.first
        return {"status": self.status, "first_difference": first.as_dict() if first else None,
                "layers": [_layer(layer) for layer in self.layers],
                "logits": [each.as_dict() for each in self.distances],
                "left_out": [str(words) for words in self.left_out],
                "notes": [{"en": str(note), "zh": spoken(note, True)} for note in self.notes()],
                "versions": dict(self.versions)}

    def write(self, folder: Path) -> None:
        write_json(folder / PARITY, self.as_dict())

    def markdown(self) -> list[str]:
        """Lines for the model card."""
        if self.status == "unproven":
            return ["## Parity", "", "**Not proven**: nothing was compared (`export_parity: off`, or a model without a "
                    "chat template).", ""]
        lines, told = ["## Parity", "", PROVEN[self.status].en, ""], self.as_dict()
        if self.layers:
            lines += _markdown_table(ID_COLUMNS, id_rows(told["layers"], False), False)
        if self.distances:
            lines += _markdown_table(LOGIT_COLUMNS, logit_rows(told["logits"], False), False)
        notes = [f"- {spoken(note, False)}" for note in self.notes()]
        return [*lines, *notes, *([""] if notes else []), "`parity.json` holds every row; "
                "`truetune parity A B` compares any two places again.", ""]

    def show(self, terminal: Terminal) -> None:
        """Tables and notes in the terminal's language."""
        chinese = terminal.chinese
        told = self.as_dict()
        for columns, rows in ((ID_COLUMNS, id_rows(told["layers"], chinese)),
                              (LOGIT_COLUMNS, logit_rows(told["logits"], chinese))):
            if rows:
                table = Table(*(spoken(column, chinese) for column in columns), box=None, pad_edge=False)
                for row in rows:
                    table.add_row(*row)
                terminal.print(table)
        for note in self.notes():
            terminal.say(note)
        terminal.say(PROVEN[self.status])

    def notes(self) -> list[Words]:
        """What a table has no room for: the first difference, and the limits of servers."""
        found: list[Words] = [self.first.words()] if self.first else []
        return [*found, *self._limits(), *self.left_out]

    def _limits(self) -> list[Both]:
        limits = [(layer.layer, row) for layer in self.layers for row in layer.rows if row.verdict == "limit"]
        notes = []
        for kind, said in _LIMITS.items():
            mine = [(name, row) for name, row in limits if row.limit == kind]
            places = ", ".join(dict.fromkeys(name for name, _ in mine))
            probes = ", ".join(dict.fromkeys(row.probe for _, row in mine))
            notes += [Both(*(half.format(places=places, probes=probes) for half in said))] if mine else []
        more = {layer.layer: ", ".join(token.text for token in layer.more_ends)
                for layer in self.layers if layer.more_ends}
        for named in dict.fromkeys(more.values()):
            places = ", ".join(layer for layer, tokens in more.items() if tokens == named)
            notes.append(Both(f"{places}: an answer also ends at {named}, which stand inside no answer.",
                              f"{places}：回答还会在 {named} 处结束；它们不会出现在回答中间。"))
        return notes


_LIMITS: Mapping[Limit, Both] = {
    "typed": Both(
        "Injected special tokens: where a user types one, training and truetune's own chat and API keep it as text; "
        "{places} read it as the token itself. Servers that are given text do so with every model, so it is not judged "
        "here. Take such words out of what users send, or serve by ids.",
        "注入的特殊 token：用户输入特殊 token 的文字时，训练和 truetune 的 chat、API 都当作普通文本；{places} 会把"
        "它当成特殊 token。接收文本的服务对任何模型都如此，因此这里不作判定。请过滤用户输入，或用 id 提供服务。"),
    "unlearned": Both(
        "Not learned ({probes}): training refuses such conversations, for the template has no place for what is in "
        "them; {places} would answer them nevertheless, each in its own way. Do not send them.",
        "没有学过（{probes}）：模板没有相应的写法，训练时不接受；{places} 仍会按各自的写法回答。请不要发送。"),
    "lacking": Both("{places} cannot write this and says so when asked: {probes}.",
                    "{places} 无法表达下列对话，请求时会明确拒绝：{probes}。"),
    "fixed": Both("{places} stays with what was trained as the default and cannot be switched: {probes}.",
                  "{places} 保持训练时的默认设置，不能切换：{probes}。"),
    "composed": Both(
        "{places} keeps letters as they are sent where this tokenizer composes them first (Unicode NFC): {probes}.",
        "这个分词器会先合成字符（Unicode NFC），{places} 不会：{probes}。"),
}
"""What is said of differences that no export can mend."""
def _markdown_table(columns: Sequence[Words], rows: Sequence[Sequence[str]], chinese: bool) -> list[str]:
    return [f"| {' | '.join(spoken(column, chinese).replace('|', chr(92) + '|') for column in columns)} |",
            f"|{'---|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in rows), ""]


def _layer(layer: Compared) -> dict[str, Any]:
    rows = [{"probe": row.probe, "verdict": row.verdict, "tokens": row.tokens, "note": str(row.note),
             "difference": row.difference.as_dict() if row.difference else None} for row in layer.rows]
    return {"layer": layer.layer, "same": layer.same, "ends": layer.ends,
            "more_ends": [asdict(token) for token in layer.more_ends],
            "wrong_ends": layer.wrong_ends.as_dict() if layer.wrong_ends else None, "probes": rows}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
