"""The token store: made once, named by everything that changes a token, whole after a kill; and the rows of a run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import events, options, write_rows

from truetune.check.preflight import prepare
from truetune.cli import main
from truetune.data import store as store_module
from truetune.data.dataset import Data
from truetune.data.fastbpe import Encoder
from truetune.data.renderer import Renderer
from truetune.data.rows import Rows, Stream
from truetune.data.store import Store, read_manifest
from truetune.findings import Problem
from truetune.options import Config
from truetune.steps import Plan, pack


def load(model: Path, *names: object, **values: Any) -> tuple[Data, Renderer]:
    config = Config(model_name_or_path=str(model), dataset=tuple(map(str, names)), **values)
    # as from a command line: what is set was set by somebody
    _, renderer, data, _ = prepare(config.with_values("test", **values), lambda line: None)
    return data, renderer


def key(model: Path, path: Path, **values: Any) -> str:
    return load(model, path, **values)[0].stores[0].manifest.key


def everything(rows: Rows | Stream) -> list[tuple[list[int], list[float], str]]:
    return [(row.ids.tolist(), row.weights.tolist(), row.where) for row in rows]


# ------------------------------------------------------------------------------------------------------------ the store


def test_a_store_gives_back_what_was_rendered(tiny: Path, tmp_path: Path) -> None:
    """Every row read from disk equals the renderer's own: ids, weights, place and flags."""
    path = write_rows(tmp_path / "rows.json", 30)
    data, renderer = load(tiny, path)
    (store,) = data.stores
    from truetune.data.reading import read_source
    from truetune.data.sources import find_sources

    config = Config(dataset=(str(path),))
    (source,) = find_sources(config.dataset, config, "dataset")
    rows = list(read_source(source, config, "conversations"))
    for kept, (made,) in zip(data.train, renderer.render(rows), strict=True):
        assert kept.ids.tolist() == made.ids.tolist() and kept.weights.tolist() == made.weights.tolist()
        assert (kept.place, kept.runs, kept.drifts, kept.endless, kept.cut) == (
            made.place, made.runs, made.drifts, made.endless, made.cut)
    assert store.rows["learned"].tolist() == [int(row.weights[1:].sum()) for row in data.train]
    assert store.manifest.finished and not store.manifest.wide  # 49,152 words fit 16 bits
    assert [shard["raw"] for shard in store.manifest.shards] == [30]


FLIPS: dict[str, dict[str, Any]] = {
    "template": {"template": "chatml"}, "cutoff": {"cutoff_len": 1000}, "overlong": {"overlong": "truncate"},
    "mask": {"mask_history": True}, "prompt": {"train_on_prompt": True}, "weights": {"loss_weights": {"The": 0.5}},
    "system": {"default_system": "S"}, "name": {"identity_name": "Q"}, "samples": {"max_samples": 5},
    "tools": {"tool_format": "qwen"}, "thinking": {"template": "qwen3"},
    "no thinking": {"template": "qwen3", "enable_thinking": False},
    "kept thoughts": {"template": "qwen3", "preserve_thinking": True},
}


