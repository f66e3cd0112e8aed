"""The data sets that are there: a table; and of the one chosen its rows, statistics, entry, what can be made of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.blocks import Block

from truetune.data.derive import fill_file, filled, kind_for, placeholders, split_file
from truetune.data.describe import described_as
from truetune.data.listing import Listed, list_sets, listed
from truetune.data.registry import Registry, check_name, parse_object
from truetune.data.sources import INFO, entry_source
from truetune.data.survey import Look, survey
from truetune.findings import WRONG_OPTIONS, Both, Problem, Words, problem
from truetune.model.bundled import BUNDLED
from truetune.options import Config
from truetune.web.data.tokens import framed, learned_tokens
from truetune.web.data.view import STYLE, columns_html, findings_html, paragraph, rows_html, sets_html, survey_html
from truetune.web.errors import in_words, toast
from truetune.web.words import Language, say

if TYPE_CHECKING:
    from truetune.web.data.tab import DataTab

_ON_CLICK = """element.addEventListener('click', event => {
  const button = event.target.closest('[data-set]');
  if (button) trigger('select', {name: button.dataset.set});
});"""
"""A click on a name in the table, told to Python."""
_PLACEHOLDERS = 6
_SHOWN = 3
"""Rows of a data set that are shown."""


def build(tab: DataTab) -> None:
    """The table, and below it the data set that is chosen in it."""
    page, wording = tab.page, tab.page.wording

    def table(folder: str, chosen: str, changed: int, language: Language) -> str:
        return _table(tab, folder, chosen, language)

    shown = gr.HTML(table, inputs=[tab.folder, tab.chosen, tab.changed, page.language], css_template=STYLE,
                    js_on_load=_ON_CLICK, elem_id="data-table")
    shown.select(_picked, None, tab.chosen, show_progress="hidden")
    with gr.Column(visible=False, elem_id="data-chosen") as panel:
        _build_chosen(tab, panel)
    with wording(gr.Accordion, label=Both(f"All of {INFO} as text", f"{INFO} 全文"), open=False,
                 elem_id="data-info-fold") as whole:
        _build_whole(tab, whole)


def _picked(event: gr.EventData) -> str:
    return str(event.name)


def _table(tab: DataTab, folder: str, chosen: str, language: Language) -> str:
    """The table of data sets, or why there is none. Never raises: it is drawn whenever the page is loaded."""
    try:
        found = list_sets(tab.inside(folder), tab.allowed)
    except Problem as error:
        return findings_html(error.findings, language)
    if found:
        return sets_html(found, chosen, language)
    return paragraph(Both(f"There are no data sets in {folder} yet. Add your own data: a file, or text that you paste.",
                          f"{folder} 里还没有数据集。请添加自己的数据：上传文件，或直接粘贴文本。"), language)


def _find(tab: DataTab, folder: str, name: str) -> Listed:
    """The data set of that name, as it is now.

    Raises:
        Problem: there is none any more.
    """
    place = tab.inside(folder)
    entries = Registry(place).entries()
    if name not in entries:
        raise problem("no-data-set", Both(f"there is no data set {name} in {folder} any more.",
                                          f"{folder} 里已经没有数据集 {name}。"),
                      fix=Both("Choose one in the table.", "请在表格里选择。"))
    return listed(name, entries[name], place, tab.allowed)


def _local(one: Listed) -> Path:
    """Its only file.

    Raises:
        Problem: it has several, or none here.
    """
    if len(one.paths) == 1:
        return one.paths[0]
    raise problem("not-one-file", Both(f"{one.name} is not one file on this machine.",
                                       f"{one.name} 不是本机上的单个文件。"),
                  fix=Both("This can be done with a data set of one file.", "此操作只适用于单个文件的数据集。"))


# ------------------------------------------------------------------------------------------------------ the chosen one


def _build_chosen(tab: DataTab, panel: gr.Column) -> None:
    page, wording = tab.page, tab.page.wording
    head = gr.HTML(css_template=STYLE, elem_id="data-head")
    with gr.Row():
        train = wording(gr.Button, value=Both("Train on this", "用它训练"), variant="primary", elem_id="data-train")
        count = wording(gr.Button, value=Both("Statistics", "统计"), elem_id="data-statistics")
        remap = wording(gr.Button, value=Both("Set its columns", "设置各列的含义"), elem_id="data-remap")
    fill = _build_fill(tab)
    numbers = gr.HTML(css_template=STYLE, elem_id="data-numbers")
    rows = gr.HTML(css_template=STYLE, elem_id="data-rows")
    _build_tokens(tab)
    _build_split(tab)
    entry, new_name = _build_entry(tab)

    def show(folder: str, name: str, changed: int, language: Language) -> Any:
        return _shown(tab, folder, name, language)

    outputs = [panel, head, rows, numbers, entry, new_name, *fill]
    inputs = [tab.folder, tab.chosen, tab.changed, page.language]
    for trigger in (tab.chosen.change, tab.changed.change, tab.folder.change):
        trigger(show, inputs, outputs, show_progress="hidden")

    @in_words
    def use(folder: str, name: str, language: Language) -> Any:
        return _settings(_find(tab, folder, name), folder), gr.update(selected="train")

    # Emptied first, so that the same data set chosen twice is told twice.
    train.click(dict, None, page.to_train, show_progress="hidden").then(
        use, [tab.folder, tab.chosen, page.language], [page.to_train, page.tabs])

    @in_words
    def counted(folder: str, name: str, language: Language) -> Iterator[str]:
        yield paragraph(Both("Reading all rows …", "正在读取全部数据……"), language)
        yield _statistics(tab, _find(tab, folder, name), language)

    count.click(counted, [tab.folder, tab.chosen, page.language], numbers)

    @in_words
    def map_again(folder: str, name: str, language: Language) -> Any:
        return (name, str(_local(_find(tab, folder, name)))), gr.update(selected="add")

    remap.click(map_again, [tab.folder, tab.chosen, page.language], [tab.to_map, tab.parts])


def _shown(tab: DataTab, folder: str, name: str, language: Language) -> list[Any]:
    """Updates of the panel about the chosen data set; it is hidden where there is none of that name."""
    try:
        one = _find(tab, folder, name) if name else None
    except Problem:
        one = None
    if one is None:
        return [gr.update(visible=False), *[gr.skip()] * (5 + 2 + _PLACEHOLDERS)]
    rows = rows_html(one.look.rows[:_SHOWN], language) if one.look else ""
    entry = json.dumps(one.entry, indent=2, ensure_ascii=False)
    return [gr.update(visible=True), _head(one, language), rows, "", entry, name,
            *_fill_fields(one.look.placeholders if one.look else {}, name)]


def _head(one: Listed, language: Language) -> str:
    columns = columns_html(one.look.columns, described_as(one.layout), language) if one.look and one.layout else ""
    title = escape(say(Both("Its columns", "各列的含义"), language))
    fold = f"<details><summary>{title}</summary>{columns}</details>" if columns else ""
    return f"<h3>{escape(one.name)}</h3>{findings_html(one.findings, language)}{fold}"


def _settings(one: Listed, folder: str) -> dict[str, str]:
    """What the training form is filled with."""
    stage = {"stage": one.stages[0]} if one.stages else {}
    return {"dataset_dir": folder.strip() or "data", "dataset": one.name, **stage}


def _statistics(tab: DataTab, one: Listed, language: Language) -> str:
    if not one.here or one.layout is None:
        return findings_html([*one.findings, *_elsewhere(one)], language)
    return survey_html(tab.page.worker.ask(survey, one.paths, None, one.layout), language)


def _elsewhere(one: Listed) -> Iterator[Any]:
    if not one.findings:
        yield problem("not-here", Both(f"{one.file} is not on this machine, so it is not looked into here.",
                                       f"{one.file} 不在本机，这里不读取。")).findings[0]


# -------------------------------------------------------------------------------------------------------- placeholders


def _build_fill(tab: DataTab) -> list[Block]:
    """Fields for what stands in double braces. Outputs for `_fill_fields`."""
    page, wording = tab.page, tab.page.wording
    with gr.Column(visible=False, elem_id="data-fill") as group:
        wording(gr.Markdown, value=Both(
            "**Fill in the blanks.** Some rows hold words in double braces, like `{{name}}`. Type what shall stand "
            "there; the filled rows become a data set of their own.",
            "**填空。** 有些数据里有双花括号的占位符，例如 `{{name}}`。"
            "填写要替换的内容，填好的数据会存为一个新数据集。"))
        with gr.Row():
            fields = [gr.Textbox(visible=False, label="{{…}}", max_lines=1, min_width=200,
                                 elem_id=f"data-blank-{number}") for number in range(_PLACEHOLDERS)]
        preview = gr.HTML(css_template=STYLE, elem_id="data-fill-preview")
        name = wording(gr.Textbox, label=Both("Name of the new data set", "新数据集的名字"), max_lines=1,
                       elem_id="data-fill-name")
        save = wording(gr.Button, value=Both("Save as a new data set", "存为新数据集"), variant="primary",
                       elem_id="data-fill-save")

    @in_words
    def previewed(folder: str, chosen: str, language: Language, *typed: str) -> str:
        return _fill_preview(_find(tab, folder, chosen), typed, language)

    @in_words
    def saved(folder: str, chosen: str, new: str, changed: int, language: Language, *typed: str) -> Any:
        one = _find(tab, folder, chosen)
        rows = _save_filled(tab.inside(folder), one, new.strip(), typed)
        toast(Both(f"{new.strip()}: {rows:,} rows, filled.", f"{new.strip()}：已填好 {rows:,} 行。"), language, "info")
        return new.strip(), changed + 1

    for field in fields:
        field.change(previewed, [tab.folder, tab.chosen, page.language, *fields], preview, show_progress="hidden")
    save.click(saved, [tab.folder, tab.chosen, name, tab.changed, page.language, *fields], [tab.chosen, tab.changed])
    return [group, name, *fields]


def _fill_fields(found: Mapping[str, int], name: str) -> list[Any]:
    """Updates: the group, the new name, and a field for each placeholder."""
    words = list(found)
    fields = [gr.update(visible=number < len(words), value="", label=f"{{{{{words[number]}}}}}")
              if number < len(words) else gr.update(visible=False, value="") for number in range(_PLACEHOLDERS)]
    return [gr.update(visible=bool(words)), f"my_{name}", *fields]


def _words(one: Listed, typed: tuple[str, ...]) -> dict[str, str]:
    """What each placeholder is filled with; those left empty stay as they are."""
    known = one.look.placeholders if one.look else {}
    return {word: text.strip() for word, text in zip(known, typed, strict=False) if text.strip()}


def _fill_preview(one: Listed, typed: tuple[str, ...], language: Language) -> str:
    words = _words(one, typed)
    if not words or one.look is None or one.layout is None:
        return ""
    look = Look(raw=[row._replace(values=filled(dict(row.values), words)) for row in one.look.raw
                     if placeholders([row.values])][:2])
    look.read(described_as(one.layout))
    return rows_html(look.rows, language)


def _save_filled(folder: Path, one: Listed, new: str, typed: tuple[str, ...]) -> int:
    """The filled rows as a data set; how many there are.

    Raises:
        Problem: nothing was typed, the name is taken or cannot be one, or the files cannot be read or written.
    """
    words = _words(one, typed)
    if not words:
        raise problem("nothing-typed", Both("nothing was typed into the blanks.", "还没有填写任何内容。"),
                      fix=Both("Type what shall stand there.", "请填写要替换的内容。"), status=WRONG_OPTIONS)
    path = _local(one)
    target = new_file(folder, new, kind_for(path))
    rows = fill_file(path, target, words)
    Registry(folder).put(new, _entry_for(one, target.name))
    return rows


def _entry_for(one: Listed, file: str) -> dict[str, Any]:
    """The entry of a file that is made of this data set's."""
    kept = {key: one.entry[key] for key in ("formatting", "ranking", "columns", "tags") if key in one.entry}
    return {"file_name": file, **kept}


