"""The template part of a check, and the model's folder: what ends an answer and whether the model knows it, thoughts,
vocabulary; weights that are not whole, architectures that cannot be trained, adapters that do not fit. Each wrong thing
stands beside its right one."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from truetune.check.model import model_findings, weights
from truetune.check.preflight import Preflight
from truetune.check.section import Section
from truetune.check.template import template_section, thinking_findings
from truetune.check.weights import Damaged, Tensor, read_header, read_rows
from truetune.data.dataset import load_data
from truetune.data.template import make_renderer, settle_template
from truetune.findings import Finding, spoken
from truetune.model.find import load_tokenizer
from truetune.options import Config
from truetune.steps import Plan

WIDTH = 8
END = 2
"""The id of <|im_end|>."""
Files = dict[str, Any]


@pytest.fixture(scope="module")
def rows_of_weights() -> np.ndarray:
    """An embedding of real size but for its width: ordinary rows of about the same length; ids 3 to 16, which no
    template writes, as they are in SmolLM2: nearly the same."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((49152, WIDTH)).astype(np.float32)
    rows[3:17] = rows[3] * (1 + 1e-4 * random.standard_normal((14, 1)))
    return rows


@pytest.fixture
def folder(bundled: Path, rows_of_weights: np.ndarray, tmp_path: Path) -> Callable[..., Path]:
    """A model's folder, whole and right but for what is given: files by name (a dict goes into the JSON that is there,
    bytes and text replace the file, None takes it away) and rows of the embedding by id."""

    def make(files: Files | None = None, rows: dict[int, np.ndarray] | None = None, name: str = "model") -> Path:
        made = tmp_path / name
        made.mkdir()
        for file in bundled.iterdir():
            if file.name != "model.safetensors":
                shutil.copy(file, made)
        matrix = rows_of_weights.copy()
        for number, row in (rows or {}).items():
            matrix[number] = row
        save_file({"model.embed_tokens.weight": matrix,
                   "model.layers.0.mlp.up_proj.weight": np.zeros((4, WIDTH), np.float32)}, made / "model.safetensors")
        right = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                 "head_dim": 4, "intermediate_size": 4}
        _write(made, {"config.json": right})
        _write(made, files or {})
        return made

    return make


def _write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink()
        elif isinstance(content, dict):
            there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            path.write_text(json.dumps({**there, **content}), encoding="utf-8")
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def section(tmp_path: Path) -> Callable[..., Section]:
    """The template section of the page for a model and answers, and what rows alone tell of thoughts."""

    def make(model: Path, answers: Iterable[str] = ("It is so, as you see.", "It is not."), **options: Any) -> Section:
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(json.dumps({"instruction": f"Question {n}?", "output": answer})
                                  for n, answer in enumerate(answers)), encoding="utf-8")
        config = Config(**{"model_name_or_path": str(model), "dataset": (str(path),), **options})
        tokenizer = load_tokenizer(model)
        findings = settle_template(tokenizer, config)
        renderer = make_renderer(tokenizer, model, config)
        data = load_data(config, renderer, lambda line: None)
        ready = Preflight(config, model, renderer, data, Plan(len(data.train), 8, 1, 3.0, -1, 42, True), findings)
        section = template_section(ready, config)
        section.findings += thinking_findings(data.train, renderer, config)
        section.facts["lengths"] = data.train.lengths.tolist()
        return section

    return make


def line(section: Section, name: str, chinese: bool = False) -> str:
    return " | ".join(spoken(much, chinese) for what, much in section.lines if str(what) == name)


def of(findings: Sequence[Finding], id: str) -> list[Finding]:
    return [finding for finding in findings if finding.id == id]


# ----------------------------------------------------------------------------------------------------------- the page


