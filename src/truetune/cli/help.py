"""`--help`: the verbs, and what one of them takes."""

from __future__ import annotations

from truetune import __version__
from truetune.cli.verbs import Verb, Verbs


def overview(path: str, verbs: Verbs, chinese: bool) -> str:
    """The words that may follow `path`, a line each."""
    width = max(len(name) for name in verbs.words)
    lines = [f"  {name:<{width}}  {word.zh if chinese else word.en}" for name, word in verbs.words.items()]
    name = f"truetune {__version__}" if path == "truetune" else path
    head = f"{verbs.zh}。用法：" if chinese else f"{verbs.en}. Usage:"
    foot = (f"`{path} <命令> --help` 显示选项；`--help all` 显示全部。" if chinese else
            f"`{path} <command> --help` shows its options, `--help all` every one of them.")
    return "\n".join([f"{name}: {head}", "",
                      f"  {path} <command> [run.yaml] [key=value …] [--option value …]", "", *lines, "", foot])


def verb_help(path: str, verb: Verb, chinese: bool, everything: bool) -> str:
    """What a verb does and takes. everything: all options of its groups, not the basic ones alone."""
    from truetune.options.help import options_help

    width = max((len(name) for name, _, _ in verb.own), default=0)
    lines = [f"{path}: {verb.zh if chinese else verb.en}", *([""] if verb.own else []),
             *(f"  {name:<{width}}  {zh if chinese else en}" for name, en, zh in verb.own)]
    if verb.groups:
        lines.append(options_help(verb.groups, everything, "zh" if chinese else "en"))
    return "\n".join(lines)
