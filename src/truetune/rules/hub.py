"""Rules: what is uploaded where, and whether it can be."""

from __future__ import annotations

import os
import re
from pathlib import Path

from truetune.findings import Both
from truetune.rules.rule import Rule

_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_ID = re.compile(rf"(?:{_PART}/)?{_PART}", re.ASCII)
_BRANCH = re.compile(r"(?!.*(\.\.|//|@\{|\.lock$))[\w][\w./-]*(?<![./])", re.ASCII)
_UPLOADS = ("export_hub_model_id", "hub_model_id", "push_to_hub_model_id")


def _wrong(name: str) -> bool:
    """Whether `name` is nothing that a hub could call a repository: up to 96 letters, digits and . _ - in each part."""
    return not _ID.fullmatch(name) or ".." in name or "--" in name or any(len(part) > 96 for part in name.split("/")) \
        or name.endswith(".git")


def _modelscope() -> bool:
    return os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true", "y")


def _no_token() -> bool:
    """Whether no token is in sight where the hub's own client looks for one."""
    if _modelscope():
        return not os.environ.get("MODELSCOPE_API_TOKEN") and not (Path.home() / ".modelscope").is_dir()
    home = Path(os.environ.get("HF_HOME") or
                Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface").expanduser()
    file = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    return not (os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or file.is_file())


_LOGIN = Both("Set HF_TOKEN or run `hf auth login` (ModelScope: MODELSCOPE_API_TOKEN or `modelscope login`) before "
              "hours are spent.", "开始之前请设置 HF_TOKEN 或运行 `hf auth login`（魔搭：MODELSCOPE_API_TOKEN 或 "
              "`modelscope login`）。")
_TOKENLESS = Both("there is no token of the hub in sight on this machine, so the upload at the end would be refused.",
                  "本机找不到模型站的 token，最后的上传会被拒绝。")

RULES: tuple[Rule, ...] = (
    *(Rule("hub-id", name, lambda c, name=name: bool(getattr(c, name)) and _wrong(getattr(c, name)), "error",
           Both(f"{{{name}}} is no name of a repository.", f"{{{name}}} 不是合法的仓库名。"),
           Both("Write owner/name, of letters, digits, . _ and -.", "请写成 用户/名字，只用字母、数字和 . _ -。"),
           ("train", "check", "export")) for name in _UPLOADS),
    Rule("hub-branch", "hub_revision", lambda c: bool(c.hub_revision) and not _BRANCH.fullmatch(c.hub_revision or ""),
         "error", Both("{hub_revision} is no name of a branch.", "{hub_revision} 不是合法的分支名。"),
         verbs=("train", "check", "export")),
    Rule("hub-token", "push_to_hub", lambda c: c.push_to_hub and _no_token(), "warn", _TOKENLESS, _LOGIN,
         source="hf-tokens"),
    Rule("hub-token", "export_hub_model_id", lambda c: bool(c.export_hub_model_id) and _no_token(), "warn", _TOKENLESS,
         _LOGIN, ("export",), source="hf-tokens"),
    Rule("hub-id-unused", "hub_model_id",
         lambda c: not c.push_to_hub and bool(c.hub_model_id or c.push_to_hub_model_id), "info",
         Both("push_to_hub is off, so nothing is uploaded.", "push_to_hub 没有开启，不会上传。"),
         Both("Set push_to_hub: true.", "请设置 push_to_hub: true。"), cure=lambda c: {"push_to_hub": True}),
)
