"""The form in which every problem is told, and the exceptions that carry it to the command line.

A finding is one line a person can act on: what (option or file:line), the value, the reason, the fix. Problems are
collected and told together, so that nobody mends ten mistakes in ten runs. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

Severity = Literal["error", "warn", "info"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The worst first."""

OK, FAILED, WRONG_OPTIONS, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: done; the run or check failed; the options are wrong; interrupted by the user."""


class Both(NamedTuple):
    """The same in English and in Chinese. `str()` gives the English."""

    en: str
    zh: str

    def __str__(self) -> str:
        return self.en


Words = str | Both
"""Text for people. A plain `str` is the same in every language: a path, a number, a message of some library."""

Say = Callable[[Words], None]
"""What a step of the work reports its progress to: one line at a time."""


def spoken(words: Words, chinese: bool) -> str:
    """`words` in one language."""
    return words if isinstance(words, str) else words[chinese]


_PARSERS = (
    ("Expecting property name enclosed in double quotes", "这里应当是双引号括起来的键（也可能多了一个逗号）"),
    ("Expecting value", "这里应当有一个值"), ("Expecting ':' delimiter", "缺少冒号"),
    ("Expecting ',' delimiter", "缺少逗号"), ("Unterminated string", "字符串没有用引号结尾"),
    ("Invalid control character", "字符串里有未转义的控制字符（如换行或制表符）"),
    ("Invalid \\", "反斜杠转义不合法"), ("Extra data", "结束之后还有多余的内容"),
    ("mapping values are not allowed here", "这里不能有冒号（请检查缩进；含冒号的值要加引号）"),
    ("could not find expected ':'", "缺少冒号"), ("found character '\\t'", "缩进用了制表符，请改用空格"),
    ("found unexpected end of stream", "引号没有闭合"), ("expected ',' or ']'", "方括号没有闭合"),
    ("expected ',' or '}'", "花括号没有闭合"), ("expected <block end>", "缩进不一致"),
)
"""How the parsers of JSON and YAML begin what they say of a common slip, and the same in Chinese."""


def parser_says(reason: str) -> Both:
    """What a parser of JSON or YAML says, in Chinese too where it is a common slip."""
    return Both(reason, next((zh for en, zh in _PARSERS if reason.startswith(en)), reason))


@dataclass(frozen=True)
class Finding:
    """One thing to know before a run: `severity  option (where): message. fix`. source: a key of
    `options.sources.SOURCES`. cure: options that mend it, if there is one way to (`truetune check --apply`)."""

    id: str
    severity: Severity
    message: Words
    option: str | None = None
    where: str | None = None
    fix: Words | None = None
    source: str | None = None
    cure: Mapping[str, Any] | None = None

    def line(self, chinese: bool = False) -> str:
        """The finding as one line of text, without colour."""
        where = _in_chinese(self.where) if chinese and self.where else self.where
        place = f"{self.option or ''} ({where})".strip() if where else self.option or ""
        severity = f"{_CHINESE[self.severity]}  " if chinese else f"{self.severity:<5}  "
        message, fix = spoken(self.message, chinese), spoken(self.fix or "", chinese)
        space = "" if chinese and message.endswith(("。", "：")) else " "
        return f"{severity}{place}{': ' if place else ''}{message}{space if fix else ''}{fix}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `message` and `fix` in English, `message_zh` and `fix_zh` in Chinese."""
        said = {"message": str(self.message), "fix": self.fix and str(self.fix),
                "message_zh": spoken(self.message, True), "fix_zh": self.fix and spoken(self.fix, True)}
        return {**asdict(self), **said}


_CHINESE: dict[Severity, str] = {"error": "错误", "warn": "警告", "info": "提示"}
_PLACES = {"command line": "命令行", "rule: ": "规则：", "environment: ": "环境变量："}
"""How the origin of an option begins where it is no file, as `options.read` and `rules` note it."""


def _in_chinese(where: str) -> str:
    """A place as Chinese readers see it. Files and lines are the same for everybody."""
    for place, words in _PLACES.items():
        if where.startswith(place):
            where = words + where.removeprefix(place)
    return where.replace(", as ", "，写作 ")


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then the rest, each in the order they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def status_of(findings: Iterable[Finding]) -> Literal["ok", "warn", "error"]:
    """What a check says in one word."""
    found = {finding.severity for finding in findings}
    return "error" if "error" in found else "warn" if "warn" in found else "ok"


class Problem(Exception):
    """One or more findings that stop the work. `status` is the exit status: 1 for data and runs, 2 for options."""

    def __init__(self, findings: Finding | Iterable[Finding], status: int = FAILED):
        self.findings = [findings] if isinstance(findings, Finding) else list(findings)
        self.status = status
        super().__init__("\n".join(finding.line() for finding in self.findings))


def problem(id: str, message: Words, *, option: str | None = None, where: str | None = None,
            fix: Words | None = None, status: int = FAILED) -> Problem:
    """A `Problem` of one finding: the short way to stop with one clear line."""
    return Problem(Finding(id, "error", message, option=option, where=where, fix=fix), status)


def refuse(findings: list[Finding]) -> list[Finding]:
    """`findings` as they are.

    Raises:
        Problem: an error is among them; all of them, the worst first.
    """
    if status_of(findings) == "error":
        raise Problem(worst_first(findings))
    return findings


def count_of(number: int, word: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