def new_file(folder: Path, name: str, suffix: str) -> Path:
    """Where a new data set of this name goes.

    Raises:
        Problem: there is a data set or a file of that name, or it cannot be a name.
    """
    target = folder / f"{check_name(name)}{suffix}"
    if name not in Registry(folder).entries() and not target.exists():
        return target
    raise problem("name-taken", Both(f"there is a data set or a file {name} already.",
                                     f"已有名为 {name} 的数据集或文件。"),
                  fix=Both("Choose another name.", "请换个名字。"), status=WRONG_OPTIONS)


# -------------------------------------------------------------------------------------------------------------- tokens


def _build_tokens(tab: DataTab) -> None:
    """What a model learns of the rows, and how long they are in its tokens."""
    page, wording = tab.page, tab.page.wording
    with wording(gr.Accordion, label=Both("What is learned of it, in the tokens of a model",
                                          "模型从中学习什么（按 token 显示）"), open=False, elem_id="data-tokens-fold"):
        with gr.Row():
            model = wording(gr.Textbox, value=next(iter(BUNDLED)), max_lines=1, elem_id="data-model", label=Both(
                "Model: a folder on the server, or a bundled one", "模型：服务器上的文件夹，或内置模型"))
            cutoff = wording(gr.Textbox, value="2048", max_lines=1, elem_id="data-cutoff", label=Both(
                "Longest row, in tokens (cutoff_len)", "每行最多多少 token（cutoff_len）"))
        show = wording(gr.Button, value=Both("Show", "显示"), elem_id="data-tokens-show")
        shown = gr.HTML(css_template=STYLE, elem_id="data-tokens")

    @in_words
    def tokens(folder: str, chosen: str, model: str, cutoff: str, language: Language) -> Iterator[str]:
        base = model if model in BUNDLED else str(page.roots.inside(model, "model_name_or_path"))
        texts = {**_settings(_find(tab, folder, chosen), str(tab.inside(folder))), "cutoff_len": cutoff,
                 "model_name_or_path": base}
        yield paragraph(Both("The rows become tokens …", "正在分词……"), language)
        html = page.worker.ask(learned_tokens, texts, language != "en")
        yield framed(html, say(Both("Rows in tokens", "按 token 显示的数据"), language))

    show.click(tokens, [tab.folder, tab.chosen, model, cutoff, page.language], shown)


