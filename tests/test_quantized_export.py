"""Weights in few bits: what is written is what plain transformers reads, and the fitted methods lose less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from conftest import options, write_rows
from safetensors import safe_open
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MixtralConfig, Qwen2Config

from truetune.data.template import make_renderer
from truetune.export.awq import protect
from truetune.export.calibration import calibration_rows
from truetune.export.gptq import DAMP, gptq
from truetune.export.quantized import nearest, write_quantized
from truetune.export.replay import Replay
from truetune.findings import Problem
from truetune.model.find import load_tokenizer
from truetune.model.load import load_model
from truetune.model.quantize import plain_layers
from truetune.options import Config
from truetune.options.read import read_config

TEXT = ("The quick brown fox jumps over the lazy dog, and then it sleeps in the sun until evening. " * 3,
        "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n" * 4, "1 + 1 = 2, 2 + 2 = 4, 4 + 4 = 8. " * 5)
SMALL: dict[str, Any] = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                         "num_attention_heads": 8, "num_key_value_heads": 4}
METHODS = ("rtn", "gptq", "awq", "fp8")


def config_of(**values: object) -> Config:
    config, findings = read_config(options(**values))
    assert not findings
    return config


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[np.ndarray]:
    return [np.array(tokenizer(text).input_ids) for text in TEXT]


@pytest.fixture(scope="module")
def source(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer of the real model in bfloat16, with the files that go with it."""
    folder = tmp_path_factory.mktemp("merged")
    model: Any = load_model(tiny, torch.bfloat16, torch.device("cpu"))
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    model.save_pretrained(folder)
    load_tokenizer(tiny).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def forms(source: Path, rows: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model in each form."""
    made = {}
    for method in METHODS:
        made[method] = tmp_path_factory.mktemp(method)
        config = config_of(export_quantization_method=method)
        write_quantized(source, made[method], config, rows, lambda words: None)
    return made


def plain(folder: Path) -> torch.nn.Module:
    """As users load it, without truetune."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def says(model: torch.nn.Module, rows: list[np.ndarray]) -> list[torch.Tensor]:
    """The log-probabilities of the next token: (T, V) a row."""
    with torch.no_grad():
        return [model(input_ids=torch.tensor(row)[None]).logits[0].float().log_softmax(-1) for row in rows]


@pytest.fixture(scope="module")
def lost(forms: dict[str, Path], source: Path, rows: list[np.ndarray]) -> dict[str, float]:
    """Mean KL of the next token between each form, as plain transformers reads it, and the model, in nats."""
    before = says(plain(source), rows)
    return {method: sum(float((p.exp() * (p - q)).sum(-1).mean()) for p, q in
                        zip(before, says(plain(folder), rows), strict=True)) / len(rows)
            for method, folder in forms.items()}


def test_the_fitted_methods_lose_less(lost: dict[str, float]) -> None:
    """In plain transformers all are near the model; of those with 4 bits, on the texts that they were fitted to, GPTQ
    and AWQ are nearer than rounding; 8-bit floats are nearer still."""
    shares = {method: each / lost["rtn"] for method, each in lost.items()}
    assert lost["rtn"] < 0.2 and shares["gptq"] < 0.5 and shares["awq"] < 0.9 and shares["fp8"] < 0.2, lost


@pytest.mark.parametrize("method", METHODS)
def test_what_is_written(method: str, forms: dict[str, Path], source: Path, rows: list[np.ndarray]) -> None:
    """Codes of the layers only, named as the format has them, with all that goes with a model; truetune's own reader
    gives the same model as transformers'."""
    said = json.loads((forms[method] / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert said["quant_method"] == "compressed-tensors" and said["ignore"] == ["lm_head"]
    with safe_open(forms[method] / "model.safetensors", "pt") as tensors:
        kinds = {name: str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}  # noqa: SIM118
    codes = {"fp8": {"F8_E4M3"}}.get(method, {"I32"})
    assert {kind for name, kind in kinds.items() if name.endswith(("proj.weight", "proj.weight_packed"))} == codes
    assert kinds["model.embed_tokens.weight"] == "BF16" and "lm_head.weight" not in kinds
    assert (forms[method] / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    ours, theirs = (says(model, rows)[0] for model in (
        load_model(forms[method], torch.bfloat16, torch.device("cpu")), plain(forms[method])))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05)


def test_gptq_against_solving_for_the_rest(tmp_path: Path) -> None:
    """An independent way to the same codes: once a column is rounded, the others are set to what is best given that, by
    solving the normal equations anew each time (no Cholesky factor, no running updates)."""
    torch.manual_seed(0)
    weight, inputs = torch.randn(5, 192).double(), (torch.randn(400, 192) @ torch.randn(192, 192)).double()
    hessian, args = inputs.T @ inputs, QuantizationArgs(num_bits=4, strategy="group", group_size=64)
    done = gptq(weight, hessian, args, torch.float64)
    damped = hessian + DAMP * hessian.diagonal().mean() * torch.eye(192).double()
    left, scale = weight.clone(), torch.empty(0)
    for column in range(192):
        if column % 64 == 0:
            scale = left[:, column: column + 64].abs().amax(1) / 7.5
        rounded = (left[:, column] / scale.float()).round().clamp(-8, 7) * scale.float()
        off = left[:, column] - rounded  # what the columns after it make up for: H_FF d = -H_Fc off
        after = slice(column + 1, None)
        left[:, after] += torch.linalg.solve(damped[after, after], damped[after, column: column + 1] @ off[None]).T
        left[:, column] = rounded
    torch.testing.assert_close(done.weight.double(), left, rtol=1e-4, atol=1e-4)

    def error(to: torch.Tensor) -> float:
        return float((((to - weight) @ hessian) * (to - weight)).sum())

    assert error(done.weight) < 0.5 * error(nearest(weight.float(), args, torch.float32).weight.double())


@pytest.mark.parametrize("settings", [
    Gemma2Config(query_pre_attn_scalar=8, head_dim=8, **SMALL), LlamaConfig(**SMALL),
    Qwen2Config(**{**SMALL, "num_key_value_heads": 4}),
    MixtralConfig(num_local_experts=2, num_experts_per_tok=1, **SMALL)], ids=["gemma2", "llama", "qwen2", "mixtral"])
def test_protecting_weights_changes_nothing_else(settings: Any) -> None:
    """AWQ's scales are taken out again by what comes before, whatever the architecture does: before anything is
    rounded, the model says what it said. Gemma's norms multiply by 1 + weight; Mixtral's router shares a norm."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32).eval()
    for name, weight in model.named_parameters():
        weight.data += 0.3 * torch.randn_like(weight) if "norm" in name else 0
    rows = [np.arange(3, 40), np.arange(50, 20, -1)]
    before, old = says(model, rows), {name: weight.clone() for name, weight in model.named_parameters()}
    args = QuantizationArgs(num_bits=4, strategy="group", group_size=32)
    with torch.no_grad():
        for block in Replay(model, rows).blocks():
            layers = {name: layer for name, layer in plain_layers(model).items() if block.holds(layer)}
            protect(block, layers, args)
    for one, other in zip(before, says(model, rows), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    changed = {name.split(".")[-2] for name, weight in model.named_parameters() if not torch.equal(weight, old[name])}
    assert {"q_proj", "input_layernorm"} <= changed and ("down_proj" in changed or isinstance(settings, MixtralConfig))


def test_rounding_by_hand() -> None:
    """Two groups of four numbers with 4 bits: the scale is the largest over 7.5, codes go from -8 to 7."""
    weight = torch.tensor([[7.5, -7.5, 0.4, 3.6, 15.0, 1.1, -2.9, 0.9]])
    codes = nearest(weight, QuantizationArgs(num_bits=4, strategy="group", group_size=4), torch.float32)
    assert codes.scale.tolist() == [[1.0, 2.0]]
    assert codes.weight.tolist() == [[7.0, -8.0, 0.0, 4.0, 14.0, 2.0, -2.0, 0.0]]


def test_texts_are_needed(source: Path, tmp_path: Path) -> None:
    """A method that is fitted says what is missing, and writes nothing."""
    with pytest.raises(Problem, match="fitted to texts"):
        write_quantized(source, tmp_path, config_of(export_quantization_method="gptq"), [], lambda words: None)
    assert not list(tmp_path.iterdir())


def test_calibration_texts(tiny: Path, tmp_path: Path, tokenizer: Any) -> None:
    """Rows of the data that a run was trained on, rendered as then; or of a file of any format, or of plain text."""
    data, text = write_rows(tmp_path / "rows.json", 12), tmp_path / "texts.jsonl"
    text.write_text("".join(json.dumps({"text": f"A text of number {n}, and more."}) + "\n" for n in range(9)),
                    encoding="utf-8")

    def rows(**values: object) -> list[np.ndarray]:
        config = config_of(model_name_or_path=tiny, dataset_dir=tmp_path, **values)
        return calibration_rows(config, make_renderer(tokenizer, tiny, config), lambda words: None)

    assert rows() == []
    trained = rows(dataset=data, export_quantization_nsamples=5)
    assert len(trained) == 5 and all("<|im_start|>assistant" in tokenizer.decode(row) for row in trained)
    assert [row.tolist() for row in rows(dataset=data, export_quantization_nsamples=5)] == [r.tolist() for r in trained]
    assert max(map(len, rows(dataset=data, export_quantization_maxlen=7))) == 7
    named = rows(dataset=data, export_quantization_dataset=text)
    assert len(named) == 9 and all("A text of number" in tokenizer.decode(row) for row in named)
    assert rows(dataset=tmp_path / "gone.json") == []
    with pytest.raises(Problem, match=r"gone\.json"):
        rows(export_quantization_dataset=tmp_path / "gone.json")
