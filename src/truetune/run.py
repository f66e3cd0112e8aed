"""The run folder: files on disk are the truth of a run, and here is who may write them.

`claim` decides whether a folder may be written: a new one, one whose run goes on, or one that is to be overwritten.
What a run is (its options, what they came from) is frozen in `config.yaml`; how it fares is in `state`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from truetune.checkpoint import checkpoints, resumable
from truetune.files import disk_refusal, remove_folder, tidy, write_json, write_text
from truetune.findings import WRONG_OPTIONS, Both, Finding, Problem, Words, problem, spoken
from truetune.options import GROUPS, OPTIONS, Config, Option
from truetune.options.read import FROZEN, as_yaml, read_config

CONFIG, STATE, CHECK, EVENTS, LOG = "config.yaml", "state", "check.json", "events.jsonl", "trainer_log.jsonl"
_WRITTEN = (EVENTS, LOG, "training_*.png", "all_results.json", "train_results.json", "eval_results.json",
            "predict_results.json", "generated_predictions.jsonl", "environment.json", "README.md", "report.md",
            "report.html", "probes.json", "failed_batch.jsonl", "truetune.json", "reference", "adapter_config.json",
            "adapter_model.safetensors", "value_head.safetensors", "model.safetensors",
            "model-?????-of-?????.safetensors", "model.safetensors.index.json", "config.json",
            "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
            "special_tokens_map.json", "chat_template.jinja", "vocab.json", "merges.txt", "added_tokens.json")
"""What a run writes besides checkpoints: what overwriting deletes, and nothing else (config.yaml, state and check.json
are replaced)."""
_SILENCE = 60.0  # seconds without a heartbeat that mean death, where the process itself cannot be asked


@dataclass
class Run:
    """A claimed run folder.

    config: with what a resumed run takes over from before. resume: the checkpoint to go on from. overwrite: the run in
    it is deleted once this one is sure that it can start. step: optimizer steps so far. heartbeat: seconds between two
    signs of life.
    """

    folder: Path
    config: Config
    resume: Path | None = None
    overwrite: bool = False
    step: int = 0
    heartbeat: float = 5.0
    _frozen: bool = False
    _state: dict[str, Any] = field(default_factory=dict)

    def beat(self, step: int) -> None:
        """Tell where the run stands; `state` says it with the next heartbeat."""
        self.step = step

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """While entered, `state` says every few seconds that the run lives; whatever way it ends, `state` says that.

        A run that ends before it is frozen, such as an attempt to go on with a data file missing, leaves the state of
        an earlier one as it was.

        Raises:
            Problem: the disk takes no more.
        """
        before = _read_json(self.folder / STATE)
        self._state = {"status": "running", "pid": os.getpid(), "pid_started": psutil.Process().create_time(),
                       "host": socket.gethostname(), "started": time.time()}
        self._write_state()
        ended = Event()
        heart = Thread(target=self._beat_until, args=(ended,), daemon=True)
        heart.start()
        end: dict[str, Any] = {"status": "failed", "message": "stopped from within"}
        try:
            yield
            end = {"status": "finished"}
        except KeyboardInterrupt:
            end = {"status": "interrupted"}
            raise
        except Exception as error:
            refusal = disk_refusal(error, self.folder)
            told = self._unwritable(refusal) if refusal else error
            message = told.findings[0].line() if isinstance(told, Problem) else f"{type(told).__name__}: {told}"
            end = {"status": "failed", "message": message}
            if told is not error:
                raise told from error
            raise
        finally:
            ended.set()
            heart.join()
            with suppress(OSError):  # a full disk: `state` says running, and nobody is
                if before and not self._frozen:
                    write_json(self.folder / STATE, before)
                else:
                    self._write_state(**end)

    def freeze(self, config: Config) -> None:
        """The run can start: delete the one that it overwrites, and write the options, each with its origin."""
        if self.overwrite:
            _clear(self.folder)
        self.config, self._frozen = config, True
        write_text(self.folder / CONFIG, describe(config))

    def _beat_until(self, ended: Event) -> None:
        while not ended.wait(self.heartbeat):
            with suppress(OSError):  # a full disk ends the run where it writes what matters
                self._write_state()

    def _write_state(self, **more: Any) -> None:
        self._state |= {"step": self.step, "heartbeat": time.time(), **more}
        write_json(self.folder / STATE, self._state)

    def _unwritable(self, refusal: Words) -> Problem:
        known = checkpoints(self.folder)
        kept = Both(f"{known[-1].name} is whole.", f"{known[-1].name} 是完整的。") if known else \
            Both("There is no checkpoint yet.", "还没有检查点。")
        return problem("disk", Both(f"cannot be written: {refusal}. {kept}",
                                    f"无法写入：{spoken(refusal, True)}。{kept.zh}"), option=str(self.folder),
                       fix=Both("Make room and run the same command again; it goes on from there.",
                                "请腾出空间，再运行同样的命令，会从那里继续。") if known else
                       Both("Make room and run the same command again.", "请腾出空间，再运行同样的命令。"))


def read_state(folder: Path) -> dict[str, Any]:
    """How the run in `folder` fares, {} where there is none.

    status: running, finished, failed (`message` says why), interrupted (by the user), or killed: it says that it runs,
    and nobody does. pid, pid_started, host: the process. started, heartbeat: seconds since 1970. step: the last known.
    """
    state = _read_json(folder / STATE)
    if state.get("status") == "running" and not _alive(state):
        state["status"] = "killed"
    return state


def describe(config: Config) -> str:
    """A configuration as YAML that can be run again, each value with its origin as a comment. What has no effect stands
    there only if somebody gave it, and secrets never do."""
    lines = []
    for group in GROUPS:
        mine = [_described(OPTIONS[name], config) for name in group.model_fields
                if config.given(name) or OPTIONS[name].works]
        lines += [f"\n# {group.title[0]} / {group.title[1]}", *mine] if mine else []
    return "\n".join([FROZEN, *lines]) + "\n"


def arguments_of(model: str) -> list[str]:
    """The options that a name stands for, as words of a command line: a run folder or one of its checkpoints (the file
    of its options first), an adapter on the base that it names, or any model's folder or hub id."""
    path = Path(model).expanduser()
    for folder in (path, path.parent):
        if (folder / CONFIG).is_file():
            weights = "adapter" if (path / "adapter_config.json").is_file() else "model"
            return [str(folder / CONFIG), f"--{weights}_name_or_path={model}"]
    base = _read_json(path / "adapter_config.json").get("base_model_name_or_path")
    if base:
        return [f"--model_name_or_path={base}", f"--adapter_name_or_path={model}"]
    return [f"--model_name_or_path={model}"]