# ---------------------------------------------------------------------------------------------------------- validation


def _build_split(tab: DataTab) -> None:
    page, wording = tab.page, tab.page.wording
    with wording(gr.Accordion, label=Both("Split off a validation set", "划分验证集"), open=False,
                 elem_id="data-split-fold"):
        wording(gr.Markdown, value=Both(
            "Rows that the model never learns from, to see whether it gets better at what it has not seen. Two new "
            "data sets are made, NAME_train and NAME_val; this one stays as it is. Equal rows stay together.",
            "留出一部分不参与训练的数据，用来判断模型在没见过的数据上是否变好。会生成两个新数据集 NAME_train 和 "
            "NAME_val，原数据集不变；相同的行会分在同一边。"))
        share = wording(gr.Slider, minimum=1, maximum=50, value=10, step=1, elem_id="data-share",
                        label=Both("Share held out, in %", "验证集占比（%）"))
        save = wording(gr.Button, value=Both("Split", "划分"), elem_id="data-split")

    @in_words
    def split(folder: str, chosen: str, percent: float, changed: int, language: Language) -> Any:
        one, place = _find(tab, folder, chosen), tab.inside(folder)
        trained, held = _split(place, one, percent / 100)
        toast(Both(
            f"{chosen}_train: {trained:,} rows, {chosen}_val: {held:,} rows. The training form is set to them.",
            f"{chosen}_train：{trained:,} 行；{chosen}_val：{held:,} 行。训练表单已改用它们。"), language, "info")
        settings = {**_settings(one, folder), "dataset": f"{chosen}_train", "eval_dataset": f"{chosen}_val"}
        return f"{chosen}_train", changed + 1, settings

    save.click(split, [tab.folder, tab.chosen, share, tab.changed, page.language],
               [tab.chosen, tab.changed, page.to_train])


