"""A reward model as a server: what it says of whole conversations, each one number.

It reads texts as LLaMA-Factory's server does: as they are, special tokens being special, with nothing put before them.
The number is the value head's at the last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from truetune.data.renderer import Rendered, Run
from truetune.findings import Both, Say, problem
from truetune.model.adapters import adapters_of, put_adapters, virtual_of
from truetune.model.base import load_base
from truetune.model.find import find_model, load_tokenizer
from truetune.model.policy import Policy
from truetune.model.precision import pick_device
from truetune.model.value import FILE, load_value_head, score
from truetune.options import Config
from truetune.serve.engine import inference_dtype, name_of


class TooLong(Exception):
    """A text has more tokens than the model reads. Its arguments: the text's number, its tokens, the most there may
    be."""


@dataclass(frozen=True)
class Scorer:
    """A reward model. context: most tokens of a text."""

    name: str
    context: int
    _tokenizer: Any
    _policy: Policy
    _head: Any
    _lock: Lock

    def score(self, texts: Sequence[str], longest: int | None = None) -> list[float]:
        """What each text is worth. longest: tokens after which a text is cut, where that is wanted.

        Raises:
            TooLong: a text does not fit.
        """
        rows = [self._row(number, text, longest) for number, text in enumerate(texts)]
        with self._lock:  # the model's attention is set for the way that computes
            return score(self._policy, self._head, rows).tolist()

    def _row(self, number: int, text: str, longest: int | None) -> Rendered:
        ids = self._tokenizer.encode(text, add_special_tokens=False)[:longest]
        if not 0 < len(ids) <= self.context:
            raise TooLong(number, len(ids), self.context)
        return Rendered(np.array(ids, dtype=np.int32), (Run(len(ids) - 1, len(ids), 1.0),))


def scores(config: Config, say: Say) -> bool:
    """Whether what `config` names gives scores rather than answers: stage: rm, or where no stage is said, a value head
    beside the adapter or the model."""
    if config.given("stage"):
        return config.stage == "rm"
    assert config.model_name_or_path is not None
    folders = adapters_of(config)[-1:] or [find_model(config.model_name_or_path, config, say)]
    found = any((folder / FILE).is_file() for folder in folders)
    if found:
        say(Both(f"{FILE} is there, so this is served as a reward model (stage: sft lets it answer).",
                 f"存在 {FILE}，按奖励模型部署（设置 stage: sft 则让它回答）。"))
    return found


def load_scorer(config: Config, say: Say) -> Scorer:
    """The reward model that `config` names.

    Raises:
        Problem: it cannot be loaded, or has no value head.
    """
    assert config.model_name_or_path is not None  # a rule has made sure
    base, adapters = find_model(config.model_name_or_path, config, say), adapters_of(config)
    causal = load_base(base, config, inference_dtype(config, base), pick_device(config))
    head = load_value_head(causal, [*reversed(adapters), base])
    if head is None:
        raise problem("no-value-head", Both(f"there is no {FILE}, so it gives no scores.",
                                            f"没有 {FILE}，无法打分。"), option="model_name_or_path",
                      fix=Both("Name what stage rm has written.", "请填写 stage: rm 训练得到的文件夹。"))
    outer = virtual_of(put_adapters(causal, adapters, base)) if adapters else None
    causal.requires_grad_(False).eval()
    told = next((folder for folder in reversed(adapters) if (folder / "tokenizer.json").is_file()), base)
    longest = causal.config.get_text_config().to_dict().get("max_position_embeddings") or 8192
    return Scorer(name_of(config), config.infer_maxlen or longest, load_tokenizer(told), Policy(causal, outer=outer),
                  head, Lock())
