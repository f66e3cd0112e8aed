"""Giving a tokenizer a named template, and telling what of it this tokenizer cannot write."""

from __future__ import annotations

import json
import re
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from truetune.data.templates.source import Thinking, find_template, render_text, template_source
from truetune.data.templates.table import Template
from truetune.findings import Both, Finding

_SYSTEM, _USER, _ANSWER = ({"role": role, "content": text} for role, text in
                           (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")))
_PROBES: dict[str, list[dict[str, str]]] = {
    "one turn": [_USER, _ANSWER],
    "a system text": [_SYSTEM, _USER, _ANSWER],
    "two turns": [_USER, _ANSWER, _USER, _ANSWER],
}

_PROBES_ZH = {"one turn": "一轮对话", "a system text": "带系统提示的对话", "two turns": "两轮对话"}

_MARKS = re.compile(r"<[^<>\s]+>|\[/?[A-Za-z_]{2,}\]|\[\|\w+\|\]|\]~!?b[\[\]]|\[e~\[")
"""What looks like a token of its own: <|im_end|>, <｜User｜>, [INST], [|user|], and MiniMax's brackets."""

_SHOWN = 24
"""Characters of a difference that are shown."""


def apply_template(tokenizer: PreTrainedTokenizerBase, name: str, *, tool_format: str | None = None,
                   default_system: str | None = None, enable_thinking: Thinking = "unset",
                   preserve_thinking: bool = False) -> list[Finding]:
    """Put the named template into `tokenizer`, as it will be saved, and say what is wrong or worth knowing about it.

    Where the template asks for it, its first stop word becomes the end-of-text token, if it is a token here. Nothing is
    ever added to the vocabulary: the model has no learned row for a new token. The options are `template_source`'s.

    Raises:
        Problem: an unknown name or tool format (status 2).
    """
    template = find_template(name)
    source = template_source(name, tool_format=tool_format, default_system=default_system,
                             enable_thinking=enable_thinking, preserve_thinking=preserve_thinking)
    brought = _texts(tokenizer) if tokenizer.chat_template else None
    tokenizer.chat_template = source
    if template.replace_eos and _token_id(tokenizer, template.stop[0]) is not None:
        tokenizer.eos_token = template.stop[0]
    findings = [*_lost_ends(tokenizer, template), *_lost_marks(tokenizer, template)]
    if brought is not None:
        findings += _differences(name, _texts(tokenizer), brought,
                                 str(tokenizer.eos_token or "") if template.efficient_eos else "")
    if template.note:
        findings.append(Finding("template-media", "info", template.note, option="template"))
    return findings


def stop_words(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[int]:
    """Ids of the template's stop words that are one token here: where a server stops, beside the end-of-text token."""
    ids = (_token_id(tokenizer, word) for word in template.stop)
    return [number for number in ids if number is not None]


def _token_id(tokenizer: PreTrainedTokenizerBase, word: str) -> int | None:
    """The id of `word` if it is one token, else None."""
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 and (ids[0] != tokenizer.unk_token_id or word == tokenizer.unk_token) else None


def _lost_ends(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[Finding]:
    """Stop words that are no token here: an error where the template writes them, since nothing else ends a turn."""
    written = render_text(template.name, _PROBES["two turns"], bos="", eos="\0")
    fix = Both("Choose the template that was made for this model, or leave template out to use the model's own.",
               "请选用为这个模型制作的模板；或不填 template，使用模型自带的模板。")
    lost = [word for word in template.stop if _token_id(tokenizer, word) is None]
    findings = [Finding("template-token", "error", option="template", fix=fix, message=Both(
        f"{template.name} ends a turn with {word}, which is not one token of this tokenizer: the model could not learn "
        "to stop.",
        f"{template.name} 用 {word} 结束一轮，而它不是这个分词器的单个 token：模型学不会停下。"))
        for word in lost if word in written]
    if "\0" in written and tokenizer.eos_token is None:
        findings.append(Finding("template-token", "error", option="template", fix=fix, message=Both(
            f"{template.name} ends an answer with the end-of-text token, and this tokenizer has none: the model could "
            "not learn to stop.",
            f"{template.name} 用文本结束符结束回答，而这个分词器没有它：模型学不会停下。")))
    unwritten = [word for word in lost if word not in written]
    if unwritten:
        findings.append(Finding("template-token", "warn", option="template", message=Both(
            f"{template.name} also stops at {', '.join(unwritten)}, no token of this tokenizer: it stops nothing "
            "here.",
            f"{template.name} 还在 {'、'.join(unwritten)} 处停止，但它不是这个分词器的 token，在这里不起作用。")))
    return findings


def _lost_marks(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[Finding]:
    """Other marks that the template writes and that are several tokens of plain text here."""
    if template.text_marks:
        return []
    written = render_text(template.name, _PROBES["two turns"], system=_SYSTEM["content"], bos="", eos="")
    marks = [mark for mark in dict.fromkeys(_MARKS.findall(written))
             if mark not in template.stop and _token_id(tokenizer, mark) is None]
    if not marks:
        return []
    return [Finding("template-token", "warn", option="template", message=Both(
        f"{template.name} writes {', '.join(marks)}, for this tokenizer no special tokens but plain text.",
        f"{template.name} 会写出 {'、'.join(marks)}，对这个分词器来说只是普通文本，不是特殊 token。"),
        fix=Both("Choose the template that was made for this model.", "请选用为这个模型制作的模板。"))]


def _texts(tokenizer: Any) -> dict[str, str | None]:
    """Each probe as the tokenizer's present chat template writes it; None where it refuses it."""

    def text(talk: list[dict[str, str]]) -> str | None:
        try:
            return str(tokenizer.apply_chat_template(talk, tokenize=False))
        except TemplateError:
            return None

    return {what: text(talk) for what, talk in _PROBES.items()}


def _common(one: str, other: str) -> int:
    """How many characters the two begin with alike."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                min(len(one), len(other)))


def _differences(name: str, named: dict[str, str | None], brought: dict[str, str | None],
                 closing: str) -> list[Finding]:
    """The first probe that the named template and the one the tokenizer brought write differently.

    closing: the end-of-text token that the named one writes behind a conversation, to which a server never gets.
    """
    for what, text in named.items():
        ours, own = (text or "").removesuffix(closing), brought[what]
        zh = _PROBES_ZH[what]
        if own is None:
            told = Both(f"with {what} the latter refuses to write anything", f"遇到{zh}时，后者拒绝输出")
        elif own.removesuffix(closing) != ours:
            place = max(0, _common(ours, own) - _SHOWN // 3)
            mine, its = _quoted(ours[place:]), _quoted(own[place:])
            told = Both(f"with {what} it writes {mine} where the latter writes {its}",
                        f"遇到{zh}时，它写 {mine}，后者写 {its}")
        else:
            continue
        return [Finding("template-differs", "warn", option="template", message=Both(
            f"{name} is not the chat template that this tokenizer brings: {told}. {name} is what will be trained and "
            "saved.",
            f"{name} 与分词器自带的对话模板不同：{told.zh}。训练和保存时用的是 {name}。"),
            fix=Both("Leave template out to use the model's own.", "不填 template 就使用模型自带的模板。"))]
    return []


def _quoted(text: str) -> str:
    return json.dumps(text[:_SHOWN], ensure_ascii=False)
