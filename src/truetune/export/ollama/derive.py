"""From a trained chat template to a Go template that writes the same, found by asking and then proven.

Nobody's table says what a family looks like. The trained template writes conversations of marks (`probes`), and what
stands between two marks is a constant text that depends on who spoke before, who speaks now, and on little else:
whether it is the last message, whether it has a thought, whether thinking is switched off. From these texts a Go
template is put together (`emit`), and then it has to write other conversations, with words of all kinds, exactly as
the trained template does. What cannot be made equal stays out: the Go template then fails on purpose, so that Ollama
answers with an error rather than with a model that was asked in a way it was not trained for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, cycle, islice
from typing import Any, NamedTuple

from truetune.export.ollama.emit import FEATURES, Case, Piece, Trims, emit
from truetune.export.ollama.gotemplate import GoError, GoTemplate, parse
from truetune.export.ollama.ollama import values_of
from truetune.export.ollama.probes import (
    EMBEDDED,
    GROUPS,
    KINDS,
    SPACED,
    WORDS,
    Group,
    Render,
    ask,
    mark,
    trimmed,
    written,
)
from truetune.findings import Both, Problem, problem

_SHOWN = 40
"""Characters of a difference that are told."""


class Derived(NamedTuple):
    """A Go template and what it does not do. thinks: the values of Ollama's `think` with which it is proven."""

    template: GoTemplate
    left_out: tuple[Both, ...]
    thinks: frozenset[bool | None]


class _Plan(NamedTuple):
    """What a template is to know. on: that a thought is asked for is the same as saying nothing, so the words around
    thoughts may be shown to Ollama. off: it can be switched off (None: asking for that is refused)."""

    groups: tuple[Group, ...]
    on: bool
    off: bool | None

    @property
    def talks(self) -> list[str]:
        return [talk for group in self.groups for talk in group.talks]

    @property
    def states(self) -> tuple[bool | None, ...]:
        return (None, *((True,) * self.on), *((False,) * (self.off is not None)))


class _Unequal(Exception):
    """Something that no Go template of ours writes."""

    def __init__(self, reason: Both):
        super().__init__(str(reason))
        self.reason = reason


def derive(render: Render, bos: str, opening: bool, family: str = "") -> Derived:
    """The Go template that writes what `render` writes.

    Args:
        bos: the beginning-of-text token ("": none). opening: the runner puts it before every text, so that the
            template must not. family: the model's architecture.

    Raises:
        Problem: not even plain chats can be written; the reason is told.
    """
    if opening and bos:
        render = _without(bos, render)
    same = {think: _switches(render, think) for think in (True, False)}
    plan, left_out = _Plan((), same[True], not same[False]), []
    for group in GROUPS:
        wider, reason = _wider(render, plan, group, family)
        if wider is None and not group.what:
            raise _impossible(reason)
        if wider and wider.off is None and plan.off is not None:
            left_out.append(Both(f"`think: false` (switching thinking off): {reason}",
                                 f"think: false（关闭思考）：{reason.zh}"))
        if wider is None and group.what:
            left_out.append(Both(f"{group.what}: {reason}", f"{group.what.zh}：{reason.zh}"))
        plan = wider or plan
    try:
        template = _proven(render, plan, plan.talks, family)
    except _Unequal as unequal:
        raise _impossible(unequal.reason) from None
    thinks = {None, *((False,) * (plan.off is not None)), *((True,) * all(template.thought_marks()))}
    return Derived(template, (*left_out, *_loosely(render, template, plan, family)), frozenset(thinks))


def _wider(render: Render, plan: _Plan, group: Group, family: str) -> tuple[_Plan | None, Both]:
    """The plan with one more group (if need be without the switch), or None; and what was in the way."""
    group, reason = group.known_to(plan.talks), Both("", "")
    wider = plan._replace(groups=(*plan.groups, group))
    for attempt in (wider, *([wider._replace(off=None)] if plan.off and not group.what else [])):
        try:
            _proven(render, attempt, group.talks, family, times=1)
            return attempt, reason
        except _Unequal as unequal:
            reason = unequal.reason
    return None, reason


