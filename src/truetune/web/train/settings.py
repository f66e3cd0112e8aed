"""What the form holds as a file and as a command: preview, differences to the defaults, save and load.

A file that is saved here is the one that `truetune train` reads, and any that it reads can be loaded: LLaMA-Factory's,
a recipe, or the config.yaml of a run.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from truetune.files import write_text
from truetune.findings import FAILED, WRONG_OPTIONS, Both, Finding, Problem, Words, problem
from truetune.options import OPTIONS, Config
from truetune.options.help import default_words
from truetune.options.read import canonical_name, read_config, read_file
from truetune.web.explained import in_short
from truetune.web.form import Texts, as_texts
from truetune.web.roots import Roots
from truetune.web.tables import paragraph, table
from truetune.web.words import Language


def commands(config: Config, texts: Mapping[str, str], file: str) -> str:
    """The same run on the command line: from a saved file, and as flags."""
    flags = [f"--{name} {shlex.quote(_flag(config, name, text))}" for name, text in texts.items()
             if text and not OPTIONS[name].text.secret]
    return f"truetune train {shlex.quote(file)}\n\n" + " \\\n  ".join(["truetune train", *flags])


def _flag(config: Config, name: str, text: str) -> str:
    """A value as it is typed after a flag, which may not itself look like one."""
    return as_texts({name: getattr(config, name)})[name] if config.given(name) else text


def differences(config: Config, texts: Mapping[str, str], language: Language) -> str:
    """What was set, beside what would be taken otherwise, as an HTML table."""
    if not texts:
        return paragraph(Both("Everything is as the defaults are.", "全部是默认值。"), language)
    columns = (Both("option", "选项"), Both("here", "当前值"), Both("default", "默认"), Both("what it does", "作用"))
    return table(columns, (_difference(config, name, text, language) for name, text in texts.items()), language)


def _difference(config: Config, name: str, text: str, language: Language) -> tuple[Words, ...]:
    option = OPTIONS[name]
    return (name, _flag(config, name, text), Both(default_words(option, False), default_words(option, True)),
            in_short(option, language))


def load(path: Path, drawn: Collection[str]) -> tuple[Texts, list[Finding]]:
    """The options in a file as they would be typed, and what is to be said of it: what it slips in, and what the page
    has no field for. What cannot be read is typed in as it stands, so that it can be mended.

    Raises:
        Problem: it is no YAML or JSON file of options.
    """
    config, findings = read_config([str(path)])
    given = as_texts({name: getattr(config, name) for name in OPTIONS if config.given(name)})
    slips = {finding.option for finding in findings if finding.id == "bad-value"}
    raw = {canonical_name(item.name): item.value for item in read_file(path) if item.name in slips}
    given |= {name: text for name, text in as_texts({name: raw[name] for name in raw if name in OPTIONS}).items()}
    texts = {name: text for name, text in given.items() if name in drawn}
    apart = [name for name in given if name not in drawn and OPTIONS[name].works]
    if apart:
        findings.append(_without_field(apart))
    return texts, findings


def _without_field(names: list[str]) -> Finding:
    secret = [name for name in names if OPTIONS[name].text.secret]
    if secret:
        return Finding("secret-in-file", "warn", Both(
            f"{', '.join(secret)}: secrets are not taken over from a file.",
            f"{'、'.join(secret)}：不会从文件里读取密钥。"), fix=Both(
            "Set them in the environment of the page, such as HF_TOKEN.",
            "请在启动网页的环境变量里设置，例如 HF_TOKEN。"))
    return Finding("not-of-training", "info", Both(
        f"{', '.join(names)}: not of training, left out.", f"{'、'.join(names)}：与训练无关，已略去。"))


def save(roots: Roots, typed: str, text: str, overwrite: bool) -> Path:
    """Write `text` to the YAML file that somebody named, below the folders of the page.

    Raises:
        Problem: it lies elsewhere, is no .yaml, is there already and may not be overwritten, or cannot be written.
    """
    if not typed.strip():
        raise problem("no-name", Both("the file has no name.", "没有填写文件名。"), status=WRONG_OPTIONS,
                      fix=Both("Type one, such as train.yaml.", "请填写，例如 train.yaml。"))
    path = roots.inside(typed.strip())
    if path.suffix.lower() not in (".yaml", ".yml"):
        path = path.with_name(f"{path.name}.yaml")
    if path.exists() and not overwrite:
        raise Problem(Finding(THERE, "error", Both(f"{path} is there already.", f"{path} 已经存在。"), fix=Both(
            "Press Save again to write over it, or give another name.", "再按一次“保存”将覆盖它；也可以换个名字。")),
            WRONG_OPTIONS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise problem("not-writable", Both(f"{path} cannot be written: {error.strerror}.",
                                           f"无法写入 {path}：{error.strerror}。"), status=FAILED) from None
    return path


THERE = "file-exists"
"""The finding of `save` where a file would be written over."""
