"""GRPO and its variants: by hand arithmetic, and against TRL's trainer as an independent implementation."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from truetune.data.batches import Batch, collate
from truetune.data.renderer import Rendered, Run
from truetune.objectives.grpo import AVERAGES, Grpo, MeanReward, Settings, advantages
from truetune.objectives.objective import Loss, Outputs

NAN = math.nan


def batch_of(lengths: list[int], **columns: list[float]) -> Batch:
    """Answers of these lengths, each behind a prompt of 2 tokens."""
    rows = [Rendered(np.arange(2 + length), (Run(2, 2 + length, 1.0),)) for length in lengths]
    known = {"counts": [1.0] * len(lengths), "mean_length": [sum(lengths) / len(lengths)] * len(lengths), **columns}
    return collate(rows).knowing(**{name: torch.tensor(values) for name, values in known.items()})


def loss_of(settings: Settings, lengths: list[int], logp: list[float], reference: list[float] | None = None,
            **columns: list[float]) -> Loss:
    return Grpo(settings).loss(Outputs(logp=torch.tensor(logp)), None if reference is None else torch.tensor(reference),
                               batch_of(lengths, **columns))


# ---------------------------------------------------------------------------------------------------------- advantages


def test_advantages_by_hand():
    """Two prompts, four answers each. The spread of 1, 0, 0, 1 is 0.5774; equals teach nothing."""
    scores = torch.tensor([1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    lead = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    assert advantages(scores, 4, "group", "group").tolist() == pytest.approx([lead, -lead, -lead, lead, 0, 0, 0, 0])
    lead = 0.5 / (float(scores.std()) + 1e-4)
    assert advantages(scores, 4, "group", "batch").tolist() == pytest.approx([lead, -lead, -lead, lead, 0, 0, 0, 0])
    assert advantages(scores, 4, "group", "none").tolist() == [0.5, -0.5, -0.5, 0.5, 0, 0, 0, 0]


def test_leave_one_out_by_hand():
    """RLOO, equation 8: 3 is compared with the mean of 0, 0 and 1, and so on."""
    scores = torch.tensor([3.0, 0.0, 0.0, 1.0])
    assert advantages(scores, 4, "leave_one_out", "none").tolist() == pytest.approx([8 / 3, -4 / 3, -4 / 3, 0])


def test_an_answer_without_a_score_is_left_out():
    """It moves nothing, and is no part of the mean that the others are compared with."""
    scores = torch.tensor([1.0, 0.0, NAN, 5.0, NAN, NAN])
    assert advantages(scores, 3, "group", "none").tolist() == [0.5, -0.5, 0, 0, 0, 0]
    assert advantages(scores, 3, "leave_one_out", "none").tolist() == [1, -1, 0, 0, 0, 0]


# --------------------------------------------------------------------------------------------------- the loss by hand


@pytest.mark.parametrize(("rho", "advantage", "gain"), [
    (1.5, 1, 1.28), (1.5, -1, -1.5), (0.5, 1, 0.5), (0.5, -1, -0.8), (1.1, 1, 1.1), (0.9, -1, -0.9)])
def test_the_ratio_is_clipped(rho, advantage, gain):
    """Above 1 + epsilon_high only where it would gain, below 1 - epsilon only where it would."""
    loss = loss_of(Settings(epsilon_high=0.28), [1], [math.log(rho)], old=[0.0], advantage=[float(advantage)])
    assert float(loss.sum) == pytest.approx(-gain)
    assert loss.metrics["clip_share"] == (float(abs(gain) != rho), 1)


def test_the_distance_to_the_reference_by_hand():
    """Equation 4 where the reference finds a token twice as likely: 2 - log 2 - 1."""
    loss = loss_of(Settings(beta=0.1), [1], [math.log(0.25)], [math.log(0.5)], advantage=[0.0])
    assert float(loss.sum) == pytest.approx(0.1 * (1 - math.log(2)))
    assert loss.metrics["kl"] == (pytest.approx(1 - math.log(2)), 1)


@pytest.mark.parametrize(("kind", "mean"), [
    ("grpo", (-1 * 1 + 2 * 1) / 2),  # each answer is averaged first
    ("dapo", (-1 * 1 + 2 * 3) / 4), ("bnpo", (-1 * 1 + 2 * 3) / 4),  # every token counts alike
    ("dr_grpo", (-1 * 1 + 2 * 3) / (2 * 10))])  # divided by the longest length allowed
def test_how_tokens_are_averaged(kind, mean):
    """An answer of 1 token with advantage 1, one of 3 tokens with -2."""
    loss = loss_of(Settings(loss_type=kind, longest=10), [1, 3], [-1.0] * 4, advantage=[1.0, -2.0])
    assert float(loss.sum) / loss.weight == pytest.approx(mean)


def test_dapo_averages_over_the_round_and_bnpo_over_the_step():
    """A step whose answers have 2 tokens on average, of a round in which they have 4."""
    given = {"advantage": [1.0, 1.0], "mean_length": [4.0, 4.0]}
    assert loss_of(Settings(loss_type="dapo"), [1, 3], [-1.0] * 4, **given).weight == 8
    assert loss_of(Settings(loss_type="bnpo"), [1, 3], [-1.0] * 4, **given).weight == 4


def test_one_ratio_for_a_whole_answer():
    """GSPO, equation 7: the geometric mean of the tokens' ratios."""
    settings = Settings(loss_type="grpo", importance_sampling_level="sequence", epsilon=0.5)
    loss = loss_of(settings, [2], [math.log(1.6), math.log(0.9)], old=[0.0, 0.0], advantage=[1.0])
    assert float(loss.sum) == pytest.approx(-math.sqrt(1.6 * 0.9))


