"""What is known before training: findings with their reasons, facts by hand arithmetic, and the batches to come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Truetune, write_rows

from truetune.check import Preflight, preflight
from truetune.data.batches import collate
from truetune.data.messages import Place
from truetune.data.renderer import Rendered, Run
from truetune.findings import Finding, Problem
from truetune.options import Config
from truetune.steps import Plan


def ready(model: Path, dataset: Path, **options: Any) -> Preflight:
    return preflight(Config(model_name_or_path=str(model), dataset=(str(dataset),), **{"do_train": True, **options}),
                     lambda text: None)


def refused(model: Path, dataset: Path, **options: Any) -> list[Finding]:
    with pytest.raises(Problem) as caught:
        ready(model, dataset, **options)
    return caught.value.findings


def errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def found(run: Preflight, id: str) -> Finding:
    (finding,) = [finding for finding in run.findings if finding.id == id]
    return finding


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


# --------------------------------------------------------------------------------------------------------- facts


def test_facts_by_hand(bundled: Path, tmp_path: Path) -> None:
    """Three rows. `<s>system\\nS<e>\\n` is 6 tokens, the question `<s>user\\nHi<e>\\n` 6, `<s>assistant\\n` 4 (ass,
    istant), n times `ha` with its end and a line feed n + 2. So a row has 18 + n tokens and learns n + 1."""
    path = save(tmp_path / "rows.jsonl", [{"system": "S", "instruction": "Hi", "output": " ".join(["ha"] * count)}
                                          for count in (1, 4, 10)])
    run = ready(bundled, path, per_device_train_batch_size=1, gradient_accumulation_steps=2, num_train_epochs=3)
    assert run.facts == {
        "rows": 3, "rows_held_out": 0, "rows_left_out": 0,
        "tokens": 19 + 22 + 28, "tokens_learned": 2 + 5 + 11,
        "length_median": 22, "length_longest": 28, "learned_median": 5,
        "steps_per_epoch": 2, "steps": 6,  # 3 rows in steps of 1 x 2: one whole and one of what is left
    }
    split = ready(bundled, path, val_size=1)
    assert (split.facts["rows"], split.facts["rows_held_out"], len(split.held_out)) == (2, 1, 1)


# ------------------------------------------------------------------------------------------------------ long rows


def long_rows(tmp_path: Path) -> Path:
    """Row 2 is one long exchange; row 3 has three exchanges, of which the last alone is short."""
    return save(tmp_path / "rows.jsonl", [
        {"instruction": "Hi", "output": "Hello."},
        {"instruction": "Hi", "output": "word " * 100 + "end."},
        {"instruction": "c", "output": "last words.", "system": "S",
         "history": [["a", "first " * 60], ["b", "second " * 20]]},
    ])


def test_too_long_is_dropped_and_told(bundled: Path, tmp_path: Path) -> None:
    path = long_rows(tmp_path)
    run = ready(bundled, path, cutoff_len=64)
    assert [row.where for row in run.train] == [f"{path}:1"]
    assert run.facts["rows_left_out"] == 2
    finding = found(run, "too-long")
    assert (finding.severity, finding.option) == ("warn", "cutoff_len")
    *_, second, longest = sorted(len(row) for row in ready(bundled, path).train)
    assert str(finding.message) == (f"longer than 64 tokens: 2 of 3 rows (the longest has {longest}); 2 left out "
                               f"({path}:2, {path}:3).")
    assert str(finding.fix) == f"cutoff_len: {longest} keeps all of them whole."
    assert not [f for f in ready(bundled, path, cutoff_len=longest).findings if f.id == "too-long"]  # just so long fits
    assert len(ready(bundled, path, cutoff_len=second).train) == 2


def test_truncate_cuts_in_proportion_and_fakes_no_end(bundled: Path, tmp_path: Path, tokenizer: Any) -> None:
    """Row 2: 31 tokens ask (system, question, `assistant`) and 103 answer. Of 60, where 2 x 31 is more, both are cut in
    proportion: int(60 x 103 / 134) = 46 answer, 14 ask. Of 64, where 2 x 31 is less, the question stays whole and 33
    answer. The end is gone, and nobody puts one there."""
    path = long_rows(tmp_path)
    run = ready(bundled, path, cutoff_len=60, overlong="truncate")
    assert [row.where for row in run.train] == [f"{path}:1", f"{path}:2", f"{path}:3"]
    cut = run.train[1]
    whole = ready(bundled, path).train[1]
    asked, end = whole.runs[0].first, whole.runs[0].last
    assert (asked, end - asked) == (31, 103)
    assert cut.ids.tolist() == [*whole.ids[:14], *whole.ids[asked : asked + 46]]
    assert cut.cut and cut.weights.tolist() == [0.0] * 14 + [1.0] * 46
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in cut.ids[14:]
    wider = ready(bundled, path, cutoff_len=64, overlong="truncate").train[1]
    assert wider.ids.tolist() == [*whole.ids[:31], *whole.ids[asked : asked + 33]]
    assert "; 2 cut, without an end where the answer is cut (" in str(found(run, "too-long").message)


def test_split_goes_on_in_further_rows(bundled: Path, tmp_path: Path) -> None:
    """Every token of the long row stands in one of its pieces, in order; only the last one has the end."""
    path = long_rows(tmp_path)
    whole = ready(bundled, path).train[1]
    pieces = [row for row in ready(bundled, path, cutoff_len=64, overlong="split").train if row.where == f"{path}:2"]
    assert [len(piece) for piece in pieces] == [64, 64, len(whole) - 128]
    assert np.concatenate([piece.ids for piece in pieces]).tolist() == whole.ids.tolist()
    assert np.concatenate([piece.weights for piece in pieces]).tolist() == whole.weights.tolist()


def test_error_refuses_long_rows(bundled: Path, tmp_path: Path) -> None:
    path = long_rows(tmp_path)
    (finding,) = errors(refused(bundled, path, cutoff_len=64, overlong="error"))
    assert finding.id == "too-long" and str(finding.message).startswith("longer than 64 tokens: 2 of 3 rows")
    assert f"({path}:2, {path}:3)" in str(finding.message)
    _, finding = told = refused(bundled, path, cutoff_len=8)
    assert [each.id for each in told] == ["too-long", "no-rows-left"]  # and no talk of steps where no row is left
    assert str(finding.message) == "no row is left to learn from: 3 longer than 8 tokens."


# ------------------------------------------------------------------------------------------- what would be mislearned


def with_template(model: Path, folder: Path, tokenizer: Any, template: str) -> Path:
    """The model with another chat template."""
    import copy
    import shutil

    folder.mkdir()
    shutil.copy(model / "config.json", folder)
    (folder / "model.safetensors").symlink_to(model / "model.safetensors")
    other = copy.deepcopy(tokenizer)
    other.chat_template = template or None
    other.save_pretrained(folder)
    return folder


def test_templates_that_teach_no_end_or_nothing(bundled: Path, tmp_path: Path, tokenizer: Any) -> None:
    """No end-of-turn token: a warning with the row. No word of an answer: nothing to learn, which is an error."""
    rows = write_rows(tmp_path / "rows.json", 3)
    plain = with_template(bundled, tmp_path / "plain", tokenizer,
                          "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
                          "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}")
    finding = found(ready(plain, rows), "no-end-of-turn")
    assert (finding.severity, finding.where) == ("warn", f"{rows}:2")
    assert str(finding.message).startswith("in 3 of 3 rows the answer has no end-of-turn token")

    silent = with_template(bundled, tmp_path / "silent", tokenizer,
                           "{% for m in messages if m['role'] == 'user' %}{{ m['content'] + '\n' }}{% endfor %}")
    (finding,) = errors(ready(silent, rows).findings)
    assert (finding.id, str(finding.message)) == ("nothing-learned", "no token is learned of 3 of 3 rows (2, 7, 12).")

    no_system = with_template(bundled, tmp_path / "no-system", tokenizer,
                              "{% for m in messages %}{% if m['role'] == 'system' %}"
                              "{{ raise_exception('no system here') }}{% endif %}"
                              "{{ m['content'] + '<|im_end|>' }}{% endfor %}")
    (finding,) = errors(refused(no_system, save(tmp_path / "s.jsonl", [
        {"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "system": "S"}])))
    assert finding.where == f"{tmp_path / 's.jsonl'}:2"
    assert str(finding.message) == "the chat template refuses it: no system here."

    base = with_template(bundled, tmp_path / "base", tokenizer, "")
    (finding,) = refused(base, rows)
    assert finding.id == "no-chat-template"


def test_answers_that_would_teach_a_slip(bundled: Path, tmp_path: Path) -> None:
    """White space that joins the prompt's: a warning with the row. An end-of-turn token among the words is text."""
    path = save(tmp_path / "rows.jsonl", [
        {"instruction": "a", "output": "b"},
        {"instruction": "a", "output": "stop <|im_end|> here"},
        {"instruction": "What is <|im_end|>?", "output": "A mark."},  # in a question it teaches nothing
        {"instruction": "a", "output": "\n\nHello"},
    ])
    run = ready(bundled, path)
    drift = found(run, "drift")
    assert str(drift.message).startswith("in 1 of 4 rows")
    assert len([f for f in run.findings if f.option == "dataset"]) == 1
    assert (drift.where, drift.severity) == (f"{path}:4", "warn")


