"""A model as objectives see it: a batch in, what they want to know of every learned token out.

The fast way lays rows end to end, computes a prompt that rows share once, and takes only learned tokens through the
head, in chunks. Before the first step it is compared with plain transformers (one row at a time, full logits); where it
differs, the next simpler way that agrees takes its place, and one line says so. So a model with layers that carry state
from row to row, or with logits changed in a way nobody foresaw, is slower here but never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from truetune.data.batches import Batch, collate
from truetune.data.renderer import Rendered
from truetune.findings import Both, Say, problem
from truetune.model.attention import register
from truetune.model.head import Head, log_probabilities, read_tokens
from truetune.objectives.objective import Outputs, Wants

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Mean difference of a token's log-probability between two ways, as a share of its size (of 1 nat at least: rounding
grows with the logits). Measured on SmolLM2-135M, pairs of short rows: rounding up to 1e-5 in float32 and 0.03 in
bfloat16; rows that see each other 0.08 and more."""

States = tuple[torch.Tensor, Head]
"""Hidden states (N, H) at a batch's sources, and the head that goes with them."""


@dataclass(frozen=True)
class Way:
    """A way to compute. hidden(batch, positions): the hidden states (N, H) at these positions of the layout; None: the
    model's own logits are taken, row by row. shares: rows may share the beginning they have in common."""

    name: Both
    hidden: Callable[[Batch, torch.Tensor], torch.Tensor] | None
    shares: bool = False


