"""The run folder: files on disk are the truth of a run, and here is who may write them.

`claim` decides whether a folder may be written: a new one, one whose run goes on, or one that is to be overwritten. What
a run is (its options, what they came from) is frozen in `config.yaml`; how it fares is in `state`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from truetune.checkpoint import resumable
from truetune.files import remove_folder, write_json, write_text
from truetune.findings import WRONG_OPTIONS, Finding, Problem, problem
from truetune.options import GROUPS, OPTIONS, Config
from truetune.options.read import read_config

CONFIG, STATE, CHECK, EVENTS, LOG = "config.yaml", "state", "check.json", "events.jsonl", "trainer_log.jsonl"
_WRITTEN = (CONFIG, STATE, CHECK, EVENTS, LOG, "*.png", "*_results.json", "environment.json", "README.md",
            "truetune.json", "adapter_*", "*.safetensors", "model.safetensors.index.json", "config.json",
            "generation_config.json", "tokenizer*", "special_tokens_map.json", "chat_template.jinja", "vocab.json",
            "merges.txt", "added_tokens.json", "failed_batch.jsonl")
"""What a run writes besides checkpoints: what overwriting deletes, and nothing else."""
_HEARTBEAT = 5.0  # seconds


@dataclass
class Run:
    """A claimed run folder. config: with what a resumed run takes over from before. resume: the checkpoint to go on
    from."""

    folder: Path
    config: Config
    resume: Path | None = None
    _beaten: float = 0.0

    def set_state(self, status: str, **more: Any) -> None:
        """Write `state`: running, finished, failed or interrupted, with process and time."""
        write_json(self.folder / STATE, {"status": status, "pid": os.getpid(), "host": socket.gethostname(),
                                         "heartbeat": time.time(), **more})

    def beat(self, step: int) -> None:
        """Tell that the run is alive, at most every few seconds."""
        if time.monotonic() - self._beaten > _HEARTBEAT:
            self._beaten = time.monotonic()
            self.set_state("running", step=step)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Whatever way the run ends, `state` says it."""
        self.set_state("running", step=0)
        try:
            yield
        except KeyboardInterrupt:
            self.set_state("interrupted")
            raise
        except BaseException as error:
            self.set_state("failed", message=str(error))
            raise
        self.set_state("finished")

    def freeze(self, config: Config) -> None:
        """Write the resolved options, each with the place its value came from."""
        self.config = config
        write_text(self.folder / CONFIG, describe(config))


def describe(config: Config) -> str:
    """A configuration as YAML that can be run again, each value with its origin as a comment."""
    lines = []
    for group in GROUPS:
        lines.append(f"\n# {group.title[0]} / {group.title[1]}")
        for name in group.model_fields:
            value = getattr(config, name)
            text = yaml.safe_dump({name: list(value) if isinstance(value, tuple) else value}, allow_unicode=True,
                                  default_flow_style=None, width=10_000).strip()
            lines.append(f"{text}  # {config.origin(name)}" if config.given(name) else text)
    return "\n".join(lines).lstrip() + "\n"


def claim(config: Config) -> Run:
    """Take `output_dir` for a run.

    A folder with an unfinished run of the same options goes on where that stopped: the same command twice never loses
    work. Anything else in the way is refused.

    Raises:
        Problem: (status 2) the folder holds another run, is being written, cannot be written, or has no checkpoint to
            resume; or options that matter were changed on resuming.
    """
    assert config.output_dir is not None  # a rule has made sure
    folder = Path(config.output_dir)
    _require_writable(folder)
    _require_idle(folder)
    if config.overwrite_output_dir:
        _clear(folder)
    wish = config.resume_from_checkpoint
    if wish and wish.lower() != "false":
        return _resume(folder, config, None if wish.lower() == "true" else Path(wish))
    if not (folder / CONFIG).is_file():
        _require_no_model(folder)
        return Run(folder, config)
    return _go_on(folder, config)