def test_whatever_changes_a_token_changes_the_key(tiny: Path, tmp_path: Path, tokenizer: Any,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 6. One flip at a time of every option, of one byte of the data, of the tokenizer's files, and of the
    renderer's version: no two keys are equal. The same again is the same key."""
    path = write_rows(tmp_path / "rows.json", 8)
    keys = {"nothing": key(tiny, path)} | {name: key(tiny, path, **values) for name, values in FLIPS.items()}
    assert key(tiny, path) == keys["nothing"]

    (other := tmp_path / "model").mkdir()
    for file in tiny.iterdir():
        (other / file.name).symlink_to(file)
    assert key(other, path) == keys["nothing"]  # where the model lies means nothing
    changed = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    changed["model"]["merges"].pop()
    (other / "tokenizer.json").unlink()
    (other / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    keys["tokenizer"] = key(other, path)

    monkeypatch.setattr("truetune.data.dataset.VERSION", 0)
    keys["renderer"] = key(tiny, path)
    monkeypatch.undo()
    path.write_text(path.read_text(encoding="utf-8").replace("Question 3", "Question 4"), encoding="utf-8")
    keys["data"] = key(tiny, path)
    assert len(set(keys.values())) == len(keys), keys


def test_found_again_without_reading(tiny: Path, tmp_path: Path) -> None:
    """The second time nothing is rendered: the files are those of the first. overwrite_cache makes them again."""
    path = write_rows(tmp_path / "rows.json", 8)
    folder = load(tiny, path)[0].stores[0].folder
    before = (folder / "00000.ids.npy").stat().st_mtime_ns
    assert everything(load(tiny, path)[0].train) and (folder / "00000.ids.npy").stat().st_mtime_ns == before
    load(tiny, path, overwrite_cache=True)
    assert (folder / "00000.ids.npy").stat().st_mtime_ns > before


BUILD = """
import os, sys
from pathlib import Path
from truetune.data import store
store._CHUNK, store._SHARD = 100, 200
from truetune.check.preflight import prepare
from truetune.options import Config
from truetune.data.dataset import _Loader
seen = []
def progress(name):
    def tell(rows):
        seen.append(rows)
        if sys.argv[3] == "kill" and rows >= 500:
            os.kill(os.getpid(), 9)
    return tell
_Loader._progress = lambda self, name: progress(name)
_, _, data, _ = prepare(Config(model_name_or_path=sys.argv[1], dataset=(sys.argv[2],)), print)
print(len(data.train), seen[0] if seen else 0, data.stores[0].folder)
"""


def build_script(tiny: Path, path: Path, word: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", BUILD, str(tiny), str(path), word], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_killed_build_goes_on_behind_its_last_shard(tiny: Path, tmp_path: Path) -> None:
    """900 rows in shards of 200, killed (-9) after 500: two shards are whole. The next process begins at row 400, and
    the rows are those of a build that nobody killed."""
    path = write_rows(tmp_path / "rows.json", 900)
    killed = build_script(tiny, path, "kill")
    assert killed.wait(120) == -signal.SIGKILL, killed.stderr
    again = build_script(tiny, path, "")
    out, err = again.communicate(timeout=120)
    count, first, folder = out.split()
    assert (int(count), int(first)) == (900, 500), err  # it told of 500 first: 400 from before and its own first 100
    store = Store(Path(folder))
    assert [shard["raw"] for shard in store.manifest.shards] == [200] * 4 + [100]
    resumed = [store[number].ids.tolist() for number in range(900)]
    data, _ = load(tiny, path, overwrite_cache=True)
    assert [row.ids.tolist() for row in data.train] == resumed
    assert [row.where for row in data.train][-1].startswith(f"{path}:")


def test_two_processes_build_one_store_once(tiny: Path, tmp_path: Path) -> None:
    """Whoever comes second waits and then finds it finished: it reads no row of its own."""
    path = write_rows(tmp_path / "rows.json", 600)
    both = [build_script(tiny, path, "") for _ in range(2)]
    answers = [process.communicate(timeout=120)[0].split() for process in both]
    assert sorted(int(first) for _, first, _ in answers) == [0, 100]
    assert {folder for *_, folder in answers} == {answers[0][2]} and {count for count, *_ in answers} == {"600"}


def test_a_fast_encoder_that_goes_wrong_spoils_no_store(tiny: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that cannot say ` answer` is taken for right. Once the watch sees a difference, the store is made
    again without it, and a line says so: the rows are the tokenizer's own."""
    path = write_rows(tmp_path / "rows.json", 400)
    right = [row.ids.tolist() for row in load(tiny, path)[0].train]

    def wrong_encoder(backend: Any, sample: list[str]) -> Encoder:
        changed = json.loads(backend.to_str())
        changed["model"]["merges"] = [pair for pair in changed["model"]["merges"] if "".join(pair) != "Ġanswer"]
        return Encoder(backend, json.dumps(changed))

    monkeypatch.setattr("truetune.data.renderer.fast_encoder", wrong_encoder)
    monkeypatch.setattr("truetune.data.renderer._FAST_FROM", 0)
    said: list[str] = []
    config = Config(model_name_or_path=str(tiny), dataset=(str(path),), overwrite_cache=True)
    _, _, data, _ = prepare(config, said.append)
    assert [row.ids.tolist() for row in data.train] == right
    assert len(said) == 1 and "is tokenised again, without the faster encoder" in str(said[0])


def test_tokenized_path_is_used_and_never_with_other_settings(tiny: Path, tmp_path: Path) -> None:
    path, folder = write_rows(tmp_path / "rows.json", 8), tmp_path / "tokens"
    first, _ = load(tiny, path, tokenized_path=str(folder))
    assert first.stores[0].folder.parent == folder
    again, _ = load(tiny, path, tokenized_path=str(folder))
    assert everything(again.train) == everything(first.train)
    with pytest.raises(Problem) as caught:
        load(tiny, path, tokenized_path=str(folder), cutoff_len=100, train_on_prompt=True)
    (finding,) = caught.value.findings
    assert finding.option == "tokenized_path" and "overwrite_cache: true" in str(finding.fix)
    assert "cutoff_len was 2048 and is 100, train_on_prompt was False and is True" in str(finding.message)
    load(tiny, path, tokenized_path=str(folder), cutoff_len=100, overwrite_cache=True)
    assert read_manifest(first.stores[0].folder).settings["cutoff_len"] == 100


def test_bad_rows_stop_or_are_dropped(tiny: Path, tmp_path: Path) -> None:
    """Three of eight rows have no answer. Without a word all are told; with on_bad_row: drop the others are learned."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": "a", "output": "" if number % 3 == 1 else f"b{number}"}) + "\n"
                            for number in range(8)), encoding="utf-8")
    with pytest.raises(Problem) as caught:
        load(tiny, path)
    assert [finding.where for finding in caught.value.findings] == [f"{path}:{line}" for line in (2, 5, 8)]
    data, _ = load(tiny, path, on_bad_row="drop")
    assert [row.where for row in data.train] == [f"{path}:{line}" for line in (1, 3, 4, 6, 7)]
    (finding,) = data.findings
    assert (finding.severity, finding.where) == ("warn", f"{path}:2")
    assert str(finding.message).startswith("left out, since they cannot be learned from: 3 of 8 rows.")


def test_documents_are_joined_and_cut(tiny: Path, tmp_path: Path, tokenizer: Any) -> None:
    """Stage pt: texts end to end, an end-of-text behind each, in blocks of cutoff_len of which every token is learned.
    Without packing each text is a row."""
    path = tmp_path / "texts.txt"
    lines = [f"This is line {number}, and it says <|im_end|> as text." for number in range(9)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    end = tokenizer.eos_token_id
    data, _ = load(tiny, path, stage="pt", cutoff_len=32)
    joined = [token for row in data.train for token in row.ids.tolist()]
    assert [len(row) for row in data.train][:-1] == [32] * (len(joined) // 32)
    assert joined.count(end) == 9 and tokenizer.decode(joined) == "<|im_end|>".join(lines) + "<|im_end|>"
    assert all(row.weights.min() == 1.0 for row in data.train)
    apart, _ = load(tiny, path, stage="pt", packing=False)
    assert [tokenizer.decode(row.ids) for row in apart.train] == [line + "<|im_end|>" for line in lines]


def test_preferences_share_their_prompt(tiny: Path, tmp_path: Path) -> None:
    """Stage dpo: two sequences a row, chosen first; the prompt is the same ids, and only the answers are learned."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": f"q{number}", "chosen": "good answer", "rejected": "bad"}
                                for number in range(4)]), encoding="utf-8")
    data, renderer = load(tiny, path, stage="dpo")
    assert isinstance(data.train, Rows) and data.train.per_row == 2 and len(data.train) == 8
    for chosen, rejected in zip(data.train[::2], data.train[1::2], strict=True):
        (good,), (bad,) = chosen.runs, rejected.runs
        assert chosen.ids[: good.first].tolist() == rejected.ids[: bad.first].tolist()
        assert renderer.tokenizer.decode(chosen.ids[good.first : good.last]) == "good answer<|im_end|>"
        assert renderer.tokenizer.decode(rejected.ids[bad.first : bad.last]) == "bad<|im_end|>"


