"""Words that become one token each: added, begun, trained, saved and found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import options
from test_train import run
from transformers import AutoModelForCausalLM

from truetune.check.preflight import preflight
from truetune.data.batches import collate
from truetune.export.merge import write_model
from truetune.findings import Problem
from truetune.model.base import load_base
from truetune.model.find import load_tokenizer
from truetune.model.methods import METHODS
from truetune.model.policy import Policy
from truetune.model.vocabulary import MULTIPLE, read_vocabulary
from truetune.options import Config
from truetune.options.read import read_config
from truetune.serve.engine import load_engine

CPU = torch.device("cpu")
ROWS = [{"instruction": f"Say <|left|> and zqxkvj {number}.", "input": "",
         "output": f"<|left|>zqxkvj {number}<|right|>"} for number in range(8)]
WORDS = {"add_tokens": "zqxkvj", "add_special_tokens": "<|left|>,<|right|>"}


def configured(base: Path, **more: object) -> Config:
    config, findings = read_config(options(**{"model_name_or_path": base, "use_cpu": True, "bf16": "false", **more}))
    assert not findings
    return config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "rows.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def untied(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a head of its own."""
    folder = tmp_path_factory.mktemp("untied")
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach() * 1.5)
    model.save_pretrained(folder)
    load_tokenizer(tiny).save_pretrained(folder)
    return folder


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def test_a_word_becomes_one_token(tiny: Path, data: Path) -> None:
    """Special or not, in the middle of text and in a conversation; the rows' tokens are stored anew. What is a token
    already is left as it is, and said."""
    plain = configured(tiny, dataset=data)
    more = configured(tiny, dataset=data, **{**WORDS, "add_tokens": "zqxkvj,the"})
    before, after = preflight(plain, print), preflight(more, print)
    tokenizer = after.renderer.tokenizer
    assert before.new_tokens == () and list(after.new_tokens) == tokenizer.convert_tokens_to_ids(
        ["zqxkvj", "<|left|>", "<|right|>"])
    assert tokenizer("a<|left|>b", add_special_tokens=False)["input_ids"][1] == after.new_tokens[1]
    row = after.train[0]
    assert set(after.new_tokens) <= set(row.ids.tolist()) and len(row) < len(before.train[0])
    assert before.data.stores[0].folder != after.data.stores[0].folder
    assert "the" in next(str(finding.message) for finding in after.findings if finding.id == "known-tokens")


def test_a_word_of_the_template_is_a_mark(tiny: Path) -> None:
    """<|eot_id|> of llama3 is nothing that somebody could type; a word that no template writes may stand in data."""
    config = configured(tiny, template="llama3", add_special_tokens="<|eot_id|>,<|left|>")
    tokens = read_vocabulary(tiny, config).tokenizer.added_tokens_decoder.values()
    assert {str(token): token.special for token in tokens if str(token) in ("<|eot_id|>", "<|left|>")} == {
        "<|eot_id|>": True, "<|left|>": False}


