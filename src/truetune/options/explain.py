"""`truetune explain`: what an option does and which way to turn it, what a word of the log means; an overview of all of
them, and a search. Drawn from the schema and from `terms`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text as Line

from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem
from truetune.options import GROUPS, OPTIONS, Group, Option
from truetune.options.help import costs, default_words, in_order, other_names, turns, when, why_not, width, wrap
from truetune.options.schema import LEVELS, Level, Pair
from truetune.options.sources import SOURCES
from truetune.options.terms import TERMS

if TYPE_CHECKING:
    from truetune.report import Terminal

_WIDEST = 100
"""Columns of running text: longer lines are tiring to read."""
_LABEL = 12
"""Columns of what stands before the text of a page."""
_MOST_FOUND = 15


def explain(words: Sequence[str], terminal: Terminal) -> None:
    """Print what `words` are: options by any of their names, words of the log, groups, or something to search for.

    Raises:
        Problem: nothing is called so and nothing speaks of it.
    """
    desk = _Desk(min(terminal.width, _WIDEST), terminal.chinese)
    asked = _asked(words)
    pages = {word: desk.page(word) for word in asked} or {"": desk.overview()}
    for number, page in enumerate(filter(None, pages.values())):
        between = [Line(), Line("─" * desk.columns, "dim"), Line()] if number else []
        for line in between + page:
            terminal.print(line)
    unknown = [_unknown(word) for word, page in pages.items() if not page]
    if unknown:
        raise Problem(unknown, WRONG_OPTIONS)


def _asked(words: Sequence[str]) -> list[str]:
    """What is asked for. `--lora-rank=8` means lora_rank; several words of which none is a name are one search."""
    plain = [re.sub(r"^--|=.*", "", word).strip() for word in words]
    phrase = " ".join(plain)
    together = len(plain) > 1 and (_is_name(phrase) or not any(map(_is_name, plain)))
    return list(dict.fromkeys(filter(None, [phrase] if together else plain)))


# ---------------------------------------------------------------------------------------------------------------------
# Names

_OPTION_NAMES: Mapping[str, Option] = {
    **{other: option for option in OPTIONS.values() for other in option.text.also},
    **{name.lower(): option for name, option in OPTIONS.items()}}
_TERM_NAMES: Mapping[str, str] = {**{other: name for name, term in TERMS.items() for other in term.also},
                                  **{name: name for name in TERMS}}
_GROUP_NAMES: Mapping[str, type[Group]] = {title.lower(): group for group in GROUPS for title in group.title}


def _key(word: str) -> str:
    """`learning rate`, `learning-rate` → `learning_rate`."""
    return re.sub(r"[\s-]+", "_", word.lower())


def _option_of(word: str) -> Option | None:
    return _OPTION_NAMES.get(_key(word))


def _term_of(word: str) -> str | None:
    """The word of the log that is meant: `eval_alpaca_loss` is an eval_NAME_loss."""
    return _TERM_NAMES.get(_key(word)) or ("eval_NAME_loss" if re.fullmatch(r"eval_.+_loss", _key(word)) else None)


def _group_of(word: str) -> type[Group] | None:
    return _GROUP_NAMES.get(word.lower())


def _is_name(word: str) -> bool:
    return bool(_option_of(word) or _term_of(word) or _group_of(word))


def _unknown(word: str) -> Finding:
    """Nobody knows `word`, and what may have been meant."""
    return Finding(
        "unknown-name", "error", option=word, message=Both(
            "no option and no word of the log is called so, and none speaks of it.",
            "没有叫这个名字的选项或日志字段，也没有说明提到它。"),
        fix=_near(word) or Both("`truetune explain` shows what there is.", "`truetune explain` 显示全部内容。"))


def _near(word: str) -> Both | None:
    """A name spelt much the same."""
    known = [*sorted(OPTIONS, key=lambda name: LEVELS.index(OPTIONS[name].text.level)), *_TERM_NAMES, *_OPTION_NAMES,
             *_GROUP_NAMES]
    near = difflib.get_close_matches(_key(word), known, n=1, cutoff=0.75)
    return Both(f"Did you mean {near[0]}?", f"是不是 {near[0]}？") if near else None


# ---------------------------------------------------------------------------------------------------------------------
# Search


class Found(NamedTuple):
    """Something that speaks of what is searched. rank: best first; said: the sentence that does."""

    rank: tuple[float, ...]
    name: str
    said: str


def search(phrase: str, chinese: bool) -> list[Found]:
    """Options and words of the log whose texts, in either language, hold every word of `phrase`, the best first. A name
    counts more than what it does, and that more than advice; options without effect come last."""
    words = [re.compile(("(?<![a-z])" if word[0].isascii() else "") + re.escape(word), re.IGNORECASE)
             for word in phrase.replace("_", " ").split()]
    found = [_match(option.name, _option_texts(option), words, chinese,
                    (bool(why_not(option)), LEVELS.index(option.text.level))) for option in OPTIONS.values()]
    found += [_match(name, _term_texts(name), words, chinese, (False, 0)) for name in TERMS]
    return sorted(filter(None, found), key=lambda found: found.rank)


def _match(name: str, texts: Sequence[tuple[float, Pair]], words: Sequence[re.Pattern[str]], chinese: bool,
           less: tuple[float, ...]) -> Found | None:
    """`name`, if each of `words` stands in one of `texts`. Of two that are alike the smaller `less` comes first."""
    best = [max((weight for weight, pair in texts if any(map(word.search, pair))), default=0) for word in words]
    if not best or not all(best):
        return None
    told = [sentence for _, pair in texts[1:] for sentence in re.split(r"(?<=[.;]) |(?<=[。；])", pair[chinese])]
    said = next((sentence for sentence in told if any(word.search(sentence) for word in words)), told[0])
    return Found((less[0], -sum(best), *less[1:]), name, said)


def _option_texts(option: Option) -> list[tuple[float, Pair]]:
    """Everything said of an option, the name first, and how much a word in it counts."""
    text = option.text
    names = " ".join([option.name, *text.also])
    return [(8, (names, names)), (4, (text.en, text.zh)),
            *((2, pair) for pair in (text.higher, text.lower, text.unset) if pair),
            *((1, (advice.en, advice.zh)) for advice in text.advice),
            *((1, pair) for pair in (text.no_effect, text.not_offered) if pair)]


def _term_texts(name: str) -> list[tuple[float, Pair]]:
    term = TERMS[name]
    names = " ".join([name, *term.also])
    return [(8, (names, names)), (4, term.what), *((2, pair) for pair in (term.good, term.bad, term.then) if pair)]


# ---------------------------------------------------------------------------------------------------------------------
# Pages


class _Desk(NamedTuple):
    """Where pages are written: so many columns, one language."""

    columns: int
    chinese: bool

    def page(self, word: str) -> list[Line]:
        """All that is called `word`, else all that speaks of it; empty for nothing."""
        option, term, group = _option_of(word), _term_of(word), _group_of(word)
        pages = [*([self.option(option, _key(word))] if option else []), *([self.term(term)] if term else []),
                 *([self.group(group)] if group else [])]
        return _spaced(pages) or self.found(word)

    def option(self, option: Option, asked: str) -> list[Line]:
        """One option, called `asked`."""
        text, say = option.text, self.say
        lines = [self.title(option.name, f"{option.group.title[self.chinese]} · {say(*_LEVELS[text.level])}")]
        if asked != option.name:
            lines += self.lines(say(f"{asked} is another name of it.", f"{asked} 是它的另一个名字。"), "dim")
        lines += self.lines(why_not(option, self.chinese), "yellow")
        lines += self.lines(say(text.en, text.zh))
        null = say(" or null", " 或 null") if option.takes_null else ""
        lines += [Line(), *self.row(say("takes", "取值"), option.takes(self.chinese) + null),
                  *self.row(say("default", "默认"), default_words(option, self.chinese)),
                  *self.row(say("also", "别名"), ", ".join(other_names(option)))]
        if not why_not(option):
            if text.free_on_resume:
                lines += self.row(say("resume", "续训"), say("may be changed when a run goes on", "续训时可以改"))
            ways = [line for way, words in turns(option, self.chinese) for line in self.row(way, words)]
            lines += [*[Line()] * bool(ways), *ways, *self.costs(option)]
        for advice in text.advice:
            source = SOURCES[advice.source]
            lines += [Line(), *self.row(say("advice", "建议"), say(advice.en, advice.zh)),
                      *self.row("", source.title, "dim"), *self.row("", source.link, "dim")]
        return lines

    def costs(self, option: Option) -> list[Line]:
        """`memory ↑ more   speed ↓ slower   quality = same`, in colours that say whether that is good."""
        cells = [(_padded(self.say(*when(option)), _LABEL), "cyan")]
        told = costs(option, self.chinese)
        for (what, trend, words), better in zip(told, ("down", "up", "up"), strict=False):
            style = {"same": "dim", "depends": "yellow", better: "green"}.get(trend, "red")
            cells += [(f"{what} ", ""), (words, style), ("   ", "")]
        return [Line.assemble(*cells[:-1])] if told else []

    def term(self, name: str) -> list[Line]:
        """One word of the log."""
        term, say = TERMS[name], self.say
        parts = (("unit", "单位", "cyan", term.unit), ("good", "正常", "green", term.good),
                 ("bad", "异常", "red", term.bad), ("do", "怎么办", "cyan", term.then))
        rows = [line for en, zh, hue, pair in parts if pair for line in self.row(say(en, zh), say(*pair), hue=hue)]
        also = self.row(say("also", "别名"), ", ".join(term.also))
        return [self.title(name, say("a word of the log", "日志字段")), *self.lines(say(*term.what)),
                *[Line()] * bool(rows or also), *also, *rows]

    def group(self, group: type[Group]) -> list[Line]:
        """All options of a group, one line each; of those without effect only the names."""
        options = in_order([option for option in OPTIONS.values() if option.group is group])
        working = [option for option in options if not why_not(option)]
        lines = [self.title(group.title[self.chinese], self.say("options", "选项"))]
        for level in LEVELS:
            mine = [option for option in working if option.text.level == level]
            lines += [*[Line(f"\n{self.say(*_LEVELS[level])}", "dim")] * bool(mine), *self.one_each(mine)]
        for said, idle in (
                (("known, not done here yet", "可以写，但这里还不支持"), lambda text: text.not_offered),
                (("known, no effect here", "可以写，在这里不起作用"), lambda text: text.no_effect)):
            names = ", ".join(option.name for option in options if idle(option.text))
            lines += [Line(f"\n{self.say(*said)}", "dim"), *self.lines(names, first="  ")] if names else []
        return lines

    def found(self, phrase: str) -> list[Line]:
        """What speaks of `phrase`."""
        found = search(phrase, self.chinese)
        if not found:
            return []
        fix, more = _near(phrase), len(found) - _MOST_FOUND
        lines = self.lines(self.say(f"Nothing is called {phrase}. {f'{fix} ' if fix else ''}These speak of it:",
                                    f"没有叫 {phrase} 的内容。{fix.zh if fix else ''}以下提到了它："))
        lines += self.entries([(name, said) for _, name, said in found[:_MOST_FOUND]])
        return lines + ([Line(self.say(f"  … and {more} more", f"  … 还有 {more} 个"), "dim")] if more > 0 else [])

    def overview(self) -> list[Line]:
        """The basic options of every group, how many more there are, and how to go on."""
        lines: list[Line] = []
        for group in GROUPS:
            options = [option for option in OPTIONS.values() if option.group is group and not why_not(option)]
            basic = [option for option in options if option.text.level == "basic"]
            more = len(options) - len(basic)
            count = self.say(f"  {more} more", f"  另有 {more} 个") if more else ""
            head = Line.assemble((group.title[self.chinese], "bold"), (count, "dim"))
            lines += [head, *self.one_each(basic)] if options else []
        lines += [Line(), Line(self.say("Words of the log", "日志字段"), "bold"),
                  *self.lines(", ".join(TERMS), first="  "), Line()]
        title = GROUPS[0].title[self.chinese].lower()
        return lines + self.entries([
            ("truetune explain learning_rate", self.say("one of them in full", "详细解释一个")),
            (f"truetune explain {title}", self.say("every option of a group", "一组的全部选项")),
            (self.say("truetune explain overfit", "truetune explain 过拟合"),
             self.say("what speaks of it", "搜索提到它的内容"))])

    def one_each(self, options: Iterable[Option]) -> list[Line]:
        """Options, each with what it does in a line."""
        return self.entries([(option.name, self.say(option.text.en, option.text.zh)) for option in options])

    def entries(self, entries: Sequence[tuple[str, str]]) -> list[Line]:
        """Names and texts in two columns, each text cut to one line."""
        most = min(max((width(name) for name, _ in entries), default=0), 32)
        return [Line.assemble("  ", (_padded(name, most), "cyan"), "  ", _cut(text, self.columns - most - 4))
                for name, text in entries]

    def title(self, name: str, more: str) -> Line:
        return Line.assemble((name, "bold cyan"), (f"  {more}", "dim"))

    def lines(self, text: str, style: str = "", first: str = "") -> list[Line]:
        """Running text; nothing for none."""
        return [Line(line, style) for line in wrap(text, self.columns, first, first)] if text else []

    def row(self, label: str, text: str, style: str = "", hue: str = "cyan") -> list[Line]:
        """`label   text`, in two columns; nothing for no text."""
        if not text:
            return []
        first, *rest = (Line(line, style) for line in wrap(text, self.columns, _padded(label, _LABEL), " " * _LABEL))
        first.stylize(hue, 0, len(label))
        return [first, *rest]

    def say(self, en: str, zh: str) -> str:
        return zh if self.chinese else en


_LEVELS: Mapping[Level, Pair] = {
    "basic": ("basic", "基础"), "advanced": ("advanced", "进阶"), "expert": ("expert", "专家")}


def _spaced(pages: Sequence[list[Line]]) -> list[Line]:
    """Pages with an empty line between them."""
    return [line for number, page in enumerate(pages) for line in ([Line()] if number else []) + page]


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def _cut(text: str, columns: int) -> str:
    """The first line of `text`, ended by … where there is more."""
    first, *more = wrap(text, columns - 2)
    return f"{first} …" if more else first
