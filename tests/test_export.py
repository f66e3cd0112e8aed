"""Merging, chatting, exporting: what is served is what was trained."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import Truetune, options, write_rows
from safetensors import safe_open
from test_train import run

from truetune.export import export
from truetune.export.room import bytes_needed, count_weights, require_room
from truetune.findings import Problem, Say
from truetune.model.find import load_tokenizer
from truetune.model.load import fingerprint
from truetune.options import Config
from truetune.options.read import read_config
from truetune.serve.engine import load_engine

QUESTION = [{"role": "user", "content": "Question 3?"}]


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned its rows well: the answers are its own and not the base's."""
    folder = tmp_path_factory.mktemp("adapter")
    data = write_rows(folder / "rows.json", 8, "Alpha beta gamma {n}.")
    run(folder / "run", tiny, data, num_train_epochs=30, lora_rank=16, learning_rate=5e-3, cutoff_len=256)
    return folder / "run"


def exported(target: Path, **more: object) -> Path:
    config, findings = read_config(options(export_dir=target, **more))
    assert not findings
    return export(config, lambda text: None)


def logits(config_words: list[str]) -> torch.Tensor:
    config, _ = read_config(config_words)
    engine = load_engine(config, lambda text: None)
    ids = torch.tensor([engine.tokenizer("Question 3? Tell me. 问题三").input_ids])
    with torch.no_grad():
        return engine.model(input_ids=ids).logits[0].float()


