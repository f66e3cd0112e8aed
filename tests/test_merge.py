"""Merging: the same files whether the whole model is in memory or one matrix at a time, and all that goes with them."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import options
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3MoeConfig

from truetune.export import merge, streamed
from truetune.export.adapter import write_adapter_alone
from truetune.export.shards import Kind, write_shards
from truetune.export.streamed import plan_stream
from truetune.findings import Problem
from truetune.model.adapters import MANIFEST
from truetune.model.find import load_model_config, load_tokenizer
from truetune.model.load import fingerprint
from truetune.model.value import FILE as VALUE_HEAD
from truetune.options import Config
from truetune.options.read import read_config

_SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                          "num_key_value_heads": 2}


def base_of(folder: Path, settings: Any, tokenizer: Any, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A model of random weights with the words of the real tokenizer."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.data.normal_()
    model.save_pretrained(folder, max_shard_size=600_000)
    tokenizer.save_pretrained(folder)
    return folder


def adapter_of(folder: Path, base: Path, seed: int = 0, **settings: Any) -> Path:
    """An adapter whose numbers are all random, B and magnitudes included."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wanted = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear", **settings}
    made: Any = get_peft_model(model, LoraConfig(**wanted))
    for name, weight in made.named_parameters():
        if "lora_" in name:
            weight.data += torch.randn_like(weight) * 0.1
    made.save_pretrained(folder)
    return folder


def config_of(**values: object) -> Config:
    config, findings = read_config(options(**values))
    assert not findings
    return config


def written(folder: Path, say: Any = lambda words: None, **values: object) -> Path:
    folder.mkdir(parents=True)
    merge.write_model(config_of(**values), folder, say)
    return folder


