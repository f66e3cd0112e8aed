"""Answers that the model writes while it is trained: drawn, scored, learned from, interrupted, gone on with.

Runs are real, on two layers of the real model, in this process. The rewards are functions in a file of the test.
"""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import events, options, write_rows
from safetensors.torch import load_file
from transformers import GenerationConfig

from truetune.cli import main
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.model.load import load_model
from truetune.model.policy import Policy
from truetune.objectives.grpo import Grpo, Settings
from truetune.objectives.objective import Outputs
from truetune.rollout.rollout import Rollouts, Written
from truetune.serve.generate import Stopped, complete
from truetune.steps import Plan, Round

REWARDS = """
import os, signal
from pathlib import Path

def letters(completions, **kwargs):
    "The share of an answer that is a, e or o: something that every answer has more or less of."
    said = [message[0]["content"] for message in completions]
    return [sum(text.count(letter) for letter in "aeo") / max(len(text), 1) for text in said]

def breaks(completions, **kwargs):
    "Works twice."
    calls = Path(__file__).with_name("calls")
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    return letters(completions) if len(calls.read_text()) < 3 else [1.0]

def stops(completions, **kwargs):
    "As letters, but at the second call the user presses Ctrl-C, once."
    calls = Path(__file__).with_name("calls")
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    if len(calls.read_text()) == 2:
        os.kill(os.getpid(), signal.SIGINT)
    return letters(completions)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and rewards, where the command line is called."""
    monkeypatch.chdir(tmp_path)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test started in the background has it switched off
    (tmp_path / "mine.py").write_text(REWARDS, encoding="utf-8")
    write_rows(tmp_path / "rows.json", count=8)
    return tmp_path


def train(tiny: Path, reward: str = "letters", status: int = 0, **changed: object) -> None:
    """`truetune train` for rounds of 8 answers, 4 to a prompt."""
    given = {"model_name_or_path": tiny, "dataset": "rows.json", "output_dir": "run", "stage": "grpo",
             "use_cpu": True, "reward_funcs": f"mine.py:{reward}", "per_device_train_batch_size": 8,
             "num_generations": 4, "max_completion_length": 8, "learning_rate": 3e-3, "max_steps": 4, "bf16": False,
             "logging_steps": 1, "plot_loss": False, "save_strategy": "no", **changed}
    assert main(["train", *options(**given)]) == status


def told(run: str = "run", *names: str) -> list[tuple[float, ...]]:
    """These numbers of every step."""
    return [tuple(event[name] for name in names or ("loss", "grad_norm", "reward")) for event in events(Path(run))]


def weights(run: str) -> dict[str, torch.Tensor]:
    files = sorted(Path(run).glob("*.safetensors"))
    return {name: tensor for path in files for name, tensor in load_file(path).items()}


# ------------------------------------------------------------------------------------------------------- whole runs


def test_a_reward_rises(tiny, here):
    """Ten rounds on the same eight prompts: answers with more of three letters than before."""
    train(tiny, learning_rate=1e-2, max_steps=10, lr_scheduler_type="constant", per_device_train_batch_size=16,
          num_generations=8, max_completion_length=6)
    rewards = [reward for (reward,) in told("run", "reward")]
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.03, rewards


@pytest.mark.parametrize(("method", "rate"), [("lora", 1e-2), ("full", 1e-4), ("freeze", 3e-4)])
def test_what_is_trained_moves_and_nothing_else(tiny, here, method, rate):
    train(tiny, finetuning_type=method, learning_rate=rate, max_steps=2, freeze_trainable_layers=1)
    before, after = load_model(tiny, torch.float32, torch.device("cpu")).state_dict(), weights("run")
    moved = {name for name, tensor in after.items() if name not in before or not torch.equal(tensor, before[name])}
    frozen = set() if method != "freeze" else {name for name in after if "layers.1." not in name}
    assert moved == after.keys() - frozen
    if method == "lora":
        assert all(after[name].any() for name in after if "lora_B" in name)


def test_what_is_told_of_a_round(tiny, here):
    """Rewards by name and together, how they spread, how long answers are; of several steps of a round at the first."""
    train(tiny, reward="letters,length_penalty", reward_weights="1,0.5", max_steps=4, num_iterations=2)
    first, second, third, _ = events(here / "run")
    assert first["reward"] == pytest.approx(first["reward/letters"] + 0.5 * first["reward/length_penalty"])
    assert 1 <= first["completion_length"] <= 8 and 0 <= first["cut_share"] <= 1 and first["reward_std"] > 0
    assert first["same_share"] == 0 and first["clip_share"] == 0
    assert "reward" not in second and "reward" in third


