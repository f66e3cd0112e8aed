"""GGUF files: llama.cpp itself, given a file that was written here, tokenises and computes what transformers does."""

from __future__ import annotations

import copy
import json
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Q
from gguf import TokenType
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Metaspace, Split
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from truetune.export.gguf import measure_importance, pretokenizers, require_convertible, write_gguf, write_gguf_adapter
from truetune.export.gguf.mixture import DEFAULTS, Shape, tensor_type
from truetune.export.gguf.proof import NEAR, differences, probe_texts, prove
from truetune.export.gguf.vocabulary import read_vocabulary
from truetune.findings import Problem
from truetune.model.load import load_model
from truetune.options.gguf_types import GGUF_TYPES
from truetune.serve.llamacpp import LlamaCpp

SMALL: dict[str, Any] = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                             num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
                             pad_token_id=2)
HEADS: dict[str, Any] = SMALL | dict(head_dim=32)
EXPERTS: dict[str, Any] = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


LONG = rope("longrope", factor=4.0, short_factor=[1.0 + n / 20 for n in range(8)],
            long_factor=[2.0 + n for n in range(8)],
            original_max_position_embeddings=256
            ) | dict(original_max_position_embeddings=256)

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SMALL | dict(tie_word_embeddings=True)),
    "llama 3.1": ("Llama", HEADS | rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                        original_max_position_embeddings=32)),
    "llama linear": ("Llama", SMALL | dict(attention_bias=True, mlp_bias=True) | rope("linear", factor=4.0)),
    "mistral": ("Mistral", HEADS | dict(sliding_window=None)),
    "qwen2": ("Qwen2", SMALL),
    "qwen2 yarn": ("Qwen2", SMALL | rope("yarn", factor=4.0, original_max_position_embeddings=128)),
    "qwen3": ("Qwen3", HEADS | dict(tie_word_embeddings=True)),
    "gemma": ("Gemma", HEADS),
    "gemma2": ("Gemma2", HEADS | dict(query_pre_attn_scalar=32, sliding_window=8)),
    "gemma3": ("Gemma3", HEADS | dict(query_pre_attn_scalar=32, sliding_window=8,
                                      layer_types=["sliding_attention", "full_attention"])),
    "phi3": ("Phi3", SMALL | dict(sliding_window=None)),
    "phi3 longrope": ("Phi3", SMALL | dict(sliding_window=None) | LONG),
    "glm4": ("Glm4", HEADS),
    "mixtral": ("Mixtral", SMALL | dict(num_local_experts=4)),
    "qwen2 moe": ("Qwen2Moe", SMALL | EXPERTS | dict(shared_expert_intermediate_size=64)),
    "qwen3 moe": ("Qwen3Moe", HEADS | EXPERTS | dict(norm_topk_prob=True)),
}

PROMPT = "The quick brown fox: 12345 jumps.\n  def f(x): return x ** 2  # 你好, мир 🚀 and so on, and so on"


