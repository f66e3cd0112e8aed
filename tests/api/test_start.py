"""The API's key, port and environment, and its life as a process."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

from truetune.cli import main
from truetune.findings import Problem
from truetune.options import Config
from truetune.serve.api.key import settle_key
from truetune.serve.api.plan import Served
from truetune.serve.api.server import serve

from .server import KEY, Api, ask, ignore


def test_the_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown the first time, kept for this user alone, refused where others can read it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    told: list[str] = []
    key = settle_key(Config(), lambda words: told.append(str(words)))
    file = tmp_path / "truetune" / "api_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and key in told[0] and len(key) > 30
    assert settle_key(Config(), lambda words: told.append(str(words))) == key and key not in told[1]
    assert settle_key(Config(api_key="mine"), ignore) == "mine" and len(told) == 2
    file.chmod(0o644)
    with pytest.raises(Problem, match="others can read"):
        settle_key(Config(), ignore)


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Problem, match=f"port {port} cannot be had: Address already in use") as error:
            serve(Config(model_name_or_path="nowhere", api_port=port, api_key="k"), ignore)
    assert error.value.status == 1 and len(error.value.findings) == 1


def test_the_environment_that_users_know(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what no option says, and is named where it is wrong."""
    monkeypatch.setenv("API_HOST", "0.0.0.0")
    monkeypatch.setenv("MAX_CONCURRENT", "many")
    assert main(["api", "m", "--lang", "en"]) == 2
    said = capsys.readouterr().err
    assert "api_host (environment: API_HOST): 0.0.0.0 can be reached by other machines, and no key is set." in said
    assert "infer_batch (environment: MAX_CONCURRENT)" in said
    assert main(["api", "m", "api_host=127.0.0.1", "api_port=-1"]) == 2
    assert "can be reached" not in capsys.readouterr().err


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130)])
def test_from_start_to_stop(taught: Path, tmp_path: Path, stop: signal.Signals, status: int) -> None:
    """As a process: its address on one line of stdout, then Ctrl-C: the answer that is being written is finished, new
    requests are told to come back later."""
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "API_KEY": KEY, "API_MODEL_NAME": "mine",
                   "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "truetune", "api", str(taught), "api_port=0", "--lang", "en"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stdout and process.stderr
    line = process.stdout.readline()
    assert line.startswith("mine: http://127.0.0.1:"), process.stderr.read()
    port = int(line.rpartition(":")[2].partition("/")[0])
    api = Api(port, Served({"mine": None}))
    stream = ask(api, "Say hello.", model="mine", stream=True, max_tokens=400, extra_body={"ignore_eos": True})
    first = next(iter(stream))
    process.send_signal(stop)
    until(lambda: api.send("GET", "/health")[0] == 503)
    chunks = [first, *stream]
    assert chunks[-1].choices[0].finish_reason == "length"
    assert process.wait(20) == status, process.stderr.read()
    assert process.stdout.read() == "stopped\n"
    process.stdout.close()
    process.stderr.close()
