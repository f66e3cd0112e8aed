"""What the verbs share: flags and values taken out of the words, options read and judged, findings shown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, problem, status_of, worst_first

if TYPE_CHECKING:
    from truetune.options import Config
    from truetune.options.read import Given
    from truetune.report import Terminal


def take_flag(words: list[str], flag: str) -> bool:
    """Take every `flag` out of `words`, and tell whether there was one."""
    before = len(words)
    words[:] = [word for word in words if word != flag]
    return len(words) < before


def take(words: list[str], flag: str) -> str | None:
    """Take `flag` and its value out of `words`; None where it is not there.

    Raises:
        Problem: it has no value.
    """
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == flag:
            value = value if equals else next(iter(words[place + 1 : place + 2]), "")
            if not value or value.startswith("--"):
                raise problem("bad-value", Both("needs a value.", "缺少取值。"), option=flag, status=WRONG_OPTIONS)
            del words[place : place + (1 if equals else 2)]
            return value
    return None


def take_count(words: list[str], flag: str) -> int | None:
    """The same for a flag whose value is a whole number from 1 on.

    Raises:
        Problem: it has no value, or another one.
    """
    count = take(words, flag)
    if count and not (count.isdecimal() and int(count)):
        raise problem("bad-value", Both(f"{count!r:.80} is not a value it takes.", f"不接受 {count!r:.80}。"),
                      option=flag, status=WRONG_OPTIONS,
                      fix=Both("It takes a whole number from 1 on.", "取值：从 1 开始的整数。"))
    return int(count) if count else None


def named_file(words: Sequence[str]) -> str | None:
    """The YAML file that the words begin with, if they do."""
    return words[0] if words and words[0].endswith((".yaml", ".yml")) else None


def from_run(words: list[str]) -> list[str]:
    """`truetune chat M`: M may be a run folder, one of its checkpoints, or any model."""
    if not words or words[0].startswith("-") or words[0].endswith((".yaml", ".yml", ".json")):
        return words
    from truetune.run import arguments_of

    named = arguments_of(words[0])
    return words if "=" in words[0] and len(named) == 1 else [*named, *words[1:]]


def from_environment(names: Mapping[str, str]) -> list[Given]:
    """Values of options that environment variables give. names: of variables, each with its option."""
    from truetune.options.read import Given

    return [Given(option, os.environ[name], f"environment: {name}") for name, option in names.items()
            if os.environ.get(name)]


def configure(words: list[str], verb: str, below: Sequence[Given] = ()) -> tuple[Config, list[Finding]]:
    """Options read and judged by the rules: the configuration, and findings without an error among them. below: what
    holds where they say nothing.

    Raises:
        Problem: (status 2) all slips in what was typed together with all rules that are broken.
    """
    from truetune.options.read import read_config
    from truetune.rules import apply_rules

    config, findings = read_config(words, below)
    findings = worst_first([*findings, *apply_rules(config, verb)])
    if status_of(findings) == "error":
        raise Problem(findings, WRONG_OPTIONS)
    return config, findings


def configure_aloud(words: list[str], verb: str, terminal: Terminal, below: Sequence[Given] = ()) -> Config:
    """The same with every warning shown, for verbs that only go on."""
    config, findings = configure(words, verb, below)
    show([finding for finding in findings if finding.severity != "info"], terminal)
    return config


def open_terminal(chinese: bool, stderr: bool = False) -> Terminal:
    """The terminal to speak to in that language. stderr: since standard output is kept for JSON."""
    from truetune.report import Terminal

    return Terminal(chinese, stderr=stderr)


def show(findings: list[Finding], terminal: Terminal) -> None:
    """Print findings, a line each."""
    from truetune.report import print_findings

    print_findings(findings, terminal)
