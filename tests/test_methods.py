"""Every way to tune, generated from the table of kinds: what is trained moves, what is frozen does not, what is written
gives the same model on a fresh base, and merged it is the same again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import options, write_rows
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedModel

from truetune.check.model import model_findings
from truetune.cli import main
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.findings import Problem
from truetune.model.adapters import merge_all, put_adapters, virtual_of, write_manifest
from truetune.model.load import cast_weights, load_model
from truetune.model.methods import METHODS, method_state, take_method_state, trainable, write_weights
from truetune.model.policy import Policy
from truetune.model.reference import way_of
from truetune.objectives import OBJECTIVES
from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.options.read import read_config
from truetune.serve.generate import complete

STEPS, WORDS = 3, 1000
MORE: dict[str, dict[str, Any]] = {
    "vera": {"lora_rank": 16}, "adalora": {"lora_rank": 11,
                                           "adalora_init_r": 12}, "freeze": {"freeze_trainable_layers": 1},
    "prefix_tuning": {"num_virtual_tokens": 4}, "p_tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 32},
    "prompt_tuning": {"num_virtual_tokens": 4},
}
VARIANTS: dict[str, dict[str, Any]] = {name: {"finetuning_type": name, **MORE.get(name, {})} for name in KINDS} | {
    "rslora": {"use_rslora": True}, "dora": {"use_dora": True}, "pissa": {"pissa_init": True},
    "pissa, whole SVD, rslora": {"pissa_init": True, "pissa_iter": -1, "use_rslora": True, "lora_target": ("k_proj",)},
    **{way: {"init_lora_weights": way} for way in ("gaussian", "olora", "orthogonal")},
    "lora with a whole module": {"additional_target": ("norm",)},
    "prefix from a network": {"finetuning_type": "prefix_tuning", "prefix_projection": True, "num_virtual_tokens": 4,
                              "encoder_hidden_size": 32},
    "bottleneck, Pfeiffer": {"finetuning_type": "bottleneck", "bottleneck_target": ("mlp",)},
}
"""Every kind, and every way to begin LoRA."""
ROWS = [Rendered(np.random.default_rng(seed).integers(100, WORDS, length), (Run(2, length, 1.0),),
                 place=Place("row ", seed)) for seed, length in enumerate((9, 14))]


_loaded: dict[Path, PreTrainedModel] = {}


def plain(folder: Path) -> PreTrainedModel:
    """The model in `folder`; a copy of it from the second time on, which is quicker."""
    if folder not in _loaded:
        _loaded[folder] = load_model(folder, torch.float32, torch.device("cpu"))
    return deepcopy(_loaded[folder])


@pytest.fixture(scope="module")
def small(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the first words of its vocabulary only: the head is most of the work of short rows."""
    model = load_model(tiny, torch.float32, torch.device("cpu"))
    model.resize_token_embeddings(WORDS)
    folder = tmp_path_factory.mktemp("small")
    model.save_pretrained(folder)
    return folder


def configured(small: Path, **given: Any) -> Config:
    return Config(model_name_or_path=str(small), **given)


def prepared(small: Path, config: Config, new_tokens: Sequence[int] = ()) -> tuple[Any, Policy]:
    """The model as a run trains it, and as its policy."""
    torch.manual_seed(0)
    causal = plain(small)
    model = METHODS[config.finetuning_type].prepare(causal, config, small, new_tokens)
    return model, Policy(causal, outer=virtual_of(model))


def logp(policy: Policy) -> torch.Tensor:
    """What the model says of some rows."""
    with policy.still():
        return policy.log_probabilities(policy.lay_out(ROWS))


def learn(model: Any, policy: Policy, config: Config, planned: int = STEPS) -> None:
    """A few steps of what a run does: loss and penalty backward, step, and whatever the method does after it."""
    method, batch = METHODS[config.finetuning_type], policy.lay_out(ROWS)
    adamw = torch.optim.AdamW(trainable(model).values(), lr=1e-4 if config.finetuning_type == "full" else 5e-3)
    if method.planned:
        method.planned(model, planned)
    model.train()
    for step in range(1, STEPS + 1):
        loss = -policy.log_probabilities(batch).mean()
        (loss + method.penalty(model) if method.penalty else loss).backward()
        adamw.step()
        if method.stepped:
            method.stepped(model, step)
        adamw.zero_grad()
    model.eval()


