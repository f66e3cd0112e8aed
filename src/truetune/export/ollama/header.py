"""Two facts out of a GGUF file's head, in a fraction of a second.

`gguf.GGUFReader` keeps every word of the vocabulary as an array of its own, which takes 6 s for 49,152 words; here they
are stepped over. The form: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from gguf import Keys
from gguf.constants import GGUF_MAGIC, GGUFValueType

from truetune.findings import Both, problem

_SIZES = {GGUFValueType.UINT8: 1, GGUFValueType.INT8: 1, GGUFValueType.BOOL: 1, GGUFValueType.UINT16: 2,
          GGUFValueType.INT16: 2, GGUFValueType.UINT32: 4, GGUFValueType.INT32: 4, GGUFValueType.FLOAT32: 4,
          GGUFValueType.UINT64: 8, GGUFValueType.INT64: 8, GGUFValueType.FLOAT64: 8}
_MOST_KEYS = 4096


class Header(NamedTuple):
    """adds_bos: whether a runner puts the beginning-of-text token before every text. family: the architecture."""

    adds_bos: bool
    family: str


def header_of(path: Path) -> Header:
    """What the file says. Ollama takes a file that says nothing about the beginning-of-text token for one that wants it
    (`kv.Bool("tokenizer.ggml.add_bos_token", true)` in its model/models).

    Raises:
        Problem: it is no GGUF file.
    """
    adds_bos, family = True, ""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            magic, _, _, keys = struct.unpack_from("<IIQQ", data)
            if magic != GGUF_MAGIC or keys > _MOST_KEYS:
                raise ValueError("another beginning")
            at = 24
            for _ in range(keys):
                key, at = _string(data, at)
                kind = GGUFValueType(struct.unpack_from("<I", data, at)[0])
                start, at = at + 4, _behind(data, at + 4, kind)
                if key == Keys.Tokenizer.ADD_BOS.encode() and kind == GGUFValueType.BOOL:
                    adds_bos = bool(data[start])
                elif key == Keys.General.ARCHITECTURE.encode() and kind == GGUFValueType.STRING:
                    family = _string(data, start)[0].decode()
    except (OSError, ValueError, struct.error, KeyError) as error:
        raise problem("no-gguf", Both(f"{path} is no GGUF file: {error}.", f"{path} 不是 GGUF 文件：{error}。"),
                      option="export_format") from None
    return Header(adds_bos, family)


def _string(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    end = _behind(data, at, GGUFValueType.STRING)
    return data[at + 8 : end], end


def _behind(data: mmap.mmap, at: int, kind: GGUFValueType) -> int:
    """Where the value that begins at `at` ends."""
    if kind == GGUFValueType.STRING:
        end = at + 8 + struct.unpack_from("<Q", data, at)[0]
    elif kind == GGUFValueType.ARRAY:
        each, count = struct.unpack_from("<IQ", data, at)
        end = at + 12
        if GGUFValueType(each) == GGUFValueType.STRING:
            for _ in range(min(count, len(data))):
                end += 8 + struct.unpack_from("<Q", data, end)[0]
        else:
            end += count * _SIZES[GGUFValueType(each)]
    else:
        end = at + _SIZES[kind]
    if end > len(data):
        raise ValueError("it ends too early")
    return end