def _impossible(reason: Both) -> Problem:
    return problem("no-ollama-template", Both(
        f"the trained chat template cannot be written for Ollama: {reason}.",
        f"训练所用的对话模板无法写成 Ollama 的模板：{reason.zh}。"), option="export_format",
        fix=Both("Export gguf: llama.cpp renders the trained template itself.",
                 "请导出 gguf：llama.cpp 会直接使用训练时的模板。"))


def _without(bos: str, render: Render) -> Render:
    """`render`, without the token that the runner writes by itself."""

    def without(messages: Sequence[Mapping[str, Any]], generation: bool, think: bool | None) -> str | None:
        text = render(messages, generation, think)
        return text and text.removeprefix(bos)

    return without


def _switches(render: Render, think: bool) -> bool:
    """Whether saying so changes nothing."""
    return all(written(render, talk, words, str, think) == written(render, talk, words, str, None)
               for talk, words in _spoken([talk for group in GROUPS for talk in group.talks], WORDS, times=1))


def _proven(render: Render, plan: _Plan, talks: Sequence[str], family: str, times: int = 2) -> GoTemplate:
    """The template for `plan`, proven on `talks`, each said in so many ways.

    Raises:
        _Unequal: it cannot be, or does not write the same; where first.
    """
    table = _table(render, plan)
    if not plan.on and any(case.piece.between is not None for cases in table.values() for case in cases):
        raise _Unequal(Both("Ollama would then also offer `think: true`, which this template writes otherwise than "
                            "it was trained", "否则 Ollama 会提供 think: true，而模板在此时的写法与训练时不同"))
    trims = _trims(render, plan)
    template = parse(emit(table, trims, plan.off, _unheard(plan)))
    for think in plan.states:
        for talk, words in _spoken(talks, WORDS, times):
            difference = _difference(render, template, talk, words, think, family)
            if difference:
                raise _Unequal(difference)
    return template


def _table(render: Render, plan: _Plan) -> dict[tuple[str, str], list[Case]]:
    """What stands between two speakers, by what it depends on."""
    seen: dict[tuple[str, str], list[Case]] = {}
    states = (None, False) if plan.off else (None,)
    for talk in plan.talks:
        for think in states:
            marked = mark(render, talk, think)
            if isinstance(marked, Both):
                raise _Unequal(marked)
            if marked is None:
                raise _Unequal(Both("the trained template refuses it", "训练所用的模板拒绝这种输入"))
            speakers = ["", *(KINDS[letter] for letter in talk)]
            for number, letter in enumerate(talk):
                when = {"off": think is False, "thought": letter == "H", "last": number == len(talk) - 1}
                piece = Piece(marked.before[number], marked.between[number])
                seen.setdefault((speakers[number], speakers[number + 1]), []).append(Case(when, piece))
            if marked.ending is not None:
                seen.setdefault((speakers[-1], "end"), []).append(Case({"off": think is False}, Piece(marked.ending)))
    return {speakers: _simplest(cases) for speakers, cases in seen.items()}


def _simplest(cases: Sequence[Case]) -> list[Case]:
    """The same with the fewest features.

    Raises:
        _Unequal: no features explain why one text stands here and another there.
    """
    subsets = chain.from_iterable(combinations(FEATURES, size) for size in range(len(FEATURES) + 1))
    for features in subsets:
        known: dict[tuple[bool | None, ...], Piece] = {}
        if all(known.setdefault(tuple(case.when.get(name) for name in features), case.piece) == case.piece
               for case in cases):
            return [Case({name: value for name, value in zip(features, values, strict=True) if value is not None},
                         piece) for values, piece in known.items()]
    texts = list(dict.fromkeys(case.piece.before for case in cases))[:2]
    one, other = texts if len(texts) == 2 else (texts[0], texts[0])
    raise _Unequal(Both(f"at the same place it writes {one[-_SHOWN:]!r} and {other[-_SHOWN:]!r}",
                        f"同一位置有时写 {one[-_SHOWN:]!r}，有时写 {other[-_SHOWN:]!r}"))


