"""`truetune eval`: questions with choices in every form of file, perplexity, answers, tasks of lm-eval.

The questions are made here: sums, whose right answer and whose place among the choices are known.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import options, write_rows
from transformers import AutoModelForCausalLM

from truetune.cli import main
from truetune.data.messages import Place
from truetune.evaluate import similarity as similarity_module
from truetune.evaluate.benchmarks.answer import letter_chances
from truetune.evaluate.benchmarks.ask import (
    WORDINGS,
    ask,
    find_letters,
    in_chat,
    in_plain_text,
    turns_of,
)
from truetune.evaluate.benchmarks.files import Exam, Question, Subject, load_exam
from truetune.evaluate.benchmarks.marks import Marks, doubts, log_lines, marks_of, scores_of, share
from truetune.evaluate.benchmarks.subjects import known_subjects
from truetune.evaluate.evaluate import evaluate
from truetune.evaluate.load import load_measured
from truetune.findings import Problem
from truetune.options.read import read_config

PACKAGES = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in similarity_module.PACKAGES),
    reason="answers are compared with packages of the extra metrics: pip install jieba rouge-chinese nltk")
LM_EVAL = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None,
                             reason="the harness is not installed: pip install lm-eval")


def sums(count: int, first: int = 1) -> list[tuple[str, list[str], str]]:
    """Questions (text, choices, right letter): what n plus 2 is, the right choice at A, B, C, D in turn."""
    made = []
    for n in range(first, first + count):
        choices = [str(n + 3), str(n + 4), str(n + 5), str(n + 6)]
        choices.insert(n % 4, str(n + 2))
        made.append((f"What is {n} plus 2? Think, then say.", choices[:4], "ABCD"[n % 4]))
    return made


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def mmlu(folder: Path) -> Path:
    """MMLU's own layout: no header, the subject in the name of the file."""
    for subject, count in (("anatomy", 6), ("us_foreign_policy", 3)):
        write_csv(folder / "data" / "test" / f"{subject}_test.csv", [(q, *c, a) for q, c, a in sums(count, 10)])
        write_csv(folder / "data" / "dev" / f"{subject}_dev.csv", [(q, *c, a) for q, c, a in sums(5)])
    return folder


def cmmlu(folder: Path) -> Path:
    header = ("", "Question", "A", "B", "C", "D", "Answer")
    for split, first, count in (("dev", 1, 5), ("test", 10, 6)):
        write_csv(folder / split / "agronomy.csv",
                  [header, *((n, q, *c, a) for n, (q, c, a) in enumerate(sums(count, first)))])
    return folder


def ceval(folder: Path) -> Path:
    header = ("id", "question", "A", "B", "C", "D", "answer", "explanation")
    for split, first, count in (("dev", 1, 5), ("val", 10, 6)):
        write_csv(folder / split / f"law_{split}.csv",
                  [header, *((n, q, *c, a, "因为") for n, (q, c, a) in enumerate(sums(count, first)))])
    write_csv(folder / "test" / "law_test.csv", [header, *((n, q, *c, "", "") for n, (q, c, _) in enumerate(sums(2)))])
    return folder


def of_hub(folder: Path) -> Path:
    """A folder as hubs have it: parquet, answers as numbers, each subject and all of them once more."""
    for place in ("agronomy", "all"):
        for split, first, count in (("dev", 1, 5), ("test", 10, 6)):
            (folder / place).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist([
                {"question": q, "subject": "agronomy", "choices": c, "answer": "ABCD".index(a)}
                for q, c, a in sums(count, first)]), folder / place / f"{split}-00000-of-00001.parquet")
    return folder


def read(task: str, folder: Path, shots: int = 5, most: int | None = None) -> Exam:
    return load_exam(task, folder, shots, most)


# ------------------------------------------------------------------------------------------------------ forms of files


def plain(questions: Sequence[Question]) -> list[tuple[str, list[str], str]]:
    return [(question.text, list(question.choices), question.letter) for question in questions]


