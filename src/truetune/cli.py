"""The command line: the verbs, and how their ends become exit statuses. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truetune import __version__
from truetune.findings import (
    FAILED,
    INTERRUPTED,
    OK,
    WRONG_OPTIONS,
    Both,
    Finding,
    Problem,
    problem,
    status_of,
    worst_first,
)
from truetune.hush import hush_libraries

if TYPE_CHECKING:
    from truetune.check.suggest import Suggestion
    from truetune.options import Config
    from truetune.options.read import Given
    from truetune.report import Terminal


@dataclass(frozen=True)
class Verb:
    """A word on the command line that does something. groups: which options `--help` shows, by title. own: what it
    takes beside them, each with its help. run(words, chinese) returns the exit status."""

    run: Callable[[list[str], bool], int]
    en: str
    zh: str
    groups: tuple[str, ...] = ()
    own: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Verbs:
    """Words of which one must follow."""

    en: str
    zh: str
    words: Mapping[str, Verb | Verbs]


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
        _show(error.findings, _terminal(chinese, stderr=True))
        return error.status
    except KeyboardInterrupt:
        print("已中断" if chinese else "interrupted", file=sys.stderr)
        return INTERRUPTED


def _dispatch(words: list[str], chinese: bool) -> int:
    if words and words[0] in ("--version", "-v"):
        words[0] = "version"
    verb: Verb | Verbs = VERBS
    path = "truetune"
    while isinstance(verb, Verbs):
        if not words or words[0] in ("--help", "-h", "help"):
            print(_overview(path, verb, chinese))
            return OK
        verb, path, words = _named(words[0], verb.words, path), f"{path} {words[0]}", words[1:]
    if "--help" in words or "-h" in words:
        print(_help(path, verb, chinese, "all" in words))
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


def _overview(path: str, verb: Verbs, chinese: bool) -> str:
    width = max(len(name) for name in verb.words)
    lines = [f"  {name:<{width}}  {word.zh if chinese else word.en}" for name, word in verb.words.items()]
    name = f"truetune {__version__}" if path == "truetune" else path
    head = f"{verb.zh}。用法：" if chinese else f"{verb.en}. Usage:"
    foot = (f"`{path} <命令> --help` 显示选项；`--help all` 显示全部。" if chinese else
            f"`{path} <command> --help` shows its options, `--help all` every one of them.")
    return "\n".join([f"{name}: {head}", "",
                      f"  {path} <command> [run.yaml] [key=value …] [--option value …]", "", *lines, "", foot])


def _help(path: str, verb: Verb, chinese: bool, everything: bool) -> str:
    from truetune.options.help import options_help

    width = max((len(name) for name, _, _ in verb.own), default=0)
    lines = [f"{path}: {verb.zh if chinese else verb.en}", *([""] if verb.own else []),
             *(f"  {name:<{width}}  {zh if chinese else en}" for name, en, zh in verb.own)]
    if verb.groups:
        lines.append(options_help(verb.groups, everything, "zh" if chinese else "en"))
    return "\n".join(lines)


def _terminal(chinese: bool, stderr: bool = False) -> Terminal:
    from truetune.report import Terminal

    return Terminal(chinese, stderr=stderr)


def _configure(arguments: list[str], verb: str, below: Sequence[Given] = ()) -> tuple[Config, list[Finding]]:
    """Options read and judged by the rules: the configuration, and findings without an error among them. below: what
    holds where they say nothing.

    Raises:
        Problem: (status 2) all slips in what was typed together with all rules that are broken.
    """
    from truetune.options.read import read_config
    from truetune.rules import apply_rules

    config, findings = read_config(arguments, below)
    findings = worst_first([*findings, *apply_rules(config, verb)])
    if status_of(findings) == "error":
        raise Problem(findings, WRONG_OPTIONS)
    return config, findings


def _train(arguments: list[str], chinese: bool) -> int:
    words = [word for word in arguments if word != "--no-check"]
    config, findings = _configure(words, "train")
    terminal = _terminal(chinese)
    _show(findings, terminal)
    from truetune.train import train

    train(config, terminal, findings, checked="--no-check" not in arguments)
    return OK


def _check(arguments: list[str], chinese: bool) -> int:
    words = [word for word in arguments if word not in ("--json", "--static", "--measure")]
    number = _take(words, "--apply")
    as_json, static = "--json" in arguments, "--static" in arguments
    terminal = _terminal(chinese, stderr=as_json)
    told: dict[str, Any] = {"facts": {}, "suggestions": []}
    config, findings, exit_status = _read(words, "check")
    if config and not static:
        from truetune.check import check

        checked = check(config, findings, terminal.say, "--measure" in arguments)
        findings, told = checked.findings, checked.as_dict()
        if number is not None:
            return _apply(words, number, checked.suggestions, terminal)
        if not as_json:
            from truetune.look.checked import print_page

            print_page(checked, terminal)
        exit_status = exit_status or (FAILED if status_of(findings) == "error" else OK)
    status = status_of(findings)
    if as_json:
        told |= {"status": status, "findings": [finding.as_dict() for finding in findings]}
        print(json.dumps({name: told[name] for name in ("status", "findings", "facts", "suggestions")},
                         indent=2, ensure_ascii=False))
    else:
        _show(findings, terminal)
        fine = Both("ready to train", "可以开始训练") if not static else \
            Both("the options are in order (model and data: without --static)",
                 "选项没有问题（要检查模型和数据，请去掉 --static）")
        terminal.say({"ok": fine, "warn": Both(f"{fine}; see above", f"{fine.zh}；请看上面的警告"),
                      "error": Both("not ready to train; see above", "还不能训练；请看上面的错误")}[status])
    return exit_status


def _read(words: list[str], verb: str) -> tuple[Config | None, list[Finding], int]:
    """Options read and judged as far as they can be: the configuration (None where there is too little to go on), what
    was found, and the exit status so far. A check goes on with what is in order, to tell everything at once."""
    from truetune.options.read import read_config
    from truetune.rules import apply_rules

    try:
        config, findings = read_config(words)
    except Problem as error:
        return None, error.findings, error.status
    findings = worst_first([*findings, *apply_rules(config, verb)])
    enough = config.model_name_or_path and (config.dataset or config.eval_dataset)
    return config if enough else None, findings, WRONG_OPTIONS if status_of(findings) == "error" else OK


def _apply(words: list[str], number: str, suggestions: Sequence[Suggestion], terminal: Terminal) -> int:
    """Write suggestion `number` of the check's page into the YAML file that was checked."""
    from truetune.options.edit import set_in_yaml

    if not (number.isdecimal() and 0 < int(number) <= len(suggestions)):
        count = len(suggestions)
        raise problem("bad-value", Both(f"{number!r:.80} is not a value it takes.", f"不接受 {number!r:.80}。"),
                      option="--apply", status=WRONG_OPTIONS, fix=Both(
                          f"The page has suggestions 1 to {count}." if count else "There is nothing to suggest.",
                          f"检查页上的建议编号为 1 到 {count}。" if count else "没有可用的建议。"))
    chosen = suggestions[int(number) - 1]
    if not words or not words[0].endswith((".yaml", ".yml")):
        raise problem("no-config-file", Both("there is no YAML file to write into.", "没有可以写入的 YAML 文件。"),
                      option="--apply", status=WRONG_OPTIONS,
                      fix=Both(f"Do it by hand: {chosen.line(False)}.", f"请手动{chosen.line(True)}。"))
    set_in_yaml(Path(words[0]), dict(chosen.cure))
    terminal.say(Both(f"{words[0]}: {chosen.line(False)}", f"{words[0]}：{chosen.line(True)}"))
    return OK


