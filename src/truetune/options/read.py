"""From what a person typed to a `Config`: a YAML or JSON file, `key=value`, `--flag value`, all slips told at once.

Values stay text until pydantic reads them by the type of their option. So `save_strategy: no` is the word no,
`learning_rate: 1e-4` is a number (YAML 1.1 would read false and a string), and `${HOME}` is never expanded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, parser_says, problem
from truetune.options import OPTIONS, Config
from truetune.options.schema import LEVELS, choices

COMMAND_LINE = "command line"


FROZEN = "# truetune: values without a remark are defaults / 没有注释的是默认值"
"""The first line of a run's config.yaml, in which every option stands, typed by somebody or not."""


@dataclass(frozen=True)
class Given:
    """One option as it was typed: its text (or list, or mapping; None for null) and the place. where: None where nobody
    typed it, and a run's file holds what was the default then."""

    name: str
    value: Any
    where: str | None


def read_config(arguments: Sequence[str], below: Iterable[Given] = ()) -> tuple[Config, list[Finding]]:
    """Everything after the verb → the configuration and the problems found in reading it.

    Options that cannot be read keep their default in the returned configuration, so that the rules can still speak
    of the rest and a person sees every problem at once.

    Args:
        arguments: an optional YAML or JSON file, then `key=value`, `--key value`, `--key=value` or `--switch`. What
            stands later wins, and `key=null` takes back what the file says (enable_thinking, for which it is a
            value, apart).
        below: what holds where the arguments and their file say nothing.

    Raises:
        Problem: the file cannot be read at all.
    """
    words, findings = list(arguments), []
    chosen = _settle(below, findings, once=False)
    if words and _names_file(words[0]):
        chosen |= _settle(read_file(Path(words.pop(0))), findings, once=True)
    chosen |= _settle(_read_words(words, findings), findings, once=False)
    said = {name: given for name, given in chosen.items() if given.value is not None or OPTIONS[name].takes_null}
    return _build(said, findings), findings


def _names_file(word: str) -> bool:
    """Whether the first word is a file rather than an option: `saves/lr=1e-4/config.yaml` is one."""
    return Path(word).is_file() or not (word.startswith("-") or "=" in word)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number: YAML 1.1 asks for a dot and a sign in the exponent (1.0e-4)."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
                              list("-+0123456789"))


