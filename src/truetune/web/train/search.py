"""“Type what you want to change”: the search of `truetune explain`, over the fields of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from truetune.findings import Both
from truetune.options import OPTIONS, Config
from truetune.options.explain import search
from truetune.options.help import why_not
from truetune.options.terms import TERMS
from truetune.rules.applies import missing
from truetune.web.tables import paragraph
from truetune.web.words import Language, say, simplified

_SECRET = Both("is a secret: set it in the environment, not here.", "是密钥：请用环境变量设置，不要写在网页里。")
_MOST = 12
"""Options that are shown for one search: more is no answer."""


def found(phrase: str, language: Language) -> list[str]:
    """The options that speak of `phrase` in their names or texts, in any of the languages, the best first."""
    if not phrase.strip():
        return []
    names = (match.name for match in search(simplified(phrase), language != "en") if match.name not in TERMS)
    return list(names)[:_MOST]


def answer(names: Sequence[str], drawn: Iterable[str], config: Config, phrase: str, language: Language) -> str:
    """What was found, as HTML: links to the fields that are shown, and why the others are not."""
    if not phrase.strip():
        return ""
    if not names:
        return paragraph(Both(f"Nothing speaks of “{phrase}”. Try one word, such as memory, overfit, faster or save.",
                               f"没有找到“{phrase}”。试试一个词，例如：显存、过拟合、速度、保存。"), language)
    fields = set(drawn)
    apart = {name: _why(name, config, language) for name in names if name not in fields or missing(name, config)}
    here = [f'<a href="#field-{name}">{name}</a>' for name in names if name not in apart]
    count = Both("Found:", "找到：")
    lines = [f"<p>{escape(say(count, language))} {' · '.join(here)}</p>"] if here else []
    lines += [f"<p><code>{escape(name)}</code> {escape(why)}</p>" for name, why in apart.items()]
    return "".join(lines)


def _why(name: str, config: Config, language: Language) -> str:
    """Why an option that was found has no field now."""
    option, to = OPTIONS[name], missing(name, config)
    if why_not(option):
        return say(Both(why_not(option), why_not(option, True)), language)
    if option.text.secret:
        return say(_SECRET, language)
    if to:
        return say(Both(f"belongs to {to.en}.", f"属于 {to.zh}。"), language)
    return say(Both("belongs to another tab.", "在别的标签页里。"), language)
