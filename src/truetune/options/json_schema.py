"""`truetune schema`: a JSON Schema (draft 2020-12) of run.yaml, drawn from the schema, for editors and validators.

It agrees with `read`, which keeps values as text until their type reads them: a comma string is a list, a quoted
number is a number, `yes` is a switch, and null takes an option back. What it cannot see is how a number was written:
`1e3` is a whole number to YAML and none to `read`, and a quoted number is not held against its bounds.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from truetune.options import OPTIONS, Option
from truetune.options.help import costs, default_words, turns, when, why_not
from truetune.options.page import as_markdown, cited

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
    default = option.default_text if isinstance(option.default, tuple) else option.default
    hidden = {"doNotSuggest": True} if why_not(option) else {}
    return {**_described(option, chinese), **_takes(option, chinese),
            **({} if default in (None, "", {}) else {"default": default}), **hidden}


def _other_name(option: Option, values: Mapping[str, str] | None, chinese: bool) -> Schema:
    """Another name of `option`, which editors cross out."""
    told = f"{option.name} 的另一个名字。" if chinese else f"Another name of {option.name}."
    takes = _saying(_other_values(values), "|".join(values), chinese) if values else None
    return {"description": told, "deprecated": True, "doNotSuggest": True, **(takes or _takes(option, chinese))}


# ---------------------------------------------------------------------------------------------------------------------
# Words


def _described(option: Option, chinese: bool) -> Schema:
    """What editors show beside an option: what it does, which way to turn it, what is taken if it is left out. Those
    that read Markdown also show what it costs and who advises what."""
    text, colon = option.text, "：" if chinese else ": "
    told = [*filter(None, [why_not(option, chinese)]), text.zh if chinese else text.en,
            *(f"{way}{colon}{words}" for way, words in turns(option, chinese)),
            f"{'默认' if chinese else 'default'}{colon}{default_words(option, chinese)}"]
    moved = [f"{name} {words}" for name, trend, words in costs(option, chinese) if trend != "same"]
    more = [f"{when(option)[chinese]}{colon}{', '.join(moved)}"] if moved else []
    more += [f"{as_markdown(advice.zh if chinese else advice.en)} {cited(advice.source)}" for advice in text.advice]
    marked = {"markdownDescription": "\n\n".join([*map(as_markdown, told), *more])} if more else {}
    return {"description": "\n".join(told), **marked}


# ---------------------------------------------------------------------------------------------------------------------
# Values. Keywords of one type do not touch values of another, so `{"type": ["number", "string"], "minimum": 0,
# "pattern": …}` is a number from 0 on, or text of that pattern.

_NUMBERS: Mapping[type, tuple[str, str]] = {
    int: ("integer", r"[-+]?\d+(_\d+)*(\.0*)?"), float: ("number", r"[-+]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][-+]?\d+)?")}
"""What JSON calls it, and how it looks as text."""
_SWITCH = {"true": ("yes", "on", "1"), "false": ("no", "off", "0")}
"""How else on and off are written."""
_ON_OFF = (*_SWITCH, *_SWITCH["true"], *_SWITCH["false"], "t", "y", "f", "n")


def _takes(option: Option, chinese: bool) -> Schema:
    """What an option takes. Each takes null too, which says nothing or takes it back."""
    return _saying(_type(option.info.annotation, option.info.metadata), option.takes(chinese), chinese)


def _saying(takes: Schema, values: str, chinese: bool) -> Schema:
    """`takes` with what editors say of other values: keywords of theirs, which validators pass over."""
    told = f"取值：{values}。" if chinese else f"It takes {values}."
    return {**takes, "errorMessage": told, **({"patternErrorMessage": told} if "pattern" in takes else {})}


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


def _choices(values: Sequence[Any]) -> Schema:
    """One of a few words, those that YAML reads as a number or a switch also as such."""
    words = [str(value) for value in values]
    plain = [_yaml(word) for word in words]
    enum = {"enum": [*plain, *(word for word in words if word not in plain), None]}
    return {"type": ["string", "null"], **enum} if plain == words else enum


def _other_values(values: Iterable[str]) -> Schema:
    """The values that another name takes: in any case, `yes` for true."""
    words = [word for value in values for word in (value, *_SWITCH.get(value, ()))]
    return {"anyOf": [{"enum": [*map(_yaml, words), None]}, {"type": "string", "pattern": _any_case(words)}]}


def _several(item: Schema) -> Schema:
    """A list, or the same in one text with commas."""
    kinds = [kind for kind in item["type"] if kind != "null"]
    one = item.get("pattern", "").removeprefix("^").removesuffix("$")
    if "enum" in item:  # several of a few words, one at least
        words = "|".join(re.escape(word) for word in item["enum"] if word)
        enum = [word for word in item["enum"] if word]
        return {"type": ["string", "array", "null"], "items": {"type": kinds, "enum": enum}, "minItems": 1,
                "pattern": rf"^\s*({words})\s*(,\s*({words})\s*)*$"}
    return {"type": [*dict.fromkeys(["string", "array", *kinds]), "null"], "items": {**item, "type": kinds},
            **({"pattern": f"^({one})?(,({one})?)*$"} if one else {})}


def _bounds(marks: Sequence[object]) -> Schema:
    """pydantic's bounds as JSON Schema's; of other marks nothing."""
    bounds: Schema = {}
    for mark in (mark for outer in marks for mark in (outer.metadata if isinstance(outer, FieldInfo) else [outer])):
        match mark:
            case Gt(gt=bound):
                bounds["exclusiveMinimum"] = bound
            case Ge(ge=bound):
                bounds["minimum"] = bound
            case Lt(lt=bound):
                bounds["exclusiveMaximum"] = bound
            case Le(le=bound):
                bounds["maximum"] = bound
    return bounds


def _yaml(word: str) -> Any:
    """What YAML 1.2, which editors read, makes of a word."""
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    return json.loads(word) if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", word) else word


def _any_case(words: Sequence[str]) -> str:
    """A pattern for `words` in any case; JSON Schema has no flag for that."""
    return f"^({'|'.join(''.join(f'[{c.upper()}{c}]' if c.isalpha() else re.escape(c) for c in w) for w in words)})$"
