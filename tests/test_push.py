"""Uploads, to a server on this machine that speaks the hub's HTTP API and fails where a test plants it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import huggingface_hub.constants
import pytest
from conftest import options, write_rows
from test_train import run

from truetune.export.push import Where, files_of, main, push, push_run, send
from truetune.findings import Problem
from truetune.options.read import read_config

_TOKEN = "hf_a_token_of_the_tests"


@dataclass
class Hub:
    """What the server has got, and what it does wrong: the next answers to requests whose path holds a word. A number
    is an HTTP status, 0 a connection that is dropped half way."""

    address: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    repos: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    planted: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def fails(self, path: str) -> int | None:
        with self.lock:
            waiting = next((statuses for word, statuses in self.planted.items() if word in path and statuses), [])
            return waiting.pop(0) if waiting else None

    def times(self, word: str) -> int:
        return sum(word in each for each in self.asked)


def handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

        def answer(self, said: object, status: int = 200) -> None:
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def take(self) -> bytes | None:
            """The body; None where the request has failed as planted."""
            hub.asked.append(f"{self.command} {self.path}")
            hub.tokens.add(self.headers.get("Authorization"))
            length, status = int(self.headers.get("Content-Length") or 0), hub.fails(self.path)
            if status == 0:
                self.rfile.read(length // 2)
                self.close_connection = True
                self.connection.close()
                return None
            body = self.rfile.read(length)
            if status:
                self.answer({"error": f"planted {status}"}, status)
                return None
            return body

        def do_GET(self) -> None:
            if self.take() is None:
                return
            if "/v1/" in self.path:
                known = "/".join(self.path.split("/")[-2:]) in hub.repos
                self.answer({"Code": 200 if known else 404, "Success": known, "Data": {}}, 200 if known else 404)
            else:
                repo = self.path.split("?")[0].removeprefix("/api/models/").partition("/revision/")[0]
                self.answer({"id": repo, "sha": "0" * 40}, 200 if repo in hub.repos else 404)

        def do_PUT(self) -> None:
            body = self.take()
            if body is not None:
                hub.contents[hashlib.sha256(body).hexdigest()] = body
                self.answer({})

        def do_POST(self) -> None:
            body = self.take()
            if body is None:
                return
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "v1"]:
                self.answer({"Code": 200, "Success": True, "Data": self.modelscope(parts, json.loads(body))})
            elif parts == ["api", "repos", "create"]:
                self.create(json.loads(body))
            elif parts == ["api", "validate-yaml"]:
                self.answer({"errors": [], "warnings": []})
            elif "preupload" in parts:
                self.answer({"files": [
                    {"path": file["path"], "shouldIgnore": False, "oid": None,
                     "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".gguf")) else "regular"}
                    for file in json.loads(body)["files"]]})
            elif parts[-2:] == ["objects", "batch"]:
                self.answer({"transfer": "basic", "objects": [
                    {**each} if each["oid"] in hub.contents else
                    {**each, "actions": {"upload": {"href": f"{hub.address}/put/{each['oid']}"}}}
                    for each in json.loads(body)["objects"]]})
            elif "branch" in parts:
                hub.settings["branch"] = parts[-1]
                self.answer({}, 201)
            elif "commit" in parts:
                self.commit("/".join(parts[2:4]), parts[-1], body)

        def modelscope(self, parts: list[str], asked: dict[str, Any]) -> dict[str, Any]:
            """The same in ModelScope's words."""
            if parts[-1] == "models":
                repo = f"{asked['Path']}/{asked['Name']}"
                hub.settings.update({} if repo in hub.repos else asked)  # one that exists stays what it is
                hub.repos.setdefault(repo, [])
            if parts[-1] == "batch":
                return {"objects": [
                    each if each["oid"] in hub.contents else
                    {**each, "actions": {"upload": {"href": f"{hub.address}/put/{each['oid']}"}}}
                    for each in asked["objects"]]}
            if "commit" in parts:
                hub.repos["/".join(parts[4:6])].append({
                    each["path"]: base64.b64decode(each["content"]) if each["type"] == "normal" else
                    hub.contents[each["sha256"]] for each in asked["actions"]})
            return {}

        def create(self, asked: dict[str, Any]) -> None:
            repo = f"{asked['organization'] or 'me'}/{asked['name']}"
            known = repo in hub.repos
            hub.repos.setdefault(repo, [])
            hub.settings.update(asked)
            said = {"error": "You already created this model repo"} if known else {}
            self.answer({"url": f"{hub.address}/{repo}", **said}, 409 if known else 200)

        def commit(self, repo: str, branch: str, body: bytes) -> None:
            files = {}
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "lfsFile":
                    files[line["value"]["path"]] = hub.contents[line["value"]["oid"]]
            hub.repos[repo].append(files)
            hub.settings["committed to"] = branch
            self.answer({"commitUrl": f"{hub.address}/{repo}/commit/1", "commitOid": "1" * 40})

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and a token for it."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # contents go by HTTP as with git LFS
    monkeypatch.setenv("HF_TOKEN", _TOKEN)
    monkeypatch.delenv("USE_MODELSCOPE_HUB", raising=False)
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export: two files of weights, GGUF, a Modelfile, the proof, a card."""
    folder = tmp_path / "export"
    folder.mkdir()
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "export-Q8_0.gguf"):
        (folder / name).write_bytes(name.encode() * 2000)
    for name in ("config.json", "Modelfile", "parity.json", "README.md", "tokenizer.json"):
        (folder / name).write_text(f"{{}} {name}", encoding="utf-8")
    (folder / ".hidden").write_text("not for others", encoding="utf-8")
    return folder


def sent(folder: Path, said: list[str] | None = None, **where: Any) -> str:
    said = [] if said is None else said
    return send(folder, Where("me/model", "export_hub_model_id", **where), lambda words: said.append(str(words)),
                pauses=(0.01, 0.02, 0.03))


def test_everything_in_one_commit(hub: Hub, folder: Path) -> None:
    """What lies in the folder is on the hub, byte for byte, in a single commit, and only with the token that the
    environment has; a hidden file is not."""
    assert sent(folder, private=True, branch="v1") == f"{hub.address}/me/model"
    [commit] = hub.repos["me/model"]
    assert commit == {name: (folder / name).read_bytes() for name in files_of(folder)}
    assert len(commit) == 8 and ".hidden" not in commit
    assert hub.settings["visibility"] == "private" and hub.settings["committed to"] == "v1"
    assert hub.tokens <= {f"Bearer {_TOKEN}", None} and f"Bearer {_TOKEN}" in hub.tokens
    assert not any(_TOKEN.encode() in content for content in commit.values())


@pytest.mark.parametrize(("word", "statuses"), [
    ("/create", [500, 503]), ("/commit/", [502]), ("/commit/", [0, 500]), ("/objects/batch", [500]), ("/put/", [0]),
], ids=["create", "commit", "dropped", "batch", "content"])
def test_what_may_pass_is_tried_again(hub: Hub, folder: Path, word: str, statuses: list[int]) -> None:
    """A server error or a dropped connection at any step: the upload arrives, in one commit."""
    hub.planted[word] = list(statuses)
    sent(folder)
    assert not hub.planted[word] and [len(commit) for commit in hub.repos["me/model"]] == [8]


def test_what_was_sent_is_not_sent_again(hub: Hub, folder: Path) -> None:
    """The commit fails for good: nobody sees half a model. The next call, as from a new process, sends no content a
    second time."""
    hub.planted["/commit/"] = [500] * 4
    said: list[str] = []
    with pytest.raises(Problem) as caught:
        sent(folder, said)
    assert hub.repos["me/model"] == [] and hub.times("PUT") == 3
    assert sum("broken off (HTTP 500" in line for line in said) == 3
    assert f"python -m truetune.export.push {folder} me/model" in str(caught.value)
    sent(folder)
    assert hub.times("PUT") == 3 and [len(commit) for commit in hub.repos["me/model"]] == [8]


def test_a_second_upload_is_a_second_commit(hub: Hub, folder: Path) -> None:
    """The repository is there already (409): it is used, and only what changed is sent."""
    sent(folder)
    (folder / "export-Q8_0.gguf").write_bytes(b"another" * 999)
    sent(folder)
    assert hub.times("PUT") == 4 and len(hub.repos["me/model"]) == 2
    assert hub.repos["me/model"][1]["export-Q8_0.gguf"] == b"another" * 999


@pytest.mark.parametrize(("status", "hint"), [(401, "hf auth login"), (403, "write rights"), (404, "no such owner")])
def test_a_refusal_is_told_at_once(hub: Hub, folder: Path, status: int, hint: str) -> None:
    """Trying again would not help; one line says what would."""
    hub.planted["/preupload"] = [status] * 9
    with pytest.raises(Problem, match=hint) as caught:
        sent(folder)
    assert hub.times("/preupload") == 1 and len(caught.value.findings) == 1
    assert caught.value.status == 1 and f"HTTP {status}" in str(caught.value)


def test_modelscope(hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                   capsys: pytest.CaptureFixture[str]) -> None:
    """USE_MODELSCOPE_HUB: the same in ModelScope's own protocol, with its token; an error that passes is gone after
    another try, and what was sent is not sent again."""
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.address)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "")
    with pytest.raises(Problem, match="modelscope login"):
        sent(folder)
    assert hub.asked == []
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", _TOKEN)
    hub.planted["/commit/"] = [403] * 30
    with pytest.raises(Problem, match="was not uploaded"):
        sent(folder, private=True)
    hub.planted.clear()
    assert sent(folder) == f"{hub.address}/models/me/model"
    assert hub.repos["me/model"] == [{name: (folder / name).read_bytes() for name in files_of(folder)}]
    assert hub.times("PUT") == 2 and hub.settings["Visibility"] == 1  # so small a GGUF goes with the commit
    assert hub.tokens == {f"Bearer {_TOKEN}"}
    assert capsys.readouterr().out == ""


def test_no_token(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Said before anything is asked of the hub."""
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "none either"))
    with pytest.raises(Problem, match="no token"):
        sent(folder)
    assert hub.asked == []