@pytest.fixture(scope="module")
def words(tokenizer: Any) -> Any:
    """SmolLM2's tokenizer with the 1,500 tokens that come first: llama.cpp then starts in no time."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = {text: number for text, number in backend["model"]["vocab"].items() if number < 1500}
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in backend["model"]["merges"]]
    backend["model"] |= {"vocab": kept, "merges": [pair for pair in merges if "".join(pair) in kept]}
    small = copy.deepcopy(tokenizer)
    small._tokenizer = Tokenizer.from_str(json.dumps(backend))
    return small


def random_model(family: str, values: dict[str, Any], tokens: int) -> PreTrainedModel:
    """A model of that class with weights that matter: its log-probabilities differ by many nats."""
    name = f"{family}TextConfig" if family == "Gemma3" else f"{family}Config"
    config: PretrainedConfig = getattr(transformers, name)(vocab_size=tokens, **values)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(std=0.3 if parameter.dim() == 1 else 0.25)
            if parameter.dim() == 1 and "norm" in parameter_name and not family.startswith("Gemma"):
                parameter += 1
    return model.eval()


def saved(model: PreTrainedModel, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def logprobs(model: Any, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1).numpy()


def nothing(words: Any) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("family", FAMILIES)
def test_llamacpp_computes_the_same(family: str, words: Any, tmp_path: Path) -> None:
    """Each family, with random weights: the same ids, and the same log-probability for every next token."""
    model = random_model(*FAMILIES[family], len(words))
    write_gguf(saved(model, words, tmp_path / "hf"), tmp_path / "m.gguf", "f32", say=nothing)
    ids = words(PROMPT).input_ids
    with LlamaCpp(tmp_path / "m.gguf", context=256, exact=True) as server:
        assert server.tokenize(PROMPT) == ids
        for length in (5, len(ids)):
            ours, theirs = logprobs(model, ids[:length]), server.next_logprobs(ids[:length])
            assert ours.max() - ours.min() > 8
            # measured: up to 8e-5; Gemma's 4e-3, since llama.cpp looks GELU up in a table of float16
            assert np.abs(ours - theirs).max() < (1e-2 if "gemma" in family else 3e-4)


def test_longrope_beyond_what_was_trained(words: Any, tmp_path: Path) -> None:
    """llama.cpp takes the factors for long texts where its context is longer than what was trained, transformers where
    the text is."""
    model = random_model(*FAMILIES["phi3 longrope"], len(words))
    write_gguf(saved(model, words, tmp_path / "hf"), tmp_path / "m.gguf", "f32", say=nothing)
    ids = words(PROMPT * 5).input_ids
    assert len(ids) > 256
    with LlamaCpp(tmp_path / "m.gguf", context=512, exact=True) as server:
        assert np.abs(logprobs(model, ids) - server.next_logprobs(ids)).max() < 3e-4


def test_the_real_tokenizer_and_template(tiny: Path, tokenizer: Any, tmp_path: Path) -> None:
    """SmolLM2's two layers: ids of hard texts, the chat template, what ends an answer, all from the file."""
    target = tmp_path / "m.gguf"
    write_gguf(tiny, target, "f16", say=nothing)
    with LlamaCpp(target) as server:
        for text in probe_texts(["<|im_start|>", "<|im_end|>", "<|endoftext|>"], 300, seed=1):
            assert server.tokenize(text) == tokenizer(text).input_ids, text
        talk = [{"role": "user", "content": " 你好 <|im_end|>"}]
        assert server.render(talk) == tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        assert server.tokenize("Hello", opening=True) == tokenizer("Hello").input_ids
        assert set(server.ends()) >= {2}
        model = load_model(tiny, torch.float32, torch.device("cpu"))
        ids = tokenizer("The capital of France is").input_ids
        # float16 rounds weights to 2^-11 of them
        assert np.abs(logprobs(model, ids) - server.next_logprobs(ids)).max() < 0.1


STEPS = {"gpt2's own pattern": ByteLevel(add_prefix_space=False), "digits one by one": Digits(individual_digits=True)}


@pytest.mark.parametrize(("way", "name"), pretokenizers.NAMES.items(), ids=pretokenizers.NAMES.values())
def test_every_known_way_to_split(way: tuple[tuple[str, ...], bool], name: str, tmp_path: Path) -> None:
    """A tokenizer trained with each way of the table is found under its name and gives the same ids in llama.cpp."""
    steps, whole_words = way
    backend = Tokenizer(models.BPE(ignore_merges=whole_words))
    chain = [STEPS.get(step) or Split(Regex(step), "isolated") for step in steps]
    chain += [] if "gpt2's own pattern" in steps else [ByteLevel(add_prefix_space=False, use_regex=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(chain)  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=ByteLevel.alphabet(), special_tokens=["<eos>"],
                                  show_progress=False)
    backend.train_from_iterator(probe_texts([], 1500, seed=2), trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(tmp_path)
    vocabulary = read_vocabulary(tmp_path, 1000)
    assert vocabulary.pre == name
    found = differences(vocabulary, 200)
    assert not found or name in NEAR, found[:3]


def spaced(normalizer: Any, splitter: Any) -> Tokenizer:
    """A tokenizer like SentencePiece's: spaces are ▁, and characters that it does not know become bytes."""
    special = ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = Metaspace(prepend_scheme="never")  # pyright: ignore[reportAttributeAccessIssue]
    texts = [text.replace("<s>", "").replace("</s>", "") for text in probe_texts([], 1500, seed=3)]
    trained.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], limit_alphabet=100,
        show_progress=False))
    model = json.loads(trained.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    made = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if normalizer:
        made.normalizer = normalizer
    if splitter:
        made.pre_tokenizer = splitter
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in [*special, "<turn>"]])
    return made


