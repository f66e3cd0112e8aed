"""Answers one after the other through transformers' `generate`: for models whose rows cannot share a forward pass.

Those are models behind virtual tokens, with layers that are no attention (state spaces), or with attention that takes
no function of ours. What is drawn, and how text is told, is the same as where rows share (`sampling`, `writing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from truetune.serve.detokenize import Vocabulary
from truetune.serve.generate import When
from truetune.serve.sampling import Schemas, draw
from truetune.serve.scheduler import Job, Limits, Scheduler

Using = Callable[[str | None], AbstractContextManager[Any]]
"""The model with the adapter of that name (None: as it was loaded)."""


class Single(Scheduler):
    """See the module's text. using: gives the model that `generate` is called on."""

    def __init__(self, using: Using, vocabulary: Vocabulary, schemas: Schemas, ends: Sequence[int], size: int,
                 limits: Limits, adapters: Sequence[str] = ()):
        super().__init__(vocabulary, schemas, ends, size, limits, adapters)
        self._using = using
        self._busy = False
        self._worker.start()

    def _free(self) -> int:
        return 0 if self._busy else 1

    def _work(self) -> None:
        while job := self._await():
            try:
                with torch.inference_mode(), self._using(job.request.adapter) as model:
                    self._answer(model, job)
            except Exception as error:  # whatever it is, the one who waits for this answer has to be told
                job.fail(error)
            self._done(job)

    def _await(self) -> Job | None:
        """The next job; None: the engine is closed."""
        with self._changed:
            self._busy = False
            while True:
                if self._ended:
                    for job in self._waiting:
                        job.abandon()
                    return None
                if job := self._next():
                    self._busy = True
                    return job
                self._changed.wait()

    def _answer(self, model: Any, job: Job) -> None:
        ids = torch.tensor([job.request.prompt], device=model.device)
        drawing = _Draw(job, self._vocabulary)
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), logits_processor=LogitsProcessorList([drawing]),
            stopping_criteria=StoppingCriteriaList([When(lambda: drawing.last or job.closed or self._ended)]),
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=self.limits.context, use_cache=True,
                                               pad_token_id=0))
        if not drawing.last and not job.closed:
            job.abandon()


class _Draw(LogitsProcessor):
    """Draws the word itself, and leaves `generate` no other choice."""

    def __init__(self, job: Job, vocabulary: Vocabulary):
        self._job, self._vocabulary, self.last = job, vocabulary, False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        (word,) = draw(scores, [self._job.drawing])
        self.last = self._job.take(word, self._vocabulary)
        chosen = torch.full_like(scores, -torch.inf)
        chosen[0, word.id] = 0
        return chosen