def _data_build(arguments: list[str], chinese: bool) -> int:
    config, findings = _configure(arguments, "data")
    from truetune.look.show import build

    terminal = _terminal(chinese)
    _show(worst_first([*findings, *build(config, terminal)]), terminal)
    return OK


def _data_show(arguments: list[str], chinese: bool) -> int:
    words = [word for word in arguments if word not in ("--ids", "--json")]
    count, place, html = (_take(words, flag) for flag in ("-n", "--row", "--html"))
    if count and not (count.isdecimal() and int(count)):
        raise problem("bad-value", Both(f"{count!r:.80} is not a value it takes.", f"不接受 {count!r:.80}。"),
                      option="-n", status=WRONG_OPTIONS,
                      fix=Both("It takes a whole number from 1 on.", "取值：从 1 开始的整数。"))
    as_json = "--json" in arguments
    terminal = _terminal(chinese, stderr=as_json)
    shown, findings, exit_status = {}, [], OK
    try:
        config, findings = _configure(words, "data")
        from truetune.look.show import look, print_view

        view, found = look(config, int(count or 3), place, terminal.say)
        findings = worst_first([*findings, *found])
        exit_status = FAILED if status_of(findings) == "error" else OK
        shown = view.as_dict()
        if html:
            from truetune.look.page import write_page

            write_page(view, Path(html), chinese)
        if not as_json and not html:
            print_view(view, terminal, "--ids" in arguments)
    except Problem as error:
        findings, exit_status = worst_first([*findings, *error.findings]), error.status
    if as_json:
        told = [finding.as_dict() for finding in findings]
        print(json.dumps({"status": status_of(findings), "findings": told, **shown}, ensure_ascii=False))
    else:
        _show(findings, terminal if exit_status == OK else _terminal(chinese, stderr=True))
        if html and shown:
            terminal.say(Both(f"written to {html}", f"已写入 {html}"))
    return exit_status