SPACED = {
    "gemma": (normalizers.Replace(" ", "▁"), Split(" ", "merged_with_previous"), "never"),
    "llama 2": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, "each"),
    "llama 2 today": (None, Metaspace(prepend_scheme="always", split=False), "each without one"),
    "mistral": (None, Metaspace(prepend_scheme="first", split=False), "first"),
}


@pytest.mark.parametrize("kind", SPACED)
def test_tokenizers_like_sentencepiece(kind: str, tmp_path: Path) -> None:
    normalizer, splitter, space = SPACED[kind]
    backend = spaced(normalizer, splitter)
    if kind == "gemma":  # runs of spaces and newlines are tokens of their own there
        backend.add_tokens([AddedToken(text * count, normalized=True) for text in ("▁", "\n") for count in (2, 3)])
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>",
                            unk_token="<unk>").save_pretrained(tmp_path)
    vocabulary = read_vocabulary(tmp_path, 1300)
    assert (vocabulary.kind, vocabulary.space) == ("llama", space)
    assert {TokenType.BYTE, TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED} < set(vocabulary.types)
    assert not differences(vocabulary, 300)


def test_wrong_tokens_are_found(words: Any, tmp_path: Path) -> None:
    """The proof can fail: under another name, digits fall together, and the file is refused."""
    words.save_pretrained(tmp_path)
    wrong = replace(read_vocabulary(tmp_path, 1500), pre="gpt-2")
    with pytest.raises(Problem, match=r"llama.cpp makes other tokens of .*12345678.*and in training it was"):
        prove(wrong, nothing)


def test_what_llamacpp_cannot_do_is_refused(tiny: Path, words: Any, tmp_path: Path) -> None:
    """One clear line each, and no file: another architecture, another way to split, another activation, no plain
    weights, pickled ones, too many tokens, a type that needs an importance matrix."""
    target, folder = tmp_path / "m.gguf", tmp_path / "hf"
    saved(random_model("Llama", SMALL, len(words)), words, folder)

    def refused(match: str, kind: str = "f16", changed: str = "config.json", **values: Any) -> None:
        file = folder / changed
        before = file.read_text(encoding="utf-8")
        file.write_text(json.dumps(json.loads(before) | values), encoding="utf-8")
        with pytest.raises(Problem, match=match):
            write_gguf(folder, target, kind, say=nothing)
        file.write_text(before, encoding="utf-8")
        assert not target.exists() and not list(tmp_path.glob(".m*"))

    refused("GPT2LMHeadModel cannot be written as GGUF.*Supported: .*Qwen3MoeForCausalLM",
            architectures=["GPT2LMHeadModel"])
    refused("llama.cpp computes silu", hidden_act="gelu")
    refused("no rotary embeddings of type 'dynamic'", **rope("dynamic", factor=2.0))
    refused("quantised already", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refused("splits? texts as this tokenizer does.*Punctuation", changed="tokenizer.json",
            pre_tokenizer={"type": "Sequence", "pretokenizers": [
                {"type": "Punctuation", "behavior": "Isolated"},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]})
    refused("has 1,501 tokens and the model's embedding 1,500 rows", changed="tokenizer.json", added_tokens=[
        *json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"],
        {"id": 1500, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}])
    refused("iq2_xxs is of no use without an importance matrix", kind="iq2_xxs")
    refused("there is no GGUF type 'q9'", kind="q9")
    require_convertible(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused("no safetensors weights.*Pickled weights are not read")


def test_every_id_that_ends_an_answer_ends_it_in_llamacpp(words: Any, tmp_path: Path) -> None:
    """eos, one that llama.cpp knows by its text, and two that it cannot know."""
    folder, target = saved(random_model("Llama", SMALL, len(words)), words, tmp_path / "hf"), tmp_path / "m.gguf"
    ends = [2, 0, 300, 301]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    write_gguf(folder, target, "f16", say=nothing)
    with LlamaCpp(target, context=64) as server:
        assert set(server.ends()) >= set(ends)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [*ends, 302]}), encoding="utf-8")
    with pytest.raises(Problem, match="this model has 3"):
        write_gguf(folder, target, "f16", say=nothing)


