"""Fields in which a person says what the columns of a file mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from truetune.data.describe import MEANS, Description, TurnKeys, turn_keys
from truetune.data.formats import COLUMN_KEYS, DEFAULTS, TAG_KEYS
from truetune.data.survey import Look
from truetune.findings import Both
from truetune.web.words import Language, Wording, say

FORMS: Mapping[str, Both] = {
    "columns": Both("a column for the question, a column for the answer", "问题和回答各占一列"),
    "turns": Both("a column with whole conversations, turn by turn", "一列是完整的多轮对话"),
    "text": Both("a column of plain text", "一列纯文本"),
}
"""How the rows of a file are laid out."""
ANSWERS: Mapping[str, Both] = {
    "one": Both("an answer to learn", "要学习的回答"),
    "pair": Both("a better and a worse answer", "一好一差两个回答"),
    "judged": Both("an answer and whether it is good", "一个回答和好坏标注"),
}
"""What stands in the place of the answer."""
_FOLDED = ("system", "history", "tools", "thinking", "images", "videos", "audios")
_ORDER = ("messages", "prompt", "query", "response", "chosen", "rejected", "kto_tag", *TAG_KEYS, *_FOLDED)
KEYS = tuple(key for key in _ORDER if key in (*COLUMN_KEYS, *TAG_KEYS))
"""Keys of dataset_info.json, in the order of their fields."""
_NONE = Both("(none)", "（无）")


@dataclass(frozen=True)
class MappingForm:
    """The fields. Their values, in the order of `components`, are what `described` takes."""

    form: gr.Radio
    answers: gr.Radio
    fields: Mapping[str, gr.Dropdown]

    @property
    def components(self) -> list[gr.Radio | gr.Dropdown]:
        return [self.form, self.answers, *self.fields.values()]


def draw(wording: Wording) -> MappingForm:
    """Draw all fields; `filled_in` shows those that are needed."""
    with gr.Row():
        form = wording(gr.Radio, label=Both("Each row has", "每行数据有"), elem_id="data-form", value="columns",
                       choices=lambda language: _choices(FORMS, language))
        answers = wording(gr.Radio, label=Both("To learn from", "学习的是"), elem_id="data-answers", value="one",
                          choices=lambda language: _choices(ANSWERS, language))
    fields: dict[str, gr.Dropdown] = {}
    with gr.Row():
        for key in KEYS:
            if key not in _FOLDED:
                fields[key] = _field(wording, key)
    with wording(gr.Accordion, label=Both("More columns: system prompt, tools, earlier turns …",
                                          "更多列：系统提示、工具、历史对话……"), open=False), gr.Row():
        for key in KEYS:
            if key in _FOLDED:
                fields[key] = _field(wording, key)
    return MappingForm(form, answers, {key: fields[key] for key in KEYS})


def _choices(words: Mapping[str, Both], language: Language) -> list[tuple[str, str]]:
    return [(say(text, language), name) for name, text in words.items()]


def _field(wording: Wording, key: str) -> gr.Dropdown:
    return wording(gr.Dropdown, label=Both(f"{MEANS[key].en} ({key})", f"{MEANS[key].zh}（{key}）"), choices=[],
                   min_width=220, allow_custom_value=True, elem_id=f"data-map-{key}")


# -------------------------------------------------------------------------------------------------------- what it says


def described(form: str, answers: str, *values: str | None) -> Description:
    """What the fields say. A field that the form does not show says nothing."""
    named = {key: value for key, value in zip(KEYS, values, strict=True)
             if value and shown(key, form, answers)}
    columns = {key: value for key, value in named.items() if key in COLUMN_KEYS}
    tags = {key: value for key, value in named.items() if key in TAG_KEYS}
    if form != "turns":
        return Description("alpaca", columns, {}, answers == "pair" and form == "columns")
    formatting = "openai" if tags.get("role_tag") == "role" and tags.get("content_tag") == "content" else "sharegpt"
    plain = {key: name for key, name in DEFAULTS[formatting].tags.items() if key in tags}
    return Description(formatting, columns, {} if tags == plain else tags, answers == "pair")


def shown(key: str, form: str, answers: str) -> bool:
    """Whether a field means something in a form with such answers."""
    if form == "text":
        return key == "prompt"
    if key in ("chosen", "rejected"):
        return answers == "pair"
    if key == "kto_tag":
        return answers == "judged"
    if key in TAG_KEYS or key == "messages":
        return form == "turns"
    if key == "response":
        return form == "columns" and answers != "pair"
    return form == "columns" or key not in ("prompt", "query", "history", "thinking")


# ----------------------------------------------------------------------------------------------------------- filled in


def filled_in(look: Look, language: Language) -> list[Any]:
    """Updates of all fields by what a file is taken for."""
    description = look.description or Description("alpaca", {})
    form, answers = form_of(look, description), answers_of(description)
    values: dict[str, str | None] = {**dict.fromkeys(KEYS), **description.columns}
    if form == "turns":
        values |= look.layout.tags if look.layout else DEFAULTS["openai"].tags
        values |= description.tags
    return [form, answers, *fields_for(look, form, answers, values, language)]


def form_of(look: Look, description: Description) -> str:
    """The form of a description."""
    if description.formatting != "alpaca":
        return "turns"
    return "text" if look.layout and look.layout.kind == "documents" else "columns"


def answers_of(description: Description) -> str:
    """The answers of a description."""
    return "pair" if description.ranking else "judged" if "kto_tag" in description.columns else "one"


def fields_for(look: Look, form: str, answers: str, values: Mapping[str, str | None],
               language: Language) -> list[Any]:
    """Updates of the fields: those shown that mean something, each with what the file has to choose from."""
    columns = [column.name for column in look.columns]
    raw = [row.values for row in look.raw]
    turns = turn_keys(raw, values.get("messages") or "") if form == "turns" else TurnKeys((), {})
    none = (say(_NONE, language), "")

    def choices(key: str) -> Sequence[str]:
        if key not in TAG_KEYS:
            return columns
        return turns.keys if key in ("role_tag", "content_tag") else turns.words.get(values.get("role_tag") or "", ())

    return [gr.update(choices=[none, *((name, name) for name in choices(key))], value=values.get(key) or "",
                      visible=shown(key, form, answers)) for key in KEYS]
