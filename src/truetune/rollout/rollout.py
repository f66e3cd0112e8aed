"""Answers that the model writes while it is trained, round by round: written, scored, and then learned from.

A round is a function of the weights that it begins with, the data and its number, and of nothing else: what is drawn is
seeded by it. So a run that is stopped while answers are written writes the same ones again, and a run that is stopped
between two steps of a round keeps them in its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import GenerationConfig

from truetune.check.preflight import Preflight
from truetune.checkpoint import Means
from truetune.data.batches import Batch, neighbours
from truetune.data.renderer import Rendered
from truetune.lesson import Lesson
from truetune.model.memory import SHARE, free_bytes
from truetune.model.policy import Policy
from truetune.model.reference import Reference
from truetune.objectives import Objective
from truetune.objectives.objective import Outputs
from truetune.options import Config
from truetune.rollout.questions import Questions, columns_of
from truetune.rollout.rewards import Answered, Reward, score
from truetune.serve.engine import sampling
from truetune.serve.generate import complete
from truetune.steps import Plan, round_of


@dataclass
class Written:
    """The answers of round `number` to the prompts of the rows `prompts`, as many to each, those of one prompt next to
    each other. columns: (N,) or (B,), what is known of them. metrics: of the round, until they are told."""

    number: int
    prompts: list[int]
    answers: list[Rendered]
    columns: dict[str, torch.Tensor]
    metrics: Means = field(default_factory=dict)


class Rollouts:
    """Lessons from answers that the model writes on the way.

    Args:
        reference: what the objective compares with, if it does.
        rewards: what scores the answers.
        stop: whether the user wants to stop, asked while answers are written.
    """

    def __init__(self, config: Config, ready: Preflight, objective: Objective, policy: Policy,
                 reference: Reference | None, rewards: Sequence[Reward], stop: Callable[[], bool]):
        plan = round_of(config)
        assert plan is not None
        self.round, self.batch = plan, config.rows_at_once
        self.a_step = config.rows_at_once * config.gradient_accumulation_steps  # answers
        self.train, self.renderer, self.objective, self.policy = ready.train, ready.renderer, objective, policy
        self.reference, self.rewards, self.stop = reference, rewards, stop
        self.weights = torch.tensor(config.reward_weights or [1.0] * len(rewards))
        drawn = config.with_values("rollouts", max_new_tokens=plan.tokens)
        self.generation = sampling(drawn, ready.renderer)
        self.greedy = sampling(drawn.with_values("evaluation", do_sample=False), ready.renderer)
        self.at_once = tokens_at_once(policy)
        used = {number for step in range(0, ready.plan.total_steps, ready.plan.steps_per_round)
                for batch in ready.plan.batches(step) for number in batch} if config.do_train else set()
        rows = [self.train[number] for number in used]
        rows += [rows[number] for rows in ready.held_out.values() for number in range(len(rows))]
        self.questions = Questions(config, (row.place for row in rows), ready.renderer)
        self._written: Written | None = None
        self._next = 0  # the step that comes next

    # ----------------------------------------------------------------------------------------------------- lessons

    def step(self, plan: Plan, step: int) -> Iterator[Lesson]:
        """The batches of an optimizer step: of answers written now, where the step begins a round.

        Raises:
            Stopped: the user wants to stop; nothing has happened. Unscored: the answers cannot be scored.
        """
        number, inside = divmod(step, plan.steps_per_round)
        if self._written is None or self._written.number != number:
            prompts = [number for batch in plan.batches(step) for number in batch]
            self._written = self._write(number, prompts, plan.seed)
        for some in self._batches(self._written, plan.seed, inside):
            yield self._lesson(self._written, some)
        self._next = step + 1

    def measure(self, name: str, rows: Sequence[Rendered], batches: Iterable[Sequence[int]]) -> Iterator[Lesson]:
        """One answer to each prompt, always of the likeliest words: what is measured does not depend on chance. The
        column `score` says what it is worth. Where nothing scores answers, those of the data are measured."""
        some = [list(batch) for batch in batches]
        if not self.rewards:
            yield from (self._beside(self.policy.lay_out([rows[number] for number in batch])) for batch in some)
            return
        asked = [rows[number] for batch in some for number in batch]
        answers, ended = self._answer(asked, 1, self.greedy)
        said = self._score(asked, answers, 1)
        total = self._total(said)
        metrics, first = self._metrics(said, total, answers, ended, 1), 0
        for batch in some:
            mine = slice(first, first + len(batch))
            yield Lesson(self.policy.lay_out(answers[mine]).knowing(score=self._on_device(total[mine])),
                         metrics=metrics if first == 0 else None)
            first += len(batch)

    def state(self) -> dict[str, torch.Tensor]:
        """The answers of a round of which steps are still to come; nothing between two rounds."""
        written = self._written
        if written is None or self._next % self.round.steps == 0:
            return {}
        own = [_answer_of(row) for row in written.answers]
        return {"round": torch.tensor(written.number), "prompts": torch.tensor(written.prompts),
                "ids": torch.from_numpy(np.concatenate(own)), "lengths": torch.tensor([len(ids) for ids in own]),
                **{f"column.{name}": column.cpu() for name, column in written.columns.items()}}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `state`."""
        if not state:
            return
        prompts = state["prompts"].tolist()
        own = torch.split(state["ids"], state["lengths"].tolist())
        rows = [self.train[number] for number in prompts for _ in range(len(own) // len(prompts))]
        answers = [row.answered(ids.numpy()) for row, ids in zip(rows, own, strict=True)]
        columns = {name.removeprefix("column."): self._on_device(column) for name, column in state.items()
                   if name.startswith("column.")}
        self._written = Written(int(state["round"]), prompts, answers, columns)

    # ----------------------------------------------------------------------------------------------------- a round

    def _write(self, number: int, prompts: list[int], seed: int) -> Written:
        """A round of answers, and what is to be learned from them."""
        rows = [self.train[prompt] for prompt in prompts]
        draw = np.random.default_rng((seed, number))
        first = int(draw.integers(2**63))
        if draw.random() >= self.round.share:
            return Written(number, prompts, rows, {})
        with torch.random.fork_rng():
            torch.manual_seed(first)
            answers, ended = self._answer(rows, self.round.answers, self.generation)
        said = self._score(rows, answers, self.round.answers)
        scores = self._total(said)
        outputs, reference = self._read(answers)
        batch = self.policy.lay_out(answers).knowing(ended=self._on_device(ended))
        columns = dict(self.objective.experience(self._on_device(scores), self.round.answers, outputs, reference,
                                                 batch))
        if outputs.logp is not None:
            columns["old"] = outputs.logp
        if reference is not None:
            columns["reference"] = reference
        return Written(number, prompts, answers, columns,
                       self._metrics(said, scores, answers, ended, self.round.answers))

    def _answer(self, rows: Sequence[Rendered], answers: int,
                generation: GenerationConfig) -> tuple[list[Rendered], torch.Tensor]:
        """Prompts with the answers that the model gives now, so many each, and (B,) whether each came to its end."""
        each = [row for row in rows for _ in range(answers)]
        prompts = [row.ids[: row.runs[-1].first].tolist() for row in each]
        with self.policy.generating() as causal:
            said = complete(causal, prompts, generation, self.at_once, self.stop)
        ends = set(self.renderer.stop_ids())
        whole = [row.answered(ids) for row, ids in zip(each, said, strict=True)]
        return whole, torch.tensor([float(ids[-1] in ends) for ids in said])

    def _score(self, rows: Sequence[Rendered], answers: Sequence[Rendered], each: int) -> torch.Tensor:
        """(B, R) what the rewards say of the answers, `each` to a row."""
        questions = [self.questions.of(row) for row in rows]
        ids = [_answer_of(row).tolist() for row in answers]
        texts = [str(self.renderer.tokenizer.decode(answer, skip_special_tokens=True)) for answer in ids]
        columns = columns_of(questions)
        if not self.rewards:
            return torch.full((len(answers), 0), math.nan)
        return score(self.rewards, Answered(
            prompts=[question.messages for question in questions for _ in range(each)],
            completions=[[{"role": "assistant", "content": text}] for text in texts], texts=texts, ids=ids,
            rows=list(answers), references=[question.answer for question in questions for _ in range(each)],
            columns={name: [value for value in column for _ in range(each)] for name, column in columns.items()}))

    def _total(self, said: torch.Tensor) -> torch.Tensor:
        """(B,) the weighted sum of (B, R) scores; nan where none applies."""
        total = (said * self.weights).nansum(dim=1)
        return total.masked_fill(said.isnan().all(dim=1), math.nan)

    def _read(self, answers: Sequence[Rendered]) -> tuple[Outputs, torch.Tensor | None]:
        """What the policy says of all tokens of the answers, where that will change or holds more than their
        log-probabilities; and the reference, where it is compared with."""
        objective = self.objective
        asks_policy = self.round.steps > 1 or objective.wants.values
        said: list[Outputs] = []
        beside: list[torch.Tensor] = []
        with self.policy.still():
            for numbers in neighbours(map(len, answers)) if asks_policy or objective.reference else ():
                batch = self.policy.lay_out([answers[number] for number in numbers])
                if asks_policy:
                    said.append(self.policy.outputs(batch, objective.wants))
                if objective.reference:
                    assert self.reference is not None
                    beside.append(self.reference.logp("", (), batch))
        read = Outputs(*(_joined([getattr(one, name) for one in said]) for name in ("logp", "tokens", "values")))
        return read, _joined(beside)

    def _metrics(self, said: torch.Tensor, scores: torch.Tensor, answers: Sequence[Rendered], ended: torch.Tensor,
                 each: int) -> Means:
        """What is told of a round: rewards, their spread within a group and the share of groups in which all answers
        earn the same; how long the answers are, and the share that was cut."""
        groups, count = scores.view(-1, each), len(answers)
        lengths = sum(row.runs[-1].last - row.runs[-1].first for row in answers)
        metrics = {"reward": _known(scores), **{
            f"reward/{reward.name}": _known(column) for reward, column in zip(self.rewards, said.T, strict=True)}}
        if each > 1:
            spread = groups.nan_to_num(0.0).std(dim=1)
            metrics |= {"reward_std": _known(spread), "same_share": _known((spread < 1e-6).float())}
        return metrics | {"completion_length": [float(lengths), count],
                          "cut_share": [count - float(ended.sum()), count]}

    # --------------------------------------------------------------------------------------------- steps of a round

    def _batches(self, written: Written, seed: int, inside: int) -> list[list[int]]:
        """Which answers the step number `inside` of a round learns from, batch by batch. Each pass over the round
        takes the prompts in another order, with their answers next to each other."""
        count, prompts = len(written.answers), len(written.prompts)
        steps = math.ceil(self.round.prompts * self.round.answers / self.a_step)
        past, index = divmod(inside, steps)
        order = np.random.default_rng((seed, written.number, past)).permutation(prompts)
        answers = (order[:, None] * (count // prompts) + np.arange(count // prompts)).ravel().tolist()
        # The last round of an epoch may be smaller, and is then divided evenly; no step is left with nothing.
        first = min(count * index // steps, count - 1)
        mine = answers[first : max(count * (index + 1) // steps, first + 1)]
        return [mine[start : start + self.batch] for start in range(0, len(mine), self.batch)]

    def _lesson(self, written: Written, numbers: Sequence[int]) -> Lesson:
        """Some answers of a round as a batch, with what is known of them."""
        lengths = np.array([row.runs[-1].last - row.runs[-1].first for row in written.answers])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        tokens = np.concatenate([np.arange(starts[number], starts[number + 1]) for number in numbers])
        places = {len(lengths): torch.tensor(list(numbers)), int(starts[-1]): torch.from_numpy(tokens)}
        columns = {name: column[places[len(column)].to(column.device)] for name, column in written.columns.items()}
        reference, metrics = columns.pop("reference", None), written.metrics
        written.metrics = {}
        batch = self.policy.lay_out([written.answers[number] for number in numbers]).knowing(**columns)
        return self._beside(batch, reference, metrics)

    def _beside(self, batch: Batch, logp: torch.Tensor | None = None, metrics: Means | None = None) -> Lesson:
        """A lesson with the reference's states, where the objective reads its whole distributions."""
        beside = self.reference.states(batch) if self.reference and self.objective.wants.beside else None
        return Lesson(batch, reference=logp, beside=beside, metrics=metrics)

    def _on_device(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers.to(self.policy.causal.device)


def tokens_at_once(policy: Policy) -> int:
    """How many tokens' keys and values have room: what is free, for the model as its config.json describes it."""
    values = policy.causal.config.get_text_config().to_dict()
    heads = values.get("num_attention_heads") or 1
    width = values.get("head_dim") or values["hidden_size"] // heads
    token = 2 * values["num_hidden_layers"] * (values.get("num_key_value_heads") or heads) * width
    room = SHARE / 2 * free_bytes(policy.causal.device)  # what is held is copied while it grows
    return max(1, int(room / (token * policy.causal.dtype.itemsize)))


def _answer_of(row: Rendered) -> np.ndarray:
    """The ids of the last answer of a row."""
    return row.ids[row.runs[-1].first : row.runs[-1].last]


def _joined(pieces: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    there = [piece for piece in pieces if piece is not None]
    return torch.cat(there) if there else None


def _known(numbers: torch.Tensor) -> list[float]:
    """The sum of what is known, and how many that are."""
    there = numbers[~numbers.isnan()]
    return [float(there.sum()), len(there)]
