"""The command line: a word chosen from the table of verbs, and how its end becomes an exit status.

`verbs.py` is the table; each verb's work stands in `training`, `data`, `serving`, `models` or `about`, and what verbs
share in `words`. Nothing heavy is imported here: a verb imports what it needs when it is run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper

from truetune.cli.help import overview, verb_help
from truetune.cli.verbs import VERBS, Verb, Verbs
from truetune.cli.words import open_terminal, show
from truetune.findings import INTERRUPTED, OK, WRONG_OPTIONS, Both, Problem, problem
from truetune.hush import hush_libraries


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `truetune <verb> …` and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter must not end a run
    chinese = _terminal_is_chinese()
    hush_libraries()
    try:
        chinese, words = _language(list(sys.argv[1:] if arguments is None else arguments), chinese)
        return _dispatch(words, chinese)
    except Problem as error:
        show(error.findings, open_terminal(chinese, stderr=True))
        return error.status
    except KeyboardInterrupt:
        print("已中断" if chinese else "interrupted", file=sys.stderr)
        return INTERRUPTED


def _dispatch(words: list[str], chinese: bool) -> int:
    """Follow the words to a verb and run it, or show its help."""
    if words and words[0] in ("--version", "-v"):
        words[0] = "version"
    verb: Verb | Verbs = VERBS
    path = "truetune"
    while isinstance(verb, Verbs):
        if not words or words[0] in ("--help", "-h", "help"):
            print(overview(path, verb, chinese))
            return OK
        verb, path, words = _named(words[0], verb.words, path), f"{path} {words[0]}", words[1:]
    if "--help" in words or "-h" in words:
        print(verb_help(path, verb, chinese, "all" in words))
        return OK
    if words and not (verb.groups or verb.own):
        name = path.removeprefix("truetune ")
        raise problem("stray-word", Both(f"{name} takes no options.", f"{name} 不接受选项。"), option=words[0],
                      status=WRONG_OPTIONS)
    return verb.run(words, chinese)


def _named(name: str, verbs: Mapping[str, Verb | Verbs], path: str) -> Verb | Verbs:
    if name not in verbs:
        import difflib

        near = difflib.get_close_matches(name, verbs, n=1)
        raise problem("unknown-command", Both("unknown command.", "未知的命令。"), status=WRONG_OPTIONS,
                      option=f"{path} {name}".removeprefix("truetune "),
                      fix=Both(f"Did you mean {near[0]}?", f"是不是 {near[0]}？") if near else
                      Both(f"It is one of {', '.join(verbs)}.", f"可用的命令：{'、'.join(verbs)}。"))
    return verbs[name]


def _language(words: list[str], chinese: bool) -> tuple[bool, list[str]]:
    """Whether to speak Chinese (`--lang zh`, else as `chinese` says), and the words without `--lang` (`eval` has an
    option of that name, which LLaMA-Factory's users set so)."""
    wanted, rest, source = "zh" if chinese else "en", [], iter(words)
    for word in source:
        if word == "--lang" or word.startswith("--lang="):
            wanted = word.partition("=")[2] or next(source, "")
            rest += [f"--lang={wanted}"] if rest[:1] == ["eval"] else []  # there it is an option, too
        else:
            rest.append(word)
    if wanted not in ("en", "zh"):
        raise problem("bad-value", Both(f"{wanted!r} is not a value it takes.", f"不接受 {wanted!r}。"), option="lang",
                      status=WRONG_OPTIONS, fix=Both("It takes en|zh.", "取值：en|zh。"))
    return wanted == "zh", rest


def _terminal_is_chinese() -> bool:
    """Whether the terminal's language is Chinese, as the environment says."""
    return next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")[:2].lower() == "zh"
