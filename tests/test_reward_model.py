"""Reward models: Bradley and Terry's loss by hand and against TRL, and a value head that trains, is saved, goes on and
scores again as it did."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import events
from safetensors.torch import load_file
from test_train import run
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from truetune.data.batches import collate, neighbours
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.model.adapters import put_adapter
from truetune.model.find import load_tokenizer
from truetune.model.load import load_model
from truetune.model.policy import Policy
from truetune.model.value import FILE, load_value_head, score
from truetune.objectives.objective import Outputs
from truetune.objectives.reward import BradleyTerry

CPU = torch.device("cpu")

# ------------------------------------------------------------------------------------------------------------- by hand


def pair(number: int, prompt: list[int], *answers: list[int]) -> list[Rendered]:
    """Chosen and rejected answer to a prompt, as the rows of a preference."""
    return [Rendered(np.array(prompt + answer), (Run(len(prompt), len(prompt) + len(answer), 1.0),),
                     place=Place("pairs:", number)) for answer in answers]


def test_bradley_terry_by_hand() -> None:
    """Scores (ln 3, 0) and (0, 1): the first pair is right with the probability 3/4, the second with 1 / (1 + e)."""
    batch = collate([*pair(1, [5, 6], [7], [8]), *pair(2, [5], [6, 7], [9])])
    scores = torch.tensor([math.log(3), 0.0, 0.0, 1.0], requires_grad=True)
    loss, pairs, told = BradleyTerry().loss(Outputs(values=scores), None, batch)
    assert loss.item() == pytest.approx(math.log(4 / 3) + math.log(1 + math.e)) and pairs == 2
    assert {name: total for name, (total, _) in told.items()} == pytest.approx(
        {"accuracy": 1, "rewards/chosen": math.log(3), "rewards/rejected": 1, "margin": math.log(3) - 1})
    assert all(count == 2 for _, count in told.values())
    loss.backward()  # d/dr_c = -(1 - p), and the opposite for r_r
    wrong = math.e / (1 + math.e)
    torch.testing.assert_close(scores.grad, torch.tensor([-0.25, 0.25, -wrong, wrong]))


def test_margin_and_centring_by_hand() -> None:
    """A lead of ln 3, of which ln 3 is asked for, is right with the probability 1/2; (ln 3 + 0)^2 is added at 0.1."""
    batch = collate(pair(1, [5, 6], [7], [8]))
    loss = BradleyTerry(math.log(3), 0.1).loss(Outputs(values=torch.tensor([math.log(3), 0.0])), None, batch).sum
    assert loss.item() == pytest.approx(math.log(2) + 0.1 * math.log(3) ** 2)


# -------------------------------------------------------------------------------------------------------- against TRL


def test_scores_loss_and_gradients_against_trl(tiny: Path, tmp_path: Path) -> None:
    """TRL's reward trainer on a sequence classifier of transformers, and ours on the same weights: pairs of different
    lengths, with a margin and centring; our rows share their prompts."""
    trl = pytest.importorskip("trl", reason="TRL is the oracle: pip install trl==1.16.0")
    from datasets import Dataset

    sizes: dict[str, Any] = dict(vocab_size=49152, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                 num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=2,
                                 bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    theirs = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("llama", num_labels=1, **sizes))
    for weight in theirs.parameters():
        weight.data.mul_(4)
    ours = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes))
    ours.model.load_state_dict(theirs.model.state_dict())
    head = torch.nn.Linear(32, 1)
    with torch.no_grad():
        head.weight.copy_(theirs.score.weight)
        head.bias.zero_()

    rows = [*pair(1, [5, 6], [7, 8, 9], [3]), *pair(2, [5, 6, 4], [9], [3, 4, 4, 8])]
    data = [{"chosen_ids": one.ids.tolist(), "rejected_ids": other.ids.tolist(), "margin": 0.5}
            for one, other in zip(rows[0::2], rows[1::2], strict=True)]
    arguments = trl.RewardConfig(str(tmp_path), report_to="none", use_cpu=True, bf16=False,
                                 per_device_train_batch_size=2, center_rewards_coefficient=0.01)
    trainer = trl.RewardTrainer(theirs, arguments, train_dataset=Dataset.from_list(data),
                                processing_class=load_tokenizer(tiny))
    expected = trainer.compute_loss(theirs.eval(), next(iter(trainer.get_train_dataloader())))
    expected.backward()

    policy, objective = Policy(ours.eval(), shares=True, value_head=head), BradleyTerry(0.5, 0.01)
    batch = policy.lay_out(rows)
    assert batch.tokens < sum(map(len, rows))
    loss, count, _ = objective.loss(policy.outputs(batch, objective.wants), None, batch)
    (loss / count).backward()
    torch.testing.assert_close(loss / count, expected, rtol=1e-5, atol=1e-6)
    for (name, mine), other in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        assert float((mine.grad - other.grad).norm()) <= 1e-4 * float(other.grad.norm()) + 1e-7, name
    torch.testing.assert_close(head.weight.grad, theirs.score.weight.grad, rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Polite answers are chosen, rude ones are not; lengths differ."""
    rows = [{"instruction": f"Is {n} a good number?" + " Tell me." * (n % 3), "input": "",
             "chosen": f"Yes, {n} is a fine number." + " Thank you." * (n % 2),
             "rejected": "No, go away." + " Bad number." * (n % 3)} for n in range(10)]
    path = tmp_path_factory.mktemp("pairs") / "pairs.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


