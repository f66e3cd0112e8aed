"""What can be told of a model's weights without loading them: the headers of safetensors files, and single rows.

The format (https://github.com/huggingface/safetensors#format): 8 bytes, the length N of the header as a little-endian
number; N bytes of JSON, which names each tensor's type, shape and place; then the numbers, end to end. Nothing here
trusts a file: whatever is wrong with it comes back as a reason in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truetune.findings import Both

_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself refuses larger ones."""
_LARGEST_TEXT = 100_000_000
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
         "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
"""Bytes a number, by type."""


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: bytes [begin, end) of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Damaged(Exception):
    """A file that is not what it should be. reason: in words that go on `<file> …`."""

    def __init__(self, reason: Both):
        super().__init__(str(reason))
        self.reason = reason


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        Damaged: it is no text, or no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        told = error.msg if isinstance(error, json.JSONDecodeError) else str(error).split("\n")[0]
        raise Damaged(Both(f"is not valid JSON: {told:.80}{line}", f"不是有效的 JSON：{told:.80}{line}")) from None


def read_text(path: Path) -> str:
    """What a text file says.

    Raises:
        Damaged: it is no file, empty, not UTF-8 or far too large, or cannot be read.
    """
    try:
        size = _size(path)
        if size > _LARGEST_TEXT:
            raise Damaged(Both(f"has {size / 1e6:,.0f} MB, too much for what it should hold",
                               f"有 {size / 1e6:,.0f} MB，对这种文件来说过大"))
        raw = path.read_bytes()
        _no_pointer(raw[:200])
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise Damaged(_unreadable(error)) from None
    except UnicodeDecodeError:
        raise Damaged(Both("is not UTF-8", "不是 UTF-8")) from None
    if not text:
        raise Damaged(Both("is empty", "是空的"))
    return text


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        Damaged: it is no file, is cut short, is a git-lfs pointer, or is none of the format.
    """
    try:
        size = _size(path)
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            _no_pointer(head + file.read(192))
            if size < 8 or not 2 <= length <= min(_LARGEST_HEADER, size - 8):
                whole = size >= 8 and 2 <= length <= _LARGEST_HEADER
                raise Damaged(_cut(size, 8 + length) if whole else _no_safetensors(head, size))
            file.seek(8)
            header = json.loads(file.read(length))
            tensors = {name: _tensor(entry, path, 8 + length) for name, entry in header.items()
                       if name != "__metadata__"}
    except OSError as error:
        raise Damaged(_unreadable(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(Both("has a header that cannot be read", "的文件头无法解析")) from None
    end = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if size < end:
        raise Damaged(_cut(size, end))
    return tensors


def read_rows(tensor: Tensor, rows: Sequence[int]) -> np.ndarray:
    """Some rows of a matrix as float32: (len(rows), columns). Nothing else of the file is read.

    Raises:
        Damaged: the matrix has no such rows, is of a type that is not a plain number, or cannot be read.
    """
    if tensor.dtype not in _FLOATS or len(tensor.shape) != 2 or not all(0 <= row < tensor.shape[0] for row in rows):
        raise Damaged(Both("holds no such rows of plain numbers", "没有这样的普通数值行"))
    kind, width = _FLOATS[tensor.dtype], tensor.shape[1] * SIZES[tensor.dtype]
    found = []
    try:
        with tensor.file.open("rb") as file:
            for row in rows:
                file.seek(tensor.begin + row * width)
                found.append(np.frombuffer(file.read(width), dtype=kind))
        numbers = np.stack(found) if found else np.zeros((0, tensor.shape[1]), dtype=kind)
    except (OSError, ValueError):
        raise Damaged(Both("cannot be read to its end", "读不到末尾")) from None
    if tensor.dtype == "BF16":  # the upper half of a float32
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


def _tensor(entry: Any, path: Path, start: int) -> Tensor:
    begin, end = map(int, entry["data_offsets"])
    shape, dtype = tuple(int(size) for size in entry["shape"]), str(entry["dtype"])
    if begin < 0 or any(size < 0 for size in shape) or end - begin != math.prod(shape) * SIZES.get(dtype, end - begin):
        raise ValueError(f"the entry {entry} contradicts itself")
    return Tensor(path, dtype, shape, start + begin, start + end)


def is_there(path: Path) -> bool:
    """Whether anything of this name is there, a link to nothing included."""
    try:
        path.lstat()
    except (OSError, ValueError):  # a name out of a file may be too long, or hold a zero
        return False
    return True


def _size(path: Path) -> int:
    """Bytes of a regular file. (A folder, a pipe or a device would fail late or never end.)"""
    if not path.is_file():
        link = Both("is a link to a file that is not there", "是链接，指向的文件不存在")
        no_file = Both("is no file", "不是文件")
        raise Damaged(link if path.is_symlink() and not path.is_dir() else no_file)
    return path.stat().st_size


def _no_pointer(head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise Damaged(Both("is a git-lfs pointer of a few bytes, not the file itself",
                           "是几十字节的 git-lfs 指针，不是文件本身"))


def _cut(size: int, whole: int) -> Both:
    return Both(f"is cut short: it has {size:,} of {whole:,} bytes", f"不完整：{whole:,} 字节只有 {size:,} 字节")


def _no_safetensors(head: bytes, size: int) -> Both:
    if not size:
        return Both("is empty", "是空的")
    return Both(f"is no safetensors file (it begins with {head!r})", f"不是 safetensors 文件（开头是 {head!r}）")


def _unreadable(error: OSError) -> Both:
    return Both(f"cannot be read: {error.strerror}", f"无法读取：{error.strerror}")