def _described(option: Option, config: Config) -> str:
    if option.text.secret:
        return f"# {option.name}: not written down"
    value = getattr(config, option.name)
    text = as_yaml(option.name, list(value) if isinstance(value, tuple) else value)
    return f"{text}  # {config.origin(option.name)}" if config.given(option.name) else text


def _read_described(path: Path) -> Config:
    """The inverse of `describe`.

    Raises:
        Problem: somebody has changed the file, and it cannot be read.
    """
    config, findings = read_config([str(path)])
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise Problem(errors, WRONG_OPTIONS)
    origins = re.findall(r"^(\w+): .*  # (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    config._origins = {name: origin for name, origin in origins if name in OPTIONS}
    return config


def claim(config: Config) -> Run:
    """Take `output_dir` for a run.

    A folder with an unfinished run of the same options goes on where that stopped: the same command twice never loses
    work. Anything else in the way is refused, and stays as it is.

    Raises:
        Problem: (status 2) the folder holds another run, is being written, cannot be written, or has no checkpoint to
            resume; or options that matter were changed on resuming.
    """
    assert config.output_dir is not None  # a rule has made sure
    folder = Path(config.output_dir).expanduser()
    _require_writable(folder, config)
    if (folder / CONFIG).is_file():
        tidy(folder)
    return _settle(folder, config)


def refusals(config: Config) -> list[Finding]:
    """Why `claim` would refuse, found out without touching a file. Empty where it would not, or nothing is known."""
    if not config.output_dir:
        return []
    try:
        _settle(Path(config.output_dir).expanduser(), config)
    except Problem as problem:
        return problem.findings
    return []


def _settle(folder: Path, config: Config) -> Run:
    """What `claim` decides, without writing anything."""
    _require_idle(folder, config)
    wish = config.resume_from_checkpoint
    wish = None if wish is None or wish.lower() == "false" else wish
    holds_run = (folder / CONFIG).is_file()
    if not holds_run:
        _require_vacant(folder, config)
    elif config.overwrite_output_dir:
        _require_no_source(folder, config)
    if wish:
        return _resume(folder, config, None if wish.lower() == "true" else Path(wish).expanduser())
    if not holds_run or config.overwrite_output_dir:
        return Run(folder, config, overwrite=holds_run)
    return _go_on(folder, config)


def _resume(folder: Path, config: Config, checkpoint: Path | None) -> Run:
    """Go on from `checkpoint`, or from the newest one in `folder`."""
    where = config.origin("resume_from_checkpoint")
    known = resumable(folder)
    if checkpoint is None and not known:
        raise problem("no-checkpoint", Both(f"{folder} has no checkpoint to go on from.",
                                            f"{folder} 里没有可以继续训练的检查点。"),
                      option="resume_from_checkpoint", where=where, status=WRONG_OPTIONS,
                      fix=Both("Leave it out to start anew.", "去掉它即可重新开始。"))
    checkpoint = checkpoint or known[-1]
    origin = checkpoint.parent
    if checkpoint not in resumable(origin) or not (origin / CONFIG).is_file():
        names = [path.name for path in known]
        raise problem("no-checkpoint", Both(f"{checkpoint} is no checkpoint that a run can go on from.",
                                            f"{checkpoint} 不是可以继续训练的检查点。"),
                      option="resume_from_checkpoint", where=where, status=WRONG_OPTIONS,
                      fix=Both(f"In {folder}: {', '.join(names) or 'none'}.",
                               f"{folder} 里有：{'、'.join(names)}。" if names else f"{folder} 里一个也没有。"))
    if origin.resolve() != folder.resolve() and (folder / CONFIG).is_file():
        raise problem("other-run", Both(f"{folder} holds a run already, and the checkpoint is of another.",
                                        f"{folder} 里已有一个运行，而这个检查点属于另一个运行。"),
                      option="output_dir", where=config.origin("output_dir"), status=WRONG_OPTIONS,
                      fix=Both("Choose another folder, or resume_from_checkpoint: true goes on with the run in it.",
                               "请换一个文件夹；或设置 resume_from_checkpoint: true，继续里面的运行。"))
    merged, changed = _take_over(origin, config)
    if changed:
        raise Problem(changed, WRONG_OPTIONS)
    return Run(folder, merged, checkpoint)


def _go_on(folder: Path, config: Config) -> Run:
    """The folder holds a run and nothing says what to do with it."""
    finished = read_state(folder).get("status") == "finished"
    merged, changed = _take_over(folder, config)
    if not changed and not finished:
        known = resumable(folder)
        return Run(folder, merged, known[-1] if known else None)
    names = [finding.option or "" for finding in changed]
    differs = Both(f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''} differ)",
                   f"（{'、'.join(names[:5])} {'等' if len(names) > 5 else ''}不同）") if changed else Both("", "")
    other = Finding("other-run", "error",
                    Both(f"{folder} holds {'a finished' if finished else 'another'} run{differs}.",
                         f"{folder} 里有{'一个已完成的' if finished else '另一个'}运行{differs.zh}。"),
                    option="output_dir", where=config.origin("output_dir"),
                    fix=Both("Choose another folder, or overwrite_output_dir: true deletes that run.",
                             "请换一个文件夹；或设置 overwrite_output_dir: true，删除那个运行。"))
    raise Problem([other, *changed], WRONG_OPTIONS)


