"""What answers are worth: the rewards that are shipped, functions of the user, and how those may fail."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from truetune.data.messages import Conversation, Place
from truetune.data.reading import read_source
from truetune.data.renderer import Rendered, Renderer, Run
from truetune.data.sources import find_sources
from truetune.findings import Problem
from truetune.options.read import read_config
from truetune.rollout.questions import Questions, columns_of
from truetune.rollout.rewards import Answered, Unscored, score
from truetune.rollout.rewards.functions import find_function
from truetune.rollout.rewards.shipped import SHIPPED, last_number


def configured(**values: object) -> Any:
    return read_config([f"--{name}={value}" for name, value in values.items()])[0]


def answered(texts: list[str], references: list[str] | None = None, tokens: list[int] | None = None,
             **columns: list[Any]) -> Answered:
    """Answers that somebody wrote to rows 1, 2, … of a file."""
    lengths = tokens or [len(text.split()) for text in texts]
    rows = [Rendered(np.arange(1 + length), (Run(1, 1 + length, 1.0),), place=Place("a.json:", number))
            for number, length in enumerate(lengths, start=1)]
    return Answered([[{"role": "user", "content": f"Q{number}"}] for number in range(len(texts))],
                    [[{"role": "assistant", "content": text}] for text in texts], texts,
                    [row.ids[1:].tolist() for row in rows], rows, references or [""] * len(texts), columns)


def shipped(name: str, given: Answered, **values: object) -> list[float | None]:
    return list(SHIPPED[name](configured(**values))(given))


# ----------------------------------------------------------------------------------------------------- the shipped ones


@pytest.mark.parametrize(("text", "number"), [
    ("7", 7), ("It is 7.", 7), ("3 + 4 = 7.0", 7), ("1,234 apples", 1234), ("1, 2 and 3", 3), ("-0.5 degrees", -0.5),
    ("$12.50.", 12.5), ("none", None), ("", None), ("#### 72", 72)])
def test_the_last_number_of_a_text(text, number):
    assert last_number(text) == number


def test_exact_number_wants_the_number_of_the_data():
    """By value and not by letters; it does not apply where the data have no number."""
    given = answered(["So 1,000.", "So 999", "no idea", "42"], ["#### 1000", "1000.0", "5", "forty-two"])
    assert shipped("exact_number", given) == [1, 0, 0, None]


def test_format_wants_the_whole_answer_to_match():
    given = answered(["Answer: 7", "Answer: 7\n", "Well. Answer: 7", "Answer: seven", "Answer:\n7"])
    assert shipped("format", given, reward_pattern=r"Answer:\s\d+") == [1, 1, 0, 0, 1]


def test_think_format_wants_one_thought_and_then_an_answer():
    given = answered(["<think>Hm.\nYes.</think>\nSeven.", "Seven.", "<think>Hm.</think>", "<think></think>7",
                      "Hm <think>a</think> 7", "<think>a</think> <think>b</think> 7"])
    assert shipped("think_format", given) == [1, 0, 0, 1, 0, 0]


def test_the_length_penalty_by_hand():
    """DAPO, equation 13: with room for 10 tokens 8 are free, 9 cost a half, 10 cost 1."""
    given = answered(["a", "b", "c", "d"], tokens=[1, 8, 9, 10])
    assert shipped("length_penalty", given, max_completion_length=10) == [0, 0, -0.5, -1]


def test_ends_with_wants_the_last_word():
    given = answered(["Sure, please", "Please!", "please ...", "displease", "please do", ""])
    assert shipped("ends_with", given, reward_word="please") == [1, 1, 1, 0, 0, 0]
    assert shipped("ends_with", answered(["好的，谢谢。", "谢谢你"]), reward_word="谢谢") == [1, 0]


# ------------------------------------------------------------------------------------------------ functions of the user


def function(tmp_path: Path, source: str, name: str = "reward") -> Any:
    path = tmp_path / "mine.py"
    path.write_text(source, encoding="utf-8")
    return find_function(f"{path}:{name}", configured())


def test_a_function_is_called_as_trl_calls_it(tmp_path):
    """All that is known comes by name: prompts, completions, their tokens, every column, and the data's answer."""
    reward = function(tmp_path, "def reward(prompts, completions, completion_ids, solution, answers, **kwargs):\n"
                                "    assert set(kwargs) == {'level'}\n"
                                "    said = [m[0]['content'] for m in completions]\n"
                                "    return [float(s == t) + len(i) * 10 + len(p) * 100 + len(a) * 1000 for s, t, i, p,"
                                " a in zip(said, solution, completion_ids, prompts, answers)]\n")
    given = answered(["7", "8"], ["x", ""], tokens=[1, 2], solution=["7", "7"], level=[1, None])
    assert reward.name == "reward"
    assert reward(given) == [1111, 120]


def test_a_function_that_names_what_it_wants_gets_only_that(tmp_path):
    reward = function(tmp_path, "def reward(completions, *, scale=2):\n    return [scale] * len(completions)\n")
    assert reward(answered(["a", "b"], other=[1, 2])) == [2, 2]


def test_a_function_of_a_module_and_an_asynchronous_one(tmp_path):
    assert find_function("math.fsum", configured()).name == "fsum"
    reward = function(tmp_path, "async def reward(completions, **kwargs):\n    return [1.0] * len(completions)\n")
    assert score([reward], answered(["a"])).tolist() == [[1.0]]