def test_the_page(bundled: Path, section: Any) -> None:
    """The real model: its own template, what it stops at, its trained end of turn; and no doubt about it."""
    page = section(bundled)
    assert line(page, "template") == "the model's own (chat_template.jinja)"
    assert line(page, "stops at") == "<|im_end|> (2)"
    assert line(page, "end of turn") == ("<|im_end|> learned in 2 of 2 rows; its row in the weights has 1.10 times the "
                                         "usual length")
    assert line(page, "prompt") == "what chat sends is how every row begins (proven row by row)"
    assert line(page, "system").startswith('"You are a helpful AI assistant named SmolLM, trained by Hugging Face" ')
    assert line(page, "padding").startswith("<|im_end|>, the end of text too: harmless")
    assert line(page, "template", chinese=True) == "模型自带（chat_template.jinja）"
    assert page.findings == []
    facts = page.facts["end_of_turn"]
    assert (facts["token"], facts["id"], facts["shipped_stops"]) == ("<|im_end|>", END, [END])
    assert facts["untrained"] is False
    assert json.loads(json.dumps(page.facts)) == page.facts


def test_a_named_template(bundled: Path, section: Any) -> None:
    """Other than the model's own, the same, or the only one."""
    assert line(section(bundled, template="smollm2"), "template") == (
        "smollm2, named, other than the model's own; saved with the model")
    assert line(section(bundled, template="chatml"), "template").startswith("chatml, named, other than")


def test_a_named_template_that_is_the_models_own(folder: Any, section: Any) -> None:
    """A named template that writes what the model's own writes; and one for a model that brings none."""
    from truetune.data.templates import template_source

    own = folder({"chat_template.jinja": template_source("smollm", default_system="")})
    assert line(section(own, template="smollm"), "template") == (
        "smollm, named, which writes what the model's own does; saved with the model")
    bare = folder({"chat_template.jinja": None}, name="bare")
    assert line(section(bare, template="smollm"), "template") == (
        "smollm, named; the model brings none; saved with the model")


def test_plain_text_has_no_template(bundled: Path, tmp_path: Path, section: Any) -> None:
    """In pre-training only what ends a text is told."""
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "Once upon a time."}\n', encoding="utf-8")
    page = section(bundled, dataset=(str(path),), stage="pt")
    assert [str(what) for what, _ in page.lines] == ["stops at"] and page.findings == []


# --------------------------------------------------------------------------------------------------------- end of turn


def test_an_end_of_turn_that_was_never_trained(folder: Any, section: Any, rows_of_weights: np.ndarray) -> None:
    """Its row is that of tokens which nobody uses, or next to nothing: a base model. Trained, it is neither. Where the
    whole model is trained, or this token with it, that is only worth knowing."""
    twin = folder(rows={END: rows_of_weights[5] * 1.001}, name="twin")
    (finding,) = section(twin).findings
    assert (finding.id, finding.severity, finding.option) == ("untrained-end", "warn", "model_name_or_path")
    assert "is that of the unused <" in str(finding.message) and "(they differ by 0.1" in str(finding.message)
    assert "additional_target: embed_tokens,lm_head" in str(finding.fix)
    assert section(twin, finetuning_type="full").findings[0].severity == "info"
    assert section(twin, additional_target=("embed_tokens", "lm_head")).findings[0].severity == "info"
    (finding,) = section(folder(rows={END: rows_of_weights[2000] * 0.001}, name="zero")).findings
    assert finding.id == "untrained-end" and "of the usual length" in str(finding.message)
    assert section(folder(name="trained")).findings == []
    assert section(folder(rows={END: rows_of_weights[5] * 1.05}, name="moved")).findings == []  # 5 % is training