def test_fresh_answers_teach_by_the_gradient_of_their_log_probability():
    """Equation 21: where the answers are the policy's own, d L / d log pi = - A, though the loss is just - A."""
    logp = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    loss = Grpo(Settings()).loss(Outputs(logp=logp), None, batch_of([1, 2], advantage=[0.5, -1.5]))
    loss.sum.backward()
    assert logp.grad is not None and logp.grad.tolist() == [-0.5, 1.5, 1.5]


def test_nothing_is_learned_from_answers_that_were_cut():
    """They have an advantage, which does not count; nor do their tokens in an average over tokens."""
    objective = Grpo(Settings(mask_truncated_completions=True))
    batch = batch_of([2, 4], ended=[1.0, 0.0])
    told = objective.experience(torch.tensor([0.0, 1.0]), 2, Outputs(), None, batch)
    assert told["counts"].tolist() == [1, 0] and told["mean_length"].tolist() == [1, 1]
    loss = objective.loss(Outputs(logp=torch.zeros(6)), None, batch.knowing(**told))
    assert float(loss.sum) == pytest.approx(-2 * float(told["advantage"][0])) and loss.weight == 2


def test_a_step_of_cut_answers_alone_divides_by_nothing():
    for kind in AVERAGES:
        loss = loss_of(Settings(loss_type=kind), [2, 3], [-1.0] * 5, counts=[0.0, 0.0], mean_length=[0.5, 0.5],
                       advantage=[1.0, 1.0])
        assert float(loss.sum) / loss.weight == 0


def test_held_out_prompts_are_measured_by_their_mean_reward():
    loss = MeanReward().loss(Outputs(), None, batch_of([1, 1, 1], score=[1.0, 0.5, NAN]))
    assert (float(loss.sum), loss.weight) == (-1.5, 2)