def _unheard(plan: _Plan) -> list[str]:
    """What is left out of answers, as Go asks for it: where it stands there, the template must fail."""
    known = {
        "eq $i $end": any(talk.endswith("A") for talk in plan.talks),
        "and .Thinking (eq $i $end)": any(talk.endswith("H") for talk in plan.talks),
        "and .Thinking (not (eq $i $end))": any("H" in talk[:-1] for talk in plan.talks),
    }
    return [test for test, is_known in known.items() if not is_known]


def _trims(render: Render, plan: _Plan) -> Trims:
    """What the template takes away around words; where that is not seen, nothing is taken away (`_loosely` tells)."""
    places = {("user", False): ("UAU", "U"), ("assistant", False): ("UAU", "A"), ("system", False): ("SU", "S"),
              ("assistant", True): ("UA", "A"), ("thinker", False): ("UHU", "H"), ("thinker", True): ("UH", "H"),
              ("thought", False): ("UHU", "T"), ("thought", True): ("UH", "T")}
    found = {place: trimmed(render, talk, letter, None) for place, (talk, letter) in places.items()
             if talk in plan.talks}
    cut = {("assistant", True), ("thinker", True)}  # behind words that the model goes on with there is nothing to see
    return {place: (trim[0], None if place in cut else trim[1]) for place, trim in found.items() if trim}


def _spoken(talks: Sequence[str], pool: Sequence[str], times: int = 2) -> Iterator[tuple[str, list[str]]]:
    """Every conversation, several times, with other words each time. What is begun ends with a word of its own, behind
    which the text can be cut."""
    for number, talk in enumerate(talks):
        for start in range(0, len(pool), -(-len(pool) // times)):
            words = list(islice(cycle(pool), start + number, start + number + len(talk)))
            if talk[-1] in "AH":
                words[-1] += " Zqend"
            yield talk, words


def _difference(render: Render, template: GoTemplate, talk: str, words: Sequence[str], think: bool | None,
                family: str) -> Both | None:
    """Where the two begin to differ."""

    def thought(number: int) -> str:
        return f"Thought {number}: 想一想\nso {words[number][:9]}"

    trained = written(render, talk, words, thought, think)
    try:
        ours = template.render(values_of(ask(talk, words, thought), think=think, family=family))
    except GoError as error:
        return None if trained is None else Both(f"Go fails: {error}", f"Go 出错：{error}")
    if trained == ours:
        return None
    trained = trained or ""
    at = next((place for place, (one, other) in enumerate(zip(trained, ours, strict=False)) if one != other),
              min(len(trained), len(ours)))
    was, is_ = trained[at : at + _SHOWN], ours[at : at + _SHOWN]
    return Both(f"at character {at + 1} of {talk} {was!r} was trained, and Go writes {is_!r}",
                f"{talk} 的第 {at + 1} 个字符处，训练时是 {was!r}，Go 写的是 {is_!r}")


def _loosely(render: Render, template: GoTemplate, plan: _Plan, family: str) -> list[Both]:
    """What is served all the same, but not letter by letter as trained; nothing in a Go template can refuse it."""
    told = []
    if any(_difference(render, template, talk, words, None, family) for talk, words in _spoken(plan.talks, SPACED)):
        told.append(Both("white space at the beginning or end of a message, which the trained template takes away in "
                         "a way that Go's templates cannot", "消息首尾的空白：训练模板对它的处理，Go 模板写不出来"))
    if _difference(render, template, "UAU", ("Hi", EMBEDDED, "Why?"), None, family):
        told.append(Both("earlier answers that hold their thought in their text: send it in the field `thinking`, or "
                         "not at all", "把思考写在正文里的历史回答：请放进 thinking 字段，或不发送"))
    return told