def _take_over(folder: Path, config: Config) -> tuple[Config, list[Finding]]:
    """The options of the run in `folder`, with those given now that may change; and what was changed but may not be.

    What a rule has chosen then (a precision, measured) is taken over, unless it is given now.
    """
    earlier = _read_described(folder / CONFIG)
    findings, free = [], {}
    for name, option in OPTIONS.items():
        now, then = getattr(config, name), getattr(earlier, name)
        chosen = (earlier.origin(name) or "").startswith("rule: ") and not config.given(name)
        if option.text.free_on_resume:
            free[name] = now
        elif now != then and not chosen:
            default = Both("", "") if config.given(name) else Both(" (the default)", "（默认值）")
            findings.append(Finding("changed-on-resume", "error",
                                    Both(f"is {now!r}{default}, but the run was started with {then!r}.",
                                         f"现在是 {now!r}{default.zh}，而这个运行开始时是 {then!r}。"), option=name,
                                    where=config.origin(name),
                                    fix=Both("Put it back, or start a new run.", "请改回原值，或开始新的运行。")))
    merged = earlier.with_values("", **free)
    now_given = {name: origin for name in free if (origin := config.origin(name))}
    merged._origins = {name: origin for name, origin in earlier._origins.items() if name not in free} | now_given
    return merged, findings