def test_the_head_counts_where_it_is_apart(folder: Any, section: Any, rows_of_weights: np.ndarray) -> None:
    """Where reading and writing a token have rows of their own, it is written by the head."""
    model = folder()
    head = rows_of_weights.copy()
    head[END] = 0
    save_file({"model.embed_tokens.weight": rows_of_weights, "lm_head.weight": head}, model / "model.safetensors")
    assert [finding.id for finding in section(model).findings] == ["untrained-end"]


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "F32"), (np.float16, "F16"), (np.uint16, "BF16")])
def test_rows_of_a_matrix(dtype: Any, name: str, tmp_path: Path) -> None:
    """Single rows, in every number format; bfloat16 is the upper half of a float32."""
    numbers = np.array([[1.5, -2.0], [0.0, 3.25], [100.0, -0.5]], np.float32)
    raw = (numbers.view(np.uint32) >> 16).astype(np.uint16) if name == "BF16" else numbers.astype(dtype)
    (tmp_path / "raw").write_bytes(b"head" + raw.tobytes())
    tensor = Tensor(tmp_path / "raw", name, (3, 2), 4, 4 + raw.nbytes)
    assert read_rows(tensor, [2, 0]).tolist() == numbers[[2, 0]].tolist()
    for wrong in ([3], [-1]):
        with pytest.raises(Damaged):
            read_rows(tensor, wrong)
    with pytest.raises(Damaged):
        read_rows(Tensor(tmp_path / "raw", "F8_E4M3", (3, 2), 4, 10), [0])


def test_signs_of_a_base_model(folder: Any, section: Any) -> None:
    """It came with another end than the template's, or its name says so. Where the row is trained, it is worth knowing;
    where nobody can see the weights, it is a doubt."""
    other = {"generation_config.json": {"eos_token_id": 0}, "config.json": {"eos_token_id": 0}}
    (finding,) = section(folder(other)).findings
    assert (finding.id, finding.severity) == ("base-model", "info")
    assert "(as it came it stops at <|endoftext|>)" in str(finding.message)
    unseen = folder({**other, "model.safetensors": None}, name="unseen")
    (finding,) = section(unseen).findings
    assert (finding.id, finding.severity) == ("base-model", "warn")
    (finding,) = section(folder(name="Model-1B-Base")).findings
    assert finding.id == "base-model" and "by its name" in str(finding.message)
    assert section(folder(name="database-model")).findings == []
    several = {"generation_config.json": {"eos_token_id": [0, END]}}
    assert section(folder(several, name="several")).findings == []
    unsaid = {"generation_config.json": {"eos_token_id": None}, "config.json": {"eos_token_id": END}}
    assert section(folder(unsaid, name="unsaid")).findings == []


def test_a_template_without_an_end(folder: Any, section: Any) -> None:
    """No token ends an answer: the line says so. (The finding is `no-end-of-turn`, see test_check.)"""
    endless = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}" \
              "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    page = section(folder({"chat_template.jinja": endless}))
    assert line(page, "end of turn") == "no token" and page.facts["end_of_turn"] is None


def test_a_beginning_that_is_written_twice(folder: Any, section: Any) -> None:
    once = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{% endfor %}" \
           "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    assert section(folder({"chat_template.jinja": once}, name="once")).findings == []
    (finding,) = section(folder({"chat_template.jinja": "{{ bos_token }}" + once}, name="twice")).findings
    assert (finding.id, finding.severity) == ("bos-twice", "warn") and "<|im_start|> twice" in str(finding.message)


# ------------------------------------------------------------------------------------------------------------ thinking

THOUGHT = "<think>\nLet me see.\n</think>\n\nIt is so, as you see."
PLAIN = "It is so, as you see."


def test_thoughts_and_a_model_that_knows_none(bundled: Path, section: Any) -> None:
    """Some answers with a thought: likely a slip. All of them: somebody teaches it to think."""
    (finding,) = section(bundled, [THOUGHT, PLAIN, PLAIN]).findings
    assert (finding.id, finding.severity, finding.option) == ("thoughts-as-text", "warn", "dataset")
    assert str(finding.where).endswith("rows.jsonl:1") and "1 of 3 answers" in str(finding.message)
    (finding,) = section(bundled, [THOUGHT] * 3).findings
    assert finding.severity == "info"
    assert section(bundled, [PLAIN] * 3).findings == []