def test_merged_equals_adapter_on_base(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    """Invariant I4: on every position the merged model's logits are those of the adapter on its base, to rounding."""
    merged = exported(tmp_path / "merged", model_name_or_path=tiny, adapter_name_or_path=adapter)
    base = logits(list(options(model_name_or_path=tiny)))
    put_on = logits(list(options(model_name_or_path=tiny, adapter_name_or_path=adapter)))
    one = logits(list(options(model_name_or_path=merged)))
    torch.testing.assert_close(one, put_on, rtol=1e-3, atol=2e-3)
    assert float((put_on - base).abs().max()) > 1


def test_merging_adds_in_float32(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    """In bfloat16 each merged weight is the float32 sum, rounded once: never further from it than half a unit in its
    last place (2^-9 of it)."""
    words = {"model_name_or_path": tiny, "adapter_name_or_path": adapter}
    exact = exported(tmp_path / "exact", infer_dtype="float32", **words)
    rounded = exported(tmp_path / "rounded", infer_dtype="bfloat16", **words)
    with safe_open(exact / "model.safetensors", "pt") as one, safe_open(rounded / "model.safetensors", "pt") as other:
        for name in one.keys():  # noqa: SIM118  (not a mapping)
            assert torch.equal(one.get_tensor(name).bfloat16(), other.get_tensor(name)), name


def test_what_an_export_holds(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    """Shards of export_size at most, the tokenizer and template of training, the tokens that end an answer, a card."""
    merged = exported(tmp_path / "m", model_name_or_path=tiny, adapter_name_or_path=adapter, export_size=0.05)
    shards = sorted(merged.glob("*.safetensors"))
    largest = [shard.stat().st_size for shard in shards]
    assert len(shards) > 1
    # one tensor may be larger than a shard is asked to be: the embedding, 49,152 x 576 in float32
    assert sorted(largest)[-2] <= 0.05e9 + 1e5 and max(largest) <= 49152 * 576 * 4 + 1e5
    trained, served = load_tokenizer(adapter), load_tokenizer(merged)
    assert served.chat_template == trained.chat_template
    assert served.apply_chat_template(QUESTION, tokenize=False) == trained.apply_chat_template(QUESTION, tokenize=False)
    generation = json.loads((merged / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] in (2, [2])
    assert "fine-tuned (lora)" in (merged / "README.md").read_text(encoding="utf-8")
    assert not list(merged.parent.glob(".m*"))


@pytest.fixture(scope="module")
def shipped(tiny: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A GGUF file and its Modelfile, and what was said while they were made."""
    said: list[str] = []
    target = tmp_path_factory.mktemp("shipped") / "Alpha"
    config, findings = read_config(options(model_name_or_path=tiny, adapter_name_or_path=adapter, export_dir=target,
                                           export_format="gguf,ollama", export_gguf_type="q8_0"))
    assert not findings
    return export(config, lambda words: said.append(str(words))), said


def test_shipping_gguf_and_ollama(shipped: tuple[Path, list[str]]) -> None:
    """Nothing but what was asked for is left, everything was proven, and the last lines say what to do next."""
    target, said = shipped
    assert sorted(file.name for file in target.iterdir()) == ["Alpha-Q8_0.gguf", "Modelfile", "README.md",
                                                              "parity.json"]
    assert not list(target.parent.glob(".*"))
    told = json.loads((target / "parity.json").read_text(encoding="utf-8"))
    assert told["status"] == "passed" and told["first_difference"] is None
    assert [layer["layer"] for layer in told["layers"]] == ["llama.cpp q8_0", "ollama q8_0"]
    assert [(each["form"], each["base"]) for each in told["logits"]] == [("hf", "trained"), ("llama.cpp q8_0", "hf")]
    assert told["logits"][0]["kl"] < 1e-6  # merged against the adapter on its base
    card = (target / "README.md").read_text(encoding="utf-8")
    assert 'library_name: "gguf"' in card and "| llama.cpp q8_0 | yes | 16/16 |" in card
    assert "ollama create alpha -f Modelfile" in card and "llama-server --jinja -m Alpha-Q8_0.gguf" in card
    assert said[-1].startswith("to try it: cd ") and ".part" not in "".join(said)


def test_what_is_not_what_was_trained_is_not_shipped(tiny: Path, adapter: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that gets lost on the way to disk: the export is called `.failed`, and the first token is named."""
    from truetune.export import merge

    real = merge.write_model

    def loses_the_template(config: Config, folder: Path, say: Say) -> None:
        real(config, folder, say)
        template = folder / "chat_template.jinja"
        template.write_text(template.read_text(encoding="utf-8").replace("SmolLM", "Llama"), encoding="utf-8")

    monkeypatch.setattr(sys.modules["truetune.export.export"], "write_model", loses_the_template)
    with pytest.raises(Problem, match=r"'single turn', token .* another chat template") as failure:
        exported(tmp_path / "m", model_name_or_path=tiny, adapter_name_or_path=adapter)
    assert failure.value.status == 1 and "m.failed" in str(failure.value)
    assert not (tmp_path / "m").exists()
    told = json.loads((tmp_path / "m.failed" / "parity.json").read_text(encoding="utf-8"))
    assert told["status"] == "failed" and told["first_difference"]["kind"] == "template"


def test_an_adapter_alone(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    """Small, and proven to be the adapter that was trained: in transformers, and in llama.cpp on the base."""
    alone = exported(tmp_path / "m", model_name_or_path=tiny, adapter_name_or_path=adapter, export_adapter_only=True,
                     export_format="hf,gguf")
    assert (alone / "adapter_model.safetensors").is_file() and not (alone / "model.safetensors").exists()
    assert [file.name for file in alone.glob("*.gguf")] == ["m-LoRA.gguf"] and not (alone / ".work").exists()
    told = json.loads((alone / "parity.json").read_text(encoding="utf-8"))
    assert told["status"] == "passed" and told["logits"][0]["largest"] == 0
    assert [row["form"] for row in told["logits"]] == ["hf", "llama.cpp f16 + LoRA"]
    assert "--lora m-LoRA.gguf" in (alone / "README.md").read_text(encoding="utf-8")


def test_a_disk_that_is_too_small(tiny: Path, tmp_path: Path) -> None:
    """Said before anything is computed: how much it takes, and how much is free."""
    config, _ = read_config(options(model_name_or_path=tiny, export_dir=tmp_path / "m", export_format="hf,gguf",
                                    export_gguf_type="f16,q4_k_m"))
    weights = count_weights(tiny)
    needed = bytes_needed(tiny, config, config.export_gguf_type)
    assert needed == pytest.approx(1.02 * weights * (4 + 2 + 4.89 / 8))
    free = shutil.disk_usage(tmp_path).free
    many = ["f32"] * (1 + int(free / (weights * 4)))
    with pytest.raises(Problem, match=r"takes about .* GB on the way, and .* GB free"):
        require_room(tmp_path / "m", tiny, config, many)


def test_bad_input_is_refused_in_one_line(tiny: Path, tmp_path: Path) -> None:
    """A hostile template, no tokenizer, weights that are pickles: one clear line, and nothing is written."""
    for name, spoil, expected in (
        ("hostile", lambda folder: (folder / "chat_template.jinja").write_text("{{ 'a' * 9999999999 }}"),
         "more memory"),
        ("mute", lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer that can be read"),
        ("pickled", lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
         "no safetensors weights"),
    ):
        shutil.copytree(tiny, tmp_path / name)
        spoil(tmp_path / name)
        with pytest.raises(Problem, match=expected):
            exported(tmp_path / "out", model_name_or_path=tmp_path / name)
        assert not list(tmp_path.glob("*out*"))


def test_refusals(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    """Another base, a folder in use, something that is no adapter: one clear line, and nothing is written."""
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    with safe_open(other / "model.safetensors", "pt") as tensors:
        changed = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    from safetensors.torch import save_file

    changed["model.layers.1.mlp.up_proj.weight"] += 0.01
    save_file(changed, other / "model.safetensors", {"format": "pt"})
    assert fingerprint(other) != fingerprint(tiny)
    for words, expected in (
        ({"model_name_or_path": other, "adapter_name_or_path": adapter}, "has other weights"),
        ({"model_name_or_path": tiny, "adapter_name_or_path": tmp_path}, "it is no adapter"),
        ({"model_name_or_path": tmp_path}, "has no config.json"),
    ):
        with pytest.raises(Problem, match=expected):
            exported(tmp_path / "out", **words)
        assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(Problem, match="not empty"):
        exported(tmp_path / "full", model_name_or_path=tiny)
    with pytest.raises(Problem, match="has other weights"):
        load_engine(read_config(options(model_name_or_path=other, adapter_name_or_path=adapter))[0], print)


def test_answers_alone_and_together(tiny: Path, adapter: Path) -> None:
    """Greedy answers streamed one by one equal those generated in one padded batch, and are what was learned."""
    config, _ = read_config(options(model_name_or_path=tiny, adapter_name_or_path=adapter, do_sample=False,
                                    max_new_tokens=24))
    engine = load_engine(config, print)
    questions = ("Question 0? ", "Question 3? Tell me. Tell me. Tell me. ")
    talks = [[{"role": "user", "content": question}] for question in questions]
    streamed = ["".join(engine.stream(talk)).strip() for talk in talks]
    assert engine.answer(talks) == streamed
    assert streamed[0].startswith("Alpha beta gamma")


def test_closing_the_stream_stops_generating(tiny: Path) -> None:
    """Ctrl-C in a chat closes the iterator: the thread ends long before a million tokens."""
    config, _ = read_config(options(model_name_or_path=tiny, max_new_tokens=1_000_000, temperature=1.5, top_p=1,
                                    top_k=0))
    stream = load_engine(config, print).stream(QUESTION)
    next(stream)
    stream.close()


def test_chat_in_a_terminal(tiny: Path, adapter: Path, truetune: Truetune) -> None:
    """A run folder is all that chat needs; /clear forgets, /exit leaves, and the end of the input leaves too."""
    done = truetune("chat", str(adapter), "--do_sample=false", "--max_new_tokens=24",
                    input="Question 0? \n/clear\n\nQuestion 0? \n/exit\n")
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if "assistant:" in line]
    assert len(answers) == 2 and answers[0] == answers[1] and "Alpha beta gamma" in answers[0]
    assert "forgotten" in done.stdout
    done = truetune("chat", *options(model_name_or_path=tiny, max_new_tokens=3), input="Hello\n")
    assert done.returncode == 0 and "assistant:" in done.stdout


def test_export_from_the_command_line(adapter: Path, truetune: Truetune, tmp_path: Path) -> None:
    done = truetune("export", str(adapter), "--export_dir=merged", "--infer_dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert truetune("export", str(adapter), "--export_dir=merged").returncode == 2
    assert truetune("export", str(adapter)).returncode == 2
