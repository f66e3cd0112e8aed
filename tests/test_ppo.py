"""PPO: its equations by hand and against the papers' own sums, and a run that learns from what it writes."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from conftest import events, options, write_rows
from safetensors.torch import load_file

from truetune.objectives.objective import Outputs
from truetune.objectives.ppo import (
    Moments,
    Ppo,
    adapt,
    estimate_advantages,
    policy_losses,
    reward_tokens,
    value_losses,
    whiten,
)
from truetune.options.read import read_config
from truetune.report import Terminal
from truetune.train import train


def ppo(**more: object) -> Ppo:
    config, _ = read_config(options(stage="ppo", **more))
    return Ppo(config)


@dataclass
class Answers:
    """Learned tokens of some rows, all that an objective sees of a batch."""

    rows: torch.Tensor
    size: int
    columns: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def weights(self) -> torch.Tensor:
        return torch.ones(len(self.rows))

    @property
    def targets(self) -> torch.Tensor:
        return torch.zeros(len(self.rows), dtype=torch.long)

    @property
    def sequences(self) -> list[None]:
        return [None] * self.size


ROWS = torch.tensor([0, 0, 0, 1])


# -- rewards and advantages

def test_tokens_pay_for_leaving_the_reference_and_the_score_comes_last() -> None:
    """Two answers of three tokens and one, scores 1 and -2, and what each token pays."""
    paid = torch.tensor([-0.1, 0.0, -0.3, -0.5])
    assert reward_tokens(torch.tensor([1.0, -2.0]), paid, ROWS).tolist() == pytest.approx([-0.1, 0.0, 0.7, -2.5])


def test_a_row_without_a_token_takes_no_score() -> None:
    """Row 1 has nothing learned: its score belongs to nobody's token."""
    paid, rows = torch.zeros(3), torch.tensor([0, 0, 2])
    assert reward_tokens(torch.tensor([1.0, 5.0, 3.0]), paid, rows).tolist() == [0.0, 1.0, 3.0]


def test_advantages_by_hand() -> None:
    """gamma 0.5, lambda 0.5: delta = (0 + 0.5 * 2 - 1, 0 + 0.5 * 4 - 2, 1 - 4) = (0, 0, -3), so A_3 = -3,
    A_2 = -3 / 4, A_1 = -3 / 16. The next row begins anew: A = 2 - 0.5."""
    rewards, values = torch.tensor([0.0, 0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 4.0, 0.5])
    assert estimate_advantages(rewards, values, ROWS, 0.5, 0.5).tolist() == [-0.1875, -0.75, -3.0, 1.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_advantages_are_the_papers_sum(dtype: torch.dtype, gamma: float, lam: float) -> None:
    """Equation 16 of Schulman et al. 2015 as it is printed, term by term: rows of odd lengths, one of them without a
    token."""
    torch.manual_seed(0)
    lengths = [7, 1, 0, 13, 2]
    rows = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))
    rewards, values = torch.randn(2, len(rows), dtype=dtype)
    expected = []
    for length, first in zip(lengths, [0, 7, 8, 8, 21], strict=True):
        r, v = rewards[first : first + length].tolist(), [*values[first : first + length].tolist(), 0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        expected += [sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, length)) for t in range(length)]
    found = estimate_advantages(rewards, values, rows, gamma, lam)
    assert found.dtype == dtype
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_advantages_of_nothing_are_nothing() -> None:
    assert estimate_advantages(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long), 1, 1).shape == (0,)


def test_with_lambda_1_the_return_is_what_was_got() -> None:
    """Then R_t = sum of the rewards from t on, whatever the value head said."""
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 4)
    returns = estimate_advantages(rewards, values, ROWS, 1, 1) + values
    later = [float(rewards[0:3].sum()), float(rewards[1:3].sum()), float(rewards[2]), float(rewards[3])]
    assert returns.tolist() == pytest.approx(later, abs=1e-6)


def test_whitening_by_hand() -> None:
    """1, 2, 3 have mean 2 and spread 1. Rewards keep their mean."""
    numbers = torch.tensor([10.0, 20.0, 30.0])
    assert whiten(numbers).tolist() == pytest.approx([-1.0, 0.0, 1.0])
    assert whiten(numbers, centre=False).tolist() == pytest.approx([19.0, 20.0, 21.0])