def test_a_failed_write_leaves_what_was_there(words: Any, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk. A weight that is no number is found too."""
    folder, target = saved(random_model("Llama", SMALL, len(words)), words, tmp_path / "hf"), tmp_path / "m.gguf"
    target.write_text("older", encoding="utf-8")
    differences(read_vocabulary(folder, len(words)))  # proven before, so that only the model meets the limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(Problem, match=r"m.gguf could not be written: File too large"):
            write_gguf(folder, target, "f32", say=nothing)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_text(encoding="utf-8") == "older" and not list(tmp_path.glob(".m*"))
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        weights = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Problem, match=r"blk.1.ffn_up.weight has weights that are no finite number in f16.*bf16"):
        write_gguf(folder, target, "f16", say=nothing)


def test_types_of_a_mixture() -> None:
    """llama.cpp's q4_k_m of 30 layers, by hand from its source: more bits for the values and the last matrix of the
    first and last eighth and of every third layer between; rows of 576 fit no block of 256."""
    model = Shape(layers=30, groups=3, experts=0, tied=True, large=False, importance=False)
    more = {layer for layer in range(30) if layer < 3 or layer >= 26 or (layer - 3) % 3 == 2}
    for layer in range(30):
        down = tensor_type(f"blk.{layer}.ffn_down.weight", (576, 1536), "q4_k_m", model)
        value = tensor_type(f"blk.{layer}.attn_v.weight", (192, 576), "q4_k_m", model)
        assert down == (Q.Q6_K if layer in more else Q.Q4_K)
        assert value == (Q.Q8_0 if layer in more else Q.Q5_0)
    assert tensor_type("token_embd.weight", (49152, 576), "q4_k_m", model) == Q.Q8_0
    assert tensor_type("blk.0.attn_norm.weight", (576,), "q4_k_m", model) == Q.F32
    assert tensor_type("blk.0.ffn_up.weight", (100, 48), "q4_k_m", model) == Q.F16
    assert set(DEFAULTS) == set(GGUF_TYPES)


def test_quantised_files(words: Any, tmp_path: Path) -> None:
    """The fewer bits, the smaller the file and the further its log-probabilities (KL divergence in nats). llama.cpp
    reads every one."""
    model = random_model("Llama", SMALL | dict(hidden_size=256, intermediate_size=256), len(words))
    folder, ids = saved(model, words, tmp_path / "hf"), words(PROMPT).input_ids
    importance = measure_importance(folder, [np.array(ids)], nothing)
    far, size = [], []
    for kind in ("q8_0", "q6_k", "q4_k_m", "q2_k"):
        target = tmp_path / "m.gguf"
        write_gguf(folder, target, kind, importance=importance, say=nothing)
        with LlamaCpp(target, context=256) as server:
            pairs = [(logprobs(model, ids[:length]), server.next_logprobs(ids[:length])) for length in (5, 20, 40)]
        far.append(sum(float((np.exp(ours) * (ours - theirs)).sum()) for ours, theirs in pairs))
        size.append(target.stat().st_size)
    assert far == sorted(far) and size == sorted(size, reverse=True), (far, size)


@pytest.mark.parametrize("family", ["llama", "qwen3 moe"])
def test_importance_is_the_mean_square_of_what_a_matrix_gets(family: str, words: Any, tmp_path: Path) -> None:
    """Against the definition, worked out from the states of the model itself."""
    model = random_model(*FAMILIES[family], len(words))
    rows = [np.array(words(text).input_ids) for text in (PROMPT, "Hello, world!")]
    measured = measure_importance(saved(model, words, tmp_path), rows, nothing)
    with torch.inference_mode():
        hidden = [model(input_ids=torch.as_tensor(row)[None], output_hidden_states=True).hidden_states for row in rows]
        states = torch.cat([layers[0][0] for layers in hidden])
        first = model.model.layers[0].input_layernorm(states).square().mean(0)
    np.testing.assert_allclose(measured.columns["blk.0.attn_q.weight"][0], first, rtol=1e-4)
    assert measured.tokens == sum(map(len, rows))
    if "moe" in family:
        experts = measured.columns["blk.1.ffn_down_exps.weight"]
        assert experts.shape == (4, 64) and (experts > 0).all()
        # the experts' inputs, weighed by how many tokens each got, are those of the router
        assert not np.allclose(experts[0], experts[1])
    else:
        assert measured.columns["blk.1.ffn_down.weight"].shape == (1, 96)
    assert "output.weight" not in measured.columns


@pytest.mark.parametrize(("family", "settings"), [
    ("llama", dict(r=4, lora_alpha=8)),
    ("qwen3", dict(r=4, lora_alpha=8, use_rslora=True, rank_pattern={"down_proj": 2}, alpha_pattern={"q_proj": 3})),
])
def test_an_adapter_by_itself(family: str, settings: dict[str, Any], words: Any, tmp_path: Path) -> None:
    """llama.cpp with the adapter switched on says what PEFT says, and without it what the base says."""
    base = random_model(*FAMILIES[family], len(words))
    folder = saved(base, words, tmp_path / "hf")
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(base, LoraConfig(target_modules=modules, **settings)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    write_gguf(folder, tmp_path / "m.gguf", "f32", say=nothing)
    write_gguf_adapter(tmp_path / "adapter", folder, tmp_path / "a.gguf", nothing)
    ids = words(PROMPT).input_ids
    with LlamaCpp(tmp_path / "m.gguf", context=256, adapters=[tmp_path / "a.gguf"], exact=True) as server:
        off = server.next_logprobs(ids)
        on = server.next_logprobs(ids, adapter=0)
    assert np.abs(logprobs(adapted, ids) - on).max() < 1e-3
    with adapted.disable_adapter():
        assert np.abs(logprobs(adapted, ids) - off).max() < 3e-4
    assert np.abs(on - off).max() > 1


@pytest.mark.parametrize(("settings", "why"), [
    (dict(target_modules=["q_proj"], use_dora=True), "DoRA"),
    (dict(target_modules=["q_proj"], modules_to_save=["lm_head"]), "whole layers"),
    (dict(target_modules=["embed_tokens"]), "cannot change model.embed_tokens"),
])
def test_adapters_that_are_more_than_lora(settings: dict[str, Any], why: str, words: Any, tmp_path: Path) -> None:
    base = random_model("Llama", SMALL, len(words))
    folder = saved(base, words, tmp_path / "hf")
    get_peft_model(base, LoraConfig(**settings)).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(Problem, match=f"cannot be a GGUF adapter: .*{why}.*merged"):
        write_gguf_adapter(tmp_path / "adapter", folder, tmp_path / "a.gguf", nothing)
    assert not (tmp_path / "a.gguf").exists()