def test_the_layouts_of_the_sets(tmp_path: Path) -> None:
    """MMLU, CMMLU, C-Eval and a hub's folder hold the same questions here, and are read as the same."""
    for task, made, subject, named in (
        ("mmlu_test", mmlu(tmp_path / "mmlu"), "anatomy", ("anatomy", "Other")),
        ("cmmlu_test", cmmlu(tmp_path / "cmmlu"), "agronomy", ("农学", "Other")),
        ("ceval_validation", ceval(tmp_path / "ceval"), "law", ("法学", "Humanities")),
        ("hub_test", of_hub(tmp_path / "hub"), "agronomy", ("agronomy", "")),
    ):
        exam = read(task, tmp_path)
        first = exam.subjects[0]
        assert (first.key, (first.name, first.category)) == (subject, named), made
        assert plain(first.questions) == sums(6, 10) and plain(first.examples) == sums(5)
    assert [subject.key for subject in read("mmlu_test", tmp_path).subjects] == ["anatomy", "us_foreign_policy"]
    assert str(read("cmmlu_test", tmp_path).subjects[0].questions[0].place).endswith("agronomy.csv:2")
    assert [len(subject.questions) for subject in read("mmlu_test", tmp_path, most=2).subjects] == [2, 2]
    assert [len(subject.examples) for subject in read("mmlu_test", tmp_path, shots=3).subjects] == [3, 3]
    assert not read("mmlu_test", tmp_path, shots=0).subjects[0].examples


def test_zip_archives_and_a_mapping_beside_them(tmp_path: Path) -> None:
    """LLaMA-Factory's former form: `mmlu/mmlu.zip` and `mmlu/mapping.json`, which names and groups the subjects."""
    made = mmlu(tmp_path / "made")
    (tmp_path / "mmlu").mkdir()
    with zipfile.ZipFile(tmp_path / "mmlu" / "mmlu.zip", "w") as archive:
        for path in sorted(made.rglob("*.csv")):
            archive.write(path, path.relative_to(made))
        archive.writestr("__MACOSX/data/test/._anatomy_test.csv", b"\0\1")
    (tmp_path / "mmlu" / "mapping.json").write_text(json.dumps({
        "anatomy": {"name": "the human body", "category": "STEM"}}), encoding="utf-8")
    exam = read("mmlu_test", tmp_path)
    assert [(each.name, each.category) for each in exam.subjects] == [
        ("the human body", "STEM"), ("us foreign policy", "Social Sciences")]
    assert plain(exam.subjects[0].questions) == sums(6, 10)
    (tmp_path / "mmlu" / "mmlu.zip").rename(tmp_path / "other.zip")
    assert plain(read("other_test", tmp_path).subjects[0].questions) == sums(6, 10)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    """One file, named by its path: answers as letters, numbers from 0 or the text itself; subjects in a column."""
    rows = [{"question": q, "choices": c, "answer": answer, "subject": subject} for (q, c, a), answer, subject in zip(
        sums(3), ("B", 2, "5"), ("tea", "tea", "coffee"), strict=True)]
    write_lines(tmp_path / "mine.jsonl", rows)
    exam = read(str(tmp_path / "mine.jsonl"), tmp_path)
    assert {each.key: plain(each.questions) for each in exam.subjects} == {"coffee": sums(1, 3), "tea": sums(2)}
    (tmp_path / "mine.json").write_text(json.dumps([{**row, "subject": ""} for row in rows]), encoding="utf-8")
    assert [each.key for each in read(str(tmp_path / "mine.json"), tmp_path).subjects] == ["mine"]
    write_csv(tmp_path / "bare.csv", [(q, *c, a) for q, c, a in sums(4)])
    assert plain(read(str(tmp_path / "bare.csv"), tmp_path).subjects[0].questions) == sums(4)
    write_lines(tmp_path / "labels.jsonl", [{"question": "Q?", "answerKey": "2",
                                             "choices": {"text": ["no", "yes"], "label": ["1", "2"]}}])
    assert plain(read(str(tmp_path / "labels.jsonl"), tmp_path).subjects[0].questions) == [("Q?", ["no", "yes"], "B")]


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    """Nothing there: where it was looked for and what it would look like. Else the line that cannot be asked."""
    with pytest.raises(Problem, match=r"Looked at: .*mmlu \(folder, \.zip, \.csv.*test/<subject>_test\.csv") as caught:
        read("mmlu_test", tmp_path)
    assert caught.value.status == 2
    with pytest.raises(Problem, match="Did you mean perplexity"):
        read("perplexty", tmp_path)
    ceval(tmp_path / "ceval")
    with pytest.raises(Problem, match=r"law_test\.csv:2\): 2 questions without an answer.*ceval_validation"):
        read("ceval_test", tmp_path)
    with pytest.raises(Problem, match="has no part train; it has dev, test, validation"):
        read("ceval_train", tmp_path)
    for row, expected in (({"question": "Q?", "answer": "A"}, "no question with choices; its columns are question"),
                          ({"question": "Q?", "choices": ["x", "y"], "answer": "C"}, "answer 'C' is none of its 2"),
                          ({"question": "Q?", "choices": ["x", "y"], "answer": 2}, "answer 2 is none of its 2")):
        write_lines(tmp_path / "bad.jsonl", [row])
        with pytest.raises(Problem, match=expected):
            read(str(tmp_path / "bad.jsonl"), tmp_path)
    (tmp_path / "gbk.csv").write_bytes("题目,A,B,C,D,answer".encode("gbk"))
    with pytest.raises(Problem, match="not valid CSV in UTF-8"):
        read(str(tmp_path / "gbk.csv"), tmp_path)
    (tmp_path / "broken.zip").write_bytes(b"PK no archive")
    with pytest.raises(Problem, match="cannot be read"):
        read(str(tmp_path / "broken.zip"), tmp_path)


