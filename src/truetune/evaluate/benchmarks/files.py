"""Find and read the questions of a set: in a folder, a file or a zip archive, in the forms that people have.

- MMLU's own: `{dev,val,test}/<subject>_<split>.csv` without a header: question, A, B, C, D, answer;
- CMMLU's: `{dev,test}/<subject>.csv` with the header `,Question,A,B,C,D,Answer`;
- C-Eval's: `{dev,val,test}/<subject>_<split>.csv` with `id,question,A,B,C,D,answer,explanation`;
- parquet, json and jsonl with question, choices and answer, as on hubs: `<subject>/<split>-00000-of-00001.parquet`, or
  one file with a column `subject`;
- one file of one's own in any of these forms.

The path tells subject and split. A `mapping.json` beside the questions (`{"law": {"name": …, "category": …}}`, as
LLaMA-Factory had it, or C-Eval's `subject_mapping.json`) names the subjects and groups them.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import IO, Any

from truetune.data.messages import Place
from truetune.data.readers import read_file, suffix_of
from truetune.evaluate.benchmarks.subjects import Named, known_subjects
from truetune.findings import WRONG_OPTIONS, Both, Problem, count_of, problem

SPLITS: Mapping[str, str] = {"dev": "dev", "train": "train", "val": "validation", "valid": "validation",
                             "validation": "validation", "test": "test"}
"""Words for the parts of a set, and by which of them a part is called here."""
_SHOWN = ("dev", "train", "validation")
"""Where solved examples come from: the first part that there is, never the one that is asked."""
_ASKED = ("test", "validation", "")
"""Which part is asked where nobody says."""
_KINDS = (".csv", ".parquet", ".json", ".jsonl", ".arrow")
_TASKS = ("perplexity", "predict", "mmlu_test", "cmmlu_test", "ceval_validation")
_LARGEST = 1 << 30
"""Bytes of a file in an archive that is read: sets of questions have some megabytes."""


@dataclass(frozen=True)
class Question:
    """choices: two at least, called A, B, C, … in order. answer: the number of the right one, from 0."""

    text: str
    choices: tuple[str, ...]
    answer: int
    place: Place

    @property
    def letter(self) -> str:
        return ascii_uppercase[self.answer]


@dataclass(frozen=True)
class Subject:
    """Questions that are asked after the same solved examples. name: what it is called in them. category: the group it
    is counted in; empty: none."""

    key: str
    name: str
    category: str
    questions: tuple[Question, ...]
    examples: tuple[Question, ...]


@dataclass(frozen=True)
class Exam:
    """A set of questions. split: the part that is asked; empty: it has no parts."""

    name: str
    split: str
    subjects: tuple[Subject, ...]


def load_exam(task: str, task_dir: Path, shots: int, most: int | None = None) -> Exam:
    """The questions that `task` names: `<set>_<split>` below `task_dir`, or a folder, archive or file.

    Args:
        shots: so many solved examples for each subject, the first of its dev part, as the sets' own programs take
            them; fewer where there are fewer.
        most: so many questions of each subject, the first ones.

    Raises:
        Problem: nothing is there (with the places that were looked at), or something cannot be read.
    """
    name, split, places = _places(task, task_dir)
    found = next((place for place in places if place.exists()), None)
    files = list(_files(found)) if found else []
    if not found or not files:
        raise _nothing(task, places if not found else [found])
    parts = _parts(files, name)
    asked = split or next((part for part in _ASKED if part in parts), next(iter(parts)))
    if asked not in parts:
        there = ", ".join(filter(None, parts))
        raise problem("no-split", Both(f"{found} has no part {asked}; it has {there or 'no parts'}.",
                                       f"{found} 里没有 {asked} 部分；其中有：{there or '不分部分'}。"),
                      option="task", status=WRONG_OPTIONS)
    part = next((part for part in _SHOWN if part in parts and part != asked), None) if shots else None
    questions, shown = _read_all(parts[asked], name), _read_all(parts[part], name) if part else {}
    if not questions:
        raise _nothing(task, [found])
    named = {**known_subjects(name), **_mapping(found)}
    return Exam(name, asked, tuple(
        Subject(key, *named.get(key, Named(key.replace("_", " "))), tuple(some[:most]),
                tuple(shown.get(key, [])[:shots]))
        for key, some in sorted(questions.items())))


# ----------------------------------------------------------------------------------------------------- where they lie


@dataclass(frozen=True)
class _File:
    """A file of questions. inside: its path below the set's folder or in an archive, which tells what it holds.
    member: of the archive `path`."""

    path: Path
    inside: PurePosixPath
    member: str | None = None

    @property
    def name(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    def open(self) -> IO[bytes]:
        if self.member is None:
            return self.path.open("rb")
        with zipfile.ZipFile(self.path) as archive:
            return io.BytesIO(archive.read(self.member))


def _places(task: str, task_dir: Path) -> tuple[str, str, list[Path]]:
    """The name of the set, the part that is asked (empty: not said), and where the set may lie, the likeliest first."""
    own = Path(task).expanduser()
    if own.exists():
        return own.stem, "", [own]
    name, _, word = task.rpartition("_")
    if word not in SPLITS:
        name, word = task, ""
    ends = ("", ".zip", *_KINDS)
    places = [task_dir / f"{name}{end}" for end in ends]
    places += [task_dir / f"{task}{end}" for end in ends[1:]] if word else []
    return Path(name).name, SPLITS.get(word, ""), [*places, Path(name).expanduser()]


def _files(place: Path) -> Iterator[_File]:
    """The files of questions in a folder, an archive, or `place` itself."""
    if place.is_file():
        yield from _members(place) if place.suffix == ".zip" else [_File(place, PurePosixPath(place.name))]
        return
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        inside = PurePosixPath(path.relative_to(place).as_posix())
        if path.suffix == ".zip":
            yield from _members(path)
        elif _holds_questions(inside):
            yield _File(path, inside)


def _members(archive: Path) -> Iterator[_File]:
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                inside = PurePosixPath(member.filename)
                if _holds_questions(inside) and member.file_size <= _LARGEST:
                    yield _File(archive, inside, member.filename)
    except (zipfile.BadZipFile, OSError) as error:
        raise problem("data-unreadable", Both(f"cannot be read: {error}.", f"无法读取：{error}。"),
                      where=str(archive)) from None


def _holds_questions(inside: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in inside.parts)
    about = inside.name in _MAPPINGS or inside.name.startswith("dataset_info")
    return suffix_of(inside.name) in _KINDS and not hidden and not about


def _parts(files: Sequence[_File], name: str) -> dict[str, list[tuple[_File, str]]]:
    """By part, its files with the subject of each; an empty one stands in the rows. What a hub's folder has twice (each
    subject, and all of them) is taken once."""
    parts: dict[str, list[tuple[_File, str]]] = {}
    for file in files:
        split, subject = _told(file.inside, name, alone=len(files) == 1)
        parts.setdefault(split, []).append((file, subject))
    return {split: [(file, subject) for file, subject in some if subject] or some for split, some in parts.items()}


def _told(inside: PurePosixPath, name: str, alone: bool) -> tuple[str, str]:
    """What a path says: the part (empty: nothing) and the subject (empty: nothing)."""
    stem = re.sub(r"-\d+-of-\d+$", "", inside.name.partition(".")[0])
    folders = list(inside.parts[:-1])
    split = next((SPLITS[folder] for folder in reversed(folders) if folder in SPLITS), "")
    begin, _, end = stem.rpartition("_")
    if stem in SPLITS:
        split, subject = SPLITS[stem], next((folder for folder in reversed(folders) if folder not in SPLITS), "")
    elif end in SPLITS:
        split, subject = SPLITS[end], begin
    else:
        subject = "" if alone else stem
    return split, "" if subject in ("all", "data", name) else subject


_MAPPINGS = ("mapping.json", "subject_mapping.json")


def _mapping(found: Path) -> dict[str, Named]:
    """What a mapping beside the questions says of subjects."""
    folder = found if found.is_dir() else found.parent
    file = next((folder / name for name in _MAPPINGS if (folder / name).is_file()), None)
    if file is None:
        return {}
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {key: Named(value["name"], value.get("category", "")) if isinstance(value, dict) else
                Named(value[1], "Social Sciences" if value[2] == "Social Science" else value[2])
                for key, value in told.items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise problem("bad-mapping", Both(f"is no mapping of subjects: {error!r}.", f"不是学科对照表：{error!r}。"),
                      where=str(file),
                      fix=Both('It holds {"law": {"name": "law", "category": "Humanities"}, …}.',
                               '内容应为 {"law": {"name": "law", "category": "Humanities"}, …}。')) from None


def _nothing(task: str, looked: Sequence[Path]) -> Problem:
    """Nothing to ask: where it was looked for, and what it would look like."""
    endings: dict[str, list[str]] = {}  # "evaluation/mmlu (folder, .zip, .csv)": one for all endings
    for place in looked:
        endings.setdefault(str(place.with_suffix("")), []).append(place.suffix or "folder")
    listed = ", ".join(stem if some == ["folder"] else f"{stem} ({', '.join(some)})" for stem, some in endings.items())
    example = f"{looked[0]}/test/<subject>_test.csv" if looked[0].suffix not in (*_KINDS, ".zip") else str(looked[0])
    meant = difflib.get_close_matches(task, _TASKS, n=1)
    asks = Both(f"Did you mean {meant[0]}? ", f"是不是 {meant[0]}？") if meant and meant[0] != task else Both("", "")
    return problem(
        "no-questions", Both(f"no questions are found for {task!r}. Looked at: {listed}.",
                             f"找不到 {task!r} 的题目。查找过：{listed}。"),
        option="task", status=WRONG_OPTIONS, fix=Both(
            f"{asks}Put them there, for instance {example} (question,A,B,C,D,answer) and dev/ beside test/ for the "
            "examples; parquet, json, jsonl (question, choices, answer) and zip are read too. Or give the path of a "
            "file or folder as task, or task_dir.",
            f"{asks.zh}请把题目放到那里，例如 {example}（question,A,B,C,D,answer），示例放在与 test/ 并列的 dev/；"
            "也可以是 parquet、json、jsonl（question、choices、answer）或 zip。或者把文件或文件夹的路径写给 task，"
            "也可设置 task_dir。"))


# ------------------------------------------------------------------------------------------------------ what they hold

_COLUMNS = {"text": ("question", "query", "input"), "choices": ("choices", "options"),
            "answer": ("answer", "answerkey", "label", "gold"), "subject": ("subject", "category")}
"""What columns are called, in small letters."""


def _read_all(files: Sequence[tuple[_File, str]], name: str) -> dict[str, list[Question]]:
    """The questions of these files by subject."""
    questions: dict[str, list[Question]] = {}
    unanswered: list[Place] = []
    for file, subject in files:
        for values, place in _rows(file):
            question = _question(values, place)
            if question is None:
                unanswered.append(place)
            else:
                named = subject or str(values.get(_column(values, "subject") or "", "") or name)
                questions.setdefault(named.strip(), []).append(question)
    if unanswered:
        raise problem("no-answers", Both(
            f"{count_of(len(unanswered), 'question')} without an answer, so nothing says which choice is right.",
            f"{len(unanswered)} 道题没有答案，无法判断哪个选项正确。"), where=str(unanswered[0]), fix=Both(
                "Ask a part that has them (C-Eval keeps those of test to itself: ceval_validation).",
                "请换一个有答案的部分（C-Eval 不公开 test 的答案，请用 ceval_validation）。"))
    return questions


def _rows(file: _File) -> Iterator[tuple[Mapping[str, Any], Place]]:
    try:
        opened = file.open()
    except (OSError, zipfile.BadZipFile) as error:
        raise problem("data-unreadable", Both(f"cannot be read: {error}.", f"无法读取：{error}。"),
                      where=file.name) from None
    with opened:
        if suffix_of(file.name) == ".csv" and not file.name.endswith(".gz"):
            yield from _table(opened, file.name)
        else:
            yield from ((_lower(row.values), row.place) for row in read_file(opened, file.name))


def _table(file: IO[bytes], name: str) -> Iterator[tuple[Mapping[str, Any], Place]]:
    """The rows of a csv file, whose first line may be a header; without one it is question, choices, answer."""
    try:
        lines = csv.reader(io.StringIO(file.read().decode("utf-8-sig"), newline=""))
        header: list[str] | None = None
        for number, cells in enumerate(lines):
            small = [cell.strip().lower() for cell in cells]
            if not number and set(_COLUMNS["text"]) & set(small):
                header = small
            elif any(small):
                names = header or ["question", *ascii_uppercase[: len(cells) - 2].lower(), "answer"]
                yield dict(zip(names, cells, strict=False)), Place(f"{name}:", lines.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise problem("bad-csv", Both(f"not valid CSV in UTF-8: {error}.", f"不是 UTF-8 编码的合法 CSV：{error}。"),
                      where=name) from None


def _lower(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.strip().lower(): value for name, value in values.items()}


def _column(values: Mapping[str, Any], what: str) -> str | None:
    return next((name for name in _COLUMNS[what] if name in values), None)


def _question(values: Mapping[str, Any], place: Place) -> Question | None:
    """A row as a question; None: nobody says which choice is right.

    Raises:
        Problem: it is none.
    """
    asked, given = _column(values, "text"), _column(values, "answer")
    choices, labels = _choices(values)
    if asked is None or len(choices) < 2 or len(choices) > len(ascii_uppercase):
        there = ", ".join(name for name in values if name)
        raise problem("no-question", Both(f"is no question with choices; its columns are {there}.",
                                          f"不是带选项的题目；它的列为 {there}。"), where=str(place),
                      fix=Both("A row has question, A, B, C, D, answer; or question, choices (a list), answer.",
                               "每行应有 question、A、B、C、D、answer；或 question、choices（列表）、answer。"))
    answer = values.get(given or "")
    if answer in (None, "", -1):
        return None
    return Question(str(values[asked]).strip(), choices, _right(answer, choices, labels, place), place)


def _choices(values: Mapping[str, Any]) -> tuple[tuple[str, ...], Sequence[str]]:
    """The choices, and what the row calls them."""
    name = _column(values, "choices")
    if name is None:
        texts = [str(values.get(letter.lower()) or "").strip() for letter in ascii_uppercase]
        count = max((number for number, text in enumerate(texts, start=1) if text), default=0)
        return tuple(texts[:count]), list(ascii_uppercase[:count])
    told = values[name]
    texts, labels = (told.get("text", []), told.get("label", [])) if isinstance(told, dict) else (told, [])
    texts = tuple(str(text).strip() for text in texts) if not isinstance(texts, str) else ()
    return texts, [str(label) for label in labels] or list(ascii_uppercase[: len(texts)])


def _right(answer: Any, choices: Sequence[str], labels: Sequence[str], place: Place) -> int:
    """The number of the right choice: said by its letter, its text, or its number from 0."""
    word = str(answer).strip()
    number = int(answer) if isinstance(answer, int | float) or word.isdecimal() else -1
    if word.upper() in labels:
        return list(labels).index(word.upper())
    if isinstance(answer, str) and choices.count(word) == 1:
        return list(choices).index(word)
    if 0 <= number < len(choices):
        return number
    raise problem("no-answer", Both(f"the answer {answer!r:.40} is none of its {len(choices)} choices.",
                                    f"答案 {answer!r:.40} 不在 {len(choices)} 个选项之中。"), where=str(place),
                  fix=Both(f"Give a letter ({', '.join(labels)}), the text of the choice, or its number from 0.",
                           f"请填写字母（{'、'.join(labels)}）、选项原文，或从 0 开始的编号。"))
