"""From what a person typed to a `Config`: a YAML or JSON file, `key=value`, `--flag value`, all their slips told at once.

Values stay text until pydantic reads them by the type of their option. So `save_strategy: no` is the word no,
`learning_rate: 1e-4` is a number (YAML 1.1 would read false and a string), and `${HOME}` is never expanded.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from truetune.findings import WRONG_OPTIONS, Finding, problem
from truetune.options import OPTIONS, Config

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Given:
    """One option as it was typed: its text (or list, or mapping) and the place."""

    name: str
    value: Any
    where: str


def read_config(arguments: Sequence[str]) -> tuple[Config, list[Finding]]:
    """Everything after the verb → the configuration and the problems found in reading it.

    Options that cannot be read keep their default in the returned configuration, so that the rules can still speak
    of the rest and a person sees every problem at once.

    Args:
        arguments: an optional YAML or JSON file, then `key=value`, `--key value`, `--key=value` or `--switch`.

    Raises:
        Problem: the file cannot be read at all, or a word on the command line has no meaning.
    """
    givens: list[Given] = []
    rest = list(arguments)
    if rest and not rest[0].startswith("-") and "=" not in rest[0]:
        givens += read_file(Path(rest.pop(0)))
    givens += _read_words(rest)
    return _build(givens)


def read_file(path: Path) -> list[Given]:
    """The options in a YAML or JSON file, each with its line.

    Raises:
        Problem: no such file, not YAML or JSON, or not a mapping of names to values.
    """
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise problem("not-a-config", "is neither an option (--name value) nor a .yaml, .yml or .json file.",
                      option=str(path), status=WRONG_OPTIONS)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise problem("no-config-file", "there is no such file.", option=str(path),
                      status=WRONG_OPTIONS) from None
    except (OSError, UnicodeDecodeError) as error:
        raise problem("config-unreadable", f"cannot be read: {error}.", option=str(path),
                      status=WRONG_OPTIONS) from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise problem("config-syntax", f"not valid YAML: {error.problem}.", option=f"{path}{line}",
                      status=WRONG_OPTIONS) from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise problem("config-shape", "must hold options as `name: value` lines.", option=str(path),
                      status=WRONG_OPTIONS)
    return [
        Given(key.value.replace("-", "_"), _plain(value), f"{path.name}:{key.start_mark.line + 1}")
        for key, value in root.value
        if _plain(value) is not None
    ]


def _plain(node: yaml.Node) -> Any:
    """A YAML node as text, list or mapping of text; None where the file says null or nothing."""
    if isinstance(node, yaml.ScalarNode):
        empty = node.style is None and node.value in ("", "~", "null", "Null", "NULL")
        return None if empty else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    # Inside a mapping (lr_scheduler_kwargs) no option gives the types: YAML's own are taken.
    return yaml.safe_load(yaml.serialize(node))


def _read_words(words: Sequence[str]) -> list[Given]:
    givens, position = [], 0
    while position < len(words):
        word = words[position]
        position += 1
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            if not word.startswith("--"):
                raise problem("stray-word", "is not an option. Write --name value or name=value.",
                              option=word, where=COMMAND_LINE, status=WRONG_OPTIONS)
            value = "true"
            if position < len(words) and not words[position].startswith("--"):
                value = words[position]
                position += 1
        givens.append(Given(name.replace("-", "_"), value, COMMAND_LINE))
    return givens


def _build(givens: list[Given]) -> tuple[Config, list[Finding]]:
    findings: list[Finding] = []
    chosen: dict[str, Given] = {}
    for given in givens:
        canonical = _canonical(given, findings)
        if canonical is None:
            continue
        before = chosen.get(canonical.name)
        if before and before.where != COMMAND_LINE and canonical.where != COMMAND_LINE:
            findings.append(Finding("given-twice", "error", f"already given at {before.where}.",
                                    option=given.name, where=given.where, fix="Keep one of the two."))
        chosen[canonical.name] = canonical

    values = {given.name: given.value for given in chosen.values()}
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        bad = {str(detail["loc"][0]) for detail in error.errors()}
        findings += [_unreadable(chosen[name]) for name in values if name in bad]
        chosen = {name: given for name, given in chosen.items() if name not in bad}
        config = Config.model_validate({given.name: given.value for given in chosen.values()})
    config._origins.update({name: given.where for name, given in chosen.items()})
    return config, findings


_OTHER_NAMES = {
    other: (option.name, values) for option in OPTIONS.values() for other, values in option.text.also.items()
}


def _canonical(given: Given, findings: list[Finding]) -> Given | None:
    """The same under the option's own name, or None (and a finding) for a name that nobody knows."""
    if given.name in OPTIONS:
        return given
    if given.name not in _OTHER_NAMES:
        near = difflib.get_close_matches(given.name, [*OPTIONS, *_OTHER_NAMES], n=1)
        fix = f"Did you mean {near[0]}?" if near else "See `truetune train --help all`."
        findings.append(Finding("unknown-option", "error", "unknown option.", option=given.name,
                                where=given.where, fix=fix))
        return None
    name, values = _OTHER_NAMES[given.name]
    if values is None:
        return Given(name, given.value, given.where)
    value = values.get(str(given.value).lower())
    if value is None:
        findings.append(Finding("bad-value", "error", f"{given.value!r} is not a value it takes.",
                                option=given.name, where=given.where, fix=f"It takes {'|'.join(values)}."))
        return None
    return Given(name, value, given.where)


def _unreadable(given: Given) -> Finding:
    option = OPTIONS[given.name]
    default = f" (default {option.default})" if option.default not in (None, ()) else ""
    return Finding("bad-value", "error", f"{given.value!r} is not a value it takes.", option=given.name,
                   where=given.where, fix=f"It takes {option.takes}{default}.")