def test_judged_answers_keep_their_label(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "q", "output": f"a{number}", "label": number % 2 == 0}
                                for number in range(4)]), encoding="utf-8")
    assert [row.label for row in load(tiny, path, stage="kto")[0].train] == [True, False, True, False]


# ---------------------------------------------------------------------------------------------- the rows of a run


def test_sets_are_mixed_sampled_and_held_out(tiny: Path, tmp_path: Path) -> None:
    """Two sets in turn; the first rows of each; a share held out that no training row shares with it."""
    first, second = write_rows(tmp_path / "a.json", 6), write_rows(tmp_path / "b.json", 3, "Other {n}.")
    mixed, _ = load(tiny, first, second, mix_strategy="interleave_under")
    assert [Path(row.place.file).name for row in mixed.train] == ["a.json:", "b.json:"] * 3
    few, _ = load(tiny, first, second, max_samples=2)
    assert [(Path(row.place.file).stem, row.place.number) for row in few.train][::2] == [("a", 2), ("b", 2)]
    split, _ = load(tiny, first, second, val_size=0.34)
    held = {row.where for row in split.held_out[""]}
    assert len(held) == 3 and not held & {row.where for row in split.train} and len(split.train) == 6
    assert held == {row.where for row in load(tiny, first, second, val_size=0.34)[0].held_out[""]}  # by the seed