def write(model: Any, folder: Path, config: Config, small: Path) -> Path:
    """As a run writes."""
    folder.mkdir()
    method = METHODS[config.finetuning_type]
    write_weights(model, folder, {name: weight.detach() for name, weight in trainable(model).items()}, method)
    if method.adapter:
        write_manifest(folder, config, small)
    return folder


def read(small: Path, *adapters: Path) -> Policy:
    """Adapters on the base as it was."""
    causal = plain(small)
    return Policy(causal, outer=virtual_of(put_adapters(causal, adapters, small)))


@pytest.fixture(scope="module")
def base_says(small: Path) -> torch.Tensor:
    return logp(Policy(plain(small)))


@pytest.mark.parametrize("name", VARIANTS)
def test_three_steps(name: str, tmp_path: Path, small: Path, base_says: torch.Tensor) -> None:
    """It begins as the base; weights that are to move do, all others stay to the bit; switched off it is the base;
    written and put on a fresh base, or merged into it, it says the same."""
    config = configured(small, **VARIANTS[name])
    kind = KINDS[config.finetuning_type]
    model, policy = prepared(small, config)
    policy.verify(ROWS, lambda words: pytest.fail(str(words)))  # the fast way is the plain way's equal
    assert len(policy.ways) > 1
    if not kind.virtual:
        torch.testing.assert_close(logp(policy), base_says, rtol=1e-4, atol=1e-4)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    learn(model, policy, config)
    moved = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert moved == trainable(model).keys()
    now = logp(policy)
    assert (now - base_says).abs().max() > 1e-3
    folder = write(model, tmp_path / "out", config, small)
    if not kind.adapter:
        whole = load_model(folder, torch.float32, torch.device("cpu"))
        torch.testing.assert_close(logp(Policy(whole)), now, rtol=1e-4, atol=1e-4)
        return
    with model.disable_adapter():
        torch.testing.assert_close(logp(policy), base_says, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logp(policy), now)  # and it comes back
    torch.testing.assert_close(logp(read(small, folder)), now, rtol=1e-4, atol=1e-4)
    if kind.merges:
        merged = merge_all(plain(small), [folder], small)
        torch.testing.assert_close(logp(Policy(merged)), now, rtol=1e-3, atol=1e-3)
    else:
        with pytest.raises(Problem, match="cannot be merged"):
            merge_all(plain(small), [folder], small)


def written(small: Path, folder: Path, **given: Any) -> tuple[Path, torch.Tensor]:
    """An adapter that was trained a little, and what the model says with it."""
    config = configured(small, **given)
    model, policy = prepared(small, config)
    learn(model, policy, config)
    return write(model, folder, config, small), logp(policy)


CONTINUED = [name for name, kind in KINDS.items() if kind.adapter and kind.continues]


@pytest.mark.parametrize("kind", CONTINUED)
def test_an_adapter_is_trained_on(kind: str, tmp_path: Path, small: Path) -> None:
    """It begins as it was written, and goes on; an adapter of another kind is refused."""
    folder, said = written(small, tmp_path / "one", **VARIANTS[kind])
    config = configured(small, **VARIANTS[kind], adapter_name_or_path=(str(folder),))
    model, policy = prepared(small, config)
    torch.testing.assert_close(logp(policy), said, rtol=1e-4, atol=1e-4)
    learn(model, policy, config)
    assert (logp(policy) - said).abs().max() > 1e-3
    again = write(model, tmp_path / "two", config, small)
    torch.testing.assert_close(logp(read(small, again)), logp(policy), rtol=1e-4, atol=1e-4)
    other = "lora" if kind != "lora" else "vera"
    with pytest.raises(Problem, match=f"Set finetuning_type: {kind}"):
        prepared(small, configured(small, finetuning_type=other, adapter_name_or_path=(str(folder),)))


