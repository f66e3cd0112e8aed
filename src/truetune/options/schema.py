"""What an option is. Every option is one annotated field of a pydantic group and is declared nowhere else.

The type, bounds and default are pydantic's. `Text` carries what people read, in English and Chinese, and the few facts
that pydantic has no word for. Flags, YAML, `--help` and the documentation are drawn from the fields (see `facts`).
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo

Level = Literal["basic", "advanced", "expert"]
LEVELS: tuple[Level, ...] = ("basic", "advanced", "expert")


Pair = tuple[str, str]
"""The same in English and in Chinese."""
Trend = Literal["up", "down", "depends", "same"]
"""What happens to memory, speed or quality when an option is raised or switched on."""


@dataclass(frozen=True)
class Advice:
    """What to set, and who says so. source: a key of `sources.SOURCES`."""

    en: str
    zh: str
    source: str


@dataclass(frozen=True)
class Text:
    """What an option means to people.

    Args:
        en, zh: one or two sentences: what it does.
        level: who needs it; `--help` shows `basic` first.
        higher, lower: what happens when it is raised and lowered (of a switch: when it is on and off).
        memory, speed, quality: what becomes of them when it is raised or switched on.
        unset: what is taken when nothing is given and the default is empty or depends on other options.
        advice: what others have found to work.
        also: other accepted names. A name maps to None (same values) or to a table of values
            (`{"use_lora": {"true": "lora"}}`).
        no_effect: why a known name has no effect here, where nothing is lost by it. It is accepted, and this is said
            in one line.
        not_offered: why what it asks for is not done, where the run is not what was asked for. It is accepted, and
            this is said as a warning.
        free_on_resume: a resumed run may change it, since it does not alter what is learned.
        secret: a password or token; never written down.
    """

    en: str
    zh: str
    level: Level = "advanced"
    higher: Pair | None = None
    lower: Pair | None = None
    memory: Trend = "same"
    speed: Trend = "same"
    quality: Trend = "same"
    unset: Pair | None = None
    advice: tuple[Advice, ...] = ()
    also: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)
    no_effect: Pair | None = None
    not_offered: Pair | None = None
    free_on_resume: bool = False
    secret: bool = False


def _split(value: object) -> object:
    """`a, b` → `(a, b)`: the field writes several values as one comma string."""
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Several values: a comma string (`a,b`) or a YAML list."""
Numbers = Annotated[tuple[float, ...], BeforeValidator(_split)]
"""Several numbers, typed likewise."""


def _read_table(value: object) -> object:
    """A table may come as text in JSON or YAML, since that is how it is typed on a command line. JSON is tried first:
    YAML 1.1 reads 1e-6 as a word."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value


Table = Annotated[dict[str, Any], BeforeValidator(_read_table)]
"""Values by name: a YAML mapping, or the same as text."""
Weights = Annotated[dict[str, float], BeforeValidator(_read_table)]
"""Numbers by name, typed likewise."""


class Group(BaseModel):
    """A module's worth of options. Frozen: after the rules have passed nothing changes a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), validate_default=True,
                              allow_inf_nan=False, defer_build=True)  # only Config is ever built
    title: ClassVar[tuple[str, str]]


@dataclass(frozen=True)
class Option:
    """One option as everything that is drawn from the schema sees it."""

    name: str
    group: type[Group]
    text: Text
    info: FieldInfo

    @property
    def works(self) -> bool:
        """Whether it does anything here."""
        return not (self.text.no_effect or self.text.not_offered)

    @property
    def default(self) -> Any:
        return self.info.get_default(call_default_factory=True)

    @property
    def default_text(self) -> str:
        """The default as a person would type it; empty where there is none."""
        default = self.default
        if isinstance(default, bool):
            return str(default).lower()
        if isinstance(default, tuple):
            return ",".join(map(str, default))
        if isinstance(default, float):
            return f"{default:g}"
        return "" if default in (None, {}) else str(default)

    @property
    def takes_null(self) -> bool:
        """Whether `null` is a value of its own, other than the default."""
        return self.default is not None and type(None) in get_args(self.info.annotation)

    def takes(self, chinese: bool = False) -> str:
        """The values it takes, in words: `lora|full|freeze`, `true|false`, `a number > 0`."""
        bounds = (" 且 " if chinese else " and ").join(filter(None, map(_bound, self.info.metadata)))
        return " ".join(part for part in (_words(self.info.annotation, chinese), bounds) if part)


_WORDS: Mapping[type, tuple[str, str]] = {
    bool: ("true|false", "true|false"), int: ("a whole number", "整数"), float: ("a number", "数"),
    str: ("text", "文本"), tuple: ("a comma list", "逗号分隔的列表"), dict: ("a mapping", "映射"),
}


def _words(annotation: Any, chinese: bool) -> str:
    """A type in words."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return " ".join([_words(inner, chinese), *filter(None, map(_bound, marks))])
    if get_origin(annotation) is Literal:
        return "|".join(str(value) for value in get_args(annotation))
    if get_origin(annotation) is tuple and get_origin(get_args(annotation)[0]) is Literal:
        return ("逗号分隔的列表，可选 " if chinese else "a comma list of ") + _words(get_args(annotation)[0], chinese)
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_words(part, chinese) for part in get_args(annotation) if part is not type(None)]
        return (" 或 " if chinese else " or ").join(parts)
    return _WORDS[get_origin(annotation) or annotation][chinese]


def choices(annotation: Any) -> list[str]:
    """The words that a type offers: of `tuple[Literal["a", "b"], ...]` a and b."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [word for part in get_args(annotation) for word in choices(part)]


def _bound(mark: object) -> str:
    """`> 0` for a bound among a field's marks, nothing for other marks."""
    match mark:
        case Gt(gt=bound):
            return f"> {bound}"
        case Ge(ge=bound):
            return f">= {bound}"
        case Lt(lt=bound):
            return f"< {bound}"
        case Le(le=bound):
            return f"<= {bound}"
    return ""


def facts(groups: tuple[type[Group], ...]) -> Iterator[Option]:
    """Every option of `groups` in the order of declaration.

    Raises:
        TypeError: a field without `Text`: an option nobody explained does not exist.
    """
    for group in groups:
        for name, info in group.model_fields.items():
            texts = [mark for mark in info.metadata if isinstance(mark, Text)]
            if len(texts) != 1:
                raise TypeError(f"option {name} of {group.__name__} needs exactly one Text")
            yield Option(name, group, texts[0], info)
