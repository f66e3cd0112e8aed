"""GGUF files: llama.cpp itself, given a file that was written here, tokenises and computes what transformers does."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from truetune.export.gguf import write_gguf
from truetune.model.find import load_tokenizer
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


def logprobs(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
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
            print(family, length, np.abs(ours - theirs).max(), ours.max()-ours.min())
            assert np.abs(ours - theirs).max() < (5e-3 if "gemma" in family else 1e-4)