def test_the_subjects_of_the_usual_sets() -> None:
    """As many as their papers say."""
    assert {name: len(known_subjects(name)) for name in ("mmlu", "cmmlu", "ceval", "mine")} == {
        "mmlu": 57, "cmmlu": 67, "ceval": 52, "mine": 0}
    assert {named.category for named in known_subjects("mmlu").values()} == {
        "STEM", "Social Sciences", "Humanities", "Other"}


# ------------------------------------------------------------------------------------------------------ how it is asked


def subject_of(count: int = 6, shots: int = 5) -> Subject:
    def made(first: int, many: int) -> tuple[Question, ...]:
        return tuple(Question(q, tuple(c), "ABCD".index(a), Place("f:", n))
                     for n, (q, c, a) in enumerate(sums(many, first), start=1))

    return Subject("arithmetic", "arithmetic", "STEM", made(10, count), made(1, shots))


@pytest.fixture(scope="module")
def measured(tiny: Path) -> Any:
    config, _ = read_config(options(model_name_or_path=tiny, mask_history=True))
    return load_measured(config, print, shares=True)


def test_each_example_is_a_turn(measured: Any) -> None:
    """The words are those of the sets' own programs; the answer's token is found by rendering it, and the row ends
    with it."""
    subject, tokenizer = subject_of(), measured.renderer.tokenizer
    write = in_chat(measured.renderer)
    turns = turns_of(subject, subject.questions[0], 1, WORDINGS["en"])
    assert turns[0].asked == ("The following are multiple choice questions (with answers) about arithmetic.\n\n"
                              "What is 1 plus 2? Think, then say.\nA. 4\nB. 3\nC. 5\nD. 6\nAnswer:")
    assert turns[0].letter == "B" and turns[1].letter == "C"
    letters = find_letters(turns, 4, write)
    assert [tokenizer.decode([token]) for token in letters.ids] == ["A", "B", "C", "D"] and letters.lead == 0
    row = ask(subject, letters, write, WORDINGS["en"], 8192).rows[0]
    talk = [message for turn in turns_of(subject, subject.questions[0], 5, WORDINGS["en"]) for message in (
        {"role": "user", "content": turn.asked}, {"role": "assistant", "content": turn.letter})]
    prompt = tokenizer.apply_chat_template(talk[:-1], add_generation_prompt=True, return_dict=False)
    assert row.ids.tolist() == [*prompt, letters.ids[2]]


def test_plain_text_has_a_space_before_the_letter(measured: Any) -> None:
    """A base model reads `Answer: C` as one text, where the token is ` C`; in Chinese `答案：C`, without a space."""
    subject, tokenizer = subject_of(), measured.renderer.tokenizer
    for lang, expected in (("en", [" A", " B", " C", " D"]), ("zh", ["A", "B", "C", "D"])):
        wording = WORDINGS[lang]
        write = in_plain_text(tokenizer, [7], wording)
        letters = find_letters(turns_of(subject, subject.questions[0], 2, wording), 4, write)
        assert [tokenizer.decode([token]) for token in letters.ids] == expected
        row = ask(subject, letters, write, wording, 8192).rows[0]
        whole = tokenizer.decode(row.ids[1:])
        assert row.ids[0] == 7 and whole.endswith(f"{wording.answer}{wording.gap}C")
        assert whole.count(wording.answer) == 6 and whole.count("\n\n") == 6


