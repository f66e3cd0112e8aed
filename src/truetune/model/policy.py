"""A model as objectives see it: a batch in, what they want to know of every learned token out.

The fast way lays rows end to end, computes a prompt that rows share once, and takes only learned tokens through the
head, in chunks. Before the first step it is compared with plain transformers (one row at a time, full logits); where it
differs, the next simpler way that agrees takes its place, and one line says so. So a model with layers that carry state
from row to row, or with logits changed in a way nobody foresaw, is slower here but never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from truetune.data.batches import Batch, collate
from truetune.data.renderer import Rendered
from truetune.findings import Both, Say, problem
from truetune.model.accelerate import Speedup
from truetune.model.attention import OURS, Kernel, register
from truetune.model.head import Head, NewRows, log_probabilities, read_tokens
from truetune.model.noise import Noise
from truetune.model.rope import stretched_from
from truetune.objectives.objective import Outputs, Wants

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Mean difference of a token's log-probability between two ways, as a share of its size (of 1 nat at least: rounding
grows with the logits). Measured on SmolLM2-135M, pairs of short rows: rounding up to 1e-5 in float32 and 0.03 in
bfloat16; rows that see each other 0.08 and more."""

GRADIENTS = 2.0
"""How much further than log-probabilities the gradients of two ways may be apart: each is the sum of many numbers that
were rounded."""

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
    those of answers drawn at it. kernel: of attention over rows that lie end to end. speedups: what computes the
    layers faster.
    """

    def __init__(self, causal: PreTrainedModel, *, outer: Any = None, fast: bool = True, shares: bool = False,
                 value_head: torch.nn.Module | None = None, temperature: float = 1.0, kernel: Kernel = OURS,
                 speedups: Sequence[Speedup] = (), noise: Noise | None = None):
        """`causal`: a causal language model, adapters put into it or not. outer: PEFT's model around it where only that
        puts virtual tokens before every row. `fast=False`: plain transformers. shares: rows with a beginning in common
        will come. noise: on the embeddings while training."""
        self.causal, self.outer, self.value_head, self.temperature = causal, outer, value_head, temperature
        self.kernel, self.speedups, self._noise = kernel, list(speedups), noise
        self._stretched_from = stretched_from(causal.config)
        register()
        self._own_attention = causal.config._attn_implementation or "eager"
        self._takes_rows = causal.is_backend_compatible() and outer is None
        self.ways = [Way(Both("row by row, all logits", "逐行计算全部 logits"), None)]
        if fast:
            self.ways.insert(0, Way(Both("row by row, head on learned tokens only", "逐行计算，输出头只算学习的 token"),
                                    self._row_by_row if outer is None else self._behind_virtual_tokens))
        if fast and self._takes_rows:
            self.ways.insert(0, Way(Both("rows end to end, head on learned tokens only",
                                         "各行首尾相接，输出头只算学习的 token"), self._end_to_end))
        if fast and self._takes_rows and shares and kernel.shares and not noise:
            self.ways.insert(0, Way(Both("rows end to end, the prompt they share computed once",
                                         "各行首尾相接，共同的提示词只算一次"), self._end_to_end, shares=True))
        self._set_attention()

    def _set_attention(self, plain: bool = False) -> None:
        """The kernel, which needs the rows' borders, and what else makes it faster; or for the plain way the model's
        own attention, and nothing."""
        rows = len(self.ways) > 1 and self._takes_rows and not plain
        self.causal.set_attn_implementation(self.kernel.implementation if rows else self._own_attention)
        for speedup in self.speedups:
            (speedup.off if plain else speedup.on)()

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
        hidden = self.ways[0].hidden or (self._row_by_row if self.outer is None else self._behind_virtual_tokens)
        return hidden(batch, batch.sources), self.head

    @contextmanager
    def still(self) -> Iterator[None]:
        """While entered, nothing is learned: evaluation mode, no gradients. Not inference mode: what a model keeps of
        it (rotary frequencies of a long prompt) could take no part in training."""
        whole = self.causal if self.outer is None else self.outer
        training = whole.training
        whole.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            whole.train(training)

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """While entered the model is still, and as transformers made it, with its own attention: it can `generate`."""
        self._set_attention(plain=True)
        try:
            with self.still():
                yield self.causal if self.outer is None else self.outer
        finally:
            self._set_attention()

    def verify(self, rows: Sequence[Rendered], say: Say) -> None:
        """Compare the fast way with the plain one on a few rows; keep the first way that agrees. Of other kernels and
        of what makes layers faster the gradients are compared too.

        Raises:
            Problem: not even the plain way gives finite numbers.
        """
        was_training = self.causal.training
        self.causal.eval()
        self._set_attention(plain=True)
        batch = collate(rows).to(self.causal.device)
        plain, slope = self._compared(batch, plain=True)
        self._set_attention()
        if not plain.isfinite().all():
            place = batch.sequences[0].where
            raise problem("not-finite", Both(f"the model's own log-probabilities of {place} are not finite.",
                                             f"模型自身对 {place} 的对数概率不是有限的数。"),
                          option="model_name_or_path",
                          fix=Both("Its weights are damaged, or the precision is too low.",
                                   "权重已损坏，或者精度太低。"))
        share = TOLERANCE[self.causal.dtype]
        allowed = share * max(1.0, float(plain.abs().mean()))
        while len(self.ways) > 1 or self.speedups:
            name = self._newest
            try:
                found, found_slope = self._compared(self.lay_out(rows))
                apart = float((found - plain).abs().mean())
                turned = float((found_slope - slope).norm() / slope.norm()) if len(found_slope) else 0.0
                fault = Both(f"differs from plain transformers by {apart:.3g} per token on this model",
                             f"在这个模型上与普通 transformers 每个 token 相差 {apart:.3g}") if apart > allowed else \
                    Both(f"has gradients that are {turned:.0%} off on this model",
                         f"在这个模型上的梯度相差 {turned:.0%}")
                if apart <= allowed and turned <= GRADIENTS * share:
                    break
            except (RuntimeError, TypeError, ValueError, ImportError) as error:  # a kernel or a model that does not
                reason = (str(error).splitlines() or [type(error).__name__])[0]  # take rows this way
                fault = Both(f"fails on this model ({reason})", f"在这个模型上出错（{reason}）")
            self._simplify()
            slower = self.ways[0].name
            say(Both(f"{name}: {fault}; using {slower}, which is slower",
                     f"{name.zh}：{fault.zh}；改用较慢的方式：{slower.zh}"))
        self.causal.train(was_training)

    @property
    def _newest(self) -> Both:
        """What is doubted first: the last of the speedups, another kernel than ours, the way."""
        if self.speedups:
            return self.speedups[-1].name
        return self.ways[0].name if self.kernel is OURS else self.kernel.name

    def _simplify(self) -> None:
        """Do without what is doubted first."""
        if self.speedups:
            self.speedups.pop().off()
        elif self.kernel is not OURS:
            self.kernel = OURS
        else:
            self.ways.pop(0)
        self._set_attention()

    def _compared(self, batch: Batch, plain: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """What is compared: log-probabilities (N,), and where more than our own way is doubted the gradients of their
        sum with respect to everything that is trained, in one piece."""
        trained = [weight for weight in self.causal.parameters() if weight.requires_grad]
        doubted = bool(trained) and (bool(self.speedups) or self.kernel is not OURS)
        with torch.set_grad_enabled(doubted):
            logp = self._plain(batch, Wants(), None).logp if plain else self.log_probabilities(batch)
            slopes = torch.autograd.grad(logp.sum(), trained, allow_unused=True) if doubted else ()
        whole = [slope.flatten().float() if slope is not None else torch.zeros(weight.numel(), device=weight.device)
                 for weight, slope in zip(trained, slopes, strict=False)]
        return logp.detach(), torch.cat(whole) if whole else logp.new_zeros(0)

    def _read(self, hidden: torch.Tensor, batch: Batch, wants: Wants, beside: States | None) -> Outputs:
        """hidden: (N, H), or (B, H) at the ends."""
        logp = log_probabilities(hidden, batch.targets, self.head) if wants.logp else None
        tokens = read_tokens(hidden, batch.targets, self.head, wants.tokens, beside) if wants.tokens else None
        return Outputs(logp, tokens, self._values(hidden) if wants.values else None)

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        assert self.value_head is not None  # the objective that wants values has one made
        return self.value_head(hidden.float())[:, 0]

    def _end_to_end(self, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
        if self._stretched_from and batch.size > 1 and max(map(len, batch.sequences)) > self._stretched_from:
            return self._row_by_row(batch, positions)  # each row's angles depend on its own length
        borders = self.kernel.borders(batch) if self._takes_rows else {}
        with self._noise_over(batch):
            out = self.causal.base_model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **borders)
        return out.last_hidden_state[0, positions]

    def _noise_over(self, batch: Batch) -> AbstractContextManager[None]:
        return self._noise.over(batch) if self._noise else nullcontext()

    def _row_by_row(self, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
        ends = positions is batch.ends
        rows = [collate([row]).to(batch.ids.device) for row in batch.sequences]
        return torch.cat([self._end_to_end(row, row.ends if ends else row.sources) for row in rows])

    def _behind_virtual_tokens(self, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
        """Through PEFT's own forward pass, row by row; of the logits that it computes only the last token's."""
        ends, found = positions is batch.ends, []
        for row in (collate([row]).to(batch.ids.device) for row in batch.sequences):
            out = self.outer(input_ids=row.ids, use_cache=False, output_hidden_states=True, logits_to_keep=1)
            found.append(out.hidden_states[-1][0, -row.ids.shape[1]:][row.ends if ends else row.sources])
        return torch.cat(found)

    def _plain(self, batch: Batch, wants: Wants, beside: States | None) -> Outputs:
        """Whole logits of one row after the other, and log-softmax over them."""
        logp, tokens, values, seen = [], [], [], 0
        more = {"output_hidden_states": True} if wants.values else {}
        for row in (collate([row]).to(batch.ids.device) for row in batch.sequences):
            with self._noise_over(row):
                out = (self.causal if self.outer is None else self.outer)(input_ids=row.ids, use_cache=False, **more)
            own = slice(-row.ids.shape[1], None)  # without the virtual tokens before them
            logits = out.logits[0, own][row.sources].float() / self.temperature
            if wants.logp:
                logp.append(logits.log_softmax(dim=-1).gather(1, row.targets[:, None])[:, 0])
            if wants.tokens:
                mine = slice(seen, seen + len(logits))
                with torch.no_grad():
                    other = beside[1].logits(beside[0][mine]).float() if beside else None
                tokens.append(wants.tokens(logits, row.targets, other))
            if wants.values:
                values.append(self._values(out.hidden_states[-1][0, own][row.ends if wants.ends else row.sources]))
            seen += len(logits)
        return Outputs(*(torch.cat(pieces) if pieces else None for pieces in (logp, tokens, values)))


def head_of(causal: PreTrainedModel) -> Head:
    """The output head of a causal language model, with whatever its configuration does to the logits."""
    values = causal.config.get_text_config().to_dict()
    scale = values.get("logit_scale") or 1 / (values.get("logits_scaling") or 1)
    head = causal.get_output_embeddings()
    assert head is not None  # a causal language model has one
    matrix, new = _without_wrapper(head)
    return Head(matrix, float(scale), values.get("final_logit_softcapping"), new=new)


def _without_wrapper(head: torch.nn.Module) -> tuple[torch.nn.Module, NewRows | None]:
    """A head of which PEFT trains some rows, as the linear layer beneath and these rows: PEFT's own forward pass makes
    a copy of the whole matrix for each chunk of logits. Any other head is given back as it is."""
    if type(head) is torch.nn.Linear:
        return head, None
    from peft.utils.other import TrainableTokensWrapper

    if not isinstance(head, TrainableTokensWrapper):
        return head, None
    tokens: Any = head.token_adapter
    base, active = tokens.base_layer, tokens.active_adapters
    if type(base) is not torch.nn.Linear or base.bias is not None or len(active) != 1:
        return head, None
    if tokens.disable_adapters or tokens.merged:
        return base, None
    rows = tokens.trainable_tokens_delta[active[0]]
    return base, NewRows(torch.tensor(tokens.token_indices[active[0]], device=rows.device), rows)
