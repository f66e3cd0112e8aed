"""Rows of float32 into the bytes of a GGUF type.

f32, f16, bf16 and q8_0 by the gguf package, in numpy; every other type by llama.cpp's own `ggml_quantize_chunk`, called
in the library that the wheel xllamacpp carries. It lets go of Python's lock, so threads share the work.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from truetune.findings import Both, problem
from truetune.serve.llamacpp import require_llamacpp

IN_NUMPY = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16, GGMLQuantizationType.Q8_0)


def row_bytes(kind: GGMLQuantizationType, columns: int) -> int:
    """Bytes of one row."""
    block, size = GGML_QUANT_SIZES[kind]
    return columns // block * size


def quantise(rows: np.ndarray, kind: GGMLQuantizationType, importance: np.ndarray | None = None) -> np.ndarray:
    """(n, columns) float32 -> (n, bytes of a row) uint8. importance: of each column, float32; only llama.cpp's types
    heed it.

    Raises:
        Problem: llama.cpp is needed and not installed.
    """
    if kind in IN_NUMPY:
        return gguf.quants.quantize(rows, kind).view(np.uint8).reshape(len(rows), -1)
    library, (count, columns) = _library(kind), rows.shape
    rows, packed = np.ascontiguousarray(rows, np.float32), np.empty((count, row_bytes(kind, columns)), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    written = library.ggml_quantize_chunk(kind.value, rows.ctypes.data, packed.ctypes.data, 0, count, columns,
                                          None if weights is None else weights.ctypes.data)
    assert written == packed.nbytes
    return packed


@cache
def _library(kind: GGMLQuantizationType) -> ctypes.CDLL:
    """llama.cpp with its tables for this type made."""
    require_llamacpp("export_gguf_type")
    package = find_spec("xllamacpp")
    assert package and package.origin
    library = next((file for file in Path(package.origin).parent.glob("xllamacpp*") if file.suffix in (".so", ".pyd")),
                   None)
    try:
        loaded = ctypes.CDLL(str(library))
        loaded.ggml_quantize_chunk.restype = ctypes.c_size_t
        loaded.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                               ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        loaded.ggml_quantize_init(kind.value)
    except (OSError, AttributeError) as error:  # AttributeError: the library does not export it
        raise problem("no-quantiser", Both(f"this xllamacpp does not let its quantiser be called: {error}",
                                           f"当前的 xllamacpp 没有开放其量化函数：{error}"), option="export_gguf_type",
                      fix="pip install -U xllamacpp") from None
    return loaded