def test_a_template_that_writes_before_the_answer(measured: Any) -> None:
    """Tokens that stand before every letter (an empty thought, a space of its own) are part of the question, and the
    letter is where renderings differ."""
    subject = subject_of()
    plain_text = in_chat(measured.renderer)

    def write(talks: Any) -> Any:
        return [one._replace(ids=np.insert(one.ids, one.first, [90, 91])) for one in plain_text(talks)]

    letters = find_letters(turns_of(subject, subject.questions[0], 0, WORDINGS["en"]), 4, write)
    assert letters.lead == 2
    row = ask(subject, letters, write, WORDINGS["en"], 8192).rows[0]
    assert row.ids[-3:-1].tolist() == [90, 91] and row.ids[-1] == letters.ids[2]
    with pytest.raises(Problem, match=r"f:1\): its answer C is written in other tokens"):
        ask(subject, letters._replace(lead=1), write, WORDINGS["en"], 8192)
    with pytest.raises(Problem, match="writes two letters with the same token"):
        find_letters(turns_of(subject, subject.questions[0], 0, WORDINGS["en"]), 4, lambda talks: [
            one._replace(ids=one.ids[: one.first + 2]) for one in write(talks)])


def test_examples_are_left_out_where_the_model_cannot_read_so_much(measured: Any) -> None:
    subject, write = subject_of(), in_chat(measured.renderer)
    letters = find_letters(turns_of(subject, subject.questions[0], 0, WORDINGS["en"]), 4, write)
    whole = ask(subject, letters, write, WORDINGS["en"], 8192)
    shorter = ask(subject, letters, write, WORDINGS["en"], max(map(len, whole.rows)) - 10)
    assert set(whole.shots) == {5} and set(shorter.shots) == {4}
    with pytest.raises(Problem, match=r"f:1\): has \d+ tokens, and the model reads 20 at most"):
        ask(subject, letters, write, WORDINGS["en"], 20)


def test_the_same_logits_as_plain_transformers(measured: Any, tiny: Path) -> None:
    """Rows end to end, with the examples computed once, give what one padless forward pass per question gives; whatever
    number of questions is computed at once."""
    subject, write = subject_of(), in_chat(measured.renderer)
    letters = find_letters(turns_of(subject, subject.questions[0], 5, WORDINGS["en"]), 4, write)
    rows = ask(subject, letters, write, WORDINGS["en"], 8192).rows
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = np.concatenate([
            model(input_ids=torch.from_numpy(row.ids[None, :-1].astype(np.int64))).logits[:, -1].log_softmax(dim=-1)
            [:, list(letters.ids)].numpy() for row in rows])
    assert measured.policy.ways[0].shares and measured.policy.lay_out(rows).tokens < sum(map(len, rows)) / 3
    for most in (None, 1, 4):
        np.testing.assert_allclose(letter_chances(measured.policy, rows, letters, most), expected, atol=2e-4)


# --------------------------------------------------------------------------------------------------------------- marks


def test_marks_by_hand() -> None:
    """Three of five right: 60 %, standard error sqrt(0.6 * 0.4 / 4); a letter that a question lacks is not given."""
    assert share(np.array([True, True, True, False, False])) == {
        "accuracy": 0.6, "stderr": pytest.approx(math.sqrt(0.06)), "questions": 5}
    assert share(np.array([True]))["stderr"] is None
    two = Question("Q?", ("x", "y"), 1, Place("f:", 1))
    subject = Subject("s", "s", "", (two, two), ())
    marks = marks_of(subject, np.log(np.array([[0.2, 0.3, 0.4], [0.5, 0.1, 0.2]])))
    assert marks.given.tolist() == [1, 0] and marks.right.tolist() == [1, 1]
    assert marks.sure.tolist() == pytest.approx([0.5, 0.6])