def test_whitening_of_one_number_or_equal_ones_is_finite() -> None:
    assert whiten(torch.tensor([3.0])).tolist() == [0.0]
    assert whiten(torch.tensor([3.0, 3.0, 3.0])).tolist() == [0.0, 0.0, 0.0]


def test_moments_over_rounds_are_those_of_all_numbers() -> None:
    """However the scores were cut into rounds, and also far from 0."""
    torch.manual_seed(0)
    numbers = 1e4 + torch.randn(11, dtype=torch.float64)
    moments = Moments()
    for first, last in ((0, 1), (1, 2), (2, 7), (7, 11)):
        moments.see(numbers[first:last])
    assert moments.mean == pytest.approx(float(numbers.mean()), rel=1e-12)
    whole = (numbers - numbers.mean()) / numbers.std()
    assert moments.normalised(numbers).tolist() == pytest.approx(whole.tolist(), rel=1e-6)


def test_one_score_alone_has_no_spread() -> None:
    moments = Moments()
    moments.see(torch.tensor([3.0]))
    assert moments.normalised(torch.tensor([3.0, 5.0])).tolist() == pytest.approx([0.0, 2.0])


# -- losses

def test_policy_loss_by_hand() -> None:
    """epsilon 0.2, ratios 2 and 1/2. A good token (A = 3) that became likelier is held at 1.2, one that became less
    likely is not; a bad token (A = -3) the other way round."""
    ratios = torch.tensor([2.0, 0.5, 2.0, 0.5])
    losses, clipped = policy_losses(ratios.log(), torch.zeros(4), torch.tensor([3.0, 3.0, -3.0, -3.0]), 0.2)
    assert losses.tolist() == pytest.approx([-3.6, -1.5, 6.0, 2.4])
    assert clipped.tolist() == [1, 0, 0, 1]


def test_a_clipped_token_pulls_no_more() -> None:
    """That is what the clipping is for: no gradient where it decides, and A rho where it does not."""
    logp = torch.tensor([2.0, 0.5, 2.0, 0.5]).log().requires_grad_()
    policy_losses(logp, torch.zeros(4), torch.tensor([3.0, 3.0, -3.0, -3.0]), 0.2)[0].sum().backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([0.0, -1.5, 6.0, 0.0])


def test_value_loss_by_hand() -> None:
    """Old value 0, epsilon 0.2, return 1. A value of 0.5 is held at 0.2: the worse error counts, 0.8² / 2. A value of
    -1 is held at -0.2 and is worse as it is: 2² / 2. One of 0.1 is not held: 0.9² / 2."""
    losses = value_losses(torch.tensor([0.5, -1.0, 0.1]), torch.zeros(3), torch.ones(3), 0.2)
    assert losses.tolist() == pytest.approx([0.32, 2.0, 0.405])


def test_the_penalty_follows_the_distance() -> None:
    """Twice the target is 20 % off at most: 64 answers of a horizon of 10,000 raise beta by 0.2 * 0.0064. Half the
    target lowers it as much; at the target it stays."""
    assert adapt(0.2, 12.0, 6.0, 64) == pytest.approx(0.2 * (1 + 0.2 * 0.0064))
    assert adapt(0.2, 3.0, 6.0, 64) == pytest.approx(0.2 * (1 - 0.2 * 0.0064))
    assert adapt(0.2, 6.6, 6.0, 64) == pytest.approx(0.2 * (1 + 0.1 * 0.0064))
    assert adapt(0.2, 6.0, 6.0, 64) == 0.2


# -- the objective