@pytest.mark.parametrize(("thinking", "answers", "id", "severity"), [
    (True, [PLAIN, PLAIN], "no-thoughts", "warn"), (True, [THOUGHT, PLAIN], "some-thoughts", "info"),
    (True, [THOUGHT, THOUGHT], None, None), (False, [THOUGHT, PLAIN], "thoughts-removed", "info"),
    (False, [PLAIN, PLAIN], None, None), (None, [THOUGHT, PLAIN], None, None), (None, [PLAIN, PLAIN], None, None),
])
def test_thoughts_and_a_model_that_can_be_switched(thinking: bool | None, answers: list[str], id: str | None,
                                                   severity: str | None, bundled: Path, section: Any) -> None:
    """What the option does with the thoughts of these data; the cure is one that is no doubt any more."""
    page = section(bundled, answers, template="qwen3", enable_thinking=thinking)
    found = [finding for finding in page.findings if finding.option == "enable_thinking"]
    assert [(finding.id, finding.severity) for finding in found] == ([(id, severity)] if id else [])
    assert "can be switched" in line(page, "thinking")
    for finding in found:
        if finding.cure:
            cured = section(bundled, answers, template="qwen3", **finding.cure)
            assert not [other for other in cured.findings if other.option == "enable_thinking"]


# ---------------------------------------------------------------------------------------------------------- vocabulary


def test_a_tokenizer_that_is_larger_than_the_model(folder: Any, section: Any, rows_of_weights: np.ndarray) -> None:
    """A token that the data use and the model has no row for cannot work; one that nobody uses is worth knowing."""
    model = folder()
    tokenizer = load_tokenizer(model)
    tokenizer.add_tokens(["frobnicate"])
    tokenizer.save_pretrained(model)
    (finding,) = section(model).findings
    assert (finding.id, finding.severity) == ("vocabulary", "info") and "'frobnicate' (49152)" in str(finding.message)
    (finding,) = section(model, ["They frobnicate it.", PLAIN]).findings
    assert (finding.id, finding.severity, finding.option) == ("vocabulary", "error", "model_name_or_path")
    assert "as 49152, and the model has only 49,152 rows" in str(finding.message)
    grown = np.concatenate([rows_of_weights, rows_of_weights[:1]])
    save_file({"model.embed_tokens.weight": grown}, model / "model.safetensors")
    assert section(model, ["They frobnicate it.", PLAIN]).findings == []


def test_rows_that_are_longer_than_the_model(folder: Any, section: Any) -> None:
    """More tokens than positions cannot be trained on; just as many can."""
    longest = max(section(folder(name="long"), ["word " * 60 + "end.", PLAIN]).facts["lengths"])
    short = folder({"config.json": {"max_position_embeddings": longest - 1}}, name="short")
    (finding,) = section(short, ["word " * 60 + "end.", PLAIN]).findings
    assert (finding.id, finding.severity, finding.option) == ("rows-beyond-context", "error", "cutoff_len")
    assert str(finding.message).startswith(f"1 of 2 rows have more tokens (up to {longest}) than the model has ")
    assert section(short, ["word " * 60 + "end.", PLAIN], **finding.cure).findings == []
    just = folder({"config.json": {"max_position_embeddings": longest}}, name="just")
    assert section(just, ["word " * 60 + "end.", PLAIN]).findings == []


# --------------------------------------------------------------------------------------------------- the model's folder

GOOD_INDEX = {"model.safetensors.index.json": {"metadata": {}, "weight_map": {
    "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
    "model.layers.0.mlp.up_proj.weight": "model-00002-of-00002.safetensors"}}}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 538090408\n"