def test_a_named_template_is_applied_and_told_apart(bundled: Path, tmp_path: Path, tokenizer: Any) -> None:
    """LLaMA-Factory's smollm2 ends the default system text with a full stop, the model's own template does not."""
    rows = write_rows(tmp_path / "rows.json", 3)
    run = ready(bundled, rows, template="smollm2")
    finding = found(run, "template-differs")
    assert finding.severity == "warn" and "ing Face.<|im_end|>" in str(finding.message)
    assert "trained by Hugging Face.<|im_end|>" in tokenizer.decode(run.train[0].ids)
    errors = refused(bundled, rows, template="llama3")  # its marks are no tokens of this tokenizer
    assert "template-token" in [finding.id for finding in errors]
    assert "Did you mean llama3" in refused(bundled, rows, template="lama3")[0].line()


# ------------------------------------------------------------------------------------------------------------- steps


def test_model_and_data_errors_come_together(tmp_path: Path, truetune: Truetune) -> None:
    """A model that is no model and a data set with a broken row: both lines, one run. As JSON the same findings."""
    (tmp_path / "model").mkdir()
    save(tmp_path / "rows.jsonl", [{"instruction": "a", "output": ""}])
    words = ("check", "--model_name_or_path=model", "--dataset=rows.jsonl", "--eval_dataset=no.json", "--output_dir=o",
             "--eval_strategy=steps")
    done = truetune(*words)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error")]
    assert done.returncode == 1 and len(lines) == 3
    assert lines[0].startswith("error  model_name_or_path (command line): model has no config.json")
    assert lines[1] == "error  dataset (rows.jsonl:1): turn 2 (assistant) is empty."
    assert lines[2].startswith("error  eval_dataset: there is no file no.json.")
    report = json.loads(truetune(*words, "--json").stdout)
    assert report["status"] == "error"
    assert [(f["option"], f["where"]) for f in report["findings"] if f["severity"] == "error"] == [
        ("model_name_or_path", "command line"), ("dataset", "rows.jsonl:1"), ("eval_dataset", None)]


