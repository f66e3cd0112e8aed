"""Putting a Go template together from constant texts.

Two things are kept in mind. A Modelfile has no escapes: its reader drops letters that Go does not call printable and
ends at three quotation marks, so such text is written as Go strings (`{{"\\u3000"}}`). And Ollama finds the words
around a thought by looking at the block that writes `.Thinking` (thinking/template.go), so that block opens and closes
with them and nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from truetune.export.ollama.gotemplate import quoted

FEATURES: Mapping[str, str] = {"off": "$off", "thought": ".Thinking", "last": "eq $i $end"}
"""What a text may depend on, and how Go asks for it: thinking is switched off, the answer has a thought, it is the
last message."""

REFUSE = '{{slice "not trained" 99}}'
"""Go fails here, and Ollama answers with its words."""


class Piece(NamedTuple):
    """What stands before the words of a turn: text, then (where a thought is written) the thought and `between`."""

    before: str
    between: str | None = None


class Case(NamedTuple):
    """A piece, and when it is the one: values of features."""

    when: Mapping[str, bool]
    piece: Piece


Trims = Mapping[tuple[str, bool], tuple[str | None, str | None]]
"""By role (`thinker`: an assistant with a thought; `thought`: that) and whether it is the last message: what is taken
away at the beginning and the end of its words ("space", "lines" or nothing)."""


def emit(table: Mapping[tuple[str, str], Sequence[Case]], trims: Trims, switch: bool | None,
         unheard: Sequence[str] = ()) -> str:
    """The Go template.

    Args:
        table: who spoke before ("" at the beginning) and who speaks ("end": the model is asked) to what stands between.
        switch: whether thinking can be switched off (None: asking for that is refused). unheard: what is refused of an
            answer, as Go asks for it.
    """
    roles = {"system": "system", "empty": "system", "user": "user", "assistant": "assistant"}
    thought = _shown(trims.get(("thought", True)) or trims.get(("thought", False), _AS_IT_IS), ".Thinking")
    blocks = []
    for kind, role in roles.items():
        befores = {before: cases for (before, now), cases in table.items() if now == kind}
        if befores:
            words = "" if kind == "empty" else _words(role, trims)
            blocks.append(f'if eq $kind "{kind}"}}}}{_by_speaker(befores, thought)}{words}{{{{')
    ends = {before: cases for (before, now), cases in table.items() if now == "end"}
    off = "$off := and $.IsThinkSet (not $.Think)"
    head = "" if switch is False else f"{{{{{off}\n}}}}" + (f"{{{{if $off}}}}{REFUSE}{{{{end\n}}}}" * (switch is None))
    return (f'{_helpers(trims)}{head}{{{{$before := ""}}}}{{{{$end := 0}}}}{{{{range $i, $m := .Messages}}}}'
            "{{$end = $i}}{{end\n}}{{range $i, $m := .Messages}}{{$kind := .Role}}"
            '{{if and (eq $kind "system") (not .Content)}}{{$kind = "empty"}}{{end\n}}'
            + "".join(f'{{{{if and (eq $kind "assistant") ({test})}}}}{REFUSE}{{{{end\n}}}}' for test in unheard)
            + "{{" + "\nelse ".join(blocks) + f"\nelse}}}}{REFUSE}{{{{end}}}}{{{{$before = $kind}}}}{{{{end\n}}}}"
            f'{{{{if not (eq $before "assistant")}}}}{_by_speaker(ends, thought)}{{{{end}}}}')


def _by_speaker(befores: Mapping[str, Sequence[Case]], thought: str) -> str:
    """One text after another speaker than another; those who lead to the same are asked for together."""
    same: dict[str, list[str]] = {}
    for before, cases in befores.items():
        same.setdefault(_by_case(cases, thought), []).append(f'"{before}"')
    tests = "else ".join(f"if eq $before {' '.join(speakers)}\n}}}}{text}{{{{" for text, speakers in same.items())
    return f"{{{{{tests}else}}}}{REFUSE}{{{{end\n}}}}"


def _by_case(cases: Sequence[Case], thought: str) -> str:
    if len(cases) == 1:
        return _piece(cases[0].piece, thought)
    feature = next(name for name in FEATURES if any(name in case.when for case in cases))
    yes, no = ([Case({name: value for name, value in case.when.items() if name != feature}, case.piece)
                for case in cases if case.when.get(feature, wanted) == wanted] for wanted in (True, False))
    if not yes or not no:
        return _by_case(yes or no, thought)
    return _either(FEATURES[feature], _by_case(yes, thought), _by_case(no, thought))


def _piece(piece: Piece, thought: str) -> str:
    if piece.between is None:
        return text_of(piece.before)
    opened = re.search(r"(?:<[^<>]*>|\S+)\s*\Z", piece.before)
    at = opened.start() if opened else len(piece.before)
    return (f"{text_of(piece.before[:at])}{{{{if .Thinking}}}}{text_of(piece.before[at:])}{thought}"
            f"{text_of(piece.between)}{{{{end}}}}")


_UNSAFE = re.compile(r"\{|\"{2,}")
"""A brace may come to stand before those of an action."""


def text_of(text: str) -> str:
    """Constant text as Go and a Modelfile both read it."""
    unsafe = {at for found in _UNSAFE.finditer(text) for at in range(*found.span())}
    unsafe |= {at for at, letter in enumerate(text) if letter not in "\n\t" and not printable(letter)}
    written, at = "", 0
    while at < len(text):
        end = at
        while end < len(text) and (end in unsafe) == (at in unsafe):
            end += 1
        written += f"{{{{{quoted(text[at:end])}}}}}" if at in unsafe else text[at:end]
        at = end
    return written


def printable(letter: str) -> bool:
    """Whether Go's `strconv.IsPrint` says so: letters, marks, numbers, punctuation, symbols, and the ASCII space."""
    return letter == " " or unicodedata.category(letter)[0] in "LMNPS"


