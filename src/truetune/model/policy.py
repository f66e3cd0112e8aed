"""A model as objectives see it: a batch in, the log-probability of every learned token out.

The fast way lays rows end to end and takes only learned tokens through the head, in chunks. Before the first step it is
compared with plain transformers (one row at a time, full logits); where it differs, the next simpler way that agrees
takes its place, and one line says so. So a model with layers that carry state from row to row, or with logits changed
in a way nobody foresaw, is slower here but never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from transformers import PreTrainedModel

from truetune.data.batches import Batch, collate
from truetune.data.renderer import Rendered
from truetune.findings import Both, Say, problem
from truetune.model.attention import register
from truetune.model.head import Head, log_probabilities

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Mean difference of a token's log-probability between two ways, as a share of its size (of 1 nat at least: rounding
grows with the logits). Measured on SmolLM2-135M, pairs of short rows: rounding up to 1e-5 in float32 and 0.03 in
bfloat16; rows that see each other 0.08 and more."""


class Policy:
    """The model being trained (or a plain one), computed the fastest way that was shown to be right."""

    def __init__(self, causal: PreTrainedModel, *, fast: bool = True):
        """`causal`: a causal language model, adapters put into it or not. `fast=False`: plain transformers."""
        self.causal = causal
        self._own_attention = causal.config._attn_implementation or "eager"
        self._takes_rows = causal.is_backend_compatible()
        plain = (Both("row by row, all logits", "逐行计算全部 logits"), self._plain)
        self.ways: list[tuple[Both, Callable[[Batch], torch.Tensor]]] = [plain]
        if fast:
            self.ways.insert(0, (Both("row by row, head on learned tokens only", "逐行计算，输出头只算学习的 token"),
                                 self._row_by_row))
        if fast and self._takes_rows:
            self.ways.insert(0, (Both("rows end to end, head on learned tokens only",
                                      "各行首尾相接，输出头只算学习的 token"), self._end_to_end))
        self._set_attention()

    def _set_attention(self) -> None:
        """Ours, which needs the rows' borders, or for the plain way the model's own."""
        ours = len(self.ways) > 1 and self._takes_rows
        self.causal.set_attn_implementation(register() if ours else self._own_attention)

    def log_probabilities(self, batch: Batch) -> torch.Tensor:
        """(N,) float32: the log-probability of each of the batch's targets."""
        return self.ways[0][1](batch)

    def verify(self, rows: Sequence[Rendered], device: torch.device, say: Say) -> None:
        """Compare the fast way with the plain one on a few rows; keep the first way that agrees.

        Raises:
            Problem: not even the plain way gives finite numbers.
        """
        batch = collate(rows).to(device)
        was_training = self.causal.training
        self.causal.eval()
        with torch.no_grad():
            self.causal.set_attn_implementation(self._own_attention)
            plain = self._plain(batch)
            self._set_attention()
            if not plain.isfinite().all():
                place = batch.places[0]
                raise problem("not-finite", Both(f"the model's own log-probabilities of {place} are not finite.",
                                                 f"模型自身对 {place} 的对数概率不是有限的数。"),
                              option="model_name_or_path",
                              fix=Both("Its weights are damaged, or the precision is too low.",
                                       "权重已损坏，或者精度太低。"))
            allowed = TOLERANCE[self.causal.dtype] * max(1.0, float(plain.abs().mean()))
            while len(self.ways) > 1:
                name, way = self.ways[0]
                try:
                    apart = float((way(batch) - plain).abs().mean())
                    fault = Both(f"differs from plain transformers by {apart:.3g} per token on this model",
                                 f"在这个模型上与普通 transformers 每个 token 相差 {apart:.3g}")
                    if apart <= allowed:
                        break
                except (RuntimeError, TypeError) as error:  # a kernel or a model that does not take rows this way
                    reason = str(error).splitlines()[0]
                    fault = Both(f"fails on this model ({reason})", f"在这个模型上出错（{reason}）")
                self.ways.pop(0)
                self._set_attention()
                slower = self.ways[0][0]
                say(Both(f"{name}: {fault}; using {slower}, which is slower",
                         f"{name.zh}：{fault.zh}；改用较慢的方式：{slower.zh}"))
        self.causal.train(was_training)

    def _hidden(self, batch: Batch) -> torch.Tensor:
        """(N, H): the hidden states that predict the learned tokens."""
        borders = {"row_starts": batch.starts} if self._takes_rows else {}
        out = self.causal.base_model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **borders)
        return out.last_hidden_state[0, batch.sources]

    def _end_to_end(self, batch: Batch) -> torch.Tensor:
        return log_probabilities(self._hidden(batch), batch.targets, head_of(self.causal))

    def _row_by_row(self, batch: Batch) -> torch.Tensor:
        hidden = torch.cat([self._hidden(row) for row in _rows(batch)])
        return log_probabilities(hidden, batch.targets, head_of(self.causal))

    def _plain(self, batch: Batch) -> torch.Tensor:
        pieces = []
        for row in _rows(batch):
            logits = self.causal(input_ids=row.ids, use_cache=False).logits[0, row.sources].float()
            pieces.append(logits.log_softmax(dim=-1).gather(1, row.targets[:, None])[:, 0])
        return torch.cat(pieces)


def head_of(causal: PreTrainedModel) -> Head:
    """The output head of a causal language model, with whatever its configuration does to the logits."""
    values = causal.config.get_text_config().to_dict()
    scale = values.get("logit_scale") or 1 / (values.get("logits_scaling") or 1)
    head = causal.get_output_embeddings()
    assert head is not None  # a causal language model has one
    return Head(head, float(scale), values.get("final_logit_softcapping"))


def _rows(batch: Batch) -> list[Batch]:
    """The batch as one batch a row."""
    rows = []
    for number, (start, end) in enumerate(pairwise(batch.starts)):
        mine = (batch.sources >= start) & (batch.sources < end)
        rows.append(Batch(batch.ids[:, start:end], batch.positions[:, start:end], (0, end - start),
                          batch.sources[mine] - start, batch.targets[mine], batch.weights[mine],
                          (batch.places[number],)))
    return rows