def test_several_adapters_and_a_new_one(tmp_path: Path, small: Path, base_says: torch.Tensor) -> None:
    """All but the last are merged, in order. A new adapter on top begins as they left it, is off where they are, and
    says that it needs them."""
    one, _ = written(small, tmp_path / "one", lora_target=("k_proj",))
    two, _ = written(small, tmp_path / "two", finetuning_type="loha")
    both = logp(read(small, one, two))
    merged = merge_all(plain(small), [one, two], small)
    torch.testing.assert_close(logp(Policy(merged)), both, rtol=1e-3, atol=1e-3)
    assert all((both - logp(read(small, each))).abs().max() > 1e-3 for each in (one, two))

    config = configured(small, adapter_name_or_path=(str(one), str(two)), create_new_adapter=True)
    model, policy = prepared(small, config)
    torch.testing.assert_close(logp(policy), both, rtol=1e-3, atol=1e-3)
    learn(model, policy, config)
    with model.disable_adapter():  # what DPO compares with
        torch.testing.assert_close(logp(policy), both, rtol=1e-3, atol=1e-3)
    assert way_of(config, OBJECTIVES["dpo"](config)) == "adapters off"
    three = write(model, tmp_path / "three", config, small)
    torch.testing.assert_close(logp(read(small, one, two, three)), logp(policy), rtol=1e-4, atol=1e-4)
    for named in ([three], [two, one, three]):
        with pytest.raises(Problem, match=f"adapter_name_or_path: {one},{two},{three}"):
            read(small, *named)


def test_merging_keeps_small_updates_of_a_bfloat16_model(tmp_path: Path, small: Path) -> None:
    """An update far below 1/256 of the weights that it is added to: added in bfloat16 one by one, ten of them would be
    rounded away; rounded once, their sum is not."""
    config = configured(small, lora_target=("k_proj",))
    folders = []
    for number in range(10):
        model, _ = prepared(small, config)
        for name, weight in trainable(model).items():
            torch.nn.init.constant_(weight, 1e-3 if "lora_A" in name else 1e-1)
        folders.append(write(model, tmp_path / str(number), config, small))
    halved: Any = plain(small)
    cast_weights(halved, torch.bfloat16)
    before = halved.model.layers[0].self_attn.k_proj.weight.detach().float()
    merged: Any = merge_all(halved, folders, small)
    after = merged.model.layers[0].self_attn.k_proj.weight
    assert after.dtype is torch.bfloat16
    large = before.abs() > 0.25
    moved = (after.detach().float() - before)[large]
    assert large.sum() > 100
    assert moved.mean() == pytest.approx(10 * 2 * 8 * 1e-4, rel=0.05)  # ten adapters of alpha / r = 2 and r = 8


def test_beginnings_leave_the_base_alone(small: Path) -> None:
    """PiSSA and OLoRA take the first ranks out of the weights; here beside them, so that the weights stay to the bit.
    At first A and B hold the largest part of a weight that so few ranks can hold."""
    for given in ({"pissa_init": True, "pissa_iter": -1}, {"init_lora_weights": "olora"}):
        model, _ = prepared(small, configured(small, **given))
        base: Any = plain(small)
        layer, weight = model.base_model.model.model.layers[0].mlp.up_proj, base.model.layers[0].mlp.up_proj.weight
        assert torch.equal(layer.base_layer.weight, weight)
        part = layer.get_delta_weight("default")
        assert part.norm() > 0.1 * weight.norm()
        if "pissa_init" in given:
            u, s, v = torch.linalg.svd(weight.detach())
            torch.testing.assert_close(part, u[:, :8] @ s[:8].diag() @ v[:8], rtol=1e-3, atol=1e-3)


def test_adalora_gives_up_ranks_down_to_its_budget(tmp_path: Path, small: Path) -> None:
    """lora_rank a layer are left on average, in the model and in what is written; and they stay that when it is trained
    on.
    """
    given = {"finetuning_type": "adalora", "lora_rank": 3, "adalora_init_r": 8, "adalora_tfinal": 1}
    folder, _ = written(small, tmp_path / "one", **given)
    config = configured(small, **given, adapter_name_or_path=(str(folder),))
    model, policy = prepared(small, config)
    learn(model, policy, config)
    again = write(model, tmp_path / "two", config, small)
    for each in (folder, again):
        weights = load_file(each / "adapter_model.safetensors")
        ranks = [len(weight) for name, weight in weights.items() if "lora_E" in name]
        assert len(ranks) == 14 and sum(ranks) == 14 * 3
    with pytest.raises(Problem, match="leave none of 3 steps"):
        written(small, tmp_path / "three", **{**given, "adalora_tinit": 2})