# ── Words without the white space around them ────────────────────────────────────────────────────────────────────────

_WHITE = "".join(letter for letter in map(chr, range(0x3001)) if letter.isspace())
"""What Python (and so Jinja's `trim`) takes away."""
_SETS = {"space": _WHITE, "lines": "\n"}


def _words(role: str, trims: Trims) -> str:
    """`.Content`, as this role's words are written; an answer's may depend on where it stands and on its thought."""
    if role != "assistant":
        return _shown(trims.get((role, False), _AS_IT_IS))
    plain, thoughtful = (_either("eq $i $end", *(_shown(trims.get((kind, last), _AS_IT_IS)) for last in (True, False)))
                         for kind in ("assistant", "thinker"))
    return _either(".Thinking", thoughtful, plain)


def _either(test: str, yes: str, no: str) -> str:
    return yes if yes == no else f"{{{{if {test}}}}}{yes}{{{{else}}}}{no}{{{{end}}}}"


_AS_IT_IS = (None, None)


def _shown(trim: tuple[str | None, str | None], what: str = ".Content") -> str:
    name = _helper(*trim)
    return f'{{{{template "{name}" {what}}}}}' if name else f"{{{{{what}}}}}"


def _helper(left: str | None, right: str | None) -> str:
    return " ".join(filter(None, (left and f"{left} left", right and f"{right} right")))


def _helpers(trims: Trims) -> str:
    """Templates that write their text without white space at its ends. Go's have no function for it; they can compare
    and cut, and call themselves: `slice . (len (slice . 1))` is the last byte."""
    parts: dict[str, str] = {}
    for left, right in trims.values():
        if left or right:
            then = f'{{{{template "{_helper(None, right)}" .}}}}' if left and right else "{{.}}"
            parts[_helper(left, right)] = _cutting(left, _helper(left, right), then) if left else ""
            if right:
                parts[_helper(None, right)] = _cutting(right, _helper(None, right), "{{.}}", from_end=True)
    return "".join(f'{{{{define "{name}"}}}}{body}{{{{end\n}}}}' for name, body in sorted(parts.items()))


def _cutting(of: str, name: str, then: str, from_end: bool = False) -> str:
    """Cut one letter of a set and begin anew; without one, write the rest. Letters are 1 to 3 bytes."""
    tests = []
    for size in (1, 2, 3):
        letters = " ".join(quoted(letter) for letter in _SETS[of] if len(letter.encode()) == size)
        if letters:
            part, rest = (f"slice . (len (slice . {size}))", f"slice . 0 (len (slice . {size}))") if from_end else \
                (f"slice . 0 {size}", f"slice . {size}")
            again = f'{{{{template "{name}" ({rest})}}}}'
            tests.append(f"if and (ge (len .) {size}) (eq ({part}) {letters})\n}}}}{again}{{{{")
    return "{{" + "else ".join(tests) + f"else}}}}{then}{{{{end}}}}"