def _resume(folder: Path, config: Config, checkpoint: Path | None) -> Run:
    known = resumable(folder)
    if checkpoint is None and not known:
        raise problem("no-checkpoint", f"{folder} has no checkpoint to go on from.", option="resume_from_checkpoint",
                      where=config.origin("resume_from_checkpoint"), fix="Leave it out to start anew.",
                      status=WRONG_OPTIONS)
    checkpoint = checkpoint or known[-1]
    if checkpoint not in resumable(checkpoint.parent):
        raise problem("no-checkpoint", f"{checkpoint} is no checkpoint that a run can go on from.",
                      option="resume_from_checkpoint", where=config.origin("resume_from_checkpoint"),
                      fix=f"Known here: {', '.join(path.name for path in known) or 'none'}.", status=WRONG_OPTIONS)
    merged, changed = _take_over(checkpoint.parent, config)
    if changed:
        raise Problem(changed, WRONG_OPTIONS)
    return Run(folder, merged, checkpoint)


def _go_on(folder: Path, config: Config) -> Run:
    """The folder holds a run and nothing says what to do with it."""
    status = _read_state(folder).get("status")
    merged, changed = _take_over(folder, config)
    known = resumable(folder)
    if not changed and status != "finished":
        return Run(folder, merged, known[-1] if known else None)
    what = "a finished run" if status == "finished" else "another run"
    differs = f" ({', '.join(f.option or '' for f in changed[:5])} differ)" if changed else ""
    raise problem("other-run", f"{folder} holds {what}{differs}.", option="output_dir",
                  where=config.origin("output_dir"),
                  fix="Choose another folder, or overwrite_output_dir: true deletes that run.", status=WRONG_OPTIONS)


def _take_over(folder: Path, config: Config) -> tuple[Config, list[Finding]]:
    """The options of the run in `folder`, with those given now that may change; and what was changed but may not be."""
    earlier, _ = read_config([str(folder / CONFIG)])
    findings, free = [], {}
    for name, option in OPTIONS.items():
        now, then = getattr(config, name), getattr(earlier, name)
        if option.text.free_on_resume:
            free[name] = now
        elif config.given(name) and now != then:
            findings.append(Finding("changed-on-resume", "error", f"is {now!r}, but the run was started with {then!r}.",
                                    option=name, where=config.origin(name), fix="Put it back, or start a new run."))
    merged = earlier.with_values("this command", **free)
    merged._origins.update({name: f"{folder / CONFIG}" for name in OPTIONS if name not in free})
    return merged, findings


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise problem("not-writable", f"{folder} cannot be written: {error.strerror}.", option="output_dir",
                      fix="Choose a folder you may write to.", status=WRONG_OPTIONS) from None


def _require_idle(folder: Path) -> None:
    state = _read_state(folder)
    if state.get("status") != "running" or state["pid"] == os.getpid():
        return
    here = state["host"] == socket.gethostname()
    if (here and _alive(state["pid"])) or (not here and time.time() - state["heartbeat"] < 120):
        raise problem("busy", f"process {state['pid']} on {state['host']} is writing {folder}.", option="output_dir",
                      fix="Wait for it, stop it, or choose another folder.", status=WRONG_OPTIONS)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _require_no_model(folder: Path) -> None:
    """A folder without config.yaml was not written by this program: its weights are somebody's."""
    found = [path.name for path in (*folder.glob("*.safetensors"), *folder.glob("checkpoint-*"), *folder.glob("*.bin"))]
    if found:
        raise problem("other-run", f"{folder} holds {found[0]}, which no run of truetune wrote.", option="output_dir",
                      fix="Choose another folder.", status=WRONG_OPTIONS)


def _clear(folder: Path) -> None:
    for pattern in _WRITTEN:
        for path in folder.glob(pattern):
            path.unlink()
    for path in folder.glob("checkpoint-*"):
        remove_folder(path)
    for path in folder.glob(".*.part"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