def _split(folder: Path, one: Listed, share: float) -> tuple[int, int]:
    """The data set as two new ones, and how many rows each has.

    Raises:
        Problem: the names are taken, there are too few rows, or the files cannot be read or written.
    """
    path = _local(one)
    train, held = (new_file(folder, f"{one.name}_{part}", kind_for(path)) for part in ("train", "val"))
    sizes = split_file(path, train, held, share, seed=random.SystemRandom().randrange(1 << 30))
    for target in (train, held):
        Registry(folder).put(target.stem, _entry_for(one, target.name))
    return sizes


# --------------------------------------------------------------------------------------------------------------- entry


def _build_entry(tab: DataTab) -> tuple[gr.Code, gr.Textbox]:
    """The entry as text, its name, and its end."""
    page, wording = tab.page, tab.page.wording
    with wording(gr.Accordion, label=Both(f"Its entry in {INFO}: edit, rename, remove",
                                          f"{INFO} 里的条目：编辑、改名、移除"), open=False, elem_id="data-entry-fold"):
        entry = wording(gr.Code, language="json", label=Both("Entry", "条目"), elem_id="data-entry", lines=8)
        save = wording(gr.Button, value=Both("Save the entry", "保存条目"), elem_id="data-entry-save")
        new_name = wording(gr.Textbox, label=Both("Name", "名字"), max_lines=1, elem_id="data-new-name")
        rename = wording(gr.Button, value=Both("Rename", "改名"), elem_id="data-rename")
        remove = wording(gr.Button, value=Both("Remove from the list …", "从列表移除……"), variant="stop",
                         elem_id="data-remove")
        with gr.Column(visible=False, elem_id="data-remove-ask") as ask:
            wording(gr.Markdown, value=Both(
                f"Only the entry in {INFO} goes; the file stays, unless you delete it too. What {INFO} held before is "
                f"kept as {INFO}.bak.",
                f"只移除 {INFO} 里的条目，文件会保留，除非选择一并删除。修改前的内容保存在 {INFO}.bak。"))
            with gr.Row():
                entry_only = wording(gr.Button, value=Both("Remove the entry", "移除条目"), elem_id="data-remove-entry")
                with_file = wording(gr.Button, value=Both("Remove it and delete the file", "移除并删除文件"),
                                    variant="stop", elem_id="data-remove-file")
                keep = wording(gr.Button, value=Both("Keep it", "取消"), elem_id="data-remove-not")
    named = [tab.folder, tab.chosen]

    @in_words
    def saved(folder: str, chosen: str, text: str, changed: int, language: Language) -> Any:
        _save_entry(tab, folder, chosen, text)
        toast(Both("The entry is saved.", "条目已保存。"), language, "info")
        return changed + 1

    @in_words
    def renamed(folder: str, chosen: str, new: str, changed: int, language: Language) -> Any:
        Registry(tab.inside(folder)).rename(chosen, new.strip())
        toast(Both(f"It is called {new.strip()} now; its file keeps its name.",
                   f"已改名为 {new.strip()}，文件名不变。"), language, "info")
        return new.strip(), changed + 1

    def removed(delete: bool) -> Any:
        @in_words
        def remove_it(folder: str, chosen: str, changed: int, language: Language) -> Any:
            toast(_remove(tab, folder, chosen, delete), language, "info")
            return "", changed + 1, gr.update(visible=False)

        return remove_it

    save.click(saved, [*named, entry, tab.changed, page.language], tab.changed)
    rename.click(renamed, [*named, new_name, tab.changed, page.language], [tab.chosen, tab.changed])
    remove.click(lambda: gr.update(visible=True), None, ask, show_progress="hidden")
    keep.click(lambda: gr.update(visible=False), None, ask, show_progress="hidden")
    for button, delete in ((entry_only, False), (with_file, True)):
        button.click(removed(delete), [*named, tab.changed, page.language], [tab.chosen, tab.changed, ask])
    return entry, new_name