def test_none_is_no_score(tmp_path):
    reward = function(tmp_path, "def reward(**kwargs):\n    return [None, 0.5]\n")
    said = score([reward], answered(["a", "b"]))
    assert math.isnan(said[0, 0]) and said[1, 0] == 0.5


@pytest.mark.parametrize(("source", "where", "told"), [
    ("def reward(completions, **_):\n    return [1]\n", "a.json:1", "reward reward gave 1 scores for 2 answers."),
    ("def reward(completions, **_):\n    return [1, float('nan')]\n", "a.json:2", "gave nan, which is no finite"),
    ("def reward(completions, **_):\n    return [1, 'good']\n", "a.json:2", "gave 'good', which is no finite number"),
    ("def reward(completions, **_):\n    return [[1, 2], 1]\n", "a.json:1", "gave [1, 2], which is no finite number"),
    ("def reward(completions, **_):\n    return 1.0\n", "a.json:1", "'float' object is not iterable"),
    ("def reward(completions, **_):\n    return [1 / 0, 1]\n", "a.json:1", "failed at mine.py:2 with ZeroDivision"),
    ("def reward(completions, solution):\n    return [1, 1]\n", "a.json:1", "takes solution, which the data do not"),
    ("def reward(completions, **_):\n    raise SystemExit(3)\n", "a.json:1", "failed at mine.py:2 with SystemExit: 3"),
])
def test_a_function_that_fails_is_named_with_the_row_and_the_reason(tmp_path, source, where, told):
    with pytest.raises(Unscored) as caught:
        score([function(tmp_path, source)], answered(["a", "b"]))
    (finding,) = caught.value.findings
    assert told in finding.line() and finding.line().startswith(f"error  reward_funcs ({where}): reward reward ")
    assert "奖励 reward" in finding.line(chinese=True)


@pytest.mark.parametrize(("name", "told"), [
    ("exact_nubmer", "'exact_nubmer' is no reward. Shipped are exact_number,"),
    ("absent.py:reward", "absent.py cannot be imported (FileNotFoundError"),
    ("no.such.module", "no.such cannot be imported (ModuleNotFoundError"),
    ("math.fsumm", "math has no function 'fsumm'"),
])
def test_a_reward_that_is_not_there(name, told):
    with pytest.raises(Problem) as caught:
        find_function(name, configured())
    assert told in caught.value.findings[0].line() and caught.value.status == 2


# ------------------------------------------------------------------------------------------- what the data say beside


def questions(tmp_path: Path, tokenizer: Any, text: str, **values: object) -> tuple[Questions, list[Rendered]]:
    """The questions of a file, and its rows as tokens."""
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    config, renderer = configured(stage="grpo", dataset=path, **values), Renderer(tokenizer)
    (source,) = find_sources(config.dataset, config, "dataset")
    talks = [row for row in read_source(source, config, "conversations") if isinstance(row, Conversation)]
    rows = [row for rows in renderer.render(talks) if isinstance(rows, tuple) for row in rows]
    return Questions(config, [talk.place for talk in talks], renderer), rows


def test_messages_columns_and_answer_of_a_row(tmp_path, tokenizer):
    found, (_, row) = questions(tmp_path, tokenizer, '[{"instruction": "A?", "output": "1", "level": 3},\n'
                                '{"instruction": "B?", "output": "2"}]', default_system="Be brief.")
    question = found.of(row)
    assert question.columns == {"instruction": "B?", "output": "2"} and question.answer == "2"
    assert [message["content"] for message in question.messages] == ["Be brief.", "B?"]
    first = found.of(_)
    assert columns_of([first, question])["level"] == [3, None]


def test_rows_of_a_file_of_one_line_are_told_apart(tmp_path, tokenizer):
    """All of them stand at line 1; even two with the same question are not mixed up."""
    found, rows = questions(tmp_path, tokenizer, '[{"instruction": "A?", "output": "1", "level": 1}, '
                            '{"instruction": "B?", "output": "2", "level": 2}, '
                            '{"instruction": "A?", "output": "3", "level": 3}]')
    assert [found.of(row).columns["level"] for row in rows] == [1, 2, 3]


def test_which_turn_of_a_conversation_is_answered(tmp_path, tokenizer):
    """A conversation can stand in several rows, one for each of its answers: the prompt tells which it is."""
    found, (whole,) = questions(tmp_path, tokenizer, '[{"messages": [{"role": "user", "content": "A?"}, '
                                '{"role": "assistant", "content": "1"}, {"role": "user", "content": "B?"}, '
                                '{"role": "assistant", "content": "2"}]}]')
    assert [message["content"] for message in found.of(whole).messages] == ["A?", "1", "B?"]
    last = whole.runs[0].last
    first = replace(whole, ids=whole.ids[:last], runs=whole.runs[:1])
    assert [message["content"] for message in found.of(first).messages] == ["A?"] and found.of(first).answer == "1"


def test_a_row_that_is_gone_is_named(tmp_path, tokenizer):
    questions(tmp_path, tokenizer, '[{"instruction": "A?", "output": "1"}]')
    path = tmp_path / "rows.json"
    with pytest.raises(Problem, match=r"rows.json:9\): this row is no longer there"):
        Questions(configured(stage="grpo", dataset=path), [Place(f"{path}:", 9)], Renderer(tokenizer))