def _data_diff(arguments: list[str], chinese: bool) -> int:
    if len(arguments) < 2 or any(word.startswith("-") or "=" in word for word in arguments[:2]):
        raise problem("two-needed", Both("two things to compare are needed.", "需要两个比较对象。"), option="data diff",
                      status=WRONG_OPTIONS,
                      fix=Both("truetune data diff A B, each a run.yaml, a run folder or a folder of token stores.",
                               "用法：truetune data diff A B，各为 run.yaml、运行文件夹或分词结果文件夹。"))
    from truetune.look.compare import diff

    return diff(arguments[0], arguments[1], arguments[2:], lambda words: _configure(words, "data")[0],
                _terminal(chinese))


def _take(words: list[str], flag: str) -> str | None:
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


def _recipe(arguments: list[str], chinese: bool) -> int:
    words = [_short_names(word) for word in arguments if word != "--overwrite"]
    goal, output = _take(words, "--goal"), _take(words, "--output") or "run.yaml"
    config, _ = _configure(words, "data")
    from truetune.guide.recipe import make_recipe, write_recipe

    terminal = _terminal(chinese, stderr=output == "-")
    recipe = make_recipe(config, goal, terminal.say)
    return write_recipe(recipe, output, "--overwrite" in arguments, terminal)


def _short_names(word: str) -> str:
    """`--model` and `--dataset` are short for longer names, as `model=` is."""
    name, equals, value = word.partition("=")
    if name.removeprefix("--") != "model" or not (equals or name.startswith("--")):
        return word
    return f"--model_name_or_path{equals}{value}"


def _find_lr(arguments: list[str], chinese: bool) -> int:
    words = [word for word in arguments if word not in ("--range", "--apply")]
    steps, picture = _take(words, "--steps"), _take(words, "--output")
    if steps and not (steps.isdecimal() and int(steps)):
        raise problem("bad-value", Both(f"{steps!r:.80} is not a value it takes.", f"不接受 {steps!r:.80}。"),
                      option="--steps", status=WRONG_OPTIONS,
                      fix=Both("It takes a whole number from 1 on.", "取值：从 1 开始的整数。"))
    file = Path(words[0]) if words and words[0].endswith((".yaml", ".yml")) else None
    if "--apply" in arguments and not file:
        raise problem("apply-where", Both("there is no run.yaml to change.", "没有可修改的 run.yaml。"),
                      option="--apply", status=WRONG_OPTIONS, fix="truetune find-lr run.yaml --apply")
    config, findings = _configure(words, "check")
    terminal = _terminal(chinese)
    _show([finding for finding in findings if finding.severity != "info"], terminal)
    from truetune.guide.find_lr import Wish, find_lr

    wish = Wish("--range" in arguments, int(steps) if steps else None,
                Path(picture) if picture else (file or Path()).with_name("find-lr.png"),
                file if "--apply" in arguments else None)
    return find_lr(config, wish, terminal)