def test_what_a_step_of_adalora_depends_on_is_kept(small: Path) -> None:
    """Its state put into another model gives the same next step."""
    config = configured(small, finetuning_type="adalora", lora_rank=3, adalora_init_r=8)
    method = METHODS["adalora"]
    model, policy = prepared(small, config)
    learn(model, policy, config, planned=9)
    kept = method_state(model, method)
    other, _ = prepared(small, config)
    assert take_method_state(other, method, {**kept, "lessons": torch.ones(1)}).keys() == {"lessons"}
    found = method_state(other, method)
    assert kept.keys() == found.keys() and all(torch.equal(kept[name], found[name]) for name in kept)
    assert {name.partition("/")[0] for name in kept} >= {"method.exp_avg_unc", "method.left"}


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.virtual])
def test_virtual_tokens_are_there_while_it_answers(kind: str, small: Path) -> None:
    """The likeliest next word again and again, by whole forward passes, is what it writes; prompts of different lengths
    answered together are answered as alone."""
    config = configured(small, **VARIANTS[kind])
    model, policy = prepared(small, config)
    learn(model, policy, config)
    words = np.random.default_rng(0).integers(100, WORDS, (5, 90)).tolist()
    prompts = [row[:length] for row, length in zip(words, (2, 90, 2, 3, 5), strict=True)]
    with policy.generating() as answering:
        assert answering is model
        said = complete(answering, prompts, GenerationConfig(max_new_tokens=8, do_sample=False, pad_token_id=0))
    for prompt, answer in zip(prompts, said, strict=True):
        ids = list(prompt)
        for _ in range(8):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        assert answer == ids[len(prompt):]


def test_a_prompt_begins_as_text(tiny: Path) -> None:
    """The virtual tokens are the text's embeddings, repeated to fill them up, and no path is written."""
    from truetune.model.find import load_tokenizer

    config = configured(tiny, finetuning_type="prompt_tuning", prompt_tuning_init_text="Answer briefly.",
                        num_virtual_tokens=7)
    model, _ = prepared(tiny, config)
    ids = load_tokenizer(tiny)("Answer briefly.")["input_ids"]
    wanted = (ids * 7)[:7]
    base: Any = plain(tiny)
    embeddings = base.model.embed_tokens.weight[wanted]
    torch.testing.assert_close(model.prompt_encoder["default"].embedding.weight, embeddings)
    assert model.peft_config["default"].tokenizer_name_or_path is None


def test_rows_of_new_tokens_are_trained_beside_lora(tmp_path: Path, small: Path) -> None:
    """Those rows of the embeddings move, no other does; they are saved, and the same again on a fresh base."""
    config = configured(small)
    model, policy = prepared(small, config, new_tokens=[int(ROWS[0].ids[0]), 7])
    policy.verify(ROWS, print)
    learn(model, policy, config)
    now = logp(policy)
    folder = write(model, tmp_path / "out", config, small)
    assert any("token_adapter" in name for name in load_file(folder / "adapter_model.safetensors"))
    torch.testing.assert_close(logp(read(small, folder)), now, rtol=1e-4, atol=1e-4)
    base: Any = plain(small)
    other: Any = merge_all(plain(small), [folder], small)
    before, merged = (model.model.embed_tokens.weight for model in (base, other))
    assert torch.ne(merged, before).any(dim=1).nonzero()[:, 0].tolist() == sorted([int(ROWS[0].ids[0]), 7])