class Policy:
    """The model being trained (or a plain one), computed the fastest way that was shown to be right.

    value_head: turns a hidden state into a number, where the objective trains one. temperature: log-probabilities are
    those of answers drawn at it.
    """

    def __init__(self, causal: PreTrainedModel, *, fast: bool = True, shares: bool = False,
                 value_head: torch.nn.Module | None = None, temperature: float = 1.0):
        """`causal`: a causal language model, adapters put into it or not. `fast=False`: plain transformers. shares:
        rows with a beginning in common will come."""
        self.causal, self.value_head, self.temperature = causal, value_head, temperature
        self._own_attention = causal.config._attn_implementation or "eager"
        self._takes_rows = causal.is_backend_compatible()
        self.ways = [Way(Both("row by row, all logits", "逐行计算全部 logits"), None)]
        if fast:
            self.ways.insert(0, Way(Both("row by row, head on learned tokens only", "逐行计算，输出头只算学习的 token"),
                                    self._row_by_row))
        if fast and self._takes_rows:
            self.ways.insert(0, Way(Both("rows end to end, head on learned tokens only",
                                         "各行首尾相接，输出头只算学习的 token"), self._end_to_end))
        if fast and self._takes_rows and shares:
            self.ways.insert(0, Way(Both("rows end to end, the prompt they share computed once",
                                         "各行首尾相接，共同的提示词只算一次"), self._end_to_end, shares=True))
        self._set_attention()

    def _set_attention(self) -> None:
        """Ours, which needs the rows' borders, or for the plain way the model's own."""
        ours = len(self.ways) > 1 and self._takes_rows
        self.causal.set_attn_implementation(register() if ours else self._own_attention)

    @property
    def head(self) -> Head:
        return replace(head_of(self.causal), temperature=self.temperature)

    def lay_out(self, rows: Sequence[Rendered]) -> Batch:
        """Rows as a batch on the model's device, laid out for the way in use."""
        return collate(rows, share=self.ways[0].shares).to(self.causal.device)

    def log_probabilities(self, batch: Batch) -> torch.Tensor:
        """(N,) float32: the log-probability of each of the batch's targets."""
        return self.outputs(batch, Wants()).logp

    def outputs(self, batch: Batch, wants: Wants, beside: States | None = None) -> Outputs:
        """What `wants` names, of each learned token of the batch (or of each row's end).

        Args:
            beside: of a reference, for the same batch, where `wants.beside`.
        """
        way = self.ways[0]
        if way.hidden is None:
            return self._plain(batch, wants, beside)
        return self._read(way.hidden(batch, batch.ends if wants.ends else batch.sources), batch, wants, beside)

    def states(self, batch: Batch) -> States:
        """Hidden states at the batch's sources, and the head: from these another policy's `outputs` reads logits."""
        hidden = self.ways[0].hidden or self._row_by_row
        return hidden(batch, batch.sources), self.head

    @contextmanager
    def still(self) -> Iterator[None]:
        """While entered, nothing is learned: evaluation mode, no gradients. Not inference mode: what a model keeps of
        it (rotary frequencies of a long prompt) could take no part in training."""
        training = self.causal.training
        self.causal.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.causal.train(training)

    @contextmanager
    def generating(self) -> Iterator[PreTrainedModel]:
        """While entered the model is still, and as transformers made it, with its own attention: it can `generate`."""
        self.causal.set_attn_implementation(self._own_attention)
        try:
            with self.still():
                yield self.causal
        finally:
            self._set_attention()

    def verify(self, rows: Sequence[Rendered], say: Say) -> None:
        """Compare the fast way with the plain one on a few rows; keep the first way that agrees.

        Raises:
            Problem: not even the plain way gives finite numbers.
        """
        was_training = self.causal.training
        self.causal.eval()
        with torch.no_grad():
            self.causal.set_attn_implementation(self._own_attention)
            batch = collate(rows).to(self.causal.device)
            plain = self._plain(batch, Wants(), None).logp
            self._set_attention()
            if not plain.isfinite().all():
                place = batch.sequences[0].where
                raise problem("not-finite", Both(f"the model's own log-probabilities of {place} are not finite.",
                                                 f"模型自身对 {place} 的对数概率不是有限的数。"),
                              option="model_name_or_path",
                              fix=Both("Its weights are damaged, or the precision is too low.",
                                       "权重已损坏，或者精度太低。"))
            allowed = TOLERANCE[self.causal.dtype] * max(1.0, float(plain.abs().mean()))
            while len(self.ways) > 1:
                name = self.ways[0].name
                try:
                    apart = float((self.log_probabilities(self.lay_out(rows)) - plain).abs().mean())
                    fault = Both(f"differs from plain transformers by {apart:.3g} per token on this model",
                                 f"在这个模型上与普通 transformers 每个 token 相差 {apart:.3g}")
                    if apart <= allowed:
                        break
                except (RuntimeError, TypeError) as error:  # a kernel or a model that does not take rows this way
                    reason = str(error).splitlines()[0]
                    fault = Both(f"fails on this model ({reason})", f"在这个模型上出错（{reason}）")
                self.ways.pop(0)
                self._set_attention()
                slower = self.ways[0].name
                say(Both(f"{name}: {fault}; using {slower}, which is slower",
                         f"{name.zh}：{fault.zh}；改用较慢的方式：{slower.zh}"))
        self.causal.train(was_training)

    def _read(self, hidden: torch.Tensor, batch: Batch, wants: Wants, beside: States | None) -> Outputs:
        """hidden: (N, H), or (B, H) at the ends."""
        logp = log_probabilities(hidden, batch.targets, self.head) if wants.logp else None
        tokens = read_tokens(hidden, batch.targets, self.head, wants.tokens, beside) if wants.tokens else None
        return Outputs(logp, tokens, self._values(hidden) if wants.values else None)

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        assert self.value_head is not None  # the objective that wants values has one made
        return self.value_head(hidden.float())[:, 0]

    def _end_to_end(self, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
        borders = {"row_starts": batch.starts, "row_parents": batch.parents} if self._takes_rows else {}
        out = self.causal.base_model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **borders)
        return out.last_hidden_state[0, positions]

    def _row_by_row(self, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
        ends = positions is batch.ends
        rows = [collate([row]).to(batch.ids.device) for row in batch.sequences]
        return torch.cat([self._end_to_end(row, row.ends if ends else row.sources) for row in rows])

    def _plain(self, batch: Batch, wants: Wants, beside: States | None) -> Outputs:
        """Whole logits of one row after the other, and log-softmax over them."""
        logp, tokens, values, seen = [], [], [], 0
        more = {"output_hidden_states": True} if wants.values else {}
        for row in (collate([row]).to(batch.ids.device) for row in batch.sequences):
            out = self.causal(input_ids=row.ids, use_cache=False, **more)
            logits = out.logits[0, row.sources].float() / self.temperature
            if wants.logp:
                logp.append(logits.log_softmax(dim=-1).gather(1, row.targets[:, None])[:, 0])
            if wants.tokens:
                mine = slice(seen, seen + len(logits))
                with torch.no_grad():
                    other = beside[1].logits(beside[0][mine]).float() if beside else None
                tokens.append(wants.tokens(logits, row.targets, other))
            if wants.values:
                values.append(self._values(out.hidden_states[-1][0, row.ends if wants.ends else row.sources]))
            seen += len(logits)
        return Outputs(*(torch.cat(pieces) if pieces else None for pieces in (logp, tokens, values)))


def head_of(causal: PreTrainedModel) -> Head:
    """The output head of a causal language model, with whatever its configuration does to the logits."""
    values = causal.config.get_text_config().to_dict()
    scale = values.get("logit_scale") or 1 / (values.get("logits_scaling") or 1)
    head = causal.get_output_embeddings()
    assert head is not None  # a causal language model has one
    return Head(head, float(scale), values.get("final_logit_softcapping"))