# ------------------------------------------------------------------------------------------------ independent of others


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_how_a_step_is_cut_into_batches_changes_nothing(kind, level):
    """8 x 1 == 4 x 2 == 3 + 3 + 2: sums and divisors add up."""
    torch.manual_seed(1)
    settings = Settings(loss_type=kind, importance_sampling_level=level, beta=0.1)
    lengths = [3, 1, 7, 2, 5, 4, 1, 6]
    count = sum(lengths)
    logp, old, reference, known = torch.randn(count), torch.randn(count), torch.randn(count), torch.randn(8)

    def mean(borders: list[int]) -> float:
        total = weight = 0.0
        for first, last in pairwise(borders):
            begin, end = sum(lengths[:first]), sum(lengths[:last])
            batch = batch_of(lengths[first:last], mean_length=[count / 8] * (last - first)).knowing(
                advantage=known[first:last], old=old[begin:end])
            loss = Grpo(settings).loss(Outputs(logp=logp[begin:end]), reference[begin:end], batch)
            total, weight = total + float(loss.sum), weight + loss.weight
        return total / weight

    whole = mean([0, 8])
    assert mean([0, 4, 8]) == pytest.approx(whole, rel=1e-5)
    assert mean([0, 3, 6, 8]) == pytest.approx(whole, rel=1e-5)


@pytest.fixture(scope="module")
def trl_loss() -> Any:
    """TRL's loss, of log-probabilities that are given: (settings, matrices) → a number to differentiate."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    def loss(settings: Settings, logp: torch.Tensor, mask: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        trainer: Any = GRPOTrainer.__new__(GRPOTrainer)
        high = settings.epsilon_high or settings.epsilon
        vars(trainer).update(
            _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
            args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1), use_vllm=False,
            model=SimpleNamespace(training=True), accelerator=SimpleNamespace(
                num_processes=1, gather=lambda tensor: tensor, reduce=lambda tensor, reduction: tensor),
            top_entropy_quantile=1.0, off_policy_mask_threshold=None, aux_loss_enabled=False,
            _entropy_bonus_enabled=False, current_gradient_accumulation_steps=1,
            _metrics=defaultdict(lambda: defaultdict(list)),
            epsilon_low=settings.epsilon, epsilon_high=high, beta=settings.beta, loss_type=settings.loss_type,
            importance_sampling_level=settings.importance_sampling_level, max_completion_length=settings.longest)
        ids = torch.zeros(len(mask), 1, dtype=torch.long)
        return trainer._compute_loss(None, {
            "prompt_ids": ids, "prompt_mask": ids, "completion_ids": mask, "completion_mask": mask,
            "num_items_in_batch": mask.sum(), **inputs})

    return loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_loss_and_gradient_are_those_of_trl(trl_loss, kind, level, beta, dtype):
    """On answers of odd lengths, in two precisions: TRL pads them into a matrix, here they lie end to end."""
    torch.manual_seed(7)
    settings = Settings(loss_type=kind, importance_sampling_level=level, beta=beta, epsilon_high=0.28, longest=11)
    lengths = [3, 1, 11, 2, 5]
    mask = (torch.arange(11) < torch.tensor(lengths)[:, None]).long()
    there = mask.bool()
    logp = (-torch.rand(5, 11)).to(dtype).float()  # as a model of this precision gives them
    old, reference = ((logp + torch.randn(5, 11) * 0.4).to(dtype).float() for _ in range(2))
    advantage = torch.randn(5)
    theirs = logp.clone().requires_grad_()
    expected = trl_loss(settings, theirs, mask, advantages=advantage, old_per_token_logps=old,
                        ref_per_token_logps=reference)
    expected.backward()

    ours = logp[there].clone().requires_grad_()
    batch = batch_of(lengths).knowing(advantage=advantage, old=old[there])
    loss = Grpo(settings).loss(Outputs(logp=ours), reference[there] if beta else None, batch)
    (loss.sum / loss.weight).backward()
    assert loss.sum.item() / loss.weight == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert theirs.grad is not None and ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad[there], rtol=1e-4, atol=1e-6)
