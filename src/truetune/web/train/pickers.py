"""The lists of the training form: models, adapters, templates and data sets of this machine (`web.models`).

They are read when a field is entered; anything else can be typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from truetune.options import OPTIONS
from truetune.web.form import Form, when_empty
from truetune.web.models import Choice, adapters, datasets, models, templates, with_chosen
from truetune.web.roots import Roots
from truetune.web.words import Language

if TYPE_CHECKING:
    from truetune.web.page import Page

_MOST = 200
"""Names in a list."""


@dataclass(frozen=True)
class Picker:
    """choices(roots, language, *values): what can be picked, of the values of the options `by`. several: more than one
    may be. fixed: it is always the same."""

    choices: Callable[..., Sequence[Choice]]
    by: Sequence[str] = ()
    several: bool = False
    fixed: bool = False


def _models(roots: Roots, language: Language) -> list[Choice]:
    return models(roots, language)


def _adapters(roots: Roots, language: Language, model: str | None) -> list[Choice]:
    return adapters(roots, language, model or "")


def _templates(_: Roots, language: Language) -> list[Choice]:
    return templates(language)


def _datasets(roots: Roots, language: Language, folder: str | None, stage: str | None) -> list[Choice]:
    return datasets(roots, folder or "", stage, language).choices


PICKERS: Mapping[str, Picker] = {
    **dict.fromkeys(("model_name_or_path", "teacher_model", "reward_model"), Picker(_models)),
    "adapter_name_or_path": Picker(_adapters, ("model_name_or_path",), True),
    "template": Picker(_templates, fixed=True),
    **dict.fromkeys(("dataset", "eval_dataset"), Picker(_datasets, ("dataset_dir", "stage"), True)),
}
"""Options whose values are on this machine."""


class Pickers:
    """The lists of one form."""

    def __init__(self, page: Page, form: Form):
        self._page, self._form = page, form

    def settings(self, name: str) -> dict[str, Any]:
        """What `Form.draw` takes to make a list of an option's field; nothing for one that is typed.

        A list has no place for words where nothing is chosen: what can be typed stands above it.
        """
        if name not in PICKERS:
            return {}
        picker = PICKERS[name]
        if picker.fixed:
            return {"choices": picker.choices(self._page.roots, self._page.wording.language)}
        return {"choices": [], "multiselect": picker.several, "value": [] if picker.several else "",
                "info": lambda language: when_empty(OPTIONS[name], language)}

    def connect(self) -> None:
        """Read a list when its field is entered."""
        for name, picker in PICKERS.items():
            field = self._form.fields[name].component
            if isinstance(field, gr.Dropdown) and not picker.fixed:
                by = [self._form.fields[other].component for other in picker.by]
                field.focus(self._read(picker), [self._page.language, field, *by], field, show_progress="hidden",
                            api_visibility="private")

    def _read(self, picker: Picker) -> Callable[..., Any]:
        def read(language: Language, chosen: str | Sequence[str] | None, *values: Any) -> Any:
            choices = picker.choices(self._page.roots, language, *values)[:_MOST]
            return gr.update(choices=with_chosen(choices, chosen))
        return read