def test_groups_count_questions_and_not_subjects(measured: Any) -> None:
    """A group's share is that of all its questions, as LLaMA-Factory counts; so is the average."""
    large, small = subject_of(6), subject_of(2)
    exam = Exam("mine", "test", (large, small))
    asked = [ask(each, *_letters(measured)) for each in exam.subjects]
    right = [np.array([question.answer for question in each.questions]) for each in exam.subjects]
    marks = [Marks(right[0], right[0], np.ones(6)), Marks((right[1] + 1) % 4, right[1], np.ones(2))]
    scores = scores_of(exam, marks, asked)
    assert scores["accuracy"] == 6 / 8 == scores["categories"]["Average"]["accuracy"]
    assert scores["categories"].keys() == {"Average", "STEM"} and scores["chance"] == 0.25
    assert log_lines(scores) == "        Average: 75.00\n           STEM: 75.00"
    assert sum(letter["given"] for letter in scores["letters"].values()) == 8


def _letters(measured: Any) -> tuple[Any, ...]:
    subject, write = subject_of(), in_chat(measured.renderer)
    return (find_letters(turns_of(subject, subject.questions[0], 0, WORDINGS["en"]), 4, write), write, WORDINGS["en"],
            8192)


def test_doubts_about_a_number() -> None:
    """A model that always says C, one that would not say a letter at all, and one that is no better than guessing."""
    letters = {letter: {"given": 0, "right": 25} for letter in "ABCD"}
    always = {"questions": 100, "letters": {**letters, "C": {"given": 100, "right": 25}}, "letter_probability": 0.2,
              "accuracy": 0.25, "stderr": 0.0435, "chance": 0.25}
    assert [finding.id for finding in doubts(always)] == ["letter-bias", "no-letter", "like-chance"]
    assert "gives C to 100% of the questions, and it is right for 25%" in doubts(always)[0].line()
    fair = {"questions": 100, "letters": {letter: {"given": 25, "right": 25} for letter in "ABCD"}, "accuracy": 0.7,
            "letter_probability": 0.99, "stderr": 0.046, "chance": 0.25}
    assert doubts(fair) == []