def _chat(arguments: list[str], chinese: bool) -> int:
    words = list(arguments)
    once = _take(words, "--once")
    config, findings = _configure(_from_run(words), "chat")
    terminal = _terminal(chinese)
    _show([finding for finding in findings if finding.severity != "info"], terminal)
    from truetune.serve.chat import chat

    chat(config, terminal, once)
    return OK


_API_ENVIRONMENT = {"API_HOST": "api_host", "API_PORT": "api_port", "API_KEY": "api_key",
                    "API_MODEL_NAME": "api_model_name", "MAX_CONCURRENT": "infer_batch"}
"""Variables that users of LLaMA-Factory set for its API, and the options that they mean."""


def _api(arguments: list[str], chinese: bool) -> int:
    from truetune.options.read import Given

    below = [Given(option, os.environ[name], f"environment: {name}") for name, option in _API_ENVIRONMENT.items()
             if os.environ.get(name)]
    config, findings = _configure(_from_run(arguments), "api", below)
    terminal = _terminal(chinese)
    _show([finding for finding in findings if finding.severity != "info"], terminal)
    from truetune.serve.api.server import serve

    return serve(config, terminal.say)


def _export(arguments: list[str], chinese: bool) -> int:
    config, findings = _configure(_from_run(arguments), "export")
    terminal = _terminal(chinese)
    _show([finding for finding in findings if finding.severity != "info"], terminal)
    from truetune.export import export

    export(config, terminal.say, terminal)
    return OK


def _parity(arguments: list[str], chinese: bool) -> int:
    words = [word for word in arguments if word != "--json"]
    if len(words) < 2 or any(word.startswith("-") for word in words[:2]):
        raise problem("two-needed", Both("two places to compare are needed.", "需要两个比较对象。"), option="parity",
                      status=WRONG_OPTIONS, fix=Both(
                          "truetune parity A B, each a run, a model's folder, a .gguf file, a Modelfile or an address.",
                          "用法：truetune parity A B，各为运行文件夹、模型文件夹、.gguf 文件、Modelfile 或地址。"))
    from truetune.options.read import read_config
    from truetune.parity.pair import parity

    as_json = "--json" in arguments
    return parity(words[0], words[1], read_config(words[2:])[0], _terminal(chinese, stderr=as_json), as_json)


def _eval(arguments: list[str], chinese: bool) -> int:
    as_json = "--json" in arguments
    terminal = _terminal(chinese, stderr=as_json)
    config, findings = _configure(_from_run([word for word in arguments if word != "--json"]), "eval")
    _show([finding for finding in findings if finding.severity != "info"], terminal)
    from truetune.evaluate.evaluate import evaluate
    from truetune.evaluate.result import table_of

    result = evaluate(config, terminal.say)
    if as_json:
        print(json.dumps(result.scores, indent=2, ensure_ascii=False))
    else:
        terminal.print(table_of(result, chinese))
    _show(worst_first(result.doubts), terminal)
    return OK


def _expand(arguments: list[str], chinese: bool) -> int:
    config, findings = _configure(arguments, "expand")
    terminal = _terminal(chinese)
    _show([finding for finding in findings if finding.severity != "info"], terminal)
    from truetune.export.expand import expand

    expand(config, terminal.say)
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


def _explain(arguments: list[str], chinese: bool) -> int:
    from truetune.options.explain import explain

    explain(arguments, _terminal(chinese))
    return OK


def _schema(arguments: list[str], chinese: bool) -> int:
    from truetune.options.json_schema import schema_text
    from truetune.options.page import options_page

    stray = next((word for word in arguments if word != "--markdown"), None)
    if stray:
        raise problem("stray-word", Both("schema takes --markdown and --lang only.",
                                         "schema 只接受 --markdown 和 --lang。"), option=stray, status=WRONG_OPTIONS)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # a file, whatever the terminal's encoding
    print((options_page if arguments else schema_text)(chinese), end="")
    return OK


def _env(arguments: list[str], chinese: bool) -> int:
    from truetune.report import environment, machine

    for name, value in {**environment(), **machine()}.items():
        print(f"{name:<14} {value}")
    return OK


def _version(arguments: list[str], chinese: bool) -> int:
    print(f"truetune {__version__}")
    return OK


