"""Many answers at once: at every step each that is being written gets a word, and requests join and leave.

The rows of a step lie end to end in one forward pass, without padding, as in training: one token of each answer that is
being written, and of prompts that are new as many as a step takes (`_CHUNK`), so that a long prompt holds nobody up.
What is known of earlier tokens stays at each answer's place (`places`), and the head is computed for the last token of
each row alone.

The floor of a step is reading the weights once, for all rows together; that is why eight answers cost little more than
one. A model for which this is not right (shown on its first texts, against transformers) answers one by one (`single`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from truetune.findings import Both, problem
from truetune.model.policy import TOLERANCE, head_of
from truetune.model.rope import stretched_from
from truetune.serve.adapted import AdaptedModel
from truetune.serve.detokenize import Vocabulary
from truetune.serve.kv_cache import PLACES, Part, Step, Store, register
from truetune.serve.sampling import Schemas, draw
from truetune.serve.scheduler import Job, Limits, Scheduler

_CHUNK, _ALONE = 128, 1024
"""Tokens of new prompts that a step takes while others are being answered, and while nobody is."""
_SHARED = 16
"""A beginning that is known already is worth taking from this many tokens on."""
_KEPT = 256 * 2**20
"""Bytes of ended answers that are kept, since the next question may go on from them."""
_PLAIN_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(eq=False)
class Row:
    """A place's answer. ids: of the prompt and the answer. computed: how many of them the place knows. job: None once
    it has ended, and is only kept."""

    job: Job | None
    ids: list[int]
    adapter: str | None
    place: int
    computed: int = 0

    @property
    def writing(self) -> bool:
        """Its prompt has been read."""
        return self.computed == len(self.ids) - 1 and self.computed > 0


class Rows:
    """Forward passes in which many rows take part."""

    def __init__(self, adapted: AdaptedModel):
        register()
        self.adapted, self.store = adapted, Store()
        self._causal = adapted.causal
        self._own = self._causal.config._attn_implementation or "eager"
        self._heads = {}

    @contextmanager
    def _attending(self) -> Iterator[None]:
        """While entered, the model's attention is that of places; else it is its own, for whoever else asks it. Takes
        0.5 ms."""
        self._causal.set_attn_implementation(PLACES)
        try:
            yield
        finally:
            self._causal.set_attn_implementation(self._own)

    def logits(self, adapter: str | None, parts: Sequence[Part], ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """(R, V): what follows the last token of each part. ids: of the whole row of each."""
        device = self._causal.device
        step = Step(self.store, parts, device)
        tokens = [token for number in step.order for token in ids[number][parts[number].first : parts[number].last]]
        with self.adapted.using(adapter), self._attending():
            out = self._causal.base_model(input_ids=torch.tensor([tokens], device=device), use_cache=False, step=step,
                                          position_ids=step.position_of[None])
            if adapter not in self._heads:
                self._heads[adapter] = head_of(self._causal)
            logits = self._heads[adapter].logits(out.last_hidden_state[0, step.ends])
        back = torch.empty(len(parts), dtype=torch.long)
        back[step.order] = torch.arange(len(parts))
        return logits[back.to(device)]

    def unfit(self) -> Both | None:
        """Why rows of this model cannot share a forward pass; None: they can, as shown on a few tokens."""
        settings = self._causal.config.get_text_config()
        kinds = set(settings.to_dict().get("layer_types") or ()) - _PLAIN_LAYERS
        if self.adapted.virtual:
            return Both("virtual tokens stand before every row", "每行之前都有虚拟 token")
        if kinds:
            named = ", ".join(sorted(kinds))
            return Both(f"it has layers of the kind {named}", f"它有 {named} 类型的层")
        if stretched_from(self._causal.config) is not None:
            return Both("its positions depend on the length of the row", "它的位置编码取决于行的长度")
        if not self._causal.is_backend_compatible():
            return Both("its attention takes no function of ours", "它的注意力不接受外部函数")
        try:
            apart, allowed = self._apart()
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:  # a model that takes no rows
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return Both(f"it fails ({reason})", f"出错（{reason}）")
        return None if apart <= allowed else Both(f"its log-probabilities would be {apart:.3g} off",
                                                  f"对数概率会相差 {apart:.3g}")

    def _apart(self) -> tuple[float, float]:
        """How far log-probabilities are from transformers' own on two rows that join one after the other, one read in
        two chunks and answered beside the other's reading; and how far rounding may take them."""
        drawn = np.random.default_rng(0).integers(0, self._causal.config.get_text_config().vocab_size, (2, 24)).tolist()
        first, second = drawn[0], drawn[1][:9]
        steps = [[(0, 0, 7)], [(0, 7, 20), (1, 0, 4)], [(0, 20, 21), (1, 4, 8)], [(0, 21, 22), (1, 8, 9)]]
        self.store.fit(2, 24)
        with torch.inference_mode():
            found = [self.logits(None, [Part(*part) for part in step], [(first, second)[part[0]] for part in step])
                     .float().log_softmax(dim=-1) for step in steps]
            whole = [self._causal(input_ids=torch.tensor([row], device=self._causal.device), use_cache=False)
                     .logits[0].float().log_softmax(dim=-1) for row in (first, second)]
            plain = [torch.stack([whole[place][last - 1] for place, _, last in step]) for step in steps]
        self.store = Store()
        apart = torch.cat(found) - torch.cat(plain)
        return float(apart.abs().mean()), TOLERANCE[self._causal.dtype] * max(1.0, float(torch.cat(plain).abs().mean()))