# ----------------------------------------------------------------------------------------------------------- batches


def test_collate_by_hand() -> None:
    """Rows `7 8 9` (learns 9) and `4 5 6 2` (learns 4, 6, 2) end to end:

    place       0  1  2 | 3  4  5  6
    id          7  8  9 | 4  5  6  2
    position    0  1  2 | 0  1  2  3
    learned           9 | -     6  2     4 is the first of its row: nothing stands before it to predict it from
    source         1    |    4  5        the place before each
    """
    rows = [Rendered(np.array([7, 8, 9]), (Run(2, 3, 1.0),), place=Place("f:", 1)),
            Rendered(np.array([4, 5, 6, 2]), (Run(0, 1, 1.0), Run(2, 3, 1.0), Run(3, 4, 0.5)), place=Place("f:", 2))]
    batch = collate(rows)
    assert batch.ids.tolist() == [[7, 8, 9, 4, 5, 6, 2]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    assert batch.starts == (0, 3, 7) and batch.tokens == 7
    assert batch.sources.tolist() == [1, 4, 5]
    assert batch.targets.tolist() == [9, 6, 2]
    assert batch.weights.tolist() == [1.0, 1.0, 0.5]
    assert tuple(row.where for row in batch.sequences) == ("f:1", "f:2")
    tensors = (batch.ids, batch.positions, batch.sources, batch.targets, batch.weights)
    assert [str(tensor.dtype) for tensor in tensors] == ["torch.int64"] * 4 + ["torch.float32"]
    assert rows[1].weights[0] == 1.0  # the rows themselves stay as they are
    alone = collate(rows[1:])
    assert (alone.starts, alone.sources.tolist(), alone.targets.tolist()) == ((0, 4), [1, 2], [6, 2])


def plan(**values: Any) -> Plan:
    return Plan(**{"rows": 10, "batch_size": 2, "accumulation": 2, "epochs": 3.0, "max_steps": -1, "seed": 1,
                   "shuffle": True, **values})


def epoch(plan: Plan, number: int) -> list[int]:
    first = number * plan.steps_per_epoch
    return [row for step in range(first, first + plan.steps_per_epoch) for batch in plan.batches(step) for row in batch]


@pytest.mark.parametrize(("rows", "batch_size", "accumulation"), [
    (10, 2, 2), (12, 4, 1), (7, 3, 2), (1, 8, 4), (5, 1, 1)])
def test_an_epoch_has_every_row_once(rows: int, batch_size: int, accumulation: int) -> None:
    some = plan(rows=rows, batch_size=batch_size, accumulation=accumulation)
    for number in range(3):
        assert sorted(epoch(some, number)) == list(range(rows))
    sizes = [len(batch) for step in range(some.steps_per_epoch) for batch in some.batches(step)]
    assert max(sizes) <= batch_size and all(len(some.batches(step)) <= accumulation for step in range(9))


def test_order_of_rows() -> None:
    """Another order each epoch, the same for the same seed, from any step on; unshuffled it is the file's."""
    first = plan()
    assert epoch(first, 0) != epoch(first, 1)
    assert [first.batches(step) for step in range(9)] == [plan().batches(step) for step in range(9)]
    assert epoch(first, 0) != epoch(plan(seed=2), 0)
    assert plan(shuffle=False).batches(0) == [[0, 1], [2, 3]]
    assert plan(shuffle=False).batches(2) == plan(shuffle=False).batches(5) == [[8, 9]]


def test_how_many_steps() -> None:
    """10 rows in steps of 2 x 2 are 3 steps (4, 4, 2 rows). 3 epochs: 9. Half an epoch: 2. max_steps has its way."""
    assert (plan().steps_per_epoch, plan().total_steps) == (3, 9)
    assert plan(epochs=0.5).total_steps == 2
    assert plan(epochs=1.1).total_steps == 4
    assert plan(max_steps=5).total_steps == 5
    assert plan(max_steps=100).total_steps == 100
    assert plan(rows=0).total_steps == 0