def both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **values: object) -> tuple[Path, Path]:
    """The export as it is made, which has to be one matrix at a time, and with the whole model in memory."""
    said: list[str] = []
    streamed = written(tmp_path / "streamed", lambda words: said.append(str(words)), **values)
    assert "one matrix at a time" in said[-1]
    with monkeypatch.context() as patch:
        patch.setattr(merge, "plan_stream", lambda *words: None)
        whole = written(tmp_path / "whole", lambda words: said.append(str(words)), **values)
    assert "the whole model in memory" in said[-1]
    return streamed, whole


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("model*.safetensors"))
            for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def llama(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings that are the head too, as in the smallest models."""
    return base_of(tmp_path_factory.mktemp("llama"), LlamaConfig(vocab_size=49152, tie_word_embeddings=True, **_SMALL),
                   tokenizer)


@pytest.fixture(scope="module")
def qwen(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Biases, a head of its own, several files, float32."""
    return base_of(tmp_path_factory.mktemp("qwen"), Qwen2Config(vocab_size=49152, tie_word_embeddings=False, **_SMALL),
                   tokenizer, torch.float32)


@pytest.mark.parametrize("settings", [
    {}, {"use_rslora": True}, {"use_dora": True},
    {"target_modules": ["q_proj", "up_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 7},
     "layers_to_transform": [1]},
], ids=["lora", "rslora", "dora", "patterns"])
@pytest.mark.parametrize("model", ["llama", "qwen"])
def test_both_ways_write_the_same_bytes(model: str, settings: dict[str, Any], tmp_path: Path,
                                        request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of the export: weights in several shards, their index, configuration, tokenizer, generation."""
    base = request.getfixturevalue(model)
    adapter = adapter_of(tmp_path / "adapter", base, **settings)
    streamed, whole = both_ways(tmp_path, monkeypatch, model_name_or_path=base, adapter_name_or_path=adapter,
                                infer_dtype="bfloat16", export_size=0.002)
    names = sorted(file.name for file in whole.iterdir())
    assert sorted(file.name for file in streamed.iterdir()) == names and "model.safetensors.index.json" in names
    assert filecmp.cmpfiles(streamed, whole, names, shallow=False)[1:] == ([], [])


def test_several_adapters_one_after_another(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also DoRA on what LoRA has changed: its magnitudes are those of the matrix that it was trained on."""
    adapters = [adapter_of(tmp_path / "one", qwen), adapter_of(tmp_path / "two", qwen, 1, use_dora=True)]
    streamed, whole = both_ways(tmp_path, monkeypatch, model_name_or_path=qwen, infer_dtype="float32",
                                adapter_name_or_path=",".join(map(str, adapters)))
    assert filecmp.cmp(streamed / "model.safetensors", whole / "model.safetensors", shallow=False)


def test_the_experts_of_a_mixture_are_copied(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their tensors have other names in the file than in the model; LoRA is on attention."""
    settings = Qwen3MoeConfig(vocab_size=49152, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                              **{**_SMALL, "head_dim": 8})
    base = base_of(tmp_path / "moe", settings, tokenizer)
    adapter = adapter_of(tmp_path / "adapter", base, target_modules=["q_proj", "o_proj"])
    streamed, whole = both_ways(tmp_path, monkeypatch, model_name_or_path=base, adapter_name_or_path=adapter)
    names = [file.name for file in whole.iterdir()]
    assert filecmp.cmpfiles(streamed, whole, names, shallow=False)[1:] == ([], [])
    assert any("experts.3.up_proj" in name for name in load_file(streamed / "model.safetensors"))


def test_a_merged_matrix_is_the_sum(llama: Path, tmp_path: Path) -> None:
    """W + (alpha / r) B A in float32, by hand; what no adapter touches is what it was."""
    adapter = adapter_of(tmp_path / "adapter", llama, target_modules=["up_proj"])
    done = written(tmp_path / "done", model_name_or_path=llama, adapter_name_or_path=adapter, infer_dtype="float32")
    before, after = weights(llama), weights(done)
    numbers = load_file(adapter / "adapter_model.safetensors")
    for name, weight in before.items():
        sum = weight.float()
        if "up_proj" in name:
            place = f"base_model.model.{name.removesuffix('.weight')}"
            sum = sum + 12 / 4 * (numbers[f"{place}.lora_B.weight"] @ numbers[f"{place}.lora_A.weight"])
        torch.testing.assert_close(after[name], sum, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("settings", [
    {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, {"bias": "all"}, {"lora_bias": True,
     "target_modules": ["q_proj"]}, {"target_modules": ["q_proj", "embed_tokens"]}, {"trainable_token_indices": [1, 2]},
], ids=["modules_to_save", "bias", "lora_bias", "embeddings", "rows"])
def test_what_reaches_further_is_merged_into_the_whole_model(qwen: Path, tmp_path: Path,
                                                             settings: dict[str, Any]) -> None:
    """An adapter that is more than changes of single matrices."""
    adapter = adapter_of(tmp_path / "adapter", qwen, **settings)
    assert plan_stream(qwen, load_model_config(qwen), [adapter], torch.float32) is None


def test_files_are_those_of_the_package(tmp_path: Path) -> None:
    """Byte for byte what safetensors writes, of every type, with names that sort oddly and a tensor without numbers."""
    types = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2)
    torch.manual_seed(0)
    tensors = {f"层.{number % 3}.{dtype}": (torch.randn(number + 1, 3) * 9).to(dtype)
               for number, dtype in enumerate(types)} | {"none": torch.empty(0, 4), "one": torch.tensor(1.5)}
    kinds = {name: Kind(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    write_shards(tmp_path, kinds, tensors.__getitem__, 10**9, 0)
    save_file(tensors, tmp_path / "theirs", {"format": "pt"})
    assert filecmp.cmp(tmp_path / "model.safetensors", tmp_path / "theirs", shallow=False)


def test_what_goes_with_a_model(llama: Path, tmp_path: Path) -> None:
    """The tokens that end an answer; of the sampling values those that the user chose, the maker's otherwise; the value
    head of a reward model."""
    adapter = adapter_of(tmp_path / "adapter", llama)
    (adapter / "generation_config.json").write_text(json.dumps({"top_p": 0.8, "do_sample": True}), encoding="utf-8")
    save_file({"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.zeros(1)}, adapter / VALUE_HEAD)
    words = {"model_name_or_path": llama, "adapter_name_or_path": adapter}

    def generation(name: str, **more: object) -> dict[str, Any]:
        done = written(tmp_path / name, **words, **more)
        return json.loads((done / "generation_config.json").read_text(encoding="utf-8"))

    ends = [load_tokenizer(llama).eos_token_id]
    kept = generation("kept", temperature=0.95)
    assert (kept["eos_token_id"], kept["top_p"], kept["do_sample"]) == (ends, 0.8, True) and "temperature" not in kept
    chosen = generation("chosen", temperature=0.3, repetition_penalty=1.1)
    assert (chosen["temperature"], chosen["top_p"], chosen["repetition_penalty"]) == (0.3, 0.8, 1.1)
    greedy = generation("greedy", do_sample=False)
    assert greedy["do_sample"] is False and "top_p" not in greedy
    assert filecmp.cmp(tmp_path / "kept" / VALUE_HEAD, adapter / VALUE_HEAD, shallow=False)


def test_an_adapter_alone(llama: Path, tmp_path: Path) -> None:
    """Its weights as they are, its base by the name that was given, and what is needed to serve it; PEFT loads it."""
    adapter = adapter_of(tmp_path / "adapter", llama)
    (adapter / MANIFEST).write_text(json.dumps({"base_model": "x", "base_fingerprint": fingerprint(llama)}),
                                    encoding="utf-8")
    folder = tmp_path / "alone"
    folder.mkdir()
    words = {"model_name_or_path": llama, "adapter_name_or_path": adapter}
    write_adapter_alone(config_of(**words), folder, lambda words: None)
    names = {file.name for file in folder.iterdir()}
    assert names >= {"adapter_model.safetensors", "adapter_config.json", MANIFEST, "tokenizer.json",
                     "generation_config.json", "chat_template.jinja"} and "model.safetensors" not in names
    assert filecmp.cmp(folder / "adapter_model.safetensors", adapter / "adapter_model.safetensors", shallow=False)
    assert json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"] == \
        str(llama)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), folder)


def test_an_adapter_alone_is_refused(llama: Path, qwen: Path, tmp_path: Path) -> None:
    """Several, none, another base's, a pickle, a file that is cut off: one clear line."""
    adapter = adapter_of(tmp_path / "adapter", llama)
    (adapter / MANIFEST).write_text(json.dumps({"base_model": "x", "base_fingerprint": fingerprint(llama)}),
                                    encoding="utf-8")

    def refused(expected: str, **words: object) -> None:
        with pytest.raises(Problem, match=expected):
            write_adapter_alone(config_of(**words), tmp_path, lambda words: None)

    refused("2 adapters", model_name_or_path=llama, adapter_name_or_path=f"{adapter},{adapter}")
    refused("no adapter is named", model_name_or_path=llama)
    refused("other weights", model_name_or_path=qwen, adapter_name_or_path=adapter)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused("cannot be read", model_name_or_path=llama, adapter_name_or_path=adapter)
    weights.rename(adapter / "adapter_model.bin")
    refused("pickle", model_name_or_path=llama, adapter_name_or_path=adapter)


def test_damaged_weights_are_named(llama: Path, tmp_path: Path) -> None:
    """A base that is cut off is a fault of the model, not of the disk that is written to."""
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    file = next(base.glob("model*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(Problem, match="cannot be read") as caught:
        written(tmp_path / "done", model_name_or_path=base)
    assert caught.value.findings[0].option == "model_name_or_path"


def test_memory_is_a_matrix_and_not_the_model(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one matrix is merged, no other of the model's has numbers, and none is left when the next one comes. What
    was read is not written to: it lies in the file, and each page of it that is changed takes memory to the end."""
    adapter, seen = adapter_of(tmp_path / "adapter", qwen), []

    def merging(layer: Any, weight: torch.Tensor, device: torch.device) -> torch.Tensor:
        before = weight.clone()
        merged = merge_one(layer, weight, device)
        assert torch.equal(weight, before) and not torch.equal(merged, before)
        seen.append(layer)
        assert all(each.get_base_layer().weight.is_meta and each.lora_A["default"].weight.is_meta for each in seen)
        return merged

    merge_one = streamed._merge
    monkeypatch.setattr(streamed, "_merge", merging)
    written(tmp_path / "done", model_name_or_path=qwen, adapter_name_or_path=adapter)
    assert len(seen) == 14
