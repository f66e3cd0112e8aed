"""dataset_info.json written: entries added, changed, renamed and removed, all others left as somebody typed them.

Only the letters of the entry concerned are replaced, so the order, the spacing and the numbers of the rest stay. The
file is replaced as a whole (`files`), what it held before is kept beside it as dataset_info.json.bak, and two who write
at once wait for each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from truetune.data.sources import INFO, read_entries
from truetune.files import disk_refusal, write_text
from truetune.findings import WRONG_OPTIONS, Both, parser_says, problem, spoken

_NAME = re.compile(r"\w[\w.-]{0,79}")
"""Letters of any language, digits, `_ - .`: a name is one word in `dataset: a,b`, and becomes the name of a file."""


def check_name(name: str) -> str:
    """`name`, if a data set may be called so.

    Raises:
        Problem: it may not.
    """
    if _NAME.fullmatch(name) and not name.endswith("."):
        return name
    raise problem("bad-name", Both(f"{name!r:.100} cannot be the name of a data set." if name else
                                   "the data set needs a name.",
                                   f"{name!r:.100} 不能用作数据集的名字。" if name else "请给数据集起个名字。"),
                  fix=Both("Use letters, digits, - and _, at most 80, without spaces; begin with a letter or a digit.",
                           "请用字母、汉字、数字、- 和 _，不超过 80 个字符，不含空格，以文字或数字开头。"),
                  status=WRONG_OPTIONS)


def name_for(file: str) -> str:
    """A name that a data set may have, made of what its file is called."""
    stem = re.split(r"[/\\]", file)[-1].split(".")[0]
    return re.sub(r"[^\w-]+", "_", stem).strip("_-")[:60] or "my_data"


@dataclass(frozen=True)
class Registry:
    """The dataset_info.json of a folder."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / INFO

    def entries(self) -> Mapping[str, Any]:
        """Entries by name; none where there is no file yet.

        Raises:
            Problem: it cannot be read, or is no JSON object; with the line, if it has a slip.
        """
        return read_entries(self.path, str(self.path)) if self.path.is_file() else {}

    def text(self) -> str:
        """The file as it stands; empty where there is none."""
        return self.path.read_bytes().decode("utf-8-sig", "replace") if self.path.is_file() else ""

    def put(self, name: str, entry: Mapping[str, Any]) -> None:
        """Add an entry, or replace the one of that name.

        Raises:
            Problem: of the name, or the file cannot be read or written.
        """
        check_name(name)
        self._change(lambda text: _put(text, name, entry))

    def rename(self, name: str, new: str) -> None:
        """Give an entry another name.

        Raises:
            Problem: of the new name; there is no such entry, or one with that name already; or the file cannot be read
                or written.
        """
        self._change(lambda text: _renamed(text, self._known(name), self._free(check_name(new))))

    def remove(self, name: str) -> None:
        """Take an entry out; the data stay.

        Raises:
            Problem: there is no such entry, or the file cannot be read or written.
        """
        self._change(lambda text: _removed(text, self._known(name)))

    def replace_text(self, text: str) -> None:
        """Replace the whole file, for those who mend it by hand.

        Raises:
            Problem: `text` is no JSON object, with the line; or the file cannot be written.
        """
        value = parse_object(text, self.path.name)
        for name in value:
            check_name(name)
        with self._lock():
            self._write(text if text.endswith("\n") else f"{text}\n")

    def _known(self, name: str) -> str:
        if name in self.entries():
            return name
        raise problem("no-data-set", Both(f"there is no data set {name} any more.", f"数据集 {name} 已经不在了。"),
                      where=str(self.path), fix=Both("Look at the table again.", "请刷新表格再看。"))

    def _free(self, name: str) -> str:
        if name not in self.entries():
            return name
        raise problem("name-taken", Both(f"there is a data set {name} already.", f"已有数据集 {name}。"),
                      where=str(self.path), status=WRONG_OPTIONS, fix=Both("Choose another name.", "请换个名字。"))

    def _change(self, change: Callable[[str], str]) -> None:
        with self._lock():
            self.entries()  # what has a slip is not written over
            self._write(change(self.text() or "{}\n"))

    def _lock(self) -> FileLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritten(error) from None
        return FileLock(self.folder / f".{INFO}.lock")

    def _write(self, text: str) -> None:
        try:
            if self.path.is_file():
                write_text(self.path.with_name(f"{INFO}.bak"), self.text())
            write_text(self.path, text)
        except OSError as error:
            raise self._unwritten(error) from None

    def _unwritten(self, error: OSError) -> Exception:
        reason = disk_refusal(error, self.folder.parent) or error.strerror or str(error)
        return problem("not-written", Both(f"cannot be written: {spoken(reason, False)}.",
                                           f"无法写入：{spoken(reason, True)}。"), where=str(self.path))