def read_file(path: Path) -> list[Given]:
    """The options in a YAML or JSON file, each with its line.

    Raises:
        Problem: no such file, not YAML or JSON, or not a mapping of names to values.
    """
    json = path.suffix.lower() == ".json"
    if not json and path.suffix.lower() not in (".yaml", ".yml"):
        raise problem("not-a-config", Both("is neither an option (--name value) nor a .yaml, .yml or .json file.",
                                           "既不是选项（--name value），也不是 .yaml、.yml 或 .json 文件。"),
                      option=str(path), status=WRONG_OPTIONS)
    text = _read_text(path)
    try:
        # JSON is YAML but for tabs, which stand only between its values.
        root = yaml.compose(text.replace("\t", " ") if json else text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        raise _malformed(path, line, parser_says(error.problem or ""), "JSON" if json else "YAML") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        letter = repr(chr(error.character))
        raise _malformed(path, line, Both(f"the character {letter} is not allowed", f"不允许出现字符 {letter}"),
                         "YAML") from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise problem("config-shape", Both("must hold options as `name: value` lines.",
                                           "内容必须是一行行的 `选项名: 值`。"), option=str(path), status=WRONG_OPTIONS)
    lines = text.split("\n") if text.startswith(FROZEN) else None
    return [
        Given(_text(key.value).replace("-", "_"), _plain(value),
              None if lines and "  # " not in lines[key.start_mark.line] else f"{path.name}:{key.start_mark.line + 1}")
        for key, value in root.value
    ]


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise problem("no-config-file", Both("there is no such file.", "没有这个文件。"), option=str(path),
                      status=WRONG_OPTIONS) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise problem("config-encoding", Both("not UTF-8.", "不是 UTF-8 编码。"), option=f"{path}:{line}",
                      status=WRONG_OPTIONS, fix=Both("Save the file as UTF-8.", "请把文件存为 UTF-8。")) from None
    except OSError as error:
        raise problem("config-unreadable", Both(f"cannot be read: {error.strerror}.", f"无法读取：{error.strerror}。"),
                      option=str(path), status=WRONG_OPTIONS) from None


def _malformed(path: Path, line: int, what: Both, language: str) -> Problem:
    return problem("config-syntax", Both(f"not valid {language}: {what}.", f"不是合法的 {language}：{what.zh}。"),
                   option=f"{path}:{line + 1}", status=WRONG_OPTIONS)


def _plain(node: yaml.Node) -> Any:
    """A YAML node as text, list or mapping; None where the file says null or nothing."""
    if isinstance(node, yaml.ScalarNode):
        empty = node.style is None and node.value in ("", "~", "null", "Null", "NULL")
        return None if empty else _text(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [_plain(item) for item in node.value]
    # Inside a mapping (lr_scheduler_kwargs) no option gives the types: YAML's own are taken.
    return _Loader("").construct_document(node)


def _text(value: object) -> str:
    """JSON writes an emoji as two escapes, which PyYAML leaves as two halves."""
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_words(words: Sequence[str], findings: list[Finding]) -> list[Given]:
    givens, position = [], 0
    while position < len(words):
        word = words[position]
        position += 1
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            if not word.startswith("--"):
                findings.append(Finding("stray-word", "error", Both("is not an option.", "不是选项。"), option=word,
                                        where=COMMAND_LINE, fix=Both("Write --name value or name=value.",
                                                                     "请写成 --name value 或 name=value。")))
                continue
            value = "true"
            if position < len(words) and not words[position].startswith("--"):
                value = words[position]
                position += 1
        givens.append(Given(name.replace("-", "_"), None if value == "null" else value, COMMAND_LINE))
    return givens


def _settle(givens: Iterable[Given], findings: list[Finding], once: bool) -> dict[str, Given]:
    """What one source says, by the options' own names. once: it may say each only once, or the same
    by two names (packing and neat_packing); else the last one wins."""
    chosen: dict[str, Given] = {}
    for given in givens:
        settled = _canonical(given, findings)
        if settled is None:
            continue
        if once and settled.name in chosen and settled.value != chosen[settled.name].value:
            first = chosen[settled.name].where
            findings.append(Finding("given-twice", "error", Both(f"already given at {first}.", f"已在 {first} 给出。"),
                                    option=given.name, where=given.where,
                                    fix=Both("Keep one of the two.", "两者只保留一个。")))
        chosen[settled.name] = settled
    return chosen


def _build(chosen: dict[str, Given], findings: list[Finding]) -> Config:
    try:
        config = Config.model_validate({name: given.value for name, given in chosen.items()})
    except ValidationError as error:
        bad = {str(detail["loc"][0]) for detail in error.errors()}
        findings += [_unreadable(given) for name, given in chosen.items() if name in bad]
        return _build({name: given for name, given in chosen.items() if name not in bad}, findings)
    config._origins.update({name: given.where for name, given in chosen.items() if given.where})
    return config


_OTHER_NAMES = {
    other: (option.name, values) for option in OPTIONS.values() for other, values in option.text.also.items()
}


_TRUTH = {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}


def _canonical(given: Given, findings: list[Finding]) -> Given | None:
    """The same under the option's own name, or None (and a finding) for a name that nobody knows."""
    if given.name in OPTIONS:
        return given
    if given.name not in _OTHER_NAMES:
        findings.append(Finding("unknown-option", "error", Both("unknown option.", "未知的选项。"), option=given.name,
                                where=given.where, fix=_near(given.name)))
        return None
    name, values = _OTHER_NAMES[given.name]
    value = given.value
    if values is not None and value is not None:
        value = values.get(_TRUTH.get(str(value).lower(), str(value).lower()))
        if value is None:
            findings.append(Finding("bad-value", "error", _not_taken(given.value), option=given.name,
                                    where=given.where,
                                    fix=Both(f"It takes {'|'.join(values)}.", f"取值：{'|'.join(values)}。")))
            return None
    return Given(name, value, given.where and f"{given.where}, as {given.name}")


def canonical_name(name: str) -> str:
    """The option's own name for `name`, which may be another of its names, or nobody's."""
    return _OTHER_NAMES.get(name, (name, None))[0]


def as_yaml(name: str, value: Any) -> str:
    """`name: value` on one line, which is read back as it was."""
    if isinstance(value, str) and len(value.splitlines()) > 1:
        quoted = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf"))
        return f"{name}: {quoted.strip()}"
    braced = yaml.safe_dump({name: value}, allow_unicode=True, default_flow_style=True, width=float("inf"))
    return braced.strip()[1:-1]


def _not_taken(value: Any) -> Both:
    return Both(f"{value!r:.80} is not a value it takes.", f"不接受 {value!r:.80}。")


def _near(name: str) -> Both:
    """What may have been meant: a name that has the typed word in it (`epochs`), else one spelt much the same."""
    known = [*sorted(OPTIONS, key=lambda other: LEVELS.index(OPTIONS[other].text.level)), *_OTHER_NAMES]
    near = [other for other in known if name in other][:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if near and len(name) > 2:
        return Both(f"Did you mean {near[0]}?", f"是不是 {near[0]}？")
    return Both("See `truetune train --help all`.", "请看 `truetune train --help all`。")


def _unreadable(given: Given) -> Finding:
    option = OPTIONS[given.name]
    default = option.default_text
    fix = Both(f"It takes {option.takes()}{f' (default {default})' if default else ''}.",
               f"取值：{option.takes(True)}{f'（默认 {default}）' if default else ''}。")
    typed = given.value.split(",") if isinstance(given.value, str) else given.value
    words = choices(option.info.annotation)
    wrong = [str(part).strip() for part in typed if str(part).strip() not in words] if isinstance(typed, list) else []
    near = difflib.get_close_matches(wrong[0], words, n=1) if wrong else []
    if near:
        fix = Both(f"Did you mean {near[0]}? {fix.en}", f"是不是 {near[0]}？{fix.zh}")
    return Finding("bad-value", "error", _not_taken(given.value), option=given.name, where=given.where, fix=fix)
