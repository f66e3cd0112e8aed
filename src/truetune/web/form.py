"""Fields drawn from the schema, and what is typed in them as a configuration.

A field holds text as a person types it, and is read as a line of YAML is (`options.read`): so the page knows the same
values, slips and defaults as the command line, and says the same of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import gradio as gr
from gradio.components import Component

from truetune.findings import Both, Finding
from truetune.options import OPTIONS, Config, Option
from truetune.options.read import Given, as_yaml, read_config
from truetune.options.schema import choices
from truetune.rules import DERIVED
from truetune.rules.applies import missing
from truetune.web.explained import explained, label
from truetune.web.words import Language, Wording, say

HERE = Both("the page", "网页")
Texts = dict[str, str]
"""Options by name, as they were typed; what was left as it is does not stand there."""

_WORKED_OUT = {name for name, *_ in DERIVED}
"""Options whose default depends on others: their field is empty until somebody sets them."""


_EMPTY: Mapping[str, Both] = {
    "model_name_or_path": Both("bundled/smollm2-135m-instruct, a folder or a hub id",
                               "bundled/smollm2-135m-instruct、本地文件夹或 hub id"),
    "adapter_name_or_path": Both("none: a new adapter is begun", "无：新建适配器"),
    "template": Both("the model's own", "模型自带的模板"),
    "quantization_bit": Both("none: 16 or 32 bits", "不量化"),
    "rope_scaling": Both("as the model has it", "按模型原样"),
    "bf16": Both("automatic", "自动"),
    "dataset": Both("names in dataset_info.json, or files", "dataset_info.json 里的名字，或文件"),
    "eval_dataset": Both("none, or what val_size holds out", "无，或由 val_size 留出"),
    "identity_name": Both("what the assistant is called", "助手叫什么"),
    "identity_author": Both("who made it", "由谁开发"),
    "output_dir": Both("proposed once there is a model", "选好模型后自动给出"),
    "teacher_model": Both("a folder or a hub id", "本地文件夹或 hub id"),
    "reward_funcs": Both("such as exact_number, or my.py:function", "例如 exact_number，或 my.py:function"),
}
"""What stands in a field that is empty, where the schema's words are too long for it."""


@dataclass(frozen=True)
class Field:
    """An option on the page. place: what is shown or hidden; component: what is typed into."""

    option: Option
    place: gr.Column
    component: Component


class Form:
    """The fields of one tab. Draw each where it shall stand; then `held` is what handlers take, `components` what they
    write.

    held: what somebody has changed, by option, kept by the browser. Handlers never take the fields themselves: Gradio's
    page notes a progress for every input of a handler that has run, and each later event, in whatever tab, goes through
    all that it has noted. With the 250 fields of a training, one tick of a timer took a browser 0.4 s.
    """

    def __init__(self, wording: Wording, prefix: str = ""):
        """prefix: of the fields' ids, where another tab draws the same options (`chat-option-template`)."""
        self._wording, self._prefix = wording, prefix
        self.fields: dict[str, Field] = {}
        self.held = gr.JSON({}, visible=False)

    def draw(self, name: str, *, visible: bool = True, **settings: Any) -> Field:
        """One option's field, with its explanation folded below it.

        Args:
            settings: of the component, other than the schema gives (choices that are found on this machine).
        """
        option = OPTIONS[name]
        with gr.Column(min_width=260, visible=visible, elem_id=f"{self._prefix}field-{name}",
                       elem_classes="field") as place:
            component = self._component(option, settings)
            self._wording(gr.HTML, value=lambda language: explained(option, language), elem_classes="explained")
        self.fields[name] = Field(option, place, component)
        component.change(  # type: ignore[attr-defined]
            None, component, self.held, js=_HOLD.format(form=json.dumps(self._prefix), name=json.dumps(name)),
            show_progress="hidden", api_visibility="private")
        return self.fields[name]

    def _component(self, option: Option, settings: Mapping[str, Any]) -> Component:
        said = {"label": lambda language: label(option, language), "elem_id": f"{self._prefix}option-{option.name}",
                "value": at_rest(option)}
        if option.info.annotation is bool:
            return self._wording(gr.Checkbox, **{**said, "value": bool(option.default), **settings})
        if "choices" in settings or choices(option.info.annotation) or bool in get_args(option.info.annotation):
            # What is not among the choices can be typed too: a slip is then told in words, with what was meant.
            several = settings.get("multiselect", _takes_several_words(option))
            offered = {"choices": lambda language: _offered(option, language)}
            value = _parts(at_rest(option)) if several else at_rest(option)
            return self._wording(gr.Dropdown, **{**said, **offered, "value": value, "multiselect": several,
                                                 "filterable": True, "allow_custom_value": True, **settings})
        return self._wording(gr.Textbox, **{
            **said, "max_lines": 8, "placeholder": lambda language: when_empty(option, language), **settings})

    @property
    def components(self) -> list[Component]:
        return [field.component for field in self.fields.values()]

    @property
    def places(self) -> list[gr.Column]:
        return [field.place for field in self.fields.values()]

    def texts(self, held: Mapping[str, Any]) -> Texts:
        """What was typed, of the value of `held`: only what differs from the default."""
        typed = {name: _typed(held[name]) for name in self.fields if name in held}
        return {name: text for name, text in typed.items() if text != at_rest(OPTIONS[name])}

    def filled(self, texts: Mapping[str, str], held: Mapping[str, Any]) -> list[Any]:
        """Updates of `components` so that they hold `texts`, and the default where that says nothing.

        Args:
            held: what they hold now: those that hold it already are left alone.
        """
        now, wanted = self.texts(held), {name: texts.get(name) for name in self.fields}
        return [gr.skip() if now.get(name) == text else _update(field, at_rest(field.option) if text is None else text)
                for (name, text), field in zip(wanted.items(), self.fields.values(), strict=True)]

    def updated(self, texts: Mapping[str, str]) -> dict[Component, Any]:
        """Updates of the components of `texts` alone; the others stay as they are."""
        return {self.fields[name].component: _update(self.fields[name], text) for name, text in texts.items()
                if name in self.fields}