def test_one_conversation_is_never_on_both_sides(tiny: Path, tmp_path: Path) -> None:
    """A row that stands in several pieces (overlong: split), or is drawn twice, is held out whole or not at all."""
    rows = [{"instruction": f"Question {number}", "output": "word " * 60} for number in range(10)]
    (tmp_path / "mine.json").write_text(json.dumps(rows, indent=0), encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"mine": {"file_name": "mine.json", "num_samples": 30}}), encoding="utf-8")
    data, _ = load(tiny, "mine", dataset_dir=str(tmp_path), cutoff_len=40, overlong="split", val_size=0.3)
    train, held = {row.where for row in data.train}, {row.where for row in data.held_out[""]}
    assert len(train) == 7 and len(held) == 3 and not train & held
    assert len(data.held_out[""]) == 3 * 3 and len(data.train) > 7 * 3  # in 3 pieces each; held out, each counts once


def test_each_evaluation_set_is_measured_by_itself(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "easy", "hard"):
        write_rows(tmp_path / f"{name}.json", 4, name + " answer {n}")
    monkeypatch.chdir(tmp_path)
    assert main(["train", *options(
        model_name_or_path=tiny, dataset="train.json", eval_dataset="easy.json,hard.json", eval_on_each_dataset=True,
        eval_strategy="steps", eval_steps=1, max_steps=1, output_dir="run", plot_loss=False)]) == 0
    (event,) = events(tmp_path / "run", "eval")
    each = [event["eval_easy.json_loss"], event["eval_hard.json_loss"]]
    assert min(each) < event["eval_loss"] < max(each)
    results = json.loads((tmp_path / "run" / "all_results.json").read_text(encoding="utf-8"))
    assert results["eval_easy.json_loss"] == each[0]


def test_a_stream_is_trained_on_and_resumed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps at once, and three of six with the rest after a stop: the same losses. Nothing is written to a cache,
    and the shuffled order is not the file's."""
    write_rows(tmp_path / "rows.jsonl", 40)
    words = options(model_name_or_path=tiny, dataset="rows.jsonl", streaming=True, buffer_size=16, logging_steps=1,
                    per_device_train_batch_size=2, save_steps=3, plot_loss=False, use_cpu=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["train", *words, *options(max_steps=6, output_dir="whole")]) == 0
    assert not (tmp_path / "cache" / "truetune" / "tokens").exists()
    assert main(["train", *words, *options(max_steps=6, output_dir="part",
                                           resume_from_checkpoint=tmp_path / "whole" / "checkpoint-3")]) == 0
    losses = [event["loss"] for event in events(tmp_path / "whole")]
    assert losses[3:] == [event["loss"] for event in events(tmp_path / "part")][-3:]
    data, _ = load(tiny, tmp_path / "rows.jsonl", streaming=True, max_steps=20, per_device_train_batch_size=2,
                   buffer_size=16)
    order = [row.place.number for row in data.train]
    assert len(order) == 40 and sorted(order) == sorted(set(order)) and order != sorted(order)  # 40 rows: each once


