"""The command line: the verbs, and how their ends become exit statuses. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from truetune import __version__
from truetune.findings import INTERRUPTED, OK, WRONG_OPTIONS, Finding, Problem, problem, status_of, worst_first

if TYPE_CHECKING:
    from rich.console import Console

    from truetune.options import Config


@dataclass(frozen=True)
class Verb:
    """A word on the command line. groups: which options `--help` shows, by title."""

    run: Callable[[list[str]], int]
    en: str
    zh: str
    groups: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `truetune <verb> …` and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter must not end a run
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except Problem as error:
        _show(error.findings, _console(stderr=True))
        return error.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _dispatch(words: list[str]) -> int:
    chinese, words = _language(words)
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview(chinese))
        return OK
    name, rest = "version" if words[0] in ("--version", "-v") else words[0], words[1:]
    if name not in VERBS:
        import difflib

        near = difflib.get_close_matches(name, VERBS, n=1)
        raise problem("unknown-command", "unknown command.", option=name, status=WRONG_OPTIONS,
                      fix=f"Did you mean {near[0]}?" if near else f"It is one of {', '.join(VERBS)}.")
    verb = VERBS[name]
    if "--help" in rest or "-h" in rest:
        from truetune.options.help import options_help

        print(f"truetune {name}: {verb.zh if chinese else verb.en}")
        if verb.groups:
            print(options_help(verb.groups, "all" in rest, "zh" if chinese else "en"))
        return OK
    if rest and not verb.groups:
        raise problem("stray-word", f"{name} takes no options.", option=rest[0], status=WRONG_OPTIONS)
    return verb.run(rest)


def _language(words: list[str]) -> tuple[bool, list[str]]:
    """Whether to speak Chinese, and the words without `--lang zh`. Unsaid, the terminal's language is spoken."""
    wanted, rest, source = None, [], iter(words)
    for word in source:
        if word == "--lang" or word.startswith("--lang="):
            wanted = word.partition("=")[2] or next(source, "")
        else:
            rest.append(word)
    if wanted not in (None, "en", "zh"):
        raise problem("bad-value", f"{wanted!r} is not a value it takes.", option="lang", status=WRONG_OPTIONS,
                      fix="It takes en|zh.")
    terminal = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return (wanted or terminal[:2].lower()) == "zh", rest


def _overview(chinese: bool) -> str:
    width = max(len(name) for name in VERBS)
    lines = [f"  {name:<{width}}  {verb.zh if chinese else verb.en}" for name, verb in VERBS.items()]
    head = "微调语言模型。用法：" if chinese else "Fine-tune language models. Usage:"
    foot = ("`truetune <命令> --help` 显示选项；`--help all` 显示全部。" if chinese else
            "`truetune <command> --help` shows its options, `--help all` every one of them.")
    return "\n".join([f"truetune {__version__}: {head}", "",
                      "  truetune <command> [run.yaml] [key=value …] [--option value …]", "", *lines, "", foot])


def _console(stderr: bool = False) -> Console:
    """A console that prints what it is given: no colours by guess, no markup read from data, no lines broken."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)


def _configure(arguments: list[str], verb: str) -> tuple[Config, list[Finding]]:
    """Options read and judged by the rules: the configuration, and findings without an error among them.

    Raises:
        Problem: (status 2) all slips in what was typed together with all rules that are broken.
    """
    from truetune.options.read import read_config
    from truetune.rules import apply_rules

    config, findings = read_config(arguments)
    findings = worst_first([*findings, *apply_rules(config, verb)])
    if status_of(findings) == "error":
        raise Problem(findings, WRONG_OPTIONS)
    return config, findings


def _train(arguments: list[str]) -> int:
    config, findings = _configure(arguments, "train")
    console = _console()
    _show(findings, console)
    from truetune.train import train

    train(config, console, findings)
    return OK


def _check(arguments: list[str]) -> int:
    as_json, static = "--json" in arguments, "--static" in arguments
    words = [word for word in arguments if word not in ("--json", "--static")]
    console = _console(stderr=as_json)
    findings, facts, exit_status = [], {}, OK
    try:
        config, findings = _configure(words, "check")
        if not static:
            from truetune.check import preflight
            from truetune.report import print_facts, print_rows

            ready = preflight(config, lambda text: console.print(text))
            findings, facts = worst_first([*findings, *ready.findings]), ready.facts
            print_rows(ready.train, ready.renderer.tokenizer, console)
            print_facts(facts, console)
    except Problem as error:
        findings, exit_status = worst_first([*findings, *error.findings]), error.status
    status = status_of(findings)
    if as_json:
        print(json.dumps({"status": status, "findings": [finding.as_dict() for finding in findings], "facts": facts},
                         indent=2, ensure_ascii=False))
    else:
        _show(findings, console)
        fine = "the options are in order (model and data: without --static)" if static else "ready to train"
        console.print({"ok": fine, "warn": f"{fine}; see above", "error": "not ready to train; see above"}[status])
    return exit_status


def _chat(arguments: list[str]) -> int:
    config, findings = _configure(_from_run(arguments), "chat")
    console = _console()
    _show([finding for finding in findings if finding.severity != "info"], console)
    from truetune.serve.chat import chat

    chat(config, console)
    return OK


def _export(arguments: list[str]) -> int:
    config, findings = _configure(_from_run(arguments), "export")
    console = _console()
    _show([finding for finding in findings if finding.severity != "info"], console)
    from truetune.export import export

    export(config, lambda text: console.print(text))
    return OK


def _from_run(arguments: list[str]) -> list[str]:
    """`truetune chat M`: M may be a run folder, one of its checkpoints, or any model."""
    if not arguments or arguments[0].startswith("-") or arguments[0].endswith((".yaml", ".yml", ".json")):
        return arguments
    model, rest = arguments[0], arguments[1:]
    for folder in (Path(model), Path(model).parent):
        if (folder / "config.yaml").is_file():
            weights = "adapter" if (Path(model) / "adapter_config.json").is_file() else "model"
            return [str(folder / "config.yaml"), f"--{weights}_name_or_path={model}", *rest]
    return arguments if "=" in model else [f"--model_name_or_path={model}", *rest]


def _env(arguments: list[str]) -> int:
    from truetune.report import environment, machine

    for name, value in {**environment(), **machine()}.items():
        print(f"{name:<14} {value}")
    return OK


def _version(arguments: list[str]) -> int:
    print(f"truetune {__version__}")
    return OK


def _show(findings: list[Finding], console: Console) -> None:
    from truetune.report import print_findings

    print_findings(findings, console)


VERBS = {
    "train": Verb(_train, "check a run, then train it", "先检查，再训练", ("Model", "Data", "Method", "Training")),
    "check": Verb(_check, "what can be known before training (--static: options only; --json)",
                  "训练前能知道的一切（--static：只看选项；--json）", ("Model", "Data", "Method", "Training")),
    "chat": Verb(_chat, "talk to a model, an adapter or a run folder", "与模型、适配器或运行文件夹对话",
                 ("Model", "Generation")),
    "export": Verb(_export, "merge an adapter into its model, for serving", "把适配器合并进模型，用于部署",
                   ("Model", "Export")),
    "env": Verb(_env, "versions and machine, for bug reports", "版本和机器信息，用于报告问题"),
    "version": Verb(_version, "the version", "版本号"),
}
