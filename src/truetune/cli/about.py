"""Verbs that only tell: `runs`, `explain`, `schema`, `env` and `version`."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path

from truetune import __version__
from truetune.cli.words import open_terminal, take_flag
from truetune.findings import OK, WRONG_OPTIONS, Both, problem


def run_runs(words: list[str], chinese: bool) -> int:
    """List the runs on this machine, or show one."""
    as_json = take_flag(words, "--json")
    one = words[:1] == ["show"]
    stray = next((word for word in words if word.startswith("-")), None)
    if stray or (one and len(words) != 2):
        raise problem("stray-word", Both("is not understood here.", "这里不支持。") if stray else
                      Both("one run is to be named.", "要写一个运行的名字。"), option=stray or "runs show",
                      status=WRONG_OPTIONS, fix="truetune runs [FOLDER …] [--json], truetune runs show R [--json]")
    from truetune.jobs.queue import Queue
    from truetune.look.runs import print_run, print_runs
    from truetune.runs import Runs

    runs = Runs([Path(word) for word in words] if words and not one else [Path("saves")], Queue())
    terminal = open_terminal(chinese)
    return print_run(runs.named(words[1]), as_json, terminal) if one else print_runs(runs, as_json, terminal)


def run_explain(words: list[str], chinese: bool) -> int:
    """Explain options and words of the log."""
    from truetune.options.explain import explain

    explain(words, open_terminal(chinese))
    return OK


def run_schema(words: list[str], chinese: bool) -> int:
    """Print the JSON Schema of run.yaml, or every option as a page of documentation."""
    from truetune.options.json_schema import schema_text
    from truetune.options.page import options_page

    write = options_page if take_flag(words, "--markdown") else schema_text
    if words:
        raise problem("stray-word", Both("schema takes --markdown and --lang only.",
                                         "schema 只接受 --markdown 和 --lang。"), option=words[0], status=WRONG_OPTIONS)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # a file, whatever the terminal's encoding
    print(write(chinese), end="")
    return OK


def run_env(words: list[str], chinese: bool) -> int:
    """Print versions and machine."""
    from truetune.report import environment, machine

    for name, value in {**environment(), **machine()}.items():
        print(f"{name:<14} {value}")
    return OK


def run_version(words: list[str], chinese: bool) -> int:
    """Print the version."""
    print(f"truetune {__version__}")
    return OK