def test_added_blocks_change_nothing_and_only_they_are_trained(tmp_path: Path, small: Path, tiny: Path,
                                                               base_says: torch.Tensor) -> None:
    """`truetune expand`: the logits are equal to the bit; use_llama_pro trains the copies alone, whole or with LoRA."""
    out = tmp_path / "grown"
    settings = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    tiny = Path(shutil.copytree(tiny, tmp_path / "plain"))
    settings.pop("layer_types", None)  # as most Llamas' are: a family may name the kind of each layer, and need not
    (tiny / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert main(["expand", f"model_name_or_path={tiny}", "num_expand=2", f"output_dir={out}"]) == 0
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 4
    assert (out / "tokenizer.json").is_file()
    ids = torch.from_numpy(ROWS[0].ids)[None]
    with torch.no_grad():
        grown = load_model(out, torch.float32, torch.device("cpu"))
        assert torch.equal(grown(input_ids=ids).logits, plain(tiny)(input_ids=ids).logits)
    for given in ({"finetuning_type": "freeze"}, {"finetuning_type": "lora", "lora_target": ("up_proj", "q_proj")}):
        config = configured(out, **given, use_llama_pro=True, freeze_trainable_layers=2)
        model = METHODS[config.finetuning_type].prepare(deepcopy(grown), config, out)
        layers = {name.split("layers.")[1].split(".")[0] for name in trainable(model)}
        assert layers == {"1", "3"}
        if given["finetuning_type"] == "lora":
            assert {name.split(".")[-4] for name in trainable(model)} == {"up_proj", "q_proj"}
    assert main(["expand", f"model_name_or_path={tiny}", "num_expand=2", f"output_dir={out}"]) == 2  # it is in use


@pytest.mark.parametrize(("given", "said"), (
    ({"finetuning_type": "oft", "oft_block_size": 100}, "100 does not divide the 576 inputs"),
    ({"finetuning_type": "oft", "oft_target": ("u_proj",)}, "Did you mean up_proj"),
    ({"finetuning_type": "ia3", "lora_target": ("kproj",)}, "Did you mean k_proj"),
    ({"finetuning_type": "bottleneck", "bottleneck_target": ("mpl",)}, "Did you mean mlp"),
    ({"init_lora_weights": "olora", "lora_target": ("embed_tokens",)}, "works on linear layers only"),
    ({"use_llama_pro": True, "freeze_trainable_layers": 3}, "2 layers do not divide into 3 equal parts"),
    ({"adapter_name_or_path": ("nowhere",)}, "so it is no adapter"),
))
def test_bad_input_is_told_in_one_line(given: dict[str, Any], said: str, small: Path) -> None:
    with pytest.raises(Problem, match=said) as raised:
        prepared(small, configured(small, **given))
    assert "\n" not in str(raised.value)


def test_a_rank_above_a_layer_is_told_before(small: Path) -> None:
    """k_proj is 192 x 576. PiSSA has no more than 192 singular vectors to begin with, so there it is an error."""
    for given, severity in (((), "warn"), (("pissa_init=true",), "error")):
        config, _ = read_config([f"model_name_or_path={small}", "lora_rank=200", *given])
        (found,) = [finding for finding in model_findings(small, config) if finding.option == "lora_rank"]
        assert found.severity == severity and "200 is more than 192, the smaller side of k_proj" in str(found.message)
    for fine in ("lora_rank=192", "lora_rank=200 lora_target=up_proj"):
        config, _ = read_config([f"model_name_or_path={small}", *fine.split()])
        assert not [finding for finding in model_findings(small, config) if finding.option == "lora_rank"]


def test_expand_refuses_what_cannot_be_done(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["expand", f"model_name_or_path={tiny}", "num_expand=3", f"output_dir={tmp_path / 'out'}"]) == 2
    assert "3 does not divide 2 layers. It can be 1, 2." in capsys.readouterr().err


@pytest.mark.parametrize("given", ({"pissa_init": True}, {"finetuning_type": "adalora", "lora_rank": 3}))
def test_a_run_that_is_resumed_ends_the_same(given: dict[str, object], tmp_path: Path, tiny: Path) -> None:
    """Bit for bit, though PiSSA begins with something drawn and AdaLoRA knows more than its weights."""
    words = {"model_name_or_path": tiny, "dataset": write_rows(tmp_path / "rows.json", 3), "use_cpu": True,
             "bf16": False,
             "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "num_train_epochs": 1, "save_steps": 2,
             "plot_loss": False, "learning_rate": 1e-3, "lora_target": "k_proj", **given}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["train", *options(**words, output_dir=whole)]) == 0
    assert main(["train", *options(**words, output_dir=parts, resume_from_checkpoint=whole / "checkpoint-2")]) == 0
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (whole, parts))
    begun = load_file(whole / "checkpoint-2" / "adapter_model.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert any(begun[name].shape != one[name].shape or not torch.equal(begun[name], one[name]) for name in one)
