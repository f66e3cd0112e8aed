"""Verbs of a model that is there: `export` writes it for serving, `parity` compares two, `eval` measures it, `expand`
adds blocks to it."""

from __future__ import annotations

import json

from truetune.cli.words import configure_aloud, from_run, open_terminal, show, take_flag
from truetune.findings import OK, WRONG_OPTIONS, Both, problem, worst_first


def run_export(words: list[str], chinese: bool) -> int:
    """Write a model for serving."""
    terminal = open_terminal(chinese)
    config = configure_aloud(from_run(words), "export", terminal)
    from truetune.export import export

    export(config, terminal.say, terminal)
    return OK


def run_parity(words: list[str], chinese: bool) -> int:
    """Tell whether two places serve the same model."""
    as_json = take_flag(words, "--json")
    if len(words) < 2 or any(word.startswith("-") for word in words[:2]):
        raise problem("two-needed", Both("two places to compare are needed.", "需要两个比较对象。"), option="parity",
                      status=WRONG_OPTIONS, fix=Both(
                          "truetune parity A B, each a run, a model's folder, a .gguf file, a Modelfile or an address.",
                          "用法：truetune parity A B，各为运行文件夹、模型文件夹、.gguf 文件、Modelfile 或地址。"))
    from truetune.options.read import read_config
    from truetune.parity.pair import parity

    return parity(words[0], words[1], read_config(words[2:])[0], open_terminal(chinese, stderr=as_json), as_json)


def run_eval(words: list[str], chinese: bool) -> int:
    """Measure a model."""
    as_json = take_flag(words, "--json")
    terminal = open_terminal(chinese, stderr=as_json)
    config = configure_aloud(from_run(words), "eval", terminal)
    from truetune.evaluate.evaluate import evaluate
    from truetune.evaluate.result import table_of

    result = evaluate(config, terminal.say)
    if as_json:
        print(json.dumps(result.scores, indent=2, ensure_ascii=False))
    else:
        terminal.print(table_of(result, chinese))
    show(worst_first(result.doubts), terminal)
    return OK


def run_expand(words: list[str], chinese: bool) -> int:
    """Add blocks to a model that change nothing at first."""
    terminal = open_terminal(chinese)
    config = configure_aloud(words, "expand", terminal)
    from truetune.export.expand import expand

    expand(config, terminal.say)
    return OK