def test_a_stream_refuses_what_a_store_refuses(tiny: Path, tmp_path: Path) -> None:
    """Bad rows and overlong ones are told by line, or left out where that was asked for."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": "a", "output": "" if number == 3 else "b " * number}) + "\n"
                            for number in range(1, 8)), encoding="utf-8")
    words = {"streaming": True, "max_steps": 3, "per_device_train_batch_size": 2, "buffer_size": 1}
    with pytest.raises(Problem, match=r"rows\.jsonl:3\): turn 2 \(assistant\) is empty"):
        load(tiny, path, **words)
    data, _ = load(tiny, path, on_bad_row="drop", **words)
    assert sorted(row.place.number for row in data.train) == [1, 2, 4, 5, 6, 7]
    longest = max(map(len, data.train))
    with pytest.raises(Problem, match=f"it has more than {longest - 1} tokens"):
        load(tiny, path, on_bad_row="drop", overlong="error", cutoff_len=longest - 1, **words)


# ------------------------------------------------------------------------------------------------------------- packing


def test_packs_are_full_and_hold_every_row_once() -> None:
    """First fit over a window: no pack is longer than the limit, every row is in one, few tokens' room is left."""
    lengths = np.random.default_rng(5).integers(5, 400, size=2500)
    packs = pack(lengths, 512, seed=1)
    assert sorted(packs.order.tolist()) == list(range(2500))
    filled = [int(lengths[packs.rows(number)].sum()) for number in range(len(packs))]
    assert max(filled) <= 512
    assert sum(filled) / (512 * len(packs)) > 0.97
    again, other = (pack(lengths, 512, seed=seed).order.tolist() for seed in (1, 2))
    assert again == packs.order.tolist() != other


def test_packs_by_hand() -> None:
    """Rows of 6, 5, 4, 3, 2 tokens into packs of 10: 6+4, 5+3+2."""
    packs = pack(np.array([2, 3, 4, 5, 6]), 10, seed=0)
    assert [sorted(packs.rows(number)) for number in range(2)] == [[2, 4], [0, 1, 3]]
    plan = Plan(5, batch_size=1, accumulation=2, epochs=2, max_steps=-1, seed=3, shuffle=True, packs=packs)
    assert (plan.steps_per_epoch, plan.total_steps) == (1, 2)
    assert [sorted(map(sorted, plan.batches(step))) for step in range(2)] == [[[0, 1, 3], [2, 4]]] * 2


def test_packing_trains_fewer_and_fuller_steps(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 rows in batches of one make 24 steps; packed into batch rows of 128 tokens they make as many as there are
    packs, and every row is still learned."""
    write_rows(tmp_path / "rows.json", 24)
    words = options(model_name_or_path=tiny, dataset="rows.json", cutoff_len=128, per_device_train_batch_size=1,
                    num_train_epochs=1, plot_loss=False, logging_steps=1)
    monkeypatch.chdir(tmp_path)
    for name, packing in (("apart", False), ("packed", True)):
        assert main(["train", *words, *options(packing=packing, output_dir=name)]) == 0
    apart, packed = events(tmp_path / "apart"), events(tmp_path / "packed")
    assert len(apart) == 24 and 6 < len(packed) <= 14
    assert apart[-1]["tokens"] == packed[-1]["tokens"]


CORRUPT: list[tuple[str, Callable[[Path], object]]] = [
    ("a shard is missing", lambda folder: (folder / "00000.ids.npy").unlink()),
    ("a shard is short", lambda folder: (folder / "00000.ids.npy").write_bytes(
        (folder / "00000.ids.npy").read_bytes()[:-10])),
    ("the manifest is no JSON", lambda folder: (folder / "store.json").write_text("{", encoding="utf-8")),
]


@pytest.mark.parametrize(("what", "damage"), CORRUPT, ids=[name for name, _ in CORRUPT])
def test_a_damaged_store_is_made_again(tiny: Path, tmp_path: Path, what: str,
                                       damage: Callable[[Path], object]) -> None:
    """Somebody's disk lost something: the store is made again, and the rows are the same."""
    path = write_rows(tmp_path / "rows.json", 8, what + " {n}")
    first, _ = load(tiny, path)
    before = everything(first.train)
    damage(first.stores[0].folder)
    assert everything(load(tiny, path)[0].train) == before
    assert read_manifest(first.stores[0].folder).format == store_module.FORMAT
