"""Weights held in fewer bits: what is computed with them, what trains over them, and checkpoints saved so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import events, options, write_rows
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from truetune.check.model import model_findings
from truetune.check.room import Batches, Device, need, savings
from truetune.check.shape import shape_of
from truetune.cli import main
from truetune.findings import Problem
from truetune.model.base import load_base, load_in
from truetune.model.float8 import float8_findings, multiply_in_float8
from truetune.model.load import cast_weights, load_model
from truetune.model.methods import METHODS
from truetune.model.precision import Precision
from truetune.model.quantize import FORMS, Codes, coded, dequantise, is_code, parameter_count, quantise, weight_of
from truetune.model.stored import FORMATS
from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.options.quantizers import QUANTIZERS, REFUSED
from truetune.options.read import read_config
from truetune.rules import apply_rules

CPU = torch.device("cpu")
WAYS = {"nf4": Codes.named("bnb", 4), "fp4": Codes.named("bnb", 4, "fp4", double=False), "int8": Codes.named("bnb", 8),
        "hqq 4": Codes.named("hqq", 4), "hqq 3": Codes.named("hqq", 3), "torchao int8": Codes.named("torchao", 8),
        "torchao fp8": Codes.named("torchao", 8, "fp8")}
"""Every way that a CPU can take; hqq's other bits differ from these in numbers only."""
APART = {"nf4": 0.11, "fp4": 0.14, "int8": 0.02, "hqq 4": 0.1, "hqq 3": 0.25, "torchao int8": 0.02, "torchao fp8": 0.04}
"""How far weights drawn from a normal distribution are off at most, as a share of their length. (Of 4 bits, the normal
float is the better one, and hqq fits its scales.)"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model so small that most of it is linear layers, and the slowest quantizer takes no time."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("small")
    LlamaForCausalLM(LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
                                 num_key_value_heads=2, vocab_size=256, max_position_embeddings=128,
                                 initializer_range=0.1)).save_pretrained(folder)
    return folder


def plain(folder: Path) -> PreTrainedModel:
    return load_model(folder, torch.float32, CPU)


def asking(folder: Path, codes: Codes | None = None, **more: object) -> Config:
    """A run's options that ask for such codes."""
    words = {"model_name_or_path": folder, "dataset": "rows.json", "output_dir": "run", **more}
    if codes:
        words |= {"quantization_bit": codes.bits, "quantization_method": codes.method,
                  "double_quantization": codes.double}
        words |= {"quantization_type": codes.type} if codes.type in ("nf4", "fp4", "fp8") else {}
    return read_config(options(**words))[0]


def in_codes(folder: Path, codes: Codes) -> PreTrainedModel:
    return load_base(folder, asking(folder, codes), torch.float32, CPU)


# ------------------------------------------------------------------------------------------------------- what is held


def test_the_tables_tell_the_same():
    """What rules say that a method offers is what can be done, and every method is one or the other."""
    offered = {(method, bits) for method, quantizer in QUANTIZERS.items() for bits in quantizer.bits}
    assert offered == set(FORMS)
    assert {*QUANTIZERS, *REFUSED} == set(get_args(Config.model_fields["quantization_method"].annotation))