# ---------------------------------------------------------------------------------------------------------- end to end


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["eval", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_from_the_command_line(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people, JSON for programs, and LLaMA-Factory's two files; results that are there are never written
    over."""
    mmlu(tmp_path / "evaluation" / "mmlu")
    words = [str(tiny), "task=mmlu_test", f"task_dir={tmp_path / 'evaluation'}", "n_shot=2"]
    status, out, _ = run(capsys, *words, f"save_dir={tmp_path / 'new'}")
    assert status == 0 and "Average" in out and "9 questions of 2 subjects" in out and "anatomy" in out
    given = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    assert given.keys() == {"anatomy", "us_foreign_policy"}
    assert list(given["anatomy"]) == ["0", "1", "2", "3", "4", "5"]
    assert set(given["anatomy"].values()) <= set("ABCD")
    scores = json.loads((tmp_path / "new" / "scores.json").read_text(encoding="utf-8"))
    right = [letter == "ABCD"[number % 4] for each, count in (("anatomy", 6), ("us_foreign_policy", 3))
             for letter, number in zip(given[each].values(), range(10, 10 + count), strict=True)]
    assert scores["accuracy"] == sum(right) / 9 and scores["n_shot"] == 2
    log = (tmp_path / "new" / "results.log").read_text(encoding="utf-8").splitlines()
    assert log[0] == f"        Average: {100 * sum(right) / 9:.2f}"
    status, _, err = run(capsys, *words, f"save_dir={tmp_path / 'new'}")
    assert status == 2 and "is there already" in err
    status, out, _ = run(capsys, *words, "--lang", "zh", "--json")
    told = json.loads(out)
    assert status == 0 and told["lang"] == "zh" and told["letters"]["A"]["text"] == "A"
    status, _, err = run(capsys, str(tiny))
    assert status == 2 and "nothing says what to measure" in err


def test_a_base_model_is_asked_in_plain_text(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """eval_in_chat: false asks a chat model as base models are asked; the letters are then others."""
    mmlu(tmp_path / "mmlu")
    status, out, _ = run(capsys, str(tiny), "task=mmlu_test", f"task_dir={tmp_path}", "eval_in_chat=false", "--json")
    told = json.loads(out)
    assert status == 0 and told["asked"] == "as plain text" and told["letters"]["A"]["text"] == " A"


def surprises(tiny: Path, texts: Sequence[tuple[list[int], list[int]]]) -> tuple[float, int]:
    """The summed loss of answers behind prompts, in ids, and their count, by plain transformers."""
    model, total, count = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval(), 0.0, 0
    with torch.no_grad():
        for prompt, answer in texts:
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(dim=-1)
            places = range(len(prompt), len(prompt) + len(answer))
            total -= sum(float(logits[place - 1, token]) for place, token in zip(places, answer, strict=True))
            count += len(answer)
    return total, count


def test_perplexity_of_answers(tiny: Path, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss is the mean over answers and their end-of-turn tokens; bits per byte counts the words alone."""
    data = write_rows(tmp_path / "rows.json", 5)
    words = ["task=perplexity", f"dataset={data}", f"save_dir={tmp_path / 'p'}"]
    status, out, _ = run(capsys, str(tiny), *words, "--json")
    told = json.loads(out)
    pairs, answers = [], []
    for row in json.loads(data.read_text(encoding="utf-8")):
        talk = [{"role": "user", "content": row["instruction"]}]
        answers.append(row["output"])
        pairs.append((tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False),
                      tokenizer.encode(row["output"] + "<|im_end|>")))
    total, count = surprises(tiny, pairs)
    words = total - sum(surprises(tiny, [(prompt + answer[:-1], answer[-1:])])[0] for prompt, answer in pairs)
    size = sum(len(answer.encode()) for answer in answers)
    assert status == 0 and told["rows"] == 5 and told["tokens"] == count and told["bytes"] == size
    assert told["loss"] == pytest.approx(total / count, rel=1e-4)
    assert told["perplexity"] == pytest.approx(math.exp(total / count), rel=2e-3)
    assert told["bits_per_byte"] == pytest.approx(words / math.log(2) / size, rel=1e-4)
    each = json.loads((tmp_path / "p" / "ppl.json").read_text(encoding="utf-8"))
    assert [math.log(value) for value in each] == pytest.approx(
        [surprises(tiny, [pair])[0] / len(pair[1]) for pair in pairs], rel=1e-4)
    losses, counts = [math.log(value) * len(pair[1]) for value, pair in zip(each, pairs, strict=True)], [
        len(pair[1]) for pair in pairs]
    error = math.sqrt(sum((loss - n * told["loss"]) ** 2 for loss, n in zip(losses, counts, strict=True))) / count
    assert told["stderr"] == pytest.approx(error, rel=1e-2)


def test_perplexity_of_plain_text_needs_no_stage(tiny: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """Texts are told from conversations by their form, and each is read by itself."""
    (tmp_path / "text.txt").write_text("One line of text.\n第二行。\n", encoding="utf-8")
    data = write_rows(tmp_path / "rows.json", 3)
    status, out, _ = run(capsys, str(tiny), "task=perplexity", f"dataset={tmp_path / 'text.txt'}", "--json")
    told = json.loads(out)
    assert status == 0 and told["stage"] == "pt" and told["rows"] == 2
    assert told["bytes"] < len("One line of text.第二行。".encode())  # the first token is predicted from nothing
    status, _, err = run(capsys, str(tiny), "task=perplexity", f"dataset={data},{tmp_path / 'text.txt'}")
    assert status == 1 and "holds plain text, and stage sft learns from answers" in err
    status, _, err = run(capsys, str(tiny), "task=perplexity", "dataset=nothing.json")
    assert status == 1 and err.startswith("error  dataset: there is no file nothing.json")


def test_a_run_is_measured_on_what_it_held_out(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`truetune eval RUN`: its model and template; the rows it held out, or those that are named. Rows that it learned
    from are told apart."""
    data, other = write_rows(tmp_path / "rows.json", 8), write_rows(tmp_path / "other.json", 3)
    run_words = [*options(model_name_or_path=tiny, dataset=data, output_dir=tmp_path / "run", max_steps=1, lora_rank=4,
                          plot_loss="false", use_cpu=True, bf16="false")]
    assert main(["train", *run_words, "--no-check"]) == 0
    capsys.readouterr()
    status, out, err = run(capsys, str(tmp_path / "run"), "task=perplexity", "--json")
    assert status == 0 and json.loads(out)["rows"] == 8 and "these are the rows that the run learned from" in err
    assert json.loads(out)["adapters"] == [str(tmp_path / "run")]
    status, out, err = run(capsys, str(tmp_path / "run"), "task=perplexity", f"dataset={other}", "--json")
    assert status == 0 and json.loads(out)["rows"] == 3 and "learned from" not in err
    status, out, err = run(capsys, str(tmp_path / "run"), "task=perplexity", "val_size=2", "--json")
    assert status == 0 and json.loads(out)["rows"] == 2 and "learned from" not in err


@PACKAGES
def test_answers_to_a_data_set(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files that a run with predict_with_generate leaves, without a run; and the scores of such a file alone."""
    data = write_rows(tmp_path / "rows.json", 3)
    words = [str(tiny), "task=predict", f"dataset={data}", "max_new_tokens=4", "do_sample=false"]
    status, _, err = run(capsys, *words)
    assert status == 2 and "save_dir" in err
    status, out, _ = run(capsys, *words, f"save_dir={tmp_path / 'said'}")
    assert status == 0 and "rouge-1" in out
    lines = (tmp_path / "said" / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == [
        row["output"] for row in json.loads(data.read_text(encoding="utf-8"))]
    assert "predict_rouge-l" in json.loads((tmp_path / "said" / "predict_results.json").read_text(encoding="utf-8"))
    write_lines(tmp_path / "p.jsonl", [{"prompt": "", "predict": "a b c d", "label": "a b x d"}])
    status, out, _ = run(capsys, f"task=bleu_rouge:{tmp_path / 'p.jsonl'}", "--json")
    assert status == 0 and json.loads(out)["rouge-1"] == pytest.approx(75, abs=0.01)
    status, _, err = run(capsys, f"task=bleu_rouge:{data}")
    assert status == 1 and "holds no predictions" in err


def test_lm_eval_that_is_not_there_is_told(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the command that installs it, before a model is loaded."""
    monkeypatch.setattr("truetune.evaluate.harness.find_spec", lambda name: None)
    status, _, err = run(capsys, "no/such/model", "task=lm_eval:hellaswag")
    assert status == 2 and "lm_eval is not installed. pip install lm-eval" in err


@LM_EVAL
def test_a_task_of_lm_eval(tiny: Path, tmp_path: Path) -> None:
    """A task of one's own on local data: the same numbers as the harness's own way through transformers."""
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    write_lines(tmp_path / "sums.jsonl", [{"question": q, "choices": c, "answer": "ABCD".index(a)}
                                          for q, c, a in sums(8)])
    about = ("dataset_path: json\ntest_split: test\n"
             f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'sums.jsonl'}}}}}\n")
    (tmp_path / "choose.yaml").write_text(
        f"task: tt_choose\n{about}output_type: multiple_choice\ndoc_to_text: '{{{{question}}}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: '{{answer}}'\nmetric_list: [{metric: acc}]\n", encoding="utf-8")
    (tmp_path / "read.yaml").write_text(
        f"task: tt_read\n{about}output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: '{{question}}'\nmetric_list: [{metric: bits_per_byte}]\n", encoding="utf-8")
    (tmp_path / "say.yaml").write_text(
        f"task: tt_say\n{about}output_type: generate_until\ndoc_to_text: '{{{{question}}}}'\n"
        "doc_to_target: '{{choices[answer]}}'\n"
        "generation_kwargs: {until: [\"\\n\"], max_gen_toks: 6, do_sample: false}\n"
        "metric_list: [{metric: exact_match}]\n", encoding="utf-8")
    names = ["tt_choose", "tt_read", "tt_say"]
    config, _ = read_config(options(model_name_or_path=tiny, task=f"lm_eval:{','.join(names)}", task_dir=tmp_path,
                                    eval_in_chat="false", infer_dtype="float32"))
    ours = evaluate(config, print).scores["results"]
    theirs: Any = simple_evaluate(HFLM(str(tiny), device="cpu", dtype="float32", batch_size=1), tasks=list(names),
                                  task_manager=TaskManager(include_path=str(tmp_path)), log_samples=False,
                                  bootstrap_iters=2)
    for name, metric in zip(names, ("acc,none", "bits_per_byte,none", "exact_match,none"), strict=True):
        assert ours[name][metric] == pytest.approx(float(theirs["results"][name][metric]), rel=1e-4), name
    config, _ = read_config(options(model_name_or_path=tiny, task="lm_eval:tt_chose", task_dir=tmp_path))
    with pytest.raises(Problem, match=r"knows no task 'tt_chose'.*tt_choose"):
        evaluate(config, print)