METHODS: dict[str, dict[str, object]] = {
    "lora": {"finetuning_type": "lora", "lora_rank": 4, "learning_rate": 5e-3},
    "full": {"finetuning_type": "full", "learning_rate": 1e-4},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "learning_rate": 3e-4},
}
REWARD: dict[str, object] = {"stage": "rm", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
                             "num_train_epochs": 8, "val_size": 2, "do_predict": True, "plot_loss": "false"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run has trained: adapter or model, and value head."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def judge(folder: Path, base: Path, method: str) -> tuple[Policy, torch.nn.Linear]:
    """A saved reward model as anybody loads it."""
    adapter = method == "lora"
    causal = load_model(base if adapter else folder, torch.float32, CPU)
    if adapter:
        put_adapter(causal, folder, base)
    head = load_value_head(causal, [folder])
    assert head is not None
    return Policy(causal), head


@pytest.mark.parametrize("method", METHODS)
def test_learns_saves_and_scores_again(method: str, tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """The loss falls from about ln 2 and pairs come into the right order, held-out ones too. The model as it was saved
    gives the scores that the run itself has written for its held-out rows."""
    out = tmp_path / "out"
    run(out, tiny, pairs, **REWARD, **METHODS[method])
    steps = events(out)
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=0.5) and steps[-1]["loss"] < 0.3 * steps[0]["loss"]
    assert steps[-1]["accuracy"] == 1 and steps[-1]["margin"] > steps[0]["margin"] + 1
    assert steps[-1]["margin"] == pytest.approx(steps[-1]["rewards/chosen"] - steps[-1]["rewards/rejected"])

    results = json.loads((out / "all_results.json").read_text(encoding="utf-8"))
    assert results["eval_accuracy"] == results["predict_accuracy"] == 1 and "eval_perplexity" not in results
    lines = (out / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    assert len(told) == 2 and all(line["chosen"] > line["rejected"] for line in told)

    head = load_file(out / FILE)
    assert {name: tuple(weight.shape) for name, weight in head.items()} == {
        "v_head.summary.weight": (1, 576), "v_head.summary.bias": (1,)}
    policy, value_head = judge(out, tiny, method)
    mean = {name: sum(line[name] for line in told) / 2 for name in ("chosen", "rejected")}
    assert mean == pytest.approx({name: results[f"eval_rewards/{name}"] for name in mean}, abs=1e-3)
    tokenizer = load_tokenizer(out)
    question = {"role": "user", "content": "Is 77 a good number?"}
    kind, rude = (Rendered(np.array(tokenizer.apply_chat_template(
        [question, {"role": "assistant", "content": text}], return_dict=False)), ())
        for text in ("Yes, 77 is a fine number.", "No, go away."))
    scores = score(policy, value_head, [kind, rude])
    assert scores.shape == (2,) and scores[0] > scores[1] + 1


@pytest.mark.parametrize("method", METHODS)
def test_goes_on_bit_for_bit(method: str, tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """Four steps at once, and two steps, a stop and two more: the same weights to the last bit, the head's too."""
    def go(folder: str, **more: object) -> Path:
        run(tmp_path / folder, tiny, pairs, **{**REWARD, "num_train_epochs": 4, "do_predict": "false",
                                              "save_strategy": "steps", "save_steps": 2, **METHODS[method], **more})
        return tmp_path / folder

    whole = go("whole")
    half = go("half", resume_from_checkpoint=whole / "checkpoint-2")
    assert len(events(whole)) == 4 and [event["step"] for event in events(half)] == [3, 4]
    one, other = weights(whole), weights(half)
    assert one.keys() == other.keys() and "v_head.summary.weight" in one
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_head_is_trained_further(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """A reward adapter trained further begins with its value head, not with a new one: its first loss is low."""
    run(tmp_path / "one", tiny, pairs, **REWARD, **METHODS["lora"])
    run(tmp_path / "two", tiny, pairs, **{**REWARD, "num_train_epochs": 1, **METHODS["lora"]},
        adapter_name_or_path=tmp_path / "one")
    assert events(tmp_path / "two")[0]["loss"] < 0.5 * events(tmp_path / "one")[0]["loss"]


def test_scores_of_many_rows(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However rows are put together, each has its own score; the model's mode and own head are as before."""
    causal, head = load_model(tiny, torch.float32, CPU).train(), torch.nn.Linear(576, 1)
    policy = Policy(causal, shares=True)
    rows = [row for number in range(3) for row in pair(number, [5, 6, 7], [8] * (number + 1), [9, 10])]
    together = score(policy, head, rows)
    assert causal.training and policy.value_head is None and not together.requires_grad
    monkeypatch.setattr("truetune.model.value.neighbours", partial(neighbours, most=7))
    torch.testing.assert_close(score(policy, head, rows), together, rtol=1e-4, atol=1e-5)
    assert len(score(policy, head, [])) == 0
