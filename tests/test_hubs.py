"""Data from elsewhere: hubs over the wire, web and cloud addresses, packages that are missing."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from datasets_by_hand import (
    ALPACA,
    TALKS,
    load,
    refused,
    register,
    said,
    save,
    source,
)
from pyarrow import parquet

from truetune.findings import Problem

# ------------------------------------------------------------------------------------------------- hubs and clouds


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A data set laid out as on a hub, two parts of it in two splits."""
    root = tmp_path / "hub" / "quill" / "sums"
    for part, split, rows in (("easy", "train", ALPACA), ("easy", "test", ALPACA[1:]), ("hard", "train", ALPACA[:1])):
        (root / part).mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), root / part / f"{split}.parquet")
    files = [{"config_name": part, "default": part == "easy",
              "data_files": [{"split": split, "path": f"{part}/{split}.parquet"} for split in splits]}
             for part, splits in (("easy", ("train", "test")), ("hard", ("train",)))]
    (root / "README.md").write_text(f"---\n{json.dumps({'configs': files})}\n---\nSums.\n", encoding="utf-8")
    (root / "plain").mkdir()
    (root / "plain" / "train.jsonl").write_text(json.dumps({"q": "Why?", "a": "So."}), encoding="utf-8")
    save(root / "dataset_info.json", {
        "remote": {"hf_hub_url": str(root), "subset": "hard"},
        "beside": {"file_name": "plain/train.jsonl", "columns": {"prompt": "q", "response": "a"}}})
    return root


@pytest.mark.parametrize("streaming", [False, True], ids=["kept", "streaming"])
def test_hub_data_sets(tmp_path: Path, repository: Path, streaming: bool) -> None:
    """`hf_hub_url` with subset, split and folder. A folder laid out like a hub's is read by the same code."""
    options = {"streaming": streaming, "cache_dir": str(tmp_path / "cache")}

    def one(**entry: Any) -> list[Any]:
        return load("mine", **register(tmp_path, file_name=None, hf_hub_url=str(repository), **entry), **options)

    talks = one()
    assert said(talks) == TALKS
    assert [talk.where for talk in talks] == [f"{repository} row 1", f"{repository} row 2"]
    assert said(one(split="test")) == TALKS[1:] and said(one(subset="hard")) == TALKS[:1]
    asked = one(folder="plain", columns={"prompt": "q", "response": "a"})
    assert said(asked) == [[("user", "Why?"), ("assistant", "So.")]]
    found = source("mine", **register(tmp_path, file_name=None, hf_hub_url=str(repository)), **options)
    whole = list(found.rows())
    assert [list(found.rows(start)) for start in range(4)] == [whole[start:] for start in range(4)]
    with pytest.raises(Problem) as caught:
        one(split="nope")
    assert "nope" in str(caught.value.findings[0].message) and caught.value.findings[0].id == "hub-data"


def test_hub_fingerprint_is_of_the_data(tmp_path: Path, repository: Path) -> None:
    """Another split, or a changed file under the same name, has another fingerprint; a second download has the same."""
    seen = []
    for number, split in enumerate(("train", "train", "test", "train")):
        if number == 3:
            parquet.write_table(pyarrow.Table.from_pylist(ALPACA[:1] * 2), repository / "easy" / "train.parquet")
        found = register(tmp_path, file_name=None, hf_hub_url=str(repository), split=split)
        seen.append(source("mine", **found, cache_dir=str(tmp_path / f"cache{number}")).fingerprint())
    assert seen[0] == seen[1] and len(set(seen)) == 3


