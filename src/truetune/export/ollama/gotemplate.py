"""The part of Go's text/template that Ollama templates of ours are written in: parsed and run, strictly.

Ollama renders its templates with Go (https://pkg.go.dev/text/template). To prove without it that a template writes what
was trained, the same must be said here. Whatever this module does not know is an error, never a guess: trim markers
(`{{-`), pipes, `with`, `block`, comments and functions beside those in `_FUNCTIONS` are refused. The tests run the same
templates through the real Go.

Text is UTF-8 bytes throughout, as in Go: `len` and `slice` count bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

_MOST_CHARACTERS, _DEEPEST = 1 << 20, 200
"""Of a template's source, and of blocks and brackets in each other."""
_MOST_STEPS, _MOST_BYTES, _MOST_CALLS = 1_000_000, 1 << 26, 100_000
"""Of one rendering. Go itself stops at 100,000 templates that call each other, so that is the same here."""


class GoError(ValueError):
    """What Go refuses, or what this interpreter does not know."""


class Message(NamedTuple):
    """A message as templates see it (`templateMessage` in Ollama's template/template.go); the fields that we use."""

    Role: bytes
    Content: bytes
    Thinking: bytes = b""


# ── Expressions ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Const(NamedTuple):
    value: bytes | int | bool


class Path(NamedTuple):
    """`.Messages`, `$m.Role`, `$`, `.`. start: the variable's name, or "" for what stands at the dot."""

    start: str
    fields: tuple[str, ...]


class Call(NamedTuple):
    name: str
    arguments: tuple[Expression, ...]


Expression = Const | Path | Call


# ── Nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Text(NamedTuple):
    text: bytes


class Show(NamedTuple):
    """`{{ .Content }}`."""

    value: Expression


class Assign(NamedTuple):
    """`{{ $name := value }}`; new: it is declared here."""

    name: str
    value: Expression
    new: bool


class If(NamedTuple):
    """`{{ if }} … {{ else }} … {{ end }}`; an `else if` is an If alone in `otherwise`."""

    test: Expression
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


class Range(NamedTuple):
    """`{{ range $number, $item := value }} … {{ end }}`; either variable may be absent."""

    number: str | None
    item: str | None
    value: Expression
    body: tuple[Node, ...]


class Use(NamedTuple):
    """`{{ template "name" value }}`."""

    name: str
    value: Expression


Node = Text | Show | Assign | If | Range | Use


@dataclass(frozen=True)
class GoTemplate:
    """A parsed template. parts: those that `define` names."""

    source: str
    nodes: tuple[Node, ...]
    parts: Mapping[str, tuple[Node, ...]]

    def render(self, values: Mapping[str, Any]) -> str:
        """What it writes.

        Args:
            values: what stands at the dot: text as `bytes`, numbers, booleans, lists of `Message`.

        Raises:
            GoError: Go would fail, or a limit is passed.
        """
        return _Rendering(self).run(values)

    def names(self) -> set[str]:
        """Every field and variable that the template speaks of, in small letters (Ollama's `Vars`): what the model can
        do is read off them (`tools`)."""
        found: set[str] = set()
        for nodes in (self.nodes, *self.parts.values()):
            for _, expression in _expressions(nodes):
                found |= {name.lower() for name in _named(expression)}
        return found

    def thought_marks(self) -> tuple[str, str]:
        """The words around a thought, as Ollama finds them (`InferTags` in thinking/template.go): the first and last
        text of the block that writes `.Thinking` within a range over the messages. ("", ""): the model cannot think."""
        return _thought_marks(self.nodes, within=False) or ("", "")


def parse(source: str) -> GoTemplate:
    """Raises:
    GoError: it is not Go's, or not in the part that is known here.
    """
    if len(source) > _MOST_CHARACTERS:
        raise GoError(f"the template is longer than {_MOST_CHARACTERS:,} characters")
    parser = _Parser(source)
    nodes, ending = parser.block(0)
    if ending:
        raise GoError(f"unexpected {{{{{ending[0]}}}}}")
    return GoTemplate(source, nodes, parser.parts)


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_TOKEN = re.compile(r"""\s*(?:
    (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<number>-?\d+)(?![\w.])
  | (?P<path>\$\w*(?:\.[A-Za-z_]\w*)*|(?:\.[A-Za-z_]\w*)+|\.)
  | (?P<word>[A-Za-z_]\w*)
  | (?P<sign>:=|=|,|\(|\))
)""", re.VERBOSE)
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_LETTERS = {"a": b"\a", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v", "\\": b"\\",
            '"': b'"'}