FOLDERS: dict[str, tuple[Files, str, str]] = {
    "weights that are a pointer": ({"model.safetensors": POINTER}, "weights-damaged", "git-lfs pointer"),
    "weights cut short": ({"model.safetensors": lambda raw: raw[:-100]}, "weights-damaged", "is cut short: it has"),
    "weights cut in the header": ({"model.safetensors": lambda raw: raw[:60]}, "weights-damaged", "is cut short"),
    "weights that are a web page": (
        {"model.safetensors": b"<!DOCTYPE html><html></html>"}, "weights-damaged", "is no safetensors file"),
    "empty weights": ({"model.safetensors": b""}, "weights-damaged", "is empty"),
    "no weights": ({"model.safetensors": None}, "no-weights", "there are no safetensors weights in"),
    "pickles": ({"model.safetensors": None, "pytorch_model.bin": b"PK"}, "pickled-weights", "pytorch_model.bin"),
    "weights of another name": (
        {"model.safetensors": None, "consolidated.safetensors": b"x"}, "no-weights", "only consolidated"),
    "a shard that is not there": (
        {**GOOD_INDEX, "model.safetensors": None, "x.incomplete": b""}, "weights-missing",
        "2 of 2 weight files that model.safetensors.index.json names are not in"),
    "an index that is cut": (
        {"model.safetensors.index.json": b'{"weight_map": {"a": '}, "bad-model-file", "index.json is not valid JSON"),
    "a config that is cut": ({"config.json": b'{"model_type": "lla'}, "bad-model-file", "config.json is not valid"),
    "a config that is a list": ({"config.json": b"[]"}, "bad-model-file", "does not hold a JSON object"),
    "a config without a type": ({"config.json": {"model_type": None}}, "bad-model-file", "does not say model_type"),
    "a config without a size": (
        {"config.json": lambda raw: json.dumps({name: value for name, value in json.loads(raw).items()
                                                if name != "hidden_size"}).encode()},
        "config-mismatch", "does not say hidden_size, for which transformers takes 4096, and the weights have 8"),
    "a config of another model": (
        {"config.json": {"vocab_size": 32000}}, "config-mismatch", "says vocab_size: 32000, and the weights have"),
    "fewer layers than it says": (
        {"config.json": {"num_hidden_layers": 2}}, "config-mismatch", "num_hidden_layers: 2, and the weights have 1"),
    "no tokenizer": ({"tokenizer.json": None, "tokenizer_config.json": None}, "no-tokenizer", "there is no tokenizer"),
    "a tokenizer that is cut": ({"tokenizer.json": lambda raw: raw[:500]}, "bad-model-file", "tokenizer.json is not"),
    "a template that cannot be read": (
        {"chat_template.jinja": "{% for m in messages %}{{ m"}, "bad-model-file", "no chat template that can be read"),
    "weights that are codes": (
        {"model.safetensors": save({"model.layers.0.mlp.up_proj.qweight": np.zeros((4, 8), np.uint8)})},
        "quantised-model", "quantised already (U8)"),
    "a GPTQ model": (
        {"config.json": {"quantization_config": {"quant_method": "gptq", "bits": 4}}}, "quantised-model", "(gptq)"),
    "an encoder and decoder": (
        {"config.json": {"model_type": "t5", "is_encoder_decoder": True}}, "encoder-decoder", "t5 reads with"),
    "an encoder": (
        {"config.json": {"model_type": "bert", "architectures": ["BertForMaskedLM"]}}, "not-causal",
        "BertForMaskedLM is an encoder that fills gaps"),
    "a model that sees": (
        {"config.json": {"model_type": "qwen2_5_vl", "vision_config": {}}}, "multimodal-model",
        "qwen2_5_vl also takes"),
    "a model that sees and can do without": (
        {"config.json": {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
                         "vision_config": {}}},
        "multimodal-model", "only its text part is trained"),
    "a model that nobody knows": (
        {"config.json": {"model_type": "frob", "auto_map": {"AutoModel": "frob.Frob"}}}, "unknown-architecture",
        "knows no model_type 'frob', and code that comes with a model is never run"),
    "an adapter": (
        {"config.json": None, "adapter_config.json": {"base_model_name_or_path": "some/base"}}, "adapter-as-model",
        "holds an adapter"),
    "a GGUF file": ({"config.json": None, "model-q4.gguf": b"GGUF"}, "gguf-model", "model-q4.gguf is a GGUF file"),
    "something else": ({"config.json": None}, "not-a-model", "has no config.json"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_what_a_folder_may_have_wrong(what: str, folder: Any) -> None:
    """Told with the file and the reason, at the option that names the folder; and a fix, where there is one."""
    files, id, told = FOLDERS[what]
    made = folder()
    _write(made, {name: content((made / name).read_bytes()) if callable(content) else content
                  for name, content in files.items()})
    findings = model_findings(made, Config(model_name_or_path="owner/model-7B-GPTQ-Int4"))
    (finding,) = of(findings, id)
    harmless = what == "a model that sees and can do without"
    assert (finding.severity, finding.option) == ("info" if harmless else "error", "model_name_or_path")
    assert told in str(finding.message), str(finding.message)
    assert spoken(finding.message, True) != str(finding.message)
    if id == "quantised-model":
        assert str(finding.fix) == "Name the model that it was made from: owner/model-7B."
    if what == "a shard that is not there":
        assert "x.incomplete shows that a download was interrupted" in str(finding.message)


def test_a_right_folder_has_nothing_wrong(folder: Any, bundled: Path, tiny: Path) -> None:
    """Neither the real models nor a made one, in one file or in shards; nor a model of another family, one whose
    embeddings have a width of their own (as OPT's), which keeps a mask as bytes and has a layer more than it says."""
    for model in (bundled, tiny, folder()):
        assert model_findings(model, Config(model_name_or_path=str(model))) == []
    sharded = folder(GOOD_INDEX, name="sharded")
    tensors, _ = weights(sharded, Config())
    for name, file in GOOD_INDEX["model.safetensors.index.json"]["weight_map"].items():
        tensor = tensors[name]
        save_file({name: np.zeros(tensor.shape, np.float32)}, sharded / file)
    (sharded / "model.safetensors").unlink()
    assert model_findings(sharded, Config()) == []
    gpt2 = folder({"config.json": json.dumps({"model_type": "gpt2", "n_embd": WIDTH, "n_layer": 1, "n_head": 2,
                                              "vocab_size": 49152, "architectures": ["GPT2LMHeadModel"]})}, name="gpt2")
    save_file({"wte.weight": np.zeros((49152, WIDTH), np.float32), "h.0.ln_1.bias": np.zeros(WIDTH, np.float32)},
              gpt2 / "model.safetensors")
    assert model_findings(gpt2, Config()) == []
    odd = folder({"config.json": {"word_embed_proj_dim": WIDTH, "hidden_size": 2 * WIDTH}}, name="odd")
    save_file({"model.embed_tokens.weight": np.zeros((49152, WIDTH), np.float32),
               "model.layers.0.attn.bias": np.zeros((64, 64), np.uint8),
               "model.layers.1.mtp.weight": np.zeros((4, 4), np.float32)}, odd / "model.safetensors")
    assert model_findings(odd, Config()) == []


def test_things_that_are_no_folder(tmp_path: Path, folder: Any) -> None:
    """A GGUF file, a missing folder, a link to itself: one line each."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, id in ((tmp_path / "model.gguf", "gguf-model"), (tmp_path / "nowhere", "not-a-model"),
                     (loop, "not-a-model")):
        (finding,) = model_findings(path, Config(model_name_or_path=str(path)))
        assert (finding.id, finding.severity) == (id, "error")
    linked = folder({"config.json": None})
    (linked / "config.json").symlink_to(linked / "gone.json")
    (finding,) = of(model_findings(linked, Config()), "bad-model-file")
    assert "is a link to a file that is not there" in str(finding.message)


def test_cutoff_len_beyond_the_model(folder: Any) -> None:
    """Asked for: an error, with the number that fits. The default, which nobody asked for: worth knowing."""
    short = folder({"config.json": {"max_position_embeddings": 1024}})
    asked = Config(model_name_or_path=str(short)).with_values("run.yaml:3", cutoff_len=1025)
    (finding,) = model_findings(short, asked)
    assert (finding.id, finding.severity, finding.option, finding.where) == (
        "beyond-context", "error", "cutoff_len", "run.yaml:3")
    assert finding.cure == {"cutoff_len": 1024} and "1,024 positions" in str(finding.message)
    assert model_findings(short, asked.with_values("run.yaml:3", cutoff_len=1024)) == []
    (finding,) = model_findings(short, Config(model_name_or_path=str(short)))
    assert finding.severity == "info"


# ------------------------------------------------------------------------------------------------------------ adapters

LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "base_model_name_or_path": "somewhere/model"}
FITTING = {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": (2, WIDTH),
           "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": (4, 2)}
ADAPTERS: dict[str, tuple[Files, dict[str, tuple[int, int]] | None, str | None, str]] = {
    "right": (LORA, FITTING, None, ""),
    "of another kind": ({**LORA, "peft_type": "IA3"}, FITTING, "adapter-kind", "is of the kind IA3"),
    "for another task": ({**LORA, "task_type": "SEQ_CLS"}, FITTING, "adapter-kind", "was made for 'SEQ_CLS'"),
    "of another base": ({**LORA, "base_model_name_or_path": "x/other-7B"}, FITTING, "other-base",
                        "was trained on x/other-7B"),
    "of another size": (LORA, {name: (2, 16) for name in list(FITTING)[:1]}, "adapter-mismatch", "of size 16"),
    "of another family": (LORA, {"base_model.model.transformer.h.0.c_fc.lora_A.weight": (2, WIDTH)}, "adapter-mismatch",
                          "the model has none of its modules"),
    "without weights": (LORA, None, "weights-damaged", "adapter_model.safetensors is no file"),
}


@pytest.mark.parametrize("what", ADAPTERS)
def test_adapters(what: str, folder: Any, tmp_path: Path) -> None:
    """An adapter's own words and the shapes of its matrices tell whether it fits."""
    settings, shapes, id, told = ADAPTERS[what]
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    _write(adapter, {"adapter_config.json": settings})
    if shapes:
        save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
                  adapter / "adapter_model.safetensors")
    made = folder()
    config = Config(model_name_or_path=str(made), adapter_name_or_path=(str(adapter),))
    findings = model_findings(made, config)
    assert [finding.id for finding in findings] == ([id] if id else [])
    for finding in findings:
        assert finding.option == "adapter_name_or_path" and told in str(finding.message)
        assert finding.severity == ("warn" if id == "other-base" else "error")


def test_what_is_named_as_an_adapter(folder: Any, tmp_path: Path) -> None:
    """A folder that is not there, a whole model; a rank that has no effect; pickled matrices."""
    made, adapter = folder(), tmp_path / "adapter"

    def told(path: Path, **options: Any) -> list[Finding]:
        config = Config(model_name_or_path=str(made), adapter_name_or_path=(str(path),))
        return model_findings(made, config.with_values("command line", **options))

    (finding,) = told(tmp_path / "nowhere")
    assert finding.id == "no-adapter"
    (finding,) = told(made)
    assert finding.id == "not-an-adapter" and str(finding.fix) == f"model_name_or_path: {made}."
    adapter.mkdir()
    _write(adapter, {"adapter_config.json": LORA, "adapter_model.bin": b"PK"})
    (finding,) = told(adapter)
    assert "only the pickle adapter_model.bin" in str(finding.message)
    save_file({name: np.zeros(shape, np.float32) for name, shape in FITTING.items()},
              adapter / "adapter_model.safetensors")
    (finding,) = told(adapter, lora_rank=16)
    assert (finding.id, finding.severity, finding.option) == ("adapter-rank", "info", "lora_rank")
    assert told(adapter, lora_rank=2) == []


# ------------------------------------------------------------------------------------------------------- hostile files


def _damage(raw: bytes, draw: random.Random) -> bytes:
    """One of many ways to spoil a file."""
    place = draw.randrange(len(raw)) if raw else 0
    return draw.choice([
        lambda: raw[:place], lambda: b"", lambda: draw.randbytes(draw.randrange(3000)), lambda: POINTER,
        lambda: b"[" * 200_000, lambda: b"9" * 6000, lambda: b'{"a": NaN, "weight_map": 3}',
        lambda: "{}".encode("utf-16"), lambda: (1 << draw.randrange(1, 63)).to_bytes(8, "little") + raw[8:],
        lambda: raw.replace(b":", b": [[]], ", 1), lambda: raw.replace(b"{", b'{"vocab_size": "x", ', 1),
        lambda: raw.replace(b'"', b'"\\u0000/../', 3), lambda: raw.replace(b"[", b"[-1, ", 2),
    ])()


def _replace(path: Path, draw: random.Random) -> None:
    """Something that is no file, where one should be."""
    draw.choice([
        lambda: path.mkdir(), lambda: path.symlink_to(path), lambda: path.symlink_to(path.with_name("gone")),
        lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to("/dev/random"),
    ])()


@pytest.mark.parametrize("seed", range(2))
def test_no_folder_breaks_the_check(seed: int, folder: Any, tmp_path: Path) -> None:
    """Files that are cut, spoilt, swapped for folders, pipes and endless devices: findings, and never an exception nor
    a wait. The right folder beside them has none."""
    draw = random.Random(seed)
    whole = folder(GOOD_INDEX, name="whole")
    _write(whole, {"adapter_config.json": LORA, "model-00001-of-00002.safetensors": (
        whole / "model.safetensors").read_bytes()[:200_000]})
    save_file({name: np.zeros(shape, np.float32) for name, shape in FITTING.items()},
              whole / "adapter_model.safetensors")
    config = Config(model_name_or_path=str(whole), adapter_name_or_path=(str(whole),))
    assert [f.severity for f in model_findings(whole, config) if f.id != "other-base"] == []
    names = sorted(path.name for path in whole.iterdir())
    for number in range(15):
        spoilt = tmp_path / f"spoilt{number}"
        shutil.copytree(whole, spoilt, copy_function=os.link)
        for name in draw.sample(names, draw.randrange(1, 4)):
            (spoilt / name).unlink()
            if draw.random() < 0.25:
                _replace(spoilt / name, draw)
            else:
                (spoilt / name).write_bytes(_damage((whole / name).read_bytes(), draw))
        began = time.monotonic()
        findings = model_findings(spoilt, Config(model_name_or_path=str(spoilt), adapter_name_or_path=(str(spoilt),)))
        assert time.monotonic() - began < 10
        assert all(finding.line() and finding.line(True) and json.dumps(finding.as_dict()) for finding in findings)
        shutil.rmtree(spoilt)


def test_a_header_that_lies(tmp_path: Path) -> None:
    """Shapes and places that contradict one another, or point before the file, are no tensors."""
    path = tmp_path / "x.safetensors"
    lies: list[object] = [{"dtype": "F32", "shape": shape, "data_offsets": offsets} for shape, offsets in (
        ([2, 2], [0, 15]), ([-1], [0, 4]), ([1], [-4, 0]), ("no", [0, 4]), ([1], [0, "x"]), ([1], [0]))]
    for entry in (*lies, {"dtype": "F32"}, 3):
        header = json.dumps({"a": entry}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
        with pytest.raises(Damaged, match="header that cannot be read"):
            read_header(path)
