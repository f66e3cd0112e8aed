"""The event stream and what is drawn from it: LLaMA-Factory's log, the console, the picture."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pytest

from truetune.checkpoint import Progress
from truetune.events import ConsoleProgress, Event, Events, clock, read_events, remaining
from truetune.plot import plot_loss, smooth
from truetune.report import Terminal


def step(number: int, **more: object) -> Event:
    return {"step": number, "total_steps": 8, "epoch": number / 4, "loss": 2.0 / number, "learning_rate": 1e-4,
            "grad_norm": 0.5, "tokens": 100 * number, "seconds": 10.0 * number, "tokens_per_second": 10.0, **more}


def write(folder: Path, numbers: range, resume_step: int | None = None) -> None:
    stream = Events(folder, [], resume_step)
    for number in numbers:
        stream.emit("step", **step(number))
    stream.close()


def steps(path: Path, key: str) -> list[int]:
    return [json.loads(line)[key] for line in path.read_text(encoding="utf-8").splitlines()]


def test_trainer_log_is_llama_factorys(tmp_path: Path) -> None:
    """Its keys in its order, with its types; what has no value is left out. After step 2 of 8 in 20 s, 6 steps are
    left: 20 / 2 x 6 = 60 s."""
    stream = Events(tmp_path, [], None)
    stream.emit("step", **step(2))
    stream.emit("eval", step=2, total_steps=8, epoch=0.5, eval_loss=1.5, eval_perplexity=4.48, seconds=20.0)
    stream.emit("note", step=2, text="says nothing in the log")
    stream.close()
    trained, evaluated = (tmp_path / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    assert trained == ('{"current_steps": 2, "total_steps": 8, "loss": 1.0, "lr": 0.0001, "epoch": 0.5, '
                       '"percentage": 25.0, "elapsed_time": "0:00:20", "remaining_time": "0:01:00", '
                       '"throughput": 10.0, "total_tokens": 200}')
    assert evaluated == ('{"current_steps": 2, "total_steps": 8, "eval_loss": 1.5, "epoch": 0.5, "percentage": 25.0, '
                         '"elapsed_time": "0:00:20", "remaining_time": "0:01:00"}')


def test_times_are_written_as_llama_factory_does() -> None:
    """`str(timedelta(seconds=int(…)))`: seconds are cut, and from the second day on days are counted."""
    assert [clock(seconds) for seconds in (0, 65.9, 3600, 100_000)] == ["0:00:00", "0:01:05", "1:00:00",
                                                                      "1 day, 3:46:40"]
    assert remaining({"step": 0, "total_steps": 8, "seconds": 0.0}) == 0.0


def test_going_on_tells_every_step_once(tmp_path: Path) -> None:
    """Killed after step 5, with the last line cut in half and the newest checkpoint at step 3: steps 4 and 5 happen
    again and are told once, in both files."""
    write(tmp_path, range(1, 6))
    with (tmp_path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "step", "st')
    assert [event["step"] for event in read_events(tmp_path / "events.jsonl")] == [1, 2, 3, 4, 5]
    write(tmp_path, range(4, 9), resume_step=3)
    assert steps(tmp_path / "events.jsonl", "step") == [*range(1, 9)]
    assert steps(tmp_path / "trainer_log.jsonl", "current_steps") == [*range(1, 9)]


def test_a_new_run_forgets_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    write(tmp_path, range(1, 3))
    assert steps(tmp_path / "events.jsonl", "step") == [1, 2]
    assert steps(tmp_path / "trainer_log.jsonl", "current_steps") == [1, 2]


def test_every_line_is_json_for_everybody(tmp_path: Path) -> None:
    """JSON has no infinity; and a line separator inside a text (U+2028) does not end the line."""
    stream = Events(tmp_path, [], None)
    stream.emit("step", **step(1, grad_norm=math.inf))
    stream.emit("note", step=1, text="a\u2028b 你好")
    stream.close()
    first, second = read_events(tmp_path / "events.jsonl")
    assert first["grad_norm"] is None
    assert second["text"] == "a\u2028b 你好"


def test_smoothing_by_hand() -> None:
    """Up to 60 values, each counts half of its neighbour: 1 at its own step, 1/2 one step away, 1/4 two steps away.

    Values 4, 2, 6: (4 + 2/2 + 6/4) / (1 + 1/2 + 1/4) = 6.5 / 1.75; (4/2 + 2 + 6/2) / (1/2 + 1 + 1/2) = 7 / 2;
    (4/4 + 2/2 + 6) / (1/4 + 1/2 + 1) = 8 / 1.75.
    """
    assert smooth([4.0, 2.0, 6.0]) == pytest.approx([6.5 / 1.75, 3.5, 8 / 1.75])
    assert smooth([]) == []
    line = [3000.0 - value for value in range(3000)]
    assert smooth(line)[1000:2000] == pytest.approx(line[1000:2000]), "it does not lag behind a falling loss"


def test_the_picture(tmp_path: Path) -> None:
    """Raw, smoothed and evaluated loss are three lines of a PNG; fewer than two values make none."""
    told = [{"event": "step", **step(number)} for number in range(1, 9)]
    told.append({"event": "eval", "step": 8, "eval_loss": 0.4})
    plot_loss(told[:1], tmp_path / "none.png")
    assert not [*tmp_path.iterdir()]
    plot_loss(told, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def draw(width: int, total: int, **terminal: bool) -> str:
    """What the console shows for a run of two steps, one of them logged, with an evaluation in between."""
    out = io.StringIO()
    console = Terminal(file=out, width=width, soft_wrap=True, highlight=False, markup=False, **terminal)
    progress = Progress()
    with ConsoleProgress(console, total) as bar:
        bar({"event": "start", "step": 0})
        for number in (1, 2):
            progress.took_step(loss_sum=30.0, count=20.0, tokens=12_345, seconds=2.0, metrics={})
            bar.show(progress, 5e-5)
            if number == 1:
                bar({"event": "step", **step(1, total_steps=total)})
                bar.busy("evaluating")
                bar({"event": "eval", "step": 1, "eval_loss": 1.25, "eval_perplexity": 3.49})
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_on_one_line(width: int) -> None:
    """Step, loss, learning rate, tokens a second (12,345 in 2 s each: 6,172) and the time left. 2 of 20,000 steps took
    4 s, so 19,998 x 2 s = 39,996 s = 11:06:36 are left."""
    shown = draw(width, 20_000, force_terminal=True)
    last = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown.split("\r")[-1]).splitlines()[0]
    assert "step 2/20000" in last and last.rstrip().endswith("loss 1.5000  lr 5.00e-05  6,172 tokens/s  11:06:36 left")
    assert len(last) <= width
    assert "eval loss 1.2500" in shown
    assert shown.index("\x1b[?25h") < shown.index("eval loss"), "a killed process would never bring it back"


def test_elsewhere_a_line_for_each_logged_step() -> None:
    """Without a terminal nothing is drawn twice: one line a logged step or evaluation, nothing else."""
    assert draw(80, 8, force_terminal=False).splitlines() == [
        "step 1/8  epoch 0.25  loss 2.0000  lr 1.00e-04  grad 0.50  10 tokens/s  0:01:10 left",
        "step 1  eval loss 1.2500  perplexity 3.49"]