def test_which_of_several_places_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaMA-Factory's order: a hub (ModelScope's or Modelers' where asked for, or where there is no other), then a
    script, a cloud, a file."""
    everything = {"hf_hub_url": "h/f", "ms_hub_url": "m/s", "om_hub_url": "o/m", "cloud_file_name": "s3://b/c.json"}

    def which(**entry: Any) -> str:
        data = source("mine", **register(tmp_path, ALPACA, **entry)).data
        return f"{vars(data).get('hub', '')} {vars(data).get('repo') or vars(data).get('url') or 'file'}".strip()

    assert which(**everything) == "hf h/f"
    assert which(ms_hub_url="m/s", om_hub_url="o/m") == "ms m/s" and which(om_hub_url="o/m") == "om o/m"
    assert which(cloud_file_name="s3://b/c.json") == "s3://b/c.json" and which() == "file"
    monkeypatch.setenv("USE_OPENMIND_HUB", "1")
    assert which(**everything) == "om o/m" and which(hf_hub_url="h/f", ms_hub_url="m/s") == "hf h/f"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "true")
    assert which(**everything) == "ms m/s"
    assert source("quill/sums").data == source("quill/sums", dataset_dir="ONLINE").data
    assert vars(source("quill/sums").data)["hub"] == "ms"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "0")
    monkeypatch.setenv("USE_OPENMIND_HUB", "0")
    assert vars(source("alpaca", dataset_dir="ONLINE").data) | {"cache_dir": None} == {
        "repo": "alpaca", "hub": "hf", "subset": None, "split": "train", "folder": None, "streaming": False,
        "cache_dir": None}


@pytest.mark.parametrize(("entry", "package", "module"), [
    ({"ms_hub_url": "quill/sums"}, "modelscope", "modelscope"),
    ({"om_hub_url": "quill/sums"}, "openmind-hub", "openmind_hub"),
    ({"cloud_file_name": "s3://quill/sums.json"}, "s3fs", "botocore"),
    ({"cloud_file_name": "gs://quill/sums.json"}, "gcsfs", "gcsfs"),
], ids=["modelscope", "modelers", "s3", "gs"])
def test_packages_that_are_missing(tmp_path: Path, entry: dict[str, Any], package: str, module: str,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the command that helps, whatever is installed here."""
    monkeypatch.setitem(sys.modules, module, None)  # as Python has it for a module that cannot be imported
    (finding,) = refused("mine", **register(tmp_path, file_name=None, **entry))
    assert (finding.id, finding.fix) == ("package-missing", f"pip install {package}")


@contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server on this machine, for as long as it is needed; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_cloud_addresses(tmp_path: Path) -> None:
    """What fsspec reaches is read by the code that reads s3:// and gs://: by name, by address, as a folder; from any
    row; compressed; a table too."""
    system = fsspec.filesystem("memory")
    system.pipe("/sums/a.jsonl", "\n".join(map(json.dumps, ALPACA)).encode())
    system.pipe("/sums/b.jsonl.gz", gzip.compress(json.dumps(ALPACA[0]).encode()))
    parquet.write_table(pyarrow.Table.from_pylist(ALPACA), tmp_path / "a.parquet")
    system.pipe("/table.parquet", (tmp_path / "a.parquet").read_bytes())
    assert said(load("memory://sums/a.jsonl")) == said(load("memory://table.parquet")) == TALKS
    assert said(load("mine", **register(tmp_path, file_name=None, cloud_file_name="memory://sums/a.jsonl"))) == TALKS
    found = source("memory://sums")
    whole = list(found.rows())
    assert [row.values["output"] for row in whole] == ["3", "您好！", "3"]
    assert str(whole[1].place) == "memory:///sums/a.jsonl:2"
    assert [list(found.rows(start)) for start in range(4)] == [whole[start:] for start in range(4)]
    before = found.fingerprint()
    assert source("memory://sums").fingerprint() == before
    system.pipe("/sums/a.jsonl", json.dumps(ALPACA[0]).encode())
    assert found.fingerprint() != before
    for address, words in (("memory://none.json", "there is no such file"), ("nope://x/y.json", "nope")):
        (finding,) = refused(address)
        assert words in str(finding.message) and finding.where == address


def test_web_address(tmp_path: Path) -> None:
    """The same over a real connection: read in pieces, its line told, a missing file said in one line."""
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ALPACA * 3000)), encoding="utf-8")

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *words: Any):
            super().__init__(*words, directory=str(tmp_path))

        def log_message(self, format: str, *args: object) -> None:
            """Nothing to tell."""

    with served(Quiet) as address:
        talks = load(f"{address}/a.jsonl")
        assert len(talks) == 6000 and talks[-1].where == f"{address}/a.jsonl:6000"
        (finding,) = refused(f"{address}/none.jsonl")
        assert finding.id == "data-unreadable" and finding.where == f"{address}/none.jsonl"