def _require_writable(folder: Path, config: Config) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise problem("not-writable", Both(f"{folder} cannot be written: {error.strerror}.",
                                           f"{folder} 无法写入：{error.strerror}。"), option="output_dir",
                      where=config.origin("output_dir"), status=WRONG_OPTIONS,
                      fix=Both("Choose a folder you may write to.", "请换一个有写权限的文件夹。")) from None


def _require_idle(folder: Path, config: Config) -> None:
    state = read_state(folder)
    if state.get("status") == "running":
        raise problem("busy", Both(f"process {state['pid']} on {state['host']} is writing {folder}.",
                                   f"{state['host']} 上的进程 {state['pid']} 正在写 {folder}。"), option="output_dir",
                      where=config.origin("output_dir"), status=WRONG_OPTIONS,
                      fix=Both("Wait for it, stop it, or choose another folder.",
                               "请等它结束、停止它，或换一个文件夹。"))


def _require_vacant(folder: Path, config: Config) -> None:
    """A folder without config.yaml was not written by this program: what is in it is somebody's."""
    patterns = (*_WRITTEN, "checkpoint-*", "*.safetensors", "*.bin", "*.gguf")
    found = sorted({path.name for pattern in patterns for path in folder.glob(pattern)})
    if found:
        raise problem("other-run", Both(f"{folder} holds {found[0]}, which no run of truetune wrote.",
                                        f"{folder} 里有 {found[0]}，不是 truetune 的运行所写。"), option="output_dir",
                      where=config.origin("output_dir"), status=WRONG_OPTIONS,
                      fix=Both("Choose another folder.", "请换一个文件夹。"))


def _require_no_source(folder: Path, config: Config) -> None:
    """What is to be overwritten must not be what is trained on."""
    for option, names in (("model_name_or_path", [config.model_name_or_path or ""]),
                          ("adapter_name_or_path", config.adapter_name_or_path)):
        for path in (Path(name).expanduser().resolve() for name in names):
            if folder.resolve() in (path, *path.parents):
                raise problem("overwrites-source", Both(f"{path} lies in output_dir, which would be deleted.",
                                                        f"{path} 在 output_dir 里，会被一起删除。"),
                              option=option, where=config.origin(option), status=WRONG_OPTIONS,
                              fix=Both("Choose another output_dir.", "请换一个 output_dir。"))


def _alive(state: dict[str, Any]) -> bool:
    """Whether the process that wrote `state` still runs. Numbers of processes are used again, so its start counts too
    (to a few seconds: it is reckoned from a clock that may be set)."""
    if not state.keys() >= {"host", "heartbeat", "pid", "pid_started"}:  # somebody else's file of that name
        return False
    if state["host"] != socket.gethostname():
        return time.time() - state["heartbeat"] < _SILENCE
    try:
        return abs(psutil.Process(state["pid"]).create_time() - state["pid_started"]) < 5
    except psutil.NoSuchProcess:
        return False


def remove_run(folder: Path) -> list[str]:
    """Delete all that a run has written into its folder, and the folder if nothing else is in it. Nobody may be
    writing there.

    Returns:
        What is left there, since no run wrote it: the names, sorted.
    """
    tidy(folder)
    _clear(folder)
    for name in (CHECK, STATE, CONFIG):  # killed in between, this is still a run that can be deleted
        (folder / name).unlink(missing_ok=True)
    left = sorted(path.name for path in folder.iterdir())
    if not left:
        folder.rmdir()
    return left


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:  # somebody else's file of that name
        return {}
    return read if isinstance(read, dict) else {}


def _clear(folder: Path) -> None:
    """Delete what a run has written. config.yaml is replaced, not deleted: killed in between, this is still a run."""
    for path in (path for pattern in _WRITTEN for path in folder.glob(pattern)):
        remove_folder(path) if path.is_dir() else path.unlink()
    for path in checkpoints(folder):
        remove_folder(path)
