"""Send a finished folder to a model hub: Hugging Face, or ModelScope where USE_MODELSCOPE_HUB is set.

Everything goes in one commit, so that nobody ever meets half of it. A file's content is sent once: what the hub already
has it does not want again, so an upload that broke off goes on where it was. Errors that may pass (5xx, 429, a dropped
connection) are tried again after growing pauses. Tokens come from the environment or the login of this machine and are
never written.

    python -m truetune.export.push FOLDER OWNER/NAME

sends a folder again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from truetune.findings import FAILED, INTERRUPTED, OK, WRONG_OPTIONS, Both, Problem, Say, problem
from truetune.options import Config

PAUSES = (2.0, 5.0, 15.0, 60.0)
"""Seconds before another try."""
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_OF_RUN = ("*.safetensors", "*.safetensors.index.json", "*.gguf", "*.jinja", "*.model", "Modelfile*", "README.md",
           "config.json", "generation_config.json", "adapter_config.json", "truetune.json", "parity.json",
           "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
           "added_tokens.json", "*_results.json", "trainer_log.jsonl", "training_*.png")
"""Of a run folder: the model and its numbers, and nothing that holds rows of data or paths of this machine."""


@dataclass(frozen=True)
class Where:
    """A repository. option: which one names it. private: None leaves it to the owner's default. branch: None is the
    main one."""

    repo: str
    option: str
    private: bool | None = None
    branch: str | None = None


class Broken(Exception):
    """A try that failed. reason: in words of the hub. status: of HTTP, if it answered. passing: another try may do."""

    def __init__(self, reason: str, status: int | None, passing: bool):
        super().__init__(reason)
        self.reason, self.status, self.passing = reason, status, passing


def push(folder: Path, config: Config, say: Say) -> str:
    """Send an export to `export_hub_model_id`; returns its address.

    Raises:
        Problem: the hub refuses it or cannot be reached, with the command that sends it again. The folder stays.
    """
    assert config.export_hub_model_id is not None  # who calls this has looked
    return send(folder, Where(config.export_hub_model_id, "export_hub_model_id", config.hub_private_repo,
                              config.hub_revision), say)


def push_run(folder: Path, config: Config, say: Say) -> str:
    """Send what a run has trained to `hub_model_id`, or to a repository of the folder's name; returns its address.

    Raises:
        Problem: as `push`.
    """
    named = "/".join(filter(None, (config.push_to_hub_organization, config.push_to_hub_model_id)))
    repo = config.hub_model_id or named or folder.resolve().name
    return send(folder, Where(repo, "push_to_hub", config.hub_private_repo, config.hub_revision), say)


def send(folder: Path, where: Where, say: Say, pauses: Sequence[float] = PAUSES) -> str:
    """Send the files of `folder`; returns their address. See `push`."""
    files = files_of(folder)
    if not files:
        raise problem("nothing-to-push", Both(f"{folder} holds nothing to upload.", f"{folder} 里没有可上传的文件。"),
                      option=where.option)
    hub = _modelscope if uses_modelscope() else _hugging_face
    upload = hub(folder, files, where)
    size = sum((folder / file).stat().st_size for file in files) / 1e9
    say(Both(f"uploading {len(files)} files, {size:.2f} GB, to {where.repo}",
             f"正在上传 {len(files)} 个文件（{size:.2f} GB）到 {where.repo}"))
    for pause in (*pauses, None):
        try:
            address = upload()
        except Broken as error:
            if pause is None or not error.passing:
                raise _refused(folder, where, error) from None
            say(Both(f"upload broken off ({error.reason}); once more in {pause:g} s",
                     f"上传中断（{error.reason}），{pause:g} 秒后重试"))
            time.sleep(pause)
        else:
            say(Both(f"uploaded: {address}", f"已上传：{address}"))
            return address
    raise AssertionError  # the last try has returned or raised


def files_of(folder: Path) -> list[str]:
    """What is sent, by paths inside `folder`: all that is not hidden; of a run folder only what is the model."""
    every = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    shown = [name for name in every if not any(part.startswith(".") for part in name.split("/"))]
    if not (folder / "state").is_file():
        return shown
    return [name for name in shown if any(fnmatch(name, pattern) for pattern in _OF_RUN) and "/" not in name]


def uses_modelscope() -> bool:
    """Whether the environment says ModelScope, as users of LLaMA-Factory know it."""
    return os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true", "y")


def _refused(folder: Path, where: Where, error: Broken) -> Problem:
    """The end of the last try, with what helps."""
    hints = {
        401: Both("The token is missing or wrong: run `hf auth login` with a token that may write.",
                  "没有 token 或 token 无效：请用有写权限的 token 运行 `hf auth login`。"),
        403: Both("The token may not write there: take one with write rights, or another owner.",
                  "这个 token 在那里没有写权限：请换有写权限的 token，或换一个所有者。"),
        404: Both("There is no such owner, or the branch does not exist.", "没有这个所有者，或分支不存在。"),
    }
    again = f"python -m truetune.export.push {folder} {where.repo}"
    hint = hints.get(error.status or 0, Both("", ""))
    if uses_modelscope() and error.status == 401:
        hint = Both("Run `modelscope login`, or set MODELSCOPE_API_TOKEN.",
                    "请运行 `modelscope login`，或设置 MODELSCOPE_API_TOKEN。")
    return problem("not-pushed", Both(f"{where.repo} was not uploaded: {error.reason}.",
                                      f"{where.repo} 没有上传成功：{error.reason}。"), option=where.option,
                   fix=Both(f"{hint.en} Everything is in {folder}; once more: {again}".strip(),
                            f"{hint.zh}文件都在 {folder}；重新上传：{again}"))


# ---------------------------------------------------------------------------------------------------------- the hubs


def _hugging_face(folder: Path, files: Sequence[str], where: Where) -> Callable[[], str]:
    """A try. The operations are kept from one to the next: they know what was sent."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars, get_token

    if not get_token():
        raise _no_token(where, Both("Set HF_TOKEN, or run `hf auth login`.",
                                    "请设置 HF_TOKEN，或运行 `hf auth login`。"))
    disable_progress_bars()
    api, made = HfApi(), [CommitOperationAdd(name, folder / name) for name in files]

    def upload() -> str:
        with _told():
            repo = api.create_repo(where.repo, private=where.private, exist_ok=True).repo_id
            if where.branch:
                api.create_branch(repo, branch=where.branch, exist_ok=True)
            api.create_commit(repo, made, commit_message=f"{Path(repo).name}, by truetune", revision=where.branch)
        return f"{api.endpoint}/{repo}"

    return upload