class Continuous(Scheduler):
    """See the module's text."""

    def __init__(self, rows: Rows, vocabulary: Vocabulary, schemas: Schemas, ends: Sequence[int], size: int,
                 limits: Limits):
        super().__init__(vocabulary, schemas, ends, size, limits, rows.adapted.names)
        self._shared = rows
        self._rows: list[Row | None] = [None] * limits.rows
        """By place."""
        self.read = 0
        """Tokens of prompts that were computed so far; those that a place knew already are not among them."""
        self._worker.start()

    @property
    def running(self) -> int:
        """Answers that are being written."""
        return len(self._running())

    @property
    def bytes(self) -> int:
        """Memory of keys and values."""
        return self._shared.store.bytes

    def _running(self) -> list[Row]:
        return [row for row in self._rows if row is not None and row.job is not None]

    def _free(self) -> int:
        return self.limits.rows - len(self._running())

    # ---------------------------------------------------------------------------------------------- the worker's life

    def _work(self) -> None:
        with torch.inference_mode():
            while self._admit(wait=True):
                while self._running():
                    try:
                        self._step()
                    except Exception as error:  # no memory for another place, say: whoever waits has to be told
                        self._fail_all(error)
                    self._admit(wait=False)
                self._tidy()

    def _admit(self, wait: bool) -> bool:
        """Let those go whose readers have left, and those who wait take free places. False: the engine is closed."""
        joining: list[Job] = []
        with self._changed:
            while True:
                for row in self._running():
                    if row.job and row.job.closed:
                        self._leave(row)
                while len(joining) < self._free() and (job := self._next()):
                    joining.append(job)
                if self._ended:
                    self._abandon(joining)
                    return False
                if joining or not wait:
                    break
                self._changed.wait()
        for job in joining:
            self._join(job)
        return True

    def _abandon(self, joining: Sequence[Job]) -> None:
        for job in [*joining, *self._waiting]:
            job.abandon()
        self._waiting.clear()
        for row in self._running():
            if row.job:
                row.job.abandon()
                self._leave(row)

    def _step(self) -> None:
        """A word for each row that is read to its end."""
        groups: dict[str | None, list[tuple[Row, Part]]] = defaultdict(list)
        for row, part in self._plan():
            groups[row.adapter].append((row, part))
        ready: list[Row] = []
        found: list[torch.Tensor] = []
        for adapter, group in groups.items():
            for row, logits in self._computed(adapter, group):
                if row.computed == len(row.ids):
                    ready.append(row)
                    found.append(logits)
        if ready:
            self._say(ready, torch.stack(found))

    def _plan(self) -> list[tuple[Row, Part]]:
        """Which tokens go into this step: the last of each answer, and of prompts in the order that they came."""
        rows = self._running()
        parts = [(row, Part(row.place, row.computed, len(row.ids))) for row in rows if row.writing]
        budget = _CHUNK if parts else _ALONE
        for row in sorted((row for row in rows if not row.writing), key=lambda row: row.job.began if row.job else 0):
            last = min(len(row.ids), row.computed + budget)
            if last > row.computed:
                parts.append((row, Part(row.place, row.computed, last)))
                self.read += last - row.computed
                budget -= last - row.computed
        longest = max(part.last for _, part in parts)
        store = self._shared.store
        places = max(store.places, 1 + max(part.place for _, part in parts))
        store.fit(places, max(longest, store.room))
        return parts

    def _computed(self, adapter: str | None, group: Sequence[tuple[Row, Part]]) -> list[tuple[Row, torch.Tensor]]:
        """Each row with its logits (V,). If the pass fails, each row goes alone, and that which fails alone is told."""
        try:
            logits = self._shared.logits(adapter, [part for _, part in group], [row.ids for row, _ in group])
            sound = logits.amax(dim=-1).isfinite().tolist()
        except Exception as error:  # whatever it is, its readers have to be told, and nobody else is to suffer
            if len(group) > 1:
                return [pair for one in group for pair in self._computed(adapter, [one])]
            self._fail(group[0][0], error)
            return []
        for row, part in group:
            row.computed = part.last
        found = [(row, logits[number]) for number, (row, _) in enumerate(group) if sound[number]]
        for number, (row, _) in enumerate(group):
            if not sound[number]:
                self._fail(row, problem("not-finite", Both("the model's logits are not finite numbers.",
                                                           "模型的 logits 不是有限的数。"), fix=Both(
                    "The weights of the model or the adapter are damaged.", "模型或适配器的权重已损坏。")))
        return found

    def _say(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """logits: (R, V)."""
        jobs = [row.job for row in rows if row.job]
        try:
            words = draw(logits, [job.drawing for job in jobs])
        except Exception as error:  # of what one request asks for: a schema that has come to its limits
            if len(rows) == 1:
                self._fail(rows[0], error)
            else:
                for number, row in enumerate(rows):
                    self._say([row], logits[number, None])
            return
        for row, job, drawn in zip(rows, jobs, words, strict=True):
            if job.take(drawn, self._vocabulary):
                self._done(job)
                self._leave(row)

    # ------------------------------------------------------------------------------------------------------- places

    def _join(self, job: Job) -> None:
        """Give a request a place: the one that knows most of its beginning already, or what that knows."""
        ids, adapter = job.ids, job.request.adapter
        free = [place for place, row in enumerate(self._rows) if row is None or row.job is None]
        known, source = max(((_common(row.ids[: row.computed], ids), -row.place) for row in self._rows
                             if row is not None and row.adapter == adapter), default=(0, 0))
        known, source = min(known, len(ids) - 1), -source
        if known < _SHARED:
            place, known = min(free, key=lambda place: (self._rows[place] is not None, place)), 0
        elif source in free:
            place = source
        else:
            place = min(free, key=lambda place: (self._rows[place] is not None, place))
            store = self._shared.store
            store.fit(max(store.places, place + 1), store.room)
            store.copy(source, place, known)
        self._rows[place] = Row(job, ids, adapter, place, known)

    def _leave(self, row: Row) -> None:
        """The place is free; what it knows is kept until somebody needs it."""
        row.job = None

    def _fail(self, row: Row, error: Exception) -> None:
        if row.job:
            row.job.fail(error)
        self._rows[row.place] = None
        self._shared.store.clear(row.place)

    def _fail_all(self, error: Exception) -> None:
        for row in self._running():
            if row.job:
                row.job.fail(error)
        self._forget()

    def _forget(self) -> None:
        """All places, and their memory."""
        self._shared.store.fit(0, 0)
        self._rows = [None] * len(self._rows)

    def _tidy(self) -> None:
        """Nobody is being answered: keep no more than `_KEPT` bytes."""
        if self._shared.store.bytes > _KEPT:
            self._forget()


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    size = min(len(one), len(other))
    if not size or one[0] != other[0]:
        return 0
    apart = np.flatnonzero(np.asarray(one[:size]) != np.asarray(other[:size]))
    return int(apart[0]) if len(apart) else size