@pytest.mark.parametrize(("init", "tied"), (("noise_init", True), ("desc_init", False), ("desc_init_w_noise", True)))
def test_how_rows_begin(init: str, tied: bool, tiny: Path, untied: Path, tmp_path: Path) -> None:
    """By hand: the mean of all rows, or of the description's; noise of spread 1 / sqrt(d) or none. Tied embeddings stay
    tied, a head of its own begins from its own rows, and the same seed gives the same rows."""
    base, words = tiny if tied else untied, tmp_path / "words.yaml"
    words.write_text('"<|left|>": the left side\n"<|right|>": on the right hand\n', encoding="utf-8")
    config = configured(base, new_special_tokens_config=words, init_special_tokens=init)
    plain, model = (load_base(base, each, torch.float32, CPU) for each in (configured(base), config))
    tokenizer = read_vocabulary(base, config).tokenizer
    ids = tokenizer.convert_tokens_to_ids(["<|left|>", "<|right|>"])
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    old = plain.vocab_size
    assert model.vocab_size == model.config.vocab_size == -(-len(tokenizer) // MULTIPLE) * MULTIPLE > old
    for matrix, before in ((model.model.embed_tokens.weight, plain.model.embed_tokens.weight),
                           (model.lm_head.weight, plain.lm_head.weight)):
        assert torch.equal(matrix[:old], before)
        mean = before.mean(dim=0)
        described = [before[load_tokenizer(base)(text)["input_ids"]].mean(dim=0)
                     for text in ("the left side", "on the right hand")]
        for number, text in zip(ids, described, strict=True):
            rest = matrix[number] - (mean if init == "noise_init" else text)
            spread = 0.0 if init == "desc_init" else before.shape[1] ** -0.5
            assert float(rest.detach().std()) == pytest.approx(spread, rel=0.1, abs=1e-6)
        unused = [number for number in range(old, len(matrix)) if number not in ids]
        torch.testing.assert_close(matrix[unused], mean.expand(len(unused), -1))
    again = load_base(base, config, torch.float32, CPU)
    other = load_base(base, config.with_values("another", seed=7), torch.float32, CPU)
    assert torch.equal(again.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert torch.equal(other.model.embed_tokens.weight, model.model.embed_tokens.weight) == (init == "desc_init")


@pytest.mark.parametrize("tied", (True, False))
def test_new_rows_alone_are_trained_beside_an_adapter(tied: bool, tiny: Path, untied: Path, data: Path) -> None:
    """The fast head with some trained rows gives PEFT's own numbers, and the gradients of its rows, and stays on."""
    base = tiny if tied else untied
    config = configured(base, dataset=data, **WORDS)
    ready = preflight(config, print)
    model = METHODS["lora"].prepare(load_base(base, config, torch.float32, CPU), config, base, ready.new_tokens)
    causal = model.get_base_model()
    names = [name for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name]
    assert len(names) == (1 if tied else 2) and all("trainable_tokens_delta" in name for name in names)
    policy, said = Policy(causal), []
    assert policy.head.new is not None
    rows = [ready.train[number] for number in range(3)]
    policy.verify(rows, said.append)
    assert not said and len(policy.ways) == 3
    batch = collate(rows)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    above = torch.linspace(0.5, 1.5, len(batch.targets))
    found = torch.autograd.grad((policy.log_probabilities(batch) * above).sum(), trained)
    causal.set_attn_implementation("eager")
    plain = Policy(causal, fast=False)
    expected = torch.autograd.grad((plain.log_probabilities(batch) * above).sum(), trained)
    for weight, one, other in zip(trained, found, expected, strict=True):
        assert other.abs().max() > 0 or weight.shape[0] == 8  # LoRA's A learns nothing while B is zero
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-7)


@pytest.mark.parametrize("method", ("lora", "freeze"))
def test_trained_saved_and_found_again(method: str, tiny: Path, data: Path, tmp_path: Path) -> None:
    """What a run writes brings its words along: loaded on a fresh base for chat and merged for export it gives the same
    logits, and the words are one token each. Only the new rows have moved beside an adapter."""
    folder, merged = tmp_path / "run", tmp_path / "merged"
    run(folder, tiny, data, finetuning_type=method, max_steps=2, per_device_train_batch_size=4, **WORDS)
    if method == "lora":
        asked = configured(tiny, adapter_name_or_path=folder, seed=7, export_dir=merged)
        merged.mkdir()
        write_model(asked, merged, lambda words: None)
    else:
        asked, merged = configured(folder), folder
    engine = load_engine(asked, lambda words: None)
    ids = engine.tokenizer("zqxkvj<|left|> and more<|right|>", add_special_tokens=False)["input_ids"]
    own = engine.tokenizer.convert_tokens_to_ids(["zqxkvj", "<|left|>", "<|right|>"])
    assert [number for number in ids if number >= own[0]] == own
    whole = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    assert whole.lm_head.weight is whole.model.embed_tokens.weight and len(whole.lm_head.weight) > max(own)
    torch.testing.assert_close(logits(engine.model, ids), logits(whole, ids), rtol=1e-4, atol=1e-3)
    begun = load_base(tiny, configured(tiny, **WORDS), torch.float32, CPU).model.embed_tokens.weight
    moved = (whole.model.embed_tokens.weight - begun).abs().amax(dim=1) > 1e-5
    assert moved[own].all()
    assert method == "freeze" or int(moved.sum()) == len(own)


def test_an_adapter_has_no_rows_for_later_words(tiny: Path, data: Path, tmp_path: Path) -> None:
    """The words of the adapter itself may be named again; others are refused in one line."""
    folder = tmp_path / "run"
    run(folder, tiny, data, max_steps=1, per_device_train_batch_size=4, **WORDS)
    known = read_vocabulary(tiny, configured(tiny, adapter_name_or_path=folder, **WORDS))
    assert len(known.new) == 3
    with pytest.raises(Problem, match="no rows for words"):
        read_vocabulary(tiny, configured(tiny, adapter_name_or_path=folder, add_tokens="zqxkvj,wvutsr"))


@pytest.mark.parametrize(("text", "says"), (
    ('"<a>": [1\n"<b>": 2', "w.yaml:2 is no YAML"), ("- <a>\n", "w.yaml holds no mapping"),
    ('"<a>": 3\n', "have to be text"), ("", "holds no mapping"), (None, "w.yaml cannot be read")))
def test_a_bad_file_of_words_is_one_line(text: str | None, says: str, tiny: Path, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "w.yaml").write_text(text, encoding="utf-8")
    config = configured(tiny, new_special_tokens_config=tmp_path / "w.yaml")
    with pytest.raises(Problem) as caught:
        read_vocabulary(tiny, config)
    (finding,) = caught.value.findings
    assert says in str(finding.message) and "\n" not in finding.line() and finding.option == "new_special_tokens_config"