class Proposal:
    """What the page proposes for a field: handlers write it to `component`, and after each of them the browser puts it
    into the field, unless somebody has typed something else there, also while the handler was at work.

    component: `{"before": …, "now": …}`, what the field may hold of this page and what it shall hold.
    """

    def __init__(self, form: Form, name: str):
        self._field = form.fields[name].component
        self.component = gr.JSON(self.value(""), visible=False)

    @staticmethod
    def value(now: str, before: str = "") -> dict[str, str]:
        """What `component` holds."""
        return {"before": before, "now": now}

    @staticmethod
    def typed(texts: Texts, name: str, proposal: Mapping[str, str]) -> Texts:
        """`texts` without what nobody has typed into the field of the option `name`."""
        return {each: text for each, text in texts.items() if each != name or text not in proposal.values()}

    def after(self, event: Any) -> None:
        """Put it into the field once `event` is done."""
        event.then(None, [self.component, self._field], self._field, js=_PROPOSE, show_progress="hidden",
                   api_visibility="private")


_PROPOSE = "(proposal, typed) => [typed && typed !== proposal.before ? typed : proposal.now]"
_HOLD = """value => {{
  const held = ((window.held ??= {{}})[{form}] ??= {{}});
  held[{name}] = value;
  return [{{...held}}];
}}"""
"""One field's change, noted in one place: two that come at once both count."""


def at_rest(option: Option) -> str:
    """What stands in an option's field before anybody types."""
    return "" if option.name in _WORKED_OUT else option.default_text


def _takes_several_words(option: Option) -> bool:
    """Whether it takes several of some words, as pref_loss does."""
    annotation = option.info.annotation
    return get_origin(annotation) is tuple and get_origin(get_args(annotation)[0]) is Literal


def _offered(option: Option, language: Language) -> list[tuple[str, str]]:
    """What can be chosen, and how it is written: "" stands for a value that is worked out, null for none at all."""
    annotation = option.info.annotation
    words = [*choices(annotation), *(["true", "false"] if bool in get_args(annotation) else []),
             *(["null"] if option.takes_null else [])]
    rest = at_rest(option)
    named = [] if rest in words or _takes_several_words(option) else [rest]
    return [(word or when_empty(option, language) or "—", word) for word in (*named, *words)]


def when_empty(option: Option, language: Language) -> str:
    """What is taken, or may be typed, where a field is empty; short enough to stand in it."""
    if option.name in _EMPTY:
        return say(_EMPTY[option.name], language)
    unset = say(Both(*option.text.unset), language) if option.text.unset else ""
    told = ", ".join(filter(None, [option.default_text, unset]))
    return told if len(told) <= 48 else f"{told[:47]}…"


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value).strip()


def _update(field: Field, text: str) -> Any:
    if isinstance(field.component, gr.Checkbox):
        return gr.update(value=text == "true")
    if isinstance(field.component, gr.Dropdown) and field.component.multiselect:
        return gr.update(value=_parts(text))
    return gr.update(value=text)


def configured(texts: Mapping[str, str]) -> tuple[Config, list[Finding]]:
    """The configuration that the page holds, and the slips in it."""
    return read_config([], _givens(texts))


def applying(texts: Mapping[str, str]) -> Texts:
    """What of `texts` does something with the stage, method and switches that they name themselves. The rest is kept in
    its fields, out of sight, and not sent."""
    config, _ = configured(texts)
    return {name: text for name, text in texts.items() if not missing(name, config)}


def _givens(texts: Mapping[str, str]) -> list[Given]:
    """null is said of an option that takes it; a field that was emptied says nothing."""
    return [Given(name, None if text == "null" else text, str(HERE)) for name, text in texts.items() if text]


def as_file(config: Config, texts: Mapping[str, str]) -> str:
    """The options in `texts` as a YAML file that `truetune train` takes, each value as it was read; what could not be
    read stands as it was typed. Secrets are not written down."""
    return "".join(as_yaml(name, _as_read(config, name, text)) + "\n" for name, text in texts.items()
                   if text and not OPTIONS[name].text.secret)


def _as_read(config: Config, name: str, text: str) -> Any:
    if not config.given(name):
        return None if text == "null" else text
    value = getattr(config, name)
    return list(value) if isinstance(value, tuple) else value


def as_texts(values: Mapping[str, Any]) -> Texts:
    """Values, as a rule's cure or a configuration gives them, as they would be typed."""
    return {name: "" if value is None and not OPTIONS[name].takes_null else _as_text(value)
            for name, value in values.items()}


def _as_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_as_text, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return _typed(value)
