"""How alike two texts are: ROUGE-1, ROUGE-2, ROUGE-L (Lin 2004, https://aclanthology.org/W04-1013) and BLEU-4 (Papineni
et al. 2002, https://aclanthology.org/P02-1040), with the packages and settings that LLaMA-Factory's users know, so that
numbers can be compared with theirs:

- ROUGE counts words, which jieba finds (it cuts Chinese into words and leaves others at their spaces), and is the F1;
- BLEU counts characters, smoothed where an n-gram of some length is missing (method 3 of Chen and Cherry 2014,
  https://aclanthology.org/W14-3346), one sentence at a time;
- both are per cent, and the mean of all texts.

The packages are those of the extra `metrics`; they are imported only where they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from statistics import fmean
from typing import Any

from truetune.findings import Both, Finding
from truetune.options import Config

PACKAGES = {"jieba": "jieba", "rouge_chinese": "rouge-chinese", "nltk": "nltk"}
"""By the name they are imported under, the name they are installed by."""
NAMES = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")


def package_findings(config: Config) -> list[Finding]:
    """An error where answers are to be compared and a package for it is missing."""
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if not (config.predict_with_generate and missing):
        return []
    names = " ".join(missing)
    return [Finding("packages-missing", "error",
                    Both(f"answers are compared with packages that are not installed: {names}.",
                         f"比较回答所需的包没有安装：{names}。"), option="predict_with_generate",
                    where=config.origin("predict_with_generate"), fix=f"pip install {names}")]


def similarity(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, ROUGE-2, ROUGE-L and BLEU-4 of texts and those they should be, in per cent, by the names in `NAMES`."""
    each = [(*_rouge(one, other), bleu(one, other)) for one, other in zip(said, wanted, strict=True)]
    return {name: fmean(values) for name, values in zip(NAMES, zip(*each, strict=True), strict=True)} if each else {}


def _rouge(said: str, wanted: str) -> tuple[float, float, float]:
    """F1 of words, of pairs of words, and of the longest common subsequence of words; 0 for a text without words."""
    import jieba
    from rouge_chinese import Rouge

    jieba.setLogLevel(logging.WARNING)  # it tells on the console how it reads its dictionary
    one, other = (" ".join(jieba.cut(text)) for text in (said, wanted))
    if not one.split() or not other.split():
        return 0.0, 0.0, 0.0
    scores: Any = Rouge().get_scores(one, other)[0]
    return tuple(round(scores[name]["f"] * 100, 4) for name in NAMES[:3])  # pyright: ignore[reportReturnType]


def bleu(said: str, wanted: str) -> float:
    """BLEU-4 of one text, in per cent."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    score = sentence_bleu([list(wanted)], list(said), smoothing_function=SmoothingFunction().method3)
    return round(float(score) * 100, 4)  # pyright: ignore[reportArgumentType]