def test_every_round_draws_anew(tiny, here):
    """Two prompts, asked in every round of a model that hardly changes: other answers each time."""
    write_rows(here / "rows.json", count=2)
    train(tiny, learning_rate=1e-9, max_steps=3)
    assert len({reward for (reward,) in told("run", "reward")}) == 3


def test_held_out_prompts_are_answered_greedily_and_scored(tiny, here):
    """Evaluating draws nothing: training goes on as without, and the same model is measured the same twice."""
    train(tiny, max_steps=2)
    plain = told()
    train(tiny, output_dir="watched", max_steps=2, eval_dataset="rows.json", eval_strategy="steps",
          eval_steps=1)
    assert told("watched") == plain
    evaluations = events(here / "watched", "eval")
    assert [event["eval_loss"] for event in evaluations] == pytest.approx(
        [-event["eval_reward/letters"] for event in evaluations])
    train(tiny, output_dir="only", model_name_or_path=tiny, adapter_name_or_path="watched", do_train=False,
          do_eval=True, eval_dataset="rows.json", per_device_eval_batch_size=3)
    (again,) = events(here / "only", "eval")
    assert again["eval_reward"] == pytest.approx(evaluations[-1]["eval_reward"])


def test_batch_size_and_accumulation_change_nothing(tiny, here):
    """8 x 1 == 2 x 4: the same answers, the same losses, to rounding."""
    train(tiny, max_steps=2, num_iterations=2)
    train(tiny, max_steps=2, num_iterations=2, output_dir="small", per_device_train_batch_size=2,
          gradient_accumulation_steps=4)
    for whole, parts in zip(told("run", "loss", "grad_norm"), told("small", "loss", "grad_norm"), strict=True):
        assert parts == pytest.approx(whole, rel=1e-3, abs=1e-6)


def test_answers_of_one_token_are_learned(tiny, here):
    """As many tokens as answers: nothing takes the ones for the others."""
    train(tiny, max_completion_length=1, beta=0.1, num_iterations=2, max_steps=2)
    assert all(math.isfinite(number) for step in told("run", "loss", "grad_norm", "kl") for number in step)


def test_the_distance_to_the_reference_begins_at_0_and_grows(tiny, here):
    """The reference is the model that training starts from: the adapter switched off."""
    train(tiny, beta=0.01, learning_rate=1e-2, max_steps=3)
    (first,), *_, (last,) = told("run", "kl")
    assert first == pytest.approx(0, abs=1e-6) and last > 1e-5


# ---------------------------------------------------------------------------------- a run that is stopped loses nothing


def test_a_run_that_goes_on_within_a_round_is_the_same_run(tiny, here):
    """Rounds of 16 answers in two steps, twice over: four steps from the same answers. From a checkpoint after the
    second of them and from one after the fifth the run ends in the same bits."""
    given = {"max_steps": 6, "steps_per_generation": 2, "num_iterations": 2, "beta": 0.05, "save_strategy": "steps",
             "save_steps": 1}
    train(tiny, **given)
    names = ("loss", "grad_norm", "kl", "clip_share")
    whole, end = told("run", *names), weights("run")
    assert [bool(load_file(here / f"run/checkpoint-{step}/lessons.safetensors")) for step in range(1, 7)] == [
        True, True, True, False, True, True]
    for step in (2, 5):
        train(tiny, **given, output_dir=f"from{step}", resume_from_checkpoint=f"run/checkpoint-{step}")
        assert told(f"from{step}", *names)[-(6 - step):] == whole[step:]
        assert all(torch.equal(tensor, end[name]) for name, tensor in weights(f"from{step}").items())


def test_ctrl_c_while_answers_are_scored(tiny, here):
    """What was written of the second round is thrown away, and written again when the run goes on: the same run."""
    train(tiny)
    train(tiny, reward="stops", output_dir="stopped", status=130)
    assert json.loads((here / "stopped/checkpoint-1/trainer_state.json").read_text())["progress"]["step"] == 1
    train(tiny, reward="stops", output_dir="stopped")
    assert told("stopped") == told("run")
    assert all(torch.equal(tensor, weights("run")[name]) for name, tensor in weights("stopped").items())


def test_a_reward_that_fails_leaves_a_checkpoint(tiny, here, capsys):
    """It is named with the row and the reason; the two rounds before it are kept, and the run can go on."""
    train(tiny, reward="breaks", status=1)
    assert "error  reward_funcs (rows.json:" in (said := capsys.readouterr().err), said
    assert "reward breaks gave 1 scores for 8 answers." in said
    assert json.loads((here / "run/checkpoint-2/trainer_state.json").read_text())["progress"]["step"] == 2
    (here / "calls").unlink()
    train(tiny, reward="breaks", status=0, max_steps=4)
    assert len(events(here / "run")) == 4


def test_a_reward_that_is_not_there_is_told_before_anything_is_trained(tiny, here, capsys):
    train(tiny, reward="letter", status=2)
    assert "mine.py has no function 'letter'. It has letters, breaks, stops." in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ how it is done