def round_of(objective: Ppo) -> tuple[Answers, Outputs, torch.Tensor]:
    """A round of two answers and what is known of it."""
    said = Outputs(torch.tensor([-1.0, -2.0, -1.5, -0.5]), None, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    reference = torch.tensor([-1.5, -2.0, -1.0, -1.5])
    answers = Answers(ROWS, 2)
    known = objective.experience(torch.tensor([1.0, -1.0]), 1, said, reference, answers)
    answers.columns = {**known, "old": said.logp}
    return answers, said, reference


def test_experience_by_hand() -> None:
    """beta 0.2, lambda 1: r = (-0.1, 0, 0.1 + 1, -0.2 - 1); A = sum of what is to come - V, then whitened over the four
    tokens; KL of the answers 0.5 + 0 - 0.5 = 0 and 1."""
    answers, said, _ = round_of(ppo(ppo_lambda=1))
    known = answers.columns
    raw = [1.0 - 0.1, 1.1 - 0.2, 1.1 - 0.3, -1.2 - 0.4]
    assert known["returns"].tolist() == pytest.approx([1.0, 1.1, 1.1, -1.2])
    assert known["advantages"].tolist() == pytest.approx(whiten(torch.tensor(raw)).tolist())
    assert known["kl"].tolist() == pytest.approx([0.0, 1.0])
    assert known["values"].tolist() == said.values.tolist()


def test_the_first_loss_of_a_round() -> None:
    """Before the first step rho = 1, so the policy's loss is minus the sum of the advantages, which are whitened: 0.
    What is left is the value head's: 0.1 / 2 times the squared errors."""
    answers, said, reference = round_of(ppo(ppo_lambda=1))
    loss = ppo().loss(said, reference, answers)
    errors = [0.9, 0.9, 0.8, -1.6]
    assert float(loss.sum) == pytest.approx(0.1 / 2 * sum(e * e for e in errors), abs=1e-6)
    assert loss.weight == 4
    told = {name: total / count for name, (total, count) in loss.metrics.items()}
    assert told == pytest.approx({
        "kl": 0.5, "kl_coef": 0.2, "policy_loss": 0.0, "clip_share": 0.0, "entropy": 1.25,
        "value_loss": sum(e * e for e in errors) / 8}, abs=1e-6)


def test_the_loss_of_a_round_is_the_sum_over_its_parts() -> None:
    """So accumulation changes nothing: both answers together, or one after the other."""
    objective = ppo()
    answers, said, reference = round_of(objective)
    now = Outputs(said.logp + torch.tensor([0.3, -0.4, 0.1, 0.2]), None, said.values + 0.3)
    whole = objective.loss(now, reference, answers)
    parts = []
    for row, tokens in ((0, slice(0, 3)), (1, slice(3, 4))):
        columns = {name: column[tokens] if len(column) == 4 else column[row : row + 1]
                   for name, column in answers.columns.items()}
        part = Answers(torch.zeros(tokens.stop - tokens.start, dtype=torch.long), 1, columns)
        parts.append(objective.loss(Outputs(now.logp[tokens], None, now.values[tokens]), reference[tokens], part))
    assert float(whole.sum) == pytest.approx(float(parts[0].sum + parts[1].sum), rel=1e-6)
    assert whole.weight == parts[0].weight + parts[1].weight


def test_beta_moves_after_a_round_and_is_logged_as_it_was() -> None:
    """Two answers, 0.5 nats away with a target of 6: at most 20 % off."""
    objective = ppo()
    answers, *_ = round_of(objective)
    assert answers.columns["kl_coef"].tolist() == pytest.approx([0.2, 0.2])
    assert objective.kl_coef == pytest.approx(0.2 * (1 - 0.2 * 2 / 10_000))
    fixed = ppo(ppo_adaptive_kl="false", ppo_kl_coef=0.05)
    round_of(fixed)
    assert fixed.kl_coef == 0.05


def test_normalised_scores() -> None:
    """Scores 1 and -1 have mean 0 and spread sqrt(2)."""
    objective = ppo(ppo_score_norm="true", ppo_lambda=1, ppo_kl_coef=0)
    answers, *_ = round_of(objective)
    last = 1 / math.sqrt(2)
    assert answers.columns["returns"].tolist() == pytest.approx([last, last, last, -last])


def test_an_answer_that_nobody_scored_counts_as_the_mean_of_the_others() -> None:
    """And with a whole round unscored, as nothing."""
    for scores, worth in (([2.0, math.nan], 2.0), ([math.nan, math.nan], 0.0)):
        objective = ppo(ppo_lambda=1, ppo_kl_coef=0, ppo_score_norm="true")
        known = objective.experience(torch.tensor(scores), 1, Outputs(torch.zeros(4), None, torch.zeros(4)),
                                     torch.zeros(4), Answers(ROWS, 2))
        assert known["returns"].isfinite().all()
        plain = ppo(ppo_lambda=1, ppo_kl_coef=0).experience(
            torch.tensor(scores), 1, Outputs(torch.zeros(4), None, torch.zeros(4)), torch.zeros(4), Answers(ROWS, 2))
        assert plain["returns"].tolist() == [worth] * 4


def test_whitened_rewards_keep_their_mean() -> None:
    """Rewards -0.1, 0, 1.1, -1.2 have mean -0.05."""
    answers, *_ = round_of(ppo(ppo_whiten_rewards="true", ppo_lambda=1))
    rewards = torch.tensor([-0.1, 0.0, 1.1, -1.2])
    scaled = (rewards + 0.05) / rewards.std() - 0.05
    assert answers.columns["returns"][2:].tolist() == pytest.approx(scaled[2:].tolist())


def test_what_is_carried_from_round_to_round() -> None:
    """An objective that was loaded goes on exactly like the one that was saved."""
    one, other = ppo(ppo_score_norm="true"), ppo(ppo_score_norm="true")
    round_of(one)
    other.load_state(MappingProxyType(one.state()))
    assert other.state() == one.state() != ppo().state()
    first, second = round_of(one)[0].columns, round_of(other)[0].columns
    assert all(torch.equal(column, second[name]) for name, column in first.items())
    assert one.state() == other.state()
    assert ppo(temperature=0.7).temperature == 0.7
    assert ppo(temperature=0).temperature == ppo(do_sample="false").temperature == 1



def test_it_learns_what_is_rewarded() -> None:
    """A policy as small as can be: five words, drawn with probabilities softmax(theta), answers of one to three words,
    scored by the share of one word. After 40 rounds that word is nearly all it says, and the value head knows."""
    torch.manual_seed(0)
    objective = ppo(ppo_kl_coef=0.01)
    theta, value = torch.zeros(5, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer, score = torch.optim.Adam([theta, value], lr=0.05), torch.zeros(32)
    for _ in range(40):
        rows = torch.repeat_interleave(torch.arange(32), torch.randint(1, 4, (32,)))
        words = torch.multinomial(theta.detach().softmax(0), len(rows), replacement=True)
        score = torch.zeros(32).index_add(0, rows, (words == 3).float()) / torch.bincount(rows)
        answers, reference = Answers(rows, 32), torch.full((len(rows),), -math.log(5))

        def said(words: torch.Tensor = words) -> Outputs:
            return Outputs(theta.log_softmax(0)[words], None, value.repeat(len(words)))

        with torch.no_grad():
            old = said()
            answers.columns = {**objective.experience(score, 1, old, reference, answers), "old": old.logp}
        for _ in range(4):
            loss = objective.loss(said(), reference, answers)
            optimizer.zero_grad()
            (loss.sum / loss.weight).backward()
            optimizer.step()
    assert float(theta.softmax(0)[3]) > 0.9
    assert float(value) == pytest.approx(float(score.mean()), abs=0.2)


# -- a run

def test_going_on_in_the_middle_of_a_round(tiny: Path, tmp_path: Path) -> None:
    """A checkpoint after the first of a round's two steps holds its answers: the second step, and the round after it,
    are those of the run that was not stopped, bit for bit. A function of the user needs no reward model."""
    (tmp_path / "reward.py").write_text(
        "def letters(completions, **known):\n    return [answer[0]['content'].count('e') for answer in completions]\n",
        encoding="utf-8")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    task = {"stage": "ppo", "model_name_or_path": tiny, "dataset": write_rows(tmp_path / "rows.json", 4),
            "reward_funcs": f"{tmp_path}/reward.py:letters", "per_device_train_batch_size": 2, "lora_rank": 4,
            "gradient_accumulation_steps": 1, "max_completion_length": 4, "use_cpu": True, "bf16": "false",
            "ppo_epochs": 2, "ppo_score_norm": "true", "learning_rate": 1e-3, "logging_steps": 1, "max_steps": 4}
    for folder, more in ((whole, {"save_strategy": "steps", "save_steps": 1}),
                         (parts, {"save_strategy": "no", "resume_from_checkpoint": whole / "checkpoint-1"})):
        config, _ = read_config(options(output_dir=folder, **task, **more))
        train(config, Terminal(file=io.StringIO(), soft_wrap=True, width=200), checked=False)
    for file in ("adapter_model.safetensors", "value_head.safetensors"):
        one, other = load_file(whole / file), load_file(parts / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    told = ("reward", "kl", "kl_coef", "policy_loss", "value_loss")
    shown = [[{name: event[name] for name in told if name in event} for event in events(folder)]
             for folder in (whole, parts)]
    assert shown[0][1:] == shown[1]
