"""In which script a text is written, counted by its letters. A script is not yet a language, but it tells English from
Chinese from Russian without a model, for thousands of texts in a moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from truetune.findings import Both

SCRIPTS = (
    Both("Latin letters", "拉丁字母"), Both("Chinese", "中文"), Both("Japanese", "日文"), Both("Korean", "韩文"),
    Both("Cyrillic", "西里尔字母"), Both("Arabic", "阿拉伯文"), Both("an Indian script", "印度文字"),
    Both("Thai", "泰文"), Both("Greek", "希腊文"), Both("Hebrew", "希伯来文"),
)
_LATIN, _CHINESE, _JAPANESE, _KOREAN, _CYRILLIC, _ARABIC, _INDIAN, _THAI, _GREEK, _HEBREW = range(len(SCRIPTS))
_RANGES = (
    (0x41, 0x5A, _LATIN), (0x61, 0x7A, _LATIN), (0xC0, 0x24F, _LATIN), (0x1E00, 0x1EFF, _LATIN),
    (0x370, 0x3FF, _GREEK), (0x1F00, 0x1FFF, _GREEK), (0x400, 0x52F, _CYRILLIC), (0x5D0, 0x5EA, _HEBREW),
    (0x620, 0x64A, _ARABIC), (0x66E, 0x6D3, _ARABIC), (0x750, 0x77F, _ARABIC), (0xFB50, 0xFEFC, _ARABIC),
    (0x900, 0xDFF, _INDIAN), (0xE01, 0xE4E, _THAI), (0x1100, 0x11FF, _KOREAN), (0x3130, 0x318F, _KOREAN),
    (0xAC00, 0xD7A3, _KOREAN), (0x3041, 0x30FF, _JAPANESE), (0x31F0, 0x31FF, _JAPANESE), (0xFF66, 0xFF9D, _JAPANESE),
    (0x3400, 0x4DBF, _CHINESE), (0x4E00, 0x9FFF, _CHINESE), (0xF900, 0xFAFF, _CHINESE), (0x20000, 0x2FFFF, _CHINESE),
)
_NONE = len(SCRIPTS)
"""The class of everything that is no letter of these scripts."""
_DENSE = 4.0
"""What a letter of Chinese, Japanese or Korean counts: it says as much as three or four of an alphabet, and a Chinese
answer with some English words in it is Chinese."""
_KANA = 0.1
"""Japanese is written in kana and Chinese letters; from this share of kana on, all of them are Japanese."""
_LOOKED_AT = 300
"""Letters of each text that are looked at."""
_FEW = 8
"""A text of fewer (weighted) letters says nothing about its language."""


def _classes() -> np.ndarray:
    classes = np.full(0x30001, _NONE, dtype=np.uint8)  # the last one is for everything beyond
    for first, last, script in _RANGES:
        classes[first : last + 1] = script
    return classes


_CLASSES = _classes()


def main_scripts(texts: Sequence[str]) -> np.ndarray:
    """(n,): the number in `SCRIPTS` of what each text is mostly written in; -1 where it has hardly any letters."""
    heads = [text[:_LOOKED_AT] for text in texts]
    letters = np.frombuffer("".join(heads).encode("utf-32-le", "surrogatepass"), dtype=np.int32)
    owners = np.repeat(np.arange(len(heads), dtype=np.int32), [len(head) for head in heads])
    cells = owners * np.int32(_NONE + 1) + _CLASSES.take(letters, mode="clip")
    counts = np.bincount(cells, minlength=len(heads) * (_NONE + 1)).astype(np.float64)
    counts = counts.reshape(len(heads), _NONE + 1)[:, :_NONE]
    kana, han = counts[:, _JAPANESE], counts[:, _CHINESE]
    japanese = (kana > 0) & (kana >= _KANA * (kana + han))
    counts[japanese, _JAPANESE] += han[japanese]
    counts[japanese, _CHINESE] = 0
    counts[:, [_CHINESE, _JAPANESE, _KOREAN]] *= _DENSE
    return np.where(counts.sum(axis=1) >= _FEW, counts.argmax(axis=1), -1) if len(heads) else np.zeros(0, np.int64)
