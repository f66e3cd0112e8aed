"""Verbs of a run: `recipe` writes one, `find-lr` tries its learning rate, `check` looks at it, `train` trains it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truetune.cli.words import configure, configure_aloud, named_file, open_terminal, show, take, take_count, take_flag
from truetune.findings import (
    FAILED,
    OK,
    WRONG_OPTIONS,
    Both,
    Finding,
    Problem,
    problem,
    status_of,
    worst_first,
)

if TYPE_CHECKING:
    from truetune.check.suggest import Suggestion
    from truetune.options import Config
    from truetune.report import Terminal


def run_train(words: list[str], chinese: bool) -> int:
    """Check a run, then train it."""
    checked = not take_flag(words, "--no-check")
    config, findings = configure(words, "train")
    terminal = open_terminal(chinese)
    show(findings, terminal)
    from truetune.train import train

    train(config, terminal, findings, checked=checked)
    return OK


def run_check(words: list[str], chinese: bool) -> int:
    """Tell everything that can be known before training, in words or as JSON."""
    as_json, static, measure = (take_flag(words, flag) for flag in ("--json", "--static", "--measure"))
    number = take(words, "--apply")
    terminal = open_terminal(chinese, stderr=as_json)
    told: dict[str, Any] = {"facts": {}, "suggestions": []}
    config, findings, exit_status = _read(words)
    if config and not static:
        from truetune.check import check

        checked = check(config, findings, terminal.say, measure)
        findings, told = checked.findings, checked.as_dict()
        if number is not None:
            return _apply(words, number, checked.suggestions, terminal)
        if not as_json:
            from truetune.look.checked import print_page

            print_page(checked, terminal)
        exit_status = exit_status or (FAILED if status_of(findings) == "error" else OK)
    if as_json:
        told |= {"status": status_of(findings), "findings": [finding.as_dict() for finding in findings]}
        print(json.dumps({name: told[name] for name in ("status", "findings", "facts", "suggestions")},
                         indent=2, ensure_ascii=False))
    else:
        _conclude(findings, static, terminal)
    return exit_status


def _read(words: list[str]) -> tuple[Config | None, list[Finding], int]:
    """Options read and judged as far as they can be: the configuration (None where there is too little to go on), what
    was found, and the exit status so far. A check goes on with what is in order, to tell everything at once."""
    from truetune.options.read import read_config
    from truetune.rules import apply_rules

    try:
        config, findings = read_config(words)
    except Problem as error:
        return None, error.findings, error.status
    findings = worst_first([*findings, *apply_rules(config, "check")])
    enough = config.model_name_or_path and (config.dataset or config.eval_dataset)
    return config if enough else None, findings, WRONG_OPTIONS if status_of(findings) == "error" else OK


def _conclude(findings: list[Finding], static: bool, terminal: Terminal) -> None:
    """Show what was found, and end with one line that says how the run stands."""
    show(findings, terminal)
    fine = Both("ready to train", "可以开始训练") if not static else \
        Both("the options are in order (model and data: without --static)",
             "选项没有问题（要检查模型和数据，请去掉 --static）")
    terminal.say({"ok": fine, "warn": Both(f"{fine}; see above", f"{fine.zh}；请看上面的警告"),
                  "error": Both("not ready to train; see above", "还不能训练；请看上面的错误")}[status_of(findings)])


def _apply(words: list[str], number: str, suggestions: Sequence[Suggestion], terminal: Terminal) -> int:
    """Write suggestion `number` of the check's page into the YAML file that was checked."""
    from truetune.options.edit import set_in_yaml

    if not (number.isdecimal() and 0 < int(number) <= len(suggestions)):
        count = len(suggestions)
        raise problem("bad-value", Both(f"{number!r:.80} is not a value it takes.", f"不接受 {number!r:.80}。"),
                      option="--apply", status=WRONG_OPTIONS, fix=Both(
                          f"The page has suggestions 1 to {count}." if count else "There is nothing to suggest.",
                          f"检查页上的建议编号为 1 到 {count}。" if count else "没有可用的建议。"))
    chosen, file = suggestions[int(number) - 1], named_file(words)
    if not file:
        raise problem("no-config-file", Both("there is no YAML file to write into.", "没有可以写入的 YAML 文件。"),
                      option="--apply", status=WRONG_OPTIONS,
                      fix=Both(f"Do it by hand: {chosen.line(False)}.", f"请手动{chosen.line(True)}。"))
    set_in_yaml(Path(file), dict(chosen.cure))
    terminal.say(Both(f"{file}: {chosen.line(False)}", f"{file}：{chosen.line(True)}"))
    return OK


def run_recipe(words: list[str], chinese: bool) -> int:
    """Write a run.yaml for this model, data and machine."""
    overwrite = take_flag(words, "--overwrite")
    words = [_long_name(word) for word in words]
    goal, output = take(words, "--goal"), take(words, "--output") or "run.yaml"
    config, _ = configure(words, "data")
    from truetune.guide.recipe import make_recipe, write_recipe

    terminal = open_terminal(chinese, stderr=output == "-")
    return write_recipe(make_recipe(config, goal, terminal.say), output, overwrite, terminal)


def _long_name(word: str) -> str:
    """`--model` is short for a longer name, as `model=` is."""
    name, equals, value = word.partition("=")
    if name.removeprefix("--") != "model" or not (equals or name.startswith("--")):
        return word
    return f"--model_name_or_path{equals}{value}"


def run_find_lr(words: list[str], chinese: bool) -> int:
    """Try learning rates in short runs."""
    ranged, apply = take_flag(words, "--range"), take_flag(words, "--apply")
    steps, picture = take_count(words, "--steps"), take(words, "--output")
    named = named_file(words)
    file = Path(named) if named else None
    if apply and not file:
        raise problem("apply-where", Both("there is no run.yaml to change.", "没有可修改的 run.yaml。"),
                      option="--apply", status=WRONG_OPTIONS, fix="truetune find-lr run.yaml --apply")
    terminal = open_terminal(chinese)
    config = configure_aloud(words, "check", terminal)
    from truetune.guide.find_lr import Wish, find_lr

    wish = Wish(ranged, steps, Path(picture) if picture else (file or Path()).with_name("find-lr.png"),
                file if apply else None)
    return find_lr(config, wish, terminal)
