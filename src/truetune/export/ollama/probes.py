"""Conversations that a chat template is asked to write, so that its constant texts show between their words.

A conversation is named by a letter for each turn: S a system message, E one without text, U the user, A an answer, H an
answer with a thought. One that ends with U asks for an answer; one that ends with A or H is an answer begun, which the
model goes on with (`prefill`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from truetune.findings import Both

Render = Callable[[Sequence[Mapping[str, Any]], bool, bool | None], str | None]
"""What the trained template writes: of messages, with its generation prompt or without, thinking on, off or unsaid.
None: it refuses them."""

KINDS = {"S": "system", "E": "empty", "U": "user", "A": "assistant", "H": "assistant"}
ROLES = {"S": "system", "E": "system", "U": "user", "A": "assistant", "H": "assistant"}


class Group(NamedTuple):
    """Conversations that a form can do without. what: the words for what is then left out. adds: letters that no group
    before has; a conversation with a letter that is left out is not asked for."""

    what: Both | None
    talks: tuple[str, ...]
    adds: str = ""

    def known_to(self, talks: Sequence[str]) -> Group:
        """The group without the conversations whose letters do not stand in `talks`."""
        letters = {*"".join(talks), *self.adds, *"UA"}
        return self._replace(talks=tuple(talk for talk in self.talks if letters.issuperset(talk)))


GROUPS = (
    Group(None, ("U", "UAU", "UAUAU", "UAUAUAU")),
    Group(Both("system messages", "系统消息"), ("SU", "SUAU", "SUAUAU"), "S"),
    Group(Both("a system message without text", "空的系统消息"), ("EU", "EUAU"), "E"),
    Group(Both("an answer that is begun (the last message is the assistant's)",
               "续写回答（最后一条消息来自 assistant）"), ("UA", "UAUA", "SUA", "SUAUA", "EUA")),
    Group(Both("thoughts of earlier answers (the field `thinking`)", "历史回答中的思考（thinking 字段）"),
          ("UHU", "UHUHU", "UHUAU", "SUHU"), "H"),
    Group(Both("the thought of an answer that is begun", "续写回答中的思考"), ("UH", "UAUH", "UHUH", "UHUA", "SUH"),
          "H"),
    Group(Both("conversations that the assistant opens", "由 assistant 开头的对话"), ("AU", "AUAU", "SAU", "HUAU")),
)
"""The first is what every form must know."""


class Marked(NamedTuple):
    """What a template wrote of a conversation, cut at its words.

    before: text before each turn's thought and words. between: text between the two, None where there is no thought.
    ending: what stands behind the last turn's words, None where an answer is begun.
    """

    before: tuple[str, ...]
    between: tuple[str | None, ...]
    ending: str | None


def ask(talk: str, words: Sequence[str], thought: Callable[[int], str]) -> list[dict[str, str]]:
    """The messages of a conversation. words: of each turn. thought: that of a turn."""
    return [{"role": ROLES[letter], "content": "" if letter == "E" else words[number],
             **({"reasoning_content": thought(number)} if letter == "H" else {})}
            for number, letter in enumerate(talk)]


def written(render: Render, talk: str, words: Sequence[str], thought: Callable[[int], str],
            think: bool | None) -> str | None:
    """The text that asks for the next answer, or that stands before the rest of an answer that is begun. None: the
    template refuses it. The last words of an answer that is begun must stand nowhere else."""
    begun = talk[-1] in "AH"
    text = render(ask(talk, words, thought), not begun, think)
    if not begun or text is None:
        return text
    last = words[-1].strip()
    return text[: text.rindex(last) + len(last)] if last in text else None


def mark(render: Render, talk: str, think: bool | None) -> Marked | Both | None:
    """A conversation of marks, as the template writes it. None: refused. `Both`: why nothing can be read off it."""
    words, thought = [_word("w", number) for number in range(len(talk))], lambda number: _word("t", number)
    text = written(render, talk, words, thought, think)
    if text is None:
        return None
    before, between, at = [], [], 0
    for number, letter in enumerate(talk):
        spoken, thinking = words[number] if letter != "E" else "", thought(number)
        if spoken and text.count(spoken) != 1:
            return Both("the words of a turn do not stand there just once", "某条消息的文字没有恰好出现一次")
        here = text.find(spoken, at) if spoken else at
        if here < 0:
            return Both("the turns stand in another order", "消息的顺序变了")
        opened = text.find(thinking, at, here) if letter == "H" else -1
        if letter == "H" and text.count(thinking) != (opened >= 0):
            return Both("a thought stands elsewhere than before its answer", "思考不在它的回答之前")
        before.append(text[at : opened if opened >= 0 else here])
        between.append(text[opened + len(thinking) : here] if opened >= 0 else None)
        at = here + len(spoken)
    return Marked(tuple(before), tuple(between), text[at:] if talk[-1] not in "AH" else None)


def _word(letter: str, number: int) -> str:
    """A word that no template writes by itself, and that no other one holds."""
    return f"Zq{letter}{number}x"


# ── Whether words are written as they are ────────────────────────────────────────────────────────────────────────────

PAD_LEFT, PAD_RIGHT = "\n ", " \n"
TRIMMED_LEFT = {"\n ": None, " ": "lines", "": "space"}
TRIMMED_RIGHT = {" \n": None, " ": "lines", "": "space"}
"""What is left of a pad, and what was then taken away: line feeds only, or all white space."""


def trimmed(render: Render, talk: str, letter: str, think: bool | None) -> tuple[str | None, str | None] | None:
    """What the template takes away at the beginning and the end of what `letter` says in `talk` (T: of what is
    thought). None: it does something else with it."""

    def asked(left: str, right: str) -> str | None:
        words = [f"{left}{_word('w', number)}{right}" if turn == letter else _word("w", number)
                 for number, turn in enumerate(talk)]
        return written(render, talk, words, lambda number: f"{left}Zqt{right}" if letter == "T" else "Zqt", think)

    text, begun = asked(PAD_LEFT, PAD_RIGHT), talk[-1] == letter != "U"
    for left, from_left in TRIMMED_LEFT.items():
        for right, from_right in TRIMMED_RIGHT.items():
            if text is not None and _padded(asked("", ""), talk, letter, left, "" if begun else right) == text:
                return from_left, from_right
    return None


def _padded(text: str | None, talk: str, letter: str, left: str, right: str) -> str | None:
    """`text` with something around every word that `letter` says."""
    words = ["Zqt"] if letter == "T" else [_word("w", number) for number, turn in enumerate(talk) if turn == letter]
    for word in words:
        text = text and text.replace(word, f"{left}{word}{right}")
    return text


# ── What the proof says in them ──────────────────────────────────────────────────────────────────────────────────────

WORDS = ("Hi", "你好，今天天气怎么样？", "🙂 naïve café — 3.14159 × 2", 'for (i = 0; i < 9; i++) { s["a"] += `${i}`; }',
         "{{ .Content }} {% raw %} <b>&amp;</b> \\n \"\"\"", "1\n\n2\n3", "Zürich, 12345", "I see <|not a token|> here")
SPACED = ("  leading", "trailing \n", "\n\n both\t\n", "\u3000全角\u3000", "\u00a0 no break \u2003")
EMBEDDED = "<think>\nso be it\n</think>\n\nYes."
"""An answer that holds its thought in its text."""