class _told:
    """Turns what huggingface_hub raises into `Broken`."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        while isinstance(error, RuntimeError) and error.__cause__:  # wrapped around a failure of one file
            error = error.__cause__
        match error:
            case HfHubHTTPError():
                status = error.response.status_code
                said = (error.server_message or str(error)).strip().splitlines()[0]
                raise Broken(f"HTTP {status}, {said[:200]}", status, status in _PASSING) from None
            case HFValidationError() | ValueError():
                raise Broken(str(error).strip().splitlines()[0][:200], None, False) from None
            case OSError() | RuntimeError():  # of the disk or the network; what sends the contents (hf_xet) raises both
                raise Broken(str(error)[:200] or type(error).__name__, None, True) from None
            case Exception() if type(error).__module__.startswith("httpx"):  # 1 and 2: the hub's client has both
                raise Broken(str(error)[:200] or type(error).__name__, None, True) from None


def _modelscope(folder: Path, files: Sequence[str], where: Where) -> Callable[[], str]:
    """A try with ModelScope's own client, which asks for each content whether the hub has it, and commits what is very
    large in several pieces."""
    if find_spec("modelscope_hub") is None:
        raise problem("no-modelscope", Both("USE_MODELSCOPE_HUB is set, and ModelScope's client is not installed.",
                                            "设置了 USE_MODELSCOPE_HUB，但没有安装魔搭的客户端。"), option=where.option,
                      status=WRONG_OPTIONS, fix="pip install modelscope")
    from modelscope_hub.api import HubApi
    from modelscope_hub.config import HubConfig
    from modelscope_hub.errors import HubError
    from requests import RequestException

    logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
    settings = HubConfig()
    if not settings.token:
        raise _no_token(where, Both("Set MODELSCOPE_API_TOKEN, or run `modelscope login`.",
                                    "请设置 MODELSCOPE_API_TOKEN，或运行 `modelscope login`。"))
    api = HubApi(token=settings.token, endpoint=settings.endpoint)  # by itself it remembers those of its first use

    def upload() -> str:
        try:
            with redirect_stdout(StringIO()):  # it prints a report
                if not api.repo_exists(where.repo, "model"):
                    api.create_repo(where.repo, "model", visibility="private" if where.private else "public")
                api.upload_folder(where.repo, "model", folder, commit_message=f"{Path(where.repo).name}, by truetune",
                                  revision=where.branch, allow_patterns=list(files), disable_tqdm=True,
                                  use_cache=False)
        except (HubError, RequestException, OSError) as error:
            status = vars(error).get("status_code")
            raise Broken(str(error).strip().splitlines()[0][:200], status,
                         status is None or status in _PASSING) from None
        return f"{settings.endpoint}/models/{where.repo}"

    return upload


def _no_token(where: Where, fix: Both) -> Problem:
    return problem("no-token", Both("there is no token of the hub on this machine.", "本机没有模型站的 token。"),
                   option=where.option, fix=fix)


def main(words: Sequence[str]) -> int:
    """Send a folder again; the exit status."""
    if len(words) != 2:
        print(Both("a folder and a repository are needed: python -m truetune.export.push FOLDER OWNER/NAME",
                   "需要文件夹和仓库名：python -m truetune.export.push FOLDER OWNER/NAME"), file=sys.stderr)
        return WRONG_OPTIONS
    try:
        send(Path(words[0]), Where(words[1], "push"), print)
    except Problem as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return OK


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