def _save_entry(tab: DataTab, folder: str, name: str, text: str) -> None:
    """An entry typed as JSON.

    Raises:
        Problem: it is no JSON (with the line), says something that no entry can, or names a file that is not there or
            may not be read.
    """
    place, value = tab.inside(folder), parse_object(text or "", Both("the entry", "条目").en)
    entry_source(name, value, place, Config())
    if isinstance(value.get("file_name"), str):
        tab.allowed(str(place / value["file_name"]))
    Registry(place).put(name, value)


def _remove(tab: DataTab, folder: str, name: str, delete: bool) -> Words:
    """Take the entry out, and delete its file too if that is said; what was done, in words.

    Raises:
        Problem: there is no such entry, another one names the same file, or the file cannot be deleted.
    """
    place = tab.inside(folder)
    one = _find(tab, folder, name)
    path = _local(one) if delete else None
    others = [other for other, entry in Registry(place).entries().items()
              if other != name and isinstance(entry, dict) and entry.get("file_name") == one.entry.get("file_name")]
    if path and path.name == INFO:
        raise problem("file-needed", Both(f"{INFO} itself is not deleted.", f"不能删除 {INFO} 本身。"))
    if path and others:
        raise problem("file-shared", Both(f"{', '.join(others)} reads {path.name} too, so it is not deleted.",
                                          f"{'、'.join(others)} 也在用 {path.name}，因此不删除。"),
                      fix=Both("Remove the entry only.", "请只移除条目。"))
    if path:
        try:
            path.unlink()
        except OSError as error:
            raise problem("not-deleted", Both(f"cannot be deleted: {error.strerror}.", f"无法删除：{error.strerror}。"),
                          where=str(path)) from None
    Registry(place).remove(name)
    if path:
        return Both(f"{name} is removed, and {path.name} deleted.", f"已移除 {name}，并删除 {path.name}。")
    return Both(f"{name} is removed from the list; its file stays.", f"已从列表移除 {name}，文件保留。")


def _build_whole(tab: DataTab, fold: gr.Accordion) -> None:
    """The whole file, for those who mend it by hand; the only way where it has a slip."""
    page, wording = tab.page, tab.page.wording
    text = wording(gr.Code, language="json", label=Both(f"All of {INFO}", f"{INFO} 全文"), elem_id="data-info",
                   lines=12, max_lines=40)
    save = wording(gr.Button, value=Both("Save the file", "保存文件"), elem_id="data-info-save")

    @in_words
    def read(folder: str, language: Language) -> str:
        return Registry(tab.inside(folder)).text()

    @in_words
    def saved(folder: str, typed: str, changed: int, language: Language) -> int:
        Registry(tab.inside(folder)).replace_text(typed or "{}")
        toast(Both(f"{INFO} is saved; what it held before is in {INFO}.bak.",
                   f"{INFO} 已保存，修改前的内容在 {INFO}.bak。"), language, "info")
        return changed + 1

    fold.expand(read, [tab.folder, page.language], text)
    tab.changed.change(read, [tab.folder, page.language], text, show_progress="hidden")
    save.click(saved, [tab.folder, text, tab.changed, page.language], tab.changed)