def hub_of(root: Path) -> type[BaseHTTPRequestHandler]:
    """The part of the Hugging Face hub that reading a data set needs, for the repositories below `root`."""
    commit = "0123456789abcdef0123456789abcdef01234567"

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            words = self.path.partition("?")[0].strip("/").split("/")
            if words[:2] == ["api", "datasets"]:
                folder, rest = root / words[2] / words[3], words[4:]
                self.answer_api(folder, f"{words[2]}/{words[3]}", rest)
            elif words[0] == "datasets" and words[3] == "resolve":
                self.answer_file(root / words[1] / words[2] / "/".join(words[5:]))
            else:
                self.send(404, b"")

        def do_POST(self) -> None:
            words = self.path.strip("/").split("/")  # api/datasets/owner/name/paths-info/revision
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            names = json.loads(asked)["paths"] if asked.startswith("{") else [
                part.partition("=")[2].replace("%2F", "/") for part in asked.split("&") if part.startswith("paths=")]
            folder = root / words[2] / words[3]
            self.answer([entry(folder, folder / name) for name in names if (folder / name).exists()])

        def answer_api(self, folder: Path, id: str, rest: list[str]) -> None:
            below = folder.joinpath(*rest[2:])
            if not below.is_dir():
                self.send(404, b"")
            elif rest[:1] == ["tree"]:
                paths = sorted(below.rglob("*") if "recursive=true" in self.path.lower() else below.glob("*"))
                self.answer([entry(folder, path) for path in paths])
            else:
                files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
                self.answer({"id": id, "sha": commit, "siblings": [{"rfilename": str(path)} for path in files],
                             "private": False, "gated": False, "disabled": False, "tags": []})

        def answer(self, value: object) -> None:
            self.send(200, json.dumps(value).encode())

        def answer_file(self, path: Path) -> None:
            if not path.is_file():
                return self.send(404, b"", **{"X-Error-Code": "EntryNotFound"})
            self.send(200, path.read_bytes(), ETag=f'"{hash(path.read_bytes()):x}"', **{"X-Repo-Commit": commit})

        def send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing to tell."""

    def entry(folder: Path, path: Path) -> dict[str, Any]:
        size = path.stat().st_size if path.is_file() else 0
        return {"type": "file" if path.is_file() else "directory", "path": str(path.relative_to(folder)), "size": size,
                "oid": f"{hash(str(path)) & (1 << 128) - 1:040x}"}

    return Hub


READ_ALL = """
import sys
from truetune.data.reading import read_source
from truetune.data.sources import find_sources
from truetune.options import Config
from truetune.findings import Problem
for name, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    config = Config(dataset=(name,), dataset_dir=folder)
    try:
        for source in find_sources(config.dataset, config, "dataset"):
            for row in read_source(source, config, "conversations"):
                print(name, row.where, row.messages[-1].content)
    except Problem as error:
        print(error)
"""


def test_hub_over_the_wire(tmp_path: Path, repository: Path) -> None:
    """A hub id, ONLINE, and REMOTE with both kinds of entries, from a server that speaks the hub's language."""
    root = repository.parent.parent
    save(repository / "dataset_info.json", json.loads((repository / "dataset_info.json").read_text(encoding="utf-8"))
         | {"remote": {"hf_hub_url": "quill/sums", "subset": "hard"}})
    with served(hub_of(root)) as address:
        done = subprocess.run(
            [sys.executable, "-c", READ_ALL, "quill/sums", "data", "quill/sums", "ONLINE", "remote",
             "REMOTE:quill/sums", "beside", "REMOTE:quill/sums", "quill/none", "data", "x", "REMOTE:quill/none"],
            env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": "utf-8"},
            capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, timeout=120)
    told = done.stdout.splitlines()
    assert told[:5] == ["quill/sums quill/sums row 1 3", "quill/sums quill/sums row 2 您好！"] * 2 + [
        "remote quill/sums row 1 3"], done.stderr
    assert told[5].startswith("beside ") and told[5].endswith("train.jsonl:1 So.")
    assert "the data set quill/none cannot be read" in told[6]
    assert "dataset_info.json of the data set quill/none cannot be read" in told[7]
    assert len(told) == 8


def test_a_hub_that_nobody_reaches(tmp_path: Path, repository: Path) -> None:
    """Offline a hub id is refused in one line, at once, with nothing else on the screen. What was downloaded before is
    read all the same."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": "utf-8"}

    def ask(address: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", READ_ALL, *words], env=environment | {"HF_ENDPOINT": address},
                              capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, timeout=120)

    known = ("quill/sums", "data", "beside", "REMOTE:quill/sums")
    with served(hub_of(repository.parent.parent)) as address:
        before = ask(address, *known)
    started = time.monotonic()
    assert ask(address, *known).stdout == before.stdout and before.stdout.count("\n") == 3
    done = ask(address, "quill/none", "data", "x", "REMOTE:quill/none")
    assert time.monotonic() - started < 20  # huggingface_hub alone tries for 25 seconds, four times here
    assert done.stderr == ""
    there = f"{address} cannot be reached (Connection refused). "
    first, second = done.stdout.splitlines()
    assert f"the data set quill/none cannot be read: {there}" in first and f"cannot be read: {there}" in second


