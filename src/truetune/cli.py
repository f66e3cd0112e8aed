"""The command line: the verbs, and how their ends become exit statuses. Imports nothing heavy."""

from __future__ import annotations

import json
import locale
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from truetune import __version__
from truetune.findings import FAILED, INTERRUPTED, OK, WRONG_OPTIONS, Problem, problem

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
    words = list(sys.argv[1:] if arguments is None else arguments)
    language, words = _language(words)
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview(language))
        return OK
    if words[0] in ("--version", "-v"):
        words = ["version"]
    name, rest = words[0], words[1:]
    try:
        if name not in VERBS:
            import difflib

            near = difflib.get_close_matches(name, VERBS, n=1)
            raise problem("unknown-command", "unknown command.", option=name, status=WRONG_OPTIONS,
                          fix=f"Did you mean {near[0]}?" if near else f"It is one of {', '.join(VERBS)}.")
        if "--help" in rest or "-h" in rest:
            from truetune.options.help import options_help

            verb = VERBS[name]
            print(f"truetune {name}: {verb.zh if language == 'zh' else verb.en}")
            print(options_help(verb.groups, "all" in rest, language))
            return OK
        return VERBS[name].run(rest)
    except Problem as error:
        from truetune.report import print_findings

        print_findings(error.findings, _console(stderr=True))
        return error.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _language(words: list[str]) -> tuple[str, list[str]]:
    """`--lang zh` where it is given, else the language of the locale."""
    if "--lang" in words:
        place = words.index("--lang")
        return (words[place + 1] if place + 1 < len(words) else "en")[:2], words[:place] + words[place + 2 :]
    return "zh" if (locale.setlocale(locale.LC_CTYPE, "") or "").lower().startswith("zh") else "en", words


def _overview(language: str) -> str:
    chinese = language == "zh"
    width = max(len(name) for name in VERBS)
    lines = [f"  {name:<{width}}  {verb.zh if chinese else verb.en}" for name, verb in VERBS.items()]
    head = "微调语言模型。用法：" if chinese else "Fine-tune language models. Usage:"
    foot = ("`truetune <命令> --help` 显示选项；`--help all` 显示全部。" if chinese else
            "`truetune <command> --help` shows its options, `--help all` every one of them.")
    return "\n".join([f"truetune {__version__}: {head}", "",
                      "  truetune <command> [run.yaml] [key=value …] [--option value …]", "", *lines, "", foot])


def _console(stderr: bool = False) -> Console:
    """Plain text unless asked otherwise: no colours by guess, no markup read from data, no line broken off a terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)


def _configure(arguments: list[str], verb: str) -> tuple[Config, list]:
    """Options read and judged by the rules: the configuration, and findings without an error among them.

    Raises:
        Problem: (status 2) all slips in what was typed together with all rules that are broken.
    """
    from truetune.options.read import read_config
    from truetune.rules import apply_rules

    config, findings = read_config(arguments)
    findings += apply_rules(config, verb)
    if any(finding.severity == "error" for finding in findings):
        raise Problem(findings, WRONG_OPTIONS)
    return config, findings


def _train(arguments: list[str]) -> int:
    config, findings = _configure(arguments, "train")
    console = _console()
    _show(findings, console)
    from truetune.train import train

    train(config, console)
    return OK


def _check(arguments: list[str]) -> int:
    as_json, static = "--json" in arguments, "--static" in arguments
    config, findings = _configure([word for word in arguments if word not in ("--json", "--static")], "check")
    console = _console(stderr=as_json)
    found = {"status": "ok", "findings": [], "facts": {}}
    if not static:
        from truetune.check import preflight

        try:
            ready = preflight(config, lambda text: console.print(text))
        except Problem as error:
            if not as_json:
                raise
            ready = None
            found = {"status": "error", "findings": [finding.as_dict() for finding in error.findings], "facts": {}}
        if ready:
            found = ready.as_dict()
            if not as_json:
                from truetune.report import print_facts, print_rows

                print_rows(ready.train, ready.tokenizer, console)
                findings += ready.findings
                print_facts(ready.facts, console)
    if as_json:
        found["findings"] = [finding.as_dict() for finding in findings] + found["findings"]
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _show(findings, console)
        console.print("ready to train" if not findings else "ready to train; see above")
    return FAILED if found["status"] == "error" else OK


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
    """`truetune chat saves/my-run`: the model of a run folder, whatever it is."""
    if not arguments or arguments[0].startswith("-") or not (Path(arguments[0]) / "config.yaml").is_file():
        return arguments
    folder = Path(arguments[0])
    words = [str(folder / "config.yaml"), "--output_dir", str(folder)]
    if (folder / "adapter_config.json").is_file():
        words += ["--adapter_name_or_path", str(folder)]
    else:
        words += ["--model_name_or_path", str(folder)]
    return [*words, *arguments[1:]]


def _env(arguments: list[str]) -> int:
    from truetune.report import environment, machine

    for name, value in {**environment(), **machine()}.items():
        print(f"{name:<14} {value}")
    return OK


def _version(arguments: list[str]) -> int:
    print(f"truetune {__version__}")
    return OK


def _show(findings: list, console: Console) -> None:
    from truetune.report import print_findings

    print_findings(findings, console)


_INFERENCE = ("Model", "Data", "Generation")
VERBS = {
    "train": Verb(_train, "check a run, then train it", "先检查，再训练", ("Model", "Data", "Method", "Training")),
    "check": Verb(_check, "what can be known before training (--static: options only; --json)",
                  "训练前能知道的一切（--static：只看选项；--json）", ("Model", "Data", "Method", "Training")),
    "chat": Verb(_chat, "talk to a model, an adapter or a run folder", "与模型、适配器或运行文件夹对话", _INFERENCE),
    "export": Verb(_export, "merge an adapter into its model, for serving", "把适配器合并进模型，用于部署",
                   ("Model", "Export")),
    "env": Verb(_env, "versions and machine, for bug reports", "版本和机器信息，用于报告问题"),
    "version": Verb(_version, "the version", "版本号"),
}

if __name__ == "__main__":
    sys.exit(main())