@pytest.mark.parametrize("way", WAYS)
def test_weights_are_what_the_codes_stand_for(small: Path, way: str):
    """Each linear layer of the body is in codes, near what it was; head, embeddings and norms are untouched; and the
    model computes as one with the dequantised weights in plain layers."""
    whole, model = plain(small), in_codes(small, WAYS[way])
    names = [name for name, _ in coded(model)]
    assert len(names) == 2 * 7 and "lm_head" not in names
    for name, layer in coded(model):
        before, after = whole.get_submodule(name).weight, weight_of(layer)  # pyright: ignore
        assert 0 < float((after - before).norm() / before.norm()) < APART[way]  # pyright: ignore
    kept = {name: weight for name, weight in model.named_parameters() if not is_code(weight)}
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} < kept.keys()
    for name, weight in kept.items():
        assert torch.equal(weight, whole.get_parameter(name))
    assert parameter_count(model) == parameter_count(whole) == sum(weight.numel() for weight in whole.parameters())
    ids = torch.arange(40)[None]
    said = model(ids).logits
    dequantise(model)
    assert not list(coded(model))
    torch.testing.assert_close(said, model(ids).logits, rtol=0, atol=0.05 if way == "int8" else 1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_the_dequantised_model(small: Path, way: str):
    """LoRA's gradients go through the codes below it, before anything was evaluated and after; they equal those over
    plain layers with the dequantised weights.

    On CPUs with avx512_bf16, bitsandbytes of its own accord loses the gradient below its 4 bits after an evaluation.
    """
    model = in_codes(small, WAYS[way])
    tuned = METHODS["lora"].prepare(model, asking(small), small)
    torch.manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    tuned.train()
    ids = torch.arange(64)[None]

    def gradients() -> dict[str, torch.Tensor]:
        tuned.zero_grad()
        model(ids, labels=ids).loss.backward()
        return {name: weight.grad for name, weight in tuned.named_parameters() if weight.grad is not None}

    first = gradients()
    model.eval()
    with torch.no_grad():
        model(ids)
        model.generate(ids[:, :4], max_new_tokens=3, do_sample=False)  # pyright: ignore[reportCallIssue]
    tuned.train()
    after = gradients()
    dequantise(model)
    wanted = gradients()
    assert len(wanted) == 2 * 7 * 2
    for name, gradient in wanted.items():
        assert gradient.norm() > 0
        for found in (first, after):
            apart = (found[name] - gradient).norm() / gradient.norm()
            assert apart < 1e-4, name


@pytest.mark.parametrize("way", WAYS)
def test_a_cast_leaves_codes_alone(small: Path, way: str):
    """The rest of the model in bfloat16, and the same weights behind the codes."""
    model = in_codes(small, WAYS[way])
    before = {name: weight_of(layer).float() for name, layer in coded(model)}
    cast_weights(model, torch.bfloat16)
    assert model.lm_head.weight.dtype is torch.bfloat16
    for name, layer in coded(model):
        assert torch.equal(weight_of(layer).float(), before[name])


@pytest.mark.parametrize("way", WAYS)
def test_memory_is_predicted_as_it_is_held(small: Path, way: str):
    """Predicted from config.json, beside every byte that the loaded model holds."""
    config = asking(small, WAYS[way], lora_rank=1)
    predicted = shape_of(small, config, Precision(torch.float32, False, False, "")).weight_bytes
    found = storages(in_codes(small, WAYS[way]), set())
    held = sum({storage.data_ptr(): storage.nbytes() for storage in found}.values())
    assert abs(predicted / held - 1) < 0.1
    assert held < 0.6 * 4 * parameter_count(plain(small))


def test_four_bits_are_offered_where_memory_is_short(small: Path):
    """With what they would save: the weights' bytes less those that the codes take. Not to a run that has them."""
    batches = Batches(np.array([64] * 8), 0.5)
    for codes in (None, WAYS["nf4"]):
        config = asking(small, codes, bf16="false")
        shape = shape_of(small, config, Precision(torch.float32, False, False, ""))
        offered = {name: each for each in savings(shape, batches, config, Device("cpu", 10**9, 10, 0))
                   for name in each.cure}
        assert ("quantization_bit" in offered) == (codes is None)
        assert need(shape, batches, 1, config, Device("cpu", 10**9, 10, 0)).parts["weights"] == shape.weight_bytes
        assert (shape.weight_bytes < 0.5 * shape.plain_bytes) == (codes is not None)


def storages(thing: object, seen: set[int]) -> Iterator[torch.UntypedStorage]:
    """Where numbers lie that can be reached from `thing`."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    inside: list[object] = []
    if isinstance(thing, torch.Tensor):
        if type(thing).__module__.startswith("torchao"):
            inside = list(vars(thing).values())
        else:
            yield thing.untyped_storage()
            inside = list(vars(thing).values())
    elif isinstance(thing, torch.nn.Module) or type(thing).__module__.startswith("bitsandbytes"):
        inside = list(vars(thing).values())
    elif isinstance(thing, Mapping):
        inside = list(thing.values())
    elif isinstance(thing, list | tuple):
        inside = list(thing)
    for each in inside:
        yield from storages(each, seen)


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize(("method", "bits"), (("bnb", 4), ("bnb", 8), ("hqq", 4), ("torchao", 8)))
@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.adapter])
def test_every_adapter_trains_over_every_quantizer_or_is_refused(small: Path, kind: str, method: str, bits: int):
    """In bfloat16: gradients reach what is trained, and nothing else; or a rule says that this is not possible."""
    config = asking(small, Codes.named(method, bits), finetuning_type=kind, lora_rank=4)
    if method not in KINDS[kind].quantised:
        assert "quantized-kind" in [finding.id for finding in apply_rules(config, "train")]
        return
    assert not [finding for finding in apply_rules(config, "train") if finding.severity == "error"]
    model = load_base(small, config, torch.bfloat16, CPU)
    tuned = METHODS[kind].prepare(model, config, small)
    cast_weights(model, torch.bfloat16)
    ids = torch.arange(24)[None]
    tuned.train()(input_ids=ids, labels=ids).loss.backward()
    trained = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    reached = {name for name, weight in tuned.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert reached and reached <= trained


def training(tiny: Path, folder: Path, name: str, **more: object) -> list[str]:
    """The words of a run in `folder`/`name`, evaluated and saved half way."""
    return ["train", "--no-check", *options(
        model_name_or_path=tiny, dataset=folder / "rows.json", output_dir=folder / name, max_steps=4, val_size=2,
        eval_strategy="steps", eval_steps=2, save_steps=2, learning_rate=3e-3, logging_steps=1,
        per_device_train_batch_size=4, bf16="true", **more)]


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run over plain weights, over nf4 and over torchao's int8."""
    folder = tmp_path_factory.mktemp("runs")
    write_rows(folder / "rows.json")
    for name, more in {"plain": {}, "nf4": {"quantization_bit": 4},
                       "torchao": {"quantization_bit": 8, "quantization_method": "torchao"}}.items():
        assert main(training(tiny, folder, name, **more)) == 0
    return folder


@pytest.mark.parametrize(("way", "apart"), (("nf4", 0.05), ("torchao", 0.02)))
def test_it_learns_as_over_plain_weights(runs: Path, way: str, apart: float):
    """The loss falls, and stays within a few per cent of what it is over plain weights, step by step."""
    losses = {name: [step["loss"] for step in events(runs / name)] for name in ("plain", way)}
    assert len(losses[way]) == 4 and losses[way][-1] < 0.95 * losses[way][0]
    np.testing.assert_allclose(losses[way], losses["plain"], rtol=apart)


def test_it_goes_on_exactly(runs: Path, tiny: Path):
    """From the checkpoint in the middle, to the same adapter bit for bit."""
    shutil.copytree(runs / "nf4", runs / "again")
    shutil.rmtree(runs / "again" / "checkpoint-4")
    (runs / "again" / "adapter_model.safetensors").unlink()
    assert main([*training(tiny, runs, "again", quantization_bit=4), "--resume_from_checkpoint=true"]) == 0
    whole, resumed = (load_file(runs / name / "adapter_model.safetensors") for name in ("nf4", "again"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_adapter_is_for_the_base_as_it_was(runs: Path, tiny: Path):
    """It is written like any other, fits the unquantised base, and tells what it was trained over."""
    written = json.loads((runs / "nf4" / "truetune.json").read_text(encoding="utf-8"))
    assert written["quantized"] == {"method": "bnb", "bits": 4, "type": "nf4", "double": True}
    nf4, other = (load_file(runs / name / "adapter_model.safetensors") for name in ("nf4", "plain"))
    assert {name: weight.shape for name, weight in nf4.items()} == {
        name: weight.shape for name, weight in other.items()}


@pytest.mark.parametrize("held", ("not at all", "the policy", "the reference named"))
def test_a_reference_is_held_as_it_is_asked_to_be(tiny: Path, tmp_path: Path, held: str):
    """DPO begins at ln 2 where policy and reference are the same weights: both plain, or both the policy's codes. A
    reference in codes of its own is another model."""
    rows = [{"instruction": f"Is {n} good?", "chosen": f"Yes, {n} is.", "rejected": "No, go away."} for n in range(4)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    more = {"not at all": {}, "the policy": {"quantization_bit": 4},
            "the reference named": {"ref_model": tiny, "ref_model_quantization_bit": 4}}[held]
    assert main(["train", "--no-check", *options(
        model_name_or_path=tiny, dataset=tmp_path / "rows.json", output_dir=tmp_path / "run", stage="dpo", max_steps=1,
        per_device_train_batch_size=4, logging_steps=1, bf16="false", save_strategy="no", **more)]) == 0
    apart = abs(events(tmp_path / "run")[0]["loss"] - np.log(2))
    assert apart > 1e-3 if held == "the reference named" else apart < 1e-5


@pytest.mark.parametrize("into", (None, "dequantized"))
def test_it_is_merged_into_plain_weights(runs: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                         into: str | None):
    """Into those from before they were quantised, with a line that says so unless it was asked for; or into those that
    the codes stand for. W + (alpha / r) B A either way, and alpha is 2 r."""
    more = {"export_base": into} if into else {}
    assert main(["export", *options(model_name_or_path=tiny, adapter_name_or_path=runs / "nf4", infer_dtype="float32",
                                    export_dir=tmp_path / "out", **more)[1:]]) == 0
    told = capsys.readouterr().out
    assert ("differ a little" in told) == (into is None)
    base = plain(tiny)
    if into == "dequantized":
        quantise(base, WAYS["nf4"], CPU)
        dequantise(base)
    adapter = load_file(runs / "nf4" / "adapter_model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    down, up = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    merged = load_file(tmp_path / "out" / "model.safetensors")[f"{name}.weight"]
    torch.testing.assert_close(merged, base.get_submodule(name).weight + 2 * up @ down)  # pyright: ignore
    told = json.loads((tmp_path / "out" / "parity.json").read_text(encoding="utf-8"))["logits"]
    near, *far = [row["kl"] for row in told]
    assert near < 1e-6 and (len(far), all(kl > near for kl in far)) == (0 if into else 1, True)


# ------------------------------------------------------------------------------------------- checkpoints saved in codes


def rounded(weight: torch.Tensor, group: int, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes (I, O), zeros and scales (G, O) of a weight (O, I), rounded to the nearest, groups along the inputs."""
    pieces = weight.T.reshape(-1, group, len(weight))  # (G, group, O)
    low, high = pieces.amin(dim=1), pieces.amax(dim=1)
    scales = ((high - low) / (2**bits - 1)).half()
    zeros = (-low / scales.float()).round().clamp(0, 2**bits - 1)
    codes = (pieces / scales.float()[:, None] + zeros[:, None]).round().clamp(0, 2**bits - 1)
    return codes.flatten(0, 1).int(), zeros.int(), scales


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """(N, M) codes in numbers of 32 bits along the first dimension, the first in the lowest bits."""
    parts = codes.long().view(-1, 32 // bits, codes.shape[1]) << torch.arange(0, 32, bits)[:, None]
    whole = parts.sum(dim=1)
    return torch.where(whole >= 2**31, whole - 2**32, whole).int()


def gptq(weight: torch.Tensor, bits: int, v2: bool, shuffled: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A matrix as GPTQ saves it, and what it stands for. shuffled: inputs are in groups in no order (`desc_act`)."""
    inputs, group = weight.shape[1], 32
    order = torch.randperm(inputs) if shuffled else torch.arange(inputs)
    codes, zeros, scales = rounded(weight[:, order], group, bits)
    groups = torch.empty(inputs, dtype=torch.int32)
    groups[order] = (torch.arange(inputs) // group).int()
    back = torch.argsort(order)
    stands = ((codes - zeros.repeat_interleave(group, 0)) * scales.float().repeat_interleave(group, 0))[back].T
    saved = zeros if v2 else (zeros - 1) & (2**bits - 1)
    return {"qweight": packed(codes[back], bits), "qzeros": packed(saved.T, bits).T.contiguous(), "scales": scales,
            "g_idx": groups}, stands


def awq(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A matrix as AWQ saves it, and what it stands for."""
    codes, zeros, scales = rounded(weight, 32, 4)
    stands = ((codes - zeros.repeat_interleave(32, 0)) * scales.float().repeat_interleave(32, 0)).T
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def laid(numbers: torch.Tensor) -> torch.Tensor:
        return packed(numbers.view(len(numbers), -1, 8)[:, :, order].flatten(1).T, 4).T.contiguous()

    return {"qweight": laid(codes), "qzeros": laid(zeros), "scales": scales}, stands


def fp8(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A matrix in 8-bit floats with a scale for each block of 64 x 64, as DeepSeek saves it."""
    blocks = weight.unflatten(1, (-1, 64)).unflatten(0, (-1, 64))  # (O/64, 64, I/64, 64)
    scales = blocks.abs().amax(dim=(1, 3)) / 448
    codes = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
    stands = (codes.float() * scales[:, None, :, None]).flatten(2, 3).flatten(0, 1)
    return {"weight": codes.flatten(2, 3).flatten(0, 1), "weight_scale_inv": scales}, stands


def int8(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A matrix in whole numbers of 8 bits with a scale for each row, as compressed-tensors saves it."""
    scales = weight.abs().amax(dim=1, keepdim=True) / 127
    codes = (weight / scales).round().to(torch.int8)
    return {"weight": codes, "weight_scale": scales}, codes * scales


GPTQ = {"quant_method": "gptq", "group_size": 32, "sym": False, "desc_act": False}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
              "ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                  "num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}}}}
Make = Callable[[torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor]]
SAVED: dict[str, tuple[dict[str, Any], Make]] = {
    "gptq 4": ({**GPTQ, "bits": 4}, lambda weight: gptq(weight, 4, False, False)),
    "gptq 8 v2, in no order": ({**GPTQ, "bits": 8, "checkpoint_format": "gptq_v2", "desc_act": True},
                               lambda weight: gptq(weight, 8, True, True)),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}, awq),
    "fp8": ({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [64, 64]}, fp8),
    "compressed-tensors": (COMPRESSED, int8),
}


def save_in_codes(small: Path, folder: Path, said: dict[str, Any], make: Make) -> dict[str, torch.Tensor]:
    """The small model saved in a format. Returns what its matrices stand for, by name."""
    model, tensors, stands = plain(small), {}, {}
    for name, weight in model.state_dict().items():
        if ".layers." in name and weight.ndim == 2:
            parts, stands[name] = make(weight)
            tensors |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()}
        else:
            tensors[name] = weight
    model.config.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**settings, "quantization_config": said}), encoding="utf-8")
    save_file({name: weight.contiguous() for name, weight in tensors.items()}, folder / "model.safetensors",
              {"format": "pt"})
    return stands


@pytest.mark.parametrize("kind", SAVED)
def test_a_checkpoint_in_codes_becomes_plain_weights(small: Path, tmp_path: Path, kind: str):
    """Written here by the format's equations, it is read as what they say; and can be saved as a plain model."""
    torch.manual_seed(1)
    stands = save_in_codes(small, tmp_path, *SAVED[kind])
    model = plain(tmp_path)
    assert len(stands) == 14 and not list(coded(model))
    for name, weight in stands.items():
        torch.testing.assert_close(model.get_parameter(name).detach(), weight.float(), rtol=1e-5, atol=1e-6)
    model.save_pretrained(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))
    ids = torch.arange(20)[None]
    torch.testing.assert_close(plain(tmp_path / "again")(ids).logits, model(ids).logits)
    found = [finding for finding in model_findings(tmp_path, asking(tmp_path)) if finding.id == "quantised-model"]
    assert [finding.severity for finding in found] == ["info"]


def test_a_checkpoint_of_bitsandbytes_stays_in_codes(small: Path, tmp_path: Path):
    """As transformers saves it. It computes as what was saved, an adapter trains beside it, and an evaluation does not
    take the gradient from what comes after; its memory is counted as it is."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                             bnb_4bit_compute_dtype=torch.float32)
    saved = AutoModelForCausalLM.from_pretrained(small, quantization_config=how, dtype=torch.float32)
    saved.save_pretrained(tmp_path)
    model, ids = plain(tmp_path), torch.arange(20)[None]
    assert len(list(coded(model))) == 14
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, saved.train()(ids).logits)
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    model.train()(inputs_embeds=embedded, labels=ids).loss.backward()
    dequantise(model)
    same = embedded.detach().clone().requires_grad_()
    model(inputs_embeds=same, labels=ids).loss.backward()
    torch.testing.assert_close(embedded.grad, same.grad)
    precision = Precision(torch.float32, False, False, "")
    assert shape_of(tmp_path, asking(tmp_path), precision).coded == shape_of(
        small, asking(small, WAYS["nf4"]), precision).coded > 0
    with pytest.raises(Problem, match="quantised already"):
        load_in(WAYS["nf4"], tmp_path, torch.float32, CPU)


REFUSALS = {
    "marlin awq": ({"quant_method": "awq", "bits": 4, "version": "gemv"}, {}, "laid out as gemv"),
    "gptq of 3 bits": ({"quant_method": "gptq", "bits": 3}, {}, "of 3 bits"),
    "a format of others": ({"quant_method": "aqlm"}, {}, "not read here"),
    "no codes": ({"quant_method": "awq", "bits": 4}, {}, "no such tensor (qweight)"),
    "no format": ("4 bits", {}, "not read here"),
    "twice": ({"quant_method": "gptq", "bits": 4}, {"quantization_bit": 4}, "quantised already (gptq)"),
    "codes in full": ({"quant_method": "bitsandbytes", "load_in_4bit": True},
                      {"finetuning_type": "full", "learning_rate": 1e-5}, "full cannot train"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_read_is_told(small: Path, tmp_path: Path, case: str):
    """Before anything is loaded, in one line that names the reason."""
    said, more, words = REFUSALS[case]
    settings = json.loads((small / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**settings, "quantization_config": said}), encoding="utf-8")
    if case == "no codes":
        shutil.copy(small / "model.safetensors", tmp_path)
    errors = [finding for finding in model_findings(tmp_path, asking(tmp_path, **more))
              if finding.severity == "error" and finding.id in ("quantised-model", "quantised-twice")]
    assert len(errors) == 1 and words in str(errors[0].message)


def test_a_checkpoint_with_other_codes_than_it_says_is_refused(small: Path, tmp_path: Path):
    said, make = SAVED["gptq 4"]
    save_in_codes(small, tmp_path, {**said, "bits": 8}, make)
    with pytest.raises(Problem, match=r"not laid out as its config\.json says"):
        plain(tmp_path)


def test_four_bits_of_torchao_need_a_gpu(small: Path):
    with pytest.raises(Problem, match="on NVIDIA GPUs only"):
        in_codes(small, Codes.named("torchao", 4))


# --------------------------------------------------------------------------------------------- products in 8-bit floats


def test_products_in_8_bit_floats_train_nearly_the_same(tiny: Path):
    """Emulated, since this is a GPU's: each layer of the body but the head, its weights still parameters under the same
    names; gradients of all of them point where those of 16 bits do. A row's numbers do not depend on its neighbours."""
    model = load_model(tiny, torch.bfloat16, CPU).train()
    ids = torch.arange(100, 150)[None]

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return {name: weight.grad.float().flatten() for name, weight in model.named_parameters()
                if weight.grad is not None}

    wanted, whole = gradients(), model(ids).logits
    assert multiply_in_float8(model, emulate=True) == 2 * 7 and type(model.lm_head) is torch.nn.Linear
    found, rounded = gradients(), model(ids).logits
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.cosine_similarity(found[name], gradient, dim=0) > 0.9, name
    assert 0 < (rounded - whole).norm() / whole.norm() < 0.1
    with torch.no_grad():
        torch.testing.assert_close(model(torch.cat([ids, ids + 7])).logits[:1], model(ids).logits, rtol=0, atol=0.2)


def test_products_in_8_bit_floats_need_their_gpu(tiny: Path):
    """Told before anything is loaded, where there is none."""
    (finding,) = float8_findings(asking(tiny, fp8=True), CPU)
    assert (finding.id, finding.severity, finding.option) == ("needs-hopper", "error", "fp8")
    assert float8_findings(asking(tiny), CPU) == []


def test_formats_and_quantizers_name_their_packages():
    """What is installed by the extra `quant` covers all of them."""
    extras = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    line = next(line for line in extras.splitlines() if line.startswith("quant = "))
    wanted = [quantizer.package for quantizer in QUANTIZERS.values()] + [form.package for form in FORMATS.values()]
    assert all(package in line for package in wanted if package)