_ENDS = ("end", "else")


class _Parser:
    """Walks through a source once. parts: templates that were defined on the way."""

    def __init__(self, source: str):
        self._pieces = self._split(source)
        self.parts: dict[str, tuple[Node, ...]] = {}

    @staticmethod
    def _split(source: str) -> Iterator[Text | list[str]]:
        """Text, and the tokens of each action."""
        at = 0
        while (opened := source.find("{{", at)) >= 0:
            if opened > at:
                yield Text(source[at:opened].encode())
            tokens, at = [], opened + 2
            while not (closed := re.compile(r"\s*\}\}").match(source, at)):
                token = _TOKEN.match(source, at)
                if not token:
                    raise GoError(f"cannot read {source[at:at + 20]!r}")
                tokens.append(token[0].strip())
                at = token.end()
            at = closed.end()
            yield tokens
        if at < len(source):
            yield Text(source[at:].encode())

    def block(self, depth: int) -> tuple[tuple[Node, ...], list[str] | None]:
        """Nodes up to an `end` or `else`, and that one's tokens (None: the source ends)."""
        if depth > _DEEPEST:
            raise GoError("blocks stand too deep in each other")
        nodes: list[Node] = []
        for piece in self._pieces:
            if isinstance(piece, Text):
                nodes.append(piece)
            elif piece[:1] and piece[0] in _ENDS:
                return tuple(nodes), piece
            elif node := self._action(piece, depth):
                nodes.append(node)
        return tuple(nodes), None

    def _action(self, tokens: list[str], depth: int) -> Node | None:
        match tokens:
            case []:
                raise GoError("an empty action")
            case ["define", name]:
                self.parts[_string(name).decode()] = self._closed(depth)
                return None
            case ["template", name, *value]:
                return Use(_string(name).decode(), _expression(value))
            case ["if", *test]:
                return self._if(test, depth)
            case ["range", index, ",", item, ":=", *value]:
                return Range(_variable(index), _variable(item), _expression(value), self._closed(depth))
            case ["range", *value] if ":=" not in value:
                return Range(None, None, _expression(value), self._closed(depth))
            case [name, (":=" | "=") as sign, *value]:
                return Assign(_variable(name), _expression(value), sign == ":=")
        return Show(_expression(tokens))

    def _closed(self, depth: int) -> tuple[Node, ...]:
        nodes, ending = self.block(depth + 1)
        if ending != ["end"]:
            raise GoError("a block is not closed by {{end}}")
        return nodes

    def _if(self, test: list[str], depth: int) -> If:
        then, ending = self.block(depth + 1)
        match ending:
            case ["end"]:
                return If(_expression(test), then)
            case ["else"]:
                return If(_expression(test), then, self._closed(depth))
            case ["else", "if", *further]:
                return If(_expression(test), then, (self._if(further, depth + 1),))
        raise GoError("an if is not closed by {{end}}")


def _expression(tokens: Sequence[str]) -> Expression:
    """A function with its arguments, or one value."""
    expression, rest = _command(list(tokens), 0)
    if rest:
        raise GoError(f"unexpected {rest[0]}")
    return expression