def parse_object(text: str, where: str) -> dict[str, Any]:
    """JSON text that somebody typed, as an object.

    Raises:
        Problem: it is none; with the line of the slip.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        reason = parser_says(error.msg)
        raise problem("bad-json", Both(f"not valid JSON: {reason} (column {error.colno}).",
                                       f"不是合法的 JSON：{reason.zh}（第 {error.colno} 列）。"),
                      where=f"{where}:{error.lineno}", status=WRONG_OPTIONS) from None
    except RecursionError:
        raise problem("bad-json", Both("nested too deeply.", "嵌套太深。"), where=where,
                      status=WRONG_OPTIONS) from None
    if isinstance(value, dict):
        return value
    raise problem("bad-json", Both("it must be an object {…}.", "内容必须是一个对象 {…}。"), where=where,
                  status=WRONG_OPTIONS)


# -------------------------------------------------------------------------------------------------- the letters changed


class _Member(NamedTuple):
    """Where a key of the outermost object and its value stand in the text: [key, value), [value, end)."""

    name: str
    key: int
    key_end: int
    value: int
    end: int


_SPACE = re.compile(r"[ \t\n\r]*")


def _members(text: str) -> Iterator[_Member]:
    """The members of the object that `text` is; it was parsed before, so it has no slip."""
    decode = json.JSONDecoder().raw_decode
    at = _after_space(text, _after_space(text, 0) + 1)
    while text[at] != "}":
        name, key_end = decode(text, at)
        value = _after_space(text, _after_space(text, key_end) + 1)
        _, end = decode(text, value)
        yield _Member(name, at, key_end, value, end)
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _put(text: str, name: str, entry: Mapping[str, Any]) -> str:
    members = list(_members(text))
    line = "\r\n" if "\r\n" in text else "\n"
    indent = "  "
    if members:
        before = text[: members[0].key]
        indent = before[before.rfind("\n") + 1 :] if "\n" in before else indent
    written = json.dumps(entry, indent=2, ensure_ascii=False).replace("\n", f"{line}{indent}")
    known = [member for member in members if member.name == name]
    if known:
        return text[: known[-1].value] + written + text[known[-1].end :]
    written = f"{line}{indent}{json.dumps(name, ensure_ascii=False)}: {written}"
    if members:
        return f"{text[: members[-1].end]},{written}{text[members[-1].end :]}"
    return f"{{{written}{line}}}{line}"


def _renamed(text: str, name: str, new: str) -> str:
    for member in reversed(list(_members(text))):
        if member.name == name:
            text = text[: member.key] + json.dumps(new, ensure_ascii=False) + text[member.key_end :]
    return text


def _removed(text: str, name: str) -> str:
    """Without the entry, and without the comma that parted it from its neighbour."""
    members = list(_members(text))
    names = [member.name for member in members]
    if name not in names:
        return text
    at = names.index(name)
    if at + 1 < len(members):
        rest = text[: members[at].key] + text[members[at + 1].key :]
    elif at:
        rest = text[: members[at - 1].end] + text[members[at].end :]
    else:
        rest = "{}\n"
    return _removed(rest, name)  # a key that stands twice goes twice