@pytest.fixture(scope="module")
def causal(tiny: Path) -> Any:
    return load_model(tiny, torch.float32, torch.device("cpu")).eval()


def generation(**changed: Any) -> GenerationConfig:
    given = {"max_new_tokens": 6, "eos_token_id": [2], "pad_token_id": 2, "do_sample": False, **changed}
    return GenerationConfig(**given)


PROMPTS = [[5, 6, 7], [8] * 20, [9, 10], [11, 12, 13, 14, 15]]


def test_answers_do_not_depend_on_what_is_answered_beside_them(causal):
    """Together, in several batches and one by one: padding on the left changes nothing."""
    alone = [complete(causal, [prompt], generation())[0] for prompt in PROMPTS]
    assert complete(causal, PROMPTS, generation()) == alone
    assert complete(causal, PROMPTS, generation(), at_once=30) == alone
    assert all(len(answer) == 6 for answer in alone)


def test_an_answer_ends_with_its_end(causal):
    """The first token that ends an answer is kept, and nothing behind it. An empty answer is its end alone."""
    long = complete(causal, PROMPTS, generation())
    end = long[0][2]
    short = complete(causal, PROMPTS, generation(eos_token_id=[end]))
    assert short[0] == long[0][: long[0].index(end) + 1]
    every = list(range(causal.config.vocab_size))
    assert [len(answer) for answer in complete(causal, PROMPTS, generation(eos_token_id=every))] == [1] * 4


def test_writing_can_be_stopped(causal):
    """At the next word, and what was written is thrown away."""
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Stopped):
        complete(causal, PROMPTS, generation(max_new_tokens=200), stop=stop)
    assert len(asked) <= 5


def test_an_empty_answer_is_learned_like_any_other(causal):
    """Its end is the one token that it has."""
    policy = Policy(causal, shares=True)
    rows = [Rendered(np.array([5, 6, *answer]), (Run(2, 2 + len(answer), 1.0),), place=Place("a", 1))
            for answer in ([2], [7, 8, 2])]
    objective, batch = Grpo(Settings()), policy.lay_out(rows)
    known = objective.experience(torch.tensor([1.0, 0.0]), 2, Outputs(), None, batch)
    loss = objective.loss(policy.outputs(batch, objective.wants), None, batch.knowing(**known))
    assert loss.sum.isfinite() and loss.weight == 4


def rollouts(prompts: int, answers: int, steps: int, batch: int, a_step: int) -> Rollouts:
    """The part that cuts a round into steps."""
    made = Rollouts.__new__(Rollouts)
    made.round, made.batch, made.a_step = Round(prompts, answers, steps, 8), batch, a_step
    return made


def written(prompts: int, answers: int, number: int = 0) -> Written:
    row: Any = SimpleNamespace()
    return Written(number, list(range(prompts)), [row] * (prompts * answers), {})


def test_every_pass_learns_from_every_answer_once():
    """Answers of one prompt stay next to each other, and each pass has another order of prompts."""
    cut = rollouts(prompts=6, answers=4, steps=6, batch=4, a_step=8)
    steps = [cut._batches(written(6, 4), 1, inside) for inside in range(6)]
    assert [[len(batch) for batch in step] for step in steps] == [[4, 4]] * 6
    for first in (0, 3):
        taken = [number for step in steps[first : first + 3] for batch in step for number in batch]
        assert sorted(taken) == list(range(24))
        assert all(taken[at : at + 4] == list(range(taken[at], taken[at] + 4)) for at in range(0, 24, 4))
    assert steps[:3] != steps[3:]
    assert steps[0] == cut._batches(written(6, 4), 1, 0) != cut._batches(written(6, 4, number=1), 1, 0)


@pytest.mark.parametrize("prompts", [1, 2, 5])
def test_the_last_round_of_an_epoch_is_divided_evenly(prompts):
    """It has fewer prompts, and as many steps: none of them is left with nothing, no answer is left out."""
    cut = rollouts(prompts=6, answers=2, steps=3, batch=2, a_step=4)
    steps = [cut._batches(written(prompts, 2), 1, inside) for inside in range(3)]
    sizes = [sum(map(len, step)) for step in steps]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    assert {number for step in steps for batch in step for number in batch} == set(range(prompts * 2))


def test_a_round_has_the_prompts_that_the_plan_says():
    plan = Plan(10, 4, 1, 1.0, 0, seed=1, shuffle=True, steps_per_round=2)
    assert plan.total_steps == 6
    assert [plan.batches(step) == plan.batches(step + 1) for step in range(5)] == [True, False, True, False, True]
    assert [len(plan.batches(step)[0]) for step in (0, 2, 4)] == [4, 4, 2]