def _show(findings: list[Finding], terminal: Terminal) -> None:
    from truetune.report import print_findings

    print_findings(findings, terminal)


_RUN = ("Model", "Quantization", "Data", "Media", "Method", "Loss", "Preference", "Reward", "Rollouts", "Training",
        "Optimizer", "Parallel", "Tracking", "Hub")
_DATA = ("Model", "Data", "Media", "Hub")
"""The groups of options that a run and its data can have."""

VERBS = Verbs("Fine-tune language models", "微调语言模型", {
    "train": Verb(_train, "check a run, then train it", "先检查，再训练", _RUN, own=(
        ("--no-check", "train without the page about it (what cannot run is still refused)",
         "跳过检查页直接训练（无法运行的仍会拒绝）"),)),
    "check": Verb(_check, "what can be known before training", "训练前能知道的一切",
                  _RUN, own=(
                      ("--static", "the options only: no model, no data, at once",
                       "只看选项：不读模型和数据，立即完成"),
                      ("--measure", "also take one real step, and compare memory and time with the prediction",
                       "真正走一步，与预测的显存和时间比较"),
                      ("--apply N", "write suggestion N of the page into the YAML file",
                       "把检查页的第 N 条建议写入 YAML 文件"),
                      ("--json", "as JSON", "以 JSON 输出"))),
    "data": Verbs("look into the tokens that are trained on: build, show, diff",
                  "查看训练所用的 token：build、show、diff", {
        "build": Verb(_data_build, "tokenise the data sets, or find them tokenised (no weights, no GPU)",
                      "把数据集分词，已有则直接使用（不需要权重和 GPU）", _DATA),
        "show": Verb(_data_show, "the first rows as they are trained on, what was left out, how long rows are",
                     "按训练时的样子显示前几行、被丢弃的行和长度分布", _DATA, own=(
                         ("-n 3", "how many rows (or packs of rows)", "显示多少行（或多少个打包）"),
                         ("--row a.json:12", "this row instead: the file and the line where it begins",
                          "只显示这一行：文件名和起始行号"),
                         ("--ids", "with the id of every token", "同时显示每个 token 的 id"),
                         ("--json", "as JSON", "以 JSON 输出"),
                         ("--html page.html", "as a page for the browser", "生成网页文件"))),
        "diff": Verb(_data_diff, "what differs between A and B: settings, rows, the first token (exit status 1)",
                     "A 与 B 的差别：设置、行、第一个不同的 token（有差别时退出码为 1）", _DATA, own=(
                         ("A B", "each a run.yaml, a run folder, a token store or a tokenized_path",
                          "各为 run.yaml、运行文件夹、分词结果文件夹或 tokenized_path"),
                         ("key=value …", "options for both; model_name_or_path lets ids of stores be shown as text",
                          "对两者都生效的选项；给出 model_name_or_path 可把 id 显示为文字"))),
    }),
    "recipe": Verb(_recipe, "write a run.yaml for this model, data and machine, each value with its reason",
                   "按模型、数据和机器写出 run.yaml，每个值都附理由", ("Model", "Data", "Method", "Training"), own=(
                       ("--model M", "the model (model_name_or_path)", "模型（model_name_or_path）"),
                       ("--dataset D", "the data", "数据"),
                       ("--goal style", "style, knowledge, preference or reasoning; unset: as the data look",
                        "style（风格）、knowledge（知识）、preference（偏好）或 reasoning（推理）；不填按数据判断"),
                       ("--output run.yaml", "where it is written; - prints it", "写到哪里；- 表示直接打印"),
                       ("--overwrite", "replace the file if it is there", "文件已存在时覆盖"),
                       ("key=value …", "options that are not to be chosen but to be this",
                        "不由配方选择、而是固定的选项"))),
    "find-lr": Verb(_find_lr, "try learning rates in short runs, and say which to set", "用短训练试学习率，并给出建议",
                    ("Model", "Data", "Method", "Training"), own=(
                        ("run.yaml", "the run; key=value … changes its options", "训练配置；可用 key=value … 修改选项"),
                        ("--range", "one run whose rate grows, instead of three at x1/3, x1 and x3",
                         "一次学习率逐步升高的训练，代替 x1/3、x1、x3 三次"),
                        ("--steps 40", "steps of each run", "每次训练的步数"),
                        ("--output find-lr.png", "where the picture is drawn", "图片写到哪里"),
                        ("--apply", "set learning_rate in run.yaml to what is suggested",
                         "把建议的 learning_rate 写入 run.yaml"))),
    "chat": Verb(_chat, "talk to a model, an adapter or a run folder", "与模型、适配器或运行文件夹对话",
                 ("Model", "Quantization", "Hub", "Generation", "Serving"), own=(
                     ("--once TEXT", "answer this and leave", "只回答这一句，然后退出"),)),
    "eval": Verb(_eval, "measure a model: multiple choice (MMLU, CMMLU, C-Eval), perplexity, answers, lm-eval tasks",
                 "评测模型：选择题（MMLU、CMMLU、C-Eval）、困惑度、生成的回答、lm-eval 任务",
                 ("Evaluation", "Model", "Quantization", "Data", "Generation", "Serving", "Hub"), own=(
                     ("M", "a run folder, a checkpoint, a model folder or a hub id",
                      "运行文件夹、检查点、模型文件夹或 hub 上的 id"),
                     ("task=mmlu_test", "what to measure: see task", "测什么：见 task"),
                     ("--json", "as JSON", "以 JSON 输出"))),
    "api": Verb(_api, "answer other programs, as OpenAI's API does", "以 OpenAI 的 API 形式为其他程序提供服务",
                ("Model", "Quantization", "Hub", "Generation", "Serving")),
    "expand": Verb(_expand, "add blocks to a model that change nothing at first, to train only those (LLaMA Pro)",
                   "给模型插入起初不改变输出的新块，之后只训练它们（LLaMA Pro）", ("Model", "Hub"), own=(
                       ("num_expand=8", "how many; it has to divide the number of layers",
                        "插入多少个，必须能整除层数"),
                       ("output_dir=D", "where the larger model is written", "扩展后的模型写到哪里"))),
    "export": Verb(_export, "write a model for serving (hf, GGUF, Ollama), proven to be the one that was trained",
                   "导出用于部署的模型（hf、GGUF、Ollama），并证明它就是训练出的模型",
                   ("Model", "Quantization", "Hub", "Export")),
    "parity": Verb(_parity, "whether two places serve the same model: names what differs first (exit status 1)",
                   "两处部署的是不是同一个模型：指出第一处差别（有差别时退出码为 1）", own=(
                       ("A B", "each a run, a model's folder, a .gguf file, a Modelfile or an address (http://…)",
                        "各为运行文件夹、模型文件夹、.gguf 文件、Modelfile 或地址（http://…）"),
                       ("--json", "as JSON", "以 JSON 输出"),
                       ("--api_key=…", "token that an address wants", "地址需要的 token"),
                       ("key=value …", "options for a model's folder, such as template=…",
                        "模型文件夹的选项，例如 template=…"))),
    "explain": Verb(_explain, "what an option or a word of the log means, which way to turn it, what it costs",
                    "解释一个选项或日志字段：做什么、往哪边调、代价是什么", own=(
                        ("NAME …", "options by any of their names, words of the log (loss, grad_norm), groups",
                         "选项（任一名字）、日志字段（loss、grad_norm）或分组的名字"),
                        ("WORD", "anything else is searched for: overfit", "其他词则搜索，如：过拟合"),
                        ("", "without a name: an overview", "不写名字：总览"))),
    "schema": Verb(_schema, "a JSON Schema of run.yaml, so that editors complete and check it",
                   "run.yaml 的 JSON Schema，让编辑器能补全和检查", own=(
                       ("> truetune.schema.json", "then, in the first line of run.yaml: "
                        "# yaml-language-server: $schema=truetune.schema.json",
                        "然后在 run.yaml 第一行写：# yaml-language-server: $schema=truetune.schema.json"),
                       ("--markdown", "every option as a page of documentation instead", "改为输出全部选项的文档页"))),
    "env": Verb(_env, "versions and machine, for bug reports", "版本和机器信息，用于报告问题"),
    "version": Verb(_version, "the version", "版本号"),
})
