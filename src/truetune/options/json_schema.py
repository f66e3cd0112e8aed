"""`truetune schema`: a JSON Schema (draft 2020-12) of run.yaml, drawn from the schema, for editors and validators.

It agrees with `read`, which keeps values as text until their option's type reads them: a comma string is a list, a quoted
number is a number, `yes` is a switch, and null takes an option back. What it cannot see is how a number was written:
`1e3` is a whole number to YAML and none to `read`, and a quoted number is not held against its bounds.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from truetune.options import OPTIONS, Option
from truetune.options.help import costs, default_words, turns, why_not
from truetune.options.sources import SOURCES

Schema = dict[str, Any]


def schema_text(chinese: bool = False) -> str:
    """The schema as the text of a file. Descriptions are in Chinese or English."""
    return json.dumps(json_schema(chinese), indent=1, ensure_ascii=False) + "\n"


def json_schema(chinese: bool = False) -> Schema:
    """The schema: every option by all its names, and nothing else."""
    properties: Schema = {}
    alone: Schema = {}
    for option in OPTIONS.values():
        names = (option.name, *option.text.also)
        properties[option.name] = _property(option, chinese)
        for other, values in option.text.also.items():
            properties[other] = _other_name(option, values, chinese)
            alone[other] = {"properties": {name: False for name in names if name != other}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "truetune 的 run.yaml" if chinese else "run.yaml of truetune",
        "type": "object", "properties": properties, "additionalProperties": False, "dependentSchemas": alone,
    }


def _property(option: Option, chinese: bool) -> Schema:
    default = {} if option.default in (None, (), {}) else {"default": _as_written(option)}
    return {"description": _described(option, chinese), "markdownDescription": _marked(option, chinese),
            **_takes(option), **default}


def _other_name(option: Option, values: Mapping[str, str] | None, chinese: bool) -> Schema:
    """Another name of `option`, which editors cross out."""
    told = f"{option.name} 的另一个名字。" if chinese else f"Another name of {option.name}."
    return {"description": told, "deprecated": True, "deprecationMessage": told,
            **(_choices(list(values), any_case=True) if values else _takes(option))}


# ---------------------------------------------------------------------------------------------------------------------
# Words


def _described(option: Option, chinese: bool) -> str:
    """What editors show beside an option: what it does, which way to turn it, what is taken if it is left out."""
    return "\n".join(_told(option, chinese))


def _marked(option: Option, chinese: bool) -> str:
    """The same in Markdown, with what it costs and who advises what."""
    told = _told(option, chinese)
    moved = [f"{name} {words}" for name, trend, words in costs(option, chinese) if trend != "same"]
    advice = [f"{advice.zh if chinese else advice.en} [{source.title}]({source.link})"
              for advice in option.text.advice for source in [SOURCES[advice.source]]]
    return "\n\n".join([*told, *([", ".join(moved)] if moved else []), *advice])


def _told(option: Option, chinese: bool) -> list[str]:
    text, colon = option.text, "：" if chinese else ": "
    return [*filter(None, [why_not(option, chinese)]), text.zh if chinese else text.en,
            *(f"{way}{colon}{words}" for way, words in turns(option, chinese)),
            f"{'默认' if chinese else 'Default'}{colon}{default_words(option, chinese)}"]


# ---------------------------------------------------------------------------------------------------------------------
# Values. Keywords of one type do not touch values of another, so `{"type": ["number", "string"], "minimum": 0,
# "pattern": …}` is a number from 0 on, or text of that pattern.

_BOUNDS: Mapping[type, tuple[str, str]] = {
    Gt: ("exclusiveMinimum", "gt"), Ge: ("minimum", "ge"), Lt: ("exclusiveMaximum", "lt"), Le: ("maximum", "le")}
_NUMBERS: Mapping[type, tuple[str, str]] = {
    int: ("integer", r"[-+]?\d+(_\d+)*(\.0*)?"), float: ("number", r"[-+]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][-+]?\d+)?")}
"""What JSON calls it, and how it looks as text."""
_ON_OFF = ("true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0")


def _takes(option: Option) -> Schema:
    """What an option takes. Each takes null too, which says nothing or takes it back."""
    return _type(option.info.annotation, option.info.metadata)


def _type(annotation: Any, marks: Sequence[object] = ()) -> Schema:
    arguments, kind = get_args(annotation), get_origin(annotation) or annotation
    if kind is Annotated:
        return _type(arguments[0], [*marks, *arguments[1:]])
    if kind is Literal:
        return _choices(arguments)
    if kind in (Union, types.UnionType):
        kinds = [_type(part, marks) for part in arguments if part is not type(None)]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if kind is bool:
        return {"type": ["boolean", "integer", "string", "null"], "minimum": 0, "maximum": 1,
                "pattern": _any_case(_ON_OFF)}
    if kind in _NUMBERS:
        name, looks = _NUMBERS[kind]
        return {"type": [name, "string", "null"], **_bounds(marks), "pattern": rf"^\s*{looks}\s*$"}
    if kind is tuple:
        return _several(_type(arguments[0]))
    if kind is dict:
        return {"type": ["object", "string", "null"], "additionalProperties": _type(arguments[1]), "pattern": "[:{]"}
    return {} if kind is Any else {"type": ["string", "number", "boolean", "null"]}  # text: whatever is written