def test_nobody_answers(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Problem, match="was not uploaded"):
        sent(folder)


def test_a_run_sends_its_model_and_no_data(hub: Hub, tmp_path: Path) -> None:
    """Of a run folder: weights, tokenizer, card and numbers. Rows of data, paths and checkpoints stay."""
    run = tmp_path / "my-run"
    (run / "checkpoint-10").mkdir(parents=True)
    model = ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md", "all_results.json",
             "truetune.json", "generation_config.json", "training_loss.png")
    for name in (*model, "state", "config.yaml", "events.jsonl", "probes.json", "environment.json", "report.html",
                 "check.json", "failed_batch.jsonl", "checkpoint-10/adapter_model.safetensors"):
        (run / name).write_text(name, encoding="utf-8")
    config, _ = read_config(options(output_dir=run))
    assert push_run(run, config, lambda words: None) == f"{hub.address}/me/my-run"
    assert set(hub.repos["me/my-run"][0]) == set(model)
    named, _ = read_config(options(output_dir=run, hub_model_id="us/other", export_hub_model_id="us/third"))
    assert push_run(run, named, lambda words: None).endswith("us/other")
    assert push(run, named, lambda words: None).endswith("us/third")


def test_the_command_that_sends_again(hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a problem tells it: `python -m truetune.export.push FOLDER REPO`. The token is never printed."""
    assert main([str(folder), "me/again"]) == 0
    hub.planted["/preupload"] = [403]
    assert main([str(folder), "me/again"]) == 1 and main([]) == 2
    said = capsys.readouterr()
    assert f"uploaded: {hub.address}/me/again" in said.out and "write rights" in said.err
    assert [len(commit) for commit in hub.repos["me/again"]] == [8] and _TOKEN not in said.out + said.err


def test_a_training_run_is_uploaded_at_its_end(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    """`push_to_hub: true`. A hub that refuses does not undo the run: it is recorded as finished, and one line says how
    to send it again."""
    data = write_rows(tmp_path / "rows.json", 4)
    hub.planted["/preupload"] = [403]
    with pytest.raises(Problem, match=r"push_to_hub: me/mine was not uploaded.*truetune\.export\.push"):
        run(tmp_path / "run", tiny, data, max_steps=1, cutoff_len=128, push_to_hub=True, hub_model_id="me/mine")
    assert json.loads((tmp_path / "run" / "state").read_text(encoding="utf-8"))["status"] == "finished"
    assert hub.repos["me/mine"] == []
    assert main([str(tmp_path / "run"), "me/mine"]) == 0
    [commit] = hub.repos["me/mine"]
    assert {"adapter_model.safetensors", "README.md", "tokenizer.json"} <= set(commit)
    assert not {"config.yaml", "events.jsonl", "environment.json"} & set(commit)