def _command(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    if not tokens:
        raise GoError("a value is missing")
    if tokens[0] not in _FUNCTIONS:
        return _operand(tokens, depth)
    name, rest, arguments = tokens[0], tokens[1:], []
    while rest and rest[0] != ")":
        argument, rest = _operand(rest, depth)
        arguments.append(argument)
    return Call(name, tuple(arguments)), rest


def _operand(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    if depth > _DEEPEST:
        raise GoError("brackets stand too deep in each other")
    first, rest = tokens[0], tokens[1:]
    if first == "(":
        inner, rest = _command(rest, depth + 1)
        if rest[:1] != [")"]:
            raise GoError("a bracket is not closed")
        return inner, rest[1:]
    if first.startswith('"'):
        return Const(_string(first)), rest
    if first in ("true", "false"):
        return Const(first == "true"), rest
    if re.fullmatch(r"-?\d+", first):
        return Const(int(first)), rest
    if first == "." or first[0] in ".$":
        start, *fields = first.split(".")
        return Path(start, tuple(filter(None, fields))), rest
    raise GoError(f"unknown here: {first}")


def _variable(token: str) -> str:
    if not re.fullmatch(r"\$\w+", token):
        raise GoError(f"{token} is no variable")
    return token


def _string(token: str) -> bytes:
    """What a Go string in double quotes stands for."""
    if not (len(token) > 1 and token.startswith('"') and token.endswith('"')):
        raise GoError(f"{token} is no string")
    written, at = b"", 0
    inner = token[1:-1]
    for escape in _ESCAPE.finditer(inner):
        letter, byte, short, long, other = escape.groups()
        if other is not None:
            raise GoError(f"unknown escape \\{other}")
        meant = _LETTERS[letter] if letter else bytes.fromhex(byte) if byte else chr(int(short or long, 16)).encode()
        written += inner[at : escape.start()].encode() + meant
        at = escape.end()
    return written + inner[at:].encode()


def quoted(text: str) -> str:
    """`text` as a Go string that holds printable ASCII only and no quotation mark inside."""
    return '"' + "".join(_QUOTES.get(letter) or (letter if " " <= letter <= "~" else _escaped(letter))
                         for letter in text) + '"'


_QUOTES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", '"': "\\u0022"}


def _escaped(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


# ── Running ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Scope:
    """Variables, and those of the blocks around."""

    def __init__(self, variables: dict[str, Any], outer: _Scope | None = None):
        self.variables, self.outer = variables, outer

    def holding(self, name: str) -> dict[str, Any]:
        scope: _Scope | None = self
        while scope:
            if name in scope.variables:
                return scope.variables
            scope = scope.outer
        raise GoError(f"there is no variable {name}")


_Task = Iterator["_Block"]


class _Block(NamedTuple):
    """Nodes that are to be run next. called: by `template`."""

    nodes: tuple[Node, ...]
    dot: Any
    scope: _Scope
    called: bool = False


class _Rendering:
    """One run. Blocks wait on a list, not on Python's stack, so that a template that calls itself meets Go's limit."""

    def __init__(self, template: GoTemplate):
        self._template = template
        self._written: list[bytes] = []
        self._size = self._steps = 0

    def run(self, values: Mapping[str, Any]) -> str:
        tasks = [(self._block(_Block(self._template.nodes, values, _Scope({"$": values}))), False)]
        calls = 0
        while tasks:
            block = next(tasks[-1][0], None)
            if block is None:
                calls -= tasks.pop()[1]
                continue
            calls += block.called
            if calls > _MOST_CALLS:
                raise GoError(f"templates call each other more than {_MOST_CALLS:,} deep")
            tasks.append((self._block(block), block.called))
        try:
            return b"".join(self._written).decode()
        except UnicodeDecodeError:
            raise GoError("the template cuts a character in two") from None

    def _block(self, block: _Block) -> _Task:
        dot, scope = block.dot, block.scope
        for node in block.nodes:
            self._step()
            match node:
                case Text(text):
                    self._write(text)
                case Show(value):
                    self._write(_shown(_value(value, dot, scope)))
                case Assign(name, value, new):
                    (scope.variables if new else scope.holding(name))[name] = _value(value, dot, scope)
                case If(test, then, otherwise):
                    yield _Block(then if _truth(_value(test, dot, scope)) else otherwise, dot, _Scope({}, scope))
                case Use(name, value):
                    if name not in self._template.parts:
                        raise GoError(f"there is no template {name}")
                    given = _value(value, dot, scope)
                    yield _Block(self._template.parts[name], given, _Scope({"$": given}), called=True)
                case Range():
                    yield from self._range(node, dot, scope)

    def _range(self, node: Range, dot: Any, scope: _Scope) -> _Task:
        items = _value(node.value, dot, scope)
        if not isinstance(items, list):
            raise GoError("range over something that is no list")
        for index, item in enumerate(items):
            self._step()
            named = {node.number: index, node.item: item}
            yield _Block(node.body, item, _Scope({name: value for name, value in named.items() if name}, scope))

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise GoError(f"the template takes more than {_MOST_STEPS:,} steps")

    def _write(self, text: bytes) -> None:
        self._written.append(text)
        self._size += len(text)
        if self._size > _MOST_BYTES:
            raise GoError(f"the template writes more than {_MOST_BYTES:,} bytes")


def _value(expression: Expression, dot: Any, scope: _Scope) -> Any:
    match expression:
        case Const(value):
            return value
        case Path(start, fields):
            value = scope.holding(start)[start] if start else dot
            for field in fields:
                value = _field(value, field)
            return value
        case Call("and" | "or" as name, arguments):
            value = None
            for argument in arguments:
                value = _value(argument, dot, scope)
                if _truth(value) == (name == "or"):
                    break
            return value
        case Call(name, arguments):
            return _FUNCTIONS[name](*(_value(argument, dot, scope) for argument in arguments))


def _field(value: Any, field: str) -> Any:
    if isinstance(value, Message) and field in Message._fields:
        return value._asdict()[field]
    if isinstance(value, Mapping) and field in value:
        return value[field]
    raise GoError(f"there is no field {field}")


def _truth(value: Any) -> bool:
    """Go's: nothing, false, zero and what is empty are false."""
    return bool(value)


def _shown(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise GoError(f"only text is written here, not {value!r:.40}")
    return value


def _length(*arguments: Any) -> int:
    match arguments:
        case [bytes() | list() as value]:
            return len(value)
    return _wrong("len", arguments)


def _slice(*arguments: Any) -> bytes:
    match arguments:
        case [bytes() as text, int() as start]:
            end = len(text)
        case [bytes() as text, int() as start, int() as end]:
            pass
        case _:
            return _wrong("slice", arguments)
    if not 0 <= start <= end <= len(text):
        raise GoError(f"slice: index out of range: {start}:{end} of {len(text)}")
    return text[start:end]


def _index(*arguments: Any) -> Any:
    match arguments:
        case [list() as items, int() as number] if 0 <= number < len(items):
            return items[number]
    return _wrong("index", arguments)


def _equal(*arguments: Any) -> bool:
    first, *others = arguments
    if not others or any(type(other) is not type(first) for other in others):
        return _wrong("eq", arguments)
    return any(first == other for other in others)


def _ordered(name: str, holds: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    def compare(*arguments: Any) -> bool:
        match arguments:
            case [int() as one, int() as other]:
                return holds(one, other)
        return _wrong(name, arguments)

    return compare


def _not(*arguments: Any) -> bool:
    return not _truth(arguments[0]) if len(arguments) == 1 else _wrong("not", arguments)


def _wrong(name: str, arguments: Sequence[Any]) -> NoReturn:
    raise GoError(f"{name} cannot take {arguments!r:.80}")


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "and": _wrong, "or": _wrong, "not": _not, "len": _length, "slice": _slice, "index": _index, "eq": _equal,
    "lt": _ordered("lt", lambda one, other: one < other), "gt": _ordered("gt", lambda one, other: one > other),
    "ge": _ordered("ge", lambda one, other: one >= other),
}
"""`and` and `or` are in `_value`, since they leave the rest unread once they know."""


# ── What Ollama reads off a template ─────────────────────────────────────────────────────────────────────────────────


def _expressions(nodes: Sequence[Node]) -> Iterator[tuple[Node, Expression]]:
    for node in nodes:
        match node:
            case Show(value) | Assign(_, value, _) | Use(_, value):
                yield node, value
            case If(test, then, otherwise):
                yield node, test
                yield from _expressions((*then, *otherwise))
            case Range(_, _, value, body):
                yield node, value
                yield from _expressions(body)


def _named(expression: Expression) -> Iterator[str]:
    match expression:
        case Path(start, fields):
            yield from filter(None, (start, *fields))
        case Call(_, arguments):
            for argument in arguments:
                yield from _named(argument)


def _thought_marks(nodes: Sequence[Node], within: bool) -> tuple[str, str] | None:
    """The last block that writes a thought decides, as in Ollama. within: inside a range over the messages."""
    found = None
    for node in nodes:
        match node:
            case Show(value) | Use(_, value) if within and "Thinking" in set(_named(value)):
                first, last = nodes[0], nodes[-1]
                found = (first.text.decode().strip() if isinstance(first, Text) else "",
                         last.text.decode().strip() if isinstance(last, Text) else "")
            case If(_, then, otherwise):
                found = _thought_marks(otherwise, within) or _thought_marks(then, within) or found
            case Range(_, _, value, body):
                found = _thought_marks(body, within=within or "Messages" in set(_named(value))) or found
            case _:
                pass
    return found
