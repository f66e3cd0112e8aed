"""Adding data: a file is uploaded, pasted or named; what its columns mean is found out, shown on its own rows, and set
by hand where that is unsure; then it is saved as a data set.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.data.derive import as_messages, good_rows, kind_for, read_row, write_rows, written
from truetune.data.describe import Description, described_as
from truetune.data.formats import Layout
from truetune.data.incoming import ENCODINGS, Brought, bring, bring_text, tolerant_rows
from truetune.data.readers import RawRow, suffix_of
from truetune.data.reading import Refused
from truetune.data.registry import Registry, check_name, name_for
from truetune.data.sources import entry_source
from truetune.data.survey import Look, Survey, first_look, survey
from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, problem
from truetune.options import Config
from truetune.web.data import mapping
from truetune.web.data.view import (
    STYLE,
    columns_html,
    findings_html,
    paragraph,
    refused_html,
    rows_html,
    understood,
)
from truetune.web.errors import in_words, toast
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.data.tab import DataTab

_SHOWN = 5
"""Rows that are shown."""
_EXAMPLES = (
    (Both("A table: question, answer", "表格：问题、回答"), "question,answer\n"
     "What is the capital of France?,Paris.\n你好！,你好！有什么可以帮你？\n"),
    (Both("JSON: instruction, output", "JSON：instruction、output"),
     '[\n  {"instruction": "Who are you?", "input": "", "output": "I am {{name}}."},\n'
     '  {"instruction": "你是谁？", "input": "", "output": "我是 {{name}}。"}\n]\n'),
    (Both("JSON: whole conversations", "JSON：多轮对话"),
     '{"messages": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello!"}, '
     '{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Very well."}]}\n'
     '{"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]}\n'),
    (Both("JSON: better and worse answers", "JSON：好坏对比"),
     '{"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}\n'
     '{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}\n'),
)
"""What data may look like: a name, and text to paste."""


@dataclass(frozen=True)
class Incoming:
    """What is being added. original: the file as it was brought; brought: as it is read. folder: of this visit alone,
    for copies. named: as the data set that it is already, if its columns are set anew."""

    original: Path
    brought: Brought
    folder: Path
    description: Description | None = None
    named: str = ""

    @property
    def label(self) -> str:
        """What it is called in what is said."""
        return self.brought.name


def build(tab: DataTab) -> None:
    """The three steps: bring it, look whether it is understood, name it."""
    page, wording = tab.page, tab.page.wording
    state: gr.State = gr.State(None, time_to_live=6 * 3600, delete_callback=_forget)
    wording(gr.Markdown, value=Both("### 1 · Bring your data", "### 1 · 提供数据"))
    brought_by = _build_bring(tab)
    with gr.Column(visible=False, elem_id="data-look") as panel:
        wording(gr.Markdown, value=Both("### 2 · Is it understood?", "### 2 · 看看理解得对不对"))
        status = gr.HTML(css_template=STYLE, elem_id="data-status")
        encoding = wording(gr.Dropdown, label=Both("Encoding of the file", "文件编码"), visible=False,
                           elem_id="data-encoding", choices=lambda language: [
                               (say(words, language), name) for name, words in ENCODINGS.items()])
        with wording(gr.Accordion, label=Both("What the columns mean", "各列的含义"), open=True,
                     elem_id="data-columns-fold"):
            columns = gr.HTML(css_template=STYLE, elem_id="data-columns")
            form = mapping.draw(wording)
        rows = gr.HTML(css_template=STYLE, elem_id="data-preview")
        all_rows = gr.HTML(css_template=STYLE, elem_id="data-all-rows")
        with wording(gr.Accordion, label=Both("Rows that cannot be learned from", "无法学习的行"), visible=False,
                     open=True, elem_id="data-bad-fold") as bad_fold:
            bad = gr.HTML(css_template=STYLE, elem_id="data-bad")
            leave_out = wording(gr.Checkbox, value=True, elem_id="data-leave-out", label=Both(
                "Leave these rows out of the data set", "保存时去掉这些行"), info=Both(
                "Your own file stays as it is. With them in it, a training stops at the first one, unless on_bad_row "
                "is drop.", "你的原文件不会改动。如果保留它们，训练会在第一处报错停止，除非把 on_bad_row 设为 drop。"))
        wording(gr.Markdown, value=Both("### 3 · Name it", "### 3 · 起个名字"))
        name = wording(gr.Textbox, max_lines=1, elem_id="data-name", label=Both(
            "Name of the data set", "数据集的名字"), info=Both(
            "What you choose in the training form. Letters, digits, - and _.",
            "在训练表单里选用的名字。可用字母、汉字、数字、- 和 _。"))
        add = wording(gr.Button, value=Both("Add as data set", "添加为数据集"), variant="primary", elem_id="data-add")
        with gr.Column(visible=False, elem_id="data-replace-ask") as ask:
            asked = gr.HTML(css_template=STYLE, elem_id="data-replace-words")
            with gr.Row():
                replace_it = wording(gr.Button, value=Both("Replace it", "替换"), variant="stop",
                                     elem_id="data-replace")
                keep = wording(gr.Button, value=Both("Keep it; I choose another name", "不替换，我换个名字"),
                               elem_id="data-replace-not")
    parts = [status, encoding, columns, rows, bad_fold, bad]
    outputs = [state, panel, *parts, name, ask, *form.components]
    _listen_to_bringing(tab, brought_by, state, outputs, [all_rows, bad_fold, bad])

    @in_words
    def mapped(incoming: Incoming | None, language: Language, *values: Any) -> Any:
        return _mapped(incoming, language, *values)

    for field in form.components:
        field.input(mapped, [state, page.language, *form.components], [state, *parts, *form.components],
                    show_progress="hidden")

    @in_words
    def decoded(incoming: Incoming | None, encoding: str, language: Language) -> Any:
        if incoming is None:
            return gr.skip()
        again = bring(incoming.original, incoming.folder, encoding)
        return _shown(replace(incoming, brought=again, description=None), language)

    encoding.input(decoded, [state, encoding, page.language], outputs)

    @in_words
    def added(incoming: Incoming | None, name: str, leave_out: bool, folder: str, changed: int, language: Language
              ) -> Any:
        return _add(tab, incoming, name.strip(), leave_out, folder, changed, language, sure=False)

    @in_words
    def replaced(incoming: Incoming | None, name: str, leave_out: bool, folder: str, changed: int, language: Language
                 ) -> Any:
        return _add(tab, incoming, name.strip(), leave_out, folder, changed, language, sure=True)

    into = [ask, asked, tab.chosen, tab.changed, tab.parts, panel, state]
    told = [state, name, leave_out, tab.folder, tab.changed, page.language]
    add.click(added, told, into)
    replace_it.click(replaced, told, into)
    keep.click(lambda: gr.update(visible=False), None, ask, show_progress="hidden")


# ------------------------------------------------------------------------------------------------------------ bringing


@dataclass(frozen=True)
class _Ways:
    """The ways in which data come."""

    upload: gr.File
    text: gr.Textbox
    read_text: gr.Button
    path: gr.Textbox
    read_path: gr.Button


def _build_bring(tab: DataTab) -> _Ways:
    wording = tab.page.wording
    with gr.Tabs(elem_id="data-ways"):
        with wording(gr.Tab, label=Both("Upload a file", "上传文件"), id="upload"):
            upload = wording(gr.File, label=Both("JSON, JSONL, CSV, TSV, TXT, Parquet or Arrow, also .gz",
                                                 "JSON、JSONL、CSV、TSV、TXT、Parquet 或 Arrow，也可以是 .gz"),
                             file_count="single", elem_id="data-upload", height=160)
        with wording(gr.Tab, label=Both("Paste text", "粘贴文本"), id="paste"):
            text = wording(gr.Textbox, lines=8, max_lines=20, elem_id="data-paste", label=Both(
                "Rows: cells copied from a spreadsheet, CSV, JSON, or a text in each line",
                "数据：从表格软件复制的单元格、CSV、JSON，或每行一段文本"), placeholder=_EXAMPLES[0][1])
            read_text = wording(gr.Button, value=Both("Read it", "读取"), variant="primary", elem_id="data-paste-read")
            with gr.Row():
                for number, (title, example) in enumerate(_EXAMPLES):
                    show = wording(gr.Button, value=Both(f"Example: {title.en}", f"示例：{title.zh}"), size="sm",
                                   min_width=140, elem_id=f"data-example-{number}")
                    show.click(lambda example=example: example, None, text, show_progress="hidden")
        with wording(gr.Tab, label=Both("A file on the server", "服务器上的文件"), id="path"):
            path = wording(gr.Textbox, label=Both("Its path", "路径"), max_lines=1, elem_id="data-path", info=Both(
                "Relative to the folder in which the page was started, and inside it. A file that lies in the "
                "folder of the data sets is used where it is; any other is copied there.",
                "相对于启动网页时所在的文件夹，且必须在其中。已在数据集文件夹里的文件直接使用，其他文件会复制过去。"),
                placeholder="data/my.jsonl")
            read_path = wording(gr.Button, value=Both("Read it", "读取"), variant="primary", elem_id="data-path-read")
    return _Ways(upload, text, read_text, path, read_path)


def _listen_to_bringing(tab: DataTab, ways: _Ways, state: gr.State, outputs: list[Any],
                        counts: list[Any]) -> None:
    page = tab.page

    @in_words
    def uploaded(path: str | None, language: Language) -> Any:
        return _shown(_incoming(Path(path)), language) if path else [gr.skip()] * len(outputs)

    @in_words
    def pasted(text: str, language: Language) -> Any:
        folder = _own_folder()
        found = bring_text(text or "", folder)
        return _shown(Incoming(found.path, found, folder), language)

    @in_words
    def named(path: str, language: Language) -> Any:
        return _shown(_incoming(_existing(tab, path)), language)

    @in_words
    def remapped(wanted: tuple[str, str], folder: str, language: Language) -> Any:
        if not wanted:
            return [gr.skip()] * len(outputs)
        return _shown(_known(tab, wanted[0], Path(wanted[1]), folder), language)

    def bring(event: Any, handler: Any, inputs: list[Any]) -> Any:
        """What was shown before goes first: if this cannot be read, the last file must not be what is added."""
        return event(lambda: [None, gr.update(visible=False)], None, outputs[:2], show_progress="hidden").then(
            handler, inputs, outputs)

    brought = [
        bring(ways.upload.upload, uploaded, [ways.upload, page.language]),
        bring(ways.read_text.click, pasted, [ways.text, page.language]),
        bring(ways.read_path.click, named, [ways.path, page.language]),
        bring(ways.path.submit, named, [ways.path, page.language]),
        tab.to_map.change(remapped, [tab.to_map, tab.folder, page.language], outputs),
    ]

    @in_words
    def counted(incoming: Incoming | None, language: Language) -> Iterator[Any]:
        yield from _counted(tab, incoming, language)

    for event in brought:  # a large file is looked at first, and read whole while its first rows are shown
        event.success(counted, [state, page.language], counts, show_progress="hidden")


def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="truetune-data-"))


def _forget(incoming: Incoming | None) -> None:
    """Clear away the copies of a visit that is over."""
    if incoming:
        shutil.rmtree(incoming.folder, ignore_errors=True)


def _incoming(path: Path, description: Description | None = None, named: str = "") -> Incoming:
    """A file as one that can be read; turns that no entry can describe are written otherwise first.

    Raises:
        Problem: it cannot be read, or is of no kind that is.
    """
    folder = _own_folder()
    try:
        return Incoming(path, bring(path, folder), folder, description, named)
    except Problem as error:
        if any(finding.id == "not-utf8" for finding in error.findings):
            return Incoming(path, Brought(path, path.name, None, False), folder, description, named)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _existing(tab: DataTab, typed: str) -> Path:
    path = tab.page.roots.inside(typed.strip())
    if path.is_file():
        return path
    raise problem("no-data-file", Both(f"there is no file {typed.strip()}." if typed.strip() else "no file is named.",
                                       f"没有文件 {typed.strip()}。" if typed.strip() else "没有填写文件。"),
                  fix=Both("A relative path starts at the folder in which the page was started.",
                           "相对路径从启动网页时所在的文件夹算起。"), status=WRONG_OPTIONS)


def _known(tab: DataTab, name: str, path: Path, folder: str) -> Incoming:
    """A data set that is there, to set its columns anew."""
    place = tab.inside(folder)
    entry = Registry(place).entries().get(name)
    layout = entry_source(name, entry, place, Config()).layout if entry is not None else None
    return _incoming(tab.allowed(str(path)), described_as(layout) if layout else None, name)


# ------------------------------------------------------------------------------------------------------------- looking


def first(incoming: Incoming) -> Look:
    """The first rows of what is being added, by what its columns are taken for."""
    return first_look([incoming.brought.path], incoming.label, incoming.description)


def _shown(incoming: Incoming, language: Language) -> list[Any]:
    """Updates of all that shows what is being added."""
    look = first(incoming)
    if look.layout is not None and look.description is None and look.rows:
        incoming = _rewritten(incoming, look.layout)
        look = first(incoming)
    name = incoming.named or name_for(incoming.label)
    return [incoming, gr.update(visible=True), *_parts(incoming, look, language), name, gr.update(visible=False),
            *mapping.filled_in(look, language)]


def _rewritten(incoming: Incoming, layout: Layout) -> Incoming:
    """Turns in columns that dataset_info.json cannot describe, written as `messages`; bad rows are kept to be told."""
    target = incoming.folder / f"{name_for(incoming.label)}.messages.jsonl"
    rows = (_rewritten_row(row, layout) for row in tolerant_rows(incoming.brought.path, incoming.label)
            if isinstance(row, RawRow))
    write_rows(target, rows)
    note = Both("dataset_info.json cannot describe these columns, so the rows are kept as `messages`, with the same "
                "content.", "dataset_info.json 无法描述这样的列，因此改存为 messages 形式，内容不变。")
    return replace(incoming, brought=Brought(target, incoming.label, None, True, (*incoming.brought.notes, note)))


def _rewritten_row(row: RawRow, layout: Layout) -> dict[str, Any]:
    read = read_row(row, layout)
    return dict(row.values) if isinstance(read, Refused) else as_messages(read)


def _parts(incoming: Incoming, look: Look, language: Language) -> list[Any]:
    """Updates of what is said of it, its encoding, its columns, its rows and its bad rows."""
    brought = incoming.brought
    foreign = brought.encoding not in (None, "utf-8-sig") or any(found.id == "not-utf8" for found in look.findings)
    notes = "".join(paragraph(note, language, "tt-soft") for note in brought.notes)
    return [
        notes + _status(look, language), gr.update(visible=foreign, value=brought.encoding),
        columns_html(look.columns, look.description, language) if look.columns else "",
        _rows(look, language), gr.update(visible=bool(look.refused)),
        _bad(look, language),
    ]


def _status(look: Look, language: Language) -> str:
    """In words what was found."""
    told = [*look.findings]
    if not look.raw and not told and not look.refused:
        told.append(Finding("no-rows", "error", Both("it holds no rows.", "里面没有数据。")))
    elif look.raw and look.layout is None and not look.findings:
        told.append(Finding("unknown-format", "warn", Both(
            "its columns are those of no known format.", "它的列不属于任何已知格式。"), fix=Both(
            "Say below which column is the question and which the answer.",
            "请在下面指定哪一列是问题、哪一列是回答。")))
    return findings_html(told, language) + (understood(look, language) if look.rows else _none_read(look, language))


def _none_read(look: Look, language: Language) -> str:
    if not look.refused:
        return ""
    return findings_html([Finding("no-rows-left", "error", Both(
        "with these columns no row can be learned from.", "按这样的列，没有一行可以学习。"), fix=Both(
        "Set the columns below; the reasons stand under the rows.",
        "请在下面设置各列的含义；原因列在数据下方。"))], language)


def _rows(look: Look, language: Language) -> str:
    if not look.rows:
        return ""
    of = len(look.rows)
    words = Both(f"The first {min(of, _SHOWN)} of {of:,} rows, as the model will see them"
                 if look.whole else f"The first {min(of, _SHOWN)} rows, as the model will see them",
                 f"前 {min(of, _SHOWN)} 行（共 {of:,} 行），即模型将看到的内容" if look.whole else
                 f"前 {min(of, _SHOWN)} 行，即模型将看到的内容")
    return paragraph(words, language, "tt-soft") + rows_html(look.rows[:_SHOWN], language)


def _bad(look: Look, language: Language) -> str:
    if not look.refused:
        return ""
    of = len(look.refused) + len(look.rows)
    words = Both(f"{len(look.refused):,} of {'' if look.whole else 'the first '}{of:,} rows:",
                 f"{'' if look.whole else '前 '}{of:,} 行中有 {len(look.refused):,} 行：")
    return paragraph(words, language) + refused_html(look.refused, len(look.refused), language)


def _counted(tab: DataTab, incoming: Incoming | None, language: Language) -> Iterator[list[Any]]:
    """Updates of how many rows there are in all and of the bad ones, where the first look did not see all of them."""
    look = first(incoming) if incoming else None
    if incoming is None or look is None or look.whole or look.layout is None:
        yield ["", gr.skip(), gr.skip()]
        return
    yield [paragraph(Both("Reading all rows …", "正在读取全部数据……"), language, "tt-soft"), gr.skip(), gr.skip()]
    found = _surveyed(tab, incoming, look.layout)
    bad = sum(found.bad.values())
    words = Both(f"In all {found.rows:,} rows, {bad:,} of them cannot be learned from.",
                 f"共 {found.rows:,} 行，其中 {bad:,} 行无法学习。")
    yield [findings_html(found.findings, language) + paragraph(words, language), gr.update(visible=bad > 0),
           refused_html(found.refused, bad, language)]


def _mapped(incoming: Incoming | None, language: Language, *values: Any) -> list[Any]:
    """Updates after a person has said what a column means."""
    if incoming is None:
        return [gr.skip()] * (7 + 2 + len(mapping.KEYS))
    form, answers, *names = values
    incoming = replace(incoming, description=mapping.described(form, answers, *names))
    look = first(incoming)
    fields = mapping.fields_for(look, form, answers, dict(zip(mapping.KEYS, names, strict=True)), language)
    return [incoming, *_parts(incoming, look, language), gr.skip(), gr.skip(), *fields]


# -------------------------------------------------------------------------------------------------------------- adding


def _add(tab: DataTab, incoming: Incoming | None, name: str, leave_out: bool, folder: str, changed: int,
         language: Language, sure: bool) -> list[Any]:
    """Save what is being added as a data set; ask first where something of that name is there.

    Raises:
        Problem: nothing was brought, the name cannot be one, no row can be learned from, or the disk does not take it.
    """
    if incoming is None:
        raise problem("nothing-brought", Both("there is nothing to add.", "还没有可添加的数据。"),
                      fix=Both("Bring a file first.", "请先提供数据。"), status=WRONG_OPTIONS)
    place, look = tab.inside(folder), first(incoming)
    check_name(name)
    if look.layout is None or look.description is None or not look.rows:
        raise problem("not-understood", Both("no row of it can be learned from yet.", "目前没有一行可以学习。"),
                      fix=Both("Say which columns hold the question and the answer.", "请指定问题和回答所在的列。"),
                      status=WRONG_OPTIONS)
    bad = _bad_rows(tab, incoming, look, look.layout) if leave_out else 0
    plan = _plan(incoming, look.layout, name, place, without_bad=bad > 0)
    taken = [] if sure else _taken(plan, incoming, name, place)
    if taken:
        words = Both(f"There is {' and '.join(word.en for word in taken)} already.",
                     f"已存在{'和'.join(word.zh for word in taken)}。")
        return [gr.update(visible=True), paragraph(words, language), *[gr.skip()] * 5]
    plan.save()
    Registry(place).put(name, _entry(place, name, look.description, plan.target, incoming))
    _forget(incoming)
    less = Both(f"; {bad:,} rows are left out", f"，已去掉 {bad:,} 行") if bad else Both("", "")
    toast(Both(f"{name} is a data set now: {plan.target.name}{less.en}.",
               f"已添加数据集 {name}：{plan.target.name}{less.zh}。"), language, "info")
    return [gr.update(visible=False), "", name, changed + 1, gr.update(selected="sets"), gr.update(visible=False), None]


def _bad_rows(tab: DataTab, incoming: Incoming, look: Look, layout: Layout) -> int:
    """How many rows cannot be learned from; what lies behind a place where the file cannot be read on counts as one."""
    if look.whole:
        return len(look.refused) + len(look.findings)
    found = _surveyed(tab, incoming, layout)
    return sum(found.bad.values()) + len(found.findings)


def _surveyed(tab: DataTab, incoming: Incoming, layout: Layout) -> Survey:
    """All of it, read by the process that does long work."""
    return tab.page.worker.ask(survey, [incoming.brought.path], incoming.label, layout)


@dataclass(frozen=True)
class _Plan:
    """How the file of a new data set comes about: `source`, copied to `target` unless it is there already. layout: by
    which rows that cannot be learned from are left out; None: the file stays as it is."""

    source: Path
    target: Path
    layout: Layout | None

    @property
    def writes(self) -> bool:
        return self.layout is not None or self.source.resolve() != self.target.resolve()

    def save(self) -> None:
        """Raises:
        Problem: the disk does not take it.
        """
        if self.layout is not None:
            write_rows(self.target, good_rows(_readable(self.source), self.layout))
        elif self.writes:
            written(self.target, lambda part: _copy(self.source, part))


def _copy(source: Path, part: Path) -> None:
    shutil.copyfile(source, part)


def _readable(path: Path) -> Iterator[RawRow | Refused]:
    """The rows of a file as far as it can be read."""
    with suppress(Problem):
        yield from tolerant_rows(path, path.name)


def _plan(incoming: Incoming, layout: Layout, name: str, place: Path, without_bad: bool) -> _Plan:
    source = incoming.brought.path
    if without_bad:
        return _Plan(source, place / f"{name}{kind_for(source)}", layout)
    if not incoming.brought.changed and incoming.original.resolve().is_relative_to(place.resolve()):
        return _Plan(source, source, None)  # it lies there already, and is used where it is
    packed = ".gz" if source.name.lower().endswith(".gz") else ""
    return _Plan(source, place / f"{name}{suffix_of(source.name)}{packed}", None)


def _taken(plan: _Plan, incoming: Incoming, name: str, place: Path) -> list[Both]:
    """What of that name is there already and would be replaced."""
    known = name in Registry(place).entries() and name != incoming.named
    taken = [Both(f"a data set {name}", f"数据集 {name}")] * known
    file = plan.target.name
    return taken + [Both(f"a file {file}", f"文件 {file}")] * (plan.writes and plan.target.exists())


def _entry(place: Path, name: str, description: Description, target: Path, incoming: Incoming) -> dict[str, Any]:
    """The entry; what somebody has added to the one whose columns are set anew stays in it."""
    old = Registry(place).entries().get(name) if incoming.named == name else None
    kept = {key: value for key, value in old.items() if key not in _DESCRIBES} if isinstance(old, dict) else {}
    return {**description.entry(target.resolve().relative_to(place.resolve()).as_posix()), **kept}


_DESCRIBES = ("file_name", "formatting", "ranking", "columns", "tags")
