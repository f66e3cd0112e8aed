"""The process that does for the page what needs torch: it answers, tells how it goes, and whatever ends it is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from truetune.findings import Both, Problem
from truetune.web.worker import Overtaken, Worker

ERRANDS = '''
import os, time
from truetune.findings import Both, problem

def double(number, say):
    say(Both("doubling", "正在加倍"))
    print("what a library prints must not come among the answers")
    return 2 * number

def refuse(say):
    raise problem("no-rows", Both("no rows.", "没有数据。"), option="dataset", status=2)

def stumble(say):
    raise ZeroDivisionError("by nought")

def wait(file, say):
    say("waiting")
    while not os.path.exists(file):
        time.sleep(0.01)
    return os.getpid()

def abort(say):
    os.abort()

def unsendable(say):
    return lambda: None
'''


@pytest.fixture(scope="module")
def errands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Things to ask for, in a module that the process can import too."""
    folder = tmp_path_factory.mktemp("errands")
    (folder / "errands.py").write_text(ERRANDS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(folder)
        import errands  # pyright: ignore[reportMissingImports]

        yield errands


@pytest.fixture
def worker(errands: Any) -> Iterator[Worker]:
    """One that imports nothing at first: what is tested here is how it lives and dies."""
    worker = Worker(imports=())
    yield worker
    worker.close()


def waiting(worker: Worker, errands: Any, file: Path, **more: Any) -> tuple[threading.Thread, list[Any]]:
    """An ask in a thread, busy until `file` is there, and what becomes of it."""
    busy, came = threading.Event(), []

    def ask() -> None:
        try:
            came.append(worker.ask(errands.wait, str(file), say=lambda words: busy.set(), **more))
        except (Problem, Overtaken) as error:
            came.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    busy.wait(20)
    return thread, came


def ended(pid: int, seconds: float = 10) -> bool:
    """Whether the process ends within this time."""
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_it_answers_and_tells_how_it_goes(worker: Worker, errands: Any) -> None:
    """Words come in both languages; what a library prints does not disturb."""
    said: list[Any] = []
    assert worker.ask(errands.double, 21, say=said.append) == 42
    assert said == [Both("doubling", "正在加倍")] and said[0].zh == "正在加倍"


def test_starting_does_not_wait_for_imports() -> None:
    """torch takes seconds to import: the page is there in the meantime."""
    worker, begin = Worker(), time.perf_counter()
    worker.start()
    assert time.perf_counter() - begin < 0.5
    assert worker.pid is not None
    worker.close()


def test_a_problem_comes_back_as_it_was(worker: Worker, errands: Any) -> None:
    """With its option, its words in both languages and its exit status; anything else that is raised is put in
    words. Both leave the process alive."""
    with pytest.raises(Problem) as refused:
        worker.ask(errands.refuse)
    found = refused.value.findings[0]
    assert (found.id, found.option, refused.value.status) == ("no-rows", "dataset", 2)
    assert found.line(chinese=True).endswith("没有数据。")
    pid = worker.pid
    for errand, words in ((errands.stumble, "ZeroDivisionError: by nought"), (errands.unsendable, "pickle")):
        with pytest.raises(Problem, match=words):
            worker.ask(errand)
    assert worker.ask(errands.double, 1) == 2 and worker.pid == pid


def test_killed_as_by_a_lack_of_memory(worker: Worker, errands: Any, tmp_path: Path) -> None:
    """Who waits is told why, and the next ask starts another process."""
    thread, came = waiting(worker, errands, tmp_path / "never")
    before = worker.pid
    assert before
    os.kill(before, signal.SIGKILL)
    thread.join(10)
    assert came[0].findings[0].id == "worker-died"
    assert "memory ran out" in str(came[0]) and "内存不足" in came[0].findings[0].line(chinese=True)
    assert worker.ask(errands.double, 4) == 8
    assert worker.pid not in (None, before)


def test_a_crash_names_its_signal(worker: Worker, errands: Any) -> None:
    with pytest.raises(Problem, match="SIGABRT"):
        worker.ask(errands.abort)
    assert worker.ask(errands.double, 4) == 8


def test_died_while_nobody_asked(worker: Worker, errands: Any) -> None:
    """Then nobody needs to know: another one answers."""
    worker.ask(errands.double, 1)
    assert worker.pid
    psutil.Process(worker.pid).kill()
    while worker.pid:
        time.sleep(0.01)
    assert worker.ask(errands.double, 5) == 10


def test_of_the_asks_that_wait_only_the_newest_is_done(worker: Worker, errands: Any, tmp_path: Path) -> None:
    """While somebody types, estimates that nobody will see are left out; other asks are not."""
    first, done = waiting(worker, errands, tmp_path / "go")
    came: dict[int, Any] = {}

    def ask(number: int, latest: str | None) -> None:
        try:
            came[number] = worker.ask(errands.double, number, latest=latest)
        except Overtaken as error:
            came[number] = error

    threads = [threading.Thread(target=ask, args=(number, latest))
               for number, latest in ((1, "estimate"), (2, None), (3, "estimate"), (4, "another page's"))]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    (tmp_path / "go").touch()
    for thread in (first, *threads):
        thread.join(10)
    assert isinstance(came[1], Overtaken)
    assert (came[2], came[3], came[4]) == (4, 6, 8)
    assert done == [worker.pid]


def test_closing_ends_it_in_the_middle_of_work(worker: Worker, errands: Any, tmp_path: Path) -> None:
    """A check that takes too long can be stopped; who waits for it is told, and the next ask is answered."""
    thread, came = waiting(worker, errands, tmp_path / "never")
    pid = worker.pid
    worker.close()
    thread.join(10)
    assert pid and ended(pid, 1)
    assert came[0].findings[0].id == "worker-ended"
    assert worker.ask(errands.double, 4) == 8


def test_an_answer_that_nobody_waits_for_is_not_mistaken_for_the_next(worker: Worker, errands: Any) -> None:
    """A page that is closed while it is told how it goes leaves its answer behind."""
    def leave(words: Any) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        worker.ask(errands.double, 100, say=leave)
    assert worker.ask(errands.double, 3) == 6


def test_it_ends_with_the_page(errands: Any, tmp_path: Path) -> None:
    """Even if that is killed, and in the middle of work."""
    page = subprocess.Popen([sys.executable, "-c", (
        "import errands\nfrom truetune.web.worker import Worker\nworker = Worker(imports=())\nworker.start()\n"
        f"print(worker.pid, flush=True)\nworker.ask(errands.wait, {str(tmp_path / 'never')!r})")], text=True,
        stdout=subprocess.PIPE)
    assert page.stdout
    pid = int(page.stdout.readline())
    time.sleep(0.3)
    assert psutil.pid_exists(pid)
    page.kill()
    page.wait()
    page.stdout.close()
    assert ended(pid)
